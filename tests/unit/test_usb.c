/*
 * The libusb device before a kernel that umockdev plays: how it is found, taken, used, reset,
 * pulled out, plugged in again and given back; what reaches the kernel, and what comes of what
 * that answers.
 */
#include "fake_usbfs.h"

#include <fcntl.h>
#include <unistd.h>
#include <uv.h>

#include <host/usb.h>

#include "fake_driver.h"

#define PATIENCE_MS 10000u

static uv_loop_t loop;
static uv_timer_t tick;
static struct bh_device *device;
static char lines[16][400];
static unsigned line_count;
static bool closed;

/* So that the loop looks again at what nobody tells it. */
static void ticked(uv_timer_t *t)
{
	(void)t;
}

static void never(const char *what)
{
	for (unsigned i = 0; i < line_count; i++)
		print_message("# said: %s\n", lines[i]);
	print_message("# done: %s\n", fake.log);
	fail_msg("it never came: %s", what);
}

#define UNTIL(condition)                                                     \
	do {                                                                 \
		uint64_t until_ = uv_hrtime() + PATIENCE_MS * 1000000ull;    \
		while (!(condition)) {                                       \
			if (uv_hrtime() > until_)                            \
				never(#condition);                           \
			uv_run(&loop, UV_RUN_ONCE);                          \
		}                                                            \
	} while (0)

/* --- the kernel's side ------------------------------------------------------------------------- */

/* Is this what was done to the device, and nothing else? Forgets it. */
static void expect_log(const char *text)
{
	static char done[sizeof(fake.log)];

	pthread_mutex_lock(&fake.lock);
	memcpy(done, fake.log, sizeof(done));
	*fake.log = 0;
	pthread_mutex_unlock(&fake.lock);
	assert_string_equal(done, text);
}

static bool logged(const char *text)
{
	bool there;

	pthread_mutex_lock(&fake.lock);
	there = strstr(fake.log, text);
	pthread_mutex_unlock(&fake.lock);
	return there;
}

static void forget_log(void)
{
	pthread_mutex_lock(&fake.lock);
	*fake.log = 0;
	pthread_mutex_unlock(&fake.lock);
}

static unsigned pending(void)
{
	unsigned count;

	pthread_mutex_lock(&fake.lock);
	count = fake.pending_count;
	pthread_mutex_unlock(&fake.lock);
	return count;
}

static bool is_held(void)
{
	bool held;

	pthread_mutex_lock(&fake.lock);
	held = fake.holding;
	pthread_mutex_unlock(&fake.lock);
	return held;
}

/* What is done to the device does not return before it is let go. */
static void hold(bool on)
{
	pthread_mutex_lock(&fake.lock);
	fake.hold = on;
	pthread_cond_broadcast(&fake.changed);
	pthread_mutex_unlock(&fake.lock);
}

/* The only transfer that is pending; the kernel's own. */
static struct usbdevfs_urb *urb(void)
{
	UNTIL(pending() == 1);
	return fake.pending[0];
}

static void end_urb(int status, int actual)
{
	pthread_mutex_lock(&fake.lock);
	fake_end_urb(0, status, actual);
	pthread_mutex_unlock(&fake.lock);
}

/* --- the guest's side ---------------------------------------------------------------------------- */

struct flight {
	struct bh_transfer t;
	struct iovec span;
	uint8_t bytes[4608];
	unsigned ends;
	enum bh_status status;
};

static void flight_ended(struct bh_transfer *t, enum bh_status status)
{
	struct flight *f = bh_container_of(t, struct flight, t);

	f->ends++;
	f->status = status;
}

static void prepare(struct flight *f, enum bh_endpoint_type type, uint8_t endpoint, uint32_t length)
{
	memset(f, 0, sizeof(*f));
	for (uint32_t i = 0; i < sizeof(f->bytes); i++)
		f->bytes[i] = (uint8_t)(i * 7 + 3);
	f->span = (struct iovec){f->bytes, length};
	f->t = (struct bh_transfer){.endpoint = endpoint, .type = type, .spans = &f->span, .span_count = 1, .length = length,
	                            .done = flight_ended};
}

static void begin(struct flight *f, enum bh_endpoint_type type, uint8_t endpoint, uint32_t length)
{
	prepare(f, type, endpoint, length);
	bh_device_submit(device, &f->t);
}

static void prepare_control(struct flight *f, uint8_t type, uint8_t request, uint16_t value, uint16_t index, uint16_t length)
{
	prepare(f, BH_CONTROL, 0, length < sizeof(f->bytes) ? length : (uint32_t)sizeof(f->bytes));
	f->t.setup = (struct bh_setup){type, request, bh_put_le16(value), bh_put_le16(index), bh_put_le16(length)};
}

/* A request, carried out by the operation it is for. */
static void ask(struct flight *f, uint8_t type, uint8_t request, uint16_t value, uint16_t index, uint16_t length)
{
	prepare_control(f, type, request, value, index, length);
	bh_device_request(device, &f->t);
}

static void await(struct flight *f, enum bh_status status, uint32_t actual)
{
	UNTIL(f->ends);
	assert_int_equal(f->ends, 1);
	assert_int_equal(f->status, status);
	assert_int_equal(f->t.actual, actual);
}

static void configure(void)
{
	struct flight f;

	ask(&f, 0x00, 9, 1, 0, 0);
	await(&f, BH_SUCCESS, 0);
	forget_log();
}

static bool shows(void)
{
	return inw(PORTSC) & PORTSC_CCS;
}

/* --- setting up ---------------------------------------------------------------------------------- */

static void line(void *data, const char *text)
{
	(void)data;
	if (line_count < BH_COUNT(lines))
		snprintf(lines[line_count++], sizeof(lines[0]), "%s", text);
}

static bool said(const char *text)
{
	for (unsigned i = 0; i < line_count; i++)
		if (strstr(lines[i], text))
			return true;
	return false;
}

static void attach(const struct bh_usb_config *config)
{
	struct bh_usb_config c = *config;
	char error[256] = "";

	c.log.line = line;
	assert_int_equal(bh_usb_create(&loop, &c, &device, error, sizeof(error)), 0);
	assert_int_equal(bh_bus_attach(bh_uhci_bus(uhci), 0, device), 0);
}

static const struct bh_usb_config by_id = {
	.selector = {.by_vendor = true, .vendor = 0x0525, .by_product = true, .product = 0xa4a5},
};

/* Plugged in, found and shown. */
static void appear(void)
{
	fake_plug("1-1", 5, "12", "S1");
	attach(&by_id);
	UNTIL(shows() && bh_usb_counters(device).resets); /* a driver had it before */
	forget_log();
}

static int set_up(void **state)
{
	struct bh_uhci_config config = BH_UHCI_DEFAULTS;

	(void)state;
	uv_loop_init(&loop);
	uv_timer_init(&loop, &tick);
	uv_timer_start(&tick, ticked, 1, 1);
	line_count = 0;
	closed = false;
	fake_begin();
	machine(&config);
	run();
	frames(1);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	hold(false);
	machine_finish();
	uv_close((uv_handle_t *)&tick, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	fake_end();
	return 0;
}

static void is_closed(void *data, int error)
{
	assert_ptr_equal(data, &closed);
	assert_int_equal(error, 0);
	closed = true;
}

/* As the server closes it: taken out of its port, and told when it is over. */
static void destroyed(struct bh_device *d)
{
	bh_usb_close(d, is_closed, &closed);
}

static void close_it(void)
{
	static struct bh_device_ops ops;

	ops = *device->ops;
	ops.destroy = destroyed;
	device->ops = &ops;
	bh_bus_remove(bh_uhci_bus(uhci), 0, NULL, NULL);
}

/* --- coming and going ------------------------------------------------------------------------------ */

static void it_is_found_taken_and_shown(void **state)
{
	struct bh_real_info info;
	struct bh_usb_counters c;

	(void)state;
	attach(&by_id);
	UNTIL(bh_usb_counters(device).opened == 0);
	assert_false(shows());
	fake_plug("1-1", 5, "12", "S1");
	UNTIL(shows());
	UNTIL(bh_usb_counters(device).resets == 1);
	expect_log("detach 0;claim 0;claim 1;release 0;release 1;reset;claim 0;claim 1;");
	info = bh_real_device_info(device);
	assert_true(info.there && info.vendor == 0x0525 && info.product == 0xa4a5);
	c = bh_usb_counters(device);
	assert_int_equal(c.opened, 1);
	assert_int_equal(c.failures, 0);
	assert_true(said("usb 0525:a4a5: taken from usb-storage"));
	assert_true(said("usb 0525:a4a5: 0525:a4a5 is there (full speed)"));
}

static void it_is_given_back_as_it_was(void **state)
{
	struct flight f;

	(void)state;
	appear();
	configure();
	ask(&f, 0x00, 9, 2, 0, 0);
	await(&f, BH_SUCCESS, 0);
	expect_log("release 0;release 1;configure 2;claim 0;");
	begin(&f, BH_BULK, 0x81, 64);
	urb();
	close_it();
	assert_int_equal(f.ends, 1);
	UNTIL(closed);
	/* The drivers of a configuration bind when it is set: what is left to be attached has been. */
	expect_log("release 0;reset;configure 1;");
	assert_int_equal(fake.pending_count, 0);
	assert_string_equal(fake.drivers[0], "usb-storage");
}

static void a_driver_that_was_detached_is_attached(void **state)
{
	(void)state;
	appear();
	close_it();
	UNTIL(closed);
	expect_log("release 0;release 1;attach 0;");
}

static void it_is_pulled_out_and_comes_back(void **state)
{
	struct flight in, out, control;

	(void)state;
	appear();
	for (unsigned i = 0; i < 3; i++) {
		configure();
		begin(&in, BH_BULK, 0x81, 4096);
		begin(&out, BH_BULK, 0x02, 4096);
		ask(&control, 0xc0, 0x5c, 0, 0, 64);
		UNTIL(pending() == 3);
		fake_unplug("1-1", 5 + i);
		await(&in, BH_NO_RESPONSE, 0);
		await(&out, BH_NO_RESPONSE, 0);
		await(&control, BH_NO_RESPONSE, 0);
		UNTIL(!shows());
		assert_true(said("usb 0525:a4a5: it was unplugged"));
		begin(&in, BH_BULK, 0x81, 64);
		await(&in, BH_NO_RESPONSE, 0);
		fake_plug("1-1", 6 + i, "12", "S1");
		UNTIL(shows());
		assert_int_equal(bh_real_device_info(device).arrivals, i + 2);
	}
}

static void it_is_missed_when_nobody_asks_it_anything(void **state)
{
	(void)state;
	appear();
	fake_unplug("1-1", 5);
	UNTIL(!shows());
}

static void what_is_too_fast_is_left_alone(void **state)
{
	(void)state;
	fake_plug("1-1", 5, "480", "S1");
	attach(&by_id);
	UNTIL(said("full-speed port cannot carry"));
	expect_log("");
	assert_int_equal(bh_usb_counters(device).opened + bh_usb_counters(device).failures, 0);
	fake_unplug("1-1", 5);
	fake_plug("1-1", 6, "12", "S1");
	UNTIL(shows());
}

static void what_makes_no_sense_is_given_back(void **state)
{
	(void)state;
	fake.nonsense = true;
	fake_plug("1-1", 5, "12", "S1");
	attach(&by_id);
	UNTIL(logged("attach 0;"));
	expect_log("detach 0;claim 0;claim 1;release 0;release 1;reset;attach 0;");
	assert_true(said("make no sense"));
	fake_unplug("1-1", 5);
	fake.nonsense = false;
	fake_plug("1-1", 6, "12", "S1");
	UNTIL(shows());
	assert_int_equal(bh_usb_counters(device).opened, 2);
}

static void what_another_program_uses_is_not_disturbed(void **state)
{
	(void)state;
	fake_plug("1-1", 5, "12", "S1");
	strcpy(fake.drivers[1], "usbfs");
	attach(&by_id);
	UNTIL(bh_usb_counters(device).failures >= 2);
	expect_log("");
	assert_int_equal(line_count, 1);
	assert_true(said("is used by another program"));
	pthread_mutex_lock(&fake.lock);
	*fake.drivers[1] = 0;
	pthread_mutex_unlock(&fake.lock);
	UNTIL(shows());
}

static void of_two_the_first_is_taken(void **state)
{
	(void)state;
	fake_plug("1-10", 7, "12", "S2");
	fake_plug("1-2", 9, "12", "S1");
	attach(&by_id);
	UNTIL(shows());
	assert_true(said("2 devices fit; the first is taken: 1-2"));
}

static void a_descriptor_that_is_passed_in_is_used(void **state)
{
	struct bh_usb_config config = {.passed = true};

	(void)state;
	fake_plug("1-1", 5, "12", "S1");
	config.fd = open("/dev/bus/usb/001/005", O_RDWR);
	assert_true(config.fd >= 0);
	attach(&config);
	UNTIL(shows());
	configure();
	fake_unplug("1-1", 5);
	/* Nothing tells but a transfer: an open file of the file system never hangs up. */
	struct flight f;
	begin(&f, BH_BULK, 0x81, 64);
	await(&f, BH_NO_RESPONSE, 0);
	UNTIL(!shows());
	bh_bus_tick(bh_uhci_bus(uhci), guest.now_us);
	assert_null(bh_port_device(&bh_uhci_bus(uhci)->ports[0]));
	device = NULL;
}

static void a_descriptor_of_a_fast_device_is_refused(void **state)
{
	struct bh_usb_config config = {.passed = true};

	(void)state;
	fake_plug("1-1", 5, "480", "S1");
	fake.speed = USB_SPEED_HIGH;
	config.fd = open("/dev/bus/usb/001/005", O_RDWR);
	attach(&config);
	UNTIL(said("full-speed port cannot carry"));
	expect_log("");
}

static void what_cannot_be_used_is_refused_at_once(void **state)
{
	struct bh_usb_config config = {.passed = true, .fd = open("/dev/null", O_RDONLY)};
	char error[256];

	(void)state;
	assert_int_equal(bh_usb_create(&loop, &config, &device, error, sizeof(error)), -EINVAL);
	assert_non_null(strstr(error, "open for reading and writing"));
	close(config.fd);
	config.fd = open("/dev/null", O_RDWR);
	assert_int_equal(bh_usb_create(&loop, &config, &device, error, sizeof(error)), -EINVAL);
	close(config.fd);
	config.fd = 1000;
	assert_int_equal(bh_usb_create(&loop, &config, &device, error, sizeof(error)), -EINVAL);
}

/* --- transfers ----------------------------------------------------------------------------------------- */

static void bulk_out_is_one_transfer(void **state)
{
	struct flight f;
	struct usbdevfs_urb *u;

	(void)state;
	appear();
	configure();
	begin(&f, BH_BULK, 0x02, 4096);
	u = urb();
	assert_int_equal(u->type, USBDEVFS_URB_TYPE_BULK);
	assert_int_equal(u->endpoint, 0x02);
	assert_int_equal(u->buffer_length, 4096);
	assert_int_equal(u->flags, 0);
	assert_memory_equal(u->buffer, f.bytes, 4096);
	end_urb(0, 4096);
	await(&f, BH_SUCCESS, 4096);
	assert_int_equal(bh_usb_counters(device).bytes_out, 4096);

	prepare(&f, BH_BULK, 0x02, 128);
	f.t.flags = BH_TRANSFER_ZERO_PACKET;
	bh_device_submit(device, &f.t);
	assert_int_equal(urb()->flags, USBDEVFS_URB_ZERO_PACKET);
	end_urb(0, 128);
	await(&f, BH_SUCCESS, 128);

	begin(&f, BH_BULK, 0x02, 0);
	assert_int_equal(urb()->buffer_length, 0);
	end_urb(0, 0);
	await(&f, BH_SUCCESS, 0);
}

static void bulk_in_ends_short_or_full(void **state)
{
	static const int lengths[] = {4096, 4095, 64, 63, 1, 0};
	struct flight f;
	struct usbdevfs_urb *u;

	(void)state;
	appear();
	configure();
	for (size_t i = 0; i < BH_COUNT(lengths); i++) {
		begin(&f, BH_BULK, 0x81, 4096);
		memset(f.bytes, 0xee, sizeof(f.bytes));
		u = urb();
		assert_int_equal(u->buffer_length, 4096);
		assert_int_equal(u->flags, 0);
		memset(u->buffer, 0x5a, 4096);
		end_urb(0, lengths[i]);
		await(&f, BH_SUCCESS, (uint32_t)lengths[i]);
		for (int k = 0; k < 4096; k++)
			assert_int_equal(f.bytes[k], k < lengths[i] ? 0x5a : 0xee);
	}
}

static void interrupts_are_told_as_they_are(void **state)
{
	struct flight f;

	(void)state;
	appear();
	configure();
	begin(&f, BH_INTERRUPT, 0x83, 8);
	assert_int_equal(urb()->type, USBDEVFS_URB_TYPE_INTERRUPT);
	end_urb(0, 3);
	await(&f, BH_SUCCESS, 3);
	begin(&f, BH_BULK, 0x83, 8); /* it is none */
	await(&f, BH_STALL, 0);
	begin(&f, BH_BULK, 0x8f, 64);
	await(&f, BH_STALL, 0);
}

static void every_outcome_is_mapped(void **state)
{
	static const struct {
		int status;
		enum bh_status in, out;
	} rows[] = {
		{-EPIPE, BH_STALL, BH_STALL},
		{-EOVERFLOW, BH_BABBLE, BH_BABBLE},
		{-EPROTO, BH_BUS_ERROR, BH_BUS_ERROR},
		{-EILSEQ, BH_BUS_ERROR, BH_BUS_ERROR},
		{-ETIME, BH_BUS_ERROR, BH_BUS_ERROR},
		{-ECOMM, BH_BUS_ERROR, BH_BUS_ERROR},
		{-EINVAL, BH_BUS_ERROR, BH_BUS_ERROR},
		{0, BH_SUCCESS, BH_BUS_ERROR}, /* less taken than was sent */
	};
	struct flight f;
	unsigned errors = 0;

	(void)state;
	appear();
	configure();
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		begin(&f, BH_BULK, 0x81, 512);
		urb();
		end_urb(rows[i].status, 192);
		await(&f, rows[i].in, 192);
		begin(&f, BH_BULK, 0x02, 512);
		urb();
		end_urb(rows[i].status, 128);
		await(&f, rows[i].out, 128);
		errors += 1 + (rows[i].status != 0);
	}
	assert_int_equal(bh_usb_counters(device).errors, errors);
	assert_true(shows());
}

static void what_the_kernel_does_not_take_ends(void **state)
{
	static const struct {
		int error;
		enum bh_status status;
	} rows[] = {{EINVAL, BH_STALL}, {ENOENT, BH_STALL}, {EBUSY, BH_STALL}, {ENOMEM, BH_NO_RESPONSE}};
	struct flight f;

	(void)state;
	appear();
	configure();
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		fake.submit_errno = rows[i].error;
		begin(&f, BH_BULK, 0x81, 512);
		await(&f, rows[i].status, 0);
	}
	assert_true(shows());
	fake.submit_errno = ENODEV;
	begin(&f, BH_BULK, 0x81, 512);
	await(&f, BH_NO_RESPONSE, 0);
	UNTIL(!shows());
	UNTIL(shows()); /* it is still plugged in */
}

static void a_halt_is_cleared(void **state)
{
	struct flight f;

	(void)state;
	appear();
	configure();
	begin(&f, BH_BULK, 0x81, 64);
	urb();
	end_urb(-EPIPE, 0);
	await(&f, BH_STALL, 0);
	ask(&f, 0x02, 1, 0, 0x81, 0);
	await(&f, BH_SUCCESS, 0);
	expect_log("clear 81;");
}

/* --- control ----------------------------------------------------------------------------------------------- */

static void control_goes_as_it_is(void **state)
{
	struct flight f;
	struct usbdevfs_urb *u;
	const uint8_t *setup;

	(void)state;
	appear();
	configure();
	ask(&f, 0xc0, 0x5c, 0x1234, 0x5678, 100);
	u = urb();
	setup = u->buffer;
	assert_int_equal(u->buffer_length, 108);
	assert_memory_equal(setup, ((uint8_t[]){0xc0, 0x5c, 0x34, 0x12, 0x78, 0x56, 100, 0}), 8);
	memset((uint8_t *)u->buffer + 8, 0x77, 100);
	end_urb(0, 40);
	await(&f, BH_SUCCESS, 40);
	assert_int_equal(f.bytes[39], 0x77);
	assert_int_not_equal(f.bytes[40], 0x77);

	ask(&f, 0x40, 0x5b, 0, 0, 4096);
	u = urb();
	assert_int_equal(u->buffer_length, 4104);
	assert_memory_equal((uint8_t *)u->buffer + 8, f.bytes, 4096);
	end_urb(0, 4096);
	await(&f, BH_SUCCESS, 4096);
	ask(&f, 0x40, 1, 2, 3, 0);
	assert_int_equal(urb()->buffer_length, 8);
	end_urb(0, 0);
	await(&f, BH_SUCCESS, 0);
	ask(&f, 0x40, 1, 2, 3, 0);
	urb();
	end_urb(-EPIPE, 0);
	await(&f, BH_STALL, 0);
}

/* libusb takes 4096 bytes. Who asks for more mostly gets less. */
static void more_than_libusb_takes_is_cut_or_refused(void **state)
{
	struct flight f;
	struct usbdevfs_urb *u;

	(void)state;
	appear();
	configure();
	ask(&f, 0xc0, 0x5c, 0, 0, 4352);
	u = urb();
	assert_int_equal(u->buffer_length, 4096 + 8);
	assert_memory_equal((uint8_t *)u->buffer + 6, ((uint8_t[]){0x00, 0x10}), 2);
	end_urb(0, 4000);
	await(&f, BH_SUCCESS, 4000);
	ask(&f, 0xc0, 0x5c, 0, 0, 4352);
	urb();
	end_urb(0, 4096);
	await(&f, BH_STALL, 4096);
	ask(&f, 0x40, 0x5b, 0, 0, 4352);
	await(&f, BH_STALL, 0);
	ask(&f, 0x40, 0x5b, 0, 0, 65535);
	await(&f, BH_STALL, 0);
}

static void what_is_not_the_devices_does_not_reach_it(void **state)
{
	struct flight f;
	unsigned submits;

	(void)state;
	appear();
	submits = fake.submits;
	ask(&f, 0x00, 5, 17, 0, 0); /* SET_ADDRESS */
	await(&f, BH_STALL, 0);
	ask(&f, 0x80, 8, 0, 0, 1); /* what the kernel has configured the guest has reset */
	await(&f, BH_SUCCESS, 1);
	assert_int_equal(f.bytes[0], 0);
	ask(&f, 0x81, 10, 0, 0, 1);
	await(&f, BH_STALL, 0);
	ask(&f, 0x00, 9, 7, 0, 0); /* a configuration there is not */
	await(&f, BH_STALL, 0);
	ask(&f, 0x01, 11, 3, 1, 0); /* and an alternate setting */
	await(&f, BH_STALL, 0);
	prepare_control(&f, 0x40, 0x5b, 0, 0, 100); /* whose data ended early */
	f.t.length = f.span.iov_len = 64;
	bh_device_submit(device, &f.t);
	await(&f, BH_STALL, 0);
	assert_int_equal(fake.submits, submits);
}

/* --- settings ------------------------------------------------------------------------------------------------ */

static void settings_follow_what_the_kernel_did(void **state)
{
	struct flight f;

	(void)state;
	appear();
	assert_null(bh_device_endpoint(device, 0x81));
	ask(&f, 0x00, 9, 1, 0, 0);
	await(&f, BH_SUCCESS, 0);
	expect_log("release 0;release 1;configure 1;claim 0;claim 1;");
	assert_non_null(bh_device_endpoint(device, 0x81));
	assert_null(bh_device_endpoint(device, 0x84));
	ask(&f, 0x01, 11, 1, 1, 0);
	await(&f, BH_SUCCESS, 0);
	expect_log("alternate 1 1;");
	assert_int_equal(bh_device_endpoint(device, 0x84)->max_packet, 100);
	ask(&f, 0x00, 9, 0, 0, 0);
	await(&f, BH_SUCCESS, 0);
	expect_log("release 0;release 1;configure -1;");
	assert_null(bh_device_endpoint(device, 0x81));
	ask(&f, 0x00, 9, 1, 0, 0); /* its driver comes back, and is detached anew */
	await(&f, BH_SUCCESS, 0);
	expect_log("configure 1;detach 0;claim 0;claim 1;");
}

static void settings_stay_where_the_kernel_refuses(void **state)
{
	struct flight f;

	(void)state;
	appear();
	configure();
	fake.errno_of_configure = EPIPE;
	ask(&f, 0x00, 9, 2, 0, 0);
	await(&f, BH_STALL, 0);
	expect_log("release 0;release 1;configure 2;claim 0;claim 1;");
	fake.errno_of_alternate = EPIPE;
	ask(&f, 0x01, 11, 1, 1, 0);
	await(&f, BH_STALL, 0);
	assert_null(bh_device_endpoint(device, 0x84));
	assert_non_null(bh_device_endpoint(device, 0x02));
}

/* --- cancelling, and what takes its time ------------------------------------------------------------------------- */

static void a_cancelled_transfer_tells_what_has_moved(void **state)
{
	struct flight f;

	(void)state;
	appear();
	configure();
	begin(&f, BH_BULK, 0x02, 4096);
	urb()->actual_length = 640;
	bh_device_cancel(device, &f.t);
	assert_int_equal(f.ends, 0); /* the kernel has it */
	await(&f, BH_CANCELLED, 640);
	begin(&f, BH_BULK, 0x81, 4096);
	memset(urb()->buffer, 0x11, 4096);
	urb()->actual_length = 64;
	bh_device_cancel(device, &f.t);
	await(&f, BH_CANCELLED, 64);
	assert_int_equal(f.bytes[63], 0x11);
	assert_int_equal(fake.discards, 2);
	assert_int_equal(bh_usb_counters(device).cancels, 2);
	assert_int_equal(bh_usb_counters(device).errors, 0);
}

/* It had ended before anybody could cancel it. */
static void an_outcome_that_was_first_counts(void **state)
{
	struct flight f;

	(void)state;
	appear();
	configure();
	begin(&f, BH_BULK, 0x81, 4096);
	urb();
	pthread_mutex_lock(&fake.lock);
	fake_end_urb(0, -EPIPE, 64);
	bh_device_cancel(device, &f.t);
	pthread_mutex_unlock(&fake.lock);
	await(&f, BH_STALL, 64);
	assert_int_equal(fake.discards, 0);
}

static void what_comes_meanwhile_waits_in_order(void **state)
{
	struct flight slow, first, second, third;

	(void)state;
	appear();
	configure();
	hold(true);
	ask(&slow, 0x02, 1, 0, 0x81, 0);
	UNTIL(is_held());
	begin(&first, BH_BULK, 0x81, 64);
	begin(&second, BH_BULK, 0x02, 64);
	begin(&third, BH_BULK, 0x81, 128);
	bh_device_cancel(device, &second.t); /* nobody has begun with it */
	await(&second, BH_CANCELLED, 0);
	assert_int_equal(pending(), 0);
	hold(false);
	await(&slow, BH_SUCCESS, 0);
	UNTIL(pending() == 2);
	assert_int_equal(fake.pending[0]->buffer_length, 64);
	assert_int_equal(fake.pending[1]->buffer_length, 128);
	end_urb(0, 64);
	await(&first, BH_SUCCESS, 64);
	end_urb(0, 128);
	await(&third, BH_SUCCESS, 128);
}

/* A guest gives up; what the kernel did all the same counts. */
static void a_request_that_was_given_up_is_carried_out(void **state)
{
	struct flight slow, next;

	(void)state;
	appear();
	hold(true);
	ask(&slow, 0x00, 9, 1, 0, 0);
	UNTIL(is_held());
	bh_device_cancel(device, &slow.t);
	await(&slow, BH_CANCELLED, 0);
	assert_null(bh_device_endpoint(device, 0x81));
	hold(false);
	UNTIL(bh_device_endpoint(device, 0x81));
	begin(&next, BH_BULK, 0x81, 64);
	urb();
	end_urb(0, 64);
	await(&next, BH_SUCCESS, 64);
}

static void more_than_there_is_room_for_waits(void **state)
{
	static struct flight many[300];
	uint64_t before;

	(void)state;
	appear();
	configure();
	before = bh_usb_counters(device).transfers;
	for (unsigned i = 0; i < BH_COUNT(many); i++)
		begin(&many[i], BH_INTERRUPT, 0x83, 8);
	UNTIL(pending() == 256);
	bh_device_cancel(device, &many[280].t);
	await(&many[280], BH_CANCELLED, 0);
	for (unsigned i = 0; i < BH_COUNT(many); i++) {
		if (i == 280)
			continue;
		UNTIL(pending());
		end_urb(0, 1);
		await(&many[i], BH_SUCCESS, 1);
	}
	assert_int_equal(bh_usb_counters(device).transfers - before, 299);
}

/* --- resets --------------------------------------------------------------------------------------------------------- */

static void a_reset_ends_everything_and_reaches_the_device(void **state)
{
	struct flight in, out, get;

	(void)state;
	appear();
	configure();
	begin(&in, BH_BULK, 0x81, 4096);
	begin(&out, BH_BULK, 0x02, 4096);
	UNTIL(pending() == 2);
	bh_device_reset(device);
	assert_int_equal(in.ends + out.ends, 2);
	assert_int_equal(in.status, BH_CANCELLED);
	assert_null(bh_device_endpoint(device, 0x81));
	UNTIL(logged("claim 1;"));
	expect_log("release 0;release 1;reset;claim 0;claim 1;");
	assert_int_equal(pending(), 0);
	/* Asked what it is, and reset again: nothing has happened to it. */
	ask(&get, 0x80, 6, 0x0100, 0, 18);
	await(&get, BH_SUCCESS, 18);
	bh_device_reset(device);
	configure();
	assert_int_equal(bh_usb_counters(device).resets, 2);
}

static void a_reset_that_waits_is_not_lost(void **state)
{
	struct flight slow;

	(void)state;
	appear();
	configure();
	hold(true);
	ask(&slow, 0x02, 1, 0, 0x81, 0);
	UNTIL(is_held());
	bh_device_reset(device);
	await(&slow, BH_CANCELLED, 0);
	bh_device_reset(device);
	bh_device_reset(device);
	hold(false);
	UNTIL(bh_usb_counters(device).resets == 2);
	expect_log("clear 81;release 0;release 1;reset;claim 0;claim 1;");
}

/* What was under way when the port was reset must not configure it afterwards. */
static void a_reset_makes_older_settings_void(void **state)
{
	struct flight slow, get;

	(void)state;
	appear();
	hold(true);
	ask(&slow, 0x00, 9, 1, 0, 0);
	UNTIL(is_held());
	bh_device_reset(device);
	hold(false);
	ask(&get, 0x80, 6, 0x0100, 0, 18);
	await(&get, BH_SUCCESS, 18);
	assert_null(bh_device_endpoint(device, 0x81));
}

static void it_can_be_kept_from_resets(void **state)
{
	struct bh_usb_config config = by_id;
	struct flight f;

	(void)state;
	config.keep_from_resets = true;
	fake_plug("1-1", 5, "12", "S1");
	attach(&config);
	UNTIL(shows());
	configure();
	begin(&f, BH_BULK, 0x81, 64);
	urb();
	bh_device_reset(device);
	UNTIL(logged("clear 83;"));
	expect_log("clear 81;clear 02;clear 83;");
	close_it();
	UNTIL(closed);
	expect_log("release 0;release 1;attach 0;");
}

/* It came back as something else, or not at all: it is looked for again. */
static void a_reset_that_loses_the_device(void **state)
{
	struct flight f;

	(void)state;
	appear();
	configure();
	fake.errno_of_reset = ENODEV;
	begin(&f, BH_BULK, 0x81, 64);
	urb();
	bh_device_reset(device);
	UNTIL(!shows());
	pthread_mutex_lock(&fake.lock);
	fake.errno_of_reset = 0;
	pthread_mutex_unlock(&fake.lock);
	UNTIL(shows());
}

/* --- isochronous ------------------------------------------------------------------------------------------------------ */

static void isochronous_packets_have_outcomes_of_their_own(void **state)
{
	struct bh_packet packets[4];
	struct flight f;
	struct usbdevfs_urb *u;

	(void)state;
	appear();
	configure();
	ask(&f, 0x01, 11, 1, 1, 0);
	await(&f, BH_SUCCESS, 0);
	for (unsigned i = 0; i < 4; i++)
		packets[i] = (struct bh_packet){.offset = 100 * i, .length = 100, .status = BH_NO_RESPONSE};
	prepare(&f, BH_ISOCHRONOUS, 0x84, 400);
	f.t.packets = packets;
	f.t.packet_count = 4;
	bh_device_submit(device, &f.t);
	u = urb();
	assert_int_equal(u->type, USBDEVFS_URB_TYPE_ISO);
	assert_int_equal(u->number_of_packets, 4);
	memset(u->buffer, 0x42, 400);
	u->iso_frame_desc[0].actual_length = 100;
	u->iso_frame_desc[1].status = (unsigned)-EPROTO;
	u->iso_frame_desc[2].actual_length = 30;
	u->iso_frame_desc[3].status = (unsigned)-EOVERFLOW;
	end_urb(0, 130);
	UNTIL(f.ends);
	assert_int_equal(packets[0].status, BH_SUCCESS);
	assert_int_equal(packets[0].actual, 100);
	assert_int_equal(packets[1].status, BH_BUS_ERROR);
	assert_int_equal(packets[1].actual, 0);
	assert_int_equal(packets[2].status, BH_SUCCESS);
	assert_int_equal(packets[2].actual, 30);
	assert_int_equal(packets[3].status, BH_BABBLE);
	assert_int_equal(f.bytes[229], 0x42);
	assert_int_not_equal(f.bytes[230], 0x42);

	for (unsigned i = 0; i < 4; i++)
		packets[i] = (struct bh_packet){.offset = 100 * i, .length = 10 * i, .status = BH_NO_RESPONSE};
	prepare(&f, BH_ISOCHRONOUS, 0x05, 400);
	f.t.packets = packets;
	f.t.packet_count = 4;
	bh_device_submit(device, &f.t);
	u = urb();
	assert_int_equal(u->buffer_length, 60);
	assert_memory_equal((uint8_t *)u->buffer + 30, f.bytes + 300, 30);
	u->iso_frame_desc[1].actual_length = 10;
	bh_device_cancel(device, &f.t);
	UNTIL(f.ends);
	assert_int_equal(f.status, BH_CANCELLED);
	assert_int_equal(packets[1].status, BH_SUCCESS);
	assert_int_equal(packets[2].status, BH_NO_RESPONSE);
}

/* --- the end of it all ---------------------------------------------------------------------------------------------------- */

static void it_can_be_closed_at_any_time(void **state)
{
	struct flight f;

	(void)state;
	fake_plug("1-1", 5, "12", "S1");
	attach(&by_id); /* not even looked for */
	close_it();
	UNTIL(closed);
	closed = false;
	attach(&by_id);
	UNTIL(shows());
	hold(true);
	ask(&f, 0x00, 9, 1, 0, 0);
	UNTIL(is_held());
	close_it();
	assert_int_equal(f.ends, 1);
	uv_run(&loop, UV_RUN_ONCE);
	assert_false(closed);
	hold(false);
	UNTIL(closed);
	assert_string_equal(fake.drivers[0], "usb-storage");
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(it_is_found_taken_and_shown),
		TEST(it_is_given_back_as_it_was),
		TEST(a_driver_that_was_detached_is_attached),
		TEST(it_is_pulled_out_and_comes_back),
		TEST(it_is_missed_when_nobody_asks_it_anything),
		TEST(what_is_too_fast_is_left_alone),
		TEST(what_makes_no_sense_is_given_back),
		TEST(what_another_program_uses_is_not_disturbed),
		TEST(of_two_the_first_is_taken),
		TEST(a_descriptor_that_is_passed_in_is_used),
		TEST(a_descriptor_of_a_fast_device_is_refused),
		TEST(what_cannot_be_used_is_refused_at_once),
		TEST(bulk_out_is_one_transfer),
		TEST(bulk_in_ends_short_or_full),
		TEST(interrupts_are_told_as_they_are),
		TEST(every_outcome_is_mapped),
		TEST(what_the_kernel_does_not_take_ends),
		TEST(a_halt_is_cleared),
		TEST(control_goes_as_it_is),
		TEST(more_than_libusb_takes_is_cut_or_refused),
		TEST(what_is_not_the_devices_does_not_reach_it),
		TEST(settings_follow_what_the_kernel_did),
		TEST(settings_stay_where_the_kernel_refuses),
		TEST(a_cancelled_transfer_tells_what_has_moved),
		TEST(an_outcome_that_was_first_counts),
		TEST(what_comes_meanwhile_waits_in_order),
		TEST(a_request_that_was_given_up_is_carried_out),
		TEST(more_than_there_is_room_for_waits),
		TEST(a_reset_ends_everything_and_reaches_the_device),
		TEST(a_reset_that_waits_is_not_lost),
		TEST(a_reset_makes_older_settings_void),
		TEST(it_can_be_kept_from_resets),
		TEST(a_reset_that_loses_the_device),
		TEST(isochronous_packets_have_outcomes_of_their_own),
		TEST(it_can_be_closed_at_any_time),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
