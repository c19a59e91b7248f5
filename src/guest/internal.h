/* What memory.c and the write traces share, and no other folder sees. */
#ifndef GUEST_INTERNAL_H
#define GUEST_INTERNAL_H

#include <pthread.h>

#include <guest/memory.h>
#include <guest/trace.h>

/* The region that holds address, mapped or not; NULL: none. */
const struct bh_region *bh_memory_find(struct bh_memory *m, uint64_t address);

/*
 * The life of a region in a memory whose writes are traced (m->trace is not NULL).
 * attach fills r->trace: -ENOTSUP, -EINVAL, -ENOMEM, and -ENOSYS where the method
 * cannot do this memory. detach empties it: pages are writable again, and no handler
 * knows the range any more.
 */
int bh_trace_attach(struct bh_trace *t, struct bh_region *r);
void bh_trace_detach(struct bh_region *r);
void bh_trace_finish(struct bh_memory *m); /* detaches every region */

/*
 * One region. Its pages have a word each: in the low two bits a state, above them
 * the stamp from which on the page has been protected without a break.
 *
 *              watch              fault, by whoever wins the exchange
 *     BH_IDLE --------> BH_ARMED -----------------------------------> BH_DISARMING
 *        ^                  \---- the end, or a fresh start ---> BH_SWEEPING |
 *        +---- the page is writable -----------------------------------+-----+
 *
 * What must hold: outside of a call of watch an armed page is protected. So
 * nobody makes a page writable but under BH_DISARMING or BH_SWEEPING, and watch
 * waits for those to be over. The converse need not hold: a page that is idle and
 * protected costs a fault and nothing else, which is why watch may set the state
 * first and protect then.
 */
enum { BH_IDLE, BH_ARMED, BH_DISARMING, BH_SWEEPING };

struct bh_trace_range {
	struct bh_trace *trace;
	uint8_t *host;
	size_t size, count; /* bytes; pages */
	unsigned shift; /* log2 of the size of a page */
	uint64_t attached; /* the stamp at which the region came */
	uint64_t *words; /* NULL: nobody writes here, left alone */
	bool lost; /* the mechanism failed in the middle: all writable, no more watches */
};

struct bh_trace {
	const struct bh_trace_method *method;
	uint64_t stamp; /* the last one handed out */
	size_t armed; /* pages */
	int fd, stop_fd; /* userfaultfd: its own, and what ends its thread */
	pthread_t thread;
};

/* A mechanism. unprotect and release may be called from any thread, and in a signal handler. */
struct bh_trace_method {
	unsigned bit;
	size_t limit; /* pages armed at a time, in one memory; 0: any number */
	int (*start)(struct bh_trace *t);
	void (*stop)(struct bh_trace *t); /* no range is left */
	int (*attach)(struct bh_trace_range *r); /* may be NULL */
	int (*protect)(struct bh_trace_range *r, size_t first, size_t count);
	int (*unprotect)(struct bh_trace_range *r, size_t page); /* and lets go on who waits for that */
	int (*release)(struct bh_trace_range *r); /* all of it, to the end of the traces or to a fresh start */
};

extern const struct bh_trace_method bh_trace_userfaultfd, bh_trace_mprotect;

/*
 * Somebody is about to write where the page is protected, or was a moment ago. True:
 * the page is writable now, or will be soon: the access is to be repeated. False: no
 * traced range is there. Safe in a signal handler.
 */
bool bh_trace_fault(uintptr_t address);

/* Counts the ranges that were detached, ever. */
uint64_t bh_trace_detached(void);

#endif
