"""The control channel: what docs/control.md says, whoever is at the other end."""

import contextlib
import json
import os
import pathlib
import re
import socket
import stat
import threading
import time

import pytest

import client
import conftest
import uhci
from hubs import Hub
from platter import Platter, compile_library
from test_cli import fails, run, serve

BLOCK = 512


class Refused(Exception):
    def __init__(self, error):
        super().__init__(error["desc"])
        self.kind = error["class"]


class Control:
    """A client of the channel. What is pushed is kept in events."""

    def __init__(self, path, timeout=10):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("rb")
        self.events = []
        self.greeting = self.receive()

    def close(self):
        self.lines.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, text):
        self.socket.sendall(text if isinstance(text, bytes) else text.encode())

    def receive(self):
        """The next line, which is there and whole; None: the server has closed the connection."""
        try:
            line = self.lines.readline()
        except ConnectionResetError:
            return None
        assert not line or line.endswith(b"\n")
        return json.loads(line) if line else None

    def answer(self):
        while (answer := self.receive()) and "event" in answer:
            self.events.append(answer)
        return answer

    def request(self, execute, **arguments):
        self.send(json.dumps({"execute": execute, "arguments": arguments}) + "\n")

    def ask(self, execute, **arguments):
        self.request(execute, **arguments)
        answer = self.answer()
        if "error" in answer:
            assert answer.keys() == {"error"} and answer["error"].keys() == {"class", "desc"}
            assert len(answer["error"]["desc"].splitlines()) == 1
            raise Refused(answer["error"])
        assert answer.keys() == {"return"}
        return answer["return"]

    def add(self, device):
        return self.ask("device-add", device=device)["port"]

    def remove(self, port):
        assert self.ask("device-remove", port=port) == {}

    def devices(self):
        return {device["port"]: device for device in self.ask("devices")["devices"]}

    def kinds(self):
        return {port: device["kind"] for port, device in self.devices().items()}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "control.sock"


@pytest.fixture
def begin(start, path):
    """begin(devices...) starts a server with a control channel."""

    def begin(*devices, options=(), image=None, **arguments):
        plugs = [word for device in devices for word in ("--device", device)]
        return start(image=image, options=["--control", path, *plugs, *options], **arguments)

    return begin


@pytest.fixture
def server(begin):
    return begin()


@pytest.fixture
def control(server, path):
    with Control(path) as c:
        yield c


def refused(control, execute, **arguments):
    with pytest.raises(Refused) as e:
        control.ask(execute, **arguments)
    return e.value


# Being there


def test_greets_with_its_version(control):
    version = run("--version").stdout.split()[1]
    assert control.greeting == {"bulkhead": {"version": version}}


def test_only_the_owner_may_connect(server, path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_gone_with_the_server(server, path):
    assert server.terminate() == 0
    assert not path.exists()


def test_ends_with_clients(server, control):
    assert server.terminate() == 0
    assert control.receive() is None


def test_path_in_use(server, path, tmp_path):
    before = path.lstat().st_ino
    assert str(path) in fails(tmp_path, *serve(tmp_path, "--control", path, path=tmp_path / "other.sock"))
    assert path.lstat().st_ino == before


def test_path_of_something_else(tmp_path, path):
    path.write_text("precious")
    fails(tmp_path, *serve(tmp_path, "--control", path))
    assert path.read_text() == "precious"


@pytest.mark.parametrize("text", ["no/such/directory.sock", "x" * 120, ""])
def test_path_that_cannot_be(tmp_path, text):
    fails(tmp_path, *serve(tmp_path, "--control", text))


def test_path_of_the_other_socket(tmp_path, path):
    assert "--control" in fails(tmp_path, *serve(tmp_path, "--control", path, path=path))


def test_nothing_left_where_the_server_cannot_begin(tmp_path, path):
    fails(tmp_path, *serve(tmp_path, "--control", path, path=tmp_path / "no" / "such.sock"))


def test_stale_socket_is_replaced(begin, path):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(path))
    begin()
    with Control(path) as control:
        assert control.devices() == {}


def test_with_a_passed_socket(start, path, tmp_path):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "passed.sock"))
        listening.listen()
        server = start(image=None, fd=listening.fileno(), options=["--control", path])
        uhci.Uhci.until(path.exists, "the control channel")
        with server.retry(lambda: Control(path)) as control:
            assert control.add("zero") == "1"
        assert server.terminate() == 0


# Commands


def test_add_tells_the_place(control, image):
    assert control.add("zero") == "1"
    assert control.add("hub,port=2") == "2"
    assert control.add(f"disk,file={image},port=2.3") == "2.3"
    assert control.kinds() == {"1": "zero", "2": "hub", "2.3": "disk"}


def test_added_besides_those_of_the_command_line(begin, path):
    begin("zero,port=2")
    with Control(path) as control:
        assert control.add("hid") == "1"
        assert control.kinds() == {"1": "hid", "2": "zero"}


@pytest.mark.parametrize("device", [
    "toaster", "", ",", "disk", "disk,file=", "disk,file=no-such-file", "zero,port=3", "zero,port=1.1", "zero,port=x",
    "zero,colour=red", "zero,pattern=9", "hub,ports=9", "hid,kind=joystick", "zero,pattern", "zero,verify=trace",
])
def test_the_same_messages_as_on_the_command_line(control, tmp_path, device):
    message = fails(tmp_path, *serve(tmp_path, "--device", device))
    assert message == f"bulkhead: {refused(control, 'device-add', device=device)}\n"
    assert control.devices() == {}


def test_what_does_not_fit_any_more(control):
    assert (control.add("zero"), control.add("hub")) == ("1", "2")
    assert "free" in str(refused(control, "device-add", device="zero"))
    assert "taken" in str(refused(control, "device-add", device="zero,port=2"))
    assert control.kinds() == {"1": "zero", "2": "hub"}


def test_sixty_four_devices_and_no_more(begin, path):
    begin(controller="uhci,ports=8")
    with Control(path) as control:
        for _ in range(8):
            control.add("hub,ports=7")
        for port in range(56):
            control.add(f"zero,port={port // 7 + 1}.{port % 7 + 1}")
        assert len(control.devices()) == 64
        control.remove("1")
        assert len(control.devices()) == 56
        assert control.add("hub,port=1") == "1"
        assert control.add("hub,port=1.1") == "1.1"
        for place in ("1.2", "1.3", "1.4", "1.1.1", "1.1.2", "1.1.3"):
            control.add(f"zero,port={place}")
        assert "64" in str(refused(control, "device-add", device="zero,port=1.1.4"))


@pytest.mark.parametrize("place", ["1", "1.1", "2.3"])
def test_nothing_there(control, place):
    if place == "1.1":
        control.add("hub")
    error = refused(control, "device-remove", port=place)
    assert error.kind == ("GenericError" if place == "2.3" else "DeviceNotFound")


@pytest.mark.parametrize("place", ["", "0", "x", "9", "1.1.1.1.1.1.1.1", "1\n"])
def test_no_place(control, place):
    control.add("zero")
    refused(control, "device-remove", port=place)
    refused(control, "input", port=place, text="type x")
    assert control.kinds() == {"1": "zero"}


def test_identity_comes_back(control):
    for identity in (7, "seven", None, [1, {"a": [2.5, True]}], {}, "\u00e9\U0001f41f"):
        control.send(json.dumps({"execute": "devices", "id": identity}) + "\n")
        assert control.answer() == {"return": {"devices": []}, "id": identity}
    control.send('{"execute": "nothing", "id": 8}\n')
    answer = control.answer()
    assert answer["id"] == 8 and answer["error"]["class"] == "CommandNotFound"


def test_what_the_guest_sees(server, control, image):
    with server.guest() as guest:
        driver = uhci.Uhci(guest)
        assert not driver.connected(0)
        control.add(f"disk,file={image}")
        driver.wait_connected(0)
        seen = control.devices()["1"]
        assert (seen["connected"], seen["enabled"], seen["suspended"], seen["address"]) == (True, False, False, 0)
        assert seen["speed"] == "full"
        disk = uhci.Disk(driver.enumerate(0, 9))
        disk.ready()
        assert disk.read(3, 1) == (3).to_bytes(4, "little") * 128
        seen = control.devices()["1"]
        assert (seen["connected"], seen["enabled"], seen["suspended"], seen["address"]) == (True, True, False, 9)
        assert seen["counters"]["bytes_read"] >= 512
        driver.put(driver.port(0), uhci.PORT_ENABLED | 1 << 12)
        assert control.devices()["1"]["suspended"]
        control.remove("1")
        driver.until(lambda: not driver.connected(0), "disconnection")
        assert driver.get(driver.port(0)) & uhci.PORT_CHANGE


def test_low_speed(server, control):
    with server.guest() as guest:
        driver = uhci.Uhci(guest)
        control.add("hid,kind=mouse,speed=low")
        driver.wait_connected(0)
        assert driver.get(driver.port(0)) & uhci.PORT_LOW_SPEED
        assert control.devices()["1"]["speed"] == "low"


def test_statistics_are_those_of_the_file(begin, path, tmp_path):
    file = tmp_path / "statistics.json"
    server = begin("zero", "hub", options=["--statistics", file])
    with Control(path) as control:
        statistics = control.ask("statistics")
    assert server.terminate() == 0
    assert json.loads(file.read_text()) == statistics
    assert [(d["port"], d["kind"]) for d in statistics["devices"]] == [("1", "zero"), ("2", "hub")]


def test_a_disk_over_the_statistics_is_refused(begin, path, tmp_path):
    file = tmp_path / "statistics.json"
    file.write_bytes(bytes(BLOCK))
    begin(options=["--statistics", file])
    with Control(path) as control:
        assert "--statistics" in str(refused(control, "device-add", device=f"disk,file={file}"))
        assert control.devices() == {}


def test_input(server, control):
    control.add("hid")
    assert control.ask("input", port="1", text="type hello") == {}
    assert control.devices()["1"]["counters"]["events"] == 10
    assert "fly" in str(refused(control, "input", port="1", text="fly away"))
    assert control.devices()["1"]["counters"]["events"] == 10


def test_input_reaches_the_guest(server, control):
    with server.guest() as guest:
        control.add("hid")
        keyboard = uhci.Uhci(guest).enumerate()
        endpoint = next(e for e in keyboard.endpoints if e & 0x80)
        control.ask("input", port="1", text="key a")
        reports = [keyboard.uhci.bulk(keyboard.address, endpoint & 15, length=8, packet=keyboard.endpoints[endpoint])
                   for _ in range(2)]
        assert reports == [bytes([0, 0, 4, 0, 0, 0, 0, 0]), bytes(8)]


@pytest.mark.parametrize("device", ["zero", "hub"])
def test_input_for_what_takes_none(control, device):
    control.add(device)
    assert "no input" in str(refused(control, "input", port="1", text="type x"))
    assert refused(control, "input", port="2", text="type x").kind == "DeviceNotFound"


def test_a_serial_line_carries_what_it_is_given(server, control, tmp_path):
    with server.guest() as guest:
        control.add(f"serial,pty={tmp_path / 'line'}")
        where = control.devices()["1"]["other_side"]
        assert where.startswith("/dev/pts/") and os.readlink(tmp_path / "line") == where
        line = uhci.Uhci(guest).enumerate()
        output, packet = next((e, size) for e, size in line.endpoints.items() if not e & 0x80)
        terminal = os.open(where, os.O_RDWR | os.O_NOCTTY)
        line.uhci.bulk(line.address, output, data=b"hello", packet=packet)
        assert client.readable(terminal, 5) and os.read(terminal, 100) == b"hello"
        os.close(terminal)
        assert control.devices()["1"]["counters"]["from_guest"] == 5
        control.remove("1")
        assert not (tmp_path / "line").is_symlink()


def test_a_line_nobody_listens_to_is_no_failure(server, control):
    with server.guest() as guest:
        control.add("serial,pty=on")
        line = uhci.Uhci(guest).enumerate()
        output, packet = next((e, size) for e, size in line.endpoints.items() if not e & 0x80)
        line.uhci.bulk(line.address, output, data=b"login: ", packet=packet)
        control.remove("1")
    assert server.terminate() == 0


# Pulling out


def test_a_hub_goes_with_everything_behind_it(control, image):
    for device in ("hub", "hub,port=1.4", f"disk,file={image},port=1.4.2", "zero,port=1.1", "hid,port=1.4.1", "zero"):
        control.add(device)
    control.remove("1")
    assert control.kinds() == {"2": "zero"}
    assert control.add(f"disk,file={image}") == "1", "the file is not locked any more"


def test_pulled_out_and_plugged_in_again_and_the_guest_reads_on(server, control, image):
    with server.guest() as guest:
        driver = uhci.Uhci(guest)
        for turn in range(3):
            control.add(f"disk,file={image}")
            disk = uhci.Disk(driver.enumerate(0, turn + 1))
            disk.ready()
            assert disk.read(turn, 100) == image.read_bytes()[turn * 512 : (turn + 100) * 512]
            control.remove("1")
            driver.until(lambda: not driver.connected(0), "disconnection")


def pull_while(control, server, driver, disk, place, work):
    """The device goes once the guest's work on it has begun; the work fails then, and soon."""
    before = control.devices()[place]["counters"]["commands"]

    def pull():
        uhci.Uhci.until(lambda: control.devices()[place]["counters"]["commands"] > before + 2, "some work")
        control.remove(place.split(".")[0])

    thread = threading.Thread(target=pull)
    thread.start()
    with pytest.raises((uhci.TransferError, uhci.TimedOut)):
        while True:
            work()
    thread.join()
    driver.let_go()


@pytest.mark.parametrize("write", [False, True], ids=["reading", "writing"])
@pytest.mark.parametrize("behind", [False, True], ids=["root port", "behind a hub"])
def test_pulled_out_while_transfers_run(server, control, image, write, behind):
    with server.guest() as guest:
        driver = uhci.Uhci(guest)
        for _ in range(3):
            if behind:
                control.add("hub")
            place = control.add(f"disk,file={image}" + (",port=1.2" if behind else ""))
            device = driver.enumerate(0, 1)
            if behind:
                device = Hub(device).enumerate(2, 2)
            disk = uhci.Disk(device)
            disk.ready()
            data = bytes(256 * BLOCK)
            work = (lambda: disk.write(100, data)) if write else (lambda: disk.read(100, 256))
            pull_while(control, server, driver, disk, place, work)
            assert control.devices() == {}
            assert not driver.connected(0)
    assert server.serves()


def test_pulled_out_with_a_transfer_that_waits(server, control):
    """A keyboard nobody types on: the guest's poll stays there, and ends as a time-out."""
    with server.guest() as guest:
        control.add("hid")
        driver = uhci.Uhci(guest)
        keyboard = driver.enumerate()
        endpoint = next(e for e in keyboard.endpoints if e & 0x80)
        driver.build([(uhci.PID_IN, 0, 8, uhci.DATA)], keyboard.address, endpoint & 15, False)
        driver.words[uhci.QUEUE_HEAD // 4 + 1] = uhci.TDS
        status = uhci.TDS // 4 + 1
        driver.let_go()
        driver.let_go()
        assert driver.words[status] & uhci.TD_ACTIVE
        control.remove("1")
        driver.until(lambda: not driver.words[status] & uhci.TD_ACTIVE, "the end of the transfer")
        assert driver.words[status] & 1 << 18  # CRC error or time-out
        assert not driver.connected(0)


def test_what_was_written_is_in_the_file(server, control, image):
    with server.guest() as guest:
        control.add(f"disk,file={image}")
        uhci.open_disk(guest).write(77, b"x" * BLOCK)
        control.remove("1")
        assert image.read_bytes()[77 * BLOCK : 78 * BLOCK] == b"x" * BLOCK


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return compile_library(tmp_path_factory.mktemp("library"))


@pytest.fixture
def platter(tmp_path):
    return Platter(tmp_path / "platter")


@pytest.fixture
def written(begin, platter, library, image, path):
    """A server whose disk has something to be flushed."""
    server = begin(f"disk,file={image}", env=platter.environment(library))
    with server.guest() as guest:
        uhci.open_disk(guest).write(5, b"y" * BLOCK)
    return server


@pytest.mark.unsanitized
def test_answered_when_it_is_on_the_platter(written, path, platter):
    platter.slow()
    with Control(path) as control, Control(path) as other:
        control.request("device-remove", port="1")
        uhci.Uhci.until(lambda: not other.devices(), "the end of the disk")  # who asks meanwhile is answered
        assert not platter.flushed()
        assert control.answer() == {"return": {}}
        assert platter.read(5) == b"y" * BLOCK


@pytest.mark.unsanitized
def test_commands_wait_their_turn(written, path, platter, image):
    platter.slow()
    with Control(path) as control:
        control.request("device-remove", port="1")
        control.request("device-add", device=f"disk,file={image}")
        control.request("devices")
        assert control.answer() == {"return": {}}
        assert control.answer() == {"return": {"port": "1"}}
        assert control.answer()["return"]["devices"][0]["port"] == "1"


@pytest.mark.unsanitized
def test_leaving_before_the_answer(written, path, platter):
    platter.slow()
    with Control(path) as control:
        control.request("device-remove", port="1")
        control.request("devices")
        with Control(path) as other:
            uhci.Uhci.until(lambda: not other.devices(), "the end of the disk")
    with Control(path) as control:
        uhci.Uhci.until(platter.flushed, "the flush")
        assert control.devices() == {}
    assert written.serves()


@pytest.mark.unsanitized
def test_ended_before_the_answer(written, path, platter):
    platter.slow()
    with Control(path) as control, Control(path) as other:
        control.request("device-remove", port="1")
        uhci.Uhci.until(lambda: not other.devices(), "the end of the disk")
        assert written.terminate() == 0
        assert control.receive() is None
    assert platter.flushed()


@pytest.mark.unsanitized
def test_what_could_not_be_flushed_is_told(written, path, platter):
    platter.broken()
    with Control(path) as control, Control(path) as other:
        error = refused(control, "device-remove", port="1")
        assert "flushed" in str(error) and "lost" in str(error)
        event = other.receive()
        assert event["event"] == "device-failed"
        assert (event["data"]["port"], event["data"]["kind"]) == ("1", "disk")
        assert abs(event["timestamp"]["seconds"] - time.time()) < 60
        assert control.devices() == {}
    written.wait_log("flushed")
    assert written.terminate() == 1


# Whoever is at the other end


GARBAGE = [
    b"x", b"{", b"}", b"[]", b"1", b"null", b'"devices"', b"{}", b'{"execute": 1}', b'{"execute": null}',
    b'{"execute": "quit"}', b'{"execute": ""}', b'{"execute": "devices", "arguments": []}',
    b'{"execute": "devices", "arguments": {"port": "1"}}', b'{"execute": "devices", "argument": {}}',
    b'{"execute": "device-remove"}', b'{"execute": "device-remove", "arguments": {}}',
    b'{"execute": "device-remove", "arguments": {"port": 1}}', b'{"execute": "device-remove", "arguments": null}',
    b'{"execute": "device-add", "arguments": {"device": "zero", "bus": "x"}}',
    b'{"execute": "device-add", "arguments": {"device": ["zero"]}}',
    b'{"execute": "devices", "execute": "devices"}', b'{"execute": "devices"} {"execute": "devices"}',
    b'{"execute": "devices", "id": 1e999}', b'{"execute": "devices", "id": 99999999999999999999999999}',
    b'{"execute": "dev\\u0000ices"}', b'{"execute": "dev\0ices"}', b"\0", b"\0" * 5000, b"\xff\xfe", b"\x80" * 3000,
    b'{"execute": "\xc0\xaf"}', b'{"execute": "\\ud800"}', b'{"execute": "devices", "id": "\xed\xa0\x80"}',
    b"[" * 60000, b'{"a":' * 10000, b'{"execute": "devices", "id": ' + b"[" * 3000 + b"]" * 3000 + b"}",
    b'{"execute": "' + b"x" * 60000 + b'"}', b'{"' + b"k" * 60000 + b'": 1}',
    b'{"execute": "device-add", "arguments": {"device": "' + b"zero,port=" * 6000 + b'"}}',
    b'{"execute": "device-add", "arguments": {"device": "' + b"," * 60000 + b'"}}',
    b'{"execute": "device-add", "arguments": {"device": "' + "\N{GREEK SMALL LETTER OMEGA}".encode() * 30000 + b'"}}',
    b'{"execute": "device-add", "arguments": {"device": "x' + "\N{GREEK SMALL LETTER OMEGA}".encode() * 30000 + b'"}}',
    b'{"execute": "device-add", "arguments": {"device": "disk,file=/' + b"f" * 60000 + b'"}}',
    b'{"execute": "input", "arguments": {"port": "1", "text": "' + b"type x;" * 9000 + b'"}}',
    b"\x1b[2J", b"GET / HTTP/1.1",
]


def test_garbage_is_answered_and_the_next_request_too(server, control):
    for line in GARBAGE:
        control.send(line + b"\n")
        answer = control.answer()
        assert answer.keys() <= {"error", "id"} and len(answer["error"]["desc"].splitlines()) == 1, line[:80]
        assert control.devices() == {}
    assert server.serves()


def test_numbers_and_depth_that_can_be(control):
    identity = 0
    for _ in range(900):
        identity = [identity]
    for value in (identity, 2**63 - 1, -(2**63), 1e308, "x" * 60000):
        control.send(json.dumps({"execute": "devices", "id": value}) + "\n")
        assert control.answer()["id"] == value


def test_empty_lines_are_nothing(control):
    control.send(b"\n\r\n\n   \n")
    assert "error" in control.answer()  # of the blanks
    control.send(b'\n\n{"execute": "devices"}\r\n')
    assert control.answer() == {"return": {"devices": []}}


def test_a_line_without_end(server, path, control):
    with Control(path) as endless:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(100):
                endless.send(b"x" * 4096)
        answer = endless.receive()
        assert answer is None or "longer" in answer["error"]["desc"]
        assert answer is None or endless.receive() is None
        assert control.devices() == {}
    assert server.serves()


def test_a_line_byte_by_byte(server, control, path):
    with Control(path) as other:
        for byte in b'{"execute": "devices"}\n':
            control.send(bytes([byte]))
            assert other.devices() == {}
        assert control.answer() == {"return": {"devices": []}}


def test_a_request_on_the_way_costs_nothing(server, path, control):
    control.send(b'{"execute": ')
    assert control.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    with Control(path) as other:
        assert other.devices() == {}  # it has been read, too
    before = server.cpu_seconds()
    time.sleep(0.3)
    assert server.cpu_seconds() - before < 0.1


def test_many_at_once_are_answered_in_order(control):
    count = 2000
    sender = threading.Thread(target=lambda: control.send(b"".join(b'{"execute": "devices", "id": %d}\n' % i
                                                                   for i in range(count))))
    sender.start()
    assert [control.answer()["id"] for _ in range(count)] == list(range(count))
    sender.join()


def test_two_at_once(server, path, control):
    with Control(path) as other:
        control.request("device-add", device="zero")
        other.request("device-add", device="hid")
        ports = control.answer()["return"]["port"], other.answer()["return"]["port"]
        assert sorted(ports) == ["1", "2"]
        assert other.kinds() == control.kinds() == {ports[0]: "zero", ports[1]: "hid"}
        other.remove(ports[0])
        assert control.kinds() == {ports[1]: "hid"}


def test_the_ninth_is_told(server, path):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Control(path)) for _ in range(8)]
        with Control(path) as ninth:
            assert "8 clients" in ninth.greeting["error"]["desc"]
            assert ninth.receive() is None
        assert all(client.devices() == {} for client in clients)
        clients[3].close()
        uhci.Uhci.until(lambda: "bulkhead" in Control(path).greeting, "a free place")
    assert server.serves()


@pytest.mark.parametrize("farewell", [b"", b"{", b'{"execute": "devices"}', b'{"execute": "devices"}\n' * 1000,
                                      b'{"execute": "device-add", "arguments": {"device": "zero"}}\n'],
                         ids=["at once", "in a line", "before its end", "with much unanswered", "with a device"])
def test_leaving_at_any_time(server, path, farewell):
    descriptors = server.descriptors()
    for _ in range(20):
        with Control(path) as control:
            control.send(farewell)
    with Control(path) as control:
        assert set(control.kinds()) <= {"1", "2"}
    server.wait_descriptors(descriptors)
    assert server.serves()


def test_one_who_has_said_all_is_answered(path, control):
    with Control(path) as other:
        other.send(b'{"execute": "devices", "id": 1}\n{"execute": "devices", "id": 2}')
        other.socket.shutdown(socket.SHUT_WR)
        assert [other.receive()["id"] for _ in range(2)] == [1, 2]
        assert other.receive() is None
    assert control.devices() == {}


def resident(server):
    """Bytes."""
    with open(f"/proc/{server.process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_one_who_does_not_read_is_dropped(server, path, control):
    """Nobody waits for it, nothing is kept for it without end, and in the end its place is free."""
    with Control(path) as deaf:
        deaf.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                deaf.socket.send(b'{"execute": "statistics"}\n' * 100)
        before = resident(server)
        control.ask("statistics")
        for _ in range(200):
            control.add("zero")
            control.remove("1")
        if not conftest.sanitized():
            assert resident(server) - before < 4 << 20
        server.wait_log("dropped", timeout=20)
    assert control.devices() == {}
    assert server.serves()


def cycle(control, image, count):
    for _ in range(count):
        for device in ("hub", f"disk,file={image},port=1.3", "hub,port=1.4", "zero,port=1.4.1", "hid,port=1.4.2",
                       "serial,pty=on,port=1.4.3", "serial,tcp-listen=127.0.0.1:0"):
            control.add(device)
        refused(control, "device-add", device="zero")
        refused(control, "device-add", device=f"disk,file={image},port=1.4.4")
        refused(control, "device-add", device="serial,pty=/no/such/directory/line,port=1.4.4")
        control.remove("1.4.1")
        control.remove("1")
        control.remove("2")


def test_plugging_for_ever_leaves_nothing_behind(server, control, image):
    with server.guest() as guest:
        driver = uhci.Uhci(guest)
        cycle(control, image, 5)
        descriptors, memory = server.descriptors(), resident(server)
        cycle(control, image, 100)
        assert server.descriptors() == descriptors
        if not conftest.sanitized():
            assert resident(server) - memory < 256 << 10
        assert control.devices() == {}
        control.add(f"disk,file={image}")
        assert uhci.Disk(driver.enumerate(0)).capacity()[1] == 512


def test_enumerated_and_pulled_out_for_ever(server, control, image):
    """What a guest makes the bus keep for a device goes with it."""
    with server.guest() as guest:
        driver = uhci.Uhci(guest)

        def turn():
            control.add("hub")
            control.add(f"disk,file={image},port=1.1")
            disk = uhci.Disk(Hub(driver.enumerate(0, 1)).enumerate(1, 2))
            disk.ready()
            disk.write(0, bytes(64 * BLOCK))
            disk.read(0, 64)
            control.remove("1")

        for _ in range(3):
            turn()
        descriptors, memory = server.descriptors(), resident(server)
        for _ in range(15):
            turn()
        assert server.descriptors() == descriptors
        if not conftest.sanitized():
            assert resident(server) - memory < 256 << 10


# What is written about it

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "control.md"


def test_the_examples_of_the_documentation(begin, path, image, tmp_path):
    """In their order; "..." stands for anything, and events are not to be had for the asking."""
    begin("hub", cwd=tmp_path)
    lines = [line[4:] for line in DOCUMENT.read_text().splitlines() if line.startswith(("    -> ", "    <- "))]
    with Control(path) as control:
        wanted = [json.dumps(control.greeting, separators=(",", ":"))]
        for line in lines:
            if line.startswith("-> "):
                control.send(line[3:] + "\n")
                wanted.append(control.lines.readline().decode().rstrip("\n"))
            elif "timestamp" not in line:
                pattern = ".*".join(map(re.escape, line[3:].split("...")))
                got = wanted.pop(0)
                assert re.fullmatch(pattern, got), f"{got} is not {line[3:]}"
        assert not wanted
    for command in ("device-add", "device-remove", "devices", "input", "statistics"):
        assert f'"execute": "{command}"' in DOCUMENT.read_text() and f"\n### {command}\n" in DOCUMENT.read_text()
