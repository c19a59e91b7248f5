"""Sleep, waking, and devices that come and go, in a Linux guest, over and over.

A keyboard behind a hub falls asleep with everything above it, up to the controller itself, and a
key pressed wakes it all; a device comes to a controller that has nothing to do and has stopped
itself; a disk is pulled out while it is read, alone or with the hub it hangs from, and put back.
Nothing may leak, hang or be lost on the way.
"""

import hashlib
import os
import re
import types

import dmesg
import lab
import pytest

MIB = 1 << 20
LONG = os.environ.get("BULKHEAD_TEST_LONG") == "1"
ROUNDS = 100 if LONG else 3
KEYS = {"a": 30, "b": 48}  # linux/input-event-codes.h

# Of a disk whose hub goes, too, the driver hears before the hub's: it tries in vain to reset it there
# (-71: EPROTO).
HUB_GONE = re.compile(dmesg.UNPLUGGED.pattern + r"|usb 1-1-port3: (cannot (reset|disable) \(err = -71\)|Cannot enable\.)")

# What a server may grow by in all of its rounds: buffers of the first ones stay for the others.
GROWTH = 2 * MIB

FUNCTIONS = dmesg.MESSAGES + """
. /bh.sh
. /ask.sh
usb=/sys/bus/usb/devices
becomes() { # FILE VALUE: within 20 s
    tries=2000
    until [ "$(cat $1 2>/dev/null)" = "$2" ]; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { say "stuck=$1 is $(cat $1 2>&1), not $2"; return 1; }
        usleep 10000
    done
}
goes() { # PATH: within 20 s
    tries=2000
    while [ -e $1 ]; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { say "stuck=$1 is still there"; return 1; }
        usleep 10000
    done
}
# Not at once: a kernel that wants to put a keyboard to sleep between a key's press and its release
# gives up, and with no delay for good.
sleeps() { # DEVICE...: when nobody has used it for 0.1 s, and wakes for what happens to it
    for device; do
        echo enabled >$usb/$device/power/wakeup 2>/dev/null
        [ ! -e $usb/$device/power/autosuspend_delay_ms ] || echo 100 >$usb/$device/power/autosuspend_delay_ms
        echo auto >$usb/$device/power/control
    done
}
"""

SLEEP = FUNCTIONS + """
modprobe -a evdev usbhid hid-generic || exit 1
wait_for $usb/1-1.2:1.0 || exit 1
keys Keyboard 600 >/tmp/keys &
until grep -q ready /tmp/keys; do usleep 10000; done
typed() { # NUMBER: so many keys were pressed and let go of
    tries=2000
    until [ "$(grep -c '^key .* 0$' /tmp/keys)" = $1 ]; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { say "stuck=$1 keys: $(tail -n 3 /tmp/keys)"; return 1; }
        usleep 10000
    done
}
ask type a >/dev/null && typed 1 || exit 1
messages DM

woken=0
sleeps usb1 1-1 1-1.2
while [ $woken -lt $ROUNDS ]; do
    becomes $usb/usb1/power/runtime_status suspended || break
    [ $woken != 0 ] || say asleep=$(ask look)
    ask type b >/dev/null
    typed $((woken + 2)) || break
    woken=$((woken + 1))
done
say woken=$woken
messages DW

resumed=0
while [ $resumed -lt $ROUNDS ]; do
    becomes $usb/1-1/power/runtime_status suspended || break
    echo on >$usb/1-1.2/power/control
    becomes $usb/1-1.2/power/runtime_status active || break
    [ $resumed != 0 ] || say awake=$(ask look)
    ask type a >/dev/null
    typed $((woken + resumed + 2)) || break
    echo auto >$usb/1-1.2/power/control
    resumed=$((resumed + 1))
done
say resumed=$resumed
say keys=$(grep '^key' /tmp/keys | cut -d ' ' -f 2,3 | sort | uniq -c | tr -s ' \\n' ' ,')
messages DR
"""

EMPTY = FUNCTIONS + """
mount -t debugfs none /sys/kernel/debug
stops() { # with nothing plugged in, the driver stops the controller after a second; within 20 s
    tries=2000
    until grep -q auto-stopped /sys/kernel/debug/usb/uhci/*; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { say "stuck=$(grep state /sys/kernel/debug/usb/uhci/*)"; return 1; }
        usleep 10000
    done
}
rounds() { # NAME COMMAND...: the command waits for the controller to have nothing to do
    name=$1 done=0
    shift
    while [ $done -lt $ROUNDS ]; do
        "$@" || break
        ask add zero,port=1 >/dev/null
        wait_for $usb/1-1/idProduct 20 || break
        becomes $usb/1-1/bConfigurationValue 3 || break
        ask remove 1 >/dev/null
        goes $usb/1-1 || break
        done=$((done + 1))
    done
    say $name=$done
}
echo on >$usb/usb1/power/control
rounds while_stopped stops
messages DS
sleeps usb1
rounds while_asleep becomes $usb/usb1/power/runtime_status suspended
messages DA
"""

PULL = FUNCTIONS + """
wait_for /dev/sda || exit 1
sum=$(sum_of /dev/sda 1 0)
say sum=$sum
messages DM
rounds() { # NAME PORT DEVICE...: what is pulled out, and what is plugged in again
    name=$1 port=$2 done=0
    shift 2
    while [ $done -lt $ROUNDS ]; do
        while dd if=/dev/sda of=/dev/null bs=256k iflag=direct 2>/dev/null; do :; done &
        reader=$!
        usleep $((20000 + done % 7 * 13000))
        ask remove $port >/dev/null
        wait $reader
        goes /dev/sda || break
        for device; do ask add $device >/dev/null; done
        wait_for /dev/sda 20 || break
        [ "$(sum_of /dev/sda 1 0)" = $sum ] || { say "wrong=$(sum_of /dev/sda 1 0)"; break; }
        done=$((done + 1))
    done
    say $name=$done
}
rounds alone 1.3 disk,port=1.3
messages DA
rounds with_hub 1 hub,port=1 disk,port=1.3
messages DH
dd if=/dev/urandom of=/tmp/data bs=64k count=4 status=none
dd if=/tmp/data of=/dev/sda bs=64k oflag=direct conv=fsync status=none && say written=$(sha256sum </tmp/data | cut -d ' ' -f 1)
"""


def run(name, script, devices, answers=None, image=None):
    lines, looks = [], []
    with lab.Server(devices, control=True) as server:
        control = server.control

        def add(device):
            if device.startswith("disk,"):
                device += ",file=" + str(image).replace(",", ",,")
            control.execute("device-add", device=device)

        def look():
            looks.append({device["port"]: device for device in control.execute("devices")["devices"]})
            return len(looks)

        answers = {
            "add": add,
            "remove": lambda port: control.execute("device-remove", port=port) and None,
            "type": lambda key: control.execute("input", port="1.2", text=f"key {key}") and None,
            "look": look,
        }
        control.execute("devices")  # it has noticed us: we count among its files
        files, memory = server.open_files(), server.resident()
        guest = lab.run_guest(f"ROUNDS={ROUNDS}\n{script}", server, name=name, on_line=lines.append,
                              answers=answers, timeout=100 + 10 * ROUNDS)
        return types.SimpleNamespace(values=guest.values, lines=lines, looks=looks, leaked=server.leaked_files(files),
                                     growth=server.resident() - memory, statistics=server.statistics())


def nothing_leaked(ran):
    assert not ran.leaked
    if "BULKHEAD_SANITIZED" not in os.environ:
        assert ran.growth < GROWTH


# --- sleep ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slept():
    return run("sleep", SLEEP, ["hub,port=1", "hid,kind=keyboard,port=1.2"])


def test_a_key_wakes_a_keyboard_its_hub_and_the_controller(slept):
    assert "stuck" not in slept.values, slept.values["stuck"]
    assert int(slept.values["woken"]) == ROUNDS
    asleep = slept.looks[int(slept.values["asleep"]) - 1]
    assert asleep["1"]["suspended"] and asleep["1.2"]["suspended"]


def test_a_guest_resumes_what_it_has_suspended(slept):
    assert int(slept.values["resumed"]) == ROUNDS
    awake = slept.looks[int(slept.values["awake"]) - 1]
    assert not awake["1"]["suspended"] and not awake["1.2"]["suspended"]


def test_no_key_is_lost_in_sleep(slept):
    a, b = ROUNDS + 1, ROUNDS
    assert slept.values["keys"] == "".join(f" {count} {KEYS[key]} {value},"
                                           for key, count in (("a", a), ("b", b)) for value in (0, 1))


def test_sleep_leaks_nothing(slept):
    nothing_leaked(slept)


@pytest.mark.parametrize("part", ["DM", "DW", "DR"])
def test_kernel_has_nothing_to_complain_about_in_sleep(slept, part):
    assert not dmesg.complaints(slept.lines, part)


# --- a controller with nothing to do ------------------------------------------------------------


@pytest.fixture(scope="module")
def empty():
    return run("empty", EMPTY, [])


@pytest.mark.parametrize("how", ["while_stopped", "while_asleep"])
def test_a_device_is_noticed_by_a_controller_that_has_nothing_to_do(empty, how):
    assert "stuck" not in empty.values, empty.values["stuck"]
    assert int(empty.values[how]) == ROUNDS


def test_coming_and_going_leaks_nothing(empty):
    nothing_leaked(empty)


@pytest.mark.parametrize("part", ["DS", "DA"])
def test_kernel_has_nothing_to_complain_about_when_devices_come_and_go(empty, part):
    assert not dmesg.complaints(empty.lines, part)


# --- pulled out ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pulled():
    with lab.scratch("test-") as directory:
        image = directory / "disk.img"
        before = os.urandom(4 * MIB)
        image.write_bytes(before)
        ran = run("pull", PULL, ["hub,port=1", lab.disk_device(image, port="1.3")], image=image)
        ran.before, ran.after = before, image.read_bytes()
    return ran


@pytest.mark.parametrize("how", ["alone", "with_hub"])
def test_a_disk_pulled_out_while_it_is_read_comes_back(pulled, how):
    assert "stuck" not in pulled.values, pulled.values["stuck"]
    assert pulled.values["sum"] == hashlib.sha256(pulled.before[:MIB]).hexdigest()
    assert "wrong" not in pulled.values
    assert int(pulled.values[how]) == ROUNDS


def test_pulling_out_harms_no_byte(pulled):
    assert pulled.values["written"] == hashlib.sha256(pulled.after[:4 << 16]).hexdigest()
    assert pulled.after[4 << 16:] == pulled.before[4 << 16:]


def test_pulling_out_leaks_nothing(pulled):
    nothing_leaked(pulled)


@pytest.mark.parametrize("part", ["DM", "DA", "DH"])
def test_kernel_complains_of_nothing_but_the_pulling_out(pulled, part):
    assert not dmesg.complaints(pulled.lines, part, {"DM": None, "DA": dmesg.UNPLUGGED, "DH": HUB_GONE}[part])
