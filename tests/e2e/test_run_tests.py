#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The test driver itself: nothing that goes wrong in a test may count as passed."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DRIVER = os.path.join(ROOT, "tests", "run-tests.py")

# Sleeps that nobody else sleeps: SECONDS.PID.
def nap(seconds):
    return f"sleep {seconds}.{os.getpid()}"


# What a test does, and the last line and the exit code that are expected.
CASES = [
    ("two that pass", "echo 1..2; echo ok 1 - a; echo ok 2 - b", "2 passed, 0 failed", 0),
    ("one that fails", "echo 1..2; echo ok 1 - a; echo not ok 2 - b; exit 1", "1 passed, 1 failed", 1),
    ("a failure that the exit code does not show", "echo not ok 1 - a", "0 passed, 1 failed", 1),
    ("an exit code that the results do not show", "echo ok 1 - a; exit 3", "1 passed, 1 failed", 1),
    ("a skipped one is neither", "echo ok 1 - a; echo 'not ok 2 # SKIP b'", "1 passed, 0 failed", 0),
    ("skipping everything is no success", "echo '1..0 # SKIP no guests here'", "0 passed, 0 failed", 1),
    ("fewer results than planned", "echo 1..3; echo ok 1 - a", "1 passed, 1 failed", 1),
    ("a crash", "echo 1..2; echo ok 1 - a; echo ok 2 - b; kill -SEGV $$", "2 passed, 1 failed", 1),
    ("a crash before anything was said", "kill -ABRT $$", "0 passed, 1 failed", 1),
    ("no results, but the exit code 0", "true", "1 passed, 0 failed", 0),
    ("no results, and another exit code", "exit 7", "0 passed, 1 failed", 1),
    ("too slow", f"# time-limit: 1\necho ok 1 - a; {nap(60)}", "1 passed, 1 failed", 1),
    ("a daemon left behind", f"setsid {nap(61)} & echo ok 1 - a", "1 passed, 1 failed", 1),
    ("lines that only look like results", "echo okay; echo ' ok 1'; echo '# not ok'; echo ok", "1 passed, 0 failed", 0),
]

n = n_failed = 0


def check(name, ok, *detail):
    global n, n_failed
    n += 1
    print(f"{'ok' if ok else 'not ok'} {n} - {name}", flush=True)
    if not ok:
        n_failed += 1
        for text in detail:
            for line in str(text).splitlines():
                print("# " + line)


def write_test(folder, body):
    path = os.path.join(folder, "tests", "case.sh")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write("#!/bin/bash\n" + body + "\n")
    os.chmod(path, 0o755)
    return [sys.executable, DRIVER, "--logs", os.path.join(folder, "logs"), path]


def nappers(seconds):
    """Processes that sleep so long."""
    return subprocess.run(["pgrep", "-f", "-x", nap(seconds)], stdout=subprocess.PIPE, text=True,
                          check=False).stdout.split()


def main():
    print(f"1..{len(CASES) + 3}")
    for name, body, last_line, code in CASES:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(write_test(folder, body), stdout=subprocess.PIPE, text=True, check=False)
        lines = done.stdout.splitlines()
        check(name, lines[-1:] == [last_line] and done.returncode == code,
              f"expected '{last_line}' and {code}, got {done.returncode} and:", done.stdout)
    check("what was left behind has been ended", not nappers(60) + nappers(61))

    with tempfile.TemporaryDirectory() as folder:
        marker = os.path.join(folder, "marker")
        command = write_test(folder, f"""trap 'touch {marker}; exit 1' TERM
            echo ok 1; setsid {nap(62)} & {nap(63)} & wait""")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
            while not nappers(63):
                time.sleep(0.05)
            driver.send_signal(signal.SIGINT)
            out = driver.communicate()[0]
        check("interrupted: says so, and lets the test clean up",
              re.search(r"^interrupted", out, re.MULTILINE) and driver.returncode == 1 and os.path.exists(marker), out)
        check("interrupted: nothing is left", not nappers(62) + nappers(63))
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
