/*
 * "bulkhead devices": what is plugged into this host, how to name it to --device, who uses it,
 * and whether we may.
 */
#include "list.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <host/usb.h>

#define HUB 9 /* bDeviceClass (USB 2.0, 11.23.1) */

static const char usage[] =
	"Usage: bulkhead devices [--all] [--json]\n"
	"       bulkhead devices --usbip HOST[:PORT] [--json]\n"
	"\n"
	"Lists the USB devices of this host, and what to say to --device to have one: by\n"
	"bus and port, which stay the same however often it is plugged in. Or those that\n"
	"another machine exports by USB/IP.\n"
	"\n"
	"  --all    root hubs and hubs, too, which cannot be attached\n"
	"  --json   as one JSON object, for programs\n"
	"  --usbip HOST[:PORT]   what that machine exports; default port 3240\n"
	"  --help\n"
	"\n"
	"Exit status: 0, also where there is no device; 1 if they cannot be listed; 2 for a wrong option.\n";

static const char *speed_name(const struct bh_usb_found *f)
{
	static const char *const names[] = {"low", "full", "high", "super"};

	return f->known_speed ? names[f->speed] : "unknown";
}

static bool may_open(const struct bh_usb_found *f)
{
	char node[BH_USB_NODE_SIZE];

	return access(bh_usb_node(f, node), R_OK | W_OK) == 0;
}

/* What --device takes for it. */
static void option_for(const struct bh_usb_found *f, char text[96])
{
	snprintf(text, 96, "usb,hostbus=%u,hostport=%s", f->bus, f->port);
}

static void rule_for(const struct bh_usb_found *f, char text[192])
{
	snprintf(text, 192, "SUBSYSTEM==\"usb\", ATTR{idVendor}==\"%04x\", ATTR{idProduct}==\"%04x\", MODE=\"0660\", TAG+=\"uaccess\"",
	         f->vendor, f->product);
}

static void print_one(const struct bh_usb_found *f)
{
	char option[96], rule[192], node[BH_USB_NODE_SIZE];

	printf("%-10s %04x:%04x  %-7s bus %u, address %u", f->name, f->vendor, f->product, speed_name(f), f->bus, f->address);
	printf("%s%s%s%s", f->manufacturer[0] ? "  " : "", f->manufacturer, f->product_name[0] ? "  " : "", f->product_name);
	printf("%s%s\n", f->serial[0] ? "  serial " : "", f->serial);
	if (f->class == HUB)
		return;
	option_for(f, option);
	printf("           --device %s", option);
	printf("%s%s%s\n", f->drivers[0] ? "   (used here by " : "", f->drivers, f->drivers[0] ? ")" : "");
	if (!may_open(f)) {
		rule_for(f, rule);
		printf("           may not open %s; this line in /etc/udev/rules.d/70-bulkhead.rules lets us:\n"
		       "           %s\n",
		       bh_usb_node(f, node), rule);
	}
}

static json_t *text_json(const char *text)
{
	json_t *o = text[0] ? json_string(text) : json_null();

	return o ? o : json_null(); /* what is no UTF-8 */
}

static json_t *one_json(const struct bh_usb_found *f)
{
	char option[96], rule[192], id[16];
	bool open = may_open(f);

	option_for(f, option);
	rule_for(f, rule);
	snprintf(id, sizeof(id), "%04x:%04x", f->vendor, f->product);
	return json_pack("{s:s, s:i, s:i, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:b, s:o, s:s}", "name", f->name, "bus",
	                 (int)f->bus, "address", (int)f->address, "port", f->port, "id", id, "speed", speed_name(f),
	                 "manufacturer", text_json(f->manufacturer), "product", text_json(f->product_name), "serial",
	                 text_json(f->serial), "drivers", text_json(f->drivers), "may_open", (int)open, "udev_rule",
	                 open ? json_null() : json_string(rule), "device", option);
}

static int print_json(const struct bh_usb_found *all, size_t count, bool hubs)
{
	json_t *list = json_array(), *o;

	for (size_t i = 0; i < count; i++)
		if (hubs || all[i].class != HUB)
			json_array_append_new(list, one_json(&all[i]));
	o = json_pack("{s:o}", "devices", list);
	json_dumpf(o, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(o);
	return 0;
}

static int print_table(const struct bh_usb_found *all, size_t count, bool hubs)
{
	size_t shown = 0;

	for (size_t i = 0; i < count; i++)
		if (hubs || all[i].class != HUB) {
			print_one(&all[i]);
			shown++;
		}
	if (!shown)
		puts("No USB device is plugged into this host.");
	return 0;
}

static int list(bool hubs, bool json)
{
	struct bh_usb_found *all = NULL;
	size_t count = 0;
	int r = bh_usb_find_all(&all, &count);

	if (r && !(r == -ENOENT && json)) {
		fprintf(stderr, r == -ENOENT ? "bulkhead: there is no /sys/bus/usb: this host has no USB, or shows us none (a container?)\n"
		                             : "bulkhead: out of memory\n");
		return 1;
	}
	r = json ? print_json(all, count, hubs) : print_table(all, count, hubs);
	free(all);
	return r;
}

int bh_list(int argc, char **argv)
{
	enum { ALL = 256, JSON, USBIP, HELP };
	static const struct option options[] = {
		{"all", no_argument, NULL, ALL},
		{"json", no_argument, NULL, JSON},
		{"usbip", required_argument, NULL, USBIP},
		{"help", no_argument, NULL, HELP},
		{0},
	};
	const char *usbip = NULL;
	bool hubs = false, json = false;
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (option) {
		case ALL:
			hubs = true;
			break;
		case JSON:
			json = true;
			break;
		case USBIP:
			usbip = optarg;
			break;
		case ':':
			fprintf(stderr, "bulkhead: '%s' needs a value; see 'bulkhead devices --help'\n", argv[optind - 1]);
			return 2;
		case HELP:
			fputs(usage, stdout);
			return 0;
		default:
			fprintf(stderr, "bulkhead: unknown option '%s'; see 'bulkhead devices --help'\n", argv[optind - 1]);
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "bulkhead: unexpected argument '%s'; see 'bulkhead devices --help'\n", argv[optind]);
		return 2;
	}
	return usbip ? bh_list_usbip(usbip, json) : list(hubs, json);
}
