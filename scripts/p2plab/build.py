# SPDX-License-Identifier: Apache-2.0
"""Where things lie: the source tree, the build tree ($P2P_BUILD, default build/), the programs in it."""

import os

from .waiting import LabError

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("P2P_BUILD") or os.path.join(ROOT, "build"))

# For programs that are built with them: the library has a handler of its own for that signal.
SANITIZERS = {"ASAN_OPTIONS": "handle_sigbus=0"}


def _there(path, how):
    if not os.path.exists(path):
        raise LabError(f"{path} is missing: '{how}' first")
    return path


def vnf(name):
    """A VNF program for the host."""
    return _there(os.path.join(BUILD, "bin", name), "make all")


def agent(name):
    """p2plinkd or p2plinkctl."""
    return _there(os.path.join(BUILD, "bin", name), "make all")


def ovs(flavour):
    """The build tree of an Open vSwitch: 'ovs', 'ovs-nodpdk' or 'ovs-vanilla'."""
    return os.path.dirname(os.path.dirname(
        _there(_vswitchd(flavour), "make all" if flavour == "ovs" else f"make {flavour}")))


def has_ovs(flavour):
    return os.path.exists(_vswitchd(flavour))


def _vswitchd(flavour):
    # Vanilla is what it is: there is one for all variants of the build.
    base = os.path.join(ROOT, "build") if flavour == "ovs-vanilla" else BUILD
    return os.path.join(base, flavour, "vswitchd", "ovs-vswitchd")


def image():
    """The folder of the guest image; one image is there for all variants of the build."""
    path = os.path.join(ROOT, "build", "image")
    _there(os.path.join(path, "initrd.gz"), "make image")
    return path


def start_guest():
    return os.path.join(ROOT, "qemu", "start-guest.sh")
