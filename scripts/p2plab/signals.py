# SPDX-License-Identifier: Apache-2.0
"""The first signal that tells a program to end becomes an exception, as soon as nothing would be left half done;
further ones change nothing.  For programs with one interesting thread, the main one."""

import contextlib
import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_shields = 0
_told = False
_pending = None


class Interrupted(BaseException):
    """A signal told us to end.  Not an Exception: nobody should swallow it by accident."""

    def __init__(self, signum):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def _handle(signum, _frame):
    global _told, _pending
    if _told:
        return
    _told = True
    if _shields:
        _pending = signum
    else:
        raise Interrupted(signum)


def install():
    for signum in SIGNALS:
        signal.signal(signum, _handle)


def ignore():
    """All is done but the program's end, which takes Python some moments."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


@contextlib.contextmanager
def shielded():
    """Inside, signals wait; at the end they are heard."""
    global _shields, _pending
    _shields += 1
    try:
        yield
    finally:
        _shields -= 1
        if not _shields and _pending is not None:
            signum, _pending = _pending, None
            raise Interrupted(signum)
