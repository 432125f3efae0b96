// The header and the kit against the vectors that all languages share. From the
// repository: sdk_test plugins/abi/testdata plugins/sdk/rules/vectors
#include "doorbuster.h"

// A rule that tells what it was told.
void evaluate(const struct input *in, struct output *out) {
	discount(in, out, 70, attribute(in, TEXT("member")), TEXT("told"));
}

#include "doorbuster_test.h"

static void same_bytes(const char *folder, const char *name, const struct order *o) {
	char path[512];
	snprintf(path, sizeof path, "%s/%s.bin", folder, name);
	FILE *f = fopen(path, "rb");
	if (!f) {
		perror(path);
		exit(2);
	}
	static union encoded want, got;
	memset(&want, 0, sizeof want);
	size_t n = fread(want.bytes, 1, sizeof want, f);
	fclose(f);
	encode(&got, o);
	check(n == got.in.size && memcmp(&got, &want, n) == 0, __FILE__, __LINE__, path);
}

static void test_golden(const char *folder) {
	same_bytes(folder, "input_minimal", &(struct order){.quantity = 1});
	same_bytes(folder, "input_plain", &(struct order){
		.flags = FLAG_FIRST_ORDER, .now = 1790000000000, .unit_price = 9900, .quantity = 2, .available = 99, .stock = 100,
		.starts_at = 1789999999000, .ends_at = 1790000600000, .deal_id = "d-flash", .user_id = "u-1",
	});
	same_bytes(folder, "input_full", &(struct order){
		.flags = FLAG_JOINS_GROUP | FLAG_QUOTE, .now = 1790000000001, .unit_price = 7900, .discount_so_far = 2370,
		.quantity = 3, .user_quantity = 1, .available = 1ll << 40, .stock = 1ll << 41, .starts_at = 1,
		.group_size = 3, .group_members = 2, .currency = "JPY", .deal_id = "deal/面", .user_id = "ユーザー",
		.codes = {"SAVE10", "", "ÜMLAUT"}, .attributes = {{"member", "gold"}, {"note", ""}},
		.deal_attributes = {{"sku", "LY-25"}},
	});
}

static void test_money(const char *folder) {
	char path[512];
	snprintf(path, sizeof path, "%s/money.tsv", folder);
	FILE *f = fopen(path, "r");
	if (!f) {
		perror(path);
		exit(2);
	}
	long long amount, points, down, half_even, up;
	int cases = 0;
	for (; fscanf(f, "%lld %lld %lld %lld %lld", &amount, &points, &down, &half_even, &up) == 5; cases++) {
		CHECK(share_down(amount, points) == down);
		CHECK(share_half_even(amount, points) == half_even);
		CHECK(share_up(amount, points) == up);
	}
	fclose(f);
	CHECK(cases > 20);
	CHECK(times(3, 4) == 12 && times(INT64_MAX / 2, 3) == INT64_MAX && times(INT64_MAX, 1) == INT64_MAX && times(5, 0) == 0);
}

static void test_texts(void) {
	static union encoded e;
	encode(&e, &(struct order){.codes = {"A", "", "BC"}, .attributes = {{"k", ""}, {"l", "12"}}});
	CHECK(has_code(&e.in, TEXT("BC")) && has_code(&e.in, TEXT("")) && !has_code(&e.in, TEXT("B")) && !has_code(&e.in, TEXT("BCD")));
	CHECK(text_is(code_at(&e.in, 2), "BC"));
	CHECK(attribute(&e.in, TEXT("k")).at && attribute(&e.in, TEXT("k")).size == 0);
	CHECK(!attribute(&e.in, TEXT("x")).at && !deal_attribute(&e.in, TEXT("l")).at);
	CHECK(text_equals_fold(TEXT("aZ-ı"), TEXT("Az-ı")) && !text_equals_fold(TEXT("a"), TEXT("b")));
	CHECK(!text_equals_fold(TEXT("aa"), TEXT("A")) && text_has_prefix_fold(TEXT("aa"), TEXT("A")));
	CHECK(!text_has_prefix_fold(TEXT("a"), TEXT("aa")) && text_has_prefix_fold(TEXT("a"), TEXT("")));
	struct text list = TEXT(" , a b ,,c,");
	CHECK_TEXT(text_next(&list), "a b");
	CHECK_TEXT(text_next(&list), "c");
	CHECK(text_next(&list).size == 0 && text_next(&list).size == 0);
	list = (struct text){0, 0};
	CHECK(text_next(&list).size == 0);
}

static void test_kit(void) {
	struct order o = {.unit_price = 100, .quantity = 2, .discount_so_far = 150, .attributes = {{"member", "gold"}}};
	struct output out = price(&o);
	CHECK(out.outcome == OUTCOME_DISCOUNT && out.discount == 50);
	CHECK_TEXT(out.label, "gold");
	o.discount_so_far = 0;
	CHECK(price(&o).discount == 70);
	o.discount_so_far = 201; // more than the host ever says
	CHECK(price(&o).discount == 0);

	struct input in = {.subtotal = 10, .discount_so_far = 1};
	discount(&in, &out, 10, TEXT("l"), TEXT("r_9"));
	CHECK(out.discount == 9 && !fault(&in, &out));
	out.discount = 10;
	CHECK(fault(&in, &out));
	out.discount = -1;
	CHECK(fault(&in, &out));
	discount(&in, &out, 1, TEXT("l"), TEXT("R"));
	CHECK(fault(&in, &out));
	reject(&out, TEXT("no"), TEXT("no"));
	CHECK(!fault(&in, &out));
	out.label.size = 129;
	CHECK(fault(&in, &out));
}

int main(int argc, char **argv) {
	if (argc != 3) {
		fputs("sdk_test ABI-TESTDATA RULE-VECTORS\n", stderr);
		return 2;
	}
	test_golden(argv[1]);
	test_money(argv[2]);
	test_texts();
	test_kit();
	return test_result();
}
