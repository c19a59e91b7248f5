/*
 * The connection to a USB/IP server: see usbip_private.h.
 *
 *   RESTING --connected--> IMPORTING --the server gives us the device--> IMPORTED
 *      ^------------------------+-------------- broken, torn down -----------'
 *
 * Nothing is torn down where it breaks, which may be deep inside a transfer's end: it is only
 * noted, and done from the loop.
 */
#include "usbip_private.h"

#include <errno.h>
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

/* Of an import that came to nothing; once, until it is another one. */
static void say_once(struct bh_usbip *u, const char *text)
{
	struct bh_usbip_session *s = &u->session;

	if (strcmp(s->said, text) == 0)
		return;
	snprintf(s->said, sizeof(s->said), "%s", text);
	bh_real_say(&u->real, "%s; it is tried again and again", text);
}

/* --- breaking, resting, and what is owed --------------------------------------------------- */

static void close_connection(struct bh_usbip_session *s)
{
	uv_timer_stop(s->timer);
	if (s->poll)
		uv_close((uv_handle_t *)s->poll, free_handle);
	s->poll = NULL;
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	free(s->buffer);
	s->buffer = NULL;
	free(s->output.bytes);
	s->output = (struct bh_usbip_output){0};
}

static void rested(uv_timer_t *timer)
{
	struct bh_usbip *u = timer->data;

	if (u->session.connector)
		bh_connector_try(u->session.connector);
}

/* The longer, the oftener it came to nothing. */
static void rest(struct bh_usbip *u, bool lasted)
{
	struct bh_usbip_session *s = &u->session;
	uint32_t ms;

	if (lasted)
		s->rest_ms = BH_USBIP_REST_MS;
	ms = s->rest_long ? BH_USBIP_REST_LONG_MS : s->rest_ms;
	s->rest_long = false;
	s->rest_ms = BH_MIN(2 * s->rest_ms, BH_USBIP_REST_MAX_MS);
	uv_timer_start(s->timer, rested, ms, 0);
}

/* From the loop only. */
static void tear_down(struct bh_usbip *u)
{
	struct bh_usbip_session *s = &u->session;
	bool shown = u->real.state == BH_REAL_SHOWN;
	bool lasted = shown && uv_now(u->loop) - s->since_ms >= BH_USBIP_LASTED_MS;

	s->imported = false;
	bh_usbip_lost(u, shown ? s->why : NULL);
	if (!shown && s->why[0])
		say_once(u, s->why);
	close_connection(s);
	rest(u, lasted);
}

static void watch(uv_timer_t *timer);

void bh_usbip_session_break(struct bh_usbip *u, const char *why)
{
	struct bh_usbip_session *s = &u->session;

	if (s->broken || s->fd < 0)
		return;
	s->broken = true;
	snprintf(s->why, sizeof(s->why), "%s", why);
	uv_timer_start(s->timer, watch, 0, 0);
}

static void break_for(struct bh_usbip *u, const char *what, int err)
{
	char why[sizeof(u->session.why)];

	snprintf(why, sizeof(why), "%s (%s)", what, strerror(err));
	bh_usbip_session_break(u, why);
}

void bh_usbip_session_violated(struct bh_usbip *u, const char *what)
{
	char why[sizeof(u->session.why)];

	if (u->session.broken)
		return;
	u->counters.violations++;
	snprintf(why, sizeof(why), "the connection was dropped: %s", what);
	bh_usbip_session_break(u, why);
}

void bh_usbip_session_leave(struct bh_usbip *u)
{
	bh_usbip_session_break(u, "");
	u->session.rest_long = true;
}

static void watch(uv_timer_t *timer)
{
	struct bh_usbip *u = timer->data;
	struct bh_usbip_session *s = &u->session;
	bool late, owed = bh_usbip_requests_owed(u, &late);

	if (s->broken) {
		tear_down(u);
		return;
	}
	if (!s->imported) {
		owed = true;
		late = uv_now(u->loop) - s->since_ms > BH_USBIP_OWED_MS;
	}
	if (late)
		bh_usbip_session_violated(u, "the server does not answer");
	else if (!owed)
		uv_timer_stop(timer);
}

void bh_usbip_session_watch(struct bh_usbip *u)
{
	if (!uv_is_active((uv_handle_t *)u->session.timer))
		uv_timer_start(u->session.timer, watch, WATCH_MS, WATCH_MS);
}

/* --- sending -------------------------------------------------------------------------------------- */

static void ready(uv_poll_t *p, int status, int events);

static size_t pending(const struct bh_usbip_session *s)
{
	return s->output.used - s->output.from;
}

static void set_interest(struct bh_usbip_session *s)
{
	uv_poll_start(s->poll, pending(s) ? UV_READABLE | UV_WRITABLE : UV_READABLE, ready);
}

bool bh_usbip_session_room(const struct bh_usbip *u)
{
	return u->session.fd >= 0 && !u->session.broken && pending(&u->session) < BH_USBIP_OUTPUT;
}

uint8_t *bh_usbip_session_message(struct bh_usbip *u, size_t size)
{
	struct bh_usbip_output *o = &u->session.output;
	size_t waiting = o->used - o->from;
	uint8_t *bytes;

	if (waiting && o->from)
		memmove(o->bytes, o->bytes + o->from, waiting);
	o->from = 0;
	o->used = waiting;
	if (o->room - waiting < size) {
		bytes = realloc(o->bytes, waiting + size);
		if (!bytes)
			return NULL;
		o->bytes = bytes;
		o->room = waiting + size;
	}
	o->used += size;
	return o->bytes + waiting;
}

/* One call's worth. False: no more now. */
static bool send_some(struct bh_usbip *u)
{
	struct bh_usbip_output *o = &u->session.output;
	ssize_t n;

	if (o->from == o->used)
		return false;
	do
		n = send(u->session.fd, o->bytes + o->from, o->used - o->from, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n >= 0) {
		o->from += (size_t)n;
		return n > 0;
	}
	if (errno != EAGAIN && errno != EWOULDBLOCK)
		break_for(u, "the connection was lost", errno);
	return false;
}

void bh_usbip_session_send(struct bh_usbip *u)
{
	struct bh_usbip_session *s = &u->session;

	if (s->broken || !s->poll)
		return;
	while (send_some(u))
		;
	if (!s->broken)
		set_interest(s);
}

/* --- receiving ------------------------------------------------------------------------------------- */

static void expect(struct bh_usbip_session *s, size_t want, void (*take)(struct bh_usbip *u, const uint8_t *piece))
{
	s->have = 0;
	s->want = want;
	s->take = take;
}

static void take_message(struct bh_usbip *u, const uint8_t *piece)
{
	union bh_usbip_message m;

	memcpy(&m, piece, sizeof(m));
	bh_usbip_requests_message(u, &m);
}

static void take_device(struct bh_usbip *u, const uint8_t *piece)
{
	struct bh_usbip_session *s = &u->session;
	struct bh_usbip_device wire;
	struct bh_usbip_device_fields device;

	memcpy(&wire, piece, sizeof(wire));
	device = bh_usbip_get_device(&wire);
	expect(s, sizeof(union bh_usbip_message), take_message);
	s->imported = true;
	s->since_ms = uv_now(u->loop);
	u->counters.connections++;
	bh_usbip_given(u, &device);
}

static void take_reply(struct bh_usbip *u, const uint8_t *piece)
{
	struct bh_usbip_session *s = &u->session;
	struct bh_usbip_op_header wire;
	struct bh_usbip_operation_fields op;
	char why[sizeof(s->why)];

	memcpy(&wire, piece, sizeof(wire));
	op = bh_usbip_get_op(&wire);
	if (op.code != BH_USBIP_REP_IMPORT) {
		bh_usbip_session_violated(u, "it is no USB/IP server that answers there");
	} else if (op.version != BH_USBIP_VERSION) {
		snprintf(why, sizeof(why), "the server speaks version %x.%x.%x of USB/IP, and not 1.1.1", op.version >> 8,
		         op.version >> 4 & 15, op.version & 15);
		bh_usbip_session_break(u, why);
	} else if (op.status != BH_USBIP_OK) {
		u->counters.refusals++;
		snprintf(why, sizeof(why), "the server does not give us the device: %s", bh_usbip_op_status_text(op.status));
		bh_usbip_session_break(u, why);
	} else {
		expect(s, sizeof(struct bh_usbip_device), take_device);
	}
}

/* What was received, piece by piece. */
static void feed(struct bh_usbip *u, const uint8_t *bytes, size_t count)
{
	struct bh_usbip_session *s = &u->session;

	while (count && !s->broken) {
		size_t n = BH_MIN(count, s->data ? s->data : s->want - s->have);

		if (s->data) {
			s->data -= n;
			bh_usbip_requests_data(u, bytes, n);
		} else {
			memcpy(s->piece + s->have, bytes, n);
			s->have += n;
			if (s->have == s->want) {
				s->have = 0;
				s->take(u, s->piece);
			}
		}
		bytes += n;
		count -= n;
	}
}

static void ended(struct bh_usbip *u)
{
	bh_usbip_session_break(u, u->session.imported ? "the server has closed the connection"
	                                              : "the server has closed the connection without an answer");
}

static void receive(struct bh_usbip *u)
{
	struct bh_usbip_session *s = &u->session;
	size_t budget = BUDGET_BYTES;
	ssize_t n;

	while (budget && !s->broken) {
		n = recv(s->fd, s->buffer, BH_MIN(budget, BUFFER_BYTES), MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
			break_for(u, "the connection was lost", errno);
		else if (n == 0)
			ended(u);
		if (n <= 0)
			return;
		budget -= (size_t)n;
		feed(u, s->buffer, (size_t)n);
	}
}

/* status: an error of the socket's, which stays to be asked for. */
static void ready(uv_poll_t *p, int status, int events)
{
	struct bh_usbip *u = p->data;
	struct bh_usbip_session *s = &u->session;
	int err = 0;
	socklen_t size = sizeof(err);

	if (status < 0) {
		getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &err, &size);
		break_for(u, "the connection was lost", err ? err : ECONNRESET);
	}
	if (!s->broken && events & UV_READABLE)
		receive(u);
	if (!s->broken && events & UV_WRITABLE) {
		bh_usbip_session_send(u);
		bh_usbip_pump(u);
	}
	if (s->broken)
		tear_down(u);
}

/* --- the connection ----------------------------------------------------------------------------------- */

static int make_poll(struct bh_usbip *u)
{
	struct bh_usbip_session *s = &u->session;
	int r;

	s->poll = malloc(sizeof(*s->poll));
	if (!s->poll)
		return -ENOMEM;
	r = uv_poll_init(u->loop, s->poll, s->fd);
	if (r < 0) {
		free(s->poll);
		s->poll = NULL;
		return r;
	}
	s->poll->data = u;
	return 0;
}

static int begin(struct bh_usbip *u)
{
	struct bh_usbip_session *s = &u->session;
	uint8_t *to;

	s->broken = s->imported = false;
	s->data = 0;
	s->since_ms = uv_now(u->loop);
	s->buffer = malloc(BUFFER_BYTES);
	to = s->buffer ? bh_usbip_session_message(u, sizeof(s->request)) : NULL;
	if (!to)
		return -ENOMEM;
	memcpy(to, &s->request, sizeof(s->request));
	expect(s, sizeof(struct bh_usbip_op_header), take_reply);
	return make_poll(u);
}

void bh_usbip_session_begin(struct bh_usbip *u, int fd)
{
	char why[sizeof(u->session.why)];
	int r;

	u->session.fd = fd;
	r = begin(u);
	if (r < 0) {
		snprintf(why, sizeof(why), "there is a connection, which cannot be used (%s)", strerror(-r));
		say_once(u, why);
		close_connection(&u->session);
		rest(u, false);
		return;
	}
	bh_socket_watch_peer(fd);
	bh_usbip_session_send(u);
	bh_usbip_session_watch(u);
}

static void connected(void *data, int fd)
{
	bh_usbip_session_begin(data, fd);
}

static void failed(void *data, int error)
{
	struct bh_usbip *u = data;
	char why[sizeof(u->session.why)];

	u->counters.failures++;
	snprintf(why, sizeof(why), "there is no connection (%s)", strerror(-error));
	say_once(u, why);
}

static const struct bh_connector_ops connector_ops = {
	.connected = connected,
	.failed = failed,
};

int bh_usbip_session_init(struct bh_usbip *u, uv_loop_t *loop, const struct bh_address *a)
{
	struct bh_usbip_session *s = &u->session;
	int r;

	s->fd = -1;
	s->rest_ms = BH_USBIP_REST_MS;
	s->timer = malloc(sizeof(*s->timer));
	if (!s->timer)
		return -ENOMEM;
	uv_timer_init(loop, s->timer);
	s->timer->data = u;
	if (!a)
		return 0;
	r = bh_connector_create(loop, a, &connector_ops, u, &s->connector);
	if (r == 0)
		bh_connector_try(s->connector);
	return r;
}

void bh_usbip_session_finish(struct bh_usbip *u)
{
	struct bh_usbip_session *s = &u->session;

	bh_connector_destroy(s->connector);
	s->connector = NULL;
	if (!s->timer)
		return;
	close_connection(s);
	uv_close((uv_handle_t *)s->timer, free_handle);
	s->timer = NULL;
}
