/*
 * Many destinations at once ([0068]): eight bulk endpoints on two to eight devices, each
 * with a queue that is longer than a slice and always full, and all of it in virtual
 * time: a transfer takes its device a while, and the controller's own work takes time as
 * well, so that whoever would keep it busy would keep it from the others.
 *
 * What is said here is about packets completed. How fast that is, is the benchmark's.
 */
#include <stdio.h>

#include "fake_driver.h"
#include "fake_pipes.h"

#define STREAMS     8u
#define RING        5500u    /* descriptors in a queue: more than the 4096 entries of a slice */
#define EMPTY       0xdc000u /* queue heads with nothing in them */
#define SHARED      0xf0000u /* the buffer of all of them */
#define RUN_NS      500u     /* what it takes the controller to look at all, */
#define ENTRY_NS    50u      /* to visit a queue head or a descriptor, and to complete one */
#define LOOK_NS     100u     /* to look at one of those behind a head, where a test counts that */
#define RUN_MS      100u

struct stream {
	struct fake_pipe *pipe;
	unsigned tail;  /* the oldest descriptor not given back yet */
	uint64_t done;  /* descriptors completed */
	bool silent;    /* its queue is not linked */
	uint64_t latency_us;
};

static struct fake_pipes devices[STREAMS];
static unsigned device_count;
static struct stream streams[STREAMS];
static uint64_t work_ns; /* of the controller, not yet on the clock */
static uint64_t looks;   /* at descriptors behind a head: SCAN and verification */
static char context[200];

static void equal(const char *what, uint64_t is, uint64_t expected)
{
	if (is != expected)
		fail_msg("%s: %s is %llu, not %llu", context, what, (unsigned long long)is, (unsigned long long)expected);
}

static void at_least(const char *what, uint64_t is, uint64_t least)
{
	if (is < least)
		fail_msg("%s: %s is %llu, less than %llu", context, what, (unsigned long long)is,
		         (unsigned long long)least);
}

/* --- the machine ------------------------------------------------------------------------------ */

static unsigned ring_td(unsigned s, unsigned i)
{
	return s * RING + i % RING;
}

/* Odd streams are IN. */
static void fill_ring(unsigned s, uint32_t vf)
{
	uint8_t endpoint = streams[s].pipe->info.address;
	uint32_t pid = endpoint & BH_ENDPOINT_IN ? BH_PID_IN : BH_PID_OUT;

	for (unsigned i = 0; i < RING; i++)
		put_td(TD(ring_td(s, i)), TD(ring_td(s, i + 1)) | vf, ACTIVE,
		       token(pid, s % device_count + 1, endpoint & 15, i & 1, 64), SHARED + 64 * s);
}

static void link_queues(void)
{
	uint32_t next = LINK_T;

	for (unsigned s = STREAMS; s-- > 0;) {
		if (streams[s].silent)
			continue;
		qh(s, next, TD(ring_td(s, streams[s].tail)));
		next = QH(s) | LINK_Q;
	}
	frame_list(next);
}

/* A device on a port of its own, at the address after its number. */
static void plug(unsigned n)
{
	char set_address[] = "\x00\x05\x00\x00\x00\x00\x00\x00";

	set_address[2] = (char)(n + 1);
	fake_pipes_init(&devices[n]);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), n, &devices[n].device), 0);
	enable_port(n);
	request(set_address);
	assert_int_equal(control_of(201) & ENDED, 0);
}

static void make(unsigned count, uint32_t vf, uint64_t latency_us, const struct bh_engine_config *engine_config)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;

	config.ports = 8;
	if (engine_config)
		config.engine = *engine_config;
	machine(&config);
	run();
	device_count = count;
	for (unsigned n = 0; n < count; n++)
		plug(n);
	memset(streams, 0, sizeof(streams));
	for (unsigned s = 0; s < STREAMS; s++) {
		uint8_t address = (uint8_t)(s / count + 1);

		if (s & 1)
			address |= BH_ENDPOINT_IN;
		streams[s].pipe = fake_pipes_add(&devices[s % count], address, 64);
		streams[s].pipe->hold = latency_us > 0;
		streams[s].latency_us = latency_us;
		fill_ring(s, vf);
	}
	link_queues();
}

/* --- time --------------------------------------------------------------------------------------- */

/* The guest gives back what was completed, at once: it runs beside us. */
static void refill(struct stream *t, unsigned s)
{
	while (!(control_of(ring_td(s, t->tail)) & TD_ACTIVE)) {
		equal("status", control_of(ring_td(s, t->tail)) & ENDED, 0);
		fake_put32(&guest, TD(ring_td(s, t->tail)) + 4, ACTIVE);
		t->tail = (t->tail + 1) % RING;
		t->done++;
	}
}

/* What a device was given now ends when its time has come: so long, and a microsecond for a packet. */
static uint64_t next_due(void)
{
	uint64_t due = UINT64_MAX;

	for (unsigned s = 0; s < STREAMS; s++) {
		struct fake_pipe *p = streams[s].pipe;

		if (!p->held || !streams[s].latency_us || p->late)
			continue;
		if (!p->due_us)
			p->due_us = guest.now_us + streams[s].latency_us + p->held->length / 64;
		due = BH_MIN(due, p->due_us);
	}
	return due;
}

static void end_due(void)
{
	for (unsigned s = 0; s < STREAMS; s++) {
		struct fake_pipe *p = streams[s].pipe;

		if (p->held && p->due_us && p->due_us <= guest.now_us) {
			p->due_us = 0;
			fake_pipe_serve(p);
		}
	}
}

static void run_once(void)
{
	const struct bh_uhci_counters *c = bh_uhci_counters(uhci);
	uint64_t work = c->entries + c->completed;

	guest.run_at_us = UINT64_MAX;
	bh_uhci_run(uhci);
	work_ns += RUN_NS + (c->entries + c->completed - work) * ENTRY_NS + looks * LOOK_NS;
	looks = 0;
	guest.now_us += work_ns / 1000;
	work_ns %= 1000;
	for (unsigned s = 0; s < STREAMS; s++)
		if (!streams[s].silent && !streams[s].pipe->late)
			refill(&streams[s], s);
}

static void pass_ms(unsigned ms)
{
	uint64_t until = guest.now_us + 1000 * (uint64_t)ms;

	while (guest.now_us < until) {
		uint64_t due = next_due(), at = BH_MIN(due, guest.run_at_us);

		if (at > until)
			break;
		guest.now_us = BH_MAX(guest.now_us, at);
		if (due <= guest.now_us)
			end_due();
		if (guest.run_at_us <= guest.now_us)
			run_once();
	}
	guest.now_us = BH_MAX(guest.now_us, until);
	equal("USBSTS", inw(USBSTS) & (USBSTS_HSE | USBSTS_HCPE), 0);
}

/* --- fair under load ------------------------------------------------------------------------------ */

static void fair(unsigned first)
{
	uint64_t slowest = UINT64_MAX, fastest = 0;

	for (unsigned s = first; s < STREAMS; s++) {
		slowest = BH_MIN(slowest, streams[s].done);
		fastest = BH_MAX(fastest, streams[s].done);
	}
	at_least("the slowest, in packets", slowest, RUN_MS);
	at_least("twice the slowest", 2 * slowest, fastest);
}

/* Devices that answer at once: the controller is all there is to share. Then devices that take a while. */
static void eight_endpoints_get_as_much_as_each_other(void **state)
{
	static const unsigned counts[] = {2, 8};
	static const uint64_t latencies[] = {0, 500};

	(void)state;
	for (size_t c = 0; c < BH_COUNT(counts); c++)
		for (size_t l = 0; l < BH_COUNT(latencies); l++)
			for (uint32_t vf = 0; vf <= LINK_VF; vf += LINK_VF) {
				snprintf(context, sizeof(context), "%u devices, %u us, %s first", counts[c],
				         (unsigned)latencies[l], vf ? "depth" : "breadth");
				make(counts[c], vf, latencies[l], NULL);
				pass_ms(RUN_MS);
				fair(0);
				machine_finish();
			}
}

/*
 * The first queue completes something in every look, without end, for its device answers
 * at once; it is not what the others wait for. All have the same kind of links: a queue
 * that goes depth first among breadth-first ones gets what a guest asks for by that, up
 * to 256 packets to their one, which is less than hardware would give it.
 */
static void with_first(bool eager, uint64_t latency_us, uint32_t vf)
{
	make(8, vf, latency_us, NULL);
	streams[0].silent = !eager;
	streams[0].latency_us = 0;
	streams[0].pipe->hold = false;
	link_queues();
	pass_ms(RUN_MS);
}

static void first_queue_that_never_rests_starves_nobody(void **state)
{
	static const uint64_t latencies[] = {0, 500};

	(void)state;
	for (size_t l = 0; l < BH_COUNT(latencies); l++)
		for (uint32_t vf = 0; vf <= LINK_VF; vf += LINK_VF) {
			uint64_t without[STREAMS];

			snprintf(context, sizeof(context), "eager, %u us, %s first", (unsigned)latencies[l], vf ? "depth" : "breadth");
			with_first(false, latencies[l], vf);
			for (unsigned s = 1; s < STREAMS; s++)
				without[s] = streams[s].done;
			machine_finish();
			with_first(true, latencies[l], vf);
			at_least("the first", streams[0].done, RUN_MS);
			fair(1);
			for (unsigned s = 1; s < STREAMS; s++)
				at_least("what is left to another, doubled", 2 * streams[s].done, without[s]);
			machine_finish();
		}
}

/* Even among them: each visit to the others completes one of theirs. */
static void depth_first_queue_among_breadth_first_ones_starves_nobody(void **state)
{
	(void)state;
	snprintf(context, sizeof(context), "one depth first");
	make(8, 0, 200, NULL);
	streams[0].latency_us = 0;
	streams[0].pipe->hold = false;
	fill_ring(0, LINK_VF);
	pass_ms(RUN_MS);
	fair(1);
	for (unsigned s = 1; s < STREAMS; s++)
		at_least("256 of another's packets", 256 * streams[s].done, streams[0].done / 2);
	machine_finish();
}

/*
 * The same, with more queue heads between the first queue and the others than are visited
 * in a slice: looking again from the start, because something was done there, would never
 * come to the others.
 */
static void first_queue_of_a_long_schedule_starves_nobody(void **state)
{
	const unsigned empty = 4200;

	(void)state;
	for (uint32_t vf = 0; vf <= LINK_VF; vf += LINK_VF) {
		snprintf(context, sizeof(context), "long schedule, %s first", vf ? "depth" : "breadth");
		make(8, vf, 0, NULL);
		for (unsigned i = 0; i < empty; i++)
			put_qh(EMPTY + 16 * i, (i + 1 < empty ? EMPTY + 16 * (i + 1) : QH(1)) | LINK_Q, LINK_T);
		fake_put32(&guest, QH(0), EMPTY | LINK_Q);
		pass_ms(RUN_MS);
		fair(0);
		machine_finish();
	}
}

/* --- one that hangs --------------------------------------------------------------------------------- */

enum trouble { ABSENT, HANGS, FAILS };

/*
 * Devices are what takes the time here, as they do. (A look at one queue more takes the
 * controller its few nanoseconds, hanging or not.)
 */
#define HANG_LATENCY_US 2000u

static const struct bh_engine_config small_batches = {
	.hash_key = 0x9e3779b97f4a7c15u,
	.max_batch_bytes = 256 * 64,
	.max_batch_descriptors = 256,
	.max_bytes = 16 * 1024 * 1024,
	.retry_checks = 8,
	.linger_us = 10 * 1000,
	.withdrawn_frames = 32,
};

/* Streams of the first n are in trouble; what the others complete. */
static void with_trouble(unsigned n, enum trouble what, uint32_t vf, const struct bh_engine_config *config,
                         uint64_t *ret_done)
{
	make(8, vf, HANG_LATENCY_US, config);
	for (unsigned s = 0; s < n; s++) {
		streams[s].silent = what == ABSENT;
		streams[s].pipe->late = true; /* not when it is cancelled either */
		devices[s].device.finishes = false;
	}
	link_queues();
	pass_ms(20);
	if (what == FAILS) {
		fake_pipe_move(streams[0].pipe, 640);
		guest.memory[SHARED] ^= 0xff; /* in place, and the device has it */
		pass_ms(2);
		fake_pipe_end(streams[0].pipe, BH_CANCELLED);
		pass_ms(2);
		equal("failures", engine()->failures, 1);
	}
	for (unsigned s = 0; s < STREAMS; s++)
		streams[s].done = 0;
	pass_ms(RUN_MS);
	for (unsigned s = 0; s < STREAMS; s++)
		ret_done[s] = streams[s].done;
	for (unsigned s = 0; s < n; s++)
		equal("what hangs completed", streams[s].done, 0);
	if (what == HANGS)
		equal("cancels of the first", streams[0].pipe->cancels, 1);
}

static void others_are_as_before(unsigned n, const uint64_t *before, const uint64_t *now)
{
	for (unsigned s = n; s < STREAMS; s++) {
		at_least("another, in packets", now[s], RUN_MS);
		at_least("another, in percent of before", 100 * now[s] / before[s], 95);
		at_least("before, in percent of now", 100 * before[s] / now[s], 95);
	}
}

static void compare(unsigned n, enum trouble what, uint32_t vf)
{
	uint64_t before[STREAMS], now[STREAMS];

	snprintf(context, sizeof(context), "%u in trouble, %s first", n, vf ? "depth" : "breadth");
	with_trouble(n, ABSENT, vf, &small_batches, before);
	machine_finish();
	with_trouble(n, what, vf, &small_batches, now);
	others_are_as_before(n, before, now);
	machine_finish();
}

/* It never completes, and does not end when it is cancelled for lingering. */
static void devices_that_hang_delay_no_other(void **state)
{
	(void)state;
	for (unsigned n = 1; n <= 4; n += 3) {
		compare(n, HANGS, 0);
		compare(n, HANGS, LINK_VF);
	}
}

/* The same, of endpoints beside it on one device. */
static void endpoint_that_hangs_delays_no_other_of_its_device(void **state)
{
	uint64_t done[2][STREAMS];

	(void)state;
	snprintf(context, sizeof(context), "one device of four endpoints");
	for (unsigned hangs = 0; hangs < 2; hangs++) {
		make(2, 0, HANG_LATENCY_US, &small_batches);
		streams[0].silent = !hangs;
		streams[0].pipe->late = true;
		link_queues();
		pass_ms(RUN_MS);
		for (unsigned s = 0; s < STREAMS; s++)
			done[hangs][s] = streams[s].done;
		machine_finish();
	}
	others_are_as_before(1, done[0], done[1]);
}

/* [0093]: nothing of that device answers; nobody else hears of it. */
static void failure_of_a_device_does_not_touch_others(void **state)
{
	uint64_t before[STREAMS], now[STREAMS];

	(void)state;
	snprintf(context, sizeof(context), "failure");
	with_trouble(1, ABSENT, 0, &small_batches, before);
	machine_finish();
	with_trouble(1, FAILS, 0, &small_batches, now);
	others_are_as_before(1, before, now);
	equal("the first one's descriptor", control_of(ring_td(0, 0)) & (TD_ACTIVE | LOST), LOST);
	for (unsigned n = 1; n < device_count; n++)
		equal("resets of others", devices[n].resets, 2); /* when plugged in, and by the port */
	machine_finish();
}

/* --- a walk that takes longer than a frame ------------------------------------------------------------ */

static const struct bh_source_ops *source_ops; /* the controller's */

static enum bh_found count_look(struct bh_source *s, const struct bh_descriptor *after, struct bh_descriptor *ret)
{
	looks++;
	return source_ops->next(s, after, ret);
}

/*
 * OUT to the first n, of large batches that hang, and all of each is looked at again in
 * every walk. IN of all eight is served, if slowly.
 */
static void with_long_walks(unsigned n, uint32_t vf, const struct bh_engine_config *config)
{
	static struct bh_source_ops counting;
	struct bh_source *source;

	make(8, vf, 500, config);
	source = bh_uhci_bus(uhci)->engine.source;
	source_ops = source->ops;
	counting = *source_ops;
	counting.next = count_look;
	source->ops = &counting;
	looks = 0;
	for (unsigned s = 0; s < 2 * n; s += 2) {
		devices[s].device.verification.when = BH_VERIFY_RETRY;
		streams[s].pipe->late = true;
	}
}

static void slow_walks_come_to_every_queue(unsigned n, uint32_t vf, const struct bh_engine_config *config)
{
	uint64_t before[STREAMS];
	uint16_t number;

	with_long_walks(n, vf, config);
	pass_ms(50);
	for (unsigned round = 0; round < 5; round++) {
		for (unsigned s = 0; s < STREAMS; s++)
			before[s] = streams[s].done;
		for (unsigned i = 0; i < 5; i++) {
			number = inw(FRNUM);
			pass_ms(20);
			at_least("frames that passed in 20 ms", (inw(FRNUM) - number) & FRNUM_MASK, 10);
		}
		for (unsigned s = 0; s < STREAMS; s++)
			if (!streams[s].pipe->late)
				at_least("packets of another", streams[s].done - before[s], RUN_MS);
	}
	for (unsigned s = 0; s < 2 * n; s += 2)
		equal("cancels", streams[s].pipe->cancels, 0);
	equal("failures", engine()->failures, 0);
	machine_finish();
}

static void walk_longer_than_a_frame_starves_nobody_and_stops_no_clock(void **state)
{
	static const uint32_t packets[] = {4096, 16384}; /* of the 5500 in each ring */
	struct bh_engine_config config = BH_ENGINE_DEFAULTS;

	(void)state;
	config.max_batch_bytes = 1024 * 1024;
	for (size_t p = 0; p < BH_COUNT(packets); p++)
		for (unsigned n = 1; n <= 4; n++)
			for (uint32_t vf = 0; vf <= LINK_VF; vf += LINK_VF) {
				snprintf(context, sizeof(context), "%u hang, batches of %u, %s first", n, packets[p],
				         vf ? "depth" : "breadth");
				config.max_batch_descriptors = packets[p];
				slow_walks_come_to_every_queue(n, vf, &config);
			}
}

/* --- memory ------------------------------------------------------------------------------------------ */

/* What hangs has all there is; each of the others still has room for a packet, and its turn. */
static void memory_that_hanging_devices_hold_stops_nobody(void **state)
{
	struct bh_engine_config config = BH_ENGINE_DEFAULTS;
	uint64_t done[STREAMS];

	(void)state;
	config.max_bytes = 64 * 1024;
	for (uint32_t vf = 0; vf <= LINK_VF; vf += LINK_VF) {
		snprintf(context, sizeof(context), "memory, %s first", vf ? "depth" : "breadth");
		with_trouble(4, HANGS, vf, &config, done);
		equal("memory ran out", engine()->scan_end[BH_SCAN_MEMORY] > 0, true);
		/* One packet in a transfer, as long as there is no more memory. */
		for (unsigned s = 4; s < STREAMS; s++)
			at_least("another, in packets", done[s], 9 * (RUN_MS * 1000 / HANG_LATENCY_US) / 10);
		/* A packet and eight records for each, beyond the limit, at most. */
		at_least("the limit", config.max_bytes + STREAMS * (64 + 8 * (sizeof(struct bh_record) +
		                                                             4 * sizeof(uint32_t))),
		         engine()->memory_peak);
		machine_finish();
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(eight_endpoints_get_as_much_as_each_other),
		cmocka_unit_test(first_queue_that_never_rests_starves_nobody),
		cmocka_unit_test(depth_first_queue_among_breadth_first_ones_starves_nobody),
		cmocka_unit_test(first_queue_of_a_long_schedule_starves_nobody),
		cmocka_unit_test(devices_that_hang_delay_no_other),
		cmocka_unit_test(endpoint_that_hangs_delays_no_other_of_its_device),
		cmocka_unit_test(failure_of_a_device_does_not_touch_others),
		cmocka_unit_test(walk_longer_than_a_frame_starves_nobody_and_stops_no_clock),
		cmocka_unit_test(memory_that_hanging_devices_hold_stops_nobody),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
