/*
 * A small UHCI driver, and the machine it runs on: what a guest's own driver does,
 * without a guest. It starts the controller, sets the device up, and moves data
 * through one queue; memory is as a machine's is after a while: pages are
 * anywhere, those of the data and those of the pool that descriptors come from.
 *
 * Time is virtual. It goes from one event to the next: what the controller asked
 * for, and, where there is a world (struct bh_driver_world), what happens in it.
 *
 *	bh_driver_init, bh_driver_attach		once
 *	bh_driver_build, fill bh_driver_packet()...	for each transfer
 *	bh_driver_link, bh_driver_wait			it runs
 *	bh_driver_check					how it ended
 */
#ifndef BENCH_DRIVER_H
#define BENCH_DRIVER_H

#include <uhci/uhci.h>

#include "guest.h"

/* Whatever else lives in time; all optional. */
struct bh_driver_world {
	void (*run)(void *data, uint64_t now_us); /* before the controller, at each event */
	uint64_t (*deadline)(void *data);         /* its next event; UINT64_MAX: none */
	void *data;
};

struct bh_driver_packet {
	uint32_t descriptor, buffer; /* addresses in guest memory */
	uint32_t length;
};

struct bh_driver {
	struct bh_bench_guest guest;
	struct bh_driver_world world;
	struct bh_uhci *uhci;
	uint32_t most_packets;
	uint32_t *descriptors; /* the pool: addresses, in the order in which they are taken */
	uint32_t *buffers;     /* one for each packet, at most BH_DRIVER_PACKET bytes */
	struct bh_driver_packet *packets; /* of the queue built last */
	uint32_t packet_count;
	bool toggles[2][16];   /* [in][endpoint]: of the next packet; a failure does not put them right */
	uint16_t told;         /* USBSTS, as interrupts told it since the queue was linked */
};

#define BH_DRIVER_PACKET 64u /* bytes, at most */

/* Where the clock begins; a multiple of a frame. */
#define BH_DRIVER_EPOCH_US 1000000u

/*
 * Makes the machine, big enough for queues of most_packets packets. The guest's
 * clock stands at BH_DRIVER_EPOCH_US. -ENOMEM.
 */
int bh_driver_init(struct bh_driver *d, const struct bh_uhci_config *config, uint32_t most_packets,
                   const struct bh_driver_world *world);
/* With the devices attached. */
void bh_driver_finish(struct bh_driver *d);

/*
 * Plugs the device in, starts the controller, resets the port, gives the device
 * an address and configuration 1. The controller's frames begin at multiples of a
 * millisecond. The device is the machine's from the call on, whatever comes of it.
 * -EIO: it does not answer as it should; -ENOTSUP and others as bh_bus_attach().
 */
int bh_driver_attach(struct bh_driver *d, struct bh_device *device);

/*
 * Builds a queue of packets of max_packet bytes, the last one shorter where length
 * is no multiple of it (length 0: one packet without data), to the endpoint with
 * this bEndpointAddress. The last one asks for an interrupt; IN stops on a short
 * packet. Data toggles go on from the last transfer. The controller does not see
 * it yet.
 */
void bh_driver_build(struct bh_driver *d, uint8_t endpoint, uint32_t max_packet, uint32_t length);

/* The buffer of a packet of the queue built last. */
uint8_t *bh_driver_bytes(struct bh_driver *d, uint32_t packet, uint32_t *ret_length);

/* The controller may see it from now on. */
void bh_driver_link(struct bh_driver *d);

/* The controller has let go of the last packet. */
bool bh_driver_done(const struct bh_driver *d);

/* The next event happens, if it is due by then, and true; otherwise the time is until_us, and false. */
bool bh_driver_step(struct bh_driver *d, uint64_t until_us);

/* Everything before this time happens; what is due at it does not yet. */
void bh_driver_advance(struct bh_driver *d, uint64_t to_us);

/* Until the queue is done. *ret_us: since it was called. -ETIMEDOUT: it was not, within most_us. */
int bh_driver_wait(struct bh_driver *d, uint64_t most_us, uint64_t *ret_us);

/* Did every packet end well and move all its bytes, and did an interrupt say so? On false the queue is unlinked. */
bool bh_driver_check(struct bh_driver *d);

#endif
