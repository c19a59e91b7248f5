/*
 * A serial line over TCP: to a server, again and again, or as a server of one client at a
 * time; further ones wait in the kernel's queue for their turn. A peer that has ended its
 * half of the connection has gone.
 */
#include "serial_line.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/util.h>

/* Between two attempts to connect; doubled when one fails. */
#define RETRY_MS     100u
#define RETRY_MAX_MS 3200u

/* Until a connection that could not be accepted is tried again. */
#define ACCEPT_AGAIN_MS 1000u

struct tcp;

/* A look-up under way; it outlives a line that closes. */
struct lookup {
	uv_getaddrinfo_t request;
	struct tcp *tcp; /* NULL: nobody waits for it */
};

struct tcp {
	struct bh_line line;
	struct bh_line_channel channel;
	char *host, *port;
	int fd; /* the connection, or an attempt; -1: none */

	/* a server's */
	int listener; /* -1: none */
	uv_poll_t *accepting;

	/* a client's */
	struct lookup *lookup;
	struct addrinfo *addresses, *next; /* what was found, and what is to be tried */
	uv_poll_t *connecting;
	unsigned retry_ms;
};

static struct tcp *to_tcp(struct bh_line *l)
{
	return bh_container_of(l, struct tcp, line);
}

/* --- connections ------------------------------------------------------------------------------- */

static void hang_up(struct tcp *t)
{
	bh_line_channel_detach(&t->channel);
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
}

/* Ours is the connection in t->fd. False: it could not be used, and is closed. */
static bool established(struct tcp *t)
{
	static const int on = 1;

	setsockopt(t->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(t->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	if (bh_line_channel_attach(&t->channel, t->fd) < 0) {
		hang_up(t);
		return false;
	}
	bh_line_connected(&t->line, true);
	t->line.upcalls->moved(&t->line);
	return true;
}

/* --- the server's side ------------------------------------------------------------------------------ */

static void accept_one(uv_poll_t *p, int status, int events);

static void accept_again(uv_timer_t *timer)
{
	struct tcp *t = to_tcp(timer->data);

	uv_poll_start(t->accepting, UV_READABLE, accept_one);
}

static void accept_one(uv_poll_t *p, int status, int events)
{
	struct tcp *t = p->data;

	(void)status, (void)events;
	t->fd = accept4(t->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (t->fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED))
		return;
	uv_poll_stop(t->accepting);
	if (t->fd >= 0 && established(t))
		return;
	t->line.failures++; /* no descriptors or no memory: not before it may have changed */
	uv_timer_start(t->line.timer, accept_again, ACCEPT_AGAIN_MS, 0);
}

/* --- the client's side -------------------------------------------------------------------------------- */

static void look_up(struct tcp *t);

static void retry(uv_timer_t *timer)
{
	look_up(to_tcp(timer->data));
}

static void forget_addresses(struct tcp *t)
{
	uv_freeaddrinfo(t->addresses);
	t->addresses = t->next = NULL;
}

static void retry_later(struct tcp *t)
{
	forget_addresses(t);
	uv_timer_start(t->line.timer, retry, t->retry_ms, 0);
	t->retry_ms = BH_MIN(2 * t->retry_ms, RETRY_MAX_MS);
}

static void stop_connecting(struct tcp *t)
{
	if (t->connecting)
		uv_close((uv_handle_t *)t->connecting, bh_line_free_handle);
	t->connecting = NULL;
}

/* A port that nobody listens on, and that the kernel then chooses for us, is connected to itself. */
static bool to_itself(int fd)
{
	struct sockaddr_storage here = {0}, there = {0};
	socklen_t here_size = sizeof(here), there_size = sizeof(there);

	return getsockname(fd, (struct sockaddr *)&here, &here_size) == 0 &&
	       getpeername(fd, (struct sockaddr *)&there, &there_size) == 0 && here_size == there_size &&
	       memcmp(&here, &there, here_size) == 0;
}

static void try_next(struct tcp *t);

/* The attempt in t->fd has ended. */
static void attempted(struct tcp *t, int err)
{
	if (err == 0 && !to_itself(t->fd)) {
		forget_addresses(t);
		t->retry_ms = RETRY_MS;
		if (!established(t)) {
			t->line.failures++;
			retry_later(t);
		}
		return;
	}
	t->line.failures++;
	hang_up(t);
	try_next(t);
}

static void connect_ready(uv_poll_t *p, int status, int events)
{
	struct tcp *t = p->data;
	int err = 0;
	socklen_t size = sizeof(err);

	(void)status, (void)events;
	stop_connecting(t);
	if (getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &err, &size) < 0)
		err = errno;
	attempted(t, err);
}

/* 0: connected; -EINPROGRESS: connect_ready() comes; else it failed. */
static int attempt(struct tcp *t, const struct addrinfo *a)
{
	int r;

	t->fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (t->fd < 0)
		return -errno;
	if (connect(t->fd, a->ai_addr, a->ai_addrlen) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return -errno;
	t->connecting = malloc(sizeof(*t->connecting));
	if (!t->connecting)
		return -ENOMEM;
	r = uv_poll_init(t->line.loop, t->connecting, t->fd);
	if (r < 0) {
		free(t->connecting);
		t->connecting = NULL;
		return r;
	}
	t->connecting->data = t;
	uv_poll_start(t->connecting, UV_WRITABLE, connect_ready);
	return -EINPROGRESS;
}

static void try_next(struct tcp *t)
{
	struct addrinfo *a = t->next;
	int r;

	if (!a) {
		retry_later(t);
		return;
	}
	t->next = a->ai_next;
	r = attempt(t, a);
	if (r != -EINPROGRESS)
		attempted(t, -r);
}

static void looked_up(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
	struct lookup *l = bh_container_of(request, struct lookup, request);
	struct tcp *t = l->tcp;

	free(l);
	if (!t) {
		uv_freeaddrinfo(found);
		return;
	}
	t->lookup = NULL;
	t->addresses = t->next = status < 0 ? NULL : found;
	t->line.failures += status < 0;
	try_next(t);
}

static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};

static void look_up(struct tcp *t)
{
	t->lookup = calloc(1, sizeof(*t->lookup));
	if (t->lookup) {
		t->lookup->tcp = t;
		if (uv_getaddrinfo(t->line.loop, &t->lookup->request, looked_up, t->host, t->port, &hints) == 0)
			return;
		free(t->lookup);
		t->lookup = NULL;
	}
	t->line.failures++;
	retry_later(t);
}

/* --- the end -------------------------------------------------------------------------------------------- */

static void tcp_lost(struct bh_line_channel *c)
{
	struct tcp *t = to_tcp(c->line);

	hang_up(t);
	bh_line_connected(&t->line, false);
	if (t->accepting)
		uv_poll_start(t->accepting, UV_READABLE, accept_one);
	else
		retry_later(t);
}

static void tcp_free(struct tcp *t)
{
	stop_connecting(t);
	hang_up(t);
	if (t->accepting)
		uv_close((uv_handle_t *)t->accepting, bh_line_free_handle);
	if (t->listener >= 0)
		close(t->listener);
	if (t->lookup) {
		t->lookup->tcp = NULL;
		uv_cancel((uv_req_t *)&t->lookup->request);
	}
	forget_addresses(t);
	bh_line_finish(&t->line);
	free(t->host);
	free(t->port);
	free(t);
}

static void tcp_drained(struct bh_line_channel *c, int error)
{
	struct tcp *t = to_tcp(c->line);

	t->line.upcalls->finished(&t->line, error);
	tcp_free(t);
}

/* Has the peer's kernel all of it? Closing with something unread would take back what it has not. */
static bool tcp_delivered(struct bh_line_channel *c)
{
	int left = 0;

	shutdown(c->fd, SHUT_WR); /* again and again: it does no harm */
	return ioctl(c->fd, SIOCOUTQ, &left) < 0 || left == 0;
}

static void tcp_close(struct bh_line *l)
{
	struct tcp *t = to_tcp(l);

	uv_timer_stop(l->timer);
	if (t->accepting)
		uv_poll_stop(t->accepting);
	if (t->channel.poll)
		bh_line_channel_drain(&t->channel);
	else
		tcp_drained(&t->channel, l->to_peer.used ? -ENOTCONN : 0);
}

static void tcp_wake(struct bh_line *l)
{
	bh_line_channel_wake(&to_tcp(l)->channel);
}

static const struct bh_line_ops tcp_ops = {
	.wake = tcp_wake,
	.close = tcp_close,
};

/* --- the beginning ------------------------------------------------------------------------------------------ */

/* HOST:PORT or [HOST]:PORT into two strings of their own. 0, -EINVAL or -ENOMEM. */
static int split(struct tcp *t, const char *address, bool listening)
{
	const char *colon = strrchr(address, ':');
	size_t length = colon ? (size_t)(colon - address) : 0;
	unsigned long port;

	if (!length || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1) || strlen(colon + 1) > 5)
		return -EINVAL;
	port = strtoul(colon + 1, NULL, 10);
	if (port > 65535 || (port == 0 && !listening))
		return -EINVAL;
	if (address[0] == '[') {
		if (length < 3 || address[length - 1] != ']')
			return -EINVAL;
		address++;
		length -= 2;
	} else if (memchr(address, ':', length)) {
		return -EINVAL;
	}
	t->host = strndup(address, length);
	t->port = strdup(colon + 1);
	return t->host && t->port ? 0 : -ENOMEM;
}

/* A socket that listens, or a negative errno. */
static int listen_at(const struct addrinfo *a)
{
	static const int on = 1;
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), err;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 8) == 0)
		return fd;
	err = errno;
	close(fd);
	return -err;
}

/* What was bound, with the port that was chosen. */
static void name_listener(struct tcp *t)
{
	struct sockaddr_storage a;
	socklen_t size = sizeof(a);
	char host[INET6_ADDRSTRLEN + 32], port[8];

	if (getsockname(t->listener, (struct sockaddr *)&a, &size) == 0 &&
	    getnameinfo((struct sockaddr *)&a, size, host, sizeof(host), port, sizeof(port),
	                NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		snprintf(t->line.name, sizeof(t->line.name), strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

static const char *listen_advice(int err)
{
	switch (err) {
	case EADDRINUSE:
		return "something listens there; stop that, or choose another port";
	case EADDRNOTAVAIL:
		return "that is no address of this host; use one of its own, such as 127.0.0.1";
	case EACCES:
	case EPERM:
		return "choose a port of 1024 or more";
	}
	return "choose another address";
}

static int start_listening(struct tcp *t, const char *address, char *error, size_t error_size)
{
	/* An address of this machine, as it is: looking for a name could take long, and the guest would stand still. */
	struct addrinfo numeric = hints;
	const char *host = t->host && !strcmp(t->host, "localhost") ? "127.0.0.1" : t->host;
	uv_getaddrinfo_t request;
	int r;

	numeric.ai_flags |= AI_NUMERICHOST;
	r = uv_getaddrinfo(t->line.loop, &request, NULL, host, t->port, &numeric);
	if (r < 0) {
		snprintf(error, error_size, "serial '%s': %s; say an address of this machine, such as 127.0.0.1:PORT", address,
		         uv_strerror(r));
		return -EINVAL;
	}
	r = -EADDRNOTAVAIL;
	for (const struct addrinfo *a = request.addrinfo; a && r < 0; a = a->ai_next)
		r = listen_at(a);
	uv_freeaddrinfo(request.addrinfo);
	if (r < 0)
		return bh_line_explain(error, error_size, address, -r, listen_advice(-r));
	t->listener = r;
	t->accepting = malloc(sizeof(*t->accepting));
	r = t->accepting ? uv_poll_init(t->line.loop, t->accepting, t->listener) : -ENOMEM;
	if (r < 0) {
		free(t->accepting);
		t->accepting = NULL;
		return bh_line_explain(error, error_size, address, -r, "free some memory");
	}
	t->accepting->data = t;
	uv_poll_start(t->accepting, UV_READABLE, accept_one);
	name_listener(t);
	return 0;
}

int bh_line_tcp(uv_loop_t *loop, const char *address, bool listening, struct bh_line **ret, char *error,
                size_t error_size)
{
	struct tcp *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return bh_line_explain(error, error_size, address, ENOMEM, "free some memory");
	t->fd = t->listener = -1;
	t->retry_ms = RETRY_MS;
	t->channel = (struct bh_line_channel){
		.line = &t->line,
		.is_socket = true,
		.lost = tcp_lost,
		.delivered = tcp_delivered,
		.drained = tcp_drained,
	};
	snprintf(t->line.name, sizeof(t->line.name), "%s", address);
	r = bh_line_init(&t->line, loop, &tcp_ops);
	if (r == 0)
		r = split(t, address, listening);
	if (r == -ENOMEM)
		bh_line_explain(error, error_size, address, ENOMEM, "free some memory");
	else if (r < 0)
		snprintf(error, error_size, "serial '%s': is no address; write HOST:PORT, or [ADDRESS]:PORT for IPv6",
		         address);
	else if (listening)
		r = start_listening(t, address, error, error_size);
	else
		uv_timer_start(t->line.timer, retry, 0, 0); /* in the loop, when the device knows its line */
	if (r < 0) {
		tcp_free(t);
		return r;
	}
	*ret = &t->line;
	return 0;
}
