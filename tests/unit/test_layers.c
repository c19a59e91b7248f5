/*
 * Layers: what their base passes on and what it ends, the text that stacks them, and the layers
 * delay, fault and capture. Over a device that ends its transfers when the test says.
 */
#include "fake_device.h"
#include "function_rig.h"

#define request driver_request /* both have one */
#include "fake_driver.h"
#undef request

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include <function/hub.h>
#include <layer/layer.h>
#include <layer/layers.h>

enum { OUT = 0x01, IN = 0x82, INT_IN = 0x83, ISO_OUT = 0x04, ISO_IN = 0x85 };

/* --- what happened, in order ------------------------------------------------------------------------ */

static char journal[4096];

static void __attribute__((format(printf, 1, 2))) note(const char *format, ...)
{
	size_t n = strlen(journal);
	va_list args;

	va_start(args, format);
	vsnprintf(journal + n, sizeof(journal) - n, format, args);
	va_end(args);
}

static void assert_journal(const char *expected)
{
	assert_string_equal(journal, expected);
	journal[0] = '\0';
}

/* --- the device at the bottom: a fake one that takes several, and has every operation ------------ */

static struct fake_device device;
static struct bh_device_ops ops; /* its, but for what a test changes */
static struct bh_transfer *taken[64]; /* with device.hold: not ended, in order */
static unsigned taken_count;
static struct bh_transfer seen; /* the last that was submitted, as it came */
static bool slow_cancel; /* it does not end what is cancelled, so far */

static void end_taken(unsigned i, enum bh_status status, uint32_t actual)
{
	assert_true(i < taken_count);
	device.held = taken[i];
	memmove(taken + i, taken + i + 1, (--taken_count - i) * sizeof(*taken));
	fake_device_end(&device, status, actual);
}

static void device_submit(struct bh_device *d, struct bh_transfer *t)
{
	seen = *t;
	if (!device.hold) {
		fake_device_submit(d, t);
		return;
	}
	device.submits++;
	assert_true(taken_count < BH_COUNT(taken));
	taken[taken_count++] = t;
}

static void device_cancel(struct bh_device *d, struct bh_transfer *t)
{
	(void)d;
	device.cancels++;
	for (unsigned i = 0; i < taken_count; i++)
		if (taken[i] == t && !slow_cancel) {
			end_taken(i, BH_CANCELLED, 0);
			return;
		}
}

static void device_reset(struct bh_device *d)
{
	note("reset ");
	while (taken_count)
		end_taken(0, BH_CANCELLED, 0);
	fake_device_reset(d);
}

static void device_destroy(struct bh_device *d)
{
	while (taken_count)
		end_taken(0, BH_CANCELLED, 0);
	fake_device_destroy(d);
}

static void device_set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	d->finishes = value == 2;
	fake_device_set_configuration(d, value, t);
}

static void device_power_on(struct bh_device *d)
{
	(void)d;
	note("power-on ");
}

/* SET_CONFIGURATION(7), for one. */
static bool device_refuses(const struct bh_device *d, const struct bh_setup *setup)
{
	(void)d;
	return setup->bRequest == 9 && bh_get_le16(setup->wValue) == 7;
}

static const uint8_t device_descriptor[18] = {18, 1};

static struct bh_descriptors device_descriptors(const struct bh_device *d)
{
	(void)d;
	return (struct bh_descriptors){.device = device_descriptor};
}

/* --- each test's ---------------------------------------------------------------------------------- */

static struct bh_device *top; /* the layers over the device; destroyed after the test */
static uv_loop_t loop;
static char error[BH_LAYER_ERROR_SIZE];
static char logged[1024];
static unsigned logged_count;
static char directory[64], path[96], layers[256];
static uint8_t bytes[400 * 1024];

static void log_line(void *data, const char *text)
{
	assert_ptr_equal(data, &loop);
	snprintf(logged, sizeof(logged), "%s", text);
	logged_count++;
}

static const struct bh_layer_context context = {.loop = &loop, .log = log_line, .data = &loop};

static unsigned open_files; /* at the test's beginning, and again at its end */

static unsigned count_open_files(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static int set_up(void **state)
{
	(void)state;
	journal[0] = error[0] = logged[0] = '\0';
	logged_count = taken_count = 0;
	slow_cancel = false;
	fake_device_init(&device, BH_SPEED_FULL);
	ops = fake_device_ops;
	ops.submit = device_submit;
	ops.cancel = device_cancel;
	ops.reset = device_reset;
	ops.destroy = device_destroy;
	ops.set_configuration = device_set_configuration;
	ops.power_on = device_power_on;
	ops.refuses = device_refuses;
	ops.descriptors = device_descriptors;
	device.device.ops = &ops;
	top = &device.device;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 3 + i / 256);
	strcpy(directory, "/tmp/test_layers_XXXXXX");
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/file", directory);
	assert_int_equal(uv_loop_init(&loop), 0);
	open_files = count_open_files();
	return 0;
}

static void destroy(void)
{
	bh_device_destroy(top);
	top = NULL;
}

static int tear_down(void **state)
{
	(void)state;
	if (top)
		destroy();
	uv_run(&loop, UV_RUN_DEFAULT);
	unlink(path);
	rmdir(directory);
	assert_int_equal(device.destroyed, 1);
	assert_int_equal(count_open_files(), open_files);
	return uv_loop_close(&loop);
}

static void put(const char *text)
{
	assert_int_equal(bh_layers_put(&context, text, &top, error), 0);
	assert_string_equal(error, "");
}

static void put_capture(void)
{
	snprintf(layers, sizeof(layers), "capture:%s", path);
	put(layers);
}

static uint64_t counter(struct bh_device *d, const char *name)
{
	struct bh_layer_counter counters[BH_LAYER_COUNTERS];
	const char *layer;
	unsigned n;

	assert_non_null(bh_layer_counters(d, &layer, counters, &n));
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(counters[i].name, name))
			return counters[i].value;
	fail_msg("no counter %s", name);
	return 0;
}

static void bring(struct flight *f, uint8_t endpoint, uint32_t length)
{
	launch(top, f, endpoint, endpoint == INT_IN ? BH_INTERRUPT : BH_BULK, bytes, length);
}

static void assert_ended(const struct flight *f, enum bh_status status, uint32_t actual)
{
	assert_true(f->done);
	assert_int_equal(f->status, status);
	assert_int_equal(f->transfer.actual, actual);
}

/* --- a port, which only listens -------------------------------------------------------------------- */

static int attach_answer;
static struct bh_device marker; /* "what hangs from the hub" */

static int heard_attached(struct bh_device *d)
{
	assert_ptr_equal(d, top);
	note("attached ");
	return attach_answer;
}

static void heard_detached(struct bh_device *d)
{
	assert_ptr_equal(d, top);
	note(d->sticky ? "detached " : "gone ");
}

static void heard_wakeup(struct bh_device *d)
{
	assert_ptr_equal(d, top);
	note("wakeup ");
}

static void heard_port_power(struct bh_device *d, unsigned port, bool on)
{
	assert_ptr_equal(d, top);
	note("power(%u,%d) ", port, on);
}

static void heard_port_reset(struct bh_device *d, unsigned port)
{
	assert_ptr_equal(d, top);
	note("reset(%u) ", port);
}

static void heard_port_enable(struct bh_device *d, unsigned port, bool enabled)
{
	assert_ptr_equal(d, top);
	note("enable(%u,%d) ", port, enabled);
}

static void heard_port_suspend(struct bh_device *d, unsigned port, bool suspended)
{
	assert_ptr_equal(d, top);
	note("suspend(%u,%d) ", port, suspended);
}

static const struct bh_device *heard_port_device(const struct bh_device *d, unsigned port)
{
	assert_ptr_equal(d, top);
	note("device(%u) ", port);
	return &marker;
}

static const struct bh_device_upcalls heard = {
	.attached = heard_attached,
	.detached = heard_detached,
	.wakeup = heard_wakeup,
	.port_power = heard_port_power,
	.port_reset = heard_port_reset,
	.port_enable = heard_port_enable,
	.port_suspend = heard_port_suspend,
	.port_device = heard_port_device,
};

static void plug(void)
{
	attach_answer = 0;
	top->upcalls = &heard;
}

/* --- layers of the test's own ----------------------------------------------------------------------- */

struct probe {
	struct bh_layer layer;
	char name;
};

static struct bh_passage *kept[8]; /* by keep(), not ended */
static unsigned kept_count;

static struct bh_layer *put_probe(const struct bh_layer_ops *probe_ops, char name)
{
	struct probe *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	p->name = name;
	bh_layer_init(&p->layer, probe_ops, top);
	top = &p->layer.device;
	kept_count = 0;
	return &p->layer;
}

static char name_of(const struct bh_layer *l)
{
	return ((const struct probe *)l)->name;
}

static void noted_begin(struct bh_layer *l, struct bh_passage *p)
{
	note("%c-begins ", name_of(l));
	bh_layer_pass(p);
}

static void noted_ended(struct bh_layer *l, struct bh_passage *p, enum bh_status status)
{
	note("%c-ended ", name_of(l));
	bh_layer_end(p, status, p->below.actual);
}

static void noted_reset(struct bh_layer *l)
{
	note("%c-reset ", name_of(l));
}

static void noted_finish(struct bh_layer *l)
{
	note("%c-finish ", name_of(l));
	assert_int_equal(device.destroyed, 1);
	assert_true(bh_list_empty(&l->passages));
}

static const struct bh_layer_ops nothing, noted = {
	.begin = noted_begin, .ended = noted_ended, .reset = noted_reset, .finish = noted_finish,
};

static void keep(struct bh_layer *l, struct bh_passage *p)
{
	(void)l;
	kept[kept_count++] = p;
}

static const struct bh_layer_ops keeps = {.begin = keep};

/* --- the base: transfers ------------------------------------------------------------------------------ */

static void a_layer_with_nothing_to_add_passes_transfers_as_they_are(void **state)
{
	struct bh_packet packets[2];
	struct flight f;

	(void)state;
	put_probe(&nothing, 'a');
	bring(&f, OUT, 200);
	assert_ended(&f, BH_SUCCESS, 200);
	assert_memory_equal(device.out, bytes, 200);
	assert_int_equal(seen.endpoint, OUT);
	assert_int_equal(seen.type, BH_BULK);
	assert_int_equal(seen.flags, 0);
	assert_int_equal(seen.span_count, 1);
	device.actual_limit = 100;
	bring(&f, IN, 256);
	assert_ended(&f, BH_SUCCESS, 100);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(bytes[i], (uint8_t)(i * 5 + 1));
	bring(&f, INT_IN, 8);
	assert_ended(&f, BH_SUCCESS, 8);
	assert_int_equal(seen.type, BH_INTERRUPT);
	bring(&f, OUT, 0);
	assert_ended(&f, BH_SUCCESS, 0);
	flight_init(&f, ISO_OUT, BH_ISOCHRONOUS, bytes, 20);
	f.transfer.flags = BH_TRANSFER_ZERO_PACKET | BH_TRANSFER_REQUEST_ENDS | BH_TRANSFER_REQUEST_GOES_ON;
	f.transfer.packets = packets;
	f.transfer.packet_count = 2;
	bh_device_submit(top, &f.transfer);
	assert_int_equal(seen.flags, BH_TRANSFER_ZERO_PACKET | BH_TRANSFER_REQUEST_ENDS | BH_TRANSFER_REQUEST_GOES_ON);
	assert_ptr_equal(seen.packets, packets);
	assert_int_equal(seen.packet_count, 2);
	assert_int_equal(device.submits, 5);
}

static void a_layer_passes_how_a_transfer_ended(void **state)
{
	struct flight f;

	(void)state;
	put_probe(&nothing, 'a');
	device.hold = true;
	for (unsigned s = BH_SUCCESS; s < BH_STATUS_COUNT; s++) {
		bring(&f, OUT, 100);
		assert_false(f.done);
		end_taken(0, (enum bh_status)s, 10 + s);
		assert_ended(&f, (enum bh_status)s, 10 + s);
	}
}

/* More than one under way, and the next brought while one ends. */
static struct flight second;

static void bring_second(struct bh_transfer *t, enum bh_status status)
{
	flight_done(t, status);
	bring(&second, OUT, 5);
}

static void transfers_under_way_do_not_mix(void **state)
{
	struct flight f[3];

	(void)state;
	put_probe(&nothing, 'a');
	device.hold = true;
	for (unsigned i = 0; i < 3; i++)
		bring(&f[i], i == 1 ? IN : OUT, 64 * (i + 1));
	f[0].transfer.done = bring_second;
	assert_int_equal(taken_count, 3);
	end_taken(1, BH_SUCCESS, 128);
	assert_ended(&f[1], BH_SUCCESS, 128);
	assert_false(f[0].done || f[2].done);
	end_taken(0, BH_SUCCESS, 64);
	assert_ended(&f[0], BH_SUCCESS, 64);
	assert_false(f[2].done || second.done);
	end_taken(0, BH_STALL, 3);
	assert_ended(&f[2], BH_STALL, 3);
	end_taken(0, BH_SUCCESS, 5);
	assert_ended(&second, BH_SUCCESS, 5);
}

static void a_transfer_that_was_passed_is_cancelled_below_as_often_as_above(void **state)
{
	struct flight f[2];

	(void)state;
	put_probe(&nothing, 'a');
	device.hold = true;
	bring(&f[0], OUT, 64);
	bring(&f[1], OUT, 64);
	bh_device_cancel(top, &f[1].transfer);
	assert_ended(&f[1], BH_CANCELLED, 0);
	assert_false(f[0].done);
	assert_int_equal(device.cancels, 1);
	slow_cancel = true;
	bh_device_cancel(top, &f[0].transfer);
	bh_device_cancel(top, &f[0].transfer);
	assert_int_equal(device.cancels, 3);
	assert_false(f[0].done);
	end_taken(0, BH_SUCCESS, 64); /* what it reached first */
	assert_ended(&f[0], BH_SUCCESS, 64);
}

static void a_transfer_that_is_held_is_cancelled_in_the_layer(void **state)
{
	struct flight f[2];

	(void)state;
	put_probe(&keeps, 'a');
	bring(&f[0], OUT, 64);
	bring(&f[1], OUT, 64);
	assert_int_equal(kept_count, 2);
	bh_device_cancel(top, &f[0].transfer);
	assert_ended(&f[0], BH_CANCELLED, 0);
	assert_false(f[1].done);
	bh_layer_pass(kept[1]);
	assert_ended(&f[1], BH_SUCCESS, 64);
	assert_int_equal(device.submits, 1);
	assert_int_equal(device.cancels, 0);
}

static void partly(struct bh_layer *l, struct bh_passage *p)
{
	(void)l;
	bh_layer_end(p, BH_SUCCESS, 17);
}

static void a_layer_says_how_what_it_holds_ends_when_cancelled(void **state)
{
	static const struct bh_layer_ops partly_ops = {.begin = keep, .cancel = partly};
	struct flight f;

	(void)state;
	put_probe(&partly_ops, 'a');
	bring(&f, OUT, 64);
	bh_device_cancel(top, &f.transfer);
	assert_ended(&f, BH_SUCCESS, 17);
	bring(&f, OUT, 64);
	bh_device_reset(top); /* asks nobody */
	assert_ended(&f, BH_CANCELLED, 0);
	bring(&f, OUT, 64);
	destroy();
	assert_ended(&f, BH_CANCELLED, 0);
}

static void half_of_it(struct bh_layer *l, struct bh_passage *p)
{
	note("%c:%u ", name_of(l), p->below.actual);
	bh_transfer_progress(p->above, p->below.actual / 2);
}

static void progress_is_passed_on_unless_the_layer_does_it(void **state)
{
	static const struct bh_layer_ops halves = {.progress = half_of_it};
	struct flight f;

	(void)state;
	put_probe(&nothing, 'a');
	device.hold = true;
	bring(&f, OUT, 256);
	bh_transfer_progress(taken[0], 64);
	assert_int_equal(f.progress, 1);
	assert_int_equal(f.transfer.actual, 64);
	f.transfer.progress = NULL; /* nobody asked */
	bh_transfer_progress(taken[0], 128);
	assert_int_equal(f.progress, 1);
	assert_int_equal(f.transfer.actual, 128);
	end_taken(0, BH_SUCCESS, 256);
	assert_ended(&f, BH_SUCCESS, 256);
	put_probe(&halves, 'b');
	bring(&f, OUT, 256);
	bh_transfer_progress(taken[0], 64);
	assert_journal("b:64 ");
	assert_int_equal(f.progress, 1);
	assert_int_equal(f.transfer.actual, 32);
	end_taken(0, BH_SUCCESS, 256);
	assert_ended(&f, BH_SUCCESS, 256);
}

static void shorten(struct bh_layer *l, struct bh_passage *p)
{
	(void)l;
	p->below.length = 10;
	p->below.flags = BH_TRANSFER_ZERO_PACKET;
	bh_layer_pass(p);
}

static void a_layer_changes_what_the_device_is_given(void **state)
{
	static const struct bh_layer_ops shortens = {.begin = shorten};
	struct flight f;

	(void)state;
	put_probe(&shortens, 'a');
	bring(&f, OUT, 64);
	assert_ended(&f, BH_SUCCESS, 10);
	assert_int_equal(seen.length, 10);
	assert_int_equal(seen.flags, BH_TRANSFER_ZERO_PACKET);
	assert_int_equal(f.transfer.length, 64);
	assert_int_equal(f.transfer.flags, 0);
}

/* --- the base: operations --------------------------------------------------------------------------- */

static void every_operation_is_passed_on(void **state)
{
	(void)state;
	put_probe(&nothing, 'a');
	assert_int_equal(set_configuration(top, 5), BH_SUCCESS);
	assert_int_equal(device.configuration, 5);
	assert_int_equal(set_configuration(top, 9), BH_STALL);
	assert_int_equal(set_interface(top, 3, 2), BH_SUCCESS);
	assert_int_equal(device.interface, 3);
	assert_int_equal(device.alternate, 2);
	assert_int_equal(clear_halt(top, IN), BH_SUCCESS);
	assert_int_equal(device.halted_cleared, IN);
	assert_int_equal(device.submits, 0);
	assert_int_equal(request(top, 0x80, 6, 0x100, 0, bytes, 18, NULL), BH_SUCCESS);
	assert_int_equal(device.submits, 1);
	assert_int_equal(seen.setup.bRequest, 6);
	assert_int_equal(seen.length, 18);
	bh_device_suspend(top, true);
	bh_device_suspend(top, true);
	bh_device_suspend(top, false);
	assert_int_equal(device.suspends, 2);
	assert_int_equal(device.resumes, 1);
	bh_device_power_on(top);
	bh_device_reset(top);
	assert_journal("power-on reset ");
	assert_int_equal(device.resets, 1);
	assert_ptr_equal(bh_device_endpoint(top, IN), &fake_endpoints[1]);
	assert_null(bh_device_endpoint(top, 0x84));
	assert_ptr_equal(bh_device_descriptors(top).device, device_descriptor);
}

/* Those that a device need not have. */
static void operations_that_the_device_has_not_do_nothing(void **state)
{
	static const struct bh_setup seven = {0, 9, {{7, 0}}, {{0, 0}}, {{0, 0}}};

	(void)state;
	ops.suspend = NULL;
	ops.power_on = NULL;
	ops.refuses = NULL;
	ops.descriptors = NULL;
	put_probe(&nothing, 'a');
	bh_device_suspend(top, true);
	bh_device_power_on(top);
	assert_false(bh_device_refuses(top, &seven));
	assert_null(bh_device_descriptors(top).device);
	assert_int_equal(device.suspends, 0);
	assert_journal("");
}

static void what_the_device_refuses_comes_to_it_by_submit(void **state)
{
	static const struct bh_setup six = {0, 9, {{6, 0}}, {{0, 0}}, {{0, 0}}}, seven = {0, 9, {{7, 0}}, {{0, 0}}, {{0, 0}}};
	struct flight f;

	(void)state;
	put_probe(&nothing, 'a');
	put_probe(&nothing, 'b');
	assert_false(bh_device_refuses(top, &six));
	assert_true(bh_device_refuses(top, &seven));
	assert_int_equal(bh_device_operation(top, &six), BH_OPERATION_SET_CONFIGURATION);
	assert_int_equal(bh_device_operation(top, &seven), BH_OPERATION_SUBMIT);
	device.status = BH_STALL;
	flight_init(&f, 0, BH_CONTROL, NULL, 0);
	f.transfer.setup = seven;
	bh_device_request(top, &f.transfer);
	assert_ended(&f, BH_STALL, 0);
	assert_int_equal(device.submits, 1);
	assert_int_equal(device.configuration, 0);
	f.done = false;
	f.transfer.setup = six;
	bh_device_request(top, &f.transfer);
	assert_ended(&f, BH_SUCCESS, 0);
	assert_int_equal(device.submits, 1);
	assert_int_equal(device.configuration, 6);
}

static const struct bh_endpoint_info own_endpoint = {.address = 0x84, .type = BH_BULK, .max_packet = 32};

static const struct bh_endpoint_info *own_endpoints(const struct bh_layer *l, uint8_t address)
{
	(void)l;
	return address == 0x84 ? &own_endpoint : NULL;
}

static bool refuses_all(const struct bh_layer *l, const struct bh_setup *setup)
{
	(void)l, (void)setup;
	return true;
}

static struct bh_descriptors own_descriptors(const struct bh_layer *l)
{
	(void)l;
	return (struct bh_descriptors){.device = bytes};
}

static void shows_less(struct bh_layer *l)
{
	assert_int_equal(l->device.speed, l->below->speed);
	l->device.speed = BH_SPEED_LOW;
	l->device.control_max_packet = 64;
}

static void a_layer_says_something_else_of_the_device(void **state)
{
	static const struct bh_layer_ops says = {
		.endpoint = own_endpoints, .refuses = refuses_all, .descriptors = own_descriptors, .sync = shows_less,
	};
	static const struct bh_setup one = {0, 9, {{1, 0}}, {{0, 0}}, {{0, 0}}};

	(void)state;
	put_probe(&says, 'a');
	assert_ptr_equal(bh_device_endpoint(top, 0x84), &own_endpoint);
	assert_null(bh_device_endpoint(top, IN));
	assert_true(bh_device_refuses(top, &one));
	assert_ptr_equal(bh_device_descriptors(top).device, bytes);
	assert_int_equal(top->speed, BH_SPEED_LOW);
	assert_int_equal(top->control_max_packet, 64);
	bh_device_reset(top);
	assert_int_equal(top->speed, BH_SPEED_LOW);
}

static void what_the_device_is_shows_through_all_layers(void **state)
{
	(void)state;
	device.device.speed = BH_SPEED_HIGH;
	device.device.control_max_packet = 32;
	device.device.finishes = true;
	device.device.us_per_kib = 77;
	device.device.cancel_loses = true;
	device.device.sticky = true;
	put_probe(&nothing, 'a');
	put_probe(&nothing, 'b');
	assert_int_equal(top->speed, BH_SPEED_HIGH);
	assert_int_equal(top->control_max_packet, 32);
	assert_true(top->finishes);
	assert_int_equal(top->us_per_kib, 77);
	assert_true(top->cancel_loses);
	assert_true(top->sticky);
	assert_null(top->hub);
	device.device.us_per_kib = 78;
	bh_device_reset(top); /* it may have changed */
	assert_int_equal(top->us_per_kib, 78);
}

static void note_finishes(struct bh_transfer *t, enum bh_status status)
{
	flight_done(t, status);
	note("%d ", top->finishes);
}

static void whether_it_finishes_changes_with_the_configuration(void **state)
{
	struct flight f;

	(void)state;
	put("fault:error@99");
	put_probe(&nothing, 'a');
	for (uint8_t value = 1; value <= 3; value++) {
		flight_init(&f, 0, BH_CONTROL, NULL, 0);
		f.transfer.setup = (struct bh_setup){0, 9, {{value, 0}}, {{0, 0}}, {{0, 0}}};
		f.transfer.done = note_finishes; /* already when it is told */
		bh_device_request(top, &f.transfer);
		assert_ended(&f, BH_SUCCESS, 0);
	}
	assert_journal("0 1 0 ");
	assert_int_equal(set_configuration(top, 2), BH_SUCCESS);
	bring(&f, OUT, 10); /* nothing else changes it */
	assert_true(top->finishes);
}

/* --- the base: what happens to the device ------------------------------------------------------------- */

static void cancel_noted(struct bh_layer *l, struct bh_passage *p)
{
	note("%c-cancel ", name_of(l));
	bh_layer_end(p, BH_CANCELLED, 0);
}

static void a_reset_ends_what_is_held_after_the_device_was_reset(void **state)
{
	static const struct bh_layer_ops resets = {.begin = keep, .cancel = cancel_noted, .reset = noted_reset};
	struct flight f[2];

	(void)state;
	put_probe(&resets, 'a');
	bring(&f[0], OUT, 64);
	bring(&f[1], IN, 64);
	device.hold = true;
	bh_layer_pass(kept[0]);
	bh_device_reset(top);
	assert_ended(&f[0], BH_CANCELLED, 0);
	assert_ended(&f[1], BH_CANCELLED, 0);
	assert_journal("reset a-reset ");
}

static void bring_again(struct bh_transfer *t, enum bh_status status)
{
	flight_done(t, status);
	bring(&second, OUT, 64);
}

static void what_comes_while_a_reset_ends_others_is_not_ended_by_it(void **state)
{
	struct flight f[2];

	(void)state;
	put_probe(&keeps, 'a');
	bring(&f[0], OUT, 64);
	bring(&f[1], OUT, 64);
	f[0].transfer.done = bring_again;
	bh_device_reset(top);
	assert_ended(&f[0], BH_CANCELLED, 0);
	assert_ended(&f[1], BH_CANCELLED, 0);
	assert_false(second.done);
	assert_int_equal(kept_count, 3);
	bh_layer_end(kept[2], BH_SUCCESS, 64);
	assert_ended(&second, BH_SUCCESS, 64);
}

static void destroying_ends_what_the_layers_and_the_device_have(void **state)
{
	struct flight f[4];

	(void)state;
	put_probe(&noted, 'a');
	put_probe(&keeps, 'b');
	put_probe(&noted, 'c');
	device.hold = true;
	for (unsigned i = 0; i < 4; i++)
		bring(&f[i], i & 1 ? IN : OUT, 64);
	bh_layer_pass(kept[0]);
	bh_layer_pass(kept[3]);
	assert_journal("c-begins c-begins c-begins c-begins a-begins a-begins ");
	destroy();
	for (unsigned i = 0; i < 4; i++)
		assert_ended(&f[i], BH_CANCELLED, 0);
	assert_int_equal(device.destroyed, 1);
	assert_journal("a-ended c-ended a-ended c-ended a-finish c-ended c-ended c-finish ");
}

static void layers_stand_in_the_order_in_which_they_were_put(void **state)
{
	struct flight f;

	(void)state;
	put_probe(&noted, 'a');
	put_probe(&noted, 'b');
	put_probe(&noted, 'c');
	bring(&f, OUT, 64);
	assert_ended(&f, BH_SUCCESS, 64);
	assert_journal("c-begins b-begins a-begins a-ended b-ended c-ended ");
	bh_device_reset(top);
	assert_journal("reset a-reset b-reset c-reset ");
	destroy();
	assert_journal("a-finish b-finish c-finish ");
}

/* --- the base: what the device tells -------------------------------------------------------------------- */

static void in_no_port_nothing_is_told(void **state)
{
	(void)state;
	device.device.sticky = true;
	put_probe(&nothing, 'a');
	assert_int_equal(bh_device_attach(&device.device), -ENOTCONN);
	bh_device_detach(&device.device);
	bh_device_wakeup(&device.device);
	assert_null(bh_hub_port_device(&device.device, 0));
}

static int attach_result;

static int noted_attached(struct bh_layer *l)
{
	note("%c-attached ", name_of(l));
	return attach_result;
}

static void noted_detached(struct bh_layer *l)
{
	note("%c-detached ", name_of(l));
}

static void a_device_that_comes_and_goes_does_so_through_layers(void **state)
{
	static const struct bh_layer_ops attaches = {.attached = noted_attached, .detached = noted_detached};

	(void)state;
	device.device.sticky = true;
	attach_result = 0;
	put_probe(&attaches, 'a');
	put_probe(&attaches, 'b');
	plug();
	device.device.speed = BH_SPEED_LOW;
	device.device.control_max_packet = 16;
	assert_int_equal(bh_device_attach(&device.device), 0);
	assert_journal("a-attached b-attached attached ");
	assert_int_equal(top->speed, BH_SPEED_LOW);
	assert_int_equal(top->control_max_packet, 16);
	bh_device_wakeup(&device.device);
	assert_journal("wakeup ");
	bh_device_detach(&device.device);
	assert_journal("a-detached b-detached detached ");
	attach_answer = -ENOTSUP;
	assert_int_equal(bh_device_attach(&device.device), -ENOTSUP);
	assert_journal("a-attached b-attached attached ");
	attach_result = -EPROTO;
	assert_int_equal(bh_device_attach(&device.device), -EPROTO);
	assert_journal("a-attached ");
	device.device.sticky = false; /* it cannot come back */
	bh_device_detach(&device.device);
	assert_journal("a-detached b-detached gone ");
	top->upcalls = NULL;
}

static void destroy_and_tell(struct bh_device *d)
{
	bh_device_wakeup(d);
	bh_device_detach(d);
	device_destroy(d);
}

static void a_device_that_is_destroyed_is_not_listened_to(void **state)
{
	static const struct bh_layer_ops detaches = {.detached = noted_detached};

	(void)state;
	ops.destroy = destroy_and_tell;
	put_probe(&detaches, 'a');
	destroy();
	assert_journal("");
}

static void told_port(struct bh_device *d, unsigned port, bool connected)
{
	assert_ptr_equal(d, &device.device);
	note("connected(%u,%d) ", port, connected);
}

static void told_wakeup(struct bh_device *d, unsigned port)
{
	assert_ptr_equal(d, &device.device);
	note("wakeup(%u) ", port);
}

static void a_hub_tells_and_is_told_through_layers(void **state)
{
	static const struct bh_hub_ops hub_ops = {.connected = told_port, .wakeup = told_wakeup};

	(void)state;
	device.device.hub = &hub_ops;
	device.device.hub_ports = 5;
	put_probe(&nothing, 'a');
	put_probe(&nothing, 'b');
	put_probe(&nothing, 'c'); /* an odd number: what is turned round is not turned back */
	assert_non_null(top->hub);
	assert_int_equal(top->hub_ports, 5);
	plug();
	bh_hub_port_power(&device.device, 1, true);
	bh_hub_port_power(&device.device, 2, false);
	bh_hub_port_reset(&device.device, 3);
	bh_hub_port_enable(&device.device, 4, true);
	bh_hub_port_enable(&device.device, 0, false);
	bh_hub_port_suspend(&device.device, 1, true);
	bh_hub_port_suspend(&device.device, 2, false);
	assert_ptr_equal(bh_hub_port_device(&device.device, 3), &marker);
	assert_journal("power(1,1) power(2,0) reset(3) enable(4,1) enable(0,0) suspend(1,1) suspend(2,0) device(3) ");
	top->hub->connected(top, 4, true);
	top->hub->connected(top, 2, false);
	top->hub->wakeup(top, 1);
	assert_journal("connected(4,1) connected(2,0) wakeup(1) ");
	top->upcalls = NULL;
}

/* --- the base: on a bus ------------------------------------------------------------------------------------ */

#define PORT_SHOWS (PORTSC_CCS | PORTSC_CSC | PORTSC_PE)

static unsigned port(void)
{
	return inw(PORTSC) & PORT_SHOWS;
}

static void start_machine(void)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;

	machine(&config);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, top), 0);
	run();
	frames(1);
}

/* Which destroys the device. */
static void stop_machine(void)
{
	machine_finish();
	top = NULL;
}

static void a_sticky_device_keeps_its_port_under_layers(void **state)
{
	(void)state;
	device.device.sticky = true;
	put("fault:error@99");
	put_probe(&nothing, 'a');
	start_machine();
	assert_int_equal(port(), 0);
	for (unsigned i = 0; i < 2; i++) {
		device.resets = 0;
		assert_int_equal(bh_device_attach(&device.device), 0);
		assert_int_equal(port(), PORTSC_CCS | PORTSC_CSC);
		assert_int_equal(device.resets, 1);
		enable_port(0);
		frames(1);
		device.hold = true;
		only_queue(BH_PID_IN, 2, 4, 0);
		frames(2);
		assert_int_equal(taken_count, 1);
		bh_device_detach(&device.device);
		assert_int_equal(taken_count, 0);
		assert_int_equal(port(), PORTSC_CSC);
		frames(4);
		assert_int_equal(control_of(0) & ENDED, LOST);
		frame_list(LINK_T);
		outw(PORTSC, PORTSC_CSC | PORTSC_PEC);
		frames(300);
		assert_ptr_equal(bh_port_device(&bh_uhci_bus(uhci)->ports[0]), top);
		assert_int_equal(device.destroyed, 0);
	}
	device.device.speed = BH_SPEED_HIGH;
	assert_int_equal(bh_device_attach(&device.device), -ENOTSUP);
	assert_int_equal(port(), 0);
	stop_machine();
	assert_int_equal(device.destroyed, 1);
}

static void what_hangs_from_a_hub_under_layers_shows(void **state)
{
	static const struct bh_hub_config config = {.ports = 2};
	struct bh_device *hub;
	uint8_t b[4] = {0};

	(void)state;
	put("fault:error@99");
	assert_int_equal(bh_hub_create(&config, &hub), 0);
	assert_int_equal(bh_layers_put(&context, "fault:error@99+fault:hang@99", &hub, error), 0);
	machine(&BH_UHCI_DEFAULTS);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, hub), 0);
	assert_int_equal(bh_port_attach(bh_bus_port(bh_uhci_bus(uhci), "1.2"), top), 0);
	run();
	enable_port(0);
	assert_int_equal(set_configuration(hub, 1), BH_SUCCESS);
	assert_int_equal(request(hub, 0xa3, 0, 0, 2, b, 4, NULL), BH_SUCCESS);
	assert_int_equal(b[0] & 1, 0);
	assert_int_equal(request(hub, 0x23, 3, 8, 2, NULL, 0, NULL), BH_SUCCESS); /* power */
	assert_int_equal(request(hub, 0xa3, 0, 0, 2, b, 4, NULL), BH_SUCCESS);
	assert_int_equal(b[0], 0x01); /* connected */
	assert_int_equal(b[1], 0x01); /* powered */
	assert_int_equal(b[2], 0x01); /* which is new */
	device.resets = 0;
	assert_int_equal(request(hub, 0x23, 3, 4, 2, NULL, 0, NULL), BH_SUCCESS); /* reset */
	assert_int_equal(device.resets, 1);
	assert_int_equal(request(hub, 0xa3, 0, 0, 2, b, 4, NULL), BH_SUCCESS);
	assert_int_equal(b[0], 0x03); /* enabled */
	assert_int_equal(request(hub, 0x23, 3, 2, 2, NULL, 0, NULL), BH_SUCCESS); /* suspend */
	assert_int_equal(device.suspends, 1);
	assert_int_equal(request(hub, 0xa3, 0, 0, 2, b, 4, NULL), BH_SUCCESS);
	assert_int_equal(b[0], 0x07);
	bh_device_wakeup(&device.device);
	assert_int_equal(device.resumes, 1);
	assert_int_equal(request(hub, 0xa3, 0, 0, 2, b, 4, NULL), BH_SUCCESS);
	assert_int_equal(b[0], 0x03);
	stop_machine();
	assert_int_equal(device.destroyed, 1);
}

/* --- the text ------------------------------------------------------------------------------------------- */

static void the_text_names_layers_from_the_device_up(void **state)
{
	static const char *const expected[] = {"capture", "delay", "fault"};
	struct bh_layer_counter counters[BH_LAYER_COUNTERS];
	struct bh_device *d;
	const char *name = NULL;
	unsigned n = 99;

	(void)state;
	snprintf(layers, sizeof(layers), "fault:error@99:endpoint=0x82+delay:1ms:seed=3+capture:%s", path);
	put(layers);
	d = top;
	for (unsigned i = 0; i < 3; i++) {
		assert_non_null(bh_layer_of(d));
		assert_ptr_equal(bh_layers_bottom(d), &device.device);
		d = bh_layer_counters(d, &name, counters, &n);
		assert_string_equal(name, expected[i]);
		assert_int_equal(n, i == 0 ? 4 : 2);
	}
	assert_ptr_equal(d, &device.device);
	assert_null(bh_layer_of(d));
	assert_ptr_equal(bh_layers_bottom(d), d);
	assert_null(bh_layer_counters(d, &name, counters, &n));
	assert_int_equal(n, 0);
}

static void names_are_found_in_the_text(void **state)
{
	(void)state;
	assert_true(bh_layers_name("translate", "translate"));
	assert_true(bh_layers_name("delay:1ms+translate", "translate"));
	assert_true(bh_layers_name("translate+delay:1ms", "translate"));
	assert_true(bh_layers_name("delay:1ms+translate+fault:error", "delay"));
	assert_true(bh_layers_name("delay:1ms+translate+fault:error", "fault"));
	assert_false(bh_layers_name("", "translate"));
	assert_false(bh_layers_name("translated", "translate"));
	assert_false(bh_layers_name("trans", "translate"));
	assert_false(bh_layers_name("capture:translate", "translate"));
	assert_false(bh_layers_name("capture:a:translate", "translate"));
	assert_false(bh_layers_name("+", "translate"));
}

static void sixteen_layers_may_stand_on_each_other(void **state)
{
	char text[600] = "fault:error@9";
	unsigned n = 0;
	struct flight f;

	(void)state;
	for (unsigned i = 1; i < 16; i++)
		strcat(text, "+fault:error@9");
	put(text);
	for (struct bh_device *d = top; bh_layer_of(d); d = bh_layer_of(d)->below)
		n++;
	assert_int_equal(n, 16);
	bring(&f, OUT, 64);
	assert_ended(&f, BH_SUCCESS, 64);
	tear_down(state);

	set_up(state);
	strcat(text, "+fault:error@9");
	assert_int_equal(bh_layers_put(&context, text, &top, error), -EINVAL);
	assert_string_equal(error, "layers=: at most 16 layers may stand on each other");
}

static void what_is_no_layer_is_refused_with_one_line(void **state)
{
	static const char *const bad[] = {
		"", "+", "nothing", "Delay:1ms", "delay:1ms+", "+delay:1ms", "delay:1ms++delay:1ms", "delays:1ms", ":delay", "fault ",
		"translate:1",
		"delay", "delay:", "delay:0", "delay:x", "delay:-1", "delay:1m", "delay:1 ms", "delay:ms", "delay::1ms", "delay:3601s",
		"delay:9999999999999999", "delay:1.5ms", "delay:1ms:2ms", "delay:jitter=1ms", "delay:1ms:jitter", "delay:1ms:jitter=",
		"delay:1ms:jitter=x", "delay:1ms:jitter=3601s", "delay:1ms:rate=0", "delay:1ms:rate=", "delay:1ms:rate=1G", "delay:1ms:rate=5000M",
		"delay:1ms:seed=0", "delay:1ms:seed=x", "delay:1ms:count=2", "delay:1ms::jitter=1ms",
		"fault", "fault:", "fault:nothing", "fault:Stall", "fault:@1", "fault:stall@", "fault:stall@0", "fault:stall@x", "fault:stall=1",
		"fault:stall@-1", "fault:every=2", "fault:stall:every=0", "fault:stall:every", "fault:stall:every=x", "fault:stall:p=0",
		"fault:stall:p=101", "fault:stall:p=-1", "fault:stall:p=x", "fault:stall:p=", "fault:stall:p=nan", "fault:stall:p=1%",
		"fault:stall:count=0", "fault:stall:count=x", "fault:stall:endpoint=", "fault:stall:endpoint=x", "fault:stall:endpoint=0x80",
		"fault:stall:endpoint=0x11", "fault:stall:endpoint=0x101", "fault:stall:endpoint=-1", "fault:stall:seed=0",
		"fault:stall:seed=-1", "fault:stall:jitter=1ms", "fault:stall@1:every=2", "fault:stall@1:p=2", "fault:stall:every=2:p=2",
		"fault:stall:hang", "fault:stall::p=1",
		"capture", "capture:", "capture:/dev/null", "capture:/nowhere/at/all", "capture:/tmp",
	};
	char text[700];

	(void)state;
	for (size_t i = 0; i < BH_COUNT(bad); i++) {
		memset(error, 0, sizeof(error));
		if (bh_layers_put(&context, bad[i], &top, error) >= 0)
			fail_msg("'%s' was taken", bad[i]);
		assert_in_range(strlen(error), 10, BH_LAYER_ERROR_SIZE - 1);
		assert_null(strchr(error, '\n'));
	}
	assert_int_equal(bh_layers_put(&context, "nothing:1", &top, error), -EINVAL);
	assert_non_null(strstr(error, "no layer 'nothing'"));
	memset(text, 'x', sizeof(text)); /* longer than there is room for */
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(bh_layers_put(&context, text, &top, error), -EINVAL);
	memcpy(text, "delay:", 6);
	assert_int_equal(bh_layers_put(&context, text, &top, error), -EINVAL);
	memcpy(text, "fault:error:p=", 14);
	assert_int_equal(bh_layers_put(&context, text, &top, error), -EINVAL);
	memcpy(text, "capture:/xxxxx", 14);
	assert_int_equal(bh_layers_put(&context, text, &top, error), -EINVAL);
	assert_in_range(strlen(error), 10, BH_LAYER_ERROR_SIZE - 1);
	assert_true(device.destroyed == 0);
}

static void what_is_wrong_is_told_in_one_line_whatever_was_said(void **state)
{
	static const char *const bad[] = {"no\nlayer", "capture:/no\nwhere/file"};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(bad); i++) {
		assert_int_equal(bh_layers_put(&context, bad[i], &top, error), -EINVAL);
		assert_null(strchr(error, '\n'));
	}
}

static void a_layer_that_cannot_be_leaves_those_below_it(void **state)
{
	struct flight f;

	(void)state;
	assert_int_equal(bh_layers_put(&context, "fault:error@2+delay:1ms+fault:nothing+delay:2ms", &top, error), -EINVAL);
	assert_non_null(strstr(error, "layers=fault"));
	assert_ptr_equal(bh_layers_bottom(top), &device.device);
	assert_int_equal(counter(top, "transfers"), 0);
	bring(&f, OUT, 64);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_ended(&f, BH_SUCCESS, 64);
	assert_int_equal(counter(top, "transfers"), 1);
	destroy();
	assert_int_equal(device.destroyed, 1);
}

/* --- delay ---------------------------------------------------------------------------------------------- */

static struct flight *ended[64]; /* in order */
static uint64_t ended_us[64];
static unsigned ended_count;

static uint64_t now_us(void)
{
	return uv_hrtime() / 1000;
}

static void noted_end(struct bh_transfer *t, enum bh_status status)
{
	flight_done(t, status);
	ended_us[ended_count] = now_us();
	ended[ended_count++] = bh_container_of(t, struct flight, transfer);
}

static void bring_noted(struct flight *f, uint8_t endpoint, uint32_t length)
{
	flight_init(f, endpoint, endpoint == INT_IN ? BH_INTERRUPT : BH_BULK, bytes, length);
	f->transfer.done = noted_end;
	bh_device_submit(top, &f->transfer);
}

static void run_loop(void)
{
	ended_count = 0;
	uv_run(&loop, UV_RUN_DEFAULT);
}

static void a_delayed_transfer_is_told_not_before_its_time(void **state)
{
	static const struct {
		const char *text;
		uint64_t us;
	} rows[] = {{"delay:5ms", 5000}, {"delay:3", 3000}, {"delay:2500us", 2500}, {"delay:5ms:", 5000}};
	struct flight f;
	uint64_t sent;

	for (unsigned i = 0; i < BH_COUNT(rows); i++) {
		put(rows[i].text);
		device.actual_limit = 100;
		device.status = i == 1 ? BH_STALL : BH_SUCCESS;
		sent = now_us();
		bring_noted(&f, i == 2 ? IN : OUT, 128);
		assert_int_equal(device.submits, 1); /* the device has done it */
		assert_false(f.done);
		uv_run(&loop, UV_RUN_NOWAIT);
		assert_false(f.done && now_us() < sent + rows[i].us);
		run_loop();
		assert_ended(&f, device.status, 100);
		assert_true(now_us() - sent >= rows[i].us);
		assert_true(now_us() - sent < rows[i].us + 1000000);
		assert_int_equal(counter(top, "transfers"), 1);
		assert_int_equal(counter(top, "delayed_us"), rows[i].us);
		tear_down(state);
		set_up(state);
	}
}

static void control_transfers_are_delayed_too(void **state)
{
	struct flight f;
	uint64_t sent;

	(void)state;
	put("delay:2ms");
	flight_init(&f, 0, BH_CONTROL, NULL, 0);
	f.transfer.setup = (struct bh_setup){0, 9, {{2, 0}}, {{0, 0}}, {{0, 0}}};
	sent = now_us();
	bh_device_request(top, &f.transfer);
	assert_int_equal(device.configuration, 2);
	assert_false(f.done);
	run_loop();
	assert_ended(&f, BH_SUCCESS, 0);
	assert_true(now_us() - sent >= 2000);
}

static void with_jitter_transfers_to_one_endpoint_stay_in_order(void **state)
{
	enum { EACH = 12 };
	struct flight f[2][EACH];
	unsigned next[2] = {0, 0}, overtaken = 0;
	uint64_t sent;

	(void)state;
	put("delay:1ms:jitter=20ms:seed=5");
	sent = now_us();
	ended_count = 0;
	for (unsigned i = 0; i < EACH; i++) {
		bring_noted(&f[0][i], OUT, 64);
		bring_noted(&f[1][i], IN, 64);
	}
	run_loop();
	assert_int_equal(ended_count, 2 * EACH);
	for (unsigned i = 0; i < ended_count; i++) {
		unsigned which = ended[i] >= &f[1][0];

		assert_ptr_equal(ended[i], &f[which][next[which]]);
		next[which]++;
		overtaken += next[1] > next[0] || next[0] > next[1] + 1;
		assert_true(ended_us[i] - sent >= 1000);
	}
	assert_true(overtaken > 0); /* that of the other endpoint */
}

static uint64_t delays[2][8];

static void eight_delays(const char *text, uint64_t ret[8])
{
	uint64_t before = 0;
	struct flight f;

	put(text);
	for (unsigned i = 0; i < 8; i++) {
		bring_noted(&f, OUT, 64);
		run_loop();
		ret[i] = counter(top, "delayed_us") - before;
		before += ret[i];
	}
}

static void jitter_is_the_same_again_with_the_same_seed(void **state)
{
	static const char *const texts[] = {"delay:300us:jitter=1ms:seed=7", "delay:300us:jitter=1ms:seed=7", "delay:300us:jitter=1ms:seed=8"};
	unsigned different = 0;

	for (unsigned i = 0; i < 3; i++) {
		eight_delays(texts[i], delays[i > 0]);
		for (unsigned j = 0; j < 8; j++) {
			assert_in_range(delays[i > 0][j], 300, 1300);
			different += delays[0][j] != delays[1][j];
		}
		if (i == 0)
			different = 0;
		if (i == 1)
			assert_int_equal(different, 0);
		tear_down(state);
		set_up(state);
	}
	assert_true(different >= 6);
}

static void jitter_alone_is_a_delay(void **state)
{
	struct flight f;

	(void)state;
	put("delay:0:jitter=2ms");
	bring_noted(&f, OUT, 64);
	assert_false(f.done);
	run_loop();
	assert_ended(&f, BH_SUCCESS, 64);
	assert_in_range(counter(top, "delayed_us"), 0, 2000);
}

/* 4000 bytes at 1 MB/s take 4 ms, those of all endpoints one after another. */
static void with_a_rate_bytes_take_their_time_on_one_wire(void **state)
{
	struct flight f[3];
	uint64_t sent;

	(void)state;
	put("delay:0:rate=1M");
	sent = now_us();
	bring_noted(&f[0], OUT, 4000);
	assert_int_equal(counter(top, "delayed_us"), 4000);
	bring_noted(&f[1], IN, 4000);
	assert_in_range(counter(top, "delayed_us"), 4000 + 4000, 4000 + 8000);
	bring_noted(&f[2], OUT, 0);
	run_loop();
	assert_int_equal(ended_count, 3);
	assert_ptr_equal(ended[0], &f[0]);
	assert_ptr_equal(ended[1], &f[1]);
	assert_ptr_equal(ended[2], &f[2]);
	assert_true(ended_us[0] - sent >= 4000);
	assert_true(ended_us[1] - sent >= 8000);
	device.actual_limit = 1000; /* what moved counts */
	sent = counter(top, "delayed_us");
	bring_noted(&f[0], IN, 4000);
	assert_int_equal(counter(top, "delayed_us") - sent, 1000);
	run_loop();
}

static void the_rate_comes_before_the_time(void **state)
{
	struct flight f;

	(void)state;
	put("delay:3ms:rate=500k");
	bring_noted(&f, OUT, 1000);
	assert_int_equal(counter(top, "delayed_us"), 3000 + 2000);
	run_loop();
	assert_ended(&f, BH_SUCCESS, 1000);
}

static void a_rate_counts_large_transfers_as_well(void **state)
{
	struct flight f;

	(void)state;
	put("delay:0:rate=100M");
	bring_noted(&f, IN, 256 * 1024);
	assert_int_equal(counter(top, "delayed_us"), 2621);
	run_loop();
	assert_ended(&f, BH_SUCCESS, 256 * 1024);
}

static void a_rate_counts_isochronous_packets_as_well(void **state)
{
	struct bh_packet packets[2] = {{0, 1000, 0, BH_NO_RESPONSE}, {1000, 1000, 0, BH_NO_RESPONSE}};
	struct flight f;

	(void)state;
	put("delay:0:rate=1M");
	device.hold = true;
	flight_init(&f, ISO_OUT, BH_ISOCHRONOUS, bytes, 2000);
	f.transfer.packets = packets;
	f.transfer.packet_count = 2;
	bh_device_submit(top, &f.transfer);
	for (unsigned i = 0; i < 2; i++) {
		packets[i].actual = 1000;
		packets[i].status = BH_SUCCESS;
	}
	end_taken(0, BH_SUCCESS, 0);
	assert_int_equal(counter(top, "delayed_us"), 2000);
	run_loop();
	assert_ended(&f, BH_SUCCESS, 0);
}

static void cancelled_while_it_is_delayed_it_is_told_when_it_is_due(void **state)
{
	struct flight f[3];

	(void)state;
	put("delay:10ms");
	device.actual_limit = 70;
	bring_noted(&f[0], OUT, 128);
	device.status = BH_STALL;
	bring_noted(&f[1], IN, 128);
	device.status = BH_SUCCESS;
	bring_noted(&f[2], OUT, 64);
	bh_device_cancel(top, &f[0].transfer);
	bh_device_cancel(top, &f[1].transfer);
	assert_int_equal(device.cancels, 0);
	assert_false(f[0].done || f[1].done || f[2].done);
	run_loop();
	assert_ended(&f[0], BH_SUCCESS, 70); /* what it reached */
	assert_ended(&f[1], BH_STALL, 70);
	assert_ended(&f[2], BH_SUCCESS, 64);
}

static void cancelled_below_it_is_told_as_late(void **state)
{
	struct flight f[2];

	(void)state;
	put("delay:5ms");
	device.hold = true;
	bring_noted(&f[0], OUT, 128);
	bring_noted(&f[1], OUT, 128);
	bh_device_cancel(top, &f[0].transfer);
	assert_false(f[0].done);
	slow_cancel = true;
	bh_device_cancel(top, &f[1].transfer);
	end_taken(0, BH_SUCCESS, 128);
	assert_false(f[0].done || f[1].done);
	run_loop();
	assert_ended(&f[0], BH_CANCELLED, 0);
	assert_ended(&f[1], BH_SUCCESS, 128);
	assert_int_equal(device.cancels, 2);
	assert_int_equal(counter(top, "transfers"), 2);
}

static void a_reset_and_the_end_of_the_layer_wait_for_nothing(void **state)
{
	struct flight f[4];
	uint64_t sent = now_us();

	(void)state;
	put("delay:10s");
	bring_noted(&f[0], OUT, 128);
	device.hold = true;
	bring_noted(&f[1], OUT, 128);
	bh_device_reset(top);
	assert_ended(&f[0], BH_SUCCESS, 128);
	assert_ended(&f[1], BH_CANCELLED, 0);
	bring_noted(&f[2], OUT, 128);
	device.hold = false;
	bring_noted(&f[3], IN, 128);
	destroy();
	assert_ended(&f[2], BH_CANCELLED, 0);
	assert_ended(&f[3], BH_SUCCESS, 128);
	run_loop();
	assert_true(now_us() - sent < 5000000);
}

static void nobody_is_told_of_progress_far_away(void **state)
{
	struct flight f;

	(void)state;
	put("delay:1ms");
	device.hold = true;
	bring_noted(&f, OUT, 128);
	bh_transfer_progress(taken[0], 64);
	assert_int_equal(f.progress, 0);
	assert_int_equal(f.transfer.actual, 0);
	end_taken(0, BH_SUCCESS, 128);
	run_loop();
	assert_ended(&f, BH_SUCCESS, 128);
}

static void one_end_brings(struct bh_transfer *t, enum bh_status status)
{
	noted_end(t, status);
	bring_noted(&second, OUT, 64);
}

static void what_is_brought_while_others_are_told_is_delayed_too(void **state)
{
	struct flight f;
	uint64_t sent = now_us();

	(void)state;
	put("delay:3ms");
	second.done = false;
	bring_noted(&f, OUT, 64);
	f.transfer.done = one_end_brings;
	run_loop();
	assert_int_equal(ended_count, 2);
	assert_ptr_equal(ended[1], &second);
	assert_true(ended_us[0] - sent >= 3000);
	assert_true(ended_us[1] - ended_us[0] >= 3000);
}

/* --- fault ------------------------------------------------------------------------------------------------ */

/* One transfer after another, and how each ended: a letter. */
static char letter(enum bh_status s)
{
	return ".SBTEC?"[s];
}

static void transfers(unsigned n, uint8_t endpoint, const char *expected)
{
	char how[1100] = "";
	struct flight f;

	assert_true(n < sizeof(how));
	for (unsigned i = 0; i < n; i++) {
		bring(&f, endpoint, 64);
		assert_true(f.done);
		assert_int_equal(f.transfer.actual, f.status == BH_SUCCESS ? 64 : 0);
		how[i] = letter(f.status);
	}
	assert_string_equal(how, expected);
}

static enum bh_status control(void)
{
	return request(top, 0x80, 0, 0, 0, bytes, 2, NULL);
}

static void each_kind_ends_transfers_in_its_way(void **state)
{
	static const struct {
		const char *text;
		uint8_t endpoint;
		const char *expected;
	} rows[] = {
		{"fault:babble", IN, "B..."}, {"fault:babble", OUT, "E..."}, {"fault:error", IN, "E..."}, {"fault:error", OUT, "E..."},
		{"fault:timeout", IN, "T..."}, {"fault:timeout", OUT, "T..."}, {"fault:stall", IN, "SSSS"}, {"fault:stall", OUT, "SSSS"},
	};
	struct flight f;

	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		put(rows[i].text);
		transfers(4, rows[i].endpoint, rows[i].expected);
		assert_int_equal(device.submits, 4 - (unsigned)(strchr(rows[i].expected, '.') ? 1 : 4));
		assert_int_equal(counter(top, "faults"), 1);
		tear_down(state);
		set_up(state);
	}
	put("fault:hang");
	bring(&f, OUT, 64);
	assert_false(f.done);
	assert_int_equal(device.submits, 0);
	bh_device_cancel(top, &f.transfer);
	assert_ended(&f, BH_CANCELLED, 0);
	assert_int_equal(device.cancels, 0);
	transfers(3, OUT, "...");
}

static void the_text_says_which_transfers(void **state)
{
	static const struct {
		const char *text, *expected;
		unsigned faults;
	} rows[] = {
		{"fault:error", "E.........", 1},
		{"fault:error@1", "E.........", 1},
		{"fault:error@3", "..E.......", 1},
		{"fault:error@11", "..........", 0},
		{"fault:error:every=1", "EEEEEEEEEE", 10},
		{"fault:error:every=3", "..E..E..E.", 3},
		{"fault:error:every=3:count=2", "..E..E....", 2},
		{"fault:error:count=3", "E.........", 1},
		{"fault:error@2:count=1", ".E........", 1},
		{"fault:error:p=100", "EEEEEEEEEE", 10},
		{"fault:error:p=100:count=4", "EEEE......", 4},
		{"fault:error:every=2:endpoint=0x01", ".E.E.E.E.E", 5},
		{"fault:error:every=2:endpoint=1", ".E.E.E.E.E", 5},
		{"fault:error:every=2:endpoint=0x81", "..........", 0},
		{"fault:error:every=2:endpoint=0x82", "..........", 0},
		{"fault:error:every=2:endpoint=0", "..........", 0},
	};

	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		put(rows[i].text);
		assert_int_equal(control(), BH_SUCCESS); /* does not count */
		transfers(10, OUT, rows[i].expected);
		assert_int_equal(counter(top, "faults"), rows[i].faults);
		tear_down(state);
		set_up(state);
	}
	/* What the upper one does not let through, the lower does not count. */
	put("fault:error@4+fault:timeout:every=3");
	transfers(10, OUT, "..T.ET..T.");
	assert_int_equal(counter(top, "transfers"), 10);
	assert_int_equal(counter(bh_layer_of(top)->below, "transfers"), 7);
}

static void a_fault_of_one_endpoint_counts_and_concerns_only_that(void **state)
{
	(void)state;
	put("fault:error@2:endpoint=0x82");
	transfers(3, OUT, "...");
	transfers(1, IN, ".");
	transfers(3, OUT, "...");
	assert_int_equal(control(), BH_SUCCESS);
	transfers(3, IN, "E..");
	assert_int_equal(counter(top, "transfers"), 4);
}

static void without_an_endpoint_all_but_control_count(void **state)
{
	(void)state;
	put("fault:error@4");
	transfers(1, OUT, ".");
	transfers(1, IN, ".");
	assert_int_equal(control(), BH_SUCCESS);
	transfers(1, INT_IN, ".");
	assert_int_equal(control(), BH_SUCCESS);
	transfers(2, OUT, "E.");
}

static void endpoint_0_is_control_transfers(void **state)
{
	(void)state;
	put("fault:stall:every=2:endpoint=0");
	assert_int_equal(control(), BH_SUCCESS);
	transfers(4, OUT, "....");
	assert_int_equal(control(), BH_STALL);
	assert_int_equal(control(), BH_SUCCESS); /* the next SETUP ends a halt there */
	device.configuration = 99;
	assert_int_equal(set_configuration(top, 1), BH_STALL);
	assert_int_equal(device.configuration, 99);
	assert_int_equal(set_configuration(top, 1), BH_SUCCESS);
	assert_int_equal(device.configuration, 1);
	assert_int_equal(counter(top, "faults"), 2);
	assert_int_equal(counter(top, "transfers"), 5);
}

static void faults_by_chance(const char *text, char how[1001])
{
	struct flight f;

	put(text);
	for (unsigned i = 0; i < 1000; i++) {
		bring(&f, OUT, 64);
		how[i] = letter(f.status);
	}
	how[1000] = '\0';
}

static void chance_is_about_right_and_the_same_again_with_the_same_seed(void **state)
{
	static const struct {
		const char *text;
		unsigned least, most;
	} rows[] = {
		{"fault:error:p=25:seed=1", 200, 300}, {"fault:error:p=25", 200, 300}, {"fault:error:p=25:seed=2", 200, 300},
		{"fault:error:p=2.5:seed=9", 10, 45}, {"fault:error:p=90:seed=3", 860, 940}, {"fault:error:p=0.000001", 0, 0},
	};
	static char how[BH_COUNT(rows)][1001];

	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		faults_by_chance(rows[i].text, how[i]);
		assert_in_range(counter(top, "faults"), rows[i].least, rows[i].most);
		assert_int_equal(counter(top, "transfers"), 1000);
		tear_down(state);
		set_up(state);
	}
	assert_string_equal(how[0], how[1]); /* 1 where nothing is said */
	assert_string_not_equal(how[0], how[2]);
}

static void a_stall_stays_until_it_is_cleared(void **state)
{
	(void)state;
	put("fault:stall@2:endpoint=0x82");
	transfers(5, IN, ".SSSS");
	assert_int_equal(device.submits, 1);
	transfers(2, OUT, ".."); /* nobody else's */
	transfers(2, IN & 15, ".."); /* nor that of the other direction */
	transfers(1, INT_IN, ".");
	assert_int_equal(clear_halt(top, OUT), BH_SUCCESS);
	assert_int_equal(clear_halt(top, INT_IN), BH_SUCCESS);
	transfers(2, IN, "SS");
	assert_int_equal(request(top, 2, 3, 0, IN, NULL, 0, NULL), BH_SUCCESS); /* set is not clear */
	assert_int_equal(request(top, 2, 1, 1, IN, NULL, 0, NULL), BH_SUCCESS); /* nor another feature */
	assert_int_equal(set_configuration(top, 5) == BH_SUCCESS && device.configuration == 5, true);
	transfers(2, IN, "..");
	assert_int_equal(counter(top, "faults"), 1);
	assert_int_equal(counter(top, "transfers"), 4); /* what stalls by the halt is not counted */
}

static void clear_it_by_feature(void)
{
	assert_int_equal(clear_halt(top, OUT), BH_SUCCESS);
	assert_int_equal(device.halted_cleared, OUT); /* the device is told, too */
}

static void clear_it_by_configuration(void)
{
	assert_int_equal(set_configuration(top, 1), BH_SUCCESS);
}

static void clear_it_by_interface(void)
{
	assert_int_equal(set_interface(top, 0, 1), BH_SUCCESS);
}

static void clear_it_by_reset(void)
{
	bh_device_reset(top);
}

static void each_of_these_clears_a_stall(void **state)
{
	static void (*const clears[])(void) = {clear_it_by_feature, clear_it_by_configuration, clear_it_by_interface, clear_it_by_reset};

	(void)state;
	put("fault:stall:every=2");
	for (size_t i = 0; i < BH_COUNT(clears); i++) {
		transfers(4, OUT, ".SSS");
		clears[i]();
	}
	transfers(1, OUT, ".");
}

static void a_setting_of_another_interface_clears_no_stall(void **state)
{
	(void)state;
	put("fault:stall");
	transfers(2, OUT, "SS");
	assert_int_equal(bh_device_endpoint(top, OUT)->interface, 0);
	assert_int_equal(set_interface(top, 1, 0), BH_SUCCESS);
	transfers(2, OUT, "SS");
	assert_int_equal(set_interface(top, 0, 0), BH_SUCCESS);
	transfers(1, OUT, ".");
}

static void a_refused_configuration_clears_no_stall(void **state)
{
	struct flight f;

	(void)state;
	put("fault:stall");
	transfers(1, OUT, "S");
	flight_init(&f, 0, BH_CONTROL, NULL, 0);
	f.transfer.setup = (struct bh_setup){0, 9, {{7, 0}}, {{0, 0}}, {{0, 0}}};
	device.status = BH_STALL;
	bh_device_request(top, &f.transfer);
	assert_ended(&f, BH_STALL, 0);
	device.status = BH_SUCCESS;
	transfers(2, OUT, "SS");
}

static void what_hangs_ends_when_it_is_cancelled_reset_or_destroyed(void **state)
{
	struct flight f[3];

	(void)state;
	put("fault:hang:every=1+delay:1ms"); /* seen through another layer, too */
	bring(&f[0], OUT, 64);
	bring(&f[1], IN, 64);
	run_loop();
	assert_false(f[0].done || f[1].done);
	bh_device_cancel(top, &f[0].transfer);
	run_loop();
	assert_ended(&f[0], BH_CANCELLED, 0);
	assert_false(f[1].done);
	bh_device_reset(top);
	assert_ended(&f[1], BH_CANCELLED, 0);
	bring(&f[2], OUT, 64);
	destroy();
	assert_ended(&f[2], BH_CANCELLED, 0);
	assert_int_equal(device.submits, 0);
}

static void a_short_one_ends_halfway(void **state)
{
	struct flight f;

	(void)state;
	put("fault:short:every=1");
	bring(&f, IN, 256);
	assert_ended(&f, BH_SUCCESS, 128);
	assert_int_equal(bytes[127], (uint8_t)(127 * 5 + 1));
	bring(&f, OUT, 256); /* what the device took it would have to count */
	assert_ended(&f, BH_BUS_ERROR, 0);
	device.actual_limit = 65;
	bring(&f, IN, 256);
	assert_ended(&f, BH_SUCCESS, 32);
	device.status = BH_BABBLE; /* what ends badly by itself is as it was */
	bring(&f, IN, 256);
	assert_ended(&f, BH_BABBLE, 65);
	assert_int_equal(device.submits, 3);
	device.hold = true;
	bring(&f, IN, 256);
	bh_device_cancel(top, &f.transfer);
	assert_ended(&f, BH_CANCELLED, 0);
}

static void a_short_answer_to_a_request_is_halved(void **state)
{
	uint32_t n;

	(void)state;
	put("fault:short:endpoint=0");
	assert_int_equal(request(top, 0x80, 6, 0x100, 0, bytes, 18, &n), BH_SUCCESS);
	assert_int_equal(n, 9);
	assert_int_equal(request(top, 0x80, 6, 0x100, 0, bytes, 18, &n), BH_SUCCESS);
	assert_int_equal(n, 18);
}

static void a_transfer_that_is_broken_does_not_overtake_others(void **state)
{
	struct flight f[2];

	(void)state;
	put("fault:error@2");
	device.hold = true;
	bring(&f[0], OUT, 64);
	bring(&f[1], OUT, 64);
	assert_false(f[1].done);
	end_taken(0, BH_SUCCESS, 64);
	assert_ended(&f[0], BH_SUCCESS, 64);
	assert_ended(&f[1], BH_BUS_ERROR, 0);
}

static void what_comes_behind_one_that_hangs_does_not_overtake_it(void **state)
{
	struct flight f[2];

	(void)state;
	put("fault:hang");
	bring(&f[0], OUT, 64);
	bring(&f[1], OUT, 64);
	assert_false(f[1].done);
	bh_device_cancel(top, &f[0].transfer);
	assert_ended(&f[0], BH_CANCELLED, 0);
	assert_ended(&f[1], BH_SUCCESS, 64);
}

static void isochronous_packets_end_as_the_fault_says(void **state)
{
	static const struct {
		const char *text;
		enum bh_status expected;
	} rows[] = {{"fault:error", BH_BUS_ERROR}, {"fault:babble", BH_BABBLE}, {"fault:timeout", BH_NO_RESPONSE}};
	struct flight f;

	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		struct bh_packet packet = {0, 10, 0, BH_NO_RESPONSE};

		put(rows[i].text);
		flight_init(&f, ISO_IN, BH_ISOCHRONOUS, bytes, 10);
		f.transfer.packets = &packet;
		f.transfer.packet_count = 1;
		bh_device_submit(top, &f.transfer);
		assert_true(f.done);
		assert_int_equal(packet.status, rows[i].expected);
		tear_down(state);
		set_up(state);
	}
}

static void a_device_in_no_port_cannot_go_and_holds_the_transfer(void **state)
{
	struct flight f;

	(void)state;
	put("fault:disconnect");
	bring(&f, OUT, 64);
	assert_false(f.done);
	destroy();
	assert_ended(&f, BH_CANCELLED, 0);
}

static void a_hub_is_not_disconnected(void **state)
{
	static const struct bh_hub_config config = {.ports = 2};
	struct bh_device *hub;

	(void)state;
	assert_int_equal(bh_hub_create(&config, &hub), 0);
	assert_int_equal(bh_layers_put(&context, "fault:disconnect", &hub, error), -EINVAL);
	assert_non_null(strstr(error, "hub"));
	error[0] = '\0';
	assert_int_equal(bh_layers_put(&context, "fault:stall+delay:1ms", &hub, error), 0);
	assert_int_equal(hub->hub_ports, 2);
	assert_int_equal(bh_layers_put(&context, "fault:disconnect", &hub, error), -EINVAL);
	bh_device_destroy(hub);
}

/* --- fault: a device that goes, on a bus ---------------------------------------------------------------- */

static void a_disconnected_device_comes_back_after_a_second_in_its_port(void **state)
{
	static const char *const texts[] = {"fault:disconnect@2:endpoint=0x82", "delay:0:jitter=1us+fault:disconnect@2:endpoint=0x82+fault:error@99"};
	uint64_t gone;

	for (size_t i = 0; i < BH_COUNT(texts); i++) {
		put(texts[i]);
		start_machine();
		assert_int_equal(port(), PORTSC_CCS | PORTSC_CSC);
		enable_port(0);
		frames(1);
		only_queue(BH_PID_IN, 2, 1, 0);
		frames(2);
		uv_run(&loop, UV_RUN_DEFAULT); /* what was delayed */
		frames(2);
		assert_int_equal(control_of(0) & ENDED, 0);
		assert_int_equal(port(), PORTSC_CCS | PORTSC_PE);
		td(0, LINK_T, ACTIVE, token(BH_PID_IN, 0, 2, 1, 64));
		qh(0, LINK_T, TD(0));
		gone = now_us();
		frames(8);
		assert_int_equal(port(), PORTSC_CSC);
		assert_int_equal(control_of(0) & ENDED, LOST);
		assert_int_equal(device.submits, 1);
		assert_int_equal(device.destroyed, 0);
		assert_ptr_equal(bh_port_device(&bh_uhci_bus(uhci)->ports[0]), top);
		outw(PORTSC, PORTSC_CSC | PORTSC_PEC);
		frame_list(LINK_T);
		uv_run(&loop, UV_RUN_NOWAIT);
		frames(100);
		assert_int_equal(port(), 0);
		device.resets = 0;
		uv_run(&loop, UV_RUN_DEFAULT);
		assert_true(now_us() - gone >= 1000000);
		assert_true(now_us() - gone < 5000000);
		assert_int_equal(port(), PORTSC_CCS | PORTSC_CSC);
		assert_int_equal(device.resets, 1);
		enable_port(0);
		frames(1);
		assert_int_equal(port(), PORTSC_CCS | PORTSC_PE);
		only_queue(BH_PID_IN, 2, 1, 0);
		frames(4);
		uv_run(&loop, UV_RUN_DEFAULT);
		frames(4);
		assert_int_equal(control_of(0) & ENDED, 0);
		assert_int_equal(device.submits, 2);
		stop_machine();
		tear_down(state);
		set_up(state);
	}
}

static void a_request_disconnects_as_well(void **state)
{
	(void)state;
	put("fault:disconnect:endpoint=0");
	start_machine();
	enable_port(0);
	frames(1);
	driver_request("\0\x09\1\0\0\0\0\0");
	frames(8);
	assert_int_equal(port(), PORTSC_CSC);
	assert_int_equal(device.configuration, 0);
	outw(PORTSC, PORTSC_CSC | PORTSC_PEC);
	frame_list(LINK_T);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(port(), PORTSC_CCS | PORTSC_CSC);
	enable_port(0);
	frames(1);
	driver_request("\0\x09\1\0\0\0\0\0");
	frames(4);
	assert_int_equal(device.configuration, 1);
	assert_int_equal(device.destroyed, 0);
	stop_machine();
}

static void unplugged_while_it_is_away_a_device_does_not_come_back(void **state)
{
	struct flight f;

	(void)state;
	put("fault:disconnect");
	plug();
	bring(&f, OUT, 64);
	assert_journal("detached ");
	top->upcalls = NULL;
	destroy();
	assert_ended(&f, BH_CANCELLED, 0);
	run_loop();
	assert_journal("");
}

/* Both at once: it is there when both say so. */
static void a_device_that_is_gone_by_itself_is_not_brought_back_by_the_layer(void **state)
{
	struct flight f;

	(void)state;
	device.device.sticky = true;
	put("fault:disconnect");
	plug();
	assert_int_equal(bh_device_attach(&device.device), 0);
	assert_journal("attached ");
	bring(&f, OUT, 64);
	assert_journal("detached ");
	bh_device_cancel(top, &f.transfer); /* as a bus does */
	bh_device_detach(&device.device);
	assert_journal("detached "); /* twice: nothing happens, there */
	run_loop();
	assert_journal("");
	assert_int_equal(bh_device_attach(&device.device), 0);
	assert_journal("attached ");
	top->upcalls = NULL;
}

static void a_device_that_leaves_for_good_while_it_is_away_does_so(void **state)
{
	struct flight f;

	(void)state;
	put("fault:disconnect");
	plug();
	bring(&f, OUT, 64);
	bh_device_cancel(top, &f.transfer);
	assert_journal("detached ");
	bh_device_detach(&device.device);
	assert_journal("gone ");
	run_loop();
	assert_journal("");
	top->upcalls = NULL;
}

/* --- capture: what was written -------------------------------------------------------------------------------- */

struct record {
	uint64_t id, us;
	char type;
	uint8_t transfer, endpoint, setup_flag, data_flag;
	int32_t status;
	uint32_t length, following; /* usbmon's: asked for or moved; bytes behind the header */
	uint8_t setup[8];
	uint32_t packets;
	const uint8_t *descriptors, *data;
	uint32_t data_length;
};

static uint8_t file[1024 * 1024];
static size_t file_size;
static struct record records[256];
static unsigned record_count;

static uint32_t get32(const uint8_t *p)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return value;
}

static uint16_t get16(const uint8_t *p)
{
	uint16_t value;

	memcpy(&value, p, sizeof(value));
	return value;
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t value;

	memcpy(&value, p, sizeof(value));
	return value;
}

static void read_usbmon(const uint8_t *h, uint32_t captured, uint64_t us)
{
	struct record *r = &records[record_count++];

	assert_true(record_count <= BH_COUNT(records));
	assert_true(captured >= 64);
	*r = (struct record){
		.id = get64(h), .us = us, .type = (char)h[8], .transfer = h[9], .endpoint = h[10], .setup_flag = h[14], .data_flag = h[15],
		.status = (int32_t)get32(h + 28), .length = get32(h + 32), .following = get32(h + 36), .packets = get32(h + 60),
	};
	memcpy(r->setup, h + 40, 8);
	assert_int_equal(h[11], 1);
	assert_int_equal(get16(h + 12), 1);
	assert_int_equal(get64(h + 16) * 1000000 + get32(h + 24), us);
	assert_true(get32(h + 24) < 1000000);
	for (unsigned i = 48; i < 60; i++) /* interval, start_frame, xfer_flags */
		assert_int_equal(h[i], 0);
	assert_int_equal(r->following, captured - 64);
	assert_true(16 * r->packets <= r->following);
	r->descriptors = h + 64;
	r->data = h + 64 + 16 * r->packets;
	r->data_length = r->following - 16 * r->packets;
}

static void read_packet_block(const uint8_t *b, uint32_t length)
{
	uint32_t captured = get32(b + 20);

	assert_int_equal(get32(b), 6);
	assert_int_equal(get32(b + 8), 0); /* the interface */
	assert_int_equal(get32(b + 24), captured);
	assert_int_equal(length, 32 + (captured + 3) / 4 * 4);
	for (uint32_t i = 28 + captured; i < length - 4; i++)
		assert_int_equal(b[i], 0);
	read_usbmon(b + 28, captured, (uint64_t)get32(b + 12) << 32 | get32(b + 16));
}

static void load_file(void)
{
	FILE *from = fopen(path, "rb");

	assert_non_null(from);
	file_size = fread(file, 1, sizeof(file), from);
	assert_true(file_size < sizeof(file));
	fclose(from);
}

/* What is in file[]. */
static void parse_capture(void)
{
	static const uint8_t head[48] = {
		0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 28, 0, 0, 0,
		1, 0, 0, 0, 20, 0, 0, 0, 220, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0,
	};
	size_t at = sizeof(head);
	struct timespec now; /* time() may be a little behind it */
	uint32_t length;

	clock_gettime(CLOCK_REALTIME, &now);
	assert_true(file_size >= sizeof(head));
	assert_memory_equal(file, head, sizeof(head));
	record_count = 0;
	while (at < file_size) {
		assert_true(file_size - at >= 32 + 64);
		length = get32(file + at + 4);
		assert_true(length % 4 == 0 && length >= 32 + 64 && length <= file_size - at);
		assert_int_equal(get32(file + at + length - 4), length);
		read_packet_block(file + at, length);
		at += length;
	}
	assert_int_equal(at, file_size);
	for (unsigned i = 0; i < record_count; i++) {
		assert_true(i == 0 || records[i].us >= records[i - 1].us);
		assert_in_range(records[i].us / 1000000, (uint64_t)now.tv_sec - 60, (uint64_t)now.tv_sec);
	}
}

static void read_capture(void)
{
	load_file();
	parse_capture();
}

/* usbmon's numbers */
enum { MON_ISO = 0, MON_INTERRUPT = 1, MON_CONTROL = 2, MON_BULK = 3 };

static void assert_record(unsigned i, char type, uint64_t id, uint8_t transfer, uint8_t endpoint, int status, uint32_t length,
                          uint32_t data_length)
{
	const struct record *r = &records[i];
	bool request = transfer == MON_CONTROL && type == 'S';

	assert_true(i < record_count);
	assert_int_equal(r->type, type);
	assert_int_equal(r->id, id);
	assert_int_equal(r->transfer, transfer);
	assert_int_equal(r->endpoint, endpoint);
	assert_int_equal(r->status, status);
	assert_int_equal(r->length, length);
	assert_int_equal(r->data_length, data_length);
	assert_int_equal(r->setup_flag, request ? 0 : '-');
	assert_int_equal(r->data_flag, data_length ? 0 : endpoint & 0x80 ? '<' : '>');
}

static void what_passes_is_written_down_when_it_comes_and_when_it_ends(void **state)
{
	static const uint8_t no_setup[8];
	struct flight f[4];
	uint8_t sent[101];

	(void)state;
	put_capture();
	memcpy(sent, bytes, sizeof(sent));
	bring(&f[0], OUT, 101); /* padded by three */
	device.actual_limit = 5;
	bring(&f[1], IN, 64);
	bring(&f[2], INT_IN, 8);
	bring(&f[3], OUT, 0);
	assert_int_equal(counter(top, "events"), 8);
	assert_int_equal(counter(top, "data_bytes"), 101 + 5 + 5);
	assert_int_equal(counter(top, "writing"), 1);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(f[i].status, BH_SUCCESS);
	destroy();
	read_capture();
	assert_int_equal(record_count, 8);
	assert_record(0, 'S', 1, MON_BULK, OUT, -EINPROGRESS, 101, 101);
	assert_memory_equal(records[0].data, sent, 101);
	assert_record(1, 'C', 1, MON_BULK, OUT, 0, 101, 0);
	assert_record(2, 'S', 2, MON_BULK, IN, -EINPROGRESS, 64, 0);
	assert_record(3, 'C', 2, MON_BULK, IN, 0, 5, 5);
	assert_record(4, 'S', 3, MON_INTERRUPT, INT_IN, -EINPROGRESS, 8, 0);
	assert_record(5, 'C', 3, MON_INTERRUPT, INT_IN, 0, 5, 5);
	assert_record(6, 'S', 4, MON_BULK, OUT, -EINPROGRESS, 0, 0);
	assert_record(7, 'C', 4, MON_BULK, OUT, 0, 0, 0);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(records[3].data[i], i * 5 + 1);
	for (unsigned i = 0; i < record_count; i++) {
		assert_int_equal(records[i].packets, 0);
		assert_memory_equal(records[i].setup, no_setup, 8);
	}
	assert_int_equal(logged_count, 0);
}

static void control_transfers_are_written_with_their_setup(void **state)
{
	static const uint8_t get[8] = {0x80, 6, 0x00, 0x01, 0x09, 0x04, 18, 0}, set[8] = {0x21, 9, 0x00, 0x02, 1, 0, 3, 0},
	                     configure[8] = {0, 9, 4, 0, 0, 0, 0, 0};
	uint8_t out_data[3];

	(void)state;
	put_capture();
	assert_int_equal(request(top, 0x80, 6, 0x100, 0x409, bytes, 18, NULL), BH_SUCCESS);
	memcpy(out_data, bytes, 3);
	assert_int_equal(request(top, 0x21, 9, 0x200, 1, bytes, 3, NULL), BH_SUCCESS);
	assert_int_equal(set_configuration(top, 4), BH_SUCCESS);
	assert_int_equal(device.configuration, 4);
	assert_int_equal(set_configuration(top, 9), BH_STALL);
	destroy();
	read_capture();
	assert_int_equal(record_count, 8);
	assert_record(0, 'S', 1, MON_CONTROL, 0x80, -EINPROGRESS, 18, 0);
	assert_memory_equal(records[0].setup, get, 8);
	assert_record(1, 'C', 1, MON_CONTROL, 0x80, 0, 18, 18);
	assert_int_equal(records[1].data[17], 17 * 5 + 1);
	assert_record(2, 'S', 2, MON_CONTROL, 0x00, -EINPROGRESS, 3, 3);
	assert_memory_equal(records[2].setup, set, 8);
	assert_memory_equal(records[2].data, out_data, 3);
	assert_record(3, 'C', 2, MON_CONTROL, 0x00, 0, 3, 0);
	assert_record(4, 'S', 3, MON_CONTROL, 0x00, -EINPROGRESS, 0, 0);
	assert_memory_equal(records[4].setup, configure, 8);
	assert_record(5, 'C', 3, MON_CONTROL, 0x00, 0, 0, 0);
	assert_record(6, 'S', 4, MON_CONTROL, 0x00, -EINPROGRESS, 0, 0);
	assert_record(7, 'C', 4, MON_CONTROL, 0x00, -EPIPE, 0, 0);
}

static void how_a_transfer_ended_is_written_as_linux_would(void **state)
{
	static const int errnos[BH_STATUS_COUNT] = {
		[BH_SUCCESS] = 0, [BH_STALL] = -EPIPE, [BH_BABBLE] = -EOVERFLOW, [BH_NO_RESPONSE] = -ETIMEDOUT, [BH_BUS_ERROR] = -EPROTO,
		[BH_CANCELLED] = -ENOENT,
	};
	struct flight f;

	(void)state;
	put_capture();
	device.hold = true;
	for (unsigned s = 0; s < BH_STATUS_COUNT; s++) {
		bring(&f, IN, 64);
		end_taken(0, (enum bh_status)s, s);
		assert_ended(&f, (enum bh_status)s, s);
	}
	destroy();
	read_capture();
	assert_int_equal(record_count, 2 * BH_STATUS_COUNT);
	for (unsigned s = 0; s < BH_STATUS_COUNT; s++)
		assert_record(2 * s + 1, 'C', s + 1, MON_BULK, IN, errnos[s], s, s);
}

static void transfers_that_overlap_are_told_apart_by_their_number(void **state)
{
	struct flight f[3];

	(void)state;
	put_capture();
	device.hold = true;
	for (unsigned i = 0; i < 3; i++)
		bring(&f[i], i == 1 ? IN : OUT, 64 + i);
	end_taken(2, BH_SUCCESS, 66);
	end_taken(0, BH_STALL, 1);
	destroy(); /* ends the other */
	assert_ended(&f[1], BH_CANCELLED, 0);
	read_capture();
	assert_int_equal(record_count, 6);
	for (unsigned i = 0; i < 3; i++)
		assert_record(i, 'S', i + 1, MON_BULK, i == 1 ? IN : OUT, -EINPROGRESS, 64 + i, i == 1 ? 0 : 64 + i);
	assert_record(3, 'C', 3, MON_BULK, OUT, 0, 66, 0);
	assert_record(4, 'C', 1, MON_BULK, OUT, -EPIPE, 1, 0);
	assert_record(5, 'C', 2, MON_BULK, IN, -ENOENT, 0, 0);
}

static void data_in_pieces_is_written_as_one(void **state)
{
	struct iovec spans[] = {{bytes + 100, 1}, {bytes, 0}, {bytes + 1000, 70}, {bytes + 10, 29}};
	struct flight f;

	(void)state;
	put_capture();
	flight_init(&f, OUT, BH_BULK, NULL, 100);
	f.transfer.spans = spans;
	f.transfer.span_count = BH_COUNT(spans);
	bh_device_submit(top, &f.transfer);
	destroy();
	read_capture();
	assert_int_equal(record_count, 2);
	assert_record(0, 'S', 1, MON_BULK, OUT, -EINPROGRESS, 100, 100);
	assert_int_equal(records[0].data[0], bytes[100]);
	assert_memory_equal(records[0].data + 1, bytes + 1000, 70);
	assert_memory_equal(records[0].data + 71, bytes + 10, 29);
}

static void large_transfers_are_written_whole(void **state)
{
	struct flight f;

	(void)state;
	put_capture();
	bring(&f, OUT, 300 * 1024 + 1); /* more than is gathered before it is written */
	destroy();
	read_capture();
	assert_int_equal(record_count, 2);
	assert_record(0, 'S', 1, MON_BULK, OUT, -EINPROGRESS, 300 * 1024 + 1, 300 * 1024 + 1);
	assert_memory_equal(records[0].data, bytes, 300 * 1024 + 1);
	assert_int_equal(record_count, 2);
}

static void assert_descriptor(const struct record *r, unsigned i, int status, uint32_t offset, uint32_t length)
{
	const uint8_t *p = r->descriptors + 16 * i;

	assert_true(i < r->packets);
	assert_int_equal((int32_t)get32(p), status);
	assert_int_equal(get32(p + 4), offset);
	assert_int_equal(get32(p + 8), length);
	assert_int_equal(get32(p + 12), 0);
}

static void launch_packets(struct flight *f, uint8_t endpoint, struct bh_packet *packets, unsigned n, uint32_t length)
{
	flight_init(f, endpoint, BH_ISOCHRONOUS, bytes, length);
	f->transfer.packets = packets;
	f->transfer.packet_count = n;
	bh_device_submit(top, &f->transfer);
}

static void isochronous_packets_are_written_each_with_its_outcome(void **state)
{
	struct bh_packet in_packets[4] = {{0, 10, 0, BH_NO_RESPONSE}, {10, 10, 0, BH_NO_RESPONSE}, {20, 10, 0, BH_NO_RESPONSE}, {30, 9, 0, BH_NO_RESPONSE}};
	struct bh_packet out_packets[2] = {{0, 7, 0, BH_NO_RESPONSE}, {7, 6, 0, BH_NO_RESPONSE}};
	uint8_t sent[13];
	struct flight f;

	(void)state;
	put_capture();
	device.hold = true;
	memcpy(sent, bytes, sizeof(sent));
	launch_packets(&f, ISO_OUT, out_packets, 2, 13);
	out_packets[0] = (struct bh_packet){0, 7, 7, BH_SUCCESS};
	out_packets[1] = (struct bh_packet){7, 6, 0, BH_BUS_ERROR};
	end_taken(0, BH_SUCCESS, 0);
	launch_packets(&f, ISO_IN, in_packets, 4, 39);
	in_packets[0] = (struct bh_packet){0, 10, 10, BH_SUCCESS};
	in_packets[1] = (struct bh_packet){10, 10, 3, BH_SUCCESS};
	in_packets[2] = (struct bh_packet){20, 10, 10, BH_BABBLE};
	memset(bytes, 0xa5, 39);
	end_taken(0, BH_CANCELLED, 0);
	assert_int_equal(f.status, BH_CANCELLED);
	destroy();
	read_capture();
	assert_int_equal(record_count, 4);
	assert_record(0, 'S', 1, MON_ISO, ISO_OUT, -EINPROGRESS, 13, 13);
	assert_record(1, 'C', 1, MON_ISO, ISO_OUT, 0, 13, 0);
	assert_record(2, 'S', 2, MON_ISO, ISO_IN, -EINPROGRESS, 39, 0);
	assert_record(3, 'C', 2, MON_ISO, ISO_IN, -ENOENT, 39, 39);
	assert_memory_equal(records[0].data, sent, 13);
	for (unsigned i = 0; i < 39; i++)
		assert_int_equal(records[3].data[i], 0xa5);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(records[i].packets, i < 2 ? 2 : 4);
		assert_int_equal(get32(records[i].setup), 0); /* error_count */
		assert_int_equal(get32(records[i].setup + 4), records[i].packets);
	}
	assert_descriptor(&records[0], 0, -EXDEV, 0, 7);
	assert_descriptor(&records[0], 1, -EXDEV, 7, 6);
	assert_descriptor(&records[1], 0, 0, 0, 7);
	assert_descriptor(&records[1], 1, -EPROTO, 7, 0);
	for (unsigned i = 0; i < 4; i++)
		assert_descriptor(&records[2], i, -EXDEV, 10 * i, i < 3 ? 10 : 9);
	assert_descriptor(&records[3], 0, 0, 0, 10);
	assert_descriptor(&records[3], 1, 0, 10, 3);
	assert_descriptor(&records[3], 2, -EOVERFLOW, 20, 10);
	assert_descriptor(&records[3], 3, -ETIMEDOUT, 30, 0);
}

/* A guest's OUT packets may be shorter than their room: the bus gives each the room of a full one. */
static void packets_with_gaps_between_them_are_where_they_are(void **state)
{
	struct bh_packet packets[2] = {{0, 7, 0, BH_NO_RESPONSE}, {16, 9, 0, BH_NO_RESPONSE}};
	struct flight f;

	(void)state;
	put_capture();
	launch_packets(&f, ISO_OUT, packets, 2, 32);
	destroy();
	read_capture();
	assert_record(0, 'S', 1, MON_ISO, ISO_OUT, -EINPROGRESS, 32, 32);
	assert_descriptor(&records[0], 0, -EXDEV, 0, 7);
	assert_descriptor(&records[0], 1, -EXDEV, 16, 9);
}

/* --- capture: the file ------------------------------------------------------------------------------------------ */

static void fill_file(const char *text, size_t length)
{
	FILE *to = fopen(path, "wb");

	assert_non_null(to);
	assert_int_equal(fwrite(text, 1, length, to), length);
	fclose(to);
}

static void the_file_can_be_read_while_it_is_written(void **state)
{
	struct flight f;

	(void)state;
	put_capture();
	load_file(); /* not before it is plugged in */
	assert_int_equal(file_size, 0);
	bh_device_reset(top);
	uv_run(&loop, UV_RUN_DEFAULT);
	read_capture(); /* its head */
	assert_int_equal(record_count, 0);
	bring(&f, OUT, 64);
	uv_run(&loop, UV_RUN_DEFAULT); /* until a little later */
	read_capture();
	assert_int_equal(record_count, 2);
	bring(&f, OUT, 64);
	uv_run(&loop, UV_RUN_DEFAULT);
	read_capture();
	assert_int_equal(record_count, 4);
}

static void a_capture_is_only_for_who_made_it(void **state)
{
	struct stat s;

	(void)state;
	put_capture();
	assert_int_equal(stat(path, &s), 0);
	assert_int_equal(s.st_mode & 077, 0);
}

static void what_is_no_capture_is_not_written_over(void **state)
{
	static const struct {
		const char *text;
		size_t length;
	} rows[] = {{"x", 1}, {"\n\r\r", 3}, {"precious", 8}, {"\xd4\xc3\xb2\xa1 an older format", 20}};

	(void)state;
	snprintf(layers, sizeof(layers), "capture:%s", path);
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		fill_file(rows[i].text, rows[i].length);
		assert_int_equal(bh_layers_put(&context, layers, &top, error), -EINVAL);
		assert_non_null(strstr(error, "something else"));
		assert_non_null(strstr(error, path));
		assert_null(strchr(error, '\n'));
		assert_ptr_equal(top, &device.device);
		load_file();
		assert_int_equal(file_size, rows[i].length);
		assert_memory_equal(file, rows[i].text, file_size);
	}
}

static void an_empty_file_and_an_earlier_capture_are_written_over(void **state)
{
	struct flight f;

	(void)state;
	fill_file("", 0);
	put_capture();
	for (unsigned i = 0; i < 5; i++)
		bring(&f, OUT, 64);
	destroy();
	read_capture();
	assert_int_equal(record_count, 10);

	device.destroyed = 0;
	top = &device.device;
	put_capture();
	bring(&f, OUT, 64);
	destroy();
	read_capture();
	assert_int_equal(record_count, 2); /* nothing of the other */
}

static void a_second_capture_to_the_same_file_is_refused(void **state)
{
	char twice[400];
	struct flight f;

	(void)state;
	snprintf(twice, sizeof(twice), "capture:%s+capture:%s", path, path);
	assert_int_equal(bh_layers_put(&context, twice, &top, error), -EINVAL);
	assert_non_null(strstr(error, "in use"));
	assert_null(strchr(error, '\n'));
	bring(&f, OUT, 64);
	destroy();
	read_capture(); /* the first goes on */
	assert_int_equal(record_count, 2);
}

static void a_directory_is_no_file_to_capture_to(void **state)
{
	(void)state;
	snprintf(layers, sizeof(layers), "capture:%s", directory);
	assert_int_equal(bh_layers_put(&context, layers, &top, error), -EINVAL);
	assert_non_null(strstr(error, directory));
	snprintf(layers, sizeof(layers), "capture:%s/none/file", directory);
	assert_int_equal(bh_layers_put(&context, layers, &top, error), -EINVAL);
	assert_null(strchr(error, '\n'));
}

static void a_fifo_is_for_watching_while_it_happens(void **state)
{
	struct flight f;
	ssize_t n;
	int fd;

	(void)state;
	assert_int_equal(mkfifo(path, 0600), 0);
	put_capture();
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	assert_true(fd >= 0);
	bring(&f, OUT, 101);
	uv_run(&loop, UV_RUN_DEFAULT);
	n = read(fd, file, sizeof(file));
	assert_true(n > 0);
	file_size = (size_t)n;
	parse_capture();
	assert_int_equal(record_count, 2);
	assert_record(0, 'S', 1, MON_BULK, OUT, -EINPROGRESS, 101, 101);
	assert_record(1, 'C', 1, MON_BULK, OUT, 0, 101, 0);
	close(fd);
	destroy();
	assert_int_equal(logged_count, 0);
}

static void assert_capture_gave_up(void)
{
	struct flight f;

	assert_int_equal(counter(top, "writing"), 0);
	assert_int_equal(logged_count, 1);
	assert_non_null(strstr(logged, path));
	assert_null(strchr(logged, '\n'));
	bring(&f, OUT, 100 * 1024);
	assert_ended(&f, BH_SUCCESS, 100 * 1024);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(logged_count, 1);
}

static void a_fifo_that_nobody_reads_does_not_hold_up_the_device(void **state)
{
	struct flight f;

	(void)state;
	assert_int_equal(mkfifo(path, 0600), 0);
	put_capture();
	for (unsigned i = 0; i < 30; i++) {
		bring(&f, OUT, 300 * 1024);
		assert_ended(&f, BH_SUCCESS, 300 * 1024);
	}
	assert_int_equal(counter(top, "writing"), 1);
	assert_in_range(counter(top, "dropped"), 10, 19); /* 4 MiB are kept, and what the FIFO holds */
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(logged_count, 0);
}

/* As on a disk that is full: no file may grow so large. */
static void a_file_that_cannot_grow_does_not_hold_up_the_device(void **state)
{
	struct rlimit before, limit;
	struct flight f;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	limit = before;
	limit.rlim_cur = 256 * 1024;
	signal(SIGXFSZ, SIG_IGN);
	put_capture();
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	for (unsigned i = 0; i < 5; i++)
		bring(&f, OUT, 100 * 1024);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	signal(SIGXFSZ, SIG_DFL);
	assert_ended(&f, BH_SUCCESS, 100 * 1024);
	assert_capture_gave_up();
}

/* Each layer sees what those under it let through. */
static void a_capture_shows_what_is_below_it(void **state)
{
	struct flight f;

	(void)state;
	snprintf(layers, sizeof(layers), "fault:babble@2+capture:%s+fault:error@1", path);
	put(layers);
	bring(&f, IN, 64);
	assert_ended(&f, BH_BUS_ERROR, 0); /* never came there */
	bring(&f, IN, 64);
	assert_ended(&f, BH_SUCCESS, 64);
	bring(&f, IN, 64);
	assert_ended(&f, BH_BABBLE, 0);
	destroy();
	read_capture();
	assert_int_equal(record_count, 4);
	assert_record(1, 'C', 1, MON_BULK, IN, 0, 64, 64);
	assert_record(3, 'C', 2, MON_BULK, IN, -EOVERFLOW, 0, 0);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(a_layer_with_nothing_to_add_passes_transfers_as_they_are),
		TEST(a_layer_passes_how_a_transfer_ended),
		TEST(transfers_under_way_do_not_mix),
		TEST(a_transfer_that_was_passed_is_cancelled_below_as_often_as_above),
		TEST(a_transfer_that_is_held_is_cancelled_in_the_layer),
		TEST(a_layer_says_how_what_it_holds_ends_when_cancelled),
		TEST(progress_is_passed_on_unless_the_layer_does_it),
		TEST(a_layer_changes_what_the_device_is_given),
		TEST(every_operation_is_passed_on),
		TEST(operations_that_the_device_has_not_do_nothing),
		TEST(what_the_device_refuses_comes_to_it_by_submit),
		TEST(a_layer_says_something_else_of_the_device),
		TEST(what_the_device_is_shows_through_all_layers),
		TEST(whether_it_finishes_changes_with_the_configuration),
		TEST(a_reset_ends_what_is_held_after_the_device_was_reset),
		TEST(what_comes_while_a_reset_ends_others_is_not_ended_by_it),
		TEST(destroying_ends_what_the_layers_and_the_device_have),
		TEST(layers_stand_in_the_order_in_which_they_were_put),
		TEST(in_no_port_nothing_is_told),
		TEST(a_device_that_comes_and_goes_does_so_through_layers),
		TEST(a_device_that_is_destroyed_is_not_listened_to),
		TEST(a_hub_tells_and_is_told_through_layers),
		TEST(a_sticky_device_keeps_its_port_under_layers),
		TEST(what_hangs_from_a_hub_under_layers_shows),
		TEST(the_text_names_layers_from_the_device_up),
		TEST(names_are_found_in_the_text),
		TEST(sixteen_layers_may_stand_on_each_other),
		TEST(what_is_no_layer_is_refused_with_one_line),
		TEST(what_is_wrong_is_told_in_one_line_whatever_was_said),
		TEST(a_layer_that_cannot_be_leaves_those_below_it),
		TEST(a_delayed_transfer_is_told_not_before_its_time),
		TEST(control_transfers_are_delayed_too),
		TEST(with_jitter_transfers_to_one_endpoint_stay_in_order),
		TEST(jitter_is_the_same_again_with_the_same_seed),
		TEST(jitter_alone_is_a_delay),
		TEST(with_a_rate_bytes_take_their_time_on_one_wire),
		TEST(the_rate_comes_before_the_time),
		TEST(a_rate_counts_large_transfers_as_well),
		TEST(a_rate_counts_isochronous_packets_as_well),
		TEST(cancelled_while_it_is_delayed_it_is_told_when_it_is_due),
		TEST(cancelled_below_it_is_told_as_late),
		TEST(a_reset_and_the_end_of_the_layer_wait_for_nothing),
		TEST(nobody_is_told_of_progress_far_away),
		TEST(what_is_brought_while_others_are_told_is_delayed_too),
		TEST(each_kind_ends_transfers_in_its_way),
		TEST(the_text_says_which_transfers),
		TEST(a_fault_of_one_endpoint_counts_and_concerns_only_that),
		TEST(without_an_endpoint_all_but_control_count),
		TEST(endpoint_0_is_control_transfers),
		TEST(chance_is_about_right_and_the_same_again_with_the_same_seed),
		TEST(a_stall_stays_until_it_is_cleared),
		TEST(each_of_these_clears_a_stall),
		TEST(a_setting_of_another_interface_clears_no_stall),
		TEST(a_refused_configuration_clears_no_stall),
		TEST(what_hangs_ends_when_it_is_cancelled_reset_or_destroyed),
		TEST(a_short_one_ends_halfway),
		TEST(a_short_answer_to_a_request_is_halved),
		TEST(a_transfer_that_is_broken_does_not_overtake_others),
		TEST(what_comes_behind_one_that_hangs_does_not_overtake_it),
		TEST(isochronous_packets_end_as_the_fault_says),
		TEST(a_device_in_no_port_cannot_go_and_holds_the_transfer),
		TEST(a_hub_is_not_disconnected),
		TEST(a_disconnected_device_comes_back_after_a_second_in_its_port),
		TEST(a_request_disconnects_as_well),
		TEST(unplugged_while_it_is_away_a_device_does_not_come_back),
		TEST(a_device_that_is_gone_by_itself_is_not_brought_back_by_the_layer),
		TEST(a_device_that_leaves_for_good_while_it_is_away_does_so),
		TEST(what_passes_is_written_down_when_it_comes_and_when_it_ends),
		TEST(control_transfers_are_written_with_their_setup),
		TEST(how_a_transfer_ended_is_written_as_linux_would),
		TEST(transfers_that_overlap_are_told_apart_by_their_number),
		TEST(data_in_pieces_is_written_as_one),
		TEST(large_transfers_are_written_whole),
		TEST(isochronous_packets_are_written_each_with_its_outcome),
		TEST(packets_with_gaps_between_them_are_where_they_are),
		TEST(the_file_can_be_read_while_it_is_written),
		TEST(a_capture_is_only_for_who_made_it),
		TEST(what_is_no_capture_is_not_written_over),
		TEST(an_empty_file_and_an_earlier_capture_are_written_over),
		TEST(a_second_capture_to_the_same_file_is_refused),
		TEST(a_directory_is_no_file_to_capture_to),
		TEST(a_fifo_is_for_watching_while_it_happens),
		TEST(a_fifo_that_nobody_reads_does_not_hold_up_the_device),
		TEST(a_file_that_cannot_grow_does_not_hold_up_the_device),
		TEST(a_capture_shows_what_is_below_it),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
