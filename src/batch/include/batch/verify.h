/*
 * Data verification (690; [0077] to [0085]): is what the device is being sent still
 * what the guest wants sent? What is compared, and when, is chosen for each device.
 * Only OUT is verified: an IN changes nothing at the device by being looked at again.
 *
 * Whatever is chosen: links, IOC, SPD and error counters are not compared, because
 * drivers change them in flight; they are taken as found at replay. Descriptors
 * appended meanwhile are no change.
 */
#ifndef BATCH_VERIFY_H
#define BATCH_VERIFY_H

#include <stdbool.h>

enum bh_verify {
	/* The descriptor's address, its token, its buffer's address, every byte ([0078]). */
	BH_VERIFY_EXACT,
	/*
	 * The descriptor's address alone ([0081], the patent's preferred). Fooled by a
	 * guest that takes descriptors from a pool: a cancelled request and its
	 * successor usually share addresses.
	 */
	BH_VERIFY_TD,
	/* The address of the data alone ([0083]). Fooled by a guest that refills a buffer. */
	BH_VERIFY_BUFFER,
	/* As EXACT, with a 32-bit keyed hash instead of the bytes ([0078]). */
	BH_VERIFY_CHECKSUM,
	/*
	 * As EXACT, but bytes are compared only where a write trace says that their page
	 * was written ([0085]). Needs a source that can trace: guest memory all of whose
	 * writers are in our process.
	 */
	BH_VERIFY_TRACE,
	/* Nothing. For measuring what the others cost; it breaks the law. */
	BH_VERIFY_NONE,
	BH_VERIFY_COUNT
};

/* Each descriptor is verified when it is replayed. Before that ([0084]): */
enum bh_verify_when {
	/* At every retry the head and a bounded number of others in turn: a retry costs the same for any batch. */
	BH_VERIFY_BOUNDED,
	BH_VERIFY_RETRY,      /* at every retry all of them */
	BH_VERIFY_COMPLETION, /* not at all */
	BH_VERIFY_WHEN_COUNT
};

/* All zero: the default, exact and bounded. */
struct bh_verification {
	enum bh_verify what;
	enum bh_verify_when when;
};

/* As written on the command line: "exact", "bounded". */
const char *bh_verify_name(enum bh_verify what);
const char *bh_verify_when_name(enum bh_verify_when when);

/* False: there is no such name; *ret is untouched. */
bool bh_verify_parse(const char *name, enum bh_verify *ret);
bool bh_verify_when_parse(const char *name, enum bh_verify_when *ret);

#endif
