/*
 * The guest's half of a fuzz target whose peer is hostile: a bus that holds the device, and
 * transfers, as records of the program have it. Each has to end once, and to write nothing beside
 * its buffer.
 */
#ifndef FUZZ_PEER_GUEST_H
#define FUZZ_PEER_GUEST_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/util.h>
#include <layer/layers.h>
#include <usb/device.h>

#include "must.h"

#define RECORD 8u

#define MOST_JOBS  32u
#define MOST_BYTES (1u << 20) /* of a transfer */

static struct bh_device *device;

/* What a peer that is nice says of its device. */
static const uint8_t device_descriptor[18] = {18, 1, 0x10, 1, 0xff, 0, 0, 64, 0x34, 0x12, 0x78, 0x56, 1, 1, 0, 0, 0, 1};
static const uint8_t configuration[97] = {
	9, 2, 97, 0, 1, 1, 0, 0x80, 50,
	9, 4, 0, 0, 4, 0xff, 1, 2, 0,
	7, 5, 0x81, 2, 64, 0, 0, 7, 5, 0x02, 2, 64, 0, 0, 7, 5, 0x83, 3, 8, 0, 1, 7, 5, 0x04, 3, 8, 0, 1,
	9, 4, 0, 1, 6, 0xff, 1, 2, 0,
	7, 5, 0x81, 2, 64, 0, 0, 7, 5, 0x02, 2, 64, 0, 0, 7, 5, 0x83, 3, 8, 0, 1, 7, 5, 0x04, 3, 8, 0, 1,
	7, 5, 0x85, 1, 192, 0, 1, 7, 5, 0x06, 1, 192, 0, 1,
};

void hostile_guest_acts(void);

/* No guest has any memory here. */
void hostile_guest_acts(void)
{
}

struct job {
	struct bh_transfer t;
	struct iovec span;
	struct bh_packet packets[16];
	bool running;
	uint8_t bytes[]; /* length, and 16 that are not written to */
};

static struct job *jobs[MOST_JOBS];
static bool shown;

static void job_done(struct bh_transfer *t, enum bh_status status)
{
	struct job *j = bh_container_of(t, struct job, t);

	must(j->running, "a transfer ended twice");
	must((unsigned)status < BH_STATUS_COUNT, "no status");
	must(t->actual <= t->length, "more moved than was to");
	j->running = false;
	for (unsigned i = 0; i < 16; i++)
		must(j->bytes[t->length + i] == 0xee, "written beside the buffer");
	for (unsigned i = 0; i < t->packet_count; i++)
		must(t->packets[i].actual <= t->packets[i].length, "more in a packet than there is room");
}

/* A place for one more; a transfer that has ended makes room. NULL: they all run. */
static struct job *job_create(uint8_t endpoint, enum bh_endpoint_type type, uint32_t length)
{
	for (unsigned i = 0; i < MOST_JOBS; i++) {
		struct job *j = jobs[i];

		if (j && j->running)
			continue;
		free(j);
		j = jobs[i] = calloc(1, sizeof(*j) + length + 16);
		must(j, "out of memory");
		memset(j->bytes + length, 0xee, 16);
		j->span = (struct iovec){.iov_base = j->bytes, .iov_len = length};
		j->t = (struct bh_transfer){
			.endpoint = endpoint, .type = type, .spans = &j->span, .span_count = 1, .length = length, .done = job_done,
		};
		j->running = true;
		return j;
	}
	return NULL;
}

static void cancel_all(void)
{
	for (unsigned i = 0; i < MOST_JOBS; i++)
		if (jobs[i] && jobs[i]->running)
			bh_device_cancel(device, &jobs[i]->t);
}

static void none_runs(void)
{
	for (unsigned i = 0; i < MOST_JOBS; i++)
		must(!jobs[i] || !jobs[i]->running, "a transfer did not end");
}

static int attached(struct bh_device *d)
{
	if (d->speed > BH_SPEED_FULL)
		return -ENOTSUP;
	must(!shown, "it came twice");
	shown = true;
	bh_device_reset(d);
	return 0;
}

static void detached(struct bh_device *d)
{
	(void)d;
	if (!shown)
		return;
	shown = false;
	cancel_all();
	none_runs();
}

static const struct bh_device_upcalls upcalls = {.attached = attached, .detached = detached};

static struct bh_layer_context layers; /* its loop is the target's */

/* The device as a guest in a full-speed port has it: what is faster is translated. */
static void take_device(struct bh_device *d)
{
	char error[BH_LAYER_ERROR_SIZE];

	device = d;
	must(!bh_layers_put(&layers, "translate", &device, error), "no layer");
	device->upcalls = &upcalls;
}

static void submit_record(const uint8_t *r)
{
	static const uint8_t endpoints[] = {0x81, 0x02, 0x83, 0x04, 0x85, 0x06, 0x87, 0x08};
	static const enum bh_endpoint_type types[] = {BH_BULK, BH_INTERRUPT, BH_ISOCHRONOUS};
	uint8_t which = r[1] & 7, endpoint = endpoints[which];
	const struct bh_endpoint_info *info = bh_device_endpoint(device, endpoint);
	enum bh_endpoint_type type = info && !(r[1] & 0x80) ? info->type : types[which / 2 % 3];
	unsigned packets = r[2] % 16 + 1, packet = info ? info->max_packet : 64;
	uint32_t length = type == BH_ISOCHRONOUS || r[3] & 1 ? packets * packet : (uint32_t)(r[2] | r[4] << 8 | (r[5] & 15) << 16);
	struct job *j;

	if (endpoint & BH_ENDPOINT_IN)
		length -= length % packet;
	j = shown ? job_create(endpoint, type, BH_MIN(length, MOST_BYTES)) : NULL;
	if (!j)
		return;
	j->t.flags = r[3] & 2 ? BH_TRANSFER_ZERO_PACKET : 0;
	for (unsigned i = 0; type == BH_ISOCHRONOUS && i < packets; i++)
		j->packets[i] = (struct bh_packet){.offset = i * packet, .length = packet, .status = BH_NO_RESPONSE};
	if (type == BH_ISOCHRONOUS) {
		j->t.packets = j->packets;
		j->t.packet_count = packets;
	}
	bh_device_submit(device, &j->t);
}

/* bmRequestType, bRequest, wValue, wIndex, wLength; or one of those that have a meaning. */
static void submit_control(const uint8_t *r)
{
	static const uint8_t requests[][5] = {
		{0x00, 9, 1, 0, 0}, {0x01, 11, 1, 0, 0}, {0x01, 11, 0, 0, 0}, {0x02, 1, 0, 0x83, 0}, {0x80, 8, 0, 0, 1},
		{0x81, 10, 0, 0, 1}, {0x02, 1, 0, 0x81, 0}, {0x00, 9, 0, 0, 0},
	};
	const uint8_t *q = r[1] & 0x80 ? r + 2 : requests[r[1] & 7];
	uint16_t length = r[1] & 0x40 ? (uint16_t)(q[4] << 8) : q[4];
	struct job *j = shown ? job_create(0, BH_CONTROL, length) : NULL;

	if (!j)
		return;
	j->t.setup = (struct bh_setup){q[0], q[1], bh_put_le16(q[2]), bh_put_le16(q[3]), bh_put_le16(length)};
	bh_device_request(device, &j->t);
}

static void cancel_record(const uint8_t *r)
{
	struct job *j = jobs[r[1] % MOST_JOBS];

	if (j && j->running)
		bh_device_cancel(device, &j->t);
}

static void reset(const uint8_t *r)
{
	(void)r;
	if (!shown)
		return;
	cancel_all();
	bh_device_reset(device);
	none_runs();
}

static void forget_jobs(void)
{
	for (unsigned i = 0; i < MOST_JOBS; i++) {
		free(jobs[i]);
		jobs[i] = NULL;
	}
}

static size_t jobs_memory(void)
{
	size_t sum = 0;

	for (unsigned i = 0; i < MOST_JOBS; i++)
		sum += jobs[i] ? sizeof(*jobs[i]) + jobs[i]->t.length : 0;
	return sum;
}

#endif
