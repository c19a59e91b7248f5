/* The kinds of devices and controllers the command line knows. */
#ifndef SERVER_DEVICES_H
#define SERVER_DEVICES_H

#include <jansson.h>
#include <stdio.h>
#include <uv.h>

#include <uhci/uhci.h>
#include <usb/device.h>

#include "options.h"

struct bh_device_kind {
	const char *name, *help;
	const struct bh_option_key *keys; /* ends with a NULL key */
	/* 0, or a negative errno and one line in error. */
	int (*create)(uv_loop_t *loop, const struct bh_options *o, struct bh_device **ret, char *error);
	/*
	 * As bh_device_destroy(), but tells when what was buffered is safe; error: a negative errno;
	 * -ENOTCONN: nobody was there to take it, and nothing broke. NULL: nothing is buffered.
	 */
	void (*close)(struct bh_device *d, void (*closed)(void *data, int error), void *data);
	/* What it counted, as a new JSON object. NULL: nothing. */
	json_t *(*statistics)(const struct bh_device *d);
	/* What somebody types, as create above. NULL: nobody does. */
	int (*input)(struct bh_device *d, const char *text, char *error);
	/* Where somebody finds the other side of it; valid as long as the device. NULL: there is none. */
	const char *(*other_side)(const struct bh_device *d);
	bool hub; /* others may be plugged into it */
};

/* Those that are files of their own (kinds/). */
extern const struct bh_device_kind bh_kind_usb;
extern const struct bh_device_kind bh_kind_usbredir;

/* NULL: no such kind. */
const struct bh_device_kind *bh_device_kind(const char *name);
void bh_device_help(FILE *to);

/* Are these options known for this kind, or for every device? As bh_options_check(). */
int bh_device_options_check(const struct bh_device_kind *kind, const struct bh_options *o, char *error);

/* verify= and verify-when=; as create above. */
int bh_device_verification(const struct bh_options *o, struct bh_verification *ret, char *error);

/* The controller's configuration from "uhci,ports=4"; as create above. */
int bh_controller_parse(const char *text, struct bh_uhci_config *ret, char *error);
void bh_controller_help(FILE *to);

#endif
