/*
 * What a register read costs: through Bulkhead, and through a process that does
 * nothing but answer (echo.c), over the same kind of socket, with the same client.
 * Both are running at once and asked in turn, so that whatever else the machine
 * does meets both; and both share a core with the client or both have another one,
 * for the way from core to core costs several times what is measured here.
 *
 *	registers BULKHEAD ECHO DIRECTORY
 *
 * Prints medians and their ratio. Exit status 1 if Bulkhead's is more than LIMIT
 * times the other's, 2 if it could not be measured.
 */
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIMIT     1.3
#define TURNS     200u
#define READS     250u /* per turn; the first WARM of them do not count */
#define WARM      10u
#define SAMPLES   (TURNS * (READS - WARM))
#define BAR       4u
#define CONFIG    7u
#define USBCMD    0x00u
#define USBSTS    0x02u
#define FRBASEADD 0x08u

struct message {
	uint16_t id, command;
	uint32_t size, flags, error;
	uint64_t offset;
	uint32_t region, count;
	uint8_t data[64];
};

struct peer {
	const char *name;
	pid_t pid;
	int fd;
	double *samples; /* microseconds */
	size_t count;
};

static struct peer peers[2] = {{.fd = -1}, {.fd = -1}};

static void end_peers(void)
{
	for (unsigned i = 0; i < 2; i++) {
		if (peers[i].fd >= 0)
			close(peers[i].fd);
		if (peers[i].pid > 0) {
			kill(peers[i].pid, SIGTERM);
			waitpid(peers[i].pid, NULL, 0);
		}
	}
}

static void fail(const char *what)
{
	fprintf(stderr, "registers: %s\n", what);
	end_peers();
	exit(2);
}

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static pid_t start(char *const arguments[])
{
	pid_t pid = fork();

	if (pid == 0) {
		if (!freopen("/dev/null", "w", stdout))
			_exit(127);
		execv(arguments[0], arguments);
		perror(arguments[0]);
		_exit(127);
	}
	return pid;
}

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path))
		fail("the directory's name is too long");
	memcpy(address.sun_path, path, strlen(path) + 1);
	for (unsigned i = 0; i < 500; i++) {
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
			return fd;
		usleep(10000);
	}
	fail("the server did not come up");
	return -1;
}

/* Sends what is in m and receives the reply into it. */
static void call(int fd, struct message *m)
{
	ssize_t n;

	if (send(fd, m, m->size, MSG_NOSIGNAL) != (ssize_t)m->size)
		fail("the server does not take a request");
	n = recv(fd, m, sizeof(*m), 0);
	if (n < 16 || (uint32_t)n != m->size || m->error)
		fail("the server does not answer as expected");
}

static void read_register(int fd, uint32_t offset)
{
	struct message m = {.command = 9, .size = 32, .offset = offset, .region = BAR, .count = 2};

	call(fd, &m);
}

static void write_region(int fd, uint32_t region, uint32_t offset, uint32_t count, uint32_t value)
{
	struct message m = {.command = 10, .size = 32 + count, .offset = offset, .region = region, .count = count};

	memcpy(m.data, &value, sizeof(value));
	call(fd, &m);
}

static void agree_on_version(int fd)
{
	static const char json[] = "{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":1048576}}";
	char buffer[512] = {0};
	struct message head = {.command = 1, .size = 20 + sizeof(json)};

	memcpy(buffer, &head, 16);
	memcpy(buffer + 20, json, sizeof(json));
	if (send(fd, buffer, head.size, 0) != (ssize_t)head.size || recv(fd, buffer, sizeof(buffer), 0) < 20)
		fail("no version agreed");
}

static void map_memory(int fd, size_t size)
{
	struct { struct message head; } m = {{.command = 2, .size = 48}};
	const struct { uint32_t argsz, flags; uint64_t offset, iova, size; } map = {32, 3, 0, 0, size};
	int memory = memfd_create("guest", MFD_CLOEXEC);
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {&m, 48};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);
	uint32_t *words;

	if (memory < 0 || ftruncate(memory, (off_t)size) < 0)
		fail("no memory");
	words = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	if (words == MAP_FAILED)
		fail("no memory");
	for (unsigned i = 0; i < 1024; i++)
		words[i] = 1; /* an empty frame */
	munmap(words, size);

	memcpy((uint8_t *)&m + 16, &map, sizeof(map));
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &memory, sizeof(memory));
	if (sendmsg(fd, &message, MSG_NOSIGNAL) != 48 || recv(fd, &m, 48, 0) != 16 || m.head.error)
		fail("memory not mapped");
	close(memory);
}

static void take_turn(struct peer *p)
{
	for (unsigned i = 0; i < READS; i++) {
		double begin = now_us();

		read_register(p->fd, USBSTS);
		if (i >= WARM)
			p->samples[p->count++] = now_us() - begin;
	}
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(struct peer *p)
{
	qsort(p->samples, p->count, sizeof(p->samples[0]), by_value);
	return p->samples[p->count / 2];
}

static double compare(const char *what)
{
	double ours, bare;

	for (unsigned i = 0; i < 2; i++)
		peers[i].count = 0;
	for (unsigned turn = 0; turn < TURNS; turn++)
		for (unsigned i = 0; i < 2; i++)
			take_turn(&peers[i]);
	ours = median(&peers[0]);
	bare = median(&peers[1]);
	printf("%-32s %8.2f us %8.2f us %8.2f us %8.2f us %8.2f\n", what, ours,
	       peers[0].samples[peers[0].count * 99 / 100], bare, peers[1].samples[peers[1].count * 99 / 100],
	       ours / bare);
	fflush(stdout);
	return ours / bare;
}

static void put_on_core(pid_t pid, unsigned core)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(core, &set);
	sched_setaffinity(pid, sizeof(set), &set); /* where it is refused, they run where they run */
}

/* The worse of the two places: on the client's core, and, where there is one, on another. */
static double compare_places(const char *what)
{
	double worst = 0;
	char line[64];

	put_on_core(0, 0);
	for (unsigned core = 0; core < 2 && core < (unsigned)sysconf(_SC_NPROCESSORS_ONLN); core++) {
		double ratio;

		put_on_core(peers[0].pid, core);
		put_on_core(peers[1].pid, core);
		snprintf(line, sizeof(line), "%s, %s", what, core ? "two cores" : "one core");
		ratio = compare(line);
		worst = ratio > worst ? ratio : worst;
	}
	return worst;
}

int main(int argc, char **argv)
{
	char socket_path[2][200];
	double worst, running;

	if (argc != 4) {
		fputs("usage: registers BULKHEAD ECHO DIRECTORY\n", stderr);
		return 2;
	}
	snprintf(socket_path[0], sizeof(socket_path[0]), "%s/bulkhead.sock", argv[3]);
	snprintf(socket_path[1], sizeof(socket_path[1]), "%s/echo.sock", argv[3]);
	peers[0].pid = start((char *[]){argv[1], "serve", "--socket-path", socket_path[0], "--controller", "uhci", NULL});
	peers[1].pid = start((char *[]){argv[2], socket_path[1], NULL});
	for (unsigned i = 0; i < 2; i++) {
		peers[i].fd = connect_to(socket_path[i]);
		peers[i].samples = calloc(SAMPLES, sizeof(double));
		if (!peers[i].samples)
			fail("no memory");
	}
	agree_on_version(peers[0].fd);

	printf("a register read                  bulkhead    its 99 %%        echo    its 99 %%    ratio\n");
	worst = compare_places("controller stopped");
	map_memory(peers[0].fd, 1 << 20);
	write_region(peers[0].fd, CONFIG, 0x04, 2, 5);
	write_region(peers[0].fd, BAR, FRBASEADD, 4, 0);
	write_region(peers[0].fd, BAR, USBCMD, 2, 1);
	running = compare_places("controller running");

	end_peers();
	for (unsigned i = 0; i < 2; i++)
		free(peers[i].samples);
	if (worst <= LIMIT && running <= LIMIT)
		return 0;
	printf("more than %.1f times the bare round trip\n", LIMIT);
	return 1;
}
