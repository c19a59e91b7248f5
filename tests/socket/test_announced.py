"""The lines printed at start can be pasted into a shell, whatever the path looks like."""

import json
import os
import shlex

import pytest

PATHS = ["plain", "a space", "it's", 'say "x"', "it's \"x\" y", "back\\slash", "$HOME`x`", "ünïcödé", "--x", "50%s%n"]


def words(server, option):
    """What a shell makes of the printed line with that option: the word after it."""
    assert server.terminate() == 0
    text = server.stdout.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if option in line.split()]
    assert len(lines) == 1, text
    line = shlex.split(lines[0])
    return line[line.index(option) + 1]


def qemu_path(server):
    device = json.loads(words(server, "-device"))
    assert device["driver"] == "vfio-user-pci"
    assert device["socket"]["type"] == "unix"
    return device["socket"]["path"]


def cloud_hypervisor_path(server):
    key, _, path = words(server, "--user-device").partition("=")
    assert key == "socket"
    return path


@pytest.mark.parametrize("printed", [qemu_path, cloud_hypervisor_path])
@pytest.mark.parametrize("name", PATHS)
def test_path_as_given(start, tmp_path, printed, name):
    server = start(path=tmp_path / name)
    assert printed(server) == str(tmp_path / name)


@pytest.mark.parametrize("printed", [qemu_path, cloud_hypervisor_path])
def test_relative_path(start, tmp_path, printed, monkeypatch):
    """As it was given, or absolute: both lead there from where it was started."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "below").mkdir()
    server = start(path=tmp_path.joinpath("below/x.sock").relative_to(tmp_path))
    assert os.path.abspath(printed(server)) == str(tmp_path / "below" / "x.sock")


def test_path_that_is_not_text(start, tmp_path):
    """JSON cannot hold it; it is served all the same."""
    assert start(path=tmp_path / os.fsdecode(b"\xff\xfe.sock")).serves()
