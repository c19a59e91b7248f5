/*
 * The schedule (UHCI 1.1, 3.4): from the frame list along queue heads and
 * descriptors, as hardware walks it in every frame.
 *
 * A walk ends at a terminating link, after one lap of a loop in which nothing
 * happened (drivers close their queues into a ring to reclaim bandwidth), or when
 * the slice's budget is used up; then a later walk starts again at the frame list
 * and passes over what was visited, never following a saved link.
 */
#include "internal.h"

#include <base/bytes.h>

/* Entries of a schedule beyond which nothing is looked at in a frame: more than any real one has. */
#define LONGEST_WALK 8192u

/*
 * Descriptors completed in a queue before the next queue has its turn. However deep
 * the guest asks us to go: more than fit a frame of the wire, few enough to be fair.
 * Where it asks to go breadth first, a handful all the same, up to the end of a
 * request (IOC): the order between queues is nothing that a guest can count on, and
 * one at a time costs half as much again. Only where the wire's pace is kept is
 * breadth one packet.
 */
#define DEEPEST_VISIT  256u
#define SHALLOW_VISIT  32u
/* Of those, how many before the queue's element pointer is written. */
#define ELEMENT_LAG 32u

struct walk {
	uint32_t link;  /* what is visited next */
	uint32_t qh;    /* the queue we are in; 0: none */
	uint32_t qh_link;
	const uint32_t *element_word; /* where it lies; NULL: nowhere as one word */
	uint64_t map_generation;      /* as long as the map is this one */
	uint32_t element;         /* the queue's element pointer as it has to be */
	uint32_t element_written; /* and as it stands in memory */
	uint32_t depth;           /* descriptors completed in this visit to the queue */
	bool visited;             /* its first descriptor was */
	uint64_t entries;  /* visited */
	/*
	 * Queue heads, and descriptors outside of queues, visited in this walk: what a later
	 * slice passes over. What is in a queue may be gone by then, and does not count.
	 */
	uint32_t position;
	/* Brent's cycle finder: an entry remembered, and moved on at powers of two */
	uint32_t remembered, steps, limit;
	bool worked; /* something completed since it was remembered */
	bool progress;
};

struct qh_memory {
	bh_le32 link, element;
};

/* True: we have come round, and nothing happened on the way. */
static bool idle_lap(struct walk *w, uint32_t address)
{
	if (w->worked || !w->remembered) {
		w->worked = false;
		w->remembered = address;
		w->steps = 0;
		w->limit = 1;
		return false;
	}
	if (w->remembered == address)
		return true;
	if (++w->steps == w->limit) {
		w->remembered = address;
		w->steps = 0;
		w->limit *= 2;
	}
	return false;
}

/* Guest memory is not there: what follows was not seen. */
static void broken(struct bh_uhci *u)
{
	u->incomplete = true;
	uhci_bus_error(u);
}

/* False: the walk ends here. */
static bool visit_queue(struct bh_uhci *u, struct walk *w)
{
	struct qh_memory raw;
	uint32_t address = w->link & LINK_ADDRESS;

	if (idle_lap(w, address))
		return false;
	if (!bh_memory_read(&u->guest->memory, address, &raw, sizeof(raw))) {
		broken(u);
		return false;
	}
	w->qh_link = bh_get_le32(raw.link);
	w->element = w->element_written = bh_get_le32(raw.element);
	w->depth = 0;
	w->visited = false;
	w->element_word = bh_memory_word(&u->guest->memory, address + 4, BH_MEMORY_READ);
	w->map_generation = u->guest->memory.generation;
	w->qh = w->element & LINK_T ? 0 : address;
	if (w->position <= u->mark && !(w->element & LINK_Q))
		w->qh = 0; /* an earlier slice was here: what hangs in it need not be looked at */
	w->link = w->qh ? w->element : w->qh_link;
	return true;
}

/*
 * The queue head lets go of what completed. False: the guest has moved it on its own,
 * and what it wrote stands.
 */
static bool write_element(struct bh_uhci *u, struct walk *w)
{
	uint32_t expected = w->element_written;
	bool done = true;

	if (w->qh && w->element != expected &&
	    bh_memory_exchange32(&u->guest->memory, w->qh + 4, &expected, w->element, &done) && done)
		w->element_written = w->element;
	return done;
}

/* Has the guest left the queue's element pointer alone? */
static bool element_stands(const struct bh_uhci *u, const struct walk *w)
{
	return w->element_word && w->map_generation == u->guest->memory.generation &&
	       bh_order_le32(__atomic_load_n(w->element_word, __ATOMIC_RELAXED)) == w->element_written;
}

static uint32_t deepest_visit(const struct bh_uhci *u, const struct td *td)
{
	if (td->link & LINK_VF)
		return DEEPEST_VISIT;
	return u->config.pace || (td->control & TD_IOC) ? 1 : SHALLOW_VISIT;
}

/*
 * Where a walk goes after a descriptor (3.4.2): down the queue only when it
 * completed, otherwise on to the next queue.
 */
static void leave_td(struct bh_uhci *u, struct walk *w, const struct td *td, enum td_result result)
{
	bool deeper = false;

	if (!w->qh) {
		w->link = td->link;
		return;
	}
	if (result == TD_COMPLETED) {
		w->element = td->link;
		deeper = !(td->link & LINK_T) && ++w->depth < deepest_visit(u, td);
	}
	if (deeper && !(td->link & LINK_Q) && w->depth % ELEMENT_LAG)
		deeper = element_stands(u, w);
	else if (deeper)
		deeper = write_element(u, w);
	w->link = deeper ? td->link : w->qh_link;
	if (!deeper) {
		write_element(u, w);
		w->qh = w->depth = 0;
	}
}

/* One descriptor. False: the walk ends here. */
static inline bool serve_td(struct bh_uhci *u, struct walk *w)
{
	enum td_result result = TD_WAITS;
	struct td td;

	if (uhci_td_fetch(u, w->link & LINK_ADDRESS, &td) == BH_FOUND_UNREADABLE) {
		broken(u);
		return false;
	}
	if (w->position > u->mark)
		result = uhci_td_execute(u, &td, w->qh);
	w->visited = true;
	if (result == TD_FATAL) {
		u->incomplete = true;
		return false;
	}
	/* A stream says nothing of what is queued next: no reason to look again before the next frame. */
	if ((result == TD_COMPLETED || result == TD_STOPPED) && !(td.control & TD_IOS))
		w->worked = w->progress = true;
	leave_td(u, w, &td, result);
	return true;
}

/* One outside of a queue, or as many of a queue as this visit serves. */
static bool visit_tds(struct bh_uhci *u, struct walk *w)
{
	if (!w->qh && idle_lap(w, w->link & LINK_ADDRESS))
		return false;
	while (serve_td(u, w)) {
		if (!w->qh || (w->link & (LINK_T | LINK_Q)) || u->budget == 0)
			return true;
		u->budget--;
		w->entries++;
	}
	return false;
}

/* The walk ends, or breaks off until the next slice. */
static void end_walk(struct bh_uhci *u, struct walk *w)
{
	write_element(u, w);
	u->counters.entries += w->entries;
	if (!u->unfinished && !u->incomplete)
		bh_engine_pass_done(&u->bus.engine);
	/* A queue whose head was read, and none of its descriptors, is visited again. */
	u->mark = u->unfinished ? w->position - (w->qh && !w->visited) : 0;
	if (u->mark >= LONGEST_WALK) {
		u->mark = 0;
		u->unfinished = false; /* enough for this frame */
	}
	u->walk_worked |= w->progress;
	w->progress = u->walk_worked;
	if (!u->unfinished) {
		u->frames_passed = u->frames_begun;
		u->walk_worked = false;
	}
}

bool uhci_walk(struct bh_uhci *u, unsigned frame)
{
	struct walk w = {0};
	bool on = true;

	u->counters.walks++;
	u->unfinished = u->incomplete = false;
	if (!bh_memory_load32(&u->guest->memory, u->frbaseadd + 4 * (frame % FRAME_LIST_SIZE), &w.link)) {
		u->mark = 0; /* nothing was passed over: the next walk begins at the beginning */
		uhci_bus_error(u);
		return false;
	}
	while (on && !(w.link & LINK_T)) {
		if (u->budget == 0) {
			u->unfinished = true;
			break;
		}
		w.position += (w.link & LINK_Q) || !w.qh;
		if (w.position > u->mark)
			u->budget--;
		w.entries++;
		on = w.link & LINK_Q ? visit_queue(u, &w) : visit_tds(u, &w);
	}
	end_walk(u, &w);
	return w.progress;
}
