#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""testpmd, unmodified, in a guest: it finds its ports by itself, and links are plugged in and out while it forwards."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import tap
from p2plab.dpdk import DpdkChain, GuestTestpmd
from p2plab.lab import Lab

RATE = 500


class MixedLab(Lab):
    """VNFs are processes, but p2plinkd runs."""

    def vnf(self, *args, **more):
        return super().vnf(*args, **{"kind": "process", **more})


def main(story):
    with MixedLab("dpdk-guest", "guest") as lab:
        with story.step("testpmd in a guest finds the two ports", vital=True):
            chain = DpdkChain(lab, GuestTestpmd)
            chain.forwarders[0]("start")
        with story.step("packets pass through the switch"):
            rules = [chain.drop_rule(port) for port in chain.numbers]
            for rule in rules:
                chain.ovs.add_flow(chain.bridge, rule + ",actions=drop")
            chain.add_rules()
            chain.start(RATE)
            chain.wait_traffic(60)
            acc = chain.rest(60)
            story.check(not acc.errors, acc.text())
        with story.step("links are plugged in under traffic, and out again, and nothing is lost"):
            chain.start(RATE)
            chain.wait_traffic(60)
            chain.retire(*rules)
            seconds = chain.wait_direct(60)
            story.note(f"all links direct after {seconds * 1000:.0f} ms")
            chain.wait_traffic(60)
            for _ in range(3):
                for rule in rules:
                    chain.ovs.add_flow(chain.bridge, rule + ",actions=drop")
                chain.wait_normal(60)
                chain.wait_traffic(60)
                chain.retire(*rules)
                chain.wait_direct(60)
                chain.wait_traffic(60)
            acc = chain.rest(60)
            story.note(f"{acc.total('sent')} packets, {acc.switchovers} switchovers")
            story.check(not acc.errors, acc.text())
            for port in chain.forwarders[0].ports:
                x = chain.forwarders[0].xstats(port)
                story.check(x["rx_direct_packets"] and x["tx_direct_packets"], f"{port}: {x}")
        lab.failed = story.failed > 0


tap.tell("a DPDK application in a guest", main)
