/*
 * What may wait for the device or the kernel, and is done in the thread pool: taking the
 * device from the host's drivers, settings, halts, resets, giving it back.
 */
#include "usb_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/util.h>

#define MOST_INTERFACES 32

static bool is_ignored(const struct bh_usb *u, const struct bh_usb_found *f)
{
	return u->ignored && f->address == u->found.address && !strcmp(f->name, u->found.name);
}

static void search(struct bh_usb *u)
{
	struct bh_usb_search *s = &u->sought;
	struct bh_usb_found *all = NULL;
	size_t count = 0;

	*s = (struct bh_usb_search){0};
	bh_usb_find_all(&all, &count);
	for (size_t i = 0; i < count; i++) {
		if (!bh_usb_fits(&all[i], &u->select))
			continue;
		if (is_ignored(u, &all[i]))
			s->ignored = true;
		else if (!s->fit++)
			s->first = all[i];
	}
	free(all);
}

static void release_all(struct bh_usb_handle *h)
{
	for (int i = 0; i < MOST_INTERFACES; i++)
		if (h->claimed >> i & 1)
			libusb_release_interface(h->libusb, i);
	h->claimed = 0;
}

/* From the host's driver, which is remembered. */
static int claim(struct bh_usb_handle *h, int number)
{
	int r;

	if (libusb_kernel_driver_active(h->libusb, number) == 1) {
		r = libusb_detach_kernel_driver(h->libusb, number);
		if (r && r != LIBUSB_ERROR_NOT_FOUND)
			return r;
		h->detached |= 1u << number;
	}
	r = libusb_claim_interface(h->libusb, number);
	if (!r)
		h->claimed |= 1u << number;
	return r;
}

/* Every interface of the active configuration. */
static int claim_all(struct bh_usb_handle *h)
{
	struct libusb_config_descriptor *c;
	int r = libusb_get_active_config_descriptor(libusb_get_device(h->libusb), &c);

	if (r)
		return r == LIBUSB_ERROR_NOT_FOUND ? 0 : r; /* not configured: there is nothing to claim */
	for (int i = 0; !r && i < c->bNumInterfaces; i++)
		if (c->interface[i].num_altsetting > 0 && c->interface[i].altsetting[0].bInterfaceNumber < MOST_INTERFACES)
			r = claim(h, c->interface[i].altsetting[0].bInterfaceNumber);
	libusb_free_config_descriptor(c);
	return r;
}

static bool find_speed(struct bh_usb_handle *h, const struct bh_usb_found *f)
{
	switch (libusb_get_device_speed(libusb_get_device(h->libusb))) {
	case LIBUSB_SPEED_LOW:
		h->speed = BH_SPEED_LOW;
		return true;
	case LIBUSB_SPEED_FULL:
		h->speed = BH_SPEED_FULL;
		return true;
	case LIBUSB_SPEED_HIGH:
		h->speed = BH_SPEED_HIGH;
		return true;
	case LIBUSB_SPEED_UNKNOWN:
		h->speed = f->speed;
		return f->known_speed;
	}
	h->speed = BH_SPEED_SUPER;
	return true;
}

static void put_back(struct bh_usb_handle *h)
{
	int now = -1;

	release_all(h);
	if (h->configuration >= 0 && !libusb_get_configuration(h->libusb, &now) && now != h->configuration) {
		libusb_set_configuration(h->libusb, h->configuration ? h->configuration : -1); /* binds the drivers */
		return;
	}
	for (int i = 0; i < MOST_INTERFACES; i++)
		if (h->detached >> i & 1)
			libusb_attach_kernel_driver(h->libusb, i);
	h->detached = 0;
}

static int leave(struct bh_usb_handle *h)
{
	if (h->libusb) {
		put_back(h);
		libusb_close(h->libusb);
	}
	h->libusb = NULL;
	if (h->fd >= 0)
		close(h->fd);
	h->fd = -1;
	h->claimed = h->detached = 0;
	return 0;
}

/* Is it still what was found at that address? */
static bool is_what_was_found(struct bh_usb_handle *h)
{
	struct libusb_device_descriptor d;

	return !h->vendor || (!libusb_get_device_descriptor(libusb_get_device(h->libusb), &d) && d.idVendor == h->vendor &&
	                      d.idProduct == h->product);
}

static int take(struct bh_usb *u)
{
	struct bh_usb_handle *h = &u->handle;
	int r;

	if (h->fd < 0)
		h->fd = open(h->node, O_RDWR | O_CLOEXEC);
	if (h->fd < 0)
		return errno == EACCES || errno == EPERM ? LIBUSB_ERROR_ACCESS : LIBUSB_ERROR_NO_DEVICE;
	r = libusb_wrap_sys_device(u->events.context, h->fd, &h->libusb);
	if (r) {
		h->libusb = NULL;
		return r;
	}
	if (!is_what_was_found(h) || !find_speed(h, &u->found))
		return LIBUSB_ERROR_NO_DEVICE;
	if (libusb_get_configuration(h->libusb, &h->configuration))
		h->configuration = -1;
	return h->speed > BH_SPEED_FULL ? 0 : claim_all(h); /* what is not shown stays the host's */
}

static int configure(struct bh_usb_handle *h, uint8_t value)
{
	int r;

	release_all(h);
	r = libusb_set_configuration(h->libusb, value ? value : -1);
	return r ? r : claim_all(h);
}

static int reset(struct bh_usb_handle *h)
{
	int r = libusb_reset_device(h->libusb);

	return r == LIBUSB_ERROR_NOT_FOUND ? LIBUSB_ERROR_NO_DEVICE : r; /* it is another device now */
}

void bh_usb_work(struct bh_usb_job *j)
{
	struct bh_usb_handle *h = &j->usb->handle;

	switch (j->what) {
	case BH_USB_SEARCH:
		search(j->usb);
		break;
	case BH_USB_OPEN:
		j->result = take(j->usb);
		if (j->result)
			leave(h);
		break;
	case BH_USB_CONFIGURE:
		j->result = configure(h, j->value);
		break;
	case BH_USB_SET_INTERFACE:
		j->result = libusb_set_interface_alt_setting(h->libusb, j->interface, j->value);
		break;
	case BH_USB_CLEAR_HALT:
		j->result = libusb_clear_halt(h->libusb, j->value);
		break;
	case BH_USB_RESET:
		j->result = reset(h);
		break;
	case BH_USB_LEAVE:
		j->result = leave(h);
		break;
	}
}
