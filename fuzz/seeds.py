#!/usr/bin/python3
"""fuzz/seeds.py DIRECTORY - writes programs for guest_memory.c that do what sensible drivers do.

They are where the fuzzer starts from. The corpus holds these and what grew out of them; run this
again when the records of guest_memory.c have changed their meaning.
"""

import pathlib
import sys

# As in guest_memory.c: operations[], then the choices that a record's bytes make.
(QUEUE, _, LINK, FRAMES, HEAD, TD, CONTROL, AGAIN, WORD, BYTES, RACE, _, WRITE, READ, CONFIG, START,
 PORT, ACKNOWLEDGE, RESET, TIME, _, POLICY, _, ACT, _, PLUG, MAP, STREAM) = range(28)
END, HOLD, LATER, DETACH_HOLD, DETACH_END, PROGRESS, END_DETACH, WAKE_END = range(8)
CANCEL, IN_PART, CANCEL_LATER, TOO_LATE, AS_USUAL, NEVER = range(6)
SUCCESS, STALL, BABBLE, NO_RESPONSE, BUS_ERROR, CANCELLED = range(6)
ALL, NONE, BYTES_FEW, PACKETS, BYTES_LESS, PACKETS_LESS, HALF, LIE = range(8)
SPD, IOC, VF, CERR_0, RING, TOGGLE, SHORT, GAP = (1 << bit for bit in range(8))
EVERY = 0x40  # pipes of a policy
CONTROL_PIPE = 32
SHARED, ACROSS, WRAPPED, ITSELF = 2, 3, 4, 6  # buffers; the rest lies one after another


def bulk_out(number=1, address=0):
    return address << 5 | number


def bulk_in(number=2, address=0):
    return address << 5 | 0x10 | number


def ms(n):
    """So many milliseconds, nearly."""
    exponent = 10
    while n > 255:
        n, exponent = n // 2, exponent + 1
    return (TIME, n, exponent)


def limits(ports=0, pace=0, verify=0, **chosen):
    names = ("batch_bytes", "descriptors", "bytes", "checks", "linger", "withdrawn")
    return (ports | pace << 3, *(chosen.get(name, 0) for name in names), verify)


def one_queue(target, count, how=SPD | IOC, length=0, buffer=0):
    return [(QUEUE, 0, target, count, 0, how, length, buffer), (LINK, 0, 0)]


def control(request, value=0, length=0, packets=0, odd=0, first=64, head=1, address=0):
    return [(CONTROL, head, address << 5, first, request, value, length, packets | odd)]


def programs():
    yield "nothing", limits(), [ms(3)]
    yield "idle", limits(), [ms(300), (ACKNOWLEDGE, 0), ms(200)]
    for name, target in (("out", bulk_out()), ("in", bulk_in()), ("small_out", bulk_out(13)), ("single", bulk_in(3))):
        queue = one_queue(target, 31)
        yield name, limits(), [*queue, ms(4), (ACKNOWLEDGE,)]
        yield name + "_held", limits(), [
            (POLICY, 0, EVERY, HOLD), *queue, ms(4), (ACT, 0, target & 31, 0, SUCCESS, ALL), ms(3), (ACKNOWLEDGE,)]
        yield name + "_later", limits(), [
            (POLICY, 0, EVERY, LATER, CANCEL_LATER, SUCCESS, ALL, 0x9f), *queue, ms(60), (AGAIN, 0, 31, 1, 0), ms(20)]
        yield name + "_stall", limits(), [(POLICY, 0, EVERY, END, CANCEL, STALL, PACKETS | 5 << 3), *queue, ms(3)]
        yield name + "_lost", limits(), [(POLICY, 0, EVERY, END, CANCEL, NO_RESPONSE, PACKETS | 3 << 3), *queue, ms(9)]
        yield name + "_lingers", limits(), [
            (POLICY, 0, EVERY, HOLD, IN_PART, SUCCESS, PACKETS | 7 << 3), *queue, ms(150),
            (ACT, 0, target & 31, 0, SUCCESS, NONE), ms(4)]
        yield name + "_withdrawn", limits(), [
            (POLICY, 0, EVERY, HOLD, IN_PART, SUCCESS, PACKETS | 9 << 3), *queue, ms(4), (FRAMES, 0, 0), ms(60),
            (QUEUE, 0, target, 9, 32, SPD | IOC), (LINK, 0, 0), ms(10)]
        yield name + "_changed", limits(), [
            (POLICY, 0, EVERY, HOLD, IN_PART, SUCCESS, HALF), *queue, ms(3), (BYTES, 0, 0xc0, 0, 1, 2, 3, 4),
            (WORD, 2 | 3 << 2, 4, 1, 4, 0, 0, 0), ms(5), ms(1400), (PORT, 0, 0), *queue, ms(3)]
        yield name + "_raced", limits(), [
            (POLICY, 0, EVERY, LATER, IN_PART, SUCCESS, ALL, 0x81), (RACE, 2 | 1 << 2, 3, 0x80, 40, 7, 20, 2),
            (RACE, 2, 5, 0x10, 60, 3, 9, 0), *queue, ms(20)]
        yield name + "_ring", limits(), [
            *one_queue(target, 7, RING | VF), ms(3), (AGAIN, 0, 7), ms(3), (AGAIN, 0, 3, 1, 0), ms(3)]
        yield name + "_detaches", limits(), [(POLICY, 0, EVERY, DETACH_HOLD, NEVER), *queue, ms(3), (PLUG, 0),
                                             (PORT, 0, 0), *queue, ms(4)]
        yield name + "_reset", limits(), [(POLICY, 0, EVERY, HOLD, NEVER), *queue, ms(3), (PORT, 0, 0), ms(3),
                                          (RESET, 2), (START,), (PORT, 0, 0), ms(3)]
        yield name + "_packets", limits(descriptors=2), [*queue, ms(4)]
        yield name + "_little_memory", limits(bytes=3), [*one_queue(target, 200, VF), ms(8)]
        yield name + "_paced", limits(pace=1), [*one_queue(target, 60, VF), ms(30)]
        yield name + "_fails", limits(ports=2) , [
            (POLICY, 0, EVERY, LATER, TOO_LATE, SUCCESS, ALL, 0xaf), *queue, ms(2), (BYTES, 0, 0xc1, 0, 9, 9, 9, 9),
            ms(900), ms(400), ms(200), (PORT, 0, 0), *queue, ms(3)]
    yield "large", limits(), [*one_queue(bulk_out(), 255, VF, 0, 0), ms(10)]
    yield "large_lie", limits(), [(POLICY, 0, EVERY, END, CANCEL, SUCCESS, LIE | 8), *one_queue(bulk_in(), 90), ms(9)]
    yield "oversized", limits(), [*one_queue(bulk_out(), 3, 0, 11), ms(9), *one_queue(bulk_in(), 3, 0, 11), ms(9)]
    yield "longer_later", limits(), [(TD, 2, 1, 3, 0x18, 1, 1, 9), (QUEUE, 0, bulk_out(), 5), (BYTES, 0x3a, 0x40, 0, 0xe0, 0x3f),
                                     (LINK, 0, 0), ms(4)]
    yield "control_out_of_nowhere", limits(), [
        *control(6, 0, 3, 8), (WORD, 2 | 3 << 2, 66, 0, 0, 0, 0, 0x70), (LINK, 1, 0), ms(4), (READ, 2, 1)]
    yield "empty_packets", limits(), [*one_queue(bulk_out(), 3, SHORT, 4), ms(4), *one_queue(bulk_in(), 3, 0, 4), ms(4)]
    yield "toggles", limits(), [*one_queue(bulk_out(), 30, TOGGLE | GAP | SHORT), ms(4), (AGAIN, 0, 31), ms(3)]
    for number, buffer in enumerate((SHARED, ACROSS, WRAPPED, ITSELF, 7)):
        for target in (bulk_out(), bulk_in()):
            yield f"buffer_{number}_{target}", limits(), [
                (MAP, 8, 3, 1), (MAP, 9, 3, 1), ms(5), *one_queue(target, 9, VF, 0, buffer), ms(3), (MAP, 9), ms(200)]
    yield "map_moves", limits(), [
        *one_queue(bulk_out(), 60), (MAP, 1), ms(5), (MAP, 1, 1, 1), ms(5), (MAP, 3), ms(3), (MAP, 3, 3, 1), ms(200)]
    yield "map_misaligned", limits(), [
        (MAP, 1), (MAP, 1, 0x0b, 1), *one_queue(bulk_out(), 60), ms(5), (MAP, 1), (MAP, 1, 0x33, 1), ms(200)]
    yield "system_error", limits(), [*one_queue(bulk_out(), 60), ms(1), (MAP, 1, 0, 2), ms(5), (READ, 2, 1)]
    yield "enumeration", limits(ports=2), [
        *control(4, 1, 2, 1), (LINK, 1, 0), ms(4), (PORT, 0, 0), *control(4, 1, 2, 3), ms(4), *control(0, 1), ms(4),
        *control(4, 2, 4, 4, address=1), ms(4), *control(1, 1, address=1), ms(4), *control(2, 1, address=1), ms(4),
        *control(3, 0x82, address=1), ms(4), (QUEUE, 0, bulk_in(address=1), 9, 0, SPD | IOC), (LINK, 0, 1), ms(5),
        *control(3, 1, address=1), ms(4), *control(1, 0, address=1), ms(4)]
    yield "control_held", limits(), [
        (POLICY, 0, CONTROL_PIPE, HOLD, CANCEL_LATER, SUCCESS, ALL, 20), *control(5, 0, 4, 8), (LINK, 1, 0), ms(4),
        *control(6, 0, 3, 8), ms(4), (ACT, 0, CONTROL_PIPE, 0, SUCCESS, BYTES_LESS | 9 << 3), ms(4)]
    yield "control_out", limits(), [*control(6, 0, 3, 8), (LINK, 1, 0), ms(4), *control(6, 0, 3, 12), ms(4)]
    yield "control_short", limits(), [
        (POLICY, 0, CONTROL_PIPE, LATER, CANCEL, SUCCESS, BYTES_FEW | 12 << 3, 4), *control(5, 0, 4, 12, 0x20),
        (LINK, 1, 0), ms(4), *control(4, 0, 7, 15, 0x80), ms(4), *control(5, 0, 7, 0), ms(4)]
    yield "control_between", limits(), [
        (POLICY, 0, EVERY, LATER, IN_PART, SUCCESS, ALL, 0x7f), *one_queue(bulk_out(), 20), ms(1), *control(3, 1),
        (LINK, 0, 1), ms(8), *control(1, 1), ms(8), (PORT, 0, 0), ms(5)]
    yield "two_queues_one_endpoint", limits(), [
        (POLICY, 0, EVERY, LATER, IN_PART, SUCCESS, HALF, 0x7f), (QUEUE, 0, bulk_out(), 9, 0, VF),
        (QUEUE, 1, bulk_out(), 9, 20, VF), (LINK, 0, 1), ms(30), (AGAIN, 0, 40, 1, 0), ms(4)]
    yield "all_at_once", limits(ports=6), [
        (QUEUE, 0, bulk_out(), 40, 0, VF), (QUEUE, 1, bulk_in(), 40, 50, VF | SPD), (QUEUE, 2, bulk_in(3), 4, 100, IOC, 1),
        (QUEUE, 3, bulk_out(4), 20, 120, 0, 2), (QUEUE, 4, bulk_in(6), 20, 150, 0, 3), (LINK, 0, 4, 3, 0), ms(8),
        (AGAIN, 0, 200), ms(4), (ACKNOWLEDGE,), ms(3)]
    yield "two_devices", limits(ports=2), [
        *control(0, 1), (LINK, 1, 0), ms(4), (PLUG, 1, 0, 4), (PORT, 1, 0), (QUEUE, 0, bulk_out(address=1), 9, 0, VF),
        (QUEUE, 2, bulk_in(), 9, 20, VF), (LINK, 0, 2), ms(4), (PLUG, 0, 0x80), ms(3), (ACT, 1, 0, 6), ms(3)]
    yield "low_speed", (0x20, *limits()[1:]), [(TD, 0, 0, 0, 0x04 | 0x18, 0x13, 0, 1), (FRAMES, 1, 0), ms(6)]
    yield "periodic", limits(), [
        (POLICY, 0, EVERY, HOLD), (QUEUE, 0, bulk_in(3), 5, 0, IOC, 1), (LINK, 0, 0, 0, 0, 5, 3), ms(100),
        (ACT, 0, 0x13, 0, SUCCESS, ALL), ms(100), (FRAMES, 0, 0), ms(1200)]
    yield "isochronous", limits(), [(TD, 0, 0, 0, 0x03, 0x17, 0, 0), (TD, 1, 1, 0, 0x03, 7, 1, 0), (FRAMES, 1, 1), ms(5)]
    for name, target in (("stream_out", 7), ("stream_in", 0x17)):
        stream = (STREAM, 0, target, 60, 3, 4, 0, 0)
        yield name, limits(), [stream, ms(40), (ACKNOWLEDGE,), ms(60)]
        yield name + "_held", limits(), [
            (POLICY, 0, EVERY, HOLD), stream, ms(40), (ACT, 0, 0, 7, SUCCESS, ALL), ms(40), (FRAMES, 0, 0), ms(1200)]
        yield name + "_later", limits(), [
            (POLICY, 0, EVERY, LATER, CANCEL_LATER, SUCCESS, 0x50, 0xbf), stream, ms(90), (AGAIN, 0, 60), ms(1100)]
        yield name + "_packets", limits(descriptors=2), [(POLICY, 0, EVERY, LATER, 0, 0, 0, 0xbf), stream, ms(90)]
        yield name + "_little_memory", limits(bytes=3), [stream, ms(90)]
        yield name + "_changed", limits(), [
            stream, ms(9), (BYTES, 0, 0xc0, 0, 1, 2, 3, 4), (WORD, 2 | 3 << 2, 30, 1, 4, 0, 0, 0), ms(9),
            (STREAM, 90, target, 20, 2, 0, 1, 8), ms(60)]
        yield name + "_raced", limits(), [
            (RACE, 2 | 1 << 2, 20, 0x80, 40, 7, 20, 2), (RACE, 2, 25, 0x10, 60, 3, 9, 0), stream, ms(90)]
        yield name + "_detaches", limits(), [
            (POLICY, 0, EVERY, DETACH_HOLD, NEVER), stream, ms(9), (PLUG, 0), (PORT, 0, 0), (AGAIN, 0, 60), ms(60)]
        yield name + "_stops", limits(), [
            (POLICY, 0, EVERY, HOLD, CANCEL_LATER), stream, ms(9), (WRITE, 0, 1, 0), ms(3), (WRITE, 0, 1, 1), ms(20),
            *control(2, 1), (LINK, 1, 0), ms(5), (PORT, 0, 0), ms(9)]
        yield name + "_late", limits(), [stream, (TIME, 9, 10, 1), (READ, 6, 1), (TIME, 40, 10, 1), ms(60)]
    yield "nonsense", limits(), [(TD, 0, 0, 0, 0, 0, 3, 0), (FRAMES, 1, 0), ms(5), (READ, 2, 1), (START,), ms(4)]
    yield "illegal_length", limits(), [*one_queue(bulk_in(), 2, 0, 12), ms(5)]
    yield "loop_of_heads", limits(), [(LINK, 0, 255, 3, 0), ms(5), *one_queue(bulk_out(), 3), (LINK, 0, 255, 3, 0), ms(9)]
    yield "loop_of_descriptors", limits(), [*one_queue(bulk_out(), 254, RING | CERR_0 | VF), (PORT, 0, 1), ms(9)]
    yield "long_schedule", limits(), [
        (QUEUE, 0, bulk_out(), 255, 0, CERR_0), (FRAMES, 1, 0), (PORT, 0, 1), ms(5), (LINK, 3, 200, 1, 5), ms(9)]
    yield "suspend", limits(), [
        *one_queue(bulk_in(), 9), (PORT, 0, 0x82), ms(4), (ACT, 0, 0, 5), (PORT, 0, 0x83), ms(4), (PORT, 0, 0x80), ms(4),
        (WRITE, 0, 1, 9), ms(4), (ACT, 0, 0, 5), (WRITE, 0, 1, 1), ms(4)]
    yield "registers", limits(), [
        *((WRITE, offset, length, 0xff, 0xff, 0xff, 0xff) for offset in range(0, 32, 3) for length in (0, 1, 3)),
        *((READ, offset, 3) for offset in range(32)), ms(3)]
    yield "configuration_space", limits(), [
        *((CONFIG, offset, 3, 0xff, 0xff, 0xff, 0xff) for offset in range(0, 256, 4)), (CONFIG, 4, 3, 5, 0, 0, 0),
        (CONFIG, 255, 0x83), ms(3)]
    yield "messages", limits(), [
        (START, 2), *one_queue(bulk_in(), 31), ms(4), (ACKNOWLEDGE, 1), (ACKNOWLEDGE,), (CONFIG, 4, 1, 1), ms(3),
        (CONFIG, 4, 1, 5), ms(3), (RESET, 0), ms(3)]
    yield "resets", limits(), [
        *one_queue(bulk_out(), 9), ms(1), (RESET, 3, 1), (START,), (PORT, 0, 0), ms(2), (RESET, 1), ms(2), (RESET, 0), ms(2)]
    yield "late", limits(), [*one_queue(bulk_out(), 90), (TIME, 200, 8, 3), ms(3), (TIME, 3, 14, 1), (READ, 6, 1), ms(4)]
    yield "straight_to_the_end", (0x80, *limits()[1:]), [(POLICY, 0, EVERY, HOLD, NEVER), *one_queue(bulk_out(), 60), ms(2)]
    yield "nothing_plugged", (0x40, *limits()[1:]), [(PLUG, 1, 0, 0), (START,), (PORT, 1, 0), *one_queue(bulk_in(), 5), ms(3)]


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, first, records in programs():
        program = b"".join(bytes([*record, *[0] * (8 - len(record))]) for record in [first, *records])
        (directory / f"seed-{name}").write_bytes(program)


if __name__ == "__main__":
    main()
