// A discount function of the WASI kind, on the product discount API: half off every
// line, or what the first byte of the configuration makes of it. The message counts
// the calls of the function in its memory, which must always be 1.

typedef unsigned int u32;
typedef struct { void *at; u32 n; } vector;

#define IMPORT(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name))) extern

IMPORT(fd_read) u32 fd_read(u32 fd, const vector *v, u32 n, u32 *read);
IMPORT(fd_write) u32 fd_write(u32 fd, const vector *v, u32 n, u32 *written);
IMPORT(proc_exit) void proc_exit(u32 code);

static char input[64 << 10];
static u32 have, calls;

static void put(u32 fd, const char *s) {
	u32 n = 0;
	while (s[n]) n++;
	vector v = {(void *)s, n};
	fd_write(fd, &v, 1, &n);
}

// find returns what stands behind a text in the input.
static const char *find(const char *text) {
	for (u32 i = 0; i < have; i++) {
		u32 n = 0;
		while (text[n] && i + n < have && input[i + n] == text[n]) n++;
		if (!text[n]) return input + i + n;
	}
	return 0;
}

void _start(void) {
	for (u32 n = 1; n > 0; have += n) {
		vector v = {input + have, 7 < sizeof input - have ? 7 : sizeof input - have};
		if (fd_read(0, &v, 1, &n)) __builtin_trap();
	}
	calls++;
	const char *what = find("\"metafield\":{\"value\":\"\\\"");
	switch (what ? *what : ' ') {
	case 'l': // loops
		for (volatile u32 i = 0;; i++) {}
	case 'e': // ends itself
		put(2, "I give up\n");
		proc_exit(3);
	case 'w': // writes too much
		for (;;) put(1, "{\"discounts\":[],\"discountApplicationStrategy\":\"FIRST\"}");
	case 'g': // wants more memory than there is
		if (__builtin_wasm_memory_grow(0, 1000) == (u32)-1) __builtin_trap();
	case 'u': // uses memory that it asked for
		for (u32 i = 0, at = __builtin_wasm_memory_grow(0, 3) << 16; i < 3 << 16; i += 1024)
			if ((*(u32 *)(at + i))++) __builtin_trap();
		break;
	case 'b': // stores there, and traps
		*(volatile char *)(__builtin_wasm_memory_size(0) << 16) = 1;
		__builtin_trap();
	case 's': // stores to memory that it did not ask for
		*(volatile char *)(__builtin_wasm_memory_size(0) << 16) = 1;
	}
	put(1, "{\"discountApplicationStrategy\":\"MAXIMUM\",\"discounts\":[{\"message\":\"");
	put(1, calls == 1 ? "call 1" : "another call");
	put(1, "\",\"targets\":[{\"productVariant\":{\"id\":\"gid://shopify/ProductVariant/sneaker\"}}],"
	       "\"value\":{\"percentage\":{\"value\":\"50.0\"}}}]}");
}
