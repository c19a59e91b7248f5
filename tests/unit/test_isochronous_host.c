/*
 * Isochronous endpoints of the simulated host, and what batching is worth there: a guest that
 * streams both ways through a host that takes two frames for everything.
 */
#define BUFFER_SIZE 512u

#include <host/simulated.h>

#include "fake_driver.h"

#define OUT_EP  0x01
#define IN_EP   0x82
#define SLOW_EP 0x83
#define BULK_EP 0x04
#define PACKET  500u

static const struct bh_endpoint_info endpoints[] = {
	{.address = OUT_EP, .type = BH_ISOCHRONOUS, .max_packet = PACKET, .interval = 1},
	{.address = IN_EP, .type = BH_ISOCHRONOUS, .max_packet = PACKET, .interval = 1},
	{.address = SLOW_EP, .type = BH_ISOCHRONOUS, .max_packet = 64, .interval = 4}, /* eight frames */
	{.address = BULK_EP, .type = BH_BULK, .max_packet = 64},
	{.address = BULK_EP + 1, .type = BH_BULK, .max_packet = 64},
	{.address = BULK_EP + 2, .type = BH_BULK, .max_packet = 64},
	{.address = BULK_EP + 3, .type = BH_BULK, .max_packet = 64},
	{.address = BULK_EP + 4, .type = BH_BULK, .max_packet = 64},
	{.address = BULK_EP + 5, .type = BH_BULK, .max_packet = 64},
	{.address = BULK_EP + 6, .type = BH_BULK, .max_packet = 64},
};
static const struct bh_simulated_config config = {.endpoints = endpoints, .endpoint_count = BH_COUNT(endpoints)};

static struct bh_simulated_bus bus;
static struct bh_device *device;

/* --- the host alone ---------------------------------------------------------------------- */

#define MOST 32u

struct job {
	struct bh_transfer t;
	struct iovec span;
	struct bh_packet packets[MOST];
	uint8_t bytes[MOST * PACKET];
	uint64_t done_us;
	unsigned done;
	enum bh_status status;
};

static struct job jobs[10];
static uint64_t now_us;

static void job_done(struct bh_transfer *t, enum bh_status status)
{
	struct job *j = bh_container_of(t, struct job, t);

	j->done++;
	j->status = status;
	j->done_us = now_us;
}

static void submit(struct job *j, uint8_t endpoint, enum bh_endpoint_type type, unsigned packets, uint32_t length)
{
	memset(j, 0, sizeof(*j));
	for (unsigned i = 0; i < sizeof(j->bytes); i++)
		j->bytes[i] = (uint8_t)(i * 7 + 1);
	for (unsigned i = 0; type == BH_ISOCHRONOUS && i < packets; i++)
		j->packets[i] = (struct bh_packet){.offset = i * length, .length = length, .status = BH_NO_RESPONSE};
	j->span = (struct iovec){j->bytes, packets * length};
	j->t = (struct bh_transfer){
		.endpoint = endpoint,
		.type = type,
		.spans = &j->span,
		.span_count = 1,
		.length = packets * length,
		.packets = type == BH_ISOCHRONOUS ? j->packets : NULL,
		.packet_count = type == BH_ISOCHRONOUS ? packets : 0,
		.done = job_done,
	};
	bh_device_submit(device, &j->t);
}

static void pass_to(uint64_t us)
{
	while (bh_simulated_deadline(&bus) <= us) {
		now_us = bh_simulated_deadline(&bus);
		bh_simulated_run(&bus, now_us);
	}
	now_us = us;
	bh_simulated_run(&bus, us);
}

static void configure(void)
{
	memset(&jobs[9], 0, sizeof(jobs[9]));
	jobs[9].t = (struct bh_transfer){.type = BH_CONTROL, .done = job_done};
	bh_device_set_configuration(device, 1, &jobs[9].t);
}

static int setup_host(void **state)
{
	(void)state;
	now_us = 0;
	bh_simulated_bus_init(&bus, 0);
	device = bh_simulated_create(&bus, &config);
	assert_non_null(device);
	bh_device_reset(device);
	configure();
	pass_to(2000);
	assert_int_equal(jobs[9].done, 1);
	return 0;
}

static int teardown_host(void **state)
{
	(void)state;
	bh_device_destroy(device);
	assert_int_equal(bus.reserved, 0);
	bh_simulated_bus_finish(&bus);
	return 0;
}

/* Frames from submission, at the edge of one, to the end. */
static uint64_t frames_taken(const struct job *j, uint64_t since_us)
{
	assert_int_equal(j->done, 1);
	assert_int_equal(j->status, BH_SUCCESS);
	return (j->done_us - since_us) / 1000;
}

static void one_packet_in_each_interval(void **state)
{
	uint64_t begin = now_us;

	(void)state;
	submit(&jobs[0], OUT_EP, BH_ISOCHRONOUS, 10, PACKET);
	submit(&jobs[1], SLOW_EP, BH_ISOCHRONOUS, 3, 64);
	pass_to(begin + 60000);
	assert_int_equal(frames_taken(&jobs[0], begin), 11);
	assert_int_equal(frames_taken(&jobs[1], begin), 2 + 2 * 8);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(jobs[0].packets[i].status, BH_SUCCESS);
		assert_int_equal(jobs[0].packets[i].actual, PACKET);
	}
	assert_true(bh_simulated_count(device, OUT_EP).checksum ==
	            bh_simulated_checksum(BH_SIMULATED_CHECKSUM, jobs[0].bytes, 10 * PACKET));
}

static void transfers_follow_without_a_gap(void **state)
{
	uint64_t begin = now_us;

	(void)state;
	submit(&jobs[0], IN_EP, BH_ISOCHRONOUS, 4, PACKET);
	submit(&jobs[1], IN_EP, BH_ISOCHRONOUS, 4, PACKET);
	pass_to(begin + 20000);
	assert_int_equal(frames_taken(&jobs[0], begin), 5);
	assert_int_equal(frames_taken(&jobs[1], begin), 9);
	for (unsigned i = 0; i < 4 * PACKET; i++) {
		assert_int_equal(jobs[0].bytes[i], bh_simulated_pattern(i));
		assert_int_equal(jobs[1].bytes[i], bh_simulated_pattern(4 * PACKET + i));
	}
}

static void empty_packets_take_their_interval(void **state)
{
	uint64_t begin = now_us;

	(void)state;
	submit(&jobs[0], OUT_EP, BH_ISOCHRONOUS, 3, 0);
	pass_to(begin + 10000);
	assert_int_equal(frames_taken(&jobs[0], begin), 4);
	assert_int_equal(bh_simulated_count(device, OUT_EP).packets, 3);
	assert_int_equal(bh_simulated_count(device, OUT_EP).bytes, 0);
}

/* 1500 - 2 * 513 byte times are left: six packets of 64 bytes. */
static void isochronous_packets_come_first(void **state)
{
	uint64_t begin = now_us;

	(void)state;
	submit(&jobs[2], BULK_EP, BH_BULK, 60, 64);
	submit(&jobs[0], OUT_EP, BH_ISOCHRONOUS, 12, PACKET);
	submit(&jobs[1], IN_EP, BH_ISOCHRONOUS, 12, PACKET);
	pass_to(begin + 30000);
	assert_int_equal(frames_taken(&jobs[0], begin), 13);
	assert_int_equal(frames_taken(&jobs[1], begin), 13);
	assert_int_equal(frames_taken(&jobs[2], begin), 11);
}

/* However many others had something to move before. */
static void isochronous_packets_wait_for_nobody(void **state)
{
	uint64_t begin = now_us;

	(void)state;
	for (unsigned i = 0; i < 7; i++)
		submit(&jobs[2 + i], (uint8_t)(BULK_EP + i), BH_BULK, 20, 64);
	submit(&jobs[0], OUT_EP, BH_ISOCHRONOUS, 12, PACKET);
	submit(&jobs[1], IN_EP, BH_ISOCHRONOUS, 12, PACKET);
	pass_to(begin + 60000);
	assert_int_equal(frames_taken(&jobs[0], begin), 13);
	assert_int_equal(frames_taken(&jobs[1], begin), 13);
}

static void faults_strike_one_packet(void **state)
{
	static const struct {
		enum bh_simulated_fault_kind kind;
		uint32_t value;
		enum bh_status status;
		uint32_t actual;
	} cases[] = {
		{BH_SIMULATED_BABBLE, 0, BH_BABBLE, 0},
		{BH_SIMULATED_LONG, PACKET + 1, BH_BABBLE, 0},
		{BH_SIMULATED_BUS_ERROR, 0, BH_BUS_ERROR, 0},
		{BH_SIMULATED_NO_RESPONSE, 0, BH_NO_RESPONSE, 0},
		{BH_SIMULATED_SHORT, 7, BH_SUCCESS, 7},
		{BH_SIMULATED_SHORT, 0, BH_SUCCESS, 0},
	};
	static const enum bh_simulated_fault_kind wrong[] = {BH_SIMULATED_STALL, BH_SIMULATED_NAK, BH_SIMULATED_HANG};

	(void)state;
	for (unsigned i = 0; i < BH_COUNT(wrong); i++)
		assert_int_not_equal(bh_simulated_program(device, &(struct bh_simulated_fault){
			.kind = wrong[i], .endpoint = IN_EP, .packet = 1, .value = 1}), 0);
	for (unsigned i = 0; i < BH_COUNT(cases); i++) {
		uint64_t begin = now_us;

		assert_int_equal(bh_simulated_program(device, &(struct bh_simulated_fault){
			.kind = cases[i].kind, .endpoint = IN_EP, .next_transfer = true, .packet = 2,
			.value = cases[i].value}), 0);
		submit(&jobs[0], IN_EP, BH_ISOCHRONOUS, 5, PACKET);
		pass_to(begin + 10000);
		assert_int_equal(frames_taken(&jobs[0], begin), 6);
		for (unsigned n = 0; n < 5; n++) {
			assert_int_equal(jobs[0].packets[n].status, n == 2 ? cases[i].status : BH_SUCCESS);
			assert_int_equal(jobs[0].packets[n].actual, n == 2 ? cases[i].actual : PACKET);
		}
	}
}

static void cancelled_ends_with_what_had_its_turn(void **state)
{
	uint64_t begin = now_us;

	(void)state;
	submit(&jobs[0], OUT_EP, BH_ISOCHRONOUS, 10, PACKET);
	pass_to(begin + 4500);
	bh_device_cancel(device, &jobs[0].t);
	assert_int_equal(jobs[0].done, 0);
	pass_to(begin + 10000);
	assert_int_equal(jobs[0].status, BH_CANCELLED);
	assert_int_equal(jobs[0].done_us - begin, 5000);
	for (unsigned n = 0; n < 10; n++)
		assert_int_equal(jobs[0].packets[n].status, n < 4 ? BH_SUCCESS : BH_NO_RESPONSE);
	assert_int_equal(bh_simulated_count(device, OUT_EP).packets, 4);
}

/* Nine tenths of a frame: 1350 byte times, of which the device here has 1103. */
static void bus_time_is_reserved(void **state)
{
	struct bh_endpoint_info info = {.address = 0x81, .type = BH_ISOCHRONOUS, .max_packet = 235};
	struct bh_simulated_config one = {.endpoints = &info, .endpoint_count = 1};
	struct bh_device *other;

	(void)state;
	assert_null(bh_simulated_create(&bus, &one));
	info.max_packet = 234;
	other = bh_simulated_create(&bus, &one);
	assert_non_null(other);
	assert_null(bh_simulated_create(&bus, &one));
	bh_device_destroy(other);
	other = bh_simulated_create(&bus, &one);
	assert_non_null(other);
	bh_device_destroy(other);
}

/* --- a guest that streams ------------------------------------------------------------------- */

#define RING   128u /* descriptors each way */
#define AHEAD  40u  /* frames queued */
#define FILLS  40u  /* frames until the pipeline has filled */
#define FRAMES 1500u

static struct {
	unsigned good, timed_out, missed; /* from frame FILLS on */
} results[2]; /* OUT, IN */
static uint64_t place;   /* in the device's pattern: where the next packet comes from */
static uint64_t checksum; /* of what was told sent */
static unsigned gaps;

static void begin(uint64_t phase_us, bool batches)
{
	struct bh_uhci_config c = BH_UHCI_DEFAULTS;

	if (!batches)
		c.engine.max_batch_descriptors = 1;
	machine(&c);
	guest.now_us += phase_us;
	bh_simulated_bus_init(&bus, 1000000);
	device = bh_simulated_create(&bus, &config);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, device), 0);
	enable_port(0);
	memset(results, 0, sizeof(results));
	place = 0;
	gaps = 0;
	checksum = BH_SIMULATED_CHECKSUM;
}

/* Time passes for host and controller; the host's frames end first. */
static void pass(uint64_t us)
{
	uint64_t until = guest.now_us + us;

	for (;;) {
		uint64_t next = BH_MIN(BH_MAX(guest.run_at_us, guest.now_us), bh_simulated_deadline(&bus));

		if (next > until)
			break;
		guest.now_us = BH_MAX(next, guest.now_us);
		bh_simulated_run(&bus, guest.now_us);
		if (guest.run_at_us <= guest.now_us) {
			guest.run_at_us = UINT64_MAX;
			bh_uhci_run(uhci);
		}
	}
	guest.now_us = until;
	bh_simulated_run(&bus, until);
}

static unsigned descriptor(bool in, unsigned frame)
{
	return (in ? RING : 0) + frame % RING;
}

static void queue(unsigned frame)
{
	unsigned o = descriptor(false, frame), i = descriptor(true, frame);

	for (unsigned k = 0; k < PACKET; k++)
		guest.memory[BUFFER(o) + k] = (uint8_t)(frame * 11 + k);
	td(o, TD(i), TD_ACTIVE | TD_IOS, token(BH_PID_OUT, 0, OUT_EP & 15, 0, PACKET));
	td(i, LINK_T, TD_ACTIVE | TD_IOS, token(BH_PID_IN, 0, IN_EP & 15, 0, PACKET));
	fake_put32(&guest, FRAME_LIST + 4 * (frame % FRAME_LIST_SIZE), TD(o));
}

/* What came in is the device's pattern, without a gap. */
static void check_in(unsigned n)
{
	unsigned bad = 0;

	for (unsigned k = 0; k < PACKET; k++)
		bad += guest.memory[BUFFER(n) + k] != bh_simulated_pattern(place + k);
	gaps += bad > 0;
	place += PACKET;
}

static void harvest(unsigned frame)
{
	for (unsigned in = 0; in < 2; in++) {
		unsigned n = descriptor(in, frame);
		uint32_t control = control_of(n);
		bool missed = control & TD_ACTIVE, lost = control & TD_CRC_TIMEOUT;

		if (!missed && !lost && in)
			check_in(n);
		if (!missed && !lost && !in)
			checksum = bh_simulated_checksum(checksum, guest.memory + BUFFER(n), PACKET);
		if (frame < FILLS)
			continue;
		results[in].missed += missed;
		results[in].timed_out += lost;
		results[in].good += !missed && !lost;
	}
	fake_put32(&guest, FRAME_LIST + 4 * (frame % FRAME_LIST_SIZE), LINK_T);
}

static void stream(void)
{
	configure();
	pass(2000);
	for (unsigned frame = 0; frame < AHEAD; frame++)
		queue(frame);
	run();
	for (unsigned frame = 0; frame < FRAMES; frame++) {
		pass(1000);
		harvest(frame);
		queue(frame + AHEAD);
	}
}

static void end(void)
{
	machine_finish();
	bh_simulated_bus_finish(&bus);
}

static void streams_miss_nothing_with_batches(void **state)
{
	(void)state;
	for (uint64_t phase = 0; phase < 1000; phase += 333) {
		begin(phase, true);
		stream();
		assert_int_equal(results[0].good, FRAMES - FILLS);
		assert_int_equal(results[1].good, FRAMES - FILLS);
		assert_int_equal(gaps, 0);
		assert_int_equal(engine()->isochronous_dropped, 0);
		assert_in_range(engine()->isochronous_missed, 1, FILLS); /* while it filled */
		assert_in_range(engine()->batches, 2, 2 * FRAMES / 5);
		pass(10000);
		end();
	}
}

/* Whatever was told sent, the device has, and nothing else. */
static void out_is_what_the_device_heard(void **state)
{
	(void)state;
	begin(0, true);
	stream();
	for (unsigned frame = FRAMES; frame < FRAMES + AHEAD + 4; frame++) {
		pass(1000);
		if (frame < FRAMES + AHEAD)
			harvest(frame);
	}
	pass(20000);
	assert_int_equal(bh_simulated_count(device, OUT_EP).packets, FRAMES + AHEAD);
	assert_true(bh_simulated_count(device, OUT_EP).checksum == checksum);
	assert_int_equal(engine()->ahead_bytes, 0);
	end();
}

/* Every other OUT finds the one before still on its way; an IN is there three frames later. */
static void streams_miss_most_packet_at_a_time(void **state)
{
	(void)state;
	for (uint64_t phase = 0; phase < 1000; phase += 333) {
		begin(phase, false);
		stream();
		assert_in_range(results[0].missed, 45 * (FRAMES - FILLS) / 100, 80 * (FRAMES - FILLS) / 100);
		assert_in_range(results[1].timed_out, 60 * (FRAMES - FILLS) / 100, 90 * (FRAMES - FILLS) / 100);
		assert_int_equal(gaps, 0);
		end();
	}
}

#define HOST(name) cmocka_unit_test_setup_teardown(name, setup_host, teardown_host)

int main(void)
{
	const struct CMUnitTest tests[] = {
		HOST(one_packet_in_each_interval),
		HOST(transfers_follow_without_a_gap),
		HOST(empty_packets_take_their_interval),
		HOST(isochronous_packets_come_first),
		HOST(isochronous_packets_wait_for_nobody),
		HOST(faults_strike_one_packet),
		HOST(cancelled_ends_with_what_had_its_turn),
		HOST(bus_time_is_reserved),
		cmocka_unit_test(streams_miss_nothing_with_batches),
		cmocka_unit_test(out_is_what_the_device_heard),
		cmocka_unit_test(streams_miss_most_packet_at_a_time),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
