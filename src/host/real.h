/*
 * What real devices have in common, whichever way leads to them (libusb.c, usbredir.c,
 * usbip.c): each is a sticky device that arrives, is asked what it is before a guest sees it,
 * and departs, again and again.
 *
 *   AWAY     --bh_real_arrived()-->   ASKED     its descriptors are read, by its own submit
 *   ASKED    --it has answered-->     SHOWN     bh_device_attach(): the guest sees it
 *   ASKED    --it makes no sense, is silent, or is too fast for its port-->  REFUSED
 *   any      --bh_real_departed()-->  AWAY
 *
 * The way puts struct bh_real into its own structure, and fills its bh_device_ops itself; for
 * endpoint, refuses and what becomes of the settings it has the functions below.
 */
#ifndef HOST_REAL_H
#define HOST_REAL_H

#include <uv.h>

#include <host/real_device.h>
#include <usb/device.h>
#include <usb/probe.h>
#include <usb/settings.h>

enum bh_real_state { BH_REAL_AWAY, BH_REAL_ASKED, BH_REAL_SHOWN, BH_REAL_REFUSED };

/* What the way learns; optional all. */
struct bh_real_ops {
	/* It is not shown, and was said why: let go of it, or wait until bh_real_departed() is in place. */
	void (*refused)(struct bh_real *r);
	/* The guest sees it; settings and probe are those of the device. */
	void (*shown)(struct bh_real *r);
};

struct bh_real {
	struct bh_device device;
	/* configuration */
	const struct bh_real_ops *ops;
	struct bh_real_log log;
	char name[160]; /* for people: "usb 1-1.4" */
	uv_timer_t *timer; /* how long it may take to answer; on the heap, for it is closed late */

	/* state */
	enum bh_real_state state;
	struct bh_probe probe; /* what it said of itself, when SHOWN */
	struct bh_settings settings;
	uint64_t arrivals; /* how often it was shown */
	unsigned said;     /* lines for people, of those that may still be said at once; */
	uint64_t said_ms;  /* when it was last made less, in the loop's time */
	uint64_t unsaid;   /* and those that were too many since */
};

/*
 * Of a zeroed structure: a sticky device, away. name is cut to its room, log copied.
 * 0 or -ENOMEM; bh_real_finish() takes one that failed.
 */
int bh_real_init(struct bh_real *r, uv_loop_t *loop, const struct bh_device_ops *device_ops,
                 const struct bh_real_ops *ops, const struct bh_real_log *log, const char *name);

/*
 * For destroy, in the end: nothing of the device's is under way any more. What is left to be
 * closed closes in the loop; the structure is the caller's to free.
 */
void bh_real_finish(struct bh_real *r);

/*
 * There is a way to the device: submit carries control transfers from now on, in here
 * already. Not in any operation of the device. AWAY only (asserted).
 */
void bh_real_arrived(struct bh_real *r, enum bh_speed speed);

/*
 * The way has ended. Transfers still owned are cancelled in here, by the device's cancel, which
 * has to end them at once: nothing else will. Those that had been cancelled before are not
 * cancelled again: the way ends them itself, before or after. why: "the connection was lost",
 * for the log; NULL: nothing is said. AWAY: nothing happens.
 */
void bh_real_departed(struct bh_real *r, const char *why);

/* For struct bh_device_ops. */
const struct bh_endpoint_info *bh_real_endpoint(const struct bh_device *d, uint8_t address);
bool bh_real_refuses(const struct bh_device *d, const struct bh_setup *setup);
struct bh_descriptors bh_real_descriptors(const struct bh_device *d);

/*
 * A line for people, "NAME: TEXT". One a second, and a few at once: whoever is on the other side
 * can bring them about. Those left out are counted, and the next line begins with how many.
 */
void bh_real_say(struct bh_real *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
