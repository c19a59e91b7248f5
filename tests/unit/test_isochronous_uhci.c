/*
 * Isochronous descriptors as a guest's driver sees them: the frame list, write-back bit by
 * bit, interrupts, what is late, and what a hostile guest may make of it all.
 */
#define BUFFER_SIZE 256u

#include "fake_driver.h"
#include "fake_streams.h"

#define IOS    (TD_ACTIVE | TD_IOS)
#define OUT    BH_PID_OUT
#define IN     BH_PID_IN
#define EP_OUT 1
#define EP_IN  2

static struct fake_streams device;

static void make(const struct bh_uhci_config *config)
{
	machine(config);
	fake_streams_init(&device);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, &device.device), 0);
	enable_port(0);
}

static int setup(void **state)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;

	(void)state;
	make(&config);
	return 0;
}

static int setup_packet_at_a_time(void **state)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;

	(void)state;
	config.engine.max_batch_descriptors = 1;
	make(&config);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	machine_finish();
	return 0;
}

/* Descriptor n, before what the list entry leads to as yet. */
static void link_td(unsigned n, unsigned frame, uint32_t control, uint32_t pid, unsigned length)
{
	uint32_t entry = FRAME_LIST + 4 * (frame % FRAME_LIST_SIZE);

	td(n, fake_get32(&guest, entry), IOS | control, token(pid, 0, pid == IN ? EP_IN : EP_OUT, 0, length));
	fake_put32(&guest, entry, TD(n));
	if (pid != OUT)
		return;
	memset(guest.memory + BUFFER(n), (int)n, length);
	if (length >= 4)
		fake_put32(&guest, BUFFER(n), n);
}

/* One in every interval-th frame: descriptor n in frame n. */
static void link_all(unsigned from, unsigned to, unsigned interval, uint32_t pid, unsigned length)
{
	for (unsigned i = from; i < to; i += interval)
		link_td(i, i, 0, pid, length);
}

static void assert_control(unsigned n, uint32_t control)
{
	if (control_of(n) != control)
		fail_msg("descriptor %u: %08x, not %08x", n, control_of(n), control);
}

static void assert_sent(unsigned n, unsigned length)
{
	assert_control(n, TD_IOS | ((length - 1) & TD_ACTLEN));
}

static void assert_waits(unsigned n)
{
	assert_control(n, IOS);
}

static void assert_timed_out(unsigned n)
{
	assert_control(n, TD_IOS | TD_CRC_TIMEOUT | TD_ACTLEN);
}

static void assert_got(unsigned n, uint32_t number)
{
	assert_sent(n, STREAM_PACKET);
	assert_int_equal(fake_get32(&guest, BUFFER(n)), number);
	assert_int_equal(guest.memory[BUFFER(n) + STREAM_PACKET - 1], (uint8_t)number);
}

/* So many frames, counted from the first, have begun. */
static void until_frame(unsigned n)
{
	frames(n - (inw(FRNUM) & FRNUM_MASK));
}

/* --- frames ------------------------------------------------------------------------------- */

static void out_in_every_frame_of_the_list(void **state)
{
	(void)state;
	link_all(0, 1024, 1, OUT, 100);
	run();
	frames(1023);
	for (unsigned i = 0; i < 1024; i++) {
		assert_sent(i, 100);
		assert_int_equal(device.heard[i].word, i);
		assert_int_equal(device.heard[i].length, 100);
	}
	assert_int_equal(device.heard_count, 1024);
	assert_true(device.submits < 1024 / 12);
	assert_int_equal(engine()->isochronous_missed + engine()->ahead_bytes, 0);
}

/* The list has 1024 entries, the frame number 11 bits: both come round. */
static void frame_list_comes_round(void **state)
{
	(void)state;
	outw(FRNUM, 0x7f0);
	for (unsigned i = 0; i < 40; i++)
		link_td(i, 0x7f0 + i, 0, IN, STREAM_PACKET);
	run();
	frames(15);
	assert_int_equal(inw(FRNUM), 0x7ff);
	frames(24);
	for (unsigned i = 0; i < 40; i++)
		assert_got(i, i + 1);
	assert_true(device.submits < 5);
}

static void in_at_any_interval(void **state)
{
	static const unsigned intervals[] = {1, 2, 8, 128};
	(void)state;

	for (unsigned k = 0; k < BH_COUNT(intervals); k++) {
		if (k) {
			teardown(state);
			setup(state);
		}
		link_all(3, 600, intervals[k], IN, STREAM_PACKET);
		run();
		frames(600);
		for (unsigned i = 3, n = 1; i < 600; i += intervals[k], n++)
			assert_got(i, n);
		assert_int_equal(engine()->isochronous_missed + engine()->isochronous_dropped, 0);
	}
}

static void nothing_happens_before_its_frame(void **state)
{
	(void)state;
	link_td(0, 5, 0, IN, STREAM_PACKET);
	link_td(1, 6, 0, OUT, 8);
	run();
	frames(4);
	assert_waits(0);
	frames(1);
	assert_got(0, 1);
	assert_waits(1);
	frames(1);
	assert_sent(1, 8);
}

/* What was not there when its frame began has to wait for that number to come again. */
static void queued_too_late_waits_for_the_next_time(void **state)
{
	(void)state;
	run();
	frames(10);
	link_td(0, 10, 0, OUT, 8);
	bh_uhci_run(uhci);
	frames(500);
	assert_waits(0);
	frames(524);
	assert_sent(0, 8);
}

static void two_streams_and_two_packets_in_a_frame(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		link_td(200 + i, i, 0, IN, STREAM_PACKET);
		link_td(2 * i + 400, i, 0, OUT, 8); /* the later one comes first */
		link_td(2 * i + 401, i, 0, OUT, 8);
	}
	run();
	frames(100);
	for (unsigned i = 0; i < 100; i++) {
		assert_got(200 + i, i + 1);
		assert_int_equal(device.heard[2 * i].word, 2 * i + 401);
		assert_int_equal(device.heard[2 * i + 1].word, 2 * i + 400);
	}
	assert_int_equal(device.heard_count, 200);
}

static void bulk_goes_on_behind_it(void **state)
{
	(void)state;
	fill_queue(0, 600, 64, OUT, 3, 0);
	fill_queue(1, 664, 32, IN, 4, 0);
	qh(0, QH(1) | LINK_Q, TD(600));
	frame_list(QH(0) | LINK_Q);
	link_all(0, 50, 1, OUT, 16);
	for (unsigned i = 0; i < 50; i++)
		link_td(100 + i, i, 0, IN, STREAM_PACKET);
	run();
	frames(50);
	for (unsigned i = 0; i < 50; i++) {
		assert_sent(i, 16);
		assert_got(100 + i, i + 1);
	}
	assert_int_equal(device.bulk_out, 64 * 64);
	assert_int_equal(device.bulk_in, 32 * 64);
	assert_int_equal(element_of(0), LINK_T);
	assert_int_equal(element_of(1), LINK_T);
}

/* --- write-back ------------------------------------------------------------------------------ */

static void every_outcome_bit_by_bit(void **state)
{
	static const struct {
		uint32_t pid;
		unsigned length; /* of the descriptor */
		enum bh_status status;
		uint32_t actual;
		uint32_t control; /* besides TD_IOS and the length */
		uint32_t moved;
		bool error;
	} cases[] = {
		{IN, STREAM_PACKET, BH_SUCCESS, STREAM_PACKET, 0, STREAM_PACKET, false},
		{IN, STREAM_PACKET, BH_SUCCESS, 100, 0, 100, false},
		{IN, STREAM_PACKET, BH_SUCCESS, 0, 0, 0, false},
		{IN, 100, BH_SUCCESS, 100, 0, 100, false},
		{IN, 99, BH_SUCCESS, 100, TD_STALLED | TD_BABBLE, 0, true},
		{IN, 0, BH_SUCCESS, 0, 0, 0, false},
		{IN, STREAM_PACKET, BH_BABBLE, 20, TD_STALLED | TD_BABBLE, 20, true},
		{IN, STREAM_PACKET, BH_BUS_ERROR, 20, TD_CRC_TIMEOUT, 20, true},
		{IN, STREAM_PACKET, BH_NO_RESPONSE, 0, TD_CRC_TIMEOUT, 0, true},
		{IN, STREAM_PACKET, BH_STALL, 0, TD_CRC_TIMEOUT, 0, true},
		{OUT, 100, BH_SUCCESS, 100, 0, 100, false},
		{OUT, 0, BH_SUCCESS, 0, 0, 0, false},
		{OUT, 100, BH_NO_RESPONSE, 0, TD_CRC_TIMEOUT, 0, true},
		{OUT, STREAM_PACKET + 1, BH_SUCCESS, 0, 0, STREAM_PACKET + 1, false}, /* heard by nobody */
	};

	for (unsigned k = 0; k < 2 * BH_COUNT(cases); k++) {
		unsigned i = k / 2;
		uint32_t ioc = k % 2 ? TD_IOC : 0, keep = TD_CERR | TD_SPD | ioc; /* C_ERR counts nothing here */

		if (k) {
			teardown(state);
			setup(state);
		}
		device.outcome[0].set = true;
		device.outcome[0].status = cases[i].status;
		device.outcome[0].actual = cases[i].actual;
		link_td(0, 1, keep | TD_STATUS, cases[i].pid, cases[i].length);
		run();
		frames(1);
		assert_int_equal(inw(USBSTS), cases[i].error ? USBSTS_ERROR : 0);
		frames(1);
		assert_control(0, TD_IOS | keep | cases[i].control | ((cases[i].moved - 1) & TD_ACTLEN));
		assert_int_equal(inw(USBSTS), (ioc ? USBSTS_USBINT : 0) | (cases[i].error ? USBSTS_ERROR : 0));
		assert_int_equal(guest.line, ioc || cases[i].error);
	}
}

/* At its frame's end: for drivers it has not ended before. */
static void interrupt_comes_with_its_frame(void **state)
{
	(void)state;
	link_all(0, 8, 1, OUT, 8);
	td(7, LINK_T, IOS | TD_IOC, token(OUT, 0, EP_OUT, 0, 8));
	run();
	frames(7);
	assert_control(7, TD_IOS | TD_IOC | 7);
	assert_false(guest.line);
	frames(1);
	assert_true(guest.line);
	assert_int_equal(guest.rises, 1);
	assert_int_equal(bh_uhci_counters(uhci)->completed, 8);
}

/* --- time ----------------------------------------------------------------------------------------- */

static void answer_within_the_frame_is_in_time(void **state)
{
	(void)state;
	device.hold = true;
	link_td(0, 3, TD_IOC, IN, STREAM_PACKET);
	run();
	frames(3);
	pass_us(400);
	assert_control(0, IOS | TD_IOC);
	fake_stream_end(&device, device.held[0], 1);
	pass_us(10);
	assert_control(0, TD_IOS | TD_IOC | (STREAM_PACKET - 1));
	assert_int_equal(inw(FRNUM), 3);
	assert_false(guest.line);
	frames(1);
	assert_true(guest.line);
}

/* A driver that sees the number change may free what hung in the frame before. */
static void frame_number_waits_for_what_waits(void **state)
{
	(void)state;
	device.hold = true;
	link_td(0, 3, 0, IN, STREAM_PACKET);
	run();
	frames(3);
	guest.now_us += 1000; /* the controller had no time yet */
	assert_waits(0);
	assert_int_equal(inw(FRNUM), 4);
	assert_timed_out(0);
	fake_stream_end(&device, device.held[0], 1);
	pass_us(100);
	assert_timed_out(0);
}

static void more_than_sixteen_do_not_wait(void **state)
{
	(void)state;
	device.hold = true;
	for (unsigned i = 0; i < 20; i++)
		link_td(i, 2, 0, IN, STREAM_PACKET); /* the last one is first */
	run();
	frames(2);
	for (unsigned i = 0; i < 20; i++)
		if (i < 4)
			assert_timed_out(i);
		else
			assert_waits(i);
	frames(1);
	for (unsigned i = 0; i < 20; i++)
		assert_timed_out(i);
}

/* Nobody looked for ten frames: what was not gathered ahead stays as it is, and is told. */
static void late_frames_of_single_packets_stay_active(void **state)
{
	for (unsigned in = 0; in < 2; in++) {
		uint32_t pid = in ? IN : OUT;

		if (in) {
			teardown(state);
			setup_packet_at_a_time(state);
		}
		link_all(0, 30, 1, pid, STREAM_PACKET);
		link_td(308, 8, TD_IOC, pid, STREAM_PACKET);
		run();
		frames(2);
		guest.now_us += 10500;
		assert_int_equal(inw(FRNUM), 12);
		for (unsigned i = 3; i < 12; i++)
			assert_waits(i);
		assert_control(308, IOS | TD_IOC);
		assert_sent(12, STREAM_PACKET);
		assert_true(guest.line);
		assert_int_equal(inw(USBSTS), USBSTS_USBINT);
		frames(10);
		for (unsigned i = 13; i < 22; i++)
			assert_sent(i, STREAM_PACKET);
		assert_int_equal(engine()->isochronous_missed, 10);
		assert_int_equal(bh_uhci_counters(uhci)->frames_late, 9);
	}
}

/* Looking ahead from a frame that is over, too, begins with those that are not. */
static void late_frames_are_not_begun(void **state)
{
	(void)state;
	run();
	frames(2);
	link_all(3, 30, 1, OUT, 8);
	guest.now_us += 9500;
	assert_int_equal(inw(FRNUM), 11);
	frames(10);
	for (unsigned i = 3; i < 11; i++)
		assert_waits(i);
	for (unsigned i = 11; i < 22; i++)
		assert_sent(i, 8);
	assert_int_equal(device.heard[0].word, 11);
}

static void late_frames_that_were_gathered_are_answered(void **state)
{
	for (unsigned in = 0; in < 2; in++) {
		if (in) {
			teardown(state);
			setup(state);
		}
		link_all(0, 60, 1, in ? IN : OUT, STREAM_PACKET);
		run();
		frames(2);
		guest.now_us += 15000;
		assert_int_equal(inw(FRNUM), 17);
		frames(30);
		for (unsigned i = 0; i < 40; i++)
			if (in)
				assert_got(i, i + 1);
			else
				assert_sent(i, STREAM_PACKET);
		assert_int_equal(engine()->isochronous_missed, 0);
		assert_int_equal(bh_uhci_counters(uhci)->frames_late, 14);
	}
}

/* Beyond sixteen nobody walks them; whoever waits for one of them has to be told. */
static void lost_frames_stay_active_and_are_told(void **state)
{
	(void)state;
	link_all(0, 80, 1, IN, STREAM_PACKET);
	run();
	frames(2);
	guest.now_us += 30000;
	assert_int_equal(inw(FRNUM), 32);
	for (unsigned i = 3; i < 17; i++)
		assert_waits(i);
	for (unsigned i = 17; i < 33; i++)
		assert_got(i, i + 1); /* nothing is delivered late */
	assert_true(guest.line);
	assert_int_equal(bh_uhci_counters(uhci)->frames_lost, 14);
	assert_int_equal(engine()->isochronous_dropped, 14);
}

/* Four frames in one look, when nothing was queued for long; but whoever asks for the time gets it. */
static void stream_that_begins_after_a_pause_misses_nothing(void **state)
{
	(void)state;
	for (unsigned phase = 0; phase < 8; phase++) {
		unsigned now;

		if (phase) {
			teardown(state);
			setup_packet_at_a_time(state);
		}
		run();
		frames(200);
		assert_true(guest.run_at_us > guest.now_us + 1000); /* it sleeps longer than a frame */
		pass_us(1000 * phase + 300);
		now = inw(FRNUM);
		assert_int_equal(now, 200 + phase);
		for (unsigned i = 1; i < 20; i++)
			link_td(i, now + i, 0, phase % 2 ? IN : OUT, STREAM_PACKET);
		frames(20);
		for (unsigned i = 1; i < 20; i++)
			assert_sent(i, STREAM_PACKET);
		assert_int_equal(engine()->isochronous_missed, 0);
	}
}

/* A walk that takes longer than a frame: what it comes to afterwards is of a frame that is over. */
static void walk_that_took_too_long_misses(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 5000; i++)
		put_td(0x80000 + 16 * i, 0x80000 + 16 * (i + 1), 0, 0, 0);
	put_td(0x80000 + 16 * 5000, LINK_T, IOS | TD_IOC, token(OUT, 0, EP_OUT, 0, 8), BUFFER(0));
	fake_put32(&guest, FRAME_LIST, 0x80000);
	run();
	bh_uhci_run(uhci); /* one slice */
	guest.now_us += 1000;
	frames(3);
	assert_int_equal(fake_get32(&guest, 0x80000 + 16 * 5000 + 4), IOS | TD_IOC);
	assert_int_equal(device.heard_count, 0);
	assert_true(guest.line);
}

/* --- stopping, and going away ------------------------------------------------------------------------ */

static void stopped_controller_forgets_what_waited(void **state)
{
	static const uint32_t ways[] = {0, USBCMD_HCRESET, USBCMD_GRESET};

	for (unsigned k = 0; k < BH_COUNT(ways); k++) {
		if (k) {
			teardown(state);
			setup(state);
		}
		device.hold = true;
		link_td(0, 2, 0, IN, STREAM_PACKET);
		link_td(1, 4, 0, IN, STREAM_PACKET);
		run();
		frames(2);
		outw(USBCMD, ways[k]);
		while (device.held_count)
			fake_stream_end(&device, device.held[0], UINT32_MAX);
		pass_us(5000);
		assert_waits(0);
		assert_waits(1);
		assert_int_equal(guest.memory[BUFFER(0)], 0);
	}
}

static void stream_begins_anew_after_a_stop(void **state)
{
	(void)state;
	link_all(0, 60, 1, OUT, 8);
	run();
	frames(9);
	outw(USBCMD, 0);
	assert_int_equal(inw(FRNUM), 9);
	for (unsigned i = 10; i < 60; i++)
		fake_put32(&guest, BUFFER(i), 1000 + i);
	outw(FRNUM, 10);
	outw(USBCMD, USBCMD_RS);
	frames(49);
	for (unsigned i = 0; i < 60; i++)
		assert_sent(i, 8);
	for (unsigned i = 10; i < 60; i++) /* what was sent ahead before the stop is W */
		assert_int_equal(device.heard[device.heard_count - 60 + i].word, 1000 + i);
	assert_int_equal(engine()->ahead_bytes, 8 * (device.heard_count - 60));
	assert_int_equal(engine()->isochronous_missed, 0);
}

/* What was fetched ahead before the stop is not for what begins after it. */
static void nothing_old_comes_after_a_stop(void **state)
{
	(void)state;
	link_all(0, 60, 1, IN, STREAM_PACKET);
	run();
	frames(9);
	outw(USBCMD, 0);
	pass_us(500000);
	outw(FRNUM, 10);
	outw(USBCMD, USBCMD_RS);
	frames(10);
	for (unsigned i = 10; i < 20; i++)
		assert_got(i, 49 + i - 10);
	assert_int_equal(engine()->isochronous_dropped, 48 - 10);
}

static void bus_master_off_leaves_everything(void **state)
{
	(void)state;
	device.hold = true;
	link_td(0, 2, 0, IN, STREAM_PACKET);
	link_td(1, 5, 0, IN, STREAM_PACKET);
	link_td(2, 12, 0, IN, STREAM_PACKET);
	run();
	frames(2);
	bus_master(false);
	frames(6);
	assert_waits(0);
	device.hold = false;
	while (device.held_count)
		fake_stream_end(&device, device.held[0], UINT32_MAX);
	bus_master(true);
	frames(6);
	assert_waits(0);  /* its frame is long over */
	assert_got(1, 2); /* gathered in time, and not so long ago */
	assert_sent(2, STREAM_PACKET);
}

static void set_interface_cancels_and_begins_anew(void **state)
{
	(void)state;
	device.hold = true;
	link_all(0, 40, 1, IN, STREAM_PACKET);
	run();
	frames(5);
	assert_true(device.held_count > 0);
	request("\x01\x0b\x01\x00\x01\x00\x00\x00");
	assert_int_equal(device.interfaces, 1);
	assert_int_equal(device.held_count, 0);
	assert_true(device.cancels >= 3);
	assert_int_equal(bh_uhci_bus(uhci)->engine.counters.memory, 0);
	device.hold = false;
	frame_list(LINK_T);
	link_all(10, 40, 1, IN, STREAM_PACKET);
	until_frame(39);
	for (unsigned i = 10; i < 40; i++)
		assert_got(i, i - 9);
}

/* What it was is still being cancelled: nothing begins before that has ended. */
static void slow_cancel_delays_the_next_stream(void **state)
{
	(void)state;
	device.hold = device.late_cancel = true;
	link_all(0, 40, 1, IN, STREAM_PACKET);
	run();
	frames(5);
	request("\x01\x0b\x01\x00\x01\x00\x00\x00");
	assert_int_equal(device.held_count, 3);
	frame_list(LINK_T);
	link_all(8, 40, 1, IN, STREAM_PACKET);
	until_frame(15);
	for (unsigned i = 8; i < 15; i++)
		assert_waits(i);
	device.hold = false;
	fake_streams_end_all(&device);
	until_frame(39);
	for (unsigned i = 17; i < 40; i++)
		assert_sent(i, STREAM_PACKET);
	device.late_cancel = false;
}

static void port_that_is_reset_or_disabled_carries_nothing(void **state)
{
	(void)state;
	link_all(0, 20, 1, OUT, 8);
	link_td(100, 8, 0, IN, STREAM_PACKET);
	run();
	frames(5);
	outw(PORTSC, PORTSC_PR);
	frames(5);
	assert_sent(9, 8); /* who would miss a handshake? */
	assert_timed_out(100);
	assert_int_equal(engine()->ahead_bytes, 14 * 8);
	assert_true(engine()->memory == 0);
}

static void unplugging_in_the_middle(void **state)
{
	(void)state;
	device.hold = true;
	link_all(0, 40, 1, IN, STREAM_PACKET);
	for (unsigned i = 0; i < 40; i++)
		link_td(100 + i, i, 0, OUT, 8);
	run();
	frames(5);
	assert_true(device.held_count >= 6);
	bh_bus_remove(bh_uhci_bus(uhci), 0, NULL, NULL);
	assert_int_equal(device.destroyed, 1);
	assert_int_equal(device.held_count, 0);
	frames(35);
	for (unsigned i = 6; i < 40; i++) {
		assert_timed_out(i);
		assert_sent(100 + i, 8);
	}
	assert_int_equal(engine()->memory, 0);
}

static void device_that_goes_at_submit(void **state)
{
	for (unsigned k = 0; k < 4; k++) {
		if (k) {
			teardown(state);
			setup(state);
		}
		device.go = true;
		device.late_cancel = k / 2;
		link_all(2, 60, 1, k % 2 ? IN : OUT, 8);
		run();
		frames(2);
		assert_int_equal(device.submits, 1);
		device.late_cancel = false;
		frames(5);
		assert_int_equal(device.submits, 1);
		assert_int_equal(device.destroyed, 1);
		assert_int_equal(engine()->memory, 0);
	}
}

/* --- where it does not belong --------------------------------------------------------------------------- */

static void nobody_at_the_address(void **state)
{
	(void)state;
	td(0, TD(1), IOS, token(OUT, 5, EP_OUT, 0, 8));
	td(1, TD(2), IOS, token(IN, 5, EP_IN, 0, 8));
	td(2, TD(3), IOS | TD_LS, token(OUT, 0, EP_OUT, 0, 8)); /* at another speed nobody hears it */
	td(3, TD(4), IOS, token(IN, 0, 9, 0, 8));               /* no such endpoint */
	td(4, TD(5), IOS, token(OUT, 0, 0, 0, 8));              /* nor is the control pipe one */
	td(5, LINK_T, IOS, token(BH_PID_SETUP, 0, EP_OUT, 0, 8));
	fake_put32(&guest, FRAME_LIST + 4, TD(0));
	run();
	frames(2);
	assert_sent(0, 8);
	assert_timed_out(1);
	assert_control(2, TD_IOS | TD_LS | 7);
	assert_timed_out(3);
	assert_sent(4, 8);
	assert_timed_out(5);
	assert_int_equal(device.submits, 0);
	assert_int_equal(bh_uhci_bus(uhci)->counters.unanswered, 6);
}

static void isochronous_packets_to_other_endpoints_are_not_heard(void **state)
{
	(void)state;
	td(0, TD(1), IOS, token(OUT, 0, 3, 0, 8));
	td(1, LINK_T, IOS, token(IN, 0, 4, 0, 8));
	fake_put32(&guest, FRAME_LIST + 4, TD(0));
	run();
	frames(2);
	assert_sent(0, 8);
	assert_timed_out(1);
	assert_int_equal(device.bulk_out + device.bulk_in, 0);
}

static void other_packets_to_isochronous_endpoints_are_not_answered(void **state)
{
	(void)state;
	td(0, LINK_T, ACTIVE, token(OUT, 0, EP_OUT, 0, 8));
	td(1, LINK_T, ACTIVE, token(IN, 0, EP_IN, 0, 8));
	qh(0, QH(1) | LINK_Q, TD(0));
	qh(1, LINK_T, TD(1));
	frame_list(QH(0) | LINK_Q);
	run();
	frames(5);
	assert_int_equal(control_of(0) & ENDED, LOST);
	assert_int_equal(control_of(1) & ENDED, LOST);
	assert_int_equal(device.submits, 0);
}

/* In a queue nobody comes back to one that waits; but what is there is taken. */
static void isochronous_descriptors_in_a_queue(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++)
		td(i, i < 2 ? TD(i + 1) : LINK_T, IOS, token(i == 1 ? IN : OUT, 0, i == 1 ? EP_IN : EP_OUT, 0, STREAM_PACKET));
	qh(0, LINK_T, TD(0));
	fake_put32(&guest, FRAME_LIST + 4 * 2, QH(0) | LINK_Q);
	td(10, LINK_T, IOS, token(IN, 0, EP_IN, 0, STREAM_PACKET));
	qh(1, LINK_T, TD(10));
	fake_put32(&guest, FRAME_LIST + 4 * 5, QH(1) | LINK_Q);
	run();
	frames(4);
	assert_sent(0, STREAM_PACKET);
	assert_sent(1, STREAM_PACKET);
	assert_sent(2, STREAM_PACKET);
	assert_int_equal(element_of(0), LINK_T);
	device.hold = true;
	frames(1);
	assert_timed_out(10);
}

/* --- hostile ------------------------------------------------------------------------------------------------ */

static void descriptor_that_leads_to_itself(void **state)
{
	(void)state;
	device.hold = true;
	link_td(0, 2, 0, IN, STREAM_PACKET);
	fake_put32(&guest, TD(0), TD(0));
	link_td(1, 3, 0, OUT, 8);
	fake_put32(&guest, TD(1), TD(1));
	run();
	frames(4);
	assert_timed_out(0);
	assert_sent(1, 8);
	assert_int_equal(inw(USBSTS), USBSTS_ERROR);
}

/* The same descriptor from every entry, as some drivers keep them: it is one packet. */
static void descriptor_in_every_frame_is_one_packet(void **state)
{
	(void)state;
	td(0, LINK_T, IOS, token(OUT, 0, EP_OUT, 0, 8));
	frame_list(TD(0));
	run();
	frames(30);
	assert_sent(0, 8);
	assert_int_equal(device.heard_count, 1);
	td(0, LINK_T, IOS, token(OUT, 0, EP_OUT, 0, 8));
	frames(30);
	assert_int_equal(device.heard_count, 2);
	assert_int_equal(engine()->ahead_bytes, 0);
}

static void thousands_in_one_frame_are_bounded(void **state)
{
	for (unsigned k = 0; k < 4; k++) {
		uint64_t walked;

		if (k) {
			teardown(state);
			setup(state);
		}
		device.hold = k / 2;
		for (unsigned i = 0; i < 3000; i++)
			put_td(0x80000 + 16 * i, i < 2999 ? 0x80000 + 16 * (i + 1) : LINK_T, IOS,
			       token(k % 2 ? IN : OUT, 0, k % 2 ? EP_IN : EP_OUT, 0, 8), BUFFER(0));
		frame_list(0x80000);
		run();
		frames(5);
		walked = bh_uhci_counters(uhci)->entries;
		assert_in_range(walked, 3000, 60000);
		assert_int_equal(inw(FRNUM), 5);
		assert_true(engine()->memory <= 256 * 1024);
	}
}

static void frames_without_end_are_bounded(void **state)
{
	(void)state;
	/* Every frame leads through a ring of descriptors of somebody else's. */
	for (unsigned i = 0; i < 64; i++)
		put_td(0x80000 + 16 * i, 0x80000 + 16 * ((i + 1) % 64), IOS, token(IN, 9, 3, 0, 8), BUFFER(0));
	frame_list(0x80000);
	link_td(0, 1, 0, OUT, 8);
	fill_queue(0, 600, 8, OUT, 3, 0);
	run();
	frames(10);
	assert_sent(0, 8);
	assert_int_equal(inw(FRNUM), 10);
}

static void buffer_that_is_not_there_is_a_host_error(void **state)
{
	for (unsigned in = 0; in < 2; in++) {
		if (in) {
			teardown(state);
			setup(state);
		}
		fill_queue(0, 600, 1, OUT, 3, 0);
		fake_put32(&guest, FRAME_LIST + 4, QH(0) | LINK_Q);
		link_td(2, 1, 0, OUT, 8);
		link_td(0, 1, 0, in ? IN : OUT, STREAM_PACKET);
		fake_put32(&guest, TD(0) + 12, 0xf0000000);
		link_td(1, 2, 0, OUT, 8);
		run();
		frames(3);
		assert_int_equal(inw(USBSTS), USBSTS_HSE | USBSTS_HCH);
		assert_waits(0);
		assert_waits(1);
		assert_waits(2);
		assert_int_equal(control_of(600), ACTIVE); /* nothing is served any more */
	}
}

static void frame_list_that_is_not_there_is_no_trouble_ahead(void **state)
{
	(void)state;
	/* The list's last entries, and more, are beyond memory's end. */
	out(FRBASEADD, 4, FAKE_MEMORY_SIZE - 4096);
	memset(guest.memory + FAKE_MEMORY_SIZE - 4096, 0x01, 4096);
	for (unsigned i = 0; i < 1024; i++)
		fake_put32(&guest, FAKE_MEMORY_SIZE - 4096 + 4 * i, i == 2 ? TD(0) : i == 3 ? 0xfffffff0 : LINK_T);
	td(0, 0xfffffff0, IOS, token(OUT, 0, EP_OUT, 0, 8));
	outw(USBCMD, USBCMD_RS);
	frames(2);
	assert_sent(0, 8);
	assert_int_equal(inw(USBSTS), USBSTS_HSE | USBSTS_HCH);
}

#define TEST(name)   cmocka_unit_test_setup_teardown(name, setup, teardown)
#define SINGLE(name) cmocka_unit_test_setup_teardown(name, setup_packet_at_a_time, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(out_in_every_frame_of_the_list),
		TEST(frame_list_comes_round),
		TEST(in_at_any_interval),
		TEST(nothing_happens_before_its_frame),
		TEST(queued_too_late_waits_for_the_next_time),
		TEST(two_streams_and_two_packets_in_a_frame),
		TEST(bulk_goes_on_behind_it),
		TEST(every_outcome_bit_by_bit),
		TEST(interrupt_comes_with_its_frame),
		TEST(answer_within_the_frame_is_in_time),
		TEST(frame_number_waits_for_what_waits),
		TEST(more_than_sixteen_do_not_wait),
		SINGLE(late_frames_of_single_packets_stay_active),
		TEST(late_frames_are_not_begun),
		TEST(late_frames_that_were_gathered_are_answered),
		TEST(lost_frames_stay_active_and_are_told),
		SINGLE(stream_that_begins_after_a_pause_misses_nothing),
		TEST(walk_that_took_too_long_misses),
		TEST(stopped_controller_forgets_what_waited),
		TEST(stream_begins_anew_after_a_stop),
		TEST(nothing_old_comes_after_a_stop),
		TEST(bus_master_off_leaves_everything),
		TEST(set_interface_cancels_and_begins_anew),
		TEST(slow_cancel_delays_the_next_stream),
		TEST(port_that_is_reset_or_disabled_carries_nothing),
		TEST(unplugging_in_the_middle),
		TEST(device_that_goes_at_submit),
		TEST(nobody_at_the_address),
		TEST(isochronous_packets_to_other_endpoints_are_not_heard),
		TEST(other_packets_to_isochronous_endpoints_are_not_answered),
		TEST(isochronous_descriptors_in_a_queue),
		TEST(descriptor_that_leads_to_itself),
		TEST(descriptor_in_every_frame_is_one_packet),
		TEST(thousands_in_one_frame_are_bounded),
		TEST(frames_without_end_are_bounded),
		TEST(buffer_that_is_not_there_is_a_host_error),
		TEST(frame_list_that_is_not_there_is_no_trouble_ahead),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
