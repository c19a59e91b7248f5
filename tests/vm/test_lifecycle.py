"""What a guest's driver and machine may do to us in the middle of things.

Drivers are taken from their device and put back while the disk is read. The guest reboots, is reset
from outside or starts another kernel, in the same machine, while the disk is written. One server goes
through all of that, and has to be the same afterwards.

(Reloading the modules is test_linux.py's.)
"""

import hashlib
import os
import time
import types

import dmesg
import gate
import lab
import pytest

MIB = 1 << 20
LONG = os.environ.get("BULKHEAD_TEST_LONG") == "1"
AT_ONCE = "usb_storage.delay_use=0"  # it waits a second for each disk otherwise
ROUNDS = 25 if LONG else 5


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# --- drivers taken away and put back -----------------------------------------------------

# once_under_way FIELD COMMAND...: does so in the background until it fails, and waits until field 3
# (sectors read) or 7 (sectors written) of the disk's statistics moves.
UNDER_WAY = """
field() { shift $1; echo $1; }
once_under_way() {
    field=$1
    from=$(field $field $(cat /sys/block/sda/stat))
    shift
    while "$@" 2>/dev/null; do :; done &
    until [ $(field $field $(cat /sys/block/sda/stat)) != $from ]; do usleep 5000; done
}
"""

UNBIND = dmesg.MESSAGES + UNDER_WAY + """
. /bh.sh
gone() { # the disk, within 20 s; and who read it was told
    tries=400
    while [ -e /dev/sda ] && [ $tries -gt 0 ]; do tries=$((tries - 1)); usleep 50000; done
    wait $!
    [ ! -e /dev/sda ]
}
again() { wait_for /dev/sda 20 && [ "$(sum_of /dev/sda 1 1)" = "$1" ]; }
rounds() { # NAME DRIVER DEVICE
    done=0
    while [ $done -lt $ROUNDS ]; do
        once_under_way 3 dd if=/dev/sda of=/dev/null bs=256k iflag=direct
        echo $3 >$2/unbind || break
        gone || break
        echo $3 >$2/bind || break
        again $sum || break
        done=$((done + 1))
    done
    say $1=$done
}

wait_for /dev/sda || exit 1
sum=$(sum_of /dev/sda 1 1)
say sum=$sum
interface=$(cd /sys/bus/usb/drivers/usb-storage; ls -d *:1.0)
pci=$(cd /sys/bus/pci/drivers/uhci_hcd; ls -d 0000:*)
messages DM
rounds interface /sys/bus/usb/drivers/usb-storage $interface
messages DI
rounds controller /sys/bus/pci/drivers/uhci_hcd $pci
messages DC
dd if=/dev/sda of=/tmp/data bs=1M count=1 skip=1 iflag=direct status=none
dd if=/tmp/data of=/dev/sda bs=64k seek=32 oflag=direct conv=fsync status=none && say write=done
say read=$(sum_of /dev/sda 3 0)
messages DE
"""


@pytest.fixture(scope="module")
def unbound():
    controller = os.environ.get("LAB_CONTROLLER", "bulkhead")
    lines = []
    with lab.scratch("test-") as directory:
        image = directory / "disk.img"
        before = os.urandom(4 * MIB)
        image.write_bytes(before)
        with lab.disk(controller, image) as disk:
            files = disk.open_files()
            run = lab.run_guest(f"ROUNDS={ROUNDS}\n{UNBIND}", disk, name="unbind", timeout=60 + 8 * ROUNDS,
                                kernel_options=AT_ONCE, on_line=lines.append)
            leaked = disk.leaked_files(files)
        after = image.read_bytes()
    return types.SimpleNamespace(values=run.values, lines=lines, leaked=leaked, before=before, after=after)


@pytest.mark.parametrize("what", ["interface", "controller"])
def test_driver_is_taken_away_and_comes_back(unbound, what):
    assert int(unbound.values[what]) == ROUNDS


def test_disk_is_what_it_was_after_all_drivers_came_back(unbound):
    data = unbound.before[MIB:2 * MIB]
    assert unbound.values["sum"] == sha256(data)
    assert unbound.values.get("write") == "done"
    assert sha256(unbound.after) == sha256(unbound.before[:2 * MIB] + data + unbound.before[3 * MIB:])
    assert unbound.values["read"] == sha256(unbound.after[:3 * MIB])


def test_nothing_leaks_when_drivers_come_and_go(unbound):
    assert not unbound.leaked


def test_kernel_has_nothing_but_the_unplugging_to_complain_about(unbound):
    assert not dmesg.complaints(unbound.lines, "DM")
    assert not dmesg.complaints(unbound.lines, "DI", dmesg.UNPLUGGED)
    assert not dmesg.complaints(unbound.lines, "DC", dmesg.UNPLUGGED)
    assert not dmesg.complaints(unbound.lines, "DE")


# --- the machine stops in the middle of a write, and starts anew ------------------------------

# How the boots end, all but the last in the middle of a write; "held" is a reset while the disk stands
# still. Each boot has a MiB that is flushed, and two that are being written when it ends.
ENDS = ["held", "reboot", "reset", "kexec", *(["reset", "kexec"] * 5 if LONG else []), "reboot", "off"]
FLUSHED_AT, CUT_AT = 4, 4 + len(ENDS)  # in MiB; the data for both are on the disk from the start
SIZE = CUT_AT + 2 * len(ENDS) + 1
COMMAND = 64 << 10
HELD = MIB // 2  # of what is being written when the disk is made to stand still
SECTOR = 512

STOP = dmesg.MESSAGES + UNDER_WAY + """
. /bh.sh
. /ask.sh
set -- $(ask boot)
boot=$1 end=$2
wait_for /dev/sda || exit 1
dd if=/dev/sda of=/tmp/flushed bs=1M count=1 iflag=direct status=none
dd if=/dev/sda of=/tmp/cut bs=1M skip=1 count=2 iflag=direct status=none
to=$((16 * (FLUSHED_AT + boot - 1))) cut_to=$((16 * (CUT_AT + 2 * (boot - 1))))
dd if=/tmp/flushed of=/dev/sda bs=64k seek=$to oflag=direct conv=fsync status=none || exit 1
messages D$boot
case $end in
    off) say disk=$(sha256sum </dev/sda | cut -d ' ' -f 1); exit 0 ;;
    kexec) kexec load /vmlinuz /initrd || exit 1 ;;
    held) ask hold ;;
esac
once_under_way 7 dd if=/tmp/cut of=/dev/sda bs=64k seek=$cut_to oflag=direct
[ $end != kexec ] || kexec now
[ $end != reboot ] || reboot -f
ask reset
sleep 1000
"""


class Cutter:
    """Ends each boot in the way it is to end."""

    def __init__(self, directory):
        self.gate = gate.Gate(directory)
        self.boot = 0
        self.held = None  # whether the disk stood when the machine was reset

    def on_start(self, machine):
        self.machine = machine

    def next(self):
        self.gate.open()
        self.boot += 1
        return f"{self.boot} {ENDS[self.boot - 1]}"

    def hold(self):
        self.gate.hold_writes(CUT_AT * MIB + HELD)

    def reset(self):
        if ENDS[self.boot - 1] == "held":
            deadline = time.monotonic() + 20
            while not self.gate.held() and time.monotonic() < deadline:
                time.sleep(0.005)
            self.held = self.gate.held()
        self.machine.monitor("system_reset")
        return lab.NO_ANSWER

    def answers(self):
        return {"boot": self.next, "hold": self.hold, "reset": self.reset}


@pytest.fixture(scope="module")
def stopped():
    """One machine that is stopped again and again, and starts again each time."""
    gate.skip_where_impossible()
    lines = []
    with lab.scratch("test-") as directory:
        cutter = Cutter(directory)
        image = directory / "disk.img"
        before = os.urandom(SIZE * MIB)
        image.write_bytes(before)
        script = f"FLUSHED_AT={FLUSHED_AT} CUT_AT={CUT_AT}\n{STOP}"
        kernel = {"vmlinuz": (lab.guest_directory() / "vmlinuz").read_bytes()}
        kernel["initrd"] = lab.make_initrd(script)  # a kernel that was started so starts no other
        with lab.BulkheadDisk(image, environment=cutter.gate.environment()) as disk:
            files = disk.open_files()
            try:
                run = lab.run_guest(script, disk, name="stopped", timeout=60 + 30 * len(ENDS), memory=768,
                                    files=kernel, kernel_options=AT_ONCE, reboots=True,
                                    answers=cutter.answers(), on_start=cutter.on_start, on_line=lines.append)
            finally:
                cutter.gate.open()
            leaked = disk.leaked_files(files)
            statistics = disk.statistics()
        return types.SimpleNamespace(run=run, lines=lines, leaked=leaked, held=cutter.held, before=before,
                                     after=image.read_bytes(), statistics=statistics)


def part(image, at, mib):
    return image[at * MIB:(at + mib) * MIB]


def test_every_boot_came_and_the_disk_stood_when_it_should(stopped):
    assert stopped.run.boots == len(ENDS)
    assert stopped.held == 1


@pytest.mark.parametrize("boot", range(len(ENDS)))
def test_what_was_flushed_is_there(stopped, boot):
    assert sha256(part(stopped.after, FLUSHED_AT + boot, 1)) == sha256(part(stopped.before, 0, 1))


@pytest.mark.parametrize("boot", range(len(ENDS) - 1))
def test_what_was_being_written_is_old_or_new(stopped, boot):
    at = CUT_AT + 2 * boot
    new, old, found = part(stopped.before, 1, 2), part(stopped.before, at, 2), part(stopped.after, at, 2)
    if ENDS[boot] == "held":
        assert found[:HELD] == new[:HELD]
        assert found[HELD + COMMAND:] == old[HELD + COMMAND:]
    assert found[:SECTOR] == new[:SECTOR]
    sectors = [slice(sector, sector + SECTOR) for sector in range(0, len(found), SECTOR)]
    assert not [sector for sector in sectors if found[sector] not in (old[sector], new[sector])]


def test_nothing_else_was_written(stopped):
    last = CUT_AT + 2 * (len(ENDS) - 1)
    for at, mib in ((0, FLUSHED_AT), (last, SIZE - last)):
        assert sha256(part(stopped.after, at, mib)) == sha256(part(stopped.before, at, mib))


def test_last_boot_reads_what_is_there(stopped):
    assert stopped.run.values["disk"] == sha256(stopped.after)


def test_server_is_as_before(stopped):
    assert not stopped.leaked
    assert stopped.statistics["devices"][0]["io_errors"] == 0


@pytest.mark.parametrize("boot", range(1, len(ENDS) + 1))
def test_no_kernel_found_anything_wrong(stopped, boot):
    assert not dmesg.complaints(stopped.lines, f"D{boot}")
