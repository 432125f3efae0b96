// code gives what the first known code of the order gives.
import { Answer, Text, code, codeCount, discount, equalsFold, final, input, nothing, payable, shareDown, text } from "../../../plugins/sdk/assemblyscript/doorbuster";
export { doorbuster_abi_v1, rule_buffer } from "../../../plugins/sdk/assemblyscript/doorbuster";

// Gift is what a code gives: basis points of what is left to pay, or an amount from a
// minimum subtotal on.
class Gift {
  code: Text;
  label: Text;
  reason: Text;
  constructor(code: string, public basisPoints: i64, public amount: i64, public minimum: i64, public last: bool, reason: string) {
    this.code = text(code);
    this.label = text("Code " + code);
    this.reason = text(reason);
  }
}

const GIFTS: StaticArray<Gift> = [
  new Gift("VIP", 2000, 0, 0, true, "code_vip"),
  new Gift("SAVE10", 1000, 0, 0, false, "code_save10"),
  new Gift("MINUS500", 0, 500, 2000, false, "code_minus500"),
];

const BELOW_MINIMUM = text("code_minimum");

export function rule_evaluate(size: u32): Answer {
  for (let i: u32 = 0; i < codeCount(); i++) {
    for (let g = 0; g < GIFTS.length; g++) {
      if (equalsFold(code(i), GIFTS[g].code)) return give(GIFTS[g]);
    }
  }
  return nothing();
}

function give(gift: Gift): Answer {
  if (input.subtotal < gift.minimum) return nothing(BELOW_MINIMUM);
  const answer = discount(gift.amount + shareDown(payable(), gift.basisPoints), gift.label, gift.reason);
  return gift.last ? final(answer) : answer;
}
