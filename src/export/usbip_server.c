/*
 * Clients of USB/IP, and what they ask for: see export/usbip_server.h and host/usbip_wire.h.
 *
 *   HEADER --REQ_DEVLIST--> the list, then the end
 *   HEADER --REQ_IMPORT--> BUSID --it is free--> COMMAND <--> DATA, PACKETS
 */
#include <export/usbip_server.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <base/util.h>
#include <host/usbip_wire.h>
#include <net/socket.h>

#include "exported.h"
#include "output.h"
#include "say.h"

/* Clients without a device. Who was silent for longest makes way: a crowd keeps nobody out. */
#define MOST_STRANGERS 16u

/* What waits to be taken by a client before no more of its requests are read. */
#define OUTPUT_HIGH (1u << 20)

/* A client that takes nothing of what waits for it, or has not said what it wants, for so long is dropped. */
#define STALL_MS 10000u

#define READ_SIZE 65536u
#define HUB_CLASS 9

enum phase { HEADER, BUSID, COMMAND, DATA, PACKETS, ENDING };

struct client {
	struct bh_list link;
	struct bh_usbip_server *server;
	struct device *device; /* that it has imported; NULL: none */
	int fd;
	uv_poll_t *poll;   /* on the heap */
	uv_timer_t *timer; /* likewise: it stalls */
	enum phase phase;
	union {
		struct bh_usbip_op_header op;
		char busid[BH_USBIP_BUSID_SIZE];
		union bh_usbip_message message;
	} head;
	uint32_t have;                    /* bytes of what the phase waits for */
	struct bh_export_request *coming; /* whose data, or packets, come */
	struct bh_usbip_iso_packet packets[BH_EXPORT_PACKETS];
	struct bh_output out;
	bool stranger; /* it counts as one */
	bool broken; /* is to be dropped, once it is out of whatever it is in */
};

struct device {
	struct bh_usbip_server *server;
	struct bh_exported exported;
	unsigned number; /* 1-NUMBER */
	struct client *client; /* that has it */
};

struct bh_usbip_server {
	uv_loop_t *loop;
	int listener;
	uv_poll_t *accepting; /* on the heap */
	uv_timer_t *rest;     /* likewise: none is accepted for a while */
	struct bh_lines lines;
	struct bh_list clients;
	unsigned strangers; /* of them: those without a device */
	struct bh_export_counters counters;
	size_t device_count;
	struct device devices[];
};

#define say(s, ...) bh_lines_say(&(s)->lines, __VA_ARGS__)

/* --- a client's end ------------------------------------------------------------------------------ */

static void free_handle(uv_handle_t *h)
{
	free(h);
}

static void let_go(struct client *c)
{
	struct device *d = c->device;

	if (c->coming)
		bh_export_request_free(c->coming);
	c->coming = NULL;
	c->device = NULL;
	if (!d)
		return;
	d->client = NULL;
	bh_exported_reset(&d->exported);
	say(d->server, "1-%u: its client is gone", d->number);
}

static void drop(struct client *c)
{
	let_go(c);
	bh_list_remove(&c->link);
	c->server->strangers -= c->stranger;
	uv_close((uv_handle_t *)c->poll, free_handle);
	uv_close((uv_handle_t *)c->timer, free_handle);
	close(c->fd);
	bh_output_finish(&c->out);
	free(c);
}

/* For what came; the caller returns to client_ready(), or to the loop, which drops it. */
static void violation(struct client *c, const char *what)
{
	if (c->broken)
		return;
	c->broken = true;
	c->server->counters.dropped++;
	say(c->server, "usbip: a client was dropped: %s", what);
}

static void client_stalled(uv_timer_t *t)
{
	struct client *c = t->data;

	violation(c, c->phase < COMMAND ? "it does not say what it wants" : "it takes nothing of what it asked for");
	drop(c);
}

/* --- answers ------------------------------------------------------------------------------------------ */

static void client_ready(uv_poll_t *p, int status, int events);

/* What is waited for next: room to send, or more to read, but not while a lot is to be sent. */
static void watch(struct client *c)
{
	int events = (c->out.used < OUTPUT_HIGH && c->phase != ENDING ? UV_READABLE : 0) | (c->out.used ? UV_WRITABLE : 0);
	bool waits = c->out.used || c->phase < COMMAND;

	if (events)
		uv_poll_start(c->poll, events, client_ready);
	else
		uv_poll_stop(c->poll);
	if (!waits)
		uv_timer_stop(c->timer);
	else if (!uv_is_active((uv_handle_t *)c->timer))
		uv_timer_start(c->timer, client_stalled, STALL_MS, 0);
}

static void flush(struct client *c)
{
	size_t before = c->out.used;

	if (c->broken)
		return;
	if (!bh_output_flush(&c->out, c->fd))
		c->broken = true; /* it is gone: nothing to be said of */
	if (c->out.used < before)
		uv_timer_stop(c->timer);
}

static void answer(struct client *c, const void *bytes, size_t length)
{
	if (!bh_output_add(&c->out, bytes, length))
		violation(c, "out of memory");
}

static bool is_in(const struct bh_transfer *t)
{
	return t->type == BH_CONTROL ? t->setup.bmRequestType & BH_ENDPOINT_IN && t->length : t->endpoint & BH_ENDPOINT_IN;
}

/* Data IN is packed, packet after packet; the descriptors follow. */
static void answer_isochronous(struct client *c, struct bh_export_request *r, enum bh_status status)
{
	struct bh_usbip_result result = {.seqnum = (uint32_t)r->id, .packets = r->transfer.packet_count};

	for (unsigned i = 0; i < r->transfer.packet_count; i++) {
		result.actual += r->packets[i].actual;
		result.errors += r->packets[i].status != BH_SUCCESS;
	}
	result.status = status == BH_NO_RESPONSE ? bh_usbip_status(status) : 0;
	answer(c, &(struct bh_usbip_ret_submit[]){bh_usbip_put_result(&result)}, sizeof(struct bh_usbip_ret_submit));
	for (unsigned i = 0; i < r->transfer.packet_count && is_in(&r->transfer); i++)
		answer(c, r->data + r->packets[i].offset, r->packets[i].actual);
	for (unsigned i = 0; i < r->transfer.packet_count; i++) {
		struct bh_usbip_iso_packet p = bh_usbip_put_packet(&(struct bh_usbip_packet){
			.offset = r->packets[i].offset, .length = r->packets[i].length, .actual = r->packets[i].actual,
			.status = bh_usbip_status(r->packets[i].status)});

		answer(c, &p, sizeof(p));
	}
}

static void answer_submit(struct client *c, struct bh_export_request *r, enum bh_status status)
{
	const struct bh_transfer *t = &r->transfer;
	enum bh_status cut = is_in(t) ? bh_export_request_cut(r, status) : status;
	struct bh_usbip_result result = {.seqnum = (uint32_t)r->id, .status = bh_usbip_status(cut), .actual = t->actual};
	struct bh_usbip_ret_submit wire;

	if (t->type == BH_CONTROL && !is_in(t))
		result.actual = status == BH_SUCCESS ? t->length : 0;
	if (cut == BH_SUCCESS && is_in(t) && t->actual < r->asked && r->flags & BH_USBIP_SHORT_NOT_OK)
		result.status = -BH_USBIP_EREMOTEIO;
	wire = bh_usbip_put_result(&result);
	answer(c, &wire, sizeof(wire));
	if (is_in(t))
		answer(c, r->data, t->actual);
}

static void answer_unlink(struct client *c, uint32_t seqnum, int32_t status)
{
	struct bh_usbip_ret_unlink wire = bh_usbip_put_unlinked(&(struct bh_usbip_unlinked){seqnum, status});

	answer(c, &wire, sizeof(wire));
}

static void count(struct bh_usbip_server *s, const struct bh_export_request *r)
{
	uint64_t *bytes = is_in(&r->transfer) ? &s->counters.bytes_in : &s->counters.bytes_out;

	*bytes += r->transfer.actual;
	for (unsigned i = 0; i < r->transfer.packet_count; i++)
		*bytes += r->packets[i].actual;
}

/* RET_UNLINK alone has no room for what moved. */
static bool has_moved(const struct bh_export_request *r)
{
	for (unsigned i = 0; i < r->transfer.packet_count; i++)
		if (r->packets[i].status == BH_SUCCESS)
			return true;
	return !r->transfer.packet_count && r->transfer.actual;
}

/* A request has ended. Unlinked: owner has the seqnum of the CMD_UNLINK, plus one. */
static void ended(struct bh_export_request *r, enum bh_status status)
{
	struct device *d = r->exported->owner;
	struct client *c = d->client;
	uint32_t unlink = (uint32_t)(uintptr_t)r->owner;

	count(d->server, r);
	if (!c)
		return;
	if (r->owner && status == BH_CANCELLED && !has_moved(r)) {
		answer_unlink(c, unlink, -BH_USBIP_ECONNRESET);
	} else {
		if (r->transfer.type == BH_ISOCHRONOUS)
			answer_isochronous(c, r, status);
		else
			answer_submit(c, r, status);
		if (r->owner)
			answer_unlink(c, unlink, 0); /* it has been answered, then */
	}
	flush(c);
	watch(c);
}

/* --- the first phase ---------------------------------------------------------------------------------- */

static void describe(const struct device *d, struct bh_usbip_device_fields *ret)
{
	const struct bh_probe *p = &d->exported.probe;
	const uint8_t *dd = p->device_descriptor, *configuration = bh_settings_find(&d->exported.settings, d->exported.settings.configuration);

	*ret = (struct bh_usbip_device_fields){
		.busnum = 1, .devnum = d->number + 1, .speed = bh_usbip_put_speed(d->exported.device->speed),
		.vendor = bh_probe_vendor(p), .product = bh_probe_product(p), .version = (uint16_t)(dd[12] | dd[13] << 8),
		.device_class = dd[4], .subclass = dd[5], .protocol = dd[6], .configurations = dd[17],
		.configuration = d->exported.settings.configuration,
		.interfaces = (configuration ? configuration : p->configurations[0])[4],
	};
	snprintf(ret->busid, sizeof(ret->busid), "1-%u", d->number);
	snprintf(ret->path, sizeof(ret->path), "/bulkhead/1-%u", d->number);
}

/* The classes of the first settings of its interfaces, as many as were announced. */
static void answer_interfaces(struct client *c, const struct device *d, unsigned announced)
{
	const uint8_t *p = bh_settings_find(&d->exported.settings, d->exported.settings.configuration), *end;
	struct bh_usbip_interface none = {0};

	p = p ? p : d->exported.probe.configurations[0];
	for (end = p + bh_configuration_length(p); p < end && announced; p += p[0])
		if (p[1] == BH_DESCRIPTOR_INTERFACE && p[0] >= 9 && p[3] == 0) {
			struct bh_usbip_interface i = {p[5], p[6], p[7], 0};

			answer(c, &i, sizeof(i));
			announced--;
		}
	while (announced--)
		answer(c, &none, sizeof(none));
}

static void answer_devlist(struct client *c)
{
	struct bh_usbip_server *s = c->server;
	struct bh_usbip_devlist_reply reply = {.header = bh_usbip_put_op(BH_USBIP_REP_DEVLIST, BH_USBIP_OK)};
	uint32_t there = 0;

	for (size_t i = 0; i < s->device_count; i++)
		there += s->devices[i].exported.there && !s->devices[i].client;
	reply.count = bh_put_be32(there);
	answer(c, &reply, sizeof(reply));
	for (size_t i = 0; i < s->device_count; i++) {
		struct bh_usbip_device_fields fields;
		struct bh_usbip_device wire;

		if (!s->devices[i].exported.there || s->devices[i].client)
			continue;
		describe(&s->devices[i], &fields);
		wire = bh_usbip_put_device(&fields);
		answer(c, &wire, sizeof(wire));
		answer_interfaces(c, &s->devices[i], fields.interfaces);
	}
	c->phase = ENDING;
}

static struct device *find_device(struct bh_usbip_server *s, const char busid[BH_USBIP_BUSID_SIZE])
{
	char name[BH_USBIP_BUSID_SIZE];

	for (size_t i = 0; i < s->device_count; i++) {
		snprintf(name, sizeof(name), "1-%u", s->devices[i].number);
		if (!strncmp(name, busid, sizeof(name)))
			return &s->devices[i];
	}
	return NULL;
}

static void answer_import(struct client *c)
{
	struct device *d = find_device(c->server, c->head.busid);
	enum bh_usbip_op_status status = !d || !d->exported.there ? BH_USBIP_NO_DEVICE : d->client ? BH_USBIP_BUSY : BH_USBIP_OK;
	struct bh_usbip_import_reply reply = {.header = bh_usbip_put_op(BH_USBIP_REP_IMPORT, status)};
	struct bh_usbip_device_fields fields;

	if (status != BH_USBIP_OK) {
		c->server->counters.refused++;
		answer(c, &reply.header, sizeof(reply.header));
		c->phase = ENDING;
		return;
	}
	describe(d, &fields);
	reply.device = bh_usbip_put_device(&fields);
	answer(c, &reply, sizeof(reply));
	c->device = d;
	c->stranger = false;
	c->server->strangers--;
	d->client = c;
	c->phase = COMMAND;
	c->server->counters.clients++;
	say(c->server, "1-%u: imported by a client", d->number);
}

static void take_header(struct client *c)
{
	struct bh_usbip_operation_fields op = bh_usbip_get_op(&c->head.op);

	if (op.version != BH_USBIP_VERSION)
		violation(c, "it speaks another version of USB/IP, or something else");
	else if (op.code == BH_USBIP_REQ_DEVLIST)
		answer_devlist(c);
	else if (op.code == BH_USBIP_REQ_IMPORT)
		c->phase = BUSID;
	else
		violation(c, "it asks for what there is not in USB/IP");
}

/* --- the second phase --------------------------------------------------------------------------------------- */

static bool is_isochronous(const struct device *d, uint8_t endpoint)
{
	const struct bh_endpoint_info *info = endpoint & 15 ? bh_device_endpoint(d->exported.device, endpoint) : NULL;

	return info && info->type == BH_ISOCHRONOUS;
}

/* What follows the header is there. */
static void submit(struct client *c)
{
	struct bh_export_request *r = c->coming;

	c->coming = NULL;
	c->phase = COMMAND;
	c->server->counters.requests++;
	bh_exported_submit(&c->device->exported, r);
}

static void take_packets(struct client *c)
{
	struct bh_export_request *r = c->coming;

	for (unsigned i = 0; i < r->transfer.packet_count; i++) {
		struct bh_usbip_packet p = bh_usbip_get_packet(&c->packets[i]);

		if (p.offset > r->transfer.length || p.length > r->transfer.length - p.offset) {
			violation(c, "a packet lies outside of its transfer");
			return;
		}
		r->packets[i] = (struct bh_packet){.offset = p.offset, .length = p.length, .status = BH_NO_RESPONSE};
	}
	submit(c);
}

/* What comes next of the request that is coming. */
static void go_on(struct client *c)
{
	const struct bh_transfer *t = &c->coming->transfer;

	if (c->phase == COMMAND && !is_in(t) && t->length)
		c->phase = DATA;
	else if (t->packet_count)
		c->phase = PACKETS;
	else
		submit(c);
}

static void fill(struct bh_export_request *r, const struct bh_usbip_submit *s, const struct bh_endpoint_info *info)
{
	struct bh_transfer *t = &r->transfer;

	r->id = s->seqnum;
	r->flags = s->flags;
	if (s->endpoint == 0) {
		t->type = BH_CONTROL;
		t->setup = s->setup;
		return;
	}
	t->endpoint = (uint8_t)(s->endpoint | (s->in ? BH_ENDPOINT_IN : 0));
	t->type = info ? info->type : BH_BULK;
	if (!s->in && s->flags & BH_USBIP_ZERO_PACKET && info && t->length % info->max_packet == 0)
		t->flags = BH_TRANSFER_ZERO_PACKET;
}

/* Does the length of a control request fit its setup data? */
static bool control_fits(const struct bh_usbip_submit *s)
{
	bool in = s->setup.bmRequestType & BH_ENDPOINT_IN;
	uint32_t length = bh_get_le16(s->setup.wLength);

	if (!length)
		return s->in || !s->length; /* no data follows */
	return in == s->in && (in ? s->length >= length : s->length == length);
}

static void take_submit(struct client *c)
{
	struct bh_usbip_submit s = bh_usbip_get_submit(&c->head.message.cmd_submit);
	uint8_t endpoint = (uint8_t)((s.endpoint & 15) | (s.in ? BH_ENDPOINT_IN : 0));
	bool isochronous = is_isochronous(c->device, endpoint);
	uint32_t length = s.endpoint ? s.length : BH_MIN(s.length, bh_get_le16(s.setup.wLength)), asked = length;

	if (s.endpoint > 15 || (s.endpoint == 0 && !control_fits(&s)) || (isochronous && !s.packets)) {
		violation(c, "a request makes no sense");
		return;
	}
	if (bh_exported_find(&c->device->exported, s.seqnum)) {
		violation(c, "two requests have one number");
		return;
	}
	if (s.endpoint && s.in && !isochronous)
		length = bh_exported_in_length(&c->device->exported, endpoint, asked);
	c->coming = bh_exported_request(&c->device->exported, length, isochronous ? s.packets : 0);
	if (!c->coming) {
		violation(c, "it asks for more than one client may have");
		return;
	}
	c->coming->asked = asked;
	fill(c->coming, &s, s.endpoint ? bh_device_endpoint(c->device->exported.device, endpoint) : NULL);
	go_on(c);
}

static void take_unlink(struct client *c)
{
	struct bh_usbip_unlink u = bh_usbip_get_unlink(&c->head.message.cmd_unlink);
	struct bh_export_request *r = bh_exported_find(&c->device->exported, u.target);

	if (!r || r->owner) {
		answer_unlink(c, u.seqnum, 0); /* its RET_SUBMIT was sent before */
		return;
	}
	if (u.seqnum == 0) {
		violation(c, "a request has no number");
		return;
	}
	r->owner = (void *)(uintptr_t)u.seqnum;
	bh_exported_cancel(&c->device->exported, r);
}

static void take_command(struct client *c)
{
	switch (bh_get_be32(c->head.message.basic.command)) {
	case BH_USBIP_CMD_SUBMIT:
		take_submit(c);
		return;
	case BH_USBIP_CMD_UNLINK:
		take_unlink(c);
		return;
	}
	violation(c, "it sends what there is not in USB/IP");
}

/* --- reading ------------------------------------------------------------------------------------------------ */

/* Where what the phase waits for goes, and how long it is. */
static void *room_of(struct client *c, uint32_t *ret_size)
{
	switch (c->phase) {
	case HEADER:
		*ret_size = sizeof(c->head.op);
		return &c->head.op;
	case BUSID:
		*ret_size = sizeof(c->head.busid);
		return c->head.busid;
	case COMMAND:
		*ret_size = sizeof(c->head.message);
		return &c->head.message;
	case DATA:
		*ret_size = c->coming->transfer.length;
		return c->coming->data;
	case PACKETS:
		*ret_size = c->coming->transfer.packet_count * (uint32_t)sizeof(c->packets[0]);
		return c->packets;
	case ENDING:
		break;
	}
	*ret_size = 0;
	return NULL;
}

/* All that the phase waited for has come. */
static void act(struct client *c)
{
	switch (c->phase) {
	case HEADER:
		take_header(c);
		break;
	case BUSID:
		answer_import(c);
		break;
	case COMMAND:
		take_command(c);
		break;
	case DATA:
		go_on(c);
		break;
	case PACKETS:
		take_packets(c);
		break;
	case ENDING:
		break;
	}
}

/* False: there is nothing more for now, or for ever. */
static bool read_some(struct client *c)
{
	uint32_t size;
	uint8_t *room = room_of(c, &size);
	ssize_t n;

	if (!size)
		return false;
	n = recv(c->fd, room + c->have, size - c->have, MSG_DONTWAIT);
	if (n <= 0) {
		c->broken |= n == 0 || (errno != EAGAIN && errno != EINTR);
		return false;
	}
	c->have += (uint32_t)n;
	if (c->have == size) {
		c->have = 0;
		act(c);
	}
	return true;
}

/* A round of the loop takes so much of one client, and no more: others have their turn, too. */
#define STEPS 64u

static void client_ready(uv_poll_t *p, int status, int events)
{
	struct client *c = p->data;

	(void)status;
	if (events & UV_WRITABLE)
		flush(c);
	for (unsigned i = 0; i < STEPS && !c->broken && c->out.used < OUTPUT_HIGH && read_some(c); i++)
		;
	flush(c);
	if (c->broken || (c->phase == ENDING && !c->out.used))
		drop(c);
	else
		watch(c);
}

/* --- clients come ------------------------------------------------------------------------------------------- */

static struct client *client_create(struct bh_usbip_server *s, int fd)
{
	struct client *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->poll = malloc(sizeof(*c->poll));
	c->timer = malloc(sizeof(*c->timer));
	if (!c->poll || !c->timer || uv_poll_init(s->loop, c->poll, fd)) {
		free(c->poll);
		free(c->timer);
		free(c);
		return NULL;
	}
	uv_timer_init(s->loop, c->timer);
	c->poll->data = c->timer->data = c;
	c->server = s;
	c->fd = fd;
	return c;
}

static void accept_one(uv_poll_t *p, int status, int events);

static void listen_again(uv_timer_t *timer)
{
	struct bh_usbip_server *s = timer->data;

	uv_poll_start(s->accepting, UV_READABLE, accept_one);
}

/* Out of descriptors, say: who connects stays in the queue, and would be reported for ever. */
static void refuse_for_a_while(struct bh_usbip_server *s, int error)
{
	s->counters.refused++;
	say(s, "usbip: cannot accept a client: %s", strerror(error));
	uv_poll_stop(s->accepting);
	uv_timer_start(s->rest, listen_again, 1000, 0);
}

static void make_room(struct bh_usbip_server *s)
{
	if (s->strangers < MOST_STRANGERS)
		return;
	bh_list_each(c, &s->clients, struct client, link)
		if (c->stranger) {
			s->counters.dropped++;
			drop(c);
			return;
		}
}

static void accept_one(uv_poll_t *p, int status, int events)
{
	struct bh_usbip_server *s = p->data;
	int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *c;

	(void)status, (void)events;
	if (fd < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			refuse_for_a_while(s, errno);
		return;
	}
	bh_socket_watch_peer(fd);
	make_room(s);
	c = client_create(s, fd);
	if (!c) {
		close(fd);
		refuse_for_a_while(s, ENOMEM);
		return;
	}
	bh_list_append(&s->clients, &c->link);
	c->stranger = true;
	s->strangers++;
	watch(c);
}

/* --- devices ---------------------------------------------------------------------------------------------------- */

static void arrived(struct bh_exported *e)
{
	const struct device *d = e->owner;

	say(d->server, "1-%u: %04x:%04x is exported", d->number, bh_probe_vendor(&e->probe), bh_probe_product(&e->probe));
}

static void departed(struct bh_exported *e, bool for_good)
{
	struct device *d = e->owner;

	(void)for_good;
	say(d->server, "1-%u: the device is gone", d->number);
	if (d->client) {
		d->client->broken = true;
		uv_poll_start(d->client->poll, UV_WRITABLE | UV_READABLE, client_ready); /* which drops it */
	}
}

static const struct bh_exported_ops exported_ops = {.arrived = arrived, .departed = departed, .ended = ended};

int bh_usbip_server_create(uv_loop_t *loop, int listener, struct bh_device *const *devices, size_t count,
                           const struct bh_export_log *log, struct bh_usbip_server **ret)
{
	struct bh_usbip_server *s = calloc(1, sizeof(*s) + count * sizeof(s->devices[0]));
	int r = -ENOMEM;

	if (!s)
		return r;
	s->accepting = malloc(sizeof(*s->accepting));
	s->rest = malloc(sizeof(*s->rest));
	if (s->accepting && s->rest)
		r = uv_poll_init(loop, s->accepting, listener);
	if (r) {
		free(s->accepting);
		free(s->rest);
		free(s);
		return r;
	}
	uv_timer_init(loop, s->rest);
	s->loop = loop;
	s->listener = listener;
	s->lines = (struct bh_lines){.log = *log, .loop = loop};
	bh_list_init(&s->clients);
	s->accepting->data = s->rest->data = s;
	for (; s->device_count < count && !r; s->device_count++) {
		struct device *d = &s->devices[s->device_count];

		d->server = s;
		d->number = (unsigned)s->device_count + 1;
		r = bh_exported_init(&d->exported, loop, devices[s->device_count], &exported_ops, d);
	}
	if (r) {
		bh_usbip_server_destroy(s);
		return r;
	}
	for (size_t i = 0; i < count; i++)
		bh_exported_begin(&s->devices[i].exported);
	uv_poll_start(s->accepting, UV_READABLE, accept_one);
	*ret = s;
	return 0;
}

struct bh_export_counters bh_usbip_server_counters(const struct bh_usbip_server *s)
{
	return s->counters;
}

/* Later than the devices are destroyed, which may end something until then. */
static void free_server(uv_handle_t *accepting)
{
	free(accepting->data);
	free(accepting);
}

void bh_usbip_server_destroy(struct bh_usbip_server *s)
{
	if (!s)
		return;
	bh_list_each(c, &s->clients, struct client, link)
		drop(c);
	for (size_t i = 0; i < s->device_count; i++)
		bh_exported_finish(&s->devices[i].exported);
	uv_close((uv_handle_t *)s->rest, free_handle);
	uv_close((uv_handle_t *)s->accepting, free_server);
}
