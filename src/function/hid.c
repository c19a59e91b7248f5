/*
 * Keyboard, mouse and tablet as USB devices: class requests, the interrupt endpoint, idle
 * repetition, remote wakeup. What is said in text is hid_text.c, how it looks as a report
 * hid_report.c, where it comes from besides calls hid_feed.c, what they say they are
 * hid_descriptors.c.
 *
 * HID 1.11, done: descriptors (6.2), GET_REPORT and SET_REPORT (7.2.1, 7.2.2; input, and
 * output of the keyboard's LEDs), GET_IDLE and SET_IDLE (7.2.3, 7.2.4), GET_PROTOCOL and
 * SET_PROTOCOL (7.2.5, 7.2.6; keyboard and mouse), boot reports (appendix B). Left out:
 * SET_DESCRIPTOR, physical descriptors, an interrupt OUT endpoint, feature reports; there are
 * no report numbers.
 *
 * The queue holds events, and becomes reports as the guest asks for them: which protocol
 * counts is known only then. There are two states: shown, after the last report, which
 * GET_REPORT and repetitions tell; and planned, after the last event in the queue, which
 * says what a new event changes. A reset and SET_CONFIGURATION leave both alone, for
 * whose finger is on a key does not lift it.
 */
#include <function/hid.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <uv.h>

#include <base/list.h>
#include <base/util.h>

#include "hid_descriptors.h"
#include "hid_feed.h"
#include "hid_report.h"
#include "hid_text.h"
#include "standard.h"

#define QUEUE_DEFAULT 4096u
#define IDLE_UNIT_MS  4u
#define KEYBOARD_IDLE (500u / IDLE_UNIT_MS) /* 7.2.4 recommends it */

/* A device does not wake the bus before it was idle for so long (USB 2.0, 7.1.7.7). */
#define WAKEUP_AFTER_MS 5u

struct queue {
	struct bh_hid_event *events; /* a ring */
	unsigned size, first, count;
};

struct hid {
	struct bh_standard standard;
	/* configuration */
	uv_loop_t *loop;
	enum bh_hid_kind kind;
	unsigned buttons;
	struct bh_hid_descriptors descriptors;
	void (*log)(void *data, const char *text);
	void *log_data;

	/* input */
	struct bh_hid_feed *feed; /* NULL: none */
	struct queue queue;
	struct bh_hid_state shown, planned;
	struct bh_list transfers; /* to the interrupt endpoint, in order */
	struct bh_hid_counters counters;

	/* what the guest has set */
	bool boot;    /* protocol */
	uint8_t idle; /* IDLE_UNIT_MS; 0: no repetition */
	uint8_t leds;

	uv_timer_t timer;     /* the idle period; while suspended, what is left until it may wake */
	uint64_t reported_ms; /* when the idle period began */
	bool repeat_due;

	/* the end */
	unsigned open_parts; /* timer and feed */
	void (*closed)(void *data, int error);
	void *closed_data;
};

static struct hid *to_hid(struct bh_device *d)
{
	return bh_container_of(d, struct hid, standard.device);
}

static const struct hid *to_const_hid(const struct bh_device *d)
{
	return bh_container_of(d, struct hid, standard.device);
}

static struct hid *of_standard(struct bh_standard *s)
{
	return bh_container_of(s, struct hid, standard);
}

/* --- the queue ---------------------------------------------------------------------- */

static struct bh_hid_event *queue_first(struct queue *q)
{
	return &q->events[q->first];
}

static void queue_pop(struct queue *q)
{
	q->first = (q->first + 1) % q->size;
	q->count--;
}

static void queue_append(struct queue *q, const struct bh_hid_event *e)
{
	q->events[(q->first + q->count++) % q->size] = *e;
}

/* --- idle repetition (7.2.4) -------------------------------------------------------- */

static uint64_t now_ms(void)
{
	return uv_hrtime() / 1000000;
}

static void start_timer(struct hid *h, uv_timer_cb callback, uint64_t ms)
{
	uv_update_time(h->loop); /* or it would be counted from the beginning of this round */
	uv_timer_start(&h->timer, callback, ms, 0);
}

static void serve(struct hid *h);

static void idle_passed(uv_timer_t *timer)
{
	struct hid *h = timer->data;

	h->repeat_due = true;
	serve(h);
}

/* A period begins: a report was sent, or a new life of the endpoint began. */
static void begin_idle(struct hid *h)
{
	h->repeat_due = false;
	h->reported_ms = now_ms();
	if (h->idle && h->standard.settings.configuration && !h->standard.suspended)
		start_timer(h, idle_passed, h->idle * IDLE_UNIT_MS);
	else
		uv_timer_stop(&h->timer);
}

/* The period that runs becomes as long as is said now, unless less than a unit of it is left. */
static void set_idle(struct hid *h, uint8_t idle)
{
	uint64_t passed = now_ms() - h->reported_ms, old = h->idle * IDLE_UNIT_MS, new = idle * IDLE_UNIT_MS;

	h->idle = idle;
	if (!idle) {
		h->repeat_due = false;
		uv_timer_stop(&h->timer);
	} else if (!old || passed + IDLE_UNIT_MS <= old) {
		start_timer(h, idle_passed, new > passed ? new - passed : 0);
	}
}

/* --- reports ------------------------------------------------------------------------ */

/* Takes what one report can show of a way that is left. */
static int8_t step(int16_t *left, int steps)
{
	int16_t part = (int16_t)(*left / steps);

	*left = (int16_t)(*left - part);
	return (int8_t)part;
}

static int steps_of(int distance)
{
	return (abs(distance) + BH_HID_STEP - 1) / BH_HID_STEP;
}

/* The next part of a movement, straight on. True: that was all of it. */
static bool take_motion(struct bh_hid_event *e, struct bh_hid_motion *m)
{
	int steps = BH_MAX(steps_of(e->x), steps_of(e->y));

	if (e->type == BH_HID_WHEEL) {
		m->wheel = step(&e->y, steps);
	} else {
		m->x = step(&e->x, steps);
		m->y = step(&e->y, steps);
	}
	return steps == 1;
}

/* Makes the report that is next in turn. Its length; 0: there is nothing to say. */
static size_t next_report(struct hid *h, uint8_t *report)
{
	struct bh_hid_motion motion = {0};

	while (h->queue.count) {
		struct bh_hid_event *e = queue_first(&h->queue);
		bool lost = h->boot && e->type == BH_HID_WHEEL; /* boot reports have none */

		if (lost || (e->type != BH_HID_MOVE && e->type != BH_HID_WHEEL)) {
			bh_hid_apply(&h->shown, e);
			queue_pop(&h->queue);
		} else if (take_motion(e, &motion)) {
			queue_pop(&h->queue);
		}
		if (!lost)
			return bh_hid_report(h->kind, h->boot, &h->shown, motion, report);
	}
	if (!h->repeat_due)
		return 0;
	h->counters.repeats++;
	return bh_hid_report(h->kind, h->boot, &h->shown, motion, report);
}

/* One packet of the first transfer; where it has room for more, it goes on waiting. */
static void send_report(struct hid *h, struct bh_transfer *t, const uint8_t *report, size_t length)
{
	uint32_t room = t->length - t->actual, n = BH_MIN((uint32_t)length, room), actual = t->actual + n;

	h->counters.reports++;
	begin_idle(h);
	bh_transfer_write(t, t->actual, report, n);
	if (n == bh_hid_report_length(h->kind) && n < room) {
		bh_transfer_progress(t, actual);
		return;
	}
	bh_list_remove(&t->device_link);
	bh_transfer_done(t, n < length ? BH_BABBLE : BH_SUCCESS, actual);
}

static struct bh_transfer *first_transfer(struct hid *h)
{
	return bh_list_empty(&h->transfers) ? NULL : bh_container_of(h->transfers.next, struct bh_transfer, device_link);
}

/* Last thing on every way in: reports go where they are asked for, and lines come in where there is room. */
static void serve(struct hid *h)
{
	uint8_t report[BH_HID_REPORT_MAX];
	struct bh_transfer *t;
	size_t n;

	while (!h->standard.suspended && (t = first_transfer(h)) && (n = next_report(h, report)))
		send_report(h, t, report, n);
	if (h->feed && h->queue.count <= h->queue.size / 2)
		bh_hid_feed_resume(h->feed);
}

static void end_transfers(struct hid *h, enum bh_status status)
{
	struct bh_transfer *t;

	while ((t = first_transfer(h))) {
		bh_list_remove(&t->device_link);
		bh_transfer_done(t, status, t->actual);
	}
}

/* --- input -------------------------------------------------------------------------- */

static void wake(struct hid *h)
{
	if (!h->standard.suspended || !h->standard.wakeup_enabled)
		return;
	h->counters.wakeups++;
	bh_standard_wakeup(&h->standard);
}

static void wakeup_allowed(uv_timer_t *timer)
{
	wake(timer->data);
}

/* Drops what changes nothing; planned becomes the state after all of it. */
static void plan(struct bh_hid_script *script, struct bh_hid_state *planned)
{
	size_t n = 0;

	for (size_t i = 0; i < script->count; i++)
		if (bh_hid_apply(planned, &script->events[i]))
			script->events[n++] = script->events[i];
	script->count = n;
}

/* Events and the releases they owe have to fit; releases alone always do, for theirs is the room set aside. */
static int commit(struct hid *h, const struct bh_hid_script *script, const struct bh_hid_state *planned, char *error,
                  size_t error_size)
{
	size_t needed = script->count + planned->down_count;

	if (needed + h->queue.count > h->queue.size) {
		bool never = needed > h->queue.size;

		snprintf(error, error_size, "%s: %zu events are too many, for the queue %s; say %s",
		         bh_hid_kind_name(h->kind), script->count, never ? "never has so much room" : "is full",
		         never ? "it in several parts" : "it again when the guest has fetched some");
		return never ? -EMSGSIZE : -ENOBUFS;
	}
	h->planned = *planned;
	for (size_t i = 0; i < script->count; i++)
		queue_append(&h->queue, &script->events[i]);
	h->counters.events += script->count;
	return 0;
}

/* Into the queue, all or nothing; ret_count says of how many events it is. */
static int input(struct hid *h, const char *text, size_t *ret_count, char *error, size_t error_size)
{
	struct bh_hid_script script = {0};
	struct bh_hid_state planned = h->planned;
	int r = bh_hid_parse(h->kind, h->buttons, text, &script, error, error_size);

	if (!r) {
		plan(&script, &planned);
		*ret_count = script.count;
		r = commit(h, &script, &planned, error, error_size);
	}
	bh_hid_script_finish(&script);
	if (r || !*ret_count)
		return r;
	wake(h);
	serve(h);
	return 0;
}

int bh_hid_input(struct bh_device *device, const char *text, char *error, size_t error_size)
{
	struct hid *h = to_hid(device);
	size_t count = 0;
	int r = input(h, text, &count, error, error_size);

	if (r)
		h->counters.dropped += count;
	return r;
}

/* A line of the file that waits for room is not lost. */
static int feed_line(void *owner, const char *text, char *error, size_t error_size)
{
	struct hid *h = owner;
	size_t count = 0;
	int r = input(h, text, &count, error, error_size);

	if (r && r != -ENOBUFS)
		h->counters.dropped += count;
	return r;
}

static void feed_log(void *owner, const char *text, bool bad_line)
{
	struct hid *h = owner;

	h->counters.bad_lines += bad_line;
	if (h->log)
		h->log(h->log_data, text);
}

/* --- class requests (7.2) ----------------------------------------------------------- */

enum {
	GET_INTERFACE_DESCRIPTOR = BH_REQUEST(0x81, 6),
	GET_REPORT = BH_REQUEST(0xa1, 1),
	GET_IDLE = BH_REQUEST(0xa1, 2),
	GET_PROTOCOL = BH_REQUEST(0xa1, 3),
	SET_REPORT = BH_REQUEST(0x21, 9),
	SET_IDLE = BH_REQUEST(0x21, 10),
	SET_PROTOCOL = BH_REQUEST(0x21, 11),
};

enum { REPORT_INPUT = 1, REPORT_OUTPUT };

#define LEDS 0x1f

static void get_descriptor(const struct hid *h, uint16_t value, struct bh_transfer *t)
{
	const struct bh_hid_descriptors *d = &h->descriptors;

	if (value == BH_HID_DESCRIPTOR_REPORT << 8)
		bh_answer(t, d->report, d->report_size);
	else if (value == BH_HID_DESCRIPTOR_HID << 8)
		bh_answer(t, d->hid, d->hid[0]);
	else
		bh_refuse(t);
}

static void get_report(const struct hid *h, uint16_t value, struct bh_transfer *t)
{
	uint8_t report[BH_HID_REPORT_MAX];

	if (value == REPORT_INPUT << 8)
		bh_answer(t, report, bh_hid_report(h->kind, h->boot, &h->shown, (struct bh_hid_motion){0}, report));
	else if (value == REPORT_OUTPUT << 8 && h->kind == BH_HID_KEYBOARD)
		bh_answer(t, &h->leds, 1);
	else
		bh_refuse(t);
}

static void set_report(struct hid *h, uint16_t value, struct bh_transfer *t)
{
	uint8_t leds;

	if (value != REPORT_OUTPUT << 8 || h->kind != BH_HID_KEYBOARD || t->length < 1) {
		bh_refuse(t);
		return;
	}
	bh_transfer_read(t, 0, &leds, 1);
	h->leds = leds & LEDS;
	bh_acknowledge(t);
}

/* Those of the boot protocol: the tablet has none. */
static void protocol_request(struct hid *h, uint16_t value, struct bh_transfer *t)
{
	if (h->kind == BH_HID_TABLET || value > 1) {
		bh_refuse(t);
	} else if (bh_request_of(t) == GET_PROTOCOL) {
		bh_answer(t, (const uint8_t[]){!h->boot}, 1);
	} else {
		h->boot = !value;
		bh_acknowledge(t);
	}
}

static void idle_request(struct hid *h, uint16_t value, struct bh_transfer *t)
{
	if (value & 0xff) { /* a report number */
		bh_refuse(t);
	} else if (bh_request_of(t) == GET_IDLE) {
		bh_answer(t, &h->idle, 1);
	} else {
		set_idle(h, (uint8_t)(value >> 8));
		bh_acknowledge(t);
	}
}

static void control(struct hid *h, struct bh_transfer *t)
{
	unsigned request = bh_request_of(t);
	uint16_t value = bh_get_le16(t->setup.wValue);
	bool ours = (t->setup.bmRequestType & 0x60) == 0x20 || request == GET_INTERFACE_DESCRIPTOR;

	if (ours && (!h->standard.settings.configuration || bh_get_le16(t->setup.wIndex))) {
		bh_refuse(t);
		return;
	}
	switch (request) {
	case GET_INTERFACE_DESCRIPTOR:
		get_descriptor(h, value, t);
		break;
	case GET_REPORT:
		get_report(h, value, t);
		break;
	case SET_REPORT:
		set_report(h, value, t);
		break;
	case GET_IDLE:
	case SET_IDLE:
		idle_request(h, value, t);
		break;
	case GET_PROTOCOL:
	case SET_PROTOCOL:
		protocol_request(h, value, t);
		break;
	default:
		bh_standard_control(&h->standard, t);
		break;
	}
}

/* --- the device --------------------------------------------------------------------- */

static void hid_submit(struct bh_device *device, struct bh_transfer *t)
{
	struct hid *h = to_hid(device);

	if (t->type == BH_CONTROL) {
		control(h, t);
	} else if (!bh_standard_endpoint(device, t->endpoint) || bh_standard_halted(&h->standard, t->endpoint)) {
		bh_refuse(t);
	} else {
		bh_list_append(&h->transfers, &t->device_link);
		serve(h);
	}
}

/* Control transfers have always ended already. */
static void hid_cancel(struct bh_device *device, struct bh_transfer *t)
{
	bh_list_each(held, &to_hid(device)->transfers, struct bh_transfer, device_link) {
		if (held == t) {
			bh_list_remove(&t->device_link);
			bh_transfer_done(t, BH_CANCELLED, t->actual);
			return;
		}
	}
}

static void hid_suspend(struct bh_device *device, bool suspended)
{
	struct hid *h = to_hid(device);

	bh_standard_suspend(device, suspended);
	begin_idle(h);
	if (suspended && h->queue.count)
		start_timer(h, wakeup_allowed, WAKEUP_AFTER_MS);
	serve(h);
}

/* Also the end of a reset. Alternate settings there are none: the interface set anew is still the same. */
static void endpoints_changed(struct bh_standard *s, int interface)
{
	struct hid *h = of_standard(s);

	end_transfers(h, BH_CANCELLED);
	if (interface < 0) {
		h->boot = false;
		h->leds = 0;
		h->idle = h->kind == BH_HID_KEYBOARD ? KEYBOARD_IDLE : 0;
	}
	begin_idle(h);
}

static void endpoint_halted(struct bh_standard *s, uint8_t endpoint, bool halted)
{
	if (halted && endpoint == BH_HID_ENDPOINT)
		end_transfers(of_standard(s), BH_STALL);
}

/* --- the end ------------------------------------------------------------------------ */

static void part_closed(struct hid *h)
{
	void (*closed)(void *, int) = h->closed;
	void *data = h->closed_data;

	if (--h->open_parts)
		return;
	free(h->queue.events);
	free(h);
	if (closed)
		closed(data, 0);
}

static void timer_closed(uv_handle_t *handle)
{
	part_closed(handle->data);
}

static void feed_closed(void *owner)
{
	part_closed(owner);
}

void bh_hid_close(struct bh_device *device, void (*closed)(void *data, int error), void *data)
{
	struct hid *h;

	if (!device) {
		if (closed)
			closed(data, 0);
		return;
	}
	h = to_hid(device);
	h->closed = closed;
	h->closed_data = data;
	end_transfers(h, BH_CANCELLED);
	h->open_parts = h->feed ? 2 : 1;
	if (h->feed)
		bh_hid_feed_close(h->feed);
	h->feed = NULL;
	uv_close((uv_handle_t *)&h->timer, timer_closed); /* never before the loop's next round */
}

static void hid_destroy(struct bh_device *device)
{
	bh_hid_close(device, NULL, NULL);
}

/* --- what can be asked -------------------------------------------------------------- */

static const char *const kind_names[] = {
	[BH_HID_KEYBOARD] = "keyboard",
	[BH_HID_MOUSE] = "mouse",
	[BH_HID_TABLET] = "tablet",
};

const char *bh_hid_kind_name(enum bh_hid_kind kind)
{
	return (unsigned)kind < BH_COUNT(kind_names) ? kind_names[kind] : "?";
}

bool bh_hid_kind_parse(const char *name, enum bh_hid_kind *ret)
{
	for (unsigned i = 0; i < BH_COUNT(kind_names); i++)
		if (!strcmp(kind_names[i], name)) {
			*ret = (enum bh_hid_kind)i;
			return true;
		}
	return false;
}

enum bh_hid_kind bh_hid_kind(const struct bh_device *device)
{
	return to_const_hid(device)->kind;
}

uint8_t bh_hid_leds(const struct bh_device *device)
{
	return to_const_hid(device)->leds;
}

struct bh_hid_counters bh_hid_counters(const struct bh_device *device)
{
	const struct hid *h = to_const_hid(device);
	struct bh_hid_counters c = h->counters;

	c.queued = h->queue.count;
	return c;
}

/* --- creation ----------------------------------------------------------------------- */

static int invalid(char *error, size_t error_size, const char *what)
{
	snprintf(error, error_size, "hid: %s", what);
	return -EINVAL;
}

static int check_config(const struct bh_hid_config *c, char *error, size_t error_size)
{
	if ((unsigned)c->kind >= BH_COUNT(kind_names))
		return invalid(error, error_size, "there is no such kind; say keyboard, mouse or tablet");
	if (c->speed != BH_SPEED_FULL && c->speed != BH_SPEED_LOW)
		return invalid(error, error_size, "the speed has to be full or low");
	if (c->buttons && (c->kind == BH_HID_KEYBOARD || (c->buttons != 3 && c->buttons != 5)))
		return invalid(error, error_size, "a mouse or a tablet has 3 or 5 buttons, a keyboard none");
	if (c->queue && (c->queue < BH_HID_QUEUE_MIN || c->queue > BH_HID_QUEUE_MAX))
		return invalid(error, error_size, "the queue has to hold 16 to 65536 events");
	if (c->path && !*c->path)
		return invalid(error, error_size, "the file has no name; say which, or none at all");
	return 0;
}

static const struct bh_device_ops hid_ops;
static const struct bh_standard_ops hid_standard_ops;
static const struct bh_hid_feed_ops hid_feed_ops;

static int open_feed(struct hid *h, const char *path, char *error, size_t error_size)
{
	char why[256] = "";
	int r = path ? bh_hid_feed_create(h->loop, path, &hid_feed_ops, h, &h->feed, why, sizeof(why)) : 0;

	if (r)
		snprintf(error, error_size, "%s: %s", bh_hid_kind_name(h->kind), why);
	return r;
}

int bh_hid_create(struct uv_loop_s *loop, const struct bh_hid_config *config, struct bh_device **ret, char *error,
                  size_t error_size)
{
	struct hid *h;
	int r = check_config(config, error, error_size);

	if (r)
		return r;
	h = calloc(1, sizeof(*h));
	if (!h)
		goto err_memory;
	h->queue.size = config->queue ? config->queue : QUEUE_DEFAULT;
	h->queue.events = calloc(h->queue.size, sizeof(*h->queue.events));
	if (!h->queue.events)
		goto err_memory;
	h->loop = loop;
	h->kind = config->kind;
	h->buttons = config->buttons ? config->buttons : 3;
	h->log = config->log;
	h->log_data = config->log_data;
	bh_list_init(&h->transfers);
	bh_hid_describe(&h->descriptors, h->kind, h->buttons, config->speed);
	bh_standard_init(&h->standard, &hid_ops, &hid_standard_ops, &h->descriptors.description, config->speed);
	r = open_feed(h, config->path, error, error_size);
	if (r)
		goto err_free;
	uv_timer_init(loop, &h->timer);
	h->timer.data = h;
	bh_standard_reset(&h->standard.device);
	*ret = &h->standard.device;
	return 0;

err_memory:
	r = -ENOMEM;
	snprintf(error, error_size, "%s: out of memory; free some", bh_hid_kind_name(config->kind));
err_free:
	if (h)
		free(h->queue.events);
	free(h);
	return r;
}

static const struct bh_hid_feed_ops hid_feed_ops = {
	.line = feed_line,
	.log = feed_log,
	.closed = feed_closed,
};

static const struct bh_standard_ops hid_standard_ops = {
	.changed = endpoints_changed,
	.halted = endpoint_halted,
};

static const struct bh_device_ops hid_ops = {
	.submit = hid_submit,
	.cancel = hid_cancel,
	.reset = bh_standard_reset,
	.set_configuration = bh_standard_set_configuration,
	.set_interface = bh_standard_set_interface,
	.refuses = bh_standard_refuses,
	.descriptors = bh_standard_descriptors,
	.clear_halt = bh_standard_clear_halt,
	.endpoint = bh_standard_endpoint,
	.suspend = hid_suspend,
	.destroy = hid_destroy,
};
