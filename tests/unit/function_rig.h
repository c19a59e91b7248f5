/*
 * A host for the tests of emulated devices: transfers that say how they ended, and control
 * requests that go where the bus would send them.
 */
#ifndef TESTS_FUNCTION_RIG_H
#define TESTS_FUNCTION_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <base/util.h>
#include <usb/device.h>

/* One transfer, and how it ended. */
struct flight {
	struct bh_transfer transfer;
	struct iovec span;
	bool done;
	enum bh_status status;
	unsigned progress;
};

static inline void flight_done(struct bh_transfer *t, enum bh_status status)
{
	struct flight *f = bh_container_of(t, struct flight, transfer);

	assert_false(f->done);
	f->done = true;
	f->status = status;
}

static inline void flight_progress(struct bh_transfer *t)
{
	struct flight *f = bh_container_of(t, struct flight, transfer);

	assert_false(f->done);
	f->progress++;
}

static inline void flight_init(struct flight *f, uint8_t endpoint, enum bh_endpoint_type type, void *data,
                               uint32_t length)
{
	*f = (struct flight){.span = {.iov_base = data, .iov_len = length}};
	f->transfer = (struct bh_transfer){
		.endpoint = endpoint,
		.type = type,
		.spans = &f->span,
		.span_count = 1,
		.length = length,
		.done = flight_done,
		.progress = flight_progress,
	};
}

static inline void launch(struct bh_device *d, struct flight *f, uint8_t endpoint, enum bh_endpoint_type type,
                          void *data, uint32_t length)
{
	flight_init(f, endpoint, type, data, length);
	bh_device_submit(d, &f->transfer);
}

/* A transfer that ends at once. */
static inline enum bh_status transfer(struct bh_device *d, uint8_t endpoint, enum bh_endpoint_type type, void *data,
                                      uint32_t length, uint32_t *ret_actual)
{
	struct flight f;

	launch(d, &f, endpoint, type, data, length);
	assert_true(f.done);
	*ret_actual = f.transfer.actual;
	return f.status;
}

/* A control request that ends at once. data: wLength bytes, or NULL where that is 0. */
static inline enum bh_status request(struct bh_device *d, uint8_t type, uint8_t code, uint16_t value, uint16_t index,
                                     void *data, uint16_t length, uint32_t *ret_actual)
{
	struct flight f;

	flight_init(&f, 0, BH_CONTROL, data, length);
	f.transfer.setup = (struct bh_setup){type, code, bh_put_le16(value), bh_put_le16(index), bh_put_le16(length)};
	if (type == 0 && code == 9)
		bh_device_set_configuration(d, (uint8_t)value, &f.transfer);
	else if (type == 1 && code == 11)
		bh_device_set_interface(d, (uint8_t)index, (uint8_t)value, &f.transfer);
	else if (type == 2 && code == 1 && value == 0 && index & 15)
		bh_device_clear_halt(d, (uint8_t)index, &f.transfer);
	else
		bh_device_submit(d, &f.transfer);
	assert_true(f.done);
	if (ret_actual)
		*ret_actual = f.transfer.actual;
	return f.status;
}

static inline enum bh_status set_configuration(struct bh_device *d, uint8_t value)
{
	return request(d, 0, 9, value, 0, NULL, 0, NULL);
}

static inline enum bh_status set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate)
{
	return request(d, 1, 11, alternate, interface, NULL, 0, NULL);
}

static inline enum bh_status set_halt(struct bh_device *d, uint8_t endpoint)
{
	return request(d, 2, 3, 0, endpoint, NULL, 0, NULL);
}

static inline enum bh_status clear_halt(struct bh_device *d, uint8_t endpoint)
{
	return request(d, 2, 1, 0, endpoint, NULL, 0, NULL);
}

/* The first byte of the endpoint's status; 0xff: it has none. */
static inline uint8_t endpoint_status(struct bh_device *d, uint16_t index)
{
	uint8_t b[2] = {0xee, 0xee};
	uint32_t n;

	if (request(d, 0x82, 0, 0, index, b, 2, &n) != BH_SUCCESS)
		return 0xff;
	assert_int_equal(n, 2);
	assert_int_equal(b[1], 0);
	return b[0];
}

#endif
