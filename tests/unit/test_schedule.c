/*
 * The schedule as hardware walks it: order, races with the guest, slices and their
 * marks, what ends a batch at the controller, interrupt masks, ports that are
 * silent. Where a guest changes its mind at the worst moment, it does so from
 * inside the device's submit.
 */
#include "fake_device.h"
#include "../../src/controller/uhci/internal.h"
#include "fake_driver.h"

/* --- the device: it writes down the order, and lets the guest act while it holds the packet ---- */

struct recorder {
	struct fake_device fake;
	uint8_t order[64]; /* endpoints submitted to */
	unsigned count;
	void (*meanwhile)(void); /* once */
	uint32_t moved;          /* bytes that a cancelled transfer ends with */
	struct bh_transfer *waiting; /* held besides fake.held, to the end */
};

static struct recorder device;

static void recorder_submit(struct bh_device *d, struct bh_transfer *t)
{
	void (*meanwhile)(void) = device.meanwhile;

	if (device.count < BH_COUNT(device.order))
		device.order[device.count++] = t->endpoint;
	device.meanwhile = NULL;
	device.fake.held = t;
	if (meanwhile)
		meanwhile();
	if (device.fake.held == t)
		fake_device_submit(d, t);
}

static void recorder_cancel(struct bh_device *d, struct bh_transfer *t)
{
	struct fake_device *f = fake_device_of(d);

	f->cancels++;
	if (f->held == t)
		fake_device_end(f, BH_CANCELLED, BH_MIN(device.moved, t->length));
}

/* --- the driver ------------------------------------------------------------------------------- */

#define MANY 0x60000u /* long schedules */

/* A new frame begins, and the controller gets exactly one slice of work. */
static void one_slice(void)
{
	guest.now_us += 1000;
	bh_uhci_run(uhci);
}

/* n empty queues in a row, the last one leading on. */
static void empty_queues(unsigned n, uint32_t link)
{
	for (unsigned i = 0; i < n; i++)
		put_qh(MANY + 16 * i, i + 1 < n ? (MANY + 16 * (i + 1)) | LINK_Q : link, LINK_T);
}

static void make(const struct bh_uhci_config *config)
{
	static struct bh_device_ops ops;

	ops = fake_device_ops;
	ops.submit = recorder_submit;
	ops.cancel = recorder_cancel;
	machine(config);
	memset(&device, 0, sizeof(device));
	fake_device_init(&device.fake, BH_SPEED_FULL);
	device.fake.device.ops = &ops;
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, &device.fake.device), 0);
	enable_port(0);
	run();
	pass_us(100);
}

static int setup(void **state)
{
	(void)state;
	make(&(struct bh_uhci_config)BH_UHCI_DEFAULTS);
	return 0;
}

static int setup_paced(void **state)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;

	(void)state;
	config.pace = true;
	make(&config);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (device.waiting)
		device.fake.held = device.waiting;
	machine_finish();
	return 0;
}

/* --- order ------------------------------------------------------------------------------------ */

/* 3.4.2: VF in the link goes down the queue, otherwise the next queue has its turn. */
static void queues_are_served_depth_first_or_breadth_first(void **state)
{
	static const struct {
		uint32_t vf;
		uint8_t order[4];
	} rows[] = {
		{0, {0x01, 0x82, 0x01, 0x82}},
		{LINK_VF, {0x01, 0x01, 0x82, 0x82}},
	};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		device.count = 0;
		fill_queue(0, 0, 2, BH_PID_OUT, 1, TD_IOC); /* IOC: a batch of its own for each */
		fill_queue(1, 2, 2, BH_PID_IN, 2, TD_IOC);
		fake_put32(&guest, TD(0), TD(1) | rows[i].vf);
		fake_put32(&guest, TD(2), TD(3) | rows[i].vf);
		qh(0, QH(1) | LINK_Q, TD(0));
		frame_list(QH(0) | LINK_Q);
		frames(1);
		assert_int_equal(device.count, 4);
		assert_memory_equal(device.order, rows[i].order, 4);
		assert_int_equal(element_of(0), LINK_T);
		assert_int_equal(element_of(1), LINK_T);
	}
}

/* --- the guest acts while the device has the packet ------------------------------------------- */

static void deactivate(void)
{
	fake_put32(&guest, TD(0) + 4, 0);
}

static void set_spd(void)
{
	fake_put32(&guest, TD(0) + 4, ACTIVE | TD_IOC | TD_SPD);
}

static void move_queue(void)
{
	fake_put32(&guest, QH(0) + 4, TD(3));
}

static void empty_queue(void)
{
	fake_put32(&guest, QH(0) + 4, LINK_T);
}

static void control_word_changed_meanwhile_is_left_alone(void **state)
{
	(void)state;
	device.meanwhile = deactivate;
	only_queue(BH_PID_OUT, 1, 1, TD_IOC);
	frames(1);
	assert_int_equal(device.count, 1);
	assert_int_equal(control_of(0), 0);
	assert_int_equal(element_of(0), TD(0));
	assert_int_equal(inw(USBSTS), 0);
	assert_int_equal(engine()->packets_out, 0);
}

/* It stays active: it is answered at the next look, with what the device did, once. */
static void changed_control_word_is_found_again(void **state)
{
	(void)state;
	device.meanwhile = set_spd;
	only_queue(BH_PID_OUT, 1, 1, TD_IOC);
	frames(2);
	assert_int_equal(device.count, 1);
	assert_int_equal(control_of(0), TD_CERR | TD_IOC | TD_SPD | 63);
	assert_int_equal(element_of(0), LINK_T);
}

static void queue_moved_by_the_guest_is_not_overwritten(void **state)
{
	(void)state;
	td(3, LINK_T, 0, 0);
	device.meanwhile = move_queue;
	only_queue(BH_PID_OUT, 1, 2, TD_IOC);
	frames(2);
	assert_int_equal(control_of(0), TD_CERR | TD_IOC | 63);
	assert_int_equal(element_of(0), TD(3));
	assert_int_equal(control_of(1), ACTIVE | TD_IOC); /* in no queue any more */
	assert_int_equal(device.count, 1);
}

static void depth_first_does_not_go_down_a_queue_the_guest_emptied(void **state)
{
	(void)state;
	device.meanwhile = empty_queue;
	only_queue(BH_PID_OUT, 1, 2, TD_IOC);
	fake_put32(&guest, TD(0), TD(1) | LINK_VF);
	frames(2);
	assert_int_equal(element_of(0), LINK_T);
	assert_int_equal(control_of(1), ACTIVE | TD_IOC);
	assert_int_equal(device.count, 1);
}

/* --- slices ------------------------------------------------------------------------------------- */

/* Every descriptor is offered exactly once a frame, however many slices it takes. */
static void long_schedule_goes_on_at_its_mark(void **state)
{
	const unsigned n = 6000;
	uint64_t offers;

	(void)state;
	device.fake.hold = true;
	for (unsigned i = 0; i < n; i++)
		put_td(MANY + 16 * i, i + 1 < n ? MANY + 16 * (i + 1) : LINK_T, ACTIVE,
		       token(BH_PID_OUT, 0, 1, 0, 64), BUFFER(0));
	frame_list(MANY);
	offers = engine()->offers;
	one_slice();
	assert_in_range(engine()->offers - offers, 1, n - 1); /* the rest has to wait */
	assert_int_equal(guest.run_at_us, 0);
	pass_us(0);
	assert_int_equal(engine()->offers - offers, n);
	assert_int_equal(device.count, 1);
}

/* A walk that the controller's stop cut off is over: the next one begins at the beginning. */
static void stopped_walk_leaves_no_mark(void **state)
{
	(void)state;
	qh(0, MANY | LINK_Q, LINK_T);
	empty_queues(6000, LINK_T);
	frame_list(QH(0) | LINK_Q);
	one_slice();
	assert_true(uhci->unfinished);
	out(USBCMD, 2, 0);
	out(USBCMD, 2, USBCMD_RS);
	assert_false(uhci->unfinished);
	assert_int_equal(uhci->mark, 0);
}

static void what_was_done_is_followed_up_before_the_rest(void **state)
{
	(void)state;
	only_queue(BH_PID_OUT, 1, 2, TD_IOC);
	qh(0, MANY | LINK_Q, TD(0));
	empty_queues(6000, LINK_T);
	one_slice();
	assert_int_equal(element_of(0), TD(1));
	bh_uhci_run(uhci);
	assert_int_equal(element_of(0), LINK_T);
}

/* Two queues for one endpoint, the later one served: it is not withdrawn because a slice ended before it. */
static void a_slice_is_not_a_whole_pass(void **state)
{
	(void)state;
	device.fake.hold = true;
	qh(0, MANY | LINK_Q, LINK_T);
	empty_queues(5000, QH(1) | LINK_Q);
	fill_queue(1, 4, 2, BH_PID_OUT, 1, 0);
	frame_list(QH(0) | LINK_Q);
	frames(2);
	assert_int_equal(device.count, 1);
	td(0, LINK_T, ACTIVE, token(BH_PID_OUT, 0, 1, 0, 64));
	fake_put32(&guest, QH(0) + 4, TD(0));
	frames(10);
	assert_int_equal(device.fake.cancels, 0);
}

/*
 * The same, where what stood before it has completed since the slice ended: there is less
 * to pass over than there was. What the guest then changes in place was never unlinked.
 */
static void a_slice_that_completed_much_does_not_pass_over_the_next(void **state)
{
	const unsigned busy = 9, packets = 256; /* with looking ahead, more than a slice */

	(void)state;
	device.fake.hold = true;
	for (unsigned q = 0; q <= busy; q++)
		qh(q, q < busy ? QH(q + 1) | LINK_Q : LINK_T, LINK_T);
	td(0, LINK_T, ACTIVE, token(BH_PID_OUT, 0, 1, 0, 64));
	fake_put32(&guest, QH(busy) + 4, TD(0));
	frame_list(QH(0) | LINK_Q);
	frames(2);
	assert_int_equal(device.count, 1);
	device.waiting = device.fake.held;
	device.fake.hold = false; /* what the others ask for is there at once */
	for (unsigned i = 0; i < busy * packets; i++)
		put_td(MANY + 16 * i, (i + 1) % packets ? MANY + 16 * (i + 1) + LINK_VF : LINK_T, ACTIVE,
		       token(BH_PID_IN, 0, 2, i & 1, 64), BUFFER(1));
	for (unsigned q = 0; q < busy; q++)
		fake_put32(&guest, QH(q) + 4, MANY + 16 * packets * q);
	one_slice();
	assert_int_equal(element_of(0), LINK_T);
	assert_int_equal(guest.run_at_us, 0);
	for (unsigned n = 0; n < 3; n++)
		bh_uhci_run(uhci);
	assert_int_equal(element_of(busy - 1), LINK_T);

	device.fake.held = device.waiting;
	device.waiting = NULL;
	fake_device_end(&device.fake, BH_SUCCESS, 64);
	guest.memory[BUFFER(0)] ^= 0xff;
	frames(2);
	assert_int_equal(engine()->failures, 1);
	assert_int_equal(engine()->ahead_bytes, 0);
	assert_int_equal(device.fake.cancels, 0);
}

/*
 * Frames have lists of their own: what was passed over in the second is not what was
 * visited in the first.
 */
static void slices_of_two_frames_are_not_one_pass(void **state)
{
	(void)state;
	device.fake.hold = true;
	only_queue(BH_PID_OUT, 1, 1, 0);
	frames(2);
	assert_int_equal(device.count, 1);
	empty_queues(5000, QH(0) | LINK_Q);
	for (unsigned i = 0; i < FRAME_LIST_SIZE; i += 2)
		fake_put32(&guest, FRAME_LIST + 4 * i, MANY | LINK_Q);
	if (inw(FRNUM) & 1)
		frames(1);
	for (unsigned i = 0; i < 6; i++)
		one_slice(); /* a slow machine: no more than one in a frame */
	fake_device_end(&device.fake, BH_SUCCESS, 64);
	guest.memory[BUFFER(0)] ^= 0xff; /* it was linked all the time */
	frames(4);
	assert_int_equal(engine()->failures, 1);
	assert_int_equal(engine()->ahead_bytes, 0);
}

static void queue_is_visited_in_every_frame_in_which_it_comes_first(void **state)
{
	uint64_t offers;

	(void)state;
	device.fake.hold = true;
	only_queue(BH_PID_OUT, 1, 1, 0);
	frames(2);
	empty_queues(5000, QH(0) | LINK_Q);
	for (unsigned i = 0; i < FRAME_LIST_SIZE; i += 2)
		fake_put32(&guest, FRAME_LIST + 4 * i, MANY | LINK_Q);
	offers = engine()->offers;
	for (unsigned i = 0; i < 20; i++)
		one_slice();
	assert_in_range(engine()->offers - offers, 5, 100);
}

/* A driver takes a changed frame number for proof that what it unlinked before is let go of. */
static void frame_number_tells_of_a_walk_without_what_was_unlinked(void **state)
{
	const unsigned busy = 18, packets = 256;
	uint16_t number;

	(void)state;
	device.fake.hold = true;
	for (unsigned q = 0; q <= busy; q++)
		qh(q, q < busy ? QH(q + 1) | LINK_Q : LINK_T, LINK_T);
	td(0, LINK_T, ACTIVE, token(BH_PID_OUT, 0, 1, 0, 64));
	fake_put32(&guest, QH(0) + 4, TD(0));
	frame_list(QH(0) | LINK_Q);
	frames(2);
	assert_int_equal(device.count, 1);
	device.waiting = device.fake.held;
	device.fake.hold = false;
	for (unsigned i = 0; i < busy * packets; i++)
		put_td(MANY + 16 * i, (i + 1) % packets ? MANY + 16 * (i + 1) + LINK_VF : LINK_T, ACTIVE,
		       token(BH_PID_IN, 0, 2, i & 1, 64), BUFFER(1));
	for (unsigned q = 1; q <= busy; q++)
		fake_put32(&guest, QH(q) + 4, MANY + 16 * packets * (q - 1));
	one_slice();
	assert_int_equal(element_of(1), LINK_T);
	assert_int_equal(guest.run_at_us, 0);
	frame_list(QH(1) | LINK_Q); /* unlinked, and then the number is read */
	number = inw(FRNUM);
	for (unsigned n = 0; n < 100 && inw(FRNUM) == number; n++)
		guest.now_us += 100;
	device.fake.held = device.waiting;
	device.waiting = NULL;
	fake_device_end(&device.fake, BH_SUCCESS, 64);
	guest.memory[BUFFER(0)] ^= 0xff;
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
	frames(4);
	assert_int_equal(engine()->failures, 0);
	assert_int_equal(engine()->ahead_bytes, 64);
}

/* The same, where memory was away for a moment and the walk broke off. */
static void a_walk_that_broke_off_is_not_a_whole_pass(void **state)
{
	static uint8_t far[4096];
	const uint32_t there = 0x200000;
	struct bh_memory *m = &guest.guest.memory;
	struct bh_region region;

	(void)state;
	device.fake.hold = true;
	assert_int_equal(bh_memory_add(m, there, sizeof(far), far, BH_MEMORY_READ | BH_MEMORY_WRITE), 0);
	bh_pci_memory_changed(bh_uhci_pci(uhci));
	fill_queue(1, 4, 2, BH_PID_OUT, 1, 0);
	memcpy(far, guest.memory + QH(1), 8);
	qh(0, there | LINK_Q, LINK_T);
	frame_list(QH(0) | LINK_Q);
	frames(10);
	assert_int_equal(device.count, 1);
	assert_int_equal(bh_memory_remove(m, there, sizeof(far), &region), 0);
	bh_pci_memory_changed(bh_uhci_pci(uhci));
	td(0, LINK_T, ACTIVE, token(BH_PID_OUT, 0, 1, 0, 64));
	fake_put32(&guest, QH(0) + 4, TD(0));
	frames(10);
	assert_int_equal(inw(USBSTS), 0);
	assert_int_equal(device.fake.cancels, 0);
	bh_memory_add(m, there, sizeof(far), far, BH_MEMORY_READ | BH_MEMORY_WRITE);
	bh_pci_memory_changed(bh_uhci_pci(uhci));
	frames(10);
	assert_int_equal(device.fake.cancels, 0);
}

/* The same, where there was no bus time left: what the guest then changes in place was never unlinked. */
static void a_packet_without_bus_time_was_still_there(void **state)
{
	unsigned k;

	(void)state;
	device.fake.hold = true;
	only_queue(BH_PID_OUT, 1, 60, 0);
	qh(0, QH(0) | LINK_Q, TD(0));
	frames(2);
	fake_device_end(&device.fake, BH_SUCCESS, device.fake.held->length);
	pass_us(999);
	k = (element_of(0) - TD(0)) / 16;
	assert_in_range(k, 1, 59); /* as many as the wire carries */
	guest.memory[BUFFER(k)] ^= 0xff;
	frames(3);
	assert_int_equal(engine()->failures, 1);
	assert_int_equal(engine()->ahead_bytes, 0);
}

/* The same again: another endpoint uses up several frames, while two queues wait for this one. */
static void an_endpoint_without_bus_time_is_not_withdrawn(void **state)
{
	(void)state;
	device.fake.hold = true;
	fill_queue(0, 0, 60, BH_PID_IN, 2, 0);
	for (unsigned i = 0; i < 59; i++)
		fake_put32(&guest, TD(i), TD(i + 1) | LINK_VF);
	qh(0, QH(1) | LINK_Q, LINK_T);
	fill_queue(1, 60, 1, BH_PID_OUT, 1, 0);
	qh(1, QH(2) | LINK_Q, TD(60));
	fill_queue(2, 61, 1, BH_PID_OUT, 1, 0);
	frame_list(QH(0) | LINK_Q);
	frames(2);
	assert_int_equal(device.count, 1);
	device.waiting = device.fake.held;
	device.fake.hold = false; /* the IN is there at once */
	fake_put32(&guest, QH(0) + 4, TD(0));
	frames(10);
	assert_int_equal(element_of(0), LINK_T);
	assert_int_equal(device.count, 2);
	assert_int_equal(device.fake.cancels, 0);
}

/* A thousand queues that lead into one long list: looking ahead is charged to the slice too. */
static void looking_ahead_uses_up_the_slice(void **state)
{
	const unsigned queues = 1000, n = 4000;
	const uint32_t heads = 0x28000, list = 0x30000;

	(void)state;
	device.fake.status = BH_STALL; /* at once, so that the next queue is looked at */
	device.fake.actual_limit = 0;
	for (unsigned i = 0; i < queues; i++) {
		qh(i, i + 1 < queues ? QH(i + 1) | LINK_Q : LINK_T, heads + 16 * i);
		put_td(heads + 16 * i, list, ACTIVE, token(BH_PID_OUT, 0, 1, 1, 64), 0xf0000);
	}
	for (unsigned i = 0; i < n; i++)
		put_td(list + 16 * i, i + 1 < n ? list + 16 * (i + 1) : LINK_T, ACTIVE,
		       token(BH_PID_OUT, 0, 1, i & 1, 64), 0xf0000);
	frame_list(QH(0) | LINK_Q);
	one_slice();
	assert_in_range(engine()->batches, 1, 8);
	frames(1100);
	for (unsigned i = 0; i < queues; i++)
		assert_int_equal(fake_get32(&guest, heads + 16 * i + 4) & TD_ACTIVE, 0);
}

/* --- what ends a batch at the controller --------------------------------------------------------- */

static void batches_end_where_the_controller_says(void **state)
{
	static const struct {
		const char *what;
		bool direct;            /* linked from the frame list, in no queue */
		uint32_t link;          /* flags of the first one's */
		uint32_t control, tok;  /* of the second one; flags, all of it (0: the next) */
		uint32_t pid, length;   /* expected of the transfer */
		enum bh_scan_end end;   /* and how it is counted */
	} rows[] = {
		{"the next descriptor", false, 0, 0, 0, BH_PID_OUT, 128, BH_SCAN_SUBLIST},
		{"the next descriptor, depth first", false, LINK_VF, 0, 0, BH_PID_OUT, 128, BH_SCAN_SUBLIST},
		{"the next descriptor, IN", false, 0, 0, 0, BH_PID_IN, 128, BH_SCAN_SUBLIST},
		{"a queue", false, LINK_Q, 0, 0, BH_PID_OUT, 64, BH_SCAN_SUBLIST},
		{"the end", false, LINK_T, 0, 0, BH_PID_OUT, 64, BH_SCAN_SUBLIST},
		{"an isochronous one", false, 0, TD_IOS, 0, BH_PID_OUT, 64, BH_SCAN_INVALID},
		{"one at low speed", false, 0, TD_LS, 0, BH_PID_OUT, 64, BH_SCAN_DESTINATION},
		{"one for another device", false, 0, 0, BH_PID_OUT | 9 << 8 | 1 << 15 | 1 << 19 | 63 << 21, BH_PID_OUT, 64,
		 BH_SCAN_DESTINATION},
		{"one for another endpoint", false, 0, 0, BH_PID_OUT | 2 << 15 | 1 << 19 | 63 << 21, BH_PID_OUT, 64,
		 BH_SCAN_DESTINATION},
		{"one the other way", false, 0, 0, BH_PID_IN | 1 << 15 | 1 << 19 | 63 << 21, BH_PID_OUT, 64,
		 BH_SCAN_DIRECTION},
		{"the same toggle", false, 0, 0, BH_PID_OUT | 1 << 15 | 63 << 21, BH_PID_OUT, 64, BH_SCAN_TOGGLE},
		{"a larger packet", false, 0, 0, BH_PID_OUT | 1 << 15 | 1 << 19 | 64 << 21, BH_PID_OUT, 64,
		 BH_SCAN_INVALID},
		{"a short packet", false, 0, 0, BH_PID_OUT | 1 << 15 | 1 << 19 | 9 << 21, BH_PID_OUT, 74, BH_SCAN_SHORT},
		{"one with IOC", false, 0, TD_IOC, 0, BH_PID_OUT, 128, BH_SCAN_NOTIFY},
		{"no such packet", false, 0, 0, 0x00 | 1 << 15 | 1 << 19 | 63 << 21, BH_PID_OUT, 64, BH_SCAN_INVALID},
		{"an illegal length", false, 0, 0, BH_PID_IN | 2 << 15 | 1 << 19 | 0x500u << 21, BH_PID_IN, 64,
		 BH_SCAN_INVALID},
		{"a list of their own", true, 0, 0, 0, BH_PID_OUT, 64, BH_SCAN_SUBLIST},
	};

	(void)state;
	device.fake.hold = true;
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		unsigned endpoint = rows[i].pid == BH_PID_IN ? 2 : 1;
		uint64_t ended = engine()->scan_end[rows[i].end], batches = engine()->batches;

		only_queue(rows[i].pid, endpoint, 2, 0);
		fake_put32(&guest, TD(0), TD(1) | rows[i].link);
		fake_put32(&guest, TD(1) + 4, ACTIVE | rows[i].control);
		if (rows[i].tok)
			fake_put32(&guest, TD(1) + 8, rows[i].tok);
		if (rows[i].direct)
			frame_list(TD(0));
		frames(1);
		assert_non_null(device.fake.held);
		if (device.fake.held->length != rows[i].length)
			fail_msg("SCAN met %s: %u bytes", rows[i].what, device.fake.held->length);
		assert_int_equal(engine()->batches - batches, 1);
		if (engine()->scan_end[rows[i].end] - ended != 1)
			fail_msg("SCAN met %s: not counted as \"%s\"", rows[i].what, bh_scan_end_name(rows[i].end));
		frame_list(LINK_T);
		enable_port(0); /* cancels it */
		frames(1);
	}
}

/* What a device of another speed would hear goes to nobody, and the device does not get it either. */
static void low_speed_packet_in_a_queue_is_heard_by_nobody(void **state)
{
	(void)state;
	only_queue(BH_PID_OUT, 1, 3, 0);
	fake_put32(&guest, TD(1) + 4, ACTIVE | TD_LS);
	frames(5);
	assert_int_equal(device.count, 1);
	assert_int_equal(device.fake.out[0], 1);
	assert_int_equal(device.fake.out[64], 0); /* nor did it come in one transfer with the first */
	assert_int_equal(control_of(0), TD_CERR | 63);
	assert_int_equal(control_of(1) & (TD_ACTIVE | LOST), LOST);
	assert_int_equal(control_of(2), ACTIVE);
}

/* --- short packets --------------------------------------------------------------------------------- */

static void spd_outside_a_queue_means_nothing(void **state)
{
	(void)state;
	device.fake.actual_limit = 10;
	td(0, TD(1), ACTIVE | TD_SPD, token(BH_PID_IN, 0, 2, 0, 64));
	td(1, LINK_T, ACTIVE | TD_SPD, token(BH_PID_IN, 0, 2, 1, 64));
	frame_list(TD(0));
	frames(1);
	assert_int_equal(control_of(0), TD_CERR | TD_SPD | 9);
	assert_int_equal(control_of(1), TD_CERR | TD_SPD | 9);
	assert_int_equal(inw(USBSTS), 0);
}

/* Whatever STATUS carries, against the rules; SPD is about IN. */
static void spd_of_an_out_means_nothing(void **state)
{
	(void)state;
	setup_packet(0, TD(1), 0, "\x80\x06\x00\x01\x00\x00\x08\x00");
	td(1, TD(2), ACTIVE | TD_SPD, token(BH_PID_IN, 0, 0, 1, 8));
	td(2, LINK_T, ACTIVE | TD_SPD, token(BH_PID_OUT, 0, 0, 1, 8));
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
	frames(1);
	assert_int_equal(control_of(2), TD_CERR | TD_SPD | 7);
	assert_int_equal(element_of(0), LINK_T);
	assert_int_equal(inw(USBSTS), 0);
}

/* --- interrupts ------------------------------------------------------------------------------------- */

static void cause_ioc(void)
{
	only_queue(BH_PID_OUT, 1, 1, TD_IOC);
	frames(1);
}

static void cause_short(void)
{
	device.fake.actual_limit = 10;
	only_queue(BH_PID_IN, 2, 1, TD_SPD);
	frames(1);
	device.fake.actual_limit = UINT32_MAX;
}

static void cause_error(void)
{
	td(0, LINK_T, ONCE, token(BH_PID_IN, 99, 1, 0, 64));
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
	frames(1);
}

static void cause_resume(void)
{
	outw(USBCMD, USBCMD_RS | USBCMD_EGSM);
	bh_device_wakeup(&device.fake.device);
	outw(USBCMD, USBCMD_RS);
}

static void every_cause_has_its_own_mask(void **state)
{
	static const struct {
		void (*cause)(void);
		uint16_t status, enable;
	} rows[] = {
		{cause_ioc, USBSTS_USBINT, USBINTR_IOC},
		{cause_short, USBSTS_USBINT, USBINTR_SHORT},
		{cause_error, USBSTS_ERROR, USBINTR_CRC},
		{cause_resume, USBSTS_RD, USBINTR_RESUME},
	};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		outw(USBINTR, ALL & (uint16_t)~rows[i].enable);
		rows[i].cause();
		frame_list(LINK_T);
		assert_int_equal(inw(USBSTS), rows[i].status);
		assert_false(guest.line);
		outw(USBINTR, rows[i].enable);
		assert_true(guest.line);
		outw(USBSTS, (uint16_t)~rows[i].status); /* another one's acknowledgement */
		assert_true(guest.line);
		outw(USBSTS, rows[i].status);
		assert_int_equal(inw(USBSTS), 0);
		assert_false(guest.line);
		outw(USBINTR, ALL); /* and no cause is left behind */
		assert_false(guest.line);
	}
}

/* --- silent ports ------------------------------------------------------------------------------------- */

/* Does the device at address 0 answer? */
static bool answers(void)
{
	td(0, LINK_T, ONCE, token(BH_PID_OUT, 0, 1, 0, 64));
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
	frames(2);
	assert_int_equal(control_of(0) & TD_ACTIVE, 0);
	outw(USBSTS, USBSTS_ERROR);
	if (control_of(0) & TD_STALLED)
		assert_int_equal(control_of(0) & LOST, LOST);
	return !(control_of(0) & TD_STALLED);
}

static void port_answers_only_enabled_and_awake(void **state)
{
	(void)state;
	assert_true(answers());
	outw(PORTSC, 0);
	assert_false(answers());
	outw(PORTSC, PORTSC_PE);
	assert_true(answers());
	outw(PORTSC, PORTSC_PE | PORTSC_SUSP);
	assert_false(answers());
	outw(PORTSC, PORTSC_PE);
	assert_true(answers());
}

/* No transaction at all (2.1.1): not even one that fails. */
static void nothing_is_executed_while_the_bus_sleeps(void **state)
{
	(void)state;
	outw(USBCMD, USBCMD_RS | USBCMD_EGSM);
	td(0, LINK_T, ONCE, token(BH_PID_OUT, 0, 1, 0, 64));
	qh(0, LINK_T, TD(0));
	frame_list(QH(0) | LINK_Q);
	frames(5);
	assert_int_equal(control_of(0), ONCE);
	outw(USBCMD, USBCMD_RS);
	frames(2);
	assert_int_equal(control_of(0) & ENDED, 0);
}

static void global_resume_leaves_a_suspended_port_alone(void **state)
{
	(void)state;
	outw(PORTSC, PORTSC_PE | PORTSC_SUSP);
	outw(USBCMD, USBCMD_RS | USBCMD_EGSM);
	outw(USBCMD, USBCMD_RS);
	assert_int_equal(inw(PORTSC) & PORTSC_SUSP, PORTSC_SUSP);
	assert_int_equal(device.fake.suspends, 1);
	assert_int_equal(device.fake.resumes, 0);
	assert_false(answers());
}

static void port_written_in_global_suspend_stays_asleep(void **state)
{
	(void)state;
	outw(USBCMD, USBCMD_RS | USBCMD_EGSM);
	outw(PORTSC, PORTSC_PE | PORTSC_CSC);
	assert_int_equal(device.fake.resumes, 0);
	outw(USBCMD, USBCMD_RS);
	assert_int_equal(device.fake.resumes, 1);
	assert_true(answers());
}

/* --- time, reset, plugging ------------------------------------------------------------------------------ */

/*
 * A driver unlinks, sees the frame number move on, and takes it that the
 * controller has let go: the descriptors are its own again.
 */
static void frame_number_moves_on_after_the_schedule_was_walked(void **state)
{
	uint16_t before;
	uint64_t walks;

	(void)state;
	device.fake.hold = true;
	only_queue(BH_PID_OUT, 1, 4, 0);
	frames(3);
	fake_device_end(&device.fake, BH_SUCCESS, 256); /* what it asks for has not been run yet */
	before = inw(FRNUM);
	frame_list(LINK_T);
	walks = bh_uhci_counters(uhci)->walks;
	guest.now_us += 2500; /* the server answers the client before the controller runs */
	assert_int_equal(inw(FRNUM), before + 2);
	assert_true(bh_uhci_counters(uhci)->walks > walks);
	memset(guest.memory + BUFFER(0), 0x77, 64);
	frame_list(QH(0) | LINK_Q);
	frames(4);
	assert_int_equal(engine()->failures, 0);
	assert_int_equal(control_of(0) & TD_STALLED, 0);
}

static void frame_number_waits_for_the_rest_of_a_long_schedule(void **state)
{
	uint16_t before;

	(void)state;
	frames(3);
	empty_queues(6000, LINK_T);
	frame_list(MANY | LINK_Q);
	before = inw(FRNUM);
	guest.now_us += 1000;
	assert_int_equal(inw(FRNUM), before); /* a slice was walked, and not all of it seen */
	pass_us(0);
	assert_int_equal(inw(FRNUM), before + 1);
}

static void global_reset_takes_no_other_command(void **state)
{
	(void)state;
	outw(USBCMD, USBCMD_GRESET);
	outw(USBCMD, USBCMD_GRESET | USBCMD_RS);
	assert_int_equal(inw(USBCMD), USBCMD_GRESET);
	assert_int_equal(inw(USBSTS), USBSTS_HCH);
	outw(USBCMD, USBCMD_RS);
	assert_int_equal(inw(USBSTS), 0);
	out(FRBASEADD, 4, FRAME_LIST);
	frames(3);
	assert_int_equal(inw(FRNUM), 3);
}

static void device_gone_while_stopped_is_removed(void **state)
{
	struct fake_device next;

	(void)state;
	outw(USBCMD, 0);
	bh_device_detach(&device.fake.device);
	assert_int_equal(inw(PORTSC) & PORTSC_CCS, 0);
	frames(5);
	assert_int_equal(device.fake.destroyed, 1);
	fake_device_init(&next, BH_SPEED_FULL);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, &next.device), 0);
	assert_int_equal(inw(PORTSC) & PORTSC_CCS, PORTSC_CCS);
	bh_bus_remove(bh_uhci_bus(uhci), 0, NULL, NULL);
	assert_int_equal(next.destroyed, 1);
}

static void pulled(void)
{
	bh_device_detach(&device.fake.device);
}

/* What it was given is cancelled there and then. */
static void device_gone_inside_submit_is_not_submitted_to_again(void **state)
{
	(void)state;
	device.meanwhile = pulled;
	only_queue(BH_PID_OUT, 1, 3, 0);
	frames(5);
	assert_int_equal(device.count, 1);
	assert_int_equal(device.fake.destroyed, 1);
	assert_int_equal(control_of(0) & (TD_ACTIVE | LOST), LOST);
}

#define TEST(test)  cmocka_unit_test_setup_teardown(test, setup, teardown)
#define PACED(test) cmocka_unit_test_setup_teardown(test, setup_paced, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(queues_are_served_depth_first_or_breadth_first),
		TEST(control_word_changed_meanwhile_is_left_alone),
		TEST(changed_control_word_is_found_again),
		TEST(queue_moved_by_the_guest_is_not_overwritten),
		TEST(depth_first_does_not_go_down_a_queue_the_guest_emptied),
		TEST(long_schedule_goes_on_at_its_mark),
		TEST(stopped_walk_leaves_no_mark),
		TEST(what_was_done_is_followed_up_before_the_rest),
		TEST(a_slice_is_not_a_whole_pass),
		TEST(a_slice_that_completed_much_does_not_pass_over_the_next),
		TEST(slices_of_two_frames_are_not_one_pass),
		TEST(queue_is_visited_in_every_frame_in_which_it_comes_first),
		TEST(frame_number_tells_of_a_walk_without_what_was_unlinked),
		TEST(a_walk_that_broke_off_is_not_a_whole_pass),
		PACED(a_packet_without_bus_time_was_still_there),
		PACED(an_endpoint_without_bus_time_is_not_withdrawn),
		TEST(looking_ahead_uses_up_the_slice),
		TEST(batches_end_where_the_controller_says),
		TEST(low_speed_packet_in_a_queue_is_heard_by_nobody),
		TEST(spd_outside_a_queue_means_nothing),
		TEST(spd_of_an_out_means_nothing),
		TEST(every_cause_has_its_own_mask),
		TEST(port_answers_only_enabled_and_awake),
		TEST(nothing_is_executed_while_the_bus_sleeps),
		TEST(global_resume_leaves_a_suspended_port_alone),
		TEST(port_written_in_global_suspend_stays_asleep),
		TEST(frame_number_moves_on_after_the_schedule_was_walked),
		TEST(frame_number_waits_for_the_rest_of_a_long_schedule),
		TEST(global_reset_takes_no_other_command),
		TEST(device_gone_while_stopped_is_removed),
		TEST(device_gone_inside_submit_is_not_submitted_to_again),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
