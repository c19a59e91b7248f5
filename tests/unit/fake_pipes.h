/*
 * A device of as many endpoints as a test wants, that does what it does packet by
 * packet: it holds a transfer for each endpoint, moves packets of it when told to (or
 * all of it at once), fails at a packet chosen beforehand, and ends a cancelled
 * transfer at once or later. What an endpoint took, or gave, is one stream, however
 * it was cut into transfers. Unlike fake_device.h it knows nothing of control requests:
 * they succeed, or are held.
 */
#ifndef TESTS_FAKE_PIPES_H
#define TESTS_FAKE_PIPES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <base/util.h>
#include <usb/device.h>

#define FAKE_STREAM 16384u
#define FAKE_NEVER  UINT32_MAX

struct fake_pipe {
	struct bh_endpoint_info info; /* max_packet 0: there is no such endpoint */
	struct bh_transfer *held;     /* taken, not ended */
	uint32_t moved;               /* bytes of it */
	bool cancelled;               /* and it is to end */
	bool hold;                    /* move nothing by itself */
	bool late;                    /* end a cancelled transfer when told to, not before */
	unsigned submits, cancels;
	uint32_t packets;             /* moved, ever; those that fail count too */
	uint32_t length;              /* bytes moved, ever */
	uint8_t stream[FAKE_STREAM];  /* OUT: the first of them */
	uint32_t fail_packet;         /* this one fails, */
	enum bh_status fail;          /* like that, */
	bool fails_again;             /* and so do those after it */
	uint32_t short_packet;        /* IN: this one is shorter, */
	uint32_t short_length;        /* like that */
	uint64_t due_us;              /* the test's own: when it will end */
};

struct fake_pipes {
	struct bh_device device;
	struct fake_pipe pipes[2][16]; /* [in][number] */
	struct bh_transfer *control; /* taken, not ended */
	bool hold_control;           /* and ended, cancelled or not, when the test says so */
	unsigned resets, halts_cleared, controls, control_cancels, destroyed;
};

static inline struct fake_pipes *fake_pipes_of(const struct bh_device *d)
{
	return bh_container_of(d, struct fake_pipes, device);
}

static inline struct fake_pipe *fake_pipe(struct fake_pipes *f, uint8_t address)
{
	return &f->pipes[address >> 7][address & 15];
}

/* What an IN endpoint gives: byte n of all there will ever be. */
static inline uint8_t fake_stream_byte(uint32_t n)
{
	return (uint8_t)(n * 5 + n / 64 * 3 + 1);
}

static inline void fake_pipe_end(struct fake_pipe *p, enum bh_status status)
{
	struct bh_transfer *t = p->held;
	uint32_t moved = p->moved;

	p->held = NULL;
	p->cancelled = false;
	bh_transfer_done(t, status, moved);
}

static inline void fake_pipe_bytes(struct fake_pipe *p, uint32_t bytes)
{
	uint8_t packet[64];
	uint32_t n;

	for (; bytes; bytes -= n, p->length += n, p->moved += n) {
		n = BH_MIN(bytes, (uint32_t)sizeof(packet));
		if (p->info.address & BH_ENDPOINT_IN) {
			for (uint32_t i = 0; i < n; i++)
				packet[i] = fake_stream_byte(p->length + i);
			bh_transfer_write(p->held, p->moved, packet, n);
		} else if (p->length + n <= FAKE_STREAM) {
			bh_transfer_read(p->held, p->moved, &p->stream[p->length], n);
		}
	}
}

/* Moves so many bytes more of the transfer it holds, whatever its packets. */
static inline void fake_pipe_move(struct fake_pipe *p, uint32_t bytes)
{
	assert_non_null(p->held);
	assert_true(bytes <= p->held->length - p->moved);
	fake_pipe_bytes(p, bytes);
}

/* One packet more. False: the transfer has ended. */
static inline bool fake_pipe_packet(struct fake_pipe *p)
{
	struct bh_transfer *t = p->held;
	uint32_t left = t->length - p->moved, packet = BH_MIN(left, (uint32_t)p->info.max_packet);
	bool in = p->info.address & BH_ENDPOINT_IN, end;

	p->packets++;
	if (p->packets - 1 == p->fail_packet) {
		if (p->fails_again)
			p->fail_packet++;
		fake_pipe_end(p, p->fail);
		return false;
	}
	if (in && p->packets - 1 == p->short_packet)
		packet = BH_MIN(packet, p->short_length);
	fake_pipe_bytes(p, packet);
	end = in ? packet < p->info.max_packet || packet == left
	         : packet == left && (packet == 0 || !(t->flags & BH_TRANSFER_ZERO_PACKET));
	if (end)
		fake_pipe_end(p, BH_SUCCESS);
	return !end;
}

/* To its end. */
static inline void fake_pipe_serve(struct fake_pipe *p)
{
	assert_non_null(p->held);
	while (fake_pipe_packet(p))
		;
}

static inline void fake_pipes_control(struct fake_pipes *f, struct bh_transfer *t)
{
	assert_null(f->control);
	f->controls++;
	if (f->hold_control)
		f->control = t;
	else
		bh_transfer_done(t, BH_SUCCESS, t->length);
}

static inline void fake_pipes_end_control(struct fake_pipes *f, enum bh_status status, uint32_t actual)
{
	struct bh_transfer *t = f->control;

	f->control = NULL;
	bh_transfer_done(t, status, actual);
}

static inline void fake_pipes_submit(struct bh_device *d, struct bh_transfer *t)
{
	struct fake_pipe *p = fake_pipe(fake_pipes_of(d), t->endpoint);

	if (t->type == BH_CONTROL) {
		fake_pipes_control(fake_pipes_of(d), t);
		return;
	}
	assert_null(p->held); /* nothing starts before what was there has ended */
	p->held = t;
	p->moved = 0;
	p->submits++;
	if (!p->hold)
		fake_pipe_serve(p);
}

static inline void fake_pipes_cancel(struct bh_device *d, struct bh_transfer *t)
{
	struct fake_pipe *p = fake_pipe(fake_pipes_of(d), t->endpoint);

	if (t->type == BH_CONTROL) {
		fake_pipes_of(d)->control_cancels++;
		return;
	}
	if (p->held != t)
		return;
	assert_false(p->cancelled); /* once is enough */
	p->cancels++;
	p->cancelled = true;
	if (!p->late)
		fake_pipe_end(p, BH_CANCELLED);
}

static inline void fake_pipes_end_all(struct fake_pipes *f)
{
	for (unsigned i = 0; i < 32; i++)
		if (f->pipes[i / 16][i % 16].held)
			fake_pipe_end(&f->pipes[i / 16][i % 16], BH_CANCELLED);
	if (f->control)
		fake_pipes_end_control(f, BH_CANCELLED, 0);
}

static inline void fake_pipes_reset(struct bh_device *d)
{
	fake_pipes_of(d)->resets++;
	fake_pipes_end_all(fake_pipes_of(d));
}

static inline void fake_pipes_set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	(void)d;
	(void)value;
	bh_transfer_done(t, BH_SUCCESS, 0);
}

static inline void fake_pipes_set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate,
                                            struct bh_transfer *t)
{
	(void)d;
	(void)interface;
	(void)alternate;
	bh_transfer_done(t, BH_SUCCESS, 0);
}

static inline void fake_pipes_clear_halt(struct bh_device *d, uint8_t endpoint, struct bh_transfer *t)
{
	(void)endpoint;
	fake_pipes_of(d)->halts_cleared++;
	bh_transfer_done(t, BH_SUCCESS, 0);
}

static inline const struct bh_endpoint_info *fake_pipes_endpoint(const struct bh_device *d, uint8_t address)
{
	const struct bh_endpoint_info *info = &fake_pipe(fake_pipes_of(d), address)->info;

	return info->max_packet ? info : NULL;
}

static inline void fake_pipes_destroy(struct bh_device *d)
{
	fake_pipes_end_all(fake_pipes_of(d));
	fake_pipes_of(d)->destroyed++;
}

static const struct bh_device_ops fake_pipes_ops = {
	.submit = fake_pipes_submit,
	.cancel = fake_pipes_cancel,
	.reset = fake_pipes_reset,
	.set_configuration = fake_pipes_set_configuration,
	.set_interface = fake_pipes_set_interface,
	.clear_halt = fake_pipes_clear_halt,
	.endpoint = fake_pipes_endpoint,
	.destroy = fake_pipes_destroy,
};

/* Full speed, every transfer ends by itself: no linger, unless the test says otherwise. */
static inline void fake_pipes_init(struct fake_pipes *f)
{
	memset(f, 0, sizeof(*f));
	f->device.ops = &fake_pipes_ops;
	f->device.speed = BH_SPEED_FULL;
	f->device.control_max_packet = 8;
	f->device.finishes = true;
}

static inline struct fake_pipe *fake_pipes_add(struct fake_pipes *f, uint8_t address, uint16_t max_packet)
{
	struct fake_pipe *p = fake_pipe(f, address);

	p->info = (struct bh_endpoint_info){.address = address, .type = BH_BULK, .max_packet = max_packet};
	p->fail_packet = p->short_packet = FAKE_NEVER;
	return p;
}

#endif
