/* Guest-physical memory: what is reachable, what is not, and what an access across regions does. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <base/util.h>
#include <guest/memory.h>

/* Hides a length that is too long from the compiler, which would rightly warn. */
static size_t opaque(size_t length)
{
	volatile size_t hidden = length;

	return hidden;
}

#define RW (BH_MEMORY_READ | BH_MEMORY_WRITE)

/*
 * 0x1000 rw, 0x2000 rw (adjacent), 0x3000 read-only (adjacent), 0x4000 out of reach,
 * a gap, 0x8000 rw.
 */
struct fixture {
	struct bh_memory m;
	_Alignas(8) uint8_t host[4][0x1000];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	bh_memory_init(&f->m);
	for (unsigned i = 0; i < 4; i++)
		memset(f->host[i], (int)(0x10 * (i + 1)), sizeof(f->host[i]));
	assert_int_equal(bh_memory_add(&f->m, 0x8000, 0x1000, f->host[3], RW), 0);
	assert_int_equal(bh_memory_add(&f->m, 0x1000, 0x1000, f->host[0], RW), 0);
	assert_int_equal(bh_memory_add(&f->m, 0x3000, 0x1000, f->host[2], BH_MEMORY_READ), 0);
	assert_int_equal(bh_memory_add(&f->m, 0x2000, 0x1000, f->host[1], RW), 0);
	assert_int_equal(bh_memory_add(&f->m, 0x4000, 0x1000, NULL, RW), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	bh_memory_finish(&f->m);
	free(f);
	return 0;
}

static void access_in_one_region(void **state)
{
	struct fixture *f = *state;
	uint8_t to[16];

	assert_true(bh_memory_write(&f->m, 0x1ff0, "0123456789abcdef", 16));
	assert_true(bh_memory_read(&f->m, 0x1ff0, to, 16));
	assert_memory_equal(to, "0123456789abcdef", 16);
	assert_memory_equal(f->host[0] + 0xff0, "0123456789abcdef", 16);
	assert_int_equal(f->host[1][0], 0x20);
}

static void read_across_regions(void **state)
{
	struct fixture *f = *state;
	static uint8_t to[0x3000];

	assert_true(bh_memory_read(&f->m, 0x1fff, to, 2));
	assert_int_equal(to[0], 0x10);
	assert_int_equal(to[1], 0x20);
	assert_true(bh_memory_read(&f->m, 0x1000, to, sizeof(to)));
	assert_memory_equal(to, f->host[0], sizeof(to));
}

static void write_across_regions_is_all_or_nothing(void **state)
{
	struct fixture *f = *state;
	static const uint8_t from[0x1002];

	assert_true(bh_memory_write(&f->m, 0x1fff, from, 2));
	assert_int_equal(f->host[0][0xfff], 0);
	assert_int_equal(f->host[1][0], 0);
	/* 0x3000 is read-only */
	assert_false(bh_memory_write(&f->m, 0x1ffe, from, opaque(0x1003)));
	assert_int_equal(f->host[0][0xffe], 0x10);
	assert_int_equal(f->host[1][1], 0x20);
	assert_int_equal(f->host[2][0], 0x30);
}

static void unreachable_fails_and_touches_nothing(void **state)
{
	static const struct { uint64_t address; size_t length; } bad[] = {
		{0, 1}, {0xfff, 2}, {0x3fff, 2}, {0x4000, 1}, {0x5000, 4}, {0x7fff, 2}, {0x8fff, 2}, {0x9000, 1},
		{UINT64_MAX, 1}, {UINT64_MAX, 2}, {UINT64_MAX - 3, 16}, {0x1000, SIZE_MAX}, {0x8000, SIZE_MAX},
	};
	struct fixture *f = *state;
	uint8_t to[16];

	for (size_t i = 0; i < BH_COUNT(bad); i++) {
		memset(to, 0xaa, sizeof(to));
		assert_false(bh_memory_read(&f->m, bad[i].address, to, opaque(bad[i].length)));
		assert_int_equal(to[0], 0xaa);
		assert_false(bh_memory_write(&f->m, bad[i].address, to, opaque(bad[i].length)));
	}
	assert_int_equal(f->host[0][0], 0x10);
	assert_int_equal(f->host[3][0xfff], 0x40);
}

static void read_only_and_write_only(void **state)
{
	struct fixture *f = *state;
	uint32_t word = 0x30303030;
	bool done = false;
	uint8_t b = 0;

	assert_true(bh_memory_read(&f->m, 0x3000, &b, 1));
	assert_false(bh_memory_write(&f->m, 0x3000, &b, opaque(1)));
	assert_true(bh_memory_load32(&f->m, 0x3000, &word));
	assert_false(bh_memory_exchange32(&f->m, 0x3000, &word, 1, &done));
	assert_false(done);

	assert_int_equal(bh_memory_remove(&f->m, 0x8000, 0x1000, NULL), 0);
	assert_int_equal(bh_memory_add(&f->m, 0x8000, 0x1000, f->host[3], BH_MEMORY_WRITE), 0);
	assert_false(bh_memory_read(&f->m, 0x8000, &b, opaque(1)));
	assert_true(bh_memory_write(&f->m, 0x8000, &b, 1));
}

static void word_access(void **state)
{
	struct fixture *f = *state;
	uint32_t word = 0, expected = 0x11111111;
	bool done = true;

	memcpy(f->host[0], "\x78\x56\x34\x12", 4);
	assert_true(bh_memory_load32(&f->m, 0x1000, &word));
	assert_int_equal(word, 0x12345678);
	assert_true(bh_memory_exchange32(&f->m, 0x1000, &expected, 0xcafe0001, &done));
	assert_false(done);
	assert_int_equal(expected, 0x12345678);
	assert_true(bh_memory_exchange32(&f->m, 0x1000, &expected, 0xcafe0001, &done));
	assert_true(done);
	assert_memory_equal(f->host[0], "\x01\x00\xfe\xca", 4);

	assert_false(bh_memory_load32(&f->m, 0x1001, &word));
	assert_false(bh_memory_load32(&f->m, 0x1ffe, &word));
	assert_false(bh_memory_load32(&f->m, 0x4000, &word));
	assert_false(bh_memory_load32(&f->m, 0, &word));
	assert_true(bh_memory_load32(&f->m, 0x1ffc, &word));
}

static void add_refuses(void **state)
{
	static const struct { uint64_t base, size; unsigned flags; int result; } cases[] = {
		{0x10000, 0, RW, -EINVAL},
		{0x10000, 0x1000, 8, -EINVAL},
		{UINT64_MAX - 0xffe, 0x1000, RW, -EINVAL},
		{1, UINT64_MAX, RW, -EEXIST},
		{2, UINT64_MAX, RW, -EINVAL},
		{0x1000, 0x1000, RW, -EEXIST}, /* the same again */
		{0x0fff, 2, RW, -EEXIST},
		{0x1fff, 1, RW, -EEXIST},
		{0x4800, 0x100, RW, -EEXIST},
		{0x7000, 0x3000, RW, -EEXIST}, /* around another */
		{0, 0x1000, RW, 0},
		{UINT64_MAX - 0xfff, 0x1000, RW, 0}, /* the very end */
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < BH_COUNT(cases); i++)
		assert_int_equal(bh_memory_add(&f->m, cases[i].base, cases[i].size, NULL, cases[i].flags),
		                 cases[i].result);
	assert_int_equal(f->m.count, 7);
}

static void end_of_the_address_space(void **state)
{
	struct fixture *f = *state;
	uint8_t to[4] = {0};

	assert_int_equal(bh_memory_add(&f->m, 0, 0x1000, f->host[3], RW), 0);
	assert_int_equal(bh_memory_remove(&f->m, 0x8000, 0x1000, NULL), 0);
	assert_int_equal(bh_memory_add(&f->m, UINT64_MAX - 0xfff, 0x1000, f->host[3], RW), 0);
	assert_true(bh_memory_read(&f->m, UINT64_MAX - 3, to, 4));
	assert_int_equal(to[3], 0x40);
	/* does not go round to 0 */
	assert_false(bh_memory_read(&f->m, UINT64_MAX - 3, to, opaque(5)));
}

static void remove_is_exact(void **state)
{
	struct fixture *f = *state;
	struct bh_region gone = {0};
	uint64_t generation = f->m.generation;
	uint8_t b;

	assert_int_equal(bh_memory_remove(&f->m, 0x1000, 0x2000, &gone), -ENOENT);
	assert_int_equal(bh_memory_remove(&f->m, 0x1001, 0xfff, &gone), -ENOENT);
	assert_int_equal(bh_memory_remove(&f->m, 0, 0x1000, &gone), -ENOENT);
	assert_int_equal(f->m.generation, generation);
	assert_null(gone.host);

	assert_true(bh_memory_read(&f->m, 0x2000, &b, 1)); /* the guess points at it */
	assert_int_equal(bh_memory_remove(&f->m, 0x2000, 0x1000, &gone), 0);
	assert_ptr_equal(gone.host, f->host[1]);
	assert_int_not_equal(f->m.generation, generation);
	assert_false(bh_memory_read(&f->m, 0x2000, &b, opaque(1)));
	assert_true(bh_memory_read(&f->m, 0x1000, &b, 1));
	assert_true(bh_memory_read(&f->m, 0x3000, &b, 1));
	assert_false(bh_memory_read(&f->m, 0x1fff, &b, opaque(2)));
}

static void many_regions(void **state)
{
	struct bh_memory m;
	uint8_t host[16] = "many regions...";
	unsigned added = 0;
	uint8_t b;

	(void)state;
	bh_memory_init(&m);
	/* Every other page, in an order that inserts everywhere. */
	for (unsigned i = 0; i < BH_MEMORY_MAX_REGIONS; i++) {
		uint64_t base = (uint64_t)(i * 1597u % BH_MEMORY_MAX_REGIONS) * 0x2000;

		added += bh_memory_add(&m, base, 16, host, BH_MEMORY_READ) == 0;
	}
	assert_int_equal(added, BH_MEMORY_MAX_REGIONS);
	assert_int_equal(bh_memory_add(&m, UINT64_C(1) << 40, 16, host, BH_MEMORY_READ), -ENOSPC);

	for (unsigned i = 0; i < BH_MEMORY_MAX_REGIONS; i++) {
		assert_true(bh_memory_read(&m, i * UINT64_C(0x2000) + 15, &b, 1));
		assert_false(bh_memory_read(&m, i * UINT64_C(0x2000) + 16, &b, opaque(1)));
		assert_true(!i || m.regions[i - 1].base < m.regions[i].base);
	}
	for (unsigned i = 0; i < BH_MEMORY_MAX_REGIONS; i++)
		assert_int_equal(bh_memory_remove(&m, i * UINT64_C(0x2000), 16, NULL), 0);
	assert_int_equal(m.count, 0);
	assert_false(bh_memory_read(&m, 0, &b, opaque(1)));
	bh_memory_finish(&m);
}

static void empty_memory(void **state)
{
	struct bh_memory m;
	uint8_t b = 0;
	uint32_t w;

	(void)state;
	bh_memory_init(&m);
	assert_false(bh_memory_read(&m, 0, &b, opaque(1)));
	assert_false(bh_memory_write(&m, 0, &b, opaque(1)));
	assert_false(bh_memory_load32(&m, 0, &w));
	assert_int_equal(bh_memory_remove(&m, 0, 1, NULL), -ENOENT);
	bh_memory_finish(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(access_in_one_region, setup, teardown),
		cmocka_unit_test_setup_teardown(read_across_regions, setup, teardown),
		cmocka_unit_test_setup_teardown(write_across_regions_is_all_or_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(unreachable_fails_and_touches_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(read_only_and_write_only, setup, teardown),
		cmocka_unit_test_setup_teardown(word_access, setup, teardown),
		cmocka_unit_test_setup_teardown(add_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(end_of_the_address_space, setup, teardown),
		cmocka_unit_test_setup_teardown(remove_is_exact, setup, teardown),
		cmocka_unit_test(many_regions),
		cmocka_unit_test(empty_memory),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
