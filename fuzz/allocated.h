/*
 * How much memory the calling thread has allocated and not freed, in bytes. The
 * sanitizer's own figure counts every thread's, and the fuzzer has a second one: it
 * starts while the first input runs, and allocates.
 */
#ifndef FUZZ_ALLOCATED_H
#define FUZZ_ALLOCATED_H

#include <stddef.h>

/* Right as differences between two calls of one thread. Less than zero where more was freed. */
ptrdiff_t fuzz_allocated(void);

#endif
