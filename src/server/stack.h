/* A device as it was asked for: what its kind makes, with the layers over it. */
#ifndef SERVER_STACK_H
#define SERVER_STACK_H

#include "devices.h"

/*
 * Makes the device with the layers that its options ask for. for_guest: one speaks to it at full speed, so
 * one that may be faster is translated, but for translate=off. As create above.
 */
int bh_device_make(uv_loop_t *loop, const struct bh_device_kind *kind, const struct bh_options *o, bool for_guest,
                   struct bh_device **ret, char *error);

/* What the kind and each layer counted, as a new JSON object; device: what bh_device_make() made. */
json_t *bh_device_statistics(const struct bh_device_kind *kind, struct bh_device *device);

#endif
