"""Interrupts: eventfds, INTx's level on top of them, MSI."""

import fcntl
import os
import select
import socket
import struct

import pytest

import client
import uhci
from client import ERR, INTX, MSI, MSIX, REQ, Refused, fired, new_eventfd


@pytest.fixture
def controller(guest):
    u = uhci.Uhci(guest)
    u.wait_connected()
    u.reset_port()
    return u


def cause(controller):
    """Ends in a TD that asks for an interrupt; USBSTS holds it until acknowledged."""
    controller.descriptor(0, 1, 8, packet=8)
    controller.control(0, 0x80, 6, 0x0100, length=8, packet=8, interrupt=True)


def acknowledge(controller):
    controller.put(uhci.USBSTS, 0x3F)


def test_irq_infos(guest):
    assert guest.irq_info(INTX) == (16, 7, INTX, 1)
    assert guest.irq_info(MSI) == (16, 9, MSI, 1)
    assert guest.irq_info(MSIX)[3] == 0
    assert guest.irq_info(ERR)[3] == 1
    assert guest.irq_info(REQ)[2] == REQ
    for index in (5, 0xFFFFFFFF):
        with pytest.raises(Refused):
            guest.irq_info(index)


def test_intx_is_signalled_once_until_unmasked(guest, controller):
    fd = new_eventfd()
    guest.assign(INTX, fd)
    cause(controller)
    assert fired(fd) == 1
    cause(controller)
    assert fired(fd, 0.1) == 0
    # the level is still high: unmasking signals again
    guest.unmask()
    assert fired(fd) == 1
    acknowledge(controller)
    guest.unmask()
    assert fired(fd, 0.1) == 0
    cause(controller)
    assert fired(fd) == 1


def test_intx_assigned_while_high(guest, controller):
    cause(controller)
    fd = new_eventfd()
    guest.assign(INTX, fd)
    assert fired(fd) == 1


def test_intx_masked_by_the_client(guest, controller):
    fd = new_eventfd()
    guest.assign(INTX, fd)
    guest.mask()
    cause(controller)
    assert fired(fd, 0.1) == 0
    guest.unmask()
    assert fired(fd) == 1


def test_interrupt_disable_in_command(guest, controller):
    fd = new_eventfd()
    guest.assign(INTX, fd)
    guest.put(client.CONFIG, 0x04, 2, 0x0405)
    cause(controller)
    assert fired(fd, 0.1) == 0
    assert guest.get(client.CONFIG, 0x06, 2) & 8  # Interrupt Status shows it all the same
    guest.put(client.CONFIG, 0x04, 2, 0x0005)
    assert fired(fd) == 1


def test_replaced_and_disabled(guest, controller):
    first, second = new_eventfd(), new_eventfd()
    guest.assign(INTX, first)
    guest.assign(INTX, second)
    cause(controller)
    assert (fired(second), fired(first, 0)) == (1, 0)
    guest.disable(INTX)
    guest.unmask()
    assert fired(second, 0.1) == 0
    guest.set_irqs(INTX, 0x24)  # no descriptor: de-assign
    guest.assign(INTX, first)
    assert fired(first) == 1


def enable_msi(guest, on=True):
    guest.put(client.CONFIG, guest.msi_offset() + 4, 4, 0xFEE00000)
    guest.put(client.CONFIG, guest.msi_offset() + 2, 2, 0x81 if on else 0x80)


def test_msi_one_message_per_rise(guest, controller):
    intx, msi = new_eventfd(), new_eventfd()
    guest.assign(INTX, intx)
    guest.assign(MSI, msi)
    enable_msi(guest)
    for _ in range(3):
        cause(controller)
        assert fired(msi) >= 1
        acknowledge(controller)
    assert fired(intx, 0.1) == 0


def test_msi_sent_between_enabling_and_eventfd(guest, controller):
    """QEMU writes configuration space first, then assigns."""
    cause(controller)
    enable_msi(guest)
    msi = new_eventfd()
    guest.assign(MSI, msi)
    assert fired(msi) == 1


def test_back_to_intx(guest, controller):
    intx, msi = new_eventfd(), new_eventfd()
    guest.assign(MSI, msi)
    enable_msi(guest)
    cause(controller)
    assert fired(msi) >= 1
    guest.disable(MSI)
    guest.assign(INTX, intx)
    assert fired(intx, 0.1) == 0
    enable_msi(guest, False)
    assert fired(intx) == 1


@pytest.mark.parametrize("index", [INTX, MSI, ERR, REQ])
def test_loopback(guest, index):
    fd = new_eventfd()
    guest.assign(index, fd)
    guest.set_irqs(index, 0x21)
    assert fired(fd) == 1
    guest.set_irqs(index, 0x22, data=b"\1")
    assert fired(fd) == 1
    guest.set_irqs(index, 0x22, data=b"\0")
    assert fired(fd, 0.05) == 0
    guest.disable(index)
    guest.set_irqs(index, 0x21)
    assert fired(fd, 0.05) == 0


@pytest.mark.parametrize("index, flags, first, count, data", [
    (5, 0x21, 0, 1, b""), (0xFFFFFFFF, 0x21, 0, 1, b""), (MSIX, 0x24, 0, 1, b""),
    (INTX, 0x21, 1, 1, b""), (INTX, 0x21, 0, 2, b""), (INTX, 0x21, 0xFFFFFFFF, 1, b""),
    (INTX, 0x21, 0, 0xFFFFFFFF, b""), (INTX, 0x21, 1, 0, b""), (INTX, 0x22, 0, 0xFFFFFFFF, b"\1"),
    (INTX, 0x22, 0, 1, b""), (INTX, 0x21, 0, 1, b"\1"), (INTX, 0x09, 0, 0, b""),
    (INTX, 0, 0, 1, b""), (INTX, 0x01, 0, 1, b""), (INTX, 0x20, 0, 1, b""), (INTX, 0x23, 0, 1, b""),
    (INTX, 0x39, 0, 1, b""), (INTX, 0x61, 0, 1, b""), (INTX, 0x0C, 0, 1, b""), (INTX, 0x14, 0, 1, b""),
    (MSI, 0x09, 0, 1, b""), (MSI, 0x11, 0, 1, b""), (INTX, 0x21 | 1 << 31, 0, 1, b""),
])
def test_refused(guest, index, flags, first, count, data):
    with pytest.raises(Refused):
        guest.set_irqs(index, flags, first, count, data)
    assert guest.get_info()[0] == 16


def test_number_of_descriptors_must_match(server, guest):
    fd = new_eventfd()
    before = server.descriptors()
    for flags, count, fds in ((0x24, 1, [fd, fd]), (0x24, 2, [fd]), (0x24, 0, [fd]), (0x21, 1, [fd]), (0x24, 16, [fd] * 16)):
        with pytest.raises(Refused):
            guest.set_irqs(INTX, flags, 0, count, fds=fds)
    server.wait_descriptors(before)


@pytest.mark.parametrize("kind", ["pipe", "socket", "file", "memfd", "epoll"])
def test_only_eventfds_are_taken(server, guest, kind):
    epoll = select.epoll()
    fd = {
        "pipe": lambda: os.pipe()[1], "socket": lambda: socket.socketpair()[0].detach(),
        "file": lambda: os.open("/dev/null", os.O_RDWR), "memfd": lambda: os.memfd_create("[eventfd]"),
        "epoll": lambda: os.dup(epoll.fileno()),
    }[kind]()
    before = server.descriptors()
    with pytest.raises(Refused):
        guest.assign(INTX, fd)
    server.wait_descriptors(before)


def test_a_full_eventfd_does_not_hold_us_up(guest, controller):
    fd = os.eventfd(0, os.EFD_CLOEXEC)  # blocking, as the client made it
    os.eventfd_write(fd, 2**64 - 2)
    guest.assign(INTX, fd)
    cause(controller)
    for _ in range(3):
        guest.unmask()
    assert guest.get_info()[0] == 16


def hostile(fd):
    """A write to it waits until somebody reads, and nobody does."""
    os.set_blocking(fd, True)
    os.eventfd_write(fd, 2**64 - 2)
    assert not fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK


def goes_on(server, guest):
    for _ in range(3):
        assert guest.get_info()[0] == 16
    assert server.terminate() == 0


@pytest.mark.parametrize("data", [b"", b"\1"], ids=["none", "bool"])
@pytest.mark.parametrize("index", [INTX, MSI, ERR, REQ])
def test_an_eventfd_made_to_block_and_triggered(server, guest, index, data):
    fd = new_eventfd()
    guest.assign(index, fd)
    hostile(fd)
    guest.set_irqs(index, 0x22 if data else 0x21, data=data)
    goes_on(server, guest)


def test_an_eventfd_made_to_block_under_intx(server, guest, controller):
    fd = new_eventfd()
    guest.assign(INTX, fd)
    hostile(fd)
    cause(controller)
    guest.unmask()
    goes_on(server, guest)


def test_an_eventfd_made_to_block_under_msi(server, guest, controller):
    fd = new_eventfd()
    guest.assign(MSI, fd)
    enable_msi(guest)
    hostile(fd)
    for _ in range(3):
        cause(controller)
        acknowledge(controller)
    goes_on(server, guest)


def test_an_eventfd_made_to_block_delays_no_other_client(server):
    with server.guest() as g:
        fd = new_eventfd()
        g.assign(ERR, fd)
        hostile(fd)
        g.set_irqs(ERR, 0x21)
    assert server.serves()


def test_an_eventfd_that_was_full_works_again(server, guest):
    fd = new_eventfd()
    guest.assign(ERR, fd)
    hostile(fd)
    guest.set_irqs(ERR, 0x21)
    assert guest.get_info()[0] == 16
    os.eventfd_read(fd)
    guest.set_irqs(ERR, 0x21)
    assert fired(fd) in (1, 2)  # the first may have been kept


def test_set_irqs_in_the_header_only(guest):
    with pytest.raises(Refused):
        guest.call(client.SET_IRQS, struct.pack("=IIII", 20, 0x21, 0, 0))
