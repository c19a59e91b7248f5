"""The tests of Linux's usbtest driver: which there are, with what parameters, and a script that runs them.

A row is one test with its parameters. It is run on each of the devices it is meant for: two
gadgets zero, one with zeroes and one with a pattern that says where in a packet a byte is.
"""

import os
from typing import NamedTuple

LONG = os.environ.get("BULKHEAD_TEST_LONG") == "1"
LONGER = 10
BOTH = (0, 1)


class Row(NamedTuple):
    test: int
    what: str
    setting: int          # the alternate setting it needs
    patterns: tuple       # it is run with
    iterations: int
    length: int = 0       # 0: the test has no use for it
    vary: int = 0
    sglen: int = 0

    def shorter(self, by):
        return self._replace(iterations=max(1, self.iterations // by))

    def scaled(self):
        return self._replace(iterations=self.iterations * (LONGER if LONG else 1))

    def parameters(self):
        return {"iterations": self.iterations, "length": self.length, "vary": self.vary, "sglen": self.sglen}

    def load(self):
        """For a table."""
        text = f"{self.iterations}"
        if self.sglen:
            text += f" x {self.sglen}"
        if self.length:
            text += f" x {'1..' if self.vary else ''}{self.length} bytes"
        return text + (f", by {self.vary}" if self.vary else "")


# Bytes read come in whole packets, so that lengths of 4, 6, 8 and the like are multiples of 64;
# 7 as well, for the controller takes lists of nothing else. Those written are odd where they may be.
ROWS = [
    Row(0, "nothing", 0, BOTH, 1),
    Row(1, "bulk OUT, one at a time", 0, BOTH, 500, 8192),
    Row(2, "bulk IN, one at a time", 0, BOTH, 500, 8192),
    Row(3, "bulk OUT of varying length", 0, BOTH, 500, 8192, vary=421),
    Row(4, "bulk IN of varying length", 0, BOTH, 500, 8192, vary=448),
    Row(5, "bulk OUT, queued", 0, BOTH, 32, 4096, sglen=32),
    Row(6, "bulk IN, queued", 0, BOTH, 32, 4096, sglen=32),
    Row(7, "bulk OUT of varying length, queued", 0, BOTH, 64, 4096, vary=448, sglen=32),
    Row(8, "bulk IN of varying length, queued", 0, BOTH, 64, 4096, vary=448, sglen=32),
    Row(9, "chapter 9 requests", 0, (0,), 100),
    Row(10, "control requests, queued: STALLs, short reads, in order", 0, (0,), 200, sglen=32),
    Row(11, "unlink a bulk IN", 0, BOTH, 50, 16384),
    Row(12, "unlink a bulk OUT", 0, BOTH, 50, 16384),
    Row(13, "set and clear halts", 0, BOTH, 50),
    Row(14, "control OUT, read back", 0, (0,), 500, 4096, vary=149),
    Row(17, "bulk OUT from an odd address, mapped", 0, BOTH, 200, 4099),
    Row(18, "bulk IN to an odd address, mapped", 0, BOTH, 200, 4096),
    Row(19, "bulk OUT from an odd address, coherent", 0, BOTH, 200, 4099),
    Row(20, "bulk IN to an odd address, coherent", 0, BOTH, 200, 4096),
    Row(21, "control OUT from an odd address, read back", 0, (0,), 500, 4096, vary=149),
    Row(24, "unlink from a queue of bulk OUTs", 0, BOTH, 100, 4096, sglen=16),
    Row(27, "bulk OUT, a queue that is never empty", 0, (0,), 64, 16384, sglen=8),
    Row(28, "bulk IN, a queue that is never empty", 0, (0,), 64, 16384, sglen=8),
    Row(29, "clear the toggle between bulk OUTs", 0, BOTH, 200),
    # Four packets each, one in eight frames: Linux's schedule of 1024 frames has no room for more than 128.
    Row(15, "isochronous OUT", 1, (0,), 8, 4 * 1023, sglen=8),
    Row(16, "isochronous IN", 1, (0,), 8, 4 * 1023, sglen=8),
    Row(22, "isochronous OUT from an odd address", 1, (0,), 8, 4 * 1023, sglen=8),
    Row(23, "isochronous IN to an odd address", 1, (0,), 8, 4 * 1023, sglen=8),
    Row(25, "interrupt OUT", 2, BOTH, 500, 64),
    Row(26, "interrupt IN", 2, BOTH, 500, 64),
]

# run SETTING DEVICE PATTERN TEST PARAMETER...: the tests of one setting come one after the other.
# $again tells a test that is run more than once from its other runs.
FUNCTIONS = """
. /bh.sh
setting=none
again=
run() {
    if [ $setting != $1 ]; then
        [ $setting = none ] || rmmod usbtest || exit 1
        modprobe usbtest alt=$1 || exit 1
        setting=$1
    fi
    device=$2
    pattern=$3
    shift 3
    echo $pattern >/sys/module/usbtest/parameters/pattern || exit 1
    result=$(testusb $device "$@")
    say test-${result%% *}-$pattern$again="${result#* }"
}
"""


def run_line(row, pattern, device, **changes):
    parameters = " ".join(f"{name}={value}" for name, value in {**row.scaled().parameters(), **changes}.items())
    return f"run {row.setting} {device} {pattern} {row.test} {parameters}\n"


def script(rows, devices):
    """For the guest: `devices` are the places of those with each pattern. To come after FUNCTIONS."""
    return "".join(run_line(row, pattern, devices[pattern]) for row in rows for pattern in row.patterns)


def script_after(rows, followers, devices):
    """Each row, and after it the followers with the same pattern: their results are `after` the row's test."""
    return "".join(f"again=\n{run_line(row, pattern, devices[pattern])}again=-after-{row.test}\n"
                   + "".join(run_line(follower, pattern, devices[pattern]) for follower in followers)
                   for row in rows for pattern in row.patterns) + "again=\n"


def result(values, test, pattern, after=None):
    """What became of it: ("passed" or an error's name, seconds)."""
    again = "" if after is None else f"-after-{after}"
    status, seconds = values.get(f"test-{test}-{pattern}{again}", "lost 0").split()
    return status, float(seconds)
