"""Runs a program on both controllers and says where they differ.

A program is a generator function of one argument, the controller. At each `yield` both are brought to
rest: time passes until nothing changes any more in either and they agree, or for as long as patience
lasts. What they then do not agree on is a difference, unless known.py has it.
"""

import dataclasses
import time

import known

PATIENCE = 1.5  # seconds without a change after which two that do not agree never will


@dataclasses.dataclass
class Difference:
    program: str
    where: str  # which yield
    field: str
    qemu: object
    ours: object
    unexplained: int

    def __str__(self):
        def show(value):
            return f"{value:#x}" if isinstance(value, int) and not isinstance(value, bool) else repr(value)

        return (f"{self.program}, {self.where}: {self.field}: QEMU {show(self.qemu)}, Bulkhead {show(self.ours)}"
                + (f", not explained: {self.unexplained:#x}" if isinstance(self.qemu, int) else ""))


class Comparison:
    """`used` collects what was needed of known.py, `ran` the names of the programs."""

    def __init__(self, qemu, ours, patience=PATIENCE):
        self.qemu, self.ours, self.patience = qemu, ours, patience
        self.used, self.ran = set(), set()

    def run(self, name, program):
        """The differences that nobody explains, [] for none."""
        self.ran.add(name)
        steps = [program(c) for c in (self.qemu, self.ours)]
        while True:
            where = [next(step, None) for step in steps]
            assert where[0] == where[1], f"{name} goes two ways: {where}"
            if where[0] is None:
                return []
            found = self.settle(name, where[0])
            if found:
                return found

    def settle(self, name, where):
        before, unchanged, changed_at = None, 0, 0
        while True:
            seen = []
            for c in (self.qemu, self.ours):
                c.pass_frames(c.LOOK)
                seen.append(c.observe_memory())
            unchanged += 1
            if seen != before:
                before, unchanged, changed_at = seen, 0, time.monotonic()
            expected = 6 if self.qemu.unfinished() or self.ours.unfinished() else 1
            late = time.monotonic() > changed_at + self.patience
            if unchanged < expected and not late:
                continue
            found = self.differences(name, where, *({**c.notes, **now, **c.observe_registers()}
                                                    for c, now in zip((self.qemu, self.ours), seen)))
            if not found or late:
                return found

    def differences(self, name, where, qemu, ours):
        found = []
        for field in [*qemu, *(field for field in ours if field not in qemu)]:
            a, b = qemu.get(field), ours.get(field)
            if a == b:
                continue
            left, used = known.unexplained(name, field, a, b)
            if left:
                found.append(Difference(name, where, field, a, b, left))
            else:
                self.used |= used
        return found
