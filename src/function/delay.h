/*
 * A wait that transfers go through before a device acts on them: every one the same time, so
 * that they come out in the order in which they went in. For a device that is to look like a
 * real one behind a host interface, whose turnaround it lacks.
 *
 * It holds transfers by their device_link and device_data, and ends none.
 */
#ifndef FUNCTION_DELAY_H
#define FUNCTION_DELAY_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include <base/list.h>
#include <usb/device.h>

#define BH_DELAY_MAX_US 10000000u

struct bh_delay {
	/* configuration */
	uint32_t us;
	void (*over)(struct bh_delay *d, struct bh_transfer *t);
	void (*closed)(struct bh_delay *d);

	/* state */
	struct bh_list held; /* transfers, the first is over first */
	uv_timer_t timer;    /* for that one */
};

/*
 * us: 1 to BH_DELAY_MAX_US; the loop's timers make it up to a millisecond more, never less.
 * over is told of each transfer from the loop, when it is held no longer; it may call
 * everything here. Stays where it is until it is closed.
 */
void bh_delay_init(struct bh_delay *d, uv_loop_t *loop, uint32_t us,
                   void (*over)(struct bh_delay *d, struct bh_transfer *t));

/* Nothing may be held. closed is told from the loop, never in here. */
void bh_delay_close(struct bh_delay *d, void (*closed)(struct bh_delay *d));

void bh_delay_hold(struct bh_delay *d, struct bh_transfer *t);
void bh_delay_release(struct bh_delay *d, struct bh_transfer *t); /* before its time; it is held */

bool bh_delay_holds(const struct bh_delay *d, const struct bh_transfer *t);

#define BH_DELAY_ANY (-1)

/* The first that is held of an endpoint (its bEndpointAddress; control: 0), or of any; NULL: none. */
struct bh_transfer *bh_delay_first(const struct bh_delay *d, int endpoint);

/* Of so many that move evenly while the transfer is held, how many have by now? */
uint32_t bh_delay_share(const struct bh_delay *d, const struct bh_transfer *t, uint32_t total);

#endif
