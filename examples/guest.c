/*
 * The program that the toy machine of emulator.c runs: a driver for UHCI and a USB disk, in
 * as few words as will do. It knows the machine (machine.h) and nothing of Bulkhead.
 *
 * It reads the disk, complements every byte, writes it back, reads it again and compares. A
 * disk command is one queue of transfer descriptors: 31 bytes of command, up to 2048 packets
 * of data, 13 bytes of status, and one interrupt at the end of it all. No error recovery.
 *
 * UHCI Design Guide 1.1; USB Mass Storage Bulk-Only Transport 1.0; SBC-3.
 */
#include "machine.h"

#include <stdio.h>
#include <string.h>

/* Registers */
#define USBCMD       (USB_PORT + 0x00)
#define USBSTS       (USB_PORT + 0x02)
#define USBINTR      (USB_PORT + 0x04)
#define FRBASEADD    (USB_PORT + 0x08)
#define PORTSC       (USB_PORT + 0x10)
#define RUN          0x0001u
#define HCRESET      0x0002u
#define PORT_ENABLED 0x0004u
#define PORT_RESET   0x0200u

/* Where things are in memory */
#define FRAME_LIST 0x1000u
#define QUEUE      0x2000u
#define SETUP      0x3000u
#define COMMAND    0x3040u
#define STATUS     0x3080u
#define TDS        0x10000u
#define DATA       0x100000u /* 128 KB to work on, and as much again to compare with */
#define CHUNK      0x20000u

/* Descriptors */
#define TERMINATE 1u
#define QUEUE_BIT 2u
#define DEPTH     4u
#define ACTIVE    0x00800000u
#define ERRORS    0x00760000u
#define IOC       0x01000000u
#define IN        0x69u
#define OUT       0xe1u
#define SETUP_PID 0x2du

enum { READ_CAPACITY = 0x25, READ = 0x28, WRITE = 0x2a, FLUSH = 0x35 };

struct driver {
	struct machine *m;
	uint8_t *ram;
	unsigned address, toggle_in, toggle_out;
	uint32_t tds; /* in the queue that is being made */
};

static void put32(struct driver *d, uint32_t address, uint32_t value)
{
	for (int i = 0; i < 4; i++)
		d->ram[address + i] = (uint8_t)(value >> 8 * i);
}

static uint32_t get32(const struct driver *d, uint32_t address)
{
	const uint8_t *b = d->ram + address;

	return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

/* --- the controller ------------------------------------------------------------------------ */

/* Puts packets for length bytes at the end of the queue; one empty packet if there are none. */
static void queue(struct driver *d, unsigned pid, unsigned endpoint, unsigned *toggle, uint32_t buffer, uint32_t length)
{
	do {
		uint32_t td = TDS + 16 * d->tds++, packet = length < 64 ? length : 64;

		put32(d, td, (td + 16) | DEPTH);
		put32(d, td + 4, ACTIVE | 3u << 27);
		put32(d, td + 8, pid | d->address << 8 | endpoint << 15 | *toggle << 19 | ((packet - 1) & 0x7ff) << 21);
		put32(d, td + 12, buffer);
		*toggle ^= 1;
		buffer += packet;
		length -= packet;
	} while (length);
}

/* Lets the controller have the queue, and waits for the interrupt of its last descriptor. */
static bool run_queue(struct driver *d)
{
	uint32_t last = TDS + 16 * (d->tds - 1);

	put32(d, last, TERMINATE);
	put32(d, last + 4, get32(d, last + 4) | IOC);
	put32(d, QUEUE + 4, TDS);
	d->tds = 0;
	if (!machine_halt(d->m, 10 * 1000000))
		return false;
	machine_out(d->m, USBSTS, 2, 0x3f);
	return !(get32(d, last + 4) & (ACTIVE | ERRORS));
}

/* A control request without data: SETUP, then an empty IN. */
static bool control(struct driver *d, uint8_t request, uint8_t value)
{
	unsigned toggle = 0;

	memcpy(d->ram + SETUP, (const uint8_t[8]){0, request, value}, 8);
	queue(d, SETUP_PID, 0, &toggle, SETUP, 8);
	queue(d, IN, 0, &toggle, 0, 0);
	return run_queue(d);
}

static bool find_disk(struct driver *d)
{
	machine_out(d->m, USBCMD, 2, HCRESET);
	for (unsigned i = 0; i < 1024; i++)
		put32(d, FRAME_LIST + 4 * i, QUEUE | QUEUE_BIT);
	put32(d, QUEUE, TERMINATE);
	put32(d, QUEUE + 4, TERMINATE);
	machine_out(d->m, FRBASEADD, 4, FRAME_LIST);
	machine_out(d->m, USBINTR, 2, 0xf);
	machine_out(d->m, USBCMD, 2, RUN);

	machine_out(d->m, PORTSC, 2, PORT_RESET);
	machine_halt(d->m, 50000);
	machine_out(d->m, PORTSC, 2, 0);
	machine_out(d->m, PORTSC, 2, PORT_ENABLED);
	if (!(machine_in(d->m, PORTSC, 2) & PORT_ENABLED) || !control(d, 5, 1)) /* SET_ADDRESS 1 */
		return false;
	d->address = 1;
	return control(d, 9, 1); /* SET_CONFIGURATION 1 */
}

/* --- the disk: bulk IN is its endpoint 1, bulk OUT its endpoint 2 ---------------------------- */

static bool command(struct driver *d, uint8_t operation, uint32_t block, uint32_t buffer, uint32_t length)
{
	uint8_t *c = d->ram + COMMAND;
	bool out = operation == WRITE;

	memset(c, 0, 31);
	memcpy(c, "USBC", 4);
	put32(d, COMMAND + 8, length);
	c[12] = out ? 0x00 : 0x80;
	c[14] = 10;
	c[15] = operation;
	for (int i = 0; i < 4; i++)
		c[17 + i] = (uint8_t)(block >> (24 - 8 * i));
	if (operation == READ || operation == WRITE) {
		c[22] = (uint8_t)(length / 512 >> 8);
		c[23] = (uint8_t)(length / 512);
	}
	queue(d, OUT, 2, &d->toggle_out, COMMAND, 31);
	if (length)
		queue(d, out ? OUT : IN, out ? 2 : 1, out ? &d->toggle_out : &d->toggle_in, buffer, length);
	queue(d, IN, 1, &d->toggle_in, STATUS, 13);
	return run_queue(d) && !memcmp(d->ram + STATUS, "USBS", 4) && d->ram[STATUS + 12] == 0;
}

/* Reads a piece, complements it, writes it, reads it again and compares. Adds up what time that took. */
static bool work_on(struct driver *d, uint32_t block, uint32_t length, uint64_t *read_us, uint64_t *write_us)
{
	uint64_t start = machine_now_us(d->m), middle;

	if (!command(d, READ, block, DATA, length))
		return false;
	*read_us += machine_now_us(d->m) - start;
	for (uint32_t i = 0; i < length; i++)
		d->ram[DATA + i] ^= 0xff;
	start = machine_now_us(d->m);
	if (!command(d, WRITE, block, DATA, length))
		return false;
	middle = machine_now_us(d->m);
	*write_us += middle - start;
	if (!command(d, READ, block, DATA + CHUNK, length))
		return false;
	*read_us += machine_now_us(d->m) - middle;
	return !memcmp(d->ram + DATA, d->ram + DATA + CHUNK, length);
}

bool guest_main(struct machine *m)
{
	struct driver d = {.m = m, .ram = machine_ram(m)};
	uint64_t read_us = 1, write_us = 1;
	uint32_t blocks, done;

	if (!find_disk(&d) || !command(&d, READ_CAPACITY, 0, DATA, 8)) {
		printf("guest: no disk found\n");
		return false;
	}
	blocks = ((uint32_t)d.ram[DATA] << 24 | d.ram[DATA + 1] << 16 | d.ram[DATA + 2] << 8 | d.ram[DATA + 3]) + 1;
	for (done = 0; done < blocks; done += CHUNK / 512) {
		uint32_t length = blocks - done < CHUNK / 512 ? (blocks - done) * 512 : CHUNK;

		if (!work_on(&d, done, length, &read_us, &write_us)) {
			printf("guest: wrong, somewhere from block %u on\n", (unsigned)done);
			return false;
		}
	}
	if (!command(&d, FLUSH, 0, 0, 0)) {
		printf("guest: the disk did not flush\n");
		return false;
	}
	machine_out(m, USBCMD, 2, 0);
	printf("guest: %u blocks complemented and compared; read %.1f MB/s, written %.1f MB/s\n", (unsigned)blocks,
	       2 * 512.0 * blocks / (double)read_us, 512.0 * blocks / (double)write_us);
	return true;
}
