/*
 * Bulk-Only Transport: the two bulk pipes of the disk, and the command that goes
 * over them. See bot.c.
 */
#ifndef FUNCTION_BOT_H
#define FUNCTION_BOT_H

#include <base/list.h>
#include <usb/device.h>

#include "scsi.h"
#include "stream.h"

/* BOT figure 1 */
enum bh_bot_phase {
	BH_BOT_COMMAND,  /* waits for a command block wrapper */
	BH_BOT_DATA_OUT, /* takes data from the host */
	BH_BOT_DATA_IN,  /* gives data to the host */
	BH_BOT_STATUS,   /* the command status wrapper is, or will be, due */
};

/* One of the two bulk pipes. */
struct bh_bot_pipe {
	struct bh_list transfers; /* owned, in order; actual says how far each has come */
	bool halted;
};

struct bh_bot_counters {
	uint64_t commands, bytes_read, bytes_written, failed, io_errors, phase_errors, invalid_cbws, resets;
};

struct bh_bot {
	/* configuration */
	struct bh_scsi *scsi;
	struct bh_stream *stream;
	uint16_t max_packet; /* of both pipes */

	/* state */
	enum bh_bot_phase phase;
	struct bh_bot_pipe out, in;
	bool wedged; /* an invalid CBW: halted until reset recovery (6.6.1) */

	/* the command, from its CBW to its CSW */
	bh_le32 tag;
	uint32_t host_length;   /* dCBWDataTransferLength */
	uint32_t device_length; /* of that, what the device means to move */
	uint32_t moved;         /* bytes of the data phase so far */
	bool phase_error;
	struct bh_scsi_plan plan;

	/* re-entrancy */
	bool running, again;

	struct bh_bot_counters counters;
};

/* Configuration has been filled in, the rest is zero. */
void bh_bot_init(struct bh_bot *b);

/* Take a transfer of one of the pipes; see bh_device_ops. */
void bh_bot_submit(struct bh_bot *b, struct bh_transfer *t);
void bh_bot_cancel(struct bh_bot *b, struct bh_transfer *t);

/* Go on, after the stream has. */
void bh_bot_run(struct bh_bot *b);

/* Bulk-Only Mass Storage Reset (3.1): ready for a CBW; halts stay until they are cleared. */
void bh_bot_recover(struct bh_bot *b);

/* Reset, or another configuration: as new; transfers still owned are cancelled. */
void bh_bot_reset(struct bh_bot *b);

/* SET_FEATURE, CLEAR_FEATURE(ENDPOINT_HALT); a wedged pipe stays halted. */
void bh_bot_set_halt(struct bh_bot *b, bool in);
void bh_bot_clear_halt(struct bh_bot *b, bool in);

static inline bool bh_bot_halted(const struct bh_bot *b, bool in)
{
	return b->wedged || (in ? b->in.halted : b->out.halted);
}

#endif
