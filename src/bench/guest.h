/*
 * A virtual machine in our own process: memory from address 0 on, a clock that is
 * moved by hand, an interrupt line. The guest seam without anything behind it. Nobody
 * else writes to its memory, so writes can be traced (<guest/trace.h>).
 */
#ifndef BENCH_GUEST_H
#define BENCH_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#include <guest/guest.h>

struct bh_bench_guest {
	struct bh_guest guest;
	uint8_t *memory;
	uint32_t size;
	uint64_t now_us;
	uint64_t run_at_us; /* what the controller asked for last */
	bool line;          /* the interrupt */
};

/* size: a multiple of 4096. -ENOMEM. */
int bh_bench_guest_init(struct bh_bench_guest *g, uint32_t size, uint64_t now_us);
void bh_bench_guest_finish(struct bh_bench_guest *g);

/* A word of its memory; address + 4 <= size. */
uint32_t bh_bench_guest_get32(const struct bh_bench_guest *g, uint32_t address);
void bh_bench_guest_put32(struct bh_bench_guest *g, uint32_t address, uint32_t value);

#endif
