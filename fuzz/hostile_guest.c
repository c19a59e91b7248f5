/* See hostile_guest.h. What is unmapped, and what lies between regions, is poison to ASan. */
#include "hostile_guest.h"

#include <string.h>

#include <sanitizer/asan_interface.h>

#include <base/bytes.h>
#include <base/util.h>

#define GAP 64u

struct hostile_guest hostile_guest;

static struct {
	uint8_t bytes[REGION_SIZE];
	uint8_t gap[GAP];
} backing[REGIONS] __attribute__((aligned(4096)));

/* --- memory ------------------------------------------------------------------------------------ */

static uint64_t base_of(unsigned region)
{
	return region < LOW_REGIONS ? region * REGION_SIZE : HIGH_MEMORY + (uint64_t)(region - LOW_REGIONS) * REGION_SIZE;
}

/* Where length bytes lie; NULL: not in one region that is mapped as a whole. */
static uint8_t *host_of(uint64_t address, unsigned length)
{
	for (unsigned i = 0; i < REGIONS; i++) {
		const struct bh_region *r = &hostile_guest.mapped[i];

		if (r->host && address >= r->base && r->size >= length && address - r->base <= r->size - length)
			return r->host + (address - r->base);
	}
	return NULL;
}

void guest_put32(uint64_t address, uint32_t value)
{
	bh_le32 raw = bh_put_le32(value);
	uint8_t *host = host_of(address, sizeof(raw));

	if (host)
		memcpy(host, &raw, sizeof(raw));
}

uint32_t guest_get32(uint64_t address)
{
	bh_le32 raw = {{0}};
	const uint8_t *host = host_of(address, sizeof(raw));

	if (host)
		memcpy(&raw, host, sizeof(raw));
	return bh_get_le32(raw);
}

void guest_put8(uint64_t address, uint8_t value)
{
	uint8_t *host = host_of(address, 1);

	if (host)
		*host = value;
}

#define HOW_FLAGS      (BH_MEMORY_READ | BH_MEMORY_WRITE)
#define HOW_NOWHERE    0x04u /* out of our reach */
#define HOW_MISALIGNED 0x08u /* a word there is no word here */
#define HOW_LATE       0x10u /* begins late: a hole before it */
#define HOW_EARLY      0x20u /* ends early, in the middle of a word */

void guest_map(unsigned region, uint8_t how)
{
	struct bh_region *r = &hostile_guest.mapped[region];
	uint32_t skip = how & HOW_LATE ? 8 : 0, shift = how & HOW_MISALIGNED ? 2 : 0;
	uint32_t size = REGION_SIZE - skip - shift - (how & HOW_EARLY ? 6 : 0);

	if (r->size)
		return;
	*r = (struct bh_region){.base = base_of(region) + skip, .size = size, .flags = how & HOW_FLAGS};
	if (!(how & HOW_NOWHERE))
		r->host = backing[region].bytes + skip + shift;
	if (r->host)
		ASAN_UNPOISON_MEMORY_REGION(r->host, size);
	if (bh_memory_add(&hostile_guest.guest.memory, r->base, r->size, r->host, r->flags) < 0)
		guest_unmap(region);
}

void guest_unmap(unsigned region)
{
	struct bh_region *r = &hostile_guest.mapped[region];

	if (r->size)
		bh_memory_remove(&hostile_guest.guest.memory, r->base, r->size, NULL);
	*r = (struct bh_region){0};
	ASAN_POISON_MEMORY_REGION(backing[region].bytes, REGION_SIZE);
}

/* --- what happens behind the controller's back ------------------------------------------------- */

void guest_race(const struct race *race)
{
	for (unsigned i = 0; i < RACES; i++)
		if (!hostile_guest.races[i].left) {
			hostile_guest.races[i] = *race;
			hostile_guest.racing++;
			return;
		}
}

void guest_race_point(void)
{
	for (unsigned i = 0; hostile_guest.racing && i < RACES; i++) {
		struct race *r = &hostile_guest.races[i];

		if (!r->left || r->countdown-- > 0)
			continue;
		hostile_guest.racing -= !--r->left;
		r->countdown = r->period;
		hostile_guest.raced++;
		guest_put32(r->address, guest_get32(r->address) ^ r->bits);
	}
}

/* See hook.h. */
void hostile_guest_acts(void)
{
	hostile_guest.accesses++;
	guest_race_point();
}

/* --- the guest seam ---------------------------------------------------------------------------- */

static void interrupt_level(struct bh_guest *g, bool raised)
{
	(void)g;
	hostile_guest.line = raised;
}

static void interrupt_message(struct bh_guest *g, unsigned vector)
{
	(void)g;
	(void)vector;
	hostile_guest.messages++;
}

static uint64_t now_us(struct bh_guest *g)
{
	(void)g;
	return hostile_guest.now_us;
}

static void run_at(struct bh_guest *g, uint64_t at_us)
{
	(void)g;
	hostile_guest.run_at_us = at_us;
}

static const struct bh_guest_ops ops = {
	.interrupt_level = interrupt_level,
	.interrupt_message = interrupt_message,
	.now_us = now_us,
	.run_at = run_at,
};

/* A schedule without anything in it, rather than one that begins at address zero. */
static void clear_schedule(void)
{
	static bh_le32 end = {{1}};

	for (uint32_t at = FRAME_LIST; at < QH(0); at += 4)
		memcpy(backing[0].bytes + at, &end, sizeof(end));
	for (unsigned i = 0; i < QH_COUNT; i++) {
		memcpy(backing[0].bytes + QH(i), &end, sizeof(end));
		memcpy(backing[0].bytes + QH(i) + 4, &end, sizeof(end));
	}
}

void hostile_guest_init(void)
{
	memset(&hostile_guest, 0, sizeof(hostile_guest));
	hostile_guest.guest.ops = &ops;
	hostile_guest.now_us = 1000000;
	hostile_guest.run_at_us = UINT64_MAX;
	bh_memory_init(&hostile_guest.guest.memory);
	for (unsigned i = 0; i < REGIONS; i++) {
		ASAN_UNPOISON_MEMORY_REGION(backing[i].bytes, REGION_SIZE);
		memset(backing[i].bytes, 0, REGION_SIZE);
		ASAN_POISON_MEMORY_REGION(backing[i].bytes, sizeof(backing[i]));
		if (i < LOW_REGIONS)
			guest_map(i, HOW_FLAGS);
	}
	clear_schedule();
}

void hostile_guest_finish(void)
{
	bh_memory_finish(&hostile_guest.guest.memory);
}
