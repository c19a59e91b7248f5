/* Everything that is counted, as JSON. */
#ifndef SERVER_STATISTICS_H
#define SERVER_STATISTICS_H

#include <jansson.h>

#include <uhci/uhci.h>
#include <vfio_user/vfio_user.h>

/* All in one new object. devices: an array with an object for each device; taken over. */
json_t *bh_statistics(struct bh_uhci *u, const struct bh_vfio_user *v, json_t *devices);

/* Replaces the file as a whole. The object is taken over. 0 or a negative errno. */
int bh_statistics_write(const char *path, json_t *statistics);

#endif
