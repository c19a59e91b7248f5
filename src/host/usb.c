/*
 * A device of this host, by libusb: see host/usb.h.
 *
 *   SEARCHING --found, or passed in--> OPENING --taken--> TAKEN --gone, refused, destroyed--> LEAVING
 *      ^                                  | not to be had                                       |
 *      '----------------------------------+--------------- nothing is under way any more -------'
 *
 * Each batch, control request or list of isochronous packets becomes one libusb transfer. What
 * may wait is a job for the thread pool (usb_jobs.c); while there are jobs, transfers wait, so
 * that everything reaches the device in the guest's order.
 */
#include "usb_private.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <base/util.h>

/* How often it is searched for, and looked whether it is still there. */
#define LOOK_MS 500u

/* A guest that resets its port again and again does not queue more than that. */
#define MOST_JOBS 16u

#define CONTROL_MOST 4096u /* libusb's limit of a data stage */

/* 1024 bytes at the 19 packets of 64 bytes that a full-speed frame has room for (USB 2.0, table 5-9). */
#define FULL_SPEED_US_PER_KIB 842u

#define GET_CONFIGURATION 8

static struct bh_usb *to_usb(const struct bh_device *d)
{
	return (struct bh_usb *)bh_container_of(d, struct bh_usb, real.device);
}

/* --- how things end -------------------------------------------------------------------------- */

static enum bh_status status_of(enum libusb_transfer_status s)
{
	switch (s) {
	case LIBUSB_TRANSFER_COMPLETED:
		return BH_SUCCESS;
	case LIBUSB_TRANSFER_STALL:
		return BH_STALL;
	case LIBUSB_TRANSFER_OVERFLOW:
		return BH_BABBLE;
	case LIBUSB_TRANSFER_CANCELLED:
		return BH_CANCELLED;
	case LIBUSB_TRANSFER_TIMED_OUT:
	case LIBUSB_TRANSFER_NO_DEVICE:
		return BH_NO_RESPONSE;
	case LIBUSB_TRANSFER_ERROR:
		break;
	}
	return BH_BUS_ERROR;
}

/* Of a transfer that could not be begun, or an operation. */
static enum bh_status status_of_error(int error)
{
	switch (error) {
	case LIBUSB_ERROR_NOT_FOUND:
	case LIBUSB_ERROR_INVALID_PARAM:
	case LIBUSB_ERROR_NOT_SUPPORTED:
	case LIBUSB_ERROR_PIPE:
		return BH_STALL;
	case LIBUSB_ERROR_IO:
	case LIBUSB_ERROR_OVERFLOW:
		return BH_BUS_ERROR;
	}
	return BH_NO_RESPONSE; /* gone, silent, or out of memory: nothing was sent */
}

static void done(struct bh_usb *u, struct bh_transfer *t, enum bh_status status, uint32_t actual)
{
	u->counters.errors += status != BH_SUCCESS && status != BH_CANCELLED;
	bh_transfer_done(t, status, actual);
}

static void end_waiting(struct bh_usb *u, enum bh_status status)
{
	while (!bh_list_empty(&u->waiting)) {
		struct bh_transfer *t = bh_container_of(u->waiting.next, struct bh_transfer, device_link);

		bh_list_remove(&t->device_link);
		done(u, t, status, 0);
	}
}

/* Every transfer that is still ours, at once; what is in libusb's hands is cancelled, an orphan. */
static void end_all(struct bh_usb *u, enum bh_status status)
{
	bh_list_each(urb, &u->urbs, struct bh_urb, link) {
		struct bh_transfer *t = urb->transfer;

		urb->transfer = NULL;
		if (!urb->cancelled)
			libusb_cancel_transfer(urb->libusb);
		urb->cancelled = true;
		if (t)
			done(u, t, status, 0);
	}
	bh_list_each(j, &u->jobs, struct bh_usb_job, link) {
		struct bh_transfer *t = j->transfer;

		j->transfer = NULL;
		if (t)
			done(u, t, status, 0);
	}
	end_waiting(u, status);
}

/* --- jobs ---------------------------------------------------------------------------------------- */

static void start(struct bh_usb *u, struct bh_transfer *t);
static void job_done(struct bh_usb_job *j);

static void work(uv_work_t *w)
{
	bh_usb_work(bh_container_of(w, struct bh_usb_job, work));
}

static void worked(uv_work_t *w, int status)
{
	struct bh_usb_job *j = bh_container_of(w, struct bh_usb_job, work);
	struct bh_usb *u = j->usb;

	(void)status;
	bh_list_remove(&j->link);
	if (!bh_list_empty(&u->jobs)) {
		struct bh_usb_job *next = bh_container_of(u->jobs.next, struct bh_usb_job, link);

		uv_queue_work(u->loop, &next->work, work, worked);
	}
	job_done(j);
}

/* Those that waited for the jobs; each may bring about more of them. */
static void start_waiting(struct bh_usb *u)
{
	while (u->state == BH_USB_TAKEN && bh_list_empty(&u->jobs) && !bh_list_empty(&u->waiting)) {
		struct bh_transfer *t = bh_container_of(u->waiting.next, struct bh_transfer, device_link);

		bh_list_remove(&t->device_link);
		start(u, t);
	}
}

static bool too_many_jobs(const struct bh_usb *u)
{
	unsigned n = 0;

	bh_list_each(j, (struct bh_list *)&u->jobs, struct bh_usb_job, link)
		n++;
	return n >= MOST_JOBS;
}

static void add_job(struct bh_usb *u, struct bh_usb_job what)
{
	struct bh_usb_job *j = malloc(sizeof(*j));

	if (!j) {
		if (what.transfer)
			done(u, what.transfer, BH_NO_RESPONSE, 0);
		return;
	}
	*j = what;
	j->usb = u;
	bh_list_append(&u->jobs, &j->link);
	if (u->jobs.next == &j->link)
		uv_queue_work(u->loop, &j->work, work, worked);
}

/* --- searching, taking, leaving --------------------------------------------------------------------- */

static void finish(struct bh_usb *u);

static void look_again(struct bh_usb *u);

static const char *reason(int error)
{
	switch (error) {
	case LIBUSB_ERROR_BUSY:
		return "another program uses it; end that";
	case LIBUSB_ERROR_NO_DEVICE:
		return "it is gone again";
	case LIBUSB_ERROR_NO_MEM:
		return "out of memory";
	}
	return libusb_error_name(error);
}

/* Once for each reason, for it is tried again and again. */
static void say_failed(struct bh_usb *u, int error)
{
	u->counters.refused++;
	if (u->said == error || u->destroyed)
		return;
	u->said = error;
	if (error == LIBUSB_ERROR_ACCESS && !u->passed)
		bh_real_say(&u->real, "may not open %s; a udev rule that lets us: SUBSYSTEM==\"usb\", ATTR{idVendor}==\"%04x\", "
		            "ATTR{idProduct}==\"%04x\", MODE=\"0660\", GROUP=\"plugdev\"", u->handle.node, u->found.vendor,
		            u->found.product);
	else
		bh_real_say(&u->real, "cannot take it: %s", reason(error));
}

static void open_it(struct bh_usb *u)
{
	u->state = BH_USB_OPENING;
	add_job(u, (struct bh_usb_job){.what = BH_USB_OPEN});
	if (bh_list_empty(&u->jobs))
		look_again(u); /* out of memory */
}

static void open_found(struct bh_usb *u, const struct bh_usb_found *f)
{
	u->found = *f;
	snprintf(u->real.name, sizeof(u->real.name), "usb %s", f->name);
	u->handle.vendor = f->vendor;
	u->handle.product = f->product;
	bh_usb_node(f, u->handle.node);
	open_it(u);
}

/* A search has ended. */
static void searched(struct bh_usb *u)
{
	const struct bh_usb_search *s = &u->sought;

	u->ignored = s->ignored;
	if (!s->fit || u->destroyed) {
		look_again(u);
		return;
	}
	if (s->fit > 1 && !u->said_many)
		bh_real_say(&u->real, "%zu devices fit; the first is taken: %s", s->fit, s->first.name);
	u->said_many = true;
	open_found(u, &s->first);
}

/* What a passed descriptor stood for does not come back. */
static void gone_for_good(struct bh_usb *u)
{
	u->real.device.sticky = false;
	bh_device_detach(&u->real.device);
}

static void look_again(struct bh_usb *u)
{
	u->state = BH_USB_SEARCHING;
	if (u->destroyed)
		finish(u);
	else if (u->passed)
		gone_for_good(u);
}

/* When nothing is under way any more, the device is let go of. */
static void let_go(struct bh_usb *u)
{
	if (u->state == BH_USB_LEAVING && bh_list_empty(&u->urbs) && bh_list_empty(&u->jobs))
		add_job(u, (struct bh_usb_job){.what = BH_USB_LEAVE});
}

static void depart(struct bh_usb *u, const char *why)
{
	if (u->state != BH_USB_TAKEN)
		return;
	u->state = BH_USB_LEAVING;
	bh_real_departed(&u->real, why);
	end_all(u, BH_NO_RESPONSE);
	let_go(u);
}

static void opened(struct bh_usb *u, int error)
{
	if (error) {
		say_failed(u, error);
		look_again(u);
		return;
	}
	u->state = BH_USB_TAKEN;
	u->said = 0;
	u->fresh = false;
	if (u->destroyed) {
		depart(u, NULL);
		return;
	}
	bh_real_arrived(&u->real, u->handle.speed);
}

/* It is not shown, and real.c has said why. */
static void refused(struct bh_real *r)
{
	struct bh_usb *u = bh_container_of(r, struct bh_usb, real);

	u->ignored = true;
	depart(u, NULL);
}

static const struct bh_real_ops real_ops = {.refused = refused};

/* Is what we have taken unplugged? Its node tells, and /sys, where a device that came after it may have its place. */
static bool is_gone(const struct bh_usb *u)
{
	struct pollfd p = {.fd = u->handle.fd, .events = 0};

	return (poll(&p, 1, 0) == 1 && p.revents & POLLHUP) || (!u->passed && !bh_usb_is_there(&u->found));
}

static void look(uv_timer_t *timer)
{
	struct bh_usb *u = timer->data;

	switch (u->state) {
	case BH_USB_SEARCHING:
		if (!u->passed && bh_list_empty(&u->jobs))
			add_job(u, (struct bh_usb_job){.what = BH_USB_SEARCH});
		break;
	case BH_USB_TAKEN:
		if (bh_list_empty(&u->jobs) && is_gone(u))
			depart(u, "it was unplugged");
		break;
	case BH_USB_OPENING:
	case BH_USB_LEAVING:
		break;
	}
}

/* --- what came of a job --------------------------------------------------------------------------------- */

static void operation_done(struct bh_usb *u, const struct bh_usb_job *j)
{
	struct bh_transfer *t = j->transfer;

	if (t && !j->result) {
		if (j->what == BH_USB_CONFIGURE)
			bh_settings_configure(&u->real.settings, j->value);
		else if (j->what == BH_USB_SET_INTERFACE)
			bh_settings_set_interface(&u->real.settings, j->interface, j->value);
	}
	if (t)
		done(u, t, j->result ? status_of_error(j->result) : BH_SUCCESS, 0);
	if (j->result == LIBUSB_ERROR_NO_DEVICE)
		depart(u, "it was unplugged");
	else if (j->result && j->what == BH_USB_RESET)
		bh_real_say(&u->real, "cannot be reset: %s", libusb_error_name(j->result));
}

static void job_done(struct bh_usb_job *j)
{
	struct bh_usb *u = j->usb;
	struct bh_usb_job was = *j;

	free(j);
	switch (was.what) {
	case BH_USB_SEARCH:
		searched(u);
		return;
	case BH_USB_OPEN:
		opened(u, was.result);
		return;
	case BH_USB_LEAVE:
		look_again(u);
		return;
	case BH_USB_CONFIGURE:
	case BH_USB_SET_INTERFACE:
	case BH_USB_CLEAR_HALT:
	case BH_USB_RESET:
		break;
	}
	operation_done(u, &was);
	start_waiting(u);
	let_go(u);
}

/* --- transfers --------------------------------------------------------------------------------------------- */

static void urb_free(struct bh_urb *urb)
{
	if (urb->libusb)
		libusb_free_transfer(urb->libusb); /* and the buffer */
	free(urb);
}

static struct bh_urb *urb_create(struct bh_usb *u, struct bh_transfer *t, size_t size)
{
	struct bh_urb *urb = calloc(1, sizeof(*urb));

	if (!urb)
		return NULL;
	urb->usb = u;
	urb->transfer = t;
	urb->libusb = libusb_alloc_transfer((int)t->packet_count);
	if (urb->libusb) {
		urb->libusb->flags = LIBUSB_TRANSFER_FREE_BUFFER;
		urb->libusb->buffer = malloc(size ? size : 1);
	}
	if (!urb->libusb || !urb->libusb->buffer) {
		urb_free(urb);
		return NULL;
	}
	return urb;
}

static bool is_in(const struct bh_transfer *t)
{
	return (t->type == BH_CONTROL ? t->setup.bmRequestType : t->endpoint) & BH_ENDPOINT_IN;
}

/* The bytes of its data stage that libusb is asked for. */
static uint32_t control_length(const struct bh_transfer *t)
{
	return BH_MIN(t->length, CONTROL_MOST);
}

static void fill_control(struct bh_urb *urb, const struct bh_transfer *t)
{
	struct libusb_transfer *l = urb->libusb;
	struct bh_setup setup = t->setup;

	setup.wLength = bh_put_le16((uint16_t)control_length(t));
	memcpy(l->buffer, &setup, sizeof(setup));
	if (!is_in(t))
		bh_transfer_read(t, 0, l->buffer + sizeof(setup), t->length);
	libusb_fill_control_transfer(l, urb->usb->handle.libusb, l->buffer, bh_usb_events_callback, urb, 0);
}

static void fill_isochronous(struct bh_urb *urb, const struct bh_transfer *t)
{
	struct libusb_transfer *l = urb->libusb;
	uint32_t at = 0;

	for (unsigned i = 0; i < t->packet_count; i++) {
		const struct bh_packet *p = &t->packets[i];

		l->iso_packet_desc[i].length = p->length;
		if (!is_in(t))
			bh_transfer_read(t, p->offset, l->buffer + at, p->length);
		at += p->length;
	}
	libusb_fill_iso_transfer(l, urb->usb->handle.libusb, t->endpoint, l->buffer, (int)at, (int)t->packet_count,
	                         bh_usb_events_callback, urb, 0);
}

static void fill_bulk(struct bh_urb *urb, const struct bh_transfer *t)
{
	struct libusb_transfer *l = urb->libusb;

	if (!is_in(t))
		bh_transfer_read(t, 0, l->buffer, t->length);
	libusb_fill_bulk_transfer(l, urb->usb->handle.libusb, t->endpoint, l->buffer, (int)t->length, bh_usb_events_callback,
	                          urb, 0);
	l->type = t->type == BH_INTERRUPT ? LIBUSB_TRANSFER_TYPE_INTERRUPT : LIBUSB_TRANSFER_TYPE_BULK;
	if (!is_in(t) && t->flags & BH_TRANSFER_ZERO_PACKET && t->length)
		l->flags |= LIBUSB_TRANSFER_ADD_ZERO_PACKET;
}

static void fill(struct bh_urb *urb, const struct bh_transfer *t)
{
	switch (t->type) {
	case BH_CONTROL:
		fill_control(urb, t);
		break;
	case BH_ISOCHRONOUS:
		fill_isochronous(urb, t);
		break;
	case BH_BULK:
	case BH_INTERRUPT:
		fill_bulk(urb, t);
		break;
	}
}

static size_t buffer_size(const struct bh_transfer *t)
{
	return t->type == BH_CONTROL ? sizeof(t->setup) + control_length(t) : t->length;
}

static void start(struct bh_usb *u, struct bh_transfer *t)
{
	struct bh_urb *urb;
	int r;

	if (t->type == BH_CONTROL && !is_in(t) && t->length > CONTROL_MOST) {
		done(u, t, BH_STALL, 0);
		return;
	}
	urb = urb_create(u, t, buffer_size(t));
	if (!urb) {
		done(u, t, BH_NO_RESPONSE, 0);
		return;
	}
	fill(urb, t);
	r = libusb_submit_transfer(urb->libusb);
	if (r) {
		urb_free(urb);
		done(u, t, status_of_error(r), 0);
		if (r == LIBUSB_ERROR_NO_DEVICE)
			depart(u, "it was unplugged");
		return;
	}
	t->device_data = urb;
	bh_list_append(&u->urbs, &urb->link);
	u->counters.transfers++;
}

/* Of a data stage longer than libusb carries, this was perhaps not all. */
static enum bh_status control_status(const struct bh_transfer *t, enum bh_status status, uint32_t actual)
{
	return status == BH_SUCCESS && t->length > CONTROL_MOST && actual == CONTROL_MOST ? BH_STALL : status;
}

static void take_packets(struct bh_usb *u, struct bh_urb *urb, struct bh_transfer *t)
{
	uint32_t at = 0;

	for (unsigned i = 0; i < t->packet_count; i++) {
		struct libusb_iso_packet_descriptor *d = &urb->libusb->iso_packet_desc[i];
		struct bh_packet *p = &t->packets[i];

		p->status = status_of(d->status);
		if (p->status == BH_CANCELLED || urb->libusb->status == LIBUSB_TRANSFER_NO_DEVICE)
			p->status = BH_NO_RESPONSE;
		p->actual = p->status == BH_SUCCESS ? BH_MIN(d->actual_length, p->length) : 0;
		if (is_in(t))
			bh_transfer_write(t, p->offset, urb->libusb->buffer + at, p->actual);
		*(is_in(t) ? &u->counters.bytes_in : &u->counters.bytes_out) += p->actual;
		at += p->length;
	}
}

/* It has ended, and so does the guest's. */
static void take(struct bh_usb *u, struct bh_urb *urb, struct bh_transfer *t)
{
	struct libusb_transfer *l = urb->libusb;
	uint32_t actual = BH_MIN((uint32_t)BH_MAX(l->actual_length, 0), t->length);
	enum bh_status status = status_of(l->status);
	const uint8_t *data = l->buffer;

	if (t->type == BH_ISOCHRONOUS) {
		take_packets(u, urb, t);
		done(u, t, status == BH_CANCELLED ? BH_CANCELLED : BH_SUCCESS, 0);
		return;
	}
	if (t->type == BH_CONTROL) {
		actual = BH_MIN(actual, control_length(t));
		status = control_status(t, status, actual);
		data += sizeof(t->setup);
	}
	if (is_in(t))
		bh_transfer_write(t, 0, data, actual);
	*(is_in(t) ? &u->counters.bytes_in : &u->counters.bytes_out) += actual;
	done(u, t, status, actual);
}

static void urb_ended(struct bh_urb *urb)
{
	struct bh_usb *u = urb->usb;
	struct bh_transfer *t = urb->transfer;
	bool gone = urb->libusb->status == LIBUSB_TRANSFER_NO_DEVICE;

	bh_list_remove(&urb->link);
	urb->transfer = NULL;
	if (t)
		take(u, urb, t);
	urb_free(urb);
	if (gone)
		depart(u, "it was unplugged");
	let_go(u);
}

/* --- the device's operations ---------------------------------------------------------------------------------- */

/* Reading what it is does nothing to it. */
static bool only_reads(const struct bh_transfer *t)
{
	return t->type == BH_CONTROL && t->setup.bmRequestType == 0x80;
}

static void usb_submit(struct bh_device *d, struct bh_transfer *t)
{
	struct bh_usb *u = to_usb(d);

	t->device_data = NULL;
	if (u->state != BH_USB_TAKEN) {
		done(u, t, BH_NO_RESPONSE, 0);
		return;
	}
	if (only_reads(t) && t->setup.bRequest == GET_CONFIGURATION && t->length) {
		bh_transfer_write(t, 0, &u->real.settings.configuration, 1); /* the guest's, which has seen a reset */
		done(u, t, BH_SUCCESS, 1);
		return;
	}
	u->fresh &= only_reads(t);
	if (bh_list_empty(&u->jobs))
		start(u, t);
	else
		bh_list_append(&u->waiting, &t->device_link);
}

static bool is_waiting(const struct bh_usb *u, const struct bh_transfer *t)
{
	bh_list_each(w, (struct bh_list *)&u->waiting, struct bh_transfer, device_link)
		if (w == t)
			return true;
	return false;
}

static void usb_cancel(struct bh_device *d, struct bh_transfer *t)
{
	struct bh_usb *u = to_usb(d);
	struct bh_urb *urb = t->device_data;

	u->counters.cancels++;
	if (is_waiting(u, t)) {
		bh_list_remove(&t->device_link);
		done(u, t, BH_CANCELLED, 0);
	} else if (u->state != BH_USB_TAKEN) {
		end_all(u, BH_NO_RESPONSE); /* it has departed: this one among all */
	} else if (urb && !urb->cancelled) {
		urb->cancelled = true;
		libusb_cancel_transfer(urb->libusb); /* too late: then it has ended, and we will hear of it */
	}
	/* A job cannot be called back, and ends soon. */
}

static void usb_reset(struct bh_device *d)
{
	struct bh_usb *u = to_usb(d);

	end_all(u, BH_CANCELLED);
	bh_settings_configure(&u->real.settings, 0);
	if (u->fresh || u->no_reset || u->state != BH_USB_TAKEN || too_many_jobs(u))
		return;
	u->fresh = true;
	u->counters.resets++;
	add_job(u, (struct bh_usb_job){.what = BH_USB_RESET});
}

static void operate(struct bh_usb *u, struct bh_usb_job what)
{
	what.transfer->device_data = NULL;
	u->fresh = false;
	if (u->state != BH_USB_TAKEN || too_many_jobs(u))
		done(u, what.transfer, BH_NO_RESPONSE, 0);
	else
		add_job(u, what);
}

static void usb_set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	operate(to_usb(d), (struct bh_usb_job){.what = BH_USB_CONFIGURE, .value = value, .transfer = t});
}

static void usb_set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate, struct bh_transfer *t)
{
	operate(to_usb(d), (struct bh_usb_job){
		.what = BH_USB_SET_INTERFACE, .interface = interface, .value = alternate, .transfer = t});
}

static void usb_clear_halt(struct bh_device *d, uint8_t endpoint, struct bh_transfer *t)
{
	operate(to_usb(d), (struct bh_usb_job){.what = BH_USB_CLEAR_HALT, .value = endpoint, .transfer = t});
}

static void usb_destroy(struct bh_device *d)
{
	bh_usb_close(d, NULL, NULL);
}

static const struct bh_device_ops ops = {
	.submit = usb_submit,
	.cancel = usb_cancel,
	.reset = usb_reset,
	.set_configuration = usb_set_configuration,
	.set_interface = usb_set_interface,
	.clear_halt = usb_clear_halt,
	.refuses = bh_real_refuses,
	.endpoint = bh_real_endpoint,
	.destroy = usb_destroy,
};

/* --- the beginning and the end ------------------------------------------------------------------------------------ */

static void free_handle(uv_handle_t *h)
{
	free(h);
}

/* Nothing is under way, and the device is let go of. */
static void finish(struct bh_usb *u)
{
	void (*closed)(void *data, int error) = u->closed;
	void *data = u->closed_data;

	bh_usb_events_stop(&u->events);
	bh_real_finish(&u->real);
	if (u->timer)
		uv_close((uv_handle_t *)u->timer, free_handle);
	if (u->handle.fd >= 0)
		close(u->handle.fd);
	free(u);
	if (closed)
		closed(data, 0);
}

void bh_usb_close(struct bh_device *d, void (*closed)(void *data, int error), void *data)
{
	struct bh_usb *u;

	if (!d) {
		if (closed)
			closed(data, 0);
		return;
	}
	u = to_usb(d);
	u->destroyed = true;
	u->closed = closed;
	u->closed_data = data;
	depart(u, NULL);
	if (u->state == BH_USB_SEARCHING && bh_list_empty(&u->jobs))
		finish(u); /* else when the search has ended */
}

static void copy_selector(struct bh_usb *u, const struct bh_usb_selector *s)
{
	u->select = *s;
	if (s->port) {
		snprintf(u->port, sizeof(u->port), "%s", s->port);
		u->select.port = u->port;
	}
	if (s->serial) {
		snprintf(u->serial, sizeof(u->serial), "%s", s->serial);
		u->select.serial = u->serial;
	}
}

static int init(struct bh_usb *u, const struct bh_usb_config *config)
{
	int r = bh_real_init(&u->real, u->loop, &ops, &real_ops, &config->log, "usb");

	if (r)
		return r;
	u->real.device.us_per_kib = FULL_SPEED_US_PER_KIB;
	u->timer = malloc(sizeof(*u->timer));
	if (!u->timer)
		return -ENOMEM;
	uv_timer_init(u->loop, u->timer);
	u->timer->data = u;
	return bh_usb_events_start(&u->events, u->loop, urb_ended);
}

static void first_look(uv_timer_t *timer)
{
	struct bh_usb *u = timer->data;

	uv_timer_start(timer, look, LOOK_MS, LOOK_MS);
	if (u->passed)
		open_it(u);
	else
		look(timer);
}

int bh_usb_create(struct uv_loop_s *loop, const struct bh_usb_config *config, struct bh_device **ret, char *error,
                  size_t error_size)
{
	struct bh_usb *u = calloc(1, sizeof(*u));
	int r;

	if (!u) {
		snprintf(error, error_size, "usb: out of memory");
		return -ENOMEM;
	}
	u->loop = loop;
	u->no_reset = config->no_reset;
	u->handle.fd = -1;
	bh_list_init(&u->urbs);
	bh_list_init(&u->jobs);
	bh_list_init(&u->waiting);
	copy_selector(u, &config->select);
	r = init(u, config);
	if (r) {
		snprintf(error, error_size, "usb: libusb cannot begin: %s", strerror(-r));
		finish(u);
		return r;
	}
	u->passed = config->fd >= 0;
	u->handle.fd = config->fd;
	uv_timer_start(u->timer, first_look, 0, 0); /* from the loop, when it is in its port */
	*ret = &u->real.device;
	return 0;
}

struct bh_usb_counters bh_usb_counters(const struct bh_device *d)
{
	return to_usb(d)->counters;
}
