/*
 * Figure 5: src/batch/states.c, and of engine.c what makes withdrawals and ends
 * what lingers. The three inputs are bh_destination_offer() (A),
 * bh_destination_complete() (B) and bh_destination_reset() (C). Where C recurses
 * ("offer the same again in the new state"), here a loop goes round.
 *
 * Before it is included: for the direction, what ends in _of_direction below,
 * bh_scan(), take_part(), bh_retire(), cut_at_change(), count_forgotten(), and
 * shown, which says whether the guest shows a head that is active; for the host,
 * carrier_start() and host_completes().
 */

/* --- B: the host transfer has ended ------------------------------------------------ */

/* sane_outcome() */
inline sane_outcome(status, actual)
{
	outcome_actual = skipped + actual; /* the model's hosts do not exceed the length */
	outcome_status = status;
	if
	:: status == BH_CANCELLED && cancelling == BH_CANCEL_NONE -> outcome_status = BH_NO_RESPONSE
	:: else
	fi;
#ifndef IN_MODEL
	if
	:: status == BH_SUCCESS && outcome_actual < length -> outcome_status = BH_BUS_ERROR
	:: else
	fi
#endif
}

/* wait_complete() */
inline wait_complete(status, actual)
{
	d_step {
		sane_outcome(status, actual);
#ifndef WITHOUT_ONE_AT_A_TIME
		if
		:: outcome_actual > skipped || outcome_status != BH_CANCELLED -> one_at_a_time = false
		:: else ->
			if
			:: cancelling == BH_CANCEL_LINGER -> one_at_a_time = true
			:: else
			fi
		fi;
#endif
		to = BH_DATA;
		if
		:: cancelling == BH_CANCEL_RESET ->
			count_forgotten(outcome_actual);
			to = BH_IDLE
		:: cancelling == BH_CANCEL_CHANGED ->
			cut_at_change();
			if
			:: !cut -> to = BH_FAILURE
			:: cut && outcome_status == BH_CANCELLED && outcome_actual == 0 -> to = BH_IDLE
			:: else
			fi
		:: cancelling != BH_CANCEL_RESET && cancelling != BH_CANCEL_CHANGED &&
		   outcome_status == BH_CANCELLED && outcome_actual == 0 -> to = BH_IDLE
#ifdef WITHOUT_KEEPING
		/* What a cancelled transfer moved is forgotten. */
		:: cancelling == BH_CANCEL_WITHDRAWN && outcome_status == BH_CANCELLED && outcome_actual != 0 ->
			ahead_bytes(outcome_actual);
			to = BH_IDLE
#endif
		:: else
		fi;
		if
		:: to != BH_DATA -> bh_batch_drop()
		:: else
		fi;
		bh_set_state(to);
		to = BH_IDLE
	}
}

inline bh_destination_complete(status, actual)
{
#ifdef WITHOUT_WAIT_FOR_COMPLETION
	if
	:: state == BH_WAIT -> wait_complete(status, actual)
	:: else
	fi;
#else
	claim(invariant, state == BH_WAIT); /* one completion for one start */
	wait_complete(status, actual);
#endif
	bh_destination_check()
}

/* carrier->cancel(). "The completion still comes, possibly before cancel returns." */
inline carrier_cancel()
{
	cancel_called = true;
	if
	:: true /* later */
	:: host_completes()
	fi
}

/* bh_cancel_transfer() */
inline bh_cancel_transfer(why)
{
	if
	:: cancelling != BH_CANCEL_NONE ->
		if
		:: why == BH_CANCEL_RESET || cancelling == BH_CANCEL_LINGER -> cancelling = why
		:: else
		fi
	:: else ->
		cancelling = why;
		carrier_cancel()
	fi
}

/* --- A: a descriptor is offered ----------------------------------------------------- */

/* issue() */
inline issue()
{
	if
	:: issued
	:: else ->
		look_at_part();
		bh_scan()
	fi;
	if
	:: scanned ->
		take_part();
		d_step {
#ifndef WITHOUT_ONE_ISSUE
			issued = true;
#endif
			verify_next_of_direction();
			unoffered = false;
			withdrawn = false;
			offered_in_pass = true;
			bh_set_state(BH_WAIT);
			issues++;
			claim(P4_one_issue_for_one_offer, issues == 1);
			issuing = true
		};
		carrier_start();
		issuing = false;
		again = (state != BH_WAIT && state != BH_IDLE)
	:: else -> part_waits()
	fi;
	scanned = false
}

/* wait_request(), in two: what is to be done about it, and doing it */
inline wait_request()
{
	if
	:: cancelling != BH_CANCEL_NONE
	:: cancelling == BH_CANCEL_NONE && q[0] != head -> bh_cancel_transfer(BH_CANCEL_WITHDRAWN)
	:: else -> wait_request_of_direction() /* OUT: verify */
	fi
}

/* bh_request(): offers q[0], and again where the code calls itself */
inline bh_request()
{
	again = true;
	do
	:: !again -> break
	:: else ->
		again = false;
		if
		:: state == BH_IDLE -> issue() /* idle_request() */
		:: state == BH_WAIT -> wait_request()
		:: state == BH_DATA -> data_request_of_direction()
		:: state == BH_FAILURE -> bh_retire(0, BH_NO_RESPONSE)
		fi
	od
}

/* A. bh_destination_seen() comes first: its chain was offered in this pass. */
inline bh_destination_offer()
{
	offered_in_pass = (state != BH_IDLE);
	bh_request();
	d_step {
		issued = false; /* which the code does when the next one begins */
		issues = 0;
		bh_destination_check()
	}
}

/* --- C: reset ------------------------------------------------------------------------ */

inline bh_destination_reset()
{
	one_at_a_time = false;
	forget_part();
	reset_seen_by_host();
	if
	:: state == BH_WAIT ->
#ifdef WITHOUT_CANCEL_AT_RESET
		bh_batch_drop();
		bh_set_state(BH_IDLE)
#else
		bh_cancel_transfer(BH_CANCEL_RESET) /* wait_reset() */
#endif
#ifdef WITHOUT_WAIT_FOR_COMPLETION
		;
		if
		:: state == BH_WAIT -> bh_batch_drop(); bh_set_state(BH_IDLE)
		:: else
		fi
#endif
	:: state == BH_DATA -> /* data_reset() */
		bh_outcome_ahead();
		count_forgotten(ahead);
		ahead = 0;
		bh_batch_drop();
		bh_set_state(BH_IDLE)
	:: state == BH_FAILURE -> bh_set_state(BH_IDLE) /* failure_reset() */
	:: else
	fi;
	claim(P3_after_reset_nothing_runs_uncancelled, !running || cancel_called);
	bh_destination_check()
}

/* --- engine.c -------------------------------------------------------------------------- */

/* bh_engine_pass_done() */
inline bh_engine_pass_done()
{
	d_step {
		if
		:: state != BH_IDLE -> unoffered = unoffered || !offered_in_pass
		:: else
		fi;
		offered_in_pass = false
	}
}

/* find_abandoned() says "so many frames without an offer"; any number of them, here. */
#define abandoned (!withdrawn && (state == BH_WAIT || state == BH_DATA) && !shown)

/* bh_destination_withdraw() */
inline bh_destination_withdraw()
{
	withdrawn = true;
	unoffered = true;
	if
	:: state == BH_WAIT -> bh_cancel_transfer(BH_CANCEL_WITHDRAWN)
	:: else
	fi;
	bh_destination_check()
}

/* can_linger(): time is abstracted, so what can linger may have lingered enough. */
#define can_linger (state == BH_WAIT && cancelling == BH_CANCEL_NONE && count > 1)
