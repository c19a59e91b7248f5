/* The wrappers around the device seam: the only way through its table. */
#include <usb/device.h>

#include <assert.h>
#include <errno.h>
#include <string.h>

#include <base/util.h>

void bh_device_submit(struct bh_device *d, struct bh_transfer *t)
{
	t->actual = 0;
	d->ops->submit(d, t);
}

void bh_device_cancel(struct bh_device *d, struct bh_transfer *t)
{
	d->ops->cancel(d, t);
}

void bh_device_reset(struct bh_device *d)
{
	d->ops->reset(d);
}

void bh_device_set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	t->actual = 0;
	d->ops->set_configuration(d, value, t);
}

void bh_device_set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate, struct bh_transfer *t)
{
	t->actual = 0;
	d->ops->set_interface(d, interface, alternate, t);
}

void bh_device_clear_halt(struct bh_device *d, uint8_t endpoint, struct bh_transfer *t)
{
	t->actual = 0;
	d->ops->clear_halt(d, endpoint, t);
}

bool bh_device_refuses(const struct bh_device *d, const struct bh_setup *setup)
{
	return d->ops->refuses && d->ops->refuses(d, setup);
}

const struct bh_endpoint_info *bh_device_endpoint(const struct bh_device *d, uint8_t address)
{
	return d->ops->endpoint(d, address);
}

struct bh_descriptors bh_device_descriptors(const struct bh_device *d)
{
	return d->ops->descriptors ? d->ops->descriptors(d) : (struct bh_descriptors){0};
}

#define REQUEST(type, request) ((type) << 8 | (request))
enum {
	CLEAR_ENDPOINT_FEATURE = REQUEST(0x02, 1),
	SET_CONFIGURATION = REQUEST(0x00, 9),
	SET_INTERFACE = REQUEST(0x01, 11),
};
#define ENDPOINT_HALT 0

enum bh_operation bh_device_operation(const struct bh_device *d, const struct bh_setup *setup)
{
	uint16_t value = bh_get_le16(setup->wValue), index = bh_get_le16(setup->wIndex);

	switch (REQUEST(setup->bmRequestType, setup->bRequest)) {
	case SET_CONFIGURATION:
		return value > 0xff || bh_device_refuses(d, setup) ? BH_OPERATION_SUBMIT : BH_OPERATION_SET_CONFIGURATION;
	case SET_INTERFACE:
		return value > 0xff || index > 0xff || bh_device_refuses(d, setup) ? BH_OPERATION_SUBMIT
		                                                                   : BH_OPERATION_SET_INTERFACE;
	case CLEAR_ENDPOINT_FEATURE:
		return value == ENDPOINT_HALT && (index & 15) && !(index & ~0x8fu) && bh_device_endpoint(d, (uint8_t)index)
		               ? BH_OPERATION_CLEAR_HALT
		               : BH_OPERATION_SUBMIT;
	}
	return BH_OPERATION_SUBMIT;
}

void bh_device_request(struct bh_device *d, struct bh_transfer *t)
{
	uint8_t value = t->setup.wValue.b[0], index = t->setup.wIndex.b[0];

	switch (bh_device_operation(d, &t->setup)) {
	case BH_OPERATION_SUBMIT:
		bh_device_submit(d, t);
		break;
	case BH_OPERATION_SET_CONFIGURATION:
		bh_device_set_configuration(d, value, t);
		break;
	case BH_OPERATION_SET_INTERFACE:
		bh_device_set_interface(d, index, value, t);
		break;
	case BH_OPERATION_CLEAR_HALT:
		bh_device_clear_halt(d, index, t);
		break;
	}
}

void bh_device_suspend(struct bh_device *d, bool suspended)
{
	if (d->ops->suspend)
		d->ops->suspend(d, suspended);
}

void bh_device_power_on(struct bh_device *d)
{
	if (d->ops->power_on)
		d->ops->power_on(d);
}

void bh_device_destroy(struct bh_device *d)
{
	if (d)
		d->ops->destroy(d);
}

int bh_device_attach(struct bh_device *d)
{
	return d->upcalls ? d->upcalls->attached(d) : -ENOTCONN;
}

void bh_device_detach(struct bh_device *d)
{
	if (d->upcalls)
		d->upcalls->detached(d);
}

void bh_device_wakeup(struct bh_device *d)
{
	if (d->upcalls)
		d->upcalls->wakeup(d);
}

void bh_hub_port_power(struct bh_device *d, unsigned port, bool on)
{
	if (d->upcalls)
		d->upcalls->port_power(d, port, on);
}

void bh_hub_port_reset(struct bh_device *d, unsigned port)
{
	if (d->upcalls)
		d->upcalls->port_reset(d, port);
}

void bh_hub_port_enable(struct bh_device *d, unsigned port, bool enabled)
{
	if (d->upcalls)
		d->upcalls->port_enable(d, port, enabled);
}

void bh_hub_port_suspend(struct bh_device *d, unsigned port, bool suspended)
{
	if (d->upcalls)
		d->upcalls->port_suspend(d, port, suspended);
}

const struct bh_device *bh_hub_port_device(const struct bh_device *d, unsigned port)
{
	return d->upcalls ? d->upcalls->port_device(d, port) : NULL;
}

void bh_transfer_done(struct bh_transfer *t, enum bh_status status, uint32_t actual)
{
	t->actual = actual;
	t->done(t, status);
}

void bh_transfer_progress(struct bh_transfer *t, uint32_t actual)
{
	t->actual = actual;
	if (t->progress)
		t->progress(t);
}

/* Calls for the parts of the spans that [offset, offset + length) covers. */
static void copy(const struct bh_transfer *t, uint32_t offset, uint8_t *to, const uint8_t *from, uint32_t length)
{
	assert(offset <= t->length && length <= t->length - offset);
	for (unsigned i = 0; i < t->span_count && length; i++) {
		uint32_t size = (uint32_t)t->spans[i].iov_len, part;
		uint8_t *base = t->spans[i].iov_base;

		if (offset >= size) {
			offset -= size;
			continue;
		}
		part = BH_MIN(size - offset, length);
		if (to) {
			memcpy(to, base + offset, part);
			to += part;
		} else {
			memcpy(base + offset, from, part);
			from += part;
		}
		length -= part;
		offset = 0;
	}
}

void bh_transfer_read(const struct bh_transfer *t, uint32_t offset, void *to, uint32_t length)
{
	copy(t, offset, to, NULL, length);
}

void bh_transfer_write(const struct bh_transfer *t, uint32_t offset, const void *from, uint32_t length)
{
	copy(t, offset, NULL, from, length);
}
