/*
 * SET_IRQS and the eventfds behind the interrupts.
 *
 * INTx is a level; an eventfd knows only edges. So, as in VFIO: a rise while
 * unmasked writes the eventfd and masks; the client unmasks once the guest has
 * looked, and a level that is still high then writes again. Nothing is written
 * while masked.
 *
 * MSI is written at once; masking is the client's business. The guest's write that
 * enables it reaches us before the eventfd does (QEMU), so a message in between is
 * kept.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "internal.h"

uint32_t vfu_irq_count(const struct bh_vfio_user *v, uint32_t index)
{
	switch (index) {
	case VFU_IRQ_INTX:
		return v->function->identity->interrupt_pin ? 1 : 0;
	case VFU_IRQ_MSI:
		return v->function->identity->msi ? 1 : 0;
	case VFU_IRQ_ERR: /* with any other count QEMU warns */
	case VFU_IRQ_REQ:
		return 1;
	default:
		return 0;
	}
}

uint32_t vfu_irq_flags(uint32_t index)
{
	switch (index) {
	case VFU_IRQ_INTX:
		return VFU_IRQ_EVENTFD | VFU_IRQ_MASKABLE | VFU_IRQ_AUTOMASKED;
	case VFU_IRQ_MSI:
		return VFU_IRQ_EVENTFD | VFU_IRQ_NORESIZE;
	default:
		return VFU_IRQ_EVENTFD;
	}
}

/*
 * One whose counter is full needs no more. It is non-blocking, but a client can take
 * that back: so it is asked first. A client that fills it in between, which it can
 * only do on purpose, holds up its own server, until the next signal.
 */
static bool signal_irq(const struct irq *irq)
{
	struct pollfd room = {.fd = irq->fd, .events = POLLOUT};
	uint64_t one = 1;

	return irq->fd >= 0 && poll(&room, 1, 0) == 1 && (room.revents & POLLOUT) && write(irq->fd, &one, sizeof(one)) == (ssize_t)sizeof(one);
}

static void update_intx(struct bh_vfio_user *v)
{
	struct irq *irq = &v->irqs[VFU_IRQ_INTX];

	if (!v->intx_level || irq->masked || irq->fd < 0)
		return;
	irq->masked = true;
	v->counters.intx += signal_irq(irq);
}

void vfu_irq_level(struct bh_vfio_user *v, bool raised)
{
	v->intx_level = raised;
	update_intx(v);
}

void vfu_irq_message(struct bh_vfio_user *v, unsigned vector)
{
	struct irq *irq = &v->irqs[VFU_IRQ_MSI];

	if (vector)
		return;
	if (irq->fd < 0)
		irq->pending = true;
	else
		v->counters.msi += signal_irq(irq);
}

static void release(struct irq *irq)
{
	if (irq->fd >= 0)
		close(irq->fd);
	*irq = (struct irq){.fd = -1};
}

void vfu_irq_release_all(struct bh_vfio_user *v)
{
	for (unsigned i = 0; i < VFU_IRQS; i++)
		release(&v->irqs[i]);
	v->intx_level = false;
}

/*
 * Anything else could make us wait or write where it hurts. Without /proc at
 * least no socket, pipe or file passes: anonymous inodes have no type.
 */
bool vfu_is_eventfd(int fd)
{
	static const char wanted[] = "anon_inode:[eventfd]";
	char path[32], link[sizeof(wanted)];
	struct stat st;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, link, sizeof(link));
	if (n >= 0)
		return n == (ssize_t)sizeof(wanted) - 1 && !memcmp(link, wanted, sizeof(wanted) - 1);
	return fstat(fd, &st) == 0 && !(st.st_mode & S_IFMT);
}

/* O_NONBLOCK belongs to the client's description as well; both clients set it themselves. */
static int assign(struct bh_vfio_user *v, uint32_t index, struct fds *fds)
{
	struct irq *irq = &v->irqs[index];
	bool pending = irq->pending;
	int flags;

	flags = fcntl(fds->fd[0], F_GETFL);
	if (flags < 0 || !vfu_is_eventfd(fds->fd[0]) || fcntl(fds->fd[0], F_SETFL, flags | O_NONBLOCK) < 0) {
		vfu_log_once(v, KIND_EVENTFD, LOG_WARNING, "interrupt %u: not an eventfd", index);
		return -EINVAL;
	}
	release(irq);
	irq->fd = vfu_take_fd(fds);
	if (index == VFU_IRQ_INTX)
		update_intx(v);
	else if (index == VFU_IRQ_MSI && pending)
		vfu_irq_message(v, 0);
	return 0;
}

static int mask(struct bh_vfio_user *v, const struct vfu_irq_set *set, bool masked)
{
	if (set->index != VFU_IRQ_INTX)
		return -EINVAL;
	v->irqs[VFU_IRQ_INTX].masked = masked;
	update_intx(v);
	return 0;
}

/* One vector, chosen by NONE or by a true BOOL. */
static int act(struct bh_vfio_user *v, const struct vfu_irq_set *set)
{
	switch (set->flags & VFU_IRQ_ACTION_MASK) {
	case VFU_IRQ_MASK:
		return mask(v, set, true);
	case VFU_IRQ_UNMASK:
		return mask(v, set, false);
	default: /* VFU_IRQ_TRIGGER: the client tests its own wiring */
		signal_irq(&v->irqs[set->index]);
		return 0;
	}
}

/* Unmasking by an eventfd (KVM's resample) is refused: QEMU then does it by message. */
static int set_eventfds(struct bh_vfio_user *v, const struct vfu_irq_set *set, struct fds *fds)
{
	if ((set->flags & VFU_IRQ_ACTION_MASK) != VFU_IRQ_TRIGGER)
		return -EINVAL;
	if (!fds->count) {
		release(&v->irqs[set->index]);
		return 0;
	}
	return fds->count == set->count ? assign(v, set->index, fds) : -EINVAL;
}

int vfu_irq_set(struct bh_vfio_user *v, const struct vfu_irq_set *set, const uint8_t *data, size_t length,
                struct fds *fds)
{
	uint32_t kind = set->flags & VFU_IRQ_DATA_MASK;

	if (set->argsz < sizeof(*set) || set->index >= VFU_IRQS)
		return -EINVAL;
	if (set->flags & ~(VFU_IRQ_DATA_MASK | VFU_IRQ_ACTION_MASK) ||
	    __builtin_popcount(set->flags & VFU_IRQ_ACTION_MASK) != 1)
		return -EINVAL;
	if (length != (kind == VFU_IRQ_DATA_BOOL ? set->count : 0))
		return -EINVAL;
	if (fds->count && kind != VFU_IRQ_DATA_EVENTFD)
		return -EINVAL;

	if (set->flags == (VFU_IRQ_DATA_NONE | VFU_IRQ_TRIGGER) && !set->start && !set->count) {
		release(&v->irqs[set->index]);
		return 0;
	}
	/* There is never more than one vector: what is in range is vector 0 alone. */
	if (set->start || set->count != 1 || !vfu_irq_count(v, set->index))
		return -EINVAL;

	switch (kind) {
	case VFU_IRQ_DATA_NONE:
		return act(v, set);
	case VFU_IRQ_DATA_BOOL:
		return data[0] ? act(v, set) : 0;
	case VFU_IRQ_DATA_EVENTFD:
		return set_eventfds(v, set, fds);
	default:
		return -EINVAL;
	}
}
