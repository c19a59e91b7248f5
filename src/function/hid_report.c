/* Input state and reports: see hid_report.h. */
#include "hid_report.h"

#include <string.h>

#include <base/util.h>

#define MODIFIERS          0xe0u /* the first of eight usages */
#define KEYS               6u    /* in a keyboard's report */
#define ERROR_ROLL_OVER    0x01u /* in place of each key where more are down */

/* --- state ------------------------------------------------------------------------------ */

static unsigned find(const struct bh_hid_state *s, uint8_t code)
{
	unsigned i = 0;

	while (i < s->down_count && s->down[i] != code)
		i++;
	return i;
}

static bool press(struct bh_hid_state *s, uint8_t code)
{
	if (find(s, code) < s->down_count)
		return false;
	s->down[s->down_count++] = code;
	return true;
}

static bool release(struct bh_hid_state *s, uint8_t code)
{
	unsigned i = find(s, code);

	if (i == s->down_count)
		return false;
	s->down_count--;
	memmove(s->down + i, s->down + i + 1, s->down_count - i);
	return true;
}

static bool place(struct bh_hid_state *s, int16_t x, int16_t y)
{
	if (s->placed && s->x == x && s->y == y)
		return false;
	s->placed = true;
	s->x = x;
	s->y = y;
	return true;
}

bool bh_hid_apply(struct bh_hid_state *s, const struct bh_hid_event *e)
{
	switch (e->type) {
	case BH_HID_DOWN:
		return press(s, e->code);
	case BH_HID_UP:
		return release(s, e->code);
	case BH_HID_AT:
		return place(s, e->x, e->y);
	case BH_HID_MOVE:
		return e->x || e->y;
	case BH_HID_WHEEL:
		return e->y;
	}
	return false;
}

/* --- reports (HID, appendix B) ------------------------------------------------------------ */

static size_t keyboard_report(const struct bh_hid_state *s, uint8_t *p)
{
	unsigned keys = 0;

	memset(p, 0, 8);
	for (unsigned i = 0; i < s->down_count; i++) {
		if (s->down[i] >= MODIFIERS)
			p[0] |= (uint8_t)(1u << (s->down[i] - MODIFIERS));
		else if (keys++ < KEYS)
			p[1 + keys] = s->down[i];
	}
	if (keys > KEYS)
		memset(p + 2, ERROR_ROLL_OVER, KEYS);
	return 8;
}

static uint8_t buttons_of(const struct bh_hid_state *s)
{
	unsigned bits = 0;

	for (unsigned i = 0; i < s->down_count; i++)
		bits |= 1u << s->down[i];
	return (uint8_t)bits;
}

/* Of the boot report, bits 3 on of the first byte are the device's own: its other buttons. */
static size_t mouse_report(const struct bh_hid_state *s, bool boot, struct bh_hid_motion m, uint8_t *p)
{
	p[0] = buttons_of(s);
	p[1] = (uint8_t)m.x;
	p[2] = (uint8_t)m.y;
	p[3] = (uint8_t)m.wheel;
	return boot ? 3 : 4;
}

static size_t tablet_report(const struct bh_hid_state *s, struct bh_hid_motion m, uint8_t *p)
{
	p[0] = buttons_of(s);
	p[1] = (uint8_t)s->x;
	p[2] = (uint8_t)(s->x >> 8);
	p[3] = (uint8_t)s->y;
	p[4] = (uint8_t)(s->y >> 8);
	p[5] = (uint8_t)m.wheel;
	return 6;
}

size_t bh_hid_report(enum bh_hid_kind kind, bool boot, const struct bh_hid_state *s, struct bh_hid_motion motion,
                     uint8_t *report)
{
	switch (kind) {
	case BH_HID_KEYBOARD:
		return keyboard_report(s, report);
	case BH_HID_MOUSE:
		return mouse_report(s, boot, motion, report);
	case BH_HID_TABLET:
		return tablet_report(s, motion, report);
	}
	return 0;
}

uint8_t bh_hid_report_length(enum bh_hid_kind kind)
{
	static const uint8_t lengths[] = {[BH_HID_KEYBOARD] = 8, [BH_HID_MOUSE] = 4, [BH_HID_TABLET] = 6};

	return lengths[kind];
}

/* --- report descriptors (HID 6.2.2) ---------------------------------------------------------- */

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

static const uint8_t mouse_descriptor_3[] = MOUSE(3);
static const uint8_t mouse_descriptor_5[] = MOUSE(5);
static const uint8_t tablet_descriptor_3[] = TABLET(3);
static const uint8_t tablet_descriptor_5[] = TABLET(5);

const uint8_t *bh_hid_report_descriptor(enum bh_hid_kind kind, unsigned buttons, size_t *ret_length)
{
	if (kind == BH_HID_KEYBOARD) {
		*ret_length = sizeof(keyboard_descriptor);
		return keyboard_descriptor;
	}
	if (kind == BH_HID_MOUSE) {
		*ret_length = sizeof(mouse_descriptor_3);
		return buttons > 3 ? mouse_descriptor_5 : mouse_descriptor_3;
	}
	*ret_length = sizeof(tablet_descriptor_3);
	return buttons > 3 ? tablet_descriptor_5 : tablet_descriptor_3;
}
