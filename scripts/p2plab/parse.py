# SPDX-License-Identifier: Apache-2.0
"""What ovs-ofctl prints, as Python values."""

import re
from dataclasses import dataclass

from .waiting import LabError


@dataclass
class Flow:
    """A rule as dump-flows shows it."""
    table: int
    priority: int
    match: str          # Such as "udp,in_port=1,tp_dst=7", or "".
    actions: str
    packets: int
    bytes: int
    duration: float
    idle_age: int
    idle_timeout: int

    @property
    def key(self):
        return (self.table, self.priority, self.match)

    @property
    def in_port(self):
        """Its number, or None."""
        found = re.search(r"(?:^|,)in_port=(\d+)", self.match)
        return int(found.group(1)) if found else None


# Fields that say something of a rule; all others are its match.
_FLOW_FIELDS = {"cookie", "duration", "table", "n_packets", "n_bytes", "idle_timeout", "hard_timeout", "idle_age",
                "hard_age", "importance", "send_flow_rem", "check_overlap", "reset_counts", "no_packet_counts",
                "no_byte_counts"}


def _flow(line):
    head, _, actions = line.strip().partition(" actions=")
    said, match, priority = {}, [], 0x8000
    for field in re.split(r"[, ]+", head):
        name, _, value = field.partition("=")
        if name in _FLOW_FIELDS:
            said[name] = value
        elif name == "priority":
            priority = int(value)
        elif field:
            match.append(field)
    return Flow(table=int(said.get("table", 0)), priority=priority, match=",".join(sorted(match)), actions=actions,
                packets=int(said["n_packets"]), bytes=int(said["n_bytes"]),
                duration=float(said["duration"].rstrip("s")), idle_age=int(said.get("idle_age", 0)),
                idle_timeout=int(said.get("idle_timeout", 0)))


def flows(text):
    """Of 'ovs-ofctl dump-flows'."""
    return [_flow(line) for line in text.splitlines() if " actions=" in line]


def _counts(text):
    """"pkts=1, bytes=?" as {"pkts": 1}; what the switch does not know is left out."""
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", text)}


def ports(text):
    """Of 'ovs-ofctl dump-ports': {"1" or "LOCAL": {"rx_packets": ..., "tx_drop": ..., ...}}."""
    result, port = {}, None
    for line in text.splitlines():
        found = re.match(r'\s*port\s+"?([^":]+)"?: rx (.*)', line)
        if found:
            port = result[found.group(1)] = {}
            port.update({"rx_" + k.replace("pkts", "packets"): v for k, v in _counts(found.group(2)).items()})
            continue
        found = re.match(r"\s*tx (.*)", line)
        if found and port is not None:
            port.update({"tx_" + k.replace("pkts", "packets"): v for k, v in _counts(found.group(1)).items()})
            port = None
    if not result:
        raise LabError(f"dump-ports said nothing that could be understood: {text!r}")
    return result


def megaflows(text):
    """Of 'ovs-appctl upcall/show': how many there are in the datapath."""
    found = re.search(r"\(current (\d+)\)", text)
    if not found:
        raise LabError(f"upcall/show said nothing that could be understood: {text!r}")
    return int(found.group(1))
