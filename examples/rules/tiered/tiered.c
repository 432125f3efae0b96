// tiered: a percentage off that grows with the quantity.
//
//   quantity   discount
//   1 or 2     10 %
//   3 or 4     15 %
//   5 or more  20 %
//
// The percentage is taken of what is left to pay after the rules before this
// one, and rounded down to a whole minor unit: the merchant never gives more
// than the percentage, and the shopper never pays less than 0.
#include "doorbuster.h"

#define BUFFER_BYTES (8 << 10) // the largest input of ABI.md

static _Alignas(8) uint8_t buffer[BUFFER_BYTES];
static struct output out;

struct tier {
	uint32_t from; // quantity
	int64_t percent;
	const char *label, *reason;
	uint32_t label_size, reason_size;
};

#define TIER(from, percent) \
	{from, percent, #percent "% off from " #from, "tier_" #from, \
	 sizeof #percent "% off from " #from - 1, sizeof "tier_" #from - 1}

// From the highest quantity down: the first that fits is the one.
static const struct tier tiers[] = {TIER(5, 20), TIER(3, 15), TIER(1, 10)};

EXPORT("doorbuster_abi_v1") void doorbuster_abi_v1(void) {}

EXPORT("rule_buffer") void *rule_buffer(uint32_t size) {
	return size <= sizeof buffer ? buffer : 0;
}

// percent_of rounds down. It cannot overflow: the hundreds and the rest are
// taken apart.
static int64_t percent_of(int64_t amount, int64_t percent) {
	return amount / 100 * percent + amount % 100 * percent / 100;
}

EXPORT("rule_evaluate") int64_t rule_evaluate(uint32_t len) {
	const struct input *in = (const struct input *)buffer;
	(void)len; // in->size says the same
	for (uint32_t i = 0; i < sizeof tiers / sizeof *tiers; i++) {
		const struct tier *t = &tiers[i];
		if (in->quantity < t->from)
			continue;
		out.outcome = OUTCOME_DISCOUNT;
		out.discount = percent_of(in->subtotal - in->discount_so_far, t->percent);
		out.label = t->label;
		out.label_size = t->label_size;
		out.reason = t->reason;
		out.reason_size = t->reason_size;
		break;
	}
	return answer(&out);
}
