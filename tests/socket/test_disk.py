"""Data through the whole house: guest memory, UHCI, batches, a disk, its image, and back."""

import random
import subprocess

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
    import time

    time.sleep(0.1)
    assert bytes(guest.memory.bytes) == before
