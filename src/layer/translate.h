/* For tests, and for who has a time of his own: see bh_layer_translate's row. */
#ifndef LAYER_TRANSLATE_H
#define LAYER_TRANSLATE_H

#include <usb/device.h>

/*
 * Of a translating layer without a loop: the guests of all endpoints stand still. What is kept of
 * their data goes to the device, as it would by the timer.
 */
void bh_translate_stand_still(struct bh_device *d);

#endif
