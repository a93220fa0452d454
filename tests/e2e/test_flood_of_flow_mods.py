#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""10,000 flow-mods a second while links flap under traffic: nothing is lost, doubled or reordered, and no counter is
wrong in the end.

They come on several connections: vswitchd takes 50 messages from each and then waits until its PMD threads have seen
the change, which takes those that sleep up to 10 ms."""

import contextlib
import os
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import openflow, tap
from p2plab.chain import MARKED_UDP_PORT, Chain
from p2plab.lab import Lab

RATE = 3000
SECONDS = 8
MODS_PER_SECOND = 10000
CONNECTIONS = 6
BATCH = 50
FILE_RULES = 20000


class Flood(threading.Thread):
    """Adds and deletes rules that match none of the packets, some of them above the rules that link the ports."""

    def __init__(self, controllers):
        super().__init__(daemon=True)
        self.controllers = controllers
        self.n = 0
        self.seconds = 0.0
        self.stop = False
        self.error = None

    def run(self):
        begin = time.monotonic()
        try:
            while not self.stop or self.n // self.round % 2:
                self._round()
                ahead = self.n / MODS_PER_SECOND - (time.monotonic() - begin)
                if ahead > 0:
                    time.sleep(ahead)
        except Exception as e:
            self.error = e
        self.seconds = time.monotonic() - begin

    @property
    def round(self):
        return BATCH * len(self.controllers)

    def _round(self):
        """The next rules, or, every other time, the end of those before."""
        start = self.n // (2 * self.round) * self.round % 50000
        command = openflow.DELETE_STRICT if self.n // self.round % 2 else openflow.ADD
        for controller in self.controllers:
            # For a port that is not there, and for one of ours, below its rules.
            controller.send(b"".join(
                openflow.flow_mod(command, priority, openflow.match(in_port=port, udp_src=i), 4)
                for i in range(start, start + BATCH) for priority, port in (((200, 77), (5, 3))[i % 2],)))
            start += BATCH
        for controller in self.controllers:
            controller.barrier()
        self.n += self.round


def flap(chain, controller, seconds):
    """Ends and allows the links again and again; returns how often."""
    mods = {name: [openflow.flow_mod(c, 100, openflow.match(in_port=number, udp_dst=MARKED_UDP_PORT))
                   for c in (openflow.ADD, openflow.DELETE_STRICT)] for name, number in chain.numbers.items()}
    n, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for add, delete in mods.values():
            controller.change(add)
            time.sleep(0.002)
            controller.change(delete)
            n += 1
        time.sleep(0.02)
    return n


def by_file(chain):
    """A big file, in one bundle; returns the seconds it took to add and to delete its rules."""
    with tempfile.NamedTemporaryFile("w", suffix=".flows") as f:
        for i in range(FILE_RULES):
            f.write(f"table=3,priority=7,udp,in_port={i % 4 + 1},tp_src={i % 65536},tp_dst={i // 4},actions=drop\n")
        f.flush()
        begin = time.monotonic()
        chain.ovs.ofctl("--bundle", "-O", "OpenFlow14", "add-flows", chain.bridge, f.name)
        middle = time.monotonic()
        chain.ovs.ofctl("del-flows", chain.bridge, "table=3")
        return middle - begin, time.monotonic() - middle


def main(story):
    with Lab("flood") as lab:
        chain = Chain(lab)
        chain.add_rules()
        chain.wait_direct()
        chain.start(RATE)
        chain.wait_traffic()
        with story.step(f"flow-mods at {MODS_PER_SECOND} a second while links flap under traffic"):
            with contextlib.ExitStack() as stack:
                one, *others = [stack.enter_context(chain.ovs.controller(chain.bridge)) for _ in range(CONNECTIONS)]
                flood = Flood(others)
                flood.start()
                try:
                    flaps = flap(chain, one, SECONDS)
                finally:
                    flood.stop = True
                    flood.join(30)
            story.check(flood.error is None, flood.error)
            story.note(f"{flood.n} flow-mods in {flood.seconds:.1f} s, links ended {flaps} times")
        with story.step("nothing was lost, doubled or reordered, and all counters agree"):
            chain.wait_direct()
            acc = chain.rest(30)
            story.note(f"{acc.total('sent')} packets, {acc.switchovers} switchovers")
            story.check(not acc.errors, acc.text())
            story.check(acc.total("dropped_by_switch") == 0, f"the switch dropped {acc.total('dropped_by_switch')}")
            story.check(acc.switchovers > 20, f"only {acc.switchovers} switchovers")
        with story.step(f"a file of {FILE_RULES} rules in one bundle, under traffic"):
            chain.start(RATE)
            chain.wait_traffic()
            story.note("adding them took %.2f s, deleting them %.2f s" % by_file(chain))
            chain.wait_direct()
            acc = chain.rest(30)
            story.check(not acc.errors, acc.text())
        lab.failed = story.failed > 0


tap.tell("a flood of flow-mods", main)
