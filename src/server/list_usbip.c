/* "bulkhead devices --usbip HOST": what another machine exports, and how to name it to --device. */
#include "list_devices.h"

#include <jansson.h>
#include <stdio.h>
#include <uv.h>

#include <host/usbip.h>

struct listing {
	const char *host;
	json_t *devices; /* an array, or NULL: they are printed as they come */
	unsigned count;
	int status; /* of the program */
};

/* "ff"; of a device whose interfaces say what they are, theirs: "08 03". */
static void classes(const struct bh_usbip_device_fields *d, const struct bh_usbip_interface *interfaces, unsigned count,
                    char *text, size_t size)
{
	size_t used = 0;

	snprintf(text, size, "%02x", d->device_class);
	for (unsigned i = 0; !d->device_class && i < count && used + 4 < size; i++)
		used += (size_t)snprintf(text + used, size - used, i ? " %02x" : "%02x", interfaces[i].bInterfaceClass);
}

static void print_one(const struct listing *l, const struct bh_usbip_device_fields *d, const char *class)
{
	printf("%-10s %04x:%04x  %-7s class %s  %s\n", d->busid, d->vendor, d->product, bh_usbip_speed_name(d->speed), class,
	       d->path);
	printf("           --device usbip,host=%s,busid=%s\n", l->host, d->busid);
}

static json_t *one_json(const struct listing *l, const struct bh_usbip_device_fields *d, const char *class)
{
	char id[16], option[400];

	snprintf(id, sizeof(id), "%04x:%04x", d->vendor, d->product);
	snprintf(option, sizeof(option), "usbip,host=%s,busid=%s", l->host, d->busid);
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "busid", d->busid, "id", id, "speed", bh_usbip_speed_name(d->speed),
	                 "class", class, "path", d->path, "device", option);
}

static void device(void *data, const struct bh_usbip_device_fields *d, const struct bh_usbip_interface *interfaces,
                   unsigned count)
{
	struct listing *l = data;
	char class[100];

	l->count++;
	classes(d, interfaces, count, class, sizeof(class));
	if (l->devices)
		json_array_append_new(l->devices, one_json(l, d, class));
	else
		print_one(l, d, class);
}

static void done(void *data, int error, const char *text)
{
	struct listing *l = data;

	if (error) {
		fprintf(stderr, "bulkhead: %s: %s\n", l->host, text);
		l->status = 1;
	} else if (!l->devices && !l->count) {
		printf("%s exports no USB device.\n", l->host);
	}
}

static void print_json(struct listing *l)
{
	json_t *o = json_pack("{s:O}", "devices", l->devices);

	json_dumpf(o, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(o);
}

int bh_list_usbip(const char *host, bool json)
{
	static const struct bh_usbip_list_ops ops = {.device = device, .done = done};
	struct listing l = {.host = host, .devices = json ? json_array() : NULL};
	struct bh_usbip_list *query;
	uv_loop_t loop;
	char error[400];

	uv_loop_init(&loop);
	if (bh_usbip_list(&loop, host, &ops, &l, &query, error, sizeof(error)) < 0) {
		fprintf(stderr, "bulkhead: --usbip %s\n", error);
		l.status = 2;
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_loop_close(&loop);
	if (json && !l.status)
		print_json(&l);
	json_decref(l.devices);
	return l.status;
}
