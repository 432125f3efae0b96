// A discount function of the WASI kind as Rust's own library makes one, without crates:
// the metafield's percentage off the line from the metafield's quantity on.

use std::io::{Read, Write};

// after returns what stands behind a key in a JSON text, up to the value's end.
fn after<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let at = json.find(key)? + key.len();
    let end = json[at..].find(|c| c == ',' || c == '}')?;
    Some(&json[at..at + end])
}

// discount returns the percentage, None where there is none.
fn discount(input: &str) -> Option<f64> {
    let quantity: u32 = after(input, "\"quantity\":")?.parse().ok()?;
    let minimum: u32 = after(input, "\"minimum\":")?.parse().ok()?;
    let percentage: f64 = after(input, "\"percentage\":")?.parse().ok()?;
    (quantity >= minimum).then(|| percentage)
}

fn main() {
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).expect("an input");
    let operations = match discount(&input) {
        None => String::new(),
        Some(percentage) => format!(
            r#"{{"productDiscountsAdd":{{"selectionStrategy":"FIRST","candidates":[{{"message":"{percentage}% off","targets":[{{"cartLine":{{"id":"gid://shopify/CartLine/1"}}}}],"value":{{"percentage":{{"value":"{percentage}"}}}}}}]}}}}"#
        ),
    };
    write!(std::io::stdout(), r#"{{"operations":[{operations}]}}"#).expect("an output");
}
