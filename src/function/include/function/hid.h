/*
 * Emulated input devices: a keyboard, a mouse, a tablet. What they do is told to them
 * in lines of text, by a call or through a file or FIFO.
 *
 * References: Device Class Definition for Human Interface Devices 1.11 ("HID"), HID Usage
 * Tables. Keyboard and mouse have the boot protocol as well. What is done is listed at the
 * head of hid.c.
 *
 * The text: one command a line; ';' ends one, too ("\;" is a semicolon). Words stand one
 * blank apart or more, names are not case-sensitive, empty lines and lines that begin with
 * '#' are passed over.
 *
 *   keyboard  type TEXT          what follows the blank, as it stands, on a US keyboard; in it
 *                                \n Enter, \t Tab, \b Backspace, \e Esc, "\\" a backslash
 *             key NAME           pressed and released; key ctrl+alt+delete: pressed one after
 *                                the other, released in the opposite order
 *             down NAME, up NAME pressed, and released later
 *   mouse     move DX DY         right and down; -32767 to 32767
 *   tablet    at X Y             0 to 32767, from the upper left
 *   both      button NAME down, button NAME up
 *             click NAME         left, right, middle; with five buttons side and extra
 *             wheel N            away from the user; negative: towards; -32767 to 32767
 *
 * Names of keys: a to z, 0 to 9, f1 to f24, enter, esc, backspace, tab, space, minus, equal,
 * leftbracket, rightbracket, backslash, semicolon, apostrophe, grave, comma, dot, slash (or
 * these eleven as they are printed: key -), capslock, numlock, scrolllock, print, pause,
 * insert, delete, home, end, pageup, pagedown, up, down, left, right, menu, power, mute,
 * volumeup, volumedown, 102nd, ro, yen, henkan, muhenkan, katakanahiragana, hangul, hanja,
 * kp0 to kp9, kpenter, kpplus, kpminus, kpmultiply, kpdivide, kpdot, kpequal; ctrl, shift,
 * alt, super (the left ones), rightctrl, rightshift, rightalt (altgr), rightsuper.
 *
 * Each press and each release is a report of its own, sent when the guest asks; a movement
 * is as many reports as it needs. What changes nothing (a key pressed twice) is no event.
 *
 * Events wait in a queue, also while the guest does not listen, has reset the device or has
 * suspended it; then, if it allowed that, it is woken. A call whose events do not all
 * fit is refused as a whole, and those events are counted as dropped; a file is not read on
 * until there is room. Room for the release of each key and button that is down is set aside:
 * a call that only releases is never refused for want of room, so no key stays down.
 */
#ifndef FUNCTION_HID_H
#define FUNCTION_HID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <usb/device.h>

struct uv_loop_s;

enum bh_hid_kind { BH_HID_KEYBOARD, BH_HID_MOUSE, BH_HID_TABLET };

#define BH_HID_QUEUE_MIN 16u
#define BH_HID_QUEUE_MAX 65536u

/* Read while the device is made, not kept. */
struct bh_hid_config {
	enum bh_hid_kind kind;
	enum bh_speed speed; /* BH_SPEED_FULL or BH_SPEED_LOW */
	unsigned buttons;    /* mouse and tablet: 3 or 5; 0: 3 */
	unsigned queue;      /* events that may wait; BH_HID_QUEUE_MIN to BH_HID_QUEUE_MAX; 0: 4096 */
	/*
	 * Lines are read from here as well; NULL: from nowhere. A regular file is read to its
	 * end once. A FIFO is read as long as the device is there, whoever opens and closes it
	 * for writing; what a writer leaves without a line end counts as a line.
	 */
	const char *path;
	/*
	 * Told of each bad line of the file, which is passed over, and of an end of reading before
	 * its time: one line for the user. From the loop; may not destroy the device. NULL: nobody is.
	 */
	void (*log)(void *data, const char *text);
	void *log_data;
};

/* LEDs of a keyboard, as bits of bh_hid_leds() (HID, appendix B.1) */
#define BH_HID_NUM_LOCK    0x01u
#define BH_HID_CAPS_LOCK   0x02u
#define BH_HID_SCROLL_LOCK 0x04u
#define BH_HID_COMPOSE     0x08u
#define BH_HID_KANA        0x10u

/* Since creation, but for queued. */
struct bh_hid_counters {
	uint64_t events;    /* taken into the queue */
	uint64_t dropped;   /* refused, for there was no room */
	uint64_t queued;    /* wait now */
	uint64_t reports;   /* sent, repetitions included; by the interrupt endpoint */
	uint64_t repeats;   /* of those, because the idle period had passed (HID 7.2.4) */
	uint64_t wakeups;   /* the guest was woken */
	uint64_t bad_lines; /* of the file */
};

/*
 * The device is the caller's until bh_bus_attach() takes it. The loop, and every other call,
 * belong to the controller's thread; the loop has to run while the device is there, and until
 * it is closed.
 *
 * 0, or a negative errno: then error holds one line for the user, *ret is untouched.
 */
int bh_hid_create(struct uv_loop_s *loop, const struct bh_hid_config *config, struct bh_device **ret, char *error,
                  size_t error_size);

/*
 * Destroy, and say when: closed is called (NULL: nobody is told), from the loop, with 0, when
 * nothing of the device is left in the loop. bh_device_destroy() does the same without
 * telling. NULL is allowed, and is closed at once.
 */
void bh_hid_close(struct bh_device *device, void (*closed)(void *data, int error), void *data);

/* What follows is for devices that bh_hid_create() made, and no others. */

/*
 * Does what text says: one command or several. 0, or a negative errno; then error holds one
 * line for the user, and nothing of the text was done. -EINVAL: it is not understood, or not
 * by this kind of device. -ENOBUFS: there is no room now. -EMSGSIZE: there is never as much room.
 */
int bh_hid_input(struct bh_device *device, const char *text, char *error, size_t error_size);

struct bh_hid_counters bh_hid_counters(const struct bh_device *device);
enum bh_hid_kind bh_hid_kind(const struct bh_device *device);
const char *bh_hid_kind_name(enum bh_hid_kind kind); /* "keyboard", "mouse", "tablet"; static; "?" for none of them */
bool bh_hid_kind_parse(const char *name, enum bh_hid_kind *ret); /* false: none of these names, and *ret untouched */

/* As the guest set them last; none after a reset. */
uint8_t bh_hid_leds(const struct bh_device *device);

#endif
