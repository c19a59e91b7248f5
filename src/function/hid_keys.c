/*
 * Keys by their names, and by what they type on a US keyboard. The usages are those of
 * the keyboard page (HID Usage Tables, section 10).
 */
#include "hid_text.h"

#include <string.h>
#include <strings.h>

#include <base/util.h>

#define USAGE_A   0x04u
#define USAGE_1   0x1eu
#define USAGE_F1  0x3au
#define USAGE_F13 0x68u
#define USAGE_KP1 0x59u

/* Besides letters, digits, function keys and the keypad's digits. */
static const struct {
	const char *name;
	uint8_t usage;
} names[] = {
	{"0", 0x27},
	{"enter", 0x28},
	{"return", 0x28},
	{"esc", 0x29},
	{"escape", 0x29},
	{"backspace", 0x2a},
	{"tab", 0x2b},
	{"space", 0x2c},
	{"minus", 0x2d},
	{"-", 0x2d},
	{"equal", 0x2e},
	{"=", 0x2e},
	{"leftbracket", 0x2f},
	{"[", 0x2f},
	{"rightbracket", 0x30},
	{"]", 0x30},
	{"backslash", 0x31},
	{"\\", 0x31},
	{"\\\\", 0x31},
	{"semicolon", 0x33},
	{"\\;", 0x33},
	{"apostrophe", 0x34},
	{"'", 0x34},
	{"grave", 0x35},
	{"`", 0x35},
	{"comma", 0x36},
	{",", 0x36},
	{"dot", 0x37},
	{".", 0x37},
	{"slash", 0x38},
	{"/", 0x38},
	{"capslock", 0x39},
	{"print", 0x46},
	{"sysrq", 0x46},
	{"scrolllock", 0x47},
	{"pause", 0x48},
	{"insert", 0x49},
	{"home", 0x4a},
	{"pageup", 0x4b},
	{"delete", 0x4c},
	{"end", 0x4d},
	{"pagedown", 0x4e},
	{"right", 0x4f},
	{"left", 0x50},
	{"down", 0x51},
	{"up", 0x52},
	{"numlock", 0x53},
	{"kpdivide", 0x54},
	{"kpmultiply", 0x55},
	{"kpminus", 0x56},
	{"kpplus", 0x57},
	{"kpenter", 0x58},
	{"kp0", 0x62},
	{"kpdot", 0x63},
	{"102nd", 0x64},
	{"menu", 0x65},
	{"power", 0x66},
	{"kpequal", 0x67},
	{"mute", 0x7f},
	{"volumeup", 0x80},
	{"volumedown", 0x81},
	{"ro", 0x87},
	{"katakanahiragana", 0x88},
	{"yen", 0x89},
	{"henkan", 0x8a},
	{"muhenkan", 0x8b},
	{"hangul", 0x90},
	{"hanja", 0x91},
	{"ctrl", 0xe0},
	{"leftctrl", 0xe0},
	{"shift", BH_HID_SHIFT},
	{"leftshift", BH_HID_SHIFT},
	{"alt", 0xe2},
	{"leftalt", 0xe2},
	{"super", 0xe3},
	{"leftsuper", 0xe3},
	{"rightctrl", 0xe4},
	{"rightshift", 0xe5},
	{"rightalt", 0xe6},
	{"altgr", 0xe6},
	{"rightsuper", 0xe7},
};

/* "1" to "24", without a leading zero; 0: no such number. */
static unsigned small_number(const char *p, size_t n)
{
	unsigned v = 0;

	if (n < 1 || n > 2 || p[0] == '0')
		return 0;
	for (size_t i = 0; i < n; i++) {
		if (p[i] < '0' || p[i] > '9')
			return 0;
		v = v * 10 + (unsigned)(p[i] - '0');
	}
	return v;
}

/* Keys whose names are numbered. */
static uint8_t numbered_key(const char *p, size_t n)
{
	unsigned v;

	if (n == 1 && p[0] >= '1' && p[0] <= '9')
		return (uint8_t)(USAGE_1 + (unsigned)(p[0] - '1'));
	if (n >= 2 && (p[0] | 0x20) == 'f') {
		v = small_number(p + 1, n - 1);
		if (v >= 1 && v <= 12)
			return (uint8_t)(USAGE_F1 + v - 1);
		if (v >= 13 && v <= 24)
			return (uint8_t)(USAGE_F13 + v - 13);
	}
	if (n == 3 && !strncasecmp(p, "kp", 2) && p[2] >= '1' && p[2] <= '9')
		return (uint8_t)(USAGE_KP1 + (unsigned)(p[2] - '1'));
	return 0;
}

uint8_t bh_hid_key(const char *name, size_t length)
{
	if (length == 1 && (name[0] | 0x20) >= 'a' && (name[0] | 0x20) <= 'z')
		return (uint8_t)(USAGE_A + (unsigned)((name[0] | 0x20) - 'a'));
	for (size_t i = 0; i < BH_COUNT(names); i++)
		if (strlen(names[i].name) == length && !strncasecmp(names[i].name, name, length))
			return names[i].usage;
	return numbered_key(name, length);
}

uint8_t bh_hid_key_of(char character, bool *ret_shift)
{
	/* From usage 1 on: what each key types, alone and with shift. Escape fills the gaps: it is found before. */
	static const char plain[] = "1234567890\n\x1b\b\t -=[]\\\x1b;'`,./";
	static const char shifted[] = "!@#$%^&*()\x1b\x1b\x1b\x1b\x1b_+{}|\x1b:\"~<>?";
	const char *p;

	*ret_shift = false;
	if (character >= 'a' && character <= 'z')
		return (uint8_t)(USAGE_A + (unsigned)(character - 'a'));
	if (character && (p = strchr(plain, character)))
		return (uint8_t)(USAGE_1 + (unsigned)(p - plain));
	*ret_shift = true;
	if (character >= 'A' && character <= 'Z')
		return (uint8_t)(USAGE_A + (unsigned)(character - 'A'));
	if (character && (p = strchr(shifted, character)))
		return (uint8_t)(USAGE_1 + (unsigned)(p - shifted));
	return 0;
}
