/*
 * The table behind --controller: which options a controller takes, and how these become its
 * configuration. What an option does is its module's business.
 */
#include "devices.h"

#include <errno.h>
#include <string.h>

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

/* The engine's limits. */
static int engine_parse(const struct bh_options *o, struct bh_engine_config *e, char *error)
{
	unsigned long bytes = e->max_batch_bytes, packets = e->max_batch_descriptors, memory = e->max_bytes,
	              linger = e->linger_us;
	static const char *const withdrawn[] = {"continue", "fail", NULL};
	unsigned fails = e->withdrawn_fails;
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
		r = bh_options_choice(o, "withdrawn", withdrawn, &fails, error);
	e->withdrawn_fails = fails;
	e->max_batch_bytes = (uint32_t)bytes;
	e->max_batch_descriptors = batch ? (uint32_t)packets : 1;
	e->max_bytes = memory;
	e->linger_us = (uint32_t)linger;
	return r;
}

int bh_controller_parse(const char *text, struct bh_uhci_config *ret, char *error)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;
	static const char *const paces[] = {"none", "bus", NULL};
	unsigned pace = config.pace;
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
		r = bh_options_choice(&o, "pace", paces, &pace, error);
	if (!r)
		r = engine_parse(&o, &config.engine, error);
	bh_options_free(&o);
	if (r)
		return r;
	config.ports = (unsigned)ports;
	config.pace = pace;
	*ret = config;
	return 0;
}

void bh_controller_help(FILE *to)
{
	fprintf(to, "Controllers: --controller KIND[,KEY=VALUE...]\n"
	            "  uhci: Universal Host Controller Interface 1.1 (USB 1.1, full and low speed)\n");
	bh_options_help(to, uhci_keys);
}
