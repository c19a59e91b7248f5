/*
 * The block seam over an NBD server, by libnbd: see bh_block_nbd_open() in block.h.
 *
 *   READY --lost--> RESTING --timer--> DIALLING --connected--> READY
 *                      ^------- no server, or another one -------'
 *
 * Looking up a name, connecting and shaking hands may wait, and are done on a thread of their own
 * (a dial), which hands over a connection that is ready. From then on libnbd only moves when the
 * loop says so. Requests are kept in one list, whatever the state; each has so long, and no longer.
 */
#include "block.h"

#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <base/list.h>
#include <base/util.h>
#include <net/socket.h>

/* How long one dial may take; how long the first one is waited for. */
#define DIAL_MS  3000
#define FIRST_MS 2000u

/* Between two dials. */
#define REST_MS 500u

/* How often it is looked whether a request has had its time, at least. */
#define LOOK_MS 100u

/* Of one command to the server, where that does not say less. */
#define MOST_BYTES (1u << 20)

/* libnbd's strings may hold what a server said. */
#define WHY_SIZE 200u

/* --- dialling: a thread ----------------------------------------------------------------------- */

/* How often it looks whether it is still wanted; and how long it is waited for when it is not. */
#define STEP_MS    50u
#define GOODBYE_MS 1000u

struct dial {
	pthread_mutex_t lock; /* of what follows, but for wake, which is the loop's */
	pthread_cond_t ended_condition;
	bool ended;
	bool abandoned;            /* nobody wants it any more: to end soon */
	struct nbd_handle *handle; /* ready; NULL: it failed */
	char why[WHY_SIZE];        /* how */
	unsigned users;            /* the thread, and who waits for it */
	char *uri;
	uv_async_t *wake; /* NULL: nobody is to be woken */
};

static void dial_unref(struct dial *d)
{
	bool last;

	pthread_mutex_lock(&d->lock);
	last = --d->users == 0;
	pthread_mutex_unlock(&d->lock);
	if (!last)
		return;
	if (d->handle)
		nbd_close(d->handle);
	pthread_mutex_destroy(&d->lock);
	pthread_cond_destroy(&d->ended_condition);
	free(d->uri);
	free(d);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void explain(char why[WHY_SIZE])
{
	const char *text = nbd_get_error();

	/* "nbd_connect_uri: connect: Connection refused": what comes behind the last function's name. */
	snprintf(why, WHY_SIZE, "%s", text ? text : "no reason is given");
	for (char *p = why; *p; p++)
		if ((unsigned char)*p < 0x20 || (unsigned char)*p > 0x7e)
			*p = '?';
}

static bool is_abandoned(struct dial *d)
{
	bool abandoned;

	pthread_mutex_lock(&d->lock);
	abandoned = d->abandoned;
	pthread_mutex_unlock(&d->lock);
	return abandoned;
}

/* A connection that is ready; NULL, and why. */
static struct nbd_handle *connect_to(struct dial *d, char why[WHY_SIZE])
{
	struct nbd_handle *h = nbd_create();
	uint64_t deadline = now_ms() + DIAL_MS;

	/*
	 * Without structured replies: that all data of a structured one has come is checked only when a
	 * command is retired, and a completion callback would take what never came for zeros.
	 */
	if (!h || nbd_set_request_structured_replies(h, false) < 0 || nbd_set_uri_allow_local_file(h, true) < 0 ||
	    nbd_aio_connect_uri(h, d->uri) < 0)
		goto err;
	while (nbd_aio_is_connecting(h) == 1) {
		uint64_t now = now_ms();

		if (now >= deadline || is_abandoned(d)) {
			snprintf(why, WHY_SIZE, "it does not answer");
			nbd_close(h);
			return NULL;
		}
		if (nbd_poll(h, (int)BH_MIN(deadline - now, STEP_MS)) < 0)
			goto err;
	}
	if (nbd_aio_is_ready(h) == 1)
		return h;
err:
	explain(why);
	nbd_close(h);
	return NULL;
}

static void *dial_thread(void *data)
{
	struct dial *d = data;
	char why[WHY_SIZE] = "";
	struct nbd_handle *h = connect_to(d, why);

	if (h && is_abandoned(d)) { /* what follows here has nothing to do with libnbd then */
		nbd_close(h);
		h = NULL;
	}
	pthread_mutex_lock(&d->lock);
	d->handle = h;
	memcpy(d->why, why, sizeof(why));
	d->ended = true;
	pthread_cond_signal(&d->ended_condition);
	if (d->wake)
		uv_async_send(d->wake);
	pthread_mutex_unlock(&d->lock);
	dial_unref(d);
	return NULL;
}

/* NULL: out of memory, or of threads. */
static struct dial *dial_start(const char *uri, uv_async_t *wake)
{
	struct dial *d = calloc(1, sizeof(*d));
	pthread_condattr_t attributes;
	pthread_attr_t detached;
	pthread_t thread;
	int r;

	if (!d || !(d->uri = strdup(uri))) {
		free(d);
		return NULL;
	}
	pthread_mutex_init(&d->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&d->ended_condition, &attributes);
	pthread_condattr_destroy(&attributes);
	d->users = 2;
	d->wake = wake;
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	r = pthread_create(&thread, &detached, dial_thread, d);
	pthread_attr_destroy(&detached);
	if (!r)
		return d;
	d->users = 1;
	dial_unref(d);
	return NULL;
}

/* Waits for it, so long. The connection, or NULL and why. */
static struct nbd_handle *dial_wait(struct dial *d, unsigned ms, char why[WHY_SIZE])
{
	uint64_t until = now_ms() + ms;
	struct timespec at = {.tv_sec = (time_t)(until / 1000), .tv_nsec = (long)(until % 1000 * 1000000)};
	struct nbd_handle *h;
	int r = 0;

	pthread_mutex_lock(&d->lock);
	while (!d->ended && !r)
		r = pthread_cond_timedwait(&d->ended_condition, &d->lock, &at);
	h = d->handle;
	d->handle = NULL;
	snprintf(why, WHY_SIZE, "%s", d->ended ? d->why : "it does not answer");
	pthread_mutex_unlock(&d->lock);
	return h;
}

/*
 * It is not wanted any more, and is to end before the program may: libnbd (1.14) takes down what its errors are
 * kept in when a program exits, and aborts where another thread has one then. Who dials ends within
 * STEP_MS, but for one that waits for a name to be resolved: that is not waited for longer than GOODBYE_MS.
 */
struct goodbye {
	struct dial *dial;
	uv_async_t *wake;
	uv_timer_t *timer;
};

static void free_handle(uv_handle_t *h)
{
	free(h);
}

static void goodbye_over(struct goodbye *g)
{
	pthread_mutex_lock(&g->dial->lock);
	g->dial->wake = NULL;
	pthread_mutex_unlock(&g->dial->lock);
	dial_unref(g->dial);
	uv_close((uv_handle_t *)g->wake, free_handle);
	uv_close((uv_handle_t *)g->timer, free_handle);
	free(g);
}

static void goodbye_woken(uv_async_t *wake)
{
	goodbye_over(wake->data);
}

static void goodbye_late(uv_timer_t *timer)
{
	goodbye_over(timer->data);
}

/* timer: one that is not used for anything else any more. Without memory for it, it is not waited for. */
static void say_goodbye(struct dial *d, uv_timer_t *timer)
{
	struct goodbye *g = malloc(sizeof(*g));
	bool ended;

	if (g && (g->wake = malloc(sizeof(*g->wake))) && uv_async_init(timer->loop, g->wake, goodbye_woken)) {
		free(g->wake);
		g->wake = NULL;
	}
	pthread_mutex_lock(&d->lock);
	d->abandoned = true;
	d->wake = g ? g->wake : NULL;
	ended = d->ended;
	pthread_mutex_unlock(&d->lock);
	if (!g || !g->wake) {
		free(g);
		dial_unref(d);
		uv_close((uv_handle_t *)timer, free_handle);
		return;
	}
	g->dial = d;
	g->timer = timer;
	g->wake->data = timer->data = g;
	uv_ref((uv_handle_t *)timer);
	uv_update_time(timer->loop);
	uv_timer_start(timer, goodbye_late, ended ? 0 : GOODBYE_MS, 0);
}

/* --- the block ------------------------------------------------------------------------------------ */

enum state { RESTING, DIALLING, READY };

struct nbd {
	struct bh_block block;
	/* configuration */
	uv_loop_t *loop;
	char *uri;
	char name[BH_NBD_NAME_SIZE]; /* for people: without who we are */
	unsigned timeout_ms, look_ms;
	void (*log)(void *data, const char *text);
	void *log_data;

	/* state */
	enum state state;
	struct nbd_handle *handle; /* READY */
	uv_poll_t *poll;           /* of its socket; on the heap, like the following */
	int watched;               /* the socket, a descriptor of our own, for libnbd closes its own whenever it likes */
	uv_timer_t *timer;
	uv_async_t *wake; /* a dial has ended */
	struct dial *dial;
	uint64_t dial_at; /* ms of the loop: RESTING until then */
	uint32_t most_bytes;
	bool can_flush, can_fua;
	struct bh_list requests; /* all there are, oldest first */
	struct bh_list finished; /* to be told from the loop */
	bool unflushed; /* writes were acknowledged since the last flush that succeeded */
	bool doubtful;  /* some of those may be lost: the next flush says so */
	bool lost, said_lost;  /* the connection is to be let go of; and that was said */
	uint64_t lost_at;
	bool telling, destroyed; /* done() is being called; and in there the block was destroyed */
};

static struct nbd *to_nbd(struct bh_block *b)
{
	return bh_container_of(b, struct nbd, block);
}

static void say(const struct nbd *n, const char *what, const char *why)
{
	char text[WHY_SIZE + 512];

	if (!n->log)
		return;
	snprintf(text, sizeof(text), "disk '%s': %s%s%s", n->name, what, why ? ": " : "", why ? why : "");
	n->log(n->log_data, text);
}

static void look(uv_timer_t *timer);

/* It is told from the loop, and from nowhere else. */
static void finish(struct bh_block_request *r, int error)
{
	struct nbd *n = r->block_data;

	r->error = error;
	bh_list_remove(&r->queued.link);
	bh_list_append(&n->finished, &r->queued.link);
	uv_timer_start(n->timer, look, 0, n->look_ms);
}

static void lose(struct nbd *n)
{
	n->lost = true;
	uv_timer_start(n->timer, look, 0, n->look_ms);
}

/* --- commands --------------------------------------------------------------------------------------- */

static bool is_flush(const struct bh_block_request *r)
{
	return r->op == BH_BLOCK_FLUSH || r->queued.flushing;
}

/* The connection has ended, or is about to: that says nothing of the request. */
static bool is_loss(int error)
{
	return error == ENOTCONN || error == ESHUTDOWN || error == ECONNRESET || error == EPIPE;
}

static void command_succeeded(struct nbd *n, struct bh_block_request *r)
{
	if (is_flush(r)) {
		n->unflushed = false;
		finish(r, 0);
		return;
	}
	r->moved += r->queued.piece;
	if (r->op == BH_BLOCK_WRITE)
		n->unflushed |= !(r->fua && n->can_fua);
	if (r->moved < r->length)
		return; /* the next piece is sent from the loop */
	if (r->op == BH_BLOCK_WRITE && r->fua && !n->can_fua && n->can_flush)
		r->queued.flushing = true;
	else
		finish(r, 0);
}

/* A command has ended, inside of libnbd: nothing of that may be called here. */
static int command_done(void *data, int *error)
{
	struct bh_block_request *r = data;
	struct nbd *n = r->block_data;

	r->queued.sent = false;
	if (n->lost)
		return 1; /* it is sent again, or has had its time */
	if (!*error) {
		command_succeeded(n, r);
	} else if (is_loss(*error)) {
		lose(n);
	} else {
		if (r->queued.flushing)
			r->moved = 0; /* it is not known to be safe */
		finish(r, -*error);
	}
	return 1;
}

static int64_t send_command(struct nbd *n, struct bh_block_request *r)
{
	nbd_completion_callback done = {.callback = command_done, .user_data = r};
	uint8_t *data = r->data + r->moved;
	uint64_t offset = r->offset + r->moved;

	if (is_flush(r))
		return nbd_aio_flush(n->handle, done, 0);
	r->queued.piece = BH_MIN(r->length - r->moved, n->most_bytes);
	if (r->op == BH_BLOCK_READ)
		return nbd_aio_pread(n->handle, data, r->queued.piece, offset, done, 0);
	return nbd_aio_pwrite(n->handle, data, r->queued.piece, offset, done, r->fua && n->can_fua ? LIBNBD_CMD_FLAG_FUA : 0);
}

/* Would it say that something is safe which may be lost? Once that is said instead, it is settled. */
static bool tells_of_doubt(struct nbd *n, struct bh_block_request *r)
{
	if (!n->doubtful || (r->op != BH_BLOCK_FLUSH && !(r->op == BH_BLOCK_WRITE && r->fua)))
		return false;
	n->doubtful = n->unflushed = false;
	r->moved = 0;
	finish(r, -EIO);
	return true;
}

static void start(struct nbd *n, struct bh_block_request *r)
{
	bool nothing_to_do = r->op == BH_BLOCK_FLUSH ? !n->can_flush /* what it acknowledges is as safe as it ever gets */
	                                             : r->length == 0;

	if (tells_of_doubt(n, r))
		return;
	if (nothing_to_do) {
		finish(r, 0);
		return;
	}
	r->queued.sent = true;
	if (send_command(n, r) >= 0)
		return;
	r->queued.sent = false;
	if (nbd_aio_is_ready(n->handle) == 1 || nbd_aio_is_processing(n->handle) == 1)
		finish(r, nbd_get_errno() ? -nbd_get_errno() : -EIO); /* one that it cannot take */
	else
		lose(n);
}

/* --- the connection ----------------------------------------------------------------------------------- */

static void ready(uv_poll_t *p, int status, int events);

static void watch(struct nbd *n)
{
	unsigned direction = nbd_aio_get_direction(n->handle);
	int events = (direction & LIBNBD_AIO_DIRECTION_READ ? UV_READABLE : 0) |
	             (direction & LIBNBD_AIO_DIRECTION_WRITE ? UV_WRITABLE : 0);

	if (nbd_aio_is_dead(n->handle) == 1 || nbd_aio_is_closed(n->handle) == 1)
		lose(n);
	else
		uv_poll_start(n->poll, events ? events : UV_READABLE, ready);
}

/* Whatever has not been begun; commands of one request come one after the other. */
static void start_all(struct nbd *n)
{
	if (n->state != READY)
		return;
	bh_list_each(r, &n->requests, struct bh_block_request, queued.link)
		if (!r->queued.sent && !n->lost)
			start(n, r);
	if (!n->lost)
		watch(n);
}

static void ready(uv_poll_t *p, int status, int events)
{
	struct nbd *n = p->data;
	int r = 0;

	if (n->lost)
		return;
	if (events & UV_READABLE && nbd_aio_get_direction(n->handle) & LIBNBD_AIO_DIRECTION_READ)
		r = nbd_aio_notify_read(n->handle);
	else if (events & UV_WRITABLE && nbd_aio_get_direction(n->handle) & LIBNBD_AIO_DIRECTION_WRITE)
		r = nbd_aio_notify_write(n->handle);
	if (r < 0 || status < 0)
		lose(n);
	else if (!n->lost)
		start_all(n);
}

/* From the loop only: libnbd is not in any of its calls. */
static void disconnect(struct nbd *n)
{
	static const struct linger at_once = {.l_onoff = 1};

	if (n->poll) {
		/* What is still queued must not reach the server after the guest was told that it failed. */
		if (n->lost)
			setsockopt(n->watched, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
		uv_close((uv_handle_t *)n->poll, free_handle);
		close(n->watched);
	}
	n->poll = NULL;
	if (n->handle)
		nbd_close(n->handle); /* and forgets the commands under way */
	n->handle = NULL;
	bh_list_each(r, &n->requests, struct bh_block_request, queued.link)
		r->queued.sent = false;
	n->state = RESTING;
	n->dial_at = uv_now(n->loop) + REST_MS;
}

static void connection_lost(struct nbd *n)
{
	n->lost = true; /* while commands are told of */
	disconnect(n);
	n->lost = false;
	n->doubtful |= n->unflushed && n->can_flush;
	n->lost_at = uv_now(n->loop);
	if (!n->said_lost)
		say(n, "the NBD server is lost; it is connected to again and again", NULL);
	n->said_lost = true;
}

static bool has_limits(struct nbd_handle *h, uint32_t *ret_minimum, uint32_t *ret_most)
{
	int64_t minimum = nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM), most = nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM);

	if (minimum < 0 || most < 0 || minimum > 65536 || (minimum & (minimum - 1)))
		return false;
	*ret_minimum = BH_MAX((uint32_t)minimum, 1u);
	*ret_most = most && most < MOST_BYTES ? (uint32_t)most : MOST_BYTES;
	if (minimum)
		*ret_most -= *ret_most % (uint32_t)minimum;
	return *ret_most >= 4096;
}

/* Begin with a connection that is ready. False: out of memory. */
static bool adopt(struct nbd *n, struct nbd_handle *h)
{
	int fd = fcntl(nbd_aio_get_fd(h), F_DUPFD_CLOEXEC, 0);

	n->poll = malloc(sizeof(*n->poll));
	if (!n->poll || fd < 0 || uv_poll_init(n->loop, n->poll, fd)) {
		free(n->poll);
		n->poll = NULL;
		if (fd >= 0)
			close(fd);
		return false;
	}
	bh_socket_watch_peer(fd);
	n->watched = fd;
	n->poll->data = n;
	n->handle = h;
	n->can_flush = nbd_can_flush(h) == 1;
	n->can_fua = nbd_can_fua(h) == 1;
	n->state = READY;
	return true;
}

/* NULL: it is what it was; else in what it differs. */
static const char *what_differs(const struct nbd *n, struct nbd_handle *h)
{
	uint32_t minimum, most;
	int64_t size = nbd_get_size(h);

	if (size < 0 || (uint64_t)size != n->block.size)
		return "the NBD server is back with another size: it is not used";
	if (!n->block.readonly && nbd_is_read_only(h) != 0)
		return "the NBD server is back, and read-only now: it is not used";
	if (!has_limits(h, &minimum, &most) || minimum > n->block.alignment || most < n->most_bytes)
		return "the NBD server is back with other limits: it is not used";
	return NULL;
}

/* A dial has ended. */
static void dialled(struct nbd *n)
{
	char why[WHY_SIZE];
	struct nbd_handle *h = dial_wait(n->dial, 0, why);
	const char *differs = h ? what_differs(n, h) : NULL;

	dial_unref(n->dial);
	n->dial = NULL;
	n->state = RESTING;
	n->dial_at = uv_now(n->loop) + REST_MS;
	if (!h)
		return; /* it was said that it is lost */
	if (differs || !adopt(n, h)) {
		say(n, differs ? differs : "out of memory", NULL);
		nbd_close(h);
		n->dial_at += differs ? 10 * REST_MS : 0;
		return;
	}
	say(n, "the NBD server is back", n->doubtful ? "what was not flushed may be lost, and the next flush will fail" : NULL);
	n->said_lost = false;
	start_all(n);
}

static bool has_ended(struct dial *d)
{
	bool ended;

	pthread_mutex_lock(&d->lock);
	ended = d->ended;
	pthread_mutex_unlock(&d->lock);
	return ended;
}

static void woken(uv_async_t *wake)
{
	struct nbd *n = wake->data;

	if (n && n->dial && has_ended(n->dial))
		dialled(n);
}

static void dial_again(struct nbd *n)
{
	n->dial = dial_start(n->uri, n->wake);
	n->state = n->dial ? DIALLING : RESTING;
	n->dial_at = uv_now(n->loop) + REST_MS;
}

/* --- time ------------------------------------------------------------------------------------------------ */

static void nbd_destroy(struct bh_block *b);

/* False: whoever was told has destroyed the block, and it is gone. */
static bool tell_finished(struct nbd *n)
{
	n->telling = true;
	while (!bh_list_empty(&n->finished)) {
		struct bh_block_request *r = bh_container_of(n->finished.next, struct bh_block_request, queued.link);

		bh_list_remove(&r->queued.link);
		r->done(r);
	}
	n->telling = false;
	if (!n->destroyed)
		return true;
	nbd_destroy(&n->block);
	return false;
}

/* Those that have had their time. Is the server silent? Then the connection is worth nothing. */
static void end_overdue(struct nbd *n)
{
	uint64_t now = uv_now(n->loop);

	bh_list_each(r, &n->requests, struct bh_block_request, queued.link) {
		if (r->queued.deadline > now)
			continue;
		if (r->queued.sent)
			n->lost = true; /* it is the server's until the connection is closed */
		else
			finish(r, n->state == READY ? -ETIMEDOUT : -ENOTCONN);
	}
}

static void look(uv_timer_t *timer)
{
	struct nbd *n = timer->data;

	end_overdue(n);
	if (n->lost) {
		connection_lost(n);
		end_overdue(n); /* what was with the server is ours again */
	}
	if (n->state == RESTING && uv_now(n->loop) >= n->dial_at)
		dial_again(n);
	start_all(n);
	if (!tell_finished(n))
		return;
	if (n->state == READY && bh_list_empty(&n->requests) && bh_list_empty(&n->finished))
		uv_timer_stop(timer);
}

/* --- the seam ------------------------------------------------------------------------------------------------ */

static uint32_t nbd_try_read(struct bh_block *b, uint64_t offset, void *data, uint32_t length)
{
	(void)b, (void)offset, (void)data, (void)length;
	return 0; /* nothing is here */
}

static void nbd_submit(struct bh_block *b, struct bh_block_request *r)
{
	struct nbd *n = to_nbd(b);
	uint64_t now = uv_now(n->loop);
	bool long_away = n->said_lost && now - n->lost_at >= n->timeout_ms; /* no request waits for it anew */

	r->block_data = n;
	r->queued.deadline = long_away ? now : now + n->timeout_ms;
	r->queued.sent = r->queued.flushing = false;
	bh_list_append(&n->requests, &r->queued.link);
	uv_timer_start(n->timer, look, 0, n->look_ms);
}

/* Everything of it, however far it came. */
static void nbd_destroy(struct bh_block *b)
{
	struct nbd *n = to_nbd(b);

	n->destroyed = true;
	if (n->telling)
		return; /* tell_finished() does it */
	n->lost = true;
	disconnect(n);
	if (n->dial)
		say_goodbye(n->dial, n->timer);
	else if (n->timer)
		uv_close((uv_handle_t *)n->timer, free_handle);
	if (n->wake) {
		n->wake->data = NULL;
		uv_close((uv_handle_t *)n->wake, free_handle);
	}
	free(n->uri);
	free(n);
}

static const struct bh_block_ops nbd_ops = {
	.try_read = nbd_try_read,
	.submit = nbd_submit,
	.destroy = nbd_destroy,
};

/* --- the beginning ----------------------------------------------------------------------------------------- */

static int fail(char *error, size_t error_size, const char *uri, int err, const char *why)
{
	char name[BH_NBD_NAME_SIZE];

	snprintf(error, error_size, "disk '%s': %s", bh_block_nbd_name(uri, name), why);
	return err;
}

/* The handles of the loop. */
static int make_handles(struct nbd *n)
{
	n->timer = malloc(sizeof(*n->timer));
	if (!n->timer)
		return -ENOMEM;
	uv_timer_init(n->loop, n->timer);
	n->timer->data = n;
	n->wake = malloc(sizeof(*n->wake));
	if (n->wake && uv_async_init(n->loop, n->wake, woken)) {
		free(n->wake);
		n->wake = NULL;
	}
	if (!n->wake)
		return -ENOMEM;
	n->wake->data = n;
	uv_unref((uv_handle_t *)n->wake);
	return 0;
}

/* The first connection, which tells what the disk is. */
static int meet(struct nbd *n, bool readonly, char *error, size_t error_size)
{
	struct dial *d = dial_start(n->uri, NULL);
	char why[WHY_SIZE], text[WHY_SIZE + 100];
	struct nbd_handle *h = d ? dial_wait(d, FIRST_MS, why) : NULL;
	int64_t size;

	if (!d)
		return fail(error, error_size, n->uri, -ENOMEM, "out of memory; free some");
	if (h)
		dial_unref(d);
	else
		n->dial = d; /* perhaps it still dials */
	if (!h) {
		snprintf(text, sizeof(text), "no NBD server: %s; is it there, and is the URI right?", why);
		return fail(error, error_size, n->uri, -ENOTCONN, text);
	}
	size = nbd_get_size(h);
	if (size < 0 || !has_limits(h, &n->block.alignment, &n->most_bytes)) {
		nbd_close(h);
		return fail(error, error_size, n->uri, -EINVAL, "the NBD server's size or limits make no sense");
	}
	n->block.size = (uint64_t)size;
	n->block.readonly = readonly || nbd_is_read_only(h) != 0;
	if (adopt(n, h))
		return 0;
	nbd_close(h);
	return fail(error, error_size, n->uri, -ENOMEM, "out of memory; free some");
}

int bh_block_nbd_open(uv_loop_t *loop, const char *uri, bool readonly, unsigned timeout_ms,
                      void (*log)(void *data, const char *text), void *log_data, struct bh_block **ret, char *error,
                      size_t error_size)
{
	struct nbd *n = calloc(1, sizeof(*n));
	int r;

	if (!n)
		return fail(error, error_size, uri, -ENOMEM, "out of memory; free some");
	n->block.ops = &nbd_ops;
	n->loop = loop;
	n->timeout_ms = timeout_ms;
	n->look_ms = BH_MIN(LOOK_MS, timeout_ms / 4 + 1);
	n->log = log;
	n->log_data = log_data;
	bh_list_init(&n->requests);
	bh_list_init(&n->finished);
	n->uri = strdup(uri);
	bh_block_nbd_name(uri, n->name);
	r = n->uri ? make_handles(n) : -ENOMEM;
	if (r)
		fail(error, error_size, uri, r, "out of memory; free some");
	else
		r = meet(n, readonly, error, error_size);
	if (r) {
		nbd_destroy(&n->block);
		return r;
	}
	start_all(n);
	*ret = &n->block;
	return 0;
}
