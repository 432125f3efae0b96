// The rule tiered behind the messages of exchange/rule.proto, without a runtime: the
// host writes an Order to message_in, and price returns the place of an Answer,
// address << 32 | bytes.
#include "../../../../examples/rules/c/tiered.c"

static unsigned char message_in[8192], message_out[512];

// Wire types.
enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

static uint64_t varint(const unsigned char **at, const unsigned char *end) {
	uint64_t n = 0;
	for (int shift = 0; *at < end && shift < 64; shift += 7) {
		unsigned char byte = *(*at)++;
		n |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			break;
	}
	return n;
}

static void read_order(const unsigned char *at, const unsigned char *end, struct input *order) {
	while (at < end) {
		uint64_t key = varint(&at, end), value;
		switch (key & 7) {
		case VARINT:
			value = varint(&at, end);
			break;
		case BYTES:
			value = varint(&at, end);
			if (value > (uint64_t)(end - at))
				__builtin_trap();
			at += value;
			continue;
		case FIXED64:
			at += 8;
			continue;
		case FIXED32:
			at += 4;
			continue;
		default:
			__builtin_trap();
		}
		switch (key >> 3) {
		case 4:
			order->subtotal = value;
			break;
		case 5:
			order->discount_so_far = value;
			break;
		case 6:
			order->quantity = value;
			break;
		}
	}
}

static unsigned char *put_varint(unsigned char *to, uint64_t n) {
	for (; n >= 0x80; n >>= 7)
		*to++ = n | 0x80;
	*to++ = n;
	return to;
}

static unsigned char *put_text(unsigned char *to, int field, struct text text) {
	to = put_varint(put_varint(to, field << 3 | BYTES), text.size);
	for (uint32_t i = 0; i < text.size; i++)
		*to++ = text.at[i];
	return to;
}

__attribute__((export_name("buffer"))) unsigned char *buffer(void) { return message_in; }

__attribute__((export_name("price"))) uint64_t price(uint32_t size) {
	struct input order = {0};
	struct output out = {0};
	read_order(message_in, message_in + size, &order);
	evaluate(&order, &out);
	unsigned char *at = put_varint(put_varint(message_out, 1 << 3 | VARINT), out.outcome);
	at = put_varint(put_varint(at, 2 << 3 | VARINT), out.discount);
	at = put_text(put_text(at, 3, out.label), 4, out.reason);
	return (uint64_t)(uintptr_t)message_out << 32 | (uint32_t)(at - message_out);
}
