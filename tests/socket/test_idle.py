"""What it costs to have it: CPU time of a server that has nothing to do."""

import time

import pytest

import client
import conftest
import uhci

SECONDS = 3.0
NOTHING = 0.0005  # of a core
IDLE = 0.02


def share_of_a_core(server):
    if conftest.sanitized():
        pytest.skip("sanitizers cost more than what is measured")
    time.sleep(0.3)  # what was under way ends
    before, begin = server.cpu_seconds(), time.monotonic()
    time.sleep(SECONDS)
    return (server.cpu_seconds() - before) / (time.monotonic() - begin)


def switches(server):
    with open(f"/proc/{server.process.pid}/status") as status:
        return sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)


@pytest.fixture
def idle_disk(guest):
    return uhci.open_disk(guest)


def test_no_client(server):
    before = switches(server)
    assert share_of_a_core(server) < NOTHING
    assert switches(server) - before < 10


def test_stopped_controller(server, idle_disk):
    idle_disk.uhci.stop()
    time.sleep(0.1)
    before = switches(server)
    assert share_of_a_core(server) < NOTHING
    assert switches(server) - before < 30


def test_attached_but_never_started(server, guest):
    before = switches(server)
    assert share_of_a_core(server) < NOTHING
    assert switches(server) - before < 10


def test_running_with_an_idle_disk(server, idle_disk):
    assert idle_disk.uhci.get(uhci.USBCMD) & uhci.RUN
    assert share_of_a_core(server) < IDLE


def test_running_without_bus_mastering(server, idle_disk, guest):
    guest.put(client.CONFIG, 0x04, 2, 1)
    assert share_of_a_core(server) < NOTHING
