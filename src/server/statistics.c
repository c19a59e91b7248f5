/*
 * Counters to JSON, and into a file that is always whole. It counts nothing itself; when it is
 * written, and what devices say of themselves, is serve.c's and devices.c's.
 */
#include "statistics.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void count(json_t *o, const char *key, uint64_t value)
{
	json_object_set_new(o, key, json_integer((json_int_t)value));
}

static json_t *engine_json(const struct bh_engine_counters *c)
{
	json_t *o = json_object(), *ends = json_object(), *cancels = json_object();

	count(o, "offers", c->offers);
	count(o, "busy", c->busy);
	count(o, "batches", c->batches);
	count(o, "packets_out", c->packets_out);
	count(o, "packets_in", c->packets_in);
	count(o, "bytes_out", c->bytes_out);
	count(o, "bytes_in", c->bytes_in);
	count(o, "failed_packets", c->failed_packets);
	count(o, "mismatches", c->mismatches);
	count(o, "failures", c->failures);
	count(o, "ahead_bytes", c->ahead_bytes);
	count(o, "kept_bytes", c->kept_bytes);
	count(o, "isochronous_missed", c->isochronous_missed);
	count(o, "isochronous_dropped", c->isochronous_dropped);
	count(o, "memory", c->memory);
	count(o, "memory_peak", c->memory_peak);
	for (int i = 0; i < BH_SCAN_END_COUNT; i++)
		count(ends, bh_scan_end_name((enum bh_scan_end)i), c->scan_end[i]);
	for (int i = 1; i < BH_CANCEL_COUNT; i++)
		count(cancels, bh_cancel_name((enum bh_cancel)i), c->cancels[i]);
	json_object_set_new(o, "scan_end", ends);
	json_object_set_new(o, "cancels", cancels);
	return o;
}

static json_t *uhci_json(const struct bh_uhci_counters *c)
{
	json_t *o = json_object();

	count(o, "frames", c->frames);
	count(o, "frames_late", c->frames_late);
	count(o, "frames_lost", c->frames_lost);
	count(o, "walks", c->walks);
	count(o, "entries", c->entries);
	count(o, "completed", c->completed);
	count(o, "interrupts", c->interrupts);
	count(o, "host_errors", c->host_errors);
	count(o, "process_errors", c->process_errors);
	return o;
}

static json_t *bus_json(const struct bh_bus_counters *c)
{
	json_t *o = json_object();

	count(o, "setups", c->setups);
	count(o, "unanswered", c->unanswered);
	count(o, "reconnects", c->reconnects);
	return o;
}

static json_t *vfio_user_json(const struct bh_vfio_user_counters *c)
{
	json_t *o = json_object();

	count(o, "clients", c->clients);
	count(o, "dropped", c->dropped);
	count(o, "messages", c->messages);
	count(o, "errors", c->errors);
	count(o, "region_reads", c->region_reads);
	count(o, "region_writes", c->region_writes);
	count(o, "intx", c->intx);
	count(o, "msi", c->msi);
	return o;
}

/* By way of a new file beside it, so that whoever reads sees all of one or of the other. */
static int replace(const char *path, char *temporary, const json_t *o)
{
	int fd = mkostemp(temporary, O_CLOEXEC), r = 0;

	if (fd < 0)
		return -errno;
	if (json_dumpfd(o, fd, JSON_INDENT(2)) || fchmod(fd, 0644))
		r = errno ? -errno : -EIO;
	if (close(fd) && !r)
		r = -errno;
	if (!r && rename(temporary, path))
		r = -errno;
	if (r)
		unlink(temporary);
	return r;
}

json_t *bh_statistics(struct bh_uhci *u, const struct bh_vfio_user *v, json_t *devices)
{
	json_t *o = json_object();

	json_object_set_new(o, "engine", engine_json(&bh_uhci_bus(u)->engine.counters));
	json_object_set_new(o, "bus", bus_json(&bh_uhci_bus(u)->counters));
	json_object_set_new(o, "uhci", uhci_json(bh_uhci_counters(u)));
	json_object_set_new(o, "devices", devices);
	json_object_set_new(o, "vfio_user", vfio_user_json(bh_vfio_user_counters(v)));
	return o;
}

int bh_statistics_write(const char *path, json_t *statistics)
{
	char *temporary = NULL;
	int r = 0;

	if (asprintf(&temporary, "%s.XXXXXX", path) < 0)
		r = -ENOMEM;
	else
		r = replace(path, temporary, statistics);
	free(temporary);
	json_decref(statistics);
	return r;
}
