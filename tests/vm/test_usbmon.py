"""What Linux's USB core sees of a disk is the same with batches and a packet at a time.

usbmon records each request block (URB) that a driver submits and what it is given back with. The same
session runs on two servers, batch=on and batch=off: the disk is found, an ext2 made, mounted, written,
read, unmounted; blocks are read and written past the cache in sizes that suit nothing. Compared are,
for each endpoint, its URBs in the order of submission: kind, length, SETUP packet or SCSI command, and
the status and length they came back with. They have to come back in that order, too.

Not compared, and why:
- times, and how submissions and completions alternate: that is what batching changes. A driver that has
  thirty URBs queued may get the first back before or after it has queued the last.
- the tags by which usbmon tells URBs apart: addresses in the kernel's memory.
- data other than commands, for an ext2 has times and a random identifier in it.
- the root hub: it is no hardware, uhci_hcd answers for it from the port registers, and how often it is
  asked while a port settles depends on the clock.

What else would make two runs differ is what the guest does by the clock, or in two threads at once:
- The block layer merges requests, and reads ahead, depending on how fast the disk is: switched off.
- Dirty pages are written when sync says so, a file's own by fsync before: in which order sync takes
  several files depends on when they became dirty.
- ext2 places a file by the number of the process that writes: it is of one number (modulo 16). It looks
  ahead for free blocks, and tidies up, in a thread: switched off. Its times are in seconds, and a file
  that is written twice in a second has nothing new to say: each is written in a second of its own.
- Whether a removable medium is still there is asked by a worker in its own time: the medium is fixed.
"""

import collections
import hashlib
import itertools
import os
import re
import types

import dmesg
import lab
import pytest

MIB = 1 << 20
FS_MIB = 6       # one block group: nothing to choose between
DATA_MIB = 2     # behind it, what is read and written past the cache
REPORT_MIB = 4   # behind that, what usbmon said
REPORT_AT = FS_MIB + 2 * DATA_MIB
SECTORS = (1, 3, 7, 127, 129, 239, 241, 1023)  # of one read and write; Linux asks for 240 at a time at most
ROOT_HUB = 1
CBW = 31
RESET = re.compile("usb 1-1: reset full-speed USB device")

SCRIPT = dmesg.MESSAGES + """
. /bh.sh
placed() { # COMMAND...: by a process whose number is a multiple of 16
    until sh -c '[ $(($$ % 16)) = 0 ]  || exit 99; exec "$0" "$@"' "$@"; do [ $? = 99 ] || return 1; done
}
next_second() {
    second=$(date +%s)
    while [ $(date +%s) = $second ]; do usleep 20000; done
}
direct() { # BLOCK COUNT SKIP: reads and writes again, elsewhere
    dd if=/dev/sda of=/tmp/part bs=$1 count=$2 skip=$3 iflag=direct status=none &&
    dd if=/tmp/part of=/dev/sda bs=$1 count=$2 seek=$(($3 + $4)) oflag=direct status=none
}

mount -t debugfs none /sys/kernel/debug
echo 360000 >/proc/sys/vm/dirty_writeback_centisecs # 0 means at once
wait_for /dev/sda || exit 1
rmmod uhci_hcd
modprobe usbmon || exit 1
# Read before all else: usbmon keeps a few dozen reports, and what is not read in time is lost.
dd if=/sys/kernel/debug/usb/usbmon/0u of=/tmp/urbs bs=4k status=none &
reader=$!
renice -n -20 -p $reader
until grep -q 'nreaders 1' /sys/kernel/debug/usb/usbmon/0s; do usleep 20000; done
dmesg -c >/dev/null
modprobe uhci_hcd
until dmesg | grep -q 'sda. Attached'; do usleep 50000; done
echo 2 >/sys/block/sda/queue/nomerges
echo 0 >/sys/block/sda/queue/read_ahead_kb
echo none >/sys/block/sda/queue/scheduler

dd if=/dev/sda of=/tmp/data bs=1M count=1 skip=$FS_MIB iflag=direct status=none || exit 1
dd if=/tmp/data of=/tmp/small bs=1000 count=37 status=none
placed mke2fs /dev/sda $((FS_MIB * 1024)) >/dev/null 2>&1 || exit 1
sync
mount -t ext2 -o noatime,noinit_itable,no_prefetch_block_bitmaps /dev/sda /mnt || exit 1
next_second
placed dd if=/tmp/data of=/mnt/data bs=64k conv=fsync status=none && sync || exit 1
next_second
placed dd if=/tmp/small of=/mnt/small bs=64k conv=fsync status=none && sync || exit 1
next_second
placed dd if=/tmp/data of=/mnt/data bs=12345 count=20 seek=3 conv=notrunc,fsync status=none && sync || exit 1
umount /mnt || exit 1
echo 3 >/proc/sys/vm/drop_caches
mount -t ext2 -o noatime,ro /dev/sda /mnt || exit 1
say small=$(sha256sum </mnt/small | cut -d ' ' -f 1)
say file=$(sha256sum </mnt/data | cut -d ' ' -f 1)
umount /mnt

at=$((FS_MIB * 2048)) length=$((DATA_MIB * 2048)) # in sectors
for sectors in $SECTORS; do
    direct $((sectors * 512)) 2 $((at / sectors + 1)) $((length / sectors)) || exit 1
done
sync
messages DM

# Commands that have less or more data than is asked for, or none, or no meaning, or go the other way.
# A phase error makes the driver reset the device.
n=0
while read -r line; do
    n=$((n + 1))
    say command$n=$(scsi /dev/sda $line)
done <<END
in 4096 12 00 00 00 24 00
in 4096 ff 00 00 00 00 00
out 65536 ff 00 00 00 00 00
in 65536 28 00 00 00 10 00 00 00 08 00
in 4096 28 00 00 00 10 00 00 00 80 00
in 4096 28 00 7f ff ff 00 00 00 08 00
out 65536 2a 00 00 00 10 00 00 00 08 00
out 4096 2a 00 00 00 10 00 00 00 80 00
in 4096 00 00 00 00 00 00
out 4096 28 00 00 00 10 00 00 00 08 00
in 4096 2a 00 00 00 10 00 00 00 08 00
out 100 2a 00 00 00 10 00 00 00 01 00
in 100 28 00 00 00 10 00 00 00 01 00
END
usleep 300000 # for usbmon to be read
kill $reader
wait $reader
say lost=$(sed 's/.*text_lost //' /sys/kernel/debug/usb/usbmon/0s)
say report=$(wc -c </tmp/urbs)
dd if=/tmp/urbs of=/dev/sda bs=1M seek=$REPORT_AT conv=fsync status=none
messages DS
"""


class Urb:
    """One request: as it was submitted, then as it came back."""

    def __init__(self, length, words):
        self.length = length
        self.words = words  # what it says besides: the SETUP packet, or a command
        self.status = self.actual = None

    def __repr__(self):
        return f"{self.words} length {self.length}: status {self.status}, length {self.actual}"


LINE = re.compile(r"([0-9a-f]+) \d+ ([SCE]) ([A-Z][io]):(\d+):(\d+):(\d+) (.*)")


def command_of(rest):
    """Of what follows a submission's address: (length, SETUP packet or SCSI command)."""
    words = rest.split()
    setup = ""
    if words[0] == "s":
        setup = " ".join(words[1:6])
        words = words[5:]
    length = int(words[1])
    data = bytes.fromhex("".join(words[3:])) if len(words) > 3 and words[2] == "=" else b""
    # A command block wrapper: its signature, a tag, then what is to be done.
    if length == CBW and data.startswith(b"USBC"):
        setup = "command " + data[8:].hex()
    return length, setup


def endpoints(report):
    """{endpoint: [Urb, ...]} of usbmon's text, in the order of submission; and what was out of order.

    A line: tag, time, event, address, then for a submission "s" and the SETUP packet or "-115", the
    length, and data; for a completion the status, the length, and data. (Linux, usbmon.rst.)
    """
    found, waiting, astray = collections.defaultdict(list), collections.defaultdict(collections.deque), []
    for line in report.splitlines():
        match = LINE.fullmatch(line)
        assert match, f"usbmon said: {line}"
        tag, event, kind, _, device, endpoint, rest = match.groups()
        if int(device) == ROOT_HUB:
            continue
        where = f"{kind}:{int(device)}:{int(endpoint)}"
        assert event in "SC", f"usbmon said: {line}"
        if event == "S":
            urb = Urb(*command_of(rest))
            found[where].append(urb)
            waiting[where].append((tag, urb))
            continue
        expected, urb = waiting[where].popleft() if waiting[where] else (None, Urb(0, "never submitted"))
        if expected != tag:
            astray.append(line)
        urb.status, urb.actual = rest.split()[0], int(rest.split()[1])
    for where, left in waiting.items():
        astray += [f"{where}: {urb} never came back" for _, urb in left]
    return dict(found), astray


def run_with(batch, before):
    settings = "".join(f"{key}={value}\n" for key, value in {
        "FS_MIB": FS_MIB, "DATA_MIB": DATA_MIB, "REPORT_AT": REPORT_AT,
        "SECTORS": f"'{' '.join(map(str, SECTORS))}'"}.items())
    lines = []
    with lab.scratch("test-") as directory:
        image = directory / "disk.img"
        image.write_bytes(before)
        device = lab.disk_device(image, serial="BA5EBA110001", fixed="on")
        with lab.Server([device], controller=f"uhci,batch={batch}") as disk:
            run = lab.run_guest(settings + SCRIPT, disk, name=f"usbmon-{batch}", timeout=240,
                                kernel_options="usb_storage.delay_use=0", on_line=lines.append)
            engine = disk.statistics()["engine"]
        after = image.read_bytes()
    report = after[REPORT_AT * MIB:][:int(run.values["report"])].decode()
    urbs, astray = endpoints(report)
    kept = lab.LOGS / f"usbmon-{batch}.log"  # for the report, where something is wrong
    kept.write_text(report)
    return types.SimpleNamespace(values=run.values, lines=lines, engine=engine, urbs=urbs, astray=astray,
                                 before=before, after=after, kept=kept)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def runs():
    if os.environ.get("LAB_CONTROLLER", "bulkhead") != "bulkhead":
        pytest.skip("two ways of our own are compared")
    before = os.urandom((REPORT_AT + REPORT_MIB) * MIB)
    return {batch: run_with(batch, before) for batch in ("on", "off")}


def test_same_requests_are_given_back_the_same(runs):
    on, off = runs["on"].urbs, runs["off"].urbs
    assert on.keys() == off.keys()
    for endpoint in on:
        ours, theirs = map(str, on[endpoint]), map(str, off[endpoint])
        for number, (one, other) in enumerate(itertools.zip_longest(ours, theirs)):
            assert one == other, f"{endpoint}, request {number}"


@pytest.mark.parametrize("batch", ["on", "off"])
def test_nothing_comes_back_out_of_order_or_not_at_all(runs, batch):
    assert runs[batch].values["lost"] == "0", "usbmon was not read fast enough"
    assert not runs[batch].astray, f"{len(runs[batch].astray)} of them, in {runs[batch].kept}"


def test_one_of_them_was_batched_and_the_other_was_not(runs):
    on, off = runs["on"].engine, runs["off"].engine
    assert off["batches"] == off["packets_in"] + off["packets_out"]
    assert on["batches"] < off["batches"] / 20


def test_session_had_all_that_counts(runs):
    """Control requests, ends of every kind, much data both ways; and the driver had devices to reset."""
    urbs = runs["on"].urbs
    assert set(urbs) == {"Ci:0:0", "Co:0:0", "Ci:2:0", "Co:2:0", "Bo:2:2", "Bi:2:1"}
    assert any(urb.status == "0" and urb.actual < urb.length for urb in urbs["Ci:2:0"])
    assert any(urb.status == "-32" and urb.actual == 0 for urb in urbs["Bo:2:2"])
    assert any(urb.status == "-32" and 0 < urb.actual < urb.length for urb in urbs["Bo:2:2"])
    assert len(urbs["Ci:0:0"]) > 1
    for endpoint in ("Bo:2:2", "Bi:2:1"):
        assert len({urb.length for urb in urbs[endpoint]}) >= 10
        assert sum(urb.actual for urb in urbs[endpoint]) > 2 * MIB


def test_scsi_commands_end_the_same(runs):
    def said(batch):
        return {key: value for key, value in runs[batch].values.items() if key.startswith("command")}

    assert said("on") == said("off")
    assert len(said("on")) == 13 and all(value.startswith("status ") for value in said("on").values())


@pytest.mark.parametrize("batch", ["on", "off"])
def test_data_is_right(runs, batch):
    before, after, values = runs[batch].before, runs[batch].after, runs[batch].values
    file = bytearray(before[FS_MIB * MIB:][:MIB])
    assert values["small"] == hashlib.sha256(file[:37000]).hexdigest()
    file[3 * 12345:23 * 12345] = file[:20 * 12345]
    assert values["file"] == hashlib.sha256(file).hexdigest()
    expected = bytearray(before[:REPORT_AT * MIB])
    for sectors in SECTORS:
        block, skip = sectors * 512, FS_MIB * 2048 // sectors + 1
        to = (skip + DATA_MIB * 2048 // sectors) * block
        expected[to:to + 2 * block] = expected[skip * block:(skip + 2) * block]
    assert sha256(after[FS_MIB * MIB:REPORT_AT * MIB]) == sha256(expected[FS_MIB * MIB:])
    assert after[0x1000 * 512:][:8 * 512] == b"Z" * 8 * 512 != after[0x1008 * 512:][:8 * 512]


@pytest.mark.parametrize("batch", ["on", "off"])
def test_kernel_has_nothing_to_complain_about(runs, batch):
    assert not dmesg.complaints(runs[batch].lines, "DM")
    assert not dmesg.complaints(runs[batch].lines, "DS", RESET)
