/*
 * Devices that come and go and keep their port, and devices whose way drops what a cancelled
 * transfer had moved: what the guest sees of them. Through a UHCI.
 */
#include <errno.h>

#include "fake_device.h"
#include "fake_driver.h"

#define PORT_SHOWS (PORTSC_CCS | PORTSC_CSC | PORTSC_PE)

static struct fake_device device;
static struct bh_device_ops ops; /* fake_device_ops, but for what a test changes */
static bool finishing_endpoint;

static const struct bh_endpoint_info *endpoint(const struct bh_device *d, uint8_t address)
{
	static struct bh_endpoint_info info;

	(void)d;
	if (address != 0x01 && address != 0x82)
		return NULL;
	info = (struct bh_endpoint_info){.address = address, .type = BH_BULK, .max_packet = 64, .finishes = finishing_endpoint};
	return &info;
}

static int set_up(void **state)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;

	(void)state;
	finishing_endpoint = false;
	ops = fake_device_ops;
	ops.endpoint = endpoint;
	machine(&config);
	fake_device_init(&device, BH_SPEED_FULL);
	device.device.ops = &ops;
	device.device.sticky = true;
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, &device.device), 0);
	run();
	frames(1);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	machine_finish();
	return 0;
}

static unsigned port(void)
{
	return inw(PORTSC) & PORT_SHOWS;
}

static void arrive(void)
{
	assert_int_equal(bh_device_attach(&device.device), 0);
	assert_int_equal(port(), PORTSC_CCS | PORTSC_CSC);
	enable_port(0);
	frames(1);
	assert_int_equal(port(), PORTSC_CCS | PORTSC_PE);
}

static void nothing_shows_before_it_is_attached(void **state)
{
	(void)state;
	assert_int_equal(port(), 0);
	assert_int_equal(device.resets, 0); /* it is asked nothing while it is away */
	bh_bus_power_on(bh_uhci_bus(uhci));
	outw(PORTSC, PORTSC_PR);
	outw(PORTSC, 0);
	assert_int_equal(device.resets, 0);
	assert_int_equal(port(), 0);
	arrive();
}

static void what_goes_comes_back_in_the_same_port(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		arrive();
		bh_device_detach(&device.device);
		bh_device_detach(&device.device);
		assert_int_equal(port(), PORTSC_CSC);
		outw(PORTSC, PORTSC_CSC | PORTSC_PEC);
		frames(300);
		assert_int_equal(device.destroyed, 0);
		assert_ptr_equal(bh_port_device(&bh_uhci_bus(uhci)->ports[0]), &device.device);
	}
}

static void what_goes_ends_its_transfers(void **state)
{
	(void)state;
	arrive();
	device.hold = true;
	only_queue(BH_PID_IN, 2, 4, 0);
	frames(2);
	assert_non_null(device.held);
	bh_device_detach(&device.device);
	assert_null(device.held);
	frames(4);
	assert_int_equal(control_of(0) & ENDED, LOST);
	device.hold = false;
	outw(PORTSC, PORTSC_CSC | PORTSC_PEC);
	arrive();
	only_queue(BH_PID_IN, 2, 4, 0);
	frames(2);
	assert_int_equal(control_of(3) & ENDED, 0);
}

static void attached_twice_is_attached_once(void **state)
{
	(void)state;
	arrive();
	assert_int_equal(bh_device_attach(&device.device), 0);
	assert_int_equal(port(), PORTSC_CCS | PORTSC_PE);
}

static void too_fast_for_the_port_does_not_show(void **state)
{
	(void)state;
	device.device.speed = BH_SPEED_HIGH;
	assert_int_equal(bh_device_attach(&device.device), -ENOTSUP);
	assert_int_equal(port(), 0);
	device.device.speed = BH_SPEED_FULL;
	arrive();
}

static void in_no_port_nothing_happens(void **state)
{
	struct fake_device other;

	(void)state;
	fake_device_init(&other, BH_SPEED_FULL);
	other.device.sticky = true;
	assert_int_equal(bh_device_attach(&other.device), -ENOTCONN);
	bh_device_detach(&other.device);
}

/* What cannot come back is let go of. */
static void no_longer_sticky_goes_for_good(void **state)
{
	(void)state;
	arrive();
	device.device.sticky = false;
	bh_device_detach(&device.device);
	frames(2);
	assert_int_equal(device.destroyed, 1);
	assert_null(bh_port_device(&bh_uhci_bus(uhci)->ports[0]));
}

static void a_way_that_loses_what_was_moved_carries_packet_by_packet(void **state)
{
	static const struct {
		bool loses, finishes;
		uint32_t length; /* of the first transfer */
	} rows[] = {
		{false, false, 256}, {true, false, 64}, {true, true, 256}, {false, true, 256},
	};

	for (size_t i = 0; i < BH_COUNT(rows); i++)
		for (unsigned in = 0; in < 2; in++) {
			device.device.cancel_loses = rows[i].loses;
			finishing_endpoint = rows[i].finishes;
			arrive();
			device.hold = true;
			only_queue(in ? BH_PID_IN : BH_PID_OUT, in ? 2 : 1, 4, 0);
			frames(2);
			assert_int_equal(device.held->length, rows[i].length);
			frames(120); /* longer than any batch lingers */
			assert_int_equal(device.cancels, !rows[i].loses && !rows[i].finishes);
			frame_list(LINK_T);
			tear_down(state);
			set_up(state);
		}
}

/* 256 KiB at full speed take longer than any batch lingers: that is no reason to cancel it. */
static void what_the_wire_needs_is_no_lingering(void **state)
{
	(void)state;
	device.device.us_per_kib = 400000; /* a quarter of a KiB: 100 ms */
	arrive();
	device.hold = true;
	only_queue(BH_PID_OUT, 1, 4, 0);
	frames(2);
	frames(140);
	assert_int_equal(device.cancels, 0);
	frames(20);
	assert_int_equal(device.cancels, 1);
	assert_int_equal(engine()->cancels[BH_CANCEL_LINGER], 1);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(nothing_shows_before_it_is_attached),
		TEST(what_goes_comes_back_in_the_same_port),
		TEST(what_goes_ends_its_transfers),
		TEST(attached_twice_is_attached_once),
		TEST(too_fast_for_the_port_does_not_show),
		TEST(in_no_port_nothing_happens),
		TEST(no_longer_sticky_goes_for_good),
		TEST(what_the_wire_needs_is_no_lingering),
		TEST(a_way_that_loses_what_was_moved_carries_packet_by_packet),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
