/*
 * messages DEVICE - messages of all lengths, sent and received back, over the loopback of a gadget zero
 *
 * DEVICE is plugged in ("1-2"). Takes it from its driver, sets configuration 2, and sends messages, each one
 * transfer that is ended by a short packet or, where its packets are full, by an empty one; with
 * each, it asks for more than will come, and wants that many bytes and no more, which only the
 * end of the transfer can tell. Some are sent in two requests, of which the first ends where packets of 512 bytes do.
 * Says messages=N; ends with 0 if every one came back as it was.
 */
#include <linux/usbdevice_fs.h>
#include <poll.h>
#include <stdint.h>
#include <sys/ioctl.h>

#include "device.h"

#define MOST   5000
#define ROOM   8192
#define PACKET 512
#define IN     0x81
#define OUT    0x01

static int fd;

static void die(const char *what, int n)
{
	fprintf(stderr, "messages: %s at %d: %s\n", what, n, strerror(errno));
	exit(1);
}

static void submit(struct usbdevfs_urb *u, uint8_t endpoint, void *data, int length, unsigned flags, int n)
{
	*u = (struct usbdevfs_urb){
		.type = USBDEVFS_URB_TYPE_BULK, .endpoint = endpoint, .buffer = data, .buffer_length = length, .flags = flags,
	};
	if (ioctl(fd, USBDEVFS_SUBMITURB, u))
		die("submitting", n);
}

/* All that were submitted, in 10 s. */
static void reap(unsigned count, int n)
{
	while (count--) {
		struct pollfd p = {.fd = fd, .events = POLLOUT};
		struct usbdevfs_urb *u;

		if (poll(&p, 1, 10000) != 1 || ioctl(fd, USBDEVFS_REAPURBNDELAY, &u))
			die("no end", n);
		if (u->status) {
			errno = -u->status;
			die("failed", n);
		}
	}
}

static void message(int length, int first, int n)
{
	static uint8_t sent[MOST], got[ROOM];
	struct usbdevfs_urb in, out[2];
	unsigned urbs = 0;

	for (int i = 0; i < length; i++)
		sent[i] = (uint8_t)(i * 7 + n);
	memset(got, 0, sizeof(got));
	submit(&in, IN, got, sizeof(got), 0, n);
	if (first)
		submit(&out[urbs++], OUT, sent, first, USBDEVFS_URB_NO_INTERRUPT, n);
	submit(&out[urbs++], OUT, sent + first, length - first, USBDEVFS_URB_ZERO_PACKET, n);
	reap(urbs + 1, n);
	if (in.actual_length != length || memcmp(got, sent, (size_t)length)) {
		fprintf(stderr, "messages: %d bytes were sent, %d came back, or others\n", length, in.actual_length);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	static const int special[] = {1, 63, 64, 65, 128, 448, 511, 512, 513, 576, 1023, 1024, 1025, 1536, 2048, 4096};
	struct usbdevfs_ioctl disconnect = {.ifno = 0, .ioctl_code = USBDEVFS_DISCONNECT};
	int configuration = 2, interface = 0, n = 0;

	if (argc != 2) {
		fprintf(stderr, "messages: say messages DEVICE\n");
		return 2;
	}
	fd = device_open("messages", argv[1]);
	ioctl(fd, USBDEVFS_IOCTL, &disconnect);
	if (ioctl(fd, USBDEVFS_SETCONFIGURATION, &configuration) || (ioctl(fd, USBDEVFS_IOCTL, &disconnect), 0) ||
	    ioctl(fd, USBDEVFS_CLAIMINTERFACE, &interface))
		die("beginning", 0);
	for (unsigned i = 0; i < sizeof(special) / sizeof(*special); i++)
		message(special[i], 0, n++);
	for (int length = 64; length <= 1152; length += 64)
		message(length, 0, n++);
	for (int i = 0; i < 200; i++) {
		int length = 1 + (i * 2654435) % MOST, first = i % 3 ? length / 2 / PACKET * PACKET : 0;

		message(length, first, n++);
	}
	printf("messages=%d\n", n);
	return 0;
}
