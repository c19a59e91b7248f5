/*
 * The requests: a table of what each may look like, and a function for each.
 *
 * Reply sizes are those both QEMU and Cloud Hypervisor's client accept. The latter
 * reads a fixed size without looking at the error flag, so what a guest can cause
 * (an access beyond a region, an unknown range to unmap) is answered at full size:
 * reads give ones, writes vanish.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include <jansson.h>

#include <base/util.h>

#include "internal.h"

struct request {
	const uint8_t *body;
	size_t length;
	uint8_t *reply; /* after the header */
	size_t *ret_length;
};

/* A reply structure; what it answers with. */
static int answer(const struct request *q, const void *what, size_t length)
{
	memcpy(q->reply, what, length);
	*q->ret_length = length;
	return 0;
}

/* We need nothing from it; but a client that cannot write it is not one. */
static bool capabilities_valid(const uint8_t *text, size_t length)
{
	json_t *root;
	const json_t *capabilities;
	bool valid;

	if (!length)
		return true;
	if (text[length - 1])
		return false;
	root = json_loadb((const char *)text, length - 1, JSON_REJECT_DUPLICATES, NULL);
	capabilities = json_object_get(root, "capabilities");
	valid = json_is_object(root) && (!capabilities || json_is_object(capabilities));
	json_decref(root);
	return valid;
}

/*
 * QEMU takes 0.0 and nothing else, and no reply longer than its request. It warns
 * of capabilities it does not know and refuses some it does: these suit everyone.
 */
static int version(struct bh_vfio_user *v, const struct request *q)
{
	static const char format[] = "{\"capabilities\":{\"max_msg_fds\":%u,\"max_data_xfer_size\":%u,\"pgsizes\":4096}}";
	struct vfu_version given;
	int n;

	memcpy(&given, q->body, sizeof(given));
	if (v->agreed || given.major || !capabilities_valid(q->body + sizeof(given), q->length - sizeof(given)))
		return -EINVAL;

	v->agreed = true;
	answer(q, &(struct vfu_version){0, 0}, sizeof(struct vfu_version));
	n = snprintf((char *)q->reply + sizeof(given), MAX_JSON, format, MAX_FDS, MAX_DATA);
	*q->ret_length += (size_t)n + 1;
	return 0;
}

static int dma_map(struct bh_vfio_user *v, const struct request *q)
{
	struct vfu_dma_map map;

	memcpy(&map, q->body, sizeof(map));
	return vfu_dma_map(v, &map, vfu_take_fd(&v->fds));
}

static int dma_unmap(struct bh_vfio_user *v, const struct request *q)
{
	struct vfu_dma_unmap unmap;

	memcpy(&unmap, q->body, sizeof(unmap));
	answer(q, &unmap, sizeof(unmap));
	return vfu_dma_unmap(v, &unmap);
}

static int get_info(struct bh_vfio_user *v, const struct request *q)
{
	struct vfu_device_info info;

	(void)v;
	memcpy(&info, q->body, sizeof(info));
	if (info.argsz < sizeof(info))
		return -EINVAL;
	info = (struct vfu_device_info){
		.argsz = sizeof(info),
		.flags = VFU_DEVICE_RESET | VFU_DEVICE_PCI,
		.regions = VFU_REGIONS,
		.irqs = VFU_IRQS,
	};
	return answer(q, &info, sizeof(info));
}

static uint64_t region_size(const struct bh_vfio_user *v, uint32_t region)
{
	if (region < BH_PCI_BARS)
		return v->function->identity->bars[region].size;
	return region == VFU_REGION_CONFIG ? BH_PCI_CONFIG_SIZE : 0;
}

static int get_region_info(struct bh_vfio_user *v, const struct request *q)
{
	struct vfu_region_info info;

	memcpy(&info, q->body, sizeof(info));
	if (info.argsz < sizeof(info) || info.index >= VFU_REGIONS)
		return -EINVAL;
	info = (struct vfu_region_info){
		.argsz = sizeof(info),
		.index = info.index,
		.size = region_size(v, info.index),
	};
	if (info.size)
		info.flags = VFU_REGION_FLAG_READ | VFU_REGION_FLAG_WRITE;
	return answer(q, &info, sizeof(info));
}

static int get_irq_info(struct bh_vfio_user *v, const struct request *q)
{
	struct vfu_irq_info info;

	memcpy(&info, q->body, sizeof(info));
	if (info.argsz < sizeof(info) || info.index >= VFU_IRQS)
		return -EINVAL;
	info.argsz = sizeof(info);
	info.flags = vfu_irq_flags(info.index);
	info.count = vfu_irq_count(v, info.index);
	return answer(q, &info, sizeof(info));
}

static int set_irqs(struct bh_vfio_user *v, const struct request *q)
{
	struct vfu_irq_set set;

	memcpy(&set, q->body, sizeof(set));
	return vfu_irq_set(v, &set, q->body + sizeof(set), q->length - sizeof(set), &v->fds);
}

static bool inside(const struct bh_vfio_user *v, const struct vfu_region_access *a)
{
	uint64_t size = region_size(v, a->region);

	return a->offset <= size && a->count <= size - a->offset;
}

static int region_read(struct bh_vfio_user *v, const struct request *q)
{
	struct vfu_region_access a;
	uint8_t *data = q->reply + sizeof(a);

	memcpy(&a, q->body, sizeof(a));
	if (a.count > MAX_DATA)
		return -EINVAL;
	v->counters.region_reads++;
	if (!inside(v, &a))
		memset(data, 0xff, a.count);
	else if (a.region == VFU_REGION_CONFIG)
		bh_pci_config_read(v->function, (unsigned)a.offset, data, a.count);
	else if (a.count)
		bh_pci_bar_read(v->function, a.region, (uint32_t)a.offset, data, a.count);
	answer(q, &a, sizeof(a));
	*q->ret_length += a.count;
	return 0;
}

static int region_write(struct bh_vfio_user *v, const struct request *q)
{
	struct vfu_region_access a;
	const uint8_t *data = q->body + sizeof(a);

	memcpy(&a, q->body, sizeof(a));
	if (a.count != q->length - sizeof(a))
		return -EINVAL;
	v->counters.region_writes++;
	if (inside(v, &a)) {
		if (a.region == VFU_REGION_CONFIG)
			bh_pci_config_write(v->function, (unsigned)a.offset, data, a.count);
		else if (a.count)
			bh_pci_bar_write(v->function, a.region, (uint32_t)a.offset, data, a.count);
	}
	return answer(q, &a, sizeof(a));
}

static int reset(struct bh_vfio_user *v, const struct request *q)
{
	(void)q;
	bh_pci_reset(v->function);
	v->irqs[VFU_IRQ_MSI].pending = false;
	return 0;
}

/* What is not here is refused: migration, dirty pages, WRITE_MULTI, region fds, our own DMA_READ and _WRITE. */
static const struct command {
	size_t min, max; /* bytes after the header */
	unsigned fds;    /* at most */
	int (*run)(struct bh_vfio_user *v, const struct request *q);
} commands[] = {
	[VFU_VERSION] = {sizeof(struct vfu_version), sizeof(struct vfu_version) + MAX_JSON, 0, version},
	[VFU_DMA_MAP] = {sizeof(struct vfu_dma_map), sizeof(struct vfu_dma_map), 1, dma_map},
	[VFU_DMA_UNMAP] = {sizeof(struct vfu_dma_unmap), sizeof(struct vfu_dma_unmap), 0, dma_unmap},
	[VFU_GET_INFO] = {sizeof(struct vfu_device_info), sizeof(struct vfu_device_info), 0, get_info},
	[VFU_GET_REGION_INFO] = {sizeof(struct vfu_region_info), sizeof(struct vfu_region_info), 0, get_region_info},
	[VFU_GET_IRQ_INFO] = {sizeof(struct vfu_irq_info), sizeof(struct vfu_irq_info), 0, get_irq_info},
	[VFU_SET_IRQS] = {sizeof(struct vfu_irq_set), sizeof(struct vfu_irq_set) + 1, MAX_FDS, set_irqs},
	[VFU_REGION_READ] = {sizeof(struct vfu_region_access), sizeof(struct vfu_region_access), 0, region_read},
	[VFU_REGION_WRITE] = {sizeof(struct vfu_region_access), sizeof(struct vfu_region_access) + MAX_DATA, 0,
	                      region_write},
	[VFU_RESET] = {0, 0, 0, reset},
};

int vfu_command(struct bh_vfio_user *v, unsigned command, const uint8_t *body, size_t length, uint8_t *reply,
                size_t *ret_length)
{
	const struct request q = {body, length, reply, ret_length};
	const struct command *c;
	int r;

	*ret_length = 0;
	if (command >= BH_COUNT(commands) || !commands[command].run) {
		vfu_log_once(v, KIND_UNKNOWN, LOG_WARNING, "command %u is not supported", command);
		return -EINVAL;
	}
	c = &commands[command];
	r = length < c->min || length > c->max || v->fds.count > c->fds ? -EINVAL : c->run(v, &q);
	if (r < 0)
		vfu_log_once(v, command, LOG_WARNING, "command %u refused: %s", command, strerror(-r));
	return r;
}
