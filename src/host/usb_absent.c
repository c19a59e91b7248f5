/* In the place of usb.c where libusb was not there when this was built. */
#include <host/usb.h>

#include <errno.h>
#include <stdio.h>

int bh_usb_create(struct uv_loop_s *loop, const struct bh_usb_config *config, struct bh_device **ret, char *error,
                  size_t error_size)
{
	(void)loop, (void)config, (void)ret;
	snprintf(error, error_size,
	         "usb: this bulkhead was built without libusb; install libusb-1.0-0-dev and build it again");
	return -ENOTSUP;
}

void bh_usb_close(struct bh_device *d, void (*closed)(void *data, int error), void *data)
{
	(void)d, (void)closed, (void)data;
}

struct bh_usb_counters bh_usb_counters(const struct bh_device *d)
{
	(void)d;
	return (struct bh_usb_counters){0};
}
