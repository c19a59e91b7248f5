/*
 * The server: an event loop around one controller, its devices and the client.
 *
 * The loop's order matters for latency: a client's request is answered first, then
 * (before_poll) the controller does what has become due, then the loop sleeps until
 * the client, the disk pool or the controller's timer wakes it. The timer is a
 * timerfd, since libuv's own are too coarse for frames of a millisecond.
 */
#include "serve.h"

#include <errno.h>
#include <jansson.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include <base/util.h>
#include <uhci/uhci.h>
#include <vfio_user/vfio_user.h>

#include "devices.h"
#include "channel.h"
#include "commands.h"
#include "listener.h"
#include "options.h"
#include "plugs.h"
#include "say.h"
#include "statistics.h"

#define NEVER UINT64_MAX

/* A client that has not agreed on a version for so long makes way for another. */
#define SILENT_US 3000000u

struct server {
	/* configuration */
	const struct bh_serve_config *config;

	/* what it is made of */
	uv_loop_t loop;
	struct bh_listener listener;
	struct bh_vfio_user *vfio_user;
	struct bh_uhci *uhci;
	struct bh_plugs plugs;
	struct bh_commands commands;
	struct bh_channel channel;
	uv_signal_t term, interrupt, usr1;
	uv_prepare_t before_poll;
	uv_idle_t keep_going; /* active: the loop does not sleep */
	uv_poll_t listening, timer;
	uv_timer_t stalled, refusing;
	uv_poll_t *client; /* on the heap: it outlives the client by a loop */

	/* state */
	int timer_fd;
	uint64_t run_at;   /* when the controller wants to run */
	uint64_t timer_at; /* what timer_fd was set to; NEVER: disarmed */
	bool timer_fired;
	int client_events;
	uint64_t client_since;
	bool turned_away; /* somebody, and it was said */
	bool loop_started, listens, began, stop_wanted, stopping;
	int status; /* to exit with */
};

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static json_t *statistics(void *context)
{
	struct server *s = context;

	return bh_statistics(s->uhci, s->vfio_user, bh_plugs_statistics(&s->plugs));
}

static void write_statistics(struct server *s)
{
	int r;

	if (!s->config->statistics)
		return;
	r = bh_statistics_write(s->config->statistics, statistics(s));
	if (r)
		bh_say("cannot write statistics to '%s': %s", s->config->statistics, strerror(-r));
}

/* --- the controller's time -------------------------------------------------------------- */

static void set_timer(struct server *s)
{
	struct itimerspec at = {0};

	if (s->timer_at == s->run_at && !s->timer_fired)
		return;
	if (s->run_at != NEVER) {
		at.it_value.tv_sec = (time_t)(s->run_at / 1000000);
		at.it_value.tv_nsec = (long)(s->run_at % 1000000 * 1000);
	}
	/* Setting it also takes back the readiness of one that fired: no read is needed. */
	timerfd_settime(s->timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
	s->timer_at = s->run_at;
	s->timer_fired = false;
}

static void timer_fired(uv_poll_t *p, int status, int events)
{
	struct server *s = p->data;

	(void)status;
	(void)events;
	s->timer_fired = true; /* before_poll() runs what is due */
}

static void nothing(uv_idle_t *i)
{
	(void)i;
}

static void stop(struct server *s);

static void before_poll(uv_prepare_t *p)
{
	struct server *s = p->data;

	if (s->run_at != NEVER && s->run_at <= now_us()) {
		s->run_at = NEVER;
		bh_uhci_run(s->uhci);
		bh_vfio_user_check(s->vfio_user);
	}
	if (s->stop_wanted) {
		stop(s);
		return;
	}
	if (s->run_at == 0) {
		uv_idle_start(&s->keep_going, nothing); /* more at once, after a look at the others */
		return;
	}
	uv_idle_stop(&s->keep_going);
	set_timer(s);
}

/* --- the client --------------------------------------------------------------------------- */

static uint64_t host_now_us(void *context)
{
	(void)context;
	return now_us();
}

static void host_run_at(void *context, uint64_t at_us)
{
	((struct server *)context)->run_at = at_us;
}

static void host_log(void *context, int level, const char *text)
{
	(void)context;
	if (level <= LOG_INFO)
		bh_say("%s", text);
}

static void free_handle(uv_handle_t *h)
{
	free(h);
}

static void host_closing(void *context, int fd)
{
	struct server *s = context;

	(void)fd;
	uv_timer_stop(&s->stalled);
	if (!s->client)
		return;
	uv_poll_stop(s->client);
	uv_close((uv_handle_t *)s->client, free_handle);
	s->client = NULL;
	s->stop_wanted = s->listener.connected; /* there will be no other client */
}

static const struct bh_vfio_user_host_ops host_ops = {
	.now_us = host_now_us,
	.run_at = host_run_at,
	.log = host_log,
	.closing = host_closing,
};

static void client_ready(uv_poll_t *p, int status, int events);

static void client_stalled(uv_timer_t *t)
{
	bh_vfio_user_check(((struct server *)t->data)->vfio_user);
}

/* Watches for what the client may do next: send, or take a reply that waits. */
static void watch_client(struct server *s)
{
	int events;

	if (!s->client)
		return;
	events = bh_vfio_user_wants_write(s->vfio_user) ? UV_WRITABLE : UV_READABLE;
	if (events == s->client_events)
		return;
	s->client_events = events;
	uv_poll_start(s->client, events, client_ready);
	if (events == UV_WRITABLE)
		uv_timer_start(&s->stalled, client_stalled, BH_VFIO_USER_STALL_US / 1000 + 1, 0);
	else
		uv_timer_stop(&s->stalled);
}

static void client_ready(uv_poll_t *p, int status, int events)
{
	struct server *s = p->data;

	if (status < 0)
		s->client_events = 0; /* libuv has stopped watching; the read tells what it is */
	if (bh_vfio_user_wants_write(s->vfio_user))
		bh_vfio_user_writable(s->vfio_user);
	else
		bh_vfio_user_readable(s->vfio_user);
	(void)events;
	watch_client(s);
}

static int attach_client(struct server *s, int fd)
{
	uv_poll_t *p = calloc(1, sizeof(*p));
	int r = p ? bh_vfio_user_attach(s->vfio_user, fd) : -ENOMEM;

	if (r) {
		free(p);
		return r;
	}
	uv_poll_init(&s->loop, p, fd);
	p->data = s;
	s->client = p;
	s->client_events = 0;
	s->client_since = now_us();
	s->turned_away = false;
	bh_bus_power_on(bh_uhci_bus(s->uhci));
	watch_client(s);
	return 0;
}

static bool hung_up(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLRDHUP};

	return fd >= 0 && poll(&p, 1, 0) == 1;
}

/*
 * The last client may have left a moment ago, and only the newcomer been noticed so
 * far; and one that does not say what it wants has no claim to the place.
 */
static bool makes_way(const struct server *s)
{
	if (hung_up(bh_vfio_user_fd(s->vfio_user)))
		return true;
	return s->client && !bh_vfio_user_agreed(s->vfio_user) && now_us() - s->client_since > SILENT_US;
}

static void client_connects(uv_poll_t *p, int status, int events);

static void listen_again(uv_timer_t *t)
{
	struct server *s = t->data;

	uv_poll_start(&s->listening, UV_READABLE, client_connects);
}

/* Out of descriptors, say: the connection stays in the queue, and would be reported for ever. */
static void refuse_for_a_while(struct server *s, const char *why)
{
	bh_say("cannot accept a client: %s", why);
	uv_poll_stop(&s->listening);
	uv_timer_start(&s->refusing, listen_again, 1000, 0);
}

static void client_connects(uv_poll_t *p, int status, int events)
{
	struct server *s = p->data;
	int fd, r;

	(void)status;
	(void)events;
	fd = accept4(s->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			refuse_for_a_while(s, strerror(errno));
		return;
	}
	if (makes_way(s))
		bh_vfio_user_detach(s->vfio_user);
	r = attach_client(s, fd);
	if (r) {
		if (!s->turned_away)
			bh_say("a client was turned away: %s", r == -EBUSY ? "there is one already" : strerror(-r));
		s->turned_away = true; /* said once for each client that is there */
		bh_vfio_user_refuse(fd);
	}
}

/* --- beginning ------------------------------------------------------------------------------ */

static void device_shows(void *context, const char *place, const char *kind, bool there)
{
	struct server *s = context;

	bh_channel_event(&s->channel, there ? "device-arrived" : "device-departed",
	                 json_pack("{s:s, s:s}", "port", place, "kind", kind));
}

static void device_gone(void *context, const char *place, const char *kind)
{
	struct server *s = context;

	bh_say("the %s in port %s is gone", kind, place);
	bh_channel_event(&s->channel, "device-removed", json_pack("{s:s, s:s}", "port", place, "kind", kind));
}

static void device_failed(void *context, const char *place, const char *kind, int error)
{
	struct server *s = context;

	bh_say("a %s (port %s) could not be flushed: %s; what was written last may be lost", kind, place, strerror(-error));
	bh_channel_event(&s->channel, "device-failed",
	                 json_pack("{s:s, s:s, s:s}", "port", place, "kind", kind, "desc", strerror(-error)));
	s->status = 1;
}

static const struct bh_plugs_ops plugs_ops = {
	.shows = device_shows,
	.gone = device_gone,
	.failed = device_failed,
};

static int make_controller(struct server *s, char *error)
{
	const struct bh_serve_config *c = s->config;
	struct bh_uhci_config uhci;
	int r = bh_controller_parse(c->controller, &uhci, error);

	if (r)
		return r;
	r = bh_vfio_user_create(&host_ops, s, &s->vfio_user);
	if (!r && !(s->uhci = bh_uhci_create(bh_vfio_user_guest(s->vfio_user), &uhci)))
		r = -ENOMEM;
	if (r) {
		snprintf(error, BH_ERROR_SIZE, "out of memory");
		return r;
	}
	bh_vfio_user_serve(s->vfio_user, bh_uhci_pci(s->uhci));
	bh_plugs_init(&s->plugs, &s->loop, bh_uhci_bus(s->uhci), c->statistics, &plugs_ops, s);
	return bh_plugs_begin(&s->plugs, c->devices, c->device_count, error);
}

/* Where the statistics go: to a file of their own, in a directory where one can be made. */
static int check_statistics(const struct server *s, char *error)
{
	const char *path = s->config->statistics;
	struct stat file;
	char *copy;
	int r;

	if (!path)
		return 0;
	if (!stat(path, &file) && !S_ISREG(file.st_mode)) {
		snprintf(error, BH_ERROR_SIZE, "--statistics '%s' is there and no plain file: choose another", path);
		return -EINVAL;
	}
	copy = strdup(path);
	r = copy && !access(dirname(copy), W_OK | X_OK) ? 0 : -errno;
	free(copy);
	if (r)
		snprintf(error, BH_ERROR_SIZE, "--statistics '%s': %s; choose a directory you may write to", path, strerror(-r));
	return r;
}

static void on_stop_signal(uv_signal_t *h, int number)
{
	(void)number;
	stop(h->data);
}

static void on_usr1(uv_signal_t *h, int number)
{
	(void)number;
	write_statistics(h->data);
}

static void start_signal(struct server *s, uv_signal_t *h, uv_signal_cb callback, int number)
{
	struct sigaction action;

	uv_signal_init(&s->loop, h);
	h->data = s;
	uv_signal_start(h, callback, number);
	/* libuv asks for calls to be restarted. Whatever we may be made to wait in is to end by a signal. */
	sigaction(number, NULL, &action);
	action.sa_flags &= ~SA_RESTART;
	sigaction(number, &action, NULL);
}

static int start_loop(struct server *s, char *error)
{
	s->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (s->timer_fd < 0) {
		snprintf(error, BH_ERROR_SIZE, "no timer to be had: %s", strerror(errno));
		return -errno;
	}
	signal(SIGPIPE, SIG_IGN);
	s->loop_started = true;
	start_signal(s, &s->term, on_stop_signal, SIGTERM);
	start_signal(s, &s->interrupt, on_stop_signal, SIGINT);
	start_signal(s, &s->usr1, on_usr1, SIGUSR1);
	uv_idle_init(&s->loop, &s->keep_going);
	uv_prepare_init(&s->loop, &s->before_poll);
	s->before_poll.data = s;
	uv_prepare_start(&s->before_poll, before_poll);
	uv_poll_init(&s->loop, &s->timer, s->timer_fd);
	s->timer.data = s;
	uv_poll_start(&s->timer, UV_READABLE, timer_fired);
	uv_timer_init(&s->loop, &s->stalled);
	s->stalled.data = s;
	uv_timer_init(&s->loop, &s->refusing);
	s->refusing.data = s;
	return 0;
}

static void control_line(void *context, struct bh_session *session, const char *text, size_t length)
{
	struct server *s = context;

	bh_commands_run(&s->commands, session, text, length);
}

static int open_control(struct server *s, char *error)
{
	const char *path = s->config->control, *other = s->config->socket_path;

	if (!path)
		return 0;
	if (other && !strcmp(path, other)) {
		snprintf(error, BH_ERROR_SIZE, "--control '%s' is the --socket-path: choose another", path);
		return -EINVAL;
	}
	s->commands = (struct bh_commands){.plugs = &s->plugs, .statistics = statistics, .context = s};
	return bh_channel_open(&s->channel, &s->loop, path, control_line, s, error);
}

/* Last of all: whoever sees the socket may connect to it, and may send us a signal. */
static int open_socket(struct server *s, char *error)
{
	const char *path = s->config->socket_path;
	int r = path ? bh_listener_open(&s->listener, path, 0777, error) : bh_listener_adopt(&s->listener, s->config->fd, error);

	if (r)
		return r;
	if (s->listener.connected) {
		r = attach_client(s, s->listener.fd);
		if (r)
			snprintf(error, BH_ERROR_SIZE, "cannot serve file descriptor %d: %s", s->listener.fd, strerror(-r));
		else
			s->listener.fd = -1; /* the client's now */
		return r;
	}
	uv_poll_init(&s->loop, &s->listening, s->listener.fd);
	s->listening.data = s;
	uv_poll_start(&s->listening, UV_READABLE, client_connects);
	s->listens = true;
	return 0;
}

/* In single quotes, as a shell reads them. */
static void print_quoted(const char *text)
{
	bool plain = text[strspn(text, "/.-_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ:,=@+")] == 0;

	if (plain) {
		fputs(text, stdout);
		return;
	}
	putchar('\'');
	for (; *text; text++)
		fputs(*text == '\'' ? "'\\''" : (char[]){*text, 0}, stdout);
	putchar('\'');
}

/* The lines to paste. */
static void announce(const struct server *s)
{
	const char *path = s->config->socket_path;
	char *json, *option = NULL;
	json_t *device;

	bh_plugs_announce(&s->plugs, stdout);
	if (s->config->control)
		printf("bulkhead: control channel at %s\n", s->config->control);
	if (!path) {
		printf("bulkhead: serving on file descriptor %d\n", s->config->fd);
		fflush(stdout);
		return;
	}
	device = json_pack("{s:s, s:{s:s, s:s}}", "driver", "vfio-user-pci", "socket", "type", "unix", "path", path);
	json = json_dumps(device, JSON_COMPACT | JSON_PRESERVE_ORDER);
	json_decref(device);
	printf("bulkhead: waiting at %s\n\n"
	       "QEMU (10.1 or later):\n"
	       "  -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem -m 1G \\\n"
	       "  -device ",
	       path);
	print_quoted(json ? json : "");
	printf("\n\nCloud Hypervisor:\n  --memory size=1G,shared=on --user-device ");
	if (asprintf(&option, "socket=%s", path) > 0)
		print_quoted(option);
	printf("\n\n");
	fflush(stdout);
	free(option);
	free(json);
}

/* --- ending ------------------------------------------------------------------------------------ */

static void close_handle(void *handle)
{
	uv_close(handle, NULL);
}

/*
 * Lets go of the client, the devices and the socket. The loop then runs out by
 * itself, when the last disk has been flushed. Works on what is only half built.
 */
static void stop(struct server *s)
{
	if (s->stopping)
		return;
	s->stopping = true;
	bh_channel_close(&s->channel);
	bh_vfio_user_detach(s->vfio_user);
	if (s->began)
		write_statistics(s);
	if (s->uhci)
		bh_plugs_clear(&s->plugs);
	if (!s->loop_started)
		return;
	close_handle(&s->term);
	close_handle(&s->interrupt);
	close_handle(&s->usr1);
	close_handle(&s->before_poll);
	close_handle(&s->keep_going);
	close_handle(&s->timer);
	close_handle(&s->stalled);
	close_handle(&s->refusing);
	if (s->listens)
		close_handle(&s->listening);
}

static int begin(struct server *s)
{
	char error[BH_ERROR_SIZE] = "";

	if (make_controller(s, error) || check_statistics(s, error) || start_loop(s, error) || open_control(s, error) ||
	    open_socket(s, error)) {
		bh_say("%s", error);
		return 2;
	}
	s->began = true;
	announce(s);
	return 0;
}

int bh_serve(const struct bh_serve_config *config)
{
	struct server s = {.config = config, .timer_fd = -1, .run_at = NEVER, .timer_at = NEVER, .listener.fd = -1};

	uv_loop_init(&s.loop);
	s.status = begin(&s);
	if (s.status)
		stop(&s);
	uv_run(&s.loop, UV_RUN_DEFAULT);
	bh_uhci_destroy(s.uhci);
	bh_vfio_user_destroy(s.vfio_user);
	bh_listener_close(&s.listener);
	if (s.timer_fd >= 0)
		close(s.timer_fd);
	uv_loop_close(&s.loop);
	return s.status;
}
