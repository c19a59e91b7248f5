/*
 * The connection to a usbredir server, with a parser of its own: see usbredir_private.h.
 *
 * Nothing is torn down where it breaks, which may be deep inside the parser: it is only noted,
 * and done from the loop.
 */
#include "usbredir_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/util.h>
#include <net/connector.h>
#include <net/socket.h>

#define BUFFER_BYTES 65536u

/* What one connection may bring before others have their turn. */
#define BUDGET_BYTES (1u << 20)

/* How often what is owed is looked at, while something is. */
#define WATCH_MS 1000u

static void free_handle(uv_handle_t *h)
{
	free(h);
}

/* --- breaking, and what is owed ---------------------------------------------------------- */

static void close_connection(struct bh_redir_link *l)
{
	uv_timer_stop(l->timer);
	if (l->poll)
		uv_close((uv_handle_t *)l->poll, free_handle);
	l->poll = NULL;
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	if (l->parser)
		usbredirparser_destroy(l->parser);
	l->parser = NULL;
	free(l->buffer);
	l->buffer = NULL;
}

/* From the loop only. */
static void tear_down(struct bh_redir *u)
{
	struct bh_redir_link *l = &u->link;

	u->counters.failures += l->faulty || !l->greeted;
	bh_redir_lost(u, l->why);
	l->said = !l->greeted;
	l->greeted = false;
	close_connection(l);
	if (l->connector)
		bh_connector_try_later(l->connector);
}

static void watch(uv_timer_t *timer);

void bh_redir_link_break(struct bh_redir *u, const char *why)
{
	struct bh_redir_link *l = &u->link;

	if (l->broken || l->fd < 0)
		return;
	l->broken = true;
	snprintf(l->why, sizeof(l->why), "%s", why);
	uv_timer_start(l->timer, watch, 0, 0);
}

static void break_for(struct bh_redir *u, const char *what, int err)
{
	char why[160];

	snprintf(why, sizeof(why), "%s (%s)", what, strerror(err));
	bh_redir_link_break(u, why);
}

static void break_faulty(struct bh_redir *u, const char *what)
{
	char why[160];

	snprintf(why, sizeof(why), "the connection was dropped: %s", what);
	bh_redir_link_break(u, why);
	u->link.faulty = true;
}

/* Is something owed? And for too long? */
static bool owed(struct bh_redir *u, bool *late)
{
	uint64_t now = uv_now(u->loop);
	bool any = !u->link.greeted;

	*late = any && now - u->link.since_ms > BH_REDIR_OWED_MS;
	bh_list_each(r, &u->sent, struct bh_redir_request, link) {
		if (!bh_redir_request_owed(r))
			continue;
		any = true;
		*late |= now - r->since_ms > BH_REDIR_OWED_MS;
	}
	return any;
}

static void watch(uv_timer_t *timer)
{
	struct bh_redir *u = timer->data;
	bool late;

	if (u->link.broken) {
		tear_down(u);
		return;
	}
	if (!owed(u, &late))
		uv_timer_stop(timer);
	else if (late)
		break_faulty(u, u->link.greeted ? "the peer does not answer" : "the peer says no hello");
}

void bh_redir_link_watch(struct bh_redir *u)
{
	if (!uv_is_active((uv_handle_t *)u->link.timer))
		uv_timer_start(u->link.timer, watch, WATCH_MS, WATCH_MS);
}

/* --- receiving -------------------------------------------------------------------------------- */

bool bh_redir_link_can(const struct bh_redir *u, int capability)
{
	struct usbredirparser *p = u->link.parser;

	return usbredirparser_have_peer_caps(p) && usbredirparser_have_cap(p, capability) &&
	       usbredirparser_peer_has_cap(p, capability);
}

/* As much as there is, but not more than the budget. 0: nothing now, or the connection has ended. */
static size_t receive(struct bh_redir *u, uint8_t *to, size_t room)
{
	struct bh_redir_link *l = &u->link;
	ssize_t n;

	room = BH_MIN(room, l->budget);
	if (!room)
		return 0;
	do
		n = recv(l->fd, to, room, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		l->budget -= (size_t)n;
		return (size_t)n;
	}
	if (n == 0)
		bh_redir_link_break(u, "the peer has closed the connection");
	else if (errno != EAGAIN && errno != EWOULDBLOCK)
		break_for(u, "the connection was lost", errno);
	return 0;
}

/* For the parser, which asks for a header, or what is behind it, but never for both. */
static int parser_reads(void *priv, uint8_t *data, int count)
{
	struct bh_redir *u = priv;
	struct bh_redir_link *l = &u->link;
	size_t room = (size_t)count, n;
	const char *why;

	if (l->broken)
		return -1;
	if (l->from == l->used && room < BUFFER_BYTES) {
		l->from = 0;
		l->used = receive(u, l->buffer, BUFFER_BYTES);
	}
	if (l->from < l->used) {
		n = BH_MIN(room, l->used - l->from);
		memcpy(data, l->buffer + l->from, n);
		l->from += n;
	} else {
		n = room < BUFFER_BYTES ? 0 : receive(u, data, room); /* without a copy */
	}
	if (l->broken)
		return -1;
	why = bh_redir_guard_pass(&l->guard, bh_redir_link_can(u, usb_redir_cap_64bits_ids) ? 16 : 12, data, n);
	if (why) {
		break_faulty(u, why);
		return -1;
	}
	return (int)n;
}

static void read_in(struct bh_redir *u)
{
	struct bh_redir_link *l = &u->link;

	l->budget = BUDGET_BYTES;
	if (usbredirparser_do_read(l->parser) == usbredirparser_read_parse_error)
		break_faulty(u, "a message came that makes no sense");
}

/* --- sending --------------------------------------------------------------------------------------- */

static void ready(uv_poll_t *p, int status, int events);

static void set_interest(struct bh_redir_link *l)
{
	bool writing = usbredirparser_has_data_to_write(l->parser);

	uv_poll_start(l->poll, writing ? UV_READABLE | UV_WRITABLE : UV_READABLE, ready);
}

static int parser_writes(void *priv, uint8_t *data, int count)
{
	struct bh_redir *u = priv;
	ssize_t n;

	do
		n = send(u->link.fd, data, (size_t)count, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return (int)n;
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return 0;
	break_for(u, "the connection was lost", errno);
	return -1;
}

static void write_out(struct bh_redir *u)
{
	struct bh_redir_link *l = &u->link;

	if (l->broken)
		return;
	usbredirparser_do_write(l->parser);
	if (!l->broken)
		set_interest(l);
}

bool bh_redir_link_room(const struct bh_redir *u)
{
	const struct bh_redir_link *l = &u->link;

	return l->parser && !l->broken && usbredirparser_get_bufferered_output_size(l->parser) < BH_REDIR_OUTPUT;
}

int bh_redir_link_begin(const struct bh_redir *u)
{
	return usbredirparser_has_data_to_write(u->link.parser);
}

void bh_redir_link_sent(struct bh_redir *u, int begin)
{
	if (usbredirparser_has_data_to_write(u->link.parser) == begin)
		break_for(u, "the connection was dropped", ENOMEM);
	if (begin == 0)
		write_out(u); /* else the socket is full, and the poll tells when it is not; then what waits has its turn */
}

/* --- the connection ---------------------------------------------------------------------------------- */

/* status: an error of the socket's, which stays to be asked for. */
static void ready(uv_poll_t *p, int status, int events)
{
	struct bh_redir *u = p->data;
	struct bh_redir_link *l = &u->link;
	int err = 0;
	socklen_t size = sizeof(err);

	if (status < 0) {
		getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &err, &size);
		break_for(u, "the connection was lost", err ? err : ECONNRESET);
	}
	if (!l->broken && events & UV_READABLE)
		read_in(u);
	if (!l->broken && usbredirparser_has_data_to_write(l->parser)) { /* the parser may have answered, too */
		write_out(u);
		bh_redir_pump(u);
	}
	if (l->broken)
		tear_down(u);
}

static void parser_says(void *priv, int level, const char *text)
{
	(void)priv, (void)level, (void)text; /* what matters is said in our own words */
}

static void parser_greeted(void *priv, struct usb_redir_hello_header *hello)
{
	struct bh_redir *u = priv;

	(void)hello;
	u->link.greeted = true;
	u->link.said = false;
	u->counters.connections++;
	bh_redir_greeted(u);
}

static int make_parser(struct bh_redir *u)
{
	struct bh_redir_link *l = &u->link;
	uint32_t capabilities[USB_REDIR_CAPS_SIZE] = {0};
	static const int ours[] = {
		usb_redir_cap_connect_device_version, usb_redir_cap_filter,     usb_redir_cap_device_disconnect_ack,
		usb_redir_cap_ep_info_max_packet_size, usb_redir_cap_64bits_ids, usb_redir_cap_32bits_bulk_length,
	};

	l->parser = usbredirparser_create();
	if (!l->parser)
		return -ENOMEM;
	l->parser->priv = u;
	l->parser->log_func = parser_says;
	l->parser->read_func = parser_reads;
	l->parser->write_func = parser_writes;
	l->parser->hello_func = parser_greeted;
	bh_redir_listen(u, l->parser);
	for (size_t i = 0; i < BH_COUNT(ours); i++)
		usbredirparser_caps_set_cap(capabilities, ours[i]);
	usbredirparser_init(l->parser, "bulkhead", capabilities, USB_REDIR_CAPS_SIZE, 0);
	return usbredirparser_has_data_to_write(l->parser) ? 0 : -ENOMEM; /* the hello */
}

static int make_poll(struct bh_redir *u)
{
	struct bh_redir_link *l = &u->link;
	int r;

	l->poll = malloc(sizeof(*l->poll));
	if (!l->poll)
		return -ENOMEM;
	r = uv_poll_init(u->loop, l->poll, l->fd);
	if (r < 0) {
		free(l->poll);
		l->poll = NULL;
		return r;
	}
	l->poll->data = u;
	return 0;
}

/* The connection in link.fd is used from now on; an error leaves it as it was. */
static int begin(struct bh_redir *u)
{
	struct bh_redir_link *l = &u->link;
	int r;

	l->guard = (struct bh_redir_guard){0};
	l->from = l->used = 0;
	l->greeted = l->broken = l->faulty = false;
	l->since_ms = uv_now(u->loop);
	l->buffer = malloc(BUFFER_BYTES);
	r = l->buffer ? make_parser(u) : -ENOMEM;
	if (r == 0)
		r = make_poll(u);
	if (r < 0)
		return r;
	bh_socket_watch_peer(l->fd);
	write_out(u);
	bh_redir_link_watch(u);
	return 0;
}

static void say_once(struct bh_redir *u, const char *what, int error)
{
	u->counters.failures++;
	if (!u->link.said)
		bh_real_say(&u->real, "%s (%s); it is tried again and again", what, strerror(-error));
	u->link.said = true;
}

static void connected(void *data, int fd)
{
	struct bh_redir *u = data;
	int r;

	u->link.fd = fd;
	r = begin(u);
	if (r == 0)
		return;
	say_once(u, "there is a connection, which cannot be used", r);
	close_connection(&u->link);
	bh_connector_try_later(u->link.connector);
}

static void failed(void *data, int error)
{
	say_once(data, "there is no connection", error);
}

static const struct bh_connector_ops connector_ops = {
	.connected = connected,
	.failed = failed,
};

int bh_redir_link_init(struct bh_redir *u, uv_loop_t *loop)
{
	struct bh_redir_link *l = &u->link;

	l->fd = -1;
	l->timer = malloc(sizeof(*l->timer));
	if (!l->timer)
		return -ENOMEM;
	uv_timer_init(loop, l->timer);
	l->timer->data = u;
	return 0;
}

int bh_redir_link_address(struct bh_redir *u, const char *address)
{
	struct bh_address a;
	int r = bh_address_parse(address, false, &a);

	if (r < 0)
		return r;
	r = bh_connector_create(u->loop, &a, &connector_ops, u, &u->link.connector);
	bh_address_free(&a);
	if (r == 0)
		bh_connector_try(u->link.connector);
	return r;
}

/* Is it a stream that is connected? */
static bool usable(int fd)
{
	struct sockaddr_storage a;
	socklen_t size = sizeof(a), type_size = sizeof(int);
	int type = 0;

	return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_size) == 0 && type == SOCK_STREAM &&
	       getpeername(fd, (struct sockaddr *)&a, &size) == 0;
}

int bh_redir_link_adopt(struct bh_redir *u, int fd)
{
	int r;

	if (!usable(fd))
		return -EINVAL;
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	u->link.fd = fd;
	r = begin(u);
	if (r < 0)
		u->link.fd = -1; /* still the caller's */
	return r;
}

void bh_redir_link_finish(struct bh_redir *u)
{
	struct bh_redir_link *l = &u->link;

	bh_connector_destroy(l->connector);
	l->connector = NULL;
	if (!l->timer)
		return;
	close_connection(l);
	uv_close((uv_handle_t *)l->timer, free_handle);
	l->timer = NULL;
}
