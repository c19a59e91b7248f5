/*
 * Requests that are messages of their own: configurations and alternate settings, which the
 * other side has to know of, or its own USB stack would not follow; and those that must not
 * reach the device by a control packet.
 *
 * usbredirhost does nothing for a SET_CONFIGURATION of what is active already. A guest expects
 * all interfaces at their first setting after it, so they are put there before.
 */
#include "usbredir_private.h"

#include <string.h>

#include <base/util.h>

#define REQUEST(type, request) ((type) << 8 | (request))
enum {
	SET_ADDRESS = REQUEST(0x00, 5),
	GET_CONFIGURATION = REQUEST(0x80, 8),
	SET_CONFIGURATION = REQUEST(0x00, 9),
	GET_INTERFACE = REQUEST(0x81, 10),
	SET_INTERFACE = REQUEST(0x01, 11),
};

static void submit(struct bh_redir *u, enum bh_redir_kind kind, struct bh_transfer *t, uint8_t interface, uint8_t value)
{
	struct bh_redir_request *r = bh_redir_request_create(u, kind, t);

	if (!r)
		return;
	r->endpoint = interface;
	r->value = value;
	bh_redir_pump(u);
}

void bh_redir_set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	submit(bh_redir_of(d), BH_REDIR_SET_CONFIGURATION, t, 0, value);
}

void bh_redir_set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate, struct bh_transfer *t)
{
	submit(bh_redir_of(d), BH_REDIR_SET_ALTERNATE, t, interface, alternate);
}

bool bh_redir_settings_submit(struct bh_redir *u, struct bh_transfer *t)
{
	uint16_t index = bh_get_le16(t->setup.wIndex);
	uint8_t none = 0;

	switch (REQUEST(t->setup.bmRequestType, t->setup.bRequest)) {
	case SET_ADDRESS: /* the controller's, here and there */
	case SET_CONFIGURATION: /* of what the device does not have */
	case SET_INTERFACE:
		bh_transfer_done(t, BH_STALL, 0);
		return true;
	case GET_CONFIGURATION:
		if (!t->length)
			return false;
		if (u->real.settings.configuration) {
			submit(u, BH_REDIR_GET_CONFIGURATION, t, 0, 0);
		} else { /* the guest has reset it; the other side keeps it configured */
			bh_transfer_write(t, 0, &none, 1);
			bh_transfer_done(t, BH_SUCCESS, 1);
		}
		return true;
	case GET_INTERFACE:
		if (!t->length)
			return false;
		if (index < BH_SETTINGS_INTERFACES && u->real.settings.configuration)
			submit(u, BH_REDIR_GET_ALTERNATE, t, (uint8_t)index, 0);
		else
			bh_transfer_done(t, BH_STALL, 0);
		return true;
	}
	return false;
}

/* --- sending --------------------------------------------------------------------------------- */

static void send_alternate(struct bh_redir *u, uint32_t id, uint8_t interface, uint8_t alternate)
{
	struct usb_redir_set_alt_setting_header h = {.interface = interface, .alt = alternate};

	if (alternate)
		u->alternates[interface % BH_SETTINGS_INTERFACES] = alternate; /* perhaps; 0 is believed when it is answered */
	bh_redir_send(u, set_alt_setting, id, &h);
}

static void send_configuration(struct bh_redir *u, const struct bh_redir_request *r)
{
	struct usb_redir_set_configuration_header h = {.configuration = r->value};

	bh_redir_streams_stop(u, -1);
	for (uint8_t i = 0; i < BH_SETTINGS_INTERFACES; i++) {
		struct bh_redir_request *message =
			u->alternates[i] ? bh_redir_request_message(u, BH_REDIR_SET_ALTERNATE, i) : NULL;

		if (message)
			send_alternate(u, message->id, i, 0);
	}
	bh_redir_send(u, set_configuration, r->id, &h);
}

void bh_redir_settings_send(struct bh_redir *u, struct bh_redir_request *r)
{
	struct usb_redir_get_alt_setting_header h = {.interface = r->endpoint};

	bh_redir_request_sent(u, r);
	switch (r->kind) {
	case BH_REDIR_SET_CONFIGURATION:
		u->touched = true;
		send_configuration(u, r);
		break;
	case BH_REDIR_SET_ALTERNATE:
		u->touched = true;
		bh_redir_streams_stop(u, r->endpoint);
		send_alternate(u, r->id, r->endpoint, r->value);
		break;
	case BH_REDIR_GET_CONFIGURATION:
		bh_redir_send(u, get_configuration, r->id);
		break;
	default:
		bh_redir_send(u, get_alt_setting, r->id, &h);
		break;
	}
}

/* --- answers ------------------------------------------------------------------------------------ */

/* One of two kinds, for what is set and what is asked for are answered alike. */
static struct bh_redir_request *answered(struct bh_redir *u, enum bh_redir_kind set, enum bh_redir_kind get, uint64_t id,
                                         uint8_t interface)
{
	bh_list_each(r, &u->sent, struct bh_redir_request, link)
		if (r->id == id && r->kind == get)
			return bh_redir_request_answered(u, get, id, interface);
	return bh_redir_request_answered(u, set, id, interface);
}

/* Does the peer say that it is as it was asked to be? A byte that was asked for is the answer. */
static void end(struct bh_redir *u, struct bh_redir_request *r, bool set, uint8_t status, uint8_t value)
{
	bool good = status == usb_redir_success && (!set || value == r->value);
	struct bh_transfer *t = r->transfer;

	if (t && good && !set) {
		bh_transfer_write(t, 0, &value, 1);
		r->moved = 1;
	}
	bh_redir_request_end(u, r, good ? BH_SUCCESS : BH_STALL);
	bh_redir_pump(u);
}

void bh_redir_configuration_status(void *priv, uint64_t id, struct usb_redir_configuration_status_header *h)
{
	struct bh_redir *u = priv;
	struct bh_redir_request *r = answered(u, BH_REDIR_SET_CONFIGURATION, BH_REDIR_GET_CONFIGURATION, id, 0);
	bool set = r && r->kind == BH_REDIR_SET_CONFIGURATION;

	if (!r)
		return;
	if (set && h->status == usb_redir_success && h->configuration == r->value) {
		memset(u->alternates, 0, sizeof(u->alternates));
		if (r->transfer)
			bh_settings_configure(&u->real.settings, r->value);
	}
	end(u, r, set, h->status, h->configuration);
}

void bh_redir_alternate_status(void *priv, uint64_t id, struct usb_redir_alt_setting_status_header *h)
{
	struct bh_redir *u = priv;
	struct bh_redir_request *r = answered(u, BH_REDIR_SET_ALTERNATE, BH_REDIR_GET_ALTERNATE, id, h->interface);
	bool set = r && r->kind == BH_REDIR_SET_ALTERNATE;

	if (!r)
		return;
	if (set && h->status == usb_redir_success && h->alt == r->value) {
		u->alternates[r->endpoint % BH_SETTINGS_INTERFACES] = r->value;
		if (r->transfer)
			bh_settings_set_interface(&u->real.settings, r->endpoint, r->value);
	}
	end(u, r, set, h->status, h->alt);
}
