/* The device itself: it comes, is looked at, used, reset, and goes. See host/usbredir.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/util.h>
#include <net/address.h>

#include "usbredir_private.h"

/* Of bulk endpoints; what has more runs faster than a full-speed wire, or faster than high speed. */
#define FULL_SPEED_PACKET 64u
#define HIGH_SPEED_PACKET 512u

/* --- what the peer says of its device ------------------------------------------------------- */

/* -EPERM or -ENOENT: a rule says no, or none says anything. */
static int check_filter(struct bh_redir *u)
{
	struct usb_redir_interface_info_header *i = &u->interfaces;
	const struct usb_redir_device_connect_header *d = &u->identity;

	if (!u->filter)
		return 0;
	if (!u->described)
		return -ENOENT;
	return usbredirfilter_check(u->filter, u->filter_count, d->device_class, d->device_subclass, d->device_protocol,
	                            i->interface_class, i->interface_subclass, i->interface_protocol,
	                            (int)i->interface_count, d->vendor_id, d->product_id, d->device_version_bcd, 0);
}

/* So that it is given to somebody else. */
static void send_reject(struct bh_redir *u)
{
	if (u->link.parser && bh_redir_link_can(u, usb_redir_cap_filter))
		bh_redir_send(u, filter_reject);
}

static void leave(struct bh_redir *u, const char *why)
{
	u->there = false;
	bh_real_departed(&u->real, why);
	bh_redir_streams_finish(u);
	bh_redir_packets_abandon(u);
}

static bool passes_filter(struct bh_redir *u)
{
	int r = check_filter(u);

	if (r == 0)
		return true;
	u->counters.rejected++;
	bh_real_say(&u->real, "%04x:%04x is not taken: %s", u->identity.vendor_id, u->identity.product_id,
	            r == -EPERM ? "a rule of filter= says so" : "no rule of filter= allows it");
	return false;
}

static enum bh_speed speed_of(const struct bh_redir *u)
{
	static const enum bh_speed speeds[] = {
		[usb_redir_speed_low] = BH_SPEED_LOW,
		[usb_redir_speed_full] = BH_SPEED_FULL,
		[usb_redir_speed_high] = BH_SPEED_HIGH,
		[usb_redir_speed_super] = BH_SPEED_SUPER,
	};

	return u->identity.speed < BH_COUNT(speeds) ? speeds[u->identity.speed] : u->guessed_speed;
}

static void device_connect(void *priv, struct usb_redir_device_connect_header *h)
{
	struct bh_redir *u = priv;

	if (u->there) {
		bh_redir_link_break(u, "the connection was dropped: a second device came");
		return;
	}
	u->identity = *h;
	u->there = true;
	u->touched = false;
	memset(u->alternates, 0, sizeof(u->alternates));
	if (passes_filter(u))
		bh_real_arrived(&u->real, speed_of(u));
	else
		send_reject(u);
}

/* The parser acknowledges it, after this. */
static void device_disconnect(void *priv)
{
	struct bh_redir *u = priv;

	leave(u, "it was unplugged there");
	u->described = false;
	u->guessed_speed = BH_SPEED_FULL;
}

/* Comes before the device, and again with another configuration. */
static void interface_info(void *priv, struct usb_redir_interface_info_header *h)
{
	struct bh_redir *u = priv;

	u->interfaces = *h;
	u->interfaces.interface_count = BH_MIN(h->interface_count, (uint32_t)BH_COUNT(h->interface));
	u->described = true;
	if (!u->there || u->real.state == BH_REAL_AWAY || passes_filter(u))
		return;
	leave(u, NULL);
	u->there = true; /* over there, that is; nothing is asked of it any more */
	send_reject(u);
}

/* Endpoints are known from descriptors. Of a device whose speed is not known there, they tell that. */
static void ep_info(void *priv, struct usb_redir_ep_info_header *h)
{
	struct bh_redir *u = priv;

	u->guessed_speed = BH_SPEED_FULL;
	if (!bh_redir_link_can(u, usb_redir_cap_ep_info_max_packet_size))
		return;
	for (size_t i = 0; i < BH_COUNT(h->type); i++) {
		if (h->type[i] != usb_redir_type_bulk)
			continue;
		if (h->max_packet_size[i] > HIGH_SPEED_PACKET)
			u->guessed_speed = BH_SPEED_SUPER;
		else if (h->max_packet_size[i] > FULL_SPEED_PACKET && u->guessed_speed == BH_SPEED_FULL)
			u->guessed_speed = BH_SPEED_HIGH;
	}
}

/* What the peer would not take from us: we have no device for it. */
static void filter_filter(void *priv, struct usbredirfilter_rule *rules, int count)
{
	(void)priv, (void)count;
	usbredirfilter_free(rules);
}

/* None of these pass the guard; were one to, there is a function for it. */
static void bulk_streams_status(void *priv, uint64_t id, struct usb_redir_bulk_streams_status_header *h)
{
	(void)id, (void)h;
	((struct bh_redir *)priv)->counters.unexpected++;
}

static void bulk_receiving_status(void *priv, uint64_t id, struct usb_redir_bulk_receiving_status_header *h)
{
	(void)id, (void)h;
	((struct bh_redir *)priv)->counters.unexpected++;
}

static void buffered_bulk_packet(void *priv, uint64_t id, struct usb_redir_buffered_bulk_packet_header *h, uint8_t *data,
                                 int length)
{
	struct bh_redir *u = priv;

	(void)id, (void)h, (void)length;
	u->counters.unexpected++;
	usbredirparser_free_packet_data(u->link.parser, data);
}

void bh_redir_listen(struct bh_redir *u, struct usbredirparser *p)
{
	(void)u;
	p->device_connect_func = device_connect;
	p->device_disconnect_func = device_disconnect;
	p->interface_info_func = interface_info;
	p->ep_info_func = ep_info;
	p->filter_filter_func = filter_filter;
	p->configuration_status_func = bh_redir_configuration_status;
	p->alt_setting_status_func = bh_redir_alternate_status;
	p->iso_stream_status_func = bh_redir_iso_status;
	p->interrupt_receiving_status_func = bh_redir_interrupt_status;
	p->bulk_streams_status_func = bulk_streams_status;
	p->bulk_receiving_status_func = bulk_receiving_status;
	p->control_packet_func = bh_redir_control_packet;
	p->bulk_packet_func = bh_redir_bulk_packet;
	p->iso_packet_func = bh_redir_iso_packet;
	p->interrupt_packet_func = bh_redir_interrupt_packet;
	p->buffered_bulk_packet_func = buffered_bulk_packet;
}

/* --- the connection ---------------------------------------------------------------------------- */

void bh_redir_greeted(struct bh_redir *u)
{
	if (u->filter && bh_redir_link_can(u, usb_redir_cap_filter))
		bh_redir_send(u, filter_filter, u->filter, u->filter_count);
}

void bh_redir_lost(struct bh_redir *u, const char *why)
{
	bool away = u->real.state == BH_REAL_AWAY;

	leave(u, why);
	if (away && !u->link.said)
		bh_real_say(&u->real, "%s", why);
	u->described = false;
	u->guessed_speed = BH_SPEED_FULL;
}

/* --- operations --------------------------------------------------------------------------------- */

static void submit(struct bh_device *d, struct bh_transfer *t)
{
	struct bh_redir *u = bh_redir_of(d);
	const struct bh_endpoint_info *info;

	t->device_data = NULL;
	if (t->type == BH_CONTROL) {
		if (!bh_redir_settings_submit(u, t))
			bh_redir_control_submit(u, t);
		return;
	}
	info = bh_real_endpoint(d, t->endpoint);
	if (!info || info->type != t->type)
		bh_transfer_done(t, BH_STALL, 0);
	else if (t->type == BH_ISOCHRONOUS || (t->type == BH_INTERRUPT && t->endpoint & BH_ENDPOINT_IN))
		bh_redir_streams_submit(u, t, info);
	else
		bh_redir_packets_submit(u, t, info);
}

static void cancel(struct bh_device *d, struct bh_transfer *t)
{
	struct bh_redir *u = bh_redir_of(d);

	if (!bh_redir_streams_cancel(u, t))
		bh_redir_packets_cancel(u, t->device_data);
}

/* The other side restores its configuration after a reset: the guest sets its own. */
static void reset(struct bh_device *d)
{
	struct bh_redir *u = bh_redir_of(d);

	bh_redir_streams_stop(u, -1);
	bh_redir_packets_abandon(u);
	bh_settings_configure(&u->real.settings, 0);
	if (!u->touched || !u->there)
		return;
	u->touched = false;
	u->counters.resets++;
	bh_redir_send(u, reset);
}

/* A halt of a stream is cleared over there, too: with it off, and begun anew. */
static void clear_halt(struct bh_device *d, uint8_t endpoint, struct bh_transfer *t)
{
	struct bh_redir *u = bh_redir_of(d);

	bh_redir_stream_stop(u, endpoint);
	bh_redir_control_submit(u, t);
}

static void free_redir(struct bh_redir *u)
{
	bh_redir_link_finish(u);
	bh_real_finish(&u->real);
	if (u->filter)
		usbredirfilter_free(u->filter);
	free(u);
}

static void destroy(struct bh_device *d)
{
	struct bh_redir *u = bh_redir_of(d);

	leave(u, NULL);
	free_redir(u);
}

static const struct bh_device_ops device_ops = {
	.submit = submit,
	.cancel = cancel,
	.reset = reset,
	.set_configuration = bh_redir_set_configuration,
	.set_interface = bh_redir_set_interface,
	.clear_halt = clear_halt,
	.refuses = bh_real_refuses,
	.descriptors = bh_real_descriptors,
	.endpoint = bh_real_endpoint,
	.destroy = destroy,
};

static void refused(struct bh_real *r)
{
	send_reject(bh_container_of(r, struct bh_redir, real));
}

static const struct bh_real_ops real_ops = {
	.refused = refused,
};

/* --- the beginning -------------------------------------------------------------------------------- */

struct bh_usbredir_counters bh_usbredir_counters(const struct bh_device *d)
{
	return bh_redir_of(d)->counters;
}

bool bh_usbredir_connected(const struct bh_device *d)
{
	return bh_redir_of(d)->link.greeted;
}

static int read_filter(struct bh_redir *u, const char *text)
{
	if (!text)
		return 0;
	return usbredirfilter_string_to_rules(text, ":,", "|", &u->filter, &u->filter_count);
}

static int explain(int r, const struct bh_usbredir_config *c, const char *filter, char *error, size_t size)
{
	if (r != -EINVAL)
		snprintf(error, size, "usbredir: %s", strerror(-r));
	else if (filter)
		snprintf(error, size,
		         "usbredir: filter=%s: write CLASS:VENDOR:PRODUCT:VERSION:ALLOW|..., as in 0x08:-1:-1:-1:1", filter);
	else if (c->address)
		snprintf(error, size, "usbredir: address=%s: is no address; write " BH_ADDRESS_FORMS, c->address);
	else
		snprintf(error, size, "usbredir: fd=%d: is no stream socket that is connected", c->fd);
	return r;
}

static struct bh_redir *allocate(uv_loop_t *loop, const struct bh_usbredir_config *c)
{
	struct bh_redir *u = calloc(1, sizeof(*u));
	char name[sizeof(u->real.name)];

	if (!u)
		return NULL;
	if (c->address)
		snprintf(name, sizeof(name), "usbredir %s", c->address);
	else
		snprintf(name, sizeof(name), "usbredir fd %d", c->fd);
	u->loop = loop;
	u->guessed_speed = BH_SPEED_FULL;
	bh_list_init(&u->waiting);
	bh_list_init(&u->sent);
	if (bh_real_init(&u->real, loop, &device_ops, &real_ops, &c->log, name) == 0 && bh_redir_link_init(u, loop) == 0)
		return u;
	free_redir(u);
	return NULL;
}

int bh_usbredir_create(uv_loop_t *loop, const struct bh_usbredir_config *config, struct bh_device **ret, char *error,
                       size_t error_size)
{
	struct bh_redir *u = allocate(loop, config);
	const char *filter = config->filter;
	int r;

	if (!u)
		return explain(-ENOMEM, config, NULL, error, error_size);
	u->real.device.cancel_loses = true;
	r = read_filter(u, filter);
	if (r == 0) {
		filter = NULL;
		r = config->address ? bh_redir_link_address(u, config->address) : bh_redir_link_adopt(u, config->fd);
	}
	if (r < 0) {
		free_redir(u);
		return explain(r, config, filter, error, error_size);
	}
	*ret = &u->real.device;
	return 0;
}
