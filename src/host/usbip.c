/* The device itself: it is given to us, asked, used, and taken away. See host/usbip.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <base/util.h>

#include "usbip_private.h"

/* --- coming and going ------------------------------------------------------------------------- */

void bh_usbip_given(struct bh_usbip *u, const struct bh_usbip_device_fields *d)
{
	enum bh_speed speed;

	u->devid = bh_usbip_devid(d->busnum, d->devnum);
	if (bh_usbip_get_speed(d->speed, &speed)) {
		bh_real_arrived(&u->real, speed);
		return;
	}
	bh_real_say(&u->real, "%04x:%04x is of a speed that the server does not know: it is not shown", d->vendor, d->product);
	bh_usbip_session_leave(u);
}

void bh_usbip_lost(struct bh_usbip *u, const char *why)
{
	bh_real_departed(&u->real, why);
	bh_usbip_requests_abandon(u);
}

/* Said why already. Others may have it. */
static void refused(struct bh_real *r)
{
	bh_usbip_session_leave(bh_container_of(r, struct bh_usbip, real));
}

static void shown(struct bh_real *r)
{
	bh_container_of(r, struct bh_usbip, real)->session.said[0] = '\0';
}

static const struct bh_real_ops real_ops = {
	.refused = refused,
	.shown = shown,
};

/* --- the seam ----------------------------------------------------------------------------------- */

static void submit(struct bh_device *d, struct bh_transfer *t)
{
	bh_usbip_submit(bh_usbip_of(d), t, BH_USBIP_NOTHING, 0, 0);
}

static void cancel(struct bh_device *d, struct bh_transfer *t)
{
	bh_usbip_cancel(bh_usbip_of(d), t);
}

/* There is no message for it: the SET_CONFIGURATION that follows has to do (see docs/devices/usbip.md). */
static void reset(struct bh_device *d)
{
	struct bh_usbip *u = bh_usbip_of(d);

	bh_usbip_requests_abandon(u);
	bh_settings_configure(&u->real.settings, 0);
}

/* usbip-host carries these out by itself when it sees them (stub_rx.c, tweak_special_requests()). */
static void set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	bh_usbip_submit(bh_usbip_of(d), t, BH_USBIP_CONFIGURES, 0, value);
}

static void set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate, struct bh_transfer *t)
{
	bh_usbip_submit(bh_usbip_of(d), t, BH_USBIP_SETS_INTERFACE, interface, alternate);
}

static void clear_halt(struct bh_device *d, uint8_t endpoint, struct bh_transfer *t)
{
	(void)endpoint;
	bh_usbip_submit(bh_usbip_of(d), t, BH_USBIP_NOTHING, 0, 0);
}

static void free_usbip(struct bh_usbip *u)
{
	bh_usbip_session_finish(u);
	bh_real_finish(&u->real);
	free(u);
}

static void destroy(struct bh_device *d)
{
	struct bh_usbip *u = bh_usbip_of(d);

	u->session.imported = false;
	bh_usbip_lost(u, NULL);
	free_usbip(u);
}

static const struct bh_device_ops device_ops = {
	.submit = submit,
	.cancel = cancel,
	.reset = reset,
	.set_configuration = set_configuration,
	.set_interface = set_interface,
	.clear_halt = clear_halt,
	.refuses = bh_real_refuses,
	.descriptors = bh_real_descriptors,
	.endpoint = bh_real_endpoint,
	.destroy = destroy,
};

/* --- the beginning -------------------------------------------------------------------------------- */

struct bh_usbip_counters bh_usbip_counters(const struct bh_device *d)
{
	return bh_usbip_of(d)->counters;
}

bool bh_usbip_imported(const struct bh_device *d)
{
	return bh_usbip_of(d)->session.imported;
}

int bh_usbip_address(const char *host, struct bh_address *ret)
{
	char text[300];
	int r = bh_address_parse(host, false, ret);

	if (r != -EINVAL || !*host)
		return r;
	if (snprintf(text, sizeof(text), "%s:%u", host, BH_USBIP_PORT) >= (int)sizeof(text))
		return -EINVAL;
	return bh_address_parse(text, false, ret);
}

struct bh_usbip *bh_usbip_allocate(uv_loop_t *loop, const struct bh_usbip_config *c, const struct bh_address *a)
{
	struct bh_usbip *u = calloc(1, sizeof(*u));
	char name[sizeof(u->real.name)];

	if (!u)
		return NULL;
	snprintf(name, sizeof(name), "usbip %s %s", c->host, c->busid);
	u->loop = loop;
	bh_list_init(&u->waiting);
	bh_list_init(&u->sent);
	bh_list_init(&u->late);
	bh_usbip_put_import(c->busid, &u->session.request);
	if (bh_real_init(&u->real, loop, &device_ops, &real_ops, &c->log, name) == 0 &&
	    bh_usbip_session_init(u, loop, a) == 0) {
		u->real.device.cancel_loses = true;
		return u;
	}
	free_usbip(u);
	return NULL;
}

int bh_usbip_create(uv_loop_t *loop, const struct bh_usbip_config *config, struct bh_device **ret, char *error,
                    size_t error_size)
{
	struct bh_usbip_import_request request;
	struct bh_address a;
	struct bh_usbip *u;
	int r = bh_usbip_address(config->host, &a);

	if (r == -EINVAL)
		snprintf(error, error_size, "usbip: host=%s: is no address; write HOST, HOST:PORT, or [ADDRESS]:PORT for IPv6",
		         config->host);
	if (r == -EINVAL)
		return r;
	if (r == 0 && bh_usbip_put_import(config->busid, &request) < 0) {
		snprintf(error, error_size, "usbip: busid=%s: is none; ask the server for its devices, which are called 1-1.4 or so",
		         config->busid);
		bh_address_free(&a);
		return -EINVAL;
	}
	u = r == 0 ? bh_usbip_allocate(loop, config, &a) : NULL;
	bh_address_free(&a);
	if (!u) {
		snprintf(error, error_size, "usbip: %s", strerror(ENOMEM));
		return -ENOMEM;
	}
	*ret = &u->real.device;
	return 0;
}
