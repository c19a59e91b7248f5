"""`bulkhead bench engine`: what it prints, writes and says of itself. Not how fast this machine is."""

import json
import os
import pathlib
import subprocess

import pytest

BINARY = pathlib.Path(os.environ.get("BULKHEAD", pathlib.Path(__file__).parents[2] / "build" / "bulkhead")).absolute()
MODES = ["exact", "td", "buffer", "checksum", "trace", "none"]
SIZES = [1, 4, 16, 64, 256, 1024, 4096]


def bench(*arguments):
    return subprocess.run([BINARY, "bench", "engine", *map(str, arguments)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("cost") / "c.json"
    result = bench("--quick", "--json", path)
    return result, json.loads(path.read_text())


def test_every_mode_and_size_has_its_figures(run):
    _, report = run
    assert [mode["verify"] for mode in report["modes"]] == MODES
    for costs in [mode["out"] for mode in report["modes"]] + [report["in"]]:
        assert [cost["packets"] for cost in costs] == SIZES
        for cost in costs[3:]:
            assert 0 < cost["issue_ns"] and 0 < cost["replay_ns"] and 0 < cost["copy_ns"]
            assert cost["issue_ns"] + cost["replay_ns"] <= cost["total_ns"] * 1.001
            assert cost["copy_ns"] < cost["total_ns"]
    for mode in report["modes"]:
        assert [retry["packets"] for retry in mode["retries"]] == [64, 4096]
        assert all(retry["of_hundred_ns"] > 0 for retry in mode["retries"])


def test_retry_does_not_look_at_the_whole_batch(run):
    """64 times as much in the batch: were all of it looked at, a retry would cost 64 times as much."""
    _, report = run
    for mode in report["modes"]:
        small, large = (retry["of_hundred_ns"] for retry in mode["retries"])
        assert large < 8 * small


def test_the_table_has_the_figures_of_the_file(run):
    result, report = run
    row = next(line for line in result.stdout.splitlines() if line.startswith("OUT  exact")).split()[2:]
    assert [float(figure) for figure in row] == pytest.approx(
        [cost["total_ns"] for cost in report["modes"][0]["out"]], abs=0.06)


def test_says_with_its_exit_status_whether_all_was_kept(run):
    result, report = run
    assert result.returncode == (1 if report["broken"] else 0)
    assert len(result.stderr.splitlines()) == report["broken"]


@pytest.mark.parametrize("arguments, says", [
    (["--nonsense"], "unknown option '--nonsense'"),
    (["--json"], "'--json' needs a value"),
    (["more"], "unexpected argument 'more'"),
])
def test_wrong_command_line(arguments, says):
    result = bench(*arguments)
    assert result.returncode == 2 and says in result.stderr and len(result.stderr.splitlines()) == 1


def test_file_that_cannot_be_written(tmp_path):
    result = bench("--quick", "--json", tmp_path / "no" / "such.json")
    assert result.returncode == 1 and "cannot write" in result.stderr


def test_help():
    result = bench("--help")
    assert result.returncode == 0 and "--quick" in result.stdout and result.stderr == ""
