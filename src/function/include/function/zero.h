/*
 * An emulated test device: what Linux's gadget zero is to a host, with the endpoints that
 * usbtest looks for. Its first configuration (value 3) gives bytes of a pattern for ever and
 * takes them; its second (value 2) sends back what it is sent.
 *
 * Configuration 3, interface 0:
 *   alternate 0  bulk IN 0x81 and OUT 0x01, 64 bytes
 *   alternate 1  these, and isochronous IN 0x82 and OUT 0x02, 1023 bytes
 *   alternate 2  these of 0, and interrupt IN 0x83 and OUT 0x03, 64 bytes
 * Configuration 2, interface 0: bulk IN 0x81 and OUT 0x01, 64 bytes
 * Of high speed, bulk and interrupt endpoints have packets of 512 bytes.
 *
 * A pattern is one of packets, not of transfers: each begins anew, as the gadget's does
 * as long as its buffers are multiples of the packet size. So it does not matter how packets
 * were gathered.
 */
#ifndef FUNCTION_ZERO_H
#define FUNCTION_ZERO_H

#include <stdint.h>

#include <usb/device.h>

struct uv_loop_s;

/* Read while the device is made, not kept. All zero: the defaults. */
struct bh_zero_config {
	/*
	 * What configuration 3 sends, and expects: 0: zeros; 1: byte i of each packet is i % 63;
	 * 2: sends zeros, and takes anything. A packet with another byte halts the endpoint it
	 * came to after it was taken; an isochronous one is only counted, for usbtest sends
	 * zeros to these whatever its pattern.
	 */
	unsigned pattern;
	unsigned isochronous_interval; /* bInterval, 1 to 16: every 2^(bInterval - 1) frames, of high speed of 125 us; 0: 4 */
	unsigned interrupt_interval;   /* bInterval, 1 to 255 frames; of high speed 1 to 16; 0: each frame */
	enum bh_speed speed;           /* BH_SPEED_FULL, also by 0, or BH_SPEED_HIGH */
	/*
	 * Every transfer ends that long after it was submitted, at most 10 s, and up to a
	 * millisecond later; as if the device were a real one behind a host interface with such a
	 * turnaround. Not so SET_CONFIGURATION, SET_INTERFACE and clearing a halt, which are done
	 * at once. One that is cancelled on its way ends at once; its packets are taken to move
	 * evenly over the delay, and those that have by then count (loopback and control: none).
	 * 0: transfers end inside submit.
	 */
	unsigned delay_us;
	struct uv_loop_s *loop; /* the controller's thread's; only for a delay */
};

/* Packets that moved, zero-length ones included, and their bytes. */
struct bh_zero_traffic {
	uint64_t packets_in, bytes_in;
	uint64_t packets_out, bytes_out;
};

/* Since creation. */
struct bh_zero_counters {
	struct bh_zero_traffic bulk, interrupt, isochronous;
	uint64_t bad_packets; /* taken, and not of the pattern */
	uint64_t bad_bytes;   /* in these */
};

/*
 * The device is the caller's until bh_bus_attach() takes it. Without a delay it needs no loop:
 * whatever it does ends inside an operation. With one, the loop has to run while the device is
 * there, and once more after it was destroyed. 0; -EINVAL (a configuration out of range) or
 * -ENOMEM, and *ret is untouched.
 */
int bh_zero_create(const struct bh_zero_config *config, struct bh_device **ret);

/* Of a device that bh_zero_create() made, and no other. */
struct bh_zero_counters bh_zero_counters(const struct bh_device *device);

#endif
