/*
 * emulator IMAGE - a toy machine emulator that embeds a UHCI controller and a USB disk.
 *
 * The machine has 16 MB of memory in this process, a processor, and on its USB controller a
 * disk: the file IMAGE, which is overwritten. Where a real emulator executes a guest's
 * instructions, this one calls guest_main() (guest.c), a program that reaches the machine
 * by memory, ports and an interrupt only, as any driver does.
 *
 * Everything happens on one thread. The processor has it most of the time; when it halts,
 * the devices get it: the controller when the time it asked for has come, libuv's loop
 * when the disk has read or written something.
 */
#include "machine.h"

#include <err.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <time.h>
#include <uv.h>

#include <bulkhead.h>

#define NEVER   UINT64_MAX
#define USB_BAR 4u /* UHCI has its registers in BAR 4, 32 bytes of them */

struct machine {
	struct bh_guest guest; /* the controller's view of us */
	uint8_t *ram;
	uv_loop_t loop;
	struct bh_uhci *uhci;
	uint64_t run_at; /* when the controller wants to run */
	bool interrupt;  /* its line */
	unsigned traces; /* how writes to memory are noticed: BH_TRACE_...; 0: they are not */
	int close_error;
};

/* --- what the controller needs of a machine (guest/guest.h) -------------------------------- */

static struct machine *of_guest(struct bh_guest *g)
{
	return bh_container_of(g, struct machine, guest);
}

static void interrupt_level(struct bh_guest *g, bool raised)
{
	of_guest(g)->interrupt = raised;
}

static void interrupt_message(struct bh_guest *g, unsigned vector)
{
	(void)g, (void)vector; /* our guest does not enable MSI */
}

static uint64_t now_us(struct bh_guest *g)
{
	struct timespec t;

	(void)g;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void run_at(struct bh_guest *g, uint64_t at_us)
{
	of_guest(g)->run_at = at_us;
}

static const struct bh_guest_ops guest_ops = {
	.interrupt_level = interrupt_level, .interrupt_message = interrupt_message, .now_us = now_us, .run_at = run_at,
};

/* --- what the processor does to the machine (machine.h) ------------------------------------- */

uint8_t *machine_ram(struct machine *m)
{
	return m->ram;
}

uint64_t machine_now_us(const struct machine *m)
{
	(void)m;
	return now_us(NULL);
}

static bool is_usb(uint16_t port, unsigned size)
{
	return port >= USB_PORT && port + size <= USB_PORT + 32;
}

uint32_t machine_in(struct machine *m, uint16_t port, unsigned size)
{
	uint8_t bytes[4] = {0xff, 0xff, 0xff, 0xff};

	if (is_usb(port, size))
		bh_pci_bar_read(bh_uhci_pci(m->uhci), USB_BAR, port - USB_PORT, bytes, size);
	return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

void machine_out(struct machine *m, uint16_t port, unsigned size, uint32_t value)
{
	uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24)};

	if (is_usb(port, size))
		bh_pci_bar_write(bh_uhci_pci(m->uhci), USB_BAR, port - USB_PORT, bytes, size);
}

/* Sleeps until the controller's time, the end of the halt, or something in libuv's loop. */
static void sleep_until(struct machine *m, uint64_t end_us)
{
	uint64_t now = now_us(NULL), until = BH_MIN(m->run_at, end_us), us = until > now ? until - now : 0;
	int fd = uv_backend_fd(&m->loop), loop_ms = uv_backend_timeout(&m->loop); /* -1: it can wait */
	struct timespec timeout;
	fd_set loop;

	if (loop_ms >= 0)
		us = BH_MIN(us, 1000u * (uint64_t)loop_ms);
	timeout = (struct timespec){.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000 * 1000)};
	FD_ZERO(&loop);
	FD_SET(fd, &loop);
	pselect(fd + 1, &loop, NULL, NULL, &timeout, NULL);
}

bool machine_halt(struct machine *m, uint64_t timeout_us)
{
	uint64_t end = now_us(NULL) + timeout_us;

	while (!m->interrupt && now_us(NULL) < end) {
		uv_run(&m->loop, UV_RUN_NOWAIT);
		if (m->run_at <= now_us(NULL)) {
			m->run_at = NEVER; /* it says when it wants to run again */
			bh_uhci_run(m->uhci);
		} else {
			sleep_until(m, end);
		}
	}
	return m->interrupt;
}

/* --- putting it together, and taking it apart ------------------------------------------------ */

static void machine_init(struct machine *m, const char *image)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;
	struct bh_disk_config disk_config = {.path = image, .speed = BH_SPEED_FULL};
	struct bh_device *disk;
	char error[256];

	*m = (struct machine){.guest.ops = &guest_ops, .run_at = NEVER};
	m->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (m->ram == MAP_FAILED || uv_loop_init(&m->loop))
		errx(1, "out of memory");
	bh_memory_init(&m->guest.memory);
	if (bh_memory_add(&m->guest.memory, 0, RAM_SIZE, m->ram, BH_MEMORY_READ | BH_MEMORY_WRITE | BH_MEMORY_OURS))
		errx(1, "out of memory");
	if (bh_disk_create(&m->loop, &disk_config, &disk, error, sizeof(error)))
		errx(1, "%s", error);
	/* Nobody but this process writes to the memory: the MMU can tell what changed ([0085]). */
	if (!bh_trace_enable(&m->guest.memory, BH_TRACE_USERFAULTFD | BH_TRACE_MPROTECT, &m->traces))
		disk->verification = (struct bh_verification){.what = BH_VERIFY_TRACE, .when = BH_VERIFY_BOUNDED};
	m->uhci = bh_uhci_create(&m->guest, &config);
	if (!m->uhci || bh_bus_attach(bh_uhci_bus(m->uhci), 0, disk))
		errx(1, "out of memory");
	/* A firmware would do this: ports and bus mastering on. */
	bh_pci_config_write(bh_uhci_pci(m->uhci), 0x04, (const uint8_t[]){0x05, 0x00}, 2);
}

static void closed(void *data, int error)
{
	((struct machine *)data)->close_error = error;
}

static void close_disk(struct bh_device *disk, void *data)
{
	bh_disk_close(disk, closed, data);
}

/* 0, or the negative errno of what could not be brought to the host's disk. */
static int machine_finish(struct machine *m)
{
	bh_bus_remove(bh_uhci_bus(m->uhci), 0, close_disk, m);
	bh_uhci_destroy(m->uhci);
	uv_run(&m->loop, UV_RUN_DEFAULT); /* until the disk is closed */
	uv_loop_close(&m->loop);
	bh_memory_finish(&m->guest.memory);
	munmap(m->ram, RAM_SIZE);
	return m->close_error;
}

int main(int argc, char **argv)
{
	static struct machine m;
	struct bh_engine_counters c;
	bool good;

	if (argc != 2)
		errx(1, "say \"emulator IMAGE\" (which is overwritten)");
	machine_init(&m, argv[1]);
	good = guest_main(&m);
	c = bh_uhci_bus(m.uhci)->engine.counters;
	printf("emulator: %llu packets in %llu batches, writes %s\n", (unsigned long long)(c.packets_in + c.packets_out),
	       (unsigned long long)c.batches, m.traces ? "traced" : "not traced");
	if (machine_finish(&m))
		errx(1, "%s: %s", argv[1], strerror(-m.close_error));
	return !good;
}
