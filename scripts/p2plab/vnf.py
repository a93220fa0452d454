# SPDX-License-Identifier: Apache-2.0
"""A VNF and its line protocol (--control): commands one a line, answers as lines of JSON, the same for a process, over
pipes, and in a guest, over its second serial port.  What differs is in a 'carrier' (process.py, guest.py):

    start(program, arguments), send(bytes), receive(seconds) -> bytes, check(), stop(), kill()
"""

import json
import time

from .waiting import LabError, wait_for

ANSWER_SECONDS = 20


class Vnf:
    """One of the sample VNFs.  'ports' are the names of its ports, 'arguments' go to the program."""

    def __init__(self, name, program, ports, arguments, carrier):
        self.name = name
        self.program = program
        self.ports = ports
        self.arguments = arguments
        self.carrier = carrier
        self.data = b""
        self.events = []
        self.answers = []

    def start(self):
        self.data, self.events, self.answers = b"", [], []
        which = ["--ports", ",".join(self.ports)] if len(self.ports) > 1 else ["--port", self.ports[0]]
        self.carrier.start(self.program, [*which, "--control", *self.arguments])

    def wait_ready(self, seconds=60):
        """Until it has attached to its ports."""
        return self._wait_event("ready", "to attach to its ports", seconds)

    def stop(self):
        self.carrier.stop()

    def kill(self):
        self.carrier.kill()

    #
    # Lines.
    #

    def _pump(self, seconds):
        """Takes in what there is, waiting for at most 'seconds' if there is nothing."""
        self.data += self.carrier.receive(seconds)
        *lines, self.data = self.data.split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").strip()
            if not text:
                continue
            try:
                said = json.loads(text)
            except ValueError:
                continue  # A torn line, or something that is not the program's.
            (self.events if "event" in said else self.answers).append(said)

    def _wait(self, what, look, seconds):
        def condition():
            self._pump(0.02)
            found = look()
            if not found:
                self.carrier.check()
            return found
        return wait_for(f"{self.name} {what}", condition, seconds, interval=0)

    def _wait_event(self, name, what, seconds):
        """Waits for an event that has not been taken yet, and takes it."""
        def look():
            for i, event in enumerate(self.events):
                if event["event"] == name:
                    return self.events.pop(i)
            return None
        return self._wait(what, look, seconds)

    def command(self, line, seconds=ANSWER_SECONDS):
        """Its answer; raises LabError if it refuses."""
        name = line.split()[0]

        def look():
            while self.answers:
                answer = self.answers.pop(0)
                if answer.get("cmd") == name:
                    return answer
            return None
        self.carrier.send(line.encode() + b"\n")
        answer = self._wait(f"to answer '{line}'", look, seconds)
        if not answer["ok"]:
            raise LabError(f"{self.name} refuses '{line}': {answer['error']}")
        return answer

    #
    # Commands.
    #

    def report(self):
        return self.command("report")["report"]

    def send_begin(self, count=None):
        self.events = [e for e in self.events if e["event"] != "sent"]
        self.command(f"start {count}" if count else "start")

    def send_end(self):
        """Returns what has been sent."""
        return self.command("stop")

    def wait_sent(self, seconds=60):
        """Until a counted 'send_begin' has sent all."""
        return self._wait_event("sent", "to have sent all packets", seconds)

    def rate(self, pps):
        self.command(f"rate {int(pps)}")

    def mark_percent(self, percent):
        self.command(f"mark-percent {percent}")

    def wait_report(self, what, condition, seconds=10):
        """Waits until 'condition(report)' is true, and returns the report."""
        def look():
            report = self.report()
            return report if condition(report) else None
        begin = time.monotonic()
        while True:
            report = look()
            if report:
                return report
            if time.monotonic() - begin > seconds:
                raise LabError(f"waited {seconds:g} s in vain for {self.name}: {what}")
            time.sleep(0.02)


def port_stats(report, port):
    """The statistics of 'port' in the report of an endpoint or a forwarder."""
    for part in [report, *report.get("directions", [])]:
        if part.get("port", {}).get("name") == port:
            return part["port_stats"]
    raise LabError(f"the report of {report.get('program')} does not tell of port {port}")
