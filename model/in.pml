/*
 * One IN destination, its guest and its host: figure 5 with scan.c and outcome.c.
 * The device numbers its packets, the guest expects them in order. README.md says
 * what is modelled, what is not, and which property each WITHOUT_ switch breaks.
 */
#define IN_MODEL
#ifndef DESCRIPTORS
#define DESCRIPTORS 2
#endif
#define MAX_PACKET 2 /* bytes: a packet is full, short (1) or zero-length */
#define NUMBERS 4    /* packets are numbered modulo this: more than can be on the way */

#include "destination.pml"

/* --- the guest ------------------------------------------------------------------- */

byte q[DESCRIPTORS]; /* the descriptors of the queue, head first: their ids */
byte queued;
byte room[DESCRIPTORS]; /* how much each takes: less than a packet means babble */
bool linked = true;
bool calm;              /* it will do nothing more but wait */
byte expected;          /* number of the packet that has to come next */

/* --- batch.data: the number of the packet each full-size slot holds ---------------- */

byte data[DESCRIPTORS];

/* --- the device --------------------------------------------------------------------- */

bool running;
bool cancel_called;
byte number;    /* of the next packet it gives */
byte given;     /* bytes given in this transfer */
bool ended;     /* by a short packet, or a zero-length one */
bool zero;      /* a zero-length packet was given, of which the guest has not been told */
bool quiet;     /* it will give nothing more, and never end a transfer by itself */
bool dropping;  /* a reset came while it ran: all of it is to be dropped */
bool failing;   /* the transfer failed: the guest is owed that news */

/* --- scratch: set and used within one step ---------------------------------------------- */

byte i, n, packet, ahead;
mtype:bh_status status = BH_SUCCESS;
mtype:bh_state to = BH_IDLE;
bool again, scanned, cut, retired, fits, over;


inline drop_records()
{
	i = 0;
	do
	:: i == DESCRIPTORS -> break
	:: else -> data[i] = 0; i++
	od;
	i = 0
}

inline forget_guest() { true }
inline failure_entered() { claim(invariant, false) } /* an IN destination never fails */
inline ahead_bytes(bytes) { true }
inline count_forgotten(bytes) { true }
inline forget_part() { true }
inline cut_at_change() { claim(invariant, false); cut = true } /* nothing is verified */
inline look_at_part() { true }
inline take_part() { true }
inline part_waits() { true }
inline verify_next_of_direction() { true }
inline wait_request_of_direction() { true }
inline bh_outcome_ahead() { ahead = 0 }

/* What was given before a reset is to be dropped. */
inline reset_seen_by_host()
{
	if
	:: running -> dropping = true
	:: else -> expected = number; failing = false; zero = false
	fi
}

inline pop()
{
	d_step {
		room[q[0]] = 0;
		i = 1;
		do
		:: i == queued -> break
		:: else -> q[i - 1] = q[i]; i++
		od;
		q[queued - 1] = 0;
		queued--;
		i = 0
	}
}

/* --- scan.c ---------------------------------------------------------------------------- */

inline take(id)
{
	d_step {
		length = length + MAX_PACKET;
		count++
	}
}

/* bh_scan(): it may end after any descriptor; after one with less room it has to. */
inline bh_scan()
{
	if
	:: true ->
		head = q[0];
		take(q[0]);
		do
		:: count < queued && room[q[count - 1]] == MAX_PACKET && !one_at_a_time -> take(q[count])
		:: true -> break
		od;
		scanned = true
	:: !calm /* no memory */
	fi
}

/* --- outcome.c ---------------------------------------------------------------------------- */

/* The guest is told of a packet. A packet that did not fit is told of as well, as babble. */
inline packet_told(which)
{
	claim(P2_no_packet_lost_doubled_or_reordered, which == expected && which != number);
	expected = (expected + 1) % NUMBERS
}

/* bh_retire(). The guest may take it back at that moment: then nothing was told. */
inline bh_retire(actual, with)
{
	if
	:: true -> retired = true
	:: !calm -> retired = false
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

/* in_is_over(), into over */
inline in_is_over(after_short)
{
	over = (outcome_next == outcome_actual &&
		((outcome_status == BH_SUCCESS && ((after_short) || outcome_actual == length)) ||
		 outcome_status == BH_CANCELLED))
}

inline draw_packet()
{
	packet = outcome_actual - outcome_next;
	if
	:: packet > MAX_PACKET -> packet = MAX_PACKET
	:: else
	fi;
	fits = (packet <= room[q[0]]);
	if
	:: fits -> bh_retire(packet, BH_SUCCESS)
	:: else -> bh_retire(0, BH_BABBLE)
	fi;
	if
	:: retired ->
		packet_told(data[outcome_next / MAX_PACKET]);
		outcome_next = outcome_next + packet;
#ifdef WITHOUT_ZERO_LENGTH_RULE
		in_is_over(true);
#else
		in_is_over(packet < MAX_PACKET);
#endif
		if
		:: over -> finish()
		:: else
		fi
#ifdef WITHOUT_KEEPING_WHAT_WAS_REFUSED
	:: else ->
		outcome_next = outcome_next + packet;
		in_is_over(packet < MAX_PACKET);
		if
		:: over -> finish()
		:: else
		fi
#else
	:: else
#endif
	fi
}

/* bh_draw_in() */
inline data_request_of_direction()
{
	if
	:: outcome_next < outcome_actual -> draw_packet()
	:: else ->
		bh_retire(0, outcome_status);
		if
		:: retired ->
			if
			:: outcome_status == BH_SUCCESS ->
				/* a zero-length packet, which leaves no byte in data */
				claim(P2_no_packet_lost_doubled_or_reordered, zero);
				packet_told((number + NUMBERS - 1) % NUMBERS);
				zero = false
			:: else ->
				claim(P2_no_packet_lost_doubled_or_reordered, failing && expected == number);
				failing = false
			fi;
			finish()
		:: else
		fi
	fi;
	packet = 0;
	fits = false;
	over = false;
	retired = false
}

/* --- the host ---------------------------------------------------------------------------------- */

inline gives(bytes)
{
	zero = (bytes == 0);
	if
	:: bytes > 0 -> data[given / MAX_PACKET] = number
	:: else
	fi;
	number = (number + 1) % NUMBERS;
	given = given + bytes;
	ended = (bytes < MAX_PACKET)
}

#define may_give (running && !ended && given < length && !quiet)
#define has_all (ended || given == length)

inline gives_something()
{
	if
	:: gives(MAX_PACKET)
	:: gives(1)
	:: gives(0)
	fi
}

/*
 * It ends when all came that was asked for, or a short packet did; it fails when it
 * likes; cancelled, it ends with what was given so far, or with what it had come to
 * before. The one promise: who gave a zero-length packet says success.
 */
inline host_completes()
{
	if
	:: has_all -> status = BH_SUCCESS
	:: !ended && !quiet -> status = BH_STALL; failing = true
	:: !ended && !quiet && !cancel_called -> status = BH_CANCELLED; failing = true /* nobody asked it to */
	:: cancel_called && !zero -> status = BH_CANCELLED
	fi;
	running = false;
	cancel_called = false;
	ended = false;
	n = given;
	given = 0;
	if
	:: dropping -> expected = number; dropping = false; zero = false; failing = false
	:: else
	fi;
	bh_destination_complete(status, n);
	n = 0;
	status = BH_SUCCESS
}

/* carrier->start() */
inline carrier_start()
{
	claim(P3_nothing_starts_before_the_completion, !running);
	claim(P2_no_packet_lost_doubled_or_reordered, expected == number && !zero && !failing);
	running = true;
	do
	:: may_give -> gives_something()
	:: true -> break /* it will end later */
	:: (has_all || !quiet) -> host_completes(); break /* it ends at once */
	:: !calm -> bh_destination_reset(); break /* the device is unplugged meanwhile */
	od
}

#define shown (linked && queued > 0)

#include "states.pml"

/* --- who acts ------------------------------------------------------------------------------------ */

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
	:: atomic { may_give -> gives_something() }
	:: atomic { running && (has_all || !quiet || cancel_called) -> host_completes() }
#ifdef LIVENESS
	:: atomic { !quiet -> quiet = true }
#endif
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

#define in_queue(id) ((queued > 0 && q[0] == id) || (queued > 1 && q[1] == id) || (queued > 2 && q[THIRD] == id))
#if DESCRIPTORS > 2
#define THIRD 2
#else
#define THIRD 0
#endif

active proctype guest()
{
	do
	:: atomic { /* appends a descriptor that is free */
		!calm && queued < DESCRIPTORS ->
		do
		:: n < DESCRIPTORS - 1 -> n++
		:: !in_queue(n) -> break
		od;
		if
		:: room[n] = MAX_PACKET
		:: room[n] = 1
		fi;
		q[queued] = n;
		queued++;
		n = 0
	}
	/* takes the head back, linked or not */
	:: d_step { !calm && queued > 0 -> pop() }
	/* unlinks the queue, and links it again: the same, or what was put there since */
	:: d_step { !calm && linked -> linked = false }
	:: d_step { !calm && !linked -> linked = true }
	:: atomic { !calm -> bh_destination_reset() }
#ifdef LIVENESS
	:: atomic { !calm && linked -> calm = true }
#endif
	od
}

#ifdef LIVENESS
#define answered (queued == 0)
#define nothing_held_back (quiet && expected == number && !zero && !failing)
#define resting (state == BH_WAIT && count == 1 && cancelling == BH_CANCEL_NONE)

ltl P4_every_packet_is_answered { [] (calm -> <> (answered || nothing_held_back)) }
ltl P4_an_idle_endpoint_rests { [] ((calm && quiet) -> <> (answered || [] resting)) }
#endif
