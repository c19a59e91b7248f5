/*
 * The UEFI program that test_ovmf.py boots: through the firmware's own file protocol it reads
 * \DATA.BIN of the volume it was started from, says the checksum on COM1, writes what it read,
 * every byte inverted, to \BACK.BIN, and ends the machine through isa-debug-exit.
 *
 * Compiled alone, position-independent and without any relocation, and linked as PE32+. Of the
 * firmware's tables only what is called is named; the rest is room ("UEFI Specification 2.10",
 * sections 4.3, 4.4, 9.1, 13.4, 13.5).
 */
#include <stdint.h>

#define EFIAPI      __attribute__((ms_abi))
#define COM1        0x3f8
#define DEBUG_EXIT  0xf4
#define EXIT_GOOD   0x10
#define EXIT_BAD    0x11
#define MODE_READ   1ull
#define MODE_WRITE  2ull
#define MODE_CREATE (1ull << 63)

struct guid {
	uint32_t a;
	uint16_t b, c;
	uint8_t d[8];
};

struct file {
	uint64_t revision;
	uint64_t(EFIAPI *open)(struct file *, struct file **, const uint16_t *name, uint64_t mode, uint64_t attributes);
	uint64_t(EFIAPI *close)(struct file *);
	void *delete;
	uint64_t(EFIAPI *read)(struct file *, uint64_t *size, void *);
	uint64_t(EFIAPI *write)(struct file *, uint64_t *size, const void *);
	void *get_position, *set_position, *get_info, *set_info;
	uint64_t(EFIAPI *flush)(struct file *);
};

struct file_system {
	uint64_t revision;
	uint64_t(EFIAPI *open_volume)(struct file_system *, struct file **);
};

struct loaded_image {
	uint32_t revision;
	void *parent, *system_table, *device;
};

struct boot_services {
	uint8_t header[24];
	void *before[16];
	uint64_t(EFIAPI *handle_protocol)(void *handle, const struct guid *, void **);
};

struct system_table {
	uint8_t header[24];
	void *vendor;
	uint32_t revision;
	void *console[6], *runtime;
	struct boot_services *boot;
};

static const struct guid loaded_image_guid = {
	0x5b1b31a1, 0x9562, 0x11d2, {0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
static const struct guid file_system_guid = {
	0x964e5b22, 0x6459, 0x11d2, {0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};

static uint8_t data[2 << 20]; /* the largest file */

static void out(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void say(const char *text)
{
	while (*text)
		out(COM1, (uint8_t)*text++);
}

static void say_hex(uint64_t value, int digits)
{
	while (digits--)
		out(COM1, (uint8_t) "0123456789abcdef"[value >> 4 * digits & 15]);
}

static void check(uint64_t status, const char *what)
{
	if (!status)
		return;
	say("BH failed=");
	say(what);
	say(" ");
	say_hex(status, 16);
	say("\n");
	out(DEBUG_EXIT, EXIT_BAD);
}

/* The rest of a file, in pieces that are no multiple of anything; returns its length. */
static uint64_t read_all(struct file *f)
{
	uint64_t length = 0, n;

	do {
		n = sizeof(data) - length;
		if (n > 37777)
			n = 37777;
		check(f->read(f, &n, data + length), "read");
		length += n;
	} while (n);
	return length;
}

/* As test_seabios.py has it: order matters, so that a misplaced packet shows. */
static uint32_t checksum(uint64_t length)
{
	uint32_t sum = 0, word;

	for (uint64_t i = 0; i + 4 <= length; i += 4) {
		word = (uint32_t)data[i] | (uint32_t)data[i + 1] << 8 | (uint32_t)data[i + 2] << 16 |
		       (uint32_t)data[i + 3] << 24;
		sum = (sum << 5 | sum >> 27) + word;
	}
	return sum;
}

static void write_back(struct file *root, uint64_t length)
{
	struct file *f;
	uint64_t n = length;

	for (uint64_t i = 0; i < length; i++)
		data[i] ^= 0xff;
	check(root->open(root, &f, u"BACK.BIN", MODE_READ | MODE_WRITE | MODE_CREATE, 0), "create");
	check(f->write(f, &n, data), "write");
	check(n != length, "write it all");
	check(f->flush(f), "flush");
	check(f->close(f), "close");
}

uint64_t EFIAPI efi_main(void *image, struct system_table *system)
{
	struct loaded_image *loaded;
	struct file_system *volume;
	struct file *root, *f;
	uint64_t length;

	check(system->boot->handle_protocol(image, &loaded_image_guid, (void **)&loaded), "loaded image");
	check(system->boot->handle_protocol(loaded->device, &file_system_guid, (void **)&volume), "file system");
	check(volume->open_volume(volume, &root), "volume");
	check(root->open(root, &f, u"DATA.BIN", MODE_READ, 0), "open");
	length = read_all(f);
	say("BH length=");
	say_hex(length, 8);
	say("\nBH sum=");
	say_hex(checksum(length), 8);
	say("\n");
	write_back(root, length);
	out(DEBUG_EXIT, EXIT_GOOD);
	return 0;
}
