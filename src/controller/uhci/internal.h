/* What the files of the UHCI share with each other and with nobody else. */
#ifndef UHCI_INTERNAL_H
#define UHCI_INTERNAL_H

#include <base/bytes.h>
#include <uhci/uhci.h>

#include "uhci_regs.h"

/* Our copy of a transfer descriptor: read once, host order. */
struct td {
	uint32_t address;
	uint32_t link;
	uint32_t control;
	uint32_t token;
	uint32_t buffer;
};

/* Byte times of a frame on a full-speed wire (USB 2.0, 5.8.4). */
#define FRAME_BYTE_TIMES 1500

/* What became of a descriptor that was visited. */
enum td_result {
	TD_WAITS,     /* inactive, or busy: nothing changed */
	TD_RETRY,     /* an error was noted; it stays active */
	TD_COMPLETED, /* ended well: the queue goes on */
	TD_STOPPED,   /* ended: a failure or a short packet holds the queue */
	TD_FATAL      /* the walk cannot go on: bus error, process error */
};

/* The descriptor being offered; retire() writes it back. */
struct execution {
	const struct td *td;
	uint32_t qh; /* the queue it is in; 0: linked from the frame list */
	enum td_result result;
};

/* Isochronous descriptors that wait for an answer in one frame; more are missed. */
#define MAX_WAITING 16u

/* Where a descriptor goes, by the bits of its words that say so. */
#define ROUTE_TOKEN 0x0007ffffu /* PID, address, endpoint */
struct route {
	uint32_t words[2]; /* of the token, of the control word (TD_LS) */
	struct bh_token token;
	uint64_t destination;
};

struct bh_uhci {
	/* configuration */
	struct bh_pci pci; /* the function the guest sees */
	struct bh_guest *guest;
	struct bh_uhci_config config;
	struct bh_source source;
	struct bh_bus bus;
	struct bh_uhci_counters counters;

	/* registers */
	uint16_t usbcmd, usbsts, usbintr;
	uint16_t frnum; /* at epoch_us */
	uint32_t frbaseadd;
	uint8_t sofmod;
	uint16_t portsc[BH_UHCI_MAX_PORTS];
	bool cause_ioc, cause_short; /* what USBSTS_USBINT stands for */
	/*
	 * An isochronous descriptor asked to tell of its end: at the end of the frame (3.2.2), for
	 * drivers take it for ended only when the frame number has moved on.
	 */
	bool frame_ioc;

	/* time */
	uint64_t epoch_us;     /* when frame number frnum began */
	uint64_t frames_begun; /* since the epoch */
	uint64_t frames_passed; /* of those begun, walked to their end: what FRNUM may show */
	uint64_t frames_run;   /* ever; what the engine calls a frame */
	uint64_t frame_base;   /* what the isochronous engine calls the epoch's first frame */
	uint64_t frames_due;   /* since the epoch, when this run began */
	uint64_t active_frame; /* of frames_run: when something was last done, or wished for */
	uint64_t progress_us;  /* when a descriptor last completed, or the guest last acted */
	uint64_t poll_us;      /* interval of looking for new work; doubles while there is none */
	uint64_t next_poll_us;
	bool map_changed;      /* ever */
	uint64_t map_changed_us;
	uint64_t map_generation;
	uint64_t run_at_us; /* what the guest seam was last told */

	/* the look at the schedule under way */
	bool in_run;
	bool again;          /* look again at once: something may be answered better now */
	uint16_t pending;    /* USBSTS bits to be reported at the end of the slice */
	uint32_t mark;       /* how far the walk under way came in earlier slices (struct walk, position) */
	bool walk_worked;    /* something completed in those */
	unsigned walked_frame; /* in whose list the mark is */
	bool unfinished;     /* the last walk ran out of its budget */
	bool incomplete;     /* the walk under way broke off */
	bool first_walk;     /* of a frame: isochronous descriptors, IOC of inactive ones */
	uint32_t budget;     /* entries left in this slice */
	int32_t bus_time;    /* pace: byte times left in this frame */
	struct execution current;
	struct td waiting[MAX_WAITING]; /* isochronous, of the frame under way, not answered yet */
	unsigned waiting_count;
	struct route route; /* of the descriptor last looked at */
	uint32_t scanned_td, scanned_link; /* SCAN: link of the descriptor last fetched */
};

/* uhci.c */
void uhci_update_interrupt(struct bh_uhci *u);
void uhci_kick(struct bh_uhci *u);                    /* something changed: look at once */
void uhci_bus_changed(struct bh_uhci *u);             /* a device came or went */
void uhci_expect_work(struct bh_uhci *u);             /* the same, and keep looking for a while */
void uhci_process_error(struct bh_uhci *u);           /* a descriptor makes no sense: halt */
void uhci_bus_error(struct bh_uhci *u);               /* guest memory is not there: halt, if it stays so */
void uhci_start(struct bh_uhci *u);
void uhci_stop(struct bh_uhci *u);
void uhci_host_reset(struct bh_uhci *u, bool power_on); /* power_on: what was enabled is forgotten, too (2.1.1, GRESET) */
void uhci_resume_event(struct bh_uhci *u);            /* on the bus while globally suspended */
bool uhci_running(const struct bh_uhci *u);
uint16_t uhci_frame_number(struct bh_uhci *u);        /* now; walks what is due first */

/* registers.c */
uint32_t uhci_register_read(struct bh_pci *p, unsigned bar, uint32_t offset, unsigned length);
void uhci_register_write(struct bh_pci *p, unsigned bar, uint32_t offset, unsigned length, uint32_t value);
void uhci_registers_reset(struct bh_uhci *u);

/* ports.c */
void uhci_port_write(struct bh_uhci *u, unsigned port, uint16_t old, uint16_t now);
void uhci_port_reset_registers(struct bh_uhci *u, bool power_on);
void uhci_global_reset(struct bh_uhci *u);
void uhci_global_suspend(struct bh_uhci *u); /* as USBCMD says */
extern const struct bh_bus_upcalls uhci_bus_upcalls;

/* td.c */
bool uhci_td_fetch_far(struct bh_memory *m, uint32_t address, struct td *ret_td); /* in no near region */
enum td_result uhci_td_execute(struct bh_uhci *u, const struct td *td, uint32_t qh);
bool uhci_td_route(struct bh_uhci *u, const struct td *td); /* makes u->route its route; false: its token makes no sense */
void uhci_td_describe(const struct td *td, const struct route *route, uint64_t chain, struct bh_descriptor *ret);
extern const struct bh_source_ops uhci_source_ops;

/* isochronous.c */
enum td_result uhci_isochronous_execute(struct bh_uhci *u); /* u->current, in the frame under way */
enum bh_found uhci_isochronous_next(struct bh_uhci *u, const struct bh_descriptor *after, struct bh_descriptor *ret_next);
void uhci_isochronous_retry(struct bh_uhci *u, enum bh_moment moment); /* those that wait */
void uhci_isochronous_lost(struct bh_uhci *u); /* frames were, with what they may have held */

/*
 * BH_FOUND_UNREADABLE: it cannot be read. An inactive one is filled in too. The control
 * word is read before the rest: a driver sets it last. Each word is read once.
 */
static inline enum bh_found uhci_td_fetch(struct bh_uhci *u, uint32_t address, struct td *ret_td)
{
	struct bh_memory *m = &u->guest->memory;
	const volatile uint32_t *words = (const void *)bh_memory_near(m, address, 16);

	ret_td->address = address;
	if (words && (uintptr_t)words % sizeof(*words) == 0) {
		ret_td->control = bh_order_le32(__atomic_load_n(&words[TD_CONTROL / 4], __ATOMIC_ACQUIRE));
		ret_td->link = bh_order_le32(words[0]);
		ret_td->token = bh_order_le32(words[2]);
		ret_td->buffer = bh_order_le32(words[3]);
	} else if (!uhci_td_fetch_far(m, address, ret_td)) {
		return BH_FOUND_UNREADABLE;
	}
	return ret_td->control & TD_ACTIVE ? BH_FOUND : BH_FOUND_INACTIVE;
}

/* schedule.c */
bool uhci_walk(struct bh_uhci *u, unsigned frame); /* true: something completed */

#endif
