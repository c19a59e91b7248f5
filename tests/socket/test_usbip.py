"""--device usbip against a server that does what we want it to: refuse, hang, lie, fall silent, come back.

Its device sends back what it is sent (endpoint 1), and never answers on endpoint 2. What a sensible
server does is in test_export.py.
"""

import contextlib
import json
import select
import socket
import struct
import subprocess
import threading
import time

import net
import pytest

import uhci
from conftest import BINARY

REQ_DEVLIST, REQ_IMPORT = 0x8005, 0x8003
CMD_SUBMIT, CMD_UNLINK, RET_SUBMIT, RET_UNLINK = 1, 2, 3, 4
FULL, HIGH = 2, 3
EPIPE, ECONNRESET = -32, -104
DEVICE = struct.pack("<BBHBBBBHHHBBBB", 18, 1, 0x200, 0xFF, 0, 0, 64, 0x1209, 0xB0B0, 0x100, 0, 0, 0, 1)
ENDPOINTS = b"".join(struct.pack("<BBBBHB", 7, 5, address, 2, 64, 0) for address in (0x81, 0x01, 0x82))
CONFIGURATION = struct.pack("<BBHBBBBB", 9, 2, 18 + len(ENDPOINTS), 1, 1, 0, 0x80, 50) + struct.pack(
    "<BBBBBBBBB", 9, 4, 0, 0, 3, 0xFF, 0, 0, 0) + ENDPOINTS
LATEST = 5  # seconds until a guest has to notice that the other side is gone


class UsbipServer:
    """Listens at `address`; `statuses` is what imports are answered with, then 0. `received` is every command."""

    def __init__(self, listener=None, statuses=(), speed=FULL, path=b"/sys/1-1"):
        self.listener = listener or socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self.listener.getsockname())
        self.statuses, self.speed, self.path = list(statuses), speed, path
        self.received, self.imports, self.kept = [], 0, b""
        self.junk = None
        self.connection = None
        self.ended = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def close(self):
        self.ended = True
        self.hang_up()
        self.listener.close()
        self.thread.join(10)

    def hang_up(self):
        with contextlib.suppress(OSError, AttributeError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def run(self):
        while not self.ended:
            if not select.select([self.listener], [], [], 0.1)[0]:
                continue
            with contextlib.suppress(OSError, EOFError):
                self.connection = self.listener.accept()[0]
                with self.connection:
                    self.serve()

    def take(self, size):
        data = b""
        while len(data) < size:
            more = self.connection.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def device(self):
        return struct.pack(">256s32sIIIHHHBBBBBB", self.path, b"1-1", 1, 4, self.speed, 0x1209, 0xB0B0, 0x100,
                           0, 0, 0, 1, 1, 1)

    def serve(self):
        version, code, _ = struct.unpack(">HHI", self.take(8))
        assert version == 0x0111
        if code == REQ_DEVLIST:
            self.connection.sendall(struct.pack(">HHII", version, 5, 0, 1) + self.device() + bytes([8, 6, 80, 0]))
            return
        assert code == REQ_IMPORT and self.take(32).rstrip(b"\0") == b"1-1"
        status = self.statuses.pop(0) if self.statuses else 0
        self.connection.sendall(struct.pack(">HHI", version, 3, status) + (b"" if status else self.device()))
        if status:
            return
        self.imports += 1
        while True:
            self.command(self.take(48))
            if self.junk:
                self.connection.sendall(self.junk)

    def command(self, message):
        command, seqnum, devid, to_host, endpoint = struct.unpack_from(">IIIII", message)
        assert devid == 1 << 16 | 4
        self.received.append((command, endpoint))
        if command == CMD_UNLINK:
            self.connection.sendall(struct.pack(">IIIIIi24x", RET_UNLINK, seqnum, 0, 0, 0, ECONNRESET))
            return
        length = struct.unpack_from(">I", message, 24)[0]
        if endpoint == 2:
            return
        status, data = self.submit(endpoint, to_host, length, message[40:48], b"" if to_host else self.take(length))
        self.connection.sendall(struct.pack(">IIIIIiIIII8x", RET_SUBMIT, seqnum, 0, 0, 0, status,
                                            len(data) if to_host else length, 0, 0, 0) + data)

    def submit(self, endpoint, to_host, length, setup, data):
        if endpoint == 1 and to_host:
            data, self.kept = self.kept[:length], self.kept[length:]
            return 0, data
        if endpoint == 1:
            self.kept += data
            return 0, b""
        kind, request, value, _, _ = struct.unpack("<BBHHH", setup)
        if (kind, request) == (0x80, 6) and value >> 8 in (1, 2):
            return 0, (DEVICE if value >> 8 == 1 else CONFIGURATION)[:length]
        return (0 if (kind, request) in ((0, 9), (2, 1)) else EPIPE), b""

    def wait_received(self, command, timeout=10):
        end = time.monotonic() + timeout
        while command not in self.received:
            assert time.monotonic() < end, f"no {command} in {self.received}"
            time.sleep(0.005)


@pytest.fixture
def there():
    """Makes such servers."""
    with contextlib.ExitStack() as stack:
        def begin(**arguments):
            server = UsbipServer(**arguments)
            stack.callback(server.close)
            return server
        yield begin


def begin(start, there, more="", **arguments):
    server = start(image=None, options=["--device", f"usbip,host={there.address},busid=1-1{more}"], **arguments)
    return server, server.guest()


def use(controller):
    """Enumerates it anew, and has it send something back."""
    controller.put(controller.port(0), uhci.PORT_CHANGE)
    device = controller.enumerate()
    controller.bulk(device.address, 1, data=bytes(range(200)))
    assert controller.bulk(device.address, 1, length=256) == bytes(range(200))
    return device


def test_what_is_sent_comes_back(start, there):
    usbip = there()
    server, guest = begin(start, usbip)
    with guest:
        controller = uhci.Uhci(guest)
        device = use(controller)
        assert device.descriptor == DEVICE and device.configuration == CONFIGURATION
        with pytest.raises(uhci.TransferError) as stall:
            controller.control(device.address, 0xC0, 1, length=8)
        assert stall.value.stalled
    server.wait_log("usbip " + usbip.address + " 1-1: 1209:b0b0 is there (full speed)")


def test_what_the_guest_gives_up_is_unlinked(start, there):
    usbip = there()
    _, guest = begin(start, usbip)
    with guest:
        controller = uhci.Uhci(guest)
        device = use(controller)
        for _ in range(3):
            with pytest.raises(uhci.TimedOut):
                controller.bulk(device.address, 2, length=64, timeout=0.2)
            usbip.wait_received((CMD_UNLINK, 0))
            usbip.received.clear()
        controller.toggles.clear()
        use(controller)


def test_who_refuses_is_asked_until_he_does_not(start, there):
    usbip = there(statuses=[4, 4, 4, 2])
    server, guest = begin(start, usbip)
    with guest:
        controller = uhci.Uhci(guest)
        controller.wait_connected(timeout=20)
        use(controller)
    assert len(server.log_lines("the server does not give us the device: no such device is exported")) == 1
    assert len(server.log_lines("in use by another client")) == 1


def test_too_fast_a_device_is_given_back(start, there):
    usbip = there(speed=HIGH)
    server, guest = begin(start, usbip, ",translate=off")
    with guest:
        server.wait_log("runs at high speed, which the guest's full-speed port cannot carry")
        uhci.Uhci.until(lambda: usbip.connection.fileno() < 0, "the connection to be closed")
        assert not uhci.Uhci(guest).connected(0)
        assert usbip.imports == 1


def test_too_fast_a_device_is_translated(start, there):
    server, guest = begin(start, there(speed=HIGH))
    with guest:
        server.wait_log("runs at high speed: it is translated")
        controller = uhci.Uhci(guest)
        controller.wait_connected(timeout=20)
        use(controller)


def test_a_lost_device_comes_back(start, there):
    usbip = there()
    _, guest = begin(start, usbip)
    with guest:
        controller = uhci.Uhci(guest)
        for imports in range(1, 4):
            controller.wait_connected(timeout=10)
            use(controller)
            assert usbip.imports == imports
            usbip.hang_up()
            controller.until(lambda: usbip.imports > imports or not controller.connected(0), "it to be gone")


def test_a_silent_link_is_noticed(start, there):
    try:
        with net.Link() as link:
            listener = link.far.socket()
            listener.bind((link.far.address, 0))
            listener.listen()
            usbip = there(listener=listener)
            server, guest = begin(start, usbip, within=link.near.command())
            with guest:
                controller = uhci.Uhci(guest)
                use(controller)
                link.cut()
                gone = time.monotonic()
                controller.until(lambda: not controller.connected(0), "it to be gone", LATEST + 1)
                assert time.monotonic() - gone < LATEST
                link.restore()
                usbip.hang_up()
                controller.wait_connected(timeout=20)
                use(controller)
            server.finish()
    except net.NetError as error:
        pytest.skip(str(error))


def test_who_lies_is_dropped_and_said_so_once(start, there):
    usbip = there()
    server, guest = begin(start, usbip)
    with guest:
        controller = uhci.Uhci(guest)
        use(controller)
        usbip.junk = struct.pack(">II40x", RET_SUBMIT, 0xDEAD)
        with contextlib.suppress(uhci.TransferError, uhci.TimedOut):
            controller.descriptor(5, 1, 18)
        uhci.Uhci.until(lambda: usbip.imports > 3, "it to be tried again", 20)
        usbip.junk = None
        controller.wait_connected(timeout=20)
        use(controller)
    assert 1 <= len(server.log_lines("a result came that nobody asked for")) <= 2
    assert server.serves()


def listed(*arguments):
    return subprocess.run([BINARY, "devices", "--usbip", *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=20, check=False)


def test_what_a_server_exports(there):
    usbip = there(path=b"/sys/\x1b[31m\n\xff")
    run = listed(usbip.address)
    option = f"--device usbip,host={usbip.address},busid=1-1"
    assert run.returncode == 0 and run.stderr == ""
    assert run.stdout.splitlines() == ["1-1        1209:b0b0  full    class 08  /sys/?[31m??", " " * 11 + option]
    devices = json.loads(listed(usbip.address, "--json").stdout)["devices"]
    assert [device["device"] for device in devices] == [option.removeprefix("--device ")]


def test_a_server_that_is_none():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = "{}:{}".format(*listener.getsockname())
    run = listed(address)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == f"bulkhead: {address}: there is no connection (Connection refused)\n"
    run = listed("::1")
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and "is no address" in run.stderr


@pytest.mark.parametrize("device, wrong", [
    ("usbip", "say host=HOST[:PORT] and busid=BUSID"),
    ("usbip,host=h", "say host=HOST[:PORT] and busid=BUSID"),
    ("usbip,host=::1,busid=1-1", "host=::1: is no address"),
    (f"usbip,host=h,busid={'1' * 32}", "is none"),
    ("usbip,host=h,busid=1-1,port=x", "x"),
])
def test_what_is_wrong_is_said(device, wrong, tmp_path):
    run = subprocess.run([BINARY, "serve", "--socket-path", tmp_path / "s", "--device", device], stdin=subprocess.DEVNULL,
                         capture_output=True, text=True, timeout=20, check=False)
    assert run.returncode == 2 and wrong in run.stderr and run.stderr.count("\n") == 1, run.stderr
