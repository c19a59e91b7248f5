/*
 * Verification as it is chosen ([0077] to [0085]): every mode of what is compared with
 * every one of when, through a UHCI: what each has to notice, what it is documented to
 * miss, what none may take for a change; and two guests: one that frees descriptors and
 * gets the same ones again, and Linux, whose queue makes no progress for half a second.
 *
 * Write traces need a source that has them: test_engine. Here they are refused.
 */
#include <errno.h>
#include <stdio.h>

#include "fake_driver.h"
#include "fake_pipes.h"

static struct fake_pipes device;
static struct fake_pipe *out_pipe;
static struct bh_verification mode;
static char context[200];

static const enum bh_verify modes[] = {BH_VERIFY_EXACT, BH_VERIFY_CHECKSUM, BH_VERIFY_TD, BH_VERIFY_BUFFER,
                                       BH_VERIFY_NONE};

static void make(bool finishes)
{
	machine(&(struct bh_uhci_config)BH_UHCI_DEFAULTS);
	fake_pipes_init(&device);
	out_pipe = fake_pipes_add(&device, 0x01, 64);
	fake_pipes_add(&device, 0x82, 64);
	device.device.finishes = finishes;
	device.device.verification = mode;
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, &device.device), 0);
	enable_port(0);
	run();
	frames(1);
}

static void equal(const char *what, uint64_t is, uint64_t expected)
{
	if (is != expected)
		fail_msg("verify=%s, verify-when=%s, %s: %s is %#x, not %#x", bh_verify_name(mode.what),
		         bh_verify_when_name(mode.when), context, what, (unsigned)is, (unsigned)expected);
}

/* In every mode: a machine of its own. */
static void in_every_mode(void (*test)(void), const char *what)
{
	for (size_t m = 0; m < BH_COUNT(modes); m++)
		for (int w = 0; w < BH_VERIFY_WHEN_COUNT; w++) {
			mode = (struct bh_verification){modes[m], (enum bh_verify_when)w};
			snprintf(context, sizeof(context), "%s", what);
			make(true);
			test();
			machine_finish();
		}
}

/* Four packets to the device, which holds them. */
static void four_under_way(void)
{
	out_pipe->hold = true;
	only_queue(BH_PID_OUT, 1, 4, 0);
	frames(2);
	equal("bytes under way", out_pipe->held ? out_pipe->held->length : 0, 256);
}

static void device_takes_all(void)
{
	fake_pipe_move(out_pipe, 256);
	fake_pipe_end(out_pipe, BH_SUCCESS);
	out_pipe->hold = false;
}

/* --- changes ---------------------------------------------------------------------------------- */

#define CHANGED 2u /* this one */

static void change_byte(void)
{
	guest.memory[BUFFER(CHANGED) + 63] ^= 1;
}

static void change_buffer(void)
{
	memset(guest.memory + BUFFER(20), 0x99, 64);
	fake_put32(&guest, TD(CHANGED) + 12, BUFFER(20));
}

/* The same bytes, elsewhere. */
static void change_buffer_alone(void)
{
	memcpy(guest.memory + BUFFER(20), guest.memory + BUFFER(CHANGED), 64);
	fake_put32(&guest, TD(CHANGED) + 12, BUFFER(20));
}

static void change_toggle(void)
{
	fake_put32(&guest, TD(CHANGED) + 8, token(BH_PID_OUT, 0, 1, 1, 64));
}

static void change_length(void)
{
	fake_put32(&guest, TD(CHANGED) + 8, token(BH_PID_OUT, 0, 1, 0, 40));
}

static void change_list(void)
{
	fill_queue(6, 8, 2, BH_PID_OUT, 1, 0);
	fake_put32(&guest, TD(CHANGED - 1), TD(8));
}

/* Other descriptors in its place that have the same buffers. */
static void change_list_alone(void)
{
	change_list();
	fake_put32(&guest, TD(8) + 12, BUFFER(2));
	fake_put32(&guest, TD(9) + 12, BUFFER(3));
}

#define NOTICES(mode) (1u << BH_VERIFY_##mode)
#define WHOLE         (NOTICES(EXACT) | NOTICES(CHECKSUM))

static const struct change {
	const char *name;
	void (*make)(void);
	unsigned noticed_by;
	bool elsewhere;      /* the list leads elsewhere; otherwise it is in place */
	uint32_t now_length; /* of the changed packet */
} changes[] = {
	{"a byte", change_byte, WHOLE, false, 64},
	{"the buffer's address", change_buffer, WHOLE | NOTICES(BUFFER), false, 64},
	{"the buffer's address alone", change_buffer_alone, WHOLE | NOTICES(BUFFER), false, 64},
	{"the toggle", change_toggle, WHOLE, false, 64},
	{"the length", change_length, WHOLE, false, 40},
	{"the list", change_list, WHOLE | NOTICES(TD) | NOTICES(BUFFER), true, 64},
	{"the list, not the buffers", change_list_alone, WHOLE | NOTICES(TD), true, 64},
};
static const struct change *change;

static bool noticed(void)
{
	return change->noticed_by >> mode.what & 1;
}

/* What the guest has there now, from the changed packet on, is what the device gets after the first two. */
static void device_has_what_the_guest_has(uint32_t from)
{
	uint32_t first = change->elsewhere ? 8 : CHANGED;

	for (unsigned i = 0; i < 2; i++) {
		uint32_t length = i ? 64 : change->now_length, buffer = fake_get32(&guest, TD(first + i) + 12);

		equal("status", control_of(first + i) & ENDED, 0);
		equal("length", actual_of(first + i), length);
		for (unsigned k = 0; k < length; k++)
			equal("byte at the device", out_pipe->stream[from++], guest.memory[buffer + k]);
	}
	equal("bytes at the device", out_pipe->length, from);
}

/* Nobody noticed: the guest is told that the device took what it has there now, and the device has the old. */
static void device_has_the_old(void)
{
	uint32_t first = change->elsewhere ? 8 : CHANGED;

	equal("bytes at the device", out_pipe->length, 256);
	for (unsigned k = 0; k < 256; k++)
		equal("byte at the device", out_pipe->stream[k], fill_byte(k / 64, k % 64));
	for (unsigned i = 0; i < 2; i++)
		equal("status", control_of(first + i) & ENDED, 0);
	equal("mismatches", engine()->mismatches, 0);
	equal("failures", engine()->failures, 0);
}

/* While the transfer runs: noticed at a retry, it is cancelled, and what is there now is sent. */
static void changed_while_it_runs(void)
{
	bool at_retry = noticed() && mode.when != BH_VERIFY_COMPLETION;

	four_under_way();
	change->make();
	frames(1);
	equal("cancels", engine()->cancels[BH_CANCEL_CHANGED], at_retry);
	equal("mismatches", engine()->mismatches, at_retry);
	if (at_retry) {
		equal("sent anew", out_pipe->submits, 2);
		out_pipe->hold = false;
		fake_pipe_serve(out_pipe);
		frames(2);
		device_has_what_the_guest_has(128);
		equal("ahead", engine()->ahead_bytes, 0);
		equal("failures", engine()->failures, 0);
		return;
	}
	frames(20); /* and not later either */
	equal("cancels", out_pipe->cancels, 0);
	device_takes_all();
	frames(4);
	if (!noticed()) {
		device_has_the_old();
	} else if (change->elsewhere) {
		device_has_what_the_guest_has(256);
		equal("ahead", engine()->ahead_bytes, 128);
	} else {
		equal("failures", engine()->failures, 1);
		equal("mismatches", engine()->mismatches, 1);
		equal("status", control_of(CHANGED) & ENDED, LOST);
	}
}

/* When it has completed, and the guest has not looked: noticed at replay, whatever "when" says. */
static void changed_after_completion(void)
{
	four_under_way();
	device_takes_all();
	change->make();
	frames(4);
	equal("cancels", out_pipe->cancels, 0);
	if (!noticed()) {
		device_has_the_old();
	} else if (change->elsewhere) {
		device_has_what_the_guest_has(256);
		equal("failures", engine()->failures, 0);
		equal("ahead", engine()->ahead_bytes, 128);
	} else {
		equal("failures", engine()->failures, 1);
		equal("mismatches", engine()->mismatches, 1);
		equal("the one before", control_of(CHANGED - 1) & ENDED, 0);
		equal("status", control_of(CHANGED) & ENDED, LOST);
		equal("the one after", control_of(CHANGED + 1) & ENDED, TD_ACTIVE);
	}
}

static void every_change_in_every_mode_while_it_runs(void **state)
{
	(void)state;
	for (size_t i = 0; i < BH_COUNT(changes); i++) {
		change = &changes[i];
		in_every_mode(changed_while_it_runs, change->name);
	}
}

static void every_change_in_every_mode_after_completion(void **state)
{
	(void)state;
	for (size_t i = 0; i < BH_COUNT(changes); i++) {
		change = &changes[i];
		in_every_mode(changed_after_completion, change->name);
	}
}

/* --- what is no change ------------------------------------------------------------------------- */

static void nothing_changes(void)
{
	four_under_way();
	frames(40);
}

static void drivers_change_what_they_may(void)
{
	four_under_way();
	fake_put32(&guest, TD(0) + 4, ACTIVE | TD_IOC); /* Linux, at the head */
	frames(3);
	fake_put32(&guest, TD(1) + 4, ACTIVE | TD_SPD);
	frames(3);
	fake_put32(&guest, TD(2) + 4, TD_ACTIVE | TD_CERR_ONE);
	frames(3);
	fake_put32(&guest, TD(1), TD(2) | LINK_VF);
	frames(3);
	fill_queue(6, 8, 2, BH_PID_OUT, 1, 0); /* more of the same, */
	fake_put32(&guest, TD(3), TD(8) | LINK_VF); /* linked where the end was */
	frames(20);
}

static void no_change(void (*what)(void), unsigned packets)
{
	what();
	equal("cancels", out_pipe->cancels, 0);
	device_takes_all();
	frames(3);
	equal("the queue's element", element_of(0), LINK_T);
	equal("bytes at the device", out_pipe->length, 64 * packets);
	for (unsigned k = 0; k < 64 * packets; k++)
		equal("byte at the device", out_pipe->stream[k], fill_byte(k / 64 < 4 ? k / 64 : k / 64 + 4, k % 64));
	equal("mismatches", engine()->mismatches, 0);
	equal("failures", engine()->failures, 0);
	equal("ahead", engine()->ahead_bytes, 0);
}

static void unchanged(void)
{
	no_change(nothing_changes, 4);
}

static void changed_as_allowed(void)
{
	no_change(drivers_change_what_they_may, 6);
	equal("IOC, set in flight", inw(USBSTS), USBSTS_USBINT);
	equal("C_ERR as found", control_of(2) & TD_CERR, TD_CERR_ONE);
}

static void unchanged_is_no_change_in_any_mode(void **state)
{
	(void)state;
	in_every_mode(unchanged, "nothing");
}

static void what_drivers_may_change_is_no_change_in_any_mode(void **state)
{
	(void)state;
	in_every_mode(changed_as_allowed, "links, IOC, SPD, C_ERR");
}

/* --- guests --------------------------------------------------------------------------------------- */

/*
 * A driver that cancels a request, and whose next one gets the descriptors, and the
 * buffers, of the last: the pool gives first what was freed last. No frame is seen in
 * which the queue was not there only if it is relinked within one; drivers wait for
 * the frame number to move on.
 */
static void same_addresses(bool completed)
{
	four_under_way();
	frame_list(LINK_T);
	frames(2);
	if (completed)
		device_takes_all();
	for (unsigned i = 0; i < 4; i++) {
		td(i, i < 3 ? TD(i + 1) : LINK_T, ACTIVE, token(BH_PID_OUT, 0, 1, i & 1, 64));
		memset(guest.memory + BUFFER(i), 0xa0 + (int)i, 64);
	}
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
	frames(3);
	if (!completed && out_pipe->held) {
		if (out_pipe->cancels) { /* the new one */
			out_pipe->hold = false;
			fake_pipe_serve(out_pipe);
		} else {
			device_takes_all();
		}
		frames(3);
	}
	equal("the queue's element", element_of(0), LINK_T); /* the guest is told that all is well */
	equal("failures", engine()->failures, 0);
}

static bool new_data_came(void)
{
	return out_pipe->length >= 256 && out_pipe->stream[out_pipe->length - 1] == 0xa3;
}

static bool fooled_by_addresses(void)
{
	return mode.what == BH_VERIFY_TD || mode.what == BH_VERIFY_BUFFER || mode.what == BH_VERIFY_NONE;
}

static void same_addresses_while_it_runs(void)
{
	same_addresses(false);
	equal("new data at the device", new_data_came(), !fooled_by_addresses());
	/* At a retry the device is stopped before it took any of the old. */
	equal("bytes at the device", out_pipe->length,
	      mode.when == BH_VERIFY_COMPLETION && !fooled_by_addresses() ? 512 : 256);
	equal("ahead", engine()->ahead_bytes, out_pipe->length - 256);
}

static void same_addresses_after_completion(void)
{
	same_addresses(true);
	equal("new data at the device", new_data_came(), !fooled_by_addresses());
	equal("ahead", engine()->ahead_bytes, fooled_by_addresses() ? 0 : 256);
}

static void pool_that_gives_the_same_descriptors_fools_addresses_alone(void **state)
{
	(void)state;
	in_every_mode(same_addresses_while_it_runs, "the same descriptors, running");
	in_every_mode(same_addresses_after_completion, "the same descriptors, completed");
}

/*
 * Another request at the head, with other descriptors, for the same buffers: addresses of
 * data alone take it for the old one.
 */
static void same_buffers(bool completed)
{
	bool fooled = mode.what == BH_VERIFY_BUFFER;

	four_under_way();
	if (completed)
		device_takes_all();
	fill_queue(6, 8, 4, BH_PID_OUT, 1, 0);
	for (unsigned i = 0; i < 4; i++) {
		memset(guest.memory + BUFFER(i), 0xa0 + (int)i, 64);
		fake_put32(&guest, TD(8 + i) + 12, BUFFER(i));
	}
	fake_put32(&guest, QH(0) + 4, TD(8));
	frames(2);
	if (!completed) {
		equal("cancels", out_pipe->cancels, !fooled);
		if (fooled)
			device_takes_all();
		out_pipe->hold = false;
		if (out_pipe->held)
			fake_pipe_serve(out_pipe);
		frames(2);
	}
	equal("the queue's element", element_of(0), LINK_T);
	equal("failures", engine()->failures, 0);
	equal("new data at the device", new_data_came(), !fooled);
	equal("ahead", engine()->ahead_bytes, completed && !fooled ? 256 : 0);
}

static void same_buffers_while_it_runs(void)
{
	same_buffers(false);
}

/* "none" has no head to tell by at replay: whatever stands there is taken for what was sent. */
static void same_buffers_after_completion(void)
{
	if (mode.what != BH_VERIFY_NONE)
		same_buffers(true);
}

static void refilled_buffers_fool_addresses_of_data_alone(void **state)
{
	(void)state;
	in_every_mode(same_buffers_while_it_runs, "the same buffers, running");
	in_every_mode(same_buffers_after_completion, "the same buffers, completed");
}

/*
 * Of a packet that the device took in part only the rest is sent, wherever the guest
 * has put its descriptor meanwhile.
 */
static void rest_of_a_packet_is_told_by_what_is_compared(void **state)
{
	(void)state;
	mode = (struct bh_verification){BH_VERIFY_BUFFER, BH_VERIFY_BOUNDED};
	snprintf(context, sizeof(context), "part of a packet");
	make(true);
	four_under_way();
	fake_pipe_move(out_pipe, 100);
	frame_list(LINK_T);
	frames(34);
	equal("withdrawn", out_pipe->cancels, 1);
	for (unsigned i = 0; i < 4; i++)
		put_td(TD(8 + i), i < 3 ? TD(9 + i) : LINK_T, ACTIVE, token(BH_PID_OUT, 0, 1, i & 1, 64), BUFFER(i));
	qh(0, LINK_T, TD(8));
	frame_list(QH(0) | LINK_Q);
	out_pipe->hold = false;
	frames(3);
	equal("the queue's element", element_of(0), LINK_T);
	equal("ahead", engine()->ahead_bytes, 0);
	equal("bytes at the device", out_pipe->length, 256);
	machine_finish();
}

/*
 * Linux 6.1, uhci-q.c: a queue without progress for 200 ms is unlinked; when the frame
 * number has moved on it is linked again, and its first descriptor asks for an
 * interrupt, so that the driver hears when it moves again. Otherwise it is unchanged.
 */
static void linux_waits(unsigned ms)
{
	for (unsigned waited = 0; waited < ms; waited += 100) {
		frames(98);
		frame_list(LINK_T);
		frames(2);
		fake_put32(&guest, element_of(0) + 4, fake_get32(&guest, element_of(0) + 4) | TD_IOC);
		frame_list(QH(0) | LINK_Q);
	}
}

static void device_has_it_once(void)
{
	frames(3);
	equal("the queue's element", element_of(0), LINK_T);
	equal("bytes at the device", out_pipe->length, 256);
	for (unsigned k = 0; k < 256; k++)
		equal("byte at the device", out_pipe->stream[k], fill_byte(k / 64, k % 64));
	equal("mismatches", engine()->mismatches, 0);
	equal("ahead", engine()->ahead_bytes, 0);
	equal("failures", engine()->failures, 0);
}

/* A device that ends what it has, and takes half a second for it. */
static void linux_and_a_slow_device(void)
{
	four_under_way();
	linux_waits(500);
	equal("cancels", out_pipe->cancels, 0);
	device_takes_all();
	device_has_it_once();
	equal("submits", out_pipe->submits, 1);
}

/* One that may never end it: it lingers, and is sent packet by packet; it takes a part each time it is asked to stop. */
static void linux_and_a_lingering_device(void)
{
	static const uint32_t parts[] = {0, 20, 64, 100};

	for (size_t i = 0; i < BH_COUNT(parts); i++) {
		machine_finish();
		make(false);
		four_under_way();
		frames(20);
		fake_pipe_move(out_pipe, parts[i]);
		linux_waits(500);
		equal("lingered", engine()->cancels[BH_CANCEL_LINGER] > 0, true);
		out_pipe->hold = false;
		if (out_pipe->held)
			fake_pipe_serve(out_pipe);
		frames(3);
		device_has_it_once();
	}
}

static void linux_without_progress_for_half_a_second(void **state)
{
	(void)state;
	in_every_mode(linux_and_a_slow_device, "Linux, 500 ms");
	in_every_mode(linux_and_a_lingering_device, "Linux, 500 ms, lingering");
}

/* --- per device --------------------------------------------------------------------------------------- */

/* Two devices, each with its own mode: the same change is noticed for one and not for the other. */
static void verification_is_chosen_for_each_device(void **state)
{
	static struct fake_pipes other;
	struct fake_pipe *other_pipe;

	(void)state;
	snprintf(context, sizeof(context), "two devices");
	mode = (struct bh_verification){BH_VERIFY_TD, BH_VERIFY_BOUNDED};
	make(true);
	fake_pipes_init(&other);
	other_pipe = fake_pipes_add(&other, 0x01, 64);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 1, &other.device), 0);
	request("\x00\x05\x05\x00\x00\x00\x00\x00"); /* the first one goes to address 5 */
	enable_port(1);
	out_pipe->hold = other_pipe->hold = true;
	fill_queue(0, 0, 4, BH_PID_OUT, 1, 0);
	fill_queue(1, 8, 4, BH_PID_OUT, 1, 0);
	for (unsigned i = 0; i < 4; i++)
		fake_put32(&guest, TD(i) + 8, token(BH_PID_OUT, 5, 1, i & 1, 64));
	qh(0, QH(1) | LINK_Q, TD(0));
	frame_list(QH(0) | LINK_Q);
	frames(2);
	assert_non_null(out_pipe->held);
	assert_non_null(other_pipe->held);
	guest.memory[BUFFER(1)] ^= 1;
	guest.memory[BUFFER(9)] ^= 1;
	frames(2);
	equal("cancels, td", out_pipe->cancels, 0);
	equal("cancels, default", other_pipe->cancels, 1);
	machine_finish();
}

static void exact_and_bounded_is_the_default(void **state)
{
	struct bh_verification none = {0};

	(void)state;
	assert_int_equal(none.what, BH_VERIFY_EXACT);
	assert_int_equal(none.when, BH_VERIFY_BOUNDED);
}

static void traces_are_refused_without_a_tracing_guest(void **state)
{
	(void)state;
	machine(&(struct bh_uhci_config)BH_UHCI_DEFAULTS);
	fake_pipes_init(&device);
	device.device.verification.what = BH_VERIFY_TRACE;
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, &device.device), -EACCES);
	assert_null(bh_bus_port_device(bh_uhci_bus(uhci), 0));
	device.device.verification.what = BH_VERIFY_EXACT; /* it is still ours */
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, &device.device), 0);
	machine_finish();
}

static void names_are_parsed_as_they_are_printed(void **state)
{
	(void)state;
	for (int i = 0; i < BH_VERIFY_COUNT; i++) {
		enum bh_verify what = BH_VERIFY_COUNT;

		assert_true(bh_verify_parse(bh_verify_name((enum bh_verify)i), &what));
		assert_int_equal(what, i);
	}
	for (int i = 0; i < BH_VERIFY_WHEN_COUNT; i++) {
		enum bh_verify_when when = BH_VERIFY_WHEN_COUNT;

		assert_true(bh_verify_when_parse(bh_verify_when_name((enum bh_verify_when)i), &when));
		assert_int_equal(when, i);
	}
	mode.what = BH_VERIFY_TD;
	assert_false(bh_verify_parse("some", &mode.what));
	assert_int_equal(mode.what, BH_VERIFY_TD);
	assert_false(bh_verify_when_parse("", &mode.when));
}

/* IN: whatever the mode, nothing is compared, and the data goes where the descriptors point then. */
static void in_data_changes(void)
{
	struct fake_pipe *in_pipe = fake_pipe(&device, 0x82);

	in_pipe->hold = true;
	only_queue(BH_PID_IN, 2, 4, 0);
	frames(2);
	memset(guest.memory + BUFFER(0), 0x55, 256);
	fake_put32(&guest, TD(2) + 12, BUFFER(20));
	frames(20);
	equal("cancels", in_pipe->cancels, 0);
	fake_pipe_serve(in_pipe);
	frames(1);
	equal("the queue's element", element_of(0), LINK_T);
	for (unsigned k = 0; k < 64; k++) {
		equal("byte where it points now", guest.memory[BUFFER(20) + k], fake_stream_byte(128 + k));
		equal("byte where it pointed", guest.memory[BUFFER(2) + k], 0x55);
	}
	equal("mismatches", engine()->mismatches, 0);
}

static void in_is_not_verified(void **state)
{
	(void)state;
	in_every_mode(in_data_changes, "IN");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_change_in_every_mode_while_it_runs),
		cmocka_unit_test(every_change_in_every_mode_after_completion),
		cmocka_unit_test(unchanged_is_no_change_in_any_mode),
		cmocka_unit_test(what_drivers_may_change_is_no_change_in_any_mode),
		cmocka_unit_test(pool_that_gives_the_same_descriptors_fools_addresses_alone),
		cmocka_unit_test(refilled_buffers_fool_addresses_of_data_alone),
		cmocka_unit_test(rest_of_a_packet_is_told_by_what_is_compared),
		cmocka_unit_test(linux_without_progress_for_half_a_second),
		cmocka_unit_test(verification_is_chosen_for_each_device),
		cmocka_unit_test(exact_and_bounded_is_the_default),
		cmocka_unit_test(traces_are_refused_without_a_tracing_guest),
		cmocka_unit_test(names_are_parsed_as_they_are_printed),
		cmocka_unit_test(in_is_not_verified),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
