/* --device usbip: a device that another machine exports. */
#include <errno.h>
#include <stdio.h>

#include <host/usbip.h>

#include "../devices.h"
#include "../say.h"

static const struct bh_option_key keys[] = {
	{.key = "host", .value = "HOST[:PORT]", .help = "a USB/IP server; connects to it, again and again; default port 3240"},
	{.key = "busid", .value = "BUSID", .help = "which of its devices, such as 1-1.4"},
	{0},
};

static void say(void *data, const char *text)
{
	(void)data;
	bh_say("%s", text);
}

static int create(uv_loop_t *loop, const struct bh_options *o, struct bh_device **ret, char *error)
{
	struct bh_usbip_config config = {
		.host = bh_options_get(o, "host"),
		.busid = bh_options_get(o, "busid"),
		.log = {.line = say},
	};

	if (!config.host || !config.busid) {
		snprintf(error, BH_ERROR_SIZE, "usbip: say host=HOST[:PORT] and busid=BUSID, as in host=192.0.2.7,busid=1-1.4");
		return -EINVAL;
	}
	return bh_usbip_create(loop, &config, ret, error, BH_ERROR_SIZE);
}

static json_t *statistics(const struct bh_device *d)
{
	struct bh_usbip_counters c = bh_usbip_counters(d);
	struct bh_real_info i = bh_real_device_info(d);

	return json_pack("{s:b, s:b, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "imported",
	                 (int)bh_usbip_imported(d), "there", (int)i.there, "vendor", (int)i.vendor, "product", (int)i.product,
	                 "arrivals", (json_int_t)i.arrivals, "connections", (json_int_t)c.connections, "failures",
	                 (json_int_t)c.failures, "refusals", (json_int_t)c.refusals, "violations", (json_int_t)c.violations,
	                 "transfers", (json_int_t)c.transfers, "bytes_in", (json_int_t)c.bytes_in, "bytes_out",
	                 (json_int_t)c.bytes_out, "unlinks", (json_int_t)c.unlinks, "lost", (json_int_t)c.lost, "errors",
	                 (json_int_t)c.errors);
}

const struct bh_device_kind bh_kind_usbip = {
	.name = "usbip",
	.help = "a device that another machine exports by USB/IP (Linux's usbipd, usbipd-win)",
	.keys = keys,
	.create = create,
	.statistics = statistics,
};
