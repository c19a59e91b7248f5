/*
 * A PCI function: its 256 bytes of configuration space with BARs that can be
 * sized, its interrupts (INTx, and MSI with one vector), and the accesses a
 * client makes to it. PCI Local Bus Specification 3.0, chapter 6.
 *
 * The controller embeds one and implements struct bh_pci_ops; whoever talks to
 * the client (vfio_user, a test) calls the functions below and knows nothing of
 * the controller.
 */
#ifndef GUEST_PCI_H
#define GUEST_PCI_H

#include <guest/guest.h>

#define BH_PCI_CONFIG_SIZE 256u
#define BH_PCI_BARS        6u

struct bh_pci;

struct bh_pci_ops {
	/*
	 * An access inside a BAR: offset + length <= the BAR's size, length 1, 2 or
	 * 4, and offset a multiple of length. Longer or unaligned accesses come in
	 * pieces. Values are host order.
	 */
	uint32_t (*bar_read)(struct bh_pci *p, unsigned bar, uint32_t offset, unsigned length);
	void (*bar_write)(struct bh_pci *p, unsigned bar, uint32_t offset, unsigned length, uint32_t value);
	/* Function reset: every register to its power-on value. Interrupts are low afterwards. */
	void (*reset)(struct bh_pci *p);
	/* COMMAND or guest memory changed: perhaps DMA is possible now, or no longer. */
	void (*dma_changed)(struct bh_pci *p);
};

struct bh_pci_bar {
	uint32_t size; /* bytes, a power of two; 0: not there */
	bool io;
};

/* What a function is; constant, shared. */
struct bh_pci_identity {
	uint16_t vendor, device;
	uint16_t subsystem_vendor, subsystem;
	uint32_t class_code; /* base class, sub-class, programming interface: 0x0c0300 */
	uint8_t revision;
	uint8_t interrupt_pin; /* 1: INTA# */
	bool msi;
	struct bh_pci_bar bars[BH_PCI_BARS];
};

struct bh_pci {
	/* configuration */
	const struct bh_pci_ops *ops;
	const struct bh_pci_identity *identity;
	struct bh_guest *guest;
	uint8_t writable[BH_PCI_CONFIG_SIZE]; /* bits a write may change */
	uint8_t clear[BH_PCI_CONFIG_SIZE];    /* bits that writing 1 clears */
	uint8_t initial[BH_PCI_CONFIG_SIZE];
	unsigned msi_offset; /* of the capability; 0: none */

	/* state */
	uint8_t config[BH_PCI_CONFIG_SIZE];
	bool asserted; /* the function wants an interrupt */
	bool line;     /* what interrupt_level was last told */
	bool owed;     /* a message that waits for Bus Master Enable */
};

/*
 * ops, identity and guest outlive p; a BAR's size is a power of two, at least 16 bytes, of
 * I/O ports 4 (asserted). Calls nothing of them yet. What the standard header and MSI
 * leave out is added by bh_pci_define(); then bh_pci_reset() is due, before anything else.
 * Allocates nothing: there is nothing to finish.
 */
void bh_pci_init(struct bh_pci *p, const struct bh_pci_ops *ops, const struct bh_pci_identity *identity,
                 struct bh_guest *guest);

/*
 * Gives config[offset..] an initial value and the bits a guest may write, and those that
 * writing 1 clears. length: up to 4 bytes inside the configuration space (asserted), the
 * low bytes of the values, in little-endian order. Before bh_pci_reset().
 */
void bh_pci_define(struct bh_pci *p, unsigned offset, unsigned length, uint32_t initial, uint32_t writable,
                   uint32_t clear);

/* Configuration to its initial values, then ops->reset. The line is low afterwards; dma_changed is not called. */
void bh_pci_reset(struct bh_pci *p);

/* offset + length <= BH_PCI_CONFIG_SIZE, any length. Bytes as they travel. */
void bh_pci_config_read(struct bh_pci *p, unsigned offset, void *to, unsigned length);
void bh_pci_config_write(struct bh_pci *p, unsigned offset, const void *from, unsigned length);

/* offset + length <= the BAR's size. Any length: cut into aligned pieces. */
void bh_pci_bar_read(struct bh_pci *p, unsigned bar, uint32_t offset, void *to, unsigned length);
void bh_pci_bar_write(struct bh_pci *p, unsigned bar, uint32_t offset, const void *from, unsigned length);

/* May the function read and write guest memory now (Bus Master Enable)? */
bool bh_pci_dma_allowed(const struct bh_pci *p);

/* Guest memory was added or removed: passes dma_changed on. */
void bh_pci_memory_changed(struct bh_pci *p);

/*
 * The function wants an interrupt, or no longer does. INTx follows the level,
 * honouring Interrupt Disable, and COMMAND/STATUS show it. With MSI enabled each
 * rise sends a message.
 */
void bh_pci_assert(struct bh_pci *p, bool asserted);

/* MSI only: a cause is still there after the guest acknowledged some: send again. */
void bh_pci_reassert(struct bh_pci *p);

#endif
