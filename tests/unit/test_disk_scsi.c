/* SCSI: command blocks in, plans, responses and sense out; no transport, no I/O. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <base/util.h>

#include "../../src/function/scsi.h"

#define BLOCKS 1000

static struct bh_scsi s;
static struct bh_scsi_plan plan;

static int fresh(void **state)
{
	(void)state;
	s = (struct bh_scsi){.blocks = BLOCKS, .block_size = 512, .removable = true, .serial = "0123456789AB"};
	bh_scsi_init(&s);
	return 0;
}

static void run(size_t length, const uint8_t *cdb)
{
	bh_scsi_command(&s, 0, cdb, length, &plan);
}

#define RUN(...) run(sizeof((const uint8_t[]){__VA_ARGS__}), (const uint8_t[]){__VA_ARGS__})

static uint32_t last_sense(void)
{
	return (uint32_t)s.sense.key << 16 | s.sense.code;
}

#define assert_good(what)                                  \
	do {                                               \
		assert_true(plan.good);                    \
		assert_int_equal(plan.action, BH_SCSI_##what); \
	} while (0)

#define assert_check(expected)                                \
	do {                                                  \
		assert_false(plan.good);                      \
		assert_int_equal(plan.action, BH_SCSI_NONE);  \
		assert_int_equal(plan.length, 0);             \
		assert_int_equal(last_sense(), expected);     \
	} while (0)

#define assert_response(expected)                                                 \
	do {                                                                      \
		assert_good(RESPONSE);                                            \
		assert_int_equal(plan.length, sizeof(expected) - 1);              \
		assert_memory_equal(s.response, expected, sizeof(expected) - 1);  \
	} while (0)

static void test_inquiry(void **state)
{
	(void)state;
	RUN(0x12, 0, 0, 0, 36, 0);
	assert_response("\0\x80\6\2\x1f\0\0\0BULKHEADDISK            0001");
	RUN(0x12, 0, 0, 0, 5, 0);
	assert_int_equal(plan.length, 5);
	RUN(0x12, 0, 0, 1, 0, 0); /* 256: two bytes of allocation length */
	assert_int_equal(plan.length, 36);
	RUN(0x12, 0, 0, 0, 0, 0);
	assert_good(NONE);
	RUN(0x12, 0, 1, 0, 36, 0);
	assert_check(0x52400);
	assert_int_equal(s.sense.field, 2);
	RUN(0x12, 2, 0, 0, 36, 0);
	assert_check(0x52400);
	s.removable = false;
	RUN(0x12, 0, 0, 0, 36, 0);
	assert_int_equal(s.response[1], 0);
}

static void test_vital_product_data(void **state)
{
	(void)state;
	RUN(0x12, 1, 0x00, 0, 255, 0);
	assert_response("\0\0\0\5\0\x80\x83\xb0\xb1");
	RUN(0x12, 1, 0x80, 0, 255, 0);
	assert_response("\0\x80\0\x0c" "0123456789AB");
	RUN(0x12, 1, 0x83, 0, 255, 0);
	assert_response("\0\x83\0\x28\2\1\0\x24" "BULKHEADDISK            0123456789AB");
	RUN(0x12, 1, 0xb0, 0, 255, 0);
	assert_int_equal(plan.length, 64);
	RUN(0x12, 1, 0xb1, 0, 255, 0);
	assert_int_equal(plan.length, 64);
	assert_int_equal(s.response[5], 1);
	RUN(0x12, 1, 0xb2, 0, 255, 0);
	assert_check(0x52400);
}

static void test_capacity(void **state)
{
	(void)state;
	RUN(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	assert_response("\0\0\3\xe7\0\0\2\0");
	RUN(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0);
	assert_response("\0\0\0\0\0\0\3\xe7\0\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
	RUN(0x9e, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0);
	assert_check(0x52400);
	RUN(0x23, 0, 0, 0, 0, 0, 0, 0, 252, 0);
	assert_response("\0\0\0\x08\0\0\3\xe8\2\0\2\0");

	/* more than READ CAPACITY(10) can tell; the last block of 2 TiB is the first it cannot */
	s.blocks = 0xffffffffu;
	RUN(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	assert_memory_equal(s.response, "\xff\xff\xff\xfe", 4);
	s.blocks = 0x300000000u;
	s.block_size = 4096;
	RUN(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	assert_memory_equal(s.response, "\xff\xff\xff\xff\0\0\x10\0", 8);
	RUN(0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0);
	assert_response("\0\0\0\2\xff\xff\xff\xff\0\0\x10\0");
	RUN(0x88, 0, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0);
	assert_good(READ);
	assert_int_equal(plan.offset, 0x2ffffffffu * 4096);
}

static void test_mode_sense(void **state)
{
	(void)state;
	RUN(0x1a, 0, 0x3f, 0, 192, 0);
	assert_response("\x37\0\x10\x08\0\0\3\xe8\0\0\2\0"
	                "\x08\x12\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
	                "\x0a\x0a\0\0\0\0\0\0\0\0\0\0"
	                "\x1c\x0a\x08\0\0\0\0\0\0\0\0\0");
	RUN(0x1a, 0x08, 0x08, 0, 192, 0); /* DBD */
	assert_response("\x17\0\x10\0\x08\x12\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
	RUN(0x1a, 0x08, 0x48, 0, 192, 0); /* what may be changed: nothing */
	assert_int_equal(s.response[4 + 2], 0);
	RUN(0x1a, 0, 0xff, 0, 192, 0); /* saved values */
	assert_check(0x53900);
	RUN(0x1a, 0, 0x3f, 1, 192, 0);
	assert_check(0x52400);
	RUN(0x1a, 0, 0x3f, 0xff, 192, 0);
	assert_good(RESPONSE);
	RUN(0x1a, 0, 0x01, 0, 192, 0);
	assert_check(0x52400);
	RUN(0x1a, 0, 0x1c, 0, 4, 0); /* cut, but telling its whole length */
	assert_response("\x17\0\x10\x08");

	RUN(0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 8, 0); /* EDK2 */
	assert_response("\0\x3a\0\x10\0\0\0\x08");
	RUN(0x5a, 0x10, 0x0a, 0, 0, 0, 0, 0, 255, 0); /* LLBAA */
	assert_response("\0\x22\0\x10\1\0\0\x10\0\0\0\0\0\0\3\xe8\0\0\0\0\0\0\2\0\x0a\x0a\0\0\0\0\0\0\0\0\0\0");

	s.readonly = true;
	RUN(0x1a, 0x08, 0x08, 0, 192, 0);
	assert_int_equal(s.response[2], 0x90);
	assert_int_equal(s.response[6], 0);
}

static void test_ranges(void **state)
{
	static const struct {
		uint8_t cdb[16];
		uint64_t lba, count;
		bool good;
	} rows[] = {
		{{0x08, 0, 0, 0, 1, 0}, 0, 1, true},
		{{0x08, 0xe0, 0, 5, 0, 0}, 5, 256, true}, /* bits 7:5 were a LUN once */
		{{0x0a, 0, 3, 0xe7, 1, 0}, 999, 1, true},
		{{0x0a, 0, 3, 0xe7, 2, 0}, 999, 2, false},
		{{0x28, 0, 0, 0, 0, 0, 0, 3, 0xe8, 0}, 0, 1000, true},
		{{0x28, 0, 0, 0, 0, 0, 0, 3, 0xe9, 0}, 0, 1001, false},
		{{0x28, 0, 0, 0, 3, 0xe8, 0, 0, 0, 0}, 1000, 0, false},
		{{0x28, 0, 0, 0, 3, 0xe7, 0, 0, 0, 0}, 999, 0, true},
		{{0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0}, 0xffffffff, 0xffff, false},
		{{0x2a, 0, 0, 0, 0, 7, 0, 0, 9, 0}, 7, 9, true},
		{{0xa8, 0, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0}, 1, 9, true},
		{{0xa8, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0}, 1, 0xffffffff, false},
		{{0xaa, 0, 0, 0, 0, 1, 0, 0, 3, 0xe7, 0, 0}, 1, 999, true},
		{{0x88, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0}, 2, 3, true},
		{{0x88, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0}, 1ull << 32, 1, false},
		{{0x88, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0}, UINT64_MAX, 1, false},
		{{0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0}, 2, 0xffffffff, false},
		{{0x2f, 0, 0, 0, 0, 2, 0, 0, 3, 0}, 2, 3, true},
		{{0x8f, 0, 0, 0, 0, 0, 0, 0, 3, 0xe7, 0, 0, 0, 2, 0, 0}, 999, 2, false},
	};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		run(16, rows[i].cdb);
		assert_int_equal(plan.good, rows[i].good);
		if (rows[i].good) {
			assert_int_equal(plan.offset, rows[i].lba * 512);
			assert_int_equal(plan.length, rows[i].count * 512);
			assert_int_equal(plan.action == BH_SCSI_NONE, rows[i].count == 0);
		} else {
			assert_check(0x52100);
		}
	}
}

static void test_write_options(void **state)
{
	(void)state;
	RUN(0x2a, 0x08, 0, 0, 0, 0, 0, 0, 1, 0);
	assert_good(WRITE);
	assert_true(plan.fua);
	RUN(0x2a, 0x10, 0, 0, 0, 0, 0, 0, 1, 0); /* DPO */
	assert_good(WRITE);
	assert_false(plan.fua);
	RUN(0x0a, 0x08, 0, 0, 1, 0); /* six bytes: part of the address */
	assert_check(0x52100);
	RUN(0x2a, 0x20, 0, 0, 0, 0, 0, 0, 1, 0); /* protection information */
	assert_check(0x52400);
	RUN(0x28, 0x20, 0, 0, 0, 0, 0, 0, 1, 0);
	assert_check(0x52400);
	RUN(0x2f, 0x02, 0, 0, 0, 0, 0, 0, 1, 0); /* BYTCHK */
	assert_check(0x52400);
	RUN(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	assert_good(FLUSH);
	RUN(0x91, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	assert_good(FLUSH);
	RUN(0x35, 0, 0, 0, 3, 0xe8, 0, 0, 1, 0);
	assert_check(0x52100);

	s.readonly = true;
	RUN(0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0);
	assert_check(0x72700);
	RUN(0x0a, 0, 0, 0, 1, 0);
	assert_check(0x72700);
	RUN(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	assert_good(NONE);
}

static void test_unknown(void **state)
{
	static const uint8_t refused[] = {0x01, 0x04, 0x15, 0x16, 0x2e, 0x41, 0x4d, 0x55, 0x85, 0xa1, 0xa3, 0xff};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(refused); i++) {
		const uint8_t cdb[16] = {refused[i]};

		run(16, cdb);
		assert_check(0x52000);
	}
	RUN(0x28, 0, 0, 0, 0, 0); /* ten bytes are needed */
	assert_check(0x52400);
	RUN(0x00);
	assert_check(0x52400);
}

static void test_sense(void **state)
{
	(void)state;
	RUN(0x03, 0, 0, 0, 18, 0);
	assert_response("\x70\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0\0\0\0");
	RUN(0x12, 0, 1, 0, 36, 0);
	RUN(0x03, 0, 0, 0, 252, 0);
	assert_response("\x70\0\5\0\0\0\0\x0a\0\0\0\0\x24\0\0\xc0\0\2");
	RUN(0x03, 0, 0, 0, 18, 0); /* told once */
	assert_int_equal(s.response[2], 0);
	RUN(0x28, 0, 0, 0, 3, 0xe8, 0, 0, 1, 0);
	RUN(0x03, 0, 0, 0, 14, 0);
	assert_response("\xf0\0\5\0\0\3\xe8\x0a\0\0\0\0\x21\0");
	RUN(0x12, 0, 1, 0, 36, 0);
	RUN(0x00, 0, 0, 0, 0, 0); /* the next command's outcome is what counts */
	RUN(0x03, 0, 0, 0, 18, 0);
	assert_int_equal(s.response[2], 0);
	RUN(0x03, 1, 0, 0, 18, 0);
	assert_check(0x52400);
}

static void test_host_errors(void **state)
{
	static const struct {
		uint8_t opcode;
		int error;
		uint32_t sense;
	} rows[] = {
		{0x28, -EIO, 0x31100},     {0x2a, -EIO, 0x30c00},  {0x2a, -ENOSPC, 0x72707},
		{0x2a, -EDQUOT, 0x72707},  {0x2a, -EROFS, 0x72700}, {0x28, -ENOMEM, 0x44400},
		{0x2f, -EIO, 0x31100},
	};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		const uint8_t cdb[10] = {rows[i].opcode, 0, 0, 0, 0, 10, 0, 0, 20, 0};

		run(10, cdb);
		assert_true(plan.good);
		assert_false(bh_scsi_done(&s, &plan, rows[i].error, 3 * 512));
		assert_int_equal(last_sense(), rows[i].sense);
		assert_int_equal(s.sense.block, 13);
	}
	RUN(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	assert_false(bh_scsi_done(&s, &plan, -EIO, 0));
	assert_int_equal(last_sense(), 0x30c00);
	assert_false(s.sense.has_block);
}

static void finish_good(void)
{
	assert_true(bh_scsi_done(&s, &plan, 0, 0));
}

static void test_eject(void **state)
{
	(void)state;
	RUN(0x1e, 0, 0, 0, 1, 0); /* prevent */
	assert_good(NONE);
	RUN(0x1b, 0, 0, 0, 2, 0); /* eject */
	assert_check(0x55302);
	RUN(0x1e, 0, 0, 0, 2, 0);
	assert_check(0x52400);
	RUN(0x1e, 0, 0, 0, 0, 0); /* allow */
	RUN(0x1b, 0, 0, 0, 0, 0); /* stop: flushed, and ready all the same */
	assert_good(FLUSH);
	finish_good();
	RUN(0x00, 0, 0, 0, 0, 0);
	assert_good(NONE);

	RUN(0x1b, 0, 0, 0, 2, 0);
	assert_good(FLUSH);
	assert_false(bh_scsi_done(&s, &plan, -EIO, 0)); /* what cannot be flushed stays in */
	RUN(0x00, 0, 0, 0, 0, 0);
	assert_good(NONE);
	RUN(0x1b, 0, 0, 0, 2, 0);
	finish_good();
	RUN(0x00, 0, 0, 0, 0, 0);
	assert_check(0x23a00);
	RUN(0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0);
	assert_check(0x23a00);
	RUN(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	assert_check(0x23a00);
	RUN(0x12, 0, 0, 0, 36, 0);
	assert_good(RESPONSE);
	RUN(0x03, 0, 0, 0, 18, 0);
	assert_int_equal(s.response[12], 0x3a);
	RUN(0x23, 0, 0, 0, 0, 0, 0, 0, 12, 0);
	assert_int_equal(s.response[8], 3);
	bh_scsi_reset(&s);
	RUN(0x00, 0, 0, 0, 0, 0);
	assert_check(0x23a00);

	RUN(0x1b, 0, 0, 0, 3, 0); /* load: told once that it may be another medium */
	assert_good(NONE);
	finish_good();
	RUN(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0);
	assert_good(RESPONSE);
	RUN(0x00, 0, 0, 0, 0, 0);
	assert_check(0x62800);
	RUN(0x00, 0, 0, 0, 0, 0);
	assert_good(NONE);
	RUN(0x1b, 0, 0, 0, 3, 0); /* it is in already */
	RUN(0x00, 0, 0, 0, 0, 0);
	assert_good(NONE);
}

static void test_luns(void **state)
{
	(void)state;
	RUN(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0);
	assert_response("\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0\0");
	RUN(0xa0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0);
	assert_response("\0\0\0\0\0\0\0\0");
	RUN(0xa0, 0, 3, 0, 0, 0, 0, 0, 0, 16, 0, 0);
	assert_check(0x52400);

	bh_scsi_command(&s, 1, (const uint8_t[]){0x12, 0, 0, 0, 36, 0}, 6, &plan);
	assert_int_equal(s.response[0], 0x7f);
	bh_scsi_command(&s, 1, (const uint8_t[]){0x00, 0, 0, 0, 0, 0}, 6, &plan);
	assert_check(0x52500);
	bh_scsi_command(&s, 1, (const uint8_t[]){0x03, 0, 0, 0, 18, 0}, 6, &plan);
	assert_int_equal(s.response[12], 0x25);
}

/* Any bytes at all: a plan that stays within the medium and the response. */
static void test_any_bytes(void **state)
{
	uint8_t cdb[16];

	(void)state;
	srand(1);
	for (int i = 0; i < 400000; i++) {
		uint8_t *exact; /* so that reading beyond its end is seen */
		size_t length = 1 + (size_t)(rand() % 16);

		for (size_t k = 0; k < sizeof(cdb); k++)
			cdb[k] = (uint8_t)(rand() % 3 ? rand() % 4 : rand());
		cdb[0] = (uint8_t)rand();
		exact = malloc(length);
		memcpy(exact, cdb, length);
		s.readonly = rand() % 8 == 0;
		bh_scsi_command(&s, (uint8_t)(rand() % 8 == 0), exact, length, &plan);
		free(exact);
		if (plan.action == BH_SCSI_RESPONSE)
			assert_true(plan.length && plan.length <= s.response_length);
		else if (plan.action != BH_SCSI_NONE)
			assert_true(plan.offset / 512 <= BLOCKS && plan.length / 512 <= BLOCKS - plan.offset / 512);
		assert_true(s.response_length <= sizeof(s.response));
		bh_scsi_done(&s, &plan, rand() % 4 ? 0 : -EIO, 0);
		assert_true(s.sense.key == 0 || s.sense.code);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_inquiry, fresh),
		cmocka_unit_test_setup(test_vital_product_data, fresh),
		cmocka_unit_test_setup(test_capacity, fresh),
		cmocka_unit_test_setup(test_mode_sense, fresh),
		cmocka_unit_test_setup(test_ranges, fresh),
		cmocka_unit_test_setup(test_write_options, fresh),
		cmocka_unit_test_setup(test_unknown, fresh),
		cmocka_unit_test_setup(test_sense, fresh),
		cmocka_unit_test_setup(test_host_errors, fresh),
		cmocka_unit_test_setup(test_eject, fresh),
		cmocka_unit_test_setup(test_luns, fresh),
		cmocka_unit_test_setup(test_any_bytes, fresh),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
