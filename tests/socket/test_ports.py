"""Places: which device is in which port, hubs and what hangs from them, and what cannot be."""

import json

import pytest

import uhci
from hubs import Hub
from test_cli import fails, run, serve


def plug(*devices):
    return [word for device in devices for word in ("--device", device)]


@pytest.fixture
def places(start, tmp_path):
    """places(devices...) serves them, and tells what is where when it ends."""

    def begin(*devices, controller="uhci"):
        path = tmp_path / "statistics.json"
        server = start(image=None, controller=controller, options=["--statistics", path, *plug(*devices)])
        assert server.terminate() == 0
        return [(device["port"], device["kind"]) for device in json.loads(path.read_text())["devices"]]

    return begin


def test_no_device(places):
    assert places() == []


def test_port_by_port(places):
    assert places("zero", "hub") == [("1", "zero"), ("2", "hub")]


def test_a_place(places):
    assert places("zero,port=2") == [("2", "zero")]


def test_what_has_no_place_takes_what_is_left(places):
    devices = "zero", "hub,port=1", "hid", "hid,port=3"
    assert places(*devices, controller="uhci,ports=4") == [("1", "hub"), ("2", "zero"), ("3", "hid"), ("4", "hid")]


def test_behind_a_hub(places):
    assert places("hub", "zero,port=1.3") == [("1", "hub"), ("1.3", "zero")]


def test_hubs_come_first_whatever_the_order(places):
    devices = "zero,port=2.4.1", "hid,port=2.3", "hub,port=2.4", "zero", "hub,port=2"
    assert places(*devices) == [("1", "zero"), ("2", "hub"), ("2.3", "hid"), ("2.4", "hub"), ("2.4.1", "zero")]


def test_five_hubs_in_a_row(places):
    hubs = [f"hub,port={place}" for place in ("1.1.1.1.1", "1.1.1.1", "1.1.1", "1.1", "1")]
    assert places(*hubs, "zero,port=1.1.1.1.1.4")[-1] == ("1.1.1.1.1.4", "zero")


def test_sixty_four_devices(places):
    hubs = [f"hub,port={root},ports=7" for root in range(1, 9)]
    rest = [f"zero,port={root}.{port}" for root in range(1, 9) for port in range(1, 8)]
    there = places(*rest, *hubs, controller="uhci,ports=8")
    assert len(there) == 64 and there == sorted(there)


@pytest.mark.parametrize("devices, words", [
    (["zero,port=1", "hid,port=1"], ["port=1 ", "taken"]),
    (["hub,port=1", "zero,port=1"], ["port=1 ", "taken"]),
    (["hub", "zero,port=1.2", "zero,port=1.2"], ["port=1.2 ", "taken"]),
    (["zero,port=3"], ["port=3", "no more than 2", "ports=N"]),
    (["zero,port=1.3"], ["port=1.3", "there is no hub in port 1"]),
    (["hub", "zero,port=1.2.3"], ["there is no hub in port 1.2"]),
    (["zero", "zero,port=1.3"], ["what is in port 1 is no hub"]),
    (["hub,ports=6", "zero,port=1.7"], ["the hub in port 1", "6 ports"]),
    (["zero", "zero", "zero"], ["no root port of 2 is free", "hub", "ports=N"]),
    (["zero", "hub,port=2", "zero"], ["no root port of 2 is free"]),
    (["hub", "hub,port=1.1", "hub,port=1.1.1", "hub,port=1.1.1.1", "hub,port=1.1.1.1.1", "hub,port=1.1.1.1.1.1"],
     ["port=1.1.1.1.1.1", "5 hubs"]),
    (["zero,port=1.1.1.1.1.1.1"], ["5 hubs"]),
    *[([f"zero,port={text}"], ["say which port"])
      for text in ("", "0", "01", "1.", ".1", "1..2", "1.0", "x", "1.x", "-1", "+1", " 1", "1 ", "1e1", "1234",
                   "99999999999999999999", "1.1.1.1.1.1.1.1.1.1.1.1.1.1.1", "1,,2", "1/2", "\N{DIGIT ONE}\u0661")],
    (["zero,port=1,port=2"], ["twice"]),
    (["hub,ports=3"], ["ports=3", "4 to 7"]),
    (["hub,ports=8"], ["ports=8", "4 to 7"]),
    (["zero,pattern=3"], ["pattern=3", "0 to 2"]),
    (["zero,iso-interval=17"], ["1 to 16"]),
    (["zero,interrupt-interval=0"], ["1 to 255"]),
    (["hid,kind=joystick"], ["joystick", "keyboard, mouse or tablet"]),
    (["hid,speed=high"], ["speed=high", "full or low"]),
    (["serial"], ["pty"]),
    (["serial,pty=on,tcp=localhost:1"], ["serial"]),
    (["serial,file=f,port=1.1"], ["no hub"]),
    (["zero,port=1\nbulkhead: all is well"], ["say which port"]),
])
def test_what_cannot_be(tmp_path, devices, words):
    message = fails(tmp_path, *serve(tmp_path, *plug(*devices)))
    assert all(word in message for word in words), message


def test_one_more_than_there_may_be(tmp_path):
    fails(tmp_path, *serve(tmp_path, "--controller", "uhci,ports=8", *plug(*["zero"] * 65)))


def test_ports_beyond_the_eighth(tmp_path):
    message = fails(tmp_path, *serve(tmp_path, "--controller", "uhci,ports=8", *plug("zero,port=9")))
    assert "ports=N" not in message and "8" in message


def test_help_tells_of_every_kind():
    text = run("serve", "--device", "help").stdout
    for word in ("disk:", "zero:", "hid:", "hub:", "serial:", "port=PLACE"):
        assert f"  {word}" in text


def test_a_disk_behind_two_hubs_is_read(start, image):
    server = start(image=None, options=plug(f"disk,file={image},port=2.4.1", "hub,port=2.4", "hub,port=2"))
    with server.guest() as guest:
        outer = Hub(uhci.Uhci(guest).enumerate(1, 1))
        inner = Hub(outer.enumerate(4, 2))
        disk = uhci.Disk(inner.enumerate(1, 3))
        disk.ready()
        assert disk.read(1000, 64) == image.read_bytes()[1000 * 512 : 1064 * 512]


def test_two_disks_behind_a_hub(start, image, tmp_path):
    other = tmp_path / "other.img"
    other.write_bytes(bytes(1 << 20))
    devices = f"disk,file={image},port=1.1", "hub", f"disk,file={other},port=1.4"
    server = start(image=None, options=plug(*devices))
    with server.guest() as guest:
        hub = Hub(uhci.Uhci(guest).enumerate(0, 1))
        first, second = uhci.Disk(hub.enumerate(1, 2)), uhci.Disk(hub.enumerate(4, 3))
        first.ready(), second.ready()
        second.write(5, first.read(7, 8))
    server.terminate()
    assert other.read_bytes()[5 * 512 : 13 * 512] == image.read_bytes()[7 * 512 : 15 * 512]


def test_a_serial_line_tells_where_its_other_side_is(start, tmp_path):
    link = tmp_path / "line"
    server = start(image=None, options=plug(f"serial,pty={link},port=2", "zero"))
    uhci.Uhci.until(lambda: "the serial in port 2 is at /dev/pts/" in server.stdout.read_text(), "its announcement")
    assert link.is_symlink()
    assert server.terminate() == 0
    assert not link.is_symlink()
