/* Files that are there whole, or not at all. */
#ifndef BENCH_OUTPUT_H
#define BENCH_OUTPUT_H

#include <stddef.h>

/*
 * Puts text into the file, by way of a new one beside it that takes its place.
 * What is there and is no plain file (a terminal, a pipe) is written to. Negative
 * errno.
 */
int bh_output_write(const char *path, const char *text, size_t length);

#endif
