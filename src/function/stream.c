/* See stream.h. */
#include "stream.h"

#include <errno.h>
#include <stdlib.h>

static void advance(struct bh_stream *s);

/* The first chunk of a list, or NULL. */
static struct bh_stream_chunk *first(const struct bh_list *l)
{
	return bh_list_empty(l) ? NULL : bh_container_of(l->next, struct bh_stream_chunk, link);
}

static void release(struct bh_stream *s, struct bh_stream_chunk *c)
{
	bh_list_remove(&c->link);
	bh_list_append(&s->idle, &c->link);
}

/* An idle chunk for the next length bytes of the command, in no list; NULL: later. */
static struct bh_stream_chunk *next_chunk(struct bh_stream *s)
{
	struct bh_stream_chunk *c = first(&s->idle);
	uint64_t left = s->end - s->next;

	if (!c)
		return NULL;
	bh_list_remove(&c->link);
	c->command = s->command;
	c->length = (uint32_t)BH_MIN(left, (uint64_t)BH_STREAM_CHUNK);
	c->filled = 0;
	c->taken = 0;
	c->error = 0;
	c->request.offset = s->next;
	c->request.fua = s->fua;
	s->next += c->length;
	return c;
}

static void submit(struct bh_stream *s, struct bh_stream_chunk *c)
{
	c->busy = true;
	s->flying++;
	bh_block_submit(s->block, &c->request);
}

/* Have the block read what the chunk does not hold yet. */
static void submit_read(struct bh_stream *s, struct bh_stream_chunk *c)
{
	c->request.op = BH_BLOCK_READ;
	c->request.offset += c->filled;
	c->request.data = c->data + c->filled;
	c->request.length = c->length - c->filled;
	submit(s, c);
}

/* Append to the writing list: a chunk of data, or a flush. */
static void enqueue(struct bh_stream *s, struct bh_stream_chunk *c, enum bh_block_op op)
{
	c->request.op = op;
	c->request.data = c->data;
	c->request.length = c->length;
	bh_list_append(&s->writing, &c->link);
	s->unfinished++;
	advance(s);
}

/* After an error, what the same command has queued is not written. */
static void abandon_writes(struct bh_stream *s, uint32_t command)
{
	bh_list_each(c, &s->writing, struct bh_stream_chunk, link) {
		if (c->command != command || c->busy)
			continue;
		release(s, c);
		if (command == s->command)
			s->unfinished--;
	}
	if (command == s->command && s->filling) {
		release(s, s->filling);
		s->filling = NULL;
	}
}

static void write_done(struct bh_stream *s, struct bh_stream_chunk *c)
{
	const struct bh_block_request *r = &c->request;
	uint32_t command = c->command;

	if (r->op == BH_BLOCK_FLUSH) {
		s->flushes += r->error == 0;
		s->dirty = s->dirty && r->error;
	} else {
		s->dirty = true;
	}
	release(s, c);
	if (command == s->command) {
		s->unfinished--;
		s->moved += r->moved;
		s->error = r->error;
	}
	if (r->error)
		abandon_writes(s, command);
}

static void read_done(struct bh_stream *s, struct bh_stream_chunk *c)
{
	if (c->command != s->command) {
		release(s, c);
		return;
	}
	c->filled += c->request.moved;
	c->error = c->request.error;
	if (s->kind != BH_STREAM_VERIFY)
		return;
	s->moved += c->filled;
	s->error = c->error;
	if (c->error)
		s->next = s->end;
	release(s, c);
}

static void request_done(struct bh_block_request *r)
{
	struct bh_stream_chunk *c = bh_container_of(r, struct bh_stream_chunk, request);
	struct bh_stream *s = c->stream;

	c->busy = false;
	s->flying--;
	if (r->op == BH_BLOCK_READ)
		read_done(s, c);
	else
		write_done(s, c);
	advance(s);
	s->wake(s);
}

/*
 * Fill idle chunks. What the host has in memory is copied here and now, but one
 * chunk a call: that is all the time the controller's thread should lose to it,
 * and the rest is as quickly had when the guest comes for it. What it has not is
 * asked for as far ahead as there are chunks.
 */
static void read_ahead(struct bh_stream *s)
{
	while (s->next < s->end) {
		struct bh_stream_chunk *c = next_chunk(s);

		if (!c)
			return;
		bh_list_append(&s->reading, &c->link);
		c->filled = bh_block_try_read(s->block, c->request.offset, c->data, c->length);
		if (c->filled == c->length)
			return;
		submit_read(s, c);
	}
}

static void verify_on(struct bh_stream *s)
{
	struct bh_stream_chunk *c;

	if (s->next == s->end || !bh_list_empty(&s->reading))
		return;
	c = next_chunk(s);
	if (!c)
		return;
	bh_list_append(&s->reading, &c->link);
	submit_read(s, c);
}

static void begin_flush(struct bh_stream *s)
{
	struct bh_stream_chunk *c = first(&s->idle);

	if (!s->flush_wanted || !c)
		return;
	s->flush_wanted = false;
	bh_list_remove(&c->link);
	c->command = s->command;
	c->length = 0;
	enqueue(s, c, BH_BLOCK_FLUSH);
}

/* Hand over what can be handed over. Nothing overtakes a write. */
static void advance(struct bh_stream *s)
{
	struct bh_stream_chunk *c = first(&s->writing);

	if (c) {
		if (!c->busy)
			submit(s, c);
		return;
	}
	switch (s->kind) {
	case BH_STREAM_READ:
		if (!s->error)
			read_ahead(s);
		break;
	case BH_STREAM_VERIFY:
		verify_on(s);
		break;
	case BH_STREAM_FLUSH:
		begin_flush(s);
		break;
	case BH_STREAM_NONE:
	case BH_STREAM_WRITE:
		break;
	}
}

static void forget_reads(struct bh_stream *s)
{
	bh_list_each(c, &s->reading, struct bh_stream_chunk, link) {
		bh_list_remove(&c->link);
		if (!c->busy)
			bh_list_append(&s->idle, &c->link);
		else
			c->command = s->command - 1; /* nobody's: released when it is done */
	}
}

uint32_t bh_stream_take(struct bh_stream *s, struct bh_transfer *t, uint32_t at, uint32_t max)
{
	uint32_t done = 0;

	while (done < max && !s->error) {
		struct bh_stream_chunk *c = first(&s->reading);
		uint32_t n;

		if (!c) {
			advance(s);
			c = first(&s->reading);
		}
		if (!c || c->busy)
			break;
		n = BH_MIN(max - done, c->filled - c->taken);
		bh_transfer_write(t, at + done, c->data + c->taken, n);
		c->taken += n;
		done += n;
		s->moved += n;
		if (c->taken < c->filled)
			break;
		s->error = c->error;
		release(s, c);
		if (s->error)
			forget_reads(s);
		else
			advance(s);
	}
	return done;
}

uint32_t bh_stream_put(struct bh_stream *s, const struct bh_transfer *t, uint32_t at, uint32_t max)
{
	uint32_t done = 0;

	while (done < max) {
		struct bh_stream_chunk *c = s->filling;
		uint32_t n;

		if (s->error) {
			done = max;
			break;
		}
		if (!c)
			c = s->filling = next_chunk(s);
		if (!c)
			break;
		n = BH_MIN(max - done, c->length - c->filled);
		bh_transfer_read(t, at + done, c->data + c->filled, n);
		c->filled += n;
		done += n;
		if (c->filled == c->length) {
			s->filling = NULL;
			enqueue(s, c, BH_BLOCK_WRITE);
		}
	}
	s->to_put -= done;
	return done;
}

bool bh_stream_finished(const struct bh_stream *s)
{
	switch (s->kind) {
	case BH_STREAM_NONE:
	case BH_STREAM_READ:
		return true;
	case BH_STREAM_WRITE:
		return s->to_put == 0 && s->unfinished == 0;
	case BH_STREAM_VERIFY:
		return s->next == s->end && bh_list_empty(&s->reading);
	case BH_STREAM_FLUSH:
		return !s->flush_wanted && s->unfinished == 0;
	}
	return true;
}

void bh_stream_drop(struct bh_stream *s)
{
	forget_reads(s);
	if (s->filling)
		release(s, s->filling);
	s->filling = NULL;
	s->flush_wanted = false;
	s->unfinished = 0;
	s->kind = BH_STREAM_NONE;
	s->command++;
}

static void begin(struct bh_stream *s, enum bh_stream_kind kind, uint64_t offset, uint64_t length)
{
	bh_stream_drop(s);
	s->kind = kind;
	s->next = offset;
	s->end = offset + length;
	s->to_put = 0;
	s->fua = false;
	s->moved = 0;
	s->error = 0;
}

void bh_stream_read(struct bh_stream *s, uint64_t offset, uint64_t length)
{
	begin(s, BH_STREAM_READ, offset, length);
	advance(s);
}

void bh_stream_write(struct bh_stream *s, uint64_t offset, uint64_t length, bool fua)
{
	begin(s, BH_STREAM_WRITE, offset, length);
	s->to_put = length;
	s->fua = fua;
}

void bh_stream_verify(struct bh_stream *s, uint64_t offset, uint64_t length)
{
	begin(s, BH_STREAM_VERIFY, offset, length);
	advance(s);
}

void bh_stream_flush(struct bh_stream *s)
{
	begin(s, BH_STREAM_FLUSH, 0, 0);
	s->flush_wanted = true;
	advance(s);
}

int bh_stream_init(struct bh_stream *s, struct bh_block *block, void (*wake)(struct bh_stream *s))
{
	*s = (struct bh_stream){.block = block, .wake = wake};
	bh_list_init(&s->idle);
	bh_list_init(&s->reading);
	bh_list_init(&s->writing);
	for (unsigned i = 0; i < BH_STREAM_CHUNKS; i++) {
		struct bh_stream_chunk *c = &s->chunks[i];

		c->stream = s;
		c->request.done = request_done;
		c->data = aligned_alloc(4096, BH_STREAM_CHUNK); /* untouched, it costs address space only */
		bh_list_append(&s->idle, &c->link);
	}
	for (unsigned i = 0; i < BH_STREAM_CHUNKS; i++) {
		if (!s->chunks[i].data) {
			bh_stream_finish(s);
			return -ENOMEM;
		}
	}
	return 0;
}

void bh_stream_finish(struct bh_stream *s)
{
	for (unsigned i = 0; i < BH_STREAM_CHUNKS; i++) {
		free(s->chunks[i].data);
		s->chunks[i].data = NULL;
	}
}
