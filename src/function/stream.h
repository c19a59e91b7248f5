/*
 * A command's bytes on their way between the medium and the data phase: reads run
 * ahead of the guest, writes are gathered, both in a fixed number of chunks, so
 * that a command of any size needs the same memory and a usual one a single piece
 * of I/O.
 *
 * One command at a time. A dropped one (reset, error) leaves behind what is already
 * with the block: reads end unseen; writes, and chunks of it that were full, are
 * finished before anything a later command does. So what a guest finds on the
 * medium does not depend on how fast the host was.
 *
 * Chunks are cut at the same places of a command whatever the transfers were that
 * brought the bytes, and are written one at a time, in order.
 */
#ifndef FUNCTION_STREAM_H
#define FUNCTION_STREAM_H

#include <base/list.h>
#include <usb/device.h>

#include "block.h"

#define BH_STREAM_CHUNK (256u * 1024)
#define BH_STREAM_CHUNKS 4

enum bh_stream_kind { BH_STREAM_NONE, BH_STREAM_READ, BH_STREAM_WRITE, BH_STREAM_VERIFY, BH_STREAM_FLUSH };

struct bh_stream;

struct bh_stream_chunk {
	struct bh_stream *stream;
	struct bh_list link; /* idle, reading or writing; in none while its command is dropped and it is read */
	struct bh_block_request request;
	uint8_t *data;
	uint32_t command; /* the command it works for */
	uint32_t length;  /* bytes of it */
	uint32_t filled;  /* bytes it holds */
	uint32_t taken;   /* bytes of those the guest has (read) */
	int error;        /* why it is not filled (read) */
	bool busy;        /* with the block */
};

struct bh_stream {
	/* configuration */
	struct bh_block *block;
	void (*wake)(struct bh_stream *s); /* something was done; may do anything but finish the stream */

	/* the command */
	enum bh_stream_kind kind;
	uint32_t command; /* its number */
	uint64_t next;    /* where on the medium the next chunk begins */
	uint64_t end;
	uint64_t to_put; /* write: bytes to come from the guest */
	bool fua;
	bool flush_wanted;   /* flush: not handed over yet */
	unsigned unfinished; /* its chunks on the writing list */
	uint64_t moved;      /* bytes given to the guest, or on the medium */
	int error;           /* negative errno: what ended it, after moved bytes */

	/* chunks */
	struct bh_list idle;
	struct bh_list reading; /* of this command, in order */
	struct bh_list writing; /* in order, of this command and dropped ones; the first is busy */
	struct bh_stream_chunk *filling;
	struct bh_stream_chunk chunks[BH_STREAM_CHUNKS];
	unsigned flying; /* chunks with the block */
	bool dirty;      /* written since the last flush */
	uint64_t flushes;
};

/* -ENOMEM or 0. */
int bh_stream_init(struct bh_stream *s, struct bh_block *block, void (*wake)(struct bh_stream *s));
void bh_stream_finish(struct bh_stream *s); /* nothing may be flying */

/* Begin a command; the one before has to be finished or dropped. Bytes on the medium. */
void bh_stream_read(struct bh_stream *s, uint64_t offset, uint64_t length);
void bh_stream_write(struct bh_stream *s, uint64_t offset, uint64_t length, bool fua);
void bh_stream_verify(struct bh_stream *s, uint64_t offset, uint64_t length); /* read, and forget */
void bh_stream_flush(struct bh_stream *s);

/*
 * Move up to max bytes into, or out of, a transfer at byte at. The bytes moved; less
 * than max says: later (wake is called), or, reading, that s->error is set. Writing
 * after an error takes everything and does nothing with it, so that where an error
 * shows does not depend on when it happened.
 */
uint32_t bh_stream_take(struct bh_stream *s, struct bh_transfer *t, uint32_t at, uint32_t max);
uint32_t bh_stream_put(struct bh_stream *s, const struct bh_transfer *t, uint32_t at, uint32_t max);

/* Nothing of the command is left to be done by the host. */
bool bh_stream_finished(const struct bh_stream *s);

/* Forget the command. */
void bh_stream_drop(struct bh_stream *s);

/* Nothing of any command is with the block, or waits for it. */
static inline bool bh_stream_quiet(const struct bh_stream *s)
{
	return s->flying == 0 && bh_list_empty(&s->writing) && !s->flush_wanted;
}

#endif
