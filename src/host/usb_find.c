/*
 * What is plugged into this host, read from /sys/bus/usb/devices. libusb could tell, too, but
 * hears of what comes and goes only where a udev daemon runs, which in containers and small
 * systems none does.
 */
#include <host/usb.h>

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/util.h>

#define DEVICES "/sys/bus/usb/devices"

#define MOST_DEVICES 4096u /* of a machine with 32 buses of 127 devices */

/* One attribute, its end trimmed, nothing in it that a terminal would act on. False: there is none. */
static bool read_text(const char *name, const char *attribute, char *text, size_t size)
{
	char path[512];
	ssize_t n;
	int fd;

	text[0] = 0;
	snprintf(path, sizeof(path), DEVICES "/%s/%s", name, attribute);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, size - 1);
	close(fd);
	if (n < 0)
		n = 0;
	while (n > 0 && isspace((unsigned char)text[n - 1]))
		n--;
	text[n] = 0;
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	return true;
}

static bool read_number(const char *name, const char *attribute, int base, unsigned long most, unsigned *ret)
{
	char text[32], *end;
	unsigned long value;

	if (!read_text(name, attribute, text, sizeof(text)) || !isxdigit((unsigned char)text[0]))
		return false;
	value = strtoul(text, &end, base);
	if (*end || value > most)
		return false;
	*ret = (unsigned)value;
	return true;
}

static void read_speed(struct bh_usb_found *f)
{
	static const struct {
		const char *text;
		enum bh_speed speed;
	} speeds[] = {
		{"1.5", BH_SPEED_LOW}, {"12", BH_SPEED_FULL}, {"480", BH_SPEED_HIGH}, {"5000", BH_SPEED_SUPER},
		{"10000", BH_SPEED_SUPER}, {"20000", BH_SPEED_SUPER},
	};
	char text[16];

	read_text(f->name, "speed", text, sizeof(text));
	for (size_t i = 0; i < BH_COUNT(speeds); i++)
		if (!strcmp(text, speeds[i].text)) {
			f->known_speed = true;
			f->speed = speeds[i].speed;
		}
}

static bool read_device(const char *name, struct bh_usb_found *f)
{
	unsigned vendor, product, class;

	*f = (struct bh_usb_found){0};
	if (strlen(name) >= sizeof(f->name))
		return false;
	strcpy(f->name, name);
	if (!read_number(name, "busnum", 10, 999, &f->bus) || !read_number(name, "devnum", 10, 999, &f->address) ||
	    !read_number(name, "idVendor", 16, 0xffff, &vendor) || !read_number(name, "idProduct", 16, 0xffff, &product) ||
	    !read_number(name, "bDeviceClass", 16, 0xff, &class) ||
	    !read_text(name, "devpath", f->port, sizeof(f->port)))
		return false;
	f->vendor = (uint16_t)vendor;
	f->product = (uint16_t)product;
	f->class = (uint8_t)class;
	read_text(name, "manufacturer", f->manufacturer, sizeof(f->manufacturer));
	read_text(name, "product", f->product_name, sizeof(f->product_name));
	read_text(name, "serial", f->serial, sizeof(f->serial));
	read_speed(f);
	return true;
}

static void add_driver(struct bh_usb_found *f, const char *driver)
{
	size_t used = strlen(f->drivers), length = strlen(driver);

	for (const char *p = f->drivers; (p = strstr(p, driver)); p += length)
		if ((p == f->drivers || p[-1] == ' ') && (!p[length] || p[length] == ','))
			return;
	if (used + length + 3 <= sizeof(f->drivers))
		sprintf(f->drivers + used, "%s%s", used ? ", " : "", driver);
}

/* An interface, "1-1.4:1.0": whose driver is it? */
static void read_driver(const char *name, struct bh_usb_found *all, size_t count)
{
	size_t length = strcspn(name, ":");
	char path[512], target[256];
	const char *driver;
	ssize_t n;

	snprintf(path, sizeof(path), DEVICES "/%s/driver", name);
	n = readlink(path, target, sizeof(target) - 1);
	if (n <= 0)
		return;
	target[n] = 0;
	driver = strrchr(target, '/');
	for (size_t i = 0; i < count; i++)
		if (strlen(all[i].name) == length && !memcmp(all[i].name, name, length))
			add_driver(&all[i], driver ? driver + 1 : target);
}

/* "1.4.2" number by number. */
static int compare_ports(const char *a, const char *b)
{
	while (*a && *b) {
		char *after_a, *after_b;
		unsigned long x = strtoul(a, &after_a, 10), y = strtoul(b, &after_b, 10);

		if (x != y)
			return x < y ? -1 : 1;
		if (after_a == a || after_b == b)
			break;
		a = after_a + (*after_a == '.');
		b = after_b + (*after_b == '.');
	}
	return strcmp(a, b);
}

static int compare(const void *a, const void *b)
{
	const struct bh_usb_found *x = a, *y = b;

	if (x->bus != y->bus)
		return x->bus < y->bus ? -1 : 1;
	return compare_ports(x->port, y->port);
}

/* Calls for every entry; a device, or an interface of one. */
static int read_all(DIR *d, struct bh_usb_found **all, size_t *count)
{
	struct dirent *e;
	size_t room = 0;

	while ((e = readdir(d))) {
		if (e->d_name[0] == '.' || strchr(e->d_name, ':'))
			continue;
		if (*count == room) {
			struct bh_usb_found *more = room < MOST_DEVICES ? realloc(*all, (room + 32) * sizeof(**all)) : NULL;

			if (!more)
				return -ENOMEM;
			*all = more;
			room += 32;
		}
		*count += read_device(e->d_name, &(*all)[*count]);
	}
	rewinddir(d);
	while ((e = readdir(d)))
		if (strchr(e->d_name, ':'))
			read_driver(e->d_name, *all, *count);
	return 0;
}

int bh_usb_find_all(struct bh_usb_found **ret, size_t *ret_count)
{
	struct bh_usb_found *all = NULL;
	size_t count = 0;
	DIR *d = opendir(DEVICES);
	int r;

	if (!d)
		return errno == ENOMEM ? -ENOMEM : -ENOENT;
	r = read_all(d, &all, &count);
	closedir(d);
	if (r) {
		free(all);
		return r;
	}
	if (count)
		qsort(all, count, sizeof(*all), compare);
	*ret = all;
	*ret_count = count;
	return 0;
}

bool bh_usb_is_there(const struct bh_usb_found *f)
{
	unsigned address;

	return read_number(f->name, "devnum", 10, 999, &address) && address == f->address;
}

bool bh_usb_fits(const struct bh_usb_found *f, const struct bh_usb_selector *s)
{
	return (s->vendor < 0 || f->vendor == s->vendor) && (s->product < 0 || f->product == s->product) &&
	       (!s->bus || f->bus == s->bus) && (!s->address || f->address == s->address) &&
	       (!s->port || !strcmp(f->port, s->port)) && (!s->serial || !strcmp(f->serial, s->serial));
}

char *bh_usb_node(const struct bh_usb_found *f, char text[BH_USB_NODE_SIZE])
{
	snprintf(text, BH_USB_NODE_SIZE, "/dev/bus/usb/%03u/%03u", f->bus, f->address);
	return text;
}
