/* Input state and reports: see hid_report.h. */
#include "hid_report.h"

#include <string.h>

#include <base/util.h>

#define MODIFIERS          0xe0u /* the first of eight usages */
#define KEYS               6u    /* in a keyboard's report */
#define ERROR_ROLL_OVER    0x01u /* in place of each key where more are down */

/* --- state -------------------------------------------------------------------------- */

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

/* --- reports (HID, appendix B) ------------------------------------------------------ */

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
