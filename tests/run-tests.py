#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs test programs one after the other, and counts what they say.  Called by "make test".

    tests/run-tests.py [--logs DIR] [--match PATTERN] [--time-limit SECONDS] "PROGRAM [ARGUMENT...]"...

A test program prints TAP on standard output ("ok 1 - name", "not ok 2 - name", "ok 3 # SKIP why", "1..3"); cmocka does
when it is asked to.  One that prints none is a single test, judged by its exit code.  Besides what it says itself, a
program has failed if it is killed by a signal, exits with an error without naming a failed test, prints fewer results
than its plan announces, exceeds its time limit, or leaves processes behind.

Time limits: 120 s for programs, 300 s for scripts, or what a line of the source's first comment begins with, such as
"time-limit: 600".  Output goes to DIR/NAME.out and DIR/NAME.err.

Only processes that a test has started are ever killed: each test gets a session of its own, and orphans become this
program's children (PR_SET_CHILD_SUBREAPER), by which they are known.  The last line is "N passed, N failed"; the exit
code is 0 if something passed and nothing failed."""

import argparse
import ctypes
import os
import re
import shlex
import signal
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM_LIMIT = 120
SCRIPT_LIMIT = 300
TERM_GRACE = 10   # Seconds from SIGTERM to SIGKILL: a script may have a good deal to clean up.
ORPHAN_GRACE = 5  # Seconds that daemons which were told to stop may take after the test's end.


class Interrupted(Exception):
    """This program was told to stop."""


def interrupt(signum, _frame):
    raise Interrupted(signal.Signals(signum).name)


def processes():
    """Yields (pid, parent, session, name) of all processes but zombies."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as f:
                stat = f.read()
        except OSError:
            continue  # It has gone meanwhile.
        # The name is in parentheses and may itself hold anything.
        left, right = stat.index("("), stat.rindex(")")
        fields = stat[right + 2:].split()
        if fields[0] not in "ZX":
            yield int(entry), int(fields[1]), int(fields[3]), stat[left + 1:right]


class Test:
    """A test program, and what became of it."""

    def __init__(self, command, logs, limit):
        path, *arguments = shlex.split(command)
        self.path = os.path.abspath(path)
        self.command = [self.path, *arguments]
        self.program = re.sub(r".*tests/", "", os.path.relpath(self.path, ROOT))
        self.name = " ".join([self.program, *arguments])
        stem = os.path.join(logs, re.sub(r"[^\w.]+", "-", self.name))
        self.out_path, self.err_path = stem + ".out", stem + ".err"
        self.limit = limit or self.own_limit()
        self.passed = self.skipped = 0
        self.failures = []
        self.seconds = 0.0
        self.popen = None
        self.pid = None
        self.status = None

    def own_limit(self):
        source = os.path.join(ROOT, "tests", self.program + ".c")
        if not os.path.exists(source):
            source = self.path
        try:
            with open(source, encoding="utf-8", errors="replace") as f:
                head = f.read(4096)
        except OSError:
            head = ""
        match = re.search(r"^[#/* ]*time-limit: (\d+)", head, re.MULTILINE)
        if match:
            return int(match.group(1))
        return SCRIPT_LIMIT if source == self.path else PROGRAM_LIMIT

    def reap(self):
        """Collects what has ended: the program itself, and orphans that came to us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.status = self.popen.returncode = os.waitstatus_to_exitcode(status)

    def wait(self, seconds):
        """Waits for the program's end; returns False if it takes longer."""
        end = time.monotonic() + seconds
        while self.status is None and time.monotonic() < end:
            time.sleep(0.01)
            self.reap()
        return self.status is not None

    def signal_all(self, signum):
        """Signals the program's session and whoever it has orphaned; returns their names."""
        names = []
        for pid, parent, session, name in processes():
            if session == self.pid or (parent == os.getpid() and pid != self.pid):
                try:
                    os.kill(pid, signum)
                    names.append(name)
                except ProcessLookupError:
                    pass
        return names

    def stop(self):
        """Ends the program, and all that it has started, from outside."""
        if self.status is None:
            # To the program alone first: it knows best how to end what it has started.
            os.kill(self.pid, signal.SIGTERM)
            self.wait(TERM_GRACE)
        self.end_orphans()
        self.wait(1)

    def end_orphans(self):
        """Ends what the program has left behind; returns the names."""
        for signum in signal.SIGTERM, signal.SIGKILL:
            end = time.monotonic() + ORPHAN_GRACE
            names = left = self.signal_all(signum)
            while left and time.monotonic() < end:
                time.sleep(0.05)
                self.reap()
                left = self.signal_all(0)
            if not left:
                return names
        # Killed ones' children have become ours meanwhile.
        while self.signal_all(signal.SIGKILL):
            time.sleep(0.05)
            self.reap()
        return names

    def run(self):
        begin = time.monotonic()
        env = dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP", P2P_ROOT=ROOT)
        # A test that calls make does not mean the make that runs the tests.
        for name in "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES":
            env.pop(name, None)
        try:
            with open(self.out_path, "wb") as out, open(self.err_path, "wb") as err:
                # Kept: a Popen object that is deleted looks after its process itself, and we would never hear of it.
                self.popen = subprocess.Popen(self.command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=out,
                                              stderr=err, start_new_session=True)
                self.pid = self.popen.pid
        except OSError as e:
            self.failures.append(f"cannot be run: {e}")
            return
        try:
            if not self.wait(self.limit):
                self.failures.append(f"not finished after {self.limit} s")
                self.stop()
                self.read_results(False)
            else:
                end = time.monotonic() + ORPHAN_GRACE
                while self.signal_all(0) and time.monotonic() < end:
                    time.sleep(0.02)
                    self.reap()
                self.read_results(True)
                left = self.end_orphans()
                if left:
                    self.failures.append("left behind: " + ", ".join(left))
        except Interrupted:
            self.failures.append("interrupted")
            self.stop()
            raise
        finally:
            self.seconds = time.monotonic() - begin

    def read_results(self, finished):
        planned = n = n_failed = 0
        with open(self.out_path, encoding="utf-8", errors="replace") as f:
            for line in f:
                plan = re.match(r"1\.\.(\d+)", line)
                result = re.match(r"(not )?ok\b(.*)", line)
                if plan:
                    planned += int(plan.group(1))
                    if plan.group(1) == "0":
                        self.skipped += 1
                elif line.startswith("Bail out!"):
                    self.failures.append(line.strip())
                elif result:
                    n += 1
                    # cmocka marks a skipped test as "not ok 3 # SKIP name".
                    if re.search(r"# *SKIP", result.group(2), re.IGNORECASE):
                        self.skipped += 1
                    elif result.group(1):
                        n_failed += 1
                        self.failures.append(line.strip())
                    else:
                        self.passed += 1
        if not finished:
            return
        if self.status < 0:
            self.failures.append(f"killed by {signal.Signals(-self.status).name}")
        elif n < planned:
            self.failures.append(f"{planned} results were announced, {n} came (exit code {self.status})")
        elif self.status > 0 and not n_failed:
            self.failures.append(f"exit code {self.status}")
        elif not n and not self.skipped and not self.failures:
            self.passed += 1

    def report(self):
        counts = f"{self.passed:4} passed"
        if self.failures:
            counts += f", {len(self.failures)} FAILED"
        if self.skipped:
            counts += f", {self.skipped} skipped"
        print(f"{self.seconds:8.2f} s {counts}", flush=True)
        if not self.failures:
            return
        for failure in self.failures:
            print(f"      {failure}")
        for path in self.out_path, self.err_path:
            with open(path, encoding="utf-8", errors="replace") as f:
                tail = f.read()[-20000:].splitlines()[-25:]
            if tail:
                print(f"      --- end of {os.path.relpath(path, ROOT)}:")
                for line in tail:
                    print("      | " + line)
        sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description="Runs test programs and counts results.")
    parser.add_argument("--logs", default=os.path.join(ROOT, "build", "test-logs"), help="where output goes")
    parser.add_argument("--match", default="", help="only programs whose path contains this")
    parser.add_argument("--time-limit", type=int, help="seconds for each program, whatever it says itself")
    parser.add_argument("program", nargs="*")
    args = parser.parse_args()

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for signum in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
        signal.signal(signum, interrupt)

    os.makedirs(args.logs, exist_ok=True)
    tests = [Test(p, args.logs, args.time_limit) for p in args.program]
    tests = [t for t in tests if args.match in t.name]
    width = max([len(t.name) for t in tests], default=0)
    interrupted = False
    for i, test in enumerate(tests, 1):
        print(f"[{i:2}/{len(tests)}] {test.name:{width}}", end=" ", flush=True)
        try:
            test.run()
        except Interrupted:
            interrupted = True
        test.report()
        if interrupted:
            break

    passed, failed = sum(t.passed for t in tests), sum(len(t.failures) for t in tests)
    skipped = sum(t.skipped for t in tests)
    print()
    if interrupted:
        print("interrupted; not all tests have been run")
    if not passed + failed:
        print("nothing was tested")
    if skipped:
        print(f"{skipped} skipped")
    print(f"{passed} passed, {failed} failed", flush=True)
    return 0 if passed and not failed and not interrupted else 1


if __name__ == "__main__":
    sys.exit(main())
