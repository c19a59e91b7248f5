/* Write traces: no write is missed, by either mechanism, and what is not ours stays as it was. */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <base/util.h>
#include <guest/memory.h>
#include <guest/trace.h>

#define RW   (BH_MEMORY_READ | BH_MEMORY_WRITE)
#define OURS (RW | BH_MEMORY_OURS)
#define BASE UINT64_C(0x100000)
#define PAGES 16u

static size_t page; /* its size */

struct fixture {
	struct bh_memory m;
	uint8_t *host; /* PAGES of it, at BASE */
	unsigned method;
};

static uint8_t *map_private(size_t pages)
{
	void *p = mmap(NULL, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static uint8_t *map_shared(size_t pages)
{
	int fd = memfd_create("trace", MFD_CLOEXEC);
	void *p;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)(pages * page)), 0);
	p = mmap(NULL, pages * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	close(fd);
	return p;
}

static unsigned entries(const char *path)
{
	DIR *d = opendir(path);
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* The state a test begins with is its mechanism. */
static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->method = *(const unsigned *)*state;
	bh_memory_init(&f->m);
	f->host = map_private(PAGES);
	assert_int_equal(bh_memory_add(&f->m, BASE, PAGES * page, f->host, OURS), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	bh_memory_finish(&f->m);
	munmap(f->host, PAGES * page);
	free(f);
	return 0;
}

static void skip_where_missing(const struct fixture *f, int result)
{
	if (result != -ENOSYS)
		return;
	print_message("# %s\n", f->method == BH_TRACE_USERFAULTFD ? "no userfaultfd with write protection here"
	              : "mprotect does not work here");
	skip();
}

static void enable(struct fixture *f)
{
	unsigned method = 0;
	int r = bh_trace_enable(&f->m, f->method, &method);

	skip_where_missing(f, r);
	assert_int_equal(r, 0);
	assert_int_equal(method, f->method);
	assert_true(bh_memory_traced(&f->m));
}

static uint64_t watch(struct fixture *f, uint64_t offset, size_t length)
{
	uint64_t stamp = bh_memory_watch(&f->m, BASE + offset, length);

	assert_true(stamp > 0);
	return stamp;
}

static bool written(struct fixture *f, uint64_t offset, size_t length, uint64_t since)
{
	return bh_memory_written(&f->m, BASE + offset, length, since);
}

static void put(uint8_t *at, uint8_t value)
{
	__atomic_store_n(at, value, __ATOMIC_RELAXED);
}

static void unwritten_stays_so(void **state)
{
	struct fixture *f = *state;
	uint8_t to[64];
	uint64_t since;

	memset(f->host, 1, 2 * page); /* before the traces */
	enable(f);
	put(f->host + page, 2); /* before the watch */
	since = watch(f, 0, PAGES * page);
	assert_false(written(f, 0, PAGES * page, since));
	assert_true(bh_memory_read(&f->m, BASE + page - 32, to, sizeof(to)));
	for (unsigned i = 0; i < 10; i++)
		assert_true(watch(f, 0, PAGES * page) > since);
	assert_false(written(f, 0, PAGES * page, since));
	assert_false(written(f, page, 0, since));
}

static void first_and_last_byte_are_seen(void **state)
{
	static const size_t writes[] = {0, 1, 99, 100, 200};
	struct fixture *f = *state;

	enable(f);
	/* From 100 bytes before the end of page 2 to 100 bytes into page 4. */
	for (size_t i = 0; i < BH_COUNT(writes); i++) {
		uint64_t from = 3 * page - 100;
		size_t length = page + 201;
		uint64_t since = watch(f, from, length);

		assert_false(written(f, from, length, since));
		put(f->host + from + writes[i], (uint8_t)i);
		assert_true(written(f, from, length, since));

		since = watch(f, from, length);
		assert_false(written(f, from, length, since));
		put(f->host + from + length - 1 - writes[i], (uint8_t)i);
		assert_true(written(f, from, length, since));
	}
}

static void other_pages_are_not_affected(void **state)
{
	struct fixture *f = *state;
	uint64_t since;

	enable(f);
	since = watch(f, 0, PAGES * page);
	put(f->host + 3 * page, 1);
	put(f->host + 7 * page - 1, 1);
	for (unsigned i = 0; i < PAGES; i++)
		assert_int_equal(written(f, i * page, page, since), i == 3 || i == 6);
	assert_false(written(f, 4 * page, 2 * page, since));
	assert_true(written(f, 4 * page - 1, 2 * page, since));
	assert_true(written(f, 4 * page, 2 * page + 1, since));
}

static void next_write_is_seen_after_next_watch(void **state)
{
	struct fixture *f = *state;

	enable(f);
	for (unsigned i = 0; i < 100; i++) {
		uint64_t since = watch(f, 0, 3 * page);

		assert_false(written(f, 0, 3 * page, since));
		put(f->host + i % 3 * page + i, (uint8_t)i);
		put(f->host + i % 3 * page, (uint8_t)i);
		assert_true(written(f, 0, 3 * page, since));
	}
}

static void older_stamps_remember(void **state)
{
	struct fixture *f = *state;
	uint64_t none, first, second, third;

	enable(f);
	none = watch(f, 2 * page, 1);
	first = watch(f, 0, 1);
	assert_true(written(f, 0, 1, none)); /* nobody was looking */
	second = watch(f, 0, 1);
	put(f->host, 1);
	third = watch(f, 0, 1);
	assert_true(first < second && second < third);
	assert_true(written(f, 0, 1, first));
	assert_true(written(f, 0, 1, second));
	assert_false(written(f, 0, 1, third));
	assert_true(written(f, 0, 1, 0));
	assert_true(written(f, 0, 1, third + 1)); /* was never given out */
	assert_true(written(f, page, 1, third)); /* was never watched */
}

static void our_own_writes_are_seen(void **state)
{
	struct fixture *f = *state;
	uint32_t word = 0;
	bool done = false;
	uint64_t since;

	enable(f);
	since = watch(f, 0, PAGES * page);
	assert_true(bh_memory_write(&f->m, BASE + 2 * page - 2, "1234", 4));
	assert_memory_equal(f->host + 2 * page - 2, "1234", 4);
	assert_true(bh_memory_exchange32(&f->m, BASE + 4 * page, &word, 0x1234, &done));
	assert_true(done);
	assert_true(bh_memory_load32(&f->m, BASE + 5 * page, &word));
	for (unsigned i = 0; i < PAGES; i++)
		assert_int_equal(written(f, i * page, page, since), i == 1 || i == 2 || i == 4);
}

/* The kernel writes for us: see <guest/trace.h> for what happens then. */
static void system_calls_that_write(void **state)
{
	struct fixture *f = *state;
	uint64_t since;
	int fds[2];

	enable(f);
	assert_int_equal(pipe(fds), 0);
	since = watch(f, 0, page);
	assert_int_equal(write(fds[1], "x", 1), 1);
	if (f->method == BH_TRACE_USERFAULTFD) {
		assert_int_equal(read(fds[0], f->host, 1), 1);
		assert_int_equal(f->host[0], 'x');
		assert_true(written(f, 0, 1, since));
	} else {
		assert_int_equal(read(fds[0], f->host, 1), -1);
		assert_int_equal(errno, EFAULT);
		assert_false(written(f, 0, 1, since));
	}
	close(fds[0]);
	close(fds[1]);
}

/* Writers, and what tells them to stop. */
struct writers {
	pthread_t threads[4];
	uint8_t *host;
	size_t pages;
	uint64_t writes; /* of all */
	bool stop;
};

/* A whole word at each write, so that the reader can read without tearing. */
static void *hammer(void *opaque)
{
	struct writers *w = opaque;
	uint64_t x = (uint64_t)(uintptr_t)&x | 1;

	while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED)) {
		uint64_t *word;

		x = x * 6364136223846793005u + 1442695040888963407u;
		word = (uint64_t *)(void *)(w->host + (x >> 33) % (w->pages * page / 8) * 8);
		__atomic_store_n(word, x, __ATOMIC_RELEASE);
		__atomic_fetch_add(&w->writes, 1, __ATOMIC_RELAXED);
		if (!(x >> 60))
			sched_yield();
	}
	return NULL;
}

static void start_writers(struct writers *w, uint8_t *host, size_t pages)
{
	*w = (struct writers){.host = host, .pages = pages};
	for (size_t i = 0; i < BH_COUNT(w->threads); i++)
		assert_int_equal(pthread_create(&w->threads[i], NULL, hammer, w), 0);
}

static void stop_writers(struct writers *w)
{
	__atomic_store_n(&w->stop, true, __ATOMIC_RELAXED);
	for (size_t i = 0; i < BH_COUNT(w->threads); i++)
		pthread_join(w->threads[i], NULL);
}

static void copy_words(uint64_t *to, const uint8_t *host, size_t count)
{
	for (size_t i = 0; i < count; i++)
		to[i] = __atomic_load_n((const uint64_t *)(const void *)host + i, __ATOMIC_ACQUIRE);
}

static uint64_t milliseconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* What a watched copy was taken of. */
struct watched {
	size_t offset, words;
	uint64_t copy[64], since;
};

static void take(struct fixture *f, struct watched *w, uint64_t random)
{
	w->words = 1 + random % BH_COUNT(w->copy);
	w->offset = (random >> 8) % (PAGES * page / 8 - w->words + 1) * 8;
	w->since = watch(f, w->offset, w->words * 8);
	copy_words(w->copy, f->host + w->offset, w->words);
}

/* Compares first, then asks: a write between the two makes a false alarm, which is allowed. */
static bool check_watched(struct fixture *f, const struct watched *w, bool *ret_written)
{
	uint64_t now[BH_COUNT(w->copy)];
	bool same;

	copy_words(now, f->host + w->offset, w->words);
	same = !memcmp(now, w->copy, w->words * 8);
	*ret_written = written(f, w->offset, w->words * 8, w->since);
	return same || *ret_written;
}

/*
 * Watches several places, copies, and later compares, while others write. A write
 * that is not noticed shows as a copy that differs without having been "written".
 */
static void no_write_is_missed(void **state)
{
	struct fixture *f = *state;
	struct watched watches[8];
	struct writers w;
	uint64_t x = 1, end, alarms = 0, quiet = 0, missed = 0;

	enable(f);
	start_writers(&w, f->host, PAGES);
	for (size_t i = 0; i < BH_COUNT(watches); i++)
		take(f, &watches[i], x = x * 6364136223846793005u + 1);
	end = milliseconds() + 500;
	while (milliseconds() < end) {
		struct watched *v;
		bool was_written;

		x = x * 6364136223846793005u + 1442695040888963407u;
		v = &watches[(x >> 40) % BH_COUNT(watches)];
		missed += !check_watched(f, v, &was_written);
		alarms += was_written;
		quiet += !was_written;
		if (was_written)
			take(f, v, x >> 20);
		if (!(x >> 62))
			sched_yield();
	}
	stop_writers(&w);
	print_message("# %llu writes, %llu seen, %llu without\n", (unsigned long long)w.writes,
	              (unsigned long long)alarms, (unsigned long long)quiet);
	assert_int_equal(missed, 0);
	assert_true(alarms > 0);
	assert_true(quiet > 0);
}

/*
 * Watches a page again the moment it is known to be written, that is while the fault
 * is still being served: what serves it must not make writable what is watched anew.
 */
static void watching_meets_disarming(void **state)
{
	struct fixture *f = *state;
	struct watched v = {.words = BH_COUNT(v.copy)};
	struct writers w;
	uint64_t end, alarms = 0, missed = 0;

	enable(f);
	start_writers(&w, f->host, 1);
	end = milliseconds() + 500;
	while (milliseconds() < end) {
		bool was_written = false;

		v.since = watch(f, 0, v.words * 8);
		copy_words(v.copy, f->host, v.words);
		for (unsigned i = 0; i < 1000 && !was_written; i++)
			missed += !check_watched(f, &v, &was_written);
		alarms += was_written;
	}
	stop_writers(&w);
	assert_int_equal(missed, 0);
	assert_true(alarms > 0);
}

/* Comes and goes under the hands of writers, who must not be killed, nor sleep for ever. */
static void regions_go_while_others_write(void **state)
{
	struct fixture *f = *state;
	struct writers w;
	uint64_t end;

	enable(f);
	start_writers(&w, f->host, PAGES);
	end = milliseconds() + 300;
	for (unsigned i = 0; milliseconds() < end; i++) {
		watch(f, 0, PAGES * page);
		if (i % 2)
			sched_yield();
		assert_int_equal(bh_memory_remove(&f->m, BASE, PAGES * page, NULL), 0);
		assert_int_equal(bh_memory_add(&f->m, BASE, PAGES * page, f->host, OURS), 0);
	}
	bh_memory_finish(&f->m);
	stop_writers(&w);
	assert_true(w.writes > 0);
}

static void shared_memory(void **state)
{
	struct fixture *f = *state;
	uint8_t *shared = map_shared(4);
	uint64_t since;

	assert_int_equal(bh_memory_add(&f->m, BASE + PAGES * page, 4 * page, shared, OURS), 0);
	put(shared + page, 7);
	enable(f);
	/* Across the two kinds. */
	since = watch(f, (PAGES - 1) * page, 5 * page);
	assert_false(written(f, (PAGES - 1) * page, 5 * page, since));
	put(shared + 3 * page, 1); /* never touched */
	assert_false(written(f, (PAGES - 1) * page, 4 * page, since));
	assert_true(written(f, (PAGES + 3) * page, 1, since));
	put(shared + page, 8);
	assert_true(written(f, (PAGES + 1) * page, 1, since));
	since = watch(f, (PAGES + 1) * page, 1);
	put(shared + page, 9);
	assert_true(written(f, (PAGES + 1) * page, 1, since));
	assert_int_equal(shared[page], 9);
	bh_memory_finish(&f->m);
	munmap(shared, 4 * page);
}

/* Memory that nobody touched before the watch: private, and not in huge pages either. */
static void pages_never_touched(void **state)
{
	struct fixture *f = *state;
	uint8_t *many = map_private(4096);
	uint64_t base = UINT64_C(1) << 32, since;

	enable(f);
	assert_int_equal(bh_memory_add(&f->m, base, 4096 * page, many, OURS), 0);
	since = bh_memory_watch(&f->m, base, 4096 * page);
	assert_true(since > 0);
	for (unsigned i = 0; i < 4096; i += 3) {
		assert_false(bh_memory_written(&f->m, base + i * page, page, since));
		put(many + i * page + i % page, 1);
		assert_true(bh_memory_written(&f->m, base + i * page, page, since));
	}
	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(bh_memory_written(&f->m, base + i * page, page, since), i % 3 == 0);
	bh_memory_finish(&f->m);
	munmap(many, 4096 * page);
}

static void refusals(void **state)
{
	struct fixture *f = *state;
	uint8_t *other = map_private(4);
	uint64_t at = BASE + PAGES * page;
	struct bh_memory second;
	unsigned method = 77;

	bh_memory_init(&second);
	assert_int_equal(bh_trace_enable(&f->m, 0, &method), -ENOSYS);

	assert_int_equal(bh_memory_add(&f->m, at, page, other, RW), 0);
	assert_int_equal(bh_trace_enable(&f->m, f->method, &method), -ENOTSUP);
	assert_int_equal(bh_memory_remove(&f->m, at, page, NULL), 0);
	assert_int_equal(bh_memory_add(&f->m, at, page, other + 16, OURS), 0);
	assert_int_equal(bh_trace_enable(&f->m, f->method, &method), -EINVAL);
	assert_int_equal(bh_memory_remove(&f->m, at, page, NULL), 0);
	assert_int_equal(bh_memory_add(&f->m, at, page - 16, other, OURS), 0);
	assert_int_equal(bh_trace_enable(&f->m, f->method, &method), -EINVAL);
	assert_int_equal(bh_memory_remove(&f->m, at, page - 16, NULL), 0);
	/* The same memory at two addresses. */
	assert_int_equal(bh_memory_add(&f->m, at, page, f->host + page, OURS), 0);
	assert_true(bh_trace_enable(&f->m, f->method, &method) < 0);
	assert_int_equal(bh_memory_remove(&f->m, at, page, NULL), 0);

	assert_int_equal(method, 77);
	assert_false(bh_memory_traced(&f->m));
	assert_int_equal(bh_memory_watch(&f->m, BASE, 1), 0);
	assert_true(written(f, 0, 1, 1));
	put(f->host, 1);

	enable(f);
	assert_int_equal(bh_trace_enable(&f->m, f->method, &method), -EALREADY);
	assert_int_equal(bh_memory_add(&f->m, at, page, other, RW), -ENOTSUP);
	assert_int_equal(bh_memory_add(&f->m, at, page, other + 16, OURS), -EINVAL);
	assert_int_equal(bh_memory_add(&f->m, at, page + 16, other, OURS), -EINVAL);
	assert_int_equal(bh_memory_add(&f->m, at, page, f->host + page, OURS), -ENOTSUP);
	assert_int_equal(f->m.count, 1);
	assert_int_equal(bh_memory_add(&f->m, at, page, other, OURS), 0);
	assert_true(watch(f, 0, (PAGES + 1) * page));

	assert_int_equal(bh_memory_add(&second, 0, page, f->host, OURS), 0);
	assert_int_equal(bh_trace_enable(&second, f->method, NULL), -ENOTSUP);
	bh_memory_finish(&second);
	bh_memory_finish(&f->m);
	munmap(other, 4 * page);
}

static void only_what_is_mapped_can_be_watched(void **state)
{
	struct fixture *f = *state;
	uint64_t end = BASE + PAGES * page, since;

	assert_int_equal(bh_memory_add(&f->m, end, page, NULL, RW), 0); /* out of reach: no obstacle */
	enable(f);
	since = watch(f, 0, 1);
	assert_int_equal(bh_memory_watch(&f->m, BASE - 1, 2), 0);
	assert_int_equal(bh_memory_watch(&f->m, end - 1, 2), 0);
	assert_int_equal(bh_memory_watch(&f->m, 0, 1), 0);
	assert_int_equal(bh_memory_watch(&f->m, UINT64_MAX, 2), 0);
	assert_int_equal(bh_memory_watch(&f->m, BASE, SIZE_MAX), 0);
	assert_true(bh_memory_watch(&f->m, BASE, 0) > 0);
	assert_true(bh_memory_watch(&f->m, 0, 0) > 0);
	assert_true(bh_memory_written(&f->m, BASE - 1, 2, since));
	assert_true(bh_memory_written(&f->m, end - 1, 2, since));
	assert_true(bh_memory_written(&f->m, end, 1, since));
	assert_true(bh_memory_written(&f->m, UINT64_MAX, 2, since));
	assert_false(bh_memory_written(&f->m, BASE, 1, since));
	assert_false(bh_memory_written(&f->m, 0, 0, since));
}

static void read_only_regions(void **state)
{
	struct fixture *f = *state;
	uint64_t rom_at = BASE + PAGES * page, for_us_at = rom_at + 4 * page, since;
	uint8_t *rom = map_private(1), *for_us = map_private(1);

	assert_int_equal(mprotect(rom, page, PROT_READ), 0);
	/* Nobody writes here; that it is not aligned does not matter. */
	assert_int_equal(bh_memory_add(&f->m, rom_at, 100, rom + 100, BH_MEMORY_READ), 0);
	/* Only we may not write here. */
	assert_int_equal(bh_memory_add(&f->m, for_us_at, page, for_us, BH_MEMORY_READ | BH_MEMORY_OURS), 0);
	enable(f);
	since = bh_memory_watch(&f->m, rom_at, 100);
	assert_true(since > 0);
	assert_false(bh_memory_written(&f->m, rom_at, 100, since));
	since = bh_memory_watch(&f->m, for_us_at, 1);
	assert_false(bh_memory_written(&f->m, for_us_at, 1, since));
	put(for_us, 1);
	assert_true(bh_memory_written(&f->m, for_us_at, 1, since));
	/* Another one in its place is not the same. */
	assert_int_equal(bh_memory_remove(&f->m, rom_at, 100, NULL), 0);
	assert_true(bh_memory_written(&f->m, rom_at, 100, since));
	assert_int_equal(bh_memory_add(&f->m, rom_at, 100, rom, BH_MEMORY_READ), 0);
	assert_true(bh_memory_written(&f->m, rom_at, 100, since));
	bh_memory_finish(&f->m);
	munmap(rom, page);
	munmap(for_us, page);
}

/* A thread that was joined may still be listed for a moment. */
static void expect_threads(unsigned count)
{
	uint64_t end = milliseconds() + 10000;

	while (entries("/proc/self/task") != count && milliseconds() < end)
		sched_yield();
	assert_int_equal(entries("/proc/self/task"), count);
}

static void end_leaves_nothing_behind(void **state)
{
	struct fixture *f = *state;
	unsigned fds = entries("/proc/self/fd"), threads = entries("/proc/self/task");
	uint8_t *other = map_private(2);
	uint64_t since;

	for (unsigned i = 0; i < 20; i++) {
		struct bh_region region = {0};

		enable(f);
		assert_int_equal(bh_memory_add(&f->m, 0, 2 * page, other, OURS), 0);
		assert_true(bh_memory_watch(&f->m, 0, 2 * page) > 0);
		since = watch(f, 0, PAGES * page);
		assert_int_equal(bh_memory_remove(&f->m, 0, 2 * page, &region), 0);
		assert_ptr_equal(region.host, other);
		assert_null(region.trace);
		memset(other, (int)i, 2 * page);
		assert_false(written(f, 0, PAGES * page, since));
		bh_memory_finish(&f->m);
		assert_false(bh_memory_traced(&f->m));
		memset(f->host, (int)i, PAGES * page);
		assert_int_equal(bh_memory_add(&f->m, BASE, PAGES * page, f->host, OURS), 0);
	}
	assert_int_equal(entries("/proc/self/fd"), fds);
	expect_threads(threads);
	munmap(other, 2 * page);
}

/* A region removed and put back is another one. */
static void stamps_do_not_outlive_a_region(void **state)
{
	struct fixture *f = *state;
	uint64_t since;

	enable(f);
	since = watch(f, 0, 1);
	assert_int_equal(bh_memory_remove(&f->m, BASE, PAGES * page, NULL), 0);
	assert_true(written(f, 0, 1, since));
	put(f->host, 1);
	assert_int_equal(bh_memory_add(&f->m, BASE, PAGES * page, f->host, OURS), 0);
	assert_true(written(f, 0, 1, since));
	since = watch(f, 0, 1);
	assert_false(written(f, 0, 1, since));
}

static void two_memories(void **state)
{
	struct fixture *f = *state;
	uint8_t *host = map_private(2);
	struct bh_memory second;
	uint64_t a, b;

	enable(f);
	bh_memory_init(&second);
	assert_int_equal(bh_memory_add(&second, BASE, 2 * page, host, OURS), 0);
	assert_int_equal(bh_trace_enable(&second, f->method, NULL), 0);
	a = watch(f, 0, 2 * page);
	b = bh_memory_watch(&second, BASE, 2 * page);
	put(f->host, 1);
	assert_true(written(f, 0, page, a));
	assert_false(bh_memory_written(&second, BASE, 2 * page, b));
	put(host + page, 1);
	assert_true(bh_memory_written(&second, BASE + page, 1, b));
	assert_false(written(f, page, page, a));
	bh_memory_finish(&second);
	put(host, 1);
	put(f->host + page, 1);
	assert_true(written(f, page, page, a));
	munmap(host, 2 * page);
}

/* Each of the two at once, over different memory. */
static void both_methods_at_once(void **state)
{
	struct fixture *f = *state;
	uint8_t *host = map_private(2);
	struct bh_memory second;
	uint64_t since;
	int r;

	enable(f);
	bh_memory_init(&second);
	assert_int_equal(bh_memory_add(&second, BASE, 2 * page, host, OURS), 0);
	r = bh_trace_enable(&second, (BH_TRACE_USERFAULTFD | BH_TRACE_MPROTECT) & ~f->method, NULL);
	if (r == 0) {
		since = bh_memory_watch(&second, BASE, 2 * page);
		assert_true(since > 0);
		assert_false(bh_memory_written(&second, BASE, 2 * page, since));
		put(host + page, 1);
		assert_true(bh_memory_written(&second, BASE, 2 * page, since));
		since = watch(f, 0, page);
		put(f->host, 1);
		assert_true(written(f, 0, page, since));
	} else {
		assert_int_equal(r, -ENOSYS);
	}
	bh_memory_finish(&second);
	munmap(host, 2 * page);
}

/* More single pages than the number of mappings would bear: older watches may be given up, not missed. */
static void very_many_single_pages(void **state)
{
	struct fixture *f = *state;
	const size_t pages = 100000;
	uint64_t *since = calloc(pages, sizeof(*since)), base = UINT64_C(1) << 32;
	uint8_t *many = map_private(pages);
	size_t kept = 0;

	enable(f);
	assert_int_equal(bh_memory_add(&f->m, base, pages * page, many, OURS), 0);
	for (size_t i = 0; i < pages; i += 2) {
		since[i] = bh_memory_watch(&f->m, base + i * page, 1);
		assert_true(since[i] > 0);
		assert_false(bh_memory_written(&f->m, base + i * page, 1, since[i]));
	}
	for (size_t i = 0; i < pages; i += 2) {
		kept += !bh_memory_written(&f->m, base + i * page, 1, since[i]);
		put(many + i * page, 1);
		assert_true(bh_memory_written(&f->m, base + i * page, 1, since[i]));
	}
	if (f->method == BH_TRACE_MPROTECT) {
		assert_in_range(kept, 1, 8192);
		assert_int_equal(bh_memory_watch(&f->m, base, 8193 * page), 0);
		assert_true(bh_memory_watch(&f->m, base, 8192 * page) > 0);
	} else {
		assert_int_equal(kept, pages / 2);
		assert_true(bh_memory_watch(&f->m, base, pages * page) > 0);
	}
	bh_memory_finish(&f->m);
	munmap(many, pages * page);
	free(since);
}

/* How a child that runs this ends. */
static int status_of(void (*run)(struct fixture *f), struct fixture *f)
{
	struct bh_memory empty;
	int status = -1;
	pid_t child;

	bh_memory_init(&empty);
	skip_where_missing(f, bh_trace_enable(&empty, f->method, NULL));
	bh_memory_finish(&empty);

	fflush(NULL);
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){0});
		alarm(60);
		run(f);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return status;
}

static void child_enable(struct fixture *f)
{
	if (bh_trace_enable(&f->m, f->method, NULL) < 0 || !bh_memory_watch(&f->m, BASE, page))
		_exit(99);
	put(f->host, 1);
}

static void child_expect(bool ok, int code)
{
	if (!ok)
		_exit(code);
}

static void write_to_foreign_page(struct fixture *f)
{
	uint8_t *foreign = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	signal(SIGSEGV, SIG_DFL);
	child_enable(f);
	put(foreign, 1);
}

/* A region that was removed explains one fault at most. */
static void write_to_foreign_page_after_removal(struct fixture *f)
{
	uint8_t *foreign = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	signal(SIGSEGV, SIG_DFL);
	child_enable(f);
	child_expect(bh_memory_remove(&f->m, BASE, PAGES * page, NULL) == 0, 98);
	put(foreign, 1);
}

static void write_to_unmapped_page(struct fixture *f)
{
	uint8_t *foreign = map_private(1);

	signal(SIGSEGV, SIG_DFL);
	child_enable(f);
	munmap(foreign, page);
	put(foreign, 1);
}

static void jump_into_watched_page(struct fixture *f)
{
	void (*go)(void);
	void *to = f->host;

	signal(SIGSEGV, SIG_DFL);
	child_enable(f);
	memcpy(&go, &to, sizeof(go));
	go();
}

static void be_sent_a_signal(struct fixture *f)
{
	signal(SIGSEGV, SIG_DFL);
	child_enable(f);
	raise(SIGSEGV);
}

static void foreign_faults_kill(void **state)
{
	static void (*const deaths[])(struct fixture *) = {
		write_to_foreign_page, write_to_foreign_page_after_removal, write_to_unmapped_page,
#if defined(__x86_64__)
		jump_into_watched_page,
#endif
		be_sent_a_signal,
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < BH_COUNT(deaths); i++) {
		int status = status_of(deaths[i], f);

		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGSEGV);
	}
}

static void *volatile faulted_at;

static void exit_42(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	_exit(info->si_addr == faulted_at ? 42 : 43);
}

static void fault_under_a_handler(struct fixture *f)
{
	struct sigaction action = {.sa_sigaction = exit_42, .sa_flags = SA_SIGINFO};

	faulted_at = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sigaction(SIGSEGV, &action, NULL);
	child_enable(f);
	put(faulted_at, 1);
}

static void signal_while_ignored(struct fixture *f)
{
	signal(SIGSEGV, SIG_IGN);
	child_enable(f);
	raise(SIGSEGV);
	_exit(44);
}

static void handler_before_ours_is_called(void **state)
{
	struct fixture *f = *state;
	int status = status_of(fault_under_a_handler, f);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
	status = status_of(signal_while_ignored, f);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 44);
}

/* A process with handlers of its own: one from before our first trace, and one from between it and the next. */
static volatile unsigned asked_first, asked_later;
static struct sigaction before_later;
static sigjmp_buf out_of_handler;

static void mend(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	child_expect(info->si_addr == faulted_at && ++asked_first < 10, 45);
	mprotect(faulted_at, page, PROT_READ | PROT_WRITE);
}

static void pass_to_whom_was_before(int number, siginfo_t *info, void *context)
{
	child_expect(++asked_later < 10, 46);
	before_later.sa_sigaction(number, info, context);
}

static void jump_out(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	child_expect(info->si_addr == faulted_at && ++asked_first < 10, 47);
	siglongjmp(out_of_handler, 1);
}

static void pass_on_in_a_circle(struct fixture *f)
{
	struct sigaction first = {.sa_sigaction = mend, .sa_flags = SA_SIGINFO};
	struct sigaction later = {.sa_sigaction = pass_to_whom_was_before, .sa_flags = SA_SIGINFO};
	struct bh_memory other;
	uint8_t *host = map_private(1);

	faulted_at = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sigaction(SIGSEGV, &first, NULL);
	child_enable(f);
	sigaction(SIGSEGV, &later, &before_later);
	bh_memory_init(&other);
	child_expect(bh_memory_add(&other, BASE, page, host, OURS) == 0, 1);
	child_expect(bh_trace_enable(&other, f->method, NULL) == 0, 2);
	for (unsigned n = 1; n <= 3; n++) {
		put(faulted_at, 1);
		child_expect(asked_first == n && asked_later == n, 3);
		mprotect(faulted_at, page, PROT_READ);
	}
	child_expect(bh_memory_watch(&other, BASE, page) > 0, 4);
	put(host, 1); /* and ours are still ours */
	child_expect(asked_later == 3, 5);
	_exit(42);
}

static void jump_out_of_handlers(struct fixture *f)
{
	struct sigaction first = {.sa_sigaction = jump_out, .sa_flags = SA_SIGINFO};

	faulted_at = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	sigaction(SIGSEGV, &first, NULL);
	child_enable(f);
	for (volatile unsigned n = 0; n < 3; n++)
		if (!sigsetjmp(out_of_handler, 1)) {
			put(faulted_at, 1);
			_exit(1);
		}
	_exit(asked_first == 3 ? 42 : 2);
}

static void handlers_around_ours_are_each_asked_once(void **state)
{
	int status = status_of(pass_on_in_a_circle, *state);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
}

/* As emulators and interpreters do: it never comes back to us, and is asked the next time all the same. */
static void handler_may_jump_out(void **state)
{
	int status = status_of(jump_out_of_handlers, *state);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
}

/* Uses up the mappings the process may have; then a page in the middle of a watch cannot be split off. */
#ifndef __SANITIZE_ADDRESS__ /* which needs mappings of its own then, and gives up */
static void run_out_of_mappings(struct fixture *f)
{
	const size_t pages = 200000;
	uint8_t *room = mmap(NULL, pages * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t since;
	size_t i = 1;

	child_expect(room != MAP_FAILED && bh_trace_enable(&f->m, f->method, NULL) == 0, 8);
	since = bh_memory_watch(&f->m, BASE, PAGES * page);
	child_expect(since > 0, 1);
	while (i < pages && mprotect(room + i * page, page, PROT_READ) == 0)
		i += 2;
	if (i >= pages)
		_exit(99);
	put(f->host + 5 * page, 1);
	child_expect(f->host[5 * page] == 1, 2);
	child_expect(bh_memory_written(&f->m, BASE + 5 * page, 1, since), 3);
	child_expect(bh_memory_written(&f->m, BASE, 1, since) == (f->method == BH_TRACE_MPROTECT), 4);
	put(f->host + 7 * page, 1);
	child_expect(bh_memory_written(&f->m, BASE + 7 * page, 1, since), 5);
	/* Says that it cannot, if it cannot. */
	since = bh_memory_watch(&f->m, BASE + 9 * page, 1);
	child_expect((since > 0) == (f->method == BH_TRACE_USERFAULTFD), 6);
	put(f->host + 9 * page, 1);
	child_expect(bh_memory_written(&f->m, BASE + 9 * page, 1, since), 7);
	bh_memory_finish(&f->m);
	put(f->host + 10 * page, 1);
}

static void out_of_mappings(void **state)
{
	int status = status_of(run_out_of_mappings, *state);

	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 99) {
		print_message("# the process may have too many mappings\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}
#endif

static const unsigned userfaultfd = BH_TRACE_USERFAULTFD, mprotecting = BH_TRACE_MPROTECT;

#define BOTH(f) \
	{"userfaultfd_" #f, f, setup, teardown, (void *)(uintptr_t)&userfaultfd}, \
	{"mprotect_" #f, f, setup, teardown, (void *)(uintptr_t)&mprotecting}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(unwritten_stays_so),
		BOTH(first_and_last_byte_are_seen),
		BOTH(other_pages_are_not_affected),
		BOTH(next_write_is_seen_after_next_watch),
		BOTH(older_stamps_remember),
		BOTH(our_own_writes_are_seen),
		BOTH(system_calls_that_write),
		BOTH(no_write_is_missed),
		BOTH(watching_meets_disarming),
		BOTH(regions_go_while_others_write),
		BOTH(shared_memory),
		BOTH(pages_never_touched),
		BOTH(refusals),
		BOTH(only_what_is_mapped_can_be_watched),
		BOTH(read_only_regions),
		BOTH(end_leaves_nothing_behind),
		BOTH(stamps_do_not_outlive_a_region),
		BOTH(two_memories),
		BOTH(both_methods_at_once),
		BOTH(very_many_single_pages),
		BOTH(foreign_faults_kill),
		BOTH(handler_before_ours_is_called),
		BOTH(handlers_around_ours_are_each_asked_once),
		BOTH(handler_may_jump_out),
#ifndef __SANITIZE_ADDRESS__
		BOTH(out_of_mappings),
#endif
	};

	page = (size_t)sysconf(_SC_PAGESIZE);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("trace", tests, NULL, NULL);
}
