#include "rule.c"

#include "doorbuster/doorbuster_test.h"

int main(void) {
	run_vectors("vectors.tsv");

	struct output out = price(&(struct order){.unit_price = 9999, .quantity = 2, .discount_so_far = 9999});
	CHECK(out.discount == 999);
	CHECK_TEXT(out.reason, "from_2");
	return test_result();
}
