/*
 * The guest changes its mind ([0076], [0077], [0082], [0093]): eleven ways, in each
 * of the four states, in both directions, through a UHCI and to a device that ends a
 * cancelled transfer only when it is told to. A row of the table says what the device
 * moved and what the guest was told; everything is checked against it: packets in
 * order, descriptors, counters, and that nothing was started before what was there had
 * ended (the device asserts that at every submit).
 *
 * Not here, for there is no such thing: other data of an IN (its buffer's address may
 * change, and does), and an IN that leads to FAILURE (the device was sent nothing; an
 * OUT of its neighbour has to bring it there).
 */
#include "fake_driver.h"
#include "fake_pipes.h"

#include "../../src/usb/internal.h"

enum change {
	CANCEL,     /* another request stands at the head of the queue */
	DATA,       /* the third descriptor's bytes (OUT) or buffer (IN), in place */
	LIST,       /* the second leads to others */
	LONGER,     /* two more at the end */
	SHORTER,    /* it ends after the second */
	UNLINK,     /* the queue is in no frame for a while, then again, unchanged */
	CLEAR_HALT, /* of the endpoint, the queue being unlinked meanwhile, as drivers do */
	SET_CONFIGURATION, /* likewise */
	SET_INTERFACE,
	PORT_RESET,
	HOST_RESET,
};

static const char *const change_names[] = {"cancel",     "data",       "list",          "longer",     "shorter", "unlink",
                                           "clear halt", "set config", "set interface", "port reset", "host reset"};

#define NOTICED 1u  /* frames, at most, until a change of four descriptors is noticed */
#define PATIENCE 33u /* frames, at most, until the device is told of an unlinked queue */

static struct fake_pipes device;
static struct fake_pipe *out_pipe, *in_pipe;

static int make(const struct bh_uhci_config *config)
{
	machine(config);
	fake_pipes_init(&device);
	out_pipe = fake_pipes_add(&device, 0x01, 64);
	in_pipe = fake_pipes_add(&device, 0x82, 64);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, &device.device), 0);
	enable_port(0);
	run();
	frames(1);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return make(&(struct bh_uhci_config)BH_UHCI_DEFAULTS);
}

static int setup_failing(void **state)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;

	(void)state;
	config.engine.withdrawn_fails = true;
	return make(&config);
}

static int teardown(void **state)
{
	(void)state;
	machine_finish();
	assert_int_equal(device.destroyed, 1);
	return 0;
}

/* --- the table -------------------------------------------------------------------------- */

/*
 * Descriptors 0 to 3 are what the guest queued first, 8 and up what it queues instead
 * or besides. Letters of took and told: the descriptor's number in hexadecimal; c is
 * descriptor 2 after its data was changed, and '-' the first 36 bytes of descriptor 1.
 */
struct cell {
	enum change change;
	enum bh_state state;
	bool in;
	uint32_t moved;   /* WAIT: bytes the device had moved when the transfer ended */
	const char *took; /* OUT: by the device, in order */
	const char *told; /* descriptors that ended well, in order */
	char lost;        /* the one that got no response */
	enum bh_cancel cancel;
	unsigned mismatches, failures;
	uint32_t ahead, kept;
	uint32_t dropped; /* IN: bytes fetched that the guest never sees */
	uint32_t later;   /* bytes the device moved that somebody may still ask for */
};


static const struct cell cells[] = {
	/* IDLE: nothing was looked at yet; what the guest has last is what there is. */
	{CANCEL, BH_IDLE, false, .took = "89ab", .told = "89ab"},
	{DATA, BH_IDLE, false, .took = "01c3", .told = "0123"},
	{LIST, BH_IDLE, false, .took = "0189", .told = "0189"},
	{LONGER, BH_IDLE, false, .took = "012389", .told = "012389"},
	{SHORTER, BH_IDLE, false, .took = "01", .told = "01"},
	{UNLINK, BH_IDLE, false, .took = "0123", .told = "0123"},
	{CLEAR_HALT, BH_IDLE, false, .took = "0123", .told = "0123"},
	{SET_CONFIGURATION, BH_IDLE, false, .took = "0123", .told = "0123"},
	{SET_INTERFACE, BH_IDLE, false, .took = "0123", .told = "0123"},
	{PORT_RESET, BH_IDLE, false, .took = "0123", .told = "0123"},
	{HOST_RESET, BH_IDLE, false, .took = "0123", .told = "0123"},

	/* WAIT: cancelled, 100 bytes being with the device; the same descriptors are answered from them. */
	{CANCEL, BH_WAIT, false, 100, "0-89ab", "89ab", .cancel = BH_CANCEL_WITHDRAWN, .ahead = 100},
	{DATA, BH_WAIT, false, 100, "01c3", "0123", .cancel = BH_CANCEL_CHANGED, .mismatches = 1},
	{LIST, BH_WAIT, false, 100, "0189", "0189", .cancel = BH_CANCEL_CHANGED, .mismatches = 1},
	{LONGER, BH_WAIT, false, 256, "012389", "012389", .cancel = BH_CANCEL_NONE},
	{SHORTER, BH_WAIT, false, 100, "01", "01", .cancel = BH_CANCEL_CHANGED, .mismatches = 1},
	{UNLINK, BH_WAIT, false, 100, "0123", "0123", .cancel = BH_CANCEL_WITHDRAWN},
	{CLEAR_HALT, BH_WAIT, false, 100, "0-0123", "0123", .cancel = BH_CANCEL_WITHDRAWN, .ahead = 100},
	{SET_CONFIGURATION, BH_WAIT, false, 100, "0-0123", "0123", .cancel = BH_CANCEL_WITHDRAWN, .ahead = 100},
	{SET_INTERFACE, BH_WAIT, false, 100, "0-0123", "0123", .cancel = BH_CANCEL_WITHDRAWN, .ahead = 100},
	{PORT_RESET, BH_WAIT, false, 100, "0-0123", "0123", .cancel = BH_CANCEL_RESET, .ahead = 100},
	{HOST_RESET, BH_WAIT, false, 100, "0-0123", "0123", .cancel = BH_CANCEL_RESET, .ahead = 100},
	/* The device had taken nothing, */
	{CANCEL, BH_WAIT, false, 0, "89ab", "89ab", .cancel = BH_CANCEL_WITHDRAWN},
	{DATA, BH_WAIT, false, 0, "01c3", "0123", .cancel = BH_CANCEL_CHANGED, .mismatches = 1},
	{LIST, BH_WAIT, false, 0, "0189", "0189", .cancel = BH_CANCEL_CHANGED, .mismatches = 1},
	{UNLINK, BH_WAIT, false, 0, "0123", "0123", .cancel = BH_CANCEL_WITHDRAWN},
	{PORT_RESET, BH_WAIT, false, 0, "0123", "0123", .cancel = BH_CANCEL_RESET},
	/* all that precedes the change, */
	{DATA, BH_WAIT, false, 128, "01c3", "0123", .cancel = BH_CANCEL_CHANGED, .mismatches = 1},
	{LIST, BH_WAIT, false, 128, "0189", "0189", .cancel = BH_CANCEL_CHANGED, .mismatches = 1},
	{UNLINK, BH_WAIT, false, 128, "0123", "0123", .cancel = BH_CANCEL_WITHDRAWN},
	/* or all of it: a change in place is FAILURE then, and nothing else is. */
	{CANCEL, BH_WAIT, false, 256, "012389ab", "89ab", .cancel = BH_CANCEL_WITHDRAWN, .ahead = 256},
	{DATA, BH_WAIT, false, 256, "0123", "", '0', BH_CANCEL_CHANGED, .mismatches = 1, .failures = 1},
	{LIST, BH_WAIT, false, 256, "012389", "0189", .cancel = BH_CANCEL_CHANGED, .mismatches = 1, .ahead = 128},
	{SHORTER, BH_WAIT, false, 256, "0123", "01", .cancel = BH_CANCEL_CHANGED, .mismatches = 1, .ahead = 128},
	{UNLINK, BH_WAIT, false, 256, "0123", "0123", .cancel = BH_CANCEL_WITHDRAWN},
	{CLEAR_HALT, BH_WAIT, false, 256, "01230123", "0123", .cancel = BH_CANCEL_WITHDRAWN, .ahead = 256},
	{SET_CONFIGURATION, BH_WAIT, false, 256, "01230123", "0123", .cancel = BH_CANCEL_WITHDRAWN, .ahead = 256},
	{SET_INTERFACE, BH_WAIT, false, 256, "01230123", "0123", .cancel = BH_CANCEL_WITHDRAWN, .ahead = 256},
	{PORT_RESET, BH_WAIT, false, 256, "01230123", "0123", .cancel = BH_CANCEL_RESET, .ahead = 256},

	/* DATA: the device has all of it, and the guest was told nothing. */
	{CANCEL, BH_DATA, false, .took = "012389ab", .told = "89ab", .ahead = 256},
	{DATA, BH_DATA, false, .took = "0123", .told = "01", .lost = '2', .mismatches = 1, .failures = 1},
	{LIST, BH_DATA, false, .took = "012389", .told = "0189", .ahead = 128},
	{LONGER, BH_DATA, false, .took = "012389", .told = "012389"},
	{SHORTER, BH_DATA, false, .took = "0123", .told = "01", .later = 128}, /* they may come back */
	{UNLINK, BH_DATA, false, .took = "0123", .told = "0123"},
	{CLEAR_HALT, BH_DATA, false, .took = "01230123", .told = "0123", .ahead = 256},
	{SET_CONFIGURATION, BH_DATA, false, .took = "01230123", .told = "0123", .ahead = 256},
	{SET_INTERFACE, BH_DATA, false, .took = "01230123", .told = "0123", .ahead = 256},
	{PORT_RESET, BH_DATA, false, .took = "01230123", .told = "0123", .ahead = 256},
	{HOST_RESET, BH_DATA, false, .took = "01230123", .told = "0123", .ahead = 256},

	/* FAILURE: no response, whatever the guest does, but for a reset. */
	{CANCEL, BH_FAILURE, false, .took = "0123", .told = "", .lost = '8', .mismatches = 1, .failures = 1},
	{DATA, BH_FAILURE, false, .took = "0123", .told = "", .lost = '0', .mismatches = 1, .failures = 1},
	{LIST, BH_FAILURE, false, .took = "0123", .told = "", .lost = '0', .mismatches = 1, .failures = 1},
	{LONGER, BH_FAILURE, false, .took = "0123", .told = "", .lost = '0', .mismatches = 1, .failures = 1},
	{SHORTER, BH_FAILURE, false, .took = "0123", .told = "", .lost = '0', .mismatches = 1, .failures = 1},
	{UNLINK, BH_FAILURE, false, .took = "0123", .told = "", .lost = '0', .mismatches = 1, .failures = 1},
	{CLEAR_HALT, BH_FAILURE, false, .took = "0123", .told = "", .lost = '0', .mismatches = 1, .failures = 1},
	{SET_CONFIGURATION, BH_FAILURE, false, .took = "0123", .told = "", .lost = '0', .mismatches = 1, .failures = 1},
	{SET_INTERFACE, BH_FAILURE, false, .took = "0123", .told = "", .lost = '0', .mismatches = 1, .failures = 1},
	{PORT_RESET, BH_FAILURE, false, .took = "01230123", .told = "0123", .mismatches = 1, .failures = 1},
	{HOST_RESET, BH_FAILURE, false, .took = "01230123", .told = "0123", .mismatches = 1, .failures = 1},

	/* IN. What was fetched is one stream, drawn by whatever is offered; resets drop it. */
	{CANCEL, BH_IDLE, true, .told = "89ab"},
	{DATA, BH_IDLE, true, .told = "0123"},
	{LIST, BH_IDLE, true, .told = "0189"},
	{LONGER, BH_IDLE, true, .told = "012389"},
	{SHORTER, BH_IDLE, true, .told = "01"},
	{UNLINK, BH_IDLE, true, .told = "0123"},
	{CLEAR_HALT, BH_IDLE, true, .told = "0123"},
	{SET_CONFIGURATION, BH_IDLE, true, .told = "0123"},
	{SET_INTERFACE, BH_IDLE, true, .told = "0123"},
	{PORT_RESET, BH_IDLE, true, .told = "0123"},
	{HOST_RESET, BH_IDLE, true, .told = "0123"},

	{CANCEL, BH_WAIT, true, 128, .told = "89ab", .cancel = BH_CANCEL_WITHDRAWN, .kept = 128},
	{DATA, BH_WAIT, true, 256, .told = "0123"},
	{LIST, BH_WAIT, true, 256, .told = "0189"},
	{LONGER, BH_WAIT, true, 256, .told = "012389"},
	{SHORTER, BH_WAIT, true, 256, .told = "01", .later = 128},
	{UNLINK, BH_WAIT, true, 128, .told = "0123", .cancel = BH_CANCEL_WITHDRAWN, .kept = 128},
	{CLEAR_HALT, BH_WAIT, true, 128, .told = "0123", .cancel = BH_CANCEL_WITHDRAWN, .dropped = 128},
	{SET_CONFIGURATION, BH_WAIT, true, 128, .told = "0123", .cancel = BH_CANCEL_WITHDRAWN, .dropped = 128},
	{SET_INTERFACE, BH_WAIT, true, 128, .told = "0123", .cancel = BH_CANCEL_WITHDRAWN, .dropped = 128},
	{PORT_RESET, BH_WAIT, true, 128, .told = "0123", .cancel = BH_CANCEL_RESET, .dropped = 128},
	{HOST_RESET, BH_WAIT, true, 128, .told = "0123", .cancel = BH_CANCEL_RESET, .dropped = 128},
	{CANCEL, BH_WAIT, true, 0, .told = "89ab", .cancel = BH_CANCEL_WITHDRAWN},
	{UNLINK, BH_WAIT, true, 0, .told = "0123", .cancel = BH_CANCEL_WITHDRAWN},
	{CANCEL, BH_WAIT, true, 256, .told = "89ab", .cancel = BH_CANCEL_WITHDRAWN, .kept = 256},
	{UNLINK, BH_WAIT, true, 256, .told = "0123", .cancel = BH_CANCEL_WITHDRAWN, .kept = 256},

	{CANCEL, BH_DATA, true, .told = "89ab"},
	{DATA, BH_DATA, true, .told = "0123"},
	{LIST, BH_DATA, true, .told = "0189"},
	{LONGER, BH_DATA, true, .told = "012389"},
	{SHORTER, BH_DATA, true, .told = "01", .later = 128},
	{UNLINK, BH_DATA, true, .told = "0123", .kept = 256},
	/* The SETUP withdraws what is not linked: kept first, and dropped by what the request does. */
	{CLEAR_HALT, BH_DATA, true, .told = "0123", .kept = 256, .dropped = 256},
	{SET_CONFIGURATION, BH_DATA, true, .told = "0123", .kept = 256, .dropped = 256},
	{SET_INTERFACE, BH_DATA, true, .told = "0123", .kept = 256, .dropped = 256},
	{PORT_RESET, BH_DATA, true, .told = "0123", .dropped = 256},
	{HOST_RESET, BH_DATA, true, .told = "0123", .dropped = 256},

	{CANCEL, BH_FAILURE, true, .told = "", .lost = '8', .mismatches = 1, .failures = 1},
	{DATA, BH_FAILURE, true, .told = "", .lost = '0', .mismatches = 1, .failures = 1},
	{LIST, BH_FAILURE, true, .told = "", .lost = '0', .mismatches = 1, .failures = 1},
	{LONGER, BH_FAILURE, true, .told = "", .lost = '0', .mismatches = 1, .failures = 1},
	{SHORTER, BH_FAILURE, true, .told = "", .lost = '0', .mismatches = 1, .failures = 1},
	{UNLINK, BH_FAILURE, true, .told = "", .lost = '0', .mismatches = 1, .failures = 1},
	{CLEAR_HALT, BH_FAILURE, true, .told = "", .lost = '0', .mismatches = 1, .failures = 1},
	{SET_CONFIGURATION, BH_FAILURE, true, .told = "", .lost = '0', .mismatches = 1, .failures = 1},
	{SET_INTERFACE, BH_FAILURE, true, .told = "", .lost = '0', .mismatches = 1, .failures = 1},
	{PORT_RESET, BH_FAILURE, true, .told = "0123", .mismatches = 1, .failures = 1},
	{HOST_RESET, BH_FAILURE, true, .told = "0123", .mismatches = 1, .failures = 1},
};

static const struct cell *cell; /* under test */

static void failed(const char *what, uint32_t is, uint32_t expected)
{
	fail_msg("%s, %s, %s, %u bytes moved: %s is %u, not %u", change_names[cell->change], bh_state_name(cell->state),
	         cell->in ? "IN" : "OUT", cell->moved, what, is, expected);
}

static void equal(const char *what, uint64_t is, uint64_t expected)
{
	if (is != expected)
		failed(what, (uint32_t)is, (uint32_t)expected);
}

static struct fake_pipe *pipe_of(void)
{
	return cell->in ? in_pipe : out_pipe;
}

/* --- what the guest does ---------------------------------------------------------------- */

static unsigned endpoint(void)
{
	return cell->in ? 2 : 1;
}

static uint32_t pid(void)
{
	return cell->in ? BH_PID_IN : BH_PID_OUT;
}

/* Descriptors 8 on, in no queue yet. */
static void others(unsigned n)
{
	fill_queue(6, 8, n, pid(), endpoint(), 0);
	qh(6, LINK_T, LINK_T);
}

static void link_queue(void)
{
	frame_list(QH(0) | LINK_Q);
}

static bool unlinks(enum change c)
{
	return c >= UNLINK && c <= SET_INTERFACE;
}

static void change_now(void)
{
	switch (cell->change) {
	case CANCEL:
		others(4);
		fake_put32(&guest, QH(0) + 4, TD(8));
		break;
	case DATA:
		if (cell->in)
			fake_put32(&guest, TD(2) + 12, BUFFER(20));
		else
			for (unsigned k = 0; k < 64; k++)
				guest.memory[BUFFER(2) + k] ^= 0xff;
		break;
	case LIST:
		others(2);
		fake_put32(&guest, TD(1), TD(8));
		break;
	case LONGER:
		others(2);
		fake_put32(&guest, TD(3), TD(8));
		break;
	case SHORTER:
		fake_put32(&guest, TD(1), LINK_T);
		break;
	case UNLINK:
		frame_list(LINK_T);
		break;
	case CLEAR_HALT:
		frame_list(LINK_T);
		frames(2);
		request(cell->in ? "\x02\x01\x00\x00\x82\x00\x00\x00" : "\x02\x01\x00\x00\x01\x00\x00\x00");
		break;
	case SET_CONFIGURATION:
		frame_list(LINK_T);
		frames(2);
		request("\x00\x09\x01\x00\x00\x00\x00\x00");
		break;
	case SET_INTERFACE:
		frame_list(LINK_T);
		frames(2);
		request("\x01\x0b\x00\x00\x00\x00\x00\x00");
		break;
	case PORT_RESET:
		enable_port(0);
		break;
	case HOST_RESET:
		outw(USBCMD, USBCMD_HCRESET);
		outw(PORTSC, PORTSC_PE | PORTSC_CSC); /* the ports were reset by that */
		run();
		break;
	}
}

/* --- into the state --------------------------------------------------------------------- */

static void into_failure(void)
{
	out_pipe->hold = true;
	only_queue(BH_PID_OUT, 1, 4, 0);
	frames(2);
	guest.memory[BUFFER(0)] ^= 0xff;
	fake_pipe_move(out_pipe, 256);
	fake_pipe_end(out_pipe, BH_SUCCESS);
	frames(5);
	assert_int_equal(control_of(0) & (TD_ACTIVE | LOST), LOST);
	out_pipe->hold = false;
}

static void into_state(void)
{
	if (cell->state == BH_FAILURE)
		into_failure();
	only_queue(pid(), endpoint(), 4, 0);
	if (cell->state == BH_IDLE || cell->state == BH_FAILURE)
		return;
	pipe_of()->hold = true;
	frames(2);
	assert_non_null(pipe_of()->held);
	assert_int_equal(pipe_of()->held->length, 256);
	if (cell->state == BH_WAIT)
		return;
	if (unlinks(cell->change)) {
		frame_list(LINK_T);
		frames(2);
	}
	fake_pipe_move(pipe_of(), 256);
	fake_pipe_end(pipe_of(), BH_SUCCESS); /* and the controller has not looked since */
}

/* The device was told; it takes its time; meanwhile nothing moves anywhere. */
static void cancelled_in_wait(void)
{
	struct fake_pipe *p = pipe_of();

	equal("cancels at once", p->cancels, cell->change > UNLINK);
	frames(cell->change == UNLINK ? PATIENCE : NOTICED);
	equal("cancels", p->cancels, cell->cancel != BH_CANCEL_NONE);
	link_queue();
	frames(5);
	equal("submits while it ends", p->submits, 1);
	for (unsigned n = 0; n < 12; n++)
		if (link_of(n))
			equal("status of a descriptor while it ends", control_of(n) & ENDED, TD_ACTIVE);
	fake_pipe_move(p, cell->moved);
	fake_pipe_end(p, cell->cancel && cell->moved < 256 ? BH_CANCELLED : BH_SUCCESS);
}

/* --- what came of it -------------------------------------------------------------------- */

static const char digits[] = "0123456789abcdef";

static unsigned digit(char c)
{
	return (unsigned)(strchr(digits, c) - digits);
}

static void device_took(void)
{
	uint32_t at = 0;

	for (const char *c = cell->took; *c; c++) {
		unsigned n = *c == '-' ? 1 : *c == 'c' ? 2 : digit(*c);

		for (unsigned k = 0; k < (*c == '-' ? 36 : 64); k++, at++)
			if (out_pipe->stream[at] != (uint8_t)(fill_byte(n, k) ^ (*c == 'c' ? 0xff : 0)))
				failed("the byte at the device", at, n);
	}
	equal("bytes at the device", out_pipe->length, at);
}

static void guest_got(void)
{
	uint32_t at = cell->dropped;

	for (const char *c = cell->told; *c; c++) {
		unsigned n = digit(*c);
		uint32_t buffer = fake_get32(&guest, TD(n) + 12);

		for (unsigned k = 0; k < 64; k++, at++)
			if (guest.memory[buffer + k] != fake_stream_byte(at))
				failed("the byte in the guest", at, n);
	}
	equal("bytes the device gave", in_pipe->length, at + cell->later);
}

static void guest_was_told(void)
{
	for (const char *c = cell->told; *c; c++) {
		equal("status of a descriptor that ended", control_of(digit(*c)) & ENDED, 0);
		equal("its length", actual_of(digit(*c)), 64);
	}
	for (unsigned n = 0; n < 12; n++)
		if (link_of(n) && !strchr(cell->told, digits[n]) && cell->lost != digits[n])
			equal("status of a descriptor nobody looks at", control_of(n) & ENDED, TD_ACTIVE);
	if (cell->lost)
		equal("status of the one that was lost", control_of(digit(cell->lost)) & ENDED, LOST);
	else
		equal("the queue's element", element_of(0), LINK_T);
}

static void counted(void)
{
	const struct bh_engine_counters *c = engine();

	for (int i = 0; i < BH_CANCEL_COUNT; i++)
		equal(bh_cancel_name((enum bh_cancel)i), c->cancels[i], cell->cancel && i == (int)cell->cancel);
	equal("mismatches", c->mismatches, cell->mismatches);
	equal("failures", c->failures, cell->failures);
	equal("ahead_bytes", c->ahead_bytes, cell->ahead);
	equal("kept_bytes", c->kept_bytes, cell->kept);
	if (!cell->failures) /* what the device has beyond what the guest knows of, exactly */
		equal("taken and not told", out_pipe->length - c->bytes_out,
		      cell->ahead + (cell->in ? 0 : cell->later));
	equal("interrupted by errors", inw(USBSTS) & (USBSTS_HSE | USBSTS_HCPE), 0);
}

/* Whatever happened: after a reset, the endpoint is as new. */
static void works_after_a_reset(void)
{
	uint32_t before = pipe_of()->length;
	uint64_t ahead = engine()->ahead_bytes;

	enable_port(0);
	equal("ahead, after a reset", engine()->ahead_bytes - ahead, cell->in ? 0 : cell->later);
	only_queue(pid(), endpoint(), 3, 0);
	frames(2);
	equal("the queue after a reset", element_of(0), LINK_T);
	equal("bytes after a reset", pipe_of()->length - before, 192);
}

static void one_cell(void)
{
	into_state();
	if (cell->state == BH_WAIT) {
		pipe_of()->late = true;
		/* A device ends what it has in a reset (device.h): what it moved by then is said before. */
		if (cell->change == PORT_RESET || cell->change == HOST_RESET)
			fake_pipe_move(pipe_of(), cell->moved);
		change_now();
		if (pipe_of()->held)
			cancelled_in_wait();
	} else {
		change_now();
		if (cell->change == UNLINK)
			frames(PATIENCE + 5);
		equal("cancels", pipe_of()->cancels, 0);
	}
	pipe_of()->hold = pipe_of()->late = false;
	link_queue();
	frames(6);
	if (!cell->in)
		device_took();
	else if (!cell->failures || cell->change >= PORT_RESET)
		guest_got();
	guest_was_told();
	counted();
	works_after_a_reset();
}

static void every_change_in_every_state(void **state)
{
	(void)state;
	for (size_t i = 0; i < BH_COUNT(cells); i++) {
		cell = &cells[i];
		if (i)
			setup(NULL);
		one_cell();
		if (i + 1 < BH_COUNT(cells))
			teardown(NULL);
	}
}

/* --- what the table has no room for ------------------------------------------------------ */

static const struct cell plain_out = {.in = false};

/* FAILURE is the device's: what its other endpoints are doing is not offered any more, ends, and starts anew. */
static void other_endpoints_of_a_device_in_failure(void **state)
{
	(void)state;
	cell = &plain_out;
	in_pipe->hold = in_pipe->late = out_pipe->hold = true;
	fill_queue(0, 0, 4, BH_PID_OUT, 1, 0);
	fill_queue(1, 8, 4, BH_PID_IN, 2, 0);
	qh(0, QH(1) | LINK_Q, TD(0));
	link_queue();
	frames(2);
	guest.memory[BUFFER(0)] ^= 0xff;
	fake_pipe_move(out_pipe, 256);
	fake_pipe_end(out_pipe, BH_SUCCESS);
	frames(5);
	equal("failures", engine()->failures, 1);
	equal("OUT", control_of(0) & ENDED, LOST);
	equal("IN", control_of(8) & ENDED, LOST);
	equal("IN is still there", in_pipe->held != NULL, true);
	frames(PATIENCE);
	equal("cancels of IN", in_pipe->cancels, 1); /* not offered to anybody */
	frames(20);
	in_pipe->hold = in_pipe->late = out_pipe->hold = false;
	enable_port(0);
	equal("IN has ended", in_pipe->held == NULL, true);
	fill_queue(0, 0, 4, BH_PID_OUT, 1, 0);
	fill_queue(1, 8, 4, BH_PID_IN, 2, 0);
	qh(0, QH(1) | LINK_Q, TD(0));
	frames(2);
	equal("OUT queue", element_of(0), LINK_T);
	equal("IN queue", element_of(1), LINK_T);
	equal("reconnects", bh_uhci_bus(uhci)->counters.reconnects, 0);
}

/* withdrawn=fail: what is counted otherwise is a FAILURE; what was not taken is none. */
static void withdrawn_out_fails_where_that_was_asked_for(void **state)
{
	static const uint32_t moved[] = {0, 100, 256};

	(void)state;
	cell = &plain_out;
	for (size_t i = 0; i < BH_COUNT(moved); i++) {
		if (i) {
			teardown(NULL);
			setup_failing(NULL);
		}
		out_pipe->hold = true;
		only_queue(BH_PID_OUT, 1, 4, 0);
		frames(2);
		others(4);
		fake_put32(&guest, QH(0) + 4, TD(8));
		fake_pipe_move(out_pipe, moved[i]);
		out_pipe->hold = false;
		frames(5);
		equal("failures", engine()->failures, moved[i] > 0);
		equal("ahead", engine()->ahead_bytes, 0);
		equal("the descriptor", control_of(8) & ENDED, moved[i] > 0 ? LOST : 0);
	}
}

/* Changed while its queue was in no frame: that is another request, and no FAILURE. */
static void changed_while_unlinked_is_withdrawn(void **state)
{
	(void)state;
	cell = &plain_out;
	for (unsigned completed = 0; completed < 2; completed++) {
		uint64_t ahead = engine()->ahead_bytes;
		uint32_t before = out_pipe->length;

		out_pipe->hold = out_pipe->late = true;
		only_queue(BH_PID_OUT, 1, 4, 0);
		frames(2);
		frame_list(LINK_T);
		frames(2);
		if (completed) {
			fake_pipe_move(out_pipe, 256);
			fake_pipe_end(out_pipe, BH_SUCCESS);
		}
		guest.memory[BUFFER(1)] ^= 0xff;
		link_queue();
		frames(2);
		if (!completed) {
			equal("cancelled", out_pipe->cancelled, true);
			fake_pipe_move(out_pipe, 256);
			fake_pipe_end(out_pipe, BH_CANCELLED);
			frames(2);
		}
		out_pipe->hold = false;
		fake_pipe_serve(out_pipe);
		frames(2);
		equal("the queue's element", element_of(0), LINK_T);
		equal("bytes", out_pipe->length - before, 256 + 192);
		equal("the changed byte", out_pipe->stream[before + 256], guest.memory[BUFFER(1)]);
		equal("ahead", engine()->ahead_bytes - ahead, 192);
		equal("failures", engine()->failures, 0);
	}
}

/* What was seen of an earlier request says nothing about the next: it can be withdrawn, and it can fail. */
static void a_mind_changed_before_does_not_count_again(void **state)
{
	(void)state;
	cell = &plain_out;
	for (unsigned n = 1; n <= 3; n++) {
		out_pipe->hold = true;
		only_queue(BH_PID_OUT, 1, 4, 0);
		frames(2);
		equal("submits", out_pipe->submits, n);
		frame_list(LINK_T);
		frames(PATIENCE);
		equal("withdrawn", engine()->cancels[BH_CANCEL_WITHDRAWN], n);
	}
	link_queue();
	frames(2);
	fake_pipe_move(out_pipe, 256);
	fake_pipe_end(out_pipe, BH_SUCCESS);
	guest.memory[BUFFER(0)] ^= 0xff; /* in place, and it was never unlinked since */
	frames(3);
	equal("failures", engine()->failures, 1);
}

/* However often the guest says so, what was kept is counted once. */
static void kept_bytes_are_counted_once(void **state)
{
	(void)state;
	cell = &plain_out;
	in_pipe->hold = true;
	only_queue(BH_PID_IN, 2, 4, 0);
	frames(2);
	frame_list(LINK_T);
	frames(2);
	fake_pipe_move(in_pipe, 256);
	fake_pipe_end(in_pipe, BH_SUCCESS);
	for (unsigned n = 0; n < 3; n++) {
		request("\x02\x01\x00\x00\x01\x00\x00\x00"); /* to another endpoint */
		frames(PATIENCE);
	}
	equal("kept", engine()->kept_bytes, 256);
}

/* What was kept for a withdrawn IN goes to no other endpoint, and to no other device. */
static void kept_packets_are_of_their_endpoint(void **state)
{
	struct fake_pipe *other = fake_pipes_add(&device, 0x84, 64);

	(void)state;
	cell = &plain_out;
	in_pipe->hold = true;
	only_queue(BH_PID_IN, 2, 4, 0);
	frames(2);
	fake_pipe_move(in_pipe, 192);
	frame_list(LINK_T);
	frames(PATIENCE + 1);
	equal("kept", engine()->kept_bytes, 192);
	only_queue(BH_PID_IN, 4, 2, 0);
	frames(2);
	equal("the other endpoint's", other->length, 128);
	equal("its byte", guest.memory[BUFFER(1)], fake_stream_byte(64));
	in_pipe->hold = false;
	only_queue(BH_PID_IN, 2, 4, 0);
	frames(2);
	for (unsigned i = 0; i < 4; i++)
		for (unsigned k = 0; k < 64; k++)
			equal("the stream", guest.memory[BUFFER(i) + k], fake_stream_byte(64 * i + k));
	equal("submits", in_pipe->submits, 2);
}

/* A final status is kept with the packets, and comes after them. */
static void kept_packets_end_in_their_status(void **state)
{
	(void)state;
	cell = &plain_out;
	in_pipe->hold = true;
	only_queue(BH_PID_IN, 2, 4, 0);
	frames(2);
	frame_list(LINK_T);
	frames(2);
	fake_pipe_move(in_pipe, 128);
	fake_pipe_end(in_pipe, BH_STALL);
	frames(PATIENCE + 5);
	fill_queue(0, 8, 4, BH_PID_IN, 2, 0);
	link_queue();
	frames(2);
	equal("first", control_of(8) & ENDED, 0);
	equal("second", control_of(9) & ENDED, 0);
	equal("third", control_of(10) & ENDED, TD_STALLED);
	equal("fourth", control_of(11) & ENDED, TD_ACTIVE);
	equal("submits", in_pipe->submits, 1);
}

/* A change among many descriptors is noticed by checking eight of them in a frame, wherever it is. */
static void a_change_among_many_is_noticed_in_a_bounded_number_of_frames(void **state)
{
	const unsigned n = 128, checks = BH_ENGINE_DEFAULTS.retry_checks;

	(void)state;
	cell = &plain_out;
	for (unsigned which = 0; which < n; which += 21) {
		out_pipe->hold = true;
		only_queue(BH_PID_OUT, 1, n, 0);
		frames(2);
		equal("length", out_pipe->held->length, 64 * n);
		guest.memory[BUFFER(which) + 63] ^= 0xff;
		frames(which ? (n + checks - 1) / checks : 1);
		equal("cancelled and sent anew", out_pipe->submits, 2);
		equal("changes noticed", engine()->mismatches, which / 21 + 1);
		enable_port(0);
		out_pipe->submits = 0;
	}
}

/* The guest changes its mind once more, while the device is still ending the first transfer. */
static void another_change_while_the_first_is_being_cancelled(void **state)
{
	(void)state;
	cell = &plain_out;
	out_pipe->hold = out_pipe->late = true;
	only_queue(BH_PID_OUT, 1, 4, 0);
	frames(2);
	guest.memory[BUFFER(2)] ^= 0xff;
	frames(2);
	equal("cancels", out_pipe->cancels, 1);
	others(4);
	fake_put32(&guest, QH(0) + 4, TD(8));
	frames(5);
	equal("submits", out_pipe->submits, 1);
	fake_pipe_move(out_pipe, 100);
	fake_pipe_end(out_pipe, BH_CANCELLED);
	out_pipe->hold = false;
	frames(2);
	equal("ahead", engine()->ahead_bytes, 100);
	equal("failures", engine()->failures, 0);
	equal("bytes", out_pipe->length, 100 + 256);
	for (unsigned k = 0; k < 256; k++)
		equal("byte", out_pipe->stream[100 + k], fill_byte(8 + k / 64, k % 64));
}

/* A reset overtakes a cancel: nothing is kept of what the device ends with. */
static void a_reset_while_the_first_is_being_cancelled(void **state)
{
	(void)state;
	cell = &plain_out;
	out_pipe->hold = out_pipe->late = true;
	only_queue(BH_PID_OUT, 1, 4, 0);
	frames(2);
	frame_list(LINK_T);
	frames(PATIENCE);
	equal("cancels", out_pipe->cancels, 1);
	request("\x02\x01\x00\x00\x01\x00\x00\x00");
	equal("cleared", device.halts_cleared, 1);
	link_queue();
	frames(2);
	equal("submits", out_pipe->submits, 1);
	fake_pipe_move(out_pipe, 100);
	fake_pipe_end(out_pipe, BH_CANCELLED);
	out_pipe->hold = false;
	frames(2);
	equal("bytes", out_pipe->length, 100 + 256);
	equal("ahead", engine()->ahead_bytes, 100);
	equal("withdrawn", engine()->cancels[BH_CANCEL_WITHDRAWN], 1);
}

/* --- the control pipe ---------------------------------------------------------------------- */

/* A request for 18 bytes, in queue 0: SETUP, three IN, STATUS. */
static void control_in(unsigned first)
{
	setup_packet(first, TD(first + 1), 0, "\x80\x06\x00\x01\x00\x00\x12\x00");
	for (unsigned i = 1; i <= 3; i++)
		td(first + i, TD(first + i + 1), ACTIVE, token(BH_PID_IN, 0, 0, i & 1, i < 3 ? 8 : 2));
	td(first + 4, LINK_T, ACTIVE, token(BH_PID_OUT, 0, 0, 1, 0));
	qh(0, LINK_T, TD(first));
	link_queue();
}

/* Another SETUP cancels a request, and is not taken before that has ended. Its outcome is nobody's. */
static void setup_waits_for_the_request_it_cancels(void **state)
{
	static const enum bh_status ends[] = {BH_CANCELLED, BH_SUCCESS, BH_STALL};

	(void)state;
	cell = &plain_out;
	for (size_t i = 0; i < BH_COUNT(ends); i++) {
		device.controls = device.control_cancels = 0;
		device.hold_control = true;
		control_in(0);
		frames(2);
		equal("requests", device.controls, 1);
		control_in(8);
		frames(5);
		equal("cancels", device.control_cancels, 1);
		equal("SETUP meanwhile", control_of(8) & ENDED, TD_ACTIVE);
		equal("requests meanwhile", device.controls, 1);
		fake_pipes_end_control(&device, ends[i], ends[i] == BH_SUCCESS ? 18 : 8);
		frames(2);
		equal("SETUP", control_of(8) & ENDED, 0);
		equal("requests then", device.controls, 2);
		equal("its data", control_of(9) & ENDED, TD_ACTIVE);
		fake_pipes_end_control(&device, BH_SUCCESS, 18);
		frames(2);
		equal("the queue's element", element_of(0), LINK_T);
		equal("the old request's", control_of(1) & ENDED, TD_ACTIVE);
	}
}

/* STATUS before the data: the request is ended, and STATUS answered when it has. */
static void early_status_waits_for_the_request_it_cancels(void **state)
{
	(void)state;
	cell = &plain_out;
	device.hold_control = true;
	control_in(0);
	frames(2);
	fake_put32(&guest, QH(0) + 4, TD(4));
	frames(5);
	equal("cancels", device.control_cancels, 1);
	equal("STATUS meanwhile", control_of(4) & ENDED, TD_ACTIVE);
	fake_pipes_end_control(&device, BH_CANCELLED, 8);
	frames(2);
	equal("STATUS", control_of(4) & ENDED, 0);
	equal("requests", device.controls, 1);
}

/* A reset ends a request, and nothing of it is left to be read. */
static void nothing_of_a_request_is_left_after_a_reset(void **state)
{
	(void)state;
	cell = &plain_out;
	device.hold_control = true;
	control_in(0);
	frames(2);
	equal("requests", device.controls, 1);
	enable_port(0); /* the device ends it */
	equal("cancels", device.control_cancels, 1);
	td(8, LINK_T, ACTIVE, token(BH_PID_IN, 0, 0, 1, 8));
	qh(0, LINK_T, TD(8));
	frames(2);
	equal("IN without a request", control_of(8) & ENDED, TD_STALLED);
	equal("requests then", device.controls, 1);
}

#define TEST(test)    cmocka_unit_test_setup_teardown(test, setup, teardown)
#define FAILING(test) cmocka_unit_test_setup_teardown(test, setup_failing, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(every_change_in_every_state),
		FAILING(withdrawn_out_fails_where_that_was_asked_for),
		TEST(other_endpoints_of_a_device_in_failure),
		TEST(changed_while_unlinked_is_withdrawn),
		TEST(a_mind_changed_before_does_not_count_again),
		TEST(kept_bytes_are_counted_once),
		TEST(kept_packets_are_of_their_endpoint),
		TEST(kept_packets_end_in_their_status),
		TEST(a_change_among_many_is_noticed_in_a_bounded_number_of_frames),
		TEST(another_change_while_the_first_is_being_cancelled),
		TEST(a_reset_while_the_first_is_being_cancelled),
		TEST(setup_waits_for_the_request_it_cancels),
		TEST(early_status_waits_for_the_request_it_cancels),
		TEST(nothing_of_a_request_is_left_after_a_reset),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
