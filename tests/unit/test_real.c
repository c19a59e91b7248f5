/* How a real device arrives, is asked what it is, is shown, and departs: whatever it answers. */
#include <errno.h>
#include <stdlib.h>
#include <uv.h>

#include "../../src/host/real.h"
#include "fake_device.h"
#include "fake_driver.h"

static const uint8_t device_descriptor[18] = {18, 1, 0, 2, 0, 0, 0, 16, 0x25, 0x05, 0xa5, 0xa4, 0, 1, 0, 0, 0, 1};
static const uint8_t configuration[9 + 9 + 7] = {
	9, 2, 25, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 1, 8, 6, 0x50, 0, 7, 5, 0x81, 2, 64, 0, 0,
};

static struct way {
	struct bh_real real;
	struct bh_transfer *held; /* taken, not answered */
	bool silent, refuses, nonsense, lingers; /* a cancelled transfer ends later */
	unsigned shown, refused, lines, resets;
	char line[256];
} way;
static uv_loop_t loop;

static void answer(struct bh_transfer *t)
{
	bool whole = t->setup.wValue.b[1] == BH_DESCRIPTOR_CONFIGURATION;
	const uint8_t *bytes = whole ? configuration : device_descriptor;
	uint32_t length = BH_MIN(t->length, whole ? (uint32_t)sizeof(configuration) : 18);

	bh_transfer_write(t, 0, bytes, length);
	if (way.refuses)
		bh_transfer_done(t, BH_STALL, 0);
	else
		bh_transfer_done(t, BH_SUCCESS, way.nonsense ? 1 : length);
}

static void way_submit(struct bh_device *d, struct bh_transfer *t)
{
	(void)d;
	if (way.silent)
		way.held = t;
	else
		answer(t);
}

static void way_cancel(struct bh_device *d, struct bh_transfer *t)
{
	(void)d;
	assert_ptr_equal(way.held, t);
	if (way.lingers)
		return;
	way.held = NULL;
	bh_transfer_done(t, BH_CANCELLED, 0);
}

static void way_reset(struct bh_device *d)
{
	(void)d;
	way.resets++;
	bh_settings_configure(&way.real.settings, 0);
}

static void way_destroy(struct bh_device *d)
{
	(void)d;
	bh_real_departed(&way.real, NULL);
	bh_real_finish(&way.real);
}

static void shown(struct bh_real *r)
{
	assert_ptr_equal(r, &way.real);
	way.shown++;
}

static void refused(struct bh_real *r)
{
	assert_int_equal(r->state, BH_REAL_REFUSED);
	way.refused++;
}

static void line(void *data, const char *text)
{
	assert_ptr_equal(data, &way);
	snprintf(way.line, sizeof(way.line), "%s", text);
	way.lines++;
}

static const struct bh_real_ops real_ops = {.refused = refused, .shown = shown};

static int set_up(void **state)
{
	static struct bh_device_ops ops;
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;

	(void)state;
	ops = fake_device_ops;
	ops.submit = way_submit;
	ops.cancel = way_cancel;
	ops.reset = way_reset;
	ops.endpoint = bh_real_endpoint;
	ops.refuses = bh_real_refuses;
	ops.destroy = way_destroy;
	ops.suspend = NULL;
	uv_loop_init(&loop);
	machine(&config);
	way = (struct way){0};
	assert_int_equal(
		bh_real_init(&way.real, &loop, &ops, &real_ops, &(struct bh_real_log){line, &way}, "usb 1-1.4"), 0);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, &way.real.device), 0);
	run();
	frames(1);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	machine_finish();
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	return 0;
}

static bool shows(void)
{
	return inw(PORTSC) & PORTSC_CCS;
}

static void it_is_shown_once_it_is_known(void **state)
{
	struct bh_real_info info;

	(void)state;
	way.silent = true;
	bh_real_arrived(&way.real, BH_SPEED_FULL);
	assert_false(shows());
	assert_false(bh_real_device_info(&way.real.device).there);
	way.silent = false;
	answer(way.held);
	assert_true(shows());
	assert_int_equal(way.shown, 1);
	assert_int_equal(way.real.device.control_max_packet, 16);
	info = bh_real_device_info(&way.real.device);
	assert_true(info.there && info.vendor == 0x0525 && info.product == 0xa4a5 && info.arrivals == 1);
	assert_string_equal(way.line, "usb 1-1.4: 0525:a4a5 is there (full speed)");
	bh_settings_configure(&way.real.settings, 1);
	assert_true(bh_real_endpoint(&way.real.device, 0x81)->finishes);
}

static void it_departs_and_comes_back(void **state)
{
	(void)state;
	for (unsigned i = 1; i <= 3; i++) {
		bh_real_arrived(&way.real, BH_SPEED_FULL);
		assert_true(shows());
		bh_real_departed(&way.real, "the link is gone");
		bh_real_departed(&way.real, "twice is once");
		assert_false(shows());
		assert_string_equal(way.line, "usb 1-1.4: the link is gone");
		assert_null(bh_real_endpoint(&way.real.device, 0x81));
		assert_int_equal(bh_real_device_info(&way.real.device).arrivals, i);
	}
}

static void it_departs_while_it_is_asked(void **state)
{
	(void)state;
	way.silent = true;
	bh_real_arrived(&way.real, BH_SPEED_FULL);
	bh_real_departed(&way.real, NULL);
	assert_null(way.held);
	assert_int_equal(way.refused + way.shown + way.lines, 0);
	way.silent = false;
	bh_real_arrived(&way.real, BH_SPEED_FULL);
	assert_true(shows());
}

static void who_makes_no_sense_is_not_shown(void **state)
{
	(void)state;
	way.nonsense = true;
	bh_real_arrived(&way.real, BH_SPEED_FULL);
	assert_false(shows());
	assert_int_equal(way.refused, 1);
	assert_string_equal(way.line, "usb 1-1.4: its descriptors make no sense: it is not shown");
	bh_real_departed(&way.real, NULL);
	way.nonsense = false;
	way.refuses = true;
	bh_real_arrived(&way.real, BH_SPEED_FULL);
	assert_int_equal(way.refused, 2);
	assert_non_null(strstr(way.line, "does not tell what it is"));
}

static void who_is_too_fast_is_not_shown(void **state)
{
	(void)state;
	bh_real_arrived(&way.real, BH_SPEED_HIGH);
	assert_false(shows());
	assert_int_equal(way.refused, 1);
	assert_non_null(strstr(way.line, "high speed"));
	bh_real_departed(&way.real, NULL);
	bh_real_arrived(&way.real, BH_SPEED_LOW);
	assert_true(shows());
}

/* Its loop's time runs five seconds ahead. */
static void who_is_silent_is_not_waited_for(void **state)
{
	(void)state;
	way.silent = way.lingers = true;
	bh_real_arrived(&way.real, BH_SPEED_FULL);
	uv_timer_start(way.real.timer, way.real.timer->timer_cb, 1, 0);
	uv_run(&loop, UV_RUN_ONCE);
	assert_int_equal(way.refused, 1);
	assert_string_equal(way.line, "usb 1-1.4: it does not answer: it is not shown");
	assert_int_equal(way.real.state, BH_REAL_REFUSED);
	bh_transfer_done(way.held, BH_CANCELLED, 0);
	assert_int_equal(way.refused, 1);
	assert_false(way.real.probe.running);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(it_is_shown_once_it_is_known),
		TEST(it_departs_and_comes_back),
		TEST(it_departs_while_it_is_asked),
		TEST(who_makes_no_sense_is_not_shown),
		TEST(who_is_too_fast_is_not_shown),
		TEST(who_is_silent_is_not_waited_for),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
