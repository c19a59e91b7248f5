/*
 * The other side of a usbredir connection, in this process: it has a device, keeps what it is
 * asked, and answers as a test tells it. Only descriptors it answers by itself. Its parser is
 * the library's, in the role of the side that has the device.
 */
#ifndef USBREDIR_PEER_H
#define USBREDIR_PEER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <usbredirfilter.h>
#include <usbredirparser.h>
#include <uv.h>

#define BULK_IN       0x81
#define BULK_OUT      0x02
#define INTERRUPT_IN  0x83
#define INTERRUPT_OUT 0x04
#define ISO_IN        0x85
#define ISO_OUT       0x06

#define INTERRUPT_PACKET 8
#define ISO_PACKET       192

static const uint8_t peer_device[18] = {18, 1, 0x10, 1, 0xff, 0, 0, 64, 0x34, 0x12, 0x78, 0x56, 1, 1, 0, 0, 0, 1};

/* Interface 0: bulk and interrupt endpoints; its alternate setting 1: isochronous ones, too. */
static const uint8_t peer_configuration[] = {
	9, 2, 97, 0, 1, 1, 0, 0x80, 50,
	9, 4, 0, 0, 4, 0xff, 1, 2, 0,
	7, 5, BULK_IN, 2, 64, 0, 0,
	7, 5, BULK_OUT, 2, 64, 0, 0,
	7, 5, INTERRUPT_IN, 3, INTERRUPT_PACKET, 0, 1,
	7, 5, INTERRUPT_OUT, 3, INTERRUPT_PACKET, 0, 1,
	9, 4, 0, 1, 6, 0xff, 1, 2, 0,
	7, 5, BULK_IN, 2, 64, 0, 0,
	7, 5, BULK_OUT, 2, 64, 0, 0,
	7, 5, INTERRUPT_IN, 3, INTERRUPT_PACKET, 0, 1,
	7, 5, INTERRUPT_OUT, 3, INTERRUPT_PACKET, 0, 1,
	7, 5, ISO_IN, 1, ISO_PACKET, 0, 1,
	7, 5, ISO_OUT, 1, ISO_PACKET, 0, 1,
};

/* One message that came; the first that is not taken yet is the next. */
struct message {
	unsigned type;
	uint64_t id;
	union {
		struct usb_redir_control_packet_header control;
		struct usb_redir_bulk_packet_header bulk;
		struct usb_redir_interrupt_packet_header interrupt;
		struct usb_redir_iso_packet_header iso;
		struct usb_redir_set_configuration_header configuration;
		struct usb_redir_set_alt_setting_header alternate;
		uint8_t endpoint; /* of streams, and the first byte of what has one; of get_alt_setting, the interface */
	};
	uint8_t *data;
	int length;
};

#define PEER_MESSAGES 4096u

struct peer {
	int fd;
	struct usbredirparser *parser;
	uv_poll_t *poll;
	struct message messages[PEER_MESSAGES];
	unsigned count, taken;
	unsigned acknowledged; /* disconnects */
	bool greeted, ended, deaf;
	const uint8_t *configuration;
	uint8_t speed;
};

static struct message *peer_note(struct peer *p, unsigned type, uint64_t id, const void *header, size_t size)
{
	struct message *m = &p->messages[p->count++ % PEER_MESSAGES];

	free(m->data);
	*m = (struct message){.type = type, .id = id};
	if (size)
		memcpy(&m->control, header, size);
	return m;
}

static void peer_ready(uv_poll_t *poll, int status, int events);

static void peer_flush(struct peer *p)
{
	if (usbredirparser_do_write(p->parser) < 0)
		p->ended = true;
	if (!p->ended)
		uv_poll_start(p->poll,
		              (p->deaf ? 0 : UV_READABLE) | (usbredirparser_has_data_to_write(p->parser) ? UV_WRITABLE : 0),
		              peer_ready);
}

/* --- what comes ----------------------------------------------------------------------------- */

static void peer_answers_descriptor(struct peer *p, uint64_t id, struct usb_redir_control_packet_header *h)
{
	const uint8_t *bytes = h->value >> 8 == 1 ? peer_device : p->configuration;
	uint16_t size = h->value >> 8 == 1 ? 18 : (uint16_t)(bytes[2] | bytes[3] << 8);

	h->length = h->length < size ? h->length : size;
	h->status = usb_redir_success;
	usbredirparser_send_control_packet(p->parser, id, h, (uint8_t *)bytes, h->length);
	peer_flush(p);
}

#define PEER_KEEPS(name, type, header)                                                       \
	static void peer_##name(void *priv, uint64_t id, struct header *h)                    \
	{                                                                                     \
		peer_note(priv, type, id, h, sizeof(*h) < 16 ? sizeof(*h) : 16);              \
	}
PEER_KEEPS(set_configuration, usb_redir_set_configuration, usb_redir_set_configuration_header)
PEER_KEEPS(set_alternate, usb_redir_set_alt_setting, usb_redir_set_alt_setting_header)
PEER_KEEPS(get_alternate, usb_redir_get_alt_setting, usb_redir_get_alt_setting_header)
PEER_KEEPS(start_iso, usb_redir_start_iso_stream, usb_redir_start_iso_stream_header)
PEER_KEEPS(stop_iso, usb_redir_stop_iso_stream, usb_redir_stop_iso_stream_header)
PEER_KEEPS(start_interrupt, usb_redir_start_interrupt_receiving, usb_redir_start_interrupt_receiving_header)
PEER_KEEPS(stop_interrupt, usb_redir_stop_interrupt_receiving, usb_redir_stop_interrupt_receiving_header)

static void peer_get_configuration(void *priv, uint64_t id)
{
	peer_note(priv, usb_redir_get_configuration, id, NULL, 0);
}

static void peer_cancel(void *priv, uint64_t id)
{
	peer_note(priv, usb_redir_cancel_data_packet, id, NULL, 0);
}

static void peer_reset(void *priv)
{
	peer_note(priv, usb_redir_reset, 0, NULL, 0);
}

static void peer_reject(void *priv)
{
	peer_note(priv, usb_redir_filter_reject, 0, NULL, 0);
}

static void peer_filter(void *priv, struct usbredirfilter_rule *rules, int count)
{
	peer_note(priv, usb_redir_filter_filter, (uint64_t)count, NULL, 0);
	usbredirfilter_free(rules);
}

static void peer_acknowledged(void *priv)
{
	((struct peer *)priv)->acknowledged++;
}

static void peer_data(struct message *m, uint8_t *data, int length)
{
	m->data = data;
	m->length = length;
}

static void peer_control(void *priv, uint64_t id, struct usb_redir_control_packet_header *h, uint8_t *data, int length)
{
	if (h->requesttype == 0x80 && h->request == 6)
		peer_answers_descriptor(priv, id, h);
	else
		peer_data(peer_note(priv, usb_redir_control_packet, id, h, sizeof(*h)), data, length);
}

static void peer_bulk(void *priv, uint64_t id, struct usb_redir_bulk_packet_header *h, uint8_t *data, int length)
{
	peer_data(peer_note(priv, usb_redir_bulk_packet, id, h, sizeof(*h)), data, length);
}

static void peer_interrupt(void *priv, uint64_t id, struct usb_redir_interrupt_packet_header *h, uint8_t *data,
                           int length)
{
	peer_data(peer_note(priv, usb_redir_interrupt_packet, id, h, sizeof(*h)), data, length);
}

static void peer_iso(void *priv, uint64_t id, struct usb_redir_iso_packet_header *h, uint8_t *data, int length)
{
	peer_data(peer_note(priv, usb_redir_iso_packet, id, h, sizeof(*h)), data, length);
}

static void peer_hello(void *priv, struct usb_redir_hello_header *h)
{
	(void)h;
	((struct peer *)priv)->greeted = true;
}

/* --- the connection -------------------------------------------------------------------------- */

static int peer_reads(void *priv, uint8_t *data, int count)
{
	struct peer *p = priv;
	ssize_t n = p->deaf ? 0 : recv(p->fd, data, (size_t)count, MSG_DONTWAIT);

	if (n > 0 || p->deaf)
		return (int)n;
	if (n < 0 && errno == EAGAIN)
		return 0;
	p->ended = true;
	return -1;
}

static int peer_writes(void *priv, uint8_t *data, int count)
{
	struct peer *p = priv;
	ssize_t n = send(p->fd, data, (size_t)count, MSG_DONTWAIT | MSG_NOSIGNAL);

	return n >= 0 ? (int)n : errno == EAGAIN ? 0 : -1;
}

static void peer_says(void *priv, int level, const char *text)
{
	(void)priv;
	if (level == usbredirparser_error)
		print_message("# peer: %s\n", text);
}

static void peer_ready(uv_poll_t *poll, int status, int events)
{
	struct peer *p = poll->data;

	if (status < 0) {
		p->ended = true;
		uv_poll_stop(poll);
		return;
	}
	if (events & UV_READABLE && usbredirparser_do_read(p->parser) == usbredirparser_read_parse_error)
		fail_msg("the peer does not understand what was sent");
	if (p->ended)
		uv_poll_stop(poll);
	else
		peer_flush(p);
}

/* A peer at this socket. lacks: a capability it does not have; -1: it has all that we know. */
static struct peer *peer_create(uv_loop_t *l, int fd, int lacks)
{
	static const int all[] = {
		usb_redir_cap_connect_device_version, usb_redir_cap_filter, usb_redir_cap_device_disconnect_ack,
		usb_redir_cap_ep_info_max_packet_size, usb_redir_cap_64bits_ids, usb_redir_cap_32bits_bulk_length,
		usb_redir_cap_bulk_receiving, usb_redir_cap_bulk_streams,
	};
	uint32_t capabilities[USB_REDIR_CAPS_SIZE] = {0};
	struct peer *p = calloc(1, sizeof(*p));

	p->fd = fd;
	p->configuration = peer_configuration;
	p->speed = usb_redir_speed_full;
	p->parser = usbredirparser_create();
	p->parser->priv = p;
	p->parser->log_func = peer_says;
	p->parser->read_func = peer_reads;
	p->parser->write_func = peer_writes;
	p->parser->hello_func = peer_hello;
	p->parser->reset_func = peer_reset;
	p->parser->set_configuration_func = peer_set_configuration;
	p->parser->get_configuration_func = peer_get_configuration;
	p->parser->set_alt_setting_func = peer_set_alternate;
	p->parser->get_alt_setting_func = peer_get_alternate;
	p->parser->start_iso_stream_func = peer_start_iso;
	p->parser->stop_iso_stream_func = peer_stop_iso;
	p->parser->start_interrupt_receiving_func = peer_start_interrupt;
	p->parser->stop_interrupt_receiving_func = peer_stop_interrupt;
	p->parser->cancel_data_packet_func = peer_cancel;
	p->parser->filter_reject_func = peer_reject;
	p->parser->filter_filter_func = peer_filter;
	p->parser->device_disconnect_ack_func = peer_acknowledged;
	p->parser->control_packet_func = peer_control;
	p->parser->bulk_packet_func = peer_bulk;
	p->parser->interrupt_packet_func = peer_interrupt;
	p->parser->iso_packet_func = peer_iso;
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i] != lacks)
			usbredirparser_caps_set_cap(capabilities, all[i]);
	usbredirparser_init(p->parser, "a test", capabilities, USB_REDIR_CAPS_SIZE, usbredirparser_fl_usb_host);
	p->poll = malloc(sizeof(*p->poll));
	uv_poll_init(l, p->poll, fd);
	p->poll->data = p;
	peer_flush(p);
	return p;
}

static void peer_free_handle(uv_handle_t *h)
{
	free(h);
}

static void peer_destroy(struct peer *p)
{
	if (!p)
		return;
	uv_close((uv_handle_t *)p->poll, peer_free_handle);
	close(p->fd);
	usbredirparser_destroy(p->parser);
	for (unsigned i = 0; i < PEER_MESSAGES; i++)
		free(p->messages[i].data);
	free(p);
}

/* --- what it says ------------------------------------------------------------------------------- */

/* The device comes: first what it has, then that it is there. */
static void peer_connect_device(struct peer *p)
{
	struct usb_redir_interface_info_header interfaces = {
		.interface_count = 1, .interface_class = {0xff}, .interface_subclass = {1}, .interface_protocol = {2},
	};
	struct usb_redir_ep_info_header endpoints = {.max_packet_size = {[2] = 64, [16 + 1] = 64}};
	struct usb_redir_device_connect_header device = {
		.speed = p->speed, .device_class = 0xff, .vendor_id = 0x1234, .product_id = 0x5678, .device_version_bcd = 0x101,
	};

	memset(endpoints.type, usb_redir_type_invalid, sizeof(endpoints.type));
	endpoints.type[2] = endpoints.type[16 + 1] = usb_redir_type_bulk;
	if (p->speed == usb_redir_speed_unknown)
		endpoints.max_packet_size[2] = 512;
	usbredirparser_send_ep_info(p->parser, &endpoints);
	usbredirparser_send_interface_info(p->parser, &interfaces);
	usbredirparser_send_device_connect(p->parser, &device);
	peer_flush(p);
}

static void peer_disconnect_device(struct peer *p)
{
	usbredirparser_send_device_disconnect(p->parser);
	peer_flush(p);
}

/* Answers a bulk packet; data: of an IN, that many bytes. */
static void peer_answer_bulk(struct peer *p, const struct message *m, uint8_t status, const void *data, uint32_t length)
{
	struct usb_redir_bulk_packet_header h = m->bulk;

	h.status = status;
	h.length = (uint16_t)length;
	h.length_high = (uint16_t)(length >> 16);
	usbredirparser_send_bulk_packet(p->parser, m->id, &h, h.endpoint & 0x80 ? (uint8_t *)data : NULL,
	                                h.endpoint & 0x80 ? (int)length : 0);
	peer_flush(p);
}

static void peer_answer_control(struct peer *p, const struct message *m, uint8_t status, const void *data,
                                uint16_t length)
{
	struct usb_redir_control_packet_header h = m->control;

	h.status = status;
	h.length = length;
	usbredirparser_send_control_packet(p->parser, m->id, &h, h.endpoint & 0x80 ? (uint8_t *)data : NULL,
	                                   h.endpoint & 0x80 ? length : 0);
	peer_flush(p);
}

static void peer_answer_interrupt(struct peer *p, const struct message *m, uint8_t status, uint16_t length)
{
	struct usb_redir_interrupt_packet_header h = {.endpoint = m->endpoint, .status = status, .length = length};

	usbredirparser_send_interrupt_packet(p->parser, m->id, &h, NULL, 0);
	peer_flush(p);
}

static void peer_answer_configuration(struct peer *p, const struct message *m, uint8_t status, uint8_t value)
{
	struct usb_redir_configuration_status_header h = {.status = status, .configuration = value};

	usbredirparser_send_configuration_status(p->parser, m->id, &h);
	peer_flush(p);
}

static void peer_answer_alternate(struct peer *p, const struct message *m, uint8_t status, uint8_t value)
{
	struct usb_redir_alt_setting_status_header h = {.status = status, .interface = m->endpoint, .alt = value};

	usbredirparser_send_alt_setting_status(p->parser, m->id, &h);
	peer_flush(p);
}

static void peer_interrupt_status(struct peer *p, uint64_t id, uint8_t status)
{
	struct usb_redir_interrupt_receiving_status_header h = {.endpoint = INTERRUPT_IN, .status = status};

	usbredirparser_send_interrupt_receiving_status(p->parser, id, &h);
	peer_flush(p);
}

static void peer_iso_status(struct peer *p, uint64_t id, uint8_t endpoint, uint8_t status)
{
	struct usb_redir_iso_stream_status_header h = {.endpoint = endpoint, .status = status};

	usbredirparser_send_iso_stream_status(p->parser, id, &h);
	peer_flush(p);
}

static void peer_send_interrupt(struct peer *p, uint64_t id, uint8_t status, const void *data, uint16_t length)
{
	struct usb_redir_interrupt_packet_header h = {.endpoint = INTERRUPT_IN, .status = status, .length = length};

	usbredirparser_send_interrupt_packet(p->parser, id, &h, (uint8_t *)data, length);
	peer_flush(p);
}

static void peer_send_iso(struct peer *p, uint64_t id, uint8_t status, const void *data, uint16_t length)
{
	struct usb_redir_iso_packet_header h = {.endpoint = ISO_IN, .status = status, .length = length};

	usbredirparser_send_iso_packet(p->parser, id, &h, (uint8_t *)data, length);
	peer_flush(p);
}

/* Bytes as they are, whatever they say. What the parser has to say comes first. */
static void peer_send_raw(struct peer *p, const void *bytes, size_t count)
{
	peer_flush(p);
	assert_int_equal(send(p->fd, bytes, count, MSG_NOSIGNAL), (ssize_t)count);
}

#endif
