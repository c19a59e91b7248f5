/*
 * UHCI registers and data structures, in the order of the design guide
 * (Universal Host Controller Interface Design Guide, revision 1.1).
 * Access: RO read-only, RW read and write, RWC writing 1 clears.
 */
#ifndef UHCI_UHCI_REGS_H
#define UHCI_UHCI_REGS_H

/* 2.1.1 USBCMD, 00-01h, RW */
#define USBCMD            0x00
#define   USBCMD_RS       0x0001u /* run/stop */
#define   USBCMD_HCRESET  0x0002u /* host controller reset; clears itself */
#define   USBCMD_GRESET   0x0004u /* global reset */
#define   USBCMD_EGSM     0x0008u /* enter global suspend mode */
#define   USBCMD_FGR      0x0010u /* force global resume; also set by a resume event */
#define   USBCMD_SWDBG    0x0020u /* software debug; no effect here */
#define   USBCMD_CF       0x0040u /* configure flag; for software's own use */
#define   USBCMD_MAXP     0x0080u /* 64-byte packets may be started late in a frame; no effect here */

/* 2.1.2 USBSTS, 02-03h, RWC */
#define USBSTS            0x02
#define   USBSTS_USBINT   0x0001u /* IOC or short packet */
#define   USBSTS_ERROR    0x0002u /* a transaction failed */
#define   USBSTS_RD       0x0004u /* resume detected */
#define   USBSTS_HSE      0x0008u /* host system error: PCI access failed */
#define   USBSTS_HCPE     0x0010u /* host controller process error: bad descriptor */
#define   USBSTS_HCH      0x0020u /* halted; RO, whatever the guide says: it is not latched */

/* 2.1.3 USBINTR, 04-05h, RW */
#define USBINTR           0x04
#define   USBINTR_CRC     0x0001u /* time-out/CRC: USBSTS_ERROR */
#define   USBINTR_RESUME  0x0002u
#define   USBINTR_IOC     0x0004u
#define   USBINTR_SHORT   0x0008u

/* 2.1.4 FRNUM, 06-07h, RW while halted */
#define FRNUM             0x06
#define   FRNUM_MASK      0x07ffu

/* 2.1.5 FRBASEADD, 08-0Bh, RW */
#define FRBASEADD         0x08
#define   FRBASEADD_MASK  0xfffff000u
#define   FRAME_LIST_SIZE 1024u

/* 2.1.6 SOFMOD, 0Ch, RW: the length of a frame; no effect here */
#define SOFMOD            0x0c
#define   SOFMOD_MASK     0x7fu
#define   SOFMOD_RESET    0x40u

/* 2.1.7 PORTSC, 10-11h for port 1, and so on */
#define PORTSC            0x10
#define   PORTSC_CCS      0x0001u /* RO  connected */
#define   PORTSC_CSC      0x0002u /* RWC connect status changed */
#define   PORTSC_PE       0x0004u /* RW  enabled */
#define   PORTSC_PEC      0x0008u /* RWC enable changed, by a disconnect */
#define   PORTSC_DP       0x0010u /* RO  D+ */
#define   PORTSC_DM       0x0020u /* RO  D- */
#define   PORTSC_RD       0x0040u /* RW  resume */
#define   PORTSC_ONE      0x0080u /* RO  always 1; how drivers count ports */
#define   PORTSC_LSDA     0x0100u /* RO  low-speed device attached */
#define   PORTSC_PR       0x0200u /* RW  reset */
#define   PORTSC_OC       0x0400u /* RO  over-current (PIIX and later): never */
#define   PORTSC_OCC      0x0800u /* RWC over-current changed: never */
#define   PORTSC_SUSP     0x1000u /* RW  suspend */

#define UHCI_BAR          4u
#define UHCI_BAR_SIZE     32u

/* 3.1 frame list pointer, 3.3 queue head links, 3.2.1 TD link pointer */
#define LINK_T            0x1u /* terminate */
#define LINK_Q            0x2u /* points at a queue head */
#define LINK_VF           0x4u /* TD: depth first */
#define LINK_ADDRESS      0xfffffff0u

/* 3.2.2 TD control and status */
#define TD_CONTROL        4u /* offset of the word */
#define   TD_ACTLEN       0x000007ffu /* bytes - 1 */
#define   TD_BITSTUFF     0x00020000u
#define   TD_CRC_TIMEOUT  0x00040000u
#define   TD_NAK          0x00080000u
#define   TD_BABBLE       0x00100000u
#define   TD_BUFFER_ERROR 0x00200000u
#define   TD_STALLED      0x00400000u
#define   TD_ACTIVE       0x00800000u
#define   TD_IOC          0x01000000u
#define   TD_IOS          0x02000000u /* isochronous */
#define   TD_LS           0x04000000u /* low speed */
#define   TD_CERR         0x18000000u /* errors left; 0: no limit */
#define   TD_CERR_ONE     0x08000000u
#define   TD_SPD          0x20000000u
#define   TD_STATUS       (TD_BITSTUFF | TD_CRC_TIMEOUT | TD_NAK | TD_BABBLE | TD_BUFFER_ERROR | TD_STALLED)

/* 3.2.3 TD token */
#define TD_TOKEN_PID(t)      ((t) & 0xffu)
#define TD_TOKEN_ADDRESS(t)  ((t) >> 8 & 0x7fu)
#define TD_TOKEN_ENDPOINT(t) ((t) >> 15 & 0xfu)
#define TD_TOKEN_TOGGLE(t)   ((t) >> 19 & 1u)
#define TD_TOKEN_MAXLEN(t)   ((t) >> 21 & 0x7ffu) /* bytes - 1; 7FFh: none */
#define   TD_MAXLEN_LIMIT    0x4ffu               /* 500h to 7FEh are illegal */

#define TD_NO_BYTES       0x7ffu /* MaxLen and ActLen of nothing */

#endif
