#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""DPDK's own l2fwd, l3fwd and l3fwd-power, unmodified, between a source and a sink, while links come and go; the last
one sleeps when there is nothing to do."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import dpdk, tap
from p2plab.lab import Lab
from p2plab.waiting import wait_for

RATE = 10000


def forward(story, chain, times=2):
    """Traffic both ways, with switchovers; returns the accounts."""
    chain.add_rules()
    chain.start(RATE)
    chain.wait_traffic(60)
    chain.wait_direct(60)
    rules = [chain.drop_rule(port) for port in chain.numbers]
    for _ in range(times):
        chain.wait_traffic(60)
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
    return acc


def l2fwd(lab, name, ports):
    return dpdk.App(lab, name, dpdk.example("l2fwd"), ports, ["-p", "3", "-q", "2", "-T", "0"])


def l3fwd(lab, name, ports):
    return dpdk.App(lab, name, dpdk.example("l3fwd"), ports, [
        "-p", "3", "-P", "--config=(0,0,0),(1,0,0)", "--parse-ptype", "--no-numa",
        "--rule_ipv4=" + dpdk.example_file("l3fwd", "lpm_default_v4.cfg"),
        "--rule_ipv6=" + dpdk.example_file("l3fwd", "lpm_default_v6.cfg")])


def l3fwd_power(lab, name, ports):
    return dpdk.App(lab, name, dpdk.example("l3fwd-power"), ports, [
        "-p", "3", "-P", "--config=(0,0,0),(1,0,0)", "--parse-ptype", "--no-numa", "--interrupt-only"])


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def sleeps(story, chain):
    """It takes less of a CPU than one that polls, which takes all it can get."""
    pid = chain.forwarders[0].child.pid

    def rests():
        before = cpu_ticks(pid)
        time.sleep(0.5)
        return cpu_ticks(pid) - before < 0.25 * os.sysconf("SC_CLK_TCK")
    wait_for("it to sleep", rests, 60, 0)


def main(story):
    for name, make, there, back in (("l2fwd", l2fwd, None, None), ("l3fwd", l3fwd, "198.18.1.1", "198.18.0.1"),
                                    ("l3fwd-power", l3fwd_power, "2.1.1.1", "1.1.1.1")):
        with Lab("dpdk-" + name) as lab:
            with story.step(f"{name} starts on two ports", vital=True):
                chain = dpdk.DpdkChain(lab, make, source=["--routed", *(["--dst-ip", there] if there else [])],
                                       sink=["--routed", *(["--dst-ip", back] if back else [])])
            with story.step(f"{name} forwards all packets, on both ways and across switchovers"):
                forward(story, chain)
            if make is l3fwd_power:
                with story.step(f"{name} sleeps when there is nothing to receive"):
                    sleeps(story, chain)
                with story.step(f"{name} wakes up for a single packet, directly and through the switch"):
                    for _ in range(2):
                        for vnf in chain.source, chain.sink:
                            received = chain.received()
                            vnf.send_begin(1)
                            wait_for("the packet", lambda: sum(chain.received()) == sum(received) + 1, 30, 0.01)
                            vnf.send_end()
                        for port in chain.numbers:
                            chain.ovs.add_flow(chain.bridge, chain.drop_rule(port) + ",actions=drop")
                        chain.wait_normal(60)
                    said = chain.forwarders[0].output()
                    story.check("waked up from rx interrupt" in said, "it does not tell of interrupts")
            lab.failed = story.failed > 0


tap.tell("DPDK's examples", main)
