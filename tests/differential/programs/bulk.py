"""The disk behind its bulk endpoints: whole commands, and what is cut, short, or not for it."""

from programs import program
from programs.parts import (BULK_IN, BULK_OUT, GET_CONFIGURATION, PACKET, attentive, cbw, chain, command, control,
                            inquiry, packets_in, packets_out, read_blocks, read_capacity, request, test_unit_ready,
                            write_blocks)
from uhci import ACTIVE, DEPTH, END, IN, IOC, OUT, SPD, USBSTS


def scsi(c, scsi_command, first=0, masked=False, depth=True, link=END, last=IOC, flags=0, **more):
    return chain(c, first, command(scsi_command, **more), link, depth, flags, last, masked=masked)


def queue(c, first=0):
    c.qh(0, element=c.to_td(first))
    c.frame(c.to_qh(0))


@program
def inquiry_(c):
    attentive(c)
    after = chain(c, 0, command(inquiry(), 36)[:2], link=c.to_td(2, True), masked=True)
    chain(c, after, [(IN, 13, BULK_IN, None, 0)])
    queue(c)
    yield "done"


@program
def capacity(c):
    attentive(c)
    scsi(c, read_capacity(), length=8)
    queue(c)
    yield "done"


@program
def ready_(c):
    attentive(c)
    scsi(c, test_unit_ready())
    queue(c)
    yield "done"


@program
def one_block(c):
    attentive(c)
    scsi(c, read_blocks(5, 1), length=512)
    queue(c)
    yield "done"


@program
def one_block_breadth_first(c):
    attentive(c)
    scsi(c, read_blocks(6, 1), length=512, depth=False)
    queue(c)
    yield "done"


@program
def eight_blocks_with_an_interrupt_for_each_packet(c):
    attentive(c)
    scsi(c, read_blocks(8, 8), length=4096, flags=IOC)
    queue(c)
    yield "done"


@program
def eight_blocks_with_detection_of_short_packets(c):
    attentive(c)
    scsi(c, read_blocks(8, 8), length=4096, spd=SPD)
    queue(c)
    yield "done"


@program
def thirty_two_blocks(c):
    attentive(c)
    scsi(c, read_blocks(32, 32), length=16384)
    queue(c)
    yield "done"


@program
def written_and_read_back(c):
    attentive(c)
    data = bytes(range(256)) * 4
    after = scsi(c, write_blocks(100, 2), data=data)
    queue(c)
    yield "written"
    scsi(c, read_blocks(100, 2), after, length=1024)
    c.element(0, c.to_td(after))
    yield "read"


@program
def written_in_short_packets(c):
    """Packets below the maximum in the middle of the data: a driver may not, and a bus does not care."""
    attentive(c)
    data = bytes(range(256)) * 2
    packets = command(write_blocks(120, 1), data=data)
    pieces = [data[at:at + 32] for at in range(0, 512, 32)]
    chain(c, 0, packets[:1] + [(OUT, 32, BULK_OUT, piece, 0) for piece in pieces] + packets[-1:])
    queue(c)
    yield "done"


@program
def phases_one_by_one(c):
    attentive(c)
    packets = command(read_blocks(17, 1), 512)
    c.qh(0)
    c.frame(c.to_qh(0))
    for first, last, name in ((0, 1, "command"), (1, 5, "half the data"), (5, 9, "the other half"), (9, 10, "status")):
        chain(c, first, packets[first:last])
        c.element(0, c.to_td(first))
        yield name


@program
def two_queues_in_and_out(c):
    """One for each endpoint, as drivers have them; the IN is queued when the command is through."""
    attentive(c)
    packets = command(read_blocks(33, 4), 2048)
    c.qh(0, link=c.to_qh(1))
    c.qh(1)
    c.frame(c.to_qh(0))
    chain(c, 0, packets[:1])
    c.element(0, c.to_td(0))
    yield "command"
    chain(c, 1, packets[1:])
    c.element(1, c.to_td(1))
    yield "data and status"


@program
def two_queues_closed_into_a_ring(c):
    attentive(c)
    packets = command(read_blocks(40, 4), 2048)
    c.qh(0, link=c.to_qh(1))
    c.qh(1, link=c.to_qh(0))
    c.frame(c.to_qh(0))
    chain(c, 0, packets[:1], depth=False)
    c.element(0, c.to_td(0))
    yield "command"
    chain(c, 1, packets[1:], depth=False)
    c.element(1, c.to_td(1))
    yield "data and status"


@program
def status_in_a_larger_buffer(c):
    attentive(c)
    packets = command(read_blocks(3, 1), 512)
    packets[-1] = (IN, PACKET, BULK_IN, None, SPD)
    chain(c, 0, packets)
    queue(c)
    yield "short"


@program
def more_asked_of_the_bus_than_of_the_device(c):
    """The status comes in the packet after the data's: SeaBIOS relies on nothing else."""
    attentive(c)
    packets = command(read_blocks(3, 1), 512)[:-1] + packets_in(128)
    chain(c, 0, packets)
    queue(c)
    yield "status in a data packet"


@program
def commands_back_to_back(c):
    attentive(c)
    after = 0
    for i in range(4):
        next_ = after + 10
        scsi(c, read_blocks(50 + i, 1), after, length=512, link=c.to_td(next_, True) if i < 3 else END,
             last=IOC if i == 3 else 0)
        after = next_
    queue(c)
    yield "done"


@program
def a_control_transfer_beside_the_data(c):
    attentive(c)
    scsi(c, read_blocks(60, 8), length=4096, depth=False)
    control(c, 100, GET_CONFIGURATION)
    c.qh(0, link=c.to_qh(1), element=c.to_td(0))
    c.qh(1, element=c.to_td(100))
    c.frame(c.to_qh(0))
    yield "done"


@program
def a_wrapper_that_is_none(c):
    attentive(c)
    chain(c, 0, packets_out(b"not a command block wrapper....."[:31]))
    queue(c)
    yield "refused"
    chain(c, 2, packets_in(13))
    c.element(0, c.to_td(2))
    yield "both ways"


@program
def a_wrapper_of_the_wrong_length(c):
    attentive(c)
    chain(c, 0, packets_out(cbw(test_unit_ready())[:30]))
    queue(c)
    yield "refused"


@program
def recovered_by_reset(c):
    attentive(c)
    chain(c, 0, packets_out(bytes(31)))
    queue(c)
    yield "refused"
    control(c, 4, request(0x21, 0xFF), link=c.to_td(8, True))
    control(c, 8, request(0x02, 1, 0, 0x81), link=c.to_td(12, True))
    control(c, 12, request(0x02, 1, 0, 0x02))
    c.element(0, c.to_td(4))
    yield "reset and cleared"
    scsi(c, read_blocks(9, 1), 20, length=512)
    c.element(0, c.to_td(20))
    yield "serves again"


@program
def a_command_nobody_knows(c):
    attentive(c)
    scsi(c, b"\xEE" + bytes(5))
    queue(c)
    yield "failed, but for the bus all is well"


@program
def zero_length_out(c):
    attentive(c)
    chain(c, 0, [(OUT, 0, BULK_OUT, None, 0)])
    queue(c)
    yield "tried"


@program
def interrupt_in_the_middle(c):
    attentive(c)
    packets = command(read_blocks(70, 2), 1024)
    packets[8] = (*packets[8][:4], IOC)
    chain(c, 0, packets, last=0)
    queue(c)
    yield "done"
    c.write(USBSTS, 1)
    yield "acknowledged"


@program
def data_shared_between_queues(c):
    """The second half of the data hangs in another queue, linked in when the first has ended."""
    attentive(c)
    packets = command(read_blocks(80, 2), 1024)
    chain(c, 0, packets[:9])
    queue(c)
    yield "first half"
    chain(c, 9, packets[9:])
    c.qh(1, element=c.to_td(9))
    c.frame(c.to_qh(1))
    yield "second half"


@program
def a_queue_ends_where_the_driver_goes_on(c):
    """The last descriptor is a spare, inactive; the driver fills it in and appends another."""
    attentive(c)
    packets = command(read_blocks(90, 1), 512)
    chain(c, 0, packets[:1], link=c.to_td(1, True))
    c.td(1, END, IN, 1, flags=0)
    queue(c)
    yield "command, spare"
    chain(c, 2, packets[2:])
    c.td(1, c.to_td(2, True), IN, PACKET, endpoint=BULK_IN, flags=ACTIVE)
    yield "data"


@program
def in_packets_shorter_than_the_endpoints(c):
    """Asked for 32 of 64 bytes a device sends 64: that is babble."""
    attentive(c)
    packets = command(read_blocks(4, 1), 512)[:1] + [(IN, 32, BULK_IN, None, 0)] * 2
    chain(c, 0, packets)
    queue(c)
    yield "babble"


@program
def depth_and_breadth_mixed(c):
    attentive(c)
    packets = command(read_blocks(7, 2), 1024)
    chain(c, 0, packets)
    for number in range(0, len(packets) - 1, 3):
        c.descriptors[number][0] &= ~DEPTH
        c.put_word(0x2000 + 16 * number, c.descriptors[number][0])
    c.td(40, END, IN, 8, flags=0)
    c.qh(0, link=c.to_qh(1), element=c.to_td(0))
    c.qh(1, element=c.to_td(40))
    c.frame(c.to_qh(0))
    yield "done"
