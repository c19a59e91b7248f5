/*
 * The least a vfio-user server could do for a register read: wait for the header,
 * read the body, send a reply of the right size. Blocking, no event loop, no
 * device. What registers.c compares Bulkhead with.
 *
 *	echo PATH
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct header {
	uint16_t id, command;
	uint32_t size, flags, error;
};

static int accept_at(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path))
		return -1;
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (bind(listening, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listening, 1) < 0)
		return -1;
	return accept(listening, NULL, NULL);
}

/* One request. False: the client left. */
static int serve(int fd)
{
	static struct {
		struct header header;
		uint8_t body[256];
	} m;
	char control[CMSG_SPACE(16 * sizeof(int))];
	struct iovec iov = {&m.header, sizeof(m.header)};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control),
	};
	uint32_t count, body;

	if (recvmsg(fd, &message, 0) != (ssize_t)sizeof(m.header))
		return 0;
	body = m.header.size - (uint32_t)sizeof(m.header);
	if (body > sizeof(m.body) || recv(fd, m.body, body, 0) != (ssize_t)body)
		return 0;
	memcpy(&count, m.body + 12, sizeof(count));
	m.header.size += count;
	m.header.flags = 1;
	return send(fd, &m, m.header.size, MSG_NOSIGNAL) == (ssize_t)m.header.size;
}

int main(int argc, char **argv)
{
	int fd = argc == 2 ? accept_at(argv[1]) : -1;

	if (fd < 0) {
		fputs("usage: echo PATH\n", stderr);
		return 2;
	}
	while (serve(fd))
		;
	return 0;
}
