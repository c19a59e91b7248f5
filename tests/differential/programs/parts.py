"""What programs are made of: requests, transfers, commands."""

import struct

from controller import ADDRESS
from uhci import ACTIVE, END, IN, IOC, OUT, SETUP, SPD, USBSTS

NOBODY = 99  # an address
BULK_IN, BULK_OUT = 1, 2  # endpoints of the disk
PACKET = 64
WORK = 240  # descriptors from here on, and a queue, serve ask()


def request(kind, number, value=0, index=0, length=0):
    return struct.pack("<BBHHH", kind, number, value, index, length)


GET_DEVICE_DESCRIPTOR = request(0x80, 6, 0x0100, 0, 18)
GET_CONFIGURATION = request(0x80, 8, 0, 0, 1)
SET_CONFIGURATION = request(0x00, 9, 1)


def chain(c, first, packets, link=END, depth=True, flags=0, last=IOC, address=ADDRESS, cerr=3, masked=False):
    """Descriptors for packets (pid, length, endpoint, data or None, more flags), each linked to the next.

    `flags` are those of all, `last` those of the last one besides. Returns the number after them.
    """
    for i, (pid, length, endpoint, data, more) in enumerate(packets):
        end = i == len(packets) - 1
        c.td(first + i, link if end else c.to_td(first + i + 1, depth), pid, length, address, endpoint,
             toggle=i & 1, flags=ACTIVE | flags | more | (last if end else 0), data=data, cerr=cerr,
             masked=masked)
    return first + len(packets)


def control_packets(setup, spd=SPD, status=True, room=None):
    """`room`: bytes asked for, if not those of wLength."""
    to_host, length = setup[0] & 0x80, struct.unpack_from("<H", setup, 6)[0] if room is None else room
    packets = [(SETUP, 8, 0, setup, 0)]
    packets += [(IN if to_host else OUT, min(PACKET, length - at), 0, None, spd if to_host else 0)
                for at in range(0, length, PACKET)]
    if status:
        packets.append((OUT if to_host and length else IN, 0, 0, None, 0))
    return packets


def control(c, first, setup, link=END, depth=True, last=IOC, address=ADDRESS, masked=False, cerr=3, **shape):
    return chain(c, first, control_packets(setup, **shape), link, depth, last=last, address=address, masked=masked,
                 cerr=cerr)


def cbw(command, length=0, to_host=True, tag=1, wrapped=None):
    return struct.pack("<IIIBBB", 0x43425355, tag, length, 0x80 if to_host else 0, 0,
                       len(command) if wrapped is None else wrapped) + command.ljust(16, b"\0")


def test_unit_ready():
    return bytes(6)


def inquiry(length=36):
    return struct.pack(">BBBHB", 0x12, 0, 0, length, 0)


def request_sense(length=18):
    return struct.pack(">BBBBBB", 0x03, 0, 0, 0, length, 0)


def read_capacity():
    return struct.pack(">B9x", 0x25)


def read_blocks(lba, count):
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, count, 0)


def write_blocks(lba, count):
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, count, 0)


def packets_in(length, flags=0):
    return [(IN, min(PACKET, length - at), BULK_IN, None, flags) for at in range(0, length, PACKET)]


def packets_out(data):
    return [(OUT, len(data[at:at + PACKET]), BULK_OUT, data[at:at + PACKET], 0) for at in range(0, len(data), PACKET)]


def command(scsi, length=0, data=None, spd=0, **wrapper):
    """The packets of a command: CBW, data, CSW."""
    packets = [(OUT, 31, BULK_OUT, cbw(scsi, length if data is None else len(data), data is None, **wrapper), 0)]
    packets += packets_in(length, spd) if data is None else packets_out(data)
    return packets + [(IN, 13, BULK_IN, None, 0)]


def ask(c, setup, address, length=0):
    """One request, done at once. Returns its data."""
    control(c, WORK, setup, address=address, masked=True, last=0)
    c.qh(100, element=c.to_td(WORK))
    c.frame(c.to_qh(100))
    c.until(lambda: c.first_of(100) is None, f"end of {setup.hex()}")
    c.frame(END)
    c.pass_frames(1)
    data = c.get_bytes(0x80 * (WORK + 1), length)
    for number in range(3 if length else 2):
        del c.descriptors[WORK + number]
    del c.queues[100]
    return data


def attentive(c):
    """Ready, and the disk has told what may have happened before: REQUEST SENSE takes it away."""
    c.ready()
    chain(c, 0, command(request_sense(), 18), masked=True)
    c.qh(0, element=c.to_td(0))
    c.frame(c.to_qh(0))
    c.until(lambda: not c.unfinished(), "end of REQUEST SENSE")
    c.forget()
    c.pass_frames(1)
    c.write(USBSTS, 0x1F)
