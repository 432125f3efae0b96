//! Logs the order's attribute "note" and shows it to the shopper. From two units on it
//! asks for a share of a debt, which traps.
#![no_std]

#[path = "../../../plugins/sdk/rust/doorbuster.rs"]
mod doorbuster;

use doorbuster::{module::log, share_down, Input, Output};

fn evaluate(input: Input<'_>) -> Output<'_> {
    let note = input.attribute("note").unwrap_or("");
    log(note);
    input.discount(share_down(if input.quantity < 2 { 10_000 } else { -1 }, 1), note, "note")
}

rule!(evaluate);
