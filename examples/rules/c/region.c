// region rejects orders to the places that the deal's attribute "not_in" lists:
// countries ("US") and subdivisions ("CA-QC"). The order's attribute "region" is
// where it goes to.
#include "../../../plugins/sdk/c/doorbuster.h"

// covers says whether place is the region or lies in it.
static bool covers(struct text region, struct text place) {
	return text_has_prefix_fold(place, region) && (place.size == region.size || place.at[region.size] == '-');
}

void evaluate(const struct input *in, struct output *out) {
	struct text blocked = deal_attribute(in, TEXT("not_in"));
	struct text to = text_trim(attribute(in, TEXT("region")));
	for (struct text entry; (entry = text_next(&blocked)).size > 0;) {
		if (to.size == 0) {
			reject(out, TEXT("Please say where to deliver"), TEXT("region_missing"));
			return;
		}
		if (covers(entry, to)) {
			reject(out, TEXT("Not sold in your region"), TEXT("region_blocked"));
			return;
		}
	}
}
