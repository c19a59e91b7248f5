/* Transfers over USB/IP: what travels, how they end, and how they are ended. */
#include "test_usbip_rig.h"

/* --- bulk, interrupt, control ------------------------------------------------------------------ */

static void bulk_out(void **state)
{
	struct rig_transfer *t;

	(void)state;
	t = bulk(1, BULK_OUT, 200);
	settle();
	assert_int_equal(request(0)->submit.endpoint, 2);
	assert_int_equal(request(0)->submit.length, 200);
	assert_int_equal(request(0)->submit.flags, 0);
	assert_int_equal(request(0)->submit.packets, 0);
	assert_false(request(0)->submit.in);
	assert_memory_equal(request(0)->data, t->data, 200);
	server_result(request(0), 0, 200, NULL);
	settle();
	assert_int_equal(t->status, BH_SUCCESS);
	assert_int_equal(t->transfer.actual, 200);
	t = prepare(1, BULK_OUT, BH_BULK, 128);
	t->transfer.flags = BH_TRANSFER_ZERO_PACKET;
	start(t);
	settle();
	assert_int_equal(request(1)->submit.flags, BH_USBIP_ZERO_PACKET);
	t = bulk(2, BULK_OUT, 0);
	settle();
	assert_int_equal(request(2)->submit.length, 0);
	server_result(request(1), 0, 128, NULL);
	server_result(request(2), 0, 0, NULL);
	settle();
	assert_int_equal(bh_usbip_counters(device()).bytes_out, 328);
}

static void bulk_in(void **state)
{
	uint8_t bytes[128];
	struct rig_transfer *t;

	(void)state;
	memset(bytes, 0x5a, sizeof(bytes));
	t = bulk(1, BULK_IN, 128);
	settle();
	assert_true(request(0)->submit.in);
	assert_int_equal(request(0)->submit.endpoint, 1);
	assert_int_equal(request(0)->submit.flags, BH_USBIP_DIR_IN);
	server_result(request(0), 0, 70, bytes);
	settle();
	assert_int_equal(t->status, BH_SUCCESS);
	assert_int_equal(t->transfer.actual, 70);
	assert_memory_equal(t->data, bytes, 70);
	assert_int_equal(t->data[70], 0);
	t = bulk(1, BULK_IN, 64);
	settle();
	server_result(request(1), 0, 0, NULL); /* an empty packet */
	settle();
	assert_true(t->status == BH_SUCCESS && t->transfer.actual == 0);
	t = bulk(1, INTERRUPT_IN, 8);
	settle();
	assert_int_equal(request(2)->submit.interval, 10);
	server_result(request(2), 0, 8, bytes);
	settle();
	assert_int_equal(bh_usbip_counters(device()).bytes_in, 78 + sizeof(rig_configuration) + 9 + 18);
}

static void every_status_means_something(void **state)
{
	static const struct {
		int32_t status;
		uint32_t actual;
		enum bh_status expected;
	} rows[] = {
		{0, 64, BH_SUCCESS},
		{0, 10, BH_SUCCESS},
		{-BH_USBIP_EREMOTEIO, 10, BH_SUCCESS},
		{-BH_USBIP_EPIPE, 0, BH_STALL},
		{-BH_USBIP_EPIPE, 64, BH_STALL},
		{-BH_USBIP_EOVERFLOW, 0, BH_BABBLE},
		{-BH_USBIP_EPROTO, 0, BH_BUS_ERROR},
		{-BH_USBIP_EILSEQ, 0, BH_BUS_ERROR},
		{-BH_USBIP_ETIME, 0, BH_NO_RESPONSE},
		{-BH_USBIP_ENODEV, 0, BH_NO_RESPONSE},
		{-BH_USBIP_ESHUTDOWN, 0, BH_NO_RESPONSE},
		{-BH_USBIP_ECONNRESET, 0, BH_NO_RESPONSE}, /* nobody cancelled */
		{-BH_USBIP_ENOENT, 0, BH_NO_RESPONSE},
		{-22, 0, BH_BUS_ERROR},
		{1, 0, BH_BUS_ERROR},
		{INT32_MIN, 0, BH_BUS_ERROR},
	};
	uint8_t bytes[64] = {0};

	(void)state;
	for (unsigned i = 0; i < BH_COUNT(rows); i++) {
		bulk(1, BULK_IN, 64);
		settle();
		server_result(request(i), rows[i].status, rows[i].actual, bytes);
		settle();
		assert_int_equal(transfers[1].status, rows[i].expected);
		assert_int_equal(transfers[1].transfer.actual, rows[i].actual);
	}
	assert_true(bus.shown);
	assert_int_equal(bh_usbip_counters(device()).errors, 13);
}

static void statuses_have_a_way_back(void **state)
{
	(void)state;
	for (enum bh_status s = 0; s < BH_STATUS_COUNT; s++)
		if (s != BH_NO_RESPONSE)
			assert_int_equal(bh_usbip_outcome(bh_usbip_status(s)), s);
	for (enum bh_speed s = BH_SPEED_LOW; s <= BH_SPEED_SUPER; s++) {
		enum bh_speed back;

		assert_true(bh_usbip_get_speed(bh_usbip_put_speed(s), &back));
		assert_int_equal(back, s);
	}
}

static void control_transfers(void **state)
{
	(void)state;
	control(1, 0x21, 0x20, 0, 0, 7);
	settle();
	assert_int_equal(request(0)->submit.length, 7);
	assert_false(request(0)->submit.in);
	assert_memory_equal(&request(0)->submit.setup, &transfers[1].transfer.setup, 8);
	assert_memory_equal(request(0)->data, transfers[1].data, 7);
	server_result(request(0), 0, 0, NULL); /* some servers do not say */
	settle();
	assert_true(transfers[1].status == BH_SUCCESS && transfers[1].transfer.actual == 7);
	control(1, 0xa1, 0x21, 0, 0, 7);
	settle();
	assert_true(request(1)->submit.in);
	server_result(request(1), 0, 7, "1234567");
	settle();
	assert_memory_equal(transfers[1].data, "1234567", 7);
	control(1, 0xc0, 1, 0, 0, 0); /* no data is OUT */
	settle();
	assert_false(request(2)->submit.in);
	server_result(request(2), -BH_USBIP_EPIPE, 0, NULL);
	settle();
	assert_int_equal(transfers[1].status, BH_STALL);
}

/* Linux takes no request whose data is not as long as it says. */
static void control_data_that_ended_early_is_not_sent(void **state)
{
	struct rig_transfer *t = prepare(1, 0, BH_CONTROL, 3);

	(void)state;
	t->transfer.setup = (struct bh_setup){0x21, 0x20, bh_put_le16(0), bh_put_le16(0), bh_put_le16(7)};
	start(t);
	assert_int_equal(t->status, BH_STALL);
	settle();
	assert_int_equal(server.count, 0);
}

static void settings_are_what_was_agreed_upon(void **state)
{
	(void)state;
	assert_non_null(bh_device_endpoint(device(), BULK_IN));
	control(1, 0x01, 11, 1, 0, 0); /* SET_INTERFACE */
	settle();
	assert_non_null(bh_device_endpoint(device(), BULK_IN));
	server_result(request(0), -BH_USBIP_EPIPE, 0, NULL);
	settle();
	assert_non_null(bh_device_endpoint(device(), BULK_IN));
	control(1, 0x01, 11, 1, 0, 0);
	settle();
	server_result(request(1), 0, 0, NULL);
	settle();
	assert_null(bh_device_endpoint(device(), BULK_IN));
	assert_int_equal(bh_device_endpoint(device(), OTHER_IN)->max_packet, 32);
	control(1, 0x02, 1, 0, OTHER_IN, 0); /* CLEAR_FEATURE(ENDPOINT_HALT) */
	settle();
	assert_int_equal(request(2)->submit.setup.bRequest, 1);
	server_result(request(2), 0, 0, NULL);
	control(2, 0x00, 9, 0, 0, 0);
	settle();
	server_result(request(3), 0, 0, NULL);
	settle();
	assert_null(bh_device_endpoint(device(), OTHER_IN));
	bulk(1, OTHER_IN, 32);
	assert_int_equal(transfers[1].status, BH_STALL);
}

static void results_come_in_any_order(void **state)
{
	(void)state;
	bulk(1, BULK_OUT, 64);
	bulk(2, BULK_IN, 64);
	bulk(3, INTERRUPT_IN, 8);
	control(4, 0x80, 0, 0, 0, 2);
	settle();
	assert_int_equal(server.count, 4);
	for (unsigned i = 4; i--;)
		server_result(request(i), 0, 2, "xy");
	settle();
	for (unsigned i = 1; i <= 4; i++)
		assert_int_equal(transfers[i].order, transfers[4].order + 4 - i);
	assert_true(bus.shown);
}

/* --- isochronous ---------------------------------------------------------------------------------- */

static void iso_result(const struct rig_request *r, int32_t status, const struct bh_usbip_packet *packets, unsigned count,
                       uint32_t actual, const void *data)
{
	struct bh_usbip_result fields = {.seqnum = r->submit.seqnum, .status = status, .actual = actual, .packets = count};
	struct bh_usbip_ret_submit m = bh_usbip_put_result(&fields);

	server_write(&m, sizeof(m));
	if (r->submit.in)
		server_write(data, actual);
	for (unsigned i = 0; i < count; i++) {
		struct bh_usbip_iso_packet wire = bh_usbip_put_packet(&packets[i]);

		server_write(&wire, sizeof(wire));
	}
}

static void isochronous_in_with_holes(void **state)
{
	static const uint32_t lengths[] = {192, 192, 192, 192, 192};
	static const struct bh_usbip_packet answer[] = {
		{0, 192, 3, 0}, {192, 192, 0, -BH_USBIP_EXDEV}, {384, 192, 0, 0}, {576, 192, 2, -BH_USBIP_EOVERFLOW},
		{768, 192, 4, 0},
	};
	struct rig_transfer *t = isochronous(1, ISO_IN, lengths, 5);

	(void)state;
	settle();
	assert_int_equal(request(0)->submit.packets, 5);
	assert_int_equal(request(0)->submit.length, 960);
	assert_int_equal(request(0)->submit.interval, 4);
	assert_int_equal(request(0)->submit.flags, BH_USBIP_DIR_IN | BH_USBIP_ISO_ASAP);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(request(0)->packets[i].offset, i * 192);
		assert_int_equal(request(0)->packets[i].length, 192);
		assert_int_equal(request(0)->packets[i].actual, 0);
	}
	iso_result(request(0), -BH_USBIP_EXDEV, answer, 5, 9, "abcdefghi");
	settle();
	assert_false(t->running);
	assert_memory_equal(t->data, "abc", 3);
	assert_memory_equal(t->data + 3 * ISO_PACKET, "de", 2);
	assert_memory_equal(t->data + 4 * ISO_PACKET, "fghi", 4);
	assert_int_equal(t->data[ISO_PACKET], 0);
	assert_true(t->packets[0].status == BH_SUCCESS && t->packets[0].actual == 3);
	assert_true(t->packets[1].status == BH_NO_RESPONSE && t->packets[1].actual == 0);
	assert_true(t->packets[2].status == BH_SUCCESS && t->packets[2].actual == 0);
	assert_true(t->packets[3].status == BH_BABBLE && t->packets[3].actual == 2);
	assert_true(t->packets[4].status == BH_SUCCESS && t->packets[4].actual == 4);
}

/* In one row; and as much room as Linux wants for three packets, whatever they need. */
static void isochronous_out_with_holes(void **state)
{
	static const uint32_t lengths[] = {10, 0, 20};
	static const struct bh_usbip_packet answer[] = {{0, 10, 10, 0}, {10, 0, 0, 0}, {10, 20, 0, -BH_USBIP_EXDEV}};
	struct rig_transfer *t = isochronous(1, ISO_OUT, lengths, 3);

	(void)state;
	settle();
	assert_int_equal(request(0)->submit.length, 2 * 192 + 1);
	assert_int_equal(request(0)->submit.packets, 3);
	assert_int_equal(request(0)->submit.interval, 1);
	assert_memory_equal(request(0)->data, t->data, 10);
	assert_memory_equal(request(0)->data + 10, t->data + 2 * ISO_PACKET, 20);
	assert_int_equal(request(0)->data[30], 0);
	assert_int_equal(request(0)->packets[2].offset, 10);
	assert_int_equal(request(0)->packets[2].length, 20);
	iso_result(request(0), 0, answer, 3, 10, NULL);
	settle();
	assert_true(t->packets[0].status == BH_SUCCESS && t->packets[0].actual == 10);
	assert_true(t->packets[1].status == BH_SUCCESS && t->packets[1].actual == 0);
	assert_true(t->packets[2].status == BH_NO_RESPONSE && t->packets[2].actual == 0);
	assert_int_equal(server.have, 0);
}

static void isochronous_that_failed_as_a_whole(void **state)
{
	static const uint32_t lengths[] = {100, 100};
	static const struct bh_usbip_packet answer[] = {{0, 100, 5, 0}, {100, 100, 0, 0}};
	struct rig_transfer *t = isochronous(1, ISO_IN, lengths, 2);

	(void)state;
	settle();
	iso_result(request(0), -BH_USBIP_ESHUTDOWN, answer, 2, 5, "12345");
	settle();
	assert_true(t->packets[0].status == BH_SUCCESS && t->packets[0].actual == 5);
	assert_true(t->packets[1].status == BH_NO_RESPONSE && t->packets[1].actual == 0);
}

/* They end in the order in which they were submitted, whatever the server does. */
static void isochronous_results_wait_for_their_turn(void **state)
{
	static const uint32_t lengths[] = {192};
	static const struct bh_usbip_packet answer[] = {{0, 192, 1, 0}};

	(void)state;
	for (unsigned i = 1; i <= 3; i++)
		isochronous(i, ISO_IN, lengths, 1);
	settle();
	iso_result(request(2), 0, answer, 1, 1, "c");
	iso_result(request(1), 0, answer, 1, 1, "b");
	settle();
	assert_true(transfers[1].running && transfers[2].running && transfers[3].running);
	iso_result(request(0), 0, answer, 1, 1, "a");
	settle();
	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(transfers[i].data[0], 'a' + i - 1);
		assert_int_equal(transfers[i].order, transfers[1].order + i - 1);
	}
	assert_int_equal(client->sent_count, 0);
}

static void isochronous_nonsense_is_not_believed(void **state)
{
	static const uint32_t lengths[] = {100, 100};
	static const struct {
		struct bh_usbip_packet packets[3];
		unsigned count;
		uint32_t actual;
	} rows[] = {
		{{{0, 100, 1, 0}}, 1, 1},                                       /* fewer */
		{{{0, 100, 1, 0}, {100, 100, 1, 0}, {200, 100, 0, 0}}, 3, 2},   /* more */
		{{{0, 100, 1, 0}, {100, 100, 1, 0}}, 2, 3},                     /* another sum */
		{{{0, 100, 101, 0}, {100, 100, 0, 0}}, 2, 101},                 /* a packet that is too long */
		{{{0, 100, 0xffffffff, 0}, {100, 100, 2, 0}}, 2, 1},            /* a sum that overflows */
		{{{0, 100, 100, 0}, {100, 100, 100, 0}}, 2, 201},               /* more than there is room for */
	};
	static const uint8_t bytes[256];

	(void)state;
	for (unsigned i = 0; i < BH_COUNT(rows); i++) {
		isochronous(1, ISO_IN, lengths, 2);
		settle();
		iso_result(request(0), 0, rows[i].packets, rows[i].count, rows[i].actual, bytes);
		settle();
		assert_false(bus.shown || transfers[1].running);
		assert_int_equal(transfers[1].packets[0].actual, 0);
		assert_int_equal(bh_usbip_counters(device()).violations, i + 1);
		client->real.said = 0;
		arrive();
	}
}

/* --- cancelling -------------------------------------------------------------------------------------- */

static void cancelled_by_an_unlink(void **state)
{
	(void)state;
	bulk(1, BULK_IN, 64);
	settle();
	cancel(&transfers[1]);
	settle();
	assert_true(request(1)->unlinks);
	assert_int_equal(request(1)->unlink.target, request(0)->submit.seqnum);
	assert_true(request(1)->unlink.seqnum != request(0)->submit.seqnum);
	assert_true(transfers[1].running);
	server_unlinked(request(1), -BH_USBIP_ECONNRESET);
	settle();
	assert_true(transfers[1].status == BH_CANCELLED && transfers[1].transfer.actual == 0);
	assert_int_equal(client->sent_count, 0);
	assert_int_equal(bh_usbip_counters(device()).unlinks, 1);
}

static void the_result_was_faster_than_the_unlink(void **state)
{
	(void)state;
	bulk(1, BULK_IN, 64);
	settle();
	server_result(request(0), 0, 3, "abc");
	cancel(&transfers[1]);
	settle();
	assert_true(transfers[1].status == BH_SUCCESS && transfers[1].transfer.actual == 3);
	assert_int_equal(client->sent_count, 1);
	server_unlinked(request(1), 0);
	settle();
	assert_int_equal(client->sent_count, 0);
	assert_true(bus.shown);
}

/* usbip-host may send the answer to the unlink first. */
static void the_result_comes_after_the_answer_to_the_unlink(void **state)
{
	(void)state;
	bulk(1, BULK_IN, 64);
	settle();
	cancel(&transfers[1]);
	settle();
	server_unlinked(request(1), 0);
	settle();
	assert_true(transfers[1].running);
	assert_true(request(2)->unlinks);
	assert_int_equal(request(2)->unlink.target, request(0)->submit.seqnum);
	server_result(request(0), 0, 3, "abc");
	server_unlinked(request(2), 0);
	settle();
	assert_true(transfers[1].status == BH_SUCCESS && transfers[1].transfer.actual == 3);
	assert_int_equal(client->sent_count + client->late_count, 0);
	assert_int_equal(bh_usbip_counters(device()).lost, 0);
}

/* Ended between the unlink and its end, the result is dropped by usbip-host: it ended well. */
static void the_result_never_comes(void **state)
{
	(void)state;
	bulk(1, BULK_OUT, 64);
	bulk(2, BULK_IN, 64);
	settle();
	cancel(&transfers[1]);
	cancel(&transfers[2]);
	settle();
	server_unlinked(request(2), 0);
	server_unlinked(request(3), 0);
	settle();
	server_unlinked(request(4), 0);
	server_unlinked(request(5), 0);
	settle();
	assert_true(transfers[1].status == BH_SUCCESS && transfers[1].transfer.actual == 64);
	assert_true(transfers[2].status == BH_CANCELLED && transfers[2].transfer.actual == 0);
	assert_int_equal(client->sent_count, 0);
	assert_int_equal(client->late_count, 2);
	assert_int_equal(bh_usbip_counters(device()).lost, 2);
	/* Or it does: nobody wants it then. */
	server_result(request(1), 0, 5, "abcde");
	settle();
	assert_int_equal(client->late_count, 1);
	assert_true(bus.shown);
	bulk(2, BULK_IN, 64);
	settle();
	server_result(request(6), 0, 1, "z");
	settle();
	assert_int_equal(transfers[2].data[0], 'z');
}

static void what_may_still_come_is_bounded(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3 * BH_USBIP_LATE; i++) {
		bulk(1, BULK_IN, 64);
		settle();
		cancel(&transfers[1]);
		settle();
		server_unlinked(request(1), 0);
		settle();
		server_unlinked(request(2), 0);
		settle();
		server.count = 0;
		assert_false(transfers[1].running);
		assert_int_equal(client->late_count, BH_MIN(i + 1, BH_USBIP_LATE));
	}
	assert_true(bus.shown);
}

static void an_unlink_that_tells_how_it_ended(void **state)
{
	(void)state;
	bulk(1, BULK_IN, 64);
	settle();
	cancel(&transfers[1]);
	settle();
	server_unlinked(request(1), -BH_USBIP_EPIPE);
	settle();
	assert_true(transfers[1].status == BH_STALL && transfers[1].transfer.actual == 0);
}

static void a_result_that_says_it_was_unlinked(void **state)
{
	(void)state;
	bulk(1, BULK_IN, 64);
	settle();
	cancel(&transfers[1]);
	settle();
	server_result(request(0), -BH_USBIP_ECONNRESET, 2, "ab");
	server_unlinked(request(1), 0);
	settle();
	assert_true(transfers[1].status == BH_CANCELLED && transfers[1].transfer.actual == 2);
	assert_int_equal(client->sent_count, 0);
}

static void cancelled_while_its_data_comes(void **state)
{
	(void)state;
	server.piece = 50;
	bulk(1, BULK_IN, 64);
	settle();
	server_result(request(0), 0, 64, rig_configuration);
	server_run();
	uv_run(&loop, UV_RUN_NOWAIT);
	server_run();
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_true(transfers[1].running && client->receiving);
	cancel(&transfers[1]);
	settle();
	assert_true(transfers[1].status == BH_SUCCESS && transfers[1].transfer.actual == 64);
	server_unlinked(request(1), 0);
	settle();
	assert_int_equal(client->sent_count, 0);
}

/* What has not been made a message yet is cancelled without one. */
static void cancelled_while_it_waits(void **state)
{
	unsigned sent, n = 290;

	(void)state;
	server.deaf = true;
	for (unsigned i = 1; i < n; i++)
		bulk(i, BULK_OUT, 8192);
	settle();
	sent = client->sent_count;
	assert_true(sent > 10 && sent < 120);
	assert_true(client->session.output.used - client->session.output.from < BH_USBIP_OUTPUT + 8192 + 48);
	cancel(&transfers[n - 1]);
	assert_int_equal(transfers[n - 1].status, BH_CANCELLED);
	server.deaf = false;
	settle();
	for (unsigned round = 0; round < n; round++) {
		for (unsigned i = 0; i < server.count; i++) {
			assert_false(request(i)->unlinks);
			server_result(request(i), 0, request(i)->submit.length, NULL);
		}
		server.count = 0;
		settle();
	}
	for (unsigned i = 1; i < n - 1; i++)
		assert_true(!transfers[i].running && transfers[i].status == BH_SUCCESS);
	assert_int_equal(client->sent_count, 0);
}

static void no_more_are_under_way_than_allowed(void **state)
{
	(void)state;
	for (unsigned i = 1; i < 300; i++)
		bulk(i, BULK_IN, 64);
	settle();
	assert_int_equal(server.count, BH_USBIP_REQUESTS);
	server_result(request(0), 0, 0, NULL);
	settle();
	assert_int_equal(server.count, BH_USBIP_REQUESTS + 1);
}

/* --- reset -------------------------------------------------------------------------------------------- */

static void a_reset_ends_everything_at_once(void **state)
{
	static const uint32_t lengths[] = {192};
	static const struct bh_usbip_packet answer[] = {{0, 192, 1, 0}};

	(void)state;
	bulk(1, BULK_IN, 64);
	bulk(2, BULK_OUT, 64);
	isochronous(3, ISO_IN, lengths, 1);
	settle();
	cancel(&transfers[2]);
	bh_device_reset(device());
	assert_false(transfers[1].running || transfers[2].running || transfers[3].running);
	assert_null(bh_device_endpoint(device(), BULK_IN));
	settle();
	assert_int_equal(server.count, 6);
	assert_int_equal(client->sent_count, 3);
	/* Whatever comes of them reaches nobody. */
	server_result(request(0), 0, 64, rig_configuration);
	server_unlinked(request(3), -BH_USBIP_ECONNRESET);
	server_unlinked(request(4), 0);
	iso_result(request(2), 0, answer, 1, 1, "x");
	server_unlinked(request(5), 0);
	settle();
	assert_int_equal(client->sent_count, 0);
	assert_true(bus.shown);
	assert_int_equal(transfers[1].data[0], 0);
	control(1, 0x00, 9, 1, 0, 0);
	settle();
	server_result(request(6), 0, 0, NULL);
	settle();
	assert_non_null(bh_device_endpoint(device(), BULK_IN));
}

/* A guest that resets again and again, and a server that answers nothing. */
static void orphans_are_bounded(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 300; i++) {
		control(1, 0xc0, 1, 0, 0, 8);
		bh_device_reset(device());
		settle();
		assert_false(transfers[1].running);
	}
	assert_int_equal(client->sent_count, BH_USBIP_REQUESTS);
	assert_true(bus.shown);
}

#define THERE(test) cmocka_unit_test_setup_teardown(test, set_up_there, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		THERE(bulk_out),
		THERE(bulk_in),
		THERE(every_status_means_something),
		cmocka_unit_test(statuses_have_a_way_back),
		THERE(control_transfers),
		THERE(control_data_that_ended_early_is_not_sent),
		THERE(settings_are_what_was_agreed_upon),
		THERE(results_come_in_any_order),
		THERE(isochronous_in_with_holes),
		THERE(isochronous_out_with_holes),
		THERE(isochronous_that_failed_as_a_whole),
		THERE(isochronous_results_wait_for_their_turn),
		THERE(isochronous_nonsense_is_not_believed),
		THERE(cancelled_by_an_unlink),
		THERE(the_result_was_faster_than_the_unlink),
		THERE(the_result_comes_after_the_answer_to_the_unlink),
		THERE(the_result_never_comes),
		THERE(what_may_still_come_is_bounded),
		THERE(an_unlink_that_tells_how_it_ended),
		THERE(a_result_that_says_it_was_unlinked),
		THERE(cancelled_while_its_data_comes),
		THERE(cancelled_while_it_waits),
		THERE(no_more_are_under_way_than_allowed),
		THERE(a_reset_ends_everything_at_once),
		THERE(orphans_are_bounded),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
