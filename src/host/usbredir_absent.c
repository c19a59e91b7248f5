/* In the place of usbredir.c where libusbredirparser was not there when this was built. */
#include <host/usbredir.h>

#include <errno.h>
#include <stdio.h>

int bh_usbredir_create(struct uv_loop_s *loop, const struct bh_usbredir_config *config, struct bh_device **ret,
                       char *error, size_t error_size)
{
	(void)loop, (void)config, (void)ret;
	snprintf(error, error_size,
	         "usbredir: this bulkhead was built without usbredir; install libusbredirparser-dev and build it again");
	return -ENOTSUP;
}

struct bh_usbredir_counters bh_usbredir_counters(const struct bh_device *d)
{
	(void)d;
	return (struct bh_usbredir_counters){0};
}

bool bh_usbredir_connected(const struct bh_device *d)
{
	(void)d;
	return false;
}
