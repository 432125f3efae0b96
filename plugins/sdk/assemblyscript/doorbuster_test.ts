// A test kit for rules in AssemblyScript. A test is a file that exports functions
// whose names begin with "test"; asc compiles it together with the rule, and
// doorbuster_test.mjs runs each of them in an instance of its own, under Node.
//
//   import { label, price, reason } from "./doorbuster_test";
//   import { rule_evaluate } from "./rule";
//
//   export function testThreeUnits(): void {
//     const output = price({ unitPrice: 9900, quantity: 3 }, rule_evaluate);
//     assert(output.discount == 4455);
//     assert(reason() == "tier_3");
//   }
//
//   npm test
import { Answer, FINAL, Input, Output, REJECT, input, output, payable, rule_buffer } from "./doorbuster";

const BYTES_MAX: u32 = 8 << 10; // of an input
const LABEL_BYTES_MAX: u32 = 128;
const REASON_BYTES_MAX: u32 = 64;

// Order is an input as a test writes it. The subtotal is unitPrice × quantity.
export class Order {
  flags: u16 = 0;
  now: i64 = 0;
  unitPrice: i64 = 0;
  discountSoFar: i64 = 0;
  quantity: u32 = 1;
  userQuantity: u32 = 0;
  available: i64 = 0;
  stock: i64 = 0;
  startsAt: i64 = 0;
  endsAt: i64 = 0;
  groupSize: u32 = 0;
  groupMembers: u32 = 0;
  currency: string = "CNY";
  dealID: string = "";
  userID: string = "";
  codes: string[] = [];
  attributes: string[][] = []; // [key, value]
  dealAttributes: string[][] = [];
}

// price runs the rule on an order. An answer that the host would refuse fails the
// test. The output is valid until the next call.
export function price(order: Order, rule: (size: u32) => Answer): Output {
  encode(order);
  memory.fill(changetype<usize>(output), 0, offsetof<Output>());
  const answered = rule(input.size);
  assert(answered == ((u64(changetype<usize>(output)) << 32) | offsetof<Output>()), "rule_evaluate returns what nothing, discount, reject or final returned");
  const refused = fault();
  assert(refused == "", "the host refuses the answer: " + refused);
  return output;
}

// label is the last answer's text for the shopper.
export function label(): string {
  return String.UTF8.decodeUnsafe(output.labelAt, output.labelSize);
}

// reason is the last answer's text for machines.
export function reason(): string {
  return String.UTF8.decodeUnsafe(output.reasonAt, output.reasonSize);
}

// fault says what the host would refuse in the output, or is empty.
export function fault(): string {
  if (output.outcome > REJECT || (output.flags & ~FINAL) != 0 || output.reserved != 0) return "outcome, flags or reserved";
  if (output.discount < 0 || output.discount > max<i64>(payable(), 0)) return "a discount below 0 or above what is left to pay";
  if (output.labelSize > LABEL_BYTES_MAX) return "a label of more than 128 bytes";
  if (output.reasonSize > REASON_BYTES_MAX) return "a reason of more than 64 bytes";
  for (let i: u32 = 0; i < output.reasonSize; i++) {
    const c = load<u8>(output.reasonAt + i);
    if (!((c >= 0x61 && c <= 0x7a) || (c >= 0x30 && c <= 0x39) || c == 0x5f)) return "a reason with something else than a-z 0-9 _";
  }
  return "";
}

// encode writes an order as the host does: the header, the arrays, the texts, zeros
// up to a multiple of 8.
export function encode(order: Order): void {
  memory.fill(rule_buffer(BYTES_MAX), 0, BYTES_MAX);
  input.size = offsetof<Input>();
  input.abi = 1;
  input.flags = order.flags;
  input.now = order.now;
  input.unitPrice = order.unitPrice;
  input.subtotal = order.unitPrice * i64(order.quantity);
  input.discountSoFar = order.discountSoFar;
  input.quantity = order.quantity;
  input.userQuantity = order.userQuantity;
  input.available = order.available;
  input.stock = order.stock;
  input.startsAt = order.startsAt;
  input.endsAt = order.endsAt;
  input.groupSize = order.groupSize;
  input.groupMembers = order.groupMembers;
  String.UTF8.encodeUnsafe(changetype<usize>(order.currency), 3, changetype<usize>(input) + offsetof<Input>("currency"));
  input.codes = putArray(order.codes.length, 1);
  input.attributes = putArray(order.attributes.length, 2);
  input.dealAttributes = putArray(order.dealAttributes.length, 2);
  input.dealID = putText(order.dealID);
  input.userID = putText(order.userID);
  for (let i = 0; i < order.codes.length; i++) putRef(input.codes, i, order.codes[i]);
  putPairs(input.attributes, order.attributes);
  putPairs(input.dealAttributes, order.dealAttributes);
  input.size = (input.size + 7) & ~7;
}

// putArray appends room for an array of entries of so many refs each.
function putArray(entries: u32, refs: u32): u64 {
  const array = (u64(entries) << 32) | u64(input.size);
  input.size += entries * refs * 8;
  assert(input.size <= BYTES_MAX, "the input is larger than 8 KiB");
  return array;
}

function putText(s: string): u64 {
  const size = u32(String.UTF8.byteLength(s)), at = input.size;
  assert(size <= BYTES_MAX - at, "the input is larger than 8 KiB");
  String.UTF8.encodeUnsafe(changetype<usize>(s), s.length, rule_buffer(BYTES_MAX) + at);
  input.size += size;
  return (u64(size) << 32) | u64(at);
}

function putRef(array: u64, i: u32, s: string): void {
  store<u64>(rule_buffer(BYTES_MAX) + u32(array) + i * 8, putText(s));
}

function putPairs(array: u64, pairs: string[][]): void {
  for (let i = 0; i < pairs.length; i++) {
    putRef(array, 2 * i, pairs[i][0]);
    putRef(array, 2 * i + 1, pairs[i][1]);
  }
}
