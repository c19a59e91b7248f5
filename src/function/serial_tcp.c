/*
 * A serial line over TCP: to a server, again and again, or as a server of one client at a
 * time; further ones wait in the kernel's queue for their turn. A peer that has ended its
 * half of the connection has gone.
 */
#include "serial_line.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/util.h>
#include <net/address.h>
#include <net/connector.h>
#include <net/socket.h>

/* Until a connection that could not be accepted is tried again. */
#define ACCEPT_AGAIN_MS 1000u

struct tcp {
	struct bh_line line;
	struct bh_line_channel channel;
	int fd; /* the connection; -1: none */

	/* a server's */
	int listener; /* -1: none */
	uv_poll_t *accepting;

	/* a client's */
	struct bh_connector *connector;
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
	bh_socket_tune(t->fd);
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

static void tcp_connected(void *data, int fd)
{
	struct tcp *t = data;

	t->fd = fd;
	if (established(t))
		return;
	t->line.failures++;
	bh_connector_try_later(t->connector);
}

static void tcp_failed(void *data, int error)
{
	struct tcp *t = data;

	(void)error;
	t->line.failures++;
}

static const struct bh_connector_ops connector_ops = {
	.connected = tcp_connected,
	.failed = tcp_failed,
};

/* --- the end -------------------------------------------------------------------------------------------- */

static void tcp_lost(struct bh_line_channel *c)
{
	struct tcp *t = to_tcp(c->line);

	hang_up(t);
	bh_line_connected(&t->line, false);
	if (t->accepting)
		uv_poll_start(t->accepting, UV_READABLE, accept_one);
	else
		bh_connector_try_later(t->connector);
}

static void tcp_free(struct tcp *t)
{
	bh_connector_destroy(t->connector);
	hang_up(t);
	if (t->accepting)
		uv_close((uv_handle_t *)t->accepting, bh_line_free_handle);
	if (t->listener >= 0)
		close(t->listener);
	bh_line_finish(&t->line);
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
	bh_connector_destroy(t->connector);
	t->connector = NULL;
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

static int start_listening(struct tcp *t, const struct bh_address *a, const char *address, char *error,
                           size_t error_size)
{
	char name[BH_SOCKET_NAME_SIZE];
	int r = bh_socket_listen(a, name);

	if (r < 0)
		return bh_line_explain(error, error_size, address, -r, bh_socket_listen_advice(r));
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
	snprintf(t->line.name, sizeof(t->line.name), "%s", name);
	return 0;
}

static int start_connecting(struct tcp *t, const struct bh_address *a)
{
	int r = bh_connector_create(t->line.loop, a, &connector_ops, t, &t->connector);

	if (r == 0)
		bh_connector_try(t->connector);
	return r;
}

int bh_line_tcp(uv_loop_t *loop, const char *address, bool listening, struct bh_line **ret, char *error,
                size_t error_size)
{
	struct tcp *t = calloc(1, sizeof(*t));
	struct bh_address a = {0};
	int r;

	if (!t)
		return bh_line_explain(error, error_size, address, ENOMEM, "free some memory");
	t->fd = t->listener = -1;
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
		r = bh_address_parse(address, listening, &a);
	if (r == 0 && listening && a.path)
		r = -EINVAL; /* what to do with a socket that is left there is not decided */
	if (r == -EINVAL)
		snprintf(error, error_size, "serial '%s': is no address; write " BH_ADDRESS_FORMS, address);
	else if (r == 0)
		r = listening ? start_listening(t, &a, address, error, error_size) : start_connecting(t, &a);
	if (r == -ENOMEM)
		bh_line_explain(error, error_size, address, ENOMEM, "free some memory");
	bh_address_free(&a);
	if (r < 0) {
		tcp_free(t);
		return r;
	}
	*ret = &t->line;
	return 0;
}
