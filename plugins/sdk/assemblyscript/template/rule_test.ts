import { price, reason } from "./doorbuster/doorbuster_test";
import { rule_evaluate } from "./rule";
export * from "./rule"; // for vectors.tsv

export function testOfWhatIsLeftToPay(): void {
  const output = price({ unitPrice: 9999, quantity: 2, discountSoFar: 9999 }, rule_evaluate);
  assert(output.discount == 999);
  assert(reason() == "from_2");
}

export function testOneUnit(): void {
  assert(price({ unitPrice: 9999 }, rule_evaluate).outcome == 0);
}
