/*
 * Plugging devices in and pulling them out. A device may go in three ways: it is pulled, the
 * hub it hangs from is, or it detaches by itself; each time the bus destroys it. So that each
 * time it is closed as its kind has to be, and its going is noticed, one operation is put in
 * the way: destroy. And so that it is noticed when one comes or goes that keeps its place, so
 * are two of the bus's upcalls.
 */
#include "plugs.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/util.h>
#include <layer/layers.h>
#include <uhci/uhci.h>

#include "options.h"
#include "places.h"
#include "stack.h"

struct plug {
	/* configuration */
	struct bh_plugs *plugs;
	const struct bh_device_kind *kind;
	struct bh_options options;
	struct bh_verification verification;
	char place[BH_PLACE_SIZE]; /* empty: not decided yet */

	/* state */
	struct bh_list link; /* plugs->all, or those to come */
	struct bh_device *device;               /* what is plugged in: perhaps a layer over */
	struct bh_device *bottom;               /* what the kind made */
	const struct bh_device_ops *device_ops; /* that one's own; */
	struct bh_device_ops ops;               /* and what it has now: the same, but for destroy */
	const struct bh_device_upcalls *bus_upcalls; /* the bus's; */
	struct bh_device_upcalls upcalls;            /* and what the device has now: the same, but for attached, detached */
	bool there;                             /* a sticky one */
	struct bh_removal *removal;             /* by which it goes; NULL: nobody asked for it */
};

void bh_plugs_init(struct bh_plugs *p, uv_loop_t *loop, struct bh_bus *bus, const char *statistics,
                   const struct bh_plugs_ops *ops, void *context)
{
	*p = (struct bh_plugs){.loop = loop, .bus = bus, .statistics = statistics, .ops = ops, .context = context};
	bh_list_init(&p->all);
}

/* --- from text to a plug --------------------------------------------------------------- */

static void plug_free(struct plug *g)
{
	bh_options_free(&g->options);
	free(g);
}

/* Everything about the text that can be said without looking at the bus. */
static int plug_check(struct plug *g, char *error)
{
	const char *place;
	int r;

	g->kind = bh_device_kind(g->options.kind);
	if (!g->kind) {
		snprintf(error, BH_ERROR_SIZE, "no device '%s'; 'bulkhead serve --device help' lists them", g->options.kind);
		return -EINVAL;
	}
	r = bh_device_options_check(g->kind, &g->options, error);
	if (!r)
		r = bh_device_verification(&g->options, &g->verification, error);
	place = bh_options_get(&g->options, "port");
	if (!r && place && !(r = bh_place_check(place, error)))
		snprintf(g->place, sizeof(g->place), "%s", place);
	return r;
}

static int plug_create(struct bh_plugs *p, const char *text, struct plug **ret, char *error)
{
	struct plug *g = calloc(1, sizeof(*g));
	int r;

	if (!g) {
		snprintf(error, BH_ERROR_SIZE, "out of memory");
		return -ENOMEM;
	}
	g->plugs = p;
	bh_list_init(&g->link);
	r = bh_options_parse(text, &g->options, error);
	if (!r)
		r = plug_check(g, error);
	if (r) {
		plug_free(g);
		return r;
	}
	*ret = g;
	return 0;
}

/* --- out ----------------------------------------------------------------------------------- */

static void removal_closed(struct bh_removal *r, int error)
{
	if (error && !r->error)
		r->error = error;
	if (!--r->open)
		r->done(r);
}

static void plug_closed(void *data, int error)
{
	struct plug *g = data;

	if (error == -ENOTCONN)
		error = 0;
	if (error)
		g->plugs->ops->failed(g->plugs->context, g->place, g->kind->name, error);
	if (g->removal)
		removal_closed(g->removal, error);
	plug_free(g);
}

/* The bus is done with the device, and so are its layers, however it went. */
static void plug_destroy(struct bh_device *d)
{
	struct plug *g = bh_container_of(d->ops, struct plug, ops);
	struct bh_plugs *p = g->plugs;

	d->ops = g->device_ops;
	bh_list_remove(&g->link);
	p->count--;
	g->removal = p->removal;
	if (g->removal)
		g->removal->open++;
	else
		p->ops->gone(p->context, g->place, g->kind->name);
	g->device = g->bottom = NULL;
	if (g->kind->close) {
		g->kind->close(d, plug_closed, g);
	} else {
		bh_device_destroy(d);
		plug_closed(g, 0);
	}
}

static void begin_removal(struct bh_plugs *p, struct bh_removal *r)
{
	r->open = 1; /* until end_removal() */
	r->error = 0;
	p->removal = r;
}

static void end_removal(struct bh_plugs *p)
{
	struct bh_removal *r = p->removal;

	p->removal = NULL;
	removal_closed(r, 0);
}

int bh_plugs_remove(struct bh_plugs *p, const char *place, struct bh_removal *r, char *error)
{
	struct bh_port *port = bh_place_check(place, error) ? NULL : bh_place_port(p->bus, place, error);

	if (!port)
		return -EINVAL;
	if (!bh_port_device(port)) {
		snprintf(error, BH_ERROR_SIZE, "port=%s: there is nothing in it", place);
		return -ENODEV;
	}
	begin_removal(p, r);
	bh_port_remove(port, NULL, NULL);
	end_removal(p);
	return 0;
}

static void ended(struct bh_removal *r)
{
	(void)r;
}

void bh_plugs_clear(struct bh_plugs *p)
{
	p->ending.done = ended;
	begin_removal(p, &p->ending);
	for (unsigned i = 0; i < p->bus->port_count; i++)
		bh_bus_remove(p->bus, i, NULL, NULL);
	end_removal(p);
}

/* --- in --------------------------------------------------------------------------------------- */

static void sort_in(struct bh_plugs *p, struct plug *g)
{
	struct bh_list *before = &p->all;

	bh_list_each(other, &p->all, struct plug, link)
		if (before == &p->all && bh_place_compare(other->place, g->place) > 0)
			before = &other->link;
	bh_list_append(before, &g->link); /* last in the list that begins there: in front of it */
}

static struct plug *plug_of(const struct bh_device *d)
{
	return bh_container_of(d->upcalls, struct plug, upcalls);
}

static void plug_shows(struct plug *g, bool there)
{
	if (g->there == there)
		return;
	g->there = there;
	g->plugs->ops->shows(g->plugs->context, g->place, g->kind->name, there);
}

static int plug_attached(struct bh_device *d)
{
	struct plug *g = plug_of(d);
	int r = g->bus_upcalls->attached(d);

	if (r == 0)
		plug_shows(g, true);
	return r;
}

static void plug_detached(struct bh_device *d)
{
	struct plug *g = plug_of(d);

	g->bus_upcalls->detached(d);
	plug_shows(g, false);
}

static void explain_attach(const struct plug *g, int r, char *error)
{
	if (r == -ENOTSUP)
		snprintf(error, BH_ERROR_SIZE, "the %s does not fit port %s: it is faster than the port, and translate=off was said",
		         g->kind->name, g->place);
	else if (r == -E2BIG)
		snprintf(error, BH_ERROR_SIZE, "port=%s: at most %u hubs may follow each other", g->place, BH_BUS_MAX_HUBS);
	else
		snprintf(error, BH_ERROR_SIZE, "the %s does not fit port %s: %s", g->kind->name, g->place, strerror(-r));
}

static int attach(struct plug *g, struct bh_port *port, char *error)
{
	struct bh_device *d;
	int r = bh_device_make(g->plugs->loop, g->kind, &g->options, true, &d, error);

	if (r)
		return r;
	d->verification = g->verification;
	r = bh_options_spare(&g->options, g->plugs->statistics, error);
	if (!r) {
		r = bh_port_attach(port, d);
		if (r)
			explain_attach(g, r, error);
	}
	if (r) {
		bh_device_destroy(d);
		return r;
	}
	g->device = d;
	g->bottom = bh_layers_bottom(d);
	g->device_ops = g->bottom->ops;
	g->ops = *g->bottom->ops;
	g->ops.destroy = plug_destroy;
	g->bottom->ops = &g->ops;
	g->bus_upcalls = d->upcalls;
	g->upcalls = *d->upcalls;
	g->upcalls.attached = plug_attached;
	g->upcalls.detached = plug_detached;
	d->upcalls = &g->upcalls;
	return 0;
}

/* On an error the plug is gone. */
static int plug_in(struct plug *g, char *error)
{
	struct bh_plugs *p = g->plugs;
	struct bh_port *port = bh_place_port(p->bus, g->place, error);
	int r = port ? 0 : -EINVAL;

	if (!r && bh_port_device(port)) {
		snprintf(error, BH_ERROR_SIZE, "port=%s is taken: there is a device in it already", g->place);
		r = -EBUSY;
	}
	if (!r && p->count == BH_PLUGS_MAX) {
		snprintf(error, BH_ERROR_SIZE, "there are %u devices already, and no more are possible", BH_PLUGS_MAX);
		r = -ENOSPC;
	}
	if (!r)
		r = attach(g, port, error);
	if (r) {
		plug_free(g);
		return r;
	}
	p->count++;
	sort_in(p, g);
	return 0;
}

static bool is_wanted(const struct bh_list *coming, const char *place)
{
	bh_list_each(g, coming, struct plug, link)
		if (!strcmp(g->place, place))
			return true;
	return false;
}

/* The first root port that is free, and that none of those to come wants. */
static int choose_place(struct plug *g, const struct bh_list *coming, char *error)
{
	struct bh_bus *b = g->plugs->bus;
	char place[BH_PLACE_SIZE];

	if (g->place[0])
		return 0;
	for (unsigned i = 0; i < b->port_count; i++) {
		bh_port_place(&b->ports[i], place);
		if (!bh_port_device(&b->ports[i]) && !is_wanted(coming, place)) {
			memcpy(g->place, place, sizeof(place));
			return 0;
		}
	}
	snprintf(error, BH_ERROR_SIZE,
	         "no root port of %u is free for the %s: give it a place in a hub (port=1.2), or say --controller uhci,ports=N "
	         "(at most %u)",
	         b->port_count, g->kind->name, BH_UHCI_MAX_PORTS);
	return -ENOSPC;
}

int bh_plugs_add(struct bh_plugs *p, const char *text, char ret[BH_PLACE_SIZE], char *error)
{
	struct bh_list none = {&none, &none};
	struct plug *g;
	int r = plug_create(p, text, &g, error);

	if (r)
		return r;
	r = choose_place(g, &none, error);
	if (r) {
		plug_free(g);
		return r;
	}
	r = plug_in(g, error);
	if (!r)
		memcpy(ret, g->place, BH_PLACE_SIZE);
	return r;
}

/* Which comes next? Hubs, those further up first; then what the command line has first. */
static struct plug *next_plug(const struct bh_list *coming)
{
	struct plug *next = NULL;

	bh_list_each(g, coming, struct plug, link) {
		if (!next)
			next = g;
		else if (g->kind->hub && (!next->kind->hub || bh_place_compare(g->place, next->place) < 0))
			next = g;
	}
	return next;
}

static int plug_in_all(struct bh_list *coming, char *error)
{
	int r = 0;

	bh_list_each(g, coming, struct plug, link)
		if (!r)
			r = choose_place(g, coming, error);
	while (!r && !bh_list_empty(coming)) {
		struct plug *g = next_plug(coming);

		bh_list_remove(&g->link);
		r = plug_in(g, error);
	}
	return r;
}

int bh_plugs_begin(struct bh_plugs *p, const char *const *texts, size_t count, char *error)
{
	struct bh_list coming = {&coming, &coming};
	int r = 0;

	for (size_t i = 0; i < count && !r; i++) {
		struct plug *g;

		r = plug_create(p, texts[i], &g, error);
		if (!r)
			bh_list_append(&coming, &g->link);
	}
	if (!r)
		r = plug_in_all(&coming, error);
	bh_list_each(g, &coming, struct plug, link) {
		bh_list_remove(&g->link);
		plug_free(g);
	}
	return r;
}

/* --- what there is to tell --------------------------------------------------------------------- */

static json_t *plug_json(const struct plug *g)
{
	return json_pack("{s:s, s:s}", "port", g->place, "kind", g->kind->name);
}

static json_t *plug_counters(const struct plug *g)
{
	return bh_device_statistics(g->kind, g->device);
}

json_t *bh_plugs_statistics(const struct bh_plugs *p)
{
	json_t *all = json_array();

	bh_list_each(g, &p->all, struct plug, link) {
		json_t *o = plug_json(g), *counters = plug_counters(g);

		json_object_update(o, counters);
		json_decref(counters);
		json_array_append_new(all, o);
	}
	return all;
}

/* A path may be no UTF-8. */
static json_t *text_json(const char *text)
{
	json_t *o = json_string(text);

	return o ? o : json_null();
}

json_t *bh_plugs_list(const struct bh_plugs *p)
{
	static const char *const speeds[] = {"low", "full", "high", "super"};
	json_t *all = json_array();

	bh_list_each(g, &p->all, struct plug, link) {
		const struct bh_port *port = bh_bus_port(p->bus, g->place);
		json_t *o = plug_json(g);

		if (g->kind->other_side)
			json_object_set_new(o, "other_side", text_json(g->kind->other_side(g->bottom)));
		json_object_set_new(o, "speed", json_string(speeds[g->device->speed]));
		json_object_set_new(o, "connected", json_boolean(port->connected));
		json_object_set_new(o, "enabled", json_boolean(port->enabled));
		json_object_set_new(o, "suspended", json_boolean(port->suspended));
		json_object_set_new(o, "address", json_integer(bh_port_address(port)));
		json_object_set_new(o, "counters", plug_counters(g));
		json_array_append_new(all, o);
	}
	return all;
}

void bh_plugs_announce(const struct bh_plugs *p, FILE *to)
{
	bh_list_each(g, &p->all, struct plug, link)
		if (g->kind->other_side)
			fprintf(to, "bulkhead: the %s in port %s is at %s\n", g->kind->name, g->place,
			        g->kind->other_side(g->bottom));
}

int bh_plugs_input(struct bh_plugs *p, const char *place, const char *text, char *error)
{
	if (bh_place_check(place, error) || !bh_place_port(p->bus, place, error))
		return -EINVAL;
	bh_list_each(g, &p->all, struct plug, link)
		if (!bh_place_compare(g->place, place)) {
			if (g->kind->input)
				return g->kind->input(g->bottom, text, error);
			snprintf(error, BH_ERROR_SIZE, "port=%s: a %s takes no input", place, g->kind->name);
			return -EINVAL;
		}
	snprintf(error, BH_ERROR_SIZE, "port=%s: there is nothing in it", place);
	return -ENODEV;
}
