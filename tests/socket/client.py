"""A small vfio-user client, for tests: what a virtual machine monitor does, and what it would never do.

Nothing but the standard library. Client sends and receives messages; Guest adds guest
memory and the order in which QEMU attaches.
"""

import array
import collections
import errno
import fcntl
import json
import mmap
import os
import select
import socket
import struct

VERSION, DMA_MAP, DMA_UNMAP, GET_INFO, GET_REGION_INFO, GET_REGION_IO_FDS, GET_IRQ_INFO = range(1, 8)
SET_IRQS, REGION_READ, REGION_WRITE, DMA_READ, DMA_WRITE, RESET = range(8, 14)
WRITE_MULTI, FEATURE, MIG_DATA_READ, MIG_DATA_WRITE = 15, 16, 17, 18

REPLY, NO_REPLY, ERROR = 0x1, 0x10, 0x20

BAR4, CONFIG = 4, 7
INTX, MSI, MSIX, ERR, REQ = range(5)

DATA_NONE, DATA_BOOL, DATA_EVENTFD = 1, 2, 4
ACTION_MASK, ACTION_UNMASK, ACTION_TRIGGER = 8, 16, 32

HEADER = struct.Struct("=HHIII")
QEMU_CAPABILITIES = {
    "capabilities": {
        "max_msg_fds": 16,
        "max_data_xfer_size": 1048576,
        "pgsizes": 4096,
        "max_dma_maps": 65535,
        "write_multiple": True,
        "migration": {"pgsize": 4096, "max_bitmap_size": 268435456},
    }
}

Reply = collections.namedtuple("Reply", "id command size flags error body fds")


class Refused(Exception):
    """An error reply."""

    def __init__(self, reply):
        super().__init__(f"command {reply.command}: {errno.errorcode.get(reply.error, reply.error)}")
        self.reply = reply
        self.errno = reply.error


class Gone(Exception):
    """The server closed the connection."""


class Client:
    def __init__(self, path, timeout=5.0):
        """path: of the server's socket; or a socket that is connected to it."""
        connected = isinstance(path, socket.socket)
        self.socket = path if connected else socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        if not connected:
            self.socket.connect(os.fspath(path))
        self.next_id = 1

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # Messages

    def send_raw(self, data, fds=()):
        """One sendmsg, descriptors on its first byte."""
        try:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            sent = self.socket.sendmsg([data], ancillary)
            if sent < len(data):
                self.socket.sendall(data[sent:])
        except (BrokenPipeError, ConnectionResetError) as e:
            raise Gone from e

    def send(self, command, body=b"", fds=(), flags=0, size=None):
        identity = self.next_id
        self.next_id = (self.next_id + 1) & 0xFFFF
        size = HEADER.size + len(body) if size is None else size
        self.send_raw(HEADER.pack(identity, command, size, flags, 0) + body, fds)
        return identity

    def read_exact(self, count):
        data = b""
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except ConnectionResetError as e:
                raise Gone from e
            if not more:
                raise Gone
            data += more
        return data

    def receive(self):
        # QEMU wants the 16 bytes of a header in one read.
        try:
            data, ancillary, _, _ = self.socket.recvmsg(HEADER.size, socket.CMSG_SPACE(64))
        except ConnectionResetError as e:
            raise Gone from e
        if not data:
            raise Gone
        assert len(data) == HEADER.size, "short read of header"
        fds = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content)
        identity, command, size, flags, error = HEADER.unpack(data)
        assert size >= HEADER.size
        body = self.read_exact(size - HEADER.size)
        return Reply(identity, command, size, flags, error, body, list(fds))

    def call(self, command, body=b"", fds=()):
        identity = self.send(command, body, fds)
        reply = self.receive()
        assert (reply.id, reply.command) == (identity, command)
        assert reply.flags & 0xF == REPLY and not reply.flags & ~(REPLY | ERROR)
        assert not reply.fds
        if reply.flags & ERROR:
            raise Refused(reply)
        assert reply.error == 0
        return reply

    def is_gone(self, timeout=5.0):
        """Does the server close the connection? Replies on the way are read and dropped."""
        self.socket.settimeout(timeout)
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        except TimeoutError:
            return False
        return True

    def is_silent(self, timeout=0.1):
        return not readable(self.socket, timeout)

    # Commands

    def version(self, major=0, minor=0, capabilities=QEMU_CAPABILITIES):
        text = json.dumps(capabilities).encode() + b"\0"
        reply = self.call(VERSION, struct.pack("=HH", major, minor) + text)
        assert reply.body[-1] == 0
        return struct.unpack("=HH", reply.body[:4]) + (json.loads(reply.body[4:-1]),)

    @staticmethod
    def map_body(iova, size, offset=0, flags=3, argsz=32):
        return struct.pack("=IIQQQ", argsz, flags, offset, iova, size)

    def dma_map(self, iova, size, fd=None, offset=0, flags=3):
        body = self.map_body(iova, size, offset, flags)
        assert self.call(DMA_MAP, body, [] if fd is None else [fd]).size == 16

    def dma_unmap(self, iova, size, flags=0):
        body = struct.pack("=IIQQ", 24, flags, iova, size)
        reply = self.call(DMA_UNMAP, body)
        assert reply.body == body

    def get_info(self, argsz=16):
        return struct.unpack("=IIII", self.call(GET_INFO, struct.pack("=IIII", argsz, 0, 0, 0)).body)

    def region_info(self, index, argsz=32):
        """argsz, flags, index, cap_offset, size, offset"""
        body = struct.pack("=IIIIQQ", argsz, 0, index, 0, 0, 0)
        return struct.unpack("=IIIIQQ", self.call(GET_REGION_INFO, body).body)

    def irq_info(self, index, argsz=16):
        """argsz, flags, index, count"""
        return struct.unpack("=IIII", self.call(GET_IRQ_INFO, struct.pack("=IIII", argsz, 0, index, 0)).body)

    def set_irqs(self, index, flags, start=0, count=1, data=b"", fds=()):
        body = struct.pack("=IIIII", 20 + len(data), flags, index, start, count) + data
        assert self.call(SET_IRQS, body, fds).size == 16

    def assign(self, index, fd):
        self.set_irqs(index, DATA_EVENTFD | ACTION_TRIGGER, fds=[fd])

    def disable(self, index):
        self.set_irqs(index, DATA_NONE | ACTION_TRIGGER, 0, 0)

    def mask(self, index=INTX):
        self.set_irqs(index, DATA_NONE | ACTION_MASK)

    def unmask(self, index=INTX):
        self.set_irqs(index, DATA_NONE | ACTION_UNMASK)

    def read(self, region, offset, count):
        reply = self.call(REGION_READ, struct.pack("=QII", offset, region, count))
        assert reply.body[:16] == struct.pack("=QII", offset, region, count)
        assert len(reply.body) == 16 + count
        return reply.body[16:]

    def write(self, region, offset, data):
        reply = self.call(REGION_WRITE, struct.pack("=QII", offset, region, len(data)) + data)
        assert reply.body == struct.pack("=QII", offset, region, len(data))

    def reset(self):
        assert self.call(RESET).size == 16

    # Registers, as integers

    def get(self, region, offset, length):
        return int.from_bytes(self.read(region, offset, length), "little")

    def put(self, region, offset, length, value):
        self.write(region, offset, value.to_bytes(length, "little"))

    def msi_offset(self):
        offset = self.get(CONFIG, 0x34, 1)
        for _ in range(48):
            if not offset:
                return None
            if self.get(CONFIG, offset, 1) == 5:
                return offset
            offset = self.get(CONFIG, offset + 1, 1)
        raise AssertionError("the capability list loops")


class Memory:
    """Guest memory: a memfd, mapped here as well."""

    def __init__(self, size, sealed=True):
        self.size = size
        self.fd = os.memfd_create("guest", os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if sealed else 0))
        os.ftruncate(self.fd, size)
        if sealed:
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.bytes = mmap.mmap(self.fd, size)
        self.words = memoryview(self.bytes).cast("I")  # one access each

    def close(self):
        self.words.release()
        self.bytes.close()
        os.close(self.fd)


eventfds = []  # made by new_eventfd; whoever runs many tests in one process closes them


def new_eventfd():
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    eventfds.append(fd)
    return fd


def readable(fd, timeout):
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def fired(fd, timeout=2.0):
    """How often the eventfd was written since last asked; waits for the first."""
    return os.eventfd_read(fd) if readable(fd, timeout) else 0


class Guest(Client):
    """A client with memory at 0 and version agreed: attached as QEMU does, interrupts not yet."""

    def __init__(self, path, memory_size=16 << 20, sealed=True, timeout=5.0):
        super().__init__(path, timeout)
        self.memory = Memory(memory_size, sealed)
        self.version()
        self.dma_map(0, memory_size, self.memory.fd)

    def close(self):
        super().close()
        if self.memory:
            self.memory.close()
            self.memory = None
