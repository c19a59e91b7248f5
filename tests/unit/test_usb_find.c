/* Looking for USB devices in a sysfs, and in what somebody has made of one. */
#include "fake_sysfs.h"

#include <errno.h>
#include <unistd.h>

#include <base/util.h>
#include <host/usb_list.h>

static struct bh_usb_entry *entries;
static size_t count;

static void scan(void)
{
	free(entries);
	entries = NULL;
	assert_int_equal(bh_usb_scan(directory, &entries, &count), 0);
}

static int set_up(void **state)
{
	(void)state;
	tree_make();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(entries);
	entries = NULL;
	return tree_remove();
}

/* --- what is there --------------------------------------------------------------------------------- */

static void devices_come_in_the_order_of_their_ports(void **state)
{
	static const char *const names[] = {"usb1", "1-1", "1-1.2", "1-1.2.1", "1-1.10", "1-2", "1-10", "usb2", "2-1", "10-1"};

	(void)state;
	for (size_t i = BH_COUNT(names); i--;)
		plug(names[i], "7\n", "0525\n", "a4a5\n", NULL);
	scan();
	assert_int_equal(count, BH_COUNT(names));
	for (size_t i = 0; i < count; i++)
		assert_string_equal(entries[i].name, names[i]);
	assert_string_equal(entries[0].port, "0");
	assert_string_equal(entries[3].port, "1.2.1");
	assert_int_equal(entries[9].bus, 10);
}

static void everything_of_a_device_is_read(void **state)
{
	char node[BH_USB_NODE_SIZE];

	(void)state;
	plug("3-1.4", "127\n", "1d6B\n", "0002\n", "A serial number\nand more\n");
	attribute("3-1.4", "manufacturer", "Who\033[31m\n");
	attribute("3-1.4", "product", "What\n");
	attribute("3-1.4", "bDeviceClass", "ef\n");
	attribute("3-1.4", "speed", "1.5\n");
	scan();
	assert_int_equal(count, 1);
	assert_int_equal(entries->address, 127);
	assert_int_equal(entries->vendor, 0x1d6b);
	assert_int_equal(entries->product, 2);
	assert_int_equal(entries->device_class, 0xef);
	assert_int_equal(entries->mbits, 1);
	assert_string_equal(entries->serial, "A serial number");
	assert_string_equal(entries->manufacturer, "Who\033[31m");
	assert_string_equal(entries->product_name, "What");
	bh_usb_entry_node(entries, node);
	assert_string_equal(node, "/dev/bus/usb/003/127");
}

static void a_replugged_device_is_not_present(void **state)
{
	(void)state;
	plug("1-1", "7\n", "0525\n", "a4a5\n", NULL);
	scan();
	assert_true(bh_usb_entry_present(directory, entries));
	attribute("1-1", "devnum", "0\n"); /* being reset */
	assert_true(bh_usb_entry_present(directory, entries));
	attribute("1-1", "devnum", "8\n");
	assert_false(bh_usb_entry_present(directory, entries));
	attribute("1-1", "devnum", "");
	assert_false(bh_usb_entry_present(directory, entries));
	assert_false(bh_usb_entry_present("/nowhere", entries));
}

static void drivers_are_told_once_each(void **state)
{
	static const char *const interfaces[][2] = {
		{"1-1:1.0", "usbhid"}, {"1-1:1.1", "cdc_acm"}, {"1-1:1.2", "usbhid"}, {"1-1.1:1.0", "usb-storage"}};
	char path[128], target[128], text[64], small[10];

	(void)state;
	plug("1-1", "7\n", "0525\n", "a4a5\n", NULL);
	scan();
	bh_usb_entry_drivers(directory, entries, text, sizeof(text));
	assert_string_equal(text, "");
	for (size_t i = 0; i < BH_COUNT(interfaces); i++) {
		attribute(interfaces[i][0], "bInterfaceNumber", "00\n");
		snprintf(path, sizeof(path), "%s/%s/driver", directory, interfaces[i][0]);
		snprintf(target, sizeof(target), "../../bus/usb/drivers/%s", interfaces[i][1]);
		assert_int_equal(symlink(target, path), 0);
	}
	bh_usb_entry_drivers(directory, entries, text, sizeof(text));
	assert_true(!strcmp(text, "usbhid,cdc_acm") || !strcmp(text, "cdc_acm,usbhid"));
	bh_usb_entry_drivers(directory, entries, small, sizeof(small));
	assert_int_equal(strlen(small), 9);
}

static void where_there_is_no_sysfs(void **state)
{
	(void)state;
	assert_int_equal(bh_usb_scan("/nowhere/at/all", &entries, &count), -ENOENT);
	scan();
	assert_int_equal(count, 0);
	assert_null(entries);
}

/* --- what somebody has made of it -------------------------------------------------------------------- */

static void what_makes_no_sense_is_left_out(void **state)
{
	static const char *const names[] = {
		"usb", "usb0", "usb1x", "1", "1-", "1-x", "0-1", "-1", "1-1:1.0", "1-1;", "1-1 ", "1000-1", "x-1", "usb1-1",
		"99999999999999999999-1", ".hidden", "1-1.1:2.3",
	};
	static const char *const numbers[] = {"", "\n", "x", "128", "-1", " 7", "7x", "+7", "99999999999999999999", "0x7"};
	static const char *const ids[] = {"", "10000", "-1", "g", "0525 a"};
	char name[256];

	(void)state;
	for (size_t i = 0; i < BH_COUNT(names); i++)
		plug(names[i], "7\n", "0525\n", "a4a5\n", NULL);
	memset(name, '1', sizeof(name));
	memcpy(name, "1-", 2);
	name[100] = 0;
	plug(name, "7\n", "0525\n", "a4a5\n", NULL);
	for (size_t i = 0; i < BH_COUNT(numbers); i++) {
		snprintf(name, sizeof(name), "5-%zu", i + 1);
		plug(name, numbers[i], "0525\n", "a4a5\n", NULL);
	}
	for (size_t i = 0; i < BH_COUNT(ids); i++) {
		snprintf(name, sizeof(name), "6-%zu", i + 1);
		plug(name, "7\n", ids[i], "a4a5\n", NULL);
		snprintf(name, sizeof(name), "7-%zu", i + 1);
		plug(name, "7\n", "0525\n", ids[i], NULL);
	}
	snprintf(name, sizeof(name), "%s/8-1", directory);
	mkdir(name, 0777); /* with nothing in it */
	scan();
	assert_int_equal(count, 0);
}

static void what_is_no_file_holds_nobody_up(void **state)
{
	char path[128];

	(void)state;
	plug("1-1", "7\n", "0525\n", "a4a5\n", NULL);
	snprintf(path, sizeof(path), "%s/1-1/serial", directory);
	assert_int_equal(mkfifo(path, 0666), 0);
	snprintf(path, sizeof(path), "%s/1-1/product", directory);
	assert_int_equal(mkdir(path, 0777), 0);
	snprintf(path, sizeof(path), "%s/1-1/manufacturer", directory);
	assert_int_equal(symlink("manufacturer", path), 0);
	scan();
	assert_int_equal(count, 1);
	assert_string_equal(entries->serial, "");
	assert_string_equal(entries->product_name, "");
	assert_string_equal(entries->manufacturer, "");
}

static void what_is_long_is_cut(void **state)
{
	char text[2000];

	(void)state;
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = 0;
	plug("1-1", "7\n", "0525\n", "a4a5\n", text);
	scan();
	assert_int_equal(strlen(entries->serial), sizeof(entries->serial) - 1);
}

static void there_may_be_many(void **state)
{
	char name[32];

	(void)state;
	for (unsigned i = 1; i <= 200; i++) {
		snprintf(name, sizeof(name), "1-%u", i);
		plug(name, "7\n", "0525\n", "a4a5\n", NULL);
	}
	scan();
	assert_int_equal(count, 200);
	for (unsigned i = 1; i <= 200; i++) {
		snprintf(name, sizeof(name), "%u", i);
		assert_string_equal(entries[i - 1].port, name);
	}
}

/* --- which one is meant --------------------------------------------------------------------------------- */

static void a_selector_finds_the_first_that_matches(void **state)
{
	static const struct {
		struct bh_usb_selector selector;
		const char *name; /* NULL: none */
		size_t matching;
	} rows[] = {
		{{.by_vendor = true, .vendor = 0x0525, .by_product = true, .product = 0xa4a5}, "1-1.2", 2},
		{{.by_vendor = true, .vendor = 0x0525}, "1-1.2", 3},
		{{.by_vendor = true, .vendor = 0x0526}, NULL, 0},
		{{.serial = "S1"}, "1-3", 2},
		{{.serial = "S1", .by_vendor = true, .vendor = 0x1234}, "2-1", 1},
		{{.serial = "S"}, NULL, 0},
		{{.serial = ""}, "1-1.2", 1},
		{{.bus = 1, .port = "1.2"}, "1-1.2", 1},
		{{.bus = 2, .port = "1.2"}, NULL, 0},
		{{.bus = 1, .port = "1"}, NULL, 0}, /* a hub */
		{{.bus = 1, .address = 4}, "1-3", 1},
		{{.bus = 2, .address = 4}, "2-1", 1},
		{{.bus = 1, .address = 1}, NULL, 0}, /* a root hub */
		{{.by_vendor = true, .vendor = 0x1d6b}, NULL, 0},
		{{.node = "/dev/null"}, NULL, 0},
		{{.node = "/nowhere"}, NULL, 0},
	};

	(void)state;
	plug("usb1", "1\n", "1d6b\n", "0001\n", NULL);
	attribute("usb1", "bDeviceClass", "09\n");
	plug("1-1", "2\n", "1d6b\n", "0001\n", NULL);
	attribute("1-1", "bDeviceClass", "09\n");
	plug("1-1.2", "3\n", "0525\n", "a4a5\n", NULL);
	plug("1-3", "4\n", "0525\n", "a4a5\n", "S1\n");
	plug("1-4", "5\n", "0525\n", "a4a6\n", "S2\n");
	plug("2-1", "4\n", "1234\n", "a4a5\n", "S1\n");
	plug("1-1.1", "0\n", "0525\n", "a4a5\n", "S1\n"); /* being reset */
	scan();
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		size_t matching = 77;
		const struct bh_usb_entry *e = bh_usb_choose(&rows[i].selector, entries, count, &matching);

		assert_int_equal(matching, rows[i].matching);
		assert_int_equal(!e, !rows[i].name);
		if (e)
			assert_string_equal(e->name, rows[i].name);
	}
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(devices_come_in_the_order_of_their_ports),
		TEST(everything_of_a_device_is_read),
		TEST(a_replugged_device_is_not_present),
		TEST(drivers_are_told_once_each),
		TEST(where_there_is_no_sysfs),
		TEST(what_makes_no_sense_is_left_out),
		TEST(what_is_no_file_holds_nobody_up),
		TEST(what_is_long_is_cut),
		TEST(there_may_be_many),
		TEST(a_selector_finds_the_first_that_matches),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
