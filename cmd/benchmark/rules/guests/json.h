// The rule tiered behind JSON: what order_parse reads and answer_format writes is an
// object with the ABI's field names. A guest includes this once, and moves the bytes.
#include "../../../../examples/rules/c/tiered.c"

static struct input order;
static char text_in[8192], text_out[512];

static const char *skip_string(const char *at, const char *end) {
	for (at++; at < end && *at != '"'; at++)
		if (*at == '\\')
			at++;
	return at + 1;
}

// skip_value returns the end of the value at at, of any kind.
static const char *skip_value(const char *at, const char *end) {
	int depth = 0;
	while (at < end) {
		char c = *at;
		if (c == '"') {
			at = skip_string(at, end);
		} else {
			if (depth == 0 && (c == ',' || c == '}' || c == ']'))
				return at;
			depth += (c == '{' || c == '[') - (c == '}' || c == ']');
			at++;
		}
	}
	return at;
}

static int64_t number(const char *at, const char *end) {
	int64_t n = 0;
	int negative = at < end && *at == '-';
	for (at += negative; at < end && *at >= '0' && *at <= '9'; at++)
		n = n * 10 + (*at - '0');
	return negative ? -n : n;
}

static int same(const char *at, const char *end, const char *name) {
	for (; at < end && *name && *at == *name; at++)
		name++;
	return at == end && !*name;
}

// order_parse takes from the object what the rule reads.
static void order_parse(const char *at, const char *end) {
	at++; // {
	while (at < end && *at == '"') {
		const char *key = at + 1;
		at = skip_string(at, end) + 1; // :
		const char *value = at, *key_end = at - 2;
		at = skip_value(at, end);
		if (same(key, key_end, "quantity"))
			order.quantity = number(value, at);
		else if (same(key, key_end, "subtotal"))
			order.subtotal = number(value, at);
		else if (same(key, key_end, "discount_so_far"))
			order.discount_so_far = number(value, at);
		at++; // , or }
	}
}

static char *put(char *to, const char *text, uint32_t size) {
	for (uint32_t i = 0; i < size; i++)
		*to++ = text[i];
	return to;
}

static char *put_number(char *to, int64_t n) {
	char digits[20];
	uint32_t used = 0;
	do
		digits[sizeof digits - ++used] = '0' + n % 10;
	while (n /= 10);
	return put(to, digits + sizeof digits - used, used);
}

#define PUT(to, literal) put(to, literal, sizeof(literal) - 1)

// answer_format prices the order, and writes the answer into text_out. It returns
// the bytes. A discount is not below 0, and the rule's texts need no escapes.
static uint32_t answer_format(void) {
	struct output out = {0};
	evaluate(&order, &out);
	char *at = PUT(text_out, "{\"outcome\":");
	at = put_number(at, out.outcome);
	at = PUT(at, ",\"discount\":");
	at = put_number(at, out.discount);
	at = PUT(at, ",\"label\":\"");
	at = put(at, out.label.at, out.label.size);
	at = PUT(at, "\",\"reason\":\"");
	at = put(at, out.reason.at, out.reason.size);
	at = PUT(at, "\"}");
	return at - text_out;
}
