"""A disk of another machine, which Linux exports there: a Linux guest on our UHCI uses it.

The other machine is the peer (peer.py). Its disk is exported in both ways that Linux has: usbip-host
takes a full-speed gadget from its own USB stack, and usbip-vudc is a gadget's controller by itself. Then
the other side is taken away in the middle of a transfer.
"""

import hashlib
import os
import time

import lab
import peer
import pytest

MEGABYTES = 16  # each way, behind the file system
LATEST = 5      # seconds until a guest has to notice that the other side is gone
SIZE = 2 * MEGABYTES
VUDC_PORT, VUDC_DISK = 3241, "0525:b001"

COPY = f"""
. /bh.sh
wait_for /dev/sda || exit 1
say size=$(cat /sys/block/sda/size)
timed read dd if=/dev/sda of=/tmp/data bs=64k count={16 * MEGABYTES} iflag=direct status=none || exit 1
say sum=$(sha256sum </tmp/data | cut -d ' ' -f 1)
timed write dd if=/tmp/data of=/dev/sda bs=64k seek={16 * MEGABYTES} oflag=direct conv=fsync status=none || exit 1
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
    """usbipd serves for either driver, each at a port of its own."""
    with lab.scratch("peer-disk-") as directory:
        image = directory / "image"
        image.write_bytes(content)
        gadgets = [peer.mass_storage(image), peer.mass_storage(image, udc=peer.VUDC, identity=VUDC_DISK)]
        with peer.Peer(gadgets, forward=[peer.USBIP, VUDC_PORT]) as p:
            p.start("usbipd", "usbipd", listens=peer.USBIP)
            p.start("usbipd-vudc", f"usbipd --device --tcp-port {VUDC_PORT}", listens=VUDC_PORT)
            p.exported = p.busid(peer.MASS_STORAGE)
            p.unplug_gadget(1)
            p.kernel("echo full-speed >/sys/kernel/config/usb_gadget/g1/max_speed")  # usbip-vudc would have it high
            p.plug_gadget(1)
            bind(p)
            yield p


def bind(there):
    """What was bound once, Linux may bind by itself when it is plugged in again."""
    there.wait(f"test -e /sys/bus/usb/devices/{there.exported}")
    there.wait(f"test -e /sys/bus/usb/drivers/usbip-host/{there.exported} || usbip bind -b {there.exported}")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def sum_in_peer(there, disk, skip=0, count=1):
    return there.run(f"dd if=/tmp/g{disk}.img bs=1M skip={skip} count={count} status=none | sha256sum").split()[0]


def ours(port, busid):
    return lab.Server([f"usbip,host=127.0.0.1:{port},busid={busid}"])


def counters(server):
    return server.statistics()["devices"][0]


def server_of(there, disk):
    if disk:
        return ours(there.port(VUDC_PORT), peer.VUDC)
    return ours(there.usbip_port, there.exported)


@pytest.mark.parametrize("disk", [0, 1], ids=["usbip-host", "usbip-vudc"])
def test_copies_both_ways_and_mounts(there, content, disk):
    with server_of(there, disk) as server:
        run = lab.run_guest(COPY, server, timeout=600)
        statistics = counters(server)
    first = sha256(content[:MEGABYTES << 20])
    assert run.values["size"] == str(SIZE * 2048)
    assert run.values["sum"] == first
    assert sum_in_peer(there, disk, MEGABYTES, MEGABYTES) == first
    assert run.values["file"] == sha256(content[:2 << 20])
    assert statistics["arrivals"] == statistics["connections"] == 1
    assert statistics["bytes_in"] > MEGABYTES << 20 < statistics["bytes_out"]
    assert statistics["violations"] == statistics["lost"] == 0
    for way in "read", "write":
        print(f"{way}: {MEGABYTES * 100 / int(run.values[way + '_cs']):.2f} MB/s")


# How it goes, and comes back.
ENDS = {
    "unbound": (lambda p: p.run(f"usbip unbind -b {p.exported}"), bind),
    "unplugged": (lambda p: p.unplug_gadget(0), lambda p: (p.plug_gadget(0), bind(p))),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_other_side_goes_and_comes_back(there, end):
    go, come = ENDS[end]
    with server_of(there, 0) as server:
        def gone():
            """When the read is well under way."""
            before = counters(server)["bytes_in"]
            while counters(server)["bytes_in"] < before + (1 << 20):
                time.sleep(0.02)
            go(there)

        run = lab.run_guest(GONE, server, timeout=300, answers={"gone": gone, "back": lambda: come(there)})
        statistics = counters(server)
    assert statistics["arrivals"] == 2 and statistics["violations"] == 0
    assert int(run.values["noticed_cs"]) <= LATEST * 100
    assert int(run.values["removed_cs"]) <= LATEST * 100
    assert run.values["sum"] == sum_in_peer(there, 0)


def test_a_dead_usbipd_keeps_what_it_gave(there):
    """The connection is its kernel's by then. Who comes later finds nobody."""
    with server_of(there, 0) as server:
        def gone():
            there.kill("usbipd")

        run = lab.run_guest(". /bh.sh; . /ask.sh\nwait_for /dev/sda || exit 1\nask gone >/dev/null\nsay sum=$(sum_of /dev/sda 1 0)",
                            server, timeout=300, answers={"gone": gone})
        assert counters(server)["arrivals"] == 1
    assert run.values["sum"] == sum_in_peer(there, 0)
    there.start("usbipd", "usbipd", listens=peer.USBIP)
