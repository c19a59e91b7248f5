#include "uhci.h"

#include "machine.h"

enum { USBCMD = 0, USBSTS = 2, USBINTR = 4, FRBASEADD = 8, SOFMOD = 12, PORTSC = 16 };
enum { RUN = 1, RESET = 2, CONFIGURED = 0x40, MAX64 = 0x80 };
enum { PORT_CONNECTED = 1, PORT_CHANGE = 2, PORT_ENABLED = 4, PORT_ENABLE_CHANGE = 8, PORT_RESET = 0x200 };
enum { TERMINATE = 1, QUEUE = 2, DEPTH = 4 };

#define ACTIVE (1u << 23)
#define STALLED (1u << 22)
#define IOC (1u << 24)
#define SPD (1u << 29)
#define THREE_TRIES (3u << 27)
#define BAD 0x00760000u
#define PATIENCE 60000u /* ticks: a packet at a time takes its time */

struct td {
	volatile uint32_t link, status, token, buffer;
	uint32_t unused[4];
};

static volatile uint32_t frames[1024] __attribute__((aligned(4096)));
static volatile uint32_t queue[4] __attribute__((aligned(16)));
static struct td tds[MOST_BYTES / PACKET + 8] __attribute__((aligned(32)));
static uint8_t buffer[512] __attribute__((aligned(64)));

static uint16_t base;
static uint8_t address, in_endpoint, out_endpoint, toggles[2], control_packet = 8;

static void ticks(unsigned n)
{
	while (n--)
		machine_tick();
}

static void put(unsigned n, uint32_t pid, uint32_t endpoint, uint32_t toggle, uint32_t length, void *data, uint32_t flags)
{
	tds[n].link = (uint32_t)&tds[n + 1] | DEPTH;
	tds[n].token = pid | (uint32_t)address << 8 | endpoint << 15 | toggle << 19 | ((length - 1) & 0x7ff) << 21;
	tds[n].buffer = (uint32_t)data;
	tds[n].status = ACTIVE | THREE_TRIES | flags | 0x7ff;
}

/* Runs n descriptors; returns how many ended, the last one perhaps short. */
static unsigned run_queue(unsigned n)
{
	unsigned done = 0, waited = 0;

	tds[n - 1].link = TERMINATE;
	queue[1] = (uint32_t)&tds[0];
	while (done < n) {
		uint32_t status = tds[done].status;

		if (status & ACTIVE) {
			if (++waited > PATIENCE)
				die("no end of a transfer", done);
			machine_tick();
			continue;
		}
		if (status & BAD)
			die("a packet failed", status);
		done++;
		if (status & SPD && ((status + 1) & 0x7ff) < (((tds[done - 1].token >> 21) + 1) & 0x7ff))
			break;
	}
	while (done == n && !(queue[1] & TERMINATE))
		machine_tick(); /* the queue is let go of after its descriptors */
	queue[1] = TERMINATE;
	return done;
}

static uint32_t moved(unsigned n)
{
	uint32_t bytes = 0;

	for (unsigned i = 0; i < n; i++)
		bytes += (tds[i].status + 1) & 0x7ff;
	return bytes;
}

/* The bytes of its data stage, in buffer. */
static uint32_t control(uint8_t type, uint8_t request, uint16_t value, uint16_t length)
{
	static uint8_t setup[8] __attribute__((aligned(8)));
	uint8_t bytes[8] = {type, request, (uint8_t)value, (uint8_t)(value >> 8), 0, 0, (uint8_t)length, (uint8_t)(length >> 8)};
	unsigned n = 0, done;
	uint32_t got;

	for (unsigned i = 0; i < 8; i++)
		setup[i] = bytes[i];
	put(n++, PID_SETUP, 0, 0, 8, setup, 0);
	for (uint32_t at = 0; at < length; at += control_packet, n++)
		put(n, PID_IN, 0, n & 1, length - at < control_packet ? length - at : control_packet, buffer + at, SPD);
	if (!length) {
		put(n++, PID_IN, 0, 1, 0, buffer, IOC);
		run_queue(n);
		return 0;
	}
	done = run_queue(n);
	got = moved(done) - 8;
	put(0, PID_OUT, 0, 1, 0, buffer, IOC);
	run_queue(1);
	return got;
}

static void descriptor(uint8_t type, uint16_t length)
{
	if (control(0x80, 6, (uint16_t)(type << 8), length) != length)
		die("a descriptor is short", type);
}

static void find_endpoints(uint16_t total)
{
	for (uint16_t at = 0; at + 2 < total && buffer[at]; at += buffer[at]) {
		if (buffer[at + 1] != 5 || (buffer[at + 3] & 3) != 2)
			continue;
		if (buffer[at + 4] != PACKET)
			die("packets of another size", buffer[at + 4]);
		*(buffer[at + 2] & 0x80 ? &in_endpoint : &out_endpoint) = buffer[at + 2] & 15;
	}
	if (!in_endpoint || !out_endpoint)
		die("no bulk endpoints", total);
}

static void enumerate(void)
{
	uint16_t total;

	descriptor(1, 8);
	control_packet = buffer[7];
	control(0x00, 5, 1, 0);
	ticks(10);
	address = 1;
	descriptor(1, 18);
	say("device %x:%x", (uint32_t)(buffer[8] | buffer[9] << 8), (uint32_t)(buffer[10] | buffer[11] << 8));
	descriptor(2, 9);
	total = (uint16_t)(buffer[2] | buffer[3] << 8);
	if (total > sizeof(buffer))
		die("its configuration is too long", total);
	descriptor(2, total);
	find_endpoints(total);
	control(0x00, 9, buffer[5], 0);
}

static void reset_port(void)
{
	unsigned waited = 0;

	while (!(inw(base + PORTSC) & PORT_CONNECTED)) {
		if (++waited > PATIENCE)
			die("nothing is plugged in", inw(base + PORTSC));
		machine_tick();
	}
	outw(base + PORTSC, PORT_RESET);
	ticks(60);
	outw(base + PORTSC, 0);
	ticks(10);
	outw(base + PORTSC, PORT_ENABLED | PORT_CHANGE | PORT_ENABLE_CHANGE);
	ticks(20);
	if (!(inw(base + PORTSC) & PORT_ENABLED))
		die("the port is not enabled", inw(base + PORTSC));
}

/* The first UHCI on bus 0 (class 0c0300). */
static void find(void)
{
	for (unsigned slot = 0; slot < 32 * 8; slot++) {
		unsigned device = slot / 8, function = slot % 8;

		if (pci_read(device, function, 0) == 0xffffffff || pci_read(device, function, 8) >> 8 != 0x0c0300)
			continue;
		pci_write(device, function, 4, (pci_read(device, function, 4) & 0xffff) | 5); /* I/O space, bus master */
		base = (uint16_t)(pci_read(device, function, 0x20) & 0xffe0);
		say("controller %x at %x", pci_read(device, function, 0), base);
		return;
	}
	die("no UHCI", 0);
}

void uhci_begin(void)
{
	find();
	outw(base + USBCMD, RESET);
	ticks(10);
	if (inw(base + USBCMD) & RESET)
		die("the controller does not leave its reset", 0);
	queue[0] = queue[1] = TERMINATE;
	for (unsigned i = 0; i < 1024; i++)
		frames[i] = (uint32_t)queue | QUEUE;
	outl(base + FRBASEADD, (uint32_t)frames);
	outw(base + USBINTR, 0);
	outw(base + USBCMD, RUN | CONFIGURED | MAX64);
	reset_port();
	enumerate();
}

uint32_t uhci_bulk(uint32_t pid, void *data, uint32_t length)
{
	uint8_t *toggle = &toggles[pid == PID_IN];
	unsigned n = 0, done;

	for (uint32_t at = 0; at < length; at += PACKET, n++) {
		uint32_t part = length - at < PACKET ? length - at : PACKET;

		put(n, pid, pid == PID_IN ? in_endpoint : out_endpoint, (*toggle + n) & 1, part, (uint8_t *)data + at,
		    pid == PID_IN ? SPD : 0);
	}
	tds[n - 1].status |= IOC;
	tds[n - 1].status &= ~SPD;
	done = run_queue(n);
	*toggle = (*toggle + done) & 1;
	return moved(done);
}
