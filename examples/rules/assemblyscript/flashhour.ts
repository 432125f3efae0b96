// flashhour takes off a percentage during one hour of every day.
import { Answer, discount, input, nothing, payable, shareDown, text } from "../../../plugins/sdk/assemblyscript/doorbuster";
export { doorbuster_abi_v1, rule_buffer } from "../../../plugins/sdk/assemblyscript/doorbuster";

const HOUR: i64 = 60 * 60 * 1000; // ms
const DAY: i64 = 24 * HOUR;
const ZONE: i64 = 8 * HOUR; // UTC+8
const FROM: i64 = 20 * HOUR, UNTIL: i64 = 21 * HOUR;
const BASIS_POINTS: i64 = 2500;
const LABEL = text("Flash hour: 25% off"), REASON = text("flash_hour");

export function rule_evaluate(size: u32): Answer {
  let time = (input.now + ZONE) % DAY;
  if (time < 0) time += DAY; // before 1970
  if (time < FROM || time >= UNTIL) return nothing();
  return discount(shareDown(payable(), BASIS_POINTS), LABEL, REASON);
}
