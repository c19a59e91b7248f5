/* A connection to a USB/IP server: importing, refusals, what breaks it, and what a server exports. */
#include "test_usbip_rig.h"

#include <net/address.h>
#include <net/socket.h>

/* --- importing ------------------------------------------------------------------------------- */

static void it_is_imported_asked_and_shown(void **state)
{
	struct bh_real_info info;

	(void)state;
	connect_client();
	assert_false(bus.shown);
	settle();
	assert_true(bus.shown);
	assert_memory_equal(server.busid, "1-1.4\0\0\0", 8);
	assert_true(device()->cancel_loses && device()->sticky);
	info = bh_real_device_info(device());
	assert_true(info.there && info.vendor == 0x0525 && info.product == 0xa4a0);
	assert_int_equal(device()->control_max_packet, 16);
	assert_true(bh_usbip_imported(device()));
	assert_int_equal(bh_usbip_counters(device()).connections, 1);
	assert_string_equal(bus.line, "usbip there 1-1.4: 0525:a4a0 is there (full speed)");
}

/* Byte by byte what Linux's vhci-hcd sends. */
static void a_request_is_what_vhci_sends(void **state)
{
	static const uint8_t expected[48] = {
		0, 0, 0, 1,  0, 0, 0, 1,  0, 1, 0, 4,  0, 0, 0, 1,  0, 0, 0, 0,
		0, 0, 2, 0,  0, 0, 0, 18, 0, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 0,
		0x80, 6, 0, 1, 0, 0, 18, 0,
	};

	(void)state;
	server.drop_gets = true;
	connect_client();
	settle();
	assert_memory_equal(&request(0)->raw, expected, sizeof(expected));
}

static void who_refuses_is_asked_again(void **state)
{
	static const struct {
		uint32_t status;
		const char *text;
	} rows[] = {
		{BH_USBIP_NOT_AVAILABLE, "not exported, or in use by another client"},
		{BH_USBIP_BUSY, "in use by another client"},
		{BH_USBIP_DEVICE_ERROR, "in an error state at the server"},
		{BH_USBIP_NO_DEVICE, "no such device is exported"},
		{BH_USBIP_ERROR, "the server failed"},
		{0xffffffff, "the server failed"},
	};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		server.status = rows[i].status;
		connect_client();
		settle();
		assert_false(bus.shown);
		assert_int_equal(server.fd, -1);
		assert_non_null(strstr(bus.line, rows[i].text));
		assert_int_equal(bh_usbip_counters(device()).refusals, i + 1);
		assert_true(uv_is_active((uv_handle_t *)client->session.timer));
	}
	assert_int_equal(client->session.rest_ms, BH_USBIP_REST_MAX_MS);
	server.status = 0;
	connect_client();
	settle();
	assert_true(bus.shown);
}

static void it_is_said_once(void **state)
{
	(void)state;
	server.status = BH_USBIP_BUSY;
	for (unsigned i = 0; i < 5; i++) {
		connect_client();
		settle();
	}
	assert_int_equal(bus.lines, 1);
	server.status = 0;
	connect_client();
	settle();
	assert_int_equal(bus.lines, 2);
	server_close();
	settle();
	assert_int_equal(bus.lines, 3);
	server.status = BH_USBIP_BUSY;
	connect_client();
	settle();
	assert_int_equal(bus.lines, 4);
}

static void other_servers_are_not_for_us(void **state)
{
	(void)state;
	server.version = 0x0106;
	connect_client();
	settle();
	assert_string_equal(bus.line, "usbip there 1-1.4: the server speaks version 1.0.6 of USB/IP, and not 1.1.1; "
	                              "it is tried again and again");
	server.version = BH_USBIP_VERSION;
	server.code = 0x4854; /* HTTP, say */
	connect_client();
	settle();
	assert_non_null(strstr(bus.line, "no USB/IP server"));
	assert_int_equal(bh_usbip_counters(device()).violations, 1);
	assert_false(bus.shown);
}

/* Others may have it, then. */
static void too_fast_a_device_is_given_back(void **state)
{
	(void)state;
	server.speed = BH_USBIP_SPEED_HIGH;
	connect_client();
	settle();
	assert_false(bus.shown);
	assert_non_null(strstr(bus.line, "high speed"));
	assert_int_equal(server.fd, -1);
	assert_int_equal(bus.lines, 1);
	assert_true(uv_timer_get_due_in(client->session.timer) > BH_USBIP_REST_LONG_MS / 2);
	server.speed = 99;
	connect_client();
	settle();
	assert_non_null(strstr(bus.line, "a speed that the server does not know"));
	assert_true(uv_timer_get_due_in(client->session.timer) > BH_USBIP_REST_LONG_MS / 2);
	server.speed = BH_USBIP_SPEED_LOW;
	connect_client();
	settle();
	assert_true(bus.shown);
	assert_int_equal(device()->speed, BH_SPEED_LOW);
}

static void who_does_not_answer_is_not_waited_for(void **state)
{
	(void)state;
	server.mute = true;
	connect_client();
	settle();
	owed_for_too_long();
	assert_int_equal(server.fd, -1);
	assert_non_null(strstr(bus.line, "does not answer"));
	assert_int_equal(bh_usbip_counters(device()).violations, 1);
}

/* --- being lost -------------------------------------------------------------------------------- */

static void a_lost_connection_is_a_device_unplugged(void **state)
{
	struct rig_transfer *in, *out;

	(void)state;
	in = bulk(1, BULK_IN, 64);
	out = bulk(2, BULK_OUT, 64);
	settle();
	cancel(out); /* the bus does not do that again */
	settle();
	server_close();
	settle();
	assert_false(bus.shown);
	assert_int_equal(bus.detaches, 1);
	assert_true(!in->running && in->status == BH_CANCELLED && in->transfer.actual == 0);
	assert_true(!out->running && out->status == BH_CANCELLED);
	assert_string_equal(bus.line, "usbip there 1-1.4: the server has closed the connection");
	assert_int_equal(client->sent_count, 0);
	bulk(1, BULK_IN, 64);
	assert_int_equal(transfers[1].status, BH_STALL); /* there is no such endpoint any more */
	control(1, 0x80, 0, 0, 0, 2);
	assert_int_equal(transfers[1].status, BH_NO_RESPONSE);
	arrive();
	assert_int_equal(bh_real_device_info(device()).arrivals, 2);
	bulk(1, BULK_IN, 64);
	settle();
	server_result(request(0), 0, 3, "abc");
	settle();
	assert_memory_equal(transfers[1].data, "abc", 3);
}

static void destroyed_in_the_middle(void **state)
{
	(void)state;
	bulk(1, BULK_IN, 64);
	bulk(2, BULK_OUT, 64);
	cancel(&transfers[2]);
	settle();
	bh_device_destroy(device());
	client = NULL;
	assert_false(transfers[1].running || transfers[2].running);
}

static void destroyed_while_it_is_asked(void **state)
{
	(void)state;
	server.drop_gets = true;
	connect_client();
	settle();
	assert_int_equal(client->real.state, BH_REAL_ASKED);
	bh_device_destroy(device());
	client = NULL;
}

/* The guest waits no longer for what does not come; nor do we, for the answer that is owed. */
static void an_unlink_is_answered_or_else(void **state)
{
	(void)state;
	bulk(1, BULK_IN, 64);
	settle();
	cancel(&transfers[1]);
	settle();
	assert_true(transfers[1].running);
	owed_for_too_long();
	assert_false(transfers[1].running);
	assert_false(bus.shown);
	assert_int_equal(server.fd, -1);
	assert_non_null(strstr(bus.line, "the server does not answer"));
}

static void what_is_answered_is_not_owed(void **state)
{
	(void)state;
	bulk(1, BULK_IN, 64);
	settle();
	owed_for_too_long();
	assert_true(bus.shown && transfers[1].running);
	assert_false(uv_is_active((uv_handle_t *)client->session.timer));
}

/* --- hostility ------------------------------------------------------------------------------------ */

static void is_dropped_for(const char *what)
{
	settle();
	assert_false(bus.shown);
	assert_int_equal(server.fd, -1);
	assert_non_null(strstr(bus.line, "dropped"));
	assert_non_null(strstr(bus.line, what));
	assert_int_equal(bh_usbip_counters(device()).violations, 1);
}

static void a_result_nobody_asked_for(void **state)
{
	struct rig_request unknown = {.submit = {.seqnum = 77}};

	(void)state;
	server_result(&unknown, 0, 0, NULL);
	is_dropped_for("nobody asked for");
}

static void a_result_twice(void **state)
{
	(void)state;
	bulk(1, BULK_OUT, 64);
	settle();
	server_result(request(0), 0, 64, NULL);
	server_result(request(0), 0, 64, NULL);
	is_dropped_for("nobody asked for");
	assert_int_equal(transfers[1].status, BH_SUCCESS);
}

static void an_unlink_nobody_sent(void **state)
{
	struct rig_request unknown = {.unlink = {.seqnum = 0}};

	(void)state;
	server_unlinked(&unknown, 0);
	is_dropped_for("nobody sent");
}

static void a_message_of_a_client(void **state)
{
	struct bh_usbip_submit s = {.seqnum = 1};
	struct bh_usbip_cmd_submit m = bh_usbip_put_submit(&s);

	(void)state;
	server_write(&m, sizeof(m));
	is_dropped_for("no server sends");
}

static void more_than_was_asked_for(void **state)
{
	static const uint8_t much[65];

	(void)state;
	bulk(1, BULK_IN, 64);
	settle();
	server_result(request(0), 0, 65, much);
	is_dropped_for("more came");
	assert_int_equal(transfers[1].status, BH_CANCELLED);
	assert_int_equal(transfers[1].transfer.actual, 0);
}

static void more_than_there_could_be(void **state)
{
	(void)state;
	bulk(1, BULK_OUT, 64);
	settle();
	server_result(request(0), 0, 0xffffffff, NULL);
	is_dropped_for("more came");
}

static void garbage(void **state)
{
	uint32_t seed = 1;

	(void)state;
	for (unsigned round = 0; round < 300; round++) {
		uint8_t bytes[700];

		for (unsigned i = 0; i < 8; i++)
			if (!transfers[i + 1].running)
				bulk(i + 1, i & 1 ? BULK_IN : BULK_OUT, 64);
		for (size_t i = 0; i < sizeof(bytes); i++) {
			seed = seed * 1664525u + 1013904223u;
			bytes[i] = i % 4 == 3 ? (uint8_t)(seed >> 24) % 16 : seed >> 31 ? (uint8_t)(seed >> 23) : 0;
		}
		server_write(bytes, sizeof(bytes));
		settle();
		if (!bus.shown) {
			client->real.said = 0;
			arrive();
		}
	}
}

/* --- every byte may be the last --------------------------------------------------------------------- */

/* A conversation: what the guest does, and what the server answers to all that has come since. */
struct step {
	uint8_t endpoint; /* 0: SET_CONFIGURATION */
	uint32_t length;
	int32_t status;
	uint32_t actual;
	bool cancels;
};

static const struct step conversation[] = {
	{.length = 0},
	{BULK_OUT, 200, 0, 200, false},
	{BULK_IN, 128, 0, 70, false},
	{INTERRUPT_IN, 8, 0, 8, false},
	{BULK_IN, 64, -BH_USBIP_EPIPE, 0, false},
	{BULK_IN, 64, -BH_USBIP_ECONNRESET, 0, true},
};

static void do_step(const struct step *s)
{
	static const uint8_t bytes[256];
	static const uint32_t lengths[] = {100, 0, 192};

	if (!s->endpoint)
		control(1, 0x00, 9, 1, 0, 0);
	else
		bulk(1, s->endpoint, s->length);
	isochronous(2, ISO_OUT, lengths, 3); /* stays to the end */
	if (s->cancels && transfers[1].running)
		cancel(&transfers[1]);
	settle();
	for (unsigned i = 0; i < server.count; i++) {
		if (request(i)->unlinks)
			server_unlinked(request(i), s->status);
		else if (!s->cancels && request(i)->submit.endpoint == (s->endpoint & 15))
			server_result(request(i), s->status, s->actual, bytes);
	}
	server.count = 0;
	settle();
	if (transfers[2].running)
		cancel(&transfers[2]);
	settle();
	for (unsigned i = 0; i < server.count; i++)
		if (request(i)->unlinks)
			server_unlinked(request(i), -BH_USBIP_ECONNRESET);
	server.count = 0;
	settle();
}

/* Bytes the server has sent; cut after so many. */
static int64_t talk(int64_t cut)
{
	server.cut = cut;
	connect_client();
	settle();
	for (unsigned i = 0; i < BH_COUNT(conversation) && server.fd >= 0 && bus.shown; i++)
		do_step(&conversation[i]);
	return cut - server.cut;
}

static void cut_at_every_byte(void **state)
{
	int64_t whole = talk(1 << 20);

	(void)state;
	assert_true(bus.shown && whole > 800);
	for (int64_t cut = 0; cut < whole; cut++) {
		server_close();
		settle();
		client->real.said = 0;
		talk(cut);
		assert_false(bus.shown);
		assert_false(transfers[1].running || transfers[2].running);
		assert_int_equal(client->sent_count + client->late_count, 0);
	}
	server_close();
	settle();
	talk(1 << 20);
	assert_true(bus.shown);
}

/* A peer that sends, and one that takes, byte by byte. */
static void a_slow_peer(void **state)
{
	(void)state;
	server.piece = 1;
	talk(1 << 20);
	assert_true(bus.shown);
	assert_int_equal(bh_usbip_counters(device()).violations, 0);
}

/* --- a server that is found by its address --------------------------------------------------------- */

static int listener = -1;
static char directory[] = "/tmp/bulkhead-usbip-XXXXXX", address[80];

static void listen_at(void)
{
	struct bh_address a;
	char name[BH_SOCKET_NAME_SIZE];

	assert_int_equal(bh_address_parse(address, true, &a), 0);
	listener = bh_socket_listen(&a, name);
	bh_address_free(&a);
	assert_true(listener >= 0);
}

static int set_up_listener(void **state)
{
	assert_non_null(mkdtemp(strcpy(directory, "/tmp/bulkhead-usbip-XXXXXX")));
	snprintf(address, sizeof(address), "unix:%s/s", directory);
	listen_at();
	(void)state;
	server.fd = -1;
	server_reset(-1);
	memset(&bus, 0, sizeof(bus));
	uv_loop_init(&loop);
	client = NULL;
	return 0;
}

static int tear_down_listener(void **state)
{
	if (listener >= 0)
		close(listener);
	listener = -1;
	unlink(address + strlen("unix:"));
	rmdir(directory);
	return tear_down(state);
}

static bool accept_one(void)
{
	int fd = listener < 0 ? -1 : accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
		return false;
	server_reset(fd);
	return true;
}

static void wait_for(bool (*condition)(void))
{
	uint64_t until = uv_hrtime() + 10000000000u;

	while (!condition()) {
		assert_true(uv_hrtime() < until);
		accept_one();
		server_run();
		uv_run(&loop, UV_RUN_NOWAIT);
	}
}

static bool is_shown(void)
{
	return bus.shown;
}

static bool is_away(void)
{
	return !bus.shown;
}

static bool has_failed(void)
{
	return bh_usbip_counters(device()).failures > 0;
}

static void it_comes_back_again_and_again(void **state)
{
	struct bh_usbip_config config = {.host = address, .busid = "1-1.4", .log = {.line = rig_line}};
	struct bh_device *d;
	char error[200];

	(void)state;
	assert_int_equal(bh_usbip_create(&loop, &config, &d, error, sizeof(error)), 0);
	client = bh_usbip_of(d);
	d->upcalls = &rig_upcalls;
	wait_for(is_shown);
	for (unsigned i = 0; i < 2; i++) {
		server_close();
		wait_for(is_away);
		wait_for(is_shown);
	}
	close(listener);
	unlink(address + strlen("unix:"));
	server_close();
	wait_for(is_away);
	listener = -1;
	wait_for(has_failed);
	assert_non_null(strstr(bus.line, "there is no connection (No such file or directory)"));
	listen_at();
	wait_for(is_shown);
	assert_int_equal(bh_real_device_info(d).arrivals, 4);
}

static void what_cannot_be_is_refused(void **state)
{
	static const struct {
		const char *host, *busid, *text;
	} rows[] = {
		{"", "1-1", "usbip: host=: is no address"},
		{"::1", "1-1", "usbip: host=::1: is no address; write HOST, HOST:PORT, or [ADDRESS]:PORT for IPv6"},
		{"h:0", "1-1", "is no address"},
		{"h:70000", "1-1", "is no address"},
		{"h", "", "usbip: busid=: is none"},
		{"h", "12345678901234567890123456789012", "is none"},
	};
	struct bh_device *d;
	char error[200];

	(void)state;
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		struct bh_usbip_config config = {.host = rows[i].host, .busid = rows[i].busid};

		assert_int_equal(bh_usbip_create(&loop, &config, &d, error, sizeof(error)), -EINVAL);
		assert_non_null(strstr(error, rows[i].text));
	}
}

static void the_port_may_be_left_out(void **state)
{
	static const struct {
		const char *text, *host, *port;
	} rows[] = {{"h", "h", "3240"}, {"h:1", "h", "1"}, {"[::1]", "::1", "3240"}, {"[::1]:7", "::1", "7"}};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		struct bh_address a;

		assert_int_equal(bh_usbip_address(rows[i].text, &a), 0);
		assert_string_equal(a.host, rows[i].host);
		assert_string_equal(a.port, rows[i].port);
		bh_address_free(&a);
	}
}

/* --- what a server exports --------------------------------------------------------------------------- */

static struct listing {
	unsigned devices, interfaces, done;
	int error;
	char text[200];
	struct bh_usbip_device_fields last;
	uint8_t last_class;
} listing;

static void one_device(void *data, const struct bh_usbip_device_fields *d, const struct bh_usbip_interface *interfaces,
                       unsigned count)
{
	assert_ptr_equal(data, &listing);
	listing.devices++;
	listing.interfaces += count;
	listing.last = *d;
	if (count)
		listing.last_class = interfaces[count - 1].bInterfaceClass;
}

static void list_done(void *data, int error, const char *text)
{
	assert_ptr_equal(data, &listing);
	listing.done++;
	listing.error = error;
	snprintf(listing.text, sizeof(listing.text), "%s", text ? text : "");
}

static const struct bh_usbip_list_ops list_ops = {.device = one_device, .done = list_done};

/* Asks, and is answered with these bytes, so many at a time; then the connection ends. */
static void list(const uint8_t *answer, size_t count, size_t piece)
{
	struct bh_usbip_list *l;
	char error[200];
	uint8_t request[8];
	int fd = -1;

	listing = (struct listing){0};
	assert_int_equal(bh_usbip_list(&loop, address, &list_ops, &listing, &l, error, sizeof(error)), 0);
	while (fd < 0) {
		uv_run(&loop, UV_RUN_NOWAIT);
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	}
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(recv(fd, request, sizeof(request), MSG_WAITALL), 8);
	assert_memory_equal(request, "\x01\x11\x80\x05\0\0\0\0", 8);
	for (size_t at = 0; at < count; at += piece) {
		send(fd, answer + at, BH_MIN(piece, count - at), MSG_NOSIGNAL);
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	close(fd);
	for (unsigned i = 0; i < 100 && !listing.done; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(listing.done, 1);
	uv_run(&loop, UV_RUN_DEFAULT);
}

static size_t make_list(uint8_t *to, unsigned devices, uint32_t says)
{
	struct bh_usbip_devlist_reply reply = {bh_usbip_put_op(BH_USBIP_REP_DEVLIST, BH_USBIP_OK), bh_put_be32(says)};
	size_t size = sizeof(reply);

	memcpy(to, &reply, sizeof(reply));
	for (unsigned i = 0; i < devices; i++) {
		struct bh_usbip_device_fields f = {.busid = "1-1", .path = "/sys/x\n\x1b[2J\xff", .vendor = 0x1234, .interfaces = 3};
		struct bh_usbip_device d = bh_usbip_put_device(&f);
		struct bh_usbip_interface interfaces[3] = {{8, 6, 0x50, 0}, {3, 0, 0, 0}, {7, 1, 2, 0}};

		memcpy(to + size, &d, sizeof(d));
		memcpy(to + size + sizeof(d), interfaces, sizeof(interfaces));
		size += sizeof(d) + sizeof(interfaces);
	}
	return size;
}

static void what_a_server_exports(void **state)
{
	uint8_t bytes[12 + 2 * (312 + 12)];
	size_t size = make_list(bytes, 2, 2);

	(void)state;
	for (size_t piece = 1; piece <= size; piece += 37) {
		list(bytes, size, piece);
		assert_int_equal(listing.error, 0);
		assert_int_equal(listing.devices, 2);
		assert_int_equal(listing.interfaces, 6);
		assert_int_equal(listing.last_class, 7);
		assert_int_equal(listing.last.vendor, 0x1234);
		assert_string_equal(listing.last.busid, "1-1");
		assert_string_equal(listing.last.path, "/sys/x??[2J?");
	}
	list(bytes, make_list(bytes, 0, 0), 100);
	assert_true(listing.error == 0 && listing.devices == 0);
}

static void a_list_that_is_none(void **state)
{
	uint8_t bytes[12 + 2 * (312 + 12)];
	size_t size = make_list(bytes, 2, 2);

	(void)state;
	for (size_t cut = 0; cut < size; cut += 13) {
		list(bytes, cut, 1000);
		assert_int_equal(listing.error, -ECONNRESET);
	}
	list(bytes, make_list(bytes, 0, 0xffffffff), 100);
	assert_non_null(strstr(listing.text, "more devices than there can be"));
	memcpy(bytes, "HTTP/1.1 400", 12);
	list(bytes, 12, 12);
	assert_non_null(strstr(listing.text, "no USB/IP server"));
	make_list(bytes, 0, 0);
	bytes[1] = 0x06;
	list(bytes, 12, 12);
	assert_non_null(strstr(listing.text, "another version"));
}

static void a_list_is_given_up(void **state)
{
	struct bh_usbip_list *l;
	char error[200];

	(void)state;
	listing = (struct listing){0};
	assert_int_equal(bh_usbip_list(&loop, "nowhere:x:1", &list_ops, &listing, &l, error, sizeof(error)), -EINVAL);
	assert_non_null(strstr(error, "is no address"));
	for (unsigned rounds = 0; rounds < 5; rounds++) {
		assert_int_equal(bh_usbip_list(&loop, address, &list_ops, &listing, &l, error, sizeof(error)), 0);
		for (unsigned i = 0; i < rounds; i++)
			uv_run(&loop, UV_RUN_NOWAIT);
		bh_usbip_list_stop(l);
	}
	assert_int_equal(listing.done, 0);
}

#define NEW(test)      cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define THERE(test)    cmocka_unit_test_setup_teardown(test, set_up_there, tear_down)
#define LISTENER(test) cmocka_unit_test_setup_teardown(test, set_up_listener, tear_down_listener)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		NEW(it_is_imported_asked_and_shown),
		NEW(a_request_is_what_vhci_sends),
		NEW(who_refuses_is_asked_again),
		NEW(it_is_said_once),
		NEW(other_servers_are_not_for_us),
		NEW(too_fast_a_device_is_given_back),
		NEW(who_does_not_answer_is_not_waited_for),
		THERE(a_lost_connection_is_a_device_unplugged),
		THERE(destroyed_in_the_middle),
		NEW(destroyed_while_it_is_asked),
		THERE(an_unlink_is_answered_or_else),
		THERE(what_is_answered_is_not_owed),
		THERE(a_result_nobody_asked_for),
		THERE(a_result_twice),
		THERE(an_unlink_nobody_sent),
		THERE(a_message_of_a_client),
		THERE(more_than_was_asked_for),
		THERE(more_than_there_could_be),
		THERE(garbage),
		NEW(cut_at_every_byte),
		NEW(a_slow_peer),
		LISTENER(it_comes_back_again_and_again),
		NEW(what_cannot_be_is_refused),
		NEW(the_port_may_be_left_out),
		LISTENER(what_a_server_exports),
		LISTENER(a_list_that_is_none),
		LISTENER(a_list_is_given_up),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
