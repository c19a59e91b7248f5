/*
 * The batch engine: the packet consolidation (680), transfer management (682) and
 * data verification (690) modules of the patent, for any number of destinations
 * at once ([0068]). It knows no USB, no controller, no file descriptor, no clock
 * and no thread: time and completions are arguments, guest memory is reached
 * through the source, the device through the carrier.
 *
 * One engine serves one source. Everything is called on one thread. Times are
 * microseconds of any clock that never goes back; sizes are bytes.
 *
 * Figure 5 is states.c. A destination is in one of four states and gets three
 * inputs:
 *   A  bh_destination_offer()     the source asks for a descriptor to be served
 *   B  bh_destination_complete()  the host transfer has ended
 *   C  bh_destination_reset()     forget it all, cancel what is running
 */
#ifndef BATCH_ENGINE_H
#define BATCH_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/list.h>
#include <batch/source.h>
#include <batch/status.h>
#include <batch/verify.h>

enum bh_state { BH_IDLE, BH_WAIT, BH_DATA, BH_FAILURE, BH_STATE_COUNT };

/* Why SCAN stopped taking descriptors ([0061]). */
enum bh_scan_end {
	BH_SCAN_LIST,        /* the list ended */
	BH_SCAN_SUBLIST,     /* the sub-list ended */
	BH_SCAN_NOTIFY,      /* the last one taken asks to notify the guest */
	BH_SCAN_SHORT,       /* the last one taken is shorter than the largest packet */
	BH_SCAN_DESTINATION, /* the next one goes elsewhere */
	BH_SCAN_DIRECTION,   /* the next one goes the other way */
	BH_SCAN_TOGGLE,      /* the next one does not continue the data toggle */
	BH_SCAN_INACTIVE,    /* the next one is not active */
	BH_SCAN_RING,        /* the next one is in this batch already */
	BH_SCAN_BYTES,       /* the byte limit */
	BH_SCAN_DESCRIPTORS, /* the descriptor limit */
	BH_SCAN_MEMORY,      /* the engine's memory limit */
	BH_SCAN_INVALID,     /* the next one, or its data, cannot be read */
	BH_SCAN_END_COUNT
};

/* Why a running host transfer is being cancelled. */
enum bh_cancel {
	BH_CANCEL_NONE,
	BH_CANCEL_CHANGED,   /* the guest changed what is being sent, in place ([0077]) */
	BH_CANCEL_WITHDRAWN, /* the guest no longer offers it ([0076]) */
	BH_CANCEL_LINGER,    /* waited too long for all of it; some of it may be there */
	BH_CANCEL_RESET,     /* input C */
	BH_CANCEL_COUNT
};

/* What offering a descriptor came to. */
enum bh_answer {
	BH_ANSWER_BUSY,    /* offer it again */
	BH_ANSWER_RETIRED, /* source->retire was called and accepted */
	BH_ANSWER_CHANGED, /* source->retire refused: the guest took it back */
	BH_ANSWER_FAULT,   /* its data cannot be reached: bus error */
	BH_ANSWER_MISSED,  /* isochronous: its moment has passed; it stays as it is */
	BH_ANSWER_NOBODY   /* isochronous: there is no such destination */
};

struct bh_record;
struct bh_destination;

struct bh_engine_config {
	/* A number the guest cannot know, for it chooses what is hashed; 0: one is drawn. Made odd. */
	uint64_t hash_key;
	uint32_t max_batch_bytes;       /* of one batch, at most 2^30; less than a packet has: one packet */
	uint32_t max_batch_descriptors; /* of one batch, at most 2^18; 0 or 1: packet at a time */
	/*
	 * Bytes of all batches and records together. Beyond it there are only batches of
	 * one packet, which every destination may always have, and control data (at most
	 * 65,535 bytes a device), so that one that hangs starves nobody.
	 */
	uint64_t max_bytes;
	uint32_t retry_checks;          /* records verified at a retry, besides the head; 0: the head alone */
	/* Longest wait of a batch of several packets without progress, beyond what its wire needs (us_per_kib). */
	uint32_t linger_us;
	uint32_t withdrawn_frames;      /* not offered for so many frames, at least 1: withdrawn */
	/*
	 * How far ahead of its frame an isochronous packet may be gathered, at most 512; with
	 * max_batch_descriptors 0 or 1, none is.
	 */
	uint32_t isochronous_frames;
	bool withdrawn_fails;           /* a withdrawn OUT of which the device took bytes: FAILURE */
};

#define BH_ENGINE_DEFAULTS                                                                     \
	((struct bh_engine_config){                                                            \
		.max_batch_bytes = 256 * 1024,                                                 \
		.max_batch_descriptors = 4096,                                                 \
		.max_bytes = 16 * 1024 * 1024,                                                 \
		.retry_checks = 8,                                                             \
		.linger_us = 50 * 1000,                                                        \
		.withdrawn_frames = 32,                                                        \
		.isochronous_frames = 64,                                                      \
	})

struct bh_engine_counters {
	uint64_t offers;      /* input A */
	uint64_t busy;        /* of those, answered "busy" */
	uint64_t batches;     /* ISSUEs */
	uint64_t packets_out; /* retired, with any outcome */
	uint64_t packets_in;
	uint64_t bytes_out; /* told to the guest as moved */
	uint64_t bytes_in;
	uint64_t failed_packets; /* retired with an outcome other than success */
	uint64_t scan_end[BH_SCAN_END_COUNT];
	uint64_t cancels[BH_CANCEL_COUNT];
	uint64_t mismatches;  /* verification found a change */
	uint64_t failures;    /* FAILURE entered */
	uint64_t ahead_bytes; /* taken by the device, withdrawn by the guest (difference W) */
	/*
	 * Fetched, and there when the guest was found not to want it any more (difference K);
	 * the next INs get it. What other INs draw without a pause is no difference.
	 */
	uint64_t kept_bytes;
	uint64_t isochronous_missed;  /* descriptors whose moment passed: no answer in time, or never asked */
	uint64_t isochronous_dropped; /* packets nobody was given: too late, or no longer wanted */
	uint64_t memory;      /* bytes of batches, records and control data now */
	uint64_t memory_peak; /* the most there ever were */
};

struct bh_engine {
	struct bh_engine_config config;
	struct bh_source *source;
	struct bh_engine_counters counters;
	struct bh_list active; /* destinations that are not IDLE */
	struct bh_list streams; /* isochronous ones with anything under way */
	uint64_t now_us;
	uint64_t frame;
	uint8_t scratch[2048]; /* one packet, while it is compared */
};

/* One descriptor of a batch: the patent's OutRecord (figure 4). Of an IN only the id is kept. */
struct bh_record {
	uint64_t id;
	uint64_t buffer;
	uint32_t token;
	uint32_t length;
	uint32_t offset;   /* of its bytes in the batch */
	uint32_t proof;    /* BH_VERIFY_CHECKSUM: of its bytes; BH_VERIFY_TRACE: stamp after watched_since */
};

/*
 * One host transfer's worth of packets. OUT: data is D*, the copy of what the
 * guest queued, and the records say which byte is whose. IN: data is the room for
 * what comes; whatever IN is offered draws from it.
 */
struct bh_batch {
	uint8_t *data;
	uint32_t capacity; /* bytes allocated */
	uint32_t length;   /* bytes to move */
	struct bh_record *records;
	uint32_t *seen; /* which ids were taken: an open hash table of 4 * record_capacity entries */
	uint8_t stamp;  /* marks the entries of this batch; the others are free */
	uint32_t record_capacity;
	uint32_t count;  /* descriptors taken */
	uint32_t skip;   /* OUT: bytes of the first descriptor the device took in an earlier transfer */
	uint64_t chain;  /* where they were found */
	uint64_t head;   /* id of the first */
	bool zero_packet; /* OUT: ends in a zero-length packet after full ones */
	enum bh_scan_end end; /* why it ends where it does; */
	bool goes_on;         /* at a limit of ours, or OUT at a notification: the guest has queued more that would follow */
	bool watched;     /* OUT, BH_VERIFY_TRACE: all of its data is under write traces */
	uint64_t watched_since; /* the stamp they began with */
};

/* Of a packet that the device took in part: what is left is sent from there on. */
struct bh_part {
	uint64_t hash;  /* of what it took */
	uint32_t bytes; /* 0: none */
};

/* What verification found. */
struct bh_change {
	uint32_t record; /* the first that is not what it was */
	bool in_place;   /* the same descriptor with other content; false: the list leads elsewhere */
};

/* What came of it, being handed out. */
struct bh_outcome {
	enum bh_status status;
	uint32_t actual; /* bytes the device took (from the batch's start) or gave */
	uint32_t next;   /* OUT: record, IN: byte, to be handed out next */
};

struct bh_carrier_ops;

struct bh_destination {
	/* configuration */
	struct bh_engine *engine;
	const struct bh_carrier_ops *carrier;
	uint64_t key; /* bh_descriptor.destination */
	bool in;
	bool single;   /* never more than one packet a transfer (interrupt endpoints) */
	bool finishes; /* its transfers end by themselves: no linger */
	uint32_t us_per_kib; /* what its wire needs to move a batch, which is no lingering; 0: nothing to speak of */
	uint32_t max_packet;
	struct bh_verification verification;

	/* state: figure 5 */
	enum bh_state state;
	enum bh_cancel cancelling; /* WAIT only: a completion is awaited after a cancel */
	struct bh_batch batch;
	struct bh_outcome outcome; /* DATA only */
	struct bh_change changed;  /* BH_CANCEL_CHANGED */
	uint32_t verify_next;      /* next record to be verified in turn */
	bool issuing;              /* inside carrier->start */
	bool issued;               /* in the offer under way */
	bool offered_in_pass;      /* its chain was, in the pass under way */
	bool unoffered;            /* since ISSUE, a whole pass went by without an offer from its chain */
	bool withdrawn;            /* since ISSUE, the guest was found not to want it any more */
	bool one_at_a_time;        /* lingered without a byte: single packets until one moves */
	uint64_t issued_at;        /* microseconds */
	uint64_t waiting_since;    /* the same, or when something last moved */
	struct bh_part partly;     /* taken of the next head, in a transfer that was cancelled */
	uint64_t offered_frame;    /* of the last offer from its own chain */
	struct bh_list link; /* engine->active */
};

/*
 * Transfer management (682 in figure 3, [0067]: "Start", "Complete", "Cancel"): who
 * carries a batch to the device. Set once per destination; all mandatory. start and cancel
 * may call bh_destination_progress() and bh_destination_complete(), start also
 * bh_destination_reset() where the device went away at that; nothing else of the engine.
 */
struct bh_carrier_ops {
	/*
	 * Start moving destination->batch: length - skip bytes, an OUT's from data + skip
	 * on, and zero_packet. Ends with exactly one bh_destination_complete(), possibly
	 * before start returns. The batch's memory stays where it is until then.
	 */
	void (*start)(struct bh_destination *d);
	/* End it soon; the completion still comes, possibly before cancel returns. */
	void (*cancel)(struct bh_destination *d);
	/*
	 * FAILURE was entered: the guest has to be induced to reset the device ([0093]). May
	 * come inside bh_destination_offer() or bh_destination_complete(), and may call
	 * nothing of the engine: remember it, act later.
	 */
	void (*failed)(struct bh_destination *d);
};

/*
 * The source outlives the engine; config is copied, and its ranges are not checked. The
 * engine stays where it is, and time begins at 0. It owns no memory: it ends with its
 * destinations, each of which bh_destination_finish() takes down.
 */
void bh_engine_init(struct bh_engine *e, struct bh_source *source, const struct bh_engine_config *config);

/* So many bytes kept for the guest became so many: for what others keep beside batches (control pipes). */
void bh_engine_account(struct bh_engine *e, uint64_t before, uint64_t after);

/* Has the source write traces, for BH_VERIFY_TRACE? */
bool bh_engine_can_trace(const struct bh_engine *e);

/*
 * For a new destination, or one that was finished. key is what the source writes into
 * bh_descriptor.destination. Engine and carrier outlive it, and it stays where it is.
 * max_packet: 1 to 2048 bytes (asserted). single, finishes, us_per_kib and verification, all zero
 * here, may be set after it and before the first offer. Allocates nothing.
 */
void bh_destination_init(struct bh_destination *d, struct bh_engine *e, const struct bh_carrier_ops *carrier,
                         uint64_t key, bool in, uint32_t max_packet);

/* Frees its memory. No transfer may be running (bh_destination_running()). */
void bh_destination_finish(struct bh_destination *d);

/*
 * Input A. The descriptor is active, for this destination and in this direction,
 * and stands at the head of its chain. It is read during the call only. Memory that
 * cannot be had is no error: the answer is "busy".
 */
enum bh_answer bh_destination_offer(struct bh_destination *d, const struct bh_descriptor *head);

/* The descriptor is there to be offered, but its turn has not come: it was not withdrawn. */
void bh_destination_seen(struct bh_destination *d, const struct bh_descriptor *head);

/*
 * Input B, [0067]: "Complete", with "Succeed/Fail". Once for each start (asserted); inside
 * start or cancel, or from outside of the engine. actual: bytes moved, counted from where
 * start began; what exceeds that request is cut off. status: any outcome. BH_CANCELLED,
 * where nobody cancelled, counts as BH_NO_RESPONSE; BH_SUCCESS of an OUT that did not
 * move everything, as BH_BUS_ERROR. Calls source->ready, but not inside start.
 */
void bh_destination_complete(struct bh_destination *d, enum bh_status status, uint32_t actual);

/* Input C. Where a transfer runs, its completion is still to come. */
void bh_destination_reset(struct bh_destination *d);

/* Some of the running transfer has moved: worth waiting for the rest. */
void bh_destination_progress(struct bh_destination *d);

/*
 * The guest no longer wants what it queued, for all the caller can see ([0076]); said by who
 * knows more of the guest than its offers tell, such as a bus that sees the device set up
 * anew. bh_engine_frame() finds the rest. Cancels a running transfer; what an IN has
 * fetched stays for the next INs. May be said at any time from outside of the engine, and
 * twice; in IDLE and FAILURE nothing happens.
 */
void bh_destination_withdraw(struct bh_destination *d);

/* Is there a host transfer whose completion has not come? */
bool bh_destination_running(const struct bh_destination *d);

/* A new frame begins, with the number it has (ever growing). Finds what was withdrawn. */
void bh_engine_frame(struct bh_engine *e, uint64_t frame);

/* A whole look at the schedule ended: every chain that is linked was offered in it. */
void bh_engine_pass_done(struct bh_engine *e);

/* Time goes on. Ends what lingers. */
void bh_engine_tick(struct bh_engine *e, uint64_t now_us);

/* When bh_engine_tick() has something to do next; UINT64_MAX: never. */
uint64_t bh_engine_deadline(const struct bh_engine *e);

/* Static strings, for statistics and messages; "?" for what is none of them. */
const char *bh_state_name(enum bh_state s);
const char *bh_scan_end_name(enum bh_scan_end s);
const char *bh_cancel_name(enum bh_cancel c);

#endif
