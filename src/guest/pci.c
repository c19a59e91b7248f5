/*
 * A PCI function's configuration space and interrupts. See <guest/pci.h>.
 *
 * Left out: power management, expansion ROM, 64-bit BARs, a second capability,
 * and errors in STATUS (nothing reports any).
 */
#include <guest/pci.h>

#include <assert.h>
#include <string.h>

#include <base/bytes.h>
#include <base/util.h>

#include "pci_regs.h"

/* Clear of UHCI's registers at 60h and C0h, and of what its relatives keep at 40h. */
#define MSI_OFFSET 0x80u

static_assert(PCI_BAR0 + 4 * BH_PCI_BARS <= PCI_SUBSYSTEM_VENDOR, "BARs fit the header");

static uint16_t config16(const struct bh_pci *p, unsigned offset)
{
	return (uint16_t)(p->config[offset] | p->config[offset + 1] << 8);
}

static bool msi_enabled(const struct bh_pci *p)
{
	return p->msi_offset && config16(p, p->msi_offset + PCI_MSI_CONTROL) & PCI_MSI_CONTROL_ENABLE;
}

static void define_bars(struct bh_pci *p)
{
	for (unsigned i = 0; i < BH_PCI_BARS; i++) {
		const struct bh_pci_bar *bar = &p->identity->bars[i];

		if (!bar->size)
			continue;
		assert(!(bar->size & (bar->size - 1)) && bar->size >= (bar->io ? 4 : 16));
		/* Sizing works by itself: the bits below the size do not take a one. */
		bh_pci_define(p, PCI_BAR0 + 4 * i, 4, bar->io ? PCI_BAR_IO : 0, ~(bar->size - 1), 0);
	}
}

static void define_msi(struct bh_pci *p)
{
	p->msi_offset = MSI_OFFSET;
	bh_pci_define(p, PCI_CAPABILITIES, 1, MSI_OFFSET, 0, 0);
	bh_pci_define(p, MSI_OFFSET + PCI_MSI_ID, 2, PCI_MSI_ID_VALUE, 0, 0);
	bh_pci_define(p, MSI_OFFSET + PCI_MSI_CONTROL, 2, PCI_MSI_CONTROL_64, PCI_MSI_CONTROL_ENABLE, 0);
	bh_pci_define(p, MSI_OFFSET + PCI_MSI_ADDRESS, 4, 0, ~3u, 0);
	bh_pci_define(p, MSI_OFFSET + PCI_MSI_ADDRESS_HIGH, 4, 0, ~0u, 0);
	bh_pci_define(p, MSI_OFFSET + PCI_MSI_DATA, 2, 0, 0xffff, 0);
}

void bh_pci_init(struct bh_pci *p, const struct bh_pci_ops *ops, const struct bh_pci_identity *identity,
                 struct bh_guest *guest)
{
	uint32_t command = PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR;
	uint32_t status = PCI_STATUS_DEVSEL | (identity->msi ? PCI_STATUS_CAPABILITIES : 0);

	*p = (struct bh_pci){.ops = ops, .identity = identity, .guest = guest};

	for (unsigned i = 0; i < BH_PCI_BARS; i++)
		if (identity->bars[i].size)
			command |= identity->bars[i].io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
	if (identity->interrupt_pin)
		command |= PCI_COMMAND_INTX_OFF;

	bh_pci_define(p, PCI_VENDOR_ID, 2, identity->vendor, 0, 0);
	bh_pci_define(p, PCI_DEVICE_ID, 2, identity->device, 0, 0);
	bh_pci_define(p, PCI_COMMAND, 2, 0, command, 0);
	bh_pci_define(p, PCI_STATUS, 2, status, 0, PCI_STATUS_ERRORS);
	bh_pci_define(p, PCI_REVISION_ID, 4, identity->class_code << 8 | identity->revision, 0, 0);
	bh_pci_define(p, PCI_CACHE_LINE_SIZE, 2, 0, 0xffff, 0); /* and latency timer */
	bh_pci_define(p, PCI_SUBSYSTEM_VENDOR, 2, identity->subsystem_vendor, 0, 0);
	bh_pci_define(p, PCI_SUBSYSTEM, 2, identity->subsystem, 0, 0);
	bh_pci_define(p, PCI_INTERRUPT_LINE, 1, 0, 0xff, 0);
	bh_pci_define(p, PCI_INTERRUPT_PIN, 1, identity->interrupt_pin, 0, 0);
	define_bars(p);
	if (identity->msi)
		define_msi(p);
	memcpy(p->config, p->initial, sizeof(p->config));
}

void bh_pci_define(struct bh_pci *p, unsigned offset, unsigned length, uint32_t initial, uint32_t writable,
                   uint32_t clear)
{
	assert(length <= 4 && offset <= BH_PCI_CONFIG_SIZE && length <= BH_PCI_CONFIG_SIZE - offset);
	for (unsigned i = 0; i < length; i++) {
		p->initial[offset + i] = p->config[offset + i] = (uint8_t)(initial >> 8 * i);
		p->writable[offset + i] = (uint8_t)(writable >> 8 * i);
		p->clear[offset + i] = (uint8_t)(clear >> 8 * i);
	}
}

/*
 * Makes the INTx line and the message owed follow from what the function wants
 * and what the guest has allowed. Called after every change of either.
 */
static void update_interrupts(struct bh_pci *p)
{
	bool msi = msi_enabled(p);
	bool line = p->asserted && !msi && !(config16(p, PCI_COMMAND) & PCI_COMMAND_INTX_OFF);

	if (p->asserted)
		p->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
	else
		p->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;

	if (line != p->line) {
		p->line = line;
		p->guest->ops->interrupt_level(p->guest, line);
	}
	if (!msi || !p->asserted)
		p->owed = false;
	/* A message is a write to memory: without Bus Master Enable it waits (6.2.2). */
	if (p->owed && bh_pci_dma_allowed(p)) {
		p->owed = false;
		p->guest->ops->interrupt_message(p->guest, 0);
	}
}

void bh_pci_reset(struct bh_pci *p)
{
	memcpy(p->config, p->initial, sizeof(p->config));
	p->ops->reset(p);
	p->asserted = false;
	update_interrupts(p);
}

void bh_pci_config_read(struct bh_pci *p, unsigned offset, void *to, unsigned length)
{
	assert(offset <= BH_PCI_CONFIG_SIZE && length <= BH_PCI_CONFIG_SIZE - offset);
	memcpy(to, p->config + offset, length);
}

void bh_pci_config_write(struct bh_pci *p, unsigned offset, const void *from, unsigned length)
{
	const uint8_t *bytes = from;
	bool dma = bh_pci_dma_allowed(p), msi = msi_enabled(p);

	assert(offset <= BH_PCI_CONFIG_SIZE && length <= BH_PCI_CONFIG_SIZE - offset);
	for (unsigned i = 0; i < length; i++) {
		uint8_t *byte = &p->config[offset + i];
		uint8_t writable = p->writable[offset + i];

		*byte = (uint8_t)((*byte & ~writable) | (bytes[i] & writable));
		*byte &= (uint8_t)~(bytes[i] & p->clear[offset + i]);
	}

	/* An interrupt that was already wanted when the guest turned to MSI must not be lost. */
	if (!msi && msi_enabled(p))
		p->owed = p->asserted;
	update_interrupts(p);
	if (dma != bh_pci_dma_allowed(p))
		p->ops->dma_changed(p);
}

/* The longest naturally aligned access at offset that length bytes leave room for: 1, 2 or 4. */
static unsigned piece_at(uint32_t offset, unsigned length)
{
	if (!(offset & 3) && length >= 4)
		return 4;
	if (!(offset & 1) && length >= 2)
		return 2;
	return 1;
}

void bh_pci_bar_read(struct bh_pci *p, unsigned bar, uint32_t offset, void *to, unsigned length)
{
	uint8_t *bytes = to;

	assert(bar < BH_PCI_BARS);
	assert(offset <= p->identity->bars[bar].size && length <= p->identity->bars[bar].size - offset);
	while (length) {
		unsigned piece = piece_at(offset, length);
		bh_le32 value = bh_put_le32(p->ops->bar_read(p, bar, offset, piece));

		memcpy(bytes, value.b, piece);
		bytes += piece;
		offset += piece;
		length -= piece;
	}
}

void bh_pci_bar_write(struct bh_pci *p, unsigned bar, uint32_t offset, const void *from, unsigned length)
{
	const uint8_t *bytes = from;

	assert(bar < BH_PCI_BARS);
	assert(offset <= p->identity->bars[bar].size && length <= p->identity->bars[bar].size - offset);
	while (length) {
		unsigned piece = piece_at(offset, length);
		bh_le32 value = {{0}};

		memcpy(value.b, bytes, piece);
		p->ops->bar_write(p, bar, offset, piece, bh_get_le32(value));
		bytes += piece;
		offset += piece;
		length -= piece;
	}
}

bool bh_pci_dma_allowed(const struct bh_pci *p)
{
	return p->config[PCI_COMMAND] & PCI_COMMAND_MASTER;
}

void bh_pci_memory_changed(struct bh_pci *p)
{
	p->ops->dma_changed(p);
}

void bh_pci_assert(struct bh_pci *p, bool asserted)
{
	if (asserted == p->asserted)
		return;
	p->asserted = asserted;
	if (asserted && msi_enabled(p))
		p->owed = true;
	update_interrupts(p);
}

void bh_pci_reassert(struct bh_pci *p)
{
	if (!p->asserted || !msi_enabled(p))
		return;
	p->owed = true;
	update_interrupts(p);
}
