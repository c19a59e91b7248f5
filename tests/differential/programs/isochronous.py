"""Isochronous OUT, a descriptor for each frame: a loudspeaker of QEMU's, and our device that takes anything.

A controller on a busy machine may come too late for a frame, and leaves its descriptor as it is. So each
has its turn in every 64th frame, and it is the end of it all that is compared.
"""

from programs import program
from programs.parts import GET_CONFIGURATION, NOBODY, ask, control, request
from uhci import ACTIVE, CSC, END, FRNUM, IN, IOC, IOS, OUT, PEC, PORTSC2, RS, USBCMD, USBSTS

LISTENER = 8  # its address
FRAME = 176  # bytes


def listener(c):
    """Configured and listening; the controller is stopped before frame 0."""
    configuration, interface, _ = c.hands.LISTENER
    c.ready()
    c.plug("listener")
    c.configure(LISTENER, port=1, configuration=configuration)
    ask(c, request(0x01, 11, 1, interface), LISTENER)
    c.write(USBCMD, 0)
    c.until(lambda: not c.running(), "halt")
    c.write(FRNUM, 0)
    c.write(USBSTS, 0x1F)


def sends(c, number, link=END, length=FRAME, flags=ACTIVE):
    c.td(number, link, OUT, length, LISTENER, c.hands.LISTENER[2], buffer=0x400 * number, data=bytes(length),
         flags=flags | IOS, cerr=0)


def in_turn(c, number):
    c.frame(c.to_td(number), range(number + 4, 1024, 64))


def frames(c, numbers, **more):
    for number in numbers:
        sends(c, number, **more)
        in_turn(c, number)


@program
def a_packet_in_each_of_eight_frames(c):
    listener(c)
    frames(c, range(8))
    c.write(USBCMD, RS)
    yield "sent"


@program
def the_last_one_interrupts(c):
    listener(c)
    frames(c, range(7))
    sends(c, 7, flags=ACTIVE | IOC)
    in_turn(c, 7)
    c.write(USBCMD, RS)
    yield "sent"
    c.write(USBCMD, 0)
    c.write(USBSTS, 1)
    yield "acknowledged"


@program
def lengths(c):
    listener(c)
    for number, length in enumerate((4, 44, 180, 0, 1, 192)):
        sends(c, number, length=length)
        in_turn(c, number)
    c.write(USBCMD, RS)
    yield "sent"


@program
def none_while_stopped(c):
    listener(c)
    frames(c, range(3))
    yield "waits"
    c.write(USBCMD, RS)
    yield "sent"


@program
def before_a_queue(c):
    listener(c)
    control(c, 100, GET_CONFIGURATION)
    c.qh(0, element=c.to_td(100))
    c.frame(c.to_qh(0))
    for number in range(4):
        sends(c, number, link=c.to_qh(0))
        in_turn(c, number)
    c.write(USBCMD, RS)
    yield "both"


@program
def two_in_a_frame(c):
    """The second one is for nobody; there is no handshake, and so no failure that stops anything."""
    listener(c)
    for number in range(3):
        sends(c, number, link=c.to_td(100 + number))
        c.td(100 + number, END, IN, 8, NOBODY, 1, flags=ACTIVE | IOS, cerr=0)
        in_turn(c, number)
    c.write(USBCMD, RS)
    yield "all"


@program
def inactive_ones_are_left_alone(c):
    listener(c)
    frames(c, range(2))
    frames(c, range(2, 5), flags=0)
    c.write(USBCMD, RS)
    yield "two sent"


@program
def one_for_all_frames(c):
    """The frame that comes first takes it."""
    listener(c)
    sends(c, 0, flags=ACTIVE | IOC)
    c.frame(c.to_td(0))
    c.write(USBCMD, RS)
    yield "sent once"
    c.frame(END)
    c.pass_frames(2)
    c.write(USBSTS, 1)
    yield "acknowledged"


@program
def a_second_lap(c):
    listener(c)
    frames(c, range(4))
    c.write(USBCMD, RS)
    yield "first"
    c.write(USBCMD, 0)
    c.until(lambda: not c.running(), "halt")
    c.write(FRNUM, 0)
    frames(c, range(4), length=100)
    c.write(USBCMD, RS)
    yield "second"


@program
def the_listener_goes(c):
    listener(c)
    frames(c, range(2))
    c.write(USBCMD, RS)
    yield "sent"
    c.unplug()
    c.write(PORTSC2, CSC | PEC)
    yield "gone"
