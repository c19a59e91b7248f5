/*
 * The bus as a tree: places, power, which devices carry packets, who sleeps and who is woken,
 * and what goes with a hub that goes. The hub is a fake one that does as it is told.
 */
#include <errno.h>

#include "../../src/usb/internal.h"
#include "fake_device.h"
#include "fake_driver.h"

#define PORTS 4u

struct fake_hub {
	struct fake_device fake; /* first */
	unsigned came[PORTS], went[PORTS], woken[PORTS];
};

static struct fake_hub hub, second;
static struct fake_device device, other;

static struct fake_hub *of_hub(struct bh_device *d)
{
	return (struct fake_hub *)fake_device_of(d);
}

static void hub_connected(struct bh_device *d, unsigned port, bool connected)
{
	*(connected ? &of_hub(d)->came[port] : &of_hub(d)->went[port]) += 1;
}

static void hub_wakeup(struct bh_device *d, unsigned port)
{
	of_hub(d)->woken[port]++;
}

static const struct bh_hub_ops hub_ops = {.connected = hub_connected, .wakeup = hub_wakeup};

static void hub_init(struct fake_hub *h)
{
	memset(h, 0, sizeof(*h));
	fake_device_init(&h->fake, BH_SPEED_FULL);
	h->fake.device.hub = &hub_ops;
	h->fake.device.hub_ports = PORTS;
}

static struct bh_bus *bus(void)
{
	return bh_uhci_bus(uhci);
}

static int attach(const char *place, struct bh_device *d)
{
	struct bh_port *p = bh_bus_port(bus(), place);

	assert_non_null(p);
	return bh_port_attach(p, d);
}

/* As a guest's hub driver would, through the hub. */
static void bring_up(struct fake_hub *h, unsigned port)
{
	bh_hub_port_power(&h->fake.device, port, true);
	bh_hub_port_reset(&h->fake.device, port);
	bh_hub_port_enable(&h->fake.device, port, true);
}

static void set_address(unsigned address)
{
	char bytes[8] = {0, 5, (char)address, 0, 0, 0, 0, 0};

	request(bytes);
}

/* Is there an answer from the device at the address? */
static bool answers(unsigned address, bool low_speed)
{
	setup_packet(200, LINK_T, address, "\x80\x06\0\x01\0\0\x08\0");
	fake_put32(&guest, TD(200) + 4, ONCE | (low_speed ? TD_LS : 0));
	qh(7, LINK_T, TD(200));
	frame_list(QH(7) | LINK_Q);
	frames(1);
	return !(control_of(200) & TD_STALLED);
}

static int setup(void **state)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;

	(void)state;
	machine(&config);
	hub_init(&hub);
	hub_init(&second);
	fake_device_init(&device, BH_SPEED_FULL);
	fake_device_init(&other, BH_SPEED_LOW);
	assert_int_equal(attach("1", &hub.fake.device), 0);
	enable_port(0);
	run();
	frames(1);
	set_address(5);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	machine_finish();
	return 0;
}

/* --- places ----------------------------------------------------------------------------- */

static void places_are_found_and_written(void **state)
{
	char text[BH_PLACE_SIZE];

	(void)state;
	assert_int_equal(attach("1.3", &second.fake.device), 0);
	assert_string_equal(bh_port_place(bh_bus_port(bus(), "2"), text), "2");
	assert_string_equal(bh_port_place(bh_bus_port(bus(), "1.3"), text), "1.3");
	assert_string_equal(bh_port_place(bh_bus_port(bus(), "1.3.4"), text), "1.3.4");
	assert_ptr_equal(bh_port_device(bh_bus_port(bus(), "1.3")), &second.fake.device);
	assert_null(bh_port_device(bh_bus_port(bus(), "1.4")));
}

static void what_is_no_place_is_not_found(void **state)
{
	static const char *const none[] = {"", "0", "3", "1.", ".1", "1..1", "1.0", "1.5", "2.1", "1.1.1", "01", "1.03",
	                                   "a", "1a", "1.1 ", " 1", "-1", "+1", "1.99999999999999999999", "4294967297"};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(none); i++)
		assert_null(bh_bus_port(bus(), none[i]));
}

static void a_port_takes_one_device_and_five_hubs_hang_in_a_row(void **state)
{
	static struct fake_hub chain[BH_BUS_MAX_HUBS];
	char place[32] = "1";

	(void)state;
	assert_int_equal(attach("1", &device.device), -EBUSY);
	for (unsigned i = 0; i < BH_BUS_MAX_HUBS; i++) {
		hub_init(&chain[i]);
		strcat(place, ".1");
		assert_int_equal(attach(place, &chain[i].fake.device), i < BH_BUS_MAX_HUBS - 1 ? 0 : -E2BIG);
	}
	assert_int_equal(attach(place, &device.device), 0); /* what is no hub may be there */
}

/* --- power ------------------------------------------------------------------------------ */

static void nothing_shows_without_power(void **state)
{
	(void)state;
	assert_int_equal(attach("1.2", &device.device), 0);
	assert_int_equal(hub.came[1], 0);
	assert_null(bh_hub_port_device(&hub.fake.device, 1));
	bh_hub_port_reset(&hub.fake.device, 1);
	bh_hub_port_enable(&hub.fake.device, 1, true);
	assert_false(answers(0, false));
	bh_hub_port_power(&hub.fake.device, 1, true);
	assert_int_equal(hub.came[1], 1);
	assert_ptr_equal(bh_hub_port_device(&hub.fake.device, 1), &device.device);
}

static void power_off_takes_a_device_away_without_a_word(void **state)
{
	(void)state;
	assert_int_equal(attach("1.2", &device.device), 0);
	bring_up(&hub, 1);
	set_address(6);
	assert_true(answers(6, false));
	bh_hub_port_power(&hub.fake.device, 1, false);
	assert_int_equal(hub.went[1], 0);
	assert_false(answers(6, false));
	bring_up(&hub, 1);
	assert_false(answers(6, false)); /* it has forgotten its address */
	assert_true(answers(0, false));
}

static void reset_of_the_hub_takes_its_ports_power(void **state)
{
	(void)state;
	assert_int_equal(attach("1.2", &device.device), 0);
	bring_up(&hub, 1);
	set_address(6);
	enable_port(0);
	assert_false(answers(6, false));
	assert_null(bh_hub_port_device(&hub.fake.device, 1));
	assert_true(answers(0, false)); /* the hub */
}

/* --- packets ---------------------------------------------------------------------------- */

static void devices_behind_a_hub_have_their_own_addresses(void **state)
{
	(void)state;
	assert_int_equal(attach("1.1", &device.device), 0);
	assert_int_equal(attach("1.4", &other.device), 0);
	bring_up(&hub, 0);
	set_address(6);
	bring_up(&hub, 3);
	assert_true(answers(5, false));
	assert_true(answers(6, false));
	assert_true(answers(0, true)); /* low speed, behind a full-speed hub */
	assert_false(answers(0, false));
	assert_false(answers(6, true));
}

static void packets_pass_only_where_every_port_on_the_way_lets_them(void **state)
{
	(void)state;
	assert_int_equal(attach("1.1", &second.fake.device), 0);
	assert_int_equal(attach("1.1.1", &device.device), 0);
	bring_up(&hub, 0);
	set_address(6);
	bring_up(&second, 0);
	set_address(7);
	assert_true(answers(7, false));
	bh_hub_port_enable(&hub.fake.device, 0, false);
	assert_false(answers(7, false));
	bh_hub_port_enable(&hub.fake.device, 0, true);
	assert_true(answers(7, false));
	bh_hub_port_suspend(&hub.fake.device, 0, true);
	assert_false(answers(7, false));
	bh_hub_port_suspend(&hub.fake.device, 0, false);
	assert_true(answers(7, false));
	outw(PORTSC, 0); /* the root port */
	assert_false(answers(7, false));
	assert_false(answers(5, false));
}

/* --- sleep ------------------------------------------------------------------------------ */

static void sleep_follows_from_above(void **state)
{
	(void)state;
	assert_int_equal(attach("1.1", &device.device), 0);
	bring_up(&hub, 0);
	outw(PORTSC, PORTSC_PE | PORTSC_SUSP);
	assert_int_equal(hub.fake.suspends, 1);
	assert_int_equal(device.suspends, 1);
	bh_hub_port_suspend(&hub.fake.device, 0, true); /* it sleeps already */
	assert_int_equal(device.suspends, 1);
	outw(PORTSC, PORTSC_PE | PORTSC_SUSP | PORTSC_RD);
	outw(PORTSC, PORTSC_PE);
	assert_int_equal(hub.fake.resumes, 1);
	assert_int_equal(device.resumes, 0); /* its own port still does */
	bh_hub_port_suspend(&hub.fake.device, 0, false);
	assert_int_equal(device.resumes, 1);
}

static void only_what_sleeps_on_an_enabled_port_wakes(void **state)
{
	(void)state;
	assert_int_equal(attach("1.1", &device.device), 0);
	bring_up(&hub, 0);
	bh_device_wakeup(&device.device);
	assert_int_equal(hub.woken[0], 0);
	bh_hub_port_suspend(&hub.fake.device, 0, true);
	bh_device_wakeup(&device.device);
	assert_int_equal(hub.woken[0], 1);
	bh_hub_port_suspend(&hub.fake.device, 0, false);
	outw(PORTSC, PORTSC_PE | PORTSC_SUSP);
	bh_device_wakeup(&device.device); /* told to its hub, which decides */
	assert_int_equal(hub.woken[0], 2);
	assert_int_equal(inw(PORTSC) & PORTSC_RD, 0);
	bh_device_wakeup(&hub.fake.device);
	assert_int_equal(inw(PORTSC) & PORTSC_RD, PORTSC_RD);
}

/* --- coming and going ----------------------------------------------------------------------- */

static void hubs_hear_of_what_comes_and_goes(void **state)
{
	(void)state;
	bh_hub_port_power(&hub.fake.device, 2, true);
	assert_int_equal(attach("1.3", &device.device), 0);
	assert_int_equal(hub.came[2], 1);
	bh_port_remove(bh_bus_port(bus(), "1.3"), NULL, NULL);
	assert_int_equal(hub.went[2], 1);
	assert_int_equal(device.destroyed, 1);
	fake_device_init(&device, BH_SPEED_FULL);
	assert_int_equal(attach("1.3", &device.device), 0);
	bh_device_detach(&device.device);
	assert_int_equal(hub.went[2], 2);
	frames(2);
	assert_int_equal(device.destroyed, 1);
	assert_int_equal(hub.went[2], 2);
}

static void a_hub_takes_what_hangs_from_it_along(void **state)
{
	(void)state;
	assert_int_equal(attach("1.1", &second.fake.device), 0);
	assert_int_equal(attach("1.1.2", &device.device), 0);
	bring_up(&hub, 0);
	bring_up(&second, 1);
	bh_port_remove(bh_bus_port(bus(), "1"), NULL, NULL);
	assert_int_equal(hub.fake.destroyed, 1);
	assert_int_equal(second.fake.destroyed, 1);
	assert_int_equal(device.destroyed, 1);
	assert_null(bh_bus_port(bus(), "1.1"));
	assert_true(bh_list_empty(&bus()->devices));
	assert_false(inw(PORTSC) & PORTSC_CCS);
}

static void a_hub_that_goes_by_itself_takes_them_along_too(void **state)
{
	(void)state;
	assert_int_equal(attach("1.2", &device.device), 0);
	bring_up(&hub, 1);
	set_address(6);
	bh_device_detach(&hub.fake.device);
	assert_int_equal(device.destroyed, 0);
	assert_false(answers(6, false));
	frames(2);
	assert_int_equal(hub.fake.destroyed, 1);
	assert_int_equal(device.destroyed, 1);
}

static void a_transfer_ends_when_its_device_goes(void **state)
{
	(void)state;
	assert_int_equal(attach("1.2", &device.device), 0);
	bring_up(&hub, 1);
	device.hold = true;
	only_queue(BH_PID_OUT, 1, 4, 0);
	frames(2);
	assert_non_null(device.held);
	bh_hub_port_power(&hub.fake.device, 1, false);
	assert_null(device.held);
	assert_int_equal(device.cancels, 1);
	frames(40);
	assert_int_equal(control_of(0) & ENDED, LOST);
}

static void a_failed_device_behind_a_hub_reconnects_there(void **state)
{
	(void)state;
	assert_int_equal(attach("1.2", &device.device), 0);
	bring_up(&hub, 1);
	bh_bus_port(bus(), "1.2")->attached->failed = true;
	bh_bus_port(bus(), "1.2")->attached->failed_since = guest.now_us;
	frames(1100);
	assert_int_equal(hub.went[1], 1);
	assert_int_equal(bus()->counters.reconnects, 1);
	frames(300);
	assert_int_equal(hub.came[1], 2);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(places_are_found_and_written),
		TEST(what_is_no_place_is_not_found),
		TEST(a_port_takes_one_device_and_five_hubs_hang_in_a_row),
		TEST(nothing_shows_without_power),
		TEST(power_off_takes_a_device_away_without_a_word),
		TEST(reset_of_the_hub_takes_its_ports_power),
		TEST(devices_behind_a_hub_have_their_own_addresses),
		TEST(packets_pass_only_where_every_port_on_the_way_lets_them),
		TEST(sleep_follows_from_above),
		TEST(only_what_sleeps_on_an_enabled_port_wakes),
		TEST(hubs_hear_of_what_comes_and_goes),
		TEST(a_hub_takes_what_hangs_from_it_along),
		TEST(a_hub_that_goes_by_itself_takes_them_along_too),
		TEST(a_transfer_ends_when_its_device_goes),
		TEST(a_failed_device_behind_a_hub_reconnects_there),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
