/*
 * A hostile NBD server: what it says is the input. Over a Unix socket, for libnbd connects by
 * itself. Whatever comes, every request ends, in time and once, no data comes from nowhere, and
 * what is told of a flush is not made up.
 *
 * The input: a byte that chooses how far the greeting is a decent one, a byte for what is asked of
 * the disk, the rest as it is sent.
 */
#include <errno.h>
#include <pthread.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include "../src/function/block.h"
#include "must.h"

#define TIMEOUT_MS 8u
#define REQUESTS 4u
#define SIZE (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

/* Of the hook that guest_memory needs; here nobody looks at guest memory. */
void hostile_guest_acts(void)
{
}

static char path[64], uri[128];
static int listener;

static struct {
	pthread_mutex_t lock;
	const uint8_t *bytes; /* of the input */
	size_t size;
	int how;
} server = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Old style (the protocol's "oldstyle negotiation"): one greeting, and the server knows what it exports. */
static size_t greet(uint8_t *to, int how)
{
	static const uint8_t magic[16] = {'N', 'B', 'D', 'M', 'A', 'G', 'I', 'C', 0, 0, 0x42, 0x02, 0x81, 0x86, 0x12, 0x53};
	uint64_t length = how & 1 ? SIZE : SIZE + 1;
	uint16_t flags = (uint16_t)(how >> 1 & 0x0f); /* flags of the transmission: flush, FUA, read-only */

	memset(to, 0, 152);
	memcpy(to, magic, sizeof(magic));
	for (unsigned i = 0; i < 8; i++)
		to[16 + i] = (uint8_t)(length >> 8 * (7 - i));
	to[26] = (uint8_t)(flags >> 8);
	to[27] = (uint8_t)flags | 1;
	return 152;
}

static void serve_one(int fd)
{
	uint8_t head[152], sink[4096];
	struct pollfd p = {.fd = fd, .events = POLLIN};
	size_t n = 0;

	pthread_mutex_lock(&server.lock);
	if (server.how & 0x80)
		n = greet(head, server.how);
	(void)!send(fd, head, n, MSG_NOSIGNAL);
	if (n && poll(&p, 1, 3) == 1) /* the first request: answers before it are another case (how & 0x40) */
		(void)!recv(fd, sink, server.how & 0x40 ? 0 : sizeof(sink), MSG_DONTWAIT);
	(void)!send(fd, server.bytes, server.size, MSG_NOSIGNAL);
	pthread_mutex_unlock(&server.lock);
	if (!(server.how & 0x20))
		shutdown(fd, SHUT_WR);
	for (unsigned i = 0; i < 64 && poll(&p, 1, 2 * TIMEOUT_MS) == 1 && recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0; i++)
		;
	close(fd);
}

static void *serve(void *data)
{
	(void)data;
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd >= 0)
			serve_one(fd);
	}
	return NULL;
}

static void begin(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	pthread_t thread;

	snprintf(path, sizeof(path), "/tmp/bulkhead-fuzz-nbd-%d", (int)getpid());
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", path);
	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	unlink(path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(listener >= 0 && !bind(listener, (struct sockaddr *)&a, sizeof(a)) && !listen(listener, 16), "no socket");
	must(!pthread_create(&thread, NULL, serve, NULL), "no thread");
}

static struct request {
	struct bh_block_request block;
	uint8_t data[4096];
	unsigned ended;
} requests[REQUESTS];
static unsigned under_way;

static void ended(struct bh_block_request *r)
{
	struct request *q = (struct request *)((char *)r - offsetof(struct request, block));

	must(!q->ended++, "a request ends once");
	must(r->error <= 0 && r->moved <= r->length, "an outcome makes sense");
	must(r->error || r->op == BH_BLOCK_FLUSH || r->moved == r->length, "success is of all of it");
	under_way--;
}

static void ask(struct bh_block *block, uint8_t what)
{
	for (unsigned i = 0; i < REQUESTS; i++) {
		struct request *q = &requests[i];

		*q = (struct request){.block = {.op = (what >> 2 * i & 3) % 3, .data = q->data, .length = sizeof(q->data),
		                                .offset = 4096u * i, .done = ended}};
		if (q->block.op == BH_BLOCK_WRITE && block->readonly)
			q->block.op = BH_BLOCK_READ;
		if (q->block.op == BH_BLOCK_FLUSH)
			q->block.length = 0;
		q->block.fua = i & 1;
		under_way++;
		bh_block_submit(block, &q->block);
	}
}

static void too_late(uv_timer_t *t)
{
	(void)t;
	must(false, "a request takes as long as it may, and no longer");
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
	static bool begun;
	struct bh_block *block;
	uv_timer_t guard;
	char error[512];
	uv_loop_t loop;

	if (size < 2)
		return 0;
	if (!begun)
		begin();
	begun = true;
	pthread_mutex_lock(&server.lock);
	server.how = input[0];
	server.bytes = input + 2;
	server.size = size - 2;
	pthread_mutex_unlock(&server.lock);
	uv_loop_init(&loop);
	if (!bh_block_nbd_open(&loop, uri, false, TIMEOUT_MS, NULL, NULL, &block, error, sizeof(error))) {
		uv_timer_init(&loop, &guard);
		uv_timer_start(&guard, too_late, 4000, 0);
		if (block->size >= REQUESTS * 4096u)
			ask(block, input[1]);
		while (under_way)
			uv_run(&loop, UV_RUN_ONCE);
		uv_close((uv_handle_t *)&guard, NULL);
		bh_block_destroy(block);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	must(!uv_loop_close(&loop), "nothing is left in the loop");
	pthread_mutex_lock(&server.lock); /* the input is in use until here */
	server.size = 0;
	pthread_mutex_unlock(&server.lock);
	return 0;
}
