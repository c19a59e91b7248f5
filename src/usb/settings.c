/* Configurations, alternate settings and their endpoints: see usb/settings.h. */
#include <usb/settings.h>

#include <string.h>

#include <base/util.h>

#define INTERFACE_SIZE 9u
#define ENDPOINT_SIZE  7u

#define MASS_STORAGE 0x08u
#define BULK_ONLY    0x50u

enum { SET_CONFIGURATION = 0x00 << 8 | 9, SET_INTERFACE = 0x01 << 8 | 11 };

uint16_t bh_configuration_length(const uint8_t *configuration)
{
	return (uint16_t)(configuration[2] | configuration[3] << 8);
}

bool bh_configuration_check(const uint8_t *configuration, uint32_t length)
{
	const uint8_t *p = configuration, *end = p + length;

	if (length < BH_CONFIGURATION_SIZE || p[0] < BH_CONFIGURATION_SIZE || p[1] != BH_DESCRIPTOR_CONFIGURATION ||
	    bh_configuration_length(p) != length || p[BH_CONFIGURATION_VALUE] == 0)
		return false;
	for (; p < end; p += p[0])
		if (end - p < 2 || p[0] < 2 || p[0] > end - p)
			return false;
	return true;
}

/* The next descriptor of an interface or endpoint with all its fields, from p on; NULL: none. */
static const uint8_t *next(const uint8_t *p, const uint8_t *end)
{
	for (; p < end; p += p[0])
		if ((p[1] == BH_DESCRIPTOR_INTERFACE && p[0] >= INTERFACE_SIZE && p[2] < BH_SETTINGS_INTERFACES) ||
		    (p[1] == BH_DESCRIPTOR_ENDPOINT && p[0] >= ENDPOINT_SIZE))
			return p;
	return NULL;
}

#define each_descriptor(p, configuration)                                                                            \
	for (const uint8_t *end_ = (configuration) + bh_configuration_length(configuration), *p = next(configuration, end_); \
	     p; p = next(p + p[0], end_))

const uint8_t *bh_settings_find(const struct bh_settings *s, uint8_t value)
{
	for (unsigned i = 0; i < s->configuration_count && value; i++)
		if (s->configurations[i][BH_CONFIGURATION_VALUE] == value)
			return s->configurations[i];
	return NULL;
}

bool bh_settings_has(const struct bh_settings *s, uint8_t interface, uint8_t alternate)
{
	const uint8_t *configuration = bh_settings_find(s, s->configuration);

	if (!configuration)
		return false;
	each_descriptor (p, configuration)
		if (p[1] == BH_DESCRIPTOR_INTERFACE && p[2] == interface && p[3] == alternate)
			return true;
	return false;
}

bool bh_settings_refuse(const struct bh_settings *s, const struct bh_setup *setup)
{
	uint16_t value = bh_get_le16(setup->wValue), index = bh_get_le16(setup->wIndex);

	switch (setup->bmRequestType << 8 | setup->bRequest) {
	case SET_CONFIGURATION:
		return value > 0xff || (value && !bh_settings_find(s, (uint8_t)value));
	case SET_INTERFACE:
		return value > 0xff || index > 0xff || !bh_settings_has(s, (uint8_t)index, (uint8_t)value);
	}
	return false;
}

static bool is_bulk_only(const uint8_t *interface)
{
	return interface[5] == MASS_STORAGE && interface[7] == BULK_ONLY;
}

static void add_endpoint(struct bh_settings *s, const uint8_t *p, const uint8_t *interface)
{
	uint16_t max_packet = (uint16_t)((p[4] | p[5] << 8) & 0x7ff);

	if (!(p[2] & 15) || p[2] & 0x70 || !(p[3] & 3) || max_packet < 1 || max_packet > 1024 ||
	    s->endpoint_count == BH_SETTINGS_ENDPOINTS || bh_settings_endpoint(s, p[2]))
		return;
	s->endpoints[s->endpoint_count++] = (struct bh_endpoint_info){
		.address = p[2],
		.type = (enum bh_endpoint_type)(p[3] & 3),
		.max_packet = max_packet,
		.interval = p[6],
		.interface = interface[2],
		.finishes = is_bulk_only(interface), /* it answers whatever it was asked for */
		.bulk_only = is_bulk_only(interface),
	};
}

static void collect_endpoints(struct bh_settings *s)
{
	const uint8_t *configuration = bh_settings_find(s, s->configuration), *interface = NULL;

	s->endpoint_count = 0;
	if (!configuration)
		return;
	each_descriptor (p, configuration) {
		if (p[1] == BH_DESCRIPTOR_INTERFACE)
			interface = p;
		else if (interface && interface[3] == s->alternates[interface[2]])
			add_endpoint(s, p, interface);
	}
}

void bh_settings_init(struct bh_settings *s, const uint8_t *const *configurations, unsigned count)
{
	*s = (struct bh_settings){.configurations = configurations, .configuration_count = count};
}

void bh_settings_configure(struct bh_settings *s, uint8_t value)
{
	memset(s->alternates, 0, sizeof(s->alternates));
	s->configuration = bh_settings_find(s, value) ? value : 0;
	collect_endpoints(s);
}

void bh_settings_set_interface(struct bh_settings *s, uint8_t interface, uint8_t alternate)
{
	if (!bh_settings_has(s, interface, alternate))
		return;
	s->alternates[interface] = alternate;
	collect_endpoints(s);
}

const struct bh_endpoint_info *bh_settings_endpoint(const struct bh_settings *s, uint8_t address)
{
	for (unsigned i = 0; i < s->endpoint_count; i++)
		if (s->endpoints[i].address == address)
			return &s->endpoints[i];
	return NULL;
}
