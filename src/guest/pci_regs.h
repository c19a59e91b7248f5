/*
 * PCI configuration space: PCI Local Bus Specification 3.0, 6.1 (header) and 6.8
 * (MSI). Offsets, then bits.
 */
#ifndef GUEST_PCI_REGS_H
#define GUEST_PCI_REGS_H

#define PCI_VENDOR_ID            0x00u /* ro 16 */
#define PCI_DEVICE_ID            0x02u /* ro 16 */
#define PCI_COMMAND              0x04u /* rw 16 */
#define  PCI_COMMAND_IO          0x0001u
#define  PCI_COMMAND_MEMORY      0x0002u
#define  PCI_COMMAND_MASTER      0x0004u
#define  PCI_COMMAND_PARITY      0x0040u
#define  PCI_COMMAND_SERR        0x0100u
#define  PCI_COMMAND_INTX_OFF    0x0400u
#define PCI_STATUS               0x06u /* ro, rw1c 16 */
#define  PCI_STATUS_INTERRUPT    0x0008u
#define  PCI_STATUS_CAPABILITIES 0x0010u
#define  PCI_STATUS_DEVSEL       0x0200u /* medium */
#define  PCI_STATUS_ERRORS       0xf900u /* rw1c */
#define PCI_REVISION_ID          0x08u /* ro 8 */
#define PCI_CLASS_CODE           0x09u /* ro 24 */
#define PCI_CACHE_LINE_SIZE      0x0cu /* rw 8 */
#define PCI_LATENCY_TIMER        0x0du /* rw 8 */
#define PCI_BAR0                 0x10u /* rw 32, six of them */
#define  PCI_BAR_IO              0x1u
#define PCI_SUBSYSTEM_VENDOR     0x2cu /* ro 16 */
#define PCI_SUBSYSTEM            0x2eu /* ro 16 */
#define PCI_CAPABILITIES         0x34u /* ro 8 */
#define PCI_INTERRUPT_LINE       0x3cu /* rw 8 */
#define PCI_INTERRUPT_PIN        0x3du /* ro 8 */

/* MSI capability, one vector, 64-bit address, no masking: offsets in it (6.8.1). */
#define PCI_MSI_ID               0x00u /* ro 8: 5 */
#define  PCI_MSI_ID_VALUE        0x05u
#define PCI_MSI_NEXT             0x01u /* ro 8 */
#define PCI_MSI_CONTROL          0x02u /* rw 16 */
#define  PCI_MSI_CONTROL_ENABLE  0x0001u
#define  PCI_MSI_CONTROL_64      0x0080u
#define PCI_MSI_ADDRESS          0x04u /* rw 32, bits 1:0 zero */
#define PCI_MSI_ADDRESS_HIGH     0x08u /* rw 32 */
#define PCI_MSI_DATA             0x0cu /* rw 16 */

#endif
