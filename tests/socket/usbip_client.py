"""A small USB/IP client, for tests: what Linux's vhci-hcd does, and what it would never do.

Nothing but the standard library. The messages are those of Linux's Documentation/usb/usbip_protocol.rst.
"""

import collections
import socket
import struct

VERSION = 0x0111
REQ_DEVLIST, REP_DEVLIST, REQ_IMPORT, REP_IMPORT = 0x8005, 0x0005, 0x8003, 0x0003
CMD_SUBMIT, CMD_UNLINK, RET_SUBMIT, RET_UNLINK = range(1, 5)
OUT, IN = 0, 1
SHORT_NOT_OK, ISO_ASAP, ZERO_PACKET = 0x1, 0x2, 0x40
EPIPE, EOVERFLOW, ECONNRESET, EREMOTEIO, EPROTO = 32, 75, 104, 121, 71

OP = struct.Struct(">HHI")
DEVICE = struct.Struct(">256s32sIIIHHHBBBBBB")
BASIC = struct.Struct(">IIIII")
SUBMIT = struct.Struct(">IIIIiIIiii8s")
UNLINK = struct.Struct(">IIIIII24x")
RESULT = struct.Struct(">IIIIIiIiii8x")
PACKET = struct.Struct(">IIIi")

Device = collections.namedtuple("Device", "path busid busnum devnum speed vendor product version device_class "
                                          "subclass protocol configuration configurations interfaces")
Result = collections.namedtuple("Result", "command seqnum status actual data packets errors")
Packet = collections.namedtuple("Packet", "offset length actual status")


class Gone(Exception):
    """The server has ended the connection."""


def connect(address, timeout=10):
    host, port = address.rsplit(":", 1)
    s = socket.create_connection((host, int(port)), timeout)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def receive(s, size):
    data = bytearray()
    while len(data) < size:
        try:
            piece = s.recv(min(size - len(data), 1 << 20))
        except ConnectionError:
            piece = b""
        if not piece:
            raise Gone
        data += piece
    return bytes(data)


def read_device(s):
    device = Device(*DEVICE.unpack(receive(s, DEVICE.size)))
    return device._replace(path=device.path.rstrip(b"\0").decode(), busid=device.busid.rstrip(b"\0").decode())


def devlist(address):
    """What there is: (device, [interface classes]) each."""
    with connect(address) as s:
        s.sendall(OP.pack(VERSION, REQ_DEVLIST, 0))
        version, code, status = OP.unpack(receive(s, OP.size))
        assert (version, code, status) == (VERSION, REP_DEVLIST, 0)
        devices = []
        for _ in range(*struct.unpack(">I", receive(s, 4))):
            device = read_device(s)
            devices.append((device, [tuple(receive(s, 4)[:3]) for _ in range(device.interfaces)]))
        assert s.recv(1) == b"", "more than the list"
        return devices


class Client:
    """One that has imported a device; `status` says why not, where it is not 0."""

    def __init__(self, address, busid="1-1", timeout=10):
        self.socket = connect(address, timeout)
        self.socket.sendall(OP.pack(VERSION, REQ_IMPORT, 0) + busid.encode().ljust(32, b"\0"))
        version, code, self.status = OP.unpack(receive(self.socket, OP.size))
        assert (version, code) == (VERSION, REP_IMPORT)
        self.sent = {}
        self.last = 0
        if self.status == 0:
            self.device = read_device(self.socket)
            self.devid = self.device.busnum << 16 | self.device.devnum

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.socket.close()

    def number(self):
        self.last += 1
        return self.last

    def submit(self, ep, direction, length=0, data=b"", setup=bytes(8), flags=0, packets=None, interval=0):
        """Returns the seqnum. `packets` are lengths, isochronous; their bytes are one after the other."""
        seqnum = self.number()
        length = len(data) if direction == OUT else length
        self.sent[seqnum] = (direction, packets is not None)
        message = SUBMIT.pack(CMD_SUBMIT, seqnum, self.devid, direction, ep, flags, length, 0,
                              len(packets) if packets is not None else 0, interval, setup) + data
        at = 0
        for size in packets or []:
            message += PACKET.pack(at, size, 0, 0)
            at += size
        self.socket.sendall(message)
        return seqnum

    def unlink(self, target):
        seqnum = self.number()
        self.socket.sendall(UNLINK.pack(CMD_UNLINK, seqnum, self.devid, 0, 0, target))
        return seqnum

    def result(self):
        """The next message that comes, whatever it answers."""
        command, seqnum, _, _, _, status, actual, _, count, errors = RESULT.unpack(receive(self.socket, RESULT.size))
        if command == RET_UNLINK:
            return Result(command, seqnum, status, 0, b"", [], 0)
        direction, isochronous = self.sent.pop(seqnum)
        data = receive(self.socket, actual) if direction == IN else b""
        packets = [Packet(*PACKET.unpack(receive(self.socket, PACKET.size))) for _ in range(count if isochronous else 0)]
        return Result(command, seqnum, status, actual, data, packets, errors)

    def do(self, *args, **options):
        """Submits, and waits for the result, which has to be the next message."""
        seqnum = self.submit(*args, **options)
        result = self.result()
        assert (result.command, result.seqnum) == (RET_SUBMIT, seqnum)
        return result

    def control(self, request_type, request, value=0, index=0, length=0, data=b""):
        size = len(data) or length
        setup = struct.pack("<BBHHH", request_type, request, value, index, size)
        return self.do(0, IN if request_type & 0x80 else OUT, length=size, data=data, setup=setup)

    def configure(self, value):
        result = self.control(0x00, 9, value)
        assert result.status == 0, result

    def set_interface(self, interface, alternate):
        result = self.control(0x01, 11, alternate, interface)
        assert result.status == 0, result

    def bulk_in(self, ep, length, **options):
        result = self.do(ep, IN, length=length, **options)
        assert result.status == 0, result
        return result.data

    def bulk_out(self, ep, data, **options):
        result = self.do(ep, OUT, data=data, **options)
        assert (result.status, result.actual) == (0, len(data)), result
