/*
 * The law, for isochronous streams: a random guest and a device that answers at once, with
 * batches and packet at a time. The guest sees the same descriptors, buffers and causes, frame
 * by frame, and the device hears the same packets, but for what is counted:
 *
 *   W  OUT that the guest withdrew or changed after it was sent ahead: ahead_bytes
 *   D  IN that was fetched ahead and then withdrawn: isochronous_dropped
 *   M  OUT that was changed, or put in before others, when those after it were sent: left active
 *
 * BULKHEAD_TEST_LONG: twenty times as many. BULKHEAD_TEST_SEED: this program alone.
 */
#define BUFFER_SIZE 512u

#include <stdlib.h>

#include "fake_driver.h"
#include "fake_streams.h"

#define PROGRAMS 2000u
#define LENGTH   120u /* frames */
#define REACH    100u /* frames ahead of now that may hold something */
#define ITEMS    2048u
#define POOL     400u /* descriptors; the one freed last is taken first */

/* What a program may do besides queueing and appending. */
enum { UNLINK = 1, RESTART = 2, STOP = 4, CHANGE = 8, INSERT = 16 };

/* A packet the guest queued; what is known of it at the end of its frame. */
struct item {
	unsigned frame, td, next;
	bool in, linked, ended;
	uint32_t control, number, sum;
	uint32_t sent_word, sent_sum, length;
};
#define NONE UINT32_MAX

struct run {
	struct item items[ITEMS];
	unsigned count;
	uint16_t causes[LENGTH + REACH];
	unsigned frames;
	struct bh_engine_counters counters;
};

static struct run runs[2]; /* packet at a time, batches */
static struct run *now;
static struct fake_streams device, heard[2];
static unsigned first[LENGTH + 2 * REACH]; /* item at the head of each frame */
static unsigned pool[POOL], pooled;
static unsigned tail[2], interval[2]; /* of the streams, OUT and IN */
static uint64_t random_state;
static uint32_t queued; /* ever: what makes packets different */

static uint32_t any(uint32_t below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 33) % below;
}

/* --- the guest ------------------------------------------------------------------------------ */

static void fill(struct item *i)
{
	queued++;
	for (unsigned k = 0; k < i->length; k++)
		guest.memory[BUFFER(i->td) + k] = (uint8_t)(k < 4 ? queued >> 8 * k : queued * 3 + k);
}

static void queue(unsigned frame, bool in)
{
	struct item *i = &now->items[now->count];
	uint32_t flags = any(8) == 0 ? TD_IOC : 0;

	if (!pooled || now->count == ITEMS)
		return;
	*i = (struct item){.frame = frame, .td = pool[--pooled], .next = first[frame], .in = in, .linked = true};
	i->length = in ? STREAM_PACKET - (any(16) == 0) : any(16) ? any(40) : STREAM_PACKET + any(2);
	fill(i);
	td(i->td, i->next == NONE ? LINK_T : TD(now->items[i->next].td), TD_ACTIVE | TD_IOS | flags,
	   token(in ? BH_PID_IN : BH_PID_OUT, 0, in ? 2 : 1, 0, i->length));
	fake_put32(&guest, FRAME_LIST + 4 * frame, TD(i->td));
	first[frame] = now->count++;
}

/* Takes it out of its frame's list; its descriptor may be used again. */
static void unlink(struct item *i)
{
	unsigned *link = &first[i->frame], before = NONE, me = (unsigned)(i - now->items);
	uint32_t to = i->next == NONE ? LINK_T : TD(now->items[i->next].td);

	for (; *link != me; link = &now->items[*link].next)
		before = *link;
	*link = i->next;
	fake_put32(&guest, before == NONE ? FRAME_LIST + 4 * i->frame : TD(now->items[before].td), to);
	i->linked = false;
	pool[pooled++] = i->td;
}

static void append(unsigned frame, bool in)
{
	unsigned n = 1 + any(24);

	if (tail[in] <= frame + 1 || any(8) == 0) {
		static const unsigned intervals[] = {1, 1, 1, 2, 3, 8};

		interval[in] = intervals[any(BH_COUNT(intervals))];
		tail[in] = BH_MAX(tail[in], frame + 1) + any(10);
	}
	for (; n && tail[in] < frame + REACH; n--, tail[in] += interval[in])
		for (unsigned twice = any(20) == 0; twice + 1; twice--)
			queue(tail[in], in);
}

static void unlink_some(unsigned frame, bool in, unsigned one_in)
{
	for (unsigned i = 0; i < now->count; i++)
		if (now->items[i].linked && now->items[i].in == in && now->items[i].frame > frame && any(one_in) == 0)
			unlink(&now->items[i]);
}

static void change(unsigned frame)
{
	for (unsigned i = 0; i < now->count; i++)
		if (now->items[i].linked && !now->items[i].in && now->items[i].frame > frame && any(12) == 0)
			fill(&now->items[i]);
}

static void stop(void)
{
	outw(USBCMD, 0);
	outw(USBCMD, USBCMD_RS | USBCMD_CF | USBCMD_MAXP);
}

static void act(unsigned frame, unsigned kinds)
{
	bool in = any(2);

	if (any(3) == 0)
		append(frame, in);
	if ((kinds & UNLINK) && any(20) == 0)
		unlink_some(frame, any(2), 6);
	if ((kinds & RESTART) && any(20) == 0) {
		unlink_some(frame, in, 1);
		tail[in] = frame + 1 + any(4);
		append(frame, in);
	}
	if ((kinds & CHANGE) && any(20) == 0)
		change(frame);
	if ((kinds & INSERT) && any(10) == 0)
		queue(frame + 1 + any(REACH - 1), in);
	if ((kinds & STOP) && any(40) == 0)
		stop();
}

/* The frame is over: what it held is as it will ever be. */
static void harvest(unsigned frame)
{
	for (unsigned n = first[frame]; n != NONE; n = now->items[n].next) {
		struct item *i = &now->items[n];
		struct fake_heard h = fake_hear(guest.memory + BUFFER(i->td), i->length);

		i->control = control_of(i->td);
		i->ended = !(i->control & TD_ACTIVE);
		i->number = i->in && i->ended ? h.word : 0;
		i->sum = i->in ? 0 : h.sum; /* an IN's is told by its number */
		i->sent_word = h.word;
		i->sent_sum = h.sum;
		if (i->in && !(i->control & TD_STALLED))
			assert_int_equal(guest.memory[BUFFER(i->td) + i->length - 1], (uint8_t)h.word);
		i->linked = false;
		pool[pooled++] = i->td;
	}
	fake_put32(&guest, FRAME_LIST + 4 * frame, LINK_T);
	first[frame] = NONE;
}

static void play(uint64_t seed, unsigned kinds, bool batches)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;

	if (!batches)
		config.engine.max_batch_descriptors = 1;
	machine(&config);
	fake_streams_init(&device);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, &device.device), 0);
	enable_port(0);
	now = &runs[batches];
	now->count = now->frames = 0;
	random_state = seed * 0x9e3779b97f4a7c15u | 1;
	queued = 0;
	for (unsigned i = 0; i < BH_COUNT(first); i++)
		first[i] = NONE;
	for (pooled = 0; pooled < POOL; pooled++)
		pool[pooled] = pooled;
	tail[0] = tail[1] = 0;
	interval[0] = interval[1] = 1;
	run();
	for (unsigned frame = 0; frame < LENGTH + REACH; frame++) {
		/* The guest acts in the frame, and harvests what its end has settled. */
		if (frame < LENGTH)
			act(frame, kinds);
		guest.now_us += 1000 - guest.now_us % 1000;
		assert_int_equal(inw(FRNUM), frame + 1);
		pass_us(0);
		now->causes[now->frames++] = inw(USBSTS);
		outw(USBSTS, 0xffff);
		harvest(frame);
	}
	outw(PORTSC, PORTSC_PR); /* what is left over is dropped, and counted */
	now->counters = *engine();
	heard[batches] = device;
	machine_finish();
}

/* --- the law ---------------------------------------------------------------------------------- */

static uint64_t seed;
static unsigned program_kinds;

#define CHECK(condition, ...)                                                                       \
	do {                                                                                        \
		if (!(condition)) {                                                                 \
			print_error("BULKHEAD_TEST_SEED=%llu (kinds %u): ", (unsigned long long)seed, program_kinds); \
			print_error(__VA_ARGS__);                                                   \
			print_error("\n");                                                          \
			fail();                                                                     \
		}                                                                                   \
	} while (0)

/* What was told sent, in time's order; a frame's list begins with what was queued last. */
static int by_time(const void *a, const void *b)
{
	const struct item *x = *(const struct item *const *)a, *y = *(const struct item *const *)b;

	return x->frame != y->frame ? (x->frame < y->frame ? -1 : 1) : (x < y) - (x > y);
}

static unsigned in_order(struct run *r, bool in, const struct item *ret[ITEMS])
{
	unsigned n = 0;

	for (unsigned i = 0; i < r->count; i++)
		if (r->items[i].in == in && r->items[i].ended)
			ret[n++] = &r->items[i];
	qsort(ret, n, sizeof(ret[0]), by_time);
	return n;
}

/* The device heard all that was told sent, in that order, and besides it what is counted. */
static void check_heard(unsigned k)
{
	static const struct item *told[ITEMS];
	const struct fake_streams *d = &heard[k];
	unsigned n = in_order(&runs[k], false, told), at = 0, matched = 0;
	uint32_t bytes = 0;

	for (unsigned i = 0; i < n; i++) {
		if (told[i]->length > STREAM_PACKET)
			continue; /* heard by nobody */
		while (at < d->heard_count && (d->heard[at].length != told[i]->length ||
		                               d->heard[at].sum != told[i]->sent_sum))
			at++;
		CHECK(at++ < d->heard_count, "frame %u: told sent, but not heard", told[i]->frame);
		bytes += told[i]->length;
		matched++;
	}
	CHECK(runs[k].counters.ahead_bytes == d->heard_bytes - bytes, "W: %llu counted, %u heard",
	      (unsigned long long)runs[k].counters.ahead_bytes, d->heard_bytes - bytes);
	n = in_order(&runs[k], true, told);
	CHECK(runs[k].counters.isochronous_dropped == d->heard_count - matched + d->sent - n,
	      "D: %llu counted, %u packets", (unsigned long long)runs[k].counters.isochronous_dropped,
	      d->heard_count - matched + d->sent - n);
}

/* INs get the device's packets in order. */
static void check_numbers(unsigned k, bool all)
{
	static const struct item *got[ITEMS];
	unsigned n = in_order(&runs[k], true, got);
	uint32_t last = 0;

	for (unsigned i = 0; i < n; i++) {
		if (got[i]->control & TD_STALLED) {
			last++; /* babble: it had one, and nobody saw which */
			continue;
		}
		CHECK(got[i]->number > last && (!all || got[i]->number == last + 1), "frame %u: packet %u after %u",
		      got[i]->frame, got[i]->number, last);
		last = got[i]->number;
	}
}

static void check_program(unsigned kinds)
{
	unsigned missed = 0;

	play(seed, kinds, false);
	play(seed, kinds, true);
	CHECK(runs[0].count == runs[1].count, "not the same program");
	for (unsigned i = 0; i < runs[0].count; i++) {
		const struct item *a = &runs[0].items[i], *b = &runs[1].items[i];

		CHECK(a->frame == b->frame && a->td == b->td && a->sum == b->sum, "not the same program");
		if (!b->in && a->ended && !b->ended)
			missed++;
		else
			CHECK(a->control == b->control, "frame %u: %08x, with batches %08x", a->frame, a->control,
			      b->control);
	}
	CHECK(runs[0].counters.isochronous_missed == 0, "packet at a time missed something");
	/* A frame in which the controller stopped is walked again: what was missed in it had another chance. */
	CHECK(runs[1].counters.isochronous_missed == missed ||
	              ((kinds & STOP) && runs[1].counters.isochronous_missed > missed), "M: %llu counted, %u left",
	      (unsigned long long)runs[1].counters.isochronous_missed, missed);
	CHECK(missed == 0 || (kinds & (CHANGE | INSERT)), "%u missed", missed);
	for (unsigned i = 0; i < runs[0].frames; i++)
		CHECK(runs[0].causes[i] == runs[1].causes[i], "frame %u: causes %02x, with batches %02x", i,
		      runs[0].causes[i], runs[1].causes[i]);
	for (unsigned k = 0; k < 2; k++) {
		check_heard(k);
		check_numbers(k, k == 0 || kinds == 0);
	}
	CHECK(runs[0].counters.ahead_bytes + runs[0].counters.isochronous_dropped == 0, "packet at a time looks ahead");
}

static void programs_of(unsigned kinds)
{
	const char *one = getenv("BULKHEAD_TEST_SEED"), *longer = getenv("BULKHEAD_TEST_LONG");
	uint64_t packets = 0, batches = 0;
	unsigned count = PROGRAMS / 6 * (longer ? 20 : 1);

	program_kinds = kinds;
	for (unsigned i = 0; i < (one ? 1 : count); i++) {
		seed = one ? strtoull(one, NULL, 0) : i + 1;
		check_program(kinds);
		packets += runs[1].counters.packets_out + runs[1].counters.packets_in;
		batches += runs[1].counters.batches;
	}
	assert_true(one || packets > 3 * batches); /* or this would prove nothing */
}

static void streams_that_are_appended_to(void **state)
{
	(void)state;
	programs_of(0);
}

static void streams_that_are_unlinked_here_and_there(void **state)
{
	(void)state;
	programs_of(UNLINK);
}

static void streams_that_begin_again_at_once(void **state)
{
	(void)state;
	programs_of(UNLINK | RESTART);
}

static void controller_that_stops_and_starts(void **state)
{
	(void)state;
	programs_of(UNLINK | RESTART | STOP);
}

static void packets_changed_and_inserted(void **state)
{
	(void)state;
	programs_of(UNLINK | RESTART | CHANGE | INSERT);
}

static void all_of_it(void **state)
{
	(void)state;
	programs_of(UNLINK | RESTART | STOP | CHANGE | INSERT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(streams_that_are_appended_to),
		cmocka_unit_test(streams_that_are_unlinked_here_and_there),
		cmocka_unit_test(streams_that_begin_again_at_once),
		cmocka_unit_test(controller_that_stops_and_starts),
		cmocka_unit_test(packets_changed_and_inserted),
		cmocka_unit_test(all_of_it),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
