# SPDX-License-Identifier: Apache-2.0
"""Do the VNFs' and the switch's counters agree, and where is every packet?

Made when traffic rests: each comparison is of exact numbers.  What does not agree is said in words, with both numbers.

    port    what a VNF says it has sent on a port is what OVS says it has received there, and the other way round
            (OpenFlow's port statistics, and OVSDB's Interface statistics), packets and bytes
    flow    what has entered by a port is what the rules for that in_port have counted, all together
    way     what was sent = received + dropped by a rule + dropped by the switch because a ring was full
"""

from dataclasses import dataclass, field

from .vnf import port_stats


@dataclass
class Way:
    """One direction through the chain: who sent, who received, whether anything is missing."""
    name: str
    sent: int
    received: int
    dropped_by_rule: int
    dropped_by_switch: int
    dropped_by_vnf: int

    @property
    def lost(self):
        return self.sent - self.received - self.dropped_by_rule - self.dropped_by_switch - self.dropped_by_vnf


@dataclass
class Accounts:
    ways: list = field(default_factory=list)
    port_errors: list = field(default_factory=list)
    flow_errors: list = field(default_factory=list)
    traffic_errors: list = field(default_factory=list)
    doubled: int = 0
    reordered: int = 0
    corrupted: int = 0
    switchovers: int = 0
    refused: int = 0
    reports: dict = field(default_factory=dict)

    def total(self, what):
        return sum(getattr(way, what) for way in self.ways)

    @property
    def errors(self):
        return self.port_errors + self.flow_errors + self.traffic_errors

    def text(self):
        return "; ".join(self.errors) or "all counters agree"


def _same(errors, what, a, b):
    if a != b:
        errors.append(f"{what}: {a} and {b}")


def _ports(acc, chain, reports):
    """Returns what OVS dropped on its way into each port."""
    openflow = chain.ovs.ports(chain.bridge)
    interfaces = chain.ovs.interfaces()
    dropped = {}
    for port, number in chain.numbers.items():
        vnf = port_stats(reports[chain.owner[port]], port)
        past = chain.past.get(port, {})
        of, db = openflow[str(number)], interfaces[port]["statistics"]
        abandoned = db.get("direct_tx_abandoned", 0)
        for unit in "packets", "bytes":
            sent = vnf[f"tx_{unit}"] + past.get(f"tx_{unit}", 0)
            received = vnf[f"rx_{unit}"] + past.get(f"rx_{unit}", 0)
            _same(acc.port_errors, f"{port}: {unit} sent by the VNF, rx by dump-ports", sent, of[f"rx_{unit}"])
            _same(acc.port_errors, f"{port}: {unit} sent by the VNF, rx in OVSDB", sent, db.get(f"rx_{unit}", 0))
            if abandoned:
                continue  # How long they were, nobody knows.
            _same(acc.port_errors, f"{port}: {unit} received by the VNF, tx by dump-ports", received, of[f"tx_{unit}"])
            _same(acc.port_errors, f"{port}: {unit} received by the VNF, tx in OVSDB", received,
                  db.get(f"tx_{unit}", 0))
        for name in "rx_drop", "rx_errs", "tx_errs":
            _same(acc.port_errors, f"{port}: {name}", of.get(name, 0), 0)
        _same(acc.port_errors, f"{port}: descriptors that the VNF refused", vnf["rx_bad"], 0)
        dropped[port] = of.get("tx_drop", 0) + abandoned
        acc.switchovers += vnf["tx_epochs"] + past.get("tx_epochs", 0)
    return dropped


def _flows(acc, chain, reports):
    """Returns what drop rules have dropped, by port."""
    rules = chain.ovs.flows(chain.bridge)
    dropped = {}
    for port, number in chain.numbers.items():
        vnf = port_stats(reports[chain.owner[port]], port)
        past, retired = chain.past.get(port, {}), chain.retired[port]
        mine = [rule for rule in rules if rule.in_port == number and rule.table == 0]  # Others see a packet once more.
        for unit in "packets", "bytes":
            sent = vnf[f"tx_{unit}"] + past.get(f"tx_{unit}", 0)
            counted = sum(getattr(rule, unit) for rule in mine) + retired[unit]
            _same(acc.flow_errors, f"{port}: {unit} sent by the VNF, counted by the rules with in_port={number}",
                  sent, counted)
        dropped[port] = sum(rule.packets for rule in mine if rule.actions == "drop") + retired["dropped"]
    return dropped


def _way(acc, chain, reports, name, sender, receiver, ports, by_rule, by_switch):
    """'ports' are those on the way, in order: out of a VNF, into the next, ..."""
    tx, rx = reports[sender]["tx"], reports[receiver]["rx"]
    by_vnf = 0
    for report in reports.values():
        for part in report.get("directions", []):
            if part["from"] in ports[1::2]:
                by_vnf += part["dropped"] + part["too_long"]
                _same(acc.traffic_errors, f"{part['from']}: held by the forwarder", part["pending"], 0)
    way = Way(name, tx["accepted"], rx["received"], sum(by_rule[p] for p in ports[0::2]),
              sum(by_switch[p] for p in ports[1::2]), by_vnf)
    acc.ways.append(way)
    acc.doubled += rx["doubled"]
    acc.reordered += rx["reordered"] + rx["late"]
    acc.corrupted += rx["corrupted"]
    acc.refused += tx["refused"]
    _same(acc.traffic_errors, f"{name}: lost", way.lost, 0)
    for what in "doubled", "reordered", "late", "corrupted", "foreign", "not_tracked":
        _same(acc.traffic_errors, f"{name}: {what}", rx[what], 0)
    if rx["first_bad"]:
        acc.traffic_errors.append(f"{name}: {rx['first_bad']}")


def make(chain):
    """The accounts of a chain as they are now."""
    acc = Accounts()
    chain.ovs.refresh_statistics()
    reports = acc.reports = {vnf.name: vnf.report() for vnf in chain.vnfs}
    by_switch = _ports(acc, chain, reports)
    by_rule = _flows(acc, chain, reports)
    for name, sender, receiver, ports in chain.ways():
        _way(acc, chain, reports, name, sender, receiver, ports, by_rule, by_switch)
    return acc
