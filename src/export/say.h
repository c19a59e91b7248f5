/* Lines for people. Whoever is on the other side can bring them about: they are few. */
#ifndef EXPORT_SAY_H
#define EXPORT_SAY_H

#include <export/usbip_server.h>

struct bh_lines {
	/* configuration */
	struct bh_export_log log;
	struct uv_loop_s *loop;

	/* state */
	unsigned said;    /* of those that may be said at once; */
	uint64_t said_ms; /* when it was last made less, in the loop's time */
	uint64_t unsaid;  /* since the last one */
};

/* One a second, and a few at once. Those left out are counted, and the next line says how many. */
void bh_lines_say(struct bh_lines *l, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
