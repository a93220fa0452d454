# SPDX-License-Identifier: Apache-2.0
"""Test stories that report in TAP.

    story = Story("what it is about")
    with story.step("links become direct"):
        ...                                  # any exception: not ok, with its text
        story.check(a == b, f"{a} is not {b}")
    story.end()                              # plan and exit code

A step that fails does not end the story, unless it is marked as one that the others need ('vital')."""

import contextlib
import os
import sys
import time
import traceback

from . import signals
from .waiting import LabError


class CheckFailed(Exception):
    """A check of a test did not hold."""


class Story:
    def __init__(self, title):
        self.n = self.failed = self.skipped = 0
        self.begin = time.monotonic()
        signals.install()
        print(f"# {title}", flush=True)

    def note(self, text):
        for line in str(text).splitlines():
            print(f"# {line}", flush=True)

    def _result(self, ok, name, reason=""):
        self.n += 1
        self.failed += not ok
        reason = " ".join(str(reason).split())
        print(f"{'ok' if ok else 'not ok'} {self.n} {name}" + (f" - {reason}" if reason else ""), flush=True)

    def skip(self, name, reason):
        self.n += 1
        self.skipped += 1
        print(f"ok {self.n} {name} # SKIP {reason}", flush=True)

    @staticmethod
    def check(condition, reason):
        if not condition:
            raise CheckFailed(reason)

    @contextlib.contextmanager
    def step(self, name, vital=False):
        begin = time.monotonic()
        try:
            yield
        except (CheckFailed, LabError) as e:
            self._result(False, name, e)
            if vital:
                raise
        except Exception as e:
            traceback.print_exc(file=sys.stderr)
            self._result(False, name, f"{type(e).__name__}: {e}")
            if vital:
                raise
        else:
            self._result(True, name)
        finally:
            if os.environ.get("P2P_TIMES"):
                self.note(f"{time.monotonic() - begin:.1f} s for '{name}'")

    def end(self):
        self.note(f"{time.monotonic() - self.begin:.1f} s")
        print(f"1..{self.n}", flush=True)
        sys.exit(1 if self.failed else 0)


def tell(title, *tellers):
    """Runs 'teller(story)' for each of 'tellers' and ends the program.  What a teller raises is a failed test (a vital
    step has said so already)."""
    story = Story(title)
    try:
        for teller in tellers:
            failed = story.failed
            try:
                teller(story)
            except (CheckFailed, LabError) as e:
                if story.failed == failed:
                    story._result(False, teller.__name__, e)
            except Exception as e:
                if story.failed == failed:
                    traceback.print_exc(file=sys.stderr)
                    story._result(False, teller.__name__, f"{type(e).__name__}: {e}")
    except signals.Interrupted as e:
        signals.ignore()
        print(f"Bail out! {e}", flush=True)
        sys.exit(128 + e.signum)
    story.end()
