/*
 * A self-powered full-speed hub (USB 2.0, chapter 11; it says the same as 1.1 there).
 *
 * Done: the hub descriptor, power and over-current for each port by itself, hub and port
 * status with all change bits, the status change endpoint, suspend and resume of a port and
 * of the hub, remote wakeup. Ports come up switched off (11.5.1.2).
 *
 * Left out: port indicators, port tests and transaction translators, which are announced to be
 * missing; GetBusState, which 2.0 reserves. A reset, a resume and power-up take no time: when
 * the guest asks the next time they are over, with their change bit set. Over-current and loss
 * of local power do not happen; neither do port errors, so that C_PORT_ENABLE is never set.
 */
#include <function/hub.h>

#include <errno.h>
#include <stdlib.h>

#include <base/util.h>

#include "standard.h"

#define DEFAULT_PORTS   4u
#define STATUS_ENDPOINT 0x81

/* bDescriptorType, 11.23.2.1 */
#define DESCRIPTOR_HUB 0x29

/* Feature selectors, table 11-17. */
enum {
	C_HUB_LOCAL_POWER = 0,
	C_HUB_OVER_CURRENT = 1,
	PORT_CONNECTION = 0,
	PORT_ENABLE = 1,
	PORT_SUSPEND = 2,
	PORT_OVER_CURRENT = 3,
	PORT_RESET = 4,
	PORT_POWER = 8,
	PORT_LOW_SPEED = 9,
	C_PORT_CONNECTION = 16,
	C_PORT_ENABLE = 17,
	C_PORT_SUSPEND = 18,
	C_PORT_OVER_CURRENT = 19,
	C_PORT_RESET = 20,
};

/* wPortStatus and wPortChange (tables 11-21, 11-22): the selectors are the bit numbers, changes less 16. */
#define STATUS(feature) (uint16_t)(1u << (feature))
#define CHANGE(feature) (uint16_t)(1u << ((feature) - C_PORT_CONNECTION))

/* One state of figure 11-10; resetting and resuming do not last. */
struct port {
	bool powered;
	bool connected; /* only if powered */
	bool enabled;   /* only if connected */
	bool suspended; /* only if enabled */
	uint16_t change;
};

struct hub {
	struct bh_standard standard;
	struct port ports[BH_HUB_MAX_PORTS];
	struct bh_list pending; /* transfers to the status change endpoint, by device_link */
};

static struct hub *to_hub(struct bh_device *d)
{
	return bh_container_of(d, struct hub, standard.device);
}

/* --- the status change endpoint (11.12) ------------------------------------------------- */

/* Bit N: port N; bit 0, the hub itself, never changes. */
static uint8_t status_change(const struct hub *h)
{
	unsigned bits = 0;

	for (unsigned i = 0; i < BH_COUNT(h->ports); i++) /* those it does not have never change either */
		bits |= (unsigned)(h->ports[i].change != 0) << (i + 1);
	return (uint8_t)bits;
}

/* Ends the first transfer that waits, if any. The next one may be submitted in here. */
static bool end_first(struct hub *h, enum bh_status status, uint8_t bits)
{
	struct bh_transfer *t;

	if (bh_list_empty(&h->pending))
		return false;
	t = bh_container_of(h->pending.next, struct bh_transfer, device_link);
	bh_list_remove(&t->device_link);
	if (status == BH_SUCCESS && t->length == 0)
		status = BH_BABBLE; /* no room even for a byte */
	if (status == BH_SUCCESS)
		bh_transfer_write(t, 0, &bits, 1);
	bh_transfer_done(t, status, status == BH_SUCCESS);
	return true;
}

/* Each transfer gets one packet; while a change bit is set there is one for each. */
static void report(struct hub *h)
{
	uint8_t bits;

	while ((bits = status_change(h)) != 0 && end_first(h, BH_SUCCESS, bits))
		continue;
}

static void end_all(struct hub *h, enum bh_status status)
{
	while (end_first(h, status, 0))
		continue;
}

static void hub_changed(struct bh_standard *s, int interface)
{
	(void)interface; /* there is but one */
	end_all(bh_container_of(s, struct hub, standard), BH_CANCELLED);
}

static void hub_halted(struct bh_standard *s, uint8_t endpoint, bool halted)
{
	if (endpoint == STATUS_ENDPOINT && halted)
		end_all(bh_container_of(s, struct hub, standard), BH_STALL);
}

static void interrupt_submit(struct hub *h, struct bh_transfer *t)
{
	if (!bh_standard_endpoint(&h->standard.device, t->endpoint) ||
	    bh_standard_halted(&h->standard, t->endpoint)) {
		bh_refuse(t);
		return;
	}
	bh_list_init(&t->device_link);
	bh_list_append(&h->pending, &t->device_link);
	report(h);
}

/* --- what happens at the ports ------------------------------------------------------------ */

/* Something a guest wants to know; it also wakes a hub that sleeps, if it may (11.9). */
static void port_changed(struct hub *h, struct port *p, uint16_t change)
{
	p->change |= change;
	report(h);
	bh_standard_wakeup(&h->standard);
}

static void hub_connected(struct bh_device *d, unsigned port, bool connected)
{
	struct hub *h = to_hub(d);
	struct port *p = &h->ports[port];

	if (!p->powered || p->connected == connected)
		return;
	p->connected = connected;
	if (!connected)
		p->enabled = p->suspended = false;
	port_changed(h, p, CHANGE(C_PORT_CONNECTION));
}

static void resume(struct hub *h, unsigned port)
{
	struct port *p = &h->ports[port];

	p->suspended = false;
	bh_hub_port_suspend(&h->standard.device, port, false);
	port_changed(h, p, CHANGE(C_PORT_SUSPEND));
}

/*
 * A port that is suspended resumes by itself (11.5.1.10). Where the hub sleeps, resume
 * signalling is passed on whether or not the hub may wake by itself: DEVICE_REMOTE_WAKEUP of
 * a hub is for its own events.
 */
static void hub_wakeup(struct bh_device *d, unsigned port)
{
	struct hub *h = to_hub(d);
	struct port *p = &h->ports[port];
	bool asleep = h->standard.suspended;

	if (!p->enabled)
		return;
	if (p->suspended)
		resume(h, port);
	if (asleep && h->standard.suspended)
		bh_device_wakeup(d);
}

static const struct bh_hub_ops hub_port_ops = {
	.connected = hub_connected,
	.wakeup = hub_wakeup,
};

/* --- what a guest does to them ------------------------------------------------------------- */

static void power(struct hub *h, unsigned port, bool on)
{
	struct port *p = &h->ports[port];

	if (p->powered == on)
		return;
	*p = (struct port){.powered = on};
	bh_hub_port_power(&h->standard.device, port, on); /* may say connected */
}

static void power_off(struct hub *h)
{
	for (unsigned i = 0; i < h->standard.device.hub_ports; i++)
		power(h, i, false);
}

/* From any state that has power (11.5.1.5). */
static void reset_port(struct hub *h, unsigned port)
{
	struct port *p = &h->ports[port];

	if (!p->powered)
		return;
	p->enabled = p->suspended = false;
	bh_hub_port_reset(&h->standard.device, port); /* what is there may go away in here */
	p->enabled = p->connected;
	if (p->enabled)
		bh_hub_port_enable(&h->standard.device, port, true);
	port_changed(h, p, CHANGE(C_PORT_RESET));
}

static void disable(struct hub *h, unsigned port)
{
	struct port *p = &h->ports[port];

	if (!p->enabled)
		return;
	p->enabled = p->suspended = false;
	bh_hub_port_enable(&h->standard.device, port, false);
}

static void suspend(struct hub *h, unsigned port)
{
	struct port *p = &h->ports[port];

	if (!p->enabled || p->suspended)
		return;
	p->suspended = true;
	bh_hub_port_suspend(&h->standard.device, port, true);
}

/*
 * 11.24.2.7.1: what only the hub sets is left as it is without a complaint, but for
 * PORT_ENABLE, where a Request Error is preferred. Of the ports' states that do not allow a
 * request the same holds (11.24.2.13).
 */
static bool set_port_feature(struct hub *h, uint16_t feature, unsigned port)
{
	switch (feature) {
	case PORT_RESET:
		reset_port(h, port);
		return true;
	case PORT_SUSPEND:
		suspend(h, port);
		return true;
	case PORT_POWER:
		power(h, port, true);
		return true;
	case PORT_CONNECTION:
	case PORT_OVER_CURRENT:
	case PORT_LOW_SPEED:
	case C_PORT_CONNECTION:
	case C_PORT_ENABLE:
	case C_PORT_SUSPEND:
	case C_PORT_OVER_CURRENT:
	case C_PORT_RESET:
		return true;
	}
	return false;
}

static bool clear_port_feature(struct hub *h, uint16_t feature, unsigned port)
{
	struct port *p = &h->ports[port];

	switch (feature) {
	case PORT_ENABLE:
		disable(h, port);
		return true;
	case PORT_SUSPEND:
		if (p->suspended)
			resume(h, port);
		return true;
	case PORT_POWER:
		power(h, port, false);
		return true;
	case C_PORT_CONNECTION:
	case C_PORT_ENABLE:
	case C_PORT_SUSPEND:
	case C_PORT_OVER_CURRENT:
	case C_PORT_RESET:
		p->change &= (uint16_t)~CHANGE(feature);
		return true;
	case PORT_CONNECTION:
	case PORT_OVER_CURRENT:
	case PORT_RESET:
	case PORT_LOW_SPEED:
		return true;
	}
	return false;
}

static uint16_t port_status(struct hub *h, unsigned port)
{
	const struct port *p = &h->ports[port];
	const struct bh_device *there = p->connected ? bh_hub_port_device(&h->standard.device, port) : NULL;
	uint16_t status = 0;

	if (p->powered)
		status |= STATUS(PORT_POWER);
	if (p->connected)
		status |= STATUS(PORT_CONNECTION);
	if (p->enabled)
		status |= STATUS(PORT_ENABLE);
	if (p->suspended)
		status |= STATUS(PORT_SUSPEND);
	if (there && there->speed == BH_SPEED_LOW)
		status |= STATUS(PORT_LOW_SPEED);
	return status;
}

/* --- class requests (11.24.2) ----------------------------------------------------------------- */

enum {
	GET_HUB_DESCRIPTOR = BH_REQUEST(0xa0, 6),
	GET_HUB_STATUS = BH_REQUEST(0xa0, 0),
	SET_HUB_FEATURE = BH_REQUEST(0x20, 3),
	CLEAR_HUB_FEATURE = BH_REQUEST(0x20, 1),
	GET_PORT_STATUS = BH_REQUEST(0xa3, 0),
	SET_PORT_FEATURE = BH_REQUEST(0x23, 3),
	CLEAR_PORT_FEATURE = BH_REQUEST(0x23, 1),
};

/* Old drivers ask with a wValue of zero, for there is but one. */
static void get_hub_descriptor(const struct hub *h, struct bh_transfer *t)
{
	uint16_t value = bh_get_le16(t->setup.wValue);
	const uint8_t bytes[] = {
		9, DESCRIPTOR_HUB,
		(uint8_t)h->standard.device.hub_ports,
		BH_LE16(0x0009), /* wHubCharacteristics: power and over-current of each port by itself */
		1,               /* bPwrOn2PwrGood, in 2 ms */
		0,               /* bHubContrCurrent */
		0x00,            /* DeviceRemovable: all are */
		0xff,            /* PortPwrCtrlMask, for USB 1.0 */
	};

	if (value != DESCRIPTOR_HUB << 8 && value != 0)
		bh_refuse(t);
	else
		bh_answer(t, bytes, sizeof(bytes));
}

/* There is power, and no over-current; nothing of that changes. */
static void hub_feature(struct bh_transfer *t)
{
	if (bh_get_le16(t->setup.wValue) > C_HUB_OVER_CURRENT || bh_get_le16(t->setup.wIndex) != 0)
		bh_refuse(t);
	else
		bh_acknowledge(t);
}

static void port_request(struct hub *h, struct bh_transfer *t)
{
	uint16_t feature = bh_get_le16(t->setup.wValue), index = bh_get_le16(t->setup.wIndex), status;
	unsigned port = index - 1u;
	bool done;

	if (index == 0 || index > h->standard.device.hub_ports || !h->standard.settings.configuration) {
		bh_refuse(t);
		return;
	}
	if (bh_request_of(t) == GET_PORT_STATUS) {
		status = port_status(h, port);
		bh_answer(t, (const uint8_t[]){BH_LE16(status), BH_LE16(h->ports[port].change)}, 4);
		return;
	}
	done = bh_request_of(t) == SET_PORT_FEATURE ? set_port_feature(h, feature, port)
	                                            : clear_port_feature(h, feature, port);
	if (done)
		bh_acknowledge(t);
	else
		bh_refuse(t);
}

static void control(struct hub *h, struct bh_transfer *t)
{
	switch (bh_request_of(t)) {
	case GET_HUB_DESCRIPTOR:
		get_hub_descriptor(h, t);
		return;
	case GET_HUB_STATUS:
		bh_answer(t, (const uint8_t[]){0, 0, 0, 0}, 4);
		return;
	case SET_HUB_FEATURE:
	case CLEAR_HUB_FEATURE:
		hub_feature(t);
		return;
	case GET_PORT_STATUS:
	case SET_PORT_FEATURE:
	case CLEAR_PORT_FEATURE:
		port_request(h, t);
		return;
	}
	bh_standard_control(&h->standard, t);
}

/* --- the device's operations -------------------------------------------------------------------- */

static void hub_submit(struct bh_device *d, struct bh_transfer *t)
{
	if (t->type == BH_CONTROL)
		control(to_hub(d), t);
	else
		interrupt_submit(to_hub(d), t);
}

static void hub_cancel(struct bh_device *d, struct bh_transfer *t)
{
	bh_list_each(it, &to_hub(d)->pending, struct bh_transfer, device_link) {
		if (it != t)
			continue;
		bh_list_remove(&t->device_link);
		bh_transfer_done(t, BH_CANCELLED, 0);
		return;
	}
}

/* The ports are not configured, and switched off (11.10). */
static void hub_reset(struct bh_device *d)
{
	bh_standard_reset(d);
	power_off(to_hub(d));
}

static void hub_set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	if (value == 0)
		power_off(to_hub(d));
	bh_standard_set_configuration(d, value, t);
}

static void hub_destroy(struct bh_device *d)
{
	end_all(to_hub(d), BH_CANCELLED);
	free(to_hub(d));
}

static const struct bh_device_ops hub_ops = {
	.submit = hub_submit,
	.cancel = hub_cancel,
	.reset = hub_reset,
	.set_configuration = hub_set_configuration,
	.set_interface = bh_standard_set_interface,
	.refuses = bh_standard_refuses,
	.descriptors = bh_standard_descriptors,
	.clear_halt = bh_standard_clear_halt,
	.endpoint = bh_standard_endpoint,
	.suspend = bh_standard_suspend,
	.destroy = hub_destroy,
};

static const struct bh_standard_ops hub_standard_ops = {
	.changed = hub_changed,
	.halted = hub_halted,
};

/* --- descriptors (11.23.1) -------------------------------------------------------------------------- */

static const uint8_t device_descriptor[] = {
	18, BH_DESCRIPTOR_DEVICE,
	BH_LE16(0x0200), /* bcdUSB */
	9, 0, 0,         /* a hub; full speed */
	64,
	BH_LE16(0x1209), BH_LE16(0x0005), /* pid.codes, for tests */
	BH_LE16(0x0100),
	1, 2, 0, /* strings */
	1,
};

static const uint8_t configuration_descriptor[] = {
	9, BH_DESCRIPTOR_CONFIGURATION, BH_LE16(9 + 9 + 7),
	1, 1, 0,
	0xe0, /* self-powered, remote wakeup */
	0,
	9, BH_DESCRIPTOR_INTERFACE, 0, 0, 1, 9, 0, 0, 0,
	7, BH_DESCRIPTOR_ENDPOINT, STATUS_ENDPOINT, BH_INTERRUPT, BH_LE16(1), 255,
};

static const struct bh_description description = {
	.device = device_descriptor,
	.configurations = (const uint8_t *const[]){configuration_descriptor},
	.configuration_count = 1,
	.strings = (const char *const[]){"Bulkhead", "Bulkhead Hub"},
	.string_count = 2,
};

int bh_hub_create(const struct bh_hub_config *config, struct bh_device **ret)
{
	unsigned ports = config->ports ? config->ports : DEFAULT_PORTS;
	struct hub *h;

	if (ports > BH_HUB_MAX_PORTS)
		return -EINVAL;
	h = calloc(1, sizeof(*h));
	if (!h)
		return -ENOMEM;
	bh_standard_init(&h->standard, &hub_ops, &hub_standard_ops, &description, BH_SPEED_FULL);
	h->standard.device.hub = &hub_port_ops;
	h->standard.device.hub_ports = ports;
	bh_list_init(&h->pending);
	*ret = &h->standard.device;
	return 0;
}
