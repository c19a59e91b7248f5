/*
 * What is done to the device: it is taken from the kernel's drivers, set up as the guest wants
 * it, and given back. All of it on the thread.
 */
#include "usb_private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/usbdevice_fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <base/util.h>

/* So long the kernel may take to end what is under way, before the device is closed all the same. */
#define END_MS 3000u

#define INTERFACES BH_SETTINGS_INTERFACES

static int to_errno(int r)
{
	switch (r) {
	case LIBUSB_ERROR_NO_DEVICE:
	case LIBUSB_ERROR_NOT_FOUND:
		return -ENODEV;
	case LIBUSB_ERROR_NO_MEM:
		return -ENOMEM;
	case LIBUSB_ERROR_BUSY:
		return -EBUSY;
	case LIBUSB_ERROR_ACCESS:
		return -EACCES;
	default:
		return r < 0 ? -EIO : 0;
	}
}

/* --- interfaces and their drivers ----------------------------------------------------------------- */

/* Who has the interface now; false: nobody, or there is no such interface. */
static bool driver_of(int fd, unsigned interface, char name[USBDEVFS_MAXDRIVERNAME + 1])
{
	struct usbdevfs_getdriver g = {.interface = interface};

	if (ioctl(fd, USBDEVFS_GETDRIVER, &g))
		return false;
	memcpy(name, g.driver, USBDEVFS_MAXDRIVERNAME);
	name[USBDEVFS_MAXDRIVERNAME] = 0;
	return true;
}

/* Another program has claimed one: then no driver is disturbed for nothing. */
static bool somebody_has_it(int fd)
{
	char name[USBDEVFS_MAXDRIVERNAME + 1];

	for (unsigned i = 0; i < INTERFACES; i++)
		if (driver_of(fd, i, name) && !strcmp(name, "usbfs"))
			return true;
	return false;
}

static void note_drivers(struct bh_usb_thread *t, char *text, size_t size)
{
	char name[USBDEVFS_MAXDRIVERNAME + 1];

	t->drivers = 0;
	for (unsigned i = 0; i < INTERFACES; i++) {
		size_t used = strlen(text);

		if (!driver_of(t->fd, i, name))
			continue;
		t->drivers |= 1u << i;
		if (!strstr(text, name))
			snprintf(text + used, size - used, "%s%s", used ? ", " : "", name);
	}
}

/*
 * Every interface that there is, as the kernel knows best; a driver that has one is detached in
 * the same step.
 */
static int claim(struct bh_usb_thread *t)
{
	int result = 0;

	libusb_set_auto_detach_kernel_driver(t->handle, 1);
	for (unsigned i = 0; i < INTERFACES && !result; i++) {
		int r = libusb_claim_interface(t->handle, (int)i);

		if (!r)
			t->claimed |= 1u << i;
		else if (r != LIBUSB_ERROR_NOT_FOUND && r != LIBUSB_ERROR_INVALID_PARAM)
			result = r;
	}
	/* What is released later is not to be attached at once. */
	libusb_set_auto_detach_kernel_driver(t->handle, 0);
	return result;
}

static void release(struct bh_usb_thread *t)
{
	for (unsigned i = 0; i < INTERFACES; i++)
		if (t->claimed & 1u << i)
			libusb_release_interface(t->handle, (int)i);
	t->claimed = 0;
}

/* --- transfers ------------------------------------------------------------------------------------ */

/* The kernel has let go of them when this returns; their ends are yet to be told. */
static void cancel_all(struct bh_usb_thread *t)
{
	bh_list_each(e, &t->flying, struct bh_usb_errand, link)
		libusb_cancel_transfer(e->urb);
}

static void await_all(struct bh_usb_thread *t)
{
	uint64_t until = uv_hrtime() + END_MS * 1000000ull;

	while (!bh_list_empty(&t->flying) && uv_hrtime() < until) {
		struct timeval patience = {.tv_usec = 50000};

		if (libusb_handle_events_timeout(t->context, &patience) < 0)
			uv_sleep(1);
	}
}

/* The handle is closed: nothing comes of these any more. */
static void abandon_all(struct bh_usb_thread *t)
{
	bh_list_each(e, &t->flying, struct bh_usb_errand, link) {
		e->status = BH_CANCELLED;
		bh_usb_thread_ended(t, e);
	}
}

/* --- opening and closing --------------------------------------------------------------------------- */

static int open_node(struct bh_usb_opening *o)
{
	if (*o->node)
		o->fd = open(o->node, O_RDWR | O_CLOEXEC);
	return o->fd < 0 ? -errno : 0;
}

static enum bh_speed speed_of(libusb_device_handle *handle)
{
	switch (libusb_get_device_speed(libusb_get_device(handle))) {
	case LIBUSB_SPEED_LOW:
		return BH_SPEED_LOW;
	case LIBUSB_SPEED_FULL:
	case LIBUSB_SPEED_UNKNOWN: /* an old kernel: the descriptors have been looked at, and sysfs */
		return BH_SPEED_FULL;
	case LIBUSB_SPEED_HIGH:
		return BH_SPEED_HIGH;
	default:
		return BH_SPEED_SUPER;
	}
}

static int take(struct bh_usb_thread *t, struct bh_usb_opening *o)
{
	int r;

	o->speed = speed_of(t->handle);
	if (o->speed > BH_SPEED_FULL && !o->any_speed)
		return -ENOTSUP;
	if (somebody_has_it(t->fd))
		return -EBUSY;
	if (libusb_get_configuration(t->handle, &t->configuration))
		t->configuration = 0;
	t->current = t->configuration;
	note_drivers(t, o->drivers, sizeof(o->drivers));
	r = claim(t);
	return to_errno(r);
}

void bh_usb_handle_open(struct bh_usb_thread *t, struct bh_usb_opening *o)
{
	int r = open_node(o);

	*o->drivers = 0;
	o->speed = BH_SPEED_FULL;
	if (!r) {
		t->fd = o->fd;
		r = to_errno(libusb_wrap_sys_device(t->context, o->fd, &t->handle));
		if (!r)
			r = take(t, o);
	}
	o->error = r;
	if (r)
		bh_usb_handle_close(t, &(struct bh_usb_closing){0});
}

/* As it was found: its configuration, and the drivers. */
static void give_back(struct bh_usb_thread *t, const struct bh_usb_closing *c)
{
	release(t);
	if (c->reset)
		libusb_reset_device(t->handle);
	if (t->configuration && t->configuration != t->current)
		libusb_set_configuration(t->handle, t->configuration); /* drivers bind to what comes anew */
	for (unsigned i = 0; i < INTERFACES; i++)
		if (t->drivers & 1u << i)
			libusb_attach_kernel_driver(t->handle, (int)i);
	t->drivers = 0;
}

void bh_usb_handle_close(struct bh_usb_thread *t, const struct bh_usb_closing *c)
{
	if (t->handle) {
		cancel_all(t);
		await_all(t);
		give_back(t, c);
		libusb_close(t->handle);
		abandon_all(t);
	}
	if (t->fd >= 0)
		close(t->fd); /* libusb leaves what was passed in open */
	t->handle = NULL;
	t->fd = -1;
}

/* --- what a guest wants --------------------------------------------------------------------------- */

/*
 * Refused while anybody has an interface, us included. A configuration that is active is set
 * again all the same, without a driver being asked: that puts back alternate settings and toggles.
 */
static int configure(struct bh_usb_thread *t, uint8_t value)
{
	int r, claimed;

	cancel_all(t);
	release(t);
	r = libusb_set_configuration(t->handle, value ? value : -1);
	if (!r)
		t->current = value;
	claimed = claim(t);
	return r ? r : claimed;
}

static int reset(struct bh_usb_thread *t)
{
	cancel_all(t);
	/* Configuration and claims are as before; the alternate settings are put back by the next configuration. */
	return libusb_reset_device(t->handle);
}

static void clear_halts(struct bh_usb_thread *t, const struct bh_usb_errand *e)
{
	cancel_all(t);
	for (unsigned i = 0; i < e->endpoint_count; i++)
		libusb_clear_halt(t->handle, e->endpoints[i]);
}

void bh_usb_handle_do(struct bh_usb_thread *t, struct bh_usb_errand *e)
{
	int r = LIBUSB_ERROR_NO_DEVICE;

	if (t->handle) {
		switch (e->kind) {
		case BH_USB_CONFIGURE:
			r = configure(t, e->value);
			break;
		case BH_USB_ALTERNATE:
			r = libusb_set_interface_alt_setting(t->handle, e->interface, e->value);
			break;
		case BH_USB_CLEAR_HALT:
			r = libusb_clear_halt(t->handle, e->value);
			break;
		case BH_USB_CLEAR_HALTS:
			clear_halts(t, e);
			r = 0;
			break;
		default:
			r = reset(t);
			break;
		}
	}
	e->gone = r == LIBUSB_ERROR_NO_DEVICE || (r == LIBUSB_ERROR_NOT_FOUND && e->kind == BH_USB_RESET);
	e->failed = r != 0;
	e->actual = 0;
	e->status = !r ? BH_SUCCESS : e->gone ? BH_NO_RESPONSE : BH_STALL;
}
