/*
 * One bulk or interrupt endpoint between two packet sizes: the guest's, which is smaller, and the
 * device's. Bytes go through; what is to be kept is where a transfer ends (USB 2.0, 5.8.3: at a
 * packet shorter than the largest). The rules, with their reasons, stand in docs/translation.md;
 * their numbers here are those there.
 */
#ifndef LAYER_TRANSLATE_STREAM_H
#define LAYER_TRANSLATE_STREAM_H

#include <layer/layer.h>

struct bh_translate_counters {
	uint64_t early_bytes;   /* OUT: accepted from the guest before the device had them (difference C) */
	uint64_t early_failed;  /* transfers to the device of such bytes that failed: said at the guest's next packet */
	uint64_t guessed_ends;  /* OUT: the device was told of an end where the guest's request ended, or stood still */
	uint64_t went_on;       /* of those, more data came next: of another transfer, or of what was one to the guest */
	uint64_t swallowed_empty; /* OUT: empty packets whose end the device had been told */
	uint64_t added_empty;   /* IN: ends told by an empty packet that the device had no need of */
	uint64_t dropped_ends;  /* IN: ends on a packet boundary that nobody had asked beyond of */
	uint64_t split_packets; /* IN: packets of the device that went to several transfers of the guest */
	uint64_t dropped_bytes; /* kept for either side when the endpoint was set up anew */
};

/* The data stage of a bulk-only disk's command under way: both of its endpoints look at it. */
struct bh_command {
	uint32_t left; /* bytes; 0: none, or it is over */
	bool in;
};

enum bh_stream_end { BH_STREAM_OPEN, BH_STREAM_ENDED, BH_STREAM_FAILED };

struct bh_translate_stream {
	/* configuration */
	struct bh_layer *layer;
	struct bh_translate_counters *counters;
	struct bh_command *command; /* NULL: of no disk */
	struct bh_endpoint_info outside; /* what the guest is shown; */
	uint16_t inside;                 /* and the packet size of the device */
	bool in;
	const bool *gone; /* the device below is: nothing is submitted to it any more */
	void (*keeps)(struct bh_translate_stream *s); /* OUT: bytes are kept, more of them than before */

	/* state */
	struct bh_list waiting; /* passages, in order; the first is under way */
	bool busy;     /* that it is; */
	bool running;  /* and that the next is being started */
	bool stale;    /* was set up anew while busy: what comes of it is forgotten */
	uint8_t *kept; /* room for one packet of the device. OUT: accepted, not sent. IN: fetched, not handed out */
	uint32_t kept_count;
	uint32_t kept_at; /* IN: where it begins */
	uint64_t kept_since; /* OUT: as of when nothing was added; the layer's */
	enum bh_stream_end end; /* IN: what comes after what is kept. OUT: failed only */
	enum bh_status failure;
	bool guessing; /* OUT: what is under way ends at a guess */
	bool guessed;  /* OUT: the last thing the device was told is an end that was guessed. IN: its end was a packet with bytes */
	struct iovec *spans; /* of what is under way */
	unsigned span_room;
	uint32_t before; /* IN: bytes handed out from what was kept; OUT: bytes kept that go first */
	struct bh_transfer flush; /* OUT: what is kept, sent by itself */
	struct iovec flush_span;
	bool flushing;
};

/* Of a zeroed structure. -ENOMEM, or 0. Set up anew: bh_translate_stream_reset(). */
int bh_translate_stream_init(struct bh_translate_stream *s, struct bh_layer *l, struct bh_translate_counters *counters,
                             const struct bh_endpoint_info *outside, uint16_t inside, struct bh_command *command);
void bh_translate_stream_finish(struct bh_translate_stream *s); /* nothing is under way */

/* As the layer's operations, for a passage to this endpoint. */
void bh_translate_stream_begin(struct bh_translate_stream *s, struct bh_passage *p);
void bh_translate_stream_ended(struct bh_translate_stream *s, struct bh_passage *p, enum bh_status status);
void bh_translate_stream_progress(struct bh_translate_stream *s, struct bh_passage *p);

/* The endpoint begins anew: what is kept is dropped. */
void bh_translate_stream_reset(struct bh_translate_stream *s);

/* OUT: the guest does not go on: what is kept is sent, and ends the transfer. Nothing kept: nothing happens. */
void bh_translate_stream_end(struct bh_translate_stream *s);

#endif
