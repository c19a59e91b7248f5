/*
 * The seam between the serial device and its other side: two buffers, and word when they
 * have changed. A line that is a pseudo-terminal, a TCP connection or a file fills one and
 * empties the other (serial_pty.c, serial_tcp.c, serial_file.c); serial.c does the same from
 * the guest's side.
 */
#ifndef FUNCTION_SERIAL_LINE_H
#define FUNCTION_SERIAL_LINE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <uv.h>

#include <function/serial.h>

/* --- a buffer ------------------------------------------------------------------------------- */

struct bh_ring {
	uint8_t bytes[BH_SERIAL_BUFFER];
	uint32_t start, used;
};

static inline uint32_t bh_ring_room(const struct bh_ring *r)
{
	return BH_SERIAL_BUFFER - r->used;
}

/* Where there is room, or data: as at most two spans, first to last; returns how many. */
unsigned bh_ring_space(struct bh_ring *r, struct iovec spans[2]);
unsigned bh_ring_data(struct bh_ring *r, struct iovec spans[2]);
void bh_ring_produce(struct bh_ring *r, size_t length);
void bh_ring_consume(struct bh_ring *r, size_t length);

/* --- a line ------------------------------------------------------------------------------------- */

struct bh_line;

struct bh_line_ops {
	/* There may be bytes for the other side, or room for its bytes. No upcall is made in here. */
	void (*wake)(struct bh_line *l);
	/*
	 * Give what is left to the other side, within limits, then finished() and free; perhaps
	 * before this returns. No other upcall is made any more.
	 */
	void (*close)(struct bh_line *l);
};

/* What the device learns. */
struct bh_line_upcalls {
	void (*moved)(struct bh_line *l);     /* bytes came or went */
	void (*connected)(struct bh_line *l); /* see the field */
	void (*finished)(struct bh_line *l, int error); /* the line is freed when this returns */
};

struct bh_line {
	const struct bh_line_ops *ops;
	const struct bh_line_upcalls *upcalls; /* set by the device once it has the line */
	void *owner;                           /* the same */
	uv_loop_t *loop;
	uv_timer_t *timer; /* for whatever the line waits for; its data is the line */
	char name[PATH_MAX];
	bool connected;
	struct bh_ring to_peer, to_guest;
	uint64_t from_peer, sent, connections, failures; /* see struct bh_serial_counters; sent: to_peer */
};

/* Of a zeroed line. 0 or -ENOMEM. finish takes one that was not initialised. */
int bh_line_init(struct bh_line *l, uv_loop_t *loop, const struct bh_line_ops *ops);
void bh_line_finish(struct bh_line *l);

/* The other side came or went; tells the device. */
void bh_line_connected(struct bh_line *l, bool connected);

/* For uv_close() of a handle on the heap. */
void bh_line_free_handle(uv_handle_t *h);

/* A line for the user: "serial 'WHAT': REASON; ADVICE". Returns -err. */
int bh_line_explain(char *error, size_t error_size, const char *what, int err, const char *advice);

/* The lines there are; 0 and *ret, or as bh_serial_create(). */
int bh_line_pty(uv_loop_t *loop, const char *link, struct bh_line **ret, char *error, size_t error_size);
int bh_line_tcp(uv_loop_t *loop, const char *address, bool listening, struct bh_line **ret, char *error,
                size_t error_size);
int bh_line_file(uv_loop_t *loop, const char *path, const char *input, struct bh_line **ret, char *error,
                 size_t error_size);

/* --- a line over a descriptor that says when it is ready --------------------------------------------- */

struct bh_line_channel {
	/* configuration */
	struct bh_line *line;
	bool is_socket;
	/* There is nothing more to be read, for good: called after all that came was. */
	void (*lost)(struct bh_line_channel *c);
	/* While closing: has the other side got what the host accepted for it? */
	bool (*delivered)(struct bh_line_channel *c);
	void (*drained)(struct bh_line_channel *c, int error); /* see bh_line_channel_drain() */

	/* state */
	uv_poll_t *poll; /* NULL: not attached */
	int fd;          /* the owner's to close */
	int events;      /* waited for */
	bool blocked;    /* the host takes no more for now */
	bool broken;     /* it never will; what came is still to be read */
	uint64_t deadline;
};

/* Begin with a descriptor, which does not block. 0 or a negative errno. */
int bh_line_channel_attach(struct bh_line_channel *c, int fd);
void bh_line_channel_detach(struct bh_line_channel *c); /* no more events; attached or not */

/* For bh_line_ops.wake; does nothing where nothing is attached. */
void bh_line_channel_wake(struct bh_line_channel *c);

/*
 * Detach, and give what is left in the buffer to the other side; drained() is called once,
 * perhaps in here, with how that went. What comes is thrown away.
 */
void bh_line_channel_drain(struct bh_line_channel *c);

#endif
