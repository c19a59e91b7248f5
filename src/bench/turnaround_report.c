/*
 * Judging, printing and writing the turnaround benchmark's figures. KB are 1000
 * bytes, as in the 1.216 MB/s of the bus. Frames are counted whole: what ends
 * within one has taken it.
 */
#include "turnaround.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include <base/util.h>

#include "output.h"
#include "plot.h"

static uint64_t frames(uint64_t us)
{
	return (us + BH_TURNAROUND_FRAME_US - 1) / BH_TURNAROUND_FRAME_US;
}

static double kb_per_second(uint32_t bytes, uint64_t us)
{
	return us ? bytes * 1000.0 / (double)us : 0;
}

static double percent_of_limit(uint32_t bytes, uint64_t us)
{
	return kb_per_second(bytes, us) * 100000.0 / BH_TURNAROUND_LIMIT;
}

static const char *direction(const struct bh_turnaround_row *row)
{
	return row->in ? "IN" : "OUT";
}

uint64_t bh_turnaround_bound(uint32_t packets)
{
	return (packets + BH_TURNAROUND_PER_FRAME - 1) / BH_TURNAROUND_PER_FRAME + 2;
}

/* --- judging ------------------------------------------------------------------------------- */

static unsigned judge_row(const char *verify, const struct bh_turnaround_row *row, FILE *to)
{
	uint64_t bound = bh_turnaround_bound(row->packets), single = 2ull * BH_TURNAROUND_FRAME_US * row->packets;
	unsigned broken = 0;

	if (frames(row->worst_us) > bound) {
		fprintf(to, "%s, %u bytes %s: %llu frames, at most %llu are allowed (batches: %llu)\n", verify,
		        row->bytes, direction(row), (unsigned long long)frames(row->worst_us),
		        (unsigned long long)bound, (unsigned long long)row->batches);
		broken++;
	}
	/* bytes / us against limit / 1000000, in whole numbers */
	if (row->bytes >= BH_TURNAROUND_RATE_FROM &&
	    100000000ull * row->bytes < (uint64_t)BH_TURNAROUND_RATE_PERCENT * BH_TURNAROUND_LIMIT * row->worst_us) {
		fprintf(to, "%s, %u bytes %s: %.2f %% of the bus limit, at least %u %% are due\n", verify, row->bytes,
		        direction(row), percent_of_limit(row->bytes, row->worst_us), BH_TURNAROUND_RATE_PERCENT);
		broken++;
	}
	if (row->single_us != single) {
		fprintf(to, "%s, %u bytes %s: packet at a time in %llu us, it should be %llu\n", verify, row->bytes,
		        direction(row), (unsigned long long)row->single_us, (unsigned long long)single);
		broken++;
	}
	return broken;
}

unsigned bh_turnaround_judge(const struct bh_turnaround_report *r, FILE *complaints)
{
	unsigned broken = 0;

	for (size_t i = 0; i < r->result_count; i++)
		for (size_t k = 0; k < r->row_count && !r->results[i].impossible; k++)
			broken += judge_row(r->results[i].verify, &r->results[i].rows[k], complaints);
	return broken;
}

/* --- the table -------------------------------------------------------------------------------- */

static void print_row(const struct bh_turnaround_row *row, FILE *to)
{
	fprintf(to, "%-4s%9u%9u%8llu%8llu%8llu%10.1f%10.2f%14.1f%10.2f\n", direction(row), row->bytes, row->packets,
	        (unsigned long long)frames(row->batch_us), (unsigned long long)frames(row->worst_us),
	        (unsigned long long)bh_turnaround_bound(row->packets), kb_per_second(row->bytes, row->batch_us),
	        percent_of_limit(row->bytes, row->batch_us), kb_per_second(row->bytes, row->single_us),
	        (double)row->single_us / (double)row->batch_us);
}

static bool same_figures(const struct bh_turnaround_report *r, size_t a, size_t b)
{
	const struct bh_turnaround_row *x = r->results[a].rows, *y = r->results[b].rows;

	if (r->results[a].impossible || r->results[b].impossible)
		return a == b;
	for (size_t i = 0; i < r->row_count; i++)
		if (x[i].batch_us != y[i].batch_us || x[i].worst_us != y[i].worst_us || x[i].batches != y[i].batches)
			return false;
	return true;
}

/* Modes with the same figures share a table: the first of them has it. */
static size_t table_of(const struct bh_turnaround_report *r, size_t result)
{
	size_t i = 0;

	while (!same_figures(r, i, result))
		i++;
	return i;
}

static void print_table(const struct bh_turnaround_report *r, size_t result, FILE *to)
{
	const char *separator = "";

	if (r->results[result].impossible) {
		fprintf(to, "\nverification: %s: not possible here, left out\n", r->results[result].verify);
		return;
	}
	fputs("\nverification: ", to);
	for (size_t i = result; i < r->result_count; i++)
		if (table_of(r, i) == result) {
			fprintf(to, "%s%s", separator, r->results[i].verify);
			separator = ", ";
		}
	fprintf(to, " (%s)\n%13s%9s%8s%8s%8s%10s%10s%14s%10s\n", r->verify_when, "bytes", "packets", "frames", "worst", "bound", "KB/s",
	        "% of bus", "packet/time", "factor");
	for (size_t i = 0; i < r->row_count; i++)
		print_row(&r->results[result].rows[i], to);
}

void bh_turnaround_print(const struct bh_turnaround_report *r, FILE *to)
{
	fprintf(to,
	        "A full-speed bus in virtual time: frames of 1 ms, %u packets of %u bytes in each, results at\n"
	        "frame edges. The guest's whole queue is visible to the controller.\n"
	        "\n"
	        "  frames       from linking the queue, at a frame's edge, to its last descriptor; worst: linked\n"
	        "               at the worst moment of a frame; bound: ceil(packets / %u) + 2\n"
	        "  KB/s         of 1000 bytes; the bus carries %u (%% of bus)\n"
	        "  packet/time  KB/s of the same engine, packet at a time; factor: how much faster a batch is\n",
	        BH_TURNAROUND_PER_FRAME, BH_TURNAROUND_PACKET, BH_TURNAROUND_PER_FRAME, BH_TURNAROUND_LIMIT / 1000);
	for (size_t i = 0; i < r->result_count; i++)
		if (table_of(r, i) == i)
			print_table(r, i, to);
}

/* --- JSON ----------------------------------------------------------------------------------------- */

static void set_number(json_t *o, const char *key, uint64_t value)
{
	json_object_set_new(o, key, json_integer((json_int_t)value));
}

static void set_real(json_t *o, const char *key, double value)
{
	json_object_set_new(o, key, json_real(value));
}

static json_t *row_json(const char *verify, const struct bh_turnaround_row *row)
{
	json_t *o = json_object();

	json_object_set_new(o, "verify", json_string(verify));
	json_object_set_new(o, "direction", json_string(row->in ? "in" : "out"));
	set_number(o, "bytes", row->bytes);
	set_number(o, "packets", row->packets);
	set_number(o, "batches", row->batches);
	set_number(o, "batch_us", row->batch_us);
	set_number(o, "worst_us", row->worst_us);
	set_number(o, "packet_at_a_time_us", row->single_us);
	set_number(o, "frames", frames(row->batch_us));
	set_number(o, "worst_frames", frames(row->worst_us));
	set_number(o, "bound_frames", bh_turnaround_bound(row->packets));
	set_real(o, "batch_kb_per_second", kb_per_second(row->bytes, row->batch_us));
	set_real(o, "worst_kb_per_second", kb_per_second(row->bytes, row->worst_us));
	set_real(o, "packet_at_a_time_kb_per_second", kb_per_second(row->bytes, row->single_us));
	return o;
}

static json_t *report_json(const struct bh_turnaround_report *r, unsigned broken)
{
	json_t *o = json_object(), *bus = json_object(), *rows = json_array();

	set_number(bus, "frame_us", BH_TURNAROUND_FRAME_US);
	set_number(bus, "packet_bytes", BH_TURNAROUND_PACKET);
	set_number(bus, "packets_per_frame", BH_TURNAROUND_PER_FRAME);
	set_number(bus, "limit_bytes_per_second", BH_TURNAROUND_LIMIT);
	for (size_t i = 0; i < r->result_count; i++)
		for (size_t k = 0; k < r->row_count && !r->results[i].impossible; k++)
			json_array_append_new(rows, row_json(r->results[i].verify, &r->results[i].rows[k]));
	json_object_set_new(o, "benchmark", json_string("turnaround"));
	json_object_set_new(o, "bus", bus);
	json_object_set_new(o, "verify_when", json_string(r->verify_when));
	set_number(o, "broken", broken);
	json_object_set_new(o, "rows", rows);
	return o;
}

int bh_turnaround_write_json(const struct bh_turnaround_report *r, unsigned broken, const char *path)
{
	json_t *o = report_json(r, broken);
	char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(7)), *whole;
	int length, error;

	json_decref(o);
	if (!text)
		return -ENOMEM;
	length = asprintf(&whole, "%s\n", text);
	free(text);
	if (length < 0)
		return -ENOMEM;
	error = bh_output_write(path, whole, (size_t)length);
	free(whole);
	return error;
}

/* --- the plot ---------------------------------------------------------------------------------------- */

enum { LINE_OUT, LINE_IN, LINE_BOUND, LINE_SINGLE, LINE_COUNT };

static void add_point(struct bh_plot_line *l, struct bh_plot_point *points, const struct bh_turnaround_row *row,
                      uint64_t us)
{
	points[l->count++] = (struct bh_plot_point){row->bytes, kb_per_second(row->bytes, us)};
	l->points = points;
}

/* The first mode's figures. points: row_count for each line. */
static void draw(const struct bh_turnaround_report *r, struct bh_plot_point *points, FILE *to)
{
	struct bh_plot_line lines[LINE_COUNT] = {
		[LINE_OUT] = {.name = "batch, OUT", .style = BH_PLOT_FIRST},
		[LINE_IN] = {.name = "batch, IN", .style = BH_PLOT_SECOND},
		[LINE_BOUND] = {.name = "at most ceil(n / 19) + 2 frames", .style = BH_PLOT_BOUND},
		[LINE_SINGLE] = {.name = "packet at a time", .note = "64 bytes in 2 ms: 32 KB/s", .style = BH_PLOT_THIRD},
	};
	const struct bh_plot plot = {
		.title = "One transfer of n packets, or n transfers of one",
		.subtitle = "UHCI guest on a simulated full-speed bus that reports at the edges of 1 ms frames",
		.x_label = "size of the guest's transfer",
		.y_label = "KB/s",
		.percent_label = "% of the bus limit",
		.limit = BH_TURNAROUND_LIMIT / 1000.0,
		.limit_name = "what the bus carries: 1216 KB/s",
		.lines = lines,
		.line_count = LINE_COUNT,
	};
	size_t shown = 0;

	while (shown < r->result_count - 1 && r->results[shown].impossible)
		shown++;
	for (size_t i = 0; i < r->row_count; i++) {
		const struct bh_turnaround_row *row = &r->results[shown].rows[i];
		size_t batch = row->in ? LINE_IN : LINE_OUT;

		add_point(&lines[batch], points + batch * r->row_count, row, row->batch_us);
		if (row->in)
			continue;
		add_point(&lines[LINE_SINGLE], points + LINE_SINGLE * r->row_count, row, row->single_us);
		add_point(&lines[LINE_BOUND], points + LINE_BOUND * r->row_count, row,
		          bh_turnaround_bound(row->packets) * BH_TURNAROUND_FRAME_US);
	}
	bh_plot_write(&plot, to);
}

int bh_turnaround_write_plot(const struct bh_turnaround_report *r, const char *path)
{
	struct bh_plot_point *points = calloc(LINE_COUNT * r->row_count, sizeof(*points));
	char *text = NULL;
	size_t length = 0;
	FILE *to = open_memstream(&text, &length);
	int error = -ENOMEM;

	if (points && to) {
		draw(r, points, to);
		error = fclose(to) ? -ENOMEM : bh_output_write(path, text, length);
	} else if (to) {
		fclose(to);
	}
	free(text);
	free(points);
	return error;
}
