/* Bulk-Only Transport: the thirteen cases, invalid wrappers, recovery, and I/O that fails. */
#include "test_disk_rig.h"

#define SIZE (4u << 20)

static struct bh_disk_config readonly_config = {.path = "x", .readonly = true};

/* BOT 6.7, table 6.1; READ and WRITE of one block, and 36 bytes of INQUIRY. */
static void test_thirteen_cases(void **state)
{
	enum { NONE, READ, WRITE, INQUIRE, FAIL };
	static const uint8_t cdbs[][10] = {
		[NONE] = {0x00},
		[READ] = {0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0},
		[WRITE] = {0x2a, 0, 0, 0, 0, 1, 0, 0, 1, 0},
		[INQUIRE] = {0x12, 0, 0, 0, 36, 0},
		[FAIL] = {0x28, 0, 0xff, 0, 0, 1, 0, 0, 1, 0}, /* beyond the end */
	};
	static const struct {
		int number;
		uint8_t cdb;
		uint8_t flags;
		uint32_t host;
		/* expected */
		enum bh_status data;
		uint32_t moved;
		uint8_t status;
		uint32_t residue;
		bool written;
	} rows[] = {
		{1, NONE, HOST_OUT, 0, BH_SUCCESS, 0, 0, 0, false},
		{1, NONE, HOST_IN, 0, BH_SUCCESS, 0, 0, 0, false},
		{1, FAIL, HOST_IN, 0, BH_SUCCESS, 0, 1, 0, false},
		{2, READ, HOST_IN, 0, BH_SUCCESS, 0, 2, 0, false},
		{3, WRITE, HOST_OUT, 0, BH_SUCCESS, 0, 2, 0, false},
		{4, NONE, HOST_IN, 100, BH_SUCCESS, 100, 0, 100, false},
		{4, FAIL, HOST_IN, 512, BH_SUCCESS, 512, 1, 512, false},
		{5, INQUIRE, HOST_IN, 255, BH_SUCCESS, 255, 0, 219, false},
		{5, READ, HOST_IN, 5120, BH_SUCCESS, 5120, 0, 4608, false},
		{6, READ, HOST_IN, 512, BH_SUCCESS, 512, 0, 0, false},
		{6, INQUIRE, HOST_IN, 36, BH_SUCCESS, 36, 0, 0, false},
		{7, READ, HOST_IN, 448, BH_SUCCESS, 448, 2, 0, false},
		{7, READ, HOST_IN, 1, BH_SUCCESS, 1, 2, 0, false},
		{8, WRITE, HOST_IN, 512, BH_SUCCESS, 512, 2, 512, false},
		{9, NONE, HOST_OUT, 512, BH_STALL, 0, 0, 512, false},
		{9, FAIL, HOST_OUT, 512, BH_STALL, 0, 1, 512, false},
		{10, READ, HOST_OUT, 512, BH_STALL, 0, 2, 512, false},
		{11, WRITE, HOST_OUT, 1024, BH_STALL, 512, 0, 512, true},
		{12, WRITE, HOST_OUT, 512, BH_SUCCESS, 512, 0, 0, true},
		{13, WRITE, HOST_OUT, 256, BH_STALL, 0, 2, 256, false},
	};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		for (uint32_t cut = 64; cut <= 65536; cut *= 1024) {
			struct rig r = rig_fake(SIZE, NULL);
			uint8_t data[5120];
			struct outcome o;

			r.cut = cut;
			r.fake->bytes[512] = 0xbb;
			memset(data, 0xaa, sizeof(data));
			o = command(&r, cdbs[rows[i].cdb], 10, rows[i].flags, data, rows[i].host);
			if (o.data != rows[i].data || o.moved != rows[i].moved || o.status != rows[i].status ||
			    o.residue != rows[i].residue)
				fail_msg("row %zu, case %d: data %d of %u, status %u, residue %u", i,
				         rows[i].number, o.data, o.moved, o.status, o.residue);
			assert_int_equal(r.fake->bytes[512], rows[i].written ? 0xaa : 0xbb);
			if (rows[i].cdb == READ && rows[i].flags == HOST_IN && rows[i].host) {
				assert_int_equal(data[0], 0xbb);
				assert_int_equal(data[4096], rows[i].host == 5120 ? 0 : 0xaa); /* padding */
			}
			/* and the next command finds all well */
			assert_int_equal(command(&r, CDB(0x12, 0, 0, 0, 36, 0), HOST_IN, data, 36).status, 0);
			assert_int_equal(rig_close(&r), 0);
		}
	}
}

static void stalls(struct rig *r)
{
	uint8_t packet[64] = {0};
	uint32_t actual;

	assert_int_equal(bulk(r, OUT, packet, 31, &actual), BH_STALL);
	assert_int_equal(actual, 0);
	assert_int_equal(bulk(r, IN, packet, 64, &actual), BH_STALL);
	assert_int_equal(actual, 0);
}

static void test_invalid_cbw(void **state)
{
	static const uint32_t lengths[] = {1, 30, 32, 64, 31};
	struct rig r = rig_fake(SIZE, NULL);
	uint8_t cbw[64], data[36];
	uint32_t actual;

	(void)state;
	for (size_t i = 0; i < BH_COUNT(lengths); i++) {
		make_cbw(cbw, 1, 36, HOST_IN, CDB(0x12, 0, 0, 0, 36, 0));
		memset(cbw + 31, 0, sizeof(cbw) - 31);
		if (lengths[i] == 31)
			cbw[3] = 'S'; /* a CSW's */
		bulk(&r, OUT, cbw, lengths[i], &actual); /* taken: what follows is refused */
		assert_int_equal(actual, lengths[i]);
		stalls(&r);
		clear_halt(&r, IN); /* not enough (6.6.1) */
		clear_halt(&r, OUT);
		stalls(&r);
		assert_int_equal(request(&r, 0x82, 0, 0, OUT, data, 2, &actual), BH_SUCCESS);
		assert_int_equal(data[0], 1); /* and the status says so */
		recover(&r);
		assert_int_equal(request(&r, 0x82, 0, 0, OUT, data, 2, &actual), BH_SUCCESS);
		assert_int_equal(data[0], 0);
		assert_int_equal(command(&r, CDB(0x12, 0, 0, 0, 36, 0), HOST_IN, data, 36).status, 0);
	}
	assert_int_equal(bh_disk_counters(r.device).invalid_cbws, BH_COUNT(lengths));
	assert_int_equal(bh_disk_counters(r.device).resets, BH_COUNT(lengths));

	/* a port reset helps as well */
	bulk(&r, OUT, cbw, 30, &actual);
	bh_device_reset(r.device);
	configure(&r);
	assert_int_equal(command(&r, CDB(0x12, 0, 0, 0, 36, 0), HOST_IN, data, 36).status, 0);

	/* the reset leaves halts alone (3.1) */
	assert_int_equal(request(&r, 0x02, 3, 0, IN, NULL, 0, NULL), BH_SUCCESS);
	assert_int_equal(request(&r, 0x21, 0xff, 0, 0, NULL, 0, NULL), BH_SUCCESS);
	assert_int_equal(bulk(&r, IN, cbw, 64, &actual), BH_STALL);
	assert_int_equal(rig_close(&r), 0);
}

/* A wrapper is a packet, not a transfer: the first of three is taken, the others find the pipe halted. */
static void test_wrapper_is_a_packet(void **state)
{
	struct rig r = rig_fake(SIZE, NULL);
	uint8_t bytes[64 + 64 + 31] = {0}, data[512] = {0};
	struct outcome o;
	struct flight f;
	uint32_t actual;

	(void)state;
	assert_int_equal(bulk(&r, OUT, bytes, sizeof(bytes), &actual), BH_STALL);
	assert_int_equal(actual, 64);
	recover(&r);

	/* a short packet in the middle shifts the rest: of the last packet 28 bytes count, and it is taken whole */
	send_cbw(&r, 512, HOST_OUT, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0));
	assert_int_equal(bulk(&r, OUT, data, 100, &actual), BH_SUCCESS);
	assert_int_equal(bulk(&r, OUT, data, 448, &actual), BH_SUCCESS);
	assert_int_equal(actual, 448);
	get_csw(&r, &o);
	assert_int_equal(o.status, 0);
	assert_int_equal(o.residue, 0);

	/* data, and the next wrapper behind it, in one transfer: that waits for the status */
	send_cbw(&r, 512, HOST_OUT, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0));
	launch(&r, &f, OUT, (uint8_t[512 + 31]){1, 2, 3}, 512 + 31);
	while (f.transfer.actual < 512)
		work(&r);
	assert_false(f.done);
	get_csw(&r, &o);
	assert_int_equal(o.status, 0);
	assert_true(f.done); /* and was no wrapper: zeros */
	assert_int_equal(bulk(&r, IN, data, 64, &actual), BH_STALL);
	assert_int_equal(rig_close(&r), 0);
}

/* What was written before a reset is read after it, in whatever order the host's disk would have it. */
static void test_reads_follow_writes(void **state)
{
	static uint8_t a[300 * 1024], b[512];

	(void)state;
	memset(a, 6, sizeof(a));
	for (uint32_t random = 1; random < 20; random++) {
		struct rig r = rig_fake(SIZE, NULL);
		struct flight f;

		r.fake->cached = random % 2;
		r.fake->random = random;
		send_cbw(&r, 1 << 20, HOST_OUT, CDB(0x2a, 0, 0, 0, 0, 0, 0, 8, 0, 0));
		launch(&r, &f, OUT, a, sizeof(a));
		recover(&r);
		assert_int_equal(rw10(&r, 0x28, 0, 0, 1, b, sizeof(b)).status, 0);
		assert_int_equal(b[0], 6);
		assert_int_equal(rig_close(&r), 0);
	}
}

/* Valid, but no command: fails, and needs no recovery. */
static void test_meaningless_cbw(void **state)
{
	static const struct {
		uint8_t at, value;
		uint32_t sense;
	} rows[] = {
		{12, 0x40, 0x52000}, {13, 0x10, 0x52000}, {14, 0, 0x52000}, {14, 17, 0x52000}, {13, 1, 0x52500},
	};
	struct rig r = rig_fake(SIZE, NULL);

	(void)state;
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		struct outcome o;
		uint8_t cbw[31];
		uint32_t actual;

		make_cbw(cbw, ++r.tag, 0, 0, CDB(0, 0, 0, 0, 0, 0));
		cbw[rows[i].at] = rows[i].value;
		assert_int_equal(bulk(&r, OUT, cbw, 31, &actual), BH_SUCCESS);
		get_csw(&r, &o);
		assert_int_equal(o.status, 1);
		assert_int_equal(sense(&r), rows[i].sense);
	}
	assert_int_equal(rig_close(&r), 0);
}

static void test_readonly(void **state)
{
	struct rig r = rig_fake(SIZE, &readonly_config);
	uint8_t data[1024];
	struct outcome o = rw10(&r, 0x2a, 0, 0, 2, data, 1024);

	(void)state;
	assert_int_equal(o.data, BH_STALL);
	assert_int_equal(o.moved, 0);
	assert_int_equal(o.status, 1);
	assert_int_equal(o.residue, 1024);
	assert_int_equal(sense(&r), 0x72700);
	assert_int_equal(rw10(&r, 0x28, 0, 0, 2, data, 1024).status, 0);
	assert_int_equal(r.fake->writes, 0);
	assert_int_equal(rig_close(&r), 0);
}

static void test_read_error(void **state)
{
	static uint8_t data[2 << 20], ones[64];

	(void)state;
	memset(ones, 1, sizeof(ones));
	for (int cached = 0; cached < 2; cached++) {
		struct rig r = rig_fake(SIZE, NULL);
		struct outcome o;

		memset(r.fake->bytes, 1, SIZE);
		r.fake->cached = cached;
		r.fake->bad_read = 700 * 512 + 9;
		memset(data, 7, sizeof(data));
		o = rw10(&r, 0x28, 0, 100, 4096 - 100, data, (4096 - 100) * 512);
		assert_int_equal(o.data, BH_SUCCESS); /* padded: 6.7.2 */
		assert_int_equal(o.status, 1);
		assert_int_equal(o.residue, (4096 - 700) * 512);
		assert_memory_equal(data + 600 * 512 - 64, ones, 64);
		assert_int_equal(data[600 * 512], 0);
		assert_int_equal(data[(4096 - 100) * 512 - 1], 0);
		assert_int_equal(sense(&r), 0x31100);
		assert_int_equal(bh_disk_counters(r.device).io_errors, 1);
		assert_int_equal(rw10(&r, 0x28, 0, 0, 8, data, 4096).status, 0);
		assert_int_equal(rig_close(&r), 0);
	}
}

static void test_write_error(void **state)
{
	static uint8_t data[2 << 20];
	struct rig r = rig_fake(SIZE, NULL);
	struct outcome o;

	(void)state;
	memset(data, 5, sizeof(data));
	r.fake->bad_write = 1000 * 512;
	r.fake->bad_error = -ENOSPC;
	o = rw10(&r, 0x2a, 0, 0, 4096, data, sizeof(data));
	assert_int_equal(o.data, BH_SUCCESS); /* where it failed must not show in the data phase */
	assert_int_equal(o.moved, sizeof(data));
	assert_int_equal(o.status, 1);
	assert_int_equal(o.residue, sizeof(data) - 1000 * 512);
	assert_int_equal(sense(&r), 0x72707);
	assert_int_equal(r.fake->bytes[1000 * 512 - 1], 5);
	assert_int_equal(r.fake->bytes[1000 * 512], 0);
	assert_int_equal(r.fake->bytes[2000 * 512], 0);

	r.fake->bad_error = -EIO;
	assert_int_equal(rw10(&r, 0x2a, 0, 1000, 1, data, 512).status, 1);
	assert_int_equal(sense(&r), 0x30c00);
	r.fake->bad_write = UINT64_MAX;
	assert_int_equal(rw10(&r, 0x2a, 0, 1000, 1, data, 512).status, 0);
	r.fake->flush_error = -EIO;
	assert_int_equal(command(&r, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0, NULL, 0).status, 1);
	assert_int_equal(sense(&r), 0x30c00);
	assert_int_equal(rig_close(&r), -EIO);
}

static void test_fua_flush_verify(void **state)
{
	static uint8_t data[64 * 1024];
	struct rig r = rig_fake(SIZE, NULL);

	(void)state;
	assert_int_equal(rw10(&r, 0x2a, 0x08, 0, 128, data, sizeof(data)).status, 0);
	assert_int_equal(r.fake->fua_writes, 1);
	assert_int_equal(rw10(&r, 0x2a, 0, 0, 128, data, sizeof(data)).status, 0);
	assert_int_equal(r.fake->fua_writes, 1);
	assert_int_equal(command(&r, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0, NULL, 0).status, 0);
	assert_int_equal(r.fake->flushes, 1);
	assert_int_equal(command(&r, CDB(0x2f, 0, 0, 0, 0, 0, 0, 0x20, 0, 0), 0, NULL, 0).status, 0);
	assert_int_equal(r.fake->reads, SIZE / (256 * 1024));
	r.fake->bad_read = 3 * 512 + 4;
	assert_int_equal(command(&r, CDB(0x2f, 0, 0, 0, 0, 0, 0, 0x20, 0, 0), 0, NULL, 0).status, 1);
	assert_int_equal(sense(&r), 0x31100);
	/* eject flushes */
	assert_int_equal(rw10(&r, 0x2a, 0, 0, 1, data, 512).status, 0);
	assert_int_equal(command(&r, CDB(0x1b, 0, 0, 0, 2, 0), 0, NULL, 0).status, 0);
	assert_int_equal(r.fake->flushes, 2);
	assert_int_equal(command(&r, CDB(0, 0, 0, 0, 0, 0), 0, NULL, 0).status, 1);
	assert_int_equal(sense(&r), 0x23a00);
	assert_int_equal(rig_close(&r), 0);
}

/* One piece of I/O for what Linux sends; four at most whatever a guest asks for. */
static void test_io_is_bounded(void **state)
{
	static uint8_t data[2 << 20];
	struct rig r = rig_fake(SIZE, NULL);
	struct flight f[40];
	unsigned done = 0;

	(void)state;
	r.cut = 4096;
	assert_int_equal(rw10(&r, 0x2a, 0, 0, 240, data, 240 * 512).status, 0);
	assert_int_equal(r.fake->writes, 1);
	assert_int_equal(rw10(&r, 0x28, 0, 0, 240, data, 240 * 512).status, 0);
	assert_int_equal(r.fake->reads, 0);
	r.fake->cached = false;
	assert_int_equal(rw10(&r, 0x28, 0, 0, 240, data, 240 * 512).status, 0);
	assert_int_equal(r.fake->reads, 1);

	/* nobody fetches it: read ahead as far as there are chunks */
	send_cbw(&r, sizeof(data), HOST_IN, CDB(0x28, 0, 0, 0, 0, 0, 0, 0x10, 0, 0));
	assert_int_equal(r.fake->queued, 4);
	recover(&r);
	send_cbw(&r, sizeof(data), HOST_IN, CDB(0x28, 0, 0, 0, 0, 0, 0, 0x10, 0, 0));
	assert_int_equal(r.fake->queued, 4); /* the old ones hold all there is */
	recover(&r);
	while (fake_step(r.fake))
		;

	/* written slower than it comes: four chunks are taken, the fifth waits */
	send_cbw(&r, sizeof(data), HOST_OUT, CDB(0x2a, 0, 0, 0, 0, 0, 0, 0x10, 0, 0));
	for (unsigned i = 0; i < 40; i++) {
		launch(&r, &f[i], OUT, data, 48 * 1024);
		done += f[i].done;
	}
	assert_int_equal(done, 4 * 256 / 48);
	assert_int_equal(f[done].transfer.actual, 4 * 256 * 1024 - done * 48 * 1024); /* told by progress */
	assert_int_equal(r.fake->queued, 1); /* in order, one at a time */
	for (unsigned i = 39; i >= done; i--) {
		bh_device_cancel(r.device, &f[i].transfer);
		assert_true(f[i].done);
		assert_int_equal(f[i].status, BH_CANCELLED);
	}
	assert_int_equal(rig_close(&r), 0);
}

/* What a dropped command had taken in whole chunks is written, before anything later. */
static void test_reset_keeps_order(void **state)
{
	static uint8_t a[1 << 20], b[512];
	struct rig r = rig_fake(SIZE, NULL);
	struct outcome o;
	struct flight f;

	(void)state;
	memset(a, 1, sizeof(a));
	memset(b, 2, sizeof(b));
	send_cbw(&r, sizeof(a), HOST_OUT, CDB(0x2a, 0, 0, 0, 0, 0, 0, 8, 0, 0));
	launch(&r, &f, OUT, a, 700 * 1024);
	assert_true(f.done);
	assert_int_equal(r.fake->queued, 1);
	recover(&r);
	o = rw10(&r, 0x2a, 0, 512, 1, b, 512); /* the first block of the second chunk */
	assert_int_equal(o.status, 0);
	assert_int_equal(o.residue, 0);
	assert_int_equal(r.fake->bytes[0], 1);
	assert_int_equal(r.fake->bytes[512 * 512 - 1], 1);
	assert_int_equal(r.fake->bytes[512 * 512], 2);
	assert_int_equal(r.fake->bytes[513 * 512], 1);
	assert_int_equal(r.fake->bytes[2 * 256 * 1024], 0); /* of the third chunk not all had come */
	assert_int_equal(r.fake->writes, 3);

	/* an old write's failure is not the new command's */
	r.fake->bad_write = 0;
	send_cbw(&r, sizeof(a), HOST_OUT, CDB(0x2a, 0, 0, 0, 0, 0, 0, 8, 0, 0));
	launch(&r, &f, OUT, a, 700 * 1024);
	recover(&r);
	assert_int_equal(rw10(&r, 0x28, 0, 512, 1, a, 512).status, 0);
	assert_int_equal(a[0], 2); /* and what followed the failed one was given up */
	assert_int_equal(rig_close(&r), 0);
}

/* A read is answered from what was fetched for it, never from a dropped one. */
static void test_reset_drops_reads(void **state)
{
	static uint8_t data[1 << 20];
	struct rig r = rig_fake(SIZE, NULL);
	struct outcome o;

	(void)state;
	fill_pattern(r.fake->bytes, SIZE, 9);
	r.fake->cached = false;
	r.fake->random = 77;
	send_cbw(&r, sizeof(data), HOST_IN, CDB(0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0));
	assert_true(fake_step(r.fake));
	recover(&r);
	o = rw10(&r, 0x28, 0, 4096, 2048, data, sizeof(data));
	assert_int_equal(o.status, 0);
	assert_memory_equal(data, r.fake->bytes + 4096 * 512, sizeof(data));
	assert_int_equal(rig_close(&r), 0);
}

/* Cancelled transfers lose nothing: the bytes they count are gone, the others are still to come. */
static void test_cancel(void **state)
{
	static uint8_t data[1 << 20];
	struct rig r = rig_fake(SIZE, NULL);
	struct flight f, idle[2];
	struct outcome o;
	uint32_t actual, got = 0;

	(void)state;
	fill_pattern(r.fake->bytes, SIZE, 11);
	r.fake->cached = false;
	launch(&r, &idle[0], IN, data, 128);
	launch(&r, &idle[1], IN, data, 128);
	bh_device_cancel(r.device, &idle[0].transfer);
	bh_device_cancel(r.device, &idle[1].transfer);
	assert_int_equal(idle[1].status, BH_CANCELLED);

	send_cbw(&r, sizeof(data), HOST_IN, CDB(0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0));
	launch(&r, &f, IN, data, sizeof(data));
	fake_step(r.fake); /* the first chunk */
	assert_false(f.done);
	bh_device_cancel(r.device, &f.transfer);
	assert_int_equal(f.status, BH_CANCELLED);
	got = f.transfer.actual;
	assert_int_equal(got, 256 * 1024);
	assert_int_equal(bulk(&r, IN, data + got, sizeof(data) - got, &actual), BH_SUCCESS);
	assert_int_equal(actual, sizeof(data) - got);
	get_csw(&r, &o);
	assert_int_equal(o.status, 0);
	assert_memory_equal(data, r.fake->bytes, sizeof(data));
	assert_int_equal(rig_close(&r), 0);
}

/* A padded data phase as long as the host likes, from a command that fails: no memory, no hang. */
static void test_hostile_lengths(void **state)
{
	struct bh_disk_config c = {.path = "x", .block_size = 4096};
	static uint8_t data[1 << 20];
	struct rig r = rig_fake(1ull << 50, &c);
	uint32_t actual;

	(void)state;
	r.fake->cached = false;
	r.fake->bad_read = 0;
	send_cbw(&r, UINT32_MAX, HOST_IN,
	         CDB(0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0)); /* 16 TiB, of 4 GiB */
	assert_int_equal(r.fake->queued, 4);
	r.fake->queue[1]->length = r.fake->queue[2]->length = r.fake->queue[3]->length = 0; /* not in memory */
	assert_int_equal(bulk(&r, IN, data, sizeof(data), &actual), BH_SUCCESS);
	assert_int_equal(actual, sizeof(data));
	recover(&r);
	while (fake_step(r.fake))
		;
	assert_int_equal(rig_close(&r), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_thirteen_cases),
		cmocka_unit_test(test_invalid_cbw),
		cmocka_unit_test(test_wrapper_is_a_packet),
		cmocka_unit_test(test_reads_follow_writes),
		cmocka_unit_test(test_meaningless_cbw),
		cmocka_unit_test(test_readonly),
		cmocka_unit_test(test_read_error),
		cmocka_unit_test(test_write_error),
		cmocka_unit_test(test_fua_flush_verify),
		cmocka_unit_test(test_io_is_bounded),
		cmocka_unit_test(test_reset_keeps_order),
		cmocka_unit_test(test_reset_drops_reads),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_hostile_lengths),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
