"""Linux's usbtest against our device zero: every test, with batches and packet by packet, with MSI and with INTx.

One boot per combination runs everything, on two devices, one with zeroes and one with a pattern.
Leaves build/conformance.md, a table of what was run and how long it took; docs/conformance.md
holds one that was made like that. (That testusb tells the truth is test_testusb's.)
"""

import os
import re
import types

import lab
import pytest
import usbtest

# What a guest runs, by the names of the table's columns: the controller, the kernel's options.
COMBINATIONS = {
    "batches, MSI": ("uhci", ""),
    "batches, INTx": ("uhci", "pci=nomsi"),
    "single packets, MSI": ("uhci,batch=off", ""),
    "single packets, INTx": ("uhci,batch=off", "pci=nomsi"),
}
# Devices that are always at once done leave nothing to unlink, but on a wire that takes its time.
UNLINKS = [row for row in usbtest.ROWS if row.test in (10, 11, 12, 13, 24, 29)]

ROWS = {row.test: row for row in usbtest.ROWS}
DEVICES = {0: "1-1", 1: "1-2"}
TABLE = lab.TOP / "build" / "conformance.md"
DOCUMENT = lab.TOP / "docs" / "conformance.md"

START = """
for device in 1-1 1-2; do wait_for /sys/bus/usb/devices/$device:3.0 || exit 1; done
dmesg -c >/dev/null
"""
END = """
say interrupts=$(grep uhci_hcd /proc/interrupts)
dmesg -r | grep '^<[0-4]>' | sed 's/^/DM /' # warnings, and what is worse
say dmesg=done
"""

results = {}  # the values of each combination so far


def run(controller, kernel_options, rows, name):
    if os.environ.get("LAB_CONTROLLER", "bulkhead") != "bulkhead":
        pytest.skip("the device is our own server's")
    lines = []
    script = usbtest.FUNCTIONS + START + usbtest.script(rows, DEVICES) + END
    with lab.Server(["zero", "zero,pattern=1"], controller=controller) as server:
        guest = lab.run_guest(script, server, kernel_options=kernel_options, name=name,
                              timeout=1200 if usbtest.LONG else 240, on_line=lines.append)
        statistics = server.statistics()
    assert guest.values.get("dmesg") == "done"
    return types.SimpleNamespace(values=guest.values, engine=statistics["engine"],
                                 complaints=[line for line in lines if line.startswith("DM ")])


@pytest.fixture(scope="module", params=COMBINATIONS)
def ran(request):
    controller, kernel_options = COMBINATIONS[request.param]
    done = run(controller, kernel_options, usbtest.ROWS, "conformance")
    done.batches = "batch=off" not in controller
    done.msi = not kernel_options
    results[request.param] = done.values
    TABLE.write_text("\n".join(table()) + "\n")
    return done


def table():
    """A row for each test, a column for each combination that was run; seconds for each pattern."""
    yield "| " + " | ".join(["test", "what it does", "patterns", "iterations x queue x length", *results]) + " |"
    yield "| --- " * (4 + len(results)) + "|"
    for row in sorted(usbtest.ROWS):
        cells = [str(row.test), row.what, " and ".join(map(str, row.patterns)), row.scaled().load()]
        for values in results.values():
            outcomes = [usbtest.result(values, row.test, pattern) for pattern in row.patterns]
            cells.append(", ".join(f"{seconds:.2f} s" if status == "passed" else f"**{status}**"
                                   for status, seconds in outcomes))
        yield "| " + " | ".join(cells) + " |"


@pytest.mark.parametrize("test", sorted(ROWS))
def test_passes(ran, test):
    for pattern in ROWS[test].patterns:
        assert usbtest.result(ran.values, test, pattern)[0] == "passed", f"with pattern {pattern}"


# Of isochronous packets: usbtest warns of the first, and fails itself where they are more than one in ten.
MISSED = re.compile(r"usbtest .*: during the test, \d+ errors out of \d+")


def test_kernel_has_nothing_to_complain_about(ran):
    assert not [line for line in ran.complaints if not MISSED.search(line)]


def test_combination_is_what_it_is_called(ran):
    packets = ran.engine["packets_in"] + ran.engine["packets_out"]
    assert (ran.engine["batches"] < packets / 10) == ran.batches
    assert ("MSI" in ran.values["interrupts"]) == ran.msi, ran.values["interrupts"]


def test_nothing_was_taken_for_a_failure(ran):
    assert ran.engine["failures"] == 0


@pytest.fixture(scope="module")
def paced():
    return run("uhci,pace=bus", "", UNLINKS, "conformance-unlinks")


@pytest.mark.parametrize("test", [row.test for row in UNLINKS])
def test_passes_where_unlinks_hit_batches(paced, test):
    for pattern in ROWS[test].patterns:
        assert usbtest.result(paced.values, test, pattern)[0] == "passed", f"with pattern {pattern}"


def test_unlinks_did_hit_batches(paced):
    assert paced.engine["ahead_bytes"] > 0, "of an OUT"
    assert paced.engine["kept_bytes"] > 0, "of an IN"
    assert not paced.complaints


def rows_of(text):
    """The table's rows, each a list of cells."""
    return [[cell.strip() for cell in line.strip().strip("|").split("|")]
            for line in text.splitlines() if re.match(r"\| *(\d|test )", line)]


def test_document_shows_what_is_run():
    header, *shown = rows_of(DOCUMENT.read_text())
    assert header[4:] == list(COMBINATIONS)
    assert [cells[:4] for cells in shown] == [
        [str(row.test), row.what, " and ".join(map(str, row.patterns)), row.load()] for row in sorted(usbtest.ROWS)]
    for cells in shown:
        for cell in cells[4:]:
            assert re.fullmatch(r"[\d.]+ s(, [\d.]+ s)?", cell), f"test {cells[0]} did not pass there"
