/* That `bulkhead bench engine` notices what it promises to notice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <base/util.h>

#include "../../src/bench/cost.h"

static struct bh_cost_report report;
static char said[4096];

static unsigned judge(void)
{
	FILE *to = fmemopen(said, sizeof(said), "w");
	unsigned broken = bh_cost_judge(&report, to);

	fclose(to);
	return broken;
}

/* Everything is kept, and some of it only just. */
static int setup(void **state)
{
	(void)state;
	memset(said, 0, sizeof(said));
	for (unsigned m = 0; m < BH_VERIFY_COUNT; m++) {
		struct bh_cost_mode *mode = &report.modes[m];

		*mode = (struct bh_cost_mode){
			.what = (enum bh_verify)m,
			.retry = {{.first = 110, .hundred = 100}, {.first = 140, .hundred = 119}},
		};
		for (unsigned i = 0; i < BH_COST_SIZES; i++)
			mode->out[i] = report.in[i] = (struct bh_cost){
				.issue = 15,
				.replay = m == BH_VERIFY_EXACT ? 25.9 : 20,
				.total = bh_cost_sizes[i] == 4096 ? 47.9 : 40,
				.copy = 2,
				.copies = 19.9,
			};
	}
	return 0;
}

static unsigned index_of(uint32_t packets)
{
	unsigned i = 0;

	while (bh_cost_sizes[i] != packets)
		i++;
	return i;
}

static void what_is_kept_is_no_complaint(void **state)
{
	(void)state;
	assert_int_equal(judge(), 0);
	assert_string_equal(said, "");
}

static void small_batches_may_cost_more(void **state)
{
	(void)state;
	report.modes[BH_VERIFY_EXACT].out[index_of(16)].total = 1000;
	report.in[index_of(1)].total = 1000;
	report.modes[BH_VERIFY_EXACT].out[index_of(4)].replay = 1000;
	assert_int_equal(judge(), 0);
}

static void packet_of_a_larger_batch_that_costs_more(void **state)
{
	(void)state;
	report.modes[BH_VERIFY_EXACT].out[index_of(4096)].total = 48.2;
	assert_int_equal(judge(), 1);
	assert_non_null(strstr(said, "OUT: a packet of a batch of 4096 costs 48.2 ns"));
	setup(NULL);
	report.in[index_of(1024)].total = 48.2;
	assert_int_equal(judge(), 1);
	assert_non_null(strstr(said, "IN: a packet of a batch of 1024"));
}

static void packet_that_costs_too_many_copies(void **state)
{
	(void)state;
	report.modes[BH_VERIFY_EXACT].out[index_of(256)].copies = 21.1;
	assert_int_equal(judge(), 1);
	assert_non_null(strstr(said, "OUT: a packet of a batch of 256 costs 21.1 copies, more than 20"));
	report.in[index_of(64)].copies = 20.1;
	assert_int_equal(judge(), 2);
}

static void verification_that_costs_too_much(void **state)
{
	(void)state;
	report.modes[BH_VERIFY_EXACT].out[index_of(1024)].replay = 26.2;
	assert_int_equal(judge(), 1);
	assert_non_null(strstr(said, "replay of a batch of 1024 costs 31 % more verified than not"));
	setup(NULL);
	report.modes[BH_VERIFY_CHECKSUM].out[index_of(1024)].replay = 100; /* not the default */
	assert_int_equal(judge(), 0);
}

static void retry_that_depends_on_the_batch(void **state)
{
	(void)state;
	report.modes[BH_VERIFY_EXACT].retry[1].hundred = 121;
	assert_int_equal(judge(), 1);
	assert_non_null(strstr(said, "exact: a retry of a batch of 4096 costs 21 % more than of one of 64"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(what_is_kept_is_no_complaint, setup),
		cmocka_unit_test_setup(small_batches_may_cost_more, setup),
		cmocka_unit_test_setup(packet_of_a_larger_batch_that_costs_more, setup),
		cmocka_unit_test_setup(packet_that_costs_too_many_copies, setup),
		cmocka_unit_test_setup(verification_that_costs_too_much, setup),
		cmocka_unit_test_setup(retry_that_depends_on_the_batch, setup),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
