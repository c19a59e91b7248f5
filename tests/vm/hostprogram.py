"""Programs of this machine in a guest: with the libraries they need, as files of its initrd."""

import pathlib
import re
import shutil
import subprocess

import lab


def bring(*names):
    """{name: bytes} for run_guest's files, and in a script `$on_host NAME ARGUMENT...` runs one of them."""
    files = {}
    for name in names:
        path = shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/sbin")
        if not path:
            raise lab.LabError(f"no {name} here: run tools/setup test")
        files[name] = pathlib.Path(path).read_bytes()
        needs = subprocess.run(["ldd", path], stdout=subprocess.PIPE, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", needs):
            files[pathlib.Path(library).name] = pathlib.Path(library).read_bytes()
    loader, = (name for name in files if name.startswith("ld-linux"))
    return files, f'on_host="/{loader} --library-path /"\n'
