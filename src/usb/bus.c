/* Ports, addresses, plugging; where a packet goes. */
#include "internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include <base/util.h>

/* How long a guest may take to reset a device in FAILURE, and how long it is then away ([0093]). */
#define FAILED_US (1000 * 1000u)
#define AWAY_US   (200 * 1000u)

void bh_bus_init(struct bh_bus *b, unsigned ports, struct bh_source *source, const struct bh_bus_upcalls *upcalls,
                 const struct bh_engine_config *config)
{
	assert(ports <= BH_BUS_MAX_PORTS);
	*b = (struct bh_bus){.source = source, .upcalls = upcalls, .port_count = ports};
	bh_engine_init(&b->engine, source, config);
}

void bh_bus_finish(struct bh_bus *b)
{
	for (unsigned i = 0; i < b->port_count; i++)
		bh_bus_remove(b, i, NULL, NULL);
}

/* --- plugging ------------------------------------------------------------------- */

static void set_connected(struct bh_bus *b, unsigned port, bool connected)
{
	struct bh_port *p = &b->ports[port];

	if (p->connected == connected)
		return;
	b->recent = NULL;
	p->connected = connected;
	if (!connected)
		p->enabled = p->suspended = false;
	b->upcalls->connected(b, port, connected);
}

static void device_detached(struct bh_device *d)
{
	struct bh_attached *a = d->bus_data;

	if (a->gone)
		return;
	a->gone = true;
	bh_endpoints_reset(a, -1);
	bh_control_reset(a);
	set_connected(a->bus, a->port, false);
}

static void device_wakeup(struct bh_device *d)
{
	struct bh_attached *a = d->bus_data;
	struct bh_port *p = &a->bus->ports[a->port];

	if (p->connected && p->enabled)
		a->bus->upcalls->wakeup(a->bus, a->port);
}

static const struct bh_device_upcalls device_upcalls = {
	.detached = device_detached,
	.wakeup = device_wakeup,
};

int bh_bus_attach(struct bh_bus *b, unsigned port, struct bh_device *d)
{
	struct bh_attached *a;

	if (port >= b->port_count)
		return -EINVAL;
	if (b->ports[port].attached)
		return -EBUSY;
	if (d->speed > BH_SPEED_FULL)
		return -ENOTSUP;
	if (d->verification.what == BH_VERIFY_TRACE && !bh_engine_can_trace(&b->engine))
		return -EACCES;
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->bus = b;
	a->device = d;
	a->port = port;
	d->upcalls = &device_upcalls;
	d->bus_data = a;
	b->ports[port].attached = a;
	bh_device_reset(d);
	set_connected(b, port, true);
	return 0;
}

void bh_bus_remove(struct bh_bus *b, unsigned port, void (*destroy)(struct bh_device *d, void *data), void *data)
{
	struct bh_attached *a = b->ports[port].attached;

	if (!a)
		return;
	set_connected(b, port, false);
	bh_endpoints_reset(a, -1);
	bh_control_reset(a);
	a->device->upcalls = NULL;
	if (destroy) /* ends the transfers it still has */
		destroy(a->device, data);
	else
		bh_device_destroy(a->device);
	bh_endpoints_free(a);
	bh_control_free(a);
	b->ports[port].attached = NULL;
	free(a);
}

/* --- ports ---------------------------------------------------------------------- */

void bh_bus_port_reset(struct bh_bus *b, unsigned port)
{
	struct bh_port *p = &b->ports[port];
	struct bh_attached *a = p->attached;

	b->recent = NULL;
	p->enabled = p->suspended = false;
	if (!a || a->gone || a->away)
		return;
	a->address = 0;
	a->failed = false;
	bh_endpoints_reset(a, -1);
	bh_control_reset(a);
	bh_device_reset(a->device);
}

void bh_bus_port_enable(struct bh_bus *b, unsigned port, bool enabled)
{
	b->recent = NULL;
	b->ports[port].enabled = enabled && b->ports[port].connected;
}

void bh_bus_port_suspend(struct bh_bus *b, unsigned port, bool suspended)
{
	struct bh_port *p = &b->ports[port];

	if (p->suspended == suspended)
		return;
	b->recent = NULL;
	p->suspended = suspended;
	if (p->connected)
		bh_device_suspend(p->attached->device, suspended);
}

void bh_bus_power_on(struct bh_bus *b)
{
	for (unsigned i = 0; i < b->port_count; i++)
		if (b->ports[i].attached && !b->ports[i].attached->gone)
			bh_device_power_on(b->ports[i].attached->device);
}

const struct bh_device *bh_bus_port_device(const struct bh_bus *b, unsigned port)
{
	return b->ports[port].connected ? b->ports[port].attached->device : NULL;
}

/* --- packets -------------------------------------------------------------------- */

enum bh_answer bh_bus_retire(struct bh_bus *b, const struct bh_descriptor *d, uint32_t actual, enum bh_status status)
{
	return b->source->ops->retire(b->source, d, actual, status) ? BH_ANSWER_RETIRED : BH_ANSWER_CHANGED;
}

/* The device that hears the token: on a port that carries traffic, at that address, at that speed. */
static struct bh_attached *listener(struct bh_bus *b, const struct bh_token *t)
{
	for (unsigned i = 0; i < b->port_count; i++) {
		struct bh_port *p = &b->ports[i];

		if (p->connected && p->enabled && !p->suspended && p->attached->address == t->address &&
		    (p->attached->device->speed == BH_SPEED_LOW) == t->low_speed)
			return p->attached->failed ? NULL : p->attached;
	}
	return NULL;
}

enum bh_answer bh_bus_offer(struct bh_bus *b, const struct bh_token *token, const struct bh_descriptor *d)
{
	struct bh_attached *a;

	if (b->recent && d->destination == b->recent_destination)
		return bh_destination_offer(&b->recent->destination, d);
	a = listener(b, token);
	if (a && token->endpoint == 0)
		return bh_control_offer(a, token, d);
	if (a && token->pid != BH_PID_SETUP)
		return bh_endpoint_offer(a, token, d);
	b->counters.unanswered++;
	return bh_bus_retire(b, d, 0, BH_NO_RESPONSE);
}

void bh_bus_seen(struct bh_bus *b, const struct bh_token *token, const struct bh_descriptor *d)
{
	struct bh_attached *a = listener(b, token);
	struct bh_endpoint *ep = a ? a->endpoints[token->pid == BH_PID_IN][token->endpoint & 15] : NULL;

	if (ep && ep->destination.engine)
		bh_destination_seen(&ep->destination, d);
}

/* --- time ----------------------------------------------------------------------- */

static uint64_t attached_deadline(const struct bh_attached *a)
{
	if (!a)
		return UINT64_MAX;
	if (a->gone)
		return 0;
	return a->failed ? a->failed_since + FAILED_US + (a->away ? AWAY_US : 0) : UINT64_MAX;
}

/* FAILURE, and the guest did not reset the device: plug it out and in again. */
static void reconnect(struct bh_attached *a)
{
	struct bh_bus *b = a->bus;

	if (!a->away) {
		a->away = true;
		b->counters.reconnects++;
		set_connected(b, a->port, false);
		return;
	}
	a->away = a->failed = false;
	bh_bus_port_reset(b, a->port);
	set_connected(b, a->port, true);
}

void bh_bus_tick(struct bh_bus *b, uint64_t now_us)
{
	bh_engine_tick(&b->engine, now_us);
	for (unsigned i = 0; i < b->port_count; i++) {
		struct bh_attached *a = b->ports[i].attached;

		if (attached_deadline(a) > now_us)
			continue;
		if (a->gone)
			bh_bus_remove(b, i, NULL, NULL);
		else
			reconnect(a);
	}
}

uint64_t bh_bus_deadline(const struct bh_bus *b)
{
	uint64_t deadline = bh_engine_deadline(&b->engine);

	for (unsigned i = 0; i < b->port_count; i++)
		deadline = BH_MIN(deadline, attached_deadline(b->ports[i].attached));
	return deadline;
}
