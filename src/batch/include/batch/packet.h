/* One packet of several that travel together, where each has an outcome of its own. */
#ifndef BATCH_PACKET_H
#define BATCH_PACKET_H

#include <stdint.h>

#include <batch/status.h>

struct bh_packet {
	/* set by who sends it on its way */
	uint32_t offset; /* of its bytes in the transfer's */
	uint32_t length; /* OUT: bytes to send, perhaps none; IN: room */

	/* set by who carries it; BH_NO_RESPONSE and 0 before */
	uint32_t actual;
	enum bh_status status; /* BH_SUCCESS, BH_BABBLE, BH_NO_RESPONSE or BH_BUS_ERROR */
};

#endif
