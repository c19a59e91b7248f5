/*
 * Write traces with userfaultfd(2) in its write-protect mode. Whoever writes to a
 * protected page sleeps in the kernel; a thread of ours reads of it, disarms the page,
 * and that wakes the sleeper. Each traced memory has its own descriptor and thread.
 * No mapping is split, and none of the non-cooperative events is asked for.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <base/util.h>

#include "internal.h"

/* Of Linux 5.19 and 6.1; not in every header. */
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xaa, 0x00)
#endif

/*
 * A descriptor that also serves faults of the kernel. One for those of user mode alone
 * (UFFD_USER_MODE_ONLY) can be had without privilege, but is no better than mprotect.
 */
static int open_any(void)
{
	int device, fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0 || errno != EPERM)
		return fd;
	device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (device < 0)
		return -1;
	fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	close(device);
	return fd;
}

/* Asks for these features; *ret_available (may be NULL) becomes all there are. */
static int open_with(uint64_t features, uint64_t *ret_available)
{
	struct uffdio_api api = {.api = UFFD_API, .features = features};
	int fd = open_any();

	if (fd < 0)
		return -ENOSYS;
	if (ioctl(fd, UFFDIO_API, &api) < 0) {
		close(fd);
		return -ENOSYS;
	}
	if (ret_available)
		*ret_available = api.features;
	return fd;
}

static int open_userfaultfd(void)
{
	uint64_t available = 0;
	int fd = open_with(0, &available);

	if (fd < 0)
		return fd;
	/* A descriptor says what there is only once it is set up: a second one. */
	close(fd);
	if (!(available & UFFD_FEATURE_PAGEFAULT_FLAG_WP))
		return -ENOSYS;
	return open_with(available & (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM), NULL);
}

static void read_faults(const struct bh_trace *t)
{
	struct uffd_msg messages[16];
	ssize_t n = read(t->fd, messages, sizeof(messages));

	for (ssize_t i = 0; i < n / (ssize_t)sizeof(messages[0]); i++)
		if (messages[i].event == UFFD_EVENT_PAGEFAULT)
			/* Not found: it was detached, which woke the sleeper. */
			bh_trace_fault((uintptr_t)messages[i].arg.pagefault.address);
}

static void *serve(void *opaque)
{
	const struct bh_trace *t = opaque;
	struct pollfd fds[] = {{.fd = t->fd, .events = POLLIN}, {.fd = t->stop_fd, .events = POLLIN}};

	while (!(fds[1].revents & POLLIN)) {
		if (poll(fds, BH_COUNT(fds), -1) > 0 && fds[0].revents & POLLIN)
			read_faults(t);
	}
	return NULL;
}

/* Signals are for the other threads. */
static int start_thread(struct bh_trace *t)
{
	sigset_t all, before;
	pthread_t thread;
	int result;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	result = pthread_create(&thread, NULL, serve, t);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (result == 0)
		t->thread = thread;
	return -result;
}

static int start(struct bh_trace *t)
{
	t->fd = open_userfaultfd();
	if (t->fd < 0)
		return -ENOSYS;
	t->stop_fd = eventfd(0, EFD_CLOEXEC);
	if (t->stop_fd < 0)
		goto err_fd;
	if (start_thread(t) < 0)
		goto err_stop_fd;
	return 0;

err_stop_fd:
	close(t->stop_fd);
err_fd:
	close(t->fd);
	return -ENOSYS;
}

static void stop(struct bh_trace *t)
{
	eventfd_write(t->stop_fd, 1);
	pthread_join(t->thread, NULL);
	close(t->stop_fd);
	close(t->fd);
}

static int attach(struct bh_trace_range *r)
{
	struct uffdio_register reg = {.range = {.start = (uintptr_t)r->host, .len = r->size},
		.mode = UFFDIO_REGISTER_MODE_WP};

	if (ioctl(r->trace->fd, UFFDIO_REGISTER, &reg) < 0)
		return -errno;
	if (!(reg.ioctls & UINT64_C(1) << _UFFDIO_WRITEPROTECT)) {
		ioctl(r->trace->fd, UFFDIO_UNREGISTER, &reg.range);
		return -ENOTSUP;
	}
	return 0;
}

/* EAGAIN: the map of the process is just changing. */
static int write_protect(struct bh_trace_range *r, size_t first, size_t count, uint64_t mode)
{
	struct uffdio_writeprotect wp = {
		.range = {.start = (uintptr_t)r->host + (first << r->shift), .len = (uint64_t)count << r->shift},
		.mode = mode};

	while (ioctl(r->trace->fd, UFFDIO_WRITEPROTECT, &wp) < 0)
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
	return 0;
}

/* Anonymous memory that was never touched has nothing to protect (before Linux 6.4): touch it. */
static int protect(struct bh_trace_range *r, size_t first, size_t count)
{
	for (size_t i = first; i < first + count; i++)
		(void)__atomic_load_n(r->host + (i << r->shift), __ATOMIC_RELAXED);
	return write_protect(r, first, count, UFFDIO_WRITEPROTECT_MODE_WP);
}

/* Wakes who waits for this page. ENOENT: it is not registered any more, so nobody does. */
static int unprotect(struct bh_trace_range *r, size_t page)
{
	int result = write_protect(r, page, 1, 0);

	return result == -ENOENT ? 0 : result;
}

/* The first call is for kernels whose UNREGISTER leaves pages protected; UNREGISTER wakes everybody. */
static int release(struct bh_trace_range *r)
{
	struct uffdio_range range = {.start = (uintptr_t)r->host, .len = r->size};

	write_protect(r, 0, r->count, 0);
	return ioctl(r->trace->fd, UFFDIO_UNREGISTER, &range) < 0 ? -errno : 0;
}

const struct bh_trace_method bh_trace_userfaultfd = {
	.bit = BH_TRACE_USERFAULTFD,
	.start = start,
	.stop = stop,
	.attach = attach,
	.protect = protect,
	.unprotect = unprotect,
	.release = release,
};
