/* The handful of macros every folder needs. */
#ifndef BASE_UTIL_H
#define BASE_UTIL_H

#include <stddef.h>
#include <stdint.h>

/* The structure of the given type whose member p points at. */
#define bh_container_of(p, type, member) ((type *)(void *)((char *)(p) - offsetof(type, member)))

#define BH_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A function that is seldom called, from where time matters. */
#define BH_COLD __attribute__((cold, noinline))

#define BH_MIN(a, b) ((a) < (b) ? (a) : (b))
#define BH_MAX(a, b) ((a) > (b) ? (a) : (b))

#endif
