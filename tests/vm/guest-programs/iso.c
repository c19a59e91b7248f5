/*
 * iso DEVICE in|out [seconds=N] [alt=N] [urbs=N] [packets=N] [pattern=0|1]
 *
 * Streams over the isochronous endpoint of interface 0 in that alternate setting: keeps so many
 * URBs of so many packets queued, each packet as long as the endpoint allows. Data read is
 * compared with the pattern (0: zeroes, 1: the n-th byte of a packet is n modulo 63), data
 * written holds it. No driver may be bound to the interface.
 *
 * Not "as soon as possible": where the queue has run empty, what comes too late counts as missed.
 * At the end, one line each: packets; missed, of which the kernel says that they failed, and for
 * which reason (error_NAME); short, read with less than a packet holds; wrong, with other data;
 * interval, in frames; length, of a packet; expected, the packets that had their time meanwhile.
 */

#include <linux/usbdevice_fs.h>
#include <signal.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <time.h>

#include "device.h"

#define URBS_AT_MOST 64
#define PACKETS_AT_MOST 128 /* the kernel's own limit */
#define PATIENCE_S 20
#define ERRNO_LIMIT 134

struct endpoint {
	unsigned address, length, interval;
};

struct counts {
	unsigned long packets, missed, shortened, wrong;
	unsigned long errors[ERRNO_LIMIT];
};

struct stream {
	unsigned seconds, alt, urbs, packets, pattern;
	bool in;
	int fd;
	struct endpoint endpoint;
	struct counts counts;
};

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "iso: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* The active configuration's value, by a GET_CONFIGURATION. */
static unsigned active_configuration(int fd)
{
	uint8_t value = 0;
	struct usbdevfs_ctrltransfer get = {
		.bRequestType = 0x80, .bRequest = 8, .wLength = 1, .timeout = 5000, .data = &value,
	};

	if (ioctl(fd, USBDEVFS_CONTROL, &get) != 1)
		fail("GET_CONFIGURATION");
	return value;
}

/* Reads the descriptors and finds the endpoint; a full-speed interval is 2^(bInterval - 1) frames. */
static struct endpoint find_endpoint(int fd, unsigned alt, bool in)
{
	uint8_t bytes[4096];
	ssize_t length = pread(fd, bytes, sizeof(bytes), 0);
	unsigned wanted = active_configuration(fd), configuration = 0, setting = 0;

	for (ssize_t i = 0; i + 2 <= length && bytes[i] >= 2 && i + bytes[i] <= length; i += bytes[i]) {
		const uint8_t *d = bytes + i;

		if (d[1] == 2 && d[0] >= 9)
			configuration = d[5];
		else if (d[1] == 4 && d[0] >= 9)
			setting = d[2] == 0 ? d[3] : ~0U;
		else if (d[1] == 5 && d[0] >= 7 && configuration == wanted && setting == alt &&
			 (d[3] & 3) == 1 && (d[2] >> 7) == in)
			return (struct endpoint){ d[2], (unsigned)(d[4] | d[5] << 8) & 0x7ff, 1U << (d[6] - 1) };
	}
	fprintf(stderr, "iso: no isochronous endpoint %s in alternate setting %u\n", in ? "in" : "out", alt);
	exit(1);
}

static uint8_t pattern_byte(const struct stream *s, unsigned n)
{
	return s->pattern == 1 ? (uint8_t)(n % 63) : 0;
}

static struct usbdevfs_urb *make_urb(const struct stream *s)
{
	size_t bytes = (size_t)s->packets * s->endpoint.length;
	struct usbdevfs_urb *urb = calloc(1, sizeof(*urb) + s->packets * sizeof(urb->iso_frame_desc[0]));
	uint8_t *data = malloc(bytes);

	if (!urb || !data)
		fail("memory");
	for (size_t i = 0; i < bytes; i++)
		data[i] = pattern_byte(s, (unsigned)(i % s->endpoint.length));
	urb->type = USBDEVFS_URB_TYPE_ISO;
	urb->endpoint = (unsigned char)s->endpoint.address;
	urb->buffer = data;
	urb->buffer_length = (int)bytes;
	urb->number_of_packets = (int)s->packets;
	return urb;
}

static void submit(const struct stream *s, struct usbdevfs_urb *urb)
{
	if (s->in)
		memset(urb->buffer, 0xa5, (size_t)urb->buffer_length);
	for (unsigned i = 0; i < s->packets; i++)
		urb->iso_frame_desc[i] = (struct usbdevfs_iso_packet_desc){ .length = s->endpoint.length };
	if (ioctl(s->fd, USBDEVFS_SUBMITURB, urb))
		fail("SUBMITURB");
}

static bool data_is_right(const struct stream *s, const uint8_t *data, unsigned length)
{
	for (unsigned i = 0; i < length; i++)
		if (data[i] != pattern_byte(s, i))
			return false;
	return true;
}

static void account(struct stream *s, const struct usbdevfs_urb *urb)
{
	struct counts *c = &s->counts;

	for (unsigned i = 0; i < s->packets; i++) {
		const struct usbdevfs_iso_packet_desc *packet = &urb->iso_frame_desc[i];
		int status = (int)packet->status;

		c->packets++;
		if (status) {
			c->missed++;
			c->errors[-status > 0 && -status < ERRNO_LIMIT ? -status : 0]++;
			continue;
		}
		if (packet->actual_length < s->endpoint.length)
			c->shortened++;
		if (s->in && !data_is_right(s, (const uint8_t *)urb->buffer + (size_t)i * s->endpoint.length,
					    packet->actual_length))
			c->wrong++;
	}
}

static struct usbdevfs_urb *reap(const struct stream *s)
{
	struct usbdevfs_urb *urb;

	alarm(PATIENCE_S);
	if (ioctl(s->fd, USBDEVFS_REAPURB, &urb))
		fail(errno == EINTR ? "an URB does not end" : "REAPURB");
	return urb;
}

static void run(struct stream *s)
{
	double end = now() + s->seconds;

	for (unsigned i = 0; i < s->urbs; i++)
		submit(s, make_urb(s));
	for (unsigned queued = s->urbs; queued;) {
		struct usbdevfs_urb *urb = reap(s);

		account(s, urb);
		if (now() < end)
			submit(s, urb);
		else
			queued--;
	}
}

static void report(const struct stream *s, double seconds)
{
	const struct counts *c = &s->counts;

	printf("packets=%lu\nmissed=%lu\nshort=%lu\nwrong=%lu\ninterval=%u\nlength=%u\nexpected=%.0f\n",
	       c->packets, c->missed, c->shortened, c->wrong, s->endpoint.interval, s->endpoint.length,
	       seconds * 1000 / s->endpoint.interval);
	for (int error = 0; error < ERRNO_LIMIT; error++)
		if (c->errors[error])
			printf("error_%s=%lu\n", strerrorname_np(error), c->errors[error]);
}

static bool parse_option(struct stream *s, const char *text)
{
	return sscanf(text, "seconds=%u", &s->seconds) == 1 || sscanf(text, "alt=%u", &s->alt) == 1 ||
	       sscanf(text, "urbs=%u", &s->urbs) == 1 || sscanf(text, "packets=%u", &s->packets) == 1 ||
	       sscanf(text, "pattern=%u", &s->pattern) == 1;
}

static void interrupted(int number)
{
	(void)number;
}

int main(int argc, char **argv)
{
	struct stream s = { .seconds = 10, .alt = 1, .urbs = 8, .packets = 32 };
	struct sigaction action = { .sa_handler = interrupted }; /* no SA_RESTART: REAPURB ends */
	bool good = argc >= 3 && (!strcmp(argv[2], "in") || !strcmp(argv[2], "out"));

	for (int i = 3; i < argc; i++)
		good = good && parse_option(&s, argv[i]);
	if (!good || !s.urbs || s.urbs > URBS_AT_MOST || !s.packets || s.packets > PACKETS_AT_MOST) {
		fputs("usage: iso DEVICE in|out [seconds=N] [alt=N] [urbs=1..64] [packets=1..128] [pattern=0|1]\n",
		      stderr);
		return 2;
	}
	sigaction(SIGALRM, &action, NULL);
	s.in = !strcmp(argv[2], "in");
	s.fd = device_open("iso", argv[1]);
	s.endpoint = find_endpoint(s.fd, s.alt, s.in);

	struct usbdevfs_setinterface setting = { .interface = 0, .altsetting = s.alt };

	if (ioctl(s.fd, USBDEVFS_CLAIMINTERFACE, &setting.interface))
		fail("CLAIMINTERFACE");
	if (ioctl(s.fd, USBDEVFS_SETINTERFACE, &setting))
		fail("SETINTERFACE");

	double start = now();

	run(&s);
	report(&s, now() - start);
	setting.altsetting = 0;
	if (ioctl(s.fd, USBDEVFS_SETINTERFACE, &setting))
		fail("SETINTERFACE");
	return 0;
}
