"""A minimal UHCI driver and a bulk-only disk on top of it, in a guest made of a client and a memfd.

UHCI Design Guide 1.1; USB Mass Storage Class Bulk-Only Transport 1.0; SBC/SPC for the
commands. One transfer at a time, in one queue that every frame visits.
"""

import struct
import time

from client import BAR4, CONFIG

USBCMD, USBSTS, USBINTR, FRNUM, FRBASEADD, SOFMOD, PORTSC = 0x00, 0x02, 0x04, 0x06, 0x08, 0x0C, 0x10
RUN, HCRESET, CONFIGURED, MAX64 = 0x0001, 0x0002, 0x0040, 0x0080
STS_INTERRUPT, STS_ERROR, STS_HOST_ERROR, STS_PROCESS_ERROR, STS_HALTED = 0x01, 0x02, 0x08, 0x10, 0x20
PORT_CONNECTED, PORT_CHANGE, PORT_ENABLED, PORT_ENABLE_CHANGE = 0x001, 0x002, 0x004, 0x008
PORT_LOW_SPEED, PORT_RESET = 0x100, 0x200

TERMINATE, QUEUE, DEPTH = 1, 2, 4
TD_ACTIVE, TD_STALLED, TD_NAK, TD_IOC, TD_SPD = 1 << 23, 1 << 22, 1 << 19, 1 << 24, 1 << 29
TD_ERRORS = 0x00760000  # stalled, buffer, babble, time-out, bit stuffing
PID_IN, PID_OUT, PID_SETUP = 0x69, 0xE1, 0x2D

FRAME_LIST, QUEUE_HEAD, TDS, DATA = 0x1000, 0x2000, 0x10000, 0x100000
MAX_TDS = 0x8000


class TransferError(Exception):
    def __init__(self, status):
        super().__init__(f"TD status {status:#010x}")
        self.status = status
        self.stalled = bool(status & TD_STALLED)


class TimedOut(Exception):
    pass


class Uhci:
    """The controller, reset, its schedule running."""

    def __init__(self, guest, interrupts=0xF):
        self.guest = guest
        self.words = guest.memory.words
        self.toggles = {}
        guest.put(CONFIG, 0x20, 4, 0xC040)
        guest.put(CONFIG, 0x04, 2, 0x0005)
        self.put(USBCMD, HCRESET)
        self.until(lambda: not self.get(USBCMD) & HCRESET, "controller reset")
        self.words[QUEUE_HEAD // 4] = TERMINATE
        self.words[QUEUE_HEAD // 4 + 1] = TERMINATE
        for frame in range(1024):
            self.words[FRAME_LIST // 4 + frame] = QUEUE_HEAD | QUEUE
        self.put(FRBASEADD, FRAME_LIST, 4)
        self.put(FRNUM, 0)
        self.put(USBSTS, 0x3F)
        self.put(USBINTR, interrupts)
        self.run()

    def get(self, register, length=2):
        return self.guest.get(BAR4, register, length)

    def put(self, register, value, length=2):
        self.guest.put(BAR4, register, length, value)

    def run(self):
        self.put(USBCMD, RUN | CONFIGURED | MAX64)

    def stop(self):
        self.put(USBCMD, CONFIGURED | MAX64)
        self.until(lambda: self.get(USBSTS) & STS_HALTED, "halt")

    @staticmethod
    def until(condition, what, timeout=5.0):
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise TimedOut(what)
            time.sleep(0.0005)

    # Ports

    def port(self, number):
        return PORTSC + 2 * number

    def connected(self, number):
        return bool(self.get(self.port(number)) & PORT_CONNECTED)

    def wait_connected(self, number=0, timeout=5.0):
        self.until(lambda: self.connected(number), f"connection at port {number}", timeout)

    def reset_port(self, number=0):
        register = self.port(number)
        self.put(register, PORT_RESET)
        time.sleep(0.05)
        self.put(register, 0)
        time.sleep(0.001)

        def enabled():
            status = self.get(register)
            if status & PORT_ENABLED:
                return True
            self.put(register, PORT_ENABLED | PORT_CHANGE | PORT_ENABLE_CHANGE)
            return False

        self.until(enabled, f"port {number} to be enabled")
        self.toggles.clear()

    # Transfers

    def build(self, packets, address, endpoint, interrupt):
        """packets: (pid, toggle, length, buffer). Makes the chain of TDs at TDS."""
        assert len(packets) <= MAX_TDS
        for i, (pid, toggle, length, buffer) in enumerate(packets):
            last = i + 1 == len(packets)
            td = TDS + 32 * i
            word = td // 4
            self.words[word] = TERMINATE if last else td + 32 | DEPTH
            self.words[word + 2] = (
                pid | address << 8 | endpoint << 15 | toggle << 19 | ((length - 1) & 0x7FF) << 21
            )
            self.words[word + 3] = buffer
            # Short packets stop the queue in the data of an IN; the status word makes it valid, so it is last.
            spd = TD_SPD if pid == PID_IN and not last else 0
            self.words[word + 1] = TD_ACTIVE | 3 << 27 | spd | (TD_IOC if last and interrupt else 0) | 0x7FF

    def outcome(self, packets, start=0):
        """None: not finished. Else the statuses of the packets done."""
        statuses = []
        for i in range(start, len(packets)):
            status = self.words[(TDS + 32 * i) // 4 + 1]
            if status & TD_ACTIVE:
                return None
            statuses.append(status)
            if status & TD_ERRORS:
                raise TransferError(status)
            if packets[i][0] == PID_IN and (status + 1) & 0x7FF < packets[i][2]:
                break
        return statuses

    def transfer(self, packets, address, endpoint, interrupt=False, timeout=5.0):
        """Returns the actual length of each packet done."""
        self.build(packets, address, endpoint, interrupt)
        self.words[QUEUE_HEAD // 4 + 1] = TDS
        end = time.monotonic() + timeout
        done = 0
        try:
            while True:
                # A queue is done in order: skip what is known to be done.
                while done < len(packets) - 1 and not self.words[(TDS + 32 * done) // 4 + 1] & (
                    TD_ACTIVE | TD_ERRORS
                ):
                    status = self.words[(TDS + 32 * done) // 4 + 1]
                    if packets[done][0] == PID_IN and (status + 1) & 0x7FF < packets[done][2]:
                        break
                    done += 1
                if self.outcome(packets, done) is not None and self.let_go_of_head(packets):
                    break
                if time.monotonic() > end:
                    raise TimedOut(f"transfer to {address}.{endpoint}")
                time.sleep(0.0003)
        finally:
            self.words[QUEUE_HEAD // 4 + 1] = TERMINATE
        return [(status + 1) & 0x7FF for status in self.outcome(packets)]

    def let_go_of_head(self, packets):
        """The queue head follows after its descriptors: not before may it point at the same ones anew."""
        stopped = len(packets) > 1 and len(self.outcome(packets)) == 1  # by a short packet: it stays
        return stopped or self.words[QUEUE_HEAD // 4 + 1] != TDS

    def let_go(self):
        """A withdrawn TD is ours again once the frame number has changed."""
        frame = self.get(FRNUM)
        self.until(lambda: self.get(FRNUM) != frame, "next frame")

    def write_memory(self, address, data):
        self.guest.memory.bytes[address : address + len(data)] = data

    def read_memory(self, address, length):
        return bytes(self.guest.memory.bytes[address : address + length])

    def control(self, address, request_type, request, value=0, index=0, data=b"", length=0, packet=64, interrupt=False):
        """Returns the data of an IN. length: of an IN; data: of an OUT."""
        setup, buffer = DATA, DATA + 64
        to_host = bool(request_type & 0x80)
        length = length if to_host else len(data)
        self.write_memory(setup, struct.pack("<BBHHH", request_type, request, value, index, length))
        self.write_memory(buffer, data if not to_host else bytes(length))
        packets = [(PID_SETUP, 0, 8, setup)]
        for n, offset in enumerate(range(0, length, packet)):
            pid = PID_IN if to_host else PID_OUT
            packets.append((pid, (n + 1) & 1, min(packet, length - offset), buffer + offset))
        status = (PID_OUT if to_host and length else PID_IN, 1, 0, buffer)
        actual = self.transfer(packets + [status], address, 0, interrupt)
        if to_host and len(actual) < len(packets) + 1:
            # A short packet stopped the queue: the status stage comes by itself.
            self.transfer([status], address, 0)
            return self.read_memory(buffer, sum(actual[1:]))
        return self.read_memory(buffer, sum(actual[1:-1])) if to_host else b""

    def bulk(self, address, endpoint, data=None, length=0, packet=64, interrupt=False, timeout=20.0):
        """data: OUT; else IN of up to length bytes, which are returned."""
        pid = PID_IN if data is None else PID_OUT
        length = length if data is None else len(data)
        key = (address, endpoint, pid)
        toggle = self.toggles.get(key, 0)
        if data is not None:
            self.write_memory(DATA, data)
        packets = []
        for offset in range(0, length, packet):
            packets.append((pid, toggle, min(packet, length - offset), DATA + offset))
            toggle ^= 1
        try:
            actual = self.transfer(packets, address, endpoint, interrupt, timeout)
        except TransferError as e:
            if e.stalled:
                self.clear_halt(address, endpoint, pid)
            raise
        self.toggles[key] = (self.toggles.get(key, 0) + len(actual)) & 1
        return self.read_memory(DATA, sum(actual)) if data is None else None

    def clear_halt(self, address, endpoint, pid):
        self.control(address, 0x02, 1, 0, endpoint | (0x80 if pid == PID_IN else 0))
        self.toggles[(address, endpoint, pid)] = 0

    # Devices

    def descriptor(self, address, kind, length, index=0, language=0, packet=64):
        return self.control(address, 0x80, 6, kind << 8 | index, language, length=length, packet=packet)

    def enumerate(self, port=0, address=5):
        self.wait_connected(port)
        self.reset_port(port)
        packet = self.descriptor(0, 1, 8, packet=8)[7]
        self.control(0, 0x00, 5, address, packet=packet)
        time.sleep(0.003)
        return Device(self, address, packet)


class Device:
    def __init__(self, uhci, address, packet):
        self.uhci, self.address = uhci, address
        self.descriptor = uhci.descriptor(address, 1, 18, packet=packet)
        head = uhci.descriptor(address, 2, 9, packet=packet)
        self.configuration = uhci.descriptor(address, 2, struct.unpack_from("<H", head, 2)[0], packet=packet)
        self.endpoints = {}  # address: maximum packet
        offset = 0
        while offset + 2 <= len(self.configuration):
            length, kind = self.configuration[offset : offset + 2]
            if kind == 5:
                endpoint, _, size = struct.unpack_from("<BBH", self.configuration, offset + 2)
                self.endpoints[endpoint] = size
            assert length >= 2
            offset += length
        uhci.control(address, 0x00, 9, self.configuration[5], packet=packet)

    def string(self, index):
        data = self.uhci.descriptor(self.address, 3, 255, index, 0x0409)
        return data[2 : data[0]].decode("utf-16-le")


class ScsiError(Exception):
    def __init__(self, sense):
        self.key, self.code, self.qualifier = sense[2] & 0xF, sense[12], sense[13]
        super().__init__(f"sense {self.key:x}/{self.code:02x}/{self.qualifier:02x}")


class Disk:
    """Bulk-only transport to a device with one bulk endpoint each way."""

    def __init__(self, device):
        self.uhci, self.device = device.uhci, device
        self.input = next(e for e in device.endpoints if e & 0x80)
        self.output = next(e for e in device.endpoints if not e & 0x80)
        self.tag = 0

    def bulk(self, **arguments):
        endpoint = self.output if "data" in arguments else self.input
        return self.uhci.bulk(self.device.address, endpoint & 0xF, packet=self.device.endpoints[endpoint], **arguments)

    def status(self):
        try:
            return self.bulk(length=13)
        except TransferError as e:
            if not e.stalled:
                raise
            return self.bulk(length=13)

    def transact(self, cdb, data, length):
        """Returns status and data, without what is mere padding."""
        self.tag += 1
        size = length if data is None else len(data)
        flags = 0x80 if data is None and size else 0
        self.bulk(data=struct.pack("<IIIBBB", 0x43425355, self.tag, size, flags, 0, len(cdb)) + cdb.ljust(16, b"\0"))
        got = b""
        try:
            if data:
                self.bulk(data=data)
            elif length:
                got = self.bulk(length=length)
        except TransferError as e:
            if not e.stalled:
                raise
        wrapper = self.status()
        signature, tag, residue, status = struct.unpack("<IIIB", wrapper)
        assert (signature, tag) == (0x53425355, self.tag)
        assert residue <= size
        return status, got[: size - residue]

    def command(self, cdb, data=None, length=0):
        status, got = self.transact(cdb, data, length)
        if status:
            raise ScsiError(self.transact(struct.pack(">BBBBBB", 0x03, 0, 0, 0, 18, 0), None, 18)[1])
        return got

    def ready(self):
        """TEST UNIT READY until unit attentions are through."""
        for _ in range(5):
            try:
                return self.command(bytes(6))
            except ScsiError as e:
                if e.key != 6:
                    raise
        raise AssertionError("unit attention without end")

    def inquiry(self, length=36):
        return self.command(struct.pack(">BBBHB", 0x12, 0, 0, length, 0), length=length)

    def capacity(self):
        """Blocks, block size."""
        last, size = struct.unpack(">II", self.command(struct.pack(">B9x", 0x25), length=8))
        return last + 1, size

    def read(self, lba, count, block=512):
        return self.command(struct.pack(">BBIBHB", 0x28, 0, lba, 0, count, 0), length=count * block)

    def write(self, lba, data, block=512):
        self.command(struct.pack(">BBIBHB", 0x2A, 0, lba, 0, len(data) // block, 0), data=data)

    def flush(self):
        self.command(struct.pack(">B9x", 0x35))


def open_disk(guest, port=0, interrupts=0xF):
    disk = Disk(Uhci(guest, interrupts).enumerate(port))
    disk.ready()
    return disk
