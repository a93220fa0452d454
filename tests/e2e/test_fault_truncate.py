#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A process attaches to a port as a VNF does, and then tries to take the memory that it has been given from under
vswitchd: resizing fails by the seals, holes harm nobody but itself, with memory to fill them and without."""

import contextlib
import ctypes
import errno
import fcntl
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import hugepages, tap
from p2plab.chain import Chain
from p2plab.client import HELLO, Client
from p2plab.lab import Lab
from p2plab.waiting import wait_for

RATE = 5000
F_ADD_SEALS, F_GET_SEALS = 1033, 1034
F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE = 2, 4, 8
KEEP_SIZE, PUNCH_HOLE = 1, 2
LIBC = ctypes.CDLL(None, use_errno=True)


def fallocate(fd, mode, offset, length):
    if LIBC.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def resize(story, what, region):
    def refused(how, func, *args):
        try:
            func(*args)
        except OSError as e:
            # (EINVAL: huge pages cannot be cut.)
            story.check(e.errno in (errno.EPERM, errno.EINVAL), f"{what}: {how}: {e}")
        else:
            story.check(False, f"{what}: {how} was not refused")
        story.check(os.fstat(region.fd).st_size == region.size, f"{what}: {how} has changed its size")
    size = region.size
    refused("shrinking to nothing", os.ftruncate, region.fd, 0)
    refused("shrinking", os.ftruncate, region.fd, size // 2)
    refused("growing", os.ftruncate, region.fd, 2 * size)
    refused("growing by fallocate", fallocate, region.fd, 0, size, size)
    refused("sealing", fcntl.fcntl, region.fd, F_ADD_SEALS, F_SEAL_WRITE)


def punch(region):
    fallocate(region.fd, PUNCH_HOLE | KEEP_SIZE, 0, region.size)


def attack(story, lab, bridge, memory):
    """A VNF on dpdkr8 that has a link with an honest one on dpdkr9."""
    with Client(lab.ovs.socket) as client:
        story.check(client.hello().type == HELLO, "HELLO is refused")
        port = client.attach("dpdkr8")
        link = client.wait_link()
        with story.step(f"{memory}: a VNF can neither shrink nor grow the memory that it is given"):
            for what, region in ("port region", port), ("link region", link):
                resize(story, what, region)
            story.check(lab.ovs.links()["dpdkr8"]["memory"] == memory, f"{lab.ovs.links()['dpdkr8']}")
        with story.step(f"{memory}: nor does it harm others by taking all of its memory away"):
            none_left = hugepages.no_free_pages() if memory == "hugepages" else contextlib.nullcontext()
            with none_left:
                punch(link)
                punch(port)
                # The switch looks at the words of the port at once.
                wait_for("the VNF to be out", lambda: not lab.ovs.links()["dpdkr8"]["attached"], 60, 0.01)
                said = lab.ovs.describe(lab.ovs.links()["dpdkr8"])
                story.check(memory != "hugepages" or "has taken memory out" in said, said)
                lab.ovs.check()
    with story.step(f"{memory}: an honest VNF on its port is direct"):
        vnf = lab.vnf("honest", "p2p-source", ["dpdkr8"])
        lab.ovs.wait_state({"dpdkr8": "direct", "dpdkr9": "direct"}, 60)
        vnf.stop()


def one(story, memory, **lab_options):
    with Lab("truncate", **lab_options) as lab:
        chain = Chain(lab)
        chain.add_rules()
        chain.wait_direct(60)
        for number in 8, 9:
            lab.ovs.add_port(chain.bridge, f"dpdkr{number}", number)
        lab.vnf("peer", "p2p-sink", ["dpdkr9"], ["--send", "--idle", "sleep"]).wait_ready()
        for a, b in (8, 9), (9, 8):
            lab.ovs.add_flow(chain.bridge, f"in_port={a},actions=output:{b}")
        chain.start(RATE)
        chain.wait_traffic(60)
        attack(story, lab, chain.bridge, memory)
        with story.step(f"{memory}: the others have lost nothing, and never left their channels"):
            acc = chain.rest(60)
            story.note(f"{acc.total('sent')} packets")
            story.check(not acc.errors, acc.text())
            story.check(acc.switchovers == 4, f"{acc.switchovers} switchovers")
            story.check(acc.total("dropped_by_switch") == 0, "the switch dropped some")
        lab.failed = story.failed > 0


def main(story):
    one(story, "hugepages")
    one(story, "tmpfs", huge_pages=0, other_config={"p2plink-hugepages": "false"})


tap.tell("a VNF tries to take memory away", main)
