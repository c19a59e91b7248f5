/* "bulkhead devices": what can be attached here. */
#ifndef SERVER_LIST_DEVICES_H
#define SERVER_LIST_DEVICES_H

#include <stdbool.h>
#include <stdio.h>

/* The subcommand; returns the exit status. */
int bh_list_devices(int argc, char **argv);

/* What a USB/IP server exports: HOST[:PORT]. The exit status. */
int bh_list_usbip(const char *host, bool json);

struct bh_list_config {
	const char *directory; /* as BH_USB_DEVICES */
	const char *without;   /* where this is there and the directory is not, there are no devices; NULL: that is an error */
	bool all;              /* hubs, too */
	bool json;
};

/* This machine's devices. 0, or a negative errno and nothing is written: there is no such directory. */
int bh_list_usb(const struct bh_list_config *c, FILE *to);

/*
 * Makes a text of a stranger's fit to be shown: what is no UTF-8, controls a terminal, or turns
 * the direction of writing, becomes '?'. Returns it.
 */
char *bh_list_clean(char *text);

#endif
