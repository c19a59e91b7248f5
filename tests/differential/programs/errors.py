"""What nobody answers, what makes no sense, and memory that is not there."""

from controller import ADDRESS, DESCRIPTORS, FRAME_LIST
from programs import program
from programs.parts import BULK_IN, BULK_OUT, GET_CONFIGURATION, NOBODY, cbw, control, inquiry
from uhci import (ACTIVE, END, ERROR, FRBASEADD, HCPE, HSE, IN, IOC, IOS, ON_CRC, OUT, PE, PORTSC1, PR, QUEUE, RS,
                  SETUP, SUSP, USBCMD, USBINTR, USBSTS)

NOWHERE = 0xE0000000  # no memory, no device


def queue(c, first=0):
    c.qh(0, element=c.to_td(first))
    c.frame(c.to_qh(0))


def descriptor(name, pid, length, flags=ACTIVE, **more):
    def run(c):
        c.ready()
        c.td(0, END, pid, length, flags=flags, **more)
        queue(c)
        yield "tried"
        c.frame(END)
        c.write(USBSTS, 0x1F)
        yield "acknowledged"

    run.__name__, run.__module__ = name, __name__
    return program(run)


for _pid, _name in ((IN, "in"), (OUT, "out"), (SETUP, "setup")):
    descriptor(f"address_nobody_has_{_name}", _pid, 8, address=NOBODY)
    descriptor(f"low_address_nobody_has_{_name}", _pid, 8, address=1)
    descriptor(f"default_address_after_configuring_{_name}", _pid, 8, address=0)
for _pid, _name in ((IN, "in"), (OUT, "out")):
    descriptor(f"endpoint_nobody_has_{_name}", _pid, 8, endpoint=9)
    descriptor(f"isochronous_to_nobody_{_name}", _pid, 64, address=NOBODY, endpoint=1, flags=ACTIVE | IOS)
    descriptor(f"isochronous_to_nobody_with_interrupt_{_name}", _pid, 64, address=NOBODY, endpoint=1,
               flags=ACTIVE | IOS | IOC)
descriptor("bulk_in_where_there_is_only_out", IN, 8, endpoint=BULK_OUT)
descriptor("bulk_out_where_there_is_only_in", OUT, 8, endpoint=BULK_IN)


@program
def isochronous_outside_of_a_queue(c):
    c.ready()
    c.td(0, c.to_td(1), IN, 64, NOBODY, 1, flags=ACTIVE | IOS)
    c.td(1, c.to_td(2), OUT, 64, NOBODY, 1, flags=ACTIVE | IOS)
    c.td(2, END, OUT, 0, NOBODY, 1, flags=ACTIVE | IOS)
    c.frame(c.to_td(0))
    yield "each tried once"


@program
def a_disabled_port(c):
    c.ready()
    c.write(PORTSC1, 0)
    c.td(0, END, SETUP, 8, data=GET_CONFIGURATION)
    queue(c)
    yield "silent"
    c.write(PORTSC1, PE)
    control(c, 4, GET_CONFIGURATION)
    c.element(0, c.to_td(4))
    yield "enabled again, the device still has its address"


@program
def a_suspended_port(c):
    c.ready()
    c.write(PORTSC1, PE | SUSP)
    c.td(0, END, SETUP, 8, data=GET_CONFIGURATION)
    queue(c)
    yield "silent"


@program
def a_port_in_reset(c):
    c.ready()
    c.write(PORTSC1, PE | PR)
    c.td(0, END, SETUP, 8, address=0, data=GET_CONFIGURATION)
    queue(c)
    yield "silent"


def process_error(name, mask, value):
    """A descriptor with a token that makes no sense, after one that does."""

    def run(c):
        c.ready()
        control(c, 0, GET_CONFIGURATION, link=c.to_td(3, True), last=0)
        c.td(3, END, IN, 8, NOBODY, 1)
        token = c.descriptors[3][2] = c.descriptors[3][2] & ~mask | value
        c.put_word(DESCRIPTORS + 16 * 3 + 8, token)
        queue(c)
        yield "halted"
        c.write(USBSTS, HCPE)
        yield "acknowledged"
        c.frame(END)
        c.write(USBCMD, RS)
        yield "running again"

    run.__name__, run.__module__ = name, __name__
    return program(run)


for _pid in (0x00, 0xFF, 0x2C, 0xA5, 0xE2, 0x5A, 0xC3):
    process_error(f"illegal_pid_{_pid:02x}", 0xFF, _pid)
for _maxlen in (0x500, 0x600, 0x7FE):
    process_error(f"illegal_length_{_maxlen:03x}", 0x7FF << 21, _maxlen << 21)


@program
def illegal_pid_in_an_inactive_descriptor(c):
    c.ready()
    c.td(0, END, 0x12, 8, flags=0)
    queue(c)
    yield "not looked at"


@program
def process_error_interrupts_unasked(c):
    c.ready()
    c.write(USBINTR, 0)
    c.td(0, END, 0x12, 8)
    queue(c)
    yield "interrupt"
    c.write(USBSTS, HCPE)
    yield "acknowledged"


def unmapped(name, where):
    def run(c):
        c.ready()
        control(c, 0, GET_CONFIGURATION)
        c.qh(0, element=c.to_td(0))
        where(c)
        yield "halted"
        c.write(USBSTS, HSE)
        yield "acknowledged"
        c.frame(END)
        c.write(FRBASEADD, c.at(FRAME_LIST), 4)
        c.write(USBCMD, RS)
        yield "running again"

    run.__name__, run.__module__ = f"unmapped_{name}", __name__
    return program(run)


def _in_buffer(c):
    c.td(4, END, IN, 13, endpoint=BULK_IN)
    c.td(3, c.to_td(4, True), OUT, 31, endpoint=BULK_OUT, data=cbw(bytes(6)))
    c.descriptors[4][3] = NOWHERE
    c.put_word(DESCRIPTORS + 16 * 4 + 12, NOWHERE)
    c.element(0, c.to_td(3))
    c.frame(c.to_qh(0))


def _out_buffer(c):
    c.td(3, END, OUT, 31, endpoint=BULK_OUT)
    c.descriptors[3][3] = NOWHERE
    c.put_word(DESCRIPTORS + 16 * 3 + 12, NOWHERE)
    c.element(0, c.to_td(3))
    c.frame(c.to_qh(0))


def _setup_buffer(c):
    c.descriptors[0][3] = NOWHERE
    c.put_word(DESCRIPTORS + 12, NOWHERE)
    c.frame(c.to_qh(0))


unmapped("queue", lambda c: c.frame(NOWHERE | QUEUE))
unmapped("descriptor", lambda c: c.frame(NOWHERE))
unmapped("element", lambda c: (c.element(0, NOWHERE), c.frame(c.to_qh(0))))
unmapped("frame_list", lambda c: c.write(FRBASEADD, NOWHERE, 4))
unmapped("buffer_in", _in_buffer)
unmapped("buffer_out", _out_buffer)
unmapped("buffer_of_a_setup", _setup_buffer)


@program
def error_interrupt_only_when_enabled(c):
    c.ready()
    c.write(USBINTR, 0)
    c.td(0, END, IN, 8, NOBODY, 1, cerr=1)
    queue(c)
    yield "status but no interrupt"
    c.write(USBINTR, ON_CRC)
    yield "enabled"
    c.write(USBSTS, ERROR)
    yield "acknowledged"


@program
def a_failure_does_not_disturb_the_device(c):
    c.ready()
    c.td(0, END, IN, 8, NOBODY, 1)
    queue(c)
    yield "failed"
    control(c, 1, GET_CONFIGURATION)
    c.element(0, c.to_td(1))
    yield "next"
    c.td(8, c.to_td(9, True), OUT, 31, endpoint=BULK_OUT, data=cbw(inquiry(), 36))
    c.td(9, c.to_td(10, True), IN, 36, endpoint=BULK_IN, masked=True)
    c.td(10, END, IN, 13, endpoint=BULK_IN)
    c.element(0, c.to_td(8))
    yield "bulk"


@program
def two_addresses_in_turn(c):
    """A packet to nobody between two that are answered, in three queues."""
    c.ready()
    control(c, 0, GET_CONFIGURATION, depth=False)
    c.td(4, END, IN, 8, NOBODY, 1)
    c.td(5, END, OUT, 8, ADDRESS + 1, 1, data=bytes(8))
    c.qh(0, link=c.to_qh(1), element=c.to_td(4))
    c.qh(1, link=c.to_qh(2), element=c.to_td(0))
    c.qh(2, element=c.to_td(5))
    c.frame(c.to_qh(0))
    yield "done"
