"""The boot program of bench/boot, a third driver beside Linux's and SeaBIOS's, writes a disk and reads it back.

It queues a descriptor for each packet of 64 KiB, stops at short packets, and looks at memory alone.
"""

import os
import re
import subprocess

import lab
import pytest

KILOBYTES = 480  # as boot.c has it
SIZE = 1 << 20
ENDED = 1  # QEMU's status where the program ends with 0


def pattern(length):
    """What boot.c writes: 64 KiB at a time, of one sequence."""
    seed, data = 1, bytearray()
    for _ in range(length):
        seed = (seed * 1664525 + 1013904223) & 0xFFFFFFFF
        data.append(seed >> 24)
    return bytes(data)


def fnv(data):
    value = 2166136261
    for byte in data:
        value = (value ^ byte) * 16777619 & 0xFFFFFFFF
    return f"{value:x}"


@pytest.fixture
def program(directory):
    file = directory / "boot.elf"
    subprocess.run([lab.TOP / "tools" / "boot", file], stdin=subprocess.DEVNULL, check=True)
    return ["-kernel", file, "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]


def boot(program, server):
    said = []
    run = lab.run_vm(program, server, name="boot-driver", memory=64, on_line=said.append)
    assert run.status == ENDED, said
    return said


@pytest.mark.parametrize("side", ("qemu", "bulkhead"))
def test_what_it_writes_is_in_the_image_and_what_it_reads_is_the_same(directory, program, side):
    image = directory / "disk.img"
    before = os.urandom(SIZE)
    image.write_bytes(before)
    with lab.disk(side, image) as disk:
        said = boot(program, disk)
        counters = disk.statistics()["engine"] if side == "bulkhead" else None
    expected = pattern(KILOBYTES << 10)
    after = image.read_bytes()
    assert after[:len(expected)] == expected
    assert after[len(expected):] == before[len(expected):], "nothing beyond it is touched"
    sums = dict(re.fullmatch(r"sum (\w+) (\w+)", line).groups() for line in said if line.startswith("sum "))
    assert sums == {"write": fnv(expected), "read": fnv(expected)}
    assert said[-1] == "done"
    if counters:
        # Three transfers a command of 64 KiB, not 1026; the rest is for enumeration.
        assert 0 < counters["batches"] < 100
        assert counters["failed_packets"] == 0
