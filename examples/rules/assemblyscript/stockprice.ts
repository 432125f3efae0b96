// stockprice takes off the more, the more of the stock is left.
import { Answer, Text, decimal, discount, input, join, nothing, payable, shareDown, shareUp, text } from "../../../plugins/sdk/assemblyscript/doorbuster";
export { doorbuster_abi_v1, rule_buffer } from "../../../plugins/sdk/assemblyscript/doorbuster";

class Step {
  label: Text;
  reason: Text;
  constructor(public left: i64, public off: i64) { // percent
    this.label = join(join(text("Early bird: "), decimal(off)), text("% off"));
    this.reason = join(text("stock_"), decimal(left));
  }
}

// From the fullest stock down: the first that is reached is the one.
const STEPS: StaticArray<Step> = [new Step(80, 30), new Step(50, 20), new Step(20, 10)];

export function rule_evaluate(size: u32): Answer {
  if (input.stock <= 0) return nothing();
  for (let i = 0; i < STEPS.length; i++) {
    const step = STEPS[i];
    if (input.available >= shareUp(input.stock, step.left * 100)) {
      return discount(shareDown(payable(), step.off * 100), step.label, step.reason);
    }
  }
  return nothing();
}
