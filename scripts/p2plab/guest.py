# SPDX-License-Identifier: Apache-2.0
"""Carries a VNF in a guest of its own (qemu/start-guest.sh): control over the second serial port."""

import os
import re
import select
import shlex
import signal
import socket
import time

from . import build, signals
from .proc import Child, run
from .waiting import LabError, wait_for


def accel():
    """"kvm" or "tcg": what guests run with here."""
    return run([build.start_guest(), "--image", build.image(), "--probe"], seconds=60).stdout.strip()


class GuestCarrier:
    """'options' go to start-guest.sh; 'shell' is what the guest's shell runs, {} being the VNF with its arguments.
    QEMU has a third serial port too, on which to tell() that shell something, and a 'monitor' for others than
    p2plinkd."""
    kind = "guest"

    def __init__(self, name, folder, options=(), wait=90, shell="exec {}", image=None):
        self.name = name
        self.dir = folder
        self.options = list(options)
        self.wait = wait
        self.shell = shell
        self.image = image or build.image()
        self.log = os.path.join(folder, name + ".start")
        self.console = os.path.join(folder, name + ".console")
        self.qmp = os.path.join(folder, name + ".qmp")
        self.tty = os.path.join(folder, name + ".tty")
        self.bell = os.path.join(folder, name + ".bell")
        self.monitor = os.path.join(folder, name + ".monitor")
        self.child = None
        self.sock = None
        self.ringing = None

    def start(self, program, arguments):
        inside = shlex.join([program, *arguments, "--attach", "pci", "--wait", str(self.wait)])
        with signals.shielded():
            self.child = Child(self.name, [
                build.start_guest(), "--image", self.image, "--dir", self.dir, "--name", self.name,
                "--run", self.shell.replace("{}", inside), *self.options, "--",
                "-chardev", f"socket,id=bell,path={self.bell},server=on,wait=off", "-serial", "chardev:bell",
                "-qmp", f"unix:{self.monitor},server=on,wait=off"], log=self.log)
        wait_for(f"the serial port of guest {self.name}", self._connect, 60)

    def _connect(self):
        self.child.check()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self.tty)
        except OSError:
            sock.close()
            return False
        self.sock = sock
        return True

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError as e:
            self.check()
            raise LabError(f"{self.name} does not listen: {e}") from e

    def receive(self, seconds):
        if not self.sock:
            time.sleep(seconds)
            return b""
        if not select.select([self.sock], [], [], seconds)[0]:
            return b""
        data = self.sock.recv(1 << 16)
        if not data:
            self.sock.close()
            self.sock = None
        return data

    def check(self):
        if not self.child.alive() or not self.sock:
            raise LabError(f"guest {self.name} is gone ({self.child.status()}): {self.last_words()}")

    def last_words(self):
        words = self.child.last_words()
        try:
            with open(self.console, "rb") as f:
                words += " | console: " + f.read()[-1000:].decode(errors="replace").strip()
        except OSError:
            pass
        return words

    def stop(self):
        self._hang_up()
        if self.sock:
            self.sock.close()
            self.sock = None
        if self.child:
            self.child.stop(10)

    def kill(self):
        """QEMU dies where it stands, and start-guest.sh says so."""
        self._hang_up()
        os.kill(self.qemu_pid(), signal.SIGKILL)
        self.child.popen.wait(20)

    def tell(self, line):
        """Writes a line to the third serial port, /dev/ttyS2."""
        self._hang_up()      # Or QEMU serves nobody else.
        self.ringing = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.ringing.connect(self.bell)
        self.ringing.sendall(line.encode() + b"\n")
        # QEMU takes in what a client has said only while it is there, so it stays.

    def _hang_up(self):
        if self.ringing:
            self.ringing.close()
            self.ringing = None

    @property
    def pid(self):
        """QEMU's."""
        return self.qemu_pid()

    def signal(self, signum):
        os.kill(self.qemu_pid(), signum)

    def qemu_pid(self):
        found = re.findall(r"\bpid=(\d+)", self.child.last_words())
        if not found:
            raise LabError(f"guest {self.name} has not said what its pid is: {self.child.last_words()}")
        return int(found[-1])
