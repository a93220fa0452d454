#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the DPDK driver does for packets that ask for more than being copied: checksums, TCP segmentation, VLAN tags,
jumbo frames in several mbufs.  Frames come from a file, and what comes back is looked at byte by byte:

    file -> generator (testpmd, io) dpdkr1 --- dpdkr2 reflector (testpmd, what is tested) --- dpdkr1 generator -> file
"""

import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts"))

from p2plab import tap
from p2plab.dpdk import Testpmd
from p2plab.lab import Lab
from p2plab.waiting import wait_for

WAIT = 60

MAC_A, MAC_B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
JUMBO = ["--max-pkt-len=9022", "--disable-device-start", "--no-flush-rx"]
SCATTER = "port config 0 rx_offload scatter on"


#
# Frames and files.
#

def csum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ether(kind, payload, tag=None):
    tags = struct.pack("!HH", 0x8100, tag) if tag is not None else b""
    return MAC_B + MAC_A + tags + struct.pack("!H", kind) + payload


def ipv4(proto, payload, ident=1):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), ident, 0x4000, 64, proto, 0, bytes([10, 0, 0, 1]),
                       bytes([10, 0, 0, 2]))
    return head[:10] + struct.pack("!H", csum(head)) + head[12:] + payload


def ipv6(proto, payload):
    return struct.pack("!IHBB16s16s", 6 << 28, len(payload), proto, 64, bytes(15) + b"\1", bytes(15) + b"\2") + payload


def udp(payload, sum_=0xbad):
    return struct.pack("!HHHH", 1000, 2000, 8 + len(payload), sum_) + payload


def tcp(payload, flags=0x18, sum_=0xbad):
    return struct.pack("!HHIIBBHHH", 1000, 2000, 5000, 7, 5 << 4, flags, 1024, sum_, 0) + payload


def pattern(n, seed=0):
    return bytes((i * 7 + (i >> 8) + seed) & 0xff for i in range(n))


def write_pcap(path, frames):
    with open(path, "wb") as f:
        f.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
        for frame in frames:
            f.write(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)


def read_pcap(path):
    with open(path, "rb") as f:
        data = f.read()
    frames, at = [], 24
    while at + 16 <= len(data):
        size = struct.unpack("<I", data[at + 8:at + 12])[0]
        if at + 16 + size > len(data):
            break
        frames.append(data[at + 16:at + 16 + size])
        at += 16 + size
    return frames


class Packet:
    """An Ethernet frame with IPv4 or IPv6 and TCP or UDP, taken apart, without padding."""

    def __init__(self, frame):
        at = 12
        self.tag = None
        if frame[at:at + 2] == b"\x81\0":
            self.tag = struct.unpack("!H", frame[at + 2:at + 4])[0]
            at += 4
        self.kind = struct.unpack("!H", frame[at:at + 2])[0]
        ip = frame[at + 2:]
        if self.kind == 0x800:
            size = (ip[0] & 15) * 4
            total, self.ident = struct.unpack("!HH", ip[2:6])
            self.proto = ip[9]
            self.ip_good = csum(ip[:size]) == 0
            addresses = ip[12:20]
            self.l4 = ip[size:total]
        else:
            self.proto = ip[6]
            self.ip_good = True
            addresses = ip[8:40]
            self.l4 = ip[40:40 + struct.unpack("!H", ip[4:6])[0]]
        pseudo = addresses + struct.pack("!II", len(self.l4), self.proto)
        self.l4_good = csum(pseudo + self.l4) == 0
        if self.proto == 6:
            self.seq = struct.unpack("!I", self.l4[4:8])[0]
            self.flags = self.l4[13]
            self.payload = self.l4[(self.l4[12] >> 4) * 4:]
        else:
            self.payload = self.l4[8:]

    def key(self):
        return self.kind, self.proto, self.payload


#
# The bench.
#

class Bench:
    def __init__(self, story, lab):
        self.story = story
        self.lab = lab
        self.n = 0
        self.generator = self.reflector = None
        lab.ovs.add_bridge("br-lab")
        for i in 1, 2:
            lab.ovs.add_port("br-lab", f"dpdkr{i}", i, "mtu_request=9000")

    def direct(self):
        for a, b in (1, 2), (2, 1):
            self.lab.ovs.add_flow("br-lab", f"priority=10,in_port={a},actions=output:{b}")
        self.lab.ovs.wait_state({"dpdkr1": "direct", "dpdkr2": "direct"}, 60)

    def normal(self):
        """With rules that say the same of each packet, but differently of two kinds."""
        for a, b in (1, 2), (2, 1):
            self.lab.ovs.add_flow("br-lab", f"priority=20,udp,in_port={a},tp_dst=7777,actions=drop")
            self.lab.ovs.add_flow("br-lab", f"priority=10,in_port={a},actions=output:{b}")
        self.lab.ovs.wait_state({"dpdkr1": "normal", "dpdkr2": "normal"}, 60)

    def any(self, way):
        self.lab.ovs.del_flows("br-lab")
        getattr(self, way)()
        # Megaflows may have been made anew while there were no rules, and drop: also in vanilla Open vSwitch.
        self.lab.ovs.appctl("revalidator/wait")

    def _start_ports(self, app, setup):
        for command in [SCATTER, *setup]:
            said = app(command)
            self.story.check("rror" not in said and "Bad" not in said, f"{command}: {said}")
        said = app("port start all")
        self.story.check("Fail" not in said, said)

    def reflect(self, mode, setup=(), arguments=()):
        """A reflector in that mode, set up by commands while its port is stopped."""
        self.reflector = Testpmd(self.lab, f"reflector{self.n}", ["dpdkr2"], [*JUMBO, *arguments])
        self.n += 1
        self.reflector.wait_ready()
        self._start_ports(self.reflector, setup)
        self.reflector("set fwd " + mode)
        self.reflector("start")

    def send(self, frames, n_back=None, setup=(), arguments=()):
        """What comes back."""
        there = os.path.join(self.lab.dir, f"there{self.n}.pcap")
        back = os.path.join(self.lab.dir, f"back{self.n}.pcap")
        write_pcap(there, frames)
        g = self.generator = Testpmd(self.lab, f"generator{self.n}", ["dpdkr1"], [*JUMBO, *arguments],
                                     vdevs=[f"net_pcap0,rx_pcap={there},tx_pcap={back}"])
        self.n += 1
        g.wait_ready()
        self._start_ports(g, setup)
        self.any(self.way)
        g("start")
        n_back = len(frames) if n_back is None else n_back
        wait_for(f"{n_back} frames to come back", lambda: g.xstats("dpdkr1")["rx_good_packets"] >= n_back, WAIT, 0.05,
                 lambda: "; ".join(str({name: n for name, n in app.xstats(port).items() if n})
                                   for app, port in ((g, "dpdkr1"), (self.reflector, "dpdkr2"))))
        self.counted, self.counted_back = self.reflector.xstats("dpdkr2"), g.xstats("dpdkr1")
        g.quit()
        return read_pcap(back)

    def done(self):
        for app in self.generator, self.reflector:
            if app:
                app.stop()
        self.generator = self.reflector = None


def checksums(story, bench, way):
    with story.step(f"checksums that the application leaves to the driver are right ({way})"):
        bench.way = way
        bench.reflect("csum", ["csum set ip hw 0", "csum set udp hw 0", "csum set tcp hw 0"])
        frames = [ether(0x800, ipv4(17, udp(pattern(n, n)))) for n in (18, 19, 1400, 4000)]
        frames += [ether(0x800, ipv4(6, tcp(pattern(n, n)))) for n in (0, 1, 1401, 8000)]
        frames += [ether(0x86dd, ipv6(17, udp(pattern(n, n)))) for n in (18, 1400)]
        frames += [ether(0x86dd, ipv6(6, tcp(pattern(n, n)))) for n in (33, 5001)]
        back = bench.send(frames)
        story.check(len(back) == len(frames), f"{len(back)} of {len(frames)} have come back")
        # On the normal way, flows that the switch has not seen yet may overtake each other.
        for a, b in zip(*(sorted(map(Packet, which), key=Packet.key) for which in (frames, back))):
            story.check(a.key() == b.key(), f"payload of {len(a.payload)} bytes differs")
            story.check(b.ip_good and b.l4_good, f"{b.kind:#x}, {b.proto}, {len(b.payload)} bytes: {b.ip_good}, "
                        f"{b.l4_good}")
        story.check(bench.counted["tx_software_checksums"] == len(frames), str(bench.counted))


def carried(story, bench):
    with story.step("a receiver that checks none gets packets without a checksum over the channel, and only there"):
        takes = ["port config 0 rx_offload udp_cksum on", "port config 0 rx_offload tcp_cksum on"]
        frames = [ether(0x800, ipv4(17, udp(pattern(n, n)))) for n in (18, 1400)] * 8
        for way in "direct", "normal":
            bench.way = way
            bench.reflect("csum", ["csum set ip hw 0", "csum set udp hw 0"])
            back = bench.send(frames, setup=takes)
            n = bench.counted["tx_carried_checksums"]
            story.check(n == (len(frames) if way == "direct" else 0), f"{way}: {n} were carried")
            story.check(n + bench.counted["tx_software_checksums"] == len(frames), str(bench.counted))
            story.check([Packet(f).payload for f in frames] == [Packet(f).payload for f in back], f"{way}: payload")
            story.check(all(Packet(f).ip_good for f in back), f"{way}: IP checksums")
            story.check(all(Packet(f).l4_good == (way == "normal") for f in back), f"{way}: UDP checksums")
            bench.done()


def segmentation(story, bench, way):
    with story.step(f"TCP segmentation ({way})"):
        bench.way = way
        bench.reflect("csum", ["csum set ip hw 0", "csum set tcp hw 0", "tso set 1000 0"])
        whole = [pattern(8500, 3), pattern(2000, 5), pattern(900, 7)]
        frames = [ether(0x800, ipv4(6, tcp(whole[0], 0x19), 0xfffe)), ether(0x86dd, ipv6(6, tcp(whole[1]))),
                  ether(0x800, ipv4(6, tcp(whole[2])))]
        back = [Packet(f) for f in bench.send(frames, 9 + 2 + 1)]
        back.sort(key=lambda p: p.kind)  # As they were, within each kind.
        sizes = [len(p.payload) for p in back]
        story.check(sizes == [1000] * 8 + [500, 900] + [1000] * 2, f"payloads: {sizes}")
        story.check(all(p.ip_good and p.l4_good for p in back), "checksums")
        story.check(b"".join(p.payload for p in back) == whole[0] + whole[2] + whole[1], "payload differs")
        story.check([p.seq for p in back[:9]] == [5000 + 1000 * i for i in range(9)], "sequence numbers")
        story.check([p.ident for p in back[:9]] == [(0xfffe + i) & 0xffff for i in range(9)], "identifications")
        story.check([p.flags for p in back[:9]] == [0x10] * 8 + [0x19], f"flags: {[p.flags for p in back[:9]]}")
        story.check(bench.counted["tx_software_segments"] == 11, str(bench.counted))


def whole(story, bench):
    with story.step("a receiver that takes them whole gets TCP packets unsegmented over the channel, and only there"):
        takes = [f"port config 0 rx_offload {what} on" for what in ("udp_cksum", "tcp_cksum", "tcp_lro")]
        payload = [pattern(8500, 3), pattern(2000, 5), pattern(900, 7)]
        frames = [ether(0x800, ipv4(6, tcp(payload[0], 0x19))), ether(0x86dd, ipv6(6, tcp(payload[1]))),
                  ether(0x800, ipv4(6, tcp(payload[2])))]
        for way in "direct", "normal":
            bench.way = way
            bench.reflect("csum", ["csum set ip hw 0", "csum set tcp hw 0", "tso set 1000 0"])
            counted = bench.lab.ovs.ports("br-lab")["2"]["rx_packets"]
            back = bench.send(frames, 3 if way == "direct" else 12, takes, ["--max-lro-pkt-size=65557"])
            story.check(len(back) == (3 if way == "direct" else 12), f"{way}: {len(back)} have come back")
            story.check(all(Packet(f).ip_good for f in back), f"{way}: IP checksums")
            x, y = bench.counted, bench.counted_back
            if way == "direct":
                story.check([Packet(f).payload for f in back] == payload, "payload differs")
                story.check(x["tx_carried_segmentations"] == y["rx_carried_segmentations"] == 2, f"{x}, {y}")
            else:
                story.check(all(Packet(f).l4_good for f in back), f"{way}: TCP checksums")
                story.check(x["tx_software_segments"] == 11 and not x["tx_carried_segmentations"], str(x))
            # They count as what they stand for, on both sides.
            story.check(x["tx_good_packets"] == 12 == y[f"rx_{way}_packets"], f"{way}: {x}, {y}")
            story.check(x["tx_good_bytes"] == y[f"rx_{way}_bytes"] == sum(map(len, frames)) + 8 * 54 + 74,
                        f"{way}: {x}, {y}")
            wait_for("the switch to have counted 12", lambda n=counted + 12:
                     bench.lab.ovs.ports("br-lab")["2"]["rx_packets"] == n, WAIT, 0.1)
            bench.done()


def vlan(story, bench):
    with story.step("VLAN tags are taken off and put on"):
        bench.way = "direct"
        bench.reflect("mac", ["vlan set strip on 0", "tx_vlan set 0 100"])
        payload = [ipv4(17, udp(pattern(n))) for n in (18, 1000, 5000)]
        frames = [ether(0x800, p, tag) for p in payload for tag in (None, 5)]
        back = bench.send(frames)
        story.check([Packet(f).tag for f in back] == [100] * 6, f"tags: {[Packet(f).tag for f in back]}")
        story.check([Packet(f).payload for f in back] == [Packet(f).payload for f in frames], "payload differs")


def jumbo(story, bench, way):
    with story.step(f"frames that take several mbufs come back as they were ({way})"):
        bench.way = way
        bench.reflect("io", arguments=["--mbuf-size=1152"])
        frames = [ether(0x88b5, pattern(n - 14, n)) for n in (60, 1023, 1024, 1025, 2047, 2048, 2049, 5000, 9013, 9014)]
        back = bench.send(frames)
        story.check(back == frames, f"lengths: {[len(f) for f in back]}")


def ping(story, bench):
    with story.step("icmpecho answers pings"):
        bench.way = "direct"
        bench.reflect("icmpecho")
        def echo(kind, n):
            head = struct.pack("!BBHHH", kind, 0, 0, 1, n)
            return head[:2] + struct.pack("!H", csum(head + pattern(n))) + head[4:] + pattern(n)
        frames = [ether(0x800, ipv4(1, echo(8, n))) for n in (56, 1000)] + [ether(0x800, ipv4(17, udp(b"?" * 30)))]
        back = bench.send(frames, 2)
        story.check(len(back) == 2, f"{len(back)} answers")
        for sent, came in zip(frames, back):
            story.check(came[34] == 0 and came[38:] == sent[38:], "not an answer")


def main(story):
    with Lab("dpdk-offloads") as lab:
        bench = Bench(story, lab)
        tests = [(checksums, "direct"), (checksums, "normal"), (carried,), (segmentation, "direct"),
                 (segmentation, "normal"), (whole,), (vlan,), (jumbo, "direct"), (jumbo, "normal"), (ping,)]
        for test, *ways in tests:
            test(story, bench, *ways)
            lab.failed = story.failed > 0
            bench.done()


tap.tell("the DPDK driver's offloads", main)
