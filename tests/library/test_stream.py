"""examples/stream.c: a source that is no USB controller, and a destination that is no device."""

import fcntl
import os
import random
import re
import socket
import struct
import subprocess
import termios
import time

import pytest

PACKET, RECORD, BATCH = 48, 1400, 140000


# Stands before the C library's send(): takes pieces of it only, is full every third time, and
# after so many bytes the connection is gone.
INTERPOSER = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

ssize_t send(int fd, const void *data, size_t size, int flags)
{
	static size_t left, calls;
	ssize_t (*real)(int, const void *, size_t, int) = (ssize_t (*)(int, const void *, size_t, int))dlsym(RTLD_NEXT, "send");
	size_t piece = (size_t)atol(getenv("SEND_PIECE"));

	if (!calls++)
		left = (size_t)atol(getenv("SEND_LIMIT"));
	if (!left || calls % 3 == 0) {
		errno = left ? EAGAIN : ECONNRESET;
		return -1;
	}
	size = size < piece ? size : piece;
	size = size < left ? size : left;
	left -= size;
	return real(fd, data, size, flags);
}
"""


class Stream:
    """The example under way, sending contents to us; peer is our end of the connection."""

    def __init__(self, examples, directory, contents, receive_buffer=None, environment={}):
        file = directory / "file"
        file.write_bytes(contents)
        with socket.socket() as listener:
            if receive_buffer:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            listener.settimeout(20)
            self.port = listener.getsockname()[1]
            self.process = subprocess.Popen(
                [examples.program("stream"), file, "127.0.0.1", str(self.port)],
                env={**examples.environment, **environment}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, text=True)
            self.peer, _ = listener.accept()
        self.peer.settimeout(20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.peer.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def exactly(self, length):
        data = b""
        while len(data) < length:
            piece = self.peer.recv(length - len(data))
            assert piece, f"the stream ended after {len(data)} of {length} bytes"
            data += piece
        return data

    def record(self):
        return self.exactly(int.from_bytes(self.exactly(2), "big"))

    def records(self):
        """All of them, until the empty one."""
        records = []
        while record := self.record():
            records.append(record)
        return records

    def wait_blocked(self):
        """Until it sleeps although we have some of what it sends: the socket is full."""
        end = time.monotonic() + 20
        while True:
            waiting = struct.unpack("i", fcntl.ioctl(self.peer, termios.FIONREAD, b"\0" * 4))[0]
            with open(f"/proc/{self.process.pid}/stat") as stat:
                state = stat.read().rsplit(")", 1)[1].split()[0]
            if waiting and state == "S":
                return
            assert time.monotonic() < end, "it does not wait for us"
            time.sleep(0.005)

    def end(self):
        """Its exit status, figures (packets sent, of how many, batches, system calls, times busy) and complaint."""
        output, complaint = self.process.communicate(timeout=20)
        figures = re.match(r"(\d+) of (\d+) packets, (\d+) batches, (\d+) system calls, (\d+) times busy\n$", output)
        return self.process.returncode, list(map(int, figures.groups())), complaint


def contents(length):
    return random.Random(length).randbytes(length)


@pytest.mark.parametrize("length", [0, 1, 47, 48, 49, 1400, 4200, 48 * 1400, 3 * BATCH, 1_000_003])
def test_the_file_arrives(examples, tmp_path, length):
    data = contents(length)
    with Stream(examples, tmp_path, data) as s:
        records = s.records()
        s.peer.close()
        status, (sent, packets, batches, calls, _), complaint = s.end()
    assert b"".join(records) == data
    assert (status, complaint) == (0, "")
    assert sent == packets == -(-length // PACKET) + 1  # the last one is empty
    assert all(len(record) <= RECORD for record in records)
    assert sum(len(record) < RECORD for record in records) <= batches  # cut by a batch's end only
    assert batches <= length // (BATCH - PACKET) + 2
    assert calls >= batches


def test_a_slow_reader_is_waited_for(examples, tmp_path):
    data = contents(16_000_000)
    with Stream(examples, tmp_path, data, receive_buffer=4096) as s:
        s.wait_blocked()
        records = s.records()
        s.peer.close()
        status, (sent, packets, batches, calls, busy), complaint = s.end()
    assert b"".join(records) == data
    assert (status, sent, complaint) == (0, packets, "")
    assert busy > 0
    assert calls > batches  # some were taken in part


def test_a_peer_that_closes_in_mid_stream(examples, tmp_path):
    """What it had is told to be sent; the packet after that is charged, and the rest untouched."""
    data = contents(16_000_000)
    with Stream(examples, tmp_path, data, receive_buffer=4096) as s:
        received = b"".join(s.record() for _ in range(100))
        s.wait_blocked()
        s.peer.close()
        status, (sent, packets, *_), complaint = s.end()
    assert received == data[:len(received)]
    assert status == 1
    assert len(complaint.splitlines()) == 1
    assert f"127.0.0.1:{s.port} went away after packet {sent} of {packets}" in complaint
    assert len(received) // PACKET <= sent < packets


@pytest.fixture
def interposer(tmp_path):
    source, library = tmp_path / "send.c", tmp_path / "send.so"
    source.write_text(INTERPOSER)
    subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


WHOLE_BATCH = (BATCH // PACKET * PACKET // RECORD) * (2 + RECORD) + 2 + BATCH // PACKET * PACKET % RECORD


@pytest.mark.parametrize("limit", [
    0, 1, 2, 2 + 47, 2 + 48, 2 + 49, 2 + 1400, 2 + 1400 + 1, 4 + 1440, 2 + 1400 + 2 + 39, 2 + 1400 + 2 + 40,
    WHOLE_BATCH - 1, WHOLE_BATCH, WHOLE_BATCH + 1, WHOLE_BATCH + 2 + 48, 200_000,
])
@pytest.mark.parametrize("piece", [997, 10**9])
def test_a_failure_is_charged_to_the_packet_it_hit(examples, tmp_path, interposer, limit, piece):
    """Whatever the far side's records are: the first packet that did not travel whole."""
    data = contents(400_000)
    environment = {"LD_PRELOAD": str(interposer), "SEND_PIECE": str(piece), "SEND_LIMIT": str(limit)}
    with Stream(examples, tmp_path, data, environment=environment) as s:
        wire = b""
        while part := s.peer.recv(1 << 16):
            wire += part
        status, (sent, packets, *_), complaint = s.end()
    payload = b""
    assert len(wire) == limit
    while len(wire) > 2:
        length = int.from_bytes(wire[:2], "big")
        payload += wire[2:2 + length]
        wire = wire[2 + length:]
    assert payload == data[:len(payload)]
    assert sent == len(payload) // PACKET
    assert status == 1
    assert f"went away after packet {sent} of {packets}" in complaint


def test_a_peer_that_closes_without_reading_to_the_end(examples, tmp_path):
    """Its system took everything, and so did ours; that is no success yet."""
    with Stream(examples, tmp_path, contents(10_000)) as s:
        s.record()
        s.wait_blocked()
        s.peer.close()
        status, _, complaint = s.end()
    assert status == 1
    assert len(complaint.splitlines()) == 1 and "went away" in complaint


def fails(examples, *arguments):
    done = subprocess.run([examples.program("stream"), *map(str, arguments)], env=examples.environment,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=20)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_nobody_listens(examples, tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))  # taken, but nobody listens
        assert "127.0.0.1:" in fails(examples, tmp_path / "file", "127.0.0.1", s.getsockname()[1])


def test_no_such_file(examples, tmp_path):
    assert "nowhere" in fails(examples, tmp_path / "nowhere", "127.0.0.1", 1)


def test_tells_how_to_use_it(examples):
    assert "stream FILE HOST PORT" in fails(examples)
