#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same in an Open vSwitch that was built without DPDK: a chain of processes, links that come and go, all counters.

time-limit: 600 (it may have to build that Open vSwitch first)"""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import build, tap
from p2plab.chain import Chain
from p2plab.lab import Lab
from p2plab.proc import run

FLAVOUR = "ovs-nodpdk"


def main(story):
    if build.BUILD != os.path.join(build.ROOT, "build"):
        story.skip("Open vSwitch without DPDK", "built with the usual options only")
        return
    with story.step("it can be built", vital=True):
        run(["make", "-C", build.ROOT, "--no-print-directory", FLAVOUR], seconds=540)
    with Lab("nodpdk", flavour=FLAVOUR) as lab:
        with story.step("it has no DPDK in it"):
            said = run([lab.ovs.program("vswitchd/ovs-vswitchd"), "--version"], env=lab.ovs.env).stdout
            story.check("DPDK" not in said, said)
        chain = Chain(lab)
        rule = chain.drop_rule("dpdkr3")
        with story.step("links become direct, end, and become direct again under traffic"):
            chain.add_rules()
            chain.start(20000)
            chain.wait_direct()
            chain.wait_traffic()
            for _ in range(5):
                chain.ovs.add_flow(chain.bridge, rule + ",actions=drop")
                chain.wait_normal(20, [("dpdkr3", "dpdkr4")])
                time.sleep(0.1)
                chain.retire(rule)
                chain.wait_direct(20)
        with story.step("all counters agree"):
            acc = chain.rest()
            story.check(not acc.errors, acc.text())
        lab.failed = story.failed > 0


tap.tell("Open vSwitch without DPDK", main)
