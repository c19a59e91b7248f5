"""Options of the batch engine: what is refused, and that what is taken has its effect."""

import json
import signal
import struct
import time

import pytest

import uhci
from test_cli import fails, serve

SECTOR = 512


class Counted:
    """A server with statistics, one guest, and its disk."""

    def __init__(self, start, tmp_path, controller="uhci", device=""):
        self.path = tmp_path / "statistics.json"
        self.server = start(controller=controller, device=device, options=["--statistics", self.path])

    def engine(self):
        self.path.unlink(missing_ok=True)
        self.server.process.send_signal(signal.SIGUSR1)
        uhci.Uhci.until(self.path.exists, "statistics")
        return json.loads(self.path.read_text())["engine"]


def reads(counted, sectors=64):
    """What the engine did while so many sectors were read at once, rightly."""
    with counted.server.guest() as g:
        disk = uhci.open_disk(g)
        before = counted.engine()
        data = disk.read(3, sectors)
        for i in range(sectors):
            assert data[SECTOR * i : SECTOR * (i + 1)] == (3 + i).to_bytes(4, "little") * 128
        after = counted.engine()
    return before, after


def grown(before, after, *keys):
    for key in keys:
        before, after = before[key], after[key]
    return after - before


@pytest.mark.parametrize("option", [
    "batch-bytes=0", "batch-bytes=1023", "batch-bytes=1048577", "batch-bytes=1k", "batch-bytes=", "batch-bytes=-1",
    "batch-packets=0", "batch-packets=16385", "batch-packets=x",
    "memory=4294967297", "memory=-1", "memory=1M", "memory=99999999999999999999999",
    "linger=999", "linger=60000001", "linger=0", "linger=1.5",
    "withdrawn=", "withdrawn=no", "withdrawn=on", "batch=maybe", "batch-bytes=4096,batch-bytes=4096",
])
def test_limits_that_cannot_be(tmp_path, option):
    message = fails(tmp_path, *serve(tmp_path, "--controller", f"uhci,{option}"))
    assert option.split("=")[0] in message


@pytest.mark.parametrize("option", [
    "verify=some", "verify=", "verify=none", "verify=EXACT", "verify-when=never", "verify-when=", "verify-when=exact",
    "verify=td,verify=td",
])
def test_verification_that_cannot_be(tmp_path, image, option):
    message = fails(tmp_path, *serve(tmp_path, "--device", f"disk,file={image},{option}"))
    assert option.split("=")[0] in message


def test_traces_are_refused_with_a_reason_and_an_alternative(tmp_path, image):
    message = fails(tmp_path, *serve(tmp_path, "--device", f"disk,file={image},verify=trace"))
    assert "trace" in message and "exact" in message


@pytest.mark.parametrize("option", [
    "batch-bytes=1024", "batch-bytes=1048576", "batch-packets=1", "batch-packets=16384", "memory=0",
    "memory=4294967296", "linger=1000", "linger=60000000", "withdrawn=continue", "withdrawn=fail",
])
def test_limits_that_can_be(start, option):
    with start(controller=f"uhci,{option}").guest() as g:
        assert uhci.open_disk(g).read(7, 20) == b"".join(n.to_bytes(4, "little") * 128 for n in range(7, 27))


@pytest.mark.parametrize("when", ["", ",verify-when=bounded", ",verify-when=retry", ",verify-when=completion"])
@pytest.mark.parametrize("what", ["exact", "td", "buffer", "checksum"])
def test_verification_that_can_be(start, what, when):
    with start(device=f",verify={what}{when}").guest() as g:
        disk = uhci.open_disk(g)
        data = bytes(range(256)) * 32
        disk.write(100, data)
        assert disk.read(100, len(data) // SECTOR) == data


def test_default_limits(start, tmp_path):
    before, after = reads(Counted(start, tmp_path), 64)
    # The guest's list has no IOC: 64 sectors are one transfer.
    assert grown(before, after, "scan_end", "bytes") == grown(before, after, "scan_end", "descriptors") == 0
    assert 64 * SECTOR <= after["memory_peak"] < 1 << 20
    assert after["memory"] <= after["memory_peak"]


def test_batch_bytes(start, tmp_path):
    before, after = reads(Counted(start, tmp_path, "uhci,batch-bytes=4096"), 64)
    assert grown(before, after, "scan_end", "bytes") >= 64 * SECTOR // 4096 - 1
    assert grown(before, after, "batches") >= 64 * SECTOR // 4096


def test_batch_packets(start, tmp_path):
    before, after = reads(Counted(start, tmp_path, "uhci,batch-packets=4"), 8)
    assert grown(before, after, "scan_end", "descriptors") >= 8 * SECTOR // 256 - 1
    assert grown(before, after, "scan_end", "bytes") == 0


def test_batch_off_is_one_packet_at_a_time(start, tmp_path):
    before, after = reads(Counted(start, tmp_path, "uhci,batch=off,batch-packets=4096"), 2)
    assert grown(before, after, "batches") == grown(before, after, "packets_in") + grown(before, after, "packets_out")


def test_memory(start, tmp_path):
    before, after = reads(Counted(start, tmp_path, "uhci,memory=4096"), 64)
    assert grown(before, after, "scan_end", "memory") > 0
    # Two endpoints; beyond the limit each has a packet and the records there are at least.
    assert 0 < after["memory_peak"] <= 4096 + 2 * 1024
    assert after["memory"] < after["memory_peak"]  # what is idle keeps no more than half of it


def test_memory_of_none_leaves_a_packet_for_each_endpoint(start, tmp_path):
    before, after = reads(Counted(start, tmp_path, "uhci,memory=0"), 2)
    assert grown(before, after, "batches") >= 2 * SECTOR // 64
    assert grown(before, after, "scan_end", "memory") > 0
    assert after["memory_peak"] <= 2 * 1024


def test_memory_peak_stays(start, tmp_path):
    counted = Counted(start, tmp_path)
    with counted.server.guest() as g:
        disk = uhci.open_disk(g)
        disk.read(0, 128)
        high = counted.engine()["memory_peak"]
        disk.read(0, 1)
        assert counted.engine()["memory_peak"] == high >= 128 * SECTOR


class HeldOut:
    """
    A bulk OUT that the disk holds: it has sent no status yet for the command before, and wants none but that read.
    """

    QUEUE, TD, DATA = uhci.QUEUE_HEAD + 16, 0x8000, 0x9000

    def __init__(self, disk):
        self.disk, self.words = disk, disk.uhci.words
        self.memory = disk.uhci.guest.memory.bytes
        disk.tag += 1
        disk.bulk(data=struct.pack("<IIIBBB", 0x43425355, disk.tag, SECTOR, 0x80, 0, 10)
                  + struct.pack(">BBIBHB6x", 0x28, 0, 5, 0, 1, 0))
        self.memory[self.DATA : self.DATA + 31] = struct.pack("<IIIBBB16x", 0x43425355, 99, 0, 0, 0, 6)
        self.words[self.QUEUE // 4] = uhci.TERMINATE
        self.words[uhci.QUEUE_HEAD // 4] = self.QUEUE | uhci.QUEUE
        key = (disk.device.address, disk.output & 0xF, uhci.PID_OUT)
        self.toggle = disk.uhci.toggles.get(key, 0)
        self.offer(self.TD)

    def offer(self, td):
        self.words[td // 4] = uhci.TERMINATE
        self.words[td // 4 + 2] = (uhci.PID_OUT | self.disk.device.address << 8 | (self.disk.output & 0xF) << 15
                                   | self.toggle << 19 | 30 << 21)
        self.words[td // 4 + 3] = self.DATA
        self.words[td // 4 + 1] = uhci.TD_ACTIVE | 3 << 27
        self.words[self.QUEUE // 4 + 1] = td

    def withdraw(self):
        self.words[self.QUEUE // 4 + 1] = uhci.TERMINATE

    def release(self):
        """Reads data and status: the disk takes the OUT now."""
        assert self.disk.bulk(length=SECTOR) == (5).to_bytes(4, "little") * 128
        assert self.disk.bulk(length=13)[12] == 0


def wait(counted, condition):
    """The statistics, once they are so."""
    end = time.monotonic() + 5
    while True:
        engine = counted.engine()
        if condition(engine) or time.monotonic() > end:
            assert condition(engine), engine
            return engine


@pytest.mark.parametrize("options, noticed", [
    ("", True), (",verify=exact", True), (",verify=checksum", True), (",verify=exact,verify-when=retry", True),
    (",verify=td", False), (",verify=buffer", False), (",verify=exact,verify-when=completion", False),
])
def test_verification_reaches_the_engine(start, tmp_path, options, noticed):
    """A byte is changed while the disk holds the packet: noticed at a retry, or not."""
    counted = Counted(start, tmp_path, device=options)
    with counted.server.guest() as g:
        held = HeldOut(uhci.open_disk(g))
        before = wait(counted, lambda e: e["busy"] > 0)
        held.memory[held.DATA + 8] ^= 1
        if noticed:
            after = wait(counted, lambda e: e["mismatches"] > 0)
            assert after["cancels"]["changed"] == 1
        else:
            after = wait(counted, lambda e: e["busy"] > before["busy"] + 20)  # so many retries
            assert after["mismatches"] == after["cancels"]["changed"] == 0


@pytest.mark.parametrize("option, key", [("continue", "ahead_bytes"), ("fail", "failures")])
def test_withdrawn(start, tmp_path, option, key):
    """
    The disk takes a packet while its queue is not linked, and another one is there when it
    is again. What is not linked for 32 frames is cancelled before: then it is tried again.
    """
    for attempt in range(20):
        counted = Counted(start, tmp_path, f"uhci,withdrawn={option}")
        with counted.server.guest() as g:
            held = HeldOut(uhci.open_disk(g))
            wait(counted, lambda e: e["busy"] > 0)
            held.withdraw()
            held.release()
            held.offer(held.TD + 32)
            engine = wait(counted, lambda e: e["ahead_bytes"] + e["failures"] + e["cancels"]["withdrawn"] > 0)
        counted.server.terminate()
        if not engine["cancels"]["withdrawn"]:
            break
    assert engine[key] == {"ahead_bytes": 31, "failures": 1}[key]
    assert engine[{"ahead_bytes": "failures", "failures": "ahead_bytes"}[key]] == 0
