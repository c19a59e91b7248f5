/*
 * A kernel's usbfs and sysfs with one full-speed device in it, or two, by umockdev: every open()
 * and ioctl() of this process that concerns them comes here, on a thread of umockdev's.
 *
 * The device: configuration 1 has interface 0 with bulk 0x81, 0x02 and interrupt 0x83, and interface 1 with
 * nothing, or isochronous 0x84, 0x05 at its alternate setting 1; configuration 2 has interface 0
 * with bulk 0x81 alone. It answers GET_DESCRIPTOR at once; whatever else is submitted stays
 * pending until the test says how it ends. What is done to it is written down in words.
 */
#ifndef TESTS_FAKE_USBFS_H
#define TESTS_FAKE_USBFS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <assert.h>
#include <errno.h>
#include <linux/usb/ch9.h>
#include <linux/usbdevice_fs.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <umockdev.h>

#define FAKE_URBS 512u
#define FAKE_INTERFACES 4u

static const uint8_t fake_device_descriptor[18] = {18, 1, 0, 2, 0, 0, 0, 64, 0x25, 0x05, 0xa5, 0xa4, 0, 1, 1, 2, 3, 2};
static const uint8_t fake_configuration_1[9 + 9 + 21 + 9 + 9 + 14] = {
	9, 2, 71, 0, 2, 1, 0, 0x80, 50,
	9, 4, 0, 0, 3, 0xff, 0, 0, 0,
	7, 5, 0x81, 2, 64, 0, 0,
	7, 5, 0x02, 2, 64, 0, 0,
	7, 5, 0x83, 3, 8, 0, 10,
	9, 4, 1, 0, 0, 0xff, 0, 0, 0,
	9, 4, 1, 1, 2, 0xff, 0, 0, 0,
	7, 5, 0x84, 1, 100, 0, 1,
	7, 5, 0x05, 1, 100, 0, 1,
};
static const uint8_t fake_configuration_2[9 + 9 + 7] = {
	9, 2, 25, 0, 1, 2, 0, 0x80, 50,
	9, 4, 0, 0, 1, 0xff, 0, 0, 0,
	7, 5, 0x81, 2, 64, 0, 0,
};

static struct fake_usbfs {
	pthread_mutex_t lock; /* of everything below */
	pthread_cond_t changed;
	UMockdevTestbed *testbed;
	UMockdevIoctlBase *handler;
	char log[8192];            /* "claim 0;reset;" */
	char drivers[FAKE_INTERFACES][32]; /* empty: none */
	int configuration;
	bool gone, nonsense;
	char node[32];             /* of the device that is there; one that was opened before it came is gone */
	int speed;
	int submit_errno;          /* of the next SUBMITURB; 0: it is taken */
	int errno_of_configure, errno_of_reset, errno_of_alternate;
	bool hold, holding;        /* what is done to the device takes until the test says so; and does */
	struct usbdevfs_urb *pending[FAKE_URBS], *ended[FAKE_URBS];
	unsigned pending_count, ended_count;
	unsigned submits, discards;
} fake = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void fake_log(const char *format, ...)
{
	size_t used = strlen(fake.log);
	va_list args;

	va_start(args, format);
	vsnprintf(fake.log + used, sizeof(fake.log) - used, format, args);
	va_end(args);
}

/* --- URBs ----------------------------------------------------------------------------------- */

static void fake_take_out(struct usbdevfs_urb **list, unsigned *count, unsigned i)
{
	memmove(list + i, list + i + 1, (--*count - i) * sizeof(*list));
}

static void fake_end_urb(unsigned i, int status, int actual)
{
	struct usbdevfs_urb *urb = fake.pending[i];

	fake_take_out(fake.pending, &fake.pending_count, i);
	urb->status = status;
	urb->actual_length = actual;
	fake.ended[fake.ended_count++] = urb;
}

static uint32_t fake_descriptor(const uint8_t *setup, uint8_t *to, uint32_t room)
{
	static const uint8_t *const configurations[] = {fake_configuration_1, fake_configuration_2};
	const uint8_t *from = NULL;
	uint32_t length = 0;

	if (setup[3] == 1) {
		from = fake_device_descriptor;
		length = sizeof(fake_device_descriptor);
	} else if (setup[3] == 2 && setup[2] < 2) {
		from = configurations[setup[2]];
		length = from[2];
	}
	if (fake.nonsense)
		length = 3;
	if (length > room)
		length = room;
	if (from)
		memcpy(to, from, length);
	return length;
}

static int fake_submit(struct usbdevfs_urb *urb)
{
	uint8_t *setup = urb->buffer;
	int error = fake.submit_errno;

	fake.submits++;
	if (fake.gone || error) {
		fake.submit_errno = 0;
		return fake.gone ? ENODEV : error;
	}
	assert(fake.pending_count < FAKE_URBS);
	fake.pending[fake.pending_count++] = urb;
	if (urb->type == USBDEVFS_URB_TYPE_CONTROL && setup[0] == 0x80 && setup[1] == 6) {
		uint32_t length = fake_descriptor(setup, setup + 8, (uint32_t)urb->buffer_length - 8);

		fake_end_urb(fake.pending_count - 1, length ? 0 : -EPIPE, (int)length);
	}
	pthread_cond_broadcast(&fake.changed);
	return 0;
}

static int fake_discard(void *urb)
{
	for (unsigned i = 0; i < fake.pending_count; i++)
		if (fake.pending[i] == urb) {
			fake.discards++;
			fake_end_urb(i, -ENOENT, fake.pending[i]->actual_length);
			return 0;
		}
	return EINVAL;
}

static int fake_reap(void **ret)
{
	if (!fake.ended_count)
		return fake.gone ? ENODEV : EAGAIN;
	*ret = fake.ended[0];
	fake_take_out(fake.ended, &fake.ended_count, 0);
	return 0;
}

/* --- interfaces -------------------------------------------------------------------------------- */

static unsigned fake_interfaces(void)
{
	return fake.configuration == 1 ? 2 : fake.configuration == 2 ? 1 : 0;
}

static int fake_claim(unsigned interface, bool detaches)
{
	if (interface >= fake_interfaces())
		return detaches ? EINVAL : ENOENT;
	if (*fake.drivers[interface] && (!detaches || !strcmp(fake.drivers[interface], "usbfs")))
		return EBUSY;
	if (*fake.drivers[interface])
		fake_log("detach %u;", interface);
	fake_log("claim %u;", interface);
	strcpy(fake.drivers[interface], "usbfs");
	return 0;
}

static int fake_release(unsigned interface)
{
	if (interface >= fake_interfaces() || strcmp(fake.drivers[interface], "usbfs"))
		return EINVAL;
	fake_log("release %u;", interface);
	*fake.drivers[interface] = 0;
	return 0;
}

static int fake_connect(const struct usbdevfs_ioctl *command)
{
	if (command->ioctl_code != (int)USBDEVFS_CONNECT || command->ifno < 0 || command->ifno >= (int)fake_interfaces())
		return EINVAL;
	if (*fake.drivers[command->ifno])
		return EBUSY;
	fake_log("attach %d;", command->ifno);
	strcpy(fake.drivers[command->ifno], "usb-storage");
	return 0;
}

static int fake_driver(struct usbdevfs_getdriver *g)
{
	if (g->interface >= fake_interfaces() || !*fake.drivers[g->interface])
		return ENODATA;
	strcpy(g->driver, fake.drivers[g->interface]);
	return 0;
}

static int fake_configure(int value)
{
	for (unsigned i = 0; i < fake_interfaces(); i++)
		if (*fake.drivers[i])
			return EBUSY;
	fake_log("configure %d;", value);
	if (fake.errno_of_configure)
		return fake.errno_of_configure;
	if (fake.configuration != value && value == 1)
		strcpy(fake.drivers[0], "usb-storage");
	fake.configuration = value;
	return 0;
}

/* --- ioctls ----------------------------------------------------------------------------------- */

/* What takes its time. */
static void fake_hold(void)
{
	while (fake.hold) {
		fake.holding = true;
		pthread_cond_broadcast(&fake.changed);
		pthread_cond_wait(&fake.changed, &fake.lock);
	}
	fake.holding = false;
}

/* The error; or minus what is returned. */
static int fake_ioctl(unsigned long request, void *arg)
{
	switch (request) {
	case USBDEVFS_SUBMITURB:
		return fake_submit(arg);
	case USBDEVFS_REAPURBNDELAY:
		return fake_reap(arg);
	case USBDEVFS_DISCARDURB:
		return fake_discard(arg);
	}
	if (fake.gone)
		return ENODEV;
	switch (request) {
	case USBDEVFS_GET_CAPABILITIES:
		*(uint32_t *)arg = USBDEVFS_CAP_BULK_SCATTER_GATHER | USBDEVFS_CAP_ZERO_PACKET |
		                   USBDEVFS_CAP_NO_PACKET_SIZE_LIM | USBDEVFS_CAP_REAP_AFTER_DISCONNECT;
		return 0;
	case USBDEVFS_GET_SPEED:
		return -fake.speed;
	case USBDEVFS_CONNECTINFO:
		*(struct usbdevfs_connectinfo *)arg = (struct usbdevfs_connectinfo){.devnum = 5};
		return 0;
	case USBDEVFS_CONTROL: /* libusb asks for the configuration */
		*(uint8_t *)((struct usbdevfs_ctrltransfer *)arg)->data = (uint8_t)fake.configuration;
		return -1;
	case USBDEVFS_GETDRIVER:
		return fake_driver(arg);
	case USBDEVFS_CLAIMINTERFACE:
		return fake_claim(*(unsigned *)arg, false);
	case USBDEVFS_DISCONNECT_CLAIM:
		return fake_claim(((struct usbdevfs_disconnect_claim *)arg)->interface, true);
	case USBDEVFS_RELEASEINTERFACE:
		return fake_release(*(unsigned *)arg);
	case USBDEVFS_IOCTL:
		return fake_connect(arg);
	case USBDEVFS_SETCONFIGURATION:
		fake_hold();
		return fake_configure(*(int *)arg);
	case USBDEVFS_SETINTERFACE: {
		struct usbdevfs_setinterface *s = arg;

		fake_hold();
		fake_log("alternate %u %u;", s->interface, s->altsetting);
		return fake.errno_of_alternate;
	}
	case USBDEVFS_CLEAR_HALT:
		fake_hold();
		fake_log("clear %02x;", *(unsigned *)arg);
		return 0;
	case USBDEVFS_RESET:
		fake_hold();
		fake_log("reset;");
		return fake.errno_of_reset;
	}
	return ENOTTY;
}

/* The memory is ours: umockdev serves other processes as well, but here it need not copy anything. */
static gboolean fake_handle(UMockdevIoctlBase *handler, UMockdevIoctlClient *client, void *data)
{
	UMockdevIoctlData *arg = umockdev_ioctl_client_get_arg(client);
	int error;

	(void)handler, (void)data;
	pthread_mutex_lock(&fake.lock);
	error = ENODEV;
	if (!strcmp(umockdev_ioctl_client_get_devnode(client), fake.node))
		error = fake_ioctl(umockdev_ioctl_client_get_request(client), *(void **)(void *)arg->data);
	pthread_mutex_unlock(&fake.lock);
	umockdev_ioctl_client_complete(client, error > 0 ? -1 : -error, error > 0 ? error : 0);
	return TRUE;
}

/* --- plugging ------------------------------------------------------------------------------------ */

static void fake_hex(char *to, const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		sprintf(to + 2 * i, "%02X", bytes[i]);
}

/* name: "1-1"; the node is /dev/bus/usb/001/ADDRESS. */
static void fake_plug(const char *name, unsigned address, const char *speed, const char *serial)
{
	char content[512], text[2048], node[32];
	GError *error = NULL;

	fake_hex(content, fake_device_descriptor, sizeof(fake_device_descriptor));
	fake_hex(content + strlen(content), fake_configuration_1, sizeof(fake_configuration_1));
	fake_hex(content + strlen(content), fake_configuration_2, sizeof(fake_configuration_2));
	snprintf(text, sizeof(text),
	         "P: /devices/pci0/usb1/%s\nN: bus/usb/001/%03u=%s\nE: SUBSYSTEM=usb\nE: DEVTYPE=usb_device\n"
	         "E: DEVNAME=/dev/bus/usb/001/%03u\nE: BUSNUM=001\nE: DEVNUM=%03u\nA: busnum=1\\n\nA: devnum=%u\\n\n"
	         "A: idVendor=0525\\n\nA: idProduct=a4a5\\n\nA: bDeviceClass=00\\n\nA: speed=%s\\n\nA: serial=%s\\n\n\n",
	         name, address, content, address, address, address, speed, serial);
	snprintf(node, sizeof(node), "/dev/bus/usb/001/%03u", address);
	assert_true(umockdev_testbed_attach_ioctl(fake.testbed, node, fake.handler, NULL));
	assert_true(umockdev_testbed_add_from_string(fake.testbed, text, &error));
	pthread_mutex_lock(&fake.lock);
	strcpy(fake.node, node);
	fake.gone = false;
	fake.configuration = 1;
	memset(fake.drivers, 0, sizeof(fake.drivers));
	strcpy(fake.drivers[0], "usb-storage");
	pthread_mutex_unlock(&fake.lock);
}

static void fake_unplug(const char *name, unsigned address)
{
	char path[64], node[32];

	pthread_mutex_lock(&fake.lock);
	fake.gone = true;
	while (fake.pending_count)
		fake_end_urb(0, -ESHUTDOWN, fake.pending[0]->actual_length);
	pthread_mutex_unlock(&fake.lock);
	snprintf(path, sizeof(path), "/sys/devices/pci0/usb1/%s", name);
	snprintf(node, sizeof(node), "/dev/bus/usb/001/%03u", address);
	umockdev_testbed_remove_device(fake.testbed, path);
	assert_true(umockdev_testbed_detach_ioctl(fake.testbed, node, NULL));
}

static void fake_begin(void)
{
	fake.testbed = umockdev_testbed_new();
	fake.handler = umockdev_ioctl_base_new();
	g_signal_connect(fake.handler, "handle-ioctl", G_CALLBACK(fake_handle), NULL);
	fake.speed = USB_SPEED_FULL;
	/* A root hub, so that there is sysfs while nothing is plugged in. */
	assert_true(umockdev_testbed_add_from_string(
		fake.testbed,
		"P: /devices/pci0/usb1\nE: SUBSYSTEM=usb\nE: DEVTYPE=usb_device\nA: busnum=1\\n\nA: devnum=1\\n\n"
		"A: idVendor=1d6b\\n\nA: idProduct=0001\\n\nA: bDeviceClass=09\\n\nA: speed=12\\n\n\n",
		NULL));
}

static void fake_end(void)
{
	g_clear_object(&fake.handler);
	g_clear_object(&fake.testbed);
	fake = (struct fake_usbfs){.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
}

#endif
