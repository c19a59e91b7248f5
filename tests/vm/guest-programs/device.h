/*
 * Finds a USB device for those programs that talk to one through its node in /dev/bus/usb.
 */
#ifndef DEVICE_H
#define DEVICE_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* An attribute of a device in sysfs, as a number of that base; -1 where there is none. */
static inline long device_attribute(const char *device, const char *name, int base)
{
	char path[512], text[32] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/sys/bus/usb/devices/%s/%s", device, name);
	file = fopen(path, "r");
	if (!file)
		return -1;
	if (!fgets(text, sizeof(text), file))
		text[0] = '\0';
	fclose(file);
	return text[0] ? strtol(text, NULL, base) : -1;
}

static inline bool device_is(const char *device, unsigned vendor, unsigned product)
{
	return device_attribute(device, "idVendor", 16) == (long)vendor &&
	       device_attribute(device, "idProduct", 16) == (long)product;
}

static inline int device_open_node(const char *device)
{
	char path[64];

	snprintf(path, sizeof(path), "/dev/bus/usb/%03ld/%03ld", device_attribute(device, "busnum", 10),
		 device_attribute(device, "devnum", 10));
	return open(path, O_RDWR | O_CLOEXEC);
}

/*
 * Opens the node of the device that is plugged in there ("1-2", "1-2.3": as sysfs names it), or of
 * the first VENDOR:PRODUCT (hexadecimal). Ends the program if there is none.
 */
static inline int device_open(const char *program, const char *which)
{
	unsigned vendor, product;
	int fd = -1;

	if (sscanf(which, "%x:%x", &vendor, &product) == 2) {
		DIR *directory = opendir("/sys/bus/usb/devices");
		struct dirent *entry;

		while (directory && fd < 0 && (entry = readdir(directory)))
			if (device_is(entry->d_name, vendor, product))
				fd = device_open_node(entry->d_name);
		if (directory)
			closedir(directory);
	} else {
		fd = device_open_node(which);
	}
	if (fd < 0) {
		fprintf(stderr, "%s: no device %s\n", program, which);
		exit(2);
	}
	return fd;
}

#endif
