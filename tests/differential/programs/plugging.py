"""Devices that come and go, and one that has nothing to say: a keyboard in port 2. Suspend and wakeup."""

from programs import program
from programs.parts import GET_CONFIGURATION, control, request
from uhci import (ACTIVE, CSC, EGSM, END, FGR, IN, IOC, PE, PEC, PORTSC2, PR, RD, RS, SETUP, SUSP, USBCMD, USBINTR,
                  USBSTS)

KEYBOARD = 6  # its address
KEYS = 1  # its endpoint
REPORT = 8


def queue(c, first=0):
    c.qh(0, element=c.to_td(first))
    c.frame(c.to_qh(0))


def asks(c, number, link=END, flags=ACTIVE | IOC):
    c.td(number, link, IN, REPORT, KEYBOARD, KEYS, flags=flags)


def serves(c, number, setup):
    """One control transfer to the keyboard, and the queue is empty again."""
    control(c, number, setup, address=KEYBOARD, masked=True, last=0)
    c.qh(0, element=c.to_td(number))
    c.frame(c.to_qh(0))
    c.until(lambda: c.first_of(0) is None, "end of a request")


def typist(c):
    c.ready()
    keyboard(c)


def keyboard(c):
    """Plugged in, configured, and reports nothing but changes."""
    c.plug()
    c.configure(KEYBOARD, port=1)
    serves(c, 200, request(0x21, 0x0A))  # SET_IDLE: for ever
    serves(c, 210, request(0x21, 0x0B, 1))  # SET_PROTOCOL: report
    c.frame(END)
    c.forget()
    c.pass_frames(1)
    c.write(USBSTS, 0x1F)


@program
def plugged_in_while_running(c):
    c.ready()
    yield "empty"
    c.plug()
    yield "there"
    c.write(PORTSC2, CSC)
    yield "acknowledged"


@program
def plugged_in_while_halted(c):
    c.reset()
    c.plug()
    yield "there"
    c.run()
    yield "running"


@program
def pulled_out_before_it_was_enabled(c):
    c.ready()
    c.plug()
    c.write(PORTSC2, CSC)
    yield "there"
    c.unplug()
    yield "gone"
    c.write(PORTSC2, CSC)
    yield "acknowledged"


@program
def pulled_out_while_enabled(c):
    c.ready()
    c.plug()
    c.write(PORTSC2, CSC | PE)
    yield "enabled"
    c.unplug()
    yield "gone"
    c.write(PORTSC2, PEC)
    yield "one change acknowledged"
    c.write(PORTSC2, CSC)
    yield "both"


@program
def pulled_out_and_plugged_in_again(c):
    c.ready()
    c.plug()
    c.write(PORTSC2, CSC | PE)
    c.unplug()
    c.plug()
    yield "disabled, changed"


@program
def pulled_out_in_reset(c):
    c.ready()
    c.plug()
    c.write(PORTSC2, PR | CSC)
    c.unplug()
    yield "gone"
    c.write(PORTSC2, 0)
    yield "out of reset"


@program
def pulled_out_while_suspended(c):
    c.ready()
    c.plug()
    c.write(PORTSC2, CSC | PE)
    c.write(PORTSC2, PE | SUSP)
    yield "suspended"
    c.unplug()
    yield "gone"


@program
def plugged_in_while_globally_suspended(c):
    """A controller that sleeps notices, and says so."""
    c.ready()
    c.write(USBCMD, 0)
    c.write(USBCMD, EGSM)
    yield "asleep"
    c.plug()
    yield "woken"
    c.write(USBSTS, 4)
    yield "acknowledged"
    c.write(USBCMD, EGSM)
    c.write(USBCMD, 0)
    yield "awake"


@program
def pulled_out_while_globally_suspended(c):
    c.ready()
    c.plug()
    c.write(PORTSC2, CSC | PE)
    c.write(USBCMD, 0)
    c.write(USBCMD, EGSM)
    yield "asleep"
    c.unplug()
    yield "woken"


@program
def resume_detected_without_its_interrupt(c):
    c.ready()
    c.write(USBINTR, 0xD)
    c.write(USBCMD, 0)
    c.write(USBCMD, EGSM)
    c.plug()
    yield "status alone"
    c.write(USBINTR, 0x2)
    yield "enabled"


@program
def two_devices_with_addresses_of_their_own(c):
    typist(c)
    control(c, 0, GET_CONFIGURATION)
    control(c, 4, GET_CONFIGURATION, address=KEYBOARD)
    c.qh(0, link=c.to_qh(1), element=c.to_td(0))
    c.qh(1, element=c.to_td(4))
    c.frame(c.to_qh(0))
    yield "both answer"


@program
def an_address_ends_with_its_device(c):
    typist(c)
    c.unplug()
    c.td(0, END, SETUP, 8, KEYBOARD, data=GET_CONFIGURATION)
    queue(c)
    yield "silent"
    control(c, 4, GET_CONFIGURATION)
    c.element(0, c.to_td(4))
    yield "the other one is still there"


@program
def nothing_to_report(c):
    typist(c)
    asks(c, 0)
    queue(c)
    yield "waits"


@program
def a_key(c):
    typist(c)
    asks(c, 0, c.to_td(1))
    asks(c, 1)
    queue(c)
    yield "waits"
    c.press("a")
    yield "pressed"
    c.write(USBSTS, 1)
    c.let_go("a")
    yield "released"


@program
def keys_before_they_are_asked_for(c):
    typist(c)
    c.press("b")
    c.press("c")
    c.let_go("b")
    c.let_go("c")
    for number in range(5):
        asks(c, number, c.to_td(number + 1) if number < 4 else END)
    queue(c)
    yield "each in its own report"


@program
def a_key_beside_a_control_transfer(c):
    typist(c)
    asks(c, 0)
    c.qh(0, link=c.to_qh(1), element=c.to_td(0))
    c.qh(1)
    c.frame(c.to_qh(0))
    yield "waits"
    control(c, 4, GET_CONFIGURATION, address=KEYBOARD)
    c.element(1, c.to_td(4))
    yield "served"
    c.press("x")
    yield "pressed"
    c.let_go("x")
    asks(c, 8)
    c.element(0, c.to_td(8))
    yield "released"


@program
def pulled_out_while_asked(c):
    typist(c)
    asks(c, 0)
    queue(c)
    yield "waits"
    c.unplug()
    yield "fails"
    c.write(USBSTS, 3)
    c.write(PORTSC2, CSC | PEC)
    yield "acknowledged"


@program
def disabled_while_asked(c):
    typist(c)
    asks(c, 0)
    queue(c)
    yield "waits"
    c.write(PORTSC2, 0)
    yield "fails"


@program
def reset_while_asked(c):
    typist(c)
    asks(c, 0)
    queue(c)
    yield "waits"
    c.write(PORTSC2, PR)
    c.write(PORTSC2, 0)
    yield "fails"


@program
def stopped_while_asked(c):
    typist(c)
    asks(c, 0)
    queue(c)
    yield "waits"
    c.write(USBCMD, 0)
    c.until(lambda: not c.running(), "halt")
    c.press("k")
    yield "stopped"
    c.write(USBCMD, RS)
    yield "told"
    c.let_go("k")
    asks(c, 1)
    c.element(0, c.to_td(1))
    yield "released"


@program
def withdrawn_while_asked(c):
    typist(c)
    asks(c, 0)
    queue(c)
    yield "waits"
    c.frame(END)
    c.pass_frames(40)
    c.element(0, END)
    yield "no more"
    c.press("w")
    yield "nobody asks"
    asks(c, 1)
    c.element(0, c.to_td(1))
    c.frame(c.to_qh(0))
    yield "asked again"
    c.let_go("w")
    asks(c, 2)
    c.element(0, c.to_td(2))
    yield "released"


@program
def reset_controller_while_asked(c):
    typist(c)
    asks(c, 0)
    queue(c)
    yield "waits"
    c.unplug()
    c.reset()
    yield "reset"


def wakeable(c):
    typist(c)
    serves(c, 220, request(0x00, 3, 1))  # SET_FEATURE: DEVICE_REMOTE_WAKEUP
    c.frame(END)
    c.forget()
    c.pass_frames(1)
    c.write(USBSTS, 0x1F)


@program
def woken_by_a_key_from_global_suspend(c):
    wakeable(c)
    c.write(USBCMD, 0)
    c.write(USBCMD, EGSM)
    yield "asleep"
    c.press("a")
    yield "woken"
    c.write(USBCMD, EGSM)
    c.write(USBCMD, 0)
    c.write(USBSTS, 4)
    yield "awake"
    c.let_go("a")
    c.write(USBCMD, RS)
    asks(c, 0, c.to_td(1))
    asks(c, 1)
    queue(c)
    yield "and the key is told"


@program
def not_woken_by_a_key_that_may_not(c):
    typist(c)
    c.write(USBCMD, 0)
    c.write(USBCMD, EGSM)
    c.press("a")
    yield "still asleep"
    c.let_go("a")
    yield "in spite of all"


@program
def woken_by_a_key_from_a_suspended_port(c):
    wakeable(c)
    c.write(PORTSC2, PE | SUSP)
    yield "asleep"
    c.press("a")
    yield "woken"
    c.write(PORTSC2, PE)
    c.write(USBSTS, 4)
    yield "awake"
    c.let_go("a")
    asks(c, 0, c.to_td(1))
    asks(c, 1)
    queue(c)
    yield "and the key is told"


@program
def woken_by_a_key_from_both(c):
    wakeable(c)
    c.write(PORTSC2, PE | SUSP)
    c.write(USBCMD, 0)
    c.write(USBCMD, EGSM)
    yield "asleep"
    c.press("a")
    yield "woken"
    c.let_go("a")
    c.write(USBCMD, EGSM)
    c.write(USBCMD, 0)
    c.write(PORTSC2, PE)
    yield "awake"


@program
def resume_by_the_driver(c):
    wakeable(c)
    c.write(USBCMD, 0)
    c.write(USBCMD, EGSM)
    c.write(USBCMD, EGSM | FGR)
    yield "resuming"
    c.write(USBCMD, 0)
    yield "awake"


@program
def resume_of_a_port_by_the_driver(c):
    wakeable(c)
    c.write(PORTSC2, PE | SUSP)
    c.write(PORTSC2, PE | SUSP | RD)
    yield "resuming"
    c.write(PORTSC2, PE)
    asks(c, 0)
    queue(c)
    yield "works"
