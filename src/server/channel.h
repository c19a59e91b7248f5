/*
 * The control channel's socket: clients, lines in, JSON out. What the lines mean is commands.c's.
 *
 * Nothing a client does, or leaves undone, holds up anybody else: a line is bounded, and so is
 * what waits to be sent; who does not read is dropped, and each has one line handled a turn
 * of the loop.
 */
#ifndef SERVER_CHANNEL_H
#define SERVER_CHANNEL_H

#include <jansson.h>
#include <uv.h>

#include <base/list.h>

#include "listener.h"

#define BH_CHANNEL_CLIENTS 8u
#define BH_CHANNEL_LINE    65536u /* bytes, with its end */

struct bh_session; /* a client */

struct bh_channel {
	uv_loop_t *loop;
	/* A line, without its end. It is answered once: see bh_session_answer(). */
	void (*line)(void *context, struct bh_session *s, const char *text, size_t length);
	void *context;

	struct bh_listener listener;
	uv_poll_t listening;
	uv_timer_t refusing;
	bool open;
	struct bh_list sessions;
	unsigned count;
};

/*
 * Listens at path; only its owner may connect. Ends with bh_channel_close(), if this succeeds:
 * 0, or a negative errno and one line in error (BH_ERROR_SIZE).
 */
int bh_channel_open(struct bh_channel *c, uv_loop_t *loop, const char *path,
                    void (*line)(void *context, struct bh_session *s, const char *text, size_t length), void *context,
                    char *error);

/* Drops the clients and removes the socket. The loop has to run out before c goes. */
void bh_channel_close(struct bh_channel *c);

/* To every client; data is taken over. */
void bh_channel_event(struct bh_channel *c, const char *name, json_t *data);

/*
 * The answer to the line that came last, which is taken over; within line() or later. Until
 * then the session's next line waits, and the session stays, though the client may be gone.
 */
void bh_session_answer(struct bh_session *s, json_t *answer);

#endif
