/*
 * What batching is worth where every turnaround costs 2 ms ([0016], [0032],
 * [0066]): a guest's driver, the UHCI, the engine and the simulated host
 * interface, in virtual time. turnaround.c measures, turnaround_report.c judges,
 * prints, and writes files.
 */
#ifndef BENCH_TURNAROUND_H
#define BENCH_TURNAROUND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define BH_TURNAROUND_FRAME_US         1000u
#define BH_TURNAROUND_PACKET           64u /* bytes */
#define BH_TURNAROUND_PER_FRAME        19u /* packets */
#define BH_TURNAROUND_LIMIT            1216000u /* bytes a second, on the wire */
#define BH_TURNAROUND_MOST             (4u << 20) /* bytes */
#define BH_TURNAROUND_RATE_FROM        (256u << 10) /* bytes, from which on... */
#define BH_TURNAROUND_RATE_PERCENT     97u /* ...so much of the limit is reached */

/* A size and a direction. */
struct bh_turnaround_row {
	uint32_t bytes, packets;
	bool in;
	uint64_t batch_us; /* linked at a frame's edge */
	uint64_t worst_us; /* linked at the worst of several moments in a frame */
	uint64_t batches;  /* host transfers it took */
	uint64_t single_us; /* packet at a time; linked at a frame's edge */
};

/* What came of one verification mode. */
struct bh_turnaround_result {
	const char *verify;
	bool impossible; /* this machine cannot; there are no figures */
	struct bh_turnaround_row *rows;
};

struct bh_turnaround_report {
	const char *verify_when;
	struct bh_turnaround_result *results;
	size_t result_count, row_count; /* every result has the same sizes and directions */
};

/* Frames that a transfer of so many packets may take. */
uint64_t bh_turnaround_bound(uint32_t packets);

/*
 * Is what was promised kept? A line about each thing that is not goes to
 * complaints. Returns how many there are.
 */
unsigned bh_turnaround_judge(const struct bh_turnaround_report *r, FILE *complaints);

void bh_turnaround_print(const struct bh_turnaround_report *r, FILE *to);

/* Negative errno. broken: what bh_turnaround_judge() returned. */
int bh_turnaround_write_json(const struct bh_turnaround_report *r, unsigned broken, const char *path);
int bh_turnaround_write_plot(const struct bh_turnaround_report *r, const char *path);

/* The command. */
int bh_bench_turnaround(int argc, char **argv);

#endif
