/*
 * The device, for both runs. What it does is decided by the seed, the endpoint and
 * the number of the packet alone; when, in the run with batches, by dice.
 *
 * In the run with batches it keeps, by endpoint, the packets that went by and of
 * which the guest has not been told yet (pending). In the oracle every transfer is one
 * packet and ends within submit.
 */
#ifndef TESTS_LAW_DEVICE_H
#define TESTS_LAW_DEVICE_H

#include <assert.h>

#include "../../src/usb/internal.h"
#include "law_program.h"

#define LARGEST_PACKET 64u

struct packet {
	uint64_t number;
	enum bh_status status;
	bool halted; /* STALL because of an earlier one: it has no number */
	uint64_t id;    /* OUT: of the descriptor it was copied from, */
	uint32_t token; /* and this was in it */
	bool cut;    /* the guest took it out of the list, the engine says, and left others before it */
	uint8_t length;
	uint32_t issued_at;
	uint8_t data[LARGEST_PACKET]; /* OUT */
};

/* Packets that an OUT endpoint took, in order: of each its length and its bytes. */
struct stream {
	uint8_t *bytes;
	size_t length, capacity;
};

struct pipe {
	struct bh_transfer *transfer;
	uint32_t moved;
	unsigned index; /* of the next packet in the transfer */
	bool cancelled, frozen;
	uint32_t issued_at;
	uint64_t answered_frame; /* interrupt, with batches; 0: none yet */
	uint64_t number; /* of the next packet */
	uint64_t taken;  /* OUT */
	bool halted;
	struct stream stream;
	struct packet *pending;
	unsigned pending_count, pending_capacity;
};

struct law_device {
	struct bh_device device;
	const struct program *program;
	bool oracle;
	bool free; /* oracle: it may hold what comes too early for it */
	struct dice dice;
	struct pipe pipes[ENDPOINTS];
	struct bh_transfer *control;
	uint32_t control_moved;
	bool control_cancelled;
};

/* What the runs have to know of (law_runs.h). */
static void device_lost(struct law_device *v, unsigned e, bool was_reset);
static void device_requested(struct law_device *v, const struct bh_transfer *t);
static void device_request_ends(struct law_device *v, bool cancelled, uint32_t moved);
static void device_ends(struct law_device *v, unsigned e);
static void device_ended(struct law_device *v, unsigned e);
static void device_takes(unsigned e, unsigned index, struct packet *k);
static void device_was_reset(struct law_device *v);
static uint32_t moment_now(void);

static inline struct law_device *device_of(struct bh_device *d)
{
	return bh_container_of(d, struct law_device, device);
}

static inline unsigned index_of(uint8_t address)
{
	unsigned e = 0;

	while (e < ENDPOINTS && endpoints[e].address != address)
		e++;
	return e;
}

static inline void stream_add(struct stream *s, const uint8_t *data, uint32_t length)
{
	if (s->length + length + 1 > s->capacity) {
		s->capacity = 2 * s->capacity + 256;
		s->bytes = realloc(s->bytes, s->capacity);
		assert_non_null(s->bytes);
	}
	s->bytes[s->length++] = (uint8_t)length;
	memcpy(s->bytes + s->length, data, length);
	s->length += length;
}

/* --- what it does ----------------------------------------------------------------------------------- */

static inline enum bh_status packet_status(const struct program *p, unsigned e, uint64_t number)
{
	uint64_t h = mix(p->seed, e + 100, number) % 100;

	if (!p->faults || h >= (endpoint_is_in(e) ? 5 : 4))
		return BH_SUCCESS;
	return h < 2 ? BH_STALL : h < 4 ? BH_NO_RESPONSE : BH_BABBLE;
}

static inline uint32_t packet_length(const struct program *p, unsigned e, uint64_t number)
{
	uint64_t h = mix(p->seed, e + 200, number);

	return p->shorts && h % 100 < 12 ? (uint32_t)(h >> 20) % endpoints[e].max_packet : endpoints[e].max_packet;
}

/* An IN packet may come only after so many OUT packets. */
static inline bool is_held(const struct law_device *v, unsigned e)
{
	uint64_t number = v->pipes[e].number;

	if (!v->program->gated || !endpoint_is_in(e) || (v->oracle && !v->free))
		return false;
	return mix(v->program->seed, e + 300, number) % 4 == 0 && v->pipes[0].taken + v->pipes[2].taken < number;
}

/* How a vendor's request ends, by the serial number in it. IN: *ret_actual bytes. */
static inline enum bh_status request_status(const struct program *p, const struct bh_setup *s, uint32_t *ret_actual)
{
	uint64_t h = mix(p->seed, 400, bh_get_le16(s->wValue));
	uint32_t length = bh_get_le16(s->wLength);

	*ret_actual = length;
	if ((s->bmRequestType & 0x60) == 0)
		return BH_SUCCESS;
	if (p->faults && h % 16 < 3) {
		*ret_actual = (uint32_t)(h >> 20) % (length + 1);
		return h % 16 < 2 ? BH_STALL : BH_NO_RESPONSE;
	}
	if (p->shorts && h % 5 == 0)
		*ret_actual = (s->bmRequestType & BH_ENDPOINT_IN) ? (uint32_t)(h >> 20) % (length + 1) : length;
	return BH_SUCCESS;
}

/* A request that takes for ever, unless the guest goes on to STATUS or another one. */
static inline bool request_hangs(const struct program *p, const struct bh_setup *s)
{
	return p->gated && s->bmRequestType == 0xc0 && mix(p->seed, 700, bh_get_le16(s->wValue)) % 2;
}

static inline uint8_t request_byte(const struct program *p, const struct bh_setup *s, uint32_t i)
{
	return (uint8_t)mix(p->seed + 1, bh_get_le16(s->wValue), i);
}

/* --- packets ---------------------------------------------------------------------------------------- */

static inline struct packet *pend(struct law_device *v, unsigned e)
{
	static struct packet none;
	struct pipe *p = &v->pipes[e];

	if (v->oracle)
		return &none;
	if (p->pending_count == p->pending_capacity) {
		p->pending_capacity = 2 * p->pending_capacity + 16;
		p->pending = realloc(p->pending, p->pending_capacity * sizeof(*p->pending));
		assert_non_null(p->pending);
	}
	p->pending[p->pending_count] = (struct packet){.number = p->number, .issued_at = p->issued_at};
	if (!endpoint_is_in(e))
		device_takes(e, p->index++, &p->pending[p->pending_count]);
	return &p->pending[p->pending_count++];
}

static inline void end_transfer(struct law_device *v, unsigned e, enum bh_status status)
{
	struct pipe *p = &v->pipes[e];
	struct bh_transfer *t = p->transfer;

	device_ends(v, e);
	p->transfer = NULL;
	bh_transfer_done(t, status, p->moved);
	device_ended(v, e);
}

static inline void packet_in(struct law_device *v, unsigned e, struct packet *k)
{
	struct pipe *p = &v->pipes[e];
	uint32_t max = endpoints[e].max_packet, length = packet_length(v->program, e, p->number);
	uint8_t data[LARGEST_PACKET];

	for (uint32_t i = 0; i < length; i += 8) {
		uint64_t word = mix(v->program->seed, e + 500, p->number * 8 + i / 8);

		memcpy(data + i, &word, BH_MIN(8u, length - i));
	}
	k->length = (uint8_t)length;
	p->number++;
	bh_transfer_write(p->transfer, p->moved, data, length);
	p->moved += length;
	if (length < max || p->moved == p->transfer->length)
		end_transfer(v, e, BH_SUCCESS);
}

static inline void packet_out(struct law_device *v, unsigned e, struct packet *k)
{
	struct pipe *p = &v->pipes[e];
	struct bh_transfer *t = p->transfer;
	uint32_t max = endpoints[e].max_packet, length = BH_MIN(max, t->length - p->moved);

	bh_transfer_read(t, p->moved, k->data, length);
	k->length = (uint8_t)length;
	p->number++;
	p->taken++;
	stream_add(&p->stream, k->data, length);
	p->moved += length;
	if (p->moved == t->length && !((t->flags & BH_TRANSFER_ZERO_PACKET) && length == max))
		end_transfer(v, e, BH_SUCCESS);
}

static inline void one_packet(struct law_device *v, unsigned e)
{
	struct pipe *p = &v->pipes[e];
	enum bh_status status = p->halted ? BH_STALL : packet_status(v->program, e, p->number);
	struct packet *k = pend(v, e);

	k->status = status;
	k->halted = p->halted;
	if (status != BH_SUCCESS) {
		p->number += !p->halted;
		p->halted |= status == BH_STALL;
		end_transfer(v, e, status);
	} else if (endpoint_is_in(e)) {
		packet_in(v, e, k);
	} else {
		packet_out(v, e, k);
	}
}

static inline void some_packets(struct law_device *v, unsigned e, unsigned n)
{
	struct pipe *p = &v->pipes[e];

	while (n-- && p->transfer && !p->frozen && (p->halted || !is_held(v, e)))
		one_packet(v, e);
}

/* A packet that only the run with batches has: the oracle's device gets it, too. False: it is another one. */
static inline bool packet_extra(struct law_device *v, unsigned e, const struct packet *k)
{
	struct pipe *p = &v->pipes[e];

	if (k->halted)
		return p->halted;
	if (p->halted || k->number != p->number || k->status != packet_status(v->program, e, k->number))
		return false;
	p->number++;
	p->halted = k->status == BH_STALL;
	if (!endpoint_is_in(e) && k->status == BH_SUCCESS) {
		p->taken++;
		stream_add(&p->stream, k->data, k->length);
	}
	return true;
}

/* --- the control pipe's transfers (only with batches; the oracle has law_control.h) -------------------- */

static inline void end_control(struct law_device *v, bool cancelled)
{
	struct bh_transfer *t = v->control;
	enum bh_status status = BH_CANCELLED;
	uint32_t actual = v->control_moved;

	v->control = NULL;
	device_request_ends(v, cancelled, BH_MIN(actual, t->length));
	if (!cancelled)
		status = request_status(v->program, &t->setup, &actual);
	if (t->setup.bmRequestType & BH_ENDPOINT_IN)
		for (uint32_t i = 0; i < actual; i++) {
			uint8_t byte = request_byte(v->program, &t->setup, i);

			bh_transfer_write(t, i, &byte, 1);
		}
	bh_transfer_done(t, status, BH_MIN(actual, t->length));
}

static inline void device_control(struct law_device *v, struct bh_transfer *t)
{
	assert(!v->control);
	v->control = t;
	v->control_moved = 0;
	v->control_cancelled = false;
	device_requested(v, t);
	if ((v->program->pace == 0 || one_in(&v->dice, 3)) && !request_hangs(v->program, &t->setup))
		end_control(v, false);
}

/* Its data moves, packet by packet, or it ends. */
static inline void control_goes_on(struct law_device *v)
{
	uint32_t actual;
	bool hangs;

	if (!v->control)
		return;
	hangs = request_hangs(v->program, &v->control->setup);
	if (v->control_cancelled) {
		if (one_in(&v->dice, 2))
			end_control(v, hangs || !one_in(&v->dice, 3));
		return;
	}
	request_status(v->program, &v->control->setup, &actual);
	if ((v->control->setup.bmRequestType & BH_ENDPOINT_IN) && v->control_moved + CONTROL_MAX < actual &&
	    one_in(&v->dice, 2))
		v->control_moved += CONTROL_MAX;
	else if (!hangs && (v->program->pace < 2 || one_in(&v->dice, 4)))
		end_control(v, false);
}

/* --- time passes for it -------------------------------------------------------------------------------- */

static inline unsigned some(struct law_device *v)
{
	if (v->program->pace == 0)
		return 1000;
	if (v->program->pace == 2 && roll(&v->dice, 3))
		return 0;
	return one_in(&v->dice, 4) ? roll(&v->dice, 60) : roll(&v->dice, 5);
}

static inline void device_goes_on(struct law_device *v, bool at_once)
{
	for (unsigned e = 0; e < ENDPOINTS; e++) {
		struct pipe *p = &v->pipes[e];

		if (p->transfer && p->cancelled && (p->frozen || at_once || one_in(&v->dice, 2)))
			end_transfer(v, e, BH_CANCELLED);
		else
			some_packets(v, e, at_once ? 1000 : some(v));
	}
	if (at_once && v->control && (v->control_cancelled || !request_hangs(v->program, &v->control->setup)))
		end_control(v, v->control_cancelled);
	else
		control_goes_on(v);
}

/* --- the seam -------------------------------------------------------------------------------------------- */

static void law_submit(struct bh_device *d, struct bh_transfer *t)
{
	struct law_device *v = device_of(d);
	unsigned e = index_of(t->endpoint);
	struct pipe *p = &v->pipes[e];

	if (t->type == BH_CONTROL) {
		device_control(v, t);
		return;
	}
	assert(e < ENDPOINTS && !p->transfer);
	if (!v->oracle)
		device_lost(v, e, false); /* what was not told by now never will be */
	p->transfer = t;
	p->moved = p->index = 0;
	p->cancelled = p->frozen = false;
	p->issued_at = moment_now();
	if (v->oracle)
		some_packets(v, e, 1000);
	else if (v->program->pace == 0 || one_in(&v->dice, 3))
		some_packets(v, e, some(v));
	if (!v->oracle && one_in(&v->dice, 16))
		some_packets(v, roll(&v->dice, ENDPOINTS), some(v)); /* the one leads to the other */
}

static void law_cancel(struct bh_device *d, struct bh_transfer *t)
{
	struct law_device *v = device_of(d);
	unsigned e = index_of(t->endpoint);
	struct pipe *p;

	if (t->type == BH_CONTROL) {
		assert(v->control == t);
		v->control_cancelled = true;
		if (one_in(&v->dice, 2))
			end_control(v, true);
		return;
	}
	p = &v->pipes[e];
	assert(p->transfer == t);
	if (one_in(&v->dice, 2) && !v->oracle)
		p->cancelled = true; /* later; it may still move */
	else
		end_transfer(v, e, BH_CANCELLED);
}

static void law_reset(struct bh_device *d)
{
	struct law_device *v = device_of(d);

	for (unsigned e = 0; e < ENDPOINTS; e++) {
		if (v->pipes[e].transfer)
			end_transfer(v, e, BH_CANCELLED);
		if (!v->oracle)
			device_lost(v, e, true);
	}
	if (v->control)
		end_control(v, true);
	device_was_reset(v);
	for (unsigned e = 0; e < ENDPOINTS; e++) {
		v->pipes[e].halted = false;
		v->pipes[e].answered_frame = 0;
	}
}

/* The endpoint starts over: what is still being cancelled moves no more. */
static inline void start_over(struct law_device *v, unsigned e)
{
	v->pipes[e].frozen = v->pipes[e].transfer;
	device_lost(v, e, true);
	v->pipes[e].halted = false;
	v->pipes[e].answered_frame = 0;
}

static void law_set(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	(void)value;
	for (unsigned e = 0; e < ENDPOINTS; e++)
		start_over(device_of(d), e);
	device_control(device_of(d), t);
}

static void law_set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate, struct bh_transfer *t)
{
	(void)interface;
	law_set(d, alternate, t);
}

static void law_clear_halt(struct bh_device *d, uint8_t endpoint, struct bh_transfer *t)
{
	unsigned e = index_of(endpoint);

	if (e < ENDPOINTS)
		start_over(device_of(d), e);
	device_control(device_of(d), t);
}

static const struct bh_endpoint_info *law_endpoint(const struct bh_device *d, uint8_t address)
{
	unsigned e = index_of(address);

	(void)d;
	return e < ENDPOINTS ? &endpoints[e] : NULL;
}

static const struct bh_device_ops law_device_ops = {
	.submit = law_submit,
	.cancel = law_cancel,
	.reset = law_reset,
	.set_configuration = law_set,
	.set_interface = law_set_interface,
	.clear_halt = law_clear_halt,
	.endpoint = law_endpoint,
	.destroy = law_reset,
};

static inline void device_init(struct law_device *v, const struct program *p, bool oracle)
{
	struct pipe old[ENDPOINTS];

	memcpy(old, v->pipes, sizeof(old)); /* their memory is used again */
	*v = (struct law_device){
		.device = {.ops = &law_device_ops, .speed = BH_SPEED_FULL, .control_max_packet = CONTROL_MAX,
		           .verification = p->verification},
		.program = p,
		.oracle = oracle,
		.dice = dice_of(p->seed, 2),
	};
	if (oracle) /* what goes one by one and at once, nobody can change on its way */
		v->device.verification = (struct bh_verification){BH_VERIFY_EXACT, BH_VERIFY_BOUNDED};
	for (unsigned e = 0; e < ENDPOINTS; e++) {
		v->pipes[e].pending = old[e].pending;
		v->pipes[e].pending_capacity = old[e].pending_capacity;
		v->pipes[e].stream.bytes = old[e].stream.bytes;
		v->pipes[e].stream.capacity = old[e].stream.capacity;
	}
}

static inline void device_finish(struct law_device *v)
{
	for (unsigned e = 0; e < ENDPOINTS; e++) {
		free(v->pipes[e].pending);
		free(v->pipes[e].stream.bytes);
	}
	memset(v->pipes, 0, sizeof(v->pipes));
}

#endif
