"""The network that our clients are tried on (tests/net.py) does what they are to be tried with."""

import errno
import socket
import time

import net
import pytest

PORT = 4000


@pytest.fixture(scope="module")
def link():
    try:
        with net.Link() as link:
            yield link
    except net.NetError as error:
        pytest.skip(str(error))


@pytest.fixture
def ends(link):
    """A TCP connection: its near end, and its far end."""
    with link.far.socket() as listener, link.near.socket() as near:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((link.far.address, PORT))
        listener.listen()
        near.settimeout(10)
        near.connect((link.far.address, PORT))
        far, _ = listener.accept()
        with far:
            far.settimeout(10)
            yield near, far
    link.restore()


def test_hosts_see_no_other_network(link):
    for host in link.near, link.far:
        assert host.run(["ip", "-4", "-oneline", "address"]).count(" inet ") == 2  # its own, and the loopback's
    with link.near.socket() as alone, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(ConnectionRefusedError):
            alone.connect(listener.getsockname())


def test_what_is_sent_arrives(ends):
    near, far = ends
    for sender, receiver in (near, far), (far, near):
        sender.sendall(b"hello")
        assert receiver.recv(16) == b"hello"


def test_a_dead_link_says_nothing(link, ends):
    near, far = ends
    link.cut()
    near.sendall(b"lost?")
    far.sendall(b"lost, too?")
    for end in ends:
        end.settimeout(0.5)
        with pytest.raises(TimeoutError):
            end.recv(16)
    for host in link.near, link.far:
        assert "LOWER_UP" in host.run(["ip", "link", "show", "eth0"])
    link.restore()
    near.settimeout(10)
    far.settimeout(10)
    assert far.recv(16) == b"lost?"
    assert near.recv(16) == b"lost, too?"


def test_who_asks_for_it_notices_a_dead_link(link, ends):
    near, _ = ends
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000)
    near.settimeout(None)
    link.cut()
    near.sendall(b"lost")
    start = time.monotonic()
    with pytest.raises(OSError) as caught:
        near.recv(16)
    assert caught.value.errno == errno.ETIMEDOUT
    assert time.monotonic() - start < 5
