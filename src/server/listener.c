#include "listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
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

static int bind_to(int fd, const struct sockaddr_un *address)
{
	const struct sockaddr *a = (const struct sockaddr *)address;

	if (!bind(fd, a, sizeof(*address)))
		return 0;
	if (errno != EADDRINUSE || !is_left_over(address))
		return -errno;
	if (unlink(address->sun_path))
		return -errno;
	return bind(fd, a, sizeof(*address)) ? -errno : 0;
}

int bh_listener_open(struct bh_listener *l, const char *path, char *error)
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
	r = bind_to(fd, &address);
	if (r == -EADDRINUSE) {
		snprintf(error, BH_ERROR_SIZE, "socket path '%s' is in use: end what uses it, or choose another", path);
		close(fd);
		return r;
	}
	if (!r && (listen(fd, 4) || lstat(path, &st))) {
		r = -errno;
		unlink(path);
	}
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
