"""Cloud Hypervisor's client: it reads exactly so many bytes and never looks at the error flag."""

import struct

import client
from client import CONFIG

EXACT = {
    client.DMA_MAP: 16, client.DMA_UNMAP: 40, client.GET_INFO: 32, client.GET_IRQ_INFO: 32,
    client.GET_REGION_INFO: 48, client.SET_IRQS: 16, client.REGION_WRITE: 32, client.RESET: 16,
}


class CloudHypervisor:
    """One request, one reply of the size it expects. A byte more or less is a failure."""

    def __init__(self, c):
        self.c = c

    def call(self, command, body=b"", fds=(), size=None):
        identity = self.c.send(command, body, fds)
        size = EXACT[command] if size is None else size
        data = self.c.read_exact(size)
        assert self.c.is_silent(0.01), "more than it reads"
        header = client.HEADER.unpack(data[:16])
        assert header[:3] == (identity, command, size)
        return header, data[16:]

    def read(self, region, offset, count):
        body = struct.pack("=QII", offset, region, count)
        return self.call(client.REGION_READ, body, size=32 + count)[1][16:]

    def write(self, region, offset, data):
        self.call(client.REGION_WRITE, struct.pack("=QII", offset, region, len(data)) + data)


def negotiate(c):
    text = b'{"capabilities":{"max_msg_fds":1,"max_data_xfer_size":1048576,"migration":{"pgsize":4096}}}\0'
    c.send(client.VERSION, struct.pack("=HH", 0, 1) + text)
    reply = c.receive()
    import json

    assert reply.body[-1] == 0
    assert isinstance(json.loads(reply.body[4:-1])["capabilities"], dict)


def test_attach_run_detach(server):
    with server.client() as c:
        negotiate(c)
        ch = CloudHypervisor(c)
        _, body = ch.call(client.GET_INFO, struct.pack("=IIII", 32, 0, 0, 0))
        _, flags, regions, _ = struct.unpack("=IIII", body)
        assert flags & 3 == 3  # RESET offered: then it sends none
        sizes = []
        for index in range(regions):
            _, body = ch.call(client.GET_REGION_INFO, struct.pack("=IIIIQQ", 32, 0, index, 0, 0, 0))
            argsz, _, i, _, size, _ = struct.unpack("=IIIIQQ", body)
            assert (argsz, i) == (32, index)
            sizes.append(size)
        assert sizes[4] == 32 and sizes[CONFIG] == 256

        # capabilities
        offset = ch.read(CONFIG, 0x34, 1)[0]
        while offset:
            kind, following = ch.read(CONFIG, offset, 2)
            if kind == 5:
                ch.read(CONFIG, offset + 2, 2)
                _, body = ch.call(client.GET_IRQ_INFO, struct.pack("=IIII", 16, 0, client.MSI, 0))
                assert struct.unpack("=IIII", body) == (16, 9, 1, 1)
            offset = following
        _, body = ch.call(client.GET_IRQ_INFO, struct.pack("=IIII", 16, 0, client.INTX, 0))
        assert struct.unpack("=IIII", body) == (16, 7, 0, 1)

        interrupt = client.new_eventfd()
        set_intx = struct.pack("=IIIII", 20, 0x24, client.INTX, 0, 1)
        header, _ = ch.call(client.SET_IRQS, set_intx, [interrupt])
        assert header[3] == 1

        memory = client.Memory(2 << 20, sealed=False)
        ch.call(client.DMA_MAP, c.map_body(0, 1 << 20), [memory.fd])
        ch.call(client.DMA_MAP, c.map_body(0x100000000, 1 << 20, 1 << 20), [memory.fd])

        # BARs are sized in our configuration space
        for bar in range(6):
            ch.write(CONFIG, 0x10 + 4 * bar, b"\xff\xff\xff\xff")
            (mask,) = struct.unpack("<I", ch.read(CONFIG, 0x10 + 4 * bar, 4))
            assert mask == (0xFFFFFFE1 if bar == 4 else 0)
        ch.write(CONFIG, 0x30, b"\xff\xff\xff\xff")
        assert ch.read(CONFIG, 0x30, 4) == bytes(4)
        ch.write(CONFIG, 0x20, struct.pack("<I", 0xC041))
        ch.write(CONFIG, 0x04, struct.pack("<H", 5))

        # each BAR access brings an unmask
        unmask = struct.pack("=IIIII", 20, 0x11, client.INTX, 0, 1)
        for _ in range(10):
            ch.read(4, 2, 2)
            ch.call(client.SET_IRQS, unmask)

        # MSI: the eventfds before the write that enables
        ch.call(client.SET_IRQS, struct.pack("=IIIII", 20, 0x21, client.INTX, 0, 0))
        ch.call(client.SET_IRQS, struct.pack("=IIIII", 20, 0x24, client.MSI, 0, 1), [interrupt])

        ch.call(client.DMA_UNMAP, struct.pack("=IIQQ", 24, 0, 0, 1 << 20))
        ch.call(client.DMA_UNMAP, struct.pack("=IIQQ", 24, 0, 0x100000000, 1 << 20))
        ch.call(client.SET_IRQS, struct.pack("=IIIII", 20, 0x21, client.MSI, 0, 0))
    assert server.serves()


def test_what_a_guest_can_cause_is_answered_in_full(server):
    """A bare error would leave it waiting for the rest for ever."""
    with server.client() as c:
        negotiate(c)
        ch = CloudHypervisor(c)
        # extended configuration space, as a guest on PCI Express looks for it
        for offset in (256, 252 + 2, 4092, 4095):
            assert set(ch.read(CONFIG, offset, 4)) == {0xFF}
        ch.write(CONFIG, 4092, bytes(4))
        for region, offset, count in ((4, 32, 4), (4, 30, 4), (0, 0, 4), (6, 0, 4), (8, 0, 1), (99, 0, 2), (4, 2**64 - 1, 4)):
            assert set(ch.read(region, offset, count)) == {0xFF}
            ch.write(region, offset, bytes(count))
        header, body = ch.call(client.DMA_UNMAP, struct.pack("=IIQQ", 24, 0, 0x5000, 0x1000))
        assert header[3] == client.REPLY | client.ERROR
        assert body == struct.pack("=IIQQ", 24, 0, 0x5000, 0x1000)
        # and the stream is in step
        ch.call(client.GET_INFO, struct.pack("=IIII", 32, 0, 0, 0))
