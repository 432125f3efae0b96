// buyxgety gives the last units of every set of PAY + FREE units for free. Of the units
// beyond the last whole set, those beyond PAY are free.
import { Answer, decimal, discount, input, join, nothing, text, times } from "../../../plugins/sdk/assemblyscript/doorbuster";
export { doorbuster_abi_v1, rule_buffer } from "../../../plugins/sdk/assemblyscript/doorbuster";

const PAY: u32 = 3;
const FREE: u32 = 2;
const BUY = text("Buy 3, get 2: "), UNITS_FREE = text(" free");
const REASON = text("free_units");

export function rule_evaluate(size: u32): Answer {
  const sets = input.quantity / (PAY + FREE), rest = input.quantity % (PAY + FREE);
  const free = sets * FREE + (rest > PAY ? rest - PAY : 0);
  if (free == 0) return nothing();
  const label = join(join(BUY, decimal(free)), UNITS_FREE);
  return discount(times(input.unitPrice, free), label, REASON);
}
