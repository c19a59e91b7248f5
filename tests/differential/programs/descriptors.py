"""What is written back into a descriptor, and what each of its bits does."""

from programs import program
from programs.parts import (BULK_IN, BULK_OUT, GET_CONFIGURATION, GET_DEVICE_DESCRIPTOR, NOBODY, cbw, chain, control,
                            inquiry, request)
from uhci import (ACTIVE, ACTLEN, BABBLE, BITSTUFF, BUFFER, DEPTH, END, IN, IOC, LS, NAK, OUT, SETUP, SPD, STALLED,
                  TIMEOUT, USBSTS)


def queue(c, first=0):
    c.qh(0, element=c.to_td(first))
    c.frame(c.to_qh(0))


@program
def actual_length(c):
    c.ready()
    control(c, 0, GET_DEVICE_DESCRIPTOR, masked=True)
    queue(c)
    yield "18, 8 and none"


@program
def actual_length_found_in_a_fresh_descriptor(c):
    c.ready()
    for i, (pid, length, data) in enumerate(((SETUP, 8, GET_CONFIGURATION), (IN, 1, None), (OUT, 0, None))):
        c.td(i, c.to_td(i + 1, True) if i < 2 else END, pid, length, actlen=0x155, data=data)
    queue(c)
    yield "overwritten"


@program
def status_found_in_a_fresh_descriptor(c):
    """Errors of an earlier life do not survive a success."""
    c.ready()
    for i, (pid, length, data) in enumerate(((SETUP, 8, GET_CONFIGURATION), (IN, 1, None), (OUT, 0, None))):
        c.td(i, c.to_td(i + 1, True) if i < 2 else END, pid, length, data=data,
             flags=ACTIVE | STALLED | BUFFER | BABBLE | TIMEOUT | BITSTUFF)
    queue(c)
    yield "overwritten"


@program
def nak_found_in_a_fresh_descriptor(c):
    c.ready()
    for i, (pid, length, data) in enumerate(((SETUP, 8, GET_CONFIGURATION), (IN, 1, None), (OUT, 0, None))):
        c.td(i, c.to_td(i + 1, True) if i < 2 else END, pid, length, data=data, flags=ACTIVE | NAK)
    queue(c)
    yield "cleared"


@program
def nak_found_in_a_descriptor_that_fails(c):
    c.ready()
    c.td(0, END, IN, 8, NOBODY, 1, flags=ACTIVE | NAK)
    c.td(1, c.to_td(2, True), SETUP, 8, data=request(0x40, 0x77))
    c.td(2, END, IN, 0, flags=ACTIVE | NAK)
    c.qh(0, link=c.to_qh(1), element=c.to_td(0))
    c.qh(1, element=c.to_td(1))
    c.frame(c.to_qh(0))
    yield "time-out and STALL"


@program
def reserved_bits_are_left_alone(c):
    c.ready()
    for i, (pid, length, data) in enumerate(((SETUP, 8, GET_CONFIGURATION), (IN, 1, None), (OUT, 0, None))):
        c.td(i, c.to_td(i + 1, True) if i < 2 else END, pid, length, data=data, flags=ACTIVE | 0xC001F800)
    queue(c)
    yield "done"


@program
def reserved_token_bit(c):
    c.ready()
    for i, (pid, length, data) in enumerate(((SETUP, 8, GET_CONFIGURATION), (IN, 1, None), (OUT, 0, None))):
        c.td(i, c.to_td(i + 1, True) if i < 2 else END, pid, length, data=data)
        c.descriptors[i][2] |= 1 << 20
        c.put_word(0x2000 + 16 * i + 8, c.descriptors[i][2])
    queue(c)
    yield "done"


@program
def error_counter_kept_on_success(c):
    c.ready()
    for cerr in range(4):
        control(c, 4 * cerr, GET_CONFIGURATION, link=c.to_td(4 * cerr + 4, True) if cerr < 3 else END, cerr=cerr)
    queue(c)
    yield "done"


def errors(cerr):
    def run(c):
        c.ready()
        c.td(0, END, IN, 8, NOBODY, 1, cerr=cerr)
        queue(c)
        yield "tried"

    return run


def _name(function, name):
    function.__name__, function.__module__ = name, __name__
    return program(function)


for _cerr in range(4):
    _name(errors(_cerr), f"error_counter_of_{_cerr}")


@program
def error_counter_of_an_out(c):
    c.ready()
    c.td(0, END, OUT, 8, NOBODY, 1, data=bytes(8))
    queue(c)
    yield "tried"


@program
def interrupt_on_completion(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION, last=IOC)
    queue(c)
    yield "told"
    c.write(USBSTS, 1)
    yield "acknowledged"


@program
def no_interrupt_without_being_asked(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION, last=0)
    queue(c)
    yield "silent"


@program
def interrupt_on_each(c):
    c.ready()
    chain(c, 0, [(SETUP, 8, 0, GET_CONFIGURATION, IOC), (IN, 1, 0, None, IOC), (OUT, 0, 0, None, IOC)])
    queue(c)
    yield "told"
    c.write(USBSTS, 1)
    yield "acknowledged"


@program
def interrupt_on_an_inactive_one(c):
    """It has to be told every frame: Linux ends unlinks that way."""
    c.ready()
    c.td(0, END, IN, 8, flags=IOC)
    queue(c)
    yield "told"
    c.write(USBSTS, 1)
    yield "told again"
    c.frame(END)
    c.pass_frames(2)
    c.write(USBSTS, 1)
    yield "unlinked"


@program
def interrupt_on_an_inactive_one_behind_a_completion(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION, link=c.to_td(3, True), last=0)
    c.td(3, END, IN, 8, flags=IOC)
    queue(c)
    yield "told"


@program
def interrupt_on_an_inactive_one_in_the_frame_list(c):
    c.ready()
    c.td(0, END, OUT, 0, flags=IOC)
    c.frame(c.to_td(0))
    yield "told"


@program
def interrupt_on_a_failure(c):
    c.ready()
    c.td(0, END, IN, 8, NOBODY, 1, flags=ACTIVE | IOC)
    queue(c)
    yield "both causes"
    c.write(USBSTS, 1)
    yield "one acknowledged"
    c.write(USBSTS, 2)
    yield "the other too"


@program
def short_packet_with_detection(c):
    """The queue stops there, and the driver is told."""
    c.ready()
    control(c, 0, request(0x80, 6, 0x0100, 0, 64), masked=True)
    queue(c)
    yield "stopped"
    c.write(USBSTS, 1)
    yield "acknowledged"
    c.element(0, c.to_td(2))
    yield "helped past it"


@program
def short_packet_without_detection(c):
    c.ready()
    control(c, 0, request(0x80, 6, 0x0100, 0, 64), spd=0, masked=True)
    queue(c)
    yield "goes on"


@program
def short_packet_with_detection_and_interrupt(c):
    c.ready()
    control(c, 0, request(0x80, 6, 0x0100, 0, 64), spd=SPD | IOC, masked=True)
    queue(c)
    yield "stopped"
    c.write(USBSTS, 1)
    yield "acknowledged"


@program
def full_packet_with_detection(c):
    c.ready()
    control(c, 0, GET_DEVICE_DESCRIPTOR, masked=True)
    queue(c)
    yield "nothing short"


@program
def short_packet_detection_on_out(c):
    """Undefined in the guide: both ignore it."""
    c.ready()
    chain(c, 0, [(SETUP, 8, 0, GET_CONFIGURATION, SPD), (IN, 1, 0, None, 0), (OUT, 0, 0, None, SPD)])
    queue(c)
    yield "ignored"


@program
def short_packet_detection_outside_of_a_queue(c):
    """Undefined in the guide."""
    c.ready()
    control(c, 0, request(0x80, 6, 0x0100, 0, 64), masked=True, last=0)
    c.frame(c.to_td(0))
    yield "done"


@program
def short_packet_breadth_first(c):
    c.ready()
    control(c, 0, request(0x80, 6, 0x0100, 0, 64), masked=True, depth=False)
    queue(c)
    yield "stopped"


@program
def data_toggles_do_not_matter(c):
    """Emulated devices lose no packets: a driver that loses count is forgiven by both."""
    c.ready()
    for i, (pid, length, data) in enumerate(((SETUP, 8, GET_CONFIGURATION), (IN, 1, None), (OUT, 0, None))):
        c.td(i, c.to_td(i + 1, True) if i < 2 else END, pid, length, data=data, toggle=1 - (i & 1))
    queue(c)
    yield "done"


@program
def data_toggles_do_not_matter_in_bulk(c):
    c.ready()
    c.td(0, c.to_td(1, True), OUT, 31, endpoint=BULK_OUT, toggle=1, data=cbw(inquiry(), 36))
    c.td(1, c.to_td(2, True), IN, 36, endpoint=BULK_IN, toggle=1, masked=True)
    c.td(2, END, IN, 13, endpoint=BULK_IN, toggle=1)
    queue(c)
    yield "done"


@program
def low_speed_bit_for_a_full_speed_device(c):
    c.ready()
    c.td(0, END, SETUP, 8, flags=ACTIVE | LS, data=GET_CONFIGURATION)
    queue(c)
    yield "tried"


@program
def low_speed_bit_for_nobody(c):
    c.ready()
    c.td(0, END, IN, 8, NOBODY, 1, flags=ACTIVE | LS)
    queue(c)
    yield "tried"


@program
def longest_packet_to_nobody(c):
    c.ready()
    c.td(0, END, IN, 1280, NOBODY, 1, buffer=0)
    queue(c)
    yield "tried"


@program
def buffers_at_odd_addresses_and_across_pages(c):
    c.ready()
    c.td(0, c.to_td(1, True), OUT, 31, endpoint=BULK_OUT, buffer=0x0FF3, data=cbw(inquiry(), 36))
    c.td(1, c.to_td(2, True), IN, 36, endpoint=BULK_IN, buffer=0x1FF1, masked=True)
    c.td(2, END, IN, 13, endpoint=BULK_IN, buffer=0x2FFB)
    queue(c)
    yield "done"


@program
def nothing_is_written_beyond_what_came(c):
    c.ready()
    c.td(0, c.to_td(1, True), SETUP, 8, data=request(0x80, 8, 0, 0, 64))
    c.td(1, c.to_td(2, True), IN, 64)
    c.td(2, END, OUT, 0)
    queue(c)
    yield "one byte"


@program
def nothing_is_written_on_failure(c):
    c.ready()
    c.td(0, END, IN, 64, NOBODY, 1)
    queue(c)
    yield "none"


@program
def a_null_packet_with_a_buffer_that_is_not_there(c):
    """No bytes, no access."""
    c.ready()
    control(c, 0, GET_CONFIGURATION)
    c.descriptors[2][3] = 0xFFFF0000
    c.put_word(0x2000 + 16 * 2 + 12, 0xFFFF0000)
    queue(c)
    yield "done"


@program
def an_interrupt_between_two_queues(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION, depth=False)
    c.td(4, END, IN, 8, NOBODY, 1, flags=ACTIVE | IOC, cerr=1)
    c.qh(0, link=c.to_qh(1), element=c.to_td(0))
    c.qh(1, element=c.to_td(4))
    c.frame(c.to_qh(0))
    yield "done"


@program
def depth_bit_on_the_last(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION, link=END | DEPTH)
    queue(c)
    yield "done"


@program
def actual_length_kept_by_an_inactive_one(c):
    c.ready()
    c.td(0, END, IN, 8, actlen=ACTLEN & 0x2AA, flags=NAK)
    queue(c)
    yield "left alone"
