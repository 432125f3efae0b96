//! The bindings and the kit against the vectors that all languages share. From the
//! repository: rustc --edition=2021 --test plugins/sdk/rust/sdk_test.rs; the test runs
//! in plugins/sdk/rust.

mod doorbuster;
mod doorbuster_test;

use doorbuster::{has_prefix_fold, list, share_down, share_half_even, share_up, trim, Input, Output};
use doorbuster_test::{fault, Order};
use std::fs;

fn golden(name: &str) -> Vec<u8> {
    fs::read(format!("../../abi/testdata/{}.bin", name)).unwrap()
}

#[test]
fn golden_inputs() {
    assert_eq!(Order::default().encode().bytes(), golden("input_minimal"));
    let plain = Order {
        flags: doorbuster::FIRST_ORDER, now: 1790000000000, unit_price: 9900, quantity: 2, available: 99, stock: 100,
        starts_at: 1789999999000, ends_at: 1790000600000, deal_id: "d-flash", user_id: "u-1", ..Order::default()
    };
    assert_eq!(plain.encode().bytes(), golden("input_plain"));
    let full = Order {
        flags: doorbuster::JOINS_GROUP | doorbuster::QUOTE, now: 1790000000001, unit_price: 7900, discount_so_far: 2370,
        quantity: 3, user_quantity: 1, available: 1 << 40, stock: 1 << 41, starts_at: 1, ends_at: 0, group_size: 3,
        group_members: 2, currency: "JPY", deal_id: "deal/面", user_id: "ユーザー", codes: &["SAVE10", "", "ÜMLAUT"],
        attributes: &[("member", "gold"), ("note", "")], deal_attributes: &[("sku", "LY-25")],
    };
    assert_eq!(full.encode().bytes(), golden("input_full"));
}

#[test]
fn money() {
    let table = fs::read_to_string("../rules/vectors/money.tsv").unwrap();
    assert!(table.lines().count() > 20);
    for line in table.lines() {
        let n: Vec<i64> = line.split('\t').map(|field| field.parse().unwrap()).collect();
        let got = [share_down(n[0], n[1]), share_half_even(n[0], n[1]), share_up(n[0], n[1])];
        assert_eq!(got, n[2..], "{}", line);
    }
}

#[test]
#[should_panic]
fn a_share_of_a_debt() {
    share_down(-1, 100);
}

#[test]
fn texts() {
    let order = Order {
        deal_id: "d", user_id: "面", codes: &["A", "", "BC"], attributes: &[("k", ""), ("l", "12")],
        deal_attributes: &[("k", "deal's")], ..Order::default()
    }
    .encode();
    let input = order.input();
    assert_eq!((input.deal_id(), input.user_id()), ("d", "面"));
    assert_eq!(input.codes().collect::<Vec<_>>(), ["A", "", "BC"]);
    assert_eq!((input.attribute("k"), input.attribute("l"), input.attribute("x")), (Some(""), Some("12"), None));
    assert_eq!((input.deal_attribute("k"), input.deal_attribute("l")), (Some("deal's"), None));
    assert_eq!(list(" , a b ,,c,").collect::<Vec<_>>(), ["a b", "c"]);
    assert_eq!(list("").count() + list(" , ").count(), 0);
    assert_eq!([trim(""), trim("  "), trim(" é "), trim("a b")], ["", "", "é", "a b"]);
    assert!(has_prefix_fold("aZ-ı", "Az-ı") && has_prefix_fold("aa", "A") && has_prefix_fold("a", ""));
    assert!(!has_prefix_fold("a", "aa") && !has_prefix_fold("a", "b"));
}

/// A rule that tells what it was told.
fn told(input: Input<'_>) -> Output<'_> {
    input.discount(70, input.attribute("member").unwrap_or(""), "told")
}

#[test]
fn discounts_stay_within_what_is_left_to_pay() {
    let order = Order { unit_price: 100, quantity: 2, attributes: &[("member", "gold")], ..Order::default() };
    // 201 is more than the host ever says.
    for (so_far, want) in [(0, 70), (150, 50), (201, 0)] {
        let encoded = Order { discount_so_far: so_far, ..order.clone() }.encode();
        assert_eq!(encoded.price(told), Output { discount: want, label: "gold", ..encoded.input().discount(0, "", "told") });
    }
}

#[test]
fn faults() {
    let order = Order { unit_price: 10, discount_so_far: 1, ..Order::default() }.encode();
    let input = order.input();
    let good = input.discount(10, "l", "r_9");
    assert_eq!((good.discount, fault(input, &good)), (9, None));
    let long = "é".repeat(65);
    for bad in [
        Output { discount: 10, ..good },
        Output { discount: -1, ..good },
        Output { label: &long, ..good },
        Output { reason: "R", ..good },
        Output { reason: &"r".repeat(65), ..good },
    ] {
        assert!(fault(input, &bad).is_some(), "{:?}", bad);
    }
}
