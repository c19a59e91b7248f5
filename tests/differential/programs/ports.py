"""PORTSC: connecting, enabling, reset, suspend, resume."""

from programs import program
from uhci import CSC, EGSM, HCRESET, OC, OCC, PE, PEC, PORTSC1, PORTSC2, PR, RD, RS, SUSP, USBCMD


@program
def connected_after_reset(c):
    c.reset()
    yield "as it comes"
    c.write(PORTSC1, CSC)
    yield "change acknowledged"
    c.write(PORTSC1, CSC | PEC)
    yield "twice"


@program
def enable_and_disable(c):
    c.reset()
    c.write(PORTSC1, CSC)
    c.write(PORTSC1, PE)
    yield "enabled"
    c.write(PORTSC1, 0)
    yield "disabled"


@program
def enable_with_a_change_pending(c):
    c.reset()
    c.write(PORTSC1, PE)
    yield "change stays"
    c.write(PORTSC1, PE | CSC)
    yield "change acknowledged, still enabled"


@program
def enable_an_empty_port(c):
    c.reset()
    c.write(PORTSC2, PE)
    yield "nothing there"


@program
def read_only_bits(c):
    c.reset()
    c.write(PORTSC1, 0x01B1)
    yield "connected"
    c.write(PORTSC2, 0x01B1)
    yield "empty"
    c.write(PORTSC1, 0)
    c.write(PORTSC2, 0)
    yield "zeroes"


@program
def over_current_bits(c):
    c.reset()
    for bit in (OC, OCC):
        c.write(PORTSC1, bit)
        c.see(f"PORTSC1<-{bit:#x}", PORTSC1)
    yield "nothing"


@program
def reserved_bits(c):
    c.reset()
    for bit in range(13, 16):
        c.write(PORTSC1, 1 << bit)
        c.see(f"PORTSC1<-{1 << bit:#x}", PORTSC1)
    yield "nothing"


@program
def reset_a_port(c):
    c.reset()
    c.write(PORTSC1, CSC)
    c.write(PORTSC1, PR)
    yield "in reset"
    c.write(PORTSC1, 0)
    yield "out of it"
    c.write(PORTSC1, PE)
    yield "enabled"


@program
def reset_an_enabled_port(c):
    c.reset()
    c.write(PORTSC1, CSC | PE)
    yield "enabled"
    c.write(PORTSC1, PE | PR)
    yield "in reset"
    c.write(PORTSC1, 0)
    yield "out of it"


@program
def reset_an_empty_port(c):
    c.reset()
    c.write(PORTSC2, PR)
    yield "in reset"
    c.write(PORTSC2, 0)
    yield "out of it"


@program
def suspend_and_resume(c):
    c.reset()
    c.run()
    c.write(PORTSC1, CSC | PE)
    yield "enabled"
    c.write(PORTSC1, PE | SUSP)
    yield "suspended"
    c.write(PORTSC1, PE | SUSP | RD)
    yield "resuming"
    c.write(PORTSC1, PE)
    yield "resumed"


@program
def resume_ends_by_itself_being_cleared(c):
    c.reset()
    c.run()
    c.write(PORTSC1, CSC | PE)
    c.write(PORTSC1, PE | SUSP)
    c.write(PORTSC1, PE | SUSP | RD)
    c.write(PORTSC1, PE | SUSP)
    yield "resume cleared, suspend not"


@program
def suspend_a_disabled_port(c):
    c.reset()
    c.write(PORTSC1, SUSP)
    yield "disabled"


@program
def suspend_an_empty_port(c):
    c.reset()
    c.write(PORTSC2, SUSP)
    yield "empty"


@program
def resume_an_empty_port(c):
    c.reset()
    c.write(PORTSC2, RD)
    yield "empty"
    c.write(PORTSC2, 0)
    yield "cleared"


@program
def host_reset_forgets_ports(c):
    c.reset()
    c.run()
    c.write(PORTSC1, CSC | PE)
    yield "enabled"
    c.write(USBCMD, HCRESET)
    c.until(lambda: not c.read(USBCMD) & HCRESET, "end of HCRESET")
    c.forget()
    yield "reset"


@program
def stopping_keeps_ports(c):
    c.reset()
    c.run()
    c.write(PORTSC1, CSC | PE)
    c.write(USBCMD, 0)
    yield "stopped"
    c.write(USBCMD, RS)
    yield "started again"


@program
def global_suspend_of_an_idle_bus(c):
    c.reset()
    c.write(PORTSC1, CSC | PE)
    c.write(USBCMD, EGSM)
    yield "suspended"
    c.write(USBCMD, 0)
    yield "resumed"
    c.write(USBCMD, RS)
    yield "running"
