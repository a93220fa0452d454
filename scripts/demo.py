#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Shows p2plink at work ("make demo"): three VNFs chained by a patched Open vSwitch, as guests or as processes.

    source  dpdkr1 --- dpdkr2  forwarder  dpdkr3 --- dpdkr4  sink

Packets flow both ways.  They begin on the way through the switch, move onto direct channels when p2plink is turned on,
back when a rule wants to see them, and forth again when it is gone.  In the end every packet and every counter has to
be accounted for: if not, the exit code is 1.  Writes build/demo/summary.json, and leaves nothing else behind."""

import argparse
import json
import os
import sys
import time

from p2plab import build, guest, signals, waiting
from p2plab.chain import Chain
from p2plab.lab import Lab
from p2plab.waiting import LabError

# Packets a second, each way: what the switch carries without filling a ring, also where all share two CPUs.
RATE = {"process": 20000, "guest": 1000}
MEASURE_SECONDS = {"process": 0.7, "guest": 1.5}
MARK_PERCENT = 20


class Narrator:
    """Tells what happens, as it happens, with the seconds since the start before each line."""

    def __init__(self):
        self.begin = time.monotonic()
        self.told = 0.0
        waiting.observe(self.still)

    def __call__(self, text):
        self.told = time.monotonic()
        print(f"[{self.told - self.begin:6.2f} s] {text}", flush=True)

    def still(self, what, _seconds):
        if time.monotonic() - self.told >= 2:
            self(f"  ... waiting for {what}")

    def sleep(self, seconds, what):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(0.1, max(end - time.monotonic(), 0)))
            self.still(what, 0)


class Demo:
    def __init__(self, lab, say, measure_seconds):
        self.lab = lab
        self.say = say
        self.rate = RATE[lab.kind]
        self.measure_seconds = measure_seconds or MEASURE_SECONDS[lab.kind]
        self.chain = None
        self.was_direct = set()
        self.pps_switch = self.pps_direct = 0
        self.setup_ms = self.revert_ms = 0.0
        self.problems = []

    def problem(self, text):
        self.problems.append(text)
        self.say("PROBLEM: " + text)

    def run(self):
        self.set_up()
        self.through_the_switch()
        self.onto_channels()
        self.drop_marked()
        self.without_the_rule()
        acc = self.rest("in the end")
        self.delete_rules()
        return acc

    #
    # The story.
    #

    def set_up(self):
        self.say(f"Open vSwitch is running, p2plink is off; starting source, forwarder and sink as "
                 + {"process": "processes", "guest": "guests"}[self.lab.kind])
        marks = ["--mark-percent", str(MARK_PERCENT)]
        self.chain = Chain(self.lab, source=marks, sink=marks)
        self.say("all three have attached to their ports: source dpdkr1, forwarder dpdkr2 and dpdkr3, sink dpdkr4")
        self.chain.add_rules()
        for rule in self.chain.base_rules():
            self.say("  rule: " + rule)

    def through_the_switch(self):
        self.chain.start(self.rate)
        self.chain.wait_traffic(30)
        states = {link["state"] for link in self.chain.ovs.links().values()}
        if states != {"normal"}:
            self.problem(f"p2plink is off, but links are {', '.join(sorted(states))}")
        self.say(f"traffic flows both ways through the switch, {self.rate} packets/s each; "
                 f"{MARK_PERCENT} % of them are marked (UDP port 7)")
        self.pps_switch = self.measure("through the switch")
        self.rest("through the switch")

    def onto_channels(self):
        self.chain.start(self.rate)
        self.chain.wait_traffic(30)
        self.say("turning p2plink on: ovs-vsctl set Open_vSwitch . other_config:p2plink-enable=true")
        begin = time.monotonic()
        self.chain.ovs.vsctl("set", "Open_vSwitch", ".", "other_config:p2plink-enable=true")
        self.wait_direct()
        self.setup_ms = (time.monotonic() - begin) * 1000
        self.say(f"all links are direct, {self.setup_ms:.0f} ms after that")
        self.tell_links()
        self.pps_direct = self.measure("on direct channels")
        self.rest("on direct channels")

    def drop_marked(self):
        """A rule for one kind of traffic: that link cannot stay direct."""
        chain, rule = self.chain, self.chain.drop_rule("dpdkr1")
        missing = self.marked_missing()
        chain.start(self.rate)
        chain.wait_traffic(30)
        self.wait_direct()
        self.say(f"while traffic flows: ovs-ofctl add-flow {chain.bridge} {rule},actions=drop")
        chain.ovs.add_flow(chain.bridge, rule + ",actions=drop")
        begin = time.monotonic()
        sent = self.marked_sent()  # Whatever is sent after this was sent after the barrier's reply.
        chain.wait_normal(20, [("dpdkr1", "dpdkr2")])
        self.revert_ms = (time.monotonic() - begin) * 1000
        self.say(f"dpdkr1 -> dpdkr2 is back on the way through the switch, {self.revert_ms:.0f} ms after ovs-ofctl's "
                 "end; the other links stay direct")
        self.wait_direct([link for link in chain.links if link[0] != "dpdkr1"])
        unmarked = self.received("other")
        self.say.sleep(1.5, "the rule to drop packets")
        chain.source.mark_percent(0)  # So that the rule's counter comes to rest.
        dropped = self.settle_drops(missing)
        self.check_drops(self.marked_sent() - sent, dropped, unmarked)

    def settle_drops(self, missing):
        """Waits until the rule has counted all marked packets that have not come through, but for those that were
        'missing' before, and returns how many it has counted.  OVS brings its counters up to date twice a second."""
        last, since = None, time.monotonic()
        while True:
            dropped = self.dropped()
            if dropped != last:
                last, since = dropped, time.monotonic()
            if dropped == self.marked_missing() - missing or time.monotonic() - since > 5:
                return dropped  # In the second case the accounts will say what is wrong.
            self.say.sleep(0.05, "the drop rule's counter")

    def check_drops(self, sent_after, dropped, unmarked):
        more = self.received("other") - unmarked
        self.say(f"the rule has dropped {dropped} marked packets; meanwhile {more} unmarked ones have come through")
        if dropped < sent_after:
            self.problem(f"{sent_after} marked packets were sent after ovs-ofctl's end, the rule has dropped {dropped}")
        if not more or not dropped:
            self.problem("the rule was to drop marked packets, and no others")

    def without_the_rule(self):
        rule = self.chain.drop_rule("dpdkr1")
        self.say(f"while traffic flows: ovs-ofctl --strict del-flows {self.chain.bridge} {rule}")
        begin = self.chain.retire(rule)
        self.wait_direct()
        self.say(f"all links are direct again, {(time.monotonic() - begin) * 1000:.0f} ms after that")
        self.chain.source.mark_percent(MARK_PERCENT)
        before = self.received("marked")
        waiting.wait_for("marked packets to come through again", lambda: self.received("marked") > before, 10, 0.05)
        self.say("marked packets come through again, on the channels")

    def delete_rules(self):
        self.say(f"deleting all rules: ovs-ofctl del-flows {self.chain.bridge}")
        self.chain.retire_all()
        self.chain.wait_normal()
        self.say("no link is direct any more")

    #
    # Helpers.
    #

    def wait_direct(self, links=None):
        self.chain.wait_direct(60, links)
        self.was_direct |= set(links or self.chain.links)

    def tell_links(self):
        for name, link in sorted(self.chain.ovs.links().items()):
            self.say(f"  {name} -> {link['peer']}: {link['state']}")

    def marked_sent(self):
        return self.chain.source.report()["tx"]["by_kind"]["marked"]["sent"]

    def marked_missing(self):
        """Marked packets of the source that the sink has not received."""
        sent = self.marked_sent()
        return sent - self.received("marked")

    def received(self, kind):
        return self.chain.sink.report()["rx"]["by_kind"][kind]["received"]

    def dropped(self):
        return sum(rule.packets for rule in self.chain.rules_of("dpdkr1") if rule.actions == "drop")

    def measure(self, how):
        """Packets that arrive per second, both directions together, while both ends send as fast as they can.  The
        switch, unlike a channel, has no way to slow a sender down: it drops and counts what finds a ring full."""
        chain = self.chain
        for vnf in chain.source, chain.sink:
            vnf.rate(0)
        self.say(f"measuring {how}, both ends sending as fast as they can")
        self.say.sleep(0.1, "full speed")
        samples = []
        for seconds in self.measure_seconds, 0:
            dropped = sum(port.get("tx_drop", 0) for port in chain.ovs.ports(chain.bridge).values())
            samples.append((time.monotonic(), sum(chain.received()), dropped))
            self.say.sleep(seconds, "the measurement's end")
        begin, end = samples
        arrived, dropped = ((b - a) / (end[0] - begin[0]) for a, b in zip(begin[1:], end[1:]))
        full = f", {dropped:,.0f} find a ring of the switch full" if dropped else ""
        self.say(f"  {arrived:,.0f} packets/s arrive{full}")
        return arrived

    def rest(self, when):
        acc = self.chain.rest(20)
        parts = [f"{acc.total('sent'):,} packets sent", f"{acc.total('received'):,} received"]
        parts += [f"{acc.total(what):,} {words}" for what, words in (
            ("dropped_by_rule", "dropped by the rule"), ("dropped_by_switch", "found a ring of the switch full"),
            ("lost", "LOST")) if acc.total(what)]
        self.say(f"traffic rests ({when}): {', '.join(parts)}")
        for error in acc.errors:
            self.problem(error)
        if not acc.errors:
            self.say("  all counters agree: VNFs, dump-ports, OVSDB, dump-flows")
        return acc

    def summary(self, acc):
        pairs = {}
        for a, b in self.chain.links:
            pairs.setdefault(tuple(sorted((a, b))), []).append((a, b) in self.was_direct)
        return {
            "vnf": {"guest": "qemu"}.get(self.lab.kind, self.lab.kind),
            "accel": guest.accel() if self.lab.kind == "guest" else "none",
            "links": [{"a": a, "b": b, "was_direct": all(was)} for (a, b), was in sorted(pairs.items())],
            "sent": acc.total("sent"),
            "received": acc.total("received"),
            "dropped_by_rule": acc.total("dropped_by_rule"),
            "lost": acc.total("lost"),
            "doubled": acc.doubled,
            "reordered": acc.reordered,
            "corrupted": acc.corrupted,
            "port_stats_match": not acc.port_errors,
            "flow_stats_match": not acc.flow_errors,
            "switchovers": acc.switchovers,
            "pps_switch": round(self.pps_switch),
            "pps_direct": round(self.pps_direct),
            "setup_ms": round(self.setup_ms, 1),
            "revert_ms": round(self.revert_ms, 1),
        }


def print_table(summary, acc):
    def line(*cells):
        print("  " + f"{cells[0]:<28}" + "".join(f"{cell:>18}" for cell in cells[1:]))

    print()
    line("", *[way.name for way in acc.ways], "together")
    for title, what in (("packets sent", "sent"), ("received", "received"), ("dropped by the rule", "dropped_by_rule"),
                        ("dropped by full rings", "dropped_by_switch"), ("lost", "lost")):
        line(title, *[f"{getattr(way, what):,}" for way in acc.ways], f"{acc.total(what):,}")
    print()
    for title, value in (("doubled, reordered, corrupted", f"{acc.doubled}, {acc.reordered}, {acc.corrupted}"),
                         ("port counters agree", "yes" if summary["port_stats_match"] else "NO"),
                         ("rule counters agree", "yes" if summary["flow_stats_match"] else "NO"),
                         ("switchovers to direct", summary["switchovers"]),
                         ("through the switch", f"{summary['pps_switch']:,} packets/s"),
                         ("on direct channels", f"{summary['pps_direct']:,} packets/s"),
                         ("p2plink on, until all direct", f"{summary['setup_ms']:g} ms"),
                         ("rule there, until back", f"{summary['revert_ms']:g} ms")):
        print(f"  {title:<32}{value}")
    for link in summary["links"]:
        print(f"  {link['a']} --- {link['b']}{'':15}{'was direct' if link['was_direct'] else 'WAS NOT DIRECT'}")
    print()


def write_summary(summary):
    path = os.path.join(build.BUILD, "demo", "summary.json")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8") as f:
        json.dump(summary, f, indent=1)
        f.write("\n")
    os.replace(path + ".new", path)
    return os.path.relpath(path)


def adds_up(summary):
    return (all(link["was_direct"] for link in summary["links"]) and summary["port_stats_match"]
            and summary["flow_stats_match"] and summary["sent"] > 0 and summary["dropped_by_rule"] > 0
            and not any(summary[key] for key in ("lost", "doubled", "reordered", "corrupted")))


def show(kind, measure_seconds):
    say = Narrator()
    if kind == "guest":
        say("finding out whether guests can run with KVM here (it is tried once)")
        say(f"  they will run with {guest.accel()}")
    say("starting a private Open vSwitch")
    with Lab("demo", kind, other_config={"p2plink-enable": "false"}) as lab:
        demo = Demo(lab, say, measure_seconds)
        acc = demo.run()
        summary = demo.summary(acc)
        lab.failed = bool(demo.problems) or not adds_up(summary)
    print_table(summary, acc)
    say(f"the summary is in {write_summary(summary)}")
    for text in demo.problems:
        print(f"demo: PROBLEM: {text}", file=sys.stderr)
    if lab.failed:
        print("demo: it does not add up", file=sys.stderr)
    return 1 if lab.failed else 0


def main():
    parser = argparse.ArgumentParser(description="Links three VNFs directly, and accounts for every packet.")
    parser.add_argument("--vnf", choices=("qemu", "process"), default="qemu", help="what the VNFs are (default qemu)")
    parser.add_argument("--measure", type=float, metavar="SECONDS", help="how long to measure each of the two ways")
    args = parser.parse_args()
    signals.install()
    try:
        return show("guest" if args.vnf == "qemu" else "process", args.measure)
    except LabError as e:
        print(f"demo: {e}", file=sys.stderr)
        return 1
    except signals.Interrupted as e:
        signals.ignore()
        print(f"demo: interrupted by {e}; nothing is left behind", file=sys.stderr)
        return 128 + e.signum
    except BrokenPipeError:
        # Whoever read what we tell has gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
