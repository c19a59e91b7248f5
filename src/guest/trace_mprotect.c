/*
 * Write traces with mprotect(2): a watched page is read-only, a write to it is a
 * SIGSEGV in the writing thread, whose handler disarms the page and returns to the
 * write. POSIX does not list mprotect among the functions safe in a handler; on Linux
 * it is a bare system call.
 *
 * The handler is installed once for the process and stays: a late fault may come
 * after the last trace has gone.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "internal.h"

/* An armed page adds two mappings at most, and Linux allows a process 65530 by default. */
#define LIMIT 8192u

/* What to do about a SIGSEGV that is not ours. Never freed: a handler may be reading it. */
struct previous {
	struct sigaction action;
	struct previous *next;
};

static pthread_mutex_t install_lock = PTHREAD_MUTEX_INITIALIZER;
static struct previous *previous;

/* The count of detached ranges when this thread last repeated an access that no range explains. */
static _Thread_local uint64_t repeated __attribute__((tls_model("initial-exec")));

/*
 * Whom this thread is passing a fault on to, and which: who came later than we did may
 * pass it back to us. A handler that jumps out leaves this behind; a fault that comes back
 * has the same context, and lies deeper on the stack than where it was passed on.
 */
static _Thread_local const struct previous *passing __attribute__((tls_model("initial-exec")));
static _Thread_local const void *passing_context __attribute__((tls_model("initial-exec")));
static _Thread_local uintptr_t passing_frame __attribute__((tls_model("initial-exec")));

static void call(const struct sigaction *action, int number, siginfo_t *info, void *context)
{
	bool sent = info->si_code <= 0; /* by kill() and its like: repeating brings nothing */

	if (action->sa_flags & SA_SIGINFO) {
		action->sa_sigaction(number, info, context);
	} else if (action->sa_handler == SIG_DFL || (action->sa_handler == SIG_IGN && !sent)) {
		signal(number, SIG_DFL);
		if (sent)
			raise(number);
	} else if (action->sa_handler != SIG_IGN) {
		action->sa_handler(number);
	}
}

/*
 * As if we were not there. Returning from the handler repeats the access, which then
 * kills. What comes back to us meanwhile goes to the one before: each is asked once.
 */
static void pass_on(int number, siginfo_t *info, void *context)
{
	static const struct sigaction standard = {.sa_handler = SIG_DFL};
	uintptr_t frame = (uintptr_t)__builtin_frame_address(0), back_frame = passing_frame;
	const struct previous *back = passing, *to;
	const void *back_context = passing_context;
	bool again = back && context == back_context && frame < back_frame;

	to = again ? back->next : __atomic_load_n(&previous, __ATOMIC_ACQUIRE);
	passing = to ? to : back;
	passing_context = context;
	passing_frame = frame;
	call(to ? &to->action : &standard, number, info, context);
	passing = again ? back : NULL;
	passing_context = back_context;
	passing_frame = back_frame;
}

/* A jump into a traced page is not a write: repeated for ever, it would never end. */
static bool may_be_write(const void *context)
{
#if defined(__x86_64__) || defined(__i386__)
	return ((const ucontext_t *)context)->uc_mcontext.gregs[REG_ERR] & 2;
#else
	(void)context;
	return true;
#endif
}

/*
 * A thread that faulted just before its range was detached gets here when no range is
 * left: the page is writable by now. Repeating is right, once for each detached range;
 * if it was not that, the access faults again.
 */
static bool was_late(void)
{
	uint64_t detached = bh_trace_detached();

	if (repeated == detached)
		return false;
	repeated = detached;
	return true;
}

static void on_fault(int number, siginfo_t *info, void *context)
{
	int saved = errno;

	if (info->si_code != SEGV_ACCERR || !may_be_write(context)
	    || !(bh_trace_fault((uintptr_t)info->si_addr) || was_late()))
		pass_on(number, info, context);
	errno = saved;
}

static int install_locked(void)
{
	struct sigaction ours = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	struct sigaction now;
	struct previous *p;

	if (sigaction(SIGSEGV, NULL, &now) < 0)
		return -ENOSYS;
	if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_fault)
		return 0;
	p = malloc(sizeof(*p));
	if (!p)
		return -ENOMEM;
	*p = (struct previous){.action = now, .next = previous};
	__atomic_store_n(&previous, p, __ATOMIC_RELEASE);
	sigemptyset(&ours.sa_mask);
	return sigaction(SIGSEGV, &ours, NULL) < 0 ? -ENOSYS : 0;
}

static int start(struct bh_trace *t)
{
	int result;

	(void)t;
	pthread_mutex_lock(&install_lock);
	result = install_locked();
	pthread_mutex_unlock(&install_lock);
	return result;
}

static void stop(struct bh_trace *t)
{
	(void)t;
}

static int protect(struct bh_trace_range *r, size_t first, size_t count)
{
	return mprotect(r->host + (first << r->shift), count << r->shift, PROT_READ) < 0 ? -errno : 0;
}

static int unprotect(struct bh_trace_range *r, size_t page)
{
	return mprotect(r->host + (page << r->shift), (size_t)1 << r->shift, PROT_READ | PROT_WRITE) < 0 ? -errno : 0;
}

/* Splits no mapping any more, so needs none to spare. */
static int release(struct bh_trace_range *r)
{
	return mprotect(r->host, r->size, PROT_READ | PROT_WRITE) < 0 ? -errno : 0;
}

const struct bh_trace_method bh_trace_mprotect = {
	.bit = BH_TRACE_MPROTECT,
	.limit = LIMIT,
	.start = start,
	.stop = stop,
	.protect = protect,
	.unprotect = unprotect,
	.release = release,
};
