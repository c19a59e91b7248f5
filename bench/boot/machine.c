#include "machine.h"

#include <stdarg.h>

#define COM1 0x3f8
#define TICKS_HZ 1000
#define PIT_HZ 1193182

extern void on_timer(void);

static struct {
	uint16_t low, selector, type, high;
} interrupts[256];

void machine_begin(void)
{
	struct __attribute__((packed)) {
		uint16_t limit;
		uint32_t base;
	} pointer = {sizeof(interrupts) - 1, (uint32_t)interrupts};
	uint32_t handler = (uint32_t)on_timer;

	outb(COM1 + 3, 0x03); /* 8 bits, no parity */
	interrupts[0x20].low = (uint16_t)handler;
	interrupts[0x20].selector = 8;
	interrupts[0x20].type = 0x8e00;
	interrupts[0x20].high = (uint16_t)(handler >> 16);
	__asm__ volatile("lidt %0" ::"m"(pointer));
	outb(0x20, 0x11), outb(0x21, 0x20), outb(0x21, 4), outb(0x21, 1); /* 8259A: interrupts from 0x20 on */
	outb(0xa0, 0x11), outb(0xa1, 0x28), outb(0xa1, 2), outb(0xa1, 1);
	outb(0x21, 0xfe), outb(0xa1, 0xff); /* the timer's alone */
	outb(0x43, 0x34); /* 8254: channel 0, rate generator */
	outb(0x40, PIT_HZ / TICKS_HZ & 0xff), outb(0x40, PIT_HZ / TICKS_HZ >> 8);
}

void machine_tick(void)
{
	__asm__ volatile("sti; hlt; cli" ::: "memory");
}

static void put(char c)
{
	while (!(inb(COM1 + 5) & 0x20))
		;
	outb(COM1, (uint8_t)c);
}

static void put_number(uint32_t value, uint32_t base)
{
	if (value >= base)
		put_number(value / base, base);
	put("0123456789abcdef"[value % base]);
}

static void put_format(const char *format, va_list arguments)
{
	for (; *format; format++) {
		if (*format != '%') {
			put(*format);
		} else if (*++format == 's') {
			for (const char *s = va_arg(arguments, const char *); *s; s++)
				put(*s);
		} else {
			put_number(va_arg(arguments, uint32_t), *format == 'x' ? 16 : 10);
		}
	}
}

void say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	put_format(format, arguments);
	va_end(arguments);
	put('\n');
}

void machine_end(uint8_t status)
{
	for (;;)
		outb(0xf4, status);
}

void die(const char *why, uint32_t value)
{
	say("failed: %s (%x)", why, value);
	machine_end(1);
}

static uint32_t address(unsigned device, unsigned function, unsigned offset)
{
	return 0x80000000u | device << 11 | function << 8 | offset;
}

uint32_t pci_read(unsigned device, unsigned function, unsigned offset)
{
	outl(0xcf8, address(device, function, offset));
	return inl(0xcfc);
}

void pci_write(unsigned device, unsigned function, unsigned offset, uint32_t value)
{
	outl(0xcf8, address(device, function, offset));
	outl(0xcfc, value);
}
