/*
 * Which USB devices this machine has, as sysfs tells (Documentation/ABI/stable/sysfs-bus-usb):
 * needs neither libusb nor udev, nor the right to open anything. What a device says of itself
 * may be an enemy's.
 */
#ifndef HOST_USB_LIST_H
#define HOST_USB_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BH_USB_DEVICES "/sys/bus/usb/devices"

#define BH_USB_MAJOR 189u /* of the nodes (Linux, admin-guide/devices.txt) */
#define BH_USB_HUB_CLASS 9 /* bDeviceClass (USB 2.0, 11.23.1) */

struct bh_usb_entry {
	char name[64];       /* what the kernel calls it: "1-1.4"; a root hub: "usb1" */
	char port[64];       /* the second part of it, "1.4": stays the same when it is plugged in again; "0": a root hub */
	unsigned bus;        /* 1 to 999 */
	unsigned address;    /* 1 to 127; a new one each time it is plugged in; 0: it is being reset */
	uint16_t vendor, product;
	uint8_t device_class;
	unsigned mbits;      /* its speed; 0: not known; 1: 1.5 */
	char serial[384];    /* as it says, without the newline; empty: none */
	char manufacturer[384], product_name[384];
};

/*
 * All devices below a directory like BH_USB_DEVICES, in the order of their ports; what has no
 * numbers that make sense is left out. *ret is to be freed, NULL if there are none. 0, or a
 * negative errno: there is no such directory (-ENOENT: no sysfs, or a kernel without USB).
 * May wait: the kernel does not tell of a device while it is being reset.
 */
int bh_usb_scan(const char *directory, struct bh_usb_entry **ret, size_t *count);

/* Is it still plugged in: with the address it had, or with none, while it is being reset? Does not wait. */
bool bh_usb_entry_present(const char *directory, const struct bh_usb_entry *e);

/* The drivers of its interfaces, "usb-storage,usbhid", "" for none; cut to size. */
void bh_usb_entry_drivers(const char *directory, const struct bh_usb_entry *e, char *text, size_t size);

/* "/dev/bus/usb/001/007" */
#define BH_USB_NODE_SIZE 32
void bh_usb_entry_node(const struct bh_usb_entry *e, char text[BH_USB_NODE_SIZE]);

/* Which device is meant: what is set has to match. */
struct bh_usb_selector {
	bool by_vendor, by_product;
	uint16_t vendor, product;
	unsigned bus, address; /* 0: any */
	const char *port;      /* as bh_usb_entry.port; NULL: any */
	const char *serial;    /* NULL: any */
	const char *node;      /* a device node, or a link to one; NULL: any */
};

/*
 * The first that matches, in the order of the entries, and how many do. NULL: none does. Hubs
 * never do, for those of the host are not to be passed on; nor does what is being reset.
 */
const struct bh_usb_entry *bh_usb_choose(const struct bh_usb_selector *s, const struct bh_usb_entry *entries,
                                         size_t count, size_t *ret_matching);

#endif
