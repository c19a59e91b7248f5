/*
 * The emulated bus (650 in the patent, [0053]): root ports, hubs and their ports, the devices
 * in them, their addresses and endpoints. A controller offers it one packet at a time; the bus
 * finds the endpoint, and the batch engine, which is apart from it ([0056]), or the
 * control pipe answers.
 *
 * Everything runs on one thread. Times are microseconds of the clock given to
 * bh_bus_tick(). Ports count from 0; but for bh_bus_attach(), which checks it, a port has
 * to be less than port_count. Only where people write them, as places, do they count from 1:
 * "1.3" is the third port of the hub in the first root port.
 */
#ifndef USB_BUS_H
#define USB_BUS_H

#include <stdbool.h>
#include <stdint.h>

#include <batch/engine.h>
#include <batch/isochronous.h>
#include <usb/device.h>

#define BH_BUS_MAX_PORTS 15u
#define BH_BUS_MAX_HUBS  5u /* in a row (4.1.1) */

/* Packet identifiers as they travel (8.3.1), check bits included. */
enum bh_pid { BH_PID_OUT = 0xe1, BH_PID_IN = 0x69, BH_PID_SETUP = 0x2d };

/* The token of one transaction. */
struct bh_token {
	enum bh_pid pid;
	uint8_t address;
	uint8_t endpoint;
	bool low_speed; /* sent at low speed */
};

/*
 * A destination's coding in bh_descriptor.destination: direction in bit 0, address in
 * bits 1 to 7, endpoint in bits 8 to 11 (as they lie in a packet), low speed in bit 16,
 * for what is sent at another speed is heard by others, and SETUP in bit 17, for it is
 * nothing that could travel with OUT.
 */
static inline uint64_t bh_token_destination(const struct bh_token *t)
{
	return (uint32_t)(t->pid == BH_PID_SETUP) << 17 | (uint32_t)t->low_speed << 16 | (uint32_t)t->endpoint << 8 | (uint32_t)t->address << 1 |
	       (t->pid == BH_PID_IN);
}

struct bh_bus;

/*
 * What the controller learns. All mandatory; called from any bus function, and when a
 * device detaches or wakes. They may call bh_bus_port_device(), and nothing else of the bus.
 */
struct bh_bus_upcalls {
	void (*connected)(struct bh_bus *b, unsigned port, bool connected);
	void (*wakeup)(struct bh_bus *b, unsigned port); /* from a device on an enabled port; suspended or not */
};

struct bh_attached;
struct bh_endpoint;

/* A root port, or one of a hub. */
struct bh_port {
	struct bh_bus *bus;
	struct bh_attached *hub; /* whose port it is; NULL: a root port */
	unsigned number;
	struct bh_attached *attached; /* what is plugged in; NULL: nothing */
	bool powered;
	bool connected; /* what the controller, or the hub, sees */
	bool enabled;
	bool suspended;
};

struct bh_bus_counters {
	uint64_t setups;       /* SETUP packets accepted */
	uint64_t unanswered;   /* packets nobody answered */
	uint64_t reconnects;   /* FAILUREs the guest did not answer with a reset */
};

struct bh_bus {
	struct bh_engine engine;
	struct bh_source *source;
	const struct bh_bus_upcalls *upcalls;
	struct bh_bus_counters counters;
	unsigned port_count;
	struct bh_port ports[BH_BUS_MAX_PORTS];
	struct bh_list devices; /* in any port; hubs before what hangs from them */
	/*
	 * The bulk endpoint that answered last, and what it is known by: the next packet
	 * is usually for it, too. NULL: look. Forgotten whenever anything about ports,
	 * addresses or endpoints changes.
	 */
	struct bh_endpoint *recent;
	uint64_t recent_destination;
};

/*
 * ports: 1 to BH_BUS_MAX_PORTS (more is asserted). The source and the upcalls outlive the
 * bus, which stays where it is; config is copied. Nothing is plugged in, time begins at 0.
 * Allocates nothing; ends with bh_bus_finish().
 */
void bh_bus_init(struct bh_bus *b, unsigned ports, struct bh_source *source, const struct bh_bus_upcalls *upcalls,
                 const struct bh_engine_config *config);

/* Removes and destroys every device. */
void bh_bus_finish(struct bh_bus *b);

/*
 * The port at a place such as "2" or "1.3". NULL: that is no place, or there is no such port
 * now. A hub's port is there as long as the hub is plugged in.
 */
struct bh_port *bh_bus_port(struct bh_bus *b, const char *place);

#define BH_PLACE_SIZE 24u

/* The place of a port, as bh_bus_port() takes it; returns text. */
char *bh_port_place(const struct bh_port *p, char text[BH_PLACE_SIZE]);

/*
 * Plugs a device in; the bus destroys it when it is removed. -EBUSY: the port is
 * taken; -ENOTSUP: faster than the ports here; -E2BIG: a hub behind BH_BUS_MAX_HUBS
 * others; -EACCES: it asks for verification by write traces, and guest memory is not
 * traced; -ENOMEM. On an error the device is still the caller's.
 */
int bh_port_attach(struct bh_port *p, struct bh_device *d);

/* The same in a root port. -EINVAL: there is no such port. */
int bh_bus_attach(struct bh_bus *b, unsigned port, struct bh_device *d);

/*
 * Unplugs what is in the port, if anything, and destroys it: by the function given,
 * which has to do what bh_device_destroy() does, or by that (NULL). What hangs from a hub
 * goes with it, by bh_device_destroy(). Not from within an upcall.
 */
void bh_port_remove(struct bh_port *p, void (*destroy)(struct bh_device *d, void *data), void *data);
void bh_bus_remove(struct bh_bus *b, unsigned port, void (*destroy)(struct bh_device *d, void *data), void *data);

/* What is plugged in, whether it shows or not; NULL: nothing. */
struct bh_device *bh_port_device(const struct bh_port *p);

/* The address the guest gave to what is plugged in; 0: none so far. */
uint8_t bh_port_address(const struct bh_port *p);

/*
 * One packet: d describes its data, token where it goes. Answered as
 * bh_destination_offer() would; a packet nobody answers is retired with
 * BH_NO_RESPONSE.
 */
enum bh_answer bh_bus_offer(struct bh_bus *b, const struct bh_token *token, const struct bh_descriptor *d);

/*
 * One packet that the controller sends isochronously: answered as bh_isochronous_offer()
 * would. One that nobody hears has no handshake to miss: OUT ends well, IN with BH_NO_RESPONSE.
 */
enum bh_answer bh_bus_offer_isochronous(struct bh_bus *b, const struct bh_token *token, const struct bh_descriptor *d,
                                        enum bh_moment moment);

/* The packet is there, but its turn has not come (the frame is full): nothing is withdrawn. */
void bh_bus_seen(struct bh_bus *b, const struct bh_token *token, const struct bh_descriptor *d);

/*
 * What the controller does to a root port; nothing in it is no error.
 * Reset: the device is back in its default state, at address 0, out of FAILURE; the port
 * is neither enabled nor suspended.
 */
void bh_bus_port_reset(struct bh_bus *b, unsigned port);

/*
 * Only a port that is enabled and not suspended carries packets: what is sent to others
 * is not answered. Enabling takes something that shows on the port; the device is told
 * nothing, and what runs goes on. Suspending and resuming is told to the device.
 */
void bh_bus_port_enable(struct bh_bus *b, unsigned port, bool enabled);
void bh_bus_port_suspend(struct bh_bus *b, unsigned port, bool suspended);

/* The machine was switched on: every device gets power afresh. */
void bh_bus_power_on(struct bh_bus *b);

/* The device that shows on the port, or NULL. */
const struct bh_device *bh_bus_port_device(const struct bh_bus *b, unsigned port);

/* Time goes on; and when it matters next (UINT64_MAX: never). */
void bh_bus_tick(struct bh_bus *b, uint64_t now_us);
uint64_t bh_bus_deadline(const struct bh_bus *b);

#endif
