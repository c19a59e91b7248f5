/*
 * Fuzz target: a usbredir device against a hostile peer. The input is a program of records of
 * eight bytes. The first chooses what the peer can do, and how it begins; in each of the others
 * the first byte says what is done (operations[]) and seven say how: by the peer, which may answer
 * what it is asked, rightly or not, or send anything; or by the guest, which submits and cancels.
 *
 * What has to hold, besides what the sanitizers see: every transfer ends once, and writes
 * nothing beside its buffer; whatever the peer sends, memory stays within bounds, and all of it is
 * given back.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <usbredirproto.h>
#include <uv.h>

#include <base/util.h>
#include <host/usbredir.h>

#include "allocated.h"
#include "peer_guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* Two times 1 MiB to be sent, 1 MiB that is received, the same in the sockets, and small things. */
#define MOST_MEMORY (6u << 20)

static uv_loop_t loop;
static int peer = -1; /* its end; -1: closed */
static bool deaf;     /* the peer does not read */

/* --- the peer's side ---------------------------------------------------------------------------- */

/* What was asked of the peer and is not answered, as it came. */
struct asked {
	uint32_t type;
	uint64_t id;
	uint8_t header[10];
};
#define MOST_ASKED 64u

static struct {
	uint32_t capabilities; /* said in its hello */
	bool wide;             /* ids of 64 bits */
	bool nice;             /* answers descriptors and settings by itself, rightly */
	uint8_t in[64];        /* a header, and what follows it, as far as it is looked at */
	size_t have, skip;
	bool greeted;
	struct asked asked[MOST_ASKED];
	unsigned asked_count;
} p;

static void put(uint8_t *to, uint64_t value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		to[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t get(const uint8_t *from, unsigned bytes)
{
	uint64_t value = 0;

	for (unsigned i = bytes; i--;)
		value = value << 8 | from[i];
	return value;
}

static void send_bytes(const void *bytes, size_t count)
{
	if (peer >= 0 && count)
		(void)!send(peer, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL); /* what does not fit is lost, which is hostile, too */
}

static void send_message(uint32_t type, uint64_t id, const void *header, size_t header_size, const void *data, size_t size)
{
	static uint8_t message[300000];
	size_t at = p.wide && type != usb_redir_hello ? 16 : 12;

	size = BH_MIN(size, sizeof(message) - at - header_size);
	put(message, type, 4);
	put(message + 4, header_size + size, 4);
	put(message + 8, id, (unsigned)at - 8);
	if (header_size)
		memcpy(message + at, header, header_size);
	if (data)
		memcpy(message + at + header_size, data, size);
	else
		memset(message + at + header_size, 0x5a, size);
	send_bytes(message, at + header_size + size);
}

static void say_hello(void)
{
	uint8_t hello[68] = "a peer";

	put(hello + 64, p.capabilities, 4);
	send_message(usb_redir_hello, 0, hello, sizeof(hello), NULL, 0);
	p.wide = p.capabilities & 1u << usb_redir_cap_64bits_ids;
}

static void say_device(uint8_t speed)
{
	uint8_t interfaces[132] = {1}, endpoints[160], d[10] = {speed, 0xff, 0, 0, 0x34, 0x12, 0x78, 0x56, 1, 1};
	bool sizes = p.capabilities & 1u << usb_redir_cap_ep_info_max_packet_size;
	bool version = p.capabilities & 1u << usb_redir_cap_connect_device_version;

	memset(endpoints, 0xff, 32);
	memset(endpoints + 32, 0, sizeof(endpoints) - 32);
	send_message(usb_redir_ep_info, 0, endpoints, sizes ? 160 : 96, NULL, 0);
	send_message(usb_redir_interface_info, 0, interfaces, sizeof(interfaces), NULL, 0);
	send_message(usb_redir_device_connect, 0, d, version ? 10 : 8, NULL, 0);
}

/* How long the header of such a message is behind the common one. */
static size_t type_header(uint32_t type)
{
	switch (type) {
	case usb_redir_control_packet:
		return 10;
	case usb_redir_bulk_packet:
		return p.capabilities & 1u << usb_redir_cap_32bits_bulk_length ? 10 : 8;
	case usb_redir_iso_packet:
	case usb_redir_interrupt_packet:
		return 4;
	case usb_redir_configuration_status:
	case usb_redir_iso_stream_status:
	case usb_redir_interrupt_receiving_status:
		return 2;
	case usb_redir_alt_setting_status:
		return 3;
	}
	return 0;
}

/* With this status, and so many bytes moved; a little beside the truth, if wanted. */
static void answer(const struct asked *a, uint8_t status, uint32_t length)
{
	uint8_t h[10];
	bool in = a->header[0] & 0x80;

	memcpy(h, a->header, sizeof(h));
	switch (a->type) {
	case usb_redir_control_packet:
		h[3] = status;
		put(h + 8, length, 2);
		send_message(a->type, a->id, h, 10, NULL, in ? (uint16_t)length : 0);
		break;
	case usb_redir_bulk_packet:
		h[1] = status;
		put(h + 2, length, 2);
		put(h + 8, length >> 16, 2);
		if (type_header(a->type) == 8)
			length = (uint16_t)length;
		send_message(a->type, a->id, h, type_header(a->type), NULL, in ? length : 0);
		break;
	case usb_redir_interrupt_packet:
		h[1] = status;
		put(h + 2, length, 2);
		send_message(a->type, a->id, h, 4, NULL, 0);
		break;
	case usb_redir_set_configuration:
	case usb_redir_get_configuration:
		send_message(usb_redir_configuration_status, a->id, (uint8_t[]){status, h[0]}, 2, NULL, 0);
		break;
	case usb_redir_set_alt_setting:
	case usb_redir_get_alt_setting:
		send_message(usb_redir_alt_setting_status, a->id, (uint8_t[]){status, h[0], h[1]}, 3, NULL, 0);
		break;
	case usb_redir_start_iso_stream:
	case usb_redir_stop_iso_stream:
		send_message(usb_redir_iso_stream_status, a->id, (uint8_t[]){status, h[0]}, 2, NULL, 0);
		break;
	case usb_redir_start_interrupt_receiving:
	case usb_redir_stop_interrupt_receiving:
		send_message(usb_redir_interrupt_receiving_status, a->id, (uint8_t[]){status, h[0]}, 2, NULL, 0);
		break;
	}
}

/* What it asked for, in bytes. */
static uint32_t length_of(const struct asked *a)
{
	switch (a->type) {
	case usb_redir_control_packet:
		return (uint32_t)get(a->header + 8, 2);
	case usb_redir_bulk_packet:
		return (uint32_t)(get(a->header + 2, 2) | (type_header(a->type) == 10 ? get(a->header + 8, 2) << 16 : 0));
	case usb_redir_interrupt_packet:
		return (uint32_t)get(a->header + 2, 2);
	}
	return 0;
}

/* Descriptors and settings, as a device that is as it says. */
static bool answered_nicely(const struct asked *a)
{
	const uint8_t *h = a->header, *bytes = h[5] == 1 ? device_descriptor : configuration;
	uint8_t head[10];

	if (!p.nice)
		return false;
	if (a->type == usb_redir_control_packet && h[2] == 0x80 && h[1] == 6) {
		uint32_t length = BH_MIN(length_of(a), bytes[0] == 18 ? 18u : 97u);

		memcpy(head, h, sizeof(head));
		head[3] = 0;
		put(head + 8, length, 2);
		send_message(a->type, a->id, head, 10, bytes, length);
		return true;
	}
	if (a->type < usb_redir_set_configuration || a->type > usb_redir_stop_interrupt_receiving)
		return false;
	answer(a, usb_redir_success, 0);
	return true;
}

static void note(const struct asked *a)
{
	if (a->type == usb_redir_hello || a->type == usb_redir_reset || (a->type >= usb_redir_cancel_data_packet &&
	    a->type < usb_redir_control_packet) || answered_nicely(a))
		return;
	if (p.asked_count == MOST_ASKED) {
		memmove(p.asked, p.asked + 1, sizeof(p.asked) - sizeof(p.asked[0]));
		p.asked_count--;
	}
	p.asked[p.asked_count++] = *a;
}

/* Looks through what came: each header, and the first bytes behind it. */
static void look_through(const uint8_t *bytes, size_t count)
{
	while (count) {
		size_t header = p.greeted && p.wide ? 16 : 12, length, want, part;
		struct asked a = {0};

		if (p.skip) {
			part = BH_MIN(p.skip, count);
			p.skip -= part;
			bytes += part;
			count -= part;
			continue;
		}
		want = p.have < header ? header : header + BH_MIN(get(p.in + 4, 4), sizeof(a.header));
		part = BH_MIN(want - p.have, count);
		memcpy(p.in + p.have, bytes, part);
		p.have += part;
		bytes += part;
		count -= part;
		if (p.have < header)
			continue;
		length = get(p.in + 4, 4);
		must(length < 2u << 20, "a message without end was sent");
		if (p.have < header + BH_MIN(length, sizeof(a.header)))
			continue;
		a.type = (uint32_t)get(p.in, 4);
		a.id = get(p.in + 8, (unsigned)header - 8);
		memcpy(a.header, p.in + header, p.have - header);
		p.skip = length - (p.have - header);
		p.have = 0;
		p.greeted = true;
		note(&a);
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
	length = length_of(&a);
	switch (r[3] & 7) {
	case 0:
		length -= BH_MIN(length, r[4]);
		break;
	case 1:
		length += r[4];
		break;
	case 2:
		length = (uint32_t)get(r + 4, 3);
		break;
	case 3:
		length = 0;
		break;
	}
	if (r[3] & 0x40)
		a.header[0] ^= r[7];
	answer(&a, r[2] & 0x80 ? r[2] & 0x7f : r[2] % 7, length);
	if (r[3] & 0x80)
		return; /* and again, perhaps */
	memmove(p.asked + i, p.asked + i + 1, (p.asked_count - i - 1) * sizeof(a));
	p.asked_count--;
}

/* type, id, status and endpoint, length */
static void unasked(const uint8_t *r)
{
	static const uint32_t types[] = {
		usb_redir_interrupt_packet, usb_redir_iso_packet, usb_redir_iso_stream_status,
		usb_redir_interrupt_receiving_status, usb_redir_bulk_packet, usb_redir_control_packet,
		usb_redir_configuration_status, usb_redir_alt_setting_status,
	};
	static const uint8_t endpoints[] = {0x83, 0x85, 0x06, 0x81, 0x02, 0x04, 0x80, 0x00};
	uint32_t type = types[r[1] & 7];
	uint16_t length = (uint16_t)(r[5] | (r[6] & 3) << 8);
	uint8_t h[10] = {endpoints[r[4] & 7], r[3], r[5], r[6] & 3, r[7]};

	if (type == usb_redir_iso_stream_status || type == usb_redir_interrupt_receiving_status) {
		h[0] = r[3] & 0x80 ? r[3] & 0x7f : r[3] % 7;
		h[1] = endpoints[r[4] & 7];
	}
	if (type_header(type) < 4 || (r[4] & 0x40))
		length = 0;
	for (unsigned n = r[1] >> 3; n != UINT32_MAX; n--)
		send_message(type, r[2] + (r[7] & 1 ? r[1] >> 3 : 0) - n, h, type_header(type), NULL, length);
}

/* type, length */
static void header_record(const uint8_t *r)
{
	uint8_t h[16] = {0};

	put(h, r[1] & 0x80 ? r[1] & 0x7fu : r[1] % 32u + (r[1] & 0x40 ? 96 : 0), 4);
	put(h + 4, r[2] & 0x80 ? get(r + 3, 4) : r[2], 4);
	put(h + 8, r[7], 4);
	send_bytes(h, p.wide ? 16 : 12);
}

static void raw_record(const uint8_t *r)
{
	send_bytes(r + 1, 7);
}

static void device_record(const uint8_t *r)
{
	uint8_t interfaces[132];

	switch (r[1] & 7) {
	case 0:
		say_hello();
		break;
	case 1:
	case 2:
		send_message(usb_redir_device_disconnect, 0, NULL, 0, NULL, 0);
		break;
	case 3:
		memset(interfaces, r[2], sizeof(interfaces));
		put(interfaces, r[3], 4);
		send_message(usb_redir_interface_info, 0, interfaces, sizeof(interfaces), NULL, 0);
		break;
	case 4:
		send_message(usb_redir_filter_filter, 0, r + 2, r[2] & 2 ? 6 : 0, "1,2,3,4,1|-1,-1,-1,-1,0", r[2] & 1 ? 24 : 5);
		break;
	case 5:
		p.nice = r[2] & 1;
		break;
	default:
		say_device(r[2] & 0x80 ? r[2] : usb_redir_speed_full);
		break;
	}
}

static void wait_record(const uint8_t *r)
{
	for (unsigned i = r[1] % 4u + 1; i; i--)
		turn();
}

static void listen_record(const uint8_t *r)
{
	deaf = r[1] & 1;
	if (r[1] == 0xff && peer >= 0)
		shutdown(peer, SHUT_WR);
	if (r[1] == 0xfe && peer >= 0) {
		close(peer);
		peer = -1;
	}
}

static void (*const operations[])(const uint8_t *record) = {
	submit_record, submit_record, submit_record, submit_control, submit_control, cancel_record, cancel_record, reset,
	answer_record, answer_record, answer_record, answer_record, unasked, unasked, header_record, raw_record,
	device_record, wait_record, wait_record, listen_record,
};

/* --- a program --------------------------------------------------------------------------------------- */

static void begin(const uint8_t *r)
{
	struct bh_usbredir_config config = {.filter = r[2] & 1 ? "0xff:-1:-1:-1:1|-1:-1:-1:-1:0" : NULL};
	char error[256];
	int fds[2];

	memset(&p, 0, sizeof(p));
	p.capabilities = r[1] & 0xffu;
	p.nice = !(r[2] & 2);
	deaf = shown = false;
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0, "no sockets");
	peer = fds[1];
	config.fd = fds[0];
	layers.loop = &loop;
	must(bh_usbredir_create(&loop, &config, &device, error, sizeof(error)) == 0, "no device");
	take_device(device);
	if (r[2] & 4)
		return;
	say_hello();
	turn();
	say_device(r[3] & 0x80 ? r[3] : usb_redir_speed_full);
	for (unsigned i = 0; i < 5; i++)
		turn();
	if (r[2] & 8)
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
