/*
 * Asking a device what it is, as a host does when one is plugged in (USB 2.0, 9.4.3): its
 * device descriptor and every configuration. By the device seam, so that it works for
 * whatever is behind that. Everything that is answered may be the answer of an enemy.
 */
#ifndef USB_PROBE_H
#define USB_PROBE_H

#include <stdint.h>

#include <usb/device.h>
#include <usb/settings.h>

#define BH_PROBE_CONFIGURATIONS 8u

struct bh_probe {
	/* what was found; the probe's until bh_probe_finish() */
	uint8_t device_descriptor[18]; /* checked: bMaxPacketSize0 is 8, 16, 32 or 64, or 9 of SuperSpeed */
	const uint8_t *configurations[BH_PROBE_CONFIGURATIONS]; /* checked: bh_configuration_check() */
	unsigned count;

	/* state */
	struct bh_device *device;
	void (*done)(struct bh_probe *p, int error);
	struct bh_transfer transfer;
	struct iovec span;
	uint8_t *buffer;
	unsigned next; /* the configuration that is asked for; */
	bool whole;    /* all of it, or the nine bytes that tell how long it is */
	bool running, stopped;
};

/*
 * Of a zeroed or finished structure, which stays where it is until done() was called: once,
 * perhaps before this returns. error: 0; -EPROTO: what was answered makes no sense;
 * -EIO: it refused, or did not answer; -ENOMEM; -ECANCELED: bh_probe_stop(). Configurations
 * beyond the eighth are left out. It waits for an answer as long as the device does.
 */
void bh_probe_start(struct bh_probe *p, struct bh_device *d, void (*done)(struct bh_probe *p, int error));

/* End it soon: done() still comes, perhaps before this returns. Not running: nothing happens. */
void bh_probe_stop(struct bh_probe *p);

/* Frees what was found. Not while it runs. */
void bh_probe_finish(struct bh_probe *p);

static inline uint16_t bh_probe_vendor(const struct bh_probe *p)
{
	return (uint16_t)(p->device_descriptor[8] | p->device_descriptor[9] << 8);
}

static inline uint16_t bh_probe_product(const struct bh_probe *p)
{
	return (uint16_t)(p->device_descriptor[10] | p->device_descriptor[11] << 8);
}

#endif
