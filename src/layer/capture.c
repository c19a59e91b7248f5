/*
 * The layer "capture": what passes, into a file that Wireshark reads. pcapng (draft-ietf-opsawg-pcapng)
 * with link type 220, LINKTYPE_USB_LINUX_MMAPPED: the header of Linux's usbmon, its 64-byte form, for
 * each transfer when it is submitted and when it ends, with all of its data.
 *
 *   capture:FILE
 *
 * FILE is a file, which is made anew, or a FIFO, for watching while it happens. Nothing else is written
 * over: not a file that holds something and is no capture.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <base/bytes.h>
#include <base/util.h>

#include "kinds.h"
#include "timer.h"

#define LINK_TYPE     220u
#define HEADER_SIZE   64u /* usbmon's */
#define PACKET_SIZE   16u /* of an isochronous packet, behind it */
#define DRAIN_US      20000u
#define MOST_BUFFERED (4u << 20) /* of a FIFO that is not read fast enough */
#define DRAIN_AT      (256u << 10)
#define SECTION_MAGIC 0x0a0d0d0au

struct capture {
	struct bh_layer layer;
	/* configuration */
	const struct bh_layer_context *context;
	char *path;
	bool fifo;
	struct bh_timer *timer;

	/* state */
	int fd;         /* -1: it could not be written any more */
	bool begun;     /* it is ours now, and begins with a section */
	bool waiting;   /* for the timer, with something to write */
	uint8_t *buffer; /* what is to be written: used bytes, of room */
	size_t used, room;
	uint32_t numbers; /* transfers so far */
	uint64_t events, bytes, dropped;
};

static struct capture *of_layer(const struct bh_layer *l)
{
	return (struct capture *)bh_container_of(l, struct capture, layer);
}

/* --- the file ---------------------------------------------------------------------------- */

static void give_up(struct capture *c)
{
	char line[BH_LAYER_ERROR_SIZE];

	snprintf(line, sizeof(line), "capture: '%s' cannot be written any more: %s; what follows is not in it", c->path,
	         strerror(errno));
	if (c->context->log)
		c->context->log(c->context->data, line);
	close(c->fd);
	c->fd = -1;
}

/* Writes what there is, as far as it can be written without waiting. */
static void drain(struct capture *c)
{
	size_t at = 0;

	while (c->fd >= 0 && at < c->used) {
		ssize_t n = write(c->fd, c->buffer + at, c->used - at);

		if (n >= 0)
			at += (size_t)n;
		else if (errno == EAGAIN)
			break;
		else if (errno != EINTR)
			give_up(c);
	}
	if (c->fd < 0)
		at = c->used;
	else if (at < c->used)
		memmove(c->buffer, c->buffer + at, c->used - at);
	c->used -= at;
}

/* stuck: nobody reads; a loop that has nothing else to do does not go on for that. */
static void wait_and_drain(struct capture *c, bool stuck)
{
	if (c->waiting || !c->used)
		return;
	c->waiting = true;
	if (stuck)
		uv_unref((uv_handle_t *)&c->timer->uv);
	else
		uv_ref((uv_handle_t *)&c->timer->uv);
	bh_timer_set(c->timer, DRAIN_US);
}

static void due(void *data)
{
	struct capture *c = data;

	c->waiting = false;
	drain(c);
	wait_and_drain(c, true);
}

/* Is there room for so many bytes more, or can there be? */
static bool make_room(struct capture *c, size_t length)
{
	size_t room = c->room ? c->room : 4096;
	uint8_t *buffer;

	if (c->used >= DRAIN_AT)
		drain(c);
	if (length > MOST_BUFFERED || c->used > MOST_BUFFERED - length)
		return false;
	while (room < c->used + length)
		room *= 2;
	if (room == c->room)
		return true;
	buffer = realloc(c->buffer, room);
	if (!buffer)
		return false;
	c->buffer = buffer;
	c->room = room;
	return true;
}

/* There is room: make_room(). */
static void put(struct capture *c, const void *bytes, size_t length)
{
	if (length)
		memcpy(c->buffer + c->used, bytes, length);
	c->used += length;
}

static void put32(struct capture *c, uint32_t value)
{
	put(c, &value, sizeof(value)); /* a section is in the byte order of who wrote it */
}

static void put16(struct capture *c, uint16_t value)
{
	put(c, &value, sizeof(value));
}

/* A section and the description of its interface. Only now is the file made anew: until here it may all have been a mistake. */
static bool begin_file(struct capture *c)
{
	if (c->begun)
		return true;
	if (!make_room(c, 48))
		return false;
	if (!c->fifo && ftruncate(c->fd, 0)) {
		give_up(c);
		return false;
	}
	c->begun = true;
	put32(c, SECTION_MAGIC);
	put32(c, 28);
	put32(c, 0x1a2b3c4d);
	put16(c, 1); /* version 1.0 */
	put16(c, 0);
	put(c, &(int64_t){-1}, 8);
	put32(c, 28);
	put32(c, 1); /* interface description */
	put32(c, 20);
	put16(c, LINK_TYPE);
	put16(c, 0);
	put32(c, 0); /* no limit */
	put32(c, 20);
	wait_and_drain(c, false);
	return true;
}

/* --- one event ------------------------------------------------------------------------------ */

static int32_t errno_of(enum bh_status status)
{
	switch (status) {
	case BH_SUCCESS:
		return 0;
	case BH_STALL:
		return -EPIPE;
	case BH_BABBLE:
		return -EOVERFLOW;
	case BH_CANCELLED:
		return -ENOENT;
	case BH_NO_RESPONSE:
		return -ETIMEDOUT;
	default:
		return -EPROTO;
	}
}

static void set16(uint8_t *p, uint16_t value) { memcpy(p, &value, sizeof(value)); }
static void set32(uint8_t *p, uint32_t value) { memcpy(p, &value, sizeof(value)); }
static void set64(uint8_t *p, uint64_t value) { memcpy(p, &value, sizeof(value)); }

struct event {
	char type; /* 'S' or 'C' */
	int32_t status;
	uint32_t length; /* asked for, or moved */
	uint32_t data;   /* bytes of it that follow */
};

/* In usbmon's own order: Documentation/usb/usbmon.rst, struct usbmon_packet. */
static void header(const struct bh_passage *p, const struct event *e, const struct timespec *now, uint8_t h[HEADER_SIZE])
{
	static const uint8_t types[] = {[BH_CONTROL] = 2, [BH_ISOCHRONOUS] = 0, [BH_BULK] = 3, [BH_INTERRUPT] = 1};
	const struct bh_transfer *t = p->above;
	bool in = bh_passage_is_in(p), control = t->type == BH_CONTROL;

	memset(h, 0, HEADER_SIZE);
	set64(h, p->number);
	h[8] = (uint8_t)e->type;
	h[9] = types[t->type];
	h[10] = (uint8_t)((t->endpoint & 0x7f) | (in ? BH_ENDPOINT_IN : 0));
	h[11] = 1; /* device; and bus: a layer knows of no other */
	set16(h + 12, 1);
	h[14] = control && e->type == 'S' ? 0 : '-';
	h[15] = e->data ? 0 : in ? '<' : '>';
	set64(h + 16, (uint64_t)now->tv_sec);
	set32(h + 24, (uint32_t)(now->tv_nsec / 1000));
	set32(h + 28, (uint32_t)e->status);
	set32(h + 32, e->length);
	set32(h + 36, e->data + t->packet_count * PACKET_SIZE);
	if (control)
		memcpy(h + 40, &t->setup, 8);
	else
		set32(h + 44, t->packet_count);
	set32(h + 60, t->packet_count);
}

static void put_packets(struct capture *c, const struct bh_transfer *t, bool ended)
{
	for (unsigned i = 0; i < t->packet_count; i++) {
		const struct bh_packet *k = &t->packets[i];
		uint8_t bytes[PACKET_SIZE] = {0};

		set32(bytes, ended ? (uint32_t)errno_of(k->status) : (uint32_t)-EXDEV);
		set32(bytes + 4, k->offset);
		set32(bytes + 8, ended ? k->actual : k->length);
		put(c, bytes, sizeof(bytes));
	}
}

static void put_data(struct capture *c, const struct bh_transfer *t, uint32_t length)
{
	for (unsigned i = 0; i < t->span_count && length; i++) {
		uint32_t n = (uint32_t)BH_MIN(t->spans[i].iov_len, length);

		put(c, t->spans[i].iov_base, n);
		length -= n;
	}
}

/* An enhanced packet block. */
static void put_event(struct capture *c, const struct bh_passage *p, const struct event *e)
{
	uint32_t captured = HEADER_SIZE + p->above->packet_count * PACKET_SIZE + e->data, padding = -captured & 3;
	uint8_t h[HEADER_SIZE];
	struct timespec now;
	uint64_t us;

	if (c->fd < 0)
		return;
	if (!begin_file(c) || !make_room(c, 32 + captured + padding)) {
		c->dropped++;
		return;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	us = (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000;
	header(p, e, &now, h);
	put32(c, 6);
	put32(c, 32 + captured + padding);
	put32(c, 0);
	put32(c, (uint32_t)(us >> 32));
	put32(c, (uint32_t)us);
	put32(c, captured);
	put32(c, captured);
	put(c, h, sizeof(h));
	put_packets(c, p->above, e->type == 'C');
	put_data(c, p->above, e->data);
	put(c, (const uint8_t[4]){0}, padding);
	put32(c, 32 + captured + padding);
	c->events++;
	c->bytes += e->data;
	wait_and_drain(c, false);
}

/* --- the layer ---------------------------------------------------------------------------------- */

static void capture_begin(struct bh_layer *l, struct bh_passage *p)
{
	const struct bh_transfer *t = p->above;

	p->number = ++of_layer(l)->numbers;
	put_event(of_layer(l), p, &(struct event){
		.type = 'S',
		.status = -EINPROGRESS,
		.length = t->length,
		.data = bh_passage_is_in(p) ? 0 : t->length,
	});
	bh_layer_pass(p);
}

static void capture_ended(struct bh_layer *l, struct bh_passage *p, enum bh_status status)
{
	bool isochronous = p->above->type == BH_ISOCHRONOUS;
	uint32_t actual = isochronous ? p->above->length : BH_MIN(p->below.actual, p->above->length);

	put_event(of_layer(l), p, &(struct event){
		.type = 'C',
		.status = errno_of(status),
		.length = actual,
		.data = bh_passage_is_in(p) ? actual : 0,
	});
	bh_layer_end(p, status, p->below.actual);
}

static void capture_finish(struct bh_layer *l)
{
	struct capture *c = of_layer(l);

	drain(c);
	if (c->fd >= 0)
		close(c->fd);
	bh_timer_close(c->timer);
	free(c->buffer);
	free(c->path);
}

/* It is plugged in: from now on the file is its. */
static void capture_reset(struct bh_layer *l)
{
	if (of_layer(l)->fd >= 0)
		begin_file(of_layer(l));
}

static const struct bh_layer_ops capture_ops = {
	.begin = capture_begin,
	.ended = capture_ended,
	.reset = capture_reset,
	.finish = capture_finish,
};

/* --- the row of the table --------------------------------------------------------------------------- */

/* May this be written over? A file that is empty, or a capture; or a FIFO. */
static int check_file(int fd, char *error, const char *path, bool *ret_fifo)
{
	uint32_t magic = 0;
	struct stat s;

	if (fstat(fd, &s))
		return bh_layer_wrong(error, "layers=capture: '%s': %s", path, strerror(errno));
	*ret_fifo = S_ISFIFO(s.st_mode);
	if (*ret_fifo) {
		fcntl(fd, F_SETPIPE_SZ, 1 << 20); /* if we may */
		return 0;
	}
	if (!S_ISREG(s.st_mode))
		return bh_layer_wrong(error, "layers=capture: '%s' is neither a file nor a FIFO", path);
	if (flock(fd, LOCK_EX | LOCK_NB))
		return bh_layer_wrong(error, "layers=capture: '%s' is in use already; say another file", path);
	if (s.st_size && (pread(fd, &magic, sizeof(magic), 0) != sizeof(magic) || magic != SECTION_MAGIC))
		return bh_layer_wrong(error, "layers=capture: '%s' holds something else, and is not written over; say another file", path);
	return 0;
}

static int open_file(struct capture *c, char *error)
{
	int fd = open(c->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600), r;

	if (fd < 0)
		return bh_layer_wrong(error, "layers=capture: '%s': %s", c->path, strerror(errno));
	r = check_file(fd, error, c->path, &c->fifo);
	if (r)
		close(fd);
	else
		c->fd = fd;
	return r;
}

static int create(const struct bh_layer_context *context, const char *parameters, struct bh_device *below,
                  struct bh_device **ret, char *error)
{
	struct capture *c;
	int r = -ENOMEM;

	if (!*parameters)
		return bh_layer_wrong(error, "layers=capture: say capture:FILE");
	c = calloc(1, sizeof(*c));
	if (c && (c->path = strdup(parameters)) && (c->timer = bh_timer_create(context->loop, due, c)))
		r = open_file(c, error);
	if (r == -ENOMEM)
		bh_layer_wrong(error, "out of memory");
	if (r) {
		if (c) {
			bh_timer_close(c->timer);
			free(c->path);
		}
		free(c);
		return r;
	}
	c->context = context;
	bh_layer_init(&c->layer, &capture_ops, below);
	*ret = &c->layer.device;
	return 0;
}

static unsigned counters(const struct bh_layer *l, struct bh_layer_counter ret[BH_LAYER_COUNTERS])
{
	const struct capture *c = of_layer(l);

	ret[0] = (struct bh_layer_counter){"events", c->events};
	ret[1] = (struct bh_layer_counter){"data_bytes", c->bytes};
	ret[2] = (struct bh_layer_counter){"dropped", c->dropped};
	ret[3] = (struct bh_layer_counter){"writing", c->fd >= 0};
	return 4;
}

const struct bh_layer_kind bh_layer_capture = {
	.name = "capture",
	.parameters = ":FILE",
	.help = "writes down all that passes, in pcapng, for Wireshark; FILE may be a FIFO",
	.create = create,
	.counters = counters,
};
