/*
 * Measuring. One machine for each verification mode, each with a device that takes
 * a transfer and ends it when it is told to, so that the two halves of a batch's way
 * can be timed apart. Clock readings cost as much as half a packet: what they cost is
 * found first, and taken off.
 */
#include "cost.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <base/util.h>
#include <guest/trace.h>

#include "driver.h"

#define MOST_PACKETS 4096u
#define OUT_ENDPOINT 0x01
#define IN_ENDPOINT  0x82

/* Runs of one size; more where a run is short. */
#define LEAST_RUNS     8u
#define PACKETS_TO_RUN 16384u
#define RETRY_RUNS     20u
#define ROUNDS         6u /* of everything, so that no figure hangs on one moment */

const uint32_t bh_cost_sizes[BH_COST_SIZES] = {1, 4, 16, 64, 256, 1024, 4096};
const uint32_t bh_cost_retry_sizes[2] = {64, 4096};

static const char name[] = "bulkhead bench engine";

/* --- a device that costs nothing ------------------------------------------------------------ */

struct instant {
	struct bh_device device;
	struct bh_transfer *held;
};

static struct instant *of_device(struct bh_device *d)
{
	return bh_container_of(d, struct instant, device);
}

static void finish(struct instant *i, enum bh_status status)
{
	struct bh_transfer *t = i->held;

	i->held = NULL;
	if (t)
		bh_transfer_done(t, status, status == BH_SUCCESS ? t->length : 0);
}

static void submit(struct bh_device *d, struct bh_transfer *t)
{
	if (t->type == BH_CONTROL)
		bh_transfer_done(t, BH_STALL, 0);
	else
		of_device(d)->held = t;
}

static void cancel(struct bh_device *d, struct bh_transfer *t)
{
	(void)t;
	finish(of_device(d), BH_CANCELLED);
}

static void reset(struct bh_device *d)
{
	finish(of_device(d), BH_CANCELLED);
}

static void set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	(void)d, (void)value;
	bh_transfer_done(t, BH_SUCCESS, 0);
}

static void set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate, struct bh_transfer *t)
{
	(void)interface;
	set_configuration(d, alternate, t);
}

static const struct bh_endpoint_info *endpoint(const struct bh_device *d, uint8_t address)
{
	static const struct bh_endpoint_info endpoints[] = {
		{.address = OUT_ENDPOINT, .type = BH_BULK, .max_packet = BH_COST_PACKET},
		{.address = IN_ENDPOINT, .type = BH_BULK, .max_packet = BH_COST_PACKET},
	};

	(void)d;
	for (size_t i = 0; i < BH_COUNT(endpoints); i++)
		if (endpoints[i].address == address)
			return &endpoints[i];
	return NULL;
}

static void destroy(struct bh_device *d)
{
	reset(d);
	free(of_device(d));
}

static const struct bh_device_ops ops = {
	.submit = submit,
	.cancel = cancel,
	.reset = reset,
	.set_configuration = set_configuration,
	.set_interface = set_interface,
	.clear_halt = set_configuration,
	.endpoint = endpoint,
	.destroy = destroy,
};

/* --- a machine ------------------------------------------------------------------------------ */

/* Pairs of a batch and a copy, as ratios. */
struct pairs {
	double ratios[ROUNDS * LEAST_RUNS];
	size_t count;
};

struct rig {
	struct bh_driver driver;
	struct instant *device;
	struct pairs out[BH_COST_SIZES], in[BH_COST_SIZES];
};

static int rig_init(struct rig *rig, enum bh_verify what)
{
	const struct bh_uhci_config config = BH_UHCI_DEFAULTS;
	int r = bh_driver_init(&rig->driver, &config, MOST_PACKETS, NULL);

	if (r)
		return r;
	if (what == BH_VERIFY_TRACE)
		bh_trace_enable(&rig->driver.guest.guest.memory, BH_TRACE_USERFAULTFD | BH_TRACE_MPROTECT, NULL);
	rig->device = calloc(1, sizeof(*rig->device));
	if (rig->device) {
		rig->device->device = (struct bh_device){
			.ops = &ops,
			.speed = BH_SPEED_FULL,
			.control_max_packet = BH_COST_PACKET,
			.finishes = true,
			.verification = {.what = what},
		};
		r = bh_driver_attach(&rig->driver, &rig->device->device);
	} else {
		r = -ENOMEM;
	}
	if (r)
		bh_driver_finish(&rig->driver);
	return r;
}

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* What reading the clock twice says of nothing. */
static double clock_cost(void)
{
	double least = 1e9;

	for (unsigned i = 0; i < 1000; i++) {
		double begin = now_ns();

		least = BH_MIN(least, now_ns() - begin);
	}
	return least;
}

static double clock_ns;

/* The controller's next look, and the interrupt handler where it ends in one. */
static void look(struct rig *rig)
{
	do
		rig->driver.guest.now_us += 1000;
	while (!bh_driver_step(&rig->driver, rig->driver.guest.now_us));
}

static double timed_look(struct rig *rig)
{
	double begin = now_ns();

	look(rig);
	return now_ns() - begin - clock_ns;
}

/* As long as a slice leaves something to do. */
static double timed_rest(struct rig *rig)
{
	double begin = now_ns();

	do
		look(rig);
	while (!bh_driver_done(&rig->driver));
	return now_ns() - begin - clock_ns;
}

/* As a guest does it: what is sent was written a moment before. */
static void build(struct rig *rig, uint8_t to, uint32_t packets)
{
	bh_driver_build(&rig->driver, to, BH_COST_PACKET, packets * BH_COST_PACKET);
	for (uint32_t i = 0; i < packets && to == OUT_ENDPOINT; i++) {
		uint32_t length;
		volatile uint8_t *bytes = bh_driver_bytes(&rig->driver, i, &length);

		bytes[0]++;
	}
	bh_driver_link(&rig->driver);
}

/* --- the plain copy --------------------------------------------------------------------------- */

static uint8_t flat[MOST_PACKETS * BH_COST_PACKET];

/* The packets of the batch as a list of pieces: from where, to where, how much. */
struct piece {
	void *to;
	const void *from;
	size_t length;
};

static struct piece pieces[MOST_PACKETS];

static void list_pieces(const struct bh_driver *d, bool in)
{
	uint8_t *at = flat;

	for (uint32_t i = 0; i < d->packet_count; i++) {
		uint8_t *bytes = d->guest.memory + d->packets[i].buffer;

		pieces[i] = (struct piece){
			.to = in ? bytes : at,
			.from = in ? at : bytes,
			.length = d->packets[i].length,
		};
		at += d->packets[i].length;
	}
}

static void copy(uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		memcpy(pieces[i].to, pieces[i].from, pieces[i].length);
	__asm__ volatile("" : : "r"(flat) : "memory"); /* what was copied is looked at */
}

/* Nanoseconds a packet. */
static double timed_copy(struct rig *rig, bool in)
{
	uint32_t packets = rig->driver.packet_count, times = BH_MAX(1u, MOST_PACKETS / packets);
	double begin;

	list_pieces(&rig->driver, in);
	copy(packets);
	begin = now_ns();
	for (uint32_t i = 0; i < times; i++)
		copy(packets);
	return (now_ns() - begin - clock_ns) / (times * packets);
}

/* --- batches ------------------------------------------------------------------------------------ */

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(struct pairs *p)
{
	qsort(p->ratios, p->count, sizeof(*p->ratios), compare);
	return p->count ? p->ratios[p->count / 2] : 0;
}

static void least(double *figure, double ns)
{
	if (*figure == 0 || ns < *figure)
		*figure = ns;
}

static int measure_size(struct rig *rig, uint8_t to, uint32_t packets, struct bh_cost *cost, struct pairs *pairs)
{
	unsigned runs = BH_MAX(LEAST_RUNS, PACKETS_TO_RUN / packets);

	for (unsigned i = 0; i < runs; i++) {
		double issue, replay;

		build(rig, to, packets);
		issue = timed_look(rig);
		if (!rig->device->held || rig->device->held->length != packets * BH_COST_PACKET)
			return -EIO; /* not one batch */
		finish(rig->device, BH_SUCCESS);
		replay = timed_rest(rig);
		if (!bh_driver_check(&rig->driver))
			return -EIO;
		least(&cost->issue, issue / packets);
		least(&cost->replay, replay / packets);
		least(&cost->total, (issue + replay) / packets);
		if (i < LEAST_RUNS && pairs->count < BH_COUNT(pairs->ratios)) {
			double copy = timed_copy(rig, to == IN_ENDPOINT);

			least(&cost->copy, copy);
			pairs->ratios[pairs->count++] = (issue + replay) / packets / copy;
			cost->copies = median(pairs);
		}
	}
	return 0;
}

static int measure_sizes(struct rig *rig, uint8_t to, struct bh_cost *costs)
{
	struct pairs *pairs = to == IN_ENDPOINT ? rig->in : rig->out;
	int r = 0;

	for (unsigned i = 0; i < BH_COST_SIZES && !r; i++)
		r = measure_size(rig, to, bh_cost_sizes[i], &costs[i], &pairs[i]);
	return r;
}

static int measure_retries(struct rig *rig, uint32_t packets, struct bh_cost_retry *retry)
{
	for (unsigned i = 0; i < RETRY_RUNS; i++) {
		double sum;

		build(rig, OUT_ENDPOINT, packets);
		look(rig);
		sum = timed_look(rig);
		least(&retry->first, sum);
		for (unsigned j = 1; j < BH_COST_RETRIES; j++)
			sum += timed_look(rig);
		least(&retry->hundred, sum / BH_COST_RETRIES);
		finish(rig->device, BH_SUCCESS);
		timed_rest(rig);
		if (!bh_driver_check(&rig->driver))
			return -EIO;
	}
	return 0;
}

static int measure_mode(struct rig *rig, struct bh_cost_mode *mode)
{
	int r = measure_sizes(rig, OUT_ENDPOINT, mode->out);

	for (unsigned i = 0; i < BH_COUNT(bh_cost_retry_sizes) && !r; i++)
		r = measure_retries(rig, bh_cost_retry_sizes[i], &mode->retry[i]);
	return r;
}

static int measure(struct rig *rigs, struct bh_cost_report *r, unsigned rounds)
{
	bool progress = isatty(STDERR_FILENO);
	int error = 0;

	clock_ns = clock_cost();
	for (unsigned round = 0; round < rounds && !error; round++) {
		for (unsigned m = 0; m < BH_VERIFY_COUNT && !error; m++)
			if (!r->modes[m].impossible)
				error = measure_mode(&rigs[m], &r->modes[m]);
		if (!error)
			error = measure_sizes(&rigs[BH_VERIFY_EXACT], IN_ENDPOINT, r->in);
		if (progress)
			fprintf(stderr, "\rround %u of %u%s", round + 1, rounds, round + 1 == rounds ? "\r\033[K" : "");
	}
	return error;
}

static int run(struct bh_cost_report *r, unsigned rounds)
{
	static struct rig rigs[BH_VERIFY_COUNT];
	unsigned made = 0;
	int error = 0;

	memset(flat, 1, sizeof(flat));
	for (; made < BH_VERIFY_COUNT && !error; made++) {
		r->modes[made] = (struct bh_cost_mode){.what = (enum bh_verify)made};
		error = rig_init(&rigs[made], (enum bh_verify)made);
		if (error == -EACCES) { /* no traces here */
			r->modes[made].impossible = true;
			error = 0;
		}
	}
	if (!error)
		error = measure(rigs, r, rounds);
	while (made-- > 0)
		if (rigs[made].driver.uhci)
			bh_driver_finish(&rigs[made].driver);
	return error;
}

/* --- the command --------------------------------------------------------------------------------- */

static const char usage[] =
	"Usage: bulkhead bench engine [OPTION...]\n"
	"\n"
	"Nanoseconds for each 64-byte packet through UHCI and engine in this process, with a device\n"
	"that costs nothing, beside a plain copy of the same bytes; for batches of 1 to 4096 packets\n"
	"and every way of verification. Figures are the least of many runs.\n"
	"\n"
	"  --quick       one round instead of six\n"
	"  --json FILE   write the figures there\n"
	"\n"
	"Exit status: 0; 1 if a packet of a larger batch costs more than 20 % more than one of 64, the\n"
	"default verification more than 30 % at replay, a retry depends on the size of the batch, or\n"
	"a packet costs more than 20 copies; 2 for a wrong command line.\n";

enum { OPTION_JSON = 256, OPTION_QUICK, OPTION_HELP };

static const struct option long_options[] = {
	{"json", required_argument, NULL, OPTION_JSON},
	{"quick", no_argument, NULL, OPTION_QUICK},
	{"help", no_argument, NULL, OPTION_HELP},
	{0},
};

static int wrong(const char *format, const char *what)
{
	fprintf(stderr, "%s: ", name);
	fprintf(stderr, format, what);
	fprintf(stderr, "; see '%s --help'\n", name);
	return 2;
}

static int report(const struct bh_cost_report *r, const char *json)
{
	unsigned broken;
	int error;

	bh_cost_print(r, stdout);
	if (fflush(stdout))
		return 1;
	broken = bh_cost_judge(r, stderr);
	if (!json)
		return broken > 0;
	error = bh_cost_write_json(r, broken, json);
	if (error)
		fprintf(stderr, "%s: cannot write %s: %s\n", name, json, strerror(-error));
	return broken || error;
}

int bh_bench_engine(int argc, char **argv)
{
	static struct bh_cost_report r;
	const char *json = NULL;
	unsigned rounds = ROUNDS;
	int option, error;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", long_options, NULL)) != -1) {
		switch (option) {
		case OPTION_JSON:
			json = optarg;
			break;
		case OPTION_QUICK:
			rounds = 1;
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
	if (optind < argc)
		return wrong("unexpected argument '%s'", argv[optind]);
	error = run(&r, rounds);
	if (error) {
		fprintf(stderr, "%s: a transfer went wrong: %s\n", name, strerror(-error));
		return 1;
	}
	return report(&r, json);
}
