/*
 * The serial line as a USB device: CDC-ACM (CDC 1.1; PSTN 1.2). One function of two
 * interfaces: the communications interface with its notifications, and the data interface
 * with a bulk endpoint in each direction. What is at the other end is serial_line.h's.
 *
 * Of the requests: line coding, control line state, break. Of the notifications:
 * SERIAL_STATE, carrier and DSR. No AT commands, no ring, no errors on the line.
 *
 * What is in the buffers outlives resets and changes of configuration: it has been taken.
 * finishes is false: an OUT transfer waits for the other side, an IN transfer too.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/util.h>
#include <function/serial.h>

#include "serial_line.h"
#include "standard.h"

#define DATA_OUT_ENDPOINT      0x01
#define DATA_IN_ENDPOINT       0x82
#define NOTIFICATION_ENDPOINT  0x83
#define COMMUNICATIONS         0 /* the interfaces */
#define DATA                   1
#define LINE_CODING_SIZE       7u
#define PACE_MS                20u /* with a rate: how much of it comes at once */
#define SERIAL_STATE_SIZE      10u
#define FULL_MAX_PACKET        64
#define HIGH_MAX_PACKET        512
#define NOTIFICATION_MAX_PACKET 16

/* UART state bitmap (PSTN, table 31) */
#define STATE_CARRIER 0x01 /* bRxCarrier: DCD */
#define STATE_READY   0x02 /* bTxCarrier: DSR */

struct serial {
	struct bh_standard standard;
	/* configuration */
	struct bh_line *line;
	uint16_t max_packet; /* of the data endpoints */
	uint32_t rate;      /* bytes/s to the guest; 0: any */
	uv_timer_t *pacing; /* with a rate: until the guest may get more */

	/* state */
	uint8_t coding[LINE_CODING_SIZE]; /* as it travels (PSTN, table 17) */
	bool dtr, rts;
	bool told;        /* what the guest believes: is there another side? */
	bool interrupted; /* it was away since, if only for a moment */
	struct bh_list out, in, notifications; /* transfers that wait, by device_link */
	bool unended; /* the last packet to the guest was full: it does not know yet that there is no more */
	bool pumping, again;
	uint64_t from_guest, to_guest, breaks;
	uint64_t allowance, allowed_ms; /* with a rate: bytes the guest may get, in thousandths, and as of when */

	/* the end */
	void (*closed)(void *data, int error);
	void *closed_data;
};

static struct serial *to_serial(struct bh_device *d)
{
	return bh_container_of(d, struct serial, standard.device);
}

static const struct serial *to_const_serial(const struct bh_device *d)
{
	return bh_container_of(d, struct serial, standard.device);
}

/* --- data ------------------------------------------------------------------------------------ */

static struct bh_transfer *first(const struct bh_list *l)
{
	return bh_list_empty(l) ? NULL : bh_container_of(l->next, struct bh_transfer, device_link);
}

static void end(struct bh_transfer *t, enum bh_status status)
{
	bh_list_remove(&t->device_link);
	bh_transfer_done(t, status, t->actual);
}

static void end_all(struct bh_list *l, enum bh_status status)
{
	struct bh_transfer *t;

	while ((t = first(l)))
		end(t, status);
}

/* Into the buffer, as far as there is room. Returns how many bytes. */
static uint32_t take(struct serial *s, const struct bh_transfer *t)
{
	struct iovec spans[2];
	unsigned count = bh_ring_space(&s->line->to_peer, spans);
	uint32_t taken = 0;

	for (unsigned i = 0; i < count; i++) {
		uint32_t n = (uint32_t)BH_MIN(spans[i].iov_len, (size_t)(t->length - t->actual - taken));

		bh_transfer_read(t, t->actual + taken, spans[i].iov_base, n);
		taken += n;
	}
	bh_ring_produce(&s->line->to_peer, taken);
	s->from_guest += taken;
	return taken;
}

/* What was taken is counted in t->actual, and that is what a transfer ends with, however it ends. */
static void take_out(struct serial *s)
{
	struct bh_transfer *t;

	while ((t = first(&s->out))) {
		uint32_t n = take(s, t);

		if (t->actual + n == t->length) {
			t->actual += n;
			end(t, BH_SUCCESS);
		} else if (n) {
			bh_transfer_progress(t, t->actual + n);
		} else {
			return;
		}
	}
}

/* How many bytes the guest may get now. What it did not want earlier adds up for PACE_MS at most. */
static uint32_t allowed(struct serial *s)
{
	uint64_t now;

	if (!s->rate)
		return BH_SERIAL_BUFFER;
	now = uv_now(s->line->loop);
	s->allowance += BH_MIN(now - s->allowed_ms, 1000u) * s->rate;
	s->allowance = BH_MIN(s->allowance, BH_MAX((uint64_t)PACE_MS * s->rate, 1000u));
	s->allowed_ms = now;
	return (uint32_t)BH_MIN(s->allowance / 1000, BH_SERIAL_BUFFER);
}

static void may_go_on(uv_timer_t *t);

/* There is something for a guest that has had its share: until that has grown by half of what it may be. */
static void give_later(struct serial *s)
{
	if (!uv_is_active((uv_handle_t *)s->pacing))
		uv_timer_start(s->pacing, may_go_on, BH_MAX(PACE_MS / 2, 1000 / s->rate + 1), 0);
}

/*
 * What there is, at once: a transfer ends with it, full or not. After a full packet with nothing
 * behind it comes an empty one (USB 2.0, 5.8.3), or a driver that left room for more would keep
 * what it has until there is more.
 */
static void give_in(struct serial *s)
{
	struct bh_transfer *t;

	while ((t = first(&s->in)) && (s->line->to_guest.used || s->unended || t->length == 0)) {
		struct iovec spans[2];
		unsigned count = bh_ring_data(&s->line->to_guest, spans);
		uint32_t most = BH_MIN(allowed(s), t->length);

		if (!most && t->length && s->line->to_guest.used) {
			give_later(s);
			return;
		}
		for (unsigned i = 0; i < count; i++) {
			uint32_t n = (uint32_t)BH_MIN(spans[i].iov_len, (size_t)(most - t->actual));

			bh_transfer_write(t, t->actual, spans[i].iov_base, n);
			t->actual += n;
		}
		bh_ring_consume(&s->line->to_guest, t->actual);
		s->to_guest += t->actual;
		if (s->rate)
			s->allowance -= t->actual * UINT64_C(1000);
		s->unended = t->actual && t->actual == t->length && t->actual % s->max_packet == 0 &&
		             !s->line->to_guest.used;
		end(t, BH_SUCCESS);
	}
}

/* SERIAL_STATE (PSTN, 6.5.4), when what the guest believes is not so, or was not. */
static void notify(struct serial *s)
{
	struct bh_transfer *t;

	while ((s->told != s->line->connected || s->interrupted) && (t = first(&s->notifications))) {
		bool now = s->interrupted ? false : s->line->connected;
		const uint8_t bytes[SERIAL_STATE_SIZE] = {
			0xa1, 0x20, BH_LE16(0), BH_LE16(COMMUNICATIONS), BH_LE16(2),
			now ? STATE_CARRIER | STATE_READY : 0, 0,
		};

		if (t->length < sizeof(bytes)) {
			end(t, BH_BABBLE);
			continue;
		}
		bh_transfer_write(t, 0, bytes, sizeof(bytes));
		t->actual = sizeof(bytes);
		s->told = now;
		s->interrupted = false;
		end(t, BH_SUCCESS);
	}
}

/* Moves what can be moved, in both directions. What is called in here may submit and cancel. */
static void pump(struct serial *s)
{
	s->again = true;
	if (s->pumping)
		return;
	s->pumping = true;
	while (s->again) {
		s->again = false;
		take_out(s);
		give_in(s);
		notify(s);
		s->line->ops->wake(s->line);
		if (first(&s->out) && bh_ring_room(&s->line->to_peer))
			s->again = true;
	}
	s->pumping = false;
}

static void may_go_on(uv_timer_t *t)
{
	pump(t->data);
}

/* --- word from the line -------------------------------------------------------------------------- */

static void line_moved(struct bh_line *l)
{
	pump(l->owner);
}

static void line_connected(struct bh_line *l)
{
	struct serial *s = l->owner;

	if (!l->connected && s->told)
		s->interrupted = true;
	pump(s);
}

static void line_finished(struct bh_line *l, int error)
{
	struct serial *s = l->owner;
	void (*closed)(void *, int) = s->closed;
	void *data = s->closed_data;

	free(s);
	if (closed)
		closed(data, error);
}

static const struct bh_line_upcalls line_upcalls = {
	.moved = line_moved,
	.connected = line_connected,
	.finished = line_finished,
};

/* --- class requests (PSTN, 6.3) ---------------------------------------------------------------------- */

enum {
	SET_LINE_CODING = BH_REQUEST(0x21, 0x20),
	GET_LINE_CODING = BH_REQUEST(0xa1, 0x21),
	SET_CONTROL_LINE_STATE = BH_REQUEST(0x21, 0x22),
	SEND_BREAK = BH_REQUEST(0x21, 0x23),
};

static void set_line_coding(struct serial *s, struct bh_transfer *t)
{
	uint8_t coding[LINE_CODING_SIZE];

	if (t->length != sizeof(coding)) {
		bh_refuse(t);
		return;
	}
	bh_transfer_read(t, 0, coding, sizeof(coding));
	if (coding[4] > 2 || coding[5] > 4 || ((coding[6] < 5 || coding[6] > 8) && coding[6] != 16)) {
		bh_refuse(t);
		return;
	}
	memcpy(s->coding, coding, sizeof(coding));
	bh_acknowledge(t);
}

static void class_request(struct serial *s, struct bh_transfer *t)
{
	uint16_t value = bh_get_le16(t->setup.wValue);

	if (bh_get_le16(t->setup.wIndex) != COMMUNICATIONS || !s->standard.settings.configuration) {
		bh_refuse(t);
		return;
	}
	switch (bh_request_of(t)) {
	case SET_LINE_CODING:
		set_line_coding(s, t);
		return;
	case GET_LINE_CODING:
		bh_answer(t, s->coding, sizeof(s->coding));
		return;
	case SET_CONTROL_LINE_STATE:
		s->dtr = value & 1;
		s->rts = value >> 1 & 1;
		bh_acknowledge(t);
		return;
	case SEND_BREAK:
		s->breaks += value != 0; /* 0 ends one that lasts */
		bh_acknowledge(t);
		return;
	}
	bh_refuse(t);
}

/* --- the device's operations ---------------------------------------------------------------------------- */

static struct bh_list *list_of(struct serial *s, uint8_t endpoint)
{
	switch (endpoint) {
	case DATA_OUT_ENDPOINT:
		return &s->out;
	case DATA_IN_ENDPOINT:
		return &s->in;
	case NOTIFICATION_ENDPOINT:
		return &s->notifications;
	}
	return NULL;
}

static void serial_submit(struct bh_device *d, struct bh_transfer *t)
{
	struct serial *s = to_serial(d);

	if (t->type == BH_CONTROL) {
		if ((t->setup.bmRequestType & 0x7f) == 0x21)
			class_request(s, t);
		else
			bh_standard_control(&s->standard, t);
		return;
	}
	if (!bh_standard_endpoint(d, t->endpoint) || bh_standard_halted(&s->standard, t->endpoint)) {
		bh_refuse(t);
		return;
	}
	bh_list_init(&t->device_link);
	bh_list_append(list_of(s, t->endpoint), &t->device_link);
	pump(s);
}

static void serial_cancel(struct bh_device *d, struct bh_transfer *t)
{
	struct bh_list *l = t->type == BH_CONTROL ? NULL : list_of(to_serial(d), t->endpoint);

	if (!l)
		return;
	bh_list_each(it, l, struct bh_transfer, device_link) {
		if (it != t)
			continue;
		end(t, BH_CANCELLED);
		return;
	}
}

/* A driver that begins anew believes that nobody is there. */
static void serial_changed(struct bh_standard *standard, int interface)
{
	struct serial *s = bh_container_of(standard, struct serial, standard);

	if (interface != COMMUNICATIONS) {
		end_all(&s->out, BH_CANCELLED);
		end_all(&s->in, BH_CANCELLED);
		s->unended = false;
	}
	if (interface != DATA) {
		end_all(&s->notifications, BH_CANCELLED);
		s->told = s->interrupted = false;
	}
	if (interface < 0)
		s->dtr = s->rts = false;
}

static void serial_halted(struct bh_standard *standard, uint8_t endpoint, bool halted)
{
	struct bh_list *l = list_of(bh_container_of(standard, struct serial, standard), endpoint);

	if (halted && l)
		end_all(l, BH_STALL);
}

static void serial_destroy(struct bh_device *d)
{
	bh_serial_close(d, NULL, NULL);
}

static const struct bh_device_ops serial_ops = {
	.submit = serial_submit,
	.cancel = serial_cancel,
	.reset = bh_standard_reset,
	.set_configuration = bh_standard_set_configuration,
	.set_interface = bh_standard_set_interface,
	.refuses = bh_standard_refuses,
	.descriptors = bh_standard_descriptors,
	.clear_halt = bh_standard_clear_halt,
	.endpoint = bh_standard_endpoint,
	.suspend = bh_standard_suspend,
	.destroy = serial_destroy,
};

static const struct bh_standard_ops serial_standard_ops = {
	.changed = serial_changed,
	.halted = serial_halted,
};

/* --- descriptors ------------------------------------------------------------------------------------------- */

static const uint8_t device_descriptor[] = {
	18, BH_DESCRIPTOR_DEVICE,
	BH_LE16(0x0200), /* bcdUSB */
	2, 0, 0,         /* communications */
	64,
	BH_LE16(0x1209), BH_LE16(0x0006), /* pid.codes, for tests */
	BH_LE16(0x0100),
	1, 2, 0, /* strings */
	1,
};

#define CS_INTERFACE 0x24

/* Two interfaces: ACM, without a command protocol, for nobody here understands one; and data. */
#define CONFIGURATION(interval, max_packet)                                                         \
	{                                                                                           \
		9, BH_DESCRIPTOR_CONFIGURATION, BH_LE16(9 + 9 + 5 + 5 + 4 + 5 + 7 + 9 + 7 + 7),     \
		2, 1, 0,                                                                            \
		0xc0, /* self-powered */                                                            \
		0,                                                                                  \
		9, BH_DESCRIPTOR_INTERFACE, COMMUNICATIONS, 0, 1, 2, 2, 0, 0,                       \
		5, CS_INTERFACE, 0, BH_LE16(0x0110), /* header */                                   \
		5, CS_INTERFACE, 1, 0, DATA,         /* call management: none */                    \
		4, CS_INTERFACE, 2, 0x06,            /* ACM: line coding, control lines, state; break */ \
		5, CS_INTERFACE, 6, COMMUNICATIONS, DATA, /* union */                               \
		7, BH_DESCRIPTOR_ENDPOINT, NOTIFICATION_ENDPOINT, BH_INTERRUPT, BH_LE16(NOTIFICATION_MAX_PACKET), interval, \
		9, BH_DESCRIPTOR_INTERFACE, DATA, 0, 2, 10, 0, 0, 0,                                \
		7, BH_DESCRIPTOR_ENDPOINT, DATA_OUT_ENDPOINT, BH_BULK, BH_LE16(max_packet), 0,      \
		7, BH_DESCRIPTOR_ENDPOINT, DATA_IN_ENDPOINT, BH_BULK, BH_LE16(max_packet), 0,       \
	}

static const uint8_t full_speed[] = CONFIGURATION(16, FULL_MAX_PACKET);
static const uint8_t high_speed[] = CONFIGURATION(8, HIGH_MAX_PACKET); /* 2^7 of 125 us: the same 16 ms */

#define DESCRIPTION(configuration)                                              \
	{                                                                       \
		.device = device_descriptor,                                    \
		.configurations = (const uint8_t *const[]){configuration},      \
		.configuration_count = 1,                                       \
		.strings = (const char *const[]){"Bulkhead", "Bulkhead Serial"}, \
		.string_count = 2,                                              \
	}

static const struct bh_description full_speed_description = DESCRIPTION(full_speed);
static const struct bh_description high_speed_description = DESCRIPTION(high_speed);

/* --- beginning and end ------------------------------------------------------------------------------------------ */

static int create_line(uv_loop_t *loop, const struct bh_serial_config *c, struct bh_line **ret, char *error,
                       size_t error_size)
{
	if (c->pty + !!c->tcp + !!c->tcp_listen + !!c->file != 1)
		snprintf(error, error_size, "serial: say one of pty, tcp=HOST:PORT, tcp-listen=HOST:PORT and file=PATH");
	else if (c->link && !c->pty)
		snprintf(error, error_size, "serial '%s': a link needs a pseudo-terminal; say pty, too", c->link);
	else if (c->input && !c->file)
		snprintf(error, error_size, "serial '%s': input goes with file=PATH; say that, too", c->input);
	else if (c->pty)
		return bh_line_pty(loop, c->link, ret, error, error_size);
	else if (c->file)
		return bh_line_file(loop, c->file, c->input, ret, error, error_size);
	else
		return bh_line_tcp(loop, c->tcp ? c->tcp : c->tcp_listen, !c->tcp, ret, error, error_size);
	return -EINVAL;
}

int bh_serial_create(struct uv_loop_s *loop, const struct bh_serial_config *config, struct bh_device **ret,
                     char *error, size_t error_size)
{
	static const uint8_t coding[LINE_CODING_SIZE] = {0x80, 0x25, 0, 0, 0, 0, 8}; /* 9600 8N1 */
	struct serial *s = calloc(1, sizeof(*s));
	bool high = config->speed == BH_SPEED_HIGH;
	int r;

	if (!s) {
		snprintf(error, error_size, "serial: out of memory; free some");
		return -ENOMEM;
	}
	s->rate = config->rate;
	if (s->rate && !(s->pacing = malloc(sizeof(*s->pacing)))) {
		snprintf(error, error_size, "serial: out of memory; free some");
		free(s);
		return -ENOMEM;
	}
	r = create_line(loop, config, &s->line, error, error_size);
	if (r < 0) {
		free(s->pacing);
		free(s);
		return r;
	}
	if (s->pacing) {
		uv_timer_init(loop, s->pacing);
		s->pacing->data = s;
	}
	s->max_packet = high ? HIGH_MAX_PACKET : FULL_MAX_PACKET;
	bh_standard_init(&s->standard, &serial_ops, &serial_standard_ops,
	                 high ? &high_speed_description : &full_speed_description, high ? BH_SPEED_HIGH : BH_SPEED_FULL);
	bh_list_init(&s->out);
	bh_list_init(&s->in);
	bh_list_init(&s->notifications);
	memcpy(s->coding, coding, sizeof(coding));
	s->line->upcalls = &line_upcalls;
	s->line->owner = s;
	s->line->ops->wake(s->line);
	*ret = &s->standard.device;
	return 0;
}

void bh_serial_close(struct bh_device *device, void (*closed)(void *data, int error), void *data)
{
	struct serial *s;

	if (!device) {
		if (closed)
			closed(data, 0);
		return;
	}
	s = to_serial(device);
	s->closed = closed;
	s->closed_data = data;
	end_all(&s->out, BH_CANCELLED);
	end_all(&s->in, BH_CANCELLED);
	end_all(&s->notifications, BH_CANCELLED);
	if (s->pacing)
		uv_close((uv_handle_t *)s->pacing, bh_line_free_handle);
	s->line->ops->close(s->line);
}

struct bh_serial_counters bh_serial_counters(const struct bh_device *device)
{
	const struct serial *s = to_const_serial(device);

	return (struct bh_serial_counters){
		.from_guest = s->from_guest,
		.to_guest = s->to_guest,
		.from_peer = s->line->from_peer,
		.to_peer = s->line->sent,
		.connections = s->line->connections,
		.failures = s->line->failures,
		.breaks = s->breaks,
	};
}

struct bh_serial_state bh_serial_state(const struct bh_device *device)
{
	const struct serial *s = to_const_serial(device);

	return (struct bh_serial_state){
		.connected = s->line->connected,
		.dtr = s->dtr,
		.rts = s->rts,
		.rate = (uint32_t)s->coding[0] | (uint32_t)s->coding[1] << 8 | (uint32_t)s->coding[2] << 16 |
		        (uint32_t)s->coding[3] << 24,
		.stop_bits = s->coding[4],
		.parity = s->coding[5],
		.data_bits = s->coding[6],
	};
}

const char *bh_serial_name(const struct bh_device *device)
{
	return to_const_serial(device)->line->name;
}
