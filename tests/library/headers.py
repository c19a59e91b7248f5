"""What C headers declare: the names of functions and objects with external linkage."""

import re


def without_bodies(text):
    """The text without comments, directives and what is in braces."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = re.sub(r"\\\n", " ", text)
    text = re.sub(r"^\s*#.*$", "", text, flags=re.M)
    text = text.replace('extern "C" {', "")
    while True:
        shorter = re.sub(r"\{[^{}]*\}", "{;", text)
        shorter = shorter.replace("{;", "\0")
        if shorter == text:
            return text.replace("\0", "{}")
        text = shorter


def declared(path):
    """Names of what the header declares for the linker: functions that are not inline, extern objects."""
    names = set()
    for declaration in re.split(r";|\{\}", without_bodies(path.read_text())):
        declaration = " ".join(declaration.split())
        if declaration.startswith(("typedef", "static", "_Static_assert")):
            continue
        function = re.match(r"^[\w\s\*]+?\b(\w+)\s*\(", declaration)
        variable = re.match(r"^extern\b.*?\b(\w+)(\[\w*\])?$", declaration)
        if function:
            names.add(function.group(1))
        elif variable:
            names.add(variable.group(1))
    return names
