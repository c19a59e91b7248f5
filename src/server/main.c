/* The command line. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bench/bench.h>

#include "devices.h"
#include "export.h"
#include "list_devices.h"
#include "plugs.h"
#include "serve.h"

static const char usage[] =
	"Usage: bulkhead serve --socket-path PATH|--fd N --controller uhci[,...] --device KIND[,...] ...\n"
	"       bulkhead export --protocol usbredir|usbip --listen ADDRESS --device KIND[,...]\n"
	"       bulkhead devices [--all] [--usbip HOST[:PORT]] [--json]\n"
	"       bulkhead bench NAME [OPTION...]\n"
	"\n"
	"A USB controller for a virtual machine, in a process of its own, attached to QEMU\n"
	"(10.1 or later) or Cloud Hypervisor over vfio-user.\n"
	"\n"
	"  --socket-path PATH   listen for the virtual machine monitor here\n"
	"  --fd N               use this socket, passed in by whoever started us, instead\n"
	"  --controller KIND[,KEY=VALUE...]   default: uhci; 'help' lists kinds and options\n"
	"  --device KIND[,KEY=VALUE...]       plug a device in; up to 64; 'help' lists them\n"
	"  --statistics FILE    write counters there as JSON, at the end and at SIGUSR1\n"
	"  --control PATH       listen there for commands in JSON: plug in, pull out, type (docs/control.md)\n"
	"  --help, --version\n"
	"\n"
	"It serves one client after another until SIGTERM or SIGINT, and flushes its disks then.\n"
	"'bulkhead export' offers devices to QEMU and other machines.\n"
	"'bulkhead devices' lists the USB devices of this machine that can be attached, or those that\n"
	"another one exports.\n"
	"'bulkhead bench' lists what can be measured without a virtual machine.\n"
	"Exit status: 0, 1 if something broke while serving, 2 if it could not begin.\n";

static int wrong(const char *format, const char *what)
{
	fputs("bulkhead: ", stderr);
	fprintf(stderr, format, what);
	fputs("; see 'bulkhead --help'\n", stderr);
	return 2;
}

enum { OPTION_SOCKET = 256, OPTION_FD, OPTION_CONTROLLER, OPTION_DEVICE, OPTION_STATISTICS, OPTION_CONTROL, OPTION_HELP };

static const struct option options[] = {
	{"socket-path", required_argument, NULL, OPTION_SOCKET},
	{"fd", required_argument, NULL, OPTION_FD},
	{"controller", required_argument, NULL, OPTION_CONTROLLER},
	{"device", required_argument, NULL, OPTION_DEVICE},
	{"statistics", required_argument, NULL, OPTION_STATISTICS},
	{"control", required_argument, NULL, OPTION_CONTROL},
	{"help", no_argument, NULL, OPTION_HELP},
	{0},
};

static int parse_fd(const char *text, int *ret)
{
	char *end;
	long fd = strtol(text, &end, 10);

	if (*end || end == text || fd < 0 || fd > 1 << 20)
		return -EINVAL;
	*ret = (int)fd;
	return 0;
}

static int serve(int argc, char **argv)
{
	const char *devices[BH_PLUGS_MAX];
	struct bh_serve_config c = {.fd = -1, .controller = "uhci", .devices = devices};
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (option) {
		case OPTION_SOCKET:
			c.socket_path = optarg;
			break;
		case OPTION_FD:
			if (parse_fd(optarg, &c.fd))
				return wrong("--fd %s is no file descriptor", optarg);
			break;
		case OPTION_CONTROLLER:
			if (!strcmp(optarg, "help")) {
				bh_controller_help(stdout);
				return 0;
			}
			c.controller = optarg;
			break;
		case OPTION_DEVICE:
			if (!strcmp(optarg, "help")) {
				bh_device_help(stdout);
				return 0;
			}
			if (c.device_count == BH_PLUGS_MAX)
				return wrong("too many devices: %s", optarg);
			devices[c.device_count++] = optarg;
			break;
		case OPTION_STATISTICS:
			c.statistics = optarg;
			break;
		case OPTION_CONTROL:
			c.control = optarg;
			break;
		case OPTION_HELP:
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
	if (!c.socket_path == (c.fd < 0))
		return wrong("say where to serve: %s", "either --socket-path PATH or --fd N");
	return bh_serve(&c);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "serve"))
		return serve(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "export"))
		return bh_export(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "devices"))
		return bh_list_devices(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "bench"))
		return bh_bench(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "--version")) {
		puts("bulkhead " BULKHEAD_VERSION);
		return 0;
	}
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))) {
		fputs(usage, stdout);
		return 0;
	}
	if (argc > 1)
		return wrong("unknown command '%s'", argv[1]);
	return wrong("%s", "nothing to do");
}
