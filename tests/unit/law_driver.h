/*
 * The guest's driver: carries out a program's actions on guest memory and
 * registers. It decides by what it finds there, so it does the same in two runs that look
 * the same.
 *
 * Which of its acts let the engine differ is noted by endpoint: taking something out
 * of a queue (the device may be ahead, W, or have been read, K), changing it in place (F),
 * resetting.
 */
#ifndef TESTS_LAW_DRIVER_H
#define TESTS_LAW_DRIVER_H

#include <uhci/uhci.h>

#include "../../src/controller/uhci/internal.h"
#include "fake_guest.h"
#include "law_program.h"

#define SLOTS       40u /* descriptors of a queue, ever */
#define BUFFER_SIZE 72u

#define FRAME_LIST  0x10000u
#define ANCHOR      0x1fff0u /* a queue head that is always there, and always empty */
#define QH(q)       (0x20000u + 16u * (q))
#define TD(q, i)    (0x20100u + 16u * ((q) * SLOTS + (i)))
#define BUFFER(q, i) (0x22000u + BUFFER_SIZE * ((q) * SLOTS + (i)))
#define OTHER(q, i) (BUFFER(QUEUES, 0) + BUFFER_SIZE * ((q) * SLOTS + (i))) /* what CHANGE_POINTER points at */
#define GUEST_BEGIN ANCHOR
#define GUEST_END   OTHER(QUEUES, 0)
_Static_assert(TD(QUEUES, 0) <= BUFFER(0, 0), "descriptors end before the buffers");

struct queue {
	unsigned used; /* slots */
	bool toggle;
};

struct driver {
	const struct program *program;
	struct fake_guest *guest;
	struct bh_uhci *uhci;
	unsigned linked; /* queues: a bit each */
	struct queue queues[QUEUES];
};

/* When something was last done to an endpoint's descriptors. */
struct acts {
	uint32_t taken[ENDPOINTS], changed[ENDPOINTS], reset[ENDPOINTS], unlinked[ENDPOINTS];
	uint32_t seen[QUEUES]; /* endpoints that the queue ever had something for: a bit each */
};

static struct acts acts;

static inline void note_act(uint32_t *when, uint32_t mask)
{
	for (unsigned e = 0; e < ENDPOINTS; e++)
		if (mask >> e & 1)
			when[e] = moment_now();
}

/* --- registers ------------------------------------------------------------------------------------ */

static inline void driver_out(struct driver *v, unsigned offset, unsigned length, uint32_t value)
{
	bh_le32 raw = bh_put_le32(value);

	bh_pci_bar_write(bh_uhci_pci(v->uhci), UHCI_BAR, offset, raw.b, length);
}

static inline void reset_port(struct driver *v)
{
	note_act(acts.reset, ~0u);
	driver_out(v, PORTSC, 2, PORTSC_PR);
	driver_out(v, PORTSC, 2, 0);
	driver_out(v, PORTSC, 2, PORTSC_PE | PORTSC_CSC | PORTSC_PEC);
}

/* --- queues --------------------------------------------------------------------------------------- */

static inline void put(struct driver *v, uint32_t address, uint32_t value)
{
	fake_put32(v->guest, address, value);
}

static inline uint32_t get(const struct driver *v, uint32_t address)
{
	return fake_get32(v->guest, address);
}

static inline void link_queues(struct driver *v)
{
	uint32_t link = LINK_T, first = 0;

	for (unsigned q = QUEUES; q-- > 0;)
		if (v->linked >> q & 1)
			first = QH(q) | LINK_Q;
	if (v->program->loop && first)
		link = first;
	for (unsigned q = QUEUES; q-- > 0;)
		if (v->linked >> q & 1) {
			put(v, QH(q), link);
			link = QH(q) | LINK_Q;
		}
	put(v, ANCHOR, link);
}

/* Where the link to the nth descriptor that is not served stands; 0: there are not so many. */
static inline uint32_t link_to(const struct driver *v, unsigned q, unsigned n)
{
	uint32_t place = QH(q) + 4;

	for (;; n--) {
		uint32_t link = get(v, place);

		if (link & LINK_T)
			return 0;
		if (n == 0)
			return place;
		place = link & LINK_ADDRESS;
	}
}

static inline uint32_t find(const struct driver *v, unsigned q, unsigned n)
{
	uint32_t place = link_to(v, q, n);

	return place ? get(v, place) & LINK_ADDRESS : 0;
}

/* Where the link that ends the queue stands; 0: it goes round. */
static inline uint32_t end_link(const struct driver *v, unsigned q)
{
	uint32_t place = QH(q) + 4, link = get(v, place);

	for (unsigned i = 0; i <= SLOTS; i++) {
		if (link & LINK_T)
			return place;
		place = link & LINK_ADDRESS;
		link = get(v, place);
	}
	return 0;
}

static inline unsigned slot_of(unsigned q, uint32_t td)
{
	return (td - TD(q, 0)) / 16;
}

static inline void fill(struct driver *v, uint32_t address, uint32_t length, uint64_t what, uint64_t i)
{
	for (uint32_t k = 0; k < length; k += 8) {
		uint64_t word = mix(v->program->seed, what, i * 16 + k / 8);

		memcpy(v->guest->memory + address + k, &word, BH_MIN(8u, length - k));
	}
}

/* A new descriptor at the end of the queue. 0: there is no room. */
static inline uint32_t append(struct driver *v, unsigned q, uint32_t control, uint32_t token, uint32_t link_flags)
{
	uint32_t td = TD(q, v->queues[q].used), place = end_link(v, q);
	unsigned i = v->queues[q].used;

	if (i == SLOTS || !place)
		return 0;
	v->queues[q].used++;
	put(v, td, LINK_T | link_flags);
	put(v, td + 8, token);
	put(v, td + 12, BUFFER(q, i));
	put(v, td + 4, control);
	put(v, place, td | (get(v, place) & LINK_VF));
	return td;
}

static inline uint32_t make_token(enum bh_pid pid, unsigned endpoint, bool toggle, uint32_t length)
{
	return (uint32_t)pid | endpoint << 15 | (uint32_t)toggle << 19 | ((length - 1) & TD_NO_BYTES) << 21;
}

static inline bool token_is_in(uint32_t token)
{
	return TD_TOKEN_PID(token) == BH_PID_IN;
}

/* --- actions -------------------------------------------------------------------------------------- */

static inline void do_append(struct driver *v, const struct action *a)
{
	struct queue *queue = &v->queues[a->queue];
	uint8_t address = endpoints[a->endpoint].address;
	bool in = address & BH_ENDPOINT_IN;

	acts.seen[a->queue] |= 1u << a->endpoint;
	for (unsigned n = 0; n < a->count; n++) {
		bool last = n + 1 == a->count;
		uint32_t control = a->flags & F_ONE_TRY ? TD_CERR_ONE : TD_CERR, td;

		control |= (last && (a->flags & F_IOC) ? TD_IOC : 0) | (a->flags & F_SPD ? TD_SPD : 0) |
		           (a->flags & F_DEAF ? TD_LS : 0) | (last && (a->flags & F_INACTIVE) ? 0 : TD_ACTIVE);
		queue->toggle ^= !(n == 0 && (a->flags & F_TOGGLE));
		td = append(v, a->queue, control,
		            make_token(in ? BH_PID_IN : BH_PID_OUT, address & 15, queue->toggle, a->length),
		            a->flags & F_BREADTH ? 0 : LINK_VF);
		if (!td)
			return;
		fill(v, BUFFER(a->queue, slot_of(a->queue, td)), BUFFER_SIZE, in ? 1 : 2 + a->data, in ? 0 : n);
		fill(v, OTHER(a->queue, slot_of(a->queue, td)), BUFFER_SIZE, in ? 1 : 3 + a->data, in ? 0 : n + 50);
	}
}

static inline struct bh_setup setup_of(const struct action *a)
{
	uint8_t address = endpoints[a->endpoint].address;

	if (a->flags & F_HALT)
		return (struct bh_setup){0x02, 1, bh_put_le16(0), bh_put_le16(address), bh_put_le16(0)};
	if (a->flags & F_CONFIGURE)
		return (struct bh_setup){0x00, 9, bh_put_le16(1), bh_put_le16(0), bh_put_le16(0)};
	if (a->flags & F_INTERFACE)
		return (struct bh_setup){0x01, 11, bh_put_le16(0), bh_put_le16(0), bh_put_le16(0)};
	return (struct bh_setup){a->flags & F_IN ? 0xc0 : 0x40, 1, bh_put_le16(a->data), bh_put_le16(0),
	                         bh_put_le16(a->length)};
}

static inline void do_control(struct driver *v, const struct action *a)
{
	const uint32_t control = TD_ACTIVE | TD_CERR;
	struct bh_setup setup = setup_of(a);
	bool in = a->length && (setup.bmRequestType & BH_ENDPOINT_IN);
	uint32_t left = a->length, td;

	if (v->queues[a->queue].used + a->count + 2u > SLOTS)
		return;
	td = append(v, a->queue, control,
	            make_token(BH_PID_SETUP, 0, false, a->flags & F_ODD_SETUP ? 7 : 8), LINK_VF);
	if (!td)
		return;
	memcpy(v->guest->memory + BUFFER(a->queue, slot_of(a->queue, td)), &setup, sizeof(setup));
	for (unsigned n = 0; n < a->count && a->length; n++) {
		uint32_t packet = left ? BH_MIN(left, CONTROL_MAX) : CONTROL_MAX;

		td = append(v, a->queue, control | TD_SPD,
		            make_token(in ? BH_PID_IN : BH_PID_OUT, 0, !(n & 1), packet), LINK_VF);
		if (!td)
			return;
		fill(v, BUFFER(a->queue, slot_of(a->queue, td)), BUFFER_SIZE, in ? 1 : 7 + a->data, in ? 0 : n);
		left -= BH_MIN(left, packet);
	}
	if (!(a->flags & F_NO_STATUS))
		append(v, a->queue, control | TD_IOC, make_token(in ? BH_PID_OUT : BH_PID_IN, 0, true, 0), 0);
}

/* Also what a driver does that sees its last request fail: it takes all of it out. */
static inline void do_cancel(struct driver *v, unsigned q)
{
	put(v, QH(q) + 4, LINK_T);
	if (addresses_may_return(v->program)) {
		v->queues[q].used = 0;
		note_act(acts.changed, acts.seen[q]);
	}
}

static inline void do_replace(struct driver *v, unsigned q, uint32_t place, uint32_t td)
{
	uint32_t other = TD(q, v->queues[q].used);

	if (v->queues[q].used == SLOTS)
		return;
	v->queues[q].used++;
	memcpy(v->guest->memory + other, v->guest->memory + td, 16);
	put(v, place, other | (get(v, place) & LINK_VF));
}

static inline void do_change(struct driver *v, const struct action *a, uint32_t td)
{
	uint32_t token = get(v, td + 8), control = get(v, td + 4), address;
	uint8_t endpoint = endpoints[a->endpoint].address;

	if (!(control & TD_ACTIVE) || TD_TOKEN_PID(token) == BH_PID_SETUP)
		return;
	note_act(acts.changed, acts.seen[a->queue]);
	switch ((enum change)a->flags) {
	case CHANGE_BYTE:
		address = get(v, td + 12);
		v->guest->memory[address + a->data % BH_MAX(1u, (TD_TOKEN_MAXLEN(token) + 1) & TD_NO_BYTES)] ^= 0x55;
		return;
	case CHANGE_TOGGLE:
		put(v, td + 8, token ^ 1u << 19);
		return;
	case CHANGE_LENGTH:
		put(v, td + 8, (token & 0x1fffffu) | ((a->length - 1) & TD_NO_BYTES) << 21);
		return;
	case CHANGE_POINTER:
		put(v, td + 12, OTHER(a->queue, slot_of(a->queue, td)));
		return;
	case CHANGE_ENDPOINT: /* for one endpoint that is a withdrawal */
		if (a->queue == CONTROL_QUEUE || token_is_in(token) != !!(endpoint & BH_ENDPOINT_IN))
			return;
		note_act(acts.taken, acts.seen[a->queue]);
		acts.seen[a->queue] |= 1u << a->endpoint;
		put(v, td + 8, (token & ~(0xfu << 15)) | (endpoint & 15u) << 15);
		return;
	case CHANGE_IOC:
		put(v, td + 4, control ^ TD_IOC);
		return;
	case CHANGE_SPD:
		put(v, td + 4, control ^ TD_SPD);
		return;
	case CHANGES:
		break;
	}
}

/* False: nothing to be done. */
static inline bool do_tend(struct driver *v)
{
	bool any = false;

	for (unsigned q = 0; q < QUEUES; q++) {
		uint32_t td = find(v, q, 0);

		if (!td || (get(v, td + 4) & TD_ACTIVE))
			continue;
		put(v, QH(q) + 4, get(v, td));
		any = true;
	}
	return any;
}

/* Actions on descriptor number at of what is not served. */
static inline void do_to_one(struct driver *v, const struct action *a)
{
	unsigned q = a->queue;
	uint32_t place = link_to(v, q, a->at), td = place ? get(v, place) & LINK_ADDRESS : 0;

	if (!td)
		return;
	if (a->kind != CHANGE && a->kind != ACTIVATE)
		note_act(acts.taken, acts.seen[q]);
	switch (a->kind) {
	case CUT:
		put(v, td, get(v, td) | LINK_T);
		break;
	case REMOVE:
		put(v, place, (get(v, td) & ~LINK_VF) | (get(v, place) & LINK_VF));
		break;
	case REPLACE:
		do_replace(v, q, place, td);
		break;
	case CHANGE:
		do_change(v, a, td);
		break;
	case DEACTIVATE:
		put(v, td + 4, get(v, td + 4) & ~TD_ACTIVE);
		break;
	case ACTIVATE:
		put(v, td + 4, (get(v, td + 4) & ~TD_STATUS) | TD_ACTIVE | TD_CERR);
		break;
	case RING:
		place = end_link(v, q);
		if (place && place != QH(q) + 4)
			put(v, place, td | (get(v, place) & LINK_VF));
		break;
	}
}

static inline void act(struct driver *v, const struct action *a)
{
	unsigned q = a->queue;
	uint32_t place;

	switch ((enum action_kind)a->kind) {
	case APPEND:
		do_append(v, a);
		return;
	case CONTROL:
		do_control(v, a);
		return;
	case LINK:
	case UNLINK:
		if ((a->kind == LINK) == (v->linked >> q & 1))
			return;
		note_act(acts.taken, acts.seen[q]);
		v->linked = a->kind == LINK ? v->linked | 1u << q : v->linked & ~(1u << q);
		link_queues(v);
		return;
	case CANCEL:
		note_act(acts.taken, acts.seen[q]);
		do_cancel(v, q);
		return;
	case DROP:
		note_act(acts.taken, acts.seen[q]);
		place = link_to(v, q, a->count);
		put(v, QH(q) + 4, place ? get(v, place) : LINK_T);
		return;
	case TEND:
		do_tend(v);
		return;
	case ACK:
		driver_out(v, USBSTS, 2, USBSTS_USBINT | USBSTS_ERROR);
		return;
	case RESET:
		reset_port(v);
		return;
	default:
		do_to_one(v, a);
		return;
	case WAIT: /* by the runs */
	case ACTION_KINDS:
		return;
	}
}

static inline void driver_init(struct driver *v, const struct program *p, struct fake_guest *g, struct bh_uhci *u)
{
	*v = (struct driver){.program = p, .guest = g, .uhci = u, .linked = (1u << QUEUES) - 1};
	memset(g->memory + GUEST_BEGIN, 0, GUEST_END - GUEST_BEGIN);
	for (unsigned i = 0; i < FRAME_LIST_SIZE; i++)
		put(v, FRAME_LIST + 4 * i, ANCHOR | LINK_Q);
	put(v, ANCHOR + 4, LINK_T);
	for (unsigned q = 0; q < QUEUES; q++)
		put(v, QH(q) + 4, LINK_T);
	link_queues(v);
}

#endif
