#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the form of the sources ("make check-style").  Prints each offence, and exits with 1 if there is any.

Everywhere: at most 120 columns, no tabs (but in makefiles), no trailing blanks, a final newline, an SPDX line.  C: a
comment at the top that says what the file is for; public headers compile by themselves, as C and, where there is a
compiler, as C++.  Shell and Python: they parse.  ovs-patch/: what OVS's own checkpatch says."""

import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SKIP_DIRS = {".git", "build", "__pycache__"}
COLUMNS = 120
CODE = re.compile(r"\.(c|h|sh|py|mk|map|pml)$|(^|/)(Makefile|run)$")
TABS = re.compile(r"\.mk$|(^|/)Makefile$")

offences = []


def offend(path, line, what):
    offences.append(f"{path}:{line}: {what}" if line else f"{path}: {what}")


def sources():
    for folder, dirs, files in os.walk(ROOT):
        dirs[:] = sorted(set(dirs) - SKIP_DIRS)
        for name in sorted(files):
            path = os.path.relpath(os.path.join(folder, name), ROOT)
            if CODE.search(path):
                yield path


def check_text(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        text = f.read()
    for i, line in enumerate(text.split("\n"), 1):
        if len(line) > COLUMNS:
            offend(path, i, f"{len(line)} columns, more than {COLUMNS}")
        if line != line.rstrip():
            offend(path, i, "blanks at the end of the line")
        if "\t" in line and not TABS.search(path):
            offend(path, i, "tab")
    if text and not text.endswith("\n"):
        offend(path, 0, "no newline at the end")
    head = text[:400]
    if "SPDX-License-Identifier: Apache-2.0" not in head:
        offend(path, 0, "no SPDX-License-Identifier line")
    # A header may say it for its source, too.
    has_header = path.endswith(".c") and os.path.exists(os.path.join(ROOT, path[:-2] + ".h"))
    if re.search(r"\.[ch]$", path) and head.count("/*") < 2 and not has_header:
        offend(path, 0, "no comment at the top that says what the file is for")


def check_command(path, command):
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        offend(path, 0, f"'{' '.join(command)}' says:\n{done.stdout.rstrip()}")


def check_public_header(path):
    common = ["-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-Ilibp2plink/include"]
    check_command(path, ["gcc", "-std=c11", "-x", "c", "-pedantic", *common, path])
    if shutil.which("g++"):
        check_command(path, ["g++", "-std=c++11", "-x", "c++", *common, path])


def main():
    n = 0
    for path in sources():
        n += 1
        check_text(path)
        if re.search(r"\.sh$|^\.ci/run$", path):
            check_command(path, ["bash", "-n", path])
        elif path.endswith(".py"):
            check_command(path, [sys.executable, "-c", f"compile(open({path!r}).read(), {path!r}, 'exec')"])
        elif path.startswith("libp2plink/include/"):
            check_public_header(path)
    checkpatch = os.path.join(ROOT, "build", "ovs-src", "utilities", "checkpatch.py")
    patches = sorted(p for p in os.listdir(os.path.join(ROOT, "ovs-patch")) if p.endswith(".patch"))
    if patches and not os.path.exists(checkpatch):
        print("check-style: the series is not checked: 'make ovs' first", file=sys.stderr)
        patches = []
    for name in patches:
        check_command(f"ovs-patch/{name}", [sys.executable, checkpatch, "-q", f"ovs-patch/{name}"])
    print(*offences, sep="\n", end="\n" if offences else "")
    print(f"check-style: {n} files and {len(patches)} patches, {len(offences)} offences")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
