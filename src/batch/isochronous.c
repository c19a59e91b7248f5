/*
 * Isochronous destinations: see isochronous.h.
 *
 *   gathered -> issued -> done -> handed out in its frame
 *                  \        \---> dropped: its frame (IN: and the stream's lag) has passed
 *                   \-----------> OUT: handed out as sent
 */
#include <batch/isochronous.h>

#include <assert.h>
#include <stdlib.h>

#include <base/util.h>

#include "internal.h"

/* So many misses in a row, and the host has become slower: the lag is settled anew. */
#define MISSES_SETTLE_ANEW 8u

/* Of one batch: its first packet is told when its last one is there. */
#define LONGEST_BATCH 16u

/* So many in a row that are not what was gathered, and the guest has taken back all of it. */
#define CHANGED_AT_ONCE 8u

/* Where memory is short: one packet at a time, which every stream may always have. */
#define SMALLEST_WINDOW 1u

void bh_isochronous_init(struct bh_isochronous *s, struct bh_engine *e, const struct bh_isochronous_ops *ops, bool in,
                         uint32_t max_packet)
{
	assert(max_packet > 0 && max_packet <= 1024);
	*s = (struct bh_isochronous){.engine = e, .ops = ops, .in = in, .max_packet = max_packet};
	bh_list_init(&s->link);
}

bool bh_isochronous_running(const struct bh_isochronous *s)
{
	for (unsigned i = 0; i < BH_ISOCHRONOUS_BATCHES; i++)
		if (s->batches[i].running)
			return true;
	return false;
}

static bool empty(const struct bh_isochronous *s)
{
	return s->head == s->tail;
}

/* Keeps engine->streams. */
static void note_activity(struct bh_isochronous *s)
{
	bool active = !empty(s) || bh_isochronous_running(s);

	if (active && bh_list_empty(&s->link))
		bh_list_append(&s->engine->streams, &s->link);
	else if (!active && !bh_list_empty(&s->link))
		bh_list_remove(&s->link);
}

/* --- memory --------------------------------------------------------------------------- */

static uint64_t window_memory(const struct bh_isochronous *s, uint32_t window)
{
	return (uint64_t)window * (s->max_packet + sizeof(*s->packets) + sizeof(*s->appointments));
}

static void free_window(struct bh_isochronous *s)
{
	bh_engine_account(s->engine, window_memory(s, s->window), 0);
	free(s->data);
	free(s->packets);
	free(s->appointments);
	s->data = NULL;
	s->packets = NULL;
	s->appointments = NULL;
	s->window = 0;
}

/* What nobody uses any more need not be kept for later. */
static void release_window(struct bh_isochronous *s)
{
	if (empty(s) && !bh_isochronous_running(s))
		free_window(s);
}

static bool allocate_window(struct bh_isochronous *s)
{
	const struct bh_engine *e = s->engine;
	uint32_t window = BH_ISOCHRONOUS_WINDOW;

	if (s->window)
		return true;
	if (e->counters.memory + window_memory(s, window) > e->config.max_bytes)
		window = SMALLEST_WINDOW;
	s->data = malloc((size_t)window * s->max_packet);
	s->packets = calloc(window, sizeof(*s->packets));
	s->appointments = calloc(window, sizeof(*s->appointments));
	s->window = window;
	bh_engine_account(s->engine, 0, window_memory(s, window));
	if (s->data && s->packets && s->appointments)
		return true;
	free_window(s);
	return false;
}

void bh_isochronous_finish(struct bh_isochronous *s)
{
	assert(!bh_isochronous_running(s));
	bh_isochronous_reset(s);
	free_window(s);
}

static struct bh_appointment *appointment(const struct bh_isochronous *s, uint64_t i)
{
	return &s->appointments[i % s->window];
}

static struct bh_packet *packet(const struct bh_isochronous *s, uint64_t i)
{
	return &s->packets[i % s->window];
}

static uint8_t *packet_data(const struct bh_isochronous *s, uint64_t i)
{
	return s->data + i % s->window * s->max_packet;
}

/* Packets that can be gathered: a batch that runs holds its memory, whoever still wants it. */
static uint32_t room(const struct bh_isochronous *s)
{
	uint64_t oldest = s->head;

	for (unsigned i = 0; i < BH_ISOCHRONOUS_BATCHES; i++)
		if (s->batches[i].running)
			oldest = BH_MIN(oldest, s->batches[i].first);
	return s->window - (uint32_t)(s->tail - oldest);
}

/* --- gathering ---------------------------------------------------------------------------- */

static uint32_t frames_ahead(const struct bh_engine *e)
{
	return e->config.max_batch_descriptors > 1 ? e->config.isochronous_frames : 0;
}

/* Packet at a time means what it says: the next when the last one has ended. */
static struct bh_isochronous_batch *idle_batch(struct bh_isochronous *s)
{
	if (!frames_ahead(s->engine) && bh_isochronous_running(s))
		return NULL;
	for (unsigned i = 0; i < BH_ISOCHRONOUS_BATCHES; i++)
		if (!s->batches[i].running)
			return &s->batches[i];
	return NULL;
}

/* Is the descriptor gathered already, for another frame or this one? Lists may cross. */
static bool is_gathered(const struct bh_isochronous *s, const struct bh_descriptor *d)
{
	for (uint64_t i = s->head; i < s->tail; i++)
		if (appointment(s, i)->id == d->id && appointment(s, i)->frame >= s->frame)
			return true;
	return false;
}

/* Takes one more into the batch. False: its bytes cannot be read. */
static bool take(struct bh_isochronous *s, struct bh_isochronous_batch *b, const struct bh_descriptor *d)
{
	struct bh_source *source = s->engine->source;
	uint64_t i = s->tail;

	if (!s->in && d->length && !source->ops->read(source, d, 0, packet_data(s, i), d->length))
		return false;
	*packet(s, i) = (struct bh_packet){
		.offset = b->count * s->max_packet,
		.length = s->in ? s->max_packet : d->length,
		.status = BH_NO_RESPONSE,
	};
	*appointment(s, i) = (struct bh_appointment){
		.frame = bh_frame_of(d), .id = d->id,
	};
	if (s->gathered && bh_frame_of(d) > bh_frame_of(&s->last))
		s->interval = (uint32_t)BH_MIN(bh_frame_of(d) - bh_frame_of(&s->last), BH_ISOCHRONOUS_GAP);
	s->gathered = true;
	s->last = *d;
	s->tail++;
	b->count++;
	return true;
}

static uint32_t longest_batch(const struct bh_isochronous *s)
{
	const struct bh_engine_config *c = &s->engine->config;

	return BH_MIN(BH_MIN(c->max_batch_descriptors, c->max_batch_bytes / s->max_packet), LONGEST_BATCH);
}

/* What follows the last one taken. */
static void take_more(struct bh_isochronous *s, struct bh_isochronous_batch *b, const struct bh_descriptor *after)
{
	struct bh_source *source = s->engine->source;
	struct bh_descriptor d = *after, next;

	/* In one piece of memory: a batch ends where the window does. */
	while (room(s) && b->count < BH_MAX(longest_batch(s), 1u) && (!b->count || s->tail % s->window) &&
	       source->ops->next(source, &d, &next) == BH_FOUND) {
		if ((!s->in && next.length > s->max_packet) || is_gathered(s, &next) || !take(s, b, &next))
			return;
		d = next;
	}
}

static void issue(struct bh_isochronous *s, struct bh_isochronous_batch *b)
{
	b->data = packet_data(s, b->first);
	b->packets = packet(s, b->first);
	b->running = true;
	b->cancelled = false;
	s->engine->counters.batches++;
	note_activity(s);
	s->issuing = true;
	s->ops->start(s, b);
	s->issuing = false;
}

/* A batch that begins with head, or (NULL) with what follows after. False: head cannot be read. */
static bool gather(struct bh_isochronous *s, const struct bh_descriptor *head, const struct bh_descriptor *after)
{
	struct bh_isochronous_batch *b = idle_batch(s);

	if (!b || !allocate_window(s) || !room(s))
		return true;
	b->first = s->tail;
	b->count = 0;
	if (head && !take(s, b, head))
		return false;
	if (frames_ahead(s->engine) && !s->looked)
		take_more(s, b, head ? head : after);
	if (b->count)
		issue(s, b);
	return true;
}

/* --- letting go ------------------------------------------------------------------------------ */

/* What the device took of an OUT that the guest was not told of. */
static void count_ahead(struct bh_isochronous *s, const struct bh_packet *p)
{
	if (!s->in && p->status == BH_SUCCESS)
		s->engine->counters.ahead_bytes += p->actual;
}

/* The packet at head is nobody's any more. */
static void drop(struct bh_isochronous *s)
{
	struct bh_appointment *a = appointment(s, s->head);

	s->engine->counters.isochronous_dropped++;
	a->dropped = true;
	if (a->done)
		count_ahead(s, packet(s, s->head));
	s->head++;
}

static void drop_all(struct bh_isochronous *s)
{
	while (!empty(s))
		drop(s);
}

/* What the guest was told is sent (OUT: up to head) is to be, unless the device is set up anew. */
static void let_go(struct bh_isochronous *s, enum bh_cancel why)
{
	uint64_t keep = why == BH_CANCEL_RESET ? 0 : s->head;

	drop_all(s);
	s->gathered = s->lag_known = false;
	s->lag = s->interval = 0;
	s->misses = 0;
	for (unsigned i = 0; i < BH_ISOCHRONOUS_BATCHES; i++) {
		struct bh_isochronous_batch *b = &s->batches[i];

		if (!b->running || b->cancelled || (!s->in && b->first < keep))
			continue;
		b->cancelled = true;
		s->engine->counters.cancels[why]++;
		s->ops->cancel(s, b);
	}
	release_window(s);
	note_activity(s);
}

void bh_isochronous_reset(struct bh_isochronous *s)
{
	s->resets++;
	let_go(s, BH_CANCEL_RESET);
}

static struct bh_isochronous *find_silent(const struct bh_engine *e)
{
	bh_list_each(s, &e->streams, struct bh_isochronous, link)
		if (!empty(s) && e->frame - s->offered_frame > (uint64_t)e->config.withdrawn_frames + BH_ISOCHRONOUS_GAP)
			return s;
	return NULL;
}

void bh_streams_frame(struct bh_engine *e)
{
	struct bh_isochronous *s;

	/* Cancelling may end batches at once, and change the list: look again from its start. */
	while ((s = find_silent(e)))
		let_go(s, BH_CANCEL_WITHDRAWN);
}

/* --- input B ------------------------------------------------------------------------------------ */

/* The frame under way, whether or not the stream had an offer in it. */
static uint64_t now(const struct bh_isochronous *s)
{
	return s->frame + (s->engine->frame - s->offered_frame);
}

/*
 * The first answer to a stream settles its lag: what was asked for in the batch's first frame
 * is here now. A host that is slow is also uneven: one frame more.
 */
static void settle_lag(struct bh_isochronous *s, const struct bh_isochronous_batch *b)
{
	uint64_t asked = appointment(s, b->first)->frame, late = now(s) > asked ? now(s) - asked + 1 : 0;

	s->lag = (uint32_t)late;
	s->lag_known = true;
	s->misses = 0;
}

void bh_isochronous_complete(struct bh_isochronous *s, struct bh_isochronous_batch *b)
{
	assert(b->running);
	b->running = false;
	for (uint32_t i = 0; i < b->count; i++) {
		struct bh_appointment *a = appointment(s, b->first + i);
		struct bh_packet *p = &b->packets[i];

		p->actual = BH_MIN(p->actual, p->length);
		if (p->status == BH_CANCELLED || p->status == BH_STALL)
			p->status = BH_NO_RESPONSE; /* nothing an isochronous packet can end in */
		a->done = true;
		if (a->dropped)
			count_ahead(s, p);
	}
	if (s->in && !s->lag_known && !b->cancelled)
		settle_lag(s, b);
	if (!s->gathered)
		release_window(s);
	note_activity(s);
	if (!s->issuing)
		s->engine->source->ops->ready(s->engine->source);
}

/* --- input A ------------------------------------------------------------------------------------ */

static enum bh_answer retire(struct bh_isochronous *s, const struct bh_descriptor *d, uint32_t actual,
                             enum bh_status status)
{
	struct bh_source *source = s->engine->source;
	struct bh_engine_counters *c = &s->engine->counters;

	if (!source->ops->retire(source, d, actual, status))
		return BH_ANSWER_CHANGED;
	*(s->in ? &c->packets_in : &c->packets_out) += 1;
	*(s->in ? &c->bytes_in : &c->bytes_out) += actual;
	c->failed_packets += status != BH_SUCCESS;
	return BH_ANSWER_RETIRED;
}

static enum bh_answer missed(struct bh_isochronous *s)
{
	s->engine->counters.isochronous_missed++;
	return BH_ANSWER_MISSED;
}

/* Has the device been sent, as packet i, just what the descriptor says now? */
static bool unchanged(const struct bh_isochronous *s, uint64_t i, const struct bh_descriptor *d)
{
	const struct bh_packet *p = packet(s, i);
	struct bh_source *source = s->engine->source;

	return p->length == d->length &&
	       (!p->length || source->ops->equal(source, d, 0, packet_data(s, i), p->length));
}

/* Was it gathered, and does it stand? */
static bool is_as_gathered(const struct bh_isochronous *s, const struct bh_descriptor *d)
{
	for (uint64_t i = s->head; i < s->tail; i++)
		if (appointment(s, i)->id == d->id && appointment(s, i)->frame == bh_frame_of(d))
			return unchanged(s, i, d);
	return false;
}

/* Is there, among those that follow this one in the guest's list, one that was gathered and stands? */
static bool leads_to_gathered(const struct bh_isochronous *s, const struct bh_descriptor *d)
{
	struct bh_source *source = s->engine->source;
	struct bh_descriptor after = *d, next;

	for (unsigned i = 0; i < CHANGED_AT_ONCE && source->ops->next(source, &after, &next) == BH_FOUND; i++) {
		if (is_as_gathered(s, &next))
			return true;
		after = next;
	}
	return false;
}

/* What was gathered is taken back, if the guest has none of it behind this one any more. */
static void recall(struct bh_isochronous *s, const struct bh_descriptor *d)
{
	if (!empty(s) && !s->committed && !(s->committed = leads_to_gathered(s, d)))
		let_go(s, BH_CANCEL_CHANGED);
}

static bool head_is_for_now(const struct bh_isochronous *s)
{
	return !empty(s) && appointment(s, s->head)->frame == s->frame;
}

static enum bh_answer offer_out(struct bh_isochronous *s, const struct bh_descriptor *d, enum bh_moment moment)
{
	const struct bh_packet *p;
	enum bh_answer answer;

	while (!empty(s) && appointment(s, s->head)->frame < s->frame)
		drop(s);
	while (head_is_for_now(s) && !unchanged(s, s->head, d)) {
		s->engine->counters.mismatches++;
		drop(s);
	}
	if (d->length > s->max_packet) /* no device hears it to its end, and none would answer */
		return retire(s, d, d->length, BH_SUCCESS);
	if (!head_is_for_now(s) && moment == BH_MOMENT_NOW) {
		recall(s, d);
		if (empty(s) && !gather(s, d, NULL))
			return BH_ANSWER_FAULT;
	}
	if (!head_is_for_now(s))
		return missed(s); /* nor may it overtake what is on its way for later frames */
	p = packet(s, s->head);
	if (appointment(s, s->head)->done)
		answer = retire(s, d, p->actual, p->status);
	else
		answer = retire(s, d, p->length, BH_SUCCESS);
	s->head++;
	return answer;
}

/* Nothing has come in time. */
static enum bh_answer unanswered(struct bh_isochronous *s, const struct bh_descriptor *d)
{
	s->engine->counters.isochronous_missed++;
	if (++s->misses >= MISSES_SETTLE_ANEW)
		s->lag_known = false;
	return retire(s, d, 0, BH_NO_RESPONSE);
}

static enum bh_answer deliver(struct bh_isochronous *s, const struct bh_descriptor *d)
{
	const struct bh_packet *p = packet(s, s->head);
	struct bh_source *source = s->engine->source;
	enum bh_answer answer;

	if (p->actual > d->length)
		answer = retire(s, d, 0, BH_BABBLE);
	else if (p->actual && !source->ops->write(source, d, 0, packet_data(s, s->head), p->actual))
		return BH_ANSWER_FAULT;
	else
		answer = retire(s, d, p->actual, p->status);
	s->misses = 0;
	s->head++;
	return answer;
}

/* When packet i is to be handed out. */
static uint64_t due(const struct bh_isochronous *s, uint64_t i)
{
	return appointment(s, i)->frame + s->lag;
}

/*
 * Has the packet at head come too late? A lag need not be a multiple of the interval: then a
 * packet goes with the first descriptor after it is due.
 */
static bool stale(const struct bh_isochronous *s)
{
	uint32_t grace = s->lag && s->interval ? s->interval - 1 : 0;

	return !empty(s) && s->lag_known && due(s, s->head) + grace < s->frame;
}

/* Is the packet at head there, and its time, too? */
static bool answerable(const struct bh_isochronous *s)
{
	return !empty(s) && s->lag_known && due(s, s->head) <= s->frame && appointment(s, s->head)->done;
}

/* The guest asks for one before those that were gathered: they come with what it asks for now. */
static void bring_forward(struct bh_isochronous *s)
{
	uint64_t by = appointment(s, s->head)->frame - s->frame;

	for (uint64_t i = s->head; i < s->tail; i++)
		appointment(s, i)->frame -= by;
}

static enum bh_answer offer_in(struct bh_isochronous *s, const struct bh_descriptor *d, enum bh_moment moment)
{
	if (!s->lag_known && !bh_isochronous_running(s))
		drop_all(s); /* and there is nothing to come that would tell it */
	while (stale(s))
		drop(s);
	if (moment == BH_MOMENT_NOW && empty(s))
		gather(s, d, NULL);
	if (moment == BH_MOMENT_NOW && !empty(s) && appointment(s, s->head)->frame > s->frame)
		bring_forward(s);
	if (answerable(s))
		return deliver(s, d);
	if (moment != BH_MOMENT_OVER && (empty(s) || appointment(s, s->head)->frame > s->frame))
		return missed(s); /* it was never asked for */
	if (moment == BH_MOMENT_NOW && !(s->lag_known && due(s, s->head) > s->frame))
		return BH_ANSWER_BUSY;
	return unanswered(s, d);
}

static bool is_ahead(const struct bh_isochronous *s)
{
	return s->gathered && bh_frame_of(&s->last) >= s->frame;
}

/*
 * Keeps at least half of the way ahead gathered, if the guest has queued that much. Once a frame.
 * What is gathered goes on behind what was gathered last, unless the guest no longer has that.
 */
static void look_ahead(struct bh_isochronous *s, const struct bh_descriptor *d)
{
	uint32_t ahead = frames_ahead(s->engine);
	unsigned resets = s->resets;
	uint64_t before;

	if (!ahead || s->looked)
		return;
	do {
		if (is_ahead(s) && bh_frame_of(&s->last) - s->frame > ahead / 2)
			break;
		if (!s->in)
			recall(s, d);
		before = s->tail;
		gather(s, NULL, is_ahead(s) ? &s->last : d);
	} while (s->tail != before && s->resets == resets); /* the device may have gone at that */
	s->looked = true;
}

enum bh_answer bh_isochronous_offer(struct bh_isochronous *s, const struct bh_descriptor *d, enum bh_moment moment)
{
	uint64_t frame = bh_frame_of(d);
	unsigned resets = s->resets;
	enum bh_answer answer;

	if (frame < s->frame || frame - s->frame > BH_ISOCHRONOUS_GAP)
		let_go(s, BH_CANCEL_WITHDRAWN); /* a new stream: what the last one left is not for it */
	s->looked &= frame == s->frame;
	s->committed &= frame == s->frame;
	s->frame = frame;
	s->offered_frame = s->engine->frame;
	s->engine->counters.offers++;
	answer = s->in ? offer_in(s, d, moment) : offer_out(s, d, moment);
	s->engine->counters.busy += answer == BH_ANSWER_BUSY;
	if (moment != BH_MOMENT_OVER && answer != BH_ANSWER_FAULT && s->resets == resets)
		look_ahead(s, d); /* a fault is offered again, and nothing is to overtake it */
	if (answer == BH_ANSWER_BUSY && answerable(s)) /* it came while we looked ahead */
		s->engine->source->ops->ready(s->engine->source);
	note_activity(s);
	return answer;
}
