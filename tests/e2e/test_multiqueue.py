#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ports with several queues, three on one side and two on the other: each flow keeps to one queue and stays in order on
both ways, while links change."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import tap
from p2plab.chain import Chain
from p2plab.lab import Lab

RATE = 20000
FLOWS = 12


def main(story):
    with Lab("multiqueue") as lab:
        many = ["--flows", str(FLOWS), "--threads", "2"]
        chain = Chain(lab, hops=1, source=many, sink=many,
                      settings={"dpdkr1": ["options:n_rxq=3"], "dpdkr2": ["options:n_rxq=2"]})
        with story.step("ports of 3 and of 2 queues are linked", vital=True):
            chain.add_rules()
            chain.wait_direct()
        with story.step("no flow changes its queue or its order while the link changes 20 times"):
            rules = [chain.drop_rule("dpdkr1"), chain.drop_rule("dpdkr2")]
            chain.start(RATE)
            chain.wait_traffic()
            for _ in range(10):
                for rule in rules:
                    chain.ovs.add_flow(chain.bridge, rule + ",actions=drop")
                chain.wait_normal(20)
                time.sleep(0.05)
                chain.retire(*rules)
                chain.wait_direct(20)
                time.sleep(0.05)
            acc = chain.rest()
            story.note(f"{acc.switchovers} switchovers, {acc.total('sent')} packets in {FLOWS} flows each way")
            story.check(not acc.errors, acc.text())
            for vnf in chain.source, chain.sink:
                rx = vnf.command("report flows")["report"]["rx"]
                flows = rx["flows"]
                story.check(len({f["flow"] for f in flows}) == FLOWS, f"{vnf.name}: {len(flows)} flows have come")
                story.check(rx["queue_changes"] == 0, f"{vnf.name}: {rx['queue_changes']} changes of queue")
        with story.step("every queue was used"):
            for vnf, queues in (chain.source, 3), (chain.sink, 2):
                used = {f["queue"] for f in vnf.command("report flows")["report"]["rx"]["flows"]}
                # From 3 queues to 2: all are used; from 2 to 3: two of them.
                story.check(len(used) == 2, f"{vnf.name}: of {queues} queues {sorted(used)} were used")
        with story.step("each queue of the sender has switched over by itself"):
            links = chain.ovs.links()
            story.check(links["dpdkr1"]["switchovers"] >= 3 * 10 and links["dpdkr2"]["switchovers"] >= 2 * 10,
                        f"switchovers: {links['dpdkr1']['switchovers']}, {links['dpdkr2']['switchovers']}")
        lab.failed = story.failed > 0


tap.tell("several queues", main)
