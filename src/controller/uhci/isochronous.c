/*
 * Isochronous descriptors (UHCI 1.1, 3.2.2 IOS, and 3.4: they come first in a frame). One is
 * served in its frame only, when that is first walked; the frame list tells what the guest
 * has queued for the coming ones.
 *
 *   its frame begins -> answered, or waits (kept here, not looked for again) -> answered
 *   its frame ends   -> answered for the last time: time-out
 *   met late         -> answered where it was gathered ahead; otherwise left active
 *
 * Where one is left active, its driver gets the interrupt all the same: hardware is not late,
 * and drivers have no other way to hear of it.
 */
#include "internal.h"

#include <base/util.h>

/* Descriptors looked at in one frame before it is taken to hold no isochronous ones. */
#define LONGEST_FRAME 32u

/* The frame under way, and the one that the clock shows, as the engine counts them. */
static uint64_t frame_now(const struct bh_uhci *u)
{
	return u->frame_base + u->frames_begun - 1;
}

static uint64_t frame_due(const struct bh_uhci *u)
{
	return u->frame_base + u->frames_due - 1;
}

/* Whoever waits for the interrupt would wait for ever: a driver looks for itself what was missed. */
static void tell_missed(struct bh_uhci *u)
{
	u->frame_ioc |= (u->current.td->control & TD_IOC) != 0;
}

static enum bh_answer offer(struct bh_uhci *u, enum bh_moment moment)
{
	struct bh_token token;
	struct bh_descriptor d;
	enum bh_answer answer;

	if (!uhci_td_route(u, u->current.td))
		return BH_ANSWER_NOBODY; /* the walk has seen to that */
	token = u->route.token; /* looking ahead may find another route */
	uhci_td_describe(u->current.td, &u->route, BH_FRAME_CHAIN | frame_now(u), &d);
	answer = bh_bus_offer_isochronous(&u->bus, &token, &d, moment);
	if (answer == BH_ANSWER_MISSED || answer == BH_ANSWER_FAULT)
		tell_missed(u);
	if (answer == BH_ANSWER_FAULT) {
		uhci_bus_error(u);
		u->current.result = TD_FATAL;
	}
	return answer;
}

/* In a queue, where it does not belong, nobody would come back to it. */
static bool may_wait(const struct bh_uhci *u)
{
	return u->waiting_count < MAX_WAITING && !u->current.qh;
}

static void offer_in_frame(struct bh_uhci *u)
{
	if (offer(u, BH_MOMENT_NOW) != BH_ANSWER_BUSY)
		return;
	if (may_wait(u))
		u->waiting[u->waiting_count++] = *u->current.td;
	else
		offer(u, BH_MOMENT_OVER);
}

enum td_result uhci_isochronous_execute(struct bh_uhci *u)
{
	u->active_frame = u->frames_run;
	if (!u->first_walk)
		return TD_WAITS; /* queued too late for this frame */
	if (u->walked_frame != (unsigned)(u->frnum + u->frames_begun - 1))
		tell_missed(u); /* the walk of an earlier frame, which took too long */
	else if (u->frames_begun < u->frames_due)
		offer(u, BH_MOMENT_LATE);
	else
		offer_in_frame(u);
	return u->current.result;
}

void uhci_isochronous_retry(struct bh_uhci *u, enum bh_moment moment)
{
	struct td waiting[MAX_WAITING];
	unsigned count = u->waiting_count;

	for (unsigned i = 0; i < count; i++)
		waiting[i] = u->waiting[i];
	u->waiting_count = 0;
	for (unsigned i = 0; i < count && uhci_running(u); i++) {
		u->current = (struct execution){.td = &waiting[i], .result = TD_WAITS};
		if (moment == BH_MOMENT_NOW)
			offer_in_frame(u);
		else
			offer(u, moment);
	}
}

void uhci_isochronous_lost(struct bh_uhci *u)
{
	if (bh_list_empty(&u->bus.engine.streams))
		return;
	u->pending |= USBSTS_USBINT;
	u->cause_ioc = true;
}

/* --- the coming frames ------------------------------------------------------------------- */

/*
 * The first active one for the destination in a frame, behind the one at address behind (0:
 * any; or if that was taken out). It is found by walking the frame, never by a link that was
 * read before.
 */
static bool find_in_frame(struct bh_uhci *u, uint64_t frame, uint32_t behind, uint64_t destination,
                          struct bh_descriptor *ret)
{
	uint32_t index = (uint32_t)(u->frnum + (frame - u->frame_base)) % FRAME_LIST_SIZE, link;
	bool passed = !behind;

	if (!bh_memory_load32(&u->guest->memory, u->frbaseadd + 4 * index, &link))
		return false;
	for (unsigned i = 0; i < LONGEST_FRAME && u->budget && !(link & (LINK_T | LINK_Q)); i++, u->budget--) {
		struct td td;
		enum bh_found found = uhci_td_fetch(u, link & LINK_ADDRESS, &td);

		if (found == BH_FOUND_UNREADABLE)
			return false;
		link = td.link;
		if (!passed) {
			passed = behind == td.address;
		} else if (found == BH_FOUND && (td.control & TD_IOS) && uhci_td_route(u, &td) &&
		           u->route.destination == destination) {
			uhci_td_describe(&td, &u->route, BH_FRAME_CHAIN | frame, ret);
			return true;
		}
	}
	return !passed && find_in_frame(u, frame, 0, destination, ret);
}

enum bh_found uhci_isochronous_next(struct bh_uhci *u, const struct bh_descriptor *after, struct bh_descriptor *ret_next)
{
	uint64_t asked = bh_frame_of(after), last = frame_now(u) + BH_MIN(u->config.engine.isochronous_frames, 512u);

	/* Two in one frame are one after the other; frames that are over have had their turn. */
	for (uint64_t frame = BH_MAX(asked, frame_due(u)); frame <= last && u->budget; frame++) {
		uint32_t behind = frame == asked ? (uint32_t)after->id : 0;

		u->budget--; /* looking ahead takes time like any other look */
		if (find_in_frame(u, frame, behind, after->destination, ret_next))
			return BH_FOUND;
	}
	return BH_FOUND_END;
}
