// firstorder takes off a percentage of a user's first order in the deal, up to a cap.
import { Answer, FIRST_ORDER, discount, input, nothing, payable, shareDown, text } from "../../../plugins/sdk/assemblyscript/doorbuster";
export { doorbuster_abi_v1, rule_buffer } from "../../../plugins/sdk/assemblyscript/doorbuster";

const BASIS_POINTS: i64 = 1500;
const CAP: i64 = 5000; // minor units
const LABEL = text("15% off your first order"), REASON = text("first_order");

export function rule_evaluate(size: u32): Answer {
  if ((input.flags & FIRST_ORDER) == 0) return nothing();
  return discount(min(shareDown(payable(), BASIS_POINTS), CAP), LABEL, REASON);
}
