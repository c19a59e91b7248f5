/* Ports, addresses, plugging; where a packet goes. */
#include "internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
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
	bh_list_init(&b->devices);
	for (unsigned i = 0; i < ports; i++)
		b->ports[i] = (struct bh_port){.bus = b, .number = i, .powered = true};
	bh_engine_init(&b->engine, source, config);
}

void bh_bus_finish(struct bh_bus *b)
{
	for (unsigned i = 0; i < b->port_count; i++)
		bh_port_remove(&b->ports[i], NULL, NULL);
}

/* --- the tree --------------------------------------------------------------------- */

static unsigned hubs_above(const struct bh_port *p)
{
	unsigned n = 0;

	for (; p->hub; p = p->hub->port)
		n++;
	return n;
}

/* A number at **text, and what follows it: '.' and more, or the end. False: that is no place. */
static bool next_number(const char **text, unsigned *ret)
{
	char *end;

	if (**text < '1' || **text > '9')
		return false;
	*ret = (unsigned)strtoul(*text, &end, 10);
	if (end - *text > 3 || (*end && *end != '.') || (*end == '.' && !end[1]))
		return false;
	*text = *end ? end + 1 : end;
	return true;
}

struct bh_port *bh_bus_port(struct bh_bus *b, const char *place)
{
	struct bh_port *ports = b->ports;
	unsigned count = b->port_count, number;

	while (next_number(&place, &number) && number <= count) {
		struct bh_port *p = &ports[number - 1];

		if (!*place)
			return p;
		if (!p->attached || !p->attached->ports)
			return NULL;
		ports = p->attached->ports;
		count = p->attached->device->hub_ports;
	}
	return NULL;
}

char *bh_port_place(const struct bh_port *p, char text[BH_PLACE_SIZE])
{
	unsigned numbers[BH_BUS_MAX_HUBS + 1], n = 0, used = 0;

	for (; p; p = p->hub ? p->hub->port : NULL)
		numbers[n++] = p->number + 1;
	while (n--)
		used += (unsigned)snprintf(text + used, BH_PLACE_SIZE - used, n ? "%u." : "%u", numbers[n]);
	return text;
}

struct bh_device *bh_port_device(const struct bh_port *p)
{
	return p->attached ? p->attached->device : NULL;
}

uint8_t bh_port_address(const struct bh_port *p)
{
	return p->attached ? p->attached->address : 0;
}

/*
 * Something about ports has changed: which devices carry packets, and which sleep? Hubs come
 * before what hangs from them in the list, so that one round is enough.
 */
static void settle(struct bh_bus *b)
{
	b->recent = NULL;
	bh_list_each(a, &b->devices, struct bh_attached, link) {
		const struct bh_port *p = a->port;
		bool on = p->connected && p->enabled, above_asleep = p->hub && p->hub->asleep, asleep;

		a->live = on && !p->suspended && (!p->hub || p->hub->live);
		asleep = p->connected && (p->suspended || above_asleep);
		if (asleep != a->asleep) {
			a->asleep = asleep;
			if (p->connected)
				bh_device_suspend(a->device, asleep);
		}
	}
}

/* Tells whoever owns the port what comes or goes. */
static void set_connected(struct bh_port *p, bool connected)
{
	if (p->connected == connected)
		return;
	p->connected = connected;
	if (!connected)
		p->enabled = p->suspended = false;
	settle(p->bus);
	if (!p->hub)
		p->bus->upcalls->connected(p->bus, p->number, connected);
	else if (p->hub->port->connected && p->powered)
		p->hub->device->hub->connected(p->hub->device, p->number, connected);
}

/* Is there something in the port that shows, where there is power? */
static bool present(const struct bh_port *p)
{
	return p->attached && !p->attached->gone && !p->attached->absent && !p->attached->away;
}

static void port_power(struct bh_port *p, bool on);

/* Back to the default state: what hangs from a hub loses its power. */
static void reset_device(struct bh_attached *a)
{
	a->address = 0;
	a->failed = false;
	bh_endpoints_reset(a, -1);
	bh_control_reset(a);
	bh_device_reset(a->device);
	for (unsigned i = 0; a->ports && i < a->device->hub_ports; i++)
		port_power(&a->ports[i], false);
}

static void port_reset(struct bh_port *p)
{
	p->enabled = p->suspended = false;
	if (present(p) && p->powered) {
		p->attached->asleep = false; /* without a resume */
		reset_device(p->attached);
	}
	settle(p->bus);
}

static void port_power(struct bh_port *p, bool on)
{
	if (p->powered == on)
		return;
	p->powered = false; /* without a word to the hub: it knows */
	set_connected(p, false);
	if (present(p))
		reset_device(p->attached);
	p->powered = on;
	if (on && present(p)) {
		bh_device_power_on(p->attached->device);
		set_connected(p, true);
	}
}

static void port_enable(struct bh_port *p, bool enabled)
{
	p->enabled = enabled && p->connected;
	p->suspended &= p->enabled;
	settle(p->bus);
}

static void port_suspend(struct bh_port *p, bool suspended)
{
	if (p->suspended == suspended)
		return;
	p->suspended = suspended;
	settle(p->bus);
}

/* --- what devices tell --------------------------------------------------------------- */

static bool too_fast(const struct bh_device *d)
{
	return d->speed > BH_SPEED_FULL;
}

static int device_attached(struct bh_device *d)
{
	struct bh_attached *a = d->bus_data;

	if (!a->absent)
		return 0;
	if (too_fast(d))
		return -ENOTSUP;
	a->absent = a->away = a->failed = false;
	a->address = 0;
	bh_device_reset(d);
	if (a->port->powered)
		set_connected(a->port, true);
	return 0;
}

static void device_detached(struct bh_device *d)
{
	struct bh_attached *a = d->bus_data;

	if (a->gone || (a->absent && d->sticky))
		return;
	if (d->sticky)
		a->absent = true;
	else
		a->gone = true;
	bh_endpoints_reset(a, -1);
	bh_control_reset(a);
	set_connected(a->port, false);
}

static void device_wakeup(struct bh_device *d)
{
	struct bh_attached *a = d->bus_data;
	struct bh_port *p = a->port;

	if (!a->asleep || !p->enabled)
		return;
	if (p->hub)
		p->hub->device->hub->wakeup(p->hub->device, p->number);
	else
		p->bus->upcalls->wakeup(p->bus, p->number);
}

static struct bh_port *hub_port(const struct bh_device *d, unsigned port)
{
	const struct bh_attached *a = d->bus_data;

	assert(port < d->hub_ports);
	return &a->ports[port];
}

static void hub_port_power(struct bh_device *d, unsigned port, bool on)
{
	port_power(hub_port(d, port), on);
}

static void hub_port_reset(struct bh_device *d, unsigned port)
{
	port_reset(hub_port(d, port));
}

static void hub_port_enable(struct bh_device *d, unsigned port, bool enabled)
{
	port_enable(hub_port(d, port), enabled);
}

static void hub_port_suspend(struct bh_device *d, unsigned port, bool suspended)
{
	port_suspend(hub_port(d, port), suspended);
}

static const struct bh_device *hub_port_device(const struct bh_device *d, unsigned port)
{
	const struct bh_port *p = hub_port(d, port);

	return p->connected ? p->attached->device : NULL;
}

static const struct bh_device_upcalls device_upcalls = {
	.attached = device_attached,
	.detached = device_detached,
	.wakeup = device_wakeup,
	.port_power = hub_port_power,
	.port_reset = hub_port_reset,
	.port_enable = hub_port_enable,
	.port_suspend = hub_port_suspend,
	.port_device = hub_port_device,
};

/* --- plugging ------------------------------------------------------------------------- */

static int check_fit(const struct bh_port *p, const struct bh_device *d)
{
	if (p->attached)
		return -EBUSY;
	if (!d->sticky && too_fast(d))
		return -ENOTSUP;
	if (d->hub && hubs_above(p) == BH_BUS_MAX_HUBS)
		return -E2BIG;
	if (d->verification.what == BH_VERIFY_TRACE && !bh_engine_can_trace(&p->bus->engine))
		return -EACCES;
	return 0;
}

static struct bh_attached *attached_create(struct bh_port *p, struct bh_device *d)
{
	struct bh_attached *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->bus = p->bus;
	a->device = d;
	a->port = p;
	if (!d->hub)
		return a;
	assert(d->hub_ports && d->hub_ports <= BH_HUB_MAX_PORTS);
	a->ports = calloc(d->hub_ports, sizeof(*a->ports));
	if (!a->ports) {
		free(a);
		return NULL;
	}
	for (unsigned i = 0; i < d->hub_ports; i++)
		a->ports[i] = (struct bh_port){.bus = p->bus, .hub = a, .number = i};
	return a;
}

int bh_port_attach(struct bh_port *p, struct bh_device *d)
{
	struct bh_attached *a;
	int r = check_fit(p, d);

	if (r)
		return r;
	a = attached_create(p, d);
	if (!a)
		return -ENOMEM;
	d->upcalls = &device_upcalls;
	d->bus_data = a;
	p->attached = a;
	bh_list_append(&p->bus->devices, &a->link);
	a->absent = d->sticky;
	if (a->absent)
		return 0;
	bh_device_reset(d);
	if (p->powered)
		set_connected(p, true);
	return 0;
}

int bh_bus_attach(struct bh_bus *b, unsigned port, struct bh_device *d)
{
	return port < b->port_count ? bh_port_attach(&b->ports[port], d) : -EINVAL;
}

void bh_port_remove(struct bh_port *p, void (*destroy)(struct bh_device *d, void *data), void *data)
{
	struct bh_attached *a = p->attached;

	if (!a)
		return;
	set_connected(p, false);
	for (unsigned i = 0; a->ports && i < a->device->hub_ports; i++)
		bh_port_remove(&a->ports[i], NULL, NULL);
	bh_endpoints_reset(a, -1);
	bh_control_reset(a);
	a->device->upcalls = NULL;
	if (destroy) /* ends the transfers it still has */
		destroy(a->device, data);
	else
		bh_device_destroy(a->device);
	bh_endpoints_free(a);
	bh_control_free(a);
	bh_list_remove(&a->link);
	p->attached = NULL;
	free(a->ports);
	free(a);
}

void bh_bus_remove(struct bh_bus *b, unsigned port, void (*destroy)(struct bh_device *d, void *data), void *data)
{
	bh_port_remove(&b->ports[port], destroy, data);
}

/* --- root ports --------------------------------------------------------------------------- */

void bh_bus_port_reset(struct bh_bus *b, unsigned port)
{
	port_reset(&b->ports[port]);
}

void bh_bus_port_enable(struct bh_bus *b, unsigned port, bool enabled)
{
	port_enable(&b->ports[port], enabled);
}

void bh_bus_port_suspend(struct bh_bus *b, unsigned port, bool suspended)
{
	port_suspend(&b->ports[port], suspended);
}

void bh_bus_power_on(struct bh_bus *b)
{
	bh_list_each(a, &b->devices, struct bh_attached, link)
		if (!a->gone && !a->absent)
			bh_device_power_on(a->device);
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
	bh_list_each(a, &b->devices, struct bh_attached, link)
		if (a->address == t->address && a->live && (a->device->speed == BH_SPEED_LOW) == t->low_speed)
			return a->failed ? NULL : a;
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

enum bh_answer bh_bus_offer_isochronous(struct bh_bus *b, const struct bh_token *token, const struct bh_descriptor *d,
                                        enum bh_moment moment)
{
	struct bh_attached *a = token->pid == BH_PID_SETUP ? NULL : listener(b, token);
	bool out = token->pid == BH_PID_OUT;

	if (a && !a->configuring && !token->low_speed) {
		enum bh_answer answer = bh_isochronous_endpoint_offer(a, token, d, moment);

		if (answer != BH_ANSWER_NOBODY)
			return answer;
	}
	b->counters.unanswered++;
	return bh_bus_retire(b, d, out ? d->length : 0, out ? BH_SUCCESS : BH_NO_RESPONSE);
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
	if (a->gone)
		return 0;
	if (a->absent)
		return UINT64_MAX;
	return a->failed ? a->failed_since + FAILED_US + (a->away ? AWAY_US : 0) : UINT64_MAX;
}

/* FAILURE, and the guest did not reset the device: plug it out and in again. */
static void reconnect(struct bh_attached *a)
{
	if (!a->away) {
		a->away = true;
		a->bus->counters.reconnects++;
		set_connected(a->port, false);
		return;
	}
	a->away = a->failed = false;
	port_reset(a->port);
	if (a->port->powered)
		set_connected(a->port, true);
}

static struct bh_attached *find_due(struct bh_bus *b, uint64_t now_us)
{
	bh_list_each(a, &b->devices, struct bh_attached, link)
		if (attached_deadline(a) <= now_us)
			return a;
	return NULL;
}

void bh_bus_tick(struct bh_bus *b, uint64_t now_us)
{
	struct bh_attached *a;

	bh_engine_tick(&b->engine, now_us);
	/* Each time round one device is gone, or has a deadline that lies ahead. */
	while ((a = find_due(b, now_us))) {
		if (a->gone)
			bh_port_remove(a->port, NULL, NULL);
		else
			reconnect(a);
	}
}

uint64_t bh_bus_deadline(const struct bh_bus *b)
{
	uint64_t deadline = bh_engine_deadline(&b->engine);

	bh_list_each(a, &b->devices, struct bh_attached, link)
		deadline = BH_MIN(deadline, attached_deadline(a));
	return deadline;
}
