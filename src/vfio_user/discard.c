/*
 * Closing file descriptors that a client sent and that are not what it may send.
 * close() can wait: a socket lingers over what nobody reads, a file on FUSE asks its
 * server. What cannot wait (memory, eventfds) is closed at once; for the rest there
 * are a few threads of a moment, so that the controller's own never sleeps there.
 * Where all of them sleep the descriptor is left open: the client that did this is
 * limited to so many descriptors a message, and we to so many altogether.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

#include "internal.h"

#define MAX_CLOSERS 16

static atomic_int closers;

static void *close_there(void *fd)
{
	close((int)(intptr_t)fd);
	atomic_fetch_sub(&closers, 1);
	return NULL;
}

bool vfu_is_memory(int fd)
{
	return fcntl(fd, F_GET_SEALS) >= 0; /* answered by tmpfs and hugetlbfs alone, and at once */
}

void vfu_discard(int fd)
{
	pthread_attr_t attributes;
	sigset_t all, before;
	pthread_t thread;

	if (vfu_is_memory(fd) || vfu_is_eventfd(fd)) {
		close(fd);
		return;
	}
	if (atomic_fetch_add(&closers, 1) >= MAX_CLOSERS) {
		atomic_fetch_sub(&closers, 1);
		return;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's */
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &attributes, close_there, (void *)(intptr_t)fd))
		atomic_fetch_sub(&closers, 1);
	pthread_attr_destroy(&attributes);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}
