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

/* outcome.c: tell the guest, and count. */
enum bh_answer bh_retire(struct bh_destination *d, const struct bh_descriptor *head, uint32_t actual,
                         enum bh_status status);

/* states.c: input A in a state just entered. */
enum bh_answer bh_request(struct bh_destination *d, const struct bh_descriptor *head);

/* verify.c: is what the guest shows now still what was recorded? */
bool bh_unchanged(struct bh_destination *d, const struct bh_record *r, const struct bh_descriptor *now);

/*
 * verify.c: verification at a retry ([0084]): the head, and some of the others in
 * turn. The index of the first record found changed, or batch.count.
 */
uint32_t bh_verify_retry(struct bh_destination *d, const struct bh_descriptor *head);

#endif
