/*
 * The host interface of the patent, simulated in virtual time: a full-speed bus
 * behind a host controller that takes transfers, and reports results, only at the
 * edges of its 1 ms frames ([0016], [0032]). What is submitted during a frame (its
 * first instant included) is on the bus from the next edge on, and its result is
 * told at the edge after its last packet. One packet thus takes two frames, or
 * 2 ms; n packets take ceil(n / 19) + 1 frames.
 *
 * Devices on it answer as programmed: IN data is a counted pattern, OUT data goes
 * to a sink, and faults strike at packets chosen before. There is no thread and no
 * clock: time is an argument, and everything happens inside the calls.
 *
 * Isochronous packets come first in their frame, one in each service interval; an interval
 * without a transfer passes. Their bus time is reserved when the device is made.
 *
 * Left out: low speed, descriptors (every control request
 * but those the device seam names is stalled), remote wakeup, hubs. A packet that
 * is NAKed for long costs bus time once.
 */
#ifndef HOST_SIMULATED_H
#define HOST_SIMULATED_H

#include <stdbool.h>
#include <stdint.h>

#include <base/list.h>
#include <usb/device.h>

#define BH_SIMULATED_FRAME_US 1000u

/*
 * A frame holds 1500 byte times, of which a transaction takes 13 besides its data
 * (USB 2.0, 5.8.4): 19 packets of 64 bytes, 33 of 32, 51 of 16, 71 of 8.
 */
#define BH_SIMULATED_FRAME_BYTE_TIMES 1500u
#define BH_SIMULATED_OVERHEAD         13u

/* Packets of so many bytes in a frame. */
static inline uint32_t bh_simulated_packets_per_frame(uint32_t max_packet)
{
	return BH_SIMULATED_FRAME_BYTE_TIMES / (max_packet + BH_SIMULATED_OVERHEAD);
}

/* The wire that devices share: packet by packet in turn, whoever has something to move. */
struct bh_simulated_bus {
	uint64_t epoch_us; /* when frame 0 began */
	uint64_t frame;    /* the one under way */
	struct bh_list devices;
	struct bh_list ring;  /* endpoints with transfers, the next in turn first */
	struct bh_list ended; /* transfers whose result is still to be told */
	bool running;
	uint32_t reserved; /* byte times of each frame, for isochronous endpoints */
};

void bh_simulated_bus_init(struct bh_simulated_bus *b, uint64_t now_us);

/* No device may be left on it. */
void bh_simulated_bus_finish(struct bh_simulated_bus *b);

/*
 * Time goes on: every frame that is over by now is carried out, and its results
 * are told. To be called before anything else at that time, for what is submitted
 * belongs to the frame last told. The calls it makes may submit and cancel
 * transfers, reset and destroy devices; they may not call it again.
 */
void bh_simulated_run(struct bh_simulated_bus *b, uint64_t now_us);

/* When it has something to do next; UINT64_MAX: never. */
uint64_t bh_simulated_deadline(const struct bh_simulated_bus *b);

struct bh_simulated_config {
	/* Of configuration 1; any but control. They have to stay where they are. */
	const struct bh_endpoint_info *endpoints;
	unsigned endpoint_count;
	bool finishes; /* bh_device.finishes; then nothing that hangs can be programmed */
	/* Optional: told of every OUT packet of endpoints other than 0, in order. May call nothing here. */
	void (*sink)(void *data, uint8_t endpoint, const uint8_t *bytes, uint32_t length);
	void *sink_data;
};

/* NULL: no memory, or endpoints that cannot be, or isochronous ones that the bus has no time for. The bus has to outlive the device. */
struct bh_device *bh_simulated_create(struct bh_simulated_bus *b, const struct bh_simulated_config *config);

/* Of an isochronous endpoint, where there is neither STALL nor NAK, each strikes one packet. */
enum bh_simulated_fault_kind {
	BH_SIMULATED_STALL,       /* refused, as is everything until the halt is cleared */
	BH_SIMULATED_BABBLE,      /* IN: noise beyond the packet's end; nothing was sent */
	BH_SIMULATED_BUS_ERROR,   /* answered, not intelligibly */
	BH_SIMULATED_NO_RESPONSE, /* not answered */
	BH_SIMULATED_HANG,        /* NAKed until the transfer is cancelled */
	BH_SIMULATED_NAK,         /* NAKed for value frames, then taken */
	BH_SIMULATED_SHORT,       /* IN: value bytes, fewer than the largest packet has, perhaps none */
	BH_SIMULATED_LONG,        /* IN: value bytes, more than the largest packet has: babble, and they are gone */
	BH_SIMULATED_DISCONNECT,  /* the device is unplugged: nothing answers any more */
	BH_SIMULATED_FAULT_COUNT
};

struct bh_simulated_fault {
	enum bh_simulated_fault_kind kind;
	uint8_t endpoint;   /* bEndpointAddress; 0: the control pipe */
	bool next_transfer; /* packet counts from the start of the transfer that begins next */
	uint64_t packet;    /* otherwise from the device's creation on; the first is 0 */
	uint32_t value;
};

/*
 * Programs a fault. It strikes once, in the place of that packet: packets are
 * counted when they have moved. One for the next transfer is dropped when that ends
 * before it. -EINVAL: no such endpoint, a packet that has passed, a kind or value
 * that makes no sense there; -ENOMEM.
 */
int bh_simulated_program(struct bh_device *d, const struct bh_simulated_fault *fault);

/* What an endpoint has moved since the device was made. */
struct bh_simulated_count {
	uint64_t packets;
	uint64_t bytes;    /* IN: also where in the pattern it is */
	uint64_t checksum; /* of OUT bytes: see bh_simulated_checksum() */
};

/* All zero where there is no such endpoint. */
struct bh_simulated_count bh_simulated_count(const struct bh_device *d, uint8_t endpoint);

/* The byte of the pattern at this place: what an IN endpoint sends. Any two places nearby differ. */
static inline uint8_t bh_simulated_pattern(uint64_t place)
{
	return (uint8_t)((uint32_t)place * 2654435761u >> 24);
}

#define BH_SIMULATED_CHECKSUM 0xcbf29ce484222325u /* of nothing */

/* Goes on from sum (FNV-1a). */
uint64_t bh_simulated_checksum(uint64_t sum, const uint8_t *bytes, uint32_t length);

#endif
