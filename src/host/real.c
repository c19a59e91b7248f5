/* Arriving, being asked, shown and departing: see real.h. */
#include "real.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/util.h>

/* What a device may take for all of its descriptors. Of a wire's worth of them it needs milliseconds. */
#define ANSWER_MS 5000u

/* For people; then one a second. */
#define LINES_AT_ONCE 16u

static struct bh_real *of_device(const struct bh_device *d)
{
	return (struct bh_real *)bh_container_of(d, struct bh_real, device);
}

/* May one more line be said? */
static bool may_say(struct bh_real *r)
{
	uint64_t now = uv_now(r->timer->loop), seconds = (now - r->said_ms) / 1000;

	r->said -= (unsigned)BH_MIN(seconds, r->said);
	r->said_ms += seconds * 1000;
	if (r->said == LINES_AT_ONCE) {
		r->unsaid++;
		return false;
	}
	r->said++;
	return true;
}

void bh_real_say(struct bh_real *r, const char *format, ...)
{
	char text[256], left_out[48] = "", line[sizeof(text) + sizeof(r->name) + sizeof(left_out) + 2];
	va_list args;

	if (!r->log.line || !may_say(r))
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (r->unsaid)
		snprintf(left_out, sizeof(left_out), "(%llu lines left out) ", (unsigned long long)r->unsaid);
	r->unsaid = 0;
	snprintf(line, sizeof(line), "%s: %s%s", r->name, left_out, text);
	r->log.line(r->log.data, line);
}

struct bh_real_info bh_real_device_info(const struct bh_device *d)
{
	const struct bh_real *r = of_device(d);
	bool there = r->state == BH_REAL_SHOWN;

	return (struct bh_real_info){
		.there = there,
		.vendor = there ? bh_probe_vendor(&r->probe) : 0,
		.product = there ? bh_probe_product(&r->probe) : 0,
		.arrivals = r->arrivals,
	};
}

static void forget(struct bh_real *r)
{
	bh_settings_init(&r->settings, NULL, 0);
	bh_probe_finish(&r->probe);
}

static void refuse(struct bh_real *r)
{
	r->state = BH_REAL_REFUSED;
	forget(r);
	if (r->ops->refused)
		r->ops->refused(r);
}

static const char *speed_name(enum bh_speed speed)
{
	static const char *const names[] = {"low", "full", "high", "super"};

	return names[speed];
}

static void show(struct bh_real *r)
{
	uint8_t size = r->probe.device_descriptor[7];

	bh_settings_init(&r->settings, r->probe.configurations, r->probe.count);
	r->device.control_max_packet = size == 9 ? 64 : size;
	r->state = BH_REAL_SHOWN;
	switch (bh_device_attach(&r->device)) {
	case 0:
		r->arrivals++;
		bh_real_say(r, "%04x:%04x is there (%s speed)", bh_probe_vendor(&r->probe), bh_probe_product(&r->probe),
		            speed_name(r->device.speed));
		if (r->ops->shown)
			r->ops->shown(r);
		return;
	case -ENOTSUP:
		bh_real_say(r, "%04x:%04x runs at %s speed, which the guest's full-speed port cannot carry as it is (translate=off): it is not shown",
		            bh_probe_vendor(&r->probe), bh_probe_product(&r->probe), speed_name(r->device.speed));
		break;
	}
	refuse(r);
}

static void answered(struct bh_probe *p, int error)
{
	struct bh_real *r = bh_container_of(p, struct bh_real, probe);

	uv_timer_stop(r->timer);
	if (r->state != BH_REAL_ASKED)
		return; /* it departed, or was silent for too long */
	if (!error) {
		show(r);
		return;
	}
	if (error == -EPROTO)
		bh_real_say(r, "its descriptors make no sense: it is not shown");
	else
		bh_real_say(r, "it does not tell what it is (%s): it is not shown", strerror(-error));
	refuse(r);
}

static void silent(uv_timer_t *timer)
{
	struct bh_real *r = timer->data;

	bh_real_say(r, "it does not answer: it is not shown");
	refuse(r);
	bh_probe_stop(&r->probe);
}

int bh_real_init(struct bh_real *r, uv_loop_t *loop, const struct bh_device_ops *device_ops,
                 const struct bh_real_ops *ops, const struct bh_real_log *log, const char *name)
{
	r->device = (struct bh_device){.ops = device_ops, .sticky = true, .speed = BH_SPEED_FULL, .control_max_packet = 64};
	r->ops = ops;
	r->log = *log;
	snprintf(r->name, sizeof(r->name), "%s", name);
	r->timer = malloc(sizeof(*r->timer));
	if (!r->timer)
		return -ENOMEM;
	uv_timer_init(loop, r->timer);
	r->timer->data = r;
	return 0;
}

static void free_handle(uv_handle_t *h)
{
	free(h);
}

void bh_real_finish(struct bh_real *r)
{
	assert(!r->probe.running);
	forget(r);
	if (r->timer)
		uv_close((uv_handle_t *)r->timer, free_handle);
	r->timer = NULL;
}

void bh_real_arrived(struct bh_real *r, enum bh_speed speed)
{
	assert(r->state == BH_REAL_AWAY && !r->probe.running);
	r->device.speed = speed;
	r->state = BH_REAL_ASKED;
	uv_timer_start(r->timer, silent, ANSWER_MS, 0);
	bh_probe_start(&r->probe, &r->device, answered);
}

void bh_real_departed(struct bh_real *r, const char *why)
{
	enum bh_real_state state = r->state;

	if (state == BH_REAL_AWAY)
		return;
	r->state = BH_REAL_AWAY;
	uv_timer_stop(r->timer);
	bh_probe_stop(&r->probe);
	bh_device_detach(&r->device);
	if (why)
		bh_real_say(r, "%s", why);
	forget(r);
}

const struct bh_endpoint_info *bh_real_endpoint(const struct bh_device *d, uint8_t address)
{
	return bh_settings_endpoint(&of_device(d)->settings, address);
}

bool bh_real_refuses(const struct bh_device *d, const struct bh_setup *setup)
{
	return bh_settings_refuse(&of_device(d)->settings, setup);
}

struct bh_descriptors bh_real_descriptors(const struct bh_device *d)
{
	const struct bh_probe *p = &of_device(d)->probe;

	return (struct bh_descriptors){p->device_descriptor, p->configurations, p->count};
}
