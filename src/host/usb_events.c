/* libusb's thread, and how it hands over what has ended: see usb_private.h. */
#include "usb_private.h"

#include <errno.h>
#include <stdlib.h>

#include <base/util.h>

static void *handle_events(void *data)
{
	struct bh_usb_events *e = data;

	while (!__atomic_load_n(&e->stop, __ATOMIC_ACQUIRE))
		libusb_handle_events_completed(e->context, (int *)&e->stop);
	return NULL;
}

void LIBUSB_CALL bh_usb_events_callback(struct libusb_transfer *t)
{
	struct bh_urb *urb = t->user_data;
	struct bh_usb_events *e = &urb->usb->events;

	pthread_mutex_lock(&e->lock);
	bh_list_append(&e->done, &urb->done_link);
	pthread_mutex_unlock(&e->lock);
	uv_async_send(e->wake);
}

static struct bh_urb *take(struct bh_usb_events *e)
{
	struct bh_urb *urb = NULL;

	pthread_mutex_lock(&e->lock);
	if (!bh_list_empty(&e->done)) {
		urb = bh_container_of(e->done.next, struct bh_urb, done_link);
		bh_list_remove(&urb->done_link);
	}
	pthread_mutex_unlock(&e->lock);
	return urb;
}

static void woken(uv_async_t *wake)
{
	struct bh_usb_events *e = wake->data;
	struct bh_urb *urb;

	while (e && (urb = take(e))) {
		e->ended(urb);
		e = wake->data; /* NULL: that was the last one, and it is stopped */
	}
}

static int make_context(libusb_context **ret)
{
	int r;

#if LIBUSB_API_VERSION >= 0x0100010A
	const struct libusb_init_option options[] = {{.option = LIBUSB_OPTION_NO_DEVICE_DISCOVERY}};

	r = libusb_init_context(ret, options, 1);
#else
	libusb_set_option(NULL, LIBUSB_OPTION_NO_DEVICE_DISCOVERY); /* for contexts that are made from now on */
	r = libusb_init(ret);
#endif
	return r == LIBUSB_ERROR_NO_MEM ? -ENOMEM : r ? -EIO : 0;
}

static void free_handle(uv_handle_t *h)
{
	free(h);
}

int bh_usb_events_start(struct bh_usb_events *e, uv_loop_t *loop, void (*ended)(struct bh_urb *urb))
{
	int r;

	*e = (struct bh_usb_events){.ended = ended};
	bh_list_init(&e->done);
	pthread_mutex_init(&e->lock, NULL);
	e->wake = malloc(sizeof(*e->wake));
	if (!e->wake)
		return -ENOMEM;
	r = uv_async_init(loop, e->wake, woken);
	if (r) {
		free(e->wake);
		e->wake = NULL;
		return r;
	}
	e->wake->data = e;
	r = make_context(&e->context);
	if (!r)
		r = -pthread_create(&e->thread, NULL, handle_events, e);
	e->started = !r;
	return r;
}

void bh_usb_events_stop(struct bh_usb_events *e)
{
	if (e->started) {
		__atomic_store_n(&e->stop, 1, __ATOMIC_RELEASE);
		libusb_interrupt_event_handler(e->context);
		pthread_join(e->thread, NULL);
	}
	if (e->context)
		libusb_exit(e->context);
	if (e->wake) {
		e->wake->data = NULL;
		uv_close((uv_handle_t *)e->wake, free_handle);
		pthread_mutex_destroy(&e->lock);
	}
	*e = (struct bh_usb_events){0};
}
