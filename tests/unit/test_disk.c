/* The disk over a file: opening, locking, a Linux-like session, closing; and as a USB device. */
#include "test_disk_rig.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static uv_loop_t loop;
static char directory[256];

static int set_up(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	snprintf(directory, sizeof(directory), "%s/bh-disk-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(directory));
	return uv_loop_init(&loop);
}

static int tear_down(void **state)
{
	(void)state;
	uv_run(&loop, UV_RUN_DEFAULT);
	rmdir(directory);
	return uv_loop_close(&loop);
}

/* A file name in the test's directory; the buffer is reused. */
static const char *name(const char *file)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s/%s", directory, file);
	return path;
}

static const char *image(off_t size)
{
	const char *path = name("disk.img");
	int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
	return path;
}

static struct rig rig_file(const struct bh_disk_config *config)
{
	struct rig r = {.cut = 128 * 1024, .packet = 64, .loop = &loop};
	char error[256] = "";

	if (bh_disk_create(&loop, config, &r.device, error, sizeof(error)) < 0)
		fail_msg("%s", error);
	configure(&r);
	return r;
}

/* What sd and usb-storage send: find out, read, write, flush. */
static void test_session(void **state)
{
	struct bh_disk_config c = {.path = image(16 << 20), .speed = BH_SPEED_FULL};
	struct rig r = rig_file(&c);
	static uint8_t a[240 * 512], b[240 * 512];
	uint8_t buffer[192];
	struct outcome o;
	int fd;

	(void)state;
	o = command(&r, CDB(0x12, 0, 0, 0, 36, 0), HOST_IN, buffer, 36);
	assert_int_equal(o.status, 0);
	assert_int_equal(o.residue, 0);
	assert_int_equal(buffer[1], 0x80);
	assert_memory_equal(buffer + 8, "BULKHEADDISK", 12);
	assert_int_equal(command(&r, CDB(0, 0, 0, 0, 0, 0), HOST_OUT, NULL, 0).status, 0);
	assert_int_equal(command(&r, CDB(0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0), HOST_IN, buffer, 8).status, 0);
	assert_memory_equal(buffer, "\0\0\x7f\xff\0\0\2\0", 8);

	fill_pattern(a, sizeof(a), 1);
	o = rw10(&r, 0x2a, 0, 1000, 240, a, sizeof(a));
	assert_int_equal(o.status, 0);
	assert_int_equal(o.residue, 0);
	assert_int_equal(command(&r, CDB(0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0), HOST_OUT, NULL, 0).status, 0);
	o = rw10(&r, 0x28, 0, 1000, 240, b, sizeof(b));
	assert_int_equal(o.status, 0);
	assert_memory_equal(a, b, sizeof(a));
	assert_int_equal(bh_disk_counters(r.device).commands, 6);
	assert_int_equal(bh_disk_counters(r.device).bytes_read, sizeof(a));
	assert_int_equal(bh_disk_counters(r.device).bytes_written, sizeof(a));
	assert_int_equal(bh_disk_counters(r.device).flushes, 1);
	assert_int_equal(rw10(&r, 0x2a, 0, 0, 1, b, 512).status, 0); /* flushed by closing */
	assert_int_equal(rig_close(&r), 0);

	fd = open(c.path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(pread(fd, b, sizeof(b), 1000 * 512), sizeof(b));
	assert_memory_equal(a, b, sizeof(a));
	close(fd);
	unlink(c.path);
}

/* Not in the page cache, or a file system that cannot say: through the pool. */
static void test_cold_read(void **state)
{
	struct bh_disk_config c = {.path = image(4 << 20), .speed = BH_SPEED_FULL};
	static uint8_t a[3 << 20], b[3 << 20];
	struct rig r;
	int fd = open(c.path, O_WRONLY | O_CLOEXEC);

	(void)state;
	fill_pattern(a, sizeof(a), 2);
	assert_int_equal(pwrite(fd, a, sizeof(a), 512), sizeof(a));
	fdatasync(fd);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
	r = rig_file(&c);
	assert_int_equal(rw10(&r, 0x28, 0, 1, sizeof(a) / 512, b, sizeof(b)).status, 0);
	assert_memory_equal(a, b, sizeof(a));
	assert_int_equal(rig_close(&r), 0);
	unlink(c.path);
}

/* One line, with the file's name and an advice; nothing made, nothing leaked. */
static void refused(const struct bh_disk_config *c, int err, const char *what)
{
	struct bh_device *d = (struct bh_device *)1;
	char error[512] = "";
	int fd = dup(0), after;

	close(fd);
	assert_int_equal(bh_disk_create(&loop, c, &d, error, sizeof(error)), -err);
	assert_ptr_equal(d, (struct bh_device *)1);
	assert_non_null(strstr(error, what));
	assert_null(strchr(error, '\n'));
	if (c->path)
		assert_non_null(strstr(error, c->path));
	after = dup(0);
	assert_int_equal(fd, after);
	close(after);
}

static void test_refusals(void **state)
{
	struct bh_disk_config c = {.path = name("none"), .speed = BH_SPEED_FULL};
	struct stat st;

	(void)state;
	refused(&c, ENOENT, "truncate");
	assert_int_equal(stat(c.path, &st), -1);
	c.path = directory;
	refused(&c, EISDIR, "directory");
	c.path = "/dev/full";
	refused(&c, EINVAL, "neither");
	c.path = name("fifo");
	assert_int_equal(mkfifo(c.path, 0600), 0);
	refused(&c, EINVAL, "neither");
	unlink(c.path);
	c.path = NULL;
	refused(&c, EINVAL, "file=");

	c.path = image(512 * 3 + 1);
	refused(&c, EINVAL, "not a multiple of 512");
	image(512 * 9);
	c.block_size = 4096;
	refused(&c, EINVAL, "block=512");
	c.block_size = 1024;
	refused(&c, EINVAL, "512 or 4096");
	c.block_size = 0;
	image(0);
	refused(&c, EINVAL, "empty");
	image(4096);
	c.serial = "0123456789A";
	refused(&c, EINVAL, "12 to 32");
	c.serial = "0123456789ABCDEf";
	refused(&c, EINVAL, "12 to 32");
	c.serial = "0123456789ABCDEF0123456789ABCDEF0";
	refused(&c, EINVAL, "12 to 32");
	c.serial = NULL;
	c.speed = BH_SPEED_LOW;
	refused(&c, EINVAL, "speed");
	c.speed = BH_SPEED_FULL;
	if (geteuid() != 0) {
		chmod(c.path, 0400);
		refused(&c, EACCES, "readonly=on");
		chmod(c.path, 0);
		c.readonly = true;
		refused(&c, EACCES, "permission to read it");
	}
	unlink(c.path);
}

static void test_lock(void **state)
{
	struct bh_disk_config writer = {.path = image(4096), .speed = BH_SPEED_FULL}, reader = writer;
	struct rig w, r1, r2;

	(void)state;
	reader.readonly = true;
	w = rig_file(&writer);
	refused(&writer, EBUSY, "in use by another process");
	refused(&reader, EBUSY, "readonly=on");
	assert_int_equal(rig_close(&w), 0);
	r1 = rig_file(&reader);
	r2 = rig_file(&reader);
	refused(&writer, EBUSY, "readonly=on");
	bh_device_destroy(r1.device);
	bh_device_destroy(r2.device);
	w = rig_file(&writer);
	bh_device_destroy(w.device);
	unlink(writer.path);
}

static void test_serial(void **state)
{
	struct bh_disk_config c = {.path = image(4096), .readonly = true, .speed = BH_SPEED_FULL};
	struct rig a = rig_file(&c), b;
	char other[512];

	(void)state;
	assert_int_equal(strlen(bh_disk_serial(a.device)), 16);
	assert_int_equal(strspn(bh_disk_serial(a.device), "0123456789ABCDEF"), 16);
	snprintf(other, sizeof(other), "%s/./disk.img", directory); /* the same file by another name */
	c.path = other;
	b = rig_file(&c);
	assert_string_equal(bh_disk_serial(a.device), bh_disk_serial(b.device));
	bh_device_destroy(b.device);
	c.serial = "0123456789AB";
	b = rig_file(&c);
	assert_string_equal(bh_disk_serial(b.device), "0123456789AB");
	bh_device_destroy(a.device);
	bh_device_destroy(b.device);
	unlink(name("disk.img"));
}

/* ---- as a USB device ---- */

static void test_descriptors(void **state)
{
	static const uint8_t configuration[] = {
		9, 2, 32, 0, 1, 1, 0, 0xc0, 0,
		9, 4, 0, 0, 2, 8, 6, 0x50, 0,
		7, 5, 0x81, 2, 64, 0, 0,
		7, 5, 0x02, 2, 64, 0, 0,
	};
	struct bh_disk_config c = {.path = "x", .serial = "0123456789ABCDEF", .speed = BH_SPEED_FULL};
	struct rig r = rig_fake(4096, &c);
	uint8_t b[255];
	uint32_t n;

	(void)state;
	assert_int_equal(request(&r, 0x80, 6, 0x0100, 0, b, 64, &n), BH_SUCCESS);
	assert_int_equal(n, 18);
	assert_int_equal(b[0], 18);
	assert_int_equal(b[7], 64);
	assert_int_equal(b[16], 3);
	assert_int_equal(request(&r, 0x80, 6, 0x0100, 0, b, 8, &n), BH_SUCCESS);
	assert_int_equal(n, 8);
	assert_int_equal(request(&r, 0x80, 6, 0x0200, 0, b, 255, &n), BH_SUCCESS);
	assert_int_equal(n, sizeof(configuration));
	assert_memory_equal(b, configuration, n);
	assert_int_equal(request(&r, 0x80, 6, 0x0300, 0, b, 255, &n), BH_SUCCESS);
	assert_memory_equal(b, "\4\3\x09\4", n);
	assert_int_equal(request(&r, 0x80, 6, 0x0303, 0x0409, b, 255, &n), BH_SUCCESS);
	assert_int_equal(n, 2 + 16 * 2);
	assert_memory_equal(b, "\x22\3" "0\0001\0002\0003", 9);
	assert_int_equal(request(&r, 0x80, 6, 0x0304, 0x0409, b, 255, &n), BH_STALL);
	assert_int_equal(request(&r, 0x80, 6, 0x0600, 0, b, 10, &n), BH_STALL);
	assert_int_equal(request(&r, 0x80, 6, 0x0101, 0, b, 18, &n), BH_STALL);
	bh_device_destroy(r.device);

	c.speed = BH_SPEED_HIGH;
	r = rig_fake(4096, &c);
	assert_int_equal(bh_device_endpoint(r.device, IN)->max_packet, 512);
	assert_int_equal(request(&r, 0x80, 6, 0x0600, 0, b, 10, &n), BH_SUCCESS);
	assert_int_equal(n, 10);
	assert_int_equal(request(&r, 0x80, 6, 0x0700, 0, b, 255, &n), BH_SUCCESS);
	assert_int_equal(b[1], 7);
	assert_int_equal(b[22], 64);
	bh_device_destroy(r.device);
}

static void test_requests(void **state)
{
	struct rig r = rig_fake(4096, NULL);
	uint8_t b[64];
	uint32_t n;

	(void)state;
	assert_int_equal(request(&r, 0xa1, 0xfe, 0, 0, b, 1, &n), BH_SUCCESS);
	assert_int_equal(n, 1);
	assert_int_equal(b[0], 0);
	assert_int_equal(request(&r, 0xa1, 0xfe, 1, 0, b, 1, &n), BH_STALL);
	assert_int_equal(request(&r, 0xa1, 0xfe, 0, 1, b, 1, &n), BH_STALL);
	assert_int_equal(request(&r, 0xa1, 0xfe, 0, 0, b, 2, &n), BH_STALL);
	assert_int_equal(request(&r, 0x80, 8, 0, 0, b, 1, &n), BH_SUCCESS);
	assert_int_equal(b[0], 1);
	assert_int_equal(request(&r, 0x80, 0, 0, 0, b, 2, &n), BH_SUCCESS);
	assert_int_equal(b[0], 1);
	assert_int_equal(request(&r, 0x81, 10, 0, 0, b, 1, &n), BH_SUCCESS);
	assert_int_equal(request(&r, 0xc0, 0x42, 0, 0, b, 1, &n), BH_STALL);
	assert_int_equal(request(&r, 0, 9, 2, 0, NULL, 0, &n), BH_STALL);

	/* SET_FEATURE and CLEAR_FEATURE(ENDPOINT_HALT), as usbtest does */
	assert_int_equal(request(&r, 0x02, 3, 0, IN, NULL, 0, &n), BH_SUCCESS);
	assert_int_equal(request(&r, 0x82, 0, 0, IN, b, 2, &n), BH_SUCCESS);
	assert_int_equal(b[0], 1);
	assert_int_equal(bulk(&r, IN, b, 64, &n), BH_STALL);
	clear_halt(&r, IN);
	assert_int_equal(request(&r, 0x82, 0, 0, IN, b, 2, &n), BH_SUCCESS);
	assert_int_equal(b[0], 0);
	assert_int_equal(request(&r, 0x82, 0, 0, 0x83, b, 2, &n), BH_STALL);
	assert_int_equal(bulk(&r, 0x83, b, 64, &n), BH_STALL);

	/* unconfigured: no endpoints, no class requests */
	bh_device_reset(r.device);
	assert_null(bh_device_endpoint(r.device, IN));
	assert_int_equal(bulk(&r, OUT, b, 31, &n), BH_STALL);
	assert_int_equal(request(&r, 0xa1, 0xfe, 0, 0, b, 1, &n), BH_STALL);
	bh_device_destroy(r.device);
}

/* ---- the end ---- */

static void test_close_in_the_middle(void **state)
{
	static uint8_t data[1 << 20];
	struct rig r = rig_fake(4 << 20, NULL);
	struct fake *f = r.fake;
	bool destroyed = false;
	struct flight out, in;
	int error = 1;

	(void)state;
	f->destroyed = &destroyed;
	fill_pattern(data, sizeof(data), 3);
	send_cbw(&r, 2048 * 512, HOST_OUT, CDB(0x2a, 0, 0, 0, 0, 0, 0, 8, 0, 0));
	launch(&r, &out, OUT, data, 300 * 1024); /* one whole chunk, and some of the next */
	assert_true(out.done);
	launch(&r, &out, OUT, data, 64);
	launch(&r, &in, IN, data, 64);
	assert_false(in.done);
	bh_disk_close(r.device, rig_closed, &error);
	assert_true(in.done);
	assert_int_equal(in.status, BH_CANCELLED);
	assert_int_equal(error, 1);
	assert_int_equal(f->queued, 1); /* the write */
	fake_step(f);
	assert_memory_equal(f->bytes, data + 0, 64);
	assert_int_equal(f->queued, 1); /* the flush */
	assert_false(destroyed);
	f->flush_error = -EIO;
	fake_step(f);
	assert_true(destroyed);
	assert_int_equal(error, -EIO);
}

static void test_destroy_while_reading(void **state)
{
	struct rig r = rig_fake(4 << 20, NULL);
	struct fake *f = r.fake;
	bool destroyed = false;

	(void)state;
	f->destroyed = &destroyed;
	f->cached = false;
	send_cbw(&r, 2048 * 512, HOST_IN, CDB(0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0));
	assert_int_equal(f->queued, 4);
	bh_device_destroy(r.device);
	while (!destroyed)
		assert_true(fake_step(f));
	bh_disk_close(NULL, NULL, NULL);
	bh_device_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_session),
		cmocka_unit_test(test_cold_read),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_lock),
		cmocka_unit_test(test_serial),
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_close_in_the_middle),
		cmocka_unit_test(test_destroy_while_reading),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
