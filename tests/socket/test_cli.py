"""The command line: what is wrong ends with status 2, one line on standard error, and nothing created."""

import ctypes
import os
import socket
import subprocess

import pytest

import conftest


PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def without_rights_over_files():
    """Root, too, is to be refused what a file's mode refuses. Anybody else cannot drop this, and need not."""
    libc = ctypes.CDLL(None)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def run(*arguments, timeout=10):
    return subprocess.run([str(conftest.BINARY), *map(str, arguments)], capture_output=True, text=True,
                          timeout=timeout, stdin=subprocess.DEVNULL, preexec_fn=without_rights_over_files)


def fails(tmp_path, *arguments):
    before = sorted(os.listdir(tmp_path))
    result = run(*arguments)
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


def test_socket_path_is_a_file(tmp_path, image):
    path = tmp_path / "precious"
    path.write_text("data")
    fails(tmp_path, *serve(tmp_path, "--controller", "uhci", "--device", f"disk,file={image}", path=path))
    assert path.read_text() == "data"


def test_socket_path_in_use(tmp_path, server, image):
    fails(tmp_path, *serve(tmp_path, "--controller", "uhci", "--device", f"disk,file={image},readonly=on", path=server.path))
    assert server.serves()


def test_stale_socket_is_replaced(start, tmp_path):
    path = tmp_path / "server.sock"
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(path))  # and nobody listens
    inode = path.stat().st_ino
    server = start()
    conftest.Server.retry(lambda: path.stat().st_ino != inode or server.serves())
    assert server.serves()


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT"])
def test_signals_end_it_cleanly(server, signal_name):
    import signal

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
