#!/usr/bin/python3
"""nested.py qemu|bulkhead IMAGE - in the peer: boots the boot program once, and times what it says.

The device is the mass-storage gadget whose file is IMAGE. "qemu" is QEMU's piix3-usb-uhci with its
usb-host, "bulkhead" the same QEMU with a UHCI of Bulkhead's, which has the device by libusb. Times are
this machine's, taken when a line comes. Prints one line of JSON.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
IDENTITY = "vendorid=0x0525,productid=0xa4a5"
QEMU = [TOP / "tools" / "qemu", "-accel", "tcg", "-m", "64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-serial", "stdio", "-kernel", TOP / "build" / "boot.elf", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
ENDED = 1  # QEMU's status where the program ends with 0


@contextlib.contextmanager
def bulkhead():
    """The server, and QEMU's arguments for it."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "socket")
        device = IDENTITY.replace("0x", "")
        server = subprocess.Popen([os.environ.get("BULKHEAD", TOP / "build" / "bulkhead"), "serve", "--socket-path", path,
                                   "--device", f"usb,{device}"], stdout=subprocess.DEVNULL, stderr=sys.stderr)
        try:
            while not path.exists():
                assert server.poll() is None, "bulkhead ended at once"
                time.sleep(0.01)
            yield ["-machine", "pc,memory-backend=ram", "-object", "memory-backend-memfd,id=ram,size=64M,share=on", "-device",
                   json.dumps({"driver": "vfio-user-pci", "socket": {"path": str(path), "type": "unix"}})]
            server.terminate()
            server.wait(20)
        finally:
            server.kill()
            server.wait()


@contextlib.contextmanager
def qemu():
    yield ["-machine", "pc", "-device", "piix3-usb-uhci,id=uhci", "-device", f"usb-host,bus=uhci.0,{IDENTITY}"]


def boot(arguments):
    """{"write": {"bytes", "seconds", "sum"}, "read": ...}; what it printed."""
    result, said, began = {}, [], 0.0
    process = subprocess.Popen([*QEMU, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True)
    for line in process.stdout:
        now = time.monotonic()
        said.append(line.strip())
        word, *rest = line.split() or [""]
        if word == "begin":
            began = now
        elif word in ("end", "sum"):
            of = result.setdefault(rest[0], {"bytes": 0, "seconds": 0.0})
            if word == "sum":
                of["sum"] = rest[1]
            else:
                of["bytes"] += int(rest[1])
                of["seconds"] += now - began
    status = process.wait()
    assert status == ENDED, f"QEMU ended with {status}: {said[-5:]}"
    return result


def fnv(data):
    value = 2166136261
    for byte in data:
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return f"{value:x}"


def clear(image):
    """What an earlier run has written is the same, and would pass for what this one should."""
    with open(image, "r+b") as file:
        file.write(bytes(os.fstat(file.fileno()).st_size))


def main(side, image):
    clear(image)
    with {"qemu": qemu, "bulkhead": bulkhead}[side]() as arguments:
        result = boot(arguments)
    with open(image, "rb") as file:
        landed = fnv(file.read(result["write"]["bytes"]))
    ok = landed == result["write"]["sum"] == result["read"]["sum"]
    print(json.dumps({"side": side, "data_ok": ok,
                      **{f"{what}_kbs": round(of["bytes"] / 1000 / of["seconds"], 1) for what, of in result.items()}}))


if __name__ == "__main__":
    main(*sys.argv[1:])
