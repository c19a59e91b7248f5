/*
 * Guest-physical memory as its owner lets us see it: any number of regions, each
 * mapped here, read-only, or known to exist but out of reach (no file
 * descriptor). An access that is not wholly inside readable (writable) mapped
 * regions fails and leaves everything as it was: for a PCI device that is a bus
 * error. Addresses and sizes are bytes.
 *
 * The guest runs while we read: read once into your own copy, validate the copy,
 * act on the copy.
 */
#ifndef GUEST_MEMORY_H
#define GUEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BH_MEMORY_READ  1u
#define BH_MEMORY_WRITE 2u
/* Everybody who writes here is a thread of this process: writes can be traced. See <guest/trace.h>. */
#define BH_MEMORY_OURS  4u

#define BH_MEMORY_MAX_REGIONS 4096u

struct bh_region {
	uint64_t base;
	uint64_t size;
	uint8_t *host; /* where base is mapped; NULL: out of reach */
	unsigned flags;
	struct bh_trace_range *trace; /* ours; NULL: writes are not traced */
};

struct bh_memory {
	struct bh_region *regions; /* sorted by base, never overlapping */
	size_t count, capacity;
	size_t last; /* index of the last hit; a guess, never trusted */
	uint64_t generation; /* counts changes of the map */
	struct bh_trace *trace; /* NULL: writes are not traced */
};

void bh_memory_init(struct bh_memory *m);
void bh_memory_finish(struct bh_memory *m); /* forgets the regions, unmaps nothing */

/*
 * The caller keeps what host points at mapped until the region is removed.
 * -EINVAL size 0 or wrapping, or unknown flags; -EEXIST overlap; -ENOSPC too many
 * regions; -ENOMEM; where writes are traced, see bh_trace_enable().
 */
int bh_memory_add(struct bh_memory *m, uint64_t base, uint64_t size, void *host, unsigned flags);

/* Removes the region with exactly this base and size and returns it; -ENOENT. */
int bh_memory_remove(struct bh_memory *m, uint64_t base, uint64_t size, struct bh_region *ret_region);

/* Each may straddle regions. False: bus error, and nothing was written. */
bool bh_memory_read(struct bh_memory *m, uint64_t address, void *to, size_t length);
bool bh_memory_write(struct bh_memory *m, uint64_t address, const void *from, size_t length);

/*
 * One little-endian 32-bit word at a multiple of four, in one access.
 * load: acquire. exchange: replaces *expected by desired if the word still is
 * *expected, and tells with *ret_done; where it is not, *expected becomes what is
 * there.
 */
bool bh_memory_load32(struct bh_memory *m, uint64_t address, uint32_t *ret_value);
bool bh_memory_exchange32(struct bh_memory *m, uint64_t address, uint32_t *expected, uint32_t desired,
                          bool *ret_done);

#endif
