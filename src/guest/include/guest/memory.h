/*
 * Guest-physical memory as its owner lets us see it: any number of regions, each
 * mapped here, read-only, or known to exist but out of reach (no file
 * descriptor). An access that is not wholly inside readable (writable) mapped
 * regions fails and leaves everything as it was: for a PCI device that is a bus
 * error. Addresses and sizes are bytes. That all of the guest's data and descriptors can be
 * seen is what batching rests on ([0055]).
 *
 * The guest runs while we read: read once into your own copy, validate the copy,
 * act on the copy.
 */
#ifndef GUEST_MEMORY_H
#define GUEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <base/bytes.h>

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
	struct bh_region near; /* copy of the region last hit that can be read and written; size 0: none */
	uint64_t generation; /* counts changes of the map */
	struct bh_trace *trace; /* NULL: writes are not traced */
};

/* No regions, no traces. Allocates nothing; ends with bh_memory_finish(), after which it may be initialised anew. */
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
static inline bool bh_memory_read(struct bh_memory *m, uint64_t address, void *to, size_t length);
static inline bool bh_memory_write(struct bh_memory *m, uint64_t address, const void *from, size_t length);

/* Are these the bytes that are there now? False also for a bus error. */
static inline bool bh_memory_equal(struct bh_memory *m, uint64_t address, const void *bytes, size_t length);

/*
 * One little-endian 32-bit word at a multiple of four, in one access.
 * load: acquire. exchange: replaces *expected by desired if the word still is
 * *expected, and tells with *ret_done; where it is not, *expected becomes what is
 * there. False: bus error.
 */
static inline bool bh_memory_load32(struct bh_memory *m, uint64_t address, uint32_t *ret_value);
static inline bool bh_memory_exchange32(struct bh_memory *m, uint64_t address, uint32_t *expected,
                                        uint32_t desired, bool *ret_done);

/*
 * Where these bytes are mapped, if they all lie in the region last hit, and it can be
 * read and written; NULL says nothing: use the functions above. Valid until the map
 * changes.
 */
static inline uint8_t *bh_memory_near(const struct bh_memory *m, uint64_t address, size_t length);

/*
 * --- what is inline above: every packet goes through it several times ---------------------
 *
 * From here on nothing is to be called directly: bh_memory_word() and the ..._far()
 * functions, which serve what does not lie in the region last hit, are the inside of those
 * above.
 */

bool bh_memory_read_far(struct bh_memory *m, uint64_t address, void *to, size_t length);
bool bh_memory_write_far(struct bh_memory *m, uint64_t address, const void *from, size_t length);
bool bh_memory_equal_far(struct bh_memory *m, uint64_t address, const void *bytes, size_t length);
uint32_t *bh_memory_word_far(struct bh_memory *m, uint64_t address, unsigned flags);

/* The fuzzer has one of its own, in which its guest writes between any two of our accesses. */
#ifndef BH_MEMORY_HOOK
#define BH_MEMORY_HOOK() ((void)0)
#endif

static inline uint8_t *bh_memory_near(const struct bh_memory *m, uint64_t address, size_t length)
{
	uint64_t offset = address - m->near.base; /* beyond the size where address lies below */

	BH_MEMORY_HOOK();
	if (offset >= m->near.size || length > m->near.size - offset)
		return NULL;
	return m->near.host + offset;
}

static inline bool bh_memory_read(struct bh_memory *m, uint64_t address, void *to, size_t length)
{
	const uint8_t *host = bh_memory_near(m, address, length);

	if (!host)
		return bh_memory_read_far(m, address, to, length);
	memcpy(to, host, length);
	return true;
}

static inline bool bh_memory_write(struct bh_memory *m, uint64_t address, const void *from, size_t length)
{
	uint8_t *host = bh_memory_near(m, address, length);

	if (!host)
		return bh_memory_write_far(m, address, from, length);
	memcpy(host, from, length);
	return true;
}

static inline bool bh_memory_equal(struct bh_memory *m, uint64_t address, const void *bytes, size_t length)
{
	const uint8_t *host = bh_memory_near(m, address, length);

	return host ? memcmp(host, bytes, length) == 0 : bh_memory_equal_far(m, address, bytes, length);
}

/* The word at address, if it can be accessed as one: whole, aligned here as well. NULL: not. */
static inline uint32_t *bh_memory_word(struct bh_memory *m, uint64_t address, unsigned flags)
{
	uint8_t *host = bh_memory_near(m, address, sizeof(uint32_t));

	if (!host || ((uintptr_t)host | address) % sizeof(uint32_t))
		return bh_memory_word_far(m, address, flags);
	return (uint32_t *)(void *)host;
}

static inline bool bh_memory_load32(struct bh_memory *m, uint64_t address, uint32_t *ret_value)
{
	const uint32_t *word = bh_memory_word(m, address, BH_MEMORY_READ);

	if (!word)
		return false;
	*ret_value = bh_order_le32(__atomic_load_n(word, __ATOMIC_ACQUIRE));
	return true;
}

static inline bool bh_memory_exchange32(struct bh_memory *m, uint64_t address, uint32_t *expected,
                                        uint32_t desired, bool *ret_done)
{
	uint32_t *word = bh_memory_word(m, address, BH_MEMORY_READ | BH_MEMORY_WRITE);
	uint32_t wanted = bh_order_le32(*expected);

	if (!word)
		return false;
	*ret_done = __atomic_compare_exchange_n(word, &wanted, bh_order_le32(desired), false, __ATOMIC_ACQ_REL,
	                                        __ATOMIC_ACQUIRE);
	*expected = bh_order_le32(wanted);
	return true;
}

#endif
