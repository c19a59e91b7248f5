/* Options of sockets, and listening: see net/socket.h. */
#include <net/socket.h>

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void set(int fd, int level, int option, int value)
{
	setsockopt(fd, level, option, &value, sizeof(value)); /* of what has no such option, nothing is wanted */
}

void bh_socket_tune(int fd)
{
	set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

void bh_socket_watch_peer(int fd)
{
	bh_socket_tune(fd);
	set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1);
	set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
	set(fd, IPPROTO_TCP, TCP_KEEPCNT, BH_PEER_LOST_MS / 1000 - 1);
	set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, BH_PEER_LOST_MS);
}

static int listen_at(const struct sockaddr *a, socklen_t size)
{
	int fd = socket(a->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), err;

	if (fd < 0)
		return -errno;
	set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (bind(fd, a, size) == 0 && listen(fd, 8) == 0)
		return fd;
	err = errno;
	close(fd);
	return -err;
}

static int listen_at_path(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	strncpy(a.sun_path, path, sizeof(a.sun_path) - 1);
	return listen_at((struct sockaddr *)&a, sizeof(a));
}

/* What was bound, with the port that was chosen. */
static void describe(int fd, char name[BH_SOCKET_NAME_SIZE])
{
	struct sockaddr_storage a;
	socklen_t size = sizeof(a);
	char host[INET6_ADDRSTRLEN + 32], port[8];

	if (getsockname(fd, (struct sockaddr *)&a, &size) == 0 &&
	    getnameinfo((struct sockaddr *)&a, size, host, sizeof(host), port, sizeof(port),
	                NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		snprintf(name, BH_SOCKET_NAME_SIZE, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

int bh_socket_listen(const struct bh_address *a, char name[BH_SOCKET_NAME_SIZE])
{
	static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST};
	struct addrinfo *found;
	int r = -EADDRNOTAVAIL;

	if (a->path) {
		snprintf(name, BH_SOCKET_NAME_SIZE, "unix:%s", a->path);
		return listen_at_path(a->path);
	}
	if (getaddrinfo(!strcmp(a->host, "localhost") ? "127.0.0.1" : a->host, a->port, &hints, &found))
		return -EINVAL;
	for (const struct addrinfo *i = found; i && r < 0; i = i->ai_next)
		r = listen_at(i->ai_addr, i->ai_addrlen);
	freeaddrinfo(found);
	if (r >= 0)
		describe(r, name);
	return r;
}

const char *bh_socket_listen_advice(int error)
{
	switch (error) {
	case -EADDRINUSE:
		return "something is there already; stop that, or choose another port or path";
	case -EADDRNOTAVAIL:
		return "that is no address of this host; use one of its own, such as 127.0.0.1";
	case -EINVAL:
		return "say an address of this machine, such as 127.0.0.1:PORT";
	case -EACCES:
	case -EPERM:
		return "choose a port of 1024 or more, or a directory you may write to";
	}
	return "choose another address";
}
