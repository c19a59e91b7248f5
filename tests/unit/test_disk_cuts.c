/*
 * The law of observation: whatever the sizes of the transfers, whenever they come,
 * however often they are cancelled and gone on with, and whatever the host's disk
 * takes its time over, a guest sees the same packets and finds the same medium.
 *
 * A script of commands is made from a seed and played by a guest that knows packets
 * only; each packet's outcome goes into a log. The oracle plays it one packet a
 * transfer over a medium that answers in order; every other way has to give its log
 * and its medium.
 */
#include "test_disk_rig.h"

#define SIZE (8u << 20)
#define ACTIONS 40
#define LONGEST (600u * 1024)
#define PACKET 64u

enum kind { COMMAND, BROKEN_CBW, ABORTED, HALTED };

struct action {
	enum kind kind;
	uint8_t cdb[16];
	uint8_t cdb_length;
	uint8_t flags;
	uint32_t host_length;
	uint32_t packets; /* ABORTED: moved before the reset */
	uint32_t seed;    /* of the data to send */
};

struct way {
	const char *name;
	uint32_t cut;   /* bytes per transfer */
	bool cross;     /* the next CBW in the transfer that ends the data */
	bool early;     /* IN transfers before the command they wait for */
	bool cancels;   /* and go on */
	bool cached;
	uint32_t random; /* the host's disk ends requests in any order */
};

struct play {
	struct rig rig;
	struct way way;
	uint32_t dice;
	uint32_t size; /* of cut, this time */
	bool cbw_sent; /* crossed with the data before */
	uint32_t log_length;
	uint8_t *log;
};

#define LOG_MAX (64u << 20)

static void note(struct play *p, const void *bytes, uint32_t length)
{
	assert_true(p->log_length + length <= LOG_MAX);
	memcpy(p->log + p->log_length, bytes, length);
	p->log_length += length;
}

static void note_char(struct play *p, char c)
{
	note(p, &c, 1);
}

/* ---- the script ---- */

static void make_command(struct action *a, uint32_t *s, bool big)
{
	uint32_t lba = next_random(s) % (SIZE / 512), blocks = next_random(s) % 24, intended;
	bool write = next_random(s) % 2;

	if (next_random(s) % 6 == 0)
		blocks = next_random(s) % (LONGEST / 512);
	if (next_random(s) % 2)
		lba %= 1200; /* where the others are */
	if (big)
		blocks = 1024 + next_random(s) % 128;
	if (lba + blocks > SIZE / 512 && next_random(s) % 8)
		lba = 0;
	a->cdb_length = 10;
	a->cdb[0] = write ? 0x2a : 0x28;
	a->cdb[2] = (uint8_t)(lba >> 24), a->cdb[3] = (uint8_t)(lba >> 16);
	a->cdb[4] = (uint8_t)(lba >> 8), a->cdb[5] = (uint8_t)lba;
	a->cdb[7] = (uint8_t)(blocks >> 8), a->cdb[8] = (uint8_t)blocks;
	intended = blocks * 512;
	switch (next_random(s) % 10) {
	case 0:
		a->cdb[0] = 0x35; /* SYNCHRONIZE CACHE */
		intended = 0;
		break;
	case 1:
		memcpy(a->cdb, "\x12\0\0\0\x24\0\0\0\0", 10);
		intended = 36;
		write = false;
		break;
	case 2:
		memcpy(a->cdb, "\3\0\0\0\x12\0\0\0\0", 10);
		intended = 18;
		write = false;
		break;
	case 3:
		a->cdb[0] = 0x2f; /* VERIFY */
		intended = 0;
		break;
	}
	a->flags = write ? HOST_OUT : HOST_IN;
	a->host_length = intended;
	if (next_random(s) % 6 == 0)
		a->host_length = next_random(s) % 5000;
	if (next_random(s) % 16 == 0)
		a->flags ^= HOST_IN;
}

static void make_script(struct action script[ACTIONS], uint32_t seed)
{
	uint32_t s = seed * 2654435761u + 1;

	memset(script, 0, ACTIONS * sizeof(script[0]));
	for (unsigned i = 0; i < ACTIONS; i++) {
		struct action *a = &script[i];

		switch (next_random(&s) % 12) {
		case 0:
			a->kind = BROKEN_CBW;
			break;
		case 1:
		case 2:
			a->kind = ABORTED;
			break;
		case 3:
			a->kind = HALTED;
			break;
		}
		make_command(a, &s, a->kind == ABORTED);
		a->seed = next_random(&s);
		a->packets = a->host_length ? next_random(&s) % (a->host_length / PACKET + 1) : 0;
	}
}

/* ---- the guest ---- */

static uint32_t packets(uint32_t bytes)
{
	return (bytes + PACKET - 1) / PACKET;
}

/* Wait for it; perhaps lose patience. */
static void wait_or_cancel(struct play *p, struct flight *f)
{
	while (!f->done) {
		if (p->way.cancels && next_random(&p->dice) % 3 == 0)
			bh_device_cancel(p->rig.device, &f->transfer);
		else
			work(&p->rig);
	}
}

/* Send bytes. False: stalled. The log gets a letter for each packet. */
static bool deliver(struct play *p, uint8_t *data, uint32_t length)
{
	uint32_t sent = 0;

	while (sent < length) {
		struct flight f;
		uint32_t n = BH_MIN(length - sent, p->way.cut);

		launch(&p->rig, &f, OUT, data + sent, n);
		wait_or_cancel(p, &f);
		for (uint32_t i = 0; i < packets(f.transfer.actual); i++)
			note_char(p, 'o');
		sent += f.transfer.actual;
		if (f.status == BH_STALL) {
			note_char(p, 'S');
			return false;
		}
		if (f.status == BH_SUCCESS)
			assert_int_equal(f.transfer.actual, n);
		else if (sent < length)
			assert_int_equal(sent % PACKET, 0);
	}
	return true;
}

/* Note what an IN transfer brought: the packets it got. Whether it stalled. */
static bool note_in(struct play *p, const struct flight *f, const uint8_t *data, uint32_t *left)
{
	uint32_t n = f->transfer.actual;

	for (uint32_t at = 0; at < n; at += PACKET) {
		note_char(p, 'i');
		note(p, data + at, BH_MIN(n - at, PACKET));
		(*left)--;
	}
	if (f->status == BH_STALL)
		note_char(p, 'S');
	else if (f->status == BH_CANCELLED)
		assert_int_equal(n % PACKET, 0);
	else if (n < f->transfer.length)
		assert_int_not_equal(n % PACKET, 0); /* no zero-length packets */
	return f->status == BH_STALL;
}

/* Fetch so many packets; early: a transfer that was submitted before, or NULL. */
static void fetch(struct play *p, uint32_t left, struct flight *early, const uint8_t *early_data)
{
	static uint8_t data[LONGEST + 4096];

	if (early) {
		wait_or_cancel(p, early);
		if (note_in(p, early, early_data, &left))
			return;
	}
	while (left) {
		uint32_t n = BH_MIN(left * PACKET, p->way.cut);
		struct flight f;

		launch(&p->rig, &f, IN, data, n);
		wait_or_cancel(p, &f);
		if (note_in(p, &f, data, &left))
			return;
	}
}

static uint32_t cbw_of(struct play *p, const struct action *a, uint8_t *cbw)
{
	make_cbw(cbw, a->seed, a->host_length, a->flags, a->cdb, a->cdb_length);
	if (a->kind == BROKEN_CBW && a->seed % 2)
		cbw[0] = 'u';
	(void)p;
	return a->kind == BROKEN_CBW && !(a->seed % 2) ? 30 : 31;
}

/* Data to the device, and the status; perhaps with the next command's CBW in the same transfer. */
static void command_out(struct play *p, const struct action *a, const struct action *next)
{
	static uint8_t data[LONGEST + 4096];
	uint32_t length = a->host_length;
	bool cross = p->way.cross && next && next->kind == COMMAND && length && length % PACKET == 0;
	struct flight f;

	fill_pattern(data, length, a->seed | 1);
	if (!cross) {
		if (!deliver(p, data, length))
			clear_halt(&p->rig, OUT);
		fetch(p, 1, NULL, NULL);
		return;
	}
	/* The data and the next CBW in one; the status has to come before that is taken. */
	cbw_of(p, next, data + length);
	launch(&p->rig, &f, OUT, data, length + 31);
	while (!f.done && f.transfer.actual < length)
		work(&p->rig);
	for (uint32_t i = 0; i < packets(BH_MIN(f.transfer.actual, length)); i++)
		note_char(p, 'o');
	if (f.done) {
		assert_int_equal(f.status, BH_STALL);
		note_char(p, 'S');
		clear_halt(&p->rig, OUT);
		fetch(p, 1, NULL, NULL);
		return;
	}
	fetch(p, 1, NULL, NULL);
	land(&p->rig, &f);
	assert_int_equal(f.status, BH_SUCCESS);
	p->cbw_sent = true; /* and will be noted when its turn comes */
}

static void play_command(struct play *p, const struct action *a, const struct action *next)
{
	uint8_t cbw[31], early_data[8192];
	bool in = a->flags & HOST_IN || !a->host_length, sent = p->cbw_sent;
	uint32_t total = (in ? packets(a->host_length) : 0) + 1;
	struct flight early;
	bool is_early = p->way.early && !sent && in;

	if (is_early)
		launch(&p->rig, &early, IN, early_data,
		       BH_MIN(BH_MIN(total * PACKET, p->way.cut), (uint32_t)sizeof(early_data)));
	p->cbw_sent = false;
	if (sent)
		note_char(p, 'o');
	else
		assert_true(deliver(p, cbw, cbw_of(p, a, cbw)));
	if (in)
		fetch(p, total, is_early ? &early : NULL, early_data);
	else
		command_out(p, a, next);
}

static void play_aborted(struct play *p, const struct action *a)
{
	static uint8_t data[LONGEST + 4096];
	uint8_t cbw[31];

	deliver(p, cbw, cbw_of(p, a, cbw));
	if (a->flags & HOST_IN) {
		fetch(p, a->packets, NULL, NULL);
	} else {
		fill_pattern(data, a->packets * PACKET, a->seed | 1);
		deliver(p, data, a->packets * PACKET);
	}
	recover(&p->rig);
}

static void play_action(struct play *p, const struct action *a, const struct action *next)
{
	uint8_t cbw[31];
	uint32_t length;

	note_char(p, '\n');
	switch (a->kind) {
	case COMMAND:
		play_command(p, a, next);
		break;
	case BROKEN_CBW:
		length = cbw_of(p, a, cbw);
		deliver(p, cbw, length);
		fetch(p, 1, NULL, NULL);
		deliver(p, cbw, length);
		recover(&p->rig);
		break;
	case ABORTED:
		play_aborted(p, a);
		break;
	case HALTED:
		request(&p->rig, 0x02, 3, 0, IN, NULL, 0, NULL);
		fetch(p, 1, NULL, NULL);
		clear_halt(&p->rig, IN);
		break;
	}
}

/* Play the script. Returns the medium; the log is p's. */
static uint8_t *play(struct play *p, const struct way *way, uint32_t seed)
{
	static struct action script[ACTIONS];
	struct bh_disk_counters c;
	uint8_t *medium = malloc(SIZE);

	*p = (struct play){.rig = rig_fake(SIZE, NULL), .way = *way, .dice = seed + 99, .log = p->log};
	make_script(script, seed);
	fill_pattern(p->rig.fake->bytes, SIZE, 5);
	p->rig.fake->cached = way->cached;
	p->rig.fake->random = way->random;
	if (seed % 3 == 1)
		p->rig.fake->bad_read = seed * 77777 % SIZE;
	if (seed % 3 == 2)
		p->rig.fake->bad_write = seed * 99999 % SIZE;
	for (unsigned i = 0; i < ACTIONS; i++)
		play_action(p, &script[i], i + 1 < ACTIONS ? &script[i + 1] : NULL);
	while (fake_step(p->rig.fake)) /* what a last, aborted command left behind */
		;
	c = bh_disk_counters(p->rig.device);
	c.flushes = 0; /* no guest can tell whether one that it gave up was begun */
	note(p, &c, sizeof(c));
	memcpy(medium, p->rig.fake->bytes, SIZE);
	rig_close(&p->rig);
	return medium;
}

static const struct way oracle = {.name = "one packet a transfer", .cut = PACKET};

static const struct way ways[] = {
	{.name = "two packets", .cut = 2 * PACKET, .random = 7},
	{.name = "seven packets, cached", .cut = 7 * PACKET, .cached = true},
	{.name = "4 KiB", .cut = 4096, .random = 3},
	{.name = "4 KiB, early", .cut = 4096, .early = true, .cached = true},
	{.name = "64 KiB, cancels", .cut = 65536, .cancels = true, .random = 5},
	{.name = "packets, cancels", .cut = 3 * PACKET, .cancels = true, .random = 5},
	{.name = "120 KiB, crossing", .cut = 120 * 1024, .cross = true, .cached = true},
	{.name = "whole phases", .cut = LONGEST + 4096, .cross = true, .random = 9},
	{.name = "whole phases, early", .cut = LONGEST + 4096, .early = true, .cross = true, .random = 1},
};

static void test_equivalence(void **state)
{
	static uint8_t logs[2][LOG_MAX];
	struct play expected = {.log = logs[0]}, got = {.log = logs[1]};
	const char *rounds = getenv("BH_TEST_ROUNDS");
	uint32_t last = rounds ? (uint32_t)atoi(rounds) : 6;

	(void)state;
	for (uint32_t seed = 1; seed <= last; seed++) {
		uint8_t *medium = play(&expected, &oracle, seed);

		for (size_t i = 0; i < BH_COUNT(ways); i++) {
			uint8_t *other = play(&got, &ways[i], seed);

			if (got.log_length != expected.log_length ||
			    memcmp(got.log, expected.log, got.log_length))
				fail_msg("seed %u, %s: the guest sees something else", seed, ways[i].name);
			if (memcmp(medium, other, SIZE))
				fail_msg("seed %u, %s: the medium differs", seed, ways[i].name);
			free(other);
		}
		free(medium);
	}
}

/* A guest without manners: any bytes, any requests, transfers left lying about. Nothing may break. */
static void test_hostile_guest(void **state)
{
	static uint8_t data[64][8192];
	static struct flight flights[64];
	uint32_t s = 12345;
	struct rig r = rig_fake(SIZE, NULL);

	(void)state;
	r.fake->random = 17;
	for (size_t i = 0; i < BH_COUNT(flights); i++)
		flights[i].done = true;
	for (unsigned round = 0; round < 60000; round++) {
		struct flight *f = &flights[next_random(&s) % BH_COUNT(flights)];
		uint8_t *d = data[f - flights];
		uint8_t cdb[16];

		r.fake->cached = next_random(&s) % 2;
		switch (next_random(&s) % 8) {
		case 0:
		case 1:
			if (!f->done)
				break;
			fill_pattern(cdb, 16, next_random(&s) | 1);
			cdb[0] = "\x28\x2a\x12\x1a\x2f\x35\xa8\xaa\x88\x8a"[next_random(&s) % 10];
			if (next_random(&s) % 4)
				memset(cdb + 1, 0, 6);
			make_cbw(d, round, next_random(&s) % 3 ? next_random(&s) % 65536 : next_random(&s),
			         next_random(&s) % 2 ? HOST_IN : HOST_OUT, cdb, 16);
			launch(&r, f, OUT, d, 31);
			break;
		case 2:
			if (f->done)
				launch(&r, f, OUT, d, next_random(&s) % 8192 & (next_random(&s) % 4 ? ~63u : ~0u));
			break;
		case 3:
		case 4:
			if (f->done)
				launch(&r, f, IN, d, (1 + next_random(&s) % 127) * 64);
			break;
		case 5:
			if (!f->done)
				bh_device_cancel(r.device, &f->transfer);
			break;
		case 6:
			fake_step(r.fake);
			break;
		case 7:
			switch (next_random(&s) % 8) {
			case 0:
				recover(&r);
				break;
			case 1:
				bh_device_reset(r.device);
				configure(&r);
				break;
			case 2:
				configure(&r);
				break;
			case 3:
				clear_halt(&r, next_random(&s) % 2 ? IN : OUT);
				break;
			}
			break;
		}
	}
	rig_close(&r);
	for (size_t i = 0; i < BH_COUNT(flights); i++)
		assert_true(flights[i].done);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_equivalence),
		cmocka_unit_test(test_hostile_guest),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
