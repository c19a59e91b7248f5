/* See allocated.h. */
#include "allocated.h"

#include <stdlib.h>

#include <sanitizer/allocator_interface.h>

static _Thread_local ptrdiff_t allocated;

/* Both are called while the block exists. */
static void allocates(const volatile void *block, size_t size)
{
	(void)size; /* asked for; what is freed is known by what it got */
	allocated += (ptrdiff_t)__sanitizer_get_allocated_size(block);
}

static void frees(const volatile void *block)
{
	if (block)
		allocated -= (ptrdiff_t)__sanitizer_get_allocated_size(block);
}

ptrdiff_t fuzz_allocated(void)
{
	return allocated;
}

__attribute__((constructor)) static void count(void)
{
	if (!__sanitizer_install_malloc_and_free_hooks(allocates, frees))
		abort(); /* no room for one more: nothing would be counted */
}
