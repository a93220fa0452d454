#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""testpmd, unmodified, between a source and a sink, in each of its forwarding modes, while links come and go: no packet
is missing, doubled or out of order, and what it counts is what OVS counts."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import tap
from p2plab.dpdk import DpdkChain, Testpmd
from p2plab.lab import Lab
from p2plab.waiting import wait_for

RATE = 10000
# Each packet that comes in by one port goes out by the other.
PASSING = ["io", "mac", "macswap", "csum", "5tswap", "noisy"]
SENDING = ["txonly", "flowgen"]
# Besides: rxonly here, icmpecho in test_dpdk_offloads.py.  Not: shared_rxq, which is for queues that ports share (and
# crashes without), and ieee1588, which is for clocks.


def flap(chain, times):
    """Ends the links and has them come back, under traffic."""
    rules = [chain.drop_rule(port) for port in chain.numbers]
    for _ in range(times):
        for rule in rules:
            chain.ovs.add_flow(chain.bridge, rule + ",actions=drop")
        chain.wait_normal(60)
        chain.wait_traffic(60)
        chain.retire(*rules)
        chain.wait_direct(60)
        chain.wait_traffic(60)


def passing(story, chain, mode, times):
    with story.step(f"{mode}: all packets pass, on both ways and across switchovers"):
        chain.forwarders[0].mode(mode)
        chain.start(RATE)
        chain.wait_traffic(60)
        flap(chain, times)
        acc = chain.rest(60)
        story.check(not acc.errors, acc.text())
        story.note(f"{mode}: {acc.total('sent')} packets so far, {acc.switchovers} switchovers")


def settle(story, chain):
    """Waits until what the VNFs count and what OVS counts agree."""
    acc = chain.rest(60, flows=False)
    story.check(not acc.port_errors, acc.text())


def switch_dies(story, chain):
    with story.step("packets go on while vswitchd is killed and comes back, in order, and all are counted"):
        chain.forwarders[0].mode("io")
        chain.start(RATE)
        chain.wait_traffic(60)
        chain.ovs.kill_vswitchd()
        chain.wait_traffic(60)
        chain.ovs.start_vswitchd()
        wait_for("all VNFs to be back", lambda: all(link["attached"] for link in chain.ovs.links().values()), 60)
        chain.add_rules()
        chain.wait_direct(60)
        chain.wait_traffic(60)
        acc = chain.rest(60, flows=False)
        # A new switch that knows no rules yet may drop what comes its way.
        errors = acc.port_errors + [error for error in acc.traffic_errors if "lost" not in error]
        story.check(not errors, "; ".join(errors))


def rxonly(story, chain):
    pmd = chain.forwarders[0]
    with story.step("rxonly: all packets arrive, and stay there"):
        pmd.mode("rxonly")
        before = [pmd.xstats(port) for port in pmd.ports]
        sent = [vnf.report()["tx"]["accepted"] for vnf in (chain.source, chain.sink)]
        chain.start(RATE)
        wait_for("some packets", lambda: all(pmd.xstats(port)["rx_good_packets"] > x["rx_good_packets"] + 500
                                             for port, x in zip(pmd.ports, before)), 60, 0.02)
        settle(story, chain)
        after = [pmd.xstats(port) for port in pmd.ports]
        for vnf, n, x, y in zip((chain.source, chain.sink), sent, before, after):
            n = vnf.report()["tx"]["accepted"] - n
            came = y["rx_good_packets"] - x["rx_good_packets"]
            story.check(came == n, f"{n} were sent, {came} have come")
            story.check(y["tx_good_packets"] == x["tx_good_packets"], "it has sent")


def sending(story, chain, mode):
    """Only numbers can be compared: what testpmd sends begins with its own headers, and goes on with whatever was in
    the mbufs before."""
    pmd = chain.forwarders[0]
    ends = list(zip((chain.source, chain.sink), pmd.ports))

    def received(vnf):
        return vnf.report()["port_stats"]["rx_packets"]
    with story.step(f"{mode}: all that it says it has sent arrives, over the channel"):
        pmd("stop")
        pmd("set fwd " + mode)
        before = [(received(vnf), pmd.xstats(port)) for vnf, port in ends]
        pmd("start")
        for (vnf, _), (n, _) in zip(ends, before):
            wait_for("packets", lambda vnf=vnf, n=n: received(vnf) > n + 500, 60, 0.02)
        pmd("stop")
        settle(story, chain)
        for (vnf, port), (n, x) in zip(ends, before):
            y = pmd.xstats(port)
            sent, came = y["tx_good_packets"] - x["tx_good_packets"], received(vnf) - n
            story.check(sent == came, f"{port}: {sent} were sent, {came} have come")
            story.check(y["tx_direct_packets"] - x["tx_direct_packets"] == sent, "not all went directly")


def main(story):
    with Lab("dpdk-modes") as lab:
        with story.step("testpmd opens two ports", vital=True):
            chain = DpdkChain(lab, lambda lab, name, ports: Testpmd(lab, name, ports),
                              source=["--routed"], sink=["--routed"])
            chain.forwarders[0]("start")
        with story.step("its ports are linked with their neighbours", vital=True):
            chain.add_rules()
            chain.wait_direct(60)
        for i, mode in enumerate(PASSING):
            passing(story, chain, mode, 3 if i == 0 else 1)
            lab.failed = story.failed > 0
        rxonly(story, chain)
        switch_dies(story, chain)
        for mode in SENDING:
            sending(story, chain, mode)
        with story.step("testpmd quits in peace, and its ports are free"):
            chain.forwarders[0].quit()
            wait_for("the ports to be free", lambda: not any(lab.ovs.links()[port]["attached"]
                                                             for port in chain.forwarders[0].ports), 20, 0.05)
        lab.failed = story.failed > 0


tap.tell("testpmd's forwarding modes", main)
