/*
 * A device that another program shares by the usbredir protocol (0.7): usbredirect, a SPICE
 * client, KubeVirt. We are its "usb-guest", the side that uses the device. The messages are
 * made and cut up by libusbredirparser; what they mean for a device is here.
 *
 * Carried: control, bulk, interrupt and isochronous transfers, configurations and alternate
 * settings, halts, resets, cancels. Not: streams of USB 3, buffered bulk input, suspend and
 * remote wakeup, for which the protocol has no messages or a full-speed port no use.
 *
 * Cancels lose the count. usbredirhost, the library behind most servers, answers a cancel at
 * once with "cancelled, nothing moved", drops what comes of the transfer afterwards, and lets
 * the device go on with it until the kernel has ended it (usbredirhost.c,
 * usbredirhost_cancel_data_packet() and the completions, as of 0.11). So cancel_loses is set:
 * bulk goes packet by packet, but for bulk-only disks, whose transfers end by themselves and
 * are cancelled only where the guest gives up a command as a whole.
 *
 * A connection that is lost, or a peer that no longer answers what it owes at once, is a
 * device that was unplugged; it is connected to again and again.
 */
#ifndef HOST_USBREDIR_H
#define HOST_USBREDIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <host/real_device.h>
#include <usb/device.h>

struct uv_loop_s;

/* Read while the device is made, not kept. */
struct bh_usbredir_config {
	/* HOST:PORT, [IPV6]:PORT or unix:PATH; or NULL: */
	const char *address;
	int fd; /* a connected stream socket, ours if 0 is returned. When it ends, the device is gone for good */
	/*
	 * Which devices are taken: "CLASS:VENDOR:PRODUCT:VERSION:ALLOW|...", -1 for any, as
	 * usbredir's filters are written, or with commas. The first rule that matches decides, for the
	 * device's class and for each interface's; where none does, it is not taken. NULL: any.
	 */
	const char *filter;
	struct bh_real_log log;
};

/* Since creation. */
struct bh_usbredir_counters {
	uint64_t connections; /* that began with the peer's hello */
	uint64_t failures;    /* attempts to connect that failed, and connections that were dropped for what came */
	uint64_t rejected;    /* devices the filter did not let pass */
	uint64_t transfers;   /* of the guest that were begun */
	uint64_t packets;     /* data packets sent for them: more, where they were cut up */
	uint64_t bytes_in, bytes_out; /* moved, as the peer says */
	uint64_t cancels;     /* sent */
	uint64_t errors;      /* transfers that ended in an error, a stall included */
	uint64_t resets;      /* sent */
	uint64_t unexpected;  /* messages that answer nothing, and were dropped */
	uint64_t dropped;     /* packets that came unasked for (interrupt, isochronous), for which there was no room */
	uint64_t missed;      /* isochronous packets that never came, or could not be sent in time */
};

/*
 * 0; -EINVAL, -ENOMEM, or -ENOTSUP: built without usbredir; error then holds one line, and the
 * socket stays the caller's. Nothing is waited for: the device is away until the peer has one.
 */
int bh_usbredir_create(struct uv_loop_s *loop, const struct bh_usbredir_config *config, struct bh_device **ret,
                       char *error, size_t error_size);

struct bh_usbredir_counters bh_usbredir_counters(const struct bh_device *d);

/* Is there a connection on which the peer has said hello? */
bool bh_usbredir_connected(const struct bh_device *d);

#endif
