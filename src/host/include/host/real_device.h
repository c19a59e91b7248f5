/*
 * What is told of a real device, whichever way leads to it: to people, line by line, and to
 * whoever asks for its state.
 */
#ifndef HOST_REAL_DEVICE_H
#define HOST_REAL_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include <usb/device.h>

struct bh_real;

/* Where lines for people go: what arrived, departed, was refused and why. Not while they are being made. */
struct bh_real_log {
	void (*line)(void *data, const char *text); /* NULL: nowhere */
	void *data;
};

/* Of a device that one of the functions of host/ made. */
struct bh_real_info {
	bool there;               /* the guest sees it, if its port has power */
	uint16_t vendor, product; /* while it is there */
	uint64_t arrivals;        /* how often it was shown */
};
struct bh_real_info bh_real_device_info(const struct bh_device *d);

#endif
