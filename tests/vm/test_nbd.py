"""A disk whose blocks are an NBD server's, used by a Linux guest: 16 MB each way, and a server that goes and comes back."""

import hashlib
import os
import shutil
import socket
import subprocess
import time

import lab
import pytest

MEGABYTES = 16

COPY = f"""
. /bh.sh
wait_for /dev/sda || exit 1
timed read dd if=/dev/sda of=/tmp/data bs=1M count={MEGABYTES} iflag=direct status=none || exit 1
say sum=$(sha256sum </tmp/data | cut -d ' ' -f 1)
timed write dd if=/tmp/data of=/dev/sda bs=1M seek={MEGABYTES} oflag=direct conv=fsync status=none || exit 1
"""

GONE = """
. /bh.sh; . /ask.sh
wait_for /dev/sda || exit 1
dd if=/dev/sda of=/dev/null bs=64k count=1 iflag=direct status=none || exit 1
ask gone >/dev/null
start=$(now)
dd if=/dev/sda of=/dev/null bs=64k skip=64 count=1 iflag=direct status=none 2>/dev/null && { say read=well; exit 1; }
say noticed_cs=$(($(now) - start))
ask back >/dev/null
tries=100
until dd if=/dev/sda of=/tmp/data bs=1M count=1 iflag=direct status=none 2>/dev/null; do
    tries=$((tries - 1)); [ $tries -gt 0 ] || exit 1; usleep 100000
done
say again=$(sha256sum </tmp/data | cut -d ' ' -f 1)
"""

pytestmark = pytest.mark.skipif(not shutil.which("nbdkit"), reason="nbdkit is not installed")


def nbdkit(image, address):
    process = subprocess.Popen(["nbdkit", "--foreground", "--exit-with-parent", "--unix", address, "file", image],
                               stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while True:
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(str(address))
                return process
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)


@pytest.fixture
def disk(directory):
    content = os.urandom(MEGABYTES << 20)
    image = directory / "image"
    image.write_bytes(content + bytes(MEGABYTES << 20))
    return image, content, directory / "nbd.sock"


def test_a_guest_copies_both_ways(disk):
    image, content, address = disk
    server = nbdkit(image, address)
    try:
        with lab.Server([f"disk,nbd=nbd+unix:///?socket={address}"]) as bulkhead:
            guest = lab.run_guest(COPY, bulkhead, timeout=120)
    finally:
        server.kill()
        server.wait()
    assert guest.values["sum"] == hashlib.sha256(content).hexdigest()
    assert image.read_bytes() == content + content


def test_a_server_that_goes_is_noticed_in_time(disk):
    image, content, address = disk
    servers = [nbdkit(image, address)]

    def gone():
        servers[0].kill()
        servers[0].wait()
        address.unlink(missing_ok=True)

    def back():
        servers.append(nbdkit(image, address))

    try:
        with lab.Server([f"disk,nbd=nbd+unix:///?socket={address}"]) as bulkhead:
            guest = lab.run_guest(GONE, bulkhead, answers={"gone": gone, "back": back}, timeout=120)
    finally:
        for server in servers:
            server.kill()
            server.wait()
    # Linux tries a failed read five times; each ends in time, and those after the first at once.
    assert int(guest.values["noticed_cs"]) < 1000
    assert guest.values["again"] == hashlib.sha256(content[: 1 << 20]).hexdigest()
