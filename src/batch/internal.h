/* What the files of the engine share with each other and with nobody else. */
#ifndef BATCH_INTERNAL_H
#define BATCH_INTERNAL_H

#include <batch/engine.h>

/* states.c: the only way from state to state; checks the edge, keeps engine->active, counts. */
void bh_set_state(struct bh_destination *d, enum bh_state to);
bool bh_transition_allowed(enum bh_state from, enum bh_state to);
void bh_destination_check(const struct bh_destination *d);

/* states.c */
void bh_cancel_transfer(struct bh_destination *d, enum bh_cancel why);

/*
 * scan.c: SCAN. Fills d->batch from the head on. False: nothing was taken, and
 * *ret_answer says how the head is to be answered.
 */
bool bh_scan(struct bh_destination *d, const struct bh_descriptor *head, enum bh_answer *ret_answer);

/* scan.c: forget the batch; its memory may stay for the next one. */
void bh_batch_drop(struct bh_destination *d);
void bh_batch_free(struct bh_destination *d);

/* outcome.c: hand out what there is. DATA only; leaves DATA when it was the last. */
enum bh_answer bh_draw_in(struct bh_destination *d, const struct bh_descriptor *head);
enum bh_answer bh_replay_out(struct bh_destination *d, const struct bh_descriptor *head);

/* outcome.c: bytes an OUT outcome covers from the next record on; bytes an IN outcome still holds. */
uint32_t bh_outcome_ahead(const struct bh_destination *d);

/* outcome.c: does the device have this record's packet, whole? */
bool bh_was_taken(const struct bh_record *r, const struct bh_outcome *o);

/* Tell the guest, and count. in: as d->in, for those who know it already. */
static inline enum bh_answer bh_retire(struct bh_destination *d, bool in, const struct bh_descriptor *head,
                                       uint32_t actual, enum bh_status status)
{
	struct bh_source *source = d->engine->source;
	struct bh_engine_counters *c = &d->engine->counters;

	if (!source->ops->retire(source, head, actual, status))
		return BH_ANSWER_CHANGED;
	*(in ? &c->packets_in : &c->packets_out) += 1;
	*(in ? &c->bytes_in : &c->bytes_out) += actual;
	c->failed_packets += status != BH_SUCCESS;
	return BH_ANSWER_RETIRED;
}

/* states.c: input A in a state just entered. */
enum bh_answer bh_request(struct bh_destination *d, const struct bh_descriptor *head);

/* verify.c: what BH_VERIFY_TRACE does before a descriptor's bytes are copied, BH_VERIFY_CHECKSUM after. */
void bh_verify_watch(struct bh_destination *d, struct bh_record *r, const struct bh_descriptor *td);
void bh_verify_keep(struct bh_destination *d, struct bh_record *r);

/* verify.c: keyed, so that the guest cannot choose bytes that fall together. length > 0. */
uint64_t bh_hash(const struct bh_engine *e, const void *bytes, uint32_t length);

/* verify.c: every way but the default one. */
bool bh_unchanged_otherwise(struct bh_destination *d, const struct bh_record *r, const struct bh_descriptor *now);

static inline bool bh_same_descriptor(const struct bh_record *r, const struct bh_descriptor *now)
{
	return now->id == r->id && now->token == r->token && now->buffer == r->buffer && now->length == r->length;
}

static inline bool bh_same_bytes(struct bh_destination *d, const struct bh_record *r, const struct bh_descriptor *now)
{
	struct bh_source *source = d->engine->source;

	return r->length == 0 || source->ops->equal(source, now, 0, d->batch.data + r->offset, r->length);
}

/* Is what the guest shows now still what was recorded? */
static inline bool bh_unchanged(struct bh_destination *d, const struct bh_record *r, const struct bh_descriptor *now)
{
	if (d->verification.what == BH_VERIFY_EXACT)
		return bh_same_descriptor(r, now) && bh_same_bytes(d, r, now);
	return bh_unchanged_otherwise(d, r, now);
}

/*
 * verify.c: of what was found changed: is it only that its data cannot be read now?
 * That is a bus error, or a memory map on the move, and no change of mind.
 */
bool bh_unreadable(struct bh_destination *d, const struct bh_record *r, const struct bh_descriptor *now);

/* verify.c: does the head stand where the batch began, as far as the verifier tells by? */
bool bh_is_head(const struct bh_destination *d, const struct bh_descriptor *head);

/* verify.c: verification at a retry ([0084]), while the host transfer runs. False: something changed. */
bool bh_verify_retry(struct bh_destination *d, const struct bh_descriptor *head, struct bh_change *ret_change);

/* isochronous.c: finds the streams that the guest no longer asks for. */
void bh_streams_frame(struct bh_engine *e);

#endif
