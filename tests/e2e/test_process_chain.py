#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A chain of three processes: links come and go with the rules under traffic, no packet is missing, no counter is
wrong, at rest or meanwhile, and idle timeouts see what goes over the channels."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import accounts, tap
from p2plab.chain import Chain
from p2plab.lab import Lab
from p2plab.waiting import wait_for
from p2plab.watch import Watch

RATE = 20000


def agree(story, chain):
    acc = chain.rest()
    story.check(not acc.errors, acc.text())
    return acc


def becomes_direct(story, chain):
    with story.step("links become direct while nothing is sent", vital=True):
        chain.add_rules()
        chain.wait_direct()
    with story.step("OVSDB and p2plink/show say who is linked with whom"):
        def told():
            rows = chain.ovs.interfaces()
            return all((rows[a]["status"].get("state"), rows[a]["status"].get("peer")) == ("direct", b)
                       for a, b in chain.links)
        wait_for("OVSDB to say so", told, 15, 0.1)  # vswitchd writes when its last writing is done.
        links = chain.ovs.links()
        for a, b in chain.links:
            story.check(links[a]["peer"] == b, f"show of {a}: {links[a]}")
        text = chain.ovs.appctl("p2plink/show")
        story.check(all(port in text for port in chain.numbers), f"p2plink/show: {text}")
    with story.step("traffic takes the channels, and all counters agree"):
        chain.start(RATE)
        chain.wait_traffic()
        time.sleep(1)
        acc = agree(story, chain)
        for vnf in chain.source, chain.sink:
            stats = acc.reports[vnf.name]["port_stats"]
            for way in "tx", "rx":
                story.check(stats[f"{way}_packets"] == stats[f"{way}_direct_packets"],
                            f"{vnf.name}: not all packets went directly: {stats}")
        story.check(acc.total("dropped_by_switch") == 0, "the switch has dropped packets")


def down_and_up(story, chain):
    rule = chain.drop_rule("dpdkr1")
    with story.step("a rule for part of the traffic ends that direction of that link, and no other"):
        chain.source.mark_percent(20)
        chain.start(RATE)
        chain.wait_traffic()
        before = chain.ovs.links()
        chain.ovs.add_flow(chain.bridge, rule + ",actions=drop")
        chain.wait_normal(20, [("dpdkr1", "dpdkr2")])
        time.sleep(0.5)
        now = chain.ovs.links()
        for a, _ in chain.links:
            if a != "dpdkr1":
                story.check(now[a]["state"] == "direct" and now[a]["switchovers"] == before[a]["switchovers"],
                            f"{a} has not stayed direct: {now[a]}")
        story.check("udp" in now["dpdkr1"]["why"], f"the rule is not given as reason: {now['dpdkr1']}")
    with story.step("the rule has dropped exactly what has not come through"):
        acc = agree(story, chain)
        story.check(acc.total("dropped_by_rule") > 0, "nothing was dropped")
    with story.step("without the rule the link is direct again, and nothing has been lost"):
        chain.source.mark_percent(0)
        chain.start(RATE)
        chain.wait_traffic()
        chain.retire(rule)
        chain.wait_direct()
        chain.source.mark_percent(20)
        time.sleep(0.5)
        agree(story, chain)
        chain.source.mark_percent(0)


def never_backwards(story, chain):
    with story.step("no counter goes backwards while links change under traffic"):
        watch = Watch(chain.ovs, chain.bridge)
        rule = chain.drop_rule("dpdkr1")
        chain.start(RATE)
        end = time.monotonic() + 5
        changes = 0
        while time.monotonic() < end:
            changes += 1
            if changes % 2:
                chain.ovs.add_flow(chain.bridge, rule + ",actions=drop")
            else:
                chain.retire(rule)  # No marked packets are sent, so its counters are at rest.
            watch.look(database=changes % 3 == 0)
        if changes % 2:
            chain.retire(rule)
        story.note(f"{changes} changes, {watch.looks} looks")
        story.check(not watch.backwards, "; ".join(watch.backwards[:5]))
    with story.step("after that all counters agree"):
        chain.wait_direct()
        acc = agree(story, chain)
        story.note(f"{acc.switchovers} switchovers, {acc.total('sent')} packets")


def idle_timeouts(story, chain):
    match = "priority=20,in_port=1"

    def rule():
        return next((r for r in chain.rules_of("dpdkr1") if r.priority == 20), None)

    with story.step("a rule with idle_timeout=3 stays while its packets take the channel"):
        chain.ovs.add_flow(chain.bridge, match + ",idle_timeout=3,actions=output:2")
        chain.wait_direct()
        chain.start(2000)
        before = chain.source.report()["port_stats"]
        end = time.monotonic() + 6.5
        while time.monotonic() < end:
            found = rule()
            story.check(found, "it has expired")
            story.check(found.idle_age <= 2, f"its idle_age is {found.idle_age}")
            time.sleep(0.2)
        after = chain.source.report()["port_stats"]
        sent = after["tx_packets"] - before["tx_packets"]
        direct = after["tx_direct_packets"] - before["tx_direct_packets"]
        story.check(0 < sent == direct, f"{sent} packets sent, {direct} of them took the channel")
    with story.step("it expires when no packet comes, and the link stays, by the rule below"):
        chain.stop()
        time.sleep(1)  # For the counters.
        before = chain.snapshot()
        begin = time.monotonic()
        wait_for("the rule to expire", lambda: not rule(), 10, 0.1)
        story.check(time.monotonic() - begin > 1, "it has expired too early")
        chain.keep(before)
        story.check(chain.ovs.state("dpdkr1") == "direct", "the link is not direct")
        agree(story, chain)


def deletion(story, chain):
    with story.step("deleting all rules ends all links; adding them brings them back"):
        chain.retire_all()
        chain.wait_normal()
        chain.add_rules()
        chain.wait_direct()
        chain.start(RATE)
        chain.wait_traffic()
        agree(story, chain)
    with story.step("what is sent while there is no rule is dropped by the table, and nothing else is missing"):
        def missed():
            found = chain.ovs.ofctl("-O", "OpenFlow13", "dump-tables", chain.bridge)
            first = found[found.index("table 0"):].split("\n")[1]
            numbers = {k: int(v) for k, v in (part.split("=") for part in first.strip().split(", ")[1:])}
            return numbers["lookup"] - numbers["matched"]
        chain.start(2000)
        chain.wait_traffic()
        before, missed_before = chain.rest(), missed()
        story.check(not before.errors, before.text())
        chain.retire_all()
        chain.wait_normal()
        sent = chain.source.report()["tx"]["accepted"] + chain.sink.report()["tx"]["accepted"]
        chain.start(2000)
        time.sleep(0.5)
        chain.stop()
        sent = chain.source.report()["tx"]["accepted"] + chain.sink.report()["tx"]["accepted"] - sent
        story.check(sent > 0, "nothing was sent")
        wait_for(f"{sent} packets to be counted as missed", lambda: missed() - missed_before == sent, 10, 0.1,
                 lambda: f"{missed() - missed_before} are")
    with story.step("the accounts of these tests notice each packet that is missing"):
        acc = accounts.make(chain)
        story.check(acc.total("lost") == sent and acc.traffic_errors and acc.flow_errors,
                    f"{sent} were dropped unseen, the accounts say: {acc.text()}")


def main(story):
    with Lab("process-chain") as lab:
        chain = Chain(lab)
        for part in becomes_direct, down_and_up, never_backwards, idle_timeouts, deletion:
            part(story, chain)
            lab.failed = story.failed > 0


tap.tell("a chain of three processes", main)
