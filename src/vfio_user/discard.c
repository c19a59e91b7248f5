/*
 * Closing file descriptors that a client sent and that are not what it may send.
 * close() can wait: a socket lingers over what nobody reads, a file on FUSE asks its
 * server. What cannot wait (memory, eventfds) is closed at once; the rest is left to
 * a thread, so that the controller's own never sleeps there. If that thread sleeps
 * for good and its queue is full, descriptors stay open; the next message that needs
 * one is refused for want of it, and the server goes on.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "internal.h"

#define QUEUE_SIZE 512u

static struct {
	pthread_mutex_t lock;
	pthread_cond_t more;
	bool running;
	int fds[QUEUE_SIZE];
	unsigned first, count;
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};

static void *close_all(void *nothing)
{
	for (;;) {
		int fd;

		pthread_mutex_lock(&queue.lock);
		while (!queue.count)
			pthread_cond_wait(&queue.more, &queue.lock);
		fd = queue.fds[queue.first];
		queue.first = (queue.first + 1) % QUEUE_SIZE;
		queue.count--;
		pthread_mutex_unlock(&queue.lock);
		close(fd);
	}
	return nothing;
}

/* Signals are the main thread's: this one is born with all of them blocked. */
static bool start_thread(void)
{
	sigset_t all, before;
	pthread_t thread;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	r = pthread_create(&thread, NULL, close_all, NULL);
	if (!r)
		pthread_detach(thread);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return !r;
}

bool vfu_is_memory(int fd)
{
	return fcntl(fd, F_GET_SEALS) >= 0; /* answered by tmpfs and hugetlbfs alone, and at once */
}

void vfu_discard(int fd)
{
	if (vfu_is_memory(fd) || vfu_is_eventfd(fd)) {
		close(fd);
		return;
	}
	pthread_mutex_lock(&queue.lock);
	if (!queue.running)
		queue.running = start_thread();
	if (queue.running && queue.count < QUEUE_SIZE) {
		queue.fds[(queue.first + queue.count++) % QUEUE_SIZE] = fd;
		pthread_cond_signal(&queue.more);
	}
	pthread_mutex_unlock(&queue.lock);
}
