/*
 * The law: whether packets travel alone or in batches, a guest sees the same
 * memory and a device the same packets. Random programs are run with batches and
 * packet at a time, at random and different paces, and compared; and random
 * programs that withdraw what they queued are checked against what the device
 * took.
 *
 * BH_TEST_ROUNDS=N runs N programs of each kind, BH_TEST_SEED=S starts at program S,
 * BH_TEST_NAME=T runs one test only. A program that fails says how to repeat it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <uhci/uhci.h>

#include "../../src/controller/uhci/internal.h"
#include "fake_guest.h"

/* --- chance ------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t a, uint64_t b, uint64_t c)
{
	uint64_t h = (a * 0x9e3779b97f4a7c15u) ^ (b * 0xc2b2ae3d27d4eb4fu) ^ (c * 0x165667b19e3779f9u);

	h = (h ^ h >> 31) * 0x7fb5d329728ea185u;
	h = (h ^ h >> 27) * 0x81dadef4bc2dd44du;
	return h ^ h >> 33;
}

struct dice {
	uint64_t state;
};

static struct dice dice_of(uint64_t seed, uint64_t what)
{
	return (struct dice){mix(seed, what, 7) | 1};
}

/* 0 to n - 1 */
static unsigned roll(struct dice *d, unsigned n)
{
	d->state ^= d->state << 13;
	d->state ^= d->state >> 7;
	d->state ^= d->state << 17;
	return (uint32_t)(d->state >> 20) % n;
}

static bool one_in(struct dice *d, unsigned n)
{
	return roll(d, n) == 0;
}

/* --- packets that went by, in order --------------------------------------------------------------- */

struct trace {
	uint8_t *bytes; /* of each packet: its length, a mark, its data */
	size_t length, capacity;
};

#define MARK 0xee

static void trace_add(struct trace *t, const void *data, uint32_t length)
{
	if (t->length + length + 2 > t->capacity) {
		t->capacity = 2 * t->capacity + length + 2;
		t->bytes = realloc(t->bytes, t->capacity);
		assert_non_null(t->bytes);
	}
	t->bytes[t->length] = (uint8_t)length;
	t->bytes[t->length + 1] = MARK;
	memcpy(t->bytes + t->length + 2, data, length);
	t->length += length + 2;
}

static void trace_free(struct trace *t)
{
	free(t->bytes);
	*t = (struct trace){0};
}

/* --- the device: what its nth packet does is decided by the seed alone ----------------------------- */

static const struct bh_endpoint_info endpoints[] = {
	{.address = 0x01, .type = BH_BULK, .max_packet = 64},
	{.address = 0x82, .type = BH_BULK, .max_packet = 64},
	{.address = 0x05, .type = BH_BULK, .max_packet = 8},
	{.address = 0x86, .type = BH_BULK, .max_packet = 16},
	{.address = 0x83, .type = BH_INTERRUPT, .max_packet = 8, .interval = 1},
};
#define ENDPOINTS ((unsigned)BH_COUNT(endpoints))

static bool is_in(unsigned e)
{
	return endpoints[e].address & BH_ENDPOINT_IN;
}

struct pipe {
	struct bh_transfer *transfer;
	uint32_t moved;
	bool cancelled;
	uint64_t packets, generated;
	struct trace trace;
};

static struct {
	struct bh_device device;
	struct pipe pipes[BH_COUNT(endpoints)];
} device;

static uint64_t seed;      /* of the program, and of what the device does */
static struct dice timing; /* of when; it must not matter */

static void end(struct pipe *p, enum bh_status status)
{
	struct bh_transfer *t = p->transfer;

	p->transfer = NULL;
	bh_transfer_done(t, status, p->moved);
}

static void packet_in(unsigned e, uint64_t chance)
{
	struct pipe *p = &device.pipes[e];
	uint32_t max = endpoints[e].max_packet, length = chance % 100 < 12 ? (uint32_t)(chance >> 20) % max : max;
	uint8_t data[64];

	for (uint32_t i = 0; i < length; i++)
		data[i] = (uint8_t)mix(seed, e + 200, p->generated++);
	bh_transfer_write(p->transfer, p->moved, data, length);
	trace_add(&p->trace, data, length);
	p->moved += length;
	if (length < max || p->moved == p->transfer->length)
		end(p, BH_SUCCESS);
}

static void packet_out(unsigned e)
{
	struct pipe *p = &device.pipes[e];
	struct bh_transfer *t = p->transfer;
	uint32_t max = endpoints[e].max_packet, length = BH_MIN(max, t->length - p->moved);
	uint8_t data[64];

	bh_transfer_read(t, p->moved, data, length);
	trace_add(&p->trace, data, length);
	p->moved += length;
	if (p->moved == t->length && !((t->flags & BH_TRANSFER_ZERO_PACKET) && length == max))
		end(p, BH_SUCCESS);
}

static void one_packet(unsigned e)
{
	struct pipe *p = &device.pipes[e];
	uint64_t chance = mix(seed, e + 100, p->packets++);

	if (chance % 100 < 2)
		end(p, BH_STALL);
	else if (chance % 100 < 4)
		end(p, BH_NO_RESPONSE);
	else if (is_in(e) && chance % 100 < 5)
		end(p, BH_BABBLE);
	else if (is_in(e))
		packet_in(e, chance);
	else
		packet_out(e);
}

static void some_packets(unsigned e, unsigned n)
{
	while (n-- && device.pipes[e].transfer)
		one_packet(e);
}

/* Time passes for the device. */
static void device_goes_on(void)
{
	for (unsigned e = 0; e < ENDPOINTS; e++) {
		struct pipe *p = &device.pipes[e];

		if (p->transfer && p->cancelled && one_in(&timing, 2))
			end(p, BH_CANCELLED);
		else
			some_packets(e, one_in(&timing, 4) ? roll(&timing, 60) : roll(&timing, 6));
	}
}

static unsigned index_of(uint8_t address)
{
	unsigned e = 0;

	while (e < ENDPOINTS && endpoints[e].address != address)
		e++;
	return e;
}

static void device_submit(struct bh_device *d, struct bh_transfer *t)
{
	unsigned e = index_of(t->endpoint);
	struct pipe *p = &device.pipes[e];

	(void)d;
	assert_true(e < ENDPOINTS && !p->transfer);
	p->transfer = t;
	p->moved = 0;
	p->cancelled = false;
	if (!one_in(&timing, 3)) /* or not before it has returned */
		return;
	some_packets(e, roll(&timing, 40));
}

static void device_cancel(struct bh_device *d, struct bh_transfer *t)
{
	struct pipe *p = &device.pipes[index_of(t->endpoint)];

	(void)d;
	assert_ptr_equal(p->transfer, t);
	if (one_in(&timing, 2))
		p->cancelled = true; /* later */
	else
		end(p, BH_CANCELLED);
}

static void device_reset(struct bh_device *d)
{
	(void)d;
	for (unsigned e = 0; e < ENDPOINTS; e++)
		if (device.pipes[e].transfer)
			end(&device.pipes[e], BH_CANCELLED);
}

static void device_set(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	(void)d;
	(void)value;
	bh_transfer_done(t, BH_SUCCESS, 0);
}

static void device_set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate,
                                 struct bh_transfer *t)
{
	(void)interface;
	device_set(d, alternate, t);
}

static const struct bh_endpoint_info *device_endpoint(const struct bh_device *d, uint8_t address)
{
	unsigned e = index_of(address);

	(void)d;
	return e < ENDPOINTS ? &endpoints[e] : NULL;
}

static const struct bh_device_ops device_ops = {
	.submit = device_submit,
	.cancel = device_cancel,
	.reset = device_reset,
	.set_configuration = device_set,
	.set_interface = device_set_interface,
	.clear_halt = device_set,
	.endpoint = device_endpoint,
	.destroy = device_reset,
};

/* --- the driver -------------------------------------------------------------------------------------- */

static struct fake_guest guest;
static struct bh_uhci *uhci;

#define LONGEST    80u /* descriptors in a queue */
#define FRAME_LIST 0x10000u
#define QH(e)      (0x20000u + 16u * (e))
#define TD(e, i)   (0x30000u + 16u * ((e) * LONGEST + (i)))
#define BUFFER(e, i) (0x40000u + 128u * ((e) * LONGEST + (i)))
#define PROGRAM    0x20000u /* where it begins, and ends */
#define PROGRAM_END BUFFER(ENDPOINTS, 0)

static void out(unsigned offset, unsigned length, uint32_t value)
{
	bh_le32 raw = bh_put_le32(value);

	bh_pci_bar_write(bh_uhci_pci(uhci), UHCI_BAR, offset, raw.b, length);
}

static uint16_t status(void)
{
	bh_le32 raw = {{0}};

	bh_pci_bar_read(bh_uhci_pci(uhci), UHCI_BAR, USBSTS, raw.b, 2);
	return (uint16_t)bh_get_le32(raw);
}

static void pass_us(uint64_t us)
{
	uint64_t until = guest.now_us + us;

	while (guest.run_at_us != UINT64_MAX && BH_MAX(guest.run_at_us, guest.now_us) <= until) {
		guest.now_us = BH_MAX(guest.run_at_us, guest.now_us);
		guest.run_at_us = UINT64_MAX;
		bh_uhci_run(uhci);
	}
	guest.now_us = until;
}

static void frame_list(uint32_t link)
{
	for (unsigned i = 0; i < FRAME_LIST_SIZE; i++)
		fake_put32(&guest, FRAME_LIST + 4 * i, link);
}

static void reset_port(void)
{
	out(PORTSC, 2, PORTSC_PR);
	out(PORTSC, 2, 0);
	out(PORTSC, 2, PORTSC_PE | PORTSC_CSC | PORTSC_PEC);
}

/* --- the program ---------------------------------------------------------------------------------------- */

struct program {
	bool withdraws; /* takes queues out, changes them and links them again */
	bool dormant[BH_COUNT(endpoints)][LONGEST]; /* not active yet */
	unsigned linked;                            /* queues: a bit each */
	unsigned quiet[BH_COUNT(endpoints)];        /* frames until it is linked again */
};

/* Usually full packets with proper toggles; now and then everything else. */
static uint32_t choose_length(const struct program *p, struct dice *d, unsigned e)
{
	uint32_t max = endpoints[e].max_packet, length = one_in(d, 6) ? roll(d, max + 1) : max;

	if (one_in(d, 200))
		length = max + 1;
	if (one_in(d, 30))
		length = 0;
	return p->withdraws && is_in(e) ? max : length;
}

static uint32_t choose_control(struct dice *d, bool unheard)
{
	uint32_t control = one_in(d, 10) ? roll(d, 4) << 27 : TD_CERR;

	control |= one_in(d, 7) ? TD_IOC : 0;
	control |= one_in(d, 2) ? 0 : TD_SPD;
	control |= one_in(d, 300) ? TD_LS : 0;
	if (unheard || (control & TD_LS))
		control |= TD_CERR; /* or it would be tried for ever */
	return control;
}

static void fill(uint8_t *to, unsigned length, unsigned what)
{
	struct dice d = dice_of(seed, what + 1000);

	for (unsigned i = 0; i < length; i++) {
		roll(&d, 1);
		to[i] = (uint8_t)(d.state >> 20);
	}
}

static void write_queue(struct program *p, struct dice *d, unsigned e)
{
	unsigned n = 1 + roll(d, LONGEST - 1), toggle = 0;

	for (unsigned i = 0; i < n; i++) {
		uint32_t length = choose_length(p, d, e), pid = is_in(e) ? BH_PID_IN : BH_PID_OUT;
		uint32_t control = choose_control(d, length > endpoints[e].max_packet);

		toggle ^= !one_in(d, 15);
		p->dormant[e][i] = one_in(d, 12);
		fake_put32(&guest, TD(e, i), i + 1 < n ? TD(e, i + 1) | (one_in(d, 2) ? LINK_VF : 0) : LINK_T);
		fake_put32(&guest, TD(e, i) + 4, control | (p->dormant[e][i] ? 0 : TD_ACTIVE));
		fake_put32(&guest, TD(e, i) + 8, pid | (endpoints[e].address & 15u) << 15 | toggle << 19 |
		                                         ((length - 1) & TD_NO_BYTES) << 21);
		fake_put32(&guest, TD(e, i) + 12, BUFFER(e, i));
		if (is_in(e))
			memset(guest.memory + BUFFER(e, i), 0x5a, 128);
		else
			fill(guest.memory + BUFFER(e, i), 128, e * 1000 + i);
	}
	fake_put32(&guest, QH(e) + 4, TD(e, 0));
}

static void link_queues(const struct program *p, uint32_t link)
{
	for (unsigned e = ENDPOINTS; e-- > 0;)
		if (p->linked >> e & 1) {
			fake_put32(&guest, QH(e), link);
			link = QH(e) | LINK_Q;
		}
	frame_list(link);
}

static void write_program(struct program *p)
{
	struct dice d = dice_of(seed, 1);

	p->linked = (1u << ENDPOINTS) - 1;
	for (unsigned e = 0; e < ENDPOINTS; e++)
		write_queue(p, &d, e);
	link_queues(p, !p->withdraws && one_in(&d, 2) ? QH(0) | LINK_Q : LINK_T);
}

/* The driver looks after a queue: wakes what is dormant, goes on after what stopped. False: it is done. */
static bool tend_queue(struct program *p, unsigned e)
{
	uint32_t element = fake_get32(&guest, QH(e) + 4), at = element & LINK_ADDRESS, control;
	unsigned i = (at - TD(e, 0)) / 16;

	if (element & LINK_T)
		return false;
	control = fake_get32(&guest, at + 4);
	if (control & TD_ACTIVE)
		return true;
	if (p->dormant[e][i]) {
		p->dormant[e][i] = !one_in(&timing, 4);
		if (!p->dormant[e][i])
			fake_put32(&guest, at + 4, control | TD_ACTIVE);
	} else if (one_in(&timing, 3)) {
		fake_put32(&guest, QH(e) + 4, fake_get32(&guest, at));
	}
	return true;
}

/* While a queue is out: leaves out some descriptors, or changes the bytes of some. */
static void rewrite_queue(unsigned e)
{
	uint32_t at = fake_get32(&guest, QH(e) + 4);
	unsigned how = roll(&timing, 4), n = roll(&timing, 5);

	for (; n && !(at & LINK_T); n--) {
		if (how == 2 && !is_in(e) && (fake_get32(&guest, (at & LINK_ADDRESS) + 4) & TD_ACTIVE) &&
		    one_in(&timing, 2))
			guest.memory[fake_get32(&guest, (at & LINK_ADDRESS) + 12)] ^= 0x55;
		at = fake_get32(&guest, at & LINK_ADDRESS);
	}
	if (how == 1)
		fake_put32(&guest, QH(e) + 4, at);
}

static void withdraw_and_return(struct program *p)
{
	for (unsigned e = 0; e < ENDPOINTS; e++) {
		if (p->linked >> e & 1) {
			if (roll(&timing, 60))
				continue;
			p->linked &= ~(1u << e);
			p->quiet[e] = 2 + roll(&timing, 3) + (one_in(&timing, 5) ? 40 : 0);
		} else if (p->quiet[e]) {
			p->quiet[e]--;
			pass_us(1000);
			continue;
		} else {
			rewrite_queue(e);
			p->linked |= 1u << e;
		}
		link_queues(p, LINK_T);
	}
}

/* --- one run -------------------------------------------------------------------------------------- */

struct result {
	const char *wrong; /* NULL: it came to its end */
	uint8_t memory[PROGRAM_END - PROGRAM];
	struct trace traces[BH_COUNT(endpoints)];
	struct bh_engine_counters engine;
};

/* What the guest was told of: packets that succeeded, by endpoint. */
static struct trace told[BH_COUNT(endpoints)];

static bool listening_retire(struct bh_source *s, const struct bh_descriptor *d, uint32_t actual,
                             enum bh_status outcome)
{
	unsigned e = (unsigned)(d->id - TD(0, 0)) / 16 / LONGEST;

	if (!uhci_source_ops.retire(s, d, actual, outcome))
		return false;
	if (outcome == BH_SUCCESS)
		trace_add(&told[e], guest.memory + d->buffer, actual);
	return true;
}

static void power_on(const struct bh_uhci_config *config, struct bh_source_ops *listening)
{
	uint8_t command[2] = {0x05, 0}; /* I/O space, bus master */

	memset(&device, 0, sizeof(device));
	device.device = (struct bh_device){.ops = &device_ops, .speed = BH_SPEED_FULL, .control_max_packet = 8};
	fake_guest_init(&guest);
	uhci = bh_uhci_create(&guest.guest, config);
	assert_non_null(uhci);
	*listening = uhci_source_ops;
	listening->retire = listening_retire;
	uhci->source.ops = listening;
	bh_pci_config_write(bh_uhci_pci(uhci), 4, command, 2);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, &device.device), 0);
	reset_port();
}

static const char *play(struct program *p)
{
	for (unsigned step = 0; step < 30000; step++) {
		bool done = true;

		pass_us(roll(&timing, one_in(&timing, 3) ? one_in(&timing, 20) ? 70000 : 3000 : 300));
		device_goes_on();
		if (status() & (USBSTS_HSE | USBSTS_HCPE))
			return "the controller halted";
		if (one_in(&timing, 3))
			out(USBSTS, 2, USBSTS_USBINT | USBSTS_ERROR);
		for (unsigned e = 0; e < ENDPOINTS; e++)
			done &= !tend_queue(p, e);
		if (p->withdraws)
			withdraw_and_return(p);
		if (done)
			return NULL;
	}
	return "it did not end";
}

static void run_program(const struct bh_uhci_config *config, bool withdraws, uint64_t pace, struct result *ret)
{
	struct program p = {.withdraws = withdraws};
	struct bh_source_ops listening;

	timing = dice_of(seed, pace);
	power_on(config, &listening);
	write_program(&p);
	out(FRBASEADD, 4, FRAME_LIST);
	out(USBCMD, 2, USBCMD_RS);
	ret->wrong = play(&p);
	reset_port(); /* counts what the device has and the guest was not told of */
	device_reset(NULL);
	memcpy(ret->memory, guest.memory + PROGRAM, sizeof(ret->memory));
	ret->engine = bh_uhci_bus(uhci)->engine.counters;
	for (unsigned e = 0; e < ENDPOINTS; e++)
		ret->traces[e] = device.pipes[e].trace;
	bh_uhci_destroy(uhci);
	fake_guest_finish(&guest);
}

static void result_free(struct result *r)
{
	for (unsigned e = 0; e < ENDPOINTS; e++) {
		trace_free(&r->traces[e]);
		trace_free(&told[e]);
	}
}

/* --- the law -------------------------------------------------------------------------------------- */

static struct result batched, alone;

/* Limits that hardly ever matter, and now and then do. */
static struct bh_uhci_config choose_config(void)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;
	struct dice d = dice_of(seed, 3);

	if (one_in(&d, 4))
		config.engine.linger_us = roll(&d, 4) * 500;
	if (one_in(&d, 4))
		config.engine.max_batch_bytes = 64 + roll(&d, 1000);
	if (one_in(&d, 4))
		config.engine.max_bytes = roll(&d, 20000);
	config.pace = one_in(&d, 5);
	return config;
}

static const char *same_as_alone(void)
{
	struct bh_uhci_config config = choose_config(), packets = BH_UHCI_DEFAULTS;

	packets.engine.max_batch_descriptors = 1;
	run_program(&config, false, 11, &batched);
	run_program(&packets, false, 22, &alone);
	if (batched.wrong || alone.wrong)
		return batched.wrong ? batched.wrong : alone.wrong;
	for (unsigned e = 0; e < ENDPOINTS; e++) {
		const struct trace *a = &batched.traces[e], *b = &alone.traces[e];

		if (a->length != b->length || (a->length && memcmp(a->bytes, b->bytes, a->length)))
			return "the device saw other packets";
	}
	if (memcmp(batched.memory, alone.memory, sizeof(batched.memory)))
		return "the guest sees other memory";
	return batched.engine.failures ? "a FAILURE" : NULL;
}

/*
 * Every packet the guest was told of as sent is one the device took, in that
 * order; the bytes of the others add up in *extra.
 */
static bool all_were_taken(const struct trace *sent, const struct trace *taken, uint64_t *extra)
{
	size_t s = 0, t = 0;

	while (t < taken->length) {
		size_t whole = taken->bytes[t] + 2u;

		if (s < sent->length && sent->bytes[s] == taken->bytes[t] &&
		    memcmp(sent->bytes + s, taken->bytes + t, whole) == 0)
			s += whole;
		else
			*extra += whole - 2;
		t += whole;
	}
	return s == sent->length;
}

static const char *told_the_truth(void)
{
	struct bh_uhci_config config = choose_config();
	uint64_t extra = 0;

	run_program(&config, true, 11, &batched);
	if (batched.wrong)
		return batched.wrong;
	for (unsigned e = 0; e < ENDPOINTS; e++) {
		const struct trace *t = &batched.traces[e];

		if (!is_in(e) && !all_were_taken(&told[e], t, &extra))
			return "the guest was told of what the device did not take";
		if (is_in(e) && told[e].length && (told[e].length > t->length ||
		                                   memcmp(told[e].bytes, t->bytes, told[e].length)))
			return "the guest got what the device did not send";
	}
	if (batched.engine.failures)
		return "a FAILURE";
	return extra == batched.engine.ahead_bytes ? NULL : "what the device has too much was not counted";
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

static void obey(const char *test, const char *(*law)(void), uint64_t rounds)
{
	uint64_t first = setting("BH_TEST_SEED", 1), wrong = 0;

	rounds = setting("BH_TEST_ROUNDS", rounds);
	for (seed = first; seed < first + rounds && wrong < 10; seed++) {
		const char *why = law();

		result_free(&batched);
		result_free(&alone);
		if (!why)
			continue;
		wrong++;
		print_error("# program %llu: %s. To repeat:\n"
		            "# BH_TEST_NAME=%s BH_TEST_SEED=%llu BH_TEST_ROUNDS=1 test_law\n",
		            (unsigned long long)seed, why, test, (unsigned long long)seed);
	}
	assert_int_equal(wrong, 0);
}

static void batches_and_packets_look_the_same(void **state)
{
	(void)state;
	obey(__func__, same_as_alone, 2000);
}

static void what_is_withdrawn_is_accounted_for(void **state)
{
	(void)state;
	obey(__func__, told_the_truth, 500);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(batches_and_packets_look_the_same),
		cmocka_unit_test(what_is_withdrawn_is_accounted_for),
	};
	const char *filter = getenv("BH_TEST_NAME");

	if (filter)
		cmocka_set_test_filter(filter);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
