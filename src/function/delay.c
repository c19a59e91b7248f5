/*
 * The wait before a device acts: see delay.h. One timer, for the transfer that is over first.
 * libuv's count whole milliseconds of a clock of their own that may be behind; what is over is
 * decided by the real one.
 */
#include "delay.h"

#include <base/util.h>

static uint64_t now_us(void)
{
	return uv_hrtime() / 1000;
}

/* When it came is kept in a pointer, which may be narrower: differences are right all the same. */
static uint32_t waited_us(const struct bh_transfer *t)
{
	return (uint32_t)((uintptr_t)now_us() - (uintptr_t)t->device_data);
}

static struct bh_transfer *first(const struct bh_delay *d)
{
	return bh_list_empty(&d->held) ? NULL : bh_container_of(d->held.next, struct bh_transfer, device_link);
}

static void timer_due(uv_timer_t *timer);

/* For the first, if there is one. */
static void set_timer(struct bh_delay *d)
{
	struct bh_transfer *t = first(d);
	uint32_t waited;

	if (!t)
		return;
	waited = waited_us(t);
	uv_update_time(d->timer.loop); /* it counts from there */
	uv_timer_start(&d->timer, timer_due, waited < d->us ? (d->us - waited + 999) / 1000 : 0, 0);
}

/* Those that come while others are told have yet to wait, so this ends. */
static void timer_due(uv_timer_t *timer)
{
	struct bh_delay *d = timer->data;
	struct bh_transfer *t;

	while ((t = first(d)) && waited_us(t) >= d->us) {
		bh_list_remove(&t->device_link);
		d->over(d, t);
	}
	set_timer(d);
}

void bh_delay_init(struct bh_delay *d, uv_loop_t *loop, uint32_t us,
                   void (*over)(struct bh_delay *d, struct bh_transfer *t))
{
	*d = (struct bh_delay){.us = us, .over = over};
	bh_list_init(&d->held);
	uv_timer_init(loop, &d->timer);
	d->timer.data = d;
}

static void timer_closed(uv_handle_t *handle)
{
	struct bh_delay *d = handle->data;

	d->closed(d);
}

void bh_delay_close(struct bh_delay *d, void (*closed)(struct bh_delay *d))
{
	d->closed = closed;
	uv_close((uv_handle_t *)&d->timer, timer_closed);
}

void bh_delay_hold(struct bh_delay *d, struct bh_transfer *t)
{
	t->device_data = (void *)(uintptr_t)now_us();
	bh_list_append(&d->held, &t->device_link);
	if (first(d) == t)
		set_timer(d);
}

void bh_delay_release(struct bh_delay *d, struct bh_transfer *t)
{
	bh_list_remove(&t->device_link);
	if (!first(d))
		uv_timer_stop(&d->timer);
}

bool bh_delay_holds(const struct bh_delay *d, const struct bh_transfer *t)
{
	bh_list_each(held, &d->held, struct bh_transfer, device_link)
		if (held == t)
			return true;
	return false;
}

struct bh_transfer *bh_delay_first(const struct bh_delay *d, int endpoint)
{
	bh_list_each(held, &d->held, struct bh_transfer, device_link)
		if (endpoint == BH_DELAY_ANY || held->endpoint == endpoint)
			return held;
	return NULL;
}

uint32_t bh_delay_share(const struct bh_delay *d, const struct bh_transfer *t, uint32_t total)
{
	return (uint32_t)((uint64_t)total * BH_MIN(waited_us(t), d->us) / d->us);
}
