/*
 * A USB device of this machine, taken from the kernel's drivers by usbfs and libusb, and given
 * back in the end.
 *
 * It is found in sysfs, by our own looking: libusb's way of noticing what comes and goes needs a
 * udevd, which containers and initramfs do not have. Where we may not open it, somebody else
 * does, and passes the open node in.
 *
 * Carried: control, bulk, interrupt and isochronous transfers, configurations and alternate
 * settings, halts, resets, cancels. A transfer is one libusb transfer, however long. Not: suspend
 * and remote wakeup; control transfers of more than 4096 bytes, which libusb refuses; hubs;
 * devices faster than the guest's port, which are left to the kernel.
 *
 * Each device has a thread of its own and a libusb context of its own, and everything that
 * touches it is done there, for all of it may wait: even to submit a transfer takes the kernel's
 * lock of the device, and to discard one waits until the controller has let go of it.
 */
#ifndef HOST_USB_H
#define HOST_USB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <host/real_device.h>
#include <host/usb_list.h>
#include <usb/device.h>

struct uv_loop_s;

/* Read while the device is made, not kept. */
struct bh_usb_config {
	/* Which one; when it is plugged in again, too. Or: */
	struct bh_usb_selector selector;
	bool passed; /* it is this, an open node of usbfs, ours if 0 is returned. When it goes, it is gone for good */
	int fd;
	/*
	 * A reset of its port by the guest does not reset the device, whose transfers are ended and
	 * endpoints' halts cleared only: for what does not survive a reset.
	 */
	bool keep_from_resets;
	/* Devices of high speed and SuperSpeed are taken, too: who has them translates. */
	bool any_speed;
	struct bh_real_log log;
};

/* Since creation. */
struct bh_usb_counters {
	uint64_t opened;      /* how often it was taken; */
	uint64_t failures;    /* and how often that failed */
	uint64_t transfers;   /* of the guest that were begun */
	uint64_t bytes_in, bytes_out; /* moved */
	uint64_t cancels;     /* asked for */
	uint64_t errors;      /* transfers that ended in an error, a stall included */
	uint64_t resets;      /* of the device */
	uint64_t missed;      /* isochronous packets that failed */
};

/*
 * 0; -EINVAL, -ENOMEM and other errors of the system, or -ENOTSUP: built without libusb; error
 * then holds one line, and the descriptor stays the caller's. Nothing is waited for: the device is
 * away until it is found. Tells libusb, for all contexts of this process made from then on, not
 * to look for devices by itself (where that is older than 1.0.27; newer ones are asked for one).
 */
int bh_usb_create(struct uv_loop_s *loop, const struct bh_usb_config *config, struct bh_device **ret, char *error,
                  size_t error_size);

/*
 * As bh_device_destroy(); closed() is called from the loop when the kernel's drivers have the
 * device again. error: always 0. bh_device_destroy() gives it back as well, without a word.
 */
void bh_usb_close(struct bh_device *d, void (*closed)(void *data, int error), void *data);

struct bh_usb_counters bh_usb_counters(const struct bh_device *d);

#endif
