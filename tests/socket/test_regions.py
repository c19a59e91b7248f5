"""Regions: sizes, configuration space, and accesses of every kind."""

import struct

import pytest

import client
from client import BAR4, CONFIG, Refused


def test_region_infos(guest):
    for index in range(9):
        size = {BAR4: 32, CONFIG: 256}.get(index, 0)
        assert guest.region_info(index) == (32, 3 if size else 0, index, 0, size, 0)
        assert guest.region_info(index, argsz=4096) == (32, 3 if size else 0, index, 0, size, 0)


@pytest.mark.parametrize("index, argsz", [(9, 32), (0xFFFFFFFF, 32), (4, 31), (4, 0)])
def test_region_info_refused(guest, index, argsz):
    with pytest.raises(Refused):
        guest.region_info(index, argsz)


def test_class_is_uhci(guest):
    assert guest.get(CONFIG, 0x08, 4) >> 8 == 0x0C0300
    assert guest.get(CONFIG, 0x60, 1) == 0x10  # USB 1.0 and later: the class code's register


def test_whole_configuration_space_equals_its_parts(guest):
    whole = guest.read(CONFIG, 0, 256)
    assert b"".join(guest.read(CONFIG, i, 1) for i in range(256)) == whole
    assert b"".join(guest.read(CONFIG, i, 4) for i in range(0, 256, 4)) == whole
    assert guest.read(CONFIG, 3, 250) == whole[3:253]


def test_bar_sizing(guest):
    guest.put(CONFIG, 0x20, 4, 0xFFFFFFFF)
    assert guest.get(CONFIG, 0x20, 4) == 0xFFFFFFE1
    guest.put(CONFIG, 0x20, 4, 0xC041)
    assert guest.get(CONFIG, 0x20, 4) == 0xC041


def test_identity_is_read_only(guest):
    before = guest.read(CONFIG, 0, 4) + guest.read(CONFIG, 8, 4)
    guest.write(CONFIG, 0, b"\xff" * 16)
    assert guest.read(CONFIG, 0, 4) + guest.read(CONFIG, 8, 4) == before


def test_reset_restores(guest):
    before = guest.read(CONFIG, 0, 256)
    guest.write(CONFIG, 0, b"\xff" * 256)
    guest.put(BAR4, 0x06, 2, 5)
    guest.reset()
    assert guest.read(CONFIG, 0, 256) == before
    assert guest.get(BAR4, 0x06, 2) == 0


def test_bar_accesses_of_any_size(guest):
    # SOFMOD (0Ch, one byte) is 40h after reset: it shows in every access around it.
    assert guest.get(BAR4, 0x0C, 1) == 0x40
    assert guest.read(BAR4, 0x0C, 2)[0] == 0x40
    assert guest.read(BAR4, 0x0C, 4)[0] == 0x40
    assert guest.read(BAR4, 0x08, 8)[4] == 0x40
    assert guest.read(BAR4, 0x0B, 3)[1] == 0x40
    assert guest.read(BAR4, 0, 32)[0x0C] == 0x40
    guest.put(BAR4, 0x08, 4, 0x12345000)
    assert guest.read(BAR4, 0x08, 8)[:4] == struct.pack("<I", 0x12345000)
    assert guest.get(BAR4, 0x0A, 2) == 0x1234


def test_nothing_to_read(guest):
    assert guest.read(BAR4, 0, 0) == b""
    assert guest.read(BAR4, 32, 0) == b""
    guest.write(BAR4, 0, b"")


@pytest.mark.parametrize("region, offset, count", [
    (BAR4, 32, 1), (BAR4, 31, 2), (BAR4, 0, 33), (BAR4, 2**63, 1), (BAR4, 2**64 - 4, 8),
    (CONFIG, 256, 4), (CONFIG, 255, 2), (CONFIG, 0, 257), (CONFIG, 2**64 - 1, 2),
    (0, 0, 4), (6, 0, 4), (8, 0, 4), (9, 0, 4), (0xFFFFFFFF, 0, 4), (CONFIG, 0, 4096),
])
def test_beyond_reads_ones_and_writes_nothing(guest, region, offset, count):
    before = guest.read(CONFIG, 0, 256)
    assert guest.read(region, offset, count) == b"\xff" * count
    guest.write(region, offset, b"\0" * count)
    assert guest.read(CONFIG, 0, 256) == before


@pytest.mark.parametrize("count", [65537, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF])
def test_absurd_read_is_refused(guest, count):
    with pytest.raises(Refused):
        guest.call(client.REGION_READ, struct.pack("=QII", 0, CONFIG, count))


def test_write_count_must_match(guest):
    for count, data in ((4, b"\0\0"), (2, b"\0\0\0\0"), (0xFFFFFFFF, b"\0" * 4), (0, b"\0")):
        with pytest.raises(Refused):
            guest.call(client.REGION_WRITE, struct.pack("=QII", 0x10, CONFIG, count) + data)


def test_no_reply_is_honoured(guest):
    body = struct.pack("=QII", 0x3C, CONFIG, 1)
    guest.send(client.REGION_WRITE, body + b"\x0b", flags=client.NO_REPLY)
    assert guest.get(CONFIG, 0x3C, 1) == 0x0B
    guest.send(client.REGION_WRITE, body + b"\x0c\x0d", flags=client.NO_REPLY)  # an error, unanswered
    guest.send(77, flags=client.NO_REPLY)
    assert guest.get(CONFIG, 0x3C, 1) == 0x0B
    assert guest.is_silent()
