/*
 * What a device is asked, and what the guest hears of its answers: the control
 * pipe against guests that break its rules, endpoints across configurations,
 * devices that take part of a transfer, too much, or nothing. Through a UHCI, so
 * that guest memory, its limits included, is real.
 */
#include "../../src/usb/internal.h"
#include "fake_device.h"
#include "fake_driver.h"

/* --- the device: several transfers at once, and endpoints that depend on the configuration ------- */

struct pipes {
	struct fake_device fake;
	struct bh_transfer *held[2][16]; /* [in][number] */
	uint8_t cancelled[16];           /* endpoints, in order */
	unsigned cancels, asked;
	bool late;      /* does not end a transfer when it is cancelled */
	uint32_t moved; /* bytes that a cancelled transfer ends with */
};

/* As the configuration says: endpoint 1 has packets of 64 bytes, or, in configuration 2, of 8. */
static const struct bh_endpoint_info endpoints[] = {
	{.address = 0x01, .type = BH_BULK, .max_packet = 64, .interface = 0},
	{.address = 0x82, .type = BH_BULK, .max_packet = 64, .interface = 1},
	{.address = 0x03, .type = BH_BULK, .max_packet = 64, .interface = 1},
};
static const struct bh_endpoint_info small_endpoint = {.address = 0x01, .type = BH_BULK, .max_packet = 8};

static struct pipes device;

static struct bh_transfer **slot_of(uint8_t endpoint)
{
	return &device.held[endpoint >> 7][endpoint & 15];
}

static struct bh_transfer *held(uint8_t endpoint)
{
	return *slot_of(endpoint);
}

static void end(uint8_t endpoint, enum bh_status status, uint32_t actual)
{
	struct bh_transfer *t = held(endpoint);

	*slot_of(endpoint) = NULL;
	device.fake.held = t;
	fake_device_end(&device.fake, status, actual);
}

static void pipes_submit(struct bh_device *d, struct bh_transfer *t)
{
	fake_device_submit(d, t);
	if (device.fake.held == t) {
		assert_null(held(t->endpoint)); /* one at a time */
		*slot_of(t->endpoint) = t;
	}
}

static void pipes_cancel(struct bh_device *d, struct bh_transfer *t)
{
	(void)d;
	if (device.cancels < BH_COUNT(device.cancelled))
		device.cancelled[device.cancels++] = t->endpoint;
	if (!device.late && held(t->endpoint) == t)
		end(t->endpoint, BH_CANCELLED, BH_MIN(device.moved, t->length));
}

static const struct bh_endpoint_info *pipes_endpoint(const struct bh_device *d, uint8_t address)
{
	device.asked++;
	if (fake_device_of(d)->configuration == 2 && address == small_endpoint.address)
		return &small_endpoint;
	for (size_t i = 0; i < BH_COUNT(endpoints); i++)
		if (endpoints[i].address == address)
			return &endpoints[i];
	return NULL;
}

static void pipes_destroy(struct bh_device *d)
{
	device.fake.held = NULL;
	for (unsigned i = 0; i < 32; i++)
		if (held((uint8_t)((i & 16) << 3 | (i & 15))))
			end((uint8_t)((i & 16) << 3 | (i & 15)), BH_CANCELLED, 0);
	fake_device_destroy(d);
}

static struct bh_device_ops ops; /* fake_device_ops but for the above */

/* --- the driver -------------------------------------------------------------------------------- */

static void start_queue(void)
{
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
	frames(1);
}

static void make(bool finishes)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;

	ops = fake_device_ops;
	ops.submit = pipes_submit;
	ops.cancel = pipes_cancel;
	ops.endpoint = pipes_endpoint;
	ops.destroy = pipes_destroy;
	machine(&config);
	memset(&device, 0, sizeof(device));
	fake_device_init(&device.fake, BH_SPEED_FULL);
	device.fake.device.ops = &ops;
	device.fake.device.finishes = finishes;
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, &device.fake.device), 0);
	enable_port(0);
	run();
	frames(1);
}

static int setup(void **state)
{
	(void)state;
	make(false);
	return 0;
}

static int setup_finishing(void **state)
{
	(void)state;
	make(true);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	device.late = false;
	machine_finish();
	return 0;
}

/* --- the control pipe ------------------------------------------------------------------------------ */

static void control_out_beyond_what_was_announced_stalls(void **state)
{
	static const struct {
		const char *bytes;
		unsigned first, second; /* lengths */
		int stalls;             /* which one */
	} rows[] = {
		{"\x21\x09\x00\x00\x00\x00\x04\x00", 8, 0, 1}, /* wLength 4 */
		{"\x21\x09\x00\x00\x00\x00\x0a\x00", 8, 8, 2}, /* 10 */
		{"\x21\x09\x00\x00\x00\x00\x08\x00", 8, 1, 2}, /* 8: nothing more */
		{"\x21\x09\x00\x00\x00\x00\x00\x00", 8, 0, 1}, /* no data at all */
	};

	(void)state;
	device.fake.hold = true;
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		if (held(0)) {
			device.moved = 0;
			enable_port(0);
		}
		setup_packet(0, TD(1), 0, rows[i].bytes);
		td(1, TD(2), ACTIVE, token(BH_PID_OUT, 0, 0, 1, rows[i].first));
		td(2, LINK_T, ACTIVE, token(BH_PID_OUT, 0, 0, 0, rows[i].second));
		start_queue();
		if (held(0))
			end(0, BH_SUCCESS, held(0)->length);
		frames(1);
		assert_int_equal(element_of(0), TD(rows[i].stalls));
		assert_int_equal(control_of((unsigned)rows[i].stalls) & ENDED, TD_STALLED);
	}
}

static void control_in_packet_without_room_is_babble(void **state)
{
	(void)state;
	setup_packet(0, TD(1), 0, "\x80\x06\x00\x01\x00\x00\x12\x00");
	td(1, TD(2), ACTIVE, token(BH_PID_IN, 0, 0, 1, 4));
	td(2, LINK_T, ACTIVE, token(BH_PID_IN, 0, 0, 1, 8));
	memset(guest.memory + BUFFER(1), 0xa5, 64);
	start_queue();
	assert_int_equal(control_of(1) & ENDED, TD_STALLED | TD_BABBLE);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(guest.memory[BUFFER(1) + i], 0xa5);
	assert_int_equal(element_of(0), TD(1));
}

static void reading_past_a_short_end_is_empty_and_past_all_that_was_asked_for_stalls(void **state)
{
	static const struct {
		const char *bytes;
		uint32_t there;   /* what the device has */
		unsigned packets; /* that are answered, the last perhaps with nothing */
	} rows[] = {
		{"\x80\x06\x00\x01\x00\x00\x12\x00", 4, 1},  /* 18 asked: a short packet was the end */
		{"\x80\x06\x00\x01\x00\x00\x12\x00", 8, 2},  /* a zero-length one was */
		{"\x80\x06\x00\x01\x00\x00\x12\x00", 18, 3},
		{"\x80\x06\x00\x01\x00\x00\x08\x00", 8, 1},  /* all that was asked for */
	};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		device.fake.actual_limit = rows[i].there;
		setup_packet(0, TD(1), 0, rows[i].bytes);
		for (unsigned n = 1; n < 6; n++)
			td(n, n < 5 ? TD(n + 1) : LINK_T, ACTIVE, token(BH_PID_IN, 0, 0, n & 1, 8));
		start_queue();
		for (unsigned n = 1; n <= rows[i].packets; n++)
			assert_int_equal(control_of(n) & ENDED, 0);
		if (rows[i].there == (uint8_t)rows[i].bytes[6]) { /* more than it asked for */
			assert_int_equal(element_of(0), TD(rows[i].packets + 1));
			assert_int_equal(control_of(rows[i].packets + 1) & ENDED, TD_STALLED);
		} else {
			assert_int_equal(element_of(0), LINK_T);
			for (unsigned n = rows[i].packets + 1; n < 6; n++)
				assert_int_equal(control_of(n), TD_CERR | TD_NO_BYTES);
		}
	}
}

static void early_status_ends_a_request_that_runs(void **state)
{
	(void)state;
	device.fake.hold = true;
	setup_packet(0, TD(1), 0, "\x80\x06\x00\x01\x00\x00\x12\x00");
	td(1, LINK_T, ACTIVE, token(BH_PID_IN, 0, 0, 1, 8));
	start_queue();
	assert_non_null(held(0));
	td(2, LINK_T, ACTIVE, token(BH_PID_OUT, 0, 0, 1, 0)); /* it has heard enough */
	fake_put32(&guest, QH(0) + 4, TD(2));
	frames(2);
	assert_int_equal(device.cancels, 1);
	assert_int_equal(control_of(2) & ENDED, 0);
	assert_int_equal(element_of(0), LINK_T);
}

static void address_128_is_refused(void **state)
{
	static const struct {
		const char *bytes;
		uint32_t status;
		uint8_t address;
	} rows[] = {
		{"\x00\x05\x80\x00\x00\x00\x00\x00", TD_STALLED, 0},
		{"\x00\x05\x00\x01\x00\x00\x00\x00", TD_STALLED, 0}, /* 256 */
		{"\x00\x05\x7f\x00\x00\x00\x00\x00", 0, 127},
	};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		request(rows[i].bytes);
		assert_int_equal(control_of(201) & ENDED, rows[i].status);
		assert_int_equal(bh_uhci_bus(uhci)->ports[0].attached->address, rows[i].address);
	}
	assert_int_equal(device.fake.submits, 0);
}

static void only_a_halt_of_a_real_endpoint_is_cleared_by_the_bus(void **state)
{
	(void)state;
	request("\x02\x01\x01\x00\x82\x00\x00\x00"); /* another feature */
	assert_int_equal(device.fake.submits, 1);
	request("\x02\x01\x00\x00\x80\x00\x00\x00"); /* endpoint 0 */
	assert_int_equal(device.fake.submits, 2);
	assert_int_equal(device.fake.halted_cleared, 0);
	request("\x02\x01\x00\x00\x82\x00\x00\x00");
	assert_int_equal(device.fake.submits, 2);
	assert_int_equal(device.fake.halted_cleared, 0x82);
}

/* What is linked no more when a driver turns to the control pipe will not come back: no need to wait. */
static void setup_withdraws_queues_that_are_not_linked(void **state)
{
	(void)state;
	device.fake.hold = true;
	fill_queue(0, 0, 2, BH_PID_OUT, 1, 0);
	fill_queue(1, 4, 2, BH_PID_IN, 2, 0);
	qh(0, QH(1) | LINK_Q, TD(0));
	frame_list(QH(0) | LINK_Q);
	frames(2);
	assert_non_null(held(0x01));
	assert_non_null(held(0x82));
	frame_list(QH(1) | LINK_Q);
	frames(2);
	assert_int_equal(device.cancels, 0);
	setup_packet(8, TD(9), 0, "\x80\x06\x00\x01\x00\x00\x12\x00");
	td(9, LINK_T, ACTIVE, token(BH_PID_IN, 0, 0, 1, 8));
	qh(2, LINK_T, TD(8));
	qh(1, QH(2) | LINK_Q, TD(4));
	frames(2);
	assert_int_equal(device.cancels, 1);
	assert_int_equal(device.cancelled[0], 0x01);
	assert_non_null(held(0x82));
}

/* --- configurations ------------------------------------------------------------------------------------ */

static void endpoints_are_asked_for_anew_after_set_configuration(void **state)
{
	(void)state;
	only_queue(BH_PID_OUT, 1, 1, 0);
	frames(2);
	assert_int_equal(control_of(0) & ENDED, 0);
	only_queue(BH_PID_OUT, 1, 1, 0);
	frames(2);
	assert_int_equal(device.asked, 1); /* not for every packet */
	request("\x00\x09\x02\x00\x00\x00\x00\x00");
	only_queue(BH_PID_OUT, 1, 1, 0);
	frames(4);
	assert_int_equal(device.asked, 2);
	assert_int_equal(control_of(0) & ENDED, LOST); /* 64 bytes are too many now */
	td(0, LINK_T, ACTIVE, token(BH_PID_OUT, 0, 1, 0, 8));
	qh(0, LINK_T, TD(0));
	frames(2);
	assert_int_equal(control_of(0) & ENDED, 0);
}

static void endpoint_waits_for_its_old_transfer_before_it_is_new(void **state)
{
	(void)state;
	device.fake.hold = device.late = true;
	only_queue(BH_PID_OUT, 1, 1, 0);
	frames(2);
	assert_non_null(held(0x01));
	request("\x00\x09\x02\x00\x00\x00\x00\x00");
	assert_int_equal(device.cancels, 1);
	td(0, LINK_T, ACTIVE, token(BH_PID_OUT, 0, 1, 0, 8));
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
	frames(3);
	assert_int_equal(control_of(0), ACTIVE);
	assert_int_equal(device.fake.submits, 1);
	end(0x01, BH_CANCELLED, 0);
	frames(1);
	assert_int_equal(device.fake.submits, 2);
	assert_int_equal(held(0x01)->length, 8);
	end(0x01, BH_SUCCESS, 8);
	frames(1);
	assert_int_equal(control_of(0) & ENDED, 0);
}

static struct bh_transfer *operation; /* of the device, not ended */

static void configure_later(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	(void)value;
	(void)d;
	operation = t;
}

static void set_interface_later(struct bh_device *d, uint8_t interface, uint8_t alternate, struct bh_transfer *t)
{
	(void)interface;
	(void)alternate;
	(void)d;
	operation = t;
}

/* A request in queue 7, and behind it an OUT that does not wait for its answer. */
static void request_and_out(const char *bytes, unsigned length)
{
	setup_packet(200, TD(201), 0, bytes);
	td(201, LINK_T, ACTIVE, token(BH_PID_IN, 0, 0, 1, 0));
	qh(7, QH(0) | LINK_Q, TD(200));
	td(0, LINK_T, ACTIVE, token(BH_PID_OUT, 0, 1, 0, length));
	qh(0, LINK_T, TD(0));
	frame_list(QH(7) | LINK_Q);
	frames(3);
}

/* Until a configuration is set nobody knows what its endpoints are. */
static void endpoint_is_not_asked_for_while_a_configuration_is_being_set(void **state)
{
	(void)state;
	ops.set_configuration = configure_later;
	request_and_out("\x00\x09\x02\x00\x00\x00\x00\x00", 8);
	assert_non_null(operation);
	assert_int_equal(device.asked, 0);
	assert_int_equal(device.fake.submits, 0);
	assert_int_equal(control_of(0), ACTIVE); /* busy: it is neither heard nor lost */
	assert_int_equal(control_of(201), ACTIVE);
	device.fake.configuration = 2; /* packets of 8 bytes */
	bh_transfer_done(operation, BH_SUCCESS, 0);
	frames(2);
	assert_int_equal(control_of(201) & ENDED, 0);
	assert_int_equal(control_of(0) & ENDED, 0);
	assert_int_equal(device.fake.submits, 1);
	td(0, LINK_T, ACTIVE, token(BH_PID_OUT, 0, 1, 0, 64));
	qh(0, LINK_T, TD(0));
	frames(4);
	assert_int_equal(control_of(0) & ENDED, LOST);
	assert_int_equal(device.fake.submits, 1);
}

/* The same of an interface; and a request that fails, or is given up, leaves no endpoint waiting. */
static void endpoint_waits_for_the_end_of_an_operation_however_it_ends(void **state)
{
	static const char *const requests[] = {"\x00\x09\x01\x00\x00\x00\x00\x00",
	                                       "\x01\x0b\x01\x00\x00\x00\x00\x00"};
	static const enum bh_status ends[] = {BH_SUCCESS, BH_STALL, BH_NO_RESPONSE, BH_CANCELLED};

	(void)state;
	ops.set_configuration = configure_later;
	ops.set_interface = set_interface_later;
	for (size_t r = 0; r < BH_COUNT(requests); r++)
		for (size_t e = 0; e < BH_COUNT(ends); e++) {
			unsigned submits = device.fake.submits;

			request_and_out(requests[r], 64);
			assert_int_equal(device.fake.submits, submits);
			assert_int_equal(control_of(0), ACTIVE);
			if (ends[e] == BH_CANCELLED) /* by another SETUP */
				request("\x00\x05\x00\x00\x00\x00\x00\x00");
			bh_transfer_done(operation, ends[e], 0);
			qh(0, LINK_T, TD(0));
			frame_list(QH(0) | LINK_Q);
			frames(2);
			assert_int_equal(device.fake.submits, submits + 1);
			assert_int_equal(control_of(0) & ENDED, 0);
		}
}

static void set_interface_resets_its_own_endpoints_only(void **state)
{
	(void)state;
	device.fake.hold = true;
	fill_queue(0, 0, 2, BH_PID_OUT, 1, 0); /* interface 0 */
	fill_queue(1, 4, 2, BH_PID_IN, 2, 0);  /* interface 1 */
	fill_queue(2, 8, 2, BH_PID_OUT, 3, 0);
	qh(0, QH(1) | LINK_Q, TD(0));
	qh(1, QH(2) | LINK_Q, TD(4));
	frame_list(QH(0) | LINK_Q);
	frames(2);
	assert_int_equal(device.fake.submits, 3);
	qh(7, LINK_T, LINK_T);
	request("\x01\x0b\x01\x00\x01\x00\x00\x00");
	assert_int_equal(control_of(201) & ENDED, 0);
	assert_int_equal(device.cancels, 2);
	assert_int_not_equal(device.cancelled[0], 0x01);
	assert_int_not_equal(device.cancelled[1], 0x01);
	assert_non_null(held(0x01));
	assert_int_equal(device.fake.interface, 1);
}

/* --- what a device gets --------------------------------------------------------------------------------- */

static void zero_length_packet_is_a_flag_of_the_transfer(void **state)
{
	(void)state;
	device.fake.hold = true;
	for (unsigned with = 0; with < 2; with++) {
		only_queue(BH_PID_OUT, 1, 1 + with, 0);
		if (with)
			td(1, LINK_T, ACTIVE, token(BH_PID_OUT, 0, 1, 1, 0));
		frames(1);
		assert_non_null(held(0x01));
		assert_int_equal(held(0x01)->length, 64);
		assert_int_equal(held(0x01)->flags & BH_TRANSFER_ZERO_PACKET, with ? BH_TRANSFER_ZERO_PACKET : 0);
		end(0x01, BH_SUCCESS, 64);
		frames(1);
		assert_int_equal(element_of(0), LINK_T);
		assert_int_equal(control_of(with) & (ENDED | TD_ACTLEN), with ? TD_NO_BYTES : 63);
	}
}

/* A transfer that lingers is cancelled; the device took 100 bytes, and gets the rest, from there on. */
static void rest_of_a_partly_taken_packet_is_sent(void **state)
{
	(void)state;
	device.fake.hold = true;
	device.moved = 100;
	only_queue(BH_PID_OUT, 1, 4, 0);
	frames(60);
	assert_int_equal(device.cancels, 1);
	assert_int_equal(control_of(0) & ENDED, 0);
	assert_int_equal(control_of(1), ACTIVE); /* 36 bytes of it are there */
	assert_int_equal(held(0x01)->length, 256 - 100);
	end(0x01, BH_SUCCESS, 156);
	for (unsigned i = 0; i < 156; i++)
		assert_int_equal(device.fake.out[i], fill_byte((100 + i) / 64, (100 + i) % 64));
	frames(1);
	assert_int_equal(element_of(0), LINK_T);
	assert_int_equal(control_of(1) & (ENDED | TD_ACTLEN), 63);
	assert_int_equal(engine()->bytes_out, 256);
	assert_int_equal(engine()->ahead_bytes, 0);
}

static void a_device_that_finishes_is_waited_for(void **state)
{
	(void)state;
	device.fake.hold = true;
	only_queue(BH_PID_IN, 2, 4, 0);
	frames(500);
	assert_int_equal(device.cancels, 0);
}

/* What moves is waited for, up to twice as long: the guest waits for the first packet of it. */
static void progress_is_waited_for_but_not_for_ever(void **state)
{
	(void)state;
	device.fake.hold = true;
	only_queue(BH_PID_IN, 2, 10, 0);
	frames(1);
	for (uint32_t i = 1; i <= 2; i++) {
		device.moved = 64 * i;
		frames(40);
		assert_int_equal(device.cancels, 0);
		bh_transfer_progress(held(0x82), 64 * i);
	}
	frames(30);
	assert_int_equal(device.cancels, 1);
	assert_int_equal(control_of(0) & ENDED, 0);
	assert_int_equal(control_of(1) & ENDED, 0);
	assert_int_equal(control_of(2), ACTIVE);
}

/* --- devices that say what cannot be ---------------------------------------------------------------------- */

static void more_than_asked_for_is_not_believed(void **state)
{
	static const struct {
		uint32_t pid;
		unsigned endpoint;
	} rows[] = {{BH_PID_OUT, 1}, {BH_PID_IN, 2}};

	(void)state;
	device.fake.hold = true;
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		uint8_t address = (uint8_t)(rows[i].endpoint | (rows[i].pid == BH_PID_IN ? BH_ENDPOINT_IN : 0));
		struct bh_transfer *t;

		only_queue(rows[i].pid, rows[i].endpoint, 2, 0);
		frames(1);
		t = held(address);
		*slot_of(address) = device.fake.held = NULL;
		bh_transfer_done(t, BH_SUCCESS, 100000);
		frames(1);
		assert_int_equal(element_of(0), LINK_T);
		assert_int_equal(control_of(1) & (ENDED | TD_ACTLEN), 63);
	}
	assert_int_equal(engine()->bytes_out, 128);
	assert_int_equal(engine()->bytes_in, 128);
}

/* To a guest it is a device that did not answer: it is not asked again for ever. */
static void cancelled_unasked_is_no_answer(void **state)
{
	(void)state;
	device.fake.status = BH_CANCELLED;
	device.fake.actual_limit = 0;
	only_queue(BH_PID_IN, 2, 1, 0);
	fake_put32(&guest, TD(0) + 4, ONCE);
	frames(1);
	assert_int_equal(control_of(0) & ENDED, LOST);
	assert_int_equal(device.fake.submits, 1);
}

/* --- what the device has and the guest was not told of ------------------------------------------- */

static void change_in_an_unlinked_queue_is_counted_as_ahead(void **state)
{
	(void)state;
	device.fake.hold = true;
	device.moved = 256;
	only_queue(BH_PID_OUT, 1, 4, 0);
	frames(2);
	frame_list(LINK_T);
	frames(2);
	guest.memory[BUFFER(2)] ^= 0xff;
	frame_list(QH(0) | LINK_Q);
	frames(2);
	assert_int_equal(device.cancels, 1);
	assert_int_equal(engine()->failures, 0);
	assert_int_equal(engine()->ahead_bytes, 128);
	assert_int_equal(element_of(0), TD(2)); /* what precedes it stands */
	assert_int_equal(held(0x01)->length, 128);
}

static void resets_count_what_the_device_took(void **state)
{
	(void)state;
	device.fake.hold = true;
	only_queue(BH_PID_OUT, 1, 4, 0);
	frames(2);
	frame_list(LINK_T);
	frames(2);
	end(0x01, BH_SUCCESS, 256); /* all of it, and nobody asks for the outcome */
	frames(2);
	enable_port(0);
	assert_int_equal(engine()->ahead_bytes, 256);

	device.moved = 100; /* while it runs */
	only_queue(BH_PID_OUT, 1, 4, 0);
	frames(2);
	enable_port(0);
	assert_int_equal(engine()->ahead_bytes, 356);

	only_queue(BH_PID_IN, 2, 4, 0); /* what it gave is another matter */
	frames(2);
	enable_port(0);
	assert_int_equal(engine()->ahead_bytes, 356);
}

/* The part of a packet that was taken, where the packet does not come again. */
static void taken_part_of_another_packet_is_counted_and_not_left_out(void **state)
{
	(void)state;
	device.fake.hold = device.late = true;
	only_queue(BH_PID_OUT, 1, 2, 0);
	frames(60);
	assert_int_equal(device.cancels, 1); /* lingered */
	frame_list(LINK_T);
	frames(2);
	end(0x01, BH_CANCELLED, 100);
	fill_queue(0, 4, 2, BH_PID_OUT, 1, 0); /* others take their place */
	frame_list(QH(0) | LINK_Q);
	frames(2);
	assert_int_equal(engine()->ahead_bytes, 100);
	assert_int_equal(held(0x01)->length, 128);
}

static void same_descriptor_in_another_queue_is_another_request(void **state)
{
	(void)state;
	device.fake.hold = true;
	only_queue(BH_PID_OUT, 1, 1, 0);
	frames(2);
	frame_list(LINK_T);
	frames(2);
	end(0x01, BH_SUCCESS, 64);
	qh(1, LINK_T, TD(0));
	frame_list(QH(1) | LINK_Q);
	frames(2);
	assert_int_equal(device.fake.submits, 2);
	assert_int_equal(engine()->ahead_bytes, 64);
}

/* --- rings ----------------------------------------------------------------------------------- */

static void ring(unsigned first, unsigned n)
{
	fill_queue(0, first, n, BH_PID_OUT, 1, 0);
	fake_put32(&guest, TD(first + n - 1), TD(first));
	frame_list(QH(0) | LINK_Q);
}

/* The table of what SCAN has seen is emptied only when its stamp wraps; until then old entries lie in it. */
static void rings_are_found_when_the_stamp_wraps(void **state)
{
	struct bh_attached *a = bh_uhci_bus(uhci)->ports[0].attached;

	(void)state;
	device.fake.hold = true;
	for (unsigned round = 0; round < 5; round++) {
		struct bh_batch *b;

		ring(round == 1 ? 8 : 0, 6);
		frames(1);
		assert_int_equal(held(0x01)->length, 6 * 64);
		assert_int_equal(engine()->scan_end[BH_SCAN_RING], round + 1);
		end(0x01, BH_SUCCESS, 6 * 64);
		frames(1);
		b = &a->endpoints[0][1]->destination.batch;
		assert_int_not_equal(b->stamp, 0); /* that is what was never used */
		if (round == 0)
			b->stamp = UINT8_MAX;
	}
}

#define TEST(test)      cmocka_unit_test_setup_teardown(test, setup, teardown)
#define FINISHING(test) cmocka_unit_test_setup_teardown(test, setup_finishing, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(control_out_beyond_what_was_announced_stalls),
		TEST(control_in_packet_without_room_is_babble),
		TEST(reading_past_a_short_end_is_empty_and_past_all_that_was_asked_for_stalls),
		TEST(early_status_ends_a_request_that_runs),
		TEST(address_128_is_refused),
		TEST(only_a_halt_of_a_real_endpoint_is_cleared_by_the_bus),
		TEST(setup_withdraws_queues_that_are_not_linked),
		TEST(endpoints_are_asked_for_anew_after_set_configuration),
		TEST(endpoint_waits_for_its_old_transfer_before_it_is_new),
		TEST(endpoint_is_not_asked_for_while_a_configuration_is_being_set),
		TEST(endpoint_waits_for_the_end_of_an_operation_however_it_ends),
		TEST(set_interface_resets_its_own_endpoints_only),
		TEST(zero_length_packet_is_a_flag_of_the_transfer),
		TEST(rest_of_a_partly_taken_packet_is_sent),
		FINISHING(a_device_that_finishes_is_waited_for),
		TEST(progress_is_waited_for_but_not_for_ever),
		TEST(more_than_asked_for_is_not_believed),
		TEST(cancelled_unasked_is_no_answer),
		TEST(change_in_an_unlinked_queue_is_counted_as_ahead),
		TEST(resets_count_what_the_device_took),
		TEST(taken_part_of_another_packet_is_counted_and_not_left_out),
		TEST(same_descriptor_in_another_queue_is_another_request),
		TEST(rings_are_found_when_the_stamp_wraps),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
