// combinedcap takes off a percentage, and stops where all discounts together reach a
// cap. It stands last in a deal's list of rules. Both are of the subtotal.
import { Answer, discount, final, input, nothing, shareDown, text } from "../../../plugins/sdk/assemblyscript/doorbuster";
export { doorbuster_abi_v1, rule_buffer } from "../../../plugins/sdk/assemblyscript/doorbuster";

const BASIS_POINTS: i64 = 2500;
const CAP: i64 = 4000; // basis points
const REACHED = text("cap_reached");
const CAPPED_LABEL = text("25% off, at most 40% in all"), CAPPED = text("combined_cap");
const LABEL = text("25% off"), REASON = text("within_cap");

export function rule_evaluate(size: u32): Answer {
  const room = shareDown(input.subtotal, CAP) - input.discountSoFar;
  if (room <= 0) return final(nothing(REACHED));
  const share = shareDown(input.subtotal, BASIS_POINTS);
  if (share > room) return final(discount(room, CAPPED_LABEL, CAPPED));
  const answer = discount(share, LABEL, REASON);
  return share == room ? final(answer) : answer;
}
