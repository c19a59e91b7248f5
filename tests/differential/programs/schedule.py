"""The schedule: frame list, queue heads, links, depth and breadth, loops."""

from programs import program
from programs.parts import GET_CONFIGURATION, GET_DEVICE_DESCRIPTOR, NOBODY, chain, control
from uhci import ACTIVE, DEPTH, END, FRBASEADD, FRNUM, IN, IOC, OUT, QUEUE, RS, USBCMD, USBSTS


def inactive(c, number, link, flags=0, pid=IN):
    c.td(number, link, pid, 8, flags=flags)


def lost(c, number, link, address=NOBODY, **more):
    """An active descriptor that nobody answers."""
    c.td(number, link, IN, 8, address, 1, **more)


@program
def nothing_to_do(c):
    c.ready()
    yield "idle"


@program
def inactive_descriptor_in_the_frame_list(c):
    c.ready()
    inactive(c, 0, END)
    c.frame(c.to_td(0))
    yield "left alone"


@program
def descriptors_in_the_frame_list_are_all_tried(c):
    """Outside of a queue a failure stops nothing."""
    c.ready()
    lost(c, 0, c.to_td(1))
    inactive(c, 1, c.to_td(2))
    lost(c, 2, END)
    c.frame(c.to_td(0))
    yield "both failed"


@program
def transfer_in_the_frame_list(c):
    """A control transfer without a queue: each descriptor is executed whatever became of the one before."""
    c.ready()
    c.td(0, END, IN, 0)
    c.frame(END)
    control(c, 0, GET_CONFIGURATION, last=0)
    c.frame(c.to_td(0))
    yield "done"


@program
def frame_list_then_queue(c):
    c.ready()
    lost(c, 0, c.to_qh(0))
    control(c, 1, GET_CONFIGURATION)
    c.qh(0, element=c.to_td(1))
    c.frame(c.to_td(0))
    yield "done"


@program
def depth_first(c):
    c.ready()
    control(c, 0, GET_DEVICE_DESCRIPTOR, masked=True)
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "done"


@program
def breadth_first(c):
    c.ready()
    control(c, 0, GET_DEVICE_DESCRIPTOR, depth=False, masked=True)
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "done"


@program
def depth_bit_in_an_element_pointer_and_in_queue_links(c):
    """Vf means something in a descriptor's link only."""
    c.ready()
    control(c, 0, GET_CONFIGURATION, depth=False)
    c.qh(0, link=c.to_qh(1, DEPTH), element=c.to_td(0, depth=True))
    lost(c, 8, END)
    c.qh(1, element=c.to_td(8))
    c.frame(c.to_qh(0, DEPTH))
    yield "done"


@program
def reserved_link_bits(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION, link=END | 8)
    c.qh(0, link=END | 8, element=c.to_td(0, flags=8))
    c.frame(c.to_qh(0, 8))
    yield "done"


@program
def queue_with_nothing_in_it(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION)
    c.qh(0, link=c.to_qh(1))
    c.qh(1, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "passed by"


@program
def a_queue_that_is_stuck_does_not_hold_the_next(c):
    c.ready()
    inactive(c, 0, END)
    lost(c, 1, c.to_td(2, depth=True))
    lost(c, 2, END)
    control(c, 3, GET_CONFIGURATION)
    c.qh(0, link=c.to_qh(1), element=c.to_td(0))
    c.qh(1, link=c.to_qh(2), element=c.to_td(1))
    c.qh(2, element=c.to_td(3))
    c.frame(c.to_qh(0))
    yield "done"


@program
def an_inactive_descriptor_holds_its_queue(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION, link=c.to_td(4, depth=True))
    inactive(c, 4, c.to_td(5, depth=True))
    lost(c, 5, END)
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "held"
    c.put_control_word(4, c.control_word(4))
    c.element(0, c.to_td(5))
    yield "helped past it"


@program
def queue_in_a_queues_element_pointer(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION)
    c.qh(0, link=END, element=c.to_qh(1))
    c.qh(1, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "followed"


@program
def queue_after_a_descriptor_depth_first(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION, link=c.to_qh(1, DEPTH))
    control(c, 8, GET_CONFIGURATION)
    c.qh(0, element=c.to_td(0))
    c.qh(1, element=c.to_td(8))
    c.frame(c.to_qh(0))
    yield "followed"


@program
def queue_after_a_descriptor_breadth_first(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION, link=c.to_qh(1), depth=False)
    control(c, 8, GET_CONFIGURATION)
    c.qh(0, element=c.to_td(0))
    c.qh(1, element=c.to_td(8))
    c.frame(c.to_qh(0))
    yield "followed"


@program
def a_ring_of_queues_without_work(c):
    c.ready()
    for i in range(4):
        inactive(c, i, END)
        c.qh(i, link=c.to_qh((i + 1) % 4), element=c.to_td(i))
    c.frame(c.to_qh(0))
    yield "idle"


@program
def a_ring_of_queues_with_work_in_each(c):
    c.ready()
    inactive(c, 0, END)
    c.qh(0, link=c.to_qh(1), element=c.to_td(0))
    lost(c, 1, END)
    c.qh(1, link=c.to_qh(2), element=c.to_td(1))
    control(c, 2, GET_CONFIGURATION, depth=False)
    c.qh(2, link=c.to_qh(0), element=c.to_td(2))
    c.frame(c.to_qh(0))
    yield "done"


@program
def a_tail_that_loops_to_the_middle(c):
    """Full-speed bandwidth reclamation: the last queue links back to an earlier one."""
    c.ready()
    lost(c, 0, END)
    c.qh(0, link=c.to_qh(1), element=c.to_td(0))
    control(c, 1, GET_DEVICE_DESCRIPTOR, depth=False, masked=True)
    c.qh(1, link=c.to_qh(2), element=c.to_td(1))
    c.qh(2, link=c.to_qh(1))
    c.frame(c.to_qh(0))
    yield "done"


@program
def a_queue_linked_to_itself(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION, depth=False)
    c.qh(0, link=c.to_qh(0), element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "done"


@program
def a_descriptor_linked_to_itself(c):
    c.ready()
    inactive(c, 0, c.to_td(0))
    c.frame(c.to_td(0))
    yield "idle"


@program
def a_failing_descriptor_linked_to_itself(c):
    c.ready()
    lost(c, 0, c.to_td(0))
    c.frame(c.to_td(0))
    yield "failed"


@program
def a_ring_of_descriptors_in_a_queue(c):
    """Each is done once; the queue then stands at the first, which is inactive by then."""
    c.ready()
    control(c, 0, GET_CONFIGURATION, link=c.to_td(0, depth=True))
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "once round"


@program
def a_queue_appended_to(c):
    c.ready()
    c.qh(0)
    c.frame(c.to_qh(0))
    yield "empty"
    control(c, 0, GET_CONFIGURATION)
    c.element(0, c.to_td(0))
    yield "first"
    control(c, 8, GET_DEVICE_DESCRIPTOR, masked=True)
    c.element(0, c.to_td(8))
    yield "second"
    c.write(USBSTS, 1)
    yield "acknowledged"


@program
def a_queue_unlinked_and_linked_again(c):
    c.ready()
    inactive(c, 0, END)
    c.qh(0, element=c.to_td(0))
    c.qh(1)
    c.frame(c.to_qh(0))
    yield "waiting"
    c.frame(END)
    yield "unlinked"
    control(c, 1, GET_CONFIGURATION)
    c.element(0, c.to_td(1))
    yield "changed"
    c.frame(c.to_qh(0))
    yield "linked again"


@program
def descriptor_activated_again(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION, link=c.to_td(0))
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "once"
    c.write(USBSTS, 1)
    for number in (2, 1, 0):
        c.put_control_word(number, ACTIVE | 3 << 27 | (IOC if number == 2 else 0))
    yield "twice"


@program
def even_and_odd_frames(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION)
    c.qh(0, element=c.to_td(0))
    lost(c, 4, END)
    c.frame(c.to_qh(0), range(0, 1024, 2))
    c.frame(c.to_td(4), range(1, 1024, 2))
    yield "both"


@program
def one_frame_of_all(c):
    c.ready()
    c.write(USBCMD, 0)
    c.until(lambda: not c.running(), "halt")
    c.write(FRNUM, 1000)
    lost(c, 0, END, flags=ACTIVE | IOC)
    c.frame(c.to_td(0), [1004])
    c.write(USBCMD, RS)
    c.until(lambda: not c.unfinished(), "end")
    yield "its turn came"


@program
def frame_numbers_above_the_list(c):
    """The list has 1024 entries, the number 11 bits: the highest does not count."""
    c.ready()
    c.write(USBCMD, 0)
    c.until(lambda: not c.running(), "halt")
    c.write(FRNUM, 1024 + 30)
    lost(c, 0, END, flags=ACTIVE | IOC)
    c.frame(c.to_td(0), [34])
    c.write(USBCMD, RS)
    c.until(lambda: not c.unfinished(), "end")
    yield "its turn came"


@program
def frame_list_moved_while_running(c):
    c.ready()
    lost(c, 0, END)
    other = 0x30000
    for number in range(1024):
        c.put_word(other + 4 * number, c.to_td(0))
    yield "not yet"
    c.write(FRBASEADD, c.at(other), 4)
    yield "found"


@program
def queues_of_many_short_requests(c):
    c.ready()
    first = 0
    for i in range(6):
        control(c, first, GET_CONFIGURATION)
        c.qh(i, link=c.to_qh(i + 1) if i < 5 else END, element=c.to_td(first))
        first += 3
        if i:  # one after the other: there is one default pipe
            c.element(i, END)
    c.frame(c.to_qh(0))
    for i in range(6):
        yield f"queue {i}"
        if i < 5:
            c.element(i + 1, c.to_td(3 * (i + 1)))


@program
def many_empty_queues(c):
    c.ready()
    for i in range(60):
        c.qh(i, link=c.to_qh(i + 1))
    control(c, 0, GET_CONFIGURATION)
    c.qh(60, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "the last is reached"


@program
def long_chain_in_the_frame_list(c):
    c.ready()
    for i in range(60):
        inactive(c, i, c.to_td(i + 1))
    lost(c, 60, END)
    c.frame(c.to_td(0))
    yield "the last is reached"


@program
def one_queue_linked_from_two_places(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION, depth=False)
    c.qh(0, link=c.to_qh(1), element=c.to_td(0))
    c.qh(1, link=END, element=c.to_qh(0))
    c.frame(c.to_qh(0))
    yield "done"


@program
def zero_length_packets_to_nobody(c):
    c.ready()
    chain(c, 0, [(OUT, 0, 3, None, 0)], address=NOBODY)
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "failed"


@program
def queue_bit_in_an_end(c):
    c.ready()
    control(c, 0, GET_CONFIGURATION, link=END | QUEUE | DEPTH)
    c.qh(0, link=END | QUEUE, element=c.to_td(0))
    c.frame(c.to_qh(0))
    yield "done"
