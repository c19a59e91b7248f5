"""--statistics: counters as JSON, when asked by SIGUSR1 and at the end; never over a disk."""

import json
import os
import signal

import pytest

import uhci
from test_cli import fails, serve

KEYS = {"engine", "bus", "uhci", "devices", "vfio_user"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "statistics.json"


@pytest.fixture
def counting(start, path):
    return start(options=["--statistics", path])


def ask(server, path):
    """What SIGUSR1 makes the server write."""
    path.unlink(missing_ok=True)
    server.process.send_signal(signal.SIGUSR1)
    uhci.Uhci.until(path.exists, "statistics")
    return read(path)


def read(path):
    statistics = json.loads(path.read_text())
    assert KEYS <= statistics.keys()
    return statistics


def test_sigusr1_writes_and_it_goes_on_serving(counting, path):
    with counting.guest() as g:
        disk = uhci.open_disk(g)
        before = ask(counting, path)
        assert disk.read(7, 1) == (7).to_bytes(4, "little") * 128
        after = ask(counting, path)
    assert after["devices"][0]["bytes_read"] - before["devices"][0]["bytes_read"] == 512
    assert after["engine"]["bytes_in"] - before["engine"]["bytes_in"] >= 512
    assert counting.serves()


def test_sigusr1_replaces_what_was_there(counting, path):
    path.write_text("old " * 10000)
    inode = path.stat().st_ino
    counting.process.send_signal(signal.SIGUSR1)
    uhci.Uhci.until(lambda: path.stat().st_ino != inode, "statistics")
    read(path)


def test_written_at_the_end(counting, path):
    with counting.guest() as g:
        assert uhci.open_disk(g).read(0, 1) == bytes(512)
    assert counting.terminate() == 0
    assert read(path)["devices"][0]["bytes_read"] >= 512


def test_written_at_the_end_with_a_client(counting, path):
    with counting.guest():
        assert counting.terminate() == 0
    assert read(path)["vfio_user"]["clients"] == 1


def test_written_at_the_end_after_sigusr1(counting, path):
    assert ask(counting, path)["vfio_user"]["clients"] == 0
    assert counting.serves()
    assert counting.terminate() == 0
    assert read(path)["vfio_user"]["clients"] >= 1


def test_nothing_else_is_left_behind(counting, path, tmp_path):
    before = set(os.listdir(tmp_path))
    ask(counting, path)
    assert counting.terminate() == 0
    assert set(os.listdir(tmp_path)) - before == {path.name} and not counting.path.exists()


def test_without_the_option_sigusr1_does_no_harm(server):
    server.process.send_signal(signal.SIGUSR1)
    assert server.serves()


@pytest.mark.parametrize("link", [None, os.symlink, os.link], ids=["itself", "symlink", "hard link"])
@pytest.mark.parametrize("properties", ["", ",readonly=on"])
def test_the_image_is_not_written_over(tmp_path, image, path, link, properties):
    before = image.read_bytes()
    if link:
        link(image, path)
    fails(tmp_path, *serve(tmp_path, "--device", f"disk,file={image}{properties}",
                           "--statistics", path if link else image))
    assert image.read_bytes() == before


def test_an_image_named_by_a_symlink_is_not_written_over(tmp_path, image, path):
    before = image.read_bytes()
    path.symlink_to(image)
    fails(tmp_path, *serve(tmp_path, "--device", f"disk,file={path}", "--statistics", image))
    assert image.read_bytes() == before


def test_an_image_with_a_similar_name_is_not_written_over(start, image, path):
    """Statistics are first written beside their file: not into what is there already."""
    disk = image.rename(f"{path}.new")
    before = disk.read_bytes()
    server = start(image=disk, options=["--statistics", path])
    ask(server, path)
    assert server.terminate() == 0
    assert disk.read_bytes() == before


def test_directory_that_does_not_exist(tmp_path, image):
    fails(tmp_path, *serve(tmp_path, "--device", f"disk,file={image}", "--statistics", tmp_path / "no" / "such.json"))


def test_directory_that_may_not_be_written(tmp_path, image):
    directory = tmp_path / "shut"
    directory.mkdir(mode=0o555)
    fails(tmp_path, *serve(tmp_path, "--device", f"disk,file={image}", "--statistics", directory / "x.json"))


def test_directory_itself(tmp_path, image):
    directory = tmp_path / "directory"
    directory.mkdir()
    fails(tmp_path, *serve(tmp_path, "--device", f"disk,file={image}", "--statistics", directory))
    assert directory.is_dir()
