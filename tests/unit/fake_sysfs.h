/* A directory like /sys/bus/usb/devices, made of plain files. */
#ifndef TESTS_FAKE_SYSFS_H
#define TESTS_FAKE_SYSFS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static char directory[64];

static inline void attribute(const char *device, const char *name, const char *text)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", directory, device);
	mkdir(path, 0777);
	snprintf(path, sizeof(path), "%s/%s/%s", directory, device, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static inline void plug(const char *name, const char *address, const char *vendor, const char *product, const char *serial)
{
	attribute(name, "devnum", address);
	attribute(name, "idVendor", vendor);
	attribute(name, "idProduct", product);
	attribute(name, "bDeviceClass", "00\n");
	attribute(name, "speed", "12\n");
	if (serial)
		attribute(name, "serial", serial);
}

static inline void tree_make(void)
{
	strcpy(directory, "/tmp/bulkhead-sysfs-XXXXXX");
	assert_non_null(mkdtemp(directory));
}

static inline int tree_remove(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", directory);
	return system(command);
}

#endif
