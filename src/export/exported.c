/* Between a server and a device: see exported.h. */
#include "exported.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <base/util.h>

#define SET_ADDRESS 5

/* Isochronous transfers that the device may have at a time: what the bus gives it, too. */
#define STARTED_MOST 8u

/* So early they may begin, for the device to have the next one before it is through with the last. */
#define AHEAD_US 40000u

static struct bh_list *queue_of(struct bh_exported *e, const struct bh_transfer *t)
{
	return t->type == BH_CONTROL ? &e->endpoints[0][0] : &e->endpoints[t->endpoint >> 7][t->endpoint & 15];
}

static bool is_periodic(const struct bh_transfer *t)
{
	return t->type == BH_INTERRUPT || t->type == BH_ISOCHRONOUS;
}

/* --- requests -------------------------------------------------------------------------------- */

struct bh_export_request *bh_exported_request(struct bh_exported *e, uint32_t length, uint32_t packets)
{
	struct bh_export_request *r;

	if (length > BH_EXPORT_LENGTH || packets > BH_EXPORT_PACKETS || e->requests >= BH_EXPORT_REQUESTS ||
	    e->bytes + length > BH_EXPORT_BYTES)
		return NULL;
	r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	bh_list_init(&r->link);
	r->exported = e;
	r->data = calloc(1, length ? length : 1);
	r->packets = calloc(packets ? packets : 1, sizeof(*r->packets));
	if (!r->data || !r->packets) {
		free(r->data);
		free(r->packets);
		free(r);
		return NULL;
	}
	r->span = (struct iovec){.iov_base = r->data, .iov_len = length};
	r->transfer = (struct bh_transfer){
		.spans = &r->span, .span_count = 1, .length = length, .packets = r->packets, .packet_count = packets};
	r->bytes = length;
	e->requests++;
	e->bytes += length;
	return r;
}

void bh_export_request_free(struct bh_export_request *r)
{
	bh_list_remove(&r->link);
	r->exported->requests--;
	r->exported->bytes -= r->bytes;
	free(r->data);
	free(r->packets);
	free(r);
}

static void start_more(struct bh_exported *e, struct bh_list *queue);

static void end(struct bh_export_request *r, enum bh_status status)
{
	struct bh_exported *e = r->exported;
	struct bh_list *queue = queue_of(e, &r->transfer);

	bh_list_remove(&r->link);
	if (e->ops)
		e->ops->ended(r, status);
	bh_export_request_free(r);
	start_more(e, queue);
}

/* --- what a request changes --------------------------------------------------------------------- */

/* Ends what is under way on the endpoints of an interface, or of all (-1), which are going to be others. */
static void cancel_interface(struct bh_exported *e, int interface)
{
	e->configuring = true;
	for (unsigned i = 0; i < e->settings.endpoint_count; i++)
		if (interface < 0 || e->settings.endpoints[i].interface == interface)
			bh_exported_cancel_endpoint(e, e->settings.endpoints[i].address);
}

static void before_request(struct bh_exported *e, const struct bh_setup *s)
{
	switch (bh_device_operation(e->device, s)) {
	case BH_OPERATION_SUBMIT:
		break;
	case BH_OPERATION_SET_CONFIGURATION:
		cancel_interface(e, -1);
		break;
	case BH_OPERATION_SET_INTERFACE:
		cancel_interface(e, s->wIndex.b[0]);
		break;
	case BH_OPERATION_CLEAR_HALT:
		bh_exported_cancel_endpoint(e, s->wIndex.b[0]);
		break;
	}
}

static void after_request(struct bh_exported *e, const struct bh_setup *s)
{
	if (s->bmRequestType == 0x00 && s->bRequest == 9)
		bh_settings_configure(&e->settings, s->wValue.b[0]);
	else if (s->bmRequestType == 0x01 && s->bRequest == 11)
		bh_settings_set_interface(&e->settings, s->wIndex.b[0], s->wValue.b[0]);
}

/* --- time ------------------------------------------------------------------------------------------ */

static uint64_t now_us(void)
{
	return uv_hrtime() / 1000;
}

static struct bh_pace *pace_of(struct bh_exported *e, const struct bh_transfer *t)
{
	return &e->paces[t->endpoint >> 7][t->endpoint & 15];
}

static void timer_fired(uv_timer_t *timer);

static void wait_until(struct bh_exported *e, uint64_t at_us, uint64_t now)
{
	uint64_t wait = at_us > now ? (at_us - now + 999) / 1000 : 0;

	if (!uv_is_active((uv_handle_t *)e->timer) || uv_timer_get_due_in(e->timer) > wait) {
		uv_update_time(e->loop);
		uv_timer_start(e->timer, timer_fired, wait, 0);
	}
}

/* Is its turn due? If not, it will be looked at again. */
static bool is_due(struct bh_exported *e, const struct bh_export_request *r)
{
	const struct bh_transfer *t = &r->transfer;
	uint64_t now = now_us(), at;

	if (!is_periodic(t))
		return true;
	at = pace_of(e, t)->next_us;
	if (t->type == BH_ISOCHRONOUS)
		at -= BH_MIN(at, AHEAD_US);
	if (at <= now)
		return true;
	wait_until(e, at, now);
	return false;
}

/* An isochronous transfer has its intervals whatever comes of it, an interrupt one those of what moved. */
static void spend_time(struct bh_export_request *r)
{
	const struct bh_transfer *t = &r->transfer;

	r->begun_us = now_us();
	if (t->type == BH_ISOCHRONOUS)
		bh_pace_queue(pace_of(r->exported, t), r->begun_us, r->interval_us, t->packet_count);
}

static void spend_interrupt_time(struct bh_export_request *r)
{
	const struct bh_transfer *t = &r->transfer;

	if (t->type == BH_INTERRUPT)
		bh_pace_end(pace_of(r->exported, t), r->begun_us, now_us(), r->interval_us,
		            (t->actual + r->max_packet - 1) / r->max_packet);
}

/* --- carrying -------------------------------------------------------------------------------------- */

static void start_all(struct bh_exported *e);

static void transfer_done(struct bh_transfer *t, enum bh_status status)
{
	struct bh_export_request *r = t->submitter_data;
	struct bh_exported *e = r->exported;
	bool configured = false;

	t->actual = BH_MIN(t->actual, t->length);
	for (unsigned i = 0; i < t->packet_count; i++)
		r->packets[i].actual = BH_MIN(r->packets[i].actual, r->packets[i].length);
	if (t->type == BH_CONTROL) {
		if (status == BH_SUCCESS)
			after_request(e, &t->setup);
		configured = e->configuring;
		e->configuring = false;
	}
	spend_interrupt_time(r);
	end(r, status);
	if (configured)
		start_all(e);
}

static void start(struct bh_export_request *r)
{
	struct bh_exported *e = r->exported;
	struct bh_transfer *t = &r->transfer;

	r->started = true;
	spend_time(r);
	t->done = transfer_done;
	t->submitter_data = r;
	if (t->type != BH_CONTROL) {
		bh_device_submit(e->device, t);
	} else if (t->setup.bmRequestType == 0x00 && t->setup.bRequest == SET_ADDRESS) {
		bh_transfer_done(t, BH_SUCCESS, 0); /* the client's bus has addresses of its own */
	} else {
		before_request(e, &t->setup);
		bh_device_request(e->device, t);
	}
}

/* How many of the queue the device has; and the first that it has not. */
static unsigned count_started(const struct bh_list *queue, struct bh_export_request **ret_next)
{
	unsigned n = 0;

	*ret_next = NULL;
	bh_list_each(r, (struct bh_list *)queue, struct bh_export_request, link) {
		if (!r->started) {
			*ret_next = r;
			break;
		}
		n++;
	}
	return n;
}

/* Of the settings as they are now, which may be others than when it was asked for. */
static bool fits(struct bh_export_request *r)
{
	const struct bh_transfer *t = &r->transfer;
	const struct bh_endpoint_info *info;

	if (t->type == BH_CONTROL)
		return true;
	info = t->endpoint & 15 ? bh_settings_endpoint(&r->exported->settings, t->endpoint) : NULL;
	if (!info || info->type != t->type || !t->packet_count != (t->type != BH_ISOCHRONOUS))
		return false;
	for (unsigned i = 0; i < t->packet_count; i++)
		if (r->packets[i].length > info->max_packet)
			return false;
	r->max_packet = info->max_packet;
	r->interval_us = bh_pace_interval(info, r->exported->device->speed);
	return t->type == BH_ISOCHRONOUS || !(t->endpoint & BH_ENDPOINT_IN) || t->length % info->max_packet == 0;
}

/* May more of this queue begin? While settings change, nobody knows what its endpoint will be. */
static bool may_start(const struct bh_exported *e, const struct bh_export_request *r)
{
	return e->there && !e->held && (r->transfer.type == BH_CONTROL || !e->configuring);
}

static void start_more(struct bh_exported *e, struct bh_list *queue)
{
	struct bh_export_request *next;
	unsigned started;

	while (started = count_started(queue, &next), next && may_start(e, next)) {
		unsigned most = next->transfer.type == BH_ISOCHRONOUS ? STARTED_MOST : 1;

		if (!fits(next)) {
			end(next, BH_STALL);
			continue;
		}
		if (started >= most || !is_due(e, next))
			return;
		start(next);
	}
}

static void start_all(struct bh_exported *e)
{
	for (unsigned i = 0; i < 32; i++)
		start_more(e, &e->endpoints[i / 16][i % 16]);
}

static void ask(struct bh_exported *e);

static void timer_fired(uv_timer_t *timer)
{
	struct bh_exported *e = timer->data;

	if (e->asked_anew && !e->asked)
		ask(e);
	start_all(e);
}

void bh_exported_submit(struct bh_exported *e, struct bh_export_request *r)
{
	struct bh_list *queue = queue_of(e, &r->transfer);

	bh_list_append(queue, &r->link);
	if (!e->there)
		end(r, BH_NO_RESPONSE);
	else
		start_more(e, queue);
}

void bh_exported_cancel(struct bh_exported *e, struct bh_export_request *r)
{
	if (!r->started) {
		end(r, BH_CANCELLED);
	} else if (!r->cancelled) {
		r->cancelled = true;
		bh_device_cancel(e->device, &r->transfer);
	}
}

static struct bh_export_request *first_to_cancel(const struct bh_list *queue)
{
	bh_list_each(r, queue, struct bh_export_request, link)
		if (r->started && !r->cancelled)
			return r;
	return NULL;
}

/*
 * One after the other, for one that ends may take others with it. What is asked for meanwhile waits:
 * it is not to be cancelled, or a server that asks again whenever something ends would keep us for ever.
 */
static void cancel_queue(struct bh_exported *e, struct bh_list *queue)
{
	struct bh_list waiting = {&waiting, &waiting};
	struct bh_export_request *r;

	e->held++;
	while (count_started(queue, &r), r) {
		bh_list_remove(&r->link);
		bh_list_append(&waiting, &r->link);
	}
	while (!bh_list_empty(&waiting))
		end(bh_container_of(waiting.next, struct bh_export_request, link), BH_CANCELLED);
	while ((r = first_to_cancel(queue)))
		bh_exported_cancel(e, r);
	e->held--;
}

void bh_exported_cancel_endpoint(struct bh_exported *e, uint8_t endpoint)
{
	struct bh_list *queue = &e->endpoints[endpoint >> 7][endpoint & 15];

	cancel_queue(e, queue);
	start_more(e, queue);
}

uint32_t bh_exported_in_length(struct bh_exported *e, uint8_t endpoint, uint32_t asked)
{
	const struct bh_endpoint_info *info = bh_device_endpoint(e->device, endpoint);

	if (!info || asked > BH_EXPORT_LENGTH)
		return asked;
	return BH_MAX((asked + info->max_packet - 1) / info->max_packet, 1u) * info->max_packet;
}

enum bh_status bh_export_request_cut(struct bh_export_request *r, enum bh_status status)
{
	if (r->transfer.actual <= r->asked)
		return status;
	r->transfer.actual = r->asked;
	return BH_BABBLE;
}

struct bh_export_request *bh_exported_find(struct bh_exported *e, uint64_t id)
{
	for (unsigned i = 0; i < 32; i++)
		bh_list_each(r, &e->endpoints[i / 16][i % 16], struct bh_export_request, link)
			if (r->id == id)
				return r;
	return NULL;
}

static void cancel_all(struct bh_exported *e)
{
	for (unsigned i = 0; i < 32; i++)
		cancel_queue(e, &e->endpoints[i / 16][i % 16]);
}

void bh_exported_reset(struct bh_exported *e)
{
	cancel_all(e);
	e->configuring = false;
	if (!e->there)
		return;
	bh_device_reset(e->device); /* ends what it still has */
	bh_settings_configure(&e->settings, 0);
	memset(e->paces, 0, sizeof(e->paces));
}

/* --- the device comes and goes ------------------------------------------------------------------------ */

static void probed(struct bh_probe *p, int error)
{
	struct bh_exported *e = bh_container_of(p, struct bh_exported, probe);

	e->asked = false;
	if (e->gone)
		return;
	if (error) { /* one that makes no sense is not offered; one that went, and came back meanwhile, is asked */
		if (e->asked_anew)
			uv_timer_start(e->timer, timer_fired, 0, 0);
		return;
	}
	bh_settings_init(&e->settings, p->configurations, p->count);
	e->there = true;
	e->ops->arrived(e);
}

static void ask(struct bh_exported *e)
{
	bh_device_reset(e->device);
	e->asked = true;
	e->asked_anew = false;
	bh_probe_start(&e->probe, e->device, probed);
}

void bh_exported_begin(struct bh_exported *e)
{
	if (!e->device->sticky)
		ask(e);
}

/* A sticky one that was asked by real.c before; it is asked again, for what we have to tell. */
static int device_attached(struct bh_device *d)
{
	struct bh_exported *e = d->bus_data;

	if (!e->there && !e->asked)
		ask(e);
	else if (!e->there)
		e->asked_anew = true;
	return 0;
}

static void device_detached(struct bh_device *d)
{
	struct bh_exported *e = d->bus_data;
	bool was = e->there;

	e->there = e->asked_anew = false;
	e->gone |= !d->sticky;
	bh_probe_stop(&e->probe);
	cancel_all(e);
	e->configuring = false;
	bh_settings_init(&e->settings, NULL, 0);
	if (!e->asked)
		bh_probe_finish(&e->probe);
	if (was || e->gone)
		e->ops->departed(e, e->gone);
}

static void device_wakeup(struct bh_device *d)
{
	(void)d; /* nobody sleeps here */
}

/* A hub is not exported. */
static const struct bh_device_upcalls upcalls = {
	.attached = device_attached,
	.detached = device_detached,
	.wakeup = device_wakeup,
};

int bh_exported_init(struct bh_exported *e, uv_loop_t *loop, struct bh_device *d, const struct bh_exported_ops *ops,
                     void *owner)
{
	e->device = d;
	e->ops = ops;
	e->owner = owner;
	e->loop = loop;
	for (unsigned i = 0; i < 32; i++)
		bh_list_init(&e->endpoints[i / 16][i % 16]);
	e->timer = malloc(sizeof(*e->timer));
	if (!e->timer)
		return -ENOMEM;
	uv_timer_init(loop, e->timer);
	e->timer->data = e;
	d->upcalls = &upcalls;
	d->bus_data = e;
	return 0;
}

static void free_handle(uv_handle_t *h)
{
	free(h);
}

void bh_exported_finish(struct bh_exported *e)
{
	if (!e->device)
		return;
	e->ops = NULL;
	e->gone = true;
	bh_exported_reset(e);
	if (e->asked)
		bh_device_reset(e->device); /* ends that, too */
	e->there = false;
	e->device->upcalls = NULL;
	if (e->timer)
		uv_close((uv_handle_t *)e->timer, free_handle);
	bh_probe_finish(&e->probe);
	e->device = NULL;
}
