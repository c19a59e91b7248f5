/* "bulkhead devices": what can be attached, of this host's and of others'. */
#ifndef SERVER_LIST_H
#define SERVER_LIST_H

#include <stdbool.h>

/* The words after "bulkhead"; returns the exit status. */
int bh_list(int argc, char **argv);

/* What a USB/IP server exports: HOST[:PORT]. */
int bh_list_usbip(const char *host, bool json);

#endif
