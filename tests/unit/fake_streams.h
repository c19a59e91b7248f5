/*
 * A device with isochronous endpoints, 1 OUT and 2 IN, in interface 1, and bulk ones, 3 OUT
 * and 4 IN, in interface 0. It answers at once, or holds isochronous transfers until the test
 * ends them. IN packets are numbered in their first four bytes; of what comes by OUT, all is kept.
 */
#ifndef TESTS_FAKE_STREAMS_H
#define TESTS_FAKE_STREAMS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <base/bytes.h>
#include <base/util.h>
#include <usb/device.h>

#define STREAM_PACKET 256u
#define STREAM_HEARD  4096u

struct fake_heard {
	uint32_t word;   /* the first four bytes */
	uint32_t length;
	uint32_t sum;    /* of all */
};

struct fake_streams {
	struct bh_device device;
	bool hold;        /* isochronous transfers */
	bool late_cancel; /* those that were cancelled end when the test says so */
	bool go;          /* at the next submit: unplug itself */
	struct bh_transfer *held[32];
	unsigned held_count, submits, cancels, interfaces, destroyed;
	uint32_t sent;    /* IN packets */
	uint32_t length;  /* of each, if not: */
	struct {
		bool set;
		enum bh_status status;
		uint32_t actual;
	} outcome[16]; /* of packet n, IN or OUT, whichever comes first */
	uint32_t moved; /* packets, IN and OUT */
	struct fake_heard heard[STREAM_HEARD];
	uint32_t heard_count, heard_bytes, bulk_out, bulk_in;
};

static const struct bh_endpoint_info fake_stream_endpoints[] = {
	{.address = 0x01, .type = BH_ISOCHRONOUS, .max_packet = STREAM_PACKET, .interval = 1, .interface = 1},
	{.address = 0x82, .type = BH_ISOCHRONOUS, .max_packet = STREAM_PACKET, .interval = 1, .interface = 1},
	{.address = 0x03, .type = BH_BULK, .max_packet = 64},
	{.address = 0x84, .type = BH_BULK, .max_packet = 64},
};

static inline struct fake_streams *fake_streams_of(const struct bh_device *d)
{
	return bh_container_of(d, struct fake_streams, device);
}

static inline struct fake_heard fake_hear(const uint8_t *bytes, uint32_t length)
{
	struct fake_heard h = {.length = length};

	for (uint32_t i = 0; i < length; i++) {
		h.word |= i < 4 ? (uint32_t)bytes[i] << 8 * i : 0;
		h.sum = h.sum * 31 + bytes[i];
	}
	return h;
}

static inline void fake_stream_out(struct fake_streams *s, struct bh_transfer *t, struct bh_packet *p)
{
	uint8_t bytes[STREAM_PACKET];

	assert_true(p->length <= sizeof(bytes));
	bh_transfer_read(t, p->offset, bytes, p->length);
	assert_true(s->heard_count < STREAM_HEARD);
	s->heard[s->heard_count++] = fake_hear(bytes, p->length);
	s->heard_bytes += p->length;
	p->actual = p->length;
}

static inline void fake_stream_in(struct fake_streams *s, struct bh_transfer *t, struct bh_packet *p)
{
	bh_le32 number = bh_put_le32(++s->sent);
	uint8_t bytes[STREAM_PACKET];

	assert_true(p->length == sizeof(bytes));
	memset(bytes, (int)s->sent, sizeof(bytes));
	memcpy(bytes, &number, sizeof(number));
	p->actual = s->length;
	bh_transfer_write(t, p->offset, bytes, p->actual);
}

/* Ends it, after so many packets of it. */
static inline void fake_stream_end(struct fake_streams *s, struct bh_transfer *t, unsigned packets)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < s->held_count; i++)
		if (s->held[i] != t)
			s->held[kept++] = s->held[i];
	s->held_count = kept;
	for (unsigned i = 0; i < BH_MIN(packets, t->packet_count); i++) {
		struct bh_packet *p = &t->packets[i];
		uint32_t n = s->moved++;

		p->status = BH_SUCCESS;
		if (t->endpoint & BH_ENDPOINT_IN)
			fake_stream_in(s, t, p);
		else
			fake_stream_out(s, t, p);
		if (n < BH_COUNT(s->outcome) && s->outcome[n].set) {
			p->status = s->outcome[n].status;
			p->actual = s->outcome[n].actual;
		}
	}
	bh_transfer_done(t, packets < t->packet_count ? BH_CANCELLED : BH_SUCCESS, t->length);
}

static inline void fake_streams_submit(struct bh_device *d, struct bh_transfer *t)
{
	struct fake_streams *s = fake_streams_of(d);

	s->submits++;
	if (t->type == BH_CONTROL) {
		bh_transfer_done(t, BH_SUCCESS, t->length);
		return;
	}
	if (t->type != BH_ISOCHRONOUS) {
		*(t->endpoint & BH_ENDPOINT_IN ? &s->bulk_in : &s->bulk_out) += t->length;
		bh_transfer_done(t, BH_SUCCESS, t->length);
		return;
	}
	assert_int_equal(t->length, t->packet_count * STREAM_PACKET);
	assert_true(s->held_count < BH_COUNT(s->held));
	if (s->hold || s->go)
		s->held[s->held_count++] = t;
	else
		fake_stream_end(s, t, UINT32_MAX);
	if (s->go) {
		s->go = false;
		bh_device_detach(d);
	}
}

static inline void fake_streams_cancel(struct bh_device *d, struct bh_transfer *t)
{
	fake_streams_of(d)->cancels++;
	if (!fake_streams_of(d)->late_cancel)
		fake_stream_end(fake_streams_of(d), t, 0);
}

static inline void fake_streams_end_all(struct fake_streams *s)
{
	while (s->held_count)
		fake_stream_end(s, s->held[0], 0);
}

static inline void fake_streams_reset(struct bh_device *d)
{
	fake_streams_end_all(fake_streams_of(d));
}

static inline void fake_streams_set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	(void)d;
	(void)value;
	bh_transfer_done(t, BH_SUCCESS, 0);
}

static inline void fake_streams_set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate,
                                              struct bh_transfer *t)
{
	(void)interface;
	(void)alternate;
	fake_streams_of(d)->interfaces++;
	bh_transfer_done(t, BH_SUCCESS, 0);
}

static inline void fake_streams_clear_halt(struct bh_device *d, uint8_t endpoint, struct bh_transfer *t)
{
	(void)d;
	(void)endpoint;
	bh_transfer_done(t, BH_SUCCESS, 0);
}

static inline const struct bh_endpoint_info *fake_streams_endpoint(const struct bh_device *d, uint8_t address)
{
	(void)d;
	for (size_t i = 0; i < BH_COUNT(fake_stream_endpoints); i++)
		if (fake_stream_endpoints[i].address == address)
			return &fake_stream_endpoints[i];
	return NULL;
}

static inline void fake_streams_destroy(struct bh_device *d)
{
	fake_streams_end_all(fake_streams_of(d));
	fake_streams_of(d)->destroyed++;
}

static const struct bh_device_ops fake_streams_ops = {
	.submit = fake_streams_submit,
	.cancel = fake_streams_cancel,
	.reset = fake_streams_reset,
	.set_configuration = fake_streams_set_configuration,
	.set_interface = fake_streams_set_interface,
	.clear_halt = fake_streams_clear_halt,
	.endpoint = fake_streams_endpoint,
	.destroy = fake_streams_destroy,
};

static inline void fake_streams_init(struct fake_streams *s)
{
	memset(s, 0, sizeof(*s));
	s->device.ops = &fake_streams_ops;
	s->device.speed = BH_SPEED_FULL;
	s->device.control_max_packet = 8;
	s->device.finishes = true;
	s->length = STREAM_PACKET;
}

#endif
