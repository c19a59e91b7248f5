/*
 * A serial line over files: what the guest sends is appended to one, what it receives is read
 * from another. Files are always ready, and always slow: both go to libuv's thread pool, one
 * request each at a time. What could not be written, for the disk is full, is tried again
 * later; the guest waits.
 */
#include "serial_line.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <base/util.h>

#define RETRY_MS 1000u

struct file {
	struct bh_line line;
	int out, in; /* -1: none */
	uv_fs_t write, read;
	bool writing, reading;
	bool failed; /* the last write did; waiting for the timer */
	bool closing;
	int error; /* while closing: of the write that failed */
};

static struct file *to_file(struct bh_line *l)
{
	return bh_container_of(l, struct file, line);
}

static void file_free(struct file *f)
{
	if (f->out >= 0)
		close(f->out);
	if (f->in >= 0)
		close(f->in);
	bh_line_finish(&f->line);
	free(f);
}

/* While closing: after every request that was not followed by another. f may be gone afterwards. */
static void settle(struct file *f)
{
	if (f->writing || f->reading)
		return;
	f->line.upcalls->finished(&f->line, f->error);
	file_free(f);
}

/* --- writing --------------------------------------------------------------------------------------- */

static void write_more(struct file *f);

static void write_again(uv_timer_t *t)
{
	struct file *f = to_file(t->data);

	f->failed = false;
	write_more(f);
}

static void written(uv_fs_t *r)
{
	struct file *f = r->data;
	ssize_t n = r->result;

	uv_fs_req_cleanup(r);
	f->writing = false;
	if (n > 0) {
		bh_ring_consume(&f->line.to_peer, (size_t)n);
		f->line.sent += (uint64_t)n;
	} else {
		f->line.failures++;
		f->failed = true;
	}
	if (f->closing) {
		if (f->failed)
			f->error = n < 0 ? (int)n : -EIO;
		write_more(f);
		settle(f);
		return;
	}
	if (f->failed)
		uv_timer_start(f->line.timer, write_again, RETRY_MS, 0);
	else
		write_more(f);
	f->line.upcalls->moved(&f->line);
}

static void write_more(struct file *f)
{
	struct iovec spans[2];
	uv_buf_t buffers[2];
	unsigned count = bh_ring_data(&f->line.to_peer, spans);

	if (f->writing || f->failed || !count)
		return;
	for (unsigned i = 0; i < count; i++)
		buffers[i] = uv_buf_init(spans[i].iov_base, (unsigned)spans[i].iov_len);
	f->write.data = f;
	f->writing = true;
	uv_fs_write(f->line.loop, &f->write, f->out, buffers, count, -1, written); /* fails for want of memory only */
}

/* --- reading ------------------------------------------------------------------------------------------ */

static void read_more(struct file *f);

static void has_read(uv_fs_t *r)
{
	struct file *f = r->data;
	ssize_t n = r->result;

	uv_fs_req_cleanup(r);
	f->reading = false;
	if (f->closing) {
		settle(f);
		return;
	}
	if (n > 0) {
		bh_ring_produce(&f->line.to_guest, (size_t)n);
		f->line.from_peer += (uint64_t)n;
		read_more(f);
	} else { /* the end of it */
		f->line.failures += n < 0;
		close(f->in);
		f->in = -1;
	}
	f->line.upcalls->moved(&f->line);
}

static void read_more(struct file *f)
{
	struct iovec spans[2];
	uv_buf_t buffers[2];
	unsigned count = bh_ring_space(&f->line.to_guest, spans);

	if (f->in < 0 || f->reading || !count)
		return;
	for (unsigned i = 0; i < count; i++)
		buffers[i] = uv_buf_init(spans[i].iov_base, (unsigned)spans[i].iov_len);
	f->read.data = f;
	f->reading = true;
	uv_fs_read(f->line.loop, &f->read, f->in, buffers, count, -1, has_read);
}

/* --- the line -------------------------------------------------------------------------------------------- */

static void file_wake(struct bh_line *l)
{
	struct file *f = to_file(l);

	write_more(f);
	read_more(f);
}

static void file_close(struct bh_line *l)
{
	struct file *f = to_file(l);

	uv_timer_stop(l->timer);
	f->closing = true;
	f->failed = false; /* once more */
	write_more(f);
	settle(f);
}

static const struct bh_line_ops file_ops = {
	.wake = file_wake,
	.close = file_close,
};

static const char *file_advice(int err)
{
	switch (err) {
	case ENOENT:
	case ENOTDIR:
		return "check the path, or make the directory first";
	case EACCES:
	case EPERM:
	case EROFS:
		return "give this user permission, or choose another path";
	case EISDIR:
	case EINVAL:
	case ENXIO:
		return "name a regular file";
	}
	return "check the path";
}

/* A regular file, opened without ever waiting; or a negative errno. */
static int open_regular(const char *path, int flags, char *error, size_t error_size)
{
	int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666), err;
	struct stat st;

	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		return fd;
	err = fd < 0 ? errno : S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
	if (fd >= 0)
		close(fd);
	return bh_line_explain(error, error_size, path, err, file_advice(err));
}

int bh_line_file(uv_loop_t *loop, const char *path, const char *input, struct bh_line **ret, char *error,
                 size_t error_size)
{
	struct file *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return bh_line_explain(error, error_size, path, ENOMEM, "free some memory");
	f->out = f->in = -1;
	r = bh_line_init(&f->line, loop, &file_ops);
	if (r < 0) {
		bh_line_explain(error, error_size, path, -r, "free some memory");
		goto err_free;
	}
	if (input) {
		f->in = r = open_regular(input, O_RDONLY, error, error_size);
		if (r < 0)
			goto err_free;
	}
	f->out = r = open_regular(path, O_WRONLY | O_CREAT | O_APPEND, error, error_size);
	if (r < 0)
		goto err_free;
	strncpy(f->line.name, path, sizeof(f->line.name) - 1);
	f->line.connected = true;
	f->line.connections = 1;
	*ret = &f->line;
	return 0;

err_free:
	file_free(f);
	return r;
}
