#!/usr/bin/python3
"""A guest without a processor, for the peer: serves a device and is its driver, all in one process.

    processorless.py BULKHEAD DEVICE COMMAND [ARGUMENT...]

Starts `BULKHEAD serve --device DEVICE`, attaches to it, enumerates what is in the first port (by
tests/socket/uhci.py), and does what COMMAND says. Answers in lines "KEY=VALUE"; where it has to wait
for somebody, it says so first. How it ends: like the server does on SIGTERM.
"""

import contextlib
import hashlib
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "socket"))
import client  # noqa: E402
import uhci  # noqa: E402

PIECE = 64 << 10  # of a command
PACKETS = PIECE // 64
CHAINS = 0x200000  # where they are kept


def say(**values):
    for key, value in values.items():
        print(f"{key}={value}", flush=True)


def attached(path):
    """Between its bind() and its listen() a socket is there, and refuses."""
    for _ in range(200):
        with contextlib.suppress(ConnectionRefusedError):
            return client.Guest(path, memory_size=4 << 20)
        time.sleep(0.01)
    raise AssertionError("the server does not listen")


@contextlib.contextmanager
def served(bulkhead, device):
    """A guest attached to a server of its own. The server has to end well."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "socket")
        statistics = pathlib.Path(directory, "statistics")
        command = [bulkhead, "serve", "--socket-path", path, "--device", device, "--statistics", statistics]
        passed = [int(fd) for fd in re.findall(r"\bfd=(\d+)", device)]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=sys.stderr, pass_fds=passed)
        try:
            while not path.exists():
                assert server.poll() is None, "the server ended at once"
                time.sleep(0.01)
            with contextlib.closing(attached(path)) as guest:
                yield guest
            server.send_signal(signal.SIGTERM)
            say(status=server.wait(20))
            say(statistics=statistics.read_text().replace("\n", ""))
        finally:
            server.kill()
            server.wait()


def content(seed, size):
    return hashlib.shake_256(seed.encode()).digest(size)


class Controller(uhci.Uhci):
    """Keeps the chains of descriptors of whole pieces: making them takes longer than all the rest."""

    def __init__(self, guest):
        super().__init__(guest)
        self.chains = {}

    def bulk(self, address, endpoint, data=None, length=0, packet=64, **options):
        pid = uhci.PID_IN if data is None else uhci.PID_OUT
        if packet != 64 or (length if data is None else len(data)) != PIECE:
            return super().bulk(address, endpoint, data, length, packet, **options)
        toggle = self.toggles.get((address, endpoint, pid), 0)  # as many packets as leave it what it was
        if data is not None:
            self.write_memory(uhci.DATA, data)
        self.run_chain(self.chain(pid, address, endpoint, toggle), options.get("timeout", 20.0))
        return self.read_memory(uhci.DATA, PIECE) if data is None else None

    def chain(self, *key):
        """Where it is, all of it active again."""
        if key not in self.chains:
            pid, address, endpoint, toggle = key
            packets = [(pid, toggle ^ n & 1, 64, uhci.DATA + 64 * n) for n in range(PACKETS)]
            at, uhci.TDS = uhci.TDS, CHAINS + 32 * PACKETS * len(self.chains)
            self.build(packets, address, endpoint, False)
            self.chains[key], uhci.TDS = uhci.TDS, at
            first = self.chains[key] // 4 + 1
            self.active = bytes(self.words[first : first + 8 * PACKETS : 8])
        first = self.chains[key] // 4 + 1
        self.words[first : first + 8 * PACKETS : 8] = memoryview(self.active).cast("I")
        return self.chains[key]

    def run_chain(self, head, timeout):
        last, end = (head + 32 * (PACKETS - 1)) // 4 + 1, time.monotonic() + timeout
        self.words[uhci.QUEUE_HEAD // 4 + 1] = head
        try:
            while self.words[last] & uhci.TD_ACTIVE or self.words[uhci.QUEUE_HEAD // 4 + 1] == head:
                at = self.words[uhci.QUEUE_HEAD // 4 + 1]
                status = 0 if at & uhci.TERMINATE else self.words[(at & ~15) // 4 + 1]
                if status & uhci.TD_ERRORS:
                    raise uhci.TransferError(status)
                if time.monotonic() > end:
                    raise uhci.TimedOut("a piece")
                time.sleep(0.001)
        finally:
            self.words[uhci.QUEUE_HEAD // 4 + 1] = uhci.TERMINATE


def open_disk(controller):
    disk = uhci.Disk(controller.enumerate())
    disk.ready()
    return disk


def copy(guest, megabytes, seed="through"):
    """A disk is written, and read: how fast, and what came back."""
    disk, size = open_disk(Controller(guest)), int(megabytes) << 20
    data = content(seed, size)
    start = time.monotonic()
    for at in range(0, size, PIECE):
        disk.write(at // 512, data[at : at + PIECE])
    disk.flush()
    middle = time.monotonic()
    got = hashlib.sha256()
    for at in range(0, size, PIECE):
        got.update(disk.read(at // 512, PIECE // 512))
    end = time.monotonic()
    say(written=hashlib.sha256(data).hexdigest(), read=got.hexdigest(), write_kbs=int(size / 1000 / (middle - start)),
        read_kbs=int(size / 1000 / (end - middle)))


def lose(guest):
    """A disk is read until it fails, and again when it is back: how long was neither an error nor an answer?"""
    controller = uhci.Uhci(guest)
    disk = open_disk(controller)
    disk.read(0, 128)
    say(reading="now")
    last = time.monotonic()
    try:
        while True:
            disk.read(0, 128)
            last = time.monotonic()
    except (uhci.TransferError, uhci.TimedOut) as error:
        say(lost_after=f"{time.monotonic() - last:.2f}", error=type(error).__name__)
    controller.until(lambda: not controller.connected(0), "it to be gone", 10)
    say(gone=f"{time.monotonic() - last:.2f}")
    controller.put(controller.port(0), uhci.PORT_CHANGE)
    controller.toggles.clear()
    controller.wait_connected(0, 60)
    data = open_disk(controller).read(0, 128)
    say(back=hashlib.sha256(data).hexdigest())


def zero(guest, rounds):
    """Linux's gadget zero: its source and its loopback, and a cancel or two."""
    controller = uhci.Uhci(guest)
    device = controller.enumerate()
    source = next(e for e in device.endpoints if e & 0x80) & 15
    sink = next(e for e in device.endpoints if not e & 0x80)
    for n in range(int(rounds)):
        size = (64, 128, 512, 4096, 16384, 20032)[n % 6]
        got = controller.bulk(device.address, source, length=size)
        assert got == bytes(size), f"the source gave {len(got)} of {size} bytes"
        controller.bulk(device.address, sink, data=bytes(size - n % 5))
    controller.control(device.address, 0x00, 9, 2)  # loopback
    controller.toggles.clear()
    for n in range(int(rounds)):
        data = content(str(n), (60, 100, 1000, 4096)[n % 4])  # it waits for a short packet, or for 4096 bytes
        controller.bulk(device.address, sink, data=data)
        assert controller.bulk(device.address, source, length=len(data)) == data
    try:
        controller.bulk(device.address, source, length=4096, timeout=0.5)
        raise AssertionError("there was something where nothing was sent")
    except uhci.TimedOut:
        pass
    controller.let_go()
    time.sleep(0.1)
    controller.bulk(device.address, sink, data=b"x" * 100)
    assert controller.bulk(device.address, source, length=4096) == b"x" * 100
    say(rounds=rounds)


def serial(guest, there, megabytes):
    """What is written to a CDC-ACM line comes out at `there`, a terminal of this machine, and the other way."""
    controller = uhci.Uhci(guest)
    device = controller.enumerate()
    bulk = [e for e in device.endpoints if device.endpoints[e] == 64]
    receiving, sending = next(e for e in bulk if e & 0x80) & 15, next(e for e in bulk if not e & 0x80)
    controller.control(device.address, 0x21, 0x22, 3)  # DTR, RTS
    subprocess.run(["stty", "-F", there, "raw", "-echo"], check=True)
    with open(there, "r+b", buffering=0) as line:
        for n in range(int(megabytes) << 4):
            data = content(str(n), 4096)
            line.write(data)
            got = b""
            while len(got) < len(data):
                got += controller.bulk(device.address, receiving, length=1024)
            assert got == data, "from the device"
            controller.bulk(device.address, sending, data=data)
            got = b""
            while len(got) < len(data):
                got += line.read(len(data) - len(got))
            assert got == data, "to the device"
    say(megabytes=megabytes)


def main(bulkhead, device, command, *arguments):
    with served(bulkhead, device) as guest:
        {"copy": copy, "lose": lose, "zero": zero, "serial": serial}[command](guest, *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
