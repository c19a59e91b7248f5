/*
 * A line is looked for in what has arrived (MSG_PEEK), and no more than that line is taken: so
 * nothing has to be kept but the beginning of one line, and the loop, which reports what is
 * left again, goes from client to client. While an answer waits to be taken, no line is read.
 */
#include "channel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "options.h"
#include "say.h"

#define PIECE     4096u
#define MOST_OUT  (1u << 20) /* bytes waiting for one client */
#define STALL_MS  5000u        /* without taking any of it */

struct bh_session {
	struct bh_channel *channel;
	struct bh_list link;
	int fd; /* -1: the client is gone */
	uv_poll_t poll;
	uv_timer_t stalled;
	unsigned handles; /* of the loop, not closed yet */
	int events;
	bool busy;  /* a line is to be answered */
	bool ended; /* there will be no more lines */
	char *out; /* bytes to be sent */
	size_t out_used, out_size;
	size_t in_used;
	char in[BH_CHANNEL_LINE];
};

static void free_if_done(struct bh_session *s)
{
	if (s->handles || s->busy)
		return;
	free(s->out);
	free(s);
}

static void handle_closed(uv_handle_t *h)
{
	struct bh_session *s = h->data;

	s->handles--;
	free_if_done(s);
}

static void drop(struct bh_session *s)
{
	if (s->fd < 0)
		return;
	uv_close((uv_handle_t *)&s->poll, handle_closed);
	uv_close((uv_handle_t *)&s->stalled, handle_closed);
	close(s->fd);
	s->fd = -1;
	bh_list_remove(&s->link);
	s->channel->count--;
}

static void session_ready(uv_poll_t *p, int status, int events);

/* What are we waiting for next? Or are we through with it? */
static void watch(struct bh_session *s)
{
	int events = s->out_used ? UV_WRITABLE : s->busy || s->ended ? 0 : UV_READABLE;

	if (s->fd < 0)
		return;
	if (s->ended && !s->busy && !s->out_used) {
		drop(s);
		return;
	}
	if (events == s->events)
		return;
	s->events = events;
	if (events)
		uv_poll_start(&s->poll, events, session_ready);
	else
		uv_poll_stop(&s->poll);
}

/* --- out -------------------------------------------------------------------------------- */

static void session_stalled(uv_timer_t *t)
{
	bh_say("control: a client that takes nothing was dropped");
	drop(t->data);
}

static void send_some(struct bh_session *s)
{
	ssize_t n;

	if (!s->out_used)
		return;
	n = send(s->fd, s->out, s->out_used, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		drop(s);
		return;
	}
	if (n > 0) {
		s->out_used -= (size_t)n;
		memmove(s->out, s->out + n, s->out_used);
	}
	if (!s->out_used)
		uv_timer_stop(&s->stalled);
	else if (n > 0 || !uv_is_active((uv_handle_t *)&s->stalled))
		uv_timer_start(&s->stalled, session_stalled, STALL_MS, 0);
}

static bool reserve(struct bh_session *s, size_t length)
{
	size_t size = s->out_used + length;
	char *out;

	if (size > MOST_OUT)
		return false;
	if (size <= s->out_size)
		return true;
	out = realloc(s->out, size);
	if (!out)
		return false;
	s->out = out;
	s->out_size = size;
	return true;
}

/* A line of JSON. May drop the client. */
static void put(struct bh_session *s, const json_t *o)
{
	char *text = json_dumps(o, JSON_COMPACT);
	size_t length = text ? strlen(text) : 0;

	if (s->fd >= 0 && text && reserve(s, length + 1)) {
		memcpy(s->out + s->out_used, text, length);
		s->out[s->out_used + length] = '\n';
		s->out_used += length + 1;
		send_some(s);
	} else if (s->fd >= 0) {
		bh_say("control: a client with too much to take was dropped");
		drop(s);
	}
	free(text);
	watch(s);
}

static void complain(struct bh_session *s, const char *desc)
{
	json_t *o = json_pack("{s:{s:s, s:s}}", "error", "class", "GenericError", "desc", desc);

	put(s, o);
	json_decref(o);
}

void bh_session_answer(struct bh_session *s, json_t *answer)
{
	s->busy = false;
	put(s, answer);
	json_decref(answer);
	if (s->fd < 0)
		free_if_done(s);
}

void bh_channel_event(struct bh_channel *c, const char *name, json_t *data)
{
	struct timeval now;
	json_t *o;

	gettimeofday(&now, NULL);
	o = json_pack("{s:s, s:o, s:{s:I, s:I}}", "event", name, "data", data, "timestamp", "seconds",
	              (json_int_t)now.tv_sec, "microseconds", (json_int_t)now.tv_usec);
	if (c->open)
		bh_list_each(s, &c->sessions, struct bh_session, link)
			put(s, o);
	json_decref(o);
}

/* --- in ---------------------------------------------------------------------------------- */

static void take_line(struct bh_session *s)
{
	size_t length = s->in_used;

	s->in_used = 0;
	while (length && (s->in[length - 1] == '\n' || s->in[length - 1] == '\r'))
		length--;
	if (!length)
		return;
	s->busy = true;
	s->channel->line(s->channel->context, s, s->in, length);
}

/* Up to the end of one line, or all there is. 0: no more will come; a negative errno. */
static ssize_t receive(struct bh_session *s, bool *ret_whole)
{
	size_t room = sizeof(s->in) - s->in_used;
	char *at = s->in + s->in_used, *end;
	ssize_t n = recv(s->fd, at, room < PIECE ? room : PIECE, MSG_PEEK | MSG_DONTWAIT);

	if (n <= 0)
		return n ? -errno : 0;
	end = memchr(at, '\n', (size_t)n);
	if (end)
		n = end + 1 - at;
	n = recv(s->fd, at, (size_t)n, MSG_DONTWAIT);
	*ret_whole = end && n == end + 1 - at;
	return n < 0 ? -errno : n;
}

static void read_some(struct bh_session *s)
{
	bool whole = false;
	ssize_t n = receive(s, &whole);

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n < 0) {
		drop(s);
		return;
	}
	s->ended = n == 0;
	s->in_used += (size_t)n;
	if (whole || s->ended) {
		take_line(s);
	} else if (s->in_used == sizeof(s->in)) {
		s->ended = true;
		complain(s, "a line is longer than 65535 bytes");
	}
}

static void session_ready(uv_poll_t *p, int status, int events)
{
	struct bh_session *s = p->data;

	if (status < 0) {
		drop(s);
		return;
	}
	if (events & UV_WRITABLE)
		send_some(s);
	else if (events & UV_READABLE)
		read_some(s);
	watch(s);
}

/* --- clients come and go -------------------------------------------------------------------- */

static void greet(struct bh_session *s)
{
	json_t *o = json_pack("{s:{s:s}}", "bulkhead", "version", BULKHEAD_VERSION);

	put(s, o);
	json_decref(o);
}

static void begin_session(struct bh_channel *c, int fd)
{
	static const char full[] = "{\"error\":{\"class\":\"GenericError\",\"desc\":\"there are 8 clients already\"}}\n";
	struct bh_session *s = c->count < BH_CHANNEL_CLIENTS ? malloc(sizeof(*s)) : NULL;

	if (!s) {
		send(fd, full, sizeof(full) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
		close(fd);
		return;
	}
	memset(s, 0, offsetof(struct bh_session, in));
	s->channel = c;
	s->fd = fd;
	uv_poll_init(c->loop, &s->poll, fd);
	uv_timer_init(c->loop, &s->stalled);
	s->poll.data = s->stalled.data = s;
	s->handles = 2;
	bh_list_init(&s->link);
	bh_list_append(&c->sessions, &s->link);
	c->count++;
	greet(s);
}

static void channel_connects(uv_poll_t *p, int status, int events);

static void listen_again(uv_timer_t *t)
{
	struct bh_channel *c = t->data;

	uv_poll_start(&c->listening, UV_READABLE, channel_connects);
}

static void channel_connects(uv_poll_t *p, int status, int events)
{
	struct bh_channel *c = p->data;
	int fd = accept4(c->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)status;
	(void)events;
	if (fd >= 0) {
		begin_session(c, fd);
	} else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
		/* Out of descriptors, say: it stays in the queue, and would be reported for ever. */
		bh_say("control: cannot accept a client: %s", strerror(errno));
		uv_poll_stop(&c->listening);
		uv_timer_start(&c->refusing, listen_again, 1000, 0);
	}
}

int bh_channel_open(struct bh_channel *c, uv_loop_t *loop, const char *path,
                    void (*line)(void *context, struct bh_session *s, const char *text, size_t length), void *context,
                    char *error)
{
	int r;

	*c = (struct bh_channel){.loop = loop, .line = line, .context = context};
	bh_list_init(&c->sessions);
	r = bh_listener_open(&c->listener, path, 0600, error);
	if (r)
		return r;
	uv_poll_init(loop, &c->listening, c->listener.fd);
	uv_timer_init(loop, &c->refusing);
	c->listening.data = c->refusing.data = c;
	uv_poll_start(&c->listening, UV_READABLE, channel_connects);
	c->open = true;
	return 0;
}

void bh_channel_close(struct bh_channel *c)
{
	if (!c->open)
		return;
	c->open = false;
	bh_list_each(s, &c->sessions, struct bh_session, link)
		drop(s);
	uv_close((uv_handle_t *)&c->listening, NULL);
	uv_close((uv_handle_t *)&c->refusing, NULL);
	bh_listener_close(&c->listener);
}
