/*
 * The libusb device from the inside. Files: usb.c is the device, on the loop's thread;
 * usb_thread.c the thread that does everything that may wait, errand by errand; usb_handle.c
 * what it does to the device (open, claim, configure, reset, give back); usb_transfer.c what it
 * does with transfers; usb_find.c looks for devices.
 *
 * An errand goes its way once:
 *
 *   QUEUED --the thread takes it up--> UNDER_WAY --it has ended--> ENDED --the loop has heard--> freed
 *      '------the loop takes it back--> freed
 *
 * The loop owns it while it is in no list of the thread's: before, and after ENDED. Who waits for
 * it is known to the loop alone; nobody may be left when it ends.
 */
#ifndef HOST_USB_PRIVATE_H
#define HOST_USB_PRIVATE_H

#include <libusb.h>
#include <uv.h>

#include <base/list.h>
#include <host/usb.h>
#include <usb/settings.h>

#include "real.h"

/* Errands that are alive; beyond that, what comes waits before it is made one. */
#define BH_USB_ERRANDS 256u

/* And bytes in their buffers. */
#define BH_USB_BYTES (32u << 20)

/* What libusb takes in a control transfer (os/linux_usbfs.h, MAX_CTRL_BUFFER_LENGTH). */
#define BH_USB_CONTROL_MAX 4096u

enum bh_usb_errand_kind {
	BH_USB_SCAN, BH_USB_OPEN, BH_USB_CLOSE, /* of which one is under way at a time */
	BH_USB_TRANSFER,
	BH_USB_CONFIGURE, BH_USB_ALTERNATE, BH_USB_CLEAR_HALT, /* a guest's; */
	BH_USB_CLEAR_HALTS, BH_USB_RESET /* and ours */
};

enum bh_usb_errand_state { BH_USB_QUEUED, BH_USB_UNDER_WAY, BH_USB_ENDED };

struct bh_usb_errand {
	/* the loop's */
	struct bh_list alive;
	struct bh_transfer *transfer; /* NULL: nobody waits for it */
	unsigned generation;          /* of the settings */
	uint32_t bytes;

	/* under the thread's lock */
	enum bh_usb_errand_state state;
	struct bh_list link, cancelling;

	/* its owner's */
	enum bh_usb_errand_kind kind;
	uint8_t value, interface; /* bConfigurationValue; alternate setting and interface; endpoint address */
	uint8_t endpoints[BH_SETTINGS_ENDPOINTS]; /* CLEAR_HALTS */
	unsigned endpoint_count;
	bool cut; /* a control transfer that asks for more than libusb takes */
	struct libusb_transfer *urb; /* TRANSFER */
	struct bh_usb_thread *thread;

	/* how it ended */
	enum bh_status status;
	uint32_t actual;
	bool gone; /* the device is */
	bool failed; /* a reset */
};

/* SCAN, OPEN and CLOSE: what they are told, and what they tell. */
struct bh_usb_scan {
	struct bh_usb_entry *entries;
	size_t count;
	int error;
};

struct bh_usb_opening {
	/* asked */
	char node[BH_USB_NODE_SIZE]; /* empty: fd was passed */
	int fd;                      /* the thread's from the errand on */
	bool any_speed;
	/* answered */
	int error; /* negative errno; -EBUSY: another program has it; -ENOTSUP: too fast */
	enum bh_speed speed;
	char drivers[160]; /* from whom it was taken */
};

struct bh_usb_closing {
	bool reset; /* before it is given back: somebody has used it */
};

/* --- usb_thread.c ------------------------------------------------------------------------------- */

struct bh_usb_thread {
	/* configuration */
	libusb_context *context;
	uv_async_t *async; /* something has ended */

	uv_thread_t id;
	uv_mutex_t lock; /* held for the lists alone, never while anything is called */
	struct bh_list queued, ended, cancels;
	bool finish, finished;

	/* the thread's, while it runs, and the loop's otherwise */
	libusb_device_handle *handle; /* NULL: none is open */
	int fd;                       /* of the handle, for the loop to look at; -1 */
	struct bh_list flying;        /* transfers that the kernel has */
	uint32_t claimed;             /* interfaces, a bit each; */
	uint32_t drivers;             /* and those that a kernel driver had */
	int configuration;            /* when it was opened; 0: none */
	int current;

	/* told by errands */
	struct bh_usb_scan scan;
	struct bh_usb_opening opening;
	struct bh_usb_closing closing;
};

/* 0 or a negative errno; then there is nothing to finish. */
int bh_usb_thread_start(struct bh_usb_thread *t, uv_async_t *async);

/* The thread ends when nothing is queued any more; tells by async. */
void bh_usb_thread_finish(struct bh_usb_thread *t);

/* It has ended, and is put away. False: not yet. */
bool bh_usb_thread_finished(struct bh_usb_thread *t);

void bh_usb_thread_post(struct bh_usb_thread *t, struct bh_usb_errand *e);

/*
 * True: it was still queued, and is the loop's again. Otherwise it ends soon, if it is a
 * transfer; anything else takes the time it takes.
 */
bool bh_usb_thread_withdraw(struct bh_usb_thread *t, struct bh_usb_errand *e);

/* What has ended, in order, is appended to the list, by link. */
void bh_usb_thread_collect(struct bh_usb_thread *t, struct bh_list *to);

/* On the thread: an errand has ended, and is the loop's again. */
void bh_usb_thread_ended(struct bh_usb_thread *t, struct bh_usb_errand *e);

/* --- usb_transfer.c ----------------------------------------------------------------------------- */

/* Loop. What libusb will need for this transfer, in a buffer of its own. False: out of memory. */
bool bh_usb_transfer_prepare(struct bh_usb_errand *e, const struct bh_transfer *t);

/* Loop. Hands the outcome to the transfer, which is told to be done, last of all. */
void bh_usb_transfer_deliver(struct bh_usb_errand *e, struct bh_transfer *t, struct bh_usb_counters *c);

/* Thread. */
void bh_usb_transfer_submit(struct bh_usb_thread *t, struct bh_usb_errand *e);

/* Frees what prepare() made. */
void bh_usb_transfer_free(struct bh_usb_errand *e);

enum bh_status bh_usb_status(enum libusb_transfer_status status);

/* --- usb_handle.c: on the thread ------------------------------------------------------------------ */

void bh_usb_handle_open(struct bh_usb_thread *t, struct bh_usb_opening *o);

/* Gives everything back as it was found. No transfer of it is under way afterwards. */
void bh_usb_handle_close(struct bh_usb_thread *t, const struct bh_usb_closing *c);

/* CONFIGURE, ALTERNATE, CLEAR_HALT, CLEAR_HALTS, RESET. */
void bh_usb_handle_do(struct bh_usb_thread *t, struct bh_usb_errand *e);

/* --- usb.c: on the loop --------------------------------------------------------------------------- */

enum bh_usb_state {
	BH_USB_AWAY,    /* looked for */
	BH_USB_OPENING, /* being opened */
	BH_USB_TAKEN,   /* ours: transfers may go */
	BH_USB_LEAVING, /* being given back */
	BH_USB_OVER,    /* for good: it was passed in, and has gone */
};

struct bh_usb {
	struct bh_real real;
	/* configuration */
	struct bh_usb_selector selector; /* its texts are ours; */
	char *port, *serial, *node;
	bool passed, keep_from_resets, any_speed;

	/* what it is made of */
	struct bh_usb_thread thread;
	uv_async_t async;
	uv_timer_t timer;
	unsigned open_handles;
	struct bh_usb_errand chore; /* SCAN, OPEN or CLOSE: */
	bool chore_posted;

	/* state */
	enum bh_usb_state state;
	struct bh_usb_entry entry;   /* where it is; */
	struct bh_usb_entry refused; /* what is left alone until it has gone; address 0: none */
	size_t said_matching;        /* so many match: that was said */
	int said_error;              /* so was that it cannot be opened, or looked for */
	bool gone;                   /* a transfer has told */
	bool touched;                /* since the last reset */
	unsigned generation;         /* of the settings: how often it was reset, or left */
	struct bh_list alive;        /* errands but chore */
	unsigned errand_count;
	uint64_t errand_bytes;
	struct bh_list waiting;      /* transfers, by device_link: for errands to end */
	struct bh_usb_counters counters;
	bool ending;
	void (*closed)(void *data, int error);
	void *closed_data;
};

#endif
