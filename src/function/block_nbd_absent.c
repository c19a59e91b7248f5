/* In the place of block_nbd.c where libnbd was not there when this was built. */
#include "block.h"

#include <errno.h>
#include <stdio.h>

int bh_block_nbd_open(uv_loop_t *loop, const char *uri, bool readonly, unsigned timeout_ms,
                      void (*log)(void *data, const char *text), void *log_data, struct bh_block **ret, char *error,
                      size_t error_size)
{
	(void)loop, (void)readonly, (void)timeout_ms, (void)log, (void)log_data, (void)ret;
	snprintf(error, error_size, "disk '%s': this bulkhead was built without libnbd; install libnbd-dev and build it again", uri);
	return -ENOTSUP;
}
