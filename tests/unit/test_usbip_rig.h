/*
 * For tests of the USB/IP client: the client, on a socket; a server at the other end, in the same
 * thread, which takes every request apart and answers what it is told to; and a bus, which holds
 * the client's device and the transfers it was given. Nothing waits: settle() runs both until
 * neither has anything to do.
 */
#ifndef TESTS_USBIP_RIG_H
#define TESTS_USBIP_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include <cmocka.h>

#include "../../src/host/usbip_private.h"

enum { BULK_IN = 0x81, BULK_OUT = 0x02, INTERRUPT_IN = 0x83, ISO_IN = 0x84, ISO_OUT = 0x05, OTHER_IN = 0x86 };
enum { ISO_PACKET = 192 };

static const uint8_t rig_device[18] = {18, 1, 0, 2, 0xff, 0, 0, 16, 0x25, 0x05, 0xa0, 0xa4, 0, 1, 0, 0, 0, 1};
static const uint8_t rig_configuration[9 + 9 + 5 * 7 + 9 + 7] = {
	9, 2, 69, 0, 1, 1, 0, 0x80, 50,
	9, 4, 0, 0, 5, 0xff, 0, 0, 0,
	7, 5, BULK_IN, 2, 64, 0, 0,
	7, 5, BULK_OUT, 2, 64, 0, 0,
	7, 5, INTERRUPT_IN, 3, 8, 0, 10,
	7, 5, ISO_IN, 1, ISO_PACKET, 0, 3,
	7, 5, ISO_OUT, 1, ISO_PACKET, 0, 1,
	9, 4, 0, 1, 1, 0xff, 0, 0, 0,
	7, 5, OTHER_IN, 2, 32, 0, 0,
};

/* --- the server ---------------------------------------------------------------------------- */

#define RIG_REQUESTS 1024u
#define RIG_DEVID    0x00010004u

/* A request that has come, and was not answered by itself. */
struct rig_request {
	union bh_usbip_message raw;
	struct bh_usbip_submit submit; /* of a CMD_SUBMIT; */
	struct bh_usbip_unlink unlink; /* or a CMD_UNLINK */
	bool unlinks;
	uint8_t data[4096];
	struct bh_usbip_packet packets[16];
};

static struct rig_server {
	int fd; /* -1: none */
	uint8_t input[1 << 21];
	size_t have;
	bool imported, asked;
	uint32_t speed, status;
	uint16_t version, code;
	bool mute;       /* leaves every request alone, but keeps what comes */
	bool deaf;       /* reads nothing */
	bool drop_gets;  /* descriptors are not answered either */
	size_t piece;    /* what it sends at a time, if not 0; each in a round of its own */
	int64_t cut;     /* closes after so many more bytes; -1: never */
	uint8_t output[1 << 20];
	size_t queued;
	struct rig_request requests[RIG_REQUESTS];
	unsigned count;
	char busid[32];
} server;

static inline void server_close(void)
{
	if (server.fd >= 0)
		close(server.fd);
	server.fd = -1;
}

static inline void server_write(const void *bytes, size_t count)
{
	if (!bytes || count > sizeof(server.output) - server.queued)
		fail_msg("nothing to write, or too much of it");
	else
		memcpy(server.output + server.queued, bytes, count);
	server.queued += count;
}

/* True: something was sent. */
static inline bool server_flush(void)
{
	size_t n = server.piece ? BH_MIN(server.piece, server.queued) : server.queued;
	ssize_t sent;

	if (server.cut >= 0)
		n = BH_MIN(n, (size_t)server.cut);
	if (server.fd < 0)
		return false;
	sent = n ? send(server.fd, server.output, n, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
	if (sent > 0) {
		server.queued -= (size_t)sent;
		memmove(server.output, server.output + sent, server.queued);
		if (server.cut >= 0)
			server.cut -= sent;
	}
	if (server.cut == 0)
		server_close();
	return sent > 0 || server.cut == 0;
}

/* To a CMD_SUBMIT; IN: actual bytes of data. */
static inline void server_result(const struct rig_request *r, int32_t status, uint32_t actual, const void *data)
{
	struct bh_usbip_result fields = {.seqnum = r->submit.seqnum, .status = status, .actual = actual};
	struct bh_usbip_ret_submit m = bh_usbip_put_result(&fields);

	server_write(&m, sizeof(m));
	if (r->submit.in && actual)
		server_write(data, actual);
}

static inline void server_unlinked(const struct rig_request *r, int32_t status)
{
	struct bh_usbip_unlinked fields = {.seqnum = r->unlink.seqnum, .status = status};
	struct bh_usbip_ret_unlink m = bh_usbip_put_unlinked(&fields);

	server_write(&m, sizeof(m));
}

static inline void server_op(void)
{
	struct bh_usbip_op_header h = {bh_put_be16(server.version), bh_put_be16(server.code), bh_put_be32(server.status)};
	struct bh_usbip_device_fields f = {
		.path = "/sys/devices/usb1/1-1", .busid = "1-1.4", .busnum = 1, .devnum = 4, .speed = server.speed,
		.vendor = 0x0525, .product = 0xa4a0, .configurations = 1, .interfaces = 1,
	};
	struct bh_usbip_device device = bh_usbip_put_device(&f);

	server_write(&h, sizeof(h));
	if (server.status || server.version != BH_USBIP_VERSION || server.code != BH_USBIP_REP_IMPORT)
		return;
	server_write(&device, sizeof(device));
	server.imported = true;
}

/* Descriptors, as the device would. False: it is none of those requests. */
static inline bool server_describes(const struct rig_request *r)
{
	const struct bh_setup *s = &r->submit.setup;
	uint8_t type = s->wValue.b[1];
	uint32_t length = bh_get_le16(s->wLength);

	if (server.drop_gets || r->submit.endpoint || s->bmRequestType != 0x80 || s->bRequest != 6)
		return false;
	if (type == BH_DESCRIPTOR_DEVICE)
		server_result(r, 0, BH_MIN(length, 18), rig_device);
	else
		server_result(r, 0, BH_MIN(length, sizeof(rig_configuration)), rig_configuration);
	return true;
}

/* Bytes of the request at the start of what came; 0: not all there. */
static inline size_t server_parse(struct rig_request *r)
{
	size_t size = sizeof(r->raw);
	uint32_t data, packets;
	bool iso;

	if (server.have < size)
		return 0;
	memcpy(&r->raw, server.input, size);
	r->unlinks = bh_get_be32(r->raw.basic.command) == BH_USBIP_CMD_UNLINK;
	if (r->unlinks) {
		r->unlink = bh_usbip_get_unlink(&r->raw.cmd_unlink);
		assert_int_equal(r->unlink.devid, RIG_DEVID);
		return size;
	}
	assert_int_equal(bh_get_be32(r->raw.basic.command), BH_USBIP_CMD_SUBMIT);
	r->submit = bh_usbip_get_submit(&r->raw.cmd_submit);
	assert_int_equal(r->submit.devid, RIG_DEVID);
	iso = r->submit.endpoint == (ISO_IN & 15) || r->submit.endpoint == ISO_OUT;
	data = r->submit.in ? 0 : r->submit.length;
	packets = iso ? r->submit.packets : 0;
	if (server.have < size + data + packets * sizeof(struct bh_usbip_iso_packet))
		return 0;
	memcpy(r->data, server.input + size, BH_MIN(data, sizeof(r->data)));
	size += data;
	for (unsigned i = 0; i < packets; i++, size += sizeof(struct bh_usbip_iso_packet)) {
		struct bh_usbip_iso_packet wire;

		memcpy(&wire, server.input + size, sizeof(wire));
		if (i < BH_COUNT(r->packets))
			r->packets[i] = bh_usbip_get_packet(&wire);
	}
	return size;
}

static inline void server_drop_input(size_t size)
{
	server.have -= size;
	memmove(server.input, server.input + size, server.have);
}

static inline bool server_take(void)
{
	struct rig_request *r = &server.requests[server.count];
	struct bh_usbip_import_request import;
	size_t size;

	if (server.mute)
		return false;
	if (!server.asked) {
		if (server.have < sizeof(import))
			return false;
		memcpy(&import, server.input, sizeof(import));
		memcpy(server.busid, import.busid, sizeof(server.busid));
		assert_int_equal(bh_usbip_get_op(&import.header).code, BH_USBIP_REQ_IMPORT);
		assert_int_equal(bh_usbip_get_op(&import.header).version, 0x0111);
		server_drop_input(sizeof(import));
		server.asked = true;
		server_op();
		return true;
	}
	assert_true(server.count < RIG_REQUESTS);
	size = server_parse(r);
	if (!size)
		return false;
	server_drop_input(size);
	if (r->unlinks || !server_describes(r))
		server.count++;
	return true;
}

/* True: something happened. */
static inline bool server_run(void)
{
	bool any = server_flush();
	ssize_t n;

	if (server.fd < 0 || server.deaf)
		return any;
	n = recv(server.fd, server.input + server.have, sizeof(server.input) - server.have, MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN)) {
		server_close();
		return true;
	}
	if (n > 0)
		server.have += (size_t)n;
	while (server_take())
		any = true;
	return any || n > 0;
}

/* The n-th request that was not answered by itself. */
static inline struct rig_request *request(unsigned n)
{
	assert_true(n < server.count);
	return &server.requests[n];
}

/* --- the bus -------------------------------------------------------------------------------- */

struct rig_transfer {
	struct bh_transfer transfer;
	struct iovec spans[2];
	struct bh_packet packets[16];
	bool running, cancelled;
	enum bh_status status;
	unsigned order; /* the how manieth that ended */
	uint8_t data[8192];
};

static struct rig_bus {
	bool shown;
	unsigned detaches, ended;
	struct rig_transfer *running[300];
	unsigned lines;
	char line[300];
	bool too_fast;
} bus;

static uv_loop_t loop;
static struct bh_usbip *client;
static struct rig_transfer transfers[300];

static inline struct bh_device *device(void)
{
	return &client->real.device;
}

static inline int rig_attached(struct bh_device *d)
{
	if (d->speed > BH_SPEED_FULL)
		return -ENOTSUP;
	bus.shown = true;
	return 0;
}

/* As the bus does it: what was cancelled already is not cancelled again. */
static inline void rig_detached(struct bh_device *d)
{
	bus.shown = false;
	bus.detaches++;
	for (unsigned i = 0; i < BH_COUNT(bus.running); i++) {
		struct rig_transfer *t = bus.running[i];

		if (!t || t->cancelled)
			continue;
		t->cancelled = true;
		bh_device_cancel(d, &t->transfer);
		assert_false(t->running);
	}
}

static inline void rig_wakeup(struct bh_device *d)
{
	(void)d;
}

static const struct bh_device_upcalls rig_upcalls = {
	.attached = rig_attached,
	.detached = rig_detached,
	.wakeup = rig_wakeup,
};

static inline void rig_done(struct bh_transfer *t, enum bh_status status)
{
	struct rig_transfer *r = bh_container_of(t, struct rig_transfer, transfer);

	assert_true(r->running);
	assert_true(t->actual <= t->length);
	r->running = false;
	r->status = status;
	r->order = ++bus.ended;
	for (unsigned i = 0; i < BH_COUNT(bus.running); i++)
		if (bus.running[i] == r)
			bus.running[i] = NULL;
}

static inline struct rig_transfer *prepare(unsigned n, uint8_t endpoint, enum bh_endpoint_type type, uint32_t length)
{
	struct rig_transfer *t = &transfers[n];

	assert_false(t->running);
	memset(t, 0, sizeof(*t));
	/* Two spans, so that whoever forgets the second is found out. */
	t->spans[0] = (struct iovec){.iov_base = t->data, .iov_len = BH_MIN(length, 5)};
	t->spans[1] = (struct iovec){.iov_base = t->data + 5, .iov_len = length - t->spans[0].iov_len};
	t->transfer = (struct bh_transfer){
		.endpoint = endpoint,
		.type = type,
		.spans = t->spans,
		.span_count = 2,
		.length = length,
		.done = rig_done,
	};
	if (!(endpoint & BH_ENDPOINT_IN))
		for (uint32_t i = 0; i < BH_MIN(length, sizeof(t->data)); i++)
			t->data[i] = (uint8_t)(i * 7 + n + 1);
	return t;
}

static inline void own(struct rig_transfer *t)
{
	for (unsigned i = 0; i < BH_COUNT(bus.running); i++)
		if (!bus.running[i]) {
			bus.running[i] = t;
			t->running = true;
			return;
		}
	fail();
}

static inline struct rig_transfer *start(struct rig_transfer *t)
{
	own(t);
	if (t->transfer.type == BH_CONTROL)
		bh_device_request(device(), &t->transfer);
	else
		bh_device_submit(device(), &t->transfer);
	return t;
}

static inline struct rig_transfer *bulk(unsigned n, uint8_t endpoint, uint32_t length)
{
	return start(prepare(n, endpoint, endpoint == INTERRUPT_IN ? BH_INTERRUPT : BH_BULK, length));
}

static inline struct rig_transfer *control(unsigned n, uint8_t type, uint8_t request, uint16_t value, uint16_t index,
                                           uint16_t length)
{
	struct rig_transfer *t = prepare(n, 0, BH_CONTROL, length);

	t->transfer.setup = (struct bh_setup){type, request, bh_put_le16(value), bh_put_le16(index), bh_put_le16(length)};
	return start(t);
}

/* Packets with room between them. */
static inline struct rig_transfer *isochronous(unsigned n, uint8_t endpoint, const uint32_t *lengths, unsigned count)
{
	struct rig_transfer *t = prepare(n, endpoint, BH_ISOCHRONOUS, count * ISO_PACKET);

	for (unsigned i = 0; i < count; i++)
		t->packets[i] = (struct bh_packet){.offset = i * ISO_PACKET, .length = lengths[i], .status = BH_NO_RESPONSE};
	t->transfer.packets = t->packets;
	t->transfer.packet_count = count;
	return start(t);
}

static inline void cancel(struct rig_transfer *t)
{
	assert_true(t->running);
	t->cancelled = true;
	bh_device_cancel(device(), &t->transfer);
}

/* --- both --------------------------------------------------------------------------------------- */

static inline void settle(void)
{
	for (unsigned idle = 0; idle < 3; idle++) {
		if (server_run())
			idle = 0;
		uv_run(&loop, UV_RUN_NOWAIT);
	}
}

static inline void rig_line(void *data, const char *text)
{
	(void)data;
	bus.lines++;
	snprintf(bus.line, sizeof(bus.line), "%s", text);
}

static const struct bh_usbip_config rig_config = {.host = "there", .busid = "1-1.4", .log = {.line = rig_line}};

/* What a server is at first: one that gives us the device. */
static inline void server_reset(int fd)
{
	server_close();
	memset(&server, 0, sizeof(server));
	server.fd = fd;
	server.version = BH_USBIP_VERSION;
	server.code = BH_USBIP_REP_IMPORT;
	server.speed = BH_USBIP_SPEED_FULL;
	server.cut = -1;
}

/* A connection to a server that was changed before, if at all. */
static inline void connect_client(void)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
	server_close();
	server.fd = fds[1];
	server.asked = server.imported = false;
	server.have = server.queued = 0;
	server.count = 0;
	bh_usbip_session_begin(client, fds[0]);
}

static inline int set_up(void **state)
{
	(void)state;
	server.fd = -1;
	server_reset(-1);
	memset(&bus, 0, sizeof(bus));
	memset(transfers, 0, sizeof(transfers));
	uv_loop_init(&loop);
	client = bh_usbip_allocate(&loop, &rig_config, NULL);
	assert_non_null(client);
	device()->upcalls = &rig_upcalls;
	return 0;
}

static inline int tear_down(void **state)
{
	(void)state;
	if (client)
		bh_device_destroy(device());
	client = NULL;
	for (unsigned i = 0; i < BH_COUNT(bus.running); i++)
		assert_null(bus.running[i]);
	server_close();
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	return 0;
}

/* Shown, configured. */
static inline void arrive(void)
{
	connect_client();
	settle();
	assert_true(bus.shown);
	control(0, 0x00, 9, 1, 0, 0);
	settle();
	server_result(request(0), 0, 0, NULL);
	settle();
	assert_int_equal(transfers[0].status, BH_SUCCESS);
	server.count = 0;
}

static inline int set_up_there(void **state)
{
	set_up(state);
	arrive();
	return 0;
}

/* Time runs ahead, so that whatever is owed has been for too long. */
static inline void owed_for_too_long(void)
{
	uv_timer_t *timer = client->session.timer;

	client->session.since_ms -= BH_USBIP_OWED_MS + 1;
	bh_list_each(r, &client->sent, struct bh_usbip_request, link)
		r->since_ms -= BH_USBIP_OWED_MS + 1;
	assert_true(uv_is_active((uv_handle_t *)timer));
	uv_timer_start(timer, timer->timer_cb, 0, 1000);
	settle();
}

#endif
