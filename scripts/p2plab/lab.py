# SPDX-License-Identifier: Apache-2.0
"""The lab: a folder, huge pages, an Open vSwitch, p2plinkd if there are guests, VNFs; all of it gone at the end.

    with Lab("what for") as lab:
        lab.ovs.add_bridge("br-lab")
        lab.ovs.add_port("br-lab", "dpdkr1", 1)
        source = lab.vnf("source", "p2p-source", ["dpdkr1"])

Signals (see signals.py) are exceptions in here, and the end of the 'with' cleans up, undisturbed by further ones."""

import contextlib
import os
import re
import shutil
import tempfile

from . import build, hugepages, signals
from .agent import Agent
from .guest import GuestCarrier
from .ovs import Ovs
from .process import ProcessCarrier
from .vnf import Vnf
from .waiting import LabError

# Unix sockets' names have at most 107 bytes, and the longest one in here takes some 30.
LONGEST_FOLDER = 70
# A port region or a link region is one or two of them.
HUGE_PAGES = 48

# How reports of AddressSanitizer and its kin, and of UBSan, begin.
FINDING = re.compile(r"ERROR: \w+Sanitizer: .*|WARNING: ThreadSanitizer: .*|\S+: runtime error: .*")


class Lab:
    """'vnf' is "process" or "guest": what VNFs are unless told otherwise.  'flavour' is the build of Open vSwitch,
    'other_config' goes to its Open_vSwitch row.  'huge_pages' is how many more are asked of the kernel; without any,
    the switch takes tmpfs.  'preload' is a library put in front of vswitchd's; 'agent' are options for p2plinkd."""

    def __init__(self, name, vnf="process", flavour="ovs", other_config=None, huge_pages=HUGE_PAGES, preload=None,
                 agent=()):
        self.name = name
        self.kind = vnf
        self.flavour = flavour
        self.other_config = other_config
        self.preload = preload
        self.want_huge_pages = huge_pages
        self.huge_pages = 0
        self.dir = None
        self.ovs = None
        self.agent = None
        self.agent_options = agent
        self.failed = False          # Somebody outside says so: keep the logs.
        self.stack = contextlib.ExitStack()

    def __enter__(self):
        if os.geteuid():
            raise LabError("the lab needs root: for a network namespace of its own, huge pages, and guests")
        try:
            self._start()
        except BaseException:
            with signals.shielded():
                self._end(True)
            raise
        return self

    def __exit__(self, kind, _value, _traceback):
        with signals.shielded():
            self._end(self.failed or (kind is not None and not issubclass(kind, signals.Interrupted)))

    def _start(self):
        with signals.shielded():
            self.dir = tempfile.mkdtemp(prefix="p2p.")
            self.stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
            self.stack.callback(self.look_for_findings)
        if len(self.dir) > LONGEST_FOLDER:
            raise LabError(f"{self.dir} is too long for unix sockets in it: set TMPDIR to a shorter path")
        with signals.shielded():
            self.huge_pages = hugepages.change(self.want_huge_pages)
            self.stack.callback(lambda: hugepages.change(-self.huge_pages))
        self.ovs = Ovs(self.dir, self.flavour, self.other_config, self.preload)
        self.stack.callback(self.ovs.stop)
        self.ovs.start()
        if self.kind == "guest":
            self.agent = Agent(self.dir, self.ovs, self.agent_options)
            self.stack.callback(self.agent.stop)
            self.agent.start()

    def _end(self, keep):
        try:
            if keep and self.dir:
                self.keep_logs()
        finally:
            self.stack.close()

    def keep_logs(self):
        """Copies what was logged to build/lab/NAME."""
        to = os.path.join(build.BUILD, "lab", self.name)
        shutil.rmtree(to, ignore_errors=True)
        os.makedirs(to)
        for name in sorted(os.listdir(self.dir)):
            path = os.path.join(self.dir, name)
            if os.path.isfile(path) and not os.path.islink(path):
                shutil.copy(path, to)
        print(f"# the lab's logs are in {os.path.relpath(to)}", flush=True)

    def look_for_findings(self):
        """When all programs have ended: what sanitizers have said, if there are any in them."""
        for name in sorted(os.listdir(self.dir)):
            path = os.path.join(self.dir, name)
            if not os.path.isfile(path) or not name.endswith((".err", ".log", ".out")):
                continue
            with open(path, encoding="utf-8", errors="replace") as f:
                found = FINDING.search(f.read())
            if found:
                self.keep_logs()
                raise LabError(f"{name}: {found.group(0)}")

    def vnf(self, name, program, ports, arguments=(), kind=None, wait=20, guest=(), owned=True, shell="exec {}",
            env=None):
        """Starts a VNF on 'ports'; it has yet to attach to them, see Vnf.wait_ready().  A process gives up after 'wait'
        seconds, and 'env' is added to its environment.  'guest' are options for a guest, 'shell' is what it runs (see
        guest.py); unless it is 'owned', OVSDB does not say that the ports are its."""
        if (kind or self.kind) == "guest":
            carrier = GuestCarrier(name, self.dir, guest, shell=shell)
            for port in ports if owned else ():
                self.ovs.vsctl("set", "Interface", port, "external_ids:p2plink-qmp=" + carrier.qmp)
        else:
            carrier = ProcessCarrier(name, self.dir, self.ovs.socket, wait, env)
        vnf = Vnf(name, program, list(ports), list(arguments), carrier)
        self.stack.callback(vnf.stop)
        vnf.start()
        return vnf
