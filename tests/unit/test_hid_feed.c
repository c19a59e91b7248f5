/* Input devices that read a file or a FIFO. */
#include "test_hid_rig.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[256], path[300];
static char logged[8][512];
static unsigned logs;

static void take_log(void *data, const char *text)
{
	assert_ptr_equal(data, logged);
	assert_null(strchr(text, '\n'));
	assert_true(logs < BH_COUNT(logged));
	snprintf(logged[logs++], sizeof(logged[0]), "%s", text);
}

static int set_up_directory(void **state)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(directory, sizeof(directory), "%s/bh-hid-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/keys", directory);
	logs = 0;
	return set_up(state);
}

static int tear_down_directory(void **state)
{
	int r = tear_down(state);

	unlink(path);
	rmdir(directory);
	return r;
}

static void make_reader(enum bh_hid_kind kind, unsigned queue)
{
	make_ready(&(struct bh_hid_config){
		.kind = kind, .speed = BH_SPEED_FULL, .queue = queue, .path = path, .log = take_log, .log_data = logged});
}

static void write_file(const char *bytes, size_t length)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, length), length);
	close(fd);
}

/* A writer of the FIFO. The device has it open, so this does not block. */
static int open_writer(void)
{
	int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void say(int fd, const char *text)
{
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* Runs the loop until so many events have been taken. */
static void wait_for_events(uint64_t n)
{
	run_until(bh_hid_counters(device).events >= n);
	assert_int_equal(bh_hid_counters(device).events, n);
}

static void wait_for_logs(unsigned n)
{
	run_until(logs >= n);
	assert_int_equal(logs, n);
}

static unsigned open_files(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_file_is_read_to_its_end(void **state)
{
	static const char text[] = "type ab\n\n# comment\r\nkey c\r\ntype d"; /* the last line without its end */
	unsigned files;

	(void)state;
	write_file(text, strlen(text));
	uv_run(&loop, UV_RUN_NOWAIT);
	files = open_files();
	make_reader(BH_HID_KEYBOARD, 0);
	uv_run(&loop, UV_RUN_DEFAULT); /* nothing left to do */
	assert_true(open_files() <= files + 2); /* the thread pool's */
	for (uint8_t k = 4; k < 8; k++) {
		assert_keys(0, k);
		assert_keys(0);
	}
	assert_no_report();
	assert_int_equal(logs, 0);
	end();
}

static void test_bad_lines_are_told_and_passed_over(void **state)
{
	static const char text[] = "key a\nkey nonsense\nkey b\ntype \0x\nmove 1 1\nkey c\n";

	(void)state;
	write_file(text, sizeof(text) - 1);
	make_reader(BH_HID_KEYBOARD, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	for (uint8_t k = 4; k < 7; k++) {
		assert_keys(0, k);
		assert_keys(0);
	}
	assert_no_report();
	assert_int_equal(logs, 3);
	assert_int_equal(bh_hid_counters(device).bad_lines, 3);
	assert_non_null(strstr(logged[0], "/keys:2: keyboard: no key is called 'nonsense'; say "));
	assert_non_null(strstr(logged[1], "/keys:4: a NUL byte"));
	assert_non_null(strstr(logged[2], "/keys:5: keyboard: 'move' is nothing a keyboard does"));
	end();
}

/* Much more than the queue holds: it is read as the guest fetches, and nothing is lost. */
static void test_file_waits_for_room(void **state)
{
	enum { LINES = 2000 };
	static char text[LINES * 8 + 1];
	size_t n = 0;

	(void)state;
	for (unsigned i = 0; i < LINES; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "type %c%c\n", 'a' + (int)(i % 26), 'a' + (int)(i / 26 % 26));
	write_file(text, n);
	make_reader(BH_HID_KEYBOARD, 16);
	for (unsigned i = 0; i < 2 * LINES; i++) {
		unsigned line = i / 2;

		run_until(bh_hid_counters(device).queued);
		assert_true(bh_hid_counters(device).queued <= 16);
		assert_keys(0, (uint8_t)(4 + (i & 1 ? line / 26 % 26 : line % 26)));
		assert_keys(0);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_no_report();
	assert_int_equal(bh_hid_counters(device).events, 4 * LINES);
	assert_int_equal(bh_hid_counters(device).dropped, 0);
	assert_int_equal(logs, 0);
	end();
}

static void test_lines_that_never_fit_are_told(void **state)
{
	static char text[6000];

	(void)state;
	memcpy(text, "type abcdefghi\n", 15); /* 18 events */
	memset(text + 15, 'x', 5000);
	memcpy(text + 15, "type ", 5);
	memcpy(text + 5015, "\nkey a\n", 7);
	write_file(text, 5022);
	make_reader(BH_HID_KEYBOARD, 16);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(logs, 2);
	assert_non_null(strstr(logged[0], "/keys:1: keyboard: 18 events are too many"));
	assert_non_null(strstr(logged[1], "/keys:2: longer than 4095 bytes; split it"));
	assert_int_equal(bh_hid_counters(device).dropped, 18);
	assert_keys(0, 4);
	assert_keys(0);
	assert_no_report();
	end();
}

static void test_longest_line_is_read(void **state)
{
	static char text[4096];

	(void)state;
	memset(text, ' ', sizeof(text));
	memcpy(text, "key a;", 6);
	text[4095] = '\n';
	write_file(text, sizeof(text));
	make_reader(BH_HID_KEYBOARD, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(logs, 0);
	assert_keys(0, 4);
	end();
}

static void test_fifo_is_read_whoever_opens_and_closes_it(void **state)
{
	unsigned files;
	int fd;

	(void)state;
	assert_int_equal(mkfifo(path, 0600), 0);
	make_reader(BH_HID_MOUSE, 0);
	files = open_files();
	for (unsigned i = 0; i < 20; i++) {
		fd = open_writer();
		say(fd, "move 1 2\nclick le");
		wait_for_events(3 * i + 1);
		say(fd, i & 1 ? "ft\n" : "ft"); /* its last line, with or without an end */
		close(fd);
		wait_for_events(3 * i + 3);
		assert_report(0, 1, 2, 0);
		assert_report(1, 0, 0, 0);
		assert_report(0, 0, 0, 0);
	}
	assert_int_equal(open_files(), files);
	assert_int_equal(logs, 0);
	end();
	assert_int_equal(open_files(), files - 1);
}

static void close_timer(uv_timer_t *timer)
{
	uv_close((uv_handle_t *)timer, NULL);
}

/* Once the last writer has gone, nothing is to be done until there is another. */
static void test_fifo_without_writers_is_quiet(void **state)
{
	uv_timer_t timer;
	unsigned rounds = 0;
	int fd;

	(void)state;
	assert_int_equal(mkfifo(path, 0600), 0);
	make_reader(BH_HID_MOUSE, 0);
	fd = open_writer();
	say(fd, "move 1 2\n");
	close(fd);
	wait_for_events(1);
	uv_timer_init(&loop, &timer);
	uv_timer_start(&timer, close_timer, 30, 0);
	for (; uv_is_active((uv_handle_t *)&timer); rounds++)
		uv_run(&loop, UV_RUN_ONCE);
	assert_in_range(rounds, 1, 5);
	end();
}

/* What a writer left while the device was about to open it again. */
static void test_two_writers_at_once(void **state)
{
	int a, b;

	(void)state;
	assert_int_equal(mkfifo(path, 0600), 0);
	make_reader(BH_HID_MOUSE, 0);
	a = open_writer();
	b = open_writer();
	say(a, "move 1 1\n");
	close(a);
	wait_for_events(1);
	say(b, "move 2 2\n");
	close(b);
	wait_for_events(2);
	a = open_writer();
	say(a, "move 3 3");
	close(a);
	b = open_writer();
	say(b, "\n");
	wait_for_events(3);
	close(b);
	end();
}

static void test_fifo_waits_for_room(void **state)
{
	int fd;

	(void)state;
	assert_int_equal(mkfifo(path, 0600), 0);
	make_reader(BH_HID_KEYBOARD, 16);
	fd = open_writer();
	say(fd, "type abcdef\ntype ghijkl\ntype mnopqr\n");
	wait_for_events(12);
	assert_int_equal(uv_run(&loop, UV_RUN_NOWAIT), 0); /* nothing is looked at until there is room */
	assert_int_equal(bh_hid_counters(device).queued, 12);
	close(fd);
	for (uint8_t k = 4; k < 4 + 18; k++) {
		assert_keys(0, k);
		assert_keys(0);
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	assert_no_report();
	fd = open_writer();
	say(fd, "type z\n");
	wait_for_events(38);
	close(fd);
	assert_int_equal(logs, 0);
	end();
}

/* A key from a FIFO wakes a suspended guest, too. */
static void test_line_from_fifo_wakes(void **state)
{
	int fd;

	(void)state;
	assert_int_equal(mkfifo(path, 0600), 0);
	make_reader(BH_HID_KEYBOARD, 0);
	assert_int_equal(allow_wakeup(true), BH_SUCCESS);
	bh_device_suspend(device, true);
	fd = open_writer();
	say(fd, "key a\n");
	wait_for_events(2);
	assert_int_equal(wakeups, 1);
	close(fd);
	end();
}

static void test_fifo_that_has_gone_is_told(void **state)
{
	int fd;

	(void)state;
	assert_int_equal(mkfifo(path, 0600), 0);
	make_reader(BH_HID_KEYBOARD, 0);
	fd = open_writer();
	unlink(path);
	say(fd, "key a\n");
	close(fd);
	wait_for_logs(1);
	assert_non_null(strstr(logged[0], "/keys: cannot be opened again: No such file or directory; nothing more"));
	assert_int_equal(bh_hid_counters(device).bad_lines, 0);
	assert_keys(0, 4);
	assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
	end();
}

/* While a read is under way, while a line waits, before the loop has run. */
static void test_close_at_any_time(void **state)
{
	(void)state;
	write_file("type abcdef\ntype ghijkl\n", 24);
	for (unsigned i = 0; i < 3; i++) {
		make_reader(BH_HID_KEYBOARD, 16);
		if (i == 1)
			wait_for_events(12);
		end();
	}
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	make_reader(BH_HID_KEYBOARD, 0);
	end();
	make_ready(&(struct bh_hid_config){.kind = BH_HID_KEYBOARD, .speed = BH_SPEED_FULL, .path = path}); /* no log */
	say(open_writer(), "nonsense\n");
	run_until(bh_hid_counters(device).bad_lines);
	end();
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, set_up_directory, tear_down_directory)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_file_is_read_to_its_end),
		TEST(test_bad_lines_are_told_and_passed_over),
		TEST(test_file_waits_for_room),
		TEST(test_lines_that_never_fit_are_told),
		TEST(test_longest_line_is_read),
		TEST(test_fifo_is_read_whoever_opens_and_closes_it),
		TEST(test_fifo_without_writers_is_quiet),
		TEST(test_two_writers_at_once),
		TEST(test_fifo_waits_for_room),
		TEST(test_line_from_fifo_wakes),
		TEST(test_fifo_that_has_gone_is_told),
		TEST(test_close_at_any_time),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
