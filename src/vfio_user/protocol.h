/*
 * vfio-user on the wire: QEMU docs/interop/vfio-user.rst, protocol 0.0. Integers
 * are in the host's byte order, naturally aligned; a message is a header followed
 * by its command's structure.
 */
#ifndef VFIO_USER_PROTOCOL_H
#define VFIO_USER_PROTOCOL_H

#include <assert.h>
#include <stdint.h>

enum vfu_command {
	VFU_VERSION = 1,
	VFU_DMA_MAP = 2,
	VFU_DMA_UNMAP = 3,
	VFU_GET_INFO = 4,
	VFU_GET_REGION_INFO = 5,
	VFU_GET_REGION_IO_FDS = 6,
	VFU_GET_IRQ_INFO = 7,
	VFU_SET_IRQS = 8,
	VFU_REGION_READ = 9,
	VFU_REGION_WRITE = 10,
	VFU_DMA_READ = 11,
	VFU_DMA_WRITE = 12,
	VFU_RESET = 13,
	VFU_WRITE_MULTI = 15,
	VFU_FEATURE = 16,
	VFU_MIG_DATA_READ = 17,
	VFU_MIG_DATA_WRITE = 18,
};

#define VFU_TYPE_MASK    0x0fu
#define VFU_TYPE_REQUEST 0x00u
#define VFU_TYPE_REPLY   0x01u
#define VFU_NO_REPLY     0x10u
#define VFU_ERROR        0x20u

struct vfu_header {
	uint16_t id, command;
	uint32_t size; /* header included */
	uint32_t flags, error;
};
static_assert(sizeof(struct vfu_header) == 16, "header");

struct vfu_version {
	uint16_t major, minor; /* JSON follows, with its terminating NUL */
};
static_assert(sizeof(struct vfu_version) == 4, "version");

#define VFU_DMA_READABLE 1u
#define VFU_DMA_WRITABLE 2u

struct vfu_dma_map {
	uint32_t argsz, flags;
	uint64_t offset, iova, size;
};
static_assert(sizeof(struct vfu_dma_map) == 32, "map");

#define VFU_UNMAP_ALL 2u

struct vfu_dma_unmap {
	uint32_t argsz, flags;
	uint64_t iova, size;
};
static_assert(sizeof(struct vfu_dma_unmap) == 24, "unmap");

#define VFU_DEVICE_RESET 1u
#define VFU_DEVICE_PCI   2u

struct vfu_device_info {
	uint32_t argsz, flags, regions, irqs;
};
static_assert(sizeof(struct vfu_device_info) == 16, "device info");

/* BARs are regions 0 to 5. */
#define VFU_REGION_CONFIG 7u
#define VFU_REGIONS       9u

#define VFU_REGION_FLAG_READ  1u
#define VFU_REGION_FLAG_WRITE 2u

struct vfu_region_info {
	uint32_t argsz, flags, index, cap_offset;
	uint64_t size, offset;
};
static_assert(sizeof(struct vfu_region_info) == 32, "region info");

#define VFU_IRQ_INTX 0u
#define VFU_IRQ_MSI  1u
#define VFU_IRQ_MSIX 2u
#define VFU_IRQ_ERR  3u
#define VFU_IRQ_REQ  4u
#define VFU_IRQS     5u

#define VFU_IRQ_EVENTFD    1u
#define VFU_IRQ_MASKABLE   2u
#define VFU_IRQ_AUTOMASKED 4u
#define VFU_IRQ_NORESIZE   8u

struct vfu_irq_info {
	uint32_t argsz, flags, index, count;
};
static_assert(sizeof(struct vfu_irq_info) == 16, "irq info");

#define VFU_IRQ_DATA_NONE    1u
#define VFU_IRQ_DATA_BOOL    2u
#define VFU_IRQ_DATA_EVENTFD 4u
#define VFU_IRQ_DATA_MASK    7u
#define VFU_IRQ_MASK         8u
#define VFU_IRQ_UNMASK       16u
#define VFU_IRQ_TRIGGER      32u
#define VFU_IRQ_ACTION_MASK  56u

struct vfu_irq_set {
	uint32_t argsz, flags, index, start, count; /* count bytes follow where data is BOOL */
};
static_assert(sizeof(struct vfu_irq_set) == 20, "irq set");

struct vfu_region_access {
	uint64_t offset;
	uint32_t region, count; /* count bytes follow in a write and in the reply to a read */
};
static_assert(sizeof(struct vfu_region_access) == 16, "region access");

#endif
