//! Takes off a percentage that grows with the quantity.
#![cfg_attr(target_arch = "wasm32", no_std)]

#[path = "../../../plugins/sdk/rust/doorbuster.rs"]
mod doorbuster;
#[cfg(test)]
#[path = "../../../plugins/sdk/rust/doorbuster_test.rs"]
mod doorbuster_test;

use doorbuster::{share_down, Input, Output};

struct Tier {
    from: u32,
    basis_points: i64,
    label: &'static str,
    reason: &'static str,
}

/// From the highest quantity down: the first that fits is the one.
const TIERS: [Tier; 3] = [
    Tier { from: 5, basis_points: 2_000, label: "20% off from 5", reason: "tier_5" },
    Tier { from: 3, basis_points: 1_500, label: "15% off from 3", reason: "tier_3" },
    Tier { from: 1, basis_points: 1_000, label: "10% off from 1", reason: "tier_1" },
];

fn evaluate(input: Input<'_>) -> Output<'_> {
    match TIERS.iter().find(|tier| input.quantity >= tier.from) {
        Some(tier) => input.discount(share_down(input.payable(), tier.basis_points), tier.label, tier.reason),
        None => Output::nothing(),
    }
}

rule!(evaluate);

#[test]
fn vectors() {
    doorbuster_test::vectors("../../../plugins/sdk/rules/vectors/tiered.tsv", evaluate);
}
