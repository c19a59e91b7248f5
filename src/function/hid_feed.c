/*
 * Lines from a file or FIFO: see hid_feed.h.
 *
 * A FIFO that its last writer has closed reads as ended, and shows so until it is opened
 * anew. It is opened again before it is closed: what the next writer has written meanwhile
 * is kept.
 */
#include "hid_feed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#define LINE_MAX_BYTES 4096u

/* A FIFO as it was opened once. */
struct watch {
	uv_poll_t poll;
	int fd;
	struct bh_hid_feed *feed;
};

struct bh_hid_feed {
	/* configuration */
	uv_loop_t *loop;
	char *path;
	const struct bh_hid_feed_ops *ops;
	void *owner;

	/* the file */
	struct watch *watch; /* FIFO; NULL: none, or it has ended */
	int fd;              /* regular file; -1: none, or it has ended */
	uv_fs_t request;
	bool reading; /* request is under way */
	unsigned closing_handles;

	/* what was read */
	char buffer[LINE_MAX_BYTES + 1];
	size_t used;
	bool ended;    /* what is in the buffer is all: its rest is a line, too */
	bool skipping; /* the rest of a line that was too long */
	bool blocked;  /* the first line waits for room */
	bool closing;
	uint64_t line_number;
};

static void go_on(struct bh_hid_feed *f);

/* --- the end ------------------------------------------------------------------------ */

static void free_feed(struct bh_hid_feed *f)
{
	if (f->fd >= 0)
		close(f->fd);
	free(f->path);
	free(f);
}

static void settle(struct bh_hid_feed *f)
{
	void (*closed)(void *) = f->ops->closed;
	void *owner = f->owner;

	if (!f->closing || f->reading || f->closing_handles)
		return;
	free_feed(f);
	closed(owner);
}

static void watch_closed(uv_handle_t *handle)
{
	struct watch *w = handle->data;
	struct bh_hid_feed *f = w->feed;

	free(w);
	f->closing_handles--;
	settle(f);
}

static void drop_watch(struct bh_hid_feed *f)
{
	struct watch *w = f->watch;

	f->watch = NULL;
	if (!w)
		return;
	f->closing_handles++;
	uv_close((uv_handle_t *)&w->poll, watch_closed);
	close(w->fd);
}

void bh_hid_feed_close(struct bh_hid_feed *f)
{
	f->closing = true;
	drop_watch(f);
	settle(f);
}

/* --- lines -------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4)))
static void tell(struct bh_hid_feed *f, bool bad_line, const char *format, ...)
{
	char text[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	f->ops->log(f->owner, text, bad_line);
}

static void consume(struct bh_hid_feed *f, size_t n)
{
	f->used -= n;
	memmove(f->buffer, f->buffer + n, f->used);
}

/* Offers the n bytes at the beginning of the buffer. False: there is no room for what they say. */
static bool offer(struct bh_hid_feed *f, size_t n)
{
	char error[256] = "";
	char end = f->buffer[n];
	int r = -EINVAL;

	f->buffer[n] = 0;
	if (strlen(f->buffer) < n)
		snprintf(error, sizeof(error), "a NUL byte is no text");
	else
		r = f->ops->line(f->owner, f->buffer, error, sizeof(error));
	f->buffer[n] = end;
	if (r == -ENOBUFS)
		return false;
	f->line_number++;
	if (r)
		tell(f, true, "%s:%llu: %s", f->path, (unsigned long long)f->line_number, error);
	return true;
}

/* A line that does not fit into the buffer, and its end is not in sight. */
static void skip_long(struct bh_hid_feed *f)
{
	if (!f->skipping) {
		f->line_number++;
		tell(f, true, "%s:%llu: longer than %u bytes; split it", f->path, (unsigned long long)f->line_number,
		     LINE_MAX_BYTES - 1);
	}
	f->skipping = true;
	f->used = 0;
}

/* Offers what is in the buffer, line by line, until more has to be read or a line waits. */
static void offer_lines(struct bh_hid_feed *f)
{
	while (f->used && !f->blocked) {
		char *newline = memchr(f->buffer, '\n', f->used);
		size_t n = newline ? (size_t)(newline - f->buffer) : f->used;

		if (!newline && !f->ended && f->used < LINE_MAX_BYTES)
			return;
		if (!newline && !f->ended) {
			skip_long(f);
			return;
		}
		if (!f->skipping && !offer(f, n)) {
			f->blocked = true;
			return;
		}
		f->skipping = false;
		consume(f, n + (newline != NULL));
	}
}

void bh_hid_feed_resume(struct bh_hid_feed *f)
{
	if (!f->blocked || f->closing)
		return;
	f->blocked = false;
	go_on(f);
}

/* --- a regular file ----------------------------------------------------------------- */

static void file_read(uv_fs_t *request)
{
	struct bh_hid_feed *f = request->data;
	ssize_t n = request->result;

	uv_fs_req_cleanup(request);
	f->reading = false;
	if (f->closing) {
		settle(f);
		return;
	}
	if (n < 0)
		tell(f, false, "%s: cannot be read: %s; nothing more comes from it", f->path, uv_strerror((int)n));
	if (n > 0)
		f->used += (size_t)n;
	else
		f->ended = true;
	go_on(f);
}

static void read_file(struct bh_hid_feed *f)
{
	uv_buf_t buffer = uv_buf_init(f->buffer + f->used, (unsigned)(LINE_MAX_BYTES - f->used));
	int r;

	if (f->reading)
		return;
	f->request.data = f;
	r = uv_fs_read(f->loop, &f->request, f->fd, &buffer, 1, -1, file_read);
	f->reading = !r;
	if (r)
		tell(f, false, "%s: cannot be read: %s; nothing more comes from it", f->path, uv_strerror(r));
}

/* --- a FIFO ------------------------------------------------------------------------- */

static void fifo_readable(uv_poll_t *poll, int status, int events)
{
	struct watch *w = poll->data;
	struct bh_hid_feed *f = w->feed;
	ssize_t n;

	(void)events;
	n = status ? -1 : read(w->fd, f->buffer + f->used, LINE_MAX_BYTES - f->used);
	if (status || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		tell(f, false, "%s: cannot be read: %s; nothing more comes from it", f->path,
		     status ? uv_strerror(status) : strerror(errno));
		drop_watch(f);
		return;
	}
	if (n > 0)
		f->used += (size_t)n;
	else if (n == 0)
		f->ended = true;
	go_on(f);
}

/* A negative errno, or a descriptor: of a FIFO (ret_fifo) or a regular file. */
static int open_path(const char *path, bool *ret_fifo)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat s;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &s) < 0 || (!S_ISFIFO(s.st_mode) && !S_ISREG(s.st_mode))) {
		close(fd);
		return -ENOTSUP;
	}
	*ret_fifo = S_ISFIFO(s.st_mode);
	return fd;
}

/* The descriptor is the watch's from now on, or closed. */
static int watch_fifo(struct bh_hid_feed *f, int fd)
{
	struct watch *w = calloc(1, sizeof(*w));
	int r = w ? uv_poll_init(f->loop, &w->poll, fd) : -ENOMEM;

	if (r) {
		free(w);
		close(fd);
		return r;
	}
	w->fd = fd;
	w->feed = f;
	w->poll.data = w;
	f->watch = w;
	return 0;
}

/* The last writer has gone, and all it wrote was taken. */
static void reopen_fifo(struct bh_hid_feed *f)
{
	bool fifo = false;
	int fd = open_path(f->path, &fifo), r = fd;

	drop_watch(f);
	if (fd >= 0 && fifo) {
		r = watch_fifo(f, fd);
	} else if (fd >= 0) {
		close(fd);
		r = -ENOTSUP;
	}
	if (r < 0)
		tell(f, false, "%s: cannot be opened again: %s; nothing more comes from it", f->path,
		     r == -ENOTSUP ? "it is a FIFO no more" : strerror(-r));
}

/* --- both --------------------------------------------------------------------------- */

/* Everything in the buffer has been taken, or is the beginning of a line. */
static void read_more(struct bh_hid_feed *f)
{
	if (f->ended && f->watch) {
		f->ended = f->skipping = false;
		reopen_fifo(f);
	}
	if (f->ended) {
		if (f->fd >= 0)
			close(f->fd);
		f->fd = -1;
	} else if (f->watch) {
		uv_poll_start(&f->watch->poll, UV_READABLE, fifo_readable);
	} else if (f->fd >= 0) {
		read_file(f);
	}
}

static void go_on(struct bh_hid_feed *f)
{
	offer_lines(f);
	if (!f->blocked)
		read_more(f);
	else if (f->watch)
		uv_poll_stop(&f->watch->poll);
}

int bh_hid_feed_create(struct uv_loop_s *loop, const char *path, const struct bh_hid_feed_ops *ops, void *owner,
                       struct bh_hid_feed **ret, char *error, size_t error_size)
{
	struct bh_hid_feed *f = calloc(1, sizeof(*f));
	bool fifo = false;
	int r = -ENOMEM;

	if (!f || !(f->path = strdup(path)))
		goto err_free;
	f->loop = loop;
	f->ops = ops;
	f->owner = owner;
	f->fd = -1;
	r = open_path(path, &fifo);
	if (r < 0)
		goto err_free;
	if (fifo) {
		r = watch_fifo(f, r);
		if (r < 0)
			goto err_free;
	} else {
		f->fd = r;
	}
	read_more(f);
	*ret = f;
	return 0;

err_free:
	snprintf(error, error_size, "'%s': %s", path,
	         r == -ENOTSUP  ? "is neither a regular file nor a FIFO; make one with mkfifo"
	         : r == -ENOENT ? "is not there; make it, or a FIFO with mkfifo"
	                        : strerror(-r));
	if (f)
		free(f->path);
	free(f);
	return r;
}
