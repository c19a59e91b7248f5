"""What the guest was told is safe is on the platter; what cannot get there, it is told of."""

import pytest

import uhci
from platter import Platter, compile_library

pytestmark = pytest.mark.unsanitized  # they want to be loaded before any other library

BLOCK = 512
MEDIUM_ERROR = 3
DATA = b"\xa5\x5a" * (BLOCK // 2)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return compile_library(tmp_path_factory.mktemp("library"))


@pytest.fixture
def platter(tmp_path):
    return Platter(tmp_path / "platter")


@pytest.fixture
def server(start, platter, library):
    return start(env=platter.environment(library))


@pytest.fixture
def disk(guest):
    return uhci.open_disk(guest)


def fails_to_flush(disk):
    with pytest.raises(uhci.ScsiError) as e:
        disk.flush()
    assert e.value.key == MEDIUM_ERROR


def test_on_the_platter_before_the_status(disk, platter):
    platter.slow()
    disk.write(200, DATA * 8)
    disk.flush()
    assert platter.read(200, 8) == DATA * 8


def test_every_flush_counts(disk, platter):
    for i in range(3):
        disk.write(10 + i, bytes([i + 1]) * BLOCK)
        disk.flush()
        assert platter.read(10 + i) == bytes([i + 1]) * BLOCK


def test_stopping_the_unit_flushes(disk, platter):
    disk.write(5, DATA)
    disk.command(b"\x1b" + bytes(5))
    assert platter.read(5) == DATA


def test_failure_is_a_medium_error(server, disk, platter):
    disk.write(200, DATA)
    platter.broken()
    fails_to_flush(disk)
    assert not platter.flushed()
    assert disk.read(3, 1) == (3).to_bytes(4, "little") * 128
    platter.broken(False)


def test_works_again_after_a_failure(disk, platter):
    disk.write(200, DATA)
    platter.broken()
    fails_to_flush(disk)
    platter.broken(False)
    disk.write(201, DATA)
    disk.flush()
    assert platter.read(201) == DATA


def test_read_only_needs_no_flush(start, platter, library):
    server = start(device=",readonly=on", env=platter.environment(library))
    platter.broken()
    with server.guest() as g:
        uhci.open_disk(g).flush()
    assert server.terminate() == 0


@pytest.mark.parametrize("leaves", [True, False], ids=["client gone", "client there"])
def test_sigterm_flushes(server, guest, disk, platter, image, leaves):
    disk.write(200, DATA)
    if leaves:
        guest.socket.close()
    assert server.terminate() == 0
    assert platter.read(200) == DATA
    assert platter.path.read_bytes() == image.read_bytes()


def test_sigterm_and_a_failure(server, disk, platter):
    disk.write(200, DATA)
    platter.broken()
    assert server.terminate() == 1
    assert len(server.log().splitlines()) == 1, server.log()


def test_sigterm_after_an_unwritten_disk(server, disk):
    assert disk.read(0, 1) == bytes(BLOCK)
    assert server.terminate() == 0
    assert not server.log()
