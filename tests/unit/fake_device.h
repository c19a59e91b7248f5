/*
 * A device of a few lines: it takes transfers and ends them when, and as, the test
 * says. Endpoints: 1 bulk OUT, 2 bulk IN, 3 interrupt IN, in every configuration.
 */
#ifndef TESTS_FAKE_DEVICE_H
#define TESTS_FAKE_DEVICE_H

#include <string.h>

#include <base/util.h>
#include <usb/device.h>

struct fake_device {
	struct bh_device device;
	struct bh_transfer *held; /* taken, not ended */
	unsigned submits, cancels, resets, suspends, resumes, destroyed;
	uint8_t configuration, halted_cleared, interface, alternate;
	uint8_t out[8192]; /* bytes of the last OUT */
	bool hold;         /* do not end transfers by itself */
	enum bh_status status;
	uint32_t actual_limit; /* bytes at most */
};

static const struct bh_endpoint_info fake_endpoints[] = {
	{.address = 0x01, .type = BH_BULK, .max_packet = 64},
	{.address = 0x82, .type = BH_BULK, .max_packet = 64},
	{.address = 0x83, .type = BH_INTERRUPT, .max_packet = 8, .interval = 1},
};

static inline struct fake_device *fake_device_of(const struct bh_device *d)
{
	return bh_container_of(d, struct fake_device, device);
}

static inline bool fake_is_in(const struct bh_transfer *t)
{
	return t->type == BH_CONTROL ? t->setup.bmRequestType & BH_ENDPOINT_IN : t->endpoint & BH_ENDPOINT_IN;
}

/* Ends the held transfer. */
static inline void fake_device_end(struct fake_device *f, enum bh_status status, uint32_t actual)
{
	struct bh_transfer *t = f->held;
	uint8_t byte;

	f->held = NULL;
	if (fake_is_in(t))
		for (uint32_t i = 0; i < actual; i++) {
			byte = (uint8_t)(i * 5 + 1);
			bh_transfer_write(t, i, &byte, 1);
		}
	else
		bh_transfer_read(t, 0, f->out, BH_MIN(actual, sizeof(f->out)));
	bh_transfer_done(t, status, actual);
}

static inline void fake_device_submit(struct bh_device *d, struct bh_transfer *t)
{
	struct fake_device *f = fake_device_of(d);

	f->submits++;
	f->held = t;
	if (!f->hold)
		fake_device_end(f, f->status, BH_MIN(t->length, f->actual_limit));
}

static inline void fake_device_cancel(struct bh_device *d, struct bh_transfer *t)
{
	struct fake_device *f = fake_device_of(d);

	f->cancels++;
	if (f->held == t)
		fake_device_end(f, BH_CANCELLED, 0);
}

static inline void fake_device_reset(struct bh_device *d)
{
	fake_device_of(d)->resets++;
	fake_device_of(d)->configuration = 0;
}

static inline void fake_device_set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	fake_device_of(d)->configuration = value;
	bh_transfer_done(t, value < 8 ? BH_SUCCESS : BH_STALL, 0);
}

static inline void fake_device_set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate,
                                             struct bh_transfer *t)
{
	fake_device_of(d)->interface = interface;
	fake_device_of(d)->alternate = alternate;
	bh_transfer_done(t, BH_SUCCESS, 0);
}

static inline void fake_device_clear_halt(struct bh_device *d, uint8_t endpoint, struct bh_transfer *t)
{
	fake_device_of(d)->halted_cleared = endpoint;
	bh_transfer_done(t, BH_SUCCESS, 0);
}

static inline const struct bh_endpoint_info *fake_device_endpoint(const struct bh_device *d, uint8_t address)
{
	(void)d;
	for (size_t i = 0; i < BH_COUNT(fake_endpoints); i++)
		if (fake_endpoints[i].address == address)
			return &fake_endpoints[i];
	return NULL;
}

static inline void fake_device_suspend(struct bh_device *d, bool suspended)
{
	*(suspended ? &fake_device_of(d)->suspends : &fake_device_of(d)->resumes) += 1;
}

static inline void fake_device_destroy(struct bh_device *d)
{
	struct fake_device *f = fake_device_of(d);

	if (f->held)
		fake_device_end(f, BH_CANCELLED, 0);
	f->destroyed++;
}

static const struct bh_device_ops fake_device_ops = {
	.submit = fake_device_submit,
	.cancel = fake_device_cancel,
	.reset = fake_device_reset,
	.set_configuration = fake_device_set_configuration,
	.set_interface = fake_device_set_interface,
	.clear_halt = fake_device_clear_halt,
	.endpoint = fake_device_endpoint,
	.suspend = fake_device_suspend,
	.destroy = fake_device_destroy,
};

static inline void fake_device_init(struct fake_device *f, enum bh_speed speed)
{
	memset(f, 0, sizeof(*f));
	f->device.ops = &fake_device_ops;
	f->device.speed = speed;
	f->device.control_max_packet = 8;
	f->actual_limit = UINT32_MAX;
}

#endif
