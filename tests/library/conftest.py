"""The library as `make install` leaves it, and programs compiled against it, away from the source tree.

The build is that of $BULKHEAD, by default ./build. It is installed below a directory of its
own (DESTDIR), and everything after that finds the library by pkg-config only.
"""

import os
import pathlib
import shutil
import subprocess

import pytest

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BULKHEAD", TOP / "build" / "bulkhead")).absolute().parent
EXAMPLES = {"stream": ["stream.c"], "emulator": ["emulator.c", "guest.c", "machine.h"], "layer": ["layer.c"]}


def output(*command, **options):
    done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}"
    return done.stdout


class Installed:
    """An installation below root."""

    def __init__(self, root):
        self.root = root
        self.pc = next(root.rglob("bulkhead.pc"))
        self.lib = self.pc.parents[1]
        self.include = pathlib.Path(self.pkg_config("--variable=includedir")[0]) / "bulkhead"
        self.headers = sorted(path.relative_to(self.include) for path in self.include.rglob("*.h"))
        self.program = next(path for path in root.rglob("bulkhead") if path.is_file())

    def pkg_config(self, *arguments):
        environment = {**os.environ, "PKG_CONFIG_PATH": str(self.pc.parent), "PKG_CONFIG_SYSROOT_DIR": str(self.root)}
        return output("pkg-config", *arguments, "bulkhead", env=environment).split()

    def compile(self, directory, sources, *flags, compiler=None):
        """Makes directory/program of C files that are in directory; flags as pkg-config is to give them."""
        program = directory / "program"
        output(compiler or os.environ.get("CC", "cc"), "-Wall", "-Wextra", "-Werror", "-o", program, *sources,
               *self.pkg_config(*flags), cwd=directory)
        return program

    def environment(self):
        return {**os.environ, "LD_LIBRARY_PATH": str(self.lib)}


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """Everything, static and shared."""
    if not (BUILD / "build.ninja").exists():
        raise pytest.UsageError(f"{BUILD} is no build: compile first (make), or set BULKHEAD")
    root = tmp_path_factory.mktemp("installed")
    output("meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", root)
    return Installed(root)


@pytest.fixture(scope="session")
def static_only(installed, tmp_path_factory):
    """The same without the shared library: what is linked with it, is linked with the archive."""
    root = tmp_path_factory.mktemp("static") / "root"
    shutil.copytree(installed.root, root, symlinks=True)
    for path in root.rglob("libbulkhead.so*"):
        path.unlink()
    return Installed(root)


@pytest.fixture(scope="session", params=["shared", "static"])
def examples(request, tmp_path_factory):
    """examples.program("stream") is the path of an example compiled outside the tree; examples.environment to run it."""

    class Examples:
        linked = request.param
        library = request.getfixturevalue("installed" if linked == "shared" else "static_only")
        environment = library.environment()
        made = {}

        def program(self, name):
            if name not in self.made:
                directory = tmp_path_factory.mktemp(f"{name}-{self.linked}")
                for source in EXAMPLES[name]:
                    shutil.copy(TOP / "examples" / source, directory)
                self.made[name] = self.library.compile(
                    directory, [source for source in EXAMPLES[name] if source.endswith(".c")], "--cflags", "--libs",
                    *(["--static"] if self.linked == "static" else []))
            return self.made[name]

    Examples.made = {}
    return Examples()
