/* The test device: source and sink, isochronous packets, loopback, vendor requests, delay. */
#include "function_rig.h"

#include <errno.h>
#include <uv.h>

#include <function/zero.h>

#define SOURCE_SINK 3
#define LOOPBACK    2

enum { IN = 0x81, OUT = 0x01, ISO_IN = 0x82, ISO_OUT = 0x02, INT_IN = 0x83, INT_OUT = 0x03 };

static struct bh_device *d; /* the test's, destroyed after it */
static uint8_t data[512 * 1024], back[512 * 1024];

static void make(unsigned pattern, uint8_t configuration)
{
	const struct bh_zero_config config = {.pattern = pattern};

	assert_int_equal(bh_zero_create(&config, &d), 0);
	bh_device_reset(d);
	assert_int_equal(set_configuration(d, configuration), BH_SUCCESS);
}

static int tear_down(void **state)
{
	(void)state;
	bh_device_destroy(d);
	d = NULL;
	return 0;
}

/* As usbtest fills and checks its buffers. */
static uint8_t mod63(uint32_t i, uint32_t max_packet)
{
	return (uint8_t)(i % max_packet % 63);
}

static void fill_mod63(uint8_t *p, uint32_t length, uint32_t max_packet)
{
	for (uint32_t i = 0; i < length; i++)
		p[i] = mod63(i, max_packet);
}

static enum bh_status out(void *bytes, uint32_t length, uint32_t *n)
{
	return transfer(d, OUT, BH_BULK, bytes, length, n);
}

/* --- what it says it is ------------------------------------------------------------------- */

static void test_descriptors(void **state)
{
	static const uint8_t device[] = {18, 1, 0, 2, 0xff, 0, 0, 64, 0x25, 0x05, 0xa0, 0xa4, 0, 1, 1, 2, 3, 2};
	static const uint8_t source_sink[] = {
		9, 2, 106, 0, 1, 3, 4, 0xc0, 0,
		9, 4, 0, 0, 2, 0xff, 0, 0, 0,
		7, 5, 0x81, 2, 64, 0, 0,
		7, 5, 0x01, 2, 64, 0, 0,
		9, 4, 0, 1, 4, 0xff, 0, 0, 0,
		7, 5, 0x81, 2, 64, 0, 0,
		7, 5, 0x01, 2, 64, 0, 0,
		7, 5, 0x82, 1, 0xff, 3, 4,
		7, 5, 0x02, 1, 0xff, 3, 4,
		9, 4, 0, 2, 4, 0xff, 0, 0, 0,
		7, 5, 0x81, 2, 64, 0, 0,
		7, 5, 0x01, 2, 64, 0, 0,
		7, 5, 0x83, 3, 64, 0, 1,
		7, 5, 0x03, 3, 64, 0, 1,
	};
	static const uint8_t loopback[] = {
		9, 2, 32, 0, 1, 2, 5, 0xc0, 0,
		9, 4, 0, 0, 2, 0xff, 0, 0, 0,
		7, 5, 0x81, 2, 64, 0, 0,
		7, 5, 0x01, 2, 64, 0, 0,
	};
	static const char serial[] = "0123456789.0123456789.0123456789";
	uint8_t b[255];
	uint32_t n;

	(void)state;
	make(0, SOURCE_SINK);
	assert_int_equal(request(d, 0x80, 6, 0x0100, 0, b, 64, &n), BH_SUCCESS);
	assert_int_equal(n, sizeof(device));
	assert_memory_equal(b, device, n);
	assert_int_equal(request(d, 0x80, 6, 0x0200, 0, b, 255, &n), BH_SUCCESS);
	assert_int_equal(n, sizeof(source_sink));
	assert_memory_equal(b, source_sink, n);
	assert_int_equal(request(d, 0x80, 6, 0x0201, 0, b, 255, &n), BH_SUCCESS);
	assert_int_equal(n, sizeof(loopback));
	assert_memory_equal(b, loopback, n);
	assert_int_equal(request(d, 0x80, 6, 0x0303, 0x0409, b, 255, &n), BH_SUCCESS);
	assert_int_equal(n, 2 * sizeof(serial));
	for (size_t i = 0; i < sizeof(serial) - 1; i++)
		assert_int_equal(b[2 + 2 * i], serial[i]);
	assert_int_equal(request(d, 0x80, 6, 0x0305, 0x0409, b, 255, &n), BH_SUCCESS);
	assert_int_equal(request(d, 0x80, 6, 0x0600, 0, b, 10, &n), BH_STALL); /* no qualifier */
	assert_int_equal(request(d, 0x80, 6, 0x0f00, 0, b, 5, &n), BH_STALL);  /* nor BOS */
	assert_int_equal(request(d, 0x80, 0, 0, 0, b, 2, &n), BH_SUCCESS);
	assert_int_equal(b[0], 1); /* self-powered */
	assert_int_equal(request(d, 0, 3, 1, 0, NULL, 0, NULL), BH_STALL); /* and does not wake */
}

static void test_intervals_are_configured(void **state)
{
	struct bh_zero_config config = {.isochronous_interval = 1, .interrupt_interval = 32};

	(void)state;
	assert_int_equal(bh_zero_create(&config, &d), 0);
	bh_device_reset(d);
	set_configuration(d, SOURCE_SINK);
	set_interface(d, 0, 1);
	assert_int_equal(bh_device_endpoint(d, ISO_IN)->interval, 1);
	assert_int_equal(bh_device_endpoint(d, ISO_OUT)->interval, 1);
	set_interface(d, 0, 2);
	assert_int_equal(bh_device_endpoint(d, INT_IN)->interval, 32);
	assert_int_equal(bh_device_endpoint(d, INT_OUT)->interval, 32);
}

static void test_configurations_out_of_range_are_refused(void **state)
{
	static const struct bh_zero_config bad[] = {
		{.pattern = 3}, {.isochronous_interval = 17}, {.interrupt_interval = 256},
		{.delay_us = 1}, /* without a loop */
		{.delay_us = 10000001, .loop = (uv_loop_t *)1},
	};
	static const struct bh_zero_config good = {.pattern = 2, .isochronous_interval = 16, .interrupt_interval = 255};
	struct bh_device *untouched = (struct bh_device *)1;

	(void)state;
	for (size_t i = 0; i < BH_COUNT(bad); i++)
		assert_int_equal(bh_zero_create(&bad[i], &untouched), -EINVAL);
	assert_ptr_equal(untouched, (struct bh_device *)1);
	assert_int_equal(bh_zero_create(&good, &d), 0);
}

static void test_each_alternate_setting_has_its_endpoints(void **state)
{
	static const uint8_t addresses[] = {IN, OUT, ISO_IN, ISO_OUT, INT_IN, INT_OUT};
	uint8_t b[64] = {0};
	uint32_t n;

	(void)state;
	make(0, SOURCE_SINK);
	for (uint8_t alternate = 0; alternate < 3; alternate++) {
		assert_int_equal(set_interface(d, 0, alternate), BH_SUCCESS);
		for (unsigned i = 0; i < BH_COUNT(addresses); i++)
			assert_true(!bh_device_endpoint(d, addresses[i]) == (i / 2 != 0 && i / 2 != alternate));
	}
	assert_int_equal(set_interface(d, 0, 3), BH_STALL);
	assert_int_equal(set_interface(d, 1, 0), BH_STALL);
	assert_int_equal(transfer(d, ISO_IN, BH_ISOCHRONOUS, b, 64, &n), BH_STALL); /* not of setting 2 */
	assert_int_equal(transfer(d, IN, BH_INTERRUPT, b, 64, &n), BH_STALL);       /* not of that type */
	assert_int_equal(transfer(d, 0x84, BH_BULK, b, 64, &n), BH_STALL);
	bh_device_reset(d);
	assert_int_equal(transfer(d, IN, BH_BULK, b, 64, &n), BH_STALL);
	assert_int_equal(bh_zero_counters(d).bulk.packets_in, 0);
}

/* --- source and sink ------------------------------------------------------------------------ */

static void test_source_gives_any_length_at_once(void **state)
{
	static const uint32_t lengths[] = {64, 128, 4096, 4096 + 64, 256 * 1024, 63 * 64};
	uint64_t bytes = 0;
	uint32_t n;

	(void)state;
	for (unsigned pattern = 0; pattern < 3; pattern++) {
		make(pattern, SOURCE_SINK);
		bytes = 0;
		for (size_t i = 0; i < BH_COUNT(lengths); i++) {
			memset(data, 0xee, sizeof(data));
			assert_int_equal(transfer(d, IN, BH_BULK, data, lengths[i], &n), BH_SUCCESS);
			assert_int_equal(n, lengths[i]);
			for (uint32_t j = 0; j < n; j++)
				assert_int_equal(data[j], pattern == 1 ? mod63(j, 64) : 0);
			assert_int_equal(data[n], 0xee);
			bytes += n;
		}
		assert_int_equal(bh_zero_counters(d).bulk.bytes_in, bytes);
		assert_int_equal(bh_zero_counters(d).bulk.packets_in, bytes / 64);
		tear_down(state);
	}
}

/* The engine cuts where it likes; here it also gathers over pieces of memory. */
static void test_source_fills_spans_of_any_size(void **state)
{
	struct iovec spans[] = {{data, 1}, {data + 1, 99}, {data + 100, 5000}, {data + 5100, 20}};
	struct flight f;

	(void)state;
	make(1, SOURCE_SINK);
	flight_init(&f, IN, BH_BULK, NULL, 5120);
	f.transfer.spans = spans;
	f.transfer.span_count = 4;
	bh_device_submit(d, &f.transfer);
	assert_true(f.done);
	assert_int_equal(f.transfer.actual, 5120);
	for (uint32_t j = 0; j < 5120; j++)
		assert_int_equal(data[j], mod63(j, 64));
}

static void test_sink_takes_what_is_of_the_pattern(void **state)
{
	struct bh_zero_counters c;
	struct flight f;
	uint32_t n;

	(void)state;
	make(1, SOURCE_SINK);
	fill_mod63(data, sizeof(data), 64);
	assert_int_equal(out(data, 256 * 1024, &n), BH_SUCCESS);
	assert_int_equal(n, 256 * 1024);
	assert_int_equal(out(data, 100, &n), BH_SUCCESS); /* a short packet; the next begins anew */
	assert_int_equal(n, 100);
	assert_int_equal(out(data, 64, &n), BH_SUCCESS);
	assert_int_equal(out(data, 0, &n), BH_SUCCESS);
	assert_int_equal(n, 0);
	flight_init(&f, OUT, BH_BULK, data, 128);
	f.transfer.flags = BH_TRANSFER_ZERO_PACKET;
	bh_device_submit(d, &f.transfer);
	assert_true(f.done);
	assert_int_equal(f.status, BH_SUCCESS);
	c = bh_zero_counters(d);
	assert_int_equal(c.bulk.bytes_out, 256 * 1024 + 100 + 64 + 128);
	assert_int_equal(c.bulk.packets_out, 4096 + 2 + 1 + 1 + 3);
	assert_int_equal(c.bad_packets, 0);
	assert_int_equal(c.bad_bytes, 0);
}

static void test_patterns_that_are_not_checked(void **state)
{
	uint32_t n;

	(void)state;
	memset(data, 0x5a, 4096);
	make(2, SOURCE_SINK);
	assert_int_equal(out(data, 4096, &n), BH_SUCCESS);
	assert_int_equal(n, 4096);
	assert_int_equal(endpoint_status(d, OUT), 0);
	tear_down(state);
	make(0, SOURCE_SINK);
	assert_int_equal(out(data, 4096, &n), BH_STALL);
	assert_int_equal(n, 64);
}

/* Sends length bytes as transfers of at most cut bytes, until one does not succeed; bytes taken. */
static uint32_t send_cut(uint32_t length, uint32_t cut, bool zero_packet)
{
	uint32_t sent = 0, n;
	struct flight f;

	while (sent < length) {
		n = BH_MIN(cut, length - sent);
		flight_init(&f, OUT, BH_BULK, data + sent, n);
		f.transfer.flags = zero_packet && sent + n == length ? BH_TRANSFER_ZERO_PACKET : 0;
		bh_device_submit(d, &f.transfer);
		assert_true(f.done);
		sent += f.transfer.actual;
		if (f.status != BH_SUCCESS) {
			assert_int_equal(f.status, BH_STALL);
			return sent;
		}
		assert_int_equal(f.transfer.actual, n);
	}
	return sent;
}

/* However the packets were gathered, the bad one is taken, and nothing after it. */
static void test_a_bad_byte_halts_after_its_packet(void **state)
{
	static const uint32_t cuts[] = {64, 192, 4096, 64 * 1024};
	struct bh_zero_counters c;
	uint32_t n;

	(void)state;
	for (size_t i = 0; i < BH_COUNT(cuts); i++) {
		make(1, SOURCE_SINK);
		fill_mod63(data, 10000, 64);
		data[70 * 64 + 5] ^= 1;
		data[70 * 64 + 63] ^= 1;
		data[71 * 64] ^= 1; /* is never looked at */
		assert_int_equal(send_cut(10000, cuts[i], false), 71 * 64);
		c = bh_zero_counters(d);
		assert_int_equal(c.bulk.packets_out, 71);
		assert_int_equal(c.bulk.bytes_out, 71 * 64);
		assert_int_equal(c.bad_packets, 1);
		assert_int_equal(c.bad_bytes, 2);
		assert_int_equal(endpoint_status(d, OUT), 1);
		assert_int_equal(endpoint_status(d, IN), 0);
		assert_int_equal(out(data, 64, &n), BH_STALL);
		assert_int_equal(n, 0);
		assert_int_equal(transfer(d, IN, BH_BULK, back, 64, &n), BH_SUCCESS);
		assert_int_equal(clear_halt(d, OUT), BH_SUCCESS);
		assert_int_equal(out(data, 64, &n), BH_SUCCESS);
		tear_down(state);
	}
}

static void test_a_bad_last_packet_is_taken(void **state)
{
	uint32_t n;

	(void)state;
	make(0, SOURCE_SINK);
	memset(data, 0, 200);
	data[199] = 1; /* in a short packet */
	assert_int_equal(out(data, 200, &n), BH_SUCCESS);
	assert_int_equal(n, 200);
	assert_int_equal(bh_zero_counters(d).bulk.packets_out, 4);
	assert_int_equal(out(data, 64, &n), BH_STALL);
	clear_halt(d, OUT);
	data[127] = 1;
	assert_int_equal(send_cut(128, 128, true), 128); /* but the zero-length one after it is not */
	assert_int_equal(bh_zero_counters(d).bulk.packets_out, 6);
	clear_halt(d, OUT);
	assert_int_equal(send_cut(128, 64, true), 128);
	assert_int_equal(bh_zero_counters(d).bulk.packets_out, 8);
	assert_int_equal(endpoint_status(d, OUT), 1);
}

static void test_interrupt_endpoints_are_source_and_sink(void **state)
{
	uint32_t n;

	(void)state;
	make(1, SOURCE_SINK);
	set_interface(d, 0, 2);
	assert_int_equal(transfer(d, INT_IN, BH_INTERRUPT, data, 64, &n), BH_SUCCESS);
	assert_int_equal(n, 64);
	assert_int_equal(data[63], 0);
	assert_int_equal(data[62], 62);
	assert_int_equal(transfer(d, INT_OUT, BH_INTERRUPT, data, 64, &n), BH_SUCCESS);
	assert_int_equal(transfer(d, INT_OUT, BH_INTERRUPT, data, 10, &n), BH_SUCCESS);
	assert_int_equal(n, 10);
	assert_int_equal(bh_zero_counters(d).interrupt.packets_in, 1);
	assert_int_equal(bh_zero_counters(d).interrupt.bytes_in, 64);
	assert_int_equal(bh_zero_counters(d).interrupt.packets_out, 2);
	assert_int_equal(bh_zero_counters(d).interrupt.bytes_out, 74);
	assert_int_equal(bh_zero_counters(d).bulk.packets_out, 0);
	data[1] = 0;
	assert_int_equal(transfer(d, INT_OUT, BH_INTERRUPT, data, 64, &n), BH_SUCCESS);
	assert_int_equal(transfer(d, INT_OUT, BH_INTERRUPT, data, 64, &n), BH_STALL);
	assert_int_equal(endpoint_status(d, INT_OUT), 1);
	assert_int_equal(endpoint_status(d, OUT), 0);
}

/* usbtest 13 */
static void test_what_the_host_halts_stalls_until_it_is_cleared(void **state)
{
	static const uint8_t endpoints[] = {IN, OUT};
	uint32_t n;

	(void)state;
	make(0, SOURCE_SINK);
	memset(data, 0, 512);
	for (unsigned i = 0; i < 2; i++) {
		uint8_t e = endpoints[i];

		assert_int_equal(transfer(d, e, BH_BULK, data, 512, &n), BH_SUCCESS);
		assert_int_equal(set_halt(d, e), BH_SUCCESS);
		assert_int_equal(endpoint_status(d, e), 1);
		assert_int_equal(transfer(d, e, BH_BULK, data, 512, &n), BH_STALL);
		assert_int_equal(n, 0);
		assert_int_equal(transfer(d, e, BH_BULK, data, 512, &n), BH_STALL);
		assert_int_equal(clear_halt(d, e), BH_SUCCESS);
		assert_int_equal(endpoint_status(d, e), 0);
		assert_int_equal(transfer(d, e, BH_BULK, data, 512, &n), BH_SUCCESS);
	}
	set_halt(d, IN);
	assert_int_equal(set_interface(d, 0, 0), BH_SUCCESS); /* restarts them */
	assert_int_equal(transfer(d, IN, BH_BULK, data, 64, &n), BH_SUCCESS);
}

/* --- isochronous ------------------------------------------------------------------------------- */

static void launch_packets(struct flight *f, uint8_t endpoint, struct bh_packet *packets, unsigned count)
{
	uint32_t length = 0;

	for (unsigned i = 0; i < count; i++)
		length = BH_MAX(length, packets[i].offset + packets[i].length);
	flight_init(f, endpoint, BH_ISOCHRONOUS, data, length);
	f->transfer.packets = packets;
	f->transfer.packet_count = count;
	for (unsigned i = 0; i < count; i++)
		packets[i].status = BH_NO_RESPONSE;
	bh_device_submit(d, &f->transfer);
	assert_true(f->done);
}

static void test_isochronous_in_fills_each_packet(void **state)
{
	struct bh_packet p[3] = {
		{.offset = 0, .length = 1023}, {.offset = 1100, .length = 1023}, {.offset = 2200, .length = 1100},
	};
	struct flight f;

	(void)state;
	make(1, SOURCE_SINK);
	set_interface(d, 0, 1);
	memset(data, 0xee, 4096);
	launch_packets(&f, ISO_IN, p, 3);
	assert_int_equal(f.status, BH_SUCCESS);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(p[i].status, BH_SUCCESS);
		assert_int_equal(p[i].actual, 1023);
		for (unsigned j = 0; j < 1023; j++)
			assert_int_equal(data[p[i].offset + j], mod63(j, 1023));
		assert_int_equal(data[p[i].offset + 1023], 0xee);
	}
	assert_int_equal(bh_zero_counters(d).isochronous.packets_in, 3);
	assert_int_equal(bh_zero_counters(d).isochronous.bytes_in, 3 * 1023);
}

/* It sends 1023 bytes; whoever has room for less hears babble, and no byte comes beyond the room. */
static void test_isochronous_in_babbles_where_there_is_no_room(void **state)
{
	struct bh_packet p[3] = {{.offset = 0, .length = 1}, {.offset = 100, .length = 1022}, {.offset = 50, .length = 0}};
	struct flight f;

	(void)state;
	make(0, SOURCE_SINK);
	set_interface(d, 0, 1);
	memset(data, 0xee, 4096);
	launch_packets(&f, ISO_IN, p, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(p[i].status, BH_BABBLE);
		assert_int_equal(p[i].actual, p[i].length);
		assert_int_equal(data[p[i].offset + p[i].length], 0xee);
	}
}

static void test_isochronous_out_counts_what_is_bad(void **state)
{
	struct bh_packet p[4] = {
		{.offset = 0, .length = 1023},
		{.offset = 1023, .length = 500},
		{.offset = 1600, .length = 0},
		{.offset = 2000, .length = 1023},
	};
	struct bh_zero_counters c;
	struct flight f;

	(void)state;
	make(1, SOURCE_SINK);
	set_interface(d, 0, 1);
	for (unsigned i = 0; i < 4; i++)
		fill_mod63(data + p[i].offset, p[i].length, 1023);
	launch_packets(&f, ISO_OUT, p, 4);
	assert_int_equal(bh_zero_counters(d).bad_packets, 0);
	data[0]++;
	data[1522]++;
	data[1521]++;
	launch_packets(&f, ISO_OUT, p, 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(p[i].status, BH_SUCCESS);
		assert_int_equal(p[i].actual, p[i].length);
	}
	c = bh_zero_counters(d);
	assert_int_equal(c.isochronous.packets_out, 8);
	assert_int_equal(c.isochronous.bytes_out, 2 * (1023 + 500 + 1023));
	assert_int_equal(c.bad_packets, 2);
	assert_int_equal(c.bad_bytes, 3);
	launch_packets(&f, ISO_OUT, p, 4); /* it has no halt */
	assert_int_equal(p[3].status, BH_SUCCESS);
	assert_int_equal(set_halt(d, ISO_OUT), BH_STALL);
}

static void test_isochronous_transfers_may_be_empty_or_long(void **state)
{
	static struct bh_packet p[500];
	struct flight f;

	(void)state;
	make(1, SOURCE_SINK);
	set_interface(d, 0, 1);
	launch_packets(&f, ISO_IN, p, 0);
	for (unsigned i = 0; i < 500; i++)
		p[i] = (struct bh_packet){.offset = i * 1023, .length = 1023};
	launch_packets(&f, ISO_IN, p, 500);
	launch_packets(&f, ISO_OUT, p, 500); /* what it sends it takes */
	assert_int_equal(bh_zero_counters(d).isochronous.packets_out, 500);
	assert_int_equal(bh_zero_counters(d).bad_packets, 0);
	p[0].length = 5000; /* more than any packet */
	launch_packets(&f, ISO_OUT, p, 1);
}

/* --- vendor requests ------------------------------------------------------------------------------ */

static enum bh_status fill(uint16_t value, uint16_t index, void *bytes, uint16_t length)
{
	uint32_t n;
	enum bh_status s = request(d, 0x40, 0x5b, value, index, bytes, length, &n);

	assert_int_equal(n, s == BH_SUCCESS ? length : 0);
	return s;
}

static enum bh_status give_back(uint16_t value, uint16_t index, void *bytes, uint16_t length)
{
	uint32_t n;
	enum bh_status s = request(d, 0xc0, 0x5c, value, index, bytes, length, &n);

	assert_int_equal(n, s == BH_SUCCESS ? length : 0);
	return s;
}

/* usbtest 14 and 21 */
static void test_the_buffer_comes_back(void **state)
{
	static const uint16_t lengths[] = {1, 0, 63, 64, 65, 1000, 4096};

	(void)state;
	make(0, SOURCE_SINK);
	for (unsigned i = 0; i < BH_COUNT(lengths); i++) {
		for (unsigned j = 0; j < lengths[i]; j++)
			data[j] = (uint8_t)(i + j);
		memset(back, 0xee, 4097);
		assert_int_equal(fill(0, 0, data, lengths[i]), BH_SUCCESS);
		assert_int_equal(give_back(0, 0, back, lengths[i]), BH_SUCCESS);
		assert_memory_equal(back, data, lengths[i]);
		assert_int_equal(back[lengths[i]], 0xee);
	}
	bh_device_power_on(d); /* of another machine */
	assert_int_equal(give_back(0, 0, back, 4096), BH_SUCCESS);
	for (unsigned j = 0; j < 4096; j++)
		assert_int_equal(back[j], 0);
}

static void test_vendor_requests_have_limits(void **state)
{
	(void)state;
	make(0, SOURCE_SINK);
	assert_int_equal(fill(0, 0, data, 4097), BH_STALL);
	assert_int_equal(fill(0, 0, data, 0xffff), BH_STALL);
	assert_int_equal(give_back(0, 0, back, 4097), BH_STALL);
	assert_int_equal(fill(1, 0, data, 16), BH_STALL);
	assert_int_equal(fill(0, 1, data, 16), BH_STALL);
	assert_int_equal(give_back(1, 0, back, 16), BH_STALL);
	assert_int_equal(give_back(0, 1, back, 16), BH_STALL);
	assert_int_equal(request(d, 0xc0, 0x5b, 0, 0, back, 16, NULL), BH_STALL);
	assert_int_equal(request(d, 0x40, 0x5c, 0, 0, data, 16, NULL), BH_STALL);
	assert_int_equal(request(d, 0x41, 0x5b, 0, 0, data, 16, NULL), BH_STALL);
	set_configuration(d, LOOPBACK); /* the gadget's does not know them */
	assert_int_equal(fill(0, 0, data, 16), BH_STALL);
	set_configuration(d, 0);
	assert_int_equal(give_back(0, 0, data, 16), BH_STALL);
}

/* --- loopback --------------------------------------------------------------------------------------- */

#define RING 2048u /* packets it holds */

static void test_loopback_returns_packets_as_they_came(void **state)
{
	struct bh_zero_counters c;
	struct flight f;
	uint32_t n;

	(void)state;
	make(0, LOOPBACK);
	for (unsigned i = 0; i < 1000; i++)
		data[i] = (uint8_t)(i * 7);
	assert_int_equal(out(data, 200, &n), BH_SUCCESS); /* 64, 64, 64, 8 */
	assert_int_equal(n, 200);
	assert_int_equal(out(NULL, 0, &n), BH_SUCCESS);
	flight_init(&f, OUT, BH_BULK, data + 200, 64);
	f.transfer.flags = BH_TRANSFER_ZERO_PACKET;
	bh_device_submit(d, &f.transfer);
	assert_true(f.done);

	assert_int_equal(transfer(d, IN, BH_BULK, back, 64, &n), BH_SUCCESS);
	assert_int_equal(n, 64);
	assert_int_equal(transfer(d, IN, BH_BULK, back + 64, 640, &n), BH_SUCCESS); /* ended by the short one */
	assert_int_equal(n, 136);
	assert_int_equal(transfer(d, IN, BH_BULK, back, 64, &n), BH_SUCCESS); /* the empty one */
	assert_int_equal(n, 0);
	assert_int_equal(transfer(d, IN, BH_BULK, back + 200, 128, &n), BH_SUCCESS); /* ended by the next empty one */
	assert_int_equal(n, 64);
	assert_memory_equal(back + 64, data + 64, 200);
	c = bh_zero_counters(d);
	assert_int_equal(c.bulk.packets_out, 7);
	assert_int_equal(c.bulk.packets_in, 7);
	assert_int_equal(c.bulk.bytes_out, 264);
	assert_int_equal(c.bulk.bytes_in, 264);
}

static void test_loopback_in_waits_for_out(void **state)
{
	struct flight in[2];
	uint32_t n;

	(void)state;
	make(0, LOOPBACK);
	launch(d, &in[0], IN, BH_BULK, back, 128);
	launch(d, &in[1], IN, BH_BULK, back + 128, 128);
	assert_false(in[0].done);
	assert_int_equal(in[0].progress, 0);
	memset(data, 0x31, 64);
	memset(data + 64, 0x32, 128);
	assert_int_equal(out(data, 64, &n), BH_SUCCESS);
	assert_false(in[0].done);
	assert_int_equal(in[0].progress, 1); /* worth waiting on */
	assert_int_equal(in[0].transfer.actual, 64);
	assert_int_equal(out(data + 64, 128, &n), BH_SUCCESS);
	assert_true(in[0].done);
	assert_int_equal(in[0].transfer.actual, 128);
	assert_false(in[1].done);
	assert_int_equal(in[1].progress, 1);
	assert_memory_equal(back, data, 192);
	bh_device_cancel(d, &in[1].transfer); /* what it was given counts */
	assert_true(in[1].done);
	assert_int_equal(in[1].status, BH_CANCELLED);
	assert_int_equal(in[1].transfer.actual, 64);
}

static void test_loopback_out_waits_while_there_is_no_room(void **state)
{
	uint32_t length = (RING + 100) * 64, n;
	struct flight f, next;

	(void)state;
	make(0, LOOPBACK);
	for (uint32_t i = 0; i < length + 64; i++)
		data[i] = (uint8_t)(i / 64 + i);
	launch(d, &f, OUT, BH_BULK, data, length);
	launch(d, &next, OUT, BH_BULK, data + length, 64);
	assert_false(f.done);
	assert_int_equal(f.transfer.actual, RING * 64);
	assert_int_equal(f.progress, 1);
	assert_int_equal(transfer(d, IN, BH_BULK, back, 64 * 64, &n), BH_SUCCESS);
	assert_int_equal(n, 64 * 64);
	assert_false(f.done);
	assert_int_equal(f.transfer.actual, (RING + 64) * 64);
	assert_int_equal(f.progress, 2);
	assert_int_equal(transfer(d, IN, BH_BULK, back + 64 * 64, 36 * 64, &n), BH_SUCCESS);
	assert_true(f.done);
	assert_int_equal(f.status, BH_SUCCESS);
	assert_int_equal(f.transfer.actual, length);
	assert_false(next.done); /* in order, and full again */
	assert_int_equal(next.progress, 0);
	assert_int_equal(transfer(d, IN, BH_BULK, back + 6400, length + 64 - 6400, &n), BH_SUCCESS);
	assert_true(next.done);
	assert_int_equal(n, length + 64 - 6400);
	assert_memory_equal(back, data, length + 64);
}

static void test_loopback_counts_only_what_it_took_of_a_cancelled_out(void **state)
{
	struct flight f;
	uint32_t n;

	(void)state;
	make(0, LOOPBACK);
	launch(d, &f, OUT, BH_BULK, data, (RING + 1) * 64);
	bh_device_cancel(d, &f.transfer);
	assert_true(f.done);
	assert_int_equal(f.status, BH_CANCELLED);
	assert_int_equal(f.transfer.actual, RING * 64);
	assert_int_equal(transfer(d, IN, BH_BULK, back, RING * 64, &n), BH_SUCCESS);
	launch(d, &f, IN, BH_BULK, back, 64);
	assert_false(f.done); /* nothing more came */
	bh_device_cancel(d, &f.transfer);
}

static void test_empty_packets_take_room_too(void **state)
{
	struct flight f;
	uint32_t n;

	(void)state;
	make(0, LOOPBACK);
	for (unsigned i = 0; i < RING; i++)
		assert_int_equal(out(NULL, 0, &n), BH_SUCCESS);
	launch(d, &f, OUT, BH_BULK, NULL, 0);
	assert_false(f.done);
	assert_int_equal(transfer(d, IN, BH_BULK, back, 64, &n), BH_SUCCESS);
	assert_true(f.done);
	assert_int_equal(bh_zero_counters(d).bulk.packets_out, RING + 1);
}

static void test_loopback_halted_in_the_middle_stalls(void **state)
{
	struct flight f[2];

	(void)state;
	make(0, LOOPBACK);
	launch(d, &f[0], IN, BH_BULK, back, 64);
	assert_int_equal(set_halt(d, IN), BH_SUCCESS);
	assert_true(f[0].done);
	assert_int_equal(f[0].status, BH_STALL);
	launch(d, &f[0], OUT, BH_BULK, data, (RING + 1) * 64);
	launch(d, &f[1], OUT, BH_BULK, data, 64);
	assert_int_equal(set_halt(d, OUT), BH_SUCCESS);
	assert_int_equal(f[0].status, BH_STALL);
	assert_int_equal(f[0].transfer.actual, RING * 64);
	assert_int_equal(f[1].status, BH_STALL);
	assert_int_equal(f[1].transfer.actual, 0);
	assert_int_equal(clear_halt(d, IN), BH_SUCCESS);
	launch(d, &f[0], IN, BH_BULK, back, RING * 64); /* what it had it still has */
	assert_true(f[0].done);
	assert_int_equal(f[0].status, BH_SUCCESS);
}

static void restart_by_interface(void)
{
	assert_int_equal(set_interface(d, 0, 0), BH_SUCCESS);
}

static void restart_by_configuration(void)
{
	assert_int_equal(set_configuration(d, LOOPBACK), BH_SUCCESS);
}

static void restart_by_reset(void)
{
	bh_device_reset(d);
	restart_by_configuration();
}

static void test_loopback_begins_anew(void **state)
{
	static void (*const restarts[])(void) = {restart_by_interface, restart_by_configuration, restart_by_reset};
	struct flight in, outs[2];
	uint32_t n;

	(void)state;
	make(0, LOOPBACK);
	for (unsigned i = 0; i < BH_COUNT(restarts); i++) {
		launch(d, &outs[0], OUT, BH_BULK, data, (RING + 1) * 64);
		launch(d, &outs[1], OUT, BH_BULK, data, 64);
		restarts[i]();
		assert_int_equal(outs[0].status, BH_CANCELLED);
		assert_int_equal(outs[1].status, BH_CANCELLED);
		launch(d, &in, IN, BH_BULK, back, 64);
		assert_false(in.done); /* nothing is left */
		restarts[i]();
		assert_int_equal(in.status, BH_CANCELLED);
	}
	assert_int_equal(out(data, 64, &n), BH_SUCCESS);
	launch(d, &outs[0], OUT, BH_BULK, data, RING * 64);
	bh_device_destroy(d);
	d = NULL;
	assert_true(outs[0].done);
	assert_int_equal(outs[0].status, BH_CANCELLED);
}

static uint32_t seed;

static uint32_t below(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % n;
}

/* Reads packet by packet until nothing is there; lengths as they came. */
static unsigned drain(uint8_t *bytes, uint8_t *lengths)
{
	unsigned count = 0;
	uint32_t at = 0;
	struct flight f;

	for (;; count++) {
		launch(d, &f, IN, BH_BULK, bytes + at, 64);
		if (!f.done)
			break;
		lengths[count] = (uint8_t)f.transfer.actual;
		at += f.transfer.actual;
	}
	bh_device_cancel(d, &f.transfer);
	return count;
}

/*
 * A stream of packets, sent once packet by packet and once gathered as the engine may: full
 * ones, and at the end one that may be short, or empty.
 */
static void test_loopback_does_not_see_how_packets_were_gathered(void **state)
{
	static uint8_t lengths[1000], single[1000], gathered[1000];
	static uint8_t back_single[64000];
	uint32_t n, at, total;
	struct flight f;

	(void)state;
	for (seed = 1; seed < 50000; seed += 1000) {
		for (unsigned i = 0; i < 1000; i++)
			lengths[i] = (uint8_t)(below(4) ? 64 : below(65));
		for (unsigned i = 0; i < sizeof(back_single); i++)
			data[i] = (uint8_t)below(256);
		make(0, LOOPBACK);
		total = 0;
		for (unsigned i = 0; i < 1000; total += lengths[i++])
			assert_int_equal(out(data + total, lengths[i], &n), BH_SUCCESS);
		assert_int_equal(drain(back_single, single), 1000);
		tear_down(state);

		make(0, LOOPBACK);
		at = 0;
		for (unsigned i = 0, j; i < 1000; i = j) {
			uint32_t length = 0;
			bool empty;

			for (j = i; j < 1000 && lengths[j] == 64 && below(8); j++)
				length += 64;
			if (j == i || (j < 1000 && lengths[j] > 0 && lengths[j] < 64))
				length += lengths[j++];
			empty = length && length % 64 == 0 && j < 1000 && lengths[j] == 0;
			j += empty;
			flight_init(&f, OUT, BH_BULK, data + at, length);
			f.transfer.flags = empty ? BH_TRANSFER_ZERO_PACKET : 0;
			bh_device_submit(d, &f.transfer);
			assert_true(f.done);
			at += length;
		}
		assert_int_equal(drain(back, gathered), 1000);
		tear_down(state);
		assert_memory_equal(single, lengths, 1000);
		assert_memory_equal(gathered, lengths, 1000);
		assert_memory_equal(back_single, data, total);
		assert_memory_equal(back, data, total);
	}
}

/* Whoever hears that a transfer ended may bring the next one at once. */
static unsigned resubmitted;

static void resubmit(struct bh_transfer *t, enum bh_status status)
{
	assert_int_equal(status, BH_SUCCESS);
	if (++resubmitted < 100)
		bh_device_submit(d, t);
}

static void test_transfers_may_be_brought_inside_done(void **state)
{
	struct flight in, f;

	(void)state;
	make(0, LOOPBACK);
	resubmitted = 0;
	flight_init(&in, IN, BH_BULK, back, 64);
	in.transfer.done = resubmit;
	bh_device_submit(d, &in.transfer);
	launch(d, &f, OUT, BH_BULK, data, 100 * 64);
	assert_true(f.done);
	assert_int_equal(resubmitted, 100);
	assert_int_equal(bh_zero_counters(d).bulk.packets_in, 100);
}

static void test_only_loopback_waits_for_the_guest(void **state)
{
	(void)state;
	make(0, SOURCE_SINK);
	assert_true(d->finishes);
	set_configuration(d, LOOPBACK);
	assert_false(d->finishes);
	set_configuration(d, SOURCE_SINK);
	assert_true(d->finishes);
}

/* --- delay ------------------------------------------------------------------------------------------ */

#define NEVER_US 10000000u /* longer than any test */

static uv_loop_t loop;

static void make_delayed(unsigned pattern, uint8_t configuration, uint8_t alternate, unsigned delay_us)
{
	const struct bh_zero_config config = {.pattern = pattern, .delay_us = delay_us, .loop = &loop};

	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(bh_zero_create(&config, &d), 0);
	bh_device_reset(d);
	assert_int_equal(set_configuration(d, configuration), BH_SUCCESS);
	assert_int_equal(set_interface(d, 0, alternate), BH_SUCCESS);
}

static int tear_down_delayed(void **state)
{
	tear_down(state);
	uv_run(&loop, UV_RUN_DEFAULT);
	return uv_loop_close(&loop);
}

/* Notes in which order they end, and when. */
static struct flight *ended[16];
static unsigned ended_count;
static uint64_t ended_at[16];

static void note_end(struct bh_transfer *t, enum bh_status status)
{
	flight_done(t, status);
	ended_at[ended_count] = uv_hrtime();
	ended[ended_count++] = bh_container_of(t, struct flight, transfer);
}

static void launch_noted(struct flight *f, uint8_t endpoint, enum bh_endpoint_type type, void *bytes, uint32_t length)
{
	flight_init(f, endpoint, type, bytes, length);
	f->transfer.done = note_end;
	bh_device_submit(d, &f->transfer);
	assert_false(f->done);
}

static void launch_request(struct flight *f, uint8_t type, uint8_t code, uint16_t value, uint16_t index, void *bytes,
                           uint16_t length)
{
	flight_init(f, 0, BH_CONTROL, bytes, length);
	f->transfer.setup = (struct bh_setup){type, code, bh_put_le16(value), bh_put_le16(index), bh_put_le16(length)};
	f->transfer.done = note_end;
	bh_device_submit(d, &f->transfer);
	assert_false(f->done);
}

static void test_delayed_transfers_end_late_and_in_order(void **state)
{
	struct flight f[6];
	uint64_t start;

	(void)state;
	make_delayed(1, SOURCE_SINK, 2, 2500);
	ended_count = 0;
	fill_mod63(data, 8192, 64);
	memset(back, 0xee, 8192);
	start = uv_hrtime();
	launch_noted(&f[0], OUT, BH_BULK, data, 4096);
	launch_noted(&f[1], IN, BH_BULK, back, 4096);
	launch_noted(&f[2], OUT, BH_BULK, data, 100);
	launch_noted(&f[3], INT_IN, BH_INTERRUPT, back + 4096, 64);
	launch_noted(&f[4], INT_OUT, BH_INTERRUPT, data, 64);
	launch_request(&f[5], 0xc0, 0x5c, 0, 0, back + 5000, 256);
	assert_int_equal(bh_zero_counters(d).bulk.packets_out, 0);
	assert_int_equal(back[0], 0xee); /* nothing has come, either */
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(ended_count, 6);
	for (unsigned i = 0; i < 6; i++) {
		assert_ptr_equal(ended[i], &f[i]);
		assert_int_equal(f[i].status, BH_SUCCESS);
		assert_int_equal(f[i].transfer.actual, f[i].transfer.length);
		assert_true(ended_at[i] - start >= 2500 * 1000);
	}
	for (uint32_t i = 0; i < 4096; i++)
		assert_int_equal(back[i], mod63(i, 64));
	assert_int_equal(back[5000], 0);
	assert_int_equal(bh_zero_counters(d).bulk.packets_out, 64 + 2);
}

static uint64_t resubmitted_at;

static void resubmit_once(struct bh_transfer *t, enum bh_status status)
{
	note_end(t, status);
	if (resubmitted_at)
		return;
	resubmitted_at = uv_hrtime();
	bh_container_of(t, struct flight, transfer)->done = false;
	bh_device_submit(d, t);
}

static void test_what_is_brought_inside_done_is_delayed_too(void **state)
{
	struct flight f;

	(void)state;
	make_delayed(0, SOURCE_SINK, 0, 1500);
	ended_count = 0;
	resubmitted_at = 0;
	flight_init(&f, IN, BH_BULK, back, 64);
	f.transfer.done = resubmit_once;
	bh_device_submit(d, &f.transfer);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(ended_count, 2);
	assert_true(ended_at[1] - resubmitted_at >= 1500 * 1000);
}

/* What is said to have moved has moved, and no more. */
static void test_a_delayed_transfer_that_is_cancelled_moved_in_part(void **state)
{
	struct flight in, out;
	uint32_t n;

	(void)state;
	make_delayed(1, SOURCE_SINK, 0, NEVER_US);
	fill_mod63(data, 256 * 1024, 64);
	memset(back, 0xee, 256 * 1024);
	launch(d, &in, IN, BH_BULK, back, 256 * 1024);
	launch(d, &out, OUT, BH_BULK, data, 256 * 1024);
	uv_sleep(10); /* four packets */
	bh_device_cancel(d, &in.transfer);
	bh_device_cancel(d, &out.transfer);
	assert_true(in.done && out.done);
	n = in.transfer.actual;
	assert_int_equal(in.status, BH_CANCELLED);
	assert_true(n >= 4 * 64 && n < 256 * 1024 && n % 64 == 0);
	assert_int_equal(bh_zero_counters(d).bulk.bytes_in, n);
	assert_int_equal(bh_zero_counters(d).bulk.packets_in, n / 64);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(back[i], mod63(i, 64));
	assert_int_equal(back[n], 0xee);
	n = out.transfer.actual;
	assert_int_equal(out.status, BH_CANCELLED);
	assert_true(n >= 4 * 64 && n < 256 * 1024 && n % 64 == 0);
	assert_int_equal(bh_zero_counters(d).bulk.bytes_out, n);
	assert_int_equal(bh_zero_counters(d).bulk.packets_out, n / 64);
	assert_int_equal(bh_zero_counters(d).bad_packets, 0);
}

static void test_cancelled_at_once_nothing_moved(void **state)
{
	struct flight f[5];

	(void)state;
	make_delayed(0, SOURCE_SINK, 0, NEVER_US);
	memset(data, 0, 128);
	launch(d, &f[0], OUT, BH_BULK, data, 100);
	launch(d, &f[1], OUT, BH_BULK, NULL, 0); /* a packet, too */
	launch(d, &f[2], IN, BH_BULK, back, 64);
	launch(d, &f[3], 0x84, BH_BULK, back, 64); /* there is none */
	launch(d, &f[4], OUT, BH_BULK, data, 64);
	for (unsigned i = 0; i < 4; i++) {
		bh_device_cancel(d, &f[i].transfer);
		assert_true(f[i].done);
		assert_int_equal(f[i].status, BH_CANCELLED);
		assert_int_equal(f[i].transfer.actual, 0);
		assert_false(f[4].done);
	}
	bh_device_cancel(d, &f[4].transfer);
	assert_true(f[4].done);
	assert_int_equal(bh_zero_counters(d).bulk.packets_out, 0);
	assert_int_equal(bh_zero_counters(d).bulk.packets_in, 0);
}

/* The loop has not come to it yet; it reached its own outcome first. */
static void test_cancelled_after_its_time_all_moved(void **state)
{
	struct flight in, out;

	(void)state;
	make_delayed(0, SOURCE_SINK, 0, 1000);
	memset(data, 0, 256);
	launch(d, &in, IN, BH_BULK, back, 256);
	launch(d, &out, OUT, BH_BULK, data, 200);
	uv_sleep(5);
	bh_device_cancel(d, &in.transfer);
	bh_device_cancel(d, &out.transfer);
	assert_int_equal(in.status, BH_SUCCESS);
	assert_int_equal(in.transfer.actual, 256);
	assert_int_equal(out.status, BH_SUCCESS);
	assert_int_equal(out.transfer.actual, 200);
	assert_int_equal(bh_zero_counters(d).bulk.packets_in, 4);
	assert_int_equal(bh_zero_counters(d).bulk.packets_out, 4);
}

/* One behind another does not overtake it. */
static void test_of_several_only_the_first_moves(void **state)
{
	struct flight first, second;

	(void)state;
	make_delayed(0, SOURCE_SINK, 0, NEVER_US);
	memset(data, 0, 256 * 1024);
	launch(d, &first, OUT, BH_BULK, data, 256 * 1024);
	launch(d, &second, OUT, BH_BULK, data, 256 * 1024);
	uv_sleep(5);
	bh_device_cancel(d, &second.transfer);
	assert_int_equal(second.transfer.actual, 0);
	bh_device_cancel(d, &first.transfer);
	assert_true(first.transfer.actual > 0);
}

static void test_a_bad_packet_among_what_moved_stalls(void **state)
{
	struct flight f;

	(void)state;
	make_delayed(1, SOURCE_SINK, 0, NEVER_US);
	memset(data, 0, 256 * 1024);
	launch(d, &f, OUT, BH_BULK, data, 256 * 1024);
	uv_sleep(10);
	bh_device_cancel(d, &f.transfer);
	assert_true(f.done);
	assert_int_equal(f.status, BH_STALL);
	assert_int_equal(f.transfer.actual, 64);
	assert_int_equal(bh_zero_counters(d).bad_packets, 1);
}

static void test_a_bad_packet_halts_what_was_sent_after_it(void **state)
{
	struct flight f[2];

	(void)state;
	make_delayed(1, SOURCE_SINK, 0, 1000);
	memset(data, 0, 128);
	fill_mod63(data + 128, 128, 64);
	launch(d, &f[0], OUT, BH_BULK, data, 128);
	launch(d, &f[1], OUT, BH_BULK, data + 128, 128);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(f[0].status, BH_STALL);
	assert_int_equal(f[0].transfer.actual, 64);
	assert_int_equal(f[1].status, BH_STALL);
	assert_int_equal(f[1].transfer.actual, 0);
}

static void test_a_halt_ends_what_is_delayed(void **state)
{
	struct flight halt, out, in;

	(void)state;
	make_delayed(0, SOURCE_SINK, 0, 1000);
	ended_count = 0;
	launch_request(&halt, 2, 3, 0, OUT, NULL, 0);
	launch_noted(&in, IN, BH_BULK, back, 128);
	launch_noted(&out, OUT, BH_BULK, data, 128);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(ended_count, 3);
	assert_ptr_equal(ended[0], &out); /* before its time */
	assert_int_equal(out.status, BH_STALL);
	assert_int_equal(out.transfer.actual, 0);
	assert_int_equal(halt.status, BH_SUCCESS);
	assert_int_equal(in.status, BH_SUCCESS);
}

static void restart_by_destruction(void)
{
	bh_device_destroy(d);
	d = NULL;
}

static void test_what_begins_anew_ends_what_is_delayed(void **state)
{
	static void (*const restarts[])(void) = {
		restart_by_interface, restart_by_configuration, restart_by_reset, restart_by_destruction,
	};
	struct flight f[3];

	(void)state;
	make_delayed(0, SOURCE_SINK, 0, NEVER_US);
	for (unsigned i = 0; i < BH_COUNT(restarts); i++) {
		launch(d, &f[0], IN, BH_BULK, back, 128);
		launch(d, &f[1], OUT, BH_BULK, data, 128);
		launch(d, &f[2], 0x85, BH_INTERRUPT, data, 64); /* there is none */
		assert_false(f[0].done || f[1].done || f[2].done);
		restarts[i]();
		for (unsigned j = 0; j < BH_COUNT(f); j++) {
			assert_true(f[j].done);
			assert_int_equal(f[j].status, BH_CANCELLED);
			assert_int_equal(f[j].transfer.actual, 0);
		}
	}
}

static void test_delayed_isochronous_packets_have_outcomes_later(void **state)
{
	struct bh_packet p[2][300];
	struct flight f[2];
	unsigned moved = 0;

	(void)state;
	make_delayed(1, SOURCE_SINK, 1, 1000);
	memset(p, 0, sizeof(p));
	for (unsigned i = 0; i < 300; i++)
		p[0][i] = p[1][i] = (struct bh_packet){.offset = i * 1023, .length = 1023, .status = BH_NO_RESPONSE};
	for (unsigned i = 0; i < 2; i++) {
		flight_init(&f[i], ISO_IN, BH_ISOCHRONOUS, data, 300 * 1023);
		f[i].transfer.packets = p[i];
		f[i].transfer.packet_count = 300;
	}
	bh_device_submit(d, &f[0].transfer);
	assert_false(f[0].done);
	assert_int_equal(p[0][0].status, BH_NO_RESPONSE);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(f[0].status, BH_SUCCESS);
	for (unsigned i = 0; i < 300; i++)
		assert_true(p[0][i].status == BH_SUCCESS && p[0][i].actual == 1023);
	tear_down_delayed(state);

	make_delayed(1, SOURCE_SINK, 1, NEVER_US); /* one packet in 33 ms */
	bh_device_submit(d, &f[1].transfer);
	uv_sleep(40);
	bh_device_cancel(d, &f[1].transfer);
	assert_int_equal(f[1].status, BH_CANCELLED);
	while (moved < 300 && p[1][moved].status == BH_SUCCESS)
		moved++;
	assert_true(moved > 0 && moved < 300);
	assert_int_equal(bh_zero_counters(d).isochronous.packets_in, moved);
	for (unsigned i = moved; i < 300; i++)
		assert_true(p[1][i].status == BH_NO_RESPONSE && p[1][i].actual == 0);
}

static void test_delayed_loopback_returns_what_was_sent(void **state)
{
	struct flight lost, out, in;

	(void)state;
	make_delayed(0, LOOPBACK, 0, 1000);
	for (unsigned i = 0; i < 200; i++)
		data[i] = (uint8_t)(i * 7);
	launch(d, &lost, OUT, BH_BULK, back, 64);
	uv_sleep(2);
	bh_device_cancel(d, &lost.transfer); /* nothing of it comes back */
	assert_int_equal(lost.status, BH_CANCELLED);
	assert_int_equal(lost.transfer.actual, 0);
	launch(d, &in, IN, BH_BULK, back, 256);
	launch(d, &out, OUT, BH_BULK, data, 200);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(out.status, BH_SUCCESS);
	assert_int_equal(in.status, BH_SUCCESS);
	assert_int_equal(in.transfer.actual, 200);
	assert_memory_equal(back, data, 200);
	launch(d, &in, IN, BH_BULK, back, 64);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_false(in.done); /* the delay is over, and nothing there */
	bh_device_cancel(d, &in.transfer);
	assert_int_equal(in.status, BH_CANCELLED);
}

static void test_a_delayed_request_that_is_cancelled_was_not_acted_on(void **state)
{
	struct flight f;

	(void)state;
	make_delayed(0, SOURCE_SINK, 0, 1000);
	memset(data, 0x5a, 64);
	launch_request(&f, 0x40, 0x5b, 0, 0, data, 64);
	bh_device_cancel(d, &f.transfer);
	assert_int_equal(f.status, BH_CANCELLED);
	assert_int_equal(f.transfer.actual, 0);
	launch_request(&f, 0xc0, 0x5c, 0, 0, back, 64);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(f.status, BH_SUCCESS);
	assert_int_equal(back[0], 0);
}

#define TEST(name)         cmocka_unit_test_teardown(name, tear_down)
#define TEST_DELAYED(name) cmocka_unit_test_teardown(name, tear_down_delayed)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_descriptors),
		TEST(test_intervals_are_configured),
		TEST(test_configurations_out_of_range_are_refused),
		TEST(test_each_alternate_setting_has_its_endpoints),
		TEST(test_source_gives_any_length_at_once),
		TEST(test_source_fills_spans_of_any_size),
		TEST(test_sink_takes_what_is_of_the_pattern),
		TEST(test_patterns_that_are_not_checked),
		TEST(test_a_bad_byte_halts_after_its_packet),
		TEST(test_a_bad_last_packet_is_taken),
		TEST(test_interrupt_endpoints_are_source_and_sink),
		TEST(test_what_the_host_halts_stalls_until_it_is_cleared),
		TEST(test_isochronous_in_fills_each_packet),
		TEST(test_isochronous_in_babbles_where_there_is_no_room),
		TEST(test_isochronous_out_counts_what_is_bad),
		TEST(test_isochronous_transfers_may_be_empty_or_long),
		TEST(test_the_buffer_comes_back),
		TEST(test_vendor_requests_have_limits),
		TEST(test_loopback_returns_packets_as_they_came),
		TEST(test_loopback_in_waits_for_out),
		TEST(test_loopback_out_waits_while_there_is_no_room),
		TEST(test_loopback_counts_only_what_it_took_of_a_cancelled_out),
		TEST(test_empty_packets_take_room_too),
		TEST(test_loopback_halted_in_the_middle_stalls),
		TEST(test_loopback_begins_anew),
		TEST(test_loopback_does_not_see_how_packets_were_gathered),
		TEST(test_transfers_may_be_brought_inside_done),
		TEST(test_only_loopback_waits_for_the_guest),
		TEST_DELAYED(test_delayed_transfers_end_late_and_in_order),
		TEST_DELAYED(test_what_is_brought_inside_done_is_delayed_too),
		TEST_DELAYED(test_a_delayed_transfer_that_is_cancelled_moved_in_part),
		TEST_DELAYED(test_cancelled_at_once_nothing_moved),
		TEST_DELAYED(test_cancelled_after_its_time_all_moved),
		TEST_DELAYED(test_of_several_only_the_first_moves),
		TEST_DELAYED(test_a_bad_packet_among_what_moved_stalls),
		TEST_DELAYED(test_a_bad_packet_halts_what_was_sent_after_it),
		TEST_DELAYED(test_a_halt_ends_what_is_delayed),
		TEST_DELAYED(test_what_begins_anew_ends_what_is_delayed),
		TEST_DELAYED(test_delayed_isochronous_packets_have_outcomes_later),
		TEST_DELAYED(test_delayed_loopback_returns_what_was_sent),
		TEST_DELAYED(test_a_delayed_request_that_is_cancelled_was_not_acted_on),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
