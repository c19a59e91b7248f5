/*
 * The time of periodic endpoints (USB 2.0, 5.6.4, 5.7.4): on a bus each is asked once in a
 * service interval, so that a device that always has an answer cannot flood anybody. Here there
 * is no bus, but a clock of microseconds.
 */
#ifndef EXPORT_PACING_H
#define EXPORT_PACING_H

#include <usb/device.h>

struct bh_pace {
	uint64_t next_us; /* when the next interval begins */
};

/* An endpoint's service interval, in microseconds: at least 125. Whatever bInterval says. */
uint64_t bh_pace_interval(const struct bh_endpoint_info *info, enum bh_speed speed);

/*
 * Intervals follow each other, so that a timer that is late does not slow them down; but one
 * that is later than BH_PACE_LATE_US begins anew, so that nothing is made up for in a burst.
 */
#define BH_PACE_LATE_US 16000u

/* Interrupt: when may a transfer begin? Now, or later. */
uint64_t bh_pace_begin(const struct bh_pace *p, uint64_t now_us);

/* It began and ended then, and so many packets moved: the next one has its interval after those. */
void bh_pace_end(struct bh_pace *p, uint64_t begun_us, uint64_t now_us, uint64_t interval_us, uint32_t packets);

/* Isochronous: so many packets are queued; when has the last one's interval passed? */
uint64_t bh_pace_queue(struct bh_pace *p, uint64_t now_us, uint64_t interval_us, uint32_t packets);

#endif
