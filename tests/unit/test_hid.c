/* Keyboard, mouse and tablet as USB devices: descriptors, reports, class requests, idle, wakeup, the queue. */
#include "test_hid_rig.h"

static const enum bh_hid_kind all_kinds[] = {BH_HID_KEYBOARD, BH_HID_MOUSE, BH_HID_TABLET};

/* ---- descriptors ---- */

static void test_device_and_configuration_descriptors(void **state)
{
	static const uint8_t protocols[] = {1, 2, 0}, packets[] = {8, 4, 6}, intervals[] = {10, 4, 4};
	uint8_t p[64];
	uint32_t n;

	(void)state;
	for (unsigned i = 0; i < 2 * BH_COUNT(all_kinds); i++) {
		bool low = i & 1;
		enum bh_hid_kind kind = all_kinds[i / 2];

		make(&(struct bh_hid_config){.kind = kind, .speed = low ? BH_SPEED_LOW : BH_SPEED_FULL});
		assert_int_equal(device->speed, low ? BH_SPEED_LOW : BH_SPEED_FULL);
		assert_int_equal(device->control_max_packet, low ? 8 : 64);
		assert_int_equal(control(0x80, 6, 0x0100, 0, p, 64, &n), BH_SUCCESS);
		assert_int_equal(n, 18);
		assert_int_equal(p[3], low ? 1 : 2); /* USB 1.1 knows no qualifier, which is not there */
		assert_int_equal(p[7], low ? 8 : 64);
		assert_int_equal(control(0x80, 6, 0x0200, 0, p, 64, &n), BH_SUCCESS);
		assert_memory_equal(p, ((uint8_t[]){9, 2, 34, 0, 1, 1, 0, 0xa0, 50}), 9);
		assert_memory_equal(p + 9, ((uint8_t[]){9, 4, 0, 0, 1, 3, protocols[kind] != 0, protocols[kind], 0}), 9);
		assert_memory_equal(p + 18, ((uint8_t[]){9, 0x21, 0x11, 0x01, 0, 1, 0x22}), 7);
		assert_memory_equal(p + 27, ((uint8_t[]){7, 5, 0x81, 3, packets[kind], 0, low ? 10 : intervals[kind]}), 7);
		assert_int_equal(n, 34);
		assert_null(bh_device_endpoint(device, ENDPOINT_HID));
		assert_int_equal(set_configuration(1), BH_SUCCESS);
		assert_int_equal(packet(), packets[kind]);
		end();
	}
}

static void test_hid_descriptor_is_that_of_the_configuration(void **state)
{
	uint8_t configuration[64], hid[64], report[256];
	uint32_t n;

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_int_equal(control(0x80, 6, 0x0200, 0, configuration, 64, &n), BH_SUCCESS);
	assert_int_equal(control(0x81, 6, 0x2100, 0, hid, 64, &n), BH_SUCCESS);
	assert_int_equal(n, 9);
	assert_memory_equal(hid, configuration + 18, 9);
	assert_int_equal(control(0x81, 6, 0x2200, 0, report, 255, &n), BH_SUCCESS);
	assert_int_equal(n, hid[7] | hid[8] << 8);
	assert_int_equal(control(0x81, 6, 0x2300, 0, report, 255, &n), BH_STALL); /* physical: there is none */
	assert_int_equal(control(0x81, 6, 0x2200, 1, report, 255, &n), BH_STALL); /* another interface */
	end();
}

/* What a driver's parser makes of a report descriptor: where each usage is, main item by main item. */
struct field {
	unsigned main; /* 8: input, 9: output */
	uint32_t page, usages[8], usage_count, usage_min, usage_max, size, count, at, flags;
	int32_t min, max;
};

static uint32_t item_value(const uint8_t *p, unsigned size)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < size; i++)
		v |= (uint32_t)p[i] << 8 * i;
	return v;
}

static int32_t item_signed(const uint8_t *p, unsigned size)
{
	return size == 1 ? (int8_t)p[0] : size == 2 ? (int16_t)item_value(p, 2) : (int32_t)item_value(p, size);
}

/* HID 6.2.2. Returns how many there are; bits[0]: input, bits[1]: output. */
static unsigned parse(const uint8_t *p, size_t n, struct field fields[16], uint32_t bits[2])
{
	static const uint8_t sizes[] = {0, 1, 2, 4};
	struct field f = {0};
	unsigned count = 0, depth = 0;

	bits[0] = bits[1] = 0;
	while (n) {
		unsigned size = sizes[*p & 3], tag = *p >> 4, type = *p >> 2 & 3;
		uint32_t v;

		assert_true(size < n);
		v = item_value(p + 1, size);
		if (type == 0) { /* main */
			if (tag == 8 || tag == 9) {
				f.main = tag;
				f.flags = v;
				f.at = bits[tag - 8];
				bits[tag - 8] += f.size * f.count;
				fields[count++] = f;
				assert_true(count < 16);
			}
			depth += (tag == 10) - (tag == 12);
			f.usage_count = f.usage_min = f.usage_max = 0;
		} else if (type == 1) { /* global */
			f.page = tag == 0 ? v : f.page;
			f.min = tag == 1 ? item_signed(p + 1, size) : f.min;
			f.max = tag == 2 ? item_signed(p + 1, size) : f.max;
			f.size = tag == 7 ? v : f.size;
			f.count = tag == 9 ? v : f.count;
		} else { /* local */
			if (tag == 0)
				f.usages[f.usage_count++] = v;
			f.usage_min = tag == 1 ? v : f.usage_min;
			f.usage_max = tag == 2 ? v : f.usage_max;
		}
		p += 1 + size;
		n -= 1 + size;
	}
	assert_int_equal(depth, 0);
	return count;
}

static unsigned fetch_fields(struct field fields[16], uint32_t bits[2])
{
	uint8_t report[256];
	uint32_t n;

	assert_int_equal(control(0x81, 6, 0x2200, 0, report, 255, &n), BH_SUCCESS);
	return parse(report, n, fields, bits);
}

static void test_keyboard_report_descriptor_says_what_is_sent(void **state)
{
	struct field f[16];
	uint32_t bits[2];

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_int_equal(fetch_fields(f, bits), 5);
	assert_int_equal(bits[0], 64);
	assert_int_equal(bits[1], 8);
	assert_int_equal(f[0].page, 7); /* modifiers: variable, a bit each */
	assert_int_equal(f[0].usage_min, 0xe0);
	assert_int_equal(f[0].usage_max, 0xe7);
	assert_int_equal(f[0].size * f[0].count, 8);
	assert_int_equal(f[0].flags, 2);
	assert_int_equal(f[1].flags & 1, 1); /* the reserved byte */
	assert_int_equal(f[2].main, 9);
	assert_int_equal(f[2].page, 8); /* LEDs */
	assert_int_equal(f[2].usage_max, 5);
	assert_int_equal(f[2].count, 5);
	assert_int_equal(f[4].page, 7); /* six keys: an array */
	assert_int_equal(f[4].at, 16);
	assert_int_equal(f[4].count, 6);
	assert_int_equal(f[4].flags, 0);
	assert_int_equal(f[4].usage_max, 255);
	assert_int_equal(f[4].max, 255);
	end();
}

static void test_pointer_report_descriptors_say_what_is_sent(void **state)
{
	struct field f[16];
	uint32_t bits[2];

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		bool tablet = i & 1;
		unsigned buttons = i & 2 ? 5 : 3;

		make_ready(&(struct bh_hid_config){
			.kind = tablet ? BH_HID_TABLET : BH_HID_MOUSE, .buttons = buttons, .speed = BH_SPEED_FULL});
		assert_int_equal(fetch_fields(f, bits), tablet ? 4 : 3);
		assert_int_equal(bits[0], tablet ? 48 : 32);
		assert_int_equal(bits[1], 0);
		assert_int_equal(f[0].page, 9);
		assert_int_equal(f[0].usage_max, buttons);
		assert_int_equal(f[0].count, buttons);
		assert_int_equal(f[0].count + f[1].size * f[1].count, 8);
		assert_int_equal(f[2].page, 1);
		assert_memory_equal(f[2].usages, ((uint32_t[]){0x30, 0x31, 0x38}), tablet ? 8 : 12);
		assert_int_equal(f[2].usage_count, tablet ? 2 : 3);
		assert_int_equal(f[2].at, 8);
		assert_int_equal(f[2].flags, tablet ? 2 : 6); /* absolute, relative */
		assert_int_equal(f[2].min, tablet ? 0 : -127);
		assert_int_equal(f[2].max, tablet ? 32767 : 127);
		if (tablet) {
			assert_int_equal(f[3].usages[0], 0x38);
			assert_int_equal(f[3].at, 40);
			assert_int_equal(f[3].flags, 6);
			assert_int_equal(f[3].min, -127);
		}
		end();
	}
}

/* ---- reports ---- */

static void test_keyboard_reports_byte_by_byte(void **state)
{
	(void)state;
	for (int boot = 0; boot < 2; boot++) { /* they are alike in both protocols */
		make_kind(BH_HID_KEYBOARD);
		assert_int_equal(set_protocol(!boot), BH_SUCCESS);
		assert_told("key a; down shift; down b; up shift; up b");
		assert_report(0, 0, 0x04, 0, 0, 0, 0, 0);
		assert_report(0, 0, 0, 0, 0, 0, 0, 0);
		assert_report(2, 0, 0, 0, 0, 0, 0, 0);
		assert_report(2, 0, 0x05, 0, 0, 0, 0, 0);
		assert_report(0, 0, 0x05, 0, 0, 0, 0, 0);
		assert_report(0, 0, 0, 0, 0, 0, 0, 0);
		assert_no_report();
		end();
	}
}

static void test_combination_is_pressed_in_order_and_released_in_the_other(void **state)
{
	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_told("key ctrl+alt+delete");
	assert_keys(0x01);
	assert_keys(0x05);
	assert_keys(0x05, 0x4c);
	assert_keys(0x05);
	assert_keys(0x01);
	assert_keys(0);
	assert_no_report();
	end();
}

static void test_seventh_key_is_error_roll_over_until_one_is_released(void **state)
{
	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_told("down a; down b; down c; down d; down e; down f");
	assert_keys(0, 4);
	assert_keys(0, 4, 5);
	assert_keys(0, 4, 5, 6);
	assert_keys(0, 4, 5, 6, 7);
	assert_keys(0, 4, 5, 6, 7, 8);
	assert_keys(0, 4, 5, 6, 7, 8, 9);
	assert_told("down shift; down g; up b; up shift");
	assert_keys(2, 4, 5, 6, 7, 8, 9); /* modifiers are no matter of room */
	assert_keys(2, 1, 1, 1, 1, 1, 1);
	assert_keys(2, 4, 6, 7, 8, 9, 10);
	assert_keys(0, 4, 6, 7, 8, 9, 10);
	end();
}

static void test_what_changes_nothing_is_no_report(void **state)
{
	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_told("up a; down a; down a; up b");
	assert_int_equal(bh_hid_counters(device).events, 1);
	assert_keys(0, 4);
	assert_no_report();
	assert_told("key a");
	assert_keys(0);
	assert_no_report();
	end();
	make_kind(BH_HID_MOUSE);
	assert_told("move 0 0; wheel 0; button left up");
	assert_no_report();
	end();
}

static void test_mouse_reports_byte_by_byte(void **state)
{
	(void)state;
	make_kind(BH_HID_MOUSE);
	assert_told("move 5 -3; click right; button middle down; wheel -2; button middle up");
	assert_report(0, 5, 0xfd, 0);
	assert_report(2, 0, 0, 0);
	assert_report(0, 0, 0, 0);
	assert_report(4, 0, 0, 0);
	assert_report(4, 0, 0, 0xfe);
	assert_report(0, 0, 0, 0);
	assert_no_report();
	end();
}

static void test_mouse_boot_reports_are_three_bytes_without_wheel(void **state)
{
	(void)state;
	make_ready(&(struct bh_hid_config){.kind = BH_HID_MOUSE, .buttons = 5, .speed = BH_SPEED_LOW});
	assert_int_equal(set_protocol(0), BH_SUCCESS);
	assert_told("button left down; wheel 1; move -127 127; button left up; click extra; wheel 3");
	assert_report(1, 0, 0);
	assert_report(1, 0x81, 0x7f);
	assert_report(0, 0, 0);
	assert_report(0x10, 0, 0);
	assert_report(0, 0, 0);
	assert_no_report();
	assert_int_equal(bh_hid_counters(device).queued, 0);
	end();
}

/* Each report goes at most 127 far; together they go where they should, about straight. */
static void test_long_way_is_several_reports(void **state)
{
	static const struct {
		int x, y;
		unsigned reports;
	} ways[] = {{127, 0, 1}, {128, 0, 2}, {-300, 100, 3}, {1, -32767, 259}, {32767, 32767, 259}, {-254, 253, 2}};
	char text[64];

	(void)state;
	make_kind(BH_HID_MOUSE);
	for (unsigned i = 0; i < BH_COUNT(ways); i++) {
		int x = 0, y = 0;

		snprintf(text, sizeof(text), "move %d %d", ways[i].x, ways[i].y);
		assert_told(text);
		for (unsigned n = 1; n <= ways[i].reports; n++) {
			struct job j;

			ask(&j, 4);
			assert_int_equal(j.done, 1);
			assert_true((int8_t)j.bytes[1] != -128 && (int8_t)j.bytes[2] != -128);
			x += (int8_t)j.bytes[1];
			y += (int8_t)j.bytes[2];
			/* the way there is cut in two halves at most, each straight */
			assert_true(4 * labs((long)x * (long)ways[i].reports - (long)ways[i].x * (long)n) <=
			            (long)(ways[i].reports * ways[i].reports));
		}
		assert_int_equal(x, ways[i].x);
		assert_int_equal(y, ways[i].y);
		assert_no_report();
	}
	assert_told("wheel -200");
	assert_report(0, 0, 0, 0x9c);
	assert_report(0, 0, 0, 0x9c);
	assert_no_report();
	end();
}

static void test_tablet_reports_byte_by_byte(void **state)
{
	(void)state;
	make_kind(BH_HID_TABLET);
	assert_told("at 0 0; at 32767 256; click left; at 32767 256; wheel 127; at 1 2");
	assert_report(0, 0, 0, 0, 0, 0);
	assert_report(0, 0xff, 0x7f, 0, 1, 0);
	assert_report(1, 0xff, 0x7f, 0, 1, 0);
	assert_report(0, 0xff, 0x7f, 0, 1, 0);
	assert_report(0, 0xff, 0x7f, 0, 1, 0x7f);
	assert_report(0, 1, 0, 2, 0, 0);
	assert_no_report();
	end();
}

/* ---- the endpoint ---- */

static void test_transfer_waits_for_input(void **state)
{
	struct job j[2];

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	ask(&j[0], 8);
	ask(&j[1], 8);
	assert_int_equal(j[0].done, 0);
	assert_told("down a");
	assert_int_equal(j[0].done, 1);
	assert_int_equal(j[0].status, BH_SUCCESS);
	assert_int_equal(j[0].t.actual, 8);
	assert_int_equal(j[0].bytes[2], 4);
	assert_int_equal(j[1].done, 0);
	assert_told("up a");
	assert_int_equal(j[1].done, 1);
	assert_int_equal(j[1].bytes[2], 0);
	assert_int_equal(bh_hid_counters(device).reports, 2);
	end();
}

/* A report of full length does not end a transfer of several packets: an empty packet would have to follow. */
static void test_transfer_of_several_packets_takes_several_reports(void **state)
{
	struct job j;

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	ask(&j, 24);
	assert_told("down a");
	assert_int_equal(j.done, 0);
	assert_int_equal(j.progresses, 1);
	assert_int_equal(j.t.actual, 8);
	assert_told("down b");
	bh_device_cancel(device, &j.t);
	assert_int_equal(j.status, BH_CANCELLED);
	assert_int_equal(j.t.actual, 16);
	assert_int_equal(j.bytes[10], 4);
	assert_int_equal(j.bytes[11], 5);
	assert_no_report();
	end();

	make_kind(BH_HID_MOUSE);
	assert_int_equal(set_protocol(0), BH_SUCCESS);
	ask(&j, 8);
	assert_told("move 1 1; move 2 2");
	assert_int_equal(j.done, 1); /* a short one does */
	assert_int_equal(j.t.actual, 3);
	assert_report(0, 2, 2);
	end();
}

static void test_report_that_does_not_fit_is_babble(void **state)
{
	struct job j;

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_told("down a");
	ask(&j, 4);
	assert_int_equal(j.done, 1);
	assert_int_equal(j.status, BH_BABBLE);
	assert_int_equal(j.t.actual, 4);
	end();
}

static void test_cancelled_transfer_loses_nothing(void **state)
{
	struct job j;

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	ask(&j, 8);
	bh_device_cancel(device, &j.t);
	assert_int_equal(j.done, 1);
	assert_int_equal(j.status, BH_CANCELLED);
	assert_int_equal(j.t.actual, 0);
	assert_told("key a");
	assert_keys(0, 4);
	assert_keys(0);
	end();
}

static void test_halted_endpoint_stalls_and_keeps_what_waits(void **state)
{
	struct job held, refused;

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	ask(&held, 8);
	assert_int_equal(control(0x02, 3, 0, ENDPOINT_HID, NULL, 0, NULL), BH_SUCCESS);
	assert_int_equal(held.done, 1);
	assert_int_equal(held.status, BH_STALL);
	assert_told("down a");
	ask(&refused, 8);
	assert_int_equal(refused.status, BH_STALL);
	assert_int_equal(control(0x02, 1, 0, ENDPOINT_HID, NULL, 0, NULL), BH_SUCCESS);
	assert_keys(0, 4);
	end();
}

static void test_no_other_endpoint_answers(void **state)
{
	struct job j;

	(void)state;
	make(&(struct bh_hid_config){.kind = BH_HID_KEYBOARD, .speed = BH_SPEED_FULL});
	assert_told("down a");
	ask(&j, 8); /* not configured */
	assert_int_equal(j.status, BH_STALL);
	assert_int_equal(set_configuration(1), BH_SUCCESS);
	prepare(&j, BH_INTERRUPT, 0x82, 8);
	bh_device_submit(device, &j.t);
	assert_int_equal(j.status, BH_STALL);
	assert_keys(0, 4); /* waited until it was */
	end();
}

/* ---- class requests ---- */

static void test_get_report_tells_what_was_sent_last(void **state)
{
	uint8_t p[16];
	uint32_t n;

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_told("down a; down b");
	assert_keys(0, 4);
	assert_int_equal(control(0xa1, 1, 0x0100, 0, p, 16, &n), BH_SUCCESS);
	assert_int_equal(n, 8);
	assert_memory_equal(p, "\0\0\4\0\0\0\0\0", 8);
	assert_int_equal(control(0xa1, 1, 0x0101, 0, p, 16, &n), BH_STALL); /* a report number */
	assert_int_equal(control(0xa1, 1, 0x0300, 0, p, 16, &n), BH_STALL); /* feature */
	assert_int_equal(control(0xa1, 1, 0x0100, 1, p, 16, &n), BH_STALL); /* another interface */
	assert_keys(0, 4, 5);
	end();
	make_kind(BH_HID_MOUSE);
	assert_told("button left down; move 9 9");
	assert_report(1, 0, 0, 0);
	assert_report(1, 9, 9, 0);
	assert_int_equal(control(0xa1, 1, 0x0100, 0, p, 16, &n), BH_SUCCESS);
	assert_int_equal(n, 4);
	assert_memory_equal(p, "\1\0\0\0", 4); /* a movement is over when it was told */
	assert_int_equal(set_protocol(0), BH_SUCCESS);
	assert_int_equal(control(0xa1, 1, 0x0100, 0, p, 16, &n), BH_SUCCESS);
	assert_int_equal(n, 3);
	end();
}

static void test_leds_are_set_and_read(void **state)
{
	uint8_t p[4] = {0xe3};
	uint32_t n;

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_int_equal(bh_hid_leds(device), 0);
	assert_int_equal(control(0x21, 9, 0x0200, 0, p, 1, &n), BH_SUCCESS);
	assert_int_equal(n, 1);
	assert_int_equal(bh_hid_leds(device), BH_HID_NUM_LOCK | BH_HID_CAPS_LOCK);
	assert_int_equal(control(0xa1, 1, 0x0200, 0, p, 4, &n), BH_SUCCESS);
	assert_int_equal(n, 1);
	assert_int_equal(p[0], 3);
	assert_int_equal(control(0x21, 9, 0x0200, 0, p, 0, &n), BH_STALL);
	assert_int_equal(control(0x21, 9, 0x0100, 0, p, 1, &n), BH_STALL); /* input reports cannot be set */
	assert_int_equal(bh_hid_leds(device), 3);
	bh_device_reset(device);
	assert_int_equal(bh_hid_leds(device), 0);
	end();
	make_kind(BH_HID_MOUSE);
	assert_int_equal(control(0x21, 9, 0x0200, 0, p, 1, &n), BH_STALL);
	assert_int_equal(control(0xa1, 1, 0x0200, 0, p, 1, &n), BH_STALL);
	end();
}

static void test_protocol_is_report_after_reset_and_configuration(void **state)
{
	uint8_t p;

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_int_equal(control(0xa1, 3, 0, 0, &p, 1, NULL), BH_SUCCESS);
	assert_int_equal(p, 1);
	assert_int_equal(set_protocol(0), BH_SUCCESS);
	assert_int_equal(control(0xa1, 3, 0, 0, &p, 1, NULL), BH_SUCCESS);
	assert_int_equal(p, 0);
	assert_int_equal(set_protocol(2), BH_STALL);
	assert_int_equal(set_configuration(1), BH_SUCCESS);
	assert_int_equal(control(0xa1, 3, 0, 0, &p, 1, NULL), BH_SUCCESS);
	assert_int_equal(p, 1);
	assert_int_equal(set_protocol(0), BH_SUCCESS);
	bh_device_reset(device);
	assert_int_equal(set_protocol(0), BH_STALL); /* not configured */
	assert_int_equal(set_configuration(1), BH_SUCCESS);
	assert_int_equal(control(0xa1, 3, 0, 0, &p, 1, NULL), BH_SUCCESS);
	assert_int_equal(p, 1);
	end();
	make_kind(BH_HID_TABLET);
	assert_int_equal(set_protocol(0), BH_STALL);
	assert_int_equal(control(0xa1, 3, 0, 0, &p, 1, NULL), BH_STALL);
	end();
}

static void test_unknown_requests_are_refused(void **state)
{
	uint8_t p[8] = {0};

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_int_equal(control(0x01, 7, 0x2200, 0, p, 8, NULL), BH_STALL); /* SET_DESCRIPTOR */
	assert_int_equal(control(0xa1, 4, 0, 0, p, 8, NULL), BH_STALL);
	assert_int_equal(control(0x21, 10, 0x0101, 0, p, 0, NULL), BH_STALL); /* SET_IDLE of a report number */
	assert_int_equal(control(0xc1, 1, 0, 0, p, 8, NULL), BH_STALL);
	end();
}

/* ---- idle repetition ---- */

static uint8_t get_idle(void)
{
	uint8_t p = 0xff;

	assert_int_equal(control(0xa1, 2, 0, 0, &p, 1, NULL), BH_SUCCESS);
	return p;
}

static bool timer_runs(void)
{
	return uv_run(&loop, UV_RUN_NOWAIT) != 0;
}

/* Waits for a repetition. */
static void wait_for(const struct job *j)
{
	run_until(j->done);
}

static void test_idle_is_as_the_specification_recommends_until_it_is_set(void **state)
{
	(void)state;
	make(&(struct bh_hid_config){.kind = BH_HID_KEYBOARD, .speed = BH_SPEED_FULL});
	assert_false(timer_runs());
	assert_int_equal(set_configuration(1), BH_SUCCESS);
	assert_int_equal(get_idle(), 125); /* 500 ms */
	assert_true(timer_runs());
	assert_int_equal(set_idle(0), BH_SUCCESS);
	assert_int_equal(get_idle(), 0);
	assert_false(timer_runs());
	assert_int_equal(set_idle(255), BH_SUCCESS);
	assert_int_equal(get_idle(), 255);
	assert_true(timer_runs());
	bh_device_reset(device);
	assert_false(timer_runs());
	assert_int_equal(set_configuration(1), BH_SUCCESS);
	assert_int_equal(get_idle(), 125);
	end();
	make(&(struct bh_hid_config){.kind = BH_HID_MOUSE, .speed = BH_SPEED_FULL});
	assert_int_equal(set_configuration(1), BH_SUCCESS);
	assert_int_equal(get_idle(), 0);
	assert_false(timer_runs());
	end();
}

/* As SeaBIOS has it: a key that is held repeats. */
static void test_held_key_is_told_again_each_idle_period(void **state)
{
	uint64_t start;
	struct job j;

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_int_equal(set_protocol(0), BH_SUCCESS);
	assert_told("down a");
	uv_sleep(30); /* the loop does not know yet that it is later */
	start = uv_hrtime();
	assert_keys(0, 4);
	assert_int_equal(set_idle(5), BH_SUCCESS); /* 20 ms */
	for (int i = 0; i < 3; i++) {
		ask(&j, 8);
		assert_int_equal(j.done, 0);
		wait_for(&j);
		assert_memory_equal(j.bytes, "\0\0\4\0\0\0\0\0", 8);
	}
	assert_true(uv_hrtime() - start >= (3 * 20 - 3) * 1000000ull); /* libuv counts whole milliseconds */
	assert_int_equal(bh_hid_counters(device).repeats, 3);
	assert_told("up a");
	assert_keys(0); /* does not wait for the period */
	ask(&j, 8);
	assert_int_equal(j.done, 0);
	bh_device_cancel(device, &j.t);
	end();
}

/* Nobody asks: the repetition waits, once. Then the period begins anew. */
static void test_repetition_nobody_fetched_is_one(void **state)
{
	struct job j;

	(void)state;
	make_kind(BH_HID_MOUSE);
	assert_told("button left down; move 3 3");
	assert_report(1, 0, 0, 0);
	assert_report(1, 3, 3, 0);
	assert_int_equal(set_idle(1), BH_SUCCESS);
	uv_run(&loop, UV_RUN_DEFAULT); /* until no timer runs any more */
	assert_report(1, 0, 0, 0);     /* without the movement */
	ask(&j, 4);
	assert_int_equal(j.done, 0);
	wait_for(&j);
	assert_int_equal(bh_hid_counters(device).repeats, 2);
	end();
}

static void test_event_that_waits_goes_before_a_repetition(void **state)
{
	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_int_equal(set_idle(1), BH_SUCCESS);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_told("key a");
	assert_keys(0, 4);
	assert_keys(0);
	assert_int_equal(bh_hid_counters(device).repeats, 0);
	end();
}

/* 7.2.4: the new period counts from the last report; where it has passed already, the report comes at once. */
static void test_period_set_anew_counts_from_the_last_report(void **state)
{
	struct job j;

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_told("down a");
	assert_keys(0, 4);
	assert_int_equal(set_idle(255), BH_SUCCESS); /* a second */
	uv_sleep(9);
	ask(&j, 8);
	assert_int_equal(set_idle(2), BH_SUCCESS); /* 8 ms */
	assert_int_equal(j.done, 0);
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(j.done, 1);
	end();
}

static void test_suspended_device_does_not_repeat(void **state)
{
	struct job j;

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_int_equal(set_idle(1), BH_SUCCESS);
	ask(&j, 8);
	bh_device_suspend(device, true);
	assert_false(timer_runs());
	assert_int_equal(j.done, 0);
	bh_device_suspend(device, false);
	wait_for(&j);
	end();
}

/* ---- suspend and wakeup ---- */

static void test_key_press_wakes_and_is_delivered_after_resume(void **state)
{
	struct job j;

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_int_equal(allow_wakeup(true), BH_SUCCESS);
	ask(&j, 8);
	bh_device_suspend(device, true);
	assert_int_equal(wakeups, 0);
	assert_told("key a");
	assert_int_equal(wakeups, 1);
	assert_int_equal(j.done, 0);
	bh_device_cancel(device, &j.t); /* as drivers do */
	assert_int_equal(j.t.actual, 0);
	assert_told("up b"); /* nothing */
	assert_int_equal(wakeups, 1);
	assert_told("key b");
	assert_int_equal(wakeups, 2);
	bh_device_suspend(device, false);
	assert_keys(0, 4);
	assert_keys(0);
	assert_keys(0, 5);
	assert_keys(0);
	assert_told("key c");
	assert_int_equal(wakeups, 2);
	assert_int_equal(bh_hid_counters(device).wakeups, 2);
	end();
}

static void test_transfer_held_over_suspend_gets_the_key_at_resume(void **state)
{
	struct job j;

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	ask(&j, 8);
	bh_device_suspend(device, true);
	assert_told("down a");
	assert_int_equal(j.done, 0);
	bh_device_suspend(device, false);
	assert_int_equal(j.done, 1);
	assert_int_equal(j.bytes[2], 4);
	end();
}

static void test_nobody_is_woken_who_did_not_allow_it(void **state)
{
	(void)state;
	make_kind(BH_HID_KEYBOARD);
	bh_device_suspend(device, true);
	assert_told("key a");
	assert_int_equal(wakeups, 0);
	bh_device_suspend(device, false);
	assert_keys(0, 4);
	assert_keys(0);
	assert_int_equal(allow_wakeup(true), BH_SUCCESS);
	assert_int_equal(allow_wakeup(false), BH_SUCCESS);
	bh_device_suspend(device, true);
	assert_told("key a");
	assert_false(timer_runs());
	assert_int_equal(wakeups, 0);
	end();
}

/* Pressed just before: the guest did not fetch it, and would not know until the next key. */
static void test_key_that_waits_when_the_bus_is_suspended_wakes_it_later(void **state)
{
	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_int_equal(allow_wakeup(true), BH_SUCCESS);
	assert_told("key a");
	bh_device_suspend(device, true);
	assert_int_equal(wakeups, 0); /* the bus has to be idle for 5 ms before */
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(wakeups, 1);
	bh_device_suspend(device, false);
	assert_keys(0, 4);
	end();
}

/* Instead of a resume there may come a reset. */
static void test_reset_keeps_what_was_typed(void **state)
{
	struct job j;

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_int_equal(allow_wakeup(true), BH_SUCCESS);
	assert_told("down a");
	assert_keys(0, 4);
	ask(&j, 8);
	bh_device_suspend(device, true);
	assert_told("down b; up a");
	bh_device_reset(device);
	assert_int_equal(j.done, 1);
	assert_int_equal(j.status, BH_CANCELLED);
	assert_int_equal(set_configuration(1), BH_SUCCESS);
	assert_int_equal(set_idle(0), BH_SUCCESS);
	assert_keys(0, 4, 5);
	assert_keys(0, 5);
	assert_no_report();
	end();
}

/* ---- the queue ---- */

static void test_full_queue_refuses_the_whole_call(void **state)
{
	(void)state;
	make_ready(&(struct bh_hid_config){.kind = BH_HID_KEYBOARD, .speed = BH_SPEED_FULL, .queue = 16});
	assert_told("type abcdefgh");
	assert_int_equal(bh_hid_counters(device).queued, 16);
	assert_refused("type i", ENOBUFS, "queue is full");
	assert_refused("down shift", ENOBUFS, "queue is full");
	assert_int_equal(bh_hid_counters(device).dropped, 3);
	assert_keys(0, 4);
	assert_refused("type i", ENOBUFS, "queue is full");
	assert_keys(0);
	assert_told("type i");
	assert_refused("type abcdefghi", EMSGSIZE, "in several parts");
	for (uint8_t k = 5; k <= 12; k++) {
		assert_keys(0, k);
		assert_keys(0);
	}
	assert_no_report();
	assert_int_equal(bh_hid_counters(device).events, 18);
	end();
}

/* Room for them is set aside when the key is pressed. */
static void test_release_is_never_refused_for_want_of_room(void **state)
{
	(void)state;
	make_ready(&(struct bh_hid_config){.kind = BH_HID_KEYBOARD, .speed = BH_SPEED_FULL, .queue = 16});
	assert_told("down ctrl+alt+x");
	assert_int_equal(tell("key a"), 0);
	while (!tell("key b"))
		;
	assert_int_equal(bh_hid_counters(device).queued, 13);
	assert_told("up ctrl+alt+x");
	assert_int_equal(bh_hid_counters(device).queued, 16);
	for (int i = 0; i < 15; i++) {
		struct job j;

		ask(&j, 8);
		assert_int_equal(j.done, 1);
	}
	assert_keys(0); /* the last report: nothing hangs */
	assert_no_report();
	end();
}

static void test_queue_goes_round(void **state)
{
	(void)state;
	make_ready(&(struct bh_hid_config){.kind = BH_HID_KEYBOARD, .speed = BH_SPEED_FULL, .queue = 17});
	for (int i = 0; i < 50; i++) {
		assert_told("type abc");
		for (uint8_t k = 4; k < 7; k++) {
			assert_keys(0, k);
			assert_keys(0);
		}
	}
	assert_no_report();
	end();
}

/* ---- life ---- */

static void test_bad_configurations_are_told(void **state)
{
	static const struct {
		struct bh_hid_config config;
		const char *what;
	} bad[] = {
		{{.kind = (enum bh_hid_kind)3, .speed = BH_SPEED_FULL}, "keyboard, mouse or tablet"},
		{{.speed = BH_SPEED_HIGH}, "full or low"},
		{{.speed = BH_SPEED_FULL, .buttons = 3}, "3 or 5 buttons"},
		{{.kind = BH_HID_MOUSE, .speed = BH_SPEED_FULL, .buttons = 4}, "3 or 5 buttons"},
		{{.speed = BH_SPEED_FULL, .queue = 15}, "16 to 65536"},
		{{.speed = BH_SPEED_FULL, .queue = 65537}, "16 to 65536"},
		{{.speed = BH_SPEED_FULL, .path = ""}, "no name"},
		{{.speed = BH_SPEED_FULL, .path = "/nonexistent/keys"}, "keyboard: '/nonexistent/keys': is not there"},
		{{.speed = BH_SPEED_FULL, .path = "/"}, "neither a regular file nor a FIFO"},
		{{.speed = BH_SPEED_FULL, .path = "/dev/null"}, "neither a regular file nor a FIFO"},
	};

	(void)state;
	for (unsigned i = 0; i < BH_COUNT(bad); i++) {
		struct bh_device *d = (struct bh_device *)1;
		char error[256] = "";

		assert_true(bh_hid_create(&loop, &bad[i].config, &d, error, sizeof(error)) < 0);
		assert_ptr_equal(d, (struct bh_device *)1);
		if (!strstr(error, bad[i].what) || strchr(error, '\n'))
			fail_msg("%u: %s", i, error);
		assert_int_equal(uv_loop_alive(&loop), 0);
	}
}

static void test_kinds_have_names(void **state)
{
	enum bh_hid_kind kind = BH_HID_MOUSE;

	(void)state;
	for (unsigned i = 0; i < BH_COUNT(all_kinds); i++) {
		assert_true(bh_hid_kind_parse(bh_hid_kind_name(all_kinds[i]), &kind));
		assert_int_equal(kind, all_kinds[i]);
	}
	assert_false(bh_hid_kind_parse("joystick", &kind));
	assert_int_equal(kind, BH_HID_TABLET);
	assert_string_equal(bh_hid_kind_name((enum bh_hid_kind)7), "?");
}

static void test_close_ends_what_waits(void **state)
{
	struct job j;
	unsigned closed = 0;

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_int_equal(set_idle(1), BH_SUCCESS);
	ask(&j, 8);
	bh_device_destroy(device);
	device = NULL;
	assert_int_equal(j.done, 1);
	assert_int_equal(j.status, BH_CANCELLED);
	assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
	bh_hid_close(NULL, count_closed, &closed);
	assert_int_equal(closed, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_device_and_configuration_descriptors, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_hid_descriptor_is_that_of_the_configuration, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_keyboard_report_descriptor_says_what_is_sent, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_pointer_report_descriptors_say_what_is_sent, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_keyboard_reports_byte_by_byte, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_combination_is_pressed_in_order_and_released_in_the_other, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_seventh_key_is_error_roll_over_until_one_is_released, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_what_changes_nothing_is_no_report, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_mouse_reports_byte_by_byte, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_mouse_boot_reports_are_three_bytes_without_wheel, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_long_way_is_several_reports, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tablet_reports_byte_by_byte, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_transfer_waits_for_input, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_transfer_of_several_packets_takes_several_reports, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_report_that_does_not_fit_is_babble, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_cancelled_transfer_loses_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_halted_endpoint_stalls_and_keeps_what_waits, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_other_endpoint_answers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_get_report_tells_what_was_sent_last, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_leds_are_set_and_read, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_protocol_is_report_after_reset_and_configuration, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_unknown_requests_are_refused, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_idle_is_as_the_specification_recommends_until_it_is_set, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_held_key_is_told_again_each_idle_period, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_repetition_nobody_fetched_is_one, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_event_that_waits_goes_before_a_repetition, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_period_set_anew_counts_from_the_last_report, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_suspended_device_does_not_repeat, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_key_press_wakes_and_is_delivered_after_resume, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_transfer_held_over_suspend_gets_the_key_at_resume, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_nobody_is_woken_who_did_not_allow_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_key_that_waits_when_the_bus_is_suspended_wakes_it_later, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_reset_keeps_what_was_typed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_full_queue_refuses_the_whole_call, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_release_is_never_refused_for_want_of_room, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_queue_goes_round, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bad_configurations_are_told, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_kinds_have_names, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_close_ends_what_waits, set_up, tear_down),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
