/*
 * What the turnaround benchmark stands on: that it notices a bound that is not
 * kept, and that its driver tells good transfers from bad ones.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <base/util.h>
#include <host/simulated.h>

#include "../../src/bench/driver.h"
#include "../../src/bench/turnaround.h"

/* --- judging ---------------------------------------------------------------------------- */

/* What the complaints are about this row, which has kept everything but for what the test changed. */
static unsigned judge(const struct bh_turnaround_row *row, char *said, size_t room)
{
	struct bh_turnaround_row rows[2] = {*row, *row};
	struct bh_turnaround_result results[2] = {{.verify = "first", .rows = rows}, {.verify = "second", .rows = rows}};
	const struct bh_turnaround_report report = {
		.verify_when = "bounded", .results = results, .result_count = 2, .row_count = 1,
	};
	FILE *to = fmemopen(said, room, "w");
	unsigned broken = bh_turnaround_judge(&report, to);

	fclose(to);
	return broken;
}

static struct bh_turnaround_row good_row(uint32_t bytes)
{
	uint32_t packets = (bytes + 63) / 64;
	uint64_t us = 1000 * ((packets + 18) / 19 + 1);

	return (struct bh_turnaround_row){
		.bytes = bytes, .packets = packets, .batch_us = us, .worst_us = us + 999, .batches = 1,
		.single_us = 2000ull * packets,
	};
}

static void bound_counts_frames_of_nineteen_packets(void **state)
{
	(void)state;
	assert_int_equal(bh_turnaround_bound(1), 3);
	assert_int_equal(bh_turnaround_bound(19), 3);
	assert_int_equal(bh_turnaround_bound(20), 4);
	assert_int_equal(bh_turnaround_bound(65536), 3452);
}

static void what_keeps_the_bounds_is_not_complained_of(void **state)
{
	char said[500] = "";

	(void)state;
	for (uint32_t bytes = 64; bytes <= 4u << 20; bytes *= 2) {
		struct bh_turnaround_row row = good_row(bytes);

		assert_int_equal(judge(&row, said, sizeof(said)), 0);
	}
	assert_string_equal(said, "");
}

static void one_frame_too_many_is_noticed_in_every_mode(void **state)
{
	struct bh_turnaround_row row = good_row(4096);
	char said[500] = "";

	(void)state;
	row.worst_us = 1000 * bh_turnaround_bound(row.packets);
	assert_int_equal(judge(&row, said, sizeof(said)), 0);
	row.worst_us++;
	assert_int_equal(judge(&row, said, sizeof(said)), 2);
	assert_non_null(strstr(said, "first, 4096 bytes OUT: 7 frames, at most 6 are allowed"));
	assert_non_null(strstr(said, "second, 4096 bytes OUT"));
}

static void less_than_97_percent_is_noticed(void **state)
{
	struct bh_turnaround_row row = good_row(262144);
	char said[500] = "";

	(void)state;
	/* 262144 bytes in 222.246 ms are 97 %; no bound in frames would notice a larger transfer's loss. */
	row.packets = 64 * 4096;
	row.single_us = 2000ull * row.packets;
	row.worst_us = 222245;
	assert_int_equal(judge(&row, said, sizeof(said)), 0);
	row.worst_us = 222247;
	assert_int_equal(judge(&row, said, sizeof(said)), 2);
	assert_non_null(strstr(said, "at least 97 % are due"));
	row.bytes--; /* below where it counts */
	assert_int_equal(judge(&row, said, sizeof(said)), 0);
}

static void packet_at_a_time_takes_two_ms_each(void **state)
{
	struct bh_turnaround_row row = good_row(640);
	char said[500] = "";

	(void)state;
	row.single_us -= 1000;
	assert_int_equal(judge(&row, said, sizeof(said)), 2);
	assert_non_null(strstr(said, "packet at a time in 19000 us, it should be 20000"));
}

/* --- the driver -------------------------------------------------------------------------------- */

static const struct bh_endpoint_info endpoints[] = {
	{.address = 0x01, .type = BH_BULK, .max_packet = 64},
	{.address = 0x82, .type = BH_BULK, .max_packet = 64},
};

static struct bh_simulated_bus bus;
static struct bh_driver driver;
static struct bh_device *device;

static void run_bus(void *data, uint64_t now_us)
{
	bh_simulated_run(data, now_us);
}

static uint64_t bus_deadline(void *data)
{
	return bh_simulated_deadline(data);
}

static int setup(void **state)
{
	const struct bh_uhci_config config = BH_UHCI_DEFAULTS;
	const struct bh_driver_world world = {.run = run_bus, .deadline = bus_deadline, .data = &bus};

	(void)state;
	bh_simulated_bus_init(&bus, BH_DRIVER_EPOCH_US);
	assert_int_equal(bh_driver_init(&driver, &config, 1000, &world), 0);
	device = bh_simulated_create(&bus, &(struct bh_simulated_config){
		.endpoints = endpoints, .endpoint_count = BH_COUNT(endpoints)});
	assert_int_equal(bh_driver_attach(&driver, device), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bh_driver_finish(&driver);
	bh_simulated_bus_finish(&bus);
	return 0;
}

static void program(enum bh_simulated_fault_kind kind, uint8_t endpoint, uint64_t packet)
{
	assert_int_equal(bh_simulated_program(device, &(struct bh_simulated_fault){
		.kind = kind, .endpoint = endpoint, .packet = packet, .next_transfer = true}), 0);
}

/* 0, or what bh_driver_wait() said. */
static int transfer(uint8_t endpoint, uint32_t length, uint64_t *ret_us)
{
	bh_driver_build(&driver, endpoint, 64, length);
	bh_driver_advance(&driver, (driver.guest.now_us / 1000 + 2) * 1000);
	bh_driver_link(&driver);
	return bh_driver_wait(&driver, 1000000, ret_us);
}

static void good_transfers_are_good(void **state)
{
	static const uint32_t lengths[] = {0, 1, 64, 65, 6400, 64000};
	uint64_t us;

	(void)state;
	for (unsigned i = 0; i < BH_COUNT(lengths); i++) {
		assert_int_equal(transfer(0x01, lengths[i], &us), 0);
		assert_true(bh_driver_check(&driver));
	}
	assert_int_equal(bh_simulated_count(device, 0x01).bytes, 0 + 1 + 64 + 65 + 6400 + 64000);
	assert_int_equal(transfer(0x82, 6400, &us), 0);
	assert_true(bh_driver_check(&driver));
	assert_int_equal(us, 7000);
}

static void failed_packets_are_noticed_and_the_driver_goes_on(void **state)
{
	uint64_t us;

	(void)state;
	program(BH_SIMULATED_STALL, 0x01, 3);
	assert_int_equal(transfer(0x01, 640, &us), 0); /* the queue stopped: that is an end */
	assert_false(bh_driver_check(&driver));
	program(BH_SIMULATED_SHORT, 0x82, 5);
	assert_int_equal(transfer(0x82, 640, &us), 0);
	assert_false(bh_driver_check(&driver));
	assert_int_equal(transfer(0x82, 640, &us), 0);
	assert_true(bh_driver_check(&driver));
}

static void what_never_ends_is_given_up(void **state)
{
	uint64_t us = 0;

	(void)state;
	program(BH_SIMULATED_HANG, 0x82, 0);
	assert_int_equal(transfer(0x82, 64, &us), -ETIMEDOUT);
	assert_false(bh_driver_check(&driver));
}

static void device_that_does_not_answer_is_reported(void **state)
{
	const struct bh_uhci_config config = BH_UHCI_DEFAULTS;
	const struct bh_driver_world world = {.run = run_bus, .deadline = bus_deadline, .data = &bus};

	(void)state;
	bh_simulated_bus_init(&bus, BH_DRIVER_EPOCH_US);
	assert_int_equal(bh_driver_init(&driver, &config, 1, &world), 0);
	device = bh_simulated_create(&bus, &(struct bh_simulated_config){.endpoint_count = 0});
	program(BH_SIMULATED_STALL, 0, 1);
	assert_int_equal(bh_driver_attach(&driver, device), -EIO);
	bh_driver_finish(&driver);
	bh_simulated_bus_finish(&bus);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bound_counts_frames_of_nineteen_packets),
		cmocka_unit_test(what_keeps_the_bounds_is_not_complained_of),
		cmocka_unit_test(one_frame_too_many_is_noticed_in_every_mode),
		cmocka_unit_test(less_than_97_percent_is_noticed),
		cmocka_unit_test(packet_at_a_time_takes_two_ms_each),
		cmocka_unit_test_setup_teardown(good_transfers_are_good, setup, teardown),
		cmocka_unit_test_setup_teardown(failed_packets_are_noticed_and_the_driver_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(what_never_ends_is_given_up, setup, teardown),
		cmocka_unit_test(device_that_does_not_answer_is_reported),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
