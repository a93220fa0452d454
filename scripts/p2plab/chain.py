# SPDX-License-Identifier: Apache-2.0
"""A chain in the lab: ports, VNFs and rules as one thing.

    source  dpdkr1 --- dpdkr2  forwarder  dpdkr3 --- dpdkr4  sink

Both ends send and receive.  The chain without forwarder (hops=1) is source dpdkr1 --- dpdkr2 sink.  The rules that link
the ports have priority 10; tests add others above."""

import time

from . import accounts
from .waiting import wait_for

PRIORITY = 10
MARKED_UDP_PORT = 7


class Chain:
    """'source', 'sink' and 'forwarder' are arguments for the three programs; 'settings' are further ones for ovs-vsctl,
    for each port by name; 'how' are further ones for Lab.vnf(), for each VNF by name.  A second chain in a lab has its
    own bridge and 'first' port, and a 'prefix' for the names of its VNFs."""

    def __init__(self, lab, hops=2, *, bridge="br-lab", source=(), forwarder=(), sink=(), common=("--idle", "sleep"),
                 settings=None, ready=90, first=1, prefix="", how=None):
        self.lab = lab
        self.ovs = lab.ovs
        self.bridge = bridge
        self.hops = hops
        self.prefix = prefix
        self.how = how or {}
        self.numbers = {f"dpdkr{i}": i for i in range(first, first + 2 * hops)}
        self.names = {number: name for name, number in self.numbers.items()}
        self.retired = {name: {"packets": 0, "bytes": 0, "dropped": 0} for name in self.numbers}
        self.past = {}               # What earlier VNFs on a port had counted.
        self.owner = {}
        self.vnfs = []
        self.ovs.add_bridge(bridge)
        for name, number in self.numbers.items():
            self.ovs.add_port(bridge, name, number, *(settings or {}).get(name, ()))
        ports = list(self.numbers)   # In order.
        self.source = self._vnf("source", "p2p-source", ports[:1], [*common, "--receive", "--id", "1", *source])
        self.forwarders = [
            self._vnf(f"forwarder{hop if hops > 2 else ''}", "p2p-forward", ports[2 * hop - 1:2 * hop + 1],
                      [*common, "--retry", *forwarder])
            for hop in range(1, hops)]
        self.sink = self._vnf("sink", "p2p-sink", ports[-1:], [*common, "--send", "--id", "2", *sink])
        for vnf in self.vnfs:
            vnf.wait_ready(ready)

    def _vnf(self, name, program, ports, arguments):
        vnf = self.lab.vnf(self.prefix + name, program, ports, arguments, **self.how.get(name, {}))
        self.vnfs.append(vnf)
        for port in ports:
            self.owner[port] = vnf.name
        return vnf

    def ways(self):
        """(name, sender, receiver, ports in order) of both directions."""
        ports, source, sink = list(self.numbers), self.source.name, self.sink.name
        return [("source to sink", source, sink, ports), ("sink to source", sink, source, ports[::-1])]

    @property
    def links(self):
        """(from, to) of each direction of each link."""
        ports = list(self.numbers)
        return [link for a, b in zip(ports[::2], ports[1::2]) for link in ((a, b), (b, a))]

    #
    # Rules.
    #

    def base_rules(self):
        return [f"priority={PRIORITY},in_port={self.numbers[a]},actions=output:{self.numbers[b]}"
                for a, b in self.links]

    def add_rules(self):
        self.ovs.ofctl("add-flows", self.bridge, "-", stdin="\n".join(self.base_rules()) + "\n")

    def rules_of(self, port):
        return [rule for rule in self.ovs.flows(self.bridge) if rule.in_port == self.numbers[port]]

    def drop_rule(self, port, priority=100):
        """The match of a rule for marked packets that enter by 'port'."""
        return f"priority={priority},udp,in_port={self.numbers[port]},tp_dst={MARKED_UDP_PORT}"

    def retire(self, *rules):
        """Deletes rules, each a match with priority, whose counters are at rest, and keeps what they have counted.
        Returns when (time.monotonic()) it began with that."""
        before = self.snapshot()
        begin = time.monotonic()
        for rule in rules:
            self.ovs.del_flows(self.bridge, rule)
        self.keep(before)
        return begin

    def retire_all(self):
        before = self.snapshot()
        self.ovs.del_flows(self.bridge)
        self.keep(before)

    def snapshot(self):
        """All rules as they are now."""
        return {rule.key: rule for rule in self.ovs.flows(self.bridge)}

    def keep(self, before):
        """Keeps what those rules of the snapshot 'before' had counted that are not there any more."""
        for rule in set(before) - set(self.snapshot()):
            gone = before[rule]
            if gone.in_port in self.names:
                kept = self.retired[self.names[gone.in_port]]
                kept["packets"] += gone.packets
                kept["bytes"] += gone.bytes
                kept["dropped"] += gone.packets if gone.actions == "drop" else 0

    #
    # Links.
    #

    def wait_direct(self, seconds=30, links=None):
        """Until each direction of each link, or of 'links', is direct; returns the seconds that took."""
        return self.ovs.wait_state({a: "direct" for a, _ in links or self.links}, seconds)

    def wait_normal(self, seconds=30, links=None):
        return self.ovs.wait_state({a: "normal" for a, _ in links or self.links}, seconds)

    #
    # Traffic.
    #

    def start(self, rate):
        """Both ends send, 'rate' packets a second each (0: as fast as they can)."""
        for vnf in self.source, self.sink:
            vnf.rate(rate)
        for vnf in self.source, self.sink:
            vnf.send_begin()

    def stop(self):
        for vnf in self.source, self.sink:
            vnf.send_end()

    def rest(self, seconds=15, flows=True):
        """Stops sending, waits until all has arrived and been counted, and returns the accounts.  OVS takes over what
        the datapath has counted for rules about twice a second, so that needs a moment; if the counters do not agree
        in the end, the accounts say so.  'flows' False: only the ports' counters can agree."""
        self.stop()
        begin = time.monotonic()
        acc = accounts.make(self)
        while (acc.errors if flows else acc.port_errors) and time.monotonic() - begin < seconds:
            time.sleep(0.1)
            acc = accounts.make(self)
        return acc

    def received(self):
        """By (source, sink)."""
        return self.source.report()["rx"]["received"], self.sink.report()["rx"]["received"]

    def wait_traffic(self, seconds=10):
        """Until both ends receive packets."""
        source, sink = self.received()

        def more():
            now = self.received()
            return now[0] > source and now[1] > sink
        wait_for("traffic in both directions", more, seconds, interval=0.05)
