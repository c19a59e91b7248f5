/*
 * Bulk and interrupt endpoints: each is a destination of the batch engine, and
 * each batch becomes one host transfer.
 */
#include "internal.h"

#include <stdlib.h>

#include <base/util.h>

/* --- the engine's carrier -------------------------------------------------------- */

static struct bh_endpoint *of_destination(struct bh_destination *d)
{
	return bh_container_of(d, struct bh_endpoint, destination);
}

/* What the batch's end says of the guest's request. */
static unsigned flags_of(const struct bh_destination *d)
{
	const struct bh_batch *b = &d->batch;
	unsigned flags = b->zero_packet ? BH_TRANSFER_ZERO_PACKET : 0;

	if (b->end == BH_SCAN_NOTIFY || b->end == BH_SCAN_SHORT)
		flags |= BH_TRANSFER_REQUEST_ENDS;
	if (!d->in && b->records[b->count - 1].length < d->max_packet)
		flags |= BH_TRANSFER_SHORT_END;
	if (b->goes_on)
		flags |= BH_TRANSFER_REQUEST_GOES_ON;
	return flags;
}

static void carrier_start(struct bh_destination *d)
{
	struct bh_endpoint *ep = of_destination(d);
	struct bh_transfer *t = &ep->transfer;

	ep->span = (struct iovec){
		.iov_base = d->batch.data ? d->batch.data + d->batch.skip : NULL, /* none: an empty packet */
		.iov_len = d->batch.length - d->batch.skip,
	};
	t->endpoint = ep->info.address;
	t->type = ep->info.type;
	t->flags = flags_of(d);
	t->spans = &ep->span;
	t->span_count = 1;
	t->length = (uint32_t)ep->span.iov_len;
	bh_device_submit(ep->attached->device, t);
}

static void carrier_cancel(struct bh_destination *d)
{
	struct bh_endpoint *ep = of_destination(d);

	bh_device_cancel(ep->attached->device, &ep->transfer);
}

static void carrier_failed(struct bh_destination *d)
{
	struct bh_attached *a = of_destination(d)->attached;

	a->failed = true;
	a->bus->recent = NULL;
	a->failed_since = d->engine->now_us;
}

static const struct bh_carrier_ops carrier = {
	.start = carrier_start,
	.cancel = carrier_cancel,
	.failed = carrier_failed,
};

static void transfer_done(struct bh_transfer *t, enum bh_status status)
{
	struct bh_endpoint *ep = bh_container_of(t, struct bh_endpoint, transfer);

	bh_destination_complete(&ep->destination, status, t->actual);
}

static void transfer_progress(struct bh_transfer *t)
{
	bh_destination_progress(&bh_container_of(t, struct bh_endpoint, transfer)->destination);
}

/* --- packets --------------------------------------------------------------------- */

static struct bh_endpoint *endpoint_create(struct bh_attached *a)
{
	struct bh_endpoint *ep = calloc(1, sizeof(*ep));

	if (!ep)
		return NULL;
	ep->attached = a;
	ep->transfer.done = transfer_done;
	ep->transfer.progress = transfer_progress;
	return ep;
}

/* Makes the endpoint what the active configuration says. False: it says there is none. */
static bool endpoint_refresh(struct bh_endpoint *ep, const struct bh_token *token)
{
	struct bh_attached *a = ep->attached;
	bool in = token->pid == BH_PID_IN;
	const struct bh_endpoint_info *info =
		bh_device_endpoint(a->device, (uint8_t)(token->endpoint | (in ? BH_ENDPOINT_IN : 0)));

	if (!info || (info->type != BH_BULK && info->type != BH_INTERRUPT))
		return false;
	if (ep->destination.engine)
		bh_destination_finish(&ep->destination);
	ep->info = *info;
	bh_destination_init(&ep->destination, &a->bus->engine, &carrier, bh_token_destination(token), in,
	                    info->max_packet);
	ep->destination.finishes = a->device->finishes || info->finishes;
	ep->destination.single = info->type == BH_INTERRUPT || (a->device->cancel_loses && !ep->destination.finishes);
	ep->destination.us_per_kib = a->device->us_per_kib;
	ep->destination.verification = a->device->verification;
	ep->current = true;
	ep->answered = false;
	return true;
}

enum bh_answer bh_endpoint_offer(struct bh_attached *a, const struct bh_token *token, const struct bh_descriptor *d)
{
	struct bh_endpoint **slot = &a->endpoints[token->pid == BH_PID_IN][token->endpoint & 15], *ep = *slot;
	enum bh_answer answer;

	if (!ep)
		ep = *slot = endpoint_create(a);
	if (!ep)
		return BH_ANSWER_BUSY;
	if (!ep->current) {
		if (a->configuring || bh_destination_running(&ep->destination))
			return BH_ANSWER_BUSY; /* nobody knows yet what it will be; or what it was is still being cancelled */
		if (!endpoint_refresh(ep, token)) {
			a->bus->counters.unanswered++;
			return bh_bus_retire(a->bus, d, 0, BH_NO_RESPONSE);
		}
	}
	if (ep->info.type == BH_BULK) {
		a->bus->recent = ep;
		a->bus->recent_destination = d->destination;
		return bh_destination_offer(&ep->destination, d);
	}
	/* A periodic endpoint is asked once in a frame, however often we look. */
	if (ep->answered && ep->answered_frame == a->bus->engine.frame)
		return BH_ANSWER_BUSY;
	answer = bh_destination_offer(&ep->destination, d);
	if (answer == BH_ANSWER_RETIRED) {
		ep->answered = true;
		ep->answered_frame = a->bus->engine.frame;
	}
	return answer;
}

/* --- all of them ------------------------------------------------------------------ */

void bh_endpoint_reset(struct bh_endpoint *ep)
{
	if (ep && ep->destination.engine)
		bh_destination_reset(&ep->destination);
}

void bh_endpoints_reset(struct bh_attached *a, int interface)
{
	for (unsigned i = 0; i < 32; i++) {
		struct bh_endpoint *ep = a->endpoints[i / 16][i % 16];

		if (ep && (interface < 0 || ep->info.interface == interface)) {
			bh_endpoint_reset(ep);
			ep->current = false;
			a->bus->recent = NULL;
		}
	}
	bh_isochronous_endpoints_reset(a, interface);
}

void bh_endpoints_withdraw_unoffered(struct bh_attached *a)
{
	for (unsigned i = 0; i < 32; i++) {
		struct bh_endpoint *ep = a->endpoints[i / 16][i % 16];

		if (ep && ep->destination.engine && ep->destination.unoffered)
			bh_destination_withdraw(&ep->destination);
	}
}

void bh_endpoints_free(struct bh_attached *a)
{
	for (unsigned i = 0; i < 32; i++) {
		struct bh_endpoint *ep = a->endpoints[i / 16][i % 16];

		if (ep && ep->destination.engine)
			bh_destination_finish(&ep->destination);
		free(ep);
	}
	bh_isochronous_endpoints_free(a);
}
