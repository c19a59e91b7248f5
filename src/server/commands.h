/* What may be asked for on the control channel: docs/control.md. */
#ifndef SERVER_COMMANDS_H
#define SERVER_COMMANDS_H

#include "channel.h"
#include "plugs.h"

struct bh_commands {
	struct bh_plugs *plugs;
	json_t *(*statistics)(void *context); /* a new object */
	void *context;
};

/* A request, as text, which is answered now or later. */
void bh_commands_run(struct bh_commands *c, struct bh_session *s, const char *text, size_t length);

#endif
