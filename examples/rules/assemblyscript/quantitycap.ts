// quantitycap lets each customer have no more than so many units, over all their orders
// of the deal.
import { Answer, input, nothing, reject, text } from "../../../plugins/sdk/assemblyscript/doorbuster";
export { doorbuster_abi_v1, rule_buffer } from "../../../plugins/sdk/assemblyscript/doorbuster";

const CAP: u64 = 5;
const LABEL = text("At most 5 for each customer"), REASON = text("quantity_cap");

export function rule_evaluate(size: u32): Answer {
  return u64(input.userQuantity) + u64(input.quantity) > CAP ? reject(LABEL, REASON) : nothing();
}
