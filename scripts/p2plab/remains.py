# SPDX-License-Identifier: Apache-2.0
"""The shared memory of a switch's ports and links, as whoever may look into vswitchd sees it: what a VNF had in its
rings when it died, and which control words a link has come to.  Reads only; docs/shared-memory.md says what lies
where.

A region that has been mapped here stays readable when vswitchd gives it up, but may be wiped then: who wants to
know what a dead VNF has left, reads while its ports are still without a successor."""

import mmap
import os
import re
import struct

from .waiting import LabError

PAGE = 4096
RX_STATES = ("none", "active", "drain", "drop")
WANTS = ("none", "map", "unmap")


class Region:
    """A mapped region."""

    def __init__(self, path):
        fd = os.open(path, os.O_RDONLY)
        try:
            self.size = os.fstat(fd).st_size
            self.memory = mmap.mmap(fd, self.size, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(fd)
        self.generation, self.link_id = struct.unpack_from("<QI", self.memory, 32)
        self.n_queues = struct.unpack_from("<II", self.memory, 48)
        self.names = tuple(self.memory[at:at + 64].split(b"\0")[0].decode() for at in (68, 132))
        self.switch_page, self.vnf_page = struct.unpack_from("<QQ", self.memory, 200)
        self.controls = [struct.unpack_from("<Q", self.memory, 216 + 32 * i)[0] for i in range(sum(self.n_queues))]

    def close(self):
        self.memory.close()

    def u64(self, at):
        return struct.unpack_from("<Q", self.memory, at)[0]

    def rings(self, first, n):
        """(head, tail) of 'n' rings, summed up."""
        heads = tails = 0
        for control in self.controls[first:first + n]:
            heads += struct.unpack_from("<I", self.memory, control)[0]
            tails += struct.unpack_from("<I", self.memory, control + 128)[0]
        return heads, tails


class PortRegion(Region):
    """Indices begin with 0 when a process attaches: heads and tails are numbers of packets."""

    def from_vnf(self):
        return self.rings(0, self.n_queues[0])

    def to_vnf(self):
        return self.rings(*self.n_queues)

    def sent_directly(self):
        return sum(self.u64(self.vnf_page + 128 + 128 * q + 64) for q in range(self.n_queues[0]))

    def received_directly(self):
        return sum(self.u64(self.vnf_page + 2176 + 64 * q + 8) for q in range(self.n_queues[0]))

    def rx_link(self):
        """(link id, state): which link the VNF is to serve, or to let go."""
        word = self.u64(self.switch_page + 8)
        return word >> 32, RX_STATES[word & 3]

    def wants(self):
        """{link id: "map" or "unmap"}"""
        words = [self.u64(self.switch_page + 256 + 8 * k) for k in range(4)]
        return {word >> 32: WANTS[word & 0xff] for word in words if word & 0xff}


class LinkRegion(Region):
    def left_for(self, port):
        """Packets that 'port' has not received."""
        side = self.names.index(port)
        head, tail = self.rings(0, self.n_queues[0]) if side else self.rings(*self.n_queues)
        return head - tail


class Regions:
    """The regions of a vswitchd, found by its descriptors."""

    def __init__(self, ovs):
        self.ovs = ovs
        self.known = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for region in self.known.values():
            region.close()
        self.known.clear()

    def look(self):
        """Maps what is new, and forgets what vswitchd has no more."""
        folder = f"/proc/{self.ovs.vswitchd.pid}/fd"
        now = {}
        for fd in os.listdir(folder):
            path = os.path.join(folder, fd)
            try:
                found = re.fullmatch(r"/memfd:p2plink:(\S+) \(deleted\)", os.readlink(path))
                if found:
                    inode = os.stat(path).st_ino
                    kind = LinkRegion if "-" in found.group(1) else PortRegion
                    now[inode] = self.known.pop(inode, None) or kind(path)
            except FileNotFoundError:
                continue  # Closed meanwhile.
        for region in self.known.values():
            region.close()
        self.known = now

    def port(self, name):
        """The newest one."""
        mine = [r for r in self.known.values() if isinstance(r, PortRegion) and r.names[0] == name]
        if not mine:
            raise LabError(f"vswitchd has no region of port {name}")
        return max(mine, key=lambda region: region.generation)

    def links(self, name):
        return [r for r in self.known.values() if isinstance(r, LinkRegion) and name in r.names]
