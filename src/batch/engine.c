/*
 * The engine around its destinations: setting up, time, frames, and what the
 * guest no longer shows.
 */
#include "internal.h"

#include <assert.h>
#include <sys/random.h>

#include <base/util.h>

/*
 * A periodic queue is visited once in up to 1024 frames, the length of a frame
 * list: not being offered in between says nothing.
 */
#define LONGEST_PERIOD 1024u

void bh_engine_init(struct bh_engine *e, struct bh_source *source, const struct bh_engine_config *config)
{
	*e = (struct bh_engine){.config = *config, .source = source};
	if (!e->config.hash_key && getrandom(&e->config.hash_key, sizeof(e->config.hash_key), GRND_NONBLOCK) < 0)
		e->config.hash_key = (uintptr_t)e * 0x9e3779b97f4a7c15u; /* where the loader put us: better than nothing */
	e->config.hash_key |= 1; /* a multiplier */
	e->config.linger_us = BH_MAX(e->config.linger_us, 1u); /* time has to go on between two cancels */
	bh_list_init(&e->active);
	bh_list_init(&e->streams);
}

void bh_engine_account(struct bh_engine *e, uint64_t before, uint64_t after)
{
	e->counters.memory += after - before;
	e->counters.memory_peak = BH_MAX(e->counters.memory_peak, e->counters.memory);
}

bool bh_engine_can_trace(const struct bh_engine *e)
{
	const struct bh_source_ops *ops = e->source->ops;

	return ops->can_watch && ops->can_watch(e->source);
}

void bh_destination_init(struct bh_destination *d, struct bh_engine *e, const struct bh_carrier_ops *carrier,
                         uint64_t key, bool in, uint32_t max_packet)
{
	assert(max_packet > 0 && max_packet <= sizeof(e->scratch));
	*d = (struct bh_destination){
		.engine = e,
		.carrier = carrier,
		.key = key,
		.in = in,
		.max_packet = max_packet,
	};
	bh_list_init(&d->link);
}

void bh_destination_finish(struct bh_destination *d)
{
	assert(!bh_destination_running(d));
	if (d->state != BH_IDLE)
		bh_destination_reset(d);
	bh_batch_free(d);
}

void bh_destination_progress(struct bh_destination *d)
{
	d->waiting_since = d->engine->now_us;
}

void bh_destination_withdraw(struct bh_destination *d)
{
	if (d->withdrawn || d->state == BH_IDLE || d->state == BH_FAILURE)
		return;
	d->withdrawn = d->unoffered = true;
	if (d->state == BH_WAIT)
		bh_cancel_transfer(d, BH_CANCEL_WITHDRAWN);
	else if (d->in)
		d->engine->counters.kept_bytes += bh_outcome_ahead(d);
	bh_destination_check(d);
}

static struct bh_destination *find_abandoned(const struct bh_engine *e)
{
	bh_list_each(d, &e->active, struct bh_destination, link) {
		uint64_t patience = e->config.withdrawn_frames + (d->single ? LONGEST_PERIOD : 0);

		if (!d->withdrawn && d->state != BH_FAILURE && e->frame - d->offered_frame >= patience)
			return d;
	}
	return NULL;
}

void bh_engine_frame(struct bh_engine *e, uint64_t frame)
{
	struct bh_destination *d;

	e->frame = frame;
	/* A cancel may end transfers at once, and change the list: look again from its start. */
	while ((d = find_abandoned(e)))
		bh_destination_withdraw(d);
	bh_streams_frame(e);
}

void bh_engine_pass_done(struct bh_engine *e)
{
	bh_list_each(d, &e->active, struct bh_destination, link) {
		d->unoffered |= !d->offered_in_pass;
		d->offered_in_pass = false;
	}
}

static bool can_linger(const struct bh_destination *d)
{
	return d->state == BH_WAIT && !d->cancelling && !d->finishes && d->batch.count > 1;
}

/* What moves earns patience, but not for ever: the guest waits for the first packet. */
static uint64_t lingers_until(const struct bh_destination *d)
{
	uint64_t wire = (uint64_t)(d->batch.length - d->batch.skip) * d->us_per_kib / 1024;
	uint64_t linger = d->engine->config.linger_us + wire;

	return BH_MIN(d->waiting_since + linger, d->issued_at + 2 * linger);
}

static struct bh_destination *find_lingering(const struct bh_engine *e)
{
	bh_list_each(d, &e->active, struct bh_destination, link)
		if (can_linger(d) && e->now_us >= lingers_until(d))
			return d;
	return NULL;
}

void bh_engine_tick(struct bh_engine *e, uint64_t now_us)
{
	struct bh_destination *d;

	e->now_us = BH_MAX(e->now_us, now_us);
	while ((d = find_lingering(e)))
		bh_cancel_transfer(d, BH_CANCEL_LINGER);
}

uint64_t bh_engine_deadline(const struct bh_engine *e)
{
	uint64_t deadline = UINT64_MAX;

	bh_list_each(d, &e->active, struct bh_destination, link)
		if (can_linger(d))
			deadline = BH_MIN(deadline, lingers_until(d));
	return deadline;
}

const char *bh_state_name(enum bh_state s)
{
	static const char *const names[BH_STATE_COUNT] = {"IDLE", "WAIT", "DATA", "FAILURE"};

	return (unsigned)s < BH_STATE_COUNT ? names[s] : "?";
}

const char *bh_scan_end_name(enum bh_scan_end s)
{
	static const char *const names[BH_SCAN_END_COUNT] = {
		[BH_SCAN_LIST] = "list",
		[BH_SCAN_SUBLIST] = "sublist",
		[BH_SCAN_NOTIFY] = "notify",
		[BH_SCAN_SHORT] = "short",
		[BH_SCAN_DESTINATION] = "destination",
		[BH_SCAN_DIRECTION] = "direction",
		[BH_SCAN_TOGGLE] = "toggle",
		[BH_SCAN_INACTIVE] = "inactive",
		[BH_SCAN_RING] = "ring",
		[BH_SCAN_BYTES] = "bytes",
		[BH_SCAN_DESCRIPTORS] = "descriptors",
		[BH_SCAN_MEMORY] = "memory",
		[BH_SCAN_INVALID] = "invalid",
	};

	return (unsigned)s < BH_SCAN_END_COUNT ? names[s] : "?";
}

const char *bh_cancel_name(enum bh_cancel c)
{
	static const char *const names[BH_CANCEL_COUNT] = {
		[BH_CANCEL_NONE] = "none",
		[BH_CANCEL_CHANGED] = "changed",
		[BH_CANCEL_WITHDRAWN] = "withdrawn",
		[BH_CANCEL_LINGER] = "linger",
		[BH_CANCEL_RESET] = "reset",
	};

	return (unsigned)c < BH_CANCEL_COUNT ? names[c] : "?";
}
