/*
 * What the tests of the disk share: a block in memory that fails and dawdles when
 * told to, and a host that talks Bulk-Only Transport in transfers of any size.
 */
#ifndef TEST_DISK_RIG_H
#define TEST_DISK_RIG_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <base/bytes.h>
#include <base/util.h>
#include <function/disk.h>

#include "../../src/function/block.h"
#include "../../src/function/disk_private.h"

/* ---- a block in memory ---- */

#define FAKE_QUEUE 16

struct fake {
	struct bh_block block;
	uint8_t *bytes;
	bool cached;          /* try_read answers */
	uint64_t bad_read;    /* reading this byte fails with bad_error; UINT64_MAX: none */
	uint64_t bad_write;   /* writing it */
	int flush_error;
	int bad_error;
	uint32_t random; /* xorshift state; 0: requests end in order */
	unsigned reads, writes, flushes, fua_writes, largest_flight;
	struct bh_block_request *queue[FAKE_QUEUE];
	unsigned queued;
	bool *destroyed;
};

static struct fake *to_fake(struct bh_block *b)
{
	return bh_container_of(b, struct fake, block);
}

static uint32_t fake_try_read(struct bh_block *b, uint64_t offset, void *data, uint32_t length)
{
	struct fake *f = to_fake(b);

	if (!f->cached || (f->bad_read >= offset && f->bad_read < offset + length))
		return 0;
	assert_true(offset <= b->size && length <= b->size - offset);
	memcpy(data, f->bytes + offset, length);
	return length;
}

static void fake_submit(struct bh_block *b, struct bh_block_request *r)
{
	struct fake *f = to_fake(b);

	assert_true(f->queued < FAKE_QUEUE);
	assert_true(r->offset <= b->size && r->length <= b->size - r->offset);
	f->queue[f->queued++] = r;
	f->largest_flight = BH_MAX(f->largest_flight, f->queued);
}

static void fake_destroy(struct bh_block *b)
{
	struct fake *f = to_fake(b);

	assert_int_equal(f->queued, 0);
	if (f->destroyed)
		*f->destroyed = true;
	free(f->bytes);
	free(f);
}

static const struct bh_block_ops fake_ops = {fake_try_read, fake_submit, fake_destroy};

static void fake_work(struct fake *f, struct bh_block_request *r)
{
	uint64_t bad = r->op == BH_BLOCK_READ ? f->bad_read : f->bad_write;

	r->moved = r->length;
	if (r->op == BH_BLOCK_FLUSH) {
		f->flushes++;
		r->error = f->flush_error;
		return;
	}
	if (bad >= r->offset && bad < r->offset + r->length) {
		r->moved = (uint32_t)(bad / 512 * 512 > r->offset ? bad / 512 * 512 - r->offset : 0);
		r->error = f->bad_error;
	}
	if (r->op == BH_BLOCK_READ) {
		f->reads++;
		memcpy(r->data, f->bytes + r->offset, r->moved);
	} else {
		f->writes++;
		f->fua_writes += r->fua;
		memcpy(f->bytes + r->offset, r->data, r->moved);
	}
}

static inline uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/* End one request. False: there is none. */
static inline bool fake_step(struct fake *f)
{
	unsigned i = f->queued && f->random ? next_random(&f->random) % f->queued : 0;
	struct bh_block_request *r;

	if (!f->queued)
		return false;
	r = f->queue[i];
	memmove(&f->queue[i], &f->queue[i + 1], (--f->queued - i) * sizeof(f->queue[0]));
	fake_work(f, r);
	r->done(r);
	return true;
}

static inline struct fake *fake_create(uint64_t size, bool readonly)
{
	struct fake *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->block = (struct bh_block){.ops = &fake_ops, .size = size, .readonly = readonly};
	f->bytes = calloc(1, size < (1u << 30) ? size : 1); /* huge ones are never touched */
	assert_non_null(f->bytes);
	f->cached = true;
	f->bad_read = f->bad_write = UINT64_MAX;
	f->bad_error = -EIO;
	return f;
}

/* ---- the host ---- */

struct rig {
	struct bh_device *device;
	struct fake *fake; /* or: */
	uv_loop_t *loop;
	uint32_t cut; /* bytes per bulk transfer, a multiple of the packet size */
	uint32_t tag;
	uint16_t packet;
};

/* One transfer, and how it ended. */
struct flight {
	struct bh_transfer transfer;
	struct iovec span;
	bool done;
	enum bh_status status;
};

static void flight_done(struct bh_transfer *t, enum bh_status status)
{
	struct flight *f = bh_container_of(t, struct flight, transfer);

	assert_false(f->done);
	f->done = true;
	f->status = status;
}

static inline void launch(struct rig *r, struct flight *f, uint8_t endpoint, void *data, uint32_t length)
{
	*f = (struct flight){.span = {.iov_base = data, .iov_len = length}};
	f->transfer = (struct bh_transfer){
		.endpoint = endpoint,
		.type = endpoint ? BH_BULK : BH_CONTROL,
		.spans = &f->span,
		.span_count = 1,
		.length = length,
		.done = flight_done,
	};
	bh_device_submit(r->device, &f->transfer);
}

/* Let the host's side work once. */
static inline void work(struct rig *r)
{
	if (r->fake)
		assert_true(fake_step(r->fake)); /* else nothing would ever happen again */
	else
		assert_true(uv_run(r->loop, UV_RUN_ONCE) || !uv_loop_alive(r->loop));
}

static inline void land(struct rig *r, struct flight *f)
{
	while (!f->done)
		work(r);
}

static inline enum bh_status bulk(struct rig *r, uint8_t endpoint, void *data, uint32_t length, uint32_t *actual)
{
	struct flight f;

	launch(r, &f, endpoint, data, length);
	land(r, &f);
	*actual = f.transfer.actual;
	return f.status;
}

#define OUT 0x02
#define IN 0x81

static inline enum bh_status request(struct rig *r, uint8_t type, uint8_t code, uint16_t value, uint16_t index,
                                     void *data, uint16_t length, uint32_t *actual)
{
	struct flight f = {.span = {.iov_base = data, .iov_len = length}};

	f.transfer = (struct bh_transfer){
		.type = BH_CONTROL,
		.setup = {type, code, bh_put_le16(value), bh_put_le16(index), bh_put_le16(length)},
		.spans = &f.span,
		.span_count = 1,
		.length = length,
		.done = flight_done,
	};
	if (type == 0 && code == 9)
		bh_device_set_configuration(r->device, (uint8_t)value, &f.transfer);
	else if (type == 2 && code == 1)
		bh_device_clear_halt(r->device, (uint8_t)index, &f.transfer);
	else
		bh_device_submit(r->device, &f.transfer);
	land(r, &f);
	if (actual)
		*actual = f.transfer.actual;
	return f.status;
}

static inline void clear_halt(struct rig *r, uint8_t endpoint)
{
	assert_int_equal(request(r, 2, 1, 0, endpoint, NULL, 0, NULL), BH_SUCCESS);
}

static inline void configure(struct rig *r)
{
	assert_int_equal(request(r, 0, 9, 1, 0, NULL, 0, NULL), BH_SUCCESS);
}

static inline void recover(struct rig *r)
{
	assert_int_equal(request(r, 0x21, 0xff, 0, 0, NULL, 0, NULL), BH_SUCCESS);
	clear_halt(r, IN);
	clear_halt(r, OUT);
}

static inline struct rig rig_fake(uint64_t size, const struct bh_disk_config *c)
{
	struct bh_disk_config config = c ? *c : (struct bh_disk_config){.path = "fake"};
	struct rig r = {.cut = 128 * 1024, .packet = 64};

	if (config.speed == BH_SPEED_LOW)
		config.speed = BH_SPEED_FULL;
	r.fake = fake_create(size, config.readonly);
	assert_int_equal(bh_disk_create_on(&r.fake->block, &config, &r.device), 0);
	configure(&r);
	return r;
}

static void rig_closed(void *data, int error)
{
	*(int *)data = error;
}

/* Destroy; the result of the last flush. */
static inline int rig_close(struct rig *r)
{
	int error = 1;

	bh_disk_close(r->device, rig_closed, &error);
	while (error == 1)
		work(r);
	return error;
}

/* ---- bulk-only transport, the host's side ---- */

struct outcome {
	enum bh_status data; /* of the data phase's last transfer */
	uint32_t moved;      /* in the data phase */
	uint8_t status;      /* bCSWStatus */
	uint32_t residue;
};

#define HOST_IN 0x80
#define HOST_OUT 0

static inline void make_cbw(uint8_t cbw[31], uint32_t tag, uint32_t length, uint8_t flags, const uint8_t *cdb,
                            uint8_t cdb_length)
{
	bh_le32 word;

	memset(cbw, 0, 31);
	memcpy(cbw, "USBC", 4);
	word = bh_put_le32(tag);
	memcpy(cbw + 4, &word, 4);
	word = bh_put_le32(length);
	memcpy(cbw + 8, &word, 4);
	cbw[12] = flags;
	cbw[14] = cdb_length;
	memcpy(cbw + 15, cdb, cdb_length);
}

static inline void send_cbw(struct rig *r, uint32_t length, uint8_t flags, const uint8_t *cdb, uint8_t cdb_length)
{
	uint8_t cbw[31];
	uint32_t actual;

	make_cbw(cbw, ++r->tag, length, flags, cdb, cdb_length);
	assert_int_equal(bulk(r, OUT, cbw, 31, &actual), BH_SUCCESS);
	assert_int_equal(actual, 31);
}

static inline void get_csw(struct rig *r, struct outcome *o)
{
	uint8_t csw[512];
	uint32_t actual, tag;
	bh_le32 word;

	assert_int_equal(bulk(r, IN, csw, r->packet, &actual), BH_SUCCESS);
	assert_int_equal(actual, 13);
	assert_memory_equal(csw, "USBS", 4);
	memcpy(&word, csw + 4, 4);
	tag = bh_get_le32(word);
	assert_int_equal(tag, r->tag);
	memcpy(&word, csw + 8, 4);
	o->residue = bh_get_le32(word);
	o->status = csw[12];
}

/* The data phase, in transfers of r->cut bytes. Ends early if one is short or stalls. */
static inline void move_data(struct rig *r, uint8_t flags, uint8_t *data, uint32_t length, struct outcome *o)
{
	uint8_t bounce[1024];

	o->data = BH_SUCCESS;
	o->moved = 0;
	while (o->moved < length && o->data == BH_SUCCESS) {
		uint32_t n = BH_MIN(length - o->moved, r->cut), actual, whole = n / r->packet * r->packet;

		if (!(flags & HOST_IN)) {
			o->data = bulk(r, OUT, data + o->moved, n, &actual);
		} else if (whole) {
			o->data = bulk(r, IN, data + o->moved, whole, &actual);
		} else { /* a last, short packet: hosts ask for whole ones */
			o->data = bulk(r, IN, bounce, r->packet, &actual);
			memcpy(data + o->moved, bounce, BH_MIN(actual, n));
			assert_true(actual <= n);
		}
		o->moved += actual;
		if (actual < n && actual < whole)
			break;
	}
}

/* A whole command, as a driver that knows how to clear a halt does it. */
static inline struct outcome command(struct rig *r, const uint8_t *cdb, uint8_t cdb_length, uint8_t flags,
                                     void *data, uint32_t length)
{
	struct outcome o;

	send_cbw(r, length, flags, cdb, cdb_length);
	move_data(r, flags, data, length, &o);
	if (o.data == BH_STALL)
		clear_halt(r, flags & HOST_IN ? IN : OUT);
	get_csw(r, &o);
	return o;
}

#define CDB(...) (const uint8_t[]){__VA_ARGS__}, (uint8_t)sizeof((const uint8_t[]){__VA_ARGS__})

/* READ(10) or WRITE(10). */
static inline struct outcome rw10(struct rig *r, uint8_t opcode, uint8_t byte1, uint32_t lba, uint16_t blocks,
                                  void *data, uint32_t length)
{
	const uint8_t cdb[10] = {opcode, byte1, (uint8_t)(lba >> 24), (uint8_t)(lba >> 16), (uint8_t)(lba >> 8),
	                         (uint8_t)lba, 0, (uint8_t)(blocks >> 8), (uint8_t)blocks, 0};

	return command(r, cdb, 10, opcode == 0x28 ? HOST_IN : HOST_OUT, data, length);
}

/* REQUEST SENSE: key << 16 | ASC << 8 | ASCQ. */
static inline uint32_t sense(struct rig *r)
{
	uint8_t s[18] = {0};
	struct outcome o = command(r, CDB(0x03, 0, 0, 0, 18, 0), HOST_IN, s, 18);

	assert_int_equal(o.status, 0);
	assert_int_equal(s[0] & 0x7f, 0x70);
	return (uint32_t)s[2] << 16 | (uint32_t)s[12] << 8 | s[13];
}

static inline void fill_pattern(uint8_t *p, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(next_random(&seed) >> 8);
}

#endif
