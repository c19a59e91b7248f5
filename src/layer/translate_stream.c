/* See translate_stream.h; the rules are docs/translation.md's. */
#include "translate_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/util.h>

#define COMMAND_SIZE 31u /* of a bulk-only disk: BOT 5.1 */

int bh_translate_stream_init(struct bh_translate_stream *s, struct bh_layer *l, struct bh_translate_counters *counters,
                             const struct bh_endpoint_info *outside, uint16_t inside, struct bh_command *command)
{
	s->kept = malloc(inside);
	if (!s->kept)
		return -ENOMEM;
	s->layer = l;
	s->counters = counters;
	s->outside = *outside;
	s->inside = inside;
	s->in = outside->address & BH_ENDPOINT_IN;
	s->command = command;
	bh_list_init(&s->waiting);
	return 0;
}

void bh_translate_stream_finish(struct bh_translate_stream *s)
{
	free(s->kept);
	free(s->spans);
}

/* Is nothing to be submitted any more? */
static bool is_quiet(const struct bh_translate_stream *s)
{
	return *s->gone || s->layer->ending;
}

static struct bh_passage *first(const struct bh_translate_stream *s)
{
	return bh_list_empty(&s->waiting) ? NULL : bh_container_of(s->waiting.next, struct bh_passage, held);
}

/* --- the data stage of a disk's command (BOT 5.1, 6) ----------------------------------------- */

static bool in_data_stage(const struct bh_translate_stream *s)
{
	return s->command && s->command->left && s->command->in == s->in;
}

static void data_moved(struct bh_translate_stream *s, uint32_t bytes, bool over)
{
	if (in_data_stage(s))
		s->command->left = over ? 0 : s->command->left - BH_MIN(s->command->left, bytes);
}

/* Is this a command? Then its data stage begins. */
static void look_for_command(struct bh_translate_stream *s, const struct bh_transfer *t)
{
	uint8_t cbw[COMMAND_SIZE];

	if (!s->command || t->length != COMMAND_SIZE)
		return;
	bh_transfer_read(t, 0, cbw, sizeof(cbw));
	if (memcmp(cbw, "USBC", 4) != 0)
		return;
	s->command->left = (uint32_t)cbw[8] | (uint32_t)cbw[9] << 8 | (uint32_t)cbw[10] << 16 | (uint32_t)cbw[11] << 24;
	s->command->in = cbw[12] & 0x80;
}

/* --- spans ------------------------------------------------------------------------------------- */

/*
 * Has p->below move, in this order: the spans of what was submitted, from `from` on for `length`
 * bytes, and what is kept, `kept` bytes of it, before them (OUT) or after (IN).
 */
static bool set_spans(struct bh_translate_stream *s, struct bh_passage *p, uint32_t from, uint32_t length, uint32_t kept)
{
	const struct bh_transfer *above = p->above;
	struct iovec *spans = s->spans;
	unsigned n = 0;

	if (s->span_room < above->span_count + 1) {
		spans = realloc(s->spans, (above->span_count + 1) * sizeof(*spans));
		if (!spans)
			return false;
		s->spans = spans;
		s->span_room = above->span_count + 1;
	}
	if (kept && !s->in)
		spans[n++] = (struct iovec){s->kept, kept};
	p->below.length = length + kept;
	for (unsigned i = 0; i < above->span_count && length; i++) {
		size_t skip = BH_MIN(above->spans[i].iov_len, from), size = BH_MIN(above->spans[i].iov_len - skip, length);

		from -= (uint32_t)skip;
		length -= (uint32_t)size;
		if (size)
			spans[n++] = (struct iovec){(uint8_t *)above->spans[i].iov_base + skip, size};
	}
	if (kept && s->in)
		spans[n++] = (struct iovec){s->kept, kept};
	p->below.spans = spans;
	p->below.span_count = n;
	return true;
}

/* --- OUT ------------------------------------------------------------------------------------------ */

/* What is known of a transfer's end by the end of this part of it. */
enum out_end {
	GOES_ON, /* rules 3 and 4: the rest may follow */
	TOLD,    /* rules 1 and 2: by a packet that is not full, or empty */
	COUNTED, /* rule 3: by the length in the disk's command */
	GUESSED  /* rule 5: the guest's request ended */
};

static enum out_end out_end_of(const struct bh_translate_stream *s, const struct bh_transfer *t)
{
	if (t->flags & (BH_TRANSFER_ZERO_PACKET | BH_TRANSFER_SHORT_END))
		return TOLD;
	if (in_data_stage(s))
		return t->length >= s->command->left ? COUNTED : GOES_ON;
	if (t->flags & BH_TRANSFER_REQUEST_GOES_ON)
		return GOES_ON;
	return t->flags & BH_TRANSFER_REQUEST_ENDS ? GUESSED : GOES_ON;
}

/* A packet of the guest's end that is full for the device does not tell it; a report's length does (rule 1). */
static bool needs_empty(const struct bh_translate_stream *s, enum out_end end, uint32_t total)
{
	return end == TOLD && total && total % s->inside == 0 && s->outside.type == BH_BULK;
}

/* The last bytes of t stay here until more come. */
static void keep_last(struct bh_translate_stream *s, const struct bh_transfer *t, uint32_t bytes)
{
	bh_transfer_read(t, t->length - bytes, s->kept + s->kept_count, bytes);
	s->kept_count += bytes;
	s->counters->early_bytes += bytes;
}

/* What is kept waits for more, and not for ever (rule 4). In a data stage it does: more has to come, or a reset. */
static void not_for_ever(struct bh_translate_stream *s)
{
	if (s->kept_count && !in_data_stage(s) && s->keeps)
		s->keeps(s);
}

static void out_success(struct bh_translate_stream *s, struct bh_passage *p)
{
	struct bh_transfer *t = p->above;

	if (in_data_stage(s))
		data_moved(s, t->length, false);
	else
		look_for_command(s, t);
	not_for_ever(s);
	bh_layer_end(p, BH_SUCCESS, t->length);
}

static void out_start(struct bh_translate_stream *s, struct bh_passage *p)
{
	struct bh_transfer *t = p->above;
	enum out_end end = out_end_of(s, t);
	uint32_t total = s->kept_count + t->length, rest = end == GOES_ON ? total % s->inside : 0;

	if (s->end == BH_STREAM_FAILED) {
		s->end = BH_STREAM_OPEN;
		bh_layer_end(p, s->failure, 0);
		return;
	}
	if (s->guessed) {
		s->guessed = false;
		if (t->length == 0) {
			s->counters->swallowed_empty++;
			bh_layer_end(p, BH_SUCCESS, 0);
			return;
		}
		s->counters->went_on++;
	}
	if (total == rest && total) {
		keep_last(s, t, t->length);
		out_success(s, p);
		return;
	}
	if (!set_spans(s, p, 0, t->length - rest, s->kept_count)) {
		bh_layer_end(p, BH_NO_RESPONSE, 0);
		return;
	}
	p->below.flags = needs_empty(s, end, total) ? BH_TRANSFER_ZERO_PACKET : 0;
	s->guessing = end == GUESSED && total % s->inside;
	s->before = s->kept_count;
	s->busy = true;
	bh_layer_pass(p);
}

/* The guest's packets of which the device took all that went before them are as they were on the wire. */
static void out_ended(struct bh_translate_stream *s, struct bh_passage *p, enum bh_status status)
{
	uint32_t moved = BH_MIN(p->below.actual, p->below.length), rest = p->above->length + s->before - p->below.length;

	/* All of it, and then it was cancelled: the last packet is out, and with it the end. */
	if (status == BH_CANCELLED && moved && moved == p->below.length && !p->below.flags)
		status = BH_SUCCESS;
	if (status == BH_SUCCESS && moved == p->below.length) {
		s->kept_count = 0;
		s->guessed = s->guessing;
		s->counters->guessed_ends += s->guessing;
		keep_last(s, p->above, rest);
		out_success(s, p);
		return;
	}
	if (status == BH_CANCELLED && moved < s->before) {
		s->kept_count -= moved;
		memmove(s->kept, s->kept + moved, s->kept_count);
		not_for_ever(s);
		bh_layer_end(p, status, 0);
		return;
	}
	if (status == BH_SUCCESS)
		status = BH_BUS_ERROR; /* an OUT cannot succeed in part */
	s->counters->early_failed += moved < s->before;
	s->kept_count = 0;
	moved -= BH_MIN(moved, s->before);
	data_moved(s, moved, status != BH_CANCELLED);
	bh_layer_end(p, status, moved);
}

/* What is kept goes by itself. */

static void run(struct bh_translate_stream *s);

static void flushed(struct bh_transfer *t, enum bh_status status)
{
	struct bh_translate_stream *s = bh_container_of(t, struct bh_translate_stream, flush);

	s->flushing = false;
	if (s->stale) {
		s->stale = false;
	} else if (status == BH_SUCCESS && t->actual >= t->length) {
		s->guessed = true;
		s->counters->guessed_ends++;
	} else {
		s->end = BH_STREAM_FAILED;
		s->failure = status == BH_CANCELLED ? BH_NO_RESPONSE : status == BH_SUCCESS ? BH_BUS_ERROR : status;
		s->counters->early_failed++;
	}
	s->kept_count = 0;
	run(s);
}

void bh_translate_stream_end(struct bh_translate_stream *s)
{
	if (s->busy || s->flushing || !s->kept_count || s->in || is_quiet(s) || in_data_stage(s))
		return;
	s->flush_span = (struct iovec){s->kept, s->kept_count};
	s->flush = (struct bh_transfer){
		.endpoint = s->outside.address,
		.type = s->outside.type,
		.flags = BH_TRANSFER_REQUEST_ENDS | BH_TRANSFER_SHORT_END,
		.spans = &s->flush_span,
		.span_count = 1,
		.length = s->kept_count,
		.done = flushed,
	};
	s->flushing = true;
	bh_device_submit(s->layer->below, &s->flush);
}

/* --- IN -------------------------------------------------------------------------------------------- */

static void in_finish(struct bh_translate_stream *s, struct bh_passage *p, enum bh_status status, uint32_t actual, bool over)
{
	data_moved(s, actual, over);
	bh_layer_end(p, status, actual);
}

/*
 * The device's transfer ended where the guest's does, on a packet boundary. Is the guest to be told by
 * an empty packet (rules 7 and 8)?
 */
static bool wants_empty(const struct bh_translate_stream *s, const struct bh_transfer *t)
{
	if (in_data_stage(s))
		return s->command->left > t->length;
	return t->flags & BH_TRANSFER_REQUEST_GOES_ON && !(t->flags & BH_TRANSFER_REQUEST_ENDS);
}

/*
 * So many bytes are where the guest wants them, and what is kept, and how it ends, comes after them.
 * False: the transfer is not over.
 */
static bool in_settle(struct bh_translate_stream *s, struct bh_passage *p, uint32_t n)
{
	uint32_t wanted = p->above->length;

	if (n < wanted && s->end == BH_STREAM_OPEN)
		return false;
	if (s->kept_count || s->end == BH_STREAM_OPEN) {
		in_finish(s, p, BH_SUCCESS, n, false);
	} else if (s->end == BH_STREAM_FAILED) {
		if (n == wanted) { /* the next will be told */
			in_finish(s, p, BH_SUCCESS, n, false);
		} else {
			s->end = BH_STREAM_OPEN;
			in_finish(s, p, s->failure, n, true);
		}
	} else if (n < wanted) {
		s->counters->added_empty += s->guessed && n % s->outside.max_packet == 0;
		s->end = BH_STREAM_OPEN;
		in_finish(s, p, BH_SUCCESS, n, true);
	} else if (n % s->outside.max_packet == 0 && wants_empty(s, p->above)) {
		in_finish(s, p, BH_SUCCESS, n, false); /* the next is told */
	} else {
		s->counters->dropped_ends += n % s->outside.max_packet == 0 && !in_data_stage(s);
		s->end = BH_STREAM_OPEN;
		in_finish(s, p, BH_SUCCESS, n, true);
	}
	return true;
}

static uint32_t hand_out_kept(struct bh_translate_stream *s, const struct bh_transfer *t)
{
	uint32_t n = BH_MIN(s->kept_count, t->length);

	bh_transfer_write(t, 0, s->kept + s->kept_at, n);
	s->kept_at += n;
	s->kept_count -= n;
	return n;
}

/* A full packet of such an interrupt endpoint is a whole report, and ends on no boundary of the guest's (rule 7). */
static bool is_of_reports(const struct bh_translate_stream *s)
{
	return s->outside.type == BH_INTERRUPT && s->inside % s->outside.max_packet;
}

static void in_start(struct bh_translate_stream *s, struct bh_passage *p)
{
	uint32_t n = hand_out_kept(s, p->above), wanted = p->above->length - n, asked;

	if (in_settle(s, p, n))
		return;
	asked = is_of_reports(s) ? s->inside : (wanted + s->inside - 1) / s->inside * s->inside;
	wanted = BH_MIN(wanted, asked);
	if (!set_spans(s, p, n, wanted, asked - wanted)) {
		in_finish(s, p, BH_NO_RESPONSE, n, false);
		return;
	}
	s->kept_at = 0;
	s->before = n;
	s->busy = true;
	bh_layer_pass(p);
}

static void in_ended(struct bh_translate_stream *s, struct bh_passage *p, enum bh_status status)
{
	uint32_t moved = BH_MIN(p->below.actual, p->below.length), total = s->before + moved;
	uint32_t given = BH_MIN(total, p->above->length);

	s->kept_count = total - given;
	s->counters->split_packets += s->kept_count > 0;
	if (status == BH_CANCELLED && moved % s->inside)
		status = BH_SUCCESS; /* it had ended before */
	if (status == BH_CANCELLED && given < p->above->length) {
		in_finish(s, p, status, given, false);
		return;
	}
	if (status == BH_SUCCESS) {
		s->end = moved < p->below.length || is_of_reports(s) ? BH_STREAM_ENDED : BH_STREAM_OPEN;
		s->guessed = moved % s->inside != 0;
	} else if (status != BH_CANCELLED) {
		s->end = BH_STREAM_FAILED;
		s->failure = status;
	}
	in_settle(s, p, given);
}

/* --- both -------------------------------------------------------------------------------------------- */

/* One after the other; what comes while one is ended waits its turn here. */
static void run(struct bh_translate_stream *s)
{
	struct bh_passage *p;

	if (s->running)
		return;
	s->running = true;
	while (!s->busy && !s->flushing && !is_quiet(s) && (p = first(s))) {
		if (s->in)
			in_start(s, p);
		else
			out_start(s, p);
	}
	s->running = false;
}

void bh_translate_stream_begin(struct bh_translate_stream *s, struct bh_passage *p)
{
	bh_list_append(&s->waiting, &p->held);
	run(s);
}

/* Of the guest's bytes, what has moved by the device's word. */
static uint32_t moved_above(const struct bh_translate_stream *s, const struct bh_passage *p)
{
	uint32_t moved = p->below.actual;

	if (s->in)
		return BH_MIN(s->before + moved, p->above->length);
	return moved > s->before ? BH_MIN(moved - s->before, p->above->length) : 0;
}

void bh_translate_stream_ended(struct bh_translate_stream *s, struct bh_passage *p, enum bh_status status)
{
	uint32_t moved;

	s->busy = false;
	if (s->stale) {
		s->stale = false;
		moved = moved_above(s, p);
		bh_layer_end(p, status == BH_SUCCESS && !s->in && moved < p->above->length ? BH_CANCELLED : status, moved);
	} else if (s->in) {
		in_ended(s, p, status);
	} else {
		out_ended(s, p, status);
	}
	run(s);
}

void bh_translate_stream_progress(struct bh_translate_stream *s, struct bh_passage *p)
{
	uint32_t moved = moved_above(s, p);

	if (moved)
		bh_transfer_progress(p->above, moved);
}

void bh_translate_stream_reset(struct bh_translate_stream *s)
{
	s->counters->dropped_bytes += s->kept_count;
	s->stale = s->busy || s->flushing;
	s->kept_at = s->kept_count = 0;
	s->end = BH_STREAM_OPEN;
	s->guessed = false;
	if (s->flushing)
		bh_device_cancel(s->layer->below, &s->flush);
}
