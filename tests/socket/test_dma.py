"""Guest memory: what is mapped, what is refused, what is let go."""

import errno
import os
import socket
import tempfile
import time

import pytest

import client
from client import Memory, Refused

PAGE = 4096


@pytest.fixture
def c(server):
    with server.client() as c:
        c.version()
        yield c


def until(condition, seconds=5):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def refused(c, *arguments, **keywords):
    with pytest.raises(Refused) as e:
        c.dma_map(*arguments, **keywords)
    return e.value.errno


def test_map_unmap(server, c):
    memory = Memory(1 << 20)
    c.dma_map(0, 1 << 20, memory.fd)
    assert server.mappings() == 1
    c.dma_unmap(0, 1 << 20)
    assert server.mappings() == 0
    c.dma_map(0, 1 << 20, memory.fd)
    assert server.mappings() == 1


def test_descriptors_are_not_kept(server, c):
    memory = Memory(1 << 20)
    before = server.descriptors()
    for i in range(100):
        c.dma_map(i * PAGE, PAGE, memory.fd, i * PAGE)
        refused(c, i * PAGE, PAGE, memory.fd)
    server.wait_descriptors(before)


def test_out_of_reach_is_recorded(c):
    c.dma_map(0xE0000, 0x20000)
    assert refused(c, 0xE0000, 0x1000) == errno.EEXIST
    c.dma_unmap(0xE0000, 0x20000)


def test_overlap(c):
    memory = Memory(1 << 20)
    c.dma_map(0x10000, 0x10000, memory.fd)
    for iova, size in ((0x10000, 0x10000), (0xF000, 0x2000), (0x1F000, 0x1000), (0x18000, 0x1000), (0, 0x100000)):
        assert refused(c, iova, size, memory.fd) == errno.EEXIST
    c.dma_map(0, 0x10000, memory.fd)
    c.dma_map(0x20000, 0x10000, memory.fd)


@pytest.mark.parametrize("iova, size, offset, flags", [
    (0, 0, 0, 3), (0x800, PAGE, 0, 3), (0, PAGE + 1, 0, 3), (0, PAGE, 0x10, 3),
    (2**64 - PAGE, 2 * PAGE, 0, 3), (PAGE, 2**64 - PAGE, 0, 3), (0, PAGE, 2**64 - PAGE, 3), (0, PAGE, 2**63, 3),
    (0, 2**63, 0, 3), (0, PAGE, 0, 0), (0, PAGE, 0, 4), (0, PAGE, 0, 0x80000003),
    (0, 2 << 20, 0, 3), (0, 1 << 20, PAGE, 3), (0, PAGE, 1 << 20, 3),  # beyond the file's end
])
def test_impossible_maps(server, c, iova, size, offset, flags):
    memory = Memory(1 << 20)
    assert refused(c, iova, size, memory.fd, offset, flags) == errno.EINVAL
    assert server.mappings() == 0
    c.dma_map(0, PAGE, memory.fd)


def test_the_last_page_of_the_address_space(c):
    c.dma_map(2**64 - PAGE, PAGE, Memory(PAGE).fd)
    c.dma_unmap(2**64 - PAGE, PAGE)


def test_read_only_file_cannot_be_mapped_writable(c):
    memory = Memory(PAGE)
    fd = os.open(f"/proc/self/fd/{memory.fd}", os.O_RDONLY)
    assert refused(c, 0, PAGE, fd) in (errno.EACCES, errno.EPERM)
    c.dma_map(0, PAGE, fd, flags=1)


@pytest.mark.parametrize("kind", ["pipe", "socket", "eventfd", "directory", "null", "zero", "disk"])
def test_only_memory_is_mapped(server, c, kind):
    if kind == "disk":
        file = tempfile.NamedTemporaryFile(dir="/var/tmp")
        file.truncate(PAGE)
        if os.popen(f"stat -f -c %T {file.name}").read().strip() == "tmpfs":
            pytest.skip("/var/tmp is memory here")
        fd = file.fileno()
    else:
        fd = {
            "pipe": lambda: os.pipe()[0], "socket": lambda: socket.socketpair()[0].detach(),
            "eventfd": client.new_eventfd, "directory": lambda: os.open("/", os.O_RDONLY),
            "null": lambda: os.open("/dev/null", os.O_RDWR), "zero": lambda: os.open("/dev/zero", os.O_RDWR),
        }[kind]()
    assert refused(c, 0, PAGE, fd) == errno.EINVAL
    assert server.alive()


def test_two_descriptors_are_refused(c):
    memory = Memory(PAGE)
    with pytest.raises(Refused):
        c.call(client.DMA_MAP, c.map_body(0, PAGE), [memory.fd, memory.fd])


def test_unmap_is_exact(c):
    c.dma_map(0, 4 * PAGE, Memory(4 * PAGE).fd)
    for iova, size in ((0, PAGE), (PAGE, PAGE), (0, 8 * PAGE), (0, 0), (8 * PAGE, PAGE)):
        with pytest.raises(Refused):
            c.dma_unmap(iova, size)
    for flags in (1, 3, 4):
        with pytest.raises(Refused):
            c.dma_unmap(0, 4 * PAGE, flags)
    c.dma_unmap(0, 4 * PAGE)


def test_unmap_all(server, c):
    memory = Memory(64 * PAGE)
    for i in range(64):
        c.dma_map(i * 2 * PAGE, PAGE, memory.fd, i * PAGE)
    c.dma_map(1 << 40, PAGE)
    with pytest.raises(Refused):
        c.dma_unmap(PAGE, PAGE, flags=2)
    c.dma_unmap(0, 0, flags=2)
    assert server.mappings() == 0
    c.dma_map(0, 64 * PAGE, memory.fd)


def test_number_of_regions_is_bounded(server, c):
    memory = Memory(PAGE)
    accepted = 0
    with pytest.raises(Refused) as e:
        for accepted in range(5000):
            c.dma_map(accepted * PAGE, PAGE, memory.fd)
    assert e.value.errno == errno.ENOSPC
    assert accepted == 4096
    assert server.mappings() <= 4096
    c.dma_unmap(0, 0, flags=2)
    c.dma_map(0, PAGE, memory.fd)


def test_bytes_are_bounded(c):
    fd = os.memfd_create("guest")
    os.ftruncate(fd, 12 << 40)
    c.dma_map(0, 12 << 40, fd)
    assert refused(c, 12 << 40, 12 << 40, fd) == errno.ENOSPC
    c.dma_map(12 << 40, 4 << 40, fd)
    c.dma_unmap(0, 12 << 40)
    c.dma_map(0, 12 << 40, fd)


def test_disconnect_lets_go(server, c):
    before = server.descriptors()
    memory = Memory(1 << 20)
    c.dma_map(0, 1 << 20, memory.fd)
    c.assign(client.INTX, client.new_eventfd())
    c.close()
    with server.guest() as g:
        assert server.mappings() == 1  # the new client's alone
        until(lambda: server.descriptors() == before)  # they are closed on a thread of its own
        g.assign(client.INTX, client.new_eventfd())
        assert server.descriptors() == before + 1


def test_no_leak_over_many_clients(server):
    with server.guest():
        before = server.descriptors()
    for _ in range(50):
        with server.guest(memory_size=1 << 20) as g:
            g.assign(client.INTX, client.new_eventfd())
            g.assign(client.MSI, client.new_eventfd())
    with server.guest():
        server.wait_descriptors(before)
        assert server.mappings() == 1
