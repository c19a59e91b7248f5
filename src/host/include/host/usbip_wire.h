/*
 * The messages of USB/IP, protocol 1.1.1, as they travel over TCP, and their fields in host
 * order. For the side that uses a device (host/usbip.h, Linux's vhci-hcd) and for the one that
 * exports it (Linux's usbipd with usbip-host or usbip-vudc). Reference: Linux,
 * Documentation/usb/usbip_protocol.rst; where that and drivers/usb/usbip/ differ, the latter
 * is what is understood everywhere, and is said here.
 *
 *   client                                      server
 *   OP_REQ_DEVLIST                          ->
 *                                           <-  OP_REP_DEVLIST, then the connection ends
 *   OP_REQ_IMPORT (busid)                   ->
 *                                           <-  OP_REP_IMPORT (status; if 0, the device)
 *   on the same connection, from here on in any order:
 *   CMD_SUBMIT (seqnum n) [OUT data] [iso]  ->
 *                                           <-  RET_SUBMIT (seqnum n) [IN data] [iso]
 *   CMD_UNLINK (seqnum m, of n)             ->
 *                                           <-  RET_UNLINK (seqnum m)
 *
 * Everything is big-endian, but setup data, which stays as USB has it. A message has no length
 * of its own: what follows the header is told by the request, so who loses count of the bytes
 * cannot find the next message. What follows, in this order:
 *
 *   CMD_SUBMIT  OUT: length bytes. IN: none.
 *               then, of an isochronous endpoint: packets descriptors
 *   RET_SUBMIT  IN: actual bytes, whatever the status. OUT: none.
 *               then, of an isochronous endpoint: packets descriptors
 *   CMD_UNLINK, RET_UNLINK: nothing
 *
 * Isochronous. Data OUT is one block of length bytes, in which each descriptor's offset says
 * where its packet is. Data IN is packed: the actual bytes of each packet, one packet after the
 * other, although the descriptors say the offsets of the request again; header and descriptors
 * have to agree on the sum. In CMD_SUBMIT every descriptor's actual is 0: Linux drops the
 * connection if it is not. Linux also refuses more packets than length / wMaxPacketSize, rounded
 * up, and then loses count of the bytes: a client makes length that large, and pads.
 *
 * Unlinking. The server answers CMD_UNLINK with
 *   -ECONNRESET  it was unlinked; no RET_SUBMIT follows, and what had moved is not told;
 *   0            it is not under way. Its RET_SUBMIT was sent before or, where it ended at that
 *                moment, is sent after, or is not sent at all: usbip-host answers so for a
 *                request that ended by itself between the unlink and its end (stub_complete());
 *   other        the status it ended with at that moment; no RET_SUBMIT follows.
 * A server should send RET_SUBMIT before the RET_UNLINK with 0: vhci-hcd gives the request back
 * at RET_UNLINK and then takes a RET_SUBMIT for a broken connection.
 */
#ifndef HOST_USBIP_WIRE_H
#define HOST_USBIP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <base/bytes.h>
#include <batch/status.h>
#include <usb/device.h>

#define BH_USBIP_PORT    3240u
#define BH_USBIP_VERSION 0x0111u /* 1.1.1, in every header of the first phase */

/* ---- First phase: operations ---- */

enum bh_usbip_operation {
	BH_USBIP_REQ_DEVLIST = 0x8005, /* a header alone */
	BH_USBIP_REP_DEVLIST = 0x0005,
	BH_USBIP_REQ_IMPORT = 0x8003,
	BH_USBIP_REP_IMPORT = 0x0003,
};

/* Of a reply. Servers other than Linux's know 0 and 1 alone. */
enum bh_usbip_op_status {
	BH_USBIP_OK = 0,
	BH_USBIP_NOT_AVAILABLE = 1, /* also: no such busid (usbipd before Linux 4.17) */
	BH_USBIP_BUSY = 2,
	BH_USBIP_DEVICE_ERROR = 3,
	BH_USBIP_NO_DEVICE = 4,
	BH_USBIP_ERROR = 5,
};

#define BH_USBIP_PATH_SIZE  256u
#define BH_USBIP_BUSID_SIZE 32u

struct bh_usbip_op_header {
	bh_be16 version; /* BH_USBIP_VERSION */
	bh_be16 code;    /* enum bh_usbip_operation */
	bh_be32 status;  /* requests: 0 */
};
_Static_assert(sizeof(struct bh_usbip_op_header) == 8, "an operation's header is 8 bytes");

struct bh_usbip_import_request {
	struct bh_usbip_op_header header;
	char busid[BH_USBIP_BUSID_SIZE]; /* "1-1.4", the rest zero */
};
_Static_assert(sizeof(struct bh_usbip_import_request) == 40, "OP_REQ_IMPORT is 40 bytes");

/* enum usb_device_speed of Linux */
enum bh_usbip_speed {
	BH_USBIP_SPEED_UNKNOWN,
	BH_USBIP_SPEED_LOW,
	BH_USBIP_SPEED_FULL,
	BH_USBIP_SPEED_HIGH,
	BH_USBIP_SPEED_WIRELESS,
	BH_USBIP_SPEED_SUPER,
	BH_USBIP_SPEED_SUPER_PLUS,
};

/* A device, in both replies. */
struct bh_usbip_device {
	char path[BH_USBIP_PATH_SIZE];   /* at the server, for people; zero-terminated, or so it should be */
	char busid[BH_USBIP_BUSID_SIZE]; /* likewise */
	bh_be32 busnum, devnum;          /* both together are its devid, see bh_usbip_devid() */
	bh_be32 speed;                   /* enum bh_usbip_speed */
	bh_be16 idVendor, idProduct, bcdDevice;
	uint8_t bDeviceClass, bDeviceSubClass, bDeviceProtocol;
	uint8_t bConfigurationValue; /* the active one */
	uint8_t bNumConfigurations;
	uint8_t bNumInterfaces; /* of the active configuration */
};
_Static_assert(sizeof(struct bh_usbip_device) == 312, "a device is 312 bytes");

/* If the header's status is not 0, the reply ends with the header. Interfaces are not told. */
struct bh_usbip_import_reply {
	struct bh_usbip_op_header header;
	struct bh_usbip_device device;
};
_Static_assert(sizeof(struct bh_usbip_import_reply) == 320, "OP_REP_IMPORT is 320 bytes");

/* Followed by count times a device, each by its bNumInterfaces interfaces. */
struct bh_usbip_devlist_reply {
	struct bh_usbip_op_header header;
	bh_be32 count;
};
_Static_assert(sizeof(struct bh_usbip_devlist_reply) == 12, "OP_REP_DEVLIST begins with 12 bytes");

struct bh_usbip_interface {
	uint8_t bInterfaceClass, bInterfaceSubClass, bInterfaceProtocol;
	uint8_t zero;
};
_Static_assert(sizeof(struct bh_usbip_interface) == 4, "an interface is 4 bytes");

/* ---- Second phase: requests and their results ---- */

enum bh_usbip_command {
	BH_USBIP_CMD_SUBMIT = 1,
	BH_USBIP_CMD_UNLINK = 2,
	BH_USBIP_RET_SUBMIT = 3,
	BH_USBIP_RET_UNLINK = 4,
};

/* Begins every message of this phase. */
struct bh_usbip_basic {
	bh_be32 command;   /* enum bh_usbip_command */
	bh_be32 seqnum;    /* of a command: its own, the client's choice; of a result: that of the command */
	bh_be32 devid;     /* commands: bh_usbip_devid(); results: 0 */
	bh_be32 direction; /* CMD_SUBMIT: 0 OUT, 1 IN; else 0. A control transfer without data is OUT */
	bh_be32 ep;        /* CMD_SUBMIT: endpoint number without direction, 0 to 15; else 0 */
};
_Static_assert(sizeof(struct bh_usbip_basic) == 20, "what every message begins with is 20 bytes");

/* Bits of transfer_flags; Linux's URB_*. A server ignores what it does not know. */
#define BH_USBIP_SHORT_NOT_OK 0x0001u /* IN: a short packet is -EREMOTEIO */
#define BH_USBIP_ISO_ASAP     0x0002u /* isochronous: from the next interval on, start_frame says nothing */
#define BH_USBIP_ZERO_PACKET  0x0040u /* bulk OUT: end with a zero-length packet, where length is whole packets */
#define BH_USBIP_DIR_IN       0x0200u /* direction again */

struct bh_usbip_cmd_submit {
	struct bh_usbip_basic basic;
	bh_be32 transfer_flags;
	bh_be32 transfer_buffer_length; /* bytes; OUT: so many follow; at most INT32_MAX */
	bh_be32 start_frame;            /* isochronous; else 0 */
	bh_be32 number_of_packets;      /* isochronous; else 0 (vhci-hcd) or 0xffffffff (the document): ignore it */
	bh_be32 interval;               /* interrupt, isochronous: in frames or microframes */
	struct bh_setup setup;          /* control; else zero */
};

struct bh_usbip_ret_submit {
	struct bh_usbip_basic basic;
	bh_be32 status;            /* 0 or a negative errno value of Linux; see bh_usbip_outcome() */
	bh_be32 actual_length;     /* bytes; IN: so many follow */
	bh_be32 start_frame;       /* isochronous; else 0 */
	bh_be32 number_of_packets; /* isochronous: that of the request; else 0 or 0xffffffff */
	bh_be32 error_count;       /* isochronous: packets that failed */
	uint8_t zero[8];
};

struct bh_usbip_cmd_unlink {
	struct bh_usbip_basic basic;
	bh_be32 unlink_seqnum; /* of the CMD_SUBMIT */
	uint8_t zero[24];
};

struct bh_usbip_ret_unlink {
	struct bh_usbip_basic basic;
	bh_be32 status;
	uint8_t zero[24];
};

/* Any of them: all are 48 bytes, so that a reader takes so many and looks at basic.command. */
union bh_usbip_message {
	struct bh_usbip_basic basic;
	struct bh_usbip_cmd_submit cmd_submit;
	struct bh_usbip_cmd_unlink cmd_unlink;
	struct bh_usbip_ret_submit ret_submit;
	struct bh_usbip_ret_unlink ret_unlink;
};
_Static_assert(sizeof(struct bh_usbip_cmd_submit) == 48, "a message's header is 48 bytes");
_Static_assert(sizeof(struct bh_usbip_cmd_unlink) == 48, "a message's header is 48 bytes");
_Static_assert(sizeof(struct bh_usbip_ret_submit) == 48, "a message's header is 48 bytes");
_Static_assert(sizeof(struct bh_usbip_ret_unlink) == 48, "a message's header is 48 bytes");
_Static_assert(sizeof(union bh_usbip_message) == 48, "a message's header is 48 bytes");

struct bh_usbip_iso_packet {
	bh_be32 offset; /* of its bytes in the request's buffer */
	bh_be32 length;
	bh_be32 actual_length; /* CMD_SUBMIT: 0 */
	bh_be32 status;        /* 0 or a negative errno value of Linux */
};
_Static_assert(sizeof(struct bh_usbip_iso_packet) == 16, "a packet's descriptor is 16 bytes");

/* ---- The same in host order. get does not judge: every value is the peer's. ---- */

struct bh_usbip_operation_fields {
	uint16_t version, code;
	uint32_t status;
};
struct bh_usbip_op_header bh_usbip_put_op(enum bh_usbip_operation code, enum bh_usbip_op_status status);
struct bh_usbip_operation_fields bh_usbip_get_op(const struct bh_usbip_op_header *from);

/* busid: shorter than BH_USBIP_BUSID_SIZE (else -EINVAL, and empty ones). */
int bh_usbip_put_import(const char *busid, struct bh_usbip_import_request *ret);

/* A device as told of in both replies; strings are zero-terminated. */
struct bh_usbip_device_fields {
	char path[BH_USBIP_PATH_SIZE + 1];
	char busid[BH_USBIP_BUSID_SIZE + 1];
	uint32_t busnum, devnum;
	uint32_t speed; /* enum bh_usbip_speed, or anything */
	uint16_t vendor, product, version;
	uint8_t device_class, subclass, protocol;
	uint8_t configuration, configurations, interfaces;
};
/* Strings are cut to BH_USBIP_PATH_SIZE - 1 and BH_USBIP_BUSID_SIZE - 1. */
struct bh_usbip_device bh_usbip_put_device(const struct bh_usbip_device_fields *from);
/* Bytes of strings that are not printable ASCII become '?': they are safe to print. */
struct bh_usbip_device_fields bh_usbip_get_device(const struct bh_usbip_device *from);

/* A CMD_SUBMIT. */
struct bh_usbip_submit {
	uint32_t seqnum, devid;
	bool in;
	uint32_t endpoint; /* get: anything */
	uint32_t flags;
	uint32_t length;
	uint32_t start_frame;
	uint32_t packets; /* not isochronous: put 0, get anything */
	uint32_t interval;
	struct bh_setup setup;
};
struct bh_usbip_cmd_submit bh_usbip_put_submit(const struct bh_usbip_submit *from);
struct bh_usbip_submit bh_usbip_get_submit(const struct bh_usbip_cmd_submit *from);

/* A RET_SUBMIT. */
struct bh_usbip_result {
	uint32_t seqnum;
	int32_t status;
	uint32_t actual;
	uint32_t start_frame;
	uint32_t packets; /* as above */
	uint32_t errors;
};
struct bh_usbip_ret_submit bh_usbip_put_result(const struct bh_usbip_result *from);
struct bh_usbip_result bh_usbip_get_result(const struct bh_usbip_ret_submit *from);

/* A CMD_UNLINK. */
struct bh_usbip_unlink {
	uint32_t seqnum, devid;
	uint32_t target; /* the seqnum of the CMD_SUBMIT */
};
struct bh_usbip_cmd_unlink bh_usbip_put_unlink(const struct bh_usbip_unlink *from);
struct bh_usbip_unlink bh_usbip_get_unlink(const struct bh_usbip_cmd_unlink *from);

/* A RET_UNLINK. */
struct bh_usbip_unlinked {
	uint32_t seqnum;
	int32_t status;
};
struct bh_usbip_ret_unlink bh_usbip_put_unlinked(const struct bh_usbip_unlinked *from);
struct bh_usbip_unlinked bh_usbip_get_unlinked(const struct bh_usbip_ret_unlink *from);

struct bh_usbip_packet {
	uint32_t offset, length, actual;
	int32_t status;
};
struct bh_usbip_iso_packet bh_usbip_put_packet(const struct bh_usbip_packet *from);
struct bh_usbip_packet bh_usbip_get_packet(const struct bh_usbip_iso_packet *from);

/* ---- What the numbers mean ---- */

/* How commands name the device: of OP_REP_IMPORT's busnum and devnum. */
static inline uint32_t bh_usbip_devid(uint32_t busnum, uint32_t devnum)
{
	return busnum << 16 | devnum;
}

/*
 * The errno values of the wire are Linux's on x86, whatever those of this host are. Statuses
 * that are not listed there mean some error.
 */
enum bh_usbip_errno {
	BH_USBIP_ENOENT = 2,        /* killed */
	BH_USBIP_EXDEV = 18,        /* isochronous: not every packet was sent, or the one was not */
	BH_USBIP_ENODEV = 19,       /* the device is gone */
	BH_USBIP_EPIPE = 32,        /* stalled */
	BH_USBIP_ETIME = 62,        /* no handshake */
	BH_USBIP_ECOMM = 70,        /* the memory was too slow, IN */
	BH_USBIP_EPROTO = 71,       /* bit stuffing, no response, another error of the bus */
	BH_USBIP_ENOSR = 63,        /* the memory was too slow, OUT */
	BH_USBIP_EOVERFLOW = 75,    /* babble */
	BH_USBIP_EILSEQ = 84,       /* CRC, no response */
	BH_USBIP_ECONNRESET = 104,  /* unlinked */
	BH_USBIP_ESHUTDOWN = 108,   /* the device, or its controller, is gone */
	BH_USBIP_EREMOTEIO = 121,   /* IN, with BH_USBIP_SHORT_NOT_OK: short */
};

/* How a transfer or an isochronous packet ended that has this status on the wire. */
enum bh_status bh_usbip_outcome(int32_t status);

/* The status on the wire of one that ended like this. */
int32_t bh_usbip_status(enum bh_status outcome);

/* false: no speed of USB's. */
bool bh_usbip_get_speed(uint32_t speed, enum bh_speed *ret);
enum bh_usbip_speed bh_usbip_put_speed(enum bh_speed speed);

/* For people: "full", "high", ...; "unknown". */
const char *bh_usbip_speed_name(uint32_t speed);

/* For people: why a request of the first phase was refused. */
const char *bh_usbip_op_status_text(uint32_t status);

#endif
