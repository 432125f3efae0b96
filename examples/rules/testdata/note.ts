// note logs the order's attribute "note" and shows it to the shopper. From two units on
// it asks for a share of a debt, which traps.
import { Answer, attribute, discount, input, log, shareDown, text } from "../../../plugins/sdk/assemblyscript/doorbuster";
export { doorbuster_abi_v1, rule_buffer } from "../../../plugins/sdk/assemblyscript/doorbuster";

const NOTE = text("note");

export function rule_evaluate(size: u32): Answer {
  const note = attribute(NOTE);
  log(note);
  return discount(shareDown(input.quantity < 2 ? 10000 : -1, 1), note, NOTE);
}
