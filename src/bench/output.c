/*
 * A file is replaced by renaming a new one over it. Left out: it is not flushed to the disk,
 * and gets mode 0644, whatever the old one had.
 */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int write_all(int fd, const char *text, size_t length)
{
	while (length) {
		ssize_t n = write(fd, text, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		length -= (size_t)n;
	}
	return 0;
}

static int write_into(const char *path, const char *text, size_t length)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = write_all(fd, text, length);
	if (close(fd) && !r)
		r = -errno;
	return r;
}

static int replace(const char *path, char *temporary, const char *text, size_t length)
{
	int fd = mkostemp(temporary, O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = write_all(fd, text, length);
	if (!r && fchmod(fd, 0644))
		r = -errno;
	if (close(fd) && !r)
		r = -errno;
	if (!r && rename(temporary, path))
		r = -errno;
	if (r)
		unlink(temporary);
	return r;
}

int bh_output_write(const char *path, const char *text, size_t length)
{
	struct stat status;
	char *temporary;
	int r;

	if (stat(path, &status) == 0 && !S_ISREG(status.st_mode))
		return write_into(path, text, length);
	if (asprintf(&temporary, "%s.XXXXXX", path) < 0)
		return -ENOMEM;
	r = replace(path, temporary, text, length);
	free(temporary);
	return r;
}
