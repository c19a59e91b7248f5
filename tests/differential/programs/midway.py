"""What a driver does while data move. How far they have come is each controller's affair; how it ends is not.

QEMU loses what its disk was about when packets in flight are taken out of the schedule for long: where that
would show, it is left alone until it has done, and ours has to come to the same end all the same.
"""

from controller import ADDRESS, COMMAND_IO, COMMAND_MASTER, CONFIG_COMMAND
from programs import program
from programs.parts import GET_CONFIGURATION, ask, attentive, chain, command, control, read_blocks, request, write_blocks
from uhci import EGSM, END, IN, PORTSC1, PR, RS, USBCMD, USBSTS

BLOCKS = 48


def begin(c, depth=True, first=0, lba=200, data=None, qemu_ends=False):
    """A long command is under way: a few frames of it have passed."""
    scsi = read_blocks(lba, BLOCKS) if data is None else write_blocks(lba, BLOCKS)
    chain(c, first, command(scsi, 512 * BLOCKS, data), depth=depth)
    c.qh(0, element=c.to_td(first))
    c.frame(c.to_qh(0))
    if c.name == "QEMU" and qemu_ends:
        c.until(lambda: not c.unfinished(), "end of a command")
    elif c.name == "QEMU":
        c.pass_frames(3)


def recover(c):
    """Reset recovery: Bulk-Only Mass Storage Reset, and both endpoints cleared."""
    for setup in (request(0x21, 0xFF), request(0x02, 1, 0, 0x81), request(0x02, 1, 0, 0x02)):
        ask(c, setup, ADDRESS)


def another(c, lba=7):
    """A short command from a clean slate."""
    c.frame(END)
    c.pass_frames(2)
    c.forget()
    c.write(USBSTS, 0x1F)
    chain(c, 0, command(read_blocks(lba, 1), 512))
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))


@program
def left_alone(c):
    attentive(c)
    begin(c)
    yield "read"


@program
def left_alone_breadth_first(c):
    attentive(c)
    begin(c, depth=False)
    yield "read"


@program
def stopped_and_started(c):
    attentive(c)
    begin(c)
    for _ in range(5):
        c.write(USBCMD, 0)
        c.until(lambda: not c.running(), "halt")
        c.write(USBCMD, RS)
        c.pass_frames(1)
    yield "read"


@program
def unlinked_and_linked_again(c):
    """As Linux does with a queue that makes no progress."""
    attentive(c)
    begin(c)
    for _ in range(5):
        c.frame(END)
        c.pass_frames(2)
        c.frame(c.to_qh(0))
        c.pass_frames(1)
    yield "read"


@program
def unlinked_for_long(c):
    attentive(c)
    begin(c, qemu_ends=True)
    c.frame(END)
    c.pass_frames(50)
    c.frame(c.to_qh(0))
    yield "read"


@program
def written_and_unlinked_for_long(c):
    attentive(c)
    begin(c, data=bytes(range(256)) * 2 * BLOCKS, qemu_ends=True)
    c.frame(END)
    c.pass_frames(50)
    c.frame(c.to_qh(0))
    yield "written"
    another(c, lba=200)
    yield "and there"


@program
def globally_suspended_and_resumed(c):
    attentive(c)
    begin(c)
    c.write(USBCMD, RS | EGSM)
    c.pass_frames(3)
    c.write(USBCMD, RS)
    yield "read"


@program
def control_transfers_beside_it(c):
    attentive(c)
    begin(c, depth=False)
    for number in range(4):
        control(c, 600 + 4 * number, GET_CONFIGURATION, link=c.to_td(604 + 4 * number) if number < 3 else END)
    c.qh(1, element=c.to_td(600))
    c.frame(c.to_qh(1), range(0, 1024, 2))
    yield "both"


@program
def reset_of_the_controller(c):
    attentive(c)
    begin(c)
    attentive(c)
    another(c)
    yield "serves again"


@program
def reset_of_the_port(c):
    attentive(c)
    begin(c)
    c.write(PORTSC1, PR)
    c.write(PORTSC1, 0)
    c.frame(END)
    c.pass_frames(3)
    attentive(c)
    another(c)
    yield "serves again"


@program
def a_command_given_up(c):
    attentive(c)
    begin(c)
    c.frame(END)
    c.pass_frames(3)
    c.forget()
    recover(c)
    another(c)
    yield "serves again"


@program
def a_write_given_up(c):
    attentive(c)
    begin(c, data=bytes(512 * BLOCKS), lba=400)
    c.frame(END)
    c.pass_frames(3)
    c.forget()
    recover(c)
    another(c)
    yield "serves again"


@program
def given_up_again_and_again(c):
    attentive(c)
    for turn in range(6):
        begin(c, lba=200 + turn, first=0)
        c.frame(END)
        c.pass_frames(2)
        c.forget()
        recover(c)
    another(c)
    yield "serves again"


@program
def the_rest_in_another_queue(c):
    """Unlinked, and what was not done linked again behind another queue head."""
    attentive(c)
    begin(c, qemu_ends=True)
    c.frame(END)
    c.pass_frames(3)
    rest = c.word(0x1000 + 4)
    c.qh(0)
    c.qh(1, element=rest)
    c.frame(c.to_qh(1))
    yield "read"


@program
def more_appended_meanwhile(c):
    """The next command is linked behind the last descriptor before that one is done, or else into the queue head."""
    attentive(c)
    packets = command(read_blocks(300, BLOCKS), 512 * BLOCKS)
    spare = len(packets)
    chain(c, 0, packets, link=c.to_td(spare, True))
    c.td(spare, END, IN, 1, flags=0)
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))
    c.pass_frames(3 if c.name == "QEMU" else 0)
    following = command(read_blocks(9, 1), 512)
    chain(c, spare + 1, following[1:])
    (pid, length, endpoint, data, _), *_ = following
    c.td(spare, c.to_td(spare + 1, True), pid, length, endpoint=endpoint, data=data)
    yield "both"


@program
def bus_master_off_and_on(c):
    attentive(c)
    chain(c, 0, command(read_blocks(20, BLOCKS), 512 * BLOCKS))
    c.qh(0, element=c.to_td(0))
    c.qtest.config_put(c.slot, CONFIG_COMMAND, 2, COMMAND_IO)
    c.frame(c.to_qh(0))
    c.pass_frames(3)
    c.qtest.config_put(c.slot, CONFIG_COMMAND, 2, COMMAND_IO | COMMAND_MASTER)
    yield "read"
