/* What the files of the pass-through share with each other and with nobody else. */
#ifndef HOST_USB_PRIVATE_H
#define HOST_USB_PRIVATE_H

#include <libusb.h>
#include <pthread.h>
#include <uv.h>

#include <base/list.h>
#include <host/usb.h>

#include "real.h"

struct bh_usb;

/* --- libusb's thread (usb_events.c) ------------------------------------------------------------ */

/*
 * A transfer in libusb's hands. It has a buffer of its own, so that the guest's transfer may
 * end before it does; then it is an orphan.
 */
struct bh_urb {
	struct bh_list link;      /* usb->urbs */
	struct bh_list done_link; /* events->done */
	struct bh_usb *usb;
	struct bh_transfer *transfer; /* NULL: an orphan */
	struct libusb_transfer *libusb;
	bool cancelled;
};

/*
 * libusb's events are handled on a thread of their own; what has ended is put into a list, and
 * the loop told. The lock is held to change that list, and never while anything is called.
 */
struct bh_usb_events {
	libusb_context *context;
	pthread_t thread;
	bool started;
	volatile int stop; /* for libusb_handle_events_completed() */
	pthread_mutex_t lock;
	struct bh_list done;
	uv_async_t *wake; /* on the heap; its data is the events */
	void (*ended)(struct bh_urb *urb); /* from the loop */
};

/* 0, or a negative errno. */
int bh_usb_events_start(struct bh_usb_events *e, uv_loop_t *loop, void (*ended)(struct bh_urb *urb));

/* Nothing is in libusb's hands any more. Waits for the thread, which ends at once. */
void bh_usb_events_stop(struct bh_usb_events *e);

/* As libusb's callback of every transfer, with the urb as its data. */
void LIBUSB_CALL bh_usb_events_callback(struct libusb_transfer *t);

/* --- what may wait (usb_jobs.c) ------------------------------------------------------------------ */

enum bh_usb_work { BH_USB_SEARCH, BH_USB_OPEN, BH_USB_CONFIGURE, BH_USB_SET_INTERFACE, BH_USB_CLEAR_HALT, BH_USB_RESET, BH_USB_LEAVE };

/* Something that is done in the thread pool, one after the other. */
struct bh_usb_job {
	struct bh_list link; /* usb->jobs */
	struct bh_usb *usb;
	uv_work_t work;
	enum bh_usb_work what;
	uint8_t value, interface; /* configuration; interface and alternate; endpoint */
	struct bh_transfer *transfer; /* that asked for it; NULL: nobody waits */
	int result; /* of libusb, or -errno where nothing of libusb's failed */
};

/* What jobs work on. While one runs, it is its alone. */
struct bh_usb_handle {
	int fd; /* of the node; -1: none */
	libusb_device_handle *libusb; /* NULL: none */
	enum bh_speed speed;
	uint16_t vendor, product; /* that it has to have; 0: any */
	char node[BH_USB_NODE_SIZE];
	uint32_t claimed, detached; /* interfaces, by number */
	int configuration; /* that it had; -1: unknown */
};

/* In a thread of the pool: does the work, and puts what came of it into result. */
void bh_usb_work(struct bh_usb_job *j);

struct bh_usb_search {
	size_t fit; /* how many devices do */
	struct bh_usb_found first;
	bool ignored; /* there is one that would, but is not to be had */
};

/* --- the device (usb.c) ---------------------------------------------------------------------------- */

enum bh_usb_state {
	BH_USB_SEARCHING, /* looked for, now and then */
	BH_USB_OPENING,   /* found; the job that opens it runs */
	BH_USB_TAKEN,     /* ours: asked, shown */
	BH_USB_LEAVING    /* what is under way ends, then it is let go of */
};

struct bh_usb {
	struct bh_real real; /* first */
	/* configuration */
	uv_loop_t *loop;
	struct bh_usb_selector select;
	char port[32], serial[BH_USB_TEXT]; /* what select points to */
	bool passed; /* a descriptor was passed in: there is nothing to search */
	bool no_reset;

	/* state */
	enum bh_usb_state state;
	struct bh_usb_events events;
	struct bh_usb_handle handle;
	struct bh_usb_found found; /* what is taken, or being opened; not where it was passed */
	struct bh_usb_search sought; /* what the last search came to */
	uv_timer_t *timer;         /* for searching, and for looking whether it is there; on the heap */
	struct bh_list urbs;       /* in libusb's hands */
	struct bh_list jobs;       /* the first one runs */
	struct bh_list waiting;    /* transfers, until the jobs are done */
	bool fresh;                /* nothing has happened to it since its last reset */
	bool ignored;              /* what is found is not to be had until it is another */
	int said;                  /* why the last attempt failed: said once */
	bool said_many;
	bool destroyed;
	void (*closed)(void *data, int error);
	void *closed_data;
	struct bh_usb_counters counters;
};

#endif
