"""Registers: values after reset, what can be written, what clears by writing 1, sizes of accesses."""

import time

from programs import program
from uhci import (CF, EGSM, FGR, FRBASEADD, FRNUM, GRESET, HALTED, HCRESET, MAXP, ON_CRC, ON_IOC, ON_RESUME,
                  ON_SHORT, REGISTERS, RS, SOFMOD, SWDBG, USBCMD, USBINTR, USBSTS)


@program
def reset_values(c):
    c.reset()
    c.write(FRNUM, 0x155)
    c.write(USBCMD, HCRESET)
    c.until(lambda: not c.read(USBCMD) & HCRESET, "end of HCRESET")
    c.forget()
    c.see("FRNUM", FRNUM)
    yield "after HCRESET"


@program
def reset_clears_everything(c):
    c.reset()
    c.run()
    c.write(FRBASEADD, 0x00ABC000, 4)
    c.write(SOFMOD, 0x23, 1)
    yield "set"
    c.write(USBCMD, HCRESET)
    c.until(lambda: not c.read(USBCMD) & HCRESET, "end of HCRESET")
    yield "cleared"


def bits(c, name, width, restore=None):
    """Each bit alone is written and read back, then all of them, and none."""
    register, size = REGISTERS[name]
    for value in [1 << bit for bit in range(width)] + [(1 << width) - 1, 0]:
        c.write(register, value, size)
        c.see(f"{name}<-{value:#x}", register, size)


@program
def usbcmd_bits(c):
    c.reset()
    for value in (EGSM, FGR, SWDBG, CF, MAXP, EGSM | FGR, CF | MAXP | SWDBG, 0):
        c.write(USBCMD, value)
        c.see(f"USBCMD<-{value:#x}", USBCMD)
    yield "halted"


@program
def usbcmd_reserved_bits(c):
    c.reset()
    for bit in range(8, 16):
        c.write(USBCMD, 1 << bit)
        c.see(f"USBCMD<-{1 << bit:#x}", USBCMD)
    yield "halted"


@program
def usbintr_bits(c):
    c.reset()
    for value in (ON_CRC, ON_RESUME, ON_IOC, ON_SHORT, 0xF, 0):
        c.write(USBINTR, value)
        c.see(f"USBINTR<-{value:#x}", USBINTR)
    yield "halted"


@program
def usbintr_reserved_bits(c):
    c.reset()
    for bit in range(4, 16):
        c.write(USBINTR, 1 << bit)
        c.see(f"USBINTR<-{1 << bit:#x}", USBINTR)
    yield "halted"


@program
def usbsts_takes_no_ones(c):
    c.reset()
    for bit in [*range(5), *range(6, 16)]:
        c.write(USBSTS, 1 << bit)
        c.see(f"USBSTS<-{1 << bit:#x}", USBSTS)
    yield "halted"


@program
def usbsts_halted_bit(c):
    c.reset()
    c.write(USBSTS, HALTED)
    c.see("USBSTS<-0x20", USBSTS)
    c.write(USBCMD, RS)
    c.see("running", USBSTS)
    c.write(USBCMD, 0)
    yield "halted again"


@program
def frnum_bits(c):
    c.reset()
    bits(c, "FRNUM", 16)
    yield "halted"


@program
def frnum_stands_while_halted(c):
    c.reset()
    c.write(FRNUM, 0x123)
    yield "written"
    c.see("still", FRNUM)
    yield "halted"


@program
def frnum_is_locked_while_running(c):
    c.reset()
    c.write(FRNUM, 0x100)
    began = time.monotonic()
    c.run()
    c.write(FRNUM, 0x700)
    passed = c.read(FRNUM) - 0x100
    c.note("not taken over", passed <= 1000 * (time.monotonic() - began) + 5)
    c.write(USBCMD, 0)
    yield "halted"


@program
def frnum_goes_on_and_wraps(c):
    c.reset()
    c.write(FRNUM, 0x7FE)
    c.run()
    c.pass_frames(4)
    c.note("wrapped", c.read(FRNUM) < 0x7FE)
    c.write(USBCMD, 0)
    yield "halted"
    kept = c.read(FRNUM)
    c.pass_frames(2)
    c.note("kept", c.read(FRNUM) == kept)
    c.write(USBCMD, RS)
    c.pass_frames(1)
    c.note("goes on from there", 0 < (c.read(FRNUM) - kept) % 2048 < 0x7F0)
    c.write(USBCMD, 0)
    yield "halted again"


@program
def frbaseadd_bits(c):
    c.reset()
    bits(c, "FRBASEADD", 32)
    yield "halted"


@program
def frbaseadd_by_halves(c):
    c.reset()
    c.write(FRBASEADD, 0xFFFFFFFF, 4)
    c.write(FRBASEADD, 0, 2)
    c.see("low half", FRBASEADD, 4)
    c.write(FRBASEADD + 2, 0x1234, 2)
    c.see("high half", FRBASEADD, 4)
    c.write(FRBASEADD, 0xABCD, 2)
    c.see("low half again", FRBASEADD, 4)
    c.see("read low", FRBASEADD, 2)
    c.see("read high", FRBASEADD + 2, 2)
    yield "halted"


@program
def sofmod_bits(c):
    c.reset()
    bits(c, "SOFMOD", 7)
    c.write(SOFMOD, 0x40, 1)
    yield "halted"


@program
def sofmod_reserved_bit(c):
    c.reset()
    c.write(SOFMOD, 0x80, 1)
    c.see("SOFMOD<-0x80", SOFMOD, 1)
    c.write(SOFMOD, 0x40, 1)
    yield "halted"


@program
def words_by_two(c):
    """A doubleword is two registers."""
    c.reset()
    c.write(USBCMD, (CF | MAXP) | 0x1F << 16, 4)
    c.see("USBCMD and USBSTS", USBCMD, 4)
    c.write(USBINTR, 0x5 | 0x321 << 16, 4)
    c.see("USBINTR and FRNUM", USBINTR, 4)
    c.write(SOFMOD, 0x33, 2)
    c.see("SOFMOD as a word", SOFMOD, 2)
    c.see("PORTSC1 and PORTSC2", 0x10, 4)
    yield "halted"


@program
def low_bytes(c):
    """The low byte of each register by itself; what a write does to the other half is in high_bytes."""
    c.reset()
    for name in ("USBCMD", "USBSTS", "USBINTR", "FRNUM", "SOFMOD", "PORTSC1", "PORTSC2"):
        c.see(f"low byte of {name}", REGISTERS[name][0], 1)
    c.write(USBINTR, 0xA, 1)
    c.see("USBINTR", USBINTR)
    c.write(USBCMD, CF, 1)
    c.see("USBCMD", USBCMD)
    yield "halted"


@program
def high_bytes(c):
    c.reset()
    c.write(FRNUM, 0x765)
    c.write(FRBASEADD, 0x12345000, 4)
    for name, (register, size) in REGISTERS.items():
        for byte in range(1, size):
            c.see(f"byte {byte} of {name}", register + byte, 1)
    c.write(FRNUM, 0x21, 1)
    c.see("FRNUM after a write to its low byte", FRNUM)
    c.write(FRNUM + 1, 0x3, 1)
    c.see("FRNUM after a write to its high byte", FRNUM)
    c.write(FRBASEADD + 1, 0xA0, 1)
    c.see("FRBASEADD after a write to its second byte", FRBASEADD, 4)
    c.write(FRBASEADD + 2, 0xBB, 1)
    c.see("FRBASEADD after a write to its third byte", FRBASEADD, 4)
    c.write(FRNUM, 0)
    c.write(FRBASEADD, 0, 4)
    yield "halted"


@program
def nothing_there(c):
    """Offsets of no register; a driver counts ports by bit 7 of what it reads there."""
    c.reset()
    for offset in (0x0E, 0x14, 0x16, 0x18, 0x1A, 0x1C, 0x1E):
        c.see(f"word at {offset:#x}", offset)
        c.write(offset, 0xFFFF)
        c.note(f"still the same at {offset:#x}", c.read(offset) == c.notes[f"word at {offset:#x}"])
    yield "halted"


@program
def greset_bit(c):
    c.reset()
    c.write(USBINTR, 0xF)
    c.write(USBCMD, GRESET)
    c.see("in global reset", USBCMD)
    c.write(USBCMD, 0)
    yield "after it"
