# SPDX-License-Identifier: Apache-2.0
"""Runs spin on a model and says what has come out.  For tests/model/run.

Each run has a private directory below build/model, which is gone afterwards.  A search that is not complete (memory,
depth) is not a result: Unfinished is raised."""

import contextlib
import ctypes
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time

from p2plab import signals

HERE = os.path.dirname(os.path.abspath(__file__))
PR_SET_PDEATHSIG = 1
MAX_DEPTH = 100000
TELL_AFTER = 2      # Seconds until a run says how far it is, and
TELL_EVERY = 10     # between two times that it does.

# How a search is made: flags for the compiler, for pan, what pan must say that it has looked for.
SAFETY = (["-DSAFETY"], [], ["assertion violations +"])
NO_CYCLE = (["-DNP"], ["-l"], ["assertion violations +", "non-progress cycles +"])
FAIR = (["-DNFAIR=3"], ["-a", "-f"], ["assertion violations +", "acceptance cycles + (fairness enabled)"])

# Partial order reduction gains nothing where nearly each step touches what others see; and there is 'unless'.
MODEL_FLAGS = {"data.pml": [], "life.pml": ["-DNOREDUCE"]}

# Which property an assertion is about, by what pan prints of it.
PROPERTIES = {
    "data.pml": [
        (r"==\(got\[", "order"),
        (r"barred\[", "hold"),
        (r"violated 0$", "waiting"),
        (r"sent\[0\]==", "rest"),
    ],
    "life.pml": [
        (r">got\)$", "order"),
        (r"violated mapped_[ab]\[\w+\]$", "mapping"),
        (r"direct_packets\[", "counters"),
        (r"violated ", "rest"),
    ],
}


class Unfinished(Exception):
    """No verdict."""


class Result:
    def __init__(self):
        self.error = None       # What pan calls the first error, or None.
        self.property = None    # Which property that is.
        self.states = self.depth = 0
        self.seconds = 0.0      # Of the processor, for the search.
        self.trace = None


def property_of(model, error):
    if "non-progress cycle" in error:
        return "no cycle"
    if "acceptance cycle" in error:
        return "formula"
    if error.startswith("assertion violated") and "invalid array index" not in error:
        for pattern, name in PROPERTIES[model]:
            if re.search(pattern, error):
                return name
    return None


def _child():
    os.nice(10)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@contextlib.contextmanager
def _started(command, folder, log):
    """A child that does not outlive us, however we end."""
    with signals.shielded():
        child = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                 preexec_fn=_child, start_new_session=True)
    try:
        yield child
    finally:
        with signals.shielded():
            with contextlib.suppress(ProcessLookupError):
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _read(path):
    with open(path, encoding="utf-8", errors="replace") as f:
        return f.read()


def _run(command, folder, name):
    """Runs a tool to its end; returns what it says."""
    path = os.path.join(folder, name)
    with open(path, "wb") as log, _started(command, folder, log) as child:
        child.wait()
    text = _read(path)
    if child.returncode:
        raise Unfinished(f"{command[0]} ends with {child.returncode}: {text.strip()[-2000:]}")
    return text


def cpu_seconds():
    """Of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _last_states(text):
    told = re.findall(r"States= *(\S+)", text)
    return int(float(told[-1])) if told else 0


def _search(command, folder, tell):
    """Runs pan; calls tell(states, seconds) from time to time.  Returns its output and the processor's time it took."""
    path = os.path.join(folder, "pan.log")
    begin, used_before = time.monotonic(), cpu_seconds()
    next_tell = TELL_AFTER
    with open(path, "wb") as log, _started(command, folder, log) as child:
        while True:
            try:
                child.wait(timeout=0.02 if time.monotonic() - begin < 1 else 0.25)
                break
            except subprocess.TimeoutExpired:
                pass
            took = time.monotonic() - begin
            if took >= next_tell:
                next_tell += TELL_EVERY
                tell(_last_states(_read(path)), took)
    text = _read(path)
    if child.returncode:
        raise Unfinished(f"pan ends with {child.returncode}: {text.strip()[-1000:]}")
    return text, cpu_seconds() - used_before


def check(model, defines, how, build, memory_mb, optimise, tell, want_trace=False):
    """Searches all states of a model.  Raises Unfinished if that is not possible."""
    cc_flags, pan_flags, must_say = how
    os.makedirs(build, exist_ok=True)
    with signals.shielded():
        folder = tempfile.mkdtemp(prefix="pan.", dir=build)
    try:
        flags = [f"-D{name}={value}" if value is not None else f"-D{name}" for name, value in defines.items()]
        source = os.path.join(HERE, model)
        said = _run(["spin", "-a", *flags, source], folder, "spin.log")
        if re.search(r"error", said, re.IGNORECASE):
            raise Unfinished(f"spin: {said.strip()[-2000:]}")
        _run(["cc", f"-O{optimise}", "-w", "-DCOLLAPSE", f"-DMEMLIM={memory_mb}", *MODEL_FLAGS[model], *cc_flags,
              "-o", "pan", "pan.c"], folder, "cc.log")
        # -E: a state in which nobody can do anything is judged by the model itself (Rest).
        text, took = _search(["./pan", f"-m{MAX_DEPTH}", "-E", "-n", *pan_flags], folder, tell)
        result = _read_result(model, text, must_say)
        result.seconds = took
        if result.error and want_trace:
            result.trace = _trace(flags, source, folder)
        return result
    finally:
        with signals.shielded():
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                os.rmdir(build)


def _read_result(model, text, must_say):
    result = Result()
    for bad in "max search depth too small", "out of memory", "reached -DMEMLIM", "VECTORSZ", "aborting":
        if bad in text:
            raise Unfinished(f"the search is not complete: {bad}")
    found = re.search(r"^pan:1: (.*) \(at depth", text, re.MULTILINE)
    counts = re.search(r"depth reached (\d+), errors: (\d+)\s+(\S+) states, stored", text)
    if not counts or not re.search(r"^Full statespace search for:", text, re.MULTILINE):
        raise Unfinished(f"pan has not said what it has done: {text.strip()[-1000:]}")
    for phrase in must_say:
        if phrase not in re.sub(r"\s+", " ", text):
            raise Unfinished(f"pan has not looked for '{phrase}'")
    result.depth, errors, result.states = int(counts[1]), int(counts[2]), int(float(counts[3]))
    if errors:
        if not found:
            raise Unfinished(f"pan has not said which error: {text.strip()[-1000:]}")
        result.error = found[1]
        result.property = property_of(model, found[1])
    elif "Search not completed" in text:
        raise Unfinished("the search is not complete")
    return result


def _trace(flags, source, folder):
    """The way to the error: who has changed what, step by step."""
    trail = [f for f in os.listdir(folder) if f.endswith(".trail")]
    if not trail:
        return []
    said = _run(["spin", "-t", "-p", "-g", "-l", *flags, "-k", trail[0], source], folder, "trace.log")
    values, steps = {}, []
    for line in said.split("spin: trail ends")[0].splitlines():
        step = re.match(r"\s*(\d+):\s+proc\s+\d+ \(([^:)]+)", line)
        value = re.match(r"\s+(\w+(?:\(\d+\):\w+)?(?:\[\d+\])?) = (.*)$", line)
        if step:
            if not steps or steps[-1][0] != (step[1], step[2]):
                steps.append(((step[1], step[2]), []))
        elif value and steps and values.get(value[1], "0") != value[2]:
            values[value[1]] = value[2]
            steps[-1][1].append(re.sub(r"\(\d+\)", "", value[1]) + "=" + value[2])
    return [f"{number:>4} {who:<8} {' '.join(changes)}" for (number, who), changes in steps if changes]
