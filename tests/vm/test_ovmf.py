"""OVMF, whose UHCI driver is neither Linux's nor SeaBIOS's, boots a UEFI program from our disk.

The program (uefi.c) reads a file by the firmware's file protocol, says its checksum, writes
the file again inverted, and ends the machine. The image is a FAT made here (fat.py).
"""

import os
import subprocess

import fat
import lab
from test_seabios import EXIT_BAD, EXIT_GOOD, checksum, qemu_status

LONG = os.environ.get("BULKHEAD_TEST_LONG") == "1"
LENGTH = (256 << 10) + (1 << 20 if LONG else 0) + 4  # more than whole clusters


def compiled(directory):
    """The program, with nothing but gcc and ld: there is nothing in it to relocate."""
    source, loose, program = lab.TOP / "tests/vm/uefi.c", directory / "uefi.o", directory / "uefi.efi"
    subprocess.run(["gcc", "-std=gnu17", "-O1", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fPIC",
                    "-fshort-wchar", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-mno-red-zone", "-c", source, "-o", loose], check=True, timeout=60)
    subprocess.run(["objcopy", "--remove-section=.comment", "--remove-section=.note*", loose],
                   check=True, timeout=60)
    subprocess.run(["ld", "-m", "i386pep", "--subsystem", "10", "--image-base", "0", "-e", "efi_main",
                    "-o", program, loose], check=True, timeout=60)
    return program.read_bytes()


def boot(disk, directory):
    firmware = subprocess.run([lab.TOP / "tools/qemu", "--ovmf"], stdout=subprocess.PIPE, text=True,
                              check=True, timeout=60).stdout.strip()
    debug = directory / "ovmf.log"
    args = ["-bios", firmware, "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
    run = lab.run_vm(args, disk, name="ovmf", memory=128, timeout=300 if LONG else 100, firmware_log=debug)
    assert run.status != qemu_status(EXIT_BAD), f"the program failed: {run.values}"
    assert run.status == qemu_status(EXIT_GOOD), lab.tail(run.log) + lab.tail(debug)
    return run


def test_boots_a_program_that_reads_and_writes_a_file(controller, directory):
    data = os.urandom(LENGTH)
    image = directory / "fat.img"
    before = fat.make({"EFI": {"BOOT": {"BOOTX64.EFI": compiled(directory)}}, "DATA.BIN": data})
    image.write_bytes(before)
    assert fat.read(before, "DATA.BIN") == data and fat.read(before, "BACK.BIN") is None
    with lab.disk(controller, image) as disk:
        run = boot(disk, directory)
    after = image.read_bytes()
    assert run.values["length"] == f"{LENGTH:08x}"
    assert run.values["sum"] == checksum(data)
    assert fat.read(after, "DATA.BIN") == data
    assert fat.read(after, "BACK.BIN") == bytes(byte ^ 0xFF for byte in data)
