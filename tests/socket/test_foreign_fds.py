"""Descriptors that are costly to hold or to close, passed with messages: the server goes on answering.

The worst is a TCP socket that lingers: whoever closes it last waits for its peer, for ten minutes.
"""

import contextlib
import os
import socket
import struct
import time

import pytest

import client
from client import CONFIG, HEADER, Gone

PROMPTLY = 2.0


@contextlib.contextmanager
def lingering():
    """The socket, with data that its peer does not read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        peer = listener.accept()[0]
    with peer:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
        ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(bytes(65536))
        try:
            yield ours.detach()
        finally:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset: nobody waits


@contextlib.contextmanager
def full_pipe():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(65536))
    os.set_blocking(writer, True)
    yield writer
    os.close(reader)


@contextlib.contextmanager
def opened(path, flags):
    yield os.open(path, flags)


FOREIGN = {
    "lingering": lingering,
    "pipe": full_pipe,
    "directory": lambda: opened("/", os.O_RDONLY),
    "null": lambda: opened("/dev/null", os.O_RDWR),
}


@pytest.fixture(params=FOREIGN)
def foreign(request):
    """A list of one, which send_away() empties."""
    with FOREIGN[request.param]() as fd:
        fds = [fd]
        yield fds
    for fd in fds:
        os.close(fd)


def send_away(server, c, data, fds):
    """The last reference is then the server's: before it reads, we have closed ours."""
    with server.paused():
        with contextlib.suppress(Gone):
            c.send_raw(data, fds)
        while fds:
            os.close(fds.pop())


def frame(command, body=b"", flags=0, size=None):
    return HEADER.pack(0x7777, command, 16 + len(body) if size is None else size, flags, 0) + body


def answers(c):
    begin = time.monotonic()
    assert c.get_info()[0] == 16
    assert time.monotonic() - begin < PROMPTLY


def serves_promptly(server):
    begin = time.monotonic()
    assert server.serves()
    assert time.monotonic() - begin < PROMPTLY


MESSAGES = {
    "reset": (client.RESET, b""),
    "information": (client.GET_INFO, struct.pack("=IIII", 16, 0, 0, 0)),
    "map": (client.DMA_MAP, client.Client.map_body(0x40000000, 0x10000)),
    "eventfd": (client.SET_IRQS, struct.pack("=IIIII", 20, 0x24, client.INTX, 0, 1)),
    "region write": (client.REGION_WRITE, struct.pack("=QII", 0x3C, CONFIG, 4) + bytes(4)),
    "unknown": (99, b""),
}


@pytest.mark.parametrize("message", MESSAGES)
def test_with_a_message(server, guest, foreign, message):
    command, body = MESSAGES[message]
    send_away(server, guest, frame(command, body), foreign)
    guest.receive()
    answers(guest)
    guest.close()
    serves_promptly(server)


def test_with_the_version(server, foreign):
    with server.client() as c:
        send_away(server, c, frame(client.VERSION, bytes(4) + b"{}\0"), foreign)
        c.receive()
    serves_promptly(server)


def test_with_the_rest_of_a_body(server, guest, foreign):
    """The header has been read when it comes."""
    body = struct.pack("=QII", 0x40, CONFIG, 64) + bytes(64)
    guest.send_raw(frame(client.REGION_WRITE, body)[:40])
    send_away(server, guest, frame(client.REGION_WRITE, body)[40:], foreign)
    guest.receive()
    answers(guest)


def test_with_a_message_behind_another(server, guest, foreign):
    with server.paused():
        guest.send_raw(frame(client.RESET))
        send_away(server, guest, frame(client.RESET), foreign)
    guest.receive()
    guest.receive()
    answers(guest)


def test_more_than_are_taken(server, guest, foreign):
    """Beyond the sixteen that a message may have: the client is dropped."""
    for _ in range(40):
        foreign.append(os.dup(foreign[0]))
    send_away(server, guest, frame(client.RESET), foreign)
    assert guest.is_gone(PROMPTLY)
    serves_promptly(server)


def test_more_than_are_taken_in_pieces(server, guest, foreign):
    """A few with every byte of a header."""
    duplicates = [os.dup(foreign[0]) for _ in range(7)]
    with server.paused(), contextlib.suppress(Gone):
        for byte in frame(client.RESET)[:8]:
            guest.send_raw(bytes([byte]), duplicates)
        foreign.extend(duplicates)
        send_away(server, guest, b"\0", foreign)
    assert guest.is_gone(PROMPTLY)
    serves_promptly(server)


def test_with_half_a_message_of_one_that_leaves(server, guest, foreign):
    send_away(server, guest, frame(client.RESET)[:7], foreign)
    guest.close()
    serves_promptly(server)


def test_in_the_queue_of_one_that_leaves(server, guest, foreign):
    with server.paused():
        guest.send_raw(frame(client.RESET))
        send_away(server, guest, frame(client.RESET), foreign)
        guest.close()
    serves_promptly(server)


def test_in_the_queue_of_one_that_is_dropped(server, guest, foreign):
    """Never read, they are closed with the socket."""
    with server.paused():
        guest.send_raw(frame(client.RESET, size=3))
        guest.send_raw(bytes(100))
        send_away(server, guest, frame(client.RESET), foreign)
    assert guest.is_gone(PROMPTLY)
    serves_promptly(server)


def test_in_the_queue_of_one_that_is_turned_away(server, guest, foreign):
    with server.paused():
        with client.Client(server.path) as other:
            send_away(server, other, frame(client.RESET), foreign)
    answers(guest)
    answers(guest)


def test_again_and_again(server, guest):
    """One each in many messages, and none of them can be closed."""
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            fds = [stack.enter_context(lingering())]
            send_away(server, guest, frame(client.RESET), fds)
            guest.receive()
            answers(guest)
        guest.close()
        serves_promptly(server)


def test_in_the_queue_when_a_signal_ends_it(server, guest, foreign):
    with server.paused():
        send_away(server, guest, frame(client.RESET, size=3) + frame(client.RESET), foreign)
        server.process.terminate()
    assert server.process.wait(PROMPTLY + 3) == 0


def test_taken_when_a_signal_ends_it(server, guest, foreign):
    send_away(server, guest, frame(client.RESET), foreign)
    guest.receive()
    assert server.terminate(PROMPTLY + 3) == 0
