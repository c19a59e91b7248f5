/*
 * `bulkhead bench`: measurements and demonstrations that need no virtual machine.
 * A guest's driver, the controller and a device run in this process.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

/*
 * argv[0] is "bench". Prints, and returns the exit status: 0; 1 where something
 * did not hold or could not be written; 2 for a wrong command line.
 */
int bh_bench(int argc, char **argv);

#endif
