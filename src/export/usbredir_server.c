/*
 * The one client of usbredir, and what it asks for: see export/usbredir_server.h.
 *
 * Each message that asks for something becomes a request of exported.c, whose flags say what
 * kind it is. The device is configured when it is shown, and again after a reset, as it would be
 * by a host's own kernel: the protocol's clients count on it.
 */
#include <export/usbredir_server.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <usbredirparser.h>
#include <usbredirfilter.h>

#include <base/util.h>
#include <host/usbredir_guard.h>
#include <net/socket.h>

#include "exported.h"
#include "say.h"

/* What waits to be taken by a client before no more of its messages are read, and streams pause. */
#define OUTPUT_HIGH (1u << 20)

/* A client that takes nothing, or says no hello, for so long is dropped. */
#define STALL_MS 10000u

/* What is read of it before others have their turn. */
#define BUDGET_BYTES (1u << 20)

/* Of one endpoint, whatever the client asks for: requests ahead; OUT: packets. */
#define FLOW_REQUESTS 16u
#define FLOW_PACKETS  128u

/* Messages that wait to be sent; as OUTPUT_HIGH. The parser walks them all to append one. */
#define MESSAGES_HIGH 512

/* Of what comes by itself the ids are the device's; they are told apart from the client's. */
#define OWN_IDS (1ull << 63)

enum kind { CONTROL, BULK, INTERRUPT_OUT, ISOCHRONOUS_OUT, RECEIVING, STREAM, CONFIGURE, CONFIGURE_QUIETLY, SET_ALTERNATE };

/* What flows from an endpoint by itself. */
struct flow {
	bool on, held; /* asked for; waits until the client has taken what there is, or something else is over */
	enum bh_endpoint_type type;
	uint8_t packets; /* isochronous: a request */
	unsigned under_way, most; /* requests */
	uint64_t next_id; /* of the packets that are sent */
};

struct bh_usbredir_server {
	/* configuration */
	uv_loop_t *loop;
	int listener;
	struct bh_lines lines;

	/* state */
	struct bh_exported exported;
	struct bh_export_counters counters;
	uv_poll_t *accepting; /* on the heap, like the following */
	uv_poll_t *poll;      /* NULL: there is no client */
	uv_timer_t *timer;
	uv_timer_t *later;    /* for what is not done where it is noticed */
	uintptr_t clients;    /* so far: requests of those that are gone have their number */
	int fd;
	struct usbredirparser *parser;
	struct bh_redir_guard guard;
	uint64_t waited_for; /* bytes that waited when the timer began */
	size_t budget;
	bool greeted, shown, broken;
	uint8_t configuration; /* the client's last choice; 0: none yet */
	struct flow flows[32];
};

#define say(s, ...) bh_lines_say(&(s)->lines, __VA_ARGS__)

static struct bh_usbredir_server *of_exported(const struct bh_exported *e)
{
	return e->owner;
}

static void go_on(uv_timer_t *timer);

/* From the loop: flows go on, or the client is dropped. */
static void schedule(struct bh_usbredir_server *s)
{
	uv_timer_start(s->later, go_on, 0, 0);
}

static void break_off(struct bh_usbredir_server *s)
{
	s->broken = true;
	schedule(s);
}

/* For what came. */
static void violation(struct bh_usbredir_server *s, const char *what)
{
	if (s->broken)
		return;
	break_off(s);
	s->counters.dropped++;
	say(s, "usbredir: the client was dropped: %s", what);
}

static unsigned index_of(uint8_t endpoint)
{
	return (endpoint & BH_ENDPOINT_IN) >> 3 | (endpoint & 15);
}

static uint8_t status_of(enum bh_status s)
{
	switch (s) {
	case BH_SUCCESS:
		return usb_redir_success;
	case BH_STALL:
		return usb_redir_stall;
	case BH_BABBLE:
		return usb_redir_babble;
	case BH_CANCELLED:
		return usb_redir_cancelled;
	case BH_NO_RESPONSE:
	case BH_BUS_ERROR:
	case BH_STATUS_COUNT:
		break;
	}
	return usb_redir_ioerror;
}

/* --- what the client is told of the device ------------------------------------------------------------ */

static void tell_interfaces(struct bh_usbredir_server *s)
{
	struct usb_redir_interface_info_header info = {0};
	const struct bh_settings *settings = &s->exported.settings;
	const uint8_t *p = bh_settings_find(settings, settings->configuration), *end;

	for (end = p ? p + bh_configuration_length(p) : p; p < end && info.interface_count < 32; p += p[0]) {
		unsigned n = info.interface_count;

		if (p[1] != BH_DESCRIPTOR_INTERFACE || p[0] < 9 || p[2] >= BH_SETTINGS_INTERFACES || p[3] != settings->alternates[p[2]])
			continue;
		info.interface[n] = p[2];
		info.interface_class[n] = p[5];
		info.interface_subclass[n] = p[6];
		info.interface_protocol[n] = p[7];
		info.interface_count++;
	}
	usbredirparser_send_interface_info(s->parser, &info);
}

static void tell_endpoints(struct bh_usbredir_server *s)
{
	struct usb_redir_ep_info_header info = {0};
	const struct bh_settings *settings = &s->exported.settings;

	memset(info.type, usb_redir_type_invalid, sizeof(info.type));
	info.type[0] = info.type[16] = usb_redir_type_control;
	info.max_packet_size[0] = info.max_packet_size[16] = s->exported.device->control_max_packet;
	for (unsigned i = 0; i < settings->endpoint_count; i++) {
		const struct bh_endpoint_info *e = &settings->endpoints[i];
		unsigned n = index_of(e->address);

		info.type[n] = (uint8_t)e->type; /* "these match the usb spec" */
		info.interval[n] = e->interval;
		info.interface[n] = e->interface;
		info.max_packet_size[n] = e->max_packet;
	}
	usbredirparser_send_ep_info(s->parser, &info);
}

static void tell_settings(struct bh_usbredir_server *s)
{
	tell_interfaces(s);
	tell_endpoints(s);
}

static void show(struct bh_usbredir_server *s)
{
	const uint8_t *d = s->exported.probe.device_descriptor;
	struct usb_redir_device_connect_header connect = {
		.speed = (uint8_t)s->exported.device->speed,
		.device_class = d[4], .device_subclass = d[5], .device_protocol = d[6],
		.vendor_id = bh_probe_vendor(&s->exported.probe), .product_id = bh_probe_product(&s->exported.probe),
		.device_version_bcd = (uint16_t)(d[12] | d[13] << 8),
	};

	if (!s->parser || !s->greeted || s->shown || !s->exported.there)
		return;
	tell_settings(s);
	usbredirparser_send_device_connect(s->parser, &connect);
	s->shown = true;
	s->counters.clients++;
}

/* --- requests ------------------------------------------------------------------------------------------------- */

static struct bh_export_request *new_request(struct bh_usbredir_server *s, enum kind kind, uint64_t id, uint8_t endpoint,
                                             uint32_t length, uint32_t packets)
{
	struct bh_export_request *r = bh_exported_request(&s->exported, length, packets);

	if (!r)
		return NULL;
	r->flags = kind;
	r->id = id;
	r->asked = length;
	r->transfer.endpoint = endpoint;
	r->owner = (void *)s->clients;
	s->counters.requests++;
	return r;
}

static void set_configuration(struct bh_usbredir_server *s, enum kind kind, uint64_t id, uint8_t value)
{
	struct bh_export_request *r = new_request(s, kind, id, 0, 0, 0);

	if (!r) {
		violation(s, "it asks for more than one client may have");
		return;
	}
	r->transfer.type = BH_CONTROL;
	r->transfer.setup = (struct bh_setup){0x00, 9, bh_put_le16(value), {{0}}, {{0}}};
	bh_exported_submit(&s->exported, r);
}

/* As a host's kernel does when something is plugged in, or was reset. */
static void configure_again(struct bh_usbredir_server *s)
{
	uint8_t value = s->configuration;

	if (!value && s->exported.probe.count)
		value = s->exported.probe.configurations[0][BH_CONFIGURATION_VALUE];
	set_configuration(s, CONFIGURE_QUIETLY, OWN_IDS, value);
}

static void flow_on(struct bh_usbredir_server *s, uint8_t endpoint);
static void release_flows(struct bh_usbredir_server *s);

static struct flow *flow_of(struct bh_usbredir_server *s, const struct bh_transfer *t)
{
	return &s->flows[index_of(t->endpoint)];
}

static bool is_crowded(const struct bh_usbredir_server *s)
{
	return usbredirparser_get_bufferered_output_size(s->parser) > OUTPUT_HIGH ||
	       usbredirparser_has_data_to_write(s->parser) > MESSAGES_HIGH;
}

/*
 * One of a flow's requests has ended. True: it was taken from it, by a control request, say, or there is no device: it goes on
 * when that is over. Not at once, for then it would be taken again.
 */
static bool goes_on(struct bh_usbredir_server *s, struct flow *f, enum bh_status status)
{
	bool later = f->on && (status == BH_CANCELLED || !s->exported.there);

	f->under_way--;
	f->held |= later;
	return later;
}

static void ended_receiving(struct bh_usbredir_server *s, struct bh_export_request *r, enum bh_status status)
{
	struct flow *f = flow_of(s, &r->transfer);
	struct usb_redir_interrupt_packet_header header = {
		.endpoint = r->transfer.endpoint, .status = status_of(status), .length = (uint16_t)r->transfer.actual};

	if (goes_on(s, f, status) || !f->on)
		return;
	if (status == BH_STALL) {
		f->on = false;
		usbredirparser_send_interrupt_receiving_status(s->parser, r->id, &(struct usb_redir_interrupt_receiving_status_header){
			.status = usb_redir_stall, .endpoint = r->transfer.endpoint});
		return;
	}
	usbredirparser_send_interrupt_packet(s->parser, f->next_id++, &header, r->data, (int)r->transfer.actual);
}

static void ended_stream(struct bh_usbredir_server *s, struct bh_export_request *r, enum bh_status status)
{
	struct flow *f = flow_of(s, &r->transfer);

	if (goes_on(s, f, status) || !f->on)
		return;
	if (status == BH_STALL) {
		f->on = false;
		usbredirparser_send_iso_stream_status(s->parser, r->id, &(struct usb_redir_iso_stream_status_header){
			.status = usb_redir_stall, .endpoint = r->transfer.endpoint});
		return;
	}
	for (unsigned i = 0; i < r->transfer.packet_count; i++) {
		const struct bh_packet *p = &r->packets[i];
		struct usb_redir_iso_packet_header header = {
			.endpoint = r->transfer.endpoint, .status = status_of(p->status), .length = (uint16_t)p->actual};
		uint64_t id = f->next_id++;

		if (!is_crowded(s)) /* what comes too late is worth nothing */
			usbredirparser_send_iso_packet(s->parser, id, &header, r->data + p->offset, (int)p->actual);
	}
}

static void ended_control(struct bh_usbredir_server *s, struct bh_export_request *r, enum bh_status status)
{
	const struct bh_transfer *t = &r->transfer;
	bool in = t->setup.bmRequestType & BH_ENDPOINT_IN;
	uint32_t actual = in ? t->actual : status == BH_SUCCESS ? t->length : 0;
	struct usb_redir_control_packet_header header = {
		.endpoint = in ? BH_ENDPOINT_IN : 0, .request = t->setup.bRequest, .requesttype = t->setup.bmRequestType,
		.status = status_of(status), .value = bh_get_le16(t->setup.wValue), .index = bh_get_le16(t->setup.wIndex),
		.length = (uint16_t)actual,
	};

	usbredirparser_send_control_packet(s->parser, r->id, &header, in ? r->data : NULL, in ? (int)actual : 0);
}

static void ended_bulk(struct bh_usbredir_server *s, struct bh_export_request *r, enum bh_status status)
{
	bool in = r->transfer.endpoint & BH_ENDPOINT_IN;
	enum bh_status cut = in ? bh_export_request_cut(r, status) : status;
	uint32_t actual = r->transfer.actual;
	struct usb_redir_bulk_packet_header header = {
		.endpoint = r->transfer.endpoint, .status = status_of(cut), .length = (uint16_t)actual,
		.length_high = (uint16_t)(actual >> 16)};

	usbredirparser_send_bulk_packet(s->parser, r->id, &header, in ? r->data : NULL, in ? (int)actual : 0);
}

static void ended_interrupt_out(struct bh_usbredir_server *s, struct bh_export_request *r, enum bh_status status)
{
	struct usb_redir_interrupt_packet_header header = {
		.endpoint = r->transfer.endpoint, .status = status_of(status), .length = (uint16_t)r->transfer.actual};

	usbredirparser_send_interrupt_packet(s->parser, r->id, &header, NULL, 0);
}

static void ended_settings(struct bh_usbredir_server *s, struct bh_export_request *r, enum bh_status status)
{
	const struct bh_settings *settings = &s->exported.settings;
	uint8_t interface = r->transfer.setup.wIndex.b[0];

	if (r->flags == CONFIGURE_QUIETLY) {
		show(s);
		return;
	}
	tell_settings(s);
	if (r->flags == CONFIGURE)
		usbredirparser_send_configuration_status(s->parser, r->id, &(struct usb_redir_configuration_status_header){
			.status = status_of(status), .configuration = settings->configuration});
	else
		usbredirparser_send_alt_setting_status(s->parser, r->id, &(struct usb_redir_alt_setting_status_header){
			.status = status_of(status), .interface = interface,
			.alt = interface < BH_SETTINGS_INTERFACES ? settings->alternates[interface] : 0});
}

static void count(struct bh_usbredir_server *s, const struct bh_export_request *r)
{
	const struct bh_transfer *t = &r->transfer;
	bool in = (t->type == BH_CONTROL ? t->setup.bmRequestType : t->endpoint) & BH_ENDPOINT_IN;

	*(in ? &s->counters.bytes_in : &s->counters.bytes_out) += t->actual;
	for (unsigned i = 0; i < t->packet_count; i++)
		*(in ? &s->counters.bytes_in : &s->counters.bytes_out) += r->packets[i].actual;
}

static void write_out(struct bh_usbredir_server *s);

static void continue_flow(struct bh_usbredir_server *s, uint8_t endpoint)
{
	if (!s->flows[index_of(endpoint)].held)
		flow_on(s, endpoint);
}

static void ended(struct bh_export_request *r, enum bh_status status)
{
	struct bh_usbredir_server *s = of_exported(r->exported);

	count(s, r);
	if (!s->parser || r->owner != (void *)s->clients)
		return;
	switch ((enum kind)r->flags) {
	case CONTROL:
		ended_control(s, r, status);
		schedule(s); /* what it has taken from flows */
		break;
	case BULK:
		ended_bulk(s, r, status);
		break;
	case INTERRUPT_OUT:
		ended_interrupt_out(s, r, status);
		break;
	case ISOCHRONOUS_OUT:
		flow_of(s, &r->transfer)->under_way--;
		break;
	case RECEIVING:
		ended_receiving(s, r, status);
		continue_flow(s, r->transfer.endpoint);
		break;
	case STREAM:
		ended_stream(s, r, status);
		continue_flow(s, r->transfer.endpoint);
		break;
	case CONFIGURE:
	case CONFIGURE_QUIETLY:
	case SET_ALTERNATE:
		ended_settings(s, r, status);
		schedule(s);
		break;
	}
	write_out(s);
}

/* --- what flows by itself ------------------------------------------------------------------------------------------- */

/* Another request of an IN flow. False: there is no room. */
static bool flow_request(struct bh_usbredir_server *s, uint8_t endpoint, const struct bh_endpoint_info *info, struct flow *f)
{
	bool isochronous = info->type == BH_ISOCHRONOUS;
	unsigned packets = isochronous ? f->packets : 1;
	struct bh_export_request *r = new_request(s, isochronous ? STREAM : RECEIVING, OWN_IDS, endpoint,
	                                          packets * info->max_packet, isochronous ? packets : 0);

	if (!r)
		return false;
	r->transfer.type = info->type;
	for (unsigned i = 0; i < r->transfer.packet_count; i++)
		r->packets[i] = (struct bh_packet){.offset = i * info->max_packet, .length = info->max_packet, .status = BH_NO_RESPONSE};
	f->under_way++;
	bh_exported_submit(&s->exported, r);
	return true;
}

/* Keeps an IN flow going: as many requests as it may have, but none while the client takes nothing. */
static void flow_on(struct bh_usbredir_server *s, uint8_t endpoint)
{
	struct flow *f = &s->flows[index_of(endpoint)];
	const struct bh_endpoint_info *info;

	while (f->on && endpoint & BH_ENDPOINT_IN && f->under_way < f->most && s->parser && !s->broken) {
		f->held = is_crowded(s);
		info = bh_settings_endpoint(&s->exported.settings, endpoint);
		f->on = info && info->type == f->type;
		if (f->held || !f->on || !flow_request(s, endpoint, info, f))
			return;
	}
}

static void release_flows(struct bh_usbredir_server *s)
{
	for (unsigned n = 0; n < 32; n++)
		if (s->flows[n].held)
			flow_on(s, (uint8_t)((n & 16) << 3 | (n & 15)));
}

/* False: there is no such endpoint of that type. */
static bool begin_flow(struct bh_usbredir_server *s, uint8_t endpoint, enum bh_endpoint_type type, uint8_t packets, uint8_t most)
{
	const struct bh_endpoint_info *info = endpoint & 15 ? bh_settings_endpoint(&s->exported.settings, endpoint) : NULL;
	struct flow *f = &s->flows[index_of(endpoint)];

	if (!info || info->type != type || !packets || packets > BH_EXPORT_PACKETS || !most)
		return false;
	f->on = true;
	f->type = type;
	f->packets = packets;
	f->most = BH_MIN(most, FLOW_REQUESTS);
	f->next_id = 0;
	return true;
}

static void end_flows(struct bh_usbredir_server *s)
{
	for (unsigned n = 0; n < 32; n++)
		s->flows[n].on = s->flows[n].held = false;
}

static void end_flow(struct bh_usbredir_server *s, uint8_t endpoint)
{
	s->flows[index_of(endpoint)].on = false;
	bh_exported_cancel_endpoint(&s->exported, endpoint & 0x8f);
}

/* --- messages ----------------------------------------------------------------------------------------------------------- */

static void on_log(void *priv, int level, const char *text)
{
	(void)priv, (void)level, (void)text; /* what is wrong is said where it is noticed, once */
}

static void on_hello(void *priv, struct usb_redir_hello_header *hello)
{
	struct bh_usbredir_server *s = priv;

	(void)hello;
	s->greeted = true;
	if (s->exported.there)
		configure_again(s);
}

static void on_reset(void *priv)
{
	struct bh_usbredir_server *s = priv;

	end_flows(s);
	bh_exported_reset(&s->exported);
	if (s->exported.there)
		configure_again(s);
}

static void on_set_configuration(void *priv, uint64_t id, struct usb_redir_set_configuration_header *h)
{
	struct bh_usbredir_server *s = priv;

	s->configuration = h->configuration;
	set_configuration(s, CONFIGURE, id, h->configuration);
}

static void on_get_configuration(void *priv, uint64_t id)
{
	struct bh_usbredir_server *s = priv;

	usbredirparser_send_configuration_status(s->parser, id, &(struct usb_redir_configuration_status_header){
		.status = usb_redir_success, .configuration = s->exported.settings.configuration});
}

static void on_set_alt_setting(void *priv, uint64_t id, struct usb_redir_set_alt_setting_header *h)
{
	struct bh_usbredir_server *s = priv;
	struct bh_export_request *r = new_request(s, SET_ALTERNATE, id, 0, 0, 0);

	if (!r) {
		violation(s, "it asks for more than one client may have");
		return;
	}
	r->transfer.type = BH_CONTROL;
	r->transfer.setup = (struct bh_setup){0x01, 11, bh_put_le16(h->alt), bh_put_le16(h->interface), {{0}}};
	bh_exported_submit(&s->exported, r);
}

static void on_get_alt_setting(void *priv, uint64_t id, struct usb_redir_get_alt_setting_header *h)
{
	struct bh_usbredir_server *s = priv;
	bool known = h->interface < BH_SETTINGS_INTERFACES;

	usbredirparser_send_alt_setting_status(s->parser, id, &(struct usb_redir_alt_setting_status_header){
		.status = known ? usb_redir_success : usb_redir_inval, .interface = h->interface,
		.alt = known ? s->exported.settings.alternates[h->interface] : 0});
}

static void on_start_iso_stream(void *priv, uint64_t id, struct usb_redir_start_iso_stream_header *h)
{
	struct bh_usbredir_server *s = priv;
	bool ok = begin_flow(s, h->endpoint, BH_ISOCHRONOUS, h->pkts_per_urb, h->no_urbs);

	usbredirparser_send_iso_stream_status(s->parser, id, &(struct usb_redir_iso_stream_status_header){
		.status = ok ? usb_redir_success : usb_redir_inval, .endpoint = h->endpoint});
	if (ok)
		flow_on(s, h->endpoint);
}

static void on_stop_iso_stream(void *priv, uint64_t id, struct usb_redir_stop_iso_stream_header *h)
{
	struct bh_usbredir_server *s = priv;

	end_flow(s, h->endpoint);
	usbredirparser_send_iso_stream_status(s->parser, id, &(struct usb_redir_iso_stream_status_header){
		.status = usb_redir_success, .endpoint = h->endpoint});
}

static void on_start_interrupt_receiving(void *priv, uint64_t id, struct usb_redir_start_interrupt_receiving_header *h)
{
	struct bh_usbredir_server *s = priv;
	bool ok = h->endpoint & BH_ENDPOINT_IN && begin_flow(s, h->endpoint, BH_INTERRUPT, 1, 1);

	usbredirparser_send_interrupt_receiving_status(s->parser, id, &(struct usb_redir_interrupt_receiving_status_header){
		.status = ok ? usb_redir_success : usb_redir_inval, .endpoint = h->endpoint});
	if (ok)
		flow_on(s, h->endpoint);
}

static void on_stop_interrupt_receiving(void *priv, uint64_t id, struct usb_redir_stop_interrupt_receiving_header *h)
{
	struct bh_usbredir_server *s = priv;

	end_flow(s, h->endpoint);
	usbredirparser_send_interrupt_receiving_status(s->parser, id, &(struct usb_redir_interrupt_receiving_status_header){
		.status = usb_redir_success, .endpoint = h->endpoint});
}

static void on_cancel_data_packet(void *priv, uint64_t id)
{
	struct bh_usbredir_server *s = priv;
	struct bh_export_request *r = id & OWN_IDS ? NULL : bh_exported_find(&s->exported, id);

	if (r)
		bh_exported_cancel(&s->exported, r); /* else it has been answered */
}

static void on_filter_reject(void *priv)
{
	struct bh_usbredir_server *s = priv;

	say(s, "usbredir: the client does not want this device");
	break_off(s);
}

static void on_filter_filter(void *priv, struct usbredirfilter_rule *rules, int count_of)
{
	(void)priv, (void)count_of;
	free(rules); /* the client applies it itself */
}

static void on_device_disconnect_ack(void *priv)
{
	(void)priv;
}

static void on_control_packet(void *priv, uint64_t id, struct usb_redir_control_packet_header *h, uint8_t *data, int length)
{
	struct bh_usbredir_server *s = priv;
	bool in = h->requesttype & BH_ENDPOINT_IN;
	struct bh_export_request *r = NULL;

	if ((in && length) || (!in && length != h->length))
		violation(s, "a control request makes no sense");
	else if (!(r = new_request(s, CONTROL, id & ~OWN_IDS, 0, h->length, 0)))
		violation(s, "it asks for more than one client may have");
	if (r) {
		r->transfer.type = BH_CONTROL;
		r->transfer.setup = (struct bh_setup){h->requesttype, h->request, bh_put_le16(h->value), bh_put_le16(h->index),
		                                      bh_put_le16(h->length)};
		if (!in && length)
			memcpy(r->data, data, (size_t)length);
	}
	usbredirparser_free_packet_data(s->parser, data);
	if (r)
		bh_exported_submit(&s->exported, r);
}

/* Bulk, interrupt OUT, isochronous OUT: data goes out, or so much is asked for. */
static struct bh_export_request *data_request(struct bh_usbredir_server *s, enum kind kind, uint64_t id, uint8_t endpoint,
                                              uint32_t asked, uint8_t *data, int length)
{
	bool in = endpoint & BH_ENDPOINT_IN;
	struct bh_export_request *r = NULL;

	if ((in && length) || (!in && (uint32_t)length != asked))
		violation(s, "the length of a packet makes no sense");
	else if (!(r = new_request(s, kind, id & ~OWN_IDS, endpoint, in ? bh_exported_in_length(&s->exported, endpoint, asked) : asked,
	                           kind == ISOCHRONOUS_OUT)))
		violation(s, "it asks for more than one client may have");
	if (r) {
		r->asked = asked;
		r->transfer.type = kind == BULK ? BH_BULK : kind == INTERRUPT_OUT ? BH_INTERRUPT : BH_ISOCHRONOUS;
		if (!in && length)
			memcpy(r->data, data, (size_t)length);
	}
	usbredirparser_free_packet_data(s->parser, data);
	return r;
}

static void on_bulk_packet(void *priv, uint64_t id, struct usb_redir_bulk_packet_header *h, uint8_t *data, int length)
{
	struct bh_usbredir_server *s = priv;
	struct bh_export_request *r =
		data_request(s, BULK, id, h->endpoint & 0x8f, (uint32_t)h->length_high << 16 | h->length, data, length);

	if (r)
		bh_exported_submit(&s->exported, r);
}

static void on_interrupt_packet(void *priv, uint64_t id, struct usb_redir_interrupt_packet_header *h, uint8_t *data, int length)
{
	struct bh_usbredir_server *s = priv;
	struct bh_export_request *r = data_request(s, INTERRUPT_OUT, id, h->endpoint & 0x0f, h->length, data, length);

	if (r)
		bh_exported_submit(&s->exported, r);
}

static void on_iso_packet(void *priv, uint64_t id, struct usb_redir_iso_packet_header *h, uint8_t *data, int length)
{
	struct bh_usbredir_server *s = priv;
	uint8_t endpoint = h->endpoint & 0x0f;
	struct flow *f = &s->flows[index_of(endpoint)];
	struct bh_export_request *r;

	if (!f->on || f->under_way >= BH_MIN(4u * f->most * f->packets, FLOW_PACKETS)) { /* it sends faster than time goes on */
		usbredirparser_free_packet_data(s->parser, data);
		return;
	}
	r = data_request(s, ISOCHRONOUS_OUT, id, endpoint, h->length, data, length);
	if (!r)
		return;
	r->packets[0] = (struct bh_packet){.length = h->length, .status = BH_NO_RESPONSE};
	f->under_way++;
	bh_exported_submit(&s->exported, r);
}

/* --- the connection ---------------------------------------------------------------------------------------------------------- */

static void client_ready(uv_poll_t *p, int status, int events);
static void accept_one(uv_poll_t *p, int status, int events);

static void free_handle(uv_handle_t *h)
{
	free(h);
}

static void drop(struct bh_usbredir_server *s)
{
	struct usbredirparser *parser = s->parser;

	uv_timer_stop(s->timer);
	uv_timer_stop(s->later);
	s->parser = NULL; /* nothing more is sent */
	s->clients++;
	uv_close((uv_handle_t *)s->poll, free_handle);
	s->poll = NULL;
	close(s->fd);
	bh_exported_reset(&s->exported);
	memset(s->flows, 0, sizeof(s->flows));
	s->greeted = s->shown = s->broken = false;
	s->configuration = 0;
	usbredirparser_destroy(parser);
	say(s, "usbredir: the client is gone");
	uv_poll_start(s->accepting, UV_READABLE, accept_one);
}

static void stalled(uv_timer_t *t)
{
	struct bh_usbredir_server *s = t->data;

	if (!s->greeted) {
		violation(s, "it says no hello");
	} else if (usbredirparser_get_bufferered_output_size(s->parser) >= s->waited_for) {
		violation(s, "it takes nothing of what it asked for");
	} else {
		s->waited_for = usbredirparser_get_bufferered_output_size(s->parser);
		uv_timer_start(s->timer, stalled, STALL_MS, 0);
		return;
	}
	drop(s);
}

static void watch(struct bh_usbredir_server *s)
{
	bool writing = usbredirparser_has_data_to_write(s->parser);

	uv_poll_start(s->poll, (writing ? UV_WRITABLE : 0) | (is_crowded(s) && !s->broken ? 0 : UV_READABLE), client_ready);
	if (s->greeted && !writing)
		uv_timer_stop(s->timer);
	else if (!uv_is_active((uv_handle_t *)s->timer)) {
		s->waited_for = usbredirparser_get_bufferered_output_size(s->parser);
		uv_timer_start(s->timer, stalled, STALL_MS, 0);
	}
}

static int parser_reads(void *priv, uint8_t *data, int size)
{
	struct bh_usbredir_server *s = priv;
	bool wide = usbredirparser_have_peer_caps(s->parser) && usbredirparser_peer_has_cap(s->parser, usb_redir_cap_64bits_ids);
	const char *why;
	ssize_t n;

	if (s->broken)
		return -1;
	if (!s->budget || is_crowded(s))
		return 0;
	n = recv(s->fd, data, BH_MIN((size_t)size, s->budget), MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		break_off(s); /* gone: there is nothing to be said */
		return -1;
	}
	s->budget -= (size_t)n;
	why = bh_redir_guard_pass(&s->guard, wide ? 16 : 12, data, (size_t)n);
	if (why)
		violation(s, why);
	return why ? -1 : (int)n;
}

static int parser_writes(void *priv, uint8_t *data, int size)
{
	struct bh_usbredir_server *s = priv;
	ssize_t n = send(s->fd, data, (size_t)size, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n >= 0)
		return (int)n;
	if (errno == EAGAIN || errno == EINTR)
		return 0;
	break_off(s);
	return -1;
}

static void write_out(struct bh_usbredir_server *s)
{
	if (!s->parser || s->broken)
		return;
	usbredirparser_do_write(s->parser);
	watch(s);
}

static void client_ready(uv_poll_t *p, int status, int events)
{
	struct bh_usbredir_server *s = p->data;

	if (status < 0)
		events = UV_READABLE; /* reading tells what it is; libuv waits no longer */
	if (events & UV_WRITABLE)
		write_out(s);
	s->budget = BUDGET_BYTES;
	if (!s->broken && events & UV_READABLE && usbredirparser_do_read(s->parser) == usbredirparser_read_parse_error)
		violation(s, "a message came that makes no sense");
	if (!s->broken)
		release_flows(s);
	write_out(s);
	if (s->broken)
		drop(s);
}

static void go_on(uv_timer_t *timer)
{
	struct bh_usbredir_server *s = timer->data;

	if (!s->parser)
		return;
	if (!s->broken)
		release_flows(s);
	write_out(s);
	if (s->broken)
		drop(s);
}

static struct usbredirparser *make_parser(struct bh_usbredir_server *s)
{
	static const int capabilities[] = {
		usb_redir_cap_connect_device_version, usb_redir_cap_filter, usb_redir_cap_device_disconnect_ack,
		usb_redir_cap_ep_info_max_packet_size, usb_redir_cap_64bits_ids, usb_redir_cap_32bits_bulk_length};
	uint32_t caps[USB_REDIR_CAPS_SIZE] = {0};
	struct usbredirparser *p = usbredirparser_create();

	if (!p)
		return NULL;
	p->priv = s;
	p->log_func = on_log;
	p->read_func = parser_reads;
	p->write_func = parser_writes;
	p->hello_func = on_hello;
	p->reset_func = on_reset;
	p->set_configuration_func = on_set_configuration;
	p->get_configuration_func = on_get_configuration;
	p->set_alt_setting_func = on_set_alt_setting;
	p->get_alt_setting_func = on_get_alt_setting;
	p->start_iso_stream_func = on_start_iso_stream;
	p->stop_iso_stream_func = on_stop_iso_stream;
	p->start_interrupt_receiving_func = on_start_interrupt_receiving;
	p->stop_interrupt_receiving_func = on_stop_interrupt_receiving;
	p->cancel_data_packet_func = on_cancel_data_packet;
	p->filter_reject_func = on_filter_reject;
	p->filter_filter_func = on_filter_filter;
	p->device_disconnect_ack_func = on_device_disconnect_ack;
	p->control_packet_func = on_control_packet;
	p->bulk_packet_func = on_bulk_packet;
	p->iso_packet_func = on_iso_packet;
	p->interrupt_packet_func = on_interrupt_packet;
	for (size_t i = 0; i < BH_COUNT(capabilities); i++)
		usbredirparser_caps_set_cap(caps, capabilities[i]);
	usbredirparser_init(p, "bulkhead", caps, USB_REDIR_CAPS_SIZE, usbredirparser_fl_usb_host);
	return p;
}

/* 0, or a negative errno. */
static int begin_client(struct bh_usbredir_server *s, int fd)
{
	int r = -ENOMEM;

	s->poll = malloc(sizeof(*s->poll));
	if (s->poll)
		r = uv_poll_init(s->loop, s->poll, fd);
	if (r) {
		free(s->poll);
		s->poll = NULL;
		return r;
	}
	s->parser = make_parser(s);
	if (s->parser)
		return 0;
	uv_close((uv_handle_t *)s->poll, free_handle);
	s->poll = NULL;
	return -ENOMEM;
}

static void listen_again(uv_timer_t *timer)
{
	struct bh_usbredir_server *s = timer->data;

	uv_poll_start(s->accepting, UV_READABLE, accept_one);
}

/* Out of descriptors, say: who connects stays in the queue, and would be reported for ever. */
static void refuse_for_a_while(struct bh_usbredir_server *s, int error)
{
	s->counters.refused++;
	say(s, "usbredir: cannot accept a client: %s", strerror(error));
	uv_poll_stop(s->accepting);
	uv_timer_start(s->later, listen_again, 1000, 0);
}

static void accept_one(uv_poll_t *p, int status, int events)
{
	struct bh_usbredir_server *s = p->data;
	int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), r;

	(void)status, (void)events;
	if (fd < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			refuse_for_a_while(s, errno);
		return;
	}
	bh_socket_watch_peer(fd);
	r = begin_client(s, fd);
	if (r) {
		close(fd);
		refuse_for_a_while(s, -r);
		return;
	}
	uv_poll_stop(s->accepting); /* the next one waits for its turn */
	s->fd = fd;
	s->poll->data = s;
	s->guard = (struct bh_redir_guard){.has_device = true};
	say(s, "usbredir: a client has connected");
	write_out(s);
}

/* --- the device comes and goes ------------------------------------------------------------------------------------------------------ */

static void arrived(struct bh_exported *e)
{
	struct bh_usbredir_server *s = of_exported(e);

	say(s, "%04x:%04x is exported", bh_probe_vendor(&e->probe), bh_probe_product(&e->probe));
	if (s->greeted)
		configure_again(s);
}

static void departed(struct bh_exported *e, bool for_good)
{
	struct bh_usbredir_server *s = of_exported(e);

	(void)for_good;
	say(s, "the device is gone");
	end_flows(s);
	s->configuration = 0;
	if (!s->parser || !s->shown)
		return;
	s->shown = false;
	usbredirparser_send_device_disconnect(s->parser);
	write_out(s);
}

static const struct bh_exported_ops exported_ops = {.arrived = arrived, .departed = departed, .ended = ended};

int bh_usbredir_server_create(uv_loop_t *loop, int listener, struct bh_device *device, const struct bh_export_log *log,
                              struct bh_usbredir_server **ret)
{
	struct bh_usbredir_server *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->loop = loop;
	s->listener = listener;
	s->lines = (struct bh_lines){.log = *log, .loop = loop};
	s->fd = -1;
	s->accepting = malloc(sizeof(*s->accepting));
	s->timer = malloc(sizeof(*s->timer));
	s->later = malloc(sizeof(*s->later));
	if (!s->accepting || !s->timer || !s->later || uv_poll_init(loop, s->accepting, listener)) {
		free(s->accepting);
		free(s->timer);
		free(s->later);
		free(s);
		return -ENOMEM;
	}
	uv_timer_init(loop, s->timer);
	uv_timer_init(loop, s->later);
	s->accepting->data = s->timer->data = s->later->data = s;
	if (bh_exported_init(&s->exported, loop, device, &exported_ops, s)) {
		bh_usbredir_server_destroy(s);
		return -ENOMEM;
	}
	bh_exported_begin(&s->exported);
	uv_poll_start(s->accepting, UV_READABLE, accept_one);
	*ret = s;
	return 0;
}

struct bh_export_counters bh_usbredir_server_counters(const struct bh_usbredir_server *s)
{
	return s->counters;
}

/* Later than the device is destroyed, which may end something until then. */
static void free_server(uv_handle_t *accepting)
{
	free(accepting->data);
	free(accepting);
}

void bh_usbredir_server_destroy(struct bh_usbredir_server *s)
{
	if (!s)
		return;
	if (s->parser)
		drop(s);
	bh_exported_finish(&s->exported);
	uv_close((uv_handle_t *)s->timer, free_handle);
	uv_close((uv_handle_t *)s->later, free_handle);
	uv_close((uv_handle_t *)s->accepting, free_server);
}
