/*
 * A device that ends its transfers when and as it is told, with any status and any
 * length, goes away in the middle of one, and watches over what the bus promises it.
 */
#ifndef FUZZ_HOSTILE_DEVICE_H
#define FUZZ_HOSTILE_DEVICE_H

#include <usb/device.h>

/* Pipes: by direction and number as in [in][number], and the control pipe. */
#define CONTROL_PIPE 32u
#define PIPES        33u

/* Behind them, for isochronous endpoints, of which each may have so many transfers. Endpoint 7 is one. */
#define STREAM_PIPE 7u
#define UNDER_WAY   8u
#define ALL_PIPES   (PIPES + 2 * UNDER_WAY)

enum on_submit { END, HOLD, END_LATER, DETACH_AND_HOLD, DETACH_AND_END, PROGRESS, END_AND_DETACH, WAKE_AND_END };
enum on_cancel { CANCEL, CANCEL_IN_PART, CANCEL_LATER, TOO_LATE, END_AS_USUAL, CANCEL_NEVER };

/* What it does with transfers of a pipe. */
struct policy {
	uint8_t submit, cancel; /* above; anything else is taken modulo eight */
	uint8_t status, actual;
	uint32_t delay_us; /* of what is done later; at least 1 */
};

struct pipe {
	struct policy policy;
	struct bh_transfer *transfer; /* taken, not ended */
	bool cancelled;
	uint64_t due_us; /* when it ends by itself */
	uint32_t sum;    /* of the bytes of an OUT */
};

struct hostile_device {
	struct bh_device device;
	struct hostile_device **place; /* where it is known; cleared when it is destroyed */
	uint8_t flavour, configuration, alternate;
	bool detached;
	uint8_t packets; /* how many times larger its packets are than at full speed: it is faster */
	uint32_t asked; /* endpoints the bus was told of: a bit for each */
	struct bh_endpoint_info endpoints[32];
	struct pipe pipes[ALL_PIPES]; /* policies are those of the first PIPES */
};

/* What may be submitted, and how it is verified; and how often it ended other than inside submit or cancel. */
struct hostile_limits {
	uint32_t batch_bytes, batch_descriptors;
	uint8_t verification; /* any byte; see hostile_device_create() */
};
extern struct hostile_limits hostile_limits;
extern uint64_t hostile_device_acted;

/* NULL: no memory. Belongs to the bus once attached. */
struct hostile_device *hostile_device_create(struct hostile_device **place, uint8_t flavour);

/* Ends a transfer that is held, if there is one. */
void hostile_device_end(struct hostile_device *d, unsigned pipe, uint8_t status, uint8_t actual);
void hostile_device_progress(struct hostile_device *d, unsigned pipe);
void hostile_device_detach(struct hostile_device *d);

/* When the next transfer ends by itself; ends those whose time has come. */
uint64_t hostile_device_due(const struct hostile_device *d);
void hostile_device_run(struct hostile_device *d, uint64_t now_us);

/* The memory of what is held is there and, for an OUT, as it was. */
void hostile_device_check(const struct hostile_device *d);

#endif
