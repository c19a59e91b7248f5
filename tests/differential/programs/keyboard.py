"""Requests to a keyboard: the ones with data on their way out, and what its class adds."""

from programs import program
from programs.parts import ask, chain, control, request
from programs.plugging import KEYBOARD, asks, queue, typist
from uhci import ACTIVE, END, IN, IOC, OUT, SETUP

LEDS = request(0x21, 0x09, 0x0200, 0, 1)  # SET_REPORT, output


def of_request(name, setup, data=None, masked=False):
    def run(c):
        typist(c)
        if data is None:
            control(c, 0, setup, address=KEYBOARD, masked=masked)
        else:
            chain(c, 0, [(SETUP, 8, 0, setup, 0), (OUT, len(data), 0, data, 0), (IN, 0, 0, None, 0)], address=KEYBOARD)
        queue(c)
        yield "done"

    run.__name__, run.__module__ = name, __name__
    return program(run)


for _name, _setup, _data in (
    ("set_leds", LEDS, b"\7"),
    ("get_report", request(0xA1, 0x01, 0x0100, 0, 8), None),
    ("get_idle", request(0xA1, 0x02, 0, 0, 1), None),
    ("set_idle", request(0x21, 0x0A, 0x2000), None),
    ("get_protocol", request(0xA1, 0x03, 0, 0, 1), None),
    ("set_boot_protocol", request(0x21, 0x0B, 0), None),
    ("get_head_of_the_report_descriptor", request(0x81, 6, 0x2200, 0, 32), None),
    ("set_remote_wakeup", request(0x00, 3, 1), None),
    ("clear_remote_wakeup", request(0x00, 1, 1), None),
    ("a_class_request_nobody_knows", request(0x21, 0x55), None),
):
    of_request(_name, _setup, _data, masked="descriptor" in _name)


@program
def status_tells_of_remote_wakeup(c):
    typist(c)
    c.note("before", ask(c, request(0x80, 0, 0, 0, 2), KEYBOARD, length=2)[0] >> 1 & 1)
    ask(c, request(0x00, 3, 1), KEYBOARD)
    c.note("set", ask(c, request(0x80, 0, 0, 0, 2), KEYBOARD, length=2)[0] >> 1 & 1)
    ask(c, request(0x00, 1, 1), KEYBOARD)
    c.note("cleared", ask(c, request(0x80, 0, 0, 0, 2), KEYBOARD, length=2)[0] >> 1 & 1)
    yield "asked"


@program
def idle_is_kept(c):
    typist(c)
    ask(c, request(0x21, 0x0A, 0x2000), KEYBOARD)
    c.note("duration", ask(c, request(0xA1, 0x02, 0, 0, 1), KEYBOARD, length=1)[0])
    yield "asked"


@program
def stages_of_an_out_one_by_one(c):
    typist(c)
    c.td(0, END, SETUP, 8, KEYBOARD, data=LEDS)
    queue(c)
    yield "setup"
    c.td(1, END, OUT, 1, KEYBOARD, data=b"\2", toggle=1)
    c.element(0, c.to_td(1))
    yield "data"
    c.td(2, END, IN, 0, KEYBOARD, toggle=1, flags=ACTIVE | IOC)
    c.element(0, c.to_td(2))
    yield "status"


@program
def a_report_beside_a_request_out(c):
    typist(c)
    asks(c, 0)
    c.qh(0, link=c.to_qh(1), element=c.to_td(0))
    chain(c, 4, [(SETUP, 8, 0, LEDS, 0), (OUT, 1, 0, b"\1", 0), (IN, 0, 0, None, 0)], address=KEYBOARD)
    c.qh(1, element=c.to_td(4))
    c.frame(c.to_qh(0))
    yield "set, and nothing to report"
    c.press("g")
    yield "reported"
    c.let_go("g")
    asks(c, 1)
    c.element(0, c.to_td(1))
    yield "released"


@program
def a_key_held_is_in_the_report_asked_for(c):
    typist(c)
    c.press("h")
    asks(c, 0)
    queue(c)
    yield "pressed"
    control(c, 4, request(0xA1, 0x01, 0x0100, 0, 8), address=KEYBOARD)
    c.element(0, c.to_td(4))
    yield "asked for"
    c.let_go("h")
    asks(c, 8)
    c.element(0, c.to_td(8))
    yield "released"
