/*
 * Figure 5: one destination.
 *
 *              A: SCAN, ISSUE -> busy                 B: completed
 *      +------+ ---------------------> +------+ -------------------> +------+
 *      | IDLE |                        | WAIT |                      | DATA |
 *      +------+ <--------------------- +------+                      +------+
 *        ^  ^     B after a cancel       A: busy, verify               |  | A: hand out
 *        |  |     that moved nothing     C: cancel                     |  |
 *        |  |                              |                           |  |
 *        |  +------------------------------|---------------------------+  |
 *        |     A: the last was handed out  |           C: drop it         |
 *        |                                 | B: the guest had changed     | A: the same
 *        | C                               v what the device then took    v
 *        +---------------------------- +---------+ <----------------------+
 *                                      | FAILURE | A: no response
 *                                      +---------+
 *
 *   IDLE    A idle_request     B never             C nothing to do
 *   WAIT    A wait_request     B wait_complete     C wait_reset
 *   DATA    A data_request     B never             C data_reset
 *   FAILURE A failure_request  B never             C failure_reset
 *
 * DEVIATION [0091]: cancelling is asynchronous. After C, or a change of mind, the
 * destination stays in WAIT, answers busy and starts nothing until B has come:
 * until then nobody knows what the device took, and two transfers to one endpoint
 * would mix.
 * DEVIATION [0090]: a device may complete inside ISSUE (an emulated one that has
 * the data at hand). The packet is then answered at once instead of "busy" once
 * more; a guest cannot tell this from a device that did not NAK.
 */
#include "internal.h"

#include <assert.h>

#include <base/util.h>

static const uint8_t allowed[BH_STATE_COUNT] = {
	[BH_IDLE] = 1 << BH_WAIT,
	[BH_WAIT] = 1 << BH_DATA | 1 << BH_IDLE | 1 << BH_FAILURE,
	[BH_DATA] = 1 << BH_IDLE | 1 << BH_FAILURE,
	[BH_FAILURE] = 1 << BH_IDLE,
};

bool bh_transition_allowed(enum bh_state from, enum bh_state to)
{
	return (unsigned)from < BH_STATE_COUNT && (unsigned)to < BH_STATE_COUNT && (allowed[from] >> to & 1);
}

void bh_set_state(struct bh_destination *d, enum bh_state to)
{
	assert(bh_transition_allowed(d->state, to));
	if (to == BH_IDLE)
		bh_list_remove(&d->link);
	else if (d->state == BH_IDLE)
		bh_list_append(&d->engine->active, &d->link);
	d->state = to;
	if (to != BH_WAIT)
		d->cancelling = BH_CANCEL_NONE;
	if (to == BH_FAILURE) {
		d->engine->counters.failures++;
		d->carrier->failed(d);
	}
}

/* What holds in each state; called at the end of every input that changed it. */
void bh_destination_check(const struct bh_destination *d)
{
	switch (d->state) {
	case BH_IDLE:
		assert(bh_list_empty(&d->link) && d->batch.count == 0);
		break;
	case BH_WAIT:
		assert(!bh_list_empty(&d->link) && d->batch.count > 0 && d->batch.skip <= d->batch.length);
		break;
	case BH_DATA:
		assert(!bh_list_empty(&d->link) && d->outcome.actual <= d->batch.length);
		assert(d->in ? d->outcome.next <= d->outcome.actual : d->outcome.next < d->batch.count);
		break;
	case BH_FAILURE:
		assert(!bh_list_empty(&d->link) && d->batch.count == 0);
		break;
	case BH_STATE_COUNT:
		assert(false);
	}
	assert(d->cancelling == BH_CANCEL_NONE || d->state == BH_WAIT);
}

/* --- A: a descriptor is offered ------------------------------------------------ */

/*
 * Bytes of the batch's first packet that the device has already, if it begins as what
 * the device was sent began; of another one they were for nothing.
 */
static uint32_t take_part(struct bh_destination *d)
{
	struct bh_part part = d->partly;

	if (!part.bytes)
		return 0;
	d->partly.bytes = 0;
	if (part.bytes < d->batch.records[0].length && part.hash == bh_hash(d->engine, d->batch.data, part.bytes))
		return part.bytes;
	d->engine->counters.ahead_bytes += part.bytes;
	return 0;
}

/*
 * Once for each offer: a guest that keeps changing what a device keeps refusing at
 * once would have us go round for ever.
 */
static enum bh_answer issue(struct bh_destination *d, const struct bh_descriptor *head)
{
	enum bh_answer answer = BH_ANSWER_BUSY;

	if (d->issued || !bh_scan(d, head, &answer))
		return answer;
	d->issued = true;
	d->batch.skip = take_part(d);
	d->verify_next = 0;
	d->unoffered = d->withdrawn = false;
	d->offered_in_pass = true;
	d->offered_frame = d->engine->frame;
	d->issued_at = d->waiting_since = d->engine->now_us;
	d->engine->counters.batches++;
	bh_set_state(d, BH_WAIT);
	d->issuing = true;
	d->carrier->start(d);
	d->issuing = false;
	/* IDLE again: reset, perhaps unplugged, while it was being issued. */
	return d->state == BH_WAIT || d->state == BH_IDLE ? BH_ANSWER_BUSY : bh_request(d, head);
}

static enum bh_answer idle_request(struct bh_destination *d, const struct bh_descriptor *head)
{
	/* A packet larger than the endpoint's largest is noise to a device: it does not answer. */
	if (!d->in && head->length > d->max_packet)
		return bh_retire(d, d->in, head, 0, BH_NO_RESPONSE);
	return issue(d, head);
}

static enum bh_answer wait_request(struct bh_destination *d, const struct bh_descriptor *head)
{
	struct bh_change change;

	if (d->cancelling)
		return BH_ANSWER_BUSY;
	if (head->chain != d->batch.chain && !d->unoffered)
		return BH_ANSWER_BUSY; /* two queues for one endpoint take turns */
	if (head->chain != d->batch.chain || !bh_is_head(d, head)) {
		bh_cancel_transfer(d, BH_CANCEL_WITHDRAWN);
		return BH_ANSWER_BUSY;
	}
	if (d->in)
		return BH_ANSWER_BUSY;
	if (!bh_verify_retry(d, head, &change)) {
		d->engine->counters.mismatches++;
		d->changed = change;
		bh_cancel_transfer(d, BH_CANCEL_CHANGED);
	}
	return BH_ANSWER_BUSY;
}

static enum bh_answer data_request(struct bh_destination *d, const struct bh_descriptor *head)
{
	if (d->in)
		return bh_draw_in(d, head);
	if (head->chain != d->batch.chain && !d->unoffered)
		return BH_ANSWER_BUSY;
	return bh_replay_out(d, head);
}

static enum bh_answer failure_request(struct bh_destination *d, const struct bh_descriptor *head)
{
	return bh_retire(d, d->in, head, 0, BH_NO_RESPONSE);
}

static inline enum bh_answer request(struct bh_destination *d, const struct bh_descriptor *head)
{
	switch (d->state) {
	case BH_IDLE:
		return idle_request(d, head);
	case BH_WAIT:
		return wait_request(d, head);
	case BH_DATA:
		return data_request(d, head);
	case BH_FAILURE:
	case BH_STATE_COUNT:
		break;
	}
	return failure_request(d, head);
}

enum bh_answer bh_request(struct bh_destination *d, const struct bh_descriptor *head)
{
	return request(d, head);
}

void bh_destination_seen(struct bh_destination *d, const struct bh_descriptor *head)
{
	if (d->state != BH_IDLE && head->chain == d->batch.chain) {
		d->offered_in_pass = true;
		d->offered_frame = d->engine->frame;
	}
}

enum bh_answer bh_destination_offer(struct bh_destination *d, const struct bh_descriptor *head)
{
	struct bh_engine_counters *c = &d->engine->counters;
	enum bh_state before = d->state;
	enum bh_answer answer;

	c->offers++;
	d->issued = false;
	bh_destination_seen(d, head);
	answer = request(d, head);
	c->busy += answer == BH_ANSWER_BUSY;
	if (d->state != before)
		bh_destination_check(d);
	return answer;
}

/* --- B: the host transfer has ended -------------------------------------------- */

void bh_cancel_transfer(struct bh_destination *d, enum bh_cancel why)
{
	if (d->cancelling) {
		/* Being cancelled for its own sake, and now for the guest's. */
		if (why == BH_CANCEL_RESET || d->cancelling == BH_CANCEL_LINGER)
			d->cancelling = why;
		return;
	}
	d->engine->counters.cancels[why]++;
	d->cancelling = why;
	d->carrier->cancel(d);
}

/* A device's word, made consistent with what was asked. */
static struct bh_outcome sane_outcome(const struct bh_destination *d, enum bh_status status, uint32_t actual)
{
	const struct bh_batch *b = &d->batch;

	actual = BH_MIN(actual, b->length - b->skip) + b->skip;
	if (status == BH_CANCELLED && !d->cancelling)
		status = BH_NO_RESPONSE; /* nobody asked it to */
	if (status == BH_SUCCESS && !d->in && actual < b->length)
		status = BH_BUS_ERROR; /* an OUT cannot succeed in part */
	return (struct bh_outcome){.status = status, .actual = actual};
}

/*
 * The guest changed a record, or took it out of the list. What precedes it stands.
 * False: it was changed in place, the device took more than what precedes it, and
 * the guest never let go of it.
 */
static bool cut_at_change(struct bh_destination *d)
{
	struct bh_batch *b = &d->batch;
	const struct bh_record *r = &b->records[d->changed.record];
	uint32_t start = r->offset;

	if (bh_was_taken(r, &d->outcome) || d->outcome.actual > start) {
		if ((d->changed.in_place && !d->unoffered) || d->engine->config.withdrawn_fails)
			return false;
		d->engine->counters.ahead_bytes += d->outcome.actual - start;
	}
	if (d->outcome.actual >= start) {
		d->outcome.actual = start;
		d->outcome.status = BH_CANCELLED;
	}
	b->count = d->changed.record;
	b->length = start;
	return true;
}

/* A reset, and nobody was told of bytes that the device took. */
static void count_forgotten(struct bh_destination *d, uint32_t bytes)
{
	if (!d->in)
		d->engine->counters.ahead_bytes += bytes;
}

static void wait_complete(struct bh_destination *d, enum bh_status status, uint32_t actual)
{
	enum bh_cancel why = d->cancelling;
	enum bh_state to = BH_DATA;

	d->outcome = sane_outcome(d, status, actual);
	if (d->outcome.actual > d->batch.skip || d->outcome.status != BH_CANCELLED)
		d->one_at_a_time = false;
	else if (why == BH_CANCEL_LINGER)
		d->one_at_a_time = true;

	if (why == BH_CANCEL_RESET) {
		count_forgotten(d, d->outcome.actual);
		to = BH_IDLE;
	} else if (why == BH_CANCEL_CHANGED && !cut_at_change(d))
		to = BH_FAILURE;
	else if (d->outcome.status == BH_CANCELLED && d->outcome.actual == 0)
		to = BH_IDLE;
	else if (why == BH_CANCEL_WITHDRAWN && d->in) {
		d->withdrawn = true;
		d->engine->counters.kept_bytes += d->outcome.actual;
	}

	if (to != BH_DATA)
		bh_batch_drop(d);
	bh_set_state(d, to);
}

void bh_destination_complete(struct bh_destination *d, enum bh_status status, uint32_t actual)
{
	struct bh_source *source = d->engine->source;

	assert(d->state == BH_WAIT); /* one completion for one start: the carrier's promise */
	wait_complete(d, status, actual);
	bh_destination_check(d);
	if (!d->issuing)
		source->ops->ready(source);
}

/* --- C: reset ------------------------------------------------------------------- */

static void wait_reset(struct bh_destination *d)
{
	bh_cancel_transfer(d, BH_CANCEL_RESET);
}

static void data_reset(struct bh_destination *d)
{
	count_forgotten(d, bh_outcome_ahead(d));
	bh_batch_drop(d);
	bh_set_state(d, BH_IDLE);
}

static void failure_reset(struct bh_destination *d)
{
	bh_set_state(d, BH_IDLE);
}

void bh_destination_reset(struct bh_destination *d)
{
	static void (*const reset[BH_STATE_COUNT])(struct bh_destination *) = {
		[BH_WAIT] = wait_reset,
		[BH_DATA] = data_reset,
		[BH_FAILURE] = failure_reset,
	};

	d->one_at_a_time = false;
	count_forgotten(d, d->partly.bytes);
	d->partly.bytes = 0;
	if (reset[d->state])
		reset[d->state](d);
	bh_destination_check(d);
}

bool bh_destination_running(const struct bh_destination *d)
{
	return d->state == BH_WAIT;
}
