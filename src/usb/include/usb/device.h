/*
 * The device seam: what a USB device has to do for the bus, and what it may tell
 * the bus. It is the patent's interface to the destination, a black box that takes data
 * and a request and tells success or failure ([0052], [0067]). Whoever implements struct
 * bh_device_ops is a device: an emulated one (function/), or a real one, of this host or of
 * another machine (host/). It may as well be a layer that holds another device and converts
 * what passes ([0100]).
 *
 * Everything runs on one thread, the controller's: every operation is called on
 * it, and every upcall has to be made on it. No operation may block. What takes
 * time is a transfer.
 *
 * Lengths are bytes. Reference: Universal Serial Bus Specification 2.0, chapters
 * 5, 8 and 9.
 */
#ifndef USB_DEVICE_H
#define USB_DEVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include <base/bytes.h>
#include <base/list.h>
#include <batch/packet.h>
#include <batch/status.h>
#include <batch/verify.h>

#define BH_ENDPOINT_IN 0x80 /* bEndpointAddress, bit 7 */

enum bh_speed { BH_SPEED_LOW, BH_SPEED_FULL, BH_SPEED_HIGH, BH_SPEED_SUPER };

/* bmAttributes, bits 1:0 (9.6.6) */
enum bh_endpoint_type { BH_CONTROL, BH_ISOCHRONOUS, BH_BULK, BH_INTERRUPT };

/* Setup data (9.3), as it travels. */
struct bh_setup {
	uint8_t bmRequestType;
	uint8_t bRequest;
	bh_le16 wValue;
	bh_le16 wIndex;
	bh_le16 wLength;
};
_Static_assert(sizeof(struct bh_setup) == 8, "setup data is eight bytes");

/* What the bus has to know of an endpoint of the active configuration. */
struct bh_endpoint_info {
	uint8_t address; /* bEndpointAddress */
	enum bh_endpoint_type type;
	uint16_t max_packet; /* bytes; 1 to 1024 */
	uint8_t interval;    /* bInterval */
	uint8_t interface;   /* bInterfaceNumber it belongs to */
	/*
	 * Its transfers end by themselves, without anything more from the guest: as
	 * bh_device.finishes, for this endpoint alone.
	 */
	bool finishes;
	bool bulk_only; /* of a bulk-only disk: each command tells how long its data is */
};

/* What a device says of itself (9.6.1, 9.6.3). */
struct bh_descriptors {
	const uint8_t *device; /* 18 bytes; NULL: it does not say */
	const uint8_t *const *configurations; /* whole ones: bh_configuration_check() */
	unsigned configuration_count;
};

/*
 * One host transfer: what a batch becomes. The submitter fills the first part
 * and owns the structure and the memory of the spans; the device owns both
 * between submit and bh_transfer_done(), and may link it into a list of its own.
 *
 * OUT: the device takes the bytes as packets of max_packet bytes, the last one
 * shorter where length is no multiple of it. Where it is a multiple, no
 * zero-length packet follows unless BH_TRANSFER_ZERO_PACKET is set.
 * IN: length is a multiple of max_packet (but for control transfers). The device
 * fills the spans packet by packet; a packet shorter than max_packet ends the
 * transfer. actual, where it is a multiple of max_packet and less than length,
 * says with BH_SUCCESS that a zero-length packet ended it.
 * Isochronous: packets, one for each service interval from the next one on, in order; where
 * other transfers to the endpoint are under way, after theirs. What ended is in each packet;
 * actual and the status that bh_transfer_done() gets say nothing, but that BH_CANCELLED ends
 * what had not had its turn.
 */
struct bh_transfer {
	/* set by the submitter */
	uint8_t endpoint; /* bEndpointAddress; control: 0 */
	enum bh_endpoint_type type;
	unsigned flags;
	struct bh_setup setup; /* control only; its direction is that of the data */
	const struct iovec *spans;
	unsigned span_count;
	uint32_t length; /* sum of the spans */
	struct bh_packet *packets; /* isochronous only (5.6): one in each service interval, no retries, no handshake */
	unsigned packet_count;

	/* set by the device before bh_transfer_done() */
	uint32_t actual; /* bytes taken from or put into the spans */

	/* the device's, while it owns the transfer */
	struct bh_list device_link;
	void *device_data;

	/* the submitter's */
	void (*done)(struct bh_transfer *t, enum bh_status status);
	void (*progress)(struct bh_transfer *t);
	void *submitter_data;
};

#define BH_TRANSFER_ZERO_PACKET 1u /* OUT: end with a zero-length packet */
/*
 * What is known of the guest's request, of which this may be a part. It ends with this transfer: its
 * last packet is short, or the guest asked to be told of it. It goes on: more packets for the
 * endpoint are queued already; of an OUT perhaps behind one that the guest asked to be told of (both
 * are set then). Neither: nobody knows. Of use to who changes the size of packets; to others it is nothing.
 */
#define BH_TRANSFER_REQUEST_ENDS    2u
#define BH_TRANSFER_REQUEST_GOES_ON 4u
/*
 * OUT: the last packet is shorter than the largest, or empty. Its length alone does not tell, for the first packet
 * may be what is left of one that went in part.
 */
#define BH_TRANSFER_SHORT_END 8u

struct bh_device;

/*
 * Every operation but those marked optional is mandatory. None is called after
 * destroy. After bh_device_detach() only cancel and destroy are called.
 */
struct bh_device_ops {
	/*
	 * Take a transfer. It ends with exactly one bh_transfer_done(), which may
	 * come before submit returns. Any status but BH_CANCELLED is possible; a
	 * transfer to an endpoint that does not exist ends with BH_STALL. Transfers
	 * to one endpoint end in the order in which they were submitted.
	 */
	void (*submit)(struct bh_device *d, struct bh_transfer *t);

	/*
	 * End a transfer soon: it is still answered by one bh_transfer_done(),
	 * perhaps before cancel returns, with BH_CANCELLED and the bytes moved so
	 * far, or with the outcome it reached first. A device must not count bytes
	 * as moved that it did not act on, nor act on bytes it does not count.
	 */
	void (*cancel)(struct bh_device *d, struct bh_transfer *t);

	/*
	 * The port was reset: back to the default state, unconfigured. The bus has
	 * cancelled every transfer; those still owned by the device are ended now.
	 */
	void (*reset)(struct bh_device *d);

	/*
	 * SET_CONFIGURATION, SET_INTERFACE, CLEAR_FEATURE(ENDPOINT_HALT). They come
	 * as the control transfer that carried them, and end like a submitted one;
	 * BH_STALL refuses. The bus has cancelled what they concern.
	 */
	void (*set_configuration)(struct bh_device *d, uint8_t value, struct bh_transfer *t);
	void (*set_interface)(struct bh_device *d, uint8_t interface, uint8_t alternate, struct bh_transfer *t);
	void (*clear_halt)(struct bh_device *d, uint8_t endpoint, struct bh_transfer *t);

	/*
	 * Optional. Would this SET_CONFIGURATION or SET_INTERFACE be refused, for all that is known
	 * without asking? Then it comes by submit, to be stalled, and nothing is cancelled for it.
	 */
	bool (*refuses)(const struct bh_device *d, const struct bh_setup *setup);

	/*
	 * The endpoint of the active configuration with this bEndpointAddress, or
	 * NULL. The answer stays valid until the next reset, set_configuration,
	 * set_interface or detach. Never asked for endpoint 0.
	 */
	const struct bh_endpoint_info *(*endpoint)(const struct bh_device *d, uint8_t address);

	/*
	 * Optional, but has to be there where a layer is to translate between speeds. Its
	 * descriptors; valid until it detaches, or is destroyed.
	 */
	struct bh_descriptors (*descriptors)(const struct bh_device *d);

	/*
	 * Optional. The bus it is on has gone to sleep (true) or was resumed: its port, one above
	 * it, or all of them. A reset, too, ends the sleep; it comes without a resume.
	 */
	void (*suspend)(struct bh_device *d, bool suspended);

	/*
	 * Optional. Power came back after it was gone (another machine was switched on):
	 * what a guest did to the medium, such as ejecting it, is over.
	 */
	void (*power_on)(struct bh_device *d);

	/*
	 * Free the device; it is in no port. Transfers still owned are ended first.
	 */
	void (*destroy)(struct bh_device *d);
};

/* USB 2.0, 11.23.2.1 allows 255; so many fit one byte of a status change report. */
#define BH_HUB_MAX_PORTS 7u

/*
 * What a hub learns of the ports that hang from it. Ports count from 0. May be called from
 * any operation or upcall. May call the bus only by bh_hub_port_device(), bh_device_wakeup()
 * and bh_transfer_done(); wakeup() by bh_hub_port_suspend(), too.
 */
struct bh_hub_ops {
	/* Something came to a powered port, or went from it. */
	void (*connected)(struct bh_device *d, unsigned port, bool connected);
	/* A device behind the port, which is suspended or whose hub is, asks to be woken (11.9). */
	void (*wakeup)(struct bh_device *d, unsigned port);
};

/* What the bus learns from a device; set when it is plugged in, NULL while in no port. */
struct bh_device_upcalls {
	int (*attached)(struct bh_device *d);  /* sticky ones only: it shows */
	void (*detached)(struct bh_device *d); /* gone by itself; may be called inside submit */
	void (*wakeup)(struct bh_device *d);   /* remote wakeup while suspended */

	/* hubs only: see bh_hub_port_power() */
	void (*port_power)(struct bh_device *d, unsigned port, bool on);
	void (*port_reset)(struct bh_device *d, unsigned port);
	void (*port_enable)(struct bh_device *d, unsigned port, bool enabled);
	void (*port_suspend)(struct bh_device *d, unsigned port, bool suspended);
	const struct bh_device *(*port_device)(const struct bh_device *d, unsigned port);
};

struct bh_device {
	/* configuration, set by the device before it is attached */
	const struct bh_device_ops *ops;
	enum bh_speed speed;
	uint8_t control_max_packet; /* bMaxPacketSize0, bytes: 8, 16, 32 or 64 */
	/*
	 * True if every transfer it holds ends by itself, without anything more from
	 * the guest: a batch to such a device never has to be broken up for fear that
	 * the guest waits for its first packet. May change with the configuration.
	 */
	bool finishes;
	/*
	 * Microseconds in which its wire moves 1024 bytes of bulk data, for one that tells no
	 * progress: so long a batch may take before it counts as lingering. 0: no time to speak of.
	 */
	uint32_t us_per_kib;
	/*
	 * A transfer that is cancelled may have moved more than it says: the way to the device
	 * drops the count. Then only what finishes is sent in batches, for a batch that lingers
	 * would have to be cancelled; the rest goes packet by packet.
	 */
	bool cancel_loses;
	/*
	 * Comes and goes: it stays in its port while it is away. Nothing shows before the first
	 * bh_device_attach(), nor between a bh_device_detach() and the next; meanwhile, too, only
	 * cancel and destroy are called. While it is in a port it may be changed right before a
	 * bh_device_detach() only, which goes by it.
	 */
	bool sticky;
	/* How what is sent to it is verified; may be set by whoever attaches it. */
	struct bh_verification verification;
	/* Of a hub: 1 to BH_HUB_MAX_PORTS ports. NULL: it is none. */
	const struct bh_hub_ops *hub;
	unsigned hub_ports;

	/* the bus's */
	const struct bh_device_upcalls *upcalls;
	void *bus_data;
};

/* The only ways through the table. */
void bh_device_submit(struct bh_device *d, struct bh_transfer *t);
void bh_device_cancel(struct bh_device *d, struct bh_transfer *t);
void bh_device_reset(struct bh_device *d);
void bh_device_set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t);
void bh_device_set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate, struct bh_transfer *t);
void bh_device_clear_halt(struct bh_device *d, uint8_t endpoint, struct bh_transfer *t);
bool bh_device_refuses(const struct bh_device *d, const struct bh_setup *setup);
const struct bh_endpoint_info *bh_device_endpoint(const struct bh_device *d, uint8_t address);
struct bh_descriptors bh_device_descriptors(const struct bh_device *d);
/*
 * Which operation carries out a control request: SET_CONFIGURATION, SET_INTERFACE and
 * CLEAR_FEATURE(ENDPOINT_HALT) have one of their own, unless they ask for what the device
 * refuses, or name an endpoint there is not. Those, and everything else, go by submit.
 */
enum bh_operation { BH_OPERATION_SUBMIT, BH_OPERATION_SET_CONFIGURATION, BH_OPERATION_SET_INTERFACE, BH_OPERATION_CLEAR_HALT };
enum bh_operation bh_device_operation(const struct bh_device *d, const struct bh_setup *setup);

/* Has a control transfer carried out by that operation. */
void bh_device_request(struct bh_device *d, struct bh_transfer *t);

void bh_device_suspend(struct bh_device *d, bool suspended);
void bh_device_power_on(struct bh_device *d);
void bh_device_destroy(struct bh_device *d); /* NULL is allowed */

/*
 * Upcalls. A device that is in no port may make them; nothing happens.
 *
 * attach: a sticky device is there, in its default state; speed and control_max_packet are set
 * anew before it. From outside of any operation only. 0; -ENOTSUP: it is faster than the port,
 * and does not show; -EPROTO: a layer that holds it cannot have it shown, and has said why;
 * -ENOTCONN: it is in no port. Twice: nothing happens.
 *
 * detach: the device is gone by itself; also inside submit, and twice. The bus cancels its
 * transfers in here, and the device ends each as ever. A sticky device stays in its port; any
 * other is destroyed at a later bh_bus_tick(), or when it is removed.
 *
 * wakeup: remote wakeup; without effect where nothing is suspended. Whether the guest has
 * allowed it (DEVICE_REMOTE_WAKEUP) is the device's to know. That the guest resumed the port
 * comes later, as suspend(false).
 */
int bh_device_attach(struct bh_device *d);
void bh_device_detach(struct bh_device *d);
void bh_device_wakeup(struct bh_device *d);

/*
 * What a guest does to a hub's ports, told to the bus by the hub. In no port of its own,
 * nothing happens. port: less than hub_ports.
 *
 * power: switched on, what is plugged in shows (connected() is called in here) in its default
 * state; switched off, it is gone, and connected() is not called. Ports are off where a hub
 * is plugged in; a hub that is reset switches them off.
 * reset: the device there is back in its default state, at address 0; the port is neither
 * enabled nor suspended. The hub enables it.
 * enable, suspend: only a powered port that is enabled and not suspended carries packets,
 * and only where all ports above it do.
 * device: what shows on the port, or NULL.
 */
void bh_hub_port_power(struct bh_device *d, unsigned port, bool on);
void bh_hub_port_reset(struct bh_device *d, unsigned port);
void bh_hub_port_enable(struct bh_device *d, unsigned port, bool enabled);
void bh_hub_port_suspend(struct bh_device *d, unsigned port, bool suspended);
const struct bh_device *bh_hub_port_device(const struct bh_device *d, unsigned port);

/* The transfer has ended; it is the submitter's again before this returns. */
void bh_transfer_done(struct bh_transfer *t, enum bh_status status, uint32_t actual);

/* Some of it has moved (t->actual says how much so far): it is worth waiting on. */
void bh_transfer_progress(struct bh_transfer *t, uint32_t actual);

/*
 * Copy between a transfer's spans, from byte offset on, and a plain buffer.
 * offset + length must not exceed t->length.
 */
void bh_transfer_read(const struct bh_transfer *t, uint32_t offset, void *to, uint32_t length);
void bh_transfer_write(const struct bh_transfer *t, uint32_t offset, const void *from, uint32_t length);

#endif
