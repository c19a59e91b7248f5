/*
 * Fuzz target: engine, bus and UHCI against a hostile guest and a hostile device, in
 * virtual time. The input is a program of records of eight bytes. The first chooses
 * the limits; in each of the others the first byte says what is done (operations[])
 * and seven say how. Nothing a record can hold is an error: every byte means
 * something, so that mutations make schedules rather than rubbish.
 *
 * What has to hold, besides what the sanitizers see: must() here and in
 * hostile_device.c. What a guest is shown is not compared with anything; that is the
 * business of tests/unit/test_law.c.
 */
#include <string.h>

#include <base/util.h>
#include <layer/layers.h>
#include <uhci/uhci.h>

#include "../src/controller/uhci/uhci_regs.h"
#include "../src/layer/translate.h"
#include "allocated.h"
#include "hostile_device.h"
#include "hostile_guest.h"
#include "must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RECORD 8u

/* An input ends when it has had so much: longer ones find nothing that shorter ones do not. */
#define MOST_RUNS     1000u
#define MOST_ACCESSES 100000u

/* Runs at one moment without anything coming of them. A long schedule takes a few slices. */
#define MOST_IDLE_RUNS 16u

/*
 * What one call may do (see controller/uhci/uhci.c): queue heads and descriptors of a
 * slice, and of a sixteenth of one for each frame that is late. A slice that goes on
 * where another left off passes over what that one saw, up to the longest schedule.
 */
#define SLICE   4096u
#define LATE    256u
#define LONGEST 8192u

static struct bh_uhci *uhci;
static struct bh_uhci_config config;
static struct hostile_device *devices[BH_UHCI_MAX_PORTS];

static struct {
	unsigned runs, idle_runs;
	uint64_t ran_at_us, came_of_it;
} work;

/* --- calls, and what holds during and after each ----------------------------------------------- */

static uint64_t accesses_before, entries_before, frames_before;
static bool may_access;

/* And not asleep with all of the bus. */
static bool running(void)
{
	bh_le16 command;

	bh_pci_bar_read(bh_uhci_pci(uhci), UHCI_BAR, USBCMD, &command, sizeof(command));
	return (bh_get_le16(command) & (USBCMD_RS | USBCMD_EGSM)) == USBCMD_RS;
}

static void call_begins(void)
{
	may_access = running() && bh_pci_dma_allowed(bh_uhci_pci(uhci));
	accesses_before = hostile_guest.accesses;
	entries_before = bh_uhci_counters(uhci)->entries;
	frames_before = bh_uhci_counters(uhci)->frames;
}

/*
 * SCAN and verification count against the slice, but the last of a frame may exceed it
 * by a batch. An entry takes no more than twelve accesses besides, a descriptor that is
 * looked at ahead no more than three.
 */
static void call_ends(void)
{
	uint64_t accesses = hostile_guest.accesses - accesses_before;
	uint64_t entries = bh_uhci_counters(uhci)->entries - entries_before;
	uint64_t frames = bh_uhci_counters(uhci)->frames - frames_before;
	uint64_t slice = SLICE + (frames ? (frames - 1) * LATE : 0);
	uint64_t ahead = slice + (frames + 1) * (config.engine.max_batch_descriptors + config.engine.retry_checks + 1u);

	must(may_access || !accesses, "guest memory was touched while it may not be");
	slice += LONGEST; /* passed over by a slice that goes on */
	must(entries <= slice, "one call visited more than a slice");
	must(accesses <= 12 * (slice + 1) + 6 * ahead, "one call touched guest memory too often");
}

static uint32_t bar_read(unsigned offset, unsigned length)
{
	bh_le32 raw[3] = {{{0}}};

	call_begins();
	bh_pci_bar_read(bh_uhci_pci(uhci), UHCI_BAR, offset, raw, length);
	call_ends();
	return bh_get_le32(raw[0]);
}

static void bar_write(unsigned offset, unsigned length, uint32_t value)
{
	bh_le32 raw[2] = {bh_put_le32(value), bh_put_le32(value >> 16 ^ value)};

	call_begins();
	bh_pci_bar_write(bh_uhci_pci(uhci), UHCI_BAR, offset, raw, length);
	call_ends();
}

static void config_write(unsigned offset, unsigned length, uint32_t value)
{
	bh_le32 raw = bh_put_le32(value);

	call_begins();
	bh_pci_config_write(bh_uhci_pci(uhci), offset, &raw, length);
	call_ends();
}

/* Of every endpoint the first packet is given memory, whatever the limit (see batch/scan.c). */
static uint64_t memory_allowed(void)
{
	uint64_t each = 1024 + 8 * (sizeof(struct bh_record) + 4 * sizeof(uint32_t)), allowed = 0;

	for (unsigned i = 0; i < BH_UHCI_MAX_PORTS; i++)
		if (devices[i])
			allowed += (unsigned)__builtin_popcount(devices[i]->asked) * each + UINT16_MAX; /* control data */
	return allowed + config.engine.max_bytes;
}

static void check_memory(void)
{
	must(bh_uhci_bus(uhci)->engine.counters.memory <= memory_allowed(), "more memory than the engine may have");
}

static void check_ports(void)
{
	for (unsigned i = 0; i < config.ports; i++) {
		uint32_t portsc = bar_read(PORTSC + 2 * i, 2);
		const struct bh_port *port = &bh_uhci_bus(uhci)->ports[i];

		must(portsc & PORTSC_ONE, "bit 7 of a port register is not one");
		must(!(portsc & PORTSC_PE) || (portsc & PORTSC_CCS), "enabled without a device");
		must(!(portsc & PORTSC_CCS) == !port->connected, "port register and bus disagree on what is connected");
		must(!(portsc & PORTSC_PE) == !port->enabled, "port register and bus disagree on what is enabled");
	}
}

static void check_registers(void)
{
	uint32_t command = bar_read(USBCMD, 2), status = bar_read(USBSTS, 2), pci_status = 0;

	must(!(status & ~0x3fu), "reserved bits of USBSTS");
	must(!(command & USBCMD_RS) == !!(status & USBSTS_HCH), "run/stop and halted disagree");
	must(!(bar_read(FRBASEADD, 4) & ~FRBASEADD_MASK), "reserved bits of FRBASEADD");
	bh_pci_config_read(bh_uhci_pci(uhci), 4, &pci_status, 4);
	must((status & 0x1f) || !(pci_status >> 19 & 1), "an interrupt without a cause");
	must(!(status & (USBSTS_HSE | USBSTS_HCPE)) || (pci_status >> 19 & 1), "an error without an interrupt");
	must(!hostile_guest.line || (pci_status >> 19 & 1), "the line is up without an interrupt");
}

/* While it runs it has to look at every frame, at every fourth where nothing is queued. */
static void check_wake_up(void)
{
	if (running() && bh_pci_dma_allowed(bh_uhci_pci(uhci)))
		must(hostile_guest.run_at_us <= hostile_guest.now_us + 6000, "it runs, and never wakes up");
}

static void check(void)
{
	check_memory();
	check_registers();
	check_ports();
	check_wake_up();
	for (unsigned i = 0; i < BH_UHCI_MAX_PORTS; i++)
		if (devices[i])
			hostile_device_check(devices[i]);
}

/* --- time -------------------------------------------------------------------------------------- */

static bool exhausted(void)
{
	return work.runs >= MOST_RUNS || hostile_guest.accesses >= MOST_ACCESSES;
}

/* It may ask for an immediate run as long as something comes of it, in the end: late frames are caught up with, too. */
static void check_storm(void)
{
	uint64_t came_of_it = bh_uhci_counters(uhci)->completed + bh_uhci_counters(uhci)->frames +
	                      hostile_device_acted + hostile_guest.raced;

	if (work.ran_at_us != hostile_guest.now_us || work.came_of_it != came_of_it)
		work.idle_runs = 0;
	work.ran_at_us = hostile_guest.now_us;
	work.came_of_it = came_of_it;
	must(++work.idle_runs <= MOST_IDLE_RUNS, "runs again and again, and nothing comes of it");
}

static void run(void)
{
	work.runs++;
	hostile_guest.run_at_us = UINT64_MAX;
	call_begins();
	bh_uhci_run(uhci);
	call_ends();
	check_storm();
}

static void pass_us(uint64_t us)
{
	uint64_t until = hostile_guest.now_us + us;

	work.idle_runs = 0;
	while (!exhausted()) {
		uint64_t next = hostile_guest.run_at_us;

		for (unsigned i = 0; i < BH_UHCI_MAX_PORTS; i++)
			if (devices[i])
				next = BH_MIN(next, hostile_device_due(devices[i]));
		if (next > until)
			break;
		hostile_guest.now_us = BH_MAX(hostile_guest.now_us, next);
		for (unsigned i = 0; i < BH_UHCI_MAX_PORTS; i++)
			if (devices[i])
				hostile_device_run(devices[i], hostile_guest.now_us);
		if (hostile_guest.run_at_us <= hostile_guest.now_us)
			run();
	}
	hostile_guest.now_us = until;
}

/* --- how bytes name things --------------------------------------------------------------------- */

/* A word of the schedule: what kind, which word of it, and which one, by twelve bits. */
static uint32_t place(uint8_t kind, uint8_t slot)
{
	uint32_t index = slot | (uint32_t)(kind & 0xf0) << 4, word = 4 * (kind >> 2 & 3);

	switch (kind & 3) {
	case 0:
		return FRAME_LIST + 4 * (index % FRAME_LIST_SIZE);
	case 1:
		return QH(index) + word;
	case 2:
		return TD(index) + word;
	default:
		return (BUFFERS + 64 * index + word) % BUFFERS_END;
	}
}

static uint32_t link_to(uint8_t kind, uint8_t slot)
{
	uint32_t index = slot | (uint32_t)(kind & 0xf0) << 4;

	switch (kind & 7) {
	case 0:
		return LINK_T;
	case 1:
		return TD(index);
	case 2:
		return TD(index) | LINK_VF;
	case 3:
		return QH(index) | LINK_Q;
	case 4:
		return QH(index);
	case 5:
		return TD(index) | LINK_Q;
	case 6:
		return (uint32_t)slot << 24 | (kind & 0xf0);
	default:
		return (TD(index) + 4 * (kind >> 4)) | (kind & 8) | LINK_VF;
	}
}

static uint32_t length_of(uint8_t choice)
{
	static const uint16_t lengths[] = {64, 8, 16, 32, 0, 1, 7, 63, 65, 1023, 1024, 1280, 1281, 2046, 18, 2};

	return choice < 0x80 ? lengths[choice & 15] : (choice & 0x7f);
}

/* Where the nth packet's data is. */
static uint32_t buffer_of(uint8_t choice, unsigned n, uint32_t length)
{
	uint32_t at = BUFFERS + 512u * (choice >> 3);

	switch (choice & 7) {
	case 0:
	case 1:
		return BUFFERS + (at - BUFFERS + n * length) % (BUFFERS_END - BUFFERS);
	case 2:
		return at; /* all share it */
	case 3:
		return REGION_SIZE * (4 + (choice >> 3) % 4) - n % 64; /* across regions */
	case 4:
		return 0xffffffffu - n % 128; /* across 4 GiB */
	case 5:
		return (uint32_t)HIGH_MEMORY + n * length;
	case 6:
		return TD(n); /* itself */
	default:
		return (uint32_t)choice << 24; /* nowhere */
	}
}

/* Device address 0 to 3, endpoint and direction; SETUP and nonsense are left to single descriptors. */
struct target {
	uint8_t endpoint, address;
	bool in;
};

static struct target target_of(uint8_t byte)
{
	return (struct target){.endpoint = byte & 15, .in = byte & 16, .address = byte >> 5 & 3};
}

static uint32_t token_of(const struct target *t, uint8_t pid, unsigned toggle, uint32_t length)
{
	return pid | (uint32_t)t->address << 8 | (uint32_t)t->endpoint << 15 | (toggle & 1u) << 19 |
	       ((length - 1) & TD_NO_BYTES) << 21;
}

static void put_td(unsigned slot, uint32_t link, uint32_t control, uint32_t token, uint32_t buffer)
{
	guest_put32(TD(slot), link);
	guest_put32(TD(slot) + 8, token);
	guest_put32(TD(slot) + 12, buffer);
	guest_put32(TD(slot) + 4, control);
}

static struct hostile_device *device_at(uint8_t port)
{
	return devices[port % config.ports];
}

/* --- the driver: schedules --------------------------------------------------------------------- */

/* queue head, target, count, first descriptor, how, length, buffer */
static void make_queue(const uint8_t *r)
{
	struct target target = target_of(r[2]);
	unsigned count = r[3] < 0x80 ? r[3] + 1u : (r[3] - 0x7fu) * 16, first = r[4], toggle = r[2] >> 7;
	uint8_t how = r[5], pid = target.in ? BH_PID_IN : BH_PID_OUT;
	uint32_t length = length_of(r[6]);

	for (unsigned i = 0; i < count; i++) {
		bool last = i + 1 == count;
		uint32_t link = last ? (how & 0x10 ? TD(first) : LINK_T) : TD(first + i + 1);
		uint32_t control = (how & 0x08 ? 0 : TD_CERR) | (how & 0x01 ? TD_SPD : 0), bytes = length;

		control |= last && (how & 0x02) ? TD_IOC : 0;
		control |= (how & 0x80) && i == count / 2 ? 0 : TD_ACTIVE;
		toggle ^= !((how & 0x20) && i == count / 2);
		if (last && (how & 0x40))
			bytes = length / 2;
		put_td(first + i, link | (how & 0x04 && !(link & LINK_T) ? LINK_VF : 0), control,
		       token_of(&target, pid, toggle, bytes), buffer_of(r[7], i, length));
	}
	guest_put32(QH(r[1]) + 4, TD(first));
}

/* first queue head, count, last one's link, period, phase: one after another, from some frames */
static void link_queues(const uint8_t *r)
{
	unsigned first = r[1], count = r[2] + 1u, period = 1u << (r[5] % 11);

	for (unsigned i = 0; i + 1 < count; i++)
		guest_put32(QH(first + i), QH(first + i + 1) | LINK_Q);
	guest_put32(QH(first + count - 1), link_to(r[3], r[4]));
	for (unsigned frame = r[6] % period; frame < FRAME_LIST_SIZE; frame += period)
		guest_put32(FRAME_LIST + 4 * frame, QH(first) | LINK_Q);
}

/* kind, slot, period, phase: what the frame list says */
static void fill_frame_list(const uint8_t *r)
{
	unsigned period = 1u << (r[3] % 11);

	for (unsigned frame = r[4] % period; frame < FRAME_LIST_SIZE; frame += period)
		guest_put32(FRAME_LIST + 4 * frame, link_to(r[1], r[2]));
}

static void make_queue_head(const uint8_t *r)
{
	guest_put32(QH(r[1]), link_to(r[2], r[3]));
	guest_put32(QH(r[1]) + 4, link_to(r[4], r[5]));
}

/* slot, link's kind and slot, control, target, PID and toggle, length */
static void make_td(const uint8_t *r)
{
	static const uint8_t pids[] = {BH_PID_IN, BH_PID_OUT, BH_PID_SETUP, 0};
	struct target target = target_of(r[5]);
	uint32_t control = (uint32_t)(r[4] & 0x3f) << 24, length = length_of(r[7]);

	control |= r[4] & 0x40 ? 0 : TD_ACTIVE;
	put_td(r[1], link_to(r[2], r[3]), control, token_of(&target, pids[r[6] & 3], r[6] >> 2, length),
	       buffer_of(r[6] & 0xf8, r[1], length));
}

/* Usual requests, and one that is nothing in particular. */
static struct bh_setup request_of(uint8_t choice, uint8_t value, uint16_t length)
{
	static const uint8_t requests[8][2] = {
		{0x00, 5}, /* SET_ADDRESS */
		{0x00, 9}, /* SET_CONFIGURATION */
		{0x01, 11}, /* SET_INTERFACE */
		{0x02, 1}, /* CLEAR_FEATURE(ENDPOINT_HALT) */
		{0x80, 6}, /* GET_DESCRIPTOR */
		{0xc1, 0xfe}, /* of a class, with IN data */
		{0x41, 0xff}, /* of a class, with OUT data */
		{0x80, 0},
	};
	const uint8_t *request = requests[choice & 7];
	bool by_index = request[1] == 1;

	return (struct bh_setup){
		.bmRequestType = request[0],
		.bRequest = request[1],
		.wValue = bh_put_le16(by_index ? 0 : choice & 0x80 ? (uint16_t)(value << 4) : value),
		.wIndex = bh_put_le16(by_index ? value : choice >> 4 & 1),
		.wLength = bh_put_le16(length),
	};
}

/* first descriptor, target, count, frames ahead, interval and how, length, buffer: before what hangs in the frames */
static void make_stream(const uint8_t *r)
{
	struct target target = target_of(r[2]);
	unsigned frame = bar_read(FRNUM, 2) + r[4], interval = 1u << (r[5] & 3);
	uint32_t length = length_of(r[6]), flags = r[5] & 0x08 ? TD_CERR : 0;

	target.endpoint = r[2] & 0x80 ? target.endpoint : 7;
	for (unsigned i = 0; i <= r[3]; i++, frame += interval) {
		uint32_t entry = FRAME_LIST + 4 * (frame % FRAME_LIST_SIZE), control = TD_ACTIVE | TD_IOS | flags;

		control |= i == r[3] && (r[5] & 0x04) ? TD_IOC : 0;
		put_td(r[1] + i, r[5] & 0x10 ? LINK_T : guest_get32(entry), control,
		       token_of(&target, target.in ? BH_PID_IN : BH_PID_OUT, 0, length), buffer_of(r[7], i, length));
		guest_put32(entry, TD(r[1] + i));
	}
}

/* queue head, target, first descriptor, request, its value, length, how many data packets and what is odd */
static void make_control(const uint8_t *r)
{
	static const uint16_t lengths[] = {0, 8, 18, 64, 255, 512, 4096, 0xffff};
	struct target target = target_of(r[2]);
	struct bh_setup setup = request_of(r[4], r[5], lengths[r[6] & 7]);
	unsigned slot = r[3], count = r[7] & 15, packet = 8u << (r[6] >> 3 & 3);
	bool in = setup.bmRequestType & BH_ENDPOINT_IN;
	uint32_t buffer = BUFFERS + 64u * r[3];

	target.endpoint = 0;
	for (unsigned i = 0; i < sizeof(setup); i++)
		guest_put8(buffer + i, ((const uint8_t *)&setup)[i]);
	put_td(slot, TD(slot + 1) | LINK_VF, TD_CERR | TD_ACTIVE,
	       token_of(&target, BH_PID_SETUP, 0, r[7] & 0x10 ? 7 : sizeof(setup)), buffer);
	for (unsigned i = 0; i < count; i++) {
		slot++;
		put_td(slot, TD(slot + 1) | LINK_VF, TD_CERR | TD_ACTIVE | (r[7] & 0x20 ? TD_SPD : 0),
		       token_of(&target, in ? BH_PID_IN : BH_PID_OUT, ~i, packet), BUFFERS + 64 * (r[3] + i));
	}
	if (!(r[7] & 0x40)) {
		slot++;
		put_td(slot, LINK_T, TD_CERR | TD_ACTIVE | TD_IOC,
		       token_of(&target, in && !(r[7] & 0x80) ? BH_PID_OUT : BH_PID_IN, 1, 0), 0);
	}
	guest_put32(QH(r[1]) + 4, TD(r[3]));
}

/* first descriptor, count, queue head: active again, as they were */
static void use_again(const uint8_t *r)
{
	unsigned count = r[2] < 0x80 ? r[2] + 1u : (r[2] - 0x7fu) * 16;

	for (unsigned i = 0; i < count; i++) {
		uint32_t control = guest_get32(TD(r[1] + i) + 4);

		guest_put32(TD(r[1] + i) + 4, (control & ~(TD_STATUS | TD_ACTLEN)) | TD_ACTIVE);
	}
	if (r[3] & 1)
		guest_put32(QH(r[4]) + 4, TD(r[1]));
}

/* place, then what is done with the word there */
static void write_word(const uint8_t *r)
{
	uint32_t at = place(r[1], r[2]), value, old = guest_get32(at);

	value = r[4] | (uint32_t)r[5] << 8 | (uint32_t)r[6] << 16 | (uint32_t)r[7] << 24;
	switch (r[3] & 3) {
	case 1:
		value ^= old;
		break;
	case 2:
		value = link_to(r[4], r[5]);
		break;
	case 3:
		value += old;
		break;
	}
	guest_put32(at, value);
}

static void write_bytes(const uint8_t *r)
{
	uint64_t at = r[1] | (uint64_t)r[2] << 8 | (uint64_t)(r[3] & 1) << 16;

	if (r[3] & 2)
		at += HIGH_MEMORY;
	for (unsigned i = 0; i < 4; i++)
		guest_put8(at + i, r[4 + i]);
}

/* place, bits of which byte, countdown, period, how often */
static void race(const uint8_t *r)
{
	struct race race = {
		.address = place(r[1], r[2]),
		.bits = (uint32_t)r[3] << 8 * (r[7] & 3),
		.countdown = r[4],
		.period = r[5],
		.left = r[6] % 64u + 1,
	};

	guest_race(&race);
}

/* --- the driver: registers --------------------------------------------------------------------- */

static void write_register(const uint8_t *r)
{
	unsigned offset = r[1] % UHCI_BAR_SIZE, length = BH_MIN(r[2] % 8 + 1u, UHCI_BAR_SIZE - offset);

	bar_write(offset, length, r[3] | (uint32_t)r[4] << 8 | (uint32_t)r[5] << 16 | (uint32_t)r[6] << 24);
}

static void read_register(const uint8_t *r)
{
	unsigned offset = r[1] % UHCI_BAR_SIZE, length = BH_MIN(r[2] % 8 + 1u, UHCI_BAR_SIZE - offset);

	bar_read(offset, length);
	must(bar_read(FRNUM, 2) <= FRNUM_MASK, "reserved bits of FRNUM");
}

static void access_config(const uint8_t *r)
{
	unsigned offset = r[1], length = BH_MIN(r[2] % 4 + 1u, BH_PCI_CONFIG_SIZE - offset);
	uint8_t bytes[4];

	if (r[2] & 0x80)
		bh_pci_config_read(bh_uhci_pci(uhci), offset, bytes, length);
	else
		config_write(offset, length, r[3] | (uint32_t)r[4] << 8 | (uint32_t)r[5] << 16 | (uint32_t)r[6] << 24);
}

/* what of it, where the frame list is */
static void start(const uint8_t *r)
{
	config_write(4, 2, r[1] & 1 ? 1 : 5); /* I/O space, bus master */
	if (r[1] & 2)
		config_write(0x82, 2, 1); /* message-signalled interrupts */
	bar_write(USBINTR, 2, r[1] & 4 ? 0 : 0xf);
	bar_write(FRBASEADD, 4, r[2] < 0x80 ? FRAME_LIST : (uint32_t)r[2] << 24);
	bar_write(USBCMD, 2, r[1] & 8 ? 0 : USBCMD_RS);
}

static void drive_port(const uint8_t *r)
{
	static const uint16_t actions[8] = {
		PORTSC_PE, 0, PORTSC_PE | PORTSC_SUSP, PORTSC_PE | PORTSC_SUSP | PORTSC_RD,
		PORTSC_CSC | PORTSC_PEC, PORTSC_PR | PORTSC_PE, PORTSC_SUSP, 0xffff,
	};
	unsigned port = PORTSC + 2 * (r[1] % config.ports);

	if (!(r[2] & 0x80)) {
		bar_write(port, 2, PORTSC_PR);
		bar_write(port, 2, 0);
	}
	bar_write(port, 2, actions[r[2] & 7]);
}

/* What a driver does when it is interrupted. */
static void acknowledge(const uint8_t *r)
{
	bar_write(USBSTS, 2, bar_read(USBSTS, 2) & ~(uint32_t)r[1]);
}

static void reset(const uint8_t *r)
{
	call_begins();
	switch (r[1] & 3) {
	case 0:
		bh_pci_reset(bh_uhci_pci(uhci));
		break;
	case 1:
		bh_bus_power_on(bh_uhci_bus(uhci));
		break;
	case 2:
		bar_write(USBCMD, 2, USBCMD_HCRESET);
		break;
	case 3:
		bar_write(USBCMD, 2, USBCMD_GRESET | (r[2] & 1 ? USBCMD_RS : 0));
		bar_write(USBCMD, 2, 0);
		break;
	}
	call_ends();
}

/* --- the world around it ----------------------------------------------------------------------- */

/* how long, as mantissa and exponent; and whether the controller sleeps through it */
static void pass_time(const uint8_t *r)
{
	uint64_t us = (uint64_t)r[1] << (r[2] % 15);

	if (r[3] & 1)
		hostile_guest.now_us += us;
	else
		pass_us(us);
	pass_us(r[3] & 2 ? 1000 : 0);
}

/* port, pipe or all, on submit, on cancel, status, actual, delay */
static void set_policy(const uint8_t *r)
{
	struct hostile_device *d = device_at(r[1]);
	struct policy policy = {
		.submit = r[3], .cancel = r[4], .status = r[5], .actual = r[6],
		.delay_us = 1u + ((uint32_t)(r[7] & 15) << (r[7] >> 4)),
	};

	for (unsigned i = 0; d && i < PIPES; i++)
		if ((r[2] & 0x40) || r[2] % PIPES == i)
			d->pipes[i].policy = policy;
}

/* port, pipe, what, status, actual */
static void act(const uint8_t *r)
{
	struct hostile_device *d = device_at(r[1]);

	if (!d)
		return;
	switch (r[3] & 7) {
	case 4:
		hostile_device_progress(d, r[2]);
		break;
	case 5:
		bh_device_wakeup(&d->device);
		break;
	case 6:
		hostile_device_detach(d);
		break;
	case 7:
		for (unsigned i = 0; i < ALL_PIPES; i++)
			hostile_device_end(d, i, r[4], r[5]);
		break;
	default:
		hostile_device_end(d, r[2], r[4], r[5]);
	}
}

static void destroy_it(struct bh_device *d, void *data)
{
	(void)data;
	bh_device_destroy(d);
}

/* A guest does not go on with what it sends to a device that is translated: by the clock, that has a timer. */
static void stand_still(unsigned port)
{
	struct hostile_device *d = devices[port];

	if (d && d->packets > 1 && !d->detached)
		bh_translate_stand_still(bh_port_device(&bh_uhci_bus(uhci)->ports[port]));
}

static void plug(const uint8_t *r)
{
	static const struct bh_layer_context layers;
	static struct hostile_device *nowhere;
	unsigned port = r[1] % config.ports;
	struct hostile_device *d;
	struct bh_device *top;
	char error[BH_LAYER_ERROR_SIZE];

	if (r[2] & 0x80) {
		bh_bus_remove(bh_uhci_bus(uhci), port, r[2] & 1 ? destroy_it : NULL, NULL);
		must(!devices[port], "removed, and not destroyed");
		return;
	}
	if (r[2] & 0x40) {
		stand_still(port);
		return;
	}
	d = hostile_device_create(&nowhere, r[3]);
	if (!d)
		return;
	top = &d->device;
	if (d->device.speed > BH_SPEED_FULL)
		must(!bh_layers_put(&layers, "translate", &top, error), "a device that could be translated was refused");
	if (bh_bus_attach(bh_uhci_bus(uhci), port, top)) {
		bh_device_destroy(top);
		return;
	}
	devices[port] = d;
	d->place = &devices[port];
}

/* region, how, whether it goes; whether the controller is told at once */
static void change_map(const uint8_t *r)
{
	if (r[3] & 1)
		guest_map(r[1] % REGIONS, r[2]);
	else
		guest_unmap(r[1] % REGIONS);
	if (!(r[3] & 2))
		bh_pci_memory_changed(bh_uhci_pci(uhci));
}

/* --- a program --------------------------------------------------------------------------------- */

static void (*const operations[])(const uint8_t *record) = {
	make_queue, make_queue, link_queues, fill_frame_list, make_queue_head, make_td, make_control, use_again,
	write_word, write_bytes, race, race, write_register, read_register, access_config, start,
	drive_port, acknowledge, reset, pass_time, pass_time, set_policy, set_policy, act,
	act, plug, change_map, make_stream,
};

static void choose_limits(const uint8_t *r)
{
	static const uint32_t batch_bytes[] = {256 * 1024, 0, 1, 64, 100, 512, 4096, 65536};
	static const uint32_t descriptors[] = {4096, 0, 1, 2, 3, 8, 64, 1024};
	static const uint32_t bytes[] = {16 << 20, 0, 100, 1000, 5000, 20000, 100000, 1 << 20};
	static const uint32_t checks[] = {8, 0, 1, 100};
	static const uint32_t linger[] = {50000, 0, 1, 500, 5000, UINT32_MAX, 50000, 1000};
	static const uint32_t withdrawn[] = {32, 0, 1, 2, 8, UINT32_MAX, 32, 100};
	struct bh_engine_config *e = &config.engine;

	config = BH_UHCI_DEFAULTS;
	config.ports = BH_UHCI_MIN_PORTS + (r[0] & 7) % (BH_UHCI_MAX_PORTS - BH_UHCI_MIN_PORTS + 1);
	config.pace = r[0] & 0x08;
	e->withdrawn_fails = r[0] & 0x10;
	e->max_batch_bytes = batch_bytes[r[1] & 7];
	e->max_batch_descriptors = descriptors[r[2] & 7];
	e->max_bytes = bytes[r[3] & 7];
	e->retry_checks = checks[r[4] & 3];
	e->linger_us = linger[r[5] & 7];
	e->withdrawn_frames = withdrawn[r[6] & 7];
	hostile_limits = (struct hostile_limits){
		.batch_bytes = e->max_batch_bytes,
		.batch_descriptors = BH_MAX(e->max_batch_descriptors, 1u),
		.verification = r[7],
	};
}

/* A device in the first port, in its default state, and the controller running: where most begin. */
static void power_on(const uint8_t *r)
{
	static const uint8_t nothing[RECORD];
	uint8_t plugged[RECORD] = {0, 0, 0, r[0] & 0x20 ? 1 : 0};

	memset(&work, 0, sizeof(work));
	hostile_device_acted = 0;
	hostile_guest_init();
	uhci = bh_uhci_create(&hostile_guest.guest, &config);
	must(uhci, "no controller");
	if (r[0] & 0x40)
		return;
	plug(plugged);
	start(nothing);
	drive_port(nothing);
}

static void power_off(const uint8_t *r)
{
	if (r[0] & 0x80)
		for (unsigned i = 0; i < config.ports; i++)
			bh_bus_remove(bh_uhci_bus(uhci), i, NULL, NULL);
	must(!(r[0] & 0x80) || bh_uhci_bus(uhci)->engine.counters.memory == 0,
	     "every device is gone, and the engine has memory");
	bh_uhci_destroy(uhci);
	uhci = NULL;
	for (unsigned i = 0; i < BH_UHCI_MAX_PORTS; i++)
		must(!devices[i], "a device outlived its controller");
	hostile_guest_finish();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	ptrdiff_t before = fuzz_allocated();
	uint8_t record[RECORD] = {0};

	memcpy(record, data, BH_MIN(size, RECORD));
	choose_limits(record);
	power_on(record);
	for (size_t at = RECORD; at < size && !exhausted(); at += RECORD) {
		memset(record, 0, sizeof(record));
		memcpy(record, data + at, BH_MIN(size - at, RECORD));
		operations[record[0] % BH_COUNT(operations)](record);
		check();
	}
	pass_us(3000);
	check();
	memcpy(record, data, BH_MIN(size, RECORD));
	power_off(record);
	must(fuzz_allocated() == before, "memory was lost");
	return 0;
}
