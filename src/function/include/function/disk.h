/*
 * An emulated USB disk: mass storage, bulk-only transport, one logical unit, over
 * a raw image file, a block device of the host, or an NBD server (remote storage). A target that is software, as
 * the patent's [0101] allows.
 *
 * References: USB Mass Storage Class Bulk-Only Transport 1.0 ("BOT"), SCSI SPC-4
 * and SBC-3. What of them is done is listed at the heads of bot.c and scsi.c.
 */
#ifndef FUNCTION_DISK_H
#define FUNCTION_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <usb/device.h>

struct uv_loop_s;

/* Read while the disk is made, not kept. */
struct bh_disk_config {
	const char *path; /* of the image or block device, which has to be there; or NULL, and: */
	/*
	 * The URI of an NBD server's export, "nbd://HOST:PORT/NAME", "nbd+unix:///NAME?socket=PATH". It
	 * has to answer within two seconds, in which nothing else is done; lost later, it is connected
	 * to again and again. Not both.
	 */
	const char *nbd;
	unsigned nbd_timeout_ms; /* how long a request may take before it ends with an error; 0: 4000 */
	/* Told when the server is lost, is back, or is not the same any more: a line for the user. NULL: nobody is. */
	void (*log)(void *data, const char *text);
	void *log_data;
	bool readonly;
	/*
	 * Not a removable medium (RMB clear in INQUIRY). By default it is one: only
	 * then does a guest lock the medium while it uses it, offer to eject it, and
	 * look again after it was ejected and loaded.
	 */
	bool fixed;
	const char *serial;  /* 12 to 32 of 0-9 A-F; NULL: made from the file's canonical path */
	unsigned block_size; /* bytes; 512 or 4096; 0: 512 */
	enum bh_speed speed; /* BH_SPEED_FULL or BH_SPEED_HIGH */
};

/* Since creation. */
struct bh_disk_counters {
	uint64_t commands;      /* valid CBWs */
	uint64_t bytes_read;    /* from the medium, as the guest got them */
	uint64_t bytes_written; /* to the medium */
	uint64_t flushes;       /* that reached the host's disk */
	uint64_t failed;        /* commands that ended in CHECK CONDITION */
	uint64_t io_errors;     /* of those, because the host could not read or write */
	uint64_t phase_errors;  /* the two sides disagreed on the data: BOT 6.7 */
	uint64_t invalid_cbws;
	uint64_t resets; /* Bulk-Only Mass Storage Resets */
};

/*
 * Open the file, lock it (one writer, or any number of readers) and make a device
 * of it, which is the caller's until bh_bus_attach() takes it. Disk I/O happens in the
 * loop's thread pool; the loop, and every other call, belong to the controller's thread.
 * The loop has to run while the disk is there, and until it is closed.
 *
 * 0, or a negative errno: then error holds one line for the user, which names the
 * file and says what to do, *ret is untouched, and nothing was created or changed.
 */
int bh_disk_create(struct uv_loop_s *loop, const struct bh_disk_config *config, struct bh_device **ret,
                   char *error, size_t error_size);

/*
 * Destroy, and say when: what is still owned is cancelled, writes already accepted
 * in whole are finished, everything written is flushed to the host's disk, the
 * lock is let go; then closed is called (NULL: nobody is told) with 0 or the
 * negative errno of the flush, from the loop or before this returns. bh_device_destroy()
 * does the same without telling. The device is gone for the caller at once; the loop
 * has to run until closed was called. NULL is allowed, and is closed at once.
 */
void bh_disk_close(struct bh_device *device, void (*closed)(void *data, int error), void *data);

/* Of a device that bh_disk_create() made, and no other. */
struct bh_disk_counters bh_disk_counters(const struct bh_device *device);

/* The serial number in use; valid as long as the device. */
const char *bh_disk_serial(const struct bh_device *device);

#endif
