"""A disk whose blocks are a server's: nbdkit, over TCP and a Unix socket, that is slow, lies, stalls, goes and comes back."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import pytest

import uhci
from conftest import BINARY

MEGABYTES = 16
PIECE = 64 << 10

pytestmark = pytest.mark.skipif(not shutil.which("nbdkit"), reason="nbdkit is not installed")


class Nbdkit:
    """A server on `address` (a Unix socket) or TCP `port`, over `path`."""

    def __init__(self, path, *filters, address=None, port=None, options=(), parameters=()):
        where = ["--unix", address] if address else ["--ipaddr", "127.0.0.1", "--port", str(port)]
        command = ["nbdkit", "--foreground", "--exit-with-parent", *where, *options, *(f"--filter={name}" for name in filters),
                   "file", path, *parameters]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, text=True)
        self.address, self.port = address, port
        self.uri = f"nbd+unix:///?socket={address}" if address else f"nbd://127.0.0.1:{port}"
        deadline = time.monotonic() + 10
        while not self.answers():
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def answers(self):
        where, family = (str(self.address), socket.AF_UNIX) if self.address else (("127.0.0.1", self.port), socket.AF_INET)
        with socket.socket(family) as s:
            try:
                s.connect(where)
                s.settimeout(5)
                return s.recv(8) == b"NBDMAGIC"
            except OSError:
                return False

    def stop(self):
        """SIGSTOP stops one thread at a time: until the last has stopped, one may still answer."""
        self.process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 10
        tasks = pathlib.Path("/proc", str(self.process.pid), "task")
        while any((task / "stat").read_text().rpartition(")")[2].split()[0] != "T" for task in tasks.iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def kill(self):
        self.process.kill()
        self.process.wait()
        if self.address:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.address)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.kill()
        self.process.stderr.close()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def backing(tmp_path):
    path = tmp_path / "backing"
    path.write_bytes(bytes(MEGABYTES << 20))
    return path


@pytest.fixture
def serve(start):
    with contextlib.ExitStack() as stack:
        def begin(nbd, options=""):
            server = start(image=None, options=["--device", f"disk,nbd={nbd.uri}{options}"])
            return server, uhci.open_disk(stack.enter_context(server.guest()))
        yield begin


def refused(device):
    run = subprocess.run([BINARY, "serve", "--socket-path", "/nonexistent/socket", "--device", device],
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    assert run.returncode == 2 and run.stderr.count("\n") == 1, run.stderr
    return run.stderr


@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_sixteen_megabytes_each_way(over, serve, backing, tmp_path):
    content = os.urandom(MEGABYTES << 20)
    where = {"port": free_port()} if over == "tcp" else {"address": tmp_path / "nbd.sock"}
    with Nbdkit(backing, **where) as nbd:
        server, disk = serve(nbd)
        for at in range(0, len(content), PIECE):
            disk.write(at // 512, content[at : at + PIECE])
        disk.flush()
        assert backing.read_bytes() == content
        got = hashlib.sha256()
        for at in range(0, len(content), PIECE):
            got.update(disk.read(at // 512, PIECE // 512))
        assert got.digest() == hashlib.sha256(content).digest()


def test_a_server_far_away_has_several_requests_at_a_time(serve, backing, tmp_path):
    """20 ms a request: a megabyte in pieces of 64 KiB and read ahead of takes less than one after the other."""
    with Nbdkit(backing, "delay", address=tmp_path / "nbd.sock", parameters=["rdelay=20ms", "wdelay=20ms"]) as nbd:
        server, disk = serve(nbd)
        begin = time.monotonic()
        disk.write(0, os.urandom(1 << 20)[: 960 << 10])
        assert time.monotonic() - begin < 15


@pytest.mark.parametrize("how", ["kill", "stop"])
@pytest.mark.parametrize("writing", [False, True])
def test_a_server_that_goes_is_an_error_in_time_and_works_when_it_is_back(how, writing, serve, backing, tmp_path):
    with Nbdkit(backing, address=tmp_path / "nbd.sock") as nbd:
        server, disk = serve(nbd)
        disk.read(0, 128)
        nbd.process.kill() if how == "kill" else nbd.stop()
        gone = time.monotonic()
        with pytest.raises(uhci.ScsiError) as failed:
            if writing:
                for n in range(8):
                    disk.write(128 * n, bytes(PIECE))
                disk.flush()
            else:
                disk.read(4096, 128)
        assert failed.value.key == 3, "a medium error"
        assert time.monotonic() - gone < 5.5
        server.wait_log("the NBD server is lost")
        begin = time.monotonic()
        with pytest.raises(uhci.ScsiError):
            disk.read(8192, 1)
        assert time.monotonic() - begin < 5.5
        nbd.kill()
        with Nbdkit(backing, address=tmp_path / "nbd.sock"):
            server.wait_log("the NBD server is back")
            with contextlib.suppress(uhci.ScsiError):
                disk.flush()  # perhaps of what was lost
            disk.write(0, b"again" * 100 + bytes(12))
            disk.flush()
            assert disk.read(0, 1)[:5] == b"again"


@pytest.mark.parametrize("wait", [0, 0.02, 0.05, 0.3])
def test_the_end_comes_while_a_server_that_says_nothing_is_dialled(wait, serve, backing, tmp_path):
    """Whoever dials has left libnbd before the program ends: the fixture looks at its status."""
    with Nbdkit(backing, address=tmp_path / "nbd.sock") as nbd:
        server, disk = serve(nbd)
        disk.read(0, 1)
        nbd.kill()
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(tmp_path / "nbd.sock"))
            silent.listen()
            server.wait_log("the NBD server is lost")
            silent.settimeout(10)
            dialled, _ = silent.accept()
            time.sleep(wait)
            begin = time.monotonic()
            server.finish()
            assert time.monotonic() - begin < 2
            dialled.close()


def test_a_short_absence_is_not_even_noticed(serve, backing, tmp_path):
    with Nbdkit(backing, address=tmp_path / "nbd.sock") as nbd:
        server, disk = serve(nbd)
        disk.read(0, 1)
        nbd.kill()
        with Nbdkit(backing, address=tmp_path / "nbd.sock"):
            assert disk.read(0, 128) == bytes(PIECE)
            disk.write(0, b"x" * 512)
            disk.flush()
            assert disk.read(0, 1) == b"x" * 512


def test_what_was_not_flushed_when_the_server_went_is_said_once(serve, backing, tmp_path):
    with Nbdkit(backing, address=tmp_path / "nbd.sock") as nbd:
        server, disk = serve(nbd)
        disk.write(0, b"safe" * 128)
        disk.flush()
        disk.write(8, b"lost" * 128)  # acknowledged; perhaps in the server's cache alone
        nbd.kill()
        with Nbdkit(backing, address=tmp_path / "nbd.sock"):
            server.wait_log("the next flush will fail")
            with pytest.raises(uhci.ScsiError) as failed:
                disk.flush()
            assert (failed.value.key, failed.value.code) == (3, 0x0C)
            disk.write(8, b"lost" * 128)
            disk.flush()


def test_all_that_was_flushed_is_not_doubted(serve, backing, tmp_path):
    with Nbdkit(backing, address=tmp_path / "nbd.sock") as nbd:
        server, disk = serve(nbd)
        disk.write(0, b"safe" * 128)
        disk.flush()
        nbd.kill()
        with Nbdkit(backing, address=tmp_path / "nbd.sock"):
            server.wait_log("the NBD server is back")
            disk.flush()


def test_errors_of_the_server_are_the_disk_s(serve, backing, tmp_path):
    with Nbdkit(backing, "error", address=tmp_path / "nbd.sock",
                parameters=["error-pwrite=ENOSPC", "error-pwrite-rate=100%"]) as nbd:
        server, disk = serve(nbd)
        with pytest.raises(uhci.ScsiError) as failed:
            disk.write(0, bytes(512))
            disk.flush()
        assert (failed.value.key, failed.value.code) == (7, 0x27), "space allocation failed"
        assert disk.read(0, 1) == bytes(512)


def test_read_only_is_read_only(serve, backing, tmp_path):
    with Nbdkit(backing, address=tmp_path / "nbd.sock", options=["--readonly"]) as nbd:
        server, disk = serve(nbd)
        with pytest.raises(uhci.ScsiError) as failed:
            disk.write(0, bytes(512))
        assert failed.value.key == 7


def test_another_size_is_another_disk(serve, backing, tmp_path):
    with Nbdkit(backing, address=tmp_path / "nbd.sock") as nbd:
        server, disk = serve(nbd)
        nbd.kill()
        os.truncate(backing, 1 << 20)
        with Nbdkit(backing, address=tmp_path / "nbd.sock"):
            server.wait_log("back with another size")
            with pytest.raises(uhci.ScsiError):
                disk.read(0, 1)


def test_blocks_of_the_server_s(serve, backing, tmp_path):
    with Nbdkit(backing, "blocksize-policy", address=tmp_path / "nbd.sock",
                parameters=["blocksize-minimum=4096", "blocksize-error-policy=error"]) as nbd:
        assert "say block=4096" in refused(f"disk,nbd={nbd.uri}")
        server, disk = serve(nbd, ",block=4096")
        assert disk.capacity() == (MEGABYTES << 8, 4096)
        disk.write(1, b"q" * 4096, block=4096)
        assert disk.read(1, 1, block=4096) == b"q" * 4096


@pytest.mark.parametrize("device, wrong", [
    ("disk,nbd=nbd://127.0.0.1:1", "no NBD server"),
    ("disk,nbd=nbd+unix:///?socket=/nonexistent/nbd", "no NBD server"),
    ("disk,nbd=http://127.0.0.1", "is the URI right?"),
    ("disk,nbd=nbd://127.0.0.1,file=x", "either file=FILE or nbd=URI"),
    ("disk", "either file=FILE or nbd=URI"),
    ("disk,file=x,timeout=5", "timeout= goes with nbd="),
])
def test_what_is_wrong_is_said_in_one_line(device, wrong):
    assert wrong in refused(device)


def test_who_we_are_is_told_to_nobody():
    said = refused("disk,nbd=nbd://someone:secret@127.0.0.1:1/")
    assert "nbd://127.0.0.1:1/" in said and "secret" not in said and "someone" not in said


def test_what_was_written_is_flushed_when_the_server_is_told_to_end(serve, backing, tmp_path):
    with Nbdkit(backing, address=tmp_path / "nbd.sock") as nbd:
        server, disk = serve(nbd)
        disk.write(0, b"last" * 128)
        assert server.terminate() == 0
        assert backing.read_bytes()[:512] == b"last" * 128


def test_a_server_that_says_nothing_is_not_waited_for(tmp_path):
    """Two seconds, and a guest that is being served meanwhile does not time out."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        begin = time.monotonic()
        assert "it does not answer" in refused(f"disk,nbd=nbd+unix:///?socket={tmp_path}/silent")
        assert time.monotonic() - begin < 4
