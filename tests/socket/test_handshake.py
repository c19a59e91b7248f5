"""QEMU's attach, message by message, and the version."""

import struct

import pytest

import client
from client import CONFIG, Gone, Refused


def test_qemu_attach_in_its_order(server):
    with server.client() as c:
        # 1
        major, minor, answer = c.version()
        assert (major, minor) == (0, 0)
        assert answer["capabilities"]["max_msg_fds"] <= 16
        # 2: maps in a pipeline, only then the replies
        memory = client.Memory(4 << 20)
        sent = [
            c.send(client.DMA_MAP, c.map_body(0, 0xA0000), [memory.fd]),
            c.send(client.DMA_MAP, c.map_body(0xC0000, 0x20000, 0xC0000, flags=1), [memory.fd]),
            c.send(client.DMA_MAP, c.map_body(0x100000, 0x300000, 0x100000), [memory.fd]),
            c.send(client.DMA_MAP, c.map_body(0xFD000000, 0x1000000), []),
            c.send(client.DMA_MAP, c.map_body(0xFFFC0000, 0x40000, flags=1), []),
        ]
        for identity in sent:
            reply = c.receive()
            assert (reply.id, reply.command, reply.size, reply.flags, reply.error) == (identity, 2, 16, 1, 0)
        # 3
        argsz, flags, regions, irqs = c.get_info(16)
        assert (argsz, flags, regions, irqs) == (16, 3, 9, 5)
        # 4
        for index in (0, 1, 2, 3, 4, 5, 7):
            argsz, flags, i, cap, size, _ = c.region_info(index)
            assert (argsz, i, cap) == (32, index, 0)
            assert flags == (3 if size else 0)
            assert size & (size - 1) == 0
        # 5
        assert c.irq_info(client.ERR)[3] == 1
        # 6: all of configuration space in one message
        config = c.read(CONFIG, 0, 256)
        assert config[0x0E] == 0
        # 7
        before = c.read(CONFIG, 0x30, 4)
        c.write(CONFIG, 0x30, struct.pack("<I", 0xFFFFF800))
        assert c.read(CONFIG, 0x30, 4) == bytes(4)
        c.write(CONFIG, 0x30, before)
        assert c.read(CONFIG, 0x20, 4)[0] & 1
        # 8
        assert c.get(CONFIG, c.msi_offset() + 2, 2) & 0x0181 == 0x0080
        # 9
        assert c.get(CONFIG, 0x3D, 1) == 1
        interrupt = client.new_eventfd()
        c.assign(client.INTX, interrupt)
        # 10: machine reset
        c.disable(client.INTX)
        c.put(CONFIG, 0x04, 2, c.get(CONFIG, 0x04, 2) & ~0x407)
        c.reset()
        assert c.get(CONFIG, 0x3D, 1) == 1
        c.assign(client.INTX, interrupt)
        for offset in range(0x10, 0x28, 4):
            c.put(CONFIG, offset, 4, 0)
        # then KVM's way, which is refused, and the fallback
        with pytest.raises(Refused):
            c.set_irqs(client.INTX, client.DATA_EVENTFD | client.ACTION_UNMASK, fds=[client.new_eventfd()])
        c.unmask()
        # hot-unplug
        c.disable(client.INTX)
        c.dma_unmap(0xFD000000, 0x1000000)
        c.dma_unmap(0, 0xA0000)
        c.dma_unmap(0, 0, flags=2)
    assert server.serves()


@pytest.mark.parametrize("command, body, size", [
    (client.GET_INFO, struct.pack("=IIII", 16, 0, 0, 0), 32),
    (client.GET_REGION_INFO, struct.pack("=IIIIQQ", 32, 0, 4, 0, 0, 0), 48),
    (client.GET_IRQ_INFO, struct.pack("=IIII", 16, 0, 3, 0), 32),
    (client.REGION_READ, struct.pack("=QII", 0, 7, 256), 288),
    (client.REGION_WRITE, struct.pack("=QII", 4, 7, 2) + b"\5\0", 32),
    (client.RESET, b"", 16),
])
def test_reply_sizes(guest, command, body, size):
    assert guest.call(command, body).size == size


def test_version_reply_fits_the_request(server):
    with server.client() as c:
        import json

        text = json.dumps(client.QEMU_CAPABILITIES).encode() + b"\0"
        reply = c.call(client.VERSION, struct.pack("=HH", 0, 0) + text)
        assert reply.size <= 20 + len(text)


@pytest.mark.parametrize("body", [
    struct.pack("=HH", 0, 0),  # capabilities are optional
    struct.pack("=HH", 0, 0) + b"{}\0",
    struct.pack("=HH", 0, 1) + b'{"capabilities":{"max_msg_fds":1,"migration":{"pgsize":4096}}}\0',
    struct.pack("=HH", 0, 0) + b'{"capabilities":{"twin_socket":{"supported":true}}}\0',
])
def test_version_accepted(server, body):
    with server.client() as c:
        assert struct.unpack("=HH", c.call(client.VERSION, body).body[:4]) == (0, 0)


@pytest.mark.parametrize("body", [
    b"", b"\0\0", struct.pack("=HH", 1, 0) + b"{}\0",
    struct.pack("=HH", 0, 0) + b"{}",  # no NUL
    struct.pack("=HH", 0, 0) + b"\0", struct.pack("=HH", 0, 0) + b"[]\0",
    struct.pack("=HH", 0, 0) + b"{\0}\0", struct.pack("=HH", 0, 0) + b'{"capabilities":1}\0',
    struct.pack("=HH", 0, 0) + b"[" * 4000 + b"\0", struct.pack("=HH", 0, 0) + b"\xff\xfe\0",
    struct.pack("=HH", 0, 0) + b'{"x":"' + b"y" * 5000 + b'"}\0',
])
def test_version_refused_and_dropped(server, body):
    with server.client() as c:
        with pytest.raises(Refused):
            c.call(client.VERSION, body)
        assert c.is_gone()
    assert server.serves()


def test_version_comes_first(server):
    with server.client() as c:
        c.send(client.GET_INFO, struct.pack("=IIII", 16, 0, 0, 0))
        with pytest.raises(Gone):
            c.receive()
    assert server.serves()


def test_second_version_is_refused(guest):
    with pytest.raises(Refused):
        guest.version()
    assert guest.get_info()[0] == 16


def test_second_client_is_turned_away(server, guest):
    with server.client() as other:
        assert other.is_gone()
    assert guest.get_info()[0] == 16


def test_identities_are_echoed(guest):
    for identity in (0, 7, 7, 65535):
        guest.next_id = identity
        assert guest.call(client.GET_INFO, struct.pack("=IIII", 16, 0, 0, 0)).id == identity


def test_a_message_in_single_bytes(server, guest):
    message = client.HEADER.pack(9, client.REGION_READ, 32, 0, 0) + struct.pack("=QII", 0, CONFIG, 4)
    for byte in message:
        guest.send_raw(bytes([byte]))
        assert guest.is_silent(0) or byte is message[-1]
    assert guest.receive().body[16:] == guest.read(CONFIG, 0, 4)


def test_many_messages_in_one_write(guest):
    reset = client.HEADER.pack(1, client.RESET, 16, 0, 0)
    read = client.HEADER.pack(2, client.REGION_READ, 32, 0, 0) + struct.pack("=QII", 0, CONFIG, 4)
    guest.send_raw((reset + read + reset + reset) * 5)
    for _ in range(5):
        assert [guest.receive().id for _ in range(4)] == [1, 2, 1, 1]
    assert guest.is_silent()


def test_descriptors_stay_with_their_message(guest):
    """A short message before one with descriptors, all in the socket before the server looks."""
    for short in (client.HEADER.pack(1, client.RESET, 16, 0, 0),
                  client.HEADER.pack(1, client.REGION_READ, 32, 0, 0) + struct.pack("=QII", 0, CONFIG, 4)):
        interrupt = client.new_eventfd()
        for _ in range(20):
            guest.send_raw(short * 3)
            guest.send(client.SET_IRQS, struct.pack("=IIIII", 20, 0x24, client.INTX, 0, 1), [interrupt])
            guest.send(client.SET_IRQS, struct.pack("=IIIII", 20, 0x21, client.INTX, 0, 1))
            replies = [guest.receive() for _ in range(5)]
            assert all(r.error == 0 for r in replies)
            assert client.fired(interrupt) == 1
