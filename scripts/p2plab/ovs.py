# SPDX-License-Identifier: Apache-2.0
"""A private Open vSwitch: its own database, sockets and logs in one folder, its own network namespace (the userspace
datapath makes a tap device for each bridge, which nobody else should see), ended with the lab."""

import contextlib
import json
import os
import time

from . import build, parse, signals
from .openflow import Controller
from .proc import Child, run
from .unixctl import Unixctl
from .waiting import LabError, wait_for

START_SECONDS = 20


def pmd_mask():
    """The last CPU, which leaves the others to VNFs, if there are others."""
    return hex(1 << (sorted(os.sched_getaffinity(0))[-1]))


def _value(v):
    """An OVSDB value as a Python one: maps as dict, sets as list, but a single atom as such."""
    if isinstance(v, list) and len(v) == 2:
        if v[0] == "map":
            return dict(v[1])
        if v[0] == "set":
            return v[1]
        if v[0] in ("uuid", "named-uuid"):
            return v[1]
    return v


class Ovs:
    """Built in build/FLAVOUR.  'other_config' goes to the Open_vSwitch row before vswitchd starts."""

    def __init__(self, folder, flavour="ovs", other_config=None, preload=None):
        self.dir = folder
        self.tree = build.ovs(flavour)
        self.socket = os.path.join(folder, "p2plink.sock")   # Where VNFs attach.
        self.db = "unix:" + os.path.join(folder, "db.sock")
        self.log = os.path.join(folder, "vswitchd.log")
        # Polling for ever would take the CPU from the VNFs, of which there are more than CPUs.
        self.other_config = {"pmd-cpu-mask": pmd_mask(), "pmd-maxsleep": "100", **(other_config or {})}
        # OVS's programs do not care to free everything when they end.
        self.env = {**os.environ, "OVS_RUNDIR": folder, "OVS_DBDIR": folder, "OVS_SYSCONFDIR": folder,
                    "OVS_LOGDIR": folder, "ASAN_OPTIONS": build.SANITIZERS["ASAN_OPTIONS"] + ":detect_leaks=0"}
        self.preload = preload
        self.server = self.vswitchd = None
        self.appctl = Unixctl(os.path.join(folder, "vswitchd.ctl"))
        self.stats_interval = 5000

    def program(self, name):
        """One of its programs, such as "utilities/ovs-ofctl"."""
        return os.path.join(self.tree, name)

    #
    # Life.
    #

    def start(self):
        self.start_server()
        self.vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".",
                   *[f"other_config:{k}={v}" for k, v in self.other_config.items()])
        self.start_vswitchd()

    def start_server(self):
        conf = os.path.join(self.dir, "conf.db")
        if not os.path.exists(conf):
            run([self.program("ovsdb/ovsdb-tool"), "create", conf,
                 self.program("vswitchd/vswitch.ovsschema")], env=self.env)
        log = os.path.join(self.dir, "ovsdb-server.log")
        with signals.shielded():
            self.server = Child("ovsdb-server", [
                self.program("ovsdb/ovsdb-server"), conf, "--remote=p" + self.db, "--no-chdir", "-vconsole:warn",
                "--unixctl=" + os.path.join(self.dir, "ovsdb.ctl")], env=self.env, log=log)

        def listening():
            self.server.check()
            return os.path.exists(os.path.join(self.dir, "db.sock"))
        wait_for("ovsdb-server's socket", listening, START_SECONDS)

    def start_vswitchd(self, *options):
        """Returns when it has done all that the database says."""
        with signals.shielded():
            self.vswitchd = Child("ovs-vswitchd", [
                self.program("vswitchd/ovs-vswitchd"), self.db, "--no-chdir", "--disable-system", "-vconsole:warn",
                "--log-file=" + self.log, "--unixctl=" + self.appctl.path, *options],
                env={**self.env, **({"LD_PRELOAD": self.preload} if self.preload else {})},
            log=os.path.join(self.dir, "vswitchd.out"), netns=True)

        def serving():
            self.vswitchd.check()
            return os.path.exists(self.appctl.path)
        wait_for("ovs-vswitchd's control socket", serving, START_SECONDS)
        # A change makes ovs-vsctl wait until vswitchd has caught up with the database.
        self.vsctl("set", "Open_vSwitch", ".", "external_ids:lab=1")

    def stop(self):
        self.appctl.close()
        for child in self.vswitchd, self.server:
            if child:
                child.stop()

    def kill_vswitchd(self):
        self.appctl.close()
        self.vswitchd.kill()
        # What it would have removed, and whose being there is how start_vswitchd() knows that the next one is.
        for name in os.listdir(self.dir):
            if name == "vswitchd.ctl" or name.endswith((".mgmt", ".snoop")):
                os.unlink(os.path.join(self.dir, name))

    def end_server(self, kindly):
        """Ends ovsdb-server, by SIGTERM or by SIGKILL."""
        (self.server.stop if kindly else self.server.kill)()
        # Its being there is how start_server() knows that the next one is.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.dir, "db.sock"))

    def check(self):
        self.server.check()
        self.vswitchd.check()

    def log_text(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    #
    # Configuration.
    #

    def vsctl(self, *args, check=True):
        """What ovs-vsctl says; it waits until vswitchd has done as it is told."""
        return run([self.program("utilities/ovs-vsctl"), "--db=" + self.db, "--timeout=20", *args], env=self.env,
                   check=check).stdout

    def ofctl(self, *args, stdin=None, check=True):
        """What ovs-ofctl says.  It ends when the switch has answered the barrier that follows its changes."""
        return run([self.program("utilities/ovs-ofctl"), *args], env=self.env, stdin=stdin, check=check).stdout

    def controller(self, bridge):
        return Controller(os.path.join(self.dir, bridge + ".mgmt"))

    def add_bridge(self, name, *settings):
        """Forwards nothing that no rule says."""
        self.vsctl("add-br", name, "--", "set", "Bridge", name, "datapath_type=netdev", "fail_mode=secure", *settings)

    def add_port(self, bridge, name, ofport, *settings):
        self.vsctl("add-port", bridge, name, "--", "set", "Interface", name, "type=dpdkr", f"ofport_request={ofport}",
                   *settings)
        got = self.interfaces()[name]
        if got["error"]:
            raise LabError(f"port {name}: {got['error']}")
        if got["ofport"] != ofport:
            raise LabError(f"port {name} has OpenFlow port {got['ofport']}, not {ofport}")

    def add_flow(self, bridge, flow):
        self.ofctl("add-flow", bridge, flow)

    def del_flows(self, bridge, *flow):
        self.ofctl(*(("--strict",) if flow else ()), "del-flows", bridge, *flow)

    #
    # Looking.
    #

    def table(self, name, *columns):
        """Rows of a table of the database, as dicts."""
        out = json.loads(self.vsctl("--format=json", "--columns=" + ",".join(columns), "list", name))
        return [{h: _value(v) for h, v in zip(out["headings"], row)} for row in out["data"]]

    def interfaces(self):
        rows = self.table("Interface", "name", "type", "ofport", "error", "status", "statistics", "mtu", "link_state")
        return {row["name"]: row for row in rows}

    def refresh_statistics(self):
        """Has vswitchd write the Interface rows' statistics now: it does when the interval changes."""
        self.stats_interval = 5001 if self.stats_interval == 5000 else 5000
        self.vsctl("set", "Open_vSwitch", ".", f"other_config:stats-update-interval={self.stats_interval}")

    def flows(self, bridge):
        return parse.flows(self.ofctl("dump-flows", "--no-names", bridge))

    def ports(self, bridge):
        """{OpenFlow port number as text: counters}."""
        return parse.ports(self.ofctl("dump-ports", bridge))

    def links(self):
        """What p2plink/show tells of each port, by name."""
        shown = json.loads(self.appctl("p2plink/show", "--json"))
        return {port["name"]: port for port in shown["ports"]}

    def state(self, port):
        return self.links()[port]["state"]

    def wait_state(self, wanted, seconds=20, interval=0.002):
        """Waits until each port of 'wanted' (name: state, or a tuple of states) is in its state.  Returns the seconds
        that took."""
        begin = time.monotonic()
        last = {}

        def there():
            links = self.links()
            last.clear()
            for name, states in wanted.items():
                if links[name]["state"] not in ((states,) if isinstance(states, str) else states):
                    last[name] = links[name]
            return not last

        def what_else():
            self.check()
            return "; ".join(f"{name} is {self.describe(link)}" for name, link in last.items())

        words = ", ".join(f"{n} {s if isinstance(s, str) else ' or '.join(s)}" for n, s in wanted.items())
        wait_for(words, there, seconds, interval, what_else)
        return time.monotonic() - begin

    @staticmethod
    def describe(link):
        """A link in words, with the reason why it is not direct."""
        words = link["state"]
        for key in "why", "last_error":
            if link.get(key):
                words += f" ({key}: {link[key]})"
        return words
