/* Root ports (UHCI 1.1, 2.1.7), global reset, suspend and resume (2.1.1). */
#include "internal.h"

#include <base/util.h>

static uint16_t connected_bits(const struct bh_device *d)
{
	bool low = d->speed == BH_SPEED_LOW;

	/* An idle line shows which of its two wires the device pulls up (USB 2.0, 7.1.5). */
	return PORTSC_CCS | (low ? PORTSC_LSDA | PORTSC_DM : PORTSC_DP);
}

#define CONNECTED_BITS (PORTSC_CCS | PORTSC_LSDA | PORTSC_DM | PORTSC_DP)

static void port_connected(struct bh_bus *b, unsigned port, bool connected)
{
	struct bh_uhci *u = bh_container_of(b, struct bh_uhci, bus);
	uint16_t *portsc = &u->portsc[port], now = *portsc & (uint16_t)~CONNECTED_BITS;

	if (connected)
		now |= connected_bits(bh_bus_port_device(b, port));
	else if (now & PORTSC_PE)
		now = (now & (uint16_t)~PORTSC_PE) | PORTSC_PEC;
	*portsc = now | PORTSC_CSC;
	uhci_resume_event(u);
	uhci_bus_changed(u);
}

static void port_wakeup(struct bh_bus *b, unsigned port)
{
	struct bh_uhci *u = bh_container_of(b, struct bh_uhci, bus);

	/* USBSTS tells of it only where all of the bus sleeps (2.1.2, bit 2): drivers look at the port. */
	if (u->portsc[port] & PORTSC_SUSP)
		u->portsc[port] |= PORTSC_RD;
	uhci_resume_event(u);
}

/* Does the port sleep: by itself, which an enabled one can, or with all of the bus? */
static bool suspended(const struct bh_uhci *u, unsigned port)
{
	uint16_t own = u->portsc[port] & (PORTSC_PE | PORTSC_SUSP);

	return own == (PORTSC_PE | PORTSC_SUSP) || (u->usbcmd & USBCMD_EGSM);
}

const struct bh_bus_upcalls uhci_bus_upcalls = {
	.connected = port_connected,
	.wakeup = port_wakeup,
};

/*
 * Reset holds the port disabled; enabling needs a device. Suspend and resume are the guest's
 * bits: it clears both to end a resume (2.1.7), and they matter where the port is enabled.
 */
void uhci_port_write(struct bh_uhci *u, unsigned port, uint16_t old, uint16_t now)
{
	uint16_t *portsc = &u->portsc[port];

	if (now & PORTSC_PR) {
		*portsc = now &= (uint16_t) ~(PORTSC_PE | PORTSC_SUSP | PORTSC_RD);
		if (!(old & PORTSC_PR))
			bh_bus_port_reset(&u->bus, port); /* what is there may go away in here */
		now = *portsc;
	}
	if (!(now & PORTSC_CCS))
		now &= (uint16_t)~PORTSC_PE;
	*portsc = now;
	bh_bus_port_enable(&u->bus, port, now & PORTSC_PE);
	bh_bus_port_suspend(&u->bus, port, suspended(u, port));
	uhci_kick(u);
}

void uhci_port_reset_registers(struct bh_uhci *u, bool power_on)
{
	for (unsigned i = 0; i < u->config.ports; i++) {
		const struct bh_device *d;
		uint16_t disabled = !power_on && (u->portsc[i] & PORTSC_PE) ? PORTSC_PEC : 0;

		bh_bus_port_reset(&u->bus, i);
		d = bh_bus_port_device(&u->bus, i);
		u->portsc[i] = PORTSC_ONE | disabled | (d ? connected_bits(d) | PORTSC_CSC : 0);
	}
}

/* USB reset on every port, and everything here too; the bit stays until the guest clears it. */
void uhci_global_reset(struct bh_uhci *u)
{
	uhci_host_reset(u, true);
	u->usbcmd = USBCMD_GRESET;
}

void uhci_global_suspend(struct bh_uhci *u)
{
	for (unsigned i = 0; i < u->config.ports; i++)
		bh_bus_port_suspend(&u->bus, i, suspended(u, i));
}
