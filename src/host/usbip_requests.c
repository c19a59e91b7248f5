/*
 * Transfers on an imported device, one request each.
 *
 *   waiting --there is room--> sent --RET_SUBMIT--> complete --its turn--> ended
 *      |                        |--CMD_UNLINK, and its answer--^              |
 *      '--cancel--> ended       '---- reset: an orphan, that is ----> dropped once answered
 *
 * A request leaves the list of those sent when nothing on the wire can name it any more: its
 * result has come, and the answer to its unlink, if it was unlinked.
 *
 * An unlink that is answered by 0 says that the request is not under way: its result has come, or
 * is to come, or was dropped (see usbip_wire.h). Which of these, a second unlink tells: what was
 * to come has come before its answer. (usbip-host sends results before answers to unlinks, but
 * one that ends while it sends those is sent after the first.) Without a result it ended well:
 * an OUT has been sent; what an IN has brought is lost.
 */
#include "usbip_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/util.h>

static bool is_isochronous(const struct bh_usbip_request *r)
{
	return r->type == BH_ISOCHRONOUS;
}

/* --- the life of a request -------------------------------------------------------------------- */

static bool data_is_in(const struct bh_transfer *t)
{
	return t->type == BH_CONTROL ? (t->setup.bmRequestType & BH_ENDPOINT_IN) && t->length : t->endpoint & BH_ENDPOINT_IN;
}

/* On the wire; of isochronous packets, without the room between them. */
static uint32_t length_of(const struct bh_transfer *t)
{
	uint32_t length = 0;

	if (t->type != BH_ISOCHRONOUS)
		return t->length;
	for (unsigned i = 0; i < t->packet_count; i++)
		length += t->packets[i].length;
	return length;
}

static struct bh_usbip_request *create(struct bh_transfer *t, const struct bh_endpoint_info *info)
{
	struct bh_usbip_request *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	bh_list_init(&r->link);
	r->transfer = t;
	r->endpoint = t->type == BH_CONTROL ? 0 : t->endpoint;
	r->type = t->type;
	r->in = data_is_in(t);
	r->length = length_of(t);
	r->packets = is_isochronous(r) ? t->packet_count : 0;
	r->max_packet = info ? info->max_packet : 0;
	r->interval = info ? info->interval : 0;
	t->device_data = r;
	return r;
}

static void discard(struct bh_usbip *u, struct bh_usbip_request *r)
{
	if (u->receiving == r)
		u->receiving = NULL;
	bh_list_remove(&r->link);
	free(r->packed);
	free(r);
}

/* Its result may still come, and is drained then. */
static void keep_for_late(struct bh_usbip *u, struct bh_usbip_request *r)
{
	bh_list_remove(&r->link);
	bh_list_append(&u->late, &r->link);
	if (u->late_count < BH_USBIP_LATE)
		u->late_count++;
	else
		discard(u, bh_container_of(u->late.next, struct bh_usbip_request, link));
}

/* Off the list of those sent, where nothing can name it any more. */
static void discard_if_over(struct bh_usbip *u, struct bh_usbip_request *r)
{
	if (r->transfer || !r->complete || r->unlink)
		return;
	u->sent_count--;
	if (r->lost)
		keep_for_late(u, r);
	else
		discard(u, r);
}

/* The transfer ends; the request stays. */
static void end(struct bh_usbip *u, struct bh_usbip_request *r, enum bh_status status, uint32_t actual)
{
	struct bh_transfer *t = r->transfer;

	r->transfer = NULL;
	t->device_data = NULL;
	u->counters.errors += status != BH_SUCCESS && status != BH_CANCELLED;
	bh_transfer_done(t, status, actual);
}

/* One that was not sent. */
static void end_waiting(struct bh_usbip *u, struct bh_usbip_request *r, enum bh_status status)
{
	struct bh_transfer *t = r->transfer;

	discard(u, r);
	t->device_data = NULL;
	bh_transfer_done(t, status, 0);
}

/* One whose result has not begun to come. */
static struct bh_usbip_request *find(const struct bh_list *list, uint32_t seqnum)
{
	bh_list_each(r, list, struct bh_usbip_request, link)
		if (r->seqnum == seqnum && !r->answered)
			return r;
	return NULL;
}

static struct bh_usbip_request *find_unlinked(const struct bh_usbip *u, uint32_t seqnum)
{
	bh_list_each(r, &u->sent, struct bh_usbip_request, link)
		if (r->unlink && r->unlink == seqnum)
			return r;
	return NULL;
}

/* One that nothing under way has. */
static uint32_t next_seqnum(struct bh_usbip *u)
{
	do
		u->last_seqnum++;
	while (!u->last_seqnum || find(&u->sent, u->last_seqnum) || find(&u->late, u->last_seqnum) ||
	       find_unlinked(u, u->last_seqnum));
	return u->last_seqnum;
}

/* --- sending ------------------------------------------------------------------------------------- */

/* In frames: a server takes none that is 0, and rounds down by itself. Isochronous: 2^(bInterval - 1) (9.6.6). */
static uint32_t interval_of(const struct bh_usbip_request *r)
{
	if (is_isochronous(r))
		return 1u << (BH_MIN(BH_MAX(r->interval, 1), 16) - 1);
	return r->type == BH_INTERRUPT ? BH_MAX(r->interval, 1) : 0;
}

static uint32_t flags_of(const struct bh_usbip_request *r)
{
	uint32_t flags = r->in ? BH_USBIP_DIR_IN : 0;

	if (is_isochronous(r))
		flags |= BH_USBIP_ISO_ASAP;
	if (r->type == BH_BULK && !r->in && r->transfer->flags & BH_TRANSFER_ZERO_PACKET)
		flags |= BH_USBIP_ZERO_PACKET;
	return flags;
}

/* Linux takes no more isochronous packets than the largest ones that such a length needs. */
static uint32_t wire_length(const struct bh_usbip_request *r)
{
	if (!r->packets)
		return r->length;
	return BH_MAX(r->length, (r->packets - 1) * r->max_packet + 1);
}

static void put_header(struct bh_usbip *u, const struct bh_usbip_request *r, uint8_t *to)
{
	struct bh_usbip_submit s = {
		.seqnum = r->seqnum,
		.devid = u->devid,
		.in = r->in,
		.endpoint = r->endpoint & 15u,
		.flags = flags_of(r),
		.length = wire_length(r),
		.packets = r->packets,
		.interval = interval_of(r),
	};
	struct bh_usbip_cmd_submit m;

	if (r->type == BH_CONTROL)
		s.setup = r->transfer->setup;
	m = bh_usbip_put_submit(&s);
	memcpy(to, &m, sizeof(m));
}

/* One packet after the other. */
static void put_isochronous_data(const struct bh_transfer *t, uint8_t *to, uint32_t padding)
{
	for (unsigned i = 0; i < t->packet_count; i++) {
		bh_transfer_read(t, t->packets[i].offset, to, t->packets[i].length);
		to += t->packets[i].length;
	}
	memset(to, 0, padding);
}

static void put_packets(const struct bh_usbip_request *r, uint8_t *to)
{
	uint32_t offset = 0;

	for (unsigned i = 0; i < r->packets; i++) {
		struct bh_usbip_packet p = {.offset = offset, .length = r->transfer->packets[i].length};
		struct bh_usbip_iso_packet wire = bh_usbip_put_packet(&p);

		memcpy(to + i * sizeof(wire), &wire, sizeof(wire));
		offset += p.length;
	}
}

/* False: no memory. */
static bool put_submit(struct bh_usbip *u, const struct bh_usbip_request *r)
{
	uint32_t data = r->in ? 0 : wire_length(r);
	size_t header = sizeof(struct bh_usbip_cmd_submit), packets = r->packets * sizeof(struct bh_usbip_iso_packet);
	uint8_t *to = bh_usbip_session_message(u, header + data + packets);

	if (!to)
		return false;
	put_header(u, r, to);
	if (is_isochronous(r) && !r->in)
		put_isochronous_data(r->transfer, to + header, data - r->length);
	else if (data)
		bh_transfer_read(r->transfer, 0, to + header, data);
	put_packets(r, to + header + data);
	return true;
}

static void send_request(struct bh_usbip *u, struct bh_usbip_request *r)
{
	uint32_t seqnum = next_seqnum(u);

	r->seqnum = seqnum;
	if (!put_submit(u, r)) {
		end_waiting(u, r, BH_NO_RESPONSE);
		return;
	}
	bh_list_remove(&r->link);
	bh_list_append(&u->sent, &r->link);
	u->sent_count++;
	u->counters.transfers++;
	bh_usbip_session_send(u);
}

void bh_usbip_pump(struct bh_usbip *u)
{
	while (!bh_list_empty(&u->waiting) && u->sent_count < BH_USBIP_REQUESTS && bh_usbip_session_room(u))
		send_request(u, bh_container_of(u->waiting.next, struct bh_usbip_request, link));
}

/* What a server could not carry, and would drop the connection for, does not reach it. */
static bool can_be_sent(const struct bh_transfer *t, const struct bh_endpoint_info *info)
{
	/* An OUT data stage that ended early: Linux wants as much data as wLength says. */
	if (t->type == BH_CONTROL)
		return t->length == bh_get_le16(t->setup.wLength);
	if (!info || info->type != t->type)
		return false;
	for (unsigned i = 0; t->type == BH_ISOCHRONOUS && i < t->packet_count; i++)
		if (t->packets[i].length > info->max_packet)
			return false;
	return true;
}

void bh_usbip_submit(struct bh_usbip *u, struct bh_transfer *t, enum bh_usbip_effect effect, uint8_t interface,
                     uint8_t value)
{
	const struct bh_endpoint_info *info = t->type == BH_CONTROL ? NULL : bh_real_endpoint(&u->real.device, t->endpoint);
	struct bh_usbip_request *r;

	if (!can_be_sent(t, info)) {
		bh_transfer_done(t, BH_STALL, 0);
		return;
	}
	r = u->session.imported ? create(t, info) : NULL;
	if (!r) {
		bh_transfer_done(t, BH_NO_RESPONSE, 0);
		return;
	}
	r->effect = effect;
	r->interface = interface;
	r->value = value;
	bh_list_append(&u->waiting, &r->link);
	bh_usbip_pump(u);
}

/* --- unlinking ------------------------------------------------------------------------------------ */

static void send_unlink(struct bh_usbip *u, struct bh_usbip_request *r)
{
	struct bh_usbip_unlink fields = {.seqnum = next_seqnum(u), .devid = u->devid, .target = r->seqnum};
	struct bh_usbip_cmd_unlink m = bh_usbip_put_unlink(&fields);
	uint8_t *to = bh_usbip_session_message(u, sizeof(m));

	if (!to) {
		bh_usbip_session_break(u, "the connection was dropped (out of memory)");
		return;
	}
	memcpy(to, &m, sizeof(m));
	r->unlink = fields.seqnum;
	r->since_ms = uv_now(u->loop);
	bh_usbip_session_send(u);
	bh_usbip_session_watch(u);
}

/* Asks for its end, once. */
static void unlink_request(struct bh_usbip *u, struct bh_usbip_request *r)
{
	if (r->unlink || r->complete || u->session.broken)
		return;
	u->counters.unlinks++;
	send_unlink(u, r);
}

void bh_usbip_cancel(struct bh_usbip *u, struct bh_transfer *t)
{
	struct bh_usbip_request *r = t->device_data;

	if (!r)
		return; /* it has ended */
	if (!r->seqnum) {
		end_waiting(u, r, BH_CANCELLED);
	} else if (u->session.imported) {
		unlink_request(u, r);
	} else {
		r->complete = true;
		r->unlink = 0;
		end(u, r, BH_CANCELLED, 0);
		discard_if_over(u, r);
	}
}

/* Nobody waits for it any more. */
static void orphan(struct bh_usbip *u, struct bh_usbip_request *r)
{
	if (u->session.imported) {
		unlink_request(u, r);
	} else {
		r->complete = true;
		r->unlink = 0;
	}
	if (r->transfer)
		end(u, r, BH_CANCELLED, 0);
	discard_if_over(u, r);
}

/* Of those sent, one whose transfer has not ended; or, with the connection gone, any. */
static struct bh_usbip_request *find_to_abandon(const struct bh_usbip *u)
{
	bh_list_each(r, &u->sent, struct bh_usbip_request, link)
		if (r->transfer || !u->session.imported)
			return r;
	return NULL;
}

void bh_usbip_requests_abandon(struct bh_usbip *u)
{
	struct bh_usbip_request *r;

	while (!bh_list_empty(&u->waiting))
		end_waiting(u, bh_container_of(u->waiting.next, struct bh_usbip_request, link), BH_CANCELLED);
	while ((r = find_to_abandon(u)))
		orphan(u, r);
	if (u->session.imported)
		return;
	while (!bh_list_empty(&u->late)) {
		u->late_count--;
		discard(u, bh_container_of(u->late.next, struct bh_usbip_request, link));
	}
}

bool bh_usbip_requests_owed(const struct bh_usbip *u, bool *late)
{
	uint64_t now = uv_now(u->loop);
	bool any = false;

	*late = false;
	bh_list_each(r, &u->sent, struct bh_usbip_request, link) {
		any |= r->unlink != 0;
		*late |= r->unlink && now - r->since_ms > BH_USBIP_OWED_MS;
	}
	return any;
}

/* --- results ----------------------------------------------------------------------------------------- */

/* As seam and guest know them. */
static enum bh_status packet_status(int32_t status)
{
	switch (bh_usbip_outcome(status)) {
	case BH_SUCCESS:
		return BH_SUCCESS;
	case BH_BABBLE:
		return BH_BABBLE;
	case BH_NO_RESPONSE:
	case BH_CANCELLED:
		return BH_NO_RESPONSE;
	default:
		return BH_BUS_ERROR;
	}
}

static struct bh_usbip_packet packet_of(const struct bh_usbip_request *r, unsigned i)
{
	struct bh_usbip_iso_packet wire;

	memcpy(&wire, r->packed + (r->in ? r->actual : 0) + i * sizeof(wire), sizeof(wire));
	return bh_usbip_get_packet(&wire);
}

/* Are they those that were asked for? Data that is packed can be told apart by them alone. */
static bool packets_make_sense(const struct bh_usbip_request *r)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < r->packets; i++) {
		struct bh_usbip_packet p = packet_of(r, i);

		if (r->transfer && p.actual > r->transfer->packets[i].length)
			return false;
		sum += p.actual;
	}
	return !r->in || sum == r->actual;
}

/* Into the transfer: each packet's data to its place. */
static void hand_out_packets(const struct bh_usbip_request *r)
{
	struct bh_transfer *t = r->transfer;
	uint32_t from = 0;

	for (unsigned i = 0; i < r->packets; i++) {
		struct bh_usbip_packet wire = packet_of(r, i);
		struct bh_packet *p = &t->packets[i];

		p->status = packet_status(wire.status);
		/* The request failed as a whole, but not this one by itself: it had not had its turn. */
		if (p->status == BH_SUCCESS && !wire.actual && p->length && r->wire_status &&
		    r->wire_status != -BH_USBIP_EXDEV)
			p->status = BH_NO_RESPONSE;
		p->actual = r->in || p->status != BH_SUCCESS ? wire.actual : p->length;
		if (!r->in)
			continue;
		bh_transfer_write(t, p->offset, r->packed + from, wire.actual);
		from += wire.actual;
	}
}

static void take_effect(struct bh_usbip *u, const struct bh_usbip_request *r)
{
	if (r->effect == BH_USBIP_CONFIGURES)
		bh_settings_configure(&u->real.settings, r->value);
	else if (r->effect == BH_USBIP_SETS_INTERFACE)
		bh_settings_set_interface(&u->real.settings, r->interface, r->value);
}

static uint64_t moved_by(const struct bh_usbip_request *r)
{
	return is_isochronous(r) && !r->in ? r->length : r->actual;
}

/* Complete, and its turn. */
static void end_complete(struct bh_usbip *u, struct bh_usbip_request *r)
{
	uint64_t moved = moved_by(r);

	if (r->in)
		u->counters.bytes_in += moved;
	else
		u->counters.bytes_out += moved;
	if (r->packed)
		hand_out_packets(r);
	if (r->status == BH_SUCCESS)
		take_effect(u, r);
	end(u, r, r->status, r->actual);
	discard_if_over(u, r);
}

/* The one of this endpoint whose turn it is; in the list they are in the order of submission. */
static struct bh_usbip_request *first_of(const struct bh_usbip *u, uint8_t endpoint)
{
	bh_list_each(r, &u->sent, struct bh_usbip_request, link)
		if (r->transfer && r->endpoint == endpoint)
			return r;
	return NULL;
}

/* Its outcome is known: transfers to one endpoint end in order, whatever order results come in. */
static void complete(struct bh_usbip *u, struct bh_usbip_request *r)
{
	struct bh_usbip_request *first;
	uint8_t endpoint = r->endpoint;

	r->complete = true;
	if (!r->transfer) {
		discard_if_over(u, r);
		return;
	}
	while ((first = first_of(u, endpoint)) && first->complete)
		end_complete(u, first);
}

/* All of a result is there. */
static void received(struct bh_usbip *u, struct bh_usbip_request *r)
{
	u->receiving = NULL;
	if (is_isochronous(r) && !packets_make_sense(r)) {
		bh_usbip_session_violated(u, "isochronous packets came that are not those that were asked for");
		return;
	}
	if (r->lost) {
		u->late_count--;
		discard(u, r);
		return;
	}
	complete(u, r);
	bh_usbip_pump(u);
}

/* How a whole transfer ended. */
static enum bh_status status_of(const struct bh_usbip_request *r)
{
	enum bh_status status = bh_usbip_outcome(r->wire_status);

	/* Not by us: at another configuration, say. */
	return status == BH_CANCELLED && !r->unlink ? BH_NO_RESPONSE : status;
}

/* NULL, or what is wrong with it. */
static const char *read_result(struct bh_usbip_request *r, const struct bh_usbip_result *result)
{
	r->answered = true;
	r->wire_status = result->status;
	r->actual = result->actual;
	if (r->actual > r->length)
		return "more came than was asked for";
	if (is_isochronous(r) && result->packets != r->packets)
		return "another number of isochronous packets came than was asked for";
	r->status = status_of(r);
	/* Some servers do not say that control data was taken. */
	if (r->type == BH_CONTROL && !r->in && r->status == BH_SUCCESS)
		r->actual = r->length;
	return NULL;
}

static void result(struct bh_usbip *u, const struct bh_usbip_result *result)
{
	struct bh_usbip_request *r = find(&u->sent, result->seqnum);
	uint64_t follows;
	const char *wrong;

	if (!r || r->lost)
		r = find(&u->late, result->seqnum);
	wrong = r ? read_result(r, result) : "a result came that nobody asked for";
	if (wrong) {
		bh_usbip_session_violated(u, wrong);
		return;
	}
	follows = (r->in ? r->actual : 0) + (uint64_t)r->packets * sizeof(struct bh_usbip_iso_packet);
	if (r->packets && !(r->packed = malloc(follows))) {
		bh_usbip_session_break(u, "the connection was dropped (out of memory)");
		return;
	}
	u->receiving = r;
	u->session.data = follows;
	if (!follows)
		received(u, r);
}

void bh_usbip_requests_data(struct bh_usbip *u, const uint8_t *bytes, size_t count)
{
	struct bh_usbip_request *r = u->receiving;

	if (r->packed)
		memcpy(r->packed + r->offset, bytes, count);
	else if (r->transfer)
		bh_transfer_write(r->transfer, r->offset, bytes, (uint32_t)count);
	r->offset += (uint32_t)count;
	if (!u->session.data)
		received(u, r);
}

/* It ended well, and how was dropped. */
static void lose(struct bh_usbip *u, struct bh_usbip_request *r)
{
	bool sent = !r->in && !is_isochronous(r);

	u->counters.lost++;
	r->lost = true;
	r->status = sent ? BH_SUCCESS : BH_CANCELLED;
	r->actual = sent ? r->length : 0;
	complete(u, r);
}

static void unlinked(struct bh_usbip *u, const struct bh_usbip_unlinked *answer)
{
	struct bh_usbip_request *r = find_unlinked(u, answer->seqnum);

	if (!r) {
		bh_usbip_session_violated(u, "an answer came to an unlink that nobody sent");
		return;
	}
	r->unlink = 0;
	if (r->complete) {
		discard_if_over(u, r);
	} else if (answer->status) {
		r->answered = true;
		r->status = bh_usbip_outcome(answer->status);
		r->actual = 0;
		complete(u, r);
	} else if (!r->unlinked_twice) {
		r->unlinked_twice = true;
		send_unlink(u, r);
	} else {
		lose(u, r);
	}
	bh_usbip_pump(u);
}

void bh_usbip_requests_message(struct bh_usbip *u, const union bh_usbip_message *m)
{
	struct bh_usbip_result r;
	struct bh_usbip_unlinked a;

	switch (bh_get_be32(m->basic.command)) {
	case BH_USBIP_RET_SUBMIT:
		r = bh_usbip_get_result(&m->ret_submit);
		result(u, &r);
		break;
	case BH_USBIP_RET_UNLINK:
		a = bh_usbip_get_unlinked(&m->ret_unlink);
		unlinked(u, &a);
		break;
	default:
		bh_usbip_session_violated(u, "a message came that no server sends");
	}
}
