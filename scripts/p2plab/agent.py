# SPDX-License-Identifier: Apache-2.0
"""p2plinkd, which plugs ports and links into guests, for a lab that has guests."""

import json
import os

from . import build, signals
from .proc import Child, run
from .unixctl import Unixctl
from .waiting import LabError, wait_for


class Agent:
    def __init__(self, folder, ovs, options=(), program=None):
        self.dir = folder
        self.ovs = ovs
        self.options = list(options)
        self.program = program
        self.log = os.path.join(folder, "p2plinkd.log")
        self.ctl = os.path.join(folder, "p2plinkd.ctl")
        self.child = None
        self.appctl = Unixctl(self.ctl)

    def start(self):
        with signals.shielded():
            self.child = Child("p2plinkd", [
                self.program or build.agent("p2plinkd"), "--db=" + self.ovs.db, "--p2plink-socket=" + self.ovs.socket,
                "--unixctl=" + self.ctl, "--log-file=" + self.log, "-vconsole:warn", *self.options],
                env=self.ovs.env, log=os.path.join(self.dir, "p2plinkd.out"))

        def serving():
            self.child.check()
            try:
                return self.appctl("version")
            except LabError:
                return None
        wait_for("p2plinkd's control socket", serving, 10)

    def stop(self):
        self.appctl.close()
        if self.child:
            self.child.stop()

    def kill(self):
        self.appctl.close()
        self.child.kill()

    def log_text(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def show(self):
        """Ports and VMs as p2plinkd knows them."""
        return json.loads(self.appctl("p2plinkd/show", "--json"))

    def p2plinkctl(self, *args, check=True):
        """What p2plinkctl says; "commands" is for vswitchd, all else for p2plinkd."""
        target = self.ovs.appctl.path if args[0] == "commands" else self.ctl
        return run([build.agent("p2plinkctl"), "--target=" + target, *args], env=self.ovs.env, check=check)
