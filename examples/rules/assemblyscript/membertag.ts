// membertag takes off a percentage by the customer's membership, which the shop puts
// into the order's attribute "member".
import { Answer, Text, attribute, discount, equals, nothing, payable, shareHalfEven, text } from "../../../plugins/sdk/assemblyscript/doorbuster";
export { doorbuster_abi_v1, rule_buffer } from "../../../plugins/sdk/assemblyscript/doorbuster";

class Level {
  member: Text;
  label: Text;
  reason: Text;
  constructor(member: string, public basisPoints: i64, label: string) {
    this.member = text(member);
    this.label = text(label);
    this.reason = text("member_" + member);
  }
}

const LEVELS: StaticArray<Level> = [
  new Level("gold", 750, "Gold member: 7.5% off"),
  new Level("silver", 500, "Silver member: 5% off"),
  new Level("bronze", 250, "Bronze member: 2.5% off"),
];

const MEMBER = text("member");

export function rule_evaluate(size: u32): Answer {
  const member = attribute(MEMBER);
  for (let i = 0; i < LEVELS.length; i++) {
    const level = LEVELS[i];
    if (equals(member, level.member)) {
      return discount(shareHalfEven(payable(), level.basisPoints), level.label, level.reason);
    }
  }
  return nothing();
}
