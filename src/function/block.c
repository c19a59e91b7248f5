/*
 * The block seam over a file or block device of the host: page-cache hits are read
 * in place, all else goes to libuv's thread pool.
 *
 * One writer or many readers: an open-file-description lock over the whole file,
 * which the kernel drops with the descriptor, however the process ends. A block
 * device is opened O_EXCL as well by a writer, which the kernel refuses while the
 * host has it mounted.
 */
#include "block.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <base/util.h>

struct file {
	struct bh_block block;
	uv_loop_t *loop;
	int fd;
	bool nowait; /* preadv2(RWF_NOWAIT) has not been refused yet */
};

static struct file *to_file(struct bh_block *b)
{
	return bh_container_of(b, struct file, block);
}

static uint32_t file_try_read(struct bh_block *b, uint64_t offset, void *data, uint32_t length)
{
	struct file *f = to_file(b);
	struct iovec v = {.iov_base = data, .iov_len = length};
	ssize_t n;

	if (!f->nowait)
		return 0;
	n = preadv2(f->fd, &v, 1, (off_t)offset, RWF_NOWAIT);
	if (n >= 0)
		return (uint32_t)n;
	if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL)
		f->nowait = false;
	return 0;
}

/* On a pool thread: as much as it takes; a file that became shorter is an I/O error. */
static void read_all(int fd, struct bh_block_request *r)
{
	while (r->moved < r->length) {
		ssize_t n = pread(fd, r->data + r->moved, r->length - r->moved, (off_t)(r->offset + r->moved));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			r->error = n < 0 ? -errno : -EIO;
			return;
		}
		r->moved += (uint32_t)n;
	}
}

/* On a pool thread. */
static void write_all(int fd, struct bh_block_request *r)
{
	int flags = r->fua ? RWF_DSYNC : 0;

	while (r->moved < r->length) {
		struct iovec v = {.iov_base = r->data + r->moved, .iov_len = r->length - r->moved};
		ssize_t n = pwritev2(fd, &v, 1, (off_t)(r->offset + r->moved), flags);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EOPNOTSUPP && flags) {
			flags = 0;
			continue;
		}
		if (n <= 0) {
			r->error = n < 0 ? -errno : -EIO;
			return;
		}
		r->moved += (uint32_t)n;
	}
	if (r->fua && !flags && fdatasync(fd) < 0) {
		r->error = -errno;
		r->moved = 0;
	}
}

static void file_work(uv_work_t *work)
{
	struct bh_block_request *r = bh_container_of(work, struct bh_block_request, work);
	const struct file *f = r->block_data;

	switch (r->op) {
	case BH_BLOCK_READ:
		read_all(f->fd, r);
		break;
	case BH_BLOCK_WRITE:
		write_all(f->fd, r);
		break;
	case BH_BLOCK_FLUSH:
		if (fdatasync(f->fd) < 0)
			r->error = -errno;
		break;
	}
}

static void file_worked(uv_work_t *work, int status)
{
	struct bh_block_request *r = bh_container_of(work, struct bh_block_request, work);

	if (status < 0 && !r->error)
		r->error = status;
	r->done(r);
}

static void file_submit(struct bh_block *b, struct bh_block_request *r)
{
	struct file *f = to_file(b);

	r->block_data = f;
	uv_queue_work(f->loop, &r->work, file_work, file_worked); /* fails only without a work function */
}

static void file_destroy(struct bh_block *b)
{
	struct file *f = to_file(b);

	close(f->fd);
	free(f);
}

static const struct bh_block_ops file_ops = {
	.try_read = file_try_read,
	.submit = file_submit,
	.destroy = file_destroy,
};

static int explain(char *error, size_t error_size, const char *path, int err, const char *advice)
{
	snprintf(error, error_size, "disk '%s': %s; %s", path, strerror(err), advice);
	return -err;
}

static int open_failed(char *error, size_t error_size, const char *path, int err, bool readonly)
{
	const char *advice = "check the path";

	switch (err) {
	case ENOENT:
		advice = "check the path, or create an image first (truncate -s 1G FILE)";
		break;
	case EACCES:
	case EPERM:
		advice = readonly ? "give this user permission to read it"
		                  : "give this user permission to read and write it, or use readonly=on";
		break;
	case EROFS:
	case ETXTBSY:
		advice = "use readonly=on";
		break;
	case EISDIR:
		advice = "name an image file or a block device";
		break;
	case EBUSY:
		advice = "it is in use on this host (unmount it), or use readonly=on";
		break;
	}
	return explain(error, error_size, path, err, advice);
}

/*
 * Open without ever waiting (a FIFO would) and without becoming a controlling
 * terminal. O_EXCL without O_CREAT is defined for block devices only.
 */
static int open_path(const char *path, bool readonly, char *error, size_t error_size)
{
	int flags = (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	struct stat st;
	int fd;

	if (stat(path, &st) < 0)
		return open_failed(error, error_size, path, errno, readonly);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		int err = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;

		snprintf(error, error_size, "disk '%s': %s; name a regular file or a block device", path,
		         err == EISDIR ? "is a directory" : "is neither a file nor a block device");
		return -err;
	}
	if (S_ISBLK(st.st_mode) && !readonly)
		flags |= O_EXCL;
	fd = open(path, flags);
	return fd < 0 ? open_failed(error, error_size, path, errno, readonly) : fd;
}

/* The size of what is open, or a negative errno; it may no longer be what stat() saw. */
static int measure(int fd, const char *path, uint64_t *ret_size, char *error, size_t error_size)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return explain(error, error_size, path, errno, "check the path");
	if (S_ISREG(st.st_mode)) {
		*ret_size = (uint64_t)st.st_size;
		return 0;
	}
	if (!S_ISBLK(st.st_mode))
		return explain(error, error_size, path, EINVAL, "name a regular file or a block device");
	if (ioctl(fd, BLKGETSIZE64, ret_size) < 0)
		return explain(error, error_size, path, errno, "its size cannot be read");
	return 0;
}

static int lock(int fd, const char *path, bool readonly, char *error, size_t error_size)
{
	struct flock whole = {.l_type = readonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
	int err;

	if (fcntl(fd, F_OFD_SETLK, &whole) == 0)
		return 0;
	err = errno;
	if (err != EAGAIN && err != EACCES)
		return explain(error, error_size, path, err, "its file system cannot lock it; use another");
	snprintf(error, error_size, "disk '%s': in use by another process%s", path,
	         readonly ? " that writes to it; stop that one, or use readonly=on there too"
	                  : "; stop that one, or use readonly=on for both");
	return -EBUSY;
}

int bh_block_file_open(uv_loop_t *loop, const char *path, bool readonly, struct bh_block **ret, char *error,
                       size_t error_size)
{
	struct file *f;
	uint64_t size = 0;
	int r, fd;

	fd = open_path(path, readonly, error, error_size);
	if (fd < 0)
		return fd;
	r = lock(fd, path, readonly, error, error_size);
	if (r == 0)
		r = measure(fd, path, &size, error, error_size);
	if (r < 0)
		goto err_close;
	f = calloc(1, sizeof(*f));
	if (!f) {
		r = explain(error, error_size, path, ENOMEM, "free some memory");
		goto err_close;
	}
	f->block = (struct bh_block){.ops = &file_ops, .size = size, .readonly = readonly};
	f->loop = loop;
	f->fd = fd;
	f->nowait = true;
	*ret = &f->block;
	return 0;

err_close:
	close(fd);
	return r;
}
