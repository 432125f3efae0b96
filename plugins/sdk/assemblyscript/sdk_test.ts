// The bindings and the kit. sdk_test.mjs compares what the golden functions leave in
// the buffer, and what the money functions return, with the vectors that all
// languages share; doorbuster_test.mjs runs the tests.
import * as db from "./doorbuster";
import { Order, encode, fault, label, price, reason } from "./doorbuster_test";
export { rule_buffer, shareDown, shareHalfEven, shareUp } from "./doorbuster";

const MEMBER = db.text("member"), TOLD = db.text("told");

// A rule that tells what it was told.
function told(size: u32): db.Answer {
  return db.discount(70, db.attribute(MEMBER), TOLD);
}

export function golden_input_minimal(): u32 {
  encode({});
  return db.input.size;
}

export function golden_input_plain(): u32 {
  encode({
    flags: db.FIRST_ORDER, now: 1790000000000, unitPrice: 9900, quantity: 2, available: 99, stock: 100,
    startsAt: 1789999999000, endsAt: 1790000600000, dealID: "d-flash", userID: "u-1",
  });
  return db.input.size;
}

export function golden_input_full(): u32 {
  encode({
    flags: db.JOINS_GROUP | db.QUOTE, now: 1790000000001, unitPrice: 7900, discountSoFar: 2370, quantity: 3, userQuantity: 1,
    available: 1 << 40, stock: 1 << 41, startsAt: 1, groupSize: 3, groupMembers: 2, currency: "JPY", dealID: "deal/面", userID: "ユーザー",
    codes: ["SAVE10", "", "ÜMLAUT"], attributes: [["member", "gold"], ["note", ""]], dealAttributes: [["sku", "LY-25"]],
  });
  return db.input.size;
}

export function testPrice(): void {
  const order: Order = { unitPrice: 100, quantity: 2, discountSoFar: 150, attributes: [["member", "gold"]] };
  assert(price(order, told).discount == 50);
  assert(label() == "gold" && reason() == "told");
  order.discountSoFar = 0;
  assert(price(order, told).discount == 70);
  order.discountSoFar = 201; // more than the host ever says
  assert(price(order, told).discount == 0);
}

export function testFault(): void {
  encode({ unitPrice: 10, discountSoFar: 1 });
  db.final(db.discount(10, db.text("l"), db.text("r_9")));
  assert(db.output.discount == 9 && db.output.flags == db.FINAL && fault() == "");
  db.output.discount = 10;
  assert(fault() != "");
  db.output.discount = -1;
  assert(fault() != "");
  db.discount(1, db.text("l"), db.text("R"));
  assert(fault() != "");
  db.reject(db.text("l".repeat(128)), db.text("r".repeat(64)));
  assert(fault() == "" && db.output.outcome == db.REJECT);
  db.reject(db.text("é".repeat(65)), db.MISSING);
  assert(fault() != "");
  db.nothing(db.text("r".repeat(65)));
  assert(fault() != "" && db.output.outcome == db.NONE);
}

export function testOrder(): void {
  encode({ codes: ["A", "", "BC"], attributes: [["k", ""], ["l", "12"]] });
  assert(db.hasCode(db.text("BC")) && db.hasCode(db.text("")) && !db.hasCode(db.text("B")) && !db.hasCode(db.text("BCD")));
  assert(db.codeCount() == 3 && db.equals(db.code(2), db.text("BC")));
  assert(db.attribute(db.text("k")) != db.MISSING && db.sizeOf(db.attribute(db.text("k"))) == 0);
  assert(db.attribute(db.text("x")) == db.MISSING && db.dealAttribute(db.text("l")) == db.MISSING);
  assert(db.equals(db.attribute(db.text("l")), db.text("12")));
}

export function testTexts(): void {
  assert(db.equals(db.text("面"), db.text("面")) && !db.equals(db.MISSING, db.text("")));
  assert(db.equalsFold(db.text("aZ-ı"), db.text("Az-ı")) && !db.equalsFold(db.text("a"), db.text("b")));
  assert(!db.equalsFold(db.text("aa"), db.text("A")) && db.hasPrefixFold(db.text("aa"), db.text("A")));
  assert(!db.hasPrefixFold(db.text("a"), db.text("aa")) && db.hasPrefixFold(db.text("a"), db.text("")));
  assert(db.equals(db.join(db.text("a"), db.text("面")), db.text("a面")) && db.join(db.text(""), db.text("")) != db.MISSING);
  assert(db.equals(db.decimal(0), db.text("0")) && db.equals(db.decimal(u64.MAX_VALUE), db.text("18446744073709551615")));
  let list = db.trimList(db.text(" , a b ,,c,"));
  assert(db.equals(db.first(list), db.text("a b")));
  list = db.rest(list);
  assert(db.equals(db.first(list), db.text("c")));
  assert(db.sizeOf(db.rest(list)) == 0 && db.sizeOf(db.trimList(db.text(" , "))) == 0 && db.sizeOf(db.trimList(db.MISSING)) == 0);
}

export function testTimes(): void {
  assert(db.times(3, 4) == 12 && db.times(5, 0) == 0 && db.times(i64.MAX_VALUE, 1) == i64.MAX_VALUE);
  assert(db.times(i64.MAX_VALUE / 2, 3) == i64.MAX_VALUE);
}
