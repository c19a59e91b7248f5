/*
 * One client after the other: framing, replies, and letting go.
 *
 * A register access costs two system calls: the first read asks for as many bytes
 * as the frequent messages have (REGION_READ and _WRITE, SET_IRQS), header and body;
 * only longer ones take a second. A client that does not wait for its replies may
 * thus have the beginning of the next message read, which is kept. File descriptors
 * stay with their message: the kernel ends a read after the data they were sent
 * with, so they belong to the last message that the read touched, which may be a
 * later one than the first in the buffer.
 */
#include <vfio_user/vfio_user.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include <base/util.h>

#include "internal.h"

#define FIRST_READ (sizeof(struct vfu_header) + sizeof(struct vfu_irq_set))

#define LOG_BURST     20u
#define LOG_REFILL_US 1000000u /* one line a second in the long run */

/* Log. */

static bool log_allowed(struct bh_vfio_user *v)
{
	uint64_t now = v->host->now_us(v->context);
	uint64_t refill = (now - v->log_filled_us) / LOG_REFILL_US;

	if (refill) {
		v->log_tokens = (unsigned)BH_MIN(LOG_BURST, v->log_tokens + refill);
		v->log_filled_us = now;
	}
	if (!v->log_tokens) {
		v->log_suppressed++;
		return false;
	}
	v->log_tokens--;
	return true;
}

static void log_line(struct bh_vfio_user *v, int level, const char *text)
{
	char line[256];

	if (!log_allowed(v))
		return;
	if (v->log_suppressed) {
		snprintf(line, sizeof(line), "%s (%u lines suppressed before this one)", text, v->log_suppressed);
		text = line;
		v->log_suppressed = 0;
	}
	v->host->log(v->context, level, text);
}

void vfu_log_once(struct bh_vfio_user *v, unsigned kind, int level, const char *format, ...)
{
	char line[200];
	va_list arguments;

	if (v->logged & 1u << kind)
		return;
	v->logged |= 1u << kind;
	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	log_line(v, level, line);
}

/* File descriptors. */

void vfu_close_fds(struct fds *f)
{
	for (unsigned i = 0; i < f->count; i++)
		vfu_discard(f->fd[i]);
	f->count = 0;
}

int vfu_take_fd(struct fds *f)
{
	int fd;

	if (!f->count)
		return -1;
	fd = f->fd[0];
	f->count--;
	memmove(f->fd, f->fd + 1, f->count * sizeof(f->fd[0]));
	return fd;
}

/* Puts every descriptor of every control message into to, or closes it and says no. */
static bool collect_fds(struct msghdr *m, struct fds *to)
{
	bool fits = !(m->msg_flags & MSG_CTRUNC);

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (to->count < MAX_FDS)
				to->fd[to->count++] = fd;
			else
				fits = false, vfu_discard(fd);
		}
	}
	return fits;
}

/* Letting go. */

/* Returns why. text NULL: the client left by itself. */
static int let_go(struct bh_vfio_user *v, int why, const char *text)
{
	v->counters.dropped += text != NULL;
	if (text)
		log_line(v, LOG_WARNING, text);
	v->host->closing(v->context, v->fd);
	bh_pci_reset(v->function); /* first: after it, nothing uses the memory */
	vfu_irq_release_all(v);
	vfu_dma_unmap_all(v);
	vfu_close_fds(&v->fds);
	vfu_close_fds(&v->fds_ahead);
	bh_vfio_user_refuse(v->fd);
	v->fd = -1;
	v->poisoned = false;
	return why;
}

static int left(struct bh_vfio_user *v)
{
	return let_go(v, -ECONNRESET, NULL);
}

static int broke_protocol(struct bh_vfio_user *v, const char *text)
{
	return let_go(v, -EPROTO, text);
}

/* Receiving. */

static size_t message_size(const struct bh_vfio_user *v)
{
	struct vfu_header h;

	memcpy(&h, v->in, sizeof(h));
	return h.size;
}

static bool message_complete(const struct bh_vfio_user *v)
{
	return v->received >= sizeof(struct vfu_header) && v->received >= message_size(v);
}

/* Complete messages in the buffer that are followed by at least a byte of another. */
static unsigned messages_before_last(const struct bh_vfio_user *v)
{
	struct vfu_header h;
	unsigned count = 0;

	for (size_t at = 0; v->received - at >= sizeof(h); count++) {
		memcpy(&h, v->in + at, sizeof(h));
		if (h.size < sizeof(h) || h.size >= v->received - at)
			break;
		at += h.size;
	}
	return count;
}

/* The header is not complete yet. Returns bytes read, 0 at the end, negative errno. */
static ssize_t receive_first(struct bh_vfio_user *v)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
	} control;
	struct iovec iov = {v->in + v->received, FIRST_READ - v->received};
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control),
	};
	struct fds arrived = {.count = 0}, *to;
	ssize_t n;
	bool fits;

	n = recvmsg(v->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		return -errno;
	v->received += (size_t)n;
	if (!m.msg_controllen && !(m.msg_flags & MSG_CTRUNC))
		return n;

	fits = collect_fds(&m, &arrived);
	v->ahead = messages_before_last(v);
	to = v->ahead ? &v->fds_ahead : &v->fds;
	for (unsigned i = 0; i < arrived.count; i++)
		if (to->count < MAX_FDS)
			to->fd[to->count++] = arrived.fd[i];
		else
			fits = false, vfu_discard(arrived.fd[i]);
	return fits ? n : -EPROTO;
}

/* The rest of the body. Descriptors sent with it have no meaning; left to the kernel, closing them could wait. */
static ssize_t receive_rest(struct bh_vfio_user *v)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
	} control;
	struct iovec iov = {v->in + v->received, message_size(v) - v->received};
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control),
	};
	struct fds arrived = {.count = 0};
	ssize_t n = recvmsg(v->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	bool fits;

	if (n < 0)
		return -errno;
	v->received += (size_t)n;
	fits = (!m.msg_controllen && !(m.msg_flags & MSG_CTRUNC)) || collect_fds(&m, &arrived);
	vfu_close_fds(&arrived);
	return fits ? n : -EPROTO;
}

static bool size_valid(const struct bh_vfio_user *v)
{
	return message_size(v) >= sizeof(struct vfu_header) && message_size(v) <= MAX_MESSAGE;
}

/* After a read: 0 to go on with what came, negative: the client is gone. */
static int received(struct bh_vfio_user *v, ssize_t n)
{
	if (n == 0)
		return left(v);
	if (n == -EPROTO)
		return broke_protocol(v, "client dropped: too many file descriptors");
	if (n < 0)
		return n == -EAGAIN || n == -EINTR ? 0 : left(v);
	if (v->received >= sizeof(struct vfu_header) && !size_valid(v))
		return broke_protocol(v, "client dropped: impossible message size");
	return 0;
}

static int receive(struct bh_vfio_user *v)
{
	size_t wanted = FIRST_READ - v->received;
	ssize_t n;
	int r;

	if (v->received < sizeof(struct vfu_header)) {
		n = receive_first(v);
		r = received(v, n);
		/* Fewer than asked for: there is no more yet, and no call needed to learn it. */
		if (r < 0 || n < (ssize_t)wanted)
			return r;
	}
	if (message_complete(v))
		return 0;
	return received(v, receive_rest(v));
}

/* Sending. */

static int send_reply(struct bh_vfio_user *v)
{
	ssize_t n = send(v->fd, v->out + v->reply_sent, v->reply_size - v->reply_sent, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		return left(v);
	v->reply_sent += n > 0 ? (size_t)n : 0;
	if (v->reply_sent == v->reply_size)
		v->reply_size = v->reply_sent = 0;
	return 0;
}

static int reply(struct bh_vfio_user *v, const struct vfu_header *request, int result, size_t length)
{
	struct vfu_header h = {
		.id = request->id,
		.command = request->command,
		.size = (uint32_t)(sizeof(h) + length),
		.flags = VFU_TYPE_REPLY | (result < 0 ? VFU_ERROR : 0),
		.error = (uint32_t)-result,
	};
	int r;

	memcpy(v->out, &h, sizeof(h));
	v->reply_size = h.size;
	v->reply_sent = 0;
	r = send_reply(v);
	if (!r && v->reply_size)
		v->reply_since_us = v->host->now_us(v->context);
	return r;
}

/* The complete message at the start of the buffer. */
static int handle(struct bh_vfio_user *v)
{
	struct vfu_header h;
	size_t length = 0;
	int result, r = 0;

	memcpy(&h, v->in, sizeof(h));
	v->counters.messages++;
	if ((h.flags & VFU_TYPE_MASK) != VFU_TYPE_REQUEST)
		return broke_protocol(v, "client dropped: not a request");
	if (!v->agreed && h.command != VFU_VERSION)
		return broke_protocol(v, "client dropped: no version agreed");

	result = vfu_command(v, h.command, v->in + sizeof(h), h.size - sizeof(h), v->out + sizeof(h), &length);
	v->counters.errors += result < 0;
	vfu_close_fds(&v->fds);
	if (v->ahead && --v->ahead == 0) {
		v->fds = v->fds_ahead;
		v->fds_ahead.count = 0;
	}
	v->received -= h.size;
	if (v->received)
		memmove(v->in, v->in + h.size, v->received);

	if (!(h.flags & VFU_NO_REPLY))
		r = reply(v, &h, result, length);
	if (!r && !v->agreed)
		return broke_protocol(v, "client dropped: no version in common");
	if (!r && v->received >= sizeof(h) && !size_valid(v))
		return broke_protocol(v, "client dropped: impossible message size");
	return r;
}

/* More than one only where a short one was read together with the next: the socket will not tell of that. */
static int handle_complete(struct bh_vfio_user *v)
{
	int r = 0;

	while (!r && !v->reply_size && message_complete(v))
		r = handle(v);
	if (r < 0)
		return r;
	return bh_vfio_user_check(v);
}

int bh_vfio_user_readable(struct bh_vfio_user *v)
{
	int r;

	if (v->fd < 0 || v->reply_size)
		return 0;
	r = receive(v);
	return r < 0 ? r : handle_complete(v);
}

int bh_vfio_user_writable(struct bh_vfio_user *v)
{
	int r;

	if (v->fd < 0 || !v->reply_size)
		return 0;
	r = send_reply(v);
	return r < 0 ? r : handle_complete(v);
}

int bh_vfio_user_check(struct bh_vfio_user *v)
{
	if (v->fd < 0)
		return 0;
	if (v->poisoned)
		return let_go(v, -EFAULT, "client dropped: its memory vanished while it was mapped");
	if (v->reply_size && v->host->now_us(v->context) - v->reply_since_us >= BH_VFIO_USER_STALL_US)
		return let_go(v, -ETIMEDOUT, "client dropped: it does not read its replies");
	return 0;
}

/* The guest's side: struct bh_guest_ops. */

static struct bh_vfio_user *from_guest(struct bh_guest *g)
{
	return bh_container_of(g, struct bh_vfio_user, guest);
}

static void guest_interrupt_level(struct bh_guest *g, bool raised)
{
	vfu_irq_level(from_guest(g), raised);
}

static void guest_interrupt_message(struct bh_guest *g, unsigned vector)
{
	vfu_irq_message(from_guest(g), vector);
}

static uint64_t guest_now_us(struct bh_guest *g)
{
	return from_guest(g)->host->now_us(from_guest(g)->context);
}

static void guest_run_at(struct bh_guest *g, uint64_t at_us)
{
	from_guest(g)->host->run_at(from_guest(g)->context, at_us);
}

static const struct bh_guest_ops guest_ops = {
	.interrupt_level = guest_interrupt_level,
	.interrupt_message = guest_interrupt_message,
	.now_us = guest_now_us,
	.run_at = guest_run_at,
};

/* Life. */

int bh_vfio_user_create(const struct bh_vfio_user_host_ops *ops, void *context, struct bh_vfio_user **ret)
{
	struct bh_vfio_user *v;
	int r;

	r = vfu_guard_install();
	if (r < 0)
		return r;
	v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	v->mappings = calloc(BH_MEMORY_MAX_REGIONS, sizeof(v->mappings[0]));
	if (!v->mappings) {
		free(v);
		return -ENOMEM;
	}
	v->guest.ops = &guest_ops;
	bh_memory_init(&v->guest.memory);
	v->host = ops;
	v->context = context;
	v->fd = -1;
	for (unsigned i = 0; i < VFU_IRQS; i++)
		v->irqs[i].fd = -1;
	v->log_tokens = LOG_BURST;
	v->log_filled_us = ops->now_us(context);
	*ret = v;
	return 0;
}

void bh_vfio_user_destroy(struct bh_vfio_user *v)
{
	if (!v)
		return;
	bh_vfio_user_detach(v);
	bh_memory_finish(&v->guest.memory);
	free(v->mappings);
	free(v);
}

struct bh_guest *bh_vfio_user_guest(struct bh_vfio_user *v)
{
	return &v->guest;
}

void bh_vfio_user_serve(struct bh_vfio_user *v, struct bh_pci *function)
{
	assert(!v->function);
	v->function = function;
}

int bh_vfio_user_attach(struct bh_vfio_user *v, int fd)
{
	int flags;

	assert(v->function);
	if (v->fd >= 0)
		return -EBUSY;
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return -errno;
	v->fd = fd;
	v->agreed = false;
	v->logged = 0;
	v->received = 0;
	v->ahead = 0;
	v->reply_size = v->reply_sent = 0;
	v->counters.clients++;
	return 0;
}

void bh_vfio_user_refuse(int fd)
{
	shutdown(fd, SHUT_RDWR); /* this the client sees at once; what it had queued may hold anything */
	vfu_discard(fd);
}

int bh_vfio_user_fd(const struct bh_vfio_user *v)
{
	return v->fd;
}

bool bh_vfio_user_agreed(const struct bh_vfio_user *v)
{
	return v->fd >= 0 && v->agreed;
}

bool bh_vfio_user_wants_write(const struct bh_vfio_user *v)
{
	return v->fd >= 0 && v->reply_size;
}

void bh_vfio_user_detach(struct bh_vfio_user *v)
{
	if (v && v->fd >= 0)
		let_go(v, 0, NULL);
}

const struct bh_vfio_user_counters *bh_vfio_user_counters(const struct bh_vfio_user *v)
{
	return &v->counters;
}
