"""Programs made at random, on both controllers. BULKHEAD_SEED=NUMBER runs one, and tells all of it."""

import os
import pprint

import generate

LONG = "BULKHEAD_TEST_LONG" in os.environ
SEEDS = range(6000 if LONG else 300)
FEW = 3  # failures after which the rest is of no interest


def test_programs_made_at_random(comparison):
    seeds = [int(os.environ["BULKHEAD_SEED"])] if "BULKHEAD_SEED" in os.environ else SEEDS
    failures = []
    for seed in seeds:
        program = generate.of_seed(seed)
        found = comparison.run(f"random.{seed}", program)
        if found and len(seeds) == 1:
            pprint.pprint(program.plan, width=160)
        failures += ["\n".join(map(str, found))] if found else []
        if len(failures) == FEW:
            break
    assert not failures, "\n\n".join(failures)


def test_they_are_of_every_kind():
    """Of what the generator can make, everything is in the programs that always run."""
    plans = [generate.of_seed(seed).plan for seed in range(300)]
    schedules = [plan for plan in plans if "queues" in plan]
    assert {queue["kind"] for plan in schedules for queue in plan["queues"]} == {
        "control", "bulk", "lost", "waiting", "empty", "keys"}
    assert {step for plan in schedules for step, _ in plan["steps"]} == {
        "acknowledge", "interrupts", "more", "help", "stop", "again", "nothing", "type"}
    assert any(plan["ring"] is not None for plan in schedules) and any(plan["prelude"] for plan in schedules)
    assert any("writes" in plan for plan in plans)
