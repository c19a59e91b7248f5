/* Commands for input devices, from text to events: the language of function/hid.h. */
#ifndef FUNCTION_HID_TEXT_H
#define FUNCTION_HID_TEXT_H

#include <function/hid.h>

enum bh_hid_event_type {
	BH_HID_DOWN,  /* code: a usage of the keyboard page (HID Usage Tables, 10), or a button from 0 on */
	BH_HID_UP,
	BH_HID_MOVE,  /* by x, y */
	BH_HID_AT,    /* to x, y */
	BH_HID_WHEEL, /* by y */
};

struct bh_hid_event {
	enum bh_hid_event_type type;
	uint8_t code;
	int16_t x, y;
};

/* What a text comes to. From zero on; its memory ends with bh_hid_script_finish(). */
struct bh_hid_script {
	struct bh_hid_event *events;
	size_t count, room;
};

/*
 * Appends to the script. buttons: how many a mouse or tablet has. 0, or -EINVAL or -ENOMEM with
 * one line in error; what the script holds then is not to be used.
 */
int bh_hid_parse(enum bh_hid_kind kind, unsigned buttons, const char *text, struct bh_hid_script *script, char *error,
                 size_t error_size);
void bh_hid_script_finish(struct bh_hid_script *script);

/* The usage of the key with this name, not NUL-terminated; 0: none has it. */
uint8_t bh_hid_key(const char *name, size_t length);

#define BH_HID_SHIFT 0xe1u /* the left one */

/* The key of a US keyboard that types an ASCII character, and whether with shift. 0: none does. */
uint8_t bh_hid_key_of(char character, bool *ret_shift);

#endif
