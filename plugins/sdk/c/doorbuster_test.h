// A test kit for rules in C, for the author's own machine (little-endian, as all
// that run rules). A test is a program that includes the rule itself:
//
//	#include "rule.c"
//	#include "doorbuster_test.h"
//
//	int main(void) {
//		struct output out = price(&(struct order){.unit_price = 9900, .quantity = 3});
//		CHECK(out.discount == 4455);
//		CHECK_TEXT(out.reason, "tier_3");
//		return test_result();
//	}
//
//	cc -std=c11 -Wall -o rule_test rule_test.c && ./rule_test
#ifndef DOORBUSTER_TEST_H
#define DOORBUSTER_TEST_H

#include "doorbuster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "rules read little-endian memory"
#endif

enum { INPUT_BYTES_MAX = 8 << 10, LABEL_BYTES_MAX = 128, REASON_BYTES_MAX = 64 };
enum { TEXTS_MAX = 16 }; // codes or attributes of one test order, the end included

struct pair {
	const char *key, *value;
};

// order is an input as a test writes it. What is left out is 0 or empty, but for
// currency (CNY). The subtotal is unit_price × quantity.
struct order {
	uint16_t flags;
	int64_t now, unit_price, discount_so_far;
	uint32_t quantity, user_quantity;
	int64_t available, stock, starts_at, ends_at;
	uint32_t group_size, group_members;
	const char *currency, *deal_id, *user_id;
	const char *codes[TEXTS_MAX];
	struct pair attributes[TEXTS_MAX], deal_attributes[TEXTS_MAX];
};

// encoded holds one input, in the bytes that a rule gets.
union encoded {
	struct input in;
	uint8_t bytes[INPUT_BYTES_MAX];
};

static int checks_failed;

static inline void check(bool ok, const char *file, int line, const char *what) {
	if (ok)
		return;
	checks_failed++;
	fprintf(stderr, "%s:%d: %s does not hold\n", file, line, what);
}

// CHECK counts and reports a condition that does not hold; the test goes on.
#define CHECK(condition) check(condition, __FILE__, __LINE__, #condition)

// CHECK_TEXT compares a text with a C string.
#define CHECK_TEXT(text, want) check(text_is(text, want), __FILE__, __LINE__, #text " == " #want)

// test_result is what main returns: 0 when every check held.
static inline int test_result(void) {
	if (checks_failed == 0)
		puts("ok");
	return checks_failed != 0;
}

static inline struct text text_from(const char *s) {
	return s ? (struct text){s, (uint32_t)strlen(s)} : (struct text){"", 0};
}

static inline bool text_is(struct text t, const char *want) {
	return t.size == strlen(want) && (t.size == 0 || memcmp(t.at, want, t.size) == 0);
}

// put_text appends a text to the input and makes r its ref.
static inline void put_text(union encoded *e, struct ref *r, const char *s) {
	struct text t = text_from(s);
	if (t.size > sizeof e->bytes - e->in.size) {
		fputs("the input is larger than 8 KiB\n", stderr);
		exit(2);
	}
	*r = (struct ref){e->in.size, t.size};
	memcpy(e->bytes + e->in.size, t.at, t.size);
	e->in.size += t.size;
}

// put_array appends room for count × width refs and makes array its ref.
static inline struct ref *put_array(union encoded *e, struct ref *array, uint32_t count, uint32_t width) {
	struct ref *entries = (struct ref *)(e->bytes + e->in.size);
	*array = (struct ref){e->in.size, count};
	e->in.size += count * width * (uint32_t)sizeof *entries;
	return entries;
}

static inline uint32_t pairs(const struct pair *list) {
	uint32_t n = 0;
	while (n < TEXTS_MAX && list[n].key)
		n++;
	return n;
}

static inline void put_pairs(union encoded *e, struct ref *entries, const struct pair *list) {
	for (uint32_t i = 0; i < pairs(list); i++) {
		put_text(e, &entries[2 * i], list[i].key);
		put_text(e, &entries[2 * i + 1], list[i].value);
	}
}

// encode writes the order as the host does: the header, the arrays, the texts,
// zeros up to a multiple of 8.
static inline void encode(union encoded *e, const struct order *o) {
	memset(e, 0, sizeof *e);
	e->in = (struct input){
		.size = sizeof e->in, .abi = 1, .flags = o->flags, .now = o->now,
		.unit_price = o->unit_price, .subtotal = o->unit_price * o->quantity, .discount_so_far = o->discount_so_far,
		.quantity = o->quantity, .user_quantity = o->user_quantity,
		.available = o->available, .stock = o->stock, .starts_at = o->starts_at, .ends_at = o->ends_at,
		.group_size = o->group_size, .group_members = o->group_members,
	};
	memcpy(e->in.currency, o->currency ? o->currency : "CNY", 3);
	uint32_t count = 0;
	while (count < TEXTS_MAX && o->codes[count])
		count++;
	struct ref *codes = put_array(e, &e->in.codes, count, 1);
	struct ref *attributes = put_array(e, &e->in.attributes, pairs(o->attributes), 2);
	struct ref *deal_attributes = put_array(e, &e->in.deal_attributes, pairs(o->deal_attributes), 2);
	put_text(e, &e->in.deal_id, o->deal_id);
	put_text(e, &e->in.user_id, o->user_id);
	for (uint32_t i = 0; i < count; i++)
		put_text(e, &codes[i], o->codes[i]);
	put_pairs(e, attributes, o->attributes);
	put_pairs(e, deal_attributes, o->deal_attributes);
	e->in.size = (e->in.size + 7) & ~7u;
}

// fault says what the host would refuse in an answer, or is 0.
static inline const char *fault(const struct input *in, const struct output *out) {
	if (out->outcome > OUTCOME_REJECT || out->flags & ~OUTPUT_FINAL || out->reserved)
		return "outcome, flags or reserved";
	if (out->discount < 0 || out->discount > larger(payable(in), 0))
		return "a discount below 0 or above what is left to pay";
	if (out->label.size > LABEL_BYTES_MAX)
		return "a label of more than 128 bytes";
	if (out->reason.size > REASON_BYTES_MAX)
		return "a reason of more than 64 bytes";
	for (uint32_t i = 0; i < out->reason.size; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789_", out->reason.at[i]) || !out->reason.at[i])
			return "a reason with something else than a-z 0-9 _";
	return 0;
}

// price runs the rule on an order. An answer that the host would refuse is a
// failed check. Texts that the rule copied from the order stay valid until the
// next call.
static inline struct output price(const struct order *o) {
	static union encoded e;
	encode(&e, o);
	struct output out = {0};
	evaluate(&e.in, &out);
	const char *refused = fault(&e.in, &out);
	if (refused) {
		checks_failed++;
		fprintf(stderr, "the host refuses the answer: %s\n", refused);
	}
	return out;
}

// ---- Shared vectors: a line for each case, its fields separated by tabs.

// field cuts the next field off a line.
static inline char *field(char **line) {
	char *start = *line, *end = start + strcspn(start, "\t\n");
	*line = *end ? end + 1 : end;
	*end = 0;
	return start;
}

static inline void from_hex(union encoded *e, const char *hex) {
	memset(e, 0, sizeof *e);
	for (size_t i = 0; i < sizeof e->bytes && hex[2 * i]; i++)
		e->bytes[i] = (uint8_t)strtoul((char[]){hex[2 * i], hex[2 * i + 1], 0}, 0, 16);
}

// run_vectors runs the rule on every case of a table: the input in hexadecimal,
// outcome, discount, final, reason, label, the case's name.
static inline void run_vectors(const char *path) {
	static union encoded e;
	static char buffer[4 * INPUT_BYTES_MAX];
	FILE *f = fopen(path, "r");
	if (!f) {
		perror(path);
		exit(2);
	}
	int cases = 0;
	for (; fgets(buffer, sizeof buffer, f); cases++) {
		char *line = buffer;
		from_hex(&e, field(&line));
		long long outcome = atoll(field(&line)), discount = atoll(field(&line)), final = atoll(field(&line));
		const char *reason = field(&line), *label = field(&line), *name = field(&line);
		struct output out = {0};
		evaluate(&e.in, &out);
		if (out.outcome != outcome || out.discount != discount || out.flags != final || fault(&e.in, &out) ||
		    !text_is(out.reason, reason) || !text_is(out.label, label)) {
			checks_failed++;
			fprintf(stderr, "%s: %s: outcome %d, discount %lld, final %d, %.*s, %.*s\n", path, name, out.outcome,
				(long long)out.discount, out.flags, (int)out.reason.size, out.reason.at, (int)out.label.size, out.label.at);
		}
	}
	fclose(f);
	if (cases == 0) {
		fprintf(stderr, "%s: no cases\n", path);
		exit(2);
	}
}

#endif
