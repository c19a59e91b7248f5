"""--fd: a socket made by whoever started the server. Listening: client after client. Connected: this one only."""

import os
import socket
import struct

import pytest

import client
import uhci
from client import CONFIG, HEADER, REGION_WRITE
from test_cli import fails

SOON = 3.0
NO_REPLY_WANTED = HEADER.pack(1, REGION_WRITE, 33, client.NO_REPLY, 0) + struct.pack("=QIIB", 0x3C, CONFIG, 1, 5)
A_REPLY_WANTED = HEADER.pack(2, client.RESET, 16, 0, 0)


@pytest.fixture
def listener(tmp_path):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp_path / "passed.sock"))
        s.listen()
        yield s


@pytest.fixture
def listening(start, listener):
    return start(fd=listener.fileno(), path=listener.getsockname())


@pytest.fixture(params=["socketpair", "accepted"])
def connected(request, start, tmp_path, listener):
    """A server with one end, and the other end."""
    if request.param == "socketpair":
        ours, theirs = socket.socketpair()
    else:
        ours = socket.socket(socket.AF_UNIX)
        ours.connect(listener.getsockname())
        theirs = listener.accept()[0]
        listener.close()
    with ours, theirs:
        server = start(fd=theirs.fileno())
        theirs.close()
        yield server, ours


def ends(server, status=0):
    assert server.process.wait(SOON) == status
    assert not server.log()


def test_listening_serves_one_client_after_the_other(listening, listener):
    for _ in range(2):
        with listening.guest() as g:
            assert uhci.open_disk(g).read(3, 1)[:4] == (3).to_bytes(4, "little")
    assert listening.alive()
    assert listening.terminate() == 0


def test_listening_and_its_path_is_not_removed(listening, listener):
    assert listening.serves()
    assert listening.terminate() == 0
    assert os.path.exists(listener.getsockname())


def test_listening_and_clients_wait_already(start, listener):
    with socket.socket(socket.AF_UNIX) as early:
        early.connect(listener.getsockname())
        start(fd=listener.fileno(), path=listener.getsockname())
        with client.Client(early) as c:
            assert c.version()[:2] == (0, 0)


def test_connected_is_served_until_it_leaves(connected):
    server, ours = connected
    with client.Guest(ours) as g:
        assert uhci.open_disk(g).read(3, 1)[:4] == (3).to_bytes(4, "little")
        assert server.alive()
    ends(server)


def test_connected_and_ended_by_a_signal(connected):
    server, ours = connected
    with client.Guest(ours) as g:
        assert server.terminate() == 0
        assert g.is_gone()


def test_connected_and_left_without_a_word(connected):
    server, ours = connected
    ours.close()
    ends(server)


def test_connected_and_left_before_the_start(start):
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        ends(start(fd=theirs.fileno()))


def test_connected_and_left_before_the_start_with_much_to_do(start):
    """All it ever wanted to say is in the socket, and it has gone."""
    ours, theirs = socket.socketpair()
    with theirs, client.Client(ours) as c:
        c.send(client.VERSION, bytes(4) + b"{}\0")
        c.send_raw((NO_REPLY_WANTED + A_REPLY_WANTED) * 100)
        c.close()
        ends(start(fd=theirs.fileno()))


def test_connected_and_left_with_replies_unread(connected):
    server, ours = connected
    with client.Guest(ours) as g:
        for _ in range(10):
            g.send(client.GET_INFO, struct.pack("=IIII", 16, 0, 0, 0))
        client.readable(g.socket, 1)
    ends(server)


def test_connected_and_left_with_the_socket_full_of_replies(connected):
    """The server waits for room, and gets none."""
    server, ours = connected
    with client.Guest(ours, timeout=0.3) as g:
        with pytest.raises(TimeoutError):
            while True:
                g.send(client.REGION_READ, struct.pack("=QII", 0, 99, 65536))
    ends(server)


@pytest.mark.parametrize("length", [1, 8, 15, 16, 20, 36, 40])
def test_connected_and_left_in_mid_message(connected, length):
    server, ours = connected
    message = HEADER.pack(1, REGION_WRITE, 96, 0, 0) + struct.pack("=QII", 0, CONFIG, 64) + bytes(64)
    with client.Guest(ours) as g:
        g.send_raw(message[:length])
    ends(server)


@pytest.mark.parametrize("rest", [0, 1, 8, 16, 32])
def test_connected_and_left_with_messages_queued(connected, rest):
    """Messages that want no reply, and the beginning of one more, that the server has yet to read."""
    server, ours = connected
    with client.Guest(ours) as g, server.paused():
        g.send_raw(NO_REPLY_WANTED * 1000 + NO_REPLY_WANTED[:rest])
        g.close()
    ends(server)


def test_connected_and_left_with_messages_queued_and_replies_unread(connected):
    server, ours = connected
    with client.Guest(ours) as g:
        g.send(client.RESET)
        assert client.readable(g.socket, SOON)
        with server.paused():
            g.send_raw((NO_REPLY_WANTED + A_REPLY_WANTED) * 100 + NO_REPLY_WANTED[:9])
            g.close()
    ends(server)


def test_connected_and_left_while_the_controller_runs(connected):
    server, ours = connected
    with client.Guest(ours) as g:
        disk = uhci.open_disk(g)
        disk.uhci.build([(uhci.PID_IN, 0, 64, uhci.DATA)] * 64, disk.device.address, disk.input & 0xF, True)
        disk.uhci.words[uhci.QUEUE_HEAD // 4 + 1] = uhci.TDS
    ends(server)


def test_connected_and_shut_down_for_writing(connected):
    """It will say nothing any more, though it could still hear."""
    server, ours = connected
    with client.Guest(ours) as g:
        g.socket.shutdown(socket.SHUT_WR)
        ends(server)


def test_connected_and_breaks_the_protocol(connected):
    server, ours = connected
    with client.Guest(ours) as g:
        g.send(client.RESET, size=3)
        assert g.is_gone()
    assert server.process.wait(SOON) in (0, 1)


def tcp_listening():
    return socket.create_server(("127.0.0.1", 0))


def tcp_connected():
    with tcp_listening() as s:
        return socket.create_connection(s.getsockname())


WRONG = {
    "unconnected": lambda path: socket.socket(socket.AF_UNIX),
    "unix datagram": lambda path: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0],
    "unix seqpacket": lambda path: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)[0],
    "tcp": lambda path: socket.socket(),
    "tcp listening": lambda path: tcp_listening(),
    "tcp connected": lambda path: tcp_connected(),
    "udp": lambda path: socket.socket(type=socket.SOCK_DGRAM),
    "file": lambda path: open(path / "file", "w+b"),
    "directory": lambda path: os.open(path, os.O_RDONLY),
    "null": lambda path: open("/dev/null", "r+b"),
    "pipe": lambda path: os.pipe()[1],
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_descriptors(tmp_path, image, kind):
    opened = WRONG[kind](tmp_path)
    fd = opened if isinstance(opened, int) else opened.fileno()
    try:
        fails(tmp_path, "serve", "--fd", fd, "--device", f"disk,file={image}", fds=[fd])
    finally:
        os.close(fd) if isinstance(opened, int) else opened.close()


def test_bound_but_not_listening(tmp_path, image):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp_path / "bound.sock"))
        fails(tmp_path, "serve", "--fd", s.fileno(), "--device", f"disk,file={image}", fds=[s.fileno()])


def test_closed_descriptor(tmp_path, image):
    assert "99" in fails(tmp_path, "serve", "--fd", 99, "--device", f"disk,file={image}")


def test_standard_input_that_is_no_socket(tmp_path, image):
    fails(tmp_path, "serve", "--fd", 0, "--device", f"disk,file={image}")


@pytest.mark.parametrize("value", ["", "x", "3x", "-1", "99999999999999999999", "0x3"])
def test_no_numbers(tmp_path, image, value):
    fails(tmp_path, "serve", "--fd", value, "--device", f"disk,file={image}")


def test_path_and_descriptor(tmp_path, listener):
    fails(tmp_path, "serve", "--fd", listener.fileno(), "--socket-path", tmp_path / "s.sock", fds=[listener.fileno()])
