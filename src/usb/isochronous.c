/*
 * Isochronous endpoints: each is a stream of the batch engine, and each of its batches
 * becomes one host transfer with a packet for every service interval.
 */
#include "internal.h"

#include <stdlib.h>

#include <base/util.h>

/* --- the engine's carrier -------------------------------------------------------- */

static struct bh_isochronous_endpoint *of_stream(struct bh_isochronous *s)
{
	return bh_container_of(s, struct bh_isochronous_endpoint, stream);
}

static void transfer_done(struct bh_transfer *t, enum bh_status status)
{
	struct bh_isochronous_endpoint *ep = t->submitter_data;

	(void)status; /* each packet has its own */
	for (unsigned i = 0; i < BH_COUNT(ep->carried); i++)
		if (t == &ep->carried[i].transfer)
			bh_isochronous_complete(&ep->stream, &ep->stream.batches[i]);
}

static void stream_start(struct bh_isochronous *s, struct bh_isochronous_batch *b)
{
	struct bh_isochronous_endpoint *ep = of_stream(s);
	size_t i = (size_t)(b - s->batches);
	struct iovec *span = &ep->carried[i].span;
	struct bh_transfer *t = &ep->carried[i].transfer;

	*span = (struct iovec){.iov_base = b->data, .iov_len = (size_t)b->count * s->max_packet};
	*t = (struct bh_transfer){
		.endpoint = ep->info.address,
		.type = BH_ISOCHRONOUS,
		.spans = span,
		.span_count = 1,
		.length = (uint32_t)span->iov_len,
		.packets = b->packets,
		.packet_count = b->count,
		.done = transfer_done,
		.submitter_data = ep,
	};
	bh_device_submit(ep->attached->device, t);
}

static void stream_cancel(struct bh_isochronous *s, struct bh_isochronous_batch *b)
{
	struct bh_isochronous_endpoint *ep = of_stream(s);

	bh_device_cancel(ep->attached->device, &ep->carried[b - s->batches].transfer);
}

static const struct bh_isochronous_ops carrier = {
	.start = stream_start,
	.cancel = stream_cancel,
};

/* --- packets --------------------------------------------------------------------- */

/* Makes it what the active configuration says. False: that has no such isochronous endpoint. */
static bool refresh(struct bh_isochronous_endpoint *ep, const struct bh_token *token)
{
	struct bh_attached *a = ep->attached;
	bool in = token->pid == BH_PID_IN;
	const struct bh_endpoint_info *info =
		bh_device_endpoint(a->device, (uint8_t)(token->endpoint | (in ? BH_ENDPOINT_IN : 0)));

	if (!info || info->type != BH_ISOCHRONOUS)
		return false;
	if (ep->stream.engine)
		bh_isochronous_finish(&ep->stream);
	ep->info = *info;
	bh_isochronous_init(&ep->stream, &a->bus->engine, &carrier, in, info->max_packet);
	ep->current = true;
	return true;
}

enum bh_answer bh_isochronous_endpoint_offer(struct bh_attached *a, const struct bh_token *token,
                                             const struct bh_descriptor *d, enum bh_moment moment)
{
	struct bh_isochronous_endpoint **slot = &a->isochronous[token->pid == BH_PID_IN][token->endpoint & 15], *ep = *slot;

	if (token->endpoint == 0)
		return BH_ANSWER_NOBODY;
	if (!ep && (ep = *slot = calloc(1, sizeof(*ep))))
		ep->attached = a;
	if (!ep)
		return BH_ANSWER_MISSED;
	if (!ep->current) {
		if (ep->stream.engine && bh_isochronous_running(&ep->stream))
			return BH_ANSWER_MISSED; /* what it was is still being cancelled */
		if (!refresh(ep, token))
			return BH_ANSWER_NOBODY;
	}
	return bh_isochronous_offer(&ep->stream, d, moment);
}

/* --- all of them ------------------------------------------------------------------ */

void bh_isochronous_endpoints_reset(struct bh_attached *a, int interface)
{
	for (unsigned i = 0; i < 32; i++) {
		struct bh_isochronous_endpoint *ep = a->isochronous[i / 16][i % 16];

		if (ep && ep->stream.engine && (interface < 0 || ep->info.interface == interface)) {
			bh_isochronous_reset(&ep->stream);
			ep->current = false;
		}
	}
}

void bh_isochronous_endpoints_free(struct bh_attached *a)
{
	for (unsigned i = 0; i < 32; i++) {
		struct bh_isochronous_endpoint *ep = a->isochronous[i / 16][i % 16];

		if (ep && ep->stream.engine)
			bh_isochronous_finish(&ep->stream);
		free(ep);
	}
}
