# SPDX-License-Identifier: Apache-2.0
"""Looks at all counters of a bridge again and again, and notes each that goes backwards."""


class Watch:
    """look() as often as you like; 'backwards' says what was wrong, 'looks' how often it was looked."""

    def __init__(self, ovs, bridge):
        self.ovs = ovs
        self.bridge = bridge
        self.last = {}
        self.looks = 0
        self.backwards = []

    def look(self, database=True):
        """'database': OVSDB's statistics too, which takes longer."""
        self.looks += 1
        for port, counters in self.ovs.ports(self.bridge).items():
            self._note("dump-ports", port, counters)
        for rule in self.ovs.flows(self.bridge):
            key = ("rule", rule.key)
            if rule.duration < self.last.get(key, {}).get("duration", 0):
                self.last.pop(key)  # Another rule with the same match.
            self._note(*key, {"duration": rule.duration, "packets": rule.packets, "bytes": rule.bytes})
        if database:
            self.ovs.refresh_statistics()
            for name, row in self.ovs.interfaces().items():
                if row["type"] == "dpdkr":
                    self._note("OVSDB", name, {k: v for k, v in row["statistics"].items() if not _goes_up_and_down(k)})

    def _note(self, where, what, counters):
        last = self.last.setdefault((where, what), {})
        for name, value in counters.items():
            if value < last.get(name, 0):
                self.backwards.append(f"{where} {what}: {name} was {last[name]}, and then {value}")
            last[name] = value


def _goes_up_and_down(name):
    """Not a counter."""
    return name.endswith(("_used", "_ms"))
