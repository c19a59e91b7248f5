/*
 * The law of translation: whatever a guest and a device do, the same transfers with the same ends come
 * through. A guest that is a program of random requests sits on the real bus and engine; behind it is a
 * byte-stream device with packets of 64 (without the layer), 512 or 1024 bytes (with it). What has to come
 * out is said by an oracle of its own, which knows the rules of docs/translation.md and nothing of
 * batches, time or packets under way. Where no rule has to guess, it says the same for all sizes, and
 * that is compared as well.
 *
 * The device acts when the program says, not when it is asked, and in parts; batches are cut anywhere,
 * linger, are taken off and put back by the guest. A program is its seed: BULKHEAD_TEST_SEED runs one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <layer/layers.h>
#include <usb/bus.h>

#include "../../src/layer/translate.h"

#define GUEST_PACKET  64u
#define MOST_REQUESTS 20u
#define MOST_PACKETS  40u /* of a request */
#define MOST_BYTES    (MOST_PACKETS * GUEST_PACKET)
#define MOST_JOINED   4u
#define MOST_STREAM   (MOST_REQUESTS * MOST_BYTES)

static uint64_t random_state;

static uint32_t draw(uint32_t below)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t)((random_state * 0x2545f4914f6cdd1du) >> 33) % below;
}

static bool chance(uint32_t in)
{
	return draw(in) == 0;
}

static void seed_random(uint64_t seed)
{
	random_state = (seed + 1) * 0x9e3779b97f4a7c15u;
	draw(2);
}

/* --- the program ------------------------------------------------------------------------ */

enum what { REQUEST, STANDS_STILL };

/* One request of the guest's. */
struct request {
	enum what what;
	uint32_t length;
	bool empty;    /* OUT: ends in an empty packet (URB_ZERO_PACKET) */
	bool notify;   /* IOC on the last */
	uint32_t part; /* shown so many descriptors at a time */
	bool joined;   /* OUT: the next is queued behind it at the same time */
};

struct program {
	struct request requests[2][MOST_REQUESTS]; /* [in] */
	unsigned count[2];
	uint32_t messages[MOST_REQUESTS]; /* IN: how long each is that the device sends */
	unsigned message_count;
	uint32_t refused; /* OUT: the device refuses the transfer with this number */
	uint32_t batch_bytes, batch_descriptors;
};

/* Lengths where something happens. */
static uint32_t draw_length(void)
{
	static const uint32_t special[] = {0, 1, 31, 63, 64, 65, 128, 448, 511, 512, 513, 576, 1023, 1024, 1025, 1536, 2048};

	switch (draw(3)) {
	case 0:
		return special[draw(BH_COUNT(special))];
	case 1:
		return draw(MOST_PACKETS + 1) * GUEST_PACKET;
	}
	return draw(MOST_BYTES + 1);
}

static bool can_join(const struct request *r)
{
	return r->what == REQUEST && r->part > MOST_PACKETS;
}

static void draw_program(struct program *p)
{
	memset(p, 0, sizeof(*p));
	for (unsigned in = 0; in < 2; in++) {
		p->count[in] = draw(MOST_REQUESTS + 1);
		for (unsigned i = 0; i < p->count[in]; i++) {
			struct request *r = &p->requests[in][i];

			r->what = !in && chance(6) ? STANDS_STILL : REQUEST;
			/* IN: whole packets, for a last one that is too small for the device's babbles, as on any bus. */
			r->length = in ? (1 + draw(MOST_PACKETS)) * GUEST_PACKET : draw_length();
			r->empty = !in && r->length % GUEST_PACKET == 0 && r->length && chance(3);
			r->notify = !chance(3);
			r->part = chance(4) ? 1 + draw(9) : MOST_PACKETS + 1;
		}
	}
	p->message_count = draw(MOST_REQUESTS + 1);
	for (unsigned i = 0; i < p->message_count; i++)
		p->messages[i] = draw_length();
	p->refused = chance(4) ? draw(6) : UINT32_MAX;
	for (unsigned i = 0, run = 1; i + 1 < p->count[0] && p->refused == UINT32_MAX; i++) {
		p->requests[0][i].joined = run < MOST_JOINED && chance(3) && can_join(&p->requests[0][i]) && can_join(&p->requests[0][i + 1]);
		run = p->requests[0][i].joined ? run + 1 : 1;
	}
	p->batch_bytes = chance(3) ? 64 + draw(2048) : 1 << 20;
	p->batch_descriptors = chance(4) ? 1 + draw(5) : 4096;
}

static uint8_t out_byte(unsigned request, uint32_t i)
{
	return (uint8_t)(i * 7 + (i >> 8) * 31 + request * 13 + 1);
}

static uint8_t in_byte(unsigned message, uint32_t i)
{
	return (uint8_t)(i * 5 + (i >> 8) * 17 + message * 11 + 2);
}

/* --- what comes of it -------------------------------------------------------------------- */

enum end { NOT_ENDED, FULL, SHORT, FAILED };

struct results {
	enum end ends[2][MOST_REQUESTS]; /* of the guest's requests, [in] */
	uint32_t bytes[MOST_REQUESTS];   /* that an IN got */
	uint8_t in[MOST_STREAM];         /* all that the guest got */
	uint32_t in_length;
	uint8_t out[MOST_STREAM];        /* all that the device took */
	uint32_t out_length;
	uint32_t transfers[MOST_REQUESTS * 2]; /* where each transfer to the device ended in it */
	unsigned transfer_count;
	unsigned guesses; /* the oracle's only */
};

/* --- the oracle ----------------------------------------------------------------------------- */

struct oracle {
	const struct program *program;
	struct results *r;
	uint32_t packet; /* the device's */
	uint32_t open;   /* OUT: bytes since the last end */
	bool guessed;    /* OUT: that end was */
	bool refused;    /* OUT: a transfer was, already */
	bool failed;     /* OUT: to be said at the next packet */
	unsigned message; /* IN: which, */
	uint32_t taken;   /* and how much of it has gone */
};

static bool is_refused(const struct oracle *o)
{
	return !o->refused && o->r->transfer_count == o->program->refused;
}

static void refuse(struct oracle *o)
{
	o->refused = true;
	o->r->out_length -= o->open;
	o->open = 0;
}

static void end_transfer(struct oracle *o)
{
	o->r->transfers[o->r->transfer_count++] = o->r->out_length;
	o->open = 0;
}

static enum end oracle_out(struct oracle *o, const struct request *q, unsigned number)
{
	bool told = q->length % GUEST_PACKET || q->empty || !q->length, guess;

	if (o->failed) {
		o->failed = false;
		return FAILED;
	}
	if (!q->length && o->guessed) {
		o->guessed = false; /* rule 6: it was told before */
		return FULL;
	}
	o->guessed = false;
	for (uint32_t i = 0; i < q->length; i++)
		o->r->out[o->r->out_length++] = out_byte(number, i);
	o->open += q->length;
	guess = !told && q->notify && !q->joined && o->open % o->packet;
	if (is_refused(o) && (told || guess || o->open >= o->packet)) {
		refuse(o);
		return FAILED;
	}
	if (told || guess)
		end_transfer(o);
	o->guessed = guess;
	o->r->guesses += guess;
	return FULL;
}

static void oracle_stands_still(struct oracle *o)
{
	if (o->open % o->packet == 0)
		return;
	o->r->guesses++;
	if (is_refused(o)) {
		refuse(o);
		o->failed = true;
		return;
	}
	end_transfer(o);
	o->guessed = true;
}

/* So much room is shown at once. */
static enum end oracle_in_part(struct oracle *o, uint32_t room, uint32_t *bytes)
{
	uint32_t length, n;

	if (o->message == o->program->message_count)
		return NOT_ENDED;
	length = o->program->messages[o->message];
	n = BH_MIN(room, length - o->taken);
	for (uint32_t i = 0; i < n; i++)
		o->r->in[o->r->in_length++] = in_byte(o->message, o->taken + i);
	o->taken += n;
	*bytes += n;
	if (o->taken < length)
		return FULL;
	if (n == room && length % o->packet == 0)
		return FULL; /* its empty packet is still to come */
	o->message++;
	o->taken = 0;
	o->r->guesses += n == room; /* rule 8: nobody has asked beyond */
	return n < room ? SHORT : FULL;
}

static enum end oracle_in(struct oracle *o, const struct request *q, uint32_t *bytes)
{
	enum end end = FULL;

	for (uint32_t shown = 0, n; shown < q->length && end == FULL; shown += n) {
		n = BH_MIN(q->length - shown, q->part * GUEST_PACKET);
		end = oracle_in_part(o, n, bytes);
	}
	return end;
}

static void predict(const struct program *p, uint32_t packet, struct results *r)
{
	struct oracle o = {.program = p, .r = r, .packet = packet};

	memset(r, 0, sizeof(*r));
	for (unsigned i = 0; i < p->count[0]; i++) {
		if (p->requests[0][i].what == STANDS_STILL)
			oracle_stands_still(&o);
		else
			r->ends[0][i] = oracle_out(&o, &p->requests[0][i], i);
	}
	r->out_length -= o.open % packet; /* that is still kept */
	for (unsigned i = 0; i < p->count[1] && (!i || r->ends[1][i - 1]); i++)
		r->ends[1][i] = oracle_in(&o, &p->requests[1][i], &r->bytes[i]);
}

/* --- the device --------------------------------------------------------------------------------- */

static struct {
	struct bh_device device;
	const struct program *program;
	struct results *r;
	uint32_t packet;
	struct bh_transfer *held[2];
	bool configured, halted, refused;
	uint32_t open; /* OUT: bytes since the last end */
	unsigned message;
	uint32_t taken;
	uint8_t configuration[9 + 9 + 7 + 7];
	const uint8_t *configurations[1];
	struct bh_endpoint_info endpoints[2];
} dev;

static const uint8_t device_descriptor[18] = {18, 1, 0, 2, 0xff, 0, 0, 64, 1, 2, 3, 4, 0, 1, 0, 0, 0, 1};

static void end_held(bool in, enum bh_status status)
{
	struct bh_transfer *t = dev.held[in];

	dev.held[in] = NULL;
	bh_transfer_done(t, status, t->actual);
}

/* One packet is taken, or refused. */
static void take_packet(void)
{
	struct bh_transfer *t = dev.held[0];
	uint32_t n = BH_MIN(t->length - t->actual, dev.packet);
	bool empty_follows = t->flags & BH_TRANSFER_ZERO_PACKET && t->length % dev.packet == 0;

	if (dev.halted || (!dev.refused && !dev.open && dev.r->transfer_count == dev.program->refused)) {
		dev.halted = dev.refused = true;
		end_held(false, BH_STALL);
		return;
	}
	assert_true(dev.r->out_length + n <= MOST_STREAM);
	bh_transfer_read(t, t->actual, dev.r->out + dev.r->out_length, n);
	dev.r->out_length += n;
	dev.open += n;
	t->actual += n;
	if (n < dev.packet) {
		assert_true(dev.r->transfer_count < BH_COUNT(dev.r->transfers));
		dev.r->transfers[dev.r->transfer_count++] = dev.r->out_length;
		dev.open = 0;
	}
	if (n < dev.packet || (t->actual == t->length && !empty_follows))
		end_held(false, BH_SUCCESS);
	else if (chance(2))
		bh_transfer_progress(t, t->actual);
}

static void send_packet(void)
{
	struct bh_transfer *t = dev.held[1];
	uint8_t bytes[1024];
	uint32_t n;

	if (dev.message == dev.program->message_count)
		return;
	n = BH_MIN(dev.program->messages[dev.message] - dev.taken, dev.packet);
	assert_true(t->length - t->actual >= dev.packet);
	for (uint32_t i = 0; i < n; i++)
		bytes[i] = in_byte(dev.message, dev.taken + i);
	bh_transfer_write(t, t->actual, bytes, n);
	t->actual += n;
	dev.taken += n;
	if (n < dev.packet) {
		dev.message++;
		dev.taken = 0;
	}
	if (n < dev.packet || t->actual == t->length)
		end_held(true, BH_SUCCESS);
	else if (chance(2))
		bh_transfer_progress(t, t->actual);
}

static void dev_submit(struct bh_device *d, struct bh_transfer *t)
{
	bool in = t->endpoint & BH_ENDPOINT_IN;

	(void)d;
	if (t->type == BH_CONTROL) {
		bh_transfer_done(t, BH_STALL, 0);
		return;
	}
	assert_null(dev.held[in]);
	assert_true(!in || t->length % dev.packet == 0);
	dev.held[in] = t;
	for (unsigned i = chance(2) ? draw(40) : 0; i && dev.held[in]; i--)
		in ? send_packet() : take_packet();
}

static void dev_cancel(struct bh_device *d, struct bh_transfer *t)
{
	bool in = t->endpoint & BH_ENDPOINT_IN;

	(void)d;
	if (dev.held[in] == t)
		end_held(in, BH_CANCELLED);
}

static void dev_reset(struct bh_device *d)
{
	(void)d;
	assert_true(!dev.held[0] && !dev.held[1]);
}

static void dev_set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	(void)d;
	dev.configured = value;
	bh_transfer_done(t, BH_SUCCESS, 0);
}

static void dev_set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate, struct bh_transfer *t)
{
	(void)d, (void)interface, (void)alternate;
	bh_transfer_done(t, BH_STALL, 0);
}

static void dev_clear_halt(struct bh_device *d, uint8_t endpoint, struct bh_transfer *t)
{
	(void)d, (void)endpoint;
	dev.halted = false;
	bh_transfer_done(t, BH_SUCCESS, 0);
}

static const struct bh_endpoint_info *dev_endpoint(const struct bh_device *d, uint8_t address)
{
	(void)d;
	for (unsigned i = 0; dev.configured && i < 2; i++)
		if (dev.endpoints[i].address == address)
			return &dev.endpoints[i];
	return NULL;
}

static struct bh_descriptors dev_descriptors(const struct bh_device *d)
{
	(void)d;
	return (struct bh_descriptors){device_descriptor, dev.configurations, 1};
}

static void dev_destroy(struct bh_device *d)
{
	(void)d;
	assert_true(!dev.held[0] && !dev.held[1]);
}

static const struct bh_device_ops dev_ops = {
	.submit = dev_submit,
	.cancel = dev_cancel,
	.reset = dev_reset,
	.set_configuration = dev_set_configuration,
	.set_interface = dev_set_interface,
	.clear_halt = dev_clear_halt,
	.endpoint = dev_endpoint,
	.descriptors = dev_descriptors,
	.destroy = dev_destroy,
};

static void dev_init(const struct program *p, uint32_t packet, struct results *r)
{
	const uint8_t size[2] = {(uint8_t)packet, (uint8_t)(packet >> 8)};
	const uint8_t configuration[] = {
		9, 2, sizeof(dev.configuration), 0, 1, 1, 0, 0x80, 50,
		9, 4, 0, 0, 2, 0xff, 0, 0, 0,
		7, 5, 0x81, 2, size[0], size[1], 0,
		7, 5, 0x01, 2, size[0], size[1], 0,
	};

	memset(&dev, 0, sizeof(dev));
	memcpy(dev.configuration, configuration, sizeof(configuration));
	dev.configurations[0] = dev.configuration;
	for (unsigned in = 0; in < 2; in++)
		dev.endpoints[in] = (struct bh_endpoint_info){
			.address = in ? 0x81 : 0x01, .type = BH_BULK, .max_packet = (uint16_t)packet,
		};
	dev.device = (struct bh_device){
		.ops = &dev_ops,
		.speed = packet == 64 ? BH_SPEED_FULL : packet == 512 ? BH_SPEED_HIGH : BH_SPEED_SUPER,
		.control_max_packet = 64,
	};
	dev.program = p;
	dev.packet = packet;
	dev.r = r;
}

/* --- the guest: a source of descriptors ---------------------------------------------------------- */

struct td {
	struct bh_descriptor d;
	unsigned request;
	bool last; /* of it */
	uint8_t data[GUEST_PACKET];
	bool retired;
	uint32_t actual;
	enum bh_status status;
};

static struct {
	struct bh_source source;
	struct td tds[2][MOST_JOINED * (MOST_PACKETS + 2)]; /* of the requests under way: */
	unsigned count[2], shown[2], head[2]; /* all of them, those linked, the first that is active */
	unsigned request[2]; /* the first of them that has not ended; count[] 0: none is queued */
	unsigned next[2];    /* the first that was not queued */
	bool toggle[2];
	uint64_t next_id;
	unsigned off[2]; /* taken off for so many frames */
	struct td control;
} guest;

static struct td *td_of(const struct bh_descriptor *d)
{
	if (d->id == guest.control.d.id)
		return &guest.control;
	for (unsigned i = 0; i < guest.count[d->in]; i++)
		if (guest.tds[d->in][i].d.id == d->id)
			return &guest.tds[d->in][i];
	return NULL;
}

static enum bh_found source_next(struct bh_source *s, const struct bh_descriptor *after, struct bh_descriptor *ret)
{
	struct td *td = td_of(after);
	unsigned i;

	(void)s;
	if (!td || td == &guest.control)
		return BH_FOUND_INVALID;
	i = (unsigned)(td - guest.tds[after->in]) + 1;
	if (i >= guest.shown[after->in])
		return BH_FOUND_SUBLIST;
	*ret = guest.tds[after->in][i].d;
	return BH_FOUND;
}

static bool source_read(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, void *to, uint32_t length)
{
	(void)s;
	memcpy(to, td_of(d)->data + offset, length);
	return true;
}

static bool source_write(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, const void *from, uint32_t length)
{
	(void)s;
	memcpy(td_of(d)->data + offset, from, length);
	return true;
}

static bool source_equal(struct bh_source *s, const struct bh_descriptor *d, uint32_t offset, const void *bytes, uint32_t length)
{
	struct td *td = td_of(d);

	(void)s;
	return td && !memcmp(td->data + offset, bytes, length);
}

static bool source_retire(struct bh_source *s, const struct bh_descriptor *d, uint32_t actual, enum bh_status status)
{
	struct td *td = td_of(d);

	(void)s;
	assert_false(td->retired);
	td->retired = true;
	td->actual = actual;
	td->status = status;
	return true;
}

static void source_ready(struct bh_source *s)
{
	(void)s;
}

static const struct bh_source_ops source_ops = {
	.next = source_next,
	.read = source_read,
	.write = source_write,
	.equal = source_equal,
	.retire = source_retire,
	.ready = source_ready,
};

static void connected(struct bh_bus *b, unsigned port, bool on)
{
	(void)b, (void)port, (void)on;
}

static void wakeup(struct bh_bus *b, unsigned port)
{
	(void)b, (void)port;
}

static const struct bh_bus_upcalls bus_upcalls = {.connected = connected, .wakeup = wakeup};

static struct bh_bus bus;

/* A request without data, to its end. */
static void control(uint8_t type, uint8_t request, uint8_t value, uint8_t index)
{
	const uint8_t setup[8] = {type, request, value, 0, index};
	struct bh_token token = {.pid = BH_PID_SETUP};
	enum bh_answer answer;

	for (unsigned stage = 0; stage < 2; stage++) {
		token.pid = stage ? BH_PID_IN : BH_PID_SETUP;
		guest.control = (struct td){.d = {
			.id = ++guest.next_id, .chain = 9, .destination = bh_token_destination(&token), .length = stage ? 0 : 8, .in = stage,
		}};
		memcpy(guest.control.data, setup, sizeof(setup));
		do
			answer = bh_bus_offer(&bus, &token, &guest.control.d);
		while (answer == BH_ANSWER_BUSY);
		assert_int_equal(answer, BH_ANSWER_RETIRED);
		assert_int_equal(guest.control.status, BH_SUCCESS);
	}
}

/* --- the guest: what it does ------------------------------------------------------------------------ */

static void queue_one(const struct request *q, bool in, unsigned number)
{
	uint32_t at = 0, n;
	unsigned i = guest.count[in];

	do {
		struct bh_token token = {.pid = in ? BH_PID_IN : BH_PID_OUT, .endpoint = 1};
		struct td *td = &guest.tds[in][i++];

		n = BH_MIN(q->length - at, GUEST_PACKET);
		*td = (struct td){.request = number, .d = {
			.id = ++guest.next_id, .chain = 1 + in, .destination = bh_token_destination(&token), .buffer = at,
			.length = n, .in = in, .toggle = guest.toggle[in],
		}};
		for (uint32_t b = 0; b < n && !in; b++)
			td->data[b] = out_byte(number, at + b);
		guest.toggle[in] = !guest.toggle[in];
		at += n;
	} while (at < q->length || (q->empty && n == GUEST_PACKET));
	guest.tds[in][i - 1].last = true;
	guest.tds[in][i - 1].d.notify = q->notify;
	guest.count[in] = i;
}

/* The next, and those joined to it. */
static void queue(const struct program *p, bool in)
{
	unsigned number = guest.next[in];

	guest.request[in] = number;
	guest.head[in] = 0;
	for (unsigned i = 0; i < MOST_JOINED; i++) {
		queue_one(&p->requests[in][number + i], in, number + i);
		guest.next[in]++;
		if (!p->requests[in][number + i].joined)
			break;
	}
	guest.shown[in] = BH_MIN(p->requests[in][number].part, guest.count[in]);
	if (guest.next[in] > number + 1)
		guest.shown[in] = guest.count[in];
}

static void end_request(struct results *r, bool in, enum end end)
{
	r->ends[in][guest.request[in]++] = end;
	if (end == FULL && guest.request[in] < guest.next[in])
		return;
	guest.count[in] = 0;
	if (end == FAILED)
		control(0x02, 1, 0, in ? 0x81 : 0x01); /* CLEAR_FEATURE(ENDPOINT_HALT) */
}

/* What has become of those retired. */
static void look(struct results *r, bool in)
{
	while (guest.count[in] && guest.head[in] < guest.shown[in] && guest.tds[in][guest.head[in]].retired) {
		struct td *td = &guest.tds[in][guest.head[in]++];

		if (td->status != BH_SUCCESS) {
			assert_int_equal(td->status, BH_STALL);
			end_request(r, in, FAILED);
			return;
		}
		if (in) {
			assert_true(r->in_length + td->actual <= MOST_STREAM);
			memcpy(r->in + r->in_length, td->data, td->actual);
			r->in_length += td->actual;
			r->bytes[td->request] += td->actual;
		} else {
			assert_int_equal(td->actual, td->d.length);
		}
		if (in && td->actual < td->d.length)
			end_request(r, in, SHORT);
		else if (td->last)
			end_request(r, in, FULL);
	}
	if (guest.count[in] && guest.head[in] == guest.shown[in])
		guest.shown[in] = BH_MIN(guest.count[in], guest.shown[in] + dev.program->requests[in][guest.request[in]].part);
}

static void offer(struct results *r, bool in)
{
	struct bh_token token = {.pid = in ? BH_PID_IN : BH_PID_OUT, .endpoint = 1};

	while (guest.count[in] && !guest.off[in]) {
		if (bh_bus_offer(&bus, &token, &guest.tds[in][guest.head[in]].d) != BH_ANSWER_RETIRED)
			return;
		look(r, in);
	}
}

/* --- running it ----------------------------------------------------------------------------------------- */

static const struct bh_layer_context context;

static void run(const struct program *p, uint32_t packet, struct results *r, const struct results *wanted)
{
	struct bh_engine_config config = BH_ENGINE_DEFAULTS;
	struct bh_device *device = &dev.device;
	char error[BH_LAYER_ERROR_SIZE];
	unsigned idle = 0;
	uint64_t now = 0, frame = 0;

	memset(r, 0, sizeof(*r));
	memset(&guest, 0, sizeof(guest));
	guest.source.ops = &source_ops;
	dev_init(p, packet, r);
	if (packet > 64)
		assert_int_equal(bh_layers_put(&context, "translate", &device, error), 0);
	config.max_batch_bytes = p->batch_bytes;
	config.max_batch_descriptors = p->batch_descriptors;
	config.linger_us = 300;
	bh_bus_init(&bus, 1, &guest.source, &bus_upcalls, &config);
	assert_int_equal(bh_bus_attach(&bus, 0, device), 0);
	bh_bus_port_reset(&bus, 0);
	bh_bus_port_enable(&bus, 0, true);
	control(0x00, 9, 1, 0);
	while (idle < 400) {
		bool moved = false;

		for (unsigned in = 0; in < 2; in++) {
			if (!guest.count[in] && guest.next[in] < p->count[in]) {
				if (p->requests[in][guest.next[in]].what == REQUEST) {
					queue(p, in);
				} else if (packet == 64 || !dev.held[0]) {
					guest.next[in]++;
					if (packet > 64)
						bh_translate_stand_still(device);
				}
				moved = true;
			}
			offer(r, in);
			moved |= guest.count[in] && (!in || wanted->ends[1][guest.request[1]] != NOT_ENDED);
			if (guest.count[in] && !guest.off[in] && chance(60))
				guest.off[in] = 34 + draw(10);
		}
		bh_engine_pass_done(&bus.engine);
		for (unsigned in = 0; in < 2; in++)
			for (unsigned i = draw(6); i && dev.held[in]; i--)
				in ? send_packet() : take_packet();
		now += draw(120);
		for (unsigned i = chance(3) ? 1 + draw(12) : 0; i; i--) {
			bh_engine_frame(&bus.engine, ++frame);
			guest.off[0] -= guest.off[0] > 0;
			guest.off[1] -= guest.off[1] > 0;
		}
		bh_bus_tick(&bus, now);
		idle = moved ? 0 : idle + 1;
		assert_true(frame < 1000000);
	}
	bh_bus_finish(&bus);
}

static uint64_t seed_now;

#define require(what)                                                                                          \
	do {                                                                                                   \
		if (!(what))                                                                                   \
			fail_msg("seed %llu, packets of %u: %s", (unsigned long long)seed_now, packet, #what); \
	} while (0)

static void compare(const struct results *is, const struct results *wanted, uint32_t packet)
{
	require(!memcmp(is->ends[0], wanted->ends[0], sizeof(is->ends[0])));
	require(!memcmp(is->ends[1], wanted->ends[1], sizeof(is->ends[1])));
	for (unsigned i = 0; i < MOST_REQUESTS; i++)
		require(wanted->ends[1][i] == NOT_ENDED || is->bytes[i] == wanted->bytes[i]);
	require(is->in_length >= wanted->in_length && !memcmp(is->in, wanted->in, wanted->in_length));
	require(is->transfer_count == wanted->transfer_count);
	require(!memcmp(is->transfers, wanted->transfers, sizeof(is->transfers)));
	require(is->out_length == wanted->out_length && !memcmp(is->out, wanted->out, is->out_length));
}

static unsigned guessed, decided;

static void try(uint64_t seed)
{
	static const uint32_t packets[] = {64, 512, 1024};
	static struct results is, wanted, plain;
	struct program p;

	seed_now = seed;
	seed_random(seed);
	draw_program(&p);
	for (unsigned i = 0; i < BH_COUNT(packets); i++) {
		predict(&p, packets[i], &wanted);
		if (i == 0)
			plain = wanted;
		run(&p, packets[i], &is, &wanted);
		compare(&is, &wanted, packets[i]);
		guessed += wanted.guesses > 0;
		if (wanted.guesses || p.refused != UINT32_MAX)
			continue;
		/* Nothing was undecided: it has to be what it is at full speed, but for what is still kept. */
		decided++;
		wanted.out_length = plain.out_length;
		memcpy(wanted.out, plain.out, sizeof(wanted.out));
		if (memcmp(&wanted.transfers, &plain.transfers, sizeof(plain.transfers)) || memcmp(wanted.ends, plain.ends, sizeof(plain.ends)))
			fail_msg("seed %llu: the oracle contradicts itself", (unsigned long long)seed);
	}
}

static void the_same_transfers_with_the_same_ends_come_through(void **state)
{
	const char *seed = getenv("BULKHEAD_TEST_SEED");
#ifdef __SANITIZE_ADDRESS__
	unsigned long count = 5000;
#else
	unsigned long count = getenv("BULKHEAD_TEST_LONG") ? 2000000 : 100000;
#endif

	(void)state;
	if (seed) {
		try(strtoull(seed, NULL, 10));
		return;
	}
	for (uint64_t i = 0; i < count; i++)
		try(i);
	print_message("# %lu programs, three packet sizes each: %u runs where a rule had to guess, %u where none had to\n", count,
	              guessed, decided);
	assert_true(guessed > count / 10 && decided > count / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_transfers_with_the_same_ends_come_through),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
