/*
 * SVG by fprintf(): axes, lines, marks, a legend. Left out: escaping of texts, lines
 * that would need another scale, and labels that make way for each other.
 */
#include "plot.h"

#include <math.h>
#include <string.h>

#include <base/util.h>

#define WIDTH  960.0
#define HEIGHT 560.0
#define LEFT   84.0
#define RIGHT  72.0
#define TOP    124.0
#define BOTTOM 74.0

#define HEADROOM 1.06 /* of the limit, at the top of the axis */

/* The plot, and its scales. */
struct canvas {
	const struct bh_plot *plot;
	FILE *to;
	double low, high; /* log2 of the sizes at the edges */
	double top;       /* KB/s */
};

static const char style_sheet[] =
	"<style>\n"
	":root { --paper: #ffffff; --ink: #1c2430; --soft: #5a6472; --grid: #dfe3e8;\n"
	"  --first: #0b62c4; --second: #c2410c; --third: #0f766e; }\n"
	"@media (prefers-color-scheme: dark) {\n"
	"  :root { --paper: #12161c; --ink: #e8ebef; --soft: #a3adba; --grid: #2c333d;\n"
	"    --first: #6cb2ff; --second: #ff9d66; --third: #4fd1c0; }\n"
	"}\n"
	"text { font-family: system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; font-size: 14px; fill: #1c2430;\n"
	"  fill: var(--ink, #1c2430); }\n"
	".title { font-size: 20px; font-weight: 600; }\n"
	".soft { fill: #5a6472; fill: var(--soft, #5a6472); }\n"
	".paper { fill: #ffffff; fill: var(--paper, #ffffff); }\n"
	".grid { stroke: #dfe3e8; stroke: var(--grid, #dfe3e8); }\n"
	".axis, .limit { stroke: #1c2430; stroke: var(--ink, #1c2430); fill: none; }\n"
	".limit { stroke-dasharray: 2 4; stroke-width: 1.5; }\n"
	".line { fill: none; stroke-width: 2.5; stroke-linejoin: round; }\n"
	".line.first { stroke-width: 6; stroke-opacity: 0.55; }\n"
	".first { stroke: #0b62c4; stroke: var(--first, #0b62c4); }\n"
	".second { stroke: #c2410c; stroke: var(--second, #c2410c); }\n"
	".third { stroke: #0f766e; stroke: var(--third, #0f766e); }\n"
	".bound { stroke: #5a6472; stroke: var(--soft, #5a6472); stroke-width: 1.25; stroke-dasharray: 6 4; }\n"
	".mark { stroke-width: 2; fill: #ffffff; fill: var(--paper, #ffffff); }\n"
	"</style>\n";

static const char *const style_names[BH_PLOT_STYLE_COUNT] = {
	[BH_PLOT_FIRST] = "first",
	[BH_PLOT_SECOND] = "second",
	[BH_PLOT_THIRD] = "third",
	[BH_PLOT_BOUND] = "bound",
};

static double x_of(const struct canvas *c, double bytes)
{
	return LEFT + (WIDTH - LEFT - RIGHT) * (log2(bytes) - c->low) / (c->high - c->low);
}

static double y_of(const struct canvas *c, double kb_per_second)
{
	return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * kb_per_second / c->top;
}

static void text(const struct canvas *c, double x, double y, const char *class, const char *anchor, const char *what)
{
	fprintf(c->to, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\" text-anchor=\"%s\">%s</text>\n", x, y, class, anchor,
	        what);
}

static void upright(const struct canvas *c, double x, const char *what)
{
	double y = (TOP + HEIGHT - BOTTOM) / 2;

	fprintf(c->to,
	        "<text x=\"%.1f\" y=\"%.1f\" class=\"soft\" text-anchor=\"middle\" "
	        "transform=\"rotate(-90 %.1f %.1f)\">%s</text>\n",
	        x, y, x, y, what);
}

static void segment(const struct canvas *c, const char *class, double x1, double y1, double x2, double y2)
{
	fprintf(c->to, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", class, x1, y1, x2,
	        y2);
}

static void find_range(struct canvas *c)
{
	uint64_t low = UINT64_MAX, high = 1;

	for (size_t i = 0; i < c->plot->line_count; i++) {
		const struct bh_plot_line *l = &c->plot->lines[i];

		low = BH_MIN(low, l->points[0].bytes);
		high = BH_MAX(high, l->points[l->count - 1].bytes);
	}
	c->low = log2((double)low) - 0.3;
	c->high = log2((double)high) + 0.3;
	c->top = c->plot->limit * HEADROOM;
}

static void size_name(unsigned power, char *to, size_t room)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB"};

	snprintf(to, room, "%u %s", 1u << power % 10, units[BH_MIN(power / 10, 3u)]);
}

static void draw_sizes(const struct canvas *c)
{
	unsigned step = c->high - c->low > 6 ? 2 : 1;
	char name[16];

	for (unsigned power = 0; power < 40; power += step) {
		double x = x_of(c, exp2(power));

		if (power < c->low || power > c->high)
			continue;
		segment(c, "grid", x, TOP, x, HEIGHT - BOTTOM);
		size_name(power, name, sizeof(name));
		text(c, x, HEIGHT - BOTTOM + 22, "", "middle", name);
	}
	text(c, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 22, "soft", "middle", c->plot->x_label);
}

static void draw_rates(const struct canvas *c)
{
	char name[16];

	for (unsigned rate = 0; rate <= c->top; rate += 200) {
		segment(c, "grid", LEFT, y_of(c, rate), WIDTH - RIGHT, y_of(c, rate));
		snprintf(name, sizeof(name), "%u", rate);
		text(c, LEFT - 10, y_of(c, rate) + 5, "", "end", name);
	}
	for (unsigned percent = 0; percent <= 100; percent += 25) {
		double y = y_of(c, c->plot->limit * percent / 100);

		segment(c, "axis", WIDTH - RIGHT, y, WIDTH - RIGHT + 5, y);
		snprintf(name, sizeof(name), "%u", percent);
		text(c, WIDTH - RIGHT + 10, y + 5, "", "start", name);
	}
	upright(c, 24, c->plot->y_label);
	upright(c, WIDTH - 14, c->plot->percent_label);
}

static void draw_limit(const struct canvas *c)
{
	double y = y_of(c, c->plot->limit);

	segment(c, "limit", LEFT, y, WIDTH - RIGHT, y);
	text(c, LEFT + 10, y - 6, "soft", "start", c->plot->limit_name);
}

static void draw_mark(const struct canvas *c, enum bh_plot_style style, double x, double y)
{
	switch (style) {
	case BH_PLOT_FIRST:
		fprintf(c->to, "<circle class=\"mark first\" cx=\"%.1f\" cy=\"%.1f\" r=\"5.5\"/>\n", x, y);
		break;
	case BH_PLOT_SECOND:
		fprintf(c->to, "<path class=\"mark second\" d=\"M%.1f %.1fh5v5h-5z\"/>\n", x - 2.5, y - 2.5);
		break;
	case BH_PLOT_THIRD:
		fprintf(c->to, "<path class=\"mark third\" d=\"M%.1f %.1fl4 -7l4 7z\"/>\n", x - 4, y + 3);
		break;
	case BH_PLOT_BOUND:
	case BH_PLOT_STYLE_COUNT:
		break;
	}
}

static void draw_line(const struct canvas *c, const struct bh_plot_line *l)
{
	fprintf(c->to, "<g><title>%s</title>\n<polyline class=\"line %s\" points=\"", l->name, style_names[l->style]);
	for (size_t i = 0; i < l->count; i++)
		fprintf(c->to, "%s%.1f,%.1f", i ? " " : "", x_of(c, (double)l->points[i].bytes),
		        y_of(c, l->points[i].kb_per_second));
	fputs("\"/>\n", c->to);
	for (size_t i = 0; i < l->count; i++)
		draw_mark(c, l->style, x_of(c, (double)l->points[i].bytes), y_of(c, l->points[i].kb_per_second));
	fputs("</g>\n", c->to);
}

static void draw_note(const struct canvas *c, const struct bh_plot_line *l)
{
	const struct bh_plot_point *last = &l->points[l->count - 1];

	if (l->note)
		text(c, x_of(c, (double)last->bytes), y_of(c, last->kb_per_second) - 14, "", "end", l->note);
}

/* In one row, as wide as its texts are likely to be. */
static void draw_legend(const struct canvas *c)
{
	double x = LEFT, y = TOP - 26;

	for (size_t i = 0; i < c->plot->line_count; i++) {
		const struct bh_plot_line *l = &c->plot->lines[i];
		char class[32];

		snprintf(class, sizeof(class), "line %s", style_names[l->style]);
		segment(c, class, x, y, x + 34, y);
		draw_mark(c, l->style, x + 17, y);
		text(c, x + 42, y + 5, "", "start", l->name);
		x += 72 + 8.2 * (double)strlen(l->name);
	}
}

void bh_plot_write(const struct bh_plot *p, FILE *to)
{
	struct canvas c = {.plot = p, .to = to};

	find_range(&c);
	fprintf(to,
	        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" "
	        "role=\"img\">\n<title>%s</title>\n%s",
	        WIDTH, HEIGHT, WIDTH, HEIGHT, p->title, style_sheet);
	fprintf(to, "<rect class=\"paper\" width=\"%.0f\" height=\"%.0f\"/>\n", WIDTH, HEIGHT);
	text(&c, LEFT, 40, "title", "start", p->title);
	text(&c, LEFT, 64, "soft", "start", p->subtitle);
	draw_sizes(&c);
	draw_rates(&c);
	segment(&c, "axis", LEFT, TOP, LEFT, HEIGHT - BOTTOM);
	segment(&c, "axis", WIDTH - RIGHT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM);
	segment(&c, "axis", LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM);
	draw_limit(&c);
	for (size_t i = 0; i < p->line_count; i++)
		draw_line(&c, &p->lines[i]);
	for (size_t i = 0; i < p->line_count; i++)
		draw_note(&c, &p->lines[i]);
	draw_legend(&c);
	fputs("</svg>\n", to);
}
