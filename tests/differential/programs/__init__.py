"""The programs, by subject. Each is a generator function of one argument, the controller.

It acts, and yields the name of a point at which both controllers are brought to rest and compared.
`PROGRAMS` has them all, by "subject.name".
"""

import importlib

SUBJECTS = ("pci", "registers", "ports", "schedule", "descriptors", "control", "errors", "running", "bulk", "midway",
            "plugging", "hubs", "keyboard", "isochronous")
PROGRAMS = {}


def program(function):
    PROGRAMS[f"{function.__module__.rpartition('.')[2]}.{function.__name__}"] = function
    return function


def _load():
    for subject in SUBJECTS:
        importlib.import_module(f"programs.{subject}")


_load()
