/*
 * DMA_MAP and DMA_UNMAP: the client's memory, mapped here. Untrusted: the file, its
 * size, every number. What is accepted is guarded against SIGBUS (guard.c).
 */
#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <syslog.h>
#include <unistd.h>

#include "internal.h"

#define PAGE UINT64_C(4096) /* advertised as pgsizes */

static_assert(VFU_DMA_READABLE == BH_MEMORY_READ && VFU_DMA_WRITABLE == BH_MEMORY_WRITE, "same flags");

/*
 * Only memory: a file on FUSE could make us wait at every access, one on a disk
 * nearly so. ret_page is the size of its pages.
 */
static int check_file(int fd, uint64_t offset, uint64_t size, uint64_t *ret_page)
{
	struct statfs fs;
	struct stat st;

	if (!vfu_is_memory(fd))
		return -EINVAL; /* not even asked anything: a file on FUSE could take its time to answer */
	if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || (fs.f_type != TMPFS_MAGIC && fs.f_type != HUGETLBFS_MAGIC))
		return -EINVAL;
	if (st.st_size < 0 || offset > (uint64_t)st.st_size || size > (uint64_t)st.st_size - offset)
		return -EINVAL;
	*ret_page = fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize : (uint64_t)sysconf(_SC_PAGESIZE);
	if (!*ret_page || *ret_page & (*ret_page - 1))
		return -EINVAL;
	return 0;
}

/* Maps whole pages of the file's size around what was asked for: on hugetlbfs offset may lie inside one. */
static int map_file(struct bh_vfio_user *v, const struct vfu_dma_map *map, int fd, struct mapping *ret,
                    uint8_t **ret_host)
{
	int protection = (map->flags & VFU_DMA_READABLE ? PROT_READ : 0) |
	                 (map->flags & VFU_DMA_WRITABLE ? PROT_WRITE : 0);
	struct mapping m = {.base = map->iova, .size = map->size};
	uint64_t page = 0, before;
	int r;

	r = check_file(fd, map->offset, map->size, &page);
	if (r < 0)
		return r;
	if (map->size > MAX_MAPPED - v->mapped)
		return -ENOSPC;

	before = map->offset % page;
	m.length = (before + map->size + page - 1) & ~(page - 1);
	m.start = mmap(NULL, m.length, protection, MAP_SHARED | MAP_NORESERVE, fd, (off_t)(map->offset - before));
	if (m.start == MAP_FAILED)
		return -errno;
	m.guard = vfu_guard_add(m.start, m.length, page, &v->poisoned);
	if (!m.guard) {
		munmap(m.start, m.length);
		return -ENOMEM;
	}
	*ret = m;
	*ret_host = (uint8_t *)m.start + before;
	return 0;
}

static void unmap(struct mapping *m)
{
	vfu_guard_remove(m->guard);
	munmap(m->start, m->length);
}

static int check_map(const struct vfu_dma_map *map)
{
	if (map->argsz < sizeof(*map) || !map->flags || map->flags & ~(VFU_DMA_READABLE | VFU_DMA_WRITABLE))
		return -EINVAL;
	if (!map->size || (map->size | map->iova | map->offset) % PAGE)
		return -EINVAL;
	if (map->size - 1 > UINT64_MAX - map->iova || map->offset > INT64_MAX || map->size > INT64_MAX - map->offset)
		return -EINVAL;
	return 0;
}

static int map_and_add(struct bh_vfio_user *v, const struct vfu_dma_map *map, int fd)
{
	struct mapping m;
	uint8_t *host = NULL;
	int r;

	r = check_map(map);
	if (r < 0)
		return r;

	/* Known to be there but out of reach: an access is a bus error, not an absence. */
	if (fd < 0)
		return bh_memory_add(&v->guest.memory, map->iova, map->size, NULL, map->flags);

	r = map_file(v, map, fd, &m, &host);
	if (r < 0)
		return r;
	r = bh_memory_add(&v->guest.memory, map->iova, map->size, host, map->flags);
	if (r < 0) {
		unmap(&m);
		return r;
	}
	/* bh_memory_add counted: mapping_count < BH_MEMORY_MAX_REGIONS, the array's size. */
	v->mappings[v->mapping_count++] = m;
	v->mapped += m.size;
	return 0;
}

int vfu_dma_map(struct bh_vfio_user *v, const struct vfu_dma_map *map, int fd)
{
	int r = map_and_add(v, map, fd);

	if (fd >= 0)
		vfu_discard(fd);
	if (r < 0)
		vfu_log_once(v, KIND_MEMORY, LOG_WARNING,
		             "guest memory at %#llx, size %#llx, not mapped: %s", (unsigned long long)map->iova,
		             (unsigned long long)map->size, strerror(-r));
	else
		bh_pci_memory_changed(v->function);
	return r;
}

/* Regions are found by their exact range; those out of reach have no mapping. */
static void drop_mapping(struct bh_vfio_user *v, const struct bh_region *region)
{
	for (size_t i = 0; region->host && i < v->mapping_count; i++) {
		if (v->mappings[i].base != region->base)
			continue;
		v->mapped -= v->mappings[i].size;
		unmap(&v->mappings[i]);
		v->mappings[i] = v->mappings[--v->mapping_count];
		return;
	}
}

void vfu_dma_unmap_all(struct bh_vfio_user *v)
{
	bh_memory_finish(&v->guest.memory);
	for (size_t i = 0; i < v->mapping_count; i++)
		unmap(&v->mappings[i]);
	v->mapping_count = 0;
	v->mapped = 0;
}

int vfu_dma_unmap(struct bh_vfio_user *v, const struct vfu_dma_unmap *unmapped)
{
	struct bh_region region;
	int r;

	if (unmapped->argsz < sizeof(*unmapped) || unmapped->flags & ~VFU_UNMAP_ALL)
		return -EINVAL;
	if (unmapped->flags & VFU_UNMAP_ALL) {
		if (unmapped->iova || unmapped->size)
			return -EINVAL;
		vfu_dma_unmap_all(v);
	} else {
		r = bh_memory_remove(&v->guest.memory, unmapped->iova, unmapped->size, &region);
		if (r < 0)
			return r;
		drop_mapping(v, &region);
	}
	bh_pci_memory_changed(v->function);
	return 0;
}
