/*
 * Isochronous destinations: one packet in a service interval, at its time or not at all. A
 * driver queues frames ahead, so there is something to gather here, too: what it has queued
 * for the coming frames travels as one host transfer, and each descriptor gets the outcome
 * of a packet of its own when its frame has come. There is no "busy" beyond the frame, no
 * retry, no failure of a whole batch, and several batches are under way at a time: so this
 * is no destination of figure 5, but one beside it ([0069] allows for it).
 *
 * OUT: a packet is sent once its batch was issued, and the guest hears so in its frame; an
 * isochronous OUT has no handshake (USB 2.0, 5.6.4). If by then the device has said what
 * became of it, the guest hears that. What the guest changed after it was issued is W: what
 * it shows instead is sent only if nothing that comes after it was, and otherwise missed.
 * IN: packets are drawn in order. From a host that takes time for it, what was asked for
 * in one frame is there some frames later: the first answer settles by how many the
 * stream lags, and what comes later than that is dropped, never delivered late.
 *
 * Whatever comes too late for its frame is left as it is: so does a controller that was
 * kept from its schedule, and drivers know it.
 */
#ifndef BATCH_ISOCHRONOUS_H
#define BATCH_ISOCHRONOUS_H

#include <stdbool.h>
#include <stdint.h>

#include <base/list.h>
#include <batch/engine.h>
#include <batch/packet.h>

/* Packets that are asked for, or not handed out yet. */
#define BH_ISOCHRONOUS_WINDOW  128u
#define BH_ISOCHRONOUS_BATCHES 8u

/* Frames without an offer after which a stream is another one: more than any interval in a frame list. */
#define BH_ISOCHRONOUS_GAP 1024u

/*
 * For an isochronous descriptor, bh_descriptor.chain says in which frame its turn is. The
 * source's next() then goes on in that frame and in the ones after it, to the next active
 * one for the same destination; frames that are over are passed over, and it does not look
 * further ahead than bh_engine_config.isochronous_frames.
 */
#define BH_FRAME_CHAIN ((uint64_t)1 << 63)
static inline uint64_t bh_frame_of(const struct bh_descriptor *d)
{
	return d->chain & ~BH_FRAME_CHAIN;
}

enum bh_moment {
	BH_MOMENT_NOW,  /* its frame is under way */
	BH_MOMENT_OVER, /* it was offered in its frame, which has just ended: the last offer */
	BH_MOMENT_LATE  /* its frame was over before it could be offered: the first and last offer */
};

struct bh_isochronous;

/* What goes with a packet: whose it is. */
struct bh_appointment {
	uint64_t frame;
	uint64_t id;
	bool done;    /* its outcome is known */
	bool dropped; /* nobody is to be given it */
};

/* One host transfer: packets [first, first + count) of the stream, in one piece of memory. */
struct bh_isochronous_batch {
	uint64_t first;
	uint32_t count;
	bool running;
	bool cancelled;
	uint8_t *data;             /* packet i of it at i * max_packet */
	struct bh_packet *packets; /* offsets count from data */
};

/*
 * Who carries them; as struct bh_carrier_ops. start and cancel may call
 * bh_isochronous_complete(), for any batch that runs, and start bh_isochronous_reset(), where
 * the device went away at that; nothing else of the engine.
 */
struct bh_isochronous_ops {
	/* Ends with exactly one bh_isochronous_complete(), possibly before start returns. */
	void (*start)(struct bh_isochronous *s, struct bh_isochronous_batch *b);
	/* End it soon; the completion still comes, possibly before cancel returns. */
	void (*cancel)(struct bh_isochronous *s, struct bh_isochronous_batch *b);
};

struct bh_isochronous {
	/* configuration */
	struct bh_engine *engine;
	const struct bh_isochronous_ops *ops;
	bool in;
	uint32_t max_packet;

	/*
	 * The window: packets head to tail, counted since the beginning of the stream; packet i
	 * lies at i modulo the window's size. Handed out at head, gathered at tail.
	 */
	uint64_t head, tail;
	uint32_t window; /* packets; 0: no memory yet */
	uint8_t *data;   /* window * max_packet bytes */
	struct bh_packet *packets;
	struct bh_appointment *appointments;
	struct bh_isochronous_batch batches[BH_ISOCHRONOUS_BATCHES];
	bool gathered;             /* since the stream began: */
	struct bh_descriptor last; /* the last one */
	uint32_t interval;         /* frames between it and the one before */

	/* state */
	uint64_t frame;         /* of the last offer */
	uint64_t offered_frame; /* engine->frame then */
	uint32_t lag;           /* IN: frames from asking to having */
	bool lag_known;
	unsigned misses; /* in a row */
	bool looked;     /* ahead, in this frame: once is enough, whatever hangs in it */
	bool committed;  /* OUT: what was gathered was found to stand, in this frame */
	bool issuing;    /* inside ops->start */
	unsigned resets; /* so far */
	struct bh_list link; /* engine->streams, while there are packets or batches */
};

/*
 * For a new stream, or one that was finished. The engine and the carrier outlive it, and it
 * stays where it is. max_packet: 1 to 1024 bytes (asserted). Allocates nothing.
 */
void bh_isochronous_init(struct bh_isochronous *s, struct bh_engine *e, const struct bh_isochronous_ops *ops, bool in,
                         uint32_t max_packet);

/* Frees its memory. Nothing may be running. */
void bh_isochronous_finish(struct bh_isochronous *s);

/*
 * The descriptor is active, and its turn is in the frame that its chain says; frames never
 * go back, and a fresh start leaves a gap of more than BH_ISOCHRONOUS_GAP frames.
 * BH_ANSWER_BUSY comes at BH_MOMENT_NOW only: it may be answered better within the frame
 * (source->ready will be called), and has to be offered once more when the frame is over.
 * BH_ANSWER_MISSED: it stays as it is, for good.
 */
enum bh_answer bh_isochronous_offer(struct bh_isochronous *s, const struct bh_descriptor *d, enum bh_moment moment);

/*
 * The batch has ended; what became of each packet is in it. Once for each start (asserted).
 * Calls source->ready, but not inside start.
 */
void bh_isochronous_complete(struct bh_isochronous *s, struct bh_isochronous_batch *b);

/* Forget it all, cancel what is running. Its memory goes when nothing is. */
void bh_isochronous_reset(struct bh_isochronous *s);

bool bh_isochronous_running(const struct bh_isochronous *s);

#endif
