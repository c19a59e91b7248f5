"""SeaBIOS, a USB driver quite unlike Linux's, boots from the disk and reads it with int 13h.

The boot sector reads 64 sectors, sends a checksum of them to COM1 and ends the machine
through isa-debug-exit. Another reads keys with int 16h, from a USB keyboard, and sends those.
No operating system is involved.
"""

import os
import struct

import lab
import pytest

SECTOR = 512
SECTORS = 4096  # SeaBIOS boots from no disk smaller than a cylinder (1008 sectors)
FIRST, COUNT = 1, 64
EXIT_GOOD, EXIT_BAD = 0x10, 0x11


def qemu_status(exit_code):
    """What isa-debug-exit makes of the byte written to it."""
    return exit_code << 1 | 1


def boot_sector():
    """The firmware loads it at 0x7c00; the sectors go to 0x1000:0000."""
    code = b"".join([
        b"\xfc",                        # 00        cld
        b"\x31\xc0",                    # 01        xor ax, ax
        b"\x8e\xd8",                    # 03        mov ds, ax
        b"\x8e\xd0",                    # 05        mov ss, ax
        b"\xbc\x00\x7c",                # 07        mov sp, 0x7c00
        b"\xbe\x60\x7c",                # 0a        mov si, packet
        b"\xb4\x42",                    # 0d        mov ah, 0x42     extended read; dl is the boot drive
        b"\xcd\x13",                    # 0f        int 0x13
        b"\xb0\x11",                    # 11        mov al, EXIT_BAD
        b"\x72\x45",                    # 13        jc end
        b"\xb8\x00\x10",                # 15        mov ax, 0x1000
        b"\x8e\xd8",                    # 18        mov ds, ax
        b"\x31\xf6",                    # 1a        xor si, si
        b"\x66\x31\xdb",                # 1c        xor ebx, ebx
        b"\xb9\x00\x20",                # 1f        mov cx, 64 * 512 / 4
        b"\x66\xad",                    # 22 sum:   lodsd
        b"\x66\xc1\xc3\x05",            # 24        rol ebx, 5
        b"\x66\x01\xc3",                # 28        add ebx, eax
        b"\xe2\xf5",                    # 2b        loop sum
        b"\x31\xc0",                    # 2d        xor ax, ax
        b"\x8e\xd8",                    # 2f        mov ds, ax
        b"\xbe\x70\x7c",                # 31        mov si, text
        b"\xba\xf8\x03",                # 34        mov dx, COM1
        b"\xac",                        # 37 send:  lodsb
        b"\x84\xc0",                    # 38        test al, al
        b"\x74\x03",                    # 3a        jz hex
        b"\xee",                        # 3c        out dx, al
        b"\xeb\xf8",                    # 3d        jmp send
        b"\xb9\x08\x00",                # 3f hex:   mov cx, 8
        b"\x66\xc1\xc3\x04",            # 42 digit: rol ebx, 4
        b"\x88\xd8",                    # 46        mov al, bl
        b"\x24\x0f",                    # 48        and al, 15
        b"\x3c\x0a",                    # 4a        cmp al, 10
        b"\x72\x02",                    # 4c        jb below
        b"\x04\x27",                    # 4e        add al, 'a' - '0' - 10
        b"\x04\x30",                    # 50 below: add al, '0'
        b"\xee",                        # 52        out dx, al
        b"\xe2\xed",                    # 53        loop digit
        b"\xb0\x0a\xee",                # 55        send '\n'
        b"\xb0\x10",                    # 58        mov al, EXIT_GOOD
        b"\xe6\xf4",                    # 5a end:   out 0xf4, al
        b"\xf4\xeb\xfd",                # 5c        hlt, for ever
    ])
    # int 13h's disk address packet: size, sectors, offset:segment, first sector
    packet = struct.pack("<BBHHHQ", 16, 0, COUNT, 0, 0x1000, FIRST)
    sector = code.ljust(0x60, b"\0") + packet + b"BH sum=\0"
    return sector.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def keyboard_sector():
    """Sends what is typed to COM1, enter as a newline; escape ends the machine."""
    code = b"".join([
        b"\xfc",                        # 00        cld
        b"\x31\xc0",                    # 01        xor ax, ax
        b"\x8e\xd8",                    # 03        mov ds, ax
        b"\x8e\xd0",                    # 05        mov ss, ax
        b"\xbc\x00\x7c",                # 07        mov sp, 0x7c00
        b"\xbe\x40\x7c",                # 0a        mov si, text
        b"\xba\xf8\x03",                # 0d        mov dx, COM1
        b"\xac",                        # 10 send:  lodsb
        b"\x84\xc0",                    # 11        test al, al
        b"\x74\x03",                    # 13        jz keys
        b"\xee",                        # 15        out dx, al
        b"\xeb\xf8",                    # 16        jmp send
        b"\xb4\x00",                    # 18 keys:  mov ah, 0        wait for a key
        b"\xcd\x16",                    # 1a        int 0x16
        b"\x3c\x1b",                    # 1c        cmp al, escape
        b"\x74\x0c",                    # 1e        je end
        b"\x3c\x0d",                    # 20        cmp al, enter
        b"\x75\x02",                    # 22        jne put
        b"\xb0\x0a",                    # 24        mov al, '\n'
        b"\xba\xf8\x03",                # 26 put:   mov dx, COM1
        b"\xee",                        # 29        out dx, al
        b"\xeb\xec",                    # 2a        jmp keys
        b"\xb0\x10",                    # 2c end:   mov al, EXIT_GOOD
        b"\xe6\xf4",                    # 2e        out 0xf4, al
        b"\xf4\xeb\xfd",                # 30        hlt, for ever
    ])
    sector = code.ljust(0x40, b"\0") + b"BH keys=wanted\nBH typed=\0"
    return sector.ljust(SECTOR - 2, b"\0") + b"\x55\xaa"


def checksum(data):
    """What the boot sector computes: order matters, so that a misplaced packet shows."""
    total = 0
    for (word,) in struct.iter_unpack("<I", data):
        total = ((total << 5 | total >> 27) + word) & 0xFFFFFFFF
    return f"{total:08x}"


def boot(disk, directory, **options):
    """Runs the machine; where that goes wrong, the error shows what the firmware said."""
    debug = directory / "seabios.log"
    args = ["-boot", "c", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
    run = lab.run_vm(args, disk, name="seabios", memory=64, timeout=60, firmware_log=debug, **options)
    assert run.status != qemu_status(EXIT_BAD), "int 13h reported an error\n" + lab.tail(debug)
    assert run.status == qemu_status(EXIT_GOOD), lab.tail(run.log) + lab.tail(debug)
    return run


@pytest.mark.parametrize("speed", ["full", "high"])
def test_boots_and_reads_what_is_in_the_image(controller, directory, speed):
    """It shows 256 bytes at a time: of a disk of high speed, half a packet."""
    if controller == "qemu" and speed == "high":
        pytest.skip("QEMU's controller has no translation")
    image = directory / "boot.img"
    image.write_bytes(boot_sector() + os.urandom((SECTORS - 1) * SECTOR))
    with lab.disk(controller, image, **({"speed": "high"} if speed == "high" else {})) as disk:
        run = boot(disk, directory)
        if speed == "high":
            translate, = disk.statistics()["devices"][0]["layers"]
            assert translate["split_packets"] > COUNT // 4 and translate["guessed_ends"] == translate["dropped_ends"] == 0
    assert run.values["sum"] == checksum(image.read_bytes()[FIRST * SECTOR:][:COUNT * SECTOR])


def test_boots_again_on_the_same_server(controller, directory):
    image = directory / "boot.img"
    image.write_bytes(boot_sector() + os.urandom((SECTORS - 1) * SECTOR))
    with lab.disk(controller, image, readonly=True) as disk:
        sums = [boot(disk, directory).values.get("sum") for _ in range(3)]
    expected = checksum(image.read_bytes()[FIRST * SECTOR:][:COUNT * SECTOR])
    assert sums == [expected] * 3


TYPED = ["Hello, BULKHEAD!", "the quick brown fox jumps over the lazy dog 0123456789",
         "[]{};':\"\\|<>/?~`_-+="]
KEYBOARDS = {"root-port": ["hid,kind=keyboard,port=2"],
             "low-speed": ["hid,kind=keyboard,speed=low,port=2"],
             "hub": ["hub,port=2", "hid,kind=keyboard,port=2.3"]}


@pytest.mark.parametrize("keyboard", KEYBOARDS)
def test_reads_a_keyboard(controller, directory, keyboard):
    if controller != "bulkhead":
        pytest.skip("the keyboard is our own server's")
    devices = KEYBOARDS[keyboard]
    image = directory / "boot.img"
    image.write_bytes(keyboard_sector() + bytes((SECTORS - 1) * SECTOR))
    said, left = [], list(TYPED)
    with lab.Server([lab.disk_device(image, port="1"), *devices], control=True) as server:

        def on_line(line):
            """Types the next line once the last has been read, and escape in the end."""
            said.append(line)
            text = "key esc"
            if left:
                escaped = left.pop(0).replace("\\", "\\\\").replace(";", "\\;")
                text = f"type {escaped}\nkey enter"
            server.control.execute("input", port=devices[-1].split("port=")[1], text=text)

        boot(server, directory, on_line=on_line)
    assert said == ["BH keys=wanted", f"BH typed={TYPED[0]}", *TYPED[1:]]
