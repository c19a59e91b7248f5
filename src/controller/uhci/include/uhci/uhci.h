/*
 * UHCI: the Universal Host Controller Interface, revision 1.1, as a PCI function
 * with two to eight root ports. Not modelled: the software debug mode (USBCMD
 * SWDBG), which no driver uses: the bit can be written and read and does nothing.
 * It is the patent's virtual controller ([0042], 540 in figure 3) on its emulated
 * bus ([0053], [0054]).
 *
 * Owns no thread, clock or file descriptor: the guest seam gives time and memory,
 * and whoever implements it calls bh_uhci_run() when run_at() said so. Everything,
 * with the devices on the bus, is called on one thread.
 */
#ifndef UHCI_UHCI_H
#define UHCI_UHCI_H

#include <stdbool.h>
#include <stdint.h>

#include <batch/engine.h>
#include <guest/pci.h>
#include <usb/bus.h>

#define BH_UHCI_MIN_PORTS 2u
#define BH_UHCI_MAX_PORTS 8u

struct bh_uhci_config {
	unsigned ports; /* BH_UHCI_MIN_PORTS to BH_UHCI_MAX_PORTS */
	bool pace; /* keep to what a full-speed wire carries in a frame */
	struct bh_engine_config engine;
};

#define BH_UHCI_DEFAULTS ((struct bh_uhci_config){.ports = 2, .engine = BH_ENGINE_DEFAULTS})

/* Since creation. */
struct bh_uhci_counters {
	uint64_t frames;      /* walked */
	uint64_t frames_late; /* of those, after the next had begun */
	uint64_t frames_lost; /* never walked: too late */
	uint64_t walks;       /* from the frame list on, more than one in a frame */
	uint64_t entries;     /* queue heads and descriptors visited */
	uint64_t completed;   /* descriptors retired for good */
	uint64_t interrupts;  /* causes reported, once per slice */
	uint64_t host_errors; /* bus errors */
	uint64_t process_errors;
};

struct bh_uhci;

/*
 * NULL: no memory, or a number of ports that cannot be. The guest outlives the
 * controller; config is copied.
 */
struct bh_uhci *bh_uhci_create(struct bh_guest *guest, const struct bh_uhci_config *config);
void bh_uhci_destroy(struct bh_uhci *u); /* with its devices; NULL is allowed */

/* Parts of the controller, which live as long as it does. Devices are plugged into the bus: bh_bus_attach(). */
struct bh_pci *bh_uhci_pci(struct bh_uhci *u);
struct bh_bus *bh_uhci_bus(struct bh_uhci *u);
const struct bh_uhci_counters *bh_uhci_counters(const struct bh_uhci *u);

/*
 * The time asked for by run_at() has come; earlier does no harm. A slice of work:
 * 4096 descriptors and queue heads, well under a millisecond, and beyond that what
 * SCAN or verification of one batch takes (max_batch_descriptors; some 10 ns for
 * each). Asks for more by run_at(). Not from within a guest
 * operation.
 */
void bh_uhci_run(struct bh_uhci *u);

#endif
