/*
 * The SCSI side of the disk: a command descriptor block in, a plan out. It does no
 * I/O and knows no transport: who carries out the plan tells how it went with
 * bh_scsi_done(), and only then is there sense data to be had for it.
 */
#ifndef FUNCTION_SCSI_H
#define FUNCTION_SCSI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BH_SCSI_CDB_MAX 16
#define BH_SCSI_RESPONSE_MAX 160

enum bh_scsi_action {
	BH_SCSI_NONE,     /* status only */
	BH_SCSI_RESPONSE, /* length bytes of bh_scsi.response go to the host */
	BH_SCSI_READ,     /* length bytes of the medium, from offset on, go to the host */
	BH_SCSI_WRITE,    /* and come from the host */
	BH_SCSI_VERIFY,   /* are read, and go nowhere */
	BH_SCSI_FLUSH,    /* what was written reaches stable storage */
};

struct bh_scsi_plan {
	enum bh_scsi_action action;
	bool good;       /* false: CHECK CONDITION, and the action is NONE */
	bool fua;        /* WRITE */
	bool eject;      /* FLUSH, then the medium is gone */
	uint64_t offset; /* bytes */
	uint64_t length; /* bytes */
};

struct bh_scsi_sense {
	uint8_t key;
	uint16_t code;   /* ASC << 8 | ASCQ */
	int field;       /* the CDB's byte that is to blame; -1: none */
	bool has_block;  /* block is valid */
	uint64_t block;  /* the first one that failed */
};

struct bh_scsi {
	/* configuration */
	uint64_t blocks;
	uint32_t block_size;
	bool readonly;
	bool removable;
	const char *serial;

	/* state */
	bool ejected;
	bool prevented; /* PREVENT ALLOW MEDIUM REMOVAL */
	bool attention; /* the medium may have changed: told once */
	struct bh_scsi_sense sense;

	/* of the command in hand */
	size_t response_length;
	uint8_t response[BH_SCSI_RESPONSE_MAX];
};

/* Configuration has been filled in, the rest is zero. */
void bh_scsi_init(struct bh_scsi *s);

/* Bus reset: nothing prevented, nothing remembered. An ejected medium stays out. */
void bh_scsi_reset(struct bh_scsi *s);

/* Power-on: that, and the medium is in. */
void bh_scsi_power_on(struct bh_scsi *s);

/* Decide on a command. cdb has length bytes, at most BH_SCSI_CDB_MAX; any bytes. */
void bh_scsi_command(struct bh_scsi *s, uint8_t lun, const uint8_t *cdb, size_t length,
                     struct bh_scsi_plan *ret);

/*
 * The plan was carried out; error is 0 or a negative errno, moved how many bytes
 * went well before it. False: CHECK CONDITION.
 */
bool bh_scsi_done(struct bh_scsi *s, const struct bh_scsi_plan *plan, int error, uint64_t moved);

#endif
