"""Clients that break the rules. The server says so once, lets them go, and serves the next."""

import fcntl
import os
import random
import signal
import struct
import time

import pytest

import client
import uhci
from client import CONFIG, HEADER, Gone, Refused

DROPPED = "dropped"


def dropped_once(server):
    server.wait_log(DROPPED)
    assert len(server.log_lines(DROPPED)) == 1
    assert server.serves()
    assert len(server.log_lines(DROPPED)) == 1


@pytest.mark.parametrize("size", [0, 1, 15, 65536 + 33, 1 << 20, (1 << 20) + 33, 0x7FFFFFFF, 0xFFFFFFFF])
def test_impossible_sizes(server, size):
    with server.guest() as g:
        g.send(client.REGION_READ, struct.pack("=QII", 0, CONFIG, 4), size=size)
        assert g.is_gone()
    dropped_once(server)


def test_impossible_size_read_ahead(server):
    """The bad header is already in the buffer when the message before it is answered."""
    with server.guest() as g:
        g.send_raw(HEADER.pack(1, client.RESET, 16, 0, 0) + HEADER.pack(2, client.RESET, 3, 0, 0))
        assert g.receive().id == 1
        assert g.is_gone()
    dropped_once(server)


@pytest.mark.parametrize("flags", [1, 2, 0xF, 0x21])
def test_not_a_request(server, flags):
    with server.guest() as g:
        g.send(client.RESET, flags=flags)
        assert g.is_gone()
    dropped_once(server)


@pytest.mark.parametrize("length", [1, 8, 15, 16, 17, 31, 32, 40])
def test_vanishes_in_mid_message(server, length):
    message = HEADER.pack(1, client.REGION_WRITE, 48, 0, 0) + struct.pack("=QII", 0, CONFIG, 16) + bytes(16)
    with server.guest() as g:
        g.send_raw(message[:length])
    assert server.serves()
    assert not server.log_lines(DROPPED)


def test_vanishes_without_a_word(server):
    for _ in range(100):
        server.client().close()
    assert server.serves()


@pytest.mark.parametrize("command", [0, 6, 11, 12, 14, 15, 16, 17, 18, 19, 255, 65535])
def test_unknown_commands(server, guest, command):
    for body in (b"", bytes(16), bytes(65536)):
        for _ in range(5):
            reply = None
            try:
                guest.call(command, body)
            except Refused as e:
                reply = e.reply
            assert reply and reply.size == 16 and reply.flags == 0x21 and reply.error == 22
    assert guest.get_info()[0] == 16
    assert len(server.log_lines("not supported")) <= 1


@pytest.mark.parametrize("command, size", [
    (client.DMA_MAP, 32), (client.DMA_UNMAP, 24), (client.GET_INFO, 16), (client.GET_REGION_INFO, 32),
    (client.GET_IRQ_INFO, 16), (client.REGION_READ, 16), (client.RESET, 0),
])
def test_wrong_lengths(guest, command, size):
    for wrong in {0, size - 1, size + 1, size + 4, 2 * size, 60000} - {size, -1}:
        with pytest.raises(Refused):
            guest.call(command, bytes(wrong))
    assert guest.get_info()[0] == 16


def test_descriptors_where_none_belong(server, guest):
    before = server.descriptors()
    fd = client.new_eventfd()
    for _ in range(50):
        with pytest.raises(Refused):
            guest.call(client.GET_INFO, struct.pack("=IIII", 16, 0, 0, 0), [fd] * 16)
    server.wait_descriptors(before)


def test_flood_of_descriptors(server):
    fds = [client.new_eventfd() for _ in range(250)]
    with server.guest() as g:
        before = server.descriptors()
        g.send(client.RESET, fds=fds)
        assert g.is_gone()
    dropped_once(server)
    with server.guest():
        server.wait_descriptors(before)


def test_descriptors_in_every_byte_of_a_header(server):
    fd = client.new_eventfd()
    with server.guest() as g:
        for _ in range(3):
            try:
                for byte in HEADER.pack(1, client.RESET, 16, 0, 0)[:8]:
                    g.send_raw(bytes([byte]), [fd] * 10)
                    time.sleep(0.005)
            except Gone:
                break
        assert g.is_gone()
    dropped_once(server)


def test_descriptors_with_a_body(server, guest):
    """Attached to later bytes, they belong to nothing."""
    before = server.descriptors()
    for _ in range(20):
        guest.send_raw(HEADER.pack(1, client.REGION_WRITE, 96, 0, 0) + struct.pack("=QII", 0x40, CONFIG, 64))
        time.sleep(0.002)
        guest.send_raw(bytes(32), [client.new_eventfd()] * 5)
        guest.send_raw(bytes(32), [client.new_eventfd()] * 5)
        guest.receive()
    server.wait_descriptors(before)


def test_never_reads_replies(server):
    """No request is read while a reply waits; in the end the client goes."""
    with server.guest(timeout=0.5) as g:
        body = struct.pack("=QII", 0, 99, 65536)
        with pytest.raises((TimeoutError, Gone)):
            while True:
                g.send(client.REGION_READ, body)
        rss = [line for line in open(f"/proc/{server.process.pid}/status") if line.startswith("VmRSS")][0]
        assert int(rss.split()[1]) < 200_000
        server.wait_log(DROPPED, timeout=15)
        assert g.is_gone()
    assert server.serves()


def test_reads_replies_late(server):
    """A pipeline longer than the socket holds, whose replies are read after a while: none is lost."""
    count = 3000
    with server.guest() as g:
        import threading

        def send():
            for _ in range(count):
                g.send(client.GET_INFO, struct.pack("=IIII", 16, 0, 0, 0))

        sender = threading.Thread(target=send)
        first = g.next_id
        sender.start()
        time.sleep(0.5)
        for i in range(count):
            reply = g.receive()
            assert (reply.id, reply.size, reply.error) == ((first + i) & 0xFFFF, 32, 0)
        sender.join()


def test_flood_without_replies(server, guest):
    for i in range(20000):
        guest.send(client.REGION_WRITE, struct.pack("=QII", 0x3C, CONFIG, 1) + bytes([i & 0xFF]), flags=client.NO_REPLY)
    assert guest.get(CONFIG, 0x3C, 1) == 19999 & 0xFF
    assert guest.is_silent(0.05)


def shrink_under(server, g, size=0):
    os.ftruncate(g.memory.fd, size)
    server.wait_log(DROPPED)
    assert g.is_gone()
    g.memory = None  # touching the mapping would end us, too
    assert server.alive()


def test_memory_shrunk_while_the_controller_runs(server):
    g = server.guest(sealed=False)
    uhci.Uhci(g)
    shrink_under(server, g)
    dropped_once(server)


def test_memory_shrunk_under_a_transfer(server, image):
    """The queue head stays, what it points at goes."""
    g = server.guest(sealed=False)
    disk = uhci.open_disk(g)
    assert disk.read(7, 1)[:4] == (7).to_bytes(4, "little")
    disk.write(9, b"\x5a" * 512)
    u = disk.uhci
    u.words[uhci.QUEUE_HEAD // 4 + 1] = 0x800000 | uhci.QUEUE
    shrink_under(server, g, 0x100000)
    dropped_once(server)
    with server.guest() as again:
        assert uhci.open_disk(again).read(9, 1) == b"\x5a" * 512


def test_memory_shrunk_again_and_again(server):
    for _ in range(5):
        g = server.guest(sealed=False)
        uhci.Uhci(g)
        os.ftruncate(g.memory.fd, 0)
        assert g.is_gone()
        g.memory = None
    assert server.serves()


def test_sealed_memory_cannot_shrink(server, guest):
    with pytest.raises(OSError):
        os.ftruncate(guest.memory.fd, 0)


def test_hole_punched_under_the_controller(server, guest):
    """Zeroes take the place of the frame list: the guest's own affair."""
    u = uhci.Uhci(guest)
    libc = __import__("ctypes").CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [__import__("ctypes").c_int] * 2 + [__import__("ctypes").c_long] * 2
    assert libc.fallocate(guest.memory.fd, 3, 0, 1 << 20) == 0
    time.sleep(0.1)
    assert u.get(uhci.USBCMD) & 1 in (0, 1)
    assert server.alive()


def test_memory_unmapped_while_the_controller_runs(server, guest):
    u = uhci.Uhci(guest)
    guest.dma_unmap(0, guest.memory.size)
    # Not at once: monitors take memory away and give it back while the guest runs.
    u.until(lambda: u.get(uhci.USBSTS) & uhci.STS_HOST_ERROR, "host system error")
    assert u.get(uhci.USBSTS) & uhci.STS_HALTED
    guest.dma_map(0, guest.memory.size, guest.memory.fd)
    guest.reset()
    assert server.alive()


def test_memory_out_of_reach(server):
    """Without a descriptor: an access is a bus error."""
    with server.client() as c:
        c.version()
        c.dma_map(0, 1 << 20)
        c.put(CONFIG, 4, 2, 5)
        c.put(client.BAR4, uhci.FRBASEADD, 4, 0x1000)
        c.put(client.BAR4, uhci.USBCMD, 2, 1)
        uhci.Uhci.until(lambda: c.get(client.BAR4, uhci.USBSTS, 2) & uhci.STS_HOST_ERROR, "host system error")
    assert server.alive()


def test_bus_master_off_touches_nothing(server, guest):
    u = uhci.Uhci(guest)
    guest.put(CONFIG, 0x04, 2, 1)
    u.words[uhci.QUEUE_HEAD // 4 + 1] = uhci.TDS
    u.words[uhci.TDS // 4] = uhci.TERMINATE
    u.words[uhci.TDS // 4 + 1] = uhci.TD_ACTIVE | 1 << 27
    u.words[uhci.TDS // 4 + 2] = 0xFFE00069
    time.sleep(0.1)
    assert u.words[uhci.TDS // 4 + 1] == uhci.TD_ACTIVE | 1 << 27


def test_schedules_that_loop(server, guest):
    """Every pointer at itself or in a ring: work stays bounded, registers are answered."""
    u = uhci.Uhci(guest)
    w = u.words
    qh, td = 0x3000, 0x4000
    shapes = [
        {qh: qh | uhci.QUEUE, qh + 4: uhci.TERMINATE},
        {qh: qh | uhci.QUEUE, qh + 4: qh | uhci.QUEUE},
        {qh: (qh + 16) | uhci.QUEUE, qh + 4: td, qh + 16: qh | uhci.QUEUE, qh + 20: td, td: td | uhci.DEPTH, td + 4: 0},
        {qh: uhci.TERMINATE, qh + 4: td, td: td | uhci.DEPTH, td + 4: uhci.TD_ACTIVE, td + 8: 0x69 | 127 << 8},
        {qh: 0xFFFFFFF0, qh + 4: 0xFFFFFFF0},
    ]
    for shape in shapes:
        for address, value in shape.items():
            w[address // 4] = value
        for frame in range(1024):
            w[uhci.FRAME_LIST // 4 + frame] = qh | uhci.QUEUE
        u.put(uhci.USBSTS, 0x3F)
        u.run()
        begin = time.monotonic()
        for _ in range(50):
            u.get(uhci.FRNUM)
        assert time.monotonic() - begin < 2
    assert server.alive()


def test_random_messages(server):
    """Bytes from a seeded generator, mostly well-framed. Nothing may end the server."""
    rng = random.Random(20020830)
    memory = client.Memory(1 << 20)
    for _ in range(60):
        try:
            with server.client() as c:
                c.version()
                for _ in range(60):
                    command = rng.choice([2, 3, 4, 5, 7, 8, 9, 10, 13, rng.randrange(20)])
                    length = rng.choice([0, 16, 20, 24, 32, rng.randrange(200)])
                    body = bytearray(rng.randbytes(length))
                    for i in range(0, length - 3, 4):
                        if rng.random() < 0.7:
                            struct.pack_into("=I", body, i, rng.choice([0, 1, 2, 3, 4, 7, 0x21, 0x24, 0x1000, 0xFFFFFFFF]))
                    fds = [rng.choice([memory.fd, client.new_eventfd()])] * rng.choice([0, 0, 1, 2])
                    flags = rng.choice([0, 0, 0, 0, client.NO_REPLY])
                    c.send(command, bytes(body), fds, flags)
                    if not flags:
                        c.receive()
        except Gone:
            pass
    assert server.serves()


def test_log_is_limited_over_many_clients(server):
    for _ in range(200):
        with server.guest(memory_size=4096) as g:
            g.send(client.RESET, size=3)
            assert g.is_gone()
    assert server.serves()
    assert len(server.log().splitlines()) < 150


def test_sigbus_from_elsewhere_still_kills(start, image):
    """The handler takes only what lies in guest memory."""
    server = start(name="victim")
    with server.guest(memory_size=4096):
        pass
    os.kill(server.process.pid, signal.SIGBUS)
    # A sanitizer has its own handler and exit status.
    assert server.process.wait(5) != 0


def test_nonblocking_flag_does_not_matter(server):
    """Whatever mode the client gives its end, ours does not wait."""
    with server.guest() as g:
        flags = fcntl.fcntl(g.socket.fileno(), fcntl.F_GETFL)
        fcntl.fcntl(g.socket.fileno(), fcntl.F_SETFL, flags & ~os.O_NONBLOCK)
        g.send_raw(HEADER.pack(1, client.RESET, 16, 0, 0)[:7])
        with server.client() as other:
            assert other.is_gone()
