//! Takes off a percentage by the customer's membership, which the shop puts into the
//! order's attribute "member".
#![cfg_attr(target_arch = "wasm32", no_std)]

#[path = "../../../plugins/sdk/rust/doorbuster.rs"]
mod doorbuster;
#[cfg(test)]
#[path = "../../../plugins/sdk/rust/doorbuster_test.rs"]
mod doorbuster_test;

use doorbuster::{share_half_even, Input, Output};

fn evaluate(input: Input<'_>) -> Output<'_> {
    let (basis_points, label, reason) = match input.attribute("member") {
        Some("gold") => (750, "Gold member: 7.5% off", "member_gold"),
        Some("silver") => (500, "Silver member: 5% off", "member_silver"),
        Some("bronze") => (250, "Bronze member: 2.5% off", "member_bronze"),
        _ => return Output::nothing(),
    };
    input.discount(share_half_even(input.payable(), basis_points), label, reason)
}

rule!(evaluate);

#[test]
fn vectors() {
    doorbuster_test::vectors("../../../plugins/sdk/rules/vectors/membertag.tsv", evaluate);
}
