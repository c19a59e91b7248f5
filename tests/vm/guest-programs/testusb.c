/*
 * testusb DEVICE TEST[-TEST],... [iterations=N] [length=N] [vary=N] [sglen=N]
 *
 * Has the kernel's usbtest driver, which must be bound to interface 0, run these tests. DEVICE is
 * VENDOR:PRODUCT or a place such as 1-2. One line per test: its number, "passed", "unsupported" or
 * the name of the error, and the seconds it took. Ends with 0 where all of them passed.
 */

#include <linux/usbdevice_fs.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <time.h>

#include "device.h"

/* What the driver takes; tests ignore what they have no use for. */
struct request {
	uint32_t test, iterations, length, vary, sglen;
	int64_t seconds, microseconds;
};

#define RUN_TEST _IOWR('U', 100, struct request)
#define LAST_TEST 29

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static bool run(int fd, const struct request *parameters, unsigned test)
{
	struct request request = *parameters;
	struct usbdevfs_ioctl call = { .ifno = 0, .ioctl_code = (int)RUN_TEST, .data = &request };
	double start = now();

	request.test = test;
	/* A test that succeeded may answer with the length of its last transfer. */
	if (ioctl(fd, USBDEVFS_IOCTL, &call) >= 0) {
		printf("%u passed %.3f\n", test, (double)request.seconds + (double)request.microseconds / 1e6);
		return true;
	}
	printf("%u %s %.3f\n", test, errno == EOPNOTSUPP ? "unsupported" : strerrorname_np(errno), now() - start);
	return false;
}

/* "1,5-8" as a set of tests; ends the program where it is none. */
static uint32_t parse_tests(const char *text)
{
	uint32_t tests = 0;

	for (;;) {
		char *end;
		unsigned long first = strtoul(text, &end, 10), last = first;

		if (*end == '-')
			last = strtoul(end + 1, &end, 10);
		if (end == text || first > last || last > LAST_TEST || (*end && *end != ','))
			break;
		for (unsigned long test = first; test <= last; test++)
			tests |= UINT32_C(1) << test;
		if (!*end)
			return tests;
		text = end + 1;
	}
	fprintf(stderr, "testusb: what tests are \"%s\"?\n", text);
	exit(2);
}

static bool parse_parameter(struct request *request, const char *text)
{
	return sscanf(text, "iterations=%u", &request->iterations) == 1 ||
	       sscanf(text, "length=%u", &request->length) == 1 ||
	       sscanf(text, "vary=%u", &request->vary) == 1 ||
	       sscanf(text, "sglen=%u", &request->sglen) == 1;
}

int main(int argc, char **argv)
{
	struct request parameters = { .iterations = 100, .length = 1024, .vary = 512, .sglen = 32 };
	bool passed = true;

	if (argc < 3) {
		fputs("usage: testusb DEVICE TESTS [iterations=N] [length=N] [vary=N] [sglen=N]\n", stderr);
		return 2;
	}
	for (int i = 3; i < argc; i++) {
		if (!parse_parameter(&parameters, argv[i])) {
			fprintf(stderr, "testusb: what is \"%s\"?\n", argv[i]);
			return 2;
		}
	}
	uint32_t tests = parse_tests(argv[2]);
	int fd = device_open("testusb", argv[1]);

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (unsigned test = 0; test <= LAST_TEST; test++)
		if (tests & UINT32_C(1) << test)
			passed &= run(fd, &parameters, test);
	return passed ? 0 : 1;
}
