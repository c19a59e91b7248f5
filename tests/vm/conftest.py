"""What every test in a virtual machine shares. LAB_CONTROLLER=qemu runs them on QEMU's own UHCI."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.append(os.path.dirname(os.path.dirname(__file__)))  # what is shared with other folders
import lab  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def _prepared_lab():
    lab.prepare()


@pytest.fixture
def controller():
    return os.environ.get("LAB_CONTROLLER", "bulkhead")


@pytest.fixture
def directory():
    with lab.scratch("test-") as path:
        yield path
