/* What all layers have in common: see layer/layer.h. */
#include <layer/layer.h>

#include <assert.h>
#include <stdlib.h>

#include <base/util.h>

static const struct bh_device_ops device_ops;

static struct bh_layer *of_device(const struct bh_device *d)
{
	return (struct bh_layer *)bh_container_of(d, struct bh_layer, device);
}

struct bh_layer *bh_layer_of(struct bh_device *d)
{
	return d->ops == &device_ops ? of_device(d) : NULL;
}

/* --- transfers --------------------------------------------------------------------- */

void bh_layer_end(struct bh_passage *p, enum bh_status status, uint32_t actual)
{
	struct bh_transfer *above = p->above;

	assert(!p->passed);
	bh_list_remove(&p->link);
	bh_list_remove(&p->held);
	free(p);
	bh_transfer_done(above, status, actual);
}

static void ended_below(struct bh_transfer *t, enum bh_status status)
{
	struct bh_passage *p = bh_container_of(t, struct bh_passage, below);
	struct bh_layer *l = p->layer;

	p->passed = false;
	p->over = true;
	p->status = status;
	if (t->type == BH_CONTROL)
		bh_layer_sync(l); /* it may have been SET_CONFIGURATION */
	if (l->ops->ended)
		l->ops->ended(l, p, status);
	else
		bh_layer_end(p, status, t->actual);
}

static void progress_below(struct bh_transfer *t)
{
	struct bh_passage *p = bh_container_of(t, struct bh_passage, below);

	if (p->layer->ops->progress)
		p->layer->ops->progress(p->layer, p);
	else
		bh_transfer_progress(p->above, t->actual);
}

void bh_layer_pass(struct bh_passage *p)
{
	struct bh_transfer *t = &p->below;

	t->done = ended_below;
	t->progress = progress_below;
	p->passed = true;
	if (t->type == BH_CONTROL)
		bh_device_request(p->layer->below, t);
	else
		bh_device_submit(p->layer->below, t);
}

/* Control requests find the operation that they came by once more below. */
static void begin(struct bh_device *d, struct bh_transfer *t)
{
	struct bh_layer *l = of_device(d);
	struct bh_passage *p = calloc(1, sizeof(*p));

	if (!p) {
		bh_transfer_done(t, BH_NO_RESPONSE, 0);
		return;
	}
	p->layer = l;
	p->above = t;
	p->below = *t;
	bh_list_init(&p->held);
	bh_list_append(&l->passages, &p->link);
	t->device_data = p;
	if (l->ops->begin)
		l->ops->begin(l, p);
	else
		bh_layer_pass(p);
}

static void set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	(void)value;
	begin(d, t);
}

static void set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate, struct bh_transfer *t)
{
	(void)interface, (void)alternate;
	begin(d, t);
}

static void clear_halt(struct bh_device *d, uint8_t endpoint, struct bh_transfer *t)
{
	(void)endpoint;
	begin(d, t);
}

static void end_held(struct bh_passage *p)
{
	if (p->over)
		bh_layer_end(p, p->status, p->below.actual);
	else
		bh_layer_end(p, BH_CANCELLED, 0);
}

static void cancel(struct bh_device *d, struct bh_transfer *t)
{
	struct bh_passage *p = t->device_data;

	(void)d;
	p->cancelled = true; /* perhaps once more: after a detach that is an end at once */
	if (p->passed)
		bh_device_cancel(p->layer->below, &p->below);
	else if (p->layer->ops->cancel)
		p->layer->ops->cancel(p->layer, p);
	else
		end_held(p);
}

/* Those the layer holds now; what comes while they end is not theirs to wait for. */
static void end_all_held(struct bh_layer *l)
{
	struct bh_list now = {&now, &now};
	struct bh_passage *p;

	bh_list_each(each, &l->passages, struct bh_passage, link)
		if (!each->passed) {
			bh_list_remove(&each->link);
			bh_list_append(&now, &each->link);
		}
	while (!bh_list_empty(&now)) {
		p = bh_container_of(now.next, struct bh_passage, link);
		end_held(p);
	}
}

/* --- what the device is --------------------------------------------------------------- */

void bh_layer_sync(struct bh_layer *l)
{
	struct bh_device *d = &l->device;
	const struct bh_device *below = l->below;

	d->speed = below->speed;
	d->control_max_packet = below->control_max_packet;
	d->finishes = below->finishes;
	d->us_per_kib = below->us_per_kib;
	d->cancel_loses = below->cancel_loses;
	d->hub_ports = below->hub_ports;
	if (l->ops->sync)
		l->ops->sync(l);
}

static const struct bh_endpoint_info *endpoint(const struct bh_device *d, uint8_t address)
{
	const struct bh_layer *l = of_device(d);

	return l->ops->endpoint ? l->ops->endpoint(l, address) : bh_device_endpoint(l->below, address);
}

static bool refuses(const struct bh_device *d, const struct bh_setup *setup)
{
	const struct bh_layer *l = of_device(d);

	return l->ops->refuses ? l->ops->refuses(l, setup) : bh_device_refuses(l->below, setup);
}

static struct bh_descriptors descriptors(const struct bh_device *d)
{
	const struct bh_layer *l = of_device(d);

	return l->ops->descriptors ? l->ops->descriptors(l) : bh_device_descriptors(l->below);
}

/* --- what happens to the device --------------------------------------------------------- */

static void reset(struct bh_device *d)
{
	struct bh_layer *l = of_device(d);

	l->ending = true;
	bh_device_reset(l->below);
	l->ending = false;
	bh_layer_sync(l);
	end_all_held(l);
	if (l->ops->reset)
		l->ops->reset(l);
}

static void suspend(struct bh_device *d, bool suspended)
{
	bh_device_suspend(of_device(d)->below, suspended);
}

static void power_on(struct bh_device *d)
{
	bh_device_power_on(of_device(d)->below);
}

static void destroy(struct bh_device *d)
{
	struct bh_layer *l = of_device(d);

	l->ending = true;
	l->below->upcalls = NULL; /* it may take its time, and we do not */
	bh_device_destroy(l->below);
	end_all_held(l);
	assert(bh_list_empty(&l->passages)); /* the device below has ended all that it had */
	if (l->ops->finish)
		l->ops->finish(l);
	free(l);
}

static const struct bh_device_ops device_ops = {
	.submit = begin,
	.cancel = cancel,
	.reset = reset,
	.set_configuration = set_configuration,
	.set_interface = set_interface,
	.clear_halt = clear_halt,
	.refuses = refuses,
	.endpoint = endpoint,
	.descriptors = descriptors,
	.suspend = suspend,
	.power_on = power_on,
	.destroy = destroy,
};

/* --- what the device tells ------------------------------------------------------------------ */

static struct bh_layer *above(const struct bh_device *below)
{
	return below->bus_data;
}

static int attached(struct bh_device *below)
{
	struct bh_layer *l = above(below);
	int r;

	bh_layer_sync(l);
	r = l->ops->attached ? l->ops->attached(l) : 0;
	return r ? r : bh_device_attach(&l->device);
}

static void detached(struct bh_device *below)
{
	struct bh_layer *l = above(below);

	l->device.sticky = below->sticky; /* it may have made up its mind: see struct bh_device */
	if (l->ops->detached)
		l->ops->detached(l);
	bh_device_detach(&l->device);
}

static void wakeup(struct bh_device *below)
{
	bh_device_wakeup(&above(below)->device);
}

static void port_power(struct bh_device *below, unsigned port, bool on)
{
	bh_hub_port_power(&above(below)->device, port, on);
}

static void port_reset(struct bh_device *below, unsigned port)
{
	bh_hub_port_reset(&above(below)->device, port);
}

static void port_enable(struct bh_device *below, unsigned port, bool enabled)
{
	bh_hub_port_enable(&above(below)->device, port, enabled);
}

static void port_suspend(struct bh_device *below, unsigned port, bool suspended)
{
	bh_hub_port_suspend(&above(below)->device, port, suspended);
}

static const struct bh_device *port_device(const struct bh_device *below, unsigned port)
{
	return bh_hub_port_device(&above(below)->device, port);
}

static const struct bh_device_upcalls upcalls = {
	.attached = attached,
	.detached = detached,
	.wakeup = wakeup,
	.port_power = port_power,
	.port_reset = port_reset,
	.port_enable = port_enable,
	.port_suspend = port_suspend,
	.port_device = port_device,
};

/* And what a hub is told of its ports. */

static void port_connected(struct bh_device *d, unsigned port, bool connected)
{
	struct bh_device *below = of_device(d)->below;

	below->hub->connected(below, port, connected);
}

static void port_wakeup(struct bh_device *d, unsigned port)
{
	struct bh_device *below = of_device(d)->below;

	below->hub->wakeup(below, port);
}

static const struct bh_hub_ops hub_ops = {
	.connected = port_connected,
	.wakeup = port_wakeup,
};

void bh_layer_init(struct bh_layer *l, const struct bh_layer_ops *ops, struct bh_device *below)
{
	l->ops = ops;
	l->below = below;
	bh_list_init(&l->passages);
	l->device.ops = &device_ops;
	l->device.sticky = below->sticky;
	l->device.verification = below->verification;
	l->device.hub = below->hub ? &hub_ops : NULL;
	below->upcalls = &upcalls;
	below->bus_data = l;
	bh_layer_sync(l);
}
