/* Looking for devices in sysfs: see host/usb_list.h. */
#include <host/usb_list.h>

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <base/util.h>

/* More than any machine has. */
#define ENTRIES_MAX 4096u

/* Character devices of usbfs: minor = (bus - 1) * 128 + address - 1 (Linux, devices.txt). */
#define BUS_ADDRESSES 128u

/* --- attributes -------------------------------------------------------------------------------- */

/* The first line of a file, cut to size. What is no plain file waits for nobody. */
static bool read_text(int directory, const char *device, const char *attribute, char *text, size_t size)
{
	char path[192];
	ssize_t n;
	int fd;

	*text = 0;
	if (snprintf(path, sizeof(path), "%s/%s", device, attribute) >= (int)sizeof(path))
		return false;
	fd = openat(directory, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return false;
	n = read(fd, text, size - 1);
	close(fd);
	if (n < 0)
		n = 0;
	text[n] = 0;
	text[strcspn(text, "\n")] = 0;
	return n > 0;
}

static bool read_number(int directory, const char *device, const char *attribute, int base, unsigned long most,
                        unsigned long *ret)
{
	char text[32], *end;
	unsigned long value;

	if (!read_text(directory, device, attribute, text, sizeof(text)) || !isxdigit((unsigned char)*text))
		return false;
	errno = 0;
	value = strtoul(text, &end, base);
	if (errno || *end || value > most)
		return false;
	*ret = value;
	return true;
}

/* --- names --------------------------------------------------------------------------------------- */

/* "BUS-PORT.PORT...", or "usbBUS" for a root hub. */
static bool parse_name(const char *name, struct bh_usb_entry *e)
{
	bool root = !strncmp(name, "usb", 3);
	const char *number = root ? name + 3 : name;
	char *end;
	unsigned long bus;

	if (strlen(name) >= sizeof(e->name) || !isdigit((unsigned char)*number))
		return false;
	bus = strtoul(number, &end, 10);
	if (bus == 0 || bus > 999 || (root ? *end : *end != '-' || !isdigit((unsigned char)end[1])))
		return false;
	if (!root && end[1 + strspn(end + 1, "0123456789.")])
		return false; /* an interface of it: "1-1.4:1.0" */
	snprintf(e->name, sizeof(e->name), "%s", name);
	snprintf(e->port, sizeof(e->port), "%s", root ? "0" : end + 1);
	e->bus = (unsigned)bus;
	return true;
}

static int compare_ports(const char *a, const char *b)
{
	char *a_end, *b_end;

	for (;; a = a_end + 1, b = b_end + 1) {
		unsigned long x = strtoul(a, &a_end, 10), y = strtoul(b, &b_end, 10);

		if (x != y)
			return x < y ? -1 : 1;
		if (!*a_end || !*b_end)
			return !!*a_end - !!*b_end;
	}
}

static int compare(const void *a, const void *b)
{
	const struct bh_usb_entry *x = a, *y = b;

	if (x->bus != y->bus)
		return x->bus < y->bus ? -1 : 1;
	return compare_ports(x->port, y->port);
}

/* --- devices --------------------------------------------------------------------------------------- */

static bool read_entry(int directory, const char *name, struct bh_usb_entry *e)
{
	unsigned long address, vendor, product, device_class;
	char speed[16];

	*e = (struct bh_usb_entry){0};
	if (!parse_name(name, e))
		return false;
	if (!read_number(directory, name, "devnum", 10, BUS_ADDRESSES - 1, &address) ||
	    !read_number(directory, name, "idVendor", 16, UINT16_MAX, &vendor) ||
	    !read_number(directory, name, "idProduct", 16, UINT16_MAX, &product))
		return false;
	e->address = (unsigned)address;
	e->vendor = (uint16_t)vendor;
	e->product = (uint16_t)product;
	if (read_number(directory, name, "bDeviceClass", 16, UINT8_MAX, &device_class))
		e->device_class = (uint8_t)device_class;
	if (read_text(directory, name, "speed", speed, sizeof(speed)))
		e->mbits = (unsigned)BH_MIN(strtoul(speed, NULL, 10), 1000000ul);
	read_text(directory, name, "serial", e->serial, sizeof(e->serial));
	read_text(directory, name, "manufacturer", e->manufacturer, sizeof(e->manufacturer));
	read_text(directory, name, "product", e->product_name, sizeof(e->product_name));
	return true;
}

static int add(struct bh_usb_entry **entries, size_t *count, size_t *room, const struct bh_usb_entry *e)
{
	if (*count == *room) {
		size_t more = *room ? 2 * *room : 16;
		struct bh_usb_entry *grown = realloc(*entries, more * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		*entries = grown;
		*room = more;
	}
	(*entries)[(*count)++] = *e;
	return 0;
}

int bh_usb_scan(const char *directory, struct bh_usb_entry **ret, size_t *ret_count)
{
	struct bh_usb_entry *entries = NULL, e;
	size_t count = 0, room = 0;
	struct dirent *d;
	int r = 0;
	DIR *dir = opendir(directory);

	if (!dir)
		return -errno;
	while (!r && count < ENTRIES_MAX && (d = readdir(dir)))
		if (read_entry(dirfd(dir), d->d_name, &e))
			r = add(&entries, &count, &room, &e);
	closedir(dir);
	if (r) {
		free(entries);
		return r;
	}
	if (count)
		qsort(entries, count, sizeof(*entries), compare);
	*ret = entries;
	*ret_count = count;
	return 0;
}

bool bh_usb_entry_present(const char *directory, const struct bh_usb_entry *e)
{
	unsigned long address;
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool there = fd >= 0 && read_number(fd, e->name, "devnum", 10, BUS_ADDRESSES - 1, &address) &&
	             (!address || address == e->address);

	if (fd >= 0)
		close(fd);
	return there;
}

/* --- drivers --------------------------------------------------------------------------------------- */

/* Appends a name to a list, once. */
static void append_driver(char *text, size_t size, const char *driver)
{
	size_t used = strlen(text), length = strlen(driver);

	for (const char *p = text; (p = strstr(p, driver)); p += length)
		if ((p == text || p[-1] == ',') && (p[length] == ',' || !p[length]))
			return;
	snprintf(text + used, size - used, "%s%s", used ? "," : "", driver);
}

void bh_usb_entry_drivers(const char *directory, const struct bh_usb_entry *e, char *text, size_t size)
{
	size_t length = strlen(e->name);
	struct dirent *d;
	DIR *dir = opendir(directory);

	*text = 0;
	while (dir && (d = readdir(dir))) {
		char path[NAME_MAX + sizeof("/driver")], link[256];
		ssize_t n;

		if (strncmp(d->d_name, e->name, length) || d->d_name[length] != ':')
			continue;
		snprintf(path, sizeof(path), "%s/driver", d->d_name);
		n = readlinkat(dirfd(dir), path, link, sizeof(link) - 1);
		if (n <= 0)
			continue;
		link[n] = 0;
		append_driver(text, size, strrchr(link, '/') ? strrchr(link, '/') + 1 : link);
	}
	if (dir)
		closedir(dir);
}

void bh_usb_entry_node(const struct bh_usb_entry *e, char text[BH_USB_NODE_SIZE])
{
	snprintf(text, BH_USB_NODE_SIZE, "/dev/bus/usb/%03u/%03u", e->bus % 1000, e->address % 1000);
}

/* --- which one is meant ---------------------------------------------------------------------------- */

/* The place on the bus that a node stands for. */
static bool node_place(const char *node, unsigned *bus, unsigned *address)
{
	struct stat s;

	if (stat(node, &s) || !S_ISCHR(s.st_mode) || major(s.st_rdev) != BH_USB_MAJOR)
		return false;
	*bus = minor(s.st_rdev) / BUS_ADDRESSES + 1;
	*address = minor(s.st_rdev) % BUS_ADDRESSES + 1;
	return true;
}

static bool matches(const struct bh_usb_selector *s, const struct bh_usb_entry *e)
{
	return e->address && e->device_class != BH_USB_HUB_CLASS && (!s->by_vendor || s->vendor == e->vendor) &&
	       (!s->by_product || s->product == e->product) && (!s->bus || s->bus == e->bus) &&
	       (!s->address || s->address == e->address) && (!s->port || !strcmp(s->port, e->port)) &&
	       (!s->serial || !strcmp(s->serial, e->serial));
}

const struct bh_usb_entry *bh_usb_choose(const struct bh_usb_selector *s, const struct bh_usb_entry *entries,
                                         size_t count, size_t *ret_matching)
{
	struct bh_usb_selector wanted = *s;
	const struct bh_usb_entry *first = NULL;
	size_t matching = 0;

	*ret_matching = 0;
	if (s->node && !node_place(s->node, &wanted.bus, &wanted.address))
		return NULL;
	for (size_t i = 0; i < count; i++) {
		if (!matches(&wanted, &entries[i]))
			continue;
		matching++;
		if (!first)
			first = &entries[i];
	}
	*ret_matching = matching;
	return first;
}
