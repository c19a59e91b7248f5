"""A library that makes a disk stop at a byte: what reaches it or goes beyond waits for the test.

    gate = Gate(directory)
    gate.write_from = 1 << 20
    with lab.disk("bulkhead", image, environment=gate.environment()) as disk: ...
    gate.held()      # how many writes and reads wait
    gate.open()

Preloaded into the server: not for one built with sanitizers, which want to be loaded first.
Only the disk's file is read and written by the calls that are held. Every write is recorded.
"""

import mmap
import os
import subprocess

import pytest

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

/* Shared with the test, in this order. */
static struct gate {
	_Atomic uint64_t read_from, write_from; /* the first byte that may not be had */
	_Atomic uint64_t held;
} *gate;
static int record;

__attribute__((constructor)) static void start(void)
{
	int fd = open(getenv("GATE"), O_RDWR | O_CLOEXEC);

	record = open(getenv("GATE_RECORD"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || record < 0)
		abort();
	gate = mmap(NULL, sizeof(*gate), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (gate == MAP_FAILED)
		abort();
	close(fd);
}

static void pass(_Atomic uint64_t *from, uint64_t end)
{
	if (end <= *from)
		return;
	gate->held++;
	while (end > *from)
		usleep(2000);
	gate->held--;
}

ssize_t preadv64v2(int fd, const struct iovec *v, int count, off64_t offset, int flags)
{
	static ssize_t (*next)(int, const struct iovec *, int, off64_t, int);
	uint64_t end = (uint64_t)offset;

	for (int i = 0; i < count; i++)
		end += v[i].iov_len;
	if (end > gate->read_from && (flags & RWF_NOWAIT)) {
		errno = EAGAIN;
		return -1;
	}
	pass(&gate->read_from, end);
	if (!next)
		next = dlsym(RTLD_NEXT, "preadv64v2");
	return next(fd, v, count, offset, flags);
}

ssize_t pread64(int fd, void *data, size_t length, off64_t offset)
{
	static ssize_t (*next)(int, void *, size_t, off64_t);

	pass(&gate->read_from, (uint64_t)offset + length);
	if (!next)
		next = dlsym(RTLD_NEXT, "pread64");
	return next(fd, data, length, offset);
}

ssize_t pwritev64v2(int fd, const struct iovec *v, int count, off64_t offset, int flags)
{
	static ssize_t (*next)(int, const struct iovec *, int, off64_t, int);
	uint64_t end = (uint64_t)offset;
	ssize_t n;

	for (int i = 0; i < count; i++)
		end += v[i].iov_len;
	pass(&gate->write_from, end);
	if (!next)
		next = dlsym(RTLD_NEXT, "pwritev64v2");
	n = next(fd, v, count, offset, flags);
	if (n > 0)
		dprintf(record, "%lld %zd\n", (long long)offset, n);
	return n;
}
"""

NOWHERE = (1 << 64) - 1

# For a guest's script; its kernel needs STANDING_OPTIONS. standing IN|OUT: how the disk's queue that
# way stands, as its driver tells: "ACTLEN BUFFER FLAG BUFFER", which are the bytes of the request
# that have moved, the addresses of the first two descriptors' data, and IOC if the first is flagged
# with it, else "-". Nothing where no request stands.
STANDING = r"""
mount -t debugfs none /sys/kernel/debug
standing() {
    cat /sys/kernel/debug/usb/uhci/* | sed -n "/EP=[0-9]*($1) BLK/,/^ *2: /p" | sed -n '
        s/.* Actlen=//p
        s/^ *1: .* IOC Active .*buf=\([0-9a-f]*\)).*/\1 IOC/p
        s/^ *1: .* Active .*buf=\([0-9a-f]*\)).*/\1 -/p
        s/^ *2: .*buf=\([0-9a-f]*\)).*/\1/p' | tr '\n' ' '
}
"""
STANDING_OPTIONS = "uhci_hcd.debug=3"  # descriptors are shown; in the log too, of requests that failed


def skip_where_impossible():
    if os.environ.get("LAB_CONTROLLER", "bulkhead") != "bulkhead":
        pytest.skip("the disk that is held is our own server's")
    if "BULKHEAD_SANITIZED" in os.environ:
        pytest.skip("a server with sanitizers is not to be preloaded")


class Gate:
    """Open at first. Bytes are counted from the start of the disk."""

    def __init__(self, directory):
        self.library = directory / "gate.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", self.library, "-x", "c", "-"],
                       input=SOURCE, text=True, check=True, timeout=60)
        self.path = directory / "gate"
        self.record = directory / "gate.record"
        self.path.write_bytes(bytes(4096))
        with open(self.path, "r+b") as file:
            self.words = memoryview(mmap.mmap(file.fileno(), 4096)).cast("Q")
        self.open()

    def environment(self):
        return {"LD_PRELOAD": str(self.library), "GATE": str(self.path), "GATE_RECORD": str(self.record)}

    def hold_reads(self, from_byte):
        self.words[0] = from_byte

    def hold_writes(self, from_byte):
        self.words[1] = from_byte

    def open(self):
        self.hold_reads(NOWHERE)
        self.hold_writes(NOWHERE)

    def held(self):
        return self.words[2]

    def writes(self):
        """(offset, length) of every write so far, in order."""
        return [tuple(map(int, line.split())) for line in self.record.read_text().splitlines()]
