"""What works with Debian 12's kernel works with Debian 13's: a hub, and behind it a disk and a keyboard.

The other tests run on the first of them alone. One boot for each kernel: both at work at the same
time, the keyboard while the disk is written.
"""

import hashlib
import os
import types

import dmesg
import lab
import pytest

MIB = 1 << 20
KERNELS = {"bookworm": "6.1.", "trixie": "6.12."}
TEXT = "Bulkhead 12\\n"
# Codes of linux/input-event-codes.h, pressed and released; the capital has shift (42) around it.
KEYS = [42, 48, 22, 38, 37, 35, 18, 30, 32, 57, 2, 3, 28]

SCRIPT = dmesg.MESSAGES + """
. /bh.sh
. /ask.sh
modprobe -a usbhid hid_generic evdev || exit 1
wait_for /dev/sda || exit 1
say speed=$(cat /sys/bus/usb/devices/1-1/speed) class=$(cat /sys/bus/usb/devices/1-1/bDeviceClass)
say disk=$(readlink -f /sys/block/sda | grep -c '/1-1/1-1.2/') ports=$(cat /sys/bus/usb/devices/1-1/maxchild)
keys Bulkhead 60 EVENTS >/tmp/keys &
until grep -q ready /tmp/keys; do usleep 50000; done
say read=$(sum_of /dev/sda 2 0)
dd if=/dev/sda of=/dev/sda bs=64k count=32 seek=32 iflag=direct oflag=direct conv=fsync status=none &
writer=$!
ask type >/dev/null
wait $writer && say write=done
wait && say keys=$(sed -n 's/^key //p' /tmp/keys | tr ' \\n' -,)
say written=$(sum_of /dev/sda 2 2)
messages DM
say dmesg=done
""".replace("EVENTS", str(2 * len(KEYS)))


@pytest.fixture(scope="module", params=KERNELS)
def worked(request):
    if os.environ.get("LAB_CONTROLLER", "bulkhead") != "bulkhead":
        pytest.skip("these devices are our own server's")
    data = os.urandom(2 * MIB)
    lines = []
    with lab.scratch("test-") as directory:
        image = directory / "disk.img"
        image.write_bytes(data + bytes(2 * MIB))
        devices = ["hub,port=1", lab.disk_device(image, port="1.2"), "hid,kind=keyboard,port=1.4"]
        with lab.Server(devices, control=True) as server:
            def type_text():
                server.control.execute("input", port="1.4", text=f"type {TEXT}")

            run = lab.run_guest(SCRIPT, server, kernel=request.param, name=f"kernel-{request.param}",
                                timeout=180, on_line=lines.append, answers={"type": type_text})
        after = image.read_bytes()
    return types.SimpleNamespace(values=run.values, lines=lines, data=data, after=after,
                                 version=KERNELS[request.param])


def test_kernel_is_the_one_that_was_wanted(worked):
    assert worked.values["boot"].startswith(worked.version)


def test_hub_is_found_and_the_disk_behind_it(worked):
    assert worked.values["speed"] == "12 class=09"
    assert worked.values["disk"] == "1 ports=4"


def test_disk_is_read_and_written(worked):
    data = hashlib.sha256(worked.data).hexdigest()
    assert worked.values.get("write") == "done"
    assert worked.values["read"] == worked.values["written"] == data
    assert worked.after == worked.data * 2


def test_keys_are_those_that_were_pressed(worked):
    events = [event.split("-") for event in worked.values["keys"].strip(",").split(",")]
    assert [int(code) for code, value in events if value == "1"] == KEYS
    assert sorted(int(code) for code, value in events if value == "0") == sorted(KEYS)


def test_kernel_has_nothing_to_complain_about(worked):
    assert worked.values.get("dmesg") == "done"
    assert not dmesg.complaints(worked.lines, "DM")
