#include "output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define ROOM 65536u

bool bh_output_add(struct bh_output *o, const void *bytes, size_t length)
{
	if (o->start && o->start + o->used + length > o->size) {
		memmove(o->bytes, o->bytes + o->start, o->used);
		o->start = 0;
	}
	if (o->used + length > o->size) {
		size_t size = o->used + length + ROOM;
		uint8_t *more = realloc(o->bytes, size);

		if (!more)
			return false;
		o->bytes = more;
		o->size = size;
	}
	if (length)
		memcpy(o->bytes + o->start + o->used, bytes, length);
	o->used += length;
	return true;
}

bool bh_output_flush(struct bh_output *o, int fd)
{
	while (o->used) {
		ssize_t n = send(fd, o->bytes + o->start, o->used, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN;
		o->start += (size_t)n;
		o->used -= (size_t)n;
	}
	o->start = 0;
	return true;
}

void bh_output_finish(struct bh_output *o)
{
	free(o->bytes);
	*o = (struct bh_output){0};
}
