/*
 * An emulated hub (USB 2.0, chapter 11) at full speed: so a controller with two ports holds
 * any number of devices. What is plugged into its ports, and which packets they carry, is the
 * bus's to know (bh_hub_port_power() and those after it); the hub is what the guest's driver
 * talks to. Which of chapter 11 it does is listed at the head of hub.c.
 */
#ifndef FUNCTION_HUB_H
#define FUNCTION_HUB_H

#include <usb/device.h>

/* Read while the hub is made, not kept. */
struct bh_hub_config {
	unsigned ports; /* 1 to BH_HUB_MAX_PORTS; 0: 4 */
};

/*
 * The hub is the caller's until bh_bus_attach() takes it; bh_device_destroy() ends it. 0, or
 * -EINVAL (no such number of ports) or -ENOMEM; then *ret is untouched.
 */
int bh_hub_create(const struct bh_hub_config *config, struct bh_device **ret);

#endif
