/* What "bulkhead devices" prints, whatever devices call themselves. */
#include "fake_sysfs.h"

#include <errno.h>
#include <jansson.h>
#include <unistd.h>

#include <base/util.h>

#include "../../src/server/list_devices.h"

static char *printed;

static const char *list(bool all, bool json)
{
	struct bh_list_config c = {.directory = directory, .all = all, .json = json};
	size_t size;
	FILE *to;

	free(printed);
	to = open_memstream(&printed, &size);
	assert_int_equal(bh_list_usb(&c, to), 0);
	fclose(to);
	return printed;
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
	free(printed);
	printed = NULL;
	return tree_remove();
}

static void a_stick(void)
{
	char path[128];

	plug("usb1", "1\n", "1d6b\n", "0001\n", NULL);
	attribute("usb1", "bDeviceClass", "09\n");
	plug("1-1.4", "7\n", "0525\n", "a4a5\n", "S123\n");
	attribute("1-1.4", "manufacturer", "Netchip\n");
	attribute("1-1.4", "product", "Gadget\n");
	attribute("1-1.4:1.0", "bInterfaceNumber", "00\n");
	snprintf(path, sizeof(path), "%s/1-1.4:1.0/driver", directory);
	assert_int_equal(symlink("../../drivers/usb-storage", path), 0);
	plug("2-1", "3\n", "1234\n", "0001\n", NULL);
	attribute("2-1", "speed", "480\n");
}

static void a_table_says_what_there_is(void **state)
{
	const char *text;

	(void)state;
	a_stick();
	text = list(false, false);
	assert_non_null(strstr(text, "1-1.4      001/007  0525:a4a5  full   usb-storage      Netchip Gadget, serial S123\n"
	                             "           --device usb,hostbus=1,hostport=1.4\n"
	                             "           not ours to open (/dev/bus/usb/001/007); a udev rule: SUBSYSTEM==\"usb\", "
	                             "ATTR{idVendor}==\"0525\", ATTR{idProduct}==\"a4a5\", MODE=\"0660\", GROUP="));
	assert_non_null(strstr(text, "2-1        002/003  1234:0001  high   -                \n"
	                             "           too fast for a guest's full-speed port"));
	assert_non_null(strstr(text, "udevadm control --reload"));
	assert_null(strstr(text, "usb1"));
	assert_non_null(strstr(list(true, false), "usb1       001/001  1d6b:0001"));
}

static void json_says_the_same(void **state)
{
	json_t *all, *stick, *fast;
	const char *port, *vendor, *driver, *option, *rule, *speed;
	int too_fast;

	(void)state;
	a_stick();
	all = json_loads(list(false, true), 0, NULL);
	assert_non_null(all);
	assert_int_equal(json_array_size(json_object_get(all, "devices")), 2);
	stick = json_array_get(json_object_get(all, "devices"), 0);
	fast = json_array_get(json_object_get(all, "devices"), 1);
	assert_int_equal(json_unpack(stick, "{s:s, s:s, s:[s], s:s, s:s, s:s, s:b}", "port", &port, "vendor", &vendor, "drivers",
	                             &driver, "device", &option, "udev_rule", &rule, "speed", &speed, "too_fast", &too_fast),
	                 0);
	assert_string_equal(port, "1-1.4");
	assert_string_equal(vendor, "0525");
	assert_string_equal(driver, "usb-storage");
	assert_string_equal(option, "usb,hostbus=1,hostport=1.4");
	assert_string_equal(speed, "full");
	assert_false(too_fast);
	assert_true(json_is_true(json_object_get(fast, "too_fast")));
	assert_true(json_is_null(json_object_get(fast, "serial")));
	json_decref(all);
}

static void nothing_is_said_to_be_nothing(void **state)
{
	struct bh_list_config c = {.directory = "/nowhere"};
	size_t size;
	char *text;
	FILE *to;

	(void)state;
	assert_string_equal(list(false, false), "There are no USB devices here.\n");
	plug("usb1", "1\n", "1d6b\n", "0001\n", NULL);
	attribute("usb1", "bDeviceClass", "09\n");
	assert_string_equal(list(false, false), "There are no USB devices here.\n");
	assert_non_null(strstr(list(false, true), "\"devices\": []"));
	assert_int_equal(bh_list_usb(&c, stdout), -ENOENT);
	c.without = "/nowhere/either";
	assert_int_equal(bh_list_usb(&c, stdout), -ENOENT);
	c.without = directory;
	to = open_memstream(&text, &size);
	assert_int_equal(bh_list_usb(&c, to), 0);
	fclose(to);
	assert_string_equal(text, "There are no USB devices here.\n");
	free(text);
}

static void what_a_device_says_is_made_harmless(void **state)
{
	static const struct {
		const char *said, *shown;
	} rows[] = {
		{"plain", "plain"},
		{"Gr\303\274n \346\227\245 \360\237\220\247", "Gr\303\274n \346\227\245 \360\237\220\247"},
		{"\033[2J\007\t\177", "?[2J???"},
		{"\302\233x", "?x"},                  /* C1: CSI */
		{"\342\200\256gpj.exe", "?gpj.exe"}, /* right to left */
		{"\342\200\250", "?"},
		{"\xff\xfe", "??"},
		{"\303", "?"},
		{"\303(", "?("},
		{"\300\257", "??"},         /* overlong */
		{"\355\240\200", "???"},   /* a surrogate */
		{"\364\220\200\200", "????"}, /* beyond */
		{"\360\237\220", "???"},
		{"", ""},
	};
	json_t *all;

	(void)state;
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		char text[64];

		strcpy(text, rows[i].said);
		assert_string_equal(bh_list_clean(text), rows[i].shown);
	}
	plug("1-1", "7\n", "0525\n", "a4a5\n", "\033]0;x\007\xff");
	attribute("1-1", "product", "a\033b\nc");
	assert_null(strpbrk(list(false, false), "\033\007\xff"));
	all = json_loads(list(false, true), 0, NULL);
	assert_non_null(all);
	json_decref(all);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(a_table_says_what_there_is),
		TEST(json_says_the_same),
		TEST(nothing_is_said_to_be_nothing),
		TEST(what_a_device_says_is_made_harmless),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
