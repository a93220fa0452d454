#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs Open vSwitch's own test suite in the patched tree, and tells which tests fail there that pass in the vanilla
tree of the same package ("make ovs-check").

A test that fails in the patched tree is run again, alone, three times in each tree.  It counts against the series if it
fails each time in the patched tree, and not each time in the vanilla one (or is not there: then it is the series' own).
One that passes sometimes is told, with how often it failed in each.

Exit status: 0 nothing fails that does not fail without the series; 1 something does; 2 wrong use.

time-limit: 1200 (of the short run, in "make test")"""

import argparse
import json
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

from p2plab import build, signals
from p2plab.waiting import LabError

SHORT = ("p2plink", "dpif-netdev", "pmd", "ofproto")
AGAIN = 3
RESULT = re.compile(r"^\s*(\d+): .*?\s+(ok|FAILED|skipped|expected failure|UNEXPECTED PASS)(?: .*)?$")
LISTED = re.compile(r"^\s*(\d+): (\S+\.at):\d+\s+(.*?)\s*$")


class Tree:
    def __init__(self, flavour, jobs, say):
        self.flavour = flavour
        self.path = build.ovs(flavour)
        self.jobs = jobs
        self.say = say
        self.tests = None        # {number: (file, name)}

    def make(self, flags, seen=None):
        """Runs the suite with 'flags'; 'seen' is called with each line."""
        env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")}
        log = os.path.join(self.path, "check.log")
        lines = []
        with open(log, "ab") as err, signals.shielded():
            child = subprocess.Popen(["make", "-j", str(self.jobs), "check", "TESTSUITEFLAGS=" + flags],
                                     cwd=self.path, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                     stderr=err, text=True, errors="replace", process_group=0)
        try:
            for line in child.stdout:
                lines.append(line)
                if seen:
                    seen(line)
            child.wait()
        finally:
            if child.poll() is None:
                os.killpg(child.pid, 15)
                child.wait()
        return child.returncode, lines, log

    def prepare(self):
        """Builds what the suite needs, and learns what tests there are."""
        self.say(f"{self.flavour}: building the suite's programs")
        status, lines, log = self.make("--list")
        found = [LISTED.match(line) for line in lines]
        self.tests = {int(m.group(1)): m.group(2, 3) for m in found if m}
        if status or not self.tests:
            raise LabError(f"the test suite of {self.path} cannot be built or listed: see {log}")

    def run(self, flags, n=None):
        """{(file, name): result}."""
        results = {}
        told = time.monotonic()

        def seen(line):
            nonlocal told
            m = RESULT.match(line)
            if m and int(m.group(1)) in self.tests:
                results[self.tests[int(m.group(1))]] = m.group(2)
                if time.monotonic() - told > 5:
                    told = time.monotonic()
                    self.say(f"{self.flavour}: {len(results)} tests" + (f" of {n}" if n else ""))
        status, lines, log = self.make(flags, seen)
        if not results:
            raise LabError(f"the test suite of {self.path} has run nothing (make ended with {status}): "
                           f"{''.join(lines[-5:])}; see {log}")
        return results

    def failures(self, test):
        """How often it fails when it is run alone; None if there is no such test."""
        numbers = [n for n, t in self.tests.items() if t == test]
        if not numbers:
            return None
        return sum(self.run(" ".join(map(str, numbers))).get(test) not in ("ok", "skipped", "expected failure")
                   for _ in range(AGAIN))


def parse_arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--short", action="store_true", help="only the tests with these keywords: " + ", ".join(SHORT))
    p.add_argument("--keywords", action="append", metavar="WORD", help="only tests with this keyword; may be repeated")
    p.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N",
                   help="tests at a time (default %(default)s)")
    p.add_argument("--json", action="store_true", help="the result as JSON, on standard output; all else goes to "
                   "standard error")
    args = p.parse_args()
    if args.jobs < 1:
        p.error(f"--jobs {args.jobs}: at least 1")
    return args


def compare(patched, vanilla, failed, say):
    """(what counts against the series, what does not), each {test: (fails patched, fails vanilla)}."""
    against, others = {}, {}
    if failed:
        vanilla.prepare()
    for test in sorted(failed):
        say(f"again, {AGAIN} times in each tree: {test[0]}: {test[1]}")
        ours, theirs = patched.failures(test), vanilla.failures(test)
        where = against if ours == AGAIN and theirs != AGAIN else others
        where[test] = ours, theirs
    return against, others


def main():
    args = parse_arguments()
    begin = time.monotonic()
    out = sys.stderr if args.json else sys.stdout

    def say(text):
        print(f"[{time.monotonic() - begin:7.1f} s] {text}", file=out, flush=True)

    patched, vanilla = Tree("ovs", args.jobs, say), Tree("ovs-vanilla", args.jobs, say)
    patched.prepare()
    words = args.keywords or (SHORT if args.short else ())
    results = patched.run(" ".join([f"-j{args.jobs}", *(f"-k {w}" for w in words)]), None if words else
                          len(patched.tests))
    failed = {t for t, r in results.items() if r in ("FAILED", "UNEXPECTED PASS")}
    skipped = sum(r == "skipped" for r in results.values())
    say(f"patched: {len(results)} tests, {skipped} skipped, {len(failed)} failed at first")
    against, others = compare(patched, vanilla, failed, say)

    def words_of(test, counts):
        theirs = "there is no such test" if counts[1] is None else f"{counts[1]} of {AGAIN}"
        return f"{test[0]}: {test[1]} (fails {counts[0]} of {AGAIN}; vanilla: {theirs})"
    for test, counts in others.items():
        say("not the series' fault: " + words_of(test, counts))
    for test, counts in against.items():
        say("FAILS WITH THE SERIES: " + words_of(test, counts))
    name = f"{len(results) - skipped} of Open vSwitch's own tests: none fails that passes without the series"
    print(f"{'not ok' if against else 'ok'} 1 - {name}", file=out, flush=True)
    if args.json:
        def listed(tests):
            return [{"file": t[0], "name": t[1], "fails": c[0], "fails_vanilla": c[1]} for t, c in tests.items()]
        print(json.dumps({"tests": len(results), "skipped": skipped, "failed_at_first": len(failed),
                          "against_the_series": listed(against), "others": listed(others), "again": AGAIN}, indent=1))
    return 1 if against else 0


if __name__ == "__main__":
    signals.install()
    try:
        sys.exit(main())
    except (LabError, signals.Interrupted) as e:
        print(f"ovs-check: {e}", file=sys.stderr)
        sys.exit(1)
