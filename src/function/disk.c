/*
 * The disk as a USB device: descriptors, control requests, endpoints, and the life
 * of what bot.c, scsi.c, stream.c and block.c are parts of.
 *
 * finishes is false, and that is the honest answer. Once a command has come its IN
 * data and CSW, and its OUT data, need nothing more of the guest than the transfers
 * themselves. But an IN transfer waits for a command, and an OUT transfer that goes
 * on beyond a command's data with the next CBW waits for the guest to fetch the CSW
 * first. No driver queues that; a batch could hold it all the same, and its first
 * packets must not wait. Being cancelled is cheap here: bytes are never lost.
 */
#include <function/disk.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/bytes.h>
#include <base/util.h>

#include "block.h"
#include "bot.h"
#include "disk_private.h"
#include "scsi.h"
#include "standard.h"
#include "stream.h"

#define ENDPOINT_OUT 0x02
#define ENDPOINT_IN (0x01 | BH_ENDPOINT_IN)

/* pid.codes' number for tests: a vendor of our own is still to be had. */
#define VENDOR_ID 0x1209
#define PRODUCT_ID 0x0001

#define SERIAL_MIN 12
#define SERIAL_MAX 32
#define CONTROL_MAX_PACKET 64
#define BULK_MAX_PACKET_FULL 64
#define BULK_MAX_PACKET_HIGH 512

struct disk {
	struct bh_standard standard;
	/* configuration */
	struct bh_block *block;
	char serial[SERIAL_MAX + 1];
	const uint8_t *configuration;
	const char *strings[3];
	struct bh_description description;

	/* state */
	struct bh_scsi scsi;
	struct bh_stream stream;
	struct bh_bot bot;

	/* the end */
	bool closing, flushing;
	int close_error;
	void (*closed)(void *data, int error);
	void *closed_data;
};

static struct disk *to_disk(struct bh_device *d)
{
	return bh_container_of(d, struct disk, standard.device);
}

static const struct disk *to_const_disk(const struct bh_device *d)
{
	return bh_container_of(d, struct disk, standard.device);
}

static struct disk *of_standard(struct bh_standard *s)
{
	return bh_container_of(s, struct disk, standard);
}

/* ---- the end: see bh_disk_close() ---- */

static void free_disk(struct disk *d)
{
	void (*closed)(void *, int) = d->closed;
	void *data = d->closed_data;
	int error = d->close_error;

	bh_stream_finish(&d->stream);
	bh_block_destroy(d->block);
	free(d);
	if (closed)
		closed(data, error);
}

/* Last thing on every way in: a disk being closed goes when it can. d may be gone afterwards. */
static void settle(struct disk *d)
{
	if (!d->closing || d->bot.running || !bh_stream_quiet(&d->stream))
		return;
	if (!d->flushing && d->stream.dirty) {
		d->flushing = true;
		bh_stream_flush(&d->stream);
		return;
	}
	if (d->flushing)
		d->close_error = d->stream.error;
	free_disk(d);
}

static void stream_woke(struct bh_stream *s)
{
	struct disk *d = bh_container_of(s, struct disk, stream);

	bh_bot_run(&d->bot);
	settle(d);
}

void bh_disk_close(struct bh_device *device, void (*closed)(void *data, int error), void *data)
{
	struct disk *d;

	if (!device) {
		if (closed)
			closed(data, 0);
		return;
	}
	d = to_disk(device);
	d->closing = true;
	d->closed = closed;
	d->closed_data = data;
	bh_bot_reset(&d->bot);
	settle(d);
}

static void disk_destroy(struct bh_device *device)
{
	bh_disk_close(device, NULL, NULL);
}

/* ---- descriptors (USB 2.0, 9.6) ---- */

enum { STRING_MANUFACTURER = 1, STRING_PRODUCT, STRING_SERIAL };

static const uint8_t device_descriptor[] = {
	18, BH_DESCRIPTOR_DEVICE,
	BH_LE16(0x0200), /* bcdUSB */
	0, 0, 0,         /* class: see the interface */
	CONTROL_MAX_PACKET,
	BH_LE16(VENDOR_ID), BH_LE16(PRODUCT_ID),
	BH_LE16(0x0100), /* bcdDevice */
	STRING_MANUFACTURER, STRING_PRODUCT, STRING_SERIAL,
	1, /* bNumConfigurations */
};

/* 9.6.2: what would be different at the other speed, which is the packet size only. */
static const uint8_t qualifier_descriptor[] = {
	10, BH_DESCRIPTOR_QUALIFIER, BH_LE16(0x0200), 0, 0, 0, CONTROL_MAX_PACKET, 1, 0,
};

/* Also the other-speed one; one configuration, one interface: SCSI, bulk-only (BOT 4.3). */
#define CONFIGURATION(descriptor, max_packet)                                                       \
	{                                                                                           \
		9, (descriptor), BH_LE16(9 + 9 + 7 + 7),                                            \
		1,    /* bNumInterfaces */                                                          \
		1,    /* bConfigurationValue */                                                     \
		0,    /* iConfiguration */                                                          \
		0xc0, /* self-powered */                                                            \
		0,    /* bMaxPower */                                                               \
		9, BH_DESCRIPTOR_INTERFACE, 0, 0,                                                   \
		2,                /* bNumEndpoints */                                               \
		0x08, 0x06, 0x50, /* mass storage, SCSI transparent, bulk-only */                   \
		0,                                                                                  \
		7, BH_DESCRIPTOR_ENDPOINT, ENDPOINT_IN, BH_BULK, BH_LE16(max_packet), 0,            \
		7, BH_DESCRIPTOR_ENDPOINT, ENDPOINT_OUT, BH_BULK, BH_LE16(max_packet), 0,           \
	}

static const uint8_t full_speed[] = CONFIGURATION(BH_DESCRIPTOR_CONFIGURATION, BULK_MAX_PACKET_FULL);
static const uint8_t high_speed[] = CONFIGURATION(BH_DESCRIPTOR_CONFIGURATION, BULK_MAX_PACKET_HIGH);
static const uint8_t other_speed[] = CONFIGURATION(BH_DESCRIPTOR_OTHER_SPEED, BULK_MAX_PACKET_FULL);

static void describe(struct disk *d, enum bh_speed speed)
{
	d->configuration = speed == BH_SPEED_HIGH ? high_speed : full_speed;
	d->strings[STRING_MANUFACTURER - 1] = "Bulkhead";
	d->strings[STRING_PRODUCT - 1] = "Bulkhead Disk";
	d->strings[STRING_SERIAL - 1] = d->serial;
	d->description = (struct bh_description){
		.device = device_descriptor,
		.configurations = &d->configuration,
		.configuration_count = 1,
		.strings = d->strings,
		.string_count = BH_COUNT(d->strings),
	};
}

/* ---- control requests ---- */

enum {
	GET_DESCRIPTOR = BH_REQUEST(0x80, 6),
	GET_MAX_LUN = BH_REQUEST(0xa1, 0xfe),
	MASS_STORAGE_RESET = BH_REQUEST(0x21, 0xff),
};

/* BOT 3.1, 3.2: wValue zero, wIndex the interface, wLength as given. */
static void class_request(struct disk *d, unsigned request, struct bh_transfer *t)
{
	uint16_t wLength = bh_get_le16(t->setup.wLength);

	if (!d->standard.settings.configuration || bh_get_le16(t->setup.wValue) || bh_get_le16(t->setup.wIndex)) {
		bh_refuse(t);
	} else if (request == GET_MAX_LUN && wLength == 1) {
		bh_answer(t, (const uint8_t[]){0}, 1);
	} else if (request == MASS_STORAGE_RESET && wLength == 0) {
		bh_bot_recover(&d->bot);
		bh_acknowledge(t);
	} else {
		bh_refuse(t);
	}
}

/* Full-speed-only devices have no qualifier (9.6.2). */
static void get_descriptor(struct disk *d, struct bh_transfer *t)
{
	uint16_t wValue = bh_get_le16(t->setup.wValue);
	bool high = d->standard.device.speed == BH_SPEED_HIGH;

	if (high && wValue == BH_DESCRIPTOR_QUALIFIER << 8)
		bh_answer(t, qualifier_descriptor, sizeof(qualifier_descriptor));
	else if (high && wValue == BH_DESCRIPTOR_OTHER_SPEED << 8)
		bh_answer(t, other_speed, sizeof(other_speed));
	else
		bh_standard_control(&d->standard, t);
}

static void control(struct disk *d, struct bh_transfer *t)
{
	unsigned request = bh_request_of(t);

	switch (request) {
	case GET_DESCRIPTOR:
		get_descriptor(d, t);
		break;
	case GET_MAX_LUN:
	case MASS_STORAGE_RESET:
		class_request(d, request, t);
		break;
	default:
		bh_standard_control(&d->standard, t);
		break;
	}
}

/* ---- the device ---- */

static void disk_submit(struct bh_device *device, struct bh_transfer *t)
{
	struct disk *d = to_disk(device);

	t->actual = 0;
	if (t->type == BH_CONTROL && !(t->endpoint & 0x7f))
		control(d, t);
	else if (t->type == BH_BULK && bh_standard_endpoint(device, t->endpoint))
		bh_bot_submit(&d->bot, t);
	else
		bh_refuse(t);
	settle(d);
}

/* Control transfers have always ended already. */
static void disk_cancel(struct bh_device *device, struct bh_transfer *t)
{
	struct disk *d = to_disk(device);

	bh_bot_cancel(&d->bot, t);
	settle(d);
}

static void disk_reset(struct bh_device *device)
{
	struct disk *d = to_disk(device);

	bh_scsi_reset(&d->scsi);
	bh_standard_reset(device);
	settle(d);
}

static void disk_power_on(struct bh_device *device)
{
	bh_scsi_power_on(&to_disk(device)->scsi);
}

static void disk_set_configuration(struct bh_device *device, uint8_t value, struct bh_transfer *t)
{
	bh_standard_set_configuration(device, value, t);
	settle(to_disk(device));
}

static void disk_set_interface(struct bh_device *device, uint8_t interface, uint8_t alternate,
                               struct bh_transfer *t)
{
	bh_standard_set_interface(device, interface, alternate, t);
	settle(to_disk(device));
}

static void disk_clear_halt(struct bh_device *device, uint8_t endpoint, struct bh_transfer *t)
{
	bh_standard_clear_halt(device, endpoint, t);
	settle(to_disk(device));
}

/* Halts are kept where they are made, by the transport: one that is wedged stays halted. */
static void disk_changed(struct bh_standard *s, int interface)
{
	(void)interface; /* there is one */
	bh_bot_reset(&of_standard(s)->bot);
}

static void disk_halted(struct bh_standard *s, uint8_t endpoint, bool halted)
{
	struct bh_bot *bot = &of_standard(s)->bot;

	if (halted)
		bh_bot_set_halt(bot, endpoint & BH_ENDPOINT_IN);
	else
		bh_bot_clear_halt(bot, endpoint & BH_ENDPOINT_IN);
}

static bool disk_is_halted(const struct bh_standard *s, uint8_t endpoint)
{
	return bh_bot_halted(&bh_container_of(s, const struct disk, standard)->bot, endpoint & BH_ENDPOINT_IN);
}

struct bh_disk_counters bh_disk_counters(const struct bh_device *device)
{
	const struct disk *d = to_const_disk(device);
	const struct bh_bot_counters *c = &d->bot.counters;

	return (struct bh_disk_counters){
		.commands = c->commands,
		.bytes_read = c->bytes_read,
		.bytes_written = c->bytes_written,
		.flushes = d->stream.flushes,
		.failed = c->failed,
		.io_errors = c->io_errors,
		.phase_errors = c->phase_errors,
		.invalid_cbws = c->invalid_cbws,
		.resets = c->resets,
	};
}

const char *bh_disk_serial(const struct bh_device *device)
{
	return to_const_disk(device)->serial;
}

/* ---- creation ---- */

static const struct bh_device_ops disk_ops;
static const struct bh_standard_ops standard_ops;

static int invalid(char *error, size_t error_size, const char *path, const char *what)
{
	snprintf(error, error_size, "disk '%s': %s", path, what);
	return -EINVAL;
}

/* BOT 4.1.1: at least twelve digits, of 0-9 and A-F only. */
static bool valid_serial(const char *serial)
{
	size_t n = strspn(serial, "0123456789ABCDEF");

	return !serial[n] && n >= SERIAL_MIN && n <= SERIAL_MAX;
}

/* A serial number that stays with the file: FNV-1a of its canonical path, 16 digits. */
static void derive_serial(const char *path, char serial[SERIAL_MAX + 1])
{
	char *real = realpath(path, NULL);
	uint64_t hash = 0xcbf29ce484222325u;

	for (const char *p = real ? real : path; *p; p++)
		hash = (hash ^ (uint8_t)*p) * 0x100000001b3u;
	free(real);
	snprintf(serial, SERIAL_MAX + 1, "%016llX", (unsigned long long)hash);
}

/* What it is over, for messages and the serial number. */
static const char *name_of(const struct bh_disk_config *c)
{
	return c->nbd ? c->nbd : c->path ? c->path : "";
}

/* The same without what is nobody's business. */
static const char *shown_name(const struct bh_disk_config *c, char name[BH_NBD_NAME_SIZE])
{
	return c->nbd ? bh_block_nbd_name(c->nbd, name) : name_of(c);
}

static int check_config(const struct bh_disk_config *c, char *error, size_t error_size)
{
	char name[BH_NBD_NAME_SIZE];

	if (!c->path == !c->nbd || !*name_of(c))
		return invalid(error, error_size, "", "say where its blocks are: either file=FILE or nbd=URI");
	if (c->block_size && c->block_size != 512 && c->block_size != 4096)
		return invalid(error, error_size, shown_name(c, name), "the block size has to be 512 or 4096");
	if (c->speed != BH_SPEED_FULL && c->speed != BH_SPEED_HIGH)
		return invalid(error, error_size, shown_name(c, name), "the speed has to be full or high");
	if (c->serial && !valid_serial(c->serial))
		return invalid(error, error_size, shown_name(c, name),
		               "the serial number has to be 12 to 32 characters of 0-9 and A-F");
	return 0;
}

static int check_size(const struct bh_disk_config *c, const struct bh_block *block, unsigned block_size,
                      char *error, size_t error_size)
{
	unsigned long long size = block->size;
	char name[BH_NBD_NAME_SIZE];

	if (size == 0)
		return invalid(error, error_size, shown_name(c, name), "is empty; give it a size (truncate -s 1G FILE)");
	if (block->alignment > block_size) {
		snprintf(error, error_size, "disk '%s': the server has blocks of %u bytes; %s", shown_name(c, name), block->alignment,
		         block->alignment <= 4096 ? "say block=4096" : "that is more than a disk can have");
		return -EINVAL;
	}
	if (size % block_size == 0)
		return 0;
	snprintf(error, error_size,
	         "disk '%s': its size, %llu bytes, is not a multiple of %u; extend it (truncate -s %%%u FILE)%s",
	         shown_name(c, name), size, block_size, block_size, size % 512 == 0 ? " or use block=512" : "");
	return -EINVAL;
}

int bh_disk_create_on(struct bh_block *block, const struct bh_disk_config *config, struct bh_device **ret)
{
	unsigned block_size = config->block_size ? config->block_size : 512;
	uint16_t max_packet = config->speed == BH_SPEED_HIGH ? BULK_MAX_PACKET_HIGH : BULK_MAX_PACKET_FULL;
	struct disk *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return -ENOMEM;
	r = bh_stream_init(&d->stream, block, stream_woke);
	if (r < 0) {
		free(d);
		return r;
	}
	describe(d, config->speed);
	bh_standard_init(&d->standard, &disk_ops, &standard_ops, &d->description, config->speed);
	d->block = block;
	if (config->serial)
		memcpy(d->serial, config->serial, strlen(config->serial) + 1);
	else
		derive_serial(name_of(config), d->serial);
	d->scsi = (struct bh_scsi){
		.blocks = block->size / block_size,
		.block_size = block_size,
		.readonly = block->readonly,
		.removable = !config->fixed,
		.serial = d->serial,
	};
	bh_scsi_init(&d->scsi);
	d->bot = (struct bh_bot){.scsi = &d->scsi, .stream = &d->stream, .max_packet = max_packet};
	bh_bot_init(&d->bot);
	*ret = &d->standard.device;
	return 0;
}

int bh_disk_create(struct uv_loop_s *loop, const struct bh_disk_config *config, struct bh_device **ret,
                   char *error, size_t error_size)
{
	char name[BH_NBD_NAME_SIZE];
	struct bh_block *block;
	int r;

	r = check_config(config, error, error_size);
	if (r < 0)
		return r;
	if (config->nbd)
		r = bh_block_nbd_open(loop, config->nbd, config->readonly, config->nbd_timeout_ms ? config->nbd_timeout_ms : 4000,
		                      config->log, config->log_data, &block, error, error_size);
	else
		r = bh_block_file_open(loop, config->path, config->readonly, &block, error, error_size);
	if (r < 0)
		return r;
	r = check_size(config, block, config->block_size ? config->block_size : 512, error, error_size);
	if (r < 0)
		goto err_destroy;
	r = bh_disk_create_on(block, config, ret);
	if (r < 0) {
		snprintf(error, error_size, "disk '%s': out of memory; free some", shown_name(config, name));
		goto err_destroy;
	}
	return 0;

err_destroy:
	bh_block_destroy(block);
	return r;
}

static const struct bh_standard_ops standard_ops = {
	.changed = disk_changed,
	.halted = disk_halted,
	.is_halted = disk_is_halted,
};

static const struct bh_device_ops disk_ops = {
	.submit = disk_submit,
	.cancel = disk_cancel,
	.reset = disk_reset,
	.power_on = disk_power_on,
	.set_configuration = disk_set_configuration,
	.set_interface = disk_set_interface,
	.refuses = bh_standard_refuses,
	.descriptors = bh_standard_descriptors,
	.clear_halt = disk_clear_halt,
	.endpoint = bh_standard_endpoint,
	.destroy = disk_destroy,
};
