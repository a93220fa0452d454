#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""VNFs are stopped (SIGSTOP), in each state that their links go through, and go on (SIGCONT): for a moment, and for
longer than the switch waits for them.  Nothing is missing but what a link that was ended by force had in its rings, and
what the switch had no room for; nobody else notices.

$P2P_SEED repeats a run."""

import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import deaths, states, tap
from p2plab.chain import Chain
from p2plab.lab import Lab
from p2plab.remains import Regions
from p2plab.waiting import wait_for

SEED = int(os.environ.get("P2P_SEED", random.SystemRandom().randrange(1 << 32)))
RATE = 5000
SIZE = 200
SHORT = [state for state in states.STATES if state != "unmapping"]   # To come to that takes some time limits.
CONFIG = {"p2plink-linger-ms": "300", "p2plink-drain-ms": "500", "p2plink-plug-ms": "1500"}


class Rounds:
    def __init__(self, story, chain, toll, driver, rng):
        self.story, self.chain, self.toll, self.driver, self.rng = story, chain, toll, driver, rng

    def one(self, vnf, state, limit=None):
        """'limit': what is seen when the switch has ceased to wait."""
        p, q = self.rng.choice([link for link in self.chain.links if link[0] in vnf.ports])
        self.chain.start(RATE)
        self.chain.wait_traffic(60)
        self.driver.bring(vnf, p, q, state)
        if limit:
            wait_for(f"{p} or {q} to say '{limit}'", lambda: self.says(p, limit) or self.says(q, limit), 60, 0.01)
        else:
            time.sleep(self.rng.random() * 0.1)
        if state in ("dropping", "unmapping"):
            self.toll.forced[p] += 1    # It has had its time to receive what was in there.
        elif limit and state == "reverting":
            self.toll.forced[p] += 1
            self.toll.forced[q] += 1
        deaths.go_on(vnf)
        self.driver.unblock(p, q)
        self.chain.wait_direct(60)
        self.chain.wait_traffic(60)
        errors = self.toll.rest(rules=False)
        self.story.check(not errors, "; ".join(errors))

    def says(self, port, words):
        return words in self.chain.ovs.links()[port]["last_error"]


def main(story):
    story.note(f"P2P_SEED={SEED}")
    rng = random.Random(SEED)
    ends = ("--size", str(SIZE), "--per-flow")
    with Lab("vnf-stopped", other_config=CONFIG) as lab, Regions(lab.ovs) as regions:
        chain = Chain(lab, source=ends, sink=ends)
        bystander = Chain(lab, hops=1, bridge="br-by", first=5, prefix="bystanding-", source=ends, sink=ends)
        for each in chain, bystander:
            each.add_rules()
            each.wait_direct(60)
        bystander.start(RATE)
        toll = deaths.Deaths(chain, regions, SIZE)
        with lab.ovs.controller(chain.bridge) as controller:
            rounds = Rounds(story, chain, toll, states.Driver(chain, regions, controller), rng)
            for vnf in chain.vnfs:
                for state in rng.sample(SHORT, len(SHORT)):
                    with story.step(f"{vnf.name} is stopped for a moment while its link is {state}", vital=True):
                        rounds.one(vnf, state)
            for vnf in rng.sample(chain.vnfs, 1):
                with story.step(f"{vnf.name} does not let go of its link in time", vital=True):
                    rounds.one(vnf, "unmapping")
            for vnf in rng.sample(chain.vnfs, 1):
                with story.step(f"{vnf.name} does not hear that its link is to end", vital=True):
                    rounds.one(vnf, "reverting", "ended by force")
            for vnf in rng.sample(chain.vnfs, 1):
                with story.step(f"{vnf.name} does not map its link in time", vital=True):
                    rounds.one(vnf, "provisioning", "has not mapped it")
        with story.step("rules have counted every packet that came to the switch"):
            errors = toll.rest()
            story.note(toll.text())
            story.check(not errors, "; ".join(errors))
        deaths.check_bystanders(story, bystander)
        lab.failed = story.failed > 0


tap.tell("VNFs are stopped", main)
