# SPDX-License-Identifier: Apache-2.0
"""What ovs-appctl does, on a connection that stays: JSON-RPC on a daemon's control socket."""

import json
import socket

from .waiting import LabError


class Unixctl:
    def __init__(self, path, seconds=60):
        self.path = path
        self.seconds = seconds
        self.sock = None
        self.n = 0

    def close(self):
        if self.sock:
            self.sock.close()
            self.sock = None

    def __call__(self, command, *args):
        """Returns what the command says; raises LabError if it fails."""
        try:
            return self._ask(command, args)
        except (OSError, ValueError) as e:
            self.close()
            raise LabError(f"ovs-appctl {command}: {e}") from e

    def _ask(self, command, args):
        if not self.sock:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.seconds)
            self.sock.connect(self.path)
        self.n += 1
        self.sock.sendall(json.dumps({"id": self.n, "method": command, "params": list(args)}).encode())
        answer = self._receive()
        if answer.get("id") != self.n:
            raise ValueError(f"an answer to something else: {answer}")
        if answer.get("error") is not None:
            raise LabError(f"ovs-appctl {command}: {str(answer['error']).strip()}")
        return answer.get("result") or ""

    def _receive(self):
        data = b""
        while True:
            more = self.sock.recv(1 << 20)
            if not more:
                raise OSError("the daemon has closed the connection")
            data += more
            try:
                return json.loads(data)
            except ValueError:
                continue  # The rest is to come.
