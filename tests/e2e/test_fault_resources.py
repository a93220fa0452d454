#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A link is to be made while ovs-vswitchd, or one of the VNFs, is out of file descriptors or memory, while there
are no huge pages, and while there are as many links as there may be: traffic stays on the normal way, p2plink/show
says why, and when there is room again the link becomes direct.  No packet is missing, and the other link notices
nothing."""

import contextlib
import os
import resource
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import states, tap
from p2plab.chain import Chain
from p2plab.hugepages import no_free_pages
from p2plab.lab import Lab
from p2plab.remains import Regions
from p2plab.waiting import wait_for

RATE = 2000
A, B = "dpdkr1", "dpdkr2"     # The link that is made; the other one stays.
LESS_THAN_A_REGION = 1 << 20
CONFIG = {"p2plink-linger-ms": "200", "p2plink-retry-ms": "1000"}


@contextlib.contextmanager
def limited(pid, what, soft):
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


def out_of_descriptors(pid):
    """No descriptor is free any more."""
    used = {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}
    return limited(pid, resource.RLIMIT_NOFILE, next(fd for fd in range(1 << 20) if fd not in used))


def out_of_memory(pid):
    """There is some for small things, but no room for a region."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as f:
        size = int(f.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return limited(pid, resource.RLIMIT_AS, size + LESS_THAN_A_REGION)


class Scenes:
    def __init__(self, story, chain, driver):
        self.story, self.chain, self.driver = story, chain, driver

    def switchovers(self):
        links = self.chain.ovs.links()
        return [links[port]["switchovers"] for port in ("dpdkr3", "dpdkr4")]

    def reasons(self):
        links = self.chain.ovs.links()
        return " | ".join(links[port]["last_error"] for port in (A, B))

    def begin(self):
        """Traffic flows, and the link to be made is not there."""
        self.chain.start(RATE)
        self.chain.wait_traffic(60)
        self.driver.block(A, B)
        self.driver.wait(A, "normal")

    def end(self, others):
        self.chain.wait_direct(60)
        self.chain.wait_traffic(60)
        acc = self.chain.rest(60, flows=False)
        errors = acc.port_errors + acc.traffic_errors
        self.story.check(not errors, "; ".join(errors))
        if acc.total("dropped_by_switch"):
            self.story.note(f"{acc.total('dropped_by_switch')} packets found a ring full: a VNF was slow")
        self.story.check(self.switchovers() == others, f"the other link: {others}, {self.switchovers()}")

    def cannot(self, name, shortage, reason):
        """While the link is made, 'shortage' is in force; 'reason' must be said."""
        with self.story.step(name, vital=True):
            self.begin()
            others = self.switchovers()
            with shortage():
                self.driver.unblock(A, B)
                wait_for(f"a reason: {reason}", lambda: reason in self.reasons(), 60, 0.01, self.reasons)
                self.story.note(self.reasons())
                self.chain.ovs.wait_state({A: "normal", B: "normal"}, 60)
                self.chain.wait_traffic(60)
            self.end(others)

    def no_huge_pages(self):
        with self.story.step("no huge pages: the link is made of other memory, and the log says so", vital=True):
            self.begin()
            others = self.switchovers()
            with no_free_pages():
                self.driver.unblock(A, B)
                self.chain.wait_direct(60)
            log = self.chain.ovs.log_text()
            self.story.check(any(f"no huge pages for p2plink:{link} " in log for link in (f"{A}-{B}", f"{B}-{A}")), log)
            self.end(others)


def shortages(story):
    with Lab("resources", other_config=CONFIG) as lab, Regions(lab.ovs) as regions:
        chain = Chain(lab)
        with story.step("links are direct", vital=True):
            chain.add_rules()
            chain.wait_direct(60)
        switch = lab.ovs.vswitchd.pid
        forwarder = chain.forwarders[0].carrier.pid
        with lab.ovs.controller(chain.bridge) as controller:
            scenes = Scenes(story, chain, states.Driver(chain, regions, controller))
            if lab.huge_pages:
                scenes.no_huge_pages()
            else:
                story.skip("no huge pages", "the kernel has none to take away")
            scenes.cannot("ovs-vswitchd is out of file descriptors", lambda: out_of_descriptors(switch),
                          "Too many open files")
            scenes.cannot("ovs-vswitchd is out of memory", lambda: out_of_memory(switch), "Cannot allocate memory")
            scenes.cannot("a VNF is out of file descriptors", lambda: out_of_descriptors(forwarder),
                          "Too many open files")
            scenes.cannot("a VNF is out of memory", lambda: out_of_memory(forwarder), "Cannot allocate memory")
        with story.step("all counters agree"):
            acc = chain.rest(60)
            story.check(not acc.errors, acc.text())
        lab.failed = story.failed > 0


def too_many_links(story):
    config = {**CONFIG, "p2plink-max-links": "1"}
    with Lab("resources", other_config=config) as lab, Regions(lab.ovs) as regions:
        chain = Chain(lab)
        first, second = chain.links[:2], chain.links[2:]
        with story.step("as many links as there may be: the next one stays normal, and says why", vital=True):
            for rule in chain.base_rules()[:2]:
                lab.ovs.add_flow(chain.bridge, rule)
            chain.wait_direct(60, first)
            for rule in chain.base_rules()[2:]:
                lab.ovs.add_flow(chain.bridge, rule)
            chain.start(RATE)
            chain.wait_traffic(60)
            wait_for("a reason", lambda: "p2plink-max-links" in lab.ovs.links()[second[0][0]]["last_error"], 60, 0.01)
            story.note(lab.ovs.describe(lab.ovs.links()[second[0][0]]))
            chain.wait_direct(0, first)
            chain.wait_normal(0, second)
        with story.step("when one ends, the next one is made", vital=True):
            with lab.ovs.controller(chain.bridge) as controller:
                states.Driver(chain, regions, controller).block(A, B)
                chain.wait_direct(60, second)
        with story.step("all counters agree"):
            acc = chain.rest(60)
            story.check(not acc.errors, acc.text())
        lab.failed = story.failed > 0


tap.tell("links without resources", shortages, too_many_links)
