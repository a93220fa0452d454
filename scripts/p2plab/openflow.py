# SPDX-License-Identifier: Apache-2.0
"""A small OpenFlow 1.0 controller: flow-mods as fast as the switch takes them, barriers, errors.

ovs-ofctl is a process for each change; tests that make thousands of changes, or that measure milliseconds, use this."""

import socket
import struct
import time

from .waiting import LabError

VERSION = 1
HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, FLOW_MOD = 0, 1, 2, 3, 14
BARRIER_REQUEST, BARRIER_REPLY = 18, 19
ADD, MODIFY, MODIFY_STRICT, DELETE, DELETE_STRICT = range(5)
NO_PORT, NO_BUFFER = 0xffff, 0xffffffff
UDP, IPV4 = 17, 0x0800

# Wildcard bits: set means "any".
_IN_PORT, _DL_TYPE, _NW_PROTO, _TP_SRC, _TP_DST = 1 << 0, 1 << 4, 1 << 5, 1 << 6, 1 << 7
_ALL = (1 << 22) - 1


def match(in_port=None, udp_dst=None, udp_src=None):
    """struct ofp10_match."""
    wild = _ALL
    wild &= ~_IN_PORT if in_port is not None else _ALL
    if udp_dst is not None or udp_src is not None:
        wild &= ~(_DL_TYPE | _NW_PROTO)
    wild &= ~_TP_DST if udp_dst is not None else _ALL
    wild &= ~_TP_SRC if udp_src is not None else _ALL
    ip = udp_dst is not None or udp_src is not None
    return struct.pack("!IH6s6sHBxHBB2xIIHH", wild, in_port or 0, b"", b"", 0, 0, IPV4 if ip else 0, 0,
                       UDP if ip else 0, 0, 0, udp_src or 0, udp_dst or 0)


def flow_mod(command, priority, match_bytes, output=None, *, xid=0, idle_timeout=0, cookie=0):
    """A whole message.  'output' None: no action, so the packet is dropped."""
    actions = b"" if output is None else struct.pack("!HHHH", 0, 8, output, 0)
    body = match_bytes + struct.pack("!QHHHHIHH", cookie, command, idle_timeout, 0, priority, NO_BUFFER, NO_PORT, 0)
    return struct.pack("!BBHI", VERSION, FLOW_MOD, 8 + len(body) + len(actions), xid) + body + actions


class Controller:
    """A connection to a bridge's management socket."""

    def __init__(self, path, seconds=60):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(seconds)
        try:
            self.sock.connect(path)
        except OSError as e:
            self.sock.close()
            raise LabError(f"{path}: {e}") from e
        self.xid = 0
        self.data = b""
        self.sock.sendall(struct.pack("!BBHI", VERSION, HELLO, 8, 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def barrier(self):
        """Returns when all that was sent before has been done; raises LabError if any of it was refused."""
        self.xid += 1
        self.sock.sendall(struct.pack("!BBHI", VERSION, BARRIER_REQUEST, 8, self.xid))
        while True:
            kind, xid, body = self._receive()
            if kind == BARRIER_REPLY and xid == self.xid:
                return
            if kind == ERROR:
                raise LabError("the switch refused a message: type %d, code %d" % struct.unpack("!HH", body[:4]))
            if kind == ECHO_REQUEST:
                self.sock.sendall(struct.pack("!BBHI", VERSION, ECHO_REPLY, 8 + len(body), xid) + body)

    def _receive(self):
        while len(self.data) < 8 or len(self.data) < struct.unpack("!H", self.data[2:4])[0]:
            more = self.sock.recv(65536)
            if not more:
                raise LabError("the switch has closed the OpenFlow connection")
            self.data += more
        _, kind, length, xid = struct.unpack("!BBHI", self.data[:8])
        body, self.data = self.data[8:length], self.data[length:]
        return kind, xid, body

    def change(self, *messages):
        """Sends flow-mods and waits for the barrier's reply; returns the seconds that took."""
        begin = time.monotonic()
        self.send(b"".join(messages))
        self.barrier()
        return time.monotonic() - begin
