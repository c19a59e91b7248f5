/* Ports as people write them: "1.3" is the third port of the hub in the first root port. */
#ifndef SERVER_PLACES_H
#define SERVER_PLACES_H

#include <usb/bus.h>

/* Is this text a place, whether it is there or not? 0, or -EINVAL and one line in error (BH_ERROR_SIZE). */
int bh_place_check(const char *place, char *error);

/* The port at a place that is a text like that; NULL, and one line in error: there is none. */
struct bh_port *bh_place_port(struct bh_bus *b, const char *place, char *error);

/* 1 before 1.1 before 1.2 before 2; 0: the same place. */
int bh_place_compare(const char *a, const char *b);

#endif
