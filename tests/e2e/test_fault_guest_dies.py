#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A guest's QEMU is killed, stopped for a moment and for long, the guest reboots, the VNF in it is killed: nothing is
missing but what was in its rings, and in its hands; the VNF that comes next is direct again without anybody touching
OVS; the other link notices nothing.

$P2P_SEED repeats a run."""

import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import deaths, guest, states, tap
from p2plab.chain import Chain
from p2plab.lab import Lab
from p2plab.qmp import Qmp
from p2plab.remains import Regions
from p2plab.waiting import wait_for

SEED = int(os.environ.get("P2P_SEED", random.SystemRandom().randrange(1 << 32)))
RATE = 1000
SIZE = 200
STATES = ("normal", "provisioning", "switching", "direct", "reverting", "draining")
HEARTBEAT_SECONDS = 3    # p2plink-heartbeat-ms, as it is unless told otherwise.
CONFIG = {"p2plink-linger-ms": "300", "p2plink-retry-ms": "1000"}
# A line on the third serial port kills the VNF, another one lets its successor begin.  Each marks its packets by the
# time when it begins, so that they can be told apart.
SHELL = ("{} --id $(($(date +%s) % 2047 * 2 + 2)) --from first </dev/ttyS1 & vnf=$!; "
         "read x </dev/ttyS2; kill -9 $vnf; read x </dev/ttyS2")


class Scenes:
    def __init__(self, story, lab, chain, toll, driver):
        self.story, self.lab, self.chain, self.toll, self.driver = story, lab, chain, toll, driver
        self.sink = chain.sink

    def switchovers(self):
        links = self.lab.ovs.links()
        return [links[port]["switchovers"] for port in ("dpdkr1", "dpdkr2")]

    def begin(self):
        self.chain.start(RATE)
        self.chain.wait_traffic(60)
        self.others = self.switchovers()

    def came_back(self, anew=True):
        """The sink's VNF, a new one unless told otherwise, attaches, and all is well."""
        if anew:
            self.sink.wait_ready(120)
            self.sink.rate(RATE)
            self.sink.send_begin()
        self.chain.wait_direct(120)
        self.chain.wait_traffic(60)
        errors = self.toll.rest(rules=False)
        self.story.check(not errors, "; ".join(errors))
        self.story.check(self.switchovers() == self.others, f"other link: {self.others}, {self.switchovers()}")

    def log_count(self, words):
        return self.lab.ovs.log_text().count(words)

    def vnf_killed(self):
        with self.story.step("the VNF in the guest is killed: found by its heartbeat", vital=True):
            self.begin()
            missed = self.log_count("its heartbeat has stopped")
            self.sink.carrier.tell("kill it")
            begin = time.monotonic()
            had = self.toll.grasp(self.sink)
            self.toll.bury(self.sink, had)
            seconds = time.monotonic() - begin
            self.story.note(f"after {seconds:.1f} s")
            wait_for("the log to say so", lambda: self.log_count("its heartbeat has stopped") == missed + 1, 60, 0.05)
            self.story.check(seconds < HEARTBEAT_SECONDS + 5, f"found after {seconds:.1f} s")
        with self.story.step("its successor is direct again", vital=True):
            self.sink.carrier.tell("go on")
            self.came_back()

    def reboots(self):
        with self.story.step("the guest reboots: its next VNF is direct again", vital=True):
            self.begin()
            # It boots when the old VNF's remains have been counted: the new one begins with empty rings.
            with Qmp(self.sink.carrier.monitor) as monitor:
                for command in "stop", "system_reset":
                    monitor({"execute": command})
                self.toll.bury(self.sink, self.toll.grasp(self.sink))
                monitor({"execute": "cont"})
            self.came_back()

    def killed(self, state):
        with self.story.step(f"QEMU is killed while the link is {state}", vital=True):
            self.begin()
            self.driver.bring(self.sink, "dpdkr4", "dpdkr3", state)
            self.toll.kill(self.sink)
            self.driver.unblock("dpdkr4", "dpdkr3")
            self.chain.wait_direct(60, [("dpdkr1", "dpdkr2"), ("dpdkr2", "dpdkr1")])
        with self.story.step("the guest is started again: its VNF is direct again", vital=True):
            self.sink.start()
            self.came_back()

    def stopped_shortly(self, state):
        with self.story.step(f"QEMU is stopped for a moment while the link is {state}: all goes on", vital=True):
            self.begin()
            self.driver.bring(self.sink, "dpdkr4", "dpdkr3", state)
            time.sleep(0.2)
            deaths.go_on(self.sink)
            self.driver.unblock("dpdkr4", "dpdkr3")
            self.came_back(anew=False)

    def stopped_for_long(self):
        with self.story.step("QEMU is stopped for so long that the VNF is taken for dead: it comes back by itself",
                             vital=True):
            self.begin()
            deaths.stop(self.sink)
            self.toll.bury(self.sink, self.toll.grasp(self.sink), alive=True)
            deaths.go_on(self.sink)
            self.came_back(anew=False)


def main(story):
    story.note(f"P2P_SEED={SEED}; guests run with {guest.accel()}")
    rng = random.Random(SEED)
    ends = ("--size", str(SIZE), "--per-flow")
    with Lab("guest-dies", "guest", other_config=CONFIG) as lab, Regions(lab.ovs) as regions:
        with story.step("two processes and a guest are linked", vital=True):
            process = {"kind": "process"}
            chain = Chain(lab, source=ends, sink=ends, how={
                "source": process, "forwarder": process,
                "sink": {"shell": SHELL, "guest": ["--after", "restart", "--reboot"]}})
            chain.add_rules()
            chain.wait_direct(120)
        toll = deaths.Deaths(chain, regions, SIZE)
        with lab.ovs.controller(chain.bridge) as controller:
            scenes = Scenes(story, lab, chain, toll, states.Driver(chain, regions, controller))
            for state in rng.sample(STATES, len(STATES)):
                scenes.stopped_shortly(state)
            scenes.vnf_killed()
            scenes.stopped_for_long()
            scenes.reboots()
            for state in rng.sample(STATES, len(STATES)):
                scenes.killed(state)
        with story.step("rules have counted every packet that came to the switch"):
            errors = toll.rest()
            story.note(toll.text())
            story.check(not errors, "; ".join(errors))
        lab.failed = story.failed > 0


tap.tell("guests die", main)
