/* Data verification. See <batch/verify.h> for what there is, and why "exact" is the default. */
#include "internal.h"

#include <string.h>

#include <xxhash.h>

#include <base/util.h>

static const char *const names[BH_VERIFY_COUNT] = {
	[BH_VERIFY_EXACT] = "exact",       [BH_VERIFY_TD] = "td",       [BH_VERIFY_BUFFER] = "buffer",
	[BH_VERIFY_CHECKSUM] = "checksum", [BH_VERIFY_TRACE] = "trace", [BH_VERIFY_NONE] = "none",
};

static const char *const when_names[BH_VERIFY_WHEN_COUNT] = {
	[BH_VERIFY_BOUNDED] = "bounded",
	[BH_VERIFY_RETRY] = "retry",
	[BH_VERIFY_COMPLETION] = "completion",
};

const char *bh_verify_name(enum bh_verify what)
{
	return (unsigned)what < BH_VERIFY_COUNT ? names[what] : "?";
}

const char *bh_verify_when_name(enum bh_verify_when when)
{
	return (unsigned)when < BH_VERIFY_WHEN_COUNT ? when_names[when] : "?";
}

bool bh_verify_parse(const char *name, enum bh_verify *ret)
{
	for (unsigned i = 0; i < BH_VERIFY_COUNT; i++)
		if (!strcmp(name, names[i])) {
			*ret = (enum bh_verify)i;
			return true;
		}
	return false;
}

bool bh_verify_when_parse(const char *name, enum bh_verify_when *ret)
{
	for (unsigned i = 0; i < BH_VERIFY_WHEN_COUNT; i++)
		if (!strcmp(name, when_names[i])) {
			*ret = (enum bh_verify_when)i;
			return true;
		}
	return false;
}

/* --- keeping ------------------------------------------------------------------------ */

/* Before its bytes are read: what is written after that is noticed. */
void bh_verify_watch(struct bh_destination *d, struct bh_record *r, const struct bh_descriptor *td)
{
	struct bh_source *source = d->engine->source;
	struct bh_batch *b = &d->batch;
	uint64_t stamp = source->ops->watch ? source->ops->watch(source, td) : 0;

	if (b->count == 0) {
		b->watched = true;
		b->watched_since = stamp;
	}
	/* Stamps grow by a few for each watch; where one does not fit, the batch is as good as not watched. */
	b->watched &= stamp >= b->watched_since && stamp - b->watched_since <= UINT32_MAX && stamp > 0;
	r->proof = (uint32_t)(stamp - b->watched_since);
}

uint64_t bh_hash(const struct bh_engine *e, const void *bytes, uint32_t length)
{
	return XXH3_64bits_withSeed(bytes, length, e->config.hash_key);
}

void bh_verify_keep(struct bh_destination *d, struct bh_record *r)
{
	r->proof = r->length ? (uint32_t)bh_hash(d->engine, d->batch.data + r->offset, r->length) : 0;
}

/* --- comparing ----------------------------------------------------------------------- */

static bool same_checksum(struct bh_destination *d, const struct bh_record *r, const struct bh_descriptor *now)
{
	struct bh_engine *e = d->engine;

	return r->length == 0 ||
	       (r->length <= sizeof(e->scratch) && e->source->ops->read(e->source, now, 0, e->scratch, r->length) &&
	        (uint32_t)bh_hash(e, e->scratch, r->length) == r->proof);
}

static bool untouched(struct bh_destination *d, const struct bh_record *r, const struct bh_descriptor *now)
{
	struct bh_source *source = d->engine->source;

	return d->batch.watched && !source->ops->written(source, now, d->batch.watched_since + r->proof);
}

bool bh_unchanged_otherwise(struct bh_destination *d, const struct bh_record *r, const struct bh_descriptor *now)
{
	switch (d->verification.what) {
	case BH_VERIFY_TD:
		return now->id == r->id;
	case BH_VERIFY_BUFFER:
		return now->buffer == r->buffer;
	case BH_VERIFY_CHECKSUM:
		return bh_same_descriptor(r, now) && same_checksum(d, r, now);
	case BH_VERIFY_TRACE:
		return bh_same_descriptor(r, now) && (untouched(d, r, now) || bh_same_bytes(d, r, now));
	case BH_VERIFY_NONE:
		return true;
	case BH_VERIFY_EXACT: /* not here */
	case BH_VERIFY_COUNT:
		break;
	}
	return bh_same_descriptor(r, now) && bh_same_bytes(d, r, now);
}

bool bh_unreadable(struct bh_destination *d, const struct bh_record *r, const struct bh_descriptor *now)
{
	struct bh_engine *e = d->engine;

	return bh_same_descriptor(r, now) && r->length > 0 && r->length <= sizeof(e->scratch) &&
	       !e->source->ops->read(e->source, now, 0, e->scratch, r->length);
}

bool bh_is_head(const struct bh_destination *d, const struct bh_descriptor *head)
{
	if (!d->in && d->verification.what == BH_VERIFY_BUFFER)
		return head->buffer == d->batch.records[0].buffer;
	return head->id == d->batch.head;
}

/* --- at a retry ------------------------------------------------------------------------- */

/*
 * Does the list still lead from the record before to this one, and is it what it was?
 * Of what cannot be read now nobody can tell.
 */
static bool still_there(struct bh_destination *d, uint32_t i, struct bh_change *ret_change)
{
	struct bh_source *source = d->engine->source;
	const struct bh_record *r = &d->batch.records[i];
	struct bh_descriptor before = {.id = r[-1].id, .chain = d->batch.chain}, now;
	enum bh_found found = source->ops->next(source, &before, &now);

	if (found == BH_FOUND_UNREADABLE)
		return true;
	if (found == BH_FOUND && (bh_unchanged(d, r, &now) || bh_unreadable(d, r, &now)))
		return true;
	*ret_change = (struct bh_change){.record = i, .in_place = found == BH_FOUND && now.id == r->id};
	return false;
}

static bool verify_all(struct bh_destination *d, struct bh_change *ret_change)
{
	for (uint32_t i = 1; i < d->batch.count; i++)
		if (!still_there(d, i, ret_change))
			return false;
	return true;
}

static bool verify_some(struct bh_destination *d, struct bh_change *ret_change)
{
	uint32_t others = d->batch.count - 1, n = BH_MIN(d->engine->config.retry_checks, others);

	while (n--) {
		d->verify_next = d->verify_next < others ? d->verify_next + 1 : 1;
		if (!still_there(d, d->verify_next, ret_change))
			return false;
	}
	return true;
}

bool bh_verify_retry(struct bh_destination *d, const struct bh_descriptor *head, struct bh_change *ret_change)
{
	if (d->verification.when == BH_VERIFY_COMPLETION)
		return true;
	if (!bh_unchanged(d, &d->batch.records[0], head) && !bh_unreadable(d, &d->batch.records[0], head)) {
		*ret_change = (struct bh_change){.in_place = true};
		return false;
	}
	return d->verification.when == BH_VERIFY_RETRY ? verify_all(d, ret_change) : verify_some(d, ret_change);
}
