"""The command line: what is wrong ends with status 2, one line on standard error, and nothing created."""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess

import pytest

import client
import conftest

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def without_rights_over_files():
    """Root, too, is to be refused what a file's mode refuses. Anybody else cannot drop this, and need not."""
    libc = ctypes.CDLL(None)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def run(*arguments, timeout=10, fds=()):
    return subprocess.run([str(conftest.BINARY), *map(str, arguments)], capture_output=True, text=True,
                          timeout=timeout, stdin=subprocess.DEVNULL, preexec_fn=without_rights_over_files, pass_fds=fds)


def fails(tmp_path, *arguments, fds=()):
    before = sorted(os.listdir(tmp_path))
    result = run(*arguments, fds=fds)
    assert result.returncode == 2, result
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert sorted(os.listdir(tmp_path)) == before
    return result.stderr


def serve(tmp_path, *rest, path=None):
    return ["serve", "--socket-path", path or tmp_path / "s.sock", *rest]


def test_version_and_help():
    for option in ("--version", "--help"):
        result = run(option)
        assert result.returncode == 0 and result.stdout and not result.stderr


def test_no_arguments(tmp_path):
    fails(tmp_path)


def test_unknown_command(tmp_path):
    assert "frobnicate" in fails(tmp_path, "frobnicate")


@pytest.mark.parametrize("rest", [
    ["--frobnicate"], ["--controller"], ["--controller", "vhci"], ["--controller", ""],
    ["--controller", "uhci,ports=0"], ["--controller", "uhci,ports=99"], ["--controller", "uhci,ports="],
    ["--controller", "uhci,ports=2x"], ["--controller", "uhci,ports=-1"], ["--controller", "uhci,pace=warp"],
    ["--controller", "uhci,colour=red"], ["--controller", "uhci", "stray"],
    ["--controller", "uhci", "--device"], ["--controller", "uhci", "--device", "toaster"],
    ["--controller", "uhci", "--device", "disk"], ["--controller", "uhci", "--device", "disk,file="],
])
def test_wrong_options(tmp_path, rest):
    fails(tmp_path, *serve(tmp_path, *rest))


@pytest.mark.parametrize("properties", ["readonly=maybe", "colour=red", "readonly=on,readonly"])
def test_wrong_device_properties(tmp_path, image, properties):
    fails(tmp_path, *serve(tmp_path, "--controller", "uhci", "--device", f"disk,file={image},{properties}"))


def test_no_socket_path(tmp_path, image):
    fails(tmp_path, "serve", "--controller", "uhci", "--device", f"disk,file={image}")


def test_more_devices_than_ports(tmp_path, image):
    disk = ["--device", f"disk,file={image},readonly=on"]
    fails(tmp_path, *serve(tmp_path, "--controller", "uhci,ports=2", *disk, *disk, *disk))


def test_missing_image(tmp_path):
    missing = tmp_path / "missing.img"
    message = fails(tmp_path, *serve(tmp_path, "--controller", "uhci", "--device", f"disk,file={missing}"))
    assert str(missing) in message


def test_directory_as_image(tmp_path):
    fails(tmp_path, *serve(tmp_path, "--controller", "uhci", "--device", f"disk,file={tmp_path}"))


def test_unreadable_image(tmp_path, image):
    image.chmod(0)
    assert "ermission" in fails(tmp_path, *serve(tmp_path, "--controller", "uhci", "--device", f"disk,file={image}"))


def test_missing_directory_of_the_socket(tmp_path, image):
    path = tmp_path / "no" / "such.sock"
    fails(tmp_path, *serve(tmp_path, "--controller", "uhci", "--device", f"disk,file={image}", path=path))


def test_socket_path_too_long(tmp_path, image):
    path = tmp_path / ("x" * 120)
    fails(tmp_path, *serve(tmp_path, "--controller", "uhci", "--device", f"disk,file={image}", path=path))


@pytest.mark.parametrize("make", [
    lambda path: path.write_text("data"),
    lambda path: path.mkdir(),
    lambda path: path.symlink_to("nowhere"),
    lambda path: os.mkfifo(path),
], ids=["file", "directory", "symlink", "fifo"])
def test_socket_path_is_something_else(tmp_path, image, make):
    path = tmp_path / "precious"
    make(path)
    before = path.lstat()
    fails(tmp_path, *serve(tmp_path, "--controller", "uhci", "--device", f"disk,file={image}", path=path))
    after = path.lstat()
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)


@pytest.fixture(params=["no device", "another image"])
def other(request, start, image, tmp_path):
    """A server that keeps nothing of ours but the socket path."""
    if request.param == "no device":
        return start(image=None)
    return start(image=shutil.copy(image, tmp_path / "other.img"))


def fails_at_the_path_of(other, tmp_path, image):
    inode = other.path.stat().st_ino
    message = fails(tmp_path, *serve(tmp_path, "--controller", "uhci", "--device", f"disk,file={image}", path=other.path))
    assert str(other.path) in message
    assert other.path.stat().st_ino == inode


def test_socket_path_in_use(tmp_path, image, other):
    fails_at_the_path_of(other, tmp_path, image)
    assert other.serves()


def test_socket_path_in_use_by_a_server_with_a_client(tmp_path, image, other):
    with other.guest() as g:
        fails_at_the_path_of(other, tmp_path, image)
        assert g.get_info()[0] == 16
    assert other.serves()


def test_socket_path_in_use_by_a_server_that_does_not_accept(tmp_path, image, other):
    """Its queue of clients is full: connecting fails, but not as if nobody was there."""
    with contextlib.ExitStack() as waiting:
        with other.paused():
            with pytest.raises(BlockingIOError):
                while True:
                    waiting.enter_context(client.Client(other.path))
            fails_at_the_path_of(other, tmp_path, image)
    assert other.serves()


def test_stale_socket_is_replaced(start, tmp_path):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp_path / "server.sock"))  # and nobody listens
    assert start().serves()


def test_socket_of_a_killed_server_is_replaced(start):
    killed = start()
    killed.process.kill()
    killed.process.wait()
    assert killed.path.exists()
    assert start().serves()


def test_socket_of_a_successor_is_left_to_it(start, image, tmp_path):
    """The path was taken away, and somebody else serves there by now."""
    first = start()
    first.path.unlink()
    second = start(image=shutil.copy(image, tmp_path / "other.img"), path=first.path, name="second")
    assert first.terminate() == 0
    assert second.serves()


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT"])
def test_signals_end_it_cleanly(server, signal_name):
    server.process.send_signal(getattr(signal, signal_name))
    assert server.process.wait(10) == 0
    assert not server.path.exists()


def test_ends_cleanly_with_a_client(server, guest):
    assert server.terminate() == 0
    assert guest.is_gone()
    assert not server.path.exists()


def test_silent_when_all_is_well(server):
    assert server.serves()
    server.terminate()
    assert len(server.log().splitlines()) <= 4


@pytest.mark.parametrize("selector, words", [
    ("", "say which device"), ("guest-reset=off", "say which device"), ("vendorid=12345", "hexadecimal"),
    ("vendorid=0x", "hexadecimal"), ("vendorid=-1", "hexadecimal"), ("vendorid=", "hexadecimal"),
    ("productid=1", "vendorid="), ("hostbus=1", "hostport="), ("hostport=1", "hostbus="), ("hostbus=0,hostport=1", "hostbus"),
    ("hostbus=1,hostport=1,hostaddr=2", "hostport="), ("hostbus=1,hostaddr=128", "hostaddr"), ("hostbus=1,hostport=1.", "1.4.2"),
    ("hostbus=1,hostport=../1", "1.4.2"), ("fd=0,serial=x", "alone"), ("fd=0", "reading and writing"), ("fd=999", "reading and writing"),
    ("serial=x,guest-reset=perhaps", "guest-reset"),
])
def test_selectors_of_a_usb_device(tmp_path, selector, words):
    assert words in fails(tmp_path, *serve(tmp_path, "--device", f"usb,{selector}" if selector else "usb"))


def test_devices_of_this_machine(tmp_path):
    assert "frobnicate" in fails(tmp_path, "devices", "frobnicate")
    assert "--frobnicate" in fails(tmp_path, "devices", "--frobnicate")
    assert "udev rule" in run("devices", "--help").stdout
    table, listed = run("devices"), run("devices", "--json")
    if os.path.isdir("/sys/bus"):
        assert table.returncode == listed.returncode == 0 and "devices" in json.loads(listed.stdout)
        assert "PORT" in table.stdout or "no USB devices" in table.stdout
