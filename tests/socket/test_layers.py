"""layers=, translate= and speed=: what stands between a device and a guest, from the command line to the guest."""

import contextlib
import json
import os
import signal
import struct
import time

import pytest

import uhci
from test_cli import fails, serve

PIECE = 16 << 10


@pytest.fixture
def statistics(tmp_path):
    path = tmp_path / "statistics.json"

    def ask(server):
        path.unlink(missing_ok=True)
        server.process.send_signal(signal.SIGUSR1)
        uhci.Uhci.until(path.exists, "statistics")
        return json.loads(path.read_text())["devices"][0]

    ask.options = ["--statistics", path]
    return ask


@pytest.mark.parametrize("layers, says", [
    ("nothing", "no layer 'nothing'"),
    ("", "no layer ''"),
    ("delay", "say delay:TIME"),
    ("delay:5x", "say delay:TIME"),
    ("delay:2h", "say delay:TIME"),
    ("delay:5ms:rate=0", "say delay:TIME"),
    ("fault", "say fault:KIND"),
    ("fault:explode", "say fault:KIND"),
    ("fault:stall@0", "say fault:KIND"),
    ("fault:stall@1:every=2", "say fault:KIND"),
    ("fault:stall:endpoint=0x99", "say fault:KIND"),
    ("fault:stall:p=101", "say fault:KIND"),
    ("capture", "say capture:FILE"),
    ("capture:/nowhere/a.pcapng", "No such file or directory"),
    ("translate:now", "takes no parameters"),
    ("+".join(["delay:1ms"] * 17), "at most 16 layers"),
    ("delay:1ms+fault:explode", "say fault:KIND"),
])
def test_what_is_wrong_is_said_in_a_line(layers, says, tmp_path, image):
    assert says in fails(tmp_path, *serve(tmp_path, "--device", f"disk,file={image},layers={layers}"))


def test_nothing_is_written_over_but_a_capture(tmp_path, image):
    other = tmp_path / "other"
    other.write_bytes(b"my thesis")
    message = fails(tmp_path, *serve(tmp_path, "--device", f"disk,file={image},layers=capture:{other}"))
    assert "holds something else" in message and other.read_bytes() == b"my thesis"
    assert "neither a file nor a FIFO" in fails(tmp_path, *serve(tmp_path, "--device", f"disk,file={image},layers=capture:/dev/null"))
    held = image.read_bytes()[:64]
    assert "holds something else" in fails(tmp_path, *serve(tmp_path, "--device", f"disk,file={image},layers=capture:{image}"))
    assert image.read_bytes()[:64] == held


def test_translate_off_and_translate_contradict(tmp_path, image):
    assert "contradict" in fails(tmp_path, *serve(tmp_path, "--device", f"disk,file={image},translate=off,layers=translate"))


def blocks(data):
    """Of a pcapng file: (type, body) each."""
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert length % 4 == 0 and struct.unpack_from("<I", data, at + length - 4) == (length,)
        yield kind, data[at + 8:at + length - 4]
        at += length


def events(path):
    """What usbmon's headers say: {id, type, transfer, endpoint, setup, status, length, data}."""
    (section, head), (interface, description), *rest = blocks(path.read_bytes())
    assert section == 0x0A0D0D0A and struct.unpack_from("<IHH", head) == (0x1A2B3C4D, 1, 0)
    assert interface == 1 and struct.unpack_from("<H", description) == (220,)
    for kind, body in rest:
        assert kind == 6
        _, _, _, captured, original = struct.unpack_from("<IIIII", body)
        assert captured == original
        packet = body[20:20 + captured]
        number, kind, transfer, endpoint, _, bus, setup_flag, data_flag = struct.unpack_from("<QcBBBHbc", packet)
        status, length, here = struct.unpack_from("<iII", packet, 28)
        assert here == len(packet) - 64
        yield {"id": number, "type": kind.decode(), "transfer": transfer, "endpoint": endpoint,
               "setup": packet[40:48] if setup_flag == 0 else None, "status": status, "length": length, "data": packet[64:]}


def test_a_capture_holds_everything_that_passed(start, tmp_path, image, statistics):
    capture, content = tmp_path / "a.pcapng", os.urandom(PIECE)
    server = start(device=f",layers=capture:{capture}", options=statistics.options)
    with contextlib.closing(server.guest()) as guest:
        disk = uhci.open_disk(guest)
        disk.write(8, content)
        disk.flush()
        assert disk.read(8, PIECE // 512) == content
    counted, = statistics(server)["layers"]
    server.terminate()
    all_events = list(events(capture))
    assert counted["layer"] == "capture" and counted["events"] == len(all_events) and counted["writing"] == 1
    begun = {event["id"]: event for event in all_events if event["type"] == "S"}
    ended = {event["id"]: event for event in all_events if event["type"] == "C"}
    assert begun.keys() == ended.keys() and len(begun) * 2 == len(all_events)
    assert all(event["status"] == -115 for event in begun.values())
    out = b"".join(event["data"] for event in all_events if event["type"] == "S" and event["transfer"] == 3)
    into = b"".join(event["data"] for event in all_events if event["type"] == "C" and event["transfer"] == 3)
    assert content in out and content in into
    asked = [event["setup"] for event in all_events if event["setup"]]
    assert bytes.fromhex("8006000100001200") in asked, "the device descriptor"
    answer = next(ended[n]["data"] for n, event in begun.items() if event["setup"] == bytes.fromhex("8006000100001200"))
    assert answer[:2] == b"\x12\x01" and len(answer) == 18
    assert os.stat(capture).st_mode & 0o777 == 0o600


def test_a_capture_is_made_anew_and_belongs_to_one(start, tmp_path, image):
    capture = tmp_path / "a.pcapng"
    start(device=f",layers=capture:{capture}", name="first").terminate()
    length = capture.stat().st_size
    server = start(device=f",layers=capture:{capture}", name="second")
    assert length == 48
    uhci.Uhci.until(lambda: capture.stat().st_size == 48, "the new one's head")
    other = tmp_path / "other"
    other.write_bytes(bytes(1 << 20))
    assert "in use already" in fails(tmp_path, *serve(tmp_path, "--device", f"disk,file={other},layers=capture:{capture}"))
    server.terminate()


def test_layers_stand_in_the_order_in_which_they_are_written(start, tmp_path, statistics):
    """A capture next to the device sees its packets, one next to the guest the guest's."""
    inner, outer = tmp_path / "inner.pcapng", tmp_path / "outer.pcapng"
    server = start(device=f",speed=high,layers=capture:{inner}+translate+capture:{outer}", options=statistics.options)
    with contextlib.closing(server.guest()) as guest:
        disk = uhci.open_disk(guest)
        assert max(disk.device.endpoints.values()) == 64
        disk.read(0, 4)
    assert [layer["layer"] for layer in statistics(server)["layers"]] == ["capture", "translate", "capture"]
    server.terminate()
    assert {event["length"] for event in events(inner) if event["type"] == "S" and event["endpoint"] == 0x81} >= {512, 2048}
    assert {event["length"] for event in events(outer) if event["type"] == "S" and event["endpoint"] == 0x81} >= {64, 2048}


def test_a_fast_disk_is_a_full_speed_one_to_the_guest(start, image, statistics):
    server = start(device=",speed=high", options=statistics.options)
    server.wait_log("runs at high speed: it is translated for the full-speed port")
    with contextlib.closing(server.guest()) as guest:
        disk = uhci.open_disk(guest)
        content = os.urandom(64 << 10)
        disk.write(1, content)
        assert disk.read(1, 128) == content
        assert len(disk.inquiry()) == 36
    layer, = statistics(server)["layers"]
    assert layer["layer"] == "translate" and layer["translating"] == 1 and layer["guessed_ends"] == 0


def test_translate_off_refuses(tmp_path, image):
    message = fails(tmp_path, *serve(tmp_path, "--device", f"disk,file={image},speed=high,translate=off"))
    assert "faster than the port, and translate=off was said" in message


def test_a_delay_delays(start, image, statistics):
    server = start(device=",layers=delay:30ms", options=statistics.options)
    with contextlib.closing(server.guest()) as guest:
        disk = uhci.open_disk(guest)
        begin = time.monotonic()
        disk.read(0, 1)  # command, data, status
        assert time.monotonic() - begin > 0.09
    layer, = statistics(server)["layers"]
    assert layer["transfers"] >= 9 and layer["delayed_us"] >= 30000 * layer["transfers"]


def test_a_rate_is_kept(start, image):
    server = start(device=",layers=delay:0ms:rate=200k")
    with contextlib.closing(server.guest()) as guest:
        disk = uhci.open_disk(guest)
        begin = time.monotonic()
        disk.read(0, 200)
        assert time.monotonic() - begin > 102400 / 200e3


def test_a_stall_is_recovered_from(start, image, statistics):
    server = start(device=",layers=fault:stall:endpoint=0x81:every=7", options=statistics.options)
    with contextlib.closing(server.guest()) as guest:
        disk = uhci.Disk(uhci.Uhci(guest).enumerate(0))
        failed = 0
        for _ in range(10):
            try:
                disk.ready()
                disk.inquiry()
            except (AssertionError, struct.error, uhci.TransferError):  # a command without data, or without a status
                failed += 1
        assert failed < 10
    layer, = statistics(server)["layers"]
    assert layer["faults"] == layer["transfers"] // 7 > 0


def test_a_disconnect_is_seen_and_over_after_a_second(start, image):
    server = start(device=",layers=fault:disconnect@5")
    with contextlib.closing(server.guest()) as guest:
        controller = uhci.Uhci(guest)
        with pytest.raises((uhci.TransferError, uhci.TimedOut)):
            disk = uhci.Disk(controller.enumerate(0))
            for _ in range(5):
                disk.ready()
        controller.wait_connected()
        disk = uhci.Disk(controller.enumerate(0))
        disk.ready()
        assert len(disk.read(0, 4)) == 2048
    assert server.serves()


def test_exports_have_layers_too(tmp_path, image):
    assert "translate= is for 'bulkhead serve'" in fails(
        tmp_path, "export", "--protocol", "usbredir", "--listen", "127.0.0.1:0", "--device", f"disk,file={image},translate=off")
    assert "no layer 'nothing'" in fails(
        tmp_path, "export", "--protocol", "usbredir", "--listen", "127.0.0.1:0", "--device", f"disk,file={image},layers=nothing")
