#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""p2plinkd is killed, and stopped, in each state of a link between two guests: no packet is lost by that, links that
are there stay, and what was half done is finished, or undone, by the next p2plinkd.

$P2P_SEED repeats a run."""

import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import guest, states, tap
from p2plab.chain import Chain
from p2plab.lab import Lab
from p2plab.remains import Regions
from p2plab.waiting import wait_for

SEED = int(os.environ.get("P2P_SEED", random.SystemRandom().randrange(1 << 32)))
RANDOM_ROUNDS = int(os.environ.get("P2P_ROUNDS", 4))
RATE = 1000
A, B = "dpdkr3", "dpdkr4"    # The link of interest: forwarder and sink are in guests.
CONFIG = {"p2plink-linger-ms": "300", "p2plink-retry-ms": "1000"}


class Scenes:
    def __init__(self, story, lab, chain, driver, rng):
        self.story, self.lab, self.chain, self.driver, self.rng = story, lab, chain, driver, rng

    def devices(self):
        """{VM: link regions in it}; None while p2plinkd does not know."""
        vms = self.lab.agent.show()["vms"]
        if any(vm["state"] != "ready" for vm in vms):
            return None
        return {os.path.basename(vm["qmp"]): sum(d["kind"] == "link" for d in vm["devices"]) for vm in vms}

    def wait_devices(self, n):
        """Until each of the two VMs has the devices of as many links as it should, and no others."""
        # (The forwarder's other link is with a process, and stays.)
        want = {"forwarder.qmp": 1 + n, "sink.qmp": n}
        wait_for(f"devices {want}", lambda: self.devices() == want, 60, 0.05, lambda: str(self.devices()))

    def epochs(self):
        links = self.chain.ovs.links()
        return [links[port]["switchovers"] for port in ("dpdkr1", "dpdkr2", A, B)]

    def gone(self):
        """The link's devices are out of the VMs."""
        self.driver.block(A, B)
        self.driver.wait(A, "normal")
        self.wait_devices(0)

    def direct(self):
        """All is well again, and nothing was lost."""
        self.chain.wait_direct(120)
        self.chain.wait_traffic(60)
        self.wait_devices(1)
        acc = self.chain.rest(60, flows=False)
        errors = acc.port_errors + acc.traffic_errors
        self.story.check(not errors, "; ".join(errors))
        self.chain.start(RATE)
        self.chain.wait_traffic(60)

    def noticed(self):
        wait_for("vswitchd to miss the agent", lambda: self.lab.ovs.log_text().count("is gone: links of VMs stay")
                 == self.kills, 60, 0.01)

    kills = 0

    def kill(self):
        self.lab.agent.kill()
        self.kills += 1

    def while_direct(self):
        with self.story.step("killed while links are direct: they stay, end and come back without it", vital=True):
            before = self.epochs()
            self.kill()
            self.noticed()
            self.chain.wait_traffic(60)
            self.story.check(self.epochs() == before, f"{before}, {self.epochs()}")
            self.driver.block(A, B)
            self.chain.wait_normal(60, [(A, B), (B, A)])
            self.driver.unblock(A, B)
            self.chain.wait_direct(60)
        with self.story.step("a new one finds what is there, and changes nothing", vital=True):
            self.chain.wait_traffic(60)
            before = self.epochs()
            self.lab.agent.start()
            self.direct()
            time.sleep(1.5)     # What nobody needs, it would take out after a second.
            self.chain.wait_traffic(60)
            self.story.check(self.epochs() == before, f"{before}, {self.epochs()}")

    def while_provisioning(self):
        with self.story.step("dead when a link is to be made: the link waits for the next one", vital=True):
            self.gone()
            self.kill()
            self.noticed()
            self.driver.unblock(A, B)
            self.lab.ovs.wait_state({A: "provisioning"}, 60)
            time.sleep(self.rng.random())
            self.chain.wait_traffic(60)
            self.lab.agent.start()
            self.direct()

    def at_random(self, i):
        with self.story.step(f"killed while the link's devices are plugged, and while they are unplugged ({i})",
                             vital=True):
            self.gone()
            self.driver.unblock(A, B)
            time.sleep(self.rng.random() * 0.05)
            said = self.lab.ovs.state(A)
            self.kill()
            self.lab.agent.start()
            self.direct()
            self.driver.block(A, B)
            self.driver.wait(A, "unmapping" if i % 2 else "normal")
            time.sleep(self.rng.random() * 0.1)
            self.kill()
            self.lab.agent.start()
            self.wait_devices(0)
            self.driver.unblock(A, B)
            self.direct()
            self.story.note(f"it was {said}")

    def stopped(self):
        with self.story.step("stopped while links are direct, and while one is to be made", vital=True):
            before = self.epochs()
            self.lab.agent.child.signal(signal.SIGSTOP)
            time.sleep(0.5)
            self.chain.wait_traffic(60)
            self.story.check(self.epochs() == before, f"{before}, {self.epochs()}")
            self.lab.agent.child.signal(signal.SIGCONT)
            self.gone()
            self.lab.agent.child.signal(signal.SIGSTOP)
            self.driver.unblock(A, B)
            self.lab.ovs.wait_state({A: "provisioning"}, 60)
            time.sleep(self.rng.random())
            self.lab.agent.child.signal(signal.SIGCONT)
            self.direct()


def main(story):
    story.note(f"P2P_SEED={SEED}; guests run with {guest.accel()}")
    rng = random.Random(SEED)
    with Lab("agent-dies", "guest", other_config=CONFIG) as lab, Regions(lab.ovs) as regions:
        with story.step("a process and two guests are linked", vital=True):
            chain = Chain(lab, how={"source": {"kind": "process"}})
            chain.add_rules()
            chain.wait_direct(120)
            chain.start(RATE)
            chain.wait_traffic(60)
        with lab.ovs.controller(chain.bridge) as controller:
            scenes = Scenes(story, lab, chain, states.Driver(chain, regions, controller), rng)
            scenes.while_direct()
            scenes.while_provisioning()
            for i in range(RANDOM_ROUNDS):
                scenes.at_random(i + 1)
            scenes.stopped()
        with story.step("all counters agree"):
            acc = chain.rest(60)
            story.note(f"{acc.total('sent')} packets, {acc.total('dropped_by_switch')} found a ring full")
            story.check(not acc.errors, acc.text())
        lab.failed = story.failed > 0


tap.tell("p2plinkd dies", main)
