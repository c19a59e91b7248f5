/*
 * One OUT destination, its guest and its host: figure 5 with scan.c, verify.c and
 * outcome.c. README.md says what is modelled, what is not, and which property each
 * WITHOUT_ switch breaks.
 *
 * DESCRIPTORS: how many the guest has; it uses their addresses again and again.
 * SIZES: 1, full packets only; 2, also zero-length ones; 3, short ones too.
 * MAX_PACKET: 1, a packet is taken whole or not at all.
 * DEACTIVATES: the guest lets go of what it queued by making a descriptor inactive
 * where it is, instead of by taking it, or the queue, out of the list.
 */
#ifndef DESCRIPTORS
#define DESCRIPTORS 2
#endif
#ifndef SIZES
#define SIZES 3
#endif
#ifndef MAX_PACKET
#define MAX_PACKET 2 /* bytes: the smallest that can be taken in part */
#endif

#include "destination.pml"

#if DESCRIPTORS > 2
#define is_third(id) (queued > 2 && q[2] == id)
#define is_third_record(id) (count > 2 && record_id[2] == id)
#else
#define is_third(id) false
#define is_third_record(id) false
#endif

/* --- the guest's memory ----------------------------------------------------------- */

byte q[DESCRIPTORS]; /* ids of the descriptors in the queue, head first */
byte queued;
bool linked = true;       /* the queue is in the schedule */
byte inactive = NOBODY;   /* in the queue, and not to be served now */
bit version[DESCRIPTORS]; /* 1: a descriptor (token, buffer address, data) is not what was copied of it last */
byte size[DESCRIPTORS];   /* how long its packet is */
bool calm;                /* it will do nothing more but wait */

/* --- the engine's records and D* ---------------------------------------------------- */

byte record_id[DESCRIPTORS];
byte record_size[DESCRIPTORS];
byte record_offset[DESCRIPTORS];
byte verify_next;

byte partly_id; /* struct bh_part */
byte partly_bytes;

/* --- the device, and what it really has ------------------------------------------------ */

bool running;       /* a host transfer */
bool cancel_called; /* for it */
byte took;          /* bytes of the batch, those skipped included */
bool took_zero;     /* its zero-length packet as well */
bool untold_zero;   /* the same, and nobody was told of it */
byte told;          /* packets of the batch whose success the guest was told of */
byte pending;       /* bytes the device took that nobody was told of, and nothing counts */
bit part_version;   /* 1: the skipped bytes were of something else */
bool mind;          /* since ISSUE, the guest changed or dropped something it had queued */
bool let_go;        /* since ISSUE, it unlinked the queue, or dropped or deactivated something */

/* --- scratch: set and used within one step --------------------------------------------- */

byte i, n, moved, ahead;
mtype:bh_status status = BH_SUCCESS;
mtype:bh_state to = BH_IDLE;
bool again, scanned, cut, same, taken, retired;

/* Only of what was copied can one tell whether it has changed. */
#define copied(id) \
	((count > 0 && record_id[0] == id) || (count > 1 && record_id[1] == id) || is_third_record(id) || \
	 (partly_bytes > 0 && partly_id == id))
#define remembered (count > 0 || partly_bytes > 0)

/* records and D*, from the given one on */
inline clear_records(from)
{
	i = from;
	do
	:: i == DESCRIPTORS -> break
	:: else ->
		if
		:: i < count -> version[record_id[i]] = 0
		:: else
		fi;
		record_id[i] = 0;
		record_size[i] = 0;
		record_offset[i] = 0;
		i++
	od;
	i = 0
}

inline drop_records()
{
	clear_records(0);
	verify_next = 0;
	took = 0;
	took_zero = false;
	told = 0;
	part_version = 0
}

/* An empty packet moves no byte that ahead_bytes could count. */
inline forget_guest()
{
	claim(P1_taken_for_nothing_only_if_let_go, !untold_zero || (mind && let_go));
	untold_zero = false;
	mind = false;
	let_go = false
}

/* FAILURE: what the device has is not what the guest believes; F in the law. */
inline failure_entered()
{
	claim(P1_failure_state_only_after_a_change, mind && !unoffered);
	untold_zero = false;
	pending = 0
}

/* counters.ahead_bytes += bytes, for a change of mind: W in the law */
inline ahead_bytes(bytes)
{
	claim(P1_taken_for_nothing_only_if_let_go, (bytes) == 0 || (mind && let_go));
	claim(P1_every_taken_byte_is_accounted_for, pending >= (bytes));
	pending = pending - (bytes)
}

/* the same, for a reset, or a part whose packet could not be copied again before it was changed */
inline count_forgotten(bytes)
{
	claim(P1_every_taken_byte_is_accounted_for, pending >= (bytes));
	untold_zero = false;
	pending = pending - (bytes)
}

inline forget_part()
{
	count_forgotten(partly_bytes);
	partly_id = 0;
	partly_bytes = 0
}

#define reset_seen_by_host() true

/* The queue without its k-th. */
inline take_out(k)
{
	d_step {
		version[q[k]] = 0;
		size[q[k]] = 0;
		if
		:: inactive == q[k] -> inactive = NOBODY
		:: else
		fi;
		i = k + 1;
		do
		:: i == queued -> break
		:: else -> q[i - 1] = q[i]; i++
		od;
		q[queued - 1] = 0;
		queued--;
		i = 0
	}
}

#define pop() take_out(0)
#define shown (linked && queued > 0 && q[0] != inactive)

/* --- scan.c ------------------------------------------------------------------------------ */

inline take(id)
{
	d_step {
		record_id[count] = id;
		version[id] = 0; /* is copied to D* as it is now */
		record_size[count] = size[id];
		record_offset[count] = length;
		length = length + size[id];
		count++
	}
}

/*
 * bh_scan(). That it may end after any descriptor stands for IOC, limits, memory
 * and whatever else the next one may be; after a short one, or before one that is
 * not active, it has to.
 */
inline bh_scan()
{
	if
	:: true ->
		head = q[0];
		take(q[0]);
		do
		:: count < queued && size[q[count - 1]] == MAX_PACKET && q[count] != inactive && !one_at_a_time ->
			take(q[count])
		:: true -> break
		od;
		scanned = true
	:: !calm /* the first cannot be read, or there is no memory */
	fi
}

/* --- verify.c ------------------------------------------------------------------------------ */

/* exact(), of record r against descriptor id */
#define bh_unchanged(r, id) \
	(record_id[r] == id && version[id] == 0 && record_size[r] == size[id])

#define in_queue(id) ((queued > 0 && q[0] == id) || (queued > 1 && q[1] == id) || is_third(id))
#if DESCRIPTORS > 2
#define leads_to(id, next) \
	(next != inactive && ((queued > 1 && q[0] == id && q[1] == next) || (queued > 2 && q[1] == id && q[2] == next)))
#else
#define leads_to(id, next) (next != inactive && queued > 1 && q[0] == id && q[1] == next)
#endif

/* still_there(), from the record before on; n is r if it is not */
inline still_there(r)
{
	if
	:: !in_queue(record_id[r - 1]) -> /* what it leads to is nothing the guest says */
		if
		:: true
		:: n = r
		:: n = r; in_place = true
		fi
	:: else ->
		if
		:: !leads_to(record_id[r - 1], record_id[r]) -> n = r
		:: leads_to(record_id[r - 1], record_id[r]) && !bh_unchanged(r, record_id[r]) ->
			n = r;
			in_place = true
		:: else
		fi
	fi
}

/* bh_verify_retry(), with retry_checks 1: the head, and another in turn. Leaves the result in n, in_place. */
inline bh_verify_retry()
{
	n = count;
	if
	:: !bh_unchanged(0, q[0]) -> n = 0; in_place = true
	:: bh_unchanged(0, q[0]) && count > 1 ->
		verify_next++;
		if
		:: verify_next == count -> verify_next = 1
		:: else
		fi;
		still_there(verify_next)
	:: else
	fi
}

/* bh_was_taken() */
#define record_end(r) (record_offset[r] + record_size[r])
#ifdef WITHOUT_ZERO_LENGTH_RULE
#define bh_was_taken(r) (record_end(r) <= outcome_actual)
#else
#define bh_was_taken(r) \
	(record_end(r) < outcome_actual || \
	 (record_end(r) == outcome_actual && (record_size[r] > 0 || outcome_status == BH_SUCCESS)))
#endif

/* the same, where it is asked whether a change is a FAILURE */
#ifdef WITHOUT_FAILURE_OF_AN_EMPTY_PACKET
#define empty_was_taken(r) false
#else
#define empty_was_taken(r) bh_was_taken(r)
#endif

/* --- states.c, for OUT ----------------------------------------------------------------------- */

/* Is it the packet that the device has a part of? What is compared is what SCAN copies in this same step. */
#ifdef WITHOUT_COMPARING_THE_PART
#define begins_alike true
#else
#define begins_alike (version[q[0]] == 0)
#endif

/* take_part(), as far as it looks at the packet */
inline look_at_part()
{
	d_step {
		if
		:: partly_bytes > 0 && partly_id == q[0] && partly_bytes < size[q[0]] && begins_alike ->
			skipped = partly_bytes;
			part_version = version[q[0]]
		:: else
		fi
	}
}

/* the rest of it, after SCAN: of another packet the part was for nothing */
inline take_part()
{
	d_step {
		if
		:: partly_bytes > 0 && skipped == 0 && partly_id != q[0] -> ahead_bytes(partly_bytes)
		:: partly_bytes > 0 && skipped == 0 && partly_id == q[0] -> count_forgotten(partly_bytes)
		:: else
		fi;
		partly_id = 0;
		partly_bytes = 0
	}
}

/* Nothing is issued: it stays for another offer. */
inline part_waits()
{
	skipped = 0;
	part_version = 0
}

inline verify_next_of_direction()
{
	verify_next = 0
}

inline wait_request_of_direction()
{
#ifndef WITHOUT_VERIFICATION_AT_RETRY
	bh_verify_retry();
	if
	:: n < count ->
		changed = n;
		n = 0;
		bh_cancel_transfer(BH_CANCEL_CHANGED)
	:: else
	fi;
	n = 0
#else
	true
#endif
}

/* cut_at_change(); its result in cut */
inline cut_at_change()
{
	n = record_offset[changed];
	cut = true;
	if
	:: outcome_actual > n || empty_was_taken(changed) ->
#ifndef WITHOUT_FAILURE
		if
		:: in_place && !unoffered -> cut = false
		:: else -> ahead_bytes(outcome_actual - n)
		fi
#else
		ahead_bytes(outcome_actual - n)
#endif
	:: else
	fi;
	if
	:: cut ->
		if
		:: outcome_actual >= n ->
			outcome_actual = n;
			outcome_status = BH_CANCELLED
		:: else
		fi;
#ifndef WITHOUT_CUT
		clear_records(changed);
		count = changed;
		length = n;
		verify_next = 0
#endif
	:: else
	fi;
	n = 0
}

/* --- outcome.c ---------------------------------------------------------------------------------- */

/* What the device really took as the packet whose turn it is, and the guest's packet now. */
#define really_taken ((record_offset[told] + record_size[told] <= took) && (record_size[told] > 0 || took_zero))
#define really_the_same (bh_unchanged(told, q[0]) && (told > 0 || skipped == 0 || part_version == 0))

/* bh_retire(). The guest may take it back at that moment: then nothing was told. */
inline bh_retire(actual, with)
{
	retired = true;
	if
	:: with == BH_SUCCESS ->
		claim(P1_success_only_for_what_the_device_took,
			state == BH_DATA && told < count && really_taken && really_the_same);
		claim(P1_every_taken_byte_is_accounted_for, pending >= size[q[0]])
	:: else ->
		claim(P1_failure_only_for_what_it_did_not_take,
			state == BH_FAILURE || pending < size[q[0]] || (pending == 0 && !took_zero))
	fi;
	if
	:: true ->
		if
		:: with == BH_SUCCESS ->
			pending = pending - size[q[0]];
			untold_zero = untold_zero && size[q[0]] > 0;
			told++
		:: else -> pending = 0
		fi
	:: !calm ->
		retired = false;
		mind = remembered;
		let_go = remembered
	fi;
	pop()
}

inline finish()
{
	d_step {
		bh_batch_drop();
		bh_set_state(BH_IDLE)
	}
}

/* bh_outcome_ahead(), into ahead */
inline bh_outcome_ahead()
{
	ahead = 0;
	if
	:: outcome_actual > record_offset[outcome_next] ->
		ahead = outcome_actual - record_offset[outcome_next]
	:: else
	fi
}

/* mind_changed(in_place) */
inline mind_changed()
{
	d_step {
		bh_outcome_ahead();
		if
#ifndef WITHOUT_FAILURE
		:: (ahead > 0 || empty_was_taken(outcome_next)) && same && !unoffered ->
			bh_batch_drop();
			bh_set_state(BH_FAILURE)
#endif
		:: else ->
			ahead_bytes(ahead);
			finish()
		fi;
		ahead = 0;
		again = true
	}
}

/* a record part of which the device has: the rest is sent next */
inline rest()
{
	d_step {
		partly_id = record_id[outcome_next];
		partly_bytes = outcome_actual - record_offset[outcome_next];
#ifdef WITHOUT_PARTLY
		partly_bytes = 0;
#endif
		if
		:: partly_bytes == 0 -> partly_id = 0
		:: else
		fi;
		n = version[q[0]];
		finish();
		version[q[0]] = n; /* which finish() made zero */
		n = 0;
		again = true
	}
}

#ifdef WITHOUT_VERIFICATION_AT_REPLAY
#define replay_unchanged() true
#else
#define replay_unchanged() bh_unchanged(outcome_next, q[0])
#endif

/* bh_replay_out() */
inline data_request_of_direction()
{
	d_step {
		same = (record_id[outcome_next] == q[0]);
		taken = bh_was_taken(outcome_next)
	};
	if
	:: !same || !replay_unchanged() -> mind_changed()
	:: else ->
		if
		:: !taken && outcome_status == BH_CANCELLED -> rest()
		:: else ->
			if
#ifdef WITHOUT_CUMULATIVE_END
			/* Whoever takes the whole transfer's status for each of its packets. */
			:: outcome_status == BH_SUCCESS || outcome_actual > record_offset[outcome_next] ->
				taken = true;
				bh_retire(record_size[outcome_next], BH_SUCCESS)
#endif
			:: taken -> bh_retire(record_size[outcome_next], BH_SUCCESS)
			:: !taken -> bh_retire(0, outcome_status)
			fi;
			if
			:: retired ->
				outcome_next = outcome_next + taken;
				if
				:: !taken || outcome_next == count -> finish()
				:: else
				fi
			:: else
			fi
		fi
	fi;
	d_step {
		same = false;
		taken = false;
		retired = false
	}
}

/* --- the host ------------------------------------------------------------------------------------- */

/*
 * It ends as it likes: with any number of bytes and any status, asked to cancel or
 * not. The one promise: who took a final zero-length packet says success.
 */
inline host_completes()
{
	running = false;
	cancel_called = false;
	do
	:: moved < length - skipped -> moved++
	:: true -> break
	od;
	if
	:: status = BH_SUCCESS; took_zero = (moved == length - skipped)
	:: status = BH_STALL
	:: status = BH_CANCELLED
	fi;
	d_step {
		untold_zero = (took_zero && count > 0 && record_size[count - 1] == 0);
		took = took + moved;
		pending = pending + moved;
		bh_destination_complete(status, moved);
#ifdef WITHOUT_WAIT_FOR_COMPLETION
		if
		:: state == BH_IDLE -> took = 0; took_zero = false; untold_zero = false; pending = 0 /* nobody listens */
		:: else
		fi;
#endif
		moved = 0;
		status = BH_SUCCESS
	}
}

/* carrier->start() */
inline carrier_start()
{
	d_step {
		claim(P3_nothing_starts_before_the_completion, !running);
		claim(P1_every_taken_byte_is_accounted_for, pending == skipped);
		running = true;
		took = skipped
	};
	if
	:: true                     /* it will end later */
	:: host_completes()         /* it ends at once */
	:: !calm ->
		host_completes();
		version[q[0]] = 1 - version[q[0]]; /* and the guest changes it in that moment */
		mind = true
	:: !calm -> bh_destination_reset() /* the device is unplugged meanwhile */
	fi
}

#include "states.pml"

/* --- who acts ---------------------------------------------------------------------------------------- */

/* The schedule is walked: the head is offered if it is linked, and the pass is over. */
active proctype controller()
{
	do
	:: atomic {
		true ->
		if
		:: shown -> bh_destination_offer()
		:: else
		fi;
		bh_engine_pass_done()
	}
	od
}

active proctype host()
{
	do
	:: atomic { running -> host_completes() }
	od
}

active proctype time()
{
	do
#ifndef WITHOUT_LINGER
	:: atomic { can_linger -> bh_cancel_transfer(BH_CANCEL_LINGER); bh_destination_check() }
#endif
	:: atomic { abandoned -> bh_destination_withdraw() }
	od
}

/* What was not copied, nobody holds it to. */
inline lets_go_of(id)
{
	mind = mind || copied(id);
	let_go = let_go || copied(id)
}

active proctype guest()
{
	do
	:: atomic { /* appends a packet, in a descriptor that is free */
		!calm && queued < DESCRIPTORS ->
		do
		:: n < DESCRIPTORS - 1 -> n++
		:: !in_queue(n) -> break
		od;
		if
		:: version[n] = 0
		:: copied(n) -> version[n] = 1
		fi;
		if
		:: size[n] = MAX_PACKET
#if SIZES > 1
		:: size[n] = 0
#endif
#if SIZES > 2 && MAX_PACKET > 1
		:: size[n] = 1
#endif
		fi;
		q[queued] = n;
		queued++;
		n = 0
	}
	/* changes one in place */
	:: d_step { !calm && queued > 0 && copied(q[0]) -> version[q[0]] = 1 - version[q[0]]; mind = true }
	:: d_step { !calm && queued > 1 && copied(q[1]) -> version[q[1]] = 1 - version[q[1]]; mind = true }
#if DESCRIPTORS > 2
	:: d_step { !calm && queued > 2 && copied(q[2]) -> version[q[2]] = 1 - version[q[2]]; mind = true }
#endif
#ifdef DEACTIVATES
	/* deactivates the second where it is, and activates it again */
	:: d_step { !calm && queued > 1 && inactive == NOBODY -> lets_go_of(q[1]); inactive = q[1] }
	:: d_step { !calm && inactive != NOBODY -> inactive = NOBODY }
#else
	/* takes one out of the list, linked or not */
	:: d_step { !calm && queued > 0 -> lets_go_of(q[0]); take_out(0) }
	:: d_step { !calm && queued > 1 -> lets_go_of(q[1]); take_out(1) }
#if DESCRIPTORS > 2
	:: d_step { !calm && queued > 2 -> lets_go_of(q[2]); take_out(2) }
#endif
	/* unlinks the queue, and links it again: the same, or what was put there since */
	:: d_step { !calm && linked -> linked = false; let_go = remembered }
	:: d_step { !calm && !linked -> linked = true }
#endif
	:: atomic { !calm -> bh_destination_reset() }
#ifdef LIVENESS
	:: atomic { !calm && linked && inactive == NOBODY -> calm = true }
#endif
	od
}

#ifdef LIVENESS
ltl P4_every_packet_is_answered { [] (calm -> <> (queued == 0)) }
#endif
