/* --device usb: a USB device of this machine. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <host/usb.h>

#include "../devices.h"
#include "../say.h"

static const struct bh_option_key keys[] = {
	{.key = "vendorid", .value = "ID", .help = "which one: in hexadecimal, 0525 or 0x0525; with it perhaps"},
	{.key = "productid", .value = "ID", .help = "the same"},
	{.key = "serial", .value = "S", .help = "its serial number, alone or with the others"},
	{.key = "hostbus", .value = "N", .help = "the bus it is on, with"},
	{.key = "hostport", .value = "1.4.2", .help = "the port, which stays the same when it is plugged in again; or"},
	{.key = "hostaddr", .value = "N", .help = "the address, which does not"},
	{.key = "hostdevice", .value = "PATH", .help = "instead: /dev/bus/usb/BUS/DEVICE, or a link to one that udev makes"},
	{.key = "fd", .value = "N", .help = "instead: such a node, opened by who started us; when it goes, it is gone for good"},
	{.key = "guest-reset", .value = "on|off", .help = "a reset of the port by the guest resets the device; default on"},
	{0},
};

static void say(void *data, const char *text)
{
	(void)data;
	bh_say("%s", text);
}

/* One to four hexadecimal digits. */
static int read_id(const struct bh_options *o, const char *key, bool *there, uint16_t *ret, char *error)
{
	const char *text = bh_options_get(o, key), *digits = text;
	size_t count;

	if (!text)
		return 0;
	if (!strncmp(digits, "0x", 2) || !strncmp(digits, "0X", 2))
		digits += 2;
	count = strspn(digits, "0123456789abcdefABCDEF");
	if (count < 1 || count > 4 || digits[count]) {
		snprintf(error, BH_ERROR_SIZE, "usb: %s=%s: is no number of up to four hexadecimal digits, as in %s=0525", key,
		         text, key);
		return -EINVAL;
	}
	*ret = (uint16_t)strtoul(digits, NULL, 16);
	*there = true;
	return 0;
}

static int read_number(const struct bh_options *o, const char *key, unsigned long most, unsigned *ret, char *error)
{
	unsigned long value = 0;
	int r = bh_options_number(o, key, 1, most, &value, error);

	*ret = (unsigned)value;
	return r;
}

/* Numbers from 1 on with dots in between, as in sysfs. */
static int check_port(const char *port, char *error)
{
	const char *p = port;

	while (p && *p >= '1' && *p <= '9') {
		p += strspn(p, "0123456789");
		if (!*p)
			return 0;
		p = *p == '.' ? p + 1 : NULL;
	}
	if (!port)
		return 0;
	snprintf(error, BH_ERROR_SIZE, "usb: hostport=%s: write the numbers of the ports, as in 1.4.2", port);
	return -EINVAL;
}

/* Are these keys enough to mean one device, and no two that say the same? */
static int check_combination(const struct bh_options *o, char *error)
{
	bool by_id = bh_options_get(o, "vendorid") || bh_options_get(o, "productid");
	bool by_serial = bh_options_get(o, "serial"), by_bus = bh_options_get(o, "hostbus");
	unsigned places = !!bh_options_get(o, "hostport") + !!bh_options_get(o, "hostaddr");
	unsigned whole = !!bh_options_get(o, "hostdevice") + !!bh_options_get(o, "fd");
	const char *what = NULL;

	if (!by_id && !by_serial && !by_bus && !places && !whole)
		what = "say which device: vendorid=,productid= or serial= or hostbus=,hostport=; 'bulkhead devices' lists them";
	else if (whole > 1 || (whole && (by_id || by_serial || by_bus || places)))
		what = "hostdevice= and fd= each stand alone: leave the other keys out that say which device is meant";
	else if (bh_options_get(o, "productid") && !bh_options_get(o, "vendorid"))
		what = "productid= means something only with vendorid=";
	else if (by_bus != (places == 1))
		what = "hostbus= goes with one of hostport= and hostaddr=";
	if (!what)
		return 0;
	snprintf(error, BH_ERROR_SIZE, "usb: %s", what);
	return -EINVAL;
}

static int read_selector(const struct bh_options *o, struct bh_usb_selector *s, char *error)
{
	int r = check_combination(o, error);

	s->serial = bh_options_get(o, "serial");
	s->port = bh_options_get(o, "hostport");
	s->node = bh_options_get(o, "hostdevice");
	if (!r)
		r = check_port(s->port, error);
	if (!r)
		r = read_id(o, "vendorid", &s->by_vendor, &s->vendor, error);
	if (!r)
		r = read_id(o, "productid", &s->by_product, &s->product, error);
	if (!r)
		r = read_number(o, "hostbus", 999, &s->bus, error);
	if (!r)
		r = read_number(o, "hostaddr", 127, &s->address, error);
	return r;
}

static int create(uv_loop_t *loop, const struct bh_options *o, struct bh_device **ret, char *error)
{
	struct bh_usb_config config = {.passed = bh_options_get(o, "fd"), .log = {.line = say}};
	unsigned long fd = 0;
	bool guest_reset = true, translate = true;
	int r = read_selector(o, &config.selector, error);

	if (!r)
		r = bh_options_number(o, "fd", 0, 1 << 20, &fd, error);
	if (!r)
		r = bh_options_bool(o, "guest-reset", &guest_reset, error);
	if (!r)
		r = bh_options_bool(o, "translate", &translate, error);
	if (r)
		return r;
	config.any_speed = translate;
	config.fd = (int)fd;
	config.keep_from_resets = !guest_reset;
	return bh_usb_create(loop, &config, ret, error, BH_ERROR_SIZE);
}

static json_t *statistics(const struct bh_device *d)
{
	struct bh_usb_counters c = bh_usb_counters(d);
	struct bh_real_info i = bh_real_device_info(d);

	return json_pack("{s:b, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "there", (int)i.there,
	                 "vendor", (int)i.vendor, "product", (int)i.product, "arrivals", (json_int_t)i.arrivals, "opened",
	                 (json_int_t)c.opened, "failures", (json_int_t)c.failures, "transfers", (json_int_t)c.transfers,
	                 "bytes_in", (json_int_t)c.bytes_in, "bytes_out", (json_int_t)c.bytes_out, "cancels",
	                 (json_int_t)c.cancels, "errors", (json_int_t)c.errors, "resets", (json_int_t)c.resets, "missed",
	                 (json_int_t)c.missed);
}

const struct bh_device_kind bh_kind_usb = {
	.name = "usb",
	.help = "a USB device of this machine, taken from its kernel and given back at the end",
	.keys = keys,
	.create = create,
	.close = bh_usb_close,
	.statistics = statistics,
};
