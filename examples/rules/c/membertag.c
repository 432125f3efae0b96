// membertag takes off a percentage by the customer's membership, which the shop
// puts into the order's attribute "member".
#include "../../../plugins/sdk/c/doorbuster.h"

static const struct {
	struct text member;
	int64_t basis_points;
	struct text label, reason;
} members[] = {
	{TEXT("gold"), 750, TEXT("Gold member: 7.5% off"), TEXT("member_gold")},
	{TEXT("silver"), 500, TEXT("Silver member: 5% off"), TEXT("member_silver")},
	{TEXT("bronze"), 250, TEXT("Bronze member: 2.5% off"), TEXT("member_bronze")},
};

void evaluate(const struct input *in, struct output *out) {
	struct text member = attribute(in, TEXT("member"));
	for (uint32_t i = 0; i < sizeof members / sizeof *members; i++) {
		if (!text_equals(member, members[i].member))
			continue;
		discount(in, out, share_half_even(payable(in), members[i].basis_points), members[i].label, members[i].reason);
		return;
	}
}
