"""From end to end without a virtual machine: a guest, `serve` with a client, `export` with a device behind it.

The two are programs of their own, over TCP, by each of the protocols; what is between them is cut,
stopped and started again.
"""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time

import pytest

import uhci
from conftest import BINARY

MEGABYTES = 16
PIECE = 64 << 10
PROTOCOLS = ("usbip", "usbredir")


class Export:
    """`bulkhead export` with these devices; `address` is where it listens."""

    def __init__(self, protocol, *devices, address="127.0.0.1:0", statistics=None):
        self.protocol = protocol
        command = [BINARY, "export", "--protocol", protocol, "--listen", address]
        for device in devices:
            command += ["--device", device]
        if statistics:
            command += ["--statistics", statistics]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)
        line = self.process.stdout.readline()
        assert "exporting at" in line, line + self.process.stderr.read()
        self.address = line.split()[3]

    def client(self, busid="1-1"):
        """What `serve` is to be told to have the device."""
        if self.protocol == "usbip":
            return f"usbip,host={self.address},busid={busid}"
        return f"usbredir,address={self.address}"

    def stop(self):
        self.process.terminate()
        status = self.process.wait(20)
        return status, self.process.stderr.read()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def content():
    return os.urandom(MEGABYTES << 20)


@pytest.fixture
def image(tmp_path, content):
    path = tmp_path / "exported.img"
    path.write_bytes(bytes(len(content)))
    return path


@pytest.fixture
def serve(start):
    """Starts a server with that device; a guest."""
    servers = []
    with contextlib.ExitStack() as stack:
        def begin(device):
            server = start(image=None, options=["--device", device], name=f"server{len(servers)}")
            servers.append(server)
            return server, stack.enter_context(server.guest())
        yield begin


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_sixteen_megabytes_each_way(protocol, serve, image, content):
    with Export(protocol, f"disk,file={image}") as export:
        server, guest = serve(export.client())
        disk = uhci.open_disk(guest)
        for at in range(0, len(content), PIECE):
            disk.write(at // 512, content[at : at + PIECE])
        disk.flush()
        got = hashlib.sha256()
        for at in range(0, len(content), PIECE):
            got.update(disk.read(at // 512, PIECE // 512))
        assert got.digest() == hashlib.sha256(content).digest()
        guest.close()
        status, said = export.stop()
    assert status == 0, said
    assert image.read_bytes() == content


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("how", ["killed", "ended"])
def test_a_peer_that_goes_in_mid_transfer_is_noticed_and_comes_back(protocol, how, serve, image):
    with Export(protocol, f"disk,file={image}") as export:
        server, guest = serve(export.client())
        disk = uhci.open_disk(guest)
        disk.read(0, 128)
        export.process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGTERM)
        gone = time.monotonic()
        with pytest.raises((uhci.TransferError, uhci.TimedOut)):
            while True:
                disk.read(0, 128)
        controller = disk.uhci
        controller.until(lambda: not controller.connected(0), "it to be gone", 5)
        assert time.monotonic() - gone < 5
        export.process.wait(10)
        with Export(protocol, f"disk,file={image}", address=export.address):
            controller.put(controller.port(0), uhci.PORT_CHANGE)
            again = uhci.Disk(controller.enumerate())
            again.ready()
            assert again.read(0, 128) == bytes(PIECE)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_device_serves_one_client_after_another(protocol, serve, image):
    with Export(protocol, f"disk,file={image}") as export:
        for n in range(3):
            server, guest = serve(export.client())
            disk = uhci.open_disk(guest)
            disk.write(n, bytes([n + 1]) * 512)
            disk.flush()
            guest.close()
            server.process.terminate()
            assert server.process.wait(20) == 0
        server, guest = serve(export.client())
        assert uhci.open_disk(guest).read(0, 3) == b"".join(bytes([n + 1]) * 512 for n in range(3))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_zero_keeps_its_settings_and_its_halts(protocol, serve):
    with Export(protocol, "zero,pattern=1") as export:
        server, guest = serve(export.client())
        controller = uhci.Uhci(guest)
        device = controller.enumerate()
        pattern = bytes(i % 64 % 63 for i in range(4096))
        assert controller.bulk(device.address, 1, length=4096) == pattern
        controller.bulk(device.address, 1, data=pattern)
        with pytest.raises(uhci.TransferError) as stall:  # clears the halt, too
            controller.bulk(device.address, 1, data=b"x" * 128)
        assert stall.value.stalled
        controller.bulk(device.address, 1, data=pattern)
        controller.control(device.address, 0x01, 11, 2, 0)  # alternate setting 2: interrupt endpoints
        controller.toggles.clear()
        assert controller.bulk(device.address, 3, length=64) == pattern[:64]
        controller.bulk(device.address, 3, data=pattern[:64])
        controller.control(device.address, 0x00, 9, 2)  # loopback
        controller.toggles.clear()
        controller.bulk(device.address, 1, data=b"there and back")
        assert controller.bulk(device.address, 1, length=64) == b"there and back"
        assert controller.control(device.address, 0x80, 8, length=1) == b"\2"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_interrupt_source_that_never_rests_is_paced(protocol, serve, tmp_path):
    """One report an interval, whoever asks how often."""
    statistics = tmp_path / "statistics.json"
    with Export(protocol, "zero,interrupt-interval=20", statistics=statistics) as export:
        server, guest = serve(export.client())
        controller = uhci.Uhci(guest)
        device = controller.enumerate()
        controller.control(device.address, 0x01, 11, 2, 0)
        begin, count = time.monotonic(), 0
        while time.monotonic() - begin < 1:
            controller.bulk(device.address, 3, length=64)
            count += 1
        guest.close()
        export.stop()
    asked = json.loads(statistics.read_text())["devices"][0]["interrupt"]["packets_in"]
    assert count <= 60 and asked <= 120


def test_several_devices_are_told_apart(serve, image):
    with Export("usbip", f"disk,file={image}", "zero", "hid,kind=mouse") as export:
        for busid, product in (("1-2", 0xA4A0), ("1-1", 0x0001), ("1-3", 0x0003)):
            server, guest = serve(export.client(busid))
            device = uhci.Uhci(guest).enumerate()
            assert int.from_bytes(device.descriptor[10:12], "little") == product, busid
        server, guest = serve(export.client("1-4"))
        server.wait_log("no such device is exported")


def test_a_device_that_somebody_has_is_busy(serve, image):
    with Export("usbip", f"disk,file={image}") as export:
        server, guest = serve(export.client())
        uhci.open_disk(guest)
        other, second = serve(export.client())
        other.wait_log("in use by another client")


@pytest.mark.parametrize("arguments, wrong", [
    (["--protocol", "usb", "--listen", "127.0.0.1:0", "--device", "zero"], "say usbredir or usbip"),
    (["--protocol", "usbip", "--device", "zero"], "say where to listen"),
    (["--protocol", "usbip", "--listen", "127.0.0.1:0"], "say what to export"),
    (["--protocol", "usbip", "--listen", "nowhere", "--device", "zero"], "is no address"),
    (["--protocol", "usbip", "--listen", "192.0.2.1:1", "--device", "zero"], "no address of this host"),
    (["--protocol", "usbip", "--listen", "127.0.0.1:0", "--device", "hub"], "a hub cannot be exported"),
    (["--protocol", "usbip", "--listen", "127.0.0.1:0", "--device", "zero,port=1"], "port= is for 'bulkhead serve'"),
    (["--protocol", "usbip", "--listen", "127.0.0.1:0", "--device", "nothing"], "no device 'nothing'"),
    (["--protocol", "usbredir", "--listen", "127.0.0.1:0", "--device", "zero", "--device", "zero"], "one device"),
    (["--protocol", "usbip", "--fd", "0", "--device", "zero"], "no socket that listens"),
    (["--frob"], "unknown option"),
    (["--protocol"], "needs a value"),
])
def test_what_is_wrong_is_said_in_one_line(arguments, wrong):
    run = subprocess.run([BINARY, "export", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20,
                         check=False)
    assert run.returncode == 2 and wrong in run.stderr and run.stderr.count("\n") == 1, run.stderr


def test_statistics_replace_no_disk(image):
    run = subprocess.run([BINARY, "export", "--protocol", "usbip", "--listen", "127.0.0.1:0", "--device", f"disk,file={image}",
                          "--statistics", image], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    assert run.returncode == 2 and "is the file of a disk" in run.stderr
    assert image.stat().st_size == MEGABYTES << 20


def test_a_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not(tmp_path):
    address = f"unix:{tmp_path}/export.sock"
    with Export("usbip", "zero", address=address) as first:
        run = subprocess.run([BINARY, "export", "--protocol", "usbip", "--listen", address, "--device", "zero"],
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
        assert run.returncode == 2 and run.stderr.count("\n") == 1
        first.process.kill()
        first.process.wait()
        with Export("usbip", "zero", address=address) as second:
            assert second.stop()[0] == 0
    assert not (tmp_path / "export.sock").exists()
