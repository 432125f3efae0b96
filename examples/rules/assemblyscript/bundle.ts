// bundle makes a deal cheaper together with another product: the one that the deal's
// attribute "bundle" names, when the list in the order's attribute "cart" has it.
import { Answer, attribute, dealAttribute, discount, equals, first, input, nothing, rest, sizeOf, text, times, trimList } from "../../../plugins/sdk/assemblyscript/doorbuster";
export { doorbuster_abi_v1, rule_buffer } from "../../../plugins/sdk/assemblyscript/doorbuster";

const OFF: i64 = 1200; // minor units for each unit
const BUNDLE = text("bundle"), CART = text("cart");
const LABEL = text("Bundle price"), REASON = text("bundle");

export function rule_evaluate(size: u32): Answer {
  const product = dealAttribute(BUNDLE);
  for (let cart = trimList(attribute(CART)); sizeOf(cart) > 0; cart = rest(cart)) {
    if (equals(first(cart), product)) return discount(times(OFF, input.quantity), LABEL, REASON);
  }
  return nothing();
}
