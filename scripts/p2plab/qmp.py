# SPDX-License-Identifier: Apache-2.0
"""A person at a VM's monitor: QMP commands one after the other."""

import json
import socket

from .waiting import LabError


class Qmp:
    def __init__(self, path, seconds=20):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(seconds)
        self.sock.connect(path)
        self.lines = self.sock.makefile("r", encoding="utf-8")
        self.lines.readline()  # The greeting.
        self({"execute": "qmp_capabilities"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lines.close()
        self.sock.close()

    def __call__(self, command):
        """What the command returns; raises LabError if it is refused."""
        self.sock.sendall(json.dumps(command).encode() + b"\n")
        while True:
            line = self.lines.readline()
            if not line:
                raise LabError("the monitor has closed the connection")
            said = json.loads(line)
            if "error" in said:
                raise LabError(f"{command['execute']}: {said['error']['desc']}")
            if "return" in said:
                return said["return"]
