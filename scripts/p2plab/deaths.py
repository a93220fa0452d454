# SPDX-License-Identifier: Apache-2.0
"""Accounts of a chain whose VNFs die: what may be missing is what was in the rings of a dead one, and in its hands.

Three witnesses that know nothing of one another must agree when traffic rests: the VNFs (what the living have sent and
received, by sequence number), the switch (its counters), and the shared memory that the dead have left.  All numbers
are since the chain began, over all VNFs that a port has had, and every packet has the same length.

    sent        into the rings, normal and direct, by the dead (shared memory) and the living
    entered     of these, what the switch says it has got on that port; the rest was in the dead one's ring to it
    arrived     put into the rings of the VNFs of a port, as the switch says
    received    of these, taken out again; what the dead have not taken is in what they left, or abandoned
"""

import signal
import time
from dataclasses import dataclass

from .vnf import port_stats
from .waiting import LabError, wait_for

RING = 1024  # Packets that a ring takes.
BURST = 32   # The VNFs'; as many packets may be in the hands of one that dies, on each way.


@dataclass
class Dead:
    """What a VNF had done on one port when it died."""
    sent: int
    sent_directly: int
    not_entered: int      # At most so many of these were still in its ring to the switch.
    received: int
    left: int             # In its ring from the switch.
    left_directly: int    # In direct rings; more may have come until the sender heard of it.


def stopped(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
        return f.read().rpartition(")")[2].split()[0] in "tT"


def stop(vnf):
    """Stops a VNF where it stands: its process, or its QEMU."""
    vnf.carrier.signal(signal.SIGSTOP)
    wait_for(f"{vnf.name} to be stopped", lambda: stopped(vnf.carrier.pid), 10, 0)


def go_on(vnf):
    vnf.carrier.signal(signal.SIGCONT)


class Deaths:
    """Of a chain whose packets have 'size' bytes.  'regions' are the switch's."""

    def __init__(self, chain, regions, size):
        self.chain = chain
        self.regions = regions
        self.size = size
        self.dead = {port: [] for port in chain.numbers}
        self.buried = {vnf.name: 0 for vnf in chain.vnfs}
        self.forced = dict.fromkeys(chain.numbers, 0)   # Links that ended by force, their receiver being alive.
        self.ids = {}        # {VNF: what its packets are marked with}
        self.base = {}       # {(port, generation): what its region's words count, and its VNF does not}
        self.sent_by = {}    # {id: packets} of senders that are dead.
        self.meet()

    def kill(self, vnf, look=lambda: None):
        """Kills 'vnf', its process or its QEMU, and waits until the switch knows.  Returns what 'look()' says at the
        moment of its death."""
        stop(vnf)    # What it has is what it had when it died, and can be found before the switch gives it up.
        had = self.grasp(vnf)
        seen = look()
        vnf.carrier.kill()
        self.bury(vnf, had)
        return seen

    def meet(self):
        """The reports of all VNFs.  To be called before one dies."""
        reports = {vnf.name: vnf.report() for vnf in self.chain.vnfs}
        self.ids.update({name: report["tx"]["id"] for name, report in reports.items() if "tx" in report})
        return reports

    @staticmethod
    def words(region):
        """(sent, sent directly, received)"""
        directly = region.sent_directly()
        return region.from_vnf()[0] + directly, directly, region.to_vnf()[1] + region.received_directly()

    def _rebase(self, live):
        """Traffic rests, and 'live' is what the VNFs have counted."""
        self.regions.look()
        for port, stats in live.items():
            region = self.regions.port(port)
            counted = stats["tx_packets"], stats["tx_direct_packets"], stats["rx_packets"]
            self.base[port, region.generation] = tuple(w - c for w, c in zip(self.words(region), counted))

    def grasp(self, vnf):
        """Takes hold of what 'vnf' has."""
        self.regions.look()
        had = {}
        if vnf not in self.chain.forwarders and vnf.name not in self.ids:
            raise LabError(f"{vnf.name} has died before it was met")
        for port in vnf.ports:
            head, tail = self.regions.port(port).from_vnf()
            had[port] = (self.regions.port(port), head - tail,
                         sum(link.left_for(port) for link in self.regions.links(port)))
        return had

    def bury(self, vnf, had, alive=False):
        """Waits until the switch knows that 'vnf' is dead, and notes what it has left.  'alive': it is not, it was only
        thought to be; it will come back and go on counting."""
        wait_for(f"the switch to take {vnf.name} for dead",
                 lambda: not any(self.chain.ovs.links()[port]["attached"] for port in vnf.ports), 60, 0)
        for port, (region, not_entered, left_directly) in had.items():
            head, tail = region.to_vnf()
            dead = Dead(sent=0, sent_directly=0, not_entered=not_entered, received=0, left=head - tail,
                        left_directly=left_directly)
            if not alive:
                before = self.base.get((port, region.generation), (0, 0, 0))
                words = self.words(region)
                dead.sent, dead.sent_directly, dead.received = (w - b for w, b in zip(words, before))
                # A guest's region stays: there, words go on from one VNF to the next, and rings begin anew with each.
                self.base[port, region.generation] = (words[1], words[1], region.received_directly())
            self.dead[port].append(dead)
        self.buried[vnf.name] += 1
        if vnf.name in self.ids and not alive:
            self.sent_by[self.ids[vnf.name]] = self.dead[vnf.ports[0]][-1].sent

    def rename(self, vnf):
        """The packets of its successor can be told from its own."""
        self.ids.pop(vnf.name, None)
        if "--id" in vnf.arguments:
            i = vnf.arguments.index("--id") + 1
            vnf.arguments[i] = str(int(vnf.arguments[i]) + 2)
            if "--from" not in vnf.arguments:
                vnf.arguments += ["--from", "first"]

    def revive(self, vnf):
        """Starts its successor and waits until it has attached."""
        self.rename(vnf)
        vnf.start()
        vnf.wait_ready()

    def text(self):
        """How much the dead have cost, in words."""
        links = self.chain.ovs.links()
        every = [d for port in self.dead for d in self.dead[port]]
        return (f"{sum(self.buried.values())} dead had {sum(d.sent for d in every)} packets sent and "
                f"{sum(d.received for d in every)} received, and left {sum(d.left for d in every)} in rings from the "
                f"switch and {sum(links[p]['direct_abandoned'] for p in self.dead)} in direct ones; while nobody was "
                f"there or took anything, the switch dropped {sum(links[p]['tx_dropped'] for p in self.dead)}")

    def rest(self, seconds=60, rules=True):
        """Stops sending, and returns what does not agree when everything has arrived, or after some time.  'rules':
        their counters too, for which OVS takes its time."""
        self.chain.stop()
        begin = time.monotonic()
        while True:
            errors = self.errors(rules)
            if not errors or time.monotonic() - begin > seconds:
                return errors
            time.sleep(0.05)

    def errors(self, with_rules=True):
        errors = []
        chain = self.chain
        reports = self.meet()
        ports, links, rules = chain.ovs.ports(chain.bridge), chain.ovs.links(), chain.ovs.flows(chain.bridge)
        of = {name: ports[str(number)] for name, number in chain.numbers.items()}
        live = {name: port_stats(reports[chain.owner[name]], name) for name in chain.numbers}
        sent = {p: live[p]["tx_packets"] + sum(d.sent for d in self.dead[p]) for p in of}
        directly = {p: live[p]["tx_direct_packets"] + sum(d.sent_directly for d in self.dead[p]) for p in of}

        def same(what, a, b):
            if a != b:
                errors.append(f"{what}: {a} and {b}")

        def within(what, low, value, high):
            if not low <= value <= high:
                errors.append(f"{what}: {value}, not {low} to {high}")

        for p, counters in of.items():
            dead = self.dead[p]
            within(f"{p}: sent, but not in the switch", 0, sent[p] - counters["rx_packets"],
                   sum(d.not_entered for d in dead))
            same(f"{p}: bytes received by the switch", counters["rx_bytes"], counters["rx_packets"] * self.size)
            same(f"{p}: bytes sent by the switch", counters["tx_bytes"], counters["tx_packets"] * self.size)
            if with_rules:
                counted = [rule for rule in rules if rule.in_port == chain.numbers[p]]
                same(f"{p}: packets of its rules", counters["rx_packets"], sum(rule.packets for rule in counted))
            # What was put into the dead ones' rings: taken, or left.
            abandoned = links[p]["direct_abandoned"]
            same(f"{p}: arrived at the dead, and taken by them or left", counters["tx_packets"] - live[p]["rx_packets"],
                 sum(d.received + d.left for d in dead) + abandoned)
            within(f"{p}: abandoned in direct rings", sum(d.left_directly for d in dead), abandoned,
                   RING * (len(dead) + self.forced[p]))
            for what in "rx_drop", "rx_errs", "tx_errs":
                same(f"{p}: {what}", counters.get(what, 0), 0)
        for p, q in chain.links:
            same(f"{p} to {q}: in and out of the switch", of[p]["rx_packets"] - directly[p],
                 of[q]["tx_packets"] - directly[p] + of[q]["tx_drop"])
        for forwarder in chain.forwarders:
            for p, q in (forwarder.ports, forwarder.ports[::-1]):
                left = sum(d.left for d in self.dead[p]) + links[p]["direct_abandoned"]
                hands = BURST * self.buried[forwarder.name]
                within(f"{p} to {q}: lost with a dead forwarder, besides {left} that it left", -min(hands, left),
                       of[p]["tx_packets"] - sent[q] - left, hands)
        for name, sender, receiver, _ in chain.ways():
            self._streams(errors, name, reports[sender], reports[receiver])
        if not errors:
            self._rebase(live)
        return errors

    def _streams(self, errors, name, sender, receiver):
        rx = receiver["rx"]
        for what in "doubled", "reordered", "late", "corrupted", "foreign", "not_tracked":
            if rx[what]:
                errors.append(f"{name}: {rx[what]} {what} {rx['first_bad']}")
        # The last packets of a dead sender may be lost with it; of a living one, all come or are known to be missing.
        tx = sender["tx"]
        for flow in rx["flows"]:
            number, end = flow["source"], flow["next"]
            if number == tx["id"] and end != tx["accepted"]:
                errors.append(f"{name}: {tx['accepted']} packets sent, numbers up to {end} have come")
            elif number != tx["id"] and end > self.sent_by.get(number, 0):
                errors.append(f"{name}: sender {number} had sent {self.sent_by.get(number)}, but {end} has come")


def check_bystanders(story, chain):
    """A pair that had nothing to do with it has noticed nothing."""
    with story.step("the bystanders have noticed nothing"):
        acc = chain.rest(60)
        story.note(f"{acc.total('sent')} packets of theirs")
        story.check(not acc.errors, acc.text())
        story.check(acc.switchovers == 2, f"{acc.switchovers} switchovers")
        story.check(acc.total("dropped_by_switch") == 0, "the switch dropped some")
