# SPDX-License-Identifier: Apache-2.0
"""Huge pages for as long as a lab runs.

The pool is raised by so many pages, and lowered by as many as came: several labs do not disturb each other."""

import contextlib
import fcntl

KNOB = "/proc/sys/vm/nr_hugepages"


def total():
    with open(KNOB, encoding="ascii") as f:
        return int(f.read())


def free():
    with open("/proc/meminfo", encoding="ascii") as f:
        for line in f:
            if line.startswith("HugePages_Free:"):
                return int(line.split()[1])
    return 0


def change(pages):
    """Adds 'pages' to the pool, or takes some away.  Returns by how many it has changed: 0 if that cannot be done."""
    if not pages:
        return 0
    try:
        with open(KNOB, "r+", encoding="ascii") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            before = total()
            f.write(str(max(before + pages, 0)))
            f.flush()
            return total() - before
    except (OSError, ValueError):
        return 0


@contextlib.contextmanager
def no_free_pages():
    """None is free, and none becomes free: what is given back leaves the pool, which is promised to be smaller."""
    taken = change(-free() - 4)
    try:
        yield
    finally:
        change(-taken)
