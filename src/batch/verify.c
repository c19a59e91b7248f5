/*
 * Data verification ([0077] to [0085]): is what the device is being sent still
 * what the guest wants sent? Only OUT needs to ask.
 *
 * "exact" compares the descriptor's address, its token, its buffer's address and
 * every byte with the record and with D*. Link, IOC, SPD and the error counter
 * are not compared: drivers change them in flight, and they are taken as found at
 * replay.
 */
#include "internal.h"

#include <string.h>

static bool exact(struct bh_destination *d, const struct bh_record *r, const struct bh_descriptor *now)
{
	struct bh_engine *e = d->engine;

	if (now->id != r->id || now->token != r->token || now->buffer != r->buffer || now->length != r->length)
		return false;
	if (r->length == 0)
		return true;
	return r->length <= sizeof(e->scratch) &&
	       e->source->ops->read(e->source, now, 0, e->scratch, r->length) &&
	       memcmp(e->scratch, d->batch.data + r->offset, r->length) == 0;
}

const struct bh_verifier bh_verify_exact = {.name = "exact", .unchanged = exact};

bool bh_unchanged(struct bh_destination *d, const struct bh_record *r, const struct bh_descriptor *now)
{
	return d->engine->config.verifier->unchanged(d, r, now);
}

static bool still_there(struct bh_destination *d, const struct bh_record *r)
{
	struct bh_source *source = d->engine->source;
	struct bh_descriptor now;

	return source->ops->look(source, r->id, d->batch.chain, &now) == BH_FOUND && bh_unchanged(d, r, &now);
}

uint32_t bh_verify_retry(struct bh_destination *d, const struct bh_descriptor *head)
{
	struct bh_batch *b = &d->batch;

	if (!bh_unchanged(d, &b->records[0], head))
		return 0;
	for (uint32_t i = 0; i < d->engine->config.retry_checks && i + 1 < b->count; i++) {
		d->verify_next = d->verify_next + 1 < b->count ? d->verify_next + 1 : 1;
		if (!still_there(d, &b->records[d->verify_next]))
			return d->verify_next;
	}
	return b->count;
}
