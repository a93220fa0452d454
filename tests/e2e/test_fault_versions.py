#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ovs-vswitchd, VNFs and p2plinkd of different versions: those that have a version in common work together, the others
are refused with a reason that names both sides' versions, and no link suffers.

The library, and p2plinkd, are compiled anew from the sources with other numbers of versions in their headers, and take
the place of one program's own."""

import glob
import os
import re
import shlex
import shutil
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import build, tap
from p2plab.agent import Agent
from p2plab.chain import Chain
from p2plab.lab import Lab
from p2plab.proc import run
from p2plab.waiting import wait_for

RATE = 2000
LIB = os.path.join(build.ROOT, "libp2plink")
HEADERS = {"CONTROL": "control.h", "LAYOUT": "layout.h"}


def flags():
    """(for the compiler, for the linker), those of this build."""
    with open(os.path.join(build.BUILD, "flags"), encoding="utf-8") as f:
        compiler, _, linker = f.read().partition("|")
    return shlex.split(compiler), shlex.split(linker)


def text_of(kind):
    with open(os.path.join(LIB, "include", "p2plink", HEADERS[kind]), encoding="utf-8") as f:
        return f.read()


def now(kind):
    return int(re.search(rf"#define P2P_{kind}_VERSION (\d+)u", text_of(kind)).group(1))


class Variant:
    """The library and p2plinkd of a later version: of the 'kinds' given, it knows the present one too, or, if 'far',
    not any more."""

    def __init__(self, folder, kinds, far):
        self.dir = folder
        self.include = os.path.join(folder, "include")
        shutil.copytree(os.path.join(LIB, "include"), self.include)
        for kind in kinds:
            text = re.sub(rf"(#define P2P_{kind}_VERSION) \d+u", rf"\1 {now(kind) + 1}u", text_of(kind))
            if far:
                text = re.sub(rf"(#define P2P_{kind}_VERSION_MIN) \d+u", rf"\1 {now(kind) + 1}u", text)
            with open(os.path.join(self.include, "p2plink", HEADERS[kind]), "w", encoding="utf-8") as f:
                f.write(text)
        self.library = os.path.join(folder, "libp2plink.so.0")
        compiler, linker = flags()
        run([*compiler, "-O0", "-I" + self.include, "-I" + os.path.join(LIB, "src"), "-fPIC", "-shared",
             "-fvisibility=hidden", "-Wl,-soname,libp2plink.so.0",
             "-Wl,--version-script=" + os.path.join(LIB, "libp2plink.map"), *linker, "-o", self.library,
             *sorted(glob.glob(os.path.join(LIB, "src", "*.c"))), "-lurcu-bp"], seconds=300)

    @property
    def env(self):
        """For a VNF."""
        return {"LD_LIBRARY_PATH": self.dir}

    def agent(self):
        compiler, linker = flags()
        ovs, source = os.path.join(build.BUILD, "ovs"), os.path.join(build.ROOT, "build", "ovs-src")
        here = os.path.join(self.dir, "p2plinkd-switch.o")
        archive, program = os.path.join(self.dir, "libagent.a"), os.path.join(self.dir, "p2plinkd")
        system = [word for folder in (ovs, source + "/include", ovs + "/include", source + "/lib", ovs + "/lib")
                  for word in ("-isystem", folder)]
        run([*compiler, "-O0", "-std=gnu11", "-DHAVE_CONFIG_H", *system, "-I" + self.include,
             "-I" + os.path.join(build.ROOT, "qemu"), "-c", "-o", here,
             os.path.join(build.ROOT, "qemu", "p2plinkd-switch.c")], seconds=300)
        shutil.copy(os.path.join(build.BUILD, "obj", "libagent.a"), archive)
        run(["ar", "r", archive, here])
        with open(os.path.join(ovs, "Makefile"), encoding="utf-8") as f:
            libs = shlex.split(re.search(r"^LIBS = (.*)$", f.read(), re.M).group(1))
        run([os.path.join(ovs, "libtool"), "--quiet", "--tag=CC", "--mode=link", compiler[0], *linker, "-o", program,
             os.path.join(build.BUILD, "obj", "qemu", "p2plinkd.o"), archive,
             os.path.join(ovs, "lib", "libopenvswitch.la"), *libs, "-L" + os.path.join(build.BUILD, "lib"), "-lp2plink",
             "-Wl,-rpath," + os.path.join(build.BUILD, "lib")], seconds=300)
        return program


def refused(story, lab, variant, *words):
    """A VNF with the library of 'variant' (None: its own) gives up, and says why."""
    name = "refused-" + (os.path.basename(variant.dir) if variant else "ours")
    lab.ovs.add_port("br-lab", "dpdkr9", 9)
    vnf = lab.vnf(name, "p2p-sink", ["dpdkr9"], env=variant.env if variant else None)
    wait_for("it to give up", lambda: not vnf.carrier.child.alive(), 60, 0.05)
    said = vnf.carrier.child.last_words()
    story.note(said)
    for word in words:
        story.check(word in said, f"'{word}' is not in: {said}")
    vnf.stop()
    lab.ovs.check()
    lab.ovs.vsctl("del-port", "dpdkr9")


def agent_says(story, lab, program, *words):
    """p2plinkd says all of 'words' in its log."""
    agent = Agent(lab.dir, lab.ovs, program=program)
    agent.start()
    try:
        wait_for(f"p2plinkd to say {words}", lambda: all(word in agent.log_text() for word in words), 60, 0.05,
                 agent.log_text)
        story.note(next(line for line in agent.log_text().splitlines() if words[-1] in line))
    finally:
        agent.stop()
        os.unlink(agent.log)


def works(story, chain):
    chain.start(RATE)
    chain.wait_traffic(60)
    acc = chain.rest(60)
    story.check(not acc.errors, acc.text())
    story.check(acc.reports["sink"]["port_stats"]["rx_direct_packets"] > 0, "not over the channel")


def linked(story, lab, **how):
    chain = Chain(lab, hops=1, how=how)
    chain.add_rules()
    chain.wait_direct(60)
    works(story, chain)
    return chain


def control(low, high):
    return f"control versions {low} to {high} are spoken there"


def later_clients(story, later, far, far_layout):
    c, l = now("CONTROL"), now("LAYOUT")
    with Lab("versions") as lab:
        with story.step("a VNF with a later library that knows ours too: direct", vital=True):
            chain = linked(story, lab, sink={"env": later.env})
        with story.step("a VNF that speaks only a later control version: refused"):
            refused(story, lab, far, control(c + 1, c + 1), f"to {c} here", "upgrade Open vSwitch")
        with story.step("a VNF that knows only a later layout: gives up"):
            refused(story, lab, far_layout, f"layout version {l} is too old", f"knows {l + 1} and later",
                    "upgrade the switch")
        with story.step("a later p2plinkd that speaks ours too: connected"):
            agent_says(story, lab, later.agent(), "connected to vswitchd")
        with story.step("a p2plinkd that speaks only a later control version: refused"):
            agent_says(story, lab, far.agent(), "refuses this agent", control(c + 1, c + 1), f"to {c} here")
        with story.step("nobody else has noticed"):
            chain.wait_direct(0)
            works(story, chain)
        lab.failed = story.failed > 0


def later_switches(story, later, far, far_layout):
    c, l = now("CONTROL"), now("LAYOUT")
    with Lab("versions", preload=later.library) as lab:
        with story.step("a later switch that knows our versions too: direct, and p2plinkd is connected"):
            linked(story, lab, source={"env": later.env})
            agent_says(story, lab, None, "connected to vswitchd")
        lab.failed = story.failed > 0
    with Lab("versions", preload=far.library) as lab:
        lab.ovs.add_bridge("br-lab")
        with story.step("a switch that speaks only a later control version: our VNF and p2plinkd are refused"):
            words = f"to {c} are spoken there", f"{c + 1} to {c + 1} here", "upgrade the client"
            refused(story, lab, None, *words)
            agent_says(story, lab, None, "refuses this agent", *words)
        lab.failed = story.failed > 0
    with Lab("versions", preload=far_layout.library) as lab:
        lab.ovs.add_bridge("br-lab")
        with story.step("a switch that makes only regions of a later layout: our VNF gives up"):
            refused(story, lab, None, f"needs a library that knows version {l + 1}", f"knows {l}:",
                    "upgrade libp2plink here")
        lab.failed = story.failed > 0


def main(story):
    if any("-fsanitize" in flag for flag in flags()[0]):
        story.skip("other versions", "a library with sanitizers cannot take the place of another one")
        return
    folder = tempfile.mkdtemp(prefix="v.")
    try:
        with story.step("other versions are compiled", vital=True):
            variants = [Variant(os.path.join(folder, name), kinds, far) for name, kinds, far in
                        (("later", ("CONTROL", "LAYOUT"), False), ("far", ("CONTROL",), True),
                         ("far-layout", ("LAYOUT",), True))]
        later_clients(story, *variants)
        later_switches(story, *variants)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


tap.tell("different versions", main)
