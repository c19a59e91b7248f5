"""A disk, a serial line, a keyboard and a test device behind one hub, and behind two, all busy at once.

A Linux guest writes to the disk and reads back, past every cache; sends a counted pattern over the
line while it receives one; is typed at; and has its usbtest driver go through its tests again
and again. No byte and no key may be lost, doubled or wrong, on either side, none of the four may
stand still, and the kernel may have nothing to complain about. BULKHEAD_TEST_LONG=1 makes it last
five minutes.
"""

import hashlib
import os
import sys
import threading
import time
import types

import dmesg
import lab
import pytest
import serialline
import usbtest

KIB, MIB = 1 << 10, 1 << 20
LONG = os.environ.get("BULKHEAD_TEST_LONG") == "1"
SLOTS = 8                 # MiB of the disk that are written, one after the other, over and over
KEPT = 2                  # MiB in front of them that are read, and stay as they are
PERIOD = 10 if LONG else 5  # s; in each of them, something has to become of every device

# What a server may keep when its guest is gone, and grow by when it has warmed up.
GROWTH = 2 * MIB

# As many as there is no way round in a few seconds; each test ends by itself.
TESTS = [row._replace(iterations=max(1, row.iterations // 4)) for row in usbtest.ROWS if row.setting == 0]

SCRIPT = dmesg.MESSAGES + usbtest.FUNCTIONS + """
. /ask.sh
says() { # FILE WORD: within 20 s
    tries=2000
    until grep -q $2 $1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { say "missing=$2 in $1: $(cat $1)"; return 1; }
        usleep 10000
    done
}
modprobe -a evdev usbhid hid-generic cdc_acm || exit 1
usb=/sys/bus/usb/devices
for port in 1 2 3 4; do wait_for $usb/$HUB.$port/idProduct || exit 1; done
wait_for /dev/sda && wait_for /dev/ttyACM0 && wait_for $usb/$HUB.4:3.0 || exit 1
for port in 1 2 3 4; do say found$port=$(cat $usb/$HUB.$port/product); done
# The kernel drops keys if nobody takes them in time: usbtest is to keep nobody waiting.
keys Keyboard 3600 >/tmp/keys &
keys=$!
renice -n -20 -p $keys
says /tmp/keys ready || exit 1
messages DM

disk_work() { # writes each slot in turn, with blocks of many sizes, and reads it, and what is in front of them all
    rounds=0 bad=0
    while [ $(now) -lt $end ]; do
        slot=$((rounds % SLOTS))
        set -- 4 16 64 128 256 512
        shift $((rounds % 6))
        dd if=/dev/urandom of=/tmp/data bs=1M count=1 status=none
        sum=$(sha256sum </tmp/data | cut -d ' ' -f 1)
        dd if=/tmp/data of=/dev/sda bs=${1}k seek=$(((KEPT + slot) * 1024 / $1)) oflag=direct conv=fsync status=none &&
            [ $(sum_of /dev/sda 1 $((KEPT + slot))) = $sum ] && [ $(sum_of /dev/sda $KEPT 0) = $KEPT_SUM ] ||
            bad=$((bad + 1))
        echo $sum >/tmp/slot$slot
        rounds=$((rounds + 1))
    done
    say rounds=$rounds
    say bad_rounds=$bad
}

zero_work() {
    passes=0
    >/tmp/failed
    while [ $(now) -lt $end ]; do
        while read -r setting device pattern test parameters; do
            [ $(now) -lt $end ] || break
            echo $pattern >/sys/module/usbtest/parameters/pattern
            result=$(testusb $device $test $parameters)
            [ "$(echo $result | cut -d ' ' -f 2)" = passed ] || echo $result >>/tmp/failed
            passes=$((passes + 1))
        done </tmp/tests
    done
    say tests=$passes
    say failed_tests=$(sort /tmp/failed | tr '\\n' ,)
}

modprobe usbtest alt=0 || exit 1
serialcheck /dev/ttyACM0 $SECONDS 0 $WINDOW >/tmp/serial 2>&1 &
serial=$!
says /tmp/serial ready || exit 1
ask begin >/dev/null
end=$(($(now) + SECONDS * 100))
disk_work &
disk=$!
zero_work &
zero=$!
wait $serial
say serial=$?
say serial_said=$(tr '\\n' ' ' </tmp/serial)
wait $disk $zero

set -- $(ask typed) # how many events, and their sum
typed() { grep -c '^key [0-9]* [01]$' /tmp/keys; }
tries=1000
until [ $(typed) -ge $1 ]; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || break
    usleep 10000
done
kill $keys
grep '^key [0-9]* [01]$' /tmp/keys >/tmp/typed # not those that the kernel repeats
say keys=$(wc -l </tmp/typed)
sum=$(sha256sum </tmp/typed | cut -d ' ' -f 1)
say keys_sum=$sum
[ $sum = $2 ] || sed 's/^/KEYS /' /tmp/typed
say slots=$(cat /tmp/slot*)
messages DW
"""


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# --- who types -------------------------------------------------------------------------------------

TEXT = "the quick brown fox jumps over the lazy dog 0123456789"
ROWS = {"qwertyuiop": 16, "asdfghjkl": 30, "zxcvbnm": 44, "1234567890": 2, " ": 57}  # input-event-codes.h
CODES = {key: first + number for row, first in ROWS.items() for number, key in enumerate(row)}


class Typist(threading.Thread):
    """Types the text over and over, as fast as it is taken, over a control channel of its own."""

    def __init__(self, path, port):
        super().__init__(daemon=True)
        self.path, self.port = path, port
        self.lines = 0
        self.error = None
        self.stop = threading.Event()

    def run(self):
        try:
            control = lab.Control.connect(self.path)
            while not self.stop.wait(0.2):
                if self._queued(control) < len(TEXT):
                    control.execute("input", port=self.port, text=f"type {TEXT}")
                    self.lines += 1
            control.close()
        except Exception as error:
            self.error = repr(error)

    def _queued(self, control):
        return next(device["counters"]["queued"] for device in control.execute("devices")["devices"]
                    if device["port"] == self.port)

    def expected(self):
        """What `keys` has to say in the guest."""
        return self.lines * "".join(f"key {CODES[key]} {value}\n" for key in TEXT for value in (1, 0))


# --- who watches ------------------------------------------------------------------------------------


class Watch:
    """Looks at what each device has done, once in a PERIOD, and says so."""

    def __init__(self, server, say):
        self.server, self.say = server, say
        self.looks = []
        self.start = None

    def begin(self):
        self.start = time.monotonic()
        self.look()

    def tick(self, *_):
        if self.start is not None and time.monotonic() >= self.start + PERIOD * len(self.looks):
            self.look()

    def end(self):
        self.start = None

    def look(self):
        statistics = self.server.control.execute("statistics")
        done = {device["kind"]: device for device in statistics["devices"]}
        disk, zero, line, keyboard = (done[kind] for kind in ("disk", "zero", "serial", "hid"))
        now = {"disk": disk["bytes_read"] + disk["bytes_written"],
               "line from the guest": line["from_guest"], "line to the guest": line["to_guest"],
               "zero": zero["bulk"]["packets_in"] + zero["bulk"]["packets_out"], "keyboard": keyboard["reports"]}
        self.looks.append((time.monotonic(), now, self.server.resident()))
        self.say(f"{self.looks[-1][0] - self.start:5.0f} s: disk {now['disk'] / MIB:.1f} MiB, line "
                 f"{now['line from the guest'] / KIB:.0f} KiB out, {now['line to the guest'] / KIB:.0f} KiB in, "
                 f"zero {now['zero']} packets, keyboard {now['keyboard']} reports; "
                 f"the server has {self.looks[-1][2] / MIB:.1f} MiB")

    def standing_still(self):
        """(seconds, device) of each period in which nothing became of a device."""
        return [(round(when - self.looks[0][0]), device)
                for (_, before, _), (when, after, _) in zip(self.looks, self.looks[1:])
                for device in after if after[device] == before[device]]


# --- the runs ------------------------------------------------------------------------------------------


class Setup(types.SimpleNamespace):
    """How the devices are plugged in."""


SETUPS = {
    "one hub": Setup(hubs=["hub,ports=7,port=1"], place="1", device="1-1", line="pty={directory}/line",
                     connect=serialline.pseudo_terminal, seconds=300 if LONG else 15),
    "two hubs": Setup(hubs=["hub,ports=4,port=2", "hub,ports=7,port=2.3"], place="2.3", device="1-2.3",
                      line="tcp-listen=127.0.0.1:0", connect=serialline.tcp, seconds=60 if LONG else 8),
}


@pytest.fixture(scope="module", params=SETUPS)
def ran(request):
    """One boot: what everybody counted, and the image before and after."""
    setup = SETUPS[request.param]
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(text):
        with capture.global_and_fixture_disabled():
            print(f"  {request.param}, {text}", file=sys.stderr, flush=True)

    with lab.scratch("test-") as directory:
        image = directory / "disk.img"
        before = os.urandom((KEPT + SLOTS + 1) * MIB)
        image.write_bytes(before)
        result = run(setup, directory, image, sha256(before[:KEPT * MIB]), say)
        return types.SimpleNamespace(before=before, after=image.read_bytes(), **result)


def run(setup, directory, image, kept_sum, say):
    place, lines = setup.place, []
    devices = [*setup.hubs, lab.disk_device(image, port=f"{place}.1"),
               f"serial,{setup.line.format(directory=directory)},port={place}.2",
               f"hid,kind=keyboard,port={place}.3", f"zero,pattern=1,port={place}.4"]
    tests = "".join(usbtest.run_line(row, 1, f"{setup.device}.4")[4:] for row in TESTS if 1 in row.patterns)
    settings = (f"SECONDS={setup.seconds} SLOTS={SLOTS} KEPT={KEPT} KEPT_SUM={kept_sum} HUB={setup.device} WINDOW={serialline.WINDOW}\n"
                f"cat >/tmp/tests <<end\n{tests}end\n")
    with lab.Server(devices, control=True) as server:
        watch, typist = Watch(server, say), Typist(server.control_socket, f"{place}.3")
        server.control.execute("devices")  # by then the server has taken the channel
        files = server.open_files()
        with setup.connect(server, directory / "line") as fd:
            line = serialline.Line(fd)

            def begin():
                for thread in (line, typist):
                    thread.start()
                watch.begin()

            def typed():
                watch.end()
                typist.stop.set()
                typist.join()
                expected = typist.expected()
                return f"{2 * len(TEXT) * typist.lines} {sha256(expected.encode())}"

            # What the kernel says on the serial port is not all there is: time passes here, too.
            guest = lab.run_guest(settings + SCRIPT, server, name="busy", on_line=lambda l: (lines.append(l), watch.tick()),
                                  on_tick=watch.tick, answers={"begin": begin, "typed": typed},
                                  timeout=120 + 2 * setup.seconds)
            line.join(20)
        leaked = server.leaked_files(files)
        return {"setup": setup, "values": guest.values, "lines": lines, "line": line, "typist": typist, "watch": watch,
                "leaked": leaked, "resident": server.resident(), "statistics": server.statistics()}


def test_finds_everything_behind_the_hubs(ran):
    for port, kind in enumerate(("Disk", "Serial", "Keyboard", "Zero"), 1):
        assert kind in ran.values[f"found{port}"]


def test_disk_gives_back_what_was_written(ran):
    assert int(ran.values["rounds"]) > 0
    assert ran.values["bad_rounds"] == "0"


def test_image_holds_what_was_written_and_nothing_else(ran):
    written = ran.values["slots"].split()
    assert len(written) == min(SLOTS, int(ran.values["rounds"]))
    for number in range(KEPT + SLOTS + 1):
        slot = sha256(ran.after[number * MIB:][:MIB])
        if KEPT <= number < KEPT + len(written):
            assert slot == written[number - KEPT]
        else:
            assert slot == sha256(ran.before[number * MIB:][:MIB])


def test_line_loses_no_byte_in_either_direction(ran):
    assert ran.line.error is None and not ran.line.is_alive()
    assert ran.values["serial_said"].split() == ["ready", f"sent={ran.line.received}", f"received={ran.line.sent}"]
    assert ran.values["serial"] == "0"
    assert min(ran.line.received, ran.line.sent) > 64 * KIB


def test_every_key_is_pressed_and_let_go_of_in_order(ran):
    expected = ran.typist.expected()
    got = "".join(line[5:] + "\n" for line in ran.lines if line.startswith("KEYS "))
    assert ran.typist.error is None
    assert ran.typist.lines > 0
    assert not got or got == expected
    assert int(ran.values["keys"]) == expected.count("\n")
    assert ran.values["keys_sum"] == sha256(expected.encode())


def test_usbtest_passes(ran):
    assert int(ran.values["tests"]) > 0
    assert ran.values["failed_tests"] == ""


def test_nobody_stands_still_while_the_others_work(ran):
    assert len(ran.watch.looks) > ran.setup.seconds // PERIOD
    assert not ran.watch.standing_still()


def test_nothing_failed_in_the_controller(ran):
    assert ran.statistics["engine"]["failures"] == 0
    assert ran.statistics["uhci"]["host_errors"] == ran.statistics["uhci"]["process_errors"] == 0
    assert ran.statistics["bus"]["reconnects"] == 0
    assert ran.statistics["vfio_user"]["errors"] == 0


def test_nothing_leaks(ran):
    assert not ran.leaked
    if "BULKHEAD_SANITIZED" not in os.environ:
        looks = [memory for _, _, memory in ran.watch.looks]
        assert ran.resident - looks[0] < GROWTH
        if LONG:  # by half of the time everything has been in use
            assert looks[-1] - looks[len(looks) // 2] < GROWTH


@pytest.mark.parametrize("part", ["DM", "DW"])
def test_kernel_has_nothing_to_complain_about(ran, part):
    assert not dmesg.complaints(ran.lines, part)
