/*
 * Write traces on guest memory, [0085]: may a range of bytes have been written since
 * some moment? Nothing is compared; the memory management unit tells. A page that is
 * watched is write-protected, and the first write to it is a fault, which is noted
 * before the write happens. That works only for memory all of whose writers are
 * threads of this process (BH_MEMORY_OURS), and write through the mapping that was
 * given to bh_memory_add(). What is no fault there is not seen: another mapping of the
 * same memory, another process, a device, a page thrown away (MADV_DONTNEED, a hole
 * punched into a file). Remove the region before such a thing.
 *
 * Calls for one memory are made by one thread at a time, as with bh_memory_read().
 * Writers are of course free. Not for use in the child after a fork().
 */
#ifndef GUEST_TRACE_H
#define GUEST_TRACE_H

#include <guest/memory.h>

/*
 * The mechanisms. userfaultfd serves every write, also those the kernel makes for us:
 * read(2) into traced memory, a KVM guest. It needs the privilege to handle faults of
 * the kernel (CAP_SYS_PTRACE, vm.unprivileged_userfaultfd or access to
 * /dev/userfaultfd), has a thread and two descriptors for each memory, and does
 * anonymous private memory, and shared memory (memfd) from Linux 5.19 on.
 *
 * mprotect works everywhere. But a system call that writes to a watched page fails
 * with EFAULT, and so does a KVM guest: there, allow userfaultfd alone. It installs a
 * handler for SIGSEGV, once, that stays and passes on what is not its own to the one
 * before it. Who installs another one later has to do the same, and no writer may
 * block SIGSEGV. A page watched splits a mapping: beyond 32 MiB watched all watches of
 * that memory start anew (what was watched counts as written), and one watch cannot
 * be longer than that.
 */
#define BH_TRACE_USERFAULTFD 1u
#define BH_TRACE_MPROTECT    2u

/*
 * From now on writes can be traced, to regions added later too. Tries the methods
 * allowed, userfaultfd first; *ret_method (may be NULL) becomes the one in use.
 *
 * A region with BH_MEMORY_OURS is traced, whether we may write to it or not; it has
 * to be mapped readable and writable. One that we may only read and that is not
 * BH_MEMORY_OURS is taken for memory that nobody writes to. Regions that are out of
 * reach are left alone.
 *
 * -ENOTSUP a writable region is not BH_MEMORY_OURS, or its memory is traced already
 * (in another struct bh_memory, or twice in this one); -EINVAL a region's host address
 * or size is no multiple of a page; -ENOSYS no method allowed works here; -ENOMEM;
 * -EALREADY. On error nothing is traced.
 *
 * bh_memory_add() may then fail with -ENOTSUP (also where the method in use cannot
 * trace that memory), -EINVAL and -ENOMEM. bh_memory_remove() and bh_memory_finish()
 * end the traces there; finish ends everything.
 */
int bh_trace_enable(struct bh_memory *m, unsigned methods, unsigned *ret_method);

/* Was bh_trace_enable() successful, and bh_memory_finish() not called since? */
bool bh_memory_traced(const struct bh_memory *m);

/*
 * Watches these bytes from now on, until they are written. Read them only after this
 * returned. Returns a stamp, or 0 where they cannot be watched: no traces, not wholly
 * inside mapped regions, or the system refuses. Costs a system call for each region
 * with pages that are not watched already, none otherwise.
 */
uint64_t bh_memory_watch(struct bh_memory *m, uint64_t address, size_t length);

/*
 * May any of these bytes have been written since that stamp? False is certain: what
 * was read between the watch and this call is what is there. True may be a false alarm
 * (a page is the unit), and is the answer where nobody knows. No system call.
 */
bool bh_memory_written(struct bh_memory *m, uint64_t address, size_t length, uint64_t since);

#endif
