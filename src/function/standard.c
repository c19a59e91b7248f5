/* Chapter 9 for emulated devices: see standard.h. */
#include "standard.h"

#include <assert.h>
#include <string.h>

#include <base/util.h>

#define ENDPOINT_HALT        0u
#define DEVICE_REMOTE_WAKEUP 1u

#define REMOTE_WAKEUP 0x20u /* bmAttributes (9.6.3) */

#define STRING_MAX 126u /* characters */

static struct bh_standard *of_device(struct bh_device *d)
{
	return bh_container_of(d, struct bh_standard, device);
}

void bh_answer(struct bh_transfer *t, const void *data, size_t length)
{
	uint32_t n = BH_MIN((uint32_t)length, t->length);

	bh_transfer_write(t, 0, data, n);
	bh_transfer_done(t, BH_SUCCESS, n);
}

void bh_acknowledge(struct bh_transfer *t)
{
	bh_transfer_done(t, BH_SUCCESS, t->setup.bmRequestType & BH_ENDPOINT_IN ? 0 : t->length);
}

void bh_refuse(struct bh_transfer *t)
{
	bh_transfer_done(t, BH_STALL, 0);
}

/* --- what the descriptors say -------------------------------------------------------- */

static const uint8_t *active_configuration(const struct bh_standard *s)
{
	return bh_settings_find(&s->settings, s->settings.configuration);
}

/*
 * That an endpoint's transfers end by themselves is the function's to say, for all of them
 * (bh_device.finishes): it knows better than its descriptors.
 */
static void endpoints_changed(struct bh_standard *s)
{
	for (unsigned i = 0; i < s->settings.endpoint_count; i++)
		s->settings.endpoints[i].finishes = false;
}

const struct bh_endpoint_info *bh_standard_endpoint(const struct bh_device *d, uint8_t address)
{
	return bh_settings_endpoint(&bh_container_of(d, struct bh_standard, device)->settings, address);
}

/* That they can be walked, and that interfaces and endpoints are as many as they say. */
static void check_configuration(const uint8_t *configuration)
{
	const uint8_t *p = configuration, *end = p + bh_configuration_length(p), *interface = NULL;
	unsigned endpoints = 0;

	assert(bh_configuration_check(configuration, bh_configuration_length(configuration)));
	for (; p < end; p += p[0]) {
		if (p[1] == BH_DESCRIPTOR_INTERFACE) {
			assert(p[0] == 9 && p[2] < BH_SETTINGS_INTERFACES && (!interface || endpoints == interface[4]));
			interface = p;
			endpoints = 0;
		} else if (p[1] == BH_DESCRIPTOR_ENDPOINT) {
			assert(p[0] >= 7 && interface && p[2] & 15);
			endpoints++;
		}
	}
	assert(interface && endpoints == interface[4]);
}

/* --- halts ----------------------------------------------------------------------------- */

bool bh_standard_halted(const struct bh_standard *s, uint8_t endpoint)
{
	if (s->ops->is_halted && endpoint & 0x7f)
		return s->ops->is_halted(s, endpoint);
	return s->halts[(endpoint & BH_ENDPOINT_IN) != 0] >> (endpoint & 15) & 1;
}

void bh_standard_halt(struct bh_standard *s, uint8_t endpoint)
{
	s->halts[(endpoint & BH_ENDPOINT_IN) != 0] |= (uint16_t)(1u << (endpoint & 15));
}

static void set_halt(struct bh_standard *s, uint8_t endpoint, bool halted)
{
	if (halted)
		bh_standard_halt(s, endpoint);
	else
		s->halts[(endpoint & BH_ENDPOINT_IN) != 0] &= (uint16_t) ~(1u << (endpoint & 15));
	if (s->ops->halted)
		s->ops->halted(s, endpoint, halted);
}

/* Nothing to clear, where it cannot be halted, is no error. */
static void clear_halt(struct bh_standard *s, uint8_t endpoint)
{
	if (endpoint & 0x7f)
		set_halt(s, endpoint, false);
}

/* --- standard requests (9.4) ------------------------------------------------------------- */

enum {
	GET_STATUS_DEVICE = BH_REQUEST(0x80, 0),
	GET_STATUS_INTERFACE = BH_REQUEST(0x81, 0),
	GET_STATUS_ENDPOINT = BH_REQUEST(0x82, 0),
	CLEAR_FEATURE_DEVICE = BH_REQUEST(0x00, 1),
	SET_FEATURE_DEVICE = BH_REQUEST(0x00, 3),
	SET_FEATURE_ENDPOINT = BH_REQUEST(0x02, 3),
	CLEAR_FEATURE_ENDPOINT = BH_REQUEST(0x02, 1), /* of endpoint 0: of the others, the bus calls clear_halt */
	GET_DESCRIPTOR = BH_REQUEST(0x80, 6),
	GET_CONFIGURATION = BH_REQUEST(0x80, 8),
	GET_INTERFACE = BH_REQUEST(0x81, 10),
};

static void get_string(const struct bh_standard *s, uint8_t index, struct bh_transfer *t)
{
	uint8_t p[2 + 2 * STRING_MAX];
	size_t n;

	if (index > s->description->string_count || !s->description->string_count) {
		bh_refuse(t);
		return;
	}
	if (index == 0) {
		bh_answer(t, (const uint8_t[]){4, BH_DESCRIPTOR_STRING, BH_LE16(0x0409)}, 4);
		return;
	}
	n = strlen(s->description->strings[index - 1]);
	n = BH_MIN(n, STRING_MAX);
	for (size_t i = 0; i < n; i++) {
		p[2 + 2 * i] = (uint8_t)s->description->strings[index - 1][i];
		p[3 + 2 * i] = 0;
	}
	p[0] = (uint8_t)(2 + 2 * n);
	p[1] = BH_DESCRIPTOR_STRING;
	bh_answer(t, p, p[0]);
}

/* A full-speed-only device has no qualifier (9.6.2). */
static void get_descriptor(const struct bh_standard *s, struct bh_transfer *t)
{
	const struct bh_description *d = s->description;
	uint16_t value = bh_get_le16(t->setup.wValue);
	uint8_t type = (uint8_t)(value >> 8), index = (uint8_t)value;

	if (type == BH_DESCRIPTOR_DEVICE && index == 0)
		bh_answer(t, d->device, d->device[0]);
	else if (type == BH_DESCRIPTOR_CONFIGURATION && index < d->configuration_count)
		bh_answer(t, d->configurations[index], bh_configuration_length(d->configurations[index]));
	else if (type == BH_DESCRIPTOR_STRING)
		get_string(s, index, t);
	else
		bh_refuse(t);
}

/* The active configuration's attributes (9.6.3): self-powered, remote wakeup; the first one's where none is. */
static uint8_t attributes(const struct bh_standard *s)
{
	const uint8_t *p = active_configuration(s);

	return p ? p[7] : s->description->configurations[0][7];
}

static void get_device_status(const struct bh_standard *s, struct bh_transfer *t)
{
	uint8_t status = (uint8_t)((attributes(s) >> 6 & 1) | s->wakeup_enabled << 1);

	bh_answer(t, (const uint8_t[]){status, 0}, 2);
}

static void device_feature(struct bh_standard *s, bool set, struct bh_transfer *t)
{
	if (bh_get_le16(t->setup.wValue) != DEVICE_REMOTE_WAKEUP || !(attributes(s) & REMOTE_WAKEUP)) {
		bh_refuse(t);
		return;
	}
	s->wakeup_enabled = set;
	bh_acknowledge(t);
}

static void interface_request(const struct bh_standard *s, struct bh_transfer *t)
{
	uint16_t interface = bh_get_le16(t->setup.wIndex);

	if (interface >= BH_SETTINGS_INTERFACES ||
	    !bh_settings_has(&s->settings, (uint8_t)interface, s->settings.alternates[interface]))
		bh_refuse(t);
	else if (bh_request_of(t) == GET_INTERFACE)
		bh_answer(t, &s->settings.alternates[interface], 1);
	else
		bh_answer(t, (const uint8_t[]){0, 0}, 2);
}

static bool known_endpoint(const struct bh_standard *s, uint16_t index)
{
	return index <= 0xff && ((index & 0x7f) == 0 || bh_standard_endpoint(&s->device, (uint8_t)index));
}

/* Isochronous endpoints have no handshake to stall with (9.4.5), and 0 stalls request by request (8.5.3.4). */
static bool can_halt(const struct bh_standard *s, uint8_t endpoint)
{
	const struct bh_endpoint_info *e = bh_standard_endpoint(&s->device, endpoint);

	return e && (e->type == BH_BULK || e->type == BH_INTERRUPT);
}

static void endpoint_request(struct bh_standard *s, struct bh_transfer *t)
{
	uint16_t index = bh_get_le16(t->setup.wIndex);
	uint8_t endpoint = (uint8_t)index;

	if (!known_endpoint(s, index)) {
		bh_refuse(t);
	} else if (bh_request_of(t) == GET_STATUS_ENDPOINT) {
		bh_answer(t, (const uint8_t[]){bh_standard_halted(s, endpoint), 0}, 2);
	} else if (bh_get_le16(t->setup.wValue) != ENDPOINT_HALT) {
		bh_refuse(t);
	} else if (bh_request_of(t) == CLEAR_FEATURE_ENDPOINT) {
		clear_halt(s, endpoint);
		bh_acknowledge(t);
	} else if (can_halt(s, endpoint)) {
		set_halt(s, endpoint, true);
		bh_acknowledge(t);
	} else {
		bh_refuse(t);
	}
}

void bh_standard_control(struct bh_standard *s, struct bh_transfer *t)
{
	switch (bh_request_of(t)) {
	case GET_DESCRIPTOR:
		get_descriptor(s, t);
		return;
	case GET_CONFIGURATION:
		bh_answer(t, &s->settings.configuration, 1);
		return;
	case GET_STATUS_DEVICE:
		get_device_status(s, t);
		return;
	case SET_FEATURE_DEVICE:
	case CLEAR_FEATURE_DEVICE:
		device_feature(s, bh_request_of(t) == SET_FEATURE_DEVICE, t);
		return;
	case GET_STATUS_INTERFACE:
	case GET_INTERFACE:
		interface_request(s, t);
		return;
	case GET_STATUS_ENDPOINT:
	case SET_FEATURE_ENDPOINT:
	case CLEAR_FEATURE_ENDPOINT:
		endpoint_request(s, t);
		return;
	}
	bh_refuse(t);
}

/* --- the device's operations ----------------------------------------------------------------- */

static void changed(struct bh_standard *s, int interface)
{
	if (s->ops->changed)
		s->ops->changed(s, interface);
}

static void clear_halts(struct bh_standard *s, uint8_t interface)
{
	for (unsigned i = 0; i < s->settings.endpoint_count; i++) {
		const struct bh_endpoint_info *e = &s->settings.endpoints[i];

		if (e->interface == interface)
			s->halts[(e->address & BH_ENDPOINT_IN) != 0] &= (uint16_t) ~(1u << (e->address & 15));
	}
}

static void configure(struct bh_standard *s, uint8_t value)
{
	changed(s, -1);
	memset(s->halts, 0, sizeof(s->halts));
	bh_settings_configure(&s->settings, value);
	s->wakeup_enabled = s->wakeup_enabled && attributes(s) & REMOTE_WAKEUP;
	endpoints_changed(s);
	changed(s, -1);
}

void bh_standard_reset(struct bh_device *d)
{
	struct bh_standard *s = of_device(d);

	s->wakeup_enabled = s->suspended = false;
	configure(s, 0);
}

void bh_standard_set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	struct bh_standard *s = of_device(d);

	if (value && !bh_settings_find(&s->settings, value)) {
		bh_refuse(t);
		return;
	}
	configure(s, value);
	bh_acknowledge(t);
}

bool bh_standard_refuses(const struct bh_device *d, const struct bh_setup *setup)
{
	return bh_settings_refuse(&bh_container_of(d, struct bh_standard, device)->settings, setup);
}

struct bh_descriptors bh_standard_descriptors(const struct bh_device *d)
{
	const struct bh_description *description = bh_container_of(d, struct bh_standard, device)->description;

	return (struct bh_descriptors){description->device, description->configurations, description->configuration_count};
}

void bh_standard_set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate, struct bh_transfer *t)
{
	struct bh_standard *s = of_device(d);

	if (!bh_settings_has(&s->settings, interface, alternate)) {
		bh_refuse(t);
		return;
	}
	changed(s, interface);
	clear_halts(s, interface);
	bh_settings_set_interface(&s->settings, interface, alternate);
	endpoints_changed(s);
	clear_halts(s, interface);
	changed(s, interface);
	bh_acknowledge(t);
}

void bh_standard_clear_halt(struct bh_device *d, uint8_t endpoint, struct bh_transfer *t)
{
	struct bh_standard *s = of_device(d);

	if (!known_endpoint(s, endpoint)) {
		bh_refuse(t);
		return;
	}
	clear_halt(s, endpoint);
	bh_acknowledge(t);
}

void bh_standard_suspend(struct bh_device *d, bool suspended)
{
	of_device(d)->suspended = suspended;
}

void bh_standard_wakeup(struct bh_standard *s)
{
	if (s->suspended && s->wakeup_enabled)
		bh_device_wakeup(&s->device);
}

void bh_standard_init(struct bh_standard *s, const struct bh_device_ops *device_ops, const struct bh_standard_ops *ops,
                      const struct bh_description *description, enum bh_speed speed)
{
	assert(description->device[0] == 18 && description->device[17] == description->configuration_count);
	assert(description->configuration_count);
	for (unsigned i = 0; i < description->configuration_count; i++)
		check_configuration(description->configurations[i]);
	s->ops = ops;
	s->description = description;
	bh_settings_init(&s->settings, description->configurations, description->configuration_count);
	s->device.ops = device_ops;
	s->device.speed = speed;
	s->device.control_max_packet = description->device[7];
}
