"""What we export, used by others: by QEMU's own usb-redir, and by Linux's vhci-hcd with the usbip program."""

import hashlib
import os
import re
import time

import lab
import peer
import pytest

LONG = os.environ.get("BULKHEAD_TEST_LONG") == "1"
MEGABYTES = 16 if LONG else 4  # each way
SIZE = 2 * MEGABYTES

# Reads the first half of the disk, and writes it to the second.
COPY = f"""
. /bh.sh
modprobe xhci_pci 2>/dev/null # init loads the older ones
wait_for /dev/sda || exit 1
say size=$(cat /sys/block/sda/size)
timed read dd if=/dev/sda of=/tmp/data bs=64k count={16 * MEGABYTES} iflag=direct status=none || exit 1
say sum=$(sha256sum </tmp/data | cut -d ' ' -f 1)
timed write dd if=/tmp/data of=/dev/sda bs=64k seek={16 * MEGABYTES} oflag=direct conv=fsync status=none || exit 1
"""


class Export:
    """`bulkhead export`; `port` is where it listens, at this machine's 127.0.0.1."""

    def __init__(self, protocol, *devices):
        self.command = [lab.bulkhead_binary(), "export", "--protocol", protocol, "--listen", "127.0.0.1:0"]
        for device in devices:
            self.command += ["--device", device]

    def __enter__(self):
        log, self.log = lab.open_log("export")
        with log:
            self.process = lab._start(self.command, stdout=log, stderr=log)
        self.port = int(self.said(r"exporting at 127\.0\.0\.1:(\d+)"))
        return self

    def said(self, pattern, seconds=10):
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.log.read_text())):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise lab.LabError(f"bulkhead export did not say {pattern!r}\n{lab.tail(self.log)}")
            time.sleep(0.01)
        return found[1] if found.groups() else found[0]

    def stop(self):
        """It has to end well, with everything on the disk."""
        self.process.terminate()
        status = self.process.wait(20)
        assert status == 0, lab.tail(self.log)

    def __exit__(self, *exc):
        lab._kill(self.process)


class RedirectedDevice:
    """For run_guest: a controller of QEMU's, and on it what a usbredir server has."""

    name = "usb-redir"

    def __init__(self, controller, port):
        self.args = ["-device", f"{controller},id=usb", "-chardev", f"socket,id=redir,host=127.0.0.1,port={port}",
                     "-device", "usb-redir,bus=usb.0,chardev=redir"]

    def check_alive(self):
        pass


@pytest.fixture
def content():
    return os.urandom(SIZE << 20)


@pytest.fixture
def image(tmp_path, content):
    path = tmp_path / "exported.img"
    path.write_bytes(content)
    return path


@pytest.fixture
def half(content):
    return content[: MEGABYTES << 20]


@pytest.mark.parametrize("controller", ["piix3-usb-uhci", "qemu-xhci"])
def test_qemu_copies_through_usb_redir(controller, image, half):
    with Export("usbredir", f"disk,file={image}") as export:
        run = lab.run_guest(COPY, RedirectedDevice(controller, export.port), timeout=900)
        export.stop()
    assert run.values["size"] == str(SIZE * 2048)
    assert run.values["sum"] == hashlib.sha256(half).hexdigest()
    assert image.read_bytes() == half * 2
    print(controller, run.values)


@pytest.fixture(scope="module")
def machine():
    """Linux with vhci-hcd, and the usbip program."""
    with peer.Peer() as p:
        p.kernel("modprobe -a vhci_hcd usb_storage usbhid hid_generic evdev cdc_acm || exit 1")
        yield p


def attach(machine, export, busid):
    machine.run(f"usbip --tcp-port {export.port} attach -r {peer.HOST} -b {busid}")


def test_linux_lists_and_copies_through_usbip(machine, image, half):
    with Export("usbip", f"disk,file={image}", "zero") as export:
        listed = machine.run(f"usbip --tcp-port {export.port} list -r {peer.HOST}")
        assert "1-1:" in listed and "1-2:" in listed and "0525:a4a0" in listed
        attach(machine, export, "1-1")
        machine.kernel("""
tries=400
until disk=$(ls -d /sys/bus/usb/devices/*/*/host*/target*/*/block/* 2>/dev/null) && [ "$(cat $disk/size)" -gt 0 ]; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || exit 1
    usleep 50000
done
echo /dev/${disk##*/} >/tmp/disk""", 60)
        begin = time.monotonic()
        machine.run(f"dd if=$(cat /tmp/disk) of=/tmp/data bs=64k count={16 * MEGABYTES} iflag=direct status=none", 300)
        read = time.monotonic()
        assert machine.run("sha256sum </tmp/data").split()[0] == hashlib.sha256(half).hexdigest()
        again = time.monotonic()
        machine.run(f"dd if=/tmp/data of=$(cat /tmp/disk) bs=64k seek={16 * MEGABYTES} oflag=direct conv=fsync status=none", 300)
        print(f"usbip: read {MEGABYTES / (read - begin):.1f} MB/s, write {MEGABYTES / (time.monotonic() - again):.1f} MB/s")
        attach(machine, export, "1-2")
        assert machine.busid("0525:a4a0")
        machine.run("usbip detach -p 0; usbip detach -p 1")
        export.said("1-1: its client is gone")
        attach(machine, export, "1-1")  # it can be had again
        assert machine.busid("1209:0001")
        machine.run("usbip detach -p 0")
        export.stop()
    assert image.read_bytes() == half * 2


def test_linux_hears_keys_and_lines_through_usbip(machine, tmp_path):
    keys, line = tmp_path / "keys", tmp_path / "line"
    os.mkfifo(keys)
    devices = f"hid,kind=keyboard,file={keys}", f"serial,pty={line}"
    with Export("usbip", *devices) as export, open(os.open(keys, os.O_RDWR), "w") as typing:
        attach(machine, export, "1-1")
        attach(machine, export, "1-2")
        machine.busid("1209:0002")
        machine.busid("1209:0006")
        machine.run("""
tries=200
until event=$(grep -l '^Bulkhead Keyboard$' /sys/class/input/event*/device/name) && [ -e /dev/ttyACM0 ]; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || exit 1
    sleep 0.05
done
event=${event%/device/name}
(timeout 30 head -c 48 /dev/input/${event##*/} | od -An -v -tu2 -w24 >/tmp/keys.new; mv /tmp/keys.new /tmp/keys) >/dev/null 2>&1 &
until ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q "/dev/input/${event##*/}"; do sleep 0.05; done""", 60)
        typing.write("type x\n")
        typing.flush()
        machine.run("until [ -e /tmp/keys ]; do sleep 0.05; done", 40)
        words = [row.split() for row in machine.run("cat /tmp/keys").splitlines()]
        assert ["1", "45"] in [row[8:10] for row in words], words  # EV_KEY, KEY_X

        terminal = os.open(line, os.O_RDWR | os.O_NOCTTY)
        try:
            machine.run("stty -F /dev/ttyACM0 raw -echo; echo from Linux >/dev/ttyACM0")
            assert os.read(terminal, 64).startswith(b"from Linux")
            os.write(terminal, b"from here\n")
            assert machine.run("timeout 20 head -n 1 </dev/ttyACM0") == "from here\n"
        finally:
            os.close(terminal)
        machine.run("usbip detach -p 0; usbip detach -p 1")
        export.stop()
