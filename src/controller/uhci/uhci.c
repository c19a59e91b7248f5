/*
 * The controller as a whole: running and stopping, frames, looking for work,
 * interrupts.
 *
 * Guest-visible time is real: the frame number follows the clock. Work is not:
 * what is queued is served when it is found. UHCI has no doorbell, so work is
 * found by looking: at every frame, at once after a completion or a register
 * write that can start work, and, while a burst lasts, by a short poll that backs
 * off.
 */
#include "internal.h"

#include <stdlib.h>

#include <base/util.h>

#define FRAME_US 1000u

/* Frames walked late, in order; what is older is left as it is. */
#define LATE_FRAMES 16u

/* Queue heads and descriptors visited before the rest of the server gets its turn: well under a frame's time. */
#define SLICE_ENTRIES 4096u

/* Looking for new work: at first so often, backing off to so seldom, for so long after the last. */
#define POLL_FIRST_US   20u
#define POLL_LONGEST_US 200u
#define BURST_US        2000u

/* Between the frames of two epochs: nothing gathered in one is for the other. */
#define FRESH_START 4096u

/*
 * With nothing done for so many frames, one look serves several of them (which
 * are then walked late, in order). Waking a thousand times a second costs 1.5 to
 * 3 % of a core on a machine without help from hardware, whatever is done then.
 */
#define IDLE_AFTER_FRAMES 128u
#define IDLE_STRIDE       4u

/*
 * A virtual machine monitor changes its memory map piece by piece, taking away
 * before it gives back. For a moment after a change nobody looks at the schedule,
 * and for longer what cannot be reached is tried again rather than reported.
 */
#define MAP_SETTLES_US   2000u
#define MAP_CHANGING_US  100000u

/* --- interrupts -------------------------------------------------------------------- */

void uhci_update_interrupt(struct bh_uhci *u)
{
	bool wanted = (u->usbsts & (USBSTS_HSE | USBSTS_HCPE)) ||
	              ((u->usbsts & USBSTS_ERROR) && (u->usbintr & USBINTR_CRC)) ||
	              ((u->usbsts & USBSTS_RD) && (u->usbintr & USBINTR_RESUME)) ||
	              (u->cause_ioc && (u->usbintr & USBINTR_IOC)) ||
	              (u->cause_short && (u->usbintr & USBINTR_SHORT));

	bh_pci_assert(&u->pci, wanted);
}

/* What was to be told at the end of the frame. */
static void end_frame(struct bh_uhci *u)
{
	if (!u->frame_ioc)
		return;
	u->pending |= USBSTS_USBINT;
	u->cause_ioc = true;
	u->frame_ioc = false;
}

static void report_causes(struct bh_uhci *u)
{
	if (!u->pending)
		return;
	u->usbsts |= u->pending;
	u->pending = 0;
	u->counters.interrupts++;
	uhci_update_interrupt(u);
}

/* --- time --------------------------------------------------------------------------- */

static uint64_t now_us(const struct bh_uhci *u)
{
	return u->guest->ops->now_us(u->guest);
}

bool uhci_running(const struct bh_uhci *u)
{
	return (u->usbcmd & USBCMD_RS) && !(u->usbsts & USBSTS_HCH);
}

/* Not while the bus sleeps (2.1.1, EGSM), nor where guest memory may not be accessed. */
static bool executes(const struct bh_uhci *u)
{
	return uhci_running(u) && !(u->usbcmd & USBCMD_EGSM) && bh_pci_dma_allowed(&u->pci);
}

/* Frames that have begun since the epoch; the first began with it. */
static uint64_t frames_due(const struct bh_uhci *u, uint64_t now)
{
	return (now - u->epoch_us) / FRAME_US + 1;
}

/*
 * A driver that has seen the number change takes it that the controller has let go
 * of what was unlinked before. So what is due is walked first, and a frame shows
 * only when its walk has come to its end.
 */
uint16_t uhci_frame_number(struct bh_uhci *u)
{
	uint64_t due;

	if (!uhci_running(u))
		return u->frnum;
	/* Whoever asks means to queue something for a frame to come: it is not to begin late. */
	if (u->frames_run - u->active_frame >= IDLE_AFTER_FRAMES)
		uhci_kick(u);
	due = frames_due(u, now_us(u));
	if (!executes(u))
		return (uint16_t)((u->frnum + due - 1) & FRNUM_MASK);
	if (u->frames_passed < due && !u->in_run)
		bh_uhci_run(u);
	if (!uhci_running(u)) /* it found an error */
		return u->frnum;
	return (uint16_t)((u->frnum + BH_MAX(u->frames_passed, 1u) - 1) & FRNUM_MASK);
}

static void run_at(struct bh_uhci *u, uint64_t at)
{
	if (at == u->run_at_us)
		return;
	u->run_at_us = at;
	u->guest->ops->run_at(u->guest, at);
}

void uhci_bus_changed(struct bh_uhci *u)
{
	if (uhci_running(u))
		uhci_kick(u);
	else if (!u->in_run)
		run_at(u, bh_bus_deadline(&u->bus));
}

void uhci_kick(struct bh_uhci *u)
{
	u->again = true;
	u->active_frame = u->frames_run;
	if (uhci_running(u) && !u->in_run)
		run_at(u, 0);
}

static void note_progress(struct bh_uhci *u, uint64_t now)
{
	u->progress_us = now;
	u->poll_us = POLL_FIRST_US;
}

void uhci_expect_work(struct bh_uhci *u)
{
	note_progress(u, now_us(u));
	uhci_kick(u);
}

/* --- start and stop ------------------------------------------------------------------ */

void uhci_start(struct bh_uhci *u)
{
	u->usbsts &= (uint16_t)~USBSTS_HCH;
	u->epoch_us = now_us(u);
	u->frame_base += u->frames_begun + FRESH_START;
	u->frames_begun = u->frames_passed = 0;
	u->mark = 0;
	u->unfinished = u->walk_worked = false; /* of a walk from before */
	uhci_kick(u);
}

void uhci_stop(struct bh_uhci *u)
{
	if (!(u->usbsts & USBSTS_HCH)) {
		uint64_t passed = frames_due(u, now_us(u)) - 1;

		u->frnum = (uint16_t)((u->frnum + passed) & FRNUM_MASK);
	}
	u->usbcmd &= (uint16_t)~USBCMD_RS;
	u->usbsts |= USBSTS_HCH;
	u->waiting_count = 0; /* these stay as they are */
	end_frame(u);
	report_causes(u);
	run_at(u, bh_bus_deadline(&u->bus));
}

static void halt(struct bh_uhci *u, uint16_t why)
{
	uhci_stop(u);
	u->usbsts |= why;
	uhci_update_interrupt(u);
}

void uhci_process_error(struct bh_uhci *u)
{
	u->counters.process_errors++;
	halt(u, USBSTS_HCPE);
}

void uhci_bus_error(struct bh_uhci *u)
{
	if (u->map_changed && now_us(u) - u->map_changed_us < MAP_CHANGING_US)
		return; /* the next frame tries again */
	u->counters.host_errors++;
	halt(u, USBSTS_HSE);
}

void uhci_host_reset(struct bh_uhci *u, bool power_on)
{
	uhci_registers_reset(u);
	u->waiting_count = 0;
	uhci_port_reset_registers(u, power_on);
	uhci_update_interrupt(u);
	run_at(u, bh_bus_deadline(&u->bus));
}

/* Something happened on a bus that sleeps: wake it, and tell (2.1.1, FGR). */
void uhci_resume_event(struct bh_uhci *u)
{
	if (!(u->usbcmd & USBCMD_EGSM))
		return;
	u->usbcmd |= USBCMD_FGR;
	u->usbsts |= USBSTS_RD;
	uhci_update_interrupt(u);
}

/* --- work ----------------------------------------------------------------------------- */

/* Walks until nothing more completes or the slice's budget is gone. True: something completed. */
static bool work(struct bh_uhci *u)
{
	unsigned frame = (unsigned)(u->frnum + u->frames_begun - 1);
	const struct bh_engine_counters *engine = &u->bus.engine.counters;
	uint64_t batches = engine->batches;
	bool progress = false;

	do {
		bool late;

		u->again = false;
		uhci_isochronous_retry(u, BH_MOMENT_NOW);
		if (!u->unfinished)
			u->walked_frame = frame; /* otherwise the mark is in that one's list */
		late = u->walked_frame != frame;
		if (uhci_walk(u, u->walked_frame))
			progress = u->again = true;
		if (late && !u->unfinished)
			u->again = true; /* now this one's */
		else
			u->first_walk &= u->unfinished;
	} while (u->again && u->budget && uhci_running(u));
	/* What only waits for a device, such as a keyboard, is nothing to look at in every frame. */
	if (progress || engine->batches != batches || u->unfinished || u->waiting_count)
		u->active_frame = u->frames_run;
	return progress;
}

static void begin_frame(struct bh_uhci *u)
{
	end_frame(u);
	u->frames_begun++;
	u->frames_run++;
	u->counters.frames++;
	u->first_walk = true;
	if (!u->unfinished)
		u->mark = 0; /* otherwise what the last frame did not come to has its turn first */
	u->bus_time = FRAME_BYTE_TIMES;
	bh_engine_frame(&u->bus.engine, u->frames_run);
}

/* Every frame that is due, the missed ones in order. */
static bool begin_frames(struct bh_uhci *u, uint64_t now)
{
	uint64_t due = u->frames_due = frames_due(u, now);
	bool progress = false;

	if (u->frames_begun < due)
		uhci_isochronous_retry(u, BH_MOMENT_OVER);
	if (due - u->frames_begun > LATE_FRAMES) {
		u->counters.frames_lost += due - u->frames_begun - LATE_FRAMES;
		u->frames_begun = due - LATE_FRAMES;
		uhci_isochronous_lost(u);
	}
	while (u->frames_begun < due && uhci_running(u)) {
		u->counters.frames_late += u->frames_begun + 1 < due;
		begin_frame(u);
		u->budget = BH_MAX(u->budget, SLICE_ENTRIES / LATE_FRAMES);
		progress |= work(u);
		if (u->unfinished)
			break; /* the slice is over; the other frames come with the next one */
	}
	return progress;
}

static uint64_t next_deadline(struct bh_uhci *u, uint64_t now)
{
	uint64_t deadline = bh_bus_deadline(&u->bus), frame;

	if (!executes(u))
		return deadline;
	if (u->unfinished || u->again)
		return 0;
	frame = u->epoch_us + u->frames_begun * FRAME_US;
	if (u->frames_run - u->active_frame >= IDLE_AFTER_FRAMES)
		frame += (IDLE_STRIDE - 1) * FRAME_US;
	if (now - u->progress_us < BURST_US && !u->config.pace)
		frame = BH_MIN(frame, now + u->poll_us);
	return BH_MIN(deadline, frame);
}

static bool map_settles(const struct bh_uhci *u, uint64_t now)
{
	return u->map_changed && now - u->map_changed_us < MAP_SETTLES_US;
}

void bh_uhci_run(struct bh_uhci *u)
{
	uint64_t now = now_us(u);
	bool progress = false;

	u->in_run = true;
	u->run_at_us = UINT64_MAX - 1; /* used up: the next deadline is told in any case */
	u->poll_us = BH_MIN(u->poll_us * 2, POLL_LONGEST_US);
	bh_bus_tick(&u->bus, now);
	if (uhci_running(u) && map_settles(u, now)) {
		u->in_run = false;
		run_at(u, u->map_changed_us + MAP_SETTLES_US);
		return;
	}
	if (executes(u)) {
		bool walked;

		u->budget = SLICE_ENTRIES;
		walked = u->frames_begun < frames_due(u, now);
		progress = begin_frames(u, now);
		if (!walked && u->frames_begun)
			progress = work(u);
		report_causes(u);
	} else if (uhci_running(u)) {
		u->frames_begun = u->frames_passed = frames_due(u, now); /* time goes on, nobody looks */
		u->unfinished = u->again = false;
		u->waiting_count = 0;
	}
	if (progress)
		note_progress(u, now);
	u->in_run = false;
	run_at(u, next_deadline(u, now));
}

/* --- the PCI function --------------------------------------------------------------------- */

/* PIIX3's UHCI: every driver knows it. */
static const struct bh_pci_identity identity = {
	.vendor = 0x8086,
	.device = 0x7020,
	.class_code = 0x0c0300,
	.revision = 1,
	.interrupt_pin = 1,
	.msi = true,
	.bars[UHCI_BAR] = {.size = UHCI_BAR_SIZE, .io = true},
};

#define PCI_SBRN     0x60 /* 2.2.2 serial bus release number */
#define PCI_SBRN_1_0 0x10
#define PCI_LEGSUP   0xc0 /* 5.2.1 legacy support */

static void pci_reset(struct bh_pci *p)
{
	uhci_host_reset(bh_container_of(p, struct bh_uhci, pci), true);
}

static void pci_dma_changed(struct bh_pci *p)
{
	struct bh_uhci *u = bh_container_of(p, struct bh_uhci, pci);

	if (u->map_generation != u->guest->memory.generation) {
		u->map_generation = u->guest->memory.generation;
		u->map_changed = true;
		u->map_changed_us = now_us(u);
	}
	uhci_kick(u);
}

static const struct bh_pci_ops pci_ops = {
	.bar_read = uhci_register_read,
	.bar_write = uhci_register_write,
	.reset = pci_reset,
	.dma_changed = pci_dma_changed,
};

struct bh_uhci *bh_uhci_create(struct bh_guest *guest, const struct bh_uhci_config *config)
{
	struct bh_uhci *u;

	if (config->ports < BH_UHCI_MIN_PORTS || config->ports > BH_UHCI_MAX_PORTS)
		return NULL;
	u = calloc(1, sizeof(*u));
	if (!u)
		return NULL;
	u->guest = guest;
	u->config = *config;
	u->map_generation = guest->memory.generation;
	u->source.ops = &uhci_source_ops;
	u->route = (struct route){.words = {BH_PID_OUT}, .token.pid = BH_PID_OUT}; /* to address 0: one that makes sense */
	u->poll_us = POLL_FIRST_US;
	u->run_at_us = UINT64_MAX;
	bh_bus_init(&u->bus, config->ports, &u->source, &uhci_bus_upcalls, &config->engine);
	bh_pci_init(&u->pci, &pci_ops, &identity, guest);
	bh_pci_define(&u->pci, PCI_SBRN, 1, PCI_SBRN_1_0, 0, 0);
	/* Legacy traps do not exist here; the bits can be set, and the status ones cleared. */
	bh_pci_define(&u->pci, PCI_LEGSUP, 2, 0x2000, 0x20bf, 0x8f00);
	bh_pci_reset(&u->pci);
	return u;
}

void bh_uhci_destroy(struct bh_uhci *u)
{
	if (!u)
		return;
	bh_bus_finish(&u->bus);
	free(u);
}

struct bh_pci *bh_uhci_pci(struct bh_uhci *u)
{
	return &u->pci;
}

struct bh_bus *bh_uhci_bus(struct bh_uhci *u)
{
	return &u->bus;
}

const struct bh_uhci_counters *bh_uhci_counters(const struct bh_uhci *u)
{
	return &u->counters;
}
