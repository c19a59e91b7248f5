/* Addresses, listening, and a connector that does not give up. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include <cmocka.h>

#include <base/util.h>
#include <net/address.h>
#include <net/connector.h>
#include <net/socket.h>

static void addresses_are_taken_apart(void **state)
{
	static const struct {
		const char *text, *host, *port, *path;
		bool listening;
	} rows[] = {
		{"host:1", "host", "1", NULL, false},
		{"127.0.0.1:65535", "127.0.0.1", "65535", NULL, false},
		{"[::1]:3240", "::1", "3240", NULL, false},
		{"h:0", "h", "0", NULL, true},
		{"unix:/run/x", NULL, NULL, "/run/x", false},
		{"unix:x", NULL, NULL, "x", true},
	};

	(void)state;
	for (size_t i = 0; i < BH_COUNT(rows); i++) {
		struct bh_address a;

		assert_int_equal(bh_address_parse(rows[i].text, rows[i].listening, &a), 0);
		if (rows[i].path) {
			assert_string_equal(a.path, rows[i].path);
			assert_null(a.host);
		} else {
			assert_string_equal(a.host, rows[i].host);
			assert_string_equal(a.port, rows[i].port);
		}
		bh_address_free(&a);
	}
}

static void what_is_no_address_is_refused(void **state)
{
	static const char *const texts[] = {
		"", ":", "host", "host:", ":1", "host:0", "host:65536", "host:123456", "host:1x", "host: 1", "::1:3",
		"[]:1", "[::1:1", "[::1]1", "unix:",
		"unix:/long/0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345",
	};
	struct bh_address a;

	(void)state;
	for (size_t i = 0; i < BH_COUNT(texts); i++)
		assert_int_equal(bh_address_parse(texts[i], false, &a), -EINVAL);
}

/* --- connecting --------------------------------------------------------------------------- */

static uv_loop_t loop;
static struct bh_connector *connector;
static int connected_fd, failures;
static bool destroys;
static char directory[] = "/tmp/bulkhead-net-XXXXXX", path[64];

static void connected(void *data, int fd)
{
	assert_ptr_equal(data, &loop);
	connected_fd = fd;
	if (destroys)
		bh_connector_destroy(connector);
	uv_stop(&loop);
}

static void failed(void *data, int error)
{
	assert_ptr_equal(data, &loop);
	assert_true(error < 0);
	failures++;
	if (destroys)
		bh_connector_destroy(connector);
	uv_stop(&loop);
}

static const struct bh_connector_ops ops = {.connected = connected, .failed = failed};

static int set_up(void **state)
{
	(void)state;
	connected_fd = -1;
	failures = 0;
	destroys = false;
	return uv_loop_init(&loop);
}

static int tear_down(void **state)
{
	(void)state;
	if (connected_fd >= 0)
		close(connected_fd);
	unlink(path);
	uv_run(&loop, UV_RUN_DEFAULT);
	return uv_loop_close(&loop);
}

static void make(const char *text)
{
	struct bh_address a;

	assert_int_equal(bh_address_parse(text, false, &a), 0);
	assert_int_equal(bh_connector_create(&loop, &a, &ops, &loop, &connector), 0);
	bh_address_free(&a);
}

static int listen_on(const char *text, char name[BH_SOCKET_NAME_SIZE])
{
	struct bh_address a;
	int fd;

	assert_int_equal(bh_address_parse(text, true, &a), 0);
	fd = bh_socket_listen(&a, name);
	bh_address_free(&a);
	return fd;
}

/* A name, an address of either kind, and a path. */
static void it_connects_to_whatever_listens(void **state)
{
	static const char *const texts[] = {"127.0.0.1:0", "localhost:0", "[::1]:0", NULL};
	char name[BH_SOCKET_NAME_SIZE], text[80];

	(void)state;
	for (size_t i = 0; i < BH_COUNT(texts); i++) {
		int fd;

		snprintf(text, sizeof(text), "unix:%s", path);
		fd = listen_on(texts[i] ? texts[i] : text, name);
		if (fd == -EADDRNOTAVAIL && i == 2)
			continue; /* no IPv6 here */
		assert_true(fd >= 0);
		make(name);
		bh_connector_try(connector);
		bh_connector_try(connector);
		uv_run(&loop, UV_RUN_DEFAULT);
		assert_true(connected_fd >= 0);
		assert_int_equal(failures, 0);
		bh_socket_watch_peer(connected_fd);
		bh_connector_destroy(connector);
		close(connected_fd);
		connected_fd = -1;
		close(fd);
	}
}

static void it_tries_until_somebody_listens(void **state)
{
	char name[BH_SOCKET_NAME_SIZE], text[80];
	int fd;

	(void)state;
	snprintf(text, sizeof(text), "unix:%s", path);
	make(text);
	bh_connector_try(connector);
	while (failures < 2)
		uv_run(&loop, UV_RUN_DEFAULT);
	fd = listen_on(text, name);
	while (connected_fd < 0)
		uv_run(&loop, UV_RUN_DEFAULT);
	close(connected_fd);
	connected_fd = -1;
	bh_connector_try_later(connector);
	while (connected_fd < 0)
		uv_run(&loop, UV_RUN_DEFAULT);
	bh_connector_destroy(connector);
	close(fd);
}

/* Each attempt at a port that nobody listens on ends, and says so; never is it connected to itself. */
static void nobody_there_is_said(void **state)
{
	char name[BH_SOCKET_NAME_SIZE];

	(void)state;
	close(listen_on("127.0.0.1:0", name));
	make(name);
	bh_connector_try(connector);
	while (failures < 3)
		uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(connected_fd, -1);
	bh_connector_destroy(connector);
}

static void it_may_be_destroyed_at_any_time(void **state)
{
	char name[BH_SOCKET_NAME_SIZE];
	int fd = listen_on("127.0.0.1:0", name);

	(void)state;
	make(name);
	bh_connector_destroy(connector);
	bh_connector_destroy(NULL);
	make(name);
	bh_connector_try(connector);
	bh_connector_destroy(connector);
	make("localhost:1"); /* while the name is looked up */
	bh_connector_try(connector);
	uv_run(&loop, UV_RUN_NOWAIT);
	bh_connector_destroy(connector);
	destroys = true;
	make(name);
	bh_connector_try(connector);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_true(connected_fd >= 0);
	close(fd);
	make(name); /* nobody listens any more */
	bh_connector_try(connector);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(failures, 1);
}

static void what_cannot_be_listened_on_is_explained(void **state)
{
	char name[BH_SOCKET_NAME_SIZE];
	int fd = listen_on("127.0.0.1:0", name);

	(void)state;
	assert_int_equal(listen_on(name, name), -EADDRINUSE);
	assert_int_equal(listen_on("nobody.invalid:1", name), -EINVAL);
	assert_int_equal(listen_on("192.0.2.1:0", name), -EADDRNOTAVAIL);
	assert_non_null(strstr(bh_socket_listen_advice(-EADDRINUSE), "another port"));
	close(fd);
}

static int make_directory(void **state)
{
	(void)state;
	if (!mkdtemp(directory))
		return -1;
	snprintf(path, sizeof(path), "%s/socket", directory);
	return 0;
}

static int remove_directory(void **state)
{
	(void)state;
	return rmdir(directory);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses_are_taken_apart),
		cmocka_unit_test(what_is_no_address_is_refused),
		TEST(it_connects_to_whatever_listens),
		TEST(it_tries_until_somebody_listens),
		TEST(nobody_there_is_said),
		TEST(it_may_be_destroyed_at_any_time),
		TEST(what_cannot_be_listened_on_is_explained),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
