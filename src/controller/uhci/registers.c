/*
 * The register block (UHCI 1.1, chapter 2): a table that says what each bit is,
 * one function that applies it, and hooks that hold only effects.
 */
#include "internal.h"

#include <base/util.h>

struct reg {
	const char *name;
	uint8_t offset;
	uint8_t size;         /* bytes */
	uint32_t reset;
	uint32_t writable;    /* RW */
	uint32_t clear;       /* RWC */
	uint32_t (*read)(struct bh_uhci *u);
	bool (*locked)(const struct bh_uhci *u); /* writes are ignored */
	void (*write)(struct bh_uhci *u, uint32_t old, uint32_t now);
	size_t field; /* in struct bh_uhci */
};

static uint32_t load(const struct bh_uhci *u, const struct reg *r, size_t index)
{
	const char *field = (const char *)u + r->field + index * r->size;

	return r->size == 4 ? *(const uint32_t *)field : r->size == 2 ? *(const uint16_t *)field : *(const uint8_t *)field;
}

static void store(struct bh_uhci *u, const struct reg *r, size_t index, uint32_t value)
{
	char *field = (char *)u + r->field + index * r->size;

	if (r->size == 4)
		*(uint32_t *)field = value;
	else if (r->size == 2)
		*(uint16_t *)field = (uint16_t)value;
	else
		*(uint8_t *)field = (uint8_t)value;
}

/* --- effects ---------------------------------------------------------------------- */

static void command_written(struct bh_uhci *u, uint32_t old, uint32_t now)
{
	if (now & USBCMD_GRESET) {
		if (!(old & USBCMD_GRESET))
			uhci_global_reset(u);
		u->usbcmd = USBCMD_GRESET; /* in reset, nothing else can be asked for */
		return;
	}
	if (now & USBCMD_HCRESET) {
		uhci_host_reset(u, false);
		return;
	}
	if ((old ^ now) & USBCMD_EGSM) {
		uhci_global_suspend(u);
		uhci_kick(u);
	}
	if ((old ^ now) & USBCMD_RS) {
		if (now & USBCMD_RS)
			uhci_start(u);
		else
			uhci_stop(u);
	}
}

static void status_written(struct bh_uhci *u, uint32_t old, uint32_t now)
{
	(void)old;
	if (!(now & USBSTS_USBINT))
		u->cause_ioc = u->cause_short = false;
	uhci_update_interrupt(u);
	bh_pci_reassert(&u->pci); /* a cause that came in between has to be told again */
	uhci_expect_work(u);      /* a driver that acknowledges is about to queue more */
}

static void enable_written(struct bh_uhci *u, uint32_t old, uint32_t now)
{
	(void)old;
	(void)now;
	uhci_update_interrupt(u);
}

static uint32_t frame_number_read(struct bh_uhci *u)
{
	return uhci_frame_number(u);
}

static bool frame_number_locked(const struct bh_uhci *u)
{
	return uhci_running(u); /* 2.1.4: only while halted */
}

static void base_written(struct bh_uhci *u, uint32_t old, uint32_t now)
{
	if (old != now)
		uhci_kick(u);
}

/* --- the table -------------------------------------------------------------------- */

#define FIELD(f) offsetof(struct bh_uhci, f)

static const struct reg registers[] = {
	{
		.name = "USBCMD", .offset = USBCMD, .size = 2, .field = FIELD(usbcmd),
		.writable = USBCMD_RS | USBCMD_HCRESET | USBCMD_GRESET | USBCMD_EGSM | USBCMD_FGR | USBCMD_SWDBG |
		            USBCMD_CF | USBCMD_MAXP,
		.write = command_written,
	},
	{
		.name = "USBSTS", .offset = USBSTS, .size = 2, .field = FIELD(usbsts), .reset = USBSTS_HCH,
		.clear = USBSTS_USBINT | USBSTS_ERROR | USBSTS_RD | USBSTS_HSE | USBSTS_HCPE,
		.write = status_written,
	},
	{
		.name = "USBINTR", .offset = USBINTR, .size = 2, .field = FIELD(usbintr),
		.writable = USBINTR_CRC | USBINTR_RESUME | USBINTR_IOC | USBINTR_SHORT,
		.write = enable_written,
	},
	{
		.name = "FRNUM", .offset = FRNUM, .size = 2, .field = FIELD(frnum),
		.writable = FRNUM_MASK,
		.read = frame_number_read, .locked = frame_number_locked,
	},
	{
		.name = "FRBASEADD", .offset = FRBASEADD, .size = 4, .field = FIELD(frbaseadd),
		.writable = FRBASEADD_MASK,
		.write = base_written,
	},
	{
		.name = "SOFMOD", .offset = SOFMOD, .size = 1, .field = FIELD(sofmod), .reset = SOFMOD_RESET,
		.writable = SOFMOD_MASK,
	},
};

static const struct reg port_register = {
	.name = "PORTSC", .offset = PORTSC, .size = 2, .field = FIELD(portsc), .reset = PORTSC_ONE,
	.writable = PORTSC_PE | PORTSC_RD | PORTSC_PR | PORTSC_SUSP,
	.clear = PORTSC_CSC | PORTSC_PEC | PORTSC_OCC,
};

/* The register that holds the byte at offset, and which of its kind; NULL: none. */
static const struct reg *find(const struct bh_uhci *u, uint32_t offset, size_t *ret_index)
{
	*ret_index = 0;
	if (offset >= PORTSC) {
		*ret_index = (offset - PORTSC) / 2;
		return *ret_index < u->config.ports ? &port_register : NULL;
	}
	for (size_t i = 0; i < BH_COUNT(registers); i++)
		if (offset >= registers[i].offset && offset - registers[i].offset < registers[i].size)
			return &registers[i];
	return NULL;
}

static uint32_t read_register(struct bh_uhci *u, const struct reg *r, size_t index)
{
	return r->read ? r->read(u) : load(u, r, index);
}

/* mask: the bits of the register that the access covers. */
static void write_register(struct bh_uhci *u, const struct reg *r, size_t index, uint32_t value, uint32_t mask)
{
	uint32_t old, now;

	if (r->locked && r->locked(u))
		return;
	old = now = read_register(u, r, index);
	now = (now & ~(r->writable & mask)) | (value & r->writable & mask);
	now &= ~(value & r->clear & mask);
	store(u, r, index, now);
	if (r == &port_register)
		uhci_port_write(u, (unsigned)index, (uint16_t)old, (uint16_t)now);
	else if (r->write)
		r->write(u, old, now);
}

/* --- accesses: any of 1, 2, 4 bytes, naturally aligned ------------------------------- */

uint32_t uhci_register_read(struct bh_pci *p, unsigned bar, uint32_t offset, unsigned length)
{
	struct bh_uhci *u = bh_container_of(p, struct bh_uhci, pci);
	uint32_t value = 0;

	(void)bar;
	for (unsigned i = 0; i < length;) {
		size_t index;
		const struct reg *r = find(u, offset + i, &index);
		unsigned shift, bytes = 1;

		if (r) {
			shift = (unsigned)(offset + i - r->offset - index * r->size);
			bytes = BH_MIN(r->size - shift, length - i);
			value |= (read_register(u, r, index) >> 8 * shift &
			          (uint32_t)((1ull << 8 * bytes) - 1)) << 8 * i;
		}
		i += bytes;
	}
	return value;
}

void uhci_register_write(struct bh_pci *p, unsigned bar, uint32_t offset, unsigned length, uint32_t value)
{
	struct bh_uhci *u = bh_container_of(p, struct bh_uhci, pci);

	(void)bar;
	for (unsigned i = 0; i < length;) {
		size_t index;
		const struct reg *r = find(u, offset + i, &index);
		unsigned shift, bytes = 1;

		if (r) {
			uint32_t mask;

			shift = (unsigned)(offset + i - r->offset - index * r->size);
			bytes = BH_MIN(r->size - shift, length - i);
			mask = (uint32_t)((1ull << 8 * bytes) - 1) << 8 * shift;
			write_register(u, r, index, value >> 8 * i << 8 * shift, mask);
		}
		i += bytes;
	}
}

void uhci_registers_reset(struct bh_uhci *u)
{
	for (size_t i = 0; i < BH_COUNT(registers); i++)
		store(u, &registers[i], 0, registers[i].reset);
	u->cause_ioc = u->cause_short = u->frame_ioc = false;
	u->pending = 0;
}
