// An Extism plug-in: bytes go through the memory of Extism's own module, eight at a
// time, as its kits for plug-ins move them.
#include "json.h"

#define EXTISM(name) __attribute__((import_module("extism:host/env"), import_name(#name)))

EXTISM(input_length) uint64_t input_length(void);
EXTISM(input_load_u8) uint32_t input_load_u8(uint64_t at);
EXTISM(input_load_u64) uint64_t input_load_u64(uint64_t at);
EXTISM(alloc) uint64_t extism_alloc(uint64_t size);
EXTISM(store_u8) void store_u8(uint64_t at, uint32_t byte);
EXTISM(store_u64) void store_u64(uint64_t at, uint64_t word);
EXTISM(output_set) void output_set(uint64_t at, uint64_t size);

struct __attribute__((packed, may_alias)) word {
	uint64_t value;
};

__attribute__((export_name("price"))) int32_t price(void) {
	uint64_t size = input_length(), at = 0;
	if (size > sizeof text_in)
		return 1;
	for (; at + 8 <= size; at += 8)
		((struct word *)(text_in + at))->value = input_load_u64(at);
	for (; at < size; at++)
		text_in[at] = input_load_u8(at);
	order_parse(text_in, text_in + size);
	size = answer_format();
	uint64_t to = extism_alloc(size);
	for (at = 0; at + 8 <= size; at += 8)
		store_u64(to + at, ((struct word *)(text_out + at))->value);
	for (; at < size; at++)
		store_u8(to + at, (unsigned char)text_out[at]);
	output_set(to, size);
	return 0;
}
