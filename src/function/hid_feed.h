/*
 * Lines from a file or FIFO, one at a time, as fast as they are taken. A regular file is read
 * in the loop's thread pool, a FIFO when the loop says it can be.
 */
#ifndef FUNCTION_HID_FEED_H
#define FUNCTION_HID_FEED_H

#include <stdbool.h>
#include <stddef.h>

struct uv_loop_s;
struct bh_hid_feed;

/* What the lines are for. All mandatory; called from the loop, or from bh_hid_feed_resume(). */
struct bh_hid_feed_ops {
	/*
	 * A line, without its end. 0: taken; -ENOBUFS: not now, to be offered again after
	 * bh_hid_feed_resume(); anything else: it is passed over, and error tells why.
	 */
	int (*line)(void *owner, const char *text, char *error, size_t error_size);
	/* A line was passed over (bad_line), or nothing more can be read: one line for the user. */
	void (*log)(void *owner, const char *text, bool bad_line);
	/* The end of bh_hid_feed_close(), from within or later from the loop: it is gone. */
	void (*closed)(void *owner);
};

/*
 * Opens, and has the loop read. 0, or a negative errno: then error holds what is wrong, which
 * names the file, and *ret is untouched.
 */
int bh_hid_feed_create(struct uv_loop_s *loop, const char *path, const struct bh_hid_feed_ops *ops, void *owner,
                       struct bh_hid_feed **ret, char *error, size_t error_size);

/* There may be room again. Nothing happens where no line waits for it, and from within line(). */
void bh_hid_feed_resume(struct bh_hid_feed *f);

/* No more lines from now on; the end comes with closed(). */
void bh_hid_feed_close(struct bh_hid_feed *f);

#endif
