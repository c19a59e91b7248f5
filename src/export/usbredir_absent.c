/* In the place of usbredir_server.c where libusbredirparser was not there when this was built. */
#include <export/usbredir_server.h>

#include <errno.h>

int bh_usbredir_server_create(struct uv_loop_s *loop, int listener, struct bh_device *device, const struct bh_export_log *log,
                              struct bh_usbredir_server **ret)
{
	(void)loop, (void)listener, (void)device, (void)log, (void)ret;
	return -ENOTSUP;
}

struct bh_export_counters bh_usbredir_server_counters(const struct bh_usbredir_server *s)
{
	(void)s;
	return (struct bh_export_counters){0};
}

void bh_usbredir_server_destroy(struct bh_usbredir_server *s)
{
	(void)s;
}
