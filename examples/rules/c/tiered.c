// tiered takes off a percentage that grows with the quantity.
#include "../../../plugins/sdk/c/doorbuster.h"

// From the highest quantity down: the first that fits is the one.
static const struct {
	uint32_t from;
	int64_t basis_points;
	struct text label, reason;
} tiers[] = {
	{5, 2000, TEXT("20% off from 5"), TEXT("tier_5")},
	{3, 1500, TEXT("15% off from 3"), TEXT("tier_3")},
	{1, 1000, TEXT("10% off from 1"), TEXT("tier_1")},
};

void evaluate(const struct input *in, struct output *out) {
	for (uint32_t i = 0; i < sizeof tiers / sizeof *tiers; i++) {
		if (in->quantity < tiers[i].from)
			continue;
		discount(in, out, share_down(payable(in), tiers[i].basis_points), tiers[i].label, tiers[i].reason);
		return;
	}
}
