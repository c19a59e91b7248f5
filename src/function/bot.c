/*
 * USB Mass Storage Class, Bulk-Only Transport 1.0: command, data and status, the
 * thirteen cases, halts and recovery. All of it.
 *
 *        .---- CBW, no data (cases 1-3), or none that is taken (9, 10, 13) ------------.
 *        |                                                                            |
 *        |---- CBW, data from host (11, 12) ---> DATA_OUT --- all that is wanted ---->|
 *        |                                                                            |
 *     COMMAND -- CBW, data to host (4-8) ------> DATA_IN ---- all that was asked for -|
 *        ^                                                                            v
 *        '------------------------- CSW, when the stream has finished ------------ STATUS
 *
 *   An invalid CBW (6.2.1) leaves COMMAND as it is, but wedged: both pipes are halted
 *   until a Bulk-Only Mass Storage Reset (6.6.1).
 *
 *   edge                       function
 *   COMMAND -> DATA_*, STATUS  take_command, begin_data
 *   DATA_OUT -> STATUS         take_data
 *   DATA_IN -> STATUS          give_data
 *   STATUS -> COMMAND          give_status
 *   any -> COMMAND             bh_bot_recover, bh_bot_reset
 *
 * The pipes are streams of packets. How they are cut into transfers is the bus's
 * business and must not be seen in what happens: the OUT pipe is taken packet by
 * packet (a CBW is one packet of 31 bytes), and an IN transfer that is not full
 * when the data ends goes on with the CSW, as the next IN token would get it. The
 * short packet at the data's end, or the CSW, ends the transfer.
 *
 * Where the host asks for more than there is (cases 4 and 5, 6.7.2), the device may
 * pad or stall. This one pads with zeros up to what the host asked for and tells in
 * dCSWDataResidue what was meant: firmware knows neither how to clear a halt
 * (SeaBIOS) nor short packets (a UHCI without SPD goes on with the next TD, and
 * the CSW ends up among the data). So an IN pipe halts only for an invalid CBW.
 *
 * Where the host sends more than is wanted (9 and 11, 6.7.3) the device takes what
 * it wants and halts the OUT pipe: accepting the rest would be telling the host
 * that bytes have moved which nobody acted on. For the same reason nothing is taken
 * of a write that the two sides do not agree on (10 and 13).
 */
#include "bot.h"

#include <assert.h>

#include <base/bytes.h>
#include <base/util.h>

#define CBW_SIGNATURE 0x43425355u
#define CSW_SIGNATURE 0x53425355u

/* Command block wrapper (table 5.1) */
struct cbw {
	bh_le32 dCBWSignature;
	bh_le32 dCBWTag;
	bh_le32 dCBWDataTransferLength;
	uint8_t bmCBWFlags; /* bit 7: data in */
	uint8_t bCBWLUN;    /* bits 3:0 */
	uint8_t bCBWCBLength; /* bits 4:0 */
	uint8_t CBWCB[16];
};
_Static_assert(sizeof(struct cbw) == 31, "a CBW is 31 bytes");

/* Command status wrapper (table 5.2) */
struct csw {
	bh_le32 dCSWSignature;
	bh_le32 dCSWTag;
	bh_le32 dCSWDataResidue;
	uint8_t bCSWStatus;
};
_Static_assert(sizeof(struct csw) == 13, "a CSW is 13 bytes");

enum { CSW_PASSED = 0, CSW_FAILED = 1, CSW_PHASE_ERROR = 2 };

static const uint8_t zeros[4096];

#define PHASE(p) (1u << BH_BOT_##p)

/* The figure's edges; every phase may also be left by a reset, for COMMAND. */
static const unsigned allowed[] = {
	[BH_BOT_COMMAND] = PHASE(DATA_OUT) | PHASE(DATA_IN) | PHASE(STATUS) | PHASE(COMMAND),
	[BH_BOT_DATA_OUT] = PHASE(STATUS) | PHASE(COMMAND),
	[BH_BOT_DATA_IN] = PHASE(STATUS) | PHASE(COMMAND),
	[BH_BOT_STATUS] = PHASE(COMMAND),
};

static void set_phase(struct bh_bot *b, enum bh_bot_phase to)
{
	assert(allowed[b->phase] & 1u << to);
	b->phase = to;
}

static struct bh_transfer *first(const struct bh_bot_pipe *p)
{
	if (bh_list_empty(&p->transfers))
		return NULL;
	return bh_container_of(p->transfers.next, struct bh_transfer, device_link);
}

static void finish(struct bh_transfer *t, enum bh_status status)
{
	bh_list_remove(&t->device_link);
	bh_transfer_done(t, status, t->actual);
}

/* Bytes have moved: end the transfer if that was all, or tell the bus. t may be gone afterwards. */
static void moved(struct bh_transfer *t, bool ended)
{
	if (ended || t->actual == t->length)
		finish(t, BH_SUCCESS);
	else
		bh_transfer_progress(t, t->actual);
}

/* ---- command ---- */

/* 6.7: which of the thirteen cases it is, and what follows from it. */
static void begin_data(struct bh_bot *b, bool host_in)
{
	struct bh_scsi_plan *p = &b->plan;
	bool device_in = p->action == BH_SCSI_RESPONSE || p->action == BH_SCSI_READ;
	bool device_out = p->action == BH_SCSI_WRITE;
	uint64_t want = device_in || device_out ? p->length : 0;

	b->moved = 0;
	b->device_length = (uint32_t)BH_MIN(want, (uint64_t)b->host_length);
	b->phase_error = false;
	if (want && b->host_length == 0) /* 2, 3: Hn < Di, Hn < Do */
		b->phase_error = true;
	else if (want && host_in != device_in) /* 8, 10: Hi <> Do, Ho <> Di */
		b->phase_error = true;
	else if (want > b->host_length) /* 7, 13: Hi < Di, Ho < Do */
		b->phase_error = true;
	if (b->phase_error && (device_out || !host_in))
		b->device_length = 0; /* 8, 10, 13 */

	if (b->host_length && host_in) {
		set_phase(b, BH_BOT_DATA_IN); /* 4 to 8 */
	} else if (b->device_length) {
		set_phase(b, BH_BOT_DATA_OUT); /* 11, 12 */
	} else {
		b->out.halted = b->host_length != 0; /* 9, 10, 13 */
		set_phase(b, BH_BOT_STATUS);
	}
}

/* Set the host's side of the command going. */
static void begin_medium(struct bh_bot *b)
{
	const struct bh_scsi_plan *p = &b->plan;

	switch (p->action) {
	case BH_SCSI_READ:
		bh_stream_read(b->stream, p->offset, b->device_length);
		break;
	case BH_SCSI_WRITE:
		bh_stream_write(b->stream, p->offset, b->device_length, p->fua);
		break;
	case BH_SCSI_VERIFY:
		bh_stream_verify(b->stream, p->offset, p->length);
		break;
	case BH_SCSI_FLUSH:
		bh_stream_flush(b->stream);
		break;
	case BH_SCSI_NONE:
	case BH_SCSI_RESPONSE:
		bh_stream_drop(b->stream);
		break;
	}
}

/*
 * A valid CBW. One that is not meaningful (6.2.2: reserved bits, a length that no
 * CDB has) is a command that fails; the specification leaves open what to do, and
 * this needs no reset.
 */
static void begin_command(struct bh_bot *b, const struct cbw *w)
{
	size_t length = w->bCBWCBLength;
	static const uint8_t impossible[1] = {0xff};
	bool meaningful = !(w->bmCBWFlags & 0x7f) && !(w->bCBWLUN & 0xf0) && length >= 1 &&
	                  length <= sizeof(w->CBWCB);

	b->counters.commands++;
	b->tag = w->dCBWTag;
	b->host_length = bh_get_le32(w->dCBWDataTransferLength);
	if (meaningful)
		bh_scsi_command(b->scsi, w->bCBWLUN, w->CBWCB, length, &b->plan);
	else
		bh_scsi_command(b->scsi, 0, impossible, sizeof(impossible), &b->plan);
	begin_data(b, w->bmCBWFlags & 0x80);
	if (b->phase_error)
		b->counters.phase_errors++;
	begin_medium(b);
}

/* COMMAND: the next packet has to be a CBW, of 31 bytes and with its signature (6.2.1). */
static void take_command(struct bh_bot *b, struct bh_transfer *t)
{
	uint32_t packet = BH_MIN(t->length - t->actual, (uint32_t)b->max_packet);
	struct cbw w;
	bool valid = packet == sizeof(w);

	if (valid) {
		bh_transfer_read(t, t->actual, &w, sizeof(w));
		valid = bh_get_le32(w.dCBWSignature) == CBW_SIGNATURE;
	}
	if (valid) {
		begin_command(b, &w);
	} else {
		b->counters.invalid_cbws++;
		b->wedged = true;
	}
	t->actual += packet;
	moved(t, false);
}

/* ---- data ---- */

/* DATA_OUT. True if something moved. Of a last packet with more than was announced the surplus is dropped. */
static bool take_data(struct bh_bot *b, struct bh_transfer *t)
{
	uint32_t n = BH_MIN(t->length - t->actual, b->device_length - b->moved);
	uint32_t over;

	n = bh_stream_put(b->stream, t, t->actual, n);
	if (!n)
		return false;
	t->actual += n;
	b->moved += n;
	if (b->moved == b->device_length) {
		over = t->actual % b->max_packet;
		if (over)
			t->actual = BH_MIN(t->length, t->actual + b->max_packet - over);
		set_phase(b, BH_BOT_STATUS);
		if (b->device_length < b->host_length)
			b->out.halted = true; /* 11 */
	}
	moved(t, false);
	return true;
}

/* Up to max bytes of what the device has to say; none: later. */
static uint32_t give(struct bh_bot *b, struct bh_transfer *t, uint32_t max)
{
	uint32_t meant = b->device_length - BH_MIN(b->moved, b->device_length);
	uint32_t n;

	if (meant && b->plan.action == BH_SCSI_RESPONSE) {
		n = BH_MIN(max, meant);
		bh_transfer_write(t, t->actual, b->scsi->response + b->moved, n);
		return n;
	}
	if (meant && !b->stream->error) {
		n = bh_stream_take(b->stream, t, t->actual, BH_MIN(max, meant));
		if (n || !b->stream->error)
			return n;
	}
	n = BH_MIN(max, (uint32_t)sizeof(zeros)); /* 4, 5, 8, or a read that failed */
	bh_transfer_write(t, t->actual, zeros, n);
	return n;
}

/* DATA_IN. True if something moved. */
static bool give_data(struct bh_bot *b, struct bh_transfer *t)
{
	uint32_t n, total = 0;
	bool ended;

	do {
		n = give(b, t, BH_MIN(t->length - t->actual, b->host_length - b->moved));
		t->actual += n;
		b->moved += n;
		total += n;
	} while (n && t->actual < t->length && b->moved < b->host_length);
	if (!total)
		return false;
	ended = b->moved == b->host_length && b->moved % b->max_packet; /* a short packet */
	if (b->moved == b->host_length)
		set_phase(b, BH_BOT_STATUS);
	moved(t, ended);
	return true;
}

/* ---- status ---- */

/* How many of the host's bytes meant something. */
static uint32_t relevant(const struct bh_bot *b)
{
	switch (b->plan.action) {
	case BH_SCSI_READ:
	case BH_SCSI_WRITE:
		return (uint32_t)b->stream->moved;
	case BH_SCSI_RESPONSE:
		return b->device_length;
	case BH_SCSI_NONE:
	case BH_SCSI_VERIFY:
	case BH_SCSI_FLUSH:
		break;
	}
	return 0;
}

/* Ask what became of the command; once for each. */
static uint8_t conclude(struct bh_bot *b)
{
	bool medium = b->plan.action == BH_SCSI_READ || b->plan.action == BH_SCSI_WRITE ||
	              b->plan.action == BH_SCSI_VERIFY || b->plan.action == BH_SCSI_FLUSH;
	int error = medium ? b->stream->error : 0;
	uint64_t bytes = medium ? b->stream->moved : 0;

	if (b->plan.action == BH_SCSI_READ)
		b->counters.bytes_read += bytes;
	if (b->plan.action == BH_SCSI_WRITE)
		b->counters.bytes_written += bytes;
	b->counters.io_errors += error != 0;
	if (bh_scsi_done(b->scsi, &b->plan, error, bytes))
		return b->phase_error ? CSW_PHASE_ERROR : CSW_PASSED;
	b->counters.failed++;
	return b->phase_error ? CSW_PHASE_ERROR : CSW_FAILED;
}

/* STATUS, and the stream has finished. */
static void give_status(struct bh_bot *b, struct bh_transfer *t)
{
	struct csw s = {
		.dCSWSignature = bh_put_le32(CSW_SIGNATURE),
		.dCSWTag = b->tag,
		.dCSWDataResidue = bh_put_le32(b->host_length - relevant(b)),
	};

	if (t->length - t->actual < sizeof(s)) { /* no bus asks for less than a packet */
		finish(t, BH_BABBLE);
		return;
	}
	s.bCSWStatus = conclude(b);
	bh_transfer_write(t, t->actual, &s, sizeof(s));
	t->actual += (uint32_t)sizeof(s);
	set_phase(b, BH_BOT_COMMAND);
	moved(t, true);
}

/* ---- the pipes ---- */

/* One step of the OUT pipe. False: nothing to be done now. */
static bool step_out(struct bh_bot *b)
{
	struct bh_transfer *t = first(&b->out);

	if (!t)
		return false;
	if (bh_bot_halted(b, false)) {
		finish(t, BH_STALL);
		return true;
	}
	if (t->length == 0) { /* a zero-length packet says nothing, wherever it comes */
		finish(t, BH_SUCCESS);
		return true;
	}
	if (b->phase == BH_BOT_COMMAND) {
		take_command(b, t);
		return true;
	}
	return b->phase == BH_BOT_DATA_OUT && take_data(b, t);
}

static bool step_in(struct bh_bot *b)
{
	struct bh_transfer *t = first(&b->in);

	if (!t)
		return false;
	if (bh_bot_halted(b, true)) {
		finish(t, BH_STALL);
		return true;
	}
	if (t->length == 0) {
		finish(t, BH_SUCCESS);
		return true;
	}
	if (b->phase == BH_BOT_DATA_IN)
		return give_data(b, t);
	if (b->phase != BH_BOT_STATUS || !bh_stream_finished(b->stream))
		return false;
	give_status(b, t);
	return true;
}

void bh_bot_run(struct bh_bot *b)
{
	b->again = true;
	if (b->running)
		return;
	b->running = true;
	while (b->again) {
		b->again = false;
		while (step_out(b) || step_in(b))
			;
	}
	b->running = false;
}

void bh_bot_submit(struct bh_bot *b, struct bh_transfer *t)
{
	t->actual = 0;
	bh_list_append(t->endpoint & BH_ENDPOINT_IN ? &b->in.transfers : &b->out.transfers, &t->device_link);
	bh_bot_run(b);
}

void bh_bot_cancel(struct bh_bot *b, struct bh_transfer *t)
{
	finish(t, BH_CANCELLED);
	bh_bot_run(b);
}

void bh_bot_recover(struct bh_bot *b)
{
	bh_stream_drop(b->stream);
	set_phase(b, BH_BOT_COMMAND);
	b->wedged = false;
	b->counters.resets++;
	bh_bot_run(b);
}

static void cancel_all(struct bh_bot_pipe *p)
{
	struct bh_transfer *t;

	while ((t = first(p)))
		finish(t, BH_CANCELLED);
}

void bh_bot_reset(struct bh_bot *b)
{
	bh_stream_drop(b->stream);
	set_phase(b, BH_BOT_COMMAND);
	b->wedged = false;
	b->out.halted = false;
	b->in.halted = false;
	cancel_all(&b->out);
	cancel_all(&b->in);
}

void bh_bot_set_halt(struct bh_bot *b, bool in)
{
	*(in ? &b->in.halted : &b->out.halted) = true;
	bh_bot_run(b);
}

void bh_bot_clear_halt(struct bh_bot *b, bool in)
{
	*(in ? &b->in.halted : &b->out.halted) = false;
	bh_bot_run(b);
}

void bh_bot_init(struct bh_bot *b)
{
	bh_list_init(&b->out.transfers);
	bh_list_init(&b->in.transfers);
}
