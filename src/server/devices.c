/*
 * The tables behind --device and --controller: which kinds there are, which options they
 * take, and how these become configurations. What an option does is its module's business.
 */
#include "devices.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include <base/util.h>
#include <function/disk.h>

static void print_keys(FILE *to, const struct bh_option_key *keys)
{
	for (const struct bh_option_key *k = keys; k->key; k++)
		fprintf(to, "    %s=%s%*s %s%s\n", k->key, k->value,
		        (int)BH_MAX(1, 22 - (int)(strlen(k->key) + strlen(k->value))), "", k->help,
		        k->required ? " (required)" : "");
}

/* --- devices -------------------------------------------------------------------------- */

static const struct bh_option_key disk_keys[] = {
	{.key = "file", .value = "IMG", .required = true, .help = "raw image, or a block device"},
	{.key = "readonly", .value = "on|off", .help = "write-protected for the guest; default off"},
	{.key = "serial", .value = "S", .help = "serial number, 12 to 32 of 0-9 A-F; default: made from the file's path"},
	{.key = "block", .value = "512|4096", .help = "bytes in a block; default 512"},
	{.key = "fixed", .value = "on|off", .help = "not a removable medium; default off"},
	{0},
};

static int disk_create(uv_loop_t *loop, const struct bh_options *o, struct bh_device **ret, char *error)
{
	unsigned long block = 512;
	struct bh_disk_config config = {
		.path = bh_options_get(o, "file"),
		.serial = bh_options_get(o, "serial"),
		.speed = BH_SPEED_FULL,
	};
	int r = bh_options_bool(o, "readonly", &config.readonly, error);

	if (!r)
		r = bh_options_bool(o, "fixed", &config.fixed, error);
	if (!r)
		r = bh_options_number(o, "block", 512, 4096, &block, error);
	if (r)
		return r;
	config.block_size = (unsigned)block;
	return bh_disk_create(loop, &config, ret, error, BH_ERROR_SIZE);
}

static json_t *disk_statistics(const struct bh_device *d)
{
	struct bh_disk_counters c = bh_disk_counters(d);

	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "serial",
	                 bh_disk_serial(d), "commands", (json_int_t)c.commands, "bytes_read", (json_int_t)c.bytes_read,
	                 "bytes_written", (json_int_t)c.bytes_written, "flushes", (json_int_t)c.flushes, "failed",
	                 (json_int_t)c.failed, "io_errors", (json_int_t)c.io_errors, "phase_errors",
	                 (json_int_t)c.phase_errors, "invalid_cbws", (json_int_t)c.invalid_cbws, "resets",
	                 (json_int_t)c.resets);
}

static const struct bh_device_kind kinds[] = {
	{
		.name = "disk",
		.help = "a USB disk (mass storage, bulk-only) over a file",
		.keys = disk_keys,
		.create = disk_create,
		.close = bh_disk_close,
		.statistics = disk_statistics,
	},
};

/* --- what every device has ------------------------------------------------------------- */

static const struct bh_option_key common_keys[] = {
	{.key = "port", .value = "PLACE", .help = "2, or 1.3: the third of the hub in port 1; default: the next free root port"},
	{.key = "verify", .value = "MODE", .help = "exact, checksum, td or buffer: what is compared; default exact (trace: embedders only)"},
	{.key = "verify-when", .value = "MODE", .help = "bounded, retry or completion: some at each retry, all, none; default bounded"},
	{0},
};

int bh_device_options_check(const struct bh_device_kind *kind, const struct bh_options *o, char *error)
{
	struct bh_option_key keys[16];
	size_t n = 0;

	for (const struct bh_option_key *k = kind->keys; k->key; k++)
		keys[n++] = *k;
	for (const struct bh_option_key *k = common_keys; k->key; k++)
		keys[n++] = *k;
	assert(n < BH_COUNT(keys));
	keys[n] = (struct bh_option_key){0};
	return bh_options_check(o, keys, error);
}

int bh_device_verification(const struct bh_options *o, struct bh_verification *ret, char *error)
{
	const char *what = bh_options_get(o, "verify"), *when = bh_options_get(o, "verify-when");
	struct bh_verification v = {0};

	/* "none" is for measuring, in process; a guest is not to be served like that. */
	if (what && (!bh_verify_parse(what, &v.what) || v.what == BH_VERIFY_NONE)) {
		snprintf(error, BH_ERROR_SIZE, "%s: verify=%s: say exact, checksum, td or buffer", o->kind, what);
		return -EINVAL;
	}
	if (when && !bh_verify_when_parse(when, &v.when)) {
		snprintf(error, BH_ERROR_SIZE, "%s: verify-when=%s: say bounded, retry or completion", o->kind, when);
		return -EINVAL;
	}
	if (v.what == BH_VERIFY_TRACE) {
		snprintf(error, BH_ERROR_SIZE,
		         "%s: verify=trace: the guest's memory is shared with the virtual machine monitor, whose "
		         "writes cannot be traced from here; use verify=exact (the default)",
		         o->kind);
		return -ENOTSUP;
	}
	*ret = v;
	return 0;
}

const struct bh_device_kind *bh_device_kind(const char *name)
{
	for (size_t i = 0; i < BH_COUNT(kinds); i++)
		if (!strcmp(kinds[i].name, name))
			return &kinds[i];
	return NULL;
}

void bh_device_help(FILE *to)
{
	fprintf(to, "Devices: --device KIND[,KEY=VALUE...]   (a comma in a value is written ',,')\n");
	for (size_t i = 0; i < BH_COUNT(kinds); i++) {
		fprintf(to, "  %s: %s\n", kinds[i].name, kinds[i].help);
		print_keys(to, kinds[i].keys);
	}
	fprintf(to, "  every device:\n");
	print_keys(to, common_keys);
}

/* --- controllers ------------------------------------------------------------------------ */

static const struct bh_option_key uhci_keys[] = {
	{.key = "ports", .value = "N", .help = "root ports, 2 to 8; default 2 (Linux uses up to 7, and 2 of 8)"},
	{.key = "pace", .value = "bus|none", .help = "bus: no faster than a full-speed wire; default none"},
	{.key = "batch", .value = "on|off", .help = "off: one packet at a time, for comparison; default on"},
	{.key = "batch-bytes", .value = "N", .help = "most bytes of one batch, 1024 to 1048576; default 262144"},
	{.key = "batch-packets", .value = "N", .help = "most packets of one batch, 1 to 16384; default 4096"},
	{.key = "memory", .value = "N", .help = "bytes for all batches together, up to 4294967296; default 16777216"},
	{.key = "linger", .value = "US", .help = "microseconds a batch may wait without progress; default 50000"},
	{.key = "withdrawn", .value = "continue|fail", .help = "the guest takes back what the device has; default continue"},
	{0},
};

static int withdrawn_parse(const struct bh_options *o, bool *ret, char *error)
{
	const char *value = bh_options_get(o, "withdrawn");

	if (!value)
		return 0;
	if (strcmp(value, "continue") && strcmp(value, "fail")) {
		snprintf(error, BH_ERROR_SIZE, "uhci: withdrawn=%s: say continue or fail", value);
		return -EINVAL;
	}
	*ret = !strcmp(value, "fail");
	return 0;
}

/* The engine's limits. */
static int engine_parse(const struct bh_options *o, struct bh_engine_config *e, char *error)
{
	unsigned long bytes = e->max_batch_bytes, packets = e->max_batch_descriptors, memory = e->max_bytes,
	              linger = e->linger_us;
	bool batch = true;
	int r = bh_options_bool(o, "batch", &batch, error);

	if (!r)
		r = bh_options_number(o, "batch-bytes", 1024, 1 << 20, &bytes, error);
	if (!r)
		r = bh_options_number(o, "batch-packets", 1, 16384, &packets, error);
	if (!r)
		r = bh_options_number(o, "memory", 0, 1ul << 32, &memory, error);
	if (!r)
		r = bh_options_number(o, "linger", 1000, 60ul * 1000 * 1000, &linger, error);
	if (!r)
		r = withdrawn_parse(o, &e->withdrawn_fails, error);
	e->max_batch_bytes = (uint32_t)bytes;
	e->max_batch_descriptors = batch ? (uint32_t)packets : 1;
	e->max_bytes = memory;
	e->linger_us = (uint32_t)linger;
	return r;
}

static int pace_parse(const struct bh_options *o, bool *ret, char *error)
{
	const char *pace = bh_options_get(o, "pace");

	if (!pace)
		return 0;
	if (strcmp(pace, "bus") && strcmp(pace, "none")) {
		snprintf(error, BH_ERROR_SIZE, "uhci: pace=%s: say bus or none", pace);
		return -EINVAL;
	}
	*ret = !strcmp(pace, "bus");
	return 0;
}

int bh_controller_parse(const char *text, struct bh_uhci_config *ret, char *error)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;
	unsigned long ports = config.ports;
	struct bh_options o;
	int r = bh_options_parse(text, &o, error);

	if (r)
		return r;
	if (strcmp(o.kind, "uhci")) {
		snprintf(error, BH_ERROR_SIZE, "no controller '%s'; there is: uhci", o.kind);
		r = -EINVAL;
	}
	if (!r)
		r = bh_options_check(&o, uhci_keys, error);
	if (!r)
		r = bh_options_number(&o, "ports", BH_UHCI_MIN_PORTS, BH_UHCI_MAX_PORTS, &ports, error);
	if (!r)
		r = pace_parse(&o, &config.pace, error);
	if (!r)
		r = engine_parse(&o, &config.engine, error);
	bh_options_free(&o);
	if (r)
		return r;
	config.ports = (unsigned)ports;
	*ret = config;
	return 0;
}

void bh_controller_help(FILE *to)
{
	fprintf(to, "Controllers: --controller KIND[,KEY=VALUE...]\n"
	            "  uhci: Universal Host Controller Interface 1.1 (USB 1.1, full and low speed)\n");
	print_keys(to, uhci_keys);
}
