"""What is installed: headers, names, versions."""

import ctypes
import os
import re
import shutil

import pytest

import headers
from conftest import TOP, output


def compiles(directory, compiler, standard, text, *flags):
    source = directory / ("program.cc" if "++" in compiler else "program.c")
    source.write_text(text)
    output(compiler, f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", source, *flags)


def exported(path):
    """Names a shared library defines for others."""
    lines = output("nm", "-D", "--defined-only", path).splitlines()
    return {name.split("@")[0] for _, kind, name in map(str.split, lines) if kind != "A"}


def version():
    return re.search(r"version: '([\d.]+)'", (TOP / "meson.build").read_text()).group(1)


def test_every_header_compiles_alone(installed, tmp_path):
    compiler = os.environ.get("CC", "cc")
    assert len(installed.headers) >= 15
    for header in installed.headers:
        compiles(tmp_path, compiler, "c17", f"#include <{header}>\n#include <{header}>\nint main(void) {{ return 0; }}\n",
                 *installed.pkg_config("--cflags"))


def test_the_umbrella_includes_every_header(installed, tmp_path):
    source = tmp_path / "all.c"
    source.write_text("#include <bulkhead.h>\n")
    included = output(os.environ.get("CC", "cc"), "-M", source, *installed.pkg_config("--cflags"))
    missing = [header for header in installed.headers if f"{installed.include}/{header}" not in included]
    assert not missing, f"include/bulkhead/bulkhead.h does not include {missing}"


@pytest.mark.skipif(not shutil.which("c++"), reason="there is no C++ compiler here (g++)")
def test_the_umbrella_is_fit_for_cpp(installed, tmp_path):
    source = tmp_path / "program.cc"
    source.write_text("#include <bulkhead.h>\nint main() { return bh_version()[0] == 0 || !bh_status_name(BH_STALL); }\n")
    program = installed.compile(tmp_path, [source], "--cflags", "--libs", compiler="c++")
    output(program, env=installed.environment())


def test_exports_what_the_headers_declare_and_nothing_else(installed):
    declared = set().union(*(headers.declared(installed.include / header) for header in installed.headers))
    names = exported(installed.lib / "libbulkhead.so")
    assert len(declared) > 60
    missing, extra = sorted(declared - names), sorted(names - declared)
    assert not missing, f"declared, not exported: add to src/libbulkhead.map (or define) {missing}"
    assert not extra, f"exported, not declared in an installed header: {extra}"


def test_the_archive_has_all_of_it(static_only):
    archive = static_only.lib / "libbulkhead.a"
    with open(archive, "rb") as f:
        assert f.read(8) == b"!<arch>\n"  # "!<thin>\n" would be a list of files in the build
    declared = set().union(*(headers.declared(static_only.include / header) for header in static_only.headers))
    fields = [line.split() for line in output("nm", "-g", "--defined-only", archive).splitlines()]
    names = [field[2] for field in fields if len(field) == 3]
    assert declared <= set(names)
    assert len(names) == len(set(names)), "defined twice"


def test_the_map_lists_one_name_a_line_in_order():
    names = re.findall(r"^\t(\w+);$", (TOP / "src" / "libbulkhead.map").read_text(), re.M)
    assert names and names == sorted(set(names))


def test_version_and_soname(installed):
    assert installed.pkg_config("--modversion") == [version()]
    file = (installed.lib / "libbulkhead.so").resolve()
    assert file.name == f"libbulkhead.so.{version()}"
    assert "soname: [libbulkhead.so.0]" in output("readelf", "-d", file)
    assert (installed.lib / "libbulkhead.so.0").resolve() == file
    function = ctypes.CDLL(str(file)).bh_version
    function.restype = ctypes.c_char_p
    assert function().decode() == version()


def test_the_macros_say_the_version(installed, tmp_path):
    number = version().split(".")
    compiles(tmp_path, os.environ.get("CC", "cc"), "c17", f"""#include <bulkhead.h>
_Static_assert(BH_VERSION_MAJOR == {number[0]} && BH_VERSION_MINOR == {number[1]} && BH_VERSION_PATCH == {number[2]}, "");
_Static_assert(sizeof(BH_VERSION) == sizeof("{version()}"), "");
""", *installed.pkg_config("--cflags"))


def test_pkg_config_does_not_burden_shared_users(installed):
    """libuv is in the interface (a disk needs a loop); what is inside the library is not."""
    shared, static = installed.pkg_config("--libs"), installed.pkg_config("--libs", "--static")
    assert "-lbulkhead" in shared and "-luv" in shared and "-ljansson" not in shared
    assert {"-lbulkhead", "-luv", "-ljansson"} <= set(static)


def test_the_program_does_not_need_the_library(installed):
    assert "libbulkhead" not in output("ldd", installed.program)
