/*
 * What is plugged in where: from "disk,file=IMG,port=1.3" to a device in its port, and out
 * again. The bus owns the devices; what is kept here is how each was asked for, and how it
 * has to be closed.
 */
#ifndef SERVER_PLUGS_H
#define SERVER_PLUGS_H

#include <jansson.h>
#include <uv.h>

#include <base/list.h>
#include <usb/bus.h>

#include "devices.h"

#define BH_PLUGS_MAX 64u

struct bh_plugs;

/* What happens without being asked for. May not add or remove. */
struct bh_plugs_ops {
	/* A device that comes and goes has come, or gone; it keeps its place. */
	void (*shows)(void *context, const char *place, const char *kind, bool there);
	/* A device went by itself, for good. */
	void (*gone)(void *context, const char *place, const char *kind);
	/* What it had accepted may be lost; error: a negative errno. */
	void (*failed)(void *context, const char *place, const char *kind, int error);
};

/* A removal, until all that went by it is closed. */
struct bh_removal {
	void (*done)(struct bh_removal *r); /* r is the caller's again */

	/* plugs.c's, but for error in done(): 0, or the first negative errno */
	unsigned open;
	int error;
};

struct bh_plugs {
	uv_loop_t *loop;
	struct bh_bus *bus;
	const char *statistics; /* the file no device may have; NULL: none */
	const struct bh_plugs_ops *ops;
	void *context;
	struct bh_list all; /* by place */
	unsigned count;
	struct bh_removal *removal; /* the one under way: who goes now goes by it */
	struct bh_removal ending;   /* of everything */
};

/* Everything given stays the caller's, and has to be there until the last device is closed. */
void bh_plugs_init(struct bh_plugs *p, uv_loop_t *loop, struct bh_bus *bus, const char *statistics,
                   const struct bh_plugs_ops *ops, void *context);

/*
 * Those of the command line: what has a port= is in that one, what has none in the next
 * free root port; a hub comes before what is plugged into it. 0, or a negative errno and
 * one line in error (BH_ERROR_SIZE); those before it stay plugged in.
 */
int bh_plugs_begin(struct bh_plugs *p, const char *const *texts, size_t count, char *error);

/* One more; as above. Its place is put into ret. */
int bh_plugs_add(struct bh_plugs *p, const char *text, char ret[BH_PLACE_SIZE], char *error);

/*
 * Pulls out what is in a port, with what hangs from it. 0: done() is called once, when all
 * is closed, perhaps before this returns. -ENODEV or -EINVAL with a line in error: it is not.
 */
int bh_plugs_remove(struct bh_plugs *p, const char *place, struct bh_removal *r, char *error);

/* Pulls out everything. The loop has to run until all is closed. */
void bh_plugs_clear(struct bh_plugs *p);

/* An array with an object for each device, by place: what it counted, and what the guest sees of it. */
json_t *bh_plugs_statistics(const struct bh_plugs *p);
json_t *bh_plugs_list(const struct bh_plugs *p);

/* A line for each device that has another side here. */
void bh_plugs_announce(const struct bh_plugs *p, FILE *to);

/* Somebody types, or moves a mouse. 0, or a negative errno and one line in error. */
int bh_plugs_input(struct bh_plugs *p, const char *place, const char *text, char *error);

#endif
