"""Devices of high speed on our full-speed controller: a Linux guest uses them through translation.

One boot does everything, with emulated devices: two disks (copies, FAT and ext4, fio with random sizes and
verification), a gadget zero (usbtest; messages of all lengths over its loopback), a serial line.
"""

import contextlib
import hashlib
import json
import os
import select
import subprocess
import types

import dmesg
import hostprogram
import lab
import pytest
import serialline
import usbtest

MIB = 1 << 20
LONG = os.environ.get("BULKHEAD_TEST_LONG") == "1"
COPY = 8      # MiB each way
EXT4 = 32     # MiB of the second disk
SECONDS = 60 if LONG else 6
FIO_MIB = 16 if LONG else 4
# Bytes of the second pattern count from the start of each of the device's packets, which is not the guest's.
ROWS = [row.shorter(1 if LONG else 4)._replace(patterns=(0,)) for row in usbtest.ROWS if row.setting in (0, 2)]

SCRIPT = dmesg.MESSAGES + usbtest.FUNCTIONS + """
modprobe cdc_acm || exit 1
usb=/sys/bus/usb/devices
wait_for /dev/sda && wait_for /dev/sdb && wait_for /dev/ttyACM0 && wait_for $usb/1-3:3.0 || exit 1
for port in 1 2 3 4; do say speed$port=$(cat $usb/1-$port/speed); done
for end in $usb/1-1:1.0/ep_* $usb/1-4:1.1/ep_*; do say ${end##*/}=$(cat $end/wMaxPacketSize); done
dmesg -c >/dev/null

say read=$(sum_of /dev/sda $COPY 0)
dd if=/dev/sda of=/tmp/data bs=1M count=$COPY iflag=direct status=none
say odd=$(dd if=/dev/sda bs=3584 count=37 skip=41 iflag=direct status=none | sha256sum | cut -d ' ' -f 1)
dd if=/tmp/data of=/dev/sda bs=1M count=$COPY seek=$COPY oflag=direct conv=fsync status=none && say write=done

verified() { # KEY OPTION...: random writes of random sizes, read back and verified
    key=$1
    shift
    if $on_host /fio --name=$key --directory=/mnt --rw=randrw --size=${FIO_MIB}M --thread \\
        --verify=crc32c --verify_fatal=1 --randrepeat=0 --fallocate=none --end_fsync=1 "$@" >/tmp/fio 2>&1; then
        say $key=verified
    else
        sed 's/^/FIO /' /tmp/fio
        say $key=wrong
    fi
}
mount -t ext4 /dev/sdb /mnt || exit 1
verified ext4 --bsrange=512-96k --bs_unaligned
verified ext4_direct --bsrange=1k-64k --direct=1
umount /mnt
mkdosfs /dev/sda $((2 * COPY * 1024)) >/dev/null 2>&1 || exit 1
mount -t vfat /dev/sda /mnt || exit 1
verified vfat --bsrange=512-96k --bs_unaligned
umount /mnt

""" + usbtest.script(ROWS, {0: "1-3"}) + """
rmmod usbtest
messages_said=$(/bin/messages 1-3 2>&1)
say loopback=$messages_said

serialcheck /dev/ttyACM0 $SECONDS 0 $WINDOW >/tmp/serial 2>&1 &
until grep -q ready /tmp/serial; do usleep 10000; done
say serial=ready
wait $!
say serial_said=$(cat /tmp/serial)

. /ask.sh
stty -F /dev/ttyACM0 raw -echo || exit 1
cat /dev/ttyACM0 >/dev/ttyACM0 &
say echoes=$(ask messages)
kill $!
""" + dmesg.WARNINGS


# Around the packets of either side, and the 128 bytes that Linux asks of the line at a time.
MESSAGES = [1, 63, 64, 65, 127, 128, 129, 192, 256, 448, 511, 512, 513, 576, 640, 1023, 1024, 1088, 1536, 2048, 4032]


def echo_messages(fd):
    """Each is sent when the last has come back: where an end is lost, on either way, it never does."""
    for number, length in enumerate(MESSAGES):
        message = bytes((number + i) % 251 for i in range(length))
        os.write(fd, message)
        got = b""
        while len(got) < length:
            if not select.select([fd], [], [], 10)[0]:
                return f"{len(got)} of {length} bytes came back"
            got += os.read(fd, 65536)
        if got != message:
            return f"others than the {length} bytes that were sent came back"
    return "all"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def ran():
    if os.environ.get("LAB_CONTROLLER", "bulkhead") != "bulkhead":
        pytest.skip("QEMU's controller has no translation")
    lines = []
    files, on_host = hostprogram.bring("fio")
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(lab.scratch("translation-"))
        before = os.urandom(2 * COPY * MIB)
        (directory / "disk").write_bytes(before)
        with open(directory / "ext4", "wb") as image:
            image.truncate(EXT4 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-F", directory / "ext4"], check=True, env={**os.environ, "PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})
        devices = [f"disk,file={directory}/disk,speed=high", f"disk,file={directory}/ext4,speed=high",
                   "zero,speed=high", f"serial,pty={directory}/line,speed=high"]
        server = stack.enter_context(lab.Server(devices, controller="uhci,ports=4"))
        # Random data is not what a file system holds: the first disk's first half is read before it is made one.
        script = f"COPY={COPY} FIO_MIB={FIO_MIB} SECONDS={SECONDS} WINDOW={serialline.WINDOW}\n{on_host}{SCRIPT}"
        with serialline.pseudo_terminal(server, directory / "line") as fd:
            line = serialline.Line(fd)

            def on_line(text):
                lines.append(text)
                if text == "BH serial=ready":
                    line.start()

            guest = lab.run_guest(script, server, name="translation", files=files.items(), memory=1024,
                                  timeout=1200 if LONG else 300, on_line=on_line,
                                  answers={"messages": lambda: echo_messages(fd)})
            line.join(20)
        log = server.log.read_text()
        statistics = server.statistics()
        check = subprocess.run(["fsck.ext4", "-f", "-n", directory / "ext4"], capture_output=True, text=True, check=False,
                               env={**os.environ, "PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})
        after = (directory / "disk").read_bytes()
    return types.SimpleNamespace(values=guest.values, lines=lines, before=before, after=after, line=line, log=log, check=check,
                                 engine=statistics["engine"], devices=statistics["devices"])


def layers(device):
    return {layer["layer"]: layer for layer in device["layers"]}


def test_the_guest_sees_full_speed(ran):
    assert [ran.values[f"speed{port}"] for port in (1, 2, 3, 4)] == ["12"] * 4
    assert ran.values["ep_81"] == ran.values["ep_82"] == "0040"


def test_it_is_said_once_for_each_device(ran):
    assert ran.log.count("runs at high speed: it is translated for the full-speed port (translate=off would refuse it)") == 4
    assert all(layers(device)["translate"]["translating"] == 1 for device in ran.devices)


def test_copies_are_right(ran):
    assert ran.values["read"] == sha256(ran.before[:COPY * MIB])
    assert ran.values["odd"] == sha256(ran.before[3584 * 41:][:3584 * 37])
    assert ran.values["write"] == "done"


@pytest.mark.parametrize("what", ["ext4", "ext4_direct", "vfat"])
def test_fio_verifies_what_it_wrote_in_random_sizes(ran, what):
    assert ran.values[what] == "verified", [line for line in ran.lines if line.startswith("FIO ")]


def test_the_file_system_is_whole(ran):
    assert ran.check.returncode == 0, ran.check.stdout


@pytest.mark.parametrize("test", sorted(row.test for row in ROWS))
def test_usbtest_passes(ran, test):
    assert usbtest.result(ran.values, test, 0)[0] == "passed"


def test_messages_of_all_lengths_come_back_as_they_were(ran):
    assert ran.values["loopback"] == "messages=234"


def test_the_serial_line_carries_every_byte(ran):
    assert ran.line.error is None and not ran.line.is_alive()
    assert ran.values["serial_said"].split() == ["ready", f"sent={ran.line.received}", f"received={ran.line.sent}"]
    assert min(ran.line.received, ran.line.sent) > 64 << 10


def test_messages_over_the_line_are_not_held_back(ran):
    """They end by short packets, and by empty ones where they fill packets: the line's device ends its transfers so."""
    assert ran.values["echoes"] == "all"


def test_disks_leave_nothing_undecided(ran):
    """The commands tell where transfers end: nothing is guessed, and nothing dropped."""
    for device in ran.devices[:2]:
        counted = layers(device)["translate"]
        assert [counted[key] for key in ("guessed_ends", "went_on", "dropped_ends", "early_failed")] == [0] * 4
        assert device["phase_errors"] == 0


def test_batches_are_what_they_are_without_translation(ran):
    assert ran.engine["failures"] == 0
    assert ran.engine["packets_in"] + ran.engine["packets_out"] > 10 * ran.engine["batches"]


def test_the_kernel_has_nothing_to_complain_of(ran):
    assert not dmesg.warnings(ran.lines[ran.lines.index("BH serial_said=" + ran.values["serial_said"]):])


def test_translate_off_refuses(tmp_path):
    image = tmp_path / "image"
    image.write_bytes(bytes(MIB))
    done = subprocess.run([lab.bulkhead_binary(), "serve", "--socket-path", tmp_path / "socket", "--device",
                           f"disk,file={image},speed=high,translate=off"], capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 2 and "faster than the port, and translate=off was said" in done.stderr
    assert json.dumps(done.stderr).count("\\n") == 1
