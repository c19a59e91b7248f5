/*
 * Protocol translation (695 in the patent, [0097]-[0100]): a device that runs at high speed or
 * SuperSpeed, in a full-speed port. The guest is shown what such a device says of itself at full
 * speed (translate_descriptors.h), and its packets of up to 64 bytes become the device's
 * (translate_stream.h), and back.
 *
 *   below is slow, or away           everything passes as it is
 *   below is fast, and could work    translated, and said once
 *   below is fast, and could not     refused, and said why
 *
 * Requests for descriptors are answered here. Control transfers need nothing else: the bus
 * cuts them into packets of the size the layer shows, and the device below gets them whole.
 * Isochronous packets pass one by one: only settings with at most one in a frame are shown.
 */
#include "translate.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/util.h>
#include <usb/settings.h>

#include "kinds.h"
#include "timer.h"
#include "translate_descriptors.h"
#include "translate_stream.h"

#define MOST_CONFIGURATIONS 8u

/* How long an OUT whose end nobody knows may stand still (rule 4): well over what a guest that polls needs. */
#define STANDS_STILL_US 50000u

enum {
	GET_DESCRIPTOR = 0x80 << 8 | 6,
	SET_CONFIGURATION = 0x00 << 8 | 9,
	SET_INTERFACE = 0x01 << 8 | 11,
	BULK_ONLY_RESET = 0x21 << 8 | 0xff,
};
#define BOS 15

struct translate {
	struct bh_layer layer;
	/* configuration */
	const struct bh_layer_context *context;
	struct bh_timer *timer; /* NULL: there is no loop */
	uint8_t said[4]; /* of which device: idVendor and idProduct */
	bool looking; /* the timer is set */

	/* what the guest is shown; all of it only while translating */
	bool translating;
	bool gone; /* what was below went, and nothing has come since: transfers that wait are about to be cancelled */
	uint8_t device[18], qualifier[BH_QUALIFIER_SIZE];
	uint8_t *configurations[MOST_CONFIGURATIONS]; /* at full speed; */
	uint8_t *others[MOST_CONFIGURATIONS];         /* and each at its other speed */
	unsigned count;
	struct bh_settings settings; /* over configurations; which is active is the device's to know */

	/* state */
	struct bh_translate_stream *streams[2][16]; /* [in][number], made when first used */
	struct bh_command commands[BH_SETTINGS_INTERFACES]; /* of bulk-only disks, by interface */
	struct bh_endpoint_info (*infos)[2][16]; /* what was last told of each; apart, for asking changes nothing */
	struct bh_translate_counters counters;
};

static struct translate *of_layer(const struct bh_layer *l)
{
	return (struct translate *)bh_container_of(l, struct translate, layer);
}

static const char *speed_name(enum bh_speed speed)
{
	return speed == BH_SPEED_HIGH ? "high speed" : "SuperSpeed";
}

static void say(const struct translate *x, const char *text)
{
	const uint8_t *d = bh_device_descriptors(x->layer.below).device;
	char line[BH_LAYER_ERROR_SIZE + 32];

	if (!x->context->log)
		return;
	snprintf(line, sizeof(line), "%02x%02x:%02x%02x %s", d ? d[9] : 0, d ? d[8] : 0, d ? d[11] : 0, d ? d[10] : 0, text);
	x->context->log(x->context->data, line);
}

/* --- streams ----------------------------------------------------------------------- */

#define each_stream(s, x)                                                                              \
	for (unsigned i_ = 0; i_ < 32; i_++)                                                           \
		for (struct bh_translate_stream *s = (x)->streams[i_ / 16][i_ % 16]; s; s = NULL)

void bh_translate_stand_still(struct bh_device *d)
{
	each_stream (s, of_layer(bh_layer_of(d)))
		bh_translate_stream_end(s);
}

static uint64_t now_us(void)
{
	return uv_hrtime() / 1000;
}

/* Those that stand still long enough end; the timer is set for the next. */
static void look_who_stands(void *data)
{
	struct translate *x = data;
	uint64_t now = now_us(), next = UINT64_MAX;

	x->looking = false;
	each_stream (s, x) {
		if (!s->kept_count || s->in)
			continue;
		if (now - s->kept_since >= STANDS_STILL_US)
			bh_translate_stream_end(s); /* not one that is under way: that ends with more kept, or nothing */
		else
			next = BH_MIN(next, s->kept_since + STANDS_STILL_US - now);
	}
	if (next != UINT64_MAX && !x->looking) {
		x->looking = true;
		bh_timer_set(x->timer, next);
	}
}

static void keeps(struct bh_translate_stream *s)
{
	struct translate *x = of_layer(s->layer);

	s->kept_since = now_us();
	if (!x->timer || x->looking)
		return;
	x->looking = true;
	bh_timer_set(x->timer, STANDS_STILL_US);
}

static bool is_translated(const struct bh_endpoint_info *info)
{
	return (info->type == BH_BULK || info->type == BH_INTERRUPT) &&
	       info->max_packet > bh_translate_packet(info->type, info->max_packet);
}

/* NULL: there is no memory. */
static struct bh_translate_stream *stream_of(struct translate *x, const struct bh_endpoint_info *inside)
{
	struct bh_translate_stream **slot = &x->streams[(inside->address & BH_ENDPOINT_IN) != 0][inside->address & 15], *s = *slot;
	struct bh_command *command = inside->bulk_only && inside->type == BH_BULK ? &x->commands[inside->interface % BH_SETTINGS_INTERFACES] : NULL;
	const struct bh_endpoint_info *outside = bh_device_endpoint(&x->layer.device, inside->address);

	if (s && s->inside == inside->max_packet && s->command == command && s->outside.interface == inside->interface &&
	    s->outside.type == inside->type)
		return s;
	if (s && (s->busy || s->flushing || s->running || !bh_list_empty(&s->waiting)))
		return NULL; /* what it was is still being cancelled */
	if (s)
		bh_translate_stream_finish(s);
	free(s);
	*slot = s = calloc(1, sizeof(*s));
	if (s && bh_translate_stream_init(s, &x->layer, &x->counters, outside, inside->max_packet, command)) {
		free(s);
		*slot = s = NULL;
	}
	if (s) {
		s->keeps = keeps;
		s->gone = &x->gone;
	}
	return s;
}

/* Endpoints begin anew: of one interface, or all (-1). */
static void reset_streams(struct translate *x, int interface)
{
	each_stream (s, x)
		if (interface < 0 || s->outside.interface == interface)
			bh_translate_stream_reset(s);
	for (unsigned i = 0; i < BH_SETTINGS_INTERFACES; i++)
		if (interface < 0 || (unsigned)interface == i)
			x->commands[i] = (struct bh_command){0};
}

/* Those that are idle: all of them, but where a device comes back before its last transfers have ended. */
static void free_streams(struct translate *x)
{
	for (unsigned i = 0; i < 32; i++) {
		struct bh_translate_stream **slot = &x->streams[i / 16][i % 16], *s = *slot;

		if (!s || s->busy || s->flushing || !bh_list_empty(&s->waiting))
			continue;
		*slot = NULL;
		bh_translate_stream_finish(s);
		free(s);
	}
}

/* --- control transfers --------------------------------------------------------------- */

static void answer(struct bh_passage *p, const uint8_t *bytes, uint32_t length)
{
	uint32_t n = BH_MIN(length, p->above->length);

	bh_transfer_write(p->above, 0, bytes, n);
	bh_layer_end(p, BH_SUCCESS, n);
}

static void get_descriptor(struct translate *x, struct bh_passage *p)
{
	uint8_t index = p->above->setup.wValue.b[0];

	switch (p->above->setup.wValue.b[1]) {
	case BH_DESCRIPTOR_DEVICE:
		answer(p, x->device, sizeof(x->device));
		return;
	case BH_DESCRIPTOR_QUALIFIER:
		answer(p, x->qualifier, sizeof(x->qualifier));
		return;
	case BH_DESCRIPTOR_CONFIGURATION:
	case BH_DESCRIPTOR_OTHER_SPEED:
		if (index < x->count) {
			uint8_t *const *from =
				p->above->setup.wValue.b[1] == BH_DESCRIPTOR_CONFIGURATION ? x->configurations : x->others;

			answer(p, from[index], bh_configuration_length(from[index]));
			return;
		}
		/* fall through */
	case BOS:
		bh_layer_end(p, BH_STALL, 0);
		return;
	}
	bh_layer_pass(p);
}

static bool is_disk(const struct translate *x, uint8_t interface)
{
	for (unsigned i = 0; i < x->settings.endpoint_count; i++)
		if (x->settings.endpoints[i].interface == interface && x->settings.endpoints[i].bulk_only)
			return true;
	return false;
}

/* What a request does to the endpoints it is about, before it is carried out. */
static void note_request(struct translate *x, const struct bh_setup *setup)
{
	uint8_t index = setup->wIndex.b[0];
	struct bh_translate_stream *s;

	switch (bh_device_operation(&x->layer.device, setup)) {
	case BH_OPERATION_SET_CONFIGURATION:
		reset_streams(x, -1);
		break;
	case BH_OPERATION_SET_INTERFACE:
		reset_streams(x, index);
		break;
	case BH_OPERATION_CLEAR_HALT:
		s = x->streams[(index & BH_ENDPOINT_IN) != 0][index & 15];
		if (s)
			bh_translate_stream_reset(s);
		break;
	case BH_OPERATION_SUBMIT:
		if ((setup->bmRequestType << 8 | setup->bRequest) == BULK_ONLY_RESET && !setup->wIndex.b[1] && is_disk(x, index))
			reset_streams(x, index);
		break;
	}
}

static void begin_control(struct translate *x, struct bh_passage *p)
{
	const struct bh_setup *setup = &p->above->setup;

	if ((setup->bmRequestType << 8 | setup->bRequest) == GET_DESCRIPTOR) {
		get_descriptor(x, p);
	} else if (bh_device_refuses(&x->layer.device, setup)) {
		bh_layer_end(p, BH_STALL, 0); /* a setting that is not shown */
	} else {
		note_request(x, setup);
		bh_layer_pass(p);
	}
}

/* The device below took another configuration or setting: so did what is shown. It may be gone by now, and is not asked. */
static void note_success(struct translate *x, const struct bh_setup *setup)
{
	switch (setup->bmRequestType << 8 | setup->bRequest) {
	case SET_CONFIGURATION:
		bh_settings_configure(&x->settings, setup->wValue.b[0]);
		break;
	case SET_INTERFACE:
		bh_settings_set_interface(&x->settings, setup->wIndex.b[0], setup->wValue.b[0]);
		break;
	}
}

/* --- the layer's operations ------------------------------------------------------------- */

static void translate_begin(struct bh_layer *l, struct bh_passage *p)
{
	struct translate *x = of_layer(l);
	const struct bh_endpoint_info *inside;
	struct bh_translate_stream *s;

	if (!x->translating) {
		bh_layer_pass(p);
		return;
	}
	if (p->above->type == BH_CONTROL) {
		begin_control(x, p);
		return;
	}
	inside = bh_device_endpoint(l->below, p->above->endpoint);
	if (!inside || !is_translated(inside)) {
		bh_layer_pass(p);
		return;
	}
	s = stream_of(x, inside);
	if (s)
		bh_translate_stream_begin(s, p);
	else
		bh_layer_end(p, BH_NO_RESPONSE, 0);
}

/* The stream a passage is in; NULL: it passes. */
static struct bh_translate_stream *stream_with(const struct translate *x, const struct bh_passage *p)
{
	struct bh_translate_stream *s = x->streams[(p->above->endpoint & BH_ENDPOINT_IN) != 0][p->above->endpoint & 15];

	return p->above->type != BH_CONTROL && s && !bh_list_empty(&p->held) ? s : NULL;
}

static void translate_ended(struct bh_layer *l, struct bh_passage *p, enum bh_status status)
{
	struct translate *x = of_layer(l);
	struct bh_translate_stream *s = stream_with(x, p);

	if (s) {
		bh_translate_stream_ended(s, p, status);
		return;
	}
	if (x->translating && p->above->type == BH_CONTROL && status == BH_SUCCESS)
		note_success(x, &p->above->setup);
	bh_layer_end(p, status, p->below.actual);
}

static void translate_progress(struct bh_layer *l, struct bh_passage *p)
{
	struct bh_translate_stream *s = stream_with(of_layer(l), p);

	if (s)
		bh_translate_stream_progress(s, p);
	else
		bh_transfer_progress(p->above, p->below.actual);
}

static void translate_reset(struct bh_layer *l)
{
	struct translate *x = of_layer(l);

	reset_streams(x, -1);
	if (x->translating)
		bh_settings_configure(&x->settings, 0);
}

static void translate_detached(struct bh_layer *l)
{
	of_layer(l)->gone = true;
	reset_streams(of_layer(l), -1);
}

static void translate_sync(struct bh_layer *l)
{
	if (!of_layer(l)->translating)
		return;
	l->device.speed = BH_SPEED_FULL;
	l->device.control_max_packet = 64;
}

static const struct bh_endpoint_info *translate_endpoint(const struct bh_layer *l, uint8_t address)
{
	const struct translate *x = of_layer(l);
	const struct bh_endpoint_info *inside = bh_device_endpoint(l->below, address);
	struct bh_endpoint_info *outside;

	if (!inside || !x->translating)
		return inside;
	if (!bh_settings_endpoint(&x->settings, address))
		return NULL; /* of a setting that is not shown */
	outside = &(*x->infos)[(address & BH_ENDPOINT_IN) != 0][address & 15];
	*outside = *inside;
	outside->max_packet = bh_translate_packet(inside->type, inside->max_packet);
	outside->interval = bh_translate_interval(inside->type, l->below->speed, inside->interval);
	return outside;
}

static bool translate_refuses(const struct bh_layer *l, const struct bh_setup *setup)
{
	const struct translate *x = of_layer(l);

	return (x->translating && bh_settings_refuse(&x->settings, setup)) || bh_device_refuses(l->below, setup);
}

static struct bh_descriptors translate_descriptors(const struct bh_layer *l)
{
	const struct translate *x = of_layer(l);

	if (!x->translating)
		return bh_device_descriptors(l->below);
	return (struct bh_descriptors){x->device, (const uint8_t *const *)x->configurations, x->count};
}

/* --- what is shown -------------------------------------------------------------------------- */

static void forget(struct translate *x)
{
	for (unsigned i = 0; i < x->count; i++) {
		free(x->configurations[i]);
		free(x->others[i]);
	}
	x->count = 0;
	x->translating = false;
	bh_settings_init(&x->settings, NULL, 0);
}

/* One configuration as it is at high speed: the device's own, or made from what it is at SuperSpeed. */
static uint8_t *other_speed(const uint8_t *configuration, enum bh_speed speed)
{
	uint16_t length = bh_configuration_length(configuration);
	unsigned hidden;
	const char *why;
	uint8_t *other;

	if (speed > BH_SPEED_HIGH)
		return bh_translate_configuration(configuration, speed, BH_SPEED_HIGH, &hidden, &why);
	other = malloc(length);
	if (other)
		memcpy(other, configuration, length);
	return other;
}

/* 0; -EPROTO: there is nothing that could work; *ret_why: what is in the way. -ENOMEM. */
static int describe(struct translate *x, unsigned *ret_hidden, const char **ret_why)
{
	struct bh_descriptors d = bh_device_descriptors(x->layer.below);
	enum bh_speed speed = x->layer.below->speed;

	*ret_hidden = 0;
	*ret_why = "it does not say what it is";
	for (unsigned i = 0; d.device && i < d.configuration_count && x->count < MOST_CONFIGURATIONS; i++) {
		unsigned hidden = 0;
		const char *why;
		uint8_t *shown = bh_translate_configuration(d.configurations[i], speed, BH_SPEED_FULL, &hidden, &why), *other;

		*ret_hidden += hidden;
		if (why)
			*ret_why = why;
		if (!shown && !why)
			return -ENOMEM;
		if (!shown)
			continue;
		other = other_speed(d.configurations[i], speed);
		if (!other) {
			free(shown);
			return -ENOMEM;
		}
		other[1] = BH_DESCRIPTOR_OTHER_SPEED;
		x->configurations[x->count] = shown;
		x->others[x->count++] = other;
	}
	if (!x->count)
		return -EPROTO;
	bh_translate_device(d.device, x->count, x->device);
	bh_translate_qualifier(x->device, x->qualifier);
	bh_settings_init(&x->settings, (const uint8_t *const *)x->configurations, x->count);
	return 0;
}

/* The device below is there, at whichever speed. text: why it is refused. */
static int look(struct translate *x, char text[BH_LAYER_ERROR_SIZE])
{
	unsigned hidden;
	const char *why;
	int r;

	forget(x);
	free_streams(x);
	x->gone = false;
	bh_layer_sync(&x->layer);
	if (x->layer.below->speed <= BH_SPEED_FULL)
		return 0;
	r = describe(x, &hidden, &why);
	if (r) {
		forget(x);
		snprintf(text, BH_LAYER_ERROR_SIZE, "runs at %s and cannot work in a full-speed port: %s",
		         speed_name(x->layer.below->speed), r == -ENOMEM ? "out of memory" : why);
		return r == -ENOMEM ? r : -EPROTO;
	}
	x->translating = true;
	bh_layer_sync(&x->layer);
	snprintf(text, BH_LAYER_ERROR_SIZE, "runs at %s: it is translated for the full-speed port (translate=off would refuse it)",
	         speed_name(x->layer.below->speed));
	if (hidden)
		snprintf(text, BH_LAYER_ERROR_SIZE, "runs at %s: it is translated for the full-speed port (translate=off would refuse it), "
		         "without %u of its alternate settings: %s", speed_name(x->layer.below->speed), hidden, why);
	if (memcmp(x->said, x->device + 8, sizeof(x->said)) != 0)
		say(x, text);
	memcpy(x->said, x->device + 8, sizeof(x->said));
	return 0;
}

static int translate_attached(struct bh_layer *l)
{
	char text[BH_LAYER_ERROR_SIZE];
	int r = look(of_layer(l), text);

	if (r)
		say(of_layer(l), text);
	return r ? -EPROTO : 0;
}

static void translate_finish(struct bh_layer *l)
{
	struct translate *x = of_layer(l);

	forget(x);
	free_streams(x);
	free(x->infos);
	bh_timer_close(x->timer);
}

static const struct bh_layer_ops translate_ops = {
	.begin = translate_begin,
	.ended = translate_ended,
	.progress = translate_progress,
	.reset = translate_reset,
	.attached = translate_attached,
	.detached = translate_detached,
	.sync = translate_sync,
	.endpoint = translate_endpoint,
	.refuses = translate_refuses,
	.descriptors = translate_descriptors,
	.finish = translate_finish,
};

/* --- the row of the table ---------------------------------------------------------------------- */

/* Takes back what was put over below. */
static void undo(struct translate *x)
{
	struct bh_device *below = x->layer.below;

	if (below) {
		below->upcalls = NULL;
		below->bus_data = NULL;
	}
	translate_finish(&x->layer);
	free(x);
}

static int create(const struct bh_layer_context *c, const char *parameters, struct bh_device *below,
                  struct bh_device **ret, char *error)
{
	char text[BH_LAYER_ERROR_SIZE];
	struct translate *x;
	int r = 0;

	if (*parameters)
		return bh_layer_wrong(error, "layers=translate: takes no parameters");
	x = calloc(1, sizeof(*x));
	if (!x || !(x->infos = calloc(1, sizeof(*x->infos))) ||
	    (c->loop && !(x->timer = bh_timer_create(c->loop, look_who_stands, x)))) {
		if (x)
			free(x->infos);
		free(x);
		bh_layer_wrong(error, "out of memory");
		return -ENOMEM;
	}
	x->context = c;
	bh_layer_init(&x->layer, &translate_ops, below);
	if (!below->sticky)
		r = look(x, text);
	if (r) {
		bh_layer_wrong(error, "the device %s", text);
		undo(x);
		return r;
	}
	*ret = &x->layer.device;
	return 0;
}

static unsigned counters(const struct bh_layer *l, struct bh_layer_counter ret[BH_LAYER_COUNTERS])
{
	const struct translate *x = of_layer(l);
	const struct bh_translate_counters *c = &x->counters;
	const struct bh_layer_counter all[] = {
		{"translating", x->translating},
		{"early_bytes", c->early_bytes},
		{"early_failed", c->early_failed},
		{"guessed_ends", c->guessed_ends},
		{"went_on", c->went_on},
		{"swallowed_empty", c->swallowed_empty},
		{"added_empty", c->added_empty},
		{"dropped_ends", c->dropped_ends},
		{"split_packets", c->split_packets},
		{"dropped_bytes", c->dropped_bytes},
	};

	_Static_assert(BH_COUNT(all) <= BH_LAYER_COUNTERS, "");
	memcpy(ret, all, sizeof(all));
	return BH_COUNT(all);
}

const struct bh_layer_kind bh_layer_translate = {
	.name = "translate",
	.parameters = "",
	.help = "shows a device of high speed or SuperSpeed at full speed; there by itself, as the last, where it is needed",
	.create = create,
	.counters = counters,
};
