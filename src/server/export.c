/*
 * "bulkhead export": any of our devices, emulated or real, offered to other machines and to
 * QEMU by usbredir or USB/IP.
 */
#include "export.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include <base/util.h>
#include <export/usbip_server.h>
#include <export/usbredir_server.h>
#include <layer/layers.h>
#include <net/address.h>
#include <net/socket.h>

#include "devices.h"
#include "listener.h"
#include "options.h"
#include "say.h"
#include "stack.h"
#include "statistics.h"

#define MOST_DEVICES 16u

static const char usage[] =
	"Usage: bulkhead export --protocol usbredir|usbip --listen ADDRESS:PORT|unix:PATH --device KIND[,...] ...\n"
	"\n"
	"Offers devices to others: to QEMU's usb-redir and whoever speaks usbredir, or to\n"
	"Linux's 'usbip attach' and whoever speaks USB/IP. Neither asks for a password: listen\n"
	"on 127.0.0.1 or a Unix socket, and let ssh carry it further.\n"
	"\n"
	"  --protocol NAME      usbredir (one device), or usbip (up to 16, as 1-1, 1-2 and so on)\n"
	"  --listen ADDRESS     ADDRESS:PORT of this machine (port 0: any), or unix:PATH\n"
	"  --fd N               use this listening socket, passed in by whoever started us, instead\n"
	"  --device KIND[,KEY=VALUE...]   as 'bulkhead serve'; 'help' lists them\n"
	"  --statistics FILE    write counters there as JSON, at the end and at SIGUSR1\n"
	"  --help\n"
	"\n"
	"It serves one client of a device after another until SIGTERM or SIGINT, and flushes then.\n"
	"Exit status: 0, 1 if something broke while serving, 2 if it could not begin.\n";

struct exporter {
	/* configuration */
	const char *protocol, *listen, *statistics;
	const char *texts[MOST_DEVICES];
	int fd;

	/* state */
	uv_loop_t loop;
	uv_signal_t term, interrupt, usr1;
	struct bh_options options[MOST_DEVICES];
	const struct bh_device_kind *kinds[MOST_DEVICES];
	struct bh_device *devices[MOST_DEVICES];
	size_t count;
	struct bh_listener listener;
	struct bh_address address;
	struct bh_usbip_server *usbip;
	struct bh_usbredir_server *usbredir;
	bool signals, stopping;
	int status;
};

static int wrong(const char *format, const char *what)
{
	fputs("bulkhead: ", stderr);
	fprintf(stderr, format, what);
	fputs("; see 'bulkhead export --help'\n", stderr);
	return 2;
}

/* --- what there is to tell ------------------------------------------------------------------------- */

static void say_line(void *data, const char *text)
{
	(void)data;
	bh_say("%s", text);
}

static json_t *statistics(const struct exporter *x)
{
	struct bh_export_counters c = x->usbip ? bh_usbip_server_counters(x->usbip) : bh_usbredir_server_counters(x->usbredir);
	json_t *devices = json_array();

	for (size_t i = 0; i < x->count; i++) {
		json_t *o = json_pack("{s:s}", "kind", x->kinds[i]->name), *own;

		own = bh_device_statistics(x->kinds[i], x->devices[i]);
		json_object_update(o, own);
		json_decref(own);
		json_array_append_new(devices, o);
	}
	return json_pack("{s:{s:s, s:I, s:I, s:I, s:I, s:I, s:I}, s:o}", "export", "protocol", x->protocol, "clients",
	                 (json_int_t)c.clients, "dropped", (json_int_t)c.dropped, "refused", (json_int_t)c.refused,
	                 "requests", (json_int_t)c.requests, "bytes_in", (json_int_t)c.bytes_in, "bytes_out",
	                 (json_int_t)c.bytes_out, "devices", devices);
}

static void write_statistics(const struct exporter *x)
{
	int r = x->statistics && (x->usbip || x->usbredir) ? bh_statistics_write(x->statistics, statistics(x)) : 0;

	if (r)
		bh_say("cannot write statistics to '%s': %s", x->statistics, strerror(-r));
}

/* How others reach it: the lines to paste. */
static void announce(const struct exporter *x, const char *name)
{
	const char *port = strrchr(name, ':');

	printf("bulkhead: exporting at %s by %s\n", name, x->protocol);
	for (size_t i = 0; i < x->count; i++)
		if (x->kinds[i]->other_side)
			printf("bulkhead: the %s is at %s\n", x->kinds[i]->name, x->kinds[i]->other_side(bh_layers_bottom(x->devices[i])));
	putchar('\n');
	if (x->usbip)
		printf("Linux, as root:\n  modprobe vhci-hcd; usbip --tcp-port %s attach -r HOST -b 1-1\n\n", port ? port + 1 : "PORT");
	else if (x->address.path)
		printf("QEMU:\n  -chardev socket,id=redir,path=%s -device usb-redir,chardev=redir\n\n", x->address.path);
	else
		printf("QEMU:\n  -chardev socket,id=redir,host=HOST,port=%s -device usb-redir,chardev=redir\n\n",
		       port ? port + 1 : "PORT");
	fflush(stdout);
}

/* --- the end ------------------------------------------------------------------------------------------ */

static void device_closed(void *data, int error)
{
	struct exporter *x = data;

	if (error && error != -ENOTCONN) {
		bh_say("a device could not be flushed: %s; what was written last may be lost", strerror(-error));
		x->status = 1;
	}
}

/*
 * Layers go first; what they hold is closed as its kind has to be, which tells when it is safe. One
 * operation is put in their way for that: destroy.
 */
struct closing {
	struct bh_device_ops ops;
	const struct bh_device_ops *own;
	const struct bh_device_kind *kind;
	struct exporter *exporter;
};

static void close_bottom(struct bh_device *d)
{
	struct closing *c = bh_container_of(d->ops, struct closing, ops);

	d->ops = c->own;
	c->kind->close(d, device_closed, c->exporter);
}

static void close_device(struct exporter *x, size_t i)
{
	struct bh_device *bottom = bh_layers_bottom(x->devices[i]);
	struct closing c = {.ops = *bottom->ops, .own = bottom->ops, .kind = x->kinds[i], .exporter = x};

	if (x->kinds[i]->close) {
		c.ops.destroy = close_bottom;
		bottom->ops = &c.ops;
	}
	bh_device_destroy(x->devices[i]);
}

/* Works on what is only half begun. */
static void stop(struct exporter *x)
{
	if (x->stopping)
		return;
	x->stopping = true;
	write_statistics(x);
	bh_usbip_server_destroy(x->usbip);
	bh_usbredir_server_destroy(x->usbredir);
	for (size_t i = 0; i < x->count; i++)
		close_device(x, i);
	if (!x->signals)
		return;
	uv_close((uv_handle_t *)&x->term, NULL);
	uv_close((uv_handle_t *)&x->interrupt, NULL);
	uv_close((uv_handle_t *)&x->usr1, NULL);
}

static void on_stop(uv_signal_t *h, int number)
{
	(void)number;
	stop(h->data);
}

static void on_usr1(uv_signal_t *h, int number)
{
	(void)number;
	write_statistics(h->data);
}

/* --- the beginning --------------------------------------------------------------------------------------- */

static int make_device(struct exporter *x, const char *text, char *error)
{
	struct bh_options *o = &x->options[x->count];
	const struct bh_device_kind *kind;
	int r = bh_options_parse(text, o, error);

	if (r)
		return r;
	kind = x->kinds[x->count] = bh_device_kind(o->kind);
	r = -EINVAL;
	if (!kind)
		snprintf(error, BH_ERROR_SIZE, "no device '%s'; 'bulkhead export --device help' lists them", o->kind);
	else if (kind->hub)
		snprintf(error, BH_ERROR_SIZE, "a hub cannot be exported: say the devices that hang from it, one by one");
	else if (bh_options_get(o, "translate"))
		snprintf(error, BH_ERROR_SIZE, "%s: translate= is for 'bulkhead serve': here devices run at their own speed", o->kind);
	else if (bh_options_get(o, "port"))
		snprintf(error, BH_ERROR_SIZE, "%s: port= is for 'bulkhead serve': who imports the device plugs it in", o->kind);
	else
		r = bh_device_options_check(kind, o, error);
	if (!r)
		r = bh_options_spare(o, x->statistics, error);
	if (!r)
		r = bh_device_make(&x->loop, kind, o, false, &x->devices[x->count], error);
	if (!r)
		x->count++;
	else
		bh_options_free(o);
	return r;
}

/* One that was passed in: it has to listen, and may not make us wait. */
static int adopt_socket(const struct exporter *x, char name[BH_SOCKET_NAME_SIZE], char *error)
{
	int listens, flags = fcntl(x->fd, F_GETFL);
	socklen_t size = sizeof(listens);

	snprintf(name, BH_SOCKET_NAME_SIZE, "file descriptor %d", x->fd);
	if (flags < 0 || getsockopt(x->fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) || !listens) {
		snprintf(error, BH_ERROR_SIZE, "--fd %d is no socket that listens", x->fd);
		return -EINVAL;
	}
	return fcntl(x->fd, F_SETFL, flags | O_NONBLOCK) ? -errno : 0;
}

static int open_socket(struct exporter *x, char name[BH_SOCKET_NAME_SIZE], char *error)
{
	int r;

	if (!x->listen)
		return adopt_socket(x, name, error);
	r = bh_address_parse(x->listen, true, &x->address);
	if (r) {
		snprintf(error, BH_ERROR_SIZE, "--listen '%s': %s", x->listen,
		         r == -EINVAL ? "is no address; say ADDRESS:PORT, [ADDRESS]:PORT for IPv6, or unix:PATH" : "out of memory");
		return r;
	}
	if (x->address.path) {
		snprintf(name, BH_SOCKET_NAME_SIZE, "unix:%s", x->address.path);
		r = bh_listener_open(&x->listener, x->address.path, 0600, error);
		x->fd = x->listener.fd;
		return r;
	}
	x->fd = bh_socket_listen(&x->address, name);
	if (x->fd < 0) {
		snprintf(error, BH_ERROR_SIZE, "--listen '%s': %s; %s", x->listen, strerror(-x->fd), bh_socket_listen_advice(x->fd));
		return x->fd;
	}
	return 0;
}

static int start_server(struct exporter *x, char *error)
{
	struct bh_export_log log = {.line = say_line};
	int r = !strcmp(x->protocol, "usbip")
	                ? bh_usbip_server_create(&x->loop, x->fd, x->devices, x->count, &log, &x->usbip)
	                : bh_usbredir_server_create(&x->loop, x->fd, x->devices[0], &log, &x->usbredir);

	if (r == -ENOTSUP)
		snprintf(error, BH_ERROR_SIZE, "this bulkhead was built without usbredir; install libusbredirparser-dev and build it again");
	else if (r)
		snprintf(error, BH_ERROR_SIZE, "cannot begin: %s", strerror(-r));
	return r;
}

static void start_signal(struct exporter *x, uv_signal_t *h, uv_signal_cb callback, int number)
{
	uv_signal_init(&x->loop, h);
	h->data = x;
	uv_signal_start(h, callback, number);
}

static int begin(struct exporter *x, size_t device_count)
{
	char error[BH_ERROR_SIZE] = "", name[BH_SOCKET_NAME_SIZE];
	int r = 0;

	start_signal(x, &x->term, on_stop, SIGTERM);
	start_signal(x, &x->interrupt, on_stop, SIGINT);
	start_signal(x, &x->usr1, on_usr1, SIGUSR1);
	x->signals = true;
	for (size_t i = 0; i < device_count && !r; i++)
		r = make_device(x, x->texts[i], error);
	if (r || open_socket(x, name, error) || start_server(x, error)) {
		bh_say("%s", error);
		return 2;
	}
	announce(x, name);
	return 0;
}

static int run(struct exporter *x, size_t device_count)
{
	int fd;

	uv_loop_init(&x->loop);
	x->status = begin(x, device_count);
	fd = x->fd;
	if (x->status)
		stop(x);
	uv_run(&x->loop, UV_RUN_DEFAULT);
	if (x->address.path)
		bh_listener_close(&x->listener);
	else if (x->listen && fd >= 0)
		close(fd);
	bh_address_free(&x->address);
	for (size_t i = 0; i < x->count; i++)
		bh_options_free(&x->options[i]);
	uv_loop_close(&x->loop);
	return x->status;
}

int bh_export(int argc, char **argv)
{
	enum { PROTOCOL = 256, LISTEN, FD, DEVICE, STATISTICS, HELP };
	static const struct option options[] = {
		{"protocol", required_argument, NULL, PROTOCOL}, {"listen", required_argument, NULL, LISTEN},
		{"fd", required_argument, NULL, FD}, {"device", required_argument, NULL, DEVICE},
		{"statistics", required_argument, NULL, STATISTICS}, {"help", no_argument, NULL, HELP}, {0},
	};
	struct exporter x = {.fd = -1, .listener.fd = -1};
	size_t devices = 0;
	char *end;
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (option) {
		case PROTOCOL:
			x.protocol = optarg;
			break;
		case LISTEN:
			x.listen = optarg;
			break;
		case FD:
			x.fd = (int)strtol(optarg, &end, 10);
			if (*end || end == optarg || x.fd < 0)
				return wrong("--fd %s is no file descriptor", optarg);
			break;
		case DEVICE:
			if (!strcmp(optarg, "help")) {
				bh_device_help(stdout);
				return 0;
			}
			if (devices == MOST_DEVICES)
				return wrong("too many devices: %s", optarg);
			x.texts[devices++] = optarg;
			break;
		case STATISTICS:
			x.statistics = optarg;
			break;
		case HELP:
			fputs(usage, stdout);
			return 0;
		case ':':
			return wrong("'%s' needs a value", argv[optind - 1]);
		default:
			return wrong("unknown option '%s'", argv[optind - 1]);
		}
	}
	if (optind < argc)
		return wrong("unexpected argument '%s'", argv[optind]);
	if (!x.protocol || (strcmp(x.protocol, "usbip") && strcmp(x.protocol, "usbredir")))
		return wrong("--protocol: say %s", "usbredir or usbip");
	if (!x.listen == (x.fd < 0))
		return wrong("say where to listen: %s", "either --listen ADDRESS:PORT, --listen unix:PATH or --fd N");
	if (!devices || (devices > 1 && !strcmp(x.protocol, "usbredir")))
		return wrong(devices ? "usbredir carries one device%s" : "say what to export: --device KIND%s", "");
	return run(&x, devices);
}
