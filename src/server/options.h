/* "kind,key=value,key=value": how devices and controllers are written on the command line. */
#ifndef SERVER_OPTIONS_H
#define SERVER_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define BH_ERROR_SIZE 512

struct bh_option {
	const char *key, *value;
};

struct bh_options {
	char *text; /* owned; what the pointers below point into */
	const char *kind;
	struct bh_option *list;
	size_t count;
};

/* A key an option list may hold; the help text is its line in "help". */
struct bh_option_key {
	const char *key, *value, *help;
	bool required;
};

/*
 * Cuts the text up; ",," is a comma in a value. 0, -EINVAL or -ENOMEM: then error
 * holds one line and there is nothing to free.
 */
int bh_options_parse(const char *text, struct bh_options *ret, char *error);
void bh_options_free(struct bh_options *o);

/* Are all keys known, given once, and the required ones there? keys ends with a NULL key. */
int bh_options_check(const struct bh_options *o, const struct bh_option_key *keys, char *error);

/* The value, or NULL. */
const char *bh_options_get(const struct bh_options *o, const char *key);

/* *ret is untouched where the key is missing. -EINVAL with a line in error. */
int bh_options_bool(const struct bh_options *o, const char *key, bool *ret, char *error);
int bh_options_number(const struct bh_options *o, const char *key, unsigned long lowest, unsigned long highest,
                      unsigned long *ret, char *error);

/* The index among choices, which end with NULL; at least two. */
int bh_options_choice(const struct bh_options *o, const char *key, const char *const *choices, unsigned *ret,
                      char *error);

/*
 * Statistics are to replace no device's file: is path (NULL: none) one that file= or input= names?
 * Then -EINVAL and a line in error.
 */
int bh_options_spare(const struct bh_options *o, const char *path, char *error);

/* A line for each key. */
void bh_options_help(FILE *to, const struct bh_option_key *keys);

#endif
