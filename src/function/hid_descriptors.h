/* What input devices say they are: device, configuration, HID and report descriptors. */
#ifndef FUNCTION_HID_DESCRIPTORS_H
#define FUNCTION_HID_DESCRIPTORS_H

#include <function/hid.h>

#include "standard.h"

#define BH_HID_ENDPOINT (0x01 | BH_ENDPOINT_IN)

/* bDescriptorType (HID 7.1) */
enum { BH_HID_DESCRIPTOR_HID = 0x21, BH_HID_DESCRIPTOR_REPORT };

struct bh_hid_descriptors {
	struct bh_description description; /* points into this structure, which stays where it is */
	uint8_t device[18];
	uint8_t configuration[9 + 9 + 9 + 7];
	const uint8_t *configurations[1];
	const uint8_t *hid; /* as it stands in the configuration */
	const char *strings[2];
	const uint8_t *report; /* static */
	size_t report_size;
};

/* buttons: of a mouse or tablet, 3 or 5. */
void bh_hid_describe(struct bh_hid_descriptors *d, enum bh_hid_kind kind, unsigned buttons, enum bh_speed speed);

#endif
