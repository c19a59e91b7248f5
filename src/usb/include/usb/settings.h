/*
 * What a device's configuration descriptors say, and which configuration and alternate
 * settings are active (USB 2.0, 9.2.3, 9.6): so that whoever has a device at hand knows its
 * endpoints. The bytes may come from anybody: what cannot be walked is refused, what makes
 * no sense is passed over.
 */
#ifndef USB_SETTINGS_H
#define USB_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include <usb/device.h>

#define BH_SETTINGS_INTERFACES 32u /* bInterfaceNumber: 0 to 31 */
#define BH_SETTINGS_ENDPOINTS  30u /* 1 to 15, each way */

/* bDescriptorType (table 9-5) */
enum { BH_DESCRIPTOR_DEVICE = 1, BH_DESCRIPTOR_CONFIGURATION, BH_DESCRIPTOR_STRING, BH_DESCRIPTOR_INTERFACE,
       BH_DESCRIPTOR_ENDPOINT, BH_DESCRIPTOR_QUALIFIER, BH_DESCRIPTOR_OTHER_SPEED };

/* The offsets (table 9-10) of what is looked at, in bytes. */
enum { BH_CONFIGURATION_TOTAL = 2, BH_CONFIGURATION_VALUE = 5, BH_CONFIGURATION_SIZE = 9 };

struct bh_settings {
	/* configuration: whole ones, each with the length in its wTotalLength; the owner's */
	const uint8_t *const *configurations;
	unsigned configuration_count;

	/* state */
	uint8_t configuration; /* the bConfigurationValue of the active one; 0: none */
	uint8_t alternates[BH_SETTINGS_INTERFACES];
	struct bh_endpoint_info endpoints[BH_SETTINGS_ENDPOINTS]; /* of the active settings */
	unsigned endpoint_count;
};

/*
 * Is this a configuration descriptor with all that belongs to it, so many bytes of it, that
 * can be walked from descriptor to descriptor? Nothing here takes any other.
 */
bool bh_configuration_check(const uint8_t *configuration, uint32_t length);

/* What wTotalLength says; of nine bytes. */
uint16_t bh_configuration_length(const uint8_t *configuration);

/* Not configured. The bytes stay the caller's, and where they are. */
void bh_settings_init(struct bh_settings *s, const uint8_t *const *configurations, unsigned count);

/* The bytes of the configuration with this bConfigurationValue; NULL: there is none. */
const uint8_t *bh_settings_find(const struct bh_settings *s, uint8_t value);

/* Does the active configuration have this interface with this alternate setting? */
bool bh_settings_has(const struct bh_settings *s, uint8_t interface, uint8_t alternate);

/*
 * Is this a SET_CONFIGURATION or SET_INTERFACE that asks for what the descriptors do not
 * have (9.4.7, 9.4.10)? As bh_device_ops.refuses.
 */
bool bh_settings_refuse(const struct bh_settings *s, const struct bh_setup *setup);

/* Make it active, all interfaces at their first setting; of what there is not, nothing is. 0: none. */
void bh_settings_configure(struct bh_settings *s, uint8_t value);
void bh_settings_set_interface(struct bh_settings *s, uint8_t interface, uint8_t alternate);

/* As bh_device_ops.endpoint. */
const struct bh_endpoint_info *bh_settings_endpoint(const struct bh_settings *s, uint8_t address);

#endif
