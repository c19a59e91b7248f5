/*
 * Handing out what a host transfer came to, packet by packet, so that the guest
 * sees what slow hardware would have shown it ([0073], [0086], [0087]).
 *
 * DEVIATION [0092]: its pseudo-code charges a failure after exactly k full
 * packets to packet k, calls a short IN a failure, and loses the zero-length
 * packet. Here OUT fails at the first record whose cumulative end exceeds what
 * the device took ([0087], by the records' lengths, not a constant); a success
 * shorter than asked ends in a short or zero-length packet, as on the wire.
 */
#include "internal.h"

#include <base/util.h>

static BH_COLD void finish(struct bh_destination *d)
{
	bh_batch_drop(d);
	bh_set_state(d, BH_IDLE);
}

/*
 * IN. The outcome is a queue of packets, all full but perhaps the last, and then
 * the final status; whatever IN is offered draws the next.
 */
static bool in_is_over(const struct bh_destination *d, bool after_short)
{
	const struct bh_outcome *o = &d->outcome;

	if (o->next < o->actual)
		return false;
	switch (o->status) {
	case BH_SUCCESS:
		return after_short || o->actual == d->batch.length;
	case BH_CANCELLED:
		return true;
	default:
		return false;
	}
}

static enum bh_answer draw_packet(struct bh_destination *d, const struct bh_descriptor *head)
{
	struct bh_source *source = d->engine->source;
	struct bh_outcome *o = &d->outcome;
	uint32_t packet = BH_MIN(d->max_packet, o->actual - o->next);
	bool fits = packet <= head->length;
	enum bh_answer answer;

	if (fits && !source->ops->write(source, head, 0, d->batch.data + o->next, packet))
		return BH_ANSWER_FAULT;
	answer = bh_retire(d, true, head, fits ? packet : 0, fits ? BH_SUCCESS : BH_BABBLE);
	if (answer != BH_ANSWER_RETIRED)
		return answer;
	o->next += packet;
	if (in_is_over(d, packet < d->max_packet))
		finish(d);
	return answer;
}

enum bh_answer bh_draw_in(struct bh_destination *d, const struct bh_descriptor *head)
{
	enum bh_answer answer;

	if (d->outcome.next < d->outcome.actual)
		return draw_packet(d, head);
	/* Nothing left but how it ended: a zero-length packet, or the failure. */
	answer = bh_retire(d, true, head, 0, d->outcome.status);
	if (answer == BH_ANSWER_RETIRED)
		finish(d);
	return answer;
}

/*
 * OUT. A zero-length packet moves no byte by which to tell whether it was taken;
 * it was, if everything was.
 */
bool bh_was_taken(const struct bh_record *r, const struct bh_outcome *o)
{
	uint32_t end = r->offset + r->length;

	return end < o->actual || (end == o->actual && (r->length > 0 || o->status == BH_SUCCESS));
}

uint32_t bh_outcome_ahead(const struct bh_destination *d)
{
	const struct bh_outcome *o = &d->outcome;
	uint32_t told = d->in ? o->next : d->batch.records[o->next].offset;

	return o->actual > told ? o->actual - told : 0;
}

/*
 * What stands at the head is not what the device was sent. If it was changed
 * under our eyes and the device has it, guest and device disagree ([0093]).
 * Otherwise the guest withdrew the old request, and this is another one.
 */
static BH_COLD enum bh_answer mind_changed(struct bh_destination *d, const struct bh_descriptor *head, bool in_place)
{
	uint32_t ahead = bh_outcome_ahead(d);
	bool taken = ahead || bh_was_taken(&d->batch.records[d->outcome.next], &d->outcome);

	if (taken && ((in_place && !d->unoffered) || d->engine->config.withdrawn_fails)) {
		bh_batch_drop(d);
		bh_set_state(d, BH_FAILURE);
		return bh_request(d, head);
	}
	d->engine->counters.ahead_bytes += ahead;
	finish(d);
	return bh_request(d, head);
}

static BH_COLD void keep_part(struct bh_destination *d, const struct bh_record *r, uint32_t bytes)
{
	d->partly.bytes = bytes;
	if (bytes)
		d->partly.hash = bh_hash(d->engine, d->batch.data + r->offset, bytes);
}

enum bh_answer bh_replay_out(struct bh_destination *d, const struct bh_descriptor *head)
{
	struct bh_outcome *o = &d->outcome;
	const struct bh_record *r = &d->batch.records[o->next];
	bool same = head->id == r->id && head->chain == d->batch.chain;
	enum bh_answer answer;
	bool taken;

	if (head->chain != d->batch.chain || !bh_unchanged(d, r, head)) {
		if (head->chain == d->batch.chain && bh_unreadable(d, r, head))
			return BH_ANSWER_FAULT;
		d->engine->counters.mismatches += same;
		return mind_changed(d, head, same);
	}
	taken = bh_was_taken(r, o);
	if (!taken && o->status == BH_CANCELLED) {
		keep_part(d, r, o->actual - r->offset);
		finish(d);
		return bh_request(d, head); /* the rest */
	}
	answer = bh_retire(d, false, head, taken ? head->length : 0, taken ? BH_SUCCESS : o->status);
	if (answer != BH_ANSWER_RETIRED)
		return answer;
	if (!taken || ++o->next == d->batch.count)
		finish(d);
	return answer;
}
