"""Where the two differ, and who is right: each difference with the section that decides.

"UHCI" is the UHCI Design Guide, revision 1.1; "USB" is the Universal Serial Bus Specification, revision
2.0; "BOT" is the Mass Storage Class Bulk-Only Transport, revision 1.0. Run as a program, this prints the
table of docs/conformance-uhci.md.
"""

import dataclasses
import fnmatch

from uhci import (ACTIVE, ACTLEN, BABBLE, CERR, ERROR, FGR, HALTED, HCPE, HSE, IOS, NAK, PE, PEC, RESUME, RS, STALLED,
                  TIMEOUT, USBINT)

ANY = None
STATUS = 0x00FE0000


@dataclasses.dataclass(frozen=True)
class See:
    """In a field (a pattern) the bits of `mask` are `qemu` there and `ours` here; ANY stands for any value.

    The bits of `given` are set in both. What is no number has no bits: its mask is 0.
    """

    field: str
    mask: int
    qemu: object
    ours: object
    given: int = 0

    def explains(self, field, qemu, ours):
        """The bits that it explains."""
        if not fnmatch.fnmatchcase(field, self.field):
            return 0
        if not (isinstance(qemu, int) and isinstance(ours, int)):
            return -1 if not self.mask and self.qemu in (ANY, qemu) and self.ours in (ANY, ours) else 0
        fits = (qemu & ours & self.given == self.given and self.qemu in (ANY, qemu & self.mask)
                and self.ours in (ANY, ours & self.mask))
        return self.mask if fits else 0


@dataclasses.dataclass(frozen=True)
class Known:
    what: str
    qemu: str  # in words
    ours: str
    decides: str
    programs: tuple  # patterns
    seen: tuple
    fault: bool = False  # ours, and still to be mended


def no_interrupt_here(bit=ERROR):
    return (See("USBSTS", bit, bit, 0), See("interrupt", 1, True, False))


def only_here(bit=ERROR):
    return (See("USBSTS", bit, 0, bit), See("interrupt", 1, False, True))


FAILED = STALLED | TIMEOUT  # and no longer active

# A descriptor that QEMU has served and we have not heard an answer to.
SILENT = (See("TD0.control", STATUS | CERR | ACTLEN, ANY, FAILED | ACTLEN), See("QH0.element", 0xFFFF, 1, 0x2000),
          *only_here())

KNOWN = (
    # Registers
    Known("PORTSC line status", "always 0: there are no wires", "shows which wire the device pulls up",
          "UHCI 2.1.7, bits 5:4; USB 7.1.5", ("*",), (See("*PORTSC*", 0x30, 0, ANY),)),
    Known("Reserved bits of USBCMD, USBINTR, SOFMOD, PORTSC", "can be written and read", "read as 0",
          "UHCI 2.1.1, 2.1.3, 2.1.6, 2.1.7",
          ("registers.*_reserved_bit*", "ports.reserved_bits"),
          (See("USBCMD*", 0xFF00, ANY, 0), See("USBINTR*", 0xFFF0, ANY, 0), See("SOFMOD*", 0x80, 0x80, 0),
           See("PORTSC*", 0xE000, ANY, 0))),
    Known("Over-current bits of PORTSC (PIIX3 and later)", "can be written and read", "read as 0: there never is any",
          "UHCI 2.1.7, bits 11:10: reserved", ("ports.over_current_bits",), (See("PORTSC*", 0x0C00, ANY, 0),)),
    Known("Writing 1 to HCHalted", "clears it, although the controller is halted", "does nothing",
          "UHCI 2.1.2, bit 5, is of two minds: the register's bits clear by writing 1, and this one says that "
          "the controller has stopped. Real controllers show the latter.",
          ("registers.usbsts_halted_bit",), (See("USBSTS*", HALTED, 0, HALTED),)),
    Known("Single bytes at odd offsets", "read as 7Fh, or as a port's low byte", "are the register's upper bytes",
          "UHCI 2.1: registers are wider than bytes, and a bus enables each byte", ("registers.high_bytes",),
          (See("byte * of *", 0xFF, ANY, ANY),)),
    Known("Writing a single byte of FRNUM or FRBASEADD", "is taken for the whole word; ignored at odd offsets",
          "changes that byte", "UHCI 2.1", ("registers.high_bytes",),
          (See("FR* after a write to its * byte", 0xFFFFFFFF, ANY, ANY),)),
    Known("Offsets of no register", "read as FF7Fh", "read as 0",
          "UHCI 2.1: reserved. A driver that counts ports stops where bit 7 is 0", ("registers.nothing_there",),
          (See("word at *", 0xFFFF, 0xFF7F, 0),)),
    Known("FRNUM after HCRESET", "keeps its value", "is 0", "UHCI 2.1.4: default value 0000h",
          ("registers.reset_values",), (See("FRNUM", 0x7FF, 0x155, 0),)),
    Known("GRESET", "is over when the write is", "stays until software clears it", "UHCI 2.1.1, bit 2",
          ("registers.greset_bit",), (See("in global reset", 4, 0, 4),)),
    Known("HCRESET of an enabled port", "is no change of Port Enable", "is one", "UHCI 2.1.1, bit 1",
          ("ports.host_reset_forgets_ports", "running.host_reset_with_work_queued"), (See("PORTSC1", PEC, 0, PEC),)),
    Known("Global suspend while running", "executes the schedule", "executes nothing",
          "UHCI 2.1.1, bit 3: no transactions occur", ("running.global_suspend_while_running",),
          (See("TD*.control", STATUS | ACTLEN, ANY, ACTIVE), See("TD1.data", 0, ANY, ANY),
           See("QH0.element", 0xFFFF, 1, 0x2000),
           *no_interrupt_here(USBINT))),
    Known("Port reset", "leaves the port enabled", "disables it", "UHCI 2.1.7, bit 9",
          ("ports.reset_an_enabled_port", "errors.a_port_in_reset"), (See("PORTSC1", PE, PE, 0),)),

    # Packets that get no answer
    Known("C_ERR counted down to 0", "the first failure is the last; Stalled is not set",
          "tried as often as C_ERR says, then Stalled", "UHCI 3.2.2, bits 28:27 and 22", ("*",),
          (See("TD*.control", STALLED | ACTIVE, 0, STALLED, given=TIMEOUT),)),
    Known("C_ERR of 0", "one failure, and the descriptor is retired", "tried again for ever, nothing reported",
          "UHCI 3.2.2, bits 28:27", ("descriptors.error_counter_of_0",),
          (See("TD0.control", ACTIVE, 0, ACTIVE, given=TIMEOUT), *no_interrupt_here())),
    Known("ActLen of a failed packet", "as software left it", "7FFh: nothing was transferred", "UHCI 3.2.2, bits 10:0",
          ("*",), (See("TD*.control", ACTLEN, ANY, ACTLEN, given=TIMEOUT),
                   See("TD*.control", ACTLEN, ANY, ACTLEN, given=STALLED))),
    Known("An endpoint that the device does not have", "is answered with STALL", "is not answered", "USB 8.3.2",
          ("errors.endpoint_nobody_has_*", "errors.bulk_*_where_there_is_only_*"),
          (See("TD0.control", STATUS | CERR, CERR | STALLED, FAILED),)),
    Known("SETUP to an endpoint that is no control endpoint", "is a process error", "is not answered",
          "UHCI 2.1.2, bit 4, and 3.2.3: only an illegal PID is; USB 8.3.2", ("control.a_setup_to_a_bulk_endpoint",),
          (See("TD0.control", STATUS | CERR | ACTLEN, CERR | ACTIVE, FAILED | ACTLEN), See("USBCMD", RS, 0, RS),
           See("USBSTS", HCPE | HALTED | ERROR, HCPE | HALTED, ERROR))),
    Known("LS in a descriptor for a full-speed device", "is ignored", "the device does not hear it",
          "UHCI 3.2.2, bit 26; USB 8.6.5", ("descriptors.low_speed_bit_for_a_full_speed_device",), SILENT),
    Known("A suspended port", "carries packets", "carries none", "UHCI 2.1.7, bits 12 and 2",
          ("errors.a_suspended_port",), SILENT),
    Known("A port that is disabled while a packet waits in it", "goes on carrying that one", "carries none",
          "UHCI 2.1.7, bit 2", ("plugging.disabled_while_asked",),
          (See("TD0.control", STATUS | CERR | ACTLEN, ANY, FAILED | ACTLEN),
           See("USBSTS", ERROR | USBINT, 0, ERROR | USBINT), See("interrupt", 1, False, True))),
    Known("A port in reset", "carries packets", "carries none", "UHCI 2.1.7, bit 9",
          ("errors.a_port_in_reset",), SILENT),
    Known("Isochronous IN that nobody answers", "clears C_ERR", "leaves C_ERR alone: there are no retries to count",
          "UHCI 3.2.2, bits 25 and 28:27", ("*",), (See("TD*.control", CERR, 0, ANY, given=TIMEOUT | IOS),)),
    Known("Isochronous OUT that nobody answers", "fails with a time-out",
          "succeeds: there is no handshake to miss", "USB 5.6.4, 8.5.5; UHCI 3.2.2, bit 25",
          ("errors.isochronous_*",),
          (See("TD*.control", TIMEOUT | CERR | ACTLEN, TIMEOUT, ANY), See("QH0.element", 0xFFFF, 0x2000, 1),
           *no_interrupt_here())),

    # Descriptors that make no sense, memory that is not there
    Known("MaxLen of 500h to 7FEh", "is not checked", "is a process error", "UHCI 3.2.3, bits 31:21",
          ("errors.illegal_length_*",),
          (See("USBSTS", ERROR, ERROR, 0), See("TD3.control", STATUS | CERR, TIMEOUT, CERR | ACTIVE),
           See("USBCMD", RS, RS, 0),
           See("USBSTS", HCPE | HALTED | ERROR, ERROR, HCPE | HALTED), See("USBSTS", ERROR | HALTED, ERROR, HALTED),
           See("interrupt", 1, True, False))),
    Known("Memory that is not there", "reads as 0, writes are lost; there is no host system error",
          "Host System Error, the controller halts; the descriptor stays active", "UHCI 2.1.2, bit 3",
          ("errors.unmapped_*",),
          (See("USBSTS", ERROR, ERROR, 0), See("USBCMD", RS, RS, 0),
           See("USBSTS", HSE | HALTED | ERROR, ANY, HSE | HALTED), See("USBSTS", HALTED | ERROR, ANY, HALTED),
           See("interrupt", 1, False, True), See("interrupt", 1, True, False),
           See("TD*.control", STATUS | ACTLEN, ANY, ACTIVE), See("QH0.element", 0xFFFF, ANY, ANY))),
    Known("Status of an earlier failure in a descriptor that succeeds", "stays, but for NAK", "is replaced",
          "UHCI 3.2.2, bits 23:16", ("descriptors.status_found_in_a_fresh_descriptor",),
          (See("TD*.control", STATUS & ~ACTIVE, ANY, 0),)),
    Known("NAK Received", "set when a device had nothing to say", "not set: a descriptor that waits is not written to",
          "UHCI 3.2.2, bit 19, is with QEMU. Drivers do not look, and not writing leaves their cache lines alone",
          ("plugging.*", "hubs.*", "keyboard.*", "random.*"),
          (See("TD*.control", NAK, NAK, 0, given=ACTIVE),)),
    Known("NAK of an earlier life in a descriptor that fails", "stays", "is replaced", "UHCI 3.2.2, bits 23:16",
          ("*",), (See("TD*.control", NAK, NAK, 0, given=TIMEOUT), See("TD*.control", NAK, NAK, 0, given=STALLED))),
    Known("Short packet detection outside of a queue", "is told to software", "is ignored",
          "UHCI 3.2.2, bit 29: undefined", ("descriptors.short_packet_detection_outside_of_a_queue",),
          no_interrupt_here(USBINT)),
    Known("A device that sends more than MaxLen", "sends less", "babble: Stalled, Babble Detected",
          "UHCI 3.2.2, bit 20, and 3.2.3, bits 31:21; USB 5.8.3",
          ("bulk.in_packets_shorter_than_the_endpoints",),
          (See("TD1.control", STATUS | ACTLEN, 0x1F, STALLED | BABBLE | ACTLEN),
           See("QH0.element", 0xFFFF, 1, 0x2014),
           See("TD2.control", STATUS | ACTLEN, 0x1F, ACTIVE), See("TD?.data", 0, ANY, ANY),
           See("USBSTS", USBINT | ERROR, USBINT, ERROR))),

    Known("Remote wakeup while globally suspended", "is noticed at ports that are suspended themselves",
          "is noticed at every port", "UHCI 2.1.1, bits 3 and 4; USB 7.1.7.7",
          ("plugging.woken_by_a_key_from_global_suspend",),
          (See("USBCMD", FGR, 0, FGR), See("USBSTS", RESUME, 0, RESUME), See("interrupt", 1, False, True))),

    # What USB says about devices, not UHCI about controllers
    Known("SETUP of a read that the device refuses", "is answered with STALL",
          "is acknowledged; the next stage is answered with STALL", "USB 8.4.6.4: a SETUP is always accepted; 8.5.3.4",
          ("control.get_a_descriptor_nobody_has", "control.get_status_of_an_endpoint_nobody_has",
           "control.a_vendors_request_in"),
          (See("TD0.control", STATUS | ACTLEN, STALLED, 7),
           See("TD1.control", STATUS | ACTLEN, ACTIVE, STALLED | ACTLEN),
           See("QH0.element", 0xFFFF, 0x2000, 0x2014))),
    Known("GET_STATUS of interface and endpoint", "is refused", "is answered", "USB 9.4.5",
          ("control.get_status_of_interface", "control.get_status_of_endpoint", "control.halted_by_a_feature"),
          (See("TD[04].control", STATUS | ACTLEN, STALLED, 7), See("TD[15].control", STATUS | ACTLEN, ACTIVE, 1),
           See("TD[26].control", STATUS | ACTLEN, ACTIVE, ACTLEN), See("QH0.element", 0xFFFF, ANY, 1),
           See("TD[15].data", 0, ANY, ANY), See("USBSTS", USBINT | ERROR, ERROR, USBINT),
           See("USBSTS", USBINT | ERROR, ERROR | USBINT, USBINT))),
    Known("SET_CONFIGURATION of one that there is not", "is accepted", "is refused", "USB 9.4.7",
          ("control.set_configuration_nobody_has",),
          (See("TD1.control", STATUS, 0, STALLED), See("QH0.element", 0xFFFF, 1, 0x2014),
           See("USBSTS", ERROR, 0, ERROR))),
    Known("SET_FEATURE(ENDPOINT_HALT)", "is refused", "halts the endpoint", "USB 9.4.9",
          ("control.halted_by_a_feature",),
          (See("TD1.control", STATUS | ACTLEN, STALLED, ACTLEN),)),
    Known("A port reset", "leaves the device configured", "deconfigures it", "USB 9.1.1.3, 9.1.1.5",
          ("control.a_reset_takes_the_address_away",),
          (See("TD9.data", 0, b"\1" + b"\xa5" * 8, b"\0" + b"\xa5" * 8),)),
    Known("An OUT that ends a read early", "is refused", "ends it",
          "USB 8.5.3: a change of direction begins the status", ("control.early_status",),
          (See("TD1.control", STATUS | ACTLEN, STALLED, ACTLEN), See("QH0.element", 0xFFFF, 0x2014, 1),
           See("USBSTS", ERROR, ERROR, 0), See("interrupt", 1, True, False))),
    Known("SETUP data of other than 8 bytes", "is answered with STALL", "is not answered", "USB 8.5.3, 8.4.6.4",
          ("control.a_setup_of_*_bytes",), (See("TD0.control", STATUS | CERR, CERR | STALLED, FAILED),)),
    Known("A bulk IN without a command", "is answered with STALL", "waits for one", "USB 8.4.6.1: no data yet is NAK",
          ("bulk.more_asked_of_the_bus_than_of_the_device",),
          (See("TD10.control", STATUS | ACTLEN, ANY, ACTIVE), See("USBSTS", USBINT | ERROR, USBINT | ERROR, 0),
           See("interrupt", 1, True, False))),
    Known("A command wrapper that is not valid", "is answered with STALL",
          "is accepted; the endpoints are halted from then on", "BOT 6.6.1: stall it, or accept and discard",
          ("bulk.a_wrapper_that_is_none", "bulk.a_wrapper_of_the_wrong_length", "bulk.recovered_by_reset",
           "bulk.zero_length_out"),
          (See("TD0.control", STATUS | ACTLEN, STALLED, ANY), See("QH0.element", 0xFFFF, 0x2000, 1),
           See("USBSTS", USBINT | ERROR, USBINT | ERROR, USBINT))),

    Known("C_PORT_ENABLE of a hub", "set when a port is enabled, and when its device goes",
          "never set: it tells of port errors, and there are none", "USB 11.24.2.7.2.2", ("hubs.*",),
          (See("port: *", 0x20000, 0x20000, 0),)),
)


def unexplained(program, field, qemu, ours):
    """Bits that differ and that no entry explains; and what the entries that explain the others are about."""
    numbers = isinstance(qemu, int) and isinstance(ours, int)
    differ = qemu ^ ours if numbers else -1
    used = set()
    for entry in KNOWN:
        if not any(fnmatch.fnmatchcase(program, pattern) for pattern in entry.programs):
            continue
        for see in entry.seen:
            explained = see.explains(field, qemu, ours)
            if differ & explained:
                differ &= ~explained
                used.add((entry.what, see))
    return differ, used


def table():
    """As it stands in docs/conformance-uhci.md."""
    rows = ["| what | QEMU | Bulkhead | decides |", "| --- | --- | --- | --- |"]
    for entry in sorted(KNOWN, key=lambda entry: entry.fault):
        what = f"**To be mended:** {entry.what}" if entry.fault else entry.what
        rows.append(f"| {what} | {entry.qemu} | {entry.ours} | {entry.decides} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
