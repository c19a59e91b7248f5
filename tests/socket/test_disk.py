"""Data through the whole house: guest memory, UHCI, batches, a disk, its image, and back."""

import os
import random
import struct
import subprocess
import time

import pytest

import client
import conftest
import uhci

BLOCK = 512


def sector(n):
    return n.to_bytes(4, "little") * 128


def sectors(first, count):
    return b"".join(sector(first + i) for i in range(count))


@pytest.fixture
def disk(guest):
    return uhci.open_disk(guest)


def test_descriptors(disk):
    d = disk.device.descriptor
    assert len(d) == 18 and d[0:2] == b"\x12\x01"
    assert d[7] in (8, 16, 32, 64)
    configuration = disk.device.configuration
    assert configuration[14:17] == b"\x08\x06\x50"  # mass storage, SCSI, bulk-only
    assert len(disk.device.endpoints) == 2
    assert set(disk.device.endpoints.values()) <= {8, 16, 32, 64}


def test_inquiry(disk):
    data = disk.inquiry()
    assert len(data) == 36 and data[0] & 0x1F == 0


def test_inquiry_shorter_and_longer(disk):
    assert disk.inquiry(5) == disk.inquiry()[:5]
    assert disk.inquiry(255)[:36] == disk.inquiry()


def test_capacity(disk):
    assert disk.capacity() == (conftest.IMAGE_SIZE // BLOCK, BLOCK)


@pytest.mark.parametrize("lba, count", [(0, 1), (1, 1), (5, 8), (100, 64), (1000, 128), (16383, 1), (16256, 128)])
def test_read(disk, lba, count):
    assert disk.read(lba, count) == sectors(lba, count)


def test_read_beyond_the_end(disk):
    with pytest.raises(uhci.ScsiError) as e:
        disk.read(16384, 1)
    assert (e.value.key, e.value.code) == (5, 0x21)
    assert disk.read(0, 1) == sector(0)


def test_unknown_command(disk):
    with pytest.raises(uhci.ScsiError) as e:
        disk.command(b"\xec" + bytes(9))
    assert (e.value.key, e.value.code) == (5, 0x20)
    assert disk.read(3, 1) == sector(3)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 64, 128])
def test_write_and_read_back(server, disk, image, count):
    data = random.Random(count).randbytes(count * BLOCK)
    disk.write(200, data)
    assert disk.read(200, count) == data
    assert disk.read(199, 1) == sector(199)
    assert disk.read(200 + count, 1) == sector(200 + count)
    disk.flush()
    assert image.read_bytes()[200 * BLOCK : (200 + count) * BLOCK] == data


def test_a_mixture(disk, image):
    rng = random.Random(7)
    model = bytearray(image.read_bytes())
    for _ in range(60):
        count = rng.choice([1, 1, 2, 8, 33])
        lba = rng.randrange(16384 - count)
        if rng.random() < 0.5:
            data = rng.randbytes(count * BLOCK)
            disk.write(lba, data)
            model[lba * BLOCK : (lba + count) * BLOCK] = data
        else:
            assert disk.read(lba, count) == model[lba * BLOCK : (lba + count) * BLOCK]
    disk.flush()
    assert image.read_bytes() == model


def test_bus_pace(start):
    server = start(controller="uhci,pace=bus")
    with server.guest() as g:
        disk = uhci.open_disk(g)
        assert disk.read(10, 4) == sectors(10, 4)
        disk.write(10, bytes(4 * BLOCK))
        assert disk.read(10, 4) == bytes(4 * BLOCK)


def test_read_only(start, image):
    before = image.read_bytes()
    server = start(device=",readonly=on")
    with server.guest() as g:
        disk = uhci.open_disk(g)
        assert disk.read(1, 1) == sector(1)
        with pytest.raises(uhci.ScsiError) as e:
            disk.write(1, bytes(BLOCK))
        assert (e.value.key, e.value.code) == (7, 0x27)
        assert disk.read(1, 1) == sector(1)
    server.terminate()
    assert image.read_bytes() == before


def test_serial_number(start):
    server = start(device=",serial=0123456789ABCDEF")
    with server.guest() as g:
        device = uhci.Uhci(g).enumerate()
        assert device.string(device.descriptor[16]) == "0123456789ABCDEF"


def test_read_only_file_served_read_only(start, image):
    image.chmod(0o444)
    server = start(device=",readonly=on")
    assert server.serves()


def test_two_writers_are_refused(server, image, tmp_path):
    result = subprocess.run(
        [conftest.BINARY, "serve", "--socket-path", tmp_path / "two.sock", "--controller", "uhci",
         "--device", f"disk,file={image}"], capture_output=True, text=True, timeout=10)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "two.sock").exists()
    assert server.serves()


def test_two_readers_are_welcome(start):
    one, two = start(device=",readonly=on"), start(device=",readonly=on", name="two")
    assert one.serves() and two.serves()


def test_sigterm_keeps_what_was_written(server, image):
    with server.guest() as g:
        disk = uhci.open_disk(g)
        for i in range(20):
            disk.write(i * 3, bytes([i]) * BLOCK)
        assert server.terminate() == 0
    data = image.read_bytes()
    for i in range(20):
        assert data[i * 3 * BLOCK : (i * 3 + 1) * BLOCK] == bytes([i]) * BLOCK
    assert not server.path.exists()


def test_client_leaves_in_mid_transfer(server, image):
    """Its data is the disk's as far as the disk has it; the next client starts afresh."""
    g = server.guest()
    disk = uhci.open_disk(g)
    disk.write(50, b"\x11" * BLOCK)
    u = disk.uhci
    packets = [(uhci.PID_OUT, 0, 64, uhci.DATA)] * 64
    u.build(packets, disk.device.address, disk.output, True)
    u.words[uhci.QUEUE_HEAD // 4 + 1] = uhci.TDS
    g.close()
    with server.guest() as again:
        disk = uhci.open_disk(again)
        assert disk.read(50, 1) == b"\x11" * BLOCK
        assert disk.read(51, 64) == sectors(51, 64)


def test_function_reset_in_mid_transfer(server, guest, disk):
    u = disk.uhci
    u.build([(uhci.PID_IN, 0, 64, uhci.DATA)] * 16, disk.device.address, disk.input & 0xF, True)
    u.words[uhci.QUEUE_HEAD // 4 + 1] = uhci.TDS
    guest.reset()
    assert u.get(uhci.USBCMD) & uhci.RUN == 0
    again = uhci.open_disk(guest)
    assert again.read(4, 4) == sectors(4, 4)


def test_interrupt_at_the_end_of_a_transfer(server, guest):
    fd = client.new_eventfd()
    guest.assign(client.INTX, fd)
    u = uhci.Uhci(guest)
    u.enumerate()
    u.put(uhci.USBSTS, 0x3F)
    guest.unmask()
    while client.fired(fd, 0.05):
        u.put(uhci.USBSTS, 0x3F)
        guest.unmask()
    u.control(5, 0x80, 6, 0x0100, length=18, interrupt=True)
    assert client.fired(fd) == 1
    assert u.get(uhci.USBSTS) & uhci.STS_INTERRUPT


def test_unplugged_memory_is_not_written(server, guest, disk):
    """After the reply to DMA_UNMAP nothing changes there, whatever was under way."""
    u = disk.uhci
    u.build([(uhci.PID_IN, 0, 64, uhci.DATA)] * 64, disk.device.address, disk.input & 0xF, False)
    u.words[uhci.QUEUE_HEAD // 4 + 1] = uhci.TDS
    guest.dma_unmap(0, guest.memory.size)
    before = bytes(guest.memory.bytes)
    time.sleep(0.1)
    assert bytes(guest.memory.bytes) == before


def read_fails(disk, lba, count):
    """Returns what came all the same, before the command failed; behind it there may be zeros."""
    u = disk.uhci
    u.write_memory(uhci.DATA, bytes(count * BLOCK))
    status, got = disk.transact(struct.pack(">BBIBHB", 0x28, 0, lba, 0, count, 0), None, count * BLOCK)
    behind = max(len(got), 64)  # a command and its status have been in front
    assert status == 1
    assert not any(u.read_memory(uhci.DATA + behind, count * BLOCK - behind))
    with pytest.raises(uhci.ScsiError) as e:
        disk.read(lba, count)
    assert e.value.key == 3  # medium error
    return got


@pytest.mark.parametrize("lba, count", [(108, 1), (108, 8), (1000, 128), (16383, 1), (16256, 128)])
def test_image_cut_off_while_it_is_served(server, disk, image, lba, count):
    """What lay behind the new end has just been read, and the blocks in front of it, too."""
    assert disk.read(lba, count) == sectors(lba, count)
    assert disk.read(100, 8) == sectors(100, 8)
    os.truncate(image, 108 * BLOCK)
    assert read_fails(disk, lba, count) == b""
    assert disk.read(100, 8) == sectors(100, 8)
    assert server.alive()


@pytest.mark.parametrize("end", [104 * BLOCK, 104 * BLOCK + 100])
def test_read_across_the_end_of_an_image_cut_off(disk, image, end):
    """The blocks that are there may come; of others, nothing."""
    assert disk.read(100, 16) == sectors(100, 16)
    os.truncate(image, end)
    got = read_fails(disk, 100, 16)
    assert len(got) <= 4 * BLOCK + 100
    assert got == sectors(100, 16)[: len(got)]
    assert disk.read(100, 4) == sectors(100, 4)


def test_image_cut_off_in_mid_transfer(disk, image):
    """Some of the data has been fetched when the rest vanishes: more than is read ahead."""
    length = 8000 * BLOCK
    disk.bulk(data=struct.pack("<IIIBBB", 0x43425355, 99, length, 0x80, 0, 10)
              + struct.pack(">BBIBHB", 0x28, 0, 1000, 0, 8000, 0).ljust(16, b"\0"))
    got = disk.bulk(length=BLOCK)
    assert got == sector(1000)
    os.truncate(image, BLOCK)
    try:
        while len(got) < length:
            got += disk.bulk(length=min(1 << 19, length - len(got)))
    except uhci.TransferError as e:
        assert e.stalled
    tag, residue, failed = struct.unpack("<4xIIB", disk.status())
    assert (tag, failed) == (99, 1)
    valid = length - residue
    assert BLOCK <= valid < length
    assert got[:valid] == sectors(1000, 8000)[:valid]
    assert not any(got[valid:])
    assert disk.read(0, 1) == sector(0)


def test_image_cut_off_and_made_whole_again(disk, image):
    whole = image.read_bytes()
    os.truncate(image, 100 * BLOCK)
    read_fails(disk, 100, 8)
    with open(image, "r+b") as f:
        f.write(whole)
    assert disk.read(100, 8) == sectors(100, 8)


def test_image_cut_off_and_the_next_client(server, image):
    with server.guest() as g:
        disk = uhci.open_disk(g)
        os.truncate(image, 0)
        read_fails(disk, 0, 1)
    with server.guest() as g:
        read_fails(uhci.open_disk(g), 0, 1)
    assert server.alive()


def eject(disk):
    disk.command(b"\x1b\0\0\0\x02\0")
    with pytest.raises(uhci.ScsiError) as e:
        disk.read(0, 1)
    assert (e.value.key, e.value.code) == (2, 0x3A)  # no medium


def test_an_eject_does_not_outlive_its_client(server):
    with server.guest() as g:
        eject(uhci.open_disk(g))
    with server.guest() as g:
        disk = uhci.open_disk(g)
        assert disk.read(5, 1) == sector(5)


def test_an_eject_outlives_a_reset_of_the_bus(disk):
    """As with a real drive: only the machine's end loads it again, or the guest."""
    eject(disk)
    again = uhci.Disk(disk.uhci.enumerate())
    with pytest.raises(uhci.ScsiError) as e:
        again.command(bytes(6))
    assert (e.value.key, e.value.code) == (2, 0x3A)
    again.command(b"\x1b\0\0\0\x03\0")
    again.ready()
    assert again.read(5, 1) == sector(5)


def test_a_lock_of_the_medium_does_not_outlive_its_client(server):
    with server.guest() as g:
        uhci.open_disk(g).command(b"\x1e\0\0\0\x01\0")
    with server.guest() as g:
        eject(uhci.open_disk(g))
