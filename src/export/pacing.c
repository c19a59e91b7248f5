/* Service intervals: see pacing.h. */
#include "pacing.h"

#include <base/util.h>

uint64_t bh_pace_interval(const struct bh_endpoint_info *info, enum bh_speed speed)
{
	unsigned interval = BH_MAX(info->interval, 1), exponent = BH_MIN(interval, 16) - 1;

	if (speed >= BH_SPEED_HIGH)
		return 125u << exponent;
	return info->type == BH_ISOCHRONOUS ? 1000u << exponent : interval * 1000u;
}

/* The beginning of the interval that a transfer gets now; the past is not made up for. */
static uint64_t base(const struct bh_pace *p, uint64_t now_us)
{
	return p->next_us + BH_PACE_LATE_US < now_us ? now_us : p->next_us;
}

uint64_t bh_pace_begin(const struct bh_pace *p, uint64_t now_us)
{
	return BH_MAX(p->next_us, now_us);
}

void bh_pace_end(struct bh_pace *p, uint64_t begun_us, uint64_t now_us, uint64_t interval_us, uint32_t packets)
{
	uint64_t needed = BH_MAX(packets, 1) * interval_us;

	/* A device that had nothing for a while was asked in each interval, this one included. */
	if (now_us - begun_us > needed)
		p->next_us = now_us + interval_us;
	else
		p->next_us = base(p, begun_us) + needed;
}

uint64_t bh_pace_queue(struct bh_pace *p, uint64_t now_us, uint64_t interval_us, uint32_t packets)
{
	p->next_us = base(p, now_us) + packets * interval_us;
	return p->next_us;
}
