/*
 * A serial line over a pseudo-terminal of our own. The other side is there while somebody has
 * the slave open. The master says when the last one has gone (EIO), but not when one comes:
 * that is inotify's to say. Nothing is written while nobody is there, for the kernel would
 * take it and forget it when the next one sets the terminal up.
 */
#include "serial_line.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <base/util.h>

struct pty {
	struct bh_line line;
	struct bh_line_channel channel;
	int master, watch; /* -1: none */
	uv_poll_t *watching;
	char *link;
	bool was_empty; /* while closing: at the last look nothing was left to be read */
};

static struct pty *to_pty(struct bh_line *l)
{
	return bh_container_of(l, struct pty, line);
}

/* --- who comes and goes ------------------------------------------------------------------------ */

static void pty_lost(struct bh_line_channel *c)
{
	bh_line_channel_detach(c);
	bh_line_connected(c->line, false);
}

/* Is somebody there, or has somebody left something? */
static bool is_there(const struct pty *p)
{
	struct pollfd f = {.fd = p->master, .events = POLLIN};

	return poll(&f, 1, 0) < 0 || !(f.revents & POLLHUP) || (f.revents & POLLIN);
}

static void look(struct pty *p)
{
	if (p->channel.poll || !is_there(p))
		return;
	if (bh_line_channel_attach(&p->channel, p->master) < 0) {
		p->line.failures++;
		return;
	}
	bh_line_connected(&p->line, true);
	p->line.upcalls->moved(&p->line);
}

static void opened(uv_poll_t *h, int status, int events)
{
	struct pty *p = h->data;
	char news[sizeof(struct inotify_event) + NAME_MAX + 1];

	(void)status, (void)events;
	while (read(p->watch, news, sizeof(news)) > 0)
		continue;
	look(p);
}

/* --- the end -------------------------------------------------------------------------------------- */

static void remove_link(const struct pty *p)
{
	char target[PATH_MAX];
	ssize_t n = p->link ? readlink(p->link, target, sizeof(target) - 1) : -1;

	if (n < 0)
		return;
	target[n] = '\0';
	if (strcmp(target, p->line.name) == 0) /* still ours */
		unlink(p->link);
}

static void pty_free(struct pty *p)
{
	bh_line_channel_detach(&p->channel);
	remove_link(p);
	free(p->link);
	if (p->watching)
		uv_close((uv_handle_t *)p->watching, bh_line_free_handle);
	if (p->watch >= 0)
		close(p->watch);
	if (p->master >= 0)
		close(p->master);
	bh_line_finish(&p->line);
	free(p);
}

static void pty_drained(struct bh_line_channel *c, int error)
{
	struct pty *p = to_pty(c->line);

	p->line.upcalls->finished(&p->line, error);
	pty_free(p);
}

/*
 * What a reader has not read is lost to it once the master is closed. How much that is only
 * the slave can tell, and what is on its way to the slave, nobody: so it has to be nothing twice.
 */
static bool pty_delivered(struct bh_line_channel *c)
{
	struct pty *p = to_pty(c->line);
	struct pollfd f = {.fd = p->master};
	int slave, left = 0;

	if (poll(&f, 1, 0) == 1 && (f.revents & POLLHUP))
		return true; /* nobody is there any more */
	slave = open(p->line.name, O_RDONLY | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (slave < 0)
		return true;
	if (ioctl(slave, FIONREAD, &left) < 0)
		left = 0;
	close(slave);
	if (left == 0 && p->was_empty)
		return true;
	p->was_empty = left == 0;
	return false;
}

static void pty_close(struct bh_line *l)
{
	struct pty *p = to_pty(l);

	uv_poll_stop(p->watching);
	if (p->channel.poll)
		bh_line_channel_drain(&p->channel);
	else
		pty_drained(&p->channel, l->to_peer.used ? -ENOTCONN : 0);
}

static void pty_wake(struct bh_line *l)
{
	bh_line_channel_wake(&to_pty(l)->channel);
}

static const struct bh_line_ops pty_ops = {
	.wake = pty_wake,
	.close = pty_close,
};

/* --- the beginning ------------------------------------------------------------------------------------ */

/* Opens a pair, in raw mode, and closes the slave again: from now on its absence shows. */
static int open_pair(struct pty *p)
{
	struct termios t;
	int slave, r = 0;

	p->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (p->master < 0)
		return -errno;
	if (grantpt(p->master) < 0 || unlockpt(p->master) < 0)
		return -errno;
	r = ptsname_r(p->master, p->line.name, sizeof(p->line.name));
	if (r)
		return -r;
	slave = open(p->line.name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return -errno;
	r = tcgetattr(slave, &t);
	if (r == 0) {
		cfmakeraw(&t);
		r = tcsetattr(slave, TCSANOW, &t);
	}
	r = r < 0 ? -errno : 0;
	close(slave);
	return r;
}

static int watch_slave(struct pty *p)
{
	int r;

	p->watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (p->watch < 0)
		return -errno;
	if (inotify_add_watch(p->watch, p->line.name, IN_OPEN) < 0)
		return -errno;
	p->watching = malloc(sizeof(*p->watching));
	if (!p->watching)
		return -ENOMEM;
	r = uv_poll_init(p->line.loop, p->watching, p->watch);
	if (r < 0) {
		free(p->watching);
		p->watching = NULL;
		return r;
	}
	p->watching->data = p;
	return uv_poll_start(p->watching, UV_READABLE, opened);
}

/* A link to a pseudo-terminal is replaced: it is what an earlier run has left. Anything else is not. */
static int make_link(struct pty *p, const char *link)
{
	char target[PATH_MAX];
	ssize_t n = readlink(link, target, sizeof(target));

	if (n > 9 && memcmp(target, "/dev/pts/", 9) == 0)
		unlink(link);
	if (symlink(p->line.name, link) < 0)
		return -errno;
	p->link = strdup(link);
	if (p->link)
		return 0;
	unlink(link);
	return -ENOMEM;
}

static const char *link_advice(int err)
{
	switch (err) {
	case EEXIST:
		return "something else is there; remove it, or choose another path";
	case ENOENT:
	case ENOTDIR:
		return "make the directory first, or choose another path";
	case EACCES:
	case EPERM:
	case EROFS:
		return "choose a directory this user may write to";
	}
	return "choose another path";
}

int bh_line_pty(uv_loop_t *loop, const char *link, struct bh_line **ret, char *error, size_t error_size)
{
	struct pty *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return bh_line_explain(error, error_size, "pty", ENOMEM, "free some memory");
	p->master = p->watch = -1;
	p->channel = (struct bh_line_channel){
		.line = &p->line, .lost = pty_lost, .delivered = pty_delivered, .drained = pty_drained,
	};
	r = bh_line_init(&p->line, loop, &pty_ops);
	if (r == 0)
		r = open_pair(p);
	if (r < 0) {
		bh_line_explain(error, error_size, "pty", -r,
		                "no pseudo-terminal is to be had; is /dev/pts there, and kernel.pty.max not reached?");
		goto err_free;
	}
	r = watch_slave(p);
	if (r < 0) {
		bh_line_explain(error, error_size, "pty", -r,
		                "inotify is needed to see who opens it; raise fs.inotify.max_user_instances");
		goto err_free;
	}
	r = link ? make_link(p, link) : 0;
	if (r < 0) {
		bh_line_explain(error, error_size, link, -r, link_advice(-r));
		goto err_free;
	}
	p->channel.fd = p->master;
	*ret = &p->line;
	return 0;

err_free:
	pty_free(p);
	return r;
}
