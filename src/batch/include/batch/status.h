/*
 * How a packet, or a whole transfer, ended. An outcome is a result like any
 * other: host failures (no memory, no device node) are negative errno values and
 * never appear here, and what a guest does wrong is its controller's business.
 */
#ifndef BATCH_STATUS_H
#define BATCH_STATUS_H

enum bh_status {
	BH_SUCCESS,     /* OUT: every byte was taken; IN: as asked, or ended by a short packet */
	BH_STALL,       /* the endpoint refuses until it is told otherwise */
	BH_BABBLE,      /* more came than there was room for */
	BH_NO_RESPONSE, /* nobody answered (time-out) */
	BH_BUS_ERROR,   /* somebody answered, not intelligibly (CRC) */
	BH_CANCELLED,   /* ended because it was asked to; not an outcome a guest ever sees */
	BH_STATUS_COUNT
};

/* "success", "no-response": a static string; "?" for what is none of them. */
const char *bh_status_name(enum bh_status s);

#endif
