/*
 * The turnaround benchmark: measuring, and its command line. A rig is a machine
 * with a driver, the UHCI, the engine and the simulated host interface; each
 * verification mode has one, and so has packet-at-a-time, which is the same engine
 * with batches of one descriptor.
 *
 * The conditions of the claim are those of [0062] to [0066]: the whole list is
 * visible to the controller, and goes as one batch. So the engine's limits are set
 * out of the way, and the device is one whose transfers always end.
 */
#include "turnaround.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/util.h>
#include <guest/trace.h>
#include <host/simulated.h>

#include "driver.h"

#define OUT_ENDPOINT 0x01
#define IN_ENDPOINT  0x82

#define EVERYTHING UINT32_MAX /* as a limit of descriptors */

/* Frames between two transfers: what the last one stirred up has settled. */
#define PAUSE_FRAMES 4u

static const char name[] = "bulkhead bench turnaround";

/* Powers of two from 64 B to 4 MB, and what lies beside a packet's or a frame's end. */
static const uint32_t sizes[] = {
	63,        64,        65,        128,       256,       512,       1024,
	1216,      1280,      2048,      4096,      8192,      16384,     32768,
	65536,     100000,    131072,    262144,    524288,    1048576,   2097152,
	4194304,
};

/* When in a frame the queue is linked, in microseconds; the first is the edge. */
static const uint32_t moments[] = {0, 1, 500, 999};

struct rig {
	struct bh_simulated_bus bus;
	struct bh_driver driver;
	struct bh_device *device;
	uint64_t place; /* in the pattern, of the next OUT byte */
	bool damaged;   /* the device got other bytes than the guest sent */
};

/* --- the rig ------------------------------------------------------------------------------ */

static void run_bus(void *data, uint64_t now_us)
{
	bh_simulated_run(data, now_us);
}

static uint64_t bus_deadline(void *data)
{
	return bh_simulated_deadline(data);
}

static void check_out(void *data, uint8_t endpoint, const uint8_t *bytes, uint32_t length)
{
	struct rig *rig = data;

	(void)endpoint;
	for (uint32_t i = 0; i < length; i++)
		rig->damaged |= bytes[i] != bh_simulated_pattern(rig->place + i);
	rig->place += length;
}

static struct bh_uhci_config uhci_config(uint32_t most_packets, uint32_t batch)
{
	struct bh_uhci_config c = BH_UHCI_DEFAULTS;

	c.engine.max_batch_bytes = most_packets * BH_TURNAROUND_PACKET;
	c.engine.max_batch_descriptors = BH_MIN(batch, most_packets);
	c.engine.max_bytes = 64u << 20;
	return c;
}

/* batch: descriptors at most. Negative errno; -EACCES: writes would have to be traced, and cannot be. */
static int rig_init(struct rig *rig, struct bh_verification verification, uint32_t most_packets, uint32_t batch)
{
	static const struct bh_endpoint_info endpoints[] = {
		{.address = OUT_ENDPOINT, .type = BH_BULK, .max_packet = BH_TURNAROUND_PACKET},
		{.address = IN_ENDPOINT, .type = BH_BULK, .max_packet = BH_TURNAROUND_PACKET},
	};
	const struct bh_simulated_config device = {
		.endpoints = endpoints,
		.endpoint_count = BH_COUNT(endpoints),
		.finishes = true,
		.sink = check_out,
		.sink_data = rig,
	};
	const struct bh_driver_world world = {.run = run_bus, .deadline = bus_deadline, .data = &rig->bus};
	const struct bh_uhci_config config = uhci_config(most_packets, batch);
	int r;

	memset(rig, 0, sizeof(*rig));
	bh_simulated_bus_init(&rig->bus, BH_DRIVER_EPOCH_US);
	r = bh_driver_init(&rig->driver, &config, most_packets, &world);
	if (r)
		return r;
	if (verification.what == BH_VERIFY_TRACE) /* where it is not possible, the bus refuses the device */
		bh_trace_enable(&rig->driver.guest.guest.memory, BH_TRACE_USERFAULTFD | BH_TRACE_MPROTECT, NULL);
	rig->device = bh_simulated_create(&rig->bus, &device);
	if (rig->device)
		rig->device->verification = verification;
	r = rig->device ? bh_driver_attach(&rig->driver, rig->device) : -ENOMEM;
	if (r)
		bh_driver_finish(&rig->driver);
	return r;
}

static void rig_finish(struct rig *rig)
{
	bh_driver_finish(&rig->driver);
	bh_simulated_bus_finish(&rig->bus);
}

/* --- a transfer -------------------------------------------------------------------------------- */

static void fill(struct rig *rig, bool in)
{
	uint64_t place = rig->place;
	uint32_t length;

	for (uint32_t i = 0; i < rig->driver.packet_count; i++) {
		uint8_t *bytes = bh_driver_bytes(&rig->driver, i, &length);

		for (uint32_t k = 0; k < length; k++)
			bytes[k] = in ? 0 : bh_simulated_pattern(place++);
	}
}

/* Is what came in the pattern from this place on? */
static bool compare(struct rig *rig, uint64_t place)
{
	uint32_t length;

	for (uint32_t i = 0; i < rig->driver.packet_count; i++) {
		const uint8_t *bytes = bh_driver_bytes(&rig->driver, i, &length);

		for (uint32_t k = 0; k < length; k++)
			if (bytes[k] != bh_simulated_pattern(place++))
				return false;
	}
	return true;
}

/* The device has so many bytes to send, and not a packet more. */
static void end_message(struct rig *rig, uint32_t bytes)
{
	uint64_t packets = bh_simulated_count(rig->device, IN_ENDPOINT).packets;

	if (bytes % BH_TURNAROUND_PACKET)
		bh_simulated_program(rig->device, &(struct bh_simulated_fault){
			.kind = BH_SIMULATED_SHORT,
			.endpoint = IN_ENDPOINT,
			.packet = packets + bytes / BH_TURNAROUND_PACKET,
			.value = bytes % BH_TURNAROUND_PACKET,
		});
}

static uint64_t batches(struct rig *rig)
{
	return bh_uhci_bus(rig->driver.uhci)->engine.counters.batches;
}

/* Links the queue at that moment of a frame. -EIO: it did not end as it should; -EBADMSG: other bytes came. */
static int run_transfer(struct rig *rig, const struct bh_turnaround_row *row, uint32_t moment, uint64_t *ret_us)
{
	uint8_t endpoint = row->in ? IN_ENDPOINT : OUT_ENDPOINT;
	struct bh_simulated_count before = bh_simulated_count(rig->device, endpoint);
	struct bh_driver *d = &rig->driver;
	uint64_t frame = d->guest.now_us / BH_TURNAROUND_FRAME_US + PAUSE_FRAMES;

	bh_driver_build(d, endpoint, BH_TURNAROUND_PACKET, row->bytes);
	fill(rig, row->in);
	if (row->in)
		end_message(rig, row->bytes);
	bh_driver_advance(d, frame * BH_TURNAROUND_FRAME_US + moment);
	bh_driver_link(d);
	if (bh_driver_wait(d, (row->packets + 100ull) * 4 * BH_TURNAROUND_FRAME_US, ret_us) || !bh_driver_check(d))
		return -EIO;
	if (bh_simulated_count(rig->device, endpoint).bytes - before.bytes != row->bytes || rig->damaged ||
	    (row->in && !compare(rig, before.bytes)))
		return -EBADMSG;
	return 0;
}

static int measure_batch(struct rig *rig, struct bh_turnaround_row *row)
{
	uint64_t before = batches(rig), us;

	for (size_t i = 0; i < BH_COUNT(moments); i++) {
		int r = run_transfer(rig, row, moments[i], &us);

		if (r)
			return r;
		if (i == 0) {
			row->batch_us = us;
			row->batches = batches(rig) - before;
		}
		row->worst_us = BH_MAX(row->worst_us, us);
	}
	return 0;
}

/*
 * Is the mode measured the one it is said to be? A byte that changes while it is being
 * sent is noticed by those that look at bytes, and by no other. The rig is of no use
 * afterwards.
 */
static bool is_in_effect(struct rig *rig, enum bh_verify what)
{
	const struct bh_engine_counters *c = &bh_uhci_bus(rig->driver.uhci)->engine.counters;
	bool looks = what == BH_VERIFY_EXACT || what == BH_VERIFY_CHECKSUM || what == BH_VERIFY_TRACE;
	uint64_t before = c->mismatches, issued = c->batches, us;
	struct bh_driver *d = &rig->driver;
	uint32_t length;

	bh_driver_build(d, OUT_ENDPOINT, BH_TURNAROUND_PACKET, BH_TURNAROUND_PACKET);
	fill(rig, false);
	bh_driver_link(d);
	while (c->batches == issued && bh_driver_step(d, d->guest.now_us + 100 * BH_TURNAROUND_FRAME_US))
		;
	bh_driver_bytes(d, 0, &length)[0] ^= 1;
	(void)bh_driver_wait(d, 100 * BH_TURNAROUND_FRAME_US, &us); /* well or not: the count tells */
	return c->batches > issued && (c->mismatches > before) == looks;
}

static int measure_single(struct rig *rig, struct bh_turnaround_row *row)
{
	return run_transfer(rig, row, 0, &row->single_us);
}

/* --- all of them ---------------------------------------------------------------------------------- */

struct options {
	const char *json, *plot;
	enum bh_verify first, last; /* modes measured */
	enum bh_verify_when when;
	uint32_t max_size;
	uint32_t batch;
};

/* Whoever watches a terminal is told what is going on; a line that is wiped out again. */
static void show_progress(const char *what, const struct bh_turnaround_row *row)
{
	if (!isatty(STDERR_FILENO))
		return;
	if (row)
		fprintf(stderr, "\r\033[K%s: %u bytes %s ", what, row->bytes, row->in ? "IN" : "OUT");
	else
		fputs("\r\033[K", stderr);
	fflush(stderr);
}

static int failed(const char *what, const struct bh_turnaround_row *row, int error)
{
	show_progress("", NULL);
	if (row)
		fprintf(stderr, "%s: %s, %u bytes %s: %s\n", name, what, row->bytes, row->in ? "IN" : "OUT",
		        error == -EBADMSG ? "the data is damaged" : "the transfer did not end as it should");
	else
		fprintf(stderr, "%s: %s: %s\n", name, what,
		        error == -EACCES   ? "writes to guest memory cannot be traced here"
		        : error == -EPROTO ? "this is not the verification that was measured"
		                           : strerror(-error));
	return error;
}

static uint32_t packets_of(uint32_t bytes)
{
	return (bytes + BH_TURNAROUND_PACKET - 1) / BH_TURNAROUND_PACKET;
}

/* What every row of a set is measured with. */
struct series {
	const char *what;
	int (*measure)(struct rig *rig, struct bh_turnaround_row *row);
	struct bh_verification verification;
	uint32_t batch;
};

static int measure_all(const struct options *o, const struct bh_turnaround_report *r, const struct series *s,
                       struct bh_turnaround_row *rows)
{
	struct rig *rig = malloc(sizeof(*rig));
	int error = rig ? rig_init(rig, s->verification, packets_of(o->max_size), s->batch) : -ENOMEM;

	if (error) {
		free(rig);
		return error == -EACCES ? error : failed(s->what, NULL, error);
	}
	for (size_t i = 0; i < r->row_count && !error; i++) {
		show_progress(s->what, &rows[i]);
		error = s->measure(rig, &rows[i]);
		if (error)
			failed(s->what, &rows[i], error);
	}
	if (!error && s->measure == measure_batch && !is_in_effect(rig, s->verification.what))
		error = failed(s->what, NULL, -EPROTO);
	rig_finish(rig);
	free(rig);
	show_progress("", NULL);
	return error;
}

/* One set of rows: first all sizes OUT, then all IN. */
static void lay_out(const struct options *o, struct bh_turnaround_report *r, struct bh_turnaround_row *rows)
{
	r->row_count = 0;
	for (unsigned in = 0; in < 2; in++)
		for (size_t i = 0; i < BH_COUNT(sizes) && sizes[i] <= o->max_size; i++)
			rows[r->row_count++] = (struct bh_turnaround_row){
				.bytes = sizes[i], .packets = packets_of(sizes[i]), .in = in,
			};
}

static int measure_mode(const struct options *o, struct bh_turnaround_report *r, size_t i,
                        const struct bh_turnaround_row *single)
{
	struct bh_turnaround_result *result = &r->results[i];
	const struct series batch = {
		.what = result->verify,
		.measure = measure_batch,
		.verification = {.what = o->first + (enum bh_verify)i, .when = o->when},
		.batch = o->batch,
	};
	int error;

	for (size_t k = 0; k < r->row_count; k++)
		result->rows[k].single_us = single[k].single_us;
	error = measure_all(o, r, &batch, result->rows);
	if (error != -EACCES)
		return error;
	if (r->result_count == 1)
		return failed(result->verify, NULL, error);
	result->impossible = true;
	return 0;
}

/* Packet at a time is measured once: there is nothing more to verify than the packet itself. */
static int measure(const struct options *o, struct bh_turnaround_report *r)
{
	static const struct series single = {.what = "packet at a time", .measure = measure_single, .batch = 1};
	struct bh_turnaround_row *first = r->results[0].rows;
	int error;

	for (size_t i = 0; i < r->result_count; i++)
		lay_out(o, r, r->results[i].rows);
	error = measure_all(o, r, &single, first);
	for (size_t i = 0; i < r->result_count && !error; i++)
		error = measure_mode(o, r, i, first);
	return error;
}

/* --- the command -------------------------------------------------------------------------------------- */

static const char usage[] =
	"Usage: bulkhead bench turnaround [OPTION...]\n"
	"\n"
	"Moves 64 B to 4 MB through a UHCI driver, the controller, the engine and a simulated host\n"
	"interface that reports at the edges of its 1 ms frames; as one batch, and packet at a time.\n"
	"Time is virtual: every run prints the same.\n"
	"\n"
	"  --verify MODE   what is compared: exact, td, buffer, checksum, trace, none, or all (default)\n"
	"  --verify-when MODE  and when, besides at the end: bounded (some at each retry; default),\n"
	"                  retry (all at each; takes a while) or completion (only at the end)\n"
	"  --max-size N    bytes; leave out what is larger (64 to 4194304)\n"
	"  --batch N       packets that a batch may hold (default: all there are)\n"
	"  --json FILE     write the figures there\n"
	"  --plot FILE     write a plot there, as SVG\n"
	"\n"
	"Exit status: 0; 1 if a transfer of n packets took more than ceil(n / 19) + 2 frames, or from\n"
	"256 KB on less than 97 % of the bus limit was reached, if data was damaged, or a file could\n"
	"not be written; 2 for a wrong command line.\n";

static int wrong(const char *format, const char *what)
{
	fprintf(stderr, "%s: ", name);
	fprintf(stderr, format, what);
	fprintf(stderr, "; see '%s --help'\n", name);
	return 2;
}

static bool parse_number(const char *text, uint32_t lowest, uint32_t highest, uint32_t *ret)
{
	unsigned long number;
	char *end;

	errno = 0;
	number = strtoul(text, &end, 10);
	if (errno || *end || text[0] < '0' || text[0] > '9' || number < lowest || number > highest)
		return false;
	*ret = (uint32_t)number;
	return true;
}

static bool parse_mode(const char *text, struct options *o)
{
	if (!strcmp(text, "all")) {
		o->first = BH_VERIFY_EXACT;
		o->last = BH_VERIFY_COUNT - 1;
		return true;
	}
	if (!bh_verify_parse(text, &o->first))
		return false;
	o->last = o->first;
	return true;
}

enum { OPTION_VERIFY = 256, OPTION_WHEN, OPTION_MAX_SIZE, OPTION_BATCH, OPTION_JSON, OPTION_PLOT, OPTION_HELP };

static const struct option long_options[] = {
	{"verify", required_argument, NULL, OPTION_VERIFY},
	{"verify-when", required_argument, NULL, OPTION_WHEN},
	{"max-size", required_argument, NULL, OPTION_MAX_SIZE},
	{"batch", required_argument, NULL, OPTION_BATCH},
	{"json", required_argument, NULL, OPTION_JSON},
	{"plot", required_argument, NULL, OPTION_PLOT},
	{"help", no_argument, NULL, OPTION_HELP},
	{0},
};

/* -1: go on; otherwise the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", long_options, NULL)) != -1) {
		switch (option) {
		case OPTION_VERIFY:
			if (!parse_mode(optarg, o))
				return wrong("--verify %s is no mode", optarg);
			break;
		case OPTION_WHEN:
			if (!bh_verify_when_parse(optarg, &o->when))
				return wrong("--verify-when %s is no mode", optarg);
			break;
		case OPTION_MAX_SIZE:
			if (!parse_number(optarg, BH_TURNAROUND_PACKET, BH_TURNAROUND_MOST, &o->max_size))
				return wrong("--max-size %s is no number from 64 to 4194304", optarg);
			break;
		case OPTION_BATCH:
			if (!parse_number(optarg, 1, EVERYTHING, &o->batch))
				return wrong("--batch %s is no number from 1 on", optarg);
			break;
		case OPTION_JSON:
			o->json = optarg;
			break;
		case OPTION_PLOT:
			o->plot = optarg;
			break;
		case OPTION_HELP:
			fputs(usage, stdout);
			return 0;
		case ':':
			return wrong("'%s' needs a value", argv[optind - 1]);
		default:
			return wrong("unknown option '%s'", argv[optind - 1]);
		}
	}
	return optind < argc ? wrong("unexpected argument '%s'", argv[optind]) : -1;
}

static int unwritable(const char *path, int error)
{
	fprintf(stderr, "%s: cannot write %s: %s\n", name, path, strerror(-error));
	return 1;
}

/* Prints and writes it all; the exit status. */
static int publish(const struct options *o, const struct bh_turnaround_report *r)
{
	unsigned broken;
	int error, status;

	bh_turnaround_print(r, stdout);
	if (fflush(stdout))
		return unwritable("the table", -errno);
	broken = bh_turnaround_judge(r, stderr);
	status = broken > 0;
	error = o->json ? bh_turnaround_write_json(r, broken, o->json) : 0;
	if (error)
		status = unwritable(o->json, error);
	error = o->plot ? bh_turnaround_write_plot(r, o->plot) : 0;
	if (error)
		status = unwritable(o->plot, error);
	return status;
}

int bh_bench_turnaround(int argc, char **argv)
{
	struct options o = {.last = BH_VERIFY_COUNT - 1, .max_size = BH_TURNAROUND_MOST, .batch = EVERYTHING};
	struct bh_turnaround_row rows[BH_VERIFY_COUNT][2 * BH_COUNT(sizes)];
	struct bh_turnaround_result results[BH_VERIFY_COUNT];
	struct bh_turnaround_report report = {.results = results};
	int status = parse(argc, argv, &o);

	if (status >= 0)
		return status;
	report.verify_when = bh_verify_when_name(o.when);
	report.result_count = (size_t)(o.last - o.first) + 1;
	for (size_t i = 0; i < report.result_count; i++)
		results[i] = (struct bh_turnaround_result){
			.verify = bh_verify_name(o.first + (enum bh_verify)i),
			.rows = rows[i],
		};
	if (measure(&o, &report))
		return 1;
	return publish(&o, &report);
}
