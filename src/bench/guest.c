/*
 * The guest seam with nothing behind it but an array and a variable. Left out:
 * message-signalled interrupts, and memory in more than one piece.
 */
#include "guest.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include <base/bytes.h>
#include <base/util.h>

static struct bh_bench_guest *of_guest(struct bh_guest *g)
{
	return bh_container_of(g, struct bh_bench_guest, guest);
}

static void interrupt_level(struct bh_guest *g, bool raised)
{
	of_guest(g)->line = raised;
}

static void interrupt_message(struct bh_guest *g, unsigned vector)
{
	(void)g;
	(void)vector; /* nobody switches these on */
}

static uint64_t now_us(struct bh_guest *g)
{
	return of_guest(g)->now_us;
}

static void run_at(struct bh_guest *g, uint64_t at_us)
{
	of_guest(g)->run_at_us = at_us;
}

static const struct bh_guest_ops guest_ops = {
	.interrupt_level = interrupt_level,
	.interrupt_message = interrupt_message,
	.now_us = now_us,
	.run_at = run_at,
};

int bh_bench_guest_init(struct bh_bench_guest *g, uint32_t size, uint64_t now)
{
	int r;

	*g = (struct bh_bench_guest){
		.guest.ops = &guest_ops,
		.memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		.size = size,
		.now_us = now,
		.run_at_us = UINT64_MAX,
	};
	if (g->memory == MAP_FAILED) {
		g->memory = NULL;
		return -ENOMEM;
	}
	bh_memory_init(&g->guest.memory);
	r = bh_memory_add(&g->guest.memory, 0, size, g->memory, BH_MEMORY_READ | BH_MEMORY_WRITE | BH_MEMORY_OURS);
	if (r)
		bh_bench_guest_finish(g);
	return r;
}

void bh_bench_guest_finish(struct bh_bench_guest *g)
{
	bh_memory_finish(&g->guest.memory);
	if (g->memory)
		munmap(g->memory, g->size);
	g->memory = NULL;
}

uint32_t bh_bench_guest_get32(const struct bh_bench_guest *g, uint32_t address)
{
	bh_le32 raw;

	memcpy(&raw, g->memory + address, sizeof(raw));
	return bh_get_le32(raw);
}

void bh_bench_guest_put32(struct bh_bench_guest *g, uint32_t address, uint32_t value)
{
	bh_le32 raw = bh_put_le32(value);

	memcpy(g->memory + address, &raw, sizeof(raw));
}
