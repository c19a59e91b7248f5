/*
 * Bytes on a wire and in guest memory.
 *
 * A field of a descriptor, a register image or a message is one of these types,
 * never a plain integer: it has no alignment, no padding, and a forgotten
 * conversion does not compile.
 */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdint.h>

typedef struct { uint8_t b[2]; } bh_le16;
typedef struct { uint8_t b[4]; } bh_le32;
typedef struct { uint8_t b[2]; } bh_be16;
typedef struct { uint8_t b[4]; } bh_be32;
typedef struct { uint8_t b[8]; } bh_be64;

/* get: to a number in host order; put: from one. le, be: the lowest, the highest byte comes first. */
static inline uint16_t bh_get_le16(bh_le16 v)
{
	return (uint16_t)(v.b[0] | v.b[1] << 8);
}

static inline uint32_t bh_get_le32(bh_le32 v)
{
	return (uint32_t)v.b[0] | (uint32_t)v.b[1] << 8 | (uint32_t)v.b[2] << 16 | (uint32_t)v.b[3] << 24;
}

static inline bh_le16 bh_put_le16(uint16_t v)
{
	return (bh_le16){{(uint8_t)v, (uint8_t)(v >> 8)}};
}

static inline bh_le32 bh_put_le32(uint32_t v)
{
	return (bh_le32){{(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)}};
}

/* A little-endian word held in an integer, to host order and back. */
static inline uint32_t bh_order_le32(uint32_t v)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	v = __builtin_bswap32(v);
#endif
	return v;
}

static inline uint16_t bh_get_be16(bh_be16 v)
{
	return (uint16_t)(v.b[0] << 8 | v.b[1]);
}

static inline uint32_t bh_get_be32(bh_be32 v)
{
	return (uint32_t)v.b[0] << 24 | (uint32_t)v.b[1] << 16 | (uint32_t)v.b[2] << 8 | (uint32_t)v.b[3];
}

static inline uint64_t bh_get_be64(bh_be64 v)
{
	uint64_t r = 0;

	for (int i = 0; i < 8; i++)
		r = r << 8 | v.b[i];
	return r;
}

static inline bh_be16 bh_put_be16(uint16_t v)
{
	return (bh_be16){{(uint8_t)(v >> 8), (uint8_t)v}};
}

static inline bh_be32 bh_put_be32(uint32_t v)
{
	return (bh_be32){{(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v}};
}

static inline bh_be64 bh_put_be64(uint64_t v)
{
	bh_be64 r;

	for (int i = 0; i < 8; i++)
		r.b[i] = (uint8_t)(v >> (56 - 8 * i));
	return r;
}

#endif
