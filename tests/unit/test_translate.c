/*
 * The layer that translates between speeds, piece by piece: what it says of a device, which devices it
 * refuses and why, and the rules of docs/translation.md one by one, where the law (test_translate_law.c)
 * cannot see them: disks' commands, time, setting up anew, reports.
 */
#include <errno.h>

#include <uv.h>

#include <layer/layer.h>
#include <layer/layers.h>
#include <usb/settings.h>

#include "../../src/layer/translate.h"
#include "../../src/layer/translate_descriptors.h"
#include "function_rig.h"

/* --- a device that is its descriptors, and holds every transfer --------------------------- */

static struct {
	struct bh_device device;
	struct bh_settings settings;
	uint8_t descriptor[18];
	const uint8_t *configurations[4];
	unsigned count;
	struct bh_transfer *held[2][16]; /* [in][number] */
	unsigned submits, cancels, controls, configured, resets;
	bool destroyed;
} dev;

static void dev_submit(struct bh_device *d, struct bh_transfer *t)
{
	(void)d;
	if (t->type == BH_CONTROL) {
		dev.controls++;
		bh_transfer_done(t, BH_SUCCESS, t->setup.bmRequestType & BH_ENDPOINT_IN ? 0 : t->length);
		return;
	}
	dev.submits++;
	assert_null(dev.held[(t->endpoint & BH_ENDPOINT_IN) != 0][t->endpoint & 15]);
	dev.held[(t->endpoint & BH_ENDPOINT_IN) != 0][t->endpoint & 15] = t;
}

static struct bh_transfer *held(uint8_t address)
{
	return dev.held[(address & BH_ENDPOINT_IN) != 0][address & 15];
}

static void end(uint8_t address, enum bh_status status, uint32_t actual)
{
	struct bh_transfer *t = held(address);

	assert_non_null(t);
	dev.held[(address & BH_ENDPOINT_IN) != 0][address & 15] = NULL;
	bh_transfer_done(t, status, actual);
}

/* An IN of so many bytes: 0, 1, 2 and so on from first. */
static void give(uint8_t address, uint32_t actual, uint8_t first)
{
	for (uint32_t i = 0; i < actual; i++) {
		uint8_t byte = (uint8_t)(first + i);

		bh_transfer_write(held(address), i, &byte, 1);
	}
	end(address, BH_SUCCESS, actual);
}

static void dev_cancel(struct bh_device *d, struct bh_transfer *t)
{
	(void)d;
	dev.cancels++;
	if (held(t->endpoint) == t)
		end(t->endpoint, BH_CANCELLED, 0);
}

static void dev_reset(struct bh_device *d)
{
	(void)d;
	dev.resets++;
	bh_settings_configure(&dev.settings, 0);
}

static void dev_set_configuration(struct bh_device *d, uint8_t value, struct bh_transfer *t)
{
	(void)d;
	dev.configured++;
	bh_settings_configure(&dev.settings, value);
	bh_transfer_done(t, BH_SUCCESS, 0);
}

static void dev_set_interface(struct bh_device *d, uint8_t interface, uint8_t alternate, struct bh_transfer *t)
{
	(void)d;
	bh_settings_set_interface(&dev.settings, interface, alternate);
	bh_transfer_done(t, BH_SUCCESS, 0);
}

static void dev_clear_halt(struct bh_device *d, uint8_t endpoint, struct bh_transfer *t)
{
	(void)d, (void)endpoint;
	bh_transfer_done(t, BH_SUCCESS, 0);
}

static bool dev_refuses(const struct bh_device *d, const struct bh_setup *setup)
{
	(void)d;
	return bh_settings_refuse(&dev.settings, setup);
}

static const struct bh_endpoint_info *dev_endpoint(const struct bh_device *d, uint8_t address)
{
	(void)d;
	return bh_settings_endpoint(&dev.settings, address);
}

static struct bh_descriptors dev_descriptors(const struct bh_device *d)
{
	(void)d;
	return (struct bh_descriptors){dev.descriptor, dev.configurations, dev.count};
}

static void dev_destroy(struct bh_device *d)
{
	(void)d;
	for (unsigned i = 0; i < 32; i++)
		if (dev.held[i / 16][i % 16])
			end((uint8_t)(i % 16 | (i / 16 ? BH_ENDPOINT_IN : 0)), BH_CANCELLED, 0);
	dev.destroyed = true;
}

static const struct bh_device_ops dev_ops = {
	.submit = dev_submit,
	.cancel = dev_cancel,
	.reset = dev_reset,
	.set_configuration = dev_set_configuration,
	.set_interface = dev_set_interface,
	.clear_halt = dev_clear_halt,
	.refuses = dev_refuses,
	.endpoint = dev_endpoint,
	.descriptors = dev_descriptors,
	.destroy = dev_destroy,
};

/* --- descriptors ------------------------------------------------------------------------------ */

#define CONFIGURATION(length, interfaces, power) 9, 2, (length) & 255, (length) >> 8, (interfaces), 1, 0, 0x80, (power)
#define INTERFACE(number, alternate, endpoints, class, subclass, protocol) \
	9, 4, (number), (alternate), (endpoints), (class), (subclass), (protocol), 0
#define ENDPOINT(address, type, size, interval) 7, 5, (address), (type), (size) & 255, (size) >> 8, (interval)
#define COMPANION(burst, attributes) 6, 0x30, (burst), (attributes), 0, 0

/* A stick of high speed. */
static const uint8_t stick[] = {
	CONFIGURATION(9 + 9 + 14, 1, 100),
	INTERFACE(0, 0, 2, 8, 6, 0x50),
	ENDPOINT(0x81, 2, 512, 0),
	ENDPOINT(0x02, 2, 512, 1),
};

/* One of SuperSpeed, which knows UAS with streams as well. */
static const uint8_t super_stick[] = {
	CONFIGURATION(9 + 9 + 26 + 9 + 26, 1, 112),
	INTERFACE(0, 0, 2, 8, 6, 0x50),
	ENDPOINT(0x81, 2, 1024, 0), COMPANION(15, 0),
	ENDPOINT(0x02, 2, 1024, 0), COMPANION(15, 0),
	INTERFACE(0, 1, 2, 8, 6, 0x62),
	ENDPOINT(0x83, 2, 1024, 0), COMPANION(15, 4),
	ENDPOINT(0x04, 2, 1024, 0), COMPANION(0, 0),
};

/* A camera with a microphone: each an association of two; video needs high bandwidth, sound one packet a frame. */
static const uint8_t camera[] = {
	CONFIGURATION(9 + 8 + 9 + 5 + 9 + 9 + 7 + 8 + 9 + 9 + 9 + 7 + 7 + 7, 4, 250),
	8, 11, 0, 2, 14, 3, 0, 0,
	INTERFACE(0, 0, 0, 14, 1, 0), 5, 0x24, 1, 0, 1,
	INTERFACE(1, 0, 0, 14, 2, 0),
	INTERFACE(1, 1, 1, 14, 2, 0), ENDPOINT(0x81, 5, 0x1400, 1), /* three times 1024 */
	8, 11, 2, 2, 1, 0, 0, 0,
	INTERFACE(2, 0, 0, 1, 1, 0),
	INTERFACE(3, 0, 0, 1, 2, 0),
	INTERFACE(3, 1, 2, 1, 2, 0), ENDPOINT(0x82, 5, 196, 4), 7, 0x25, 1, 0, 0, 0, 0, ENDPOINT(0x83, 3, 16, 7),
};

/* Nothing but what a full-speed bus cannot carry. */
static const uint8_t tuner[] = {
	CONFIGURATION(9 + 9 + 7, 1, 250),
	INTERFACE(0, 0, 1, 255, 0, 0), ENDPOINT(0x81, 1, 1024, 1),
};

/* Reports of 512 and of 100 bytes, and a notification of 8. */
static const uint8_t reports[] = {
	CONFIGURATION(9 + 9 + 35, 1, 50),
	INTERFACE(0, 0, 5, 3, 0, 0),
	ENDPOINT(0x81, 3, 512, 4), ENDPOINT(0x02, 3, 512, 5), ENDPOINT(0x83, 3, 8, 8), ENDPOINT(0x84, 3, 100, 1), ENDPOINT(0x05, 3, 100, 16),
};

static char lines[1024];

static void log_line(void *data, const char *text)
{
	(void)data;
	snprintf(lines + strlen(lines), sizeof(lines) - strlen(lines), "%s\n", text);
}

static struct bh_layer_context context = {.log = log_line};
static struct bh_device *device; /* what stands over dev */

static void describe(const uint8_t *configuration, enum bh_speed speed)
{
	memset(&dev, 0, sizeof(dev));
	lines[0] = '\0';
	memcpy(dev.descriptor, (const uint8_t[18]){18, 1, 0x00, 0x02, 0, 0, 0, 64, 0x81, 0x07, 0x81, 0x55, 0, 1, 1, 2, 3, 1}, 18);
	if (speed == BH_SPEED_SUPER) {
		dev.descriptor[2] = 0x20;
		dev.descriptor[3] = 0x03;
		dev.descriptor[7] = 9;
	}
	dev.configurations[0] = configuration;
	dev.count = 1;
	assert_true(bh_configuration_check(configuration, bh_configuration_length(configuration)));
	bh_settings_init(&dev.settings, dev.configurations, dev.count);
	dev.device = (struct bh_device){.ops = &dev_ops, .speed = speed, .control_max_packet = 64};
}

static int put(char error[BH_LAYER_ERROR_SIZE])
{
	device = &dev.device;
	return bh_layers_put(&context, "translate", &device, error);
}

/* As a guest has it, configured. */
static void begin(const uint8_t *configuration, enum bh_speed speed)
{
	char error[BH_LAYER_ERROR_SIZE];
	struct flight f;

	describe(configuration, speed);
	assert_int_equal(put(error), 0);
	flight_init(&f, 0, BH_CONTROL, NULL, 0);
	f.transfer.setup = (struct bh_setup){.bRequest = 9, .wValue = {{1, 0}}};
	bh_device_request(device, &f.transfer);
	assert_true(f.done && f.status == BH_SUCCESS && dev.configured == 1);
}

static void finish(void)
{
	bh_device_destroy(device);
	assert_true(dev.destroyed);
}

static uint64_t counter(const char *name)
{
	struct bh_layer_counter all[BH_LAYER_COUNTERS];
	const char *layer;
	unsigned count;

	assert_ptr_equal(bh_layer_counters(device, &layer, all, &count), &dev.device);
	assert_string_equal(layer, "translate");
	for (unsigned i = 0; i < count; i++)
		if (!strcmp(all[i].name, name))
			return all[i].value;
	fail_msg("no counter %s", name);
	return 0;
}

static enum bh_status ask(uint8_t type, uint8_t request, uint8_t low, uint8_t high, uint8_t index, void *data,
                          uint16_t length, uint32_t *ret_actual)
{
	struct flight f;

	flight_init(&f, 0, BH_CONTROL, data, length);
	f.transfer.setup = (struct bh_setup){type, request, {{low, high}}, {{index, 0}}, {{(uint8_t)length, (uint8_t)(length >> 8)}}};
	bh_device_request(device, &f.transfer);
	assert_true(f.done);
	*ret_actual = f.transfer.actual;
	return f.status;
}

static uint32_t get_descriptor(uint8_t type, uint8_t data[512])
{
	uint32_t actual;

	return ask(0x80, 6, 0, type, 0, data, 512, &actual) == BH_SUCCESS ? actual : 0;
}

#define assert_bytes(is, length, ...)                                        \
	do {                                                                 \
		const uint8_t wanted_[] = {__VA_ARGS__};                     \
		assert_int_equal(length, sizeof(wanted_));                   \
		assert_memory_equal(is, wanted_, sizeof(wanted_));           \
	} while (0)

static void a_stick_is_shown_as_at_full_speed(void **state)
{
	uint8_t data[512];
	uint32_t length;

	(void)state;
	begin(stick, BH_SPEED_HIGH);
	assert_int_equal(device->speed, BH_SPEED_FULL);
	length = get_descriptor(1, data);
	assert_bytes(data, length, 18, 1, 0x00, 0x02, 0, 0, 0, 64, 0x81, 0x07, 0x81, 0x55, 0, 1, 1, 2, 3, 1);
	length = get_descriptor(2, data);
	assert_bytes(data, length, CONFIGURATION(9 + 9 + 14, 1, 100), INTERFACE(0, 0, 2, 8, 6, 0x50),
	             ENDPOINT(0x81, 2, 64, 0), ENDPOINT(0x02, 2, 64, 0));
	length = get_descriptor(6, data);
	assert_bytes(data, length, 10, 6, 0x00, 0x02, 0, 0, 0, 64, 1, 0);
	length = get_descriptor(7, data);
	assert_bytes(data, length, 9, 7, 32, 0, 1, 1, 0, 0x80, 100, INTERFACE(0, 0, 2, 8, 6, 0x50), ENDPOINT(0x81, 2, 512, 0),
	             ENDPOINT(0x02, 2, 512, 1));
	assert_int_equal(get_descriptor(15, data), 0);
	assert_int_equal(dev.controls, 0); /* nobody had to be asked */
	assert_int_equal(bh_device_endpoint(device, 0x81)->max_packet, 64);
	assert_null(bh_device_endpoint(device, 0x01));
	assert_string_equal(lines, "0781:5581 runs at high speed: it is translated for the full-speed port (translate=off would refuse it)\n");
	finish();
}

static void superspeed_loses_companions_streams_and_promises(void **state)
{
	uint8_t data[512];
	uint32_t length, actual;

	(void)state;
	begin(super_stick, BH_SPEED_SUPER);
	length = get_descriptor(1, data);
	assert_bytes(data, length, 18, 1, 0x00, 0x02, 0, 0, 0, 64, 0x81, 0x07, 0x81, 0x55, 0, 1, 1, 2, 3, 1);
	length = get_descriptor(2, data);
	/* 112 units of 8 mA are more than a port may give */
	assert_bytes(data, length, CONFIGURATION(9 + 9 + 14, 1, 250), INTERFACE(0, 0, 2, 8, 6, 0x50),
	             ENDPOINT(0x81, 2, 64, 0), ENDPOINT(0x02, 2, 64, 0));
	length = get_descriptor(7, data);
	assert_bytes(data, length, 9, 7, 32, 0, 1, 1, 0, 0x80, 250, INTERFACE(0, 0, 2, 8, 6, 0x50), ENDPOINT(0x81, 2, 512, 0),
	             ENDPOINT(0x02, 2, 512, 0));
	assert_non_null(strstr(lines, "SuperSpeed"));
	assert_non_null(strstr(lines, "without 1 of its alternate settings: a bulk endpoint with streams"));
	/* What is not shown cannot be chosen, though the device would have it. */
	assert_int_equal(ask(0x01, 11, 1, 0, 0, NULL, 0, &actual), BH_STALL);
	assert_int_equal(ask(0x01, 11, 0, 0, 0, NULL, 0, &actual), BH_SUCCESS);
	finish();
}

static void settings_that_need_more_are_hidden_and_the_rest_is_shown(void **state)
{
	uint8_t data[512];
	uint32_t length;

	(void)state;
	begin(camera, BH_SPEED_HIGH);
	length = get_descriptor(2, data);
	assert_bytes(data, length, CONFIGURATION(9 + 8 + 9 + 5 + 9 + 8 + 9 + 9 + 9 + 7 + 7 + 7, 4, 250),
	             8, 11, 0, 2, 14, 3, 0, 0, INTERFACE(0, 0, 0, 14, 1, 0), 5, 0x24, 1, 0, 1, INTERFACE(1, 0, 0, 14, 2, 0),
	             8, 11, 2, 2, 1, 0, 0, 0, INTERFACE(2, 0, 0, 1, 1, 0), INTERFACE(3, 0, 0, 1, 2, 0), INTERFACE(3, 1, 2, 1, 2, 0),
	             ENDPOINT(0x82, 5, 196, 1), 7, 0x25, 1, 0, 0, 0, 0, ENDPOINT(0x83, 3, 16, 8));
	finish();
}

static void what_cannot_work_at_all_is_refused_with_the_reason(void **state)
{
	char error[BH_LAYER_ERROR_SIZE];

	(void)state;
	describe(stick, BH_SPEED_FULL);
	device = &dev.device;
	assert_int_equal(bh_layers_put(&context, "delay:5ms", &device, error), -EINVAL); /* there is no loop here */
	assert_string_equal(error, "layers=delay: needs a loop, for what takes time");
	describe(tuner, BH_SPEED_HIGH);
	assert_int_equal(put(error), -EPROTO);
	assert_string_equal(error, "the device runs at high speed and cannot work in a full-speed port: an isochronous endpoint "
	                           "with packets of more than 1023 bytes");
	assert_ptr_equal(device, &dev.device);
	assert_null(device->upcalls);
	describe(stick, BH_SPEED_HIGH);
	dev.count = 0;
	assert_int_equal(put(error), -EPROTO);
	assert_non_null(strstr(error, "does not say what it is"));
}

/* An interface whose first setting cannot be carried goes, and so does the association with it. */
static void a_broken_association_goes(void **state)
{
	static const uint8_t two[] = {
		CONFIGURATION(9 + 8 + 9 + 7 + 9 + 9 + 7, 3, 50),
		8, 11, 0, 2, 1, 0, 0, 0,
		INTERFACE(0, 0, 1, 1, 2, 0), ENDPOINT(0x81, 1, 512, 1),
		INTERFACE(1, 0, 0, 1, 1, 0),
		INTERFACE(2, 0, 1, 255, 0, 0), ENDPOINT(0x02, 2, 512, 0),
	};
	uint8_t data[512];
	uint32_t length;

	(void)state;
	begin(two, BH_SPEED_HIGH);
	length = get_descriptor(2, data);
	assert_bytes(data, length, CONFIGURATION(9 + 9 + 9 + 7, 2, 50), INTERFACE(1, 0, 0, 1, 1, 0), INTERFACE(2, 0, 1, 255, 0, 0),
	             ENDPOINT(0x02, 2, 64, 0));
	finish();
}

static void intervals_are_what_they_were_in_time(void **state)
{
	static const struct { enum bh_endpoint_type type; uint8_t high, full; } table[] = {
		{BH_INTERRUPT, 0, 1}, {BH_INTERRUPT, 1, 1}, {BH_INTERRUPT, 4, 1}, {BH_INTERRUPT, 5, 2}, {BH_INTERRUPT, 8, 16},
		{BH_INTERRUPT, 11, 128}, {BH_INTERRUPT, 12, 255}, {BH_INTERRUPT, 16, 255}, {BH_INTERRUPT, 255, 255},
		{BH_ISOCHRONOUS, 4, 1}, {BH_ISOCHRONOUS, 5, 2}, {BH_ISOCHRONOUS, 16, 13}, {BH_BULK, 7, 0},
	};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(table); i++)
		assert_int_equal(bh_translate_interval(table[i].type, BH_SPEED_HIGH, table[i].high), table[i].full);
}

/* Every byte of a configuration at every value, as far as it can still be walked: nothing is read or written outside (ASan). */
static void hostile_descriptors_are_survived(void **state)
{
	static const uint8_t *const all[] = {stick, super_stick, camera, tuner, reports};

	(void)state;
	for (size_t c = 0; c < BH_COUNT(all); c++) {
		uint16_t length = bh_configuration_length(all[c]);
		uint8_t *copy = malloc(length);

		for (unsigned at = 0; at < length; at++)
			for (unsigned value = 0; value < 256; value++) {
				unsigned hidden;
				const char *why;
				uint8_t *shown;

				memcpy(copy, all[c], length);
				copy[at] = (uint8_t)value;
				if (!bh_configuration_check(copy, length))
					continue;
				for (enum bh_speed to = BH_SPEED_FULL; to <= BH_SPEED_HIGH; to++) {
					shown = bh_translate_configuration(copy, BH_SPEED_SUPER, to, &hidden, &why);
					assert_true(!shown || bh_configuration_check(shown, bh_configuration_length(shown)));
					assert_true(shown || why);
					free(shown);
				}
			}
		free(copy);
	}
}

/* Cut off anywhere, with a last descriptor that says it is of some kind and is not all there. */
static void descriptors_that_are_cut_off_are_survived(void **state)
{
	static const uint8_t *const all[] = {stick, super_stick, camera, reports};
	static const uint8_t types[] = {2, 4, 5, 11, 0x30, 0x31};

	(void)state;
	for (size_t c = 0; c < BH_COUNT(all); c++)
		for (unsigned length = 9; length < bh_configuration_length(all[c]); length++)
			for (unsigned last = 2; last < 10; last++)
				for (unsigned type = 0; type < BH_COUNT(types); type++) {
					uint8_t *copy = malloc(length + last);
					unsigned hidden;
					const char *why;

					memcpy(copy, all[c], length);
					memset(copy + length, 0x15, last);
					copy[length] = (uint8_t)last;
					copy[length + 1] = types[type];
					copy[2] = (uint8_t)(length + last);
					copy[3] = (uint8_t)((length + last) >> 8);
					if (bh_configuration_check(copy, length + last))
						free(bh_translate_configuration(copy, BH_SPEED_SUPER, BH_SPEED_FULL, &hidden, &why));
					free(copy);
				}
}

/* An empty first setting alone is nothing that could work. */
static void an_interface_of_which_only_its_empty_setting_is_left_is_refused(void **state)
{
	static const uint8_t video[] = {
		CONFIGURATION(9 + 9 + 9 + 7, 1, 250),
		INTERFACE(0, 0, 0, 14, 2, 0),
		INTERFACE(0, 1, 1, 14, 2, 0), ENDPOINT(0x81, 5, 0x1400, 1),
	};
	char error[BH_LAYER_ERROR_SIZE];

	(void)state;
	describe(video, BH_SPEED_HIGH);
	assert_int_equal(put(error), -EPROTO);
	assert_non_null(strstr(error, "several packets at a time"));
}

/* What cannot be chosen cannot be used: its endpoints are not there, though the device has them. */
static void endpoints_of_hidden_settings_are_not_there(void **state)
{
	static const uint8_t two[] = {
		CONFIGURATION(9 + 9 + 7 + 9 + 7, 2, 50),
		INTERFACE(0, 0, 1, 1, 2, 0), ENDPOINT(0x81, 1, 512, 1),
		INTERFACE(1, 0, 1, 255, 0, 0), ENDPOINT(0x02, 2, 512, 0),
	};

	(void)state;
	begin(two, BH_SPEED_HIGH);
	assert_non_null(bh_device_endpoint(&dev.device, 0x81));
	assert_null(bh_device_endpoint(device, 0x81));
	assert_int_equal(bh_device_endpoint(device, 0x02)->max_packet, 64);
	finish();
}

/* --- what is slow, and what comes and goes ----------------------------------------------------- */

static void a_slow_device_passes_as_it_is(void **state)
{
	char error[BH_LAYER_ERROR_SIZE];
	uint8_t data[512];
	struct flight f;

	(void)state;
	describe(stick, BH_SPEED_FULL);
	assert_int_equal(put(error), 0);
	bh_settings_configure(&dev.settings, 1);
	assert_int_equal(get_descriptor(1, data), 0); /* the device's own answer */
	assert_int_equal(dev.controls, 1);
	launch(device, &f, 0x02, BH_BULK, data, 512);
	assert_int_equal(held(0x02)->length, 512);
	end(0x02, BH_SUCCESS, 512);
	assert_true(f.done && f.transfer.actual == 512);
	assert_string_equal(lines, "");
	assert_int_equal(counter("translating"), 0);
	finish();
}

static int attached_result;
static unsigned attaches, detaches;

static int upcall_attached(struct bh_device *d)
{
	assert_ptr_equal(d, device);
	attaches++;
	return attached_result;
}

static void upcall_detached(struct bh_device *d)
{
	(void)d;
	detaches++;
}

static const struct bh_device_upcalls bus_upcalls = {.attached = upcall_attached, .detached = upcall_detached};

static void each_arrival_is_looked_at_anew_and_said_once(void **state)
{
	char error[BH_LAYER_ERROR_SIZE];

	(void)state;
	attaches = detaches = 0;
	describe(stick, BH_SPEED_FULL);
	dev.device.sticky = true;
	assert_int_equal(put(error), 0);
	assert_true(device->sticky);
	device->upcalls = &bus_upcalls;
	for (unsigned i = 0; i < 2; i++) {
		dev.device.speed = BH_SPEED_HIGH;
		assert_int_equal(bh_device_attach(&dev.device), 0);
		assert_int_equal(device->speed, BH_SPEED_FULL);
		assert_int_equal(counter("translating"), 1);
		bh_device_detach(&dev.device);
		dev.device.speed = BH_SPEED_LOW;
		assert_int_equal(bh_device_attach(&dev.device), 0);
		assert_int_equal(device->speed, BH_SPEED_LOW);
		assert_int_equal(counter("translating"), 0);
		bh_device_detach(&dev.device);
	}
	assert_int_equal(attaches, 4);
	assert_int_equal(detaches, 4);
	assert_ptr_equal(strchr(lines, '\n'), lines + strlen(lines) - 1);
	lines[0] = '\0';
	dev.device.speed = BH_SPEED_HIGH;
	dev.configurations[0] = tuner;
	assert_int_equal(bh_device_attach(&dev.device), -EPROTO);
	assert_non_null(strstr(lines, "0781:5581 runs at high speed and cannot work in a full-speed port: an isochronous"));
	assert_int_equal(attaches, 4);
	finish();
}

/* --- disks: the command tells ----------------------------------------------------------------------- */

static void command(uint32_t length, bool in)
{
	uint8_t cbw[31] = {'U', 'S', 'B', 'C', 1, 2, 3, 4, (uint8_t)length, (uint8_t)(length >> 8), (uint8_t)(length >> 16),
	                   (uint8_t)(length >> 24), in ? 0x80 : 0, 0, 10};
	struct flight f;

	flight_init(&f, 0x02, BH_BULK, cbw, sizeof(cbw));
	f.transfer.flags = BH_TRANSFER_REQUEST_ENDS | BH_TRANSFER_SHORT_END;
	bh_device_submit(device, &f.transfer);
	assert_int_equal(held(0x02)->length, 31);
	end(0x02, BH_SUCCESS, 31);
	assert_true(f.done && f.status == BH_SUCCESS);
}

static void go(struct flight *f, uint8_t endpoint, void *data, uint32_t length, unsigned flags)
{
	flight_init(f, endpoint, BH_BULK, data, length);
	f->transfer.flags = flags | (!(endpoint & BH_ENDPOINT_IN) && length % 64 ? BH_TRANSFER_SHORT_END : 0);
	bh_device_submit(device, &f->transfer);
}

#define assert_ended(f, s, n)                             \
	do {                                              \
		assert_true((f).done);                    \
		assert_int_equal((f).status, s);          \
		assert_int_equal((f).transfer.actual, n); \
	} while (0)

/* SeaBIOS: 256 bytes of a sector, and when they have gone, the next; nothing says that it is the end. */
static void half_a_packet_goes_when_the_other_half_comes(void **state)
{
	uint8_t data[512] = {1, 2, 3};
	struct flight f;

	(void)state;
	begin(stick, BH_SPEED_HIGH);
	command(1024, false);
	for (unsigned sector = 0; sector < 2; sector++) {
		go(&f, 0x02, data, 256, 0);
		assert_ended(f, BH_SUCCESS, 256);
		bh_translate_stand_still(device); /* the command knows that more is to come */
		assert_null(held(0x02));
		go(&f, 0x02, data + 256, 256, BH_TRANSFER_REQUEST_ENDS);
		assert_int_equal(held(0x02)->length, 512);
		end(0x02, BH_SUCCESS, 512);
		assert_ended(f, BH_SUCCESS, 256);
	}
	assert_int_equal(counter("early_bytes"), 512);
	assert_int_equal(counter("guessed_ends"), 0);
	finish();
}

/* The last packet of a data stage is sent when the command's length is there, notified or not. */
static void a_data_stage_that_fills_no_packet_ends_by_its_length(void **state)
{
	uint8_t data[1024] = {0};
	struct flight f;

	(void)state;
	begin(stick, BH_SPEED_HIGH);
	command(576, false);
	go(&f, 0x02, data, 64, BH_TRANSFER_REQUEST_ENDS); /* more is to come, whatever the request says */
	assert_ended(f, BH_SUCCESS, 64);
	go(&f, 0x02, data, 512, 0);
	assert_int_equal(held(0x02)->length, 576);
	assert_int_equal(held(0x02)->flags & BH_TRANSFER_ZERO_PACKET, 0);
	end(0x02, BH_SUCCESS, 576);
	assert_ended(f, BH_SUCCESS, 512);
	command(64, true); /* and the next is a command again */
	finish();
}

static void half_a_packet_is_kept_for_the_next_read(void **state)
{
	uint8_t data[512];
	struct flight f;

	(void)state;
	begin(stick, BH_SPEED_HIGH);
	command(512, true);
	go(&f, 0x81, data, 256, 0);
	assert_int_equal(held(0x81)->length, 512);
	give(0x81, 512, 0);
	assert_ended(f, BH_SUCCESS, 256);
	go(&f, 0x81, data + 256, 256, 0);
	assert_ended(f, BH_SUCCESS, 256); /* at once */
	for (unsigned i = 0; i < 512; i++)
		assert_int_equal(data[i], (uint8_t)i);
	go(&f, 0x81, data, 64, BH_TRANSFER_REQUEST_ENDS);
	give(0x81, 13, 7);
	assert_ended(f, BH_SUCCESS, 13);
	assert_int_equal(counter("split_packets"), 1);
	finish();
}

/* The data ends early, on the guest's boundary: within the data stage it is told, at its end it is not. */
static void an_early_end_is_told_within_a_data_stage_only(void **state)
{
	uint8_t data[512];
	struct flight f;

	(void)state;
	begin(stick, BH_SPEED_HIGH);
	command(512, true);
	go(&f, 0x81, data, 192, 0);
	give(0x81, 192, 0);
	assert_ended(f, BH_SUCCESS, 192);
	go(&f, 0x81, data, 256, 0);
	assert_ended(f, BH_SUCCESS, 0); /* the empty packet */
	assert_int_equal(counter("added_empty"), 1);
	go(&f, 0x81, data, 64, BH_TRANSFER_REQUEST_ENDS);
	give(0x81, 13, 0);
	assert_ended(f, BH_SUCCESS, 13);

	command(192, true);
	go(&f, 0x81, data, 192, 0);
	give(0x81, 192, 0);
	assert_ended(f, BH_SUCCESS, 192);
	go(&f, 0x81, data, 64, BH_TRANSFER_REQUEST_ENDS); /* the status, not an empty packet */
	give(0x81, 13, 0);
	assert_ended(f, BH_SUCCESS, 13);
	assert_int_equal(counter("added_empty"), 1);
	finish();
}

/* A stall is said where it comes, and what is set up anew begins anew. */
static void failures_come_at_the_next_packet_and_setting_up_anew_drops_what_is_kept(void **state)
{
	uint8_t data[1024] = {0};
	struct flight f;
	uint32_t actual;

	(void)state;
	begin(stick, BH_SPEED_HIGH);
	command(1024, false);
	go(&f, 0x02, data, 448, 0);
	assert_ended(f, BH_SUCCESS, 448);
	go(&f, 0x02, data, 576, BH_TRANSFER_REQUEST_ENDS);
	assert_int_equal(held(0x02)->length, 1024);
	end(0x02, BH_STALL, 0);
	assert_ended(f, BH_STALL, 0);
	assert_int_equal(counter("early_failed"), 1);
	assert_int_equal(ask(0x02, 1, 0, 0, 0x02, NULL, 0, &actual), BH_SUCCESS);
	command(512, false); /* a command, not the rest of the data */

	go(&f, 0x02, data, 64, 0);
	assert_ended(f, BH_SUCCESS, 64);
	assert_int_equal(ask(0x21, 0xff, 0, 0, 0, NULL, 0, &actual), BH_SUCCESS); /* Bulk-Only Mass Storage Reset */
	assert_int_equal(counter("dropped_bytes"), 64);
	command(512, true);
	go(&f, 0x81, data, 64, 0);
	give(0x81, 512, 0);
	assert_ended(f, BH_SUCCESS, 64);
	bh_device_reset(device);
	assert_int_equal(counter("dropped_bytes"), 64 + 448);
	finish();
}

static void a_cancelled_part_is_not_sent_twice(void **state)
{
	uint8_t data[1024] = {0};
	struct flight f;

	(void)state;
	begin(stick, BH_SPEED_HIGH);
	command(2048, false);
	go(&f, 0x02, data, 64, 0);
	assert_ended(f, BH_SUCCESS, 64);
	go(&f, 0x02, data, 960, 0);
	assert_int_equal(held(0x02)->length, 1024);
	end(0x02, BH_CANCELLED, 512); /* 64 that were kept, and 448 of these */
	assert_ended(f, BH_CANCELLED, 448);
	go(&f, 0x02, data + 448, 512, 0);
	assert_int_equal(held(0x02)->length, 512);
	end(0x02, BH_CANCELLED, 0);
	assert_ended(f, BH_CANCELLED, 0);
	go(&f, 0x02, data, 64, 0);
	assert_ended(f, BH_SUCCESS, 64);
	go(&f, 0x02, data, 448, 0);
	bh_device_cancel(device, &f.transfer);
	assert_ended(f, BH_CANCELLED, 0);
	go(&f, 0x02, data, 448, 0); /* those 64 are kept still */
	assert_int_equal(held(0x02)->length, 512);
	end(0x02, BH_CANCELLED, 24); /* as no device may: the other 40 go first */
	assert_ended(f, BH_CANCELLED, 0);
	data[64] = 7;
	go(&f, 0x02, data + 64, 448, 0);
	assert_null(held(0x02));
	assert_ended(f, BH_SUCCESS, 448);
	go(&f, 0x02, data, 64, 0);
	assert_int_equal(held(0x02)->length, 512);
	bh_transfer_read(held(0x02), 40, data + 1000, 1);
	assert_int_equal(data[1000], 7);
	end(0x02, BH_SUCCESS, 512);
	assert_ended(f, BH_SUCCESS, 64);
	finish();
}

/* Several at a time, as an export's client has them: one after the other, and cancelled in their places. */
static void transfers_wait_for_each_other(void **state)
{
	uint8_t data[4][128] = {{0}};
	struct flight f[4];

	(void)state;
	begin(stick, BH_SPEED_HIGH);
	for (unsigned i = 0; i < 4; i++)
		go(&f[i], 0x81, data[i], 128, 0);
	assert_int_equal(dev.submits, 1);
	bh_device_cancel(device, &f[2].transfer);
	assert_ended(f[2], BH_CANCELLED, 0);
	give(0x81, 512, 0); /* feeds all that wait */
	assert_ended(f[0], BH_SUCCESS, 128);
	assert_ended(f[1], BH_SUCCESS, 128);
	assert_ended(f[3], BH_SUCCESS, 128);
	assert_int_equal(data[3][0], 0); /* byte 256 */
	assert_int_equal(data[1][127], 255);
	for (unsigned i = 0; i < 4; i++)
		go(&f[i], 0x81, data[i], 128, 0);
	assert_ended(f[0], BH_SUCCESS, 128);
	assert_false(f[1].done);
	dev.submits = 0;
	finish(); /* ends them, and submits none */
	for (unsigned i = 1; i < 4; i++)
		assert_ended(f[i], BH_CANCELLED, 0);
	assert_int_equal(dev.submits, 0);
}

/* A device that counts by bytes took some of a packet: what is left of it is no end. */
static void what_is_left_of_a_packet_is_no_end(void **state)
{
	uint8_t data[512] = {0};
	struct flight f;

	(void)state;
	begin(stick, BH_SPEED_HIGH);
	command(1024, false);
	flight_init(&f, 0x02, BH_BULK, data + 36, 512 - 36); /* the rest of 512, all packets full */
	f.transfer.flags = BH_TRANSFER_REQUEST_GOES_ON;
	bh_device_submit(device, &f.transfer);
	assert_ended(f, BH_SUCCESS, 512 - 36);
	assert_null(held(0x02));
	finish();
}

/* --- time ------------------------------------------------------------------------------------------------ */

static const uint8_t line[] = {
	CONFIGURATION(9 + 9 + 14, 1, 100),
	INTERFACE(0, 0, 2, 10, 0, 0),
	ENDPOINT(0x81, 2, 512, 0),
	ENDPOINT(0x02, 2, 512, 0),
};

/* Whatever was said of more to come. Each endpoint has its own time, though all share a timer. */
static void each_endpoint_stands_still_by_itself(void **state)
{
	static const uint8_t lines_of_two[] = {
		CONFIGURATION(9 + 9 + 14, 1, 100),
		INTERFACE(0, 0, 2, 10, 0, 0),
		ENDPOINT(0x01, 2, 512, 0),
		ENDPOINT(0x02, 2, 512, 0),
	};
	uint8_t data[64] = {0};
	uint64_t began;
	uv_loop_t loop;
	struct flight f;
	unsigned sent = 0;

	(void)state;
	uv_loop_init(&loop);
	context.loop = &loop;
	begin(lines_of_two, BH_SPEED_HIGH);
	go(&f, 0x01, data, 64, BH_TRANSFER_REQUEST_GOES_ON);
	assert_ended(f, BH_SUCCESS, 64);
	for (began = uv_hrtime(); !held(0x01) && uv_hrtime() - began < 5000000000u; sent++) {
		if (sent % 8 == 7 || held(0x02)) {
			uv_run(&loop, UV_RUN_NOWAIT);
			if (held(0x02))
				end(0x02, BH_SUCCESS, held(0x02)->length);
			continue;
		}
		go(&f, 0x02, data, 64, BH_TRANSFER_REQUEST_GOES_ON); /* somebody who never stands still */
		if (held(0x02))
			end(0x02, BH_SUCCESS, 512);
	}
	assert_non_null(held(0x01));
	assert_int_equal(held(0x01)->length, 64);
	end(0x01, BH_SUCCESS, 64);
	finish();
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	context.loop = NULL;
}

static void what_stands_still_is_sent_by_a_timer(void **state)
{
	uint8_t data[128] = {0};
	uint64_t began;
	uv_loop_t loop;
	struct flight f;

	(void)state;
	uv_loop_init(&loop);
	context.loop = &loop;
	begin(line, BH_SPEED_HIGH);
	go(&f, 0x02, data, 128, 0);
	assert_ended(f, BH_SUCCESS, 128);
	began = uv_hrtime();
	while (!held(0x02))
		uv_run(&loop, UV_RUN_ONCE);
	assert_in_range(uv_hrtime() - began, 40000000u, 5000000000u);
	assert_int_equal(held(0x02)->length, 128);
	go(&f, 0x02, data, 64, BH_TRANSFER_REQUEST_ENDS); /* waits behind it */
	end(0x02, BH_SUCCESS, 128);
	assert_int_equal(counter("guessed_ends"), 1);
	assert_int_equal(held(0x02)->length, 64);
	end(0x02, BH_SUCCESS, 64);
	assert_ended(f, BH_SUCCESS, 64);
	assert_int_equal(counter("went_on"), 1);

	go(&f, 0x02, data, 64, 0);
	bh_translate_stand_still(device);
	assert_int_equal(held(0x02)->length, 64);
	end(0x02, BH_STALL, 0);
	go(&f, 0x02, data, 64, BH_TRANSFER_REQUEST_ENDS);
	assert_ended(f, BH_STALL, 0); /* said at the next */
	assert_int_equal(counter("early_failed"), 1);
	go(&f, 0x02, data, 64, 0);
	bh_translate_stand_still(device);
	bh_device_reset(device); /* while it is on its way */
	assert_int_equal(dev.cancels, 1);
	go(&f, 0x02, data, 64, 0);
	bh_translate_stand_still(device);
	finish(); /* the same */
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	context.loop = NULL;
}

/* --- reports -------------------------------------------------------------------------------------------------- */

static void reports_come_in_pieces_and_go_whole(void **state)
{
	uint8_t data[512];
	struct flight f;

	(void)state;
	begin(reports, BH_SPEED_HIGH);
	assert_int_equal(bh_device_endpoint(device, 0x81)->max_packet, 64);
	assert_int_equal(bh_device_endpoint(device, 0x02)->interval, 2);
	assert_int_equal(bh_device_endpoint(device, 0x83)->max_packet, 8);
	flight_init(&f, 0x81, BH_INTERRUPT, data, 64);
	bh_device_submit(device, &f.transfer);
	assert_int_equal(held(0x81)->length, 512);
	give(0x81, 100, 0);
	assert_ended(f, BH_SUCCESS, 64);
	flight_init(&f, 0x81, BH_INTERRUPT, data, 64);
	bh_device_submit(device, &f.transfer);
	assert_ended(f, BH_SUCCESS, 36);
	flight_init(&f, 0x83, BH_INTERRUPT, data, 8); /* small enough: as it is */
	bh_device_submit(device, &f.transfer);
	give(0x83, 3, 0);
	assert_ended(f, BH_SUCCESS, 3);
	/* A report of 100 is full for the device, and needs nothing after it; neither way. */
	for (unsigned i = 0; i < 2; i++) {
		flight_init(&f, 0x84, BH_INTERRUPT, data, 64);
		bh_device_submit(device, &f.transfer);
		assert_int_equal(held(0x84)->length, 100);
		give(0x84, 100, 0);
		assert_ended(f, BH_SUCCESS, 64);
		flight_init(&f, 0x84, BH_INTERRUPT, data, 64);
		bh_device_submit(device, &f.transfer);
		assert_ended(f, BH_SUCCESS, 36);
		assert_int_equal(data[35], 99);
	}
	flight_init(&f, 0x05, BH_INTERRUPT, data, 64);
	f.transfer.flags = BH_TRANSFER_REQUEST_GOES_ON;
	bh_device_submit(device, &f.transfer);
	assert_ended(f, BH_SUCCESS, 64);
	flight_init(&f, 0x05, BH_INTERRUPT, data, 36);
	f.transfer.flags = BH_TRANSFER_REQUEST_ENDS | BH_TRANSFER_SHORT_END;
	bh_device_submit(device, &f.transfer);
	assert_int_equal(held(0x05)->length, 100);
	assert_int_equal(held(0x05)->flags, 0);
	end(0x05, BH_SUCCESS, 100);
	assert_ended(f, BH_SUCCESS, 36);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_stick_is_shown_as_at_full_speed),
		cmocka_unit_test(superspeed_loses_companions_streams_and_promises),
		cmocka_unit_test(settings_that_need_more_are_hidden_and_the_rest_is_shown),
		cmocka_unit_test(what_cannot_work_at_all_is_refused_with_the_reason),
		cmocka_unit_test(a_broken_association_goes),
		cmocka_unit_test(intervals_are_what_they_were_in_time),
		cmocka_unit_test(hostile_descriptors_are_survived),
		cmocka_unit_test(descriptors_that_are_cut_off_are_survived),
		cmocka_unit_test(an_interface_of_which_only_its_empty_setting_is_left_is_refused),
		cmocka_unit_test(endpoints_of_hidden_settings_are_not_there),
		cmocka_unit_test(what_is_left_of_a_packet_is_no_end),
		cmocka_unit_test(a_slow_device_passes_as_it_is),
		cmocka_unit_test(each_arrival_is_looked_at_anew_and_said_once),
		cmocka_unit_test(half_a_packet_goes_when_the_other_half_comes),
		cmocka_unit_test(a_data_stage_that_fills_no_packet_ends_by_its_length),
		cmocka_unit_test(half_a_packet_is_kept_for_the_next_read),
		cmocka_unit_test(an_early_end_is_told_within_a_data_stage_only),
		cmocka_unit_test(failures_come_at_the_next_packet_and_setting_up_anew_drops_what_is_kept),
		cmocka_unit_test(a_cancelled_part_is_not_sent_twice),
		cmocka_unit_test(transfers_wait_for_each_other),
		cmocka_unit_test(what_stands_still_is_sent_by_a_timer),
		cmocka_unit_test(each_endpoint_stands_still_by_itself),
		cmocka_unit_test(reports_come_in_pieces_and_go_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
