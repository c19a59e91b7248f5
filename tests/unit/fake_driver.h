/*
 * The guest's driver, as far as tests need one: a UHCI with its registers, queues and
 * descriptors at fixed places in a fake guest's memory, and time that passes when the
 * test says so. No enumeration: devices stay at address 0, or where the test puts them.
 *
 * BUFFER_SIZE may be defined before; the room of a descriptor's buffer.
 */
#ifndef TESTS_FAKE_DRIVER_H
#define TESTS_FAKE_DRIVER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <uhci/uhci.h>

#include "../../src/controller/uhci/uhci_regs.h"
#include "fake_guest.h"

#ifndef BUFFER_SIZE
#define BUFFER_SIZE 64u
#endif

#define FRAME_LIST 0x10000u
#define QH(n)      (0x20000u + 16u * (n))
#define TD(n)      (0x30000u + 16u * (n))
#define BUFFER(n)  (0x40000u + BUFFER_SIZE * (n))

#define ACTIVE (TD_ACTIVE | TD_CERR)
#define ONCE   (TD_ACTIVE | TD_CERR_ONE) /* one try */
#define ENDED  (TD_ACTIVE | TD_STATUS)   /* how a descriptor ended, if it did */
#define LOST   (TD_STALLED | TD_CRC_TIMEOUT)
#define ALL    (USBINTR_IOC | USBINTR_SHORT | USBINTR_CRC | USBINTR_RESUME)

static struct fake_guest guest;
static struct bh_uhci *uhci;

/* --- registers -------------------------------------------------------------------------- */

static inline uint32_t in(unsigned offset, unsigned length)
{
	bh_le32 raw = {{0}};

	bh_pci_bar_read(bh_uhci_pci(uhci), UHCI_BAR, offset, raw.b, length);
	return bh_get_le32(raw);
}

static inline void out(unsigned offset, unsigned length, uint32_t value)
{
	bh_le32 raw = bh_put_le32(value);

	bh_pci_bar_write(bh_uhci_pci(uhci), UHCI_BAR, offset, raw.b, length);
}

static inline uint16_t inw(unsigned offset)
{
	return (uint16_t)in(offset, 2);
}

static inline void outw(unsigned offset, uint32_t value)
{
	out(offset, 2, value);
}

static inline void bus_master(bool on)
{
	uint8_t command[2] = {on ? 0x05 : 0x01, 0}; /* I/O space, bus master */

	bh_pci_config_write(bh_uhci_pci(uhci), 4, command, 2);
}

/* Every interrupt, the schedule at FRAME_LIST. */
static inline void run(void)
{
	outw(USBINTR, ALL);
	out(FRBASEADD, 4, FRAME_LIST);
	outw(USBCMD, USBCMD_RS | USBCMD_CF | USBCMD_MAXP);
}

/* The device there is reset, and back at address 0. */
static inline void enable_port(unsigned port)
{
	outw(PORTSC + 2 * port, PORTSC_PR);
	outw(PORTSC + 2 * port, 0);
	outw(PORTSC + 2 * port, PORTSC_PE | PORTSC_CSC | PORTSC_PEC);
}

/* --- time ------------------------------------------------------------------------------- */

/* Time passes; the controller runs whenever it asked to. */
static inline void pass_us(uint64_t us)
{
	uint64_t until = guest.now_us + us;

	while (guest.run_at_us != UINT64_MAX && BH_MAX(guest.run_at_us, guest.now_us) <= until) {
		guest.now_us = BH_MAX(guest.run_at_us, guest.now_us);
		guest.run_at_us = UINT64_MAX;
		bh_uhci_run(uhci);
	}
	guest.now_us = until;
}

static inline void frames(unsigned n)
{
	pass_us(1000 * n);
}

/* --- the schedule ----------------------------------------------------------------------- */

static inline uint32_t token(uint32_t pid, unsigned address, unsigned endpoint, unsigned toggle, unsigned length)
{
	return pid | address << 8 | endpoint << 15 | toggle << 19 | ((length - 1) & 0x7ff) << 21;
}

static inline void put_td(uint32_t at, uint32_t link, uint32_t control, uint32_t tok, uint32_t buffer)
{
	fake_put32(&guest, at, link);
	fake_put32(&guest, at + 4, control);
	fake_put32(&guest, at + 8, tok);
	fake_put32(&guest, at + 12, buffer);
}

static inline void put_qh(uint32_t at, uint32_t link, uint32_t element)
{
	fake_put32(&guest, at, link);
	fake_put32(&guest, at + 4, element);
}

static inline void td(unsigned n, uint32_t link, uint32_t control, uint32_t tok)
{
	put_td(TD(n), link, control, tok, BUFFER(n));
}

static inline void qh(unsigned n, uint32_t link, uint32_t element)
{
	put_qh(QH(n), link, element);
}

static inline void frame_list(uint32_t link)
{
	for (unsigned i = 0; i < FRAME_LIST_SIZE; i++)
		fake_put32(&guest, FRAME_LIST + 4 * i, link);
}

static inline uint32_t link_of(unsigned n)
{
	return fake_get32(&guest, TD(n));
}

static inline uint32_t control_of(unsigned n)
{
	return fake_get32(&guest, TD(n) + 4);
}

static inline uint32_t element_of(unsigned n)
{
	return fake_get32(&guest, QH(n) + 4);
}

/* Bytes moved, as the descriptor says. */
static inline uint32_t actual_of(unsigned n)
{
	return (control_of(n) + 1) & TD_ACTLEN;
}

/* What the buffer of a descriptor of fill_queue() holds: no two neighbours, or descriptors, alike. */
static inline uint8_t fill_byte(unsigned n, unsigned k)
{
	return (uint8_t)(37 * n + k + 1);
}

/* n packets of 64 bytes to address 0, from descriptor first on, in queue q. */
static inline void fill_queue(unsigned q, unsigned first, unsigned n, uint32_t pid, unsigned endpoint, uint32_t flags)
{
	for (unsigned i = first; i < first + n; i++) {
		td(i, i + 1 < first + n ? TD(i + 1) : LINK_T, ACTIVE | flags,
		   token(pid, 0, endpoint, (i - first) & 1, 64));
		for (unsigned k = 0; k < 64; k++)
			guest.memory[BUFFER(i) + k] = fill_byte(i, k);
	}
	qh(q, LINK_T, TD(first));
}

/* The same, and no other queue. */
static inline void only_queue(uint32_t pid, unsigned endpoint, unsigned n, uint32_t flags)
{
	fill_queue(0, 0, n, pid, endpoint, flags);
	frame_list(QH(0) | LINK_Q);
}

/* SETUP to the device at an address. */
static inline void setup_packet(unsigned n, uint32_t link, unsigned address, const char *bytes)
{
	memcpy(guest.memory + BUFFER(n), bytes, 8);
	td(n, link, ACTIVE, token(BH_PID_SETUP, address, 0, 0, 8));
}

/* A request without data to address 0, alone in the schedule, in queue 7. It may go unanswered. */
static inline void request(const char *bytes)
{
	setup_packet(200, TD(201), 0, bytes);
	td(201, LINK_T, ACTIVE, token(BH_PID_IN, 0, 0, 1, 0));
	qh(7, LINK_T, TD(200));
	frame_list(QH(7) | LINK_Q);
	frames(1);
}

/* --- the machine ------------------------------------------------------------------------ */

static inline struct bh_engine_counters *engine(void)
{
	return &bh_uhci_bus(uhci)->engine.counters;
}

/* A guest with an empty schedule, and a controller that may access its memory, halted. */
static inline void machine(const struct bh_uhci_config *config)
{
	fake_guest_init(&guest);
	uhci = bh_uhci_create(&guest.guest, config);
	assert_non_null(uhci);
	bus_master(true);
	frame_list(LINK_T);
}

static inline void machine_finish(void)
{
	bh_uhci_destroy(uhci);
	uhci = NULL;
	fake_guest_finish(&guest);
}

#endif
