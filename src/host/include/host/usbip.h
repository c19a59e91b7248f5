/*
 * A device that another machine exports by USB/IP (protocol 1.1.1): Linux's usbipd with
 * usbip-host or usbip-vudc, usbipd-win, and others. We are its client, as Linux's vhci-hcd is.
 * The messages are in host/usbip_wire.h.
 *
 * Carried: control, bulk, interrupt and isochronous transfers, configurations and alternate
 * settings, halts, cancels. Not: a port reset, for which clients have no message (the device is
 * not reset, but configured anew by the guest, which comes after it), suspend and remote wakeup.
 *
 * Cancels lose the count. Linux's usbip-host answers an unlinked request with the unlink's own
 * answer, which has room for a status alone, and drops the request with whatever it has moved
 * (drivers/usb/usbip/stub_tx.c, stub_complete()); usbip-vudc does the same (vudc_transfer.c,
 * v_timer()). So cancel_loses is set: bulk goes packet by packet, but for bulk-only disks, whose
 * transfers end by themselves and are cancelled only where the guest gives up a command as a whole.
 *
 * A connection that is lost, or a peer that no longer answers what it owes at once, is a
 * device that was unplugged; it is connected to, and imported, again and again.
 */
#ifndef HOST_USBIP_H
#define HOST_USBIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <host/real_device.h>
#include <host/usbip_wire.h>
#include <usb/device.h>

struct uv_loop_s;

/* Read while the device is made, not kept. */
struct bh_usbip_config {
	const char *host;  /* HOST[:PORT], [IPV6][:PORT] or unix:PATH; the port is BH_USBIP_PORT if none is said */
	const char *busid; /* which of its devices: "1-1.4" */
	struct bh_real_log log;
};

/* Since creation. */
struct bh_usbip_counters {
	uint64_t connections; /* on which the device was imported */
	uint64_t failures;    /* attempts to connect that failed */
	uint64_t refusals;    /* imports that the server refused */
	uint64_t violations;  /* connections dropped for what came, or did not come, on them */
	uint64_t transfers;   /* sent */
	uint64_t bytes_in, bytes_out; /* moved, as the server says */
	uint64_t unlinks;     /* transfers that the server was asked to end */
	uint64_t lost;        /* of those, that had ended by themselves, without saying how */
	uint64_t errors;      /* transfers that ended in an error, a stall included */
};

/*
 * 0; -EINVAL or -ENOMEM, and one line in error. Nothing is waited for: the device is away until
 * the server has let us import it.
 */
int bh_usbip_create(struct uv_loop_s *loop, const struct bh_usbip_config *config, struct bh_device **ret, char *error,
                    size_t error_size);

struct bh_usbip_counters bh_usbip_counters(const struct bh_device *d);

/* Is the device imported now? */
bool bh_usbip_imported(const struct bh_device *d);

/* ---- What a server exports ---- */

#define BH_USBIP_LIST_DEVICES 1024u /* more of them are an error */

struct bh_usbip_list_ops {
	/* One device. Its interfaces are those of its active configuration; read during the call only. */
	void (*device)(void *data, const struct bh_usbip_device_fields *d, const struct bh_usbip_interface *interfaces,
	               unsigned interface_count);
	/* It is over, once: 0, or a negative errno and one line. The query is freed already. */
	void (*done)(void *data, int error, const char *text);
};

struct bh_usbip_list;

/*
 * Asks a server, once. From the loop only, never inside of this: device() for each, then done(),
 * within ten seconds. 0; -EINVAL or -ENOMEM, with one line in error, and neither is called.
 */
int bh_usbip_list(struct uv_loop_s *loop, const char *host, const struct bh_usbip_list_ops *ops, void *data,
                  struct bh_usbip_list **ret, char *error, size_t error_size);

/* Before done(): it is given up, and nothing is called any more. What is left closes in the loop. */
void bh_usbip_list_stop(struct bh_usbip_list *l);

#endif
