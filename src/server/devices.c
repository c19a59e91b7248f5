/*
 * The tables behind --device: which kinds there are, which options they take, and how these
 * become configurations. What an option does is its module's business.
 */
#include "devices.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include <base/util.h>
#include <function/disk.h>
#include <function/hid.h>
#include <function/hub.h>
#include <function/serial.h>
#include <function/zero.h>
#include <layer/layers.h>

#include "say.h"

/* For what needs nothing but memory, and was given a configuration that was checked. */
static int created(int r, const struct bh_options *o, char *error)
{
	if (r)
		snprintf(error, BH_ERROR_SIZE, "%s: %s", o->kind, strerror(-r));
	return r;
}

/* --- disk ------------------------------------------------------------------------------ */

#define SPEED_KEY {.key = "speed", .value = "full|high", .help = "of high speed: with packets of 512 bytes; default full"}

static int read_speed(const struct bh_options *o, enum bh_speed *ret, char *error)
{
	static const char *const speeds[] = {"full", "high", NULL};
	unsigned high = 0;
	int r = bh_options_choice(o, "speed", speeds, &high, error);

	*ret = high ? BH_SPEED_HIGH : BH_SPEED_FULL;
	return r;
}

static const struct bh_option_key disk_keys[] = {
	{.key = "file", .value = "IMG", .help = "raw image, or a block device"},
	{.key = "nbd", .value = "URI", .help = "instead: an NBD server's export, nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH"},
	{.key = "timeout", .value = "S", .help = "with nbd: seconds, 1 to 600, after which a request ends with an error; default 4"},
	{.key = "readonly", .value = "on|off", .help = "write-protected for the guest; default off"},
	{.key = "serial", .value = "S", .help = "serial number, 12 to 32 of 0-9 A-F; default: made from the file's path"},
	{.key = "block", .value = "512|4096", .help = "bytes in a block; default 512"},
	{.key = "fixed", .value = "on|off", .help = "not a removable medium; default off"},
	SPEED_KEY,
	{0},
};

static void say_line(void *data, const char *text)
{
	(void)data;
	bh_say("%s", text);
}

static int disk_create(uv_loop_t *loop, const struct bh_options *o, struct bh_device **ret, char *error)
{
	unsigned long block = 512, timeout = 4;
	struct bh_disk_config config = {
		.path = bh_options_get(o, "file"),
		.nbd = bh_options_get(o, "nbd"),
		.log = say_line,
		.serial = bh_options_get(o, "serial"),
	};
	int r = bh_options_bool(o, "readonly", &config.readonly, error);

	if (!r)
		r = read_speed(o, &config.speed, error);
	if (!r)
		r = bh_options_bool(o, "fixed", &config.fixed, error);
	if (!r)
		r = bh_options_number(o, "block", 512, 4096, &block, error);
	if (!r)
		r = bh_options_number(o, "timeout", 1, 600, &timeout, error);
	if (!r && !config.nbd && bh_options_get(o, "timeout")) {
		snprintf(error, BH_ERROR_SIZE, "disk: timeout= goes with nbd=");
		r = -EINVAL;
	}
	if (r)
		return r;
	config.nbd_timeout_ms = (unsigned)timeout * 1000;
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

/* --- zero ------------------------------------------------------------------------------ */

static const struct bh_option_key zero_keys[] = {
	{.key = "pattern", .value = "0|1|2", .help = "zeros; byte i of a packet is i % 63; zeros, and takes anything; default 0"},
	{.key = "iso-interval", .value = "N", .help = "bInterval of the isochronous endpoints, 1 to 16; default 4"},
	{.key = "interrupt-interval", .value = "N", .help = "bInterval of the interrupt endpoints, 1 to 255; default 1"},
	SPEED_KEY,
	{.key = "delay", .value = "US", .help = "transfers end that many microseconds later, at most 10000000; default 0"},
	{0},
};

static int zero_create(uv_loop_t *loop, const struct bh_options *o, struct bh_device **ret, char *error)
{
	unsigned long pattern = 0, isochronous = 0, interrupt = 0, delay = 0;
	struct bh_zero_config config;
	enum bh_speed speed;
	int r = bh_options_number(o, "pattern", 0, 2, &pattern, error);

	if (!r)
		r = read_speed(o, &speed, error);
	if (!r)
		r = bh_options_number(o, "iso-interval", 1, 16, &isochronous, error);
	if (!r)
		r = bh_options_number(o, "interrupt-interval", 1, 255, &interrupt, error);
	if (!r)
		r = bh_options_number(o, "delay", 0, 10000000, &delay, error);
	if (r)
		return r;
	config = (struct bh_zero_config){
		.pattern = (unsigned)pattern,
		.isochronous_interval = (unsigned)isochronous,
		.interrupt_interval = (unsigned)interrupt,
		.delay_us = (unsigned)delay,
		.speed = speed,
		.loop = loop,
	};
	return created(bh_zero_create(&config, ret), o, error);
}

static json_t *traffic(const struct bh_zero_traffic *t)
{
	return json_pack("{s:I, s:I, s:I, s:I}", "packets_in", (json_int_t)t->packets_in, "bytes_in",
	                 (json_int_t)t->bytes_in, "packets_out", (json_int_t)t->packets_out, "bytes_out",
	                 (json_int_t)t->bytes_out);
}

static json_t *zero_statistics(const struct bh_device *d)
{
	struct bh_zero_counters c = bh_zero_counters(d);

	return json_pack("{s:o, s:o, s:o, s:I, s:I}", "bulk", traffic(&c.bulk), "interrupt", traffic(&c.interrupt),
	                 "isochronous", traffic(&c.isochronous), "bad_packets", (json_int_t)c.bad_packets, "bad_bytes",
	                 (json_int_t)c.bad_bytes);
}

/* --- hid ------------------------------------------------------------------------------- */

static const struct bh_option_key hid_keys[] = {
	{.key = "kind", .value = "KIND", .help = "keyboard, mouse or tablet (absolute); default keyboard"},
	{.key = "speed", .value = "full|low", .help = "default full"},
	{.key = "buttons", .value = "3|5", .help = "of a mouse or tablet; default 3"},
	{.key = "file", .value = "PATH", .help = "file or FIFO with what is typed and moved, line by line, as for input"},
	{0},
};

static int hid_create(uv_loop_t *loop, const struct bh_options *o, struct bh_device **ret, char *error)
{
	static const char *const speeds[] = {"full", "low", NULL}, *const buttons[] = {"3", "5", NULL};
	const char *name = bh_options_get(o, "kind");
	enum bh_hid_kind kind = BH_HID_KEYBOARD;
	unsigned low = 0, five = 0;
	struct bh_hid_config config;
	int r;

	if (name && !bh_hid_kind_parse(name, &kind)) {
		snprintf(error, BH_ERROR_SIZE, "hid: kind=%s: say keyboard, mouse or tablet", name);
		return -EINVAL;
	}
	r = bh_options_choice(o, "speed", speeds, &low, error);
	if (!r)
		r = bh_options_choice(o, "buttons", buttons, &five, error);
	if (r)
		return r;
	config = (struct bh_hid_config){
		.kind = kind,
		.speed = low ? BH_SPEED_LOW : BH_SPEED_FULL,
		.buttons = !bh_options_get(o, "buttons") ? 0 : five ? 5 : 3,
		.path = bh_options_get(o, "file"),
		.log = say_line,
	};
	return bh_hid_create(loop, &config, ret, error, BH_ERROR_SIZE);
}

static json_t *hid_statistics(const struct bh_device *d)
{
	struct bh_hid_counters c = bh_hid_counters(d);

	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i}", "input", bh_hid_kind_name(bh_hid_kind(d)), "events",
	                 (json_int_t)c.events, "dropped", (json_int_t)c.dropped, "queued", (json_int_t)c.queued, "reports",
	                 (json_int_t)c.reports, "repeats", (json_int_t)c.repeats, "wakeups", (json_int_t)c.wakeups,
	                 "bad_lines", (json_int_t)c.bad_lines, "leds", (int)bh_hid_leds(d));
}

static int hid_input(struct bh_device *d, const char *text, char *error)
{
	return bh_hid_input(d, text, error, BH_ERROR_SIZE);
}

/* --- serial ---------------------------------------------------------------------------- */

static const struct bh_option_key serial_keys[] = {
	{.key = "pty", .value = "on|LINK", .help = "a pseudo-terminal; LINK: a symbolic link to it, made and removed"},
	{.key = "tcp", .value = "HOST:PORT|unix:PATH", .help = "connects to it, again and again"},
	{.key = "tcp-listen", .value = "ADDRESS:PORT", .help = "an address here, or localhost: serves one after another; port 0: any"},
	{.key = "file", .value = "PATH", .help = "what the guest sends is appended to it"},
	{.key = "input", .value = "PATH", .help = "with file: what the guest receives"},
	SPEED_KEY,
	{.key = "rate", .value = "N", .help = "bytes/s that the guest gets at most, for one that drops what it cannot look at; default: any"},
	{0},
};

static int serial_create(uv_loop_t *loop, const struct bh_options *o, struct bh_device **ret, char *error)
{
	const char *pty = bh_options_get(o, "pty");
	unsigned long rate = 0;
	int r;
	struct bh_serial_config config = {
		.pty = pty && strcmp(pty, "off"),
		.tcp = bh_options_get(o, "tcp"),
		.tcp_listen = bh_options_get(o, "tcp-listen"),
		.file = bh_options_get(o, "file"),
		.input = bh_options_get(o, "input"),
	};

	r = bh_options_number(o, "rate", 1, UINT32_MAX, &rate, error);
	if (!r)
		r = read_speed(o, &config.speed, error);
	if (r)
		return r;
	config.rate = (uint32_t)rate;
	if (config.pty && strcmp(pty, "on"))
		config.link = pty;
	return bh_serial_create(loop, &config, ret, error, BH_ERROR_SIZE);
}

static json_t *serial_statistics(const struct bh_device *d)
{
	struct bh_serial_counters c = bh_serial_counters(d);
	struct bh_serial_state s = bh_serial_state(d);

	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:b, s:I}", "from_guest", (json_int_t)c.from_guest,
	                 "to_guest", (json_int_t)c.to_guest, "from_peer", (json_int_t)c.from_peer, "to_peer",
	                 (json_int_t)c.to_peer, "connections", (json_int_t)c.connections, "failures",
	                 (json_int_t)c.failures, "breaks", (json_int_t)c.breaks, "peer", (int)s.connected, "dtr", (int)s.dtr,
	                 "rts", (int)s.rts, "rate", (json_int_t)s.rate);
}

/* --- hub ------------------------------------------------------------------------------- */

static const struct bh_option_key hub_keys[] = {
	{.key = "ports", .value = "N", .help = "4 to 7; default 4"},
	{0},
};

static int hub_create(uv_loop_t *loop, const struct bh_options *o, struct bh_device **ret, char *error)
{
	unsigned long ports = 4;
	int r = bh_options_number(o, "ports", 4, BH_HUB_MAX_PORTS, &ports, error);

	(void)loop;
	return r ? r : created(bh_hub_create(&(struct bh_hub_config){.ports = (unsigned)ports}, ret), o, error);
}

/* --- the table ------------------------------------------------------------------------- */

static const struct bh_device_kind disk = {
	.name = "disk",
	.help = "a USB disk (mass storage, bulk-only) over a file, a block device or an NBD server",
	.keys = disk_keys,
	.create = disk_create,
	.close = bh_disk_close,
	.statistics = disk_statistics,
};

static const struct bh_device_kind zero = {
	.name = "zero",
	.help = "a test device for usbtest, as Linux's gadget zero",
	.keys = zero_keys,
	.create = zero_create,
	.statistics = zero_statistics,
};

static const struct bh_device_kind hid = {
	.name = "hid",
	.help = "a keyboard, mouse or tablet, fed by text: by input on the control channel, or a file",
	.keys = hid_keys,
	.create = hid_create,
	.close = bh_hid_close,
	.statistics = hid_statistics,
	.input = hid_input,
};

static const struct bh_device_kind serial = {
	.name = "serial",
	.help = "a serial line (CDC-ACM); say one of pty, tcp, tcp-listen and file",
	.keys = serial_keys,
	.create = serial_create,
	.close = bh_serial_close,
	.statistics = serial_statistics,
	.other_side = bh_serial_name,
};

static const struct bh_device_kind hub = {
	.name = "hub",
	.help = "a USB hub; others are plugged into it with port=1.1, port=1.2 and so on",
	.keys = hub_keys,
	.create = hub_create,
	.hub = true,
};

static const struct bh_device_kind *const kinds[] = {
	&disk, &zero, &hid, &serial, &hub, &bh_kind_usb, &bh_kind_usbredir, &bh_kind_usbip,
};

/* --- what every device has ------------------------------------------------------------- */

static const struct bh_option_key common_keys[] = {
	{.key = "port", .value = "PLACE", .help = "2, or 1.3: the third of the hub in port 1; default: the next free root port"},
	{.key = "verify", .value = "MODE", .help = "exact, checksum, td or buffer: what is compared; default exact (trace: embedders only)"},
	{.key = "verify-when", .value = "MODE", .help = "bounded, retry or completion: some at each retry, all, none; default bounded"},
	{.key = "layers", .value = "NAME[:...][+NAME...]", .help = "what stands between it and the guest, the first next to the device; see below"},
	{.key = "translate", .value = "on|off", .help = "a device faster than the port is translated for it (on, the default), or refused"},
	{0},
};

int bh_device_options_check(const struct bh_device_kind *kind, const struct bh_options *o, char *error)
{
	struct bh_option_key keys[20];
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
		if (!strcmp(kinds[i]->name, name))
			return kinds[i];
	return NULL;
}

void bh_device_help(FILE *to)
{
	fprintf(to, "Devices: --device KIND[,KEY=VALUE...]   (a comma in a value is written ',,')\n");
	for (size_t i = 0; i < BH_COUNT(kinds); i++) {
		fprintf(to, "  %s: %s\n", kinds[i]->name, kinds[i]->help);
		bh_options_help(to, kinds[i]->keys);
	}
	fprintf(to, "  every device:\n");
	bh_options_help(to, common_keys);
	fprintf(to, "  layers, as in layers=delay:5ms+capture:FILE:\n");
	bh_layers_help(to);
}
