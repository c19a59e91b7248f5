"""One client at a time: who is served, who is turned away, and who has to make room."""

import time

import pytest

import client
import uhci
from client import HEADER

GRACE = 3.0  # seconds to agree on a version in, once somebody else wants to be served


def turned_away(server):
    with server.client() as other:
        assert other.is_gone(2)


def test_second_is_turned_away(server, guest):
    turned_away(server)
    assert guest.get_info()[0] == 16


def test_second_is_turned_away_while_the_disk_works(server, guest):
    disk = uhci.open_disk(guest)
    for i in range(10):
        turned_away(server)
        assert disk.read(i, 1)[:4] == i.to_bytes(4, "little")


def test_hundreds_are_turned_away_in_few_words(server, guest):
    for _ in range(200):
        turned_away(server)
    assert guest.get_info()[0] == 16
    assert 1 <= len(server.log().splitlines()) <= 5


def test_hundreds_who_say_much_are_turned_away(server, guest):
    """What they have sent is not read, and does not get into the first one's messages."""
    before = server.descriptors()
    for _ in range(200):
        with server.client() as other:
            try:
                for _ in range(5):
                    other.send(client.RESET, fds=[client.new_eventfd()])
            except client.Gone:
                pass
            assert other.is_gone(2)
    assert guest.get_info()[0] == 16
    server.wait_descriptors(before)


def test_served_after_the_first_has_left(server):
    with server.guest() as g:
        turned_away(server)
        g.close()
        assert server.serves()


def wait_out():
    time.sleep(GRACE + 0.3)


@pytest.mark.parametrize("said", [b"", HEADER.pack(1, client.VERSION, 40, 0, 0)[:9],
                                  HEADER.pack(1, client.VERSION, 40, 0, 0) + bytes(4)],
                         ids=["nothing", "half a header", "half a version"])
def test_one_that_never_agreed_makes_room(server, said):
    with server.client() as silent:
        silent.send_raw(said)
        wait_out()
        with client.Guest(server.path) as g:  # at the first attempt
            assert g.get_info()[0] == 16
            assert silent.is_gone()
            assert g.get_info()[0] == 16


def test_one_that_has_just_come_does_not_make_room(server):
    with server.client() as first:
        turned_away(server)
        assert first.version()[:2] == (0, 0)


def test_one_that_never_agreed_may_still_agree_while_nobody_waits(server):
    with server.client() as late:
        wait_out()
        assert late.version()[:2] == (0, 0)
        turned_away(server)
        assert late.get_info()[0] == 16


def test_one_that_agreed_does_not_make_room(server, guest):
    wait_out()
    turned_away(server)
    assert guest.get_info()[0] == 16
