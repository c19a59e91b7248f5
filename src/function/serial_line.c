/* What lines have in common: see serial_line.h. */
#include "serial_line.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/util.h>

/* How long what is left may take when a line closes, and how often it is looked at. */
#define DRAIN_MS      2000u
#define DRAIN_STEP_MS 10u

/* --- buffers --------------------------------------------------------------------------------- */

static unsigned spans_from(struct bh_ring *r, uint32_t start, uint32_t length, struct iovec spans[2])
{
	uint32_t first = BH_MIN(length, BH_SERIAL_BUFFER - start);

	spans[0] = (struct iovec){.iov_base = r->bytes + start, .iov_len = first};
	spans[1] = (struct iovec){.iov_base = r->bytes, .iov_len = length - first};
	return length == 0 ? 0 : first < length ? 2 : 1;
}

unsigned bh_ring_space(struct bh_ring *r, struct iovec spans[2])
{
	return spans_from(r, (r->start + r->used) % BH_SERIAL_BUFFER, bh_ring_room(r), spans);
}

unsigned bh_ring_data(struct bh_ring *r, struct iovec spans[2])
{
	return spans_from(r, r->start, r->used, spans);
}

void bh_ring_produce(struct bh_ring *r, size_t length)
{
	r->used += (uint32_t)length;
}

void bh_ring_consume(struct bh_ring *r, size_t length)
{
	r->start = (r->start + (uint32_t)length) % BH_SERIAL_BUFFER;
	r->used -= (uint32_t)length;
}

/* --- lines ------------------------------------------------------------------------------------- */

void bh_line_free_handle(uv_handle_t *h)
{
	free(h);
}

int bh_line_init(struct bh_line *l, uv_loop_t *loop, const struct bh_line_ops *ops)
{
	l->ops = ops;
	l->loop = loop;
	l->timer = malloc(sizeof(*l->timer));
	if (!l->timer)
		return -ENOMEM;
	uv_timer_init(loop, l->timer);
	l->timer->data = l;
	return 0;
}

void bh_line_finish(struct bh_line *l)
{
	if (l->timer)
		uv_close((uv_handle_t *)l->timer, bh_line_free_handle);
	l->timer = NULL;
}

void bh_line_connected(struct bh_line *l, bool connected)
{
	if (l->connected == connected)
		return;
	l->connected = connected;
	l->connections += connected;
	if (l->upcalls)
		l->upcalls->connected(l);
}

int bh_line_explain(char *error, size_t error_size, const char *what, int err, const char *advice)
{
	snprintf(error, error_size, "serial '%s': %s; %s", what, strerror(err), advice);
	return -err;
}

/* --- channels ------------------------------------------------------------------------------------ */

static bool would_block(int err)
{
	return err == EAGAIN || err == EWOULDBLOCK;
}

static ssize_t write_some(struct bh_line_channel *c, const struct iovec *spans, unsigned count)
{
	struct msghdr m = {.msg_iov = (struct iovec *)spans, .msg_iovlen = count};
	ssize_t n;

	do
		n = c->is_socket ? sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) : writev(c->fd, spans, (int)count);
	while (n < 0 && errno == EINTR);
	return n;
}

/* As much as the host takes now. */
static void write_out(struct bh_line_channel *c)
{
	struct bh_line *l = c->line;
	struct iovec spans[2];
	unsigned count;

	while (!c->blocked && !c->broken && (count = bh_ring_data(&l->to_peer, spans)) != 0) {
		ssize_t n = write_some(c, spans, count);

		if (n > 0) {
			bh_ring_consume(&l->to_peer, (size_t)n);
			l->sent += (uint64_t)n;
		} else if (n == 0 || would_block(errno)) {
			c->blocked = true;
		} else {
			c->broken = true;
		}
	}
}

/* What came, as far as there is room: one buffer's worth at most. False: there will be no more. */
static bool read_in(struct bh_line_channel *c)
{
	struct bh_line *l = c->line;
	struct iovec spans[2];
	unsigned count = bh_ring_space(&l->to_guest, spans);
	ssize_t n;

	if (!count)
		return true;
	do
		n = readv(c->fd, spans, (int)count);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n < 0 && would_block(errno);
	bh_ring_produce(&l->to_guest, (size_t)n);
	l->from_peer += (uint64_t)n;
	return true;
}

static void channel_ready(uv_poll_t *p, int status, int events);

/* Waits for what there is a use for. */
static void update(struct bh_line_channel *c)
{
	int events = 0;

	if (!c->poll)
		return;
	if (bh_ring_room(&c->line->to_guest))
		events |= UV_READABLE;
	if (c->blocked && !c->broken && c->line->to_peer.used)
		events |= UV_WRITABLE;
	if (events == c->events)
		return;
	c->events = events;
	if (events)
		uv_poll_start(c->poll, events, channel_ready);
	else
		uv_poll_stop(c->poll);
}

static void channel_ready(uv_poll_t *p, int status, int events)
{
	struct bh_line_channel *c = p->data;
	struct bh_line *l = c->line;

	if (status < 0) { /* reading tells what it is; libuv waits no longer */
		events = UV_READABLE | UV_WRITABLE;
		c->events = 0;
	}
	if (events & UV_WRITABLE)
		c->blocked = false;
	write_out(c);
	if ((events & UV_READABLE) && !read_in(c))
		c->lost(c);
	update(c);
	l->upcalls->moved(l);
}

int bh_line_channel_attach(struct bh_line_channel *c, int fd)
{
	int r;

	c->poll = malloc(sizeof(*c->poll));
	if (!c->poll)
		return -ENOMEM;
	r = uv_poll_init(c->line->loop, c->poll, fd);
	if (r < 0) {
		free(c->poll);
		c->poll = NULL;
		return r;
	}
	c->poll->data = c;
	c->fd = fd;
	c->events = 0;
	c->blocked = c->broken = false;
	write_out(c);
	update(c);
	return 0;
}

void bh_line_channel_detach(struct bh_line_channel *c)
{
	if (c->poll)
		uv_close((uv_handle_t *)c->poll, bh_line_free_handle);
	c->poll = NULL;
}

void bh_line_channel_wake(struct bh_line_channel *c)
{
	if (!c->poll)
		return;
	write_out(c);
	update(c);
}

static void discard(struct bh_line_channel *c)
{
	uint8_t bytes[4096];

	for (unsigned i = 0; i < 64 && read(c->fd, bytes, sizeof(bytes)) > 0; i++)
		continue;
}

/* A step of draining. False: there are more. */
static bool drain_step(struct bh_line_channel *c)
{
	struct bh_line *l = c->line;

	c->blocked = false;
	discard(c);
	write_out(c);
	if (!l->to_peer.used && (c->broken || c->delivered(c)))
		c->drained(c, 0);
	else if (c->broken)
		c->drained(c, -ENOTCONN);
	else if (uv_now(l->loop) >= c->deadline)
		c->drained(c, -ETIMEDOUT);
	else
		return false;
	return true;
}

static void drain_again(uv_timer_t *t)
{
	drain_step(t->data);
}

void bh_line_channel_drain(struct bh_line_channel *c)
{
	struct bh_line *l = c->line;

	bh_line_channel_detach(c);
	uv_update_time(l->loop);
	c->deadline = uv_now(l->loop) + DRAIN_MS;
	l->timer->data = c;
	if (!drain_step(c))
		uv_timer_start(l->timer, drain_again, DRAIN_STEP_MS, DRAIN_STEP_MS);
}
