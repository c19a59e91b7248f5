/*
 * One destination as src/batch keeps it (struct bh_destination), and the only way
 * from state to state. What the model needs not know is left out: memory, hashes,
 * counters, the list of active destinations, clocks.
 *
 * Before it is included: DESCRIPTORS (how many a guest has), MAX_PACKET (in the
 * model's bytes), and for the IN model IN_MODEL.
 */

mtype:bh_state = { BH_IDLE, BH_WAIT, BH_DATA, BH_FAILURE };
mtype:bh_cancel = { BH_CANCEL_NONE, BH_CANCEL_CHANGED, BH_CANCEL_WITHDRAWN, BH_CANCEL_LINGER, BH_CANCEL_RESET };
mtype:bh_status = { BH_SUCCESS, BH_STALL, BH_BABBLE, BH_NO_RESPONSE, BH_BUS_ERROR, BH_CANCELLED };

#ifdef IN_MODEL
#define IN_RANGE <= outcome_actual
#else
#define IN_RANGE < count
#endif
#define NOBODY 15 /* no descriptor */

/* --- struct bh_destination ------------------------------------------------------- */

mtype:bh_state state = BH_IDLE;
mtype:bh_cancel cancelling = BH_CANCEL_NONE;
bool unoffered, offered_in_pass, withdrawn, one_at_a_time, issuing;
bool issued; /* in the offer under way */

/* struct bh_batch */
byte count, length;
byte skipped; /* batch.skip, which is a word of Promela */
byte head = NOBODY; /* batch.head */

/* struct bh_outcome */
mtype:bh_status outcome_status = BH_SUCCESS;
byte outcome_actual, outcome_next;

/* struct bh_change */
byte changed;
bool in_place;

byte issues; /* that there were, within this offer */

/* --- what is claimed -------------------------------------------------------------- */

/*
 * A violated assertion is reported by its text, so each property is a name that
 * stays true: claim(P, condition). Here as elsewhere, d_step says that
 * there is nothing to choose within it: the search is the same, and twice as fast.
 */
bool P1_success_only_for_what_the_device_took = true;
bool P1_failure_only_for_what_it_did_not_take = true;
bool P1_taken_for_nothing_only_if_let_go = true;
bool P1_every_taken_byte_is_accounted_for = true;
bool P1_failure_state_only_after_a_change = true;
bool P2_no_packet_lost_doubled_or_reordered = true;
bool P3_after_reset_nothing_runs_uncancelled = true;
bool P3_nothing_starts_before_the_completion = true;
bool P4_one_issue_for_one_offer = true;
bool invariant = true; /* bh_destination_check(), bh_set_state()'s table */

#define claim(property, condition) d_step { property = (condition); assert(property) }

/* --- scan.c, states.c: the bottom ---------------------------------------------------- */

inline bh_batch_drop()
{
	d_step {
		drop_records();
		count = 0;
		length = 0;
		skipped = 0;
		head = NOBODY
	}
}

/* bh_set_state(), with bh_transition_allowed(). What a state does not use is made zero. */
inline bh_set_state(to)
{
	d_step {
		claim(invariant, (state == BH_IDLE && to == BH_WAIT) ||
			(state == BH_WAIT && to != BH_WAIT) ||
			(state == BH_DATA && (to == BH_IDLE || to == BH_FAILURE)) ||
			(state == BH_FAILURE && to == BH_IDLE));
		if
		:: to == BH_FAILURE -> failure_entered() /* carrier->failed() */
		:: else
		fi;
		state = to;
		if
		:: to != BH_WAIT -> cancelling = BH_CANCEL_NONE; changed = 0; in_place = false
		:: else
		fi;
		if
		:: to != BH_DATA -> outcome_status = BH_SUCCESS; outcome_actual = 0; outcome_next = 0
		:: else
		fi;
		if
		:: to == BH_IDLE || to == BH_FAILURE -> unoffered = false; withdrawn = false; forget_guest()
		:: else
		fi
	}
}

/* bh_destination_check(): what holds in each state, at the end of every input. */
inline bh_destination_check()
{
	claim(invariant,
		(state != BH_IDLE || count == 0) &&
		(state != BH_WAIT || (count > 0 && skipped <= length)) &&
		(state != BH_DATA || (outcome_actual <= length && (outcome_next IN_RANGE))) &&
		(state != BH_FAILURE || count == 0) &&
		(cancelling == BH_CANCEL_NONE || state == BH_WAIT))
}
