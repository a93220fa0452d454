# SPDX-License-Identifier: Apache-2.0
"""Waiting for something, for a limited time, with somebody told when it takes long."""

import time

_observer = None


class LabError(Exception):
    """Something in the lab did not go as it should; the text says what."""


def observe(observer):
    """From now on calls 'observer(what, seconds)' again and again while something is waited for; None: nobody."""
    global _observer
    _observer = observer


def tell(what, seconds):
    """Tells the observer, if there is one."""
    if _observer:
        _observer(what, seconds)


def wait_for(what, condition, seconds, interval=0.01, detail=None):
    """Calls 'condition()' until it returns something true, and returns that.  After 'seconds' raises LabError with
    'what' was waited for and what 'detail()', if given, has to say."""
    begin = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        elapsed = time.monotonic() - begin
        if elapsed >= seconds:
            raise LabError(f"waited {seconds:g} s in vain for {what}" + (f": {detail()}" if detail else ""))
        tell(what, elapsed)
        time.sleep(interval)
