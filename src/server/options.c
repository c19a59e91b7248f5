/*
 * Cutting up and checking one "kind,key=value" text. It knows no kinds and no keys: those
 * are in devices.c and controllers.c.
 */
#include "options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <base/util.h>

/* Ends the item that begins at p, undoubling ",,"; returns the next item, or NULL. */
static char *cut(char *p)
{
	char *to = p;

	for (; *p; p++) {
		if (*p == ',' && p[1] != ',') {
			*to = 0;
			return p + 1;
		}
		p += *p == ',';
		*to++ = *p;
	}
	*to = 0;
	return NULL;
}

int bh_options_parse(const char *text, struct bh_options *ret, char *error)
{
	struct bh_options o = {.text = strdup(text), .list = calloc(strlen(text) + 1, sizeof(*o.list))};
	char *item;

	if (!o.text || !o.list) {
		snprintf(error, BH_ERROR_SIZE, "out of memory");
		bh_options_free(&o);
		return -ENOMEM;
	}
	o.kind = o.text;
	item = cut(o.text);
	while (item) {
		char *next = cut(item), *equals = strchr(item, '=');

		if (!equals || equals == item) {
			snprintf(error, BH_ERROR_SIZE, "'%s' in '%s' is not KEY=VALUE", item, text);
			bh_options_free(&o);
			return -EINVAL;
		}
		*equals = 0;
		o.list[o.count++] = (struct bh_option){.key = item, .value = equals + 1};
		item = next;
	}
	*ret = o;
	return 0;
}

void bh_options_free(struct bh_options *o)
{
	free(o->text);
	free(o->list);
	*o = (struct bh_options){0};
}

const char *bh_options_get(const struct bh_options *o, const char *key)
{
	for (size_t i = 0; i < o->count; i++)
		if (!strcmp(o->list[i].key, key))
			return o->list[i].value;
	return NULL;
}

static int check_key(const struct bh_options *o, size_t index, const struct bh_option_key *keys, char *error)
{
	const char *key = o->list[index].key;
	size_t used;

	for (size_t i = 0; i < index; i++)
		if (!strcmp(o->list[i].key, key)) {
			snprintf(error, BH_ERROR_SIZE, "%s: '%s' is given twice", o->kind, key);
			return -EINVAL;
		}
	for (const struct bh_option_key *k = keys; k->key; k++)
		if (!strcmp(k->key, key))
			return 0;
	used = (size_t)snprintf(error, BH_ERROR_SIZE, "%s has no option '%s'; it has:", o->kind, key);
	for (const struct bh_option_key *k = keys; k->key && used < BH_ERROR_SIZE; k++)
		used += (size_t)snprintf(error + used, BH_ERROR_SIZE - used, " %s", k->key);
	return -EINVAL;
}

int bh_options_check(const struct bh_options *o, const struct bh_option_key *keys, char *error)
{
	for (size_t i = 0; i < o->count; i++) {
		int r = check_key(o, i, keys, error);

		if (r)
			return r;
	}
	for (const struct bh_option_key *k = keys; k->key; k++)
		if (k->required && !bh_options_get(o, k->key)) {
			snprintf(error, BH_ERROR_SIZE, "%s needs %s=%s", o->kind, k->key, k->value);
			return -EINVAL;
		}
	return 0;
}

int bh_options_bool(const struct bh_options *o, const char *key, bool *ret, char *error)
{
	const char *value = bh_options_get(o, key);

	if (!value)
		return 0;
	if (!strcmp(value, "on") || !strcmp(value, "off")) {
		*ret = !strcmp(value, "on");
		return 0;
	}
	snprintf(error, BH_ERROR_SIZE, "%s: %s=%s: say on or off", o->kind, key, value);
	return -EINVAL;
}

int bh_options_number(const struct bh_options *o, const char *key, unsigned long lowest, unsigned long highest,
                      unsigned long *ret, char *error)
{
	const char *value = bh_options_get(o, key);
	unsigned long number;
	char *end;

	if (!value)
		return 0;
	errno = 0;
	number = strtoul(value, &end, 10);
	if (errno || *end || value[0] < '0' || value[0] > '9' || number < lowest || number > highest) {
		snprintf(error, BH_ERROR_SIZE, "%s: %s=%s: say a number from %lu to %lu", o->kind, key, value, lowest,
		         highest);
		return -EINVAL;
	}
	*ret = number;
	return 0;
}

int bh_options_choice(const struct bh_options *o, const char *key, const char *const *choices, unsigned *ret,
                      char *error)
{
	const char *value = bh_options_get(o, key);
	size_t used;

	if (!value)
		return 0;
	for (unsigned i = 0; choices[i]; i++)
		if (!strcmp(choices[i], value)) {
			*ret = i;
			return 0;
		}
	used = (size_t)snprintf(error, BH_ERROR_SIZE, "%s: %s=%.200s: say %s", o->kind, key, value, choices[0]);
	for (unsigned i = 1; choices[i] && used < BH_ERROR_SIZE; i++)
		used += (size_t)snprintf(error + used, BH_ERROR_SIZE - used, "%s%s", choices[i + 1] ? ", " : " or ", choices[i]);
	return -EINVAL;
}

int bh_options_spare(const struct bh_options *o, const char *path, char *error)
{
	static const char *const keys[] = {"file", "input"};
	struct stat theirs, ours;

	if (!path || stat(path, &theirs))
		return 0;
	for (size_t i = 0; i < BH_COUNT(keys); i++) {
		const char *file = bh_options_get(o, keys[i]);

		if (file && !stat(file, &ours) && ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino) {
			snprintf(error, BH_ERROR_SIZE, "--statistics '%s' is the file of a %s: choose another", path, o->kind);
			return -EINVAL;
		}
	}
	return 0;
}

void bh_options_help(FILE *to, const struct bh_option_key *keys)
{
	for (const struct bh_option_key *k = keys; k->key; k++)
		fprintf(to, "    %s=%s%*s %s%s\n", k->key, k->value,
		        (int)BH_MAX(1, 22 - (int)(strlen(k->key) + strlen(k->value))), "", k->help,
		        k->required ? " (required)" : "");
}
