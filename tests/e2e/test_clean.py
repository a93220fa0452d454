#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The demo, interrupted at any moment, leaves nothing behind: no process, file, device or huge page."""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import build, hugepages, tap
from p2plab.waiting import LabError, wait_for

PR_SET_CHILD_SUBREAPER = 36
DEMO = os.path.join(build.ROOT, "scripts", "demo.py")


def children():
    """Commands of all processes that have us as an ancestor: orphans come to us, too."""
    parents = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
                stat = f.read()
        except OSError:
            continue
        state, parent = stat[stat.rindex(")") + 2:].split()[:2]
        if state != "Z":
            parents[int(pid)] = (int(parent), stat[stat.index("(") + 1:stat.rindex(")")])

    def ours(pid):
        while pid in parents:
            pid = parents[pid][0]
            if pid == os.getpid():
                return True
        return False
    return [f"{name} ({pid})" for pid, (_, name) in parents.items() if ours(pid)]


def bury():
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def network_devices():
    return set(os.listdir("/sys/class/net"))


def shared_memory():
    return {name for name in os.listdir("/dev/shm") if re.match(r"(p2p|ivshmem|ovs|rte)", name)}


def other_labs():
    """Switches of labs that are not ours: they change the number of huge pages, too."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as f:
                words = f.read().split("\0")
        except OSError:
            continue
        if words[0].endswith("ovs-vswitchd") and any("/p2p." in word for word in words):
            found.add(pid)
    return found


class Demo:
    """A demo in a folder of its own for temporary files."""

    def __init__(self, vnf):
        self.tmp = tempfile.mkdtemp(prefix="c.")
        env = {**os.environ, "TMPDIR": self.tmp, "PYTHONUNBUFFERED": "1"}
        self.popen = subprocess.Popen([DEMO, "--vnf=" + vnf, "--measure=0.2"], env=env, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, process_group=0)
        self.out = b""

    def wait_line(self, words, seconds):
        """Until it has printed 'words'."""
        os.set_blocking(self.popen.stdout.fileno(), False)

        def said():
            self.out += self.popen.stdout.read() or b""
            if self.popen.poll() is not None:
                raise LabError(f"the demo ended with {self.popen.returncode}: {self.out[-500:].decode()}")
            return words.encode() in self.out
        wait_for(f"the demo to say '{words}'", said, seconds, 0.005)

    def interrupt(self, signum):
        self.popen.send_signal(signum)
        begin = time.monotonic()
        os.set_blocking(self.popen.stdout.fileno(), True)
        self.out += self.popen.stdout.read()
        status = self.popen.wait(30)
        return status, time.monotonic() - begin

    def end(self):
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()
        self.popen.stdout.close()
        shutil.rmtree(self.tmp, ignore_errors=True)


@contextlib.contextmanager
def demo_that_leaves_nothing(story, vnf):
    others, pages, devices, shm = other_labs(), hugepages.total(), network_devices(), shared_memory()
    demo = Demo(vnf)
    try:
        yield demo
        bury()
        story.check(not children(), f"left: {', '.join(children())}")
        left = os.listdir(demo.tmp)
        story.check(not left, f"left in its folder: {left}")
        story.check(network_devices() <= devices, f"left: {network_devices() - devices}")
        story.check(shared_memory() <= shm, f"left in /dev/shm: {shared_memory() - shm}")
        # The kernel takes pages back some moments after the memory's last user has gone.
        # A lab that is not ours may end meanwhile, or begin.
        wait_for("huge pages to be as before", lambda: hugepages.total() <= pages or others or other_labs(), 5, 0.05,
                 lambda: f"{pages} before, {hugepages.total()} now")
    finally:
        demo.end()


def interrupted(story, vnf, words, signum, twice=False):
    with story.step(f"{vnf}: {signal.Signals(signum).name} at '{words}'{', and again' if twice else ''}"), \
            demo_that_leaves_nothing(story, vnf) as demo:
        demo.wait_line(words, 60)
        if twice:
            demo.popen.send_signal(signum)
            time.sleep(0.02)
        status, seconds = demo.interrupt(signum)
        story.check(status == 128 + signum, f"exit code {status}: {demo.out[-500:].decode()}")
        story.check(seconds < 10, f"it took {seconds:.1f} s")


def nobody_listens(story):
    with story.step("process: whoever reads its output goes away"), demo_that_leaves_nothing(story, "process") as demo:
        demo.wait_line("have attached", 60)
        demo.popen.stdout.close()
        story.check(demo.popen.wait(60) == 1, f"exit code {demo.popen.returncode}")


def main(story):
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for words, signum in (("starting a private", signal.SIGTERM), ("starting source", signal.SIGINT),
                          ("have attached", signal.SIGTERM), ("measuring", signal.SIGINT),
                          ("turning p2plink on", signal.SIGINT), ("actions=drop", signal.SIGHUP),
                          ("deleting all rules", signal.SIGINT)):
        interrupted(story, "process", words, signum)
    interrupted(story, "process", "measuring", signal.SIGINT, twice=True)
    nobody_listens(story)
    for words, signum in (("starting source", signal.SIGINT), ("turning p2plink on", signal.SIGINT)):
        interrupted(story, "qemu", words, signum)


tap.tell("the demo leaves nothing behind", main)
