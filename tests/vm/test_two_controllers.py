"""Two controllers in one Linux guest, each a process of its own with a disk, at work at once."""

import hashlib
import os
import types

import dmesg
import lab
import pytest

MIB = 1 << 20
LONG = os.environ.get("BULKHEAD_TEST_LONG") == "1"
KINDS = {"msi": "", "intx": "pci=nomsi"}
SERIALS = ("BA5EBA110001", "BA5EBA110002")

SCRIPT = dmesg.MESSAGES + """
. /bh.sh
. /ask.sh
block_of() { # SERIAL: the disk's name
    for device in /sys/bus/usb/devices/*; do
        [ "$(cat $device/serial 2>/dev/null)" = $1 ] || continue
        basename $device/*/host*/target*/*/block/*
    done
}
work() { # NAME DEVICE: the first MB are read, and written behind themselves; and that three times
    from=$(now)
    for round in 1 2 3; do
        say $1_read$round=$(sum_of $2 $MB 0)
        dd if=$2 of=/tmp/$1 bs=1M count=$MB iflag=direct status=none
        dd if=/tmp/$1 of=$2 bs=64k seek=$((MB * 16)) oflag=direct conv=fsync status=none
        [ $round != 2 ] || [ $1 != a ] || ask look >/dev/null
    done
    say $1_time=$from $(now)
}

wait_for /dev/sda && wait_for /dev/sdb || exit 1
say hubs=$(grep -l UHCI /sys/bus/usb/devices/usb*/product | wc -l)
for serial in $SERIALS; do say $serial=$(block_of $serial); done
set -- $SERIALS
a=/dev/$(block_of $1) b=/dev/$(block_of $2)
work a $a &
work b $b &
wait
say msi=$(grep uhci_hcd /proc/interrupts | grep -c MSI)
messages DM
"""


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module", params=KINDS)
def two(request):
    """One boot: what the guest said, both images, and how both disks moved while the guest was at it."""
    controller = os.environ.get("LAB_CONTROLLER", "bulkhead")
    mib = 1 if controller == "qemu" else 32 if LONG else 4
    looks, lines = [], []
    with lab.scratch("test-") as directory:
        images = [directory / f"disk{number}.img" for number in range(2)]
        before = [os.urandom((2 * mib + number) * MIB) for number in range(2)]
        for image, data in zip(images, before):
            image.write_bytes(data)
        with lab.disk(controller, images[0], serial=SERIALS[0]) as first, \
                lab.disk(controller, images[1], serial=SERIALS[1]) as second:

            def look():
                if controller == "bulkhead":
                    looks.append([server.statistics()["devices"][0] for server in (first, second)])

            run = lab.run_guest(f"MB={mib} SERIALS='{' '.join(SERIALS)}'\n{SCRIPT}", [first, second],
                                name=f"two-{request.param}", timeout=900 if LONG else 240,
                                kernel_options=f"usb_storage.delay_use=0 {KINDS[request.param]}",
                                answers={"look": look}, on_line=lines.append)
            look()
        after = [image.read_bytes() for image in images]
    return types.SimpleNamespace(values=run.values, lines=lines, looks=looks, before=before, after=after,
                                 length=mib * MIB, controller=controller,
                                 msi=2 if controller == "bulkhead" and request.param == "msi" else 0)


def test_each_disk_is_found_on_its_own_controller(two):
    assert two.values["hubs"] == "2"
    assert {two.values[serial] for serial in SERIALS} == {"sda", "sdb"}


def test_each_has_the_interrupt_it_was_given(two):
    assert int(two.values["msi"]) == two.msi


def test_each_disk_keeps_its_own_data(two):
    for name, before, after in zip("ab", two.before, two.after):
        expected = sha256(before[:two.length])
        assert [two.values[f"{name}_read{number}"] for number in (1, 2, 3)] == [expected] * 3
        assert sha256(after) == sha256(before[:two.length] * 2 + before[2 * two.length:])


def test_both_were_busy_at_the_same_time(two):
    """The guest's own clock says so; and that one had come half its way found the other on its."""
    spans = [[int(word) for word in two.values[f"{name}_time"].split()] for name in "ab"]
    both = min(end for _, end in spans) - max(start for start, _ in spans)
    assert both > 0.5 * max(end - start for start, end in spans), spans
    if two.controller == "bulkhead":
        for half, whole in zip(*two.looks):
            assert 0.2 < half["bytes_read"] / whole["bytes_read"] < 0.95


def test_kernel_has_nothing_to_complain_about(two):
    assert not dmesg.complaints(two.lines, "DM")
