/*
 * Making, adopting and removing the socket, without touching what is somebody else's.
 * Accepting clients is serve.c's.
 */
#include "listener.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "options.h"

/* Is there a socket at this address that nobody listens to any more? */
static bool is_left_over(const struct sockaddr_un *address)
{
	struct stat st;
	int fd, r;

	if (lstat(address->sun_path, &st) || !S_ISSOCK(st.st_mode))
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	r = connect(fd, (const struct sockaddr *)address, sizeof(*address)) ? errno : 0;
	close(fd);
	return r == ECONNREFUSED;
}

/*
 * Only one of several servers may look at what is there and replace it, or the
 * second would take away what the first has just made: a lock on the directory.
 */
static int lock_directory(const char *path)
{
	char *copy = strdup(path);
	int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	free(copy);
	/* Held for microseconds by our like; whoever else holds it is not waited for long. */
	for (int tries = 0; fd >= 0 && tries < 200 && flock(fd, LOCK_EX | LOCK_NB); tries++)
		usleep(1000);
	return fd;
}

static int bind_and_listen(int fd, const struct sockaddr_un *address)
{
	const struct sockaddr *a = (const struct sockaddr *)address;
	int r = bind(fd, a, sizeof(*address)) ? -errno : 0;

	if (r == -EADDRINUSE && is_left_over(address)) {
		if (unlink(address->sun_path))
			return -errno;
		r = bind(fd, a, sizeof(*address)) ? -errno : 0;
	}
	if (!r && listen(fd, 4)) {
		r = -errno;
		unlink(address->sun_path);
	}
	return r;
}

static int make_socket(int fd, const struct sockaddr_un *address)
{
	int lock = lock_directory(address->sun_path);
	int r = bind_and_listen(fd, address);

	if (lock >= 0)
		close(lock);
	return r;
}

int bh_listener_open(struct bh_listener *l, const char *path, mode_t mode, char *error)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat st;
	int fd, r;

	if (strlen(path) >= sizeof(address.sun_path) || !*path) {
		snprintf(error, BH_ERROR_SIZE, "socket path '%s' must have 1 to %zu characters: choose a shorter one", path,
		         sizeof(address.sun_path) - 1);
		return -ENAMETOOLONG;
	}
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		r = -errno;
		snprintf(error, BH_ERROR_SIZE, "no socket to be had: %s", strerror(-r));
		return r;
	}
	r = fchmod(fd, mode) ? -errno : make_socket(fd, &address); /* it is made with this mode */
	if (r == -EADDRINUSE) {
		snprintf(error, BH_ERROR_SIZE, "socket path '%s' is in use: end what uses it, or choose another", path);
		close(fd);
		return r;
	}
	if (!r && lstat(path, &st))
		r = -errno;
	if (r) {
		snprintf(error, BH_ERROR_SIZE, "cannot listen at '%s': %s; choose a path in a directory you may write to", path,
		         strerror(-r));
		close(fd);
		return r;
	}
	*l = (struct bh_listener){.fd = fd, .path = path, .device = st.st_dev, .inode = st.st_ino};
	return 0;
}

int bh_listener_adopt(struct bh_listener *l, int fd, char *error)
{
	int type = 0, listening = 0;
	struct sockaddr_storage address;
	socklen_t size = sizeof(type), address_size = sizeof(address);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) || type != SOCK_STREAM ||
	    getsockname(fd, (struct sockaddr *)&address, &address_size) || address.ss_family != AF_UNIX) {
		snprintf(error, BH_ERROR_SIZE, "file descriptor %d is no Unix stream socket: pass a listening or connected one",
		         fd);
		return -ENOTSOCK;
	}
	size = sizeof(listening);
	getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size);
	address_size = sizeof(address);
	if (!listening && getpeername(fd, (struct sockaddr *)&address, &address_size)) {
		snprintf(error, BH_ERROR_SIZE, "file descriptor %d is a socket that neither listens nor is connected", fd);
		return -ENOTCONN;
	}
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (listening)
		fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	*l = (struct bh_listener){.fd = fd, .connected = !listening};
	return 0;
}

/* Removes the path only if what is there is still ours. */
void bh_listener_close(struct bh_listener *l)
{
	struct stat st;

	if (l->path && !lstat(l->path, &st) && st.st_dev == l->device && st.st_ino == l->inode)
		unlink(l->path);
	if (l->fd >= 0)
		close(l->fd);
	*l = (struct bh_listener){.fd = -1};
}
