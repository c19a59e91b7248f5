/* See translate_descriptors.h. */
#include "translate_descriptors.h"

#include <stdlib.h>
#include <string.h>

#include <base/util.h>
#include <usb/settings.h>

enum { ASSOCIATION = 11, COMPANION = 0x30, ISOCHRONOUS_COMPANION = 0x31 };

#define INTERFACE_SIZE 9u
#define ENDPOINT_SIZE  7u
#define USB_2_0        0x0200u

#define FULL_BULK        64u
#define FULL_INTERRUPT   64u
#define FULL_ISOCHRONOUS 1023u
#define HIGH_BULK        512u
#define HIGH_ISOCHRONOUS 1024u

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static void put16(uint8_t *p, uint16_t value)
{
	p[0] = (uint8_t)value;
	p[1] = (uint8_t)(value >> 8);
}

void bh_translate_device(const uint8_t from[18], unsigned configurations, uint8_t ret[18])
{
	memcpy(ret, from, 18);
	if (get16(ret + 2) > USB_2_0)
		put16(ret + 2, USB_2_0);
	ret[7] = 64;
	ret[17] = (uint8_t)configurations;
}

void bh_translate_qualifier(const uint8_t device[18], uint8_t ret[BH_QUALIFIER_SIZE])
{
	ret[0] = BH_QUALIFIER_SIZE;
	ret[1] = BH_DESCRIPTOR_QUALIFIER;
	memcpy(ret + 2, device + 2, 6); /* bcdUSB, class, subclass, protocol, bMaxPacketSize0 */
	ret[8] = device[17];
	ret[9] = 0;
}

/* --- endpoints --------------------------------------------------------------------------- */

uint16_t bh_translate_packet(enum bh_endpoint_type type, uint16_t max_packet)
{
	return type == BH_ISOCHRONOUS ? max_packet : BH_MIN(max_packet, (uint16_t)FULL_BULK);
}

/*
 * Bits of 125 us: 2^(bInterval - 1) of them. Interrupt endpoints count frames at full speed,
 * isochronous ones 2^(bInterval - 1) frames (9.6.6, table 9-13).
 */
uint8_t bh_translate_interval(enum bh_endpoint_type type, enum bh_speed from, uint8_t interval)
{
	uint8_t exponent = interval < 1 ? 0 : (uint8_t)(BH_MIN(interval, 16) - 1);

	if (from < BH_SPEED_HIGH)
		return interval;
	switch (type) {
	case BH_INTERRUPT:
		return exponent <= 3 ? 1 : exponent >= 11 ? 255 : (uint8_t)(1u << (exponent - 3));
	case BH_ISOCHRONOUS:
		return exponent <= 3 ? 1 : (uint8_t)(exponent - 2);
	case BH_BULK:
	case BH_CONTROL:
		break;
	}
	return 0;
}

/* The companion that follows an endpoint, or NULL. */
static const uint8_t *companion_of(const uint8_t *endpoint, const uint8_t *end)
{
	const uint8_t *p = endpoint + endpoint[0];

	return p < end && p[1] == COMPANION && p[0] >= 6 ? p : NULL;
}

/* Why a slower bus cannot carry what this endpoint does; NULL: it can. */
static const char *obstacle(const uint8_t *endpoint, const uint8_t *end, enum bh_speed to)
{
	const uint8_t *companion = companion_of(endpoint, end);
	unsigned max_packet, more;

	if (endpoint[0] < ENDPOINT_SIZE)
		return "an endpoint descriptor that makes no sense";
	max_packet = get16(endpoint + 4) & 0x7ff;
	more = get16(endpoint + 4) >> 11 & 3;
	switch (endpoint[3] & 3) {
	case BH_BULK:
		return companion && companion[3] & 0x1f ? "a bulk endpoint with streams" : NULL;
	case BH_ISOCHRONOUS:
		if (more || (companion && (companion[2] || companion[3] & 3)))
			return "an isochronous endpoint with several packets at a time";
		if (to == BH_SPEED_HIGH)
			return max_packet > HIGH_ISOCHRONOUS ? "an isochronous endpoint with packets that are too large" : NULL;
		if (max_packet > FULL_ISOCHRONOUS)
			return "an isochronous endpoint with packets of more than 1023 bytes";
		return endpoint[6] < 4 ? "an isochronous endpoint with more than one packet in a frame" : NULL;
	}
	return NULL;
}

static void translate_endpoint(uint8_t *p, enum bh_speed from, enum bh_speed to)
{
	enum bh_endpoint_type type = (enum bh_endpoint_type)(p[3] & 3);
	uint16_t max_packet = get16(p + 4) & 0x7ff;

	if (to == BH_SPEED_HIGH) {
		put16(p + 4, type == BH_BULK ? HIGH_BULK : max_packet);
		return;
	}
	put16(p + 4, bh_translate_packet(type, max_packet));
	p[6] = bh_translate_interval(type, from, p[6]);
}

/* --- settings ------------------------------------------------------------------------------ */

/* Which settings the slower bus cannot carry. */
struct hidden {
	uint32_t settings[BH_SETTINGS_INTERFACES][8]; /* a bit for each bAlternateSetting */
	uint32_t interfaces; /* a bit for each, hidden whole */
	unsigned count;
	const char *why;
};

static bool is_interface(const uint8_t *p)
{
	return p[1] == BH_DESCRIPTOR_INTERFACE && p[0] >= INTERFACE_SIZE && p[2] < BH_SETTINGS_INTERFACES;
}

static bool is_hidden(const struct hidden *h, const uint8_t *interface)
{
	return (h->interfaces >> interface[2] & 1) || (h->settings[interface[2]][interface[3] / 32] >> interface[3] % 32 & 1);
}

static void hide(struct hidden *h, const uint8_t *interface, const char *why)
{
	if (!is_hidden(h, interface))
		h->count++;
	h->settings[interface[2]][interface[3] / 32] |= 1u << interface[3] % 32;
	if (interface[3] == 0)
		h->interfaces |= 1u << interface[2];
	h->why = why;
}

static void find_hidden(const uint8_t *configuration, const uint8_t *end, enum bh_speed to, struct hidden *h)
{
	const uint8_t *interface = NULL;

	for (const uint8_t *p = configuration; p < end; p += p[0]) {
		const char *why;

		if (is_interface(p))
			interface = p;
		else if (p[1] == BH_DESCRIPTOR_ENDPOINT && interface && (why = obstacle(p, end, to)))
			hide(h, interface, why);
	}
}

/* An association (interface numbers from p[2] on, p[3] of them) that has lost one is none any more. */
static bool is_broken(const struct hidden *h, const uint8_t *association)
{
	for (unsigned i = 0; association[0] >= 8 && i < association[3] && association[2] + i < BH_SETTINGS_INTERFACES; i++)
		if (h->interfaces >> (association[2] + i) & 1)
			return true;
	return false;
}

/* SuperSpeed counts in 8 mA, the others in 2 (9.6.3); a slower bus gives 500 at most. */
static uint8_t power(uint8_t max_power, enum bh_speed from)
{
	unsigned units = from >= BH_SPEED_SUPER ? max_power * 4u : max_power;

	return (uint8_t)BH_MIN(units, 250u);
}

/* What is left of it, to `to`, which has room for all of it; how many bytes. */
static uint16_t copy_shown(const uint8_t *configuration, const uint8_t *end, const struct hidden *h, enum bh_speed from,
                           enum bh_speed to_speed, uint8_t *to, unsigned *ret_interfaces, unsigned *ret_endpoints)
{
	uint32_t seen = 0;
	unsigned endpoints = 0;
	bool hiding = false;
	uint8_t *q = to;

	for (const uint8_t *p = configuration; p < end; p += p[0]) {
		if (p[1] == COMPANION || p[1] == ISOCHRONOUS_COMPANION)
			continue;
		if (p[1] == ASSOCIATION)
			hiding = is_broken(h, p);
		else if (is_interface(p))
			hiding = is_hidden(h, p);
		if (hiding)
			continue;
		if (is_interface(p))
			seen |= 1u << p[2];
		memcpy(q, p, p[0]);
		if (p[1] == BH_DESCRIPTOR_ENDPOINT && p[0] >= ENDPOINT_SIZE) {
			translate_endpoint(q, from, to_speed);
			endpoints++;
		}
		q += p[0];
	}
	*ret_interfaces = (unsigned)__builtin_popcount(seen);
	*ret_endpoints = endpoints;
	return (uint16_t)(q - to);
}

uint8_t *bh_translate_configuration(const uint8_t *configuration, enum bh_speed from, enum bh_speed to,
                                    unsigned *ret_hidden, const char **ret_why)
{
	const uint8_t *end = configuration + bh_configuration_length(configuration);
	struct hidden h = {0};
	uint8_t *shown = malloc((size_t)(end - configuration));
	unsigned interfaces, endpoints;
	uint16_t length;

	*ret_why = NULL;
	if (!shown)
		return NULL;
	find_hidden(configuration, end, to, &h);
	*ret_hidden = h.count;
	*ret_why = h.why;
	length = copy_shown(configuration, end, &h, from, to, shown, &interfaces, &endpoints);
	if (endpoints == 0 && h.count) {
		free(shown);
		return NULL;
	}
	put16(shown + BH_CONFIGURATION_TOTAL, length);
	shown[4] = (uint8_t)interfaces;
	shown[8] = power(shown[8], from);
	return shown;
}
