"""A machine without a processor: QEMU's qtest accelerator, driven line by line over a socket.

Ports and PCI configuration are reached with in* and out*, the virtual clock is moved on with
clock_step, and interrupt lines that are intercepted come as lines of their own between the answers.
Guest memory is mapped here too: what a driver would do to a descriptor is done in place, as it would.
"""

import os
import select
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "vm"))
import lab  # noqa: E402

CONFIG_ADDRESS, CONFIG_DATA = 0xCF8, 0xCFC
MEMORY = 32  # MB
PATIENCE = 20.0  # seconds for an answer


class Qtest:
    """One QEMU; `arguments` are its devices. A context manager."""

    def __init__(self, directory, arguments):
        self.directory = directory
        self.arguments = arguments
        self.lines = {}  # of an intercepted device: number: level
        self.pending = b""

    def __enter__(self):
        path = self.directory / "qtest.sock"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(PATIENCE)
        ram = f"memory-backend-memfd,id=ram,size={MEMORY}M,share=on"
        log, self.log = lab.open_log("qtest")
        with log:
            self.process = lab._start(
                [lab.TOP / "tools" / "qemu", "-accel", "qtest", "-qtest", f"unix:{path}", "-qtest-log", "/dev/null",
                 "-m", str(MEMORY), "-object", ram, "-machine", "pc,memory-backend=ram", "-nodefaults",
                 "-no-user-config", "-display", "none", *self.arguments], stdout=log, stderr=log)
        try:
            self.socket, _ = listener.accept()
            self.socket.settimeout(PATIENCE)
            self.command("endianness")  # answered when the machine stands; before that there is no memory
            self.memory = lab.GuestMemory(self.process).bytes
        except (OSError, lab.LabError) as e:
            lab._kill(self.process)
            raise lab.LabError(f"QEMU did not come up ({e})\n" + lab.tail(self.log)) from None
        finally:
            listener.close()
        return self

    def __exit__(self, *_):
        lab._kill(self.process)
        self.socket.close()

    # The protocol

    def _line(self):
        while b"\n" not in self.pending:
            try:
                data = self.socket.recv(65536)
            except OSError as e:
                raise lab.LabError(f"QEMU does not answer ({e})\n" + lab.tail(self.log)) from None
            if not data:
                raise lab.LabError("QEMU is gone\n" + lab.tail(self.log))
            self.pending += data
        line, self.pending = self.pending.split(b"\n", 1)
        return line.decode().split()

    def _is_event(self, words):
        if words[0] != "IRQ":
            return False
        self.lines[int(words[2])] = words[1] == "raise"
        return True

    def command(self, text):
        """The words of the answer after OK."""
        self.socket.sendall(text.encode() + b"\n")
        while self._is_event(words := self._line()):
            pass
        if words[0] != "OK":
            raise lab.LabError(f"qtest: '{text}' was answered with '{' '.join(words)}'")
        return words[1:]

    def events(self):
        """Takes in what came without being asked for."""
        while b"\n" in self.pending or select.select([self.socket], [], [], 0)[0]:
            words = self._line()
            if not self._is_event(words):
                raise lab.LabError(f"qtest said '{' '.join(words)}' without being asked")

    def level(self, line):
        self.events()
        return self.lines.get(line, False)

    # Ports, configuration space, time

    def get(self, port, size):
        return int(self.command(f"in{'bwl'[size >> 1]} {port:#x}")[0], 16)

    def put(self, port, size, value):
        self.command(f"out{'bwl'[size >> 1]} {port:#x} {value:#x}")

    def config_get(self, slot, offset, size, function=0):
        self.put(CONFIG_ADDRESS, 4, 1 << 31 | slot << 11 | function << 8 | offset & ~3)
        return self.get(CONFIG_DATA + (offset & 3), size)

    def config_put(self, slot, offset, size, value, function=0):
        self.put(CONFIG_ADDRESS, 4, 1 << 31 | slot << 11 | function << 8 | offset & ~3)
        self.put(CONFIG_DATA + (offset & 3), size, value)

    def step(self, nanoseconds):
        self.command(f"clock_step {nanoseconds}")
