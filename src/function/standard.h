/*
 * What every emulated device has in common (USB 2.0, chapter 9): descriptors and the
 * standard requests for them, configurations, alternate settings, halted endpoints, remote
 * wakeup. A function describes itself by its descriptors, as they travel; which endpoints
 * there are is read from them, so that what the guest is told and what works are one.
 *
 * A function puts struct bh_standard into its own structure, passes control transfers it
 * does not know itself to bh_standard_control(), and fills its bh_device_ops from the
 * bh_standard_* functions where it has nothing to add.
 */
#ifndef FUNCTION_STANDARD_H
#define FUNCTION_STANDARD_H

#include <usb/device.h>
#include <usb/settings.h>

/* For writing descriptors down. */
#define BH_LE16(v) (uint8_t)((v) & 0xff), (uint8_t)((v) >> 8 & 0xff)

/* bmRequestType and bRequest in one number, for switches. */
#define BH_REQUEST(type, request) ((unsigned)(type) << 8 | (unsigned)(request))

static inline unsigned bh_request_of(const struct bh_transfer *t)
{
	return BH_REQUEST(t->setup.bmRequestType, t->setup.bRequest);
}

/* Static, or living as long as the device. */
struct bh_description {
	const uint8_t *device; /* the device descriptor, 18 bytes */
	/* Whole configurations, each with the length in its wTotalLength (9.6.3). */
	const uint8_t *const *configurations;
	unsigned configuration_count;
	/* ASCII; index 1 on. Index 0, the language, is made: English (US). */
	const char *const *strings;
	unsigned string_count;
};

struct bh_standard;

struct bh_standard_ops {
	/*
	 * Optional. The interface's endpoints are others from now on, or begin anew: transfers that
	 * the function still holds end here, with BH_CANCELLED; what was buffered goes. Called
	 * before its alternate setting changes, and once more after (interface -1: all of them, for
	 * the configuration changes, or a reset came). That they are the same again changes nothing.
	 */
	void (*changed)(struct bh_standard *s, int interface);
	/*
	 * Optional. The endpoint was halted by the guest, or its halt cleared (also where there was
	 * none). Transfers that the function holds of a halted one end with BH_STALL.
	 */
	void (*halted)(struct bh_standard *s, uint8_t endpoint, bool halted);
	/*
	 * Optional: for a function that keeps halts itself, with the help of halted. Is the
	 * endpoint, one of the active settings, halted?
	 */
	bool (*is_halted)(const struct bh_standard *s, uint8_t endpoint);
};

struct bh_standard {
	struct bh_device device;
	/* configuration */
	const struct bh_standard_ops *ops;
	const struct bh_description *description;

	/* state */
	struct bh_settings settings;
	bool wakeup_enabled; /* DEVICE_REMOTE_WAKEUP */
	bool suspended;
	uint16_t halts[2]; /* [in], a bit for each endpoint number */
};

/*
 * For a zeroed structure. device_ops is the function's table; speed and bMaxPacketSize0 are
 * set here, from the description. The descriptors have to make sense (asserted: they are
 * ours).
 */
void bh_standard_init(struct bh_standard *s, const struct bh_device_ops *device_ops, const struct bh_standard_ops *ops,
                      const struct bh_description *description, enum bh_speed speed);

/* Answers a control transfer: a standard request as chapter 9 has it, anything else by STALL. */
void bh_standard_control(struct bh_standard *s, struct bh_transfer *t);

/* Ends a control transfer: with data, cut to what was asked for; without; with STALL. */
void bh_answer(struct bh_transfer *t, const void *data, size_t length);
void bh_acknowledge(struct bh_transfer *t);
void bh_refuse(struct bh_transfer *t);

bool bh_standard_halted(const struct bh_standard *s, uint8_t endpoint);
void bh_standard_halt(struct bh_standard *s, uint8_t endpoint); /* by the function itself; ops->halted is not called */

/* May the device wake the bus, and is there anything to wake? Then it does. */
void bh_standard_wakeup(struct bh_standard *s);

/* For struct bh_device_ops; the device has to be the one in a struct bh_standard. */
void bh_standard_reset(struct bh_device *d);
void bh_standard_set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t);
void bh_standard_set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate, struct bh_transfer *t);
void bh_standard_clear_halt(struct bh_device *d, uint8_t endpoint, struct bh_transfer *t);
bool bh_standard_refuses(const struct bh_device *d, const struct bh_setup *setup);
const struct bh_endpoint_info *bh_standard_endpoint(const struct bh_device *d, uint8_t address);
struct bh_descriptors bh_standard_descriptors(const struct bh_device *d);
void bh_standard_suspend(struct bh_device *d, bool suspended);

#endif
