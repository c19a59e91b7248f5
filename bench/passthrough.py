#!/usr/bin/python3
"""Pass-through: the same USB disk of the host through QEMU's usb-host on its UHCI, and through Bulkhead.

The host is a virtual machine of its own, the peer (tests/vm/peer.py), whose kernel plays a
full-speed disk (dummy_hcd, mass-storage gadget). In it a nested QEMU boots a small program
(bench/boot) that drives a UHCI by its registers: 120 KiB a command, a descriptor for each packet of 64
bytes, as Linux does. QEMU carries each descriptor to the device by itself; Bulkhead carries what is
queued. The two take turns; the figures are medians. What was written has to be in the gadget's
file, and what was read has to be the same. Leaves the figures in build/passthrough.json.
Exits with 1 where data is wrong, or Bulkhead less than LIMIT times faster either way.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP / "tests" / "vm"))
sys.dont_write_bytecode = True
import lab  # noqa: E402
import peer  # noqa: E402

LIMIT = 12
LABELS = {"qemu": "QEMU piix3-usb-uhci + usb-host", "bulkhead": "Bulkhead + libusb"}
WAYS = ("read", "write")


def measure(machine, side):
    program = f"python3 {TOP}/bench/boot/nested.py {side} /tmp/g0.img"
    output = machine.run(f"BULKHEAD={lab.bulkhead_binary()} {program}", timeout=300)
    return json.loads(output.splitlines()[-1])


def summarise(runs):
    report = {"data_ok": all(run["data_ok"] for of_one in runs.values() for run in of_one), "limit": LIMIT}
    for side, of_one in runs.items():
        report[side] = {f"{way}_kbs": statistics.median(run[f"{way}_kbs"] for run in of_one) for way in WAYS}
    pairs = list(zip(runs["bulkhead"], runs["qemu"]))
    report["ratio"] = {way: round(statistics.median(a[f"{way}_kbs"] / b[f"{way}_kbs"] for a, b in pairs), 1) for way in WAYS}
    report["runs"] = runs
    return report


def print_table(report, pairs):
    print(f"\n{f'median of {pairs}' if pairs > 1 else 'one run':<34}{'read KB/s':>12}{'write KB/s':>12}")
    for side, label in LABELS.items():
        print(f"{label:<34}{report[side]['read_kbs']:>12.1f}{report[side]['write_kbs']:>12.1f}")
    read, write = (f"{report['ratio'][way]:.1f} x" for way in WAYS)
    print(f"{'Bulkhead is (pair by pair)':<34}{read:>12}{write:>12}   (at least {LIMIT})")
    print("everything read and written: " + ("correct" if report["data_ok"] else "WRONG"))


def measure_some(machine, pairs, runs, say):
    """As many of the pairs as are still to be measured."""
    machine.busid(peer.MASS_STORAGE)
    while len(runs["bulkhead"]) < pairs:
        number, pair = len(runs["bulkhead"]) + 1, {}
        for side in runs:
            pair[side] = run = measure(machine, side)
            say(f"{number}/{pairs} {LABELS[side]}: read {run['read_kbs']:.1f} KB/s, write {run['write_kbs']:.1f} KB/s, "
                f"data {'correct' if run['data_ok'] else 'WRONG'}")
        for side, run in pair.items():
            runs[side].append(run)


def measure_pairs(pairs):
    """The peer's kernel (Linux 6.1, dummy_hcd, two processors) sometimes dies of a list of its own when a
    gadget's URBs are taken back: that pair is measured again, in a new peer. Twice, then it is no accident."""
    runs, start = {"qemu": [], "bulkhead": []}, time.monotonic()

    def say(text):
        print(f"[{time.monotonic() - start:6.1f} s] {text}", flush=True)

    for crashes in range(3):
        say("booting the peer")
        with peer.Peer([peer.mass_storage(megabytes=4)], cpus=2) as machine:
            try:
                measure_some(machine, pairs, runs, say)
                return runs
            except lab.LabError as error:
                if "Kernel panic" not in str(error) or crashes == 2:
                    raise
                say("the peer's kernel died; the pair is measured again")
    raise AssertionError("not reached")


def main():
    parser = argparse.ArgumentParser(description="Compares QEMU's and Bulkhead's USB pass-through on one device.")
    parser.add_argument("--pairs", type=int, default=3, help="how often each has its turn (default: %(default)s)")
    parser.add_argument("--json", type=pathlib.Path, default=TOP / "build" / "passthrough.json", help="default: %(default)s")
    options = parser.parse_args()
    if options.pairs < 1:
        parser.error("--pairs: say 1 or more")
    lab.prepare()
    if subprocess.run([TOP / "tools" / "boot"], stdin=subprocess.DEVNULL).returncode:
        return 1
    report = summarise(measure_pairs(options.pairs))
    print_table(report, options.pairs)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if report["data_ok"] and min(report["ratio"].values()) >= LIMIT else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except lab.LabError as error:
        print(f"bench/passthrough.py: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nbench/passthrough.py: interrupted", file=sys.stderr)
        sys.exit(130)
