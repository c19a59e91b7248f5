"""The peer itself, with nothing of ours in it: what Linux, usbip, usbredirect and QEMU say of its devices.

How they fare with each other is what our own clients and exports are compared with.
"""

import errno
import hashlib
import os
import socket
import struct

import lab
import net
import peer
import pytest

KERNELS = ["bookworm", "trixie"] if "BULKHEAD_TEST_LONG" in os.environ else ["bookworm"]
MEGABYTES = 1
VUDC_PORT, VUDC_DISK = 3241, "0525:b001"
OP_REQ_DEVLIST = struct.pack(">HHI", 0x0111, 0x8005, 0)
HELLO = 0

# The first disk of a kind: its node, once it can be read.
DISK = """
disk_of() {
    tries=200
    until disk=$(ls -d /sys/bus/usb/devices/$1:1.0/host*/target*/*/block/* 2>/dev/null) && [ "$(cat $disk/size)" -gt 0 ]; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        usleep 50000
    done
    echo "/dev/${disk##*/}"
}
"""


@pytest.fixture(scope="module")
def content():
    return os.urandom(MEGABYTES << 20)


@pytest.fixture(scope="module")
def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module", params=KERNELS)
def there(content, request):
    with lab.scratch("peer-disk-") as directory:
        image = directory / "image"
        image.write_bytes(content)
        gadgets = [peer.mass_storage(image), peer.acm(), peer.zero(), peer.mass_storage(image, udc=peer.VUDC, identity=VUDC_DISK)]
        with peer.Peer(gadgets, kernel=request.param, forward=[peer.USBIP, peer.USBREDIR, VUDC_PORT]) as p:
            yield p


@pytest.fixture(scope="module", params=KERNELS)
def hardware(content, request):
    """A peer with QEMU's devices, at either speed."""
    with lab.scratch("peer-disk-") as directory:
        devices = [*peer.UHCI, *peer.EHCI, "-chardev", "null,id=null", "-audiodev", "none,id=silence"]
        for name, bus in ("slow", "usb1.0"), ("fast", "usb2.0"):
            (directory / name).write_bytes(content)
            devices.append(peer.qemu_disk(name, directory / name, bus, port="1"))
        devices += ["-device", "usb-serial,bus=usb1.0,chardev=null,always-plugged=on", "-device", "usb-kbd,bus=usb2.0",
                    "-device", "usb-audio,bus=usb1.0,audiodev=silence"]
        with peer.Peer([peer.mass_storage()], devices, speed="high", kernel=request.param, udev=True) as p:
            yield p


class RedirectedDevice:
    """For run_guest: QEMU's own UHCI, and on it what a usbredir server has."""

    name = "usb-redir"

    def __init__(self, port):
        self.args = ["-chardev", f"socket,id=redir,host=127.0.0.1,port={port}", "-device", "piix3-usb-uhci,id=uhci",
                     "-device", "usb-redir,bus=uhci.0,chardev=redir"]

    def check_alive(self):
        pass


def receive(connection, size):
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        assert more, f"the connection ended after {data!r}"
        data += more
    return data


def exported(port):
    """What a USB/IP server has: {busid: (vendor, product)}."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(OP_REQ_DEVLIST)
        version, code, status, count = struct.unpack(">HHII", receive(connection, 12))
        assert (version, code, status) == (0x0111, 5, 0)
        devices = {}
        for _ in range(count):
            device = receive(connection, 312)
            receive(connection, 4 * device[311])
            devices[device[256:288].rstrip(b"\0").decode()] = struct.unpack(">HH", device[300:304])
        return devices


def sum_of(there, busid):
    disk = there.kernel(DISK + f"disk_of {busid}").strip()
    return there.run(f"dd if={disk} bs=64k count={MEGABYTES * 16} iflag=direct status=none | sha256sum").split()[0]


def test_runs_programs_of_the_host_on_a_kernel_of_its_own(there):
    assert there.run("uname -r").strip() == (lab.guest_directory(there.kernel_name) / "release").read_text().strip()
    assert there.run(f"cat {lab.TOP}/LICENSE") == (lab.TOP / "LICENSE").read_text()


def test_tells_how_a_command_ended(there):
    assert there.attempt("echo some words; exit 3") == (3, "some words\n")
    assert there.attempt("sleep 600", timeout=1) == (124, "")
    with pytest.raises(peer.Failed, match="no such word"):
        there.run("echo no such word >&2; exit 1")


def test_reaches_a_server_of_the_host(there):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        there.run(f"echo hello | /usr/bin/python3 -c 'import socket, sys\n"
                  f"socket.create_connection((\"{peer.HOST}\", {port})).sendall(sys.stdin.buffer.read())'")
        listener.settimeout(10)
        with listener.accept()[0] as connection:
            assert receive(connection, 6) == b"hello\n"


def test_a_peer_that_ends_is_told_of():
    with peer.Peer() as p:
        p.machine.monitor("quit")
        p.process.wait(20)
        with pytest.raises(lab.LabError, match="the peer has ended"):
            p.run("true")


def test_changes_nothing_of_the_host(there):
    assert there.attempt(f"echo x >{lab.LOGS}/peer-was-here")[0] != 0
    assert not (lab.LOGS / "peer-was-here").exists()


def test_runs_a_machine_of_its_own(there):
    """With memory that can be shared, as our benchmarks need it: its boot sector prints a line and ends QEMU."""
    program = "ba f8 03  b0 41 ee  b0 0a ee  ba 01 05  b0 03 ee  f4"  # out 3f8h, 'A'; out 3f8h, newline; out 501h, 3; hlt
    sector = "".join(f"\\{byte:03o}" for byte in bytes.fromhex(program))
    there.run(f"printf '{sector}' >/tmp/sector; printf '\\125\\252' | dd of=/tmp/sector seek=510 bs=1 status=none")
    ran = there.attempt(f"{lab.TOP}/tools/qemu -accel tcg -m 64 -object memory-backend-memfd,id=ram,size=64M,share=on "
                        "-machine pc,memory-backend=ram -nodefaults -display none -no-reboot -serial stdio "
                        "-device isa-debug-exit,iobase=0x501 -drive format=raw,file=/tmp/sector", timeout=120)
    assert ran == (3 << 1 | 1, "A\n")


def test_reads_its_disk(there, digest):
    assert sum_of(there, there.busid(peer.MASS_STORAGE)) == digest


def test_says_something_over_its_serial_port(there):
    there.busid(peer.ACM)
    # What is sent before anybody has opened the other end is lost.
    said = there.run("stty -F /dev/ttyACM0 raw -echo; stty -F /dev/ttyGS0 raw -echo\n"
                     "exec 3</dev/ttyGS0; echo hello >/dev/ttyACM0; timeout 20 head -n 1 <&3")
    assert said == "hello\n"


def test_unplugs_and_plugs_a_gadget(there):
    before = there.busid(peer.ZERO)
    there.unplug_gadget(2)
    there.wait_gone(before)
    there.plug_gadget(2)
    assert there.busid(peer.ZERO) == before


def test_usbipd_exports_a_disk(there):
    busid = there.busid(peer.MASS_STORAGE)
    there.start("usbipd", "usbipd", listens=peer.USBIP)
    assert exported(there.usbip_port) == {}
    there.run(f"usbip bind -b {busid}")
    assert exported(there.usbip_port) == {busid: (0x0525, 0xA4A5)}
    there.run(f"usbip unbind -b {busid}")
    assert exported(there.usbip_port) == {}
    there.kill("usbipd")


def test_a_gadget_is_exported_straight(there, digest):
    there.start("usbipd-vudc", f"usbipd --device --tcp-port {VUDC_PORT}", listens=VUDC_PORT)
    assert exported(there.port(VUDC_PORT)) == {peer.VUDC: (0x0525, 0xB001)}
    there.kernel("modprobe vhci_hcd")
    there.run(f"usbip --tcp-port {VUDC_PORT} attach -r 127.0.0.1 -b {peer.VUDC}")
    assert sum_of(there, there.busid(VUDC_DISK)) == digest
    there.run("usbip detach -p 0")
    there.kill("usbipd-vudc")


def redirect(there, port=peer.USBREDIR):
    """usbredirect has one client in its life, and wants the device for itself."""
    there.busid(peer.MASS_STORAGE)
    there.start("usbredirect", f"{peer.USBREDIRECT} --device {peer.MASS_STORAGE} --as 0.0.0.0:{port}", listens=port)


def test_usbredirect_says_hello(there):
    redirect(there)
    with socket.create_connection(("127.0.0.1", there.usbredir_port), 10) as connection:
        kind, length, number = struct.unpack("<III", receive(connection, 12))
        assert (kind, number) == (HELLO, 0)
        assert receive(connection, length)[:64].startswith(b"usbredir 0.")
    there.wait_end("usbredirect")


def test_qemu_reads_a_disk_through_usbredirect(there, digest):
    redirect(there)
    script = ". /bh.sh; wait_for /dev/sda || exit 1; say size=$(cat /sys/block/sda/size)\n" \
             f"timed read dd if=/dev/sda of=/dev/null bs=64k iflag=direct; say sum=$(sum_of /dev/sda {MEGABYTES} 0)"
    run = lab.run_guest(script, RedirectedDevice(there.usbredir_port), timeout=300)
    assert run.values["size"] == str(MEGABYTES * 2048)
    assert run.values["sum"] == digest
    there.wait_end("usbredirect")


@pytest.mark.parametrize("serial, speed", [("slow", "12"), ("fast", "480")])
def test_reads_a_disk_of_qemu(hardware, serial, speed, digest):
    busid = hardware.busid(peer.QEMU_DISK, serial)
    assert hardware.attribute(busid, "speed") == speed
    assert sum_of(hardware, busid) == digest


@pytest.mark.parametrize("identity, driver", [("0403:6001", "ftdi_sio"), ("0627:0001", "usbhid"), ("46f4:0002", None)])
def test_has_other_devices_of_qemu(hardware, identity, driver):
    interface = f"/sys/bus/usb/devices/{hardware.busid(identity)}:1.0"
    there = hardware.run(f"cd {interface}; ! test -e driver || basename $(readlink driver)").strip()
    assert there == (driver or "")


def test_gadgets_are_of_the_speed_that_is_asked_for(there, hardware):
    assert there.attribute(there.busid(peer.MASS_STORAGE), "speed") == "12"
    assert hardware.attribute(hardware.busid(peer.MASS_STORAGE), "speed") == "480"


def test_programs_hear_of_a_plug(hardware):
    """As libusb does, from udev."""
    busid = hardware.busid(peer.QEMU_DISK, "fast")
    hardware.start("monitor", "stdbuf -oL udevadm monitor --udev --subsystem-match=usb/usb_device")
    hardware.wait_said("monitor", "UDEV - the event which udev sends out")
    disk = next(device for device in hardware.devices if isinstance(device, dict) and device["id"] == "fast")
    hardware.unplug(disk)
    hardware.wait_said("monitor", f" remove .*/{busid} ")
    hardware.plug(disk)
    hardware.wait_said("monitor", f" add .*/{busid} ")
    assert hardware.busid(peer.QEMU_DISK, "fast") == busid
    hardware.kill("monitor")


def test_a_dead_link_to_it_is_noticed():
    """By who asks for it. The peer lives in a network of its own for that."""
    with net.Link() as link, peer.Peer(within=link.far.command(), address=link.far.address) as p:
        p.start("usbipd", "usbipd", listens=peer.USBIP)
        with link.near.socket() as connection:
            connection.settimeout(10)
            connection.connect((link.far.address, p.usbip_port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000)
            link.cut()
            connection.sendall(OP_REQ_DEVLIST)
            with pytest.raises(OSError) as caught:
                connection.recv(1)
            assert caught.value.errno == errno.ETIMEDOUT
        link.restore()
        with link.near.socket() as connection:
            connection.settimeout(10)
            connection.connect((link.far.address, p.usbip_port))
            connection.sendall(OP_REQ_DEVLIST)
            assert len(receive(connection, 12)) == 12
