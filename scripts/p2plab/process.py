# SPDX-License-Identifier: Apache-2.0
"""Carries a VNF as a process on this host: control over pipes."""

import os
import select
import subprocess

from . import build, signals
from .proc import Child
from .waiting import LabError


class ProcessCarrier:
    kind = "process"

    def __init__(self, name, folder, socket, wait, env=None):
        self.name = name
        self.log = os.path.join(folder, name + ".err")
        self.socket = socket
        self.wait = wait
        self.env = env
        self.child = None

    def start(self, program, arguments):
        command = [build.vnf(program), *arguments, "--socket", self.socket, "--wait", str(self.wait)]
        with open(self.log, "ab") as err, signals.shielded():
            self.child = Child(self.name, command, log=self.log, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=err, env={**os.environ, **build.SANITIZERS, **(self.env or {})})

    @property
    def pid(self):
        return self.child.pid

    def signal(self, signum):
        self.child.signal(signum)

    def send(self, data):
        try:
            self.child.popen.stdin.write(data)
            self.child.popen.stdin.flush()
        except OSError as e:
            self.check()
            raise LabError(f"{self.name} does not listen: {e}") from e

    def receive(self, seconds):
        out = self.child.popen.stdout.fileno()
        return os.read(out, 1 << 16) if select.select([out], [], [], seconds)[0] else b""

    def check(self):
        self.child.check()

    def stop(self):
        if self.child:
            self.child.stop()

    def kill(self):
        self.child.kill()
