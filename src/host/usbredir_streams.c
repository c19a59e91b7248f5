/*
 * What flows by itself, once it is started: interrupt IN, which the other side polls, and
 * isochronous packets both ways. Each endpoint is a stream; it begins with the first transfer,
 * and ends where its interface is set up anew, or the device is reset.
 *
 *   IDLE --first transfer--> start message --> RUNNING --stop message--> IDLE
 *     ^------- refused, or the other side says that it has stopped --------'
 *
 * What was on its way when a stream was stopped still comes: it is passed over until the stop
 * is answered. Packets that come while no transfer waits for them are kept, up to a bound:
 * of interrupt packets the oldest are, for what follows makes little sense without them; of
 * isochronous ones the newest, for what is late is worth nothing.
 */
#include "usbredir_private.h"

#include <stdlib.h>
#include <string.h>

#include <base/util.h>

#define INTERRUPT_PACKETS 32u
#define ISO_PACKETS       32u

/* What the other side has in flight towards its device: four times 8 ms of a full-speed bus; OUT it fills half before it begins. */
#define ISO_PACKETS_EACH 8u
#define ISO_IN_URBS      4u
#define ISO_OUT_URBS     8u

/* Packets that nobody fetches, after which an isochronous stream is stopped. */
#define ISO_IDLE_PACKETS 256u

/* A gap in the numbers of packets longer than that is a stream that was begun anew. */
#define ISO_LONGEST_GAP 1024u

/* An isochronous stream that does not start is tried again after so long. */
#define ISO_RETRY_MS 1000u

/* Bytes waiting for the socket, beyond which isochronous packets are not added. */
#define ISO_OUTPUT (256u * 1024)

struct kept {
	enum bh_status status;
	uint32_t length;
};

struct bh_redir_stream {
	uint8_t endpoint, interface;
	enum bh_endpoint_type type;
	uint16_t max_packet;
	bool running;
	unsigned stops; /* not answered yet */
	uint64_t retry_ms;
	struct bh_list transfers; /* IN, in order; device_data: what is filled, in bytes (interrupt) or packets */

	/* isochronous */
	uint32_t number; /* OUT: of the next packet; IN: the same, if known */
	bool number_known;
	unsigned idle;

	/* IN: what nobody has fetched, a ring */
	struct kept *kept;
	uint8_t *bytes; /* of the one at i: i * max_packet */
	unsigned room, first, count;
};

static bool is_in(const struct bh_redir_stream *s)
{
	return s->endpoint & BH_ENDPOINT_IN;
}

static struct bh_redir_stream **slot(struct bh_redir *u, uint8_t endpoint)
{
	return &u->streams[(endpoint & 15) + (endpoint & BH_ENDPOINT_IN ? 16 : 0)];
}

/* --- what is kept ------------------------------------------------------------------------------- */

static void forget_kept(struct bh_redir_stream *s)
{
	free(s->kept);
	free(s->bytes);
	s->kept = NULL;
	s->bytes = NULL;
	s->room = s->first = s->count = 0;
}

static bool make_room(struct bh_redir_stream *s)
{
	unsigned room = s->type == BH_INTERRUPT ? INTERRUPT_PACKETS : ISO_PACKETS;

	forget_kept(s);
	s->kept = calloc(room, sizeof(*s->kept));
	s->bytes = malloc((size_t)room * s->max_packet);
	if (!s->kept || !s->bytes) {
		forget_kept(s);
		return false;
	}
	s->room = room;
	return true;
}

static void drop_first(struct bh_redir_stream *s)
{
	s->first = (s->first + 1) % s->room;
	s->count--;
}

/* length: at most max_packet, and 0 where it failed. */
static void keep(struct bh_redir *u, struct bh_redir_stream *s, enum bh_status status, const uint8_t *data, uint32_t length)
{
	unsigned at;

	if (s->count == s->room) {
		u->counters.dropped++;
		if (s->type == BH_INTERRUPT)
			return;
		drop_first(s);
	}
	at = (s->first + s->count++) % s->room;
	s->kept[at] = (struct kept){.status = status, .length = length};
	if (length)
		memcpy(s->bytes + (size_t)at * s->max_packet, data, length);
}

/* --- transfers ------------------------------------------------------------------------------------ */

static uint32_t filled(const struct bh_transfer *t)
{
	return (uint32_t)(uintptr_t)t->device_data;
}

static void end(struct bh_redir *u, struct bh_transfer *t, enum bh_status status)
{
	uint32_t actual = t->type == BH_INTERRUPT ? filled(t) : 0;

	bh_list_remove(&t->device_link);
	t->device_data = NULL;
	u->counters.errors += status != BH_SUCCESS && status != BH_CANCELLED;
	bh_transfer_done(t, status, actual);
}

/* Packets from the given one on did not have their turn. */
static void fail_packets(struct bh_transfer *t, uint32_t from)
{
	for (uint32_t i = from; i < t->packet_count; i++) {
		t->packets[i].status = BH_NO_RESPONSE;
		t->packets[i].actual = 0;
	}
}

/* Those that are there now; one that ends may bring another. */
static void end_all(struct bh_redir *u, struct bh_redir_stream *s, enum bh_status status)
{
	unsigned n = 0;

	for (struct bh_list *l = s->transfers.next; l != &s->transfers; l = l->next)
		n++;
	while (n-- && !bh_list_empty(&s->transfers)) {
		struct bh_transfer *t = bh_container_of(s->transfers.next, struct bh_transfer, device_link);

		if (t->type == BH_ISOCHRONOUS)
			fail_packets(t, filled(t));
		end(u, t, status);
	}
}

/* The first that is kept is the next packet of the transfer. True: the transfer has ended with it. */
static bool give_interrupt(struct bh_redir *u, struct bh_redir_stream *s, struct bh_transfer *t)
{
	struct kept k = s->kept[s->first];
	uint32_t at = filled(t);

	if (k.length > t->length - at)
		k = (struct kept){.status = BH_BABBLE};
	if (k.length)
		bh_transfer_write(t, at, s->bytes + (size_t)s->first * s->max_packet, k.length);
	drop_first(s);
	at += k.length;
	u->counters.bytes_in += k.length;
	t->device_data = (void *)(uintptr_t)at;
	if (k.status == BH_SUCCESS && k.length == s->max_packet && at < t->length)
		return false;
	end(u, t, k.status);
	return true;
}

static bool give_iso(struct bh_redir *u, struct bh_redir_stream *s, struct bh_transfer *t)
{
	struct kept k = s->kept[s->first];
	uint32_t at = filled(t);
	struct bh_packet *p = &t->packets[at];

	if (k.length > p->length)
		k = (struct kept){.status = BH_BABBLE};
	if (k.length)
		bh_transfer_write(t, p->offset, s->bytes + (size_t)s->first * s->max_packet, k.length);
	drop_first(s);
	p->status = k.status;
	p->actual = k.length;
	u->counters.bytes_in += k.length;
	t->device_data = (void *)(uintptr_t)(at + 1);
	if (at + 1 < t->packet_count)
		return false;
	end(u, t, BH_SUCCESS);
	return true;
}

/* A transfer that ends may bring the next one, and that this again: so everything is looked at anew. */
static void give(struct bh_redir *u, struct bh_redir_stream *s)
{
	while (s->count && !bh_list_empty(&s->transfers)) {
		struct bh_transfer *t = bh_container_of(s->transfers.next, struct bh_transfer, device_link);

		if (s->type == BH_INTERRUPT)
			give_interrupt(u, s, t);
		else
			give_iso(u, s, t);
	}
}

/* --- starting and stopping ---------------------------------------------------------------------------- */

static void send_start(struct bh_redir *u, const struct bh_redir_stream *s, uint32_t id)
{
	struct usb_redir_start_interrupt_receiving_header interrupt = {.endpoint = s->endpoint};
	struct usb_redir_start_iso_stream_header iso = {
		.endpoint = s->endpoint,
		.pkts_per_urb = ISO_PACKETS_EACH,
		.no_urbs = is_in(s) ? ISO_IN_URBS : ISO_OUT_URBS,
	};

	if (s->type == BH_INTERRUPT)
		bh_redir_send(u, start_interrupt_receiving, id, &interrupt);
	else
		bh_redir_send(u, start_iso_stream, id, &iso);
}

static void send_stop(struct bh_redir *u, const struct bh_redir_stream *s, uint32_t id)
{
	struct usb_redir_stop_interrupt_receiving_header interrupt = {.endpoint = s->endpoint};
	struct usb_redir_stop_iso_stream_header iso = {.endpoint = s->endpoint};

	if (s->type == BH_INTERRUPT)
		bh_redir_send(u, stop_interrupt_receiving, id, &interrupt);
	else
		bh_redir_send(u, stop_iso_stream, id, &iso);
}

/* False: no memory, or it is not to be tried yet, or too much is unanswered. */
static bool start(struct bh_redir *u, struct bh_redir_stream *s)
{
	struct bh_redir_request *r;

	if (uv_now(u->loop) < s->retry_ms || u->sent_count >= BH_REDIR_REQUESTS || (is_in(s) && !make_room(s)))
		return false;
	r = bh_redir_request_message(u, BH_REDIR_START, s->endpoint);
	if (!r)
		return false;
	u->touched = true;
	s->running = true;
	s->number = 0;
	s->number_known = false;
	s->idle = 0;
	send_start(u, s, r->id);
	return true;
}

static void stop(struct bh_redir *u, struct bh_redir_stream *s)
{
	struct bh_redir_request *r;

	if (!s->running)
		return;
	s->running = false;
	forget_kept(s);
	r = bh_redir_request_message(u, BH_REDIR_STOP, s->endpoint);
	if (!r)
		return;
	s->stops++;
	send_stop(u, s, r->id);
}

static void stop_and_end(struct bh_redir *u, struct bh_redir_stream *s)
{
	stop(u, s);
	s->retry_ms = 0;
	end_all(u, s, BH_CANCELLED);
}

void bh_redir_stream_stop(struct bh_redir *u, uint8_t endpoint)
{
	struct bh_redir_stream *s = *slot(u, endpoint);

	if (s)
		stop_and_end(u, s);
}

void bh_redir_streams_stop(struct bh_redir *u, int interface)
{
	for (size_t i = 0; i < BH_COUNT(u->streams); i++)
		if (u->streams[i] && (interface < 0 || u->streams[i]->interface == interface))
			stop_and_end(u, u->streams[i]);
}

void bh_redir_streams_finish(struct bh_redir *u)
{
	for (size_t i = 0; i < BH_COUNT(u->streams); i++) {
		struct bh_redir_stream *s = u->streams[i];

		if (!s)
			continue;
		end_all(u, s, BH_CANCELLED);
		forget_kept(s);
		u->streams[i] = NULL;
		free(s);
	}
}

/* --- submitting --------------------------------------------------------------------------------------- */

/* What the active settings say the endpoint is; one that runs is what they say. NULL: no memory. */
static struct bh_redir_stream *stream_of(struct bh_redir *u, const struct bh_endpoint_info *info)
{
	struct bh_redir_stream **place = slot(u, info->address), *s = *place;

	if (!s) {
		s = *place = calloc(1, sizeof(*s));
		if (!s)
			return NULL;
		s->endpoint = info->address;
		bh_list_init(&s->transfers);
	}
	if (!s->running) {
		s->type = info->type;
		s->max_packet = info->max_packet;
		s->interface = info->interface;
	}
	return s;
}

/* Nobody says what became of a packet: it is sent. Where the link is too slow, it is late, and left out. */
static void send_iso(struct bh_redir *u, struct bh_redir_stream *s, const struct bh_transfer *t, struct bh_packet *p)
{
	struct usb_redir_iso_packet_header h = {.endpoint = s->endpoint, .length = (uint16_t)p->length};
	uint8_t bytes[1024];

	p->actual = 0;
	p->status = BH_NO_RESPONSE;
	if (p->length > BH_MIN(s->max_packet, sizeof(bytes)) || !bh_redir_link_room(u) ||
	    usbredirparser_get_bufferered_output_size(u->link.parser) > ISO_OUTPUT) {
		u->counters.missed++;
		return;
	}
	bh_transfer_read(t, p->offset, bytes, p->length);
	bh_redir_send(u, iso_packet, s->number++, &h, p->length ? bytes : NULL, (int)p->length);
	u->counters.packets++;
	u->counters.bytes_out += p->length;
	p->actual = p->length;
	p->status = BH_SUCCESS;
}

static void submit_iso_out(struct bh_redir *u, struct bh_redir_stream *s, struct bh_transfer *t)
{
	for (unsigned i = 0; i < t->packet_count; i++)
		send_iso(u, s, t, &t->packets[i]);
	bh_transfer_done(t, BH_SUCCESS, 0);
}

void bh_redir_streams_submit(struct bh_redir *u, struct bh_transfer *t, const struct bh_endpoint_info *info)
{
	struct bh_redir_stream *s = stream_of(u, info);

	u->counters.transfers++;
	t->device_data = NULL;
	if (!s || (!s->running && !start(u, s))) {
		if (t->type == BH_ISOCHRONOUS)
			fail_packets(t, 0);
		u->counters.errors++;
		bh_transfer_done(t, BH_NO_RESPONSE, 0);
		return;
	}
	s->idle = 0;
	if (!is_in(s)) {
		submit_iso_out(u, s, t);
		return;
	}
	bh_list_append(&s->transfers, &t->device_link);
	give(u, s);
}

bool bh_redir_streams_cancel(struct bh_redir *u, struct bh_transfer *t)
{
	if (t->type != BH_ISOCHRONOUS && (t->type != BH_INTERRUPT || !(t->endpoint & BH_ENDPOINT_IN)))
		return false;
	if (t->type == BH_ISOCHRONOUS)
		fail_packets(t, filled(t));
	end(u, t, BH_CANCELLED);
	return true;
}

/* --- what comes -------------------------------------------------------------------------------------------- */

/* The stream that such a packet belongs to, while it is wanted. */
static struct bh_redir_stream *wanted(struct bh_redir *u, uint8_t endpoint, enum bh_endpoint_type type)
{
	struct bh_redir_stream *s = *slot(u, endpoint);

	if (s && s->running && !s->stops && s->type == type && s->endpoint == endpoint)
		return s;
	if (!s || !s->stops)
		u->counters.unexpected++;
	return NULL;
}

/* What follows from the number of a packet: there are some that have not come. */
static void note_gap(struct bh_redir *u, struct bh_redir_stream *s, uint32_t number)
{
	uint32_t gap = s->number_known ? number - s->number : 0;

	s->number = number + 1;
	s->number_known = true;
	if (gap > ISO_LONGEST_GAP)
		return;
	u->counters.missed += gap;
	for (gap = BH_MIN(gap, ISO_PACKETS); gap; gap--) {
		keep(u, s, BH_NO_RESPONSE, NULL, 0);
		give(u, s);
	}
}

static void take(struct bh_redir *u, struct bh_redir_stream *s, uint8_t said, const uint8_t *data, uint32_t length)
{
	enum bh_status status = length > s->max_packet ? BH_BABBLE : bh_redir_status(said);

	keep(u, s, status, data, status == BH_SUCCESS ? length : 0);
	give(u, s);
}

/* Is anybody listening at all? */
static void note_idle(struct bh_redir *u, struct bh_redir_stream *s)
{
	if (bh_list_empty(&s->transfers) && ++s->idle > ISO_IDLE_PACKETS)
		stop(u, s);
}

void bh_redir_interrupt_packet(void *priv, uint64_t id, struct usb_redir_interrupt_packet_header *h, uint8_t *data,
                               int length)
{
	struct bh_redir *u = priv;
	struct bh_redir_stream *s;

	if (!(h->endpoint & BH_ENDPOINT_IN)) {
		bh_redir_interrupt_answer(u, id, h);
	} else {
		s = wanted(u, h->endpoint, BH_INTERRUPT);
		if (s)
			take(u, s, h->status, data, (uint32_t)length);
	}
	usbredirparser_free_packet_data(u->link.parser, data);
}

void bh_redir_iso_packet(void *priv, uint64_t id, struct usb_redir_iso_packet_header *h, uint8_t *data, int length)
{
	struct bh_redir *u = priv;
	struct bh_redir_stream *s = wanted(u, h->endpoint, BH_ISOCHRONOUS);

	if (s && is_in(s)) {
		note_gap(u, s, (uint32_t)id);
		if (s->running) {
			take(u, s, h->status, data, (uint32_t)length);
			note_idle(u, s);
		}
	}
	usbredirparser_free_packet_data(u->link.parser, data);
}

/* It does not flow: it did not start, or has stopped over there. The next transfer starts it again. */
static void has_stopped(struct bh_redir *u, struct bh_redir_stream *s)
{
	s->running = false;
	forget_kept(s);
	if (s->type == BH_ISOCHRONOUS)
		s->retry_ms = uv_now(u->loop) + ISO_RETRY_MS;
	end_all(u, s, s->type == BH_ISOCHRONOUS ? BH_NO_RESPONSE : BH_STALL);
}

/* Answers to starts and stops come in their order: while a stop is not answered, those of starts are of old ones. */
static void status_came(struct bh_redir *u, uint64_t id, uint8_t endpoint, enum bh_endpoint_type type, uint8_t status)
{
	struct bh_redir_stream *s = *slot(u, endpoint);
	enum bh_redir_kind kind = BH_REDIR_START;
	bool answer = false;

	bh_list_each(r, &u->sent, struct bh_redir_request, link) {
		if (r->id != id || r->endpoint != endpoint || (r->kind != BH_REDIR_START && r->kind != BH_REDIR_STOP))
			continue;
		kind = r->kind;
		answer = true;
		bh_redir_request_end(u, bh_redir_request_answered(u, kind, id, endpoint), BH_SUCCESS);
		break;
	}
	if (answer)
		bh_redir_pump(u); /* something may have waited for fewer to be unanswered */
	if (answer && kind == BH_REDIR_STOP) {
		if (s)
			s->stops--;
		return;
	}
	if (!s || s->endpoint != endpoint || s->type != type)
		u->counters.unexpected += !answer;
	else if (status == usb_redir_success)
		u->counters.unexpected += !answer;
	else if (s->running && !s->stops && (answer || status == usb_redir_stall))
		has_stopped(u, s);
	else
		u->counters.errors += !answer; /* of an OUT stream, which goes on */
}

void bh_redir_iso_status(void *priv, uint64_t id, struct usb_redir_iso_stream_status_header *h)
{
	status_came(priv, id, h->endpoint, BH_ISOCHRONOUS, h->status);
}

void bh_redir_interrupt_status(void *priv, uint64_t id, struct usb_redir_interrupt_receiving_status_header *h)
{
	status_came(priv, id, h->endpoint, BH_INTERRUPT, h->status);
}
