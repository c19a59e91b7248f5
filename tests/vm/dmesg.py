"""What a guest's kernel says, and which of it a healthy run never says.

The guest's script prefixes its messages, as MESSAGES has it; complaints() finds the bad ones. Where
nothing at all is to be warned of, the script ends with WARNINGS, and warnings() finds those.
"""

import re

# For a guest's script. messages PART: what the kernel said since the last time, as lines "PART ...".
MESSAGES = """
messages() {
    echo "end of $1" >/dev/kmsg # something is there in any case
    dmesg -c | sed "s/^/$1 /"
}
"""

# For the end of a guest's script. Warnings, and what is worse.
WARNINGS = """
dmesg -r | grep '^<[0-4]>' | sed 's/^/DM /'
say dmesg=done
"""

# The host had other things to do; that is no word about us.
SLOW = re.compile(r"hrtimer: interrupt took|perf: interrupt took too long|hogged CPU for|clocksource: |"
                  r"8254 timer not connected")

# Lines about the machine itself are none of our business.
BAD = re.compile(r"error|fail|timed out|timeout|reset|stall|babble|halted|corrupt|not respond|"
                 r"nobody cared|unable|cannot|bug:|warning:|oops|call trace|hc died", re.I)
OURS = re.compile(r"usb|uhci|cdc_acm|\btty|\bhid|\binput|scsi|\bsd[ a-z]|storage|i/o|ext[24]|fat|irq \d|"
                  r"bug:|warning:|oops|call trace", re.I)

# A device that goes away under its driver: what was asked of it fails, and it cannot be told to
# flush any more (it was, before). Of a controller that goes away usb-storage may hear a moment before
# it hears that its disk is gone, and tries in vain to reset that (-108: ESHUTDOWN).
UNPLUGGED = re.compile(r"Synchronize Cache\(10\) failed: Result: hostbyte=DID_(NO_CONNECT|ERROR)|"
                       r"hostbyte=DID_(NO_CONNECT|ERROR)|I/O error, dev sd[a-z]|"
                       r"\[sd[a-z]\] tag#\d+ (UNKNOWN|FAILED)|device offline error|"
                       r"rejecting I/O to (offline|dead) device|"
                       r"usb\d+-port\d: (cannot (reset|disable) \(err = -108\)|Cannot enable\.)")


def complaints(lines, part, expected=None):
    """The bad lines of a part of the log, which has to be there."""
    said = [line for line in lines if line.startswith(part + " ")]
    assert any(line.endswith(f"end of {part}") for line in said), f"{part}: the kernel's log is not whole"
    return [line for line in said
            if BAD.search(line) and OURS.search(line) and not (expected and expected.search(line))]


def warnings(lines):
    """What the kernel warned of; to be trusted where the guest has said "dmesg=done"."""
    return [line for line in lines if line.startswith("DM ") and not SLOW.search(line)]
