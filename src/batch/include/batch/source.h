/*
 * The source seam: where descriptors come from. A controller model implements
 * it; anything else that queues pieces of data in a memory we can read may too
 * (patent [0094], [0096], [0104]).
 *
 * The engine calls these only while it is itself being called
 * (bh_destination_offer() and friends), except ready, which may come at any time.
 */
#ifndef BATCH_SOURCE_H
#define BATCH_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include <batch/status.h>

/*
 * Our own copy of one descriptor, read once and validated by the source. One
 * descriptor is one packet. id names it for as long as it lives in guest memory
 * (its address); chain names the sub-list it was found in (a UHCI queue head's
 * address). The engine never interprets id, chain, buffer or token; it compares
 * them.
 */
struct bh_descriptor {
	uint64_t id;
	uint64_t chain;
	uint64_t destination; /* device address, endpoint, direction, in the source's own coding */
	uint64_t buffer;      /* guest address of the first byte */
	uint32_t token;       /* whatever else says what is to be done; equal means unchanged */
	uint32_t length;      /* bytes: what to send, or the room there is */
	bool in;              /* from the device to the guest */
	bool toggle;          /* DATA0/DATA1, alternating along a transfer */
	bool notify;          /* the guest asks to be told of its end (IOC) */
	bool stop_on_short;   /* SPD. Does not end SCAN; the source acts on it when it retires */
};

/* What a look at the list can find. */
enum bh_found {
	BH_FOUND,          /* an active descriptor; the other results fill in nothing */
	BH_FOUND_END,      /* the list ends */
	BH_FOUND_SUBLIST,  /* the sub-list ends ([0061], "a UHCI queue is one example") */
	BH_FOUND_INACTIVE, /* a descriptor that is not to be served */
	BH_FOUND_UNREADABLE, /* memory that is not there, at the moment */
	BH_FOUND_INVALID   /* nothing that makes sense */
};

struct bh_source;
struct bh_destination;

/*
 * All mandatory but those marked optional; none may block or call back into the engine.
 * Descriptors and bytes passed are the caller's, valid during the call only.
 */
struct bh_source_ops {
	/*
	 * The descriptor after the given one, as the list says now. Of the given one only
	 * id and chain count. Called for SCAN, and again for verification.
	 */
	enum bh_found (*next)(struct bh_source *s, const struct bh_descriptor *after, struct bh_descriptor *ret_next);

	/*
	 * OUT only: copies length bytes of the descriptor's buffer, offset bytes from its
	 * start, to what the engine keeps; offset + length <= d->length. False: the guest's
	 * memory is not there (bus error); what to holds then is not used.
	 */
	bool (*read)(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, void *to, uint32_t length);

	/*
	 * IN only: puts what came into the descriptor's buffer; the same bounds. False: bus
	 * error, and nothing was written. A source that never offers an IN provides it all
	 * the same; it is never called and may return false.
	 */
	bool (*write)(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, const void *from,
	              uint32_t length);

	/*
	 * Is what the buffer holds now equal to these bytes? False also where it cannot
	 * be read. offset + length <= d->length.
	 */
	bool (*equal)(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, const void *bytes,
	              uint32_t length);

	/*
	 * Optional, both or none: write traces on the descriptor's buffer ([0085]). watch:
	 * from now on; returns a stamp greater than 0 that never gets smaller, or 0 where
	 * this buffer cannot be traced. written: may it have been written since that
	 * stamp? A false alarm is allowed, a missed write is not.
	 */
	uint64_t (*watch)(struct bh_source *s, const struct bh_descriptor *d);
	bool (*written)(struct bh_source *s, const struct bh_descriptor *d, uint64_t since);

	/* Optional, with them: can there be traces at all now? */
	bool (*can_watch)(struct bh_source *s);

	/*
	 * The descriptor, which was just offered, has ended: tell the guest. actual is
	 * the number of bytes moved. False: the guest took it back in the meantime,
	 * and nothing was told.
	 */
	bool (*retire)(struct bh_source *s, const struct bh_descriptor *d, uint32_t actual, enum bh_status status);

	/* What was answered "busy" may be answered better now: offer again soon. */
	void (*ready)(struct bh_source *s);
};

struct bh_source {
	const struct bh_source_ops *ops;
};

#endif
