/*
 * The test device: see function/zero.h. Descriptors, source and sink, loopback, vendor
 * requests.
 *
 * Whatever was gathered or cut on the way here, the device knows packets only. A source is
 * never empty and a sink never full, so their transfers end inside submit, or, with a delay,
 * as soon as it is over: nothing is acted on before that. One that is cancelled meanwhile is
 * acted on as far as its packets would have moved by then, and is counted so. Loopback keeps
 * packets as they came, zero-length ones too, in a ring: while it is full OUT transfers wait,
 * while it is empty IN transfers do. (The gadget waits for a short packet or 4096 bytes
 * before anything comes back; here a packet comes back once it is there.)
 *
 * Left out: the gadget's super speed, its choice of sizes, and remote wakeup.
 */
#include <function/zero.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/list.h>
#include <base/util.h>

#include "delay.h"
#include "standard.h"

#define SOURCE_SINK 3 /* bConfigurationValue */
#define LOOPBACK    2

#define BULK_IN        (0x01 | BH_ENDPOINT_IN)
#define BULK_OUT       0x01
#define ISOCHRONOUS_IN (0x02 | BH_ENDPOINT_IN)
#define ISOCHRONOUS_OUT 0x02
#define INTERRUPT_IN   (0x03 | BH_ENDPOINT_IN)
#define INTERRUPT_OUT  0x03

#define FULL_MAX_PACKET        64
#define HIGH_MAX_PACKET        512
#define ISOCHRONOUS_MAX_PACKET 1023

#define BUFFER_SIZE 4096u /* of the vendor requests, the gadget's */
#define RING_SIZE   2048u /* packets on their way back; the gadget has 32 buffers of 64 packets */
#define PATTERN_MAX 4096u /* bytes looked at at once */

struct loop_packet {
	uint16_t length;
	uint8_t bytes[]; /* room for max_packet */
};

#define SOURCE_SINK_SIZE (9 + 9 + 2 * 7 + 2 * (9 + 4 * 7))
#define LOOPBACK_SIZE    (9 + 9 + 2 * 7)

struct zero {
	struct bh_standard standard;
	/* configuration */
	unsigned pattern;
	uint16_t max_packet; /* of bulk and interrupt endpoints */
	uint8_t source_sink[SOURCE_SINK_SIZE], loopback[LOOPBACK_SIZE];
	const uint8_t *configurations[2];
	struct bh_description description;

	/* state */
	struct bh_delay delay; /* us 0: there is none */
	uint8_t buffer[BUFFER_SIZE];
	struct bh_list waiting[2];           /* loopback: transfers, [in], in order */
	uint8_t *ring; /* loopback: room for RING_SIZE packets, from first on count of them */
	unsigned first, count;
	bool running, again; /* move() is; and was called inside itself */

	struct bh_zero_counters counters;
};

static struct zero *to_zero(struct bh_device *d)
{
	return bh_container_of(d, struct zero, standard.device);
}

static struct zero *of_standard(struct bh_standard *s)
{
	return bh_container_of(s, struct zero, standard);
}

/* --- descriptors (9.6) ------------------------------------------------------------------ */

enum { STRING_MANUFACTURER = 1, STRING_PRODUCT, STRING_SERIAL, STRING_SOURCE_SINK, STRING_LOOPBACK };

static const char *const strings[] = {
	"Bulkhead", "Bulkhead Zero", "0123456789.0123456789.0123456789", "source and sink", "loopback",
};

static const uint8_t device_descriptor[18] = {
	18, BH_DESCRIPTOR_DEVICE,
	BH_LE16(0x0200), /* bcdUSB */
	0xff, 0, 0,      /* class: vendor's */
	64,              /* bMaxPacketSize0 */
	BH_LE16(0x0525), BH_LE16(0xa4a0), /* gadget zero's */
	BH_LE16(0x0100), /* bcdDevice */
	STRING_MANUFACTURER, STRING_PRODUCT, STRING_SERIAL,
	2, /* bNumConfigurations */
};

#define CONFIGURATION(length, value, string) \
	9, BH_DESCRIPTOR_CONFIGURATION, BH_LE16(length), 1, (value), (string), 0xc0 /* self-powered */, 0
#define INTERFACE(alternate, endpoints) 9, BH_DESCRIPTOR_INTERFACE, 0, (alternate), (endpoints), 0xff, 0, 0, 0
#define ENDPOINT(address, type, max_packet, interval) \
	7, BH_DESCRIPTOR_ENDPOINT, (address), (type), BH_LE16(max_packet), (interval)

static void describe(struct zero *z, uint8_t isochronous_interval, uint8_t interrupt_interval)
{
	const uint16_t max_packet = z->max_packet;
	const uint8_t loopback[LOOPBACK_SIZE] = {
		CONFIGURATION(LOOPBACK_SIZE, LOOPBACK, STRING_LOOPBACK),
		INTERFACE(0, 2),
		ENDPOINT(BULK_IN, BH_BULK, max_packet, 0),
		ENDPOINT(BULK_OUT, BH_BULK, max_packet, 0),
	};
	const uint8_t source_sink[SOURCE_SINK_SIZE] = {
		CONFIGURATION(SOURCE_SINK_SIZE, SOURCE_SINK, STRING_SOURCE_SINK),
		INTERFACE(0, 2),
		ENDPOINT(BULK_IN, BH_BULK, max_packet, 0),
		ENDPOINT(BULK_OUT, BH_BULK, max_packet, 0),
		INTERFACE(1, 4),
		ENDPOINT(BULK_IN, BH_BULK, max_packet, 0),
		ENDPOINT(BULK_OUT, BH_BULK, max_packet, 0),
		ENDPOINT(ISOCHRONOUS_IN, BH_ISOCHRONOUS, ISOCHRONOUS_MAX_PACKET, isochronous_interval),
		ENDPOINT(ISOCHRONOUS_OUT, BH_ISOCHRONOUS, ISOCHRONOUS_MAX_PACKET, isochronous_interval),
		INTERFACE(2, 4),
		ENDPOINT(BULK_IN, BH_BULK, max_packet, 0),
		ENDPOINT(BULK_OUT, BH_BULK, max_packet, 0),
		ENDPOINT(INTERRUPT_IN, BH_INTERRUPT, max_packet, interrupt_interval),
		ENDPOINT(INTERRUPT_OUT, BH_INTERRUPT, max_packet, interrupt_interval),
	};

	memcpy(z->source_sink, source_sink, sizeof(source_sink));
	z->configurations[0] = z->source_sink;
	memcpy(z->loopback, loopback, sizeof(loopback));
	z->configurations[1] = z->loopback;
	z->description = (struct bh_description){
		.device = device_descriptor,
		.configurations = z->configurations,
		.configuration_count = BH_COUNT(z->configurations),
		.strings = strings,
		.string_count = BH_COUNT(strings),
	};
}

/* --- what is counted --------------------------------------------------------------------- */

static struct bh_zero_traffic *traffic(struct zero *z, enum bh_endpoint_type type)
{
	switch (type) {
	case BH_ISOCHRONOUS:
		return &z->counters.isochronous;
	case BH_INTERRUPT:
		return &z->counters.interrupt;
	case BH_BULK:
	case BH_CONTROL:
		break;
	}
	return &z->counters.bulk;
}

static void count_in(struct zero *z, enum bh_endpoint_type type, uint64_t packets, uint64_t bytes)
{
	traffic(z, type)->packets_in += packets;
	traffic(z, type)->bytes_in += bytes;
}

static void count_out(struct zero *z, enum bh_endpoint_type type, uint64_t packets, uint64_t bytes)
{
	traffic(z, type)->packets_out += packets;
	traffic(z, type)->bytes_out += bytes;
}

/* --- patterns ------------------------------------------------------------------------------ */

/* The bytes of packets of that size, one after the other. */
static void fill_pattern(const struct zero *z, uint8_t *p, uint32_t length, uint32_t max_packet)
{
	memset(p, 0, length);
	for (uint32_t i = 0; z->pattern == 1 && i < length; i++)
		p[i] = (uint8_t)(i % max_packet % 63);
}

/* Puts packets of the pattern there. */
static void put_pattern(const struct zero *z, struct bh_transfer *t, uint32_t offset, uint32_t length,
                        uint32_t max_packet)
{
	uint8_t pattern[PATTERN_MAX];
	uint32_t whole = PATTERN_MAX - PATTERN_MAX % max_packet;

	fill_pattern(z, pattern, BH_MIN(whole, length), max_packet);
	for (uint32_t n; length; offset += n, length -= n) {
		n = BH_MIN(whole, length);
		bh_transfer_write(t, offset, pattern, n);
	}
}

/* How many bytes of the packets there are not of the pattern; where the first one is, if any. */
static uint32_t bad_bytes(const struct zero *z, const struct bh_transfer *t, uint32_t offset, uint32_t length,
                          uint32_t max_packet, uint32_t *ret_first)
{
	uint8_t pattern[PATTERN_MAX], bytes[PATTERN_MAX];
	uint32_t whole = PATTERN_MAX - PATTERN_MAX % max_packet, bad = 0;

	if (z->pattern == 2)
		return 0;
	fill_pattern(z, pattern, BH_MIN(whole, length), max_packet);
	for (uint32_t n; length; offset += n, length -= n) {
		n = BH_MIN(whole, length);
		bh_transfer_read(t, offset, bytes, n);
		if (!memcmp(bytes, pattern, n))
			continue;
		for (uint32_t i = 0; i < n; i++)
			if (bytes[i] != pattern[i] && !bad++)
				*ret_first = offset + i;
	}
	return bad;
}

/* --- source and sink ------------------------------------------------------------------------- */

/* Does a zero-length packet end the OUT transfer? */
static bool ends_empty(const struct bh_transfer *t, uint32_t max_packet)
{
	return t->length == 0 || (t->flags & BH_TRANSFER_ZERO_PACKET && t->length % max_packet == 0);
}

/* How many packets the transfer has. */
static uint32_t packets_of(const struct bh_transfer *t, uint32_t max_packet)
{
	bool empty = !(t->endpoint & BH_ENDPOINT_IN) && ends_empty(t, max_packet);

	if (t->type == BH_ISOCHRONOUS)
		return t->packet_count;
	return t->length / max_packet + (t->length % max_packet != 0) + empty;
}

/* What follows acts on the first packets of a transfer; where that is not all of them, it was cancelled. */

static void source(struct zero *z, struct bh_transfer *t, uint32_t max_packet, uint32_t packets)
{
	bool all = packets == packets_of(t, max_packet);
	uint32_t given = all ? t->length : packets * max_packet;

	put_pattern(z, t, 0, given, max_packet);
	count_in(z, t->type, packets, given);
	bh_transfer_done(t, all ? BH_SUCCESS : BH_CANCELLED, given);
}

/* A packet that is not of the pattern is taken; what comes after it finds the endpoint halted. */
static void sink(struct zero *z, struct bh_transfer *t, uint32_t max_packet, uint32_t packets)
{
	bool all = packets == packets_of(t, max_packet), empty = all && ends_empty(t, max_packet);
	uint32_t first = 0, length = all ? t->length : BH_MIN(packets * max_packet, t->length), taken = length, start;

	if (bad_bytes(z, t, 0, length, max_packet, &first)) {
		start = first - first % max_packet;
		taken = BH_MIN(start + max_packet, length);
		z->counters.bad_packets++;
		z->counters.bad_bytes += bad_bytes(z, t, start, taken - start, max_packet, &first);
		bh_standard_halt(&z->standard, t->endpoint);
		if (taken < length || empty) {
			count_out(z, t->type, (taken + max_packet - 1) / max_packet, taken);
			bh_transfer_done(t, BH_STALL, taken);
			return;
		}
	}
	count_out(z, t->type, packets, taken);
	bh_transfer_done(t, all ? BH_SUCCESS : BH_CANCELLED, taken);
}

/* --- isochronous ------------------------------------------------------------------------------ */

/* The device sends what it has, whether or not the host left room for it. */
static void isochronous_in(struct zero *z, struct bh_transfer *t, struct bh_packet *p, uint32_t max_packet)
{
	p->actual = BH_MIN(p->length, max_packet);
	p->status = p->length < max_packet ? BH_BABBLE : BH_SUCCESS;
	put_pattern(z, t, p->offset, p->actual, max_packet);
	count_in(z, BH_ISOCHRONOUS, 1, p->actual);
}

static void isochronous_out(struct zero *z, struct bh_transfer *t, struct bh_packet *p, uint32_t max_packet)
{
	uint32_t first, bad = bad_bytes(z, t, p->offset, p->length, max_packet, &first);

	z->counters.bad_packets += bad > 0;
	z->counters.bad_bytes += bad;
	p->actual = p->length;
	p->status = BH_SUCCESS;
	count_out(z, BH_ISOCHRONOUS, 1, p->actual);
}

static void isochronous(struct zero *z, struct bh_transfer *t, uint32_t max_packet, uint32_t packets)
{
	uint32_t actual = 0;

	for (unsigned i = 0; i < packets; i++) {
		if (t->endpoint & BH_ENDPOINT_IN)
			isochronous_in(z, t, &t->packets[i], max_packet);
		else
			isochronous_out(z, t, &t->packets[i], max_packet);
		actual += t->packets[i].actual;
	}
	bh_transfer_done(t, packets == t->packet_count ? BH_SUCCESS : BH_CANCELLED, actual);
}

/* --- loopback ----------------------------------------------------------------------------------- */

static struct bh_transfer *first_waiting(struct zero *z, bool in)
{
	return bh_list_empty(&z->waiting[in]) ? NULL
	                                      : bh_container_of(z->waiting[in].next, struct bh_transfer, device_link);
}

static void end(struct bh_transfer *t, enum bh_status status)
{
	bh_list_remove(&t->device_link);
	bh_transfer_done(t, status, t->actual);
}

static void end_all(struct zero *z, bool in, enum bh_status status)
{
	struct bh_transfer *t;

	while ((t = first_waiting(z, in)))
		end(t, status);
}

static size_t packet_room(const struct zero *z)
{
	return sizeof(struct loop_packet) + z->max_packet;
}

static struct loop_packet *ring_packet(struct zero *z, unsigned i)
{
	return (void *)(z->ring + i % RING_SIZE * packet_room(z));
}

/* The OUT transfer's next packet into the ring, which has room. */
static void take(struct zero *z, struct bh_transfer *t)
{
	struct loop_packet *p = ring_packet(z, z->first + z->count++);

	p->length = (uint16_t)BH_MIN(t->length - t->actual, (uint32_t)z->max_packet);
	bh_transfer_read(t, t->actual, p->bytes, p->length);
	t->actual += p->length;
	count_out(z, t->type, 1, p->length);
	if (p->length < z->max_packet || (t->actual == t->length && !(t->flags & BH_TRANSFER_ZERO_PACKET)))
		end(t, BH_SUCCESS);
}

/* The ring's first packet into the IN transfer. */
static void give(struct zero *z, struct bh_transfer *t)
{
	const struct loop_packet *p = ring_packet(z, z->first);
	uint32_t length = p->length, room = t->length - t->actual;

	z->first = (z->first + 1) % RING_SIZE;
	z->count--;
	bh_transfer_write(t, t->actual, p->bytes, BH_MIN(length, room));
	t->actual += BH_MIN(length, room);
	count_in(z, t->type, 1, BH_MIN(length, room));
	if (length > room)
		end(t, BH_BABBLE);
	else if (length < z->max_packet || t->actual == t->length)
		end(t, BH_SUCCESS);
}

/* Moves what can be; true: something did. Those who still wait hear how far they came. */
static bool move_once(struct zero *z)
{
	struct bh_transfer *t;
	bool took = false, gave = false;

	while (z->count < RING_SIZE && (t = first_waiting(z, false))) {
		take(z, t);
		took = true;
	}
	if (took && (t = first_waiting(z, false)) && t->actual)
		bh_transfer_progress(t, t->actual);
	while (z->count && (t = first_waiting(z, true))) {
		give(z, t);
		gave = true;
	}
	if (gave && (t = first_waiting(z, true)) && t->actual)
		bh_transfer_progress(t, t->actual);
	return took || gave;
}

/* A transfer that ends may bring the next one in here. */
static void move(struct zero *z)
{
	z->again = true;
	if (z->running)
		return;
	z->running = true;
	do
		z->again = false;
	while (move_once(z) || z->again);
	z->running = false;
}

static void loop(struct zero *z, struct bh_transfer *t)
{
	bh_list_append(&z->waiting[(t->endpoint & BH_ENDPOINT_IN) != 0], &t->device_link);
	move(z);
}

/* --- control requests ----------------------------------------------------------------------------- */

enum { FILL_BUFFER = BH_REQUEST(0x40, 0x5b), RETURN_BUFFER = BH_REQUEST(0xc0, 0x5c) };

/* Those of Intel's test devices, which the gadget and usbtest know. */
static void vendor_request(struct zero *z, struct bh_transfer *t)
{
	if (z->standard.settings.configuration != SOURCE_SINK || bh_get_le16(t->setup.wValue) ||
	    bh_get_le16(t->setup.wIndex) || bh_get_le16(t->setup.wLength) > BUFFER_SIZE || t->length > BUFFER_SIZE) {
		bh_refuse(t);
	} else if (bh_request_of(t) == RETURN_BUFFER) {
		bh_answer(t, z->buffer, BUFFER_SIZE);
	} else {
		bh_transfer_read(t, 0, z->buffer, t->length);
		bh_acknowledge(t);
	}
}

static void control(struct zero *z, struct bh_transfer *t)
{
	unsigned request = bh_request_of(t);

	if (request == FILL_BUFFER || request == RETURN_BUFFER)
		vendor_request(z, t);
	else
		bh_standard_control(&z->standard, t);
}

/* --- the device -------------------------------------------------------------------------------------- */

/* Of source and sink: the first packets. */
static void move_packets(struct zero *z, struct bh_transfer *t, uint32_t max_packet, uint32_t packets)
{
	if (t->type == BH_ISOCHRONOUS)
		isochronous(z, t, max_packet, packets);
	else if (t->endpoint & BH_ENDPOINT_IN)
		source(z, t, max_packet, packets);
	else
		sink(z, t, max_packet, packets);
}

/* The transfer's endpoint, if it is one of the active settings and works. */
static const struct bh_endpoint_info *endpoint_of(const struct zero *z, const struct bh_transfer *t)
{
	const struct bh_endpoint_info *e = bh_standard_endpoint(&z->standard.device, t->endpoint);

	return e && t->type == e->type && !bh_standard_halted(&z->standard, t->endpoint) ? e : NULL;
}

static bool is_control(const struct bh_transfer *t)
{
	return t->type == BH_CONTROL && !(t->endpoint & 0x7f);
}

static void act(struct zero *z, struct bh_transfer *t)
{
	const struct bh_endpoint_info *e = endpoint_of(z, t);

	if (is_control(t))
		control(z, t);
	else if (!e)
		bh_refuse(t);
	else if (z->standard.settings.configuration == LOOPBACK)
		loop(z, t);
	else
		move_packets(z, t, e->max_packet, packets_of(t, e->max_packet));
}

static void delay_over(struct bh_delay *d, struct bh_transfer *t)
{
	act(bh_container_of(d, struct zero, delay), t);
}

static void zero_submit(struct bh_device *d, struct bh_transfer *t)
{
	struct zero *z = to_zero(d);

	if (z->delay.us)
		bh_delay_hold(&z->delay, t);
	else
		act(z, t);
}

/*
 * One that is delayed moved in part, unless others of its endpoint come before it. What loopback
 * and the control pipe do, they do at the end.
 */
static void cancel_delayed(struct zero *z, struct bh_transfer *t)
{
	const struct bh_endpoint_info *e = endpoint_of(z, t);
	bool moves = e && z->standard.settings.configuration == SOURCE_SINK && bh_delay_first(&z->delay, t->endpoint) == t;
	uint32_t packets = moves ? bh_delay_share(&z->delay, t, packets_of(t, e->max_packet)) : 0;

	bh_delay_release(&z->delay, t);
	if (packets)
		move_packets(z, t, e->max_packet, packets);
	else
		bh_transfer_done(t, BH_CANCELLED, 0);
}

/* Under way are only loopback's transfers, and those that are delayed. */
static void zero_cancel(struct bh_device *d, struct bh_transfer *t)
{
	struct zero *z = to_zero(d);

	if (z->delay.us && bh_delay_holds(&z->delay, t))
		cancel_delayed(z, t);
	else
		end(t, BH_CANCELLED);
}

/* Nothing moved. */
static void end_delayed(struct zero *z, int endpoint, enum bh_status status)
{
	struct bh_transfer *t;

	while (z->delay.us && (t = bh_delay_first(&z->delay, endpoint))) {
		bh_delay_release(&z->delay, t);
		bh_transfer_done(t, status, 0);
	}
}

static void end_everything(struct zero *z)
{
	end_all(z, false, BH_CANCELLED);
	end_all(z, true, BH_CANCELLED);
	end_delayed(z, BH_DELAY_ANY, BH_CANCELLED);
}

/*
 * The only endpoints with a state are loopback's, but for what is delayed. finishes is read when an endpoint is first
 * used after this: an IN of loopback's waits for an OUT, and that, in the end, for an IN.
 */
static void zero_changed(struct bh_standard *s, int interface)
{
	struct zero *z = of_standard(s);

	(void)interface;
	s->device.finishes = s->settings.configuration != LOOPBACK;
	z->first = z->count = 0;
	end_everything(z);
}

static void zero_halted(struct bh_standard *s, uint8_t endpoint, bool halted)
{
	struct zero *z = of_standard(s);

	if (!halted)
		return;
	end_all(z, endpoint & BH_ENDPOINT_IN, BH_STALL);
	end_delayed(z, endpoint, BH_STALL);
}

/* What another machine left is nobody's business. */
static void zero_power_on(struct bh_device *d)
{
	memset(to_zero(d)->buffer, 0, BUFFER_SIZE);
}

static void free_zero(struct zero *z)
{
	free(z->ring);
	free(z);
}

static void delay_closed(struct bh_delay *d)
{
	free_zero(bh_container_of(d, struct zero, delay));
}

static void zero_destroy(struct bh_device *d)
{
	struct zero *z = to_zero(d);

	end_everything(z);
	if (z->delay.us)
		bh_delay_close(&z->delay, delay_closed);
	else
		free_zero(z);
}

static const struct bh_standard_ops standard_ops = {
	.changed = zero_changed,
	.halted = zero_halted,
};

static const struct bh_device_ops zero_ops = {
	.submit = zero_submit,
	.cancel = zero_cancel,
	.reset = bh_standard_reset,
	.set_configuration = bh_standard_set_configuration,
	.set_interface = bh_standard_set_interface,
	.refuses = bh_standard_refuses,
	.descriptors = bh_standard_descriptors,
	.clear_halt = bh_standard_clear_halt,
	.endpoint = bh_standard_endpoint,
	.suspend = bh_standard_suspend,
	.power_on = zero_power_on,
	.destroy = zero_destroy,
};

struct bh_zero_counters bh_zero_counters(const struct bh_device *device)
{
	return bh_container_of(device, const struct zero, standard.device)->counters;
}

int bh_zero_create(const struct bh_zero_config *config, struct bh_device **ret)
{
	unsigned isochronous = config->isochronous_interval ? config->isochronous_interval : 4;
	bool high = config->speed == BH_SPEED_HIGH;
	unsigned interrupt = config->interrupt_interval ? config->interrupt_interval : high ? 4 : 1;
	struct zero *z;

	if (!high && config->speed != BH_SPEED_FULL && config->speed != 0)
		return -EINVAL;
	if ((high && interrupt > 16) || config->pattern > 2 || isochronous > 16 || interrupt > 255 || config->delay_us > BH_DELAY_MAX_US ||
	    (config->delay_us && !config->loop))
		return -EINVAL;
	z = calloc(1, sizeof(*z));
	if (!z)
		return -ENOMEM;
	z->pattern = config->pattern;
	z->max_packet = high ? HIGH_MAX_PACKET : FULL_MAX_PACKET;
	z->ring = malloc(RING_SIZE * packet_room(z));
	if (!z->ring) {
		free(z);
		return -ENOMEM;
	}
	describe(z, (uint8_t)isochronous, (uint8_t)interrupt);
	bh_list_init(&z->waiting[0]);
	bh_list_init(&z->waiting[1]);
	bh_standard_init(&z->standard, &zero_ops, &standard_ops, &z->description,
	                 high ? BH_SPEED_HIGH : BH_SPEED_FULL);
	z->standard.device.finishes = true;
	if (config->delay_us)
		bh_delay_init(&z->delay, config->loop, config->delay_us, delay_over);
	*ret = &z->standard.device;
	return 0;
}
