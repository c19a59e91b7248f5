"""`--device usb`: devices of this host by libusb. The host is the peer, its devices are gadgets of its kernel.

The guest has no processor (processorless.py): a nested one would be all that is measured. What our
driver is told, and what the peer's files and terminals have, is compared.
"""

import json
import re
import time

import lab
import peer
import pytest

MEGABYTES = 16
DISK, SERIAL, ZERO = 0, 1, 2  # gadgets
DRIVERS = """
for interface in /sys/bus/usb/devices/*:*; do
    driver=$(readlink $interface/driver)
    echo "${interface##*/} ${driver##*/}"
done
"""


@pytest.fixture(scope="module")
def there():
    with peer.Peer([peer.mass_storage(megabytes=MEGABYTES + 4), peer.acm(), peer.zero()]) as p:
        for identity in (peer.MASS_STORAGE, peer.ACM, peer.ZERO):
            p.busid(identity)
        yield p


def through(there, device, command, timeout=120):
    """What a guest with that device says: {key: value}."""
    program = f"python3 {lab.TOP}/tests/vm/processorless.py {lab.bulkhead_binary()} {device} {command}"
    return values(there.run(f"{program} 2>&1", timeout=timeout))


def values(output):
    said = dict(line.split("=", 1) for line in output.splitlines() if re.match(r"\w+=", line))
    return {**said, "log": [line for line in output.splitlines() if line.startswith("bulkhead: ")]}


def drivers(there):
    """{interface: driver} of all that is plugged in, once hubs and disks have settled."""
    def look():
        return dict((line.split() + [""])[:2] for line in there.kernel(DRIVERS).splitlines())

    deadline = time.monotonic() + 10
    while not all(look().values()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return look()


def test_a_disk_is_copied_both_ways(there):
    before = drivers(there)
    assert {"usb-storage", "usbtest", "cdc_acm"} <= set(before.values())
    said = through(there, "usb,vendorid=0525,productid=a4a5", f"copy {MEGABYTES}", timeout=240)
    assert said["written"] == said["read"]
    on_disk = there.kernel(f"head -c {MEGABYTES << 20} /tmp/g{DISK}.img | sha256sum").split()[0]
    assert on_disk == said["written"]
    assert said["status"] == "0"
    counters = json.loads(said["statistics"])
    # A command of 64 KiB is three host transfers, not 1026.
    assert counters["engine"]["batches"] < 8 * (MEGABYTES << 20) // 65536
    assert counters["devices"][0]["transfers"] < 8 * (MEGABYTES << 20) // 65536
    assert counters["engine"]["failed_packets"] == counters["devices"][0]["errors"] == 0
    assert drivers(there) == before, "the kernel's drivers are back"


def test_a_serial_line_carries_every_byte(there):
    said = through(there, "usb,serial=peer-serial", "serial /dev/ttyGS0 1")
    assert said["megabytes"] == "1" and said["status"] == "0"


def test_gadget_zero_from_source_to_loopback(there):
    before = drivers(there)
    said = through(there, f"usb,hostbus={bus_of(there, peer.ZERO)},hostport=1", "zero 24")
    assert said["rounds"] == "24" and said["status"] == "0"
    assert drivers(there) == before, "and so is the configuration that it had"


def bus_of(there, identity):
    return there.busid(identity).split("-")[0]


def test_several_that_fit_are_told_and_the_first_is_taken(there):
    said = through(there, "usb,vendorid=0525", "copy 1")
    assert any("3 devices fit; the first is taken: 1-1" in line for line in said["log"])


def test_a_node_that_was_passed_in_needs_no_right_to_open_it(there):
    """The server runs as nobody; who starts it opens the node."""
    bus, address = there.kernel(f"cd /sys/bus/usb/devices/{there.busid(peer.MASS_STORAGE)} && cat busnum devnum").split()
    node = f"/dev/bus/usb/{int(bus):03}/{int(address):03}"
    refused = through_as_nobody(there, f"usb,hostdevice={node}", "", "copy 1")
    assert any("Permission denied" in line and "udev rule" in line and 'ATTR{idVendor}=="0525"' in line
               for line in refused["log"]), refused
    said = through_as_nobody(there, "usb,fd=9", f"9<>{node}", "copy 1")
    assert said["written"] == said["read"]


def through_as_nobody(there, device, redirection, command):
    program = f"python3 {lab.TOP}/tests/vm/processorless.py {lab.bulkhead_binary()} {device} {command}"
    status, output = there.attempt(f"setpriv --reuid=65534 --clear-groups {program} 2>&1 {redirection}", timeout=60)
    return {**values(output), "output": output, "exit": status}


def test_unplugged_in_mid_transfer_it_is_noticed_and_comes_back(there):
    identity = there.kernel(f"head -c 65536 /tmp/g{DISK}.img | sha256sum").split()[0]
    there.start("lose", f"python3 {lab.TOP}/tests/vm/processorless.py {lab.bulkhead_binary()} usb,serial=peer-disk lose 2>&1")
    wait_for(there, "reading=now")
    there.unplug_gadget(DISK)
    said = values(wait_for(there, "gone="))
    assert float(said["lost_after"]) < 5 and float(said["gone"]) < 5
    there.plug_gadget(DISK)
    said = values(wait_for(there, "status="))
    assert said["back"] == identity and said["status"] == "0"
    assert any("unplugged" in line or "gone" in line for line in said["log"]), said["log"]


def wait_for(there, word, seconds=60):
    deadline = time.monotonic() + seconds
    while word not in (said := there.said("lose")):
        assert time.monotonic() < deadline and (there.runs("lose") or word in there.said("lose")), said
        time.sleep(0.1)
    return said
