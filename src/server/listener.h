/* The socket clients connect to. */
#ifndef SERVER_LISTENER_H
#define SERVER_LISTENER_H

#include <stdbool.h>
#include <sys/types.h>

struct bh_listener {
	int fd;
	bool connected;   /* fd is a client already, the only one there will be */
	const char *path; /* made by us, to be removed; NULL: passed in */
	dev_t device;
	ino_t inode;
};

/*
 * Listens at path. What a server that is gone has left there is replaced; what
 * anybody else has there is not touched. mode: who may connect, less the umask. 0, or a
 * negative errno with one line in error (BH_ERROR_SIZE).
 */
int bh_listener_open(struct bh_listener *l, const char *path, mode_t mode, char *error);

/* A socket passed in; it is the listener's from here on, where this succeeds. */
int bh_listener_adopt(struct bh_listener *l, int fd, char *error);

void bh_listener_close(struct bh_listener *l);

#endif
