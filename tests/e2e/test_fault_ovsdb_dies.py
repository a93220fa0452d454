#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ovsdb-server is killed, and ended, while links are direct, and started again: no link leaves its channel and no
packet is missing, also when VNFs die meanwhile.

Without ovsdb-server the main thread of ovs-vswitchd rests, vanilla's too: OpenFlow is not answered, and what has
ended meanwhile waits for it.  All that p2plink does for VNFs goes on."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import tap
from p2plab.chain import Chain
from p2plab.deaths import Deaths
from p2plab.lab import Lab
from p2plab.remains import Regions

RATE = 5000
SIZE = 200


def switchovers(chain):
    return {name: link["switchovers"] for name, link in chain.ovs.links().items()}


def start_server(ovs):
    """Returns when vswitchd has done what the new one says."""
    ovs.start_server()
    ovs.vsctl("set", "Open_vSwitch", ".", f"external_ids:lab={time.monotonic_ns()}")
    ovs.check()


def restarted(story, chain, toll, kindly):
    ovs = chain.ovs
    how = "ended" if kindly else "killed"
    with story.step(f"ovsdb-server is {how}: links stay", vital=True):
        chain.start(RATE)
        chain.wait_traffic(60)
        before = switchovers(chain)
        ovs.end_server(kindly)
        time.sleep(0.5)
        chain.wait_traffic(60)
        story.check(switchovers(chain) == before, f"{before}, {switchovers(chain)}")
    with story.step("a new one is there: links stay, and nothing is missing"):
        start_server(ovs)
        chain.wait_traffic(60)
        errors = toll.rest()
        story.check(not errors, "; ".join(errors))
        chain.wait_direct(60)
        story.check(switchovers(chain) == before, f"{before}, {switchovers(chain)}")
    with story.step(f"it is {how} again, and a VNF is killed: its successor is served"):
        chain.start(RATE)
        chain.wait_traffic(60)
        ovs.end_server(kindly)
        toll.kill(chain.sink)
        toll.revive(chain.sink)
        chain.sink.rate(RATE)
        chain.sink.send_begin()
        chain.wait_traffic(60)
    with story.step("and is direct when there is an ovsdb-server"):
        start_server(ovs)
        chain.wait_direct(60)
        chain.wait_traffic(60)
    with story.step("nothing is missing that the dead one had not in its rings"):
        errors = toll.rest()
        story.check(not errors, "; ".join(errors))
        now = switchovers(chain)
        story.check(all(now[p] == before[p] for p in ("dpdkr1", "dpdkr2")), f"{before}, {now}")


def main(story):
    ends = ("--size", str(SIZE), "--per-flow")
    with Lab("ovsdb-dies") as lab, Regions(lab.ovs) as regions:
        chain = Chain(lab, source=ends, sink=ends)
        toll = Deaths(chain, regions, SIZE)
        with story.step("links are direct", vital=True):
            chain.add_rules()
            chain.wait_direct(60)
        for kindly in False, True:
            restarted(story, chain, toll, kindly)
        story.note(toll.text())
        lab.failed = story.failed > 0


tap.tell("ovsdb-server dies", main)
