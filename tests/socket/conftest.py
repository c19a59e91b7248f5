"""The server under test: $BULKHEAD, by default the one in ./build."""

import contextlib
import functools
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

import client

sys.path.append(str(pathlib.Path(__file__).parents[1]))  # what is shared with other folders

BINARY = pathlib.Path(os.environ.get("BULKHEAD", pathlib.Path(__file__).parents[2] / "build" / "bulkhead")).absolute()
IMAGE_SIZE = 8 << 20


class Server:
    """One server process with one disk, or none (image=None); what it prints goes to files.

    It listens at path (directory/name.sock), or is given fd, a socket, instead. `within` is put in
    front of its command line: net.Host.command() has it run in a network of its own.
    """

    def __init__(self, directory, image, controller="uhci", device="", name="server", path=None, fd=None,
                 options=(), within=(), **popen):
        self.pauses = 0
        self.path = path or directory / f"{name}.sock"
        self.stdout, self.stderr = directory / f"{name}.stdout", directory / f"{name}.stderr"
        arguments = ["serve", "--controller", controller, *map(str, options)]
        arguments += ["--socket-path", self.path] if fd is None else ["--fd", str(fd)]
        if image is not None:
            arguments += ["--device", f"disk,file={image}{device}"]
        with open(self.stdout, "wb") as stdout, open(self.stderr, "wb") as stderr:
            self.process = subprocess.Popen([*within, BINARY, *arguments], stdin=subprocess.DEVNULL, stdout=stdout,
                                            stderr=stderr, pass_fds=[] if fd is None else [fd], **popen)
        if fd is None:
            self.wait_path()

    def wait_path(self):
        end = time.monotonic() + 10
        while not self.path.exists():
            assert self.process.poll() is None, f"the server ended: {self.log()}"
            assert time.monotonic() < end, "the server does not listen"
            time.sleep(0.005)

    def log(self):
        return self.stderr.read_text(errors="replace")

    def log_lines(self, word):
        return [line for line in self.log().splitlines() if word in line]

    def wait_log(self, word, timeout=5.0):
        end = time.monotonic() + timeout
        while not self.log_lines(word):
            assert time.monotonic() < end, f"no '{word}' in the log: {self.log()}"
            time.sleep(0.01)

    def alive(self):
        return self.process.poll() is None

    def client(self, **arguments):
        """Connected, no version agreed. A server still letting go of the last client is given time."""
        return self.retry(lambda: client.Client(self.path, **arguments))

    def guest(self, **arguments):
        return self.retry(lambda: client.Guest(self.path, **arguments))

    @staticmethod
    def retry(connect):
        end = time.monotonic() + 2
        while True:
            try:
                return connect()
            except (client.Gone, ConnectionRefusedError, BlockingIOError, FileNotFoundError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def serves(self):
        """Does it still do its work, for a new client?"""
        with self.guest() as g:
            return g.get(client.CONFIG, 0x08, 4) >> 8 == 0x0C0300

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def wait_descriptors(self, count, timeout=2.0):
        """Until there are no more: those it was sent and does not want need not be closed at once."""
        end = time.monotonic() + timeout
        while self.descriptors() > count:
            assert time.monotonic() < end, f"{self.descriptors()} descriptors, not {count}"
            time.sleep(0.01)

    def mappings(self):
        with open(f"/proc/{self.process.pid}/maps") as maps:
            return sum("memfd:guest" in line for line in maps)

    def cpu_seconds(self):
        """Of all its threads, to the nanosecond; /proc/PID/stat counts in hundredths of a second."""
        total = 0
        for thread in os.listdir(f"/proc/{self.process.pid}/task"):
            with open(f"/proc/{self.process.pid}/task/{thread}/schedstat") as schedstat:
                total += int(schedstat.read().split()[0])
        return total / 1e9

    @contextlib.contextmanager
    def paused(self):
        """What clients send meanwhile is all there when it goes on. May be nested."""
        if not self.pauses:
            self.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)
        self.pauses += 1
        try:
            yield
        finally:
            self.pauses -= 1
            if not self.pauses:
                self.process.send_signal(signal.SIGCONT)

    def terminate(self, timeout=10):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def finish(self):
        if self.process.poll() is None:
            try:
                status = self.terminate()
                assert status == 0, f"exit status {status}: {self.log()}"  # sanitizers tell of leaks so
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                pytest.fail("SIGTERM did not end the server")


@functools.cache
def sanitized():
    return b"__asan_init" in BINARY.read_bytes()


def pytest_configure(config):
    config.addinivalue_line("markers", "unsanitized: not for a server built with sanitizers, and left out there")


def pytest_collection_modifyitems(config, items):
    """What has no meaning for the server under test is not there, rather than skipped."""
    if not BINARY.exists():
        raise pytest.UsageError(f"{BINARY} is not there: compile first (make), or set BULKHEAD")
    left_out = [item for item in items if sanitized() and item.get_closest_marker("unsanitized")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def close_eventfds():
    yield
    while client.eventfds:
        os.close(client.eventfds.pop())


@pytest.fixture
def image(tmp_path):
    """A disk whose every sector says which it is."""
    path = tmp_path / "disk.img"
    with open(path, "wb") as f:
        for sector in range(IMAGE_SIZE // 512):
            f.write(sector.to_bytes(4, "little") * 128)
    return path


@pytest.fixture
def start(tmp_path, image):
    """start(controller=..., device=..., image=..., name=...) gives a Server, ended with the test."""
    servers = []

    def begin(**arguments):
        servers.append(Server(tmp_path, arguments.pop("image", image), **arguments))
        return servers[-1]

    yield begin
    for server in servers:
        server.finish()


@pytest.fixture
def server(start):
    return start()


@pytest.fixture
def guest(server):
    with server.guest() as g:
        yield g
