/* See timer.h. */
#include "timer.h"

#include <stdlib.h>

#include <base/util.h>

struct bh_timer *bh_timer_create(uv_loop_t *loop, void (*due)(void *data), void *data)
{
	struct bh_timer *t = malloc(sizeof(*t));

	if (!t)
		return NULL;
	uv_timer_init(loop, &t->uv);
	t->due = due;
	t->data = data;
	return t;
}

static void timer_due(uv_timer_t *uv)
{
	struct bh_timer *t = bh_container_of(uv, struct bh_timer, uv);

	t->due(t->data);
}

void bh_timer_set(struct bh_timer *t, uint64_t us)
{
	uv_update_time(t->uv.loop); /* it counts from there */
	uv_timer_start(&t->uv, timer_due, (us + 999) / 1000, 0);
}

void bh_timer_stop(struct bh_timer *t)
{
	uv_timer_stop(&t->uv);
}

static void timer_closed(uv_handle_t *h)
{
	free(bh_container_of(h, struct bh_timer, uv));
}

void bh_timer_close(struct bh_timer *t)
{
	if (t)
		uv_close((uv_handle_t *)&t->uv, timer_closed);
}
