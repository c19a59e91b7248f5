"""examples/layer.c: a layer that somebody else wrote."""

import subprocess


def test_counts_what_passes(examples):
    done = subprocess.run([examples.program("layer")], env=examples.environment, capture_output=True, text=True, timeout=20,
                          check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "18 bytes, success\nin: 18, out: 0\n", "")
