/*
 * Every failure ([0086], [0087]), at the first, a middle and the last packet of a
 * batch, as the guest's descriptors, its queue and USBSTS show it, and what happens
 * after the guest has cleared the halt. Packet sizes of 8, 16, 32 and 64; the device
 * decides packet by packet, and knows nothing of batches.
 *
 * Sizes within one OUT transfer cannot vary but at its end: SCAN ends after a packet
 * that is not full ([0061]), for on the wire that ends a transfer. So lists of varying
 * lengths are several transfers, and the records' cumulative lengths matter in each:
 * in a list, any packet may be the one that fails. Of an IN, only the room varies.
 */
#include <stdio.h>

#include "fake_driver.h"
#include "fake_pipes.h"

static struct fake_pipes device;
static struct fake_pipe *out_pipe, *in_pipe;
static char context[200]; /* what is under test, for messages */

static int setup(void **state)
{
	(void)state;
	machine(&(struct bh_uhci_config)BH_UHCI_DEFAULTS);
	fake_pipes_init(&device);
	out_pipe = fake_pipes_add(&device, 0x01, 64);
	in_pipe = fake_pipes_add(&device, 0x82, 64);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, &device.device), 0);
	enable_port(0);
	run();
	frames(1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	machine_finish();
	return 0;
}

static void again(uint16_t max_packet)
{
	teardown(NULL);
	setup(NULL);
	out_pipe->info.max_packet = in_pipe->info.max_packet = max_packet;
}

static void equal(const char *what, uint64_t is, uint64_t expected)
{
	if (is != expected)
		fail_msg("%s: %s is %#x, not %#x", context, what, (unsigned)is, (unsigned)expected);
}

/* --- lists -------------------------------------------------------------------------------- */

#define N 6u

struct list {
	bool in;
	uint16_t max_packet;
	unsigned count;
	uint32_t lengths[N];
	uint32_t flags; /* of every control word */
};

static struct list equal_list(bool in, uint16_t max_packet, uint32_t last)
{
	struct list l = {.in = in, .max_packet = max_packet, .count = N, .flags = TD_ACTIVE | TD_CERR};

	for (unsigned i = 0; i < N; i++)
		l.lengths[i] = i + 1 < N ? max_packet : last;
	return l;
}

/* From descriptor n on: the ones before are done. */
static void put_list(const struct list *l, unsigned n)
{
	for (unsigned i = n; i < l->count; i++) {
		td(i, i + 1 < l->count ? TD(i + 1) : LINK_T, l->flags | (i + 1 == l->count ? TD_IOC : 0),
		   token(l->in ? BH_PID_IN : BH_PID_OUT, 0, l->in ? 2 : 1, i & 1, l->lengths[i]));
		for (unsigned k = 0; k < 64; k++)
			guest.memory[BUFFER(i) + k] = l->in ? 0xee : fill_byte(i, k);
	}
	qh(0, LINK_T, n < l->count ? TD(n) : LINK_T);
	frame_list(QH(0) | LINK_Q);
}

static uint32_t sum(const struct list *l, unsigned from, unsigned to)
{
	uint32_t bytes = 0;

	for (unsigned i = from; i < to; i++)
		bytes += l->lengths[i];
	return bytes;
}

static uint32_t control_put(const struct list *l, unsigned i)
{
	return l->flags | (i + 1 == l->count ? TD_IOC : 0);
}

static struct fake_pipe *pipe_of(const struct list *l)
{
	return l->in ? in_pipe : out_pipe;
}

/* Descriptors first to k - 1 ended well, and their bytes, from byte start of the stream on, are where they belong. */
static void good_until(const struct list *l, unsigned first, unsigned k, uint32_t start)
{
	for (unsigned i = first; i < k; i++) {
		equal("status of a good one", control_of(i) & ENDED, 0);
		equal("length of a good one", actual_of(i), l->lengths[i]);
		for (unsigned j = 0; j < l->lengths[i]; j++, start++)
			if (l->in)
				equal("byte of a good IN", guest.memory[BUFFER(i) + j], fake_stream_byte(start));
			else
				equal("byte of a good OUT", out_pipe->stream[start], fill_byte(i, j));
	}
}

static void untouched(const struct list *l, unsigned from)
{
	for (unsigned i = from; i < l->count; i++) {
		equal("control word of a later one", control_of(i), control_put(l, i));
		if (l->in)
			for (unsigned k = 0; k < 64; k++)
				equal("buffer of a later one", guest.memory[BUFFER(i) + k], 0xee);
	}
}

static void clear_halt(const struct list *l)
{
	request(l->in ? "\x02\x01\x00\x00\x82\x00\x00\x00" : "\x02\x01\x00\x00\x01\x00\x00\x00");
	equal("halt cleared", control_of(201) & ENDED, 0);
}

/* --- stall, babble, bus error, timeout: at every packet ------------------------------------ */

static const struct failure {
	const char *name;
	enum bh_status status;
	uint32_t shows; /* in the control word, once it is over */
} failures[] = {
	{"stall", BH_STALL, TD_STALLED},
	{"babble", BH_BABBLE, TD_STALLED | TD_BABBLE},
	{"bus error", BH_BUS_ERROR, TD_STALLED | TD_CRC_TIMEOUT},
	{"timeout", BH_NO_RESPONSE, TD_STALLED | TD_CRC_TIMEOUT},
};

/* The device fails at packet k, for good; the guest hears of it there; then it clears the halt, and all goes on. */
static void fails_at(const struct list *l, const struct failure *f, unsigned k, const char *what)
{
	struct fake_pipe *p = pipe_of(l);
	bool lost = f->shows & TD_CRC_TIMEOUT;

	snprintf(context, sizeof(context), "%s, %s, packets of %u, at %u, %s", f->name, l->in ? "IN" : "OUT",
	         l->max_packet, k, what);
	again(l->max_packet);
	p = pipe_of(l);
	p->fail_packet = k;
	p->fail = f->status;
	p->fails_again = true;
	put_list(l, 0);
	frames(lost ? 3 : 1); /* one try in a frame */
	good_until(l, 0, k, 0);
	equal("status", control_of(k) & (ENDED | TD_CERR),
	      f->shows | (lost ? 0 : control_put(l, k) & TD_CERR)); /* three tries, where it was lost */
	equal("tries", p->packets - k, lost ? 3 : 1);
	equal("length", control_of(k) & TD_ACTLEN, TD_NO_BYTES);
	untouched(l, k + 1);
	equal("the queue's element", element_of(0), TD(k));
	/* IOC: the last one ended, if not well. */
	equal("USBSTS", inw(USBSTS), USBSTS_ERROR | (k + 1 == l->count ? USBSTS_USBINT : 0));
	equal("interrupt line", guest.line, true);
	outw(USBSTS, USBSTS_ERROR | USBSTS_USBINT);
	frames(3);
	equal("packets after it stopped", p->packets - k, lost ? 3 : 1);
	equal("bytes at the device", p->length, sum(l, 0, k));

	p->fail_packet = FAKE_NEVER;
	clear_halt(l);
	put_list(l, k);
	frames(1);
	good_until(l, 0, l->count, 0); /* each packet once, none missing */
	equal("the queue's element at the end", element_of(0), LINK_T);
	equal("bytes at the device at the end", p->length, sum(l, 0, l->count));
	equal("ahead", engine()->ahead_bytes, 0);
	equal("failed packets", engine()->failed_packets, lost ? 3 : 1);
	equal("packets", l->in ? engine()->packets_in : engine()->packets_out, l->count + (lost ? 3 : 1));
	equal("packets the other way", l->in ? engine()->packets_out : engine()->packets_in, 0);
	equal("bytes", l->in ? engine()->bytes_in : engine()->bytes_out, sum(l, 0, l->count));
}

static void failure_is_charged_to_its_packet(void **state)
{
	static const uint16_t sizes[] = {8, 16, 32, 64};

	(void)state;
	for (unsigned in_ = 0; in_ < 2; in_++)
		for (size_t s = 0; s < BH_COUNT(sizes); s++)
			for (size_t f = 0; f < BH_COUNT(failures); f++)
				for (unsigned k = 0; k < N; k++) {
					struct list l = equal_list(in_, sizes[s], sizes[s]);

					fails_at(&l, &failures[f], k, "all full");
					equal("transfers", pipe_of(&l)->submits, failures[f].shows & TD_CRC_TIMEOUT ? 4 : 2);
				}
}

/* The last packet of a transfer is shorter, or has no bytes at all. */
static void failure_is_charged_to_a_last_packet_that_is_short(void **state)
{
	static const uint32_t last[] = {0, 1, 13};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(last); i++)
		for (size_t f = 0; f < BH_COUNT(failures); f++)
			for (unsigned k = 0; k < N; k++) {
				struct list l = equal_list(false, 64, last[i]);

				fails_at(&l, &failures[f], k, "last one short");
			}
}

/* Several transfers in one list, of any lengths: the nth packet is the nth descriptor. */
static void failure_is_charged_right_in_a_list_of_any_lengths(void **state)
{
	static const uint32_t lists[][N] = {
		{64, 10, 64, 64, 3, 64},
		{1, 2, 3, 64, 64, 5},
		{64, 64, 0, 64, 0, 17},
		{63, 64, 63, 64, 64, 63},
	};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(lists); i++)
		for (size_t f = 0; f < BH_COUNT(failures); f++)
			for (unsigned k = 0; k < N; k++) {
				struct list l = equal_list(false, 64, 64);

				memcpy(l.lengths, lists[i], sizeof(l.lengths));
				fails_at(&l, &failures[f], k, "any lengths");
			}
}

/* The device had taken some bytes of the packet that failed: it is that one all the same. */
static void failure_in_the_middle_of_a_packet(void **state)
{
	(void)state;
	for (unsigned k = 0; k < N; k++)
		for (uint32_t part = 1; part < 64; part += 31) {
			struct list l = equal_list(false, 64, 64);

			snprintf(context, sizeof(context), "packet %u after %u bytes", k, part);
			again(64);
			out_pipe->hold = true;
			put_list(&l, 0);
			frames(1);
			fake_pipe_move(out_pipe, 64 * k + part);
			fake_pipe_end(out_pipe, BH_STALL);
			frames(1);
			good_until(&l, 0, k, 0);
			equal("status", control_of(k) & ENDED, TD_STALLED);
			equal("length", actual_of(k), 0);
			untouched(&l, k + 1);
		}
}

/* Lost once or twice: what C_ERR is for. The guest sees one count less, and nothing twice. */
static void lost_packet_is_tried_again(void **state)
{
	(void)state;
	for (unsigned in_ = 0; in_ < 2; in_++)
		for (unsigned k = 0; k < N; k++) {
			struct list l = equal_list(in_, 64, 64);
			struct fake_pipe *p;

			snprintf(context, sizeof(context), "%s, lost once at %u", in_ ? "IN" : "OUT", k);
			again(64);
			p = pipe_of(&l);
			p->fail_packet = k;
			p->fail = BH_NO_RESPONSE;
			put_list(&l, 0);
			frames(2);
			good_until(&l, 0, k, 0);
			good_until(&l, k + 1, N, 64 * (k + 1));
			equal("the one that was lost", control_of(k) & (TD_ACTIVE | TD_CERR | TD_ACTLEN),
			      (TD_CERR - TD_CERR_ONE) | 63);
			equal("the queue's element", element_of(0), LINK_T);
			equal("bytes at the device", p->length, 64 * N);
			equal("USBSTS", inw(USBSTS), USBSTS_USBINT);
		}
}

/* --- disconnect ----------------------------------------------------------------------------- */

/*
 * Pulled while packet k is on its way. The transfer is over with the device, whatever it
 * moved: to the guest nothing was reported, and nobody answers for the first one. What
 * an OUT had taken by then is counted.
 */
static void disconnected_at_every_packet(void **state)
{
	(void)state;
	for (unsigned in_ = 0; in_ < 2; in_++)
		for (unsigned k = 0; k < N; k++) {
			struct list l = equal_list(in_, 64, 64);
			struct fake_pipe *p;

			snprintf(context, sizeof(context), "%s, pulled at %u", in_ ? "IN" : "OUT", k);
			again(64);
			p = pipe_of(&l);
			p->hold = true;
			put_list(&l, 0);
			frames(1);
			fake_pipe_move(p, 64 * k);
			bh_device_detach(&device.device);
			equal("cancels", p->cancels, 1);
			equal("port", inw(PORTSC) & (PORTSC_CCS | PORTSC_CSC | PORTSC_PE | PORTSC_PEC),
			      PORTSC_CSC | PORTSC_PEC);
			frames(5);
			equal("status", control_of(0) & ENDED, LOST);
			untouched(&l, 1);
			equal("the queue's element", element_of(0), TD(0));
			equal("USBSTS", inw(USBSTS), USBSTS_ERROR);
			equal("ahead", engine()->ahead_bytes, in_ ? 0 : 64 * k);
			equal("destroyed", device.destroyed, 1);
			equal("submits", p->submits, 1);
		}
}

/* It first says where it ended, and then is gone: the packets before that are told. */
static void disconnected_after_saying_where(void **state)
{
	(void)state;
	for (unsigned in_ = 0; in_ < 2; in_++)
		for (unsigned k = 0; k < N; k++) {
			struct list l = equal_list(in_, 64, 64);
			struct fake_pipe *p;

			snprintf(context, sizeof(context), "%s, gone after %u", in_ ? "IN" : "OUT", k);
			again(64);
			p = pipe_of(&l);
			p->hold = true;
			put_list(&l, 0);
			frames(1);
			fake_pipe_move(p, 64 * k);
			fake_pipe_end(p, BH_NO_RESPONSE);
			pass_us(0);
			bh_device_detach(&device.device);
			frames(5);
			good_until(&l, 0, k, 0);
			equal("status", control_of(k) & ENDED, LOST);
			untouched(&l, k + 1);
			equal("the queue's element", element_of(0), TD(k));
		}
}

/* --- short and long -------------------------------------------------------------------------- */

/* An IN packet shorter than its descriptor, at every place; with SPD the queue stops there, else it goes on. */
static void short_in_packet(void **state)
{
	static const uint32_t lengths[] = {0, 1, 63};

	(void)state;
	for (unsigned spd = 0; spd < 2; spd++)
		for (size_t i = 0; i < BH_COUNT(lengths); i++)
			for (unsigned k = 0; k < N; k++) {
				struct list l = equal_list(true, 64, 64);

				snprintf(context, sizeof(context), "%u bytes at %u, SPD %u", lengths[i], k, spd);
				again(64);
				in_pipe->short_packet = k;
				in_pipe->short_length = lengths[i];
				l.flags |= spd ? TD_SPD : 0;
				put_list(&l, 0);
				frames(1);
				l.lengths[k] = lengths[i];
				good_until(&l, 0, k + 1, 0);
				equal("guard", guest.memory[BUFFER(k) + lengths[i]], 0xee);
				if (spd) {
					untouched(&l, k + 1);
					equal("the queue's element", element_of(0), TD(k));
					equal("USBSTS", inw(USBSTS), USBSTS_USBINT);
					equal("submits", in_pipe->submits, 1);
				} else {
					good_until(&l, k + 1, N, sum(&l, 0, k + 1));
					equal("the queue's element", element_of(0), LINK_T);
					equal("USBSTS", inw(USBSTS), USBSTS_USBINT); /* IOC of the last */
					equal("submits", in_pipe->submits, k + 1 < N ? 2 : 1);
				}
				equal("failed packets", engine()->failed_packets, 0);
			}
}

/* The guest goes on after a short packet from where it wants: nothing of the old transfer is left. */
static void next_request_after_a_short_packet(void **state)
{
	struct list l = equal_list(true, 64, 64);

	(void)state;
	in_pipe->short_packet = 2;
	in_pipe->short_length = 20;
	l.flags |= TD_SPD;
	put_list(&l, 0);
	frames(1);
	put_list(&l, 0);
	frames(1);
	equal("the queue's element", element_of(0), LINK_T);
	good_until(&l, 0, N, 2 * 64 + 20);
}

/* A success that moved less than it was given is none: the first packet not taken was lost. */
static void short_out_is_a_lost_packet(void **state)
{
	(void)state;
	for (unsigned k = 0; k < N; k++)
		for (uint32_t part = 0; part < 64; part += 33) {
			struct list l = equal_list(false, 64, 64);

			snprintf(context, sizeof(context), "%u packets and %u bytes", k, part);
			again(64);
			l.flags = TD_ACTIVE | TD_CERR_ONE;
			out_pipe->hold = true;
			put_list(&l, 0);
			frames(1);
			fake_pipe_move(out_pipe, 64 * k + part);
			fake_pipe_end(out_pipe, BH_SUCCESS);
			frames(1);
			good_until(&l, 0, k, 0);
			equal("status", control_of(k) & ENDED, LOST);
			untouched(&l, k + 1);
		}
}

/* The device sends more than the descriptor has room for: babble, and not one byte reaches the guest. */
static void in_packet_larger_than_its_descriptor(void **state)
{
	static const uint32_t rooms[] = {0, 1, 13, 63};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(rooms); i++)
		for (unsigned k = 0; k < N; k++) {
			struct list l = equal_list(true, 64, 64);

			snprintf(context, sizeof(context), "room for %u at %u", rooms[i], k);
			again(64);
			l.lengths[k] = rooms[i];
			put_list(&l, 0);
			frames(1);
			good_until(&l, 0, k, 0);
			equal("status", control_of(k) & ENDED, TD_STALLED | TD_BABBLE);
			equal("length", actual_of(k), 0);
			equal("overrun", guest.memory[BUFFER(k)], 0xee);
			untouched(&l, k + 1);
			equal("the queue's element", element_of(0), TD(k));
			equal("USBSTS", inw(USBSTS), USBSTS_ERROR | (k + 1 == N ? USBSTS_USBINT : 0));
		}
}

/* Less room than a packet, and the packet fits: no babble, and no short packet either. */
static void in_packet_that_fits_a_small_descriptor(void **state)
{
	(void)state;
	for (uint32_t sent = 0; sent <= 13; sent += 13)
		for (unsigned k = 0; k < N; k++) {
			struct list l = equal_list(true, 64, 64);

			snprintf(context, sizeof(context), "%u of 13 at %u", sent, k);
			again(64);
			l.lengths[k] = 13;
			l.flags |= TD_SPD;
			in_pipe->short_packet = k;
			in_pipe->short_length = sent;
			put_list(&l, 0);
			frames(1);
			l.lengths[k] = sent;
			good_until(&l, 0, sent == 13 ? N : k + 1, 0);
			equal("the queue's element", element_of(0), sent == 13 ? LINK_T : TD(k));
		}
}

/* Packets that were fetched for other descriptors meet one without room: it babbles, and they go on. */
static void kept_packet_that_does_not_fit(void **state)
{
	struct list l = equal_list(true, 64, 64);

	(void)state;
	in_pipe->hold = true;
	put_list(&l, 0);
	frames(1);
	frame_list(LINK_T);
	frames(1);
	fake_pipe_move(in_pipe, 4 * 64);
	fake_pipe_end(in_pipe, BH_STALL);
	l.lengths[1] = 13;
	put_list(&l, 0);
	frames(1);
	equal("first", control_of(0) & ENDED, 0);
	equal("second", control_of(1) & ENDED, TD_STALLED | TD_BABBLE);
	equal("overrun", guest.memory[BUFFER(1)], 0xee);
	l.lengths[1] = 64;
	put_list(&l, 2);
	frames(1);
	good_until(&l, 2, 4, 2 * 64); /* the third and fourth packets, */
	equal("fifth", control_of(4) & ENDED, TD_STALLED); /* and the status that came after them */
	untouched(&l, 5);
}

/* More than it was asked for is not believed, nor does it move the guest's next packets. */
static void more_than_asked(void **state)
{
	(void)state;
	for (unsigned in_ = 0; in_ < 2; in_++) {
		struct list l = equal_list(in_, 64, 64);
		struct fake_pipe *p;
		struct bh_transfer *t;

		again(64);
		p = pipe_of(&l);
		p->hold = true;
		put_list(&l, 0);
		frames(1);
		fake_pipe_move(p, 64 * N);
		t = p->held;
		p->held = NULL;
		bh_transfer_done(t, BH_SUCCESS, UINT32_MAX);
		frames(1);
		good_until(&l, 0, N, 0);
		equal("the queue's element", element_of(0), LINK_T);
		equal("submits", p->submits, 1);
	}
}

/* --- DEVIATION [0092] ------------------------------------------------------------------------- */

/*
 * The patent's pseudo-code charges a failure after exactly k full packets to packet k of
 * those that were taken, calls a short IN a failure, and loses the zero-length packet.
 */
static void the_patents_pseudo_code_is_not_followed(void **state)
{
	struct list l = equal_list(false, 64, 64);

	(void)state;
	out_pipe->fail_packet = 3;
	out_pipe->fail = BH_STALL;
	put_list(&l, 0);
	frames(1);
	equal("the third was taken", control_of(2) & ENDED, 0);
	equal("the fourth was not", control_of(3) & ENDED, TD_STALLED);

	l = equal_list(true, 64, 64);
	again(64);
	in_pipe->short_packet = 3;
	in_pipe->short_length = 0;
	l.flags |= TD_SPD;
	put_list(&l, 0);
	frames(1);
	equal("the zero-length packet ends the fourth", control_of(3) & (ENDED | TD_ACTLEN), TD_NO_BYTES);
	equal("failed packets", engine()->failed_packets, 0);
	untouched(&l, 4);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(failure_is_charged_to_its_packet),
		TEST(failure_is_charged_to_a_last_packet_that_is_short),
		TEST(failure_is_charged_right_in_a_list_of_any_lengths),
		TEST(failure_in_the_middle_of_a_packet),
		TEST(lost_packet_is_tried_again),
		TEST(disconnected_at_every_packet),
		TEST(disconnected_after_saying_where),
		TEST(short_in_packet),
		TEST(next_request_after_a_short_packet),
		TEST(short_out_is_a_lost_packet),
		TEST(in_packet_larger_than_its_descriptor),
		TEST(in_packet_that_fits_a_small_descriptor),
		TEST(kept_packet_that_does_not_fit),
		TEST(more_than_asked),
		TEST(the_patents_pseudo_code_is_not_followed),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
