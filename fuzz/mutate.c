/*
 * Mutations that keep records whole: one is doubled, dropped, moved, taken from
 * elsewhere or changed in a byte; half the time libFuzzer does as it likes.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define RECORD 8u

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1, const uint8_t *data2, size_t size2,
                                 uint8_t *out, size_t max_out_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

static unsigned roll(unsigned *seed, size_t n)
{
	return (unsigned)((size_t)rand_r(seed) % n);
}

/* Makes room for so many records before the one with this index. */
static size_t open_gap(uint8_t *data, size_t size, size_t at, size_t records)
{
	memmove(data + (at + records) * RECORD, data + at * RECORD, size - at * RECORD);
	return size + records * RECORD;
}

static size_t repeat_some(uint8_t *data, size_t size, size_t max_size, unsigned *seed)
{
	size_t n = size / RECORD, from = roll(seed, n), many = 1 + roll(seed, n - from < 8 ? n - from : 8);
	size_t to = roll(seed, n + 1);
	uint8_t copy[8 * RECORD];

	if (size + many * RECORD > max_size)
		return size;
	memcpy(copy, data + from * RECORD, many * RECORD);
	size = open_gap(data, size, to, many);
	memcpy(data + to * RECORD, copy, many * RECORD);
	return size;
}

static size_t drop_some(uint8_t *data, size_t size, unsigned *seed)
{
	size_t n = size / RECORD, from = roll(seed, n), many = 1 + roll(seed, n - from < 4 ? n - from : 4);

	memmove(data + from * RECORD, data + (from + many) * RECORD, size - (from + many) * RECORD);
	return size - many * RECORD;
}

static void swap_two(uint8_t *data, size_t size, unsigned *seed)
{
	uint8_t *a = data + roll(seed, size / RECORD) * RECORD, *b = data + roll(seed, size / RECORD) * RECORD;

	for (unsigned i = 0; i < RECORD; i++) {
		uint8_t byte = a[i];

		a[i] = b[i];
		b[i] = byte;
	}
}

static void change_byte(uint8_t *data, size_t size, unsigned *seed)
{
	uint8_t *byte = &data[roll(seed, size)];

	switch (roll(seed, 4)) {
	case 0:
		*byte = (uint8_t)roll(seed, 256);
		break;
	case 1:
		*byte ^= (uint8_t)(1u << roll(seed, 8));
		break;
	case 2:
		*byte += roll(seed, 2) ? 1 : 0xff;
		break;
	case 3:
		*byte = (uint8_t)roll(seed, 8);
		break;
	}
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
	unsigned choice = roll(&seed, 8);

	if (size < 2 * RECORD || size % RECORD || choice < 2)
		return LLVMFuzzerMutate(data, size, max_size);
	for (unsigned i = 0; i <= roll(&seed, 3) && size >= 2 * RECORD; i++)
		switch (roll(&seed, 6)) {
		case 0:
			size = repeat_some(data, size, max_size, &seed);
			break;
		case 1:
			size = drop_some(data, size, &seed);
			break;
		case 2:
			swap_two(data, size, &seed);
			break;
		default:
			change_byte(data, size, &seed);
		}
	return size;
}

/* The beginning of one and the end of the other. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *data1, size_t size1, const uint8_t *data2, size_t size2,
                                 uint8_t *out, size_t max_out_size, unsigned seed)
{
	size_t first = roll(&seed, size1 / RECORD + 1) * RECORD, skip = roll(&seed, size2 / RECORD + 1) * RECORD, rest;

	first = first < max_out_size ? first : max_out_size;
	rest = size2 - skip < max_out_size - first ? size2 - skip : max_out_size - first;
	memcpy(out, data1, first);
	memcpy(out + first, data2 + skip, rest);
	return first + rest;
}
