"""The PCI function: what a driver finds it by, and what it writes there."""

from controller import COMMAND_IO, COMMAND_MASTER, CONFIG_BAR4, CONFIG_COMMAND
from programs import program

SBRN, LEGSUP = 0x60, 0xC0


def look(c, label, offset, size):
    c.note(label, c.qtest.config_get(c.slot, offset, size))


@program
def identity(c):
    c.reset()
    look(c, "vendor and device", 0x00, 4)
    look(c, "revision and class", 0x08, 4)
    look(c, "header type", 0x0E, 1)
    look(c, "release number of the bus", SBRN, 1)
    look(c, "no ROM", 0x30, 4)
    c.note("there is an interrupt pin", 1 <= c.qtest.config_get(c.slot, 0x3D, 1) <= 4)
    yield "halted"


@program
def size_of_the_register_block(c):
    c.reset()
    kept = c.qtest.config_get(c.slot, CONFIG_BAR4, 4)
    for number in range(6):
        at = 0x10 + 4 * number
        before = c.qtest.config_get(c.slot, at, 4)
        c.qtest.config_put(c.slot, at, 4, 0xFFFFFFFF)
        look(c, f"BAR{number} with all ones", at, 4)
        c.qtest.config_put(c.slot, at, 4, before)
    c.note("put back", c.qtest.config_get(c.slot, CONFIG_BAR4, 4) == kept)
    yield "halted"


@program
def registers_behind_the_command_register(c):
    """Without I/O Space Enable nobody answers there."""
    c.reset()
    c.qtest.config_put(c.slot, CONFIG_COMMAND, 2, COMMAND_MASTER)
    c.see("disabled", 0x0C, 1)
    c.qtest.config_put(c.slot, CONFIG_COMMAND, 2, COMMAND_IO | COMMAND_MASTER)
    c.see("enabled", 0x0C, 1)
    look(c, "command", CONFIG_COMMAND, 2)
    yield "halted"


@program
def registers_moved(c):
    c.reset()
    c.qtest.config_put(c.slot, CONFIG_BAR4, 4, c.io + 0x1000)
    c.note("there", c.qtest.get(c.io + 0x1000 + 0x0C, 1))
    c.see("not here", 0x0C, 1)
    c.qtest.config_put(c.slot, CONFIG_BAR4, 4, c.io)
    c.see("back", 0x0C, 1)
    yield "halted"


@program
def legacy_support(c):
    """A driver takes the controller from the firmware by writing here; it needs no answer."""
    c.reset()
    c.qtest.config_put(c.slot, LEGSUP, 2, 0x8F00)
    yield "status cleared"
    c.qtest.config_put(c.slot, LEGSUP, 2, 0x2000)
    yield "taken over"
