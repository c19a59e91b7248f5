/*
 * A vfio-user server for one PCI function: the client's socket and the messages
 * on it (QEMU docs/interop/vfio-user.rst, protocol 0.0). It implements struct
 * bh_guest for the controller, with the client's memory and eventfds behind it.
 * So the patent's virtual machine ([0043]) may run in another process.
 *
 * It has no event loop, thread, clock or listening socket. The server accepts,
 * watches bh_vfio_user_fd() and calls in. No call blocks or waits for the client
 * (but for one race a client can only lose on purpose: see signal_irq() in irq.c);
 * all calls come from one thread, and none from inside a host operation.
 *
 *	listen, accept -> attach(fd)
 *	                  watch fd: readable, or, while wants_write(), writable only
 *	fd readable    -> readable()
 *	fd writable    -> writable()
 *	controller ran -> check()
 *	shutting down  -> detach()
 *
 * However a client ends (it left, it broke the protocol, its memory vanished, or
 * detach()), the same happens before the call returns: host->closing() is called,
 * the function is reset, every mapping of guest memory and every eventfd is let
 * go, the socket is closed. The next client may attach at once.
 */
#ifndef VFIO_USER_VFIO_USER_H
#define VFIO_USER_VFIO_USER_H

#include <guest/guest.h>
#include <guest/pci.h>

/* A client that leaves a reply unread for this long is dropped by check(). */
#define BH_VFIO_USER_STALL_US 5000000u

struct bh_vfio_user;

/* What it needs from the server. All mandatory; none blocks, none calls back in. */
struct bh_vfio_user_host_ops {
	/* Microseconds of a clock that never goes back. */
	uint64_t (*now_us)(void *context);
	/* The controller wants to run at this time: see struct bh_guest_ops. */
	void (*run_at)(void *context, uint64_t at_us);
	/* One line without newline. level is one of <syslog.h>. Already limited in rate. */
	void (*log)(void *context, int level, const char *text);
	/* The client is being let go and fd is closed next: stop watching it. */
	void (*closing)(void *context, int fd);
};

/* Since creation. */
struct bh_vfio_user_counters {
	uint64_t clients, messages, errors, region_reads, region_writes;
	uint64_t intx, msi; /* eventfds written */
	uint64_t dropped;   /* clients that did not leave by themselves */
};

/* ops and context must outlive it. 0, -ENOMEM. */
int bh_vfio_user_create(const struct bh_vfio_user_host_ops *ops, void *context, struct bh_vfio_user **ret);

/* Detaches first. NULL is fine. The function must still be there if a client is. */
void bh_vfio_user_destroy(struct bh_vfio_user *v);

/* The guest the controller is to be created with; lives as long as v. */
struct bh_guest *bh_vfio_user_guest(struct bh_vfio_user *v);

/* What it exposes. Before the first attach(); once. */
void bh_vfio_user_serve(struct bh_vfio_user *v, struct bh_pci *function);

/*
 * A new client. Takes ownership of fd, a connected AF_UNIX stream socket, which
 * it makes non-blocking and close-on-exec. -EBUSY: there is a client already, and
 * fd stays the caller's, as with any other error.
 */
int bh_vfio_user_attach(struct bh_vfio_user *v, int fd);

/* Closes the socket of a client that cannot be served, without waiting for what it sent. */
void bh_vfio_user_refuse(int fd);

/* The client's socket; -1: no client. */
int bh_vfio_user_fd(const struct bh_vfio_user *v);

/* Has the client agreed on a version? Until then nobody can say that it is one. */
bool bh_vfio_user_agreed(const struct bh_vfio_user *v);

/*
 * A reply waits for room in the socket. Until it is gone, call writable(), not
 * readable(): no request is read meanwhile, so nothing piles up. Call check() once
 * more after BH_VFIO_USER_STALL_US. May change in readable() and writable() only.
 */
bool bh_vfio_user_wants_write(const struct bh_vfio_user *v);

/*
 * Handles at most one message from the socket (watch level-triggered: the rest
 * shows up again), which for a register access is one read and one write.
 * 0: the client is still there. Negative: it has been let go: -ECONNRESET, it left;
 * -EPROTO, it broke the protocol; -EFAULT, its memory vanished. Without a client: 0.
 */
int bh_vfio_user_readable(struct bh_vfio_user *v);

/* Sends what waits. Returns as readable() does. */
int bh_vfio_user_writable(struct bh_vfio_user *v);

/*
 * Lets the client go if its memory vanished under us (a file that was truncated:
 * SIGBUS) or it does not read (-ETIMEDOUT). Cheap; to be called after the
 * controller has run. Returns as readable() does.
 */
int bh_vfio_user_check(struct bh_vfio_user *v);

/* Lets the client go, if there is one. NULL is fine. */
void bh_vfio_user_detach(struct bh_vfio_user *v);

/* Lives as long as v. */
const struct bh_vfio_user_counters *bh_vfio_user_counters(const struct bh_vfio_user *v);

#endif
