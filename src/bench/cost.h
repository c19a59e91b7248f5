/*
 * What a packet costs: nanoseconds for each 64-byte packet through UHCI and engine
 * with a device that costs nothing, beside a plain copy of the same bytes. cost.c
 * measures, cost_report.c judges, prints and writes.
 *
 * A figure is the least of many runs, all of them warm: what is left is what the
 * code has to do, not what else the machine did. How many copies a packet costs is
 * the median of pairs, a batch and a copy one right after the other, so that both
 * had the same clock.
 */
#ifndef BENCH_COST_H
#define BENCH_COST_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <batch/verify.h>

#define BH_COST_PACKET 64u /* bytes */
#define BH_COST_SIZES  7u
#define BH_COST_RETRIES 100u

/* What is promised. */
#define BH_COST_FLAT_FROM      64u /* packets, from which on... */
#define BH_COST_FLAT_PERCENT   20u /* ...a packet costs the same, within so much */
#define BH_COST_VERIFY_PERCENT 30u /* more at replay than without verification, for the default */
#define BH_COST_COPIES         20u /* plain copies that a packet may cost */
#define BH_COST_RETRY_PERCENT  20u /* between a retry of the smaller batch and one of the larger */

extern const uint32_t bh_cost_sizes[BH_COST_SIZES]; /* packets in a batch */

/* Nanoseconds a packet, for one size. */
struct bh_cost {
	double issue;  /* SCAN and ISSUE */
	double replay; /* verification and write-back */
	double total;
	double copy; /* a memcpy of its bytes, between the same places */
	double copies; /* of those, that it costs */
};

/* Nanoseconds of a retry: the first, and each of a hundred. */
struct bh_cost_retry {
	double first, hundred;
};

struct bh_cost_mode {
	enum bh_verify what;
	bool impossible; /* this machine cannot; there are no figures */
	struct bh_cost out[BH_COST_SIZES];
	struct bh_cost_retry retry[2]; /* of bh_cost_retry_sizes packets */
};

extern const uint32_t bh_cost_retry_sizes[2];

struct bh_cost_report {
	struct bh_cost_mode modes[BH_VERIFY_COUNT]; /* OUT */
	struct bh_cost in[BH_COST_SIZES];           /* IN is not verified */
};

/*
 * Is what was promised kept? A line about each thing that is not goes to
 * complaints. Returns how many there are.
 */
unsigned bh_cost_judge(const struct bh_cost_report *r, FILE *complaints);

void bh_cost_print(const struct bh_cost_report *r, FILE *to);

/* Negative errno. broken: what bh_cost_judge() returned. */
int bh_cost_write_json(const struct bh_cost_report *r, unsigned broken, const char *path);

/* The command. */
int bh_bench_engine(int argc, char **argv);

#endif
