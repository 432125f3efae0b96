// region rejects orders to the places that the deal's attribute "not_in" lists:
// countries ("US") and subdivisions ("CA-QC"). The order's attribute "region" is where
// it goes to.
import { Answer, Text, addressOf, attribute, dealAttribute, first, hasPrefixFold, nothing, reject, rest, sizeOf, text, trim, trimList } from "../../../plugins/sdk/assemblyscript/doorbuster";
export { doorbuster_abi_v1, rule_buffer } from "../../../plugins/sdk/assemblyscript/doorbuster";

const NOT_IN = text("not_in"), REGION = text("region");
const WHERE = text("Please say where to deliver"), MISSING_REGION = text("region_missing");
const BLOCKED = text("Not sold in your region"), BLOCKED_REGION = text("region_blocked");

const DASH: u8 = 0x2d;

export function rule_evaluate(size: u32): Answer {
  const to = trim(attribute(REGION));
  for (let list = trimList(dealAttribute(NOT_IN)); sizeOf(list) > 0; list = rest(list)) {
    if (sizeOf(to) == 0) return reject(WHERE, MISSING_REGION);
    if (covers(first(list), to)) return reject(BLOCKED, BLOCKED_REGION);
  }
  return nothing();
}

// covers says whether place is the region or lies in it.
function covers(region: Text, place: Text): bool {
  if (!hasPrefixFold(place, region)) return false;
  return sizeOf(place) == sizeOf(region) || load<u8>(addressOf(place) + sizeOf(region)) == DASH;
}
