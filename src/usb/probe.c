/* Reading a device's descriptors: see usb/probe.h. */
#include <usb/probe.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GET_DESCRIPTOR 6

static void end(struct bh_probe *p, int error)
{
	free(p->buffer);
	p->buffer = NULL;
	p->running = false;
	if (error)
		bh_probe_finish(p);
	p->done(p, error);
}

static void answered(struct bh_transfer *t, enum bh_status status);

static void ask(struct bh_probe *p, uint8_t type, uint8_t index, uint16_t length)
{
	p->buffer = calloc(1, length);
	if (!p->buffer) {
		end(p, -ENOMEM);
		return;
	}
	p->span = (struct iovec){.iov_base = p->buffer, .iov_len = length};
	p->transfer = (struct bh_transfer){
		.type = BH_CONTROL,
		.setup = {.bmRequestType = 0x80, .bRequest = GET_DESCRIPTOR},
		.spans = &p->span,
		.span_count = 1,
		.length = length,
		.done = answered,
		.submitter_data = p,
	};
	p->transfer.setup.wValue = bh_put_le16((uint16_t)(type << 8 | index));
	p->transfer.setup.wLength = bh_put_le16(length);
	bh_device_submit(p->device, &p->transfer);
}

static bool is_device_descriptor(const uint8_t *d, uint32_t length)
{
	return length == 18 && d[0] == 18 && d[1] == BH_DESCRIPTOR_DEVICE &&
	       (d[7] == 8 || d[7] == 16 || d[7] == 32 || d[7] == 64 || d[7] == 9);
}

static void ask_configuration(struct bh_probe *p)
{
	if (p->next == p->device_descriptor[17] || p->next == BH_PROBE_CONFIGURATIONS)
		end(p, p->count ? 0 : -EPROTO);
	else
		ask(p, BH_DESCRIPTOR_CONFIGURATION, (uint8_t)p->next, BH_CONFIGURATION_SIZE);
}

static void take_device(struct bh_probe *p, uint32_t length)
{
	if (!is_device_descriptor(p->buffer, length)) {
		end(p, -EPROTO);
		return;
	}
	memcpy(p->device_descriptor, p->buffer, 18);
	free(p->buffer);
	p->buffer = NULL;
	ask_configuration(p);
}

/* Nine bytes have come, which say how many there are. */
static void take_head(struct bh_probe *p, uint32_t length)
{
	uint16_t total = length == BH_CONFIGURATION_SIZE ? bh_configuration_length(p->buffer) : 0;

	if (total < BH_CONFIGURATION_SIZE) {
		end(p, -EPROTO);
		return;
	}
	free(p->buffer);
	p->buffer = NULL;
	p->whole = true;
	ask(p, BH_DESCRIPTOR_CONFIGURATION, (uint8_t)p->next, total);
}

static void take_whole(struct bh_probe *p, uint32_t length)
{
	if (!bh_configuration_check(p->buffer, length)) {
		end(p, -EPROTO);
		return;
	}
	p->configurations[p->count++] = p->buffer;
	p->buffer = NULL;
	p->whole = false;
	p->next++;
	ask_configuration(p);
}

static void answered(struct bh_transfer *t, enum bh_status status)
{
	struct bh_probe *p = t->submitter_data;

	if (p->stopped)
		end(p, -ECANCELED);
	else if (status != BH_SUCCESS || t->actual > t->length)
		end(p, -EIO);
	else if (!p->device_descriptor[0])
		take_device(p, t->actual);
	else if (p->whole)
		take_whole(p, t->actual);
	else
		take_head(p, t->actual);
}

void bh_probe_start(struct bh_probe *p, struct bh_device *d, void (*done)(struct bh_probe *p, int error))
{
	*p = (struct bh_probe){.device = d, .done = done, .running = true};
	ask(p, BH_DESCRIPTOR_DEVICE, 0, 18);
}

void bh_probe_stop(struct bh_probe *p)
{
	if (!p->running || p->stopped)
		return;
	p->stopped = true;
	bh_device_cancel(p->device, &p->transfer);
}

void bh_probe_finish(struct bh_probe *p)
{
	for (unsigned i = 0; i < p->count; i++)
		free((void *)p->configurations[i]);
	p->count = 0;
}
