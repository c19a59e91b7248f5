"""`bulkhead bench turnaround`: its figures, its files, its exit status."""

import json
import math
import os
import pathlib
import re
import subprocess
import xml.etree.ElementTree

import pytest

BINARY = pathlib.Path(os.environ.get("BULKHEAD", pathlib.Path(__file__).parents[2] / "build" / "bulkhead")).absolute()
# Sanitizers make it slow; the largest transfers show nothing about them that smaller ones do not.
LARGEST = 262144 if "BULKHEAD_SANITIZED" in os.environ else 4 << 20
MODES = ["exact", "td", "buffer", "checksum", "trace", "none"]
LIMIT = 1216000
SVG = "{http://www.w3.org/2000/svg}"


def bench(*arguments, name="turnaround", timeout=300):
    command = [BINARY, "bench", *([name] if name else []), *map(str, arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)


class Run:
    def __init__(self, directory):
        self.json, self.svg = directory / "t.json", directory / "t.svg"
        self.result = bench("--max-size", LARGEST, "--json", self.json, "--plot", self.svg)
        assert self.result.stderr == ""
        assert self.result.returncode == 0
        self.report = json.loads(self.json.read_text())
        self.rows = self.report["rows"]

    def everything(self):
        return self.result.stdout, self.json.read_bytes(), self.svg.read_bytes()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("first"))


def table(stdout):
    """Yields (modes, rows) of each table; a row is a dictionary."""
    for part in re.split(r"^verification: ", stdout, flags=re.M)[1:]:
        lines = part.splitlines()
        head = re.fullmatch(r"(.*) \((\w+)\)", lines[0])
        keys = ("direction", "bytes", "packets", "frames", "worst", "bound", "rate", "percent", "single", "factor")
        rows = [dict(zip(keys, line.split(), strict=True)) for line in lines[2:] if line]
        yield head[1].split(", "), rows


def test_two_runs_give_the_same_bytes(run, tmp_path):
    assert run.everything() == Run(tmp_path).everything()


def test_every_mode_direction_and_size_is_there(run):
    measured = {(row["verify"], row["direction"]) for row in run.rows}
    assert measured == {(mode, direction) for mode in MODES for direction in ("in", "out")}
    sizes = [row["bytes"] for row in run.rows if (row["verify"], row["direction"]) == ("exact", "in")]
    assert sizes == sorted(sizes)
    assert {1 << n for n in range(6, LARGEST.bit_length())} | {63, 65, 1216, 1280, 100000} == set(sizes)
    for mode in MODES:
        for direction in ("in", "out"):
            assert [r["bytes"] for r in run.rows if (r["verify"], r["direction"]) == (mode, direction)] == sizes


def test_bounds_hold(run):
    assert run.report["broken"] == 0
    for row in run.rows:
        packets = math.ceil(row["bytes"] / 64)
        bound = math.ceil(packets / 19) + 2
        assert (row["packets"], row["bound_frames"], row["batches"]) == (packets, bound, 1)
        assert row["batch_us"] <= row["worst_us"] <= bound * 1000
        # No faster than the bus, either: what is sent has to be told at a later edge.
        assert row["batch_us"] >= (math.ceil(packets / 19) + 1) * 1000
        if row["bytes"] >= 256 * 1024:
            assert row["bytes"] / (row["worst_us"] / 1e6) >= 0.97 * LIMIT


def test_packet_at_a_time_is_the_patents_32_kb_per_second(run):
    for row in run.rows:
        assert row["packet_at_a_time_us"] == 2000 * row["packets"]
        if row["bytes"] % 64 == 0:
            assert row["packet_at_a_time_kb_per_second"] == 32.0


def test_table_says_what_the_json_says(run):
    seen = 0
    for modes, rows in table(run.result.stdout):
        for mode in modes:
            expected = [row for row in run.rows if row["verify"] == mode]
            assert len(rows) == len(expected)
            for row, other in zip(rows, expected):
                assert row["direction"].lower() == other["direction"]
                assert [int(row[key]) for key in ("bytes", "packets", "frames", "worst", "bound")] == [
                    other[key] for key in ("bytes", "packets", "frames", "worst_frames", "bound_frames")]
                rate = other["bytes"] * 1000 / other["batch_us"]
                assert float(row["rate"]) == pytest.approx(rate, abs=0.051)
                assert float(row["percent"]) == pytest.approx(rate * 100000 / LIMIT, abs=0.0051)
                assert float(row["single"]) == pytest.approx(other["packet_at_a_time_kb_per_second"], abs=0.051)
                assert float(row["factor"]) == pytest.approx(
                    other["packet_at_a_time_us"] / other["batch_us"], abs=0.0051)
                seen += 1
    assert seen == len(run.rows)


@pytest.mark.parametrize("when", ["retry", "completion"])
def test_bounds_hold_whenever_changes_are_looked_for(when):
    result = bench("--verify-when", when, "--max-size", 262144)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"({when})" in result.stdout
    assert any("262144" == row["bytes"] for _, rows in table(result.stdout) for row in rows)


def test_broken_bound_is_told_and_gives_1(tmp_path):
    """An engine that looks no further than 32 packets cannot keep to it."""
    result = bench("--verify", "exact", "--batch", 32, "--max-size", 262144, "--json", tmp_path / "t.json")
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert "exact, 262144 bytes IN: 385 frames, at most 218 are allowed (batches: 128)" in lines
    assert "exact, 262144 bytes OUT: 55.99 % of the bus limit, at least 97 % are due" in lines
    report = json.loads((tmp_path / "t.json").read_text())
    assert report["broken"] == len(lines)


def test_one_mode_alone(run):
    result = bench("--verify", "checksum", "--max-size", 4096)
    (modes, rows), = table(result.stdout)
    assert modes == ["checksum"]
    assert max(int(row["bytes"]) for row in rows) == 4096


def test_plot_is_svg_with_everything_named(run):
    root = xml.etree.ElementTree.fromstring(run.svg.read_bytes())
    assert root.tag == SVG + "svg"
    texts = {element.text for element in root.iter(SVG + "text")}
    assert {"KB/s", "% of the bus limit", "size of the guest's transfer", "batch, IN", "batch, OUT",
            "packet at a time", "64 B", "256 KiB", "what the bus carries: 1216 KB/s"} <= texts
    sizes = {row["bytes"] for row in run.rows}
    lines = [element.get("points").split() for element in root.iter(SVG + "polyline")]
    assert [len(points) for points in lines] == [len(sizes)] * 4
    _, _, width, height = map(float, root.get("viewBox").split())
    for points in lines:
        places = [tuple(map(float, point.split(","))) for point in points]
        assert places == sorted(places, key=lambda place: place[0])
        assert all(0 < x < width and 0 < y < height for x, y in places)
    # It comes with its own background and looks after dark viewers.
    assert root.find(SVG + "rect").get("class") == "paper"
    assert "prefers-color-scheme: dark" in root.find(SVG + "style").text


def test_plot_of_the_smallest_sizes(tmp_path):
    assert bench("--max-size", 64, "--plot", tmp_path / "t.svg").returncode == 0
    assert b"nan" not in (tmp_path / "t.svg").read_bytes()
    xml.etree.ElementTree.parse(tmp_path / "t.svg")


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_file_that_cannot_be_written(option, tmp_path):
    path = tmp_path / "nowhere" / "file"
    result = bench("--verify", "exact", "--max-size", 64, option, path)
    assert result.returncode == 1
    assert result.stderr == f"bulkhead bench turnaround: cannot write {path}: No such file or directory\n"


def test_files_are_replaced_and_nothing_is_left(tmp_path):
    path = tmp_path / "t.json"
    path.write_text("old")
    os.link(path, tmp_path / "other name")
    assert bench("--verify", "exact", "--max-size", 64, "--json", path).returncode == 0
    json.loads(path.read_text())
    assert (tmp_path / "other name").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_no_plain_file_is_written_to():
    result = bench("--verify", "exact", "--max-size", 64, "--json", "/dev/stderr")
    assert json.loads(result.stderr)["benchmark"] == "turnaround"


def test_full_disk_is_an_error():
    with open("/dev/full", "w") as full:
        result = subprocess.run([BINARY, "bench", "turnaround", "--verify", "exact", "--max-size", "64"],
                                stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr == "bulkhead bench turnaround: cannot write the table: No space left on device\n"


@pytest.mark.parametrize("arguments, said", [
    (["--verify", "twice"], "--verify twice is no mode"),
    (["--verify-when", "never"], "--verify-when never is no mode"),
    (["--max-size", "63"], "--max-size 63 is no number from 64 to 4194304"),
    (["--max-size", "4194305"], "--max-size 4194305 is no number from 64 to 4194304"),
    (["--max-size", "1M"], "--max-size 1M is no number from 64 to 4194304"),
    (["--batch", "0"], "--batch 0 is no number from 1 on"),
    (["--json"], "'--json' needs a value"),
    (["--colour"], "unknown option '--colour'"),
    (["more"], "unexpected argument 'more'"),
])
def test_wrong_command_lines(arguments, said):
    result = bench(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"bulkhead bench turnaround: {said}; see 'bulkhead bench turnaround --help'\n"


def test_help_and_list():
    result = bench("--help")
    assert result.returncode == 0
    for option in ("--verify", "--verify-when", "--max-size", "--batch", "--json", "--plot"):
        assert option in result.stdout
    result = bench("--help", name=None)
    assert result.returncode == 0
    assert re.search(r"^  turnaround  ", result.stdout, re.M)
    for name, said in ((None, "say which"), ("nothing", "no benchmark 'nothing'")):
        result = bench(name=name)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.startswith(f"bulkhead bench: {said}\n")
        assert re.search(r"^  turnaround  ", result.stderr, re.M)
    result = subprocess.run([BINARY, "--help"], capture_output=True, text=True, timeout=60)
    assert "bulkhead bench NAME" in result.stdout
