"""Every way to verify queued data, each on a disk of its own, all of them at work at once."""

import hashlib
import os
import types

import lab
import pytest

MIB = 1 << 20
# On ports 1 to 7, which is all that Linux looks at. The first is as it is where nothing is said.
KINDS = ["default", "verify=checksum", "verify=td", "verify=buffer", "verify=exact,verify-when=retry",
         "verify=checksum,verify-when=retry", "verify=exact,verify-when=completion"]

SCRIPT = """
. /bh.sh
copy() { # DEVICE: its first part becomes its second, by way of a file
    port=$(readlink -f /sys/block/$1 | sed 's,.*/usb1/1-\\([0-9]*\\)/.*,\\1,')
    # Commands larger than what the disk takes ahead of the host: some have to wait, and are verified.
    echo 4096 >/sys/block/$1/device/max_sectors
    echo 2048 >/sys/block/$1/queue/max_sectors_kb
    dd if=/dev/$1 of=/tmp/$1 bs=2M count=$((MB / 2)) iflag=direct status=none || return
    dd if=/tmp/$1 of=/dev/$1 bs=2M seek=$((MB / 2)) oflag=direct conv=fsync status=none || return
    sum_of /dev/$1 $MB $MB >/tmp/sum.$port
}
for letter in a b c d e f g; do wait_for /dev/sd$letter || exit 1; done
running=
for letter in a b c d e f g; do copy sd$letter & running="$running $!"; done
wait $running
for sum in /tmp/sum.*; do say port${sum##*.}=$(cat $sum); done
say dmesg=done
dmesg | grep -E 'usb |sd |scsi' | grep -iE 'reset|error|fail|timed|timeout' | sed 's/^/DM /'
"""


@pytest.fixture(scope="module")
def copied():
    """One boot: for each disk what was read back, its data and its image; and the counters."""
    if os.environ.get("LAB_CONTROLLER", "bulkhead") != "bulkhead":
        pytest.skip("Bulkhead alone verifies")
    mib = 8 if os.environ.get("BULKHEAD_TEST_LONG") == "1" else 2
    data = [os.urandom(mib * MIB) for _ in KINDS]
    with lab.scratch("test-") as directory:
        images = [directory / f"{number}.img" for number in range(len(KINDS))]
        for image, content in zip(images, data):
            image.write_bytes(content + bytes(mib * MIB))
        options = []
        for image, kind in list(zip(images, KINDS))[1:]:
            options += ["--device", f"disk,file={image},{kind}"]
        with lab.BulkheadDisk(images[0], controller=f"uhci,ports={len(KINDS)}", options=options) as disk:
            run = lab.run_guest(f"MB={mib}\n{SCRIPT}", disk, name="verify", timeout=300)
            engine = disk.statistics()["engine"]
        after = [image.read_bytes() for image in images]
    complaints = [line for line in run.log.read_text(errors="replace").splitlines() if line.startswith("DM ")]
    return types.SimpleNamespace(values=run.values, data=data, after=after, engine=engine,
                                 complaints=complaints)


@pytest.mark.parametrize("number", range(len(KINDS)), ids=KINDS)
def test_data_is_the_same(copied, number):
    data = copied.data[number]
    assert copied.values.get(f"port{number + 1}") == hashlib.sha256(data).hexdigest()
    assert copied.after[number] == data + data


def test_nothing_was_taken_for_a_change(copied):
    engine = copied.engine
    assert engine["mismatches"] == engine["failures"] == engine["ahead_bytes"] == engine["kept_bytes"] == 0
    assert copied.values.get("dmesg") == "done" and not copied.complaints
