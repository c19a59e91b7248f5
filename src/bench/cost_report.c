/* What the figures say: judged, printed, written. */
#include "cost.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include <base/util.h>

#include "output.h"

/* --- judging --------------------------------------------------------------------------------- */

static double percent_more(double than, double is)
{
	return 100 * (is / than - 1);
}

static unsigned judge_flat(const char *what, const struct bh_cost *costs, FILE *complaints)
{
	const struct bh_cost *base = NULL;
	unsigned broken = 0;

	for (unsigned i = 0; i < BH_COST_SIZES; i++) {
		if (bh_cost_sizes[i] < BH_COST_FLAT_FROM)
			continue;
		if (!base)
			base = &costs[i];
		if (percent_more(base->total, costs[i].total) <= BH_COST_FLAT_PERCENT)
			continue;
		broken++;
		fprintf(complaints, "%s: a packet of a batch of %u costs %.1f ns, %.0f %% more than one of %u (%.1f ns)\n",
		        what, bh_cost_sizes[i], costs[i].total, percent_more(base->total, costs[i].total),
		        BH_COST_FLAT_FROM, base->total);
	}
	return broken;
}

static unsigned judge_copies(const char *what, const struct bh_cost *costs, FILE *complaints)
{
	unsigned broken = 0;

	for (unsigned i = 0; i < BH_COST_SIZES; i++) {
		if (bh_cost_sizes[i] < BH_COST_FLAT_FROM || costs[i].copies <= BH_COST_COPIES)
			continue;
		broken++;
		fprintf(complaints, "%s: a packet of a batch of %u costs %.1f copies, more than %u\n", what, bh_cost_sizes[i],
		        costs[i].copies, BH_COST_COPIES);
	}
	return broken;
}

/* The default against none. */
static unsigned judge_verification(const struct bh_cost_report *r, FILE *complaints)
{
	const struct bh_cost *exact = r->modes[BH_VERIFY_EXACT].out, *none = r->modes[BH_VERIFY_NONE].out;
	unsigned broken = 0;

	for (unsigned i = 0; i < BH_COST_SIZES; i++) {
		double more = percent_more(none[i].replay, exact[i].replay);

		if (bh_cost_sizes[i] < BH_COST_FLAT_FROM || more <= BH_COST_VERIFY_PERCENT)
			continue;
		broken++;
		fprintf(complaints, "replay of a batch of %u costs %.0f %% more verified than not\n", bh_cost_sizes[i], more);
	}
	return broken;
}

static unsigned judge_retries(const struct bh_cost_mode *m, FILE *complaints)
{
	double more = percent_more(m->retry[0].hundred, m->retry[1].hundred);

	if (m->impossible || more <= BH_COST_RETRY_PERCENT)
		return 0;
	fprintf(complaints, "%s: a retry of a batch of %u costs %.0f %% more than of one of %u\n", bh_verify_name(m->what),
	        bh_cost_retry_sizes[1], more, bh_cost_retry_sizes[0]);
	return 1;
}

unsigned bh_cost_judge(const struct bh_cost_report *r, FILE *complaints)
{
	const struct bh_cost_mode *standard = &r->modes[BH_VERIFY_EXACT];

	return judge_flat("OUT", standard->out, complaints) + judge_flat("IN", r->in, complaints) +
	       judge_copies("OUT", standard->out, complaints) + judge_copies("IN", r->in, complaints) +
	       judge_verification(r, complaints) + judge_retries(standard, complaints);
}

/* --- printing ------------------------------------------------------------------------------------ */

enum part { TOTAL, ISSUE, REPLAY, COPY };

static double figure(const struct bh_cost *c, enum part part)
{
	switch (part) {
	case ISSUE:
		return c->issue;
	case REPLAY:
		return c->replay;
	case COPY:
		return c->copy;
	case TOTAL:
		break;
	}
	return c->total;
}

static void print_row(FILE *to, const char *direction, const char *what, const struct bh_cost *costs, enum part part)
{
	fprintf(to, "%-4s %-22s", direction, what);
	for (unsigned i = 0; i < BH_COST_SIZES; i++)
		fprintf(to, "%9.1f", figure(&costs[i], part));
	fputc('\n', to);
}

static void print_copies(FILE *to, const char *direction, const struct bh_cost *costs)
{
	fprintf(to, "%-4s %-22s", direction, "copies a packet costs");
	for (unsigned i = 0; i < BH_COST_SIZES; i++)
		fprintf(to, "%9.1f", costs[i].copies);
	fputc('\n', to);
}

static void print_sizes(FILE *to, const char *what)
{
	fprintf(to, "\n%-27s", what);
	for (unsigned i = 0; i < BH_COST_SIZES; i++)
		fprintf(to, "%9u", bh_cost_sizes[i]);
	fputc('\n', to);
}

static void print_part(const struct bh_cost_report *r, FILE *to, enum part part)
{
	for (unsigned m = 0; m < BH_VERIFY_COUNT; m++)
		if (!r->modes[m].impossible)
			print_row(to, "OUT", bh_verify_name((enum bh_verify)m), r->modes[m].out, part);
	print_row(to, "IN", "", r->in, part);
}

static void print_verification(const struct bh_cost_report *r, FILE *to)
{
	const struct bh_cost *none = r->modes[BH_VERIFY_NONE].out;

	for (unsigned m = 0; m < BH_VERIFY_NONE; m++) {
		if (r->modes[m].impossible)
			continue;
		fprintf(to, "%-4s %-22s", "OUT", bh_verify_name((enum bh_verify)m));
		for (unsigned i = 0; i < BH_COST_SIZES; i++)
			fprintf(to, "%+8.0f%%", percent_more(none[i].replay, r->modes[m].out[i].replay));
		fputc('\n', to);
	}
}

static void print_retries(const struct bh_cost_report *r, FILE *to)
{
	fprintf(to, "\n%-27s%14s%22s\n", "nanoseconds of a retry", "first", "each of a hundred");
	fprintf(to, "%-27s", "batch of");
	for (unsigned i = 0; i < 4; i++)
		fprintf(to, "%9u%s", bh_cost_retry_sizes[i % 2], i == 1 ? "    " : "");
	fputc('\n', to);
	for (unsigned m = 0; m < BH_VERIFY_COUNT; m++)
		if (!r->modes[m].impossible)
			fprintf(to, "OUT  %-22s%9.0f%9.0f    %9.0f%9.0f\n", bh_verify_name((enum bh_verify)m),
			        r->modes[m].retry[0].first, r->modes[m].retry[1].first, r->modes[m].retry[0].hundred,
			        r->modes[m].retry[1].hundred);
}

void bh_cost_print(const struct bh_cost_report *r, FILE *to)
{
	fputs("Nanoseconds for each packet of 64 bytes; the least of many runs, all of them warm.\n", to);
	print_sizes(to, "packets in the batch");
	print_part(r, to, TOTAL);
	print_row(to, "OUT", "(a plain copy)", r->modes[BH_VERIFY_EXACT].out, COPY);
	print_row(to, "IN", "(a plain copy)", r->in, COPY);
	print_copies(to, "OUT", r->modes[BH_VERIFY_EXACT].out);
	print_copies(to, "IN", r->in);
	print_sizes(to, "of that, SCAN and ISSUE");
	print_part(r, to, ISSUE);
	print_sizes(to, "of that, replay");
	print_part(r, to, REPLAY);
	print_sizes(to, "replay, more than 'none'");
	print_verification(r, to);
	print_retries(r, to);
}

/* --- JSON ------------------------------------------------------------------------------------------ */

static json_t *costs_json(const struct bh_cost *costs)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < BH_COST_SIZES; i++)
		json_array_append_new(list, json_pack("{s:i, s:f, s:f, s:f, s:f, s:f}", "packets",
		                                      (int)bh_cost_sizes[i], "total_ns", costs[i].total, "issue_ns",
		                                      costs[i].issue, "replay_ns", costs[i].replay, "copy_ns", costs[i].copy,
		                                      "copies", costs[i].copies));
	return list;
}

static json_t *mode_json(const struct bh_cost_mode *m)
{
	json_t *retries = json_array();

	for (unsigned i = 0; i < BH_COUNT(bh_cost_retry_sizes); i++)
		json_array_append_new(retries, json_pack("{s:i, s:f, s:f}", "packets", (int)bh_cost_retry_sizes[i], "first_ns",
		                                         m->retry[i].first, "of_hundred_ns", m->retry[i].hundred));
	return json_pack("{s:s, s:o, s:o}", "verify", bh_verify_name(m->what), "out", costs_json(m->out), "retries", retries);
}

int bh_cost_write_json(const struct bh_cost_report *r, unsigned broken, const char *path)
{
	json_t *modes = json_array(), *o;
	char *text;
	int error;

	for (unsigned m = 0; m < BH_VERIFY_COUNT; m++)
		if (!r->modes[m].impossible)
			json_array_append_new(modes, mode_json(&r->modes[m]));
	o = json_pack("{s:i, s:o, s:o, s:i}", "packet_bytes", (int)BH_COST_PACKET, "modes", modes, "in", costs_json(r->in),
	              "broken", (int)broken);
	text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
	json_decref(o);
	if (!text)
		return -ENOMEM;
	error = bh_output_write(path, text, strlen(text));
	free(text);
	return error;
}
