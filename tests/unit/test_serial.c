/* The serial line: as a USB device, and what passes between the guest and its other side. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <uv.h>

#include <base/util.h>
#include <function/serial.h>

#define OUT    0x01
#define IN     0x82
#define NOTIFY 0x83

#define MANY (1u << 20)

static uv_loop_t loop;
static uv_timer_t heartbeat; /* so that a wait can give up */
static struct bh_device *device;
static char directory[256];
static unsigned fds_before;

/* --- waiting ------------------------------------------------------------------------------- */

static void beat(uv_timer_t *t)
{
	(void)t;
}

/* Runs the loop until something is so; fails when that takes long. */
#define until(condition)                                                            \
	do {                                                                        \
		uint64_t until_start = uv_hrtime();                                 \
		while (!(condition)) {                                              \
			uv_run(&loop, UV_RUN_ONCE);                                 \
			if (uv_hrtime() - until_start > 20000000000u)               \
				fail_msg("line %d: never: %s", __LINE__, #condition); \
		}                                                                   \
	} while (0)

/* Runs the loop until nothing happens in it any more. */
static void settle(void)
{
	for (unsigned i = 0; i < 20; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
}

/* --- transfers -------------------------------------------------------------------------------- */

struct job {
	struct bh_transfer t;
	struct iovec spans[2];
	unsigned done;
	enum bh_status status;
};

static void job_done(struct bh_transfer *t, enum bh_status status)
{
	struct job *j = bh_container_of(t, struct job, t);

	j->done++;
	j->status = status;
}

static void prepare(struct job *j, uint8_t endpoint, void *data, uint32_t length)
{
	*j = (struct job){.done = 0};
	j->spans[0] = (struct iovec){.iov_base = data, .iov_len = length / 3};
	j->spans[1] = (struct iovec){.iov_base = (uint8_t *)data + length / 3, .iov_len = length - length / 3};
	j->t = (struct bh_transfer){
		.endpoint = endpoint,
		.type = endpoint == 0 ? BH_CONTROL : endpoint == NOTIFY ? BH_INTERRUPT : BH_BULK,
		.spans = j->spans,
		.span_count = 2,
		.length = length,
		.done = job_done,
	};
}

static void submit(struct job *j, uint8_t endpoint, void *data, uint32_t length)
{
	prepare(j, endpoint, data, length);
	bh_device_submit(device, &j->t);
}

static struct job control;

static enum bh_status request(uint8_t type, uint8_t code, uint16_t value, uint16_t index, void *data, uint16_t length)
{
	prepare(&control, 0, data, length);
	control.t.setup = (struct bh_setup){type, code, bh_put_le16(value), bh_put_le16(index), bh_put_le16(length)};
	if (type == 0 && code == 9)
		bh_device_set_configuration(device, (uint8_t)value, &control.t);
	else if (type == 2 && code == 1)
		bh_device_clear_halt(device, (uint8_t)index, &control.t);
	else
		bh_device_submit(device, &control.t);
	assert_int_equal(control.done, 1);
	return control.status;
}

static void ok(enum bh_status status)
{
	assert_int_equal(status, BH_SUCCESS);
}

static void send_all(const void *data, uint32_t length)
{
	struct job j;

	submit(&j, OUT, (void *)data, length);
	until(j.done);
	ok(j.status);
	assert_int_equal(j.t.actual, length);
}

/* Reads exactly so many bytes, in transfers of 512. */
static void receive_all(void *to, uint32_t length)
{
	static uint8_t buffer[512];
	uint32_t got = 0;
	struct job j;

	while (got < length) {
		submit(&j, IN, buffer, sizeof(buffer));
		until(j.done);
		ok(j.status);
		assert_in_range(j.t.actual, 0, length - got); /* 0: what ends a full packet */
		memcpy((uint8_t *)to + got, buffer, j.t.actual);
		got += j.t.actual;
	}
}

/* Waits for a notification; is there another side? */
static bool notified(void)
{
	uint8_t bytes[16] = {0};
	struct job j;

	submit(&j, NOTIFY, bytes, sizeof(bytes));
	until(j.done);
	ok(j.status);
	assert_int_equal(j.t.actual, 10);
	assert_memory_equal(bytes, "\xa1\x20\0\0\0\0\2\0", 8);
	assert_true(bytes[8] == 0 || bytes[8] == 3);
	return bytes[8] != 0;
}

static void fill_pattern(uint8_t *p, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1664525u + 1013904223u;
		p[i] = (uint8_t)(seed >> 24);
	}
}

/* --- the device ---------------------------------------------------------------------------------- */

static char error[256];

static int create(const struct bh_serial_config *c)
{
	int r;

	error[0] = '\0';
	device = NULL;
	r = bh_serial_create(&loop, c, &device, error, sizeof(error));
	if (r < 0) {
		assert_null(device);
		assert_non_null(strstr(error, "serial"));
		assert_null(strchr(error, '\n'));
		return r;
	}
	bh_device_reset(device);
	ok(request(0, 9, 1, 0, NULL, 0));
	return 0;
}

static void closed(void *data, int result)
{
	*(int *)data = result;
}

static int close_serial(void)
{
	int result = 1;

	bh_serial_close(device, closed, &result);
	device = NULL;
	until(result <= 0);
	return result;
}

static unsigned count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static int set_up(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	device = NULL;
	snprintf(directory, sizeof(directory), "%s/bh-serial-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(directory) || uv_loop_init(&loop))
		return -1;
	uv_timer_init(&loop, &heartbeat);
	uv_timer_start(&heartbeat, beat, 5, 5);
	fds_before = count_fds();
	return 0;
}

static int tear_down(void **state)
{
	uint64_t patience = uv_hrtime() + 20000000000u;
	unsigned fds_after;

	(void)state;
	bh_device_destroy(device);
	settle();
	/* A name that is being looked for in the thread pool cannot be called back: it has its socket until it ends. */
	while ((fds_after = count_fds()) > fds_before && uv_hrtime() < patience)
		uv_run(&loop, UV_RUN_ONCE);
	uv_close((uv_handle_t *)&heartbeat, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	rmdir(directory);
	if (fds_after > fds_before)
		print_message("# %u descriptors too many\n", fds_after - fds_before);
	return uv_loop_close(&loop) || fds_after > fds_before;
}

static const char *name(const char *file)
{
	static char path[2][512];
	static unsigned turn;

	turn ^= 1;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", directory, file);
	return path[turn];
}

/* --- the other side -------------------------------------------------------------------------------- */

static int open_slave(void)
{
	int fd = open(bh_serial_name(device), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* Reads what is there into to + *got, up to length. */
static bool peer_reads(int fd, uint8_t *to, size_t *got, size_t length)
{
	ssize_t n = read(fd, to + *got, length - *got);

	if (n < 0)
		assert_int_equal(errno, EAGAIN);
	else
		*got += (size_t)n;
	return *got == length;
}

static bool peer_writes(int fd, const uint8_t *from, size_t *put, size_t length)
{
	ssize_t n = write(fd, from + *put, length - *put);

	if (n < 0)
		assert_int_equal(errno, EAGAIN);
	else
		*put += (size_t)n;
	return *put == length;
}

static void expect_at_peer(int fd, const void *data, size_t length)
{
	static uint8_t buffer[MANY];
	size_t got = 0;

	until(peer_reads(fd, buffer, &got, length));
	assert_memory_equal(buffer, data, length);
}

static bool closed_by_peer(int fd)
{
	char byte;

	return read(fd, &byte, 1) == 0;
}

static uint16_t port_of(const char *address)
{
	return (uint16_t)atoi(strrchr(address, ':') + 1);
}

static int dial(uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

/* A listening socket on *port (0: any, which is put there). */
static int serve(uint16_t *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(*port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t size = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 4), 0);
	getsockname(fd, (struct sockaddr *)&a, &size);
	*port = ntohs(a.sin_port);
	return fd;
}

static int answer(int listener)
{
	int fd;

	until((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
	return fd;
}

static void with_pty(void)
{
	assert_int_equal(create(&(struct bh_serial_config){.pty = true}), 0);
}

static void with_listener(void)
{
	assert_int_equal(create(&(struct bh_serial_config){.tcp_listen = "127.0.0.1:0"}), 0);
}

/* --- as a USB device ------------------------------------------------------------------------------------ */

static void descriptors_are_those_of_an_acm_device(void **state)
{
	static const uint8_t functional[] = {5, 0x24, 0, 0x10, 1, 5, 0x24, 1, 0, 1, 4, 0x24, 2, 6, 5, 0x24, 6, 0, 1};
	uint8_t b[255];
	unsigned at = 0, endpoints = 0, interfaces = 0;

	(void)state;
	with_pty();
	ok(request(0x80, 6, 0x0100, 0, b, 18));
	assert_int_equal(b[4], 2);
	ok(request(0x80, 6, 0x0200, 0, b, sizeof(b)));
	assert_int_equal(control.t.actual, b[2] | b[3] << 8);
	for (; at < control.t.actual; at += b[at]) {
		interfaces += b[at + 1] == 4;
		endpoints += b[at + 1] == 5;
	}
	assert_int_equal(at, control.t.actual);
	assert_int_equal(interfaces, 2);
	assert_int_equal(endpoints, 3);
	assert_memory_equal(b + 18, functional, sizeof(functional));
	assert_int_equal(bh_device_endpoint(device, IN)->interface, 1);
	assert_int_equal(bh_device_endpoint(device, NOTIFY)->interface, 0);
	assert_int_equal(close_serial(), 0);
}

static void line_coding_is_kept(void **state)
{
	uint8_t coding[7] = {0x00, 0xc2, 0x01, 0x00, 2, 1, 7}, back[8];
	struct bh_serial_state s;

	(void)state;
	with_pty();
	ok(request(0xa1, 0x21, 0, 0, back, 7));
	assert_memory_equal(back, "\x80\x25\0\0\0\0\x08", 7);
	ok(request(0x21, 0x20, 0, 0, coding, 7));
	assert_int_equal(control.t.actual, 7);
	ok(request(0xa1, 0x21, 0, 0, back, 8));
	assert_int_equal(control.t.actual, 7);
	assert_memory_equal(back, coding, 7);
	s = bh_serial_state(device);
	assert_int_equal(s.rate, 115200);
	assert_int_equal(s.stop_bits, 2);
	assert_int_equal(s.parity, 1);
	assert_int_equal(s.data_bits, 7);
	coding[6] = 9;
	assert_int_equal(request(0x21, 0x20, 0, 0, coding, 7), BH_STALL);
	assert_int_equal(request(0x21, 0x20, 0, 0, coding, 6), BH_STALL);
	assert_int_equal(request(0x21, 0x20, 0, 1, coding, 7), BH_STALL); /* the other interface */
	assert_int_equal(bh_serial_state(device).data_bits, 7);
	assert_int_equal(close_serial(), 0);
}

static void control_lines_and_breaks_are_noted(void **state)
{
	(void)state;
	with_pty();
	ok(request(0x21, 0x22, 3, 0, NULL, 0));
	assert_true(bh_serial_state(device).dtr && bh_serial_state(device).rts);
	ok(request(0x21, 0x22, 2, 0, NULL, 0));
	assert_true(!bh_serial_state(device).dtr && bh_serial_state(device).rts);
	ok(request(0x21, 0x23, 0xffff, 0, NULL, 0));
	ok(request(0x21, 0x23, 0, 0, NULL, 0));
	assert_int_equal(bh_serial_counters(device).breaks, 1);
	assert_int_equal(request(0x21, 0x24, 0, 0, NULL, 0), BH_STALL);
	bh_device_reset(device);
	assert_false(bh_serial_state(device).rts);
	assert_int_equal(request(0x21, 0x22, 3, 0, NULL, 0), BH_STALL); /* not configured */
	assert_int_equal(close_serial(), 0);
}

static void halted_endpoint_stalls_with_what_it_took(void **state)
{
	static uint8_t bytes[BH_SERIAL_BUFFER + 100];
	struct job j, k;

	(void)state;
	with_pty();
	submit(&j, OUT, bytes, sizeof(bytes));
	assert_int_equal(j.done, 0);
	ok(request(0x02, 3, 0, OUT, NULL, 0));
	assert_int_equal(j.done, 1);
	assert_int_equal(j.status, BH_STALL);
	assert_int_equal(j.t.actual, BH_SERIAL_BUFFER);
	submit(&k, OUT, bytes, 1);
	assert_int_equal(k.status, BH_STALL);
	ok(request(0x02, 1, 0, OUT, NULL, 0));
	submit(&k, OUT, bytes, 1);
	assert_int_equal(k.done, 0);
	bh_device_reset(device);
	assert_int_equal(k.status, BH_CANCELLED);
	assert_int_equal(k.t.actual, 0);
	submit(&k, OUT, bytes, 1);
	assert_int_equal(k.status, BH_STALL); /* not configured */
	assert_int_equal(close_serial(), -ENOTCONN);
}

static void in_transfer_ends_with_what_there_is(void **state)
{
	uint8_t data[300], bytes[4096];
	struct job a, b;
	int fd;

	(void)state;
	with_pty();
	fill_pattern(data, sizeof(data), 1);
	submit(&a, IN, bytes, sizeof(bytes));
	fd = open_slave();
	assert_int_equal(write(fd, data, 128), 128);
	until(a.done);
	ok(a.status);
	assert_int_equal(a.t.actual, 128); /* whole packets: an empty one ended it */
	assert_memory_equal(bytes, data, 128);

	submit(&a, IN, bytes, 64);
	submit(&b, IN, bytes + 64, 4096 - 64);
	assert_int_equal(write(fd, data, 100), 100);
	until(b.done);
	assert_int_equal(a.t.actual, 64);
	assert_int_equal(b.t.actual, 36);
	assert_memory_equal(bytes, data, 100);

	submit(&a, IN, bytes, 64);
	bh_device_cancel(device, &a.t);
	assert_int_equal(a.status, BH_CANCELLED);
	assert_int_equal(a.t.actual, 0);
	assert_int_equal(write(fd, data, 3), 3);
	receive_all(bytes, 3);
	assert_memory_equal(bytes, data, 3);
	submit(&a, IN, bytes, 0);
	assert_int_equal(a.done, 1);
	close(fd);
	assert_int_equal(close_serial(), 0);
}

/* 40 kB at 100 kB/s: all of it, and not before 0.38 s have passed; nothing adds up meanwhile. */
static void guest_gets_no_more_than_its_rate(void **state)
{
	static uint8_t data[40000], back[sizeof(data) + 512];
	size_t put = 0, got = 0;
	struct job j;
	uint64_t start;
	int fd;

	(void)state;
	assert_int_equal(create(&(struct bh_serial_config){.pty = true, .rate = 100000}), 0);
	fill_pattern(data, sizeof(data), 11);
	fd = open_slave();
	until(peer_writes(fd, data, &put, sizeof(data)));
	until(bh_serial_counters(device).from_peer == sizeof(data));
	start = uv_hrtime();
	while (uv_hrtime() - start < 60000000u) /* nobody asks */
		uv_run(&loop, UV_RUN_ONCE);
	start = uv_hrtime();
	while (got < sizeof(data)) {
		submit(&j, IN, back + got, 512);
		until(j.done);
		ok(j.status);
		got += j.t.actual;
	}
	assert_int_equal(got, sizeof(data));
	assert_memory_equal(back, data, sizeof(data));
	assert_in_range((uv_hrtime() - start) / 1000000, 350, 15000);
	send_all(data, 5000); /* the other direction is free */
	close(fd);
	until(!bh_serial_state(device).connected);
	bh_serial_close(device, NULL, NULL);

	assert_int_equal(create(&(struct bh_serial_config){.pty = true, .rate = 1}), 0);
	fd = open_slave();
	assert_int_equal(write(fd, "x", 1), 1);
	receive_all(back, 1);
	close(fd);
	bh_serial_close(device, NULL, NULL);

	assert_int_equal(create(&(struct bh_serial_config){.pty = true, .rate = 214748365}), 0); /* 20 ms of it: 2^32 and 4 */
	fd = open_slave();
	assert_int_equal(write(fd, data, 100), 100);
	until(bh_serial_counters(device).from_peer == 100);
	submit(&j, IN, back, 512);
	until(j.done);
	assert_int_equal(j.t.actual, 100);
	close(fd);
	assert_int_equal(close_serial(), 0);
}

/* One packet at a time, as an idle endpoint is asked: a driver that waits for more has to hear that there is none. */
static void full_last_packet_is_followed_by_an_empty_one(void **state)
{
	uint8_t data[128], bytes[128];
	struct job a, b, c;
	int fd;

	(void)state;
	with_pty();
	fill_pattern(data, sizeof(data), 2);
	submit(&a, IN, bytes, 64);
	submit(&b, IN, bytes + 64, 64);
	fd = open_slave();
	assert_int_equal(write(fd, data, 64), 64);
	until(a.done);
	assert_int_equal(a.t.actual, 64);
	until(b.done);
	ok(b.status);
	assert_int_equal(b.t.actual, 0);

	submit(&a, IN, bytes, 64);
	settle();
	assert_int_equal(a.done, 0); /* once */
	submit(&b, IN, bytes + 64, 64);
	submit(&c, IN, bytes, 64);
	assert_int_equal(write(fd, data, 128), 128);
	until(c.done);
	assert_int_equal(a.t.actual, 64);
	assert_int_equal(b.t.actual, 64);
	assert_int_equal(c.t.actual, 0);

	submit(&a, IN, bytes, 64);
	assert_int_equal(write(fd, data, 64), 64);
	until(a.done);
	ok(request(0, 9, 1, 0, NULL, 0)); /* a new life: nothing is owed */
	submit(&a, IN, bytes, 64);
	settle();
	assert_int_equal(a.done, 0);
	bh_device_cancel(device, &a.t);
	close(fd);
	assert_int_equal(close_serial(), 0);
}

/* --- pseudo-terminals --------------------------------------------------------------------------------------- */

static void pty_carries_every_byte_both_ways(void **state)
{
	static uint8_t all[1024], back[1024];
	size_t put = 0;
	int fd;

	(void)state;
	with_pty();
	assert_int_equal(strncmp(bh_serial_name(device), "/dev/pts/", 9), 0);
	for (unsigned i = 0; i < sizeof(all); i++)
		all[i] = (uint8_t)i; /* control characters, too: nothing is made of them */
	fd = open_slave();
	send_all(all, sizeof(all));
	expect_at_peer(fd, all, sizeof(all));
	until(peer_writes(fd, all, &put, sizeof(all)));
	receive_all(back, sizeof(back));
	assert_memory_equal(back, all, sizeof(all));
	assert_int_equal(bh_serial_counters(device).from_guest, 1024);
	assert_int_equal(bh_serial_counters(device).to_peer, 1024);
	assert_int_equal(bh_serial_counters(device).from_peer, 1024);
	assert_int_equal(bh_serial_counters(device).to_guest, 1024);
	assert_int_equal(bh_serial_counters(device).connections, 1);
	close(fd);
	assert_int_equal(close_serial(), 0);
}

static void carrier_says_whether_the_pty_is_open(void **state)
{
	uint8_t bytes[16];
	struct job j;
	int fd;

	(void)state;
	with_pty();
	submit(&j, NOTIFY, bytes, 16);
	settle();
	assert_int_equal(j.done, 0);
	assert_false(bh_serial_state(device).connected);
	fd = open_slave();
	until(j.done);
	assert_int_equal(bytes[8], 3);
	assert_true(bh_serial_state(device).connected);
	close(fd);
	assert_false(notified());
	fd = open_slave();
	assert_true(notified());

	ok(request(0, 9, 1, 0, NULL, 0)); /* a driver that begins anew is told anew */
	assert_true(notified());
	close(fd);
	until(!bh_serial_state(device).connected);
	fd = open_slave();
	until(bh_serial_state(device).connected);
	assert_false(notified()); /* however short the absence was */
	assert_true(notified());
	close(fd);
	assert_int_equal(close_serial(), 0);
}

static void what_nobody_reads_waits_and_then_the_guest(void **state)
{
	static uint8_t data[3 * BH_SERIAL_BUFFER];
	struct job j, k;
	int fd;

	(void)state;
	with_pty();
	fill_pattern(data, sizeof(data), 2);
	send_all(data, 1000);
	submit(&j, OUT, data + 1000, BH_SERIAL_BUFFER);
	submit(&k, OUT, data + 1000 + BH_SERIAL_BUFFER, 500);
	settle();
	assert_int_equal(j.done, 0);
	assert_int_equal(k.done, 0);
	assert_int_equal(bh_serial_counters(device).from_guest, BH_SERIAL_BUFFER);
	assert_int_equal(bh_serial_counters(device).to_peer, 0);

	fd = open_slave();
	expect_at_peer(fd, data, 1000 + BH_SERIAL_BUFFER + 500);
	until(j.done && k.done);
	assert_int_equal(j.t.actual, BH_SERIAL_BUFFER);
	assert_int_equal(k.t.actual, 500);
	close(fd);
	assert_int_equal(close_serial(), 0);
}

static void cancelled_out_counts_exactly_what_passes(void **state)
{
	static uint8_t data[3 * BH_SERIAL_BUFFER];
	uint32_t sent = 0;
	struct job j;
	int fd;

	(void)state;
	with_pty();
	fill_pattern(data, sizeof(data), 3);
	submit(&j, OUT, data, BH_SERIAL_BUFFER + 77);
	bh_device_cancel(device, &j.t);
	assert_int_equal(j.done, 1);
	assert_int_equal(j.status, BH_CANCELLED);
	assert_int_equal(j.t.actual, BH_SERIAL_BUFFER);
	sent = j.t.actual;
	submit(&j, OUT, data + sent, 10);
	bh_device_cancel(device, &j.t);
	assert_int_equal(j.t.actual, 0);
	fd = open_slave();
	send_all(data + sent, 4321);
	expect_at_peer(fd, data, sent + 4321);
	close(fd);
	assert_int_equal(close_serial(), 0);
}

/* echo something >/dev/pts/N: it is there, and gone at once. */
static void what_is_left_behind_arrives(void **state)
{
	char bytes[16] = "";
	int fd;

	(void)state;
	with_pty();
	for (unsigned i = 0; i < 3; i++) {
		fd = open_slave();
		assert_int_equal(write(fd, "something\n", 10), 10);
		close(fd);
		receive_all(bytes, 10);
		assert_string_equal(bytes, "something\n");
		until(!bh_serial_state(device).connected);
	}
	assert_int_equal(close_serial(), 0);
}

static void guest_that_does_not_read_holds_the_peer_up(void **state)
{
	static uint8_t data[MANY], back[MANY + 512];
	size_t put = 0, got = 0;
	struct job j;
	int fd;

	(void)state;
	with_pty();
	fill_pattern(data, sizeof(data), 4);
	fd = open_slave();
	until(peer_writes(fd, data, &put, sizeof(data)) || bh_serial_counters(device).from_peer == BH_SERIAL_BUFFER);
	settle();
	assert_true(put < sizeof(data));
	assert_int_equal(bh_serial_counters(device).from_peer, BH_SERIAL_BUFFER);
	while (got < sizeof(data)) {
		if (put < sizeof(data))
			peer_writes(fd, data, &put, sizeof(data));
		submit(&j, IN, back + got, 512);
		until(j.done);
		got += j.t.actual;
	}
	assert_memory_equal(back, data, sizeof(data));
	close(fd);
	assert_int_equal(close_serial(), 0);
}

static void reset_loses_nothing(void **state)
{
	uint8_t bytes[8];
	int fd;

	(void)state;
	with_pty();
	send_all("before", 6);
	fd = open_slave();
	assert_int_equal(write(fd, "input", 5), 5);
	until(bh_serial_counters(device).from_peer == 5);
	bh_device_reset(device);
	ok(request(0, 9, 1, 0, NULL, 0));
	send_all(" after", 6);
	expect_at_peer(fd, "before after", 12);
	receive_all(bytes, 5);
	assert_memory_equal(bytes, "input", 5);
	close(fd);
	assert_int_equal(close_serial(), 0);
}

static void pty_has_a_link_while_it_is_there(void **state)
{
	char target[64] = "";
	const char *link = strdup(name("tty"));
	struct bh_serial_config c = {.pty = true, .link = link};
	int fd;

	(void)state;
	assert_int_equal(symlink("/dev/pts/4711", link), 0); /* of an earlier run */
	assert_int_equal(create(&c), 0);
	assert_true(readlink(link, target, sizeof(target) - 1) > 0);
	assert_string_equal(target, bh_serial_name(device));
	assert_int_equal(close_serial(), 0);
	assert_int_equal(readlink(link, target, sizeof(target)), -1);

	fd = open(link, O_CREAT | O_WRONLY | O_CLOEXEC, 0600); /* somebody's file */
	close(fd);
	assert_int_equal(create(&c), -EEXIST);
	assert_non_null(strstr(error, link));
	assert_int_equal(unlink(link), 0);
	assert_int_equal(symlink("/etc", link), 0); /* somebody's link */
	assert_int_equal(create(&c), -EEXIST);
	assert_int_equal(unlink(link), 0);
	free((void *)link);
}

/* --- TCP -------------------------------------------------------------------------------------------------------- */

/* Both ways at once, the guest in transfers of all sizes, some of them cancelled. */
static void tcp_loses_nothing_under_load(void **state)
{
	static uint8_t data[MANY], at_peer[MANY], at_guest[MANY], buffer[4096];
	size_t put = 0, got = 0, sent = 0, received = 0;
	uint32_t seed = 5;
	struct job out = {.done = 1}, in = {.done = 1};
	int fd;

	(void)state;
	with_listener();
	fill_pattern(data, sizeof(data), 5);
	fd = dial(port_of(bh_serial_name(device)));
	until(bh_serial_state(device).connected);
	prepare(&out, OUT, data, 0);
	prepare(&in, IN, buffer, 0);
	out.done = in.done = 1;
	while (got < MANY || received < MANY) {
		seed = seed * 1664525u + 1013904223u;
		if (out.done && sent < MANY)
			submit(&out, OUT, data + sent, (uint32_t)BH_MIN(MANY - sent, (size_t)(seed >> 8) % 200000));
		if (in.done && received < MANY)
			submit(&in, IN, buffer, (seed >> 16) % 64 * 64 + 64 > 4096 ? 4096 : (seed >> 16) % 64 * 64 + 64);
		if (!out.done && seed % 7 == 0)
			bh_device_cancel(device, &out.t);
		if (!in.done && seed % 11 == 0)
			bh_device_cancel(device, &in.t);
		if (put < MANY && seed % 3)
			peer_writes(fd, data, &put, BH_MIN(put + (seed >> 12) % 30000, MANY));
		if (got < MANY && seed % 5)
			peer_reads(fd, at_peer, &got, BH_MIN(got + (seed >> 10) % 50000 + 1, MANY));
		uv_run(&loop, UV_RUN_NOWAIT);
		if (out.done == 1) {
			sent += out.t.actual;
			out.done = 2;
		}
		if (in.done == 1) {
			assert_true(received + in.t.actual <= MANY);
			memcpy(at_guest + received, buffer, in.t.actual);
			received += in.t.actual;
			in.done = 2;
		}
	}
	assert_memory_equal(at_peer, data, MANY);
	assert_memory_equal(at_guest, data, MANY);
	if (!in.done)
		bh_device_cancel(device, &in.t);
	close(fd);
	assert_int_equal(close_serial(), 0);
}

/* More than the buffer holds, while nothing else happens: what the host takes at once makes room at once. */
static void large_transfer_goes_through_by_itself(void **state)
{
	static uint8_t data[4 * BH_SERIAL_BUFFER];
	struct job j;
	int fd;

	(void)state;
	with_listener();
	fd = dial(port_of(bh_serial_name(device)));
	until(bh_serial_state(device).connected);
	settle();
	fill_pattern(data, sizeof(data), 9);
	submit(&j, OUT, data, sizeof(data));
	until(j.done);
	expect_at_peer(fd, data, sizeof(data));
	close(fd);
	assert_int_equal(close_serial(), 0);
}

/* What the first one's connection has swallowed is lost; nothing that was not in it is. */
static void next_one_gets_what_the_last_did_not(void **state)
{
	static uint8_t data[8 * MANY], back[MANY];
	uint64_t taken;
	struct job j;
	int fd;

	(void)state;
	with_listener();
	fill_pattern(data, sizeof(data), 10);
	fd = dial(port_of(bh_serial_name(device)));
	until(bh_serial_state(device).connected);
	submit(&j, OUT, data, sizeof(data));
	settle();
	assert_int_equal(j.done, 0); /* nobody reads */
	close(fd);
	until(!bh_serial_state(device).connected);
	taken = bh_serial_counters(device).to_peer;
	fd = dial(port_of(bh_serial_name(device)));
	for (size_t got = 0; got < 2 * BH_SERIAL_BUFFER;)
		until(peer_reads(fd, back, &got, 2 * BH_SERIAL_BUFFER));
	assert_memory_equal(back, data + taken, 2 * BH_SERIAL_BUFFER);
	bh_device_cancel(device, &j.t);
	close(fd);
	until(!bh_serial_state(device).connected);
	bh_serial_close(device, NULL, NULL);
	device = NULL;
}

static void server_serves_one_after_the_other(void **state)
{
	uint8_t byte;
	int first, second;

	(void)state;
	with_listener();
	first = dial(port_of(bh_serial_name(device)));
	assert_true(notified());
	second = dial(port_of(bh_serial_name(device)));
	assert_int_equal(write(second, "2", 1), 1);
	assert_int_equal(write(first, "1", 1), 1);
	receive_all(&byte, 1);
	assert_int_equal(byte, '1');
	send_all("to first", 8);
	expect_at_peer(first, "to first", 8);
	settle();
	assert_int_equal(bh_serial_counters(device).from_peer, 1);
	close(first);
	receive_all(&byte, 1);
	assert_int_equal(byte, '2');
	send_all("to second", 9);
	expect_at_peer(second, "to second", 9);
	assert_false(notified());
	assert_true(notified());
	assert_int_equal(bh_serial_counters(device).connections, 2);
	close(second);
	assert_false(notified());
	assert_int_equal(close_serial(), 0);
}

static void client_connects_again_and_again(void **state)
{
	uint16_t port = 0;
	int listener = serve(&port), fd;
	char address[32];

	(void)state;
	close(listener); /* nobody is there yet */
	snprintf(address, sizeof(address), "127.0.0.1:%u", port);
	assert_int_equal(create(&(struct bh_serial_config){.tcp = address}), 0);
	assert_string_equal(bh_serial_name(device), address);
	send_all("early ", 6);
	until(bh_serial_counters(device).failures > 0);
	assert_false(bh_serial_state(device).connected);
	listener = serve(&port);
	fd = answer(listener);
	assert_true(notified());
	send_all("bird", 4);
	expect_at_peer(fd, "early bird", 10);
	close(fd);
	assert_false(notified());
	send_all("once more", 9);
	fd = answer(listener);
	assert_true(notified());
	expect_at_peer(fd, "once more", 9);
	close(fd);
	close(listener);
	assert_int_equal(close_serial(), 0);
}

static void client_that_waits_can_be_closed(void **state)
{
	(void)state;
	assert_int_equal(create(&(struct bh_serial_config){.tcp = "localhost:1"}), 0);
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(close_serial(), 0); /* while it looks for the host */
	assert_int_equal(create(&(struct bh_serial_config){.tcp = "127.0.0.1:1"}), 0);
	until(bh_serial_counters(device).failures > 0);
	send_all("x", 1);
	assert_int_equal(close_serial(), -ENOTCONN);
}

static void name_that_is_none_is_tried_again(void **state)
{
	(void)state;
	assert_int_equal(create(&(struct bh_serial_config){.tcp = "no.such.host.invalid:1"}), 0);
	until(bh_serial_counters(device).failures > 1);
	assert_int_equal(close_serial(), 0);
}

/* --- files -------------------------------------------------------------------------------------------------------- */

static void write_file(const char *path, const void *data, size_t length)
{
	int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);

	assert_int_equal(write(fd, data, length), length);
	close(fd);
}

static void expect_in_file(const char *path, const void *data, size_t length)
{
	static uint8_t buffer[MANY + 1];
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_int_equal(read(fd, buffer, sizeof(buffer)), length);
	assert_memory_equal(buffer, data, length);
	close(fd);
}

static void file_is_appended_to_and_input_read(void **state)
{
	static uint8_t data[300000], back[300000];
	struct bh_serial_config c = {.file = strdup(name("out")), .input = strdup(name("in"))};
	struct job j;

	(void)state;
	fill_pattern(data, sizeof(data), 6);
	write_file(c.file, data, 5);
	write_file(c.input, data, sizeof(data));
	assert_int_equal(create(&c), 0);
	assert_true(notified());
	send_all(data + 5, sizeof(data) - 5 - 1);
	receive_all(back, sizeof(back));
	assert_memory_equal(back, data, sizeof(data));
	submit(&j, IN, back, 64); /* that was all */
	settle();
	assert_int_equal(j.done, 0);
	bh_device_cancel(device, &j.t);
	send_all(data + sizeof(data) - 1, 1);
	assert_int_equal(close_serial(), 0);
	expect_in_file(c.file, data, sizeof(data));
	unlink(c.file);
	unlink(c.input);
	free((void *)c.file);
	free((void *)c.input);
}

static void limit_file_size(rlim_t size)
{
	struct rlimit r;

	getrlimit(RLIMIT_FSIZE, &r);
	r.rlim_cur = size;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static void full_disk_holds_the_guest_up(void **state)
{
	static uint8_t data[100000];
	struct bh_serial_config c = {.file = strdup(name("out"))};
	struct job j;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	fill_pattern(data, sizeof(data), 7);
	assert_int_equal(create(&c), 0);
	limit_file_size(10000);
	submit(&j, OUT, data, sizeof(data));
	until(bh_serial_counters(device).failures > 0);
	assert_int_equal(bh_serial_counters(device).to_peer, 10000);
	assert_int_equal(j.done, 0);
	limit_file_size(RLIM_INFINITY);
	until(j.done);
	assert_int_equal(close_serial(), 0);
	expect_in_file(c.file, data, sizeof(data));

	assert_int_equal(create(&c), 0);
	limit_file_size(sizeof(data));
	send_all("x", 1);
	assert_int_equal(close_serial(), -EFBIG);
	limit_file_size(RLIM_INFINITY);
	unlink(c.file);
	free((void *)c.file);
}

/* --- the end -------------------------------------------------------------------------------------------------------- */

static int result;

/* The peer reads slowly, and has it all in the end, and then the end. */
static void close_gives_away_what_is_left(void **state)
{
	static uint8_t data[MANY], back[MANY];
	size_t got = 0, sent;
	struct job j;
	int fd;

	(void)state;
	fill_pattern(data, sizeof(data), 8);
	with_listener();
	fd = dial(port_of(bh_serial_name(device)));
	until(bh_serial_state(device).connected);
	submit(&j, OUT, data, sizeof(data));
	settle();
	result = 1;
	bh_serial_close(device, closed, &result);
	device = NULL;
	assert_int_equal(write(fd, "unread", 6), 6);
	assert_int_equal(j.done, 1);
	if (j.status != BH_SUCCESS)
		assert_int_equal(j.status, BH_CANCELLED);
	sent = j.t.actual;
	while (got < sent) {
		peer_reads(fd, back, &got, BH_MIN(got + 30000, sent));
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	assert_memory_equal(back, data, sent);
	until(result <= 0);
	assert_int_equal(result, 0);
	until(closed_by_peer(fd));
	close(fd);
}

static void close_waits_for_the_reader_of_a_pty(void **state)
{
	int fd;

	(void)state;
	with_pty();
	fd = open_slave();
	until(bh_serial_state(device).connected);
	send_all("last words", 10);
	result = 1;
	bh_serial_close(device, closed, &result);
	device = NULL;
	for (unsigned i = 0; i < 10; i++)
		uv_run(&loop, UV_RUN_ONCE);
	assert_int_equal(result, 1);
	expect_at_peer(fd, "last words", 10);
	until(result <= 0);
	assert_int_equal(result, 0);
	close(fd);
}

static void close_does_not_wait_for_ever(void **state)
{
	uint64_t before = uv_hrtime();
	int fd;

	(void)state;
	with_pty();
	send_all("nobody", 6);
	assert_int_equal(close_serial(), -ENOTCONN);
	with_pty();
	fd = open_slave();
	until(bh_serial_state(device).connected);
	send_all("nobody listens", 14);
	assert_int_equal(close_serial(), -ETIMEDOUT);
	assert_in_range((uv_hrtime() - before) / 1000000, 1900, 10000);
	close(fd);
}

static void destroying_does_not_need_to_be_waited_for(void **state)
{
	(void)state;
	with_pty();
	bh_device_destroy(device);
	with_listener();
	bh_device_destroy(device);
	device = NULL;
	result = 1;
	bh_serial_close(NULL, closed, &result);
	assert_int_equal(result, 0);
}

/* --- what is refused ----------------------------------------------------------------------------------------------- */

static void refused(struct bh_serial_config c, int err, const char *word)
{
	assert_int_equal(create(&c), err);
	if (!strstr(error, word))
		fail_msg("'%s' does not say '%s'", error, word);
}

static void errors_name_what_is_wrong(void **state)
{
	static const char *const no_addresses[] = {"", "host", "host:", ":1", "host:x", "host:65536", "host:123456", "::1:5",
	                                           "[]:5", "[::1:5", "host:-1"};
	const char *missing = name("none/out");
	char in_use[32];
	uint16_t port = 0;
	int listener = serve(&port);

	(void)state;
	refused((struct bh_serial_config){.pty = false}, -EINVAL, "say one of");
	refused((struct bh_serial_config){.pty = true, .tcp = "a:1"}, -EINVAL, "say one of");
	refused((struct bh_serial_config){.tcp = "a:1", .link = "x"}, -EINVAL, "'x'");
	refused((struct bh_serial_config){.pty = true, .input = "x"}, -EINVAL, "'x'");
	for (size_t i = 0; i < BH_COUNT(no_addresses); i++) {
		refused((struct bh_serial_config){.tcp = no_addresses[i]}, -EINVAL, "HOST:PORT");
		refused((struct bh_serial_config){.tcp_listen = no_addresses[i]}, -EINVAL, "HOST:PORT");
	}
	refused((struct bh_serial_config){.tcp = "a:0"}, -EINVAL, "'a:0'");
	refused((struct bh_serial_config){.tcp_listen = "no.such.host.invalid:1"}, -EINVAL, "no.such.host.invalid:1");
	snprintf(in_use, sizeof(in_use), "127.0.0.1:%u", port);
	refused((struct bh_serial_config){.tcp_listen = in_use}, -EADDRINUSE, "choose another port");
	close(listener);
	refused((struct bh_serial_config){.file = missing}, -ENOENT, "none/out");
	refused((struct bh_serial_config){.file = directory}, -EISDIR, "regular file");
	refused((struct bh_serial_config){.file = "/dev/null"}, -EINVAL, "/dev/null");
	refused((struct bh_serial_config){.file = "/dev/null", .input = missing}, -ENOENT, "none/out");
	refused((struct bh_serial_config){.pty = true, .link = missing}, -ENOENT, "none/out");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(descriptors_are_those_of_an_acm_device),
		TEST(line_coding_is_kept),
		TEST(control_lines_and_breaks_are_noted),
		TEST(halted_endpoint_stalls_with_what_it_took),
		TEST(in_transfer_ends_with_what_there_is),
		TEST(guest_gets_no_more_than_its_rate),
		TEST(full_last_packet_is_followed_by_an_empty_one),
		TEST(pty_carries_every_byte_both_ways),
		TEST(carrier_says_whether_the_pty_is_open),
		TEST(what_nobody_reads_waits_and_then_the_guest),
		TEST(cancelled_out_counts_exactly_what_passes),
		TEST(what_is_left_behind_arrives),
		TEST(guest_that_does_not_read_holds_the_peer_up),
		TEST(reset_loses_nothing),
		TEST(pty_has_a_link_while_it_is_there),
		TEST(tcp_loses_nothing_under_load),
		TEST(large_transfer_goes_through_by_itself),
		TEST(next_one_gets_what_the_last_did_not),
		TEST(server_serves_one_after_the_other),
		TEST(client_connects_again_and_again),
		TEST(client_that_waits_can_be_closed),
		TEST(name_that_is_none_is_tried_again),
		TEST(file_is_appended_to_and_input_read),
		TEST(full_disk_holds_the_guest_up),
		TEST(close_gives_away_what_is_left),
		TEST(close_waits_for_the_reader_of_a_pty),
		TEST(close_does_not_wait_for_ever),
		TEST(destroying_does_not_need_to_be_waited_for),
		TEST(errors_name_what_is_wrong),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
