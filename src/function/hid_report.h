/*
 * What is down and where the pointer is, and how that looks as a report: boot reports
 * (HID, appendix B) and those that the report descriptors (hid_descriptors.c) describe.
 */
#ifndef FUNCTION_HID_REPORT_H
#define FUNCTION_HID_REPORT_H

#include "hid_text.h"

#define BH_HID_REPORT_MAX 8u
#define BH_HID_STEP       127 /* how far one report can move the mouse or turn the wheel */

struct bh_hid_state {
	/* Usages or buttons that are down, those pressed first before the others. */
	uint8_t down[256];
	unsigned down_count;
	/* The tablet's; until the first event nobody knows. */
	bool placed;
	int16_t x, y;
};

/* What is only in one report. */
struct bh_hid_motion {
	int8_t x, y, wheel;
};

/* Has the event an effect? Then the state has it. Of a movement, the state has nothing. */
bool bh_hid_apply(struct bh_hid_state *s, const struct bh_hid_event *e);

/* Into BH_HID_REPORT_MAX bytes; its length. boot: that of the boot protocol (the tablet has none). */
size_t bh_hid_report(enum bh_hid_kind kind, bool boot, const struct bh_hid_state *s, struct bh_hid_motion motion,
                     uint8_t *report);

/* The length of reports in the report protocol, which is the largest. */
uint8_t bh_hid_report_length(enum bh_hid_kind kind);

#endif
