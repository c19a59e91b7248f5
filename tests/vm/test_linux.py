"""A Linux guest (uhci_hcd, usb-storage) on Bulkhead, with MSI and with INTx.

One boot per interrupt kind does everything; the tests below each look at one part of it.
"""

import hashlib
import os
import re
import types

import dmesg
import lab
import pytest

MIB = 1 << 20
LONG = os.environ.get("BULKHEAD_TEST_LONG") == "1"
FS_MIB = 8  # the file systems live in front of the data: [FS_MIB][data][data, written]

# Unplugged with the controller, a disk cannot be told to flush: it was, before.
EXPECTED = re.compile(r"Synchronize Cache\(10\) failed: Result: hostbyte=DID_(NO_CONNECT|ERROR)")

SCRIPT = dmesg.MESSAGES + """
. /bh.sh
copy_through() { # a file system on the first part of the disk has to keep a file
    $2 /dev/sda $((FS_MIB * 1024)) >/dev/null 2>&1 || { say $1=no mkfs; return; }
    mount -t $1 /dev/sda /mnt || { say $1=no mount; return; }
    dd if=/tmp/data of=/mnt/file bs=1M count=1 status=none
    umount /mnt || { say $1=no umount; return; }
    echo 3 >/proc/sys/vm/drop_caches
    mount -t $1 /dev/sda /mnt || { say $1=no second mount; return; }
    say $1=$(sha256sum </mnt/file | cut -d ' ' -f 1)
    umount /mnt
}

wait_for /dev/sda || exit 1
for device in /sys/bus/usb/devices/*; do
    case $(cat $device/product 2>/dev/null) in
        *UHCI*) say ports=$(cat $device/maxchild); say hub_speed=$(cat $device/speed) ;;
    esac
    [ ! -e $device/serial ] || [ "$(cat $device/serial)" != $SERIAL ] || say serial=found
done
say sectors=$(cat /sys/block/sda/size)
say interrupts=$(grep uhci_hcd /proc/interrupts)

say read=$(sum_of /dev/sda $MB $FS_MIB)
dd if=/dev/sda of=/tmp/data bs=1M count=$MB skip=$FS_MIB iflag=direct status=none
say odd=$(dd if=/dev/sda bs=3584 count=37 skip=2341 iflag=direct status=none | sha256sum | cut -d ' ' -f 1)
dd if=/tmp/data of=/dev/sda bs=1M count=$MB seek=$((FS_MIB + MB)) oflag=direct conv=fsync status=none && say write=done
say written=$(sum_of /dev/sda $MB $((FS_MIB + MB)))

copy_through ext2 mke2fs
copy_through vfat mkdosfs
messages DM

reloads=0
while [ $reloads -lt $RELOADS ]; do
    rmmod uhci_hcd || break
    while [ -e /dev/sda ]; do usleep 50000; done
    modprobe uhci_hcd || break
    wait_for /dev/sda || break
    [ "$(sum_of /dev/sda $MB $FS_MIB)" = "$(sha256sum </tmp/data | cut -d ' ' -f 1)" ] || break
    reloads=$((reloads + 1))
done
say reloads=$reloads
messages DR
"""


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module", params=["msi", "intx"])
def guest(request):
    """One boot: what the guest said, and the image before and after."""
    controller = os.environ.get("LAB_CONTROLLER", "bulkhead")
    mib = 1 if controller == "qemu" else 64 if LONG else 16
    reloads = 10 if LONG else 1
    settings = f"MB={mib} FS_MIB={FS_MIB} SERIAL=BA5EBA110001 RELOADS={reloads}\n"
    lines = []
    with lab.scratch("test-") as directory:
        image = directory / "disk.img"
        before = os.urandom((FS_MIB + 2 * mib) * MIB)
        image.write_bytes(before)
        with lab.disk(controller, image, serial="BA5EBA110001") as disk:
            run = lab.run_guest(settings + SCRIPT, disk, name=f"linux-{request.param}",
                                kernel_options="pci=nomsi" if request.param == "intx" else "",
                                timeout=900 if LONG else 300, on_line=lines.append)
        after = image.read_bytes()
    return types.SimpleNamespace(
        values=run.values, lines=lines, before=before, after=after, mib=mib, reloads=reloads,
        data=before[FS_MIB * MIB:][:mib * MIB],
        interrupt="intx" if controller == "qemu" else request.param)


def test_finds_the_controller_and_its_ports(guest):
    assert guest.values["ports"] == "2"
    assert guest.values["hub_speed"] == "12"


def test_finds_the_disk(guest):
    assert int(guest.values["sectors"]) * 512 == len(guest.before)
    assert guest.values.get("serial") == "found"


def test_uses_the_interrupt_it_was_given(guest):
    assert ("MSI" in guest.values["interrupts"]) == (guest.interrupt == "msi"), guest.values["interrupts"]


def test_interrupts_arrive(guest):
    assert int(guest.values["interrupts"].split(":")[1].split()[0]) > 0


def test_reads_what_is_in_the_image(guest):
    assert guest.values["read"] == sha256(guest.data)


def test_reads_odd_sizes(guest):
    assert guest.values["odd"] == sha256(guest.before[3584 * 2341:][:3584 * 37])


def test_writes_and_reads_back(guest):
    assert guest.values.get("write") == "done"
    assert guest.values["written"] == sha256(guest.data)


def test_writes_land_in_the_image(guest):
    assert sha256(guest.after[(FS_MIB + guest.mib) * MIB:]) == sha256(guest.data)


def test_writes_nothing_else(guest):
    assert sha256(guest.after[FS_MIB * MIB:][:guest.mib * MIB]) == sha256(guest.data)


@pytest.mark.parametrize("kind", ["ext2", "vfat"])
def test_file_system_keeps_a_file(guest, kind):
    assert guest.values[kind] == sha256(guest.data[:MIB])


def test_driver_can_be_reloaded(guest):
    assert int(guest.values["reloads"]) == guest.reloads


@pytest.mark.parametrize("part", ["DM", "DR"])
def test_kernel_has_nothing_to_complain_about(guest, part):
    assert not dmesg.complaints(guest.lines, part, EXPECTED)


def test_second_guest_on_the_same_server(controller, directory):
    image = directory / "disk.img"
    image.write_bytes(os.urandom(4 * MIB))
    write = """. /bh.sh
        wait_for /dev/sda && dd if=/dev/urandom of=/tmp/data bs=64k count=8 status=none &&
        dd if=/tmp/data of=/dev/sda bs=64k oflag=direct conv=fsync status=none &&
        say sum=$(sha256sum </tmp/data | cut -d ' ' -f 1)"""
    read = """. /bh.sh
        wait_for /dev/sda && say sum=$(dd if=/dev/sda bs=64k count=8 iflag=direct status=none |
        sha256sum | cut -d ' ' -f 1)"""
    with lab.disk(controller, image) as disk:
        first = lab.run_guest(write, disk, name="first", timeout=120)
        second = lab.run_guest(read, disk, name="second", timeout=120)
    assert first.values["sum"] == second.values["sum"] == sha256(image.read_bytes()[:8 << 16])


def test_readonly_disk_stays_as_it_is(controller, directory):
    image = directory / "disk.img"
    before = os.urandom(MIB)
    image.write_bytes(before)
    script = """. /bh.sh
        wait_for /dev/sda || exit 1
        # Linux clears the flag while it looks at a removable medium again; opening waits for that.
        dd if=/dev/sda of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null
        say ro=$(cat /sys/block/sda/ro)
        dd if=/dev/zero of=/dev/sda bs=4k count=1 oflag=direct conv=fsync 2>/dev/null && say wrote=yes
        say sum=$(sum_of /dev/sda 1 0)"""
    with lab.disk(controller, image, readonly=True) as disk:
        run = lab.run_guest(script, disk, name="readonly", timeout=120)
    assert run.values["ro"] == "1"
    assert "wrote" not in run.values
    assert run.values["sum"] == sha256(before)
    assert image.read_bytes() == before
