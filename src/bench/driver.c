/*
 * UHCI 1.1, from the other side: registers by their offsets in the guide,
 * descriptors written as a driver writes them. It shares no definition with the
 * controller, on purpose: a mistake there would be made here too.
 */
#include "driver.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/bytes.h>
#include <base/util.h>

/* 2.1 registers */
#define BAR         4u
#define USBCMD      0x00u
#define USBSTS      0x02u
#define USBINTR     0x04u
#define FRNUM       0x06u
#define FRBASEADD   0x08u
#define PORTSC1     0x10u
#define RUN         0x0001u
#define ALL_STATUS  0x003fu
#define ALL_CAUSES  0x000fu
#define USBINT      0x0001u
#define HALTED      0x0020u
#define CONNECTED   0x0001u
#define ENABLED     0x0004u
#define PORT_RESET  0x0200u

/* 3.1 to 3.3 links; 3.2.2 control and status */
#define TERMINATE   1u
#define QUEUE       2u
#define ACTIVE      (1u << 23)
#define ERRORS      0x007e0000u
#define IOC         (1u << 24)
#define THREE_TRIES (3u << 27)
#define SPD         (1u << 29)
#define LENGTH_MASK 0x7ffu

/* Packet identifiers (USB 2.0, 8.3.1), requests (9.4) */
#define PID_OUT           0xe1u
#define PID_IN            0x69u
#define PID_SETUP         0x2du
#define SET_ADDRESS       5u
#define SET_CONFIGURATION 9u

#define ADDRESS 1u

/* Guest memory: the frame list, one queue head, and then packets' worth of everything. */
#define FRAMES           1024u
#define FRAME_LIST       0x1000u
#define QUEUE_HEAD       0x2000u
#define DESCRIPTORS      0x10000u
#define DESCRIPTOR_SIZE  32u /* 16 for the controller; drivers keep their own things beside */
#define PAGE             4096u
#define RESET_HOLD_US    50000u
#define CONTROL_US       1000000u

/* --- memory ------------------------------------------------------------------------------- */

/* Any numbers do, as long as they are always the same. */
static uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

/* An order in which count pieces of size bytes, from base on, are handed out. */
static void scatter(uint32_t *addresses, uint32_t count, uint32_t base, uint32_t size)
{
	uint32_t state = 1;

	for (uint32_t i = 0; i < count; i++)
		addresses[i] = base + i * size;
	for (uint32_t i = count; i > 1; i--) {
		uint32_t other = next_random(&state) % i, address = addresses[i - 1];

		addresses[i - 1] = addresses[other];
		addresses[other] = address;
	}
}

/*
 * Pages lie anywhere; the pieces of a page lie one after the other, as data does, and
 * descriptors of a pool that gives the most recently freed first.
 */
static int place(uint32_t *addresses, uint32_t count, uint32_t size, uint32_t base)
{
	const uint32_t in_page = PAGE / size, pages = (count + in_page - 1) / in_page;
	uint32_t *page = calloc(pages, sizeof(*page));

	if (!page)
		return -ENOMEM;
	scatter(page, pages, base, PAGE);
	for (uint32_t i = 0; i < count; i++)
		addresses[i] = page[i / in_page] + i % in_page * size;
	free(page);
	return 0;
}

static uint32_t round_up(uint32_t value, uint32_t to)
{
	return (value + to - 1) / to * to;
}

static int make_memory(struct bh_driver *d)
{
	uint32_t n = d->most_packets, buffers = DESCRIPTORS + round_up(n * DESCRIPTOR_SIZE, PAGE);
	int r;

	d->descriptors = calloc(n, sizeof(*d->descriptors));
	d->buffers = calloc(n, sizeof(*d->buffers));
	d->packets = calloc(n, sizeof(*d->packets));
	if (!d->descriptors || !d->buffers || !d->packets)
		return -ENOMEM;
	r = place(d->descriptors, n, DESCRIPTOR_SIZE, DESCRIPTORS);
	if (!r)
		r = place(d->buffers, n, BH_DRIVER_PACKET, buffers);
	return r ? r
	         : bh_bench_guest_init(&d->guest, buffers + round_up(n * BH_DRIVER_PACKET, PAGE), BH_DRIVER_EPOCH_US);
}

static void put32(struct bh_driver *d, uint32_t address, uint32_t value)
{
	bh_bench_guest_put32(&d->guest, address, value);
}

static uint32_t get32(const struct bh_driver *d, uint32_t address)
{
	return bh_bench_guest_get32(&d->guest, address);
}

/* --- registers ----------------------------------------------------------------------------- */

static uint16_t inw(struct bh_driver *d, unsigned offset)
{
	bh_le16 raw;

	bh_pci_bar_read(bh_uhci_pci(d->uhci), BAR, offset, raw.b, sizeof(raw));
	return bh_get_le16(raw);
}

static void outw(struct bh_driver *d, unsigned offset, uint16_t value)
{
	bh_le16 raw = bh_put_le16(value);

	bh_pci_bar_write(bh_uhci_pci(d->uhci), BAR, offset, raw.b, sizeof(raw));
}

static void outl(struct bh_driver *d, unsigned offset, uint32_t value)
{
	bh_le32 raw = bh_put_le32(value);

	bh_pci_bar_write(bh_uhci_pci(d->uhci), BAR, offset, raw.b, sizeof(raw));
}

/* --- time ------------------------------------------------------------------------------------ */

static void run_world(struct bh_driver *d)
{
	if (d->world.run)
		d->world.run(d->world.data, d->guest.now_us);
}

static uint64_t next_event(const struct bh_driver *d)
{
	uint64_t at = d->guest.run_at_us;

	if (d->world.deadline)
		at = BH_MIN(at, d->world.deadline(d->world.data));
	return BH_MAX(at, d->guest.now_us);
}

/* What an interrupt handler does first. */
static void acknowledge(struct bh_driver *d)
{
	uint16_t status = inw(d, USBSTS);

	d->told |= status;
	outw(d, USBSTS, status);
}

bool bh_driver_step(struct bh_driver *d, uint64_t until_us)
{
	struct bh_bench_guest *g = &d->guest;
	uint64_t at = next_event(d);

	if (at > until_us) {
		g->now_us = BH_MAX(g->now_us, until_us);
		return false;
	}
	g->now_us = at;
	run_world(d);
	if (g->run_at_us <= at) {
		g->run_at_us = UINT64_MAX;
		bh_uhci_run(d->uhci);
	}
	if (g->line)
		acknowledge(d);
	return true;
}

void bh_driver_advance(struct bh_driver *d, uint64_t to_us)
{
	while (next_event(d) < to_us)
		bh_driver_step(d, to_us);
	d->guest.now_us = BH_MAX(d->guest.now_us, to_us);
}

int bh_driver_wait(struct bh_driver *d, uint64_t most_us, uint64_t *ret_us)
{
	uint64_t begin = d->guest.now_us;

	while (!bh_driver_done(d))
		if (!bh_driver_step(d, begin + most_us))
			return -ETIMEDOUT;
	*ret_us = d->guest.now_us - begin;
	return 0;
}

/* --- queues ------------------------------------------------------------------------------------ */

static uint32_t token(uint32_t pid, uint32_t address, uint32_t endpoint, bool toggle, uint32_t length)
{
	return pid | address << 8 | endpoint << 15 | (uint32_t)toggle << 19 | ((length - 1) & LENGTH_MASK) << 21;
}

static void begin_queue(struct bh_driver *d)
{
	d->packet_count = 0;
}

static struct bh_driver_packet *add_packet(struct bh_driver *d, uint32_t tok, uint32_t length, bool last)
{
	uint32_t n = d->packet_count++, control = ACTIVE | THREE_TRIES;
	struct bh_driver_packet *p = &d->packets[n];

	assert(n < d->most_packets && length <= BH_DRIVER_PACKET);
	*p = (struct bh_driver_packet){.descriptor = d->descriptors[n], .buffer = d->buffers[n], .length = length};
	if (last)
		control |= IOC;
	else if ((tok & 0xff) == PID_IN)
		control |= SPD;
	put32(d, p->descriptor, TERMINATE);
	put32(d, p->descriptor + 4, control);
	put32(d, p->descriptor + 8, tok);
	put32(d, p->descriptor + 12, p->buffer);
	if (n)
		put32(d, d->packets[n - 1].descriptor, p->descriptor);
	return p;
}

void bh_driver_build(struct bh_driver *d, uint8_t endpoint, uint32_t max_packet, uint32_t length)
{
	bool in = endpoint & BH_ENDPOINT_IN, *toggle = &d->toggles[in][endpoint & 15];
	uint32_t left = length;

	begin_queue(d);
	do {
		uint32_t part = BH_MIN(left, max_packet);

		left -= part;
		add_packet(d, token(in ? PID_IN : PID_OUT, ADDRESS, endpoint & 15, *toggle, part), part, left == 0);
		*toggle = !*toggle;
	} while (left);
}

uint8_t *bh_driver_bytes(struct bh_driver *d, uint32_t packet, uint32_t *ret_length)
{
	assert(packet < d->packet_count);
	*ret_length = d->packets[packet].length;
	return d->guest.memory + d->packets[packet].buffer;
}

void bh_driver_link(struct bh_driver *d)
{
	d->told = 0;
	put32(d, QUEUE_HEAD + 4, d->packets[0].descriptor);
}

bool bh_driver_done(const struct bh_driver *d)
{
	uint32_t element = get32(d, QUEUE_HEAD + 4);

	if (!(get32(d, d->packets[d->packet_count - 1].descriptor + 4) & ACTIVE))
		return true;
	/* One before the last may have stopped the queue. */
	return !(element & TERMINATE) && !(get32(d, element + 4) & ACTIVE);
}

static bool packet_is_good(const struct bh_driver *d, const struct bh_driver_packet *p)
{
	uint32_t control = get32(d, p->descriptor + 4);

	return !(control & (ACTIVE | ERRORS)) && ((control + 1) & LENGTH_MASK) == p->length;
}

bool bh_driver_check(struct bh_driver *d)
{
	bool good = d->told & USBINT;

	for (uint32_t i = 0; i < d->packet_count; i++)
		good &= packet_is_good(d, &d->packets[i]);
	if (!good)
		put32(d, QUEUE_HEAD + 4, TERMINATE);
	return good;
}

/* --- setting up ------------------------------------------------------------------------------------ */

/* A request without data, to a device that has the given address. */
static int request(struct bh_driver *d, uint32_t address, uint8_t what, uint8_t value)
{
	const struct bh_setup setup = {.bRequest = what, .wValue = bh_put_le16(value)};
	struct bh_driver_packet *p;
	uint64_t took;

	begin_queue(d);
	p = add_packet(d, token(PID_SETUP, address, 0, false, sizeof(setup)), sizeof(setup), false);
	memcpy(d->guest.memory + p->buffer, &setup, sizeof(setup));
	add_packet(d, token(PID_IN, address, 0, true, 0), 0, true);
	bh_driver_link(d);
	if (bh_driver_wait(d, CONTROL_US, &took) || !bh_driver_check(d))
		return -EIO;
	return 0;
}

static void start_controller(struct bh_driver *d)
{
	const bh_le16 command = bh_put_le16(0x0005); /* I/O space, bus master */

	for (uint32_t i = 0; i < FRAMES; i++)
		put32(d, FRAME_LIST + 4 * i, QUEUE_HEAD | QUEUE);
	put32(d, QUEUE_HEAD, TERMINATE);
	put32(d, QUEUE_HEAD + 4, TERMINATE);
	bh_pci_config_write(bh_uhci_pci(d->uhci), 4, command.b, sizeof(command));
	outw(d, USBSTS, ALL_STATUS);
	outl(d, FRBASEADD, FRAME_LIST);
	outw(d, FRNUM, 0);
	outw(d, USBINTR, ALL_CAUSES);
	outw(d, USBCMD, RUN);
}

static void reset_port(struct bh_driver *d)
{
	outw(d, PORTSC1, PORT_RESET);
	bh_driver_advance(d, d->guest.now_us + RESET_HOLD_US);
	outw(d, PORTSC1, 0);
	outw(d, PORTSC1, ENABLED);
}

int bh_driver_attach(struct bh_driver *d, struct bh_device *device)
{
	int r = bh_bus_attach(bh_uhci_bus(d->uhci), 0, device);

	if (r) {
		bh_device_destroy(device);
		return r;
	}
	run_world(d);
	start_controller(d);
	reset_port(d);
	if (!(inw(d, PORTSC1) & CONNECTED) || (inw(d, USBSTS) & HALTED))
		return -EIO;
	r = request(d, 0, SET_ADDRESS, ADDRESS);
	return r ? r : request(d, ADDRESS, SET_CONFIGURATION, 1);
}

int bh_driver_init(struct bh_driver *d, const struct bh_uhci_config *config, uint32_t most_packets,
                   const struct bh_driver_world *world)
{
	int r;

	*d = (struct bh_driver){.most_packets = BH_MAX(most_packets, 2u)};
	if (world)
		d->world = *world;
	r = make_memory(d);
	if (!r) {
		d->uhci = bh_uhci_create(&d->guest.guest, config);
		r = d->uhci ? 0 : -ENOMEM;
	}
	if (r)
		bh_driver_finish(d);
	return r;
}

void bh_driver_finish(struct bh_driver *d)
{
	bh_uhci_destroy(d->uhci);
	bh_bench_guest_finish(&d->guest);
	free(d->descriptors);
	free(d->buffers);
	free(d->packets);
	*d = (struct bh_driver){0};
}
