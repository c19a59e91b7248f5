/*
 * keys NAME [SECONDS [EVENTS]] - what an input device says, as text
 *
 * Waits for an input device whose name contains NAME, says "ready" and its name, and then one
 * line per event: "key CODE VALUE", "rel CODE VALUE" or "abs CODE VALUE", in numbers as in
 * linux/input-event-codes.h; of a key, VALUE is 1 when it is pressed, 0 when it is let go of and
 * 2 when it repeats. Ends with 0 after so many EVENTS (without end if not given), and with 1
 * after SECONDS (30) all told.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static long long now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

/* A device of that name, open, and its whole name; -1 where there is none now. */
static int find(const char *name, char *ret_name, size_t size)
{
	DIR *directory = opendir("/dev/input");
	struct dirent *entry;
	int fd = -1;

	while (directory && fd < 0 && (entry = readdir(directory))) {
		char path[300];

		if (strncmp(entry->d_name, "event", 5))
			continue;
		snprintf(path, sizeof(path), "/dev/input/%s", entry->d_name);
		fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (ioctl(fd, EVIOCGNAME(size), ret_name) < 0 || !strstr(ret_name, name)) {
			close(fd);
			fd = -1;
		}
	}
	if (directory)
		closedir(directory);
	return fd;
}

/* Prints it if it is one to print. */
static bool print(const struct input_event *event)
{
	const char *kind = event->type == EV_KEY ? "key" : event->type == EV_REL ? "rel"
			 : event->type == EV_ABS ? "abs" : NULL;

	if (kind)
		printf("%s %u %d\n", kind, event->code, event->value);
	return kind;
}

int main(int argc, char **argv)
{
	char name[256] = "";

	if (argc < 2 || argc > 4) {
		fputs("usage: keys NAME [SECONDS [EVENTS]]\n", stderr);
		return 2;
	}
	long long end = now_ms() + 1000LL * (argc > 2 ? atoi(argv[2]) : 30);
	long left = argc > 3 ? atol(argv[3]) : -1;
	int fd;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((fd = find(argv[1], name, sizeof(name))) < 0) {
		if (now_ms() > end) {
			fprintf(stderr, "keys: no input device \"%s\"\n", argv[1]);
			return 1;
		}
		usleep(20000);
	}
	printf("ready %s\n", name);
	while (left) {
		struct pollfd wait = { .fd = fd, .events = POLLIN };
		struct input_event event;
		long long patience = end - now_ms();

		if (patience <= 0 || poll(&wait, 1, (int)patience) == 0) {
			fputs("keys: no more events\n", stderr);
			return 1;
		}
		ssize_t n = read(fd, &event, sizeof(event));

		if (n < 0 && errno != EAGAIN) {
			fprintf(stderr, "keys: %s\n", strerror(errno));
			return 1;
		}
		if (n == sizeof(event) && print(&event) && left > 0)
			left--;
	}
	return 0;
}
