/* Transfers: ours become libusb's, and what comes of them. */
#include "usb_private.h"

#include <stdlib.h>
#include <string.h>

#include <base/util.h>

/* --- the loop: before --------------------------------------------------------------------------- */

static bool is_in(const struct libusb_transfer *urb)
{
	return urb->endpoint & BH_ENDPOINT_IN;
}

/* Isochronous packets lie one behind the other in the kernel's buffer. */
static void prepare_packets(struct libusb_transfer *urb, const struct bh_transfer *t)
{
	uint32_t place = 0;

	for (unsigned i = 0; i < t->packet_count; i++) {
		const struct bh_packet *p = &t->packets[i];

		urb->iso_packet_desc[i].length = p->length;
		if (!is_in(urb))
			bh_transfer_read(t, p->offset, urb->buffer + place, p->length);
		place += p->length;
	}
}

static uint32_t packet_bytes(const struct bh_transfer *t)
{
	uint32_t sum = 0;

	for (unsigned i = 0; i < t->packet_count; i++)
		sum += t->packets[i].length;
	return sum;
}

static void prepare_control(struct bh_usb_errand *e, const struct bh_transfer *t, uint32_t length)
{
	struct libusb_transfer *urb = e->urb;
	struct bh_setup setup = t->setup;

	setup.wLength = bh_put_le16((uint16_t)length);
	memcpy(urb->buffer, &setup, sizeof(setup));
	if (!(setup.bmRequestType & BH_ENDPOINT_IN))
		bh_transfer_read(t, 0, urb->buffer + sizeof(setup), t->length);
}

/* Bytes of the buffer, setup data included. */
static uint32_t buffer_size(const struct bh_usb_errand *e, const struct bh_transfer *t)
{
	uint32_t length;

	if (t->type == BH_ISOCHRONOUS)
		return packet_bytes(t);
	if (t->type != BH_CONTROL)
		return t->length;
	length = bh_get_le16(t->setup.wLength);
	return LIBUSB_CONTROL_SETUP_SIZE + (e->cut ? BH_USB_CONTROL_MAX : length);
}

static void LIBUSB_CALL transfer_ended(struct libusb_transfer *urb);

bool bh_usb_transfer_prepare(struct bh_usb_errand *e, const struct bh_transfer *t)
{
	static const uint8_t types[] = {
		[BH_CONTROL] = LIBUSB_TRANSFER_TYPE_CONTROL,
		[BH_ISOCHRONOUS] = LIBUSB_TRANSFER_TYPE_ISOCHRONOUS,
		[BH_BULK] = LIBUSB_TRANSFER_TYPE_BULK,
		[BH_INTERRUPT] = LIBUSB_TRANSFER_TYPE_INTERRUPT,
	};
	struct libusb_transfer *urb;

	e->cut = t->type == BH_CONTROL && bh_get_le16(t->setup.wLength) > BH_USB_CONTROL_MAX;
	e->bytes = buffer_size(e, t);
	urb = e->urb = libusb_alloc_transfer(t->type == BH_ISOCHRONOUS ? (int)t->packet_count : 0);
	if (!urb)
		return false;
	urb->buffer = malloc(e->bytes ? e->bytes : 1);
	if (!urb->buffer)
		return false;
	urb->flags = LIBUSB_TRANSFER_FREE_BUFFER;
	urb->endpoint = t->endpoint;
	urb->type = types[t->type];
	urb->length = (int)e->bytes;
	urb->callback = transfer_ended;
	urb->user_data = e;
	if (t->type == BH_CONTROL) {
		prepare_control(e, t, e->bytes - LIBUSB_CONTROL_SETUP_SIZE);
	} else if (t->type == BH_ISOCHRONOUS) {
		urb->num_iso_packets = (int)t->packet_count;
		prepare_packets(urb, t);
	} else if (!is_in(urb)) {
		bh_transfer_read(t, 0, urb->buffer, t->length);
		if (t->length && t->flags & BH_TRANSFER_ZERO_PACKET)
			urb->flags |= LIBUSB_TRANSFER_ADD_ZERO_PACKET;
	}
	return true;
}

void bh_usb_transfer_free(struct bh_usb_errand *e)
{
	if (e->urb)
		libusb_free_transfer(e->urb);
	e->urb = NULL;
}

/* --- the thread ----------------------------------------------------------------------------------- */

enum bh_status bh_usb_status(enum libusb_transfer_status status)
{
	switch (status) {
	case LIBUSB_TRANSFER_COMPLETED:
		return BH_SUCCESS;
	case LIBUSB_TRANSFER_STALL:
		return BH_STALL;
	case LIBUSB_TRANSFER_OVERFLOW:
		return BH_BABBLE;
	case LIBUSB_TRANSFER_TIMED_OUT:
	case LIBUSB_TRANSFER_NO_DEVICE:
		return BH_NO_RESPONSE;
	case LIBUSB_TRANSFER_CANCELLED:
		return BH_CANCELLED;
	default:
		return BH_BUS_ERROR;
	}
}

/* Of what libusb would not even try; the device is not to blame, but a guest knows nobody else. */
static enum bh_status submit_status(const struct libusb_transfer *urb, int error)
{
	switch (error) {
	case LIBUSB_ERROR_IO: /* what the kernel knows no endpoint or interface for, or somebody else has */
	case LIBUSB_ERROR_NOT_FOUND:
	case LIBUSB_ERROR_INVALID_PARAM:
		return urb->type == LIBUSB_TRANSFER_TYPE_ISOCHRONOUS ? BH_BUS_ERROR : BH_STALL;
	default:
		return BH_NO_RESPONSE;
	}
}

static void LIBUSB_CALL transfer_ended(struct libusb_transfer *urb)
{
	struct bh_usb_errand *e = urb->user_data;

	e->status = bh_usb_status(urb->status);
	e->actual = urb->actual_length < 0 ? 0 : (uint32_t)urb->actual_length;
	e->gone = urb->status == LIBUSB_TRANSFER_NO_DEVICE;
	bh_usb_thread_ended(e->thread, e);
}

void bh_usb_transfer_submit(struct bh_usb_thread *t, struct bh_usb_errand *e)
{
	struct libusb_transfer *urb = e->urb;
	int r;

	urb->dev_handle = t->handle;
	bh_list_append(&t->flying, &e->link);
	r = t->handle ? libusb_submit_transfer(urb) : LIBUSB_ERROR_NO_DEVICE;
	if (!r)
		return;
	e->status = submit_status(urb, r);
	e->actual = 0;
	e->gone = r == LIBUSB_ERROR_NO_DEVICE;
	for (int i = 0; i < urb->num_iso_packets; i++) {
		urb->iso_packet_desc[i].status = LIBUSB_TRANSFER_ERROR;
		urb->iso_packet_desc[i].actual_length = 0;
	}
	bh_usb_thread_ended(t, e);
}

/* --- the loop: afterwards ------------------------------------------------------------------------- */

/* Packets of a transfer that was cancelled before their turn count as completed, and empty. */
static enum bh_status packet_status(const struct bh_usb_errand *e, const struct libusb_iso_packet_descriptor *d)
{
	enum bh_status status = bh_usb_status(d->status);

	if (status == BH_SUCCESS && e->status != BH_SUCCESS && !d->actual_length && d->length)
		return BH_NO_RESPONSE;
	return status == BH_STALL || status == BH_CANCELLED ? BH_BUS_ERROR : status;
}

static void deliver_packets(const struct bh_usb_errand *e, struct bh_transfer *t, struct bh_usb_counters *c)
{
	const struct libusb_transfer *urb = e->urb;
	uint32_t place = 0;

	for (unsigned i = 0; i < t->packet_count; i++) {
		const struct libusb_iso_packet_descriptor *d = &urb->iso_packet_desc[i];
		struct bh_packet *p = &t->packets[i];

		p->status = packet_status(e, d);
		p->actual = BH_MIN(d->actual_length, p->length);
		if (is_in(urb) && p->actual)
			bh_transfer_write(t, p->offset, urb->buffer + place, p->actual);
		*(is_in(urb) ? &c->bytes_in : &c->bytes_out) += p->actual;
		c->missed += p->status != BH_SUCCESS;
		place += d->length;
	}
}

/* How much of it has moved, and how it ended, for the guest. */
static enum bh_status deliver_bytes(struct bh_usb_errand *e, struct bh_transfer *t, struct bh_usb_counters *c)
{
	const struct libusb_transfer *urb = e->urb;
	bool control = t->type == BH_CONTROL;
	bool in = (control ? t->setup.bmRequestType : t->endpoint) & BH_ENDPOINT_IN;
	enum bh_status status = e->status;

	if (e->actual > t->length) { /* more than there is room for: none of it counts */
		e->actual = 0;
		return BH_BABBLE;
	}
	if (in && e->actual)
		bh_transfer_write(t, 0, urb->buffer + (control ? LIBUSB_CONTROL_SETUP_SIZE : 0), e->actual);
	*(in ? &c->bytes_in : &c->bytes_out) += e->actual;
	if (status == BH_SUCCESS && !in && e->actual < t->length)
		return BH_BUS_ERROR; /* less was taken than was sent: no success */
	if (status == BH_SUCCESS && in && e->cut && e->actual == BH_USB_CONTROL_MAX)
		return BH_STALL; /* there may have been more */
	return status;
}

void bh_usb_transfer_deliver(struct bh_usb_errand *e, struct bh_transfer *t, struct bh_usb_counters *c)
{
	enum bh_status status = e->status;
	uint32_t actual;

	if (t->type == BH_ISOCHRONOUS)
		deliver_packets(e, t, c);
	else
		status = deliver_bytes(e, t, c);
	actual = e->actual;
	c->errors += status != BH_SUCCESS && status != BH_CANCELLED;
	bh_usb_transfer_free(e);
	t->device_data = NULL;
	bh_transfer_done(t, status, actual);
}
