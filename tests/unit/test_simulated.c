/*
 * The simulated host interface: when results come, what faults do, who gets the
 * wire, and the device seam's contract.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <base/util.h>
#include <host/simulated.h>

#define OUT_EP       0x01
#define IN_EP        0x82
#define INTERRUPT_EP 0x83
#define SMALL_EP     0x04

static const struct bh_endpoint_info endpoints[] = {
	{.address = OUT_EP, .type = BH_BULK, .max_packet = 64},
	{.address = IN_EP, .type = BH_BULK, .max_packet = 64},
	{.address = INTERRUPT_EP, .type = BH_INTERRUPT, .max_packet = 8, .interval = 4, .interface = 1},
	{.address = SMALL_EP, .type = BH_BULK, .max_packet = 16, .interface = 1},
};

#define MOST_BYTES 65536u
#define START_US   5000u

/* A transfer, and what became of it. */
struct job {
	struct bh_transfer t;
	struct iovec spans[2];
	uint8_t bytes[MOST_BYTES];
	unsigned done, progresses, order;
	enum bh_status status;
	uint64_t done_us;
	uint32_t last_progress;
	void (*then)(struct job *j); /* called when it is done */
};

static struct bh_simulated_bus bus;
static struct bh_device *device;
static struct job jobs[4];
static uint64_t now_us;
static unsigned ended;
static unsigned detached;

/* What the sink heard. */
static struct {
	uint8_t endpoint, bytes[MOST_BYTES];
	uint32_t length, packets, last;
} heard;

static void sink(void *data, uint8_t endpoint, const uint8_t *bytes, uint32_t length)
{
	assert_ptr_equal(data, &heard);
	assert_true(heard.length + length <= MOST_BYTES);
	memcpy(heard.bytes + heard.length, bytes, length);
	heard.endpoint = endpoint;
	heard.length += length;
	heard.last = length;
	heard.packets++;
}

static const struct bh_simulated_config config = {
	.endpoints = endpoints,
	.endpoint_count = BH_COUNT(endpoints),
	.sink = sink,
	.sink_data = &heard,
};

static void job_done(struct bh_transfer *t, enum bh_status status)
{
	struct job *j = bh_container_of(t, struct job, t);

	j->done++;
	j->status = status;
	j->done_us = now_us;
	j->order = ++ended;
	if (j->then)
		j->then(j);
}

static void job_progress(struct bh_transfer *t)
{
	struct job *j = bh_container_of(t, struct job, t);

	assert_int_equal(j->done, 0);
	assert_true(t->actual > j->last_progress);
	j->last_progress = t->actual;
	j->progresses++;
}

/* In two spans, cut where no packet ends. */
static void prepare(struct job *j, uint8_t endpoint, enum bh_endpoint_type type, uint32_t length)
{
	uint32_t cut = length / 2 | 1;

	memset(j, 0, offsetof(struct job, bytes));
	j->done = j->progresses = j->order = j->last_progress = 0;
	j->then = NULL;
	for (uint32_t i = 0; i < MOST_BYTES; i++)
		j->bytes[i] = (uint8_t)(i * 7 + endpoint);
	j->spans[0] = (struct iovec){j->bytes, BH_MIN(cut, length)};
	j->spans[1] = (struct iovec){j->bytes + j->spans[0].iov_len, length - j->spans[0].iov_len};
	j->t = (struct bh_transfer){
		.endpoint = endpoint,
		.type = type,
		.spans = j->spans,
		.span_count = 2,
		.length = length,
		.done = job_done,
		.progress = job_progress,
	};
}

static void submit(struct job *j, uint8_t endpoint, uint32_t length)
{
	prepare(j, endpoint, endpoint == INTERRUPT_EP ? BH_INTERRUPT : BH_BULK, length);
	bh_device_submit(device, &j->t);
}

/* Time goes on to us after START_US, stopping wherever the bus asks to be called. */
static void pass_to(uint64_t us)
{
	uint64_t until = START_US + us;

	while (bh_simulated_deadline(&bus) <= until) {
		assert_true(bh_simulated_deadline(&bus) > now_us);
		now_us = bh_simulated_deadline(&bus);
		bh_simulated_run(&bus, now_us);
	}
	now_us = until;
	bh_simulated_run(&bus, now_us);
}

static uint64_t took(const struct job *j)
{
	assert_int_equal(j->done, 1);
	return j->done_us - START_US;
}

static void assert_ended(const struct job *j, enum bh_status status, uint32_t actual)
{
	assert_int_equal(j->done, 1);
	assert_string_equal(bh_status_name(j->status), bh_status_name(status));
	assert_int_equal(j->t.actual, actual);
}

static void program(enum bh_simulated_fault_kind kind, uint8_t endpoint, uint64_t packet, uint32_t value)
{
	assert_int_equal(bh_simulated_program(device, &(struct bh_simulated_fault){
		.kind = kind, .endpoint = endpoint, .packet = packet, .value = value}), 0);
}

/* Runs a control operation, and the clock back to START_US afterwards. */
static enum bh_status configure(uint8_t value)
{
	struct job *j = &jobs[3];

	prepare(j, 0, BH_CONTROL, 0);
	bh_device_set_configuration(device, value, &j->t);
	assert_int_equal(j->done, 0);
	now_us += 2000;
	bh_simulated_run(&bus, now_us);
	assert_int_equal(j->done, 1);
	return j->status;
}

static struct bh_device *create(const struct bh_simulated_config *c)
{
	struct bh_device *d = bh_simulated_create(&bus, c);

	assert_non_null(d);
	bh_device_reset(d);
	return d;
}

static int setup(void **state)
{
	(void)state;
	memset(&heard, 0, sizeof(heard));
	detached = 0;
	now_us = START_US - 2000;
	bh_simulated_bus_init(&bus, now_us);
	device = create(&config);
	assert_int_equal(configure(1), BH_SUCCESS);
	assert_int_equal(now_us, START_US);
	ended = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bh_device_destroy(device);
	bh_simulated_bus_finish(&bus);
	return 0;
}

/* --- time ------------------------------------------------------------------------------ */

static void n_packets_take_a_frame_and_one_for_each_nineteen(void **state)
{
	static const struct { uint32_t packets, frames; } cases[] = {
		{1, 2}, {2, 2}, {18, 2}, {19, 2}, {20, 3}, {38, 3}, {39, 4}, {190, 11}, {191, 12}, {1024, 55},
	};

	(void)state;
	for (unsigned i = 0; i < BH_COUNT(cases); i++)
		for (unsigned in = 0; in < 2; in++) {
			uint64_t begin = now_us;

			heard.length = 0;
			submit(&jobs[0], in ? IN_EP : OUT_EP, 64 * cases[i].packets);
			pass_to(begin - START_US + 200000);
			assert_ended(&jobs[0], BH_SUCCESS, 64 * cases[i].packets);
			assert_int_equal(jobs[0].done_us - begin, 1000 * cases[i].frames);
			assert_int_equal(jobs[0].progresses, cases[i].frames - 2);
		}
}

static void submitted_within_a_frame_waits_for_its_end(void **state)
{
	(void)state;
	pass_to(1);
	submit(&jobs[0], OUT_EP, 64);
	pass_to(1999);
	submit(&jobs[1], IN_EP, 64);
	assert_int_equal(jobs[0].done, 0);
	pass_to(2000);
	assert_int_equal(took(&jobs[0]), 2000);
	assert_int_equal(jobs[1].done, 0);
	pass_to(3000);
	assert_int_equal(took(&jobs[1]), 3000);
}

static void one_after_the_other_takes_two_frames_each(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 10; i++) {
		submit(&jobs[0], OUT_EP, 64);
		pass_to(2000 * (i + 1));
		assert_int_equal(took(&jobs[0]), 2000 * (i + 1)); /* 32 KB/s */
	}
}

static void smaller_packets_fill_the_frame_as_the_bus_allows(void **state)
{
	(void)state;
	assert_int_equal(bh_simulated_packets_per_frame(64), 19);
	assert_int_equal(bh_simulated_packets_per_frame(32), 33);
	assert_int_equal(bh_simulated_packets_per_frame(16), 51);
	assert_int_equal(bh_simulated_packets_per_frame(8), 71);
	submit(&jobs[0], SMALL_EP, 51 * 16);
	pass_to(10000);
	assert_int_equal(took(&jobs[0]), 2000);
	pass_to(20000);
	submit(&jobs[0], SMALL_EP, 52 * 16);
	pass_to(40000);
	assert_int_equal(took(&jobs[0]), 23000);
}

static void interrupt_endpoint_moves_a_packet_an_interval(void **state)
{
	(void)state;
	submit(&jobs[0], INTERRUPT_EP, 24);
	pass_to(100000);
	assert_ended(&jobs[0], BH_SUCCESS, 24);
	assert_int_equal(took(&jobs[0]), 10000); /* frames 1, 5 and 9 */
}

static void missed_frames_are_made_up_for(void **state)
{
	(void)state;
	submit(&jobs[0], OUT_EP, 64 * 100);
	now_us = START_US + 50000;
	bh_simulated_run(&bus, now_us);
	assert_ended(&jobs[0], BH_SUCCESS, 6400);
	assert_int_equal(bh_simulated_deadline(&bus), UINT64_MAX);
	submit(&jobs[0], OUT_EP, 64);
	pass_to(60000);
	assert_int_equal(took(&jobs[0]), 52000);
}

/* --- data -------------------------------------------------------------------------------- */

static void out_bytes_come_packet_by_packet(void **state)
{
	struct bh_simulated_count count;

	(void)state;
	submit(&jobs[0], OUT_EP, 1000);
	pass_to(5000);
	assert_ended(&jobs[0], BH_SUCCESS, 1000);
	assert_int_equal(heard.packets, 16);
	assert_int_equal(heard.last, 1000 % 64);
	assert_int_equal(heard.endpoint, OUT_EP);
	assert_int_equal(heard.length, 1000);
	assert_memory_equal(heard.bytes, jobs[0].bytes, 1000);
	count = bh_simulated_count(device, OUT_EP);
	assert_int_equal(count.packets, 16);
	assert_int_equal(count.bytes, 1000);
	assert_true(count.checksum == bh_simulated_checksum(BH_SIMULATED_CHECKSUM, jobs[0].bytes, 1000));
}

static void in_bytes_are_the_pattern(void **state)
{
	(void)state;
	submit(&jobs[0], IN_EP, 640);
	submit(&jobs[1], IN_EP, 320);
	pass_to(5000);
	assert_ended(&jobs[1], BH_SUCCESS, 320);
	for (uint32_t i = 0; i < 640; i++)
		assert_int_equal(jobs[0].bytes[i], bh_simulated_pattern(i));
	for (uint32_t i = 0; i < 320; i++)
		assert_int_equal(jobs[1].bytes[i], bh_simulated_pattern(640 + i));
	assert_int_equal(bh_simulated_count(device, IN_EP).bytes, 960);
	assert_int_equal(bh_simulated_count(device, 0x0f).packets, 0);
}

static void zero_length_packets_are_packets(void **state)
{
	(void)state;
	submit(&jobs[0], OUT_EP, 0);
	pass_to(5000);
	assert_int_equal(took(&jobs[0]), 2000);
	assert_int_equal(heard.packets, 1);

	prepare(&jobs[0], OUT_EP, BH_BULK, 128);
	jobs[0].t.flags = BH_TRANSFER_ZERO_PACKET;
	bh_device_submit(device, &jobs[0].t);
	pass_to(10000);
	assert_ended(&jobs[0], BH_SUCCESS, 128);
	assert_int_equal(heard.packets, 4);
	assert_int_equal(heard.last, 0);

	prepare(&jobs[0], OUT_EP, BH_BULK, 100);
	jobs[0].t.flags = BH_TRANSFER_ZERO_PACKET;
	bh_device_submit(device, &jobs[0].t);
	pass_to(15000);
	assert_int_equal(heard.packets, 6); /* the short one ended it */
}

/* --- faults -------------------------------------------------------------------------------- */

static void stall_halts_until_cleared(void **state)
{
	(void)state;
	program(BH_SIMULATED_STALL, OUT_EP, 3, 0);
	submit(&jobs[0], OUT_EP, 640);
	submit(&jobs[1], OUT_EP, 64);
	pass_to(5000);
	assert_ended(&jobs[0], BH_STALL, 192);
	assert_ended(&jobs[1], BH_STALL, 0);
	assert_int_equal(heard.packets, 3);
	submit(&jobs[0], OUT_EP, 64);
	pass_to(10000);
	assert_ended(&jobs[0], BH_STALL, 0);

	prepare(&jobs[1], 0, BH_CONTROL, 0);
	bh_device_clear_halt(device, OUT_EP, &jobs[1].t);
	pass_to(15000);
	assert_ended(&jobs[1], BH_SUCCESS, 0);
	submit(&jobs[0], OUT_EP, 64);
	pass_to(20000);
	assert_ended(&jobs[0], BH_SUCCESS, 64);
}

static void configuring_clears_halts(void **state)
{
	(void)state;
	program(BH_SIMULATED_STALL, OUT_EP, 0, 0);
	program(BH_SIMULATED_STALL, SMALL_EP, 0, 0);
	submit(&jobs[0], OUT_EP, 64);
	submit(&jobs[1], SMALL_EP, 16);
	pass_to(5000);
	prepare(&jobs[2], 0, BH_CONTROL, 0);
	bh_device_set_interface(device, 1, 0, &jobs[2].t); /* the second endpoint's */
	pass_to(8000);
	submit(&jobs[0], OUT_EP, 64);
	submit(&jobs[1], SMALL_EP, 16);
	pass_to(10000);
	assert_ended(&jobs[0], BH_STALL, 0);
	assert_ended(&jobs[1], BH_SUCCESS, 16);
	assert_int_equal(configure(1), BH_SUCCESS);
	submit(&jobs[0], OUT_EP, 64);
	pass_to(20000);
	assert_ended(&jobs[0], BH_SUCCESS, 64);
}

static void errors_end_one_transfer(void **state)
{
	static const struct { enum bh_simulated_fault_kind kind; uint8_t endpoint; enum bh_status status; } cases[] = {
		{BH_SIMULATED_BABBLE, IN_EP, BH_BABBLE},
		{BH_SIMULATED_BUS_ERROR, IN_EP, BH_BUS_ERROR},
		{BH_SIMULATED_BUS_ERROR, OUT_EP, BH_BUS_ERROR},
		{BH_SIMULATED_NO_RESPONSE, IN_EP, BH_NO_RESPONSE},
		{BH_SIMULATED_NO_RESPONSE, OUT_EP, BH_NO_RESPONSE},
	};

	(void)state;
	for (unsigned i = 0; i < BH_COUNT(cases); i++) {
		uint8_t endpoint = cases[i].endpoint;
		struct bh_simulated_count before = bh_simulated_count(device, endpoint);
		uint64_t begin = now_us - START_US;

		heard.length = 0;
		program(cases[i].kind, endpoint, before.packets + 20, 0);
		submit(&jobs[0], endpoint, 6400);
		submit(&jobs[1], endpoint, 64);
		pass_to(begin + 10000);
		assert_ended(&jobs[0], cases[i].status, 1280);
		assert_int_equal(took(&jobs[0]) - begin, 3000);
		assert_ended(&jobs[1], BH_SUCCESS, 64);
		assert_int_equal(bh_simulated_count(device, endpoint).bytes - before.bytes, 1344);
	}
}

static void hang_lasts_until_cancelled(void **state)
{
	(void)state;
	program(BH_SIMULATED_HANG, IN_EP, 2, 0);
	submit(&jobs[0], IN_EP, 640);
	pass_to(500000);
	assert_int_equal(jobs[0].done, 0);
	assert_int_equal(jobs[0].last_progress, 128);
	bh_device_cancel(device, &jobs[0].t);
	pass_to(501000);
	assert_ended(&jobs[0], BH_CANCELLED, 128);
	submit(&jobs[0], IN_EP, 64);
	pass_to(510000);
	assert_ended(&jobs[0], BH_SUCCESS, 64);
	assert_int_equal(jobs[0].bytes[0], bh_simulated_pattern(128)); /* nothing was lost */
}

static void nak_delays_by_frames(void **state)
{
	(void)state;
	program(BH_SIMULATED_NAK, OUT_EP, 0, 5);
	submit(&jobs[0], OUT_EP, 64);
	pass_to(20000);
	assert_ended(&jobs[0], BH_SUCCESS, 64);
	assert_int_equal(took(&jobs[0]), 7000);

	program(BH_SIMULATED_NAK, OUT_EP, 4, 2);
	submit(&jobs[0], OUT_EP, 640);
	pass_to(40000);
	assert_ended(&jobs[0], BH_SUCCESS, 640);
	assert_int_equal(took(&jobs[0]), 24000);
	assert_int_equal(jobs[0].progresses, 1); /* three packets, and then two frames of nothing */
}

static void short_packet_ends_an_in(void **state)
{
	(void)state;
	program(BH_SIMULATED_SHORT, IN_EP, 2, 10);
	submit(&jobs[0], IN_EP, 640);
	pass_to(5000);
	assert_ended(&jobs[0], BH_SUCCESS, 138);
	for (uint32_t i = 0; i < 138; i++)
		assert_int_equal(jobs[0].bytes[i], bh_simulated_pattern(i));
	assert_int_equal(jobs[0].bytes[138], (uint8_t)(138 * 7 + IN_EP));

	program(BH_SIMULATED_SHORT, IN_EP, 4, 0);
	submit(&jobs[0], IN_EP, 640);
	pass_to(10000);
	assert_ended(&jobs[0], BH_SUCCESS, 64);
	assert_int_equal(bh_simulated_count(device, IN_EP).packets, 5);

	program(BH_SIMULATED_SHORT, IN_EP, 5, 0);
	submit(&jobs[0], IN_EP, 64);
	pass_to(15000);
	assert_ended(&jobs[0], BH_SUCCESS, 0);
}

static void long_packet_babbles_and_is_gone(void **state)
{
	(void)state;
	program(BH_SIMULATED_LONG, IN_EP, 1, 80);
	submit(&jobs[0], IN_EP, 640);
	pass_to(5000);
	assert_ended(&jobs[0], BH_BABBLE, 64);
	submit(&jobs[0], IN_EP, 64);
	pass_to(10000);
	assert_int_equal(jobs[0].bytes[0], bh_simulated_pattern(64 + 80));
}

static void note_detached(struct bh_device *d)
{
	assert_ptr_equal(d, device);
	assert_int_equal(ended, 2); /* whatever it held was answered before */
	detached++;
}

static void disconnect_ends_everything_and_tells(void **state)
{
	static const struct bh_device_upcalls upcalls = {.detached = note_detached};

	(void)state;
	device->upcalls = &upcalls;
	program(BH_SIMULATED_DISCONNECT, OUT_EP, 30, 0);
	submit(&jobs[0], OUT_EP, 6400);
	submit(&jobs[1], IN_EP, 6400);
	pass_to(50000);
	assert_ended(&jobs[0], BH_NO_RESPONSE, 1920);
	assert_int_equal(jobs[1].status, BH_NO_RESPONSE);
	assert_true(jobs[1].t.actual >= 29 * 64 && jobs[1].t.actual <= 31 * 64);
	assert_int_equal(detached, 1);
	submit(&jobs[0], OUT_EP, 64);
	assert_ended(&jobs[0], BH_NO_RESPONSE, 0);
	assert_int_equal(bh_simulated_deadline(&bus), UINT64_MAX);
}

static void faults_for_the_next_transfer_count_from_its_start(void **state)
{
	const struct bh_simulated_fault stall = {
		.kind = BH_SIMULATED_BUS_ERROR, .endpoint = OUT_EP, .next_transfer = true, .packet = 2,
	};

	(void)state;
	submit(&jobs[0], OUT_EP, 64 * 30);
	pass_to(2000); /* it has begun */
	assert_int_equal(bh_simulated_program(device, &stall), 0);
	submit(&jobs[1], OUT_EP, 640);
	pass_to(9000);
	assert_ended(&jobs[0], BH_SUCCESS, 64 * 30);
	assert_ended(&jobs[1], BH_BUS_ERROR, 128);

	assert_int_equal(bh_simulated_program(device, &stall), 0);
	submit(&jobs[0], OUT_EP, 64); /* over before it strikes */
	submit(&jobs[1], OUT_EP, 640);
	pass_to(20000);
	assert_ended(&jobs[0], BH_SUCCESS, 64);
	assert_ended(&jobs[1], BH_SUCCESS, 640);
}

static void faults_that_make_no_sense_are_refused(void **state)
{
	static const struct bh_simulated_fault faults[] = {
		{.kind = BH_SIMULATED_STALL, .endpoint = 0x0f},
		{.kind = BH_SIMULATED_BABBLE, .endpoint = OUT_EP},
		{.kind = BH_SIMULATED_SHORT, .endpoint = OUT_EP, .value = 1},
		{.kind = BH_SIMULATED_SHORT, .endpoint = IN_EP, .value = 64},
		{.kind = BH_SIMULATED_LONG, .endpoint = IN_EP, .value = 64},
		{.kind = BH_SIMULATED_NAK, .endpoint = IN_EP},
		{.kind = BH_SIMULATED_FAULT_COUNT, .endpoint = IN_EP},
	};
	struct bh_simulated_config finishing = config;

	(void)state;
	for (unsigned i = 0; i < BH_COUNT(faults); i++)
		assert_int_equal(bh_simulated_program(device, &faults[i]), -EINVAL);
	submit(&jobs[0], OUT_EP, 128);
	pass_to(5000);
	assert_int_equal(bh_simulated_program(device, &(struct bh_simulated_fault){
		.kind = BH_SIMULATED_STALL, .endpoint = OUT_EP, .packet = 1}), -EINVAL);

	bh_device_destroy(device);
	finishing.finishes = true;
	device = create(&finishing);
	assert_true(device->finishes);
	assert_int_equal(bh_simulated_program(device, &(struct bh_simulated_fault){
		.kind = BH_SIMULATED_HANG, .endpoint = OUT_EP}), -EINVAL);
}

/* --- the seam's contract ---------------------------------------------------------------------- */

static void cancel_is_answered_at_the_next_edge_with_what_moved(void **state)
{
	(void)state;
	submit(&jobs[0], OUT_EP, 64 * 100);
	pass_to(2500);
	bh_device_cancel(device, &jobs[0].t);
	assert_int_equal(jobs[0].done, 0);
	pass_to(2999);
	assert_int_equal(jobs[0].done, 0);
	pass_to(3000);
	assert_ended(&jobs[0], BH_CANCELLED, 38 * 64);
	assert_int_equal(heard.length, 38 * 64); /* neither more nor less than it acted on */
	assert_memory_equal(heard.bytes, jobs[0].bytes, 38 * 64);
}

static void cancelled_before_it_was_on_the_bus_moves_nothing(void **state)
{
	(void)state;
	submit(&jobs[0], OUT_EP, 64);
	bh_device_cancel(device, &jobs[0].t);
	pass_to(1000);
	assert_ended(&jobs[0], BH_CANCELLED, 0);
	assert_int_equal(heard.packets, 0);
	assert_int_equal(bh_simulated_deadline(&bus), UINT64_MAX);
}

static void outcome_reached_first_wins_over_cancel(void **state)
{
	(void)state;
	submit(&jobs[0], OUT_EP, 64);
	pass_to(1500);
	bh_device_cancel(device, &jobs[0].t);
	pass_to(2000);
	assert_ended(&jobs[0], BH_SUCCESS, 64);
}

static void transfers_of_an_endpoint_end_in_order(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++)
		submit(&jobs[i], OUT_EP, 64 * 19);
	bh_device_cancel(device, &jobs[2].t);
	pass_to(2500);
	assert_int_equal(ended, 1);
	pass_to(3000);
	assert_int_equal(ended, 3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(jobs[i].order, i + 1);
	assert_ended(&jobs[0], BH_SUCCESS, 64 * 19);
	assert_ended(&jobs[1], BH_SUCCESS, 64 * 19);
	assert_ended(&jobs[2], BH_CANCELLED, 0);
}

static void submit_again(struct job *j)
{
	submit(j, OUT_EP, 64);
}

static void submitting_when_told_belongs_to_the_frame_that_begins(void **state)
{
	(void)state;
	submit(&jobs[0], OUT_EP, 64);
	jobs[0].then = submit_again;
	pass_to(3999);
	assert_int_equal(jobs[0].done, 0);
	pass_to(4000);
	assert_int_equal(took(&jobs[0]), 4000);
}

static void endpoints_exist_when_configured(void **state)
{
	(void)state;
	assert_ptr_equal(bh_device_endpoint(device, OUT_EP), &endpoints[0]);
	assert_null(bh_device_endpoint(device, 0x02));
	submit(&jobs[0], 0x0e, 64);
	assert_ended(&jobs[0], BH_STALL, 0);
	assert_int_equal(configure(2), BH_STALL);
	assert_non_null(bh_device_endpoint(device, OUT_EP));
	assert_int_equal(configure(0), BH_SUCCESS);
	assert_null(bh_device_endpoint(device, OUT_EP));
	submit(&jobs[0], OUT_EP, 64);
	assert_ended(&jobs[0], BH_STALL, 0);
}

static void control_operations_take_their_time_and_can_be_refused(void **state)
{
	static const struct { uint8_t interface, alternate; enum bh_status status; } cases[] = {
		{0, 0, BH_SUCCESS}, {1, 0, BH_SUCCESS}, {2, 0, BH_STALL}, {1, 1, BH_STALL},
	};

	(void)state;
	for (unsigned i = 0; i < BH_COUNT(cases); i++) {
		prepare(&jobs[0], 0, BH_CONTROL, 0);
		bh_device_set_interface(device, cases[i].interface, cases[i].alternate, &jobs[0].t);
		pass_to(2000 * (i + 1) - 1);
		assert_int_equal(jobs[0].done, 0);
		pass_to(2000 * (i + 1));
		assert_ended(&jobs[0], cases[i].status, 0);
	}
	prepare(&jobs[0], 0, BH_CONTROL, 18); /* something it does not know */
	bh_device_submit(device, &jobs[0].t);
	pass_to(20000);
	assert_ended(&jobs[0], BH_STALL, 0);
	program(BH_SIMULATED_NO_RESPONSE, 0, bh_simulated_count(device, 0).packets + 1, 0);
	prepare(&jobs[0], 0, BH_CONTROL, 0);
	bh_device_clear_halt(device, OUT_EP, &jobs[0].t);
	pass_to(30000);
	assert_ended(&jobs[0], BH_NO_RESPONSE, 0); /* at STATUS */
}

static void reset_ends_everything_now(void **state)
{
	(void)state;
	program(BH_SIMULATED_STALL, SMALL_EP, 0, 0);
	submit(&jobs[0], OUT_EP, 64 * 100);
	submit(&jobs[1], IN_EP, 64 * 100);
	submit(&jobs[2], SMALL_EP, 16);
	pass_to(2000);
	assert_ended(&jobs[2], BH_STALL, 0);
	bh_device_reset(device);
	assert_int_equal(jobs[0].status, BH_CANCELLED);
	assert_int_equal(jobs[1].status, BH_CANCELLED);
	assert_int_equal(jobs[0].t.actual + jobs[1].t.actual, 19 * 64);
	assert_int_equal(jobs[0].t.actual, heard.length);
	assert_int_equal(bh_simulated_deadline(&bus), UINT64_MAX);
	assert_null(bh_device_endpoint(device, OUT_EP));
	assert_int_equal(configure(1), BH_SUCCESS);
	submit(&jobs[2], SMALL_EP, 16);
	pass_to(20000);
	assert_ended(&jobs[2], BH_SUCCESS, 16); /* no longer halted */
}

static void reset_device(struct job *j)
{
	(void)j;
	bh_device_reset(device);
}

static void reset_when_told_ends_each_once(void **state)
{
	(void)state;
	submit(&jobs[0], OUT_EP, 64);
	submit(&jobs[1], IN_EP, 64);
	submit(&jobs[2], SMALL_EP, 1600);
	jobs[0].then = reset_device;
	pass_to(10000);
	assert_ended(&jobs[0], BH_SUCCESS, 64);
	assert_ended(&jobs[1], BH_SUCCESS, 64);
	assert_int_equal(jobs[2].done, 1);
	assert_int_equal(jobs[2].status, BH_CANCELLED);
}

static void destroy_ends_what_it_holds(void **state)
{
	(void)state;
	submit(&jobs[0], OUT_EP, 640);
	submit(&jobs[1], OUT_EP, 640);
	bh_device_destroy(device);
	assert_ended(&jobs[0], BH_CANCELLED, 0);
	assert_ended(&jobs[1], BH_CANCELLED, 0);
	assert_int_equal(bh_simulated_deadline(&bus), UINT64_MAX);
	device = create(&config);
}

static void devices_that_cannot_be_are_not_made(void **state)
{
	static const struct bh_endpoint_info wrong[][2] = {
		{{.address = 0x80, .type = BH_BULK, .max_packet = 64}},
		{{.address = 0x11, .type = BH_BULK, .max_packet = 64}},
		{{.address = 0x01, .type = BH_CONTROL, .max_packet = 64}},
		{{.address = 0x01, .type = BH_ISOCHRONOUS, .max_packet = 0}},
		{{.address = 0x01, .type = BH_ISOCHRONOUS, .max_packet = 700},
		 {.address = 0x81, .type = BH_ISOCHRONOUS, .max_packet = 700}},
		{{.address = 0x01, .type = BH_BULK, .max_packet = 0}},
		{{.address = 0x01, .type = BH_BULK, .max_packet = 1025}},
		{{.address = 0x01, .type = BH_BULK, .max_packet = 64}, {.address = 0x01, .type = BH_BULK, .max_packet = 64}},
	};

	(void)state;
	for (unsigned i = 0; i < BH_COUNT(wrong); i++)
		assert_null(bh_simulated_create(&bus, &(struct bh_simulated_config){
			.endpoints = wrong[i], .endpoint_count = wrong[i][1].address ? 2 : 1}));
}

/* --- sharing ------------------------------------------------------------------------------------- */

static void endpoints_share_the_wire_fairly(void **state)
{
	(void)state;
	submit(&jobs[0], OUT_EP, 64 * 95);
	submit(&jobs[1], IN_EP, 64 * 95);
	for (unsigned frame = 2; frame <= 10; frame++) {
		pass_to(1000 * frame);
		assert_int_equal(jobs[0].last_progress + jobs[1].last_progress, 64 * 19 * (frame - 1));
		assert_true(abs((int)jobs[0].last_progress - (int)jobs[1].last_progress) <= 64);
	}
	pass_to(11000);
	assert_int_equal(took(&jobs[0]), 11000);
	assert_int_equal(took(&jobs[1]), 11000);
}

static void devices_share_the_wire_fairly(void **state)
{
	struct bh_device *first = device;
	struct bh_device *second = create(&config);

	(void)state;
	device = second;
	assert_int_equal(configure(1), BH_SUCCESS);
	submit(&jobs[1], IN_EP, 64 * 190);
	device = first;
	submit(&jobs[0], IN_EP, 64 * 19);
	pass_to(6000);
	assert_int_equal(took(&jobs[0]), 5000); /* 2 ms to configure, and then half of two frames each */
	assert_int_equal(jobs[0].t.actual, 64 * 19);
	assert_true(jobs[1].last_progress >= 64 * 37);
	pass_to(100000);
	assert_int_equal(took(&jobs[1]), 2000 + 12000);
	bh_device_destroy(second);
}

static void nobody_waits_for_one_that_cannot_move(void **state)
{
	(void)state;
	program(BH_SIMULATED_HANG, OUT_EP, 0, 0);
	submit(&jobs[0], OUT_EP, 64 * 19);
	submit(&jobs[1], IN_EP, 64 * 38);
	pass_to(4000);
	assert_int_equal(took(&jobs[1]), 4000); /* the one attempt cost a packet's time */
	assert_int_equal(jobs[0].done, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(n_packets_take_a_frame_and_one_for_each_nineteen, setup, teardown),
		cmocka_unit_test_setup_teardown(submitted_within_a_frame_waits_for_its_end, setup, teardown),
		cmocka_unit_test_setup_teardown(one_after_the_other_takes_two_frames_each, setup, teardown),
		cmocka_unit_test_setup_teardown(smaller_packets_fill_the_frame_as_the_bus_allows, setup, teardown),
		cmocka_unit_test_setup_teardown(interrupt_endpoint_moves_a_packet_an_interval, setup, teardown),
		cmocka_unit_test_setup_teardown(missed_frames_are_made_up_for, setup, teardown),
		cmocka_unit_test_setup_teardown(out_bytes_come_packet_by_packet, setup, teardown),
		cmocka_unit_test_setup_teardown(in_bytes_are_the_pattern, setup, teardown),
		cmocka_unit_test_setup_teardown(zero_length_packets_are_packets, setup, teardown),
		cmocka_unit_test_setup_teardown(stall_halts_until_cleared, setup, teardown),
		cmocka_unit_test_setup_teardown(configuring_clears_halts, setup, teardown),
		cmocka_unit_test_setup_teardown(errors_end_one_transfer, setup, teardown),
		cmocka_unit_test_setup_teardown(hang_lasts_until_cancelled, setup, teardown),
		cmocka_unit_test_setup_teardown(nak_delays_by_frames, setup, teardown),
		cmocka_unit_test_setup_teardown(short_packet_ends_an_in, setup, teardown),
		cmocka_unit_test_setup_teardown(long_packet_babbles_and_is_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(disconnect_ends_everything_and_tells, setup, teardown),
		cmocka_unit_test_setup_teardown(faults_for_the_next_transfer_count_from_its_start, setup, teardown),
		cmocka_unit_test_setup_teardown(faults_that_make_no_sense_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(cancel_is_answered_at_the_next_edge_with_what_moved, setup, teardown),
		cmocka_unit_test_setup_teardown(cancelled_before_it_was_on_the_bus_moves_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(outcome_reached_first_wins_over_cancel, setup, teardown),
		cmocka_unit_test_setup_teardown(transfers_of_an_endpoint_end_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(submitting_when_told_belongs_to_the_frame_that_begins, setup, teardown),
		cmocka_unit_test_setup_teardown(endpoints_exist_when_configured, setup, teardown),
		cmocka_unit_test_setup_teardown(control_operations_take_their_time_and_can_be_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(reset_ends_everything_now, setup, teardown),
		cmocka_unit_test_setup_teardown(reset_when_told_ends_each_once, setup, teardown),
		cmocka_unit_test_setup_teardown(destroy_ends_what_it_holds, setup, teardown),
		cmocka_unit_test_setup_teardown(devices_that_cannot_be_are_not_made, setup, teardown),
		cmocka_unit_test_setup_teardown(endpoints_share_the_wire_fairly, setup, teardown),
		cmocka_unit_test_setup_teardown(devices_share_the_wire_fairly, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody_waits_for_one_that_cannot_move, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
