/* --device usb: a device of this host. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <host/usb.h>

#include "../devices.h"
#include "../say.h"

static const struct bh_option_key keys[] = {
	{.key = "vendorid", .value = "HEX", .help = "such as 0525; 'bulkhead devices' lists what there is"},
	{.key = "productid", .value = "HEX", .help = "such as a4a5"},
	{.key = "serial", .value = "TEXT", .help = "its serial number"},
	{.key = "hostbus", .value = "N", .help = "the bus it is on"},
	{.key = "hostport", .value = "1.4.2", .help = "with hostbus: the ports that lead to it; the same however often it is plugged in"},
	{.key = "hostaddr", .value = "N", .help = "with hostbus: its address, until it is plugged in anew"},
	{.key = "hostdevice", .value = "PATH", .help = "instead: its node, /dev/bus/usb/BUS/ADDRESS"},
	{.key = "fd", .value = "N", .help = "instead: its node, opened by whoever started us; when it goes, it is gone"},
	{.key = "guest-reset", .value = "on|off", .help = "a reset of the port resets the device; default on"},
	{0},
};

static void say(void *data, const char *text)
{
	(void)data;
	bh_say("%s", text);
}

/* -1 where there is none. */
static int parse_id(const struct bh_options *o, const char *key, int *ret, char *error)
{
	const char *text = bh_options_get(o, key);
	char *end;
	unsigned long id;

	*ret = -1;
	if (!text)
		return 0;
	id = strtoul(text, &end, 16);
	if (!isxdigit((unsigned char)text[0]) || *end || id > 0xffff) {
		snprintf(error, BH_ERROR_SIZE, "usb: %s=%s: say four hexadecimal digits, such as 0525", key, text);
		return -EINVAL;
	}
	*ret = (int)id;
	return 0;
}

static int parse_port(const struct bh_options *o, const char **ret, char *error)
{
	const char *text = *ret = bh_options_get(o, "hostport");

	if (!text || (isdigit((unsigned char)text[0]) && strspn(text, "0123456789.") == strlen(text) && strlen(text) < 32))
		return 0;
	snprintf(error, BH_ERROR_SIZE, "usb: hostport=%s: say ports from the root on, such as 1.4.2", text);
	return -EINVAL;
}

static int parse_node(const struct bh_options *o, struct bh_usb_selector *s, char *error)
{
	const char *text = bh_options_get(o, "hostdevice");
	int end = 0;

	if (!text)
		return 0;
	if (sscanf(text, "/dev/bus/usb/%3u/%3u%n", &s->bus, &s->address, &end) == 2 && !text[end] && s->bus && s->address)
		return 0;
	snprintf(error, BH_ERROR_SIZE, "usb: hostdevice=%s: say a node such as /dev/bus/usb/001/004", text);
	return -EINVAL;
}

static int parse_numbers(const struct bh_options *o, struct bh_usb_config *c, char *error)
{
	unsigned long bus = 0, address = 0, fd = 0;
	int r = bh_options_number(o, "hostbus", 1, 999, &bus, error);

	if (!r)
		r = bh_options_number(o, "hostaddr", 1, 127, &address, error);
	if (!r)
		r = bh_options_number(o, "fd", 0, 1 << 20, &fd, error);
	c->select.bus = (unsigned)bus;
	c->select.address = (unsigned)address;
	if (bh_options_get(o, "fd"))
		c->fd = (int)fd;
	return r;
}

/* Is one device meant, and said in one way? */
static int check(const struct bh_options *o, char *error)
{
	static const char *const selecting[] = {"vendorid", "productid", "serial", "hostbus", "hostport", "hostaddr"};
	unsigned ways = (bh_options_get(o, "hostdevice") != NULL) + (bh_options_get(o, "fd") != NULL), selects = 0;

	for (size_t i = 0; i < sizeof(selecting) / sizeof(*selecting); i++)
		selects += bh_options_get(o, selecting[i]) != NULL;
	if (ways + (selects > 0) != 1) {
		snprintf(error, BH_ERROR_SIZE, "usb: say which device: vendorid= and productid=, serial=, hostbus= with hostport= or "
		         "hostaddr=, hostdevice=, or fd=; 'bulkhead devices' lists what there is");
		return -EINVAL;
	}
	if ((bh_options_get(o, "hostport") || bh_options_get(o, "hostaddr")) && !bh_options_get(o, "hostbus")) {
		snprintf(error, BH_ERROR_SIZE, "usb: hostport= and hostaddr= need hostbus=");
		return -EINVAL;
	}
	return 0;
}

static int create(uv_loop_t *loop, const struct bh_options *o, struct bh_device **ret, char *error)
{
	struct bh_usb_config c = {.fd = -1, .select.serial = bh_options_get(o, "serial"), .log = {.line = say}};
	bool reset = true;
	int r = check(o, error);

	if (!r)
		r = parse_id(o, "vendorid", &c.select.vendor, error);
	if (!r)
		r = parse_id(o, "productid", &c.select.product, error);
	if (!r)
		r = parse_port(o, &c.select.port, error);
	if (!r)
		r = parse_numbers(o, &c, error);
	if (!r)
		r = parse_node(o, &c.select, error);
	if (!r)
		r = bh_options_bool(o, "guest-reset", &reset, error);
	if (!r && c.fd >= 0 && fcntl(c.fd, F_GETFD) < 0) {
		snprintf(error, BH_ERROR_SIZE, "usb: fd=%d is not open; open the device's node and pass it on", c.fd);
		r = -EBADF;
	}
	if (r)
		return r;
	c.no_reset = !reset;
	return bh_usb_create(loop, &c, ret, error, BH_ERROR_SIZE);
}

static json_t *statistics(const struct bh_device *d)
{
	struct bh_usb_counters c = bh_usb_counters(d);
	struct bh_real_info i = bh_real_device_info(d);

	return json_pack("{s:b, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "there", (int)i.there, "vendor",
	                 (int)i.vendor, "product", (int)i.product, "arrivals", (json_int_t)i.arrivals, "transfers",
	                 (json_int_t)c.transfers, "bytes_in", (json_int_t)c.bytes_in, "bytes_out", (json_int_t)c.bytes_out,
	                 "cancels", (json_int_t)c.cancels, "errors", (json_int_t)c.errors, "resets", (json_int_t)c.resets,
	                 "refused", (json_int_t)c.refused);
}

const struct bh_device_kind bh_kind_usb = {
	.name = "usb",
	.help = "a device that is plugged into this host (libusb)",
	.keys = keys,
	.create = create,
	.close = bh_usb_close,
	.statistics = statistics,
};
