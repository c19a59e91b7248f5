/*
 * Lists the USB devices of this machine: what each is, who has it, whether we may have it, and
 * how that is said to "serve". Nothing is opened, nothing is asked of a device.
 */
#include "list_devices.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/util.h>
#include <host/usb_list.h>

#include "say.h"

/* A full-speed port carries no faster ones. */
#define FASTEST_MBITS 12u

/* --- strangers' texts ------------------------------------------------------------------------ */

/* The code point at the beginning, and its bytes; 0: there is none. */
static unsigned decode(const unsigned char *s, uint32_t *ret)
{
	static const struct {
		unsigned char mask, lead;
		uint32_t least;
	} forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};

	for (unsigned n = 0; n < BH_COUNT(forms); n++) {
		uint32_t c = *s & ~forms[n].mask & 0xff;

		if ((*s & forms[n].mask) != forms[n].lead)
			continue;
		for (unsigned i = 1; i <= n; i++) {
			if ((s[i] & 0xc0) != 0x80)
				return 0;
			c = c << 6 | (s[i] & 0x3f);
		}
		*ret = c;
		return c < forms[n].least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n + 1;
	}
	return 0;
}

/* Controls, separators of lines, what is not seen, and what turns the direction of writing. */
static bool is_plain(uint32_t c)
{
	return c >= 0x20 && (c < 0x7f || c > 0x9f) && !(c >= 0x200b && c <= 0x200f) && !(c >= 0x2028 && c <= 0x202e) &&
	       !(c >= 0x2060 && c <= 0x206f) && c != 0x061c && c != 0xfeff && !(c >= 0xfff9 && c <= 0xfffb);
}

char *bh_list_clean(char *text)
{
	unsigned char *from = (unsigned char *)text, *to = from;

	while (*from) {
		uint32_t c;
		unsigned n = decode(from, &c);

		if (n && is_plain(c)) {
			memmove(to, from, n);
			to += n;
		} else {
			*to++ = '?';
		}
		from += n ? n : 1;
	}
	*to = 0;
	return text;
}

/* --- what there is to say of a device ------------------------------------------------------------ */

struct row {
	struct bh_usb_entry entry; /* its texts are clean */
	char node[BH_USB_NODE_SIZE];
	char drivers[256];
	char rule[256];   /* empty: we may open it as it is */
	char option[128]; /* what "serve" is told; empty: it cannot be passed on */
	bool hub, openable, too_fast;
};

static const char *speed_name(unsigned mbits)
{
	static const struct {
		unsigned mbits;
		const char *name;
	} names[] = {{1, "low"}, {12, "full"}, {480, "high"}, {5000, "super"}};

	for (size_t i = 0; i < BH_COUNT(names); i++)
		if (names[i].mbits == mbits)
			return names[i].name;
	return mbits > 5000 ? "super+" : "?";
}

/* For the group that we are in, and for whoever sits before the machine. */
static void make_rule(struct row *r)
{
	const struct group *g = getgrgid(getegid());
	const char *name = g && !strpbrk(g->gr_name, "\"\\\n") ? g->gr_name : NULL;
	int n = snprintf(r->rule, sizeof(r->rule), "SUBSYSTEM==\"usb\", ATTR{idVendor}==\"%04x\", ATTR{idProduct}==\"%04x\", ",
	                 r->entry.vendor, r->entry.product);

	if (name)
		n += snprintf(r->rule + n, sizeof(r->rule) - (size_t)n, "MODE=\"0660\", GROUP=\"%.100s\", ", name);
	snprintf(r->rule + n, sizeof(r->rule) - (size_t)n, "TAG+=\"uaccess\"");
}

static void fill(struct row *r, const char *directory, const struct bh_usb_entry *e)
{
	*r = (struct row){.entry = *e, .hub = e->device_class == BH_USB_HUB_CLASS, .too_fast = e->mbits > FASTEST_MBITS};
	bh_list_clean(r->entry.manufacturer);
	bh_list_clean(r->entry.product_name);
	bh_list_clean(r->entry.serial);
	bh_usb_entry_node(e, r->node);
	bh_usb_entry_drivers(directory, e, r->drivers, sizeof(r->drivers));
	bh_list_clean(r->drivers);
	r->openable = !faccessat(AT_FDCWD, r->node, R_OK | W_OK, AT_EACCESS);
	if (r->hub)
		return;
	if (!r->openable)
		make_rule(r);
	snprintf(r->option, sizeof(r->option), "usb,hostbus=%u,hostport=%s", e->bus, e->port);
}

/* --- as a table -------------------------------------------------------------------------------------- */

static void print_row(const struct row *r, FILE *to)
{
	const struct bh_usb_entry *e = &r->entry;

	fprintf(to, "%-10s %03u/%03u  %04x:%04x  %-6s ", e->name, e->bus, e->address, e->vendor, e->product,
	        speed_name(e->mbits));
	fprintf(to, "%-16s %s%s%s", *r->drivers ? r->drivers : "-", e->manufacturer,
	        *e->manufacturer && *e->product_name ? " " : "", e->product_name);
	fprintf(to, *e->serial ? ", serial %s\n" : "%s\n", e->serial);
	if (r->hub)
		return;
	if (r->too_fast)
		fprintf(to, "           too fast for a guest's full-speed port: it would not be taken\n");
	else
		fprintf(to, "           --device %s\n", r->option);
	if (!r->openable)
		fprintf(to, "           not ours to open (%s); a udev rule: %s\n", r->node, r->rule);
}

static void print_table(const struct row *rows, size_t count, FILE *to)
{
	bool refused = false;

	if (!count) {
		fprintf(to, "There are no USB devices here.\n");
		return;
	}
	fprintf(to, "%-10s %-7s  %-9s  %-6s %-16s %s\n", "PORT", "BUS/DEV", "ID", "SPEED", "DRIVER", "DEVICE");
	for (size_t i = 0; i < count; i++) {
		print_row(&rows[i], to);
		refused |= *rows[i].rule;
	}
	if (refused)
		fprintf(to, "\nRules go to a file such as /etc/udev/rules.d/70-bulkhead.rules; then, as root:\n"
		            "  udevadm control --reload && udevadm trigger --subsystem-match=usb\n");
}

/* --- as JSON -------------------------------------------------------------------------------------------- */

static json_t *text_or_null(const char *text)
{
	return *text ? json_string(text) : json_null();
}

static json_t *id_json(uint16_t id)
{
	char text[8];

	snprintf(text, sizeof(text), "%04x", id);
	return json_string(text);
}

static json_t *drivers_json(const char *drivers)
{
	json_t *list = json_array();

	while (*drivers) {
		size_t length = strcspn(drivers, ",");

		json_array_append_new(list, json_stringn(drivers, length));
		drivers += length + (drivers[length] == ',');
	}
	return list;
}

static json_t *row_json(const struct row *r)
{
	const struct bh_usb_entry *e = &r->entry;

	return json_pack("{s:s, s:i, s:i, s:s, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:b, s:b, s:b, s:o, s:o}", "port", e->name,
	                 "bus", (int)e->bus, "address", (int)e->address, "node", r->node, "vendor", id_json(e->vendor),
	                 "product", id_json(e->product), "speed", speed_name(e->mbits), "manufacturer",
	                 text_or_null(e->manufacturer), "name", text_or_null(e->product_name), "serial",
	                 text_or_null(e->serial), "drivers", drivers_json(r->drivers), "hub", (int)r->hub, "too_fast",
	                 (int)r->too_fast, "openable", (int)r->openable, "udev_rule", text_or_null(r->rule), "device",
	                 text_or_null(r->option));
}

static void print_json(const struct row *rows, size_t count, FILE *to)
{
	json_t *list = json_array(), *all;

	for (size_t i = 0; i < count; i++)
		json_array_append_new(list, row_json(&rows[i]));
	all = json_pack("{s:o}", "devices", list);
	json_dumpf(all, to, JSON_INDENT(2));
	fputc('\n', to);
	json_decref(all);
}

/* --- all of it --------------------------------------------------------------------------------------------- */

int bh_list_usb(const struct bh_list_config *c, FILE *to)
{
	struct bh_usb_entry *entries = NULL;
	size_t found, count = 0;
	struct row *rows;
	int r = bh_usb_scan(c->directory, &entries, &found);

	if (r == -ENOENT && c->without && !access(c->without, F_OK))
		found = 0; /* sysfs, of a kernel that drives no USB */
	else if (r)
		return r;
	rows = calloc(found + 1, sizeof(*rows));
	if (!rows) {
		free(entries);
		return -ENOMEM;
	}
	for (size_t i = 0; i < found; i++)
		if (c->all || entries[i].device_class != BH_USB_HUB_CLASS)
			fill(&rows[count++], c->directory, &entries[i]);
	(c->json ? print_json : print_table)(rows, count, to);
	free(rows);
	free(entries);
	return 0;
}

static const char usage[] =
	"Usage: bulkhead devices [--all] [--json]\n"
	"       bulkhead devices --usbip HOST[:PORT] [--json]\n"
	"\n"
	"Lists the USB devices of this machine that 'bulkhead serve --device usb,...' can take: the\n"
	"port, bus and address, vendor and product, speed, the kernel's drivers, what the device says\n"
	"it is; what to write to have it; and whether we may open it, or which udev rule would let us.\n"
	"Or those that another machine exports by USB/IP.\n"
	"\n"
	"  --all     hubs, too\n"
	"  --json    for programs; strings of the device have their control characters replaced there, too\n"
	"  --usbip HOST[:PORT]   what that machine exports; default port 3240\n"
	"  --help\n"
	"\n"
	"Exit status: 0, 1 if there is no answer, or no sysfs to look into, 2 for a wrong option.\n";

static int wrong(const char *what)
{
	bh_say("devices: unexpected '%s'; see 'bulkhead devices --help'", what);
	return 2;
}

int bh_list_devices(int argc, char **argv)
{
	static const struct option options[] = {
		{"all", no_argument, NULL, 'a'}, {"json", no_argument, NULL, 'j'}, {"usbip", required_argument, NULL, 'u'},
		{"help", no_argument, NULL, 'h'}, {0}};
	const char *usbip = NULL;
	struct bh_list_config c = {.directory = BH_USB_DEVICES, .without = "/sys/bus"};
	int option, r;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (option) {
		case 'a':
			c.all = true;
			break;
		case 'j':
			c.json = true;
			break;
		case 'u':
			usbip = optarg;
			break;
		case ':':
			bh_say("devices: '%s' needs a value; see 'bulkhead devices --help'", argv[optind - 1]);
			return 2;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			return wrong(argv[optind - 1]);
		}
	}
	if (optind < argc)
		return wrong(argv[optind]);
	if (usbip)
		return bh_list_usbip(usbip, c.json);
	r = bh_list_usb(&c, stdout);
	if (r) {
		bh_say("devices: " BH_USB_DEVICES ": %s; is /sys mounted?", strerror(-r));
		return 1;
	}
	return fflush(stdout) ? 1 : 0;
}
