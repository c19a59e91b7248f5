/*
 * A guest's program as data: what a driver does to its queues, step by step. Made
 * from a seed, printed one action per line, and small enough to be made smaller by
 * leaving out actions. What an action does to guest memory is in law_driver.h.
 *
 * Not in here: addresses of devices (SET_ADDRESS), buffers that are not there,
 * tokens that make no sense, isochronous descriptors, suspend. Other tests have them.
 */
#ifndef TESTS_LAW_PROGRAM_H
#define TESTS_LAW_PROGRAM_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <batch/verify.h>
#include <usb/device.h>

/* --- chance ------------------------------------------------------------------------------------- */

static inline uint64_t mix(uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t h = (a * 0x9e3779b97f4a7c15u) ^ (b * 0xc2b2ae3d27d4eb4fu) ^ (c * 0x165667b19e3779f9u);

	h = (h ^ h >> 31) * 0x7fb5d329728ea185u;
	h = (h ^ h >> 27) * 0x81dadef4bc2dd44du;
	return h ^ h >> 33;
}

struct dice {
	uint64_t state;
};

static inline struct dice dice_of(uint64_t seed, uint64_t what)
{
	return (struct dice){mix(seed, what, 7) | 1};
}

/* 0 to n - 1 */
static inline unsigned roll(struct dice *d, unsigned n)
{
	d->state ^= d->state << 13;
	d->state ^= d->state >> 7;
	d->state ^= d->state << 17;
	return (uint32_t)(d->state >> 20) % n;
}

static inline bool one_in(struct dice *d, unsigned n)
{
	return roll(d, n) == 0;
}

/* --- what there is ------------------------------------------------------------------------------- */

static const struct bh_endpoint_info endpoints[] = {
	{.address = 0x01, .type = BH_BULK, .max_packet = 64},
	{.address = 0x82, .type = BH_BULK, .max_packet = 64},
	{.address = 0x05, .type = BH_BULK, .max_packet = 8},
	{.address = 0x86, .type = BH_BULK, .max_packet = 16},
	{.address = 0x83, .type = BH_INTERRUPT, .max_packet = 8, .interval = 1},
	{.address = 0x04, .type = BH_INTERRUPT, .max_packet = 8, .interval = 1},
};
#define ENDPOINTS   ((unsigned)BH_COUNT(endpoints))
#define CONTROL_MAX 8u

/* Queue i is for endpoint i; then there is a second one for each of the first two, and the control pipe's. */
#define QUEUES        9u
#define CONTROL_QUEUE 8u

static inline unsigned queue_endpoint(unsigned queue)
{
	return queue < ENDPOINTS ? queue : queue - ENDPOINTS;
}

static inline bool endpoint_is_in(unsigned e)
{
	return endpoints[e].address & BH_ENDPOINT_IN;
}

enum action_kind {
	APPEND,     /* count descriptors of length bytes, to endpoint, at the end of the queue */
	CONTROL,    /* a control transfer: SETUP, count data packets, STATUS */
	LINK,       /* the queue into the schedule */
	UNLINK,     /* and out of it, as it stands */
	CANCEL,     /* everything in the queue; the next descriptors take the same addresses again */
	DROP,       /* the first count that are not served */
	CUT,        /* what is behind that number */
	REMOVE,     /* that one alone */
	REPLACE,    /* that one by another descriptor for the same buffer */
	CHANGE,     /* that one, in place: flags say what */
	DEACTIVATE, /* that one */
	ACTIVATE,   /* that one, whatever became of it */
	RING,       /* the last one leads to the first */
	TEND,       /* go on after what failed or fell short, in every queue */
	ACK,        /* the interrupt */
	RESET,      /* the port */
	WAIT,       /* length milliseconds */
	ACTION_KINDS
};

/* APPEND */
#define F_IOC      0x01u /* on the last of them */
#define F_SPD      0x02u
#define F_BREADTH  0x04u /* not depth first */
#define F_TOGGLE   0x08u /* the first does not continue the toggle */
#define F_INACTIVE 0x10u /* the last of them */
#define F_ONE_TRY  0x20u /* C_ERR 1 */
#define F_DEAF     0x40u /* low speed: nobody hears it */
/* CONTROL */
#define F_IN        0x01u
#define F_NO_STATUS 0x02u
#define F_ODD_SETUP 0x04u /* seven bytes: no SETUP */
#define F_HALT      0x08u /* CLEAR_FEATURE(ENDPOINT_HALT) for endpoint */
#define F_CONFIGURE 0x10u /* SET_CONFIGURATION */
#define F_INTERFACE 0x20u /* SET_INTERFACE */
/* CHANGE */
enum change {
	CHANGE_BYTE,
	CHANGE_TOGGLE,
	CHANGE_LENGTH,
	CHANGE_POINTER,
	CHANGE_ENDPOINT,
	CHANGE_IOC,
	CHANGE_SPD,
	CHANGES
};

struct action {
	uint16_t step;
	uint8_t kind;
	uint8_t queue;
	uint8_t at;
	uint8_t count;
	uint8_t endpoint;
	uint8_t flags;
	uint16_t length;
	uint16_t data; /* what the bytes are made from */
};

#define MOST_ACTIONS 128u
#define LAST_STEP    40u

struct program {
	uint64_t seed; /* of the device's behaviour */
	struct bh_verification verification;
	/* the device */
	bool faults;  /* stalls, time-outs, babble */
	bool shorts;  /* short packets */
	bool gated;   /* some INs come only after so many OUT packets */
	uint8_t pace; /* 0: everything at once; 1: some time; 2: slow */
	/* the engine */
	bool wire_pace, withdrawn_fails;
	uint16_t linger_us;
	uint16_t batch_bytes; /* 0: default */
	uint16_t bytes;       /* 0: default */
	/* the driver */
	bool loop;     /* the last queue leads to the first */
	bool diligent; /* tends at every step */
	uint16_t count;
	struct action actions[MOST_ACTIONS];
};

/* --- making one ----------------------------------------------------------------------------------- */

static inline struct action *add_action(struct program *p, unsigned step, enum action_kind kind, unsigned queue)
{
	static struct action nowhere;
	struct action *a = p->count < MOST_ACTIONS ? &p->actions[p->count++] : &nowhere;

	*a = (struct action){
		.step = (uint16_t)step,
		.kind = (uint8_t)kind,
		.queue = (uint8_t)queue,
		.endpoint = (uint8_t)(queue_endpoint(queue) % ENDPOINTS),
	};
	return a;
}

static inline void add_append(struct program *p, struct dice *d, unsigned step, unsigned queue)
{
	struct action *a = add_action(p, step, APPEND, queue);
	uint32_t max;

	if (one_in(d, 25))
		a->endpoint = (uint8_t)roll(d, ENDPOINTS);
	max = endpoints[a->endpoint].max_packet;
	a->count = (uint8_t)(1 + roll(d, one_in(d, 2) ? 16 : 4));
	a->length = (uint16_t)(one_in(d, 7) ? roll(d, max + 1) : max);
	if (one_in(d, 80))
		a->length = (uint16_t)(max + 1);
	if (one_in(d, 25))
		a->length = 0;
	a->flags = (one_in(d, 3) ? F_IOC : 0) | (one_in(d, 3) ? F_SPD : 0) | (one_in(d, 4) ? F_BREADTH : 0) |
	           (one_in(d, 10) ? F_TOGGLE : 0) | (one_in(d, 12) ? F_INACTIVE : 0) |
	           (one_in(d, 10) ? F_ONE_TRY : 0) | (one_in(d, 100) ? F_DEAF : 0);
	a->data = (uint16_t)roll(d, 65536);
}

static inline void add_control(struct program *p, struct dice *d, unsigned step)
{
	struct action *a = add_action(p, step, CONTROL, CONTROL_QUEUE);
	unsigned kind = roll(d, 10);

	a->data = (uint16_t)roll(d, 65536);
	a->endpoint = (uint8_t)roll(d, ENDPOINTS);
	if (kind < 2)
		a->flags = F_HALT;
	else if (kind == 2)
		a->flags = one_in(d, 3) ? F_CONFIGURE : one_in(d, 2) ? F_INTERFACE : F_HALT;
	else
		a->flags = one_in(d, 2) ? F_IN : 0;
	if (kind > 2 && !one_in(d, 6)) {
		a->length = (uint16_t)roll(d, 41);
		a->count = (uint8_t)((a->length + CONTROL_MAX - 1) / CONTROL_MAX);
		if (one_in(d, 3))
			a->count = (uint8_t)(one_in(d, 2) ? 0 : roll(d, 7)); /* STATUS early, or too much data */
	}
	a->flags |= (one_in(d, 12) ? F_NO_STATUS : 0) | (one_in(d, 40) ? F_ODD_SETUP : 0);
}

/*
 * Address-only verification is fooled, by design, by a guest that has other data
 * sent from the same address. Programs for it do not change the bytes, token or
 * length of what is queued (nor, for BH_VERIFY_TD, the buffer pointer), and never use
 * an address twice: law_driver.h takes new ones after CANCEL. All else they do.
 */
static inline bool change_is_sound(const struct program *p, enum change what)
{
	if (what == CHANGE_IOC || what == CHANGE_SPD)
		return true;
	if (p->verification.what == BH_VERIFY_TD)
		return false;
	return p->verification.what != BH_VERIFY_BUFFER || what == CHANGE_POINTER;
}

static inline bool addresses_may_return(const struct program *p)
{
	return p->verification.what != BH_VERIFY_TD && p->verification.what != BH_VERIFY_BUFFER;
}

static inline void add_wait(struct program *p, struct dice *d, unsigned step)
{
	static const uint16_t times[] = {1, 1, 2, 4, 8, 35, 70};

	add_action(p, step, WAIT, 0)->length = one_in(d, 60) ? 1300 : times[roll(d, BH_COUNT(times))];
}

static inline void add_random(struct program *p, struct dice *d, unsigned step, const uint8_t *used, unsigned n)
{
	static const uint8_t kinds[] = {
		APPEND, APPEND, APPEND, APPEND, APPEND, APPEND, LINK, LINK, LINK, UNLINK, UNLINK, CANCEL, CANCEL,
		DROP, DROP, CUT, REMOVE, REPLACE, CHANGE, CHANGE, CHANGE, DEACTIVATE, ACTIVATE, RING, TEND, TEND, TEND,
		TEND, ACK, ACK, ACK, WAIT, WAIT, WAIT,
	};
	unsigned queue = used[roll(d, n)];
	enum action_kind kind = (enum action_kind)kinds[roll(d, BH_COUNT(kinds))];
	struct action *a;

	if (one_in(d, 60))
		kind = RESET;
	if (kind == APPEND && queue == CONTROL_QUEUE) {
		add_control(p, d, step);
		return;
	}
	if (kind == APPEND) {
		add_append(p, d, step, queue);
		return;
	}
	if (kind == WAIT) {
		add_wait(p, d, step);
		return;
	}
	if (kind == RING && !one_in(d, 2))
		return;
	a = add_action(p, step, kind, queue);
	a->at = (uint8_t)roll(d, one_in(d, 2) ? 3 : 8);
	a->count = (uint8_t)(1 + roll(d, 4));
	a->data = (uint16_t)roll(d, 65536);
	a->endpoint = (uint8_t)roll(d, ENDPOINTS);
	if (kind == CHANGE) {
		do
			a->flags = (uint8_t)(one_in(d, 2) ? CHANGE_BYTE : roll(d, CHANGES));
		while (!change_is_sound(p, (enum change)a->flags) && roll(d, 8));
		if (!change_is_sound(p, (enum change)a->flags))
			a->flags = CHANGE_IOC;
		a->length = (uint16_t)roll(d, endpoints[queue_endpoint(queue) % ENDPOINTS].max_packet + 1);
	}
}

/* A guest that takes its request back and soon gives the same, or another one. */
static inline unsigned add_relink(struct program *p, struct dice *d, unsigned step, unsigned queue)
{
	add_action(p, step, UNLINK, queue);
	if (one_in(d, 2))
		add_wait(p, d, step);
	step += roll(d, 3);
	switch (roll(d, 4)) {
	case 0:
		add_action(p, step, CANCEL, queue);
		if (queue == CONTROL_QUEUE)
			add_control(p, d, step);
		else
			add_append(p, d, step, queue);
		break;
	case 1:
		add_action(p, step, DROP, queue)->count = (uint8_t)(1 + roll(d, 4));
		break;
	case 2:
		if (change_is_sound(p, CHANGE_BYTE))
			add_action(p, step, CHANGE, queue)->at = (uint8_t)roll(d, 4);
		break;
	default:
		break;
	}
	add_action(p, step, LINK, queue);
	return step;
}


/* Stable, for the order within a step matters. */
static inline void sort_actions(struct program *p)
{
	for (unsigned i = 1; i < p->count; i++)
		for (unsigned j = i; j && p->actions[j - 1].step > p->actions[j].step; j--) {
			struct action a = p->actions[j];

			p->actions[j] = p->actions[j - 1];
			p->actions[j - 1] = a;
		}
}

static inline void choose_settings(struct program *p, struct dice *d)
{
	p->faults = !one_in(d, 3);
	p->shorts = !one_in(d, 4);
	p->gated = one_in(d, 4);
	p->pace = (uint8_t)(one_in(d, 8) ? 0 : 1 + roll(d, 2));
	p->linger_us = (uint16_t)(one_in(d, 10) ? 50000 : 1000 + roll(d, 8) * 500);
	p->wire_pace = one_in(d, 6);
	p->withdrawn_fails = one_in(d, 12);
	if (one_in(d, 6))
		p->batch_bytes = (uint16_t)(64 + roll(d, 500));
	if (one_in(d, 6))
		p->bytes = (uint16_t)(1 + roll(d, 4000));
	p->loop = one_in(d, 4);
	p->diligent = one_in(d, 2);
}

static inline struct program make_program(uint64_t seed, enum bh_verify what)
{
	struct dice d = dice_of(seed, 10 + what);
	struct program p = {.seed = seed, .verification = {what, (enum bh_verify_when)roll(&d, BH_VERIFY_WHEN_COUNT)}};
	unsigned n = 1 + roll(&d, 4), steps = 4 + roll(&d, LAST_STEP - 8), unquiet = 1 + roll(&d, 3);
	uint8_t used[4];

	choose_settings(&p, &d);
	for (unsigned i = 0; i < n; i++) {
		unsigned queue = used[i] = (uint8_t)roll(&d, QUEUES);

		if (queue == CONTROL_QUEUE)
			add_control(&p, &d, 0);
		else
			for (unsigned k = 1 + roll(&d, 3); k; k--)
				add_append(&p, &d, 0, queue);
		if (one_in(&d, 10))
			add_action(&p, 0, RING, queue);
	}
	for (unsigned step = 1; step < steps; step++) {
		for (unsigned k = one_in(&d, unquiet) ? 1 + roll(&d, 4) : 0; k; k--)
			add_random(&p, &d, step, used, n);
		if (one_in(&d, 6 * unquiet))
			add_relink(&p, &d, step, used[roll(&d, n)]);
	}
	sort_actions(&p);
	return p;
}

/* --- printing it ---------------------------------------------------------------------------------- */

static inline void print_flags(unsigned flags, const char *const *names, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (flags >> i & 1)
			fprintf(stderr, " %s", names[i]);
}

static inline void print_action(const struct action *a)
{
	static const char *const names[ACTION_KINDS] = {
		"append", "control", "link", "unlink", "cancel", "drop", "cut", "remove", "replace", "change",
		"deactivate", "activate", "ring", "tend", "ack", "reset port", "wait",
	};
	static const char *const append_flags[] = {
		"IOC", "SPD", "breadth", "toggle-break", "last-inactive", "one-try", "low-speed",
	};
	static const char *const control_flags[] = {
		"in", "no-status", "odd-setup", "clear-halt", "set-configuration", "set-interface",
	};
	static const char *const changes[] = {"byte", "toggle", "length", "pointer", "endpoint", "IOC", "SPD"};

	fprintf(stderr, "#   step %2u: %s", a->step, names[a->kind]);
	if (a->kind == WAIT) {
		fprintf(stderr, " %u ms\n", a->length);
		return;
	}
	if (a->kind < TEND)
		fprintf(stderr, " queue %u", a->queue);
	if (a->kind == APPEND) {
		fprintf(stderr, ": %u of %u bytes, endpoint %02x, data %u", a->count, a->length,
		        endpoints[a->endpoint].address, a->data);
		print_flags(a->flags, append_flags, BH_COUNT(append_flags));
	} else if (a->kind == CONTROL) {
		fprintf(stderr, ": %u bytes in %u packets, serial %u, endpoint %02x", a->length, a->count, a->data,
		        endpoints[a->endpoint].address);
		print_flags(a->flags, control_flags, BH_COUNT(control_flags));
	} else if (a->kind == DROP) {
		fprintf(stderr, ": %u", a->count);
	} else if (a->kind == CHANGE) {
		fprintf(stderr, ": number %u, %s (%u, %u, %02x)", a->at, changes[a->flags], a->length, a->data,
		        endpoints[a->endpoint].address);
	} else if (a->kind >= CUT && a->kind <= ACTIVATE) {
		fprintf(stderr, ": number %u", a->at);
	}
	fputc('\n', stderr);
}

static inline void print_program(const struct program *p)
{
	fprintf(stderr, "#   verify %s %s; device:%s%s%s pace %u; linger %u us%s%s%s%s; batch bytes %u, bytes %u\n",
	        bh_verify_name(p->verification.what), bh_verify_when_name(p->verification.when),
	        p->faults ? " faults" : "", p->shorts ? " shorts" : "", p->gated ? " gated" : "", p->pace, p->linger_us,
	        p->wire_pace ? ", pace=bus" : "", p->withdrawn_fails ? ", withdrawn=fail" : "", p->loop ? ", loop" : "",
	        p->diligent ? ", diligent" : "",
	        p->batch_bytes, p->bytes);
	for (unsigned i = 0; i < p->count; i++)
		print_action(&p->actions[i]);
}

#endif
