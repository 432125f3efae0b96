// The rule ABI, version 1, as a C program sees it. The contract is ABI.md of the
// engine; this header is its tables, and nothing is copied: a rule reads its input
// where the host put it.
//
// A rule is one C file that includes this header and defines evaluate:
//
//	void evaluate(const struct input *in, struct output *out) {
//		if (in->quantity >= 3)
//			discount(in, out, share_down(payable(in), 1500), TEXT("15% off from 3"), TEXT("tier_3"));
//	}
//
// Compiled for wasm32 the header also defines what the host calls. Compiled for
// the author's own machine it leaves that out, so that a test calls evaluate
// itself (doorbuster_test.h).
//
// Amounts are minor units of in->currency, instants are Unix milliseconds. Every
// evaluation starts from the same memory: a static variable that a rule sets is
// forgotten afterwards, and out starts as "nothing".
#ifndef DOORBUSTER_H
#define DOORBUSTER_H

#include <stdbool.h>
#include <stdint.h>

// text is UTF-8 bytes without a 0 at the end. A text with at == 0 is missing,
// which is not the same as empty.
struct text {
	const char *at;
	uint32_t size; // bytes
};

// TEXT is a string literal as a text.
#define TEXT(literal) ((struct text){(literal), sizeof(literal) - 1})

// ref is an offset from the start of the input, and a number of bytes (texts) or
// of entries (arrays).
struct __attribute__((may_alias)) ref {
	uint32_t offset, count;
};

// Bits of input.flags.
enum {
	FLAG_FIRST_ORDER = 1, // of this user in this deal
	FLAG_OPENS_GROUP = 2,
	FLAG_JOINS_GROUP = 4,
	FLAG_QUOTE = 8, // nothing is reserved
};

struct __attribute__((may_alias)) input {
	uint32_t size; // bytes of the whole input, at most 8 KiB
	uint16_t abi;
	uint16_t flags;
	int64_t now;             // the order's stamp
	int64_t unit_price;      // the group price when the order is in a group
	int64_t subtotal;        // unit_price × quantity
	int64_t discount_so_far; // by the rules before this one
	uint32_t quantity;
	uint32_t user_quantity; // units of this deal that the user already holds
	int64_t available;      // before this order
	int64_t stock;
	int64_t starts_at;
	int64_t ends_at;        // 0: open
	uint32_t group_size;    // 0: no group
	uint32_t group_members; // before this order
	char currency[4];       // ISO 4217, the fourth byte 0
	uint32_t reserved;
	struct ref deal_id, user_id;
	struct ref codes;           // of ref; see code_at
	struct ref attributes;      // of the order; see attribute
	struct ref deal_attributes; // see deal_attribute
};
_Static_assert(sizeof(struct input) == 136, "the layout of ABI.md");

enum { OUTCOME_NONE = 0, OUTCOME_DISCOUNT = 1, OUTCOME_REJECT = 2 };
enum { OUTPUT_FINAL = 1 };

// output is a rule's answer. Functions below fill it.
struct output {
	uint16_t outcome;
	uint16_t flags; // OUTPUT_FINAL: no later rule runs
	uint32_t reserved;
	int64_t discount;    // 0 … payable(in)
	struct text label;   // for the shopper, at most 128 bytes
	struct text reason;  // for machines, at most 64 of a-z 0-9 _
};

// evaluate prices one order. A rule defines it.
void evaluate(const struct input *in, struct output *out);

// ---- Money

// payable is what is left to pay after the rules before this one: the most that a
// rule may take off.
static inline int64_t payable(const struct input *in) { return in->subtotal - in->discount_so_far; }

// A share is amount × basis_points / 10,000 of an amount that is not below 0, the
// basis points from 0 (nothing) to 10,000 (all), rounded to a whole minor unit.
// Nothing overflows: the ten thousands of the amount and the rest are taken
// apart. Other arguments trap.
enum { SHARE_WHOLE = 10000 };

// share_low is what the amount's rest is worth, in ten thousandths: at most
// 9,999 × 10,000, which is why 32 bits hold it. Dividing by them is faster.
static inline uint32_t share_low(int64_t amount, int64_t basis_points) {
	return (uint32_t)((uint64_t)amount % SHARE_WHOLE) * (uint32_t)basis_points;
}

// share_down rounds down: the merchant never gives more than the share.
static inline int64_t share_down(int64_t amount, int64_t basis_points) {
	if (amount < 0 || basis_points < 0 || basis_points > SHARE_WHOLE)
		__builtin_trap();
	return (int64_t)((uint64_t)amount / SHARE_WHOLE) * basis_points + share_low(amount, basis_points) / SHARE_WHOLE;
}

// share_rest is what share_down leaves out, in ten thousandths of a minor unit.
static inline int64_t share_rest(int64_t amount, int64_t basis_points) {
	return share_low(amount, basis_points) % SHARE_WHOLE;
}

// share_half_even rounds to the nearest, and from the middle to the even one: fair
// over many orders.
static inline int64_t share_half_even(int64_t amount, int64_t basis_points) {
	int64_t share = share_down(amount, basis_points), rest = share_rest(amount, basis_points);
	return share + (rest > SHARE_WHOLE / 2 || (rest == SHARE_WHOLE / 2 && share % 2 == 1));
}

// share_up rounds up: for thresholds.
static inline int64_t share_up(int64_t amount, int64_t basis_points) {
	return share_down(amount, basis_points) + (share_rest(amount, basis_points) > 0);
}

// times is an amount that is not below 0, n times, or the largest amount where
// that does not fit: a discount is bounded by what is left to pay anyway.
static inline int64_t times(int64_t amount, uint32_t n) {
	return n && amount > INT64_MAX / n ? INT64_MAX : amount * n;
}

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// ---- Answers: out starts as "nothing"

// discount takes amount off, but no less than 0 and no more than what is left to
// pay. label is for the shopper, reason for machines.
static inline void discount(const struct input *in, struct output *out, int64_t amount, struct text label, struct text reason) {
	out->outcome = OUTCOME_DISCOUNT;
	out->discount = larger(0, smaller(amount, payable(in)));
	out->label = label;
	out->reason = reason;
}

// reject refuses the order.
static inline void reject(struct output *out, struct text label, struct text reason) {
	out->outcome = OUTCOME_REJECT;
	out->label = label;
	out->reason = reason;
}

// ---- Texts

static inline bool text_equals(struct text a, struct text b) {
	if (a.size != b.size || !a.at != !b.at)
		return false;
	for (uint32_t i = 0; i < a.size; i++)
		if (a.at[i] != b.at[i])
			return false;
	return true;
}

// folded is an ASCII letter as a capital, and any other byte as it is.
static inline char folded(char c) { return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c; }

// text_has_prefix_fold says whether t begins with prefix, when a-z count as A-Z. No
// other letter has a second case here, so that every language agrees.
static inline bool text_has_prefix_fold(struct text t, struct text prefix) {
	if (t.size < prefix.size)
		return false;
	for (uint32_t i = 0; i < prefix.size; i++)
		if (folded(t.at[i]) != folded(prefix.at[i]))
			return false;
	return true;
}

// text_equals_fold is text_equals in the sense of text_has_prefix_fold.
static inline bool text_equals_fold(struct text a, struct text b) {
	return a.size == b.size && text_has_prefix_fold(a, b);
}

// text_trim is the text without the spaces around it.
static inline struct text text_trim(struct text t) {
	while (t.size > 0 && t.at[0] == ' ')
		t.at++, t.size--;
	while (t.size > 0 && t.at[t.size - 1] == ' ')
		t.size--;
	return t;
}

// text_next cuts the next entry off a list that commas separate. Spaces around an
// entry do not count, and empty entries are not there. After the last one it is
// an empty text:
//
//	for (struct text entry; (entry = text_next(&list)).size > 0;)
static inline struct text text_next(struct text *list) {
	while (list->size > 0) {
		struct text entry = {list->at, 0};
		while (entry.size < list->size && entry.at[entry.size] != ',')
			entry.size++;
		uint32_t taken = entry.size + (entry.size < list->size); // the comma, too
		*list = (struct text){list->at + taken, list->size - taken};
		entry = text_trim(entry);
		if (entry.size > 0)
			return entry;
	}
	return (struct text){0, 0};
}

// text_of is the text that a ref of the input names.
static inline struct text text_of(const struct input *in, struct ref r) {
	return (struct text){(const char *)in + r.offset, r.count};
}

static inline const struct ref *entries_of(const struct input *in, struct ref array) {
	return (const struct ref *)((const char *)in + array.offset);
}

// code_at is code i of the order, i < in->codes.count.
static inline struct text code_at(const struct input *in, uint32_t i) {
	return text_of(in, entries_of(in, in->codes)[i]);
}

// has_code says whether the order carries the code, byte for byte.
static inline bool has_code(const struct input *in, struct text code) {
	for (uint32_t i = 0; i < in->codes.count; i++)
		if (text_equals(code_at(in, i), code))
			return true;
	return false;
}

static inline struct text value_of(const struct input *in, struct ref attributes, struct text key) {
	const struct ref *entries = entries_of(in, attributes);
	for (uint32_t i = 0; i < attributes.count; i++)
		if (text_equals(text_of(in, entries[2 * i]), key))
			return text_of(in, entries[2 * i + 1]);
	return (struct text){0, 0};
}

// attribute is the value of the order's attribute, or a missing text.
static inline struct text attribute(const struct input *in, struct text key) {
	return value_of(in, in->attributes, key);
}

// deal_attribute is the value of the deal's attribute, or a missing text.
static inline struct text deal_attribute(const struct input *in, struct text key) {
	return value_of(in, in->deal_attributes, key);
}

// ---- The module, for the host
#ifdef __wasm__
_Static_assert(sizeof(struct output) == 32, "the layout of ABI.md");

#define EXPORT(name) __attribute__((export_name(name)))

// rule_log leaves a text for the merchant to read: at most 1 KiB an evaluation.
__attribute__((import_module("doorbuster"), import_name("log"))) void rule_log(const char *at, uint32_t size);

static _Alignas(8) uint8_t rule_buffer_bytes[8 << 10]; // the largest input
static struct output rule_output;

EXPORT("doorbuster_abi_v1") void rule_abi(void) {}

EXPORT("rule_buffer") void *rule_buffer(uint32_t size) {
	if (size > sizeof rule_buffer_bytes)
		__builtin_trap(); // a host of other bounds: the upload is refused
	return rule_buffer_bytes;
}

EXPORT("rule_evaluate") uint64_t rule_evaluate(uint32_t size) {
	(void)size; // the input says the same
	evaluate((const struct input *)rule_buffer_bytes, &rule_output);
	return (uint64_t)(uint32_t)&rule_output << 32 | sizeof rule_output;
}
#endif

#endif
