/* What a server exports: one connection, one request, one answer. See host/usbip.h. */
#include "usbip_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <net/connector.h>
#include <net/socket.h>

/* For all of it. */
#define QUERY_MS 8000u

/* What may come at once. */
#define BUFFER_BYTES 4096u

struct bh_usbip_list {
	/* configuration */
	uv_loop_t *loop;
	const struct bh_usbip_list_ops *ops;
	void *data;
	struct bh_connector *connector;
	uv_timer_t *timer; /* on the heap, for it is closed late */

	/* state */
	int fd; /* -1: none */
	uv_poll_t *poll;
	uint8_t piece[sizeof(struct bh_usbip_device)];
	size_t have, want;
	bool (*take)(struct bh_usbip_list *l); /* what came; false: it is over, and the query freed */
	uint32_t devices;                      /* that are still to come */
	struct bh_usbip_device_fields device;
	struct bh_usbip_interface interfaces[UINT8_MAX];
	unsigned interface_count;
};

static void free_handle(uv_handle_t *h)
{
	free(h);
}

void bh_usbip_list_stop(struct bh_usbip_list *l)
{
	bh_connector_destroy(l->connector);
	if (l->poll)
		uv_close((uv_handle_t *)l->poll, free_handle);
	if (l->fd >= 0)
		close(l->fd);
	if (l->timer)
		uv_close((uv_handle_t *)l->timer, free_handle);
	free(l);
}

/* Always false, as take's. */
static bool over(struct bh_usbip_list *l, int error, const char *text)
{
	const struct bh_usbip_list_ops *ops = l->ops;
	void *data = l->data;

	bh_usbip_list_stop(l);
	ops->done(data, error, text);
	return false;
}

static bool failed(struct bh_usbip_list *l, const char *what, int error)
{
	char text[160];

	snprintf(text, sizeof(text), "%s (%s)", what, strerror(-error));
	return over(l, error, text);
}

/* --- the answer ------------------------------------------------------------------------------- */

static void expect(struct bh_usbip_list *l, size_t want, bool (*take)(struct bh_usbip_list *l))
{
	l->have = 0;
	l->want = want;
	l->take = take;
}

static bool take_device(struct bh_usbip_list *l);

/* The next device, or the end. */
static bool go_on(struct bh_usbip_list *l)
{
	if (!l->devices)
		return over(l, 0, NULL);
	l->devices--;
	expect(l, sizeof(struct bh_usbip_device), take_device);
	return true;
}

static bool tell_device(struct bh_usbip_list *l)
{
	l->ops->device(l->data, &l->device, l->interfaces, l->interface_count);
	return go_on(l);
}

static bool take_interface(struct bh_usbip_list *l)
{
	memcpy(&l->interfaces[l->interface_count++], l->piece, sizeof(l->interfaces[0]));
	l->have = 0;
	return l->interface_count < l->device.interfaces || tell_device(l);
}

static bool take_device(struct bh_usbip_list *l)
{
	struct bh_usbip_device wire;

	memcpy(&wire, l->piece, sizeof(wire));
	l->device = bh_usbip_get_device(&wire);
	l->interface_count = 0;
	if (!l->device.interfaces)
		return tell_device(l);
	expect(l, sizeof(struct bh_usbip_interface), take_interface);
	return true;
}

static bool take_reply(struct bh_usbip_list *l)
{
	struct bh_usbip_devlist_reply wire;
	struct bh_usbip_operation_fields op;

	memcpy(&wire, l->piece, sizeof(wire));
	op = bh_usbip_get_op(&wire.header);
	l->devices = bh_get_be32(wire.count);
	if (op.code != BH_USBIP_REP_DEVLIST)
		return over(l, -EPROTO, "it is no USB/IP server that answers there");
	if (op.version != BH_USBIP_VERSION)
		return over(l, -EPROTO, "the server speaks another version of USB/IP than 1.1.1");
	if (op.status != BH_USBIP_OK)
		return over(l, -EPROTO, "the server does not say what it exports");
	if (l->devices > BH_USBIP_LIST_DEVICES)
		return over(l, -EPROTO, "the server says that it exports more devices than there can be");
	return go_on(l);
}

static bool feed(struct bh_usbip_list *l, const uint8_t *bytes, size_t count)
{
	while (count) {
		size_t n = BH_MIN(count, l->want - l->have);

		memcpy(l->piece + l->have, bytes, n);
		l->have += n;
		bytes += n;
		count -= n;
		if (l->have == l->want && !l->take(l))
			return false;
	}
	return true;
}

static void receive(struct bh_usbip_list *l)
{
	uint8_t buffer[BUFFER_BYTES];
	ssize_t n = recv(l->fd, buffer, sizeof(buffer), MSG_DONTWAIT);

	if (n > 0)
		feed(l, buffer, (size_t)n);
	else if (n == 0)
		over(l, -ECONNRESET, "the server has closed the connection without a whole answer");
	else if (errno != EINTR && errno != EAGAIN && errno != EWOULDBLOCK)
		failed(l, "the connection was lost", -errno);
}

/* --- the question ------------------------------------------------------------------------------- */

static void ready(uv_poll_t *p, int status, int events);

/* Eight bytes, which a socket that was just connected takes. */
static void ask(struct bh_usbip_list *l)
{
	struct bh_usbip_op_header request = bh_usbip_put_op(BH_USBIP_REQ_DEVLIST, BH_USBIP_OK);

	if (send(l->fd, &request, sizeof(request), MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)sizeof(request)) {
		failed(l, "the connection was lost", errno ? -errno : -ECONNRESET);
		return;
	}
	expect(l, sizeof(struct bh_usbip_devlist_reply), take_reply);
	uv_poll_start(l->poll, UV_READABLE, ready);
}

static void ready(uv_poll_t *p, int status, int events)
{
	struct bh_usbip_list *l = p->data;

	(void)status, (void)events;
	receive(l); /* which tells an error, too */
}

static void connected(void *data, int fd)
{
	struct bh_usbip_list *l = data;
	int r = -ENOMEM;

	l->fd = fd;
	bh_socket_watch_peer(fd);
	l->poll = malloc(sizeof(*l->poll));
	if (l->poll)
		r = uv_poll_init(l->loop, l->poll, fd);
	if (r < 0) {
		free(l->poll);
		l->poll = NULL;
		failed(l, "there is a connection, which cannot be used", r);
		return;
	}
	l->poll->data = l;
	ask(l);
}

static void not_connected(void *data, int error)
{
	failed(data, "there is no connection", error);
}

static void took_too_long(uv_timer_t *timer)
{
	over(timer->data, -ETIMEDOUT, "the server does not answer");
}

static const struct bh_connector_ops connector_ops = {
	.connected = connected,
	.failed = not_connected,
};

static struct bh_usbip_list *create(uv_loop_t *loop, const struct bh_address *a)
{
	struct bh_usbip_list *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->loop = loop;
	l->fd = -1;
	l->timer = malloc(sizeof(*l->timer));
	if (l->timer) {
		uv_timer_init(loop, l->timer);
		l->timer->data = l;
		if (bh_connector_create(loop, a, &connector_ops, l, &l->connector) == 0)
			return l;
	}
	bh_usbip_list_stop(l);
	return NULL;
}

int bh_usbip_list(uv_loop_t *loop, const char *host, const struct bh_usbip_list_ops *ops, void *data,
                  struct bh_usbip_list **ret, char *error, size_t error_size)
{
	struct bh_address a;
	struct bh_usbip_list *l;
	int r = bh_usbip_address(host, &a);

	if (r == -EINVAL) {
		snprintf(error, error_size, "%s: is no address; write HOST, HOST:PORT, or [ADDRESS]:PORT for IPv6", host);
		return r;
	}
	l = r == 0 ? create(loop, &a) : NULL;
	bh_address_free(&a);
	if (!l) {
		snprintf(error, error_size, "%s", strerror(ENOMEM));
		return -ENOMEM;
	}
	l->ops = ops;
	l->data = data;
	uv_timer_start(l->timer, took_too_long, QUERY_MS, 0);
	bh_connector_try(l->connector);
	*ret = l;
	return 0;
}
