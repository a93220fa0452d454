# SPDX-License-Identifier: Apache-2.0
"""Programs: those that run to their end, and those that stay until they are told to go.

A child is in a process group of its own, so that a Ctrl-C reaches only us and things are ended in order, and it is told
to end by the kernel should we die without having done so."""

import os
import signal
import subprocess
import tempfile
import time

from . import signals
from .waiting import LabError, tell

STOP_SECONDS = 5


def run(command, *, env=None, seconds=30, check=True, stdin=None):
    """Runs 'command' and returns the CompletedProcess, with output as text.  Raises LabError if it fails."""
    child = None
    try:
        # Not subprocess.run(): a signal while it starts the program would leave that one behind.  And no pipe for what
        # it reads: communicate() that is called again after its time has run out does not go on writing.
        with signals.shielded(), tempfile.TemporaryFile("w+", encoding="utf-8") as text:
            text.write(stdin or "")
            text.seek(0)
            child = subprocess.Popen(command, env=env, stdin=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                     text=True, errors="replace", process_group=0)
        out, err = _communicate(child, command, seconds)
    finally:
        if child:
            with signals.shielded():
                _end(child)
    if check and child.returncode:
        raise LabError(f"'{' '.join(command)}' failed with {child.returncode}: {(err.strip() or out.strip())[-2000:]}")
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def _communicate(child, command, seconds):
    begin = time.monotonic()
    while True:
        try:
            return child.communicate(timeout=0.5)
        except subprocess.TimeoutExpired as e:
            elapsed = time.monotonic() - begin
            if elapsed >= seconds:
                raise LabError(f"'{' '.join(command)}' has not ended within {seconds:g} s") from e
            tell(f"'{os.path.basename(command[0])}'", elapsed)


def _end(child):
    """Ends what is left of a program and its process group.  As long as it has not been waited for, or has children in
    its group, the group's number is nobody else's."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    for pipe in child.stdin, child.stdout, child.stderr:
        if pipe:
            pipe.close()


class Child:
    """A program that stays.  Its output goes to 'log' (a path) unless told otherwise."""

    def __init__(self, name, command, *, log, env=None, netns=False, **popen):
        self.name = name
        self.log = log
        wrapper = ["setpriv", "--pdeathsig", "TERM"]
        if netns:
            wrapper += ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
        with open(log, "ab") as out:
            popen.setdefault("stdin", subprocess.DEVNULL)
            popen.setdefault("stdout", out)
            popen.setdefault("stderr", out)
            self.popen = subprocess.Popen([*wrapper, *command], env=env, process_group=0, **popen)

    @property
    def pid(self):
        return self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def status(self):
        """In words."""
        code = self.popen.poll()
        if code is None:
            return "running"
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"

    def check(self):
        if not self.alive():
            raise LabError(f"{self.name} has {self.status()}: {self.last_words()}")

    def last_words(self, size=1500):
        try:
            with open(self.log, "rb") as f:
                return f.read()[-size:].decode(errors="replace").strip()
        except OSError:
            return ""

    def signal(self, signum):
        if self.alive():
            os.kill(self.pid, signum)

    def stop(self, seconds=STOP_SECONDS):
        """Ends it, kindly first, and then whatever may be left of its process group."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        _end(self.popen)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.popen.wait()
