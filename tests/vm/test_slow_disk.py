"""A Linux guest whose disk makes no progress: its driver unlinks, flags and links again what stands.

uhci-hcd takes a queue that made no progress for 200 ms out of the schedule, sets IOC in its
first descriptor and links it again. A disk stands still at a byte here for as long as the
driver needs to do that, and for more than 500 ms; twice on the way out and twice on the way
in. Nothing may be sent twice, be lost, or be noticed by anybody.

Once with everything as it usually is: a batch ends after 50 to 100 ms, and one packet stands.
Once with patience without end: a batch stands of which the device has, or has given, a part.
"""

import hashlib
import os
import re
import types

import gate
import lab
import pytest

MIB = 1 << 20
CHUNK = MIB // 4   # what the disk hands to the host at a time
AHEAD = 4 * CHUNK  # what it takes of a write before the first of them is done
LENGTH = 2 * MIB   # of one command
WRITTEN_AT, READ_AT = 1 * LENGTH, 2 * LENGTH
BATCH = 96 << 10   # where one is set: no divisor of a chunk, so that it is moved in part
KINDS = {
    "one-packet": ("uhci", {"OUT": [AHEAD, AHEAD + CHUNK], "IN": [0, CHUNK]}),
    "batch": (f"uhci,linger=60000000,batch-bytes={BATCH}",
              {way: [at - at % BATCH for at in places]
               for way, places in (("OUT", [AHEAD, AHEAD + CHUNK]), ("IN", [0, CHUNK]))}),
}
CBW, CSW = 31, 13  # bytes around each command

BAD = re.compile(r"(usb|uhci|scsi|\bsd|i/o).*(error|fail|reset|timed|timeout|stall|abort|disconnect)", re.I)

SCRIPT = """
. /bh.sh
stalls() { # IN|OUT, while dd runs: says where the request stands, flagged, and so for 600 ms
    said=
    while kill -0 $! 2>/dev/null; do
        usleep 50000
        first=$(standing $1)
        case $first in "" | "$said "*) continue ;; *" IOC "*) ;; *) continue ;; esac
        usleep 600000
        [ "$(standing $1)" = "$first" ] || continue
        said=${first%% *}
        say $1=$said
    done
    wait $!
}

wait_for /dev/sda || exit 1
wait_for /sys/block/sda/device/max_sectors || exit 1 # comes a moment later
echo 4096 >/sys/block/sda/device/max_sectors || exit 1 # one command for it all
echo 2048 >/sys/block/sda/queue/max_sectors_kb || exit 1
dd if=/dev/urandom of=/tmp/data bs=1M count=2 status=none
dmesg -c >/dev/null
dd if=/tmp/data of=/dev/sda bs=2M seek=1 count=1 oflag=direct status=none &
stalls OUT && say write=done
say data=$(sha256sum </tmp/data | cut -d ' ' -f 1)
dd if=/dev/sda of=/tmp/back bs=2M skip=2 count=1 iflag=direct status=none &
stalls IN && say read=done
say back=$(sha256sum </tmp/back | cut -d ' ' -f 1)
dmesg | sed 's/^/DM /'
say dmesg=done
"""


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Host:
    """Where the guest stands, lets the disk go on: by one chunk, then altogether."""

    def __init__(self, directory):
        self.disk = None
        self.reading = None  # the counters when the first byte is still to be read
        self.gate = gate.Gate(directory)
        self.gate.hold_writes(WRITTEN_AT)
        self.gate.hold_reads(READ_AT)
        self.stood = {"OUT": [], "IN": []}
        self.kernel = []

    def on_line(self, line):
        if line.startswith("DM "):
            self.kernel.append(line)
        answer = re.fullmatch("BH (IN|OUT)=([0-9]+)", line)
        if answer:
            way, at = answer[1], int(answer[2])
            self.stood[way].append(at)
            if self.stood["IN"] == [0]:
                self.reading = self.disk.statistics()
            assert self.gate.held(), "the guest stands, but not for the disk"
            first = len(self.stood[way]) == 1
            if way == "OUT":
                self.gate.hold_writes(WRITTEN_AT + CHUNK if first else gate.NOWHERE)
            else:
                self.gate.hold_reads(READ_AT + CHUNK if first else gate.NOWHERE)


@pytest.fixture(scope="module", params=KINDS)
def stood(request):
    """One boot: where the guest stood, what it said, the server's counters and the image."""
    gate.skip_where_impossible()
    controller, expected = KINDS[request.param]
    with lab.scratch("test-") as directory:
        host = Host(directory)
        image = directory / "disk.img"
        before = bytes(READ_AT) + os.urandom(LENGTH)
        image.write_bytes(before)
        with lab.BulkheadDisk(image, controller=controller, environment=host.gate.environment()) as disk:
            host.disk = disk
            run = lab.run_guest(gate.STANDING + SCRIPT, disk, name="slow-disk", timeout=90,
                                kernel_options=gate.STANDING_OPTIONS, on_line=host.on_line)
            statistics = disk.statistics()
        return types.SimpleNamespace(
            values=run.values, stood=host.stood, kernel=host.kernel, writes=host.gate.writes(),
            engine=statistics["engine"], disk=statistics["devices"][0], reading=host.reading,
            expected=expected, lingers="linger" not in controller, before=before, after=image.read_bytes())


def test_driver_flags_what_stands_and_goes_on(stood):
    assert stood.stood == stood.expected
    assert stood.values.get("write") == stood.values.get("read") == "done"
    assert (stood.engine["cancels"]["linger"] > 0) == stood.lingers


def test_everything_is_written_once(stood):
    written = [(WRITTEN_AT + at, CHUNK) for at in range(0, LENGTH, CHUNK)]
    assert stood.writes == written
    assert stood.disk["bytes_written"] == LENGTH
    assert stood.engine["bytes_out"] == LENGTH + CBW * stood.disk["commands"]


def test_everything_is_read_once(stood):
    before = stood.reading
    ended = 1 + stood.disk["commands"] - before["devices"][0]["commands"]
    assert stood.disk["bytes_read"] == before["devices"][0]["bytes_read"] + LENGTH
    assert stood.engine["bytes_in"] == before["engine"]["bytes_in"] + LENGTH + CSW * ended


def test_nothing_was_ahead_or_kept(stood):
    engine = stood.engine
    assert engine["ahead_bytes"] == engine["kept_bytes"] == 0
    assert engine["cancels"]["changed"] == engine["cancels"]["withdrawn"] == 0
    assert engine["mismatches"] == engine["failures"] == engine["failed_packets"] == 0


def test_data_is_what_it_was(stood):
    assert sha256(stood.after[WRITTEN_AT:READ_AT]) == stood.values["data"]
    assert stood.after[:WRITTEN_AT] == stood.before[:WRITTEN_AT]
    assert stood.after[READ_AT:] == stood.before[READ_AT:]
    assert stood.values["back"] == sha256(stood.before[READ_AT:])


def test_kernel_has_nothing_to_complain_about(stood):
    assert stood.values.get("dmesg") == "done"
    assert not [line for line in stood.kernel if BAD.search(line)]
