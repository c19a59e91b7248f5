/* The names of outcomes, as statistics and messages print them. */
#include <batch/status.h>

#include <stddef.h>

const char *bh_status_name(enum bh_status s)
{
	static const char *const names[BH_STATUS_COUNT] = {
		[BH_SUCCESS] = "success",
		[BH_STALL] = "stall",
		[BH_BABBLE] = "babble",
		[BH_NO_RESPONSE] = "no-response",
		[BH_BUS_ERROR] = "bus-error",
		[BH_CANCELLED] = "cancelled",
	};

	return (unsigned)s < BH_STATUS_COUNT ? names[s] : "?";
}
