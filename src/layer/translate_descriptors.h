/*
 * Descriptors for another speed than the device's own: what a device that runs at high speed or
 * SuperSpeed would say of itself on a slower bus (USB 2.0, 9.6; USB 3.2, 9.6). The bytes may
 * come from anybody.
 */
#ifndef LAYER_TRANSLATE_DESCRIPTORS_H
#define LAYER_TRANSLATE_DESCRIPTORS_H

#include <stdbool.h>
#include <stdint.h>

#include <usb/device.h>

#define BH_QUALIFIER_SIZE 10u

/* Table 9-8: bcdUSB at most 2.0, for what came later are promises that this bus cannot keep; bMaxPacketSize0 64. */
void bh_translate_device(const uint8_t from[18], unsigned configurations, uint8_t ret[18]);

/* Table 9-9: what it is at its other speed. */
void bh_translate_qualifier(const uint8_t device[18], uint8_t ret[BH_QUALIFIER_SIZE]);

/*
 * One whole configuration (bh_configuration_check()) of a device that runs at `from`, as it is at
 * `to`, which is slower: in new memory, the caller's. Companions go. Alternate settings that
 * the slower bus cannot carry go, and with a first one the interface, and the association it is in.
 * *ret_hidden counts these settings; *ret_why says of the last one what was in the way. NULL: nothing is
 * left that has an endpoint (*ret_why is not NULL), or there is no memory (NULL).
 */
uint8_t *bh_translate_configuration(const uint8_t *configuration, enum bh_speed from, enum bh_speed to,
                                    unsigned *ret_hidden, const char **ret_why);

/* bMaxPacketSize and bInterval of an endpoint of a device that runs at `from`, at full speed. */
uint16_t bh_translate_packet(enum bh_endpoint_type type, uint16_t max_packet);
uint8_t bh_translate_interval(enum bh_endpoint_type type, enum bh_speed from, uint8_t interval);

#endif
