/*
 * The block seam: where a disk's bytes are. One implementation is a file (block.c);
 * the tests have another, which fails when told to.
 */
#ifndef FUNCTION_BLOCK_H
#define FUNCTION_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <uv.h>

#include <base/list.h>

enum bh_block_op { BH_BLOCK_READ, BH_BLOCK_WRITE, BH_BLOCK_FLUSH };

/*
 * One piece of I/O. The caller fills the first part and owns nothing of it until
 * done() is called. offset + length never exceeds the block's size.
 */
struct bh_block_request {
	enum bh_block_op op;
	uint64_t offset;
	uint8_t *data;
	uint32_t length;
	bool fua; /* write: on stable storage before it is done */
	void (*done)(struct bh_block_request *r);

	/* result */
	int error;      /* 0 or a negative errno */
	uint32_t moved; /* bytes read or written before the error */

	/* the implementation's */
	void *block_data;
	union {
		uv_work_t work; /* for the thread pool */
		struct {
			struct bh_list link;
			uint64_t deadline;
			uint32_t piece; /* bytes of the command under way */
			bool sent;      /* a command is under way */
			bool flushing;  /* that is the flush behind a write with fua */
		} queued; /* for a server */
	};
};

struct bh_block;

struct bh_block_ops {
	/*
	 * Read what can be had at once, without waiting for a disk: the bytes read,
	 * from the start on, 0 if none. Never an error: what failed here fails again
	 * in submit.
	 */
	uint32_t (*try_read)(struct bh_block *b, uint64_t offset, void *data, uint32_t length);
	/*
	 * Ends with exactly one done(), on the calling thread, never before submit
	 * returns. A flush covers the writes that were done before it was submitted;
	 * requests under way together are in no order.
	 */
	void (*submit)(struct bh_block *b, struct bh_block_request *r);
	/* Nothing is under way. Does not flush. */
	void (*destroy)(struct bh_block *b);
};

struct bh_block {
	const struct bh_block_ops *ops;
	uint64_t size; /* bytes */
	bool readonly;
	uint32_t alignment; /* of offsets and lengths, bytes; 0: any */
};

/* The only ways through the table. */
static inline uint32_t bh_block_try_read(struct bh_block *b, uint64_t offset, void *data, uint32_t length)
{
	return b->ops->try_read(b, offset, data, length);
}

static inline void bh_block_submit(struct bh_block *b, struct bh_block_request *r)
{
	r->error = 0;
	r->moved = 0;
	b->ops->submit(b, r);
}

static inline void bh_block_destroy(struct bh_block *b)
{
	if (b)
		b->ops->destroy(b);
}

/*
 * Open and lock a regular file or block device: exclusively to write, shared to
 * read. 0 or a negative errno, then error holds one line for the user.
 */
int bh_block_file_open(uv_loop_t *loop, const char *path, bool readonly, struct bh_block **ret, char *error,
                       size_t error_size);

#define BH_NBD_NAME_SIZE 256u

/* The URI, cut to its room, for people: without the user and password that may be in it. Returns name. */
static inline char *bh_block_nbd_name(const char *uri, char name[BH_NBD_NAME_SIZE])
{
	const char *authority = strstr(uri, "://"), *end, *at = NULL;

	authority = authority ? authority + 3 : uri;
	end = authority + strcspn(authority, "/?#");
	for (const char *p = authority; p < end; p++)
		at = *p == '@' ? p : at;
	snprintf(name, BH_NBD_NAME_SIZE, "%.*s%s", (int)(authority - uri), uri, at ? at + 1 : authority);
	return name;
}

/*
 * The export of an NBD server, by libnbd: uri as nbd_connect_uri(3) takes it. Connecting may take
 * two seconds, in which nothing else is done here; -ETIMEDOUT then. timeout_ms: how long a request
 * may take, whatever becomes of the connection meanwhile: it ends with an error after that.
 *
 * A connection that is lost is made again, without waiting, and requests under way are sent again:
 * they are the same then. What is not the same is what the server had accepted and not yet
 * written: where writes were acknowledged and none flushed since, the next flush (or write with
 * fua) after that fails, once, so that nothing is taken for safe that may be lost.
 *
 * -ENOTSUP: built without libnbd. Other errors as above.
 */
int bh_block_nbd_open(uv_loop_t *loop, const char *uri, bool readonly, unsigned timeout_ms,
                      void (*log)(void *data, const char *text), void *log_data, struct bh_block **ret, char *error,
                      size_t error_size);

#endif
