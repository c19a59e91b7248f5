/*
 * The controller as a guest's driver sees it: registers, ports, the schedule,
 * write-back, interrupts, time. Driven through its registers and through
 * descriptors in memory, as the design guide numbers them.
 */
#include <errno.h>

#define BUFFER_SIZE 2048u

#include "fake_device.h"
#include "fake_driver.h"

static struct fake_device device;

static void make(const struct bh_uhci_config *config)
{
	machine(config);
	fake_device_init(&device, BH_SPEED_FULL);
}

static int setup(void **state)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;

	(void)state;
	make(&config);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, &device.device), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	machine_finish();
	return 0;
}

/* A device on port 1, enabled and at address 0, and a controller that runs. */
static int setup_running(void **state)
{
	setup(state);
	enable_port(0);
	run();
	return 0;
}

static const struct bh_uhci_counters *counters(void)
{
	return bh_uhci_counters(uhci);
}

/* --- registers ---------------------------------------------------------------------------- */

static void registers_after_reset(void **state)
{
	(void)state;
	assert_int_equal(inw(USBCMD), 0);
	assert_int_equal(inw(USBSTS), USBSTS_HCH);
	assert_int_equal(inw(USBINTR), 0);
	assert_int_equal(inw(FRNUM), 0);
	assert_int_equal(in(FRBASEADD, 4), 0);
	assert_int_equal(in(SOFMOD, 1), 0x40);
	assert_int_equal(inw(PORTSC), PORTSC_ONE | PORTSC_CCS | PORTSC_CSC | PORTSC_DP);
	assert_int_equal(inw(PORTSC + 2), PORTSC_ONE);
	assert_int_equal(inw(PORTSC + 4), 0); /* no third port: bit 7 is clear, and drivers stop counting */
}

/* Every bit of every register by its kind: RW is stored, RO and reserved are not. */
static void registers_take_what_they_may(void **state)
{
	static const struct {
		unsigned offset, size;
		uint32_t writable; /* without side effects */
	} regs[] = {
		{USBCMD, 2, USBCMD_SWDBG | USBCMD_CF | USBCMD_MAXP | USBCMD_FGR},
		{USBINTR, 2, 0x000f},
		{FRNUM, 2, 0x07ff},
		{FRBASEADD, 4, 0xfffff000},
		{SOFMOD, 1, 0x7f},
	};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(regs); i++) {
		uint32_t all = regs[i].offset == USBCMD ? regs[i].writable | 0xff00 : 0xffffffff;

		out(regs[i].offset, regs[i].size, all);
		assert_int_equal(in(regs[i].offset, regs[i].size), regs[i].writable);
		out(regs[i].offset, regs[i].size, 0);
		assert_int_equal(in(regs[i].offset, regs[i].size), 0);
	}
}

static void registers_by_bytes_and_words(void **state)
{
	(void)state;
	out(FRBASEADD, 4, 0x12345000);
	assert_int_equal(in(FRBASEADD + 2, 2), 0x1234);
	assert_int_equal(in(FRBASEADD + 1, 1), 0x50);
	out(FRBASEADD + 2, 1, 0xab);
	assert_int_equal(in(FRBASEADD, 4), 0x12ab5000);
	out(FRBASEADD, 2, 0x6fff);
	assert_int_equal(in(FRBASEADD, 4), 0x12ab6000);
	out(USBINTR, 4, 0x0123000f); /* USBINTR and FRNUM at once */
	assert_int_equal(inw(USBINTR), 0x000f);
	assert_int_equal(inw(FRNUM), 0x0123);
	assert_int_equal(in(USBINTR, 4), 0x0123000f);
}

static void status_bits_are_cleared_by_writing_one(void **state)
{
	(void)state;
	td(0, LINK_T, TD_IOC, 0); /* inactive, and wants an interrupt */
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
	frames(2);
	assert_int_equal(inw(USBSTS), USBSTS_USBINT);
	frame_list(LINK_T);
	out(USBSTS + 1, 1, 0xff); /* the other byte: nothing */
	assert_int_equal(inw(USBSTS), USBSTS_USBINT);
	outw(USBSTS, (uint16_t)~USBSTS_USBINT);
	assert_int_equal(inw(USBSTS), USBSTS_USBINT);
	outw(USBSTS, USBSTS_USBINT);
	assert_int_equal(inw(USBSTS), 0);
}

static void frame_number_is_locked_while_running(void **state)
{
	(void)state;
	outw(USBCMD, 0);
	outw(FRNUM, 0x7fe);
	outw(USBCMD, USBCMD_RS);
	outw(FRNUM, 5);
	assert_int_equal(inw(FRNUM), 0x7fe);
	frames(3);
	assert_int_equal(inw(FRNUM), 1); /* wraps at 11 bits */
	outw(USBCMD, 0);
	frames(9);
	assert_int_equal(inw(FRNUM), 1);
	assert_int_equal(inw(USBSTS) & USBSTS_HCH, USBSTS_HCH);
}

static void frame_number_follows_the_clock_between_runs(void **state)
{
	(void)state;
	guest.now_us += 2500; /* nobody ran the controller */
	assert_int_equal(inw(FRNUM), 2);
}

static void host_reset_clears_itself_and_everything(void **state)
{
	(void)state;
	frames(3);
	outw(USBCMD, USBCMD_HCRESET);
	assert_int_equal(inw(USBCMD), 0);
	assert_int_equal(inw(USBSTS), USBSTS_HCH);
	assert_int_equal(in(FRBASEADD, 4), 0);
	assert_int_equal(inw(FRNUM), 0);
	assert_int_equal(inw(PORTSC), PORTSC_ONE | PORTSC_CCS | PORTSC_CSC | PORTSC_PEC | PORTSC_DP); /* 2.1.1 */
	assert_true(guest.run_at_us == UINT64_MAX); /* nothing to look at any more */
}

static void global_reset_stays_until_cleared(void **state)
{
	unsigned resets = device.resets;

	(void)state;
	outw(USBCMD, USBCMD_GRESET);
	assert_int_equal(inw(USBCMD), USBCMD_GRESET);
	assert_int_equal(inw(PORTSC), PORTSC_ONE | PORTSC_CCS | PORTSC_CSC | PORTSC_DP); /* as after power-on */
	assert_int_equal(device.resets, resets + 1);
	outw(USBCMD, 0);
	assert_int_equal(inw(USBCMD), 0);
	assert_int_equal(device.resets, resets + 1);
}

static void more_ports(void **state)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;

	(void)state;
	for (config.ports = 2; config.ports <= 8; config.ports++) {
		make(&config);
		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(inw(PORTSC + 2 * i) & PORTSC_ONE, i < config.ports ? PORTSC_ONE : 0);
		bh_uhci_destroy(uhci);
		fake_guest_finish(&guest);
	}
	assert_null(bh_uhci_create(&guest.guest, &config));
	config.ports = 2;
	make(&config);
}

/* --- ports ------------------------------------------------------------------------------------- */

static void port_reset_and_enable(void **state)
{
	(void)state;
	outw(PORTSC, PORTSC_PR);
	assert_int_equal(inw(PORTSC) & (PORTSC_PR | PORTSC_PE), PORTSC_PR);
	outw(PORTSC, PORTSC_PR | PORTSC_PE); /* not while in reset */
	assert_int_equal(inw(PORTSC) & (PORTSC_PR | PORTSC_PE), PORTSC_PR);
	outw(PORTSC, 0);
	outw(PORTSC, PORTSC_PE | PORTSC_CSC);
	assert_int_equal(inw(PORTSC), PORTSC_ONE | PORTSC_CCS | PORTSC_PE | PORTSC_DP);
	outw(PORTSC, PORTSC_PR); /* and out of enabled */
	assert_int_equal(inw(PORTSC) & PORTSC_PE, 0);
}

static void empty_port_cannot_be_enabled(void **state)
{
	(void)state;
	enable_port(1);
	assert_int_equal(inw(PORTSC + 2), PORTSC_ONE);
}

static void port_sees_unplugging(void **state)
{
	(void)state;
	bh_bus_remove(bh_uhci_bus(uhci), 0, NULL, NULL);
	assert_int_equal(device.destroyed, 1);
	assert_int_equal(inw(PORTSC), PORTSC_ONE | PORTSC_CSC | PORTSC_PEC);
	fake_device_init(&device, BH_SPEED_LOW);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, &device.device), 0);
	assert_int_equal(inw(PORTSC), PORTSC_ONE | PORTSC_CSC | PORTSC_PEC | PORTSC_CCS | PORTSC_LSDA | PORTSC_DM);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, &device.device), -EBUSY);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 2, &device.device), -EINVAL);
}

static void goes_at_reset(struct bh_device *d)
{
	fake_device_reset(d);
	bh_device_detach(d);
}

static void device_that_goes_while_its_port_is_reset_is_gone(void **state)
{
	struct bh_device_ops ops = *device.device.ops;

	(void)state;
	ops.reset = goes_at_reset;
	device.device.ops = &ops;
	outw(PORTSC, PORTSC_CSC);
	outw(PORTSC, PORTSC_PR);
	outw(PORTSC, 0);
	assert_int_equal(inw(PORTSC), PORTSC_ONE | PORTSC_CSC);
	outw(PORTSC, PORTSC_PE);
	assert_int_equal(inw(PORTSC), PORTSC_ONE | PORTSC_CSC);
	frames(1);
	assert_int_equal(device.destroyed, 1);
}

static void port_suspends_and_resumes(void **state)
{
	(void)state;
	outw(PORTSC, PORTSC_PE | PORTSC_SUSP);
	assert_int_equal(device.suspends, 1);
	assert_int_equal(inw(PORTSC) & PORTSC_SUSP, PORTSC_SUSP);
	outw(PORTSC, PORTSC_PE | PORTSC_SUSP | PORTSC_RD);
	assert_int_equal(device.resumes, 0);
	outw(PORTSC, PORTSC_PE);
	assert_int_equal(inw(PORTSC) & (PORTSC_SUSP | PORTSC_RD), 0);
	assert_int_equal(device.resumes, 1);
}

static void suspended_port_is_woken_by_its_device(void **state)
{
	(void)state;
	outw(PORTSC, PORTSC_PE | PORTSC_SUSP);
	bh_device_wakeup(&device.device);
	assert_int_equal(inw(PORTSC) & PORTSC_RD, PORTSC_RD);
	assert_int_equal(inw(USBSTS), 0); /* 2.1.2: only where all of the bus sleeps */
}

static void stopped_controller_notices_a_new_device(void **state)
{
	(void)state;
	outw(USBINTR, USBINTR_RESUME);
	outw(USBCMD, USBCMD_EGSM); /* as Linux leaves an empty hub */
	assert_false(guest.line);
	fake_device_init(&device, BH_SPEED_FULL);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 1, &device.device), 0);
	assert_int_equal(inw(USBSTS) & USBSTS_RD, USBSTS_RD);
	assert_int_equal(inw(USBCMD), USBCMD_EGSM | USBCMD_FGR);
	assert_true(guest.line);
}

static void global_suspend_reaches_the_devices(void **state)
{
	(void)state;
	outw(USBCMD, USBCMD_EGSM);
	assert_int_equal(device.suspends, 1);
	outw(USBCMD, USBCMD_EGSM | USBCMD_FGR);
	outw(USBCMD, 0);
	assert_int_equal(device.resumes, 1);
}

/* --- the schedule -------------------------------------------------------------------------------- */

/* n packets of 64 bytes OUT to endpoint 1 in queue 0, breadth first unless vf; the last with IOC. */
static void bulk_out(unsigned n, uint32_t vf)
{
	for (unsigned i = 0; i < n; i++) {
		td(i, i + 1 < n ? TD(i + 1) | vf : LINK_T, ACTIVE | (i + 1 == n ? TD_IOC : 0),
		   token(BH_PID_OUT, 0, 1, i & 1, 64));
		memset(guest.memory + BUFFER(i), (int)i + 1, 64);
	}
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
}

static void bulk_in(unsigned n, uint32_t flags)
{
	for (unsigned i = 0; i < n; i++)
		td(i, i + 1 < n ? TD(i + 1) : LINK_T, ACTIVE | flags, token(BH_PID_IN, 0, 2, i & 1, 64));
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
}

static void a_batch_becomes_one_transfer(void **state)
{
	(void)state;
	for (int vf = 0; vf < 2; vf++) {
		device.submits = 0;
		bulk_out(10, vf ? LINK_VF : 0);
		frames(1);
		assert_int_equal(device.submits, 1);
		for (unsigned i = 0; i < 10; i++) {
			assert_int_equal(control_of(i), TD_CERR | (i == 9 ? TD_IOC : 0) | 63);
			assert_int_equal(device.out[64 * i], i + 1);
		}
		assert_int_equal(element_of(0), LINK_T); /* the last link, as it is */
		assert_int_equal(inw(USBSTS), USBSTS_USBINT);
		assert_true(guest.line);
		outw(USBSTS, USBSTS_USBINT);
		assert_false(guest.line);
	}
}

static void busy_writes_nothing(void **state)
{
	(void)state;
	device.hold = true;
	bulk_out(4, 0);
	frames(5);
	assert_int_equal(device.submits, 1);
	assert_int_equal(control_of(0), ACTIVE);
	assert_int_equal(element_of(0), TD(0));
	assert_int_equal(inw(USBSTS), 0);
	fake_device_end(&device, BH_SUCCESS, 256);
	assert_int_equal(guest.run_at_us, 0); /* at once, not a frame later */
	pass_us(0);
	assert_int_equal(element_of(0), LINK_T);
}

static void loop_of_queues_ends_after_an_idle_lap(void **state)
{
	(void)state;
	bulk_out(100, 0);
	qh(1, QH(0) | LINK_Q, LINK_T); /* a tail that leads into the loop */
	qh(2, QH(0) | LINK_Q, LINK_T);
	qh(0, QH(2) | LINK_Q, TD(0));
	frame_list(QH(1) | LINK_Q);
	pass_us(0);
	assert_int_equal(element_of(0), LINK_T);
	assert_int_equal(device.submits, 1);
	assert_true(counters()->entries < 100 * 4 + 40);
}

static void loop_of_descriptors_ends(void **state)
{
	(void)state;
	td(0, TD(1), 0, 0);
	td(1, TD(0), 0, 0);
	frame_list(TD(0));
	frames(1);
	assert_true(counters()->entries < 40);
	qh(0, QH(0) | LINK_Q, QH(0) | LINK_Q);
	frame_list(QH(0) | LINK_Q);
	frames(1);
	assert_true(counters()->entries < 80);
}

/* More queues than fit into a slice: all are visited, over several slices. */
static void long_schedule_is_walked_to_its_end(void **state)
{
	const uint32_t queues = 6000, base = 0x60000;

	(void)state;
	for (uint32_t i = 0; i < queues; i++) {
		fake_put32(&guest, base + 16 * i, i + 1 < queues ? (base + 16 * (i + 1)) | LINK_Q : QH(0) | LINK_Q);
		fake_put32(&guest, base + 16 * i + 4, LINK_T);
	}
	bulk_out(1, 0);
	frame_list(base | LINK_Q);
	frames(1);
	assert_int_equal(element_of(0), LINK_T);
}

static void endless_schedule_is_given_up(void **state)
{
	const uint32_t queues = 0x9f000 / 16, base = 0x60000;

	(void)state;
	for (uint32_t i = 0; i < queues; i++) {
		fake_put32(&guest, base + 16 * i, (base + 16 * (i + 1)) | LINK_Q);
		fake_put32(&guest, base + 16 * i + 4, LINK_T);
	}
	frame_list(base | LINK_Q);
	frames(1);
	assert_true(counters()->entries < 50000);
	assert_true(guest.run_at_us != 0); /* not before the next frame */
}

static void queue_stops_at_short_packet_if_told_to(void **state)
{
	(void)state;
	device.actual_limit = 100;
	bulk_in(4, TD_SPD);
	frames(1);
	assert_int_equal(control_of(0) & TD_ACTLEN, 63);
	assert_int_equal(control_of(1), TD_SPD | TD_CERR | 35);
	assert_int_equal(element_of(0), TD(1)); /* not moved on */
	assert_int_equal(control_of(2), TD_SPD | ACTIVE);
	assert_int_equal(inw(USBSTS), USBSTS_USBINT);
}

static void queue_goes_on_after_short_packet_otherwise(void **state)
{
	(void)state;
	device.actual_limit = 100;
	bulk_in(2, 0);
	frames(1);
	assert_int_equal(element_of(0), LINK_T);
	assert_int_equal(inw(USBSTS), 0);
	assert_memory_equal(guest.memory + BUFFER(1), ((uint8_t[]){(uint8_t)(64 * 5 + 1)}), 1);
}

static void zero_length_packet_is_written_back(void **state)
{
	(void)state;
	device.actual_limit = 0;
	bulk_in(1, 0);
	frames(1);
	assert_int_equal(control_of(0) & TD_ACTLEN, TD_NO_BYTES);
}

static void stall_stops_the_queue(void **state)
{
	(void)state;
	device.status = BH_STALL;
	device.actual_limit = 64;
	bulk_out(3, 0);
	frames(1);
	assert_int_equal(control_of(0), TD_CERR | 63);
	assert_int_equal(control_of(1), TD_CERR | TD_STALLED | TD_NO_BYTES);
	assert_int_equal(control_of(2), ACTIVE | TD_IOC);
	assert_int_equal(element_of(0), TD(1));
	assert_int_equal(inw(USBSTS), USBSTS_ERROR);
	assert_true(guest.line);
}

static void babble_stops_the_queue(void **state)
{
	(void)state;
	device.status = BH_BABBLE;
	device.actual_limit = 0;
	bulk_in(1, 0);
	frames(1);
	assert_int_equal(control_of(0), TD_CERR | TD_STALLED | TD_BABBLE | TD_NO_BYTES);
	assert_int_equal(inw(USBSTS), USBSTS_ERROR);
}

static void lost_packet_counts_down(void **state)
{
	(void)state;
	td(0, LINK_T, ACTIVE | TD_IOC, token(BH_PID_IN, 99, 1, 0, 64)); /* nobody at that address */
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
	pass_us(0);
	assert_int_equal(control_of(0), TD_ACTIVE | TD_IOC | 2 * TD_CERR_ONE | TD_CRC_TIMEOUT | TD_NO_BYTES);
	assert_int_equal(inw(USBSTS), 0);
	frames(3);
	assert_int_equal(control_of(0), TD_IOC | TD_CRC_TIMEOUT | TD_STALLED | TD_NO_BYTES);
	assert_int_equal(inw(USBSTS), USBSTS_ERROR | USBSTS_USBINT);
	assert_int_equal(element_of(0), TD(0));
}

static void lost_packet_without_limit_is_tried_for_ever(void **state)
{
	(void)state;
	td(0, LINK_T, TD_ACTIVE, token(BH_PID_IN, 99, 1, 0, 64));
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
	frames(20);
	assert_int_equal(control_of(0), TD_ACTIVE | TD_CRC_TIMEOUT | TD_NO_BYTES);
	assert_int_equal(inw(USBSTS), 0);
	assert_true(counters()->walks < 200);
}

static void success_clears_old_error_bits(void **state)
{
	(void)state;
	bulk_out(1, 0);
	fake_put32(&guest, TD(0) + 4, TD_ACTIVE | TD_CERR_ONE | TD_NAK | TD_CRC_TIMEOUT | TD_BITSTUFF);
	frames(1);
	assert_int_equal(control_of(0), TD_CERR_ONE | 63);
}

static void wrong_speed_is_not_heard(void **state)
{
	(void)state;
	td(0, LINK_T, TD_ACTIVE | TD_CERR_ONE | TD_LS, token(BH_PID_OUT, 0, 1, 0, 8));
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
	frames(1);
	assert_int_equal(control_of(0), TD_LS | TD_STALLED | TD_CRC_TIMEOUT | TD_NO_BYTES);
	assert_int_equal(device.submits, 0);
}

static void nonsense_is_a_process_error(void **state)
{
	static const uint32_t nonsense[] = {0x00, 0xff, 0xa5, BH_PID_IN | 0x500u << 21, BH_PID_OUT | 0x7feu << 21};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(nonsense); i++) {
		td(0, LINK_T, ACTIVE, nonsense[i]);
		qh(0, LINK_T, TD(0));
		frame_list(QH(0) | LINK_Q);
		run();
		frames(1);
		assert_int_equal(inw(USBSTS), USBSTS_HCPE | USBSTS_HCH);
		assert_int_equal(inw(USBCMD) & USBCMD_RS, 0);
		outw(USBINTR, 0);
		assert_true(guest.line); /* cannot be masked */
		outw(USBSTS, USBSTS_HCPE);
		assert_false(guest.line);
		assert_int_equal(control_of(0), ACTIVE);
	}
}

static void memory_that_is_not_there_is_a_system_error(void **state)
{
	(void)state;
	for (int what = 0; what < 4; what++) {
		bulk_out(1, 0);
		if (what == 0)
			out(FRBASEADD, 4, 0x7ff00000);
		if (what == 1)
			frame_list(0x7ff00000 | LINK_Q);
		if (what == 2)
			qh(0, LINK_T, 0x7ff00000);
		if (what == 3)
			fake_put32(&guest, TD(0) + 12, FAKE_MEMORY_SIZE - 63);
		outw(USBCMD, USBCMD_RS);
		frames(1);
		assert_int_equal(inw(USBSTS), USBSTS_HSE | USBSTS_HCH);
		assert_true(guest.line);
		outw(USBSTS, USBSTS_HSE);
		out(FRBASEADD, 4, FRAME_LIST);
	}
	assert_int_equal(device.submits, 0);
}

/* The owner of the memory takes a region away before it gives it back. */
static void memory_on_the_move_is_no_error(void **state)
{
	struct bh_region region;

	(void)state;
	device.hold = true;
	bulk_out(2, 0);
	pass_us(0);
	assert_int_equal(device.submits, 1);
	assert_int_equal(bh_memory_remove(&guest.guest.memory, 0, FAKE_MEMORY_SIZE, &region), 0);
	bh_pci_memory_changed(bh_uhci_pci(uhci));
	frames(20);
	assert_int_equal(inw(USBSTS), 0);
	bh_memory_add(&guest.guest.memory, 0, FAKE_MEMORY_SIZE, guest.memory, BH_MEMORY_READ | BH_MEMORY_WRITE);
	bh_pci_memory_changed(bh_uhci_pci(uhci));
	fake_device_end(&device, BH_SUCCESS, 128);
	frames(5);
	assert_int_equal(element_of(0), LINK_T);
	assert_int_equal(device.submits, 1);
	outw(USBSTS, USBSTS_USBINT);

	bh_memory_remove(&guest.guest.memory, 0, FAKE_MEMORY_SIZE, &region);
	bh_pci_memory_changed(bh_uhci_pci(uhci));
	frames(150); /* gone for good: an error after all */
	assert_int_equal(inw(USBSTS), USBSTS_HSE | USBSTS_HCH);
}

#define FAR 0xe0000u /* a region of its own, from here to the end */

/* Four packets of 64 bytes, of which the last two descriptors, or all data, are far. */
static void far_queue(bool descriptors)
{
	bulk_out(4, 0);
	for (unsigned i = 0; i < 4; i++) {
		uint32_t at = descriptors && i >= 2 ? FAR + 16 * i : TD(i);
		uint32_t next = descriptors && i >= 1 ? FAR + 16 * (i + 1) : TD(i + 1);

		memset(guest.memory + FAR + 0x100 + 64 * i, (int)(i + 1), 64);
		put_td(at, i < 3 ? next : LINK_T, ACTIVE, token(BH_PID_OUT, 0, 1, i & 1, 64), FAR + 0x100 + 64 * i);
		if (descriptors)
			fake_put32(&guest, at + 12, BUFFER(i));
	}
}

static void far_memory(bool there)
{
	struct bh_memory *m = &guest.guest.memory;

	if (there)
		bh_memory_add(m, FAR, FAKE_MEMORY_SIZE - FAR, guest.memory + FAR, BH_MEMORY_READ | BH_MEMORY_WRITE);
	else
		assert_int_equal(bh_memory_remove(m, FAR, FAKE_MEMORY_SIZE - FAR, NULL), 0);
	bh_pci_memory_changed(bh_uhci_pci(uhci));
}

/* Away while the device has the data, and there again before it is reported, or only after that. */
static void part_of_memory_on_the_move(bool descriptors, bool ends_meanwhile)
{
	struct bh_memory *m = &guest.guest.memory;
	uint32_t last = descriptors ? FAR + 16 * 3 : TD(3);

	assert_int_equal(bh_memory_remove(m, 0, FAKE_MEMORY_SIZE, NULL), 0);
	bh_memory_add(m, 0, FAR, guest.memory, BH_MEMORY_READ | BH_MEMORY_WRITE);
	far_memory(true);
	pass_us(200000);
	device.hold = true;
	far_queue(descriptors);
	frames(5);
	assert_int_equal(device.submits, 1);
	assert_int_equal(device.held->length, 256);
	far_memory(false);
	frames(10);
	assert_int_equal(device.cancels, 0);
	if (ends_meanwhile)
		fake_device_end(&device, BH_SUCCESS, 256);
	frames(10);
	far_memory(true);
	frames(5);
	if (!ends_meanwhile)
		fake_device_end(&device, BH_SUCCESS, 256);
	frames(5);
	assert_int_equal(element_of(0), LINK_T);
	assert_int_equal(fake_get32(&guest, last + 4) & ENDED, 0);
	assert_int_equal(device.submits, 1); /* no byte twice */
	assert_int_equal(engine()->failures + engine()->mismatches + engine()->ahead_bytes, 0);
	assert_int_equal(counters()->host_errors, 0);
}

static void memory_on_the_move_is_no_change_of_mind(void **state)
{
	for (int descriptors = 0; descriptors < 2; descriptors++)
		for (int ends_meanwhile = 0; ends_meanwhile < 2; ends_meanwhile++) {
			part_of_memory_on_the_move(descriptors, ends_meanwhile);
			teardown(state);
			setup_running(state);
		}
}

static void no_dma_without_bus_mastering(void **state)
{
	(void)state;
	bus_master(false);
	bulk_out(1, 0);
	frames(5);
	assert_int_equal(control_of(0), ACTIVE | TD_IOC);
	assert_int_equal(device.submits, 0);
	assert_int_equal(inw(FRNUM), 5);
	bus_master(true);
	pass_us(0);
	assert_int_equal(element_of(0), LINK_T);
}

static void interrupt_of_an_inactive_descriptor_comes_once_a_frame(void **state)
{
	uint64_t before;

	(void)state;
	td(0, LINK_T, TD_IOC, 0);
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
	frames(1);
	before = counters()->interrupts;
	for (int i = 0; i < 10; i++) {
		outw(USBSTS, USBSTS_USBINT); /* each write makes it look again, within one frame */
		pass_us(10);
	}
	assert_int_equal(counters()->interrupts, before);
	frames(1);
	assert_int_equal(counters()->interrupts, before + 1);
}

/* However many slices a frame's walk takes until it comes to it. */
static void interrupt_of_an_inactive_descriptor_comes_when_the_walk_comes_there(void **state)
{
	const unsigned empty = 6000;
	uint64_t before;

	(void)state;
	td(0, LINK_T, TD_IOC, 0);
	qh(0, LINK_T, TD(0));
	for (unsigned i = 0; i < empty; i++)
		put_qh(0x60000 + 16 * i, (i + 1 < empty ? 0x60000 + 16 * (i + 1) : QH(0)) | LINK_Q, LINK_T);
	frame_list(0x60000 | LINK_Q);
	frames(3);
	before = counters()->interrupts;
	for (unsigned n = 1; n <= 10; n++) {
		uint64_t walks = counters()->walks;

		outw(USBSTS, USBSTS_USBINT);
		frames(1);
		assert_true(counters()->walks >= walks + 2); /* slices */
		assert_int_equal(inw(USBSTS), USBSTS_USBINT);
		assert_int_equal(counters()->interrupts, before + n);
	}
}

static void periodic_endpoint_is_answered_once_a_frame(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++)
		td(i, i < 3 ? TD(i + 1) | LINK_VF : LINK_T, ACTIVE, token(BH_PID_IN, 0, 3, i & 1, 8));
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
	pass_us(900);
	assert_int_equal(element_of(0), TD(1) | LINK_VF);
	frames(1);
	assert_int_equal(element_of(0), TD(2) | LINK_VF);
}

static void isochronous_is_answered_as_by_nobody(void **state)
{
	(void)state;
	td(0, TD(1), TD_ACTIVE | TD_IOS | TD_IOC, token(BH_PID_IN, 0, 4, 0, 100));
	td(1, LINK_T, TD_ACTIVE | TD_IOS, token(BH_PID_OUT, 0, 5, 0, 100));
	frame_list(LINK_T);
	fake_put32(&guest, FRAME_LIST + 4 * 3, TD(0));
	frames(2);
	assert_int_equal(control_of(0), TD_ACTIVE | TD_IOS | TD_IOC); /* not before its frame */
	pass_us(1900);
	assert_int_equal(control_of(0), TD_IOS | TD_IOC | TD_CRC_TIMEOUT | TD_NO_BYTES);
	assert_int_equal(control_of(1), TD_IOS | 99);
	assert_int_equal(inw(USBSTS), USBSTS_ERROR); /* the interrupt comes when the frame is over */
	frames(1);
	assert_int_equal(inw(USBSTS), USBSTS_ERROR | USBSTS_USBINT);
}

static void late_frames_are_walked_in_order_and_old_ones_left(void **state)
{
	(void)state;
	frame_list(LINK_T);
	for (unsigned i = 0; i < 40; i++) {
		td(i, LINK_T, TD_ACTIVE | TD_IOS, token(BH_PID_OUT, 0, 5, 0, 8));
		fake_put32(&guest, FRAME_LIST + 4 * (i + 1), TD(i));
	}
	pass_us(0); /* frame 0 */
	guest.now_us += 30 * 1000;
	pass_us(0);
	for (unsigned i = 0; i < 40; i++)
		assert_int_equal(!(control_of(i) & TD_ACTIVE), i >= 14 && i < 30);
	assert_int_equal(counters()->frames_lost, 14);
}

static void guest_that_takes_a_descriptor_back_is_not_overwritten(void **state)
{
	(void)state;
	device.hold = true;
	bulk_in(1, TD_IOC);
	frames(1);
	fake_put32(&guest, TD(0) + 4, TD_CERR); /* the driver deactivates it */
	fake_device_end(&device, BH_SUCCESS, 64);
	frames(2);
	assert_int_equal(control_of(0), TD_CERR);
	assert_int_equal(element_of(0), TD(0));
}

static void new_work_is_found_quickly_while_a_burst_lasts(void **state)
{
	(void)state;
	bulk_out(1, 0);
	pass_us(0);
	assert_int_equal(element_of(0), LINK_T);
	bulk_out(1, 0);
	pass_us(300); /* no register was written, no frame has begun */
	assert_int_equal(element_of(0), LINK_T);
	frames(10);
	assert_true(counters()->walks < 80); /* and then it is one look a frame */
	assert_int_equal(guest.run_at_us % 1000, 0);
}

static void idle_schedule_is_looked_at_less_often(void **state)
{
	uint64_t walks;

	(void)state;
	frames(200);
	walks = counters()->walks;
	frames(100);
	assert_int_equal(counters()->walks - walks, 100); /* every frame is walked, */
	assert_true(guest.run_at_us - guest.now_us > 1000); /* several at a time */
	bulk_out(1, 0);
	frames(4);
	assert_int_equal(element_of(0), LINK_T);
	bus_master(false);
	pass_us(0);
	assert_true(guest.run_at_us == UINT64_MAX); /* nothing can be looked at */
}

static void a_keyboard_that_is_not_touched_is_looked_at_less_often(void **state)
{
	(void)state;
	device.hold = true;
	td(0, LINK_T, ACTIVE | TD_IOC, token(BH_PID_IN, 0, 3, 0, 8));
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
	frames(300);
	assert_non_null(device.held);
	assert_true(guest.run_at_us - guest.now_us > 1000);
	fake_device_end(&device, BH_SUCCESS, 8);
	pass_us(0); /* a key: at once */
	assert_int_equal(control_of(0) & TD_ACTIVE, 0);
}

static void pace_keeps_to_the_wire(void **state)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;

	(void)state;
	config.pace = true;
	make(&config);
	bh_bus_attach(bh_uhci_bus(uhci), 0, &device.device);
	enable_port(0);
	run();
	bulk_out(60, 0);
	qh(0, QH(0) | LINK_Q, TD(0));
	pass_us(999);
	assert_int_equal(element_of(0), TD(19)); /* 19 packets of 64 bytes fit a frame (USB 2.0, table 5-9) */
	frames(1);
	assert_int_equal(element_of(0), TD(38));
}

/* --- control transfers ------------------------------------------------------------------------------ */

static void queue(void)
{
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
}

static void control_in(void **state)
{
	(void)state;
	setup_packet(0, TD(1), 0, "\x80\x06\x00\x01\x00\x00\x12\x00"); /* 18 bytes in packets of 8 */
	td(1, TD(2), ACTIVE | TD_SPD, token(BH_PID_IN, 0, 0, 1, 8));
	td(2, TD(3), ACTIVE | TD_SPD, token(BH_PID_IN, 0, 0, 0, 8));
	td(3, TD(4), ACTIVE, token(BH_PID_IN, 0, 0, 1, 2));
	td(4, LINK_T, ACTIVE | TD_IOC, token(BH_PID_OUT, 0, 0, 1, 0));
	queue();
	frames(1);
	assert_int_equal(element_of(0), LINK_T);
	assert_int_equal(device.submits, 1);
	assert_int_equal(guest.memory[BUFFER(3)], 16 * 5 + 1);
	assert_int_equal(control_of(3) & TD_ACTLEN, 1);
	assert_int_equal(control_of(4), TD_CERR | TD_IOC | TD_NO_BYTES);
}

static void control_in_shorter_than_asked_ends_in_a_zero_length_packet(void **state)
{
	(void)state;
	device.actual_limit = 8;
	setup_packet(0, TD(1), 0, "\x80\x06\x00\x01\x00\x00\x12\x00");
	td(1, TD(2), ACTIVE, token(BH_PID_IN, 0, 0, 1, 8));
	td(2, TD(3), ACTIVE, token(BH_PID_IN, 0, 0, 0, 8));
	td(3, LINK_T, ACTIVE, token(BH_PID_OUT, 0, 0, 1, 0));
	queue();
	frames(1);
	assert_int_equal(control_of(2) & TD_ACTLEN, TD_NO_BYTES);
	assert_int_equal(element_of(0), LINK_T);
}

static void control_out_fails_at_status(void **state)
{
	(void)state;
	device.status = BH_STALL;
	setup_packet(0, TD(1), 0, "\x21\x09\x00\x00\x00\x00\x0a\x00");
	td(1, TD(2), ACTIVE, token(BH_PID_OUT, 0, 0, 1, 8));
	td(2, TD(3), ACTIVE, token(BH_PID_OUT, 0, 0, 0, 2));
	td(3, LINK_T, ACTIVE, token(BH_PID_IN, 0, 0, 1, 0));
	memcpy(guest.memory + BUFFER(1), "12345678", 8);
	memcpy(guest.memory + BUFFER(2), "90", 2);
	queue();
	frames(1);
	assert_memory_equal(device.out, "1234567890", 10);
	assert_int_equal(control_of(2) & (TD_STALLED | TD_ACTIVE), 0);
	assert_int_equal(control_of(3) & (TD_STALLED | TD_ACTIVE), TD_STALLED);
}

static void control_in_stalls_at_its_data(void **state)
{
	(void)state;
	device.status = BH_STALL;
	device.actual_limit = 0;
	setup_packet(0, TD(1), 0, "\x80\x06\x00\x0f\x00\x00\x12\x00");
	td(1, TD(2), ACTIVE, token(BH_PID_IN, 0, 0, 1, 8));
	queue();
	frames(1);
	assert_int_equal(control_of(1) & (TD_STALLED | TD_ACTIVE), TD_STALLED);
	device.status = BH_SUCCESS; /* and the next request is heard */
	device.actual_limit = 64;
	device.submits = 0;
	control_in(state);
}

static void set_address_takes_effect_after_status(void **state)
{
	(void)state;
	setup_packet(0, TD(1), 0, "\x00\x05\x05\x00\x00\x00\x00\x00");
	td(1, LINK_T, ACTIVE, token(BH_PID_IN, 0, 0, 1, 0));
	queue();
	frames(1);
	assert_int_equal(element_of(0), LINK_T);
	assert_int_equal(device.submits, 0);
	setup_packet(0, TD(1), 5, "\x00\x09\x03\x00\x00\x00\x00\x00"); /* at its new address: SET_CONFIGURATION 3 */
	td(1, LINK_T, ACTIVE, token(BH_PID_IN, 5, 0, 1, 0));
	queue();
	frames(1);
	assert_int_equal(element_of(0), LINK_T);
	assert_int_equal(device.configuration, 3);
	enable_port(0); /* a reset brings it back to address 0 */
	setup_packet(0, TD(1), 5, "\x00\x09\x03\x00\x00\x00\x00\x00");
	queue();
	frames(4);
	assert_int_equal(control_of(0) & TD_STALLED, TD_STALLED);
}

static void clear_halt_and_set_interface_are_operations(void **state)
{
	(void)state;
	setup_packet(0, TD(1), 0, "\x02\x01\x00\x00\x82\x00\x00\x00");
	td(1, TD(2), ACTIVE, token(BH_PID_IN, 0, 0, 1, 0));
	setup_packet(2, TD(3), 0, "\x01\x0b\x02\x00\x01\x00\x00\x00");
	td(3, LINK_T, ACTIVE, token(BH_PID_IN, 0, 0, 1, 0));
	queue();
	frames(1);
	assert_int_equal(element_of(0), LINK_T);
	assert_int_equal(device.halted_cleared, 0x82);
	assert_int_equal(device.interface, 1);
	assert_int_equal(device.alternate, 2);
	assert_int_equal(device.submits, 0);
}

static void new_setup_cancels_the_old_request(void **state)
{
	(void)state;
	device.hold = true;
	setup_packet(0, TD(1), 0, "\x80\x06\x00\x01\x00\x00\x12\x00");
	td(1, LINK_T, ACTIVE, token(BH_PID_IN, 0, 0, 1, 8));
	queue();
	frames(1);
	assert_non_null(device.held);
	device.hold = false;
	device.submits = 0;
	control_in(state);
	assert_int_equal(device.cancels, 1);
}

static void token_without_request_stalls(void **state)
{
	(void)state;
	td(0, LINK_T, ACTIVE, token(BH_PID_IN, 0, 0, 1, 8));
	queue();
	frames(1);
	assert_int_equal(control_of(0) & TD_STALLED, TD_STALLED);
}

static void setup_to_another_endpoint_is_not_answered(void **state)
{
	(void)state;
	td(0, LINK_T, TD_ACTIVE | TD_CERR_ONE, token(BH_PID_SETUP, 0, 1, 0, 8));
	queue();
	frames(1);
	assert_int_equal(control_of(0) & (TD_STALLED | TD_CRC_TIMEOUT), TD_STALLED | TD_CRC_TIMEOUT);
	td(0, LINK_T, TD_ACTIVE | TD_CERR_ONE, token(BH_PID_SETUP, 0, 0, 0, 7)); /* nor one of seven bytes */
	queue();
	frames(1);
	assert_int_equal(control_of(0) & (TD_STALLED | TD_CRC_TIMEOUT), TD_STALLED | TD_CRC_TIMEOUT);
}

/* Among bulk packets: those before it arrive, it is answered by nobody, those after it wait. */
static void setup_among_bulk_packets_is_none_of_them(void **state)
{
	(void)state;
	bulk_out(4, 0);
	td(2, TD(3), ACTIVE, token(BH_PID_SETUP, 0, 1, 0, 64));
	frames(10);
	assert_int_equal(device.submits, 1);
	assert_memory_equal(device.out, guest.memory + BUFFER(0), 64);
	assert_memory_equal(device.out + 64, guest.memory + BUFFER(1), 64);
	assert_int_equal(device.out[128], 0);
	assert_int_equal(control_of(0) & ENDED, 0);
	assert_int_equal(control_of(1) & ENDED, 0);
	assert_int_equal(control_of(2) & ENDED, LOST);
	assert_int_equal(element_of(0), TD(2));
	assert_int_equal(control_of(3), ACTIVE | TD_IOC);

	qh(0, LINK_T, TD(3)); /* the driver gives up on it */
	frames(2);
	assert_int_equal(device.submits, 2);
	assert_memory_equal(device.out, guest.memory + BUFFER(3), 64);
	assert_int_equal(engine()->ahead_bytes, 0);

	bulk_out(2, 0); /* and at the head, right behind one that was heard */
	td(1, LINK_T, ONCE, token(BH_PID_SETUP, 0, 1, 1, 64));
	frames(2);
	assert_int_equal(device.submits, 3);
	assert_int_equal(control_of(0) & ENDED, 0);
	assert_int_equal(control_of(1) & ENDED, LOST);
}

/* --- resets and removal in the middle ---------------------------------------------------------------- */

static void resets_cancel_what_runs(void **state)
{
	(void)state;
	for (int how = 0; how < 4; how++) {
		enable_port(0);
		run();
		device.cancels = device.submits = 0;
		device.hold = true;
		bulk_out(4, 0);
		frames(1);
		assert_non_null(device.held);
		if (how == 0)
			outw(PORTSC, PORTSC_PR);
		if (how == 1)
			outw(USBCMD, USBCMD_HCRESET);
		if (how == 2)
			outw(USBCMD, USBCMD_GRESET);
		if (how == 3)
			bh_pci_reset(bh_uhci_pci(uhci));
		assert_int_equal(device.cancels, 1);
		assert_null(device.held);
		outw(USBCMD, 0);
		bus_master(true);
	}
}

static void device_pulled_in_mid_transfer(void **state)
{
	(void)state;
	device.hold = true;
	bulk_out(4, 0);
	frames(1);
	bh_device_detach(&device.device); /* by itself */
	assert_int_equal(inw(PORTSC) & (PORTSC_CCS | PORTSC_CSC), PORTSC_CSC);
	frames(5);
	assert_int_equal(device.destroyed, 1);
	assert_int_equal(control_of(0) & TD_STALLED, TD_STALLED);
}

/* [0093]: nothing answers until the port is reset; and if the guest does not, the device comes back by itself. */
static void failure_answers_nothing_until_reset(void **state)
{
	(void)state;
	device.hold = true;
	bulk_out(4, 0);
	frames(1);
	guest.memory[BUFFER(0)] ^= 1; /* changed under our eyes, */
	fake_device_end(&device, BH_SUCCESS, 256); /* and the device has it */
	frames(4);
	assert_int_equal(control_of(0) & (TD_STALLED | TD_CRC_TIMEOUT), TD_STALLED | TD_CRC_TIMEOUT);
	assert_int_equal(inw(PORTSC) & PORTSC_CCS, PORTSC_CCS);
	assert_int_equal(bh_uhci_bus(uhci)->engine.counters.failures, 1);
	bulk_in(1, 0); /* no other endpoint of it answers either */
	frames(4);
	assert_int_equal(control_of(0) & (TD_STALLED | TD_CRC_TIMEOUT), TD_STALLED | TD_CRC_TIMEOUT);
	device.hold = false;
	enable_port(0);
	bulk_out(4, 0);
	frames(1);
	assert_int_equal(element_of(0), LINK_T);
}

static void failure_without_reset_reconnects(void **state)
{
	(void)state;
	device.hold = true;
	bulk_out(4, 0);
	frames(1);
	guest.memory[BUFFER(0)] ^= 1;
	fake_device_end(&device, BH_SUCCESS, 256);
	frames(900);
	assert_int_equal(inw(PORTSC) & PORTSC_CCS, PORTSC_CCS);
	frames(150);
	assert_int_equal(inw(PORTSC) & (PORTSC_CCS | PORTSC_CSC), PORTSC_CSC);
	outw(PORTSC, PORTSC_CSC | PORTSC_PEC | PORTSC_PR); /* a driver may do anything now */
	outw(PORTSC, 0);
	frames(250);
	assert_int_equal(inw(PORTSC) & (PORTSC_CCS | PORTSC_CSC), PORTSC_CCS | PORTSC_CSC);
	device.hold = false;
	enable_port(0);
	bulk_out(4, 0);
	frames(1);
	assert_int_equal(element_of(0), LINK_T);
}

/* --- message-signalled interrupts --------------------------------------------------------------------- */

static void messages_are_sent_again_while_a_cause_remains(void **state)
{
	uint8_t pointer, enable[2] = {1, 0};

	(void)state;
	bh_pci_config_read(bh_uhci_pci(uhci), 0x34, &pointer, 1);
	bh_pci_config_write(bh_uhci_pci(uhci), pointer + 2u, enable, 2);
	device.status = BH_STALL;
	device.actual_limit = 0;
	bulk_out(1, 0); /* fails, with IOC: two causes */
	frames(1);
	assert_int_equal(guest.messages, 1);
	assert_false(guest.line);
	outw(USBSTS, USBSTS_USBINT);
	assert_int_equal(guest.messages, 2); /* the other is still there */
	outw(USBSTS, USBSTS_ERROR);
	assert_int_equal(guest.messages, 2);
}

#define STOPPED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
#define RUNNING(test) cmocka_unit_test_setup_teardown(test, setup_running, teardown)
#define BARE(test)    cmocka_unit_test_teardown(test, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		STOPPED(registers_after_reset),
		STOPPED(registers_take_what_they_may),
		STOPPED(registers_by_bytes_and_words),
		RUNNING(status_bits_are_cleared_by_writing_one),
		RUNNING(frame_number_is_locked_while_running),
		RUNNING(frame_number_follows_the_clock_between_runs),
		RUNNING(host_reset_clears_itself_and_everything),
		RUNNING(global_reset_stays_until_cleared),
		BARE(more_ports),
		STOPPED(port_reset_and_enable),
		STOPPED(empty_port_cannot_be_enabled),
		RUNNING(port_sees_unplugging),
		RUNNING(device_that_goes_while_its_port_is_reset_is_gone),
		RUNNING(port_suspends_and_resumes),
		RUNNING(suspended_port_is_woken_by_its_device),
		STOPPED(stopped_controller_notices_a_new_device),
		STOPPED(global_suspend_reaches_the_devices),
		RUNNING(a_batch_becomes_one_transfer),
		RUNNING(busy_writes_nothing),
		RUNNING(loop_of_queues_ends_after_an_idle_lap),
		RUNNING(loop_of_descriptors_ends),
		RUNNING(long_schedule_is_walked_to_its_end),
		RUNNING(endless_schedule_is_given_up),
		RUNNING(queue_stops_at_short_packet_if_told_to),
		RUNNING(queue_goes_on_after_short_packet_otherwise),
		RUNNING(zero_length_packet_is_written_back),
		RUNNING(stall_stops_the_queue),
		RUNNING(babble_stops_the_queue),
		RUNNING(lost_packet_counts_down),
		RUNNING(lost_packet_without_limit_is_tried_for_ever),
		RUNNING(success_clears_old_error_bits),
		RUNNING(wrong_speed_is_not_heard),
		RUNNING(nonsense_is_a_process_error),
		RUNNING(memory_that_is_not_there_is_a_system_error),
		RUNNING(memory_on_the_move_is_no_error),
		RUNNING(memory_on_the_move_is_no_change_of_mind),
		RUNNING(no_dma_without_bus_mastering),
		RUNNING(interrupt_of_an_inactive_descriptor_comes_once_a_frame),
		RUNNING(interrupt_of_an_inactive_descriptor_comes_when_the_walk_comes_there),
		RUNNING(periodic_endpoint_is_answered_once_a_frame),
		RUNNING(isochronous_is_answered_as_by_nobody),
		RUNNING(late_frames_are_walked_in_order_and_old_ones_left),
		RUNNING(guest_that_takes_a_descriptor_back_is_not_overwritten),
		RUNNING(new_work_is_found_quickly_while_a_burst_lasts),
		RUNNING(idle_schedule_is_looked_at_less_often),
		RUNNING(a_keyboard_that_is_not_touched_is_looked_at_less_often),
		BARE(pace_keeps_to_the_wire),
		RUNNING(control_in),
		RUNNING(control_in_shorter_than_asked_ends_in_a_zero_length_packet),
		RUNNING(control_out_fails_at_status),
		RUNNING(control_in_stalls_at_its_data),
		RUNNING(set_address_takes_effect_after_status),
		RUNNING(clear_halt_and_set_interface_are_operations),
		RUNNING(new_setup_cancels_the_old_request),
		RUNNING(token_without_request_stalls),
		RUNNING(setup_to_another_endpoint_is_not_answered),
		RUNNING(setup_among_bulk_packets_is_none_of_them),
		RUNNING(resets_cancel_what_runs),
		RUNNING(device_pulled_in_mid_transfer),
		RUNNING(failure_answers_nothing_until_reset),
		RUNNING(failure_without_reset_reconnects),
		RUNNING(messages_are_sent_again_while_a_cause_remains),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
