"""examples/emulator.c: a machine that embeds the controller and a disk."""

import random
import re
import subprocess

import pytest


def run(examples, *arguments):
    return subprocess.run([examples.program("emulator"), *map(str, arguments)], env=examples.environment,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)


@pytest.mark.parametrize("sectors", [1, 256, 257, 4000])
def test_complements_the_disk_in_few_batches(examples, tmp_path, sectors):
    image = tmp_path / "disk.img"
    before = random.Random(sectors).randbytes(sectors * 512)
    image.write_bytes(before)
    done = run(examples, image)
    assert (done.returncode, done.stderr) == (0, "")
    assert image.read_bytes() == bytes(byte ^ 0xFF for byte in before)
    assert f"{sectors} blocks complemented" in done.stdout
    packets, batches = map(int, re.search(r"(\d+) packets in (\d+) batches", done.stdout).groups())
    commands = 3 * -(-sectors // 256)  # read, write, read, of 128 KB at most
    assert packets >= 3 * sectors * 8
    # Command, data and status of each, a few of them cut once more; and READ CAPACITY, flush.
    assert batches <= 4 * commands + 8


def test_says_what_is_wrong_with_an_image(examples, tmp_path):
    done = run(examples, tmp_path / "nowhere.img")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "nowhere.img" in done.stderr


def test_tells_how_to_use_it(examples):
    done = run(examples)
    assert done.returncode == 1
    assert "emulator IMAGE" in done.stderr


def test_is_linked_as_it_was_asked_to_be(examples):
    needed = subprocess.run(["ldd", examples.program("emulator")], env=examples.environment, stdout=subprocess.PIPE,
                            text=True, check=True).stdout
    assert "not found" not in needed
    if examples.linked == "shared":
        assert f"libbulkhead.so.0 => {examples.library.lib}/" in needed
    else:
        assert "libbulkhead" not in needed
