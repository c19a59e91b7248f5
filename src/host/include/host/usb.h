/*
 * Devices of this host, passed through by libusb: what is plugged into this machine is the
 * guest's, as long as it is there, and again when it comes back.
 *
 * Carried: control, bulk, interrupt and isochronous transfers, configurations and alternate
 * settings, halts, resets, cancels. Not: suspend and remote wakeup (the host keeps the device
 * awake), data stages of control transfers of more than 4096 bytes (libusb's limit; they
 * are stalled).
 *
 * The host's drivers lose the device when it is taken, and get it back when it is let go of.
 */
#ifndef HOST_USB_H
#define HOST_USB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <host/real_device.h>
#include <usb/device.h>

struct uv_loop_s;

/* Which device: all that is given has to fit. Where several do, the first by bus and port is taken. */
struct bh_usb_selector {
	int vendor, product; /* -1: any */
	unsigned bus;        /* 0: any */
	unsigned address;    /* on its bus, until it is plugged in anew; 0: any */
	const char *port;    /* "1.4.2": the path of ports from the root of its bus, which stays the same; NULL: any */
	const char *serial;  /* iSerialNumber; NULL: any */
};

/* Read while the device is made, not kept. */
struct bh_usb_config {
	struct bh_usb_selector select;
	/*
	 * Instead of a selector: an open node of /dev/bus/usb, ours if 0 is returned; then no right to
	 * open any is needed, and a device that goes is gone for good. -1: none.
	 */
	int fd;
	/* A port reset by the guest does not reset the device; it is only configured anew. */
	bool no_reset;
	struct bh_real_log log;
};

/* Since creation. */
struct bh_usb_counters {
	uint64_t transfers;           /* of the guest, given to libusb */
	uint64_t bytes_in, bytes_out; /* moved */
	uint64_t cancels;             /* asked for */
	uint64_t errors;              /* transfers that ended in an error, a stall included */
	uint64_t resets;              /* of the device */
	uint64_t refused;             /* attempts to take a device that failed */
};

/*
 * Make the device, which is the caller's until it is in a port. It is searched for from the
 * loop, now and whenever it is away. Whatever may wait is done in the loop's thread pool;
 * libusb's events are on a thread of their own. The loop has to run while the device is
 * there, and until it is closed.
 *
 * 0, or a negative errno: then error holds one line for the user, and *ret is untouched.
 */
int bh_usb_create(struct uv_loop_s *loop, const struct bh_usb_config *config, struct bh_device **ret, char *error,
                  size_t error_size);

/*
 * Destroy, and say when: transfers still owned end, the device's configuration and the host's
 * drivers are put back; then closed is called (NULL: nobody is told) with 0 from the loop.
 * bh_device_destroy() does the same without telling. NULL is allowed, and closed at once.
 */
void bh_usb_close(struct bh_device *d, void (*closed)(void *data, int error), void *data);

struct bh_usb_counters bh_usb_counters(const struct bh_device *d);

/* --- what is plugged in here ------------------------------------------------------------------- */

#define BH_USB_TEXT 128u

/* A device of this host, as the kernel tells in /sys. Texts are cut to their room; they are the device's own words. */
struct bh_usb_found {
	char name[32]; /* "1-1.4": bus and port */
	char port[32]; /* "1.4"; "0": a root hub */
	unsigned bus, address;
	uint16_t vendor, product;
	uint8_t class;
	bool known_speed; /* one of these: */
	enum bh_speed speed;
	char manufacturer[BH_USB_TEXT], product_name[BH_USB_TEXT], serial[BH_USB_TEXT]; /* empty: it has none */
	char drivers[BH_USB_TEXT]; /* of its interfaces, each once: "usb-storage, usbhid" */
};

/*
 * All of them, by bus and port, as an array to free() and its length. 0, or a negative errno:
 * -ENOENT, there is no /sys/bus/usb (no USB, or no /sys here); -ENOMEM. May wait: the kernel
 * tells nothing of a device while it is being reset.
 */
int bh_usb_find_all(struct bh_usb_found **ret, size_t *ret_count);

/* Is what was found still in its place? Does not wait. */
bool bh_usb_is_there(const struct bh_usb_found *f);

bool bh_usb_fits(const struct bh_usb_found *f, const struct bh_usb_selector *s);

#define BH_USB_NODE_SIZE 64u

/* The device's node, "/dev/bus/usb/001/004"; returns text. */
char *bh_usb_node(const struct bh_usb_found *f, char text[BH_USB_NODE_SIZE]);

#endif
