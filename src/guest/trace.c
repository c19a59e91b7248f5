/*
 * Write traces: which pages are watched, and since when. The mechanisms that protect
 * a page and hear of the fault are in trace_userfaultfd.c and trace_mprotect.c. See
 * <guest/trace.h>, and internal.h for the states of a page.
 *
 * All traced ranges of the process stand in one table, which fault handlers read
 * without a lock: a signal handler cannot take one.
 */
#include <guest/trace.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include <base/util.h>

#include "internal.h"

#define STATE(word) ((word) & 3u)
#define WORD(stamp, state) ((stamp) << 2 | (state))

/*
 * A slot stays where it is while its range goes: a handler counts itself in, and only
 * then trusts the pointer. start and size say whether that is worth it.
 */
struct slot {
	uintptr_t start;
	size_t size;
	struct bh_trace_range *range; /* NULL: the slot is free */
	unsigned users;
};

static struct {
	pthread_mutex_t lock; /* for those who change it; handlers do not take it */
	struct slot slots[BH_MEMORY_MAX_REGIONS];
	size_t used; /* no range stands at this index or above */
	uint64_t detached;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

uint64_t bh_trace_detached(void)
{
	return __atomic_load_n(&table.detached, __ATOMIC_SEQ_CST);
}

static bool overlap(const struct bh_trace_range *a, const struct bh_trace_range *b)
{
	return (uintptr_t)a->host < (uintptr_t)b->host + b->size && (uintptr_t)b->host < (uintptr_t)a->host + a->size;
}

static int enter_locked(struct bh_trace_range *r)
{
	size_t free_slot = table.used;

	for (size_t i = table.used; i-- > 0; ) {
		if (!table.slots[i].range)
			free_slot = i;
		else if (overlap(table.slots[i].range, r))
			return -ENOTSUP;
	}
	if (free_slot == BH_COUNT(table.slots))
		return -ENOMEM;
	__atomic_store_n(&table.slots[free_slot].start, (uintptr_t)r->host, __ATOMIC_SEQ_CST);
	__atomic_store_n(&table.slots[free_slot].size, r->size, __ATOMIC_SEQ_CST);
	__atomic_store_n(&table.slots[free_slot].range, r, __ATOMIC_SEQ_CST);
	if (free_slot == table.used)
		__atomic_store_n(&table.used, free_slot + 1, __ATOMIC_SEQ_CST);
	return 0;
}

/* Makes the range known to fault handlers. */
static int enter(struct bh_trace_range *r)
{
	int result;

	pthread_mutex_lock(&table.lock);
	result = enter_locked(r);
	pthread_mutex_unlock(&table.lock);
	return result;
}

static void empty(struct slot *s)
{
	__atomic_store_n(&s->range, NULL, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&s->users, __ATOMIC_SEQ_CST))
		sched_yield();
}

/*
 * When this returns no fault handler knows the range. The count goes up first: a
 * handler that does not find its range any more then sees why.
 */
static void leave(struct bh_trace_range *r)
{
	pthread_mutex_lock(&table.lock);
	__atomic_fetch_add(&table.detached, 1, __ATOMIC_SEQ_CST);
	for (size_t i = 0; i < table.used; i++)
		if (table.slots[i].range == r)
			empty(&table.slots[i]);
	while (table.used && !table.slots[table.used - 1].range)
		__atomic_store_n(&table.used, table.used - 1, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&table.lock);
}

static inline bool inside(uintptr_t address, uintptr_t start, size_t size)
{
	return address >= start && address - start < size;
}

/*
 * The range that holds address, and its slot, among whose users the caller is then
 * counted. The slot may be emptied meanwhile; the range stays until he is gone.
 */
static struct bh_trace_range *visit(uintptr_t address, struct slot **ret_slot)
{
	size_t used = __atomic_load_n(&table.used, __ATOMIC_SEQ_CST);

	for (size_t i = 0; i < used; i++) {
		struct slot *s = &table.slots[i];
		struct bh_trace_range *r;

		if (!inside(address, __atomic_load_n(&s->start, __ATOMIC_SEQ_CST),
		            __atomic_load_n(&s->size, __ATOMIC_SEQ_CST)))
			continue;
		__atomic_fetch_add(&s->users, 1, __ATOMIC_SEQ_CST);
		r = __atomic_load_n(&s->range, __ATOMIC_SEQ_CST);
		if (r && inside(address, (uintptr_t)r->host, r->size)) {
			*ret_slot = s;
			return r;
		}
		__atomic_fetch_sub(&s->users, 1, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

/* Puts a page into a state in which it may be made writable. False: another thread is at it. */
static bool claim(struct bh_trace_range *r, size_t page, unsigned state)
{
	uint64_t word = __atomic_load_n(&r->words[page], __ATOMIC_SEQ_CST);

	do {
		if (STATE(word) >= BH_DISARMING)
			return false;
	} while (!__atomic_compare_exchange_n(&r->words[page], &word, state, false, __ATOMIC_SEQ_CST,
	                                      __ATOMIC_SEQ_CST));
	if (STATE(word) == BH_ARMED)
		__atomic_fetch_sub(&r->trace->armed, 1, __ATOMIC_RELAXED);
	return true;
}

static unsigned state_of(const struct bh_trace_range *r, size_t page)
{
	return STATE(__atomic_load_n(&r->words[page], __ATOMIC_SEQ_CST));
}

/*
 * Disarms the whole range with one call. Idle pages are passed over, as watch does not
 * run meanwhile, or sees that the range is lost; so are those being disarmed, by
 * whoever does that.
 */
static int sweep(struct bh_trace_range *r)
{
	int result;

	for (size_t i = 0; i < r->count; i++)
		if (state_of(r, i) == BH_ARMED)
			claim(r, i, BH_SWEEPING);
	result = r->trace->method->release(r);
	for (size_t i = 0; i < r->count; i++)
		if (state_of(r, i) == BH_SWEEPING)
			__atomic_store_n(&r->words[i], BH_IDLE, __ATOMIC_SEQ_CST);
	return result;
}

/* A page could not be made writable, for lack of memory or mappings: then all of them, for good. */
static bool give_up(struct bh_trace_range *r)
{
	if (__atomic_exchange_n(&r->lost, true, __ATOMIC_SEQ_CST))
		return true; /* another thread is at it */
	return sweep(r) == 0;
}

static bool disarm(struct bh_trace_range *r, size_t page)
{
	int result;

	if (!claim(r, page, BH_DISARMING)) {
		sched_yield();
		return true;
	}
	result = r->trace->method->unprotect(r, page);
	__atomic_store_n(&r->words[page], BH_IDLE, __ATOMIC_SEQ_CST);
	return result == 0 || give_up(r);
}

bool bh_trace_fault(uintptr_t address)
{
	struct slot *s;
	struct bh_trace_range *r = visit(address, &s);
	bool ours;

	if (!r)
		return false;
	ours = disarm(r, (address - (uintptr_t)r->host) >> r->shift);
	__atomic_fetch_sub(&s->users, 1, __ATOMIC_SEQ_CST);
	return ours;
}

/* One page there and back: does the mechanism work on this memory? */
static int try(struct bh_trace_range *r)
{
	const struct bh_trace_method *method = r->trace->method;

	if (method->protect(r, 0, 1) < 0 || method->unprotect(r, 0) < 0)
		return -ENOSYS;
	return 0;
}

static int start_tracing(struct bh_trace_range *r)
{
	const struct bh_trace_method *method = r->trace->method;
	int result;

	r->words = calloc(r->count, sizeof(*r->words));
	if (!r->words)
		return -ENOMEM;
	result = enter(r);
	if (result < 0)
		goto err_words;
	if (method->attach && method->attach(r) < 0) {
		result = -ENOSYS;
		goto err_table;
	}
	result = try(r);
	if (result < 0)
		goto err_attached;
	return 0;

err_attached:
	method->release(r);
err_table:
	leave(r);
err_words:
	free(r->words);
	return result;
}

static uint64_t next_stamp(struct bh_trace *t)
{
	return ++t->stamp;
}

/* Can a region with these properties be traced, as far as its owner says? */
static int check(const struct bh_region *region)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	if (!region->host || !(region->flags & (BH_MEMORY_WRITE | BH_MEMORY_OURS)))
		return 0;
	if (!(region->flags & BH_MEMORY_OURS))
		return -ENOTSUP;
	return (uintptr_t)region->host % page || region->size % page ? -EINVAL : 0;
}

int bh_trace_attach(struct bh_trace *t, struct bh_region *region)
{
	unsigned shift = (unsigned)__builtin_ctzl((unsigned long)sysconf(_SC_PAGESIZE));
	struct bh_trace_range *r;
	int result = check(region);

	if (result < 0 || !region->host)
		return result;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	*r = (struct bh_trace_range){.trace = t, .host = region->host, .size = region->size,
		.count = region->size >> shift, .shift = shift, .attached = next_stamp(t)};
	if (region->flags & BH_MEMORY_OURS) {
		result = start_tracing(r);
		if (result < 0) {
			free(r);
			return result;
		}
	}
	region->trace = r;
	return 0;
}

void bh_trace_detach(struct bh_region *region)
{
	struct bh_trace_range *r = region->trace;

	if (!r)
		return;
	region->trace = NULL;
	if (r->words) {
		sweep(r);
		leave(r);
		free(r->words);
	}
	free(r);
}

void bh_trace_finish(struct bh_memory *m)
{
	for (size_t i = 0; i < m->count; i++)
		bh_trace_detach(&m->regions[i]);
	m->trace->method->stop(m->trace);
	free(m->trace);
	m->trace = NULL;
}

static int enable(struct bh_memory *m, const struct bh_trace_method *method)
{
	struct bh_trace *t = calloc(1, sizeof(*t));
	int result = 0;

	if (!t)
		return -ENOMEM;
	t->method = method;
	result = method->start(t);
	if (result < 0) {
		free(t);
		return result;
	}
	m->trace = t;
	for (size_t i = 0; i < m->count && result == 0; i++)
		result = bh_trace_attach(t, &m->regions[i]);
	if (result < 0)
		bh_trace_finish(m);
	return result;
}

int bh_trace_enable(struct bh_memory *m, unsigned methods, unsigned *ret_method)
{
	static const struct bh_trace_method *const all[] = {&bh_trace_userfaultfd, &bh_trace_mprotect};
	int result;

	if (m->trace)
		return -EALREADY;
	for (size_t i = 0; i < m->count; i++) {
		result = check(&m->regions[i]);
		if (result < 0)
			return result;
	}
	for (size_t i = 0; i < BH_COUNT(all); i++) {
		if (!(methods & all[i]->bit))
			continue;
		result = enable(m, all[i]);
		m->near = (struct bh_region){0}; /* a copy from before */
		if (result == 0 && ret_method)
			*ret_method = all[i]->bit;
		if (result != -ENOSYS)
			return result;
	}
	return -ENOSYS;
}

bool bh_memory_traced(const struct bh_memory *m)
{
	return m->trace;
}

/* The part of these bytes in the region that holds the first one. NULL: out of reach. */
static const struct bh_region *first_piece(struct bh_memory *m, uint64_t address, uint64_t length,
                                           uint64_t *ret_offset, uint64_t *ret_piece)
{
	const struct bh_region *region = bh_memory_find(m, address);

	if (!region || !region->host)
		return NULL;
	*ret_offset = address - region->base;
	*ret_piece = BH_MIN(length, region->size - *ret_offset);
	return region;
}

static inline size_t first_page(const struct bh_trace_range *r, uint64_t offset)
{
	return offset >> r->shift;
}

/* piece is not 0. */
static inline size_t last_page(const struct bh_trace_range *r, uint64_t offset, uint64_t piece)
{
	return (offset + piece - 1) >> r->shift;
}

/* How many pages to protect at most; SIZE_MAX: it cannot be done. */
static size_t survey(struct bh_memory *m, uint64_t address, uint64_t length)
{
	uint64_t offset, piece;
	size_t pages = 0;

	if (length && length - 1 > UINT64_MAX - address)
		return SIZE_MAX;
	for (; length; length -= piece, address += piece) {
		const struct bh_region *region = first_piece(m, address, length, &offset, &piece);

		if (!region || __atomic_load_n(&region->trace->lost, __ATOMIC_SEQ_CST))
			return SIZE_MAX;
		if (region->trace->words)
			pages += last_page(region->trace, offset, piece) - first_page(region->trace, offset) + 1;
	}
	return pages;
}

/* Where the method bears only so many armed pages. */
static bool make_room(struct bh_memory *m, size_t pages)
{
	size_t limit = m->trace->method->limit;

	if (!limit || pages + __atomic_load_n(&m->trace->armed, __ATOMIC_RELAXED) <= limit)
		return true;
	if (pages > limit)
		return false;
	for (size_t i = 0; i < m->count; i++)
		if (m->regions[i].trace && m->regions[i].trace->words && sweep(m->regions[i].trace) < 0)
			return false;
	return true;
}

/* Arms a page that is not yet; true: this one was not. */
static bool arm_page(struct bh_trace_range *r, size_t page, uint64_t stamp)
{
	uint64_t word = __atomic_load_n(&r->words[page], __ATOMIC_SEQ_CST);

	do {
		while (STATE(word) >= BH_DISARMING) {
			sched_yield();
			word = __atomic_load_n(&r->words[page], __ATOMIC_SEQ_CST);
		}
		if (STATE(word) == BH_ARMED)
			return false;
	} while (!__atomic_compare_exchange_n(&r->words[page], &word, WORD(stamp, BH_ARMED), false, __ATOMIC_SEQ_CST,
	                                      __ATOMIC_SEQ_CST));
	__atomic_fetch_add(&r->trace->armed, 1, __ATOMIC_RELAXED);
	return true;
}

/* What was armed with this stamp is not, after all. */
static void take_back(struct bh_trace_range *r, size_t first, size_t end, uint64_t stamp)
{
	for (size_t i = first; i < end; i++) {
		uint64_t word = WORD(stamp, BH_ARMED);

		if (__atomic_compare_exchange_n(&r->words[i], &word, BH_IDLE, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			__atomic_fetch_sub(&r->trace->armed, 1, __ATOMIC_RELAXED);
	}
}

/*
 * Arms the pages from first to before end, with one call that also covers those
 * between them that were armed. A fault of another thread meanwhile makes its page
 * idle: a false alarm later.
 */
static bool arm(struct bh_trace_range *r, size_t first, size_t end, uint64_t stamp)
{
	size_t from = end, to = first;

	for (size_t i = first; i < end; i++) {
		if (!arm_page(r, i, stamp))
			continue;
		from = BH_MIN(from, i);
		to = i + 1;
	}
	if (from >= to)
		return true;
	if (r->trace->method->protect(r, from, to - from) < 0 || __atomic_load_n(&r->lost, __ATOMIC_SEQ_CST)) {
		take_back(r, from, to, stamp);
		return false;
	}
	return true;
}

uint64_t bh_memory_watch(struct bh_memory *m, uint64_t address, size_t length)
{
	uint64_t offset, piece, left = length, stamp;
	size_t pages;

	if (!m->trace)
		return 0;
	pages = survey(m, address, length);
	if (pages == SIZE_MAX || !make_room(m, pages))
		return 0;
	stamp = next_stamp(m->trace);
	for (; left; left -= piece, address += piece) {
		struct bh_trace_range *r = first_piece(m, address, left, &offset, &piece)->trace;

		if (r->words && !arm(r, first_page(r, offset), last_page(r, offset, piece) + 1, stamp))
			return 0;
	}
	return stamp;
}

/* Have all these pages been armed without a break since then? */
static bool kept(const struct bh_trace_range *r, size_t first, size_t last, uint64_t since)
{
	for (size_t i = first; i <= last; i++) {
		uint64_t word = __atomic_load_n(&r->words[i], __ATOMIC_RELAXED);

		if (STATE(word) != BH_ARMED || word > WORD(since, BH_ARMED))
			return false;
	}
	return true;
}

bool bh_memory_written(struct bh_memory *m, uint64_t address, size_t length, uint64_t since)
{
	uint64_t offset, piece, left = length;

	if (!m->trace || !since || since > m->trace->stamp || (length && length - 1 > UINT64_MAX - address))
		return true;
	/* What the caller read before, he read before we look. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	for (; left; left -= piece, address += piece) {
		const struct bh_region *region = first_piece(m, address, left, &offset, &piece);
		const struct bh_trace_range *r;

		if (!region)
			return true;
		r = region->trace;
		if (r->attached > since)
			return true;
		if (r->words && !kept(r, first_page(r, offset), last_page(r, offset, piece), since))
			return true;
	}
	return false;
}
