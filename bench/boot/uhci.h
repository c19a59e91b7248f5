/* A driver of a UHCI and of the one device in its first port, as small as it can be (UHCI Design Guide 1.1). */
#ifndef BOOT_UHCI_H
#define BOOT_UHCI_H

#include <stdint.h>

#define PACKET 64u
#define MOST_BYTES 122880u /* of one transfer */

enum { PID_IN = 0x69, PID_OUT = 0xe1, PID_SETUP = 0x2d };

/* Finds the controller, and sets up the device: addressed, configured, its bulk endpoints known. Dies where it cannot. */
void uhci_begin(void);

/* The bytes of an IN that came; an OUT is sent whole. One queue of a descriptor for each packet, as Linux builds it. */
uint32_t uhci_bulk(uint32_t pid, void *data, uint32_t length);

#endif
