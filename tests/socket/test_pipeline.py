"""Messages sent without waiting for replies: each is answered, in order, and descriptors stay with their own.

The server is stopped while they are sent, so that it finds all of them at once.
"""

import array
import contextlib
import random
import socket
import struct

import pytest

import client
import uhci
from client import ACTION_TRIGGER, BAR4, CONFIG, DATA_EVENTFD, DATA_NONE, ERR, INTX, MSI, REQ, fired, new_eventfd

SIZE = 16 << 20


def irq_body(index, flags, count=1):
    return struct.pack("=IIIII", 20, flags, index, 0, count)


def region_body(offset, region, count, data=b""):
    return struct.pack("=QII", offset, region, count) + data


def pipeline(server, c, messages):
    """messages: (command, body, descriptors), each with a sendmsg of its own. Returns the replies' bodies."""
    with server.paused():
        sent = [(c.send(command, body, fds), command) for command, body, fds in messages]
    bodies = []
    for identity, command in sent:
        reply = c.receive()
        assert (reply.id, reply.command, reply.flags, reply.error) == (identity, command, client.REPLY, 0)
        bodies.append(reply.body)
    assert c.is_silent(0.05)
    return bodies


@pytest.fixture
def c(server):
    with server.client() as c:
        yield c


@pytest.fixture
def bare(guest):
    """Its memory is there, and not mapped yet."""
    guest.dma_unmap(0, guest.memory.size)
    return guest


def reads_its_disk(guest):
    assert uhci.open_disk(guest).read(7, 2) == b"".join(i.to_bytes(4, "little") * 128 for i in (7, 8))


RESET = (client.RESET, b"", [])


@pytest.mark.parametrize("resets", range(5))
def test_a_map_behind_short_messages_gets_its_memory(server, bare, resets):
    pipeline(server, bare, [RESET] * resets + [(client.DMA_MAP, bare.map_body(0, SIZE), [bare.memory.fd])])
    assert server.mappings() == 1
    reads_its_disk(bare)


def test_a_map_between_short_messages_gets_its_memory(server, bare):
    pipeline(server, bare, [RESET, RESET, (client.DMA_MAP, bare.map_body(0, SIZE), [bare.memory.fd]), RESET, RESET])
    assert server.mappings() == 1
    reads_its_disk(bare)


def test_maps_with_and_without_memory(server, bare):
    """The last one, out of reach, must not take the memory of one before."""
    pipeline(server, bare, [
        RESET, (client.DMA_MAP, bare.map_body(SIZE, 4096), []),
        RESET, (client.DMA_MAP, bare.map_body(0, SIZE), [bare.memory.fd]),
        RESET, (client.DMA_MAP, bare.map_body(2 * SIZE, 4096), []),
    ])
    assert server.mappings() == 1
    reads_its_disk(bare)


def test_everything_from_the_version_on(server, c):
    memory = client.Memory(SIZE)
    interrupt = new_eventfd()
    bodies = pipeline(server, c, [
        (client.VERSION, bytes(4) + b"{}\0", []),
        RESET,
        (client.DMA_MAP, c.map_body(0, SIZE), [memory.fd]),
        (client.GET_INFO, struct.pack("=IIII", 16, 0, 0, 0), []),
        RESET,
        (client.SET_IRQS, irq_body(INTX, DATA_EVENTFD | ACTION_TRIGGER), [interrupt]),
        (client.REGION_WRITE, region_body(0x04, CONFIG, 2, b"\5\0"), []),
        (client.REGION_READ, region_body(0x04, CONFIG, 2), []),
        (client.SET_IRQS, irq_body(INTX, DATA_NONE | ACTION_TRIGGER), []),
    ])
    assert bodies[3] == struct.pack("=IIII", 16, 3, 9, 5)
    assert bodies[7][16:] == b"\5\0"
    assert fired(interrupt) == 1
    assert server.mappings() == 1
    memory.close()


def test_every_interrupt_gets_its_own_eventfd(server, guest):
    fds = {index: new_eventfd() for index in (INTX, MSI, ERR, REQ)}
    assign = {index: (client.SET_IRQS, irq_body(index, DATA_EVENTFD | ACTION_TRIGGER), [fd]) for index, fd in fds.items()}
    pipeline(server, guest, [RESET, assign[INTX], assign[MSI], RESET, RESET, assign[ERR], RESET, assign[REQ]])
    for index, fd in fds.items():
        guest.set_irqs(index, 0x21)
        assert fired(fd) == 1
    assert not any(fired(fd, 0) for fd in fds.values())


def test_several_messages_in_one_sendmsg(server, guest):
    messages = [(1, client.RESET, b""), (2, client.GET_INFO, struct.pack("=IIII", 16, 0, 0, 0)),
                (3, client.REGION_READ, region_body(0x08, CONFIG, 4)), (4, client.RESET, b"")]
    guest.send_raw(b"".join(client.HEADER.pack(i, command, 16 + len(body), 0, 0) + body for i, command, body in messages))
    for identity, command, _ in messages:
        reply = guest.receive()
        assert (reply.id, reply.command, reply.flags) == (identity, command, client.REPLY)


def test_split_anywhere(server, bare):
    """One message of every kind, in pieces of every length; the memory comes with the first byte of its own."""
    def frame(command, body):
        return client.HEADER.pack(1, command, 16 + len(body), 0, 0) + body

    front = frame(client.RESET, b"") + frame(client.REGION_READ, region_body(0, CONFIG, 4))
    the_map = frame(client.DMA_MAP, bare.map_body(0, SIZE))
    back = frame(client.GET_INFO, struct.pack("=IIII", 16, 0, 0, 0)) + frame(client.RESET, b"")
    for piece in (1, 3, 7, 15, 16, 17, 31, 36, 37, 100):
        with server.paused() if piece > 2 else contextlib.nullcontext():  # the socket does not hold that many
            for data, fds in ((front, []), (the_map, [bare.memory.fd]), (back, [])):
                for i in range(0, len(data), piece):
                    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds and not i else []
                    bare.socket.sendmsg([data[i : i + piece]], ancillary)
        for _ in range(5):
            assert bare.receive().flags == client.REPLY
        assert server.mappings() == 1
        bare.dma_unmap(0, SIZE)


@pytest.mark.parametrize("seed", range(5))
def test_random_pipelines(server, guest, seed):
    """Each eventfd is told from the others by being triggered, each memory by its address in the map."""
    rng = random.Random(seed)
    before = server.descriptors()
    for _ in range(20):
        messages, expected, assigned = [], {}, {}
        for _ in range(rng.randrange(1, 12)):
            kind = rng.randrange(6)
            index = rng.choice([INTX, MSI, ERR, REQ])
            if kind == 0:
                messages.append(RESET)
            elif kind == 1:
                messages.append((client.GET_INFO, struct.pack("=IIII", 16, 0, 0, 0), []))
            elif kind == 2:
                count = rng.choice([1, 2, 4, 64])
                messages.append((client.REGION_READ, region_body(0, CONFIG, count), []))
            elif kind == 3:
                messages.append((client.REGION_WRITE, region_body(0x3C, CONFIG, 1, bytes([rng.randrange(256)])), []))
            elif kind == 4:
                assigned[index] = new_eventfd()
                messages.append((client.SET_IRQS, irq_body(index, DATA_EVENTFD | ACTION_TRIGGER), [assigned[index]]))
            elif index in assigned:
                expected[assigned[index]] = expected.get(assigned[index], 0) + 1
                messages.append((client.SET_IRQS, irq_body(index, DATA_NONE | ACTION_TRIGGER), []))
        pipeline(server, guest, messages)
        for fd in client.eventfds:
            assert fired(fd, 0) == expected.get(fd, 0)
        for index in (INTX, MSI, ERR, REQ):
            guest.disable(index)
        server.wait_descriptors(before)


def test_a_long_pipeline_of_register_accesses(server, guest):
    count = 50
    messages = []
    for i in range(count):
        messages.append((client.REGION_WRITE, region_body(0x3C, CONFIG, 1, bytes([i])), []))
        messages.append((client.REGION_READ, region_body(0x3C, CONFIG, 1), []))
    bodies = []
    for i in range(0, len(messages), 20):
        bodies += pipeline(server, guest, messages[i : i + 20])
    assert [body[16] for body in bodies[1::2]] == list(range(count))
    assert guest.get(BAR4, uhci.USBCMD, 2) & uhci.RUN == 0
