/*
 * The hub: what a driver reads and sets, and what the bus is told, over a bus of a few lines;
 * then hubs behind each other on the real one.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <base/util.h>
#include <function/hub.h>
#include <usb/bus.h>

#include "fake_device.h"

#define PORTS 5u

enum { C_CONNECTION = 1 << 0, C_SUSPEND = 1 << 2, C_RESET = 1 << 4 };
enum { CONNECTION = 1 << 0, ENABLE = 1 << 1, SUSPEND = 1 << 2, POWER = 1 << 8, LOW_SPEED = 1 << 9 };
enum { F_CONNECTION, F_ENABLE, F_SUSPEND, F_OVER_CURRENT, F_RESET, F_POWER = 8, F_LOW_SPEED, F_C_CONNECTION = 16,
       F_C_ENABLE, F_C_SUSPEND, F_C_OVER_CURRENT, F_C_RESET, F_TEST, F_INDICATOR };

/* --- a bus ------------------------------------------------------------------------------ */

struct socket {
	struct bh_device *plugged;
	bool powered, enabled, suspended;
	unsigned resets;
};

static struct {
	struct bh_device *hub;
	struct socket sockets[BH_HUB_MAX_PORTS];
	unsigned wakeups;
	bool vanish; /* the device goes while it is reset */
} bus;

static struct bh_device full_speed = {.speed = BH_SPEED_FULL}, low_speed = {.speed = BH_SPEED_LOW};

static void plug(unsigned port, struct bh_device *d)
{
	struct socket *s = &bus.sockets[port];

	if (s->plugged && s->powered) {
		s->plugged = NULL;
		bus.hub->hub->connected(bus.hub, port, false);
	}
	s->plugged = d;
	s->enabled = s->suspended = false;
	if (d && s->powered)
		bus.hub->hub->connected(bus.hub, port, true);
}

static void bus_wakeup(struct bh_device *d)
{
	assert_ptr_equal(d, bus.hub);
	bus.wakeups++;
}

static void bus_port_power(struct bh_device *d, unsigned port, bool on)
{
	struct socket *s = &bus.sockets[port];

	assert_ptr_equal(d, bus.hub);
	assert_int_not_equal(s->powered, on);
	s->powered = on;
	s->enabled = s->suspended = false;
	if (on && s->plugged)
		d->hub->connected(d, port, true);
}

static void bus_port_reset(struct bh_device *d, unsigned port)
{
	assert_ptr_equal(d, bus.hub);
	bus.sockets[port].resets++;
	bus.sockets[port].enabled = bus.sockets[port].suspended = false;
	if (bus.vanish)
		plug(port, NULL);
}

static void bus_port_enable(struct bh_device *d, unsigned port, bool enabled)
{
	assert_ptr_equal(d, bus.hub);
	bus.sockets[port].enabled = enabled;
}

static void bus_port_suspend(struct bh_device *d, unsigned port, bool suspended)
{
	assert_ptr_equal(d, bus.hub);
	assert_int_not_equal(bus.sockets[port].suspended, suspended);
	bus.sockets[port].suspended = suspended;
}

static const struct bh_device *bus_port_device(const struct bh_device *d, unsigned port)
{
	(void)d;
	return bus.sockets[port].powered ? bus.sockets[port].plugged : NULL;
}

static const struct bh_device_upcalls upcalls = {
	.wakeup = bus_wakeup,
	.port_power = bus_port_power,
	.port_reset = bus_port_reset,
	.port_enable = bus_port_enable,
	.port_suspend = bus_port_suspend,
	.port_device = bus_port_device,
};

/* --- a driver ----------------------------------------------------------------------------- */

struct job {
	struct bh_transfer t;
	struct iovec span;
	uint8_t bytes[256];
	unsigned done;
	enum bh_status status;
};

static void job_done(struct bh_transfer *t, enum bh_status status)
{
	struct job *j = bh_container_of(t, struct job, t);

	j->done++;
	j->status = status;
}

static void prepare(struct job *j, uint8_t endpoint, uint32_t length)
{
	*j = (struct job){.done = 0};
	j->span = (struct iovec){.iov_base = j->bytes, .iov_len = length};
	j->t = (struct bh_transfer){
		.endpoint = endpoint,
		.type = endpoint ? BH_INTERRUPT : BH_CONTROL,
		.spans = &j->span,
		.span_count = length ? 1 : 0,
		.length = length,
		.done = job_done,
	};
}

/* The answer to a request is in here until the next one. */
static struct job control;

static enum bh_status request(uint8_t type, uint8_t code, uint16_t value, uint16_t index, uint16_t length)
{
	prepare(&control, 0, length);
	control.t.setup = (struct bh_setup){type, code, bh_put_le16(value), bh_put_le16(index), bh_put_le16(length)};
	if (type == 0 && code == 9)
		bh_device_set_configuration(bus.hub, (uint8_t)value, &control.t);
	else if (type == 2 && code == 1)
		bh_device_clear_halt(bus.hub, (uint8_t)index, &control.t);
	else
		bh_device_submit(bus.hub, &control.t);
	assert_int_equal(control.done, 1);
	return control.status;
}

static void ok(enum bh_status status)
{
	assert_int_equal(status, BH_SUCCESS);
}

static enum bh_status set_feature(unsigned port, uint16_t feature)
{
	return request(0x23, 3, feature, (uint16_t)(port + 1), 0);
}

static enum bh_status clear_feature(unsigned port, uint16_t feature)
{
	return request(0x23, 1, feature, (uint16_t)(port + 1), 0);
}

/* wPortStatus, and wPortChange in the upper half. */
static uint32_t status(unsigned port)
{
	ok(request(0xa3, 0, 0, (uint16_t)(port + 1), 4));
	assert_int_equal(control.t.actual, 4);
	return (uint32_t)(control.bytes[0] | control.bytes[1] << 8 | control.bytes[2] << 16 | control.bytes[3] << 24);
}

static void expect(unsigned port, unsigned now, unsigned change)
{
	assert_int_equal(status(port), now | change << 16);
}

static void listen_for_change(struct job *j)
{
	prepare(j, 0x81, 1);
	bh_device_submit(bus.hub, &j->t);
}

/* What the status change endpoint says at once; 0: nothing. */
static uint8_t changes(void)
{
	struct job j;

	listen_for_change(&j);
	if (!j.done)
		bh_device_cancel(bus.hub, &j.t);
	assert_int_equal(j.done, 1);
	assert_int_equal(j.t.actual, j.status == BH_SUCCESS);
	assert_int_equal(j.status, j.bytes[0] ? BH_SUCCESS : BH_CANCELLED);
	return j.bytes[0];
}

static void sleep_hub(bool asleep, bool may_wake)
{
	if (asleep)
		ok(request(0x00, may_wake ? 3 : 1, 1, 0, 0));
	bh_device_suspend(bus.hub, asleep);
}

static void power_all(void)
{
	for (unsigned i = 0; i < PORTS; i++)
		ok(set_feature(i, F_POWER));
}

/* A port with a device that was reset, nothing left to report. */
static void bring_up(unsigned port, struct bh_device *d)
{
	plug(port, d);
	ok(set_feature(port, F_RESET));
	ok(clear_feature(port, F_C_CONNECTION));
	ok(clear_feature(port, F_C_RESET));
	assert_int_equal(status(port) & (ENABLE | 0xffff0000), ENABLE);
}

static int set_up(void **state)
{
	struct bh_hub_config c = {.ports = PORTS};

	(void)state;
	memset(&bus, 0, sizeof(bus));
	if (bh_hub_create(&c, &bus.hub) < 0)
		return -1;
	bus.hub->upcalls = &upcalls;
	bh_device_reset(bus.hub);
	return request(0, 9, 1, 0, 0) == BH_SUCCESS ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	bus.hub->upcalls = NULL;
	bh_device_destroy(bus.hub);
	return 0;
}

/* --- what it says of itself ----------------------------------------------------------------- */

static void a_hub_has_one_to_seven_ports(void **state)
{
	struct bh_hub_config c = {.ports = BH_HUB_MAX_PORTS + 1};
	struct bh_device *d = NULL;

	(void)state;
	assert_int_equal(bh_hub_create(&c, &d), -EINVAL);
	assert_null(d);
	c.ports = BH_HUB_MAX_PORTS;
	assert_int_equal(bh_hub_create(&c, &d), 0);
	assert_int_equal(d->hub_ports, 7);
	bh_device_destroy(d);
	c.ports = 0;
	assert_int_equal(bh_hub_create(&c, &d), 0);
	assert_int_equal(d->hub_ports, 4);
	bh_device_destroy(d);
}

static void descriptors_are_those_of_a_full_speed_hub(void **state)
{
	static const uint8_t endpoint[] = {7, 5, 0x81, 3, 1, 0, 255};

	(void)state;
	ok(request(0x80, 6, 0x0100, 0, 18));
	assert_int_equal(control.bytes[4], 9);
	assert_int_equal(control.bytes[6], 0);
	ok(request(0x80, 6, 0x0200, 0, 255));
	assert_int_equal(control.t.actual, 25);
	assert_int_equal(control.bytes[7], 0xe0);
	assert_int_equal(control.bytes[14], 9);
	assert_memory_equal(control.bytes + 18, endpoint, 7);
	ok(request(0x80, 6, 0x0302, 0x0409, 255));
	assert_int_equal(control.t.actual, 2 + 2 * strlen("Bulkhead Hub"));
	assert_int_equal(request(0x80, 6, 0x0600, 0, 10), BH_STALL); /* no high speed */
}

static void hub_descriptor_is_cut_to_what_is_asked_for(void **state)
{
	static const uint8_t whole[] = {9, 0x29, PORTS, 9, 0, 1, 0, 0, 0xff};

	(void)state;
	ok(request(0xa0, 6, 0x2900, 0, 71));
	assert_int_equal(control.t.actual, 9);
	assert_memory_equal(control.bytes, whole, 9);
	ok(request(0xa0, 6, 0x2900, 0, 2));
	assert_int_equal(control.t.actual, 2);
	ok(request(0xa0, 6, 0, 0, 9));
	assert_int_equal(control.t.actual, 9);
	assert_int_equal(request(0xa0, 6, 0x2a00, 0, 9), BH_STALL);
}

static void hub_itself_has_power_and_never_changes(void **state)
{
	(void)state;
	ok(request(0xa0, 0, 0, 0, 4));
	assert_int_equal(control.t.actual, 4);
	assert_memory_equal(control.bytes, "\0\0\0\0", 4);
	ok(request(0x20, 1, 0, 0, 0));
	ok(request(0x20, 1, 1, 0, 0));
	ok(request(0x20, 3, 1, 0, 0));
	assert_int_equal(request(0x20, 1, 2, 0, 0), BH_STALL);
	ok(request(0x80, 0, 0, 0, 2));
	assert_int_equal(control.bytes[0], 1); /* self-powered */
}

/* --- ports ------------------------------------------------------------------------------------ */

static void port_without_power_shows_nothing(void **state)
{
	(void)state;
	plug(1, &full_speed);
	expect(1, 0, 0);
	ok(set_feature(1, F_RESET));
	ok(set_feature(1, F_SUSPEND));
	expect(1, 0, 0);
	assert_int_equal(bus.sockets[1].resets, 0);
	bus.hub->hub->connected(bus.hub, 1, true); /* without power nobody can tell */
	expect(1, 0, 0);
	assert_int_equal(changes(), 0);
}

static void power_shows_what_is_plugged_in(void **state)
{
	(void)state;
	plug(1, &full_speed);
	plug(2, &low_speed);
	power_all();
	expect(0, POWER, 0);
	expect(1, POWER | CONNECTION, C_CONNECTION);
	expect(2, POWER | CONNECTION | LOW_SPEED, C_CONNECTION);
	assert_int_equal(changes(), 1 << 2 | 1 << 3);
	ok(set_feature(1, F_POWER)); /* it is on */
	ok(clear_feature(1, F_POWER));
	expect(1, 0, 0);
	assert_false(bus.sockets[1].powered);
	assert_int_equal(changes(), 1 << 3);
	ok(set_feature(1, F_POWER));
	expect(1, POWER | CONNECTION, C_CONNECTION);
}

static void reset_enables_the_port(void **state)
{
	(void)state;
	power_all();
	plug(0, &low_speed);
	ok(clear_feature(0, F_C_CONNECTION));
	ok(set_feature(0, F_RESET));
	expect(0, POWER | CONNECTION | ENABLE | LOW_SPEED, C_RESET);
	assert_int_equal(bus.sockets[0].resets, 1);
	assert_true(bus.sockets[0].enabled);
	ok(clear_feature(0, F_C_RESET));
	expect(0, POWER | CONNECTION | ENABLE | LOW_SPEED, 0);
	assert_int_equal(changes(), 0);
	ok(clear_feature(0, F_ENABLE));
	expect(0, POWER | CONNECTION | LOW_SPEED, 0);
	assert_false(bus.sockets[0].enabled);
}

static void reset_of_an_empty_port_enables_nothing(void **state)
{
	(void)state;
	power_all();
	ok(set_feature(0, F_RESET));
	expect(0, POWER, C_RESET);
	assert_false(bus.sockets[0].enabled);
}

static void device_that_goes_while_it_is_reset_is_gone(void **state)
{
	(void)state;
	power_all();
	plug(0, &full_speed);
	ok(clear_feature(0, F_C_CONNECTION));
	bus.vanish = true;
	ok(set_feature(0, F_RESET));
	expect(0, POWER, C_CONNECTION | C_RESET);
	assert_false(bus.sockets[0].enabled);
}

static void unplugged_port_is_disabled(void **state)
{
	(void)state;
	power_all();
	bring_up(3, &full_speed);
	ok(set_feature(3, F_SUSPEND));
	plug(3, NULL);
	expect(3, POWER, C_CONNECTION);
	plug(3, &low_speed);
	expect(3, POWER | CONNECTION | LOW_SPEED, C_CONNECTION);
	assert_int_equal(changes(), 1 << 4);
}

static void change_bits_are_cleared_one_by_one(void **state)
{
	(void)state;
	power_all();
	plug(3, &full_speed);
	ok(set_feature(3, F_RESET));
	expect(3, POWER | CONNECTION | ENABLE, C_CONNECTION | C_RESET);
	ok(clear_feature(3, F_C_RESET));
	expect(3, POWER | CONNECTION | ENABLE, C_CONNECTION);
	bus.hub->hub->connected(bus.hub, 3, true); /* no news */
	ok(clear_feature(3, F_C_CONNECTION));
	bus.hub->hub->connected(bus.hub, 3, true);
	expect(3, POWER | CONNECTION | ENABLE, 0);
}

static void port_is_suspended_and_resumed(void **state)
{
	(void)state;
	power_all();
	plug(2, &full_speed);
	ok(set_feature(2, F_SUSPEND)); /* not enabled yet: nothing */
	assert_false(bus.sockets[2].suspended);
	bring_up(2, &full_speed);
	ok(set_feature(2, F_SUSPEND));
	ok(set_feature(2, F_SUSPEND));
	expect(2, POWER | CONNECTION | ENABLE | SUSPEND, 0);
	assert_true(bus.sockets[2].suspended);
	ok(clear_feature(2, F_SUSPEND));
	expect(2, POWER | CONNECTION | ENABLE, C_SUSPEND);
	assert_false(bus.sockets[2].suspended);
	ok(clear_feature(2, F_C_SUSPEND));
	ok(clear_feature(2, F_SUSPEND)); /* it is awake */
	expect(2, POWER | CONNECTION | ENABLE, 0);
}

static void reset_ends_the_suspension(void **state)
{
	(void)state;
	power_all();
	bring_up(2, &full_speed);
	ok(set_feature(2, F_SUSPEND));
	ok(set_feature(2, F_RESET));
	expect(2, POWER | CONNECTION | ENABLE, C_RESET);
}

static void what_only_the_hub_sets_is_left_alone(void **state)
{
	static const uint16_t either[] = {F_CONNECTION, F_OVER_CURRENT, F_LOW_SPEED};
	static const uint16_t changes_of[] = {F_C_CONNECTION, F_C_ENABLE, F_C_SUSPEND, F_C_OVER_CURRENT, F_C_RESET};

	(void)state;
	power_all();
	bring_up(0, &full_speed);
	for (size_t i = 0; i < BH_COUNT(either); i++) {
		ok(set_feature(0, either[i]));
		ok(clear_feature(0, either[i]));
	}
	for (size_t i = 0; i < BH_COUNT(changes_of); i++)
		ok(set_feature(0, changes_of[i]));
	ok(clear_feature(0, F_RESET));
	expect(0, POWER | CONNECTION | ENABLE, 0);
}

static void what_is_not_there_is_refused(void **state)
{
	(void)state;
	power_all();
	assert_int_equal(set_feature(0, F_ENABLE), BH_STALL);
	assert_int_equal(set_feature(0, F_TEST), BH_STALL);
	assert_int_equal(set_feature(0, F_INDICATOR), BH_STALL);
	assert_int_equal(clear_feature(0, F_INDICATOR), BH_STALL);
	assert_int_equal(set_feature(0, 5), BH_STALL);
	assert_int_equal(set_feature(PORTS, F_POWER), BH_STALL);
	assert_int_equal(request(0x23, 3, F_POWER, 0, 0), BH_STALL);
	assert_int_equal(request(0x23, 3, F_POWER, 0x101, 0), BH_STALL);
	assert_int_equal(request(0xa3, 0, 0, PORTS + 1, 4), BH_STALL);
	assert_int_equal(request(0xa3, 2, 0, 1, 1), BH_STALL); /* GetBusState */
	ok(request(0, 9, 0, 0, 0));
	assert_int_equal(set_feature(0, F_POWER), BH_STALL);
}

static void ports_go_off_with_the_configuration(void **state)
{
	(void)state;
	power_all();
	bring_up(0, &full_speed);
	plug(1, &full_speed);
	ok(request(0, 9, 1, 0, 0)); /* the same again */
	expect(0, POWER | CONNECTION | ENABLE, 0);
	ok(request(0, 9, 0, 0, 0));
	for (unsigned i = 0; i < PORTS; i++)
		assert_false(bus.sockets[i].powered);
	ok(request(0, 9, 1, 0, 0));
	expect(0, 0, 0);
	expect(1, 0, 0);
}

static void ports_go_off_with_a_reset(void **state)
{
	(void)state;
	power_all();
	bring_up(0, &full_speed);
	sleep_hub(true, true);
	bh_device_reset(bus.hub);
	for (unsigned i = 0; i < PORTS; i++)
		assert_false(bus.sockets[i].powered);
	ok(request(0x80, 8, 0, 0, 1));
	assert_int_equal(control.bytes[0], 0);
	ok(request(0, 9, 1, 0, 0));
	expect(0, 0, 0);
	power_all(); /* it sleeps no longer, nor may it wake */
	assert_int_equal(bus.wakeups, 0);
}

/* --- the status change endpoint ------------------------------------------------------------------ */

static void report_waits_for_a_change_and_repeats_until_it_is_cleared(void **state)
{
	struct job j;

	(void)state;
	power_all();
	listen_for_change(&j);
	assert_int_equal(j.done, 0);
	plug(4, &full_speed);
	assert_int_equal(j.done, 1);
	assert_int_equal(j.status, BH_SUCCESS);
	assert_int_equal(j.t.actual, 1);
	assert_int_equal(j.bytes[0], 1 << 5);
	assert_int_equal(changes(), 1 << 5);
	plug(0, &full_speed);
	assert_int_equal(changes(), 1 << 5 | 1 << 1);
	ok(clear_feature(4, F_C_CONNECTION));
	assert_int_equal(changes(), 1 << 1);
	ok(clear_feature(0, F_C_CONNECTION));
	assert_int_equal(changes(), 0);
}

static void every_transfer_gets_one_packet(void **state)
{
	struct job a, b;

	(void)state;
	power_all();
	prepare(&a, 0x81, 8);
	bh_device_submit(bus.hub, &a.t);
	listen_for_change(&b);
	plug(4, &full_speed);
	assert_int_equal(a.done, 1);
	assert_int_equal(a.t.actual, 1);
	assert_int_equal(b.done, 1);
	assert_int_equal(b.t.actual, 1);
	prepare(&a, 0x81, 0);
	bh_device_submit(bus.hub, &a.t);
	assert_int_equal(a.done, 1);
	assert_int_equal(a.status, BH_BABBLE);
}

static void report_is_cancelled_halted_and_reset(void **state)
{
	struct job j;

	(void)state;
	power_all();
	listen_for_change(&j);
	bh_device_cancel(bus.hub, &j.t);
	assert_int_equal(j.done, 1);
	assert_int_equal(j.status, BH_CANCELLED);

	listen_for_change(&j);
	ok(request(0x02, 3, 0, 0x81, 0));
	assert_int_equal(j.done, 1);
	assert_int_equal(j.status, BH_STALL);
	listen_for_change(&j);
	assert_int_equal(j.status, BH_STALL);
	ok(request(0x02, 1, 0, 0x81, 0));

	listen_for_change(&j);
	assert_int_equal(j.done, 0);
	bh_device_reset(bus.hub);
	assert_int_equal(j.done, 1);
	assert_int_equal(j.status, BH_CANCELLED);
	listen_for_change(&j); /* not configured */
	assert_int_equal(j.status, BH_STALL);
}

static void destroyed_hub_ends_what_waits(void **state)
{
	struct bh_hub_config c = {.ports = 4};
	struct bh_device *d;
	struct job j;

	(void)state;
	assert_int_equal(bh_hub_create(&c, &d), 0);
	prepare(&j, 0, 0);
	bh_device_set_configuration(d, 1, &j.t);
	prepare(&j, 0x81, 1);
	bh_device_submit(d, &j.t);
	assert_int_equal(j.done, 0);
	bh_device_destroy(d);
	assert_int_equal(j.done, 1);
	assert_int_equal(j.status, BH_CANCELLED);
}

/* --- waking (11.9) ------------------------------------------------------------------------------------ */

static void sleeping_hub_wakes_for_its_ports_if_it_may(void **state)
{
	(void)state;
	power_all();
	sleep_hub(true, true);
	plug(0, &full_speed);
	assert_int_equal(bus.wakeups, 1);
	plug(0, NULL);
	assert_int_equal(bus.wakeups, 2);
	sleep_hub(false, false);
	expect(0, POWER, C_CONNECTION);
	plug(0, &full_speed); /* awake: nothing to wake */
	assert_int_equal(bus.wakeups, 2);

	sleep_hub(true, false);
	plug(0, NULL);
	assert_int_equal(bus.wakeups, 2);
	sleep_hub(false, false);
	expect(0, POWER, C_CONNECTION); /* it is not forgotten */
}

static void suspended_port_resumes_when_its_device_asks(void **state)
{
	struct job j;

	(void)state;
	power_all();
	bring_up(2, &full_speed);
	listen_for_change(&j);
	bus.hub->hub->wakeup(bus.hub, 2); /* nothing sleeps */
	assert_int_equal(j.done, 0);
	ok(set_feature(2, F_SUSPEND));
	bus.hub->hub->wakeup(bus.hub, 2);
	assert_int_equal(j.done, 1);
	assert_int_equal(j.bytes[0], 1 << 3);
	assert_false(bus.sockets[2].suspended);
	expect(2, POWER | CONNECTION | ENABLE, C_SUSPEND);
	assert_int_equal(bus.wakeups, 0); /* the hub was awake */
}

/* Whether or not the hub itself may. */
static void devices_wish_is_passed_on_by_a_sleeping_hub(void **state)
{
	(void)state;
	power_all();
	bring_up(1, &full_speed);
	bring_up(2, &full_speed);
	ok(set_feature(2, F_SUSPEND));
	sleep_hub(true, false);
	bus.hub->hub->wakeup(bus.hub, 1);
	assert_int_equal(bus.wakeups, 1);
	bus.hub->hub->wakeup(bus.hub, 2);
	assert_int_equal(bus.wakeups, 2);
	sleep_hub(false, false);
	expect(1, POWER | CONNECTION | ENABLE, 0);
	expect(2, POWER | CONNECTION | ENABLE, C_SUSPEND);
}

static void disabled_port_wakes_nobody(void **state)
{
	(void)state;
	power_all();
	bring_up(1, &full_speed);
	ok(clear_feature(1, F_ENABLE));
	sleep_hub(true, true);
	bus.hub->hub->wakeup(bus.hub, 1);
	assert_int_equal(bus.wakeups, 0);
}

/* --- on the real bus ------------------------------------------------------------------------------------ */

/* A root port, the outer hub in it, the inner one in its port 0, a device in that one's port 1. */
static struct {
	struct bh_bus bus;
	struct bh_device *outer, *inner;
	struct fake_device leaf;
	unsigned wakeups;
} tree;

static void tree_connected(struct bh_bus *b, unsigned port, bool connected)
{
	(void)b, (void)port, (void)connected;
}

static void tree_wakeup(struct bh_bus *b, unsigned port)
{
	assert_ptr_equal(b, &tree.bus);
	assert_int_equal(port, 0);
	tree.wakeups++;
}

static const struct bh_bus_upcalls tree_upcalls = {.connected = tree_connected, .wakeup = tree_wakeup};

static struct bh_device *add_hub(const char *place)
{
	struct bh_hub_config c = {.ports = PORTS};
	struct bh_device *d;

	assert_int_equal(bh_hub_create(&c, &d), 0);
	assert_int_equal(bh_port_attach(bh_bus_port(&tree.bus, place), d), 0);
	return d;
}

/* As a driver finds it: configured, its ports switched on. */
static void find_hub(struct bh_device *d)
{
	bus.hub = d;
	ok(request(0, 9, 1, 0, 0));
	power_all();
}

static void plant(void)
{
	static struct bh_source source;
	static const struct bh_source_ops no_packets;
	struct bh_engine_config config = {.max_bytes = 1 << 16};

	memset(&tree, 0, sizeof(tree));
	source.ops = &no_packets;
	bh_bus_init(&tree.bus, 1, &source, &tree_upcalls, &config);
	tree.outer = add_hub("1");
	tree.inner = add_hub("1.1");
	fake_device_init(&tree.leaf, BH_SPEED_LOW);
	assert_int_equal(bh_port_attach(bh_bus_port(&tree.bus, "1.1.2"), &tree.leaf.device), 0);
	bh_bus_port_reset(&tree.bus, 0);
	bh_bus_port_enable(&tree.bus, 0, true);
	find_hub(tree.outer);
	ok(set_feature(0, F_RESET));
	find_hub(tree.inner);
	expect(1, POWER | CONNECTION | LOW_SPEED, C_CONNECTION);
	ok(set_feature(1, F_RESET));
}

static void hubs_hang_from_hubs(void **state)
{
	(void)state;
	plant();
	expect(1, POWER | CONNECTION | ENABLE | LOW_SPEED, C_CONNECTION | C_RESET);
	expect(0, POWER, 0);
	bh_port_remove(bh_bus_port(&tree.bus, "1.1.2"), NULL, NULL);
	assert_int_equal(tree.leaf.destroyed, 1);
	expect(1, POWER, C_CONNECTION | C_RESET);
	bh_bus_finish(&tree.bus);
}

static void wish_of_a_device_goes_all_the_way_up(void **state)
{
	(void)state;
	plant();
	bus.hub = tree.outer;
	ok(set_feature(0, F_SUSPEND)); /* the inner hub, and so the device */
	assert_int_equal(tree.leaf.suspends, 1);
	bh_device_wakeup(&tree.leaf.device);
	expect(0, POWER | CONNECTION | ENABLE, C_CONNECTION | C_RESET | C_SUSPEND);
	assert_int_equal(tree.leaf.resumes, 1);
	assert_int_equal(tree.wakeups, 0); /* the root port was awake */

	ok(set_feature(0, F_SUSPEND));
	bh_bus_port_suspend(&tree.bus, 0, true);
	assert_int_equal(tree.leaf.suspends, 2);
	bh_device_wakeup(&tree.leaf.device);
	assert_int_equal(tree.wakeups, 1);
	assert_int_equal(tree.leaf.resumes, 1); /* until the root port is resumed */
	bh_bus_port_suspend(&tree.bus, 0, false);
	assert_int_equal(tree.leaf.resumes, 2);
	bh_bus_finish(&tree.bus);
}

static void reset_of_a_hub_resets_what_hangs_from_it(void **state)
{
	unsigned resets;

	(void)state;
	plant();
	resets = tree.leaf.resets;
	bh_bus_port_reset(&tree.bus, 0);
	bh_bus_port_enable(&tree.bus, 0, true);
	assert_true(tree.leaf.resets > resets);
	find_hub(tree.outer);
	expect(0, POWER | CONNECTION, C_CONNECTION);
	ok(set_feature(0, F_RESET));
	find_hub(tree.inner);
	expect(1, POWER | CONNECTION | LOW_SPEED, C_CONNECTION);
	bh_bus_finish(&tree.bus);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_hub_has_one_to_seven_ports),
		TEST(descriptors_are_those_of_a_full_speed_hub),
		TEST(hub_descriptor_is_cut_to_what_is_asked_for),
		TEST(hub_itself_has_power_and_never_changes),
		TEST(port_without_power_shows_nothing),
		TEST(power_shows_what_is_plugged_in),
		TEST(reset_enables_the_port),
		TEST(reset_of_an_empty_port_enables_nothing),
		TEST(device_that_goes_while_it_is_reset_is_gone),
		TEST(unplugged_port_is_disabled),
		TEST(change_bits_are_cleared_one_by_one),
		TEST(port_is_suspended_and_resumed),
		TEST(reset_ends_the_suspension),
		TEST(what_only_the_hub_sets_is_left_alone),
		TEST(what_is_not_there_is_refused),
		TEST(ports_go_off_with_the_configuration),
		TEST(ports_go_off_with_a_reset),
		TEST(report_waits_for_a_change_and_repeats_until_it_is_cleared),
		TEST(every_transfer_gets_one_packet),
		TEST(report_is_cancelled_halted_and_reset),
		TEST(destroyed_hub_ends_what_waits),
		TEST(sleeping_hub_wakes_for_its_ports_if_it_may),
		TEST(suspended_port_resumes_when_its_device_asks),
		TEST(devices_wish_is_passed_on_by_a_sleeping_hub),
		TEST(disabled_port_wakes_nobody),
		cmocka_unit_test(hubs_hang_from_hubs),
		cmocka_unit_test(wish_of_a_device_goes_all_the_way_up),
		cmocka_unit_test(reset_of_a_hub_resets_what_hangs_from_it),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
