/* The rows of the table (layers.c), each of a file of its own; and what they share. */
#ifndef LAYER_KINDS_H
#define LAYER_KINDS_H

#include <stdbool.h>
#include <stdint.h>

#include <layer/layer.h>
#include <layer/layers.h>

extern const struct bh_layer_kind bh_layer_translate;
extern const struct bh_layer_kind bh_layer_delay;
extern const struct bh_layer_kind bh_layer_fault;
extern const struct bh_layer_kind bh_layer_capture;

/* A negative errno, with a line in error; for create. */
int bh_layer_wrong(char *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Parameters "5ms:jitter=2ms:seed=1", one after the other: copies what stands before the next
 * colon to item, cuts it at an equals sign, and sets *ret_value behind that (NULL: there is none).
 * False: there are no more, or, with *ret_error set, one is longer than its room.
 */
#define BH_PARAMETER_SIZE 256u
bool bh_layer_parameter(const char **text, char item[BH_PARAMETER_SIZE], char **ret_value, bool *ret_error);

/* "5ms", "300us", "2s"; without a unit: ms. To microseconds, at most an hour. False: that is none. */
bool bh_layer_time(const char *text, uint64_t *ret_us);
/* "64k", "1M", "1200000" (of 1000). False: that is none. */
bool bh_layer_number(const char *text, uint64_t most, uint64_t *ret);

/* Random numbers that are the same again with the same seed (xorshift64*). */
static inline uint64_t bh_layer_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1du;
}

#endif
