/* What the tests of the input devices share: a host that configures one and fetches reports. */
#ifndef TEST_HID_RIG_H
#define TEST_HID_RIG_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include <cmocka.h>

#include <base/bytes.h>
#include <base/util.h>
#include <function/hid.h>

#define ENDPOINT_HID (0x01 | BH_ENDPOINT_IN)

static uv_loop_t loop;
static struct bh_device *device;
static unsigned wakeups;

static inline void count_wakeup(struct bh_device *d)
{
	assert_ptr_equal(d, device);
	wakeups++;
}

static const struct bh_device_upcalls upcalls = {.wakeup = count_wakeup};

/* ---- transfers ---- */

struct job {
	struct bh_transfer t;
	struct iovec span;
	uint8_t bytes[256];
	unsigned done, progresses;
	enum bh_status status;
};

static inline void job_done(struct bh_transfer *t, enum bh_status status)
{
	struct job *j = bh_container_of(t, struct job, t);

	j->done++;
	j->status = status;
}

static inline void job_progress(struct bh_transfer *t)
{
	bh_container_of(t, struct job, t)->progresses++;
}

static inline void prepare(struct job *j, enum bh_endpoint_type type, uint8_t endpoint, uint32_t length)
{
	*j = (struct job){.span = {j->bytes, length}};
	j->t = (struct bh_transfer){
		.endpoint = endpoint, .type = type, .spans = &j->span, .span_count = 1, .length = length,
		.done = job_done, .progress = job_progress,
	};
}

/* Asks for a report. */
static inline void ask(struct job *j, uint32_t length)
{
	prepare(j, BH_INTERRUPT, ENDPOINT_HID, length);
	bh_device_submit(device, &j->t);
}

/* One packet of the endpoint. */
static inline uint32_t packet(void)
{
	return bh_device_endpoint(device, ENDPOINT_HID)->max_packet;
}

/* A report has to be there at once, and be this one. */
#define assert_report(...)                                                                                     \
	assert_report_at((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), __FILE__, __LINE__)

static inline void print_bytes(const char *what, const uint8_t *p, size_t n)
{
	fprintf(stderr, "# %s:", what);
	for (size_t i = 0; i < n; i++)
		fprintf(stderr, " %02x", p[i]);
	fprintf(stderr, "\n");
}

static inline void assert_report_at(const uint8_t *bytes, size_t length, const char *file, int line)
{
	static struct job j;

	ask(&j, packet());
	if (!j.done) {
		bh_device_cancel(device, &j.t);
		print_bytes("expected", bytes, length);
		_fail(file, line);
	}
	if (j.status != BH_SUCCESS || j.t.actual != length || memcmp(j.bytes, bytes, length)) {
		print_bytes("expected", bytes, length);
		print_bytes("got", j.bytes, j.t.actual);
		_fail(file, line);
	}
}

/* The keyboard's: modifiers and up to six keys. */
#define assert_keys(...) assert_keys_at((const uint8_t[7]){__VA_ARGS__}, __FILE__, __LINE__)

static inline void assert_keys_at(const uint8_t keys[7], const char *file, int line)
{
	uint8_t report[8] = {keys[0]};

	memcpy(report + 2, keys + 1, 6);
	assert_report_at(report, sizeof(report), file, line);
}

/* Nothing to fetch: the transfer waits, and gives nothing when it is cancelled. */
#define assert_no_report() assert_no_report_at(__FILE__, __LINE__)

static inline void assert_no_report_at(const char *file, int line)
{
	struct job j;

	ask(&j, packet());
	if (!j.done)
		bh_device_cancel(device, &j.t);
	if (j.done != 1 || j.status != BH_CANCELLED || j.t.actual) {
		print_bytes("got", j.bytes, j.t.actual);
		_fail(file, line);
	}
}

/* A control transfer; data goes both ways. Its status; *ret_actual where it is not NULL. */
static inline enum bh_status control(uint8_t type, uint8_t request, uint16_t value, uint16_t index, void *data,
                                     uint16_t length, uint32_t *ret_actual)
{
	struct job j;

	prepare(&j, BH_CONTROL, 0, length);
	if (length && !(type & 0x80))
		memcpy(j.bytes, data, length);
	j.t.setup = (struct bh_setup){type, request, bh_put_le16(value), bh_put_le16(index), bh_put_le16(length)};
	if (type == 0 && request == 9)
		bh_device_set_configuration(device, (uint8_t)value, &j.t);
	else if (type == 2 && request == 1)
		bh_device_clear_halt(device, (uint8_t)index, &j.t);
	else
		bh_device_submit(device, &j.t);
	assert_int_equal(j.done, 1);
	if (type & 0x80)
		memcpy(data, j.bytes, j.t.actual);
	if (ret_actual)
		*ret_actual = j.t.actual;
	return j.status;
}

static inline enum bh_status set_configuration(uint8_t value)
{
	return control(0x00, 9, value, 0, NULL, 0, NULL);
}

static inline enum bh_status set_protocol(uint16_t protocol)
{
	return control(0x21, 11, protocol, 0, NULL, 0, NULL);
}

static inline enum bh_status set_idle(uint8_t idle)
{
	return control(0x21, 10, (uint16_t)(idle << 8), 0, NULL, 0, NULL);
}

static inline enum bh_status allow_wakeup(bool allowed)
{
	return control(0x00, allowed ? 3 : 1, 1, 0, NULL, 0, NULL);
}

/* ---- input ---- */

static char said[256]; /* the last error */

static inline int tell(const char *text)
{
	memset(said, 0, sizeof(said));
	return bh_hid_input(device, text, said, sizeof(said));
}

#define assert_told(text) assert_told_at(text, __FILE__, __LINE__)

static inline void assert_told_at(const char *text, const char *file, int line)
{
	int r = tell(text);

	if (r) {
		fprintf(stderr, "# '%s': %s\n", text, said);
		_assert_int_equal((long)r, 0, file, line);
	}
}

/* Refused with one line that has this in it, and nothing was done. */
#define assert_refused(text, error, what) assert_refused_at(text, error, what, __FILE__, __LINE__)

static inline void assert_refused_at(const char *text, int error, const char *what, const char *file, int line)
{
	uint64_t before = bh_hid_counters(device).queued;
	int r = tell(text);

	if (r != -error || !strstr(said, what) || strchr(said, '\n') ||
	    strncmp(said, bh_hid_kind_name(bh_hid_kind(device)), strlen(bh_hid_kind_name(bh_hid_kind(device)))) ||
	    bh_hid_counters(device).queued != before) {
		fprintf(stderr, "# '%s': %d, '%s'\n", text, r, said);
		_fail(file, line);
	}
}

/* ---- life ---- */

/* Runs the loop until the condition holds; a loop that has nothing left to do fails. */
#define run_until(condition)                                               \
	for (int alive = 1; !(condition); alive = uv_run(&loop, UV_RUN_ONCE)) \
	assert_true(alive)

static inline void make(const struct bh_hid_config *config)
{
	char error[256] = "";

	wakeups = 0;
	if (bh_hid_create(&loop, config, &device, error, sizeof(error)) < 0)
		fail_msg("%s", error);
	device->upcalls = &upcalls;
}

/* Configured, and without repetitions, as Linux has it. */
static inline void make_ready(const struct bh_hid_config *config)
{
	make(config);
	assert_int_equal(set_configuration(1), BH_SUCCESS);
	assert_int_equal(set_idle(0), BH_SUCCESS);
}

static inline void make_kind(enum bh_hid_kind kind)
{
	make_ready(&(struct bh_hid_config){.kind = kind, .speed = BH_SPEED_FULL});
}

static inline void count_closed(void *data, int error)
{
	assert_int_equal(error, 0);
	++*(unsigned *)data;
}

/* Nothing of it is left in the loop. */
static inline void end(void)
{
	unsigned closed = 0;

	bh_hid_close(device, count_closed, &closed);
	device = NULL;
	assert_int_equal(closed, 0);
	assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
	assert_int_equal(closed, 1);
}

static inline int set_up(void **state)
{
	(void)state;
	return uv_loop_init(&loop);
}

/* A test that failed leaves its device. */
static inline int tear_down(void **state)
{
	(void)state;
	bh_device_destroy(device);
	device = NULL;
	uv_run(&loop, UV_RUN_DEFAULT);
	return uv_loop_close(&loop);
}

#endif
