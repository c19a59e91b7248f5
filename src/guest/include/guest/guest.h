/*
 * The guest seam: what a controller needs of whoever runs the virtual machine.
 * vfio_user implements it for a machine in another process; tests, benchmarks
 * and emulators ([0103]) implement it for one in their own.
 */
#ifndef GUEST_GUEST_H
#define GUEST_GUEST_H

#include <guest/memory.h>

struct bh_guest;

/* All mandatory; none blocks; none calls back into the controller. */
struct bh_guest_ops {
	/* The INTx line: raised or lowered. Called at changes only. */
	void (*interrupt_level)(struct bh_guest *g, bool raised);
	/* One message-signalled interrupt. */
	void (*interrupt_message)(struct bh_guest *g, unsigned vector);
	/* Microseconds of a clock that never goes back. */
	uint64_t (*now_us)(struct bh_guest *g);
	/*
	 * The controller wants its run function called at this time (on the clock of
	 * now_us) rather than at the one it asked for before. UINT64_MAX: never.
	 */
	void (*run_at)(struct bh_guest *g, uint64_t at_us);
};

struct bh_guest {
	const struct bh_guest_ops *ops;
	struct bh_memory memory;
};

#endif
