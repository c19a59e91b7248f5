"""Keyboard, mouse and tablet with drivers no one here wrote: Linux's usbhid, and SeaBIOS.

Linux's input events are compared one by one with what was said. SeaBIOS reads its keyboard in
the boot protocol; that a key that is held repeats is owed to idle reports alone.
"""

import base64
import os
import struct
import time
import types

import lab
import pytest

EV_KEY, EV_REL, EV_ABS = 1, 2, 3
REL_X, REL_Y, REL_WHEEL, REL_WHEEL_HI_RES = 0, 1, 8, 11
BTN_LEFT, BTN_SIDE = 0x110, 0x113
KEY_LEFTSHIFT = 42
# By linux/input-event-codes.h: the keys of a US keyboard, row by row, as they are numbered there.
ROWS = {2: "1234567890-=\b\t", 16: "qwertyuiop[]\n", 30: "asdfghjkl;'`", 43: "\\zxcvbnm,./", 57: " "}
SHIFTED = dict(zip('!@#$%^&*()_+{}:"~|<>?', "1234567890-=[];'`\\,./"))
CODES = {c: first + i for first, row in ROWS.items() for i, c in enumerate(row)}
TEXT = "".join(chr(c) for c in range(0x20, 0x7f)) + "\n\t\b"


def escaped(text):
    for plain, said in ("\\", "\\\\"), (";", "\\;"), ("\n", "\\n"), ("\t", "\\t"), ("\b", "\\b"):
        text = text.replace(plain, said)
    return text


def key_events(text):
    """(code, value) of each press and release."""
    events = []
    for c in text:
        shift = c in SHIFTED or c.isupper()
        code = CODES[SHIFTED.get(c, c.lower())]
        events += [(KEY_LEFTSHIFT, 1)] * shift + [(code, 1), (code, 0)] + [(KEY_LEFTSHIFT, 0)] * shift
    return events


# For a guest's script. record EVENT FILE: what that input device says from now on; it is open when this returns.
RECORD = """
record() {
    cat <$1 >$2 &
    until [ "$(readlink /proc/$!/fd/0)" = $1 ]; do usleep 10000; done
}
"""

SCRIPT = RECORD + """
. /bh.sh
. /ask.sh
modprobe -a usbhid hid_generic evdev || exit 1
event_of() { # NAME: its /dev/input/eventN
    grep -l "^Bulkhead $1\\$" /sys/class/input/event*/device/name | sed 's,/device/name,,;s,.*/,/dev/input/,'
}
for name in Keyboard Mouse Tablet; do
    tries=200
    until [ -n "$(event_of $name)" ]; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { say missing=$name; exit 1; }
        usleep 50000
    done
    wait_for $(event_of $name)
    record $(event_of $name) /tmp/$name
done
for device in /sys/bus/usb/devices/1-*; do
    [ -e $device/product ] && say speed_$(cat $device/product)=$(cat $device/speed)
done
ask say >/dev/null
for name in Keyboard Mouse Tablet; do
    last=none
    until [ "$last" = "$(stat -c %s /tmp/$name)" ]; do last=$(stat -c %s /tmp/$name); usleep 700000; done
    say $name=$(base64 -w 0 /tmp/$name)
done
for led in /sys/class/leds/input*::capslock; do echo 1 >$led/brightness; done
say leds=$(ask leds)
"""


def events_of(text):
    """Of an evdev file, without its ends of reports and scan codes."""
    events = struct.iter_unpack("<qqHHi", base64.b64decode(text))
    return [event[2:] for event in events if event[2] in (EV_KEY, EV_REL, EV_ABS)]


@pytest.fixture(scope="module", params=["full", "low"])
def linux(request):
    if os.environ.get("LAB_CONTROLLER", "bulkhead") != "bulkhead":
        pytest.skip("these devices are our own server's")
    speed = request.param
    devices = [f"hid,kind=keyboard,speed={speed},port=1", "hub,port=2",
               f"hid,kind=mouse,buttons=5,speed={speed},port=2.1", f"hid,kind=tablet,speed={speed},port=2.4"]
    with lab.Server(devices, control=True) as server:
        def say():
            server.control.execute("input", port="1", text=f"type {escaped(TEXT)}\nkey ctrl+alt+x")
            server.control.execute("input", port="2.1", text="move 100 -50;click side;wheel -3;move -300 5")
            server.control.execute("input", port="2.4", text="at 32767 1;click left;at 16384 9;wheel 2")

        def leds():  # they are set a little later
            for _ in range(50):
                if now := leds_now():
                    return now
                time.sleep(0.1)

        def leds_now():
            return next(d["leds"] for d in server.statistics()["devices"] if d.get("input") == "keyboard")

        run = lab.run_guest(SCRIPT, server, name=f"hid-{speed}", timeout=120,
                            answers={"say": say, "leds": leds})
    return types.SimpleNamespace(values=run.values, speed=speed)


def test_speed_is_the_one_asked_for(linux):
    expected = "1.5" if linux.speed == "low" else "12"
    assert {linux.values[f"speed_{name}"] for name in ("Keyboard", "Mouse", "Tablet")} == {expected}


def test_every_character_is_pressed_and_released(linux):
    combination = [29, 56, CODES["x"]]
    keys = [event[1:] for event in events_of(linux.values["Keyboard"]) if event[0] == EV_KEY]
    assert keys == (key_events(TEXT) + [(code, 1) for code in combination]
                    + [(code, 0) for code in reversed(combination)])


def test_mouse_goes_where_it_is_told(linux):
    assert events_of(linux.values["Mouse"]) == [
        (EV_REL, REL_X, 100), (EV_REL, REL_Y, -50), (EV_KEY, BTN_SIDE, 1), (EV_KEY, BTN_SIDE, 0),
        (EV_REL, REL_WHEEL, -3), (EV_REL, REL_WHEEL_HI_RES, -360),
        (EV_REL, REL_X, -100), (EV_REL, REL_Y, 1), (EV_REL, REL_X, -100), (EV_REL, REL_Y, 2),
        (EV_REL, REL_X, -100), (EV_REL, REL_Y, 2)]


def test_tablet_is_where_it_is_told(linux):
    assert events_of(linux.values["Tablet"]) == [
        (EV_ABS, REL_X, 32767), (EV_ABS, REL_Y, 1), (EV_KEY, BTN_LEFT, 1), (EV_KEY, BTN_LEFT, 0),
        (EV_ABS, REL_X, 16384), (EV_ABS, REL_Y, 9), (EV_REL, REL_WHEEL, 2), (EV_REL, REL_WHEEL_HI_RES, 240)]


def test_led_is_told_to_the_keyboard(linux):
    assert linux.values["leds"] == "2"


# --- Linux, asleep ---------------------------------------------------------------------------

ROUNDS = 25 if os.environ.get("BULKHEAD_TEST_LONG") == "1" else 3
# Not at once: usbhid loses what comes in the very moment it takes its request back.
SLEEP = RECORD + """
. /bh.sh
. /ask.sh
modprobe -a usbhid hid_generic evdev || exit 1
device=/sys/bus/usb/devices/$(cat /proc/cmdline | sed 's/.*keyboard=//')
wait_for $device || exit 1
tries=200
until event=$(ls -d $device/*/*/input/input*/event* 2>/dev/null) || [ $((tries -= 1)) -le 0 ]; do usleep 50000; done
event=/dev/input/${event##*/}
wait_for $event
record $event /tmp/events
root=/sys/bus/usb/devices/usb${device##*/}
root=${root%%-*}
asleep() { # within 20 s, all the way up
    tries=400
    until grep -q suspended $root/power/runtime_status; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { grep . /sys/bus/usb/devices/*/power/runtime_status; exit 1; }
        usleep 50000
    done
}
for power in /sys/bus/usb/devices/*[!:]*/power; do
    echo 300 >$power/autosuspend_delay_ms
    echo auto >$power/control
done
round=0
while [ $((round += 1)) -le ROUNDS ]; do
    asleep
    ask say >/dev/null
    size=$((round * 8 * 3 * 24)) # each press or release: a scan code, the key, the report's end
    tries=400
    until [ $(stat -c %s /tmp/events) -ge $size ] || [ $((tries -= 1)) -le 0 ]; do usleep 50000; done
done
say events=$(base64 -w 0 /tmp/events)
""".replace("ROUNDS", str(ROUNDS))


@pytest.mark.parametrize("place, devices", [("1-2", ["hid,speed=low,port=2"]),
                                            ("1-1.3", ["hub,port=1", "hid,port=1.3"])],
                         ids=["root port", "hub"])
def test_key_wakes_what_sleeps_and_none_is_lost(controller, place, devices):
    if controller != "bulkhead":
        pytest.skip("this keyboard is our own server's")
    with lab.Server(devices, control=True) as server:
        def say():
            server.control.execute("input", port=devices[-1].split("port=")[1], text="type wake")

        run = lab.run_guest(SLEEP, server, f"keyboard={place}", name="hid-sleep", timeout=60 + 3 * ROUNDS,
                            answers={"say": say})
        keyboard = next(d for d in server.statistics()["devices"] if d.get("input") == "keyboard")
    keys = [event[1:] for event in events_of(run.values["events"]) if event[0] == EV_KEY]
    assert keys == key_events("wake" * ROUNDS)
    assert keyboard["wakeups"] >= ROUNDS


# --- SeaBIOS ---------------------------------------------------------------------------------

EXIT_GOOD = 0x10


def boot_sector():
    """Asks for keys, says each that comes until Escape, and ends the machine. Loaded at 0x7c00."""
    code = b"".join([
        b"\xfc",              # 00        cld
        b"\x31\xc0",          # 01        xor ax, ax
        b"\x8e\xd8",          # 03        mov ds, ax
        b"\x8e\xd0",          # 05        mov ss, ax
        b"\xbc\x00\x7c",      # 07        mov sp, 0x7c00
        b"\xfb",              # 0a        sti
        b"\xbe\x60\x7c",      # 0b        mov si, ask
        b"\xe8\x30\x00",      # 0e        call print
        b"\x31\xc0",          # 11 next:  xor ax, ax       wait for a key
        b"\xcd\x16",          # 13        int 0x16
        b"\x89\xc3",          # 15        mov bx, ax
        b"\xbe\x70\x7c",      # 17        mov si, key
        b"\xe8\x24\x00",      # 1a        call print
        b"\xb9\x04\x00",      # 1d        mov cx, 4
        b"\xc1\xc3\x04",      # 20 digit: rol bx, 4
        b"\x88\xd8",          # 23        mov al, bl
        b"\x24\x0f",          # 25        and al, 15
        b"\x3c\x0a",          # 27        cmp al, 10
        b"\x72\x02",          # 29        jb below
        b"\x04\x27",          # 2b        add al, 'a' - '0' - 10
        b"\x04\x30",          # 2d below: add al, '0'
        b"\xee",              # 2f        out dx, al
        b"\xe2\xee",          # 30        loop digit
        b"\xb0\x0a\xee",      # 32        send '\n'
        b"\x80\xfb\x1b",      # 35        cmp bl, Escape
        b"\x75\xd7",          # 38        jne next
        b"\xb0\x10\xe6\xf4",  # 3a        out 0xf4, EXIT_GOOD
        b"\xf4\xeb\xfd",      # 3e        hlt, for ever
        b"\xba\xf8\x03",      # 41 print: mov dx, COM1
        b"\xac",              # 44 send:  lodsb
        b"\x84\xc0",          # 45        test al, al
        b"\x74\x03",          # 47        jz end
        b"\xee",              # 49        out dx, al
        b"\xeb\xf8",          # 4a        jmp send
        b"\xc3",              # 4c end:   ret
    ])
    sector = code.ljust(0x60, b"\0") + b"BH ask=type\n".ljust(16, b"\0") + b"BH key=\0"
    return sector.ljust(510, b"\0") + b"\x55\xaa"


TYPED = "Boot \\;1!\n"
REPEATED = "1372"  # scan code and character of "r"


@pytest.mark.parametrize("speed", ["full", "low"])
def test_seabios_reads_keys_and_repeats_one_that_is_held(controller, directory, speed):
    if controller != "bulkhead":
        pytest.skip("this keyboard is our own server's")
    image = directory / "boot.img"
    image.write_bytes(boot_sector() + bytes(4095 * 512))
    debug = directory / "seabios.log"
    keys = []
    devices = [lab.disk_device(image, port="1"), f"hid,kind=keyboard,speed={speed},port=2"]
    with lab.Server(devices, control=True) as server:
        def say(text):
            server.control.execute("input", port="2", text=text)

        def count(line):
            if line.startswith("BH key="):
                keys.append(line[len("BH key="):])
                if keys.count(REPEATED) == 8:
                    say("up r; key esc")
                elif len(keys) > 500:
                    raise lab.LabError("the key never ends")

        run = lab.run_vm(["-boot", "c", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"], server,
                         name="hid-seabios", memory=64, timeout=60, on_line=count, firmware_log=debug,
                         answers={"type": lambda: say(f"type {escaped(TYPED)}\nkey f1; down r")})
    assert run.status == EXIT_GOOD << 1 | 1
    typed = bytes.fromhex("".join(key[2:] for key in keys if key != REPEATED))
    assert typed == TYPED.replace("\n", "\r").encode() + b"\0\x1b"
    assert [key for key in keys if key[2:] == "00"] == ["3b00"]
    assert keys[-1] == "011b" and keys.count(REPEATED) >= 8  # and what came until we had let go
