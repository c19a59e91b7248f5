/* What has to hold whatever a guest or a device does; where it does not, the fuzzer has a find. */
#ifndef FUZZ_MUST_H
#define FUZZ_MUST_H

#include <stdio.h>
#include <stdlib.h>

#define must(condition, otherwise)                                                             \
	do {                                                                                   \
		if (!(condition)) {                                                            \
			fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, otherwise, #condition); \
			abort();                                                               \
		}                                                                              \
	} while (0)

#endif
