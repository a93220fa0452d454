#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What an application sees of a DPDK port besides its packets: link state and its interrupt, queues, statistics, MTU,
addresses, and what it is told when it asks for what there is not."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import tap
from p2plab.dpdk import App, DpdkChain, Testpmd, testpmd
from p2plab.lab import Lab
from p2plab.waiting import wait_for

RATE = 10000
FLOWS = 12
SETTINGS = {"dpdkr2": ["options:n_rxq=4", "mtu_request=4000"], "dpdkr3": ["options:n_rxq=3", "mtu_request=4000"],
            "dpdkr1": ["options:n_rxq=3", "mtu_request=4000"], "dpdkr4": ["options:n_rxq=2", "mtu_request=4000"]}


def info(pmd, port):
    return pmd(f"show port info {pmd.ports.index(port)}")


def link_state(story, chain):
    pmd, ovs = chain.forwarders[0], chain.ovs
    with story.step("the link goes down and up with the switch's port, and testpmd is told by the interrupt"):
        story.check("Link status: up" in info(pmd, "dpdkr2"), "it is not up to begin with")
        events = pmd.output().count("Port 0: link state change event")
        for state, word in ("down", "down"), ("up", "up"):
            ovs.ofctl("mod-port", chain.bridge, "dpdkr2", state)
            wait_for(f"the link to be {word}", lambda w=word: f"Link status: {w}" in info(pmd, "dpdkr2"), 30, 0.05)
        wait_for("two events", lambda: pmd.output().count("Port 0: link state change event") >= events + 2, 30, 0.05)
        story.check("Link status: up" in info(pmd, "dpdkr3"), "the other port is not up")


def queues(story, chain):
    pmd = chain.forwarders[0]
    with story.step("2 queues of testpmd serve all of 4 and of 3 queues of the ports, directly and through the switch"):
        chain.start(RATE)
        chain.wait_traffic(60)
        rule = chain.drop_rule("dpdkr1")
        chain.ovs.add_flow(chain.bridge, rule + ",actions=drop")
        chain.wait_normal(60, [("dpdkr1", "dpdkr2")])
        chain.wait_traffic(60)
        chain.retire(rule)
        chain.wait_direct(60)
        chain.wait_traffic(60)
        acc = chain.rest(60)
        story.check(not acc.errors, acc.text())
        for vnf in chain.source, chain.sink:
            rx = vnf.command("report flows")["report"]["rx"]
            story.check(len(rx["flows"]) == FLOWS, f"{vnf.name}: {len(rx['flows'])} flows have come")
            story.check(rx["queue_changes"] == 0, f"{vnf.name}: {rx['queue_changes']} changes of queue")
        for port in pmd.ports:
            x = pmd.xstats(port)
            story.check(x["rx_q0_packets"] and x["rx_q1_packets"], f"{port}: a queue has received nothing")
            for way in "rx", "tx":
                for unit in "packets", "bytes":
                    total = x[f"{way}_good_{unit}"]
                    story.check(x[f"{way}_q0_{unit}"] + x[f"{way}_q1_{unit}"] == total, f"{port}: queues: {x}")
                    story.check(x[f"{way}_normal_{unit}"] + x[f"{way}_direct_{unit}"] == total, f"{port}: ways: {x}")
            story.check(x["rx_normal_packets"] or port != "dpdkr2", "nothing has come through the switch")
            story.check(x["rx_direct_packets"], f"{port}: nothing has come directly")


def statistics(story, chain):
    pmd = chain.forwarders[0]
    with story.step("statistics are set back, and count on from there"):
        pmd("clear port stats all")
        pmd("clear port xstats all")
        x = pmd.xstats("dpdkr2")
        story.check(not any(x.values()), f"left: {({k: v for k, v in x.items() if v})}")
        received = chain.received()
        for vnf in chain.source, chain.sink:
            vnf.rate(RATE)
            vnf.send_begin(500)
        for vnf in chain.source, chain.sink:
            vnf.wait_sent()
        wait_for("500 packets each way", lambda: chain.received() == tuple(n + 500 for n in received), 30, 0.02)
        for port in pmd.ports:
            x = pmd.xstats(port)
            story.check(x["rx_good_packets"] == x["tx_good_packets"] == 500, str(x))


def mtu(story, chain):
    pmd = chain.forwarders[0]
    with story.step("frames above the MTU that is set are refused and counted, those below pass"):
        pmd("stop")
        said = info(pmd, "dpdkr2")
        story.check("Maximum configurable length of RX packet: 4022" in said, said)
        pmd("port stop all")
        for command in "port config mtu 0 3000", "port config mtu 1 3000":
            said = pmd(command)
            story.check("ail" not in said, said)
        said = pmd("port start all")
        story.check("RTE_ETH_RX_OFFLOAD_SCATTER" in said and "Fail" in said, f"frames do not fit into an mbuf: {said}")
        for port in 0, 1:
            pmd(f"port config {port} rx_offload scatter on")
        said = pmd("port start all")
        story.check("Fail" not in said, said)
        pmd("start")
        chain.wait_direct(60)
        before = pmd.xstats("dpdkr2")
        received = chain.received()[1]
        for size, passes in (2800, True), (3014, True), (3100, False):
            chain.source.command(f"size {size}")
            chain.source.send_begin(10)
            chain.source.wait_sent()
            received += 10 if passes else 0
            wait_for("the switch to be through", lambda: pmd.xstats("dpdkr2")["rx_direct_packets"]
                     == before["rx_direct_packets"] + (30 if size == 3100 else 20 if size == 3014 else 10), 30, 0.02)
        wait_for("20 packets", lambda: chain.received()[1] == received, 30, 0.02)
        x = pmd.xstats("dpdkr2")
        story.check(x["rx_errors"] - before["rx_errors"] == x["rx_too_long"] - before["rx_too_long"] == 10, str(x))
        said = pmd("port config mtu 0 5000")
        story.check("device max MTU (4000)" in said, f"an MTU above the port's: {said}")


def settings(story, chain):
    pmd = chain.forwarders[0]
    with story.step("promiscuous mode, all-multicast and addresses are accepted"):
        for command in ("set promisc 0 off", "set promisc 0 on", "set allmulti 0 off",
                        "mac_addr add 0 02:11:22:33:44:55", "mac_addr remove 0 02:11:22:33:44:55",
                        "mac_addr set 0 02:11:22:33:44:66"):
            said = pmd(command)
            story.check("rror" not in said and "ail" not in said, f"{command}: {said}")
        said = info(pmd, "dpdkr2")
        story.check("02:11:22:33:44:66" in said and "Promiscuous mode: enabled" in said
                    and "Allmulticast mode: disabled" in said, said)
    with story.step("queues stop and start one by one"):
        for what in "rxq", "txq":
            for state in "stop", "start":
                said = pmd(f"port 0 {what} 0 {state}")
                story.check("not" not in said.lower() and "ail" not in said, said)


def refused(story, lab):
    def words(*vdev):
        app = App(lab, "refused", testpmd(), [], ["--stats-period=1"], vdevs=vdev)
        try:
            wait_for("it to give up", lambda: not app.child.alive(), 30, 0.02)
            return app.output()
        finally:
            app.stop()
            os.unlink(app.log)
    socket = f"socket={lab.ovs.socket}"
    with story.step("a port that is not there, or is another's, or wrong arguments: it says what is wrong"):
        for vdev, expect in ((f"net_p2plink0,{socket},port=nosuch", "nosuch"),
                             (f"net_p2plink0,{socket},port=dpdkr1", "dpdkr1"),
                             (f"net_p2plink0,{socket}", "port= is missing"),
                             (f"net_p2plink0,{socket},port=dpdkr2,colour=red", "colour=red"),
                             (f"net_p2plink0,{socket},port=dpdkr2,attach=magic", "attach=magic"),
                             (f"net_p2plink0,{socket},port=dpdkr2,wait=soon", "wait=soon")):
            said = words(vdev)
            line = next((line for line in said.splitlines() if line.startswith("p2plink:")), "")
            story.check(expect in line, f"{vdev}: {said[-600:]}")


def main(story):
    with Lab("dpdk-port") as lab:
        many = ["--routed", "--flows", str(FLOWS), "--threads", "2"]
        with story.step("testpmd opens two ports with two queues each", vital=True):
            chain = DpdkChain(lab, lambda lab, name, ports: Testpmd(lab, name, ports, ["--rxq=2", "--txq=2"]),
                              source=many, sink=many, settings=SETTINGS)
            chain.forwarders[0]("start")
            chain.add_rules()
            chain.wait_direct(60)
        for part in link_state, queues, statistics, settings, mtu:
            part(story, chain)
            lab.failed = story.failed > 0
        refused(story, lab)
        lab.failed = story.failed > 0


tap.tell("a DPDK port", main)
