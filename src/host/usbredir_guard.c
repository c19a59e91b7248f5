/* See host/usbredir_guard.h. A header's length is that of everything behind it (usbredirproto.h). */
#include <host/usbredir_guard.h>

#include <string.h>

#include <usbredirproto.h>

#include <base/util.h>

/* Text of a filter that a peer may send, for information. */
#define FILTER_BYTES 8192u

/* Words of capabilities behind the version; today there is one. */
#define CAPABILITY_WORDS 16u

static uint32_t word(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Of what either side sends. */
static int64_t most_of_both(uint32_t type)
{
	switch (type) {
	case usb_redir_hello:
		return sizeof(struct usb_redir_hello_header) + CAPABILITY_WORDS * sizeof(uint32_t);
	case usb_redir_filter_filter:
		return FILTER_BYTES;
	case usb_redir_control_packet:
		return sizeof(struct usb_redir_control_packet_header) + UINT16_MAX;
	case usb_redir_bulk_packet:
		return sizeof(struct usb_redir_bulk_packet_header) + BH_REDIR_PIECE;
	case usb_redir_iso_packet:
		return sizeof(struct usb_redir_iso_packet_header) + UINT16_MAX;
	case usb_redir_interrupt_packet:
		return sizeof(struct usb_redir_interrupt_packet_header) + UINT16_MAX;
	}
	return -1;
}

/* Of what only the side that uses the device sends. */
static int64_t most_of_user(uint32_t type)
{
	switch (type) {
	case usb_redir_reset:
	case usb_redir_get_configuration:
	case usb_redir_cancel_data_packet:
	case usb_redir_filter_reject:
	case usb_redir_device_disconnect_ack:
		return 0;
	case usb_redir_set_configuration:
		return sizeof(struct usb_redir_set_configuration_header);
	case usb_redir_set_alt_setting:
		return sizeof(struct usb_redir_set_alt_setting_header);
	case usb_redir_get_alt_setting:
		return sizeof(struct usb_redir_get_alt_setting_header);
	case usb_redir_start_iso_stream:
		return sizeof(struct usb_redir_start_iso_stream_header);
	case usb_redir_stop_iso_stream:
		return sizeof(struct usb_redir_stop_iso_stream_header);
	case usb_redir_start_interrupt_receiving:
		return sizeof(struct usb_redir_start_interrupt_receiving_header);
	case usb_redir_stop_interrupt_receiving:
		return sizeof(struct usb_redir_stop_interrupt_receiving_header);
	}
	return -1;
}

/* Of what only the side that has the device sends. */
static int64_t most_of_owner(uint32_t type)
{
	switch (type) {
	case usb_redir_device_connect:
		return sizeof(struct usb_redir_device_connect_header);
	case usb_redir_device_disconnect:
		return 0;
	case usb_redir_interface_info:
		return sizeof(struct usb_redir_interface_info_header);
	case usb_redir_ep_info:
		return sizeof(struct usb_redir_ep_info_header);
	case usb_redir_configuration_status:
		return sizeof(struct usb_redir_configuration_status_header);
	case usb_redir_alt_setting_status:
		return sizeof(struct usb_redir_alt_setting_status_header);
	case usb_redir_iso_stream_status:
		return sizeof(struct usb_redir_iso_stream_status_header);
	case usb_redir_interrupt_receiving_status:
		return sizeof(struct usb_redir_interrupt_receiving_status_header);
	}
	return -1;
}

/* The most such a message may have; -1: it makes no sense from that side. */
static int64_t most(const struct bh_redir_guard *g, uint32_t type)
{
	int64_t both = most_of_both(type);

	return both >= 0 ? both : g->has_device ? most_of_user(type) : most_of_owner(type);
}

static const char *check(struct bh_redir_guard *g)
{
	uint32_t type = word(g->header), length = word(g->header + 4);
	int64_t limit = most(g, type);

	if (g->begun == (type == usb_redir_hello))
		return g->begun ? "a second hello came" : "no hello came: does it speak usbredir?";
	if (limit < 0)
		return "a message came that makes no sense here";
	if (length > limit)
		return "a message came that is longer than it can be";
	g->begun = true;
	g->body = length;
	return NULL;
}

const char *bh_redir_guard_pass(struct bh_redir_guard *g, unsigned header_size, const uint8_t *bytes, size_t count)
{
	while (count) {
		size_t part = g->body ? g->body : header_size - g->have;
		const char *why;

		part = BH_MIN(part, count);
		if (g->body) {
			g->body -= (uint32_t)part;
		} else {
			memcpy(g->header + g->have, bytes, part);
			g->have += (unsigned)part;
		}
		bytes += part;
		count -= part;
		if (g->have < header_size)
			continue;
		g->have = 0;
		why = check(g);
		if (why)
			return why;
	}
	return NULL;
}
