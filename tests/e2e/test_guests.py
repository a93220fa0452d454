#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""VNFs in QEMU guests: a chain of three, whose links are plugged into running guests and out again; and what happens
when a port's VM is not there, or not known."""

import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import guest, tap
from p2plab.chain import Chain
from p2plab.lab import Lab
from p2plab.qmp import Qmp
from p2plab.waiting import wait_for

RATE = 1000


def link_devices(lab):
    """{monitor socket: number of link regions plugged} of all VMs."""
    return {vm["qmp"]: sum(d["kind"] == "link" for d in vm["devices"]) for vm in lab.agent.show()["vms"]}


def chain_of_guests(story, lab, chain):
    with story.step("traffic flows through the switch, port by port"):
        chain.add_rules()
        chain.start(RATE)
        chain.wait_traffic(30)
        acc = chain.rest(20)
        story.check(not acc.errors, acc.text())
    with story.step("links are plugged into running guests, under traffic"):
        chain.start(RATE)
        lab.ovs.vsctl("set", "Open_vSwitch", ".", "other_config:p2plink-enable=true")
        seconds = chain.wait_direct(60)
        story.note(f"all links direct after {seconds * 1000:.0f} ms")
        plugged = link_devices(lab)
        want = {chain.source.carrier.qmp: 1, chain.forwarders[0].carrier.qmp: 2, chain.sink.carrier.qmp: 1}
        story.check(plugged == want, f"plugged: {plugged}")
    with story.step("traffic takes the channels, and all counters agree"):
        chain.wait_traffic(30)
        time.sleep(1)
        acc = chain.rest(20)
        story.check(not acc.errors, acc.text())
        story.check(acc.reports["sink"]["port_stats"]["rx_direct_packets"] > 500, "not over the channel")
        story.check(acc.reports["sink"]["port"]["in_guest"], "the sink is not in a guest")
    with story.step("a rule ends a link, its end brings it back, five times under traffic"):
        rule = chain.drop_rule("dpdkr1")
        chain.start(RATE)
        for _ in range(5):
            lab.ovs.add_flow(chain.bridge, rule + ",actions=drop")
            chain.wait_normal(20, [("dpdkr1", "dpdkr2")])
            time.sleep(0.2)
            chain.retire(rule)
            chain.wait_direct(20)
        acc = chain.rest(20)
        story.note(f"{acc.switchovers} switchovers, {acc.total('sent')} packets")
        story.check(not acc.errors, acc.text())
    with story.step("when the rules are gone, the link devices are unplugged"):
        chain.retire_all()
        chain.wait_normal(20)
        wait_for("link devices to be gone", lambda: not any(link_devices(lab).values()), 30, 0.1,
                 lambda: str(link_devices(lab)))
    with story.step("and with the rules they come again"):
        chain.add_rules()
        chain.wait_direct(60)
        chain.start(RATE)
        chain.wait_traffic(30)
        acc = chain.rest(20)
        story.check(not acc.errors, acc.text())


def no_vm(story, lab, chain):
    missing = os.path.join(lab.dir, "nobody.qmp")
    with story.step("a VM that is not there: p2plinkctl says so, the port stays normal"):
        lab.ovs.add_port(chain.bridge, "dpdkr8", 8, "external_ids:p2plink-qmp=" + missing)

        def complaint():
            port = next((p for p in json.loads(lab.agent.p2plinkctl("--json", "show", "dpdkr8").stdout)["ports"]
                         if p["name"] == "dpdkr8"), {})
            vm = next((v for v in lab.agent.show()["vms"] if v["qmp"] == missing), {})
            text = port.get("error") or vm.get("trouble") or vm.get("state", "")
            return text if missing in json.dumps([port, vm]) and text else None
        story.note(wait_for("p2plinkd to tell of it", complaint, 10, 0.1))
        story.check("nobody.qmp" in lab.agent.log_text(), "p2plinkd's log does not name the socket")
        lab.ovs.add_flow(chain.bridge, "priority=10,in_port=8,actions=output:9")
        time.sleep(0.5)
        link = lab.ovs.links()["dpdkr8"]
        story.check(link["state"] == "normal" and not link["attached"], f"{link}")
    with story.step("a VM that refuses the device: the reason is there, the port stays normal"):
        lab.ovs.add_port(chain.bridge, "dpdkr7", 7)
        # This machine has no bus that devices could be plugged into.
        refuser = lab.vnf("refuser", "p2p-sink", ["dpdkr7"], guest=["--machine", "q35", "--root-ports", "0"])

        def reason():
            said = json.loads(lab.agent.p2plinkctl("--json", "show", "dpdkr7").stdout)["ports"]
            return next((port["error"] for port in said if port["name"] == "dpdkr7"), None)
        story.note(wait_for("p2plinkd to tell of it", reason, 30, 0.1))
        refuser.stop()
        story.check(lab.ovs.state("dpdkr7") == "normal", "it is not normal")
    with story.step("a VM that is not known: p2plinkctl prints the commands that plug its port by hand, and they work"):
        lab.ovs.add_port(chain.bridge, "dpdkr9", 9)
        unknown = lab.vnf("unknown", "p2p-sink", ["dpdkr9"], owned=False)
        said = lab.agent.p2plinkctl("commands", "dpdkr9").stdout
        story.note(said)
        commands = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        story.check([c["execute"] for c in commands] == ["object-add", "device_add"], said)
        with Qmp(unknown.carrier.qmp) as monitor:
            for command in commands:
                monitor(command)
        unknown.wait_ready(60)
        story.check(lab.ovs.links()["dpdkr9"]["vnf"] == "guest", f"{lab.ovs.links()['dpdkr9']}")
        unknown.stop()
    with story.step("a port that is not there"):
        done = lab.agent.p2plinkctl("show", "nosuchport", check=False)
        story.check(done.returncode == 1 and "nosuchport" in done.stderr, f"{done.returncode}: {done.stderr}")
    with story.step("a second VNF, a process, is refused on a guest's port"):
        late = lab.vnf("late", "p2p-sink", ["dpdkr1"], ["--attach", "socket"], kind="process", wait=0)
        wait_for("it to give up", lambda: not late.carrier.child.alive(), 20, 0.1)
        words = late.carrier.child.last_words()
        story.check("dpdkr1" in words and "VM" in words, words)


def guest_killed(story, lab, chain):
    with story.step("the end of a guest ends its links, and vswitchd and the others go on"):
        chain.sink.kill()
        lab.ovs.wait_state({"dpdkr3": "normal", "dpdkr4": "normal"}, 20)
        wait_for("the sink's port to be free", lambda: not lab.ovs.links()["dpdkr4"]["attached"], 20, 0.1)
        lab.ovs.check()
        links = lab.ovs.links()
        story.check(links["dpdkr1"]["state"] == links["dpdkr2"]["state"] == "direct", f"{links}")


def main(story):
    story.note(f"guests run with {guest.accel()}")
    with Lab("guests", "guest", other_config={"p2plink-enable": "false"}) as lab:
        begin = time.monotonic()
        with story.step("three guests attach to their ports", vital=True):
            chain = Chain(lab)
            story.note(f"after {time.monotonic() - begin:.1f} s")
        for part in chain_of_guests, no_vm, guest_killed:
            part(story, lab, chain)
            lab.failed = story.failed > 0


tap.tell("VNFs in guests", main)
