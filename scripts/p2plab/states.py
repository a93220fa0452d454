# SPDX-License-Identifier: Apache-2.0
"""Brings the link of a VNF into each of its states, and keeps it there by stopping the VNF's process, or its QEMU.

A link of which one VNF does not answer stays where it is until a time limit, so no state is too short to be met."""

import time

from . import deaths, openflow
from .chain import MARKED_UDP_PORT
from .waiting import LabError, wait_for

STATES = ("normal", "provisioning", "switching", "direct", "reverting", "lingering", "draining", "dropping",
          "unmapping")
SECONDS = 60
ATTEMPTS = 20


class Driver:
    """Rules against marked packets, of which there are none, forbid the direct channel and change nothing else."""

    def __init__(self, chain, regions, controller):
        self.chain = chain
        self.regions = regions
        self.controller = controller
        matches = {p: openflow.match(in_port=n, udp_dst=MARKED_UDP_PORT) for p, n in chain.numbers.items()}
        self.add = {p: openflow.flow_mod(openflow.ADD, 100, m) for p, m in matches.items()}
        self.delete = {p: openflow.flow_mod(openflow.DELETE_STRICT, 100, m) for p, m in matches.items()}

    def block(self, *ports):
        self.controller.change(*[self.add[p] for p in ports])

    def unblock(self, *ports):
        self.controller.change(*[self.delete[p] for p in ports])

    def state(self, p):
        """The state of the link of 'p', whose VNF is of interest."""
        link = self.chain.ovs.links()[p]
        if link["state"] != "normal":
            return link["state"]
        self.regions.look()
        region = self.regions.port(p)
        if "unmap" in region.wants().values():
            return "unmapping"
        rx = region.rx_link()[1]
        if rx in ("drain", "drop"):
            return {"drain": "draining", "drop": "dropping"}[rx]
        return "lingering" if link["link_id"] else "ending" if link["rx_link_id"] or region.wants() else "normal"

    def wait(self, p, state):
        wait_for(f"{p} to be {state}", lambda: self.state(p) == state, SECONDS, 0, lambda: self.state(p))

    def _approach(self, vnf, p, q, state):
        """Returns with 'vnf' running or stopped, and the link in 'state', perhaps."""
        if state == "direct":
            return
        if state == "reverting":
            deaths.stop(vnf)
            self.block(p, q)
            return
        self.block(p, q)
        self.chain.wait_normal(SECONDS, [(p, q), (q, p)])
        if state == "lingering":
            return
        if state in ("normal", "provisioning"):
            self.wait(p, "normal")
            self._wait_unplugged()
        if state == "normal":
            return
        deaths.stop(vnf)
        if state in ("provisioning", "switching"):
            self.unblock(p, q)

    def _wait_unplugged(self):
        """A VM that is stopped while it lets go of the last link's device gets no other."""
        agent = self.chain.lab.agent
        if agent:
            wait_for("the link's device to leave", lambda: not any(
                device["kind"] == "link" for vm in agent.show()["vms"] for device in vm["devices"]), SECONDS, 0.01)

    def bring(self, vnf, p, q, state):
        """Brings the link into 'state', the VNF stopped, from all links being direct, under traffic."""
        for _ in range(ATTEMPTS):
            self._approach(vnf, p, q, state)
            found = self._reach(p, state)
            deaths.stop(vnf)
            if found and self.state(p) == state:
                return
            deaths.go_on(vnf)    # Something else was faster.
            self.restore(p, q)
        raise LabError(f"in {ATTEMPTS} attempts the link of {vnf.name} has not been caught {state}")

    def _reach(self, p, state):
        begin = time.monotonic()
        while time.monotonic() - begin < 10:
            if self.state(p) == state:
                return True
        return False

    def restore(self, p, q):
        self.unblock(p, q)
        self.chain.wait_direct(SECONDS)
