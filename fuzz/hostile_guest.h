/*
 * A guest in our own process that plays foul: its memory comes and goes in pieces,
 * and it writes to it while the controller is in the middle of a look.
 */
#ifndef FUZZ_HOSTILE_GUEST_H
#define FUZZ_HOSTILE_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#include <guest/guest.h>

/* Eight regions make up the lowest 128 KiB; one ends at 4 GiB, one begins there. */
#define LOW_REGIONS 8u
#define REGIONS     10u
#define REGION_SIZE 0x4000u
#define HIGH_MEMORY (0x100000000u - REGION_SIZE)

/* What lies where in the lowest 128 KiB; nothing but convention, for a guest may point anywhere. */
#define FRAME_LIST  0x1000u
#define QH_COUNT    256u
#define QH(i)       (0x2000u + 16u * ((i) % QH_COUNT))
#define TD_COUNT    2048u
#define TD(i)       (0x4000u + 16u * ((i) % TD_COUNT))
#define BUFFERS     0xc000u
#define BUFFERS_END (LOW_REGIONS * REGION_SIZE)

/* The guest flips bits of a word when the controller has made so many accesses more. */
#define RACES 8u
struct race {
	uint32_t address, bits;
	unsigned countdown, period, left;
};

struct hostile_guest {
	struct bh_guest guest;
	uint64_t now_us, run_at_us;
	bool line;
	unsigned messages;
	uint64_t accesses; /* of the controller to guest memory */
	uint64_t raced;    /* words changed under its eyes */
	struct race races[RACES];
	unsigned racing; /* of those, not over yet */
	struct bh_region mapped[REGIONS]; /* size 0: not */
};

extern struct hostile_guest hostile_guest;

void hostile_guest_init(void);
void hostile_guest_finish(void);

/* What the guest itself does with its memory; what is not there is left alone. */
void guest_put32(uint64_t address, uint32_t value);
uint32_t guest_get32(uint64_t address);
void guest_put8(uint64_t address, uint8_t value);

/* how: bits 0-1 readable, writable; the others make it smaller, misaligned or out of reach. */
void guest_map(unsigned region, uint8_t how);
void guest_unmap(unsigned region);

void guest_race(const struct race *race);

/* A moment at which another processor of the guest may write. */
void guest_race_point(void);

#endif
