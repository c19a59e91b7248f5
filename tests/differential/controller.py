"""A UHCI as a driver sees it: registers, a piece of memory for the schedule, and time that passes.

Two kinds with one interface. Everything a program does to one it does to the other; what it can see
afterwards is observe(). Addresses in observations are relative to the controller's own piece of
memory, so that they can be compared.
"""

import struct
import time

from uhci import (ACTIVE, ACTLEN, CSC, DEPTH, END, FRBASEADD, FRNUM, HALTED, HCRESET, IN, PE, PEC, PORTSC1, PORTSC2,
                  PR, QUEUE, REGISTERS, RS, SETUP, USBCMD, USBINTR, USBSTS, token)

ADDRESS = 5  # of the device under test
CONFIG_COMMAND, CONFIG_STATUS, CONFIG_BAR4 = 0x04, 0x06, 0x20
COMMAND_IO, COMMAND_MASTER = 1, 4
STATUS_INTERRUPT = 8

# The piece of memory.
FRAME_LIST, QUEUES, DESCRIPTORS, BUFFERS, OWN, SIZE = 0, 0x1000, 0x2000, 0x8000, 0x3F000, 0x40000
STRIDE = 0x80  # from one descriptor's buffer to the next one's
FRESH = 0xA5  # what buffers hold before anything was written to them

class NotQuiet(Exception):
    """A transfer of the test's own did not end."""


class Controller:
    """`name` says which; `slot` is its PCI device; `io` and `base` are where we put it; `hands` serve it."""

    def __init__(self, qtest, slot, io, base, hands):
        self.qtest, self.slot, self.io, self.base, self.hands = qtest, slot, io, base, hands
        self.plugged = []
        self.words = memoryview(qtest.memory).cast("I")
        qtest.config_put(slot, CONFIG_BAR4, 4, io)
        qtest.config_put(slot, CONFIG_COMMAND, 2, COMMAND_IO | COMMAND_MASTER)
        self.forget()

    def forget(self):
        """An empty schedule in fresh memory; nothing noted, nothing built."""
        self.notes = {}
        self.queues, self.descriptors, self.buffers = {}, {}, {}
        self.qtest.memory[self.base:self.base + SIZE] = b"\1\0\0\0" * 1024 + bytes([FRESH]) * (SIZE - 4096)

    # Registers

    def read(self, register, size=2):
        return self.qtest.get(self.io + register, size)

    def write(self, register, value, size=2):
        self.qtest.put(self.io + register, size, value)

    def note(self, label, value):
        """Something this program saw on the way: compared with what the other one saw."""
        assert label not in self.notes, label
        self.notes[label] = value

    def see(self, label, register, size=2):
        self.note(label, self.read(register, size))

    def interrupt(self):
        """Does the function want one? INTx status, PCI 3.0, 6.2.3."""
        return bool(self.qtest.config_get(self.slot, CONFIG_STATUS, 2) & STATUS_INTERRUPT)

    # The schedule. Numbers name queue heads and descriptors; links are what at() and to_*() give.

    def at(self, offset):
        return self.base + offset

    def to_qh(self, number, flags=0):
        return self.base + QUEUES + 16 * number | QUEUE | flags

    def to_td(self, number, depth=False, flags=0):
        return self.base + DESCRIPTORS + 16 * number | (DEPTH if depth else 0) | flags

    def buffer(self, offset):
        return self.base + BUFFERS + offset

    def word(self, offset):
        return self.words[(self.base + offset) // 4]

    def put_word(self, offset, value):
        self.words[(self.base + offset) // 4] = value

    def frame(self, link, numbers=range(1024)):
        for number in numbers:
            self.put_word(FRAME_LIST + 4 * number, link)

    def qh(self, number, link=END, element=END):
        offset = QUEUES + 16 * number
        self.put_word(offset, link)
        self.put_word(offset + 4, element)
        self.queues[number] = link

    def element(self, number, link):
        self.put_word(QUEUES + 16 * number + 4, link)

    def td(self, number, link, pid, length, address=ADDRESS, endpoint=0, buffer=None, toggle=0, flags=ACTIVE, cerr=3,
           actlen=0, data=None, masked=False, maxlen=None):
        """`buffer`: offset among the buffers; by default each descriptor has one of its own, for 64 bytes.

        `data` is put there. What an IN leaves there is compared, but for `masked`: the device's own content.
        """
        offset = DESCRIPTORS + 16 * number
        where = STRIDE * number if buffer is None else buffer
        words = [link, None, token(pid, address, endpoint, length, toggle), self.buffer(where)]
        if maxlen is not None:
            words[2] = words[2] & ~(0x7FF << 21) | maxlen << 21
        if data is not None:
            self.put_bytes(where, data)
        for i in (0, 2, 3):
            self.put_word(offset + 4 * i, words[i])
        self.descriptors[number] = words
        if pid == IN and not masked:
            self.buffers[number] = (where, max(length, 1) + 8)
        self.put_word(offset + 4, flags | cerr << 27 | actlen)

    def control_word(self, number):
        return self.word(DESCRIPTORS + 16 * number + 4)

    def put_control_word(self, number, value):
        self.put_word(DESCRIPTORS + 16 * number + 4, value)

    def put_bytes(self, offset, data):
        start = self.buffer(offset)
        self.qtest.memory[start:start + len(data)] = data

    def get_bytes(self, offset, length):
        start = self.buffer(offset)
        return bytes(self.qtest.memory[start:start + length])

    def first_of(self, queue):
        """Which descriptor a queue's element pointer leads to, or None."""
        element = self.word(QUEUES + 16 * queue + 4)
        return None if element & (END | QUEUE) else ((element & ~15) - self.base - DESCRIPTORS) // 16

    # What can be seen

    def relative(self, value):
        return value - self.base if self.base <= value < self.base + SIZE else value

    def observe_memory(self):
        seen = {}
        for number, link in self.queues.items():
            offset = QUEUES + 16 * number
            seen[f"QH{number}.element"] = self.relative(self.word(offset + 4))
            if self.word(offset) != link:
                seen[f"QH{number}.link"] = "changed"
        for number, words in self.descriptors.items():
            offset = DESCRIPTORS + 16 * number
            seen[f"TD{number}.control"] = self.word(offset + 4)
            if any(self.word(offset + 4 * i) != words[i] for i in (0, 2, 3)):
                seen[f"TD{number}.others"] = "changed"
        for number, (where, length) in self.buffers.items():
            seen[f"TD{number}.data"] = self.get_bytes(where, length)
        return seen

    def observe_registers(self):
        seen = {name: self.read(*where) for name, where in REGISTERS.items() if name != "FRNUM"}
        seen["FRBASEADD"] = self.relative(seen["FRBASEADD"])
        seen["interrupt"] = self.interrupt()
        return seen

    def unfinished(self):
        return any(self.control_word(number) & ACTIVE for number in self.descriptors)

    # Time

    def running(self):
        return not self.read(USBSTS) & HALTED

    def pass_frames(self, count):
        raise NotImplementedError

    def until(self, condition, what, patience=5.0):
        end = time.monotonic() + patience
        while not condition():
            if time.monotonic() > end:
                raise NotQuiet(f"{self.name}: no {what}")
            self.pass_frames(1)

    # Hands: port 2 is empty, unless a program has something plugged in

    def plug(self, what="keyboard", place="2"):
        self.hands.plug(what, place)
        self.plugged.append(place)

    def unplug(self, place="2"):
        self.hands.unplug(place)
        self.plugged.remove(place)

    def press(self, key, place="2"):
        self.hands.key(key, True, place)

    def let_go(self, key, place="2"):
        self.hands.key(key, False, place)

    # What a driver does first

    def reset(self):
        """The controller as after HCRESET, halted; nothing in its schedule, nothing in port 2."""
        for place in reversed(list(self.plugged)):
            self.unplug(place)
        self.write(USBCMD, 0)
        self.write(USBCMD, HCRESET)
        self.until(lambda: not self.read(USBCMD) & HCRESET, "end of HCRESET")
        self.write(USBSTS, 0x1F)
        self.write(FRNUM, 0)
        for register in (PORTSC1, PORTSC2):
            self.write(register, PEC)
        self.forget()

    def run(self, interrupts=0xF):
        """Runs an empty schedule."""
        self.write(FRBASEADD, self.base + FRAME_LIST, 4)
        self.write(USBINTR, interrupts)
        self.write(USBCMD, RS)

    def enable_port(self, port=0):
        register = PORTSC1 + 2 * port
        self.write(register, PR)
        self.write(register, 0)
        self.write(register, PE | CSC | PEC)

    def configure(self, address=ADDRESS, port=0, configuration=1):
        """The device at the port is reset, gets its address and a configuration."""
        self.enable_port(port)
        self.address(address, configuration)

    def address(self, address, configuration=1):
        """The device at address 0 gets another one, and a configuration."""
        requests = [(0, struct.pack("<BBHHH", 0x00, 5, address, 0, 0)),
                    (address, struct.pack("<BBHHH", 0x00, 9, configuration, 0, 0))]
        packets = [(pid, target, length, setup) for target, setup in requests for pid, length in ((SETUP, 8), (IN, 0))]
        first, setups = OWN, OWN + 0x800
        for number, (pid, target, length, setup) in enumerate(packets):
            offset, data = first + 16 * number, setups + 8 * number
            self.qtest.memory[self.at(data):self.at(data) + 8] = setup
            self.put_word(offset, END if number == len(packets) - 1 else self.at(offset + 16) | DEPTH)
            self.put_word(offset + 8, token(pid, target, 0, length, pid == IN))
            self.put_word(offset + 12, self.at(data))
            self.put_word(offset + 4, ACTIVE | 3 << 27 | ACTLEN)
        head = OWN + 0x400
        self.put_word(head, END)
        self.put_word(head + 4, self.at(first))
        self.frame(self.at(head) | QUEUE)
        self.until(lambda: self.word(head + 4) & END, "configured device")
        self.frame(END)
        self.pass_frames(1)
        self.write(USBSTS, 0x1F)

    def ready(self):
        """Runs, with a configured device at port 1, nothing to do, and nothing reported."""
        self.reset()
        self.run()
        self.configure()


class QemuUhci(Controller):
    """QEMU's own, in virtual time: a frame passes when we say so."""

    name = "QEMU"
    LOOK = 16  # frames from one look to the next: time costs nothing here, and breadth first it does a packet in each

    def pass_frames(self, count):
        self.qtest.step(count * 1000 * 1000)


class Bulkhead(Controller):
    """Ours, in real time: we wait until its frame number has moved on."""

    name = "Bulkhead"
    LOOK = 2

    def pass_frames(self, count):
        if not self.running():
            return
        start, end = self.read(FRNUM), time.monotonic() + 5
        while (self.read(FRNUM) - start) % 2048 < count:
            if not self.running():
                return
            if time.monotonic() > end:
                raise NotQuiet(f"{self.name}: the frame number stands still")
            time.sleep(0.0005)
