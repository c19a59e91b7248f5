/*
 * Transfer descriptors (UHCI 1.1, 3.2): fetching, offering to the bus, writing
 * back. This is the controller's side of the source seam.
 */
#include "internal.h"

#include <string.h>

#include <base/bytes.h>
#include <base/util.h>
#include <guest/trace.h>

/* As it lies in guest memory (3.2). */
struct td_memory {
	bh_le32 link, control, token, buffer;
};
_Static_assert(sizeof(struct td_memory) == 16, "four words");

/* Byte times of a bulk transaction besides its data (USB 2.0, 5.8.4). */
#define TRANSACTION_OVERHEAD 13

static struct bh_uhci *of_source(struct bh_source *s)
{
	return bh_container_of(s, struct bh_uhci, source);
}

BH_COLD bool uhci_td_fetch_far(struct bh_memory *m, uint32_t address, struct td *ret_td)
{
	struct td_memory raw;

	if (!bh_memory_load32(m, address + TD_CONTROL, &ret_td->control) ||
	    !bh_memory_read(m, address, &raw, sizeof(raw)))
		return false;
	ret_td->link = bh_get_le32(raw.link);
	ret_td->token = bh_get_le32(raw.token);
	ret_td->buffer = bh_get_le32(raw.buffer);
	return true;
}

static struct bh_token token_of(const struct td *td)
{
	return (struct bh_token){
		.pid = (enum bh_pid)TD_TOKEN_PID(td->token),
		.address = (uint8_t)TD_TOKEN_ADDRESS(td->token),
		.endpoint = (uint8_t)TD_TOKEN_ENDPOINT(td->token),
		.low_speed = td->control & TD_LS,
	};
}

/* The next descriptor usually goes where the last one went: what that means was worked out then. */
static BH_COLD bool new_route(struct bh_uhci *u, const struct td *td)
{
	struct bh_token token = token_of(td);

	if (token.pid != BH_PID_IN && token.pid != BH_PID_OUT && token.pid != BH_PID_SETUP)
		return false;
	u->route = (struct route){
		.words = {td->token & ROUTE_TOKEN, td->control & TD_LS},
		.token = token,
		.destination = bh_token_destination(&token),
	};
	return true;
}

/* Makes u->route that of the descriptor. False: its token makes no sense. */
static inline bool find_route(struct bh_uhci *u, const struct td *td)
{
	uint32_t maxlen = TD_TOKEN_MAXLEN(td->token);

	if (((td->token ^ u->route.words[0]) & ROUTE_TOKEN) | ((td->control ^ u->route.words[1]) & TD_LS))
		if (!new_route(u, td))
			return false;
	return maxlen <= TD_MAXLEN_LIMIT || maxlen == TD_NO_BYTES;
}

static inline void describe(const struct td *td, const struct route *route, uint64_t chain, struct bh_descriptor *ret)
{
	ret->id = td->address;
	ret->chain = chain;
	ret->destination = route->destination;
	ret->buffer = td->buffer;
	ret->token = td->token;
	ret->length = (TD_TOKEN_MAXLEN(td->token) + 1) & TD_NO_BYTES;
	ret->in = route->token.pid == BH_PID_IN;
	ret->toggle = TD_TOKEN_TOGGLE(td->token);
	ret->notify = td->control & TD_IOC;
	ret->stop_on_short = td->control & TD_SPD;
}

bool uhci_td_route(struct bh_uhci *u, const struct td *td)
{
	return find_route(u, td);
}

void uhci_td_describe(const struct td *td, const struct route *route, uint64_t chain, struct bh_descriptor *ret)
{
	describe(td, route, chain, ret);
}

/* A queue's name is its head; a descriptor that hangs in the frame list is a queue of its own. */
static uint64_t chain_of(const struct td *td, uint32_t qh)
{
	return qh ? qh : td->address | (uint64_t)1 << 32;
}

/* --- the source seam ------------------------------------------------------------------ */

static enum bh_found fetch_descriptor(struct bh_uhci *u, uint32_t address, uint64_t chain,
                                      struct bh_descriptor *ret_descriptor)
{
	struct td td;
	enum bh_found found = uhci_td_fetch(u, address, &td);

	/* Looking ahead takes time like any other look: this slice will be over sooner. */
	u->budget -= u->budget > 0;
	if (found != BH_FOUND)
		return found;
	if (!find_route(u, &td) || (td.control & TD_IOS))
		return BH_FOUND_INVALID;
	u->scanned_td = td.address;
	u->scanned_link = td.link;
	/* Pools hand descriptors out in any order: the next one is on its way while this one is copied. */
	__builtin_prefetch(bh_memory_near(&u->guest->memory, td.link & LINK_ADDRESS, 16));
	describe(&td, &u->route, chain, ret_descriptor);
	return BH_FOUND;
}

static enum bh_found source_next(struct bh_source *s, const struct bh_descriptor *after,
                                 struct bh_descriptor *ret_next)
{
	struct bh_uhci *u = of_source(s);
	uint32_t link = u->scanned_link;

	if (after->chain & BH_FRAME_CHAIN)
		return uhci_isochronous_next(u, after, ret_next);
	if (after->chain >> 32)
		return BH_FOUND_SUBLIST; /* in no queue */
	if (u->scanned_td != after->id && !bh_memory_load32(&u->guest->memory, after->id, &link))
		return BH_FOUND_UNREADABLE;
	if (link & (LINK_T | LINK_Q))
		return BH_FOUND_SUBLIST;
	return fetch_descriptor(u, link & LINK_ADDRESS, after->chain, ret_next);
}

/* Of most packets. Knowing the length, the compiler moves and compares them without a call. */
#define FULL_PACKET 64u

static bool source_read(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, void *to,
                        uint32_t length)
{
	struct bh_memory *m = &of_source(s)->guest->memory;

	return length == FULL_PACKET ? bh_memory_read(m, d->buffer + offset, to, FULL_PACKET)
	                             : bh_memory_read(m, d->buffer + offset, to, length);
}

static bool source_write(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, const void *from,
                         uint32_t length)
{
	struct bh_memory *m = &of_source(s)->guest->memory;

	return length == FULL_PACKET ? bh_memory_write(m, d->buffer + offset, from, FULL_PACKET)
	                             : bh_memory_write(m, d->buffer + offset, from, length);
}

/* Whole, without a branch for each word: they are equal nearly always. */
static inline bool full_packets_equal(const uint8_t *a, const uint8_t *b)
{
	uint64_t differ = 0;

	for (unsigned i = 0; i < FULL_PACKET; i += sizeof(uint64_t)) {
		uint64_t x, y;

		memcpy(&x, a + i, sizeof(x));
		memcpy(&y, b + i, sizeof(y));
		differ |= x ^ y;
	}
	return differ == 0;
}

static bool source_equal(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, const void *bytes,
                         uint32_t length)
{
	struct bh_memory *m = &of_source(s)->guest->memory;
	const uint8_t *host = length == FULL_PACKET ? bh_memory_near(m, d->buffer + offset, FULL_PACKET) : NULL;

	return host ? full_packets_equal(host, bytes) : bh_memory_equal(m, d->buffer + offset, bytes, length);
}

static uint64_t source_watch(struct bh_source *s, const struct bh_descriptor *d)
{
	return bh_memory_watch(&of_source(s)->guest->memory, d->buffer, d->length);
}

static bool source_written(struct bh_source *s, const struct bh_descriptor *d, uint64_t since)
{
	return bh_memory_written(&of_source(s)->guest->memory, d->buffer, d->length, since);
}

static bool source_can_watch(struct bh_source *s)
{
	return bh_memory_traced(&of_source(s)->guest->memory);
}

static void source_ready(struct bh_source *s)
{
	uhci_kick(of_source(s));
}

/* --- writing back ------------------------------------------------------------------------ */

/*
 * The new control word for a failure (3.2.2). A lost packet counts down C_ERR and
 * is tried again; at zero, as after a stall or babble, the descriptor stops.
 */
static BH_COLD uint32_t control_after_failure(uint32_t control, enum bh_status status, enum td_result *ret_result)
{
	*ret_result = TD_STOPPED;
	if (status == BH_STALL)
		return (control & ~TD_ACTIVE) | TD_STALLED;
	if (status == BH_BABBLE)
		return (control & ~TD_ACTIVE) | TD_STALLED | TD_BABBLE;
	control |= TD_CRC_TIMEOUT;
	if (control & TD_IOS)
		return control & ~TD_ACTIVE; /* tried once, whatever comes of it */
	if ((control & TD_CERR) == TD_CERR_ONE)
		return (control & ~(TD_ACTIVE | TD_CERR)) | TD_STALLED;
	*ret_result = TD_RETRY;
	return control & TD_CERR ? control - TD_CERR_ONE : control;
}

static bool is_short(const struct td *td, uint32_t actual)
{
	return TD_TOKEN_PID(td->token) == BH_PID_IN && actual < ((TD_TOKEN_MAXLEN(td->token) + 1) & TD_NO_BYTES);
}

/* What the guest is to be told when this slice of the schedule ends. */
static void note_causes(struct bh_uhci *u, const struct execution *x, bool failed, bool short_stop)
{
	if (failed)
		u->pending |= USBSTS_ERROR;
	if ((x->td->control & TD_IOC) && (x->td->control & TD_IOS)) {
		u->frame_ioc = true;
	} else if (x->td->control & TD_IOC) {
		u->pending |= USBSTS_USBINT;
		u->cause_ioc = true;
	}
	if (short_stop) {
		u->pending |= USBSTS_USBINT;
		u->cause_short = true;
	}
}

/*
 * Order: data (already written), status, then the queue's element pointer, which the
 * walk writes when it leaves the queue; USBSTS at the end of the slice.
 */
static bool source_retire(struct bh_source *s, const struct bh_descriptor *d, uint32_t actual, enum bh_status status)
{
	struct bh_uhci *u = of_source(s);
	struct execution *x = &u->current;
	uint32_t expected = x->td->control, control;
	enum td_result result;
	bool done, short_stop;

	(void)d; /* it is the one being executed */
	control = (expected & ~(TD_STATUS | TD_ACTLEN)) | ((actual - 1) & TD_ACTLEN);
	if (status == BH_SUCCESS) {
		result = TD_COMPLETED;
		control &= ~TD_ACTIVE;
	} else {
		control = control_after_failure(control, status, &result);
	}
	short_stop = result == TD_COMPLETED && x->qh && (x->td->control & TD_SPD) && is_short(x->td, actual);
	if (!bh_memory_exchange32(&u->guest->memory, x->td->address + TD_CONTROL, &expected, control, &done) || !done)
		return false;
	u->bus_time -= (int32_t)actual + TRANSACTION_OVERHEAD;
	x->result = short_stop ? TD_STOPPED : result;
	if (result == TD_RETRY)
		return true;
	u->counters.completed++;
	note_causes(u, x, status != BH_SUCCESS, short_stop);
	return true;
}

const struct bh_source_ops uhci_source_ops = {
	.next = source_next,
	.read = source_read,
	.write = source_write,
	.equal = source_equal,
	.watch = source_watch,
	.written = source_written,
	.can_watch = source_can_watch,
	.retire = source_retire,
	.ready = source_ready,
};

/* --- executing ----------------------------------------------------------------------------- */

/* Is there bus time left in this frame for the packet, where we keep to it? */
static bool fits_frame(const struct bh_uhci *u, uint32_t length)
{
	return !u->config.pace || u->bus_time >= (int32_t)length + TRANSACTION_OVERHEAD;
}

/* One that asks for an interrupt gets it (Linux counts on it), once a frame. */
static BH_COLD enum td_result meet_inactive(struct bh_uhci *u, const struct td *td)
{
	if ((td->control & TD_IOC) && u->first_walk) {
		u->pending |= USBSTS_USBINT;
		u->cause_ioc = true;
	}
	return TD_WAITS;
}

/*
 * An active or inactive descriptor is met. Where it does not make sense the
 * controller halts (2.1.2, process error); where memory is not there, too (host
 * system error).
 */
enum td_result uhci_td_execute(struct bh_uhci *u, const struct td *td, uint32_t qh)
{
	struct bh_token token;
	struct bh_descriptor d;
	enum bh_answer answer;

	if (!(td->control & TD_ACTIVE))
		return meet_inactive(u, td);
	if (!find_route(u, td)) {
		uhci_process_error(u);
		return TD_FATAL;
	}
	u->current = (struct execution){.td = td, .qh = qh, .result = TD_WAITS};
	if (td->control & TD_IOS)
		return uhci_isochronous_execute(u);
	token = u->route.token; /* SCAN may find another route */
	describe(td, &u->route, chain_of(td, qh), &d);
	if (!fits_frame(u, d.length)) {
		u->active_frame = u->frames_run;
		bh_bus_seen(&u->bus, &token, &d);
		return TD_WAITS;
	}
	u->scanned_td = td->address;
	u->scanned_link = td->link;
	answer = bh_bus_offer(&u->bus, &token, &d);
	if (answer == BH_ANSWER_FAULT) {
		uhci_bus_error(u);
		return TD_FATAL;
	}
	return u->current.result;
}
