/*
 * Offering a device by usbredir (0.7), as its "usb-host": to QEMU's usb-redir, to our own client,
 * and whoever else speaks it. There is no password and no secrecy in the protocol: who can
 * connect has the device. One client at a time; the next one waits for its turn.
 *
 * Carried: control, bulk, interrupt and isochronous transfers, configurations and alternate
 * settings, halts, resets, cancels. Not: streams of USB 3, buffered bulk input.
 *
 * What a cancelled transfer had moved is told with it: the answer has status "cancelled" and the
 * bytes that came, where usbredirhost, the library behind most servers, says nothing moved.
 */
#ifndef EXPORT_USBREDIR_SERVER_H
#define EXPORT_USBREDIR_SERVER_H

#include <export/usbip_server.h>

struct bh_usbredir_server;

/*
 * On a socket that listens, which stays the caller's. The device is in no port, and stays the
 * caller's, too; it outlives the server. 0 or a negative errno; -ENOTSUP: built without usbredir.
 */
int bh_usbredir_server_create(struct uv_loop_s *loop, int listener, struct bh_device *device, const struct bh_export_log *log,
                              struct bh_usbredir_server **ret);

struct bh_export_counters bh_usbredir_server_counters(const struct bh_usbredir_server *s);

/* The client is dropped; what is left closes in the loop. NULL is allowed. */
void bh_usbredir_server_destroy(struct bh_usbredir_server *s);

#endif
