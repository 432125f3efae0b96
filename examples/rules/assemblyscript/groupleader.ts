// groupleader gives a bonus to whoever opens a group.
import { Answer, OPENS_GROUP, discount, input, nothing, payable, shareDown, text } from "../../../plugins/sdk/assemblyscript/doorbuster";
export { doorbuster_abi_v1, rule_buffer } from "../../../plugins/sdk/assemblyscript/doorbuster";

const BASIS_POINTS: i64 = 500;
const BONUS_MIN: i64 = 100, BONUS_MAX: i64 = 2000; // minor units
const GROUP_MIN: u32 = 3;
const LABEL = text("Group leader bonus"), REASON = text("group_leader");

export function rule_evaluate(size: u32): Answer {
  if ((input.flags & OPENS_GROUP) == 0 || input.groupSize < GROUP_MIN) return nothing();
  const bonus = max(BONUS_MIN, min(shareDown(payable(), BASIS_POINTS), BONUS_MAX));
  return discount(bonus, LABEL, REASON);
}
