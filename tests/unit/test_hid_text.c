/* The language input devices are told in: every character, every name, and what is refused. */
#include "test_hid_rig.h"

/* Fetches reports until all keys are up again; the first one with a key, and how many there were. */
static unsigned fetch_stroke(uint8_t *ret_modifiers, uint8_t *ret_key)
{
	unsigned n = 0;
	struct job j;

	do {
		ask(&j, 8);
		assert_int_equal(j.done, 1);
		n++;
		if (j.bytes[2]) {
			*ret_modifiers = j.bytes[0];
			*ret_key = j.bytes[2];
			assert_int_equal(j.bytes[3], 0);
		}
	} while (j.bytes[0] || j.bytes[2]);
	return n;
}

/* What a guest with a US layout makes of a key: written down apart from the code. */
static char us_layout(uint8_t modifiers, uint8_t key)
{
	static const char *const rows[] = {
		"abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
		"1234567890\n\x1b\b\t -=[]\\\\;'`,./", "!@#$%^&*()\n\x1b\b\t _+{}||:\"~<>?",
	};
	unsigned shift = (modifiers & 0x22) != 0;

	assert_int_equal(modifiers & ~0x22, 0);
	assert_in_range(key, 0x04, 0x38);
	return key < 0x1e ? rows[shift][key - 0x04] : rows[2 + shift][key - 0x1e];
}

static void test_every_character_arrives(void **state)
{
	char text[16];
	uint8_t modifiers = 0, key = 0;
	unsigned reports;

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	for (char c = 0x20; c < 0x7f; c++) {
		snprintf(text, sizeof(text), "type %s%c", c == ';' || c == '\\' ? "\\" : "", c);
		assert_told(text);
		reports = fetch_stroke(&modifiers, &key);
		assert_int_equal(reports, modifiers ? 4 : 2);
		assert_int_equal(us_layout(modifiers, key), c);
		assert_no_report();
	}
	assert_told("type \\n\\t\\b\\e\t");
	for (unsigned i = 0; i < 5; i++) {
		fetch_stroke(&modifiers, &key);
		assert_int_equal(us_layout(modifiers, key), "\n\t\b\x1b\t"[i]);
	}
	assert_no_report();
	end();
}

/* Shift is a key like any other: seen before, and after. */
static void test_capital_letter_is_four_reports(void **state)
{
	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_told("type Hi");
	assert_keys(2);
	assert_keys(2, 0x0b);
	assert_keys(2);
	assert_keys(0);
	assert_keys(0, 0x0c);
	assert_keys(0);
	assert_no_report();
	end();
}

static void assert_typed(const char *text)
{
	uint8_t modifiers = 0, key = 0;

	for (; *text; text++) {
		fetch_stroke(&modifiers, &key);
		assert_int_equal(us_layout(modifiers, key), *text);
	}
	assert_no_report();
}

static void test_text_is_typed_as_it_stands(void **state)
{
	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_told("type  Hello,  World! ");
	assert_typed(" Hello,  World! ");
	assert_told("type a;type b\n\n ; # type c; type d\n  TYPE e\r\n#\n");
	assert_typed("abe");
	assert_told("type a\\;type b\\\\;type c");
	assert_typed("a;type b\\c");
	assert_told("");
	assert_no_report();
	end();
}

static void test_every_key_has_a_name(void **state)
{
	static const struct {
		const char *name;
		uint8_t key;
	} names[] = {
		{"a", 0x04}, {"Z", 0x1d}, {"1", 0x1e}, {"9", 0x26}, {"0", 0x27}, {"enter", 0x28}, {"Return", 0x28},
		{"esc", 0x29}, {"escape", 0x29}, {"backspace", 0x2a}, {"tab", 0x2b}, {"space", 0x2c}, {"minus", 0x2d},
		{"-", 0x2d}, {"equal", 0x2e}, {"=", 0x2e}, {"leftbracket", 0x2f}, {"[", 0x2f}, {"rightbracket", 0x30},
		{"]", 0x30}, {"backslash", 0x31}, {"\\", 0x31}, {"\\\\", 0x31}, {"semicolon", 0x33}, {"\\;", 0x33},
		{"apostrophe", 0x34}, {"'", 0x34}, {"grave", 0x35}, {"`", 0x35}, {"comma", 0x36}, {",", 0x36},
		{"dot", 0x37}, {".", 0x37}, {"slash", 0x38}, {"/", 0x38}, {"capslock", 0x39}, {"f1", 0x3a}, {"F12", 0x45},
		{"print", 0x46}, {"sysrq", 0x46}, {"scrolllock", 0x47}, {"pause", 0x48}, {"insert", 0x49}, {"home", 0x4a},
		{"pageup", 0x4b}, {"delete", 0x4c}, {"end", 0x4d}, {"pagedown", 0x4e}, {"right", 0x4f}, {"left", 0x50},
		{"down", 0x51}, {"up", 0x52}, {"numlock", 0x53}, {"kpdivide", 0x54}, {"kpmultiply", 0x55},
		{"kpminus", 0x56}, {"kpplus", 0x57}, {"kpenter", 0x58}, {"kp1", 0x59}, {"kp9", 0x61}, {"kp0", 0x62},
		{"kpdot", 0x63}, {"102nd", 0x64}, {"menu", 0x65}, {"power", 0x66}, {"kpequal", 0x67}, {"f13", 0x68},
		{"f24", 0x73}, {"mute", 0x7f}, {"volumeup", 0x80}, {"volumedown", 0x81}, {"ro", 0x87},
		{"katakanahiragana", 0x88}, {"yen", 0x89}, {"henkan", 0x8a}, {"muhenkan", 0x8b}, {"hangul", 0x90},
		{"hanja", 0x91},
	};
	static const char *const modifiers[][2] = {
		{"ctrl", "leftctrl"}, {"shift", "leftshift"}, {"alt", "leftalt"}, {"super", "leftsuper"},
		{"rightctrl", "RIGHTCTRL"}, {"rightshift", "rightshift"}, {"rightalt", "altgr"}, {"rightsuper", "rightsuper"},
	};
	char text[64];

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	for (unsigned i = 0; i < BH_COUNT(names); i++) {
		snprintf(text, sizeof(text), "key %s", names[i].name);
		assert_told(text);
		assert_keys(0, names[i].key);
		assert_keys(0);
	}
	for (unsigned i = 0; i < 16; i++) {
		snprintf(text, sizeof(text), "key %s", modifiers[i / 2][i & 1]);
		assert_told(text);
		assert_keys((uint8_t)(1u << i / 2));
		assert_keys(0);
	}
	assert_no_report();
	end();
}

static void test_five_buttons_have_names(void **state)
{
	static const char *const names[] = {"left", "right", "middle", "side", "extra"};
	char text[64];

	(void)state;
	make_ready(&(struct bh_hid_config){.kind = BH_HID_MOUSE, .speed = BH_SPEED_FULL, .buttons = 5});
	for (unsigned i = 0; i < 5; i++) {
		snprintf(text, sizeof(text), "click %s", names[i]);
		assert_told(text);
		assert_report((uint8_t)(1u << i), 0, 0, 0);
		assert_report(0, 0, 0, 0);
	}
	end();
}

static void test_bad_keyboard_commands_say_what_to_say(void **state)
{
	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_refused("press a", EINVAL, "'press' is nothing a keyboard does; say type TEXT");
	assert_refused("move 1 1", EINVAL, "'move' is nothing a keyboard does");
	assert_refused("key", EINVAL, "name is missing; say key NAME");
	assert_refused("key f25", EINVAL, "no key is called 'f25'; say a to z");
	assert_refused("key f01", EINVAL, "no key is called 'f01'");
	assert_refused("key f0", EINVAL, "no key is called 'f0'");
	assert_refused("key kp10", EINVAL, "no key is called 'kp10'");
	assert_refused("key !", EINVAL, "no key is called '!'");
	assert_refused("key a b", EINVAL, "'b' is one word too many; say key NAME");
	assert_refused("key ctrl++", EINVAL, "the plus key is shift+equal");
	assert_refused("key +", EINVAL, "a name is missing beside '+'");
	assert_refused("down ctrl+", EINVAL, "a name is missing beside '+'");
	assert_refused("up a+b+c+d+e+f+g+h+i+j+k+l+m+n+o+p+q", EINVAL, "too many keys; say 16 at most");
	assert_refused("type", EINVAL, "nothing to type; say type TEXT");
	assert_refused("type ", EINVAL, "nothing to type");
	assert_refused("type a\\x", EINVAL, "a backslash stands alone; say \\n");
	assert_refused("type a\\", EINVAL, "a backslash stands alone");
	assert_refused("type caf\xc3\xa9", EINVAL, "byte 0xc3 cannot be typed on a US keyboard");
	assert_refused("type \x7f", EINVAL, "byte 0x7f cannot be typed");
	assert_refused("type a\rb", EINVAL, "byte 0x0d is no text; say \\n");
	assert_refused("\x1b[2J", EINVAL, "'?[2J' is nothing");
	assert_refused("key aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", EINVAL, "aaa...'; say");
	assert_int_equal(bh_hid_counters(device).dropped, 0);
	end();
}

static void test_bad_pointer_commands_say_what_to_say(void **state)
{
	(void)state;
	make_kind(BH_HID_MOUSE);
	assert_refused("type a", EINVAL, "'type' is nothing a mouse does; say move DX DY");
	assert_refused("at 1 1", EINVAL, "'at' is nothing a mouse does");
	assert_refused("move", EINVAL, "a number is missing; say move DX DY");
	assert_refused("move 1", EINVAL, "a number is missing; say move DX DY");
	assert_refused("move 1 2 3", EINVAL, "'3' is one word too many; say move DX DY");
	assert_refused("move 1 x", EINVAL, "'x' is no number from -32767 to 32767; say move DX DY");
	assert_refused("move 32768 0", EINVAL, "'32768' is no number");
	assert_refused("move -32768 0", EINVAL, "'-32768' is no number");
	assert_refused("move 10000000000000000000000 0", EINVAL, "is no number");
	assert_refused("move 00000001x 0", EINVAL, "is no number");
	assert_refused("wheel", EINVAL, "a number is missing; say wheel N");
	assert_refused("wheel 1 2", EINVAL, "one word too many; say wheel N");
	assert_refused("button left", EINVAL, "'' is neither down nor up; say button NAME down");
	assert_refused("button left sideways", EINVAL, "'sideways' is neither down nor up");
	assert_refused("button left down now", EINVAL, "'now' is one word too many");
	assert_refused("button", EINVAL, "name is missing; say button");
	assert_refused("click side", EINVAL, "no button is called 'side'; say left, right or middle");
	assert_refused("click left 2", EINVAL, "'2' is one word too many; say click NAME");
	end();
	make_ready(&(struct bh_hid_config){.kind = BH_HID_TABLET, .speed = BH_SPEED_FULL, .buttons = 5});
	assert_refused("move 1 1", EINVAL, "'move' is nothing a tablet does; say at X Y");
	assert_refused("at -1 1", EINVAL, "'-1' is no number from 0 to 32767; say at X Y");
	assert_refused("at 1 32768", EINVAL, "'32768' is no number from 0 to 32767");
	assert_refused("click fire", EINVAL, "say left, right, middle, side or extra");
	end();
}

/* Also of what stands before the mistake. */
static void test_nothing_of_a_bad_call_is_done(void **state)
{
	(void)state;
	make_kind(BH_HID_KEYBOARD);
	assert_refused("type hello\nkey ctrl+alt+delete; key nonsense", EINVAL, "'nonsense'");
	assert_no_report();
	assert_told("down h");
	assert_keys(0, 0x0b);
	assert_refused("up h; foo", EINVAL, "'foo'");
	assert_no_report();
	assert_told("up h");
	assert_keys(0);
	end();
}

/* Whatever the size of the buffer for the error. */
static void test_error_is_cut_to_its_buffer(void **state)
{
	char error[8];

	(void)state;
	make_kind(BH_HID_KEYBOARD);
	for (size_t n = 0; n <= sizeof(error); n++) {
		memset(error, 'x', sizeof(error));
		assert_int_equal(bh_hid_input(device, "key nonsense", error, n), -EINVAL);
		for (size_t i = n; i < sizeof(error); i++)
			assert_int_equal(error[i], 'x');
		if (n)
			assert_int_equal(error[n - 1], 0);
	}
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_every_character_arrives, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_capital_letter_is_four_reports, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_text_is_typed_as_it_stands, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_every_key_has_a_name, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_five_buttons_have_names, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bad_keyboard_commands_say_what_to_say, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bad_pointer_commands_say_what_to_say, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_nothing_of_a_bad_call_is_done, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_error_is_cut_to_its_buffer, set_up, tear_down),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
