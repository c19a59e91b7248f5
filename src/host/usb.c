/*
 * The device on the loop's side: it is looked for, taken, used, reset, and goes. See host/usb.h,
 * and usb_private.h for what happens on the thread.
 */
#include "usb_private.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <base/util.h>

/* How often it is looked for while it is away, and whether it is still there. */
#define LOOK_MS 500u

/* A full-speed wire moves 19 packets of 64 bytes in a millisecond (USB 2.0, 5.8.4), if nobody else does. */
#define FULL_SPEED_US_PER_KIB 1000u
/* One of high speed 13 of 512 in an eighth of it (5.8.4): 19, and as much again for devices that take breath. */
#define HIGH_SPEED_US_PER_KIB 40u

static struct bh_usb *of_device(const struct bh_device *d)
{
	return (struct bh_usb *)bh_container_of(d, struct bh_usb, real.device);
}

/* --- errands ---------------------------------------------------------------------------------------- */

static void post_chore(struct bh_usb *u, enum bh_usb_errand_kind kind)
{
	u->chore.kind = kind;
	u->chore_posted = true;
	bh_usb_thread_post(&u->thread, &u->chore);
}

static struct bh_usb_errand *errand_create(struct bh_usb *u, enum bh_usb_errand_kind kind, struct bh_transfer *t)
{
	struct bh_usb_errand *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->kind = kind;
	e->transfer = t;
	e->generation = u->generation;
	bh_list_init(&e->link);
	bh_list_init(&e->alive);
	return e;
}

static void errand_free(struct bh_usb_errand *e)
{
	bh_usb_transfer_free(e);
	free(e);
}

/* From now on it is alive, and the thread's. */
static void errand_post(struct bh_usb *u, struct bh_usb_errand *e)
{
	if (e->transfer)
		e->transfer->device_data = e;
	bh_list_append(&u->alive, &e->alive);
	u->errand_count++;
	u->errand_bytes += e->bytes;
	bh_usb_thread_post(&u->thread, e);
}

/* The thread has let go of it. */
static void errand_over(struct bh_usb *u, struct bh_usb_errand *e)
{
	bh_list_remove(&e->alive);
	u->errand_count--;
	u->errand_bytes -= e->bytes;
}

/* It is ended for whoever waits, now; what the thread has taken up ends later, for nobody. */
static void errand_abandon(struct bh_usb *u, struct bh_usb_errand *e)
{
	struct bh_transfer *t = e->transfer;

	e->transfer = NULL;
	if (bh_usb_thread_withdraw(&u->thread, e)) {
		errand_over(u, e);
		errand_free(e);
	}
	if (!t)
		return;
	t->device_data = NULL;
	bh_transfer_done(t, BH_CANCELLED, 0);
}

/* One that somebody waits for. */
static struct bh_usb_errand *owned_errand(const struct bh_usb *u)
{
	bh_list_each(e, &u->alive, struct bh_usb_errand, alive)
		if (e->transfer)
			return e;
	return NULL;
}

/* Whoever is told may have others cancelled. */
static void abandon_all(struct bh_usb *u)
{
	struct bh_usb_errand *e;

	while (!bh_list_empty(&u->waiting)) {
		struct bh_transfer *t = bh_container_of(u->waiting.next, struct bh_transfer, device_link);

		bh_list_remove(&t->device_link);
		bh_transfer_done(t, BH_CANCELLED, 0);
	}
	while ((e = owned_errand(u)))
		errand_abandon(u, e);
}

/* --- what a guest submits ---------------------------------------------------------------------------- */

#define REQUEST(type, request) ((type) << 8 | (request))
enum {
	SET_ADDRESS = REQUEST(0x00, 5),
	GET_CONFIGURATION = REQUEST(0x80, 8),
	SET_CONFIGURATION = REQUEST(0x00, 9),
	GET_INTERFACE = REQUEST(0x81, 10),
	SET_INTERFACE = REQUEST(0x01, 11),
};

/* Does this change nothing at the device? So hosts ask one before they reset it. */
static bool harmless(const struct bh_transfer *t)
{
	return t->type == BH_CONTROL && (t->setup.bmRequestType & 0xe0) == 0x80;
}

/*
 * What must not reach the device, and what the kernel, which keeps it configured, would answer
 * wrongly for a guest that has reset it.
 */
static bool answered_here(struct bh_usb *u, struct bh_transfer *t)
{
	bool configured = u->real.settings.configuration;
	uint8_t none = 0;

	switch (REQUEST(t->setup.bmRequestType, t->setup.bRequest)) {
	case SET_ADDRESS: /* the controller's, here and there */
	case SET_CONFIGURATION: /* of what the device does not have */
	case SET_INTERFACE:
		bh_transfer_done(t, BH_STALL, 0);
		return true;
	case GET_CONFIGURATION:
		if (configured || !t->length)
			return false;
		bh_transfer_write(t, 0, &none, 1);
		bh_transfer_done(t, BH_SUCCESS, 1);
		return true;
	case GET_INTERFACE:
		if (configured)
			return false;
		bh_transfer_done(t, BH_STALL, 0);
		return true;
	}
	return false;
}

/* An OUT data stage that ended early, or is longer than libusb takes, cannot be said. */
static bool can_carry(const struct bh_transfer *t)
{
	uint32_t length = bh_get_le16(t->setup.wLength);

	if (t->setup.bmRequestType & BH_ENDPOINT_IN)
		return true;
	return t->length == length && length <= BH_USB_CONTROL_MAX;
}

static bool has_room(const struct bh_usb *u)
{
	return u->errand_count < BH_USB_ERRANDS && u->errand_bytes < BH_USB_BYTES;
}

static void begin(struct bh_usb *u, struct bh_transfer *t)
{
	struct bh_usb_errand *e = errand_create(u, BH_USB_TRANSFER, t);

	if (!e || !bh_usb_transfer_prepare(e, t)) {
		if (e)
			errand_free(e);
		bh_transfer_done(t, BH_NO_RESPONSE, 0);
		return;
	}
	u->touched |= !harmless(t);
	u->counters.transfers++;
	errand_post(u, e);
}

static void begin_waiting(struct bh_usb *u)
{
	while (has_room(u) && !bh_list_empty(&u->waiting)) {
		struct bh_transfer *t = bh_container_of(u->waiting.next, struct bh_transfer, device_link);

		bh_list_remove(&t->device_link);
		begin(u, t);
	}
}

static void carry(struct bh_usb *u, struct bh_transfer *t)
{
	if (has_room(u) && bh_list_empty(&u->waiting))
		begin(u, t);
	else
		bh_list_append(&u->waiting, &t->device_link);
}

static void submit(struct bh_device *d, struct bh_transfer *t)
{
	struct bh_usb *u = of_device(d);
	const struct bh_endpoint_info *info;

	t->device_data = NULL;
	if (u->state != BH_USB_TAKEN) {
		bh_transfer_done(t, BH_NO_RESPONSE, 0);
	} else if (t->type == BH_CONTROL) {
		if (answered_here(u, t))
			return;
		if (can_carry(t))
			carry(u, t);
		else
			bh_transfer_done(t, BH_STALL, 0);
	} else {
		info = bh_real_endpoint(d, t->endpoint);
		if (info && info->type == t->type)
			carry(u, t);
		else
			bh_transfer_done(t, BH_STALL, 0);
	}
}

/* A request that is carried out by the thread; it comes after what was submitted before. */
static void request(struct bh_usb *u, enum bh_usb_errand_kind kind, uint8_t value, uint8_t interface,
                    struct bh_transfer *t)
{
	struct bh_usb_errand *e = u->state == BH_USB_TAKEN ? errand_create(u, kind, t) : NULL;

	t->device_data = NULL;
	if (!e) {
		bh_transfer_done(t, BH_NO_RESPONSE, 0);
		return;
	}
	e->value = value;
	e->interface = interface;
	u->touched = true;
	errand_post(u, e);
}

static void set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	request(of_device(d), BH_USB_CONFIGURE, value, 0, t);
}

static void set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate, struct bh_transfer *t)
{
	request(of_device(d), BH_USB_ALTERNATE, alternate, interface, t);
}

static void clear_halt(struct bh_device *d, uint8_t endpoint, struct bh_transfer *t)
{
	request(of_device(d), BH_USB_CLEAR_HALT, endpoint, 0, t);
}

static void cancel(struct bh_device *d, struct bh_transfer *t)
{
	struct bh_usb *u = of_device(d);
	struct bh_usb_errand *e = t->device_data;

	if (!e) {
		bh_list_remove(&t->device_link);
		bh_transfer_done(t, BH_CANCELLED, 0);
		return;
	}
	u->counters.cancels++;
	/* Only a transfer ends by being cancelled; what is done to the device ends for the guest alone. */
	if (u->state != BH_USB_TAKEN || e->kind != BH_USB_TRANSFER) {
		errand_abandon(u, e);
	} else if (bh_usb_thread_withdraw(&u->thread, e)) {
		errand_over(u, e);
		errand_free(e);
		t->device_data = NULL;
		bh_transfer_done(t, BH_CANCELLED, 0);
	}
}

/* --- resets ------------------------------------------------------------------------------------------- */

/* Everything else has been ended; the settings are still those before. */
static struct bh_usb_errand *reset_errand(struct bh_usb *u)
{
	const struct bh_settings *s = &u->real.settings;
	struct bh_usb_errand *e = errand_create(u, u->keep_from_resets ? BH_USB_CLEAR_HALTS : BH_USB_RESET, NULL);

	if (!e)
		return NULL;
	for (unsigned i = 0; i < s->endpoint_count; i++)
		if (s->endpoints[i].type != BH_ISOCHRONOUS)
			e->endpoints[e->endpoint_count++] = s->endpoints[i].address;
	return e;
}

/* Hosts reset a device twice before they use it, and when they begin to: only what was used is reset. */
static void reset(struct bh_device *d)
{
	struct bh_usb *u = of_device(d);
	struct bh_usb_errand *e = NULL;

	u->generation++;
	abandon_all(u);
	if (u->touched && u->state == BH_USB_TAKEN)
		e = reset_errand(u);
	bh_settings_configure(&u->real.settings, 0);
	if (!e)
		return;
	u->touched = false;
	errand_post(u, e);
}

/* --- coming and going ----------------------------------------------------------------------------------- */

/* It is no longer ours to use: gone, refused, or not wanted any more. */
static void leave(struct bh_usb *u, const char *why)
{
	if (u->state != BH_USB_TAKEN)
		return;
	u->state = BH_USB_LEAVING;
	u->gone = false;
	u->generation++;
	if (u->passed)
		u->real.device.sticky = false;
	bh_real_departed(&u->real, why);
	abandon_all(u);
	u->thread.closing.reset = u->touched && !u->keep_from_resets;
	post_chore(u, BH_USB_CLOSE);
}

/* Of a failure that lasts, once. */
static bool says_anew(struct bh_usb *u, int error)
{
	bool new = u->said_error != error;

	u->said_error = error;
	return new;
}

static void say_cannot_open(struct bh_usb *u, int error)
{
	const struct bh_usb_entry *e = &u->entry;
	const char *node = u->passed ? "the descriptor that was passed in" : u->thread.opening.node;

	if (!says_anew(u, error))
		return;
	if (error == -EACCES || error == -EPERM)
		bh_real_say(&u->real,
		            "we may not open %s (%s); a udev rule that would let us: SUBSYSTEM==\"usb\", "
		            "ATTR{idVendor}==\"%04x\", ATTR{idProduct}==\"%04x\", TAG+=\"uaccess\"",
		            node, strerror(-error), e->vendor, e->product);
	else if (error == -EBUSY)
		bh_real_say(&u->real, "%s is used by another program, which has to let go of it", node);
	else
		bh_real_say(&u->real, "%s cannot be used: %s", node, strerror(-error));
}

static void say_too_fast(struct bh_usb *u)
{
	if (says_anew(u, -ENOTSUP))
		bh_real_say(&u->real,
		            "it runs at high speed or above, which the guest's full-speed port cannot carry as it is "
		            "(translate=off): it is not taken");
}

/* Not to be tried again before it was unplugged. */
static void refuse(struct bh_usb *u)
{
	u->refused = u->entry;
}

static bool is_refused(const struct bh_usb *u, const struct bh_usb_entry *e)
{
	return !strcmp(u->refused.name, e->name) && (!e->address || u->refused.address == e->address);
}

/* A device that was refused and has gone is a new one when it is back. */
static void forget_refused(struct bh_usb *u, const struct bh_usb_entry *entries, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (is_refused(u, &entries[i]))
			return;
	u->refused = (struct bh_usb_entry){0};
}

static void say_ambiguous(struct bh_usb *u, const struct bh_usb_entry *e, size_t matching)
{
	if (matching > 1 && matching != u->said_matching)
		bh_real_say(&u->real, "%zu devices fit; the first is taken: %s", matching, e->name);
	u->said_matching = matching;
}

static void found(struct bh_usb *u, const struct bh_usb_entry *e)
{
	u->entry = *e;
	if (is_refused(u, e))
		return;
	if (e->mbits > 12 && !u->any_speed) {
		say_too_fast(u);
		refuse(u);
		return;
	}
	bh_usb_entry_node(e, u->thread.opening.node);
	u->state = BH_USB_OPENING;
	post_chore(u, BH_USB_OPEN);
}

static void scanned(struct bh_usb *u)
{
	struct bh_usb_scan *s = &u->thread.scan;
	const struct bh_usb_entry *e;
	size_t matching;

	if (s->error) {
		if (says_anew(u, s->error))
			bh_real_say(&u->real, BH_USB_DEVICES ": %s: is there USB, and sysfs?", strerror(-s->error));
		return;
	}
	forget_refused(u, s->entries, s->count);
	e = bh_usb_choose(&u->selector, s->entries, s->count, &matching);
	if (e && !u->ending) {
		say_ambiguous(u, e, matching);
		found(u, e);
	} else {
		u->said_error = 0;
	}
	free(s->entries);
	s->entries = NULL;
	s->count = 0;
}

/* Nothing more comes of a descriptor that was passed in. */
static void over(struct bh_usb *u)
{
	u->state = BH_USB_OVER;
	u->real.device.sticky = false;
	bh_device_detach(&u->real.device);
}

/* What a wire needs if nobody else uses it (USB 2.0, 5.8.4; USB 3.2, with what an old hub makes of it). */
static uint32_t us_per_kib(enum bh_speed speed)
{
	static const uint32_t all[] = {
		[BH_SPEED_LOW] = FULL_SPEED_US_PER_KIB,
		[BH_SPEED_FULL] = FULL_SPEED_US_PER_KIB,
		[BH_SPEED_HIGH] = HIGH_SPEED_US_PER_KIB,
		[BH_SPEED_SUPER] = HIGH_SPEED_US_PER_KIB,
	};

	return all[speed];
}

static void opened(struct bh_usb *u)
{
	const struct bh_usb_opening *o = &u->thread.opening;

	if (!o->error) {
		u->state = BH_USB_TAKEN;
		u->counters.opened++;
		u->said_error = 0;
		u->gone = false;
		u->touched = *o->drivers != 0;
		u->real.device.us_per_kib = us_per_kib(o->speed);
		if (*o->drivers)
			bh_real_say(&u->real, "taken from %s", o->drivers);
		if (!u->ending)
			bh_real_arrived(&u->real, o->speed);
		return;
	}
	u->state = BH_USB_AWAY;
	u->counters.failures++;
	if (o->error == -ENOTSUP) {
		say_too_fast(u);
		refuse(u);
	} else if (o->error != -ENODEV && o->error != -ENOENT) {
		say_cannot_open(u, o->error); /* gone meanwhile is no failure */
	}
	if (u->passed)
		over(u);
}

static void closed(struct bh_usb *u)
{
	u->state = u->passed ? BH_USB_OVER : BH_USB_AWAY;
}

/* Has the kernel let go of it? Asks, and does not wait. */
static bool is_there(const struct bh_usb *u)
{
	struct pollfd p = {.fd = u->thread.fd};

	if (poll(&p, 1, 0) == 1 && p.revents & (POLLERR | POLLHUP))
		return false;
	return u->passed || bh_usb_entry_present(BH_USB_DEVICES, &u->entry);
}

static void look(struct bh_usb *u)
{
	if (u->state == BH_USB_AWAY && !u->chore_posted) {
		post_chore(u, BH_USB_SCAN);
	} else if (u->state == BH_USB_TAKEN && u->real.state == BH_REAL_REFUSED) {
		refuse(u);
		leave(u, NULL);
	} else if (u->state == BH_USB_TAKEN && (u->gone || !is_there(u))) {
		leave(u, "it was unplugged");
	}
}

static void timer_fired(uv_timer_t *timer)
{
	look(timer->data);
}

/* --- what the thread tells ---------------------------------------------------------------------------------- */

static void chore_ended(struct bh_usb *u)
{
	u->chore_posted = false;
	switch (u->chore.kind) {
	case BH_USB_SCAN:
		scanned(u);
		break;
	case BH_USB_OPEN:
		opened(u);
		break;
	default:
		closed(u);
		break;
	}
}

/* The settings follow what was done, even if nobody waited for it, but for a reset that came after. */
static void follow_settings(struct bh_usb *u, const struct bh_usb_errand *e)
{
	if (e->status != BH_SUCCESS || e->generation != u->generation)
		return;
	if (e->kind == BH_USB_CONFIGURE)
		bh_settings_configure(&u->real.settings, e->value);
	else if (e->kind == BH_USB_ALTERNATE)
		bh_settings_set_interface(&u->real.settings, e->interface, e->value);
}

static void say_reset_failed(struct bh_usb *u, const struct bh_usb_errand *e)
{
	u->counters.resets++;
	if (e->failed && !e->gone)
		bh_real_say(&u->real, "it could not be reset");
}

static void errand_ended(struct bh_usb *u, struct bh_usb_errand *e)
{
	struct bh_transfer *t = e->transfer;

	errand_over(u, e);
	u->gone |= e->gone && u->state == BH_USB_TAKEN;
	follow_settings(u, e);
	if (e->kind == BH_USB_RESET)
		say_reset_failed(u, e);
	if (t && e->kind == BH_USB_TRANSFER) {
		bh_usb_transfer_deliver(e, t, &u->counters);
	} else if (t) {
		t->device_data = NULL;
		u->counters.errors += e->status != BH_SUCCESS;
		bh_transfer_done(t, e->status, 0);
	}
	errand_free(e);
}

static void proceed(struct bh_usb *u);

static void thread_told(uv_async_t *async)
{
	struct bh_usb *u = async->data;
	struct bh_list ended;

	bh_list_init(&ended);
	bh_usb_thread_collect(&u->thread, &ended);
	while (!bh_list_empty(&ended)) {
		struct bh_usb_errand *e = bh_container_of(ended.next, struct bh_usb_errand, link);

		bh_list_remove(&e->link);
		if (e == &u->chore)
			chore_ended(u);
		else
			errand_ended(u, e);
	}
	begin_waiting(u);
	if (u->gone)
		look(u);
	proceed(u);
}

/* --- the end -------------------------------------------------------------------------------------------------- */

static void handle_closed(uv_handle_t *h)
{
	struct bh_usb *u = h->data;

	if (--u->open_handles)
		return;
	if (u->closed)
		u->closed(u->closed_data, 0);
	free(u->port);
	free(u->serial);
	free(u->node);
	free(u);
}

static void close_handles(struct bh_usb *u)
{
	uv_close((uv_handle_t *)&u->async, handle_closed);
	uv_close((uv_handle_t *)&u->timer, handle_closed);
}

/* Step by step to the end, when it is wanted: given back, the thread ended, everything put away. */
static void proceed(struct bh_usb *u)
{
	if (!u->ending || u->chore_posted)
		return;
	leave(u, NULL);
	if (u->chore_posted || u->errand_count)
		return;
	if (!u->thread.finish) {
		bh_usb_thread_finish(&u->thread);
	} else if (bh_usb_thread_finished(&u->thread)) {
		bh_real_finish(&u->real);
		close_handles(u);
	}
}

void bh_usb_close(struct bh_device *d, void (*closed_callback)(void *data, int error), void *data)
{
	struct bh_usb *u = of_device(d);

	u->closed = closed_callback;
	u->closed_data = data;
	u->ending = true;
	uv_timer_stop(&u->timer);
	leave(u, NULL);
	abandon_all(u);
	proceed(u);
}

static void destroy(struct bh_device *d)
{
	bh_usb_close(d, NULL, NULL);
}

static const struct bh_device_ops device_ops = {
	.submit = submit,
	.cancel = cancel,
	.reset = reset,
	.set_configuration = set_configuration,
	.set_interface = set_interface,
	.clear_halt = clear_halt,
	.refuses = bh_real_refuses,
	.descriptors = bh_real_descriptors,
	.endpoint = bh_real_endpoint,
	.destroy = destroy,
};

static const struct bh_real_ops real_ops = {0};

/* --- the beginning --------------------------------------------------------------------------------------------- */

struct bh_usb_counters bh_usb_counters(const struct bh_device *d)
{
	return of_device(d)->counters;
}

/* For people: "usb 0525:a4a5 1-1.4". */
static void make_name(const struct bh_usb_config *c, char *name, size_t size)
{
	const struct bh_usb_selector *s = &c->selector;
	int n = snprintf(name, size, "usb");

	if (c->passed)
		n += snprintf(name + n, size - (size_t)n, " fd %d", c->fd);
	if (s->by_vendor && s->by_product)
		n += snprintf(name + n, size - (size_t)n, " %04x:%04x", s->vendor, s->product);
	else if (s->by_vendor)
		n += snprintf(name + n, size - (size_t)n, " %04x:", s->vendor);
	if (s->port)
		n += snprintf(name + n, size - (size_t)n, " %u-%.60s", s->bus, s->port);
	else if (s->bus)
		n += snprintf(name + n, size - (size_t)n, " %u:%u", s->bus, s->address);
	if (s->node)
		snprintf(name + n, size - (size_t)n, " %s", s->node);
	else if (s->serial)
		snprintf(name + n, size - (size_t)n, " serial %s", s->serial);
}

static bool copy_text(const char *from, char **to, const char **selector)
{
	if (!from)
		return true;
	*selector = *to = strdup(from);
	return *to;
}

static bool copy_selector(struct bh_usb *u, const struct bh_usb_selector *s)
{
	u->selector = *s;
	return copy_text(s->port, &u->port, &u->selector.port) &&
	       copy_text(s->serial, &u->serial, &u->selector.serial) && copy_text(s->node, &u->node, &u->selector.node);
}

/* What of it is closed in the loop. */
static void init_handles(struct bh_usb *u, uv_loop_t *loop)
{
	uv_timer_init(loop, &u->timer);
	uv_async_init(loop, &u->async, thread_told);
	u->timer.data = u->async.data = u;
	u->open_handles = 2;
}

/* Can this be a node of usbfs? A plain file is let pass, for that is what one looks like in a test bed. */
static bool may_be_node(int fd)
{
	struct stat s;

	if (fstat(fd, &s))
		return false;
	return S_ISCHR(s.st_mode) ? major(s.st_rdev) == BH_USB_MAJOR : S_ISREG(s.st_mode);
}

static int check_passed(const struct bh_usb_config *c, char *error, size_t size)
{
	int flags = c->passed ? fcntl(c->fd, F_GETFL) : O_RDWR;

	if (flags >= 0 && (flags & O_ACCMODE) == O_RDWR && (!c->passed || may_be_node(c->fd)))
		return 0;
	snprintf(error, size, "usb: fd=%d: is no node of /dev/bus/usb that is open for reading and writing", c->fd);
	return -EINVAL;
}

/* A descriptor that was passed in is there already; anything else is looked for. */
static void start(struct bh_usb *u, const struct bh_usb_config *c)
{
	u->thread.opening.fd = -1;
	if (c->passed) {
		u->thread.opening.fd = c->fd;
		u->state = BH_USB_OPENING;
		post_chore(u, BH_USB_OPEN);
	} else {
		post_chore(u, BH_USB_SCAN);
	}
	uv_timer_start(&u->timer, timer_fired, LOOK_MS, LOOK_MS);
}

int bh_usb_create(uv_loop_t *loop, const struct bh_usb_config *config, struct bh_device **ret, char *error,
                  size_t error_size)
{
	struct bh_usb *u;
	char name[sizeof(u->real.name)];
	int r = check_passed(config, error, error_size);

	if (r)
		return r;
	u = calloc(1, sizeof(*u));
	if (!u) {
		snprintf(error, error_size, "usb: out of memory");
		return -ENOMEM;
	}
	make_name(config, name, sizeof(name));
	bh_list_init(&u->alive);
	bh_list_init(&u->waiting);
	bh_list_init(&u->chore.link);
	u->passed = config->passed;
	u->keep_from_resets = config->keep_from_resets;
	u->any_speed = u->thread.opening.any_speed = config->any_speed;
	init_handles(u, loop);
	r = bh_real_init(&u->real, loop, &device_ops, &real_ops, &config->log, name);
	if (!r && !copy_selector(u, &config->selector))
		r = -ENOMEM;
	if (!r)
		r = bh_usb_thread_start(&u->thread, &u->async);
	if (r) {
		snprintf(error, error_size, "usb: %s", strerror(-r));
		bh_real_finish(&u->real);
		close_handles(u);
		return r;
	}
	start(u, config);
	*ret = &u->real.device;
	return 0;
}
