#!/usr/bin/python3
"""What a register access costs: runs build/bench/registers (see registers.c) on the server in build/.

One run can be unlucky on a machine that does other things; --tries says how many may be.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile

BUILD = pathlib.Path(__file__).resolve().parents[1] / "build"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--build", type=pathlib.Path, default=BUILD)
    arguments.add_argument("--tries", type=int, default=3)
    options = arguments.parse_args()
    programs = [options.build / "bench" / "registers", options.build / "bulkhead", options.build / "bench" / "echo"]
    for program in programs:
        if not program.exists():
            sys.exit(f"registers.py: {program} is not there: run make first")
    status = 2
    for _ in range(options.tries):
        with tempfile.TemporaryDirectory(prefix="bulkhead-") as directory:
            status = subprocess.run([*map(str, programs), directory]).returncode
        if status != 1:
            break
    return status


if __name__ == "__main__":
    sys.exit(main())
