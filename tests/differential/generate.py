"""Programs made at random, each from a number: schedules of many queues, and walks over the registers.

What they avoid is what no driver can count on: two queues for one endpoint, the order between queues,
data asked for before its command. Devices are asked for what both answer alike.
"""

import random

from controller import STRIDE
from programs.parts import (BULK_IN, NOBODY, attentive, command, control_packets, inquiry, read_blocks, read_capacity,
                            request, request_sense, write_blocks)
from programs.plugging import KEYBOARD, KEYS, keyboard
from uhci import (ACTIVE, CF, CSC, EGSM, END, FGR, FRBASEADD, FRNUM, IN, IOC, IOS, MAXP, NAK, OUT, PE, PEC, PORTSC1,
                  PORTSC2, PR, REGISTERS, RS, SETUP, SOFMOD, SPD, SWDBG, USBCMD, USBINTR, USBSTS)

RESERVED = (0, 0, 0xC0000000, 0x0001F800, 0xC001F800)
LAST_TD = 300


class Plan:
    """All decisions, made before either controller is touched, so that both get the same."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.numbers = list(range(LAST_TD))
        self.random.shuffle(self.numbers)

    def flag(self, bit, likely=0.2):
        return bit if self.random.random() < likely else 0

    def td(self, pid, length, endpoint=0, address=None, data=None, masked=False, flags=0, active=True):
        r = self.random
        number = self.numbers.pop()
        how = {"pid": pid, "length": length, "endpoint": endpoint, "data": data, "masked": masked,
               "flags": flags | (ACTIVE if active else 0) | self.flag(IOC, 0.15) | r.choice(RESERVED)
                        | self.flag(NAK, 0.1),
               "toggle": r.getrandbits(1), "cerr": r.randint(1, 3), "actlen": r.choice((0, 0x7FF, r.getrandbits(11))),
               "buffer": STRIDE * number + r.randrange(0x30)}
        if address is not None:
            how["address"] = address
        return number, how

    # Jobs: descriptors of one queue, in order

    def of_packets(self, packets, masked=False):
        return [self.td(pid, length, endpoint, data=data, masked=masked, flags=flags)
                for pid, length, endpoint, data, flags in packets]

    def control_job(self):
        r = self.random
        kind = r.randrange(6)
        if kind == 0:  # refused, and there it ends
            return self.of_packets(control_packets(request(0x40, 0x77)))
        setup, masked = r.choice(((request(0x80, 8, 0, 0, 1), False), (request(0x80, 6, 0x0100, 0, 18), True),
                                  (request(0x81, 10, 0, 0, 1), False), (request(0x80, 6, 0x0100, 0, 8), True),
                                  (request(0x80, 6, 0x0300, 0, 4), False)))
        if kind == 1:  # asks for more than there is; with SPD it stops there
            setup, masked = request(0x80, 6, r.choice((0x0100, 0x0200)), 0, 64), True
        return self.of_packets(control_packets(setup, spd=self.flag(SPD, 0.7)), masked)

    def bulk_job(self):
        r = self.random
        lba, count = r.randrange(1000), r.choice((1, 1, 1, 2, 3, 8))
        kind = r.randrange(6)
        if kind == 0:
            packets, masked = command(inquiry(), 36), True
        elif kind == 1:
            packets, masked = command(read_capacity(), 8), False
        elif kind == 2:
            packets, masked = command(request_sense(), 18), True
        elif kind == 3:
            packets, masked = command(write_blocks(lba, count), data=r.randbytes(512 * count)), False
        else:
            packets, masked = command(read_blocks(lba, count), 512 * count), False
        spd = self.flag(SPD, 0.5)
        packets = [(pid, length, endpoint, data, flags | (spd if pid == IN else 0))
                   for pid, length, endpoint, data, flags in packets]
        if kind < 3 and r.random() < 0.3:  # room for more than comes
            packets[1] = (IN, 64, *packets[1][2:])
        if r.random() < 0.3:
            packets[-1] = (IN, 64, BULK_IN, None, packets[-1][4])
        tds = self.of_packets(packets, masked)
        if masked:  # not the status
            tds[-1][1]["masked"] = False
        return tds

    def lost_job(self):
        r = self.random
        pid = r.choice((IN, OUT, SETUP))
        length = 8 if pid == SETUP else r.choice((0, 1, 8, 64))
        ios = self.flag(IOS, 0.2) if pid == IN else 0
        endpoint = 0 if pid == SETUP else r.randrange(16)
        return [self.td(pid, length, endpoint, r.choice((NOBODY, 0, 1, 127)), data=bytes(length), flags=ios)]

    def keys_job(self):
        return [self.td(IN, 8, KEYS, KEYBOARD) for _ in range(self.random.randint(1, 4))]

    def waiting_job(self):
        return [self.td(IN, 8, active=False, flags=self.flag(IOC, 0.3))]

    # Queues

    def queue(self, kind):
        r = self.random
        jobs = {"control": self.control_job, "bulk": self.bulk_job, "lost": self.lost_job, "waiting": self.waiting_job,
                "keys": self.keys_job}
        tds = []
        for _ in range(r.randint(1, {"control": 4, "bulk": 3}.get(kind, 2))):
            tds += jobs[kind]()
        if r.random() < 0.3:
            tds += self.waiting_job()
        depth = r.choice((0.0, 0.5, 1.0))
        return {"kind": kind, "tds": tds, "depth": [r.random() < depth for _ in tds], "nested": r.random() < 0.1}


def build_queue(c, tds, depths):
    """Links the descriptors; the link of the first."""
    following = [*tds[1:], None]
    for (number, how), after, depth in zip(tds, following, depths):
        c.td(number, END if after is None else c.to_td(after[0], depth), **how)
    return c.to_td(tds[0][0])


def schedule(seed, keys=False):
    """A schedule of some queues, then a few things a driver does next, with a look after each."""
    plan = Plan(seed)
    r = plan.random
    kinds = ["keys"] if keys else []
    kinds += r.sample(("control", "bulk"), r.randint(1, 2)) + r.choices(("lost", "waiting", "empty"), k=r.randint(0, 5))
    r.shuffle(kinds)
    queues = [plan.queue(kind) if kind != "empty" else {"kind": kind} for kind in kinds]
    prelude = [plan.td(r.choice((IN, OUT)), 8, 1, NOBODY, active=r.random() < 0.5)
               for _ in range(r.choice((0, 0, 1, 3)))]
    back = r.randrange(len(queues)) if r.random() < 0.4 else None
    frames = r.choice((1, 1, 2, 4))
    steps = []
    for _ in range(r.randint(1, 3)):
        kind = r.choice(("acknowledge", "interrupts", "more", "help", "stop", "again", "nothing"))
        if keys and r.random() < 0.6:
            kind = "type"
        value = None
        if kind == "interrupts":
            value = r.randrange(16)
        elif kind == "again":
            value = r.randint(1, 3)
        elif kind == "more":
            value = [plan.queue(q["kind"]) if q["kind"] not in ("waiting", "empty") else None for q in queues]
        elif kind == "type":
            value = r.sample("abcdefgh", r.randint(1, 2))
        steps.append((kind, value))

    def heads():
        """The queue heads that descriptors hang in."""
        return [2 * i + bool(queue.get("nested")) for i, queue in enumerate(queues)]

    def build(c):
        for i, (queue, head) in enumerate(zip(queues, heads())):
            after = c.to_qh(2 * i + 2) if i + 1 < len(queues) else END if back is None else c.to_qh(2 * back)
            c.qh(head, after, END if queue["kind"] == "empty" else build_queue(c, queue["tds"], queue["depth"]))
            if queue.get("nested"):
                c.qh(2 * i, END, c.to_qh(head))
        entry = c.to_qh(0)
        for number, how in prelude:
            c.td(number, entry, **how)
            entry = c.to_td(number)
        return entry

    def act(c, step, value):
        if step == "acknowledge":
            c.write(USBSTS, 0x1F)
        elif step == "interrupts":
            c.write(USBINTR, value)
        elif step == "more":
            for queue, head, fresh in zip(queues, heads(), value):
                if fresh and (queue["kind"] not in ("bulk", "keys") or c.first_of(head) is None):
                    c.element(head, build_queue(c, fresh["tds"], fresh["depth"]))
        elif step == "type":
            for key in value:
                c.press(key)
            for key in value:
                c.let_go(key)
        elif step == "help":  # past what stopped the queue
            for head in heads():
                stuck = c.first_of(head)
                if stuck is not None and not c.control_word(stuck) & ACTIVE:
                    c.element(head, c.descriptors[stuck][0])
        elif step == "stop":
            c.write(USBCMD, 0)
            c.until(lambda: not c.running(), "halt")
            c.write(USBCMD, RS)
        elif step == "again":
            for queue in queues:
                if queue["kind"] == "lost":
                    number, how = queue["tds"][0]
                    c.put_control_word(number, how["flags"] | value << 27 | how["actlen"])

    def run(c):
        attentive(c)
        if keys:
            keyboard(c)
        c.frame(build(c), range(0, 1024, frames))
        yield "schedule"
        for i, (step, value) in enumerate(steps):
            act(c, step, value)
            yield f"{step}, step {i}"

    run.plan = {"queues": queues, "prelude": prelude, "ring": back, "every so many frames": frames, "steps": steps}
    return run


def registers(seed):
    """A walk over the registers of a halted controller."""
    r = random.Random(seed)
    writes = []
    for _ in range(r.randint(5, 25)):
        writes.append(r.choice((
            (USBCMD, 2, r.choice((0, CF, MAXP, SWDBG, EGSM, EGSM | FGR, CF | MAXP))),
            (USBSTS, 2, r.getrandbits(5)),
            (USBINTR, 2, r.getrandbits(4)),
            (FRNUM, 2, r.getrandbits(16)),
            (FRBASEADD, 4, r.getrandbits(32)),
            (FRBASEADD, 2, r.getrandbits(16)),
            (FRBASEADD + 2, 2, r.getrandbits(16)),
            (SOFMOD, r.choice((1, 2)), r.getrandbits(7)),
            (PORTSC1, 2, r.choice((0, PE, CSC, PEC, PE | CSC, PE | CSC | PEC, PR, PR | CSC))),
            (PORTSC2, 2, r.choice((0, PE, CSC, PEC, PE | CSC, PR, PR | CSC))),
            (USBCMD, 4, r.choice((0, CF, MAXP)) | r.getrandbits(5) << 16),
            (USBINTR, 4, r.getrandbits(4) | r.getrandbits(11) << 16))))

    def run(c):
        c.reset()
        for i, (register, size, value) in enumerate(writes):
            c.write(register, value, size)
            for name, (at, width) in REGISTERS.items():
                c.see(f"{i}: {value:#x} to {register:#x}: {name}", at, width)
        c.write(FRBASEADD, 0, 4)
        yield "halted"

    run.plan = {"writes": writes}
    return run


def of_seed(seed):
    return registers(seed) if seed % 5 == 4 else schedule(seed, keys=seed % 5 == 3)
