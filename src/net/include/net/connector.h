/*
 * A connection to somewhere, tried again and again: names are looked up and every address is
 * tried, without ever waiting. Between two attempts it rests, twice as long after each one
 * that failed.
 */
#ifndef NET_CONNECTOR_H
#define NET_CONNECTOR_H

#include <net/address.h>

struct uv_loop_s;
struct bh_connector;

/* From the loop only, never inside a function below; may call all of them. */
struct bh_connector_ops {
	/* Connected: the socket, which does not block, is the owner's. Nothing more is tried. */
	void (*connected)(void *data, int fd);
	/* An attempt failed (a negative errno); another one follows by itself. Optional. */
	void (*failed)(void *data, int error);
};

/* The address is copied. Rests until it is told to try. 0 or -ENOMEM. */
int bh_connector_create(struct uv_loop_s *loop, const struct bh_address *address, const struct bh_connector_ops *ops,
                        void *data, struct bh_connector **ret);

/* Try at once; or after a rest, for a connection has just ended. Does nothing where it tries already. */
void bh_connector_try(struct bh_connector *c);
void bh_connector_try_later(struct bh_connector *c);

/* NULL is allowed. What is left closes in the loop. */
void bh_connector_destroy(struct bh_connector *c);

#endif
