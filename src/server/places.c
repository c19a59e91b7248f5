/* Reading a place, and saying in one line why there is no such port. */
#include "places.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uhci/uhci.h>

#include "options.h"

#define MAX_NUMBERS (BH_BUS_MAX_HUBS + 1)

int bh_place_check(const char *place, char *error)
{
	const char *p = place;
	unsigned numbers = 0;

	for (;;) {
		size_t digits = strspn(p, "0123456789");

		numbers++;
		if (!digits || digits > 3 || *p == '0' || (p[digits] && p[digits] != '.'))
			break;
		p += digits;
		if (!*p && numbers <= MAX_NUMBERS)
			return 0;
		if (!*p)
			break;
		p++;
	}
	snprintf(error, BH_ERROR_SIZE, "port=%.40s: say which port, such as 2, or 1.3 for the third of the hub in port 1%s",
	         place, numbers > MAX_NUMBERS ? "; at most 5 hubs may follow each other" : "");
	return -EINVAL;
}

/* The first part of the place, up to its last dot, is a port that is there; the whole is not. */
static void explain(struct bh_bus *b, const char *place, const char *parent, char *error)
{
	const struct bh_device *d = bh_port_device(bh_bus_port(b, parent));

	if (!d)
		snprintf(error, BH_ERROR_SIZE, "port=%s: there is no hub in port %s", place, parent);
	else if (!d->hub)
		snprintf(error, BH_ERROR_SIZE, "port=%s: what is in port %s is no hub", place, parent);
	else
		snprintf(error, BH_ERROR_SIZE, "port=%s: the hub in port %s has no more than %u ports", place, parent,
		         d->hub_ports);
}

struct bh_port *bh_place_port(struct bh_bus *b, const char *place, char *error)
{
	struct bh_port *port = bh_bus_port(b, place);
	char part[BH_PLACE_SIZE];

	if (port)
		return port;
	/* Shorter and shorter, until there is something. */
	snprintf(part, sizeof(part), "%s", place);
	for (char *dot = strrchr(part, '.'); dot; dot = strrchr(part, '.')) {
		*dot = 0;
		if (bh_bus_port(b, part)) {
			explain(b, place, part, error);
			return NULL;
		}
	}
	if (b->port_count < BH_UHCI_MAX_PORTS)
		snprintf(error, BH_ERROR_SIZE,
		         "port=%s: the controller has no more than %u ports; say --controller uhci,ports=N (at most %u)", place,
		         b->port_count, BH_UHCI_MAX_PORTS);
	else
		snprintf(error, BH_ERROR_SIZE, "port=%s: a controller has at most %u ports", place, b->port_count);
	return NULL;
}

int bh_place_compare(const char *a, const char *b)
{
	return strverscmp(a, b);
}
