/* Bytes that wait for a socket to take them. */
#ifndef EXPORT_OUTPUT_H
#define EXPORT_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bh_output {
	uint8_t *bytes; /* owned */
	size_t start, used, size;
};

/* False: out of memory; nothing was added. */
bool bh_output_add(struct bh_output *o, const void *bytes, size_t length);

/* Sends what the socket takes. False: it never will again. */
bool bh_output_flush(struct bh_output *o, int fd);

void bh_output_finish(struct bh_output *o);

#endif
