/* Guest-physical memory: a sorted array of regions and a guess. See <guest/memory.h>. */
#include <guest/memory.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/util.h>

#include "internal.h"

#define FIRST_CAPACITY 16u

void bh_memory_init(struct bh_memory *m)
{
	*m = (struct bh_memory){0};
}

void bh_memory_finish(struct bh_memory *m)
{
	if (m->trace)
		bh_trace_finish(m);
	free(m->regions);
	m->regions = NULL;
	m->count = m->capacity = 0;
	m->near = (struct bh_region){0};
	m->generation++;
}

/* Index of the first region whose base lies above address: the one before may hold it. */
static size_t first_above(const struct bh_memory *m, uint64_t address)
{
	size_t low = 0, high = m->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (m->regions[middle].base <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static inline bool holds(const struct bh_region *r, uint64_t address)
{
	return address >= r->base && address - r->base < r->size;
}

/* The region that holds the address becomes the near one, if it is as that has to be. NULL: there is none. */
static inline const struct bh_region *find(struct bh_memory *m, uint64_t address)
{
	const unsigned both = BH_MEMORY_READ | BH_MEMORY_WRITE;
	size_t i;

	if (holds(&m->near, address))
		return &m->near;
	i = first_above(m, address);
	if (!i || !holds(&m->regions[i - 1], address))
		return NULL;
	if (m->regions[i - 1].host && (m->regions[i - 1].flags & both) == both)
		m->near = m->regions[i - 1];
	return &m->regions[i - 1];
}

const struct bh_region *bh_memory_find(struct bh_memory *m, uint64_t address)
{
	return find(m, address);
}

/* Where address is mapped with all of these flags, and for how many bytes from there; NULL: not. */
static inline uint8_t *reach(struct bh_memory *m, uint64_t address, unsigned flags, uint64_t *ret_left)
{
	const struct bh_region *r = find(m, address);

	if (!r || !r->host || (r->flags & flags) != flags)
		return NULL;
	*ret_left = r->size - (address - r->base);
	return r->host + (address - r->base);
}

static int grow(struct bh_memory *m)
{
	size_t capacity = m->capacity ? m->capacity * 2 : FIRST_CAPACITY;
	struct bh_region *regions;

	if (m->count == BH_MEMORY_MAX_REGIONS)
		return -ENOSPC;
	if (m->count < m->capacity)
		return 0;
	regions = realloc(m->regions, capacity * sizeof(*regions));
	if (!regions)
		return -ENOMEM;
	m->regions = regions;
	m->capacity = capacity;
	return 0;
}

int bh_memory_add(struct bh_memory *m, uint64_t base, uint64_t size, void *host, unsigned flags)
{
	struct bh_region region = {.base = base, .size = size, .host = host, .flags = flags};
	size_t i;
	int r;

	if (!size || size - 1 > UINT64_MAX - base || flags & ~(BH_MEMORY_READ | BH_MEMORY_WRITE | BH_MEMORY_OURS))
		return -EINVAL;

	/* No overlap: the one before ends at or below base, the one after begins beyond the end. */
	i = first_above(m, base);
	if (i && holds(&m->regions[i - 1], base))
		return -EEXIST;
	if (i < m->count && m->regions[i].base - base < size)
		return -EEXIST;

	r = grow(m);
	if (r < 0)
		return r;
	if (m->trace) {
		r = bh_trace_attach(m->trace, &region);
		if (r < 0)
			return r == -ENOSYS ? -ENOTSUP : r;
	}
	memmove(&m->regions[i + 1], &m->regions[i], (m->count - i) * sizeof(m->regions[0]));
	m->regions[i] = region;
	m->count++;
	m->generation++;
	m->near = (struct bh_region){0};
	return 0;
}

int bh_memory_remove(struct bh_memory *m, uint64_t base, uint64_t size, struct bh_region *ret_region)
{
	size_t i = first_above(m, base);

	if (!i || m->regions[i - 1].base != base || m->regions[i - 1].size != size)
		return -ENOENT;
	i--;
	bh_trace_detach(&m->regions[i]);
	if (ret_region)
		*ret_region = m->regions[i];
	m->count--;
	memmove(&m->regions[i], &m->regions[i + 1], (m->count - i) * sizeof(m->regions[0]));
	m->generation++;
	m->near = (struct bh_region){0};
	return 0;
}

/* Is every byte there, mapped with these flags? */
static bool reachable(struct bh_memory *m, uint64_t address, size_t length, unsigned flags)
{
	uint64_t left;

	if (length && length - 1 > UINT64_MAX - address)
		return false;
	while (length) {
		if (!reach(m, address, flags, &left))
			return false;
		if (length <= left)
			return true;
		length -= left;
		address += left;
	}
	return true;
}

/*
 * Accesses that are not inside the near region, and perhaps inside no single one.
 * Checked whole before the first byte moves.
 */
bool bh_memory_read_far(struct bh_memory *m, uint64_t address, void *ret, size_t length)
{
	uint8_t *to = ret;

	if (!reachable(m, address, length, BH_MEMORY_READ))
		return false;
	while (length) {
		uint64_t left;
		const uint8_t *host = reach(m, address, BH_MEMORY_READ, &left);
		size_t piece;

		if (!host)
			return false;
		piece = BH_MIN(length, left);
		memcpy(to, host, piece);
		to += piece;
		address += piece;
		length -= piece;
	}
	return true;
}

bool bh_memory_write_far(struct bh_memory *m, uint64_t address, const void *data, size_t length)
{
	const uint8_t *from = data;

	if (!reachable(m, address, length, BH_MEMORY_WRITE))
		return false;
	while (length) {
		uint64_t left;
		uint8_t *host = reach(m, address, BH_MEMORY_WRITE, &left);
		size_t piece;

		if (!host)
			return false;
		piece = BH_MIN(length, left);
		memcpy(host, from, piece);
		from += piece;
		address += piece;
		length -= piece;
	}
	return true;
}

bool bh_memory_equal_far(struct bh_memory *m, uint64_t address, const void *bytes, size_t length)
{
	const uint8_t *from = bytes;

	if (!reachable(m, address, length, BH_MEMORY_READ))
		return false;
	while (length) {
		uint64_t left;
		const uint8_t *host = reach(m, address, BH_MEMORY_READ, &left);
		size_t piece;

		if (!host)
			return false;
		piece = BH_MIN(length, left);
		if (memcmp(host, from, piece))
			return false;
		from += piece;
		address += piece;
		length -= piece;
	}
	return true;
}

uint32_t *bh_memory_word_far(struct bh_memory *m, uint64_t address, unsigned flags)
{
	uint64_t left;
	uint8_t *host = reach(m, address, flags, &left);

	if (!host || left < sizeof(uint32_t) || address % sizeof(uint32_t) || (uintptr_t)host % sizeof(uint32_t))
		return NULL;
	return (uint32_t *)(void *)host;
}
