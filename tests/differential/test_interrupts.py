"""The interrupt line at the interrupt controller: what a guest's handler is called by.

Over vfio-user a level is told as an edge, taken back by the next access to a register, and told again if
it still stands. So between two registers accesses the line is what it should be, and that is looked at.
"""

import time

import pytest

from programs.parts import GET_CONFIGURATION, NOBODY, control, request
from uhci import EGSM, END, ERROR, HCPE, IN, IOC, RESUME, USBCMD, USBINT, USBINTR, USBSTS

# PIIX3: slot 4's pin D is its PIRQC, slot 5's pin A its PIRQA; each is given a line of its own.
PIRQ_ROUTES, LINES = 0x60, {"QEMU": (2, 10), "Bulkhead": (0, 11)}
PATIENCE = 5


@pytest.fixture(scope="module")
def wired(pair):
    qtest = pair[0].qtest
    for route, line in LINES.values():
        qtest.config_put(1, PIRQ_ROUTES + route, 1, line)
    qtest.command("irq_intercept_in ioapic")
    return pair


def level(c):
    return c.qtest.level(LINES[c.name][1])


def becomes(c, high):
    """Without any access to a register, for that could change it."""
    end = time.monotonic() + PATIENCE
    while level(c) != high and time.monotonic() < end:
        if c.name == "QEMU":
            c.pass_frames(1)
        else:
            time.sleep(0.001)
    return level(c) == high


def completion(c):
    control(c, 0, GET_CONFIGURATION, last=IOC)
    return USBINT


def short_packet(c):
    control(c, 0, request(0x80, 6, 0x0100, 0, 64), last=0, masked=True)
    return USBINT


def inactive(c):
    c.td(0, END, IN, 8, flags=IOC)
    return USBINT


def error(c):
    c.td(0, END, IN, 8, NOBODY, 1)
    return ERROR


def process_error(c):
    c.td(0, END, 0x55, 8)
    return HCPE


CAUSES = (completion, short_packet, inactive, error, process_error)


def begin(c, cause, enabled):
    c.ready()
    c.write(USBINTR, enabled)
    bits = cause(c)
    assert becomes(c, False)
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))
    return bits


@pytest.mark.parametrize("cause", CAUSES)
def test_the_line_rises_and_falls_with_the_cause(wired, cause):
    for c in wired:
        bits = begin(c, cause, 0xF)
        assert becomes(c, True), f"{c.name}: no interrupt"
        assert c.read(USBSTS) & bits == bits  # an access to a register takes it back for a moment at most
        assert becomes(c, True), f"{c.name}: taken back although the cause stands"
        c.frame(END)
        c.pass_frames(2)
        c.write(USBSTS, bits)
        assert becomes(c, False), f"{c.name}: acknowledged, and still there"
        c.pass_frames(3)
        assert not level(c), f"{c.name}: told without a cause"


@pytest.mark.parametrize("cause", CAUSES)
def test_only_a_process_error_interrupts_unasked(wired, cause):
    for c in wired:
        bits = begin(c, cause, 0)
        c.until(lambda: c.read(USBSTS) & bits == bits, "cause")
        c.pass_frames(2)
        assert becomes(c, cause is process_error), c.name
        c.write(USBINTR, 0xF)
        assert becomes(c, True), f"{c.name}: enabled, and not told"
        c.frame(END)
        c.pass_frames(2)
        c.write(USBINTR, 0)
        c.write(USBSTS, HCPE)
        assert becomes(c, False), f"{c.name}: disabled, and still there"


def test_a_device_that_comes_wakes_a_sleeping_bus(wired):
    for c in wired:
        c.ready()
        c.write(USBCMD, 0)
        c.write(USBCMD, EGSM)
        assert becomes(c, False)
        c.plug()
        assert becomes(c, True), f"{c.name}: sleeps on"
        c.write(USBSTS, RESUME)
        assert becomes(c, False), c.name
        c.reset()
