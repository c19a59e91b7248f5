/*
 * A whole guest, for measuring: it finds a UHCI and a disk in its first port, writes a pattern to
 * the disk, reads it back, and says on the serial port when each begins and ends, and what the
 * bytes came to. Nothing in it is slower on one controller than on the other: it looks at memory,
 * once a millisecond, and at no register.
 */
#include "machine.h"
#include "uhci.h"

#ifndef KILOBYTES
#define KILOBYTES 480 /* each way; a multiple of 120 */
#endif
#define PIECE MOST_BYTES /* of a command: 240 blocks, what Linux's usb-storage sends at most */

struct __attribute__((packed)) cbw {
	uint32_t signature, tag, length;
	uint8_t flags, lun, cdb_length, cdb[16];
};

static uint8_t data[PIECE] __attribute__((aligned(4096)));
static struct cbw cbw __attribute__((aligned(64)));
static uint8_t csw[64] __attribute__((aligned(64)));

/* Bulk-only transport (5.1 to 5.3); true: the command passed. */
static bool command(const uint8_t *cdb, uint8_t cdb_length, uint32_t pid, void *bytes, uint32_t length)
{
	cbw = (struct cbw){0x43425355, cbw.tag + 1, length, pid == PID_IN ? 0x80 : 0, 0, cdb_length, {0}};
	for (unsigned i = 0; i < cdb_length; i++)
		cbw.cdb[i] = cdb[i];
	uhci_bulk(PID_OUT, &cbw, 31);
	if (length && uhci_bulk(pid, bytes, length) != length)
		die("data came short", cdb[0]);
	if (uhci_bulk(PID_IN, csw, 13) != 13)
		die("no status", cdb[0]);
	return csw[12] == 0;
}

static void wait_ready(void)
{
	uint8_t test[6] = {0}, sense[6] = {0x03, 0, 0, 0, 18, 0}, answer[64] __attribute__((aligned(64)));

	for (unsigned tries = 0; !command(test, 6, PID_IN, 0, 0); tries++) {
		if (tries > 50)
			die("the disk does not get ready", 0);
		command(sense, 6, PID_IN, answer, 18);
	}
}

static void transfer(uint8_t operation, uint32_t block)
{
	uint8_t cdb[10] = {operation, 0, (uint8_t)(block >> 24), (uint8_t)(block >> 16), (uint8_t)(block >> 8), (uint8_t)block, 0,
	                   PIECE / 512 >> 8, PIECE / 512 & 0xff, 0};

	if (!command(cdb, 10, operation == 0x2a ? PID_OUT : PID_IN, data, PIECE))
		die("a command failed", operation);
}

/* FNV-1a, 32 bits. */
static uint32_t sum(uint32_t hash)
{
	for (uint32_t i = 0; i < PIECE; i++)
		hash = (hash ^ data[i]) * 16777619u;
	return hash;
}

static void fill(uint32_t *seed)
{
	for (uint32_t i = 0; i < PIECE; i++) {
		*seed = *seed * 1664525u + 1013904223u;
		data[i] = (uint8_t)(*seed >> 24);
	}
}

/* Hashing is not measured: only what lies between two lines is. */
static void move(const char *what, uint8_t operation)
{
	uint32_t seed = 1, hash = 2166136261u;

	for (uint32_t piece = 0; piece < KILOBYTES * 1024u / PIECE; piece++) {
		if (operation == 0x2a) {
			fill(&seed);
			hash = sum(hash);
		}
		say("begin %s", what);
		transfer(operation, piece * (PIECE / 512));
		say("end %s %u", what, PIECE);
		if (operation == 0x28)
			hash = sum(hash);
	}
	say("sum %s %x", what, hash);
}

void run(void)
{
	machine_begin();
	uhci_begin();
	wait_ready();
	move("write", 0x2a);
	move("read", 0x28);
	say("done");
	machine_end(0);
}
