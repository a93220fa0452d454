# SPDX-License-Identifier: Apache-2.0
"""DPDK applications, unmodified, on p2plink ports: testpmd at its prompt, and examples that just run.

They need no huge pages and no devices, and share the CPUs with everybody else; what they forward with is a thread that
never sleeps.  Any of them can be the forwarder of a chain."""

import json
import os
import re
import shutil
import socket
import subprocess

from . import build, signals
from .chain import Chain
from .proc import Child
from .waiting import LabError, wait_for

PROMPT = "testpmd> "


def driver():
    path = os.path.join(build.BUILD, "lib", "dpdk", "librte_net_p2plink.so")
    if not os.path.exists(path):
        raise LabError(f"{path} is missing: 'make dpdk-driver' first")
    return path


def example(name):
    """DPDK's example program of that name."""
    path = os.path.join(build.ROOT, "build", "dpdk", "examples", name)
    if not os.path.exists(path):
        raise LabError(f"{path} is missing: 'make dpdk-examples' first")
    return path


def example_file(program, name):
    """A file that belongs to an example."""
    return os.path.join(build.ROOT, "build", "dpdk", "src", "examples", program, name)


def testpmd():
    path = shutil.which("dpdk-testpmd")
    if not path:
        raise LabError("dpdk-testpmd is missing: 'make deps' installs dpdk-dev")
    return path


class App:
    """A DPDK application with a device for each of 'ports', in this order, and then 'vdevs' (arguments of --vdev).  It
    is ready when it says 'ready' (a regular expression)."""

    def __init__(self, lab, name, program, ports, arguments=(), vdevs=(), lcores=1, ready="entering main .*loop"):
        self.lab = lab
        self.name = name
        self.ports = list(ports)
        self.ready = ready
        self.log = os.path.join(lab.dir, name + ".out")
        cpus = ",".join(str(cpu) for cpu in sorted(os.sched_getaffinity(0)))
        devices = [f"net_p2plink{i},socket={lab.ovs.socket},port={port}" for i, port in enumerate(self.ports)]
        command = ["stdbuf", "-oL", program, "--no-huge", "-m", "512", "--no-shconf", "--file-prefix", name, "--no-pci",
                   f"--lcores=({','.join(str(i) for i in range(lcores))})@({cpus})", "-d", driver(),
                   *[f"--vdev={device}" for device in [*devices, *vdevs]], "--", *arguments]
        with signals.shielded():
            self.child = Child(name, command, log=self.log, stdin=subprocess.PIPE,
                               env={**os.environ, "RUNTIME_DIRECTORY": lab.dir})
            lab.stack.callback(self.stop)

    def output(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_output(self, what, seconds=60):
        """Until 'what' (a regular expression) is in its output; returns the match."""
        def look():
            found = re.search(what, self.output())
            if not found:
                self.child.check()
            return found
        return wait_for(f"{self.name} to say '{what}'", look, seconds, 0.02)

    def wait_ready(self, seconds=60):
        self.wait_output(self.ready, seconds)

    def stop(self):
        if self.child.alive():
            self.child.stop()

    def kill(self):
        self.child.kill()

    def telemetry(self, command):
        """What DPDK's telemetry socket answers."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.settimeout(20)
            s.connect(os.path.join(self.lab.dir, "dpdk", self.name, "dpdk_telemetry.v2"))
            hello = json.loads(s.recv(1 << 16))
            s.send(command.encode())
            return json.loads(s.recv(hello["max_output_len"]))[command.split(",")[0]]

    def xstats(self, port):
        """The extended statistics of one of 'ports'."""
        return self.telemetry(f"/ethdev/xstats,{self.ports.index(port)}")

    def link_up(self, port):
        return self.telemetry(f"/ethdev/link_status,{self.ports.index(port)}")["status"] == "UP"

    def report(self):
        """As p2p-forward's, as far as accounts.py needs it."""
        directions = []
        all_xstats = [self.xstats(port) for port in self.ports]
        for i, (port, x) in enumerate(zip(self.ports, all_xstats)):
            partner = all_xstats[i ^ 1 if len(self.ports) > 1 else i]
            stats = {f"{way}_{unit}": x[f"{way}_normal_{unit}"] + x[f"{way}_direct_{unit}"]
                     for way in ("rx", "tx") for unit in ("packets", "bytes")}
            stats |= {"rx_bad": x["rx_bad_descriptors"], "tx_epochs": x["tx_switchovers"]}
            stats |= {f"{way}_direct_packets": x[f"{way}_direct_packets"] for way in ("rx", "tx")}
            directions.append({"from": port, "port": {"name": port}, "port_stats": stats, "pending": 0,
                               "dropped": x["rx_good_packets"] - partner["tx_good_packets"],
                               "too_long": x["rx_errors"]})
        return {"program": self.name, "directions": directions}


class Testpmd(App):
    """testpmd with its prompt."""

    def __init__(self, lab, name, ports, arguments=(), **more):
        super().__init__(lab, name, testpmd(), ports, ["-i", "--total-num-mbufs=4096", *arguments], lcores=2, **more)
        self.seen = 0

    def wait_ready(self, seconds=60):
        self._wait_prompt(seconds)

    def _wait_prompt(self, seconds=60):
        """Until there is one more prompt than before; returns what came before it."""
        def look():
            text = self.output()
            at = text.find(PROMPT, self.seen)
            if at < 0:
                self.child.check()
                return None
            said, self.seen = text[self.seen:at], at + len(PROMPT)
            return (said,)
        return wait_for(f"{self.name}'s prompt", look, seconds, 0.01)[0]

    def __call__(self, command):
        """What it says to 'command'."""
        self.child.popen.stdin.write(command.encode() + b"\n")
        self.child.popen.stdin.flush()
        return self._wait_prompt()

    def mode(self, name):
        """Forwards in another mode from now on."""
        self("stop")
        said = self("set fwd " + name)
        if "Set " not in said:
            raise LabError(f"{self.name} does not know the forwarding mode {name}: {said}")
        self("start")

    def quit(self):
        self.child.popen.stdin.write(b"stop\nquit\n")
        self.child.popen.stdin.flush()
        wait_for(f"{self.name} to quit", lambda: not self.child.alive(), 20)
        if self.child.popen.returncode:
            raise LabError(f"{self.name} has {self.child.status()}: {self.child.last_words()}")


class DpdkChain(Chain):
    """A chain whose forwarders are made by 'make(lab, name, ports)'."""

    def __init__(self, lab, make, **more):
        self.make = make
        super().__init__(lab, **more)

    def _vnf(self, name, program, ports, arguments):
        if program != "p2p-forward":
            return super()._vnf(name, program, ports, arguments)
        vnf = self.make(self.lab, name, ports)
        self.vnfs.append(vnf)
        for port in ports:
            self.owner[port] = name
        return vnf
