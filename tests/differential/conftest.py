"""One QEMU with both controllers in it, and our server, for all tests of this folder."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(__file__))
import compare  # noqa: E402
import controller  # noqa: E402
import hands  # noqa: E402
import qtest  # noqa: E402
from qtest import lab  # noqa: E402

QEMU_SLOT, OUR_SLOT = 4, 5
IMAGE_SIZE = 1 << 20


def image(path):
    """Every block is one that tells where it was read from."""
    path.write_bytes(b"".join(n.to_bytes(2, "little") * 256 for n in range(IMAGE_SIZE // 512)))
    return path


@contextlib.contextmanager
def machine(kind):
    """The two controllers in one QEMU, each with a disk of the same content; ours is of the kind given."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(lab.scratch("differential-"))
        # Not under build/: a socket's path has at most 107 characters.
        sockets = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bulkhead-")))
        control, monitor = sockets / "control", sockets / "monitor"
        server = stack.enter_context(lab.BulkheadDisk(image(directory / "ours.img"),
                                                      controller=kind, options=["--control", control]))
        address = {"path": str(server.socket), "type": "unix"}
        file = str(image(directory / "qemu.img")).replace(",", ",,")
        q = stack.enter_context(qtest.Qtest(sockets, [
            "-device", f"piix3-usb-uhci,id=uhci,addr={QEMU_SLOT}",
            "-drive", f"if=none,id=disk,format=raw,file={file}",
            "-device", "usb-storage,bus=uhci.0,port=1,drive=disk",
            "-audiodev", "none,id=silence",
            "-qmp", f"unix:{monitor},server=on,wait=off",
            "-device", json.dumps({"driver": "vfio-user-pci", "addr": str(OUR_SLOT), "socket": address})]))
        yield (controller.QemuUhci(q, QEMU_SLOT, 0xC000, 1 << 20, hands.QemuHands(monitor)),
               controller.Bulkhead(q, OUR_SLOT, 0xC040, 2 << 20, hands.OurHands(control)))


@pytest.fixture(scope="session")
def prepared():
    """QEMU, fetched if need be: it may be missing at a desk, never where CI is set."""
    if subprocess.run([lab.TOP / "tools" / "qemu", "--prepare"], stdin=subprocess.DEVNULL).returncode:
        (pytest.fail if "CI" in os.environ else pytest.skip)("no QEMU that speaks vfio-user, and none to be had")


@pytest.fixture(scope="session")
def pair(prepared, request):
    """With batches as they are, unless a test asks for another kind of controller."""
    with machine(getattr(request, "param", "uhci")) as both:
        yield both


@pytest.fixture(scope="session")
def comparison(pair):
    return compare.Comparison(*pair)
