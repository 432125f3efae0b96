//! A test kit for rules in Rust, on the author's own machine (little-endian, as all
//! that run rules), with nothing but `cargo test`:
//!
//! ```ignore
//! #[cfg(test)]
//! mod doorbuster_test;
//!
//! #[cfg(test)]
//! mod tests {
//!     use super::{doorbuster_test::Order, evaluate};
//!
//!     #[test]
//!     fn three_units() {
//!         let order = Order { unit_price: 9_900, quantity: 3, ..Order::default() }.encode();
//!         let out = order.price(evaluate);
//!         assert_eq!((out.discount, out.reason), (4_455, "tier_3"));
//!     }
//! }
//! ```
#![allow(dead_code)] // no test needs all of it

use crate::doorbuster::{Input, Outcome, Output, INPUT_BYTES_MAX};
use std::{fs, slice};

const HEADER_BYTES: usize = 136;
const LABEL_BYTES_MAX: usize = 128;
const REASON_BYTES_MAX: usize = 64;

/// An input as a test writes it. The subtotal is unit_price × quantity.
#[derive(Clone)]
pub struct Order<'a> {
    pub flags: u16,
    pub now: i64,
    pub unit_price: i64,
    pub discount_so_far: i64,
    pub quantity: u32,
    pub user_quantity: u32,
    pub available: i64,
    pub stock: i64,
    pub starts_at: i64,
    pub ends_at: i64,
    pub group_size: u32,
    pub group_members: u32,
    pub currency: &'a str,
    pub deal_id: &'a str,
    pub user_id: &'a str,
    pub codes: &'a [&'a str],
    pub attributes: &'a [(&'a str, &'a str)],
    pub deal_attributes: &'a [(&'a str, &'a str)],
}

impl Default for Order<'_> {
    fn default() -> Self {
        Order {
            flags: 0, now: 0, unit_price: 0, discount_so_far: 0, quantity: 1, user_quantity: 0, available: 0, stock: 0,
            starts_at: 0, ends_at: 0, group_size: 0, group_members: 0, currency: "CNY", deal_id: "", user_id: "",
            codes: &[], attributes: &[], deal_attributes: &[],
        }
    }
}

impl Order<'_> {
    /// The order in the host's bytes: the header, the arrays, the texts, zeros up to a
    /// multiple of 8.
    pub fn encode(&self) -> Encoded {
        let mut header = Vec::new();
        header.extend([0; 4]); // the size, once it is known
        header.extend(1u16.to_le_bytes());
        header.extend(self.flags.to_le_bytes());
        let subtotal = self.unit_price * i64::from(self.quantity);
        for v in [self.now, self.unit_price, subtotal, self.discount_so_far] {
            header.extend(v.to_le_bytes());
        }
        header.extend(self.quantity.to_le_bytes());
        header.extend(self.user_quantity.to_le_bytes());
        for v in [self.available, self.stock, self.starts_at, self.ends_at] {
            header.extend(v.to_le_bytes());
        }
        header.extend(self.group_size.to_le_bytes());
        header.extend(self.group_members.to_le_bytes());
        header.extend(self.currency.as_bytes());
        header.extend([0; 5]);

        let (attributes, deal_attributes) = (flat(self.attributes), flat(self.deal_attributes));
        let refs = self.codes.len() + attributes.len() + deal_attributes.len();
        let mut tables = Vec::new();
        let mut texts = Texts { start: HEADER_BYTES + 8 * refs, bytes: Vec::new() };
        header.extend(texts.put(self.deal_id));
        header.extend(texts.put(self.user_id));
        for (list, width) in [(self.codes.to_vec(), 1), (attributes, 2), (deal_attributes, 2)] {
            header.extend(reference(HEADER_BYTES + tables.len(), list.len() / width));
            list.iter().for_each(|text| tables.extend(texts.put(text)));
        }
        let mut bytes = [header, tables, texts.bytes].concat();
        bytes.resize((bytes.len() + 7) / 8 * 8, 0);
        let size = bytes.len() as u32;
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        Encoded::from_bytes(&bytes)
    }
}

fn flat<'a>(pairs: &[(&'a str, &'a str)]) -> Vec<&'a str> {
    pairs.iter().flat_map(|(key, value)| [*key, *value]).collect()
}

fn reference(offset: usize, count: usize) -> [u8; 8] {
    (offset as u64 | (count as u64) << 32).to_le_bytes()
}

struct Texts {
    start: usize,
    bytes: Vec<u8>,
}

impl Texts {
    /// Appends a text and returns its ref.
    fn put(&mut self, text: &str) -> [u8; 8] {
        let offset = self.start + self.bytes.len();
        self.bytes.extend(text.as_bytes());
        reference(offset, text.len())
    }
}

/// An input in the bytes that a rule gets.
pub struct Encoded {
    words: Vec<u64>, // so that it is aligned
}

impl Encoded {
    fn from_bytes(bytes: &[u8]) -> Encoded {
        assert!(bytes.len() <= INPUT_BYTES_MAX, "the input is larger than 8 KiB");
        Encoded { words: bytes.chunks(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect() }
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the bytes of the words.
        unsafe { slice::from_raw_parts(self.words.as_ptr() as *const u8, 8 * self.words.len()) }
    }

    pub fn input(&self) -> Input<'_> {
        // SAFETY: its texts came from str, or from the vectors of the engine.
        unsafe { Input::from_host(self.bytes()) }
    }

    /// Runs the rule. Panics when the host would refuse the answer.
    pub fn price(&self, rule: impl for<'a> Fn(Input<'a>) -> Output<'a>) -> Output<'_> {
        let out = rule(self.input());
        if let Some(refused) = fault(self.input(), &out) {
            panic!("the host refuses the answer: {}", refused);
        }
        out
    }
}

/// What the host would refuse in an answer.
pub fn fault(input: Input, out: &Output) -> Option<&'static str> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    if out.discount < 0 || out.discount > input.payable().max(0) {
        Some("a discount below 0 or above what is left to pay")
    } else if out.label.len() > LABEL_BYTES_MAX {
        Some("a label of more than 128 bytes")
    } else if out.reason.len() > REASON_BYTES_MAX || !out.reason.bytes().all(plain) {
        Some("a reason of more than 64 bytes, or with something else than a-z 0-9 _")
    } else {
        None
    }
}

/// Runs the rule on every case of a table that all languages share. A line is a case,
/// its fields separated by tabs: the input in hexadecimal, outcome, discount, final,
/// reason, label, name. Panics with all the cases that fail.
pub fn vectors(path: &str, rule: impl for<'a> Fn(Input<'a>) -> Output<'a>) {
    let table = fs::read_to_string(path).unwrap_or_else(|err| panic!("{}: {}", path, err));
    assert!(!table.is_empty(), "{}: no cases", path);
    let mut failed = String::new();
    for line in table.lines() {
        let (encoded, rest) = line.split_once('\t').expect("an input");
        let (want, name) = rest.rsplit_once('\t').expect("a name");
        let encoded = Encoded::from_bytes(&from_hex(encoded));
        let out = encoded.price(&rule);
        let outcome = match out.outcome {
            Outcome::Nothing => 0,
            Outcome::Discount => 1,
            Outcome::Reject => 2,
        };
        let got = format!("{}\t{}\t{}\t{}\t{}", outcome, out.discount, out.last as u8, out.reason, out.label);
        if got != want {
            failed += &format!("\n{}: got {:?}, want {:?}", name, got, want);
        }
    }
    assert!(failed.is_empty(), "{}:{}", path, failed);
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hexadecimal")).collect()
}
