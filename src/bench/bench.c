/* Which benchmark? */
#include <bench/bench.h>

#include <stdio.h>
#include <string.h>

#include <base/util.h>

#include "cost.h"
#include "turnaround.h"

static const struct {
	const char *name, *what;
	int (*run)(int argc, char **argv);
} benchmarks[] = {
	{"turnaround", "batches against packet at a time, over a bus that answers at frame edges", bh_bench_turnaround},
	{"engine", "what a packet costs in the controller and the engine, beside a copy of its bytes", bh_bench_engine},
};

static void list(FILE *to)
{
	fputs("Usage: bulkhead bench NAME [OPTION...]; 'bulkhead bench NAME --help' says more.\n\n", to);
	for (size_t i = 0; i < BH_COUNT(benchmarks); i++)
		fprintf(to, "  %-12s %s\n", benchmarks[i].name, benchmarks[i].what);
}

int bh_bench(int argc, char **argv)
{
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))) {
		list(stdout);
		return 0;
	}
	for (size_t i = 0; argc > 1 && i < BH_COUNT(benchmarks); i++)
		if (!strcmp(argv[1], benchmarks[i].name))
			return benchmarks[i].run(argc - 1, argv + 1);
	if (argc > 1)
		fprintf(stderr, "bulkhead bench: no benchmark '%s'\n", argv[1]);
	else
		fputs("bulkhead bench: say which\n", stderr);
	list(stderr);
	return 2;
}
