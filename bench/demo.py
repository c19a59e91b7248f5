#!/usr/bin/python3
"""The demonstration: the same guest and disk on QEMU's own UHCI and on Bulkhead's, there as a disk
of full speed and as one of high speed, which is translated for the controller.

A Linux guest reads and writes a USB disk with dd (1 MiB blocks, direct I/O, a write ends
with fsync). QEMU and Bulkhead take turns; the figures are medians. What the guest read,
and what landed in the image file, are compared by SHA-256 outside the timed parts.
Prints a table and leaves the figures in build/demo.json (1 MB = 10^6 bytes).
"""

import argparse
import functools
import hashlib
import json
import os
import pathlib
import shutil
import signal
import statistics
import sys
import time

TOP = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP / "tests" / "vm"))
sys.dont_write_bytecode = True
import lab  # noqa: E402

MIB = 1 << 20
LABELS = {"qemu": "QEMU piix3-usb-uhci", "bulkhead": "Bulkhead uhci", "translated": "the same, translated"}
STEPS = {"boot": "booting", "read": "reading", "check": "reading again, to check",
         "write": "writing", "end": "powering off"}

# The guest writes what it has read to the second half of the disk, which held other data.

GUEST = """
. /bh.sh
wait_for /dev/sda || exit 1
[ $(($(cat /sys/block/sda/size) / 2048)) -ge $((2 * MB)) ] || { say error=disk too small; exit 1; }
say step=read
timed read dd if=/dev/sda of=/dev/null bs=1M count=$MB iflag=direct status=none || exit 1
say step=check
dd if=/dev/sda of=/tmp/data bs=1M count=$MB iflag=direct status=none || exit 1
say read_sha=$(sha256sum </tmp/data | cut -d ' ' -f 1)
say step=write
timed write dd if=/tmp/data of=/dev/sda bs=1M count=$MB seek=$MB oflag=direct conv=fsync status=none || exit 1
say step=end
"""


class Progress:
    """One line per step: rewritten every quarter second on a terminal, else printed at its end."""

    def __init__(self):
        self.start = time.monotonic()
        self.terminal = sys.stdout.isatty()
        self.text = None

    def step(self, text):
        self.done()
        self.text = text
        self.began = time.monotonic()
        self.tick()

    def tick(self):
        if self.terminal and self.text:
            print(f"\r\033[K{self._line()}", end="", flush=True)

    def done(self):
        if self.text:
            print(f"\r\033[K{self._line()}" if self.terminal else self._line(), flush=True)
        self.text = None

    def _line(self):
        now = time.monotonic()
        return f"[{now - self.start:6.1f} s] {self.text} ({now - self.began:.1f} s)"


def sha256_of(path, offset, length):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(offset)
        while length:
            data = file.read(min(length, 4 * MIB))
            if not data:
                break
            digest.update(data)
            length -= len(data)
    return digest.hexdigest()


def make_image(path, mib):
    with open(path, "wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))


def measure(controller, original, directory, mib, where, progress):
    """One boot on one controller; returns {"read_mbps", "write_mbps", "data_ok"}."""
    image = directory / "disk.img"
    progress.step(f"{where}: copying the image")
    shutil.copyfile(original, image)
    expected = sha256_of(original, 0, mib * MIB)

    def on_line(line):
        if line.startswith("BH step="):
            step = line.removeprefix("BH step=")
            amount = f" {mib} MiB" if step in ("read", "write") else ""
            progress.step(f"{where}: {STEPS[step]}{amount}")

    progress.step(f"{where}: {STEPS['boot']}")
    options = {"speed": "high"} if controller == "translated" else {}
    with lab.disk("qemu" if controller == "qemu" else "bulkhead", image, **options) as disk:
        run = lab.run_guest(f"MB={mib}\n{GUEST}", disk, name="demo", memory=768,
                            timeout=120 + 4 * mib, on_line=on_line, on_tick=progress.tick)
    landed = sha256_of(image, mib * MIB, mib * MIB)
    data_ok = run.values["read_sha"] == expected and landed == expected
    image.unlink()

    def mbps(key):
        hundredths = max(1, int(run.values[key + "_cs"]))
        return round(mib * MIB / 1e6 / (hundredths / 100), 3)

    result = {"read_mbps": mbps("read"), "write_mbps": mbps("write"), "mib": mib, "data_ok": data_ok}
    progress.done()
    print(f"             {where}: read {result['read_mbps']:.2f} MB/s, "
          f"write {result['write_mbps']:.2f} MB/s, data {'correct' if data_ok else 'WRONG'}", flush=True)
    return result


def ratios(report, ours, theirs):
    ours, theirs = report[f"{ours}_uhci"], report[f"{theirs}_uhci"]
    return {key: round(ours[key + "_mbps"] / theirs[key + "_mbps"], 2) for key in ("read", "write")}


def summarise(runs):
    report = {"data_ok": all(run["data_ok"] for of_one in runs.values() for run in of_one)}
    for controller, of_one in runs.items():
        report[f"{controller}_uhci"] = {
            key: round(statistics.median(run[key] for run in of_one), 3)
            for key in ("read_mbps", "write_mbps")}
    if len(runs) == len(LABELS):
        ratio = functools.partial(ratios, report)
        report["ratio"] = ratio("bulkhead", "qemu")
        report["ratio_translated"] = ratio("translated", "qemu")
        report["translated_to_full_speed"] = ratio("translated", "bulkhead")
    report["runs"] = {f"{controller}_uhci": of_one for controller, of_one in runs.items()}
    return report


def print_table(report, pairs):
    print(f"\n{f'median of {pairs}' if pairs > 1 else 'one run':<22}{'read MB/s':>12}{'write MB/s':>12}")
    for controller, label in LABELS.items():
        rates = report.get(f"{controller}_uhci")
        if rates:
            print(f"{label:<22}{rates['read_mbps']:>12.2f}{rates['write_mbps']:>12.2f}")
    if "ratio" in report:
        read, write = (f"{report['ratio'][key]:.1f} x" for key in ("read", "write"))
        print(f"{'Bulkhead is':<22}{read:>12}{write:>12}")
        read, write = (f"{report['ratio_translated'][key]:.1f} x" for key in ("read", "write"))
        print(f"{'and translated':<22}{read:>12}{write:>12}")
    print("SHA-256 of everything read and written: " + ("correct" if report["data_ok"] else "WRONG"))


def parse_options():
    parser = argparse.ArgumentParser(description="Compares QEMU's UHCI with Bulkhead's.")
    parser.add_argument("--quick", action="store_true", help="one pair and less data (for tests)")
    parser.add_argument("--only", choices=sorted(LABELS), help="measure one of them")
    parser.add_argument("--json", type=pathlib.Path, default=TOP / "build" / "demo.json",
                        metavar="FILE", help="where the figures go (build/demo.json)")
    return parser.parse_args()


def run(options):
    pairs = 1 if options.quick else 3
    mib = ({"qemu": 1, "bulkhead": 16, "translated": 16} if options.quick
           else {"qemu": 8, "bulkhead": 128, "translated": 128})
    controllers = [options.only] if options.only else list(LABELS)
    runs = {controller: [] for controller in controllers}
    print(f"Reading and writing a USB disk from a Linux guest, {pairs} time(s) each; "
          + ("about a minute" if options.quick else "about four minutes"), flush=True)
    lab.prepare()
    progress = Progress()
    try:
        with lab.scratch("demo-") as directory:
            progress.step("making a random disk image")
            original = directory / "original.img"
            make_image(original, 2 * max(mib[controller] for controller in controllers))
            for pair in range(pairs):
                for controller in controllers:
                    where = f"{pair + 1}/{pairs} {LABELS[controller]}"
                    runs[controller].append(measure(controller, original, directory,
                                                    mib[controller], where, progress))
    finally:
        progress.done()
    report = summarise(runs)
    print_table(report, pairs)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    partial = options.json.with_name(f".{options.json.name}.{os.getpid()}")
    partial.write_text(json.dumps(report, indent=2) + "\n")
    partial.replace(options.json)
    return 0 if report["data_ok"] else 1


def main():
    options = parse_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(options)
    except (lab.LabError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted, everything put away", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
