# SPDX-License-Identifier: Apache-2.0
"""DPDK applications, unmodified, on p2plink ports: testpmd at its prompt, and examples that just run.

They need no huge pages and no devices, and share the CPUs with everybody else; what they forward with is a thread that
never sleeps.  Any of them can be the forwarder of a chain."""

import json
import os
import re
import shlex
import shutil
import socket
import stat
import subprocess
import tempfile

from . import build, signals
from .chain import Chain
from .guest import GuestCarrier
from .proc import Child, run
from .waiting import LabError, wait_for

PROMPT = "testpmd> "
GUEST_DRIVER = "/usr/lib/dpdk/librte_net_p2plink.so"
MEMPOOL = "/usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_mempool_ring.so.23"


def driver():
    path = os.path.join(build.BUILD, "lib", "dpdk", "librte_net_p2plink.so")
    if not os.path.exists(path):
        raise LabError(f"{path} is missing: 'make dpdk-driver' first")
    return path


def _loadable_driver(lab):
    """The driver, or a copy of it where DPDK loads it from: not below a folder that everybody may write to, as /tmp."""
    path = folder = driver()
    while folder != "/":
        folder = os.path.dirname(folder)
        if os.stat(folder).st_mode & stat.S_IWOTH:
            private = tempfile.mkdtemp(prefix="p2p.", dir="/run")
            lab.stack.callback(shutil.rmtree, private, ignore_errors=True)
            return shutil.copy(path, private)
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


class Forwarder:
    """What a chain asks of its forwarders.  'ports' are those of the application, and xstats(port) its statistics."""

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


class App(Forwarder):
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
                   f"--lcores=({','.join(str(i) for i in range(lcores))})@({cpus})", "-d", _loadable_driver(lab),
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


class Prompt:
    """testpmd's prompt."""

    seen = 0

    def wait_ready(self, seconds=60):
        self._wait_prompt(seconds)

    def _wait_prompt(self, seconds=60):
        """Until there is one more prompt than before; returns what came before it."""
        def look():
            text = self.output()
            at = text.find(PROMPT, self.seen)
            if at < 0:
                self.check()
                return None
            said, self.seen = text[self.seen:at], at + len(PROMPT)
            return (said,)
        return wait_for(f"{self.name}'s prompt", look, seconds, 0.01)[0]

    def __call__(self, command):
        """What it says to 'command'."""
        self.send(command)
        return self._wait_prompt()

    def mode(self, name):
        """Forwards in another mode from now on."""
        self("stop")
        said = self("set fwd " + name)
        if "Set " not in said:
            raise LabError(f"{self.name} does not know the forwarding mode {name}: {said}")
        self("start")


class Testpmd(Prompt, App):
    """testpmd as a process."""

    def __init__(self, lab, name, ports, arguments=(), **more):
        super().__init__(lab, name, testpmd(), ports, ["-i", "--total-num-mbufs=4096", *arguments], lcores=2, **more)

    def check(self):
        self.child.check()

    def send(self, line):
        self.child.popen.stdin.write(line.encode() + b"\n")
        self.child.popen.stdin.flush()

    def quit(self):
        self.send("stop\nquit")
        wait_for(f"{self.name} to quit", lambda: not self.child.alive(), 20)
        if self.child.popen.returncode:
            raise LabError(f"{self.name} has {self.child.status()}: {self.child.last_words()}")


class GuestTestpmd(Prompt, Forwarder):
    """testpmd in a guest, which finds its ports by itself."""

    def __init__(self, lab, name, ports, arguments=()):
        self.lab = lab
        self.name = name
        self.ports = list(ports)
        self.said = b""
        # Those of links look the same, but come later.
        devices = "grep -l 0x1110 /sys/bus/pci/devices/*/device"
        command = [testpmd(), "--no-huge", "-m", "128", "--no-telemetry", "--lcores=(0,1)@0", "-d", MEMPOOL,
                   "-d", GUEST_DRIVER, "--", "-i", "--total-num-mbufs=4096", *arguments]
        self.carrier = GuestCarrier(
            name, lab.dir, ["--memory", "448"], image=guest_image(lab),
            shell=f"until [ $({devices} | wc -l) = {len(ports)} ]; do sleep 0.1; done 2>/dev/null; sleep 0.2; exec "
                  + " ".join(shlex.quote(word) for word in command))
        lab.stack.callback(self.carrier.stop)
        for port in ports:
            lab.ovs.vsctl("set", "Interface", port, "external_ids:p2plink-qmp=" + self.carrier.qmp)
        self.carrier.start("", [])

    def wait_ready(self, seconds=120):
        super().wait_ready(seconds)
        # In which order it has found them, only their addresses tell.
        macs = {row["mac_in_use"]: row["name"] for row in self.lab.ovs.table("Interface", "name", "mac_in_use")}
        found = [macs[mac.lower()] for mac in re.findall(r"^Port \d+: ([0-9A-F:]{17})$", self.output(), re.M)]
        if sorted(found) != sorted(self.ports):
            raise LabError(f"{self.name} has ports {found}, not {self.ports}")
        self.index = {port: i for i, port in enumerate(found)}

    def output(self):
        self.said += self.carrier.receive(0.01)
        return self.said.decode(errors="replace").replace("\r", "")

    def check(self):
        self.carrier.check()

    def send(self, line):
        self.carrier.send(line.encode() + b"\n")

    def stop(self):
        self.carrier.stop()

    def xstats(self, port):
        said = self(f"show port xstats {self.index[port]}")
        return {name: int(value) for name, value in re.findall(r"^(\w+): (\d+)$", said, re.M)}


def guest_image(lab):
    """The guests' image with testpmd, the driver, and all that they are linked with."""
    to = os.path.join(lab.dir, "image")
    if os.path.exists(to):
        return to
    root = os.path.join(lab.dir, "root")
    files = {testpmd(): testpmd(), MEMPOOL: MEMPOOL, driver(): GUEST_DRIVER}    # And where they go.
    for program in list(files):
        libraries = re.findall(r"(/\S+) \(0x", run(["ldd", program]).stdout)
        files.update({path: path for path in libraries})
    for path, there in files.items():
        os.makedirs(os.path.dirname(root + there), exist_ok=True)
        shutil.copy(path, root + there)
    os.makedirs(to)
    for name in "vmlinuz", ".accel":
        if os.path.exists(os.path.join(build.image(), name)):
            shutil.copy2(os.path.join(build.image(), name), to)
    extra = os.path.join(lab.dir, "image", "extra.gz")
    run(["sh", "-c", 'cd "$1" && find . | busybox cpio -o -H newc -R 0:0 | gzip -1 >"$2"', "sh", root, extra])
    # The kernel unpacks one archive after the other.
    with open(os.path.join(to, "initrd.gz"), "wb") as out:
        for path in os.path.join(build.image(), "initrd.gz"), extra:
            with open(path, "rb") as f:
                shutil.copyfileobj(f, out)
    os.unlink(extra)
    return to


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
