/*
 * The control pipe of the oracle: packet by packet, from chapter 8.5.3 of USB 2.0,
 * with none of the code under test. OUT data is accepted before the device has
 * looked at it, and its failure shows at STATUS: difference C. What was accepted is
 * counted, and what the device got of it (or never did, because the guest gave up)
 * has to add up.
 *
 * A request that was cancelled by an early STATUS ended well, with what had moved by
 * then: when the device would have looked at it, nobody can tell. A request that is
 * cancelled for a SETUP is gone also where the guest then takes the SETUP back.
 */
#ifndef TESTS_LAW_CONTROL_H
#define TESTS_LAW_CONTROL_H

#include "law_device.h"

struct reference {
	const struct program *program;
	struct bh_setup setup; /* the last one accepted */
	bool open;             /* the request is not over */
	bool started;          /* an IN token, or STATUS, has come: no more OUT data is taken */
	bool executed;         /* the device got it */
	bool owed;             /* the guest was told so, or all that there is to send */
	bool doomed;           /* being cancelled for a SETUP */
	bool cancelled;
	uint32_t cancelled_at;
	bool ended_short;
	uint32_t moved; /* bytes taken from, or given to, the guest */
	uint8_t data[256];
	uint64_t accepted;  /* OUT bytes, of all requests: C */
	uint64_t delivered; /* of those, what the device got */
	uint64_t abandoned; /* and what it did not, for the guest gave up */
};

struct reply {
	enum bh_status status;
	uint32_t actual;
};

static inline bool reference_is_in(const struct reference *r)
{
	return bh_get_le16(r->setup.wLength) && (r->setup.bmRequestType & BH_ENDPOINT_IN);
}

static inline enum bh_status reference_status(const struct reference *r, uint32_t *ret_actual)
{
	if (r->cancelled) {
		*ret_actual = r->cancelled_at;
		return BH_SUCCESS;
	}
	return request_status(r->program, &r->setup, ret_actual);
}

/* The request is over, as far as the guest is concerned. */
static inline void reference_close(struct reference *r)
{
	if (r->open && !r->executed && !r->owed && !reference_is_in(r))
		r->abandoned += r->moved;
	r->open = false;
}

static inline struct reply reference_setup(struct reference *r, const uint8_t *bytes, uint32_t length)
{
	struct reference next = {.program = r->program, .open = true};

	if (length != sizeof(next.setup))
		return (struct reply){BH_NO_RESPONSE, 0};
	reference_close(r);
	next.accepted = r->accepted;
	next.delivered = r->delivered;
	next.abandoned = r->abandoned;
	memcpy(&next.setup, bytes, sizeof(next.setup));
	*r = next;
	return (struct reply){BH_SUCCESS, length};
}

static inline struct reply reference_data_in(struct reference *r, uint8_t *to, uint32_t length)
{
	uint32_t actual, packet;
	enum bh_status status = reference_status(r, &actual);

	r->started = true;
	r->owed = !r->executed;
	packet = BH_MIN(CONTROL_MAX, actual - r->moved);
	if (packet == 0 && status != BH_SUCCESS) {
		r->open = false;
		return (struct reply){status, 0};
	}
	if (packet == 0 && r->moved == bh_get_le16(r->setup.wLength))
		return (struct reply){BH_STALL, 0};
	if (r->ended_short)
		return (struct reply){BH_SUCCESS, 0};
	if (packet > length)
		return (struct reply){BH_BABBLE, 0};
	for (uint32_t i = 0; i < packet; i++)
		to[i] = request_byte(r->program, &r->setup, r->moved + i);
	r->moved += packet;
	r->ended_short = packet < CONTROL_MAX;
	return (struct reply){BH_SUCCESS, packet};
}

static inline struct reply reference_end(struct reference *r, uint32_t length)
{
	uint32_t actual;
	enum bh_status status = reference_status(r, &actual);

	r->owed = !r->executed;
	reference_close(r);
	return (struct reply){status, status == BH_SUCCESS ? length : 0};
}

static inline struct reply reference_data_out(struct reference *r, const uint8_t *from, uint32_t length)
{
	if (length > CONTROL_MAX)
		return (struct reply){BH_NO_RESPONSE, 0};
	if (length > bh_get_le16(r->setup.wLength) - r->moved) {
		reference_close(r);
		return (struct reply){BH_STALL, 0};
	}
	memcpy(r->data + r->moved, from, length);
	r->moved += length;
	r->accepted += length;
	r->owed = r->moved == bh_get_le16(r->setup.wLength); /* it has all there is: no need to wait for STATUS */
	return (struct reply){BH_SUCCESS, length};
}

/* A packet to endpoint 0 that is not answered "busy". */
static inline struct reply reference_offer(struct reference *r, enum bh_pid pid, uint8_t *bytes, uint32_t length)
{
	if (pid == BH_PID_SETUP)
		return reference_setup(r, bytes, length);
	if (r->open && pid == BH_PID_IN)
		return reference_is_in(r) ? reference_data_in(r, bytes, length) : reference_end(r, 0);
	if (r->open && reference_is_in(r))
		return reference_end(r, length);
	if (r->open && pid == BH_PID_OUT && !r->started && r->moved < bh_get_le16(r->setup.wLength))
		return reference_data_out(r, bytes, length);
	return (struct reply){BH_STALL, 0};
}

/* One that is. */
static inline void reference_busy(struct reference *r, enum bh_pid pid)
{
	if (pid == BH_PID_SETUP)
		r->doomed = true;
	else if (pid == BH_PID_IN || reference_is_in(r))
		r->started = true;
	if (pid == BH_PID_OUT && reference_is_in(r))
		r->doomed = false; /* the SETUP was taken back, and this is STATUS */
}

/* Would the device say NAK for ever? Not to SETUP, nor to STATUS of what it has data for. */
static inline bool reference_hangs(const struct reference *r, enum bh_pid pid)
{
	return r->open && request_hangs(r->program, &r->setup) && pid != BH_PID_SETUP &&
	       !(pid == BH_PID_OUT && reference_is_in(r));
}

/* The request's transfer is over, after actual bytes. */
static inline void reference_ended(struct reference *r, bool cancelled, uint32_t actual)
{
	if (r->doomed) {
		reference_close(r);
	} else if (cancelled) {
		r->cancelled = r->open;
		r->cancelled_at = actual;
	}
}

/* The device got a request. False: not this one. */
static inline bool reference_executed(struct reference *r, const struct bh_setup *setup, const uint8_t *data,
                                      uint32_t length)
{
	bool in = reference_is_in(r);

	if (r->executed || memcmp(setup, &r->setup, sizeof(*setup)))
		return false;
	if (!in && (length != r->moved || memcmp(data, r->data, length)))
		return false;
	r->executed = true;
	r->owed = false;
	r->delivered += in ? 0 : length;
	return true;
}

static inline void reference_reset(struct reference *r)
{
	reference_close(r);
}

#endif
