/* Where to connect to, or to listen: HOST:PORT, [IPV6]:PORT, or unix:PATH. */
#ifndef NET_ADDRESS_H
#define NET_ADDRESS_H

#include <stdbool.h>

#define BH_ADDRESS_FORMS "HOST:PORT, [ADDRESS]:PORT for IPv6, or unix:PATH"

/* All owned, or NULL: either host and port (a number), or path. */
struct bh_address {
	char *host, *port;
	char *path;
};

/* listening: port 0 is one. 0, -EINVAL or -ENOMEM; on an error there is nothing to free. */
int bh_address_parse(const char *text, bool listening, struct bh_address *ret);
void bh_address_free(struct bh_address *a);

#endif
