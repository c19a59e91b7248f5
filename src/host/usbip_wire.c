#include <host/usbip_wire.h>

#include <errno.h>
#include <string.h>

#include <base/util.h>

struct bh_usbip_op_header bh_usbip_put_op(enum bh_usbip_operation code, enum bh_usbip_op_status status)
{
	return (struct bh_usbip_op_header){
		.version = bh_put_be16(BH_USBIP_VERSION),
		.code = bh_put_be16((uint16_t)code),
		.status = bh_put_be32(status),
	};
}

struct bh_usbip_operation_fields bh_usbip_get_op(const struct bh_usbip_op_header *from)
{
	return (struct bh_usbip_operation_fields){
		.version = bh_get_be16(from->version),
		.code = bh_get_be16(from->code),
		.status = bh_get_be32(from->status),
	};
}

int bh_usbip_put_import(const char *busid, struct bh_usbip_import_request *ret)
{
	size_t length = strlen(busid);

	*ret = (struct bh_usbip_import_request){.header = bh_usbip_put_op(BH_USBIP_REQ_IMPORT, BH_USBIP_OK)};
	if (!length || length >= sizeof(ret->busid))
		return -EINVAL;
	memcpy(ret->busid, busid, length);
	return 0;
}

/* size: of both, of which the last byte stays zero. */
static void put_text(char *to, const char *from, size_t size)
{
	memcpy(to, from, strnlen(from, size - 1));
}

/* to: one byte longer than from. */
static void get_text(char *to, const char *from, size_t size)
{
	size_t length = strnlen(from, size);

	for (size_t i = 0; i < length; i++)
		to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '?';
	to[length] = '\0';
}

struct bh_usbip_device bh_usbip_put_device(const struct bh_usbip_device_fields *from)
{
	struct bh_usbip_device to = {
		.busnum = bh_put_be32(from->busnum),
		.devnum = bh_put_be32(from->devnum),
		.speed = bh_put_be32(from->speed),
		.idVendor = bh_put_be16(from->vendor),
		.idProduct = bh_put_be16(from->product),
		.bcdDevice = bh_put_be16(from->version),
		.bDeviceClass = from->device_class,
		.bDeviceSubClass = from->subclass,
		.bDeviceProtocol = from->protocol,
		.bConfigurationValue = from->configuration,
		.bNumConfigurations = from->configurations,
		.bNumInterfaces = from->interfaces,
	};

	put_text(to.path, from->path, sizeof(to.path));
	put_text(to.busid, from->busid, sizeof(to.busid));
	return to;
}

struct bh_usbip_device_fields bh_usbip_get_device(const struct bh_usbip_device *from)
{
	struct bh_usbip_device_fields to = {
		.busnum = bh_get_be32(from->busnum),
		.devnum = bh_get_be32(from->devnum),
		.speed = bh_get_be32(from->speed),
		.vendor = bh_get_be16(from->idVendor),
		.product = bh_get_be16(from->idProduct),
		.version = bh_get_be16(from->bcdDevice),
		.device_class = from->bDeviceClass,
		.subclass = from->bDeviceSubClass,
		.protocol = from->bDeviceProtocol,
		.configuration = from->bConfigurationValue,
		.configurations = from->bNumConfigurations,
		.interfaces = from->bNumInterfaces,
	};

	get_text(to.path, from->path, sizeof(from->path));
	get_text(to.busid, from->busid, sizeof(from->busid));
	return to;
}

static struct bh_usbip_basic put_basic(enum bh_usbip_command command, uint32_t seqnum)
{
	return (struct bh_usbip_basic){.command = bh_put_be32(command), .seqnum = bh_put_be32(seqnum)};
}

struct bh_usbip_cmd_submit bh_usbip_put_submit(const struct bh_usbip_submit *from)
{
	struct bh_usbip_cmd_submit to = {
		.basic = put_basic(BH_USBIP_CMD_SUBMIT, from->seqnum),
		.transfer_flags = bh_put_be32(from->flags),
		.transfer_buffer_length = bh_put_be32(from->length),
		.start_frame = bh_put_be32(from->start_frame),
		.number_of_packets = bh_put_be32(from->packets),
		.interval = bh_put_be32(from->interval),
		.setup = from->setup,
	};

	to.basic.devid = bh_put_be32(from->devid);
	to.basic.direction = bh_put_be32(from->in);
	to.basic.ep = bh_put_be32(from->endpoint);
	return to;
}

struct bh_usbip_submit bh_usbip_get_submit(const struct bh_usbip_cmd_submit *from)
{
	return (struct bh_usbip_submit){
		.seqnum = bh_get_be32(from->basic.seqnum),
		.devid = bh_get_be32(from->basic.devid),
		.in = bh_get_be32(from->basic.direction) != 0,
		.endpoint = bh_get_be32(from->basic.ep),
		.flags = bh_get_be32(from->transfer_flags),
		.length = bh_get_be32(from->transfer_buffer_length),
		.start_frame = bh_get_be32(from->start_frame),
		.packets = bh_get_be32(from->number_of_packets),
		.interval = bh_get_be32(from->interval),
		.setup = from->setup,
	};
}

struct bh_usbip_ret_submit bh_usbip_put_result(const struct bh_usbip_result *from)
{
	return (struct bh_usbip_ret_submit){
		.basic = put_basic(BH_USBIP_RET_SUBMIT, from->seqnum),
		.status = bh_put_be32((uint32_t)from->status),
		.actual_length = bh_put_be32(from->actual),
		.start_frame = bh_put_be32(from->start_frame),
		.number_of_packets = bh_put_be32(from->packets),
		.error_count = bh_put_be32(from->errors),
	};
}

struct bh_usbip_result bh_usbip_get_result(const struct bh_usbip_ret_submit *from)
{
	return (struct bh_usbip_result){
		.seqnum = bh_get_be32(from->basic.seqnum),
		.status = (int32_t)bh_get_be32(from->status),
		.actual = bh_get_be32(from->actual_length),
		.start_frame = bh_get_be32(from->start_frame),
		.packets = bh_get_be32(from->number_of_packets),
		.errors = bh_get_be32(from->error_count),
	};
}

struct bh_usbip_cmd_unlink bh_usbip_put_unlink(const struct bh_usbip_unlink *from)
{
	struct bh_usbip_cmd_unlink to = {
		.basic = put_basic(BH_USBIP_CMD_UNLINK, from->seqnum),
		.unlink_seqnum = bh_put_be32(from->target),
	};

	to.basic.devid = bh_put_be32(from->devid);
	return to;
}

struct bh_usbip_unlink bh_usbip_get_unlink(const struct bh_usbip_cmd_unlink *from)
{
	return (struct bh_usbip_unlink){
		.seqnum = bh_get_be32(from->basic.seqnum),
		.devid = bh_get_be32(from->basic.devid),
		.target = bh_get_be32(from->unlink_seqnum),
	};
}

struct bh_usbip_ret_unlink bh_usbip_put_unlinked(const struct bh_usbip_unlinked *from)
{
	return (struct bh_usbip_ret_unlink){
		.basic = put_basic(BH_USBIP_RET_UNLINK, from->seqnum),
		.status = bh_put_be32((uint32_t)from->status),
	};
}

struct bh_usbip_unlinked bh_usbip_get_unlinked(const struct bh_usbip_ret_unlink *from)
{
	return (struct bh_usbip_unlinked){
		.seqnum = bh_get_be32(from->basic.seqnum),
		.status = (int32_t)bh_get_be32(from->status),
	};
}

struct bh_usbip_iso_packet bh_usbip_put_packet(const struct bh_usbip_packet *from)
{
	return (struct bh_usbip_iso_packet){
		.offset = bh_put_be32(from->offset),
		.length = bh_put_be32(from->length),
		.actual_length = bh_put_be32(from->actual),
		.status = bh_put_be32((uint32_t)from->status),
	};
}

struct bh_usbip_packet bh_usbip_get_packet(const struct bh_usbip_iso_packet *from)
{
	return (struct bh_usbip_packet){
		.offset = bh_get_be32(from->offset),
		.length = bh_get_be32(from->length),
		.actual = bh_get_be32(from->actual_length),
		.status = (int32_t)bh_get_be32(from->status),
	};
}

enum bh_status bh_usbip_outcome(int32_t status)
{
	switch (status) {
	case 0:
	case -BH_USBIP_EREMOTEIO: /* short: the length says so */
		return BH_SUCCESS;
	case -BH_USBIP_EPIPE:
		return BH_STALL;
	case -BH_USBIP_EOVERFLOW:
		return BH_BABBLE;
	case -BH_USBIP_ECONNRESET:
	case -BH_USBIP_ENOENT:
		return BH_CANCELLED;
	case -BH_USBIP_ENODEV:
	case -BH_USBIP_ESHUTDOWN:
	case -BH_USBIP_ETIME:
	case -BH_USBIP_EXDEV: /* a packet's: its interval passed without it */
		return BH_NO_RESPONSE;
	default:
		return BH_BUS_ERROR;
	}
}

int32_t bh_usbip_status(enum bh_status outcome)
{
	static const int32_t statuses[BH_STATUS_COUNT] = {
		[BH_STALL] = -BH_USBIP_EPIPE,
		[BH_BABBLE] = -BH_USBIP_EOVERFLOW,
		[BH_NO_RESPONSE] = -BH_USBIP_EPROTO, /* what UHCI's driver makes of a time-out, too */
		[BH_BUS_ERROR] = -BH_USBIP_EILSEQ,
		[BH_CANCELLED] = -BH_USBIP_ECONNRESET,
	};

	return outcome < BH_STATUS_COUNT ? statuses[outcome] : -BH_USBIP_EPROTO;
}

bool bh_usbip_get_speed(uint32_t speed, enum bh_speed *ret)
{
	switch (speed) {
	case BH_USBIP_SPEED_LOW:
		*ret = BH_SPEED_LOW;
		return true;
	case BH_USBIP_SPEED_FULL:
		*ret = BH_SPEED_FULL;
		return true;
	case BH_USBIP_SPEED_HIGH:
	case BH_USBIP_SPEED_WIRELESS: /* it answers as one of high speed does (Wireless USB 1.0, 4.8) */
		*ret = BH_SPEED_HIGH;
		return true;
	case BH_USBIP_SPEED_SUPER:
	case BH_USBIP_SPEED_SUPER_PLUS:
		*ret = BH_SPEED_SUPER;
		return true;
	default:
		return false;
	}
}

enum bh_usbip_speed bh_usbip_put_speed(enum bh_speed speed)
{
	static const enum bh_usbip_speed speeds[] = {
		[BH_SPEED_LOW] = BH_USBIP_SPEED_LOW,
		[BH_SPEED_FULL] = BH_USBIP_SPEED_FULL,
		[BH_SPEED_HIGH] = BH_USBIP_SPEED_HIGH,
		[BH_SPEED_SUPER] = BH_USBIP_SPEED_SUPER,
	};

	return speed < BH_COUNT(speeds) ? speeds[speed] : BH_USBIP_SPEED_UNKNOWN;
}

const char *bh_usbip_speed_name(uint32_t speed)
{
	static const char *const names[] = {
		[BH_USBIP_SPEED_UNKNOWN] = "unknown", [BH_USBIP_SPEED_LOW] = "low",
		[BH_USBIP_SPEED_FULL] = "full",       [BH_USBIP_SPEED_HIGH] = "high",
		[BH_USBIP_SPEED_WIRELESS] = "wireless", [BH_USBIP_SPEED_SUPER] = "super",
		[BH_USBIP_SPEED_SUPER_PLUS] = "super+",
	};

	return speed < BH_COUNT(names) ? names[speed] : "unknown";
}

const char *bh_usbip_op_status_text(uint32_t status)
{
	switch (status) {
	case BH_USBIP_OK:
		return "no error";
	case BH_USBIP_NOT_AVAILABLE:
		return "not exported, or in use by another client";
	case BH_USBIP_BUSY:
		return "in use by another client";
	case BH_USBIP_DEVICE_ERROR:
		return "in an error state at the server";
	case BH_USBIP_NO_DEVICE:
		return "no such device is exported";
	default:
		return "the server failed";
	}
}
