/*
 * Fuzz target: a USB/IP device against a hostile server. The input is a program of records of
 * eight bytes. The first chooses how the server begins; in each of the others the first byte says
 * what is done (operations[]) and seven say how: by the server, which may answer what it is asked,
 * rightly or not, or send anything; or by the guest, which submits and cancels.
 *
 * What has to hold, besides what the sanitizers see: every transfer ends once, and writes
 * nothing beside its buffer; whatever the server sends, memory stays within bounds, and all of it
 * is given back.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <uv.h>

#include "../src/host/usbip_private.h"
#include "allocated.h"
#include "peer_guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* What waits to be sent, with a message of 1 MiB; what is received; requests; and the sockets. */
#define MOST_MEMORY (4u << 20)

#define ISO_IN  0x05u /* endpoint numbers; as peer_guest.h has them */
#define ISO_OUT 0x06u

static uv_loop_t loop;
static struct bh_usbip *client;
static int peer = -1; /* its end; -1: closed */
static bool deaf;     /* the peer does not read */

/* --- the peer's side ---------------------------------------------------------------------------- */

/* What was asked of the peer and is not answered. */
struct asked {
	bool unlink;
	struct bh_usbip_submit submit;
	uint32_t seqnum, target;
	uint32_t lengths[16]; /* of packets */
};
#define MOST_ASKED 64u

static struct {
	bool nice;       /* answers descriptors and settings by itself, rightly */
	bool nice_ends;  /* and unlinks */
	uint8_t speed, status;
	uint8_t in[4096]; /* of a message, as far as it is looked at */
	size_t have, want, skip;
	bool imported;
	struct asked asked[MOST_ASKED];
	unsigned asked_count;
} p;

static void send_bytes(const void *bytes, size_t count)
{
	if (peer >= 0 && count)
		(void)!send(peer, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL); /* what does not fit is lost, which is hostile, too */
}

static void send_filler(size_t count)
{
	static const uint8_t filler[65536] = {0x5a, 0x5a, 0x5a};

	for (; count; count -= BH_MIN(count, sizeof(filler)))
		send_bytes(filler, BH_MIN(count, sizeof(filler)));
}

static void send_result(const struct asked *a, int32_t status, uint32_t actual, uint32_t packets)
{
	struct bh_usbip_result r = {.seqnum = a->seqnum, .status = status, .actual = actual, .packets = packets};
	struct bh_usbip_ret_submit m = bh_usbip_put_result(&r);

	send_bytes(&m, sizeof(m));
}

static void send_unlinked(const struct asked *a, int32_t status)
{
	struct bh_usbip_unlinked r = {.seqnum = a->seqnum, .status = status};
	struct bh_usbip_ret_unlink m = bh_usbip_put_unlinked(&r);

	send_bytes(&m, sizeof(m));
}

static void say_device(void)
{
	struct bh_usbip_op_header h = bh_usbip_put_op(BH_USBIP_REP_IMPORT, p.status);
	struct bh_usbip_device_fields f = {.busnum = 1, .devnum = 4, .speed = p.speed, .vendor = 0x1234};
	struct bh_usbip_device d = bh_usbip_put_device(&f);

	send_bytes(&h, sizeof(h));
	if (!p.status)
		send_bytes(&d, sizeof(d));
}

/* Descriptors and settings, as a device that is as it says. */
static bool answered_nicely(const struct asked *a)
{
	const struct bh_setup *s = &a->submit.setup;
	const uint8_t *bytes = s->wValue.b[1] == 1 ? device_descriptor : configuration;
	uint32_t length = BH_MIN(a->submit.length, bytes[0] == 18 ? 18u : 97u);

	if (a->unlink && p.nice_ends) {
		send_unlinked(a, -BH_USBIP_ECONNRESET);
		return true;
	}
	if (a->unlink || !p.nice || a->submit.endpoint)
		return false;
	if (s->bmRequestType == 0x80 && s->bRequest == 6) {
		send_result(a, 0, length, 0);
		send_bytes(bytes, length);
		return true;
	}
	if (s->bmRequestType > 1 || (s->bRequest != 9 && s->bRequest != 11))
		return false;
	send_result(a, 0, 0, 0);
	return true;
}

static void forget_asked(unsigned i)
{
	memmove(p.asked + i, p.asked + i + 1, (p.asked_count - i - 1) * sizeof(p.asked[0]));
	p.asked_count--;
}

static void note(const struct asked *a)
{
	if (answered_nicely(a))
		return;
	if (p.asked_count == MOST_ASKED)
		forget_asked(0);
	p.asked[p.asked_count++] = *a;
}

static bool is_isochronous(const struct asked *a)
{
	return !a->unlink && (a->submit.endpoint == ISO_IN || a->submit.endpoint == ISO_OUT);
}

/* A message's header is there; what follows it is passed over, but for the descriptors of packets. */
static void look_at_message(void)
{
	union bh_usbip_message m;
	struct asked a = {0};
	struct bh_usbip_unlink u;

	memcpy(&m, p.in, sizeof(m));
	a.unlink = bh_get_be32(m.basic.command) == BH_USBIP_CMD_UNLINK;
	if (a.unlink) {
		u = bh_usbip_get_unlink(&m.cmd_unlink);
		a.seqnum = u.seqnum;
		a.target = u.target;
		note(&a);
		return;
	}
	must(bh_get_be32(m.basic.command) == BH_USBIP_CMD_SUBMIT, "something else than a command was sent");
	a.submit = bh_usbip_get_submit(&m.cmd_submit);
	a.seqnum = a.submit.seqnum;
	must(a.submit.length <= MOST_BYTES && a.submit.endpoint < 16, "a command that makes no sense was sent");
	must(a.submit.packets <= 16 && (!a.submit.packets || is_isochronous(&a)), "packets that nobody wanted");
	p.skip = (a.submit.in ? 0 : a.submit.length) + a.submit.packets * sizeof(struct bh_usbip_iso_packet);
	for (unsigned i = 0; i < a.submit.packets; i++)
		a.lengths[i] = 192; /* as jobs have them */
	note(&a);
}

static void look_through(const uint8_t *bytes, size_t count)
{
	while (count) {
		size_t want = p.imported ? sizeof(union bh_usbip_message) : sizeof(struct bh_usbip_import_request);
		size_t part = p.skip ? BH_MIN(p.skip, count) : BH_MIN(want - p.have, count);

		if (p.skip) {
			p.skip -= part;
		} else {
			memcpy(p.in + p.have, bytes, part);
			p.have += part;
		}
		bytes += part;
		count -= part;
		if (p.have < want)
			continue;
		p.have = 0;
		if (p.imported) {
			look_at_message();
		} else {
			p.imported = true;
			say_device();
		}
	}
}

static void peer_reads(void)
{
	static uint8_t bytes[65536];
	ssize_t n;

	while (peer >= 0 && !deaf && (n = recv(peer, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
		look_through(bytes, (size_t)n);
}

/* --- operations ------------------------------------------------------------------------------------ */

static void turn(void)
{
	uv_run(&loop, UV_RUN_NOWAIT);
	peer_reads();
}

static int32_t some_status(uint8_t choice)
{
	static const uint8_t statuses[] = {0, 0, 0, BH_USBIP_EPIPE, BH_USBIP_EOVERFLOW, BH_USBIP_ECONNRESET, BH_USBIP_EXDEV,
	                                   BH_USBIP_ESHUTDOWN, BH_USBIP_EREMOTEIO};

	return choice & 0x80 ? (int8_t)(choice << 1) : -statuses[choice % BH_COUNT(statuses)];
}

/* Each packet as asked for, or with what r has for it. */
static void answer_packets(const struct asked *a, const uint8_t *r)
{
	struct bh_usbip_iso_packet wire[17];
	uint32_t sum = 0, packets = a->submit.packets + (r[3] & 1) - (r[3] >> 1 & 1), offset = 0;

	for (unsigned i = 0; i < BH_COUNT(wire); i++) {
		struct bh_usbip_packet one = {.offset = offset, .length = i < 16 ? a->lengths[i] : 0};

		one.actual = r[4 + i % 3] & 1 ? one.length : (uint32_t)r[4 + i % 3] + (r[3] & 4 ? i : 0);
		one.status = r[7] & 1 << i % 8 ? some_status(r[2]) : 0;
		offset += one.length;
		sum += i < packets ? one.actual : 0;
		wire[i] = bh_usbip_put_packet(&one);
	}
	sum += r[3] & 8 ? r[5] : 0;
	send_result(a, some_status(r[2]), sum, packets);
	send_filler(a->submit.in ? sum : 0);
	send_bytes(wire, BH_MIN(packets, BH_COUNT(wire)) * sizeof(wire[0]));
}

/* which, status, length: all, less, more, any */
static void answer_record(const uint8_t *r)
{
	unsigned i;
	struct asked a;
	uint32_t length;

	if (!p.asked_count)
		return;
	i = r[1] % p.asked_count;
	a = p.asked[i];
	length = a.submit.length;
	switch (r[3] & 7) {
	case 0:
		length -= BH_MIN(length, r[4]);
		break;
	case 1:
		length += r[4];
		break;
	case 2:
		length = (uint32_t)r[4] << 24 | r[5];
		break;
	case 3:
		length = 0;
		break;
	}
	if (a.unlink) {
		send_unlinked(&a, some_status(r[2]));
	} else if (is_isochronous(&a)) {
		answer_packets(&a, r);
	} else {
		send_result(&a, some_status(r[2]), length, r[7]);
		send_filler(a.submit.in ? BH_MIN(length, MOST_BYTES) : 0);
	}
	if (!(r[3] & 0x80)) /* and again, perhaps */
		forget_asked(i);
}

/* A message of these: command, seqnum, status, actual, packets. */
static void header_record(const uint8_t *r)
{
	struct bh_usbip_result fields = {
		.seqnum = r[2], .status = some_status(r[3]), .actual = (uint32_t)r[4] << (r[5] & 31), .packets = r[6],
	};
	struct bh_usbip_ret_submit m = bh_usbip_put_result(&fields);

	m.basic.command = bh_put_be32(r[1] & 7);
	send_bytes(&m, r[7] & 0x80 ? r[7] % (sizeof(m) + 1) : sizeof(m));
}

static void raw_record(const uint8_t *r)
{
	send_bytes(r + 1, 7);
}

static void wait_record(const uint8_t *r)
{
	for (unsigned i = r[1] % 4u + 1; i; i--)
		turn();
}

static void listen_record(const uint8_t *r)
{
	deaf = r[1] & 1;
	p.nice_ends = r[1] & 2;
	p.nice = r[1] & 4;
	if (r[1] == 0xff && peer >= 0)
		shutdown(peer, SHUT_WR);
	if (r[1] == 0xfe && peer >= 0) {
		close(peer);
		peer = -1;
	}
}

/* What is owed has been for too long. */
static void late_record(const uint8_t *r)
{
	uv_timer_t *timer = client->session.timer;

	(void)r;
	if (client->session.fd < 0 || !uv_is_active((uv_handle_t *)timer))
		return;
	client->session.since_ms -= BH_USBIP_OWED_MS + 1;
	bh_list_each(q, &client->sent, struct bh_usbip_request, link)
		q->since_ms -= BH_USBIP_OWED_MS + 1;
	uv_timer_start(timer, timer->timer_cb, 0, 1000);
}

static void connect_peer(const uint8_t *r)
{
	int fds[2];

	if (client->session.fd >= 0)
		return;
	if (peer >= 0)
		close(peer);
	memset(&p, 0, sizeof(p));
	p.nice = !(r[1] & 1);
	p.nice_ends = r[1] & 2;
	p.speed = r[2] & 0x80 ? r[2] & 7 : BH_USBIP_SPEED_FULL;
	p.status = r[2] & 0x40 ? r[3] : 0;
	deaf = false;
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0, "no sockets");
	peer = fds[1];
	bh_usbip_session_begin(client, fds[0]);
}

static void (*const operations[])(const uint8_t *record) = {
	submit_record, submit_record, submit_record, submit_control, submit_control, cancel_record, cancel_record, reset,
	answer_record, answer_record, answer_record, answer_record, header_record, raw_record, wait_record, wait_record,
	listen_record, late_record, connect_peer,
};

/* --- a program --------------------------------------------------------------------------------------- */

static void begin(const uint8_t *r)
{
	struct bh_usbip_config config = {.host = "there", .busid = "1-1"};

	shown = false;
	client = bh_usbip_allocate(&loop, &config, NULL);
	must(client, "no device");
	layers.loop = &loop;
	take_device(&client->real.device);
	connect_peer(r);
	for (unsigned i = 0; i < 8; i++)
		turn();
	if (r[4] & 1)
		return;
	submit_control((uint8_t[RECORD]){0, 0});
	turn();
	submit_control((uint8_t[RECORD]){0, 1});
	turn();
	turn();
}

static void end(void)
{
	device->upcalls = NULL;
	bh_device_destroy(device);
	none_runs();
	forget_jobs();
	if (peer >= 0)
		close(peer);
	peer = -1;
	for (unsigned i = 0; i < 3; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	must(!uv_loop_alive(&loop), "something is left in the loop");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	ptrdiff_t before = fuzz_allocated();
	uint8_t record[RECORD] = {0};

	memcpy(record, data, BH_MIN(size, RECORD));
	begin(record);
	for (size_t at = RECORD; at < size; at += RECORD) {
		memset(record, 0, sizeof(record));
		memcpy(record, data + at, BH_MIN(size - at, RECORD));
		operations[record[0] % BH_COUNT(operations)](record);
		if (!(record[0] & 0x80))
			turn();
		must(fuzz_allocated() < before + (ptrdiff_t)(jobs_memory() + MOST_MEMORY), "memory without bounds");
	}
	end();
	must(fuzz_allocated() == before, "memory was lost");
	return 0;
}

/* What the loop keeps from its first use on is there before anything is counted. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const uint8_t nothing[RECORD];

	(void)argc, (void)argv;
	uv_loop_init(&loop);
	for (unsigned i = 0; i < 2; i++) { /* the second lets go of what the first one kept */
		begin(nothing);
		end();
	}
	return 0;
}
