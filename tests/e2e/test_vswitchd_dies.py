#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ovs-vswitchd is killed while links are direct: the VNFs go on, a new vswitchd takes up the links that its restored
tables confirm, ends the others, and in the end every packet has arrived and every port counter goes on.

Rule counters begin anew, as vanilla's do."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import accounts, tap
from p2plab.chain import Chain
from p2plab.lab import Lab
from p2plab.vnf import port_stats
from p2plab.waiting import wait_for

RATE = 20000


def errors(acc):
    """Without those of the rules."""
    return acc.port_errors + acc.traffic_errors


def settle(chain, seconds=20):
    """Stops the traffic; the accounts when they agree, or after some time."""
    chain.stop()
    begin = time.monotonic()
    acc = accounts.make(chain)
    while errors(acc) and time.monotonic() - begin < seconds:
        time.sleep(0.2)
        acc = accounts.make(chain)
    return acc


def attached(chain):
    wait_for("all VNFs to be back", lambda: all(link["attached"] for link in chain.ovs.links().values()), 20)


def reverts(chain):
    """How often links have been ended, as the VNFs see it: a direct epoch begins anew after that."""
    return sum(port_stats(vnf.report(), port)["tx_epochs"] for vnf in chain.vnfs for port in vnf.ports)


def with_restore(story, chain):
    chain.add_rules()
    chain.wait_direct()
    chain.start(RATE)
    chain.wait_traffic()
    chain.ovs.vsctl("set", "Open_vSwitch", ".", "other_config:flow-restore-wait=true")
    epochs = reverts(chain)
    for i in range(3):
        with story.step(f"vswitchd is killed, links go on ({i + 1})"):
            chain.ovs.kill_vswitchd()
            chain.wait_traffic()
            time.sleep(0.3)
            chain.wait_traffic()
        with story.step("a new one waits for its tables, links go on"):
            chain.ovs.start_vswitchd()
            attached(chain)
            chain.wait_direct(5)
            chain.wait_traffic()
        with story.step("its tables are restored, links go on"):
            chain.add_rules()
            chain.ovs.vsctl("remove", "Open_vSwitch", ".", "other_config", "flow-restore-wait")
            chain.wait_traffic()
            chain.wait_direct(5)
            time.sleep(0.5)
            chain.wait_direct(5)
            chain.ovs.vsctl("set", "Open_vSwitch", ".", "other_config:flow-restore-wait=true")
    with story.step("no link has ever left its channel"):
        story.check(reverts(chain) == epochs, f"{reverts(chain) - epochs} epochs have begun meanwhile")
    with story.step("nothing is lost, port counters have gone on"):
        acc = settle(chain)
        story.note(f"{acc.total('sent')} packets")
        story.check(not errors(acc), "; ".join(errors(acc)))
        story.check(acc.total("dropped_by_switch") == 0, "the switch dropped some")


def without_restore(story, chain):
    chain.ovs.vsctl("remove", "Open_vSwitch", ".", "other_config", "flow-restore-wait")
    chain.start(RATE)
    chain.wait_traffic()
    with story.step("vswitchd is killed, and a new one has no rules: links end"):
        chain.ovs.kill_vswitchd()
        chain.wait_traffic()
        chain.stop()
        chain.ovs.start_vswitchd()
        attached(chain)
        chain.wait_normal(10)
    with story.step("with rules, all goes on; nothing that was sent is lost"):
        chain.add_rules()
        chain.wait_direct(10)
        chain.start(RATE)
        chain.wait_traffic()
        acc = settle(chain)
        story.check(not errors(acc), "; ".join(errors(acc)))


def main(story):
    with Lab("vswitchd-dies") as lab:
        chain = Chain(lab)
        with_restore(story, chain)
        without_restore(story, chain)
        lab.failed = story.failed > 0


tap.tell("vswitchd dies", main)
