/* The table of layers, and stacking them: see layer/layers.h. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/util.h>

#include "kinds.h"

static const struct bh_layer_kind *const kinds[] = {
	&bh_layer_translate, &bh_layer_delay, &bh_layer_fault, &bh_layer_capture,
};

#define MOST_LAYERS 16u

/* --- what the rows share -------------------------------------------------------------- */

int bh_layer_wrong(char *error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, BH_LAYER_ERROR_SIZE, format, args);
	va_end(args);
	for (; *error; error++) /* one line, whatever was typed */
		if ((unsigned char)*error < 0x20 || *error == 0x7f)
			*error = '?';
	return -EINVAL;
}

bool bh_layer_parameter(const char **text, char item[BH_PARAMETER_SIZE], char **ret_value, bool *ret_error)
{
	size_t n = strcspn(*text, ":");
	char *equals;

	*ret_error = n >= BH_PARAMETER_SIZE;
	if (!**text || *ret_error)
		return false;
	memcpy(item, *text, n);
	item[n] = '\0';
	*text += n + ((*text)[n] == ':');
	equals = strchr(item, '=');
	*ret_value = equals ? equals + 1 : NULL;
	if (equals)
		*equals = '\0';
	return true;
}

/* Digits, and what follows them. False: there are none, or too many. */
static bool digits(const char *text, uint64_t *ret, const char **ret_rest)
{
	size_t n = strspn(text, "0123456789");

	if (n == 0 || n > 15)
		return false;
	*ret = strtoull(text, NULL, 10);
	*ret_rest = text + n;
	return true;
}

bool bh_layer_time(const char *text, uint64_t *ret_us)
{
	static const struct { const char *unit; uint64_t us; } units[] = {{"us", 1}, {"ms", 1000}, {"", 1000}, {"s", 1000000}};
	const char *rest;
	uint64_t value;

	if (!digits(text, &value, &rest))
		return false;
	for (size_t i = 0; i < BH_COUNT(units); i++)
		if (!strcmp(rest, units[i].unit)) {
			*ret_us = value * units[i].us;
			return value <= 3600000000u / units[i].us;
		}
	return false;
}

bool bh_layer_number(const char *text, uint64_t most, uint64_t *ret)
{
	const char *rest;
	uint64_t factor = 1;

	if (!digits(text, ret, &rest))
		return false;
	if (!strcmp(rest, "k"))
		factor = 1000;
	else if (!strcmp(rest, "M"))
		factor = 1000000;
	else if (*rest)
		return false;
	if (*ret > most / factor)
		return false;
	*ret *= factor;
	return true;
}

/* --- stacking ----------------------------------------------------------------------------- */

static const struct bh_layer_kind *find(const char *name, size_t length)
{
	for (size_t i = 0; i < BH_COUNT(kinds); i++)
		if (strlen(kinds[i]->name) == length && !memcmp(kinds[i]->name, name, length))
			return kinds[i];
	return NULL;
}

static int put_one(const struct bh_layer_context *c, const char *text, struct bh_device **device, char *error)
{
	size_t n = strcspn(text, ":");
	const struct bh_layer_kind *kind = find(text, n);
	int r;

	if (!kind)
		return bh_layer_wrong(error, "layers=: no layer '%.*s'; 'bulkhead serve --device help' lists them", (int)BH_MIN(n, 64u), text);
	if (!c->loop && kind != &bh_layer_translate)
		return bh_layer_wrong(error, "layers=%s: needs a loop, for what takes time", kind->name);
	r = kind->create(c, text[n] ? text + n + 1 : "", *device, device, error);
	if (!r)
		bh_layer_of(*device)->kind = kind;
	return r;
}

int bh_layers_put(const struct bh_layer_context *c, const char *text, struct bh_device **device, char *error)
{
	char *copy = strdup(text), *rest = copy, *one;
	unsigned count = 0;
	int r = 0;

	if (!copy) {
		bh_layer_wrong(error, "out of memory");
		return -ENOMEM;
	}
	while (!r && (one = strsep(&rest, "+"))) {
		if (++count > MOST_LAYERS)
			r = bh_layer_wrong(error, "layers=: at most %u layers may stand on each other", MOST_LAYERS);
		else
			r = put_one(c, one, device, error);
	}
	free(copy);
	return r;
}

bool bh_layers_name(const char *text, const char *name)
{
	size_t length = strlen(name);

	for (; *text; text += strcspn(text, "+"), text += *text == '+')
		if (!strncmp(text, name, length) && (!text[length] || text[length] == ':' || text[length] == '+'))
			return true;
	return false;
}

struct bh_device *bh_layers_bottom(struct bh_device *device)
{
	struct bh_layer *l;

	while ((l = bh_layer_of(device)))
		device = l->below;
	return device;
}

struct bh_device *bh_layer_counters(struct bh_device *device, const char **ret_name,
                                    struct bh_layer_counter ret[BH_LAYER_COUNTERS], unsigned *ret_count)
{
	struct bh_layer *l = bh_layer_of(device);

	*ret_count = 0;
	if (!l)
		return NULL;
	*ret_name = l->kind ? l->kind->name : "?";
	if (l->kind && l->kind->counters)
		*ret_count = l->kind->counters(l, ret);
	return l->below;
}

void bh_layers_help(FILE *to)
{
	for (size_t i = 0; i < BH_COUNT(kinds); i++)
		fprintf(to, "    %s%s\n      %s\n", kinds[i]->name, kinds[i]->parameters, kinds[i]->help);
}
