/*
 * A line plot as an SVG file: sizes in bytes on a logarithmic axis, throughput in
 * KB/s (of 1000 bytes) from zero on. It brings its own background, light or dark
 * as the viewer prefers, so that it can be read anywhere.
 */
#ifndef BENCH_PLOT_H
#define BENCH_PLOT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct bh_plot_point {
	uint64_t bytes;
	double kb_per_second;
};

/* How a line is drawn; each has a colour and a mark of its own, so that neither is needed alone. */
enum bh_plot_style { BH_PLOT_FIRST, BH_PLOT_SECOND, BH_PLOT_THIRD, BH_PLOT_BOUND, BH_PLOT_STYLE_COUNT };

struct bh_plot_line {
	const char *name; /* in the legend */
	const char *note; /* beside its end; NULL: none */
	enum bh_plot_style style;
	const struct bh_plot_point *points; /* by growing size */
	size_t count;
};

struct bh_plot {
	/* Texts go into XML as they are. */
	const char *title, *subtitle;
	const char *x_label, *y_label, *percent_label;
	double limit; /* KB/s: drawn as a line, and the 100 % of the axis on the right */
	const char *limit_name;
	const struct bh_plot_line *lines;
	size_t line_count;
};

/* Every line has points. */
void bh_plot_write(const struct bh_plot *p, FILE *to);

#endif
