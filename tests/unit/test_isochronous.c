/* Isochronous streams of the engine: frames, batches, time. No USB, no controller. */
#include "fake_frames.h"

static struct bh_engine_config config;
static const struct bh_engine_counters *const counters = &f.engine.counters;

static int setup(void **state)
{
	(void)state;
	config = BH_ENGINE_DEFAULTS;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_frames_finish();
	return 0;
}

static void begin(bool in, enum fake_way way, unsigned delay)
{
	fake_frames_init(in, &config);
	f.way = way;
	f.delay = delay;
}

static void assert_ended(uint64_t frame, enum bh_status status, uint32_t actual)
{
	const struct fake_slot *slot = fake_slot(frame, 0);

	if (slot->retired != 1 || slot->status != status || slot->actual != actual)
		fail_msg("frame +%u: retired %u times, %s, %u bytes", (unsigned)(frame - FIRST), slot->retired,
		         bh_status_name(slot->status), slot->actual);
}

/* OUT: each was told sent, and was, once. */
static void assert_all_sent(unsigned count, unsigned interval)
{
	for (unsigned i = 0; i < count; i++) {
		assert_ended(FIRST + i * interval, BH_SUCCESS, 8);
		assert_int_equal(f.words[i], (uint8_t)(i + 1));
	}
	assert_int_equal(f.heard, count);
}

/* IN: the frame's descriptor got packet number n (from 1 on). */
static void assert_got(uint64_t frame, unsigned n)
{
	assert_ended(frame, BH_SUCCESS, 8);
	assert_int_equal(fake_slot(frame, 0)->data[0], (uint8_t)n);
}

static void assert_timed_out(uint64_t frame)
{
	assert_ended(frame, BH_NO_RESPONSE, 0);
}

static void assert_missed(uint64_t frame)
{
	assert_int_equal(fake_slot(frame, 0)->retired, 0);
	assert_true(fake_slot(frame, 0)->active);
	assert_true(fake_slot(frame, 0)->missed > 0);
}

/* --- gathering ----------------------------------------------------------------------------- */

static void frames_ahead_travel_together(void **state)
{
	(void)state;
	begin(false, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 100, 1);
	one_frame();
	assert_int_equal(f.starts, 3); /* more than half of the way ahead */
	frames_until(FIRST + 15);
	assert_int_equal(f.starts, 3);
	one_frame();
	assert_int_equal(f.starts, 4); /* refilled */
	frames_until(FIRST + 100);
	assert_all_sent(100, 1);
	assert_int_equal(f.starts, 7);
	for (unsigned i = 0; i < 7; i++)
		assert_int_equal(f.sizes[i], i < 6 ? 16 : 4);
	assert_int_equal(counters->batches, 7);
	assert_int_equal(counters->packets_out, 100);
	assert_int_equal(counters->bytes_out, 800);
	assert_int_equal(counters->isochronous_missed + counters->isochronous_dropped + counters->ahead_bytes, 0);
}

static void look_ahead_keeps_to_its_limit(void **state)
{
	(void)state;
	config.isochronous_frames = 10;
	begin(false, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 40, 1);
	one_frame();
	assert_int_equal(f.heard, 11);
	frames_until(FIRST + 5);
	assert_int_equal(f.heard, 11);
	one_frame();
	assert_int_equal(f.heard, 16);
	frames_until(FIRST + 40);
	assert_all_sent(40, 1);
}

static void packet_at_a_time_looks_nowhere(void **state)
{
	(void)state;
	config.max_batch_descriptors = 1;
	begin(false, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 20, 1);
	frames_until(FIRST + 20);
	assert_all_sent(20, 1);
	assert_int_equal(f.starts, 20);
	assert_int_equal(f.nexts, 0);
}

static void no_frames_ahead_is_packet_at_a_time(void **state)
{
	(void)state;
	config.isochronous_frames = 0;
	begin(true, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 20, 1);
	frames_until(FIRST + 20);
	assert_int_equal(f.starts, 20);
	for (unsigned i = 0; i < 20; i++)
		assert_got(FIRST + i, i + 1);
}

static void limits_of_a_batch_are_kept(void **state)
{
	static const struct {
		uint32_t descriptors, bytes, size;
	} limits[] = {{4, 1 << 20, 4}, {4096, 3 * PACKET + 10, 3}, {4096, 10, 1}, {5, 6 * PACKET, 5}};

	(void)state;
	for (unsigned i = 0; i < BH_COUNT(limits); i++) {
		config.max_batch_descriptors = limits[i].descriptors;
		config.max_batch_bytes = limits[i].bytes;
		begin(false, AT_ONCE, 0);
		queue_all(FIRST, FIRST + 60, 1);
		frames_until(FIRST + 60);
		assert_all_sent(60, 1);
		for (unsigned j = 0; j < f.starts; j++)
			assert_int_equal(f.sizes[j], limits[i].size);
		if (i + 1 < BH_COUNT(limits))
			fake_frames_finish();
	}
}

/* A carrier that ends nothing: eight batches, 128 packets, and no more. */
static void batches_and_window_are_limited(void **state)
{
	(void)state;
	config.isochronous_frames = 512;
	begin(false, BY_HAND, 0);
	queue_all(FIRST, FIRST + 300, 1);
	one_frame();
	assert_int_equal(f.starts, BH_ISOCHRONOUS_BATCHES);
	frames_until(FIRST + 130);
	assert_int_equal(f.starts, BH_ISOCHRONOUS_BATCHES);
	for (unsigned i = 0; i < 130; i++)
		if (i < BH_ISOCHRONOUS_WINDOW)
			assert_ended(FIRST + i, BH_SUCCESS, 8);
		else
			assert_missed(FIRST + i);
	fake_end(0, UINT32_MAX);
	one_frame();
	assert_ended(FIRST + 130, BH_SUCCESS, 8);
	assert_int_equal(f.sizes[8], 16);
	assert_int_equal(counters->isochronous_missed, 2);
}

/* One transfer hangs, the others end: nothing is written where its packets lie. */
static void batch_that_hangs_keeps_its_memory(void **state)
{
	(void)state;
	begin(false, BY_HAND, 0);
	queue_all(FIRST, FIRST + 200, 1);
	while (f.frame < FIRST + 200) {
		one_frame();
		while (f.held_count > 1)
			fake_end(1, UINT32_MAX);
	}
	assert_ended(FIRST + 127, BH_SUCCESS, 8);
	assert_missed(FIRST + 128);
	f.heard = 0;
	fake_end(0, UINT32_MAX);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(f.words[i], i + 1);
}

/* Batches that end where the window does, and go round it many times. */
static void window_goes_round(void **state)
{
	(void)state;
	for (unsigned size = 3; size < 8; size += 2) {
		config.max_batch_descriptors = size;
		begin(true, LATER, 4);
		queue_all(FIRST, FIRST + 1000, 1);
		frames_until(FIRST + 1000);
		assert_true(f.sent > 900);
		for (unsigned i = 100; i < 1000; i++)
			assert_got(FIRST + i, i + 1 - f.stream.lag);
		assert_int_equal(counters->isochronous_dropped, 0);
		if (size < 7)
			fake_frames_finish();
	}
}

static void lists_that_cross_are_gathered_once(void **state)
{
	(void)state;
	begin(false, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 10, 1);
	for (unsigned i = 10; i < 20; i++)
		queue_at(FIRST + i, 0, 8, 99)->d.id = fake_slot(FIRST + 5, 0)->d.id;
	one_frame();
	assert_int_equal(f.heard, 10);
	frames_until(FIRST + 20);
	assert_all_sent(10, 1);
}

static void two_in_a_frame_go_in_their_order(void **state)
{
	(void)state;
	begin(false, AT_ONCE, 0);
	for (unsigned i = 0; i < 20; i++)
		for (unsigned n = 0; n < 2; n++)
			queue_at(FIRST + i, n, 8, (uint8_t)(2 * i + n + 1));
	frames_until(FIRST + 20);
	assert_int_equal(f.heard, 40);
	for (unsigned i = 0; i < 40; i++) {
		assert_int_equal(f.words[i], i + 1);
		assert_int_equal(fake_slot(FIRST + i / 2, i % 2)->retired, 1);
	}
	assert_int_equal(counters->isochronous_missed + counters->mismatches, 0);
}

static void two_ins_in_a_frame_are_two_packets(void **state)
{
	(void)state;
	begin(true, LATER, 2);
	for (unsigned i = 0; i < 40; i++)
		for (unsigned n = 0; n < 2; n++)
			queue_at(FIRST + i, n, PACKET, 0);
	frames_until(FIRST + 40);
	for (unsigned i = 3; i < 40; i++)
		for (unsigned n = 0; n < 2; n++)
			assert_int_equal(fake_slot(FIRST + i, n)->data[0], 2 * (i - 3) + n + 1);
}

static void memory_that_is_short_serves_packets(void **state)
{
	(void)state;
	config.max_bytes = 4000;
	begin(false, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 50, 1);
	one_frame();
	assert_in_range(counters->memory, 1, 4000);
	frames_until(FIRST + 50);
	assert_all_sent(50, 1);
	for (unsigned i = 0; i < f.starts; i++)
		assert_int_equal(f.sizes[i], 1);
}

/* --- OUT -------------------------------------------------------------------------------------- */

static void out_is_told_sent_before_it_ended(void **state)
{
	(void)state;
	begin(false, BY_HAND, 0);
	queue_all(FIRST, FIRST + 20, 1);
	frames_until(FIRST + 3);
	for (unsigned i = 0; i < 3; i++)
		assert_ended(FIRST + i, BH_SUCCESS, 8);
	assert_int_equal(f.heard, 0);
}

static void out_hears_what_became_of_it_once_that_is_known(void **state)
{
	(void)state;
	begin(false, BY_HAND, 0);
	queue_all(FIRST, FIRST + 16, 1);
	frames_until(FIRST + 3);
	f.held[0].batch->packets[7].status = BH_STALL; /* not its to say */
	fake_end(0, 7);
	frames_until(FIRST + 16);
	for (unsigned i = 0; i < 16; i++)
		if (i < 7)
			assert_ended(FIRST + i, BH_SUCCESS, 8);
		else
			assert_timed_out(FIRST + i);
	assert_int_equal(counters->failed_packets, 9);
}

static void out_without_bytes_is_a_packet(void **state)
{
	(void)state;
	begin(false, AT_ONCE, 0);
	queue_at(FIRST, 0, 0, 0);
	queue_at(FIRST + 1, 0, 8, 1);
	queue_at(FIRST + 2, 0, 0, 0);
	frames_until(FIRST + 3);
	assert_ended(FIRST, BH_SUCCESS, 0);
	assert_ended(FIRST + 1, BH_SUCCESS, 8);
	assert_ended(FIRST + 2, BH_SUCCESS, 0);
	assert_int_equal(f.heard, 3);
	assert_int_equal(counters->mismatches, 0);
}

static void out_that_is_too_long_is_heard_by_nobody(void **state)
{
	(void)state;
	begin(false, AT_ONCE, 0);
	queue_at(FIRST, 0, 8, 1);
	queue_at(FIRST + 1, 0, PACKET + 1, 2);
	queue_at(FIRST + 2, 0, 8, 3);
	frames_until(FIRST + 3);
	assert_ended(FIRST + 1, BH_SUCCESS, PACKET + 1);
	assert_ended(FIRST + 2, BH_SUCCESS, 8);
	assert_int_equal(f.heard, 2);
	assert_int_equal(f.words[1], 3);
}

static void out_that_cannot_be_read_is_a_fault_in_its_frame(void **state)
{
	(void)state;
	begin(false, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 6, 1);
	fake_slot(FIRST + 3, 0)->broken = true;
	frames_until(FIRST + 3);
	assert_int_equal(f.heard, 3);
	assert_int_equal(fake_offer(FIRST + 3, 0, BH_MOMENT_NOW), BH_ANSWER_FAULT);
	fake_slot(FIRST + 3, 0)->broken = false;
	frames_until(FIRST + 6);
	assert_all_sent(6, 1);
}

/* What follows it is on its way: what it says now would overtake that. */
static void changed_out_does_not_overtake(void **state)
{
	(void)state;
	begin(false, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 20, 1);
	one_frame();
	fake_slot(FIRST + 5, 0)->data[7] ^= 1;
	frames_until(FIRST + 20);
	assert_missed(FIRST + 5);
	assert_int_equal(f.heard, 20);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(f.words[i], i + 1);
		if (i != 5)
			assert_ended(FIRST + i, BH_SUCCESS, 8);
	}
	assert_int_equal(counters->mismatches, 1);
	assert_int_equal(counters->ahead_bytes, 8);
	assert_int_equal(counters->isochronous_dropped, 1);
	assert_int_equal(counters->isochronous_missed, 1);
}

static void changed_length_is_a_change(void **state)
{
	(void)state;
	begin(false, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 8, 1);
	one_frame();
	fake_slot(FIRST + 5, 0)->d.length = 7;
	frames_until(FIRST + 8);
	assert_missed(FIRST + 5);
	assert_int_equal(counters->ahead_bytes, 8);
}

static void changed_out_with_nothing_behind_it_is_sent(void **state)
{
	(void)state;
	begin(false, AT_ONCE, 0);
	queue_at(FIRST, 0, 8, 1);
	queue_at(FIRST + 3, 0, 8, 2);
	one_frame();
	assert_int_equal(f.heard, 2);
	fake_slot(FIRST + 3, 0)->data[0] = 9;
	frames_until(FIRST + 4);
	assert_ended(FIRST + 3, BH_SUCCESS, 8);
	assert_int_equal(f.heard, 3);
	assert_int_equal(f.words[2], 9);
	assert_int_equal(counters->ahead_bytes, 8);
}

static void same_bytes_from_elsewhere_are_no_change(void **state)
{
	(void)state;
	begin(false, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 8, 1);
	one_frame();
	fake_slot(FIRST + 5, 0)->linked = false;
	queue_at(FIRST + 5, 1, 8, 6);
	frames_until(FIRST + 8);
	assert_int_equal(fake_slot(FIRST + 5, 1)->status, BH_SUCCESS);
	assert_int_equal(fake_slot(FIRST + 5, 1)->retired, 1);
	assert_int_equal(counters->mismatches + counters->isochronous_dropped, 0);
}

static void withdrawn_out_is_counted(void **state)
{
	(void)state;
	begin(false, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 20, 1);
	one_frame();
	for (unsigned i = 5; i < 10; i++)
		fake_slot(FIRST + i, 0)->linked = false;
	frames_until(FIRST + 20);
	assert_int_equal(f.heard, 20);
	assert_int_equal(counters->ahead_bytes, 5 * 8);
	assert_int_equal(counters->isochronous_dropped, 5);
	assert_int_equal(counters->isochronous_missed, 0);
	assert_ended(FIRST + 19, BH_SUCCESS, 8);
}

/* A driver that takes all of it back and begins again at once. */
static void relinked_out_is_sent(void **state)
{
	(void)state;
	begin(false, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 40, 1);
	frames_until(FIRST + 4);
	for (unsigned i = 4; i < 40; i++) {
		fake_slot(FIRST + i, 0)->linked = false;
		if (i > 6)
			queue_at(FIRST + i, 1, 8, (uint8_t)(100 + i));
	}
	frames_until(FIRST + 40);
	for (unsigned i = 7; i < 40; i++) {
		assert_int_equal(fake_slot(FIRST + i, 1)->retired, 1);
		assert_int_equal(f.words[40 + i - 7], 100 + i);
	}
	assert_int_equal(counters->isochronous_missed, 0);
	assert_int_equal(counters->ahead_bytes, 36 * 8);
}

/* The same where the host has not come to it: it is spared the batches of which nothing was told. */
static void relinked_out_cancels_what_nobody_was_told(void **state)
{
	(void)state;
	begin(false, BY_HAND, 0);
	queue_all(FIRST, FIRST + 40, 1);
	frames_until(FIRST + 4);
	assert_int_equal(f.starts, 3);
	for (unsigned i = 4; i < 40; i++) {
		fake_slot(FIRST + i, 0)->linked = false;
		queue_at(FIRST + i, 1, 8, (uint8_t)(100 + i));
	}
	one_frame();
	assert_int_equal(f.cancels, 2); /* of the first, four packets were told */
	assert_int_equal(counters->cancels[BH_CANCEL_CHANGED], 2);
	fake_end(0, UINT32_MAX);
	assert_int_equal(counters->ahead_bytes, 12 * 8);
	fake_end(0, 2); /* too late to stop these */
	fake_end(0, 0);
	assert_int_equal(counters->ahead_bytes, 14 * 8);
	assert_int_equal(fake_slot(FIRST + 4, 1)->retired, 1);
	while (f.held_count)
		fake_end(0, UINT32_MAX);
	frames_until(FIRST + 40);
	assert_int_equal(counters->isochronous_missed, 0);
	assert_int_equal(f.words[18], 104);
}

static void inserted_out_does_not_overtake(void **state)
{
	(void)state;
	begin(false, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 40, 2);
	one_frame();
	queue_at(FIRST + 5, 0, 8, 99);
	frames_until(FIRST + 40);
	assert_missed(FIRST + 5);
	for (unsigned i = 0; i < f.heard; i++)
		assert_int_equal(f.words[i], i + 1);
	assert_int_equal(f.heard, 20);
	assert_int_equal(counters->ahead_bytes, 0);
}

static void retired_or_not_a_packet_is_used_up(void **state)
{
	(void)state;
	begin(false, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 4, 1);
	one_frame();
	f.refuse_retire = true;
	assert_int_equal(fake_offer(FIRST + 1, 0, BH_MOMENT_NOW), BH_ANSWER_CHANGED);
	f.refuse_retire = false;
	fake_slot(FIRST + 1, 0)->linked = false;
	frames_until(FIRST + 4);
	assert_ended(FIRST + 2, BH_SUCCESS, 8);
	assert_int_equal(counters->packets_out, 3);
}

/* --- IN, from a device that answers at once ---------------------------------------------------- */

static void in_is_delivered_in_its_frame(void **state)
{
	(void)state;
	begin(true, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 100, 1);
	frames_until(FIRST + 100);
	for (unsigned i = 0; i < 100; i++)
		assert_got(FIRST + i, i + 1);
	assert_int_equal(f.starts, 7);
	assert_int_equal(counters->packets_in, 100);
	assert_int_equal(counters->bytes_in, 800);
	assert_int_equal(counters->busy + counters->isochronous_missed + counters->isochronous_dropped, 0);
	assert_int_equal(f.ready, 0); /* inside start nobody has to be told */
}

static void in_packets_have_outcomes_of_their_own(void **state)
{
	(void)state;
	begin(true, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 10, 1);
	f.lengths[1] = 1 + 0;
	f.lengths[2] = 1 + PACKET;
	f.outcomes[3] = BH_BUS_ERROR;
	f.outcomes[4] = BH_BABBLE;
	f.outcomes[5] = BH_NO_RESPONSE;
	f.lengths[5] = 1;
	f.outcomes[6] = BH_STALL;
	f.outcomes[7] = BH_CANCELLED;
	f.lengths[8] = 1 + PACKET + 100; /* a device that exaggerates */
	frames_until(FIRST + 10);
	assert_ended(FIRST, BH_SUCCESS, 8);
	assert_ended(FIRST + 1, BH_SUCCESS, 0);
	assert_ended(FIRST + 2, BH_SUCCESS, PACKET);
	assert_ended(FIRST + 3, BH_BUS_ERROR, 8);
	assert_ended(FIRST + 4, BH_BABBLE, 8);
	assert_timed_out(FIRST + 5);
	assert_ended(FIRST + 6, BH_NO_RESPONSE, 8);
	assert_ended(FIRST + 7, BH_NO_RESPONSE, 8);
	assert_ended(FIRST + 8, BH_SUCCESS, PACKET);
	assert_got(FIRST + 9, 10);
	assert_int_equal(counters->failed_packets, 5);
}

static void in_without_room_for_it_is_babble(void **state)
{
	(void)state;
	begin(true, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 4, 1);
	fake_slot(FIRST + 1, 0)->d.length = 7;
	fake_slot(FIRST + 2, 0)->d.length = 8;
	frames_until(FIRST + 4);
	assert_ended(FIRST + 1, BH_BABBLE, 0);
	assert_int_equal(fake_slot(FIRST + 1, 0)->data[0], 2); /* as it was queued */
	assert_got(FIRST + 2, 3);
	assert_got(FIRST + 3, 4);
}

static void in_that_cannot_be_written_is_a_fault(void **state)
{
	(void)state;
	begin(true, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 4, 1);
	fake_slot(FIRST, 0)->broken = true;
	assert_int_equal(fake_offer(FIRST, 0, BH_MOMENT_NOW), BH_ANSWER_FAULT);
	fake_slot(FIRST, 0)->broken = false;
	frames_until(FIRST + 4);
	for (unsigned i = 0; i < 4; i++)
		assert_got(FIRST + i, i + 1); /* it was kept */
}

static void in_that_was_withdrawn_is_dropped(void **state)
{
	(void)state;
	begin(true, AT_ONCE, 0);
	queue_all(FIRST, FIRST + 40, 1);
	frames_until(FIRST + 2);
	for (unsigned i = 5; i < 10; i++)
		fake_slot(FIRST + i, 0)->linked = false;
	frames_until(FIRST + 40);
	assert_got(FIRST + 4, 5);
	assert_got(FIRST + 10, 11);
	assert_int_equal(counters->isochronous_dropped, 5);
	assert_int_equal(counters->isochronous_missed + counters->ahead_bytes, 0);
}

/* One that was not there when those behind it were asked for: they are what there is. */
static void in_that_was_inserted_gets_what_comes_next(void **state)
{
	(void)state;
	begin(true, AT_ONCE, 0);
	queue_at(FIRST, 0, PACKET, 0);
	queue_all(FIRST + 20, FIRST + 40, 1);
	one_frame();
	queue_all(FIRST + 5, FIRST + 20, 1);
	frames_until(FIRST + 40);
	assert_got(FIRST, 1);
	for (unsigned i = 5; i < 40; i++)
		assert_got(FIRST + i, i - 3);
	assert_int_equal(counters->isochronous_missed + counters->isochronous_dropped, 0);
}

/* --- IN, from a host that takes time ------------------------------------------------------------ */

static void lag_settles_with_the_first_answer(void **state)
{
	(void)state;
	for (unsigned delay = 1; delay < 40; delay += 7) {
		begin(true, LATER, delay);
		queue_all(FIRST, FIRST + 200, 1);
		frames_until(FIRST + 200);
		for (unsigned i = 0; i < 200; i++)
			if (i < delay + 1) /* one frame for unevenness */
				assert_timed_out(FIRST + i);
			else
				assert_got(FIRST + i, i - delay);
		assert_int_equal(f.stream.lag, delay + 1);
		assert_int_equal(counters->isochronous_missed, delay + 1);
		assert_int_equal(counters->isochronous_dropped, 0);
		if (delay + 7 < 40)
			fake_frames_finish();
	}
}

/* The slack of one frame is there for this. */
static void one_frame_of_unevenness_is_nothing(void **state)
{
	(void)state;
	begin(true, LATER, 5);
	queue_all(FIRST, FIRST + 400, 1);
	while (f.frame < FIRST + 400) {
		one_frame();
		f.delay = 5 + f.starts % 2;
	}
	assert_int_equal(counters->isochronous_missed, 6);
	assert_int_equal(counters->isochronous_dropped, 0);
}

/* It is told within the frame: no lag, and the descriptor waits. */
static void answer_within_the_frame_has_no_lag(void **state)
{
	(void)state;
	config.max_batch_descriptors = 1;
	begin(true, LATER, 0);
	f.middle = true;
	queue_all(FIRST, FIRST + 20, 1);
	frames_until(FIRST + 20);
	for (unsigned i = 0; i < 20; i++)
		assert_got(FIRST + i, i + 1);
	assert_int_equal(f.ready, 20);
	assert_int_equal(counters->busy, 20);
	assert_int_equal(counters->isochronous_missed, 0);
}

static void intervals_need_not_fit_the_lag(void **state)
{
	static const unsigned intervals[] = {1, 2, 3, 7, 8, 32};

	(void)state;
	for (unsigned k = 0; k < BH_COUNT(intervals); k++) {
		unsigned interval = intervals[k], missed = 0;

		begin(true, LATER, 9);
		queue_all(FIRST, FIRST + 1600, interval);
		frames_until(FIRST + 1600);
		for (unsigned i = 0; i * interval < 1600; i++) {
			const struct fake_slot *slot = fake_slot(FIRST + i * interval, 0);

			if (slot->status == BH_SUCCESS) {
				unsigned late = (i - missed) * interval; /* when its packet was asked for */

				assert_got(FIRST + i * interval, i - missed + 1);
				assert_in_range(i * interval - late, 10, 10 + interval - 1);
			} else {
				assert_int_equal(missed++, i); /* at the beginning only */
			}
		}
		assert_int_equal(missed, (10 + interval - 1) / interval);
		assert_int_equal(counters->isochronous_dropped, 0);
		if (k + 1 < BH_COUNT(intervals))
			fake_frames_finish();
	}
}

static void what_comes_late_is_dropped(void **state)
{
	(void)state;
	config.max_batch_descriptors = 4;
	config.isochronous_frames = 6;
	begin(true, LATER, 6);
	queue_all(FIRST, FIRST + 100, 1);
	frames_until(FIRST + 30);
	assert_int_equal(counters->isochronous_missed, 7);
	f.held[f.held_count - 1].due += 9; /* one of four packets is late once */
	frames_until(FIRST + 100);
	assert_int_equal(counters->isochronous_missed, 7 + 4);
	assert_int_equal(counters->isochronous_dropped, 4);
	for (unsigned i = 7; i < 100; i++)
		if (fake_slot(FIRST + i, 0)->status == BH_SUCCESS)
			assert_got(FIRST + i, i - 6);
}

static void misses_now_and_then_settle_nothing(void **state)
{
	(void)state;
	config.max_batch_descriptors = 4;
	config.isochronous_frames = 6;
	begin(true, LATER, 6);
	queue_all(FIRST, FIRST + 200, 1);
	for (unsigned i = 1; i <= 4; i++) {
		frames_until(FIRST + 30 * i);
		f.held[f.held_count - 1].due += 9;
	}
	frames_until(FIRST + 200);
	assert_int_equal(counters->isochronous_missed, 7 + 4 * 4);
	assert_int_equal(counters->isochronous_dropped, 4 * 4);
	for (unsigned i = 7; i < 200; i++)
		if (fake_slot(FIRST + i, 0)->status == BH_SUCCESS)
			assert_got(FIRST + i, i - 6);
}

static void misses_in_a_row_settle_the_lag_anew(void **state)
{
	(void)state;
	begin(true, LATER, 3);
	queue_all(FIRST, FIRST + 400, 1);
	frames_until(FIRST + 100);
	assert_int_equal(f.stream.lag, 4);
	assert_int_equal(counters->isochronous_missed, 4);
	f.delay = 60; /* it was gathered 33 to 48 frames ahead */
	frames_until(FIRST + 250);
	assert_in_range(f.stream.lag, 10, 61);
	assert_in_range(counters->isochronous_missed, 4 + 8, 4 + 100);
	for (unsigned i = 250; i < 260; i++)
		assert_int_equal(fake_slot(FIRST + i, 0)->retired, 0);
	frames_until(FIRST + 400);
	for (unsigned i = 300; i < 400; i++)
		assert_got(FIRST + i, i + 1 - f.stream.lag);
}

static void host_that_never_answers_times_out(void **state)
{
	(void)state;
	begin(true, BY_HAND, 0);
	queue_all(FIRST, FIRST + 300, 1);
	frames_until(FIRST + 300);
	for (unsigned i = 0; i < 300; i++)
		assert_timed_out(FIRST + i);
	assert_int_equal(counters->isochronous_missed, 300);
	assert_true(f.starts <= BH_ISOCHRONOUS_BATCHES);
}

/* Its first answer comes too late to be waited for; that is no reason never to ask again. */
static void host_that_was_away_is_asked_again(void **state)
{
	(void)state;
	begin(true, LATER, 300);
	queue_all(FIRST, FIRST + 800, 1);
	frames_until(FIRST + 200);
	f.delay = 2;
	frames_until(FIRST + 800);
	for (unsigned i = 0; i < 300; i++)
		assert_timed_out(FIRST + i);
	for (unsigned i = 500; i < 800; i++)
		assert_ended(FIRST + i, BH_SUCCESS, 8);
	assert_int_equal(f.stream.lag, 3);
}

static void answer_while_looking_ahead_is_noticed(void **state)
{
	(void)state;
	begin(true, BY_HAND, 0);
	queue_all(FIRST, FIRST + 40, 1);
	f.complete_others_in_start = true;
	assert_int_equal(fake_offer(FIRST, 0, BH_MOMENT_NOW), BH_ANSWER_BUSY);
	assert_int_equal(f.ready, 1);
	assert_int_equal(fake_offer(FIRST, 0, BH_MOMENT_NOW), BH_ANSWER_RETIRED);
	assert_got(FIRST, 1);
}

/* --- late, lost, silent ---------------------------------------------------------------------------- */

static void late_and_not_gathered_is_missed(void **state)
{
	(void)state;
	for (unsigned in = 0; in < 2; in++) {
		begin(in, AT_ONCE, 0);
		queue_all(FIRST, FIRST + 30, 1);
		f.frame = FIRST + 10; /* what is before is over */
		for (unsigned i = 0; i < 10; i++)
			assert_int_equal(fake_offer(FIRST + i, 0, BH_MOMENT_LATE), BH_ANSWER_MISSED);
		assert_true(f.starts > 0); /* of what is still to come */
		frames_until(FIRST + 30);
		for (unsigned i = 0; i < 30; i++)
			if (i < 10)
				assert_missed(FIRST + i);
			else
				assert_ended(FIRST + i, BH_SUCCESS, 8);
		assert_int_equal(counters->isochronous_missed, 10);
		if (!in)
			fake_frames_finish();
	}
}

static void late_and_gathered_is_answered(void **state)
{
	(void)state;
	for (unsigned in = 0; in < 2; in++) {
		begin(in, AT_ONCE, 0);
		queue_all(FIRST, FIRST + 30, 1);
		one_frame();
		f.frame = FIRST + 10;
		for (unsigned i = 1; i < 10; i++)
			assert_int_equal(fake_offer(FIRST + i, 0, BH_MOMENT_LATE), BH_ANSWER_RETIRED);
		frames_until(FIRST + 30);
		for (unsigned i = 0; i < 30; i++)
			assert_ended(FIRST + i, BH_SUCCESS, 8);
		assert_int_equal(counters->isochronous_missed, 0);
		if (!in)
			fake_frames_finish();
	}
}

static void frames_that_are_lost_take_their_packets_along(void **state)
{
	(void)state;
	for (unsigned in = 0; in < 2; in++) {
		begin(in, AT_ONCE, 0);
		queue_all(FIRST, FIRST + 60, 1);
		one_frame();
		f.frame = FIRST + 20;
		frames_until(FIRST + 60);
		assert_int_equal(counters->isochronous_dropped, 19);
		assert_int_equal(counters->ahead_bytes, in ? 0 : 19 * 8);
		for (unsigned i = 20; i < 60; i++)
			assert_ended(FIRST + i, BH_SUCCESS, 8);
		if (in)
			assert_int_equal(fake_slot(FIRST + 20, 0)->data[0], 21); /* nothing is late */
		else
			fake_frames_finish();
	}
}

static void silence_ends_a_stream(void **state)
{
	unsigned patience = BH_ISOCHRONOUS_GAP + config.withdrawn_frames;

	(void)state;
	begin(true, BY_HAND, 0);
	queue_all(FIRST, FIRST + 40, 1);
	one_frame();
	for (unsigned i = 0; i < FRAMES; i++)
		f.slots[i][0].linked = false;
	frames_until(FIRST + 1 + patience);
	assert_int_equal(f.cancels, 0);
	one_frame();
	assert_int_equal(f.cancels, 3);
	assert_int_equal(counters->cancels[BH_CANCEL_WITHDRAWN], 3);
	assert_true(counters->memory > 0); /* the device's as yet */
	while (f.held_count)
		fake_end(0, 0);
	assert_int_equal(counters->memory, 0);
}

static void fresh_start_is_a_new_stream(void **state)
{
	(void)state;
	begin(true, LATER, 3);
	queue_all(FIRST, FIRST + 100, 1);
	frames_until(FIRST + 50);
	assert_int_equal(f.stream.lag, 4);
	memset(f.slots, 0, sizeof(f.slots));
	f.frame += BH_ISOCHRONOUS_GAP + 1;
	queue_all(f.frame, f.frame + 100, 1);
	f.delay = 1;
	one_frame();
	assert_false(f.stream.lag_known);
	assert_true(counters->isochronous_dropped > 0);
	frames_until(f.frame + 99);
	for (uint64_t frame = f.frame - 50; frame < f.frame; frame++)
		assert_ended(frame, BH_SUCCESS, 8);
}

/* --- reset --------------------------------------------------------------------------------------------- */

static void reset_forgets_and_cancels(void **state)
{
	(void)state;
	begin(false, BY_HAND, 0);
	queue_all(FIRST, FIRST + 40, 1);
	frames_until(FIRST + 2);
	bh_isochronous_reset(&f.stream);
	assert_int_equal(f.cancels, 3);
	assert_int_equal(counters->cancels[BH_CANCEL_RESET], 3);
	bh_isochronous_reset(&f.stream);
	assert_int_equal(f.cancels, 3); /* once is enough */
	assert_true(bh_isochronous_running(&f.stream));
	fake_end(0, 5);
	assert_int_equal(counters->ahead_bytes, 3 * 8); /* of five, two were told */
	fake_end(0, 0);
	assert_true(counters->memory > 0);
	fake_end(0, 0);
	assert_false(bh_isochronous_running(&f.stream));
	assert_int_equal(counters->memory, 0);
	assert_true(bh_list_empty(&f.engine.streams));
}

static void reset_that_is_answered_at_once(void **state)
{
	(void)state;
	begin(true, BY_HAND, 0);
	f.cancel_at_once = true;
	queue_all(FIRST, FIRST + 40, 1);
	frames_until(FIRST + 2);
	bh_isochronous_reset(&f.stream);
	assert_false(bh_isochronous_running(&f.stream));
	assert_int_equal(counters->memory, 0);
	f.way = AT_ONCE;
	frames_until(FIRST + 10);
	assert_got(FIRST + 2, 1);
}

static void stream_begins_again_while_the_old_one_is_cancelled(void **state)
{
	(void)state;
	begin(true, BY_HAND, 0);
	queue_all(FIRST, FIRST + 100, 1);
	one_frame();
	bh_isochronous_reset(&f.stream);
	one_frame();
	assert_int_equal(f.held_count, 6);
	one_frame();
	fake_end(0, 16); /* of the old one: for nobody */
	fake_end(0, 0);
	fake_end(0, 0);
	assert_int_equal(f.sent, 16);
	fake_end(0, UINT32_MAX);
	frames_until(FIRST + 10);
	for (unsigned i = 0; i < 3; i++)
		assert_timed_out(FIRST + i);
	assert_got(FIRST + 3, 17);
}

static void device_that_goes_at_submit_gets_no_more(void **state)
{
	(void)state;
	for (unsigned in = 0; in < 2; in++)
		for (unsigned at_once = 0; at_once < 2; at_once++) {
			begin(in, BY_HAND, 0);
			f.reset_in_start = 1;
			f.cancel_at_once = at_once;
			queue_all(FIRST, FIRST + 40, 1);
			assert_int_equal(fake_offer(FIRST, 0, BH_MOMENT_NOW), BH_ANSWER_MISSED);
			assert_int_equal(f.starts, 1);
			assert_int_equal(f.cancels, 1);
			if (!in || !at_once)
				fake_frames_finish();
		}
}

static void device_that_goes_while_we_look_ahead_gets_no_more(void **state)
{
	(void)state;
	begin(false, BY_HAND, 0);
	f.reset_in_start = 2;
	f.cancel_at_once = true;
	queue_all(FIRST, FIRST + 40, 1);
	assert_int_equal(fake_offer(FIRST, 0, BH_MOMENT_NOW), BH_ANSWER_RETIRED);
	assert_int_equal(f.starts, 2);
}

/* --- the whole ------------------------------------------------------------------------------------------ */

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(frames_ahead_travel_together),
		TEST(look_ahead_keeps_to_its_limit),
		TEST(packet_at_a_time_looks_nowhere),
		TEST(no_frames_ahead_is_packet_at_a_time),
		TEST(limits_of_a_batch_are_kept),
		TEST(batches_and_window_are_limited),
		TEST(batch_that_hangs_keeps_its_memory),
		TEST(window_goes_round),
		TEST(lists_that_cross_are_gathered_once),
		TEST(two_in_a_frame_go_in_their_order),
		TEST(two_ins_in_a_frame_are_two_packets),
		TEST(memory_that_is_short_serves_packets),
		TEST(out_is_told_sent_before_it_ended),
		TEST(out_hears_what_became_of_it_once_that_is_known),
		TEST(out_without_bytes_is_a_packet),
		TEST(out_that_is_too_long_is_heard_by_nobody),
		TEST(out_that_cannot_be_read_is_a_fault_in_its_frame),
		TEST(changed_out_does_not_overtake),
		TEST(changed_length_is_a_change),
		TEST(changed_out_with_nothing_behind_it_is_sent),
		TEST(same_bytes_from_elsewhere_are_no_change),
		TEST(withdrawn_out_is_counted),
		TEST(relinked_out_is_sent),
		TEST(relinked_out_cancels_what_nobody_was_told),
		TEST(inserted_out_does_not_overtake),
		TEST(retired_or_not_a_packet_is_used_up),
		TEST(in_is_delivered_in_its_frame),
		TEST(in_packets_have_outcomes_of_their_own),
		TEST(in_without_room_for_it_is_babble),
		TEST(in_that_cannot_be_written_is_a_fault),
		TEST(in_that_was_withdrawn_is_dropped),
		TEST(in_that_was_inserted_gets_what_comes_next),
		TEST(lag_settles_with_the_first_answer),
		TEST(one_frame_of_unevenness_is_nothing),
		TEST(answer_within_the_frame_has_no_lag),
		TEST(intervals_need_not_fit_the_lag),
		TEST(what_comes_late_is_dropped),
		TEST(misses_now_and_then_settle_nothing),
		TEST(misses_in_a_row_settle_the_lag_anew),
		TEST(host_that_never_answers_times_out),
		TEST(host_that_was_away_is_asked_again),
		TEST(answer_while_looking_ahead_is_noticed),
		TEST(late_and_not_gathered_is_missed),
		TEST(late_and_gathered_is_answered),
		TEST(frames_that_are_lost_take_their_packets_along),
		TEST(silence_ends_a_stream),
		TEST(fresh_start_is_a_new_stream),
		TEST(reset_forgets_and_cancels),
		TEST(reset_that_is_answered_at_once),
		TEST(stream_begins_again_while_the_old_one_is_cancelled),
		TEST(device_that_goes_at_submit_gets_no_more),
		TEST(device_that_goes_while_we_look_ahead_gets_no_more),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
