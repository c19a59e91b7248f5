/* What the files of this folder share. */
#ifndef VFIO_USER_INTERNAL_H
#define VFIO_USER_INTERNAL_H

#include <stdalign.h>
#include <stdatomic.h>

#include <vfio_user/vfio_user.h>

#include "protocol.h"

/* Advertised as max_data_xfer_size: no region of ours is larger. It bounds both buffers. */
#define MAX_DATA    65536u
#define MAX_MESSAGE (sizeof(struct vfu_header) + sizeof(struct vfu_region_access) + MAX_DATA)
#define MAX_JSON    4096u
#define MAX_FDS     16u /* in one message; advertised */

/* All the memory a client may have mapped here. */
#define MAX_MAPPED (UINT64_C(16) << 40)

struct fds {
	int fd[MAX_FDS];
	unsigned count;
};

struct mapping {
	uint64_t base, size; /* as the client named it */
	void *start;         /* what we mapped; wider than size on huge pages */
	size_t length;
	struct guard *guard;
};

/* Every interrupt index has one vector, or none. */
struct irq {
	int fd;       /* -1: not assigned */
	bool masked;  /* INTx: fired and not yet unmasked, or masked by the client */
	bool pending; /* MSI: sent before there was an eventfd */
};

/* Kinds of messages logged once per client: a command that was refused, or one of these. */
enum log_kind { KIND_MEMORY = 20, KIND_EVENTFD, KIND_UNKNOWN };

struct bh_vfio_user {
	struct bh_guest guest;

	/* configuration */
	const struct bh_vfio_user_host_ops *host;
	void *context;
	struct bh_pci *function;

	/* the client */
	int fd; /* -1: none */
	bool agreed; /* on a version */
	uint32_t logged; /* kinds, a bit each */
	atomic_bool poisoned; /* set by the SIGBUS handler */
	struct irq irqs[VFU_IRQS];
	bool intx_level;
	struct mapping *mappings; /* unsorted; guest.memory is the sorted one */
	size_t mapping_count;
	uint64_t mapped;

	/* the message being received, at most MAX_MESSAGE; then perhaps the start of the next */
	size_t received;
	struct fds fds;
	struct fds fds_ahead; /* of a later message, when so many have been handled: */
	unsigned ahead;

	/* the reply being sent */
	size_t reply_size, reply_sent;
	uint64_t reply_since_us;

	/* log limiter: survives clients, so that reconnecting gains nothing */
	unsigned log_tokens, log_suppressed;
	uint64_t log_filled_us;

	struct bh_vfio_user_counters counters;

	alignas(8) uint8_t in[MAX_MESSAGE];
	alignas(8) uint8_t out[MAX_MESSAGE];
};

/* session.c. Logs once per client and kind. */
void vfu_log_once(struct bh_vfio_user *v, unsigned kind, int level, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
void vfu_close_fds(struct fds *f);
int vfu_take_fd(struct fds *f); /* the first, now the caller's; -1: none */

/*
 * commands.c. Carries out one request. Body and reply are 8-byte aligned, the reply
 * has room for MAX_MESSAGE - sizeof(struct vfu_header). 0 or the negative errno to
 * answer with; ret_length is what follows the reply's header either way.
 */
int vfu_command(struct bh_vfio_user *v, unsigned command, const uint8_t *body, size_t length, uint8_t *reply,
                size_t *ret_length);

/* dma.c. Map takes fd, -1 for memory out of reach, in every case. */
int vfu_dma_map(struct bh_vfio_user *v, const struct vfu_dma_map *map, int fd);
int vfu_dma_unmap(struct bh_vfio_user *v, const struct vfu_dma_unmap *unmap);
void vfu_dma_unmap_all(struct bh_vfio_user *v);

/* discard.c. Is this a file of memory? Close a descriptor that may be anything, without waiting. */
bool vfu_is_memory(int fd);
void vfu_discard(int fd);

/* irq.c. data: the bytes that follow. */
bool vfu_is_eventfd(int fd);
uint32_t vfu_irq_count(const struct bh_vfio_user *v, uint32_t index);
uint32_t vfu_irq_flags(uint32_t index);
int vfu_irq_set(struct bh_vfio_user *v, const struct vfu_irq_set *set, const uint8_t *data, size_t length,
                struct fds *fds);
void vfu_irq_level(struct bh_vfio_user *v, bool raised);
void vfu_irq_message(struct bh_vfio_user *v, unsigned vector);
void vfu_irq_release_all(struct bh_vfio_user *v);

/*
 * guard.c. A guard catches SIGBUS in [start, start + length): it puts zeroes where
 * the file's page (of page bytes) was and sets *hit. Process-wide, usable from any
 * thread. NULL: no memory.
 */
int vfu_guard_install(void);
struct guard *vfu_guard_add(void *start, size_t length, size_t page, atomic_bool *hit);
void vfu_guard_remove(struct guard *g);

#endif
