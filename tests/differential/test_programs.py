"""Each program on both controllers; and what is known of their differences is all true."""

import os
import pathlib

import pytest

import known
from programs import PROGRAMS

TABLE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "conformance-uhci.md"
KINDS = ["uhci", "uhci,batch=off"]
if "BULKHEAD_TEST_LONG" in os.environ:
    KINDS.append("uhci,pace=bus")

of_every_kind = pytest.mark.parametrize("pair", KINDS, indirect=True, scope="session")


@of_every_kind
@pytest.mark.parametrize("name", PROGRAMS)
def test_guest_sees_the_same(comparison, name):
    found = comparison.run(name, PROGRAMS[name])
    assert not found, "\n".join(map(str, found))


@of_every_kind
def test_every_known_difference_was_seen(comparison):
    """An entry that explains nothing any more hides what comes next."""
    if comparison.ran != set(PROGRAMS):
        pytest.skip("not all programs ran")
    unseen = [f"{entry.what}: {see}" for entry in known.KNOWN for see in entry.seen
              if (entry.what, see) not in comparison.used]
    assert not unseen, "\n".join(unseen)


def test_the_table_in_the_documentation_is_this_one():
    assert known.table() in TABLE.read_text(), f"put the output of {known.__file__} into {TABLE}"
