// The rule ABI, version 1, as an AssemblyScript program sees it. The contract is
// ABI.md of the engine; this file is its tables, and nothing is copied: a rule
// reads its input where the host put it.
//
// A rule is one file that exports what the host calls:
//
//   import { Answer, discount, input, nothing, payable, shareDown, text } from "./doorbuster";
//   export { doorbuster_abi_v1, rule_buffer } from "./doorbuster";
//
//   const LABEL = text("15% off from 3"), REASON = text("tier_3");
//
//   export function rule_evaluate(size: u32): Answer {
//     if (input.quantity < 3) return nothing();
//     return discount(shareDown(payable(), 1500), LABEL, REASON);
//   }
//
// Amounts are minor units of the order's currency, instants are Unix milliseconds.
//
// Every evaluation starts from the same memory, the one that the module had when
// its top-level code had run: what an evaluation allocates or sets is forgotten
// afterwards, so nothing is ever freed and the runtime is the stub one. Constant
// texts belong to the top level, where they cost nothing later.

// Bits of input.flags.
export const FIRST_ORDER: u16 = 1; // of this user in this deal
export const OPENS_GROUP: u16 = 2;
export const JOINS_GROUP: u16 = 4;
export const QUOTE: u16 = 8; // nothing is reserved

// Input is the fixed part of an input. The texts behind it are read with code and
// attribute.
@unmanaged
export class Input {
  size: u32; // bytes of the whole input, at most 8 KiB
  abi: u16;
  flags: u16;
  now: i64; // the order's stamp
  unitPrice: i64; // the group price when the order is in a group
  subtotal: i64; // unitPrice × quantity
  discountSoFar: i64; // by the rules before this one
  quantity: u32;
  userQuantity: u32; // units of this deal that the user already holds
  available: i64; // units, before this order
  stock: i64; // units
  startsAt: i64;
  endsAt: i64; // 0: open
  groupSize: u32; // 0: no group
  groupMembers: u32; // before this order
  currency: u32; // ISO 4217: three bytes, the fourth 0
  reserved: u32;
  dealID: u64; // refs, from here on: see textOf
  userID: u64;
  codes: u64;
  attributes: u64;
  dealAttributes: u64;
}

// Output is a rule's answer; the functions below fill it.
@unmanaged
export class Output {
  outcome: u16;
  flags: u16;
  reserved: u32;
  discount: i64;
  labelAt: u32;
  labelSize: u32;
  reasonAt: u32;
  reasonSize: u32;
}

// Values of output.outcome, and the bit of output.flags.
export const NONE: u16 = 0;
export const DISCOUNT: u16 = 1;
export const REJECT: u16 = 2;
export const FINAL: u16 = 1; // no later rule runs

// Answer is what rule_evaluate returns: where the output is.
export type Answer = u64;

const BUFFER_BYTES: u32 = 8 << 10; // the largest input
const BUFFER = memory.data(8192, 8);
const OUTPUT = memory.data(32, 32);

// input is the order to price.
export const input = changetype<Input>(BUFFER);

// output is the answer: "nothing" until a function below changes it.
export const output = changetype<Output>(OUTPUT);

export function doorbuster_abi_v1(): void {}

export function rule_buffer(size: u32): usize {
  if (size > BUFFER_BYTES) unreachable(); // a host of other bounds: the upload is refused
  return BUFFER;
}

// ---- Money

// payable is what is left to pay after the rules before this one: the most that a
// rule may take off.
export function payable(): i64 {
  return input.subtotal - input.discountSoFar;
}

// A share is amount × basisPoints / 10,000 of an amount that is not below 0, the
// basis points from 0 (nothing) to 10,000 (all), rounded to a whole minor unit.
// Nothing overflows: the ten thousands of the amount and the rest are taken
// apart. Other arguments trap.
const WHOLE: u32 = 10000;

// shareLow is what the amount's rest is worth, in ten thousandths: at most
// 9,999 × 10,000, which is why 32 bits hold it. Dividing by them is faster.
function shareLow(amount: i64, basisPoints: i64): u32 {
  return u32(u64(amount) - u64(amount) / WHOLE * WHOLE) * u32(basisPoints);
}

// shareDown rounds down: the merchant never gives more than the share.
export function shareDown(amount: i64, basisPoints: i64): i64 {
  if (amount < 0 || u64(basisPoints) > WHOLE) unreachable();
  return i64(u64(amount) / WHOLE) * basisPoints + i64(shareLow(amount, basisPoints) / WHOLE);
}

// shareRest is what shareDown leaves out, in ten thousandths of a minor unit.
function shareRest(amount: i64, basisPoints: i64): u32 {
  return shareLow(amount, basisPoints) % WHOLE;
}

// shareHalfEven rounds to the nearest, and from the middle to the even one: fair
// over many orders.
export function shareHalfEven(amount: i64, basisPoints: i64): i64 {
  const share = shareDown(amount, basisPoints), rest = shareRest(amount, basisPoints);
  return share + i64(rest > WHOLE / 2 || (rest == WHOLE / 2 && share % 2 == 1));
}

// shareUp rounds up: for thresholds.
export function shareUp(amount: i64, basisPoints: i64): i64 {
  return shareDown(amount, basisPoints) + i64(shareRest(amount, basisPoints) > 0);
}

// times is an amount that is not below 0, n times, or the largest amount where
// that does not fit: a discount is bounded by what is left to pay anyway.
export function times(amount: i64, n: u32): i64 {
  return n != 0 && amount > i64.MAX_VALUE / i64(n) ? i64.MAX_VALUE : amount * i64(n);
}

// ---- Texts

// Text is UTF-8 in memory: its address in the high half, its bytes in the low one.
// It costs no allocation and compares with equals. 0 is a missing text, which is
// not the same as an empty one.
export type Text = u64;

export const MISSING: Text = 0;

// text encodes a string. At the top level that happens once; in an evaluation it
// allocates, which is forgotten afterwards but takes its fuel.
export function text(s: string): Text {
  const size = String.UTF8.byteLength(s);
  const at = heap.alloc(size + 1); // one more, so that an empty text has a place too
  String.UTF8.encodeUnsafe(changetype<usize>(s), s.length, at);
  return view(at, size);
}

// view is size bytes at an address as a text.
export function view(at: usize, size: u32): Text {
  return (u64(at) << 32) | u64(size);
}

export function sizeOf(t: Text): u32 {
  return u32(t);
}

export function addressOf(t: Text): usize {
  return usize(t >> 32);
}

// decimal is a number in decimal digits.
export function decimal(n: u64): Text {
  const end = heap.alloc(20) + 20; // the digits of the largest one
  let at = end;
  do {
    at--;
    store<u8>(at, u8(0x30 + n % 10));
    n /= 10;
  } while (n != 0);
  return view(at, u32(end - at));
}

// join is a, then b.
export function join(a: Text, b: Text): Text {
  const at = heap.alloc(sizeOf(a) + sizeOf(b) + 1);
  memory.copy(at, addressOf(a), sizeOf(a));
  memory.copy(at + sizeOf(a), addressOf(b), sizeOf(b));
  return view(at, sizeOf(a) + sizeOf(b));
}

// equals compares byte for byte.
export function equals(a: Text, b: Text): bool {
  if (sizeOf(a) != sizeOf(b) || (a == MISSING) != (b == MISSING)) return false;
  let left = addressOf(a), right = addressOf(b);
  for (const end = left + sizeOf(a); left < end; left++) {
    if (load<u8>(left) != load<u8>(right++)) return false;
  }
  return true;
}

// folded is an ASCII letter as a capital, and any other byte as it is.
function folded(c: u32): u32 {
  return c - 0x61 < 26 ? c - 0x20 : c;
}

// hasPrefixFold says whether t begins with prefix, when a-z count as A-Z. No other
// letter has a second case here, so that every language agrees.
export function hasPrefixFold(t: Text, prefix: Text): bool {
  if (sizeOf(t) < sizeOf(prefix)) return false;
  let left = addressOf(t), right = addressOf(prefix);
  for (const end = right + sizeOf(prefix); right < end; right++) {
    if (folded(load<u8>(left++)) != folded(load<u8>(right))) return false;
  }
  return true;
}

// equalsFold is equals in the sense of hasPrefixFold.
export function equalsFold(a: Text, b: Text): bool {
  return sizeOf(a) == sizeOf(b) && hasPrefixFold(a, b);
}

// trim is the text without the spaces around it.
export function trim(t: Text): Text {
  let at = addressOf(t), size = sizeOf(t);
  while (size > 0 && load<u8>(at) == 0x20) {
    at++;
    size--;
  }
  while (size > 0 && load<u8>(at + size - 1) == 0x20) size--;
  return view(at, size);
}

// A list is a text whose entries commas separate. Spaces around an entry do not
// count, and empty entries are not there:
//
//   for (let list = trimList(t); sizeOf(list) > 0; list = rest(list)) … first(list) …

// trimList is a list from its first entry on, empty when there is none.
export function trimList(list: Text): Text {
  let at = addressOf(list), size = sizeOf(list);
  while (size > 0 && (load<u8>(at) == 0x20 || load<u8>(at) == 0x2c)) {
    at++;
    size--;
  }
  return view(at, size);
}

// entrySize is the bytes up to the list's first comma.
function entrySize(list: Text): u32 {
  let at = addressOf(list);
  const end = at + sizeOf(list);
  while (at < end && load<u8>(at) != 0x2c) at++;
  return u32(at - addressOf(list));
}

// first is the first entry of a trimmed list that is not empty.
export function first(list: Text): Text {
  return trim(view(addressOf(list), entrySize(list)));
}

// rest is the list behind its first entry, trimmed.
export function rest(list: Text): Text {
  const taken = entrySize(list);
  return trimList(view(addressOf(list) + taken, sizeOf(list) - taken));
}

// ---- What the order says

// textOf is the text that a ref of the input names.
export function textOf(ref: u64): Text {
  return view(BUFFER + u32(ref), u32(ref >> 32));
}

// codeCount is the number of the order's codes.
export function codeCount(): u32 {
  return u32(input.codes >> 32);
}

// code is code i of the order, i < codeCount().
export function code(i: u32): Text {
  return textOf(load<u64>(BUFFER + u32(input.codes) + i * 8));
}

// hasCode says whether the order carries the code, byte for byte.
export function hasCode(wanted: Text): bool {
  for (let i: u32 = 0; i < codeCount(); i++) {
    if (equals(code(i), wanted)) return true;
  }
  return false;
}

function valueOf(attributes: u64, key: Text): Text {
  let at = BUFFER + u32(attributes);
  for (let n = u32(attributes >> 32); n > 0; n--) {
    if (equals(textOf(load<u64>(at)), key)) return textOf(load<u64>(at, 8));
    at += 16;
  }
  return MISSING;
}

// attribute is the value of the order's attribute, or MISSING.
export function attribute(key: Text): Text {
  return valueOf(input.attributes, key);
}

// dealAttribute is the value of the deal's attribute, or MISSING.
export function dealAttribute(key: Text): Text {
  return valueOf(input.dealAttributes, key);
}

// ---- Answers

function answer(outcome: u16, label: Text, reason: Text): Answer {
  output.outcome = outcome;
  // An address, then its bytes: the halves of a Text the other way round.
  store<u64>(OUTPUT, rotl<u64>(label, 32), offsetof<Output>("labelAt"));
  store<u64>(OUTPUT, rotl<u64>(reason, 32), offsetof<Output>("reasonAt"));
  return (u64(OUTPUT) << 32) | 32;
}

// nothing says that the rule does not apply; reason may say why, for machines.
export function nothing(reason: Text = MISSING): Answer {
  return answer(NONE, MISSING, reason);
}

// discount takes amount off, but no less than 0 and no more than what is left to
// pay. label is for the shopper (at most 128 bytes), reason for machines (at most
// 64 of a-z 0-9 _).
export function discount(amount: i64, label: Text, reason: Text): Answer {
  output.discount = max<i64>(0, min<i64>(amount, payable()));
  return answer(DISCOUNT, label, reason);
}

// reject refuses the order.
export function reject(label: Text, reason: Text): Answer {
  return answer(REJECT, label, reason);
}

// final makes an answer the last one: no later rule runs.
export function final(answered: Answer): Answer {
  output.flags = FINAL;
  return answered;
}

// @ts-ignore: decorator
@external("doorbuster", "log")
declare function hostLog(at: usize, size: u32): void;

// log leaves a text for the merchant to read: at most 1 KiB an evaluation.
export function log(t: Text): void {
  hostLog(addressOf(t), sizeOf(t));
}
