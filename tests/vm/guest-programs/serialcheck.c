/*
 * serialcheck TTY SECONDS [BYTES-PER-SECOND [WINDOW]] - a counted pattern both ways over a serial line
 *
 * Makes the line raw, says "ready", and then sends for SECONDS, as fast as it may, while it
 * receives the same from the other side. The pattern is a sequence of 32-bit words, the most
 * significant byte first: the n-th (from 0) is n * 2654435761 modulo 2^32. It ends with the word
 * 0xffffffff, which is none of the first three thousand million.
 *
 * With a WINDOW no more than so many bytes are sent beyond those that were received. Where the
 * other side does the same, no more than two windows are ever under way to here. Linux needs
 * that: a tty whose kernel thread does not get the processor for a while buffers 64 KiB, and
 * then drops what the driver has without a word.
 *
 * 0 BYTES-PER-SECOND: as many as the line takes.
 *
 * At the end: sent=BYTES and received=BYTES, both without the last word, and wrong_at=OFFSET of
 * the first word that was not as it has to be, if there was one. Ends with 0 if all that was to
 * be sent was, and all that came until the last word was right.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define FACTOR 2654435761U
#define LAST 0xffffffffU
#define PATIENCE_S 30 /* for the other side's last word, after ours, or for anything at all */
#define CHUNK 4096

struct sender {
	uint8_t bytes[CHUNK];
	size_t from, to; /* what of it is still to be sent */
	uint32_t word;
	uint64_t sent;
	bool ended; /* the last word is in bytes, or sent */
};

struct receiver {
	uint32_t word, partial;
	unsigned have; /* bytes of the partial word */
	uint64_t received;
	bool ended, wrong;
};

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void put(struct sender *s, uint32_t word)
{
	for (int shift = 24; shift >= 0; shift -= 8)
		s->bytes[s->to++] = (uint8_t)(word >> shift);
}

/* Makes more to send where everything is sent; the last word when time is up. */
static void refill(struct sender *s, bool time_is_up)
{
	if (s->from < s->to || s->ended)
		return;
	s->from = s->to = 0;
	if (time_is_up) {
		put(s, LAST);
		s->ended = true;
		return;
	}
	while (s->to < CHUNK)
		put(s, s->word++ * FACTOR);
}

/* Sends up to `allowance` bytes; -1 if the line is broken. */
static int send_some(struct sender *s, int fd, size_t allowance)
{
	size_t left = s->to - s->from;
	ssize_t n = write(fd, s->bytes + s->from, left < allowance ? left : allowance);

	if (n < 0)
		return errno == EAGAIN ? 0 : -1;
	s->from += (size_t)n;
	if (!s->ended)
		s->sent += (uint64_t)n;
	return 0;
}

static void take(struct receiver *r, uint8_t byte)
{
	r->partial = r->partial << 8 | byte;
	if (++r->have < 4)
		return;
	r->have = 0;
	if (r->partial == LAST) {
		r->ended = true;
	} else if (r->partial != r->word * FACTOR) {
		r->wrong = true;
		printf("wrong_at=%llu\n", (unsigned long long)r->received);
	} else {
		r->word++;
		r->received += 4;
	}
}

static int receive_some(struct receiver *r, int fd)
{
	uint8_t bytes[CHUNK];
	ssize_t n = read(fd, bytes, sizeof(bytes));

	if (n < 0)
		return errno == EAGAIN ? 0 : -1;
	if (n == 0) {
		errno = EIO; /* hung up */
		return -1;
	}
	for (ssize_t i = 0; i < n && !r->ended && !r->wrong; i++)
		take(r, bytes[i]);
	return 0;
}

static int open_raw(const char *path)
{
	struct termios raw;
	int fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || tcgetattr(fd, &raw))
		return -1;
	cfmakeraw(&raw);
	cfsetspeed(&raw, B115200);
	if (tcsetattr(fd, TCSANOW, &raw))
		return -1;
	return fd;
}

/* How fast, and how far ahead of what is received; 0: any. */
struct limits {
	double rate;
	uint64_t window;
};

/* What may be sent now: everything, or what the limits leave. */
static size_t allowance(const struct sender *s, const struct receiver *r, const struct limits *l, double start)
{
	double due = l->rate * (now() - start);
	uint64_t end = r->received + l->window;
	size_t may = CHUNK;

	if (s->ended)
		return CHUNK;
	if (l->rate > 0)
		may = due > (double)s->sent ? (size_t)(due - (double)s->sent) : 0;
	if (l->window && end < s->sent + may)
		may = end > s->sent ? (size_t)(end - s->sent) : 0;
	return may;
}

static int exchange(struct sender *s, struct receiver *r, int fd, double seconds, const struct limits *l)
{
	double start = now(), heard = start;

	while (!r->wrong && !(s->ended && s->from == s->to && r->ended)) {
		refill(s, now() >= start + seconds);

		size_t may = allowance(s, r, l, start);
		bool sending = s->from < s->to && may;
		struct pollfd wait = { .fd = fd, .events = (short)(POLLIN | (sending ? POLLOUT : 0)) };
		int events = poll(&wait, 1, l->rate > 0 && !s->ended ? 20 : 1000);

		if (events > 0)
			heard = now();
		if (wait.revents & POLLOUT && send_some(s, fd, may))
			return -1;
		if (wait.revents & (POLLIN | POLLHUP | POLLERR) && receive_some(r, fd))
			return -1;
		if (now() > heard + PATIENCE_S) {
			errno = ETIMEDOUT;
			return -1;
		}
	}
	return r->wrong ? -1 : 0;
}

int main(int argc, char **argv)
{
	static struct sender sender;
	static struct receiver receiver;

	if (argc < 3 || argc > 5) {
		fputs("usage: serialcheck TTY SECONDS [BYTES-PER-SECOND [WINDOW]]\n", stderr);
		return 2;
	}
	struct limits limits = { .rate = argc > 3 ? atof(argv[3]) : 0, .window = argc > 4 ? strtoull(argv[4], NULL, 10) : 0 };
	int fd = open_raw(argv[1]);

	if (fd < 0) {
		fprintf(stderr, "serialcheck: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");

	int result = exchange(&sender, &receiver, fd, atof(argv[2]), &limits);

	if (result && !receiver.wrong)
		fprintf(stderr, "serialcheck: %s: %s\n", argv[1], strerror(errno));
	printf("sent=%llu\nreceived=%llu\n", (unsigned long long)sender.sent,
	       (unsigned long long)receiver.received);
	if (!result && tcdrain(fd))
		result = -1;
	return result ? 1 : 0;
}
