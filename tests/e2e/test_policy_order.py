#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Policy holds from the barrier's reply on: of the packets that a VNF begins to send after that, none enters the
channel that the change has ended, and none passes through the switch by an older megaflow.

Unmarked packets flow all the time, over a direct channel.  Again and again a rule is added that drops marked ones; when
the switch has answered the barrier, and not before, the source begins to mark packets: not one may arrive.  Each time
the traffic has been on its way through the switch shortly before, so that a megaflow for all of it is there."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import openflow, tap
from p2plab.chain import MARKED_UDP_PORT, Chain
from p2plab.lab import Lab
from p2plab.waiting import wait_for

RATE = 20000
REPETITIONS = int(os.environ.get("P2P_REPETITIONS", 200))
PRIORITY = 100


def marked(vnf, way, what):
    return vnf.report()[way]["by_kind"]["marked"][what]


def directly(chain):
    return chain.source.report()["port_stats"]["tx_direct_packets"]


def one(chain, controller, add, delete):
    """Returns the seconds from the rule's flow-mod to the barrier's reply, and how many marked packets were sent."""
    before = directly(chain)
    wait_for("packets on the channel", lambda: directly(chain) > before, 20, 0)
    seconds = controller.change(add)
    sent = marked(chain.source, "tx", "sent")
    chain.source.mark_percent(50)
    # While the switch holds the port's traffic, its ring may be full.
    wait_for("marked packets to be sent", lambda: marked(chain.source, "tx", "sent") > sent, 20, 0.005)
    chain.source.mark_percent(0)
    sent = marked(chain.source, "tx", "sent")
    wait_for("marked packets to be dropped", lambda: newer_have_come(chain), 20, 0)
    controller.change(delete)
    return seconds, sent


def newer_have_come(chain):
    """Whether a packet has arrived that was sent after this call's begin, and so after all that are to be dropped: they
    must have been before the rule may go, and the switch holds the port's traffic for some moments."""
    sent = chain.source.report()["tx"]["by_kind"]["other"]["sent"]
    return wait_for("newer packets to arrive", lambda: stream(chain)["next"] > sent, 20, 0)


def stream(chain):
    """What the sink knows of the source's unmarked packets; they are numbered from 0."""
    flows = chain.sink.command("report flows")["report"]["rx"]["flows"]
    return next(flow for flow in flows if flow["source"] == 1 and flow["kind"] == "other")


def main(story):
    match = openflow.match(in_port=1, udp_dst=MARKED_UDP_PORT)
    add = openflow.flow_mod(openflow.ADD, PRIORITY, match)
    delete = openflow.flow_mod(openflow.DELETE_STRICT, PRIORITY, match)
    # No hold may run out of time, however busy this machine is.
    with Lab("policy-order", other_config={"p2plink-hold-max-ms": "10000"}) as lab:
        chain = Chain(lab, hops=1)
        chain.add_rules()
        chain.wait_direct()
        with story.step("marked packets pass while there is no rule against them"):
            chain.start(RATE)
            chain.source.mark_percent(50)
            wait_for("marked packets", lambda: marked(chain.sink, "rx", "received") > 100, 10)
            chain.source.mark_percent(0)
            time.sleep(0.2)
        received = marked(chain.sink, "rx", "received")
        sent = marked(chain.source, "tx", "sent")
        story.check(received == sent, f"{sent} marked packets were sent, {received} have arrived")
        slowest = 0
        with story.step(f"{REPETITIONS} times, no packet that is sent after the barrier's reply passes"):
            with chain.ovs.controller(chain.bridge) as controller:
                for i in range(1, REPETITIONS + 1):
                    seconds, now = one(chain, controller, add, delete)
                    slowest = max(slowest, seconds)
                    story.check(now > sent, "no marked packets were sent")
                    passed = marked(chain.sink, "rx", "received") - received
                    story.check(passed == 0, f"repetition {i}: {passed} of {now - sent} marked packets have passed")
                    sent = now
            story.note(f"{sent} marked packets dropped; the slowest barrier took {slowest * 1000:.1f} ms")
        with story.step("the link was direct before each of them, and no other packet is missing"):
            report, link = chain.source.report(), chain.ovs.links()["dpdkr1"]
            story.check(report["port_stats"]["tx_epochs"] >= REPETITIONS, f"epochs: {report['port_stats']}")
            story.check(link["holds"] >= REPETITIONS, f"held {link['holds']} times")
            story.check(link["holds_expired"] == 0, f"{link['holds_expired']} holds of {link['holds']} ran out of time")
            # The rules have taken with them what they had counted.
            acc = chain.rest(flows=False)
            dropped = marked(chain.source, "tx", "sent") - marked(chain.sink, "rx", "received")
            story.check(not acc.port_errors, "; ".join(acc.port_errors))
            lost, full = acc.total("lost"), acc.total("dropped_by_switch")
            story.check(dropped - full <= lost <= dropped,
                        f"{lost} packets have not arrived, besides {full} for which rings were full; marked: {dropped}")
            story.check(not (acc.doubled or acc.reordered or acc.corrupted), acc.text())
        lab.failed = story.failed > 0


tap.tell("the order of policy and packets", main)
