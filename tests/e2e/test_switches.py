#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What turns links off and on at run time: p2plink-enable at its three places, every feature of OVS that wants to see
packets, rules of all kinds.  Under light traffic, of which nothing may be lost unless the feature itself drops it."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import tap
from p2plab.chain import Chain
from p2plab.lab import Lab

RATE = 2000
BOTH, ONE = ("dpdkr1", "dpdkr2"), ("dpdkr1",)
COLLECTOR = 'targets="127.0.0.1:6343"'


def ends_and_comes_back(story, chain, name, on, off, ports=BOTH, traffic=True):
    """'on' ends the links out of 'ports', 'off' brings them back.  'traffic' False: the thing itself stops or doubles
    packets, so none are sent while it is on."""
    links = [link for link in chain.links if link[0] in ports]
    with story.step(name):
        try:
            if traffic:
                chain.start(RATE)
            on()
            chain.wait_normal(20, links)
            for port in ports:
                why = chain.ovs.links()[port]["why"]
                story.check(why, f"no reason is given for {port}")
            story.note(f"{name}: {why}")
            if traffic:
                time.sleep(0.1)
            off()
            chain.wait_direct(20)
            if not traffic:
                chain.start(RATE)
            chain.wait_traffic()
            acc = chain.rest()
            story.check(not acc.errors, acc.text())
            story.check(acc.total("dropped_by_switch") == 0, "the switch has dropped packets")
        finally:
            # For the next one.
            off()
            chain.stop()


def enable(story, chain):
    vsctl = chain.ovs.vsctl

    def places():
        yield "the Open_vSwitch row", ("Open_vSwitch", "."), BOTH
        yield "the bridge", ("Bridge", chain.bridge), BOTH
        yield "an interface, for both directions", ("Interface", "dpdkr1"), BOTH
        yield "the other interface", ("Interface", "dpdkr2"), BOTH
    for where, row, ports in places():
        ends_and_comes_back(
            story, chain, f"other_config:p2plink-enable=false on {where}",
            lambda row=row: vsctl("set", *row, "other_config:p2plink-enable=false"),
            lambda row=row: vsctl("remove", *row, "other_config", "p2plink-enable"), ports)
    ends_and_comes_back(
        story, chain, "p2plink-enable=false, and then true",
        lambda: vsctl("set", "Open_vSwitch", ".", "other_config:p2plink-enable=false"),
        lambda: vsctl("set", "Open_vSwitch", ".", "other_config:p2plink-enable=true"))


def bridge_features(story, chain):
    vsctl, bridge = chain.ovs.vsctl, chain.bridge

    def clear(column):
        return lambda: vsctl("clear", "Bridge", bridge, column)
    features = {
        "sFlow": (lambda: vsctl("--", "--id=@x", "create", "sFlow", "agent=lo", COLLECTOR, "header=64", "sampling=64",
                                "polling=10", "--", "set", "Bridge", bridge, "sflow=@x"), clear("sflow")),
        "NetFlow": (lambda: vsctl("--", "--id=@x", "create", "NetFlow", COLLECTOR, "active-timeout=10", "--", "set",
                                  "Bridge", bridge, "netflow=@x"), clear("netflow")),
        "IPFIX": (lambda: vsctl("--", "--id=@x", "create", "IPFIX", COLLECTOR, "obs_domain_id=1", "obs_point_id=1",
                                "sampling=64", "--", "set", "Bridge", bridge, "ipfix=@x"), clear("ipfix")),
        # The ports themselves take no part, or they would stop packets for many seconds.
        "STP": (lambda: vsctl("set", "Bridge", bridge, "stp_enable=true"),
                lambda: vsctl("set", "Bridge", bridge, "stp_enable=false")),
        "RSTP": (lambda: vsctl("set", "Bridge", bridge, "rstp_enable=true"),
                 lambda: vsctl("set", "Bridge", bridge, "rstp_enable=false")),
        "fragments treated specially": (lambda: chain.ovs.ofctl("set-frags", bridge, "drop"),
                                        lambda: chain.ovs.ofctl("set-frags", bridge, "normal")),
    }
    for name, (on, off) in features.items():
        ends_and_comes_back(story, chain, f"{name} on the bridge", on, off)


def port_features(story, chain):
    vsctl, bridge = chain.ovs.vsctl, chain.bridge

    def mirror(what):
        # "select_src_port" and "select_dst_port" take the Port's UUID.
        return (lambda: vsctl("--", "--id=@p", "get", "Port", "dpdkr1", "--", "--id=@o", "get", "Port", "dpdkr9", "--",
                              "--id=@m", "create", "Mirror", "name=m", f"{what}=@p", "output_port=@o", "--", "set",
                              "Bridge", bridge, "mirrors=@m"), lambda: vsctl("clear", "Bridge", bridge, "mirrors"))
    ends_and_comes_back(story, chain, "a mirror of what the port sends", *mirror("select_src_port"))
    ends_and_comes_back(story, chain, "a mirror of what goes to the port", *mirror("select_dst_port"))
    ends_and_comes_back(
        story, chain, "ingress policing",
        lambda: vsctl("set", "Interface", "dpdkr1", "ingress_policing_rate=10000000"),
        lambda: vsctl("set", "Interface", "dpdkr1", "ingress_policing_rate=0"))
    ends_and_comes_back(
        story, chain, "QoS on the port",
        lambda: vsctl("set", "Port", "dpdkr2", "qos=@q", "--", "--id=@q", "create", "QoS", "type=linux-htb"),
        lambda: vsctl("clear", "Port", "dpdkr2", "qos"))
    ends_and_comes_back(
        story, chain, "a protected port",
        lambda: vsctl("set", "Port", "dpdkr1", "protected=true"),
        lambda: vsctl("set", "Port", "dpdkr1", "protected=false"))
    ends_and_comes_back(
        story, chain, "different MTUs",
        lambda: vsctl("set", "Interface", "dpdkr2", "mtu_request=2000"),
        lambda: vsctl("set", "Interface", "dpdkr2", "mtu_request=1500"), traffic=False)
    for flag, back in (("down", "up"), ("no-receive", "receive"), ("no-forward", "forward"),
                       ("no-receive-stp", "receive-stp")):
        ends_and_comes_back(
            story, chain, f"ovs-ofctl mod-port {flag}",
            lambda flag=flag: chain.ovs.ofctl("mod-port", bridge, "dpdkr2", flag),
            lambda back=back: chain.ovs.ofctl("mod-port", bridge, "dpdkr2", back), traffic=False)


def rules(story, chain):
    """Rules that link, written in other ways, and rules that look like it."""
    ofctl, bridge = chain.ovs.ofctl, chain.bridge
    base = "priority=10,in_port=1,actions="
    ofctl("-O", "OpenFlow13", "add-group", bridge, "group_id=1,type=all,bucket=output:2")
    ofctl("-O", "OpenFlow13", "add-group", bridge, "group_id=2,type=select,bucket=output:2,bucket=output:2")
    ofctl("-O", "OpenFlow13", "add-meter", bridge, "meter=1,pktps,bands=type=drop,rate=1000000")
    ofctl("add-flow", bridge, "table=5,priority=10,in_port=1,actions=output:2")
    linked = {"a group with one bucket": "group:1", "another table": "resubmit(,5)"}
    other = {"a group with two buckets": "group:2", "a meter": "meter:1,output:2",
             "a second output": "output:2,output:9", "learn": "learn(table=7,in_port=9),output:2",
             "a rewritten field": "mod_dl_src:02:00:00:00:00:09,mod_dl_src:02:00:00:00:00:08,output:2",
             "truncation": "output(port=2,max_len=20000)"}

    def mod(actions):
        return lambda: ofctl("-O", "OpenFlow13", "mod-flows", "--strict", bridge, base + actions)
    for name, actions in linked.items():
        with story.step(f"output through {name} is a link"):
            mod(actions)()
            chain.wait_direct(20)
            chain.start(RATE)
            chain.wait_traffic()
            acc = chain.rest()
            mod("output:2")()
            chain.wait_direct(20)
            story.check(not acc.errors, acc.text())
    for name, actions in other.items():
        ends_and_comes_back(story, chain, f"a rule with {name}", mod(actions), mod("output:2"), ONE,
                            traffic=name not in ("a rewritten field",))
    ends_and_comes_back(
        story, chain, "a rule of higher priority for no port in particular",
        lambda: ofctl("add-flow", bridge, "priority=50,tcp,actions=drop"),
        lambda: ofctl("--strict", "del-flows", bridge, "priority=50,tcp"))
    ofctl("del-flows", bridge, "table=5")


def talkers(story, chain):
    """Features that send packets of their own, which the VNFs have not been told of: only states are looked at."""
    vsctl, bridge = chain.ovs.vsctl, chain.bridge
    features = {
        "LLDP": (lambda: vsctl("set", "Interface", "dpdkr1", "lldp:enable=true"),
                 lambda: vsctl("remove", "Interface", "dpdkr1", "lldp", "enable")),
        "CFM": (lambda: vsctl("set", "Interface", "dpdkr1", "cfm_mpid=1"),
                lambda: vsctl("clear", "Interface", "dpdkr1", "cfm_mpid")),
        "BFD": (lambda: vsctl("set", "Interface", "dpdkr2", "bfd:enable=true"),
                lambda: vsctl("remove", "Interface", "dpdkr2", "bfd", "enable")),
        "in-band control": (
            lambda: vsctl("set-controller", bridge, "tcp:127.0.0.1:9", "--", "set", "Controller", bridge,
                          "connection-mode=in-band"),
            lambda: (vsctl("del-controller", bridge), chain.add_rules())),  # OVS has deleted all rules.
    }
    for name, (on, off) in features.items():
        with story.step(f"{name} ends the links"):
            try:
                on()
                chain.wait_normal(20)
                story.note(f"{name}: {chain.ovs.links()['dpdkr1']['why']}")
            finally:
                off()
            chain.wait_direct(20)


def main(story):
    with Lab("switches") as lab:
        chain = Chain(lab, hops=1)
        for port in "dpdkr1", "dpdkr2":
            lab.ovs.vsctl("set", "Port", port, "other_config:stp-enable=false", "other_config:rstp-enable=false")
        lab.ovs.add_port(chain.bridge, "dpdkr9", 9)
        chain.add_rules()
        chain.wait_direct()
        for part in enable, bridge_features, port_features, rules, talkers:
            part(story, chain)
            lab.failed = story.failed > 0


tap.tell("what turns links off and on", main)
