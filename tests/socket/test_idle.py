"""What it costs to have it: how often a server that has nothing to do wakes up, and its CPU time."""

import time

import pytest

import client
import uhci

SECONDS = 3.0
NOTHING = 0.0005  # of a core
IDLE = 0.02

unsanitized = pytest.mark.unsanitized  # sanitizers cost more than what is measured


def share_of_a_core(server):
    time.sleep(0.3)  # what was under way ends
    before, begin = server.cpu_seconds(), time.monotonic()
    time.sleep(SECONDS)
    return (server.cpu_seconds() - before) / (time.monotonic() - begin)


def wakes(server):
    """How often its first thread, which serves, woke up or was made to wait."""

    def switches():
        with open(f"/proc/{server.process.pid}/status") as status:
            return sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)

    time.sleep(0.3)
    before = switches()
    time.sleep(SECONDS)
    return switches() - before


@pytest.fixture
def idle_disk(guest):
    return uhci.open_disk(guest)


@pytest.fixture
def stopped(idle_disk):
    idle_disk.uhci.stop()


def test_no_client_no_wakes(server):
    assert wakes(server) < 10


def test_stopped_controller_no_wakes(server, stopped):
    assert wakes(server) < 30


def test_attached_but_never_started_no_wakes(server, guest):
    assert wakes(server) < 10


@unsanitized
def test_no_client(server):
    assert share_of_a_core(server) < NOTHING


@unsanitized
def test_stopped_controller(server, stopped):
    assert share_of_a_core(server) < NOTHING


@unsanitized
def test_attached_but_never_started(server, guest):
    assert share_of_a_core(server) < NOTHING


@unsanitized
def test_running_with_an_idle_disk(server, idle_disk):
    assert idle_disk.uhci.get(uhci.USBCMD) & uhci.RUN
    assert share_of_a_core(server) < IDLE


@unsanitized
def test_running_without_bus_mastering(server, idle_disk, guest):
    guest.put(client.CONFIG, 0x04, 2, 1)
    assert share_of_a_core(server) < NOTHING
