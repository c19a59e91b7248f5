/* Chapter 9 for emulated devices: a function with nothing but descriptors. */
#include "function_rig.h"

#include "../../src/function/standard.h"

static const uint8_t device_descriptor[18] = {
	18, BH_DESCRIPTOR_DEVICE, BH_LE16(0x0200), 0, 0, 0, 64, BH_LE16(0x1111), BH_LE16(0x2222), BH_LE16(1), 1, 2, 0, 2,
};

/* Remote wakeup, bus-powered; interface 1 has an alternate setting with an isochronous endpoint. */
static const uint8_t first_configuration[] = {
	9, BH_DESCRIPTOR_CONFIGURATION, BH_LE16(69), 2, 5, 0, 0xa0, 50,
	9, BH_DESCRIPTOR_INTERFACE, 0, 0, 1, 0xff, 0, 0, 0,
	5, 0x24, 0, 0, 0, /* of a class */
	7, BH_DESCRIPTOR_ENDPOINT, 0x81, BH_INTERRUPT, BH_LE16(8), 10,
	9, BH_DESCRIPTOR_INTERFACE, 1, 0, 0, 0xff, 0, 0, 0,
	9, BH_DESCRIPTOR_INTERFACE, 1, 7, 3, 0xff, 0, 0, 0,
	7, BH_DESCRIPTOR_ENDPOINT, 0x82, BH_BULK, BH_LE16(64), 0,
	7, BH_DESCRIPTOR_ENDPOINT, 0x02, BH_BULK, BH_LE16(32), 0,
	7, BH_DESCRIPTOR_ENDPOINT, 0x83, BH_ISOCHRONOUS, BH_LE16(1023), 1,
	0, /* not of it any more */
};

/* Self-powered, no remote wakeup. */
static const uint8_t second_configuration[] = {
	9, BH_DESCRIPTOR_CONFIGURATION, BH_LE16(25), 1, 2, 0, 0xc0, 0,
	9, BH_DESCRIPTOR_INTERFACE, 0, 0, 1, 0xff, 0, 0, 0,
	7, BH_DESCRIPTOR_ENDPOINT, 0x82, BH_BULK, BH_LE16(16), 0,
};

static const uint8_t *const configurations[] = {first_configuration, second_configuration};

#define LONG_STRING "0123456789012345678901234567890123456789012345678901234567890123456789"
static const char *const strings[] = {"Ab", LONG_STRING LONG_STRING};

static const struct bh_description description = {
	.device = device_descriptor,
	.configurations = configurations,
	.configuration_count = 2,
	.strings = strings,
	.string_count = 2,
};

struct function {
	struct bh_standard standard;
	unsigned changes;
	int changed; /* the last one's interface */
	uint8_t configurations_seen[2]; /* before and after, of the last two changes */
	uint8_t halted, cleared;        /* endpoints */
	bool keeps_halts;
	unsigned wakeups;
};

static struct function *function_of(struct bh_standard *s)
{
	return bh_container_of(s, struct function, standard);
}

static void function_submit(struct bh_device *d, struct bh_transfer *t)
{
	bh_standard_control(bh_container_of(d, struct bh_standard, device), t);
}

static void function_changed(struct bh_standard *s, int interface)
{
	struct function *f = function_of(s);

	f->changes++;
	f->changed = interface;
	f->configurations_seen[0] = f->configurations_seen[1];
	f->configurations_seen[1] = s->settings.configuration;
}

static void function_halted(struct bh_standard *s, uint8_t endpoint, bool halted)
{
	if (halted)
		function_of(s)->halted = endpoint;
	else
		function_of(s)->cleared = endpoint;
}

static bool function_is_halted(const struct bh_standard *s, uint8_t endpoint)
{
	(void)s;
	return endpoint == 0x81;
}

static const struct bh_device_ops device_ops = {
	.submit = function_submit,
	.reset = bh_standard_reset,
	.set_configuration = bh_standard_set_configuration,
	.set_interface = bh_standard_set_interface,
	.clear_halt = bh_standard_clear_halt,
	.endpoint = bh_standard_endpoint,
	.suspend = bh_standard_suspend,
};

static const struct bh_standard_ops standard_ops = {.changed = function_changed, .halted = function_halted};
static const struct bh_standard_ops keeping_ops = {.is_halted = function_is_halted};
static const struct bh_standard_ops no_ops = {0};

static void woke(struct bh_device *d)
{
	bh_container_of(d, struct function, standard.device)->wakeups++;
}

static const struct bh_device_upcalls upcalls = {.wakeup = woke};

static struct function f;
static struct bh_device *const d = &f.standard.device;

/* A new function in every test, reset as the bus does on attaching it. */
static int set_up(void **state)
{
	(void)state;
	f = (struct function){0};
	bh_standard_init(&f.standard, &device_ops, &standard_ops, &description, BH_SPEED_FULL);
	d->upcalls = &upcalls;
	bh_device_reset(d);
	f.changes = 0;
	return 0;
}

static enum bh_status descriptor(uint16_t value, uint8_t *b, uint16_t length, uint32_t *n)
{
	memset(b, 0xee, 255);
	return request(d, 0x80, 6, value, 0, b, length, n);
}

static void test_device_is_described(void **state)
{
	uint8_t b[255];
	uint32_t n;

	(void)state;
	assert_int_equal(d->speed, BH_SPEED_FULL);
	assert_int_equal(d->control_max_packet, 64);
	assert_int_equal(descriptor(0x0100, b, 64, &n), BH_SUCCESS);
	assert_int_equal(n, 18);
	assert_memory_equal(b, device_descriptor, 18);
	assert_int_equal(descriptor(0x0100, b, 8, &n), BH_SUCCESS);
	assert_int_equal(n, 8);
	assert_int_equal(b[8], 0xee);
	assert_int_equal(descriptor(0x0100, b, 0, &n), BH_SUCCESS);
	assert_int_equal(n, 0);
}

static void test_configurations_come_whole_by_their_index(void **state)
{
	uint8_t b[255];
	uint32_t n;

	(void)state;
	assert_int_equal(descriptor(0x0200, b, 255, &n), BH_SUCCESS);
	assert_int_equal(n, 69);
	assert_memory_equal(b, first_configuration, 69);
	assert_int_equal(descriptor(0x0201, b, 255, &n), BH_SUCCESS);
	assert_int_equal(n, 25);
	assert_memory_equal(b, second_configuration, 25);
	assert_int_equal(descriptor(0x0201, b, 9, &n), BH_SUCCESS);
	assert_int_equal(n, 9);
}

static void test_strings(void **state)
{
	uint8_t b[255];
	uint32_t n;

	(void)state;
	assert_int_equal(descriptor(0x0300, b, 255, &n), BH_SUCCESS);
	assert_int_equal(n, 4);
	assert_memory_equal(b, "\4\3\x09\4", 4);
	assert_int_equal(descriptor(0x0301, b, 255, &n), BH_SUCCESS);
	assert_int_equal(n, 6);
	assert_memory_equal(b, "\6\3A\0b\0", 6);
	assert_int_equal(descriptor(0x0302, b, 255, &n), BH_SUCCESS); /* cut to what a descriptor can hold */
	assert_int_equal(n, 254);
	assert_int_equal(b[0], 254);
	assert_int_equal(b[252], '0' + 125 % 10);
	assert_int_equal(descriptor(0x0303, b, 255, &n), BH_STALL);
	assert_int_equal(descriptor(0x03ee, b, 255, &n), BH_STALL);
}

static void test_no_strings_no_languages(void **state)
{
	struct bh_description mute = description;
	uint8_t b[255];
	uint32_t n;

	(void)state;
	mute.string_count = 0;
	f.standard.description = &mute;
	assert_int_equal(descriptor(0x0300, b, 255, &n), BH_STALL);
}

static void test_what_is_not_there_stalls(void **state)
{
	static const uint16_t values[] = {0x0101, 0x0202, 0x02ff, 0x0400, 0x0500, 0x0600, 0x0700, 0x0f00, 0x2200, 0};
	uint8_t b[255];
	uint32_t n;

	(void)state;
	for (size_t i = 0; i < BH_COUNT(values); i++)
		assert_int_equal(descriptor(values[i], b, 255, &n), BH_STALL);
	assert_int_equal(request(d, 0, 7, 0x0100, 0, b, 18, &n), BH_STALL);    /* SET_DESCRIPTOR */
	assert_int_equal(request(d, 0x82, 12, 0, 0x83, b, 2, &n), BH_STALL);   /* SYNCH_FRAME */
	assert_int_equal(request(d, 1, 3, 0, 0, NULL, 0, NULL), BH_STALL);     /* SET_FEATURE of an interface */
	assert_int_equal(request(d, 0x40, 0x5b, 0, 0, NULL, 0, NULL), BH_STALL);
	assert_int_equal(request(d, 0x81, 6, 0x0100, 0, b, 18, &n), BH_STALL); /* a device's descriptor, of an interface */
}

static uint8_t configuration(void)
{
	uint8_t b = 0xee;
	uint32_t n;

	assert_int_equal(request(d, 0x80, 8, 0, 0, &b, 1, &n), BH_SUCCESS);
	assert_int_equal(n, 1);
	return b;
}

/* GET_INTERFACE; 0xff: there is none. */
static uint8_t alternate(uint16_t interface)
{
	uint8_t b = 0xee;

	return request(d, 0x81, 10, 0, interface, &b, 1, NULL) == BH_SUCCESS ? b : 0xff;
}

static void test_a_configuration_brings_its_endpoints(void **state)
{
	const struct bh_endpoint_info *e;

	(void)state;
	assert_int_equal(configuration(), 0);
	assert_null(bh_device_endpoint(d, 0x81));
	assert_int_equal(set_configuration(d, 5), BH_SUCCESS);
	assert_int_equal(configuration(), 5);
	e = bh_device_endpoint(d, 0x81);
	assert_non_null(e);
	assert_int_equal(e->address, 0x81);
	assert_int_equal(e->type, BH_INTERRUPT);
	assert_int_equal(e->max_packet, 8);
	assert_int_equal(e->interval, 10);
	assert_int_equal(e->interface, 0);
	assert_null(bh_device_endpoint(d, 0x01));
	assert_null(bh_device_endpoint(d, 0x82)); /* of another alternate setting */

	assert_int_equal(set_configuration(d, 2), BH_SUCCESS);
	assert_null(bh_device_endpoint(d, 0x81));
	assert_int_equal(bh_device_endpoint(d, 0x82)->max_packet, 16);

	assert_int_equal(set_configuration(d, 3), BH_STALL); /* changes nothing */
	assert_int_equal(configuration(), 2);
	assert_int_equal(bh_device_endpoint(d, 0x82)->max_packet, 16);
	assert_int_equal(set_configuration(d, 0), BH_SUCCESS);
	assert_int_equal(configuration(), 0);
	assert_null(bh_device_endpoint(d, 0x82));
}

static void test_an_alternate_setting_brings_its_endpoints(void **state)
{
	const struct bh_endpoint_info *e;

	(void)state;
	assert_int_equal(set_interface(d, 1, 7), BH_STALL); /* not configured */
	assert_int_equal(alternate(1), 0xff);
	assert_int_equal(set_configuration(d, 5), BH_SUCCESS);
	assert_int_equal(alternate(0), 0);
	assert_int_equal(alternate(1), 0);
	assert_int_equal(set_interface(d, 1, 7), BH_SUCCESS);
	assert_int_equal(alternate(0), 0);
	assert_int_equal(alternate(1), 7);
	e = bh_device_endpoint(d, 0x83);
	assert_int_equal(e->type, BH_ISOCHRONOUS);
	assert_int_equal(e->max_packet, 1023);
	assert_int_equal(e->interface, 1);
	assert_int_equal(bh_device_endpoint(d, 0x02)->max_packet, 32);
	assert_non_null(bh_device_endpoint(d, 0x81));

	assert_int_equal(set_interface(d, 1, 1), BH_STALL); /* changes nothing */
	assert_int_equal(set_interface(d, 0, 7), BH_STALL);
	assert_int_equal(set_interface(d, 2, 0), BH_STALL);
	assert_int_equal(set_interface(d, 255, 0), BH_STALL);
	assert_int_equal(alternate(1), 7);
	assert_int_equal(alternate(2), 0xff);
	assert_int_equal(alternate(4), 0xff);
	assert_int_equal(alternate(0x101), 0xff);

	assert_int_equal(set_interface(d, 1, 0), BH_SUCCESS);
	assert_null(bh_device_endpoint(d, 0x83));
	assert_int_equal(set_interface(d, 1, 7), BH_SUCCESS);
	assert_int_equal(set_configuration(d, 5), BH_SUCCESS); /* all settings are 0 again (9.1.1.5) */
	assert_int_equal(alternate(1), 0);
	assert_null(bh_device_endpoint(d, 0x83));
}

static void test_the_function_hears_before_and_after(void **state)
{
	(void)state;
	set_configuration(d, 5);
	assert_int_equal(f.changes, 2);
	assert_int_equal(f.changed, -1);
	assert_int_equal(f.configurations_seen[0], 0);
	assert_int_equal(f.configurations_seen[1], 5);
	set_interface(d, 1, 7);
	assert_int_equal(f.changes, 4);
	assert_int_equal(f.changed, 1);
	bh_device_reset(d);
	assert_int_equal(f.changes, 6);
	assert_int_equal(f.changed, -1);
	assert_int_equal(f.configurations_seen[0], 5);
	assert_int_equal(f.configurations_seen[1], 0);
	set_configuration(d, 9);
	set_interface(d, 0, 9);
	assert_int_equal(f.changes, 6); /* refused */
}

static void test_halts_are_set_told_and_cleared(void **state)
{
	(void)state;
	set_configuration(d, 5);
	set_interface(d, 1, 7);
	assert_int_equal(endpoint_status(d, 0x82), 0);
	assert_int_equal(set_halt(d, 0x82), BH_SUCCESS);
	assert_int_equal(f.halted, 0x82);
	assert_int_equal(f.cleared, 0);
	assert_int_equal(endpoint_status(d, 0x82), 1);
	assert_int_equal(endpoint_status(d, 0x02), 0); /* the same number, the other direction */
	assert_true(bh_standard_halted(&f.standard, 0x82));
	assert_int_equal(clear_halt(d, 0x82), BH_SUCCESS);
	assert_int_equal(f.cleared, 0x82);
	assert_int_equal(endpoint_status(d, 0x82), 0);
	assert_int_equal(clear_halt(d, 0x82), BH_SUCCESS); /* there is none: toggles begin anew all the same */

	f.halted = 0;
	bh_standard_halt(&f.standard, 0x02); /* the function itself */
	assert_int_equal(f.halted, 0);
	assert_int_equal(endpoint_status(d, 0x02), 1);
	assert_int_equal(clear_halt(d, 0x02), BH_SUCCESS);
	assert_int_equal(endpoint_status(d, 0x02), 0);
}

static void test_halts_end_with_the_setting(void **state)
{
	(void)state;
	set_configuration(d, 5);
	set_interface(d, 1, 7);
	set_halt(d, 0x81);
	set_halt(d, 0x82);
	set_interface(d, 1, 7);
	assert_int_equal(endpoint_status(d, 0x82), 0);
	assert_int_equal(endpoint_status(d, 0x81), 1); /* another interface's */
	set_halt(d, 0x82);
	set_interface(d, 1, 0);
	assert_int_equal(endpoint_status(d, 0x82), 0xff);
	set_interface(d, 1, 7);
	assert_int_equal(endpoint_status(d, 0x82), 0);
	set_configuration(d, 5);
	assert_int_equal(endpoint_status(d, 0x81), 0);
	set_halt(d, 0x81);
	bh_device_reset(d);
	set_configuration(d, 5);
	assert_int_equal(endpoint_status(d, 0x81), 0);
}

static void test_only_what_can_be_halted_is(void **state)
{
	(void)state;
	assert_int_equal(set_halt(d, 0x81), BH_STALL); /* not configured */
	assert_int_equal(clear_halt(d, 0x81), BH_STALL);
	assert_int_equal(endpoint_status(d, 0x81), 0xff);
	set_configuration(d, 5);
	set_interface(d, 1, 7);
	assert_int_equal(set_halt(d, 0x83), BH_STALL); /* isochronous */
	assert_int_equal(endpoint_status(d, 0x83), 0);
	assert_int_equal(clear_halt(d, 0x83), BH_SUCCESS);
	assert_int_equal(set_halt(d, 0x01), BH_STALL); /* there is none */
	assert_int_equal(endpoint_status(d, 0x01), 0xff);
	assert_int_equal(clear_halt(d, 0x01), BH_STALL);
	assert_int_equal(endpoint_status(d, 0x181), 0xff);
	assert_int_equal(endpoint_status(d, 0xc1), 0xff);
	assert_int_equal(request(d, 2, 3, 1, 0x81, NULL, 0, NULL), BH_STALL); /* another feature */
	assert_int_equal(request(d, 2, 1, 1, 0x81, NULL, 0, NULL), BH_STALL);
	assert_int_equal(f.halted, 0);

	assert_int_equal(endpoint_status(d, 0), 0);
	assert_int_equal(endpoint_status(d, 0x80), 0);
	assert_int_equal(set_halt(d, 0), BH_STALL);
	assert_int_equal(clear_halt(d, 0), BH_SUCCESS);
	assert_int_equal(endpoint_status(d, 0x10), 0xff); /* 0 by its low bits only */
	assert_int_equal(clear_halt(d, 0x10), BH_STALL);
}

static void test_a_function_may_keep_its_halts(void **state)
{
	(void)state;
	f = (struct function){0};
	bh_standard_init(&f.standard, &device_ops, &keeping_ops, &description, BH_SPEED_FULL);
	set_configuration(d, 5);
	assert_int_equal(endpoint_status(d, 0x81), 1);
	assert_int_equal(endpoint_status(d, 0), 0);
	assert_int_equal(clear_halt(d, 0x81), BH_SUCCESS);
	assert_int_equal(endpoint_status(d, 0x81), 1);
}

static void test_every_operation_is_optional(void **state)
{
	(void)state;
	f = (struct function){0};
	bh_standard_init(&f.standard, &device_ops, &no_ops, &description, BH_SPEED_FULL);
	bh_device_reset(d);
	set_configuration(d, 5);
	set_interface(d, 1, 7);
	set_halt(d, 0x02);
	assert_int_equal(endpoint_status(d, 0x02), 1);
	clear_halt(d, 0x02);
	assert_int_equal(endpoint_status(d, 0x02), 0);
}

static uint8_t device_status(void)
{
	uint8_t b[2] = {0xee, 0xee};
	uint32_t n;

	assert_int_equal(request(d, 0x80, 0, 0, 0, b, 2, &n), BH_SUCCESS);
	assert_int_equal(n, 2);
	assert_int_equal(b[1], 0);
	return b[0];
}

static void test_status_tells_power_and_wakeup(void **state)
{
	uint8_t b[2] = {0xee, 0xee};

	(void)state;
	assert_int_equal(device_status(), 0);
	set_configuration(d, 2);
	assert_int_equal(device_status(), 1);
	assert_int_equal(request(d, 0, 3, 1, 0, NULL, 0, NULL), BH_STALL); /* this one cannot wake */
	set_configuration(d, 5);
	assert_int_equal(device_status(), 0);
	assert_int_equal(request(d, 0, 3, 1, 0, NULL, 0, NULL), BH_SUCCESS);
	assert_int_equal(device_status(), 2);
	set_configuration(d, 2);
	assert_int_equal(device_status(), 1);
	set_configuration(d, 5);
	assert_int_equal(device_status(), 0);
	assert_int_equal(request(d, 0, 3, 1, 0, NULL, 0, NULL), BH_SUCCESS);
	assert_int_equal(request(d, 0, 1, 1, 0, NULL, 0, NULL), BH_SUCCESS);
	assert_int_equal(device_status(), 0);
	assert_int_equal(request(d, 0, 3, 2, 0, NULL, 0, NULL), BH_STALL); /* TEST_MODE */
	assert_int_equal(request(d, 0x81, 0, 0, 1, b, 2, NULL), BH_SUCCESS);
	assert_memory_equal(b, "\0\0", 2);
	assert_int_equal(request(d, 0x81, 0, 0, 2, b, 2, NULL), BH_STALL);
}

static void test_wakes_only_when_asleep_and_allowed(void **state)
{
	(void)state;
	set_configuration(d, 5);
	request(d, 0, 3, 1, 0, NULL, 0, NULL);
	bh_standard_wakeup(&f.standard);
	assert_int_equal(f.wakeups, 0);
	bh_device_suspend(d, true);
	bh_standard_wakeup(&f.standard);
	assert_int_equal(f.wakeups, 1);
	bh_device_suspend(d, false);
	bh_standard_wakeup(&f.standard);
	assert_int_equal(f.wakeups, 1);
	request(d, 0, 1, 1, 0, NULL, 0, NULL);
	bh_device_suspend(d, true);
	bh_standard_wakeup(&f.standard);
	assert_int_equal(f.wakeups, 1);
	bh_device_suspend(d, false);

	request(d, 0, 3, 1, 0, NULL, 0, NULL);
	bh_device_suspend(d, true);
	bh_device_reset(d); /* ends sleep, and the permission (9.4.5) */
	bh_standard_wakeup(&f.standard);
	assert_int_equal(f.wakeups, 1);
	set_configuration(d, 5);
	assert_int_equal(device_status(), 0);
	bh_device_suspend(d, true);
	bh_standard_wakeup(&f.standard);
	assert_int_equal(f.wakeups, 1);
}

/* Whatever eight bytes a guest sends. */
static void test_any_setup_is_answered(void **state)
{
	static uint8_t data[0x10000];
	uint32_t random = 1;

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		uint8_t s[8];
		uint32_t n;

		for (unsigned j = 0; j < sizeof(s); j++) {
			random = random * 1664525 + 1013904223;
			s[j] = (uint8_t)(random >> 24 & (j == 0 ? 0xe3 : random & 1 << 16 ? 0xff : 0x0f));
		}
		request(d, s[0], s[1] & 15, (uint16_t)(s[2] | s[3] << 8), (uint16_t)(s[4] | s[5] << 8), data,
		        (uint16_t)(s[6] | s[7] << 8), &n);
		assert_true(n <= (uint16_t)(s[6] | s[7] << 8));
		assert_true(f.standard.settings.endpoint_count <= BH_SETTINGS_ENDPOINTS);
	}
}

#define TEST(name) cmocka_unit_test_setup(name, set_up)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_device_is_described),
		TEST(test_configurations_come_whole_by_their_index),
		TEST(test_strings),
		TEST(test_no_strings_no_languages),
		TEST(test_what_is_not_there_stalls),
		TEST(test_a_configuration_brings_its_endpoints),
		TEST(test_an_alternate_setting_brings_its_endpoints),
		TEST(test_the_function_hears_before_and_after),
		TEST(test_halts_are_set_told_and_cleared),
		TEST(test_halts_end_with_the_setting),
		TEST(test_only_what_can_be_halted_is),
		TEST(test_a_function_may_keep_its_halts),
		TEST(test_every_operation_is_optional),
		TEST(test_status_tells_power_and_wakeup),
		TEST(test_wakes_only_when_asleep_and_allowed),
		TEST(test_any_setup_is_answered),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
