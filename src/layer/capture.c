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
#define FLUSH_US      200000u
#define BUFFER_SIZE   (256u * 1024u)
#define SECTION_MAGIC 0x0a0d0d0au

struct capture {
	struct bh_layer layer;
	/* configuration */
	const struct bh_layer_context *context;
	char *path;
	struct bh_timer *timer;

	/* state */
	FILE *to; /* NULL: it could not be written any more */
	bool waiting; /* for the timer, with something to write */
	uint32_t numbers; /* transfers so far */
	uint64_t blocks, bytes;
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
	         errno == EAGAIN ? "nobody reads it fast enough" : strerror(errno));
	if (c->context->log)
		c->context->log(c->context->data, line);
	fclose(c->to);
	c->to = NULL;
}

static void put(struct capture *c, const void *bytes, size_t length)
{
	if (c->to && length && fwrite(bytes, 1, length, c->to) != length)
		give_up(c);
}

static void put32(struct capture *c, uint32_t value)
{
	put(c, &value, sizeof(value)); /* a section is in the byte order of who wrote it */
}

static void flush(void *data)
{
	struct capture *c = data;

	c->waiting = false;
	if (c->to && fflush(c->to))
		give_up(c);
}

static void put16(struct capture *c, uint16_t value)
{
	put(c, &value, sizeof(value));
}

static void put_section(struct capture *c)
{
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

	if (!c->to)
		return;
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
	c->blocks++;
	c->bytes += e->data;
	if (!c->waiting)
		bh_timer_set(c->timer, FLUSH_US);
	c->waiting = true;
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

	flush(c);
	if (c->to)
		fclose(c->to);
	bh_timer_close(c->timer);
	free(c->path);
}

static const struct bh_layer_ops capture_ops = {
	.begin = capture_begin,
	.ended = capture_ended,
	.finish = capture_finish,
};

/* --- the row of the table --------------------------------------------------------------------------- */

/* May this be written over? A file that is empty, or a capture; or a FIFO. */
static int check_file(int fd, char *error, const char *path)
{
	uint32_t magic = 0;
	struct stat s;

	if (fstat(fd, &s))
		return bh_layer_wrong(error, "layers=capture: '%s': %s", path, strerror(errno));
	if (S_ISFIFO(s.st_mode))
		return 0;
	if (!S_ISREG(s.st_mode))
		return bh_layer_wrong(error, "layers=capture: '%s' is neither a file nor a FIFO", path);
	if (flock(fd, LOCK_EX | LOCK_NB))
		return bh_layer_wrong(error, "layers=capture: '%s' is in use already; say another file", path);
	if (s.st_size && (pread(fd, &magic, sizeof(magic), 0) != sizeof(magic) || magic != SECTION_MAGIC))
		return bh_layer_wrong(error, "layers=capture: '%s' holds something else, and is not written over; say another file", path);
	if (ftruncate(fd, 0))
		return bh_layer_wrong(error, "layers=capture: '%s': %s", path, strerror(errno));
	return 0;
}

static int open_file(struct capture *c, char *error)
{
	int fd = open(c->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600), r;

	if (fd < 0)
		return bh_layer_wrong(error, "layers=capture: '%s': %s", c->path, strerror(errno));
	r = check_file(fd, error, c->path);
	if (!r && !(c->to = fdopen(fd, "w")))
		r = -ENOMEM;
	if (r) {
		close(fd);
		return r;
	}
	setvbuf(c->to, NULL, _IOFBF, BUFFER_SIZE);
	return 0;
}

static int create(const struct bh_layer_context *context, const char *parameters, struct bh_device *below,
                  struct bh_device **ret, char *error)
{
	struct capture *c;
	int r = -ENOMEM;

	if (!*parameters)
		return bh_layer_wrong(error, "layers=capture: say capture:FILE");
	c = calloc(1, sizeof(*c));
	if (c && (c->path = strdup(parameters)) && (c->timer = bh_timer_create(context->loop, flush, c)))
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
	put_section(c);
	flush(c);
	bh_layer_init(&c->layer, &capture_ops, below);
	*ret = &c->layer.device;
	return 0;
}

static unsigned counters(const struct bh_layer *l, struct bh_layer_counter ret[BH_LAYER_COUNTERS])
{
	const struct capture *c = of_layer(l);

	ret[0] = (struct bh_layer_counter){"events", c->blocks};
	ret[1] = (struct bh_layer_counter){"data_bytes", c->bytes};
	ret[2] = (struct bh_layer_counter){"writing", c->to != NULL};
	return 3;
}

const struct bh_layer_kind bh_layer_capture = {
	.name = "capture",
	.parameters = ":FILE",
	.help = "writes down all that passes, in pcapng, for Wireshark; FILE may be a FIFO",
	.create = create,
	.counters = counters,
};
