/* See hostile_device.h. */
#include "hostile_device.h"

#include <string.h>

#include <base/util.h>

#include "hostile_guest.h"
#include "must.h"

struct hostile_limits hostile_limits;
uint64_t hostile_device_acted;

static struct hostile_device *of_device(const struct bh_device *d)
{
	return bh_container_of(d, struct hostile_device, device);
}

static bool is_in(const struct bh_transfer *t)
{
	return t->type == BH_CONTROL ? t->setup.bmRequestType & BH_ENDPOINT_IN : t->endpoint & BH_ENDPOINT_IN;
}

static unsigned pipe_of(const struct bh_transfer *t)
{
	return t->type == BH_CONTROL ? CONTROL_PIPE : (t->endpoint & 15u) | (t->endpoint & BH_ENDPOINT_IN) >> 3;
}

/* The pipe that holds the transfer; or (NULL) a free one for it. */
static struct pipe *pipe_for(struct hostile_device *d, const struct bh_transfer *t, const struct bh_transfer *held)
{
	unsigned first = PIPES + (is_in(t) ? UNDER_WAY : 0);

	if (t->type != BH_ISOCHRONOUS)
		return &d->pipes[pipe_of(t)];
	for (unsigned i = first; i < first + UNDER_WAY; i++)
		if (d->pipes[i].transfer == held)
			return &d->pipes[i];
	must(!held, "cancels what does not run");
	must(false, "more under way than allowed");
	return NULL;
}

static unsigned endpoint_of(unsigned pipe)
{
	return pipe < PIPES ? pipe : STREAM_PIPE + (pipe < PIPES + UNDER_WAY ? 0 : 16);
}

/* --- endpoints: what a configuration has depends on the device, its number and the alternate setting  */

static void configure(struct hostile_device *d)
{
	static const uint16_t sizes[] = {64, 64, 64, 8, 16, 32, 1, 1023, 1024, 63};

	for (unsigned i = 0; i < 32; i++) {
		unsigned number = i & 15, choice = d->flavour / 32u + d->configuration + d->alternate;
		struct bh_endpoint_info *e = &d->endpoints[i];

		*e = (struct bh_endpoint_info){
			.address = (uint8_t)(number | (i & 16) << 3),
			.type = number == 3 ? BH_INTERRUPT : number == STREAM_PIPE ? BH_ISOCHRONOUS : BH_BULK,
			.max_packet = (uint16_t)BH_MIN(1024, sizes[(number < 3 ? 0 : number + choice) % BH_COUNT(sizes)] * d->packets),
			.interval = 1,
			.interface = number & 1,
			.bulk_only = d->packets > 1 && number < 3,
		};
		if (number == 8 && choice & 1)
			e->type = BH_INTERRUPT;
	}
}

static bool exists(const struct hostile_device *d, unsigned i)
{
	unsigned number = i & 15;

	return number && number != 15 && !(number == 14 && d->configuration);
}

/* --- bytes ------------------------------------------------------------------------------------- */

static uint32_t sum_of(const struct bh_transfer *t)
{
	uint8_t bytes[256];
	uint32_t sum = 0, part;

	/* Both ends of a long one will do. */
	part = BH_MIN(t->length, sizeof(bytes));
	bh_transfer_read(t, 0, bytes, part);
	for (uint32_t i = 0; i < part; i++)
		sum = sum * 31 + bytes[i];
	bh_transfer_read(t, t->length - part, bytes, part);
	for (uint32_t i = 0; i < part; i++)
		sum = sum * 31 + bytes[i];
	return sum;
}

static void fill(const struct bh_transfer *t, uint32_t length)
{
	static uint8_t bytes[4096];

	if (!bytes[0])
		for (unsigned i = 0; i < sizeof(bytes); i++)
			bytes[i] = (uint8_t)(i * 5 + 1);
	for (uint32_t at = 0; at < length; at += sizeof(bytes))
		bh_transfer_write(t, at, bytes, BH_MIN(length - at, sizeof(bytes)));
}

static void check_pipe(const struct pipe *p)
{
	if (p->transfer && !is_in(p->transfer))
		must(sum_of(p->transfer) == p->sum, "bytes changed while the device had them");
	else if (p->transfer)
		fill(p->transfer, p->transfer->length);
}

void hostile_device_check(const struct hostile_device *d)
{
	for (unsigned i = 0; i < ALL_PIPES; i++)
		check_pipe(&d->pipes[i]);
}

/* --- ends -------------------------------------------------------------------------------------- */

static uint32_t actual_of(const struct hostile_device *d, const struct bh_transfer *t, uint8_t actual)
{
	uint32_t packet = d->device.control_max_packet, some = actual >> 3;

	if (t->type != BH_CONTROL)
		packet = d->endpoints[pipe_of(t)].max_packet;
	switch (actual & 7) {
	case 0:
		return t->length;
	case 1:
		return 0;
	case 2:
		return BH_MIN(some, t->length);
	case 3:
		return BH_MIN(some * packet, t->length);
	case 4:
		return t->length - BH_MIN(some, t->length);
	case 5:
		return t->length - BH_MIN(some * packet, t->length);
	case 6:
		return t->length / 2;
	default:
		return actual & 8 ? UINT32_MAX : t->length + some; /* a lie */
	}
}

static void end(struct hostile_device *d, struct pipe *p, uint8_t status, uint8_t actual)
{
	struct bh_transfer *t = p->transfer;
	uint32_t moved = actual_of(d, t, actual);

	check_pipe(p);
	if (is_in(t))
		fill(t, BH_MIN(moved, t->length));
	for (unsigned i = 0; i < t->packet_count; i++) {
		t->packets[i].status = (enum bh_status)((status + i * (actual >> 4)) % BH_STATUS_COUNT);
		t->packets[i].actual = actual & 8 ? moved : t->packets[i].length >> (actual & 3); /* perhaps a lie */
	}
	p->transfer = NULL;
	p->cancelled = false;
	p->due_us = UINT64_MAX;
	bh_transfer_done(t, (enum bh_status)(status % BH_STATUS_COUNT), moved);
}

void hostile_device_end(struct hostile_device *d, unsigned pipe, uint8_t status, uint8_t actual)
{
	struct pipe *p = &d->pipes[pipe % ALL_PIPES];

	if (!p->transfer)
		return;
	hostile_device_acted++;
	end(d, p, status, actual);
}

void hostile_device_progress(struct hostile_device *d, unsigned pipe)
{
	struct bh_transfer *t = d->pipes[pipe % ALL_PIPES].transfer;

	if (t)
		bh_transfer_progress(t, t->length / 2);
}

static void check_cancelled(const struct hostile_device *d, bool control, int interface)
{
	for (unsigned i = 0; i < ALL_PIPES; i++)
		must(!d->pipes[i].transfer || d->pipes[i].cancelled || (!control && i == CONTROL_PIPE) ||
		             (interface >= 0 && d->endpoints[endpoint_of(i)].interface != interface),
		     "a transfer should have been cancelled");
}

void hostile_device_detach(struct hostile_device *d)
{
	if (!d->device.upcalls)
		return;
	d->detached = true;
	bh_device_detach(&d->device);
	check_cancelled(d, true, -1);
}

uint64_t hostile_device_due(const struct hostile_device *d)
{
	uint64_t due = UINT64_MAX;

	for (unsigned i = 0; i < ALL_PIPES; i++)
		if (d->pipes[i].transfer)
			due = BH_MIN(due, d->pipes[i].due_us);
	return due;
}

void hostile_device_run(struct hostile_device *d, uint64_t now_us)
{
	for (unsigned i = 0; i < ALL_PIPES; i++) {
		struct pipe *p = &d->pipes[i];
		const struct policy *policy = &d->pipes[endpoint_of(i)].policy;

		if (p->transfer && p->due_us <= now_us)
			hostile_device_end(d, i, p->cancelled ? BH_CANCELLED : policy->status, policy->actual);
	}
}

/* --- the device seam --------------------------------------------------------------------------- */

static void check_transfer(const struct hostile_device *d, const struct bh_transfer *t)
{
	uint32_t sum = 0, packet = d->endpoints[pipe_of(t) % 32].max_packet;
	uint32_t rest = d->packets > 1 ? packet - 1 : 0; /* what translation adds to fill a packet */

	for (unsigned i = 0; i < t->span_count; i++)
		sum += (uint32_t)t->spans[i].iov_len;
	must(sum == t->length, "spans do not add up to the length");
	if (t->type == BH_CONTROL)
		return;
	must((t->type == BH_ISOCHRONOUS) == (t->packet_count > 0), "packets where there should be none, or none");
	for (unsigned i = 0; i < t->packet_count; i++) {
		must(t->packets[i].offset == i * packet, "packets that do not lie one after another");
		must(t->packets[i].length <= packet && (!is_in(t) || t->packets[i].length == packet),
		     "a packet of no length it can have");
		must(t->packets[i].status == BH_NO_RESPONSE && !t->packets[i].actual, "a packet that has an outcome");
	}
	must(t->type != BH_ISOCHRONOUS || t->length == t->packet_count * packet, "not as long as its packets");
	must(t->type == BH_ISOCHRONOUS || t->type == BH_BULK || t->type == BH_INTERRUPT, "a transfer of a type nobody asked for");
	must(t->length <= BH_MAX(hostile_limits.batch_bytes, packet) + rest, "a batch larger than allowed");
	must(t->length <= hostile_limits.batch_descriptors * packet + rest, "more packets than allowed");
	must(t->type != BH_INTERRUPT || t->length <= packet + rest, "more than one packet for an interrupt endpoint");
	must(!is_in(t) || (t->length && t->length % packet == 0), "an IN of no whole number of packets");
	must(!is_in(t) || !(t->flags & BH_TRANSFER_ZERO_PACKET), "an IN that ends in a zero-length packet");
}

static bool take(struct hostile_device *d, struct bh_transfer *t)
{
	struct pipe *p = pipe_for(d, t, NULL);

	must(!d->detached, "called after it detached");
	must(!p->transfer, "submitted while another transfer to the endpoint runs");
	check_transfer(d, t);
	p->transfer = t;
	p->cancelled = false;
	p->due_us = UINT64_MAX;
	p->sum = is_in(t) ? 0 : sum_of(t);
	guest_race_point();
	return true;
}

/* Does with the transfer taken what the policy says. */
static void proceed(struct hostile_device *d, struct bh_transfer *t)
{
	struct pipe *p = pipe_for(d, t, t);
	const struct policy *policy = &d->pipes[pipe_of(t)].policy;
	unsigned what = policy->submit & 7;

	if (what == WAKE_AND_END)
		bh_device_wakeup(&d->device);
	if (what == PROGRESS)
		bh_transfer_progress(t, t->length / 2);
	if (what == DETACH_AND_HOLD || what == DETACH_AND_END)
		hostile_device_detach(d);
	if (what == END_LATER)
		p->due_us = hostile_guest.now_us + policy->delay_us;
	if ((what == END || what == WAKE_AND_END || what == DETACH_AND_END || what == END_AND_DETACH) && p->transfer)
		end(d, p, policy->status, policy->actual);
	if (what == END_AND_DETACH)
		hostile_device_detach(d);
}

static void device_submit(struct bh_device *device, struct bh_transfer *t)
{
	take(of_device(device), t);
	proceed(of_device(device), t);
}

static void device_cancel(struct bh_device *device, struct bh_transfer *t)
{
	struct hostile_device *d = of_device(device);
	struct pipe *p = pipe_for(d, t, t);
	const struct policy *policy = &d->pipes[pipe_of(t)].policy;

	must(p->transfer == t, "cancels what does not run");
	must(!p->cancelled, "cancels twice");
	p->cancelled = true;
	p->due_us = UINT64_MAX;
	guest_race_point();
	switch (policy->cancel & 7) {
	case CANCEL_LATER:
		p->due_us = hostile_guest.now_us + policy->delay_us;
		break;
	case CANCEL_NEVER: /* not before it is told to, or reset */
		break;
	case CANCEL_IN_PART:
		end(d, p, BH_CANCELLED, policy->actual);
		break;
	case TOO_LATE:
		end(d, p, BH_SUCCESS, 0);
		break;
	case END_AS_USUAL:
		end(d, p, policy->status, policy->actual);
		break;
	default:
		end(d, p, BH_CANCELLED, 1);
	}
}

static void end_all(struct hostile_device *d)
{
	check_cancelled(d, true, -1);
	for (unsigned i = 0; i < ALL_PIPES; i++)
		if (d->pipes[i].transfer)
			end(d, &d->pipes[i], BH_CANCELLED, d->pipes[endpoint_of(i)].policy.actual);
}

static void device_reset(struct bh_device *device)
{
	struct hostile_device *d = of_device(device);

	must(!d->detached, "called after it detached");
	end_all(d);
	d->configuration = d->alternate = 0;
	configure(d);
}

static void device_set_configuration(struct bh_device *device, uint8_t value, struct bh_transfer *t)
{
	struct hostile_device *d = of_device(device);

	check_cancelled(d, false, -1);
	take(d, t);
	d->configuration = value;
	configure(d);
	proceed(d, t);
}

static void device_set_interface(struct bh_device *device, uint8_t interface, uint8_t alternate,
                                 struct bh_transfer *t)
{
	struct hostile_device *d = of_device(device);

	check_cancelled(d, false, interface);
	take(d, t);
	d->alternate = alternate;
	for (unsigned i = 0; i < 32; i++)
		if (d->endpoints[i].interface == interface)
			d->endpoints[i].max_packet = (uint16_t)(d->endpoints[i].max_packet / 2 + 1);
	proceed(d, t);
}

static void device_clear_halt(struct bh_device *device, uint8_t endpoint, struct bh_transfer *t)
{
	struct hostile_device *d = of_device(device);
	unsigned i = (endpoint & 15u) | (endpoint & BH_ENDPOINT_IN) >> 3;

	must(!d->pipes[i].transfer || d->pipes[i].cancelled, "a transfer should have been cancelled");
	take(d, t);
	proceed(d, t);
}

static const struct bh_endpoint_info *device_endpoint(const struct bh_device *device, uint8_t address)
{
	struct hostile_device *d = of_device(device);
	unsigned i = (address & 15u) | (address & BH_ENDPOINT_IN) >> 3;

	must(!d->detached, "called after it detached");
	must(i & 15, "asked for endpoint 0");
	guest_race_point();
	if (!exists(d, i))
		return NULL;
	d->asked |= 1u << i;
	return &d->endpoints[i];
}

/* For who translates. What it says has nothing to do with what it has. */
static struct bh_descriptors device_descriptors(const struct bh_device *device)
{
#define BOTH_WAYS(number) 7, 5, 0x80 | (number), 2, 0, 2, 0, 7, 5, (number), 2, 0, 2, 0
	static const uint8_t itself[18] = {18, 1, 0, 2, 0, 0, 0, 64}, many[] = {
		9, 2, 9 + 9 + 14 * 14, 0, 1, 1, 0, 0x80, 50,
		9, 4, 0, 0, 28, 8, 6, 0x50, 0,
		BOTH_WAYS(1), BOTH_WAYS(2), BOTH_WAYS(3), BOTH_WAYS(4), BOTH_WAYS(5), BOTH_WAYS(6), BOTH_WAYS(7),
		BOTH_WAYS(8), BOTH_WAYS(9), BOTH_WAYS(10), BOTH_WAYS(11), BOTH_WAYS(12), BOTH_WAYS(13), BOTH_WAYS(14),
	};
	static const uint8_t *const configurations[] = {many};

	must(!of_device(device)->detached, "called after it detached");
	return (struct bh_descriptors){itself, configurations, 1};
}

static void device_suspend(struct bh_device *device, bool suspended)
{
	(void)suspended;
	must(!of_device(device)->detached, "called after it detached");
}

static void device_power_on(struct bh_device *device)
{
	must(!of_device(device)->detached, "called after it detached");
}

static void device_destroy(struct bh_device *device)
{
	struct hostile_device *d = of_device(device);

	end_all(d);
	*d->place = NULL;
	free(d);
}

static const struct bh_device_ops ops = {
	.submit = device_submit,
	.cancel = device_cancel,
	.reset = device_reset,
	.set_configuration = device_set_configuration,
	.set_interface = device_set_interface,
	.clear_halt = device_clear_halt,
	.endpoint = device_endpoint,
	.descriptors = device_descriptors,
	.suspend = device_suspend,
	.power_on = device_power_on,
	.destroy = device_destroy,
};

struct hostile_device *hostile_device_create(struct hostile_device **place, uint8_t flavour)
{
	struct hostile_device *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->device = (struct bh_device){
		.ops = &ops,
		.speed = flavour & 1 ? BH_SPEED_LOW : flavour & 0x10 ? BH_SPEED_HIGH : BH_SPEED_FULL,
		.finishes = flavour & 2,
		.control_max_packet = (uint8_t)(8u << (flavour >> 2 & 3)),
	};
	d->device.verification.what = (enum bh_verify)(hostile_limits.verification % BH_VERIFY_TRACE);
	d->device.verification.when = (enum bh_verify_when)(hostile_limits.verification / 8 % BH_VERIFY_WHEN_COUNT);
	d->place = place;
	d->flavour = flavour;
	d->packets = d->device.speed == BH_SPEED_HIGH ? 8 : 1;
	for (unsigned i = 0; i < PIPES; i++)
		d->pipes[i].policy.delay_us = 1;
	configure(d);
	return d;
}
