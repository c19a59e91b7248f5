"""Starting, stopping, resetting, suspending while there is work; interrupts and what masks them."""

from controller import COMMAND_IO, COMMAND_MASTER, CONFIG_COMMAND, FRAME_LIST
from programs import program
from programs.parts import BULK_IN, GET_CONFIGURATION, NOBODY, control, request
from uhci import (ACTIVE, CSC, EGSM, END, FGR, FRBASEADD, GRESET, HCRESET, IN, IOC, ON_CRC, ON_IOC, ON_RESUME,
                  ON_SHORT, PE, PEC, PORTSC1, RS, USBCMD, USBINTR, USBSTS)


def queue(c, first=0):
    c.qh(0, element=c.to_td(first))
    c.frame(c.to_qh(0))


def stopped(c):
    c.ready()
    c.write(USBCMD, 0)
    c.until(lambda: not c.running(), "halt")


@program
def nothing_happens_while_stopped(c):
    stopped(c)
    control(c, 0, GET_CONFIGURATION)
    queue(c)
    yield "stopped"
    c.write(USBCMD, RS)
    yield "started"


@program
def stopped_between_two_transfers(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION)
    queue(c)
    yield "first"
    c.write(USBCMD, 0)
    control(c, 4, GET_CONFIGURATION)
    c.element(0, c.to_td(4))
    yield "stopped"
    c.write(USBCMD, RS)
    yield "second"


@program
def stopped_between_the_stages(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION, status=False)
    queue(c)
    yield "data"
    c.write(USBCMD, 0)
    yield "stopped"
    c.write(USBCMD, RS)
    c.td(9, END, 0xE1, 0, toggle=1)
    c.element(0, c.to_td(9))
    yield "status"


@program
def an_unanswered_in_waits(c):
    """A bulk IN without a command: what it comes to is the device's affair; others go on."""
    c.ready()
    c.td(0, END, IN, 8, NOBODY, 1, flags=ACTIVE | IOC)
    queue(c)
    yield "tried"
    c.write(USBSTS, 3)
    yield "acknowledged"


@program
def host_reset_with_work_queued(c):
    c.ready()
    c.td(0, END, IN, 8, NOBODY, 1, cerr=0)
    c.td(1, END, IN, 8, flags=IOC)
    c.qh(0, link=c.to_qh(1), element=c.to_td(1))
    c.qh(1)
    c.frame(c.to_qh(0))
    yield "waiting"
    c.write(USBCMD, HCRESET)
    c.until(lambda: not c.read(USBCMD) & HCRESET, "end of HCRESET")
    yield "reset"
    c.run()
    c.configure()
    control(c, 4, GET_CONFIGURATION)
    c.element(1, c.to_td(4))
    c.frame(c.to_qh(1))
    yield "from the beginning"


@program
def host_reset_between_the_stages(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION, status=False)
    queue(c)
    yield "data"
    c.reset()
    c.run()
    c.configure()
    control(c, 0, GET_CONFIGURATION)
    queue(c)
    yield "a new one"


@program
def global_reset_with_work_queued(c):
    c.ready()
    c.td(0, END, IN, 8, flags=IOC)
    queue(c)
    yield "waiting"
    c.write(USBCMD, GRESET)
    c.pass_frames(1)
    c.write(USBCMD, 0)
    yield "reset"
    c.run()
    c.configure()
    control(c, 4, GET_CONFIGURATION)
    c.qh(1, element=c.to_td(4))
    c.frame(c.to_qh(1))
    yield "from the beginning"


@program
def host_reset_and_run_in_one_write(c):
    c.reset()
    c.write(USBCMD, HCRESET | RS)
    c.until(lambda: not c.read(USBCMD) & HCRESET, "end of HCRESET")
    yield "reset wins"


@program
def global_suspend_stopped(c):
    stopped(c)
    c.write(USBCMD, EGSM)
    yield "suspended"
    c.write(USBCMD, EGSM | FGR)
    yield "resuming"
    c.write(USBCMD, 0)
    yield "resumed"
    control(c, 0, GET_CONFIGURATION)
    queue(c)
    c.write(USBCMD, RS)
    yield "works"


@program
def global_suspend_while_running(c):
    """A driver must not; no transaction happens then."""
    c.ready()
    c.write(USBCMD, RS | EGSM)
    control(c, 0, GET_CONFIGURATION)
    queue(c)
    yield "nothing moves"


@program
def bus_master_off(c):
    c.ready()
    c.qtest.config_put(c.slot, CONFIG_COMMAND, 2, COMMAND_IO)
    control(c, 0, GET_CONFIGURATION)
    queue(c)
    yield "no access to memory"
    c.qtest.config_put(c.slot, CONFIG_COMMAND, 2, COMMAND_IO | COMMAND_MASTER)
    c.write(FRBASEADD, c.at(FRAME_LIST), 4)
    c.write(USBCMD, RS)
    yield "allowed again"


def causes(name, enabled):
    """Every cause of an interrupt, with some of them enabled."""

    def run(c):
        c.ready()
        c.write(USBINTR, enabled)
        control(c, 0, GET_CONFIGURATION, last=IOC)
        queue(c)
        yield "IOC"
        c.write(USBSTS, 1)
        yield "IOC acknowledged"
        control(c, 4, request(0x80, 6, 0x0100, 0, 64), masked=True, last=0)
        c.element(0, c.to_td(4))
        yield "short packet"
        c.write(USBSTS, 1)
        yield "short packet acknowledged"
        c.td(8, END, IN, 8, NOBODY, 1, cerr=1)
        c.element(0, c.to_td(8))
        yield "error"
        c.write(USBSTS, 2)
        yield "error acknowledged"

    run.__name__, run.__module__ = name, __name__
    return program(run)


for _enabled in (0, ON_CRC, ON_RESUME, ON_IOC, ON_SHORT, ON_IOC | ON_SHORT, ON_CRC | ON_IOC, 0xF):
    causes(f"interrupts_enabled_{_enabled:x}", _enabled)


@program
def enabling_an_interrupt_that_is_pending(c):
    c.ready()
    c.write(USBINTR, 0)
    control(c, 0, GET_CONFIGURATION, last=IOC)
    queue(c)
    yield "pending"
    c.write(USBINTR, ON_SHORT)
    yield "another one enabled"
    c.write(USBINTR, ON_IOC)
    yield "this one enabled"
    c.write(USBINTR, 0)
    yield "disabled"


@program
def a_port_disabled_with_a_queue_waiting(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION, link=c.to_td(3, True))
    c.td(3, END, IN, 8, flags=0, endpoint=BULK_IN)
    queue(c)
    yield "waiting"
    c.write(PORTSC1, CSC | PEC)
    yield "disabled"
    c.write(PORTSC1, PE)
    control(c, 8, GET_CONFIGURATION)
    c.element(0, c.to_td(8))
    yield "works again"


@program
def started_twice(c):
    c.ready()
    c.write(USBCMD, RS)
    control(c, 0, GET_CONFIGURATION)
    queue(c)
    yield "works"
