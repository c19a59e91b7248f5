/*
 * The law: whether packets travel alone or in batches, a guest sees the same and a
 * device sees the same. A property of random programs (law_program.h, law_driver.h),
 * run twice in lock-step (law_runs.h): with batches, and by an oracle.
 *
 * The oracle is the same engine with one packet at a time, and a device (law_device.h)
 * that answers a packet at once or says NAK; it says NAK where batching answered "busy".
 * Its control pipe is a model of its own (law_control.h). Nor is its engine believed:
 * every answer has to be what a wire would have shown of that packet.
 *
 * Compared, at every offer of a packet: which walk, which descriptor, the answer,
 * status and length. After every look at the schedule: queue heads, descriptors and
 * buffers byte for byte, USBSTS with its causes, PORTSC, the interrupt line and how
 * often it rose. At the end: the packets at the device, endpoint by endpoint, and the
 * counters. Nothing is masked: a "busy" writes nothing, not even the NAK bit, and in
 * lock-step interrupts do not coalesce. Also: no transfer starts before the last one
 * ended, a transfer's packets alternate in their toggle, an OUT is told by the descriptor
 * it was made from, an interrupt endpoint answers once a frame.
 *
 * The differences allowed:
 *   W  OUT that the device took and the guest then withdrew. The oracle's device is
 *      given exactly these packets, at the same place in its stream. The guest has to
 *      have taken something from that endpoint's queues since they were issued, or reset
 *      it; their bytes add up to ahead_bytes.
 *   K  IN that was fetched and then withdrawn comes with the next INs: nothing to be
 *      allowed for, the oracle fetches it then. Its bytes add up to kept_bytes. What
 *      a reset drops, the oracle's device skips; nothing else may be lost.
 *   F  FAILURE. The guest has to have changed something in place, at that endpoint, since
 *      the packets were issued, and not have unlinked the queue in between (or, with
 *      withdrawn=fail, to have withdrawn something). Conversely, what was only changed in
 *      place must not end as W. The oracle's device gets these packets, too, and falls as
 *      silent, until it is reset or reconnected. Counted: failures.
 *   C  control OUT data is accepted before the device has it: of every request the
 *      device gets all of what was accepted, or nothing because the guest gave up.
 *      A request that is being cancelled for a SETUP is gone also where the guest then
 *      takes the SETUP back.
 * Devices here take whole packets: a part of one is never ahead.
 * Between endpoints there is no order but that of reported completions: a packet that
 * waits for others at the device (gated) does so with batches only.
 * Liveness: at the end, when nothing has completed for two lingers, the oracle goes on
 * without NAKs, and must complete nothing either. Until then the controller is only run
 * when it asked to be; after a completion it has to ask at once.
 *
 * Not seen, because a guest is free not to see it: when exactly things happen within
 * that time. So where SCAN ends at IOC, going one packet at a time after a linger, and
 * cancelling what is not offered for 32 frames are other tests' business.
 *
 * Each kind of verification has its test; when it is done is part of the program. Where
 * only addresses are compared, programs that give the same address other data are left
 * out (change_is_sound()).
 *
 * A program that fails, hangs or runs into an assertion is made smaller while it does,
 * and printed. BH_TEST_ROUNDS=N runs N programs in each test, BH_TEST_SEED=S starts at
 * program S, BH_TEST_NAME=T runs one test only, BH_TEST_TOTALS=1 says what was met.
 * 10,000 programs in all, with BULKHEAD_TEST_LONG=1 200,000.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "law_runs.h"

/* --- shrinking -------------------------------------------------------------------------------------- */

#define MOST_TRIES   4000u
#define MOST_SECONDS 30

static unsigned tries;
static time_t since;

static bool enough(void)
{
	return tries >= MOST_TRIES || time(NULL) - since > MOST_SECONDS;
}

static bool still_fails(const struct program *p)
{
	static struct program copy;

	if (enough())
		return false;
	copy = *p; /* the runs keep pointers to it */
	tries++;
	return run_program(&copy);
}

static bool keep_if_it_fails(struct program *p, const struct program *candidate)
{
	if (!still_fails(candidate))
		return false;
	*p = *candidate;
	return true;
}

static bool leave_out(struct program *p, unsigned first, unsigned n)
{
	struct program q = *p;

	memmove(&q.actions[first], &q.actions[first + n], (q.count - first - n) * sizeof(q.actions[0]));
	q.count -= (uint16_t)n;
	return keep_if_it_fails(p, &q);
}

static bool fewer_actions(struct program *p)
{
	bool any = false;

	for (unsigned n = BH_MAX(1u, p->count / 2u); n; n /= 2)
		for (unsigned first = 0; first + n <= p->count;)
			if (leave_out(p, first, n))
				any = true;
			else
				first += n;
	return any;
}

/* Tries another value for one field of a program or an action. */
#define TRY(p, field, value)                                                                   \
	do {                                                                                   \
		struct program q = *(p);                                                       \
		if (q.field > (value)) {                                                       \
			q.field = (value);                                                     \
			any |= keep_if_it_fails(p, &q);                                        \
		}                                                                              \
	} while (0)

static bool simpler_settings(struct program *p)
{
	bool any = false;

	TRY(p, faults, false);
	TRY(p, shorts, false);
	TRY(p, gated, false);
	TRY(p, wire_pace, false);
	TRY(p, withdrawn_fails, false);
	TRY(p, loop, false);
	TRY(p, diligent, false);
	TRY(p, batch_bytes, 0);
	TRY(p, bytes, 0);
	TRY(p, pace, 0);
	TRY(p, pace, 1);
	TRY(p, verification.when, BH_VERIFY_BOUNDED);
	return any;
}

static bool simpler_actions(struct program *p)
{
	bool any = false;

	for (unsigned i = 0; i < p->count; i++) {
		TRY(p, actions[i].count, 1);
		TRY(p, actions[i].count, p->actions[i].count / 2);
		TRY(p, actions[i].count, BH_MAX(1, p->actions[i].count) - 1);
		TRY(p, actions[i].at, 0);
		TRY(p, actions[i].at, BH_MAX(1, p->actions[i].at) - 1);
		TRY(p, actions[i].length, p->actions[i].length / 2);
		TRY(p, actions[i].data, 1);
		for (unsigned bit = 1; bit < 256 && p->actions[i].kind != CHANGE; bit <<= 1)
			if (p->actions[i].flags & bit)
				TRY(p, actions[i].flags, p->actions[i].flags & ~bit);
		TRY(p, actions[i].step, i ? p->actions[i - 1].step : 0);
	}
	return any;
}

static void shrink(struct program *p)
{
	tries = 0;
	since = time(NULL);
	while (!enough() && (fewer_actions(p) | simpler_settings(p) | simpler_actions(p)))
		;
}

/* --- the tests --------------------------------------------------------------------------------------- */

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

static void report(const char *test, const struct program *failing, uint64_t seed)
{
	static struct program p;
	char first[sizeof(wrong)];
	unsigned before = failing->count;

	memcpy(first, wrong, sizeof(first));
	p = *failing;
	shrink(&p);
	fprintf(stderr, "# program %" PRIu64 ": %s. To repeat:\n"
	                "# BH_TEST_NAME=%s BH_TEST_SEED=%" PRIu64 " BH_TEST_ROUNDS=1 test_law\n",
	        seed, first, test, seed);
	run_program(&p);
	fprintf(stderr, "# of its %u actions %u are enough: %s\n", before, p.count, wrong);
	print_program(&p);
}

static void show_progress(const char *test, uint64_t done, uint64_t rounds)
{
	static int tty = -1;

	if (tty < 0)
		tty = isatty(STDERR_FILENO);
	if (tty && done % 1024 == 0)
		fprintf(stderr, "\r%s: %" PRIu64 " of %" PRIu64 "%s", test, done, rounds, done == rounds ? "\n" : "");
}

static void print_totals(const char *test)
{
	if (!getenv("BH_TEST_TOTALS"))
		return;
	fprintf(stderr,
	        "# %s: %" PRIu64 " programs, %" PRIu64 " batches, %" PRIu64 " packets, %" PRIu64 " busy;"
	        " W %" PRIu64 ", K %" PRIu64 ", F %" PRIu64 ", C %" PRIu64 " (%" PRIu64 " given up);"
	        " %" PRIu64 " mismatches, cancels: changed %" PRIu64 ", withdrawn %" PRIu64 ", linger %" PRIu64
	        ", reset %" PRIu64 "\n",
	        test, totals.programs, totals.batches, totals.packets, totals.busy, totals.ahead, totals.kept,
	        totals.failures, totals.early, totals.given_up, totals.mismatches, totals.cancels[BH_CANCEL_CHANGED],
	        totals.cancels[BH_CANCEL_WITHDRAWN], totals.cancels[BH_CANCEL_LINGER],
	        totals.cancels[BH_CANCEL_RESET]);
}

/* In all 10,000 programs, or 200,000. */
static void obey(const char *test, enum bh_verify what, uint64_t rounds)
{
	uint64_t first = setting("BH_TEST_SEED", 1), failed = 0, seed;
	static struct program p;

	rounds = setting("BH_TEST_ROUNDS", rounds * (getenv("BULKHEAD_TEST_LONG") ? 20 : 1));
	memset(&totals, 0, sizeof(totals));
	for (seed = first; seed < first + rounds && failed < 3; seed++) {
		p = make_program(seed, what);
		if (run_program(&p)) {
			failed++;
			report(test, &p, seed);
		}
		show_progress(test, seed - first + 1, rounds);
	}
	print_totals(test);
	assert_int_equal(failed, 0);
	if (rounds < 1000)
		return;
	/* What is never met is not tested. */
	assert_true(totals.ahead && totals.kept && totals.early && totals.given_up && totals.failed_withdrawn);
	assert_true(what == BH_VERIFY_TD || totals.failed_changed);
}

static void exact_verification_keeps_the_law(void **state)
{
	(void)state;
	obey(__func__, BH_VERIFY_EXACT, 3000);
}

static void checksum_verification_keeps_the_law(void **state)
{
	(void)state;
	obey(__func__, BH_VERIFY_CHECKSUM, 2000);
}

static void td_verification_keeps_the_law_with_fresh_descriptors(void **state)
{
	(void)state;
	obey(__func__, BH_VERIFY_TD, 1500);
}

static void buffer_verification_keeps_the_law_with_fresh_buffers(void **state)
{
	(void)state;
	obey(__func__, BH_VERIFY_BUFFER, 1500);
}

static void trace_verification_keeps_the_law(void **state)
{
	struct program p = {.verification = {.what = BH_VERIFY_TRACE}};

	(void)state;
	if (run_program(&p))
		skip(); /* it has said why */
	obey(__func__, BH_VERIFY_TRACE, 2000);
}

static int free_memory(void **state)
{
	(void)state;
	device_finish(&batch.device);
	device_finish(&oracle.device);
	free(record.events);
	memset(&record, 0, sizeof(record));
	return 0;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(exact_verification_keeps_the_law),
		cmocka_unit_test(checksum_verification_keeps_the_law),
		cmocka_unit_test(td_verification_keeps_the_law_with_fresh_descriptors),
		cmocka_unit_test(buffer_verification_keeps_the_law_with_fresh_buffers),
		cmocka_unit_test(trace_verification_keeps_the_law),
	};
	const char *filter = getenv("BH_TEST_NAME");

	if (filter)
		cmocka_set_test_filter(filter);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, free_memory);
}
