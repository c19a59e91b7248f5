"""The server under test: $BULKHEAD, by default the one in ./build."""

import os
import pathlib
import signal
import subprocess
import time

import pytest

import client

BINARY = pathlib.Path(os.environ.get("BULKHEAD", pathlib.Path(__file__).parents[2] / "build" / "bulkhead"))
IMAGE_SIZE = 8 << 20


class Server:
    """One server process with one disk; its standard error goes to a file."""

    def __init__(self, directory, image, controller="uhci", device="", name="server"):
        self.path = directory / f"{name}.sock"
        self.stderr = directory / f"{name}.stderr"
        arguments = ["serve", "--socket-path", str(self.path), "--controller", controller]
        if image is not None:
            arguments += ["--device", f"disk,file={image}{device}"]
        with open(self.stderr, "wb") as stderr, open(directory / f"{name}.stdout", "wb") as stdout:
            self.process = subprocess.Popen(
                [str(BINARY), *arguments], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
            )
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
            except (client.Gone, ConnectionRefusedError, BlockingIOError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def serves(self):
        """Does it still do its work, for a new client?"""
        with self.guest() as g:
            return g.get(client.CONFIG, 0x08, 4) >> 8 == 0x0C0300

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

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


def sanitized():
    return b"__asan_init" in BINARY.read_bytes()


def pytest_collection_modifyitems(items):
    if not BINARY.exists():
        for item in items:
            item.add_marker(pytest.mark.skip(reason=f"{BINARY} is not there"))


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
