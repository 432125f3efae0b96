// tiered takes off a percentage that grows with the quantity.
import { Answer, Text, discount, input, nothing, payable, shareDown, text } from "../../../plugins/sdk/assemblyscript/doorbuster";
export { doorbuster_abi_v1, rule_buffer } from "../../../plugins/sdk/assemblyscript/doorbuster";

class Tier {
  label: Text;
  reason: Text;
  constructor(public from: u32, public basisPoints: i64, label: string, reason: string) {
    this.label = text(label);
    this.reason = text(reason);
  }
}

// From the highest quantity down: the first that fits is the one.
const TIERS: StaticArray<Tier> = [
  new Tier(5, 2000, "20% off from 5", "tier_5"),
  new Tier(3, 1500, "15% off from 3", "tier_3"),
  new Tier(1, 1000, "10% off from 1", "tier_1"),
];

export function rule_evaluate(size: u32): Answer {
  for (let i = 0; i < TIERS.length; i++) {
    const tier = TIERS[i];
    if (input.quantity >= tier.from) return discount(shareDown(payable(), tier.basisPoints), tier.label, tier.reason);
  }
  return nothing();
}
