"""The peer itself, with nothing of ours in it: what others say of its devices is true."""

import hashlib
import os

import lab
import peer
import pytest

MEGABYTES = 4


@pytest.fixture(scope="module")
def content():
    return os.urandom(MEGABYTES << 20)


@pytest.fixture(scope="module")
def there(content):
    with lab.scratch("peer-disk-") as directory:
        image = directory / "image"
        image.write_bytes(content)
        with peer.Peer(gadgets=[peer.mass_storage(image), peer.acm(), peer.zero()]) as p:
            yield p


def test_runs_programs_of_the_host_on_a_kernel_of_its_own(there):
    assert there.run("uname -r").strip() == (lab.guest_directory() / "release").read_text().strip()
    assert there.run(f"cat {lab.TOP}/LICENSE") == (lab.TOP / "LICENSE").read_text()


def test_tells_how_a_command_ended(there):
    assert there.attempt("echo some words; exit 3") == (3, "some words\n")
    assert there.attempt("sleep 600", timeout=1) == (124, "")
    with pytest.raises(peer.Failed, match="no such word"):
        there.run("echo no such word >&2; exit 1")


def test_reads_its_disk(there, content):
    device = there.kernel(f"ls -d /sys/bus/usb/devices/{there.busid(peer.MASS_STORAGE)}:1.0/host*/target*/*/block/*")
    disk = "/dev/" + device.strip().rpartition("/")[2]
    read = there.run(f"dd if={disk} bs=64k count={MEGABYTES * 16} iflag=direct status=none | sha256sum")
    assert read.split()[0] == hashlib.sha256(content).hexdigest()
