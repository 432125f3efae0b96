// A program that reads an order from its standard input, and writes the answer.
#include "json.h"

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)))

struct vector {
	char *at;
	uint32_t size;
};

WASI(fd_read) int fd_read(int fd, const struct vector *to, uint32_t n, uint32_t *size);
WASI(fd_write) int fd_write(int fd, const struct vector *from, uint32_t n, uint32_t *size);

__attribute__((export_name("_start"))) void start(void) {
	uint32_t size = 0, got;
	do {
		struct vector rest = {text_in + size, sizeof text_in - size};
		if (fd_read(0, &rest, 1, &got) != 0)
			__builtin_trap();
		size += got;
	} while (got > 0);
	order_parse(text_in, text_in + size);
	struct vector answer = {text_out, answer_format()};
	if (fd_write(1, &answer, 1, &got) != 0)
		__builtin_trap();
}
