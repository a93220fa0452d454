# SPDX-License-Identifier: Apache-2.0
"""A client of vswitchd's p2plink socket that does as it is told, also what no honest one would.

The wire format is libp2plink/include/p2plink/control.h."""

import mmap
import os
import socket
import struct

from .waiting import LabError

HELLO, ATTACH, REGION, DETACH, POKE, ERROR, OK = range(1, 8)
VNF, AGENT = 1, 2
_MAGIC = 0x4c503250
_FORMAT = "<IIIiIIIIQQ64s256s"


class Message:
    def __init__(self, data, fd):
        (magic, self.type, self.seq, self.error, self.version, self.version_min, self.role, self.link_id,
         self.generation, self.size, name, text) = struct.unpack(_FORMAT, data)
        if magic != _MAGIC:
            raise LabError(f"not a p2plink message: {data[:16]!r}")
        self.name, self.text = (field.split(b"\0")[0].decode() for field in (name, text))
        self.fd = fd


class Client:
    def __init__(self, path, seconds=60):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(seconds)
        self.sock.connect(path)
        self.seq = 0
        self.regions = []    # Messages with descriptors.
        self.maps = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()
        for memory in self.maps:
            memory.close()
        for message in self.regions:
            os.close(message.fd)

    def receive(self):
        data, fds, _, _ = socket.recv_fds(self.sock, 4096, 1)
        if not data:
            raise LabError("the switch has closed the connection")
        message = Message(data, fds[0] if fds else None)
        if fds:
            self.regions.append(message)
        return message

    def ask(self, kind, name="", *, version=0, version_min=0, role=0):
        """The answer, whatever it is."""
        self.seq += 1
        self.sock.send(struct.pack(_FORMAT, _MAGIC, kind, self.seq, 0, version, version_min, role, 0, 0, 0,
                                   name.encode(), b""))
        while True:
            answer = self.receive()
            if answer.seq == self.seq:
                return answer

    def hello(self, role=VNF, version=1, version_min=1):
        return self.ask(HELLO, role=role, version=version, version_min=version_min)

    def attach(self, port):
        """Attaches as the port's VNF, and introduces itself.  Returns the port region."""
        region = self.ask(ATTACH, port)
        if region.type != REGION:
            raise LabError(f"{port}: {region.text}")
        memory = mmap.mmap(region.fd, region.size)
        self.maps.append(memory)
        vnf_page, = struct.unpack_from("<Q", memory, 208)
        struct.pack_into("<Q", memory, vnf_page, int.from_bytes(os.urandom(8), "little") | 1)
        return region

    def wait_link(self):
        """The link region that the switch hands out next."""
        while True:
            message = self.receive()
            if message.type == REGION and message.link_id:
                return message
