"""bulkhead export, message by message: a device is used as a host's kernel, or QEMU, would use it."""

import hashlib
import os
import struct
import time

import pytest

import usbip_client as ip
import usbredir_client as redir
from test_export import Export

BULK, ISOCHRONOUS, INTERRUPT = 1, 2, 3
SOURCE_SINK, LOOPBACK = 3, 2
PIECE = 64 << 10


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "exported.img"
    with open(path, "wb") as f:
        f.truncate(8 << 20)
    return path


class UsbipPipes:
    """What a disk's driver needs, over USB/IP."""

    def __init__(self, client):
        self.client = client
        client.configure(1)
        self.control = lambda *args, **options: client.control(*args, **options).data
        self.bulk_in, self.bulk_out = client.bulk_in, client.bulk_out


class UsbredirPipes:
    """And over usbredir."""

    def __init__(self, client):
        self.client = client
        client.set_configuration(1)

    def control(self, *args, **options):
        status, data = self.client.control(*args, **options)
        assert status == redir.SUCCESS
        return data

    def bulk_in(self, ep, length):
        status, moved, data = self.client.bulk(ep | 0x80, length)
        assert (status, moved) == (redir.SUCCESS, len(data))
        return data

    def bulk_out(self, ep, data):
        assert self.client.bulk(ep, data=data)[:2] == (redir.SUCCESS, len(data))


class Disk:
    """Mass storage, bulk-only."""

    def __init__(self, pipes):
        self.pipes = pipes
        configuration = pipes.control(0x80, 6, 0x0200, 0, 255)
        endpoints = [configuration[at + 2] for at in walk(configuration) if configuration[at + 1] == 5]
        self.into = next(e & 15 for e in endpoints if e & 0x80)
        self.out = next(e for e in endpoints if not e & 0x80)
        self.tag = 0

    def command(self, cdb, length=0, data=b""):
        self.tag += 1
        into = length > 0
        self.pipes.bulk_out(self.out, struct.pack("<4sIIBBB16s", b"USBC", self.tag, length or len(data), 0x80 if into else 0,
                                                  0, len(cdb), cdb))
        got = self.pipes.bulk_in(self.into, length) if into else b""
        if data:
            self.pipes.bulk_out(self.out, data)
        signature, tag, _, status = struct.unpack("<4sIIB", self.pipes.bulk_in(self.into, 13))
        assert (signature, tag, status) == (b"USBS", self.tag, 0)
        return got

    def read(self, lba, blocks):
        return self.command(struct.pack(">BBIBHB", 0x28, 0, lba, 0, blocks, 0), blocks * 512)

    def write(self, lba, data):
        self.command(struct.pack(">BBIBHB", 0x2A, 0, lba, 0, len(data) // 512, 0), data=data)


def walk(descriptors):
    at = 0
    while at < len(descriptors):
        yield at
        at += descriptors[at]


def pipes_of(protocol, export):
    return UsbipPipes(ip.Client(export.address)) if protocol == "usbip" else UsbredirPipes(redir.Client(export.address))


@pytest.mark.parametrize("protocol", ["usbip", "usbredir"])
def test_a_disk_is_read_and_written(protocol, image):
    content = os.urandom(2 << 20)
    with Export(protocol, f"disk,file={image}") as export:
        pipes = pipes_of(protocol, export)
        disk = Disk(pipes)
        assert disk.command(bytes([0x12, 0, 0, 0, 36, 0]), 36)[8:16] == b"BULKHEAD"
        last, size = struct.unpack(">II", disk.command(bytes([0x25]) + bytes(9), 8))
        assert ((last + 1) * size, size) == (8 << 20, 512)
        for at in range(0, len(content), PIECE):
            disk.write(at // 512, content[at : at + PIECE])
        disk.command(bytes([0x35]) + bytes(9))
        got = b"".join(disk.read(at // 512, PIECE // 512) for at in range(0, len(content), PIECE))
        assert hashlib.sha256(got).digest() == hashlib.sha256(content).digest()
        pipes.client.close()
        status, said = export.stop()
    assert status == 0, said
    assert image.read_bytes()[: len(content)] == content


# --- USB/IP ---------------------------------------------------------------------------------------------


def test_usbip_lists_what_is_there_and_free(image):
    with Export("usbip", f"disk,file={image}", "zero", "hid,kind=keyboard") as export:
        listed = ip.devlist(export.address)
        assert [device.busid for device, _ in listed] == ["1-1", "1-2", "1-3"]
        assert [classes for _, classes in listed] == [[(8, 6, 0x50)], [(0xFF, 0, 0)], [(3, 1, 1)]]
        assert (listed[1][0].vendor, listed[1][0].product, listed[1][0].speed) == (0x0525, 0xA4A0, 2)
        with ip.Client(export.address, "1-2") as client:
            assert client.device == listed[1][0]
            assert [device.busid for device, _ in ip.devlist(export.address)] == ["1-1", "1-3"]
            assert ip.Client(export.address, "1-2").status == 2  # in use
        assert ip.Client(export.address, "1-9").status == 4  # there is none
        assert ip.Client(export.address, "").status == 4


@pytest.fixture
def zero():
    with Export("usbip", "zero,pattern=1,iso-interval=1") as export, ip.Client(export.address) as client:
        client.configure(SOURCE_SINK)
        yield client


def pattern(length):
    return bytes(i % 64 % 63 for i in range(length))


def test_usbip_short_transfers(zero):
    zero.configure(LOOPBACK)
    zero.bulk_out(BULK, b"short")
    assert zero.bulk_in(BULK, 64) == b"short"
    zero.bulk_out(BULK, b"short")
    result = zero.do(BULK, ip.IN, length=64, flags=ip.SHORT_NOT_OK)
    assert (result.status, result.data) == (-ip.EREMOTEIO, b"short")
    zero.bulk_out(BULK, b"as long as it is")
    result = zero.do(BULK, ip.IN, length=4)
    assert (result.status, result.data) == (-ip.EOVERFLOW, b"as l")
    zero.bulk_out(BULK, bytes(64), flags=ip.ZERO_PACKET)
    assert zero.bulk_in(BULK, 128) == bytes(64)  # ended by the empty packet
    zero.bulk_out(BULK, b"")
    assert zero.bulk_in(BULK, 0) == b""


def test_usbip_stalls_and_clears(zero):
    assert zero.do(BULK, ip.OUT, data=b"\xff" * 64).status == 0  # no pattern: what follows is refused
    assert zero.do(BULK, ip.OUT, data=pattern(64)).status == -ip.EPIPE
    assert zero.control(0x02, 1, 0, BULK).status == 0
    zero.bulk_out(BULK, pattern(64))
    assert zero.do(9, ip.OUT, data=b"nobody").status == -ip.EPIPE
    assert zero.do(9, ip.IN, length=9).status == -ip.EPIPE
    assert zero.control(0x00, 9, 77).status == -ip.EPIPE
    assert zero.control(0x00, 5, 12).status == 0  # SET_ADDRESS is the client's own business
    assert zero.bulk_in(BULK, 64) == pattern(64)
    assert zero.control(0x80, 6, 0x0100, length=18).data[8:12] == struct.pack("<HH", 0x0525, 0xA4A0)


def test_usbip_unlinks(zero):
    zero.configure(LOOPBACK)
    waits, second = (zero.submit(BULK, ip.IN, length=128) for _ in range(2))
    for target in (second, waits):
        unlink = zero.unlink(target)
        answer = zero.result()
        assert (answer.command, answer.seqnum, answer.status) == (ip.RET_UNLINK, unlink, -ip.ECONNRESET)
    unlink = zero.unlink(4711)
    assert zero.result()[:3] == (ip.RET_UNLINK, unlink, 0)
    zero.bulk_out(BULK, b"still here")
    assert zero.bulk_in(BULK, 64) == b"still here"


def test_usbip_tells_what_had_moved_before_it_unlinks(zero):
    """RET_UNLINK has no room for it; bytes that a driver was given by the device would be lost."""
    zero.configure(LOOPBACK)
    seqnum = zero.submit(BULK, ip.IN, length=256)
    out = zero.submit(BULK, ip.OUT, data=bytes(range(64)))
    assert zero.result().seqnum == out
    unlink = zero.unlink(seqnum)
    result = zero.result()
    assert (result.command, result.seqnum, result.status, result.data) == \
        (ip.RET_SUBMIT, seqnum, -ip.ECONNRESET, bytes(range(64)))
    assert zero.result()[:3] == (ip.RET_UNLINK, unlink, 0)


def test_usbip_another_setting_ends_what_runs(zero):
    zero.configure(LOOPBACK)
    seqnum = zero.submit(BULK, ip.IN, length=128)
    setup = struct.pack("<BBHHH", 0, 9, SOURCE_SINK, 0, 0)
    configure = zero.submit(0, ip.OUT, setup=setup)
    results = {r.seqnum: r.status for r in (zero.result(), zero.result())}
    assert results == {seqnum: -ip.ECONNRESET, configure: 0}
    assert zero.bulk_in(BULK, 128) == pattern(128)


def test_usbip_isochronous(zero):
    zero.set_interface(0, 1)
    sizes = [192, 0, 1023, 64]
    out = b"".join(bytes(i % 1023 % 63 for i in range(size)) for size in sizes)
    result = zero.do(ISOCHRONOUS, ip.OUT, data=out, packets=sizes)
    assert (result.status, result.errors, [p.actual for p in result.packets]) == (0, 0, sizes)
    result = zero.do(ISOCHRONOUS, ip.IN, length=4 * 1023, packets=[1023] * 4)
    assert (result.status, result.actual, len(result.packets)) == (0, 4 * 1023, 4)
    assert [p.offset for p in result.packets] == [0, 1023, 2046, 3069]
    result = zero.do(ISOCHRONOUS, ip.IN, length=1123, packets=[100, 1023])  # no room for the first
    assert [(p.actual, p.status) for p in result.packets] == [(100, -ip.EOVERFLOW), (1023, 0)]
    assert (result.errors, len(result.data)) == (1, 1123)


def test_usbip_isochronous_takes_its_time(zero):
    """A stream whose device never rests is as long as its frames; it may begin 40 ms early."""
    zero.set_interface(0, 1)
    begin = time.monotonic()
    for _ in range(20):
        zero.submit(ISOCHRONOUS, ip.IN, length=20 * 1023, packets=[1023] * 20)
    for _ in range(20):
        assert zero.result().status == 0
    assert 0.3 < time.monotonic() - begin


@pytest.mark.parametrize("packets", [1, 4])
def test_usbip_interrupt_packets_have_an_interval_each(packets):
    with Export("usbip", "zero,interrupt-interval=10") as export, ip.Client(export.address) as client:
        client.configure(SOURCE_SINK)
        client.set_interface(0, 2)
        begin, transfers = time.monotonic(), 40 // packets
        for _ in range(transfers):
            client.submit(INTERRUPT, ip.IN, length=64 * packets)
        for _ in range(transfers):
            assert client.result().actual == 64 * packets
        assert time.monotonic() - begin >= 0.3


def test_usbip_a_client_that_dies_leaves_nothing(image):
    """In the middle of a write: the next one finds the disk as it was, ready for a command."""
    with Export("usbip", f"disk,file={image}") as export:
        for _ in range(3):
            client = ip.Client(export.address)
            disk = Disk(UsbipPipes(client))
            client.bulk_out(disk.out, struct.pack("<4sIIBBB16s", b"USBC", 1, 1 << 20, 0, 0, 10,
                                                  struct.pack(">BBIBHB", 0x2A, 0, 0, 0, 2048, 0)))
            client.bulk_out(disk.out, bytes(4096))
            client.close()
            free = ip.Client(export.address)
            while free.status == 2:
                free = ip.Client(export.address)
            assert Disk(UsbipPipes(free)).read(0, 8) == bytes(4096)
            free.close()
            while ip.devlist(export.address) == []:
                pass


# --- usbredir ---------------------------------------------------------------------------------------------


@pytest.fixture
def zero_export():
    with Export("usbredir", "zero,pattern=1,iso-interval=1,interrupt-interval=2") as export:
        yield export


@pytest.fixture
def rzero(zero_export):
    with redir.Client(zero_export.address) as client:
        yield client


def test_usbredir_tells_what_it_is(rzero):
    assert rzero.vendor == (0x0525, 0xA4A0)
    assert rzero.told[redir.DEVICE_CONNECT].body[0] == 1  # full speed
    info = rzero.told[redir.INTERFACE_INFO].body
    assert (info[:4], info[36]) == (b"\1\0\0\0", 0xFF)
    types = rzero.told[redir.EP_INFO].body[:32]
    assert (types[1], types[17], types[2], types[18]) == (2, 2, 255, 255)
    rzero.set_interface(0, 2)
    types = rzero.told[redir.EP_INFO].body
    assert (types[3], types[19], types[32 + 19]) == (3, 3, 2)
    assert struct.unpack_from("<32H", types, 96)[19] == 64
    m = rzero.expect(redir.ALT_SETTING_STATUS, rzero.send(redir.GET_ALT_SETTING, b"\0"))
    assert tuple(m.body) == (redir.SUCCESS, 0, 2)
    m = rzero.expect(redir.CONFIGURATION_STATUS, rzero.send(redir.GET_CONFIGURATION))
    assert tuple(m.body) == (redir.SUCCESS, SOURCE_SINK)


def test_usbredir_transfers(rzero):
    assert rzero.bulk(0x80 | BULK, 200_000) == (redir.SUCCESS, 200_000, pattern(200_000))
    assert rzero.bulk(BULK, data=pattern(100_000))[:2] == (redir.SUCCESS, 100_000)
    assert rzero.bulk(BULK, data=b"\xff" * 64)[0] == redir.SUCCESS
    assert rzero.bulk(BULK, data=pattern(64))[0] == redir.STALL
    assert rzero.control(0x02, 1, 0, BULK)[0] == redir.SUCCESS
    assert rzero.bulk(BULK, data=pattern(64))[0] == redir.SUCCESS
    rzero.set_configuration(LOOPBACK)
    rzero.bulk(BULK, data=b"there and back")
    assert rzero.bulk(0x80 | BULK, 64)[2] == b"there and back"
    rzero.bulk(BULK, data=b"more than asked for")
    assert rzero.bulk(0x80 | BULK, 4)[::2] == (redir.BABBLE, b"more")
    assert rzero.bulk(0x80 | ISOCHRONOUS, 64)[0] == redir.STALL
    assert rzero.control(0x00, 9, 77)[0] == redir.STALL


def test_usbredir_cancels(rzero):
    rzero.set_configuration(LOOPBACK)
    number = rzero.start_bulk(0x80 | BULK, 256)
    assert rzero.bulk(BULK, data=bytes(64))[0] == redir.SUCCESS
    rzero.send(redir.CANCEL_DATA_PACKET, number=number)
    assert rzero.bulk_result(number) == (redir.CANCELLED, 64, bytes(64))
    rzero.send(redir.CANCEL_DATA_PACKET, number=number)  # it is over: nothing happens
    assert rzero.bulk(BULK, data=b"next")[0] == redir.SUCCESS


def test_usbredir_interrupts_flow_in_their_time(rzero):
    rzero.set_interface(0, 2)
    assert rzero.start_interrupts(0x80 | INTERRUPT) == redir.SUCCESS
    begin = time.monotonic()
    for _ in range(100):
        m = rzero.expect(redir.INTERRUPT_PACKET)
        assert tuple(m.body[:4]) == (0x83, redir.SUCCESS, 64, 0)
    assert time.monotonic() - begin > 0.15
    assert rzero.stop_interrupts(0x80 | INTERRUPT) == redir.SUCCESS
    rzero.told.pop(redir.INTERRUPT_PACKET, None)
    time.sleep(0.05)  # nothing is to come
    rzero.expect(redir.CONFIGURATION_STATUS, rzero.send(redir.GET_CONFIGURATION))
    assert redir.INTERRUPT_PACKET not in rzero.told
    assert rzero.start_interrupts(0x80 | BULK) == redir.INVAL
    assert rzero.start_interrupts(0x80 | 9) == redir.INVAL


@pytest.mark.parametrize("what", ["clear-halt", "interface", "configuration", "reset", "halt"])
def test_usbredir_a_flow_survives_what_happens_to_its_endpoint_or_ends(rzero, what):
    """Each ends requests that the flow has under way, or that wait for their time; nothing is to spin."""
    for _ in range(20):
        rzero.set_interface(0, 2)
        assert rzero.start_interrupts(0x80 | INTERRUPT) == redir.SUCCESS
        rzero.expect(redir.INTERRUPT_PACKET)
        if what == "clear-halt":
            assert rzero.control(0x02, 1, 0, 0x80 | INTERRUPT)[0] == redir.SUCCESS
            rzero.expect(redir.INTERRUPT_PACKET)
        elif what == "interface":
            rzero.set_interface(0, 1)
        elif what == "configuration":
            rzero.set_configuration(LOOPBACK)
            rzero.set_configuration(SOURCE_SINK)
        elif what == "reset":
            rzero.send(redir.RESET)
        else:
            assert rzero.control(0x02, 3, 0, 0x80 | INTERRUPT)[0] == redir.SUCCESS
            m = rzero.expect(redir.INTERRUPT_RECEIVING_STATUS)
            assert m.body[0] == redir.STALL
            assert rzero.control(0x02, 1, 0, 0x80 | INTERRUPT)[0] == redir.SUCCESS
        assert rzero.control(0x80, 8, length=1)[1] == bytes([SOURCE_SINK])
        if what == "clear-halt":
            rzero.stop_interrupts(0x80 | INTERRUPT)


def test_usbredir_streams_flow_in_their_time(rzero):
    rzero.set_interface(0, 1)
    m = rzero.expect(redir.ISO_STREAM_STATUS, rzero.send(redir.START_ISO_STREAM, bytes([0x80 | ISOCHRONOUS, 8, 4])))
    assert m.body[0] == redir.SUCCESS
    begin = time.monotonic()
    for _ in range(300):
        m = rzero.expect(redir.ISO_PACKET)
        assert struct.unpack_from("<BBH", m.body) == (0x82, redir.SUCCESS, 1023)
    assert time.monotonic() - begin > 0.2
    m = rzero.expect(redir.ISO_STREAM_STATUS, rzero.send(redir.STOP_ISO_STREAM, bytes([0x80 | ISOCHRONOUS])))
    assert m.body[0] == redir.SUCCESS
    rzero.expect(redir.ISO_STREAM_STATUS, rzero.send(redir.START_ISO_STREAM, bytes([ISOCHRONOUS, 8, 4])))
    for _ in range(10):
        rzero.send(redir.ISO_PACKET, struct.pack("<BBH", ISOCHRONOUS, 0, 64) + pattern(64))
    assert rzero.control(0x80, 8, length=1) == (redir.SUCCESS, bytes([SOURCE_SINK]))


def test_usbredir_the_next_client_waits_for_its_turn(zero_export):
    first = redir.Client(zero_export.address)
    first.set_configuration(LOOPBACK)
    second = redir.Client(zero_export.address, waits=False)
    assert first.bulk(BULK, data=b"first")[0] == redir.SUCCESS
    first.close()
    with second:
        assert second._message(redir.HEADER12).type == redir.HELLO
        second.expect(redir.DEVICE_CONNECT)
        m = second.expect(redir.CONFIGURATION_STATUS, second.send(redir.GET_CONFIGURATION))
        assert tuple(m.body) == (redir.SUCCESS, SOURCE_SINK)  # as if it had just been plugged in


def test_usbredir_a_client_that_does_not_want_it_is_let_go(zero_export):
    with redir.Client(zero_export.address) as client:
        client.send(redir.FILTER_REJECT)
        with pytest.raises(redir.Gone):
            client.message()
    redir.Client(zero_export.address).close()


def test_usbredir_a_device_that_goes_is_unplugged_and_comes_back():
    """Behind it another export, by USB/IP, which is killed while interrupts flow."""
    with Export("usbip", "zero") as source:
        with Export("usbredir", f"usbip,host={source.address},busid=1-1") as export, redir.Client(export.address) as client:
            client.set_interface(0, 2)
            assert client.start_interrupts(0x80 | INTERRUPT) == redir.SUCCESS
            client.expect(redir.INTERRUPT_PACKET)
            source.process.kill()
            client.expect(redir.DEVICE_DISCONNECT)
            client.send(redir.DEVICE_DISCONNECT_ACK)
            with Export("usbip", "zero", address=source.address):
                client.expect(redir.DEVICE_CONNECT)
                assert client.control(0x80, 6, 0x0100, length=18)[1][8:10] == b"\x25\x05"
