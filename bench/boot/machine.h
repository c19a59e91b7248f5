/* The machine as a boot program finds it: ports, PCI, the timer, the serial port. No library. */
#ifndef BOOT_MACHINE_H
#define BOOT_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

static inline void outb(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static inline void outw(uint16_t port, uint16_t value) { __asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port)); }
static inline void outl(uint16_t port, uint32_t value) { __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port)); }

static inline uint8_t inb(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint16_t inw(uint16_t port)
{
	uint16_t value;

	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

/* A tick a millisecond, and nothing else, ends the processor's sleep. */
void machine_begin(void);

/* Sleeps until the next tick: others have the processor meanwhile. */
void machine_tick(void);

/* To the serial port; %s, %u and %x, no more. */
void say(const char *format, ...);

/* Ends the machine (isa-debug-exit at 0xf4): QEMU's exit status is 2 * status + 1. */
void machine_end(uint8_t status) __attribute__((noreturn));

/* A line that says why, and the end. */
void die(const char *why, uint32_t value) __attribute__((noreturn));

uint32_t pci_read(unsigned device, unsigned function, unsigned offset);
void pci_write(unsigned device, unsigned function, unsigned offset, uint32_t value);

#endif
