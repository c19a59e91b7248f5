/* Configuration space and interrupts of a PCI function, and how BAR accesses are cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <base/util.h>
#include <guest/pci.h>

#define COMMAND 0x04u
#define STATUS  0x06u
#define BAR0    0x10u
#define BAR4    0x20u
#define MASTER  0x0004u
#define INTX_OFF 0x0400u

struct fixture {
	struct bh_pci pci;
	struct bh_guest guest;
	bool line;
	unsigned rises, falls, messages, resets, dma_changes;
	char accesses[256]; /* as text: "r4@0 w2@4=1234 " */
};

static struct fixture *of_guest(struct bh_guest *g)
{
	return bh_container_of(g, struct fixture, guest);
}

static struct fixture *of_pci(struct bh_pci *p)
{
	return bh_container_of(p, struct fixture, pci);
}

static void interrupt_level(struct bh_guest *g, bool raised)
{
	struct fixture *f = of_guest(g);

	assert_int_not_equal(f->line, raised); /* changes only */
	f->line = raised;
	if (raised)
		f->rises++;
	else
		f->falls++;
}

static void interrupt_message(struct bh_guest *g, unsigned vector)
{
	assert_int_equal(vector, 0);
	of_guest(g)->messages++;
}

static uint64_t now_us(struct bh_guest *g)
{
	(void)g;
	return 0;
}

static void run_at(struct bh_guest *g, uint64_t at_us)
{
	(void)g;
	(void)at_us;
}

static const struct bh_guest_ops guest_ops = {
	.interrupt_level = interrupt_level,
	.interrupt_message = interrupt_message,
	.now_us = now_us,
	.run_at = run_at,
};

static void note(struct fixture *f, const char *text)
{
	strncat(f->accesses, text, sizeof(f->accesses) - strlen(f->accesses) - 1);
}

static uint32_t bar_read(struct bh_pci *p, unsigned bar, uint32_t offset, unsigned length)
{
	char text[32];

	(void)bar;
	snprintf(text, sizeof(text), "r%u@%x ", length, offset);
	note(of_pci(p), text);
	return 0x03020100u + 0x01010101u * offset;
}

static void bar_write(struct bh_pci *p, unsigned bar, uint32_t offset, unsigned length, uint32_t value)
{
	char text[32];

	(void)bar;
	snprintf(text, sizeof(text), "w%u@%x=%x ", length, offset, value);
	note(of_pci(p), text);
}

static void reset(struct bh_pci *p)
{
	of_pci(p)->resets++;
}

static void dma_changed(struct bh_pci *p)
{
	of_pci(p)->dma_changes++;
}

static const struct bh_pci_ops pci_ops = {
	.bar_read = bar_read,
	.bar_write = bar_write,
	.reset = reset,
	.dma_changed = dma_changed,
};

static const struct bh_pci_identity identity = {
	.vendor = 0x8086,
	.device = 0x7112,
	.subsystem_vendor = 0x1af4,
	.subsystem = 0x1100,
	.class_code = 0x0c0300,
	.revision = 1,
	.interrupt_pin = 1,
	.msi = true,
	.bars[0] = {4096, false},
	.bars[4] = {32, true},
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->guest.ops = &guest_ops;
	bh_memory_init(&f->guest.memory);
	bh_pci_init(&f->pci, &pci_ops, &identity, &f->guest);
	bh_pci_define(&f->pci, 0x60, 1, 0x10, 0, 0);
	bh_pci_define(&f->pci, 0xc0, 2, 0x2f00, 0x00ff, 0x8f00);
	bh_pci_reset(&f->pci);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static uint32_t get(struct fixture *f, unsigned offset, unsigned length)
{
	uint8_t b[4] = {0};

	bh_pci_config_read(&f->pci, offset, b, length);
	return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static void put(struct fixture *f, unsigned offset, unsigned length, uint32_t value)
{
	const uint8_t b[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24)};

	bh_pci_config_write(&f->pci, offset, b, length);
}

/* Where the MSI capability is, found as a guest finds it. */
static unsigned msi(struct fixture *f)
{
	unsigned offset = get(f, 0x34, 1);

	assert_int_equal(get(f, STATUS, 2) & 0x10, 0x10);
	assert_int_equal(get(f, offset, 1), 5);
	assert_int_equal(get(f, offset + 1, 1), 0);
	return offset;
}

static void header_is_what_identity_says(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(get(f, 0x00, 4), 0x71128086);
	assert_int_equal(get(f, 0x08, 4), 0x0c030001);
	assert_int_equal(get(f, 0x0e, 1), 0x00);
	assert_int_equal(get(f, 0x2c, 4), 0x11001af4);
	assert_int_equal(get(f, 0x3d, 1), 1);
	assert_int_equal(get(f, 0x60, 1), 0x10);
	assert_int_equal(f->resets, 1);
}

static void bars_can_be_sized(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 6; i++)
		put(f, BAR0 + 4 * i, 4, 0xffffffff);
	assert_int_equal(get(f, BAR0, 4), 0xfffff000);
	assert_int_equal(get(f, BAR4, 4), 0xffffffe1);
	assert_int_equal(get(f, 0x14, 4), 0);
	assert_int_equal(get(f, 0x24, 4), 0);
	put(f, 0x30, 4, 0xfffff800);
	assert_int_equal(get(f, 0x30, 4), 0); /* no ROM */

	put(f, BAR4, 4, 0xc047);
	assert_int_equal(get(f, BAR4, 4), 0xc041);
	put(f, BAR4 + 1, 1, 0xd0); /* byte by byte as well */
	assert_int_equal(get(f, BAR4, 4), 0xd041);
}

static void masks_hold_for_writes_of_any_length(void **state)
{
	struct fixture *f = *state;
	uint8_t before[256], ones[256], after[256];

	memset(ones, 0xff, sizeof(ones));
	bh_pci_config_read(&f->pci, 0, before, sizeof(before));
	bh_pci_config_write(&f->pci, 0, ones, sizeof(ones));
	bh_pci_config_read(&f->pci, 0, after, sizeof(after));
	for (unsigned i = 0; i < sizeof(after); i++)
		assert_int_equal(after[i], (before[i] | f->pci.writable[i]) & ~f->pci.clear[i]);
	assert_int_equal(get(f, 0x00, 4), 0x71128086);
	assert_int_equal(get(f, COMMAND, 2), 0x0547);

	bh_pci_reset(&f->pci);
	bh_pci_config_read(&f->pci, 0, after, sizeof(after));
	assert_memory_equal(before, after, sizeof(after));
}

static void defined_registers(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(get(f, 0xc0, 2), 0x2f00);
	put(f, 0xc0, 2, 0x0155); /* clears bit 8, sets what may be set */
	assert_int_equal(get(f, 0xc0, 2), 0x2e55);
	put(f, 0xc0, 1, 0xaa);
	assert_int_equal(get(f, 0xc0, 2), 0x2eaa);
	put(f, 0x60, 1, 0xff);
	assert_int_equal(get(f, 0x60, 1), 0x10);
}

static void bus_master_is_told(void **state)
{
	struct fixture *f = *state;

	assert_false(bh_pci_dma_allowed(&f->pci));
	put(f, COMMAND, 2, MASTER);
	assert_true(bh_pci_dma_allowed(&f->pci));
	assert_int_equal(f->dma_changes, 1);
	put(f, COMMAND, 2, MASTER | INTX_OFF);
	assert_int_equal(f->dma_changes, 1);
	put(f, COMMAND, 1, 0);
	assert_int_equal(f->dma_changes, 2);
	bh_pci_memory_changed(&f->pci);
	assert_int_equal(f->dma_changes, 3);
}

static void intx_follows_the_level(void **state)
{
	struct fixture *f = *state;

	bh_pci_assert(&f->pci, true);
	bh_pci_assert(&f->pci, true);
	assert_true(f->line);
	assert_int_equal(get(f, STATUS, 2) & 8, 8);
	bh_pci_reassert(&f->pci); /* a level needs no second message */
	assert_int_equal(f->rises, 1);

	put(f, COMMAND, 2, INTX_OFF);
	assert_false(f->line);
	assert_int_equal(get(f, STATUS, 2) & 8, 8); /* the bit ignores Interrupt Disable */
	put(f, STATUS, 2, 0xffff);
	assert_int_equal(get(f, STATUS, 2) & 8, 8);
	put(f, COMMAND, 2, 0);
	assert_true(f->line);

	bh_pci_assert(&f->pci, false);
	assert_false(f->line);
	assert_int_equal(get(f, STATUS, 2) & 8, 0);
	assert_int_equal(f->messages, 0);
}

static void reset_lowers_the_line(void **state)
{
	struct fixture *f = *state;

	bh_pci_assert(&f->pci, true);
	bh_pci_reset(&f->pci);
	assert_false(f->line);
	assert_int_equal(get(f, STATUS, 2) & 8, 0);
	assert_int_equal(f->resets, 2);
}

static void msi_capability_layout(void **state)
{
	struct fixture *f = *state;
	unsigned o = msi(f);

	assert_int_equal(get(f, o + 2, 2), 0x0080); /* 64-bit, one vector, no masking */
	put(f, o + 2, 2, 0xffff);
	assert_int_equal(get(f, o + 2, 2), 0x0081);
	put(f, o + 4, 4, 0xfee00003);
	assert_int_equal(get(f, o + 4, 4), 0xfee00000);
	put(f, o + 8, 4, 0xffffffff);
	assert_int_equal(get(f, o + 8, 4), 0xffffffff);
	put(f, o + 12, 4, 0xffffffff);
	assert_int_equal(get(f, o + 12, 4), 0x0000ffff);
	assert_true(o + 14 <= 0xc0 && o > 0x60);
}

static void msi_sends_at_each_rise(void **state)
{
	struct fixture *f = *state;
	unsigned o = msi(f);

	put(f, COMMAND, 2, MASTER);
	put(f, o + 2, 2, 1);
	bh_pci_assert(&f->pci, true);
	bh_pci_assert(&f->pci, true);
	assert_int_equal(f->messages, 1);
	bh_pci_reassert(&f->pci);
	assert_int_equal(f->messages, 2);
	bh_pci_assert(&f->pci, false);
	bh_pci_reassert(&f->pci); /* nothing is wanted */
	assert_int_equal(f->messages, 2);
	put(f, COMMAND, 2, MASTER | INTX_OFF); /* is about INTx alone */
	bh_pci_assert(&f->pci, true);
	assert_int_equal(f->messages, 3);
	assert_int_equal(f->rises, 0);
}

static void switching_while_asserted(void **state)
{
	struct fixture *f = *state;
	unsigned o = msi(f);

	put(f, COMMAND, 2, MASTER);
	bh_pci_assert(&f->pci, true);
	assert_true(f->line);
	put(f, o + 2, 2, 1);
	assert_false(f->line);
	assert_int_equal(f->messages, 1);
	put(f, o + 2, 2, 1); /* was on already */
	assert_int_equal(f->messages, 1);
	put(f, o + 2, 2, 0);
	assert_true(f->line);
	assert_int_equal(f->messages, 1);
}

static void msi_waits_for_bus_master(void **state)
{
	struct fixture *f = *state;
	unsigned o = msi(f);

	put(f, o + 2, 2, 1);
	bh_pci_assert(&f->pci, true);
	assert_int_equal(f->messages, 0);
	put(f, COMMAND, 2, MASTER);
	assert_int_equal(f->messages, 1);
	put(f, COMMAND, 2, 0);
	put(f, COMMAND, 2, MASTER);
	assert_int_equal(f->messages, 1);

	put(f, COMMAND, 2, 0);
	bh_pci_reassert(&f->pci);
	bh_pci_assert(&f->pci, false); /* no longer wanted */
	put(f, COMMAND, 2, MASTER);
	assert_int_equal(f->messages, 1);
}

static void bar_accesses_are_cut(void **state)
{
	static const struct { uint32_t offset; unsigned length; const char *reads; } cases[] = {
		{0, 1, "r1@0 "}, {0, 2, "r2@0 "}, {0, 4, "r4@0 "}, {0, 8, "r4@0 r4@4 "},
		{1, 2, "r1@1 r1@2 "}, {1, 4, "r1@1 r2@2 r1@4 "}, {2, 4, "r2@2 r2@4 "}, {3, 7, "r1@3 r4@4 r2@8 "},
		{0, 3, "r2@0 r1@2 "}, {31, 1, "r1@1f "}, {32, 0, ""},
	};
	struct fixture *f = *state;
	uint8_t to[8];

	for (size_t i = 0; i < BH_COUNT(cases); i++) {
		f->accesses[0] = 0;
		bh_pci_bar_read(&f->pci, 4, cases[i].offset, to, cases[i].length);
		assert_string_equal(f->accesses, cases[i].reads);
		for (unsigned k = 0; k < cases[i].length; k++)
			assert_int_equal(to[k], cases[i].offset + k);
	}
	f->accesses[0] = 0;
	bh_pci_bar_write(&f->pci, 4, 3, "\x11\x22\x33\x44\x55\x66\x77", 7);
	assert_string_equal(f->accesses, "w1@3=11 w4@4=55443322 w2@8=7766 ");
}

static void without_msi_there_is_no_capability(void **state)
{
	static const struct bh_pci_identity plain = {.vendor = 1, .interrupt_pin = 0};
	struct fixture *f = *state;

	bh_pci_init(&f->pci, &pci_ops, &plain, &f->guest);
	bh_pci_reset(&f->pci);
	assert_int_equal(get(f, STATUS, 2) & 0x10, 0);
	assert_int_equal(get(f, 0x34, 1), 0);
	put(f, COMMAND, 2, 0xffff);
	assert_int_equal(get(f, COMMAND, 2), 0x0144); /* no BARs, no INTx */
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(header_is_what_identity_says),
		T(bars_can_be_sized),
		T(masks_hold_for_writes_of_any_length),
		T(defined_registers),
		T(bus_master_is_told),
		T(intx_follows_the_level),
		T(reset_lowers_the_line),
		T(msi_capability_layout),
		T(msi_sends_at_each_rise),
		T(switching_while_asserted),
		T(msi_waits_for_bus_master),
		T(bar_accesses_are_cut),
		T(without_msi_there_is_no_capability),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("pci", tests, NULL, NULL);
}
