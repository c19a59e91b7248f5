/* --device usbredir: a device of a usbredir server. */
#include <errno.h>
#include <stdio.h>

#include <host/usbredir.h>

#include "../devices.h"
#include "../say.h"

static const struct bh_option_key keys[] = {
	{.key = "address", .value = "HOST:PORT|unix:PATH", .help = "a usbredir server; connects to it, again and again"},
	{.key = "fd", .value = "N", .help = "instead: a socket that is connected to one; when that ends, the device is gone"},
	{.key = "filter", .value = "RULES", .help = "CLASS:VENDOR:PRODUCT:VERSION:ALLOW|...; -1 is any; default: any device"},
	{0},
};

static void say(void *data, const char *text)
{
	(void)data;
	bh_say("%s", text);
}

static int create(uv_loop_t *loop, const struct bh_options *o, struct bh_device **ret, char *error)
{
	unsigned long fd = 0;
	struct bh_usbredir_config config = {
		.address = bh_options_get(o, "address"),
		.filter = bh_options_get(o, "filter"),
		.log = {.line = say},
	};
	int r = bh_options_number(o, "fd", 0, 1 << 20, &fd, error);

	if (r)
		return r;
	if (!config.address == !bh_options_get(o, "fd")) {
		snprintf(error, BH_ERROR_SIZE, "usbredir: say one of address=HOST:PORT, address=unix:PATH and fd=N");
		return -EINVAL;
	}
	config.fd = (int)fd;
	return bh_usbredir_create(loop, &config, ret, error, BH_ERROR_SIZE);
}

static json_t *statistics(const struct bh_device *d)
{
	struct bh_usbredir_counters c = bh_usbredir_counters(d);
	struct bh_real_info i = bh_real_device_info(d);

	return json_pack("{s:b, s:b, s:i, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
	                 "connected", (int)bh_usbredir_connected(d), "there", (int)i.there, "vendor", (int)i.vendor, "product",
	                 (int)i.product, "arrivals", (json_int_t)i.arrivals, "connections", (json_int_t)c.connections,
	                 "failures", (json_int_t)c.failures, "rejected", (json_int_t)c.rejected, "transfers",
	                 (json_int_t)c.transfers, "packets", (json_int_t)c.packets, "bytes_in", (json_int_t)c.bytes_in,
	                 "bytes_out", (json_int_t)c.bytes_out, "cancels", (json_int_t)c.cancels, "errors",
	                 (json_int_t)c.errors, "resets", (json_int_t)c.resets, "unexpected", (json_int_t)c.unexpected,
	                 "dropped", (json_int_t)c.dropped, "missed", (json_int_t)c.missed);
}

const struct bh_device_kind bh_kind_usbredir = {
	.name = "usbredir",
	.help = "a device that a usbredir server shares (usbredirect, SPICE, KubeVirt)",
	.keys = keys,
	.create = create,
	.statistics = statistics,
};
