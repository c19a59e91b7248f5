/* What the toy machine of emulator.c has for the program it runs (guest.c): memory, ports, an interrupt. */
#ifndef EXAMPLES_MACHINE_H
#define EXAMPLES_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#define RAM_SIZE (16u << 20) /* bytes, from address 0 */
#define USB_PORT 0xc040u     /* where the UHCI's registers are */

struct machine;

uint8_t *machine_ram(struct machine *m);
uint64_t machine_now_us(const struct machine *m);

/* Port I/O; size is 1, 2 or 4. Ports where nothing is read as ones. */
uint32_t machine_in(struct machine *m, uint16_t port, unsigned size);
void machine_out(struct machine *m, uint16_t port, unsigned size, uint32_t value);

/* HLT: until there is an interrupt, or for so long. Everything else in the machine goes on. */
bool machine_halt(struct machine *m, uint64_t timeout_us);

/* guest.c: what the machine runs. False: it went wrong, and it said how. */
bool guest_main(struct machine *m);

#endif
