/* Text to events: see hid_text.h. */
#include "hid_text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <base/util.h>

#define COMBINATION_MAX 16u /* keys in one "a+b+c" */

/* Some bytes of the text. */
struct word {
	const char *p;
	size_t n;
};

struct parser {
	enum bh_hid_kind kind;
	unsigned buttons;
	struct bh_hid_script *script;
	char *error;
	size_t error_size;
};

/* --- telling what is wrong ---------------------------------------------------------- */

__attribute__((format(printf, 2, 3)))
static int wrong(const struct parser *p, const char *format, ...)
{
	int n = snprintf(p->error, p->error_size, "%s: ", bh_hid_kind_name(p->kind));
	va_list arguments;

	if (n < 0 || (size_t)n >= p->error_size)
		return -EINVAL;
	va_start(arguments, format);
	vsnprintf(p->error + n, p->error_size - (size_t)n, format, arguments);
	va_end(arguments);
	return -EINVAL;
}

/* A word that can be shown: the beginning of a long one, and nothing a terminal would obey. */
struct shown {
	char text[48];
};

static struct shown show(struct word w)
{
	struct shown s = {{0}};
	size_t n = BH_MIN(w.n, sizeof(s.text) - 1);

	for (size_t i = 0; i < n; i++)
		s.text[i] = w.p[i] < 0x20 || w.p[i] > 0x7e ? '?' : w.p[i];
	if (n < w.n)
		memcpy(s.text + sizeof(s.text) - 4, "...", 4);
	return s;
}

/* --- words -------------------------------------------------------------------------- */

static bool blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool is(struct word w, const char *name)
{
	return strlen(name) == w.n && !strncasecmp(w.p, name, w.n);
}

/* Takes the first word of what is left; an empty one where there is none. */
static struct word next_word(struct word *rest)
{
	struct word w;

	while (rest->n && blank(*rest->p)) {
		rest->p++;
		rest->n--;
	}
	w = (struct word){rest->p, 0};
	while (w.n < rest->n && !blank(w.p[w.n]))
		w.n++;
	rest->p += w.n;
	rest->n -= w.n;
	return w;
}

static int nothing_more(const struct parser *p, struct word rest, const char *usage)
{
	struct word w = next_word(&rest);

	return w.n ? wrong(p, "'%s' is one word too many; say %s", show(w).text, usage) : 0;
}

static int number(const struct parser *p, struct word *rest, long min, long max, const char *usage, int16_t *ret)
{
	struct word w = next_word(rest);
	char digits[8], *end;
	long v;

	if (!w.n)
		return wrong(p, "a number is missing; say %s", usage);
	snprintf(digits, sizeof(digits), "%.*s", (int)BH_MIN(w.n, sizeof(digits) - 1), w.p);
	v = strtol(digits, &end, 10);
	if (w.n >= sizeof(digits) || *end || v < min || v > max)
		return wrong(p, "'%s' is no number from %ld to %ld; say %s", show(w).text, min, max, usage);
	*ret = (int16_t)v;
	return 0;
}

/* --- events ------------------------------------------------------------------------- */

static int add(const struct parser *p, struct bh_hid_event e)
{
	struct bh_hid_script *s = p->script;

	if (s->count == s->room) {
		size_t room = s->room ? 2 * s->room : 64;
		struct bh_hid_event *events = realloc(s->events, room * sizeof(*events));

		if (!events) {
			wrong(p, "out of memory; say less at once");
			return -ENOMEM;
		}
		s->events = events;
		s->room = room;
	}
	s->events[s->count++] = e;
	return 0;
}

static int add_code(const struct parser *p, enum bh_hid_event_type type, uint8_t code)
{
	return add(p, (struct bh_hid_event){.type = type, .code = code});
}

/* --- keyboard ----------------------------------------------------------------------- */

static int type_character(const struct parser *p, char c)
{
	bool shift;
	uint8_t key = bh_hid_key_of(c, &shift);
	int r = 0;

	if (!key)
		return wrong(p, "byte 0x%02x cannot be typed on a US keyboard; say ASCII characters, or key NAME",
		             (unsigned char)c);
	if (shift)
		r = add_code(p, BH_HID_DOWN, BH_HID_SHIFT);
	if (!r)
		r = add_code(p, BH_HID_DOWN, key);
	if (!r)
		r = add_code(p, BH_HID_UP, key);
	if (!r && shift)
		r = add_code(p, BH_HID_UP, BH_HID_SHIFT);
	return r;
}

/* What "\c" types; 0: nothing. */
static char escaped(char c)
{
	static const char from[] = "ntbe\\;", to[] = "\n\t\b\x1b\\;";
	const char *at = c ? strchr(from, c) : NULL;

	return at ? to[at - from] : 0;
}

static int do_type(const struct parser *p, struct word rest, const char *usage)
{
	int r = 0;

	if (rest.n < 2)
		return wrong(p, "there is nothing to type; say %s", usage);
	for (size_t i = 1; i < rest.n && !r; i++) {
		char c = rest.p[i];

		if (c == '\\') {
			i++;
			c = i < rest.n ? escaped(rest.p[i]) : 0;
			if (!c)
				return wrong(p, "a backslash stands alone; say \\n, \\t, \\b, \\e, \\; or \\\\");
		} else if ((unsigned char)c < 0x20 && c != '\t') {
			return wrong(p, "byte 0x%02x is no text; say \\n, \\t, \\b or \\e", (unsigned char)c);
		}
		r = type_character(p, c);
	}
	return r;
}

/* "ctrl+alt+delete" */
static int combination(const struct parser *p, struct word *rest, const char *usage, uint8_t keys[COMBINATION_MAX],
                       unsigned *ret_count)
{
	struct word w = next_word(rest), part = {w.p, 0};
	unsigned n = 0;

	if (!w.n)
		return wrong(p, "a key's name is missing; say %s", usage);
	for (size_t i = 0; i <= w.n; i++) {
		if (i < w.n && w.p[i] != '+') {
			part.n++;
			continue;
		}
		if (!part.n)
			return wrong(p, "'%s': a name is missing beside '+'; the plus key is shift+equal, or kpplus",
			             show(w).text);
		if (n == COMBINATION_MAX)
			return wrong(p, "'%s' is too many keys; say %u at most", show(w).text, COMBINATION_MAX);
		keys[n] = bh_hid_key(part.p, part.n);
		if (!keys[n++])
			return wrong(p,
			             "no key is called '%s'; say a to z, 0 to 9, f1 to f24, enter, esc, tab, space, up, delete, "
			             "ctrl, shift, alt, super, ... (or type TEXT)",
			             show(part).text);
		part = (struct word){w.p + i + 1, 0};
	}
	*ret_count = n;
	return nothing_more(p, *rest, usage);
}

static int do_keys(const struct parser *p, struct word rest, const char *usage, bool down, bool up)
{
	uint8_t keys[COMBINATION_MAX];
	unsigned n = 0;
	int r = combination(p, &rest, usage, keys, &n);

	for (unsigned i = 0; down && i < n && !r; i++)
		r = add_code(p, BH_HID_DOWN, keys[i]);
	for (unsigned i = n; up && i > 0 && !r; i--)
		r = add_code(p, BH_HID_UP, keys[i - 1]);
	return r;
}

static int do_key(const struct parser *p, struct word rest, const char *usage)
{
	return do_keys(p, rest, usage, true, true);
}

static int do_down(const struct parser *p, struct word rest, const char *usage)
{
	return do_keys(p, rest, usage, true, false);
}

static int do_up(const struct parser *p, struct word rest, const char *usage)
{
	return do_keys(p, rest, usage, false, true);
}

/* --- mouse and tablet --------------------------------------------------------------- */

static int do_move(const struct parser *p, struct word rest, const char *usage)
{
	struct bh_hid_event e = {.type = BH_HID_MOVE};
	int r = number(p, &rest, -INT16_MAX, INT16_MAX, usage, &e.x);

	if (!r)
		r = number(p, &rest, -INT16_MAX, INT16_MAX, usage, &e.y);
	if (!r)
		r = nothing_more(p, rest, usage);
	return r ? r : add(p, e);
}

static int do_at(const struct parser *p, struct word rest, const char *usage)
{
	struct bh_hid_event e = {.type = BH_HID_AT};
	int r = number(p, &rest, 0, INT16_MAX, usage, &e.x);

	if (!r)
		r = number(p, &rest, 0, INT16_MAX, usage, &e.y);
	if (!r)
		r = nothing_more(p, rest, usage);
	return r ? r : add(p, e);
}

static int do_wheel(const struct parser *p, struct word rest, const char *usage)
{
	struct bh_hid_event e = {.type = BH_HID_WHEEL};
	int r = number(p, &rest, -INT16_MAX, INT16_MAX, usage, &e.y);

	if (!r)
		r = nothing_more(p, rest, usage);
	return r ? r : add(p, e);
}

static int button(const struct parser *p, struct word *rest, const char *usage, uint8_t *ret)
{
	static const char *const buttons[] = {"left", "right", "middle", "side", "extra"};
	struct word w = next_word(rest);

	if (!w.n)
		return wrong(p, "a button's name is missing; say %s", usage);
	for (uint8_t i = 0; i < p->buttons && i < BH_COUNT(buttons); i++)
		if (is(w, buttons[i])) {
			*ret = i;
			return 0;
		}
	return wrong(p, "no button is called '%s'; say left, right%s", show(w).text,
	             p->buttons > 3 ? ", middle, side or extra" : " or middle");
}

static int do_button(const struct parser *p, struct word rest, const char *usage)
{
	struct word w;
	uint8_t b = 0;
	int r = button(p, &rest, usage, &b);

	if (r)
		return r;
	w = next_word(&rest);
	if (!is(w, "down") && !is(w, "up"))
		return wrong(p, "'%s' is neither down nor up; say %s", show(w).text, usage);
	r = nothing_more(p, rest, usage);
	return r ? r : add_code(p, is(w, "down") ? BH_HID_DOWN : BH_HID_UP, b);
}

static int do_click(const struct parser *p, struct word rest, const char *usage)
{
	uint8_t b = 0;
	int r = button(p, &rest, usage, &b);

	if (!r)
		r = nothing_more(p, rest, usage);
	if (!r)
		r = add_code(p, BH_HID_DOWN, b);
	return r ? r : add_code(p, BH_HID_UP, b);
}

/* --- commands ----------------------------------------------------------------------- */

#define KEYBOARD (1u << BH_HID_KEYBOARD)
#define MOUSE    (1u << BH_HID_MOUSE)
#define TABLET   (1u << BH_HID_TABLET)

static const struct {
	const char *name;
	unsigned kinds; /* that know it */
	const char *usage;
	int (*run)(const struct parser *p, struct word rest, const char *usage);
} commands[] = {
	{"type", KEYBOARD, "type TEXT", do_type},
	{"key", KEYBOARD, "key NAME or key NAME+NAME", do_key},
	{"down", KEYBOARD, "down NAME", do_down},
	{"up", KEYBOARD, "up NAME", do_up},
	{"move", MOUSE, "move DX DY", do_move},
	{"at", TABLET, "at X Y", do_at},
	{"button", MOUSE | TABLET, "button NAME down or button NAME up", do_button},
	{"click", MOUSE | TABLET, "click NAME", do_click},
	{"wheel", MOUSE | TABLET, "wheel N", do_wheel},
};

static int run(const struct parser *p, struct word command)
{
	static const char *const say[] = {
		[BH_HID_KEYBOARD] = "type TEXT, key NAME, down NAME or up NAME",
		[BH_HID_MOUSE] = "move DX DY, button NAME down|up, click NAME or wheel N",
		[BH_HID_TABLET] = "at X Y, button NAME down|up, click NAME or wheel N",
	};
	struct word w = next_word(&command);

	if (!w.n)
		return 0;
	for (size_t i = 0; i < BH_COUNT(commands); i++)
		if (commands[i].kinds & 1u << p->kind && is(w, commands[i].name))
			return commands[i].run(p, command, commands[i].usage);
	return wrong(p, "'%s' is nothing a %s does; say %s", show(w).text, bh_hid_kind_name(p->kind), say[p->kind]);
}

/* The length of the first line, without what ends it. */
static size_t line_length(const char *p)
{
	return strcspn(p, "\n");
}

/* The length of the first command of a line of n bytes: to its end, or to a ';' without a backslash. */
static size_t command_length(const char *p, size_t n)
{
	size_t i = 0;

	while (i < n && p[i] != ';')
		i += p[i] == '\\' && i + 1 < n ? 2 : 1;
	return i;
}

static int run_line(const struct parser *p, struct word line)
{
	int r = 0;

	if (line.n && line.p[line.n - 1] == '\r')
		line.n--;
	while (!r) {
		struct word rest = line, first = next_word(&rest);
		size_t n = command_length(line.p, line.n);

		if (first.n && *first.p == '#')
			return 0;
		r = run(p, (struct word){line.p, n});
		if (n == line.n)
			return r;
		line.p += n + 1;
		line.n -= n + 1;
	}
	return r;
}

int bh_hid_parse(enum bh_hid_kind kind, unsigned buttons, const char *text, struct bh_hid_script *script, char *error,
                 size_t error_size)
{
	const struct parser p = {
		.kind = kind, .buttons = buttons, .script = script, .error = error, .error_size = error_size,
	};
	int r = 0;

	while (*text && !r) {
		size_t n = line_length(text);

		r = run_line(&p, (struct word){text, n});
		text += n + (text[n] == '\n');
	}
	return r;
}

void bh_hid_script_finish(struct bh_hid_script *script)
{
	free(script->events);
	*script = (struct bh_hid_script){0};
}
