/* What the files of the bus share with each other and with nobody else. */
#ifndef USB_INTERNAL_H
#define USB_INTERNAL_H

#include <batch/isochronous.h>
#include <usb/bus.h>

/* A bulk or interrupt endpoint in use. */
struct bh_endpoint {
	struct bh_destination destination;
	struct bh_transfer transfer;
	struct iovec span;
	struct bh_attached *attached;
	struct bh_endpoint_info info;
	bool current;            /* info is that of the active configuration */
	bool answered;           /* interrupt: answered in answered_frame */
	uint64_t answered_frame; /* of engine.frame */
};

/* An isochronous endpoint in use. */
struct bh_isochronous_endpoint {
	struct bh_isochronous stream;
	struct bh_attached *attached;
	struct bh_endpoint_info info;
	bool current; /* info is that of the active configuration */
	struct {
		struct bh_transfer transfer;
		struct iovec span;
	} carried[BH_ISOCHRONOUS_BATCHES];
};

/*
 * The control pipe: one destination for both directions, with its three stages
 * (8.5.3). A request is held from SETUP on; the host transfer starts when there
 * is nothing more to come from the guest.
 */
enum bh_control_state {
	BH_CONTROL_IDLE,    /* no request */
	BH_CONTROL_SETUP,   /* held; OUT data is being collected */
	BH_CONTROL_RUNNING, /* the host transfer runs */
	BH_CONTROL_ENDED    /* its outcome is being handed out */
};

struct bh_control {
	enum bh_control_state state;
	struct bh_setup setup;
	struct bh_transfer transfer;
	struct iovec span;
	uint8_t *data; /* wLength bytes, while there is a request with data */
	uint32_t length;
	uint32_t moved; /* bytes collected from, or handed to, the guest */
	uint32_t actual;
	enum bh_status status;
	bool cancelling;
	bool status_early;     /* the guest went to STATUS while an IN was running */
};

/* A device in a port, with what the bus keeps of it. */
struct bh_attached {
	struct bh_bus *bus;
	struct bh_list link; /* bus->devices */
	struct bh_device *device;
	struct bh_port *port;
	struct bh_port *ports; /* a hub's: device->hub_ports of them */
	uint8_t address;
	bool live;   /* carries packets: its port and all above it are enabled, none is suspended */
	bool asleep; /* it was told so */
	bool gone;   /* detached by itself; removed at the next tick */
	bool absent; /* a sticky device that is not there now */
	bool failed; /* FAILURE: answers nothing until its port is reset */
	uint64_t failed_since; /* microseconds */
	bool configuring;      /* its endpoints are about to be others: a device operation runs */
	bool away;             /* disconnected for a moment, to make the guest start over */
	struct bh_control control;
	struct bh_endpoint *endpoints[2][16]; /* [in][number], made when first used */
	struct bh_isochronous_endpoint *isochronous[2][16];
};

/* bus.c: tells the guest how the packet ended, without the engine. */
enum bh_answer bh_bus_retire(struct bh_bus *b, const struct bh_descriptor *d, uint32_t actual, enum bh_status status);

/* endpoint.c */
enum bh_answer bh_endpoint_offer(struct bh_attached *a, const struct bh_token *token, const struct bh_descriptor *d);
void bh_endpoint_reset(struct bh_endpoint *ep); /* NULL is allowed */
void bh_endpoints_reset(struct bh_attached *a, int interface); /* all of one interface, or of all (-1); asked for anew */
void bh_endpoints_withdraw_unoffered(struct bh_attached *a);
void bh_endpoints_free(struct bh_attached *a);

/* isochronous.c */
enum bh_answer bh_isochronous_endpoint_offer(struct bh_attached *a, const struct bh_token *token,
                                             const struct bh_descriptor *d, enum bh_moment moment);
void bh_isochronous_endpoints_reset(struct bh_attached *a, int interface); /* as bh_endpoints_reset() */
void bh_isochronous_endpoints_free(struct bh_attached *a);

/* control.c */
enum bh_answer bh_control_offer(struct bh_attached *a, const struct bh_token *token, const struct bh_descriptor *d);
void bh_control_reset(struct bh_attached *a);
void bh_control_free(struct bh_attached *a);

#endif
