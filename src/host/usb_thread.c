/* The thread of a device: errands in, errands out. See usb_private.h. */
#include "usb_private.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include <base/util.h>

/* Signals are the loop's; what a fault raises is for where it happens. */
static void block_signals(void)
{
	sigset_t all;

	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
}

/* --- the lists ---------------------------------------------------------------------------------- */

/* What is to be cancelled first; then what was queued first; NULL: nothing. */
static struct bh_usb_errand *next(struct bh_usb_thread *t, bool *cancel, bool *finish)
{
	struct bh_usb_errand *e = NULL;

	uv_mutex_lock(&t->lock);
	*cancel = !bh_list_empty(&t->cancels);
	if (*cancel) {
		e = bh_container_of(t->cancels.next, struct bh_usb_errand, cancelling);
		bh_list_remove(&e->cancelling);
	} else if (!bh_list_empty(&t->queued)) {
		e = bh_container_of(t->queued.next, struct bh_usb_errand, link);
		bh_list_remove(&e->link);
		e->state = BH_USB_UNDER_WAY;
	}
	*finish = t->finish;
	uv_mutex_unlock(&t->lock);
	return e;
}

void bh_usb_thread_ended(struct bh_usb_thread *t, struct bh_usb_errand *e)
{
	uv_mutex_lock(&t->lock);
	bh_list_remove(&e->cancelling);
	bh_list_remove(&e->link);
	bh_list_append(&t->ended, &e->link);
	e->state = BH_USB_ENDED;
	uv_mutex_unlock(&t->lock);
	uv_async_send(t->async);
}

static void wake(struct bh_usb_thread *t)
{
	libusb_interrupt_event_handler(t->context);
}

void bh_usb_thread_post(struct bh_usb_thread *t, struct bh_usb_errand *e)
{
	e->thread = t;
	e->state = BH_USB_QUEUED;
	bh_list_init(&e->cancelling);
	uv_mutex_lock(&t->lock);
	bh_list_append(&t->queued, &e->link);
	uv_mutex_unlock(&t->lock);
	wake(t);
}

bool bh_usb_thread_withdraw(struct bh_usb_thread *t, struct bh_usb_errand *e)
{
	bool queued, asked = false;

	uv_mutex_lock(&t->lock);
	queued = e->state == BH_USB_QUEUED;
	if (queued) {
		bh_list_remove(&e->link);
	} else if (e->state == BH_USB_UNDER_WAY && e->kind == BH_USB_TRANSFER && bh_list_empty(&e->cancelling)) {
		bh_list_append(&t->cancels, &e->cancelling);
		asked = true;
	}
	uv_mutex_unlock(&t->lock);
	if (asked)
		wake(t);
	return queued;
}

void bh_usb_thread_collect(struct bh_usb_thread *t, struct bh_list *to)
{
	uv_mutex_lock(&t->lock);
	bh_list_each(e, &t->ended, struct bh_usb_errand, link) {
		bh_list_remove(&e->link);
		bh_list_append(to, &e->link);
	}
	uv_mutex_unlock(&t->lock);
}

/* --- running ---------------------------------------------------------------------------------------- */

static void run_errand(struct bh_usb_thread *t, struct bh_usb_errand *e)
{
	switch (e->kind) {
	case BH_USB_SCAN:
		t->scan.error = bh_usb_scan(BH_USB_DEVICES, &t->scan.entries, &t->scan.count);
		break;
	case BH_USB_OPEN:
		bh_usb_handle_open(t, &t->opening);
		break;
	case BH_USB_CLOSE:
		bh_usb_handle_close(t, &t->closing);
		break;
	case BH_USB_TRANSFER:
		bh_usb_transfer_submit(t, e); /* ends it, or the kernel has it now */
		return;
	default:
		bh_usb_handle_do(t, e);
		break;
	}
	bh_usb_thread_ended(t, e);
}

/* Until something has happened, or somebody wakes us. */
static void wait(struct bh_usb_thread *t)
{
	int r = libusb_handle_events(t->context);

	if (r < 0 && r != LIBUSB_ERROR_INTERRUPTED)
		uv_sleep(10); /* out of memory, say: it would be so at once again */
}

static void run(void *data)
{
	struct bh_usb_thread *t = data;
	bool cancel, finish = false;

	block_signals();
	for (;;) {
		struct bh_usb_errand *e = next(t, &cancel, &finish);

		if (e && cancel)
			libusb_cancel_transfer(e->urb);
		else if (e)
			run_errand(t, e);
		else if (finish)
			break;
		else
			wait(t);
	}
	uv_mutex_lock(&t->lock);
	t->finished = true;
	uv_mutex_unlock(&t->lock);
	uv_async_send(t->async);
}

/* --- beginning and end ----------------------------------------------------------------------------- */

/* A context that looks for no devices by itself. */
static int make_context(libusb_context **ret)
{
#if LIBUSB_API_VERSION >= 0x0100010A
	struct libusb_init_option option = {.option = LIBUSB_OPTION_NO_DEVICE_DISCOVERY};

	return libusb_init_context(ret, &option, 1);
#else
	libusb_set_option(NULL, LIBUSB_OPTION_NO_DEVICE_DISCOVERY);
	return libusb_init(ret);
#endif
}

int bh_usb_thread_start(struct bh_usb_thread *t, uv_async_t *async)
{
	int r = make_context(&t->context);

	if (r)
		return r == LIBUSB_ERROR_NO_MEM ? -ENOMEM : -ENOSYS;
	t->async = async;
	t->fd = -1;
	bh_list_init(&t->queued);
	bh_list_init(&t->ended);
	bh_list_init(&t->cancels);
	bh_list_init(&t->flying);
	r = uv_mutex_init(&t->lock);
	if (!r) {
		r = uv_thread_create(&t->id, run, t);
		if (!r)
			return 0;
		uv_mutex_destroy(&t->lock);
	}
	libusb_exit(t->context);
	return r;
}

void bh_usb_thread_finish(struct bh_usb_thread *t)
{
	uv_mutex_lock(&t->lock);
	t->finish = true;
	uv_mutex_unlock(&t->lock);
	wake(t);
}

bool bh_usb_thread_finished(struct bh_usb_thread *t)
{
	bool finished;

	uv_mutex_lock(&t->lock);
	finished = t->finished;
	uv_mutex_unlock(&t->lock);
	if (!finished)
		return false;
	uv_thread_join(&t->id);
	uv_mutex_destroy(&t->lock);
	libusb_exit(t->context);
	return true;
}
