#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""VNFs are killed, at random moments of each state that their links go through: nothing is missing but what was in the
rings of the dead one, and in its hands; its successor is direct again without anybody touching OVS; nobody else
notices.

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

SEED = int(os.environ.get("P2P_SEED", random.SystemRandom().randrange(1 << 32)))
RATE = 5000
SIZE = 200
RANDOM_ROUNDS = int(os.environ.get("P2P_ROUNDS", 6))
# A link that is over goes soon.
CONFIG = {"p2plink-linger-ms": "300", "p2plink-drain-ms": "500"}


def ports_of(chain, vnf, rng):
    """One of its links: (its port, the other one)."""
    return rng.choice([link for link in chain.links if link[0] in vnf.ports])


def others(chain, p):
    """Links that the VNF of 'p' has nothing to do with."""
    return [link for link in chain.links if chain.owner[p] not in (chain.owner[link[0]], chain.owner[link[1]])]


def switchovers(chain, links):
    shown = chain.ovs.links()
    return {p: shown[p]["switchovers"] for p, _ in links}


class Round:
    def __init__(self, story, chain, toll, driver, rng):
        self.story, self.chain, self.toll, self.driver, self.rng = story, chain, toll, driver, rng
        self.hit = set()

    def one(self, vnf, state):
        """'state' None: whatever it is after some flapping."""
        p, q = ports_of(self.chain, vnf, self.rng)
        undisturbed = others(self.chain, p)
        self.chain.start(RATE)
        self.chain.wait_traffic(60)
        before = switchovers(self.chain, undisturbed)
        if state:
            self.driver.bring(vnf, p, q, state)
            time.sleep(self.rng.random() * 0.02)
        else:
            state = self.flap(p, q)
        self.hit.add((vnf.name, self.toll.kill(vnf, lambda: self.driver.state(p))))
        self.driver.unblock(p, q)
        time.sleep(self.rng.random() * 0.05)
        self.toll.revive(vnf)
        if vnf not in self.chain.forwarders:
            vnf.rate(RATE)
            vnf.send_begin()
        self.chain.wait_direct(60)
        self.chain.wait_traffic(60)
        errors = self.toll.rest(rules=False)
        self.story.check(not errors, "; ".join(errors))
        after = switchovers(self.chain, undisturbed)
        self.story.check(before == after, f"other links were disturbed: {before}, {after}")

    def flap(self, p, q):
        for _ in range(self.rng.randrange(1, 10)):
            self.driver.block(p, q)
            time.sleep(self.rng.random() * 0.01)
            self.driver.unblock(p, q)
            time.sleep(self.rng.random() * 0.01)


def main(story):
    story.note(f"P2P_SEED={SEED}")
    rng = random.Random(SEED)
    # Endpoints count what was refused as not sent, so that rings that are full cost nothing.
    ends = ("--size", str(SIZE), "--per-flow")
    with Lab("vnf-killed", other_config=CONFIG) as lab, Regions(lab.ovs) as regions:
        chain = Chain(lab, source=ends, sink=ends)
        bystander = Chain(lab, hops=1, bridge="br-by", first=5, prefix="bystanding-", source=ends, sink=ends)
        for each in chain, bystander:
            each.add_rules()
            each.wait_direct(60)
        bystander.start(RATE)
        toll = deaths.Deaths(chain, regions, SIZE)
        with lab.ovs.controller(chain.bridge) as controller:
            round_ = Round(story, chain, toll, states.Driver(chain, regions, controller), rng)
            for vnf in chain.vnfs:
                for state in rng.sample(states.STATES, len(states.STATES)):
                    with story.step(f"{vnf.name} is killed while its link is {state}", vital=True):
                        round_.one(vnf, state)
            for i in range(RANDOM_ROUNDS):
                vnf = rng.choice(chain.vnfs)
                with story.step(f"{vnf.name} is killed while its link flaps ({i + 1})", vital=True):
                    round_.one(vnf, None)
        with story.step("every state of each VNF's links has been hit"):
            missing = {(vnf.name, state) for vnf in chain.vnfs for state in states.STATES} - round_.hit
            story.check(not missing, f"not hit: {sorted(missing)}")
        with story.step("rules have counted every packet that came to the switch"):
            errors = toll.rest()
            story.note(toll.text())
            story.check(not errors, "; ".join(errors))
        deaths.check_bystanders(story, bystander)
        lab.failed = story.failed > 0


tap.tell("VNFs are killed", main)
