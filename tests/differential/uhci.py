"""The UHCI Design Guide 1.1 as far as a driver needs it: registers, links, descriptors."""

USBCMD, USBSTS, USBINTR, FRNUM, FRBASEADD, SOFMOD, PORTSC1, PORTSC2 = 0, 2, 4, 6, 8, 0xC, 0x10, 0x12
REGISTERS = {"USBCMD": (USBCMD, 2), "USBSTS": (USBSTS, 2), "USBINTR": (USBINTR, 2), "FRNUM": (FRNUM, 2),
             "FRBASEADD": (FRBASEADD, 4), "SOFMOD": (SOFMOD, 1), "PORTSC1": (PORTSC1, 2), "PORTSC2": (PORTSC2, 2)}

RS, HCRESET, GRESET, EGSM, FGR, SWDBG, CF, MAXP = (1 << bit for bit in range(8))  # USBCMD
USBINT, ERROR, RESUME, HSE, HCPE, HALTED = (1 << bit for bit in range(6))  # USBSTS
ON_CRC, ON_RESUME, ON_IOC, ON_SHORT = (1 << bit for bit in range(4))  # USBINTR
CCS, CSC, PE, PEC, DPLUS, DMINUS, RD, ONE, LSDA, PR, OC, OCC, SUSP = (1 << bit for bit in range(13))  # PORTSC

END, QUEUE, DEPTH = 1, 2, 4  # T, Q and Vf of a link

ACTLEN = 0x7FF
BITSTUFF, TIMEOUT, NAK, BABBLE, BUFFER, STALLED, ACTIVE, IOC, IOS, LS = (1 << bit for bit in range(17, 27))
CERR = 3 << 27
SPD = 1 << 29
OUT, IN, SETUP = 0xE1, 0x69, 0x2D

NOTHING = 0x7FF  # MaxLen and ActLen of no bytes


def token(pid, address, endpoint, length, toggle=0):
    return pid | address << 8 | endpoint << 15 | toggle << 19 | (length - 1 & NOTHING) << 21
