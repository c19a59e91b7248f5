/*
 * Guest memory is a file the client can truncate while we use it; touching what is
 * gone raises SIGBUS. The handler puts an anonymous page there, so that the access
 * completes, and marks the client, which is dropped at the next opportunity.
 *
 * Sealed files (F_SEAL_SHRINK) are guarded as well: a hole in hugetlbfs, a full
 * tmpfs or broken memory raises the same signal.
 *
 * The handler walks a list that only grows: a guard removed is kept for reuse, so
 * the list is never seen half-changed.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "internal.h"

struct guard {
	_Atomic uintptr_t start; /* 0: not in use, and the other fields mean nothing */
	_Atomic size_t length, page;
	_Atomic(atomic_bool *) hit;
	struct guard *next; /* never changes once in the list */
	struct guard *next_free;
};

static _Atomic(struct guard *) guards;
static struct guard *free_guards;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* free_guards, and adding to guards */
static struct sigaction earlier;

/* Runs in the signal handler. Is the fault ours, and dealt with? */
static bool patch(uintptr_t address)
{
	for (struct guard *g = guards; g; g = g->next) {
		uintptr_t start = g->start;
		size_t length = g->length, page = g->page;
		atomic_bool *hit = g->hit;

		if (!start || address < start || address - start >= length || g->start != start)
			continue;
		if (mmap((void *)(address & ~(page - 1)), page, PROT_READ | PROT_WRITE,
		         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
			return false;
		*hit = true;
		return true;
	}
	return false;
}

/* Not our fault: whoever was there before decides, or the process dies as it would have. */
static void pass_on(int signal_number, siginfo_t *info, void *context)
{
	if (earlier.sa_flags & SA_SIGINFO) {
		earlier.sa_sigaction(signal_number, info, context);
	} else if (earlier.sa_handler != SIG_DFL && earlier.sa_handler != SIG_IGN) {
		earlier.sa_handler(signal_number);
	} else {
		sigaction(SIGBUS, &earlier, NULL);
		raise(signal_number);
	}
}

static void on_sigbus(int signal_number, siginfo_t *info, void *context)
{
	int saved = errno;

	if (info->si_code <= 0 || !patch((uintptr_t)info->si_addr))
		pass_on(signal_number, info, context);
	errno = saved;
}

int vfu_guard_install(void)
{
	static bool installed;
	struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	int r = 0;

	pthread_mutex_lock(&lock);
	if (!installed) {
		sigemptyset(&action.sa_mask);
		if (sigaction(SIGBUS, &action, &earlier) < 0)
			r = -errno;
		else
			installed = true;
	}
	pthread_mutex_unlock(&lock);
	return r;
}

static struct guard *take(void)
{
	struct guard *g = free_guards;

	if (g) {
		free_guards = g->next_free;
		return g;
	}
	g = calloc(1, sizeof(*g));
	if (!g)
		return NULL;
	g->next = guards;
	guards = g;
	return g;
}

struct guard *vfu_guard_add(void *start, size_t length, size_t page, atomic_bool *hit)
{
	struct guard *g;

	pthread_mutex_lock(&lock);
	g = take();
	pthread_mutex_unlock(&lock);
	if (!g)
		return NULL;
	g->length = length;
	g->page = page;
	g->hit = hit;
	g->start = (uintptr_t)start; /* last: from here on the handler sees it */
	return g;
}

void vfu_guard_remove(struct guard *g)
{
	g->start = 0;
	pthread_mutex_lock(&lock);
	g->next_free = free_guards;
	free_guards = g;
	pthread_mutex_unlock(&lock);
}
