/*
 * A device without a bus: what a server offers to others. It stands for the bus towards the
 * device (usb/device.h), and carries requests to it as a host controller would: one after the
 * other on each endpoint (of isochronous ones several), periodic ones at their intervals, with
 * what SET_CONFIGURATION, SET_INTERFACE and CLEAR_FEATURE change kept in mind.
 */
#ifndef EXPORT_EXPORTED_H
#define EXPORT_EXPORTED_H

#include <uv.h>

#include <base/list.h>
#include <usb/device.h>
#include <usb/probe.h>
#include <usb/settings.h>

#include "pacing.h"

/* Of one client, all together: requests, and bytes of their data. */
#define BH_EXPORT_REQUESTS 512u
#define BH_EXPORT_BYTES    (16u << 20)

/* Of one request. */
#define BH_EXPORT_LENGTH  (1u << 20)
#define BH_EXPORT_PACKETS 128u

struct bh_exported;

/* One transfer that a client asked for. */
struct bh_export_request {
	struct bh_list link; /* its endpoint's */
	struct bh_exported *exported;
	struct bh_transfer transfer;
	struct iovec span;
	uint8_t *data;            /* transfer.length bytes */
	struct bh_packet *packets;
	uint64_t id;              /* the client's name for it */
	uint32_t flags;           /* the server's */
	uint32_t asked;           /* IN: what the client has room for; the transfer is of whole packets */
	uint32_t bytes;           /* that are accounted for it */
	bool started, cancelled;
	uint16_t max_packet;  /* of its endpoint, when it began; */
	uint64_t interval_us; /* and its service interval */
	uint64_t begun_us;
	void *owner; /* the server's */
};

/* What a server learns; from the loop, or from inside of the functions below. */
struct bh_exported_ops {
	/* The device is there, in its default state: probe says what it is. */
	void (*arrived)(struct bh_exported *e);
	/* It is not there any more, and every request has ended. for_good: it will not come back. */
	void (*departed)(struct bh_exported *e, bool for_good);
	/*
	 * A request has ended: transfer.actual and the status say how; BH_CANCELLED, where it was
	 * cancelled, or what it was sent to is no more. It is freed when this returns.
	 */
	void (*ended)(struct bh_export_request *r, enum bh_status status);
};

struct bh_exported {
	/* configuration */
	struct bh_device *device;
	const struct bh_exported_ops *ops;
	void *owner; /* the server's */
	uv_loop_t *loop;

	/* state */
	bool there, asked, gone; /* it can be used; it is being asked what it is; it will not come back */
	bool asked_anew;         /* it went and came back while it was being asked */
	bool configuring;        /* its settings are being changed: only control requests begin */
	unsigned held;           /* nothing begins */
	struct bh_probe probe;
	struct bh_settings settings;
	struct bh_list endpoints[2][16]; /* [in][number]: requests, the first ones started; control: [0][0] */
	struct bh_pace paces[2][16];     /* of a periodic endpoint */
	uv_timer_t *timer;               /* for the next one that is due; on the heap */
	unsigned requests;
	uint64_t bytes;
};

/* For a zeroed structure. The device stays the caller's; it is in no port. 0 or -ENOMEM. */
int bh_exported_init(struct bh_exported *e, uv_loop_t *loop, struct bh_device *d, const struct bh_exported_ops *ops,
                     void *owner);

/* Asks a device that is there what it is: arrived() comes, perhaps in here. Sticky ones come by themselves. */
void bh_exported_begin(struct bh_exported *e);

/* Ends every request, without ended(), and forgets the device, which is the caller's to close. */
void bh_exported_finish(struct bh_exported *e);

/*
 * A request to fill in: type, endpoint, setup, packets' offsets and lengths, data where it goes
 * out. NULL: it would be more than one client may have, or out of memory.
 */
struct bh_export_request *bh_exported_request(struct bh_exported *e, uint32_t length, uint32_t packets);
void bh_export_request_free(struct bh_export_request *r); /* of one that was not submitted */

/* ended() comes for it, perhaps in here. */
void bh_exported_submit(struct bh_exported *e, struct bh_export_request *r);

/* Ends it soon: ended() comes, perhaps in here. */
void bh_exported_cancel(struct bh_exported *e, struct bh_export_request *r);

/* Of an IN of so many bytes on that endpoint: what the device is asked for, whole packets. */
uint32_t bh_exported_in_length(struct bh_exported *e, uint8_t endpoint, uint32_t asked);

/* What came of an IN: more than the client has room for is babble. actual is cut to that. */
enum bh_status bh_export_request_cut(struct bh_export_request *r, enum bh_status status);

/* The request that is under way with this id; NULL: none. */
struct bh_export_request *bh_exported_find(struct bh_exported *e, uint64_t id);

/* Ends what runs (ended() with BH_CANCELLED); the device is back in its default state. */
void bh_exported_reset(struct bh_exported *e);

/* Ends what is under way on one endpoint (bEndpointAddress). */
void bh_exported_cancel_endpoint(struct bh_exported *e, uint8_t endpoint);

#endif
