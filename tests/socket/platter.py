"""A library that makes fdatasync() visible: what was flushed is copied to a second file, the platter.

The platter is what a power cut would leave. Preloaded into the server: not for one built
with sanitizers, which want to be loaded first.
"""

import os
import subprocess

SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/syscall.h>

/* PLATTER.slow: takes a while. PLATTER.broken: fails, and nothing gets there. */
static int exists(const char *suffix)
{
	char path[4096] = "";
	const char *platter = getenv("PLATTER");
	unsigned n = 0;

	while (*platter && n < sizeof(path) - 1)
		path[n++] = *platter++;
	while (*suffix && n < sizeof(path) - 1)
		path[n++] = *suffix++;
	return !access(path, F_OK);
}

int fdatasync(int fd)
{
	char buffer[65536];
	off_t offset = 0;
	ssize_t n;
	int to;

	if (exists(".slow"))
		usleep(300000);
	if (exists(".broken")) {
		errno = EIO;
		return -1;
	}
	if (syscall(SYS_fdatasync, fd))
		return -1;
	to = open(getenv("PLATTER"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (to < 0)
		abort();
	for (; (n = pread(fd, buffer, sizeof(buffer), offset)) > 0; offset += n)
		if (pwrite(to, buffer, n, offset) != n)
			abort();
	close(to);
	return 0;
}

int fsync(int fd)
{
	return fdatasync(fd);
}
"""


class Platter:
    def __init__(self, path):
        self.path = path

    def environment(self, library):
        return {**os.environ, "LD_PRELOAD": str(library), "PLATTER": str(self.path)}

    def slow(self):
        self.path.with_name(self.path.name + ".slow").touch()

    def broken(self, broken=True):
        mark = self.path.with_name(self.path.name + ".broken")
        mark.touch() if broken else mark.unlink()

    def flushed(self):
        return self.path.exists()

    def read(self, lba, count=1, block=512):
        with open(self.path, "rb") as f:
            f.seek(lba * block)
            return f.read(count * block)


def compile_library(directory):
    library = directory / "platter.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O", "-o", library, "-x", "c", "-"], input=SOURCE, text=True, check=True)
    return library
