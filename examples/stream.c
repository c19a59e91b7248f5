/*
 * stream FILE HOST PORT - sends a file over TCP by the batch engine. No USB, no guest.
 *
 * The engine stands between two parties. A *source* has descriptors of small packets: here
 * an array, 48 bytes of the file in each. A *carrier* moves a whole batch of them to the
 * destination: here a TCP connection, in records of 1400 bytes, since the two sides need
 * not agree on a packet's size ([0096] to [0099]). The source offers its first packet again
 * and again and hears "busy" until the batch is through; then one packet after the other is
 * told that it was sent, or is the one that was not.
 *
 * A record is two bytes of length, high byte first, and the data; an empty one ends the
 * file. A byte counts as taken when TCP has it. So at the end we wait until the far side
 * closes, which it does when it has read everything.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <batch/engine.h>

#define PACKET     48u          /* bytes, on our side */
#define RECORD     1400u        /* bytes, on the far side */
#define WIRE       (2 + RECORD) /* a full record with its length */
#define BATCH      (100 * RECORD)
#define GOODBYE_MS 10000

struct packet {
	uint8_t data[PACKET];
	uint32_t length; /* the last packet is empty */
	bool sent;
};

struct stream {
	/* the source */
	struct bh_source source;
	struct packet *packets;
	size_t count, head; /* the head is the next to be offered */
	bool failed;

	struct bh_engine engine;
	struct bh_destination destination;

	/* the carrier: one batch as it travels, and how much of it did */
	int fd, error; /* error: errno of the connection */
	uint8_t wire[BATCH / RECORD * WIRE + WIRE];
	size_t at, end;
	unsigned long calls;
};

/* --- the source: what there is to send ---------------------------------------------------- */

static struct stream *of_source(struct bh_source *s)
{
	return bh_container_of(s, struct stream, source);
}

/* A descriptor is made when it is asked for. Its id is its place in the array. */
static enum bh_found describe(struct bh_source *source, uint64_t id, uint64_t chain, struct bh_descriptor *ret)
{
	struct stream *s = of_source(source);

	if (id >= s->count)
		return BH_FOUND_END;
	if (s->packets[id].sent)
		return BH_FOUND_INACTIVE;
	*ret = (struct bh_descriptor){.id = id, .chain = chain, .length = s->packets[id].length, .toggle = id & 1};
	return BH_FOUND;
}

static enum bh_found next(struct bh_source *s, const struct bh_descriptor *after, struct bh_descriptor *ret)
{
	return describe(s, after->id + 1, after->chain, ret);
}

static bool read_packet(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, void *to, uint32_t length)
{
	memcpy(to, of_source(s)->packets[d->id].data + offset, length);
	return true;
}

static bool write_packet(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, const void *from,
                         uint32_t length)
{
	(void)s, (void)d, (void)offset, (void)from, (void)length;
	return false; /* nothing comes back */
}

/* What verification asks: has the packet changed meanwhile? */
static bool equal(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, const void *bytes,
                  uint32_t length)
{
	return memcmp(of_source(s)->packets[d->id].data + offset, bytes, length) == 0;
}

/* The outcome of one packet, in order. The first that fails is where the stream ends. */
static bool retire(struct bh_source *source, const struct bh_descriptor *d, uint32_t actual, enum bh_status status)
{
	struct stream *s = of_source(source);

	(void)actual; /* all of it, or it failed */
	s->failed = status != BH_SUCCESS;
	s->packets[d->id].sent = !s->failed;
	s->head += !s->failed;
	return true;
}

static void ready(struct bh_source *s)
{
	(void)s; /* run() offers again after each step anyway */
}

static const struct bh_source_ops source_ops = {
	.next = next, .read = read_packet, .write = write_packet, .equal = equal, .retire = retire, .ready = ready,
};

/* --- the carrier: one batch becomes records ------------------------------------------------ */

static struct stream *of_destination(struct bh_destination *d)
{
	return bh_container_of(d, struct stream, destination);
}

static void put_record(struct stream *s, const uint8_t *data, uint32_t length)
{
	s->wire[s->end++] = (uint8_t)(length >> 8);
	s->wire[s->end++] = (uint8_t)length;
	if (length)
		memcpy(s->wire + s->end, data, length);
	s->end += length;
}

/* How many bytes of the batch travelled, lengths of records not counted: the engine charges packets by it. */
static uint32_t taken(const struct stream *s)
{
	size_t part = s->at % WIRE, bytes = s->at / WIRE * RECORD + (part > 2 ? part - 2 : 0);

	return (uint32_t)BH_MIN(bytes, s->destination.batch.length);
}

/* Goes on until everything is sent, the socket is full, or the peer is gone. */
static void carry(struct stream *s)
{
	while (s->at < s->end) {
		ssize_t n = send(s->fd, s->wire + s->at, s->end - s->at, MSG_NOSIGNAL);

		s->calls++;
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return; /* run() calls again */
		if (n < 0) {
			s->error = errno;
			bh_destination_complete(&s->destination, BH_NO_RESPONSE, taken(s));
			return;
		}
		s->at += (size_t)n;
	}
	bh_destination_complete(&s->destination, BH_SUCCESS, taken(s));
}

static void start(struct bh_destination *d)
{
	struct stream *s = of_destination(d);
	const struct bh_batch *b = &d->batch;

	s->at = s->end = 0;
	for (uint32_t i = 0; i < b->length; i += RECORD)
		put_record(s, b->data + i, BH_MIN(RECORD, b->length - i));
	if (b->length == 0 || b->zero_packet)
		put_record(s, NULL, 0); /* of an empty packet */
	carry(s); /* may complete it at once, inside start */
}

/* What TCP has begun to take cannot be taken back: the transfer goes on to its end, and completes by itself. */
static void cancel(struct bh_destination *d)
{
	(void)d;
}

static void changed(struct bh_destination *d)
{
	of_destination(d)->failed = true; /* somebody wrote to a packet that was under way */
}

static const struct bh_carrier_ops carrier_ops = {.start = start, .cancel = cancel, .failed = changed};

/* --- the program -------------------------------------------------------------------------- */

/* The last packet, an empty one, comes of the end of the file. */
static void load(struct stream *s, const char *path)
{
	FILE *f = fopen(path, "rb");
	struct packet *p;

	if (!f)
		err(1, "%s", path);
	do {
		if ((s->count & (s->count - 1)) == 0) /* 0 and powers of two: time to double */
			s->packets = realloc(s->packets, (s->count * 2 + 1) * sizeof(*p));
		if (!s->packets)
			errx(1, "%s: too large for memory", path);
		p = &s->packets[s->count++];
		*p = (struct packet){.length = 0};
		p->length = (uint32_t)fread(p->data, 1, PACKET, f);
	} while (p->length);
	if (ferror(f))
		err(1, "%s", path);
	fclose(f);
}

static int dial(const char *host, const char *port)
{
	struct addrinfo wanted = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *a;
	int fd, r = getaddrinfo(host, port, &wanted, &a);

	if (r)
		errx(1, "%s:%s: %s", host, port, gai_strerror(r));
	fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, a->ai_addr, a->ai_addrlen) || fcntl(fd, F_SETFL, O_NONBLOCK))
		err(1, "%s:%s", host, port);
	freeaddrinfo(a);
	return fd;
}

/* Offers the packet at the head until there is none. "Busy": the socket is full. */
static void run(struct stream *s)
{
	struct pollfd p = {.fd = s->fd, .events = POLLOUT};
	struct bh_descriptor head;

	while (!s->failed && describe(&s->source, s->head, 0, &head) == BH_FOUND)
		if (bh_destination_offer(&s->destination, &head) == BH_ANSWER_BUSY && poll(&p, 1, -1) > 0)
			carry(s);
}

/* The far side closes when it has read the empty record; if it does anything else, it did not. */
static void say_goodbye(struct stream *s)
{
	struct pollfd p = {.fd = s->fd, .events = POLLIN};
	char byte;
	ssize_t n;

	shutdown(s->fd, SHUT_WR);
	if (poll(&p, 1, GOODBYE_MS) <= 0) {
		s->error = ETIMEDOUT;
		return;
	}
	n = recv(s->fd, &byte, 1, 0);
	if (n)
		s->error = n < 0 ? errno : EPROTO;
}

int main(int argc, char **argv)
{
	static struct stream s = {.source.ops = &source_ops};
	struct bh_engine_config config = BH_ENGINE_DEFAULTS;

	if (argc != 4)
		errx(1, "say \"stream FILE HOST PORT\"");
	load(&s, argv[1]);
	s.fd = dial(argv[2], argv[3]);
	config.max_batch_bytes = BATCH;
	bh_engine_init(&s.engine, &s.source, &config);
	bh_destination_init(&s.destination, &s.engine, &carrier_ops, 0, false, PACKET);
	s.destination.finishes = true; /* a peer that reads slowly is no reason to break a batch up */

	run(&s);
	if (!s.failed)
		say_goodbye(&s);
	printf("%zu of %zu packets, %llu batches, %lu system calls, %llu times busy\n", s.head, s.count,
	       (unsigned long long)s.engine.counters.batches, s.calls, (unsigned long long)s.engine.counters.busy);
	if (s.error)
		warnx("%s:%s went away after packet %zu of %zu: %s", argv[2], argv[3], s.head, s.count, strerror(s.error));
	bh_destination_finish(&s.destination);
	close(s.fd);
	free(s.packets);
	return s.error || s.failed;
}
