// note logs the order's attribute "note" and shows it to the shopper. From two units on
// it asks for a share of a debt, which traps.
#include "../../../plugins/sdk/c/doorbuster.h"

void evaluate(const struct input *in, struct output *out) {
	struct text note = attribute(in, TEXT("note"));
	rule_log(note.at, note.size);
	discount(in, out, share_down(in->quantity < 2 ? 10000 : -1, 1), note, TEXT("note"));
}
