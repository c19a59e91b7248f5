"""The demonstration works, in its short form, and leaves the figures it promises."""

import json
import os
import subprocess

import lab


def test_quick_demo_leaves_correct_figures(controller, directory):
    figures = directory / "demo.json"
    command = ["/usr/bin/python3", lab.TOP / "bench" / "demo.py", "--quick", "--json", figures]
    only = ["--only", "qemu"] if controller == "qemu" else []
    done = subprocess.run(command + only, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=600)
    assert done.returncode == 0, done.stdout
    report = json.loads(figures.read_text())
    assert report["data_ok"] is True
    assert report["qemu_uhci"]["read_mbps"] > 0 and report["qemu_uhci"]["write_mbps"] > 0
    if not only:
        assert report["bulkhead_uhci"]["read_mbps"] > 0 and report["bulkhead_uhci"]["write_mbps"] > 0
        assert set(report["ratio"]) == {"read", "write"}
    assert os.listdir(directory) == ["demo.json"], "the demo left something behind"
