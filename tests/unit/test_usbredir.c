/* A device of a usbredir server: against a scripted one in this process (usbredir_peer.h). */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/un.h>

#include <cmocka.h>

#include <base/util.h>
#include <host/usbredir.h>
#include <net/socket.h>
#include <usb/device.h>

#include "usbredir_peer.h"

#define MOST (300u * 1024)

static uv_loop_t loop;
static uv_timer_t heartbeat; /* so that a wait can give up */
static struct bh_device *device;
static struct peer *peer;
static unsigned attached, detached;
static enum bh_speed fastest; /* of the port */
static char lines[8192];      /* what was said */

/* --- time: that of the loop goes on as the tests say (--wrap=uv_now) ------------------------- */

static uint64_t ahead_ms;
uint64_t __real_uv_now(const uv_loop_t *l);
uint64_t __wrap_uv_now(const uv_loop_t *l);

uint64_t __wrap_uv_now(const uv_loop_t *l)
{
	return __real_uv_now(l) + ahead_ms;
}

/* Runs the loop until something is so; fails when that takes long. */
#define until(condition)                                                              \
	do {                                                                          \
		uint64_t until_start = uv_hrtime();                                   \
		while (!(condition)) {                                                \
			uv_run(&loop, UV_RUN_ONCE);                                   \
			if (uv_hrtime() - until_start > 20000000000u)                 \
				fail_msg("line %d: never: %s", __LINE__, #condition); \
		}                                                                     \
	} while (0)

/* Both sides do what they have to do. */
static void settle(void)
{
	for (unsigned i = 0; i < 30; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
}

/* --- transfers ---------------------------------------------------------------------------------- */

struct job {
	struct bh_transfer t;
	struct iovec spans[2];
	struct bh_list link; /* jobs under way */
	unsigned done, progress;
	enum bh_status status;
	uint8_t *data; /* of the job, with guards around it */
	struct bh_packet packets[64];
};

#define GUARD 64u

static struct bh_list under_way;

static void job_done(struct bh_transfer *t, enum bh_status status)
{
	struct job *j = bh_container_of(t, struct job, t);

	j->done++;
	j->status = status;
	bh_list_remove(&j->link);
}

static void job_progress(struct bh_transfer *t)
{
	bh_container_of(t, struct job, t)->progress++;
}

static void prepare(struct job *j, uint8_t endpoint, enum bh_endpoint_type type, uint32_t length)
{
	*j = (struct job){.done = 0};
	j->data = malloc(length + 2 * GUARD);
	memset(j->data, 0xa5, length + 2 * GUARD);
	j->data += GUARD;
	j->spans[0] = (struct iovec){.iov_base = j->data, .iov_len = length / 3};
	j->spans[1] = (struct iovec){.iov_base = j->data + length / 3, .iov_len = length - length / 3};
	j->t = (struct bh_transfer){
		.endpoint = endpoint,
		.type = type,
		.spans = j->spans,
		.span_count = 2,
		.length = length,
		.done = job_done,
		.progress = job_progress,
	};
	bh_list_init(&j->link);
}

static void check_guards(const struct job *j)
{
	for (unsigned i = 0; i < GUARD; i++) {
		assert_int_equal(j->data[-1 - (int)i], 0xa5);
		assert_int_equal(j->data[j->t.length + i], 0xa5);
	}
}

static void forget(struct job *j)
{
	assert_int_equal(j->done, 1);
	check_guards(j);
	free(j->data - GUARD);
	j->data = NULL;
}

static void submit(struct job *j)
{
	bh_list_append(&under_way, &j->link);
	bh_device_submit(device, &j->t);
}

static void start(struct job *j, uint8_t endpoint, uint32_t length)
{
	prepare(j, endpoint, endpoint == INTERRUPT_IN || endpoint == INTERRUPT_OUT ? BH_INTERRUPT : BH_BULK, length);
	submit(j);
}

static void fill(uint8_t *p, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1664525u + 1013904223u;
		p[i] = (uint8_t)(seed >> 24);
	}
}

static void start_out(struct job *j, uint32_t length, unsigned flags)
{
	prepare(j, BULK_OUT, BH_BULK, length);
	j->t.flags = flags;
	fill(j->data, length, length);
	submit(j);
}

static void start_iso(struct job *j, uint8_t endpoint, unsigned packets)
{
	prepare(j, endpoint, BH_ISOCHRONOUS, packets * ISO_PACKET);
	for (unsigned i = 0; i < packets; i++)
		j->packets[i] = (struct bh_packet){.offset = i * ISO_PACKET, .length = ISO_PACKET, .status = BH_NO_RESPONSE};
	j->t.packets = j->packets;
	j->t.packet_count = packets;
	submit(j);
}

static void start_control(struct job *j, uint8_t type, uint8_t request, uint16_t value, uint16_t index, uint16_t length)
{
	prepare(j, 0, BH_CONTROL, length);
	j->t.setup =
		(struct bh_setup){type, request, bh_put_le16(value), bh_put_le16(index), bh_put_le16(length)};
	bh_list_append(&under_way, &j->link);
	bh_device_request(device, &j->t);
}

static void assert_ended(struct job *j, enum bh_status status, uint32_t actual)
{
	until(j->done);
	assert_int_equal(j->status, status);
	assert_int_equal(j->t.actual, actual);
	forget(j);
}

/* --- the port the device is in -------------------------------------------------------------------- */

static int port_attached(struct bh_device *d)
{
	if (d->speed > fastest)
		return -ENOTSUP;
	attached++;
	bh_device_reset(d);
	return 0;
}

static void port_detached(struct bh_device *d)
{
	detached++;
	bh_list_each(j, &under_way, struct job, link)
		bh_device_cancel(d, &j->t);
	assert_true(bh_list_empty(&under_way));
}

static const struct bh_device_upcalls upcalls = {
	.attached = port_attached,
	.detached = port_detached,
};

/* --- beginning and end ------------------------------------------------------------------------------ */

static char error[256];

static void say(void *data, const char *text)
{
	size_t used = strlen(lines);

	(void)data;
	assert_null(strchr(text, '\n'));
	snprintf(lines + used, sizeof(lines) - used, "%s\n", text);
}

static void beat(uv_timer_t *t)
{
	(void)t;
}

static int setup(void **state)
{
	(void)state;
	uv_loop_init(&loop);
	uv_timer_init(&loop, &heartbeat);
	uv_timer_start(&heartbeat, beat, 100, 100);
	bh_list_init(&under_way);
	attached = detached = 0;
	ahead_ms = 0;
	fastest = BH_SPEED_FULL;
	lines[0] = '\0';
	device = NULL;
	peer = NULL;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (device) {
		device->upcalls = NULL;
		bh_device_destroy(device);
		assert_true(bh_list_empty(&under_way));
	}
	peer_destroy(peer);
	uv_close((uv_handle_t *)&heartbeat, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	return 0;
}

static int create(struct bh_usbredir_config *c)
{
	int r;

	c->log.line = say;
	error[0] = '\0';
	r = bh_usbredir_create(&loop, c, &device, error, sizeof(error));
	if (r == 0)
		device->upcalls = &upcalls;
	return r;
}

static void connect_to(int lacks, const char *filter)
{
	struct bh_usbredir_config c = {.filter = filter};
	int fds[2], little = 4096;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &little, sizeof(little));
	c.fd = fds[0];
	assert_int_equal(create(&c), 0);
	peer = peer_create(&loop, fds[1], lacks);
	until(peer->greeted && bh_usbredir_connected(device));
}

/* The next message, which has to be of that type. */
static struct message *next(unsigned type)
{
	struct message *m;

	until(peer->taken < peer->count);
	m = &peer->messages[peer->taken++ % PEER_MESSAGES];
	if (m->type != type)
		fail_msg("message %u came, not %u", m->type, type);
	return m;
}

static void assert_nothing_sent(void)
{
	settle();
	if (peer->taken != peer->count)
		fail_msg("message %u came", peer->messages[peer->taken % PEER_MESSAGES].type);
}

static void shown(int lacks)
{
	connect_to(lacks, NULL);
	peer_connect_device(peer);
	until(attached == 1);
}

static void configure(uint8_t value)
{
	struct job j;
	struct message *m;

	start_control(&j, 0, 9, value, 0, 0);
	m = next(usb_redir_set_configuration);
	assert_int_equal(m->configuration.configuration, value);
	peer_answer_configuration(peer, m, usb_redir_success, value);
	assert_ended(&j, BH_SUCCESS, 0);
}

static void ready_without(int lacks)
{
	shown(lacks);
	configure(1);
}

static void ready(void)
{
	ready_without(-1);
}

static void set_alternate(uint8_t value)
{
	struct job j;
	struct message *m;

	start_control(&j, 1, 11, value, 0, 0);
	m = next(usb_redir_set_alt_setting);
	assert_int_equal(m->alternate.interface, 0);
	assert_int_equal(m->alternate.alt, value);
	peer_answer_alternate(peer, m, usb_redir_success, value);
	assert_ended(&j, BH_SUCCESS, 0);
}

static struct bh_usbredir_counters counters(void)
{
	return bh_usbredir_counters(device);
}

/* --- it comes, and goes ------------------------------------------------------------------------------- */

static void test_is_shown_when_it_has_told_what_it_is(void **state)
{
	struct bh_real_info i;

	(void)state;
	connect_to(-1, NULL);
	settle();
	assert_false(bh_real_device_info(device).there);
	peer_connect_device(peer);
	until(attached);
	i = bh_real_device_info(device);
	assert_true(i.there);
	assert_int_equal(i.vendor, 0x1234);
	assert_int_equal(i.product, 0x5678);
	assert_int_equal(i.arrivals, 1);
	assert_int_equal(device->speed, BH_SPEED_FULL);
	assert_int_equal(device->control_max_packet, 64);
	assert_true(device->sticky);
	assert_true(device->cancel_loses);
	assert_null(bh_device_endpoint(device, BULK_IN));
	assert_non_null(strstr(lines, "1234:5678 is there"));
	assert_nothing_sent(); /* no reset: nothing was done to it */
}

static void test_unplugged_and_plugged_in_again(void **state)
{
	struct job in, out;

	(void)state;
	ready();
	start(&in, BULK_IN, 64);
	next(usb_redir_bulk_packet);
	start_out(&out, 64, 0);
	next(usb_redir_bulk_packet);
	peer_disconnect_device(peer);
	until(detached);
	assert_ended(&in, BH_CANCELLED, 0);
	assert_ended(&out, BH_CANCELLED, 0);
	until(peer->acknowledged == 1);
	assert_non_null(strstr(lines, "unplugged"));
	assert_true(bh_usbredir_connected(device));
	peer_connect_device(peer);
	until(attached == 2);
	configure(1);
	start_out(&out, 64, 0);
	peer_answer_bulk(peer, next(usb_redir_bulk_packet), usb_redir_success, NULL, 64);
	assert_ended(&out, BH_SUCCESS, 64);
}

/* What answers the device that is gone says nothing of the one that has come. */
static void test_late_answers_are_not_for_the_next_device(void **state)
{
	struct job j;
	struct message *old;

	(void)state;
	ready();
	start_out(&j, 64, 0);
	old = next(usb_redir_bulk_packet);
	peer_disconnect_device(peer);
	until(detached);
	assert_ended(&j, BH_CANCELLED, 0);
	peer_connect_device(peer);
	until(attached == 2);
	configure(1);
	start_out(&j, 64, 0);
	peer_answer_bulk(peer, old, usb_redir_success, NULL, 64);
	settle();
	assert_int_equal(j.done, 0);
	assert_int_equal(counters().unexpected, 1);
	peer_answer_bulk(peer, next(usb_redir_bulk_packet), usb_redir_stall, NULL, 0);
	assert_ended(&j, BH_STALL, 0);
}

static void test_speeds(void **state)
{
	static const uint8_t said[] = {usb_redir_speed_low, usb_redir_speed_full, usb_redir_speed_high,
	                               usb_redir_speed_super, usb_redir_speed_unknown};
	static const enum bh_speed meant[] = {BH_SPEED_LOW, BH_SPEED_FULL, BH_SPEED_HIGH, BH_SPEED_SUPER, BH_SPEED_HIGH};

	(void)state;
	fastest = BH_SPEED_SUPER;
	connect_to(-1, NULL);
	for (unsigned i = 0; i < BH_COUNT(said); i++) {
		peer->speed = said[i];
		peer_connect_device(peer);
		until(attached == i + 1);
		assert_int_equal(device->speed, meant[i]);
		peer_disconnect_device(peer);
		until(detached == i + 1);
	}
}

static void test_too_fast_for_the_port(void **state)
{
	(void)state;
	connect_to(-1, NULL);
	peer->speed = usb_redir_speed_high;
	peer_connect_device(peer);
	next(usb_redir_filter_reject);
	assert_int_equal(attached, 0);
	assert_non_null(strstr(lines, "high speed, which the guest's full-speed port cannot carry"));
	peer_disconnect_device(peer);
	peer->speed = usb_redir_speed_full;
	peer_connect_device(peer);
	until(attached == 1);
}

static void test_makes_no_sense(void **state)
{
	static const uint8_t nonsense[] = {9, 2, 12, 0, 1, 1, 0, 0x80, 50, 9, 4, 0};

	(void)state;
	connect_to(-1, NULL);
	peer->configuration = nonsense;
	peer_connect_device(peer);
	next(usb_redir_filter_reject);
	assert_int_equal(attached, 0);
	assert_non_null(strstr(lines, "make no sense"));
}

static void test_a_second_device_is_too_many(void **state)
{
	(void)state;
	ready();
	peer_connect_device(peer);
	until(detached);
	assert_non_null(strstr(lines, "a second device came"));
}

/* --- the filter ---------------------------------------------------------------------------------------- */

static void test_filter_rejects(void **state)
{
	(void)state;
	connect_to(-1, "0x08:-1:-1:-1:1");
	next(usb_redir_filter_filter); /* so that they need not even try */
	peer_connect_device(peer);
	next(usb_redir_filter_reject);
	settle();
	assert_int_equal(attached, 0);
	assert_int_equal(counters().rejected, 1);
	assert_non_null(strstr(lines, "1234:5678 is not taken"));
	peer_disconnect_device(peer);
	until(peer->acknowledged);
}

static void test_filter_allows(void **state)
{
	(void)state;
	connect_to(-1, "-1,0x1234,0x5678,-1,1|-1,-1,-1,-1,0");
	assert_int_equal(next(usb_redir_filter_filter)->id, 2);
	peer_connect_device(peer);
	until(attached);
}

/* With another configuration it may be something else. */
static void test_filter_looks_again(void **state)
{
	struct usb_redir_interface_info_header i = {.interface_count = 1, .interface_class = {3}};
	struct job j;

	(void)state;
	connect_to(-1, "0xff:-1:-1:-1:1");
	next(usb_redir_filter_filter);
	peer_connect_device(peer);
	until(attached);
	configure(1);
	start(&j, BULK_IN, 64);
	next(usb_redir_bulk_packet);
	usbredirparser_send_interface_info(peer->parser, &i);
	peer_flush(peer);
	next(usb_redir_filter_reject);
	assert_ended(&j, BH_CANCELLED, 0);
	assert_int_equal(detached, 1);
}

static void test_filter_without_a_peer_that_can(void **state)
{
	(void)state;
	connect_to(usb_redir_cap_filter, "0x08:-1:-1:-1:1");
	peer_connect_device(peer);
	until(counters().rejected);
	assert_nothing_sent();
}

static void test_peer_may_have_a_filter(void **state)
{
	struct usbredirfilter_rule *rules;
	int count;

	(void)state;
	connect_to(-1, NULL);
	assert_int_equal(usbredirfilter_string_to_rules("3,-1,-1,-1,0|-1,-1,-1,-1,1", ",", "|", &rules, &count), 0);
	usbredirparser_send_filter_filter(peer->parser, rules, count);
	usbredirfilter_free(rules);
	peer_connect_device(peer);
	until(attached);
}

/* --- bulk ------------------------------------------------------------------------------------------------- */

/* Sends so much, in so many messages of at most that many bytes. */
static void bulk_out(uint32_t length, uint32_t piece)
{
	struct job j;
	uint32_t moved = 0;

	start_out(&j, length, 0);
	do {
		struct message *m = next(usb_redir_bulk_packet);

		assert_int_equal(m->bulk.endpoint, BULK_OUT);
		assert_int_equal(m->length, BH_MIN(length - moved, piece));
		assert_int_equal(m->bulk.length | m->bulk.length_high << 16, m->length);
		if (m->length)
			assert_memory_equal(m->data, j.data + moved, (size_t)m->length);
		assert_nothing_sent(); /* each when the one before has ended */
		assert_int_equal(j.done, 0);
		peer_answer_bulk(peer, m, usb_redir_success, NULL, (uint32_t)m->length);
		moved += (uint32_t)m->length;
	} while (moved < length);
	assert_ended(&j, BH_SUCCESS, length);
	assert_nothing_sent();
}

static void bulk_in(uint32_t length, uint32_t piece)
{
	static uint8_t bytes[MOST];
	struct job j;
	uint32_t moved = 0;

	fill(bytes, length, length + 1);
	start(&j, BULK_IN, length);
	do {
		struct message *m = next(usb_redir_bulk_packet);
		uint32_t asked = m->bulk.length | (uint32_t)m->bulk.length_high << 16;

		assert_int_equal(m->bulk.endpoint, BULK_IN);
		assert_int_equal(asked, BH_MIN(length - moved, piece));
		assert_int_equal(m->length, 0);
		peer_answer_bulk(peer, m, usb_redir_success, bytes + moved, asked);
		moved += asked;
		settle();
		assert_int_equal(j.progress, moved < length ? moved / piece : j.progress);
	} while (moved < length);
	until(j.done);
	assert_memory_equal(j.data, bytes, length);
	assert_ended(&j, BH_SUCCESS, length);
	assert_nothing_sent();
}

static void test_bulk_of_all_sizes(void **state)
{
	static const uint32_t out[] = {0, 1, 63, 64, 65, 16384, 65535, 65536, 65537, 262144};

	(void)state;
	ready();
	for (unsigned i = 0; i < BH_COUNT(out); i++)
		bulk_out(out[i], UINT32_MAX);
	for (unsigned i = 0; i < BH_COUNT(out); i++)
		if (out[i] && out[i] % 64 == 0)
			bulk_in(out[i], UINT32_MAX);
	assert_int_equal(counters().errors, 0);
}

/* 65535 bytes can be said, 65472 of them are whole packets. */
static void test_bulk_where_lengths_have_16_bits(void **state)
{
	(void)state;
	ready_without(usb_redir_cap_32bits_bulk_length);
	bulk_out(65472, 65472);
	bulk_out(65535, 65472);
	bulk_out(262144, 65472);
	bulk_in(65472, 65472);
	bulk_in(65536, 65472);
	bulk_in(262144, 65472);
}

static void test_32_bit_ids(void **state)
{
	(void)state;
	ready_without(usb_redir_cap_64bits_ids);
	bulk_out(100, UINT32_MAX);
	bulk_in(64, UINT32_MAX);
}

static void test_bulk_out_with_a_zero_packet(void **state)
{
	static const uint32_t lengths[] = {64, 0};
	struct job j;

	(void)state;
	ready();
	for (unsigned i = 0; i < BH_COUNT(lengths); i++) {
		start_out(&j, lengths[i], BH_TRANSFER_ZERO_PACKET);
		if (lengths[i])
			peer_answer_bulk(peer, next(usb_redir_bulk_packet), usb_redir_success, NULL, lengths[i]);
		settle();
		assert_int_equal(j.done, 0);
		assert_int_equal(peer->messages[peer->taken].length, 0);
		peer_answer_bulk(peer, next(usb_redir_bulk_packet), usb_redir_success, NULL, 0);
		assert_ended(&j, BH_SUCCESS, lengths[i]);
		assert_nothing_sent();
	}
}

static void test_short_in_ends_a_transfer(void **state)
{
	static const uint32_t lengths[] = {0, 1, 63, 64, 65, 128};
	static uint8_t bytes[256];
	struct job j;

	(void)state;
	ready();
	for (unsigned i = 0; i < BH_COUNT(lengths); i++) {
		start(&j, BULK_IN, 256);
		peer_answer_bulk(peer, next(usb_redir_bulk_packet), usb_redir_success, bytes, lengths[i]);
		assert_ended(&j, BH_SUCCESS, lengths[i]);
	}
}

static void test_short_in_ends_one_that_was_cut_up(void **state)
{
	static uint8_t bytes[65472];
	struct job j;

	(void)state;
	ready_without(usb_redir_cap_32bits_bulk_length);
	start(&j, BULK_IN, 262144);
	peer_answer_bulk(peer, next(usb_redir_bulk_packet), usb_redir_success, bytes, 65472);
	peer_answer_bulk(peer, next(usb_redir_bulk_packet), usb_redir_success, bytes, 100);
	assert_ended(&j, BH_SUCCESS, 65472 + 100);
	assert_nothing_sent();
	start_out(&j, 262144, 0);
	peer_answer_bulk(peer, next(usb_redir_bulk_packet), usb_redir_success, NULL, 65472);
	peer_answer_bulk(peer, next(usb_redir_bulk_packet), usb_redir_stall, NULL, 1000);
	assert_ended(&j, BH_STALL, 65472 + 960);
	assert_nothing_sent();
}

static void test_errors(void **state)
{
	static const struct {
		uint8_t said;
		enum bh_status meant;
	} table[] = {
		{usb_redir_stall, BH_STALL},       {usb_redir_inval, BH_STALL},
		{usb_redir_babble, BH_BABBLE},     {usb_redir_timeout, BH_NO_RESPONSE},
		{usb_redir_ioerror, BH_BUS_ERROR}, {usb_redir_cancelled, BH_NO_RESPONSE},
		{0x77, BH_BUS_ERROR},
	};
	static uint8_t bytes[256];
	struct job j;

	(void)state;
	ready();
	for (unsigned i = 0; i < BH_COUNT(table); i++) {
		start(&j, BULK_IN, 256);
		peer_answer_bulk(peer, next(usb_redir_bulk_packet), table[i].said, bytes, 130);
		assert_ended(&j, table[i].meant, 128);
		start_out(&j, 256, 0);
		peer_answer_bulk(peer, next(usb_redir_bulk_packet), table[i].said, NULL, 0);
		assert_ended(&j, table[i].meant, 0);
	}
	assert_int_equal(counters().errors, 2 * BH_COUNT(table));
}

static void test_out_that_was_taken_in_part_is_no_success(void **state)
{
	struct job j;

	(void)state;
	ready();
	start_out(&j, 256, 0);
	peer_answer_bulk(peer, next(usb_redir_bulk_packet), usb_redir_success, NULL, 128);
	assert_ended(&j, BH_NO_RESPONSE, 128);
}

static void test_more_than_was_asked_for_is_babble(void **state)
{
	static uint8_t bytes[MOST];
	struct job j;

	(void)state;
	ready();
	start(&j, BULK_IN, 64);
	peer_answer_bulk(peer, next(usb_redir_bulk_packet), usb_redir_success, bytes, sizeof(bytes));
	assert_ended(&j, BH_BABBLE, 0);
	start_out(&j, 64, 0);
	peer_answer_bulk(peer, next(usb_redir_bulk_packet), usb_redir_success, NULL, 65);
	assert_ended(&j, BH_BABBLE, 0);
	start_control(&j, 0xc0, 1, 0, 0, 8);
	peer_answer_control(peer, next(usb_redir_control_packet), usb_redir_success, bytes, 60000);
	assert_ended(&j, BH_BABBLE, 0);
	bulk_in(64, 64);
}

static void test_stall_is_cleared_as_the_guest_says(void **state)
{
	struct job j;
	struct message *m;

	(void)state;
	ready();
	start(&j, BULK_IN, 64);
	peer_answer_bulk(peer, next(usb_redir_bulk_packet), usb_redir_stall, NULL, 0);
	assert_ended(&j, BH_STALL, 0);
	start_control(&j, 2, 1, 0, BULK_IN, 0);
	m = next(usb_redir_control_packet);
	assert_int_equal(m->control.requesttype, 2);
	assert_int_equal(m->control.request, 1);
	assert_int_equal(m->control.value, 0);
	assert_int_equal(m->control.index, BULK_IN);
	assert_int_equal(m->control.endpoint, 0);
	assert_int_equal(m->length, 0);
	peer_answer_control(peer, m, usb_redir_success, NULL, 0);
	assert_ended(&j, BH_SUCCESS, 0);
	bulk_in(64, 64);
}

static void test_endpoints_that_are_not_there(void **state)
{
	struct job j;

	(void)state;
	ready();
	start(&j, 0x07, 64);
	assert_ended(&j, BH_STALL, 0);
	start_iso(&j, ISO_IN, 1); /* not in this setting */
	assert_ended(&j, BH_STALL, 0);
	prepare(&j, BULK_IN, BH_INTERRUPT, 64); /* it is there, and of another kind */
	submit(&j);
	assert_ended(&j, BH_STALL, 0);
	assert_nothing_sent();
}

/* Two at a time to one endpoint: the second is begun when the first has ended, for it may end badly. */
static void test_transfers_of_an_endpoint_keep_their_order(void **state)
{
	struct job first, second, other;
	struct message *m;

	(void)state;
	ready();
	start_out(&first, 64, 0);
	start_out(&second, 128, 0);
	start(&other, BULK_IN, 64);
	m = next(usb_redir_bulk_packet);
	peer_answer_bulk(peer, next(usb_redir_bulk_packet), usb_redir_success, NULL, 0); /* the IN does not wait */
	assert_ended(&other, BH_SUCCESS, 0);
	assert_nothing_sent();
	peer_answer_bulk(peer, m, usb_redir_success, NULL, 64);
	m = next(usb_redir_bulk_packet);
	assert_int_equal(m->length, 128);
	peer_answer_bulk(peer, m, usb_redir_success, NULL, 128);
	assert_ended(&first, BH_SUCCESS, 64);
	assert_ended(&second, BH_SUCCESS, 128);
}

/* --- cancels ------------------------------------------------------------------------------------------------ */

static void test_cancelled(void **state)
{
	struct job j;
	struct message *m;

	(void)state;
	ready();
	start(&j, BULK_IN, 64);
	m = next(usb_redir_bulk_packet);
	bh_device_cancel(device, &j.t);
	bh_device_cancel(device, &j.t); /* twice is once */
	assert_int_equal(next(usb_redir_cancel_data_packet)->id, m->id);
	assert_nothing_sent();
	assert_int_equal(j.done, 0); /* it may have ended otherwise */
	peer_answer_bulk(peer, m, usb_redir_cancelled, NULL, 0);
	assert_ended(&j, BH_CANCELLED, 0);
	assert_int_equal(counters().cancels, 1);
	assert_int_equal(counters().errors, 0);
}

static void test_ended_before_it_was_cancelled(void **state)
{
	static uint8_t bytes[64];
	struct job j;
	struct message *m;

	(void)state;
	ready();
	start(&j, BULK_IN, 64);
	m = next(usb_redir_bulk_packet);
	bh_device_cancel(device, &j.t);
	peer_answer_bulk(peer, m, usb_redir_success, bytes, 64);
	assert_ended(&j, BH_SUCCESS, 64);
	next(usb_redir_cancel_data_packet);
	bulk_in(64, 64);
}

/* A server that is better than usbredirhost may say how much had moved. */
static void test_cancelled_with_a_count(void **state)
{
	struct job j;
	struct message *m;

	(void)state;
	ready();
	start_out(&j, 256, 0);
	m = next(usb_redir_bulk_packet);
	bh_device_cancel(device, &j.t);
	peer_answer_bulk(peer, m, usb_redir_cancelled, NULL, 128);
	assert_ended(&j, BH_CANCELLED, 128);
}

static void test_cancelled_between_pieces(void **state)
{
	struct job j;
	struct message *m;

	(void)state;
	ready_without(usb_redir_cap_32bits_bulk_length);
	start_out(&j, 262144, 0);
	m = next(usb_redir_bulk_packet);
	bh_device_cancel(device, &j.t);
	peer_answer_bulk(peer, m, usb_redir_success, NULL, 65472);
	assert_ended(&j, BH_CANCELLED, 65472);
	next(usb_redir_cancel_data_packet);
	assert_nothing_sent();
}

static void test_control_is_cancelled(void **state)
{
	struct job j;
	struct message *m;

	(void)state;
	ready();
	start_control(&j, 0xc0, 1, 2, 3, 10);
	m = next(usb_redir_control_packet);
	bh_device_cancel(device, &j.t);
	assert_int_equal(next(usb_redir_cancel_data_packet)->id, m->id);
	peer_answer_control(peer, m, usb_redir_cancelled, NULL, 0);
	assert_ended(&j, BH_CANCELLED, 0);
}

static void test_cancel_that_is_not_answered_ends_the_connection(void **state)
{
	struct job j;

	(void)state;
	ready();
	start(&j, BULK_IN, 64);
	next(usb_redir_bulk_packet);
	ahead_ms += 60000; /* a device may take its time */
	settle();
	assert_int_equal(detached, 0);
	bh_device_cancel(device, &j.t);
	settle();
	assert_int_equal(j.done, 0);
	ahead_ms += 9000;
	until(detached);
	assert_ended(&j, BH_CANCELLED, 0);
	assert_non_null(strstr(lines, "does not answer"));
	assert_int_equal(counters().failures, 1);
}

/* --- control and settings ------------------------------------------------------------------------------------ */

static void test_control(void **state)
{
	static uint8_t bytes[1000];
	struct job j;
	struct message *m;

	(void)state;
	ready();
	fill(bytes, sizeof(bytes), 3);
	start_control(&j, 0xc0, 0x11, 0x2233, 0x4455, 1000);
	m = next(usb_redir_control_packet);
	assert_int_equal(m->control.endpoint, 0x80);
	assert_int_equal(m->control.requesttype, 0xc0);
	assert_int_equal(m->control.request, 0x11);
	assert_int_equal(m->control.value, 0x2233);
	assert_int_equal(m->control.index, 0x4455);
	assert_int_equal(m->control.length, 1000);
	peer_answer_control(peer, m, usb_redir_success, bytes, 999);
	until(j.done);
	assert_memory_equal(j.data, bytes, 999);
	assert_ended(&j, BH_SUCCESS, 999);

	prepare(&j, 0, BH_CONTROL, 1000);
	fill(j.data, 1000, 4);
	j.t.setup = (struct bh_setup){0x40, 1, bh_put_le16(0), bh_put_le16(0), bh_put_le16(1000)};
	submit(&j);
	m = next(usb_redir_control_packet);
	assert_int_equal(m->length, 1000);
	assert_memory_equal(m->data, j.data, 1000);
	peer_answer_control(peer, m, usb_redir_success, NULL, 1000);
	assert_ended(&j, BH_SUCCESS, 1000);
}

/* An answer of the other direction, with a length and no bytes, is no answer. */
static void test_control_of_the_other_direction(void **state)
{
	struct job j;
	struct message m;

	(void)state;
	ready();
	start_control(&j, 0xc0, 1, 0, 0, 8);
	m = *next(usb_redir_control_packet);
	m.control.endpoint = 0;
	peer_answer_control(peer, &m, usb_redir_success, NULL, 8);
	settle();
	assert_int_equal(j.done, 0);
	assert_int_equal(counters().unexpected, 1);
	m.control.endpoint = 0x80;
	peer_answer_control(peer, &m, usb_redir_success, "12345678", 8);
	assert_ended(&j, BH_SUCCESS, 8);
}

static void test_requests_that_do_not_reach_the_device(void **state)
{
	struct job j;

	(void)state;
	ready();
	start_control(&j, 0, 9, 7, 0, 0); /* a configuration it does not have */
	assert_ended(&j, BH_STALL, 0);
	start_control(&j, 1, 11, 2, 0, 0);
	assert_ended(&j, BH_STALL, 0);
	start_control(&j, 0, 5, 99, 0, 0);
	assert_ended(&j, BH_STALL, 0);
	prepare(&j, 0, BH_CONTROL, 3); /* an OUT that ended before all of it had come */
	j.t.setup = (struct bh_setup){0x40, 1, bh_put_le16(0), bh_put_le16(0), bh_put_le16(8)};
	submit(&j);
	assert_ended(&j, BH_STALL, 0);
	assert_nothing_sent();
}

static void test_settings(void **state)
{
	struct job j;
	struct message *m;

	(void)state;
	ready();
	assert_int_equal(bh_device_endpoint(device, BULK_IN)->max_packet, 64);
	assert_null(bh_device_endpoint(device, ISO_IN));
	set_alternate(1);
	assert_int_equal(bh_device_endpoint(device, ISO_IN)->max_packet, ISO_PACKET);

	start_control(&j, 0x80, 8, 0, 0, 1); /* GET_CONFIGURATION */
	peer_answer_configuration(peer, next(usb_redir_get_configuration), usb_redir_success, 1);
	until(j.done);
	assert_int_equal(j.data[0], 1);
	assert_ended(&j, BH_SUCCESS, 1);
	start_control(&j, 0x81, 10, 0, 0, 1); /* GET_INTERFACE */
	m = next(usb_redir_get_alt_setting);
	assert_int_equal(m->endpoint, 0);
	peer_answer_alternate(peer, m, usb_redir_success, 1);
	until(j.done);
	assert_int_equal(j.data[0], 1);
	assert_ended(&j, BH_SUCCESS, 1);

	start_control(&j, 1, 11, 0, 0, 0); /* refused: it stays as it is */
	peer_answer_alternate(peer, next(usb_redir_set_alt_setting), usb_redir_ioerror, 1);
	assert_ended(&j, BH_STALL, 0);
	assert_non_null(bh_device_endpoint(device, ISO_IN));
	start_control(&j, 0, 9, 0, 0, 0);
	peer_answer_alternate(peer, next(usb_redir_set_alt_setting), usb_redir_success, 0);
	peer_answer_configuration(peer, next(usb_redir_set_configuration), usb_redir_stall, 1);
	assert_ended(&j, BH_STALL, 0);
	assert_non_null(bh_device_endpoint(device, BULK_IN));
	configure(0);
	assert_null(bh_device_endpoint(device, BULK_IN));
}

/* Servers do nothing where a configuration is active already; a guest expects all settings to be 0 after it. */
static void test_the_same_configuration_again(void **state)
{
	struct job j;
	struct message *m;

	(void)state;
	ready();
	set_alternate(1);
	start_control(&j, 0, 9, 1, 0, 0);
	m = next(usb_redir_set_alt_setting);
	assert_int_equal(m->alternate.interface, 0);
	assert_int_equal(m->alternate.alt, 0);
	peer_answer_alternate(peer, m, usb_redir_success, 0);
	peer_answer_configuration(peer, next(usb_redir_set_configuration), usb_redir_success, 1);
	assert_ended(&j, BH_SUCCESS, 0);
	assert_null(bh_device_endpoint(device, ISO_IN));
	configure(1);
}

/* --- resets ------------------------------------------------------------------------------------------------------ */

static void test_reset(void **state)
{
	static uint8_t bytes[64];
	struct job in, control;
	struct message *m;

	(void)state;
	ready();
	start(&in, BULK_IN, 64);
	m = next(usb_redir_bulk_packet);
	start_control(&control, 0xc0, 1, 0, 0, 8);
	next(usb_redir_control_packet);
	bh_device_reset(device);
	assert_int_equal(in.done, 1); /* at once */
	assert_ended(&in, BH_CANCELLED, 0);
	assert_ended(&control, BH_CANCELLED, 0);
	next(usb_redir_cancel_data_packet);
	next(usb_redir_cancel_data_packet);
	next(usb_redir_reset);
	assert_null(bh_device_endpoint(device, BULK_IN));
	bh_device_reset(device); /* again: nothing has happened since */
	assert_nothing_sent();
	start_control(&control, 0x80, 8, 0, 0, 1); /* the guest's device is not configured, though theirs is */
	until(control.done);
	assert_int_equal(control.data[0], 0);
	assert_ended(&control, BH_SUCCESS, 1);
	peer_answer_bulk(peer, m, usb_redir_success, bytes, 64); /* which nobody waits for */
	configure(1);
	assert_int_equal(counters().unexpected, 0);
	assert_int_equal(counters().resets, 1);
	bulk_in(64, 64);
}

/* --- interrupt ---------------------------------------------------------------------------------------------------- */

static void test_interrupt_in(void **state)
{
	struct job j[3];
	struct message *m;

	(void)state;
	ready();
	assert_nothing_sent(); /* it begins with the first transfer */
	start(&j[0], INTERRUPT_IN, INTERRUPT_PACKET);
	m = next(usb_redir_start_interrupt_receiving);
	assert_int_equal(m->endpoint, INTERRUPT_IN);
	peer_interrupt_status(peer, m->id, usb_redir_success);
	settle();
	assert_int_equal(j[0].done, 0);
	peer_send_interrupt(peer, 0, usb_redir_success, "abcdefgh", 8);
	until(j[0].done);
	assert_memory_equal(j[0].data, "abcdefgh", 8);
	assert_ended(&j[0], BH_SUCCESS, 8);
	peer_send_interrupt(peer, 1, usb_redir_success, "ij", 2); /* kept until it is asked for */
	peer_send_interrupt(peer, 2, usb_redir_success, "", 0);
	settle();
	start(&j[0], INTERRUPT_IN, INTERRUPT_PACKET);
	start(&j[1], INTERRUPT_IN, INTERRUPT_PACKET);
	start(&j[2], INTERRUPT_IN, INTERRUPT_PACKET);
	until(j[1].done);
	assert_memory_equal(j[0].data, "ij", 2);
	assert_ended(&j[0], BH_SUCCESS, 2);
	assert_ended(&j[1], BH_SUCCESS, 0);
	assert_int_equal(j[2].done, 0);
	bh_device_cancel(device, &j[2].t);
	assert_int_equal(j[2].done, 1); /* nobody over there knows of it */
	assert_ended(&j[2], BH_CANCELLED, 0);
	assert_nothing_sent();
}

static void test_interrupt_in_of_several_packets(void **state)
{
	struct job j;

	(void)state;
	ready();
	start(&j, INTERRUPT_IN, 3 * INTERRUPT_PACKET);
	peer_interrupt_status(peer, next(usb_redir_start_interrupt_receiving)->id, usb_redir_success);
	peer_send_interrupt(peer, 0, usb_redir_success, "abcdefgh", 8);
	settle();
	assert_int_equal(j.done, 0);
	peer_send_interrupt(peer, 1, usb_redir_success, "ijk", 3);
	until(j.done);
	assert_memory_equal(j.data, "abcdefghijk", 11);
	assert_ended(&j, BH_SUCCESS, 11);
}

static void test_interrupt_in_that_nobody_fetches(void **state)
{
	struct job j;
	uint8_t byte;

	(void)state;
	ready();
	start(&j, INTERRUPT_IN, INTERRUPT_PACKET);
	peer_interrupt_status(peer, next(usb_redir_start_interrupt_receiving)->id, usb_redir_success);
	bh_device_cancel(device, &j.t);
	assert_ended(&j, BH_CANCELLED, 0);
	for (unsigned i = 0; i < 40; i++) {
		byte = (uint8_t)i;
		peer_send_interrupt(peer, i, usb_redir_success, &byte, 1);
	}
	until(counters().dropped == 8);
	for (unsigned i = 0; i < 32; i++) { /* the oldest are there */
		start(&j, INTERRUPT_IN, INTERRUPT_PACKET);
		assert_int_equal(j.done, 1);
		assert_int_equal(j.data[0], i);
		assert_ended(&j, BH_SUCCESS, 1);
	}
	start(&j, INTERRUPT_IN, INTERRUPT_PACKET);
	assert_int_equal(j.done, 0);
	peer_send_interrupt(peer, 40, usb_redir_success, "z", 1);
	assert_ended(&j, BH_SUCCESS, 1);
}

static void test_interrupt_in_fails(void **state)
{
	struct job j;

	(void)state;
	ready();
	start(&j, INTERRUPT_IN, INTERRUPT_PACKET);
	peer_interrupt_status(peer, next(usb_redir_start_interrupt_receiving)->id, usb_redir_stall); /* refused */
	assert_ended(&j, BH_STALL, 0);
	start(&j, INTERRUPT_IN, INTERRUPT_PACKET); /* and tried again */
	peer_interrupt_status(peer, next(usb_redir_start_interrupt_receiving)->id, usb_redir_success);
	peer_send_interrupt(peer, 0, usb_redir_ioerror, "", 0);
	assert_ended(&j, BH_BUS_ERROR, 0);
	start(&j, INTERRUPT_IN, INTERRUPT_PACKET);
	peer_send_interrupt(peer, 1, usb_redir_success, "123456789", 9); /* more than fits */
	assert_ended(&j, BH_BABBLE, 0);
	start(&j, INTERRUPT_IN, INTERRUPT_PACKET);
	peer_interrupt_status(peer, 0, usb_redir_stall); /* it has stopped by itself */
	assert_ended(&j, BH_STALL, 0);
	start(&j, INTERRUPT_IN, INTERRUPT_PACKET);
	peer_interrupt_status(peer, next(usb_redir_start_interrupt_receiving)->id, usb_redir_success);
	peer_send_interrupt(peer, 0, usb_redir_success, "a", 1);
	assert_ended(&j, BH_SUCCESS, 1);
}

/* What was on its way when it was stopped is not of what was begun anew. */
static void test_interrupt_in_is_stopped_with_its_setting(void **state)
{
	struct job j, control;
	struct message *m, *stop;

	(void)state;
	ready();
	start(&j, INTERRUPT_IN, INTERRUPT_PACKET);
	peer_interrupt_status(peer, next(usb_redir_start_interrupt_receiving)->id, usb_redir_success);
	peer_send_interrupt(peer, 0, usb_redir_success, "a", 1);
	peer_send_interrupt(peer, 1, usb_redir_success, "b", 1);
	assert_ended(&j, BH_SUCCESS, 1);
	start_control(&control, 1, 11, 1, 0, 0);
	stop = next(usb_redir_stop_interrupt_receiving);
	m = next(usb_redir_set_alt_setting);
	peer_send_interrupt(peer, 2, usb_redir_success, "c", 1);
	settle();
	peer_interrupt_status(peer, stop->id, usb_redir_success);
	peer_answer_alternate(peer, m, usb_redir_success, 1);
	assert_ended(&control, BH_SUCCESS, 0);
	start(&j, INTERRUPT_IN, INTERRUPT_PACKET);
	peer_interrupt_status(peer, next(usb_redir_start_interrupt_receiving)->id, usb_redir_success);
	peer_send_interrupt(peer, 0, usb_redir_success, "d", 1);
	until(j.done);
	assert_int_equal(j.data[0], 'd');
	assert_ended(&j, BH_SUCCESS, 1);
	bh_device_reset(device);
	next(usb_redir_stop_interrupt_receiving);
	next(usb_redir_reset);
}

static void test_interrupt_in_is_begun_anew_after_a_halt(void **state)
{
	struct job j, control;
	struct message *stop;

	(void)state;
	ready();
	start(&j, INTERRUPT_IN, INTERRUPT_PACKET);
	peer_interrupt_status(peer, next(usb_redir_start_interrupt_receiving)->id, usb_redir_success);
	bh_device_cancel(device, &j.t);
	assert_ended(&j, BH_CANCELLED, 0);
	start_control(&control, 2, 1, 0, INTERRUPT_IN, 0);
	stop = next(usb_redir_stop_interrupt_receiving);
	start(&j, INTERRUPT_IN, INTERRUPT_PACKET); /* before any of it was answered */
	peer_interrupt_status(peer, stop->id, usb_redir_success);
	peer_answer_control(peer, next(usb_redir_control_packet), usb_redir_success, NULL, 0);
	assert_ended(&control, BH_SUCCESS, 0);
	peer_interrupt_status(peer, next(usb_redir_start_interrupt_receiving)->id, usb_redir_success);
	peer_send_interrupt(peer, 0, usb_redir_success, "x", 1);
	assert_ended(&j, BH_SUCCESS, 1);
}

static void test_interrupt_out(void **state)
{
	struct job j;
	struct message *m;

	(void)state;
	ready();
	start(&j, INTERRUPT_OUT, 20); /* packet by packet */
	for (unsigned i = 0; i < 3; i++) {
		m = next(usb_redir_interrupt_packet);
		assert_int_equal(m->interrupt.endpoint, INTERRUPT_OUT);
		assert_int_equal(m->length, i < 2 ? 8 : 4);
		peer_answer_interrupt(peer, m, usb_redir_success, (uint16_t)m->length);
	}
	assert_ended(&j, BH_SUCCESS, 20);
	start(&j, INTERRUPT_OUT, 8);
	peer_answer_interrupt(peer, next(usb_redir_interrupt_packet), usb_redir_stall, 0);
	assert_ended(&j, BH_STALL, 0);
}

/* --- isochronous ----------------------------------------------------------------------------------------------------- */

static void iso_ready(void)
{
	ready();
	set_alternate(1);
}

static void test_iso_in(void **state)
{
	static uint8_t bytes[ISO_PACKET];
	struct job a, b;
	struct message *m;

	(void)state;
	iso_ready();
	start_iso(&a, ISO_IN, 4);
	start_iso(&b, ISO_IN, 4);
	m = next(usb_redir_start_iso_stream);
	assert_int_equal(m->endpoint, ISO_IN);
	peer_iso_status(peer, m->id, ISO_IN, usb_redir_success);
	for (unsigned i = 0; i < 8; i++) {
		bytes[0] = (uint8_t)i;
		if (i == 2 || i == 3)
			continue; /* lost on the way */
		if (i == 5)
			peer_send_iso(peer, i, usb_redir_ioerror, NULL, 0);
		else
			peer_send_iso(peer, i, usb_redir_success, bytes, i == 1 ? 100 : ISO_PACKET);
	}
	until(b.done);
	for (unsigned i = 0; i < 8; i++) {
		struct job *j = i < 4 ? &a : &b;
		const struct bh_packet *p = &j->packets[i % 4];
		bool lost = i == 2 || i == 3, failed = i == 5;

		assert_int_equal(p->status, lost ? BH_NO_RESPONSE : failed ? BH_BUS_ERROR : BH_SUCCESS);
		assert_int_equal(p->actual, lost || failed ? 0 : i == 1 ? 100 : ISO_PACKET);
		if (p->actual)
			assert_int_equal(j->data[p->offset], i);
	}
	assert_int_equal(counters().missed, 2);
	forget(&a);
	forget(&b);
}

/* Packets pile up while nobody fetches them: the newest are kept, and after a while it is stopped. */
static void test_iso_in_that_nobody_fetches(void **state)
{
	static uint8_t bytes[ISO_PACKET];
	struct job j;
	struct message *m;

	(void)state;
	iso_ready();
	start_iso(&j, ISO_IN, 4);
	peer_iso_status(peer, next(usb_redir_start_iso_stream)->id, ISO_IN, usb_redir_success);
	bh_device_cancel(device, &j.t);
	assert_int_equal(j.packets[3].status, BH_NO_RESPONSE);
	assert_ended(&j, BH_CANCELLED, 0);
	for (unsigned i = 0; i < 100; i++) {
		bytes[0] = (uint8_t)i;
		peer_send_iso(peer, i, usb_redir_success, bytes, ISO_PACKET);
	}
	until(counters().dropped == 68);
	start_iso(&j, ISO_IN, 4);
	until(j.done);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(j.data[j.packets[i].offset], 68 + i);
	forget(&j);
	for (unsigned i = 100; i < 400; i++)
		peer_send_iso(peer, i, usb_redir_success, bytes, ISO_PACKET);
	m = next(usb_redir_stop_iso_stream);
	assert_int_equal(m->endpoint, ISO_IN);
	peer_iso_status(peer, m->id, ISO_IN, usb_redir_success);
	start_iso(&j, ISO_IN, 1);
	peer_iso_status(peer, next(usb_redir_start_iso_stream)->id, ISO_IN, usb_redir_success);
	peer_send_iso(peer, 0, usb_redir_success, bytes, ISO_PACKET);
	until(j.done);
	assert_int_equal(j.packets[0].status, BH_SUCCESS);
	forget(&j);
}

static void test_iso_out(void **state)
{
	struct job j;
	struct message *m;

	(void)state;
	iso_ready();
	prepare(&j, ISO_OUT, BH_ISOCHRONOUS, 4 * ISO_PACKET);
	fill(j.data, 4 * ISO_PACKET, 9);
	for (unsigned i = 0; i < 4; i++)
		j.packets[i] = (struct bh_packet){.offset = i * ISO_PACKET, .length = i == 3 ? 0 : ISO_PACKET - i};
	j.t.packets = j.packets;
	j.t.packet_count = 4;
	submit(&j);
	assert_int_equal(j.done, 1);
	m = next(usb_redir_start_iso_stream);
	assert_int_equal(m->endpoint, ISO_OUT);
	peer_iso_status(peer, m->id, ISO_OUT, usb_redir_success);
	for (unsigned i = 0; i < 4; i++) {
		m = next(usb_redir_iso_packet);
		assert_int_equal(m->id, i);
		assert_int_equal(m->iso.endpoint, ISO_OUT);
		assert_int_equal(m->length, i == 3 ? 0 : ISO_PACKET - i);
		if (m->length)
			assert_memory_equal(m->data, j.data + i * ISO_PACKET, (size_t)m->length);
		assert_int_equal(j.packets[i].status, BH_SUCCESS);
		assert_int_equal(j.packets[i].actual, m->length);
	}
	forget(&j);
	peer_iso_status(peer, 77, ISO_OUT, usb_redir_ioerror); /* a packet failed there: it goes on */
	settle();
	start_iso(&j, ISO_OUT, 1);
	forget(&j);
	next(usb_redir_iso_packet);
}

static void test_iso_that_does_not_start(void **state)
{
	struct job j;

	(void)state;
	iso_ready();
	start_iso(&j, ISO_IN, 2);
	peer_iso_status(peer, next(usb_redir_start_iso_stream)->id, ISO_IN, usb_redir_stall);
	until(j.done);
	assert_int_equal(j.packets[0].status, BH_NO_RESPONSE);
	forget(&j);
	start_iso(&j, ISO_IN, 2); /* not at once again */
	assert_int_equal(j.done, 1);
	forget(&j);
	assert_nothing_sent();
	ahead_ms += 1500;
	start_iso(&j, ISO_IN, 1);
	peer_iso_status(peer, next(usb_redir_start_iso_stream)->id, ISO_IN, usb_redir_success);
	peer_send_iso(peer, 0, usb_redir_success, "1", 1);
	until(j.done);
	assert_int_equal(j.packets[0].status, BH_SUCCESS);
	forget(&j);
}

/* --- hostile and unlucky peers ---------------------------------------------------------------------------------------- */

static void test_answers_to_nothing_are_passed_over(void **state)
{
	static uint8_t bytes[64];
	struct message m = {.id = 0x55555, .bulk = {.endpoint = BULK_IN}}, *asked;
	struct job j;

	(void)state;
	ready();
	start(&j, BULK_IN, 64);
	asked = next(usb_redir_bulk_packet);
	peer_answer_bulk(peer, &m, usb_redir_success, bytes, 64); /* of no request */
	m.id = asked->id;
	m.bulk.endpoint = BULK_OUT;
	peer_answer_bulk(peer, &m, usb_redir_success, NULL, 64); /* of another endpoint */
	peer_answer_configuration(peer, asked, usb_redir_success, 1); /* of another kind */
	peer_answer_alternate(peer, asked, usb_redir_success, 1);
	peer_interrupt_status(peer, 3, usb_redir_success);
	peer_iso_status(peer, asked->id, ISO_IN, usb_redir_stall);
	peer_send_iso(peer, 0, usb_redir_success, bytes, 64);
	peer_send_interrupt(peer, 0, usb_redir_success, bytes, 8);
	until(counters().unexpected == 8);
	assert_int_equal(j.done, 0);
	peer_answer_bulk(peer, asked, usb_redir_success, bytes, 64);
	peer_answer_bulk(peer, asked, usb_redir_success, bytes, 64); /* twice */
	assert_ended(&j, BH_SUCCESS, 64);
	until(counters().unexpected == 9);
	bulk_in(64, 64);
}

static void put32(uint8_t *p, uint32_t value)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(value >> 8 * i);
}

/* Any such header ends the connection, before anything is allocated for it. */
static void test_absurd_headers(void **state)
{
	static const struct {
		uint32_t type, length;
	} headers[] = {
		{usb_redir_bulk_packet, 0x7fffffff}, {usb_redir_bulk_packet, 128 * 1024 * 1024},
		{usb_redir_bulk_packet, (1 << 20) + 11}, {usb_redir_control_packet, 10 + 65536},
		{usb_redir_interrupt_packet, 4 + 65536}, {usb_redir_filter_filter, 8193}, {usb_redir_hello, 68},
		{usb_redir_device_connect, 11}, {usb_redir_bulk_packet, 3}, {usb_redir_device_disconnect, 1},
		{usb_redir_set_configuration, 1}, {usb_redir_buffered_bulk_packet, 74}, {usb_redir_bulk_streams_status, 9},
		{usb_redir_reset, 0}, {0xffffffff, 0}, {28, 0},
	};

	for (unsigned i = 0; i < BH_COUNT(headers); i++) {
		uint8_t header[16] = {0};
		struct job j;

		ready();
		start(&j, BULK_IN, 64);
		put32(header, headers[i].type);
		put32(header + 4, headers[i].length);
		for (unsigned k = 0; k < sizeof(header); k++) {
			if (k % 5 == 0)
				settle();
			if (!peer->ended)
				peer_send_raw(peer, header + k, 1);
		}
		until(detached);
		assert_ended(&j, BH_CANCELLED, 0);
		assert_int_equal(counters().failures, 1);
		assert_non_null(strstr(lines, "the connection was dropped"));
		teardown(state);
		setup(state);
	}
}

static void connect_raw(int *fd)
{
	struct bh_usbredir_config c = {.address = NULL};
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	c.fd = fds[0];
	assert_int_equal(create(&c), 0);
	*fd = fds[1];
}

static void test_no_usbredir_server(void **state)
{
	static const char answer[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
	int fd;

	(void)state;
	connect_raw(&fd);
	assert_int_equal(send(fd, answer, sizeof(answer), 0), sizeof(answer));
	until(counters().failures);
	assert_non_null(strstr(lines, "does it speak usbredir?"));
	close(fd);
}

static void test_silence_in_place_of_a_hello(void **state)
{
	int fd;

	(void)state;
	connect_raw(&fd);
	settle();
	assert_int_equal(counters().failures, 0);
	ahead_ms += 9000;
	until(counters().failures);
	assert_non_null(strstr(lines, "says no hello"));
	close(fd);
}

static void test_a_socket_that_was_passed_in_ends_for_good(void **state)
{
	(void)state;
	ready();
	peer_destroy(peer);
	peer = NULL;
	until(detached);
	assert_non_null(strstr(lines, "closed the connection"));
	assert_false(bh_usbredir_connected(device));
	settle();
}

/* A peer that does not read: what is made into messages is bounded, and what waits beyond that can be cancelled. */
static void test_a_peer_that_does_not_read(void **state)
{
	struct job bulk, control, cancelled, interrupt;

	(void)state;
	ready();
	peer->deaf = true;
	peer_flush(peer);
	start_out(&bulk, 1 << 20, 0);
	start_control(&control, 0x40, 1, 0, 0, 60000);
	start(&cancelled, INTERRUPT_OUT, 8);
	settle();
	bh_device_cancel(device, &cancelled.t);
	assert_int_equal(cancelled.done, 1); /* it was not sent */
	assert_ended(&cancelled, BH_CANCELLED, 0);
	start(&interrupt, INTERRUPT_OUT, 8);
	peer->deaf = false;
	peer_flush(peer);
	peer_answer_bulk(peer, next(usb_redir_bulk_packet), usb_redir_success, NULL, 1 << 20);
	peer_answer_control(peer, next(usb_redir_control_packet), usb_redir_success, NULL, 60000);
	peer_answer_interrupt(peer, next(usb_redir_interrupt_packet), usb_redir_success, 8);
	assert_nothing_sent();
	assert_ended(&bulk, BH_SUCCESS, 1 << 20);
	assert_ended(&control, BH_SUCCESS, 60000);
	assert_ended(&interrupt, BH_SUCCESS, 8);
	assert_int_equal(counters().cancels, 0);
}

/* Isochronous packets that the link is too slow for are left out. */
static void test_iso_out_to_a_peer_that_does_not_read(void **state)
{
	struct job j;
	unsigned sent = 0, missed = 0;

	(void)state;
	iso_ready();
	peer->deaf = true;
	peer_flush(peer);
	for (unsigned i = 0; i < 400; i++) {
		start_iso(&j, ISO_OUT, 16);
		for (unsigned k = 0; k < 16; k++)
			*(j.packets[k].status == BH_SUCCESS ? &sent : &missed) += 1;
		forget(&j);
	}
	assert_true(missed > 100);
	assert_int_equal(counters().missed, missed);
	peer->deaf = false;
	peer_flush(peer);
	next(usb_redir_start_iso_stream);
	while (sent--)
		next(usb_redir_iso_packet);
	assert_nothing_sent();
}

static void test_destroyed_in_the_middle(void **state)
{
	struct job j[3];

	(void)state;
	ready();
	start(&j[0], BULK_IN, 64);
	start_out(&j[1], 4096, 0);
	start(&j[2], INTERRUPT_IN, 8);
	device->upcalls = NULL;
	bh_device_destroy(device);
	device = NULL;
	for (unsigned i = 0; i < 3; i++)
		assert_ended(&j[i], BH_CANCELLED, 0);
	until(peer->ended);
}

static void test_destroyed_while_it_is_asked_what_it_is(void **state)
{
	(void)state;
	connect_to(-1, NULL);
	usbredirparser_send_device_connect(
		peer->parser, &(struct usb_redir_device_connect_header){.speed = usb_redir_speed_full});
	peer_flush(peer);
	peer->deaf = true;
	settle();
	bh_device_destroy(device);
	device = NULL;
}

static void test_lines_are_few_whatever_a_peer_does(void **state)
{
	unsigned n = 0;

	(void)state;
	connect_to(-1, NULL);
	for (unsigned i = 1; i <= 100; i++) {
		peer_connect_device(peer);
		until(attached == i);
		peer_disconnect_device(peer);
		until(detached == i);
	}
	for (const char *p = lines; (p = strchr(p, '\n')) != NULL; p++)
		n++;
	assert_in_range(n, 2, 40);
}

/* --- over an address ---------------------------------------------------------------------------------------------------- */

static char path[sizeof(((struct sockaddr_un *)0)->sun_path)], address[128];

static int listen_at_path(void)
{
	struct bh_address a = {.path = path};
	char name[BH_SOCKET_NAME_SIZE];
	int fd;

	snprintf(path, sizeof(path), "/tmp/bulkhead-test-usbredir-%d", (int)getpid());
	snprintf(address, sizeof(address), "unix:%s", path);
	unlink(path);
	fd = bh_socket_listen(&a, name);
	assert_true(fd >= 0);
	return fd;
}

static void accept_peer(int listener)
{
	int fd = -1;

	until((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
	peer = peer_create(&loop, fd, -1);
	until(peer->greeted && bh_usbredir_connected(device));
	peer_connect_device(peer);
}

static void test_connects_again_and_again(void **state)
{
	struct bh_usbredir_config c = {.address = address};
	int listener = listen_at_path();
	struct job in, out, interrupt;

	(void)state;
	assert_int_equal(create(&c), 0);
	for (unsigned i = 1; i <= 3; i++) {
		accept_peer(listener);
		until(attached == i);
		configure(1);
		start(&in, BULK_IN, 4096);
		start_out(&out, 4096, 0);
		start(&interrupt, INTERRUPT_IN, 8);
		next(usb_redir_bulk_packet);
		peer_destroy(peer); /* in the middle of everything */
		peer = NULL;
		until(detached == i);
		assert_ended(&in, BH_CANCELLED, 0);
		assert_ended(&out, BH_CANCELLED, 0);
		assert_ended(&interrupt, BH_CANCELLED, 0);
	}
	assert_int_equal(counters().connections, 3);
	close(listener);
	unlink(path);
	until(counters().failures >= 2);
	assert_non_null(strstr(lines, "there is no connection (No such file or directory); it is tried again"));
	assert_null(strstr(strstr(lines, "it is tried again") + 10, "it is tried again")); /* said once */
	listener = listen_at_path();
	accept_peer(listener);
	until(attached == 4);
	close(listener);
	unlink(path);
}

static void test_what_cannot_be(void **state)
{
	int fds[2];

	(void)state;
	assert_int_equal(create(&(struct bh_usbredir_config){.address = "nowhere"}), -EINVAL);
	assert_non_null(strstr(error, "address=nowhere: is no address; write HOST:PORT"));
	assert_int_equal(create(&(struct bh_usbredir_config){.fd = 99}), -EINVAL);
	assert_non_null(strstr(error, "fd=99"));
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(create(&(struct bh_usbredir_config){.fd = fds[0]}), -EINVAL);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(create(&(struct bh_usbredir_config){.address = "127.0.0.1:1", .filter = "8:1"}), -EINVAL);
	assert_non_null(strstr(error, "filter=8:1: write CLASS:"));
	assert_null(device);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(test_is_shown_when_it_has_told_what_it_is),
		T(test_unplugged_and_plugged_in_again),
		T(test_late_answers_are_not_for_the_next_device),
		T(test_speeds),
		T(test_too_fast_for_the_port),
		T(test_makes_no_sense),
		T(test_a_second_device_is_too_many),
		T(test_filter_rejects),
		T(test_filter_allows),
		T(test_filter_looks_again),
		T(test_filter_without_a_peer_that_can),
		T(test_peer_may_have_a_filter),
		T(test_bulk_of_all_sizes),
		T(test_bulk_where_lengths_have_16_bits),
		T(test_32_bit_ids),
		T(test_bulk_out_with_a_zero_packet),
		T(test_short_in_ends_a_transfer),
		T(test_short_in_ends_one_that_was_cut_up),
		T(test_errors),
		T(test_out_that_was_taken_in_part_is_no_success),
		T(test_more_than_was_asked_for_is_babble),
		T(test_stall_is_cleared_as_the_guest_says),
		T(test_endpoints_that_are_not_there),
		T(test_transfers_of_an_endpoint_keep_their_order),
		T(test_cancelled),
		T(test_ended_before_it_was_cancelled),
		T(test_cancelled_with_a_count),
		T(test_cancelled_between_pieces),
		T(test_control_is_cancelled),
		T(test_cancel_that_is_not_answered_ends_the_connection),
		T(test_control),
		T(test_control_of_the_other_direction),
		T(test_requests_that_do_not_reach_the_device),
		T(test_settings),
		T(test_the_same_configuration_again),
		T(test_reset),
		T(test_interrupt_in),
		T(test_interrupt_in_of_several_packets),
		T(test_interrupt_in_that_nobody_fetches),
		T(test_interrupt_in_fails),
		T(test_interrupt_in_is_stopped_with_its_setting),
		T(test_interrupt_in_is_begun_anew_after_a_halt),
		T(test_interrupt_out),
		T(test_iso_in),
		T(test_iso_in_that_nobody_fetches),
		T(test_iso_out),
		T(test_iso_that_does_not_start),
		T(test_answers_to_nothing_are_passed_over),
		T(test_absurd_headers),
		T(test_no_usbredir_server),
		T(test_silence_in_place_of_a_hello),
		T(test_a_socket_that_was_passed_in_ends_for_good),
		T(test_a_peer_that_does_not_read),
		T(test_iso_out_to_a_peer_that_does_not_read),
		T(test_destroyed_in_the_middle),
		T(test_destroyed_while_it_is_asked_what_it_is),
		T(test_lines_are_few_whatever_a_peer_does),
		T(test_connects_again_and_again),
		T(test_what_cannot_be),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
