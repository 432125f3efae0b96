// The rule ABI, version 1, as a C program sees it. The contract is
// plugins/abi/ABI.md; this header is its table, and nothing is copied: a rule
// reads its input where the host put it.
#ifndef DOORBUSTER_H
#define DOORBUSTER_H

typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;

// EXPORT makes a function part of the module's interface.
#define EXPORT(name) __attribute__((export_name(name)))

// A ref is an offset from the start of the input, and a number of bytes (texts)
// or entries (arrays).
struct ref {
	uint32_t offset, count;
};

struct input {
	uint32_t size;
	uint16_t abi, flags;
	int64_t now, unit_price, subtotal, discount_so_far;
	uint32_t quantity, user_quantity;
	int64_t available, stock, starts_at, ends_at;
	uint32_t group_size, group_members;
	char currency[4];
	uint32_t reserved;
	struct ref deal_id, user_id, codes, attributes, deal_attributes;
};
_Static_assert(sizeof(struct input) == 136, "the layout of ABI.md");

enum { OUTCOME_NONE = 0, OUTCOME_DISCOUNT = 1, OUTCOME_REJECT = 2 };

struct output {
	uint16_t outcome, flags;
	uint32_t reserved;
	int64_t discount;
	const char *label;
	uint32_t label_size;
	const char *reason;
	uint32_t reason_size;
};
_Static_assert(sizeof(struct output) == 32, "the layout of ABI.md");

// answer packs the place of an output for rule_evaluate to return.
static inline int64_t answer(const struct output *out) {
	return (int64_t)((uint64_t)(uint32_t)out << 32 | sizeof *out);
}

#endif
