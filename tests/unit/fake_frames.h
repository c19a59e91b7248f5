/*
 * A source of frames and a carrier of isochronous batches, of a few lines each: two
 * descriptors in a frame at most, and a device that answers at once, after so many frames,
 * or when the test says so. What it sends, and hears, is numbered.
 */
#ifndef TESTS_FAKE_FRAMES_H
#define TESTS_FAKE_FRAMES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <base/util.h>
#include <batch/isochronous.h>

#define FIRST    5000u /* frame; where a controller would begin */
#define FRAMES   2048u
#define PACKET   64u
#define HEARD    1024u
#define HELD_MAX BH_ISOCHRONOUS_BATCHES

struct fake_slot {
	struct bh_descriptor d;
	uint8_t data[PACKET];
	bool linked, active, broken;
	unsigned retired, missed;
	uint32_t actual;
	enum bh_status status;
};

enum fake_way { AT_ONCE, LATER, BY_HAND };

struct fake_held {
	struct bh_isochronous_batch *batch;
	uint64_t due; /* engine frame */
};

struct fake_frames {
	struct bh_source source;
	struct bh_engine engine;
	struct bh_isochronous stream;
	struct fake_slot slots[FRAMES][2];
	uint64_t frame;  /* under way; counted as the source does */
	unsigned nexts, ready;
	bool refuse_retire;
	/* the carrier */
	enum fake_way way;
	unsigned delay;         /* LATER: frames from start to completion */
	bool middle;            /* LATER: in the middle of the frame, not at its edge */
	struct fake_held held[HELD_MAX];
	unsigned held_count;
	unsigned starts, cancels, sizes[256]; /* sizes: of the batches, in order */
	bool cancel_at_once, complete_others_in_start;
	unsigned reset_in_start; /* in this one, counted from 1 */
	/* the device */
	unsigned sent;          /* IN: packets, so far */
	uint32_t lengths[256];  /* IN: of packet n, 0: 8 bytes */
	enum bh_status outcomes[256];
	unsigned heard;
	uint8_t words[HEARD];   /* OUT: first byte of each packet; 0 of an empty one */
};

static struct fake_frames f;

static inline struct fake_slot *fake_slot(uint64_t frame, unsigned n)
{
	return &f.slots[(frame - FIRST) % FRAMES][n];
}

static inline struct fake_slot *fake_slot_of(const struct bh_descriptor *d)
{
	for (unsigned n = 0; n < 2; n++)
		if (fake_slot(bh_frame_of(d), n)->d.id == d->id)
			return fake_slot(bh_frame_of(d), n);
	fail_msg("no such descriptor");
	return NULL;
}

static inline enum bh_found fake_next(struct bh_source *s, const struct bh_descriptor *after, struct bh_descriptor *ret)
{
	uint64_t asked = bh_frame_of(after);

	(void)s;
	f.nexts++;
	for (uint64_t frame = BH_MAX(asked, f.frame); frame <= f.frame + f.engine.config.isochronous_frames; frame++)
		for (unsigned n = 0; n < 2; n++) {
			struct fake_slot *slot = fake_slot(frame, n);

			if (!slot->linked || !slot->active || (frame == asked && slot->d.id <= after->id))
				continue;
			*ret = slot->d;
			return BH_FOUND;
		}
	return BH_FOUND_END;
}

static inline bool fake_read(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, void *to, uint32_t length)
{
	(void)s;
	if (fake_slot_of(d)->broken)
		return false;
	memcpy(to, fake_slot_of(d)->data + offset, length);
	return true;
}

static inline bool fake_write(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, const void *from,
                              uint32_t length)
{
	(void)s;
	if (fake_slot_of(d)->broken)
		return false;
	memcpy(fake_slot_of(d)->data + offset, from, length);
	return true;
}

static inline bool fake_equal(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, const void *bytes,
                              uint32_t length)
{
	(void)s;
	return memcmp(fake_slot_of(d)->data + offset, bytes, length) == 0;
}

static inline bool fake_retire(struct bh_source *s, const struct bh_descriptor *d, uint32_t actual, enum bh_status status)
{
	struct fake_slot *slot = fake_slot_of(d);

	(void)s;
	if (f.refuse_retire)
		return false;
	for (unsigned i = 0; i < FRAMES; i++) /* one that hangs in several frames is one */
		if (f.slots[i][0].d.id == d->id)
			f.slots[i][0].active = false;
	slot->active = false;
	slot->retired++;
	slot->actual = actual;
	slot->status = status;
	return true;
}

static inline void fake_ready(struct bh_source *s)
{
	(void)s;
	assert_false(f.stream.issuing);
	f.ready++;
}

static const struct bh_source_ops fake_source_ops = {
	.next = fake_next,
	.read = fake_read,
	.write = fake_write,
	.equal = fake_equal,
	.retire = fake_retire,
	.ready = fake_ready,
};

/* --- the carrier ------------------------------------------------------------------------- */

static inline void fake_move(struct bh_isochronous_batch *b, uint32_t i)
{
	struct bh_packet *p = &b->packets[i];
	uint8_t *data = b->data + p->offset;

	if (!f.stream.in) {
		assert_true(f.heard < HEARD);
		f.words[f.heard++] = p->length ? data[0] : 0;
		p->actual = p->length;
		p->status = BH_SUCCESS;
		return;
	}
	p->status = f.outcomes[f.sent % 256];
	p->actual = f.lengths[f.sent % 256] ? f.lengths[f.sent % 256] - 1 : 8;
	memset(data, 0, PACKET);
	data[0] = (uint8_t)(f.sent + 1);
	f.sent++;
}

/* Ends the n-th batch that is held, of which so many packets had their turn. */
static inline void fake_end(unsigned n, uint32_t packets)
{
	struct bh_isochronous_batch *b = f.held[n].batch;

	f.held_count--;
	for (unsigned i = n; i < f.held_count; i++)
		f.held[i] = f.held[i + 1];
	for (uint32_t i = 0; i < BH_MIN(packets, b->count); i++)
		fake_move(b, i);
	bh_isochronous_complete(&f.stream, b);
}

static inline void fake_start(struct bh_isochronous *s, struct bh_isochronous_batch *b)
{
	assert_true(b->count > 0);
	for (uint32_t i = 0; i < b->count; i++) {
		assert_int_equal(b->packets[i].offset, i * PACKET);
		assert_int_equal(b->packets[i].status, BH_NO_RESPONSE);
	}
	f.sizes[f.starts++ % 256] = b->count;
	f.held[f.held_count++] = (struct fake_held){.batch = b, .due = f.engine.frame + f.delay};
	while (f.complete_others_in_start && f.held_count > 1)
		fake_end(0, UINT32_MAX);
	if (f.way == AT_ONCE)
		fake_end(f.held_count - 1, UINT32_MAX);
	if (f.starts == f.reset_in_start)
		bh_isochronous_reset(s);
}

static inline void fake_cancel(struct bh_isochronous *s, struct bh_isochronous_batch *b)
{
	(void)s;
	f.cancels++;
	for (unsigned i = 0; f.cancel_at_once && i < f.held_count; i++)
		if (f.held[i].batch == b) {
			fake_end(i, 0);
			return;
		}
}

static const struct bh_isochronous_ops fake_isochronous_ops = {.start = fake_start, .cancel = fake_cancel};

static inline void fake_end_due(void)
{
	while (f.way == LATER && f.held_count && f.held[0].due <= f.engine.frame)
		fake_end(0, UINT32_MAX);
}

/* --- the guest ---------------------------------------------------------------------------- */

static inline void fake_frames_init(bool in, const struct bh_engine_config *config)
{
	memset(&f, 0, sizeof(f));
	f.source.ops = &fake_source_ops;
	f.frame = FIRST;
	bh_engine_init(&f.engine, &f.source, config);
	bh_isochronous_init(&f.stream, &f.engine, &fake_isochronous_ops, in, PACKET);
}

static inline void fake_frames_finish(void)
{
	while (f.held_count)
		fake_end(0, 0);
	bh_isochronous_finish(&f.stream);
	assert_int_equal(f.engine.counters.memory, 0);
	assert_true(bh_list_empty(&f.engine.streams));
}

/* One of length bytes, whose first is word. */
static inline struct fake_slot *queue_at(uint64_t frame, unsigned n, uint32_t length, uint8_t word)
{
	struct fake_slot *slot = fake_slot(frame, n);

	*slot = (struct fake_slot){
		.d = {
			.id = 0x1000 + 64 * frame + 16 * n,
			.chain = BH_FRAME_CHAIN | frame,
			.destination = 7,
			.length = length,
			.in = f.stream.in,
		},
		.linked = true,
		.active = true,
		.data = {word},
	};
	return slot;
}

/* One every interval frames, [from, to), of eight bytes; words count from 1. */
static inline void queue_all(uint64_t from, uint64_t to, unsigned interval)
{
	uint8_t word = 1;

	for (uint64_t frame = from; frame < to; frame += interval)
		queue_at(frame, 0, f.stream.in ? PACKET : 8, word++);
}

static inline enum bh_answer fake_offer(uint64_t frame, unsigned n, enum bh_moment moment)
{
	enum bh_answer answer = bh_isochronous_offer(&f.stream, &fake_slot(frame, n)->d, moment);

	fake_slot(frame, n)->missed += answer == BH_ANSWER_MISSED;
	return answer;
}

static inline void offer_all(uint64_t frame, enum bh_moment moment, bool waiting[2])
{
	for (unsigned n = 0; n < 2; n++) {
		struct fake_slot *slot = fake_slot(frame, n);

		waiting[n] = waiting[n] && slot->linked && slot->active &&
		             fake_offer(frame, n, moment) == BH_ANSWER_BUSY;
	}
}

/* The frame under way, from its beginning to its end. */
static inline void one_frame(void)
{
	bool waiting[2] = {true, true};

	bh_engine_frame(&f.engine, f.engine.frame + 1);
	if (!f.middle)
		fake_end_due();
	offer_all(f.frame, BH_MOMENT_NOW, waiting);
	fake_end_due();
	offer_all(f.frame, BH_MOMENT_NOW, waiting);
	offer_all(f.frame, BH_MOMENT_OVER, waiting);
	assert_false(waiting[0] || waiting[1]);
	f.frame++;
}

/* Up to this one. */
static inline void frames_until(uint64_t frame)
{
	while (f.frame < frame)
		one_frame();
}

#endif
