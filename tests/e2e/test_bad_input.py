#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input gets a clear error, and loses nothing: all the while, and in the end, a chain of two VNFs works."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import build, hugepages, tap
from p2plab.chain import Chain
from p2plab.lab import Lab
from p2plab.proc import run

MFD_HUGE_2MB = 21 << 26


def try_vnf(lab, *arguments, socket=None):
    """Runs a VNF that is to fail; returns its exit code and its words."""
    done = run([build.vnf("p2p-sink"), *arguments, "--socket", socket or lab.ovs.socket, "--duration", "5"],
               check=False)
    return done.returncode, done.stderr.strip()


def refused(story, lab, words, *arguments, **kwargs):
    code, said = try_vnf(lab, *arguments, **kwargs)
    story.check(code not in (0, -6, -11), f"exit code {code}: {said}")
    for word in words:
        story.check(word in said, f"it does not mention '{word}': {said}")


def vnfs(story, lab, chain):
    with story.step("a second VNF on a taken port is refused, and told who has it"):
        refused(story, lab, ["dpdkr1", "taken", str(chain.source.carrier.pid)], "--port", "dpdkr1")
    with story.step("a port that is not there"):
        refused(story, lab, ["nosuchport"], "--port", "nosuchport")
    with story.step("a switch that is not there"):
        refused(story, lab, ["/nonexistent/p2plink.sock"], "--port", "dpdkr1", "--attach", "socket",
                socket="/nonexistent/p2plink.sock")
    with story.step("frames that are longer than the port's MTU"):
        lab.ovs.add_port(chain.bridge, "dpdkr7", 7)
        refused(story, lab, ["9000", "MTU 1500"], "--port", "dpdkr7", "--send", "--size", "9000")
        lab.ovs.vsctl("del-port", "dpdkr7")


def options(story, lab, chain):
    def interface_error(*settings):
        lab.ovs.vsctl("--may-exist", "add-port", chain.bridge, "dpdkr8", "--", "set", "Interface", "dpdkr8",
                      "type=dpdkr", *settings, check=False)
        error = lab.ovs.interfaces()["dpdkr8"]["error"]
        lab.ovs.vsctl("del-port", "dpdkr8")
        return error or ""

    for value in "0", "17", "-1", "many":
        with story.step(f"options:n_rxq={value} is named in the Interface's error column"):
            error = interface_error("options:n_rxq=" + value)
            story.check("n_rxq" in error and value in error and "16" in error, f"error column: '{error}'")
    with story.step("a port name that is too long"):
        name = "d" * 64
        lab.ovs.vsctl("add-port", chain.bridge, name, "--", "set", "Interface", name, "type=dpdkr", check=False)
        error = lab.ovs.interfaces()[name]["error"] or ""
        lab.ovs.vsctl("del-port", name)
        story.check("64" in error, f"error column: '{error}'")
    with story.step("a good port works after all that"):
        story.check(interface_error("options:n_rxq=16") == "", "16 queues are refused")


def mtus(story, lab, chain):
    lab.ovs.add_port(chain.bridge, "dpdkr7", 7)
    for value in 9001, 67:
        with story.step(f"MTU {value} is refused, in words, and the port keeps its own"):
            lab.ovs.vsctl("set", "Interface", "dpdkr7", f"mtu_request={value}")
            row = lab.ovs.interfaces()["dpdkr7"]
            story.check(row["mtu"] == 1500, f"the MTU is {row['mtu']}")
            story.check(f"dpdkr7: MTU {value} is not between 68 and 9000" in lab.ovs.log_text(),
                        "the log does not say so")
    with story.step("MTU 9000 is taken"):
        lab.ovs.vsctl("set", "Interface", "dpdkr7", "mtu_request=9000")
        story.check(lab.ovs.interfaces()["dpdkr7"]["mtu"] == 9000, f"it is {lab.ovs.interfaces()['dpdkr7']['mtu']}")
    lab.ovs.vsctl("del-port", "dpdkr7")


def no_huge_pages(story, lab, chain):
    """Takes all huge pages that are free."""
    with story.step("without free huge pages a port falls back to tmpfs, and the log says so"):
        story.check(lab.ovs.interfaces()["dpdkr1"]["status"]["memory"] == "hugepages" or not lab.huge_pages,
                    "there were huge pages, and dpdkr1 is not in them")
        fd = os.memfd_create("all-huge-pages", os.MFD_CLOEXEC | os.MFD_HUGETLB | MFD_HUGE_2MB)
        try:
            while hugepages.free():
                try:
                    os.posix_fallocate(fd, 0, os.fstat(fd).st_size + (hugepages.free() << 21))
                except OSError:
                    break  # Reserved for somebody.
            lab.ovs.add_port(chain.bridge, "dpdkr9", 9)
            status = lab.ovs.interfaces()["dpdkr9"]["status"]
            story.check(status["memory"] == "tmpfs", f"status: {status}")
            lines = [line for line in lab.ovs.log_text().splitlines() if "tmpfs" in line and "dpdkr9" in line]
            story.check(lines, "the log does not speak of it")
            story.note(lines[0])
        finally:
            os.close(fd)
        lab.ovs.vsctl("del-port", "dpdkr9")


def main(story):
    with Lab("bad-input") as lab:
        chain = Chain(lab, hops=1)
        chain.add_rules()
        chain.wait_direct()
        chain.start(5000)
        for part in vnfs, options, mtus, no_huge_pages:
            part(story, lab, chain)
        with story.step("nothing of that has disturbed the chain"):
            for vnf in chain.vnfs:
                vnf.carrier.check()
            lab.ovs.check()
            links = lab.ovs.links()
            story.check(links["dpdkr1"]["state"] == links["dpdkr2"]["state"] == "direct",
                        f"{links['dpdkr1']['state']}, {links['dpdkr2']['state']}")
            acc = chain.rest()
            story.check(not acc.errors, acc.text())
            story.check(acc.total("sent") > 1000, f"only {acc.total('sent')} packets were sent")
            story.check(acc.total("dropped_by_switch") == 0, "packets were dropped")
        lab.failed = story.failed > 0


tap.tell("bad input", main)
