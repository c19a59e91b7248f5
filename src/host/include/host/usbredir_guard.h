/*
 * Where a message of usbredir begins, and whether it may be as long as it says, for either side.
 * libusbredirparser allocates what a header asks for, up to 128 MiB, before a byte of it has come;
 * so headers are looked at here first.
 */
#ifndef HOST_USBREDIR_GUARD_H
#define HOST_USBREDIR_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of one bulk packet, where both sides can say so much; it bounds what a peer may send. */
#define BH_REDIR_PIECE (1u << 20)

/* Zeroed for each connection. */
struct bh_redir_guard {
	bool has_device; /* we have the device, what comes is from who uses it; else the other way round */
	uint8_t header[16];
	unsigned have;   /* bytes of the header */
	uint32_t body;   /* bytes of the message that are still to come */
	bool begun;      /* the first header has passed: it was a hello */
};

/*
 * Passes bytes as they come; header_size: 12 or 16, what the two sides have agreed upon. NULL, or
 * why the connection is to be dropped: then the last header is not to reach the parser.
 */
const char *bh_redir_guard_pass(struct bh_redir_guard *g, unsigned header_size, const uint8_t *bytes, size_t count);

#endif
