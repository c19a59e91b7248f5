/*
 * What is asked and answered, one message each: control, bulk and interrupt OUT packets.
 *
 *   waiting --there is room, and its endpoint is free--> sent --answer--> ended
 *      ^---------- one that was cut up has more to move -----'
 *
 * A bulk transfer that is longer than a message can say (65535 bytes, where one of the sides
 * knows no more) becomes several, in whole packets, each when the one before has ended well.
 */
#include "usbredir_private.h"

#include <stdlib.h>

#include <base/util.h>

/* --- requests ------------------------------------------------------------------------------- */

enum bh_status bh_redir_status(uint8_t status)
{
	switch (status) {
	case usb_redir_success:
		return BH_SUCCESS;
	case usb_redir_cancelled: /* not by us: a reset there, or another configuration */
	case usb_redir_timeout:
		return BH_NO_RESPONSE;
	case usb_redir_inval: /* of what there is not */
	case usb_redir_stall:
		return BH_STALL;
	case usb_redir_babble:
		return BH_BABBLE;
	}
	return BH_BUS_ERROR;
}

static struct bh_redir_request *create(enum bh_redir_kind kind, struct bh_transfer *t)
{
	struct bh_redir_request *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	bh_list_init(&r->link);
	r->kind = kind;
	r->transfer = t;
	if (t) {
		r->endpoint = t->type == BH_CONTROL ? t->setup.bmRequestType & BH_ENDPOINT_IN : t->endpoint;
		t->device_data = r;
	}
	return r;
}

struct bh_redir_request *bh_redir_request_create(struct bh_redir *u, enum bh_redir_kind kind, struct bh_transfer *t)
{
	struct bh_redir_request *r = create(kind, t);

	if (!r) {
		bh_transfer_done(t, BH_NO_RESPONSE, 0);
		return NULL;
	}
	u->counters.transfers++;
	bh_list_append(&u->waiting, &r->link);
	return r;
}

static struct bh_redir_request *find(const struct bh_redir *u, uint64_t id)
{
	bh_list_each(r, &u->sent, struct bh_redir_request, link)
		if (r->id == id)
			return r;
	return NULL;
}

void bh_redir_request_sent(struct bh_redir *u, struct bh_redir_request *r)
{
	bh_list_remove(&r->link);
	do
		u->last_id++;
	while (!u->last_id || find(u, u->last_id));
	r->id = u->last_id;
	r->since_ms = uv_now(u->loop);
	bh_list_append(&u->sent, &r->link);
	u->sent_count++;
	if (bh_redir_request_owed(r))
		bh_redir_link_watch(u);
}

struct bh_redir_request *bh_redir_request_message(struct bh_redir *u, enum bh_redir_kind kind, uint8_t endpoint)
{
	struct bh_redir_request *r = create(kind, NULL);

	if (!r) {
		bh_redir_link_break(u, "the connection was dropped: out of memory");
		return NULL;
	}
	r->endpoint = endpoint;
	bh_redir_request_sent(u, r);
	return r;
}

static void take_out(struct bh_redir *u, struct bh_redir_request *r)
{
	bh_list_remove(&r->link);
	u->sent_count--;
}

struct bh_redir_request *bh_redir_request_answered(struct bh_redir *u, enum bh_redir_kind kind, uint64_t id,
                                                   uint8_t endpoint)
{
	struct bh_redir_request *r = find(u, id);

	if (!r || r->kind != kind || r->endpoint != endpoint) {
		u->counters.unexpected++;
		return NULL;
	}
	take_out(u, r);
	return r;
}

void bh_redir_request_end(struct bh_redir *u, struct bh_redir_request *r, enum bh_status status)
{
	struct bh_transfer *t = r->transfer;
	uint32_t moved = r->moved;

	free(r);
	if (!t)
		return;
	t->device_data = NULL;
	u->counters.errors += status != BH_SUCCESS && status != BH_CANCELLED;
	bh_transfer_done(t, status, moved);
}

bool bh_redir_request_owed(const struct bh_redir_request *r)
{
	return r->cancelled || (r->kind != BH_REDIR_BULK && r->kind != BH_REDIR_INTERRUPT);
}

/* --- sending ---------------------------------------------------------------------------------- */

static bool is_in(uint8_t endpoint)
{
	return endpoint & BH_ENDPOINT_IN;
}

/* The most one message may carry. */
static uint32_t longest_piece(const struct bh_redir *u, const struct bh_redir_request *r)
{
	uint32_t most = bh_redir_link_can(u, usb_redir_cap_32bits_bulk_length) ? BH_REDIR_PIECE : UINT16_MAX;

	return r->kind == BH_REDIR_INTERRUPT ? r->max_packet : most - most % r->max_packet;
}

/* The bytes of an OUT piece in one row; *copy is to be freed. NULL: there are none, or no memory (then *failed). */
static uint8_t *bytes_of(const struct bh_transfer *t, uint32_t offset, uint32_t length, void **copy, bool *failed)
{
	*copy = NULL;
	*failed = false;
	if (!length)
		return NULL;
	if (t->span_count == 1)
		return (uint8_t *)t->spans[0].iov_base + offset;
	*copy = malloc(length);
	*failed = !*copy;
	if (*copy)
		bh_transfer_read(t, offset, *copy, length);
	return *copy;
}

static void send_bulk(struct bh_redir *u, const struct bh_redir_request *r, uint8_t *bytes, uint32_t length)
{
	struct usb_redir_bulk_packet_header h = {
		.endpoint = r->endpoint,
		.length = (uint16_t)r->piece,
		.length_high = (uint16_t)(r->piece >> 16),
	};

	bh_redir_send(u, bulk_packet, r->id, &h, bytes, (int)length);
}

static void send_interrupt(struct bh_redir *u, const struct bh_redir_request *r, uint8_t *bytes, uint32_t length)
{
	struct usb_redir_interrupt_packet_header h = {.endpoint = r->endpoint, .length = (uint16_t)r->piece};

	bh_redir_send(u, interrupt_packet, r->id, &h, bytes, (int)length);
}

static void send_control(struct bh_redir *u, const struct bh_redir_request *r, uint8_t *bytes, uint32_t length)
{
	const struct bh_setup *setup = &r->transfer->setup;
	struct usb_redir_control_packet_header h = {
		.endpoint = r->endpoint,
		.request = setup->bRequest,
		.requesttype = setup->bmRequestType,
		.value = bh_get_le16(setup->wValue),
		.index = bh_get_le16(setup->wIndex),
		.length = bh_get_le16(setup->wLength),
	};

	bh_redir_send(u, control_packet, r->id, &h, bytes, (int)length);
}

/* Does this change nothing at the device? So hosts ask one before they reset it. */
static bool harmless(const struct bh_redir_request *r)
{
	return r->kind == BH_REDIR_CONTROL && r->transfer->setup.bmRequestType == 0x80;
}

static void send_packet(struct bh_redir *u, struct bh_redir_request *r)
{
	struct bh_transfer *t = r->transfer;
	uint32_t length;
	uint8_t *bytes;
	void *copy;
	bool failed;

	r->piece = t->length - r->moved;
	if (r->kind != BH_REDIR_CONTROL)
		r->piece = BH_MIN(r->piece, longest_piece(u, r));
	length = is_in(r->endpoint) ? 0 : r->piece;
	bytes = bytes_of(t, r->moved, length, &copy, &failed);
	if (failed) {
		bh_list_remove(&r->link);
		bh_redir_request_end(u, r, BH_NO_RESPONSE);
		return;
	}
	u->touched |= !harmless(r);
	u->counters.packets++;
	bh_redir_request_sent(u, r);
	if (r->kind == BH_REDIR_CONTROL)
		send_control(u, r, bytes, length);
	else if (r->kind == BH_REDIR_BULK)
		send_bulk(u, r, bytes, length);
	else
		send_interrupt(u, r, bytes, length);
	free(copy);
}

static bool same_pipe(const struct bh_redir_request *a, const struct bh_redir_request *b)
{
	return a->kind == b->kind && (a->kind == BH_REDIR_CONTROL || a->endpoint == b->endpoint);
}

/* Something of the same endpoint is under way, and may end badly: what comes after it waits. */
static bool busy(const struct bh_redir *u, const struct bh_redir_request *waiting)
{
	if (waiting->kind > BH_REDIR_INTERRUPT)
		return false;
	bh_list_each(r, &u->sent, struct bh_redir_request, link)
		if (r->transfer && same_pipe(r, waiting))
			return true;
	return false;
}

/* Was one that waits to the same endpoint before it? Those of an endpoint keep their order. */
static bool overtakes(const struct bh_redir *u, const struct bh_redir_request *waiting)
{
	bh_list_each(r, &u->waiting, struct bh_redir_request, link) {
		if (r == waiting)
			break;
		if (same_pipe(r, waiting))
			return true;
	}
	return false;
}

void bh_redir_pump(struct bh_redir *u)
{
	struct bh_redir_request *next;

	do {
		next = NULL;
		if (!u->there || !bh_redir_link_room(u) || u->sent_count >= BH_REDIR_REQUESTS)
			return;
		bh_list_each(r, &u->waiting, struct bh_redir_request, link)
			if (!next && !busy(u, r) && !overtakes(u, r))
				next = r;
		if (next && next->kind <= BH_REDIR_INTERRUPT)
			send_packet(u, next);
		else if (next)
			bh_redir_settings_send(u, next);
	} while (next);
}

void bh_redir_packets_submit(struct bh_redir *u, struct bh_transfer *t, const struct bh_endpoint_info *info)
{
	struct bh_redir_request *r =
		bh_redir_request_create(u, info->type == BH_BULK ? BH_REDIR_BULK : BH_REDIR_INTERRUPT, t);

	if (!r)
		return;
	r->max_packet = info->max_packet;
	bh_redir_pump(u);
}

void bh_redir_control_submit(struct bh_redir *u, struct bh_transfer *t)
{
	/* An OUT data stage that ended early cannot be said: a message has the length of its data. */
	if (t->length != bh_get_le16(t->setup.wLength)) {
		bh_transfer_done(t, BH_STALL, 0);
		return;
	}
	if (bh_redir_request_create(u, BH_REDIR_CONTROL, t))
		bh_redir_pump(u);
}

/* --- cancelling ---------------------------------------------------------------------------------- */

static bool is_sent(const struct bh_redir_request *r)
{
	return r->id != 0;
}

/* The peer is asked to end it, once. Settings cannot be; they do not take long. */
static void ask_to_cancel(struct bh_redir *u, struct bh_redir_request *r)
{
	if (r->cancelled || r->kind > BH_REDIR_INTERRUPT)
		return;
	r->cancelled = true;
	r->since_ms = uv_now(u->loop);
	u->counters.cancels++;
	bh_redir_send(u, cancel_data_packet, r->id);
	bh_redir_link_watch(u);
}

void bh_redir_packets_cancel(struct bh_redir *u, struct bh_redir_request *r)
{
	if (is_sent(r) && u->there) {
		ask_to_cancel(u, r);
		return;
	}
	if (is_sent(r))
		take_out(u, r);
	else
		bh_list_remove(&r->link);
	bh_redir_request_end(u, r, BH_CANCELLED);
}

void bh_redir_packets_abandon(struct bh_redir *u)
{
	while (!bh_list_empty(&u->waiting)) {
		struct bh_redir_request *r = bh_container_of(u->waiting.next, struct bh_redir_request, link);

		bh_list_remove(&r->link);
		bh_redir_request_end(u, r, BH_CANCELLED);
	}
	while (!u->there && !bh_list_empty(&u->sent)) {
		struct bh_redir_request *r = bh_container_of(u->sent.next, struct bh_redir_request, link);

		take_out(u, r);
		bh_redir_request_end(u, r, BH_CANCELLED);
	}
	bh_list_each(r, &u->sent, struct bh_redir_request, link) {
		struct bh_transfer *t = r->transfer;

		ask_to_cancel(u, r);
		r->transfer = NULL;
		if (t)
			bh_transfer_done(t, BH_CANCELLED, r->moved);
	}
}

/* --- answers --------------------------------------------------------------------------------------- */

/* Is there more to be sent after this piece, which ended well? */
static bool has_more(const struct bh_redir_request *r)
{
	const struct bh_transfer *t = r->transfer;

	if (r->kind == BH_REDIR_CONTROL)
		return false;
	return r->moved < t->length || (r->piece && !is_in(r->endpoint) && t->flags & BH_TRANSFER_ZERO_PACKET &&
	                                t->length % r->max_packet == 0);
}

/* It goes on with the next piece, before whatever else waits. */
static void go_on(struct bh_redir *u, struct bh_redir_request *r)
{
	r->id = 0;
	bh_list_append(u->waiting.next, &r->link);
	bh_transfer_progress(r->transfer, r->moved);
}

/* What moved with a piece that ended like this; none of it where that is no answer to what was asked. */
static uint32_t count_piece(struct bh_redir *u, struct bh_redir_request *r, enum bh_status status, const uint8_t *data,
                            uint32_t length)
{
	bool in = is_in(r->endpoint);

	if (r->kind != BH_REDIR_CONTROL && status != BH_SUCCESS)
		length -= length % r->max_packet; /* whole packets have moved, what is behind them has failed */
	if (in && length)
		bh_transfer_write(r->transfer, r->moved, data, length);
	r->moved += length;
	*(in ? &u->counters.bytes_in : &u->counters.bytes_out) += length;
	return length;
}

/* What the peer says of a piece, no longer in the list; of an IN, length bytes have come. */
static void piece_ended(struct bh_redir *u, struct bh_redir_request *r, uint8_t said, const uint8_t *data,
                        uint32_t length)
{
	enum bh_status status = bh_redir_status(said);
	bool whole;

	if (!r->transfer || length > r->piece) { /* more than was asked for: nothing of it counts */
		bh_redir_request_end(u, r, BH_BABBLE);
		return;
	}
	whole = count_piece(u, r, status, data, length) == r->piece;
	if (said == usb_redir_cancelled && r->cancelled)
		status = BH_CANCELLED;
	else if (status == BH_SUCCESS && !whole && !is_in(r->endpoint))
		status = BH_NO_RESPONSE; /* less was taken than was sent: that is no success */
	if (status == BH_SUCCESS && whole && has_more(r)) {
		if (!r->cancelled) {
			go_on(u, r);
			return;
		}
		status = BH_CANCELLED;
	}
	bh_redir_request_end(u, r, status);
}

static void answered(struct bh_redir *u, enum bh_redir_kind kind, uint64_t id, uint8_t endpoint, uint8_t status,
                     const uint8_t *data, uint32_t length)
{
	struct bh_redir_request *r = bh_redir_request_answered(u, kind, id, endpoint);

	if (r)
		piece_ended(u, r, status, data, length);
	bh_redir_pump(u);
}

void bh_redir_control_packet(void *priv, uint64_t id, struct usb_redir_control_packet_header *h, uint8_t *data,
                             int length)
{
	struct bh_redir *u = priv;

	(void)length; /* that of the header, as the parser has made sure */
	answered(u, BH_REDIR_CONTROL, id, h->endpoint, h->status, data, h->length);
	usbredirparser_free_packet_data(u->link.parser, data);
}

void bh_redir_bulk_packet(void *priv, uint64_t id, struct usb_redir_bulk_packet_header *h, uint8_t *data, int length)
{
	struct bh_redir *u = priv;

	(void)length;
	answered(u, BH_REDIR_BULK, id, h->endpoint, h->status, data, h->length | (uint32_t)h->length_high << 16);
	usbredirparser_free_packet_data(u->link.parser, data);
}

void bh_redir_interrupt_answer(struct bh_redir *u, uint64_t id, const struct usb_redir_interrupt_packet_header *h)
{
	answered(u, BH_REDIR_INTERRUPT, id, h->endpoint, h->status, NULL, h->length);
}
