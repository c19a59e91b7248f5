/* A guest in our own process: memory, a clock the test moves, interrupts that are counted. */
#ifndef TESTS_FAKE_GUEST_H
#define TESTS_FAKE_GUEST_H

#include <string.h>

#include <base/bytes.h>
#include <base/util.h>
#include <guest/pci.h>

#define FAKE_MEMORY_SIZE 0x100000u

struct fake_guest {
	struct bh_guest guest;
	uint8_t memory[FAKE_MEMORY_SIZE] __attribute__((aligned(4096)));
	uint64_t now_us, run_at_us;
	bool line;
	unsigned rises, messages;
};

static inline struct fake_guest *fake_guest_of(struct bh_guest *g)
{
	return bh_container_of(g, struct fake_guest, guest);
}

static inline void fake_guest_level(struct bh_guest *g, bool raised)
{
	fake_guest_of(g)->line = raised;
	fake_guest_of(g)->rises += raised;
}

static inline void fake_guest_message(struct bh_guest *g, unsigned vector)
{
	(void)vector;
	fake_guest_of(g)->messages++;
}

static inline uint64_t fake_guest_now(struct bh_guest *g)
{
	return fake_guest_of(g)->now_us;
}

static inline void fake_guest_run_at(struct bh_guest *g, uint64_t at_us)
{
	fake_guest_of(g)->run_at_us = at_us;
}

static const struct bh_guest_ops fake_guest_ops = {
	.interrupt_level = fake_guest_level,
	.interrupt_message = fake_guest_message,
	.now_us = fake_guest_now,
	.run_at = fake_guest_run_at,
};

static inline void fake_guest_init(struct fake_guest *f)
{
	memset(f, 0, sizeof(*f));
	f->guest.ops = &fake_guest_ops;
	f->now_us = 1000000;
	f->run_at_us = UINT64_MAX;
	bh_memory_init(&f->guest.memory);
	bh_memory_add(&f->guest.memory, 0, FAKE_MEMORY_SIZE, f->memory, BH_MEMORY_READ | BH_MEMORY_WRITE);
}

static inline void fake_guest_finish(struct fake_guest *f)
{
	bh_memory_finish(&f->guest.memory);
}

static inline void fake_put32(struct fake_guest *f, uint32_t address, uint32_t value)
{
	bh_le32 raw = bh_put_le32(value);

	memcpy(f->memory + address, &raw, sizeof(raw));
}

static inline uint32_t fake_get32(const struct fake_guest *f, uint32_t address)
{
	bh_le32 raw;

	memcpy(&raw, f->memory + address, sizeof(raw));
	return bh_get_le32(raw);
}

#endif
