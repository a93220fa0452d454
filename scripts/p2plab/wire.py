# SPDX-License-Identifier: Apache-2.0
"""Ports for an Open vSwitch that has no "dpdkr" ports, to compare with: DPDK's af_packet driver on one end of a veth
pair, which a PMD thread polls, and a raw socket at the other, both in vswitchd's network namespace."""

import contextlib
import ctypes
import os
import socket
import struct
import threading
import time

from .proc import run
from .waiting import LabError

DPDK = {"dpdk-init": "true", "dpdk-extra": "--no-pci --no-huge --legacy-mem --no-shconf --no-telemetry -m 512"}
CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def namespace_of(pid):
    """This thread is in the network namespace of 'pid' meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        theirs = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(theirs, CLONE_NEWNET):
                raise LabError(f"cannot enter the network namespace of {pid}: {os.strerror(ctypes.get_errno())}")
        finally:
            os.close(theirs)
        yield
        libc.setns(own, CLONE_NEWNET)
    finally:
        os.close(own)


class Wire:
    """Port 'name' of 'bridge', and the raw socket 'sock' that is connected to it."""

    def __init__(self, lab, bridge, name, ofport):
        self.name = name
        far = name + "-far"
        inside = ["nsenter", "--net", "--target", str(lab.ovs.vswitchd.pid)]
        run([*inside, "ip", "link", "add", name, "type", "veth", "peer", "name", far])
        for end in name, far:
            run([*inside, "sysctl", "-qw", f"net.ipv6.conf.{end}.disable_ipv6=1"], check=False)
            run([*inside, "ip", "link", "set", end, "up", "promisc", "on"])
        with namespace_of(lab.ovs.vswitchd.pid):
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.sock.bind((far, 0))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 23)
        lab.stack.callback(self.sock.close)
        lab.ovs.add_port(bridge, "p-" + name, ofport, "type=dpdk",
                         f"options:dpdk-devargs=net_af_packet_{name},iface={name}")


def frame(flow, udp_port, number):
    """A packet of 64 bytes: flow 'flow' goes to 10.0.0.0 plus that."""
    ip = struct.pack("!BBHHHBBH4sI", 0x45, 0, 50, 0, 0, 64, 17, 0, bytes((10, 1, 0, 1)), 0x0a000000 + flow)
    folded = sum(struct.unpack("!10H", ip))
    folded = (folded & 0xffff) + (folded >> 16)
    ip = ip[:10] + struct.pack("!H", ~(folded + (folded >> 16)) & 0xffff) + ip[12:]
    return (b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0" + ip + struct.pack("!HHHHQ", 4000, udp_port, 30, 0, number) +
            bytes(14))


def parse(data):
    """(UDP destination port, number) of what frame() made; (None, None) of anything else."""
    if len(data) < 50 or data[12:14] != b"\x08\0" or data[23] != 17:
        return None, None
    return struct.unpack("!H", data[36:38])[0], struct.unpack("!Q", data[42:50])[0]


class Talker(threading.Thread):
    """Sends what 'next_frame()' returns into a wire, a packet each 'interval' seconds or a little more."""

    def __init__(self, wire, interval, next_frame):
        super().__init__(daemon=True)
        self.wire = wire
        self.interval = interval
        self.next_frame = next_frame
        self.stopped = False
        self.error = None

    def run(self):
        try:
            while not self.stopped:
                self.wire.sock.send(self.next_frame())
                time.sleep(self.interval)
        except OSError as e:
            self.error = e

    def end(self):
        self.stopped = True
        self.join()
        if self.error:
            raise LabError(f"{self.wire.name}: {self.error}")
