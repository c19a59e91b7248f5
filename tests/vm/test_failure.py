"""FAILURE with Linux's real driver: what the device has already is changed in the guest's memory.

A disk stands still at a byte, so that a batch has been issued and taken in part. Then its
first packet is changed in place, from outside, under the driver's eyes. Nothing can make
that right: the device answers nothing any more, and Linux has to reset it and to repeat
its command. (That a device comes back where nobody resets it is test_uhci's:
failure_without_reset_reconnects.)
"""

import hashlib
import os
import threading
import types

import gate
import lab
import pytest

MIB = 1 << 20
CHUNK = MIB // 4   # what the disk hands to the host at a time
AHEAD = 4 * CHUNK  # what it takes of a write before the first of them is done
LENGTH = 4 * MIB   # of one command: several places to stand at
PACKET = 64

SCRIPT = """
. /bh.sh
wait_for /dev/sda || exit 1
echo 8192 >/sys/block/sda/device/max_sectors # one command for it all
echo 4096 >/sys/block/sda/queue/max_sectors_kb
dmesg -c >/dev/null
# What is written is what the disk has, elsewhere: the host knows that.
dd if=/dev/sda of=/tmp/data bs=4M skip=3 count=2 iflag=direct status=none
dd if=/tmp/data of=/dev/sda bs=4M count=1 oflag=direct status=none &
said=
while kill -0 $! 2>/dev/null; do
    stands=$(standing OUT)
    case $stands in "" | "$said "*) ;; *" IOC "*) said=${stands%% *}; say stands=$stands ;; esac
    usleep 50000
done
wait $! && say first=done
dd if=/tmp/data of=/dev/sda bs=1M skip=4 seek=4 count=4 oflag=direct conv=fsync status=none && say second=done
say sum=$(sum_of /dev/sda 4 4)
dmesg | grep -E 'usb |scsi|sd ' | sed 's/^/DM /' # not the descriptors of what failed
"""


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Scribbler(threading.Thread):
    """Changes a byte of the guest's memory again and again, until it is told to stop."""

    def __init__(self):
        super().__init__(daemon=True)
        self.memory = self.address = None
        self.wake = threading.Event()

    def run(self):
        while not self.wake.wait(0.002):
            if self.address is not None:
                self.memory.bytes[self.address] ^= 0xFF

    def stop(self):
        self.wake.set()
        self.join()


class Host:
    """Where the guest stands, changes what comes next and lets the disk go on by a chunk."""

    def __init__(self, directory, data):
        self.gate = gate.Gate(directory)
        self.gate.hold_writes(0)
        self.data = data
        self.disk = None
        self.scribbler = Scribbler()
        self.stood = []
        self.changed = []   # offsets of packets
        self.before = None  # the counters before the first change
        self.seen = None    # those in which FAILURE showed
        self.kernel = []

    def on_start(self, process):
        self.process = process

    def on_line(self, line):
        if line.startswith("DM "):
            self.kernel.append(line)
        if line.startswith("BH stands="):
            self.look()
        if line.startswith("BH stands=") and not self.seen:
            at, _, _, following = line.split("=")[1].split()
            self.stood.append(int(at))
            self.change(int(at) + PACKET, int(following, 16))
            self.gate.hold_writes(len(self.stood) * CHUNK)

    def change(self, offset, address):
        scribbler = self.scribbler
        if not scribbler.memory:
            self.before = self.disk.statistics()
            scribbler.memory = lab.GuestMemory(self.process)
            scribbler.start()
        there = scribbler.memory.bytes[address:address + PACKET]
        assert there == self.data[offset:offset + PACKET], "this is not the packet we look for"
        self.changed.append(offset)
        scribbler.address = address

    def look(self):
        """Once FAILURE shows, nothing is changed or held any more."""
        if not self.stood or self.seen:
            return
        statistics = self.disk.statistics()
        if statistics["engine"]["failures"]:
            self.seen = statistics
            self.end()

    def end(self):
        if self.scribbler.is_alive():
            self.scribbler.stop()
        self.gate.open()


@pytest.fixture(scope="module")
def failed():
    """One boot: what the guest said, the counters at FAILURE and at the end, the image."""
    gate.skip_where_impossible()
    with lab.scratch("test-") as directory:
        data = os.urandom(2 * LENGTH)
        host = Host(directory, data)
        image = directory / "disk.img"
        image.write_bytes(bytes(3 * LENGTH) + data)
        with lab.BulkheadDisk(image, environment=host.gate.environment()) as disk:
            host.disk = disk
            try:
                run = lab.run_guest(gate.STANDING + SCRIPT, disk, name="failure", timeout=90,
                                    kernel_options=gate.STANDING_OPTIONS, on_start=host.on_start,
                                    on_line=host.on_line, on_tick=host.look)
            finally:
                host.end()
            statistics = disk.statistics()
        return types.SimpleNamespace(
            values=run.values, kernel=host.kernel, stood=host.stood, changed=host.changed, before=host.before,
            seen=host.seen, statistics=statistics, data=data, after=image.read_bytes())


def test_change_of_what_the_device_has_is_failure(failed):
    assert failed.stood[0] == AHEAD
    assert failed.seen, f"no FAILURE, though the guest stood at {failed.stood}"
    before, engine = failed.before["engine"], failed.seen["engine"]
    assert before["mismatches"] == before["failures"] == 0
    assert engine["mismatches"] >= 1 and engine["failures"] >= 1


def test_driver_is_not_answered_and_resets(failed):
    assert failed.statistics["bus"]["unanswered"] > failed.before["bus"]["unanswered"]
    assert [line for line in failed.kernel if "reset full-speed USB device" in line], failed.kernel
    assert failed.statistics["bus"]["reconnects"] == 0, "the driver left it to us"
    assert not [line for line in failed.kernel if "disconnect" in line]


def test_driver_repeats_what_failed(failed):
    assert failed.values.get("first") == "done"
    written, expected = bytearray(failed.after[:LENGTH]), bytearray(failed.data[:LENGTH])
    for at in failed.changed:
        written[at:at + PACKET] = expected[at:at + PACKET] = bytes(PACKET)
    assert sha256(written) == sha256(expected)


def test_device_works_afterwards(failed):
    data = failed.data[LENGTH:]
    assert failed.values.get("second") == "done"
    assert failed.values["sum"] == sha256(failed.after[LENGTH:2 * LENGTH]) == sha256(data)
    assert failed.statistics["engine"]["failures"] == failed.seen["engine"]["failures"]
