"""What pass-through is worth: the benchmark itself, three pairs (in short: one), with its own limit and its check of the data."""

import json
import os
import pathlib
import subprocess

PAIRS = "3" if os.environ.get("BULKHEAD_TEST_LONG") == "1" else "1"
TOP = pathlib.Path(__file__).resolve().parents[2]


def test_bulkhead_is_at_least_twelve_times_faster_than_qemu(tmp_path):
    figures = tmp_path / "figures.json"
    run = subprocess.run(["/usr/bin/python3", TOP / "bench" / "passthrough.py", "--pairs", PAIRS, "--json", figures],
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=540, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(figures.read_text())
    assert report["data_ok"] and min(report["ratio"].values()) >= report["limit"] == 12
    assert "Bulkhead is" in run.stdout and "QEMU piix3-usb-uhci + usb-host" in run.stdout
