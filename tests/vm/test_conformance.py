"""Linux's usbtest against our device zero: every test, with batches and packet by packet, with MSI and with INTx.

One boot per combination runs everything, on two devices, one with zeroes and one with a pattern. These
are done at once with whatever they are given. One more runs it on devices that take 2 ms for each
transfer, as real ones do behind a host's interface, so that what is unlinked is in flight.
Leaves build/conformance.md, tables of what was run and how long it took; docs/conformance.md
holds those of a run like that. (That testusb tells the truth is test_testusb's.)
"""

import os
import re
import types

import dmesg
import lab
import pytest
import usbtest

# What a guest runs, by the names of the table's columns: the controller, the kernel's options.
ALL_COMBINATIONS = {
    "batches, MSI": ("uhci", ""),
    "batches, INTx": ("uhci", "pci=nomsi"),
    "single packets, MSI": ("uhci,batch=off", ""),
    "single packets, INTx": ("uhci,batch=off", "pci=nomsi"),
}
# Each of the two differences once, where there is no time for all four.
COMBINATIONS = ALL_COMBINATIONS if usbtest.LONG else {
    name: what for name, what in ALL_COMBINATIONS.items() if name in ("batches, MSI", "single packets, INTx")}
ROWS = {row.test: row for row in usbtest.ROWS}
DEVICES = {0: "1-1", 1: "1-2"}

# Devices that are always at once done leave nothing to unlink, but on a wire that takes its time.
UNLINKS = [row.shorter(2) for row in usbtest.ROWS if row.test in (10, 11, 12, 13, 24, 29)]

DELAY_US = 2000
# Each transfer takes its time there, so there are fewer of them: a quarter, but for some.
SHORTER = {9: 5, 10: 10, 11: 1, 12: 1, 24: 2}
DELAYED = [row.shorter(SHORTER.get(row.test, 4)) for row in usbtest.ROWS]
# After each test that unlinks, others have to find everything in its place.
UNLINK_TESTS = (11, 12, 24)
FOLLOWERS = [ROWS[1].shorter(25), ROWS[2].shorter(25)]
TABLE = lab.TOP / "build" / "conformance.md"
DOCUMENT = lab.TOP / "docs" / "conformance.md"

START = """
for device in 1-1 1-2; do wait_for /sys/bus/usb/devices/$device:3.0 || exit 1; done
dmesg -c >/dev/null
"""
END = """
say interrupts=$(grep uhci_hcd /proc/interrupts)
""" + dmesg.WARNINGS

results = {}  # the values of each combination so far
delayed_results = {}  # and those of the devices that take their time


def run(controller, kernel_options, tests, name, options=""):
    """Boots once and runs `tests`, a script; `options` are more of the devices'."""
    if os.environ.get("LAB_CONTROLLER", "bulkhead") != "bulkhead":
        pytest.skip("the device is our own server's")
    lines = []
    devices = [f"zero,pattern={pattern}{options}" for pattern in DEVICES]
    with lab.Server(devices, controller=controller) as server:
        guest = lab.run_guest(usbtest.FUNCTIONS + START + tests + END, server, kernel_options=kernel_options, name=name,
                              timeout=1200 if usbtest.LONG else 240, on_line=lines.append)
        statistics = server.statistics()
    assert guest.values.get("dmesg") == "done"
    return types.SimpleNamespace(values=guest.values, engine=statistics["engine"],
                                 devices=statistics["devices"],
                                 complaints=dmesg.warnings(lines))


@pytest.fixture(scope="module", params=COMBINATIONS)
def ran(request):
    controller, kernel_options = COMBINATIONS[request.param]
    done = run(controller, kernel_options, usbtest.script(usbtest.ROWS, DEVICES), "conformance")
    done.batches = "batch=off" not in controller
    done.msi = not kernel_options
    results[request.param] = done.values
    write_tables()
    return done


def write_tables():
    tables = [table(usbtest.ROWS, results), table(DELAYED, delayed_results)]
    TABLE.write_text("\n".join("".join(line + "\n" for line in lines) for lines in tables))


def table(rows, results):
    """A row for each test, a column for each combination that was run; seconds for each pattern."""
    yield "| " + " | ".join(["test", "what it does", "patterns", "iterations x queue x length", *results]) + " |"
    yield "| --- " * (4 + len(results)) + "|"
    for row in sorted(rows):
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
    return run("uhci,pace=bus", "", usbtest.script(UNLINKS, DEVICES), "conformance-unlinks")


@pytest.mark.parametrize("test", [row.test for row in UNLINKS])
def test_passes_where_unlinks_hit_batches(paced, test):
    for pattern in ROWS[test].patterns:
        assert usbtest.result(paced.values, test, pattern)[0] == "passed", f"with pattern {pattern}"


def test_unlinks_did_hit_batches(paced):
    assert paced.engine["ahead_bytes"] > 0, "of an OUT"
    assert paced.engine["kept_bytes"] > 0, "of an IN"
    assert not paced.complaints


DELAYED_NAME = f"batches, MSI, {DELAY_US // 1000} ms"


@pytest.fixture(scope="module")
def delayed():
    unlinks = [row for row in DELAYED if row.test in UNLINK_TESTS]
    others = [row for row in DELAYED if row.test not in UNLINK_TESTS]
    tests = usbtest.script_after(unlinks, FOLLOWERS, DEVICES) + usbtest.script(others, DEVICES)
    done = run("uhci", "", tests, "conformance-delayed", f",delay={DELAY_US}")
    delayed_results[DELAYED_NAME] = done.values
    write_tables()
    return done


@pytest.mark.parametrize("test", sorted(ROWS))
def test_passes_where_transfers_take_time(delayed, test):
    for pattern in ROWS[test].patterns:
        assert usbtest.result(delayed.values, test, pattern)[0] == "passed", f"with pattern {pattern}"


@pytest.mark.parametrize("test", UNLINK_TESTS)
def test_what_comes_after_unlinks_is_right(delayed, test):
    for pattern in ROWS[test].patterns:
        for follower in FOLLOWERS:
            assert usbtest.result(delayed.values, follower.test, pattern, after=test)[0] == "passed", (
                f"test {follower.test} with pattern {pattern}")


def test_unlinks_did_cancel_batches_in_flight(delayed):
    # How many of 300 unlinks is the machine's affair: some come between two transfers, and on a busy
    # one most transfers of 2 ms end before anybody notices.
    assert delayed.engine["cancels"]["withdrawn"] > 0, delayed.engine["cancels"]
    assert delayed.engine["ahead_bytes"] > 0, "of an OUT"
    assert delayed.engine["kept_bytes"] > 0, "of an IN"


def test_batches_in_flight_were_large(delayed):
    moved = delayed.engine["bytes_in"] + delayed.engine["bytes_out"]
    assert moved / delayed.engine["batches"] > 16 * 64


def test_every_byte_is_accounted_for(delayed):
    # What the devices took and what the guest was told differ by what it took back, and nothing else.
    taken = sum(device[kind]["bytes_out"] for device in delayed.devices for kind in ("bulk", "interrupt", "isochronous"))
    assert taken == delayed.engine["bytes_out"] + delayed.engine["ahead_bytes"]
    assert all(device["bad_packets"] == 0 for device in delayed.devices)
    assert delayed.engine["failures"] == 0


def test_kernel_does_not_complain_of_unlinks(delayed):
    assert not [line for line in delayed.complaints if not MISSED.search(line)]


def tables_of(text):
    """The tables of that text; each a list of rows, which are lists of cells, without the line under the first."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if re.match(r"\| *test ", line):
            found.append([cells])
        elif re.match(r"\| *\d", line):
            found[-1].append(cells)
    return found


@pytest.mark.parametrize("number, rows, columns", [(0, usbtest.ROWS, [*ALL_COMBINATIONS]), (1, DELAYED, [DELAYED_NAME])])
def test_document_shows_what_is_run(number, rows, columns):
    header, *shown = tables_of(DOCUMENT.read_text())[number]
    assert header[4:] == columns
    assert [cells[:4] for cells in shown] == [
        [str(row.test), row.what, " and ".join(map(str, row.patterns)), row.load()] for row in sorted(rows)]
    for cells in shown:
        for cell in cells[4:]:
            assert re.fullmatch(r"[\d.]+ s(, [\d.]+ s)?", cell), f"test {cells[0]} did not pass there"
