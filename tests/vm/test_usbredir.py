"""A disk of another machine, which shares it by a real usbredirect: a Linux guest on our UHCI uses it.

The other machine is the peer (peer.py), and the disk a full-speed gadget there. Beside it the same copy
by QEMU's own usb-redir on its own UHCI. Then the other side is taken away in the middle of a transfer: it
is killed; and, with our own export in its place, the network between them goes dead without a word.
"""

import hashlib
import os
import time

import lab
import net
import peer
import pytest

MEGABYTES = 16  # each way, behind the file system
QEMUS = 2       # of them by QEMU's way, which takes long
LATEST = 5      # seconds until a guest has to notice that the other side is gone
SIZE = 3 * MEGABYTES

COPY = f"""
. /bh.sh
MB=%d
wait_for /dev/sda || exit 1
say size=$(cat /sys/block/sda/size)
timed read dd if=/dev/sda of=/tmp/data bs=64k count=$((16 * MB)) iflag=direct status=none || exit 1
say sum=$(sha256sum </tmp/data | cut -d ' ' -f 1)
timed write dd if=/tmp/data of=/dev/sda bs=64k seek={16 * MEGABYTES} oflag=direct conv=fsync status=none || exit 1
"""

MOUNT = """
mke2fs -F /dev/sda 8192 >/dev/null 2>&1 || exit 1
mkdir -p /mnt
mount -t ext2 /dev/sda /mnt || exit 1
dd if=/tmp/data of=/mnt/file bs=1M count=2 status=none || exit 1
umount /mnt || exit 1
echo 3 >/proc/sys/vm/drop_caches
mount -t ext2 -o ro /dev/sda /mnt || exit 1
say file=$(sha256sum </mnt/file | cut -d ' ' -f 1)
umount /mnt
"""

# A read is under way when the other side goes; when it is back, the disk is read again.
GONE = """
. /bh.sh; . /ask.sh
wait_for /dev/sda || exit 1
dd if=/dev/sda of=/dev/null bs=64k iflag=direct status=none 2>/dev/null &
ask gone >/dev/null
start=$(now)
wait $! && { say read=ended well; exit 1; }
say noticed_cs=$(($(now) - start))
while [ -e /sys/block/sda ]; do usleep 20000; done
say removed_cs=$(($(now) - start))
ask back >/dev/null
tries=1200
until disk=$(ls -d /sys/block/sd? 2>/dev/null) && there /dev/${disk##*/} && [ "$(cat $disk/size)" -gt 0 ]; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || exit 1
    usleep 50000
done
say sum=$(sum_of /dev/${disk##*/} 1 0)
"""


@pytest.fixture(scope="module")
def content():
    return os.urandom(SIZE << 20)


@pytest.fixture(scope="module")
def there(content):
    with lab.scratch("peer-disk-") as directory:
        image = directory / "image"
        image.write_bytes(content)
        with peer.Peer(gadgets=[peer.mass_storage(image)]) as p:
            yield p


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def share(there):
    """usbredirect has one client in its life."""
    there.busid(peer.MASS_STORAGE)
    there.start("usbredirect", f"{peer.USBREDIRECT} --device {peer.MASS_STORAGE} --as 0.0.0.0:{peer.USBREDIR}",
                listens=peer.USBREDIR)


class QemuRedir:
    """For run_guest: QEMU's own UHCI with its usb-redir."""

    name = "usb-redir"

    def __init__(self, port):
        self.args = ["-chardev", f"socket,id=redir,host=127.0.0.1,port={port}", "-device", "piix3-usb-uhci,id=uhci",
                     "-device", "usb-redir,bus=uhci.0,chardev=redir"]

    def check_alive(self):
        pass


def ours(there, **options):
    return lab.Server([f"usbredir,address=127.0.0.1:{there.usbredir_port}"], **options)


def counters(server):
    return server.statistics()["devices"][0]


def sum_in_peer(there, skip=0, count=1):
    return there.run(f"dd if=/tmp/g0.img bs=1M skip={skip} count={count} status=none | sha256sum").split()[0]


def copy(there, server, content, megabytes, then=""):
    """Returns the run, and the rates in MB/s."""
    run = lab.run_guest(COPY % megabytes + then, server, timeout=600)
    first = sha256(content[:megabytes << 20])
    assert run.values["size"] == str(SIZE * 2048)
    assert run.values["sum"] == first
    assert sum_in_peer(there, MEGABYTES, megabytes) == first
    return run, [megabytes * 100 / int(run.values[way + "_cs"]) for way in ("read", "write")]


def test_copies_both_ways_and_mounts(there, content):
    share(there)
    _, qemus = copy(there, QemuRedir(there.usbredir_port), content, QEMUS)
    there.wait_end("usbredirect")
    share(there)
    with ours(there) as server:
        run, rates = copy(there, server, content, MEGABYTES, MOUNT)
        statistics = counters(server)
    assert run.values["file"] == sha256(content[:2 << 20])
    assert statistics["arrivals"] == 1 and statistics["bytes_in"] > MEGABYTES << 20 < statistics["bytes_out"]
    assert statistics["unexpected"] == statistics["dropped"] == statistics["failures"] == 0
    for way, his, mine in zip(("read", "write"), qemus, rates, strict=True):
        print(f"{way}: {mine:.2f} MB/s, by QEMU's usb-redir {his:.2f}: {mine / his:.1f} times as fast")


def moves(server):
    """Until the read is well under way."""
    before = counters(server)["bytes_in"]
    while counters(server)["bytes_in"] < before + (1 << 20):
        time.sleep(0.02)


def noticed(run):
    assert int(run.values["noticed_cs"]) <= LATEST * 100
    assert int(run.values["removed_cs"]) <= LATEST * 100


def test_the_other_side_is_killed_and_comes_back(there):
    share(there)
    with ours(there) as server:
        def gone():
            moves(server)
            there.kill("usbredirect")

        run = lab.run_guest(GONE, server, timeout=300, answers={"gone": gone, "back": lambda: share(there)})
        assert counters(server)["arrivals"] == 2
    there.wait_end("usbredirect")
    noticed(run)
    assert run.values["sum"] == sum_in_peer(there)


@pytest.fixture
def link():
    try:
        with net.Link() as there_is:
            yield there_is
    except net.NetError as error:
        pytest.skip(str(error))


def test_the_network_goes_dead_and_comes_back(link, content, directory):
    image = directory / "image"
    image.write_bytes(content * 8)  # enough to be still reading
    address = f"{link.far.address}:{peer.USBREDIR}"
    log, _ = lab.open_log("export")
    command = [lab.bulkhead_binary(), "export", "--protocol", "usbredir", "--listen", address, "--device", lab.disk_device(image)]
    with log, link.far.start(command, stdout=log, stderr=log) as export:
        with lab.Server([f"usbredir,address={address}"], within=link.near.command()) as server:
            def gone():
                moves(server)
                link.cut()

            run = lab.run_guest(GONE, server, timeout=300, answers={"gone": gone, "back": link.restore})
            assert counters(server)["arrivals"] == 2
        export.terminate()
    noticed(run)
    assert run.values["sum"] == sha256(content[:1 << 20])
