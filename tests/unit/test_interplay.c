/*
 * Emulated devices and the bus together, as a guest's driver meets them: what happens to what
 * is on its way when a port is reset, an endpoint halted, or a request refused.
 */
#include <function/hid.h>
#include <function/hub.h>
#include <function/serial.h>
#include <function/zero.h>
#include <uv.h>

#include "fake_driver.h"

#define PACKETS 40u

static uv_loop_t loop;

static struct bh_device *zero(void)
{
	struct bh_device *d;

	assert_int_equal(bh_zero_create(&(struct bh_zero_config){.pattern = 2}, &d), 0);
	return d;
}

static struct bh_device *hid(enum bh_hid_kind kind)
{
	char error[256];
	struct bh_device *d;

	assert_int_equal(bh_hid_create(&loop, &(struct bh_hid_config){.kind = kind, .speed = BH_SPEED_FULL}, &d, error,
	                               sizeof(error)), 0);
	return d;
}

/* In root port 0, which carries packets. */
static struct bh_device *plug(struct bh_device *d)
{
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, d), 0);
	enable_port(0);
	run();
	frames(1);
	return d;
}

/* A request without data to address 0. True: it was done. */
static bool done(const char *bytes)
{
	request(bytes);
	return !(control_of(201) & ENDED);
}

static int setup(void **state)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;

	(void)state;
	config.pace = true; /* some of what was fetched is still to be handed out when a frame ends */
	assert_int_equal(uv_loop_init(&loop), 0);
	machine(&config);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	machine_finish();
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	return 0;
}

/* --- resets ------------------------------------------------------------------------------ */

static void poll_keyboard(unsigned n)
{
	td(n, LINK_T, ACTIVE, token(BH_PID_IN, 0, 1, 0, 8));
	qh(1, LINK_T, TD(n));
	frame_list(QH(1) | LINK_Q);
	frames(2);
}

/* hid.h: events wait in the queue also while the guest has suspended the device, or reset it. */
static void reset_of_a_sleeping_keyboard_loses_no_key(void **state)
{
	struct bh_device *keyboard = plug(hid(BH_HID_KEYBOARD));
	char error[256];

	(void)state;
	assert_true(done("\x00\x09\x01\0\0\0\0\0"));
	poll_keyboard(0);
	assert_int_equal(control_of(0) & ENDED, TD_ACTIVE);
	outw(PORTSC, PORTSC_PE | PORTSC_SUSP);
	assert_int_equal(bh_hid_input(keyboard, "key a", error, sizeof(error)), 0);
	enable_port(0);
	assert_true(done("\x00\x09\x01\0\0\0\0\0"));
	poll_keyboard(1);
	assert_int_equal(control_of(1) & ENDED, 0);
	assert_int_equal(guest.memory[BUFFER(1) + 2], 4); /* a, pressed */
	poll_keyboard(2);
	assert_int_equal(control_of(2) & ENDED, 0);
	assert_int_equal(guest.memory[BUFFER(2) + 2], 0); /* and let go of */
}

/* --- halts ------------------------------------------------------------------------------------ */

static void halted_endpoint_hands_out_nothing_that_was_fetched_before(void **state)
{
	(void)state;
	plug(zero());
	assert_true(done("\x00\x09\x03\0\0\0\0\0"));
	only_queue(BH_PID_IN, 1, PACKETS, 0);
	frames(1);
	assert_int_equal(control_of(0) & TD_ACTIVE, 0);
	assert_int_equal(control_of(PACKETS - 1) & TD_ACTIVE, TD_ACTIVE);
	assert_true(done("\x02\x03\0\0\x81\0\0\0"));
	only_queue(BH_PID_IN, 1, 1, 0);
	frames(1);
	assert_int_equal(control_of(0) & ENDED, TD_STALLED);
}

/* --- requests that are refused ----------------------------------------------------------------- */

/* What zero's loopback was sent comes back, whatever the guest asks in vain meanwhile. */
static void loses_nothing_by(const char *request)
{
	plug(zero());
	assert_true(done("\x00\x09\x02\0\0\0\0\0"));
	only_queue(BH_PID_OUT, 1, PACKETS, 0);
	frames(10);
	assert_int_equal(control_of(PACKETS - 1) & ENDED, 0);
	only_queue(BH_PID_IN, 1, PACKETS, 0);
	memset(guest.memory + BUFFER(0), 0, PACKETS * BUFFER_SIZE);
	frames(1);
	assert_int_equal(control_of(0) & ENDED, 0);
	assert_int_equal(control_of(PACKETS - 1) & TD_ACTIVE, TD_ACTIVE);
	assert_false(done(request));
	frame_list(QH(0) | LINK_Q);
	frames(10);
	for (unsigned i = 0; i < PACKETS; i++) {
		assert_int_equal(control_of(i) & ENDED, 0);
		for (unsigned k = 0; k < 64; k++)
			assert_int_equal(guest.memory[BUFFER(i) + k], fill_byte(i, k));
	}
}

static void unknown_request_changes_nothing(void **state)
{
	(void)state;
	loses_nothing_by("\x40\x77\0\0\0\0\0\0");
}

static void refused_interface_changes_nothing(void **state)
{
	(void)state;
	loses_nothing_by("\x01\x0b\x05\0\0\0\0\0");
}

static void refused_configuration_changes_nothing(void **state)
{
	(void)state;
	loses_nothing_by("\x00\x09\x09\0\0\0\0\0");
}

static void halt_of_an_endpoint_that_is_not_there_is_not_cleared(void **state)
{
	(void)state;
	loses_nothing_by("\x02\x01\0\0\x91\0\0\0"); /* 0x91 is not 0x81 */
}

/* 9.4.10: the upper byte of wIndex is part of what is named. */
static void interface_and_endpoint_are_named_by_whole_words(void **state)
{
	(void)state;
	plug(zero());
	assert_true(done("\x00\x09\x03\0\0\0\0\0"));
	assert_false(done("\x01\x0b\0\0\0\x01\0\0"));
	assert_false(done("\x02\x01\0\0\x81\x01\0\0"));
	assert_false(done("\x02\x01\0\0\x10\0\0\0")); /* nor is it endpoint 0 of another kind */
}

/* --- who is who --------------------------------------------------------------------------------- */

static void no_bytes_done(struct bh_transfer *t, enum bh_status status)
{
	(void)t;
	assert_int_equal(status, BH_SUCCESS);
}

/* The device's, as it says itself; and the device is gone. */
static uint32_t product(struct bh_device *d)
{
	uint8_t bytes[18];
	struct iovec span = {bytes, sizeof(bytes)};
	struct bh_transfer t = {
		.type = BH_CONTROL, .setup = {0x80, 6, bh_put_le16(0x0100), bh_put_le16(0), bh_put_le16(18)},
		.spans = &span, .span_count = 1, .length = sizeof(bytes), .done = no_bytes_done,
	};

	bh_device_submit(d, &t);
	bh_device_destroy(d);
	return (uint32_t)(bytes[8] | bytes[9] << 8) << 16 | (uint32_t)(bytes[10] | bytes[11] << 8);
}

/* A driver, and what Windows keeps of a device, is chosen by vendor and product. */
static void no_two_kinds_have_the_same_product_number(void **state)
{
	struct bh_device *hub, *serial;
	uint32_t numbers[6];
	char error[256];

	(void)state;
	assert_int_equal(bh_hub_create(&(struct bh_hub_config){0}, &hub), 0);
	assert_int_equal(bh_serial_create(&loop, &(struct bh_serial_config){.pty = true}, &serial, error, sizeof(error)), 0);
	numbers[0] = product(hub);
	numbers[1] = product(hid(BH_HID_KEYBOARD));
	numbers[2] = product(hid(BH_HID_MOUSE));
	numbers[3] = product(hid(BH_HID_TABLET));
	numbers[4] = product(zero());
	numbers[5] = product(serial);
	for (unsigned i = 0; i < BH_COUNT(numbers); i++)
		for (unsigned k = 0; k < i; k++)
			assert_int_not_equal(numbers[i], numbers[k]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(reset_of_a_sleeping_keyboard_loses_no_key),
		TEST(halted_endpoint_hands_out_nothing_that_was_fetched_before),
		TEST(unknown_request_changes_nothing),
		TEST(refused_interface_changes_nothing),
		TEST(refused_configuration_changes_nothing),
		TEST(halt_of_an_endpoint_that_is_not_there_is_not_cleared),
		TEST(interface_and_endpoint_are_named_by_whole_words),
		TEST(no_two_kinds_have_the_same_product_number),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
