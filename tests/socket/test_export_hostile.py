"""Clients of an export that break every rule. None may end the server, make it grow, or keep it from the next client."""

import contextlib
import os
import random
import resource
import socket
import struct
import time

import pytest

import conftest
import usbip_client as ip
import usbredir_client as redir
from test_export import Export

BULK, ISOCHRONOUS, INTERRUPT = 1, 2, 3
SOURCE_SINK, LOOPBACK = 3, 2
# What one client may have (16 MiB), and its results once more, on their way to it; and what an allocator keeps.
BOUND = (200 if conftest.sanitized() else 60) << 20


def resident(export):
    with open(f"/proc/{export.process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def serves(export):
    """For a new client, who may have to wait until the last one is noticed to be gone."""
    if export.protocol == "usbredir":
        with redir.Client(export.address) as client:
            return client.control(0x80, 6, 0x0100, length=18)[1][8:10] == b"\x25\x05"
    deadline = time.monotonic() + 10
    while True:
        with ip.Client(export.address) as client:
            if client.status != 2:
                return client.control(0x80, 6, 0x0100, length=18).data[8:10] == b"\x25\x05"
        assert time.monotonic() < deadline, "it is in use for ever"
        time.sleep(0.01)


def is_dropped(s, timeout=10):
    """Until the connection ends; what still comes is thrown away."""
    s.settimeout(timeout)
    with contextlib.suppress(ConnectionError):
        while s.recv(1 << 16):
            pass
    return True


@pytest.fixture(params=["usbip", "usbredir"])
def export(request):
    with begin(request.param) as running:
        yield running


@contextlib.contextmanager
def begin(protocol, device="zero,iso-interval=1"):
    with Export(protocol, device) as running:
        yield running
        status, said = running.stop()
        assert status == 0, said
        assert len(said.splitlines()) < 60, said  # what others bring about is not said for ever


@pytest.fixture
def usbip():
    with begin("usbip") as running:
        yield running


@pytest.fixture
def usbredir():
    with begin("usbredir") as running:
        yield running


def test_garbage(export):
    numbers = random.Random(1)
    for _ in range(40):
        with ip.connect(export.address) as s:
            with contextlib.suppress(OSError):  # it may have been dropped already
                s.sendall(numbers.randbytes(numbers.choice([1, 7, 40, 80, 1000, 100_000])))
                s.shutdown(socket.SHUT_WR)
            assert is_dropped(s)
    assert serves(export)


def test_garbage_after_a_good_beginning(export):
    numbers = random.Random(2)
    for _ in range(40):
        with contextlib.ExitStack() as stack:
            if export.protocol == "usbredir":
                s = stack.enter_context(redir.Client(export.address)).socket
            else:
                client = stack.enter_context(ip.Client(export.address))
                if client.status:
                    continue
                s = client.socket
            with contextlib.suppress(OSError):
                s.sendall(numbers.randbytes(numbers.choice([12, 16, 48, 200, 100_000])))
                s.shutdown(socket.SHUT_WR)
            assert is_dropped(s)
    assert serves(export)


def conversation(protocol):
    """A good one, that a client sends without looking up."""
    if protocol == "usbip":
        setup = struct.pack("<BBHHH", 0, 9, SOURCE_SINK, 0, 0)
        devid = 1 << 16 | 2
        yield ip.OP.pack(ip.VERSION, ip.REQ_IMPORT, 0) + b"1-1".ljust(32, b"\0")
        yield ip.SUBMIT.pack(ip.CMD_SUBMIT, 1, devid, ip.OUT, 0, 0, 0, 0, 0, 0, setup)
        yield ip.SUBMIT.pack(ip.CMD_SUBMIT, 2, devid, ip.OUT, BULK, 0, 64, 0, 0, 0, bytes(8)) + bytes(64)
        yield ip.UNLINK.pack(ip.CMD_UNLINK, 3, devid, 0, 0, 2)
    else:
        yield redir.hello()
        yield redir.HEADER16.pack(redir.SET_CONFIGURATION, 1, 1) + bytes([SOURCE_SINK])
        yield redir.HEADER16.pack(redir.BULK_PACKET, 10 + 64, 2) + redir.BULK.pack(BULK, 0, 64, 0, 0) + bytes(64)
        yield redir.HEADER16.pack(redir.CANCEL_DATA_PACKET, 0, 2)


def test_cut_at_every_byte(export):
    whole = b"".join(conversation(export.protocol))
    for length in range(len(whole)):
        with ip.connect(export.address) as s:
            s.sendall(whole[:length])
    assert serves(export)


def submit(command=ip.CMD_SUBMIT, seqnum=7, devid=1 << 16 | 2, direction=ip.IN, ep=BULK, flags=0, length=64, packets=0,
           setup=bytes(8)):
    return struct.pack(">IIIIIIIIII8s", command, seqnum, devid, direction, ep, flags, length, 0, packets, 0, setup)


def iso(offset, length):
    return ip.PACKET.pack(offset, length, 0, 0)


GET_DESCRIPTOR = struct.pack("<BBHHH", 0x80, 6, 0x0100, 0, 18)
SET_LINE = struct.pack("<BBHHH", 0x21, 0x20, 0, 0, 7)


@pytest.mark.parametrize("message", [
    submit(command=0), submit(command=5), submit(command=0xffffffff), submit(command=ip.RET_SUBMIT),
    submit(ep=16), submit(ep=0x81), submit(ep=0xffffffff),
    submit(length=(1 << 20) + 1), submit(length=0x7fffffff), submit(length=0xffffffff),
    submit(direction=ip.OUT, length=0xffffffff), submit(direction=ip.OUT, length=(1 << 20) + 1),
    submit(ep=0, setup=GET_DESCRIPTOR, length=17), submit(ep=0, setup=GET_DESCRIPTOR, direction=ip.OUT, length=18),
    submit(ep=0, setup=SET_LINE, direction=ip.IN, length=7), submit(ep=0, setup=SET_LINE, direction=ip.OUT, length=6),
    submit(ep=0, setup=SET_LINE, direction=ip.OUT, length=0xffffffff),
    submit(ep=ISOCHRONOUS, packets=0xffffffff), submit(ep=ISOCHRONOUS, packets=0), submit(ep=ISOCHRONOUS, packets=100_000),
    submit(ep=ISOCHRONOUS, length=100, packets=1) + iso(101, 0), submit(ep=ISOCHRONOUS, length=100, packets=1) + iso(1, 100),
    submit(ep=ISOCHRONOUS, length=100, packets=1) + iso(0xffffffff, 2),
    submit(ep=ISOCHRONOUS, length=100, packets=1) + iso(2, 0xffffffff),
], ids=lambda message: message[:48].hex()[:8] + f"-{hash(message) & 0xffff:04x}")
def test_usbip_what_makes_no_sense_ends_the_connection(usbip, message):
    with ip.Client(usbip.address) as client:
        client.configure(SOURCE_SINK)
        client.set_interface(0, 1)
        client.socket.sendall(message)
        assert is_dropped(client.socket)
    assert serves(usbip)


def test_usbip_two_requests_of_one_number(usbip):
    with ip.Client(usbip.address) as client:
        client.configure(LOOPBACK)
        client.socket.sendall(submit() + submit())
        assert is_dropped(client.socket)
    assert serves(usbip)


def test_usbip_isochronous_packets_may_overlap(usbip):
    """They lie within their transfer: that is nobody's harm but the client's."""
    with ip.Client(usbip.address) as client:
        client.configure(SOURCE_SINK)
        client.set_interface(0, 1)
        client.sent[7] = (ip.IN, True)
        client.socket.sendall(submit(ep=ISOCHRONOUS, length=1023, packets=3) + iso(0, 1023) * 3)
        result = client.result()
        assert (result.actual, len(result.data), len(result.packets)) == (3 * 1023, 3 * 1023, 3)
    assert serves(usbip)


def test_usbip_too_much_under_way(usbip):
    """Reads that nothing answers: more of them, or of their bytes, than one client may have."""
    for count, length in ((2000, 64), (100, 1 << 20)):
        with ip.Client(usbip.address) as client:
            client.configure(LOOPBACK)
            before = resident(usbip)
            with contextlib.suppress(ConnectionError):
                for _ in range(count):
                    client.submit(BULK, ip.IN, length=length)
            assert is_dropped(client.socket)
            assert resident(usbip) - before < BOUND
        assert serves(usbip)


def fill(s, message, seconds=3):
    """Sends it again and again, until nothing more is taken."""
    s.setblocking(False)
    deadline, sent, blocked = time.monotonic() + seconds, 0, 0
    view = memoryview(message * max(1, (1 << 16) // len(message)))
    while time.monotonic() < deadline and blocked < 20:
        try:
            sent += s.send(view)
            blocked = 0
        except BlockingIOError:
            blocked += 1
            time.sleep(0.01)
        except ConnectionError:
            break
    s.settimeout(10)
    return sent


@pytest.mark.parametrize("what", ["reads", "unlinks", "requests"])
def test_usbip_a_client_that_reads_nothing(usbip, what):
    with ip.Client(usbip.address) as client:
        client.configure(SOURCE_SINK)
        before = resident(usbip)
        if what == "reads":
            with contextlib.suppress(ConnectionError):
                for _ in range(100):
                    client.submit(BULK, ip.IN, length=1 << 20)
        elif what == "unlinks":
            fill(client.socket, ip.UNLINK.pack(ip.CMD_UNLINK, 5, client.devid, 0, 0, 4711))
        else:
            fill(client.socket, submit(ep=0, setup=GET_DESCRIPTOR, length=18))
        begun = time.monotonic()
        ip.devlist(usbip.address)  # others are answered meanwhile
        assert time.monotonic() - begun < 5
        assert resident(usbip) - before < BOUND
    assert serves(usbip)


def test_usbip_an_unlink_storm(usbip):
    """Each read is taken back at once, thousands of times."""
    with ip.Client(usbip.address) as client:
        client.configure(LOOPBACK)
        before = resident(usbip)
        for _ in range(40):
            for _ in range(50):
                client.unlink(client.submit(BULK, ip.IN, length=4096))
            answers = [client.result() for _ in range(50)]
            assert {(a.command, a.status) for a in answers} == {(ip.RET_UNLINK, -ip.ECONNRESET)}
        assert resident(usbip) - before < BOUND
        assert client.control(0x80, 8, length=1).data == bytes([LOOPBACK])
    assert serves(usbip)


def test_usbip_a_silent_crowd_keeps_nobody_out(usbip):
    crowd = [ip.connect(usbip.address) for _ in range(100)]
    assert len(ip.devlist(usbip.address)) == 1
    assert serves(usbip)
    for s in crowd:
        s.close()


def test_usbip_who_has_not_said_what_he_wants_is_let_go(usbip):
    with ip.connect(usbip.address) as s:
        s.sendall(b"\1")
        assert is_dropped(s, 20)
    assert serves(usbip)


@pytest.mark.parametrize("kind, length", [
    (redir.HELLO, 68), (redir.DEVICE_CONNECT, 10), (redir.INTERFACE_INFO, 132), (redir.BULK_STREAMS_STATUS, 9), (99, 0),
    (0xffffffff, 0), (redir.RESET, 1), (redir.RESET, 0xffffffff), (redir.SET_CONFIGURATION, 0), (redir.SET_CONFIGURATION, 2),
    (redir.CONTROL_PACKET, 9), (redir.CONTROL_PACKET, 0x7ffffff), (redir.BULK_PACKET, (1 << 20) + 11),
    (redir.BULK_PACKET, 0xffffffff), (redir.INTERRUPT_PACKET, 1 << 27), (redir.ISO_PACKET, 3), (redir.FILTER_FILTER, 1 << 20),
    (redir.BUFFERED_BULK_PACKET, 10), (redir.START_BULK_RECEIVING, 10), (redir.ALLOC_BULK_STREAMS, 8),
])
def test_usbredir_what_makes_no_sense_ends_the_connection(usbredir, kind, length):
    with redir.Client(usbredir.address) as client:
        before = resident(usbredir)
        with contextlib.suppress(ConnectionError):
            client.socket.sendall(redir.HEADER16.pack(kind, length, 7) + bytes(min(length, 1 << 17)))
        assert is_dropped(client.socket)
        assert resident(usbredir) - before < BOUND
    assert serves(usbredir)


@pytest.mark.parametrize("body", [
    redir.CONTROL.pack(0x80, 6, 0x80, 0, 0x0100, 0, 18) + bytes(18),  # data, and asks for some
    redir.CONTROL.pack(0, 9, 0x00, 0, 0, 0, 5),  # less than it says
    redir.CONTROL.pack(0, 9, 0x00, 0, 0, 0, 1) + bytes(5),  # more
])
def test_usbredir_control_requests_that_contradict_themselves(usbredir, body):
    with redir.Client(usbredir.address) as client:
        client.send(redir.CONTROL_PACKET, body)
        assert is_dropped(client.socket)
    assert serves(usbredir)


FLOWS = [(redir.START_ISO_STREAM, redir.ISO_STREAM_STATUS, bytes([255, 255])),
         (redir.START_INTERRUPT_RECEIVING, redir.INTERRUPT_RECEIVING_STATUS, b""),
         (redir.STOP_ISO_STREAM, redir.ISO_STREAM_STATUS, b""),
         (redir.STOP_INTERRUPT_RECEIVING, redir.INTERRUPT_RECEIVING_STATUS, b""),
         (redir.GET_ALT_SETTING, redir.ALT_SETTING_STATUS, b"")]


def test_usbredir_flows_of_what_there_is_not(usbredir):
    """Some are answered, some are no message at all: then there is another connection."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(redir.Client(usbredir.address))
        for endpoint in [*range(20), *range(0x70, 0x94), *range(0xf0, 0x100)]:
            for kind, status, rest in FLOWS:
                try:
                    client.expect(status, client.send(kind, bytes([endpoint]) + rest))
                except (redir.Gone, ConnectionError):
                    client.close()
                    client = stack.enter_context(redir.Client(usbredir.address))
            into = endpoint & 0x80
            assert client.bulk(endpoint, length=1, data=b"" if into else b"x")[0] in (redir.STALL, redir.SUCCESS, redir.BABBLE)
        assert client.control(0x80, 8, length=1)[1] == bytes([SOURCE_SINK])


def test_usbredir_too_much_under_way(usbredir):
    for count, length in ((2000, 64), (100, 1 << 20)):
        with redir.Client(usbredir.address) as client:
            client.set_configuration(LOOPBACK)
            before = resident(usbredir)
            with contextlib.suppress(ConnectionError):
                for _ in range(count):
                    client.start_bulk(0x80 | BULK, length)
            assert is_dropped(client.socket)
            assert resident(usbredir) - before < BOUND
        assert serves(usbredir)


@pytest.mark.parametrize("what", ["reads", "questions", "streams", "interrupts"])
def test_usbredir_a_client_that_reads_nothing(usbredir, what):
    with redir.Client(usbredir.address) as client:
        before = resident(usbredir)
        if what == "reads":
            with contextlib.suppress(ConnectionError):
                for _ in range(100):
                    client.start_bulk(0x80 | BULK, 1 << 20)
        elif what == "questions":
            fill(client.socket, redir.HEADER16.pack(redir.GET_CONFIGURATION, 0, 5))
        elif what == "streams":
            client.set_interface(0, 1)
            for _ in range(200):
                client.send(redir.START_ISO_STREAM, bytes([0x80 | ISOCHRONOUS, 100, 255]))
            time.sleep(2)  # a megabyte a second
        else:
            client.set_interface(0, 2)
            for _ in range(2000):
                client.send(redir.START_INTERRUPT_RECEIVING, bytes([0x80 | INTERRUPT]))
            time.sleep(1)
        assert resident(usbredir) - before < BOUND
    assert serves(usbredir)


def test_usbredir_a_flood_of_questions_is_answered(usbredir):
    """In a time that grows with their number, and not with its square."""
    count = 60_000
    with redir.Client(usbredir.address) as client:
        begin_time = time.monotonic()
        client.socket.setblocking(False)
        questions = memoryview(redir.HEADER16.pack(redir.GET_CONFIGURATION, 0, 5) * count)
        answers = 0
        while questions or answers < count * 18:
            with contextlib.suppress(BlockingIOError):
                if questions:
                    questions = questions[client.socket.send(questions[: 1 << 16]):]
            with contextlib.suppress(BlockingIOError):
                answers += len(client.socket.recv(1 << 16))
        assert answers == count * 18
        assert time.monotonic() - begin_time < (60 if conftest.sanitized() else 20)


def test_usbredir_who_says_no_hello_is_let_go(usbredir):
    with ip.connect(usbredir.address) as s:
        assert is_dropped(s, 20)
    assert serves(usbredir)


def test_sigterm_ends_it_whatever_clients_do(export):
    with contextlib.ExitStack() as stack:
        if export.protocol == "usbip":
            client = stack.enter_context(ip.Client(export.address))
            client.configure(LOOPBACK)
            for _ in range(100):
                client.submit(BULK, ip.IN, length=64)
        else:
            client = stack.enter_context(redir.Client(export.address))
            client.set_interface(0, 2)
            client.start_interrupts(0x80 | INTERRUPT)
        begin_time = time.monotonic()
        export.process.terminate()
        assert export.process.wait(10) == 0
        assert time.monotonic() - begin_time < 5


def test_out_of_descriptors(export):
    """It waits, rather than asking for ever; and serves again."""

    before = resource.prlimit(export.process.pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{export.process.pid}/fd"))
    resource.prlimit(export.process.pid, resource.RLIMIT_NOFILE, (used, before[1]))
    with ip.connect(export.address) as s:
        time.sleep(0.3)
        with open(f"/proc/{export.process.pid}/schedstat") as file:
            begun = int(file.read().split()[0])
        time.sleep(0.5)
        with open(f"/proc/{export.process.pid}/schedstat") as file:
            assert int(file.read().split()[0]) - begun < 100_000_000
        s.close()
    resource.prlimit(export.process.pid, resource.RLIMIT_NOFILE, before)
    assert serves(export)
