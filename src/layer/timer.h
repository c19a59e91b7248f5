/* One timer of a layer's, on the heap, for the loop closes it after the layer is gone. */
#ifndef LAYER_TIMER_H
#define LAYER_TIMER_H

#include <stdint.h>
#include <uv.h>

struct bh_timer {
	uv_timer_t uv;
	void (*due)(void *data);
	void *data;
};

/* NULL: out of memory. due is called from the loop; the layer's until bh_timer_close(). */
struct bh_timer *bh_timer_create(uv_loop_t *loop, void (*due)(void *data), void *data);

/* In so many microseconds, rounded up to whole milliseconds; instead of what was set before. */
void bh_timer_set(struct bh_timer *t, uint64_t us);
void bh_timer_stop(struct bh_timer *t);

/* NULL is allowed. */
void bh_timer_close(struct bh_timer *t);

#endif
