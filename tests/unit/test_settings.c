/*
 * What descriptors say, written by a friend and by an enemy; and how a device is asked for
 * them.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <base/util.h>
#include <usb/probe.h>
#include <usb/settings.h>

#include "fake_device.h"

/* --- settings ------------------------------------------------------------------------------ */

#define CONFIGURATION(length, value) 9, 2, (length), 0, 2, (value), 0, 0x80, 50
#define INTERFACE(number, alternate, class, protocol) 9, 4, (number), (alternate), 2, (class), 6, (protocol), 0
#define ENDPOINT(address, type, max) 7, 5, (address), (type), (max) & 0xff, (max) >> 8, 1
#define SIZE (9 + 3 * (9 + 2 * 7))

static const uint8_t disk_and_more[SIZE] = {
	CONFIGURATION(SIZE, 1),
	INTERFACE(0, 0, 0x08, 0x50), ENDPOINT(0x81, BH_BULK, 64), ENDPOINT(0x02, BH_BULK, 64),
	INTERFACE(1, 0, 0xff, 0), ENDPOINT(0x83, BH_INTERRUPT, 8), ENDPOINT(0x03, BH_BULK, 32),
	INTERFACE(1, 1, 0xff, 0), ENDPOINT(0x83, BH_ISOCHRONOUS, 1023), ENDPOINT(0x04, BH_BULK, 64),
};
static const uint8_t bare[] = {CONFIGURATION(9, 5)};
static const uint8_t *const both[] = {disk_and_more, bare};

static struct bh_settings settings;

static struct bh_setup setup_data(uint8_t type, uint8_t request, uint16_t value, uint16_t index)
{
	return (struct bh_setup){type, request, bh_put_le16(value), bh_put_le16(index), {{0}}};
}

static void nothing_is_there_unconfigured(void **state)
{
	(void)state;
	bh_settings_init(&settings, both, 2);
	assert_null(bh_settings_endpoint(&settings, 0x81));
	assert_false(bh_settings_has(&settings, 0, 0));
}

static void a_configuration_brings_its_endpoints(void **state)
{
	const struct bh_endpoint_info *e;

	(void)state;
	bh_settings_init(&settings, both, 2);
	bh_settings_configure(&settings, 1);
	e = bh_settings_endpoint(&settings, 0x81);
	assert_true(e && e->type == BH_BULK && e->max_packet == 64 && e->interface == 0 && e->finishes);
	e = bh_settings_endpoint(&settings, 0x83);
	assert_true(e && e->type == BH_INTERRUPT && e->max_packet == 8 && e->interval == 1 && !e->finishes);
	assert_null(bh_settings_endpoint(&settings, 0x04));
	bh_settings_set_interface(&settings, 1, 1);
	e = bh_settings_endpoint(&settings, 0x83);
	assert_true(e && e->type == BH_ISOCHRONOUS && e->max_packet == 1023 && e->interface == 1);
	assert_non_null(bh_settings_endpoint(&settings, 0x04));
	assert_null(bh_settings_endpoint(&settings, 0x03));
	assert_non_null(bh_settings_endpoint(&settings, 0x81));
	bh_settings_set_interface(&settings, 1, 2); /* there is none */
	assert_int_equal(settings.alternates[1], 1);
	bh_settings_configure(&settings, 5);
	assert_int_equal(settings.endpoint_count, 0);
	bh_settings_configure(&settings, 1);
	assert_int_equal(settings.alternates[1], 0);
	bh_settings_configure(&settings, 7);
	assert_int_equal(settings.configuration, 0);
}

static void what_is_not_there_is_refused(void **state)
{
	static const struct {
		uint8_t type, request;
		uint16_t value, index;
		bool refused;
	} rows[] = {
		{0x00, 9, 1, 0, false}, {0x00, 9, 0, 0, false}, {0x00, 9, 2, 0, true}, {0x00, 9, 0x101, 0, true},
		{0x01, 11, 1, 1, false}, {0x01, 11, 2, 1, true}, {0x01, 11, 0, 2, true}, {0x01, 11, 0, 40, true},
		{0x01, 11, 0, 0x100, true}, {0x02, 1, 0, 0x81, false}, {0x80, 6, 0x100, 0, false},
	};

	(void)state;
	bh_settings_init(&settings, both, 2);
	bh_settings_configure(&settings, 1);
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		struct bh_setup s = setup_data(rows[i].type, rows[i].request, rows[i].value, rows[i].index);

		assert_int_equal(bh_settings_refuse(&settings, &s), rows[i].refused);
	}
}

static void what_cannot_be_walked_is_no_configuration(void **state)
{
	uint8_t c[SIZE];

	(void)state;
	assert_true(bh_configuration_check(disk_and_more, SIZE));
	assert_true(bh_configuration_check(bare, 9));
	assert_false(bh_configuration_check(bare, 8));
	assert_false(bh_configuration_check(disk_and_more, SIZE - 1)); /* not all that it says */
	for (size_t at = 0; at < SIZE; at++)
		for (unsigned value = 0; value < 256; value++) {
			memcpy(c, disk_and_more, SIZE);
			c[at] = (uint8_t)value;
			if (!bh_configuration_check(c, SIZE))
				continue;
			/* What is accepted can be walked, and what comes of it makes sense. */
			bh_settings_init(&settings, (const uint8_t *[]){c}, 1);
			bh_settings_configure(&settings, c[5]);
			bh_settings_set_interface(&settings, 1, 1);
			for (unsigned i = 0; i < settings.endpoint_count; i++) {
				const struct bh_endpoint_info *e = &settings.endpoints[i];

				assert_true(e->address & 15 && !(e->address & 0x70) && e->type != BH_CONTROL);
				assert_in_range(e->max_packet, 1, 1024);
				assert_true(e->interface < BH_SETTINGS_INTERFACES);
			}
		}
}

static void more_endpoints_than_there_can_be_are_passed_over(void **state)
{
	uint8_t c[9 + 9 + 7 * 200] = {9, 2, sizeof(c) & 0xff, sizeof(c) >> 8, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 200, 8, 6, 0x50, 0};

	(void)state;
	for (unsigned i = 0; i < 200; i++)
		memcpy(c + 18 + 7 * i, (uint8_t[]){ENDPOINT((uint8_t)(i & 15 ? i & 15 : 1) | (i & 16 ? 0x80 : 0), BH_BULK, 64)}, 7);
	assert_true(bh_configuration_check(c, sizeof(c)));
	bh_settings_init(&settings, (const uint8_t *[]){c}, 1);
	bh_settings_configure(&settings, 1);
	assert_int_equal(settings.endpoint_count, BH_SETTINGS_ENDPOINTS);
}

/* --- being asked ------------------------------------------------------------------------------ */

static struct asked {
	struct fake_device fake;
	uint8_t device_descriptor[18];
	const uint8_t *configurations[2];
	uint32_t cut; /* answers are no longer than that */
	unsigned fail_at, submits;
	bool hold;
	struct bh_transfer *held;
} asked;

static int result;
static unsigned results;

static void done(struct bh_probe *p, int error)
{
	(void)p;
	result = error;
	results++;
}

static void asked_submit(struct bh_device *d, struct bh_transfer *t)
{
	const uint8_t *bytes = asked.device_descriptor;
	uint32_t length = 18;

	(void)d;
	assert_int_equal(t->setup.bmRequestType, 0x80);
	assert_int_equal(t->setup.bRequest, 6);
	if (++asked.submits == asked.fail_at) {
		bh_transfer_done(t, BH_STALL, 0);
		return;
	}
	if (asked.hold) {
		asked.held = t;
		return;
	}
	if (t->setup.wValue.b[1] == 2) {
		assert_in_range(t->setup.wValue.b[0], 0, 1);
		bytes = asked.configurations[t->setup.wValue.b[0]];
		length = bh_configuration_length(bytes);
	}
	length = BH_MIN(BH_MIN(length, t->length), asked.cut);
	bh_transfer_write(t, 0, bytes, length);
	bh_transfer_done(t, BH_SUCCESS, length);
}

static void asked_cancel(struct bh_device *d, struct bh_transfer *t)
{
	(void)d;
	assert_ptr_equal(t, asked.held);
	bh_transfer_done(t, BH_CANCELLED, 0);
}

static struct bh_probe probe;

static void ask(void)
{
	static struct bh_device_ops ops;

	ops = fake_device_ops;
	ops.submit = asked_submit;
	ops.cancel = asked_cancel;
	fake_device_init(&asked.fake, BH_SPEED_FULL);
	asked.fake.device.ops = &ops;
	results = asked.submits = 0;
	bh_probe_start(&probe, &asked.fake.device, done);
}

static int friendly(void **state)
{
	static const uint8_t descriptor[18] = {18, 1, 0, 2, 0, 0, 0, 64, 0x25, 0x05, 0xa5, 0xa4, 0, 1, 0, 0, 0, 2};

	(void)state;
	asked = (struct asked){.configurations = {disk_and_more, bare}, .cut = UINT32_MAX};
	memcpy(asked.device_descriptor, descriptor, 18);
	return 0;
}

static void everything_is_asked_for(void **state)
{
	(void)state;
	ask();
	assert_int_equal(results, 1);
	assert_int_equal(result, 0);
	assert_int_equal(probe.count, 2);
	assert_memory_equal(probe.configurations[0], disk_and_more, SIZE);
	assert_memory_equal(probe.configurations[1], bare, 9);
	assert_int_equal(bh_probe_vendor(&probe), 0x0525);
	assert_int_equal(bh_probe_product(&probe), 0xa4a5);
	bh_probe_finish(&probe);
}

static void a_refusal_ends_it_at_any_point(void **state)
{
	(void)state;
	for (asked.fail_at = 1; asked.fail_at <= 5; asked.fail_at++) {
		ask();
		assert_int_equal(results, 1);
		assert_int_equal(result, -EIO);
		assert_int_equal(probe.count, 0);
	}
	ask();
	assert_int_equal(result, 0);
	bh_probe_finish(&probe);
}

static void nonsense_is_refused(void **state)
{
	(void)state;
	for (asked.cut = 0; asked.cut < 18; asked.cut++) { /* and so is half of it */
		ask();
		assert_int_equal(result, -EPROTO);
	}
	asked.cut = SIZE - 1;
	ask();
	assert_int_equal(result, -EPROTO);
	asked.cut = UINT32_MAX;
	asked.device_descriptor[7] = 7;
	ask();
	assert_int_equal(result, -EPROTO);
	asked.device_descriptor[7] = 8;
	asked.device_descriptor[17] = 0; /* no configuration */
	ask();
	assert_int_equal(result, -EPROTO);
}

static void it_can_be_stopped(void **state)
{
	(void)state;
	asked.hold = true;
	ask();
	assert_int_equal(results, 0);
	bh_probe_stop(&probe);
	bh_probe_stop(&probe);
	assert_int_equal(results, 1);
	assert_int_equal(result, -ECANCELED);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_there_unconfigured),
		cmocka_unit_test(a_configuration_brings_its_endpoints),
		cmocka_unit_test(what_is_not_there_is_refused),
		cmocka_unit_test(what_cannot_be_walked_is_no_configuration),
		cmocka_unit_test(more_endpoints_than_there_can_be_are_passed_over),
		cmocka_unit_test_setup(everything_is_asked_for, friendly),
		cmocka_unit_test_setup(a_refusal_ends_it_at_any_point, friendly),
		cmocka_unit_test_setup(nonsense_is_refused, friendly),
		cmocka_unit_test_setup(it_can_be_stopped, friendly),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
