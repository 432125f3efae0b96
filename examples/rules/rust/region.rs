//! Rejects orders to the places that the deal's attribute "not_in" lists: countries
//! ("US") and subdivisions ("CA-QC"). The order's attribute "region" is where it goes
//! to.
#![cfg_attr(target_arch = "wasm32", no_std)]

#[path = "../../../plugins/sdk/rust/doorbuster.rs"]
mod doorbuster;
#[cfg(test)]
#[path = "../../../plugins/sdk/rust/doorbuster_test.rs"]
mod doorbuster_test;

use doorbuster::{has_prefix_fold, list, trim, Input, Output};

fn evaluate(input: Input<'_>) -> Output<'_> {
    let to = trim(input.attribute("region").unwrap_or(""));
    for region in list(input.deal_attribute("not_in").unwrap_or("")) {
        if to.is_empty() {
            return Output::reject("Please say where to deliver", "region_missing");
        }
        if covers(region, to) {
            return Output::reject("Not sold in your region", "region_blocked");
        }
    }
    Output::nothing()
}

/// Whether place is the region or lies in it.
fn covers(region: &str, place: &str) -> bool {
    has_prefix_fold(place, region) && matches!(place.as_bytes().get(region.len()), None | Some(b'-'))
}

rule!(evaluate);

#[test]
fn vectors() {
    doorbuster_test::vectors("../../../plugins/sdk/rules/vectors/region.tsv", evaluate);
}
