/* The descriptors of input devices: see hid_descriptors.h. */
#include "hid_descriptors.h"

#include <string.h>

#include "hid_report.h"

/* pid.codes' numbers for tests; the first is the disk's. */
#define VENDOR_ID        0x1209
#define PRODUCT_ID_FIRST 0x0002

#define HID_DESCRIPTOR_AT (9 + 9) /* in the configuration */

/* --- report descriptors (HID 6.2.2) ------------------------------------------------- */

/* As appendix B.1 has it, but for the keys: all usages there are, not only the first 101. */
static const uint8_t keyboard_descriptor[] = {
	0x05, 0x01,       /* usage page: generic desktop */
	0x09, 0x06,       /* usage: keyboard */
	0xa1, 0x01,       /* collection: application */
	0x05, 0x07,       /* usage page: keys */
	0x19, 0xe0,       /* usages 224 (left control) */
	0x29, 0xe7,       /* to 231 (right GUI) */
	0x15, 0x00,       /* from 0 */
	0x25, 0x01,       /* to 1 */
	0x75, 0x01,       /* one bit */
	0x95, 0x08,       /* each of eight */
	0x81, 0x02,       /* input: variable */
	0x75, 0x08,       /* a byte */
	0x95, 0x01,       /* alone */
	0x81, 0x01,       /* input: constant */
	0x05, 0x08,       /* usage page: LEDs */
	0x19, 0x01,       /* usages 1 (num lock) */
	0x29, 0x05,       /* to 5 (kana) */
	0x75, 0x01,       /* one bit */
	0x95, 0x05,       /* each of five */
	0x91, 0x02,       /* output: variable */
	0x75, 0x03,       /* three bits */
	0x95, 0x01,       /* once */
	0x91, 0x01,       /* output: constant */
	0x05, 0x07,       /* usage page: keys */
	0x19, 0x00,       /* usages 0 */
	0x29, 0xff,       /* to 255 */
	0x15, 0x00,       /* from 0 */
	0x26, 0xff, 0x00, /* to 255 */
	0x75, 0x08,       /* a byte */
	0x95, 0x06,       /* each of six */
	0x81, 0x00,       /* input: array */
	0xc0,             /* end */
};

#define BUTTONS(n)                                                                        \
	0x05, 0x01,             /* usage page: generic desktop */                         \
	0x09, 0x02,             /* usage: mouse */                                        \
	0xa1, 0x01,             /* collection: application */                             \
	0x09, 0x01,             /* usage: pointer */                                      \
	0xa1, 0x00,             /* collection: physical */                                \
	0x05, 0x09,             /* usage page: buttons */                                 \
	0x19, 0x01,             /* usages 1 */                                            \
	0x29, (n),              /* to n */                                                \
	0x15, 0x00,             /* from 0 */                                              \
	0x25, 0x01,             /* to 1 */                                                \
	0x75, 0x01,             /* one bit */                                             \
	0x95, (n),              /* each of n */                                           \
	0x81, 0x02,             /* input: variable */                                     \
	0x75, 8 - (n),          /* the rest of the byte */                                \
	0x95, 0x01,             /* once */                                                \
	0x81, 0x01,             /* input: constant */                                     \
	0x05, 0x01              /* usage page: generic desktop */

/* As appendix B.2 has it, and the wheel. */
#define MOUSE(n)                                                                          \
	{                                                                                 \
		BUTTONS(n),                                                               \
		0x09, 0x30, /* usages X, */                                               \
		0x09, 0x31, /* Y */                                                       \
		0x09, 0x38, /* and wheel */                                               \
		0x15, 0x81, /* from -127 */                                               \
		0x25, 0x7f, /* to 127 */                                                  \
		0x75, 0x08, /* a byte */                                                  \
		0x95, 0x03, /* each of three */                                           \
		0x81, 0x06, /* input: variable, relative */                               \
		0xc0,       /* end */                                                     \
		0xc0,       /* end */                                                     \
	}

/* A mouse that says where it is: that is how drivers take it for a pointer on the screen. */
#define TABLET(n)                                                                         \
	{                                                                                 \
		BUTTONS(n),                                                               \
		0x09, 0x30,       /* usages X */                                          \
		0x09, 0x31,       /* and Y */                                             \
		0x15, 0x00,       /* from 0 */                                            \
		0x26, 0xff, 0x7f, /* to 32767 */                                          \
		0x35, 0x00,       /* physically as well */                                \
		0x46, 0xff, 0x7f,                                                         \
		0x75, 0x10,       /* two bytes */                                         \
		0x95, 0x02,       /* each of two */                                       \
		0x81, 0x02,       /* input: variable, absolute */                         \
		0x09, 0x38,       /* usage: wheel */                                      \
		0x15, 0x81,       /* from -127 */                                         \
		0x25, 0x7f,       /* to 127 */                                            \
		0x35, 0x00,       /* without physical units */                            \
		0x45, 0x00,                                                               \
		0x75, 0x08,       /* a byte */                                            \
		0x95, 0x01,       /* alone */                                             \
		0x81, 0x06,       /* input: variable, relative */                         \
		0xc0,             /* end */                                               \
		0xc0,             /* end */                                               \
	}

static const uint8_t mouse_descriptor_3[] = MOUSE(3), mouse_descriptor_5[] = MOUSE(5);
static const uint8_t tablet_descriptor_3[] = TABLET(3), tablet_descriptor_5[] = TABLET(5);

static void choose_report_descriptor(struct bh_hid_descriptors *d, enum bh_hid_kind kind, bool five)
{
	switch (kind) {
	case BH_HID_KEYBOARD:
		d->report = keyboard_descriptor;
		d->report_size = sizeof(keyboard_descriptor);
		break;
	case BH_HID_MOUSE:
		d->report = five ? mouse_descriptor_5 : mouse_descriptor_3;
		d->report_size = sizeof(mouse_descriptor_3);
		break;
	case BH_HID_TABLET:
		d->report = five ? tablet_descriptor_5 : tablet_descriptor_3;
		d->report_size = sizeof(tablet_descriptor_3);
		break;
	}
}

/* --- the others --------------------------------------------------------------------- */

/* Low speed is as it was when there was no other: USB 1.1. */
static void make_device(struct bh_hid_descriptors *d, enum bh_hid_kind kind, enum bh_speed speed)
{
	bool low = speed == BH_SPEED_LOW;
	const uint8_t bytes[] = {
		18, BH_DESCRIPTOR_DEVICE,
		BH_LE16(low ? 0x0110 : 0x0200), /* bcdUSB */
		0, 0, 0,                        /* class: see the interface */
		low ? 8 : 64,                   /* bMaxPacketSize0 */
		BH_LE16(VENDOR_ID), BH_LE16(PRODUCT_ID_FIRST + kind),
		BH_LE16(0x0100), /* bcdDevice */
		1, 2, 0,         /* manufacturer, product, no serial number */
		1,               /* bNumConfigurations */
	};
	_Static_assert(sizeof(bytes) == sizeof(d->device), "as it says of itself");

	memcpy(d->device, bytes, sizeof(bytes));
}

/* Keys are asked for each 10 ms, as ever; pointers more often where the speed allows it (USB 2.0, 5.7.4). */
static void make_configuration(struct bh_hid_descriptors *d, enum bh_hid_kind kind, enum bh_speed speed)
{
	uint8_t protocol = kind == BH_HID_KEYBOARD ? 1 : kind == BH_HID_MOUSE ? 2 : 0;
	uint8_t interval = speed == BH_SPEED_LOW || kind == BH_HID_KEYBOARD ? 10 : 4;
	const uint8_t bytes[] = {
		9, BH_DESCRIPTOR_CONFIGURATION, BH_LE16(sizeof(d->configuration)),
		1,    /* bNumInterfaces */
		1,    /* bConfigurationValue */
		0,    /* iConfiguration */
		0xa0, /* powered by the bus, remote wakeup */
		50,   /* bMaxPower: 100 mA */
		9, BH_DESCRIPTOR_INTERFACE, 0, 0,
		1,                             /* bNumEndpoints */
		0x03, protocol != 0, protocol, /* HID; boot interface: keyboard, mouse */
		0,                             /* iInterface */
		9, BH_HID_DESCRIPTOR_HID,
		BH_LE16(0x0111), /* bcdHID */
		0,               /* bCountryCode */
		1, BH_HID_DESCRIPTOR_REPORT, BH_LE16(d->report_size),
		7, BH_DESCRIPTOR_ENDPOINT, BH_HID_ENDPOINT, BH_INTERRUPT, BH_LE16(bh_hid_report_length(kind)), interval,
	};
	_Static_assert(sizeof(bytes) == sizeof(d->configuration), "as it says of itself");

	memcpy(d->configuration, bytes, sizeof(bytes));
}

void bh_hid_describe(struct bh_hid_descriptors *d, enum bh_hid_kind kind, unsigned buttons, enum bh_speed speed)
{
	static const char *const products[] = {
		[BH_HID_KEYBOARD] = "Keyboard",
		[BH_HID_MOUSE] = "Mouse",
		[BH_HID_TABLET] = "Tablet",
	};

	choose_report_descriptor(d, kind, buttons > 3);
	make_device(d, kind, speed);
	make_configuration(d, kind, speed);
	d->configurations[0] = d->configuration;
	d->hid = d->configuration + HID_DESCRIPTOR_AT;
	d->strings[0] = "Bulkhead";
	d->strings[1] = products[kind];
	d->description = (struct bh_description){
		.device = d->device,
		.configurations = d->configurations,
		.configuration_count = 1,
		.strings = d->strings,
		.string_count = 2,
	};
}
