#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A guest that does not answer: one whose kernel has no PCI hot-plug, and so hears neither of a new device nor that
one is to go, and one that is stopped.  Within the time limits its link falls back to normal and says why, no packet
is lost, and the others notice nothing; when the guest looks for itself, the link is direct."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import guest, states, tap
from p2plab.chain import Chain
from p2plab.lab import Lab
from p2plab.qmp import Qmp
from p2plab.remains import Regions
from p2plab.waiting import wait_for

RATE = 500
A, B = "dpdkr3", "dpdkr4"    # The sink is in the guest.
CONFIG = {"p2plink-linger-ms": "300", "p2plink-plug-ms": "2000", "p2plink-retry-ms": "1000",
          "p2plink-heartbeat-ms": "60000"}
NOT_MAPPED = "the guest has not mapped its device"
# The guest looks for devices until it has its port's, and later when it is told to.
SHELL = ("while read x; do echo 1 >/sys/bus/pci/rescan; done </dev/ttyS2 & "
         "until grep -q 0x1110 /sys/bus/pci/devices/*/device; do echo 1 >/sys/bus/pci/rescan; sleep 0.2; done; exec {}")


class Scenes:
    def __init__(self, story, lab, chain, driver):
        self.story, self.lab, self.chain, self.driver = story, lab, chain, driver
        self.others = None

    def switchovers(self):
        links = self.lab.ovs.links()
        return [links[port]["switchovers"] for port in ("dpdkr1", "dpdkr2")]

    def error(self, port):
        return self.lab.ovs.links()[port]["last_error"]

    def wait_error(self, words):
        """Until the link that cannot be says why, and is normal."""
        wait_for(f"'{words}'", lambda: words in self.error(A) and words in self.error(B), 60, 0.02,
                 lambda: f"{self.error(A)} | {self.error(B)}")
        self.story.note(f"{B}: {self.error(B)}")
        self.chain.wait_normal(60, [(A, B), (B, A)])

    def check(self):
        """Nothing is missing, and the other link has noticed nothing."""
        self.chain.wait_traffic(60)
        acc = self.chain.rest(60, flows=False)
        errors = acc.port_errors + acc.traffic_errors
        self.story.check(not errors, "; ".join(errors))
        self.chain.start(RATE)
        self.chain.wait_traffic(60)
        self.others = self.others or self.switchovers()
        self.story.check(self.switchovers() == self.others, f"other link: {self.others}, {self.switchovers()}")

    def wait_direct(self):
        """The guest is told to look for devices until all is direct."""
        def direct():
            self.chain.sink.carrier.tell("look")
            return all(self.lab.ovs.state(a) == "direct" for a, _ in self.chain.links)
        wait_for("all links to be direct", direct, 120, 0.3, lambda: f"{self.error(A)} | {self.error(B)}")

    def plug(self):
        with self.story.step("the guest does not hear of the device: the link stays normal, and says why", vital=True):
            self.chain.add_rules()
            self.chain.start(RATE)
            self.chain.wait_traffic(60)
            self.wait_error(NOT_MAPPED)
            self.check()
        with self.story.step("the guest looks for itself: the link is direct", vital=True):
            self.wait_direct()
            self.check()

    def unplug(self):
        with self.story.step("the guest does not let the device go: the link ends, and says so", vital=True):
            self.driver.block(A, B)
            self.driver.wait(A, "normal")
            wait_for("the reason", lambda: "has not let" in self.error(B), 60, 0.02, lambda: self.error(B))
            self.story.note(f"{B}: {self.error(B)}")
            self.check()
        with self.story.step("it is direct again when it may be", vital=True):
            self.driver.unblock(A, B)
            self.wait_direct()
            self.check()

    def stopped(self):
        with self.story.step("the guest is stopped when a link is to be made: the same", vital=True):
            self.driver.block(A, B)
            self.driver.wait(A, "normal")
            with Qmp(self.chain.sink.carrier.monitor) as monitor:
                monitor({"execute": "stop"})
                self.driver.unblock(A, B)
                self.wait_error(NOT_MAPPED)
                self.story.check(self.switchovers() == self.others, f"other link: {self.others}, {self.switchovers()}")
                monitor({"execute": "cont"})
            self.check()
        with self.story.step("it goes on: the link is direct", vital=True):
            self.wait_direct()
            self.check()


def main(story):
    story.note(f"guests run with {guest.accel()}")
    with Lab("guest-deaf", "guest", other_config=CONFIG, agent=["--unplug-timeout=2000"]) as lab, \
            Regions(lab.ovs) as regions:
        with story.step("two processes and a guest attach", vital=True):
            process = {"kind": "process"}
            chain = Chain(lab, how={
                "source": process, "forwarder": process,
                "sink": {"shell": SHELL, "guest": ["--append", "acpiphp.disable=1"]}})
        with lab.ovs.controller(chain.bridge) as controller:
            scenes = Scenes(story, lab, chain, states.Driver(chain, regions, controller))
            scenes.plug()
            scenes.unplug()
            scenes.stopped()
        with story.step("all counters agree"):
            acc = chain.rest(60)
            story.note(f"{acc.total('sent')} packets, {acc.total('dropped_by_switch')} found a ring full")
            story.check(not acc.errors, acc.text())
        lab.failed = story.failed > 0


tap.tell("a guest does not answer", main)
