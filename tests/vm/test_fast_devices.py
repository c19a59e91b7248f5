"""Real devices of high speed, of another machine, on our full-speed controller: a Linux guest mounts them.

The other machine is the peer (peer.py). Its devices are a mass-storage gadget on dummy_hcd at high speed and
QEMU's own usb-storage on its EHCI. They come here by usbredir: from usbredirect, and from `bulkhead export`
over libusb. Without a network in between, libusb and translation in one process serve a guest without
a processor (processorless.py) in the peer. Beside each, what QEMU's UHCI makes of the same device.
"""

import hashlib
import json
import os
import re

import lab
import peer
import pytest
from test_passthrough import values
from test_usbredir import MOUNT, QemuRedir, share

MIB = 1 << 20
LONG = os.environ.get("BULKHEAD_TEST_LONG") == "1"
MEGABYTES = 16 if LONG else 4  # each way
SIZE = 3 * MEGABYTES
GADGET, STICK = "gadget", "stick"
IDENTITY = {GADGET: peer.MASS_STORAGE, STICK: peer.QEMU_DISK}

COPY = f"""
. /bh.sh
wait_for /dev/sda || exit 1
say speed=$(cat /sys/bus/usb/devices/1-1/speed)
say size=$(cat /sys/block/sda/size)
timed read dd if=/dev/sda of=/tmp/data bs=64k count={16 * MEGABYTES} iflag=direct status=none || exit 1
say sum=$(sha256sum </tmp/data | cut -d ' ' -f 1)
timed write dd if=/tmp/data of=/dev/sda bs=64k seek={16 * MEGABYTES} oflag=direct conv=fsync status=none || exit 1
say written=$(sum_of /dev/sda {MEGABYTES} {MEGABYTES})
""" + MOUNT

# A guest of QEMU's own controller looks for a disk for a while. Whether it finds one is what is asked.
LOOK = """
. /bh.sh
tries=100
until there /dev/sda || [ $tries = 0 ]; do tries=$((tries - 1)); usleep 100000; done
[ -e /dev/sda ] && say found=yes || say found=no
if [ -e /dev/sda ]; then
    dd if=/dev/sda of=/tmp/data bs=64k count=16 iflag=direct status=none 2>/dev/null &
    tries=200
    while kill -0 $! 2>/dev/null && [ $tries != 0 ]; do tries=$((tries - 1)); usleep 100000; done
    say sum=$(sha256sum </tmp/data | cut -d ' ' -f 1)
    say bytes=$(stat -c %s /tmp/data)
fi
dmesg | grep -i 'usb 1-1\\|sda\\|scsi\\|uhci\\|babble\\|overflow' | sed 's/^/DM /'
"""


# As COPY, with less: the processor is slow.
NESTED = """
. /bh.sh
wait_for /dev/sda 200 || exit 1
dd if=/dev/sda of=/tmp/data bs=64k count=16 iflag=direct status=none || exit 1
say sum=$(sha256sum </tmp/data | cut -d ' ' -f 1)
dd if=/tmp/data of=/dev/sda bs=64k seek=32 oflag=direct conv=fsync status=none || exit 1
say written=$(sum_of /dev/sda 1 2)
mke2fs -F /dev/sda 2048 >/dev/null 2>&1 && mkdir -p /mnt && mount -t ext2 /dev/sda /mnt || exit 1
cp /tmp/data /mnt/file && umount /mnt || exit 1
echo 3 >/proc/sys/vm/drop_caches
mount -t ext2 -o ro /dev/sda /mnt && say file=$(sha256sum </mnt/file | cut -d ' ' -f 1) && umount /mnt || exit 1
"""


@pytest.fixture(scope="module")
def content():
    return os.urandom(SIZE << 20)


@pytest.fixture(scope="module")
def there(content):
    with lab.scratch("peer-disk-") as directory:
        (directory / "image").write_bytes(content)
        (directory / "stick").write_bytes(content)
        stick = peer.qemu_disk(STICK, directory / "stick", "usb2.0")
        with peer.Peer([peer.mass_storage(directory / "image")], devices=[*peer.EHCI, stick], speed="high") as p:
            for identity in IDENTITY.values():
                assert p.attribute(p.busid(identity), "speed") == "480"
            yield p


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def share_by_libusb(there, device):
    there.busid(IDENTITY[device])
    vendor, product = IDENTITY[device].split(":")
    there.start("export", f"{lab.bulkhead_binary()} export --protocol usbredir --listen 0.0.0.0:{peer.USBREDIR} "
                f"--device usb,vendorid={vendor},productid={product}", listens=peer.USBREDIR)


@pytest.fixture(params=[("usbredirect", GADGET), ("libusb", STICK)], ids="-".join)
def shared(request, there):
    """What is shared, and how. usbredirect serves the gadget, our export over libusb QEMU's stick."""
    how, device = request.param
    if how == "usbredirect":
        share(there)
    else:
        share_by_libusb(there, device)
    yield there
    name = "usbredirect" if how == "usbredirect" else "export"
    there.attempt(f"kill $(cat /tmp/{name}.pid)")
    there.wait_end(name)


def test_linux_mounts_it_and_copies_both_ways(shared, content):
    first = sha256(content[:MEGABYTES << 20])
    with lab.Server([f"usbredir,address=127.0.0.1:{shared.usbredir_port}"]) as server:
        run = lab.run_guest(COPY, server, timeout=300)
        log = server.log.read_text()
        device, = server.statistics()["devices"]
    assert run.values["speed"] == "12" and run.values["size"] == str(SIZE * 2048)
    assert run.values["sum"] == run.values["written"] == first
    assert run.values["file"] == sha256(content[:2 << 20])
    assert log.count("runs at high speed: it is translated for the full-speed port") == 1
    translate, = device["layers"]
    assert translate["translating"] == 1
    assert [translate[key] for key in ("guessed_ends", "dropped_ends", "early_failed")] == [0] * 3
    for way in "read", "write":
        print(f"{way}: {MEGABYTES * 100 / int(run.values[way + '_cs']):.2f} MB/s")


def test_without_translation_it_is_refused_and_said_why(there):
    share(there)
    with lab.Server([f"usbredir,address=127.0.0.1:{there.usbredir_port},translate=off"]) as server:
        run = lab.run_guest(LOOK.replace("tries=100", "tries=20"), server, timeout=120)
        log = server.log.read_text()
    there.attempt("kill $(cat /tmp/usbredirect.pid)")
    there.wait_end("usbredirect")
    assert run.values["found"] == "no"
    assert "runs at high speed, which the guest's full-speed port cannot carry as it is (translate=off)" in log


def test_what_qemus_usb_redir_on_its_uhci_makes_of_it(there, content):
    """Recorded, so that it is known when that changes: Linux finds a disk, and can read none of it."""
    share(there)
    run = lab.run_guest(LOOK, QemuRedir(there.usbredir_port), timeout=120)
    log = run.log.read_text(errors="replace")
    there.attempt("kill $(cat /tmp/usbredirect.pid)")
    there.wait_end("usbredirect")
    print("the guest said:", *re.findall(r"^DM .*(?:reset|residue|partial|error|babble).*", log, re.M)[:8], sep="\n")
    assert run.values["found"] == "no" or run.values["sum"] != sha256(content[:MIB])


def test_what_qemus_usb_host_on_its_uhci_makes_of_it(there):
    vendor, product = IDENTITY[GADGET].split(":")
    said = there.run(f"(sleep 3; echo info usb; sleep 1; echo quit) | {lab.TOP}/tools/qemu -M pc -S -display none -nodefaults "
                     f"-monitor stdio -device piix3-usb-uhci -device usb-host,vendorid=0x{vendor},productid=0x{product} 2>&1")
    print("QEMU said:", *re.findall(r"Device 0\.0.*", said))
    assert "480 Mb/s" not in said and "12 Mb/s" not in said, "QEMU has it in use now"
    there.busid(peer.MASS_STORAGE)


def test_libusb_and_translation_in_one_process(there, content):
    """In the peer itself; a copy both ways by a driver of ours."""
    vendor, product = IDENTITY[GADGET].split(":")
    there.busid(peer.MASS_STORAGE)
    program = f"python3 {lab.TOP}/tests/vm/processorless.py {lab.bulkhead_binary()} usb,vendorid={vendor},productid={product}"
    said = values(there.run(f"{program} copy {MEGABYTES} 2>&1", timeout=240))
    assert said["written"] == said["read"] and said["status"] == "0", said
    assert there.kernel(f"head -c {MEGABYTES << 20} /tmp/g0.img | sha256sum").split()[0] == said["written"]
    assert any("runs at high speed: it is translated" in line for line in said["log"])
    counters = json.loads(said["statistics"])
    # A command of 64 KiB is a few host transfers, not 128 of one packet of the device, nor 1024 of the guest's.
    assert counters["devices"][0]["transfers"] < 8 * (MEGABYTES << 20) // 65536
    assert counters["engine"]["failed_packets"] == counters["devices"][0]["errors"] == 0


if LONG:  # minutes; the same in pieces is tested above

    def test_a_linux_guest_mounts_it_with_libusb_and_translation_beside_it(there):
        """All of it in one place: the guest, too, is in the peer, where its processor is played by one that is played."""
        vendor, product = IDENTITY[GADGET].split(":")
        there.busid(peer.MASS_STORAGE)
        first = there.kernel(f"head -c {MIB} /tmp/g0.img | sha256sum").split()[0]
        with lab.scratch("nested-") as directory:
            (directory / "initrd").write_bytes(lab.make_initrd(NESTED))
            there.start("server", f"{lab.bulkhead_binary()} serve --socket-path /tmp/usb.sock --device usb,vendorid={vendor},productid={product}")
            there.wait_said("server", "it is translated for the full-speed port")
            kernel, image, initrd, path, append, options = lab.kernel_args("bookworm", directory / "initrd")
            said = there.run(
                f"{lab.TOP}/tools/qemu -machine pc,memory-backend=mem -m 256M -object memory-backend-memfd,id=mem,size=256M,share=on "
                f"-accel tcg -nodefaults -display none -serial stdio -no-reboot {kernel} {image} {initrd} {path} {append} '{options}' "
                "-device '{\"driver\":\"vfio-user-pci\",\"socket\":{\"type\":\"unix\",\"path\":\"/tmp/usb.sock\"}}' </dev/null 2>&1", timeout=500)
            there.kill("server", "TERM")
            there.wait_end("server")
        answers = dict(re.findall(r"^BH (\w+)=(.*?)\r?$", said, re.M))
        assert answers.get("exit") == "0", said
        assert answers["sum"] == answers["written"] == answers["file"] == first
