/*
 * Included before everything else, in every file that the fuzzer compiles: it is
 * called before the controller looks where something lies in guest memory.
 */
#ifndef FUZZ_HOOK_H
#define FUZZ_HOOK_H

void hostile_guest_acts(void);
#define BH_MEMORY_HOOK() hostile_guest_acts()

#endif
