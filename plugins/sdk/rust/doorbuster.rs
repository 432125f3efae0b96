//! The rule ABI, version 1, as a Rust program sees it. The contract is ABI.md of the
//! engine; this module is its tables, and nothing is copied: a rule reads its input
//! where the host put it.
//!
//! A rule is one file beside this one, with no dependency:
//!
//! ```ignore
//! #![cfg_attr(target_arch = "wasm32", no_std)]
//! mod doorbuster;
//! use doorbuster::{Input, Output};
//!
//! fn evaluate(input: Input<'_>) -> Output<'_> {
//!     if input.quantity < 3 {
//!         return Output::nothing();
//!     }
//!     input.discount(doorbuster::share_down(input.payable(), 1500), "15% off from 3", "tier_3")
//! }
//!
//! rule!(evaluate);
//! ```
//!
//! Compiled for wasm32, `rule!` defines what the host calls. Compiled for the author's
//! own machine it defines nothing, and the rule is plain Rust (doorbuster_test.rs).
//!
//! Amounts are minor units of the order's currency, instants are Unix milliseconds.
//! Every evaluation starts from the same memory: a static that a rule sets is
//! forgotten afterwards. A panic is a trap, and a trap is a fault: the deal decides
//! what the shopper sees then.
#![allow(dead_code)] // no rule needs all of it

use core::mem::{align_of, size_of};
use core::ops::Deref;

/// Bits of `Input::flags`.
pub const FIRST_ORDER: u16 = 1; // of this user in this deal
pub const OPENS_GROUP: u16 = 2;
pub const JOINS_GROUP: u16 = 4;
pub const QUOTE: u16 = 8; // nothing is reserved

/// The largest encoded input, in bytes.
pub const INPUT_BYTES_MAX: usize = 8 << 10;

/// A place in the input: an offset from its start, and a number of bytes (texts) or
/// of entries (arrays).
#[repr(C)]
#[derive(Clone, Copy)]
struct Ref {
    offset: u32,
    count: u32,
}

/// The fixed part of an input.
#[repr(C)]
pub struct Header {
    size: u32,
    abi: u16,
    pub flags: u16,
    /// The order's stamp.
    pub now: i64,
    /// The group price when the order is in a group.
    pub unit_price: i64,
    /// unit_price × quantity.
    pub subtotal: i64,
    /// By the rules before this one.
    pub discount_so_far: i64,
    pub quantity: u32,
    /// Units of this deal that the user already holds.
    pub user_quantity: u32,
    /// Units, before this order.
    pub available: i64,
    pub stock: i64,
    pub starts_at: i64,
    /// 0: open.
    pub ends_at: i64,
    /// 0: no group.
    pub group_size: u32,
    /// Before this order.
    pub group_members: u32,
    /// ISO 4217, the fourth byte 0.
    pub currency: [u8; 4],
    reserved: u32,
    deal_id: Ref,
    user_id: Ref,
    codes: Ref,
    attributes: Ref,
    deal_attributes: Ref,
}

const _: () = assert!(size_of::<Header>() == 136); // the layout of ABI.md

/// What a rule is told about an order: the header's fields, and the texts.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    header: &'a Header,
    bytes: &'a [u8],
}

impl Deref for Input<'_> {
    type Target = Header;

    fn deref(&self) -> &Header {
        self.header
    }
}

impl<'a> Input<'a> {
    /// An input as the host encodes it. Its start must be aligned to 8.
    ///
    /// # Safety
    /// The texts in it are UTF-8.
    pub unsafe fn from_host(bytes: &'a [u8]) -> Input<'a> {
        assert!(bytes.len() >= size_of::<Header>() && bytes.as_ptr() as usize % align_of::<Header>() == 0);
        // A header is made of integers alone: any bytes are one.
        Input { header: &*(bytes.as_ptr() as *const Header), bytes }
    }

    /// What is left to pay after the rules before this one: the most that a rule may
    /// take off.
    pub fn payable(self) -> i64 {
        self.subtotal - self.discount_so_far
    }

    pub fn deal_id(self) -> &'a str {
        self.text(self.deal_id)
    }

    pub fn user_id(self) -> &'a str {
        self.text(self.user_id)
    }

    /// The order's codes, in its order.
    pub fn codes(self) -> impl Iterator<Item = &'a str> {
        (0..self.codes.count).map(move |i| self.text(self.entry(self.codes, i)))
    }

    /// The value of the order's attribute.
    pub fn attribute(self, key: &str) -> Option<&'a str> {
        self.value(self.attributes, key)
    }

    /// The value of the deal's attribute.
    pub fn deal_attribute(self, key: &str) -> Option<&'a str> {
        self.value(self.deal_attributes, key)
    }

    fn value(self, attributes: Ref, key: &str) -> Option<&'a str> {
        (0..attributes.count)
            .find(|i| self.text(self.entry(attributes, 2 * i)) == key)
            .map(|i| self.text(self.entry(attributes, 2 * i + 1)))
    }

    fn text(self, r: Ref) -> &'a str {
        let bytes = &self.bytes[r.offset as usize..][..r.count as usize];
        // SAFETY: the promise of from_host.
        unsafe { core::str::from_utf8_unchecked(bytes) }
    }

    /// Ref i of an array of them.
    fn entry(self, array: Ref, i: u32) -> Ref {
        let bytes = &self.bytes[array.offset as usize..][i as usize * size_of::<Ref>()..][..size_of::<Ref>()];
        let word = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
        Ref { offset: word as u32, count: (word >> 32) as u32 }
    }

    /// Takes `amount` off, but no less than 0 and no more than what is left to pay.
    pub fn discount<'t>(self, amount: i64, label: &'t str, reason: &'t str) -> Output<'t> {
        let discount = amount.min(self.payable()).max(0);
        Output { outcome: Outcome::Discount, discount, label, reason, ..Output::nothing() }
    }
}

/// What a rule decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Nothing = 0,
    Discount = 1,
    Reject = 2,
}

/// A rule's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output<'a> {
    pub outcome: Outcome,
    /// No later rule runs.
    pub last: bool,
    /// 0 … `Input::payable`.
    pub discount: i64,
    /// For the shopper, at most 128 bytes.
    pub label: &'a str,
    /// For machines: at most 64 of a-z 0-9 _.
    pub reason: &'a str,
}

impl<'a> Output<'a> {
    /// The rule does not apply.
    pub fn nothing() -> Self {
        Output { outcome: Outcome::Nothing, last: false, discount: 0, label: "", reason: "" }
    }

    /// The order must not be.
    pub fn reject(label: &'a str, reason: &'a str) -> Self {
        Output { outcome: Outcome::Reject, label, reason, ..Output::nothing() }
    }
}

const WHOLE: i64 = 10_000;

/// `amount` × `basis_points` / 10,000 rounded down: the merchant never gives more than
/// the share. The amount is not below 0 and the basis points are 0 (nothing) to 10,000
/// (all), other arguments panic. Nothing overflows: the ten thousands of the amount
/// and the rest are taken apart.
pub fn share_down(amount: i64, basis_points: i64) -> i64 {
    assert!(amount >= 0 && (0..=WHOLE).contains(&basis_points));
    amount / WHOLE * basis_points + amount % WHOLE * basis_points / WHOLE
}

/// `share_down`, but rounded to the nearest, and from the middle to the even one: fair
/// over many orders.
pub fn share_half_even(amount: i64, basis_points: i64) -> i64 {
    let (share, rest) = (share_down(amount, basis_points), share_rest(amount, basis_points));
    share + i64::from(rest > WHOLE / 2 || (rest == WHOLE / 2 && share % 2 == 1))
}

/// `share_down`, but rounded up: for thresholds.
pub fn share_up(amount: i64, basis_points: i64) -> i64 {
    share_down(amount, basis_points) + i64::from(share_rest(amount, basis_points) > 0)
}

/// What `share_down` leaves out, in ten thousandths of a minor unit.
fn share_rest(amount: i64, basis_points: i64) -> i64 {
    amount % WHOLE * basis_points % WHOLE
}

/// The entries of a list that commas separate. Spaces around an entry do not count,
/// and empty entries are not there.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    core::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = rest.bytes().position(|b| b == b',').unwrap_or(rest.len());
            let entry = trim(&rest[..end]);
            rest = rest.get(end + 1..).unwrap_or("");
            if !entry.is_empty() {
                return Some(entry);
            }
        }
        None
    })
}

/// The text without the spaces around it. (`str::trim_matches` decodes UTF-8.)
pub fn trim(text: &str) -> &str {
    let plain = |b: &u8| *b != b' ';
    let bytes = text.as_bytes();
    match (bytes.iter().position(plain), bytes.iter().rposition(plain)) {
        (Some(first), Some(last)) => &text[first..=last],
        _ => "",
    }
}

/// Whether `text` begins with `prefix`, when a-z count as A-Z. No other letter has a
/// second case here, so that every language agrees. For equality there is
/// `str::eq_ignore_ascii_case`.
pub fn has_prefix_fold(text: &str, prefix: &str) -> bool {
    text.len() >= prefix.len() && text.as_bytes()[..prefix.len()].eq_ignore_ascii_case(prefix.as_bytes())
}

/// Defines what the host calls, for a rule `fn(Input<'_>) -> Output<'_>`.
#[macro_export]
macro_rules! rule {
    ($evaluate:path) => {
        #[cfg(target_arch = "wasm32")]
        #[no_mangle]
        pub extern "C" fn rule_evaluate(size: u32) -> u64 {
            $crate::doorbuster::module::answer($evaluate, size)
        }
    };
}

/// The module, for the host.
#[cfg(target_arch = "wasm32")]
pub mod module {
    use super::{Input, Output, INPUT_BYTES_MAX};
    use core::mem::MaybeUninit;
    use core::ptr::addr_of_mut;

    #[repr(C, align(8))]
    struct Buffer([u8; INPUT_BYTES_MAX]);

    /// An output as it lies in memory.
    #[repr(C)]
    struct Encoded {
        outcome: u16,
        flags: u16,
        reserved: u32,
        discount: i64,
        label: *const u8,
        label_size: u32,
        reason: *const u8,
        reason_size: u32,
    }

    const _: () = assert!(core::mem::size_of::<Encoded>() == 32); // the layout of ABI.md

    static mut BUFFER: Buffer = Buffer([0; INPUT_BYTES_MAX]);
    static mut OUTPUT: MaybeUninit<Encoded> = MaybeUninit::uninit();

    #[no_mangle]
    pub extern "C" fn doorbuster_abi_v1() {}

    #[no_mangle]
    pub extern "C" fn rule_buffer(size: u32) -> *mut u8 {
        assert!(size as usize <= INPUT_BYTES_MAX); // or a host of other bounds: the upload is refused
        // SAFETY: only its address is taken.
        unsafe { addr_of_mut!(BUFFER) as *mut u8 }
    }

    /// Runs a rule on the buffer and returns where its answer is.
    pub fn answer(evaluate: impl for<'a> Fn(Input<'a>) -> Output<'a>, size: u32) -> u64 {
        // SAFETY: the host wrote an input into the buffer and calls one function at a
        // time, so that nothing else uses the two statics.
        unsafe {
            let buffer: &[u8; INPUT_BYTES_MAX] = &*(addr_of_mut!(BUFFER) as *const _);
            let out = evaluate(Input::from_host(&buffer[..size as usize]));
            let place = addr_of_mut!(OUTPUT) as *mut Encoded;
            place.write(Encoded {
                outcome: out.outcome as u16,
                flags: out.last as u16,
                reserved: 0,
                discount: out.discount,
                label: out.label.as_ptr(),
                label_size: out.label.len() as u32,
                reason: out.reason.as_ptr(),
                reason_size: out.reason.len() as u32,
            });
            (place as u64) << 32 | core::mem::size_of::<Encoded>() as u64
        }
    }

    #[link(wasm_import_module = "doorbuster")]
    extern "C" {
        #[link_name = "log"]
        fn host_log(at: *const u8, size: u32);
    }

    /// Leaves a text for the merchant to read: at most 1 KiB an evaluation.
    pub fn log(text: &str) {
        // SAFETY: the host reads the text and keeps nothing.
        unsafe { host_log(text.as_ptr(), text.len() as u32) }
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        core::arch::wasm32::unreachable()
    }
}
