/*
 * SCSI block commands, SPC-4 and SBC-3, as far as Linux, Windows, SeaBIOS and EDK2
 * use them; the table at the end is the list. What is left out: mode page changes
 * (MODE SELECT; nothing is changeable), protection information, LOG SENSE,
 * reservations, UNMAP.
 *
 * Unit attention: only "medium may have changed", after an ejected medium was
 * loaded again. The one that SAM asks for after power-on and reset (29h) tells the
 * initiator that its settings were lost; there are none to lose here, and some
 * firmware gives up on the first command that fails.
 * DEVIATION SAM-5 5.14: no unit attention after power-on or reset.
 */
#include "scsi.h"

#include <errno.h>
#include <string.h>

#include <base/bytes.h>
#include <base/util.h>

/* Sense keys (SPC-4 table 48) */
enum {
	NOT_READY = 0x2,
	MEDIUM_ERROR = 0x3,
	HARDWARE_ERROR = 0x4,
	ILLEGAL_REQUEST = 0x5,
	UNIT_ATTENTION = 0x6,
	DATA_PROTECT = 0x7,
};

/* Additional sense codes and qualifiers (SPC-4 table 49) */
enum {
	WRITE_ERROR = 0x0c00,
	UNRECOVERED_READ_ERROR = 0x1100,
	INVALID_OPERATION_CODE = 0x2000,
	LBA_OUT_OF_RANGE = 0x2100,
	INVALID_FIELD_IN_CDB = 0x2400,
	LOGICAL_UNIT_NOT_SUPPORTED = 0x2500,
	WRITE_PROTECTED = 0x2700,
	SPACE_ALLOCATION_FAILED = 0x2707,
	MEDIUM_MAY_HAVE_CHANGED = 0x2800,
	SAVING_NOT_SUPPORTED = 0x3900,
	MEDIUM_NOT_PRESENT = 0x3a00,
	INTERNAL_TARGET_FAILURE = 0x4400,
	MEDIUM_REMOVAL_PREVENTED = 0x5302,
};

/* Operation codes that handlers tell apart */
enum {
	MODE_SENSE_6 = 0x1a,
	READ_6 = 0x08,
	WRITE_6 = 0x0a,
	INQUIRY = 0x12,
	REQUEST_SENSE = 0x03,
};

struct command {
	uint8_t opcode;
	uint8_t length; /* of the CDB */
	unsigned needs;
	void (*run)(struct bh_scsi *s, const uint8_t *cdb, struct bh_scsi_plan *plan);
};

#define NEEDS_MEDIUM 1u /* not ready without one */
#define NO_ATTENTION 2u /* does not report a unit attention (SPC-4 5.14) */
#define NEEDS_WRITABLE 4u

static uint16_t be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)be16(p) << 16 | be16(p + 2);
}

static uint64_t be64(const uint8_t *p)
{
	return (uint64_t)be32(p) << 32 | be32(p + 4);
}

static void put_be16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put_be32(uint8_t *p, uint32_t v)
{
	put_be16(p, (uint16_t)(v >> 16));
	put_be16(p + 2, (uint16_t)v);
}

static void put_be64(uint8_t *p, uint64_t v)
{
	put_be32(p, (uint32_t)(v >> 32));
	put_be32(p + 4, (uint32_t)v);
}

static void check(struct bh_scsi *s, struct bh_scsi_plan *plan, uint8_t key, uint16_t code)
{
	*plan = (struct bh_scsi_plan){.action = BH_SCSI_NONE, .good = false};
	s->sense = (struct bh_scsi_sense){.key = key, .code = code, .field = -1};
}

static void invalid_field(struct bh_scsi *s, struct bh_scsi_plan *plan, int field)
{
	check(s, plan, ILLEGAL_REQUEST, INVALID_FIELD_IN_CDB);
	s->sense.field = field;
}

/* A zeroed response of the given length, to be filled in. */
static uint8_t *response(struct bh_scsi *s, size_t length)
{
	memset(s->response, 0, length);
	s->response_length = length;
	return s->response;
}

/* Answer with the response, cut to the allocation length (SPC-4 4.2.5.6). */
static void answer(struct bh_scsi *s, struct bh_scsi_plan *plan, uint32_t allocation)
{
	plan->length = BH_MIN((uint64_t)s->response_length, allocation);
	if (plan->length)
		plan->action = BH_SCSI_RESPONSE;
}

/* ASCII, left-aligned, padded with blanks (SPC-4 4.4.1). */
static void put_text(uint8_t *p, size_t size, const char *text)
{
	size_t n = strlen(text);

	memset(p, ' ', size);
	memcpy(p, text, BH_MIN(n, size));
}

/* ---- what the unit is ---- */

#define VENDOR "BULKHEAD"
#define PRODUCT "DISK"
#define REVISION "0001"

/* SPC-4 6.4.2; 36 bytes, which is what firmware asks for to the byte. */
static void standard_inquiry(struct bh_scsi *s)
{
	uint8_t *p = response(s, 36);

	p[1] = s->removable ? 0x80 : 0;
	p[2] = 6; /* SPC-4 */
	p[3] = 2; /* response data format */
	p[4] = 36 - 5;
	put_text(p + 8, 8, VENDOR);
	put_text(p + 16, 16, PRODUCT);
	put_text(p + 32, 4, REVISION);
}

static const uint8_t vpd_pages[] = {0x00, 0x80, 0x83, 0xb0, 0xb1};

/* SPC-4 7.8, SBC-3 6.5. False: no such page. */
static bool vital_product_data(struct bh_scsi *s, uint8_t page)
{
	size_t n = strlen(s->serial);
	uint8_t *p;

	switch (page) {
	case 0x00: /* supported pages */
		p = response(s, 4 + sizeof(vpd_pages));
		memcpy(p + 4, vpd_pages, sizeof(vpd_pages));
		break;
	case 0x80: /* unit serial number */
		p = response(s, 4 + n);
		memcpy(p + 4, s->serial, n);
		break;
	case 0x83: /* device identification: one designator, T10 vendor ID based */
		p = response(s, 4 + 4 + 8 + 16 + n);
		p[4] = 0x02; /* ASCII */
		p[5] = 0x01; /* of the logical unit; T10 */
		p[7] = (uint8_t)(8 + 16 + n);
		put_text(p + 8, 8, VENDOR);
		put_text(p + 16, 16, PRODUCT);
		memcpy(p + 32, s->serial, n);
		break;
	case 0xb0: /* block limits: none */
		response(s, 64);
		break;
	case 0xb1: /* block device characteristics: does not rotate */
		p = response(s, 64);
		p[5] = 1;
		break;
	default:
		return false;
	}
	s->response[1] = page;
	put_be16(s->response + 2, (uint16_t)(s->response_length - 4));
	return true;
}

static void inquiry(struct bh_scsi *s, const uint8_t *cdb, struct bh_scsi_plan *plan)
{
	bool evpd = cdb[1] & 1;

	if (cdb[1] & ~1) {
		invalid_field(s, plan, 1);
		return;
	}
	if (!evpd && cdb[2]) {
		invalid_field(s, plan, 2);
		return;
	}
	if (!evpd)
		standard_inquiry(s);
	else if (!vital_product_data(s, cdb[2])) {
		invalid_field(s, plan, 2);
		return;
	}
	answer(s, plan, be16(cdb + 3));
}

/* SPC-4 6.33: all units (0) or all without the well-known ones (2): one; the well-known (1): none. */
static void report_luns(struct bh_scsi *s, const uint8_t *cdb, struct bh_scsi_plan *plan)
{
	uint8_t *p;

	if (cdb[2] > 2) {
		invalid_field(s, plan, 2);
		return;
	}
	p = response(s, cdb[2] == 1 ? 8 : 16);
	put_be32(p, cdb[2] == 1 ? 0 : 8);
	answer(s, plan, be32(cdb + 6));
}

/* Fixed format, 18 bytes (SPC-4 4.5.3). */
static void put_sense(struct bh_scsi *s, const struct bh_scsi_sense *sense)
{
	uint8_t *p = response(s, 18);

	p[0] = 0x70;
	p[2] = sense->key;
	p[7] = 18 - 8;
	put_be16(p + 12, sense->code);
	if (sense->has_block && sense->block <= UINT32_MAX) {
		p[0] |= 0x80; /* the information field is valid */
		put_be32(p + 3, (uint32_t)sense->block);
	}
	if (sense->field >= 0) {
		p[15] = 0xc0; /* the field pointer is valid, and into the CDB */
		put_be16(p + 16, (uint16_t)sense->field);
	}
}

/*
 * SPC-4 6.39: the last command's, or an attention that waits to be told, or that
 * there is no medium. Told once; bh_scsi_command() has not cleared it for this one.
 */
static void request_sense(struct bh_scsi *s, const uint8_t *cdb, struct bh_scsi_plan *plan)
{
	struct bh_scsi_sense sense = s->sense;

	if (cdb[1] & 1) { /* descriptor format */
		invalid_field(s, plan, 1);
		return;
	}
	if (!sense.key && s->attention) {
		sense.key = UNIT_ATTENTION;
		sense.code = MEDIUM_MAY_HAVE_CHANGED;
		s->attention = false;
	} else if (!sense.key && s->ejected) {
		sense.key = NOT_READY;
		sense.code = MEDIUM_NOT_PRESENT;
	}
	put_sense(s, &sense);
	s->sense = (struct bh_scsi_sense){.field = -1};
	answer(s, plan, cdb[4]);
}

static void test_unit_ready(struct bh_scsi *s, const uint8_t *cdb, struct bh_scsi_plan *plan)
{
	(void)s, (void)cdb, (void)plan; /* NEEDS_MEDIUM has said it all */
}

static void read_capacity_10(struct bh_scsi *s, const uint8_t *cdb, struct bh_scsi_plan *plan)
{
	uint8_t *p = response(s, 8);

	(void)cdb;
	put_be32(p, (uint32_t)BH_MIN(s->blocks - 1, (uint64_t)UINT32_MAX));
	put_be32(p + 4, s->block_size);
	answer(s, plan, UINT32_MAX);
}

static void service_action_in(struct bh_scsi *s, const uint8_t *cdb, struct bh_scsi_plan *plan)
{
	uint8_t *p;

	if ((cdb[1] & 0x1f) != 0x10) { /* READ CAPACITY(16) */
		invalid_field(s, plan, 1);
		return;
	}
	p = response(s, 32);
	put_be64(p, s->blocks - 1);
	put_be32(p + 8, s->block_size);
	answer(s, plan, be32(cdb + 10));
}

/* MMC-6 6.23, which Windows sends to every USB disk: one descriptor, the current one. */
static void read_format_capacities(struct bh_scsi *s, const uint8_t *cdb, struct bh_scsi_plan *plan)
{
	uint8_t *p = response(s, 12);

	p[3] = 8;
	put_be32(p + 4, (uint32_t)BH_MIN(s->blocks, (uint64_t)UINT32_MAX));
	p[8] = s->ejected ? 3 : 2; /* no medium; formatted */
	p[9] = (uint8_t)(s->block_size >> 16);
	put_be16(p + 10, (uint16_t)s->block_size);
	answer(s, plan, be16(cdb + 7));
}

/* ---- mode pages (SPC-4 7.5, SBC-3 6.4) ---- */

#define MODE_PAGE_ALL 0x3f

/* In ascending order, as MODE SENSE has to return them. */
static const struct mode_page {
	uint8_t code;
	uint8_t length; /* with its two bytes of header */
} mode_pages[] = {
	{0x08, 20}, /* caching */
	{0x0a, 12}, /* control */
	{0x1c, 12}, /* informational exceptions control */
};

/* Append a page; changeable: the mask of what MODE SELECT may change, which is nothing. */
static void append_mode_page(struct bh_scsi *s, const struct mode_page *page, bool changeable)
{
	uint8_t *p = s->response + s->response_length;

	memset(p, 0, page->length);
	p[0] = page->code;
	p[1] = (uint8_t)(page->length - 2);
	if (!changeable && page->code == 0x08 && !s->readonly)
		p[2] = 0x04; /* WCE: writes are in the host's cache until they are synchronised */
	if (!changeable && page->code == 0x1c)
		p[2] = 0x08; /* DEXCPT: no failure predictions */
	s->response_length += page->length;
}

static void append_block_descriptor(struct bh_scsi *s, bool is_long)
{
	uint8_t *p = s->response + s->response_length;

	memset(p, 0, 16);
	if (is_long) {
		put_be64(p, s->blocks);
		put_be32(p + 12, s->block_size);
		s->response_length += 16;
	} else {
		put_be32(p, (uint32_t)BH_MIN(s->blocks, (uint64_t)UINT32_MAX));
		put_be32(p + 4, s->block_size); /* its upper byte, reserved, is zero */
		s->response_length += 8;
	}
}

/* MODE SENSE(6) and (10): header, block descriptor, pages. Lengths are the whole's, not what was asked for. */
static void mode_sense(struct bh_scsi *s, const uint8_t *cdb, struct bh_scsi_plan *plan)
{
	bool six = cdb[0] == MODE_SENSE_6;
	bool is_long = !six && cdb[1] & 0x10; /* LLBAA */
	bool disable_block = cdb[1] & 0x08;   /* DBD */
	uint8_t control = cdb[2] >> 6, code = cdb[2] & 0x3f, subpage = cdb[3];
	uint8_t flags = 0x10 | (s->readonly ? 0x80 : 0); /* DPOFUA, WP */
	size_t header = six ? 4 : 8, descriptor;
	bool found = code == MODE_PAGE_ALL;

	if (control == 3) {
		check(s, plan, ILLEGAL_REQUEST, SAVING_NOT_SUPPORTED);
		return;
	}
	if (subpage != 0 && subpage != 0xff) {
		invalid_field(s, plan, 3);
		return;
	}
	response(s, header);
	if (!disable_block)
		append_block_descriptor(s, is_long);
	descriptor = s->response_length - header;
	for (size_t i = 0; i < BH_COUNT(mode_pages); i++) {
		if (code != MODE_PAGE_ALL && code != mode_pages[i].code)
			continue;
		append_mode_page(s, &mode_pages[i], control == 1);
		found = true;
	}
	if (!found) {
		invalid_field(s, plan, 2);
		return;
	}
	if (six) {
		s->response[0] = (uint8_t)(s->response_length - 1);
		s->response[2] = flags;
		s->response[3] = (uint8_t)descriptor;
	} else {
		put_be16(s->response, (uint16_t)(s->response_length - 2));
		s->response[3] = flags;
		s->response[4] = is_long; /* LONGLBA */
		put_be16(s->response + 6, (uint16_t)descriptor);
	}
	answer(s, plan, six ? cdb[4] : be16(cdb + 7));
}

/* ---- the medium ---- */

/* The logical block address and number of blocks, where each CDB size has them. */
static void get_range(const uint8_t *cdb, uint64_t *ret_lba, uint64_t *ret_count)
{
	switch (cdb[0] >> 5) {
	case 0: /* 6 */
		*ret_lba = be32(cdb) & 0x1fffff;
		*ret_count = cdb[4] ? cdb[4] : 256;
		break;
	case 4: /* 16 */
		*ret_lba = be64(cdb + 2);
		*ret_count = be32(cdb + 10);
		break;
	case 5: /* 12 */
		*ret_lba = be32(cdb + 2);
		*ret_count = be32(cdb + 6);
		break;
	default: /* 10 */
		*ret_lba = be32(cdb + 2);
		*ret_count = be16(cdb + 7);
		break;
	}
}

/* Put the CDB's range into the plan. False, with sense, if the medium has no such blocks. */
static bool range(struct bh_scsi *s, const uint8_t *cdb, struct bh_scsi_plan *plan)
{
	uint64_t lba, count;

	get_range(cdb, &lba, &count);
	if (lba >= s->blocks || count > s->blocks - lba) {
		check(s, plan, ILLEGAL_REQUEST, LBA_OUT_OF_RANGE);
		s->sense.has_block = true;
		s->sense.block = lba;
		return false;
	}
	plan->offset = lba * s->block_size;
	plan->length = count * s->block_size;
	return true;
}

/*
 * READ and WRITE. Byte 1 of all but the six-byte ones: protection information,
 * which is refused, DPO, of no consequence, and FUA. For reads FUA changes nothing:
 * everybody sees the host's cache.
 */
static bool transfer(struct bh_scsi *s, const uint8_t *cdb, struct bh_scsi_plan *plan)
{
	bool six = cdb[0] == READ_6 || cdb[0] == WRITE_6;

	if (!six && cdb[1] & 0xe0) {
		invalid_field(s, plan, 1);
		return false;
	}
	plan->fua = !six && cdb[1] & 0x08;
	return range(s, cdb, plan);
}

static void read_blocks(struct bh_scsi *s, const uint8_t *cdb, struct bh_scsi_plan *plan)
{
	if (transfer(s, cdb, plan) && plan->length)
		plan->action = BH_SCSI_READ;
}

static void write_blocks(struct bh_scsi *s, const uint8_t *cdb, struct bh_scsi_plan *plan)
{
	if (transfer(s, cdb, plan) && plan->length)
		plan->action = BH_SCSI_WRITE;
}

/* SBC-3 5.33: only that the blocks can be read; comparing (BYTCHK) is refused. */
static void verify(struct bh_scsi *s, const uint8_t *cdb, struct bh_scsi_plan *plan)
{
	if (cdb[1] & 0xe6) {
		invalid_field(s, plan, 1);
		return;
	}
	if (range(s, cdb, plan) && plan->length)
		plan->action = BH_SCSI_VERIFY;
}

/* SBC-3 5.23: all of the cache, whatever range is named, and always before the status (IMMED is ignored). */
static void synchronize_cache(struct bh_scsi *s, const uint8_t *cdb, struct bh_scsi_plan *plan)
{
	if (!range(s, cdb, plan))
		return;
	plan->length = 0;
	if (!s->readonly)
		plan->action = BH_SCSI_FLUSH;
}

/*
 * SBC-3 5.21. Stopping flushes, and no more: there is no motor to wait for, so the
 * unit is ready again at once. With LOEJ it ejects, if that is not prevented, or
 * loads. IMMED is ignored.
 */
static void start_stop_unit(struct bh_scsi *s, const uint8_t *cdb, struct bh_scsi_plan *plan)
{
	bool load = cdb[4] & 2, start = cdb[4] & 1;

	if (cdb[4] & 0xf0) /* a power condition */
		return;
	if (load && start && s->ejected) {
		s->ejected = false;
		s->attention = true;
	}
	if (start || s->ejected)
		return;
	if (load && s->prevented) {
		check(s, plan, ILLEGAL_REQUEST, MEDIUM_REMOVAL_PREVENTED);
		return;
	}
	plan->action = BH_SCSI_FLUSH;
	plan->eject = load;
}

static void prevent_allow(struct bh_scsi *s, const uint8_t *cdb, struct bh_scsi_plan *plan)
{
	if (cdb[4] & 0xfe) {
		invalid_field(s, plan, 4);
		return;
	}
	s->prevented = cdb[4] & 1;
}

static const struct command commands[] = {
	{0x00, 6, NEEDS_MEDIUM, test_unit_ready},
	{REQUEST_SENSE, 6, NO_ATTENTION, request_sense},
	{READ_6, 6, NEEDS_MEDIUM, read_blocks},
	{WRITE_6, 6, NEEDS_MEDIUM | NEEDS_WRITABLE, write_blocks},
	{INQUIRY, 6, NO_ATTENTION, inquiry},
	{MODE_SENSE_6, 6, 0, mode_sense},
	{0x1b, 6, 0, start_stop_unit},
	{0x1e, 6, 0, prevent_allow},
	{0x23, 10, 0, read_format_capacities},
	{0x25, 10, NEEDS_MEDIUM, read_capacity_10},
	{0x28, 10, NEEDS_MEDIUM, read_blocks},
	{0x2a, 10, NEEDS_MEDIUM | NEEDS_WRITABLE, write_blocks},
	{0x2f, 10, NEEDS_MEDIUM, verify},
	{0x35, 10, NEEDS_MEDIUM, synchronize_cache},
	{0x5a, 10, 0, mode_sense},
	{0x88, 16, NEEDS_MEDIUM, read_blocks},
	{0x8a, 16, NEEDS_MEDIUM | NEEDS_WRITABLE, write_blocks},
	{0x8f, 16, NEEDS_MEDIUM, verify},
	{0x91, 16, NEEDS_MEDIUM, synchronize_cache},
	{0x9e, 16, NEEDS_MEDIUM, service_action_in},
	{0xa0, 12, NO_ATTENTION, report_luns},
	{0xa8, 12, NEEDS_MEDIUM, read_blocks},
	{0xaa, 12, NEEDS_MEDIUM | NEEDS_WRITABLE, write_blocks},
};

static const struct command *find(uint8_t opcode)
{
	for (size_t i = 0; i < BH_COUNT(commands); i++) {
		if (commands[i].opcode == opcode)
			return &commands[i];
	}
	return NULL;
}

/* A unit that does not exist (SPC-4 5.11): INQUIRY and REQUEST SENSE answer for it, the rest fails. */
static void no_such_unit(struct bh_scsi *s, const uint8_t *cdb, size_t length, struct bh_scsi_plan *plan)
{
	static const struct bh_scsi_sense sense = {ILLEGAL_REQUEST, LOGICAL_UNIT_NOT_SUPPORTED, -1, false, 0};

	if (cdb[0] == INQUIRY && length >= 6 && !(cdb[1] & 1)) {
		standard_inquiry(s);
		s->response[0] = 0x7f; /* qualifier 3: cannot be there */
		answer(s, plan, be16(cdb + 3));
	} else if (cdb[0] == REQUEST_SENSE && length >= 6) {
		put_sense(s, &sense);
		answer(s, plan, cdb[4]);
	} else {
		check(s, plan, ILLEGAL_REQUEST, LOGICAL_UNIT_NOT_SUPPORTED);
	}
}

void bh_scsi_command(struct bh_scsi *s, uint8_t lun, const uint8_t *cdb, size_t length,
                     struct bh_scsi_plan *ret)
{
	const struct command *c = find(cdb[0]);

	*ret = (struct bh_scsi_plan){.action = BH_SCSI_NONE, .good = true};
	s->response_length = 0;
	if (cdb[0] != REQUEST_SENSE)
		s->sense = (struct bh_scsi_sense){.field = -1};

	if (lun != 0) {
		no_such_unit(s, cdb, length, ret);
	} else if (!c) {
		check(s, ret, ILLEGAL_REQUEST, INVALID_OPERATION_CODE);
		s->sense.field = 0;
	} else if (length < c->length) {
		invalid_field(s, ret, (int)length);
	} else if (s->attention && !(c->needs & NO_ATTENTION)) {
		s->attention = false;
		check(s, ret, UNIT_ATTENTION, MEDIUM_MAY_HAVE_CHANGED);
	} else if (c->needs & NEEDS_MEDIUM && s->ejected) {
		check(s, ret, NOT_READY, MEDIUM_NOT_PRESENT);
	} else if (c->needs & NEEDS_WRITABLE && s->readonly) {
		check(s, ret, DATA_PROTECT, WRITE_PROTECTED);
	} else {
		c->run(s, cdb, ret);
	}
}

/* What a host's errno is to a guest. */
static void sense_of_error(struct bh_scsi *s, const struct bh_scsi_plan *plan, int error)
{
	bool reading = plan->action == BH_SCSI_READ || plan->action == BH_SCSI_VERIFY;

	switch (-error) {
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		s->sense.key = DATA_PROTECT;
		s->sense.code = SPACE_ALLOCATION_FAILED;
		break;
	case EROFS:
		s->sense.key = DATA_PROTECT;
		s->sense.code = WRITE_PROTECTED;
		break;
	case ENOMEM:
		s->sense.key = HARDWARE_ERROR;
		s->sense.code = INTERNAL_TARGET_FAILURE;
		break;
	default:
		s->sense.key = MEDIUM_ERROR;
		s->sense.code = reading ? UNRECOVERED_READ_ERROR : WRITE_ERROR;
		break;
	}
}

bool bh_scsi_done(struct bh_scsi *s, const struct bh_scsi_plan *plan, int error, uint64_t moved)
{
	if (!plan->good)
		return false;
	if (error) {
		s->sense = (struct bh_scsi_sense){.field = -1};
		sense_of_error(s, plan, error);
		if (plan->action != BH_SCSI_FLUSH) {
			s->sense.has_block = true;
			s->sense.block = (plan->offset + moved) / s->block_size;
		}
		return false;
	}
	if (plan->eject)
		s->ejected = true;
	return true;
}

void bh_scsi_init(struct bh_scsi *s)
{
	s->sense.field = -1;
}

void bh_scsi_power_on(struct bh_scsi *s)
{
	bh_scsi_reset(s);
	s->ejected = s->attention = false;
}

void bh_scsi_reset(struct bh_scsi *s)
{
	s->prevented = false;
	s->sense = (struct bh_scsi_sense){.field = -1};
}
