/*
 * Looking up, connecting, resting: see net/connector.h.
 *
 *   RESTING --timer or try--> LOOKING --addresses--> CONNECTING --> CONNECTED
 *      ^-------------- none, or none that answers -------'              |
 *      '------------------------- try_later ----------------------------'
 */
#include <net/connector.h>

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

#include <base/util.h>

/* Between two attempts; doubled when one fails. */
#define RETRY_MS     100u
#define RETRY_MAX_MS 3200u

/* After so long an address that has not answered is given up. */
#define CONNECT_MS 3000u

/* A look-up under way; it outlives a connector that is destroyed. */
struct lookup {
	uv_getaddrinfo_t request;
	struct bh_connector *connector; /* NULL: nobody waits for it */
};

struct bh_connector {
	/* configuration */
	uv_loop_t *loop;
	const struct bh_connector_ops *ops;
	void *data;
	struct bh_address address;

	/* state */
	uv_timer_t *timer; /* running: it rests, or an attempt has only so long; on the heap */
	struct lookup *lookup;
	struct addrinfo *addresses, *next; /* what was found, and what is to be tried */
	uv_poll_t *connecting;
	int fd; /* the attempt; -1: none */
	unsigned retry_ms;
	bool trying; /* from the end of a rest until it is connected, or rests again */
};

static void free_handle(uv_handle_t *h)
{
	free(h);
}

static void forget_addresses(struct bh_connector *c)
{
	if (c->addresses)
		freeaddrinfo(c->addresses);
	c->addresses = c->next = NULL;
}

static void stop_connecting(struct bh_connector *c)
{
	if (c->connecting)
		uv_close((uv_handle_t *)c->connecting, free_handle);
	c->connecting = NULL;
}

static void hang_up(struct bh_connector *c)
{
	stop_connecting(c);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

static void look_up(struct bh_connector *c);

static void rested(uv_timer_t *timer)
{
	look_up(timer->data);
}

static void rest(struct bh_connector *c, unsigned ms)
{
	c->trying = false;
	uv_timer_start(c->timer, rested, ms, 0);
}

/* Nothing that was found answers, or nothing was found. */
static void give_up(struct bh_connector *c, int error)
{
	forget_addresses(c);
	rest(c, c->retry_ms);
	c->retry_ms = BH_MIN(2 * c->retry_ms, RETRY_MAX_MS);
	if (c->ops->failed)
		c->ops->failed(c->data, error);
}

/* A port that nobody listens on, and that the kernel then chooses for us, is connected to itself. */
static bool to_itself(int fd)
{
	struct sockaddr_storage here = {0}, there = {0};
	socklen_t here_size = sizeof(here), there_size = sizeof(there);

	return getsockname(fd, (struct sockaddr *)&here, &here_size) == 0 && here.ss_family != AF_UNIX &&
	       getpeername(fd, (struct sockaddr *)&there, &there_size) == 0 && here_size == there_size &&
	       memcmp(&here, &there, here_size) == 0;
}

static void try_next(struct bh_connector *c, int error);

/* The attempt in c->fd has ended. */
static void attempted(struct bh_connector *c, int error)
{
	int fd = c->fd;

	uv_timer_stop(c->timer);
	if (!error && to_itself(fd))
		error = -ECONNREFUSED;
	if (error) {
		hang_up(c);
		try_next(c, error);
		return;
	}
	c->fd = -1;
	c->retry_ms = RETRY_MS;
	c->trying = false;
	forget_addresses(c);
	c->ops->connected(c->data, fd);
}

static void connect_ready(uv_poll_t *p, int status, int events)
{
	struct bh_connector *c = p->data;
	int err = 0;
	socklen_t size = sizeof(err);

	(void)status, (void)events;
	stop_connecting(c);
	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &size) < 0)
		err = errno;
	attempted(c, -err);
}

static void took_too_long(uv_timer_t *timer)
{
	attempted(timer->data, -ETIMEDOUT);
}

/* 0: connected; -EINPROGRESS: attempted() comes; else it failed. */
static int attempt(struct bh_connector *c, const struct sockaddr *a, socklen_t size)
{
	int r;

	c->fd = socket(a->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return -errno;
	if (connect(c->fd, a, size) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return -errno;
	c->connecting = malloc(sizeof(*c->connecting));
	if (!c->connecting)
		return -ENOMEM;
	r = uv_poll_init(c->loop, c->connecting, c->fd);
	if (r < 0) {
		free(c->connecting);
		c->connecting = NULL;
		return r;
	}
	c->connecting->data = c;
	uv_poll_start(c->connecting, UV_WRITABLE, connect_ready);
	uv_timer_start(c->timer, took_too_long, CONNECT_MS, 0);
	return -EINPROGRESS;
}

/* error: why the one before it failed. */
static void try_next(struct bh_connector *c, int error)
{
	struct addrinfo *a = c->next;
	int r;

	if (!a) {
		give_up(c, error);
		return;
	}
	c->next = a->ai_next;
	r = attempt(c, a->ai_addr, a->ai_addrlen);
	if (r != -EINPROGRESS)
		attempted(c, r);
}

static void looked_up(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
	struct lookup *l = bh_container_of(request, struct lookup, request);
	struct bh_connector *c = l->connector;

	free(l);
	if (!c) {
		uv_freeaddrinfo(found);
		return;
	}
	c->lookup = NULL;
	c->addresses = c->next = status < 0 ? NULL : found;
	try_next(c, -EHOSTUNREACH);
}

static void connect_to_path(struct bh_connector *c)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int r;

	strncpy(a.sun_path, c->address.path, sizeof(a.sun_path) - 1);
	r = attempt(c, (struct sockaddr *)&a, sizeof(a));
	if (r != -EINPROGRESS)
		attempted(c, r);
}

static void look_up(struct bh_connector *c)
{
	static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};

	c->trying = true;
	if (c->address.path) {
		connect_to_path(c);
		return;
	}
	c->lookup = calloc(1, sizeof(*c->lookup));
	if (c->lookup) {
		c->lookup->connector = c;
		if (uv_getaddrinfo(c->loop, &c->lookup->request, looked_up, c->address.host, c->address.port, &hints) == 0)
			return;
		free(c->lookup);
		c->lookup = NULL;
	}
	give_up(c, -ENOMEM);
}

static char *copy(const char *text)
{
	return text ? strdup(text) : NULL;
}

int bh_connector_create(uv_loop_t *loop, const struct bh_address *address, const struct bh_connector_ops *ops,
                        void *data, struct bh_connector **ret)
{
	struct bh_connector *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->loop = loop;
	c->ops = ops;
	c->data = data;
	c->fd = -1;
	c->retry_ms = RETRY_MS;
	c->address = (struct bh_address){copy(address->host), copy(address->port), copy(address->path)};
	c->timer = malloc(sizeof(*c->timer));
	if (!c->timer || (!c->address.path && (!c->address.host || !c->address.port))) {
		free(c->timer);
		bh_address_free(&c->address);
		free(c);
		return -ENOMEM;
	}
	uv_timer_init(loop, c->timer);
	c->timer->data = c;
	*ret = c;
	return 0;
}

void bh_connector_try(struct bh_connector *c)
{
	if (!c->trying)
		rest(c, 0); /* from the loop, so that the owner is never called in here */
}

void bh_connector_try_later(struct bh_connector *c)
{
	if (!c->trying)
		rest(c, c->retry_ms);
}

void bh_connector_destroy(struct bh_connector *c)
{
	if (!c)
		return;
	hang_up(c);
	uv_close((uv_handle_t *)c->timer, free_handle);
	if (c->lookup) {
		c->lookup->connector = NULL;
		uv_cancel((uv_req_t *)&c->lookup->request);
	}
	forget_addresses(c);
	bh_address_free(&c->address);
	free(c);
}
