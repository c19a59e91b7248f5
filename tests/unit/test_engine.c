/*
 * The batch engine: figure 5 edge by edge, every end of SCAN, who is charged with
 * which outcome, and every change of mind.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../src/batch/internal.h"
#include "fake_source.h"

static struct fake fake;
static struct bh_destination *const dest = &fake.destination;

static void state_is(enum bh_state s)
{
	assert_string_equal(bh_state_name(dest->state), bh_state_name(s));
	bh_destination_check(dest);
}

static void retired(unsigned i, enum bh_status status, uint32_t actual)
{
	assert_true(fake.list[i].retired);
	assert_string_equal(bh_status_name(fake.list[i].status), bh_status_name(status));
	assert_int_equal(fake.list[i].actual, actual);
}

static int finish(void **state)
{
	(void)state;
	fake_finish(&fake);
	assert_int_equal(fake.engine.counters.memory, 0);
	return 0;
}

/* --- figure 5 ------------------------------------------------------------------------- */

/* Brings a fresh OUT destination with four packets into a state. */
static void bring_to(enum bh_state s)
{
	fake_init(&fake, false, 4);
	if (s == BH_IDLE)
		return;
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	if (s == BH_DATA)
		bh_destination_complete(dest, BH_SUCCESS, 256);
	if (s == BH_FAILURE) {
		bh_destination_complete(dest, BH_SUCCESS, 256);
		fake.list[0].data[5] ^= 1;
		assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
		fake.list[0].active = true;
		fake.list[0].retired = false;
		fake.head = 0;
	}
	state_is(s);
}

enum input { A, B_ALL, B_NOTHING_CANCELLED, B_CHANGED_TAKEN, C };

static void give(enum input input)
{
	switch (input) {
	case A:
		fake_offer(&fake);
		break;
	case B_ALL:
		bh_destination_complete(dest, BH_SUCCESS, 256);
		break;
	case B_NOTHING_CANCELLED:
		fake.engine.frame += 32;
		bh_engine_frame(&fake.engine, fake.engine.frame);
		bh_destination_complete(dest, BH_CANCELLED, 0);
		break;
	case B_CHANGED_TAKEN:
		fake.list[0].data[0] ^= 0xff;
		fake_offer(&fake);
		bh_destination_complete(dest, BH_CANCELLED, 128);
		break;
	case C:
		bh_destination_reset(dest);
		break;
	}
}

/* Every (state, input) of the figure, and where it leads. */
static const struct edge {
	enum bh_state from;
	enum input input;
	enum bh_state to;
} edges[] = {
	{BH_IDLE, A, BH_WAIT},
	{BH_IDLE, C, BH_IDLE},
	{BH_WAIT, A, BH_WAIT},
	{BH_WAIT, B_ALL, BH_DATA},
	{BH_WAIT, B_NOTHING_CANCELLED, BH_IDLE},
	{BH_WAIT, B_CHANGED_TAKEN, BH_FAILURE},
	{BH_WAIT, C, BH_WAIT}, /* DEVIATION [0091]: until the cancelled transfer has ended */
	{BH_DATA, A, BH_DATA}, /* three packets are left */
	{BH_DATA, C, BH_IDLE},
	{BH_FAILURE, A, BH_FAILURE},
	{BH_FAILURE, C, BH_IDLE},
};

static void figure_5_edge(void **state)
{
	(void)state;
	for (size_t i = 0; i < BH_COUNT(edges); i++) {
		bring_to(edges[i].from);
		give(edges[i].input);
		state_is(edges[i].to);
		fake_finish(&fake);
	}
	fake_init(&fake, false, 1);
}

static void figure_5_answers(void **state)
{
	(void)state;
	bring_to(BH_IDLE);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY); /* [0090] A: busy */
	assert_int_equal(fake.starts, 1);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY); /* [0091] A: busy */
	assert_int_equal(fake.starts, 1);
	bh_destination_complete(dest, BH_SUCCESS, 256);
	assert_int_equal(fake.ready, 1);
	for (unsigned i = 0; i < 4; i++) {
		state_is(BH_DATA);
		assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
		retired(i, BH_SUCCESS, 64);
	}
	state_is(BH_IDLE); /* [0092]: the last one leads back */
	fake_finish(&fake);

	bring_to(BH_FAILURE);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	retired(0, BH_NO_RESPONSE, 0); /* [0093] A: no response */
	assert_int_equal(fake.fails, 1);
}

static void figure_5_has_no_other_edges(void **state)
{
	static const bool in_figure[BH_STATE_COUNT][BH_STATE_COUNT] = {
		[BH_IDLE] = {[BH_WAIT] = true},
		[BH_WAIT] = {[BH_IDLE] = true, [BH_DATA] = true, [BH_FAILURE] = true},
		[BH_DATA] = {[BH_IDLE] = true, [BH_FAILURE] = true},
		[BH_FAILURE] = {[BH_IDLE] = true},
	};

	(void)state;
	fake_init(&fake, false, 1);
	for (int from = 0; from < BH_STATE_COUNT; from++)
		for (int to = 0; to < BH_STATE_COUNT; to++)
			assert_int_equal(bh_transition_allowed((enum bh_state)from, (enum bh_state)to), in_figure[from][to]);
}

static void reset_while_waiting_starts_nothing_until_completion(void **state)
{
	(void)state;
	bring_to(BH_WAIT);
	bh_destination_reset(dest);
	assert_int_equal(fake.cancels, 1);
	bh_destination_reset(dest); /* once is enough */
	assert_int_equal(fake.cancels, 1);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(fake.starts, 1);
	bh_destination_complete(dest, BH_SUCCESS, 256); /* it ended before the cancel took effect */
	state_is(BH_IDLE);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY); /* nothing is kept: it is sent again */
	assert_int_equal(fake.starts, 2);
}

static void completion_inside_issue_answers_at_once(void **state)
{
	(void)state;
	fake_init(&fake, false, 4);
	fake.complete_at_once = true;
	fake.at_once_actual = 256;
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	retired(0, BH_SUCCESS, 64);
	assert_int_equal(fake.ready, 0);
}

/* --- SCAN ------------------------------------------------------------------------------ */

static void scan_ends(bool in, enum bh_scan_end why, uint32_t taken)
{
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(dest->batch.count, taken);
	for (int i = 0; i < BH_SCAN_END_COUNT; i++)
		assert_int_equal(fake.engine.counters.scan_end[i], i == (int)why);
	assert_int_equal(dest->batch.length, in ? taken * FAKE_PACKET : dest->batch.length);
}

static void plain_list(bool in)
{
	fake_init(&fake, in, 8);
	fake.list[7].d.notify = false;
}

static void scan_end_of_every_kind(void **state)
{
	(void)state;
	for (int in = 0; in < 2; in++) {
		for (int why = 0; why < BH_SCAN_END_COUNT; why++) {
			uint32_t taken = 4;

			plain_list(in);
			switch ((enum bh_scan_end)why) {
			case BH_SCAN_LIST:
				taken = 8;
				break;
			case BH_SCAN_SUBLIST:
				fake.list[3].then = BH_FOUND_SUBLIST;
				break;
			case BH_SCAN_NOTIFY:
				fake.list[3].d.notify = true;
				break;
			case BH_SCAN_SHORT:
				fake.list[3].d.length = 63;
				break;
			case BH_SCAN_DESTINATION:
				fake.list[4].d.destination = 9;
				break;
			case BH_SCAN_DIRECTION:
				fake.list[4].d.in = !in;
				fake.list[4].d.destination = 6;
				break;
			case BH_SCAN_TOGGLE:
				fake.list[4].d.toggle = fake.list[3].d.toggle;
				break;
			case BH_SCAN_INACTIVE:
				fake.list[4].active = false;
				break;
			case BH_SCAN_RING:
				fake.list[7].then = BH_FOUND; /* back to the first */
				taken = 8;
				break;
			case BH_SCAN_BYTES:
				fake.engine.config.max_batch_bytes = 4 * FAKE_PACKET + 1;
				break;
			case BH_SCAN_DESCRIPTORS:
				fake.engine.config.max_batch_descriptors = 4;
				break;
			case BH_SCAN_MEMORY:
				fake.engine.config.max_bytes = 1;
				taken = 1;
				break;
			case BH_SCAN_INVALID:
				fake.list[3].then = BH_FOUND_INVALID;
				break;
			case BH_SCAN_END_COUNT:
				break;
			}
			scan_ends(in, (enum bh_scan_end)why, taken);
			fake_finish(&fake);
		}
	}
	fake_init(&fake, false, 1);
}

/* The rows that have more than one cause; each is one count of its own. */
static void scan_ends_with_several_causes(void **state)
{
	static const struct {
		const char *what;
		enum bh_scan_end why;
		uint32_t taken;
		bool in, out;
	} rows[] = {
		{"length 0", BH_SCAN_SHORT, 4, true, true},
		{"one byte less", BH_SCAN_SHORT, 4, true, true},
		{"the head is short", BH_SCAN_SHORT, 1, true, true},
		{"the head notifies", BH_SCAN_NOTIFY, 1, true, true},
		{"same key, other way", BH_SCAN_DIRECTION, 4, true, true},
		{"a larger packet", BH_SCAN_INVALID, 4, false, true},
		{"data out of reach", BH_SCAN_INVALID, 4, false, true},
		{"ring into the middle", BH_SCAN_RING, 8, true, true},
		{"a single-packet destination", BH_SCAN_DESCRIPTORS, 1, true, true},
		{"one at a time", BH_SCAN_DESCRIPTORS, 1, true, true},
		{"bytes, exactly", BH_SCAN_BYTES, 4, true, true},
		{"bytes, not even one packet", BH_SCAN_BYTES, 1, true, true},
		{"no memory for the fifth", BH_SCAN_MEMORY, 4, true, true},
		{"notifies, and is short", BH_SCAN_NOTIFY, 4, true, true},
		{"short, and the next goes elsewhere", BH_SCAN_SHORT, 4, true, true},
	};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(rows); i++)
		for (int in = 0; in < 2; in++) {
			if (!(in ? rows[i].in : rows[i].out))
				continue;
			plain_list(in);
			switch (i) {
			case 0:
				fake.list[3].d.length = 0;
				break;
			case 1:
				fake.list[3].d.length = FAKE_PACKET - 1;
				break;
			case 2:
				fake.list[0].d.length = 1;
				break;
			case 3:
				fake.list[0].d.notify = true;
				break;
			case 4:
				fake.list[4].d.in = !in;
				break;
			case 5:
				fake.list[4].d.length = FAKE_PACKET + 1;
				break;
			case 6:
				fake.list[4].broken = true;
				break;
			case 7:
				fake.list[7].then = BH_FOUND;
				fake.head = 3;
				break;
			case 8:
				dest->single = true;
				break;
			case 9:
				dest->one_at_a_time = true;
				break;
			case 10:
				fake.engine.config.max_batch_bytes = 4 * FAKE_PACKET;
				break;
			case 11:
				fake.engine.config.max_batch_bytes = 1;
				break;
			case 12: /* data grows by doubling: room for four, and none for eight */
				fake.engine.config.max_bytes =
					4 * FAKE_PACKET + 8 * (sizeof(struct bh_record) + 4 * sizeof(uint32_t));
				break;
			case 13:
				fake.list[3].d.notify = true;
				fake.list[3].d.length = 5;
				break;
			case 14:
				fake.list[3].d.length = 5;
				fake.list[4].d.destination = 9;
				break;
			}
			assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
			if (dest->batch.count != rows[i].taken || fake.engine.counters.scan_end[rows[i].why] != 1)
				fail_msg("%s, %s: %u taken, %u ends of kind \"%s\"", rows[i].what, in ? "IN" : "OUT",
				         dest->batch.count, (unsigned)fake.engine.counters.scan_end[rows[i].why],
				         bh_scan_end_name(rows[i].why));
			for (int k = 0; k < BH_SCAN_END_COUNT; k++)
				assert_int_equal(fake.engine.counters.scan_end[k], k == (int)rows[i].why);
			fake_finish(&fake);
		}
	fake_init(&fake, false, 1);
}

static void every_end_of_scan_has_a_name(void **state)
{
	(void)state;
	fake_init(&fake, false, 1);
	for (int i = 0; i < BH_SCAN_END_COUNT; i++) {
		const char *name = bh_scan_end_name((enum bh_scan_end)i);

		assert_string_not_equal(name, "?");
		for (int k = 0; k < i; k++)
			assert_string_not_equal(name, bh_scan_end_name((enum bh_scan_end)k));
	}
	assert_string_equal(bh_scan_end_name(BH_SCAN_END_COUNT), "?");
}

static void scan_does_not_end_at_stop_on_short(void **state)
{
	(void)state;
	plain_list(true);
	for (unsigned i = 0; i < 8; i++)
		fake.list[i].d.stop_on_short = true;
	scan_ends(true, BH_SCAN_LIST, 8);
}

static void scan_stops_before_data_that_cannot_be_read(void **state)
{
	(void)state;
	plain_list(false);
	fake.list[2].broken = true;
	scan_ends(false, BH_SCAN_INVALID, 2);
	bh_destination_complete(dest, BH_SUCCESS, 128);
	fake_offer(&fake);
	fake_offer(&fake);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_FAULT); /* its turn: a bus error now */
	state_is(BH_IDLE);
}

/* The guest chooses what is hashed: it must not know how. */
static void hash_key_is_drawn_where_none_is_given(void **state)
{
	uint64_t drawn;

	(void)state;
	fake_init(&fake, false, 1);
	drawn = fake.engine.config.hash_key;
	assert_int_equal(drawn & 1, 1);
	fake_finish(&fake);
	fake_init(&fake, false, 1);
	assert_int_equal(fake.engine.config.hash_key & 1, 1);
	assert_true(fake.engine.config.hash_key != drawn);
	fake_finish(&fake);
	fake_init(&fake, false, 1);
	bh_engine_init(&fake.engine, &fake.source, &(struct bh_engine_config){.hash_key = 12345});
	assert_int_equal(fake.engine.config.hash_key, 12345);
}

static void scan_copies_data_in_order(void **state)
{
	(void)state;
	fake_init(&fake, false, 4);
	fake.list[3].d.length = 10;
	fake_offer(&fake);
	assert_int_equal(dest->batch.length, 202);
	for (unsigned i = 0; i < 4; i++)
		assert_memory_equal(dest->batch.data + 64 * i, fake.list[i].data, fake.list[i].d.length);
}

static void many_descriptors_do_not_repeat_and_memory_is_counted(void **state)
{
	(void)state;
	fake_init(&fake, false, FAKE_MAX);
	scan_ends(false, BH_SCAN_NOTIFY, FAKE_MAX);
	assert_true(fake.engine.counters.memory >= FAKE_MAX * FAKE_PACKET);
	assert_int_equal(fake.engine.counters.memory_peak, fake.engine.counters.memory);
}

/* --- memory, whatever the guest queues ------------------------------------------------------- */

/* A source whose lists have no end: descriptor 16 bytes after descriptor, all alike. */
static enum bh_found endless_next(struct bh_source *s, const struct bh_descriptor *after, struct bh_descriptor *ret)
{
	(void)s;
	*ret = *after;
	ret->id += 16;
	ret->destination = after->chain; /* a queue for each */
	ret->length = FAKE_PACKET;
	ret->in = after->chain & 1;
	ret->toggle = ret->id >> 4 & 1;
	ret->notify = false;
	return BH_FOUND;
}

static bool endless_read(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, void *to, uint32_t length)
{
	(void)s;
	(void)d;
	(void)offset;
	memset(to, 0x11, length);
	return true;
}

static bool endless_write(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, const void *from,
                          uint32_t length)
{
	(void)s;
	(void)d;
	(void)offset;
	(void)from;
	(void)length;
	return true;
}

static bool endless_equal(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, const void *bytes,
                          uint32_t length)
{
	(void)s;
	(void)d;
	(void)offset;
	(void)bytes;
	(void)length;
	return true;
}

static bool endless_retire(struct bh_source *s, const struct bh_descriptor *d, uint32_t actual, enum bh_status status)
{
	(void)s;
	(void)d;
	(void)actual;
	(void)status;
	return true;
}

static void endless_ready(struct bh_source *s)
{
	(void)s;
}

static const struct bh_source_ops endless_ops = {
	.next = endless_next,
	.read = endless_read,
	.write = endless_write,
	.equal = endless_equal,
	.retire = endless_retire,
	.ready = endless_ready,
};

static void hanging(struct bh_destination *d)
{
	(void)d; /* it has it, and does not end it when it is cancelled either */
}

static const struct bh_carrier_ops hanging_carrier = {.start = hanging, .cancel = hanging, .failed = hanging};

#define HOSTILE 12u
/* What is given beyond the limit: a packet, and the eight records there are at least. */
#define LEAST (FAKE_PACKET + 8 * (sizeof(struct bh_record) + 4 * sizeof(uint32_t)))

static struct {
	struct bh_source source;
	struct bh_engine engine;
	struct bh_destination d[HOSTILE];
	uint64_t head[HOSTILE], highest;
} hostile;

static void hostile_init(const struct bh_engine_config *config)
{
	memset(&hostile, 0, sizeof(hostile));
	hostile.source.ops = &endless_ops;
	bh_engine_init(&hostile.engine, &hostile.source, config);
	for (unsigned i = 0; i < HOSTILE; i++)
		bh_destination_init(&hostile.d[i], &hostile.engine, &hanging_carrier, 0x100 + i, i & 1, FAKE_PACKET);
}

static uint64_t memory_of(const struct bh_destination *d)
{
	return d->batch.capacity + d->batch.record_capacity * (sizeof(struct bh_record) + 4 * sizeof(uint32_t));
}

/* Adds up what there is, and holds it against the counters and every limit. */
static void hostile_check(void)
{
	const struct bh_engine_config *config = &hostile.engine.config;
	uint64_t sum = 0;

	for (unsigned i = 0; i < HOSTILE; i++) {
		const struct bh_destination *d = &hostile.d[i];

		sum += memory_of(d);
		assert_true(d->batch.length <= BH_MAX(config->max_batch_bytes, FAKE_PACKET));
		assert_true(d->batch.count <= config->max_batch_descriptors);
		assert_true(d->batch.capacity < 2 * BH_MAX(config->max_batch_bytes, FAKE_PACKET));
		assert_true(d->batch.record_capacity < BH_MAX(2 * config->max_batch_descriptors, 16));
	}
	assert_int_equal(hostile.engine.counters.memory, sum);
	assert_true(sum <= config->max_bytes + HOSTILE * LEAST);
	hostile.highest = BH_MAX(hostile.highest, sum);
	assert_int_equal(hostile.engine.counters.memory_peak, hostile.highest);
}

static enum bh_answer hostile_offer(unsigned i)
{
	struct bh_descriptor before = {.id = 0x10000 * (uint64_t)(i + 1) + 16 * hostile.head[i], .chain = 0x100 + i};
	struct bh_descriptor head;
	enum bh_answer answer;

	endless_next(&hostile.source, &before, &head);
	answer = bh_destination_offer(&hostile.d[i], &head);
	hostile.head[i] += answer == BH_ANSWER_RETIRED;
	return answer;
}

static void hostile_finish(void)
{
	for (unsigned i = 0; i < HOSTILE; i++) {
		if (bh_destination_running(&hostile.d[i]))
			bh_destination_complete(&hostile.d[i], BH_NO_RESPONSE, 0);
		bh_destination_finish(&hostile.d[i]);
	}
	assert_int_equal(hostile.engine.counters.memory, 0);
	assert_int_equal(hostile.engine.counters.memory_peak, hostile.highest);
}

static const struct {
	uint32_t batch_bytes, batch_descriptors;
	uint64_t bytes;
	enum bh_scan_end ends;
} limits[] = {
	{64 * 1024, 100000, 1 << 30, BH_SCAN_BYTES},
	{1 << 30, 300, 1 << 30, BH_SCAN_DESCRIPTORS},
	{256 * 1024, 4096, 200 * 1000, BH_SCAN_MEMORY},
	{256 * 1024, 4096, 0, BH_SCAN_MEMORY},
	{1000, 4096, 1 << 30, BH_SCAN_BYTES},
	{100000, 100000, 1 << 30, BH_SCAN_BYTES},
	{1, 1, 1 << 30, BH_SCAN_DESCRIPTORS},
};

static struct bh_engine_config limit(size_t i)
{
	struct bh_engine_config config = BH_ENGINE_DEFAULTS;

	config.max_batch_bytes = limits[i].batch_bytes;
	config.max_batch_descriptors = limits[i].batch_descriptors;
	config.max_bytes = limits[i].bytes;
	return config;
}

/* Endless queues on every endpoint, and a device that never lets go. */
static void memory_is_bounded_for_each_endpoint_and_for_all(void **state)
{
	(void)state;
	for (size_t i = 0; i < BH_COUNT(limits); i++) {
		struct bh_engine_config config = limit(i);

		hostile_init(&config);
		for (unsigned k = 0; k < HOSTILE; k++) {
			assert_int_equal(hostile_offer(k), BH_ANSWER_BUSY);
			assert_true(bh_destination_running(&hostile.d[k])); /* nobody is left out */
			hostile_check();
		}
		assert_true(hostile.engine.counters.scan_end[limits[i].ends] > 0);
		hostile_finish();
	}
	fake_init(&fake, false, 1);
}

/* The limit is used, not only kept: what there is goes to who comes first. */
static void memory_there_is_is_used(void **state)
{
	struct bh_engine_config config = BH_ENGINE_DEFAULTS;

	(void)state;
	config.max_bytes = 4 * 1024 * 1024;
	hostile_init(&config);
	for (unsigned k = 0; k < HOSTILE; k++) {
		hostile_offer(k);
		hostile_check();
	}
	assert_int_equal(hostile.d[0].batch.length, config.max_batch_bytes);
	assert_true(hostile.engine.counters.memory > config.max_bytes / 2);
	assert_true(hostile.engine.counters.scan_end[BH_SCAN_MEMORY] > 0);
	/* Those that are idle do not keep it from the others. */
	for (unsigned k = 0; k < HOSTILE; k++) {
		bh_destination_complete(&hostile.d[k], BH_CANCELLED, 0);
		bh_destination_reset(&hostile.d[k]);
	}
	assert_true(hostile.engine.counters.memory <= config.max_bytes / 2);
	hostile_finish();
	fake_init(&fake, false, 1);
}

/* Offers, completions, resets, withdrawals in any order. */
static void memory_is_bounded_whatever_happens(void **state)
{
	uint32_t random = 12345;

	(void)state;
	for (size_t i = 0; i < BH_COUNT(limits); i++) {
		struct bh_engine_config config = limit(i);

		hostile_init(&config);
		for (unsigned n = 0; n < 2000; n++) {
			struct bh_destination *d;
			unsigned k;

			random = random * 1664525 + 1013904223;
			k = random >> 8 & 0xff;
			d = &hostile.d[k % HOSTILE];
			switch (random >> 28) {
			case 0:
				bh_destination_reset(d);
				break;
			case 1:
				bh_destination_withdraw(d);
				break;
			case 2:
			case 3:
			case 4:
				if (bh_destination_running(d))
					bh_destination_complete(d, random & 1 ? BH_SUCCESS : BH_CANCELLED,
					                        random & 1 ? d->batch.length : d->batch.length / 2);
				break;
			default:
				hostile_offer(k % HOSTILE);
			}
			hostile_check();
		}
		hostile_finish();
	}
	fake_init(&fake, false, 1);
}

static void packet_at_a_time(void **state)
{
	(void)state;
	fake_init(&fake, false, 4);
	fake.engine.config.max_batch_descriptors = 1;
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
		assert_int_equal(dest->batch.count, 1);
		bh_destination_complete(dest, BH_SUCCESS, 64);
		assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
		retired(i, BH_SUCCESS, 64);
	}
	assert_int_equal(fake.starts, 4);
}

static void packet_larger_than_the_endpoint_is_not_answered(void **state)
{
	(void)state;
	fake_init(&fake, false, 2);
	fake.list[0].d.length = 65;
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	retired(0, BH_NO_RESPONSE, 0);
	assert_int_equal(fake.starts, 0);
}

/* --- outcomes: OUT ----------------------------------------------------------------------- */

/* Offers until busy or the end; how many were retired. */
static unsigned replay(void)
{
	unsigned n = 0, starts = fake.starts;

	while (n < fake.count && !fake.list[fake.head].retired && fake_offer(&fake) == BH_ANSWER_RETIRED) {
		n++;
		if (fake.starts != starts)
			break;
	}
	return n;
}

static void out_failure_is_charged_to_the_packet_it_hit(void **state)
{
	static const enum bh_status failures[] = {BH_STALL, BH_BABBLE, BH_NO_RESPONSE, BH_BUS_ERROR};

	(void)state;
	for (size_t f = 0; f < BH_COUNT(failures); f++) {
		for (uint32_t actual = 0; actual < 256; actual += 32) {
			unsigned good = actual / 64;

			fake_init(&fake, false, 4);
			fake_offer(&fake);
			bh_destination_complete(dest, failures[f], actual);
			for (unsigned i = 0; i <= good; i++)
				assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
			for (unsigned i = 0; i < good; i++)
				retired(i, BH_SUCCESS, 64);
			retired(good, failures[f], 0);
			for (unsigned i = good + 1; i < 4; i++)
				assert_false(fake.list[i].retired);
			state_is(BH_IDLE);
			fake_finish(&fake);
		}
	}
	fake_init(&fake, false, 1);
}

static void out_failure_uses_the_records_lengths(void **state)
{
	(void)state;
	fake_init(&fake, false, 3);
	fake.list[2].d.length = 7;
	fake_offer(&fake);
	bh_destination_complete(dest, BH_STALL, 134); /* all but one byte of the last */
	assert_int_equal(replay(), 3);
	retired(1, BH_SUCCESS, 64);
	retired(2, BH_STALL, 0);
}

static void out_zero_length_packet(void **state)
{
	(void)state;
	for (int failed = 0; failed < 2; failed++) {
		fake_init(&fake, false, 3);
		fake.list[2].d.length = 0;
		fake_offer(&fake);
		assert_true(dest->batch.zero_packet);
		assert_int_equal(dest->batch.length, 128);
		bh_destination_complete(dest, failed ? BH_STALL : BH_SUCCESS, 128);
		assert_int_equal(replay(), 3);
		retired(1, BH_SUCCESS, 64);
		retired(2, failed ? BH_STALL : BH_SUCCESS, 0);
		fake_finish(&fake);
	}
	fake_init(&fake, false, 1);
	fake.list[0].d.length = 0;
	fake_offer(&fake);
	assert_int_equal(dest->batch.length, 0);
	assert_false(dest->batch.zero_packet); /* it is all there is */
	bh_destination_complete(dest, BH_SUCCESS, 0);
	assert_int_equal(replay(), 1);
}

static void out_cannot_succeed_in_part(void **state)
{
	(void)state;
	bring_to(BH_WAIT);
	bh_destination_complete(dest, BH_SUCCESS, 100);
	assert_int_equal(replay(), 2);
	retired(0, BH_SUCCESS, 64);
	retired(1, BH_BUS_ERROR, 0);
}

/* --- outcomes: IN ------------------------------------------------------------------------- */

static void in_completes(unsigned descriptors, enum bh_status status, uint32_t actual)
{
	fake_init(&fake, true, descriptors);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	for (uint32_t i = 0; i < actual; i++)
		dest->batch.data[i] = (uint8_t)(i * 3 + 1);
	bh_destination_complete(dest, status, actual);
}

static void in_data_is_handed_out_in_packets(void **state)
{
	(void)state;
	in_completes(4, BH_SUCCESS, 256);
	assert_int_equal(replay(), 4);
	for (unsigned i = 0; i < 4; i++) {
		retired(i, BH_SUCCESS, 64);
		for (unsigned j = 0; j < 64; j++)
			assert_int_equal(fake.list[i].data[j], (uint8_t)((64 * i + j) * 3 + 1));
	}
	state_is(BH_IDLE);
}

static void in_short_packet_ends_the_outcome(void **state)
{
	(void)state;
	in_completes(4, BH_SUCCESS, 100);
	fake_offer(&fake);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	retired(1, BH_SUCCESS, 36);
	state_is(BH_IDLE);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY); /* the third is another transfer's */
	assert_int_equal(fake.starts, 2);
}

static void in_zero_length_packet_is_not_lost(void **state)
{
	(void)state;
	in_completes(4, BH_SUCCESS, 128);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	state_is(BH_DATA);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	retired(2, BH_SUCCESS, 0);
	state_is(BH_IDLE);
}

static void in_failure_comes_after_the_data(void **state)
{
	(void)state;
	in_completes(4, BH_STALL, 128);
	assert_int_equal(replay(), 3);
	retired(0, BH_SUCCESS, 64);
	retired(1, BH_SUCCESS, 64);
	retired(2, BH_STALL, 0);
	assert_false(fake.list[3].retired);
}

static void in_packet_larger_than_the_room_is_babble(void **state)
{
	(void)state;
	fake_init(&fake, true, 1);
	fake.list[0].d.length = 13;
	fake_offer(&fake);
	assert_int_equal(dest->batch.length, 64); /* a whole device packet is asked for */
	memset(dest->batch.data, 0xaa, 64);
	bh_destination_complete(dest, BH_SUCCESS, 20);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	retired(0, BH_BABBLE, 0);
	assert_int_equal(fake.list[0].data[0], 0); /* nothing reached the guest */
}

static void retire_refused_loses_nothing(void **state)
{
	(void)state;
	in_completes(2, BH_SUCCESS, 128);
	fake.refuse_retire = true;
	assert_int_equal(fake_offer(&fake), BH_ANSWER_CHANGED);
	fake.refuse_retire = false;
	assert_int_equal(replay(), 2);
	assert_int_equal(fake.list[1].data[0], (uint8_t)(64 * 3 + 1));
}

/* --- the guest changes its mind ---------------------------------------------------------------- */

static void changed_byte_cancels_and_sends_anew(void **state)
{
	(void)state;
	bring_to(BH_WAIT);
	fake.list[0].data[63] ^= 1;
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(fake.cancels, 1);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(fake.starts, 1); /* nothing new before the old one has ended */
	bh_destination_complete(dest, BH_CANCELLED, 0);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(fake.starts, 2);
	assert_memory_equal(dest->batch.data, fake.list[0].data, 64);
	assert_int_equal(fake.engine.counters.mismatches, 1);
}

/* What "exact" has to notice, of the head and of the others in turn. */
static void every_change_is_noticed_within_bounded_retries(void **state)
{
	(void)state;
	for (int what = 0; what < 5; what++) {
		for (unsigned which = 0; which < 32; which += 31) {
			unsigned retries = 0;

			fake_init(&fake, false, 32);
			fake_offer(&fake);
			switch (what) {
			case 0:
				fake.list[which].data[0] ^= 1;
				break;
			case 1:
				fake.list[which].d.buffer += 64;
				break;
			case 2:
				fake.list[which].d.token ^= 0x80000;
				break;
			case 3:
				fake.list[which].d.length--;
				break;
			case 4:
				if (which)
					fake.list[which].active = false;
				else
					fake.list[which].data[1] ^= 1; /* an inactive head is not offered */
				break;
			}
			while (!fake.cancels && retries++ < 8)
				fake_offer(&fake);
			assert_int_equal(fake.cancels, 1);
			assert_true(retries <= (which ? 4 : 1));
			fake_finish(&fake);
		}
	}
	fake_init(&fake, false, 1);
}

static void what_drivers_may_change_is_no_change(void **state)
{
	(void)state;
	bring_to(BH_WAIT);
	fake.list[0].d.notify = true;
	fake.list[2].d.stop_on_short = true;
	fake.list[3].then = BH_FOUND;
	for (int i = 0; i < 8; i++)
		assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(fake.cancels, 0);
}

/* --- verification as it is chosen ------------------------------------------------------------- */

static void verify_as(enum bh_verify what, enum bh_verify_when when, unsigned count)
{
	fake_init(&fake, false, count);
	fake.can_trace = true;
	fake.source.ops = fake_tracing_ops();
	dest->verification = (struct bh_verification){what, when};
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(dest->batch.count, count);
	fake.nexts = fake.reads = fake.equals = 0;
}

/*
 * What one retry looks at, beside the head that was just read: bounded looks at so many
 * more, whatever the batch holds; retry at all of them; completion at none.
 */
static void a_retry_costs_what_was_chosen(void **state)
{
	static const unsigned counts[] = {1, 4, 9, 10, 32, FAKE_MAX};
	static const enum bh_verify modes[] = {BH_VERIFY_EXACT, BH_VERIFY_CHECKSUM, BH_VERIFY_TD, BH_VERIFY_BUFFER,
	                                       BH_VERIFY_TRACE};

	(void)state;
	for (size_t m = 0; m < BH_COUNT(modes); m++)
		for (int when = 0; when < BH_VERIFY_WHEN_COUNT; when++)
			for (size_t c = 0; c < BH_COUNT(counts); c++) {
				unsigned others, looks, heads = when != BH_VERIFY_COMPLETION;

				verify_as(modes[m], (enum bh_verify_when)when, counts[c]);
				others = heads ? counts[c] - 1 : 0;
				if (when == BH_VERIFY_BOUNDED)
					others = BH_MIN(others, fake.engine.config.retry_checks);
				looks = heads + others;
				for (unsigned n = 1; n <= 20; n++) {
					assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
					assert_int_equal(fake.nexts, n * others);
					assert_int_equal(fake.equals, modes[m] == BH_VERIFY_EXACT ? n * looks : 0);
					assert_int_equal(fake.reads, modes[m] == BH_VERIFY_CHECKSUM ? n * looks : 0);
				}
				assert_int_equal(fake.cancels, 0);
				fake_finish(&fake);
			}
	fake_init(&fake, false, 1);
}

/* In turn: after (n - 1) / 8 retries, rounded up, each has been looked at. */
static void bounded_retries_come_round_to_every_record(void **state)
{
	(void)state;
	for (unsigned which = 0; which < FAKE_MAX; which++) {
		unsigned retries = 0;

		verify_as(BH_VERIFY_EXACT, BH_VERIFY_BOUNDED, FAKE_MAX);
		fake.list[which].data[7] ^= 1;
		while (!fake.cancels && retries < 100) {
			fake_offer(&fake);
			retries++;
		}
		assert_in_range(retries, 1, which ? (FAKE_MAX - 1 + 7) / 8 : 1);
		assert_int_equal(dest->changed.record, which);
		assert_true(dest->changed.in_place);
		fake_finish(&fake);
	}
	fake_init(&fake, false, 1);
}

static void retry_of_all_finds_any_change_at_once(void **state)
{
	(void)state;
	for (unsigned which = 0; which < FAKE_MAX; which++) {
		verify_as(BH_VERIFY_EXACT, BH_VERIFY_RETRY, FAKE_MAX);
		fake.list[which].data[7] ^= 1;
		fake_offer(&fake);
		assert_int_equal(fake.cancels, 1);
		assert_int_equal(dest->changed.record, which);
		fake_finish(&fake);
	}
	fake_init(&fake, false, 1);
}

static void in_is_looked_at_by_nobody(void **state)
{
	(void)state;
	for (int what = 0; what < BH_VERIFY_COUNT; what++) {
		fake_init(&fake, true, 16);
		dest->verification = (struct bh_verification){(enum bh_verify)what, BH_VERIFY_RETRY};
		fake_offer(&fake);
		fake.nexts = 0;
		for (int i = 0; i < 8; i++)
			assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
		bh_destination_complete(dest, BH_SUCCESS, 16 * FAKE_PACKET);
		assert_int_equal(replay(), 16);
		assert_int_equal(fake.nexts + fake.reads + fake.equals, 0);
		fake_finish(&fake);
	}
	fake_init(&fake, false, 1);
}

/* --- write traces ([0085]) ---------------------------------------------------------------------- */

/* What was not written is not compared, neither while it runs nor when it is replayed. */
static void traced_data_that_was_not_written_is_not_read(void **state)
{
	(void)state;
	verify_as(BH_VERIFY_TRACE, BH_VERIFY_RETRY, 8);
	for (int i = 0; i < 8; i++)
		assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	bh_destination_complete(dest, BH_SUCCESS, 512);
	assert_int_equal(replay(), 8);
	assert_int_equal(fake.reads + fake.equals, 0);
}

static void traced_write_is_noticed(void **state)
{
	(void)state;
	for (unsigned which = 0; which < 8; which++)
		for (int completed = 0; completed < 2; completed++) {
			verify_as(BH_VERIFY_TRACE, BH_VERIFY_RETRY, 8);
			if (completed)
				bh_destination_complete(dest, BH_SUCCESS, 512);
			fake.list[which].data[0] ^= 1;
			fake_written(&fake, which);
			if (completed) {
				for (unsigned i = 0; i <= which; i++)
					assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
				state_is(BH_FAILURE);
				retired(which, BH_NO_RESPONSE, 0);
			} else {
				fake_offer(&fake);
				assert_int_equal(fake.cancels, 1);
				assert_int_equal(dest->changed.record, which);
			}
			assert_int_equal(fake.engine.counters.mismatches, 1);
			assert_int_equal(fake.equals, 1); /* only what was written was compared */
			fake_finish(&fake);
		}
	fake_init(&fake, false, 1);
}

/* Written with what was there, or beside it on the page: compared, and equal. */
static void false_alarm_of_a_trace_is_no_change(void **state)
{
	(void)state;
	verify_as(BH_VERIFY_TRACE, BH_VERIFY_RETRY, 8);
	fake_written(&fake, 0);
	fake_written(&fake, 5);
	for (unsigned i = 1; i <= 4; i++) {
		assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
		assert_int_equal(fake.equals, 2 * i);
	}
	assert_int_equal(fake.cancels, 0);
	bh_destination_complete(dest, BH_SUCCESS, 512);
	assert_int_equal(replay(), 8);
	assert_int_equal(fake.engine.counters.mismatches, 0);
}

/* Written before it was copied, and not since: nothing to compare. */
static void write_before_the_copy_is_no_alarm(void **state)
{
	(void)state;
	verify_as(BH_VERIFY_TRACE, BH_VERIFY_RETRY, 4);
	fake_written(&fake, 1);
	bh_destination_complete(dest, BH_SUCCESS, 256);
	assert_int_equal(replay(), 4);
	for (unsigned i = 0; i < 4; i++)
		fake.list[i].active = true, fake.list[i].retired = false;
	fake.head = 0;
	fake_offer(&fake);
	fake.equals = 0;
	fake_offer(&fake);
	assert_int_equal(fake.equals, 0);
	fake_written(&fake, 2); /* the traces of the new batch */
	fake_offer(&fake);
	assert_int_equal(fake.equals, 1);
}

/* Traces are about data: another buffer, token or length shows in the descriptor. */
static void traces_do_not_replace_a_look_at_the_descriptor(void **state)
{
	(void)state;
	for (int what = 0; what < 4; what++) {
		verify_as(BH_VERIFY_TRACE, BH_VERIFY_BOUNDED, 8);
		switch (what) {
		case 0:
			fake.list[3].d.buffer += 64;
			break;
		case 1:
			fake.list[3].d.token ^= 0x80000;
			break;
		case 2:
			fake.list[3].d.length--;
			break;
		case 3:
			fake.list[3].active = false;
			break;
		}
		fake_offer(&fake);
		assert_int_equal(fake.cancels, 1);
		assert_int_equal(dest->changed.record, 3);
		fake_finish(&fake);
	}
	fake_init(&fake, false, 1);
}

/* One buffer that cannot be traced: then all are compared, as "exact" does. */
static void data_that_cannot_be_traced_is_compared(void **state)
{
	(void)state;
	for (unsigned which = 0; which < 4; which++) {
		fake_init(&fake, false, 4);
		fake.source.ops = fake_tracing_ops();
		fake.list[which].untraceable = true;
		dest->verification = (struct bh_verification){BH_VERIFY_TRACE, BH_VERIFY_RETRY};
		fake_offer(&fake);
		fake_offer(&fake);
		assert_int_equal(fake.equals, 4);
		assert_int_equal(fake.cancels, 0);
		fake.list[which].data[1] ^= 1; /* without a trace */
		fake_offer(&fake);
		assert_int_equal(fake.cancels, 1);
		fake_finish(&fake);
	}
	fake_init(&fake, false, 1);
}

static void traces_are_there_only_if_the_source_says_so(void **state)
{
	(void)state;
	fake_init(&fake, false, 1);
	assert_false(bh_engine_can_trace(&fake.engine)); /* a source without */
	fake.source.ops = fake_tracing_ops();
	assert_false(bh_engine_can_trace(&fake.engine)); /* not now */
	fake.can_trace = true;
	assert_true(bh_engine_can_trace(&fake.engine));
	/* Asked for all the same, of a source without: compared. */
	fake_init(&fake, false, 2);
	dest->verification.what = BH_VERIFY_TRACE;
	fake_offer(&fake);
	fake.list[0].data[0] ^= 1;
	fake_offer(&fake);
	assert_int_equal(fake.cancels, 1);
}

/* A checksum is keyed: the same bytes come to another sum under another key. */
static void checksums_depend_on_the_key(void **state)
{
	uint32_t sums[2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		fake_init(&fake, false, 2);
		fake.engine.config.hash_key += 2 * (uint64_t)i;
		dest->verification.what = BH_VERIFY_CHECKSUM;
		fake_offer(&fake);
		sums[i] = dest->batch.records[0].proof;
		fake_finish(&fake);
	}
	assert_int_not_equal(sums[0], sums[1]);
	fake_init(&fake, false, 1);
}

static void change_behind_what_was_taken_is_sent_as_it_is_now(void **state)
{
	(void)state;
	bring_to(BH_WAIT);
	fake.list[2].data[0] ^= 1;
	fake_offer(&fake);
	assert_int_equal(fake.cancels, 1);
	bh_destination_complete(dest, BH_CANCELLED, 128); /* the first two */
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(dest->batch.count, 2);
	assert_memory_equal(dest->batch.data, fake.list[2].data, 64);
	assert_int_equal(fake.engine.counters.ahead_bytes, 0);
	state_is(BH_WAIT);
}

static void change_of_what_was_taken_is_failure(void **state)
{
	(void)state;
	bring_to(BH_WAIT);
	fake.list[1].data[0] ^= 1;
	fake_offer(&fake);
	bh_destination_complete(dest, BH_CANCELLED, 65);
	state_is(BH_FAILURE);
	assert_int_equal(fake.fails, 1);
}

/* Linux unlinks a queue that made no progress for 200 ms and links it again, unchanged. */
static void unlinked_and_linked_again_unchanged_is_nothing(void **state)
{
	(void)state;
	bring_to(BH_WAIT);
	for (uint64_t frame = 1; frame < 20; frame++) {
		bh_engine_frame(&fake.engine, frame);
		bh_engine_pass_done(&fake.engine);
	}
	assert_true(dest->unoffered);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(fake.cancels, 0);
	bh_destination_complete(dest, BH_SUCCESS, 256);
	assert_int_equal(replay(), 4);
	assert_int_equal(fake.starts, 1); /* nothing was sent twice */
}

static void not_offered_for_32_frames_is_withdrawn(void **state)
{
	(void)state;
	bring_to(BH_WAIT);
	bh_engine_frame(&fake.engine, 31);
	assert_int_equal(fake.cancels, 0);
	bh_engine_frame(&fake.engine, 32);
	assert_int_equal(fake.cancels, 1);
	bh_destination_complete(dest, BH_CANCELLED, 128);
	state_is(BH_DATA); /* kept: the same descriptors are answered from it */
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(fake.starts, 2);
	assert_int_equal(dest->batch.length, 128); /* only the rest */
	assert_int_equal(fake.engine.counters.ahead_bytes, 0);
}

static void rest_of_a_packet_partly_taken(void **state)
{
	(void)state;
	bring_to(BH_WAIT);
	bh_destination_withdraw(dest);
	bh_destination_complete(dest, BH_CANCELLED, 100);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(dest->batch.skip, 36);
	assert_int_equal(dest->batch.length, 192);
	bh_destination_complete(dest, BH_SUCCESS, 192 - 36);
	assert_int_equal(replay(), 3);
	retired(3, BH_SUCCESS, 64);
}

/* 36 bytes of the second are with the device, and nobody can read the rest. */
static void partly_taken(void)
{
	fake_init(&fake, false, 4);
	dest->verification.what = BH_VERIFY_TD; /* does not notice what cannot be read */
	fake_offer(&fake);
	bh_destination_withdraw(dest);
	bh_destination_complete(dest, BH_CANCELLED, 100);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	fake.list[1].broken = true;
	assert_int_equal(fake_offer(&fake), BH_ANSWER_FAULT);
	state_is(BH_IDLE);
	assert_int_equal(fake.engine.counters.ahead_bytes, 0); /* it may be there again */
	fake.list[1].broken = false;
}

static void part_of_a_packet_waits_for_the_rest(void **state)
{
	(void)state;
	partly_taken();
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(dest->batch.skip, 36);
	assert_int_equal(fake.engine.counters.ahead_bytes, 0);
}

/* Not left out of another one. */
static void part_of_a_packet_is_of_that_packet(void **state)
{
	(void)state;
	partly_taken();
	fake.head = 2;
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(dest->batch.skip, 0);
	assert_int_equal(dest->batch.length, 128);
	assert_int_equal(fake.engine.counters.ahead_bytes, 36);
}

static void part_of_a_packet_is_forgotten_by_reset(void **state)
{
	(void)state;
	partly_taken();
	bh_destination_reset(dest);
	assert_int_equal(fake.engine.counters.ahead_bytes, 36);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(dest->batch.skip, 0);
	assert_int_equal(dest->batch.length, 192);
}

static void withdrawn_out_is_counted_not_failed(void **state)
{
	(void)state;
	bring_to(BH_DATA);
	fake_offer(&fake);
	fake.head = 3; /* the guest took two out of its list */
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(fake.engine.counters.ahead_bytes, 192);
	assert_int_equal(fake.starts, 2);
	assert_int_equal(dest->batch.count, 1);
	state_is(BH_WAIT);
}

static void withdrawn_out_can_be_made_to_fail(void **state)
{
	(void)state;
	bring_to(BH_DATA);
	fake.engine.config.withdrawn_fails = true;
	fake.head = 3;
	fake_offer(&fake);
	state_is(BH_FAILURE);
}

/* The same, found while the device has it: only if it has taken what was taken out. */
static void out_taken_back_while_it_was_sent_can_be_made_to_fail(void **state)
{
	(void)state;
	for (int fails = 0; fails < 2; fails++)
		for (int taken = 0; taken < 2; taken++) {
			bring_to(BH_WAIT);
			fake.engine.config.withdrawn_fails = fails;
			fake.list[1].then = BH_FOUND_END; /* the guest took the rest out of its list */
			assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
			assert_int_equal(fake.cancels, 1);
			bh_destination_complete(dest, BH_CANCELLED, taken ? 256 : 128);
			state_is(fails && taken ? BH_FAILURE : BH_DATA);
			assert_int_equal(fake.engine.counters.ahead_bytes, taken && !fails ? 128 : 0);
			fake_finish(&fake);
		}
	fake_init(&fake, false, 1);
}

/* A driver that frees descriptors and gets the same ones for its next request. */
static void same_addresses_for_another_request_is_withdrawn(void **state)
{
	(void)state;
	bring_to(BH_DATA);
	bh_engine_pass_done(&fake.engine); /* the pass in which it was issued */
	bh_engine_pass_done(&fake.engine); /* one in which its queue was not linked */
	memset(fake.list[0].data, 0x55, 64);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	state_is(BH_WAIT);
	assert_int_equal(fake.engine.counters.ahead_bytes, 256);
	assert_int_equal(fake.fails, 0);
}

static void changed_in_place_after_completion_is_failure(void **state)
{
	(void)state;
	bring_to(BH_DATA);
	fake_offer(&fake);
	fake.list[1].data[9] ^= 1;
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	state_is(BH_FAILURE);
	retired(1, BH_NO_RESPONSE, 0);
}

/* A guest on another processor: each time a packet was copied, it is another one. Not for ever, should we go round. */
static bool read_and_change(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, void *to,
                            uint32_t length)
{
	bool there = fake_read(s, d, offset, to, length);

	if (fake_of(s)->reads < 100)
		fake_find(fake_of(s), d->id)->data[0]++;
	return there;
}

static void one_offer_issues_once_whatever_changes_meanwhile(void **state)
{
	static const enum bh_status refusals[] = {BH_STALL, BH_NO_RESPONSE, BH_CANCELLED};
	struct bh_source_ops ops = fake_source_ops;

	(void)state;
	ops.read = read_and_change;
	for (size_t i = 0; i < BH_COUNT(refusals); i++) {
		fake_init(&fake, false, 1);
		fake.source.ops = &ops;
		fake.complete_at_once = true;
		fake.at_once_status = refusals[i];
		for (unsigned offers = 1; offers <= 3; offers++) {
			assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
			assert_int_equal(fake.starts, offers);
			state_is(BH_IDLE);
		}
		assert_int_equal(fake.engine.counters.batches, 3);
		fake.reads = 100; /* now it holds still */
		assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
		retired(0, refusals[i] == BH_CANCELLED ? BH_NO_RESPONSE : refusals[i], 0);
		fake_finish(&fake);
	}
	fake_init(&fake, false, 1);
}

static bool read_nothing(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, void *to, uint32_t length)
{
	(void)s;
	(void)d;
	(void)offset;
	(void)to;
	(void)length;
	return false;
}

/* The rest of a packet is of that packet: after a SCAN that failed there may be another one at the same address. */
static void part_is_not_left_out_of_what_came_after_a_scan_that_failed(void **state)
{
	struct bh_source_ops ops = fake_source_ops;

	(void)state;
	ops.read = read_nothing;
	bring_to(BH_WAIT);
	bh_destination_withdraw(dest);
	bh_destination_complete(dest, BH_CANCELLED, 100);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	fake.source.ops = &ops;
	assert_int_equal(fake_offer(&fake), BH_ANSWER_FAULT);
	state_is(BH_IDLE);
	assert_int_equal(fake.engine.counters.ahead_bytes, 0);

	fake.source.ops = &fake_source_ops;
	memset(fake.list[1].data, 0x5a, 64);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(dest->batch.skip, 0);
	assert_int_equal(dest->batch.length, 192);
	assert_memory_equal(dest->batch.data, fake.list[1].data, 64);
	bh_destination_complete(dest, BH_SUCCESS, 192);
	assert_int_equal(replay(), 3);
	retired(1, BH_SUCCESS, 64);
	assert_int_equal(fake.engine.counters.ahead_bytes, 36);
	assert_int_equal(fake.fails, 0);
}

/* An OUT of full packets, if any, and an empty one, in WAIT. */
static void empty_packet_waits(unsigned full)
{
	fake_init(&fake, false, full + 1);
	fake.list[full].d.length = 0;
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(dest->batch.length, 64 * full);
}

static void empty_packet_changed_after_completion_is_failure(void **state)
{
	(void)state;
	for (unsigned full = 0; full < 3; full++) {
		empty_packet_waits(full);
		bh_destination_complete(dest, BH_SUCCESS, 64 * full);
		for (unsigned i = 0; i < full; i++)
			assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
		state_is(BH_DATA);
		fake.list[full].d.token ^= 0x80000;
		assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
		state_is(BH_FAILURE);
		retired(full, BH_NO_RESPONSE, 0);
		assert_int_equal(fake.starts, 1);
		fake_finish(&fake);
	}
	fake_init(&fake, false, 1);
}

static void empty_packet_changed_while_it_was_sent_is_failure_if_taken(void **state)
{
	(void)state;
	for (unsigned full = 0; full < 3; full++)
		for (int taken = 0; taken < 2; taken++) {
			empty_packet_waits(full);
			fake.list[full].d.token ^= 0x80000;
			assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
			assert_int_equal(fake.cancels, 1);
			bh_destination_complete(dest, taken ? BH_SUCCESS : BH_CANCELLED, 64 * full);
			state_is(taken ? BH_FAILURE : full ? BH_DATA : BH_IDLE);
			if (!taken) {
				assert_int_equal(replay(), full);
				assert_int_equal(fake.starts, 2); /* as it is now */
				state_is(BH_WAIT);
			}
			assert_int_equal(fake.fails, taken);
			fake_finish(&fake);
		}
	fake_init(&fake, false, 1);
}

static void empty_packet_changed_after_the_guest_let_go_is_sent_anew(void **state)
{
	(void)state;
	empty_packet_waits(0);
	bh_destination_complete(dest, BH_SUCCESS, 0);
	bh_engine_pass_done(&fake.engine); /* the pass in which it was issued */
	bh_engine_pass_done(&fake.engine); /* one in which its queue was not linked */
	fake.list[0].d.token ^= 0x80000;
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(fake.starts, 2);
	assert_int_equal(fake.fails, 0);
}

static void withdrawn_in_keeps_what_was_fetched(void **state)
{
	(void)state;
	fake_init(&fake, true, 4);
	fake_offer(&fake);
	memset(dest->batch.data, 0x77, 128);
	fake.head = 2; /* another head */
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(fake.cancels, 1);
	bh_destination_complete(dest, BH_CANCELLED, 128);
	assert_int_equal(fake.engine.counters.kept_bytes, 128);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED); /* drawn by whatever IN comes */
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	retired(2, BH_SUCCESS, 64);
	retired(3, BH_SUCCESS, 64);
	assert_int_equal(fake.list[3].data[63], 0x77);
	state_is(BH_IDLE);
}

/* By another head first, and then by nobody's asking for it. */
static void withdrawn_in_is_counted_once(void **state)
{
	(void)state;
	fake_init(&fake, true, 4);
	fake_offer(&fake);
	fake.head = 2;
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	bh_destination_complete(dest, BH_CANCELLED, 128);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	bh_engine_frame(&fake.engine, 1000);
	bh_engine_frame(&fake.engine, 2000);
	state_is(BH_DATA);
	assert_int_equal(fake.engine.counters.kept_bytes, 128);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	state_is(BH_IDLE);

	fake.list[0].active = fake.list[1].active = true; /* the next one may be withdrawn as well */
	fake.head = 0;
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	bh_destination_complete(dest, BH_SUCCESS, 128);
	bh_engine_frame(&fake.engine, 3000);
	assert_int_equal(fake.engine.counters.kept_bytes, 256);
}

static void kept_in_is_dropped_by_reset(void **state)
{
	(void)state;
	in_completes(2, BH_SUCCESS, 128);
	bh_destination_reset(dest);
	state_is(BH_IDLE);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(fake.starts, 2);
}

static void another_queue_waits_its_turn(void **state)
{
	struct bh_descriptor other;

	(void)state;
	bring_to(BH_WAIT);
	other = fake.list[0].d;
	other.id = 0x9000;
	other.chain = 0x200;
	assert_int_equal(bh_destination_offer(dest, &other), BH_ANSWER_BUSY);
	assert_int_equal(fake.cancels, 0);
	bh_destination_complete(dest, BH_SUCCESS, 256);
	assert_int_equal(bh_destination_offer(dest, &other), BH_ANSWER_BUSY);
	state_is(BH_DATA);
	assert_int_equal(replay(), 4);
}

/* --- what cannot be read ------------------------------------------------------------------------- */

/* A bus error, or a memory map on the move: which of the two, and when it ends, is not the engine's to say. */
static void unreadable_for_a_moment(unsigned which, bool the_list, bool away)
{
	if (the_list)
		fake.list[which - 1].then = away ? BH_FOUND_UNREADABLE : BH_FOUND;
	else
		fake.list[which].broken = away;
}

static void waiting_out_that_cannot_be_read_was_not_changed(void **state)
{
	static const enum bh_verify modes[] = {BH_VERIFY_EXACT, BH_VERIFY_CHECKSUM, BH_VERIFY_TD, BH_VERIFY_BUFFER,
	                                       BH_VERIFY_TRACE};
	const unsigned count = 12;

	(void)state;
	for (size_t m = 0; m < BH_COUNT(modes); m++)
		for (int when = 0; when < BH_VERIFY_WHEN_COUNT; when++)
			for (unsigned which = 0; which < 2 * count - 1; which++) {
				bool the_list = which >= count;
				unsigned at = the_list ? which - count + 1 : which;

				verify_as(modes[m], (enum bh_verify_when)when, count);
				fake_written(&fake, at); /* so that a trace does not spare it a look */
				unreadable_for_a_moment(at, the_list, true);
				for (int retry = 0; retry < 4; retry++)
					assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
				assert_int_equal(fake.cancels, 0);
				assert_int_equal(fake.engine.counters.mismatches, 0);
				unreadable_for_a_moment(at, the_list, false);
				bh_destination_complete(dest, BH_SUCCESS, 64 * count);
				assert_int_equal(replay(), count);
				assert_int_equal(fake.starts, 1);
				fake_finish(&fake);
			}
	fake_init(&fake, false, 1);
}

/* And what was changed behind it is found all the same. */
static void change_is_found_beside_what_cannot_be_read(void **state)
{
	(void)state;
	verify_as(BH_VERIFY_EXACT, BH_VERIFY_RETRY, 4);
	fake.list[0].broken = fake.list[1].broken = true;
	fake.list[2].data[5] ^= 1;
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(fake.cancels, 1);
	assert_int_equal(dest->changed.record, 2);
}

static void taken_out_that_cannot_be_read_at_its_turn_is_a_fault(void **state)
{
	static const enum bh_verify modes[] = {BH_VERIFY_EXACT, BH_VERIFY_CHECKSUM};

	(void)state;
	for (size_t m = 0; m < BH_COUNT(modes); m++)
		for (unsigned which = 0; which < 4; which++) {
			verify_as(modes[m], BH_VERIFY_BOUNDED, 4);
			bh_destination_complete(dest, BH_SUCCESS, 256);
			fake.list[which].broken = true;
			assert_int_equal(replay(), which);
			for (int again = 0; again < 3; again++)
				assert_int_equal(fake_offer(&fake), BH_ANSWER_FAULT);
			state_is(BH_DATA);
			assert_int_equal(fake.fails, 0);
			fake.list[which].broken = false;
			assert_int_equal(replay(), 4 - which);
			retired(3, BH_SUCCESS, 64);
			assert_int_equal(fake.starts, 1); /* no byte went out twice */
			assert_int_equal(fake.engine.counters.mismatches, 0);
			assert_int_equal(fake.engine.counters.ahead_bytes, 0);
			fake_finish(&fake);
		}
	fake_init(&fake, false, 1);
}

/* Another packet is another packet, readable or not. */
static void other_descriptor_that_cannot_be_read_is_a_change(void **state)
{
	(void)state;
	bring_to(BH_WAIT);
	fake.list[0].broken = true;
	fake.list[0].d.token ^= 0x80000;
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(fake.cancels, 1);
}

/* --- liveness --------------------------------------------------------------------------------- */

static void lingering_batch_is_broken_up(void **state)
{
	(void)state;
	fake_init(&fake, true, 4);
	fake_offer(&fake);
	assert_int_equal(bh_engine_deadline(&fake.engine), fake.engine.config.linger_us);
	bh_engine_tick(&fake.engine, fake.engine.config.linger_us - 1);
	assert_int_equal(fake.cancels, 0);
	bh_engine_tick(&fake.engine, fake.engine.config.linger_us);
	assert_int_equal(fake.cancels, 1);
	bh_destination_complete(dest, BH_CANCELLED, 0);
	fake_offer(&fake);
	assert_int_equal(dest->batch.count, 1); /* one packet rests there, for ever if need be */
	assert_true(bh_engine_deadline(&fake.engine) == UINT64_MAX);
	bh_destination_complete(dest, BH_SUCCESS, 64);
	fake_offer(&fake);
	fake_offer(&fake);
	assert_int_equal(dest->batch.count, 3); /* it moves: batches again */
}

static void lingering_batch_hands_out_its_part(void **state)
{
	(void)state;
	fake_init(&fake, true, 4);
	fake_offer(&fake);
	fake.cancel_at_once = true;
	fake.cancel_actual = 64;
	bh_engine_tick(&fake.engine, 1000000);
	assert_int_equal(fake.cancels, 1);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_RETIRED);
	retired(0, BH_SUCCESS, 64);
	assert_int_equal(fake_offer(&fake), BH_ANSWER_BUSY);
	assert_int_equal(dest->batch.count, 3);
}

static void progress_and_devices_that_finish_do_not_linger(void **state)
{
	(void)state;
	fake_init(&fake, true, 4);
	fake_offer(&fake);
	bh_engine_tick(&fake.engine, fake.engine.config.linger_us - 1);
	bh_destination_progress(dest);
	bh_engine_tick(&fake.engine, fake.engine.config.linger_us);
	assert_int_equal(fake.cancels, 0);
	dest->finishes = true;
	bh_engine_tick(&fake.engine, 10 * fake.engine.config.linger_us);
	assert_int_equal(fake.cancels, 0);
	assert_true(bh_engine_deadline(&fake.engine) == UINT64_MAX);
}

static void single_destination_takes_one_packet(void **state)
{
	(void)state;
	fake_init(&fake, true, 4);
	dest->single = true;
	fake_offer(&fake);
	assert_int_equal(dest->batch.count, 1);
	bh_engine_frame(&fake.engine, 1000); /* a periodic queue may be visited once in 1024 frames */
	assert_int_equal(fake.cancels, 0);
	bh_engine_frame(&fake.engine, 1056);
	assert_int_equal(fake.cancels, 1);
}

#define T(test) cmocka_unit_test_teardown(test, finish)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		T(figure_5_edge),
		T(figure_5_answers),
		T(figure_5_has_no_other_edges),
		T(reset_while_waiting_starts_nothing_until_completion),
		T(completion_inside_issue_answers_at_once),
		T(scan_end_of_every_kind),
		T(scan_ends_with_several_causes),
		T(every_end_of_scan_has_a_name),
		T(scan_does_not_end_at_stop_on_short),
		T(scan_stops_before_data_that_cannot_be_read),
		T(hash_key_is_drawn_where_none_is_given),
		T(scan_copies_data_in_order),
		T(many_descriptors_do_not_repeat_and_memory_is_counted),
		T(memory_is_bounded_for_each_endpoint_and_for_all),
		T(memory_there_is_is_used),
		T(memory_is_bounded_whatever_happens),
		T(packet_at_a_time),
		T(packet_larger_than_the_endpoint_is_not_answered),
		T(out_failure_is_charged_to_the_packet_it_hit),
		T(out_failure_uses_the_records_lengths),
		T(out_zero_length_packet),
		T(out_cannot_succeed_in_part),
		T(in_data_is_handed_out_in_packets),
		T(in_short_packet_ends_the_outcome),
		T(in_zero_length_packet_is_not_lost),
		T(in_failure_comes_after_the_data),
		T(in_packet_larger_than_the_room_is_babble),
		T(retire_refused_loses_nothing),
		T(changed_byte_cancels_and_sends_anew),
		T(every_change_is_noticed_within_bounded_retries),
		T(what_drivers_may_change_is_no_change),
		T(a_retry_costs_what_was_chosen),
		T(bounded_retries_come_round_to_every_record),
		T(retry_of_all_finds_any_change_at_once),
		T(in_is_looked_at_by_nobody),
		T(traced_data_that_was_not_written_is_not_read),
		T(traced_write_is_noticed),
		T(false_alarm_of_a_trace_is_no_change),
		T(write_before_the_copy_is_no_alarm),
		T(traces_do_not_replace_a_look_at_the_descriptor),
		T(data_that_cannot_be_traced_is_compared),
		T(traces_are_there_only_if_the_source_says_so),
		T(checksums_depend_on_the_key),
		T(change_behind_what_was_taken_is_sent_as_it_is_now),
		T(change_of_what_was_taken_is_failure),
		T(unlinked_and_linked_again_unchanged_is_nothing),
		T(not_offered_for_32_frames_is_withdrawn),
		T(rest_of_a_packet_partly_taken),
		T(part_of_a_packet_waits_for_the_rest),
		T(part_of_a_packet_is_of_that_packet),
		T(part_of_a_packet_is_forgotten_by_reset),
		T(withdrawn_out_is_counted_not_failed),
		T(withdrawn_out_can_be_made_to_fail),
		T(out_taken_back_while_it_was_sent_can_be_made_to_fail),
		T(same_addresses_for_another_request_is_withdrawn),
		T(changed_in_place_after_completion_is_failure),
		T(one_offer_issues_once_whatever_changes_meanwhile),
		T(part_is_not_left_out_of_what_came_after_a_scan_that_failed),
		T(empty_packet_changed_after_completion_is_failure),
		T(empty_packet_changed_while_it_was_sent_is_failure_if_taken),
		T(empty_packet_changed_after_the_guest_let_go_is_sent_anew),
		T(withdrawn_in_keeps_what_was_fetched),
		T(withdrawn_in_is_counted_once),
		T(kept_in_is_dropped_by_reset),
		T(another_queue_waits_its_turn),
		T(waiting_out_that_cannot_be_read_was_not_changed),
		T(change_is_found_beside_what_cannot_be_read),
		T(taken_out_that_cannot_be_read_at_its_turn_is_a_fault),
		T(other_descriptor_that_cannot_be_read_is_a_change),
		T(lingering_batch_is_broken_up),
		T(lingering_batch_hands_out_its_part),
		T(progress_and_devices_that_finish_do_not_linger),
		T(single_destination_takes_one_packet),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
