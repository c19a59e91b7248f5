"""What the documents tell a newcomer to type: every command of every page is run as it stands.

A command is a line that stands four columns in. Those of one page are run one after the other in
an empty directory in which `build` is where the program is. A server has to say that it is ready,
and to end well when it is told to. What needs another machine, or a guest, is only looked at: see
ELSEWHERE.
"""

import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import time

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
PAGES = [TOP / "README.md", TOP / "docs" / "layers.md", TOP / "docs" / "translation.md", *sorted(page for page in (TOP / "docs" / "devices").glob("*.md") if page.stem != "README")]
SERVERS = r"build/bulkhead (serve|export)\b"
READY = ("bulkhead: waiting at", "bulkhead: serving", "bulkhead: exporting")
MEASURES = ("build/bulkhead bench",)  # has tests of its own, alone
LISTS = ("build/bulkhead devices",)   # ends with 1 where there is no USB, or no server
HERE = ("build/bulkhead", "truncate", "mkfifo", "nbdkit", "dd", "cp", "mkdir", "printf")
# Programs of other machines, of guests, and for people; and those that would change this one.
ELSEWHERE = ("ssh", "qemu-system-x86_64", "qemu-nbd", "qemu-img", "usbip", "usbipd", "usbredirect", "modprobe", "sudo", "make",
             "echo", "mount", "lsusb", "udevadm", "apt-get", "tools/qemu", "/usr/bin/python3", "virsh", "remote-viewer", "wg")


def commands(page):
    """The lines of it that are commands, whole."""
    text = page.read_text().replace("\\\n", " ")
    for line in re.findall(r"^ {4}(\S.*)$", text, re.M):
        if re.match(r"[\w./-]+( |$)", line) and not line.startswith(("--", "-", "...")):
            yield re.sub(r"\s+", " ", line).strip()


def is_server(command):
    return re.match(SERVERS, command) and "help" not in command


@pytest.fixture
def place(tmp_path):
    """A directory with what the pages take for granted."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "bulkhead").symlink_to(os.environ.get("BULKHEAD", TOP / "build" / "bulkhead"))
    with open(tmp_path / "disk.img", "wb") as disk:
        disk.truncate(16 << 20)
    for name in ("to-guest", "from-guest"):
        (tmp_path / name).touch()
    yield tmp_path
    for name in tmp_path.glob("*.pid"):  # of servers that a page has started
        try:
            os.kill(int(name.read_text()), signal.SIGTERM)
        except (ValueError, ProcessLookupError):
            pass


def serve(command, place):
    process = subprocess.Popen(f"exec {command}", shell=True, cwd=place, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, start_new_session=True)
    said, deadline = b"", time.monotonic() + 20
    try:
        while not any(word in said.decode() for word in READY):
            left = deadline - time.monotonic()
            assert left > 0 and select.select([process.stdout], [], [], left)[0], f"{command}: {said.decode()}"
            piece = os.read(process.stdout.fileno(), 65536)
            assert piece, f"{command}\nended: {said.decode()}"
            said += piece
        process.terminate()
        assert process.wait(20) == 0, f"{command}\n{said.decode()}{process.stdout.read().decode()}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_can_be_typed(page, place):
    ran = 0
    for command in commands(page):
        program = command.split()[0]
        if program in ELSEWHERE or command.startswith(MEASURES + LISTS):
            continue
        assert program in HERE, f"{page.name}: is {command!r} to be run, or to be passed over?"
        if program == "nbdkit" and not shutil.which(program):
            pytest.skip("nbdkit is not installed")
        if is_server(command):
            serve(command, place)
        else:
            subprocess.run(command, shell=True, cwd=place, check=True, stdin=subprocess.DEVNULL, timeout=60)
        ran += 1
    assert ran, f"{page.name} has no command at all"
