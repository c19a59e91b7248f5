/*
 * Offering devices to others by USB/IP (protocol 1.1.1): Linux's "usbip attach", and whoever
 * else speaks it. Each has a busid of its own, "1-1", "1-2" and so on. There is no password and
 * no secrecy in the protocol: who can connect has the devices.
 *
 * A device serves one client at a time; another one is told that it is busy. A client that breaks
 * the protocol, asks for more than a client may have (exported.h), or takes nothing of what it
 * asked for, is dropped, and the device reset.
 */
#ifndef EXPORT_USBIP_SERVER_H
#define EXPORT_USBIP_SERVER_H

#include <stddef.h>
#include <stdint.h>

#include <usb/device.h>

struct uv_loop_s;
struct bh_usbip_server;

struct bh_export_counters {
	uint64_t clients;    /* that had the device */
	uint64_t dropped;    /* connections that were ended for what came on them */
	uint64_t refused;    /* clients for whom there was no device, or no room */
	uint64_t requests;   /* transfers begun */
	uint64_t bytes_in, bytes_out; /* moved */
};

/* Where lines for people go. */
struct bh_export_log {
	void (*line)(void *data, const char *text); /* NULL: nowhere */
	void *data;
};

/*
 * On a socket that listens, which stays the caller's. The devices are in no port, and stay the
 * caller's, too; they outlive the server. At most 127. 0 or a negative errno.
 */
int bh_usbip_server_create(struct uv_loop_s *loop, int listener, struct bh_device *const *devices, size_t count,
                           const struct bh_export_log *log, struct bh_usbip_server **ret);

struct bh_export_counters bh_usbip_server_counters(const struct bh_usbip_server *s);

/* Every client is dropped; what is left closes in the loop. NULL is allowed. */
void bh_usbip_server_destroy(struct bh_usbip_server *s);

#endif
