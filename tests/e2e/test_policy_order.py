#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Policy holds from the barrier's reply on: of the packets that a VNF begins to send after that, none enters the
channel that the change has ended, and none passes through the switch by an older megaflow.

Unmarked packets flow all the time, over a direct channel.  Again and again a rule is added that drops marked ones; when
the switch has answered the barrier, and not before, the source begins to mark packets: not one may arrive.  Each time
the traffic has been on its way through the switch shortly before, so that a megaflow for all of it is there.  Packets
of another port keep some thousand megaflows in the datapath meanwhile, which revalidators have to look through.

The same without the hold, where packets do pass, is the proof that they would be noticed; and vanilla Open vSwitch is
measured beside it, with ports that a PMD thread polls too.

$P2P_REPETITIONS, $P2P_MEGAFLOWS: how often (a tenth of that for the two others), and how many.

time-limit: 3600"""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import build, openflow, parse, tap, wire
from p2plab.chain import MARKED_UDP_PORT, Chain
from p2plab.lab import Lab
from p2plab.waiting import wait_for

RATE = 20000
REPETITIONS = int(os.environ.get("P2P_REPETITIONS", 500))
MEGAFLOWS = int(os.environ.get("P2P_MEGAFLOWS", 4000))
BESIDE = max(REPETITIONS // 10, 20)
PRIORITY = 100
CROWD_PORT = 3

MATCH = openflow.match(in_port=1, udp_dst=MARKED_UDP_PORT)
ADD = openflow.flow_mod(openflow.ADD, PRIORITY, MATCH)
DELETE = openflow.flow_mod(openflow.DELETE_STRICT, PRIORITY, MATCH)


#
# The crowd: as many flows as megaflows are wanted.
#

def add_crowd_rules(ovs, bridge):
    """A megaflow for each flow of port 3: the address of each is in a rule of its own."""
    ovs.ofctl("--bundle", "add-flows", bridge, "-", stdin="".join(
        f"priority=20,ip,in_port={CROWD_PORT},nw_dst=10.0.{f >> 8}.{f & 255},actions=drop\n"
        for f in range(MEGAFLOWS)))


def wait_crowd(ovs):
    wait_for(f"{MEGAFLOWS} megaflows", lambda: parse.megaflows(ovs.appctl("upcall/show")) >= MEGAFLOWS, 60, 0.1)


def crowd_of_vnf(lab, chain):
    lab.ovs.add_port(chain.bridge, f"dpdkr{CROWD_PORT}", CROWD_PORT)
    add_crowd_rules(lab.ovs, chain.bridge)
    crowd = lab.vnf("crowd", "p2p-source", [f"dpdkr{CROWD_PORT}"],
                    ["--id", "3", "--flows", str(MEGAFLOWS), "--dst-ip", "10.0.0.0", "--idle", "sleep"])
    crowd.wait_ready()
    crowd.rate(MEGAFLOWS)
    crowd.send_begin()
    wait_crowd(lab.ovs)


#
# With direct channels.
#

def marked(vnf, way, what):
    return vnf.report()[way]["by_kind"]["marked"][what]


def directly(chain):
    return chain.source.report()["port_stats"]["tx_direct_packets"]


def one(chain, controller):
    """Returns the seconds from the rule's flow-mod to the barrier's reply, and how many marked packets were sent."""
    before = directly(chain)
    wait_for("packets on the channel", lambda: directly(chain) > before, 60, 0)
    seconds = controller.change(ADD)
    sent = marked(chain.source, "tx", "sent")
    chain.source.mark_percent(50)
    # While the switch holds the port's traffic, its ring may be full.
    wait_for("marked packets to be sent", lambda: marked(chain.source, "tx", "sent") > sent, 60, 0.005)
    chain.source.mark_percent(0)
    sent = marked(chain.source, "tx", "sent")
    wait_for("marked packets to be dropped", lambda: newer_have_come(chain), 60, 0)
    controller.change(DELETE)
    return seconds, sent


def newer_have_come(chain):
    """Whether a packet has arrived that was sent after this call's begin, and so after all that are to be dropped: they
    must have been before the rule may go, and the switch holds the port's traffic for some moments."""
    sent = chain.source.report()["tx"]["by_kind"]["other"]["sent"]
    return wait_for("newer packets to arrive", lambda: stream(chain)["next"] > sent, 60, 0)


def stream(chain):
    """What the sink knows of the source's unmarked packets; they are numbered from 0."""
    flows = chain.sink.command("report flows")["report"]["rx"]["flows"]
    return next(flow for flow in flows if flow["source"] == 1 and flow["kind"] == "other")


def ready_chain(lab):
    chain = Chain(lab, hops=1)
    chain.add_rules()
    chain.wait_direct()
    crowd_of_vnf(lab, chain)
    chain.start(RATE)
    return chain


def held(story):
    # No hold may run out of time, however busy this machine is.
    with Lab("policy-order", other_config={"p2plink-hold-max-ms": "10000"}) as lab:
        with story.step("marked packets pass while there is no rule against them", vital=True):
            chain = ready_chain(lab)
            chain.source.mark_percent(50)
            wait_for("marked packets", lambda: marked(chain.sink, "rx", "received") > 100, 60)
            chain.source.mark_percent(0)
            sent = marked(chain.source, "tx", "sent")
            wait_for("the last of them", lambda: marked(chain.sink, "rx", "received") == sent, 60,
                     detail=lambda: f"{sent} were sent, {marked(chain.sink, 'rx', 'received')} have arrived")
        received = sent
        slowest = 0
        with story.step(f"{REPETITIONS} times, no packet that is sent after the barrier's reply passes"):
            with chain.ovs.controller(chain.bridge) as controller:
                for i in range(1, REPETITIONS + 1):
                    seconds, now = one(chain, controller)
                    slowest = max(slowest, seconds)
                    story.check(now > sent, "no marked packets were sent")
                    passed = marked(chain.sink, "rx", "received") - received
                    story.check(passed == 0, f"repetition {i}: {passed} of {now - sent} marked packets have passed")
                    sent = now
            story.note(f"{sent} marked packets dropped; the slowest barrier took {slowest * 1000:.1f} ms")
        with story.step("the link was direct before each of them, and no other packet is missing"):
            wait_crowd(lab.ovs)
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


def not_held(story):
    with Lab("policy-order-not-held", other_config={"p2plink-hold-max-ms": "0"}) as lab:
        with story.step("without the hold packets pass by older megaflows, and that is noticed"):
            chain = ready_chain(lab)
            times = received = 0
            with chain.ovs.controller(chain.bridge) as controller:
                for _ in range(BESIDE):
                    one(chain, controller)
                    before, received = received, marked(chain.sink, "rx", "received")
                    times += received > before
            story.note(f"not held: packets passed in {times} of {BESIDE} repetitions, {received} in all")
            story.check(times, f"not one in {BESIDE} repetitions")
        lab.failed = story.failed > 0


#
# Vanilla.
#

class VanillaStream:
    """Packets from one wire to the other, numbered; 'mark' says which port they go to."""

    def __init__(self, source, sink):
        self.sink = sink
        self.mark = False
        self.sent = {True: [], False: []}    # When each was sent, by whether it was marked.
        self.received = {True: 0, False: 0}
        self.newest = {True: -1, False: -1}
        sink.sock.setblocking(False)
        self.talker = wire.Talker(source, 0.0001, self.next_frame)

    def next_frame(self):
        mark = self.mark
        times = self.sent[mark]
        times.append(time.monotonic())
        return wire.frame(0, MARKED_UDP_PORT if mark else 9, len(times) - 1)

    def drain(self):
        """Takes in what has arrived."""
        while True:
            try:
                data = self.sink.sock.recv(2048)
            except BlockingIOError:
                return
            port, number = wire.parse(data)
            if port in (MARKED_UDP_PORT, 9):
                mark = port == MARKED_UDP_PORT
                self.received[mark] += 1
                self.newest[mark] = number

    def wait_newer(self):
        """Until a packet has arrived that is sent from now on."""
        sent = len(self.sent[False])

        def come():
            self.drain()
            return self.newest[False] > sent
        wait_for("newer packets to arrive", come, 60, 0.001)


def vanilla_one(stream, controller):
    """Returns how many packets have passed, and how long after the barrier's reply the last of them was sent."""
    received = stream.received[True]
    stream.mark = True
    wait_for("marked packets to pass", lambda: (stream.drain(), stream.received[True] > received)[1], 60, 0.001)
    stream.mark = False
    stream.wait_newer()
    received = stream.received[True]
    controller.change(ADD)
    answered = time.monotonic()
    stream.mark = True
    time.sleep(0.05)
    stream.mark = False
    stream.wait_newer()
    passed = stream.received[True] - received
    lag = stream.sent[True][stream.newest[True]] - answered if passed else 0
    controller.change(DELETE)
    return passed, lag


def vanilla(story):
    name, bridge = "vanilla Open vSwitch, measured beside it", "br-lab"
    if not build.has_ovs("ovs-vanilla"):
        story.skip(name, "'make ovs-vanilla' has not been run")
        return
    with story.step(name), Lab("policy-order-vanilla", flavour="ovs-vanilla", other_config=wire.DPDK) as lab:
        ovs = lab.ovs
        ovs.add_bridge(bridge)
        wires = [wire.Wire(lab, bridge, f"wire{i}", i) for i in (1, 2, CROWD_PORT)]
        add_crowd_rules(ovs, bridge)
        ovs.add_flow(bridge, "priority=10,in_port=1,actions=output:2")
        numbers = iter(range(1 << 62))
        crowd = wire.Talker(wires[2], 0.0002, lambda: wire.frame(next(numbers) % MEGAFLOWS, 9, 0))
        stream = VanillaStream(*wires[:2])
        for talker in crowd, stream.talker:
            lab.stack.callback(talker.end)
            talker.start()
        wait_crowd(ovs)
        stream.wait_newer()
        with ovs.controller(bridge) as controller:
            results = [vanilla_one(stream, controller) for _ in range(BESIDE)]
        lags = sorted(lag for passed, lag in results if passed)
        story.note(f"vanilla: packets passed in {len(lags)} of {BESIDE} repetitions, {sum(p for p, _ in results)} in "
                   f"all; the last was sent {lags[len(lags) // 2] * 1000:.1f} ms after the barrier's reply (median), "
                   f"{lags[-1] * 1000:.1f} ms at most" if lags else f"vanilla: none passed in {BESIDE} repetitions")


tap.tell("the order of policy and packets", held, not_held, vanilla)
